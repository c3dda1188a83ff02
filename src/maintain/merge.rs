//! Merging: dead processes' active segments and small sealed ones become larger ones.
//!
//! Owns which files are merged. A damaged file is never merged: it stays until repaired.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::column::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::id::{FileKind, Id};
use crate::fs::File;
use crate::limits::REPLACES_MAX;
use crate::maintain::reconcile::{Books, emptied_note};
use crate::planted::{Bug, is_planted};
use crate::schema::Table;
use crate::segment::Segment;
use crate::segment::active::{ActiveSegment, ActiveTail, TornTail};
use crate::segment::files::{StoreRoot, ensure_dir, seal_rows};
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::generation;
use crate::store_files::maintenance::MaintenanceLock;
use crate::time::{MICROS_PER_HOUR, Partition};

/// A partition with more dead actives than this has them merged by the next writer.
pub(super) const DEAD_ACTIVES_MAX: usize = 64;
/// Dead actives of a partition with more bytes than this are merged by the next writer.
const DEAD_BYTES_MAX: u64 = 1 << 20;
/// More small sealed segments than this are merged.
const SMALL_SEGMENTS_MAX: usize = 8;
/// Files of an import are left alone this long, so that the import can be undone.
const UNDO_MICROS: i64 = 24 * MICROS_PER_HOUR;
/// Most bytes of a torn tail that are set aside.
const TORN_BYTES_MAX: usize = 64 << 20;

/// What merging did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Files that were merged.
    pub(crate) inputs: u64,
    /// Segments that replace them.
    pub(crate) outputs: u64,
    /// Rows in them.
    pub(crate) rows: u64,
    /// One line per torn tail that was set aside, and per active of which no row is left.
    pub(crate) notes: Vec<String>,
    /// Whether the catalog was made anew for it.
    pub(crate) catalog_rebuilt: bool,
}

/// An active segment whose owner is gone; its lock is held here.
struct Dead {
    _lock: Arc<dyn File>,
    facts: FileFacts,
    view: Arc<ActiveSegment>,
    torn: Option<TornTail>,
}

/// Which dead actives are worth merging now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only where there are many, or much in them.
    Crowded,
    /// All.
    All,
}

/// Seals dead actives, many into one segment, and removes those without rows.
///
/// # Errors
///
/// `Io`, `NoSpace`: what is not merged stays as it is.
pub(crate) fn merge_dead(
    root: &StoreRoot,
    lister: &Lister,
    lock: &MaintenanceLock,
    reach: Reach,
) -> Result<Merged> {
    let mut by_partition: BTreeMap<(Table, Partition), Vec<FileFacts>> = BTreeMap::new();
    for facts in lister.files()? {
        // One of an import without a record does not count, and may not come to count by this.
        if facts.name.kind == FileKind::Active && facts.counts() {
            by_partition.entry((facts.table, facts.partition)).or_default().push(facts);
        }
    }
    let mut merged = Merged::default();
    for ((table, partition), files) in by_partition {
        let bytes: u64 = files.iter().filter_map(FileFacts::segment).map(Segment::bytes).sum();
        if reach == Reach::Crowded && files.len() <= DEAD_ACTIVES_MAX && bytes <= DEAD_BYTES_MAX {
            continue;
        }
        let dead = files.into_iter().filter_map(|facts| take_over(root, facts).transpose());
        let mut dead: Vec<Dead> = dead.collect::<Result<_>>()?;
        // An owner may have sealed its file, and let go of the lock, since the files were
        // listed: sealed again, its rows would count twice.
        let now = lister.files()?;
        if unreadable(&now).contains(&(table, partition)) {
            continue;
        }
        let replaced: HashSet<Id> =
            now.iter().filter(|facts| facts.is_replaced).map(|facts| facts.name.uuid).collect();
        dead.retain(|dead| !replaced.contains(&dead.facts.name.uuid));
        for group in groups(dead, root.options.roll_rows, |dead| dead.view.rows()) {
            seal_dead(root, lock, (table, partition), &group, &mut merged)?;
        }
    }
    Ok(merged)
}

