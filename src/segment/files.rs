//! Names and places of segment files (spec 1.3, 8.10).
//!
//! A name derives from the file's uuid and kind; nothing read from inside a file is ever
//! used to open another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::encoding::Effort;
use crate::error::Result;
use crate::format::id::{FileKind, Id};
use crate::fs::{EntryKind, FileSystem};
use crate::schema::Table;
use crate::segment::compact::{Part, compact, compact_parts};
use crate::segment::seal::{SealSpec, SealedFile, seal};
use crate::segment::sealed::SealedSegment;
use crate::segment::{Segment, Tier, rollup};
use crate::time::Partition;

/// The name of a segment file: `<uuid>.<kind>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileName {
    /// Uuid of the file.
    pub(crate) uuid: Id,
    /// What it is.
    pub(crate) kind: FileKind,
}

impl FileName {
    /// The name of the file.
    pub(crate) fn new(uuid: Id, kind: FileKind) -> Self {
        Self { uuid, kind }
    }

    /// Reads a name; `None` for any other file.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        FileKind::parse_file_name(name).map(|(uuid, kind)| Self { uuid, kind })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.file_name(self.uuid))
    }
}

/// One partition of one table of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentPlace<'a> {
    /// The store's directory.
    pub(crate) store_dir: &'a Path,
    /// The store's id.
    pub(crate) store_id: Id,
    /// The table.
    pub(crate) table: Table,
    /// The day.
    pub(crate) partition: Partition,
}

impl SegmentPlace<'_> {
    /// The partition's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        partition_dir(self.store_dir, self.table, self.partition)
    }

    /// Creates the partition's directory, durably, unless it is there.
    pub(crate) fn ensure_dir(&self, fs: &dyn FileSystem) -> Result<()> {
        let table_dir = self.store_dir.join(self.table.name());
        ensure_dir(fs, &table_dir)?;
        ensure_dir(fs, &self.dir())
    }
}

/// Creates a directory whose parent is there, durably, unless it is there.
pub(crate) fn ensure_dir(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    match fs.metadata(dir) {
        Err(error) if error.is_not_found() => match fs.create_dir(dir) {
            Err(error) if !error.is_already_there() => return Err(error),
            _ => {}
        },
        found => drop(found?),
    }
    // Whoever made it may have been stopped before this, or have met an error here: it must be
    // durable before a file in it is.
    dir.parent().map_or(Ok(()), |parent| fs.sync_dir(parent))
}

/// The directory of a partition.
pub(crate) fn partition_dir(store_dir: &Path, table: Table, partition: Partition) -> PathBuf {
    store_dir.join(table.name()).join(partition.directory_name())
}

/// A file's path relative to the store.
pub(crate) fn relative(table: Table, partition: Partition, name: &FileName) -> String {
    format!("{}/{}/{name}", table.name(), partition.directory_name())
}

/// The partitions of a table that have a directory, ascending; none if the table has none.
pub(crate) fn partitions(
    fs: &dyn FileSystem,
    store_dir: &Path,
    table: Table,
) -> Result<Vec<Partition>> {
    let entries = match fs.list(&store_dir.join(table.name())) {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut partitions: Vec<_> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Directory)
        .filter_map(|entry| Partition::parse_directory_name(&entry.name))
        .collect();
    partitions.sort_unstable();
    Ok(partitions)
}

