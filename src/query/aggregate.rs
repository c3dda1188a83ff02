//! What rows add up to: totals, buckets, groups.
//!
//! Owns `Tally` and the three walks over the sources of a question. Each takes the
//! summaries that `plan` offers and scans the rest.

use std::ops::Range;
use std::sync::Arc;

use crate::column::{Column, Strings, Values};
use crate::encoding::count_inside;
use crate::encoding::views::Layout;
use crate::error::{Error, Result};
use crate::query::answer::{Aggregate, Bucket, Last, Value};
use crate::query::filter::Aggregation;
use crate::query::keyed::{Group, Keyed};
use crate::query::number::Numeric;
use crate::query::percentile::{check_share, estimate, rank, select_ranks};
use crate::query::plan::{Ledger, Map, Need, Piece, Question, Source};
use crate::query::runs::{Adder, Runs};
use crate::query::scan::{
    coded, floats, for_each_block, group, ints, key_at, push_keys, read, scan, select, unexpected,
};
use crate::schema::Schema;
use crate::segment::{Cell, KeyCell, LastValue};
use crate::selection::Selection;
use crate::sketch::digest::Digest;
use crate::sketch::stats::Stats;
use crate::snapshot::AnswerCache;
use crate::time::{Interval, MICROS_PER_SECOND, Timestamp};

/// Which figures are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Positions in the schema's `measures`.
    pub(crate) measures: Vec<usize>,
    /// The success column, if successes are counted.
    pub(crate) success: Option<usize>,
    /// The columns of all that.
    columns: Vec<usize>,
}

impl Wanted {
    /// The wanted positions in the schema's `measures`, which are neighbours.
    fn positions(&self) -> Range<usize> {
        let first = self.measures.first().copied().unwrap_or_default();
        first..first + self.measures.len()
    }

    /// One measure, by its column.
    pub(crate) fn measure(schema: &Schema, column: usize) -> Self {
        let position = schema.measures.iter().position(|measure| *measure == column);
        Self { measures: position.into_iter().collect(), success: None, columns: vec![column] }
    }

    /// All measures and the successes.
    pub(crate) fn everything(schema: &Schema) -> Self {
        Self {
            measures: (0..schema.measures.len()).collect(),
            success: schema.success,
            columns: schema.measures.iter().copied().chain(schema.success).collect(),
        }
    }
}

/// The figures of some rows.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// All rows.
    pub(crate) rows: u64,
    /// Rows whose success column is true, where wanted.
    pub(crate) successes: u64,
    /// One per wanted measure.
    pub(crate) stats: Vec<Stats>,
}

impl Tally {
    /// Of no rows.
    pub(crate) fn new(schema: &Schema, wanted: &Wanted) -> Self {
        let of = |measure: &usize| Numeric::of(schema, schema.measures[*measure]).no_rows();
        Self { rows: 0, successes: 0, stats: wanted.measures.iter().map(of).collect() }
    }

    fn add_cell(&mut self, wanted: &Wanted, cell: &Cell) {
        self.rows += cell.rows;
        self.successes += cell.successes;
        for (stats, measure) in self.stats.iter_mut().zip(&wanted.measures) {
            stats.merge(&cell.measures[*measure]);
        }
    }

    /// Adds rows of which one measure is wanted.
    fn add_stats(&mut self, stats: &Stats) {
        self.rows += stats.rows;
        self.stats.iter_mut().for_each(|own| own.merge(stats));
    }

    /// Adds rows of a block whose columns are those of `wanted`, then others.
    fn add_rows(&mut self, wanted: &Wanted, columns: &[Column], rows: &Selection) -> Result<()> {
        self.rows += rows.len() as u64;
        for (stats, column) in self.stats.iter_mut().zip(columns) {
            add_values(stats, column, rows)?;
        }
        if wanted.success.is_some() {
            let Values::Bool(bits) = &columns[self.stats.len()].values else {
                return Err(unexpected("success"));
            };
            self.successes += if *rows == Selection::Range(0..bits.len()) {
                bits.count_ones() as u64
            } else {
                let mut count = 0;
                rows.for_each(|row| count += u64::from(bits.get(row)));
                count
            };
        }
        Ok(())
    }
}