/// Takes the lock of an active whose owner is gone; `None` while it lives, or when the file
/// is damaged.
fn take_over(root: &StoreRoot, facts: FileFacts) -> Result<Option<Dead>> {
    let Content::Active(..) = &facts.content else { return Ok(None) };
    let lock = match root.fs.open_write(&facts.path) {
        Ok(lock) => lock,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_ours = lock.try_lock()? || is_planted(Bug::SealLiveActive);
    if !is_ours || lock.inode()? != root.fs.metadata(&facts.path)?.inode {
        return Ok(None);
    }
    // The owner is gone, so what is there now is all there will be.
    let mut tail = ActiveTail::open(&root.fs, &facts.path, facts.relative())?;
    tail.refresh(true)?;
    let view = tail.view();
    if !view.damage().is_empty() {
        return Ok(None);
    }
    let torn = tail.torn();
    if torn.is_some() {
        set_aside(root, &facts, &tail)?;
    }
    Ok(Some(Dead { _lock: lock, facts, view, torn }))
}

/// Copies a torn tail to `quarantine/` (spec 8.9) before the file is sealed without it.
fn set_aside(root: &StoreRoot, facts: &FileFacts, tail: &ActiveTail) -> Result<()> {
    let dir = root.dir.join("quarantine");
    ensure_dir(root.fs.as_ref(), &dir)?;
    let name = format!("{}.torn", facts.name.uuid);
    let bytes = tail.torn_bytes(TORN_BYTES_MAX)?;
    crate::fs::publish(root.fs.as_ref(), &dir, &name, &bytes, true)
}

fn seal_dead(
    root: &StoreRoot,
    lock: &MaintenanceLock,
    (table, partition): (Table, Partition),
    group: &[Dead],
    merged: &mut Merged,
) -> Result<()> {
    let mut batches = Vec::new();
    for dead in group {
        for block in 0..dead.view.blocks().len() {
            batches.push(dead.view.batch(block)?);
        }
        if let Some(torn) = dead.torn {
            merged.notes.push(format!(
                "{}: a torn tail of {} bytes ({} whole frames) after byte {} was set aside as quarantine/{}.torn",
                dead.facts.relative(),
                torn.bytes,
                torn.frames,
                torn.offset,
                dead.facts.name.uuid
            ));
        }
    }
    merged.inputs += group.len() as u64;
    if batches.is_empty() {
        match remove_empty(root, lock, group, merged) {
            // What makes room must not wait for the catalog, which needs some.
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            done => done?,
        }
    } else {
        let replaces: Vec<Id> = group.iter().map(|dead| dead.facts.name.uuid).collect();
        let sealed = seal_rows(root, table, partition, &replaces, None, &batches)?;
        merged.outputs += 1;
        merged.rows += sealed.rows;
    }
    generation::bump(root.fs.as_ref(), &root.dir)
}

/// Removes actives without rows. The catalog may remember some: where they were committed, and a
/// power cut took them before they were flushed, it is told, or they would be missing for ever.
/// Where they were durable, missing is what they are.
fn remove_empty(
    root: &StoreRoot,
    lock: &MaintenanceLock,
    group: &[Dead],
    merged: &mut Merged,
) -> Result<()> {
    let mut books = Books::open(root, lock)?;
    let mut forgotten = Vec::new();
    for dead in group {
        let uuid = dead.facts.name.uuid;
        match books.known(&uuid)? {
            Some(known) if known.durable_rows() > 0 => continue,
            Some(known) => merged.notes.push(emptied_note(uuid, known.rows)),
            None => {}
        }
        forgotten.push(&dead.facts);
    }
    books.delete(root, "without rows", &forgotten, || Ok(()))?;
    for dead in group {
        root.fs.remove(&dead.facts.path)?;
    }
    merged.catalog_rebuilt |= books.rebuilt;
    merged.notes.append(&mut books.notes);
    Ok(())
}

/// Cuts a list into groups of at most `REPLACES_MAX` and about `rows_max` rows.
pub(super) fn groups<T>(items: Vec<T>, rows_max: u64, rows: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut filled = 0;
    for item in items {
        let more = rows(&item);
        let full = groups.last().is_none_or(|group| group.len() >= REPLACES_MAX)
            || (filled > 0 && filled + more > rows_max);
        if full {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += more;
        if let Some(group) = groups.last_mut() {
            group.push(item);
        }
    }
    groups
}

/// Merges small sealed segments where a partition has more than a few. The caller holds
/// the maintenance lock.
///
/// # Errors
///
/// `Io`, `NoSpace`: what is not merged stays as it is.
pub(crate) fn merge_small(root: &StoreRoot, lister: &Lister) -> Result<Merged> {
    let mut by_partition: BTreeMap<(Table, Partition), Vec<FileFacts>> = BTreeMap::new();
    let files = lister.files()?;
    let unreadable = unreadable(&files);
    for facts in files {
        if is_small(root, &facts) && !unreadable.contains(&(facts.table, facts.partition)) {
            by_partition.entry((facts.table, facts.partition)).or_default().push(facts);
        }
    }
    let mut merged = Merged::default();
    for ((table, partition), files) in by_partition {
        if files.len() <= SMALL_SEGMENTS_MAX {
            continue;
        }
        let rows = |facts: &FileFacts| facts.segment().map_or(0, Segment::rows);
        for group in groups(files, root.options.roll_rows, rows) {
            if group.len() > 1 {
                merge_group(root, table, partition, &group, &mut merged)?;
            }
        }
    }
    Ok(merged)
}

/// Partitions with a file whose header cannot be read: it may replace any other, whose rows
/// would then count twice if they were merged.
pub(super) fn unreadable(files: &[FileFacts]) -> HashSet<(Table, Partition)> {
    let bad = files.iter().filter(|facts| facts.header.is_none());
    bad.map(|facts| (facts.table, facts.partition)).collect()
}

/// Whether the file is of an import that may still be undone.
pub(super) fn is_young(root: &StoreRoot, facts: &FileFacts) -> bool {
    facts.header.as_ref().is_none_or(|header| {
        header.txn.is_some() && root.now().saturating_sub(header.created) < UNDO_MICROS
    })
}

fn is_small(root: &StoreRoot, facts: &FileFacts) -> bool {
    let small = facts.segment().is_some_and(|segment| {
        segment.rows() < root.options.roll_rows / 4 && segment.bytes() < root.options.roll_bytes / 4
    });
    facts.name.kind == FileKind::Sealed
        && !facts.is_replaced
        && facts.is_committed
        && small
        && !is_young(root, facts)
}

fn merge_group(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    group: &[FileFacts],
    merged: &mut Merged,
) -> Result<()> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut replaces = Vec::new();
    for facts in group {
        let Content::Sealed(segment) = &facts.content else { continue };
        // A damaged segment stays as it is until it is repaired.
        if !segment.damage().is_empty() {
            continue;
        }
        if let Ok(rows) = segment.batches().collect::<Result<Vec<_>, Error>>() {
            batches.extend(rows);
            replaces.push(facts.name.uuid);
        }
    }
    if replaces.len() > 1 {
        let sealed = seal_rows(root, table, partition, &replaces, None, &batches)?;
        generation::bump(root.fs.as_ref(), &root.dir)?;
        merged.inputs += replaces.len() as u64;
        merged.outputs += 1;
        merged.rows += sealed.rows;
    }
    Ok(())
}
