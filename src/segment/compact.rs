//! Compaction: whole segments of one partition become one archive (spec 6).
//!
//! Owns the merge: a few hours at a time are read out of all inputs, sorted together and
//! written, so that memory holds those hours and not the partition. Sealed segments are
//! sorted by hour, which is all that this needs. Which segments are merged, and when, is
//! `maintain`'s business.

use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::column::{Batch, Strings, Values};
use crate::error::Result;
use crate::fs::{File, FileSystem, make_locked};
use crate::limits::{DICTIONARY_BYTES_MAX, DICTIONARY_ENTRIES_MAX};
use crate::schema::{ColumnType, Schema};
use crate::segment::order::{OrderedRows, dictionary_of};
use crate::segment::seal::{SealSpec, SealedFile, SegmentWriter, Written, publish, sums};
use crate::segment::sealed::SealedSegment;
use crate::segment::{BlockInfo, Segment};
use crate::time::MICROS_PER_HOUR;

/// Writes the rows of all `inputs` as one file of the kind of `spec` in the partition's
/// directory `dir`, and makes it durable.
///
/// # Errors
///
/// As [`seal`](crate::segment::seal::seal), and `Corrupt` when an input is damaged.
pub(crate) fn compact(
    fs: &dyn FileSystem,
    dir: &Path,
    spec: &SealSpec<'_>,
    inputs: &[Arc<SealedSegment>],
) -> Result<SealedFile> {
    let whole = |segment| Part { segment, blocks: (0..segment.blocks().len()).collect() };
    compact_parts(fs, dir, spec, &inputs.iter().map(Arc::as_ref).map(whole).collect::<Vec<_>>())
}

/// Some blocks of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Part<'a> {
    /// The segment.
    pub(crate) segment: &'a SealedSegment,
    /// Numbers of the blocks, ascending.
    pub(crate) blocks: Vec<usize>,
}

impl Part<'_> {
    fn infos(&self) -> impl Iterator<Item = &BlockInfo> {
        self.blocks.iter().filter_map(|block| self.segment.blocks().get(*block))
    }
}

