//! Summaries of a segment's rows, built block by block in their stored order.
//!
//! Owns what a sealed segment knows beside its rows (spec 6.4): cells of the whole, of
//! hours, of keys and of keys in hours, the last value of each key and where its rows
//! lie, digests, and the rows with the largest values. The writer builds them from the
//! rows it stores; a deep check builds them again and compares. How they are stored is
//! the work of `sections`.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::column::{Bitmap, Column, Strings, Values, extremes};
use crate::format::order::{float_from_key, float_key};
use crate::schema::{ColumnType, Schema};
use crate::segment::{
    Cell, HourCell, KeyCell, KeyHourCell, KeyRun, LastValue, Summaries, TopRow, TopRows,
};
use crate::sketch::digest::Digest;
use crate::sketch::stats::{Number, Stats, Sum};
use crate::time::MICROS_PER_HOUR;

/// Rows from which a key has a cell of its own in an hour.
pub(crate) const KEY_HOUR_ROWS_MIN: u64 = 64;
/// Values from which an hour or a key has a digest of its own.
pub(crate) const DIGEST_VALUES_MIN: usize = 4096;
/// Rows that are kept as those with the largest values.
pub(crate) const TOP_ROWS: usize = 128;
/// Keys of one level beyond which the level is not summarised.
pub(crate) const LEVEL_KEYS_MAX: usize = 64 << 10;

/// No rows at all.
pub(crate) fn empty_cell(schema: &Schema) -> Cell {
    let measures = schema.measures.iter().map(|column| match schema.columns[*column].kind {
        ColumnType::Float => Stats::FLOAT,
        _ => Stats::INT,
    });
    Cell { rows: 0, successes: 0, measures: measures.collect() }
}

/// Adds the rows of `other`.
pub(crate) fn merge_cell(cell: &mut Cell, other: &Cell) {
    cell.rows += other.rows;
    cell.successes += other.successes;
    for (stats, other) in cell.measures.iter_mut().zip(&other.measures) {
        stats.merge(other);
    }
}

/// How much of the rows summaries keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grain {
    /// Rows from which a key has a cell of its own in an hour; `None`: none has.
    key_hour_rows: Option<u64>,
    /// Levels whose keys have cells in hours, the coarsest first.
    key_hour_levels: usize,
    /// Levels whose keys have digests in hours.
    key_hour_digests: usize,
    /// Values from which an hour or a key has a digest of its own.
    digest_values: usize,
    /// Whether hours have digests.
    hour_digests: bool,
    /// Whether means are rounded.
    short: bool,
}

impl Grain {
    /// What lies beside the rows of a segment.
    pub(crate) const SEGMENT: Self = Self {
        key_hour_rows: Some(KEY_HOUR_ROWS_MIN),
        key_hour_levels: 1,
        key_hour_digests: 0,
        digest_values: DIGEST_VALUES_MIN,
        hour_digests: true,
        short: false,
    };

    /// What lies beside the rows of an archive.
    pub(crate) const ARCHIVE: Self = Self { short: true, ..Self::SEGMENT };

    /// What an hourly rollup keeps instead of the rows.
    pub(crate) fn hourly(schema: &Schema) -> Self {
        Self {
            key_hour_rows: Some(1),
            key_hour_levels: schema.keys.len(),
            // Of metric types, of which there are few; not of agents.
            key_hour_digests: schema.keys.len().saturating_sub(1),
            digest_values: 1,
            hour_digests: true,
            short: true,
        }
    }

    /// What a daily rollup keeps instead of the rows.
    pub(crate) fn daily() -> Self {
        Self {
            key_hour_rows: None,
            key_hour_levels: 0,
            key_hour_digests: 0,
            digest_values: 1,
            hour_digests: false,
            short: true,
        }
    }
}

/// Builds the summaries of the blocks it is given, in their order.
pub(crate) struct Summariser {
    schema: &'static Schema,
    grain: Grain,
    /// Per level of the schema's keys; `None` where a column has no segment dictionary.
    levels: Vec<Option<Level>>,
    hours: Vec<HourCell>,
    /// Per measure: the order keys of its values, hour after hour.
    values: Vec<Vec<i64>>,
    /// Per hour and measure: where its values lie.
    value_ranges: Vec<Vec<Range<usize>>>,
    top: Top,
    dictionaries: Vec<Option<Arc<Strings>>>,
    blocks: u32,
    rows: u64,
}

impl Summariser {
    /// Of segments whose dimensions have these dictionaries.
    pub(crate) fn new(
        schema: &'static Schema,
        dictionaries: &[Option<Arc<Strings>>],
        grain: Grain,
    ) -> Self {
        let coded = |column: &usize| {
            dictionaries.get(*column).is_some_and(|dictionary| dictionary.is_some())
        };
        let levels = schema
            .keys
            .iter()
            .map(|columns| columns.iter().all(coded).then(|| Level::new(schema, columns)));
        Self {
            schema,
            grain,
            levels: levels.collect(),
            hours: Vec::new(),
            values: vec![Vec::new(); schema.measures.len()],
            value_ranges: Vec::new(),
            top: Top::default(),
            dictionaries: dictionaries.to_vec(),
            blocks: 0,
            rows: 0,
        }
    }

