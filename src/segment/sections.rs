//! The index sections of a sealed segment as tables of column chunks (spec 6.4).
//!
//! Owns the columns of each section and turning summaries, zone maps and the membership
//! filter into them and back. Leaves alone where the frames lie and which parts are worth
//! their bytes. All of it is derived: a section that breaks a rule is an error here, and
//! the reader goes on without it.

use std::sync::Arc;

use crate::column::{Bitmap, Column, Values};
use crate::encoding::{Effort, TextScope};
use crate::error::{Error, Result};
use crate::format::directory::ChunkEntry;
use crate::format::frame::IndexSection;
use crate::limits::FRAME_ROWS_MAX;
use crate::schema::{ColumnType, Schema};
use crate::segment::frames::BlockFrame;
use crate::segment::summarise::{empty_cell, kept_columns, merge_cell, order_key};
use crate::segment::{
    BlockInfo, Cell, Depth, HourCell, KeyCell, KeyHourCell, KeyRun, LastValue, Summaries, Tier,
    TopRow, TopRows,
};
use crate::sketch::digest::Digest;
use crate::sketch::membership::Membership;
use crate::sketch::stats::{Number, Stats, Sum};

const SECTION: &str = "6.4";

/// Scope of a cell or a digest: all rows.
const SCOPE_TOTAL: i64 = 1;
/// Scope of a cell or a digest: a key.
const SCOPE_KEY: i64 = 2;
/// Scope of a cell: a key in an hour. Of a digest: an hour.
const SCOPE_HOUR: i64 = 3;
/// Scope of a digest: a key in an hour.
const SCOPE_KEY_HOUR: i64 = 4;

/// What the sections are checked against.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    /// The table.
    pub(crate) schema: &'static Schema,
    /// The blocks.
    pub(crate) blocks: &'a [BlockInfo],
    /// Rows of all blocks.
    pub(crate) rows: u64,
    /// Per column: entries of its dictionary; `None` where it has none.
    pub(crate) dictionaries: Vec<Option<usize>>,
}

/// Types of the columns of a section.
pub(crate) fn kinds(section: IndexSection, schema: &Schema) -> Vec<ColumnType> {
    const INT: ColumnType = ColumnType::Int;
    const FLOAT: ColumnType = ColumnType::Float;
    match section {
        IndexSection::Zones => vec![INT; 4],
        IndexSection::Hours => [vec![INT; 2], cell_kinds(schema)].concat(),
        IndexSection::Keys => vec![INT; 6],
        IndexSection::Members => vec![INT],
        IndexSection::Summaries => {
            [vec![INT; 4 + code_columns(schema)], cell_kinds(schema)].concat()
        }
        IndexSection::Digests | IndexSection::KeyDigests => {
            [[INT; 6].as_slice(), &[FLOAT; 3]].concat()
        }
        IndexSection::Centroids | IndexSection::KeyCentroids => vec![FLOAT, INT],
        IndexSection::Top => {
            let kept = kept_columns(schema).map(|column| schema.columns[column].kind);
            [INT; 2].into_iter().chain(kept).collect()
        }
        IndexSection::Last => vec![INT; 5],
    }
}

/// For each column of a section: the column of the table whose values it holds as a block
/// does; empty where there is none.
pub(crate) fn table_columns(section: IndexSection, schema: &Schema) -> Vec<Option<usize>> {
    match section {
        IndexSection::Top => [None; 2].into_iter().chain(kept_columns(schema).map(Some)).collect(),
        _ => Vec::new(),
    }
}

fn code_columns(schema: &Schema) -> usize {
    schema.keys.iter().map(|columns| columns.len()).max().unwrap_or(0)
}

fn is_float(schema: &Schema, measure: usize) -> bool {
    schema.columns[schema.measures[measure]].kind == ColumnType::Float
}

fn cell_kinds(schema: &Schema) -> Vec<ColumnType> {
    let mut kinds = vec![ColumnType::Int; 2];
    for measure in 0..schema.measures.len() {
        let value = if is_float(schema, measure) { ColumnType::Float } else { ColumnType::Int };
        kinds.push(ColumnType::Int);
        kinds.extend([value; 4]);
    }
    kinds
}

/// The frame of a section of the summaries; `None` when there is nothing to store, or more
/// than a frame can hold.
///
/// # Errors
///
/// Those of encoding.
pub(crate) fn encode_summaries(
    section: IndexSection,
    schema: &Schema,
    summaries: &Summaries,
    effort: Effort,
) -> Result<Option<BlockFrame>> {
    let columns = match section {
        IndexSection::Hours => hours_table(schema, summaries),
        IndexSection::Keys => keys_table(summaries),
        IndexSection::Summaries => summaries_table(schema, summaries),
        IndexSection::Digests => digests_table(&digests_of(summaries)),
        IndexSection::Centroids => centroids_table(&digests_of(summaries)),
        IndexSection::KeyDigests => digests_table(&key_digests_of(summaries)),
        IndexSection::KeyCentroids => centroids_table(&key_digests_of(summaries)),
        IndexSection::Top => top_table(schema, &summaries.top),
        IndexSection::Last => last_table(summaries),
        IndexSection::Zones | IndexSection::Members => Vec::new(),
    };
    encode_table(&columns, effort)
}

fn encode_table(columns: &[Column], effort: Effort) -> Result<Option<BlockFrame>> {
    match columns.first().map_or(0, Column::len) {
        1..=FRAME_ROWS_MAX => {
            // Where a section has codes, they are those of the table's column.
            let scope = |column: &Column| match column.values {
                Values::Coded { .. } => TextScope::Segment,
                _ => TextScope::Local,
            };
            let scopes: Vec<TextScope> = columns.iter().map(scope).collect();
            BlockFrame::encode(columns, &scopes, effort).map(Some)
        }
        _ => Ok(None),
    }
}

/// Rows of integers, gathered column by column.
struct Ints<const N: usize>([Vec<i64>; N]);

impl<const N: usize> Ints<N> {
    fn new() -> Self {
        Self([const { Vec::new() }; N])
    }

    fn push(&mut self, row: [i64; N]) {
        self.0.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }

    fn finish(self) -> Vec<Column> {
        self.0.into_iter().map(int_column).collect()
    }
}

fn int_column(values: Vec<i64>) -> Column {
    Column::new(Values::Int(values))
}

fn float_column(values: Vec<f64>) -> Column {
    Column::new(Values::Float(values))
}

/// A count or position as stored; none of them comes near 2^63.
fn stored(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// The zone maps, column after column (spec 6.4.1). `blocks` has the chunks of each block.
///
/// # Errors
///
/// Those of encoding.
pub(crate) fn encode_zones(
    blocks: &[Vec<ChunkEntry>],
    effort: Effort,
) -> Result<Option<BlockFrame>> {
    let columns = blocks.first().map_or(0, Vec::len);
    let mut facts = Ints::<4>::new();
    let mut validity = Bitmap::default();
    for column in 0..columns {
        for block in blocks {
            let chunk = &block[column];
            let (min, max) = chunk.zone.unwrap_or((0, 0));
            facts.push([chunk.nulls.into(), chunk.len.into(), min, max]);
            validity.push(chunk.zone.is_some());
        }
    }
    let [nulls, bytes, min, max] = facts.0;
    let table = [
        int_column(nulls),
        int_column(bytes),
        Column::with_validity(Values::Int(min), validity.clone()),
        Column::with_validity(Values::Int(max), validity),
    ];
    encode_table(&table, effort)
}

/// What the index knows of a column chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    /// Rows without a value.
    pub(crate) nulls: u32,
    /// Bytes of the chunk.
    pub(crate) bytes: u64,
    /// Least and greatest order key.
    pub(crate) keys: Option<(i64, i64)>,
}

/// The zone maps, block after block, each with its columns.
///
/// # Errors
///
/// `Corrupt` when a rule of spec 6.4.1 is broken.
pub(crate) fn decode_zones(columns: &[Column], facts: &Facts<'_>) -> Result<Vec<Vec<Zone>>> {
    let table = Rows::new(columns);
    let (blocks, width) = (facts.blocks.len(), facts.schema.columns.len());
    if table.len() != blocks * width {
        return Err(corrupt(format!("zones of {} chunks", table.len())));
    }
    let zone = |block: usize, column: usize| {
        let row = column * blocks + block;
        let rows = i64::from(facts.blocks[block].rows);
        let nulls = u32::try_from(table.at(0, row, rows + 1)?).map_err(|_| corrupt("nulls"))?;
        let bytes = table.at(1, row, i64::from(u32::MAX))? as u64;
        let keys = match (table.optional(2, row), table.optional(3, row)) {
            (None, None) => None,
            (Some(min), Some(max)) if min <= max => Some((min, max)),
            _ => return Err(corrupt("a zone without a least or a greatest key")),
        };
        Ok(Zone { nulls, bytes, keys })
    };
    (0..blocks).map(|block| (0..width).map(|column| zone(block, column)).collect()).collect()
}

/// The membership filter (spec 6.4.4).
///
/// # Errors
///
/// Those of encoding.
pub(crate) fn encode_members(members: &Membership, effort: Effort) -> Result<Option<BlockFrame>> {
    let words = members.to_words().into_iter().map(u64::cast_signed).collect();
    encode_table(&[int_column(words)], effort)
}

/// The membership filter of its section.
///
/// # Errors
///
/// `Corrupt` when it is not one.
pub(crate) fn decode_members(columns: &[Column]) -> Result<Membership> {
    let table = Rows::new(columns);
    let words: Result<Vec<u64>> =
        (0..table.len()).map(|row| Ok(table.int(0, row)?.cast_unsigned())).collect();
    Membership::from_words(&words?)
}

/// Columns of cells: rows, successes; per measure nulls, both halves of the sum, min, max.
fn cell_columns(schema: &Schema, cells: &[&Cell]) -> Vec<Column> {
    let count =
        |of: &dyn Fn(&Cell) -> u64| int_column(cells.iter().map(|cell| stored(of(cell))).collect());
    let mut columns = vec![count(&|cell| cell.rows), count(&|cell| cell.successes)];
    for measure in 0..schema.measures.len() {
        let stats = || cells.iter().map(|cell| &cell.measures[measure]);
        columns.push(count(&|cell| cell.measures[measure].nulls));
        if is_float(schema, measure) {
            let floats = |of: &dyn Fn(&Stats) -> f64| float_column(stats().map(of).collect());
            columns.push(floats(&|stats| float_sum(stats).0));
            columns.push(floats(&|stats| float_sum(stats).1));
            columns.push(floats(&|stats| stats.min.map_or(0.0, Number::to_f64)));
            columns.push(floats(&|stats| stats.max.map_or(0.0, Number::to_f64)));
        } else {
            let ints = |of: &dyn Fn(&Stats) -> i64| int_column(stats().map(of).collect());
            columns.push(ints(&|stats| int_sum(stats).0));
            columns.push(ints(&|stats| int_sum(stats).1));
            columns.push(ints(&|stats| int_of(stats.min)));
            columns.push(ints(&|stats| int_of(stats.max)));
        }
    }
    columns
}

#[expect(clippy::cast_possible_truncation, reason = "the sum is stored as two halves")]
fn int_sum(stats: &Stats) -> (i64, i64) {
    match stats.sum {
        Sum::Int(sum) => (sum as i64, (sum >> 64) as i64),
        Sum::Float { .. } => (0, 0),
    }
}

fn float_sum(stats: &Stats) -> (f64, f64) {
    match stats.sum {
        Sum::Float { hi, lo } => (hi, lo),
        Sum::Int(_) => (0.0, 0.0),
    }
}

fn int_of(number: Option<Number>) -> i64 {
    match number {
        Some(Number::Int(value)) => value,
        _ => 0,
    }
}

