//! Rollups: files that keep what rows add up to, and not the rows (spec 6.7).
//!
//! Owns what becomes of a partition when its rows go: cells, last values and digests of the
//! rows of its segments, put together with those of rollups that are there already. Every
//! percentile keeps a bound: a digest is measured against the values while they are at
//! hand, and what merging digests adds is measured too. When rows go is `maintain`'s
//! business.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::column::{Column, Strings, Values};
use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{FrameKind, IndexSection};
use crate::format::id::FileKind;
use crate::fs::{File, FileSystem, make_locked};
use crate::limits::{DICTIONARY_BYTES_MAX, DICTIONARY_ENTRIES_MAX, FRAME_ROWS_MAX};
use crate::schema::{ColumnType, Schema};
use crate::segment::frames::BlockFrame;
use crate::segment::seal::{SealSpec, SealedFile, Writer, Written, dictionary_frames, publish};
use crate::segment::sealed::SealedSegment;
use crate::segment::sections;
use crate::segment::summarise::{Grain, LEVEL_KEYS_MAX, Summariser, empty_cell, merge_cell, newer};
use crate::segment::{
    Cell, Depth, HourCell, KeyCell, KeyHourCell, LastValue, Segment, Summaries, Tier, TopRows,
};
use crate::sketch::digest::Digest;

type Map<K, V> = hashbrown::HashMap<K, V, RandomState>;

/// What some rows of a partition add up to.
#[derive(Debug)]
pub(crate) struct Rolled {
    summaries: Summaries,
    dictionaries: Vec<Option<Arc<Strings>>>,
    stamps: Option<(i64, i64)>,
}

/// What a segment's rows, or a rollup's, add up to at the grain of `tier`.
///
/// # Errors
///
/// `Corrupt` when a part of the segment cannot be read, `Io`.
pub(crate) fn roll_up(segment: &SealedSegment, tier: Tier) -> Result<Rolled> {
    let (schema, stamps) = (segment.table().schema(), segment.stamps());
    if segment.tier() != Tier::Rows {
        let columns = 0..schema.columns.len();
        let dictionaries = columns.map(|column| segment.dictionary(column));
        let summaries = segment.summaries(Depth::All).ok_or_else(|| {
            let reason = segment.damage().first().map(|damage| damage.reason.clone());
            Error::new(ErrorKind::Corrupt, reason.unwrap_or_default())
        })?;
        let dictionaries = dictionaries.collect::<Result<Vec<_>>>()?;
        return Ok(Rolled { summaries: (*summaries).clone(), dictionaries, stamps });
    }
    let grain = match tier {
        Tier::Hourly => Grain::hourly(schema),
        _ => Grain::daily(),
    };
    let mut dictionaries = Vec::new();
    for column in 0..schema.columns.len() {
        dictionaries.push(texts_of(segment, schema, column)?);
    }
    let mut summariser = Summariser::new(schema, &dictionaries, grain);
    let needed = |column: usize| {
        column == 0
            || schema.success == Some(column)
            || schema.measures.contains(&column)
            || schema.keys.iter().any(|level| level.contains(&column))
    };
    for block in 0..segment.blocks().len() {
        let rows = segment.blocks()[block].rows as usize;
        let mut columns = Vec::new();
        for (column, known) in dictionaries.iter().enumerate() {
            columns.push(match (needed(column), known) {
                // Nothing of it is kept.
                (false, _) => Column::new(Values::Int(vec![0; rows])),
                (true, None) => segment.read(block, column)?,
                (true, Some(dictionary)) => recode(segment.read(block, column)?, dictionary),
            });
        }
        summariser.add_block(&columns);
    }
    let mut summaries = summariser.finish();
    summaries.top = TopRows::default();
    summaries.keys.iter_mut().flatten().for_each(|key| key.runs.clear());
    Ok(Rolled { summaries, dictionaries, stamps })
}

/// The sorted texts of a dimension; `None` where they are too many for a dictionary.
fn texts_of(
    segment: &SealedSegment,
    schema: &Schema,
    column: usize,
) -> Result<Option<Arc<Strings>>> {
    if schema.columns[column].kind != ColumnType::Dimension {
        return Ok(None);
    }
    if let Some(dictionary) = segment.dictionary(column)? {
        return Ok(Some(dictionary));
    }
    let mut texts = Texts::default();
    for block in 0..segment.blocks().len() {
        let values = segment.read(block, column)?;
        if !(0..values.len()).filter_map(|row| values.text(row)).all(|text| texts.add(text)) {
            return Ok(None);
        }
    }
    Ok(Some(texts.finish().0))
}