    /// Adds the next block.
    pub(crate) fn add_block(&mut self, columns: &[Column]) {
        let Some(Values::Int(stamps)) = columns.first().map(|column| &column.values) else {
            return;
        };
        for level in &mut self.levels {
            // A level with too many keys would be larger than what it saves.
            if level.as_mut().is_some_and(|level| !level.number_rows(columns)) {
                *level = None;
            }
        }
        let mut start = 0;
        for run in stamps.chunk_by(|a, b| hour_of(*a) == hour_of(*b)) {
            let rows = start..start + run.len();
            start = rows.end;
            self.add_hour_rows(hour_of(run[0]), columns, rows);
        }
        for level in self.levels.iter_mut().flatten() {
            level.add_runs(self.blocks);
        }
        self.top.add(self.schema, columns, self.rows);
        self.blocks += 1;
        self.rows += stamps.len() as u64;
    }

    fn add_hour_rows(&mut self, hour: i64, columns: &[Column], rows: Range<usize>) {
        if self.hours.last().is_none_or(|last| last.hour != hour) {
            self.end_hour();
            let cell = empty_cell(self.schema);
            let digests = vec![None; self.schema.measures.len()];
            let first_row = self.rows + rows.start as u64;
            self.hours.push(HourCell { hour, first_row, cell, digests, keys: Vec::new() });
            self.value_ranges.push(self.values.iter().map(|v| v.len()..v.len()).collect());
        }
        let (Some(hour), Some(ranges)) = (self.hours.last_mut(), self.value_ranges.last_mut())
        else {
            return;
        };
        hour.cell.rows += rows.len() as u64;
        hour.cell.successes += successes(self.schema, columns, rows.clone());
        for (index, column) in self.schema.measures.iter().enumerate() {
            let column = &columns[*column];
            add_stats(&mut hour.cell.measures[index], column, rows.clone());
            push_values(&mut self.values[index], column, rows.clone());
            ranges[index].end = self.values[index].len();
        }
        for level in self.levels.iter_mut().flatten() {
            level.add(self.schema, columns, rows.clone());
        }
    }

    /// Takes over what the keys of the open hour add up to.
    fn end_hour(&mut self) {
        let Some(hour) = self.hours.last_mut() else { return };
        for (number, level) in self.levels.iter_mut().enumerate() {
            let Some(level) = level else { continue };
            let kept = self.grain.key_hour_rows.filter(|_| number < self.grain.key_hour_levels);
            let cells = level.end_hour(kept.unwrap_or(u64::MAX));
            let key_cell =
                |(key, cell)| KeyHourCell { level: number, key, cell, digests: Vec::new() };
            hour.keys.extend(cells.into_iter().map(key_cell));
        }
    }

    /// The summaries of all blocks.
    pub(crate) fn finish(mut self) -> Summaries {
        self.end_hour();
        let mut total = empty_cell(self.schema);
        self.hours.iter().for_each(|hour| merge_cell(&mut total, &hour.cell));
        let floats: Vec<bool> = self
            .schema
            .measures
            .iter()
            .map(|column| self.schema.columns[*column].kind == ColumnType::Float)
            .collect();
        let mut keys = Vec::new();
        let mut key_digests = Vec::new();
        let grain = self.grain;
        for (number, level) in self.levels.into_iter().enumerate() {
            let Some(level) = level else {
                keys.push(Vec::new());
                key_digests.push(Vec::new());
                continue;
            };
            let digests = level.digests(&self.values, &floats, grain);
            if number < grain.key_hour_digests {
                for (hour, ranges) in self.hours.iter_mut().zip(&self.value_ranges) {
                    level.hour_digests(number, hour, ranges, &self.values, &floats, grain);
                }
            }
            let (cells, places) = level.finish(self.schema);
            let mut ordered = vec![Vec::new(); cells.len()];
            for (digests, place) in digests.into_iter().zip(&places) {
                ordered[*place] = digests;
            }
            renumber(&mut self.hours, number, &places);
            keys.push(cells);
            key_digests.push(ordered);
        }
        // From here on the values are only asked for their ranks.
        let mut digests = Vec::new();
        let mut room = Vec::new();
        for (measure, values) in self.values.iter_mut().enumerate() {
            for (hour, ranges) in self.hours.iter_mut().zip(&self.value_ranges) {
                let values = &mut values[ranges[measure].clone()];
                if grain.hour_digests && values.len() >= grain.digest_values {
                    sort_keys(values, false, &mut room);
                    hour.digests[measure] = digest_of(values, floats[measure], grain);
                }
            }
            sort_keys(values, true, &mut room);
            digests.push(digest_of(values, floats[measure], grain));
        }
        let top = self.top.finish(&self.dictionaries);
        Summaries { total, digests, hours: self.hours, keys, key_digests, top }
    }
}

/// Key cells of hours were numbered as the keys came; afterwards keys are sorted.
fn renumber(hours: &mut [HourCell], level: usize, places: &[usize]) {
    for hour in hours {
        let cells = hour.keys.iter_mut().filter(|cell| cell.level == level);
        cells.for_each(|cell| cell.key = places[cell.key]);
        hour.keys.sort_unstable_by_key(|cell| (cell.level, cell.key));
    }
}