/// As [`compact`], of parts of segments: rows of other blocks are left out.
///
/// # Errors
///
/// As [`compact`], where one of these blocks is damaged.
pub(crate) fn compact_parts(
    fs: &dyn FileSystem,
    dir: &Path,
    spec: &SealSpec<'_>,
    inputs: &[Part<'_>],
) -> Result<SealedFile> {
    let schema = spec.table.schema();
    let rows: u64 = inputs.iter().flat_map(Part::infos).map(|block| u64::from(block.rows)).sum();
    let dictionaries = (0..schema.columns.len())
        .map(|column| merged_dictionary(schema, inputs, column, rows))
        .collect::<Result<Vec<_>>>()?;
    make_locked(|| {
        let write = |file: &dyn File, uuid| {
            let mut writer = SegmentWriter::begin(file, spec, uuid, dictionaries.clone())?;
            writer.reserve(usize::try_from(rows).unwrap_or(usize::MAX));
            let mut written = vec![0i64; schema.columns.len()];
            let mut merge = Merge::new(inputs, spec.block_rows);
            while let Some(batches) = merge.next_hours()? {
                for (sum, more) in written.iter_mut().zip(sums(schema, &batches)) {
                    *sum = sum.wrapping_add(more);
                }
                let partition = spec.partition;
                let ordered =
                    OrderedRows::with_dictionaries(schema, partition, &batches, &dictionaries)?;
                writer.add(&ordered)?;
            }
            Ok(Written { bytes: writer.finish()?, rows, sums: written })
        };
        publish(fs, dir, spec, write, |_| Ok(()))
    })
}

/// The sorted distinct texts of a dimension in all inputs, where they make a dictionary.
fn merged_dictionary(
    schema: &Schema,
    inputs: &[Part<'_>],
    column: usize,
    rows: u64,
) -> Result<Option<Arc<Strings>>> {
    if schema.columns[column].kind != ColumnType::Dimension {
        return Ok(None);
    }
    let mut texts = Texts::default();
    for input in inputs {
        if let Some(dictionary) = input.segment.dictionary(column)? {
            texts.add(&dictionary);
            continue;
        }
        for block in &input.blocks {
            match input.segment.read(*block, column)?.values {
                Values::Text(strings) => texts.add(&strings),
                Values::Coded { dictionary, .. } => texts.add(&dictionary),
                _ => {}
            }
            if texts.are_many() {
                return Ok(None);
            }
        }
    }
    let mut sorted: Vec<&str> = texts.seen.iter().map(|text| &**text).collect();
    sorted.sort_unstable();
    Ok(dictionary_of(&sorted, usize::try_from(rows).unwrap_or(usize::MAX)))
}

/// Distinct texts.
#[derive(Default)]
struct Texts {
    seen: HashSet<Box<str>, RandomState>,
    bytes: usize,
}

impl Texts {
    fn add(&mut self, strings: &Strings) {
        for text in strings.iter() {
            if !self.seen.contains(text) {
                self.bytes += text.len();
                self.seen.insert(text.into());
            }
            if self.are_many() {
                return;
            }
        }
    }

    /// Whether they are more than a dictionary can have.
    fn are_many(&self) -> bool {
        self.seen.len() > DICTIONARY_ENTRIES_MAX || self.bytes > DICTIONARY_BYTES_MAX
    }
}

/// Where the merge stands in one input.
struct Cursor<'a> {
    part: &'a Part<'a>,
    /// Position in `part` of the block that is read next.
    block: usize,
    /// Rows of the block before that belong to later hours.
    pending: Option<Batch>,
}

impl Cursor<'_> {
    /// The hour of the next row; `None` at the end.
    fn hour(&self) -> Option<i64> {
        let stamp = match &self.pending {
            Some(batch) => batch.timestamps().first().copied(),
            None => self.part.infos().nth(self.block).map(|block| block.min_ts),
        };
        stamp.map(hour_of)
    }

    /// Rows that a part up to the hour `end`, itself not included, holds at most.
    fn rows_before(&self, end: i64) -> u64 {
        let pending = self.pending.as_ref().map_or(0, |batch| batch.len() as u64);
        let blocks = self.part.infos().skip(self.block);
        let inside = blocks.take_while(|block| hour_of(block.min_ts) < end);
        pending + inside.map(|block| u64::from(block.rows)).sum::<u64>()
    }

    /// Takes the rows before the hour `end`.
    fn take(&mut self, end: i64, out: &mut Vec<Batch>) -> Result<()> {
        while self.hour().is_some_and(|hour| hour < end) {
            let batch = match self.pending.take() {
                Some(batch) => batch,
                None => {
                    let Some(block) = self.part.blocks.get(self.block) else { return Ok(()) };
                    // Blocks between the two may be left out, with what they say of the order.
                    let before = self.block.checked_sub(1).map(|at| self.part.blocks[at]);
                    self.block += 1;
                    let batch = self.part.segment.batch(*block)?;
                    self.part.segment.check_order(*block, before, batch.timestamps())?;
                    batch
                }
            };
            let before = batch.timestamps().partition_point(|stamp| hour_of(*stamp) < end);
            if before == batch.len() {
                out.push(batch);
            } else {
                let rows = |range: std::ops::Range<usize>| -> Vec<u32> {
                    range.map(crate::selection::index).collect()
                };
                self.pending = Some(batch.gather(&rows(before..batch.len())));
                out.push(batch.gather(&rows(0..before)));
            }
        }
        Ok(())
    }
}

/// The inputs, read side by side.
struct Merge<'a> {
    cursors: Vec<Cursor<'a>>,
    /// Rows from which on a part is large enough.
    part_rows: u64,
}

impl<'a> Merge<'a> {
    fn new(inputs: &'a [Part<'a>], part_rows: usize) -> Self {
        let cursor = |part: &'a Part<'a>| Cursor { part, block: 0, pending: None };
        Self { cursors: inputs.iter().map(cursor).collect(), part_rows: part_rows as u64 }
    }

    /// All rows of the next hours: of one, or of several that are small together.
    fn next_hours(&mut self) -> Result<Option<Vec<Batch>>> {
        let Some(first) = self.cursors.iter().filter_map(Cursor::hour).min() else {
            return Ok(None);
        };
        let rows =
            |end: i64| self.cursors.iter().map(|cursor| cursor.rows_before(end)).sum::<u64>();
        let last = first.saturating_add(24);
        let end = (first + 2..=last).take_while(|end| rows(*end) <= self.part_rows).last();
        let end = end.unwrap_or(first + 1);
        let mut batches = Vec::new();
        for cursor in &mut self.cursors {
            cursor.take(end, &mut batches)?;
        }
        Ok(Some(batches))
    }
}