fn add_values(stats: &mut Stats, column: &Column, rows: &Selection) -> Result<()> {
    let validity = column.validity.as_ref();
    let whole = *rows == Selection::Range(0..column.len());
    let count = match &column.values {
        Values::Int(values) if whole => {
            stats.add_ints(values, validity);
            rows.len()
        }
        Values::Float(values) if whole => {
            stats.add_floats(values, validity);
            rows.len()
        }
        Values::Int(values) => {
            let values = ints(values, validity, rows);
            stats.add_ints(&values, None);
            values.len()
        }
        Values::Float(values) => {
            let values = floats(values, validity, rows);
            stats.add_floats(&values, None);
            values.len()
        }
        _ => return Err(unexpected("numeric")),
    };
    let nulls = (rows.len() - count) as u64;
    stats.rows += nulls;
    stats.nulls += nulls;
    Ok(())
}

/// The figures of all rows of a question.
pub(crate) fn total(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    wanted: &Wanted,
) -> Result<Tally> {
    let mut tally = Tally::new(question.schema, wanted);
    for source in sources {
        for piece in source.pieces(question, Need::default()) {
            if let Piece::Rows(rows) = &piece {
                scan(question, source, ledger, rows, &wanted.columns, |scanned| {
                    tally.add_rows(wanted, &scanned.columns, &scanned.all())
                })?;
            } else {
                let cells = source.cells(&piece);
                ledger.summarise(&cells);
                cells.iter().for_each(|cell| tally.add_cell(wanted, cell));
            }
        }
    }
    for source in ledger.rollups().iter() {
        for piece in ledger.rolled_pieces(source, question, Need::default()) {
            let cells = source.cells(&piece);
            ledger.summarise(&cells);
            cells.iter().for_each(|cell| tally.add_cell(wanted, cell));
        }
    }
    Ok(tally)
}

/// Keeps the newer value; of two with one stamp the larger.
pub(crate) fn keep_newest(newest: &mut Option<LastValue>, other: LastValue) {
    let order = |value: &LastValue| (value.timestamp, value.order_key);
    if newest.as_ref().is_none_or(|newest| order(&other) > order(newest)) {
        *newest = Some(other);
    }
}

fn newest_of(newest: &mut Option<LastValue>, stamps: &[i64], values: &Column, rows: &Selection) {
    rows.for_each(|row| {
        let timestamp = stamps[row];
        if newest.is_none_or(|newest| timestamp >= newest.timestamp)
            && let Some(order_key) = key_at(values, row)
        {
            keep_newest(newest, LastValue { timestamp, order_key });
        }
    });
}

fn stamps_of(column: &Column) -> Result<&[i64]> {
    match &column.values {
        Values::Int(stamps) => Ok(stamps),
        _ => Err(unexpected("timestamp")),
    }
}

/// The newest value of a measure among the rows of a question: sources and their
/// parts are looked at from the latest on, until none can hold a newer one.
pub(crate) fn newest_value(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    column: usize,
) -> Result<Option<LastValue>> {
    let measure = question.schema.measures.iter().position(|measure| *measure == column);
    let measure = measure.expect("a field is a measure");
    let mut latest: Vec<&Source> = sources.iter().collect();
    latest.sort_by_key(|source| std::cmp::Reverse(source.stamps.1));
    let mut newest: Option<LastValue> = None;
    for source in latest {
        if newest.is_some_and(|newest| source.stamps.1 < newest.timestamp) {
            break;
        }
        let found = match source.known_newest(question, measure) {
            None => newest_of_source(question, source, ledger, column)?,
            known => known,
        };
        found.into_iter().for_each(|found| keep_newest(&mut newest, found));
    }
    for source in ledger.rollups().iter() {
        let latest = source.stamps.1.min(question.range.end.saturating_sub(1));
        match source.known_newest(question, measure) {
            Some(found) => keep_newest(&mut newest, found),
            None if newest.is_none_or(|newest| latest >= newest.timestamp) => return Ok(None),
            None => {}
        }
    }
    Ok(newest)
}