/// Sorts order keys. Those of measurements mostly differ in their low bits only: then two
/// or three rounds of counting do (LSD radix sort), whatever order they are in. Others are
/// compared; `runs`: long parts of them are sorted already.
fn sort_keys(keys: &mut [i64], runs: bool, room: &mut Vec<i64>) {
    const DIGIT_BITS: u32 = 11;
    const ROUNDS_MAX: u32 = 3;
    let Some((min, max)) = extremes(keys) else { return };
    let bits = u64::BITS - max.wrapping_sub(min).cast_unsigned().leading_zeros();
    if bits.div_ceil(DIGIT_BITS) > ROUNDS_MAX || keys.len() < 1 << DIGIT_BITS {
        if runs {
            // Stable, because it merges the sorted parts instead of starting over.
            keys.sort();
        } else {
            keys.sort_unstable();
        }
        return;
    }
    room.clear();
    room.resize(keys.len(), 0);
    for round in 0..bits.div_ceil(DIGIT_BITS) {
        let digit = |key: &i64| {
            let offset = key.wrapping_sub(min).cast_unsigned();
            (offset >> (round * DIGIT_BITS) & ((1 << DIGIT_BITS) - 1)) as usize
        };
        let mut places = [0usize; 1 << DIGIT_BITS];
        keys.iter().for_each(|key| places[digit(key)] += 1);
        let mut next = 0;
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        for key in keys.iter() {
            let place = &mut places[digit(key)];
            room[*place] = *key;
            *place += 1;
        }
        keys.copy_from_slice(room);
    }
}

fn digest_of(sorted: &[i64], floats: bool, grain: Grain) -> Option<Arc<Digest>> {
    let mut values: Vec<f64> = if floats {
        sorted.iter().copied().map(float_from_key).collect()
    } else {
        sorted.iter().map(|value| *value as f64).collect()
    };
    let digest = Digest::build(&mut values)?;
    Some(Arc::new(if grain.short { digest.rounded(&values) } else { digest }))
}

fn hour_of(stamp: i64) -> i64 {
    stamp.div_euclid(MICROS_PER_HOUR)
}

fn successes(schema: &Schema, columns: &[Column], rows: Range<usize>) -> u64 {
    let column = schema.success.map(|column| &columns[column]);
    column.map_or(0, |column| rows.filter(|row| column.bool(*row) == Some(true)).count() as u64)
}

fn slice_of(validity: Option<&Bitmap>, rows: Range<usize>) -> Option<Bitmap> {
    validity.map(|validity| rows.map(|row| validity.get(row)).collect())
}

fn add_stats(stats: &mut Stats, column: &Column, rows: Range<usize>) {
    let part = slice_of(column.validity.as_ref(), rows.clone());
    match &column.values {
        Values::Int(values) => stats.add_ints(&values[rows], part.as_ref()),
        Values::Float(values) => stats.add_floats(&values[rows], part.as_ref()),
        _ => {}
    }
}

/// Appends the order keys of the rows with a value.
fn push_values(out: &mut Vec<i64>, column: &Column, rows: Range<usize>) {
    let valid = |row: &usize| column.is_valid(*row);
    match &column.values {
        Values::Int(values) if column.validity.is_none() => out.extend_from_slice(&values[rows]),
        Values::Int(values) => out.extend(rows.filter(valid).map(|row| values[row])),
        Values::Float(values) => {
            out.extend(rows.filter(valid).map(|row| float_key(values[row])));
        }
        _ => {}
    }
}

/// Order key of a row's value; `None` without one.
pub(crate) fn order_key(column: &Column, row: usize) -> Option<i64> {
    match &column.values {
        Values::Int(values) => column.is_valid(row).then(|| values[row]),
        Values::Float(values) => column.is_valid(row).then(|| float_key(values[row])),
        _ => None,
    }
}

/// What is different in two summaries of the same rows, as far as `stored` keeps it.
pub(crate) fn differences(stored: &Summaries, fresh: &Summaries) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |same: bool, what: String| {
        if !same {
            wrong.push(format!("{what} is not that of the rows"));
        }
    };
    expect(cells_agree(&stored.total, &fresh.total), "the total".to_owned());
    expect(digests_agree(&stored.digests, &fresh.digests), "a digest".to_owned());
    let top = stored.top.rows.is_empty() || tops_agree(&stored.top, &fresh.top);
    expect(top, "the list of largest rows".to_owned());
    expect(stored.hours.len() == fresh.hours.len(), "the number of hours".to_owned());
    for (hour, other) in stored.hours.iter().zip(&fresh.hours) {
        let place = (hour.hour, hour.first_row) == (other.hour, other.first_row);
        let keys = hour.keys.is_empty()
            || (hour.keys.len() == other.keys.len()
                && hour.keys.iter().zip(&other.keys).all(|(key, other)| {
                    (key.level, key.key) == (other.level, other.key)
                        && cells_agree(&key.cell, &other.cell)
                }));
        let digests = digests_agree(&hour.digests, &other.digests);
        let same = place && keys && digests && cells_agree(&hour.cell, &other.cell);
        expect(same, format!("hour {}", hour.hour));
    }
    for (level, (keys, others)) in stored.keys.iter().zip(&fresh.keys).enumerate() {
        if keys.is_empty() {
            continue;
        }
        expect(keys.len() == others.len(), format!("the number of keys of level {level}"));
        for (position, (key, other)) in keys.iter().zip(others).enumerate() {
            let runs = key.runs.is_empty() || key.runs == other.runs;
            let last = key.last.iter().all(Option::is_none) || key.last == other.last;
            let digests = digests_agree(
                &stored.key_digests[level][position],
                &fresh.key_digests[level][position],
            );
            let cells = key.codes == other.codes && cells_agree(&key.cell, &other.cell);
            expect(runs && last && digests && cells, format!("key {position} of level {level}"));
        }
    }
    wrong
}