/// The column with codes of `dictionary`, which has all its texts.
fn recode(column: Column, dictionary: &Arc<Strings>) -> Column {
    if let Values::Coded { dictionary: own, .. } = &column.values
        && Arc::ptr_eq(own, dictionary)
    {
        return column;
    }
    let places: Map<&str, u32> = dictionary.iter().zip(0..).collect();
    let code = |row| column.text(row).and_then(|text| places.get(text).copied()).unwrap_or(0);
    let codes = (0..column.len()).map(code).collect();
    Column::new(Values::Coded { codes, dictionary: Arc::clone(dictionary) })
}

/// Texts that are gathered for a dictionary.
#[derive(Default)]
struct Texts {
    seen: BTreeMap<Box<str>, u32>,
    bytes: usize,
}

impl Texts {
    /// False when there are too many.
    fn add(&mut self, text: &str) -> bool {
        if !self.seen.contains_key(text) {
            self.bytes += text.len();
            self.seen.insert(text.into(), 0);
        }
        self.seen.len() <= DICTIONARY_ENTRIES_MAX && self.bytes <= DICTIONARY_BYTES_MAX
    }

    /// The sorted texts, and for each its place.
    fn finish(mut self) -> (Arc<Strings>, BTreeMap<Box<str>, u32>) {
        self.seen.values_mut().zip(0..).for_each(|(place, number)| *place = number);
        (Arc::new(self.seen.keys().map(|text| &**text).collect()), self.seen)
    }
}

/// What parts of a partition add up to together.
pub(crate) fn merge(schema: &'static Schema, parts: Vec<Rolled>, tier: Tier) -> Rolled {
    let mut parts: Vec<Rolled> =
        parts.into_iter().filter(|part| part.summaries.total.rows > 0).collect();
    let stamps = parts.iter().filter_map(|part| part.stamps);
    let stamps = stamps.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let mut rolled = match parts.len() {
        1 => parts.remove(0),
        _ => merge_parts(schema, &parts),
    };
    rolled.stamps = stamps;
    if tier == Tier::Daily {
        rolled.summaries.hours.clear();
    }
    rolled
}

/// Places of the codes of a part in the dictionary of all; per column.
type Places = Vec<Option<Vec<u32>>>;

fn merge_parts(schema: &'static Schema, parts: &[Rolled]) -> Rolled {
    let mut dictionaries = Vec::new();
    let mut places: Vec<Places> = vec![Vec::new(); parts.len()];
    for column in 0..schema.columns.len() {
        let (dictionary, of_parts) = merge_texts(parts, column);
        dictionaries.push(dictionary);
        places.iter_mut().zip(of_parts).for_each(|(places, part)| places.push(part));
    }
    let mut total = Merged::new(schema);
    let mut hours: BTreeMap<i64, (Merged, KeyHours)> = BTreeMap::new();
    let mut levels: Vec<Option<Keys>> = Vec::new();
    for part in parts {
        total.add(&part.summaries.total, &part.summaries.digests, &[]);
    }
    for (level, columns) in schema.keys.iter().enumerate() {
        levels.push(merge_level(schema, parts, &places, level, columns));
    }
    for (part, places) in parts.iter().zip(&places) {
        for hour in &part.summaries.hours {
            let (cell, keys) =
                hours.entry(hour.hour).or_insert_with(|| (Merged::new(schema), BTreeMap::new()));
            cell.add(&hour.cell, &hour.digests, &[]);
            for key in &hour.keys {
                let codes = &part.summaries.keys[key.level][key.key].codes;
                if let Some(codes) = map_codes(schema.keys[key.level], codes, places)
                    && levels[key.level].is_some()
                {
                    let merged =
                        keys.entry((key.level, codes)).or_insert_with(|| Merged::new(schema));
                    merged.add(&key.cell, &key.digests, &[]);
                }
            }
        }
    }
    let (total, digests, _) = total.finish();
    let mut summaries = Summaries {
        total,
        digests,
        hours: Vec::new(),
        keys: Vec::new(),
        key_digests: Vec::new(),
        top: TopRows::default(),
    };
    let mut numbers: Vec<Map<Vec<u32>, usize>> = Vec::new();
    for level in levels {
        let (mut keys, mut key_digests, mut number) = (Vec::new(), Vec::new(), Map::default());
        for (codes, merged) in level.into_iter().flatten() {
            let (cell, digests, last) = merged.finish();
            number.insert(codes.clone(), keys.len());
            keys.push(KeyCell { codes, cell, last, runs: Vec::new() });
            key_digests.push(digests);
        }
        summaries.keys.push(keys);
        summaries.key_digests.push(key_digests);
        numbers.push(number);
    }
    let mut first_row = 0;
    for (hour, (merged, keys)) in hours {
        let (cell, digests, _) = merged.finish();
        let keys = keys.into_iter().filter_map(|((level, codes), merged)| {
            let key = *numbers[level].get(&codes)?;
            let (cell, digests, _) = merged.finish();
            let kept = digests.iter().any(Option::is_some);
            let digests = if kept { digests } else { Vec::new() };
            Some(KeyHourCell { level, key, cell, digests })
        });
        let keys = keys.collect();
        first_row += cell.rows;
        let first_row = first_row - cell.rows;
        summaries.hours.push(HourCell { hour, first_row, cell, digests, keys });
    }
    Rolled { summaries, dictionaries, stamps: None }
}

