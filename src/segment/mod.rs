//! One segment file: append frames, seal, read.
//!
//! Owns the readable view that queries and maintenance share, [`Segment`]: an immutable
//! run of rows in blocks, whether those are the committed frames of an active segment or
//! the blocks of a sealed one. Knows no other segment, no catalog and no retention.

pub(crate) mod active;
pub(crate) mod compact;
pub(crate) mod files;
pub(crate) mod frames;
mod order;
pub(crate) mod rollup;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod seal;
pub(crate) mod sealed;
mod sections;
mod summarise;
pub(crate) mod tombstone;

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::column::{Column, Strings};
use crate::encoding::Chunk;
use crate::error::{Error, Result};
use crate::fs::Bytes;
use crate::schema::Table;
use crate::sketch::digest::Digest;
use crate::sketch::stats::Stats;
use crate::time::Partition;

/// What identifies the exact rows of a view: the file and the verified end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentKey {
    /// Uuid of the file.
    pub(crate) uuid: [u8; 16],
    /// Bytes of it that the view covers.
    pub(crate) end: u64,
}

/// One block (or committed frame) as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockInfo {
    /// Position of its first row in the segment.
    pub(crate) first_row: u64,
    /// Number of rows.
    pub(crate) rows: u32,
    /// Earliest stamp.
    pub(crate) min_ts: i64,
    /// Latest stamp.
    pub(crate) max_ts: i64,
}

/// Rows that a view knows to be unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentDamage {
    /// Number of the block or frame.
    pub(crate) block: Option<u64>,
    /// The column, where one alone is damaged.
    pub(crate) column: Option<usize>,
    /// Rows lost, where known.
    pub(crate) rows: Option<u64>,
    /// Earliest and latest stamp of what is lost, where known.
    pub(crate) stamps: Option<(i64, i64)>,
    /// What is wrong.
    pub(crate) reason: String,
}

impl SegmentDamage {
    /// Damage to something derived, or stored twice.
    pub(crate) fn harmless(reason: String) -> Self {
        Self { block: None, column: None, rows: Some(0), stamps: None, reason }
    }

    /// Damage that costs nobody knows how many rows.
    pub(crate) fn unknown(reason: String) -> Self {
        Self { block: None, column: None, rows: None, stamps: None, reason }
    }

    /// Whether rows are lost by it, or may be.
    pub(crate) fn loses_rows(&self) -> bool {
        self.rows != Some(0)
    }
}

/// What is wrong with bytes, and where in their file; the file is named beside it.
pub(crate) fn reason_of(error: &Error) -> String {
    let section = error.section().map_or(String::new(), |it| format!(" (format-spec {it})"));
    match error.offset() {
        Some(offset) => format!("at byte {offset}: {}{section}", error.message()),
        None => format!("{}{section}", error.message()),
    }
}

/// What is done with a chunk while it is at hand: its header, all its bytes, and the
/// dictionary that its codes refer to.
pub(crate) type UseChunk<'a> =
    &'a mut dyn FnMut(&Chunk<'_>, &Bytes, Option<&Arc<Strings>>) -> Result<()>;

