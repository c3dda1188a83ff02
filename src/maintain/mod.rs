//! Background work: seal, merge, expire, sweep, reconcile, verify, repair, back up; the
//! rules of retention.
//!
//! Each job writes new files that name what they replace, and unlinks what has been
//! replaced for longer than the grace. A crash between any two steps leaves extra files,
//! never missing rows. All but the sealing of a process's own segments runs under the
//! store's maintenance lock.

pub(crate) mod backup;
pub(crate) mod clock;
pub(crate) mod compact;
pub(crate) mod expire;
pub(crate) mod health;
pub(crate) mod merge;
pub(crate) mod pass;
mod quarantine;
pub(crate) mod reconcile;
pub(crate) mod repair;
pub(crate) mod rules;
pub(crate) mod scheduler;
pub(crate) mod sealer;
pub(crate) mod sweep;
mod tiers;
pub(crate) mod verify;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::format::layout::FRAMES_OFFSET;
use crate::fs::FileSystem;
use crate::maintain::reconcile::Books;
use crate::report::{ImportReport, StoreStats, TableStats};
use crate::schema::Table;
use crate::segment::Segment;
use crate::segment::files::{StoreRoot, partition_dir, partitions, segment_files};
use crate::segment::tombstone::Tombstone;
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::maintenance::{MaintenanceLock, try_maintenance_lock};
use crate::store_files::{generation, reserve, txn};
use crate::sync::thread;
use crate::time::Timestamp;

/// How long a wait for the maintenance lock sleeps between two tries.
const LOCK_EVERY: Duration = Duration::from_millis(20);

/// What a round of merging, sweeping and reconciling did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Rows sealed from dead processes' active segments.
    pub(crate) rows_recovered: u64,
    /// Whether the catalog was built anew.
    pub(crate) catalog_rebuilt: bool,
    /// One line per thing that a person should know.
    pub(crate) notes: Vec<String>,
}

/// Merges what is dead or small, unlinks what has been replaced, and brings the catalog up
/// to date; `None` when another process holds the maintenance lock.
///
/// # Errors
///
/// `Io`, `NoSpace`: what was not done is done next time.
pub(crate) fn merge_and_sweep(
    root: &StoreRoot,
    lister: &Lister,
    reach: merge::Reach,
) -> Result<Option<Done>> {
    let fs = root.fs.as_ref();
    let Some(lock) = try_maintenance_lock(fs, &root.dir)? else { return Ok(None) };
    let merged = merge::merge_dead(root, lister, &lock, reach).and_then(|dead| {
        merge::merge_small(root, lister)?;
        Ok(dead)
    });
    let mut books = match sweep_and_reconcile(root, lister, &lock) {
        // On a full disk, what makes room again needs some itself: that is the reserve's use.
        Err(error) if error.kind() == ErrorKind::NoSpace => {
            reserve::give_up_reserve(fs, &root.dir)?;
            sweep_and_reconcile(root, lister, &lock)?
        }
        done => done?,
    };
    let dead = merged?;
    // Best effort: without the room for it, a later round makes it.
    let _ = reserve::ensure_reserve(fs, &root.dir);
    let mut notes = dead.notes;
    notes.append(&mut books.notes);
    Ok(Some(Done {
        rows_recovered: dead.rows,
        catalog_rebuilt: books.rebuilt || dead.catalog_rebuilt,
        notes,
    }))
}

/// As [`merge_and_sweep`], if a partition has so many active segments that a writer that ends
/// should see to them, which adds one of its own.
///
/// # Errors
///
/// As [`merge_and_sweep`].
pub(crate) fn merge_where_crowded(root: &StoreRoot, lister: &Lister) -> Result<()> {
    if lister.most_actives()? > merge::DEAD_ACTIVES_MAX {
        merge_and_sweep(root, lister, merge::Reach::Crowded)?;
    }
    Ok(())
}

fn sweep_and_reconcile(root: &StoreRoot, lister: &Lister, lock: &MaintenanceLock) -> Result<Books> {
    let mut books = Books::open(root, lock)?;
    sweep::sweep(root, lister, &mut books, sweep::Grace::Kept)?;
    books.reconcile(root, lister)?;
    Ok(books)
}

/// Waits for the maintenance lock.
///
/// # Errors
///
/// `Locked` when it is not to be had in `patience`.
pub(crate) fn wait_for_lock(root: &StoreRoot, patience: Duration) -> Result<MaintenanceLock> {
    let tries = patience.as_millis() / LOCK_EVERY.as_millis();
    for _ in 0..=tries {
        if let Some(lock) = try_maintenance_lock(root.fs.as_ref(), &root.dir)? {
            return Ok(lock);
        }
        thread::sleep(LOCK_EVERY);
    }
    Err(Error::new(ErrorKind::Locked, "another process is doing maintenance on the store")
        .with_path(&root.dir)
        .with_remedy("try again when it is done"))
}