fn hour_of(stamp: i64) -> i64 {
    stamp.div_euclid(MICROS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReadMode;
    use crate::encoding::Effort;
    use crate::error::ErrorKind;
    use crate::format::id::{FileKind, Id};
    use crate::fs::sim::SimFileSystem;
    use crate::schema::Table;
    use crate::segment::order::tests::rows_text;
    use crate::segment::samples::{gauges, pieces, tasks};
    use crate::segment::seal::seal;
    use crate::segment::seal::tests::spec;

    const DIR: &str = "/store/day";

    fn store() -> SimFileSystem {
        let fs = SimFileSystem::new();
        for path in ["/store", DIR] {
            fs.create_dir(Path::new(path)).unwrap();
        }
        fs
    }

    fn open(fs: &SimFileSystem, file: &SealedFile) -> Arc<SealedSegment> {
        let path = Path::new(DIR).join(&file.name);
        let store = Path::new("/store");
        Arc::new(SealedSegment::open(fs, store, &path, ReadMode::Copied, None).unwrap())
    }

    fn archive<'a>(table: Table, replaces: &'a [Id]) -> SealSpec<'a> {
        let (kind, effort) = (FileKind::Archive, Effort::Archive { level: 6 });
        SealSpec { kind, effort, replaces, ..spec(table) }
    }

    fn rows(segment: &SealedSegment) -> Vec<String> {
        segment.batches().flat_map(|batch| rows_text(&batch.unwrap().columns)).collect()
    }

    /// Seals the pieces apart, compacts them, and compares with sealing all of them at once.
    fn check(table: Table, batch: &Batch, piece: usize) {
        let fs = store();
        let seal = |batches: &[Batch]| {
            open(&fs, &seal(&fs, Path::new(DIR), &spec(table), batches).unwrap())
        };
        let inputs: Vec<_> = pieces(batch, piece).into_iter().map(|part| seal(&[part])).collect();
        let whole = seal(std::slice::from_ref(batch));
        let replaces: Vec<Id> = inputs.iter().map(|input| input.header().uuid).collect();
        let spec = archive(table, &replaces);
        let written = compact(&fs, Path::new(DIR), &spec, &inputs).unwrap();
        let compacted = open(&fs, &written);
        assert!(written.name.ends_with(".archive") && written.is_durable);
        assert_eq!(compacted.header().replaces, replaces);
        assert_eq!(rows(&compacted), rows(&whole));
        assert_eq!(compacted.verify(true).unwrap(), []);
        assert!(written.bytes < whole.bytes(), "{} of {}", written.bytes, whole.bytes());
        // An archive is compacted again with what came late.
        let late = seal(std::slice::from_ref(batch));
        let inputs = [compacted, late];
        let again = open(&fs, &compact(&fs, Path::new(DIR), &spec, &inputs).unwrap());
        assert_eq!(again.rows(), 2 * batch.len() as u64);
        assert_eq!(again.verify(true).unwrap(), []);
    }

    #[test]
    fn what_was_sealed_in_parts_is_as_if_sealed_at_once() {
        check(Table::Task, &tasks(12_000, 50, 1), 3_000);
        check(Table::Task, &tasks(6_000, 5_000, 2), 700);
        check(Table::Agent, &gauges(12_000, 9, 4), 5_000);
    }

    #[test]
    fn a_damaged_input_is_an_error_or_loses_nothing() {
        let fs = store();
        let file = seal(&fs, Path::new(DIR), &spec(Table::Task), &[tasks(300, 5, 1)]).unwrap();
        let path = Path::new(DIR).join(&file.name);
        let (bytes, whole) = (fs.read_file(&path).unwrap(), rows(&open(&fs, &file)));
        let mut refused = 0;
        for at in (8_192..bytes.len()).step_by(97) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x55;
            fs.write_file(&path, &bad).unwrap();
            let inputs = [open(&fs, &file)];
            match compact(&fs, Path::new(DIR), &archive(Table::Task, &[]), &inputs) {
                Ok(written) => {
                    // What is derived was damaged, or stored twice.
                    assert_eq!(rows(&open(&fs, &written)), whole, "byte {at}");
                    fs.delete_file(&Path::new(DIR).join(&written.name)).unwrap();
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn));
                    refused += 1;
                }
            }
            assert_eq!(fs.list(Path::new(DIR)).unwrap().len(), 1, "byte {at}");
        }
        assert!(refused > 10, "{refused}");
    }
}