/// Float sums may differ in their last bits, all else is exact.
fn cells_agree(a: &Cell, b: &Cell) -> bool {
    let stats_agree = |a: &Stats, b: &Stats| {
        let largest = [a.min, a.max].into_iter().flatten().map(|n| n.to_f64().abs());
        let scale = largest.fold(0.0, f64::max) * a.rows as f64;
        let sums = match (a.sum, b.sum) {
            (Sum::Int(a), Sum::Int(b)) => a == b,
            (a, b) => (a.to_f64() - b.to_f64()).abs() <= scale * 1e-12,
        };
        sums && (a.rows, a.nulls, a.min, a.max) == (b.rows, b.nulls, b.min, b.max)
    };
    (a.rows, a.successes) == (b.rows, b.successes)
        && a.measures.len() == b.measures.len()
        && a.measures.iter().zip(&b.measures).all(|(a, b)| stats_agree(a, b))
}

/// Another release may choose other centroids for the same values.
fn digests_agree(stored: &[Option<Arc<Digest>>], fresh: &[Option<Arc<Digest>>]) -> bool {
    let facts = |digest: &Arc<Digest>| (digest.count(), digest.min(), digest.max());
    stored.len() == fresh.len()
        && stored.iter().zip(fresh).all(|(stored, fresh)| {
            stored.is_none() || stored.as_ref().map(facts) == fresh.as_ref().map(facts)
        })
}

/// What some values add up to, while they come one by one.
#[derive(Clone, Copy)]
enum Running {
    Int { sum: i128, min: i64, max: i64, count: u64 },
    Float { hi: f64, lo: f64, min: i64, max: i64, count: u64 },
}

impl Running {
    const INT: Self = Self::Int { sum: 0, min: i64::MAX, max: i64::MIN, count: 0 };
    const FLOAT: Self = Self::Float { hi: 0.0, lo: 0.0, min: i64::MAX, max: i64::MIN, count: 0 };

    fn push_int(&mut self, value: i64) {
        if let Self::Int { sum, min, max, count } = self {
            *sum += i128::from(value);
            *min = value.min(*min);
            *max = value.max(*max);
            *count += 1;
        }
    }

    /// TwoSum, as in `sketch::stats`.
    fn push_float(&mut self, value: f64) {
        if let Self::Float { hi, lo, min, max, count } = self {
            let key = float_key(value);
            let total = *hi + value;
            let part = total - *hi;
            *lo += (*hi - (total - part)) + (value - part);
            *hi = total;
            *min = key.min(*min);
            *max = key.max(*max);
            *count += 1;
        }
    }

    fn stats(&self, rows: u64) -> Stats {
        match *self {
            Self::Int { sum, min, max, count } => Stats {
                rows,
                nulls: rows - count,
                sum: Sum::Int(sum),
                min: (count > 0).then_some(Number::Int(min)),
                max: (count > 0).then_some(Number::Int(max)),
            },
            Self::Float { hi, lo, min, max, count } => {
                let mut stats = Stats { rows, nulls: rows - count, ..Stats::FLOAT };
                stats.sum.merge(Sum::Float { hi, lo });
                stats.min = (count > 0).then(|| Number::Float(float_from_key(min)));
                stats.max = (count > 0).then(|| Number::Float(float_from_key(max)));
                stats
            }
        }
    }
}

/// What one key adds up to in the open hour.
#[derive(Clone)]
struct Tally {
    rows: u64,
    successes: u64,
    measures: Vec<Running>,
}

/// The rows of one key in the open block.
#[derive(Clone, Copy)]
struct Span {
    first: u32,
    last: u32,
    rows: u32,
}

/// The keys of one level of the schema, numbered as they come.
struct Level {
    columns: &'static [usize],
    /// Of each prefix of the columns: (number of the shorter prefix, code) to its number.
    prefixes: Vec<HashMap<(u32, u32), u32, RandomState>>,
    codes: Vec<Vec<u32>>,
    empty: Tally,
    totals: Vec<Cell>,
    tallies: Vec<Tally>,
    touched: Vec<u32>,
    /// Per key and measure.
    last: Vec<Vec<Option<LastValue>>>,
    runs: Vec<Vec<KeyRun>>,
    /// Number of the key of each row of the open block.
    rows: Vec<u32>,
    spans: Vec<Option<Span>>,
    in_block: Vec<u32>,
    /// Per measure: number of the key of each value.
    value_keys: Vec<Vec<u32>>,
    empty_total: Cell,
}

impl Level {
    fn new(schema: &Schema, columns: &'static [usize]) -> Self {
        let measures = schema.measures.iter().map(|column| match schema.columns[*column].kind {
            ColumnType::Float => Running::FLOAT,
            _ => Running::INT,
        });
        Self {
            columns,
            prefixes: vec![HashMap::default(); columns.len()],
            codes: Vec::new(),
            empty: Tally { rows: 0, successes: 0, measures: measures.collect() },
            totals: Vec::new(),
            tallies: Vec::new(),
            touched: Vec::new(),
            last: Vec::new(),
            runs: Vec::new(),
            rows: Vec::new(),
            spans: Vec::new(),
            in_block: Vec::new(),
            value_keys: vec![Vec::new(); schema.measures.len()],
            empty_total: empty_cell(schema),
        }
    }