/// Takes a committed import back.
///
/// # Errors
///
/// `InvalidArgument` for an id that was not imported or whose files have been replaced;
/// `Locked`, `Io`.
pub(crate) fn undo_import(
    root: &StoreRoot,
    lister: &Lister,
    id: &str,
    patience: Duration,
) -> Result<ImportReport> {
    let fs = root.fs.as_ref();
    let unknown = || Error::invalid(format!("import {id:?}: no such import"));
    let import = Id::parse(id).and_then(Id::some).ok_or_else(unknown)?;
    let lock = wait_for_lock(root, patience)?;
    let record = txn::read_committed(fs, &root.dir, &import)?.ok_or_else(unknown)?;
    let files: Vec<FileFacts> = lister
        .files()?
        .into_iter()
        .filter(|facts| facts.header.as_ref().and_then(|header| header.txn) == Some(import))
        .collect();
    let whole = record
        .files
        .iter()
        .all(|uuid| files.iter().any(|facts| facts.name.uuid == *uuid && !facts.is_replaced));
    if !whole {
        return Err(Error::invalid(format!(
            "import {id}: its rows have been merged with others since, it cannot be undone"
        )));
    }
    let deleted: Vec<&FileFacts> = files.iter().collect();
    Books::open(root, &lock)?.delete(root, &format!("import {id} undone"), &deleted, || {
        txn::undo(fs, &root.dir, &import)?;
        generation::bump(fs, &root.dir)?;
        for facts in &files {
            // What stays is of no committed transaction: a sweep removes it.
            let _ = fs.remove(&facts.path);
        }
        Ok(())
    })?;
    Ok(record.report())
}

/// Rows, bytes and ranges by table and kind of file.
///
/// # Errors
///
/// `Io` when a directory cannot be read.
pub(crate) fn stats(lister: &Lister) -> Result<StoreStats> {
    let mut stats = StoreStats::default();
    for facts in lister.files()? {
        let size = match &facts.content {
            Content::Tombstone(tombstone) => {
                stats.damaged_gone += u64::from(facts.counts() && tombstone.is_of_damage());
                Size::of_tombstone(tombstone)
            }
            Content::Sealed(segment) => Size::of(segment.as_ref()),
            Content::Active(segment) => Size::of(segment.as_ref()),
            Content::Bad(_) => {
                stats.damaged_files += u64::from(!facts.is_replaced);
                continue;
            }
        };
        if facts.counts() {
            count(&mut stats, &facts, size);
        } else {
            stats.replaced_bytes += size.bytes;
        }
    }
    Ok(stats)
}

/// Size of one file.
struct Size {
    rows: u64,
    bytes: u64,
    stamps: Option<(i64, i64)>,
}

impl Size {
    fn of(segment: &dyn Segment) -> Self {
        Self { rows: segment.rows(), bytes: segment.bytes(), stamps: segment.stamps() }
    }

    fn of_tombstone(tombstone: &Tombstone) -> Self {
        let (rows, bytes) = (tombstone.rows(), tombstone.bytes());
        Self { rows, bytes, stamps: tombstone.stamps() }
    }
}

fn count(stats: &mut StoreStats, facts: &FileFacts, size: Size) {
    let (table, kind) = (facts.table.name(), facts.name.kind);
    let is_gone = kind == FileKind::Tombstone;
    let entries = if is_gone { &mut stats.gone } else { &mut stats.tables };
    let kind = kind.extension();
    let found = entries.iter().position(|entry| (entry.table, entry.kind) == (table, kind));
    let index = found.unwrap_or_else(|| {
        let empty = TableStats { table, kind, files: 0, rows: 0, bytes: 0, from: None, to: None };
        entries.push(empty);
        entries.len() - 1
    });
    let entry = &mut entries[index];
    entry.files += 1;
    entry.rows += size.rows;
    entry.bytes += size.bytes;
    if let Some((min, max)) = size.stamps {
        let (min, max) = (Timestamp::clamped(min), Timestamp::clamped(max));
        entry.from = Some(entry.from.map_or(min, |from| from.min(min)));
        entry.to = Some(entry.to.map_or(max, |to| to.max(max)));
    }
}

/// The store id that all readable headers agree on; `None` if there is no header.
///
/// # Errors
///
/// `Corrupt` when headers disagree; `Io`.
pub(crate) fn id_of_headers(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Id>> {
    let mut ids = BTreeSet::new();
    for table in Table::ALL {
        for partition in partitions(fs, dir, table)? {
            let place = partition_dir(dir, table, partition);
            for name in segment_files(fs, &place)? {
                let mut bytes = vec![0; FRAMES_OFFSET];
                let read = fs
                    .open(&place.join(name.to_string()))
                    .and_then(|file| file.read_at(&mut bytes, 0));
                let Ok(read) = read else { continue };
                bytes.truncate(read);
                ids.extend(Header::decode(&bytes).map(|copies| copies.header.store_id));
            }
        }
    }
    match ids.len() {
        0 => Ok(None),
        1 => Ok(ids.into_iter().next()),
        count => Err(Error::new(
            ErrorKind::Corrupt,
            format!("store.json cannot be read, and the segments name {count} different stores"),
        )
        .with_path(dir)),
    }
}