/// An immutable view of the rows of one segment.
///
/// Column and block numbers are positions; a number that is not there is our own bug.
pub(crate) trait Segment: Send + Sync + fmt::Debug {
    /// File and verified end.
    fn key(&self) -> SegmentKey;
    /// File, relative to the store's directory.
    fn file(&self) -> String;
    /// The table the rows belong to.
    fn table(&self) -> Table;
    /// The day the rows belong to.
    fn partition(&self) -> Partition;
    /// What it keeps of its rows.
    fn tier(&self) -> Tier {
        Tier::Rows
    }
    /// All rows; of a rollup, those that it stands for.
    fn rows(&self) -> u64 {
        self.blocks().last().map_or(0, |block| block.first_row + u64::from(block.rows))
    }
    /// Earliest and latest stamp; `None` without rows.
    fn stamps(&self) -> Option<(i64, i64)>;
    /// Bytes of the file that the view covers.
    fn bytes(&self) -> u64 {
        self.key().end
    }
    /// The blocks in the order of their rows. In a sealed segment rows are sorted by
    /// hour, then by the table's order; in an active one they are as they came.
    fn blocks(&self) -> &[BlockInfo];
    /// Smallest and largest order key (spec 1.4) of a column chunk; `None` if not kept or
    /// all rows are null. For a dimension of a sealed segment the keys are its codes.
    fn zone(&self, block: usize, column: usize) -> Option<(i64, i64)>;
    /// Null rows of a column chunk, where the index knows them.
    fn nulls(&self, block: usize, column: usize) -> Option<u32>;
    /// Stored bytes of a column chunk.
    fn chunk_bytes(&self, block: usize, column: usize) -> u64;
    /// Hands a column chunk to `each`, with the dictionary that its codes refer to. Its
    /// checksum is checked at first touch; an error of `each` counts as damage to the block.
    ///
    /// # Errors
    ///
    /// `Corrupt` when its bytes are wrong, `Io` when they cannot be read, `SnapshotGone` when
    /// the file had been deleted before it was opened, and those of `each`.
    fn with_chunk(&self, block: usize, column: usize, each: UseChunk<'_>) -> Result<()>;
    /// Reads a column chunk.
    ///
    /// # Errors
    ///
    /// As [`with_chunk`](Self::with_chunk).
    fn read(&self, block: usize, column: usize) -> Result<Column> {
        let mut read = None;
        self.with_chunk(block, column, &mut |chunk, _, dictionary| {
            read = Some(chunk.decode(dictionary)?);
            Ok(())
        })?;
        read.ok_or_else(|| Error::invalid("the chunk was not handed out"))
    }
    /// The sorted dictionary of a dimension, the same for all blocks; `None` where each
    /// block brings its own.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    fn dictionary(&self, column: usize) -> Result<Option<Arc<Strings>>>;
    /// False only if no row of the segment has `text` in `column`.
    fn might_contain(&self, column: usize, text: &str) -> bool;
    /// False only if no row of the block has `text` in `column`.
    fn block_might_contain(&self, block: usize, column: usize, text: &str) -> bool;
    /// Summaries, at least as far as `depth`; `None` where there are none (active segments,
    /// or damage to them).
    fn summaries(&self, depth: Depth) -> Option<Arc<Summaries>>;
    /// The newest value of a measure among all rows; `None` where the index does not say.
    fn newest(&self, measure: usize) -> Option<LastValue>;
    /// What is known to be unreadable.
    fn damage(&self) -> Vec<SegmentDamage>;
    /// Why the system did not read something that it was asked for, which is no damage.
    fn unread(&self) -> Option<Error> {
        None
    }
    /// Opens the file, if that has not been done yet, so that deleting it does no harm.
    ///
    /// # Errors
    ///
    /// `SnapshotGone` when it has been deleted already; `Io`.
    fn pin(&self) -> Result<()> {
        Ok(())
    }
}

/// How much of the summaries is wanted: reading all of them takes longer than most
/// questions do. Each has all that those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// `total` and `hours` alone, without keys and digests.
    Hours,
    /// The digests of `total`.
    Total,
    /// The digests of `hours`.
    Digests,
    /// The keys, and the list of the largest rows.
    Keys,
    /// The digests of keys.
    All,
}

/// Summaries that have been read, by how much of them.
#[derive(Debug, Default)]
pub(crate) struct Loaded([OnceLock<Option<Arc<Summaries>>>; 5]);

impl Loaded {
    /// Those of the depth, if they are kept.
    pub(crate) fn get(&self, depth: Depth) -> Option<&Option<Arc<Summaries>>> {
        self.0.iter().skip(depth as usize).find_map(OnceLock::get)
    }

    /// Those of the depth, or else what `load` gives, which is kept.
    pub(crate) fn get_or_load(
        &self,
        depth: Depth,
        load: impl FnOnce() -> Option<Arc<Summaries>>,
    ) -> Option<Arc<Summaries>> {
        self.get(depth).unwrap_or_else(|| self.0[depth as usize].get_or_init(load)).clone()
    }
}

