//! Backup: a directory that opens as a store, with all that one snapshot sees (spec 8.11).
//!
//! Owns which files are taken, and the order of the steps. Immutable files are linked where
//! the file system can do that and copied elsewhere; of an active segment the part is copied
//! that the snapshot saw, up to its last COMMIT. The mark says first that the backup is not
//! finished, and last that it is, when everything else is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::id::{FileKind, Id};
use crate::fs::{EntryKind, FileSystem, read_whole, sync_name};
use crate::maintain::reconcile::{Books, facts_of};
use crate::report::BackupReport;
use crate::schema::Table;
use crate::segment::Segment;
use crate::segment::files::{FileName, StoreRoot, ensure_dir, partition_dir, partitions};
use crate::snapshot::lister::{FileFacts, Lister};
use crate::store_files::backup_mark::{self, BackupMark};
use crate::store_files::maintenance::{self, MaintenanceLock};
use crate::store_files::{identity, retention, txn};
use crate::time::Partition;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// What the name of a copy that is being written ends in.
const ASIDE: &str = ".tmp";
/// Most bytes of a small file beside the segments.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Backs the store up into the directory `to`. The caller holds the maintenance lock, so that
/// no listed file goes away.
///
/// # Errors
///
/// `NotOurFile` for a directory that holds anything but an earlier backup of this store;
/// `InvalidArgument` for one inside the store; `Io`, `NoSpace`: then the backup says that it is
/// not finished, and the next one goes on from there.
pub(crate) fn back_up(
    root: &StoreRoot,
    lister: &Lister,
    lock: &MaintenanceLock,
    to: &Path,
) -> Result<BackupReport> {
    let fs = root.fs.as_ref();
    if is_inside(root, to) {
        let message = "a backup inside the store that it is of";
        return Err(Error::invalid(message).with_path(to));
    }
    prepare(root, to)?;
    let mut mark = BackupMark { store_id: root.id, begun: root.now(), is_finished: false };
    backup_mark::write(fs, to, &mark)?;

    // An import that commits from here on is in the next backup.
    let imports = txn::list_ids(fs, &root.dir)?;
    let mut files = lister.files()?;
    files.retain(|facts| {
        let txn = facts.header.as_ref().and_then(|header| header.txn);
        facts.counts() && txn.is_none_or(|txn| imports.contains(&txn))
    });
    let mut report = BackupReport::default();
    small_files(root, to, &mut report)?;
    import_records(root, to, &imports)?;
    let mut kept: BTreeMap<(Table, Partition), BTreeSet<String>> = BTreeMap::new();
    for facts in &files {
        if copy_segment(root, facts, to, &mut report)? {
            let place = (facts.table, facts.partition);
            kept.entry(place).or_default().insert(facts.name.to_string());
        }
    }
    remove_others(fs, to, &kept, &mut report)?;
    copy_catalog(root, lister, lock, to, &files)?;
    fs.sync_dir(to)?;
    mark.is_finished = true;
    backup_mark::write(fs, to, &mark)?;
    Ok(report)
}

/// Whether the path lies in the store's directory, whatever way it is written.
fn is_inside(root: &StoreRoot, to: &Path) -> bool {
    let to = std::path::absolute(to).unwrap_or_else(|_| to.to_path_buf());
    let is_ours = |dir: &Path| {
        identity::read_store_file(root.fs.as_ref(), dir)
            .is_ok_and(|store| store.store_id == root.id)
    };
    to == root.dir || to.ancestors().skip(1).any(is_ours)
}

/// Makes the directory, or makes sure that it may be written to.
fn prepare(root: &StoreRoot, to: &Path) -> Result<()> {
    let fs = root.fs.as_ref();
    match fs.create_private_dir(to) {
        Err(error) if !error.is_already_there() => return Err(error),
        _ => {}
    }
    sync_name(fs, to)?;
    if fs.list(to)?.iter().all(|entry| backup_mark::is_begun(&entry.name)) {
        return Ok(());
    }
    let refuse = |message: &str| {
        Err(Error::new(ErrorKind::NotOurFile, message)
            .with_path(to)
            .with_remedy("name another directory, or an empty one"))
    };
    match backup_mark::read(fs, to)? {
        Some(mark) if mark.store_id == root.id => Ok(()),
        Some(_) => refuse("the backup of another store"),
        None => refuse("not a backup, or one that was opened for writing, and not empty"),
    }
}

/// `store.json` and `retention.json`, as far as they are sound: without them the headers say
/// what the store is, and everything is kept.
fn small_files(root: &StoreRoot, to: &Path, report: &mut BackupReport) -> Result<()> {
    let fs = root.fs.as_ref();
    let sound = [
        (identity::NAME, identity::read_store_file(fs, &root.dir).map(drop)),
        (retention::NAME, retention::read_retention(fs, &root.dir).map(drop)),
    ];
    for (name, read) in sound {
        match read {
            Ok(()) => {
                let bytes = read_whole(fs, &root.dir.join(name), SMALL_BYTES_MAX)?;
                crate::fs::publish(fs, to, name, &bytes, true)?;
            }
            Err(error) => {
                report.notes.push(format!("{error}; it is not in the backup"));
                remove(fs, &to.join(name))?;
            }
        }
    }
    Ok(())
}