fn newest_of_source(
    question: &Question,
    source: &Source,
    ledger: &mut Ledger,
    column: usize,
) -> Result<Option<LastValue>> {
    let mut latest = source.parts();
    latest.retain(|((min, max), _)| question.range.overlaps(*min, *max));
    latest.sort_unstable_by_key(|((_, max), rows)| std::cmp::Reverse((*max, rows.start)));
    let mut newest: Option<LastValue> = None;
    for ((_, latest), rows) in latest {
        if newest.is_some_and(|newest| latest < newest.timestamp) {
            break;
        }
        scan(question, source, ledger, &[rows], &[0, column], |found| {
            let stamps = stamps_of(&found.columns[0])?;
            newest_of(&mut newest, stamps, &found.columns[1], &found.all());
            Ok(())
        })?;
    }
    Ok(newest)
}

/// The answer to `aggregate`, from the figures of one measure.
pub(crate) fn to_aggregate(
    numeric: Numeric,
    rows: u64,
    stats: &Stats,
    last: Option<LastValue>,
) -> Aggregate {
    Aggregate {
        rows,
        count: stats.count(),
        nulls: stats.nulls,
        sum: stats.sum.into(),
        min: stats.min.map(Value::from),
        max: stats.max.map(Value::from),
        avg: stats.average(),
        last: last.map(|last| Last {
            timestamp: Timestamp::clamped(last.timestamp),
            value: numeric.value(last.order_key),
        }),
    }
}

/// Refuses intervals and shares that make no series.
pub(crate) fn check_series(
    field: &str,
    interval: Interval,
    aggregation: Aggregation,
) -> Result<()> {
    if let Interval::Fixed(length) = interval
        && length < MICROS_PER_SECOND
    {
        return Err(Error::invalid(format!(
            "interval: {length} microseconds, expected at least one second"
        )));
    }
    match aggregation {
        Aggregation::Percentile(share) => check_share(field, share),
        _ => Ok(()),
    }
}

/// What is collected of one bucket.
struct Slot {
    bucket: Range<i64>,
    tally: Tally,
    /// Order keys of its values, if a rank among them is asked for.
    keys: Vec<i64>,
    /// Digests of those whose rows have gone.
    digests: Vec<Arc<Digest>>,
    /// Rows of the block under way.
    runs: Runs,
}

/// Buckets under way.
struct Series<'a> {
    question: &'a Question,
    wanted: Wanted,
    interval: Interval,
    aggregation: Aggregation,
    /// Slots by the start of their bucket.
    numbers: Map<i64, usize>,
    slots: Vec<Slot>,
    /// The slot that was used last.
    last: usize,
}