/// Keys of a level by their codes.
type Keys = BTreeMap<Vec<u32>, Merged>;
/// Keys of all levels in an hour.
type KeyHours = BTreeMap<(usize, Vec<u32>), Merged>;

/// The texts of a column in all parts, and the places in it of the codes of each; `None`
/// where a part has no dictionary, or they are too many.
fn merge_texts(parts: &[Rolled], column: usize) -> (Option<Arc<Strings>>, Vec<Option<Vec<u32>>>) {
    let none = || (None, vec![None; parts.len()]);
    let mut texts = Texts::default();
    for part in parts {
        let Some(dictionary) = &part.dictionaries[column] else { return none() };
        if !dictionary.iter().all(|text| texts.add(text)) {
            return none();
        }
    }
    if parts.is_empty() {
        return none();
    }
    let (merged, places) = texts.finish();
    let of = |part: &Rolled| {
        let dictionary = part.dictionaries[column].as_ref()?;
        dictionary.iter().map(|text| places.get(text).copied()).collect()
    };
    (Some(merged), parts.iter().map(of).collect())
}

fn map_codes(columns: &[usize], codes: &[u32], places: &Places) -> Option<Vec<u32>> {
    let one = |(column, code): (&usize, &u32)| {
        places.get(*column)?.as_ref()?.get(*code as usize).copied()
    };
    columns.iter().zip(codes).map(one).collect()
}

/// The keys of a level in all parts; `None` where a part with rows does not keep it.
fn merge_level(
    schema: &'static Schema,
    parts: &[Rolled],
    places: &[Places],
    level: usize,
    columns: &[usize],
) -> Option<Keys> {
    let mut keys = Keys::new();
    for (part, places) in parts.iter().zip(places) {
        let cells = &part.summaries.keys[level];
        if cells.is_empty() {
            return None;
        }
        for (number, key) in cells.iter().enumerate() {
            let codes = map_codes(columns, &key.codes, places)?;
            let merged = keys.entry(codes).or_insert_with(|| Merged::new(schema));
            let digests = part.summaries.key_digests[level].get(number);
            merged.add(&key.cell, digests.map_or(&[], Vec::as_slice), &key.last);
        }
    }
    (keys.len() <= LEVEL_KEYS_MAX).then_some(keys)
}

/// One per measure, where kept.
type Digests = Vec<Option<Arc<Digest>>>;

/// A cell that is added up, with the digests of its parts.
#[derive(Debug)]
struct Merged {
    cell: Cell,
    /// Per measure: the digests of its parts; `None` once a part with values lacks one.
    digests: Vec<Option<Vec<Arc<Digest>>>>,
    last: Vec<Option<LastValue>>,
}

impl Merged {
    fn new(schema: &Schema) -> Self {
        let measures = schema.measures.len();
        Self {
            cell: empty_cell(schema),
            digests: vec![Some(Vec::new()); measures],
            last: vec![None; measures],
        }
    }