    /// Numbers the keys of a block's rows; false when there are too many of them.
    fn number_rows(&mut self, columns: &[Column]) -> bool {
        let coded: Vec<&[u32]> = self
            .columns
            .iter()
            .filter_map(|column| match &columns[*column].values {
                Values::Coded { codes, .. } => Some(codes.as_slice()),
                _ => None,
            })
            .collect();
        if coded.len() != self.columns.len() {
            return false;
        }
        let count = coded.first().map_or(0, |codes| codes.len());
        self.rows.clear();
        let mut previous: Option<(usize, u32)> = None;
        for row in 0..count {
            // Sorted blocks repeat a key many times over.
            if let Some((same, number)) = previous
                && coded.iter().all(|codes| codes[same] == codes[row])
            {
                self.rows.push(number);
                continue;
            }
            let number = self.number(&coded, row);
            previous = Some((row, number));
            self.rows.push(number);
        }
        self.codes.len() <= LEVEL_KEYS_MAX
    }

    fn number(&mut self, coded: &[&[u32]], row: usize) -> u32 {
        let mut number = 0;
        let last = coded.len() - 1;
        for (depth, codes) in coded.iter().enumerate() {
            let known = &mut self.prefixes[depth];
            let next = to_u32(if depth == last { self.codes.len() } else { known.len() });
            number = *known.entry((number, codes[row])).or_insert(next);
            if depth == last && number == next {
                self.codes.push(coded.iter().map(|codes| codes[row]).collect());
                self.tallies.push(self.empty.clone());
                self.totals.push(self.empty_total.clone());
                self.last.push(vec![None; self.empty.measures.len()]);
                self.runs.push(Vec::new());
                self.spans.push(None);
            }
        }
        number
    }

    /// Adds rows of the open block that lie in the open hour.
    fn add(&mut self, schema: &Schema, columns: &[Column], rows: Range<usize>) {
        for row in rows.clone() {
            let key = self.rows[row];
            let tally = &mut self.tallies[key as usize];
            if tally.rows == 0 {
                self.touched.push(key);
            }
            tally.rows += 1;
            match &mut self.spans[key as usize] {
                Some(span) => {
                    span.last = to_u32(row);
                    span.rows += 1;
                }
                span @ None => {
                    *span = Some(Span { first: to_u32(row), last: to_u32(row), rows: 1 });
                    self.in_block.push(key);
                }
            }
        }
        if let Some(Values::Bool(flags)) = schema.success.map(|column| &columns[column].values) {
            for row in rows.clone() {
                self.tallies[self.rows[row] as usize].successes += u64::from(flags.get(row));
            }
        }
        let Values::Int(stamps) = &columns[0].values else { return };
        for (measure, column) in schema.measures.iter().enumerate() {
            self.add_measure(measure, &columns[*column], stamps, rows.clone());
        }
    }

    fn add_measure(&mut self, measure: usize, column: &Column, stamps: &[i64], rows: Range<usize>) {
        for row in rows {
            if !column.is_valid(row) {
                continue;
            }
            let key = self.rows[row];
            self.value_keys[measure].push(key);
            let running = &mut self.tallies[key as usize].measures[measure];
            let order_key = match &column.values {
                Values::Int(values) => {
                    running.push_int(values[row]);
                    values[row]
                }
                Values::Float(values) => {
                    running.push_float(values[row]);
                    float_key(values[row])
                }
                _ => continue,
            };
            let newest = LastValue { timestamp: stamps[row], order_key };
            let last = &mut self.last[key as usize][measure];
            if last.is_none_or(|last| newer(&newest, &last)) {
                *last = Some(newest);
            }
        }
    }

    fn add_runs(&mut self, block: u32) {
        for key in self.in_block.drain(..) {
            if let Some(Span { first, last, rows }) = self.spans[key as usize].take() {
                self.runs[key as usize].push(KeyRun { block, first, span: last - first + 1, rows });
            }
        }
    }

    /// Ends the open hour; returns the cells of keys that have so many rows in it.
    fn end_hour(&mut self, least: u64) -> Vec<(usize, Cell)> {
        let mut cells = Vec::new();
        for key in self.touched.drain(..) {
            let key = key as usize;
            let tally = std::mem::replace(&mut self.tallies[key], self.empty.clone());
            let cell = Cell {
                rows: tally.rows,
                successes: tally.successes,
                measures: tally.measures.iter().map(|running| running.stats(tally.rows)).collect(),
            };
            merge_cell(&mut self.totals[key], &cell);
            if cell.rows >= least {
                cells.push((key, cell));
            }
        }
        cells
    }

    /// Per key, in the order of their numbers: the digests of its measures.
    fn digests(
        &self,
        values: &[Vec<i64>],
        floats: &[bool],
        grain: Grain,
    ) -> Vec<Vec<Option<Arc<Digest>>>> {
        let mut digests = vec![vec![None; values.len()]; self.codes.len()];
        for (measure, values) in values.iter().enumerate() {
            let enough: Vec<bool> = self
                .totals
                .iter()
                .map(|cell| cell.measures[measure].count() >= grain.digest_values as u64)
                .collect();
            let mut by_key: Vec<Vec<i64>> = vec![Vec::new(); enough.len()];
            for (key, value) in self.value_keys[measure].iter().zip(values) {
                if enough[*key as usize] {
                    by_key[*key as usize].push(*value);
                }
            }
            let mut room = Vec::new();
            for (key, mut values) in by_key.into_iter().enumerate() {
                if enough[key] {
                    sort_keys(&mut values, false, &mut room);
                    digests[key][measure] = digest_of(&values, floats[measure], grain);
                }
            }
        }
        digests
    }