impl Series<'_> {
    fn is_ranked(&self) -> bool {
        matches!(self.aggregation, Aggregation::Percentile(_))
    }

    /// The slot of the bucket that a stamp is in.
    fn slot(&mut self, stamp: i64) -> usize {
        // Runs come back to a few buckets again and again, mostly to the next one, or to the
        // first where the rows of another key begin.
        for near in [self.last + 1, self.last, 0] {
            if self.slots.get(near).is_some_and(|slot| slot.bucket.contains(&stamp)) {
                self.last = near;
                return near;
            }
        }
        let start = self.interval.bucket_start(stamp);
        self.last = *self.numbers.entry(start).or_insert_with(|| {
            self.slots.push(Slot {
                bucket: start..self.interval.next_bucket(start),
                tally: Tally::new(self.question.schema, &self.wanted),
                keys: Vec::new(),
                digests: Vec::new(),
                runs: Runs::NONE,
            });
            self.slots.len() - 1
        });
        self.last
    }

    fn add(&mut self, stamp: i64, columns: &[Column], rows: &Selection) -> Result<()> {
        let number = self.slot(stamp);
        let ranked = self.is_ranked();
        let slot = &mut self.slots[number];
        slot.tally.add_rows(&self.wanted, columns, rows)?;
        if ranked {
            push_keys(&columns[0], rows, &mut slot.keys)?;
        }
        Ok(())
    }

    fn scan_block(
        &mut self,
        source: &Source,
        ledger: &mut Ledger,
        block: usize,
        rows: &[Range<usize>],
    ) -> Result<()> {
        let info = source.segment.blocks()[block];
        let range = self.question.range;
        // Stamps that the block may have inside the range.
        let min = info.min_ts.max(range.start);
        let max = info.max_ts.min(range.end.saturating_sub(1));
        let one = min <= max && self.interval.bucket_start(min) == self.interval.bucket_start(max);
        let one = one.then_some(min);
        let measure = self.wanted.columns[0];
        let columns: &[usize] = if one.is_some() { &[measure] } else { &[measure, 0] };
        let Some(rows) = select(self.question, source, ledger, block, rows, columns)? else {
            return Ok(());
        };
        if let (false, Selection::Range(range)) = (self.is_ranked(), &rows)
            && self.add_in_place(source, ledger, block, range.clone(), one)?
        {
            return Ok(());
        }
        let Some(found) = read(source, ledger, block, rows, columns)? else { return Ok(()) };
        if let Some(stamp) = one {
            return self.add(stamp, &found.columns, &found.all());
        }
        let stamps = stamps_of(&found.columns[1])?;
        // Neighbours mostly share a bucket: rows are added by runs.
        let mut from = 0;
        while let Some(stamp) = stamps.get(from) {
            let number = self.slot(*stamp);
            let run = count_inside(&stamps[from..], &self.slots[number].bucket);
            self.add(*stamp, &found.columns, &Selection::Range(from..from + run))?;
            from += run;
        }
        Ok(())
    }

    /// Adds rows without decoding their values; `one`: a stamp of the bucket that all are
    /// in, if there is one. False if the values have to be decoded.
    fn add_in_place(
        &mut self,
        source: &Source,
        ledger: &mut Ledger,
        block: usize,
        rows: Range<usize>,
        one: Option<i64>,
    ) -> Result<bool> {
        let measure = self.wanted.columns[0];
        let held = ledger.with_bytes(source, block, measure, |chunk, bytes, _| {
            let layout = (chunk.null_count() == 0).then(|| Layout::of(chunk, bytes, None));
            Ok((layout.transpose()?, bytes.clone()))
        })?;
        // Nothing is added of a damaged block.
        let Some((layout, bytes)) = held else { return Ok(true) };
        let view = layout.as_ref().map(|layout| layout.view(&bytes));
        let with_range = matches!(self.aggregation, Aggregation::Min | Aggregation::Max);
        let Some(mut adder) = view.and_then(|view| Adder::new(&view, with_range)) else {
            return Ok(false);
        };
        let read = match one {
            Some(stamp) => {
                let number = self.slot(stamp);
                adder.add(rows, &mut self.slots[number].runs);
                true
            }
            None => {
                let mut at = rows.start;
                let stamps = ledger.with_chunk(source, block, 0, |chunk, _| {
                    chunk.for_each_ints(rows.clone(), |stamps| {
                        self.add_runs(&mut adder, at, stamps);
                        at += stamps.len();
                    })
                })?;
                stamps.is_some()
            }
        };
        for slot in &mut self.slots {
            let runs = std::mem::replace(&mut slot.runs, Runs::NONE);
            if read {
                slot.tally.add_stats(&adder.stats(&runs));
            }
        }
        Ok(true)
    }

    /// Adds the rows from `at` on that have these stamps.
    fn add_runs(&mut self, adder: &mut Adder<'_>, mut at: usize, mut stamps: &[i64]) {
        while let Some(stamp) = stamps.first() {
            let number = self.slot(*stamp);
            let slot = &mut self.slots[number];
            let run = count_inside(stamps, &slot.bucket);
            adder.add(at..at + run, &mut slot.runs);
            (at, stamps) = (at + run, &stamps[run..]);
        }
    }
}