    fn add(&mut self, cell: &Cell, digests: &[Option<Arc<Digest>>], last: &[Option<LastValue>]) {
        merge_cell(&mut self.cell, cell);
        for (measure, kept) in self.digests.iter_mut().enumerate() {
            match (digests.get(measure).cloned().flatten(), &mut *kept) {
                (Some(digest), Some(parts)) => parts.push(digest),
                (None, _) if cell.measures[measure].count() > 0 => *kept = None,
                _ => {}
            }
        }
        for (kept, last) in self.last.iter_mut().zip(last) {
            if let Some(last) = last
                && kept.as_ref().is_none_or(|kept| newer(last, kept))
            {
                *kept = Some(*last);
            }
        }
    }

    /// The cell, its digests, and its last values.
    fn finish(self) -> (Cell, Digests, Vec<Option<LastValue>>) {
        let one = |parts: Option<Vec<Arc<Digest>>>| {
            let parts = parts?;
            let digests: Vec<&Digest> = parts.iter().map(Arc::as_ref).collect();
            Digest::merged(&digests).map(Arc::new)
        };
        (self.cell, self.digests.into_iter().map(one).collect(), self.last)
    }
}

/// Writes a rollup of the kind of `spec` that takes at most `bytes_max`, if leaving out the
/// least useful cells and digests can make it so, and makes it durable.
///
/// # Errors
///
/// As [`seal`](crate::segment::seal::seal).
pub(crate) fn write(
    fs: &dyn FileSystem,
    dir: &Path,
    spec: &SealSpec<'_>,
    mut rolled: Rolled,
    bytes_max: u64,
) -> Result<SealedFile> {
    let schema = spec.table.schema();
    let mut dictionaries = dictionary_frames(&rolled.dictionaries, spec.effort)?;
    let mut frames = frames_of(schema, spec, &rolled.summaries)?;
    for take in OMISSIONS {
        let sections: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
        let texts: usize = dictionaries.iter().map(|(_, frame)| frame.len()).sum();
        let whole = fits(&rolled.summaries);
        if whole && (sections + 2 * texts) as u64 <= bytes_max {
            break;
        }
        take(&mut rolled.summaries);
        frames = frames_of(schema, spec, &rolled.summaries)?;
    }
    let rows = rolled.summaries.total.rows;
    let check = |segment: &SealedSegment| match segment.summaries(Depth::All) {
        Some(summaries) if is_same(&summaries, &rolled.summaries) => Ok(()),
        _ => {
            let message = "read back after writing: the rollup does not say what it should";
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    };
    make_locked(|| {
        let write = |file: &dyn File, uuid| {
            let mut writer = Writer::begin(file, spec, uuid)?;
            for (column, frame) in &mut dictionaries {
                writer.frame(FrameKind::Dictionary, *column, frame, (0, 0))?;
            }
            for (section, frame) in &mut frames {
                writer.frame(FrameKind::Index, section.tag(), frame, (0, 0))?;
            }
            for (column, frame) in &mut dictionaries {
                writer.frame(FrameKind::Dictionary, *column, frame, (0, 0))?;
            }
            writer.stand_for(rows, rolled.stamps.unwrap_or((0, 0)));
            let bytes = writer.finish(spec.kind)?;
            Ok(Written { bytes, rows, sums: Vec::new() })
        };
        publish(fs, dir, spec, write, check)
    })
}

/// Whether two rollups say the same.
fn is_same(a: &Summaries, b: &Summaries) -> bool {
    (&a.total, &a.digests, &a.hours) == (&b.total, &b.digests, &b.hours)
        && (&a.keys, &a.key_digests) == (&b.keys, &b.key_digests)
}

/// Whether each section has no more rows than a chunk may have.
fn fits(summaries: &Summaries) -> bool {
    let keys: usize = summaries.keys.iter().map(Vec::len).sum();
    let hour_keys: usize = summaries.hours.iter().map(|hour| hour.keys.len()).sum();
    let of_keys = summaries.key_digests.iter().flatten();
    let of_hour_keys = summaries.hours.iter().flat_map(|hour| &hour.keys).map(|key| &key.digests);
    let digests = of_keys.chain(of_hour_keys).flatten().flatten();
    let centroids = digests.map(|digest| digest.centroids().len());
    1 + keys + hour_keys <= FRAME_ROWS_MAX && centroids.sum::<usize>() <= FRAME_ROWS_MAX
}

fn frames_of(
    schema: &'static Schema,
    spec: &SealSpec<'_>,
    summaries: &Summaries,
) -> Result<Vec<(IndexSection, BlockFrame)>> {
    let mut frames = Vec::new();
    for section in IndexSection::ALL {
        let kept = match section {
            IndexSection::Hours => spec.kind == FileKind::Hourly,
            IndexSection::Summaries | IndexSection::Last => true,
            IndexSection::Digests | IndexSection::Centroids => true,
            IndexSection::KeyDigests | IndexSection::KeyCentroids => true,
            _ => false,
        };
        if kept
            && let Some(frame) =
                sections::encode_summaries(section, schema, summaries, spec.effort)?
        {
            frames.push((section, frame));
        }
    }
    Ok(frames)
}

/// What is left out of a rollup that is larger than what it replaces, the least useful first.
const OMISSIONS: [fn(&mut Summaries); 6] = [
    |summaries| {
        for hour in &mut summaries.hours {
            hour.keys.retain(|cell| cell.level == 0);
        }
    },
    |summaries| {
        let cells = summaries.hours.iter_mut().flat_map(|hour| &mut hour.keys);
        cells.for_each(|cell| cell.digests.clear());
    },
    |summaries| summaries.hours.iter_mut().for_each(|hour| hour.keys.clear()),
    |summaries| {
        let levels = summaries.key_digests.iter_mut().skip(1).flatten();
        levels.for_each(|digests| digests.fill(None));
    },
    |summaries| summaries.key_digests.iter_mut().flatten().for_each(|all| all.fill(None)),
    |summaries| summaries.hours.iter_mut().for_each(|hour| hour.digests.fill(None)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Batch;
    use crate::config::ReadMode;
    use crate::encoding::Effort;
    use crate::format::order::float_from_key;
    use crate::fs::sim::{Fault, SimFileSystem};
    use crate::schema::Table;
    use crate::segment::samples::{gauges, pieces, tasks};
    use crate::segment::seal::seal;
    use crate::segment::seal::tests::spec;
    use crate::segment::summarise::order_key;
    use crate::sketch::digest::MergedCdf;
    use crate::sketch::stats::Sum;
    use crate::time::MICROS_PER_HOUR;

    const DIR: &str = "/store/day";

    struct Day {
        fs: SimFileSystem,
        table: Table,
    }

    impl Day {
        fn new(table: Table) -> Self {
            let fs = SimFileSystem::new();
            for path in ["/store", DIR] {
                fs.create_dir(Path::new(path)).unwrap();
            }
            Self { fs, table }
        }

        fn open(&self, file: &SealedFile) -> SealedSegment {
            let path = Path::new(DIR).join(&file.name);
            let (mode, store) = (ReadMode::Copied, Path::new("/store"));
            SealedSegment::open(&self.fs, store, &path, mode, None).unwrap()
        }

        fn seal(&self, batch: &Batch) -> SealedSegment {
            let batches = std::slice::from_ref(batch);
            self.open(&seal(&self.fs, Path::new(DIR), &spec(self.table), batches).unwrap())
        }

        fn roll_up(&self, inputs: &[&SealedSegment], tier: Tier, most: u64) -> SealedSegment {
            let parts = inputs.iter().map(|input| roll_up(input, tier).unwrap()).collect();
            let rolled = merge(self.table.schema(), parts, tier);
            let kind = if tier == Tier::Hourly { FileKind::Hourly } else { FileKind::Daily };
            let effort = Effort::Archive { level: 6 };
            let spec = SealSpec { kind, effort, ..spec(self.table) };
            self.open(&write(&self.fs, Path::new(DIR), &spec, rolled, most).unwrap())
        }
    }

    /// The values of a measure by key texts and hour, from the rows.
    type Truth = BTreeMap<(Vec<String>, Option<i64>), Vec<Vec<f64>>>;

    fn truth(batch: &Batch, columns: &[usize]) -> Truth {
        let mut truth = Truth::new();
        for row in 0..batch.len() {
            let texts = columns.iter().map(|c| batch.columns[*c].text(row).unwrap().to_owned());
            let texts: Vec<String> = texts.collect();
            let hour = batch.timestamps()[row].div_euclid(MICROS_PER_HOUR);
            for (measure, column) in batch.schema.measures.iter().enumerate() {
                let values = &batch.columns[*column];
                let float = batch.schema.columns[*column].kind == ColumnType::Float;
                let value = order_key(values, row)
                    .map(|key| if float { float_from_key(key) } else { key as f64 });
                for hour in [None, Some(hour)] {
                    let all = truth
                        .entry((texts.clone(), hour))
                        .or_insert_with(|| vec![Vec::new(); batch.schema.measures.len()]);
                    all[measure].extend(value);
                }
            }
        }
        truth
    }

    fn check_cell(cell: &Cell, values: &[Vec<f64>]) {
        for (stats, values) in cell.measures.iter().zip(values) {
            assert_eq!(stats.count(), values.len() as u64);
            let sum = match stats.sum {
                Sum::Int(sum) => sum as f64,
                sum => sum.to_f64(),
            };
            let expected: f64 = values.iter().sum();
            assert!((sum - expected).abs() <= expected.abs() * 1e-9 + 1e-9);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(stats.max.map(|max| max.to_f64()), (!values.is_empty()).then_some(max));
        }
    }

    fn check_digests(digests: &[Option<Arc<Digest>>], values: &[Vec<f64>]) {
        for (digest, values) in digests.iter().zip(values) {
            let Some(digest) = digest else {
                assert!(values.is_empty());
                continue;
            };
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let cdf = MergedCdf::new(&[digest]);
            assert_eq!(cdf.count(), sorted.len() as u64);
            for p in [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                let value = cdf.quantile(p).unwrap();
                let before = sorted.partition_point(|other| *other < value) as f64;
                let upto = sorted.partition_point(|other| *other <= value) as f64;
                let rank = cdf.rank_of(p) as f64 + 0.5;
                let off = (before - rank).max(rank - upto).max(0.0);
                assert!(off <= cdf.error() * sorted.len() as f64, "{p}: {off} {}", cdf.error());
            }
        }
    }

    fn check(rollup: &SealedSegment, batch: &Batch) {
        let schema = batch.schema;
        assert_eq!(rollup.rows(), batch.len() as u64);
        assert!(rollup.blocks().is_empty());
        let stamps = batch.timestamps();
        let extremes = stamps.iter().min().copied().zip(stamps.iter().max().copied());
        assert_eq!(rollup.stamps(), extremes);
        assert_eq!(rollup.verify(true).unwrap(), []);
        let summaries = rollup.summaries(Depth::All).unwrap();
        let all = truth(batch, &[]);
        check_cell(&summaries.total, &all[&(vec![], None)]);
        check_digests(&summaries.digests, &all[&(vec![], None)]);
        for hour in &summaries.hours {
            let values = &all[&(vec![], Some(hour.hour))];
            check_cell(&hour.cell, values);
            check_digests(&hour.digests, values);
        }
        assert_eq!(summaries.hours.is_empty(), rollup.tier() == Tier::Daily);
        for (level, columns) in schema.keys.iter().enumerate() {
            let truth = truth(batch, columns);
            let texts = |codes: &[u32]| -> Vec<String> {
                let text = |(column, code): (&usize, &u32)| {
                    let dictionary = rollup.dictionary(*column).unwrap().unwrap();
                    dictionary.get(*code as usize).to_owned()
                };
                columns.iter().zip(codes).map(text).collect()
            };
            let keys = truth.keys().filter(|(_, hour)| hour.is_none()).count();
            assert_eq!(summaries.keys[level].len(), keys);
            for (key, digests) in summaries.keys[level].iter().zip(&summaries.key_digests[level]) {
                let values = &truth[&(texts(&key.codes), None)];
                check_cell(&key.cell, values);
                check_digests(digests, values);
                assert_eq!(key.last[0].is_some(), !values[0].is_empty());
            }
            let mut cells = 0;
            for hour in &summaries.hours {
                for cell in hour.keys.iter().filter(|cell| cell.level == level) {
                    let codes = &summaries.keys[level][cell.key].codes;
                    let values = &truth[&(texts(codes), Some(hour.hour))];
                    check_cell(&cell.cell, values);
                    if level + 1 < schema.keys.len() {
                        check_digests(&cell.digests, values);
                    }
                    cells += 1;
                }
            }
            let expected = if rollup.tier() == Tier::Hourly { truth.len() - keys } else { 0 };
            assert_eq!(cells, expected);
        }
    }

    fn check_all(table: Table, batch: &Batch, piece: usize) {
        let day = Day::new(table);
        let parts: Vec<_> = pieces(batch, piece).iter().map(|part| day.seal(part)).collect();
        let (late, early) = parts.split_last().unwrap();
        let all: Vec<&SealedSegment> = parts.iter().collect();
        for tier in [Tier::Hourly, Tier::Daily] {
            check(&day.roll_up(&all, tier, u64::MAX), batch);
            // Late rows are folded into what is there.
            let early: Vec<&SealedSegment> = early.iter().collect();
            let first = day.roll_up(&early, Tier::Hourly, u64::MAX);
            check(&day.roll_up(&[&first, late], tier, u64::MAX), batch);
        }
        let hourly = day.roll_up(&all, Tier::Hourly, u64::MAX);
        let daily = day.roll_up(&[&hourly], Tier::Daily, u64::MAX);
        check(&daily, batch);
        assert!(daily.bytes() < hourly.bytes());
        let least = day.roll_up(&all, Tier::Hourly, 0);
        assert!(least.bytes() < daily.bytes());
        let hours = truth(batch, &[]).len() - 1;
        assert_eq!(least.summaries(Depth::All).unwrap().hours.len(), hours);
    }

    #[test]
    fn rollups_say_what_the_rows_said() {
        check_all(Table::Task, &tasks(12_000, 20, 1), 5_000);
        check_all(Table::Agent, &gauges(40_000, 5, 4), 15_000);
        // Of so many agents none has a dictionary in its segment.
        check_all(Table::Task, &tasks(900, 20_000, 10), 400);
    }

    #[test]
    fn any_flipped_byte_of_a_rollup_is_noticed() {
        let day = Day::new(Table::Task);
        let rollup = day.roll_up(&[&day.seal(&tasks(600, 3, 1))], Tier::Hourly, u64::MAX);
        let path = Path::new("/store").join(rollup.file());
        let bytes = day.fs.read_file(&path).unwrap();
        let good = rollup.summaries(Depth::All).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            day.fs.write_file(&path, &bad).unwrap();
            let (mode, store) = (ReadMode::Copied, Path::new("/store"));
            let Ok(segment) = SealedSegment::open(&day.fs, store, &path, mode, None) else {
                continue;
            };
            match segment.summaries(Depth::All) {
                Some(summaries) => assert!(is_same(&summaries, &good), "byte {at}"),
                None => assert!(!segment.damage().is_empty(), "byte {at}"),
            }
        }
    }

    #[test]
    fn a_read_of_a_rollup_that_failed_is_no_damage() {
        let day = Day::new(Table::Task);
        let rollup = day.roll_up(&[&day.seal(&tasks(600, 3, 1))], Tier::Hourly, u64::MAX);
        let path = Path::new("/store").join(rollup.file());
        let good = rollup.summaries(Depth::All).unwrap();
        for depth in [Depth::Hours, Depth::Total, Depth::Digests, Depth::Keys, Depth::All] {
            let mut call = 0;
            loop {
                let (mode, store) = (ReadMode::Copied, Path::new("/store"));
                let segment = SealedSegment::open(&day.fs, store, &path, mode, None).unwrap();
                let fired = day.fs.faults_fired();
                day.fs.fail_at(call, Fault::IO, false);
                let found = segment.summaries(depth);
                day.fs.heal();
                if day.fs.faults_fired() == fired {
                    assert!(found.is_some() && call > 2, "{depth:?}, call {call}");
                    break;
                }
                // The other copy of a dictionary may have been read.
                let why = segment.unread().map(|error| error.kind());
                assert!(found.is_some() || why == Some(ErrorKind::Io), "{depth:?}, call {call}");
                assert_eq!(segment.damage(), [], "{depth:?}, call {call}");
                let again = segment.summaries(Depth::All).unwrap();
                assert!(is_same(&again, &good), "{depth:?}, call {call}");
                call += 1;
            }
        }
    }
}