    /// Adds digests to the cells of the keys in an hour, which are numbered as they came;
    /// `ranges` are the places of its values.
    fn hour_digests(
        &self,
        level: usize,
        hour: &mut HourCell,
        ranges: &[Range<usize>],
        values: &[Vec<i64>],
        floats: &[bool],
        grain: Grain,
    ) {
        let mut room = Vec::new();
        for (measure, range) in ranges.iter().enumerate() {
            let mut by_key: HashMap<u32, Vec<i64>, RandomState> = HashMap::default();
            let keys = &self.value_keys[measure][range.clone()];
            for (key, value) in keys.iter().zip(&values[measure][range.clone()]) {
                by_key.entry(*key).or_default().push(*value);
            }
            for cell in hour.keys.iter_mut().filter(|cell| cell.level == level) {
                let digest = by_key.get_mut(&to_u32(cell.key)).and_then(|values| {
                    sort_keys(values, false, &mut room);
                    digest_of(values, floats[measure], grain)
                });
                cell.digests.push(digest);
            }
        }
        let empty = |cell: &&mut KeyHourCell| cell.digests.iter().all(Option::is_none);
        hour.keys.iter_mut().filter(empty).for_each(|cell| cell.digests.clear());
    }

    /// The keys, ascending by codes, and for each number the key's position among them.
    fn finish(self, schema: &Schema) -> (Vec<KeyCell>, Vec<usize>) {
        debug_assert_eq!(schema.measures.len(), self.empty.measures.len());
        let mut cells: Vec<(usize, KeyCell)> = self
            .codes
            .into_iter()
            .zip(self.totals)
            .zip(self.last)
            .zip(self.runs)
            .map(|(((codes, cell), last), runs)| KeyCell { codes, cell, last, runs })
            .enumerate()
            .collect();
        cells.sort_unstable_by(|(_, a), (_, b)| a.codes.cmp(&b.codes));
        let mut places = vec![0; cells.len()];
        for (place, (number, _)) in cells.iter().enumerate() {
            places[*number] = place;
        }
        (cells.into_iter().map(|(_, cell)| cell).collect(), places)
    }
}

/// Which of two values of a key is the last one: the newer, and of two with one stamp the
/// larger, so that the answer does not depend on the order of rows.
pub(crate) fn newer(a: &LastValue, b: &LastValue) -> bool {
    (a.timestamp, a.order_key) > (b.timestamp, b.order_key)
}

/// The columns that are kept of the rows with the largest values.
pub(crate) fn kept_columns(schema: &Schema) -> impl Iterator<Item = usize> {
    (0..schema.columns.len()).filter(|column| schema.columns[*column].kind != ColumnType::Json)
}

/// The rows with the largest values so far, and their columns; texts are plain.
#[derive(Default)]
struct Top(TopRows);

impl Top {
    const BUFFER: usize = TOP_ROWS * 16;

    /// Adds the rows of a block, whose first one has the number `first_row`.
    fn add(&mut self, schema: &Schema, columns: &[Column], first_row: u64) {
        let Some(measure) = schema.measures.first().map(|measure| &columns[*measure]) else {
            return;
        };
        // The value that a row must exceed, once there are enough rows.
        let mut least = self.0.rows.get(TOP_ROWS - 1).map(|top| top.order_key);
        let mut found: Vec<(TopRow, usize)> = Vec::new();
        for row in 0..measure.len() {
            let Some(order_key) = order_key(measure, row) else { continue };
            if least.is_none_or(|least| order_key > least) {
                found.push((TopRow { order_key, row: first_row + row as u64 }, row));
                if found.len() >= Self::BUFFER {
                    cut(&mut found, |(top, _)| *top);
                    least = found.last().map(|(top, _)| top.order_key);
                }
            }
        }
        if !found.is_empty() {
            self.merge(schema, columns, found);
        }
    }

    /// Adds rows of a block, each with its place there.
    fn merge(&mut self, schema: &Schema, columns: &[Column], found: Vec<(TopRow, usize)>) {
        let old = std::mem::take(&mut self.0);
        // Of each row: whether its columns are in the block or the list, and where there.
        let kept = old.rows.iter().enumerate().map(|(place, top)| (*top, false, place));
        let found = found.into_iter().map(|(top, row)| (top, true, row));
        let mut all: Vec<_> = kept.chain(found).collect();
        cut(&mut all, |(top, ..)| *top);
        self.0.rows = all.iter().map(|(top, ..)| *top).collect();
        self.0.columns = vec![None; schema.columns.len()];
        for column in kept_columns(schema) {
            let kept = old.columns.get(column).and_then(Option::as_ref);
            let cells = all.iter().filter_map(|(_, in_block, row)| match in_block {
                true => Some((&columns[column], *row)),
                false => Some((kept?, *row)),
            });
            self.0.columns[column] = Some(Column::of_rows(schema.columns[column].kind, cells));
        }
    }

    /// The rows, with texts as codes where the segment has a dictionary of them.
    fn finish(mut self, dictionaries: &[Option<Arc<Strings>>]) -> TopRows {
        for (column, dictionary) in self.0.columns.iter_mut().zip(dictionaries) {
            if let (Some(column), Some(dictionary)) = (column, dictionary) {
                let code =
                    |row| column.text(row).map_or(Some(0), |text| dictionary.find_sorted(text));
                if let Some(codes) = (0..column.len()).map(code).collect() {
                    column.values = Values::Coded { codes, dictionary: Arc::clone(dictionary) };
                }
            }
        }
        self.0
    }
}

/// Keeps the largest, of equal ones those that came first. A row that is cut off later is
/// not above the last one kept, so all rows that are above it are kept.
fn cut<T>(rows: &mut Vec<T>, top: impl Fn(&T) -> TopRow) {
    rows.sort_unstable_by_key(|row| (Reverse(top(row).order_key), top(row).row));
    rows.truncate(TOP_ROWS);
}