/// The segment files of a partition, by name; none if it has no directory.
pub(crate) fn segment_files(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<FileName>> {
    match fs.list(dir) {
        Ok(entries) => Ok(entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| FileName::parse(&entry.name))
            .collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What every part that touches a store's files needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct StoreRoot {
    /// Where files are.
    pub(crate) fs: Arc<dyn FileSystem>,
    /// The store's directory.
    pub(crate) dir: PathBuf,
    /// The store's id.
    pub(crate) id: Id,
    /// This handle's id, in the header of every file it writes.
    pub(crate) writer: Id,
    /// Options of this handle.
    pub(crate) options: Arc<crate::config::Options>,
}

impl StoreRoot {
    /// The place of a table's partition.
    pub(crate) fn place(&self, table: Table, partition: Partition) -> SegmentPlace<'_> {
        SegmentPlace { store_dir: &self.dir, store_id: self.id, table, partition }
    }

    /// Now, in microseconds.
    pub(crate) fn now(&self) -> i64 {
        self.options.clock.now().as_micros()
    }
}

/// Seals rows of one partition into a segment that replaces `replaces`.
///
/// # Errors
///
/// As [`seal`](crate::segment::seal::seal).
pub(crate) fn seal_rows(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    replaces: &[Id],
    txn: Option<Id>,
    batches: &[crate::column::Batch],
) -> Result<SealedFile> {
    let spec = SealSpec { txn, ..hot(root, table, partition, replaces) };
    seal(root.fs.as_ref(), &partition_dir(&root.dir, table, partition), &spec, batches)
}

/// Writes some blocks of a damaged segment or archive, which can be read, into a file of the
/// same kind that replaces `replaces`.
///
/// # Errors
///
/// As [`compact`](crate::segment::compact::compact).
pub(crate) fn salvage(
    root: &StoreRoot,
    segment: &SealedSegment,
    blocks: Vec<usize>,
    replaces: &[Id],
) -> Result<SealedFile> {
    let (table, partition) = (segment.table(), segment.partition());
    let spec = match segment.header().kind {
        FileKind::Archive => cold(root, table, partition, replaces, FileKind::Archive),
        _ => hot(root, table, partition, replaces),
    };
    let dir = partition_dir(&root.dir, table, partition);
    compact_parts(root.fs.as_ref(), &dir, &spec, &[Part { segment, blocks }])
}

/// Writes a rollup anew, of which all that is not stored twice can be read, into one that
/// replaces `replaces`.
///
/// # Errors
///
/// As [`roll_up`].
pub(crate) fn rewrite_rollup(
    root: &StoreRoot,
    rollup: &SealedSegment,
    replaces: &[Id],
) -> Result<SealedFile> {
    let (table, partition, tier) = (rollup.table(), rollup.partition(), rollup.tier());
    let spec = cold(root, table, partition, replaces, rollup.header().kind);
    let rolled = rollup::merge(table.schema(), vec![rollup::roll_up(rollup, tier)?], tier);
    let dir = partition_dir(&root.dir, table, partition);
    rollup::write(root.fs.as_ref(), &dir, &spec, rolled, u64::MAX)
}

/// Compacts whole segments of one partition into an archive that replaces them.
///
/// # Errors
///
/// As [`compact`](crate::segment::compact::compact).
pub(crate) fn archive(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    inputs: &[Arc<SealedSegment>],
) -> Result<SealedFile> {
    let replaces = ids(inputs);
    let spec = cold(root, table, partition, &replaces, FileKind::Archive);
    compact(root.fs.as_ref(), &partition_dir(&root.dir, table, partition), &spec, inputs)
}

/// Rolls whole segments and rollups of one partition up into a rollup that replaces them,
/// and is no larger than they are.
///
/// # Errors
///
/// As [`rollup::write`], and `Corrupt` when an input is damaged.
pub(crate) fn roll_up(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    inputs: &[Arc<SealedSegment>],
    tier: Tier,
) -> Result<SealedFile> {
    let replaces = ids(inputs);
    let kind = if tier == Tier::Hourly { FileKind::Hourly } else { FileKind::Daily };
    let spec = cold(root, table, partition, &replaces, kind);
    let parts = inputs.iter().map(|input| rollup::roll_up(input, tier));
    let rolled = rollup::merge(table.schema(), parts.collect::<Result<_>>()?, tier);
    let bytes = inputs.iter().map(|input| input.bytes()).sum();
    rollup::write(
        root.fs.as_ref(),
        &partition_dir(&root.dir, table, partition),
        &spec,
        rolled,
        bytes,
    )
}

fn ids(inputs: &[Arc<SealedSegment>]) -> Vec<Id> {
    inputs.iter().map(|input| input.header().uuid).collect()
}

/// What is written of rows that are not archived.
fn hot<'a>(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    replaces: &'a [Id],
) -> SealSpec<'a> {
    SealSpec {
        effort: Effort::Seal,
        small_hour_rows: root.options.small_hour_rows,
        ..cold(root, table, partition, replaces, FileKind::Sealed)
    }
}

/// What is written of a partition that is cold.
fn cold<'a>(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    replaces: &'a [Id],
    kind: FileKind,
) -> SealSpec<'a> {
    SealSpec {
        store_id: root.id,
        writer: root.writer,
        txn: None,
        table,
        partition,
        replaces,
        created: root.now(),
        kind,
        effort: Effort::Archive { level: root.options.archive_level },
        block_rows: root.options.block_rows,
        // Hours share blocks as long as there is room: fewer and longer chunks are smaller.
        small_hour_rows: root.options.block_rows,
    }
}