/// Reads the cell of row `row`, whose columns start at `first`.
fn read_cell(table: &Rows<'_>, first: usize, row: usize, schema: &Schema) -> Result<Cell> {
    let mut cell = empty_cell(schema);
    cell.rows = table.count(first, row)?;
    cell.successes = table.count(first + 1, row)?;
    if cell.successes > cell.rows {
        return Err(corrupt("more successes than rows"));
    }
    for (measure, stats) in cell.measures.iter_mut().enumerate() {
        let column = first + 2 + measure * 5;
        stats.rows = cell.rows;
        stats.nulls = table.count(column, row)?;
        if stats.nulls > stats.rows {
            return Err(corrupt("more nulls than rows"));
        }
        let (min, max);
        (stats.sum, min, max) = if is_float(schema, measure) {
            read_float_stats(table, column, row)?
        } else {
            let low = table.int(column + 1, row)?.cast_unsigned();
            let sum = i128::from(table.int(column + 2, row)?) << 64 | i128::from(low);
            let number = |column| Ok::<_, Error>(Number::Int(table.int(column, row)?));
            (Sum::Int(sum), number(column + 3)?, number(column + 4)?)
        };
        if stats.count() > 0 {
            (stats.min, stats.max) = (Some(min), Some(max));
        }
        if min > max {
            return Err(corrupt("the least value is above the greatest"));
        }
    }
    Ok(cell)
}

fn read_float_stats(table: &Rows<'_>, column: usize, row: usize) -> Result<(Sum, Number, Number)> {
    let float = |column| {
        let value = table.float(column, row)?;
        if value.is_finite() { Ok(value) } else { Err(corrupt("a float is not finite")) }
    };
    let sum = Sum::Float { hi: float(column + 1)?, lo: float(column + 2)? };
    Ok((sum, Number::Float(float(column + 3)?), Number::Float(float(column + 4)?)))
}

fn hours_table(schema: &Schema, summaries: &Summaries) -> Vec<Column> {
    let hours = &summaries.hours;
    let mut columns = vec![
        int_column(hours.iter().map(|hour| hour.hour).collect()),
        int_column(hours.iter().map(|hour| stored(hour.first_row)).collect()),
    ];
    columns.extend(cell_columns(schema, &hours.iter().map(|hour| &hour.cell).collect::<Vec<_>>()));
    columns
}

fn read_hours(columns: &[Column], facts: &Facts<'_>) -> Result<Vec<HourCell>> {
    let table = Rows::new(columns);
    let mut hours: Vec<HourCell> = Vec::with_capacity(table.len());
    let mut next_row = 0;
    for row in 0..table.len() {
        let cell = read_cell(&table, 2, row, facts.schema)?;
        let (hour, first_row) = (table.int(0, row)?, table.count(1, row)?);
        let rises = hours.last().is_none_or(|last| last.hour < hour);
        if !rises || first_row != next_row || cell.rows == 0 {
            return Err(corrupt(format!("hour {hour} of {} rows at row {first_row}", cell.rows)));
        }
        next_row = first_row.saturating_add(cell.rows);
        let digests = vec![None; facts.schema.measures.len()];
        hours.push(HourCell { hour, first_row, cell, digests, keys: Vec::new() });
    }
    if next_row == facts.rows {
        Ok(hours)
    } else {
        Err(corrupt(format!("hours of {next_row} rows, expected {}", facts.rows)))
    }
}

fn summaries_table(schema: &Schema, summaries: &Summaries) -> Vec<Column> {
    let mut cells = vec![&summaries.total];
    let mut places = Ints::<4>::new();
    places.push([SCOPE_TOTAL, 0, 0, 0]);
    let mut codes: Vec<&[u32]> = vec![&[]];
    for (level, keys) in summaries.keys.iter().enumerate() {
        for (position, key) in keys.iter().enumerate() {
            places.push([SCOPE_KEY, stored(level), 0, stored(position)]);
            codes.push(&key.codes);
            cells.push(&key.cell);
        }
    }
    for (position, hour) in summaries.hours.iter().enumerate() {
        for key in &hour.keys {
            places.push([SCOPE_HOUR, stored(key.level), stored(position), stored(key.key)]);
            codes.push(&[]);
            cells.push(&key.cell);
        }
    }
    let mut columns = places.finish();
    for column in 0..code_columns(schema) {
        let code = |codes: &&[u32]| codes.get(column).copied().map_or(0, i64::from);
        columns.push(int_column(codes.iter().map(code).collect()));
    }
    columns.extend(cell_columns(schema, &cells));
    columns
}

/// Fills in total, keys, and keys of hours, whose hours are there already.
fn read_summaries(columns: &[Column], facts: &Facts<'_>, into: &mut Summaries) -> Result<()> {
    let table = Rows::new(columns);
    let cells = 4 + code_columns(facts.schema);
    let mut total = None;
    for row in 0..table.len() {
        let cell = read_cell(&table, cells, row, facts.schema)?;
        let level = table.index(1, row, facts.schema.keys.len().max(1))?;
        match table.int(0, row)? {
            SCOPE_TOTAL if row == 0 => total = Some(cell),
            SCOPE_KEY => {
                let codes = read_codes(&table, row, level, facts)?;
                let keys = &mut into.keys[level];
                let rises = keys.last().is_none_or(|last| last.codes < codes);
                if !rises || table.index(3, row, keys.len() + 1)? != keys.len() {
                    return Err(corrupt("keys do not rise"));
                }
                let last = vec![None; facts.schema.measures.len()];
                keys.push(KeyCell { codes, cell, last, runs: Vec::new() });
            }
            SCOPE_HOUR => {
                let hour = table.index(2, row, into.hours.len())?;
                let key = table.index(3, row, into.keys[level].len())?;
                let digests = Vec::new();
                into.hours[hour].keys.push(KeyHourCell { level, key, cell, digests });
            }
            other => return Err(corrupt(format!("cell of scope {other}"))),
        }
    }
    into.total = total.ok_or_else(|| corrupt("there is no total"))?;
    if into.total.rows == facts.rows {
        Ok(())
    } else {
        Err(corrupt(format!("total of {} rows, expected {}", into.total.rows, facts.rows)))
    }
}