/// The buckets of a time series, ascending.
pub(crate) fn buckets(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    column: usize,
    interval: Interval,
    aggregation: Aggregation,
) -> Result<Vec<Bucket>> {
    let mut series = Series {
        question,
        wanted: Wanted::measure(question.schema, column),
        interval,
        aggregation,
        numbers: Map::default(),
        slots: Vec::new(),
        last: 0,
    };
    for source in sources {
        let pieces = if series.is_ranked() {
            vec![Piece::Rows(source.all_rows())]
        } else {
            source.pieces(question, Need { interval: Some(interval), digest: None })
        };
        for piece in pieces {
            if let Piece::Rows(rows) = &piece {
                for_each_block(source, rows, |block, rows| {
                    series.scan_block(source, ledger, block, rows)
                })?;
            } else {
                let cells = source.cells(&piece);
                ledger.summarise(&cells);
                let number = series.slot(source.piece_stamps(&piece).0);
                let tally = &mut series.slots[number].tally;
                cells.iter().for_each(|cell| tally.add_cell(&series.wanted, cell));
            }
        }
    }
    let measure = question.schema.measures.iter().position(|measure| *measure == column);
    let need = Need { interval: Some(interval), digest: measure.filter(|_| series.is_ranked()) };
    for source in ledger.rollups().iter() {
        for piece in ledger.rolled_pieces(source, question, need) {
            let cells = source.cells(&piece);
            ledger.summarise(&cells);
            let number = series.slot(source.piece_stamps(&piece).0);
            let slot = &mut series.slots[number];
            cells.iter().for_each(|cell| slot.tally.add_cell(&series.wanted, cell));
            if let Some(measure) = need.digest {
                slot.digests.extend(source.digests(&piece, measure).into_iter().flatten());
            }
        }
    }
    let numeric = Numeric::of(question.schema, column);
    let mut slots = series.slots;
    slots.retain(|slot| slot.tally.rows > 0);
    slots.sort_unstable_by_key(|slot| slot.bucket.start);
    let to_bucket = |mut slot: Slot| {
        let (value, rank_error) = match aggregation {
            Aggregation::Percentile(share) if !slot.digests.is_empty() => {
                let found = estimate(numeric, &slot.digests, &slot.keys, share);
                (found.value, found.rank_error)
            }
            _ => (bucket_value(numeric, aggregation, &mut slot), 0.0),
        };
        let time_bucket = Timestamp::clamped(slot.bucket.start);
        Bucket { time_bucket, value, count: slot.tally.rows, rank_error }
    };
    Ok(slots.into_iter().map(to_bucket).collect())
}

fn bucket_value(numeric: Numeric, aggregation: Aggregation, slot: &mut Slot) -> Option<Value> {
    let stats = &slot.tally.stats[0];
    let count = stats.count();
    match aggregation {
        Aggregation::Count => Some(Value::Int(i64::try_from(count).unwrap_or(i64::MAX))),
        _ if count == 0 => None,
        Aggregation::Avg => stats.average().map(Value::Float),
        Aggregation::Sum => Some(stats.sum.into()),
        Aggregation::Min => stats.min.map(Value::from),
        Aggregation::Max => stats.max.map(Value::from),
        Aggregation::Percentile(share) => {
            let rank = rank(slot.keys.len(), share);
            select_ranks(&mut slot.keys, &[rank]).first().map(|key| numeric.value(*key))
        }
    }
}

/// Distinct texts, numbered as they come.
///
/// Segments of one fleet mostly have the same names: comparing a whole dictionary with the
/// last one is far cheaper than looking each text up, and while there has been only one,
/// its codes tell its texts apart.
#[derive(Default)]
pub(crate) struct Names {
    /// Each different dictionary that came after another.
    dictionaries: Vec<Arc<Strings>>,
    /// Per number: a dictionary and a code in it.
    places: Vec<(usize, u32)>,
    /// Per code of the last dictionary: the number of its text, once known.
    known: Vec<Option<usize>>,
    /// Numbers by text, once there is more than one dictionary.
    numbers: Option<Map<String, usize>>,
}

impl Names {
    /// Takes codes of this dictionary from now on. `distinct`: it is a segment's, which has
    /// each text once; one that a batch brought may not.
    pub(crate) fn enter(&mut self, dictionary: &Arc<Strings>, distinct: bool) {
        let last = self.dictionaries.last();
        if last.is_some_and(|last| Arc::ptr_eq(last, dictionary) || last == dictionary) {
            return;
        }
        if (last.is_some() || !distinct) && self.numbers.is_none() {
            let numbers = (0..self.len()).map(|number| (self.name(number).to_owned(), number));
            self.numbers = Some(numbers.collect());
        }
        self.known = vec![None; dictionary.len()];
        self.dictionaries.push(Arc::clone(dictionary));
    }