/// The records of imports, without which their files would not count.
fn import_records(root: &StoreRoot, to: &Path, imports: &BTreeSet<Id>) -> Result<()> {
    let fs = root.fs.as_ref();
    let (from, to) = (root.dir.join(txn::DIR), to.join(txn::DIR));
    if imports.is_empty() && fs.metadata(&to).is_err() {
        return Ok(());
    }
    ensure_dir(fs, &to)?;
    for entry in fs.list(&to)? {
        let is_import = Id::parse(&entry.name).is_some_and(|id| imports.contains(&id));
        if entry.kind == EntryKind::File && !is_import {
            remove(fs, &to.join(&entry.name))?;
        }
    }
    for id in imports {
        let name = id.to_string();
        let bytes = read_whole(fs, &from.join(&name), SMALL_BYTES_MAX)?;
        crate::fs::publish(fs, &to, &name, &bytes, true)?;
    }
    fs.sync_dir(&to)
}

/// Links or copies a segment file, unless the backup has it; false if its owner, which had
/// written no row to it, has removed it.
fn copy_segment(
    root: &StoreRoot,
    facts: &FileFacts,
    to: &Path,
    report: &mut BackupReport,
) -> Result<bool> {
    let fs = root.fs.as_ref();
    let found = match fs.metadata(&facts.path) {
        Ok(found) => found,
        Err(error) if error.is_not_found() && facts.name.kind == FileKind::Active => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    // Below the end that the snapshot saw an active never changes.
    let is_active = facts.name.kind == FileKind::Active;
    let len = facts.segment().filter(|_| is_active).map_or(found.len, Segment::bytes);
    report.files += 1;
    report.rows += facts.segment().map_or(0, Segment::rows);
    report.bytes += len;
    ensure_dir(fs, &to.join(facts.table.name()))?;
    let dir = partition_dir(to, facts.table, facts.partition);
    ensure_dir(fs, &dir)?;
    let target = dir.join(facts.name.to_string());
    match fs.metadata(&target) {
        Ok(there) if there.len == len => {
            report.files_unchanged += 1;
            return Ok(true);
        }
        Ok(_) if !is_active => fs.remove(&target)?,
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    if is_active || !fs.link(&facts.path, &target)? {
        copy(fs, &facts.path, &target, len)?;
        report.bytes_copied += len;
    } else {
        report.files_linked += 1;
    }
    Ok(true)
}

/// Copies the first bytes of a file; durable but for the name, which the copy has only when
/// its bytes are: a length says nothing about them.
pub(super) fn copy(fs: &dyn FileSystem, from: &Path, to: &Path, len: u64) -> Result<()> {
    let mut aside = to.as_os_str().to_owned();
    aside.push(ASIDE);
    let aside = Path::new(&aside);
    remove(fs, aside)?;
    let source = fs.open(from)?;
    let target = fs.create(aside)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < len {
        let most = usize::try_from(len - offset).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let part = buffer.get_mut(..most).unwrap_or_default();
        crate::fs::read_exact_at(&*source, part, offset)?;
        target.write_all_at(part, offset)?;
        offset += most as u64;
    }
    target.sync_data()?;
    drop(target);
    fs.rename(aside, to)
}

/// Removes the files of an earlier backup that do not count any more, since what replaced
/// them may have been replaced itself, and makes the names of all others durable.
fn remove_others(
    fs: &dyn FileSystem,
    to: &Path,
    kept: &BTreeMap<(Table, Partition), BTreeSet<String>>,
    report: &mut BackupReport,
) -> Result<()> {
    for table in Table::ALL {
        for partition in partitions(fs, to, table)? {
            let dir = partition_dir(to, table, partition);
            let kept = kept.get(&(table, partition));
            for entry in fs.list(&dir)?.iter().filter(|entry| entry.kind == EntryKind::File) {
                let is_kept = kept.is_some_and(|kept| kept.contains(&entry.name));
                if FileName::parse(&entry.name).is_some() && !is_kept {
                    fs.remove(&dir.join(&entry.name))?;
                    report.files_removed += 1;
                } else if entry.name.ends_with(ASIDE) {
                    fs.remove(&dir.join(&entry.name))?;
                }
            }
            fs.sync_dir(&dir)?;
        }
    }
    Ok(())
}

/// Copies the catalog, and takes from the copy what only the store has: files that are
/// replaced are not in the backup, and would be taken for lost.
fn copy_catalog(
    root: &StoreRoot,
    lister: &Lister,
    lock: &MaintenanceLock,
    to: &Path,
    files: &[FileFacts],
) -> Result<()> {
    let fs = root.fs.as_ref();
    // Of an earlier backup, with the mark that goes with it.
    let names = catalog::file_names();
    for name in names.iter().map(String::as_str).chain([maintenance::NAME]) {
        remove(fs, &to.join(name))?;
    }
    let mut books = Books::open(root, lock)?;
    books.reconcile(root, lister)?;
    books.back_up(fs, to)?;
    let rules = books.rules(root)?;
    let (mut copy, _) = catalog::open_writer(fs, to, &root.id)?;
    let facts: Vec<_> = files.iter().filter_map(facts_of).collect();
    let lost: BTreeSet<Id> = books.missing.iter().map(|missing| missing.uuid).collect();
    // Until it is marked as whole, a power cut may take anything.
    let found = copy.reconcile(&facts, &rules, &|_| Ok(()))?;
    let only_here: Vec<Id> =
        found.missing.iter().map(|it| it.uuid).filter(|uuid| !lost.contains(uuid)).collect();
    copy.forget_missing(&only_here)?;
    Ok(())
}

pub(super) fn remove(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    match fs.remove(path) {
        Err(error) if error.is_not_found() => Ok(()),
        done => done,
    }
}
