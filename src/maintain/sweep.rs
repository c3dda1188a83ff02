//! Sweeping: files that others replace go after the grace, and so do leftovers.
//!
//! Owns the order of unlinking: a file goes only when every name in its own `replaces` is
//! absent and the directory was synced after that was seen, else the dead would return
//! (spec 8.10).

use std::collections::{BTreeSet, HashSet};

use crate::error::Result;
use crate::format::id::{FileKind, Id};
use crate::fs::EntryKind;
use crate::maintain::reconcile::Books;
use crate::planted::{Bug, is_planted};
use crate::schema::Table;
use crate::segment::files::{StoreRoot, partition_dir, partitions};
use crate::snapshot::lister::{FileFacts, Lister};
use crate::store_files::generation;
use crate::store_files::txn::{self, TxnState};

/// A `.tmp` file younger than this may belong to a writer that has not locked it yet.
const TMP_AGE_NS: i64 = 60_000_000_000;

/// How long replaced files stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grace {
    /// As the options say, so that readers that listed them can open them.
    Kept,
    /// What has expired goes at once, the rest as the options say: the disk is full.
    SkippedForExpired,
}

/// What sweeping did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Files unlinked.
    pub(crate) files: u64,
}

/// Unlinks what has been replaced for longer than the grace, files of imports that never
/// committed, and abandoned `.tmp` files. The caller holds the maintenance lock.
///
/// A file whose import has no record stays if the catalog knows that it counted once: then
/// the record was lost, and with the file the rows would be.
///
/// # Errors
///
/// `Io`: what was not unlinked stays until the next sweep.
pub(crate) fn sweep(
    root: &StoreRoot,
    lister: &Lister,
    books: &mut Books,
    grace: Grace,
) -> Result<Swept> {
    let mut swept = Swept::default();
    let files = lister.files()?;
    let there: HashSet<Id> = files.iter().map(|facts| facts.name.uuid).collect();
    let mut going = Vec::new();
    for facts in &files {
        let replaces = facts.header.as_ref().map_or(&[][..], |header| &header.replaces);
        // A file goes only after all that it replaces.
        if may_go(root, facts, &files, books, grace)?
            && (is_planted(Bug::LetDeadReturn) || !replaces.iter().any(|uuid| there.contains(uuid)))
        {
            going.push(facts);
        }
    }
    let dirs: BTreeSet<_> = going.iter().filter_map(|facts| facts.path.parent()).collect();
    // What replaces them must be durable under its name, and so must be the absence of what
    // they replace, else the dead would return.
    if !is_planted(Bug::DeleteBeforeDurable) {
        dirs.iter().try_for_each(|dir| root.fs.sync_dir(dir))?;
    }
    books.delete(root, "replaced, or of an import that was not committed", &going, || {
        for facts in &going {
            match root.fs.remove(&facts.path) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        dirs.iter().try_for_each(|dir| root.fs.sync_dir(dir))
    })?;
    swept.files = going.len() as u64 + sweep_tmp(root)? + sweep_imports(root)?;
    if swept.files > 0 {
        generation::bump(root.fs.as_ref(), &root.dir)?;
    }
    Ok(swept)
}

/// Removes what imports left that died before their commit; their files are gone.
fn sweep_imports(root: &StoreRoot) -> Result<u64> {
    let fs = root.fs.as_ref();
    let mut swept = 0;
    for id in txn::list_unfinished(fs, &root.dir)? {
        swept += u64::from(txn::remove_dead(fs, &root.dir, &id)?);
    }
    Ok(swept)
}

fn may_go(
    root: &StoreRoot,
    facts: &FileFacts,
    files: &[FileFacts],
    books: &Books,
    grace: Grace,
) -> Result<bool> {
    if !facts.is_replaced {
        let txn = facts.header.as_ref().and_then(|header| header.txn);
        return match txn.filter(|_| !facts.is_committed) {
            Some(txn) => {
                let state = txn::judge(root.fs.as_ref(), &root.dir, &txn)?;
                Ok(state == TxnState::Dead && !books.was_committed(facts)?)
            }
            None => Ok(false),
        };
    }
    let kept = i64::try_from(root.options.unlink_grace.as_micros()).unwrap_or(i64::MAX);
    let by = files
        .iter()
        .filter(|other| (other.table, other.partition) == (facts.table, facts.partition))
        .filter(|other| other.is_committed)
        .filter_map(|other| other.header.as_ref())
        .filter(|header| header.replaces.contains(&facts.name.uuid));
    let (mut replaced_at, mut has_expired) = (None, false);
    for header in by {
        let at = replaced_at.unwrap_or(header.created);
        replaced_at = Some(at.min(header.created));
        has_expired |= header.kind == FileKind::Tombstone;
    }
    if grace == Grace::SkippedForExpired && has_expired {
        return Ok(true);
    }
    Ok(replaced_at.is_some_and(|at| root.now().saturating_sub(at) >= kept))
}

fn sweep_tmp(root: &StoreRoot) -> Result<u64> {
    let fs = root.fs.as_ref();
    let mut swept = 0;
    for table in Table::ALL {
        for partition in partitions(fs, &root.dir, table)? {
            let dir = partition_dir(&root.dir, table, partition);
            for entry in fs.list(&dir)? {
                if entry.kind != EntryKind::File || !entry.name.ends_with(".tmp") {
                    continue;
                }
                let path = dir.join(&entry.name);
                let Ok(metadata) = fs.metadata(&path) else { continue };
                let age = root.now().saturating_mul(1_000).saturating_sub(metadata.modified);
                let Ok(file) = fs.open_write(&path) else { continue };
                if age > TMP_AGE_NS && file.try_lock()? {
                    fs.remove(&path)?;
                    swept += 1;
                }
            }
        }
    }
    Ok(swept)
}