/// What some rows add up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// All rows.
    pub(crate) rows: u64,
    /// Rows whose success column is true.
    pub(crate) successes: u64,
    /// One per measure of the schema.
    pub(crate) measures: Vec<Stats>,
}

/// A key of a summary and what its rows add up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyCell {
    /// Codes in the segment dictionaries of the key's columns, in their order.
    pub(crate) codes: Vec<u32>,
    /// What its rows add up to.
    pub(crate) cell: Cell,
    /// Per measure: stamp and position of the newest row with a value.
    pub(crate) last: Vec<Option<LastValue>>,
    /// Blocks with rows of the key: block, first and last row in it, number of rows.
    pub(crate) runs: Vec<KeyRun>,
}

/// The newest value of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LastValue {
    /// Its stamp.
    pub(crate) timestamp: i64,
    /// Order key of the value (spec 1.4): the integer, or the float's total-order key.
    pub(crate) order_key: i64,
}

/// Where the rows of a key lie in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRun {
    /// The block.
    pub(crate) block: u32,
    /// First row of the key, counted from the block's first.
    pub(crate) first: u32,
    /// Rows from the first to the last of the key, others between them included.
    pub(crate) span: u32,
    /// Rows of the key.
    pub(crate) rows: u32,
}

/// What an hour's rows add up to, and where they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HourCell {
    /// Hours since 1970.
    pub(crate) hour: i64,
    /// Position of the hour's first row in the segment; its rows are contiguous.
    pub(crate) first_row: u64,
    /// What they add up to.
    pub(crate) cell: Cell,
    /// One per measure, where kept.
    pub(crate) digests: Vec<Option<Arc<Digest>>>,
    /// Cells of keys of the coarsest level in this hour, by code; only those of at least
    /// 64 rows are kept.
    pub(crate) keys: Vec<KeyHourCell>,
}

/// What a file keeps of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Every row.
    Rows,
    /// What the rows of hours, and of keys in hours, add up to.
    Hourly,
    /// What the rows of the day, and of its keys, add up to.
    Daily,
}

/// One key in one hour.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyHourCell {
    /// Level of the key in the schema's `keys`.
    pub(crate) level: usize,
    /// Position of the key in that level's cells.
    pub(crate) key: usize,
    /// What its rows in the hour add up to.
    pub(crate) cell: Cell,
    /// One per measure, where kept; empty where none is.
    pub(crate) digests: Vec<Option<Arc<Digest>>>,
}

/// The derived part of a sealed segment. Every part but `total` and `hours` may be
/// missing (dropped for size, or damaged): then the rows answer.
#[derive(Clone, Debug)]
pub(crate) struct Summaries {
    /// All rows.
    pub(crate) total: Cell,
    /// One per measure, where kept.
    pub(crate) digests: Vec<Option<Arc<Digest>>>,
    /// By hour, ascending.
    pub(crate) hours: Vec<HourCell>,
    /// Per level of the schema's `keys`: its keys, ascending by codes. Empty if not kept.
    pub(crate) keys: Vec<Vec<KeyCell>>,
    /// Per level, per key: one digest per measure, where kept.
    pub(crate) key_digests: Vec<Vec<Vec<Option<Arc<Digest>>>>>,
    /// The rows with the largest values of the first measure, largest first. All rows whose
    /// value is above the last one's are in.
    pub(crate) top: TopRows,
}

/// Some rows with the largest values, and what is in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopRows {
    /// The rows.
    pub(crate) rows: Vec<TopRow>,
    /// Per column of the schema: its values in those rows; `None` for JSON text, which is
    /// not kept.
    pub(crate) columns: Vec<Option<Column>>,
}

/// A row with one of the largest values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopRow {
    /// Order key of the value (spec 1.4).
    pub(crate) order_key: i64,
    /// Position of the row in the segment.
    pub(crate) row: u64,
}