    /// The number of the text of a code.
    pub(crate) fn number(&mut self, code: u32) -> usize {
        if let Some(number) = self.known[code as usize] {
            return number;
        }
        let dictionary = self.dictionaries.len() - 1;
        let next = self.places.len();
        let number = match &mut self.numbers {
            None => next,
            Some(numbers) => {
                let text = self.dictionaries[dictionary].get(code as usize);
                *numbers.entry_ref(text).or_insert(next)
            }
        };
        if number == next {
            self.places.push((dictionary, code));
        }
        self.known[code as usize] = Some(number);
        number
    }

    /// The text of a number.
    pub(crate) fn name(&self, number: usize) -> &str {
        let (dictionary, code) = self.places[number];
        self.dictionaries[dictionary].get(code as usize)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

/// What rows add up to by the values of a dimension.
pub(crate) struct Groups<'a> {
    /// Positions of the wanted measures.
    measures: Range<usize>,
    known: Known<'a>,
}

enum Known<'a> {
    /// By segments alone, merged.
    Merged(Arc<Keyed>),
    /// By one segment alone, with one cell for each code.
    Cells(Arc<Strings>, Vec<(u32, &'a KeyCell)>),
    /// Put together. Per number of a name: its figures, and its newest value of the first
    /// wanted measure, if asked for.
    Found(Names, Vec<(Tally, Option<LastValue>)>),
}

impl Groups<'_> {
    /// Each value that has rows, in no order.
    pub(crate) fn list(&self) -> Vec<Group<'_>> {
        let measures = &self.measures;
        match &self.known {
            Known::Merged(keyed) => {
                keyed.groups(measures.clone()).filter(|group| group.rows > 0).collect()
            }
            Known::Cells(dictionary, cells) => {
                let cells = cells.iter().filter(|(_, key)| key.cell.rows > 0);
                let groups = cells.map(|(code, key)| Group {
                    name: dictionary.get(*code as usize),
                    rows: key.cell.rows,
                    successes: key.cell.successes,
                    stats: &key.cell.measures[measures.clone()],
                    last: key.last.get(measures.start).copied().flatten(),
                });
                groups.collect()
            }
            Known::Found(names, found) => {
                let found = found.iter().enumerate().filter(|(_, (tally, _))| tally.rows > 0);
                let groups = found.map(|(number, (tally, last))| Group {
                    name: names.name(number),
                    rows: tally.rows,
                    successes: tally.successes,
                    stats: &tally.stats,
                    last: *last,
                });
                groups.collect()
            }
        }
    }
}