fn read_codes(table: &Rows<'_>, row: usize, level: usize, facts: &Facts<'_>) -> Result<Vec<u32>> {
    let columns = facts.schema.keys.get(level).copied().unwrap_or_default();
    let code = |(index, column): (usize, &usize)| {
        let entries = facts.dictionaries.get(*column).copied().flatten().unwrap_or(0);
        let code = table.index(4 + index, row, entries)?;
        u32::try_from(code).map_err(|_| corrupt("a code is beyond the dictionary"))
    };
    columns.iter().enumerate().map(code).collect()
}

fn keys_table(summaries: &Summaries) -> Vec<Column> {
    let mut runs = Ints::<6>::new();
    for (level, keys) in summaries.keys.iter().enumerate() {
        for (position, key) in keys.iter().enumerate() {
            for run in &key.runs {
                runs.push([
                    stored(level),
                    stored(position),
                    run.block.into(),
                    run.first.into(),
                    run.span.into(),
                    run.rows.into(),
                ]);
            }
        }
    }
    runs.finish()
}

/// Fills in where the rows of keys lie.
fn read_keys(columns: &[Column], facts: &Facts<'_>, into: &mut Summaries) -> Result<()> {
    let table = Rows::new(columns);
    let mut runs: Vec<Vec<Vec<KeyRun>>> =
        into.keys.iter().map(|keys| vec![Vec::new(); keys.len()]).collect();
    for row in 0..table.len() {
        let level = table.index(0, row, runs.len())?;
        let key = table.index(1, row, runs[level].len())?;
        let block = table.index(2, row, facts.blocks.len())?;
        let block_rows = i64::from(facts.blocks[block].rows);
        let number = |column: usize, end: i64| {
            u32::try_from(table.at(column, row, end)?).map_err(|_| corrupt("a run is too long"))
        };
        let first = number(3, block_rows)?;
        let span = number(4, block_rows - i64::from(first) + 1)?;
        let rows = number(5, i64::from(span) + 1)?;
        let block = u32::try_from(block).map_err(|_| corrupt("more than 2^32 blocks"))?;
        let runs = &mut runs[level][key];
        if rows == 0 || runs.last().is_some_and(|last| last.block >= block) {
            return Err(corrupt("an empty run, or two in one block"));
        }
        runs.push(KeyRun { block, first, span, rows });
    }
    for (keys, runs) in into.keys.iter().zip(&runs) {
        for (key, runs) in keys.iter().zip(runs) {
            if runs.iter().map(|run| u64::from(run.rows)).sum::<u64>() != key.cell.rows {
                return Err(corrupt("the runs of a key do not have its rows"));
            }
        }
    }
    for (keys, runs) in into.keys.iter_mut().zip(runs) {
        keys.iter_mut().zip(runs).for_each(|(key, runs)| key.runs = runs);
    }
    Ok(())
}

fn last_table(summaries: &Summaries) -> Vec<Column> {
    let mut values = Ints::<5>::new();
    for (level, keys) in summaries.keys.iter().enumerate() {
        for (position, key) in keys.iter().enumerate() {
            for (measure, last) in key.last.iter().enumerate() {
                if let Some(LastValue { timestamp, order_key }) = last {
                    let place = [level, position, measure].map(stored);
                    values.push([place[0], place[1], place[2], *timestamp, *order_key]);
                }
            }
        }
    }
    values.finish()
}

/// Per measure: the newest of the last values of all keys, the larger of two with one stamp.
///
/// # Errors
///
/// `Corrupt` when a rule of spec 6.4 is broken.
pub(crate) fn decode_newest(columns: &[Column], measures: usize) -> Result<Vec<Option<LastValue>>> {
    let table = Rows::new(columns);
    let mut newest: Vec<Option<LastValue>> = vec![None; measures];
    for row in 0..table.len() {
        let kept = &mut newest[table.index(2, row, measures)?];
        let (timestamp, order_key) = (table.int(3, row)?, table.int(4, row)?);
        if kept.is_none_or(|kept| (kept.timestamp, kept.order_key) < (timestamp, order_key)) {
            *kept = Some(LastValue { timestamp, order_key });
        }
    }
    Ok(newest)
}

/// Fills in the last values of keys.
fn read_last(columns: &[Column], into: &mut Summaries) -> Result<()> {
    let table = Rows::new(columns);
    for row in 0..table.len() {
        let level = table.index(0, row, into.keys.len())?;
        let key = table.index(1, row, into.keys[level].len())?;
        let key = &mut into.keys[level][key];
        let measure = table.index(2, row, key.last.len())?;
        let value = LastValue { timestamp: table.int(3, row)?, order_key: table.int(4, row)? };
        if key.last[measure].replace(value).is_some() || key.cell.measures[measure].count() == 0 {
            return Err(corrupt("two last values, or one of a key without values"));
        }
    }
    Ok(())
}

/// A digest with its scope, level, position and measure.
type Placed = ([i64; 4], Arc<Digest>);

fn place_all(all: &mut Vec<Placed>, place: [i64; 3], digests: &[Option<Arc<Digest>>]) {
    let [scope, level, item] = place;
    for (measure, digest) in digests.iter().enumerate() {
        if let Some(digest) = digest {
            all.push(([scope, level, item, stored(measure)], Arc::clone(digest)));
        }
    }
}

/// The digests of all rows and of hours, in the order stored.
fn digests_of(summaries: &Summaries) -> Vec<Placed> {
    let mut all = Vec::new();
    place_all(&mut all, [SCOPE_TOTAL, 0, 0], &summaries.digests);
    for (position, hour) in summaries.hours.iter().enumerate() {
        place_all(&mut all, [SCOPE_HOUR, 0, stored(position)], &hour.digests);
    }
    all
}

/// The digests of keys and of keys in hours, in the order stored.
fn key_digests_of(summaries: &Summaries) -> Vec<Placed> {
    let mut all = Vec::new();
    for (level, keys) in summaries.key_digests.iter().enumerate() {
        for (position, digests) in keys.iter().enumerate() {
            place_all(&mut all, [SCOPE_KEY, stored(level), stored(position)], digests);
        }
    }
    let cells = summaries.hours.iter().flat_map(|hour| &hour.keys);
    for (position, cell) in cells.enumerate() {
        let place = [SCOPE_KEY_HOUR, stored(cell.level), stored(position)];
        place_all(&mut all, place, &cell.digests);
    }
    all
}