/// Whether the lists have the same rows, and the same in them.
fn tops_agree(a: &TopRows, b: &TopRows) -> bool {
    let cells_agree = |a: &Column, b: &Column, row: usize| {
        (a.int(row), a.float(row).map(f64::to_bits), a.bool(row), a.text(row))
            == (b.int(row), b.float(row).map(f64::to_bits), b.bool(row), b.text(row))
    };
    a.rows == b.rows
        && a.columns.len() == b.columns.len()
        && a.columns.iter().zip(&b.columns).all(|columns| match columns {
            (Some(a), Some(b)) => (0..a.len()).all(|row| cells_agree(a, b, row)),
            (a, b) => a.is_none() && b.is_none(),
        })
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("a segment has fewer than 2^32 rows and keys")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::column::Batch;
    use crate::schema::Table;
    use crate::segment::order::OrderedRows;
    use crate::segment::samples::{day, gauges, tasks};

    fn summarise(batch: &Batch, block_rows: usize) -> (Vec<Vec<Column>>, Summaries) {
        let batches = [batch.clone()];
        let rows = OrderedRows::new(batch.schema, day(), &batches).unwrap();
        let mut summariser = Summariser::new(batch.schema, rows.dictionaries(), Grain::SEGMENT);
        let blocks: Vec<_> =
            rows.blocks(block_rows, 100).into_iter().map(|block| rows.gather(block)).collect();
        blocks.iter().for_each(|block| summariser.add_block(block));
        (blocks, summariser.finish())
    }

    #[test]
    fn keys_are_sorted_whatever_their_bits() {
        let mut random = crate::segment::samples::Random(9);
        for bits in [0, 1, 11, 12, 23, 33, 34, 64] {
            for count in [0, 1, 2000, 5000] {
                let mut keys: Vec<i64> = (0..count)
                    .map(|_| {
                        random
                            .next()
                            .checked_shr(64 - bits)
                            .unwrap_or(0)
                            .cast_signed()
                            .saturating_sub(77)
                    })
                    .collect();
                let mut sorted = keys.clone();
                sorted.sort_unstable();
                sort_keys(&mut keys, bits % 2 == 0, &mut Vec::new());
                assert_eq!(keys, sorted, "{bits} bits");
            }
        }
    }

    /// What the rows of one cell add up to, row by row.
    fn naive_cell(schema: &Schema, rows: &[(&[Column], usize)]) -> Cell {
        let mut cell = empty_cell(schema);
        cell.rows = rows.len() as u64;
        let success = |(columns, row): &&(&[Column], usize)| {
            schema.success.is_some_and(|column| columns[column].bool(*row) == Some(true))
        };
        cell.successes = rows.iter().filter(success).count() as u64;
        for (stats, column) in cell.measures.iter_mut().zip(schema.measures) {
            let keys: Vec<i64> = rows
                .iter()
                .filter_map(|(columns, row)| order_key(&columns[*column], *row))
                .collect();
            stats.rows = rows.len() as u64;
            stats.nulls = (rows.len() - keys.len()) as u64;
            let float = schema.columns[*column].kind == ColumnType::Float;
            let number = |key: &i64| match float {
                true => Number::Float(float_from_key(*key)),
                false => Number::Int(*key),
            };
            stats.min = keys.iter().min().map(number);
            stats.max = keys.iter().max().map(number);
            stats.sum = match float {
                true => Sum::Float { hi: keys.iter().map(|k| float_from_key(*k)).sum(), lo: 0.0 },
                false => Sum::Int(keys.iter().map(|key| i128::from(*key)).sum()),
            };
        }
        cell
    }

    fn check(batch: &Batch) {
        let schema = batch.schema;
        let (blocks, summaries) = summarise(batch, 700);
        let rows: Vec<(&[Column], usize)> = blocks
            .iter()
            .flat_map(|block| (0..block[0].len()).map(move |row| (block.as_slice(), row)))
            .collect();
        assert!(cells_agree(&summaries.total, &naive_cell(schema, &rows)));
        let mut hours: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for (columns, row) in &rows {
            hours.entry(hour_of(columns[0].int(*row).unwrap())).or_default().push((*columns, *row));
        }
        assert_eq!(summaries.hours.len(), hours.len());
        let mut first_row = 0;
        for (found, (hour, rows)) in summaries.hours.iter().zip(&hours) {
            assert_eq!((found.hour, found.first_row), (*hour, first_row));
            first_row += rows.len() as u64;
            assert!(cells_agree(&found.cell, &naive_cell(schema, rows)));
            let enough = found.cell.measures[0].count() >= DIGEST_VALUES_MIN as u64;
            assert_eq!(found.digests[0].is_some(), enough);
        }
        for (level, columns) in schema.keys.iter().enumerate() {
            check_level(schema, columns, level, &rows, &blocks, &summaries);
        }
        check_top(schema, &rows, &summaries);
    }

    fn codes_of(columns: &[Column], key: &[usize], row: usize) -> Vec<u32> {
        key.iter()
            .map(|column| match &columns[*column].values {
                Values::Coded { codes, .. } => codes[row],
                _ => panic!("not coded"),
            })
            .collect()
    }

    fn check_level(
        schema: &Schema,
        key: &[usize],
        level: usize,
        rows: &[(&[Column], usize)],
        blocks: &[Vec<Column>],
        summaries: &Summaries,
    ) {
        let mut keys: BTreeMap<Vec<u32>, Vec<(&[Column], usize)>> = BTreeMap::new();
        for (columns, row) in rows {
            keys.entry(codes_of(columns, key, *row)).or_default().push((columns, *row));
        }
        let found = &summaries.keys[level];
        assert_eq!(found.len(), keys.len());
        for (position, (cell, (codes, rows))) in found.iter().zip(&keys).enumerate() {
            assert_eq!(&cell.codes, codes);
            assert!(cells_agree(&cell.cell, &naive_cell(schema, rows)));
            for (measure, column) in schema.measures.iter().enumerate() {
                let last = rows
                    .iter()
                    .filter_map(|(columns, row)| {
                        Some((columns[0].int(*row)?, order_key(&columns[*column], *row)?))
                    })
                    .max();
                assert_eq!(cell.last[measure].map(|l| (l.timestamp, l.order_key)), last);
                let enough = cell.cell.measures[measure].count() >= DIGEST_VALUES_MIN as u64;
                let digest = &summaries.key_digests[level][position][measure];
                assert_eq!(digest.is_some(), enough);
                if let Some(digest) = digest {
                    assert_eq!(digest.count(), cell.cell.measures[measure].count());
                }
            }
            for (number, block) in (0u32..).zip(blocks) {
                let inside: Vec<usize> = (0..block[0].len())
                    .filter(|row| &codes_of(block, key, *row) == codes)
                    .collect();
                let run = cell.runs.iter().find(|run| run.block == number);
                let expected = inside.first().map(|first| {
                    (
                        to_u32(*first),
                        to_u32(inside[inside.len() - 1] - first + 1),
                        to_u32(inside.len()),
                    )
                });
                assert_eq!(run.map(|run| (run.first, run.span, run.rows)), expected);
            }
            for hour in &summaries.hours {
                let inside: Vec<_> = rows
                    .iter()
                    .filter(|(columns, row)| hour_of(columns[0].int(*row).unwrap()) == hour.hour)
                    .copied()
                    .collect();
                let kept =
                    hour.keys.iter().find(|cell| (cell.level, cell.key) == (level, position));
                if level > 0 || (inside.len() as u64) < KEY_HOUR_ROWS_MIN {
                    assert!(kept.is_none());
                } else {
                    assert!(cells_agree(&kept.unwrap().cell, &naive_cell(schema, &inside)));
                }
            }
        }
    }

    fn check_top(schema: &Schema, rows: &[(&[Column], usize)], summaries: &Summaries) {
        let mut values: Vec<TopRow> = (0u64..)
            .zip(rows)
            .filter_map(|(position, (columns, row))| {
                let order_key = order_key(&columns[schema.measures[0]], *row)?;
                Some(TopRow { order_key, row: position })
            })
            .collect();
        values.sort_by_key(|top| (Reverse(top.order_key), top.row));
        values.truncate(TOP_ROWS);
        assert_eq!(summaries.top.rows, values);
        for (column, kept) in summaries.top.columns.iter().enumerate() {
            assert_eq!(kept.is_none(), schema.columns[column].kind == ColumnType::Json);
            let Some(kept) = kept else { continue };
            let of_rows: Vec<_> =
                values.iter().map(|top| rows[usize::try_from(top.row).unwrap()]).collect();
            let cells = of_rows.iter().map(|(columns, row)| (&columns[column], *row));
            let plain = Column::of_rows(schema.columns[column].kind, cells.clone());
            assert_eq!(kept.validity, plain.validity);
            for (row, (cell, place)) in cells.enumerate() {
                assert_eq!(kept.gather(&[to_u32(row)]), cell.gather(&[to_u32(place)]));
            }
        }
    }

    #[test]
    fn summaries_are_those_of_the_rows() {
        check(&tasks(9000, 30, 21));
        check(&gauges(9000, 11, 22));
        check(&tasks(40, 30, 23));
        check(&Batch::empty(Table::Swarm.schema()));
    }

    #[test]
    fn few_keys_have_digests_of_their_own() {
        check(&tasks(24_000, 2, 24));
    }

    #[test]
    fn differences_are_found() {
        let (_, summaries) = summarise(&tasks(5000, 5, 25), 700);
        assert!(differences(&summaries, &summaries).is_empty());
        let mut other = summaries.clone();
        other.keys[0][1].cell.rows += 1;
        other.total.successes -= 1;
        other.top.rows[3].row += 1;
        assert_eq!(differences(&summaries, &other).len(), 3);
        other.top = summaries.top.clone();
        if let Some(Values::Int(tokens)) = other.top.columns[4].as_mut().map(|c| &mut c.values) {
            tokens[5] += 1;
        }
        assert_eq!(differences(&summaries, &other).len(), 3);
        other.top = TopRows::default();
        other.keys[0].clear();
        other.total = summaries.total.clone();
        assert!(differences(&other, &summaries).is_empty());
    }

    #[test]
    fn too_many_keys_are_not_summarised() {
        let mut level = Level::new(Table::Task.schema(), &[2]);
        let dictionary = Arc::new(Strings::default());
        let codes: Vec<u32> = (0..=u32::try_from(LEVEL_KEYS_MAX).unwrap()).collect();
        let columns = |codes: &[u32]| {
            let coded =
                Values::Coded { codes: codes.to_vec(), dictionary: Arc::clone(&dictionary) };
            vec![
                Column::empty(ColumnType::Timestamp),
                Column::empty(ColumnType::Text),
                Column::new(coded),
            ]
        };
        assert!(level.number_rows(&columns(&codes[1..])));
        assert!(!level.number_rows(&columns(&codes)));
    }
}