/// The rows of a question by the values of a dimension.
pub(crate) fn groups<'a>(
    question: &Question,
    sources: &'a [Source],
    ledger: &mut Ledger,
    key: usize,
    wanted: &Wanted,
    with_last: bool,
    cache: Option<&AnswerCache>,
) -> Result<Groups<'a>> {
    let (measures, rollups) = (wanted.positions(), ledger.rollups());
    let (merged, rest) = Keyed::split(question, sources, key, cache);
    let each = merged.iter().flat_map(|merged| &merged.rows);
    each.for_each(|rows| ledger.plan.summarised.add(*rows, 0));
    let rest = match (merged.as_ref(), rest.as_slice()) {
        (Some(merged), []) if rollups.is_empty() => {
            return Ok(Groups { measures, known: Known::Merged(Arc::clone(merged)) });
        }
        (None, [source]) if rollups.is_empty() => match source.cells_by(question, key) {
            Some((dictionary, cells)) if cells.is_sorted_by(|a, b| a.0 < b.0) => {
                ledger.plan.summarised.add(cells.iter().map(|(_, key)| key.cell.rows).sum(), 0);
                return Ok(Groups { measures, known: Known::Cells(dictionary, cells) });
            }
            _ => rest,
        },
        _ => rest,
    };
    let mut names = Names::default();
    let mut found: Vec<(Tally, Option<LastValue>)> = Vec::new();
    if let Some(merged) = &merged {
        names.enter(&merged.names, true);
        for (code, group) in (0..).zip(merged.groups(measures.clone())) {
            names.number(code);
            let Group { rows, successes, stats, last, .. } = group;
            found.push((Tally { rows, successes, stats: stats.to_vec() }, last));
        }
    }
    let none = (Tally::new(question.schema, wanted), None);
    let mut columns = wanted.columns.clone();
    let key_position = columns.len();
    columns.push(key);
    if with_last {
        columns.push(0);
    }
    for source in rest {
        if let Some((dictionary, cells)) = source.cells_by(question, key) {
            names.enter(&dictionary, true);
            ledger.plan.summarised.add(cells.iter().map(|(_, cell)| cell.cell.rows).sum(), 0);
            for (code, cell) in cells {
                let number = names.number(code);
                if found.len() < names.len() {
                    found.resize(names.len(), none.clone());
                }
                let (tally, last) = &mut found[number];
                tally.add_cell(wanted, &cell.cell);
                if let (true, Some(value)) =
                    (with_last, wanted.measures.first().and_then(|m| *cell.last.get(*m)?))
                {
                    keep_newest(last, value);
                }
            }
            continue;
        }
        scan(question, source, ledger, &source.all_rows(), &columns, |scanned| {
            let (codes, dictionary) = coded(&scanned.columns[key_position])?;
            names.enter(&dictionary, false);
            for (code, rows) in group(&codes, &scanned.all()) {
                let number = names.number(code);
                if found.len() < names.len() {
                    found.resize(names.len(), none.clone());
                }
                let (tally, last) = &mut found[number];
                tally.add_rows(wanted, &scanned.columns, &rows)?;
                if with_last {
                    let stamps = stamps_of(&scanned.columns[key_position + 1])?;
                    newest_of(last, stamps, &scanned.columns[0], &rows);
                }
            }
            Ok(())
        })?;
    }
    for source in rollups.iter() {
        let Some((dictionary, cells)) = ledger.rolled_by(source, question, key) else { continue };
        names.enter(&dictionary, true);
        ledger.plan.summarised.add(cells.iter().map(|(_, cell, _)| cell.rows).sum(), 0);
        for (code, cell, key) in cells {
            let number = names.number(code);
            if found.len() < names.len() {
                found.resize(names.len(), none.clone());
            }
            let (tally, last) = &mut found[number];
            tally.add_cell(wanted, cell);
            let value = key.zip(wanted.measures.first()).and_then(|(key, m)| *key.last.get(*m)?);
            if let (true, Some(value)) = (with_last, value) {
                keep_newest(last, value);
            }
        }
    }
    Ok(Groups { measures, known: Known::Found(names, found) })
}

/// Number of distinct values of a dimension among the rows of a question.
pub(crate) fn distinct(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    key: usize,
    cache: Option<&AnswerCache>,
) -> Result<u64> {
    let (merged, rest) = Keyed::split(question, sources, key, cache);
    let mut names = Names::default();
    if let Some(merged) = merged {
        names.enter(&merged.names, true);
        let groups = (0..).zip(merged.groups(0..0)).filter(|(_, group)| group.rows > 0);
        groups.for_each(|(code, _)| {
            names.number(code);
        });
    }
    for source in rest {
        if let Some((dictionary, cells)) = source.cells_by(question, key) {
            names.enter(&dictionary, true);
            for (code, _) in cells.iter().filter(|(_, cell)| cell.cell.rows > 0) {
                names.number(*code);
            }
            continue;
        }
        scan(question, source, ledger, &source.all_rows(), &[key], |scanned| {
            let (codes, dictionary) = coded(&scanned.columns[0])?;
            names.enter(&dictionary, false);
            for code in codes.iter() {
                names.number(*code);
            }
            Ok(())
        })?;
    }
    for source in ledger.rollups().iter() {
        let Some((dictionary, cells)) = ledger.rolled_by(source, question, key) else { continue };
        names.enter(&dictionary, true);
        for (code, ..) in cells.iter().filter(|(_, cell, _)| cell.rows > 0) {
            names.number(*code);
        }
    }
    Ok(names.len() as u64)
}