fn digests_table(digests: &[Placed]) -> Vec<Column> {
    let mut places = Ints::<6>::new();
    for ([scope, level, item, measure], digest) in digests {
        let centroids = stored(digest.centroids().len());
        places.push([*scope, *level, *item, *measure, digest.kind().tag().into(), centroids]);
    }
    let mut columns = places.finish();
    for of in [Digest::error, Digest::min, Digest::max] {
        columns.push(float_column(digests.iter().map(|(_, digest)| of(digest)).collect()));
    }
    columns
}

fn centroids_table(digests: &[Placed]) -> Vec<Column> {
    let centroids = || digests.iter().flat_map(|(_, digest)| digest.centroids());
    vec![
        float_column(centroids().map(|(mean, _)| *mean).collect()),
        int_column(centroids().map(|(_, weight)| stored(*weight)).collect()),
    ]
}

/// Which digests are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// All rows; what comes after them in the section is left alone.
    Total,
    /// All rows and hours.
    Hours,
    /// Keys, and keys in hours.
    Keys,
}

/// Fills in the digests of a section: those of keys, or the others.
fn read_digests(
    digests: &[Column],
    centroids: &[Column],
    of: Of,
    into: &mut Summaries,
) -> Result<()> {
    let (digests, centroids) = (Rows::new(digests), Rows::new(centroids));
    let hours = (0..).zip(&into.hours);
    let places =
        hours.flat_map(|(hour, cells)| (0..cells.keys.len()).map(move |cell| (hour, cell)));
    let places: Vec<(usize, usize)> = places.collect();
    let mut start = 0;
    for row in 0..digests.len() {
        let scope = digests.int(0, row)?;
        if of == Of::Total && scope != SCOPE_TOTAL {
            return Ok(());
        }
        if matches!(scope, SCOPE_KEY | SCOPE_KEY_HOUR) != (of == Of::Keys) {
            return Err(corrupt("a digest in the wrong section"));
        }
        let count = digests.index(5, row, centroids.len() - start + 1)?;
        let parts: Result<Vec<(f64, u64)>> = (start..start + count)
            .map(|row| Ok((centroids.float(0, row)?, centroids.count(1, row)?)))
            .collect();
        start += count;
        let parts = parts?;
        let values = parts.iter().try_fold(0u64, |sum, (_, weight)| sum.checked_add(*weight));
        let values = values.ok_or_else(|| corrupt("weights add up to too much"))?;
        let kind = u8::try_from(digests.int(4, row)?).map_err(|_| corrupt("sketch kind"))?;
        let extremes = (digests.float(7, row)?, digests.float(8, row)?);
        let digest = Digest::from_parts(kind, parts, extremes, values, digests.float(6, row)?)?;
        let measure = digests.int(3, row)?;
        let (place, cell) = digest_place(&digests, row, &places, into)?;
        let measure = usize::try_from(measure).ok().filter(|measure| *measure < place.len());
        let measure = measure.ok_or_else(|| corrupt("digest of an unknown measure"))?;
        if cell.measures[measure].count() != digest.count() {
            return Err(corrupt("a digest and its cell have other counts"));
        }
        if place[measure].replace(Arc::new(digest)).is_some() {
            return Err(corrupt("two digests of one cell"));
        }
    }
    if start == centroids.len() { Ok(()) } else { Err(corrupt("centroids are left over")) }
}

/// Where the digest of a row belongs, and the cell of its rows.
fn digest_place<'a>(
    table: &Rows<'_>,
    row: usize,
    key_hours: &[(usize, usize)],
    into: &'a mut Summaries,
) -> Result<(&'a mut Vec<Option<Arc<Digest>>>, &'a Cell)> {
    match table.int(0, row)? {
        SCOPE_TOTAL => Ok((&mut into.digests, &into.total)),
        SCOPE_KEY => {
            let level = table.index(1, row, into.keys.len())?;
            let key = table.index(2, row, into.keys[level].len())?;
            Ok((&mut into.key_digests[level][key], &into.keys[level][key].cell))
        }
        SCOPE_HOUR => {
            let hour = table.index(2, row, into.hours.len())?;
            let hour = &mut into.hours[hour];
            Ok((&mut hour.digests, &hour.cell))
        }
        SCOPE_KEY_HOUR => {
            let (hour, cell) = key_hours[table.index(2, row, key_hours.len())?];
            let cell = &mut into.hours[hour].keys[cell];
            if table.index(1, row, into.keys.len())? != cell.level {
                return Err(corrupt("digest of another level than its cell"));
            }
            cell.digests.resize(cell.cell.measures.len(), None);
            Ok((&mut cell.digests, &cell.cell))
        }
        other => Err(corrupt(format!("digest of scope {other}"))),
    }
}

fn top_table(schema: &Schema, top: &TopRows) -> Vec<Column> {
    let mut places = Ints::<2>::new();
    top.rows.iter().for_each(|top| places.push([top.order_key, stored(top.row)]));
    let mut columns = places.finish();
    columns.extend(kept_columns(schema).filter_map(|column| top.columns.get(column)?.clone()));
    columns
}

fn read_top(columns: &[Column], facts: &Facts<'_>) -> Result<TopRows> {
    let schema = facts.schema;
    let table = Rows::new(columns);
    let mut kept = vec![None; schema.columns.len()];
    for (column, values) in kept_columns(schema).zip(columns.iter().skip(2)) {
        if !schema.columns[column].nullable && values.null_count() > 0 {
            return Err(corrupt(format!("column {column} has nulls")));
        }
        kept[column] = Some(values.clone());
    }
    let measure = schema.measures.first().and_then(|measure| kept[*measure].as_ref());
    let mut top: Vec<TopRow> = Vec::with_capacity(table.len());
    for row in 0..table.len() {
        let next = TopRow { order_key: table.int(0, row)?, row: table.count(1, row)? };
        if measure.and_then(|measure| order_key(measure, row)) != Some(next.order_key) {
            return Err(corrupt("the value of a largest row is another"));
        }
        let falls = top.last().is_none_or(|last| {
            last.order_key > next.order_key
                || (last.order_key == next.order_key && last.row < next.row)
        });
        if !falls || next.row >= facts.rows {
            return Err(corrupt("the largest rows do not fall, or lie beyond the last"));
        }
        top.push(next);
    }
    Ok(TopRows { rows: top, columns: kept })
}

/// Where sections are read from.
pub(crate) trait SectionSource {
    /// The columns of a section; `None` when there is none, or it cannot be read.
    fn section(&self, section: IndexSection) -> Option<Vec<Column>>;

    /// Takes note of a section that breaks a rule, and is left out.
    fn broken(&self, section: IndexSection, error: Error);
}

/// The part of the summaries that has no keys and no digests; `None` without hours.
fn decode_hours(facts: &Facts<'_>, source: &dyn SectionSource) -> Option<Summaries> {
    let schema = facts.schema;
    let hours = match source.section(IndexSection::Hours) {
        Some(columns) => read_hours(&columns, facts)
            .map_err(|error| source.broken(IndexSection::Hours, error))
            .ok()?,
        None if facts.rows == 0 => Vec::new(),
        None => return None,
    };
    // Hours cover all rows, so that the total can do without its own section.
    let mut total = empty_cell(schema);
    hours.iter().for_each(|hour| merge_cell(&mut total, &hour.cell));
    Some(Summaries {
        total,
        digests: vec![None; schema.measures.len()],
        hours,
        keys: vec![Vec::new(); schema.keys.len()],
        key_digests: vec![Vec::new(); schema.keys.len()],
        top: TopRows::default(),
    })
}

fn of_rows(depth: Depth) -> Of {
    if depth == Depth::Total { Of::Total } else { Of::Hours }
}

/// Puts the summaries together from their sections, as far as `depth`. A part that is not
/// there, or breaks a rule, is left out; `None` without hours.
pub(crate) fn decode_summaries(
    facts: &Facts<'_>,
    source: &dyn SectionSource,
    depth: Depth,
) -> Option<Summaries> {
    let mut summaries = decode_hours(facts, source)?;
    let with = |section, read: &mut dyn FnMut(&[Column]) -> Result<()>| {
        let Some(columns) = source.section(section) else { return true };
        read(&columns).map_err(|error| source.broken(section, error)).is_ok()
    };
    if depth >= Depth::Keys {
        if !with(IndexSection::Summaries, &mut |columns| {
            read_summaries(columns, facts, &mut summaries)
        }) {
            summaries.keys.iter_mut().for_each(Vec::clear);
            summaries.hours.iter_mut().for_each(|hour| hour.keys.clear());
        }
        summaries.make_room();
        with(IndexSection::Keys, &mut |columns| read_keys(columns, facts, &mut summaries));
        if !with(IndexSection::Last, &mut |columns| read_last(columns, &mut summaries)) {
            let keys = summaries.keys.iter_mut().flatten();
            keys.for_each(|key| key.last.fill(None));
        }
        with(IndexSection::Top, &mut |columns| {
            summaries.top = read_top(columns, facts)?;
            Ok(())
        });
    }
    if depth >= Depth::Total
        && !with(IndexSection::Digests, &mut |digests| {
            let Some(centroids) = source.section(IndexSection::Centroids) else { return Ok(()) };
            read_digests(digests, &centroids, of_rows(depth), &mut summaries)
        })
    {
        summaries.digests.fill(None);
        summaries.hours.iter_mut().for_each(|hour| hour.digests.fill(None));
    }
    if depth >= Depth::All
        && !with(IndexSection::KeyDigests, &mut |digests| {
            let centroids = source.section(IndexSection::KeyCentroids);
            let Some(centroids) = centroids else { return Ok(()) };
            read_digests(digests, &centroids, Of::Keys, &mut summaries)
        })
    {
        summaries.make_room();
        let cells = summaries.hours.iter_mut().flat_map(|hour| &mut hour.keys);
        cells.for_each(|cell| cell.digests.clear());
    }
    Some(summaries)
}

impl Summaries {
    /// Room for the digests of each key, with none in it.
    fn make_room(&mut self) {
        let none = vec![None; self.digests.len()];
        for (keys, digests) in self.keys.iter().zip(&mut self.key_digests) {
            *digests = vec![none.clone(); keys.len()];
        }
    }
}

/// The whole of a rollup, of which nothing can be computed again: a section that is missing
/// where it is needed, or breaks a rule, is an error.
///
/// # Errors
///
/// `Corrupt` when a rule of spec 6.4 is broken.
pub(crate) fn decode_rollup(
    facts: &Facts<'_>,
    tier: Tier,
    depth: Depth,
    section: &dyn Fn(IndexSection) -> Result<Option<Vec<Column>>>,
) -> Result<Summaries> {
    let measures = facts.schema.measures.len();
    let levels = facts.schema.keys.len();
    let hours = match (tier, section(IndexSection::Hours)?) {
        (Tier::Hourly, Some(columns)) => read_hours(&columns, facts)?,
        (Tier::Daily, None) => Vec::new(),
        _ => return Err(corrupt("hours are missing, or in a daily rollup")),
    };
    let mut summaries = Summaries {
        total: empty_cell(facts.schema),
        digests: vec![None; measures],
        hours,
        keys: vec![Vec::new(); levels],
        key_digests: vec![Vec::new(); levels],
        top: TopRows::default(),
    };
    if depth >= Depth::Keys || tier == Tier::Daily {
        let cells = section(IndexSection::Summaries)?;
        let cells = cells.ok_or_else(|| corrupt("a rollup without cells"))?;
        read_summaries(&cells, facts, &mut summaries)?;
    } else {
        let hours = summaries.hours.iter();
        hours.for_each(|hour| merge_cell(&mut summaries.total, &hour.cell));
    }
    summaries.make_room();
    if depth >= Depth::Keys
        && let Some(columns) = section(IndexSection::Last)?
    {
        read_last(&columns, &mut summaries)?;
    }
    let mut with = |digests, centroids, of| {
        let Some(digests) = section(digests)? else { return Ok(()) };
        let centroids = section(centroids)?;
        let centroids = centroids.ok_or_else(|| corrupt("digests without centroids"))?;
        read_digests(&digests, &centroids, of, &mut summaries)
    };
    if depth >= Depth::Total {
        with(IndexSection::Digests, IndexSection::Centroids, of_rows(depth))?;
    }
    if depth >= Depth::All {
        with(IndexSection::KeyDigests, IndexSection::KeyCentroids, Of::Keys)?;
    }
    Ok(summaries)
}

/// A column of a section, its type settled once.
enum Cells<'a> {
    Ints(&'a [i64]),
    Floats(&'a [f64]),
    /// With nulls, which only zone maps have.
    Nullable(&'a Column),
}

/// The rows of a section, read with every bound checked.
struct Rows<'a> {
    columns: Vec<Cells<'a>>,
    len: usize,
}

impl<'a> Rows<'a> {
    fn new(columns: &'a [Column]) -> Self {
        let cells = columns.iter().map(|column| match (&column.values, &column.validity) {
            (Values::Int(values), None) => Cells::Ints(values),
            (Values::Float(values), None) => Cells::Floats(values),
            _ => Cells::Nullable(column),
        });
        Self { columns: cells.collect(), len: columns.first().map_or(0, Column::len) }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn optional(&self, column: usize, row: usize) -> Option<i64> {
        match self.columns.get(column)? {
            Cells::Ints(values) => values.get(row).copied(),
            Cells::Floats(_) => None,
            Cells::Nullable(column) => column.int(row),
        }
    }

    fn int(&self, column: usize, row: usize) -> Result<i64> {
        self.optional(column, row).ok_or_else(|| corrupt(format!("column {column} has a null")))
    }

    fn float(&self, column: usize, row: usize) -> Result<f64> {
        match self.columns.get(column) {
            Some(Cells::Floats(values)) => values.get(row).copied(),
            _ => None,
        }
        .ok_or_else(|| corrupt(format!("column {column} has a null")))
    }

    /// A number from zero up to, not including, `end`.
    fn at(&self, column: usize, row: usize, end: i64) -> Result<i64> {
        let value = self.int(column, row)?;
        if (0..end).contains(&value) {
            Ok(value)
        } else {
            Err(corrupt(format!("column {column} is {value}, expected less than {end}")))
        }
    }

    fn index(&self, column: usize, row: usize, len: usize) -> Result<usize> {
        usize::try_from(self.at(column, row, stored(len))?).map_err(|_| corrupt("position"))
    }

    fn count(&self, column: usize, row: usize) -> Result<u64> {
        u64::try_from(self.int(column, row)?)
            .map_err(|_| corrupt(format!("column {column} is negative")))
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::corrupt(SECTION, message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::column::Strings;
    use crate::format::frame::{FrameHeader, FrameKind};
    use crate::format::id::Id;
    use crate::schema::Table;
    use crate::segment::frames::{FramePlace, parse_block};
    use crate::segment::order::OrderedRows;
    use crate::segment::samples::{day, gauges, tasks};
    use crate::segment::summarise::{Grain, Summariser, differences};

    #[derive(Default)]
    struct Source {
        columns: BTreeMap<IndexSection, Vec<Column>>,
        broken: RefCell<Vec<IndexSection>>,
    }

    impl SectionSource for Source {
        fn section(&self, section: IndexSection) -> Option<Vec<Column>> {
            self.columns.get(&section).cloned()
        }

        fn broken(&self, section: IndexSection, _: Error) {
            self.broken.borrow_mut().push(section);
        }
    }

    struct Sample {
        schema: &'static Schema,
        blocks: Vec<BlockInfo>,
        dictionaries: Vec<Option<usize>>,
        summaries: Summaries,
        source: Source,
    }

    impl Sample {
        fn facts(&self) -> Facts<'_> {
            Facts {
                schema: self.schema,
                blocks: &self.blocks,
                rows: self.summaries.total.rows,
                dictionaries: self.dictionaries.clone(),
            }
        }
    }

    fn through_bytes(
        frame: &mut BlockFrame,
        kinds: &[ColumnType],
        dictionaries: &[Option<Arc<Strings>>],
    ) -> Vec<Column> {
        let uuid = Id::from_bytes([3; 16]);
        let place = FramePlace {
            kind: FrameKind::Index,
            sub: 1,
            uuid,
            seq: 0,
            offset: 8192,
            stamps: (0, 0),
        };
        let (_, bytes) = frame.place(&place).unwrap();
        let header = FrameHeader::decode(bytes, &uuid, 8192).unwrap();
        parse_block(&header, &bytes[96..], kinds, dictionaries).unwrap()
    }

    fn sample(batch: &crate::column::Batch) -> Sample {
        let schema = batch.schema;
        let batches = [batch.clone()];
        let rows = OrderedRows::new(schema, day(), &batches).unwrap();
        let mut summariser = Summariser::new(schema, rows.dictionaries(), Grain::SEGMENT);
        let mut blocks = Vec::new();
        for block in rows.blocks(700, 100) {
            blocks.push(BlockInfo {
                first_row: block.start as u64,
                rows: u32::try_from(block.len()).unwrap(),
                min_ts: 0,
                max_ts: 0,
            });
            summariser.add_block(&rows.gather(block));
        }
        let summaries = summariser.finish();
        let mut source = Source::default();
        for section in IndexSection::ALL {
            if let Some(mut frame) =
                encode_summaries(section, schema, &summaries, Effort::Seal).unwrap()
            {
                let dictionaries: Vec<_> = table_columns(section, schema)
                    .into_iter()
                    .map(|column| rows.dictionaries()[column?].clone())
                    .collect();
                let columns = through_bytes(&mut frame, &kinds(section, schema), &dictionaries);
                source.columns.insert(section, columns);
            }
        }
        let entries = |dictionary: &Option<Arc<Strings>>| {
            dictionary.as_ref().map(|dictionary| dictionary.len())
        };
        let dictionaries = rows.dictionaries().iter().map(entries).collect();
        Sample { schema, blocks, dictionaries, summaries, source }
    }

    #[test]
    fn summaries_round_trip() {
        for batch in [tasks(24_000, 3, 31), gauges(9000, 11, 32), tasks(3, 2, 33)] {
            let sample = sample(&batch);
            let read = decode_summaries(&sample.facts(), &sample.source, Depth::All).unwrap();
            assert!(sample.source.broken.borrow().is_empty());
            assert_eq!(format!("{read:?}"), format!("{:?}", sample.summaries));
        }
    }

    #[test]
    fn a_missing_section_costs_its_part_only() {
        let sample = sample(&tasks(24_000, 3, 34));
        for section in IndexSection::ALL {
            let mut source = Source { columns: sample.source.columns.clone(), ..Source::default() };
            source.columns.remove(&section);
            let read = decode_summaries(&sample.facts(), &source, Depth::All);
            assert_eq!(read.is_none(), section == IndexSection::Hours, "{section:?}");
            if let Some(read) = read {
                assert!(differences(&read, &sample.summaries).is_empty(), "{section:?}");
            }
        }
    }

    #[test]
    fn a_list_of_largest_rows_that_breaks_a_rule_is_left_out() {
        const TASK_ID: usize = 3;
        type Change = fn(&mut [Column]);
        let sample = sample(&tasks(3000, 3, 36));
        let list = &sample.source.columns[&IndexSection::Top];
        let changes: [(&str, Change); 5] = [
            ("the value is not the row's", |list| set_int(&mut list[0], 4, i64::MAX)),
            ("nor is it without one", |list| {
                let valid = (0..list[5].len()).map(|row| row != 2).collect();
                list[5] = Column::with_validity(list[5].values.clone(), valid);
            }),
            ("rows are where there are none", |list| set_int(&mut list[1], 127, 3000)),
            ("a null where none can be", |list| {
                let valid = (0..list[TASK_ID].len()).map(|row| row != 2).collect();
                list[TASK_ID] = Column::with_validity(list[TASK_ID].values.clone(), valid);
            }),
            ("rows do not fall", |list| {
                let rows: Vec<u32> = (0..128).rev().collect();
                list.iter_mut().for_each(|column| *column = column.gather(&rows));
            }),
        ];
        for (what, change) in changes {
            let mut columns = list.clone();
            change(&mut columns);
            let mut source = Source { columns: sample.source.columns.clone(), ..Source::default() };
            source.columns.insert(IndexSection::Top, columns);
            let read = decode_summaries(&sample.facts(), &source, Depth::All).unwrap();
            assert!(read.top.rows.is_empty() && read.top.columns.is_empty(), "{what}");
            assert_eq!(*source.broken.borrow(), [IndexSection::Top], "{what}");
        }
    }

    fn set_int(column: &mut Column, row: usize, value: i64) {
        match &mut column.values {
            Values::Int(values) => values[row] = value,
            _ => panic!("not integers"),
        }
    }

    #[test]
    fn zones_and_members_round_trip() {
        let chunk = |nulls, len, zone| ChunkEntry { offset: 0, len, crc: 0, nulls, zone };
        let block = |first: i64| {
            let full = (0..4).map(|column| chunk(0, 64, Some((first + column, first + 9))));
            full.chain([chunk(5, 16, None)]).collect::<Vec<_>>()
        };
        let stored = [block(0), block(-7)];
        let mut frame = encode_zones(&stored, Effort::Seal).unwrap().unwrap();
        let schema = Table::Agent.schema();
        let columns = through_bytes(&mut frame, &kinds(IndexSection::Zones, schema), &[]);
        let info = BlockInfo { first_row: 0, rows: 5, min_ts: 0, max_ts: 0 };
        let blocks = [info, BlockInfo { first_row: 5, ..info }];
        let facts = Facts { schema, blocks: &blocks, rows: 10, dictionaries: Vec::new() };
        let zones = decode_zones(&columns, &facts).unwrap();
        for (zones, chunks) in zones.iter().zip(&stored) {
            for (zone, chunk) in zones.iter().zip(chunks) {
                let found = (zone.nulls, zone.bytes, zone.keys);
                assert_eq!(found, (chunk.nulls, chunk.len.into(), chunk.zone));
            }
        }
        let fewer = Facts { blocks: &blocks[..1], ..facts };
        assert!(decode_zones(&columns, &fewer).is_err());

        let mut members = Membership::with_capacity(3);
        ["a", "b", "c"].iter().for_each(|key| members.insert(key));
        let mut frame = encode_members(&members, Effort::Seal).unwrap().unwrap();
        let columns = through_bytes(&mut frame, &kinds(IndexSection::Members, schema), &[]);
        assert_eq!(decode_members(&columns).unwrap(), members);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        /// Checksums do not protect from a writer that means harm.
        #[test]
        fn hostile_sections_never_panic(
            section in 0usize..9,
            patches in prop::collection::vec(
                (
                    0usize..16,
                    any::<prop::sample::Index>(),
                    prop_oneof![-2i64..300, any::<i64>()],
                ),
                1..6,
            ),
        ) {
            thread_local! {
                static SAMPLE: Sample = sample(&gauges(1500, 3, 35));
            }
            SAMPLE.with(|sample| {
                let section = IndexSection::ALL[section];
                let Some(columns) = sample.source.columns.get(&section) else { return };
                let mut source =
                    Source { columns: sample.source.columns.clone(), ..Source::default() };
                let mut columns = columns.clone();
                let count = columns.len();
                for (column, row, value) in &patches {
                    let column = &mut columns[column % count];
                    let row = row.index(column.len());
                    match &mut column.values {
                        Values::Int(values) => values[row] = *value,
                        Values::Float(values) => {
                            values[row] = f64::from_bits(value.cast_unsigned());
                        }
                        _ => {}
                    }
                }
                source.columns.insert(section, columns.clone());
                if let Some(read) = decode_summaries(&sample.facts(), &source, Depth::All) {
                    assert_eq!(read.keys.len(), read.key_digests.len());
                    for (keys, digests) in read.keys.iter().zip(&read.key_digests) {
                        assert_eq!(keys.len(), digests.len());
                    }
                }
                let _ = decode_zones(&columns, &sample.facts());
                let _ = decode_members(&columns);
            });
        }
    }
}
