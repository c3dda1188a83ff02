//! All methods against the reference model, over segments held in memory.

#![expect(clippy::cast_possible_truncation, reason = "rows and blocks are few here")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::filter::Cursor;
use super::ordered::Ordered;
use super::*;
use crate::column::{Bitmap, Column, Strings, Values};
use crate::encoding::views::ViewValues;
use crate::encoding::{self, Chunk, Effort, TextScope};
use crate::error::{Error, ErrorKind};
use crate::format::order::float_key;
use crate::fs::Bytes;
use crate::segment::{
    BlockInfo, Cell, Depth, HourCell, KeyCell, KeyHourCell, KeyRun, LastValue, Segment,
    SegmentDamage, SegmentKey, Summaries, TopRow, TopRows, UseChunk,
};
use crate::sketch::digest::Digest;
use crate::snapshot::{AnswerCache, FileDamage, View};
use crate::testing::model::{ReferenceModel, check_views};
use crate::time::{MICROS_PER_DAY, MICROS_PER_HOUR, Partition, TimeRange, Timestamp};

/// 2026-11-22, a Sunday, so that weeks change inside the data.
const START: i64 = 20_779 * MICROS_PER_DAY;

/// What a sealed segment keeps.
#[derive(Clone, Copy, Debug)]
struct Kept {
    keys: bool,
    key_digests: bool,
    hour_digests: bool,
    digests: bool,
    hour_keys_min: u64,
    top: usize,
    runs: bool,
}

#[derive(Debug)]
struct MemorySegment {
    key: SegmentKey,
    table: Table,
    partition: Partition,
    infos: Vec<BlockInfo>,
    blocks: Vec<Vec<Column>>,
    dictionaries: Vec<Option<Arc<Strings>>>,
    summaries: Option<Arc<Summaries>>,
    sealed: bool,
    bad: BTreeSet<(usize, usize)>,
    damage: Vec<SegmentDamage>,
    reads: Mutex<usize>,
}

fn text_of(row: &Row, column: usize) -> Option<&str> {
    match (row, column) {
        (Row::Task(row), 1) => Some(&row.task_id),
        (Row::Task(row), 2) => Some(&row.agent_id),
        (Row::Task(row), 6) => row.metadata.as_deref(),
        (Row::Agent(row), 1) => Some(&row.agent_id),
        (Row::Agent(row), 2) => Some(&row.metric_type),
        (Row::Agent(row), 4) => row.metadata.as_deref(),
        (Row::Swarm(row), 1) => Some(&row.swarm_id),
        (Row::Swarm(row), 2) => Some(&row.metric_type),
        (Row::Swarm(row), 4) => row.metadata.as_deref(),
        _ => None,
    }
}

fn int_of(row: &Row, column: usize) -> Option<i64> {
    match (row, column) {
        (_, 0) => Some(row.timestamp().as_micros()),
        (Row::Task(row), 3) => row.duration_ms,
        (Row::Task(row), 4) => row.tokens_used,
        _ => None,
    }
}

fn float_of(row: &Row) -> f64 {
    match row {
        Row::Task(_) => 0.0,
        Row::Agent(row) => row.value,
        Row::Swarm(row) => row.value,
    }
}

fn success_of(row: &Row) -> bool {
    matches!(row, Row::Task(row) if row.success)
}

/// Order key of a measure.
fn key_of(row: &Row, column: usize) -> Option<i64> {
    match row {
        Row::Task(_) => int_of(row, column),
        _ => Some(float_key(float_of(row))),
    }
}

fn column_of(
    table: Table,
    column: usize,
    rows: &[&Row],
    dictionary: Option<&Arc<Strings>>,
    coded: bool,
) -> Column {
    let texts = || rows.iter().map(|row| text_of(row, column));
    let values = match table.schema().columns[column].kind {
        ColumnType::Timestamp | ColumnType::Int => {
            Values::Int(rows.iter().map(|row| int_of(row, column).unwrap_or(0)).collect())
        }
        ColumnType::Float => Values::Float(rows.iter().map(|row| float_of(row)).collect()),
        ColumnType::Bool => Values::Bool(rows.iter().map(|row| success_of(row)).collect()),
        ColumnType::Dimension if dictionary.is_some() || coded => {
            let distinct: BTreeSet<&str> = texts().flatten().collect();
            let dictionary = match dictionary {
                Some(dictionary) => Arc::clone(dictionary),
                // In no order, as a frame may have it.
                None => Arc::new(distinct.into_iter().rev().collect()),
            };
            let code = |text: &str| dictionary.iter().position(|have| have == text).unwrap() as u32;
            let codes = texts().map(|text| code(text.unwrap())).collect();
            Values::Coded { codes, dictionary }
        }
        _ => Values::Text(texts().map(Option::unwrap_or_default).collect()),
    };
    let valid = |row: &Row| match table.schema().columns[column].kind {
        ColumnType::Json => text_of(row, column).is_some(),
        ColumnType::Int => int_of(row, column).is_some(),
        _ => true,
    };
    Column::with_validity(values, rows.iter().map(|row| valid(row)).collect::<Bitmap>())
}

fn cell_of(table: Table, rows: &[&Row]) -> Cell {
    let schema = table.schema();
    let measures = schema.measures.iter().map(|measure| {
        let mut stats = Numeric::of(schema, *measure).no_rows();
        let column = column_of(table, *measure, rows, None, false);
        match &column.values {
            Values::Int(values) => stats.add_ints(values, column.validity.as_ref()),
            Values::Float(values) => stats.add_floats(values, column.validity.as_ref()),
            _ => unreachable!(),
        }
        stats
    });
    Cell {
        rows: rows.len() as u64,
        successes: rows.iter().filter(|row| success_of(row)).count() as u64,
        measures: measures.collect(),
    }
}

fn digests_of(table: Table, rows: &[&Row], keep: bool) -> Vec<Option<Arc<Digest>>> {
    let digest = |measure: &usize| {
        let values = rows.iter().filter_map(|row| match row {
            Row::Task(_) => int_of(row, *measure).map(|value| value as f64),
            _ => Some(float_of(row)),
        });
        Digest::build(&mut values.collect()).filter(|_| keep).map(Arc::new)
    };
    table.schema().measures.iter().map(digest).collect()
}

impl MemorySegment {
    fn new(table: Table, number: u8, rows: &[&Row], cuts: &[usize]) -> Self {
        let mut infos = Vec::new();
        let mut start = 0;
        for end in cuts.iter().copied().chain([rows.len()]) {
            if end <= start {
                continue;
            }
            let stamps = rows[start..end].iter().map(|row| row.timestamp().as_micros());
            infos.push(BlockInfo {
                first_row: start as u64,
                rows: (end - start) as u32,
                min_ts: stamps.clone().min().unwrap(),
                max_ts: stamps.max().unwrap(),
            });
            start = end;
        }
        Self {
            key: SegmentKey { uuid: [number; 16], end: 1000 + rows.len() as u64 },
            table,
            partition: rows[0].timestamp().partition(),
            infos,
            blocks: Vec::new(),
            dictionaries: vec![None; table.schema().columns.len()],
            summaries: None,
            sealed: false,
            bad: BTreeSet::new(),
            damage: Vec::new(),
            reads: Mutex::new(0),
        }
    }

    fn fill(&mut self, rows: &[&Row], coded: bool) {
        for info in &self.infos {
            let start = info.first_row as usize;
            let rows = &rows[start..start + info.rows as usize];
            let columns = 0..self.table.schema().columns.len();
            let column = |column: usize| {
                column_of(self.table, column, rows, self.dictionaries[column].as_ref(), coded)
            };
            self.blocks.push(columns.map(column).collect());
        }
    }

    /// As rows came, in small frames.
    fn active(table: Table, number: u8, rows: &[&Row], frame: usize, coded: bool) -> Self {
        let cuts: Vec<usize> = (0..rows.len()).step_by(frame).skip(1).collect();
        let mut segment = Self::new(table, number, rows, &cuts);
        segment.fill(rows, coded);
        segment
    }

    fn sealed(table: Table, number: u8, rows: &[&Row], block: usize, kept: Kept) -> Self {
        let schema = table.schema();
        let mut rows = rows.to_vec();
        let hour = |row: &Row| row.timestamp().hour();
        let order = |row: &Row| {
            let key = |column: &usize| match *column {
                0 => (int_of(row, 0), String::new()),
                column => (None, text_of(row, column).unwrap().to_owned()),
            };
            (hour(row), schema.order.iter().map(key).collect::<Vec<_>>())
        };
        rows.sort_by_key(|row| order(row));
        let cuts: Vec<usize> = (0..rows.len()).step_by(block).skip(1).collect();
        let mut segment = Self::new(table, number, &rows, &cuts);
        segment.sealed = true;
        for (column, dictionary) in segment.dictionaries.iter_mut().enumerate() {
            if schema.columns[column].kind == ColumnType::Dimension {
                let distinct: BTreeSet<&str> =
                    rows.iter().filter_map(|row| text_of(row, column)).collect();
                *dictionary = Some(Arc::new(distinct.into_iter().collect()));
            }
        }
        segment.fill(&rows, false);
        segment.summaries = Some(Arc::new(segment.summarise(&rows, kept)));
        segment
    }

    fn code(&self, row: &Row, column: usize) -> u32 {
        let dictionary = self.dictionaries[column].as_ref().unwrap();
        dictionary.iter().position(|have| Some(have) == text_of(row, column)).unwrap() as u32
    }

    fn codes(&self, row: &Row, level: &[usize]) -> Vec<u32> {
        level.iter().map(|column| self.code(row, *column)).collect()
    }

    fn summarise(&self, rows: &[&Row], kept: Kept) -> Summaries {
        let (table, schema) = (self.table, self.table.schema());
        let mut keys = Vec::new();
        let mut key_digests = Vec::new();
        let mut numbers: Vec<BTreeMap<Vec<u32>, Vec<usize>>> = Vec::new();
        for level in schema.keys {
            let mut by_key: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
            for (position, row) in rows.iter().enumerate() {
                by_key.entry(self.codes(row, level)).or_default().push(position);
            }
            let cells = by_key.iter().map(|(codes, positions)| {
                let rows: Vec<&Row> = positions.iter().map(|position| rows[*position]).collect();
                let last = schema.measures.iter().map(|measure| {
                    let values = rows.iter().filter_map(|row| {
                        Some((row.timestamp().as_micros(), key_of(row, *measure)?))
                    });
                    values.max().map(|(timestamp, order_key)| LastValue { timestamp, order_key })
                });
                KeyCell {
                    codes: codes.clone(),
                    cell: cell_of(table, &rows),
                    last: last.collect(),
                    runs: if kept.runs { self.runs(positions) } else { Vec::new() },
                }
            });
            keys.push(if kept.keys { cells.collect() } else { Vec::new() });
            let digests = by_key.values().map(|positions| {
                let rows: Vec<&Row> = positions.iter().map(|position| rows[*position]).collect();
                digests_of(table, &rows, kept.key_digests)
            });
            key_digests.push(digests.collect());
            numbers.push(by_key);
        }
        let mut hours: Vec<HourCell> = Vec::new();
        let mut start = 0;
        for run in rows.chunk_by(|a, b| a.timestamp().hour() == b.timestamp().hour()) {
            let mut cells = Vec::new();
            for (number, (codes, _)) in numbers[0].iter().enumerate() {
                let is_theirs = |row: &&&Row| self.codes(row, schema.keys[0]) == *codes;
                let theirs: Vec<&Row> = run.iter().filter(is_theirs).copied().collect();
                if !theirs.is_empty() && theirs.len() as u64 >= kept.hour_keys_min {
                    cells.push(KeyHourCell {
                        level: 0,
                        key: number,
                        cell: cell_of(table, &theirs),
                        digests: Vec::new(),
                    });
                }
            }
            hours.push(HourCell {
                hour: run[0].timestamp().hour(),
                first_row: start,
                cell: cell_of(table, run),
                digests: digests_of(table, run, kept.hour_digests),
                keys: cells,
            });
            start += run.len() as u64;
        }
        let mut top: Vec<TopRow> = rows
            .iter()
            .enumerate()
            .filter_map(|(row, value)| {
                let order_key = key_of(value, schema.measures[0])?;
                Some(TopRow { order_key, row: row as u64 })
            })
            .collect();
        top.sort_by_key(|top| std::cmp::Reverse(top.order_key));
        top.truncate(kept.top);
        let of_top: Vec<&Row> = top.iter().map(|top| rows[top.row as usize]).collect();
        let columns = schema.columns.iter().enumerate().map(|(column, kept)| {
            let dictionary = self.dictionaries[column].as_ref();
            (kept.kind != ColumnType::Json)
                .then(|| column_of(table, column, &of_top, dictionary, false))
        });
        let top = TopRows { columns: columns.collect(), rows: top };
        let digests = digests_of(table, rows, kept.digests);
        Summaries { total: cell_of(table, rows), digests, hours, keys, key_digests, top }
    }

    fn runs(&self, positions: &[usize]) -> Vec<KeyRun> {
        let mut runs = Vec::new();
        for (block, info) in self.infos.iter().enumerate() {
            let range = info.first_row..info.first_row + u64::from(info.rows);
            let inside: Vec<u64> =
                positions.iter().map(|p| *p as u64).filter(|p| range.contains(p)).collect();
            if let (Some(first), Some(last)) = (inside.first(), inside.last()) {
                runs.push(KeyRun {
                    block: block as u32,
                    first: (first - info.first_row) as u32,
                    span: (last - first + 1) as u32,
                    rows: inside.len() as u32,
                });
            }
        }
        runs
    }

    fn contains(&self, block: usize, column: usize, text: &str) -> bool {
        let column = &self.blocks[block][column];
        (0..column.len()).any(|row| column.text(row) == Some(text))
    }
}

impl Segment for MemorySegment {
    fn key(&self) -> SegmentKey {
        self.key
    }

    fn file(&self) -> String {
        format!("{}/{}/{}.segment", self.table, self.partition, self.key.uuid[0])
    }

    fn table(&self) -> Table {
        self.table
    }

    fn partition(&self) -> Partition {
        self.partition
    }

    fn stamps(&self) -> Option<(i64, i64)> {
        let min = self.infos.iter().map(|info| info.min_ts).min()?;
        Some((min, self.infos.iter().map(|info| info.max_ts).max()?))
    }

    fn blocks(&self) -> &[BlockInfo] {
        &self.infos
    }

    fn zone(&self, block: usize, column: usize) -> Option<(i64, i64)> {
        if !self.sealed {
            return None;
        }
        let column = &self.blocks[block][column];
        let keys = (0..column.len()).filter(|row| column.is_valid(*row));
        let keys = keys.filter_map(|row| match &column.values {
            Values::Int(values) => Some(values[row]),
            Values::Float(values) => Some(float_key(values[row])),
            Values::Bool(values) => Some(i64::from(values.get(row))),
            Values::Coded { codes, .. } => Some(i64::from(codes[row])),
            Values::Text(_) => None,
        });
        let keys: Vec<i64> = keys.collect();
        Some((*keys.iter().min()?, *keys.iter().max()?))
    }

    fn nulls(&self, block: usize, column: usize) -> Option<u32> {
        self.sealed.then(|| self.blocks[block][column].null_count() as u32)
    }

    fn chunk_bytes(&self, block: usize, _: usize) -> u64 {
        u64::from(self.infos[block].rows) * 8
    }

    fn with_chunk(&self, block: usize, column: usize, each: UseChunk<'_>) -> Result<()> {
        *self.reads.lock().unwrap() += 1;
        if self.bad.contains(&(block, column)) {
            return Err(Error::corrupt("4.2", "checksum of the chunk is wrong"));
        }
        let dictionary = self.dictionaries[column].as_ref();
        let scope = if dictionary.is_some() { TextScope::Segment } else { TextScope::Local };
        let mut bytes = Vec::new();
        encoding::encode(&self.blocks[block][column], scope, Effort::Seal, &mut bytes).unwrap();
        let kind = self.table.schema().columns[column].kind;
        let bytes = Bytes::from_vec(bytes);
        each(&Chunk::parse(&bytes, kind).unwrap(), &bytes, dictionary)
    }

    fn dictionary(&self, column: usize) -> Result<Option<Arc<Strings>>> {
        Ok(self.dictionaries[column].clone())
    }

    fn might_contain(&self, column: usize, text: &str) -> bool {
        !self.sealed || (0..self.blocks.len()).any(|block| self.contains(block, column, text))
    }

    fn block_might_contain(&self, block: usize, column: usize, text: &str) -> bool {
        !self.sealed || self.contains(block, column, text)
    }

    fn summaries(&self, _depth: Depth) -> Option<Arc<Summaries>> {
        self.summaries.clone()
    }

    fn newest(&self, measure: usize) -> Option<LastValue> {
        let keys = self.summaries.as_ref()?.keys.iter().flatten();
        let values = keys.filter_map(|key| key.last[measure]);
        values.max_by_key(|value| (value.timestamp, value.order_key))
    }

    fn damage(&self) -> Vec<SegmentDamage> {
        self.damage.clone()
    }
}

const NAMES: [&str; 4] = ["a", "agent \u{e9}\u{1f600}", "b", "zz"];
const INTS: [i64; 8] = [0, 1, 1, 7, 1500, i64::MAX, i64::MIN, i64::MAX - 1];
const FLOATS: [f64; 9] = [0.0, -0.0, 1.5, 1.5, -2.25, 1e16, -1e16, 1e300, f64::MIN_POSITIVE];

fn stamps() -> impl Strategy<Value = i64> {
    prop_oneof![
        // Few moments, so that rows tie; hours and days at their edges.
        2 => (0i64..12).prop_map(|hour| START + hour * 4 * MICROS_PER_HOUR),
        1 => (1i64..12).prop_map(|hour| START + hour * 4 * MICROS_PER_HOUR - 1),
        4 => (0..2 * MICROS_PER_DAY).prop_map(|micros| START + micros),
        2 => (0..3 * MICROS_PER_HOUR).prop_map(|micros| START + micros),
    ]
}

fn ints() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        Just(None),
        select(&INTS[..]).prop_map(Some),
        (0i64..5000).prop_map(Some),
        (0i64..20).prop_map(Some),
    ]
}

fn metadata() -> impl Strategy<Value = Option<String>> {
    select(&[None, None, Some("{}"), Some("null"), Some("{\"k\":\"\u{e9}\"}")][..])
        .prop_map(|text| text.map(str::to_owned))
}

fn row(table: Table) -> BoxedStrategy<Row> {
    let name = || select(&NAMES[..]).prop_map(str::to_owned);
    let stamp = stamps().prop_map(|micros| Timestamp::from_micros(micros).unwrap());
    if table == Table::Task {
        let task = prop_oneof![Just("t".to_owned()), (0..30).prop_map(|n| format!("task_{n}"))];
        return (stamp, task, name(), ints(), ints(), any::<bool>(), metadata())
            .prop_map(
                |(timestamp, task_id, agent_id, duration_ms, tokens_used, success, metadata)| {
                    Row::Task(TaskRow {
                        timestamp,
                        task_id,
                        agent_id,
                        duration_ms,
                        tokens_used,
                        success,
                        metadata,
                    })
                },
            )
            .boxed();
    }
    let value = prop_oneof![select(&FLOATS[..]), -100.0..100.0];
    let metric = select(&["cpu", "mem", "q"][..]).prop_map(str::to_owned);
    (stamp, name(), metric, value, metadata())
        .prop_map(move |(timestamp, id, metric_type, value, metadata)| {
            if table == Table::Agent {
                Row::Agent(AgentRow { timestamp, agent_id: id, metric_type, value, metadata })
            } else {
                Row::Swarm(SwarmRow { timestamp, swarm_id: id, metric_type, value, metadata })
            }
        })
        .boxed()
}

fn rows(table: Table, most: usize) -> impl Strategy<Value = Vec<Row>> {
    // Some rows come twice.
    (prop::collection::vec(row(table), 0..most), prop::collection::vec(any::<Index>(), 0..8))
        .prop_map(|(mut rows, again)| {
            if !rows.is_empty() {
                let copies: Vec<Row> =
                    again.iter().map(|pick| rows[pick.index(rows.len())].clone()).collect();
                rows.extend(copies);
            }
            rows
        })
}

fn filter(table: Table) -> impl Strategy<Value = Filter> {
    let name = || prop::option::weighted(0.3, select(&["a", NAMES[1], "b", "zz", "nobody"][..]));
    let edge = || prop::option::weighted(0.5, stamps());
    let limit =
        prop_oneof![Just(Limit::Default), (0usize..40).prop_map(Limit::Rows), Just(Limit::All)];
    let task = prop::option::weighted(0.15, select(&["t", "task_3", "none"][..]));
    let metric = prop::option::weighted(0.4, select(&["cpu", "q", "none"][..]));
    let success = prop::option::weighted(0.2, any::<bool>());
    let offset = prop_oneof![3 => Just(0usize), 1 => 0usize..30];
    (edge(), edge(), name(), task, metric, success, limit, offset).prop_map(
        move |(one, other, name, task, metric, success, limit, offset)| {
            let (from, to) = match (one, other) {
                (Some(one), Some(other)) => (Some(one.min(other)), Some(one.max(other))),
                edges => edges,
            };
            let stamp = |micros: i64| Timestamp::from_micros(micros).unwrap();
            let text = |text: &str| text.to_owned();
            let gauge = table != Table::Task;
            Filter {
                from: from.map(stamp),
                to: to.map(stamp),
                task_id: task.filter(|_| !gauge).map(text),
                agent_id: name.filter(|_| table != Table::Swarm).map(text),
                swarm_id: name.filter(|_| table == Table::Swarm).map(text),
                metric_type: metric.filter(|_| gauge).map(text),
                success: success.filter(|_| !gauge),
                limit,
                offset,
                ..Filter::default()
            }
        },
    )
}

fn kept() -> impl Strategy<Value = Kept> {
    (any::<[bool; 5]>(), 1u64..4, 0usize..20).prop_map(|(flags, hour_keys_min, top)| Kept {
        keys: flags[0],
        key_digests: flags[1],
        hour_digests: flags[2],
        digests: flags[3],
        runs: flags[4] || flags[0],
        hour_keys_min,
        top,
    })
}

#[derive(Clone, Debug)]
enum Kind {
    Active(usize, bool),
    Sealed(usize, Kept),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        1 => (1usize..9, any::<bool>()).prop_map(|(frame, coded)| Kind::Active(frame, coded)),
        3 => (1usize..40, kept()).prop_map(|(block, kept)| Kind::Sealed(block, kept)),
    ]
}

/// Deals the rows out to segments, by day.
fn view(table: Table, rows: &[Row], kinds: &[Kind], cache: usize) -> View {
    let mut dealt: BTreeMap<(Partition, usize), Vec<&Row>> = BTreeMap::new();
    for (position, row) in rows.iter().enumerate() {
        let segment = (position * 7 + position / 5) % kinds.len();
        dealt.entry((row.timestamp().partition(), segment)).or_default().push(row);
    }
    let mut view = View {
        cache: Some(Arc::new(AnswerCache::new(cache))),
        merged: Some(Arc::new(AnswerCache::new(cache))),
        ..View::default()
    };
    for (number, ((_, kind), rows)) in dealt.into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        let segment = match &kinds[kind] {
            Kind::Active(frame, coded) => {
                MemorySegment::active(table, number, &rows, *frame, *coded)
            }
            Kind::Sealed(block, kept) => MemorySegment::sealed(table, number, &rows, *block, *kept),
        };
        view.segments[table.index()].push(Arc::new(segment));
    }
    view
}

/// Rows in the order of time are those of pages turned round, however small the windows are in
/// which they are read.
fn check_windows(snapshot: &Snapshot, table: Table, filter: &Filter) {
    let all = Filter { limit: Limit::All, offset: 0, cursor: None, ..filter.clone() };
    let pages = snapshot.metrics(table, &all).unwrap();
    let columns: Vec<usize> = (0..table.schema().columns.len()).collect();
    let read = |newest_first, window| {
        let mut ordered =
            Ordered::with_window(snapshot, table, &all, &columns, newest_first, window).unwrap();
        let mut rows = Vec::new();
        while let Some(some) = ordered.next().unwrap() {
            let row = |(part, row): (&[Column], usize)| {
                Row::from_columns(table, &rows::Columns(part.iter().collect()), row)
            };
            rows.extend(some.iter().map(row));
        }
        assert_eq!(ordered.into_coverage(), pages.coverage, "{table} {filter:?}");
        rows
    };
    // What is left of JSON on one line decides among rows of the same ids, not its bytes.
    let ids = table.schema().page_order;
    let key = |row: &Row| {
        let texts = ids.iter().map(|id| text_of(row, *id).map(str::to_owned));
        (row.timestamp(), texts.collect())
    };
    let keys =
        |rows: &[Row]| -> Vec<(Timestamp, Vec<Option<String>>)> { rows.iter().map(key).collect() };
    let newest = read(true, 8 << 20);
    assert!(keys(&newest) == keys(&pages.rows), "{table} {filter:?}");
    for (newest_first, window) in [(true, 1), (false, 1), (true, 700), (false, 3_000)] {
        let mut rows = read(newest_first, window);
        if !newest_first {
            rows.reverse();
        }
        assert!(rows == newest, "windows of {window} bytes of {table} {filter:?}");
    }
}

fn check(table: Table, rows: &[Row], kinds: &[Kind], filters: &[Filter]) {
    let model: ReferenceModel = rows.iter().cloned().collect();
    let snapshot = Snapshot::new(view(table, rows, kinds, 4));
    for filter in filters {
        model.check(&snapshot, table, filter);
        check_windows(&snapshot, table, filter);
    }
    model.check(&snapshot, table, &Filter::new());
    check_windows(&snapshot, table, &Filter::new());
}

proptest! {
    // Each case asks some hundred questions; PROPTEST_CASES raises the number.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]

    #[test]
    fn tasks_answer_like_the_model(
        rows in rows(Table::Task, 150),
        kinds in prop::collection::vec(kind(), 1..4),
        filters in prop::collection::vec(filter(Table::Task), 3),
    ) {
        check(Table::Task, &rows, &kinds, &filters);
    }

    #[test]
    fn gauges_answer_like_the_model(
        rows in rows(Table::Agent, 150),
        kinds in prop::collection::vec(kind(), 1..4),
        filters in prop::collection::vec(filter(Table::Agent), 3),
    ) {
        check(Table::Agent, &rows, &kinds, &filters);
    }

    #[test]
    fn pages_survive_a_reorganisation(
        rows in rows(Table::Task, 80),
        before in prop::collection::vec(kind(), 1..4),
        after in prop::collection::vec(kind(), 1..4),
        size in 1usize..20,
    ) {
        let model: ReferenceModel = rows.iter().cloned().collect();
        let snapshots = [&before, &after]
            .map(|kinds| Snapshot::new(view(Table::Task, &rows, kinds, 0)));
        let mut got = Vec::new();
        let mut cursor = None;
        for turn in 0.. {
            let filter = Filter { cursor: cursor.take(), ..Filter::new().limit(size) };
            let page = snapshots[turn % 2].metrics(Table::Task, &filter).unwrap();
            got.extend(page.rows);
            match page.next_cursor {
                Some(next) => cursor = Some(Cursor::from_text(next.to_string())),
                None => break,
            }
        }
        prop_assert_eq!(got, model.matching(Table::Task, &Filter::new()));
    }

    #[test]
    fn damaged_blocks_are_left_out_and_reported(
        rows in rows(Table::Task, 80),
        kind in kind(),
        bad in prop::collection::vec((any::<Index>(), 0usize..7), 1..4),
    ) {
        prop_assume!(!rows.is_empty());
        check_damage(&rows, &kind, &bad);
    }
}

/// One segment with bad chunks: rows come from the blocks without one.
fn check_damage(rows: &[Row], kind: &Kind, bad: &[(Index, usize)]) {
    let day = rows[0].timestamp().partition();
    let rows: Vec<&Row> = rows.iter().filter(|row| row.timestamp().partition() == day).collect();
    let build = || match kind {
        Kind::Active(frame, coded) => MemorySegment::active(Table::Task, 0, &rows, *frame, *coded),
        Kind::Sealed(block, kept) => MemorySegment::sealed(Table::Task, 0, &rows, *block, *kept),
    };
    let mut segment = build();
    let blocks = segment.infos.len();
    segment.bad = bad.iter().map(|(block, column)| (block.index(blocks), *column)).collect();
    let lost: BTreeSet<usize> = segment.bad.iter().map(|(block, _)| *block).collect();
    let whole = Snapshot::new(one(Arc::new(build())));
    let columns = whole.columns(Table::Task, &Filter::new(), None).unwrap();
    let left: ReferenceModel = columns
        .enumerate()
        .filter(|(block, _)| !lost.contains(block))
        .flat_map(|(_, block)| rows_of(&block.unwrap()))
        .collect();

    let snapshot = Snapshot::new(one(Arc::new(segment)));
    let all = Filter::new().all();
    let page = snapshot.metrics(Table::Task, &all).unwrap();
    assert_eq!(page.rows, left.metrics(Table::Task, &all));
    let reported: BTreeSet<usize> =
        page.coverage.damaged.iter().map(|damage| damage.block.unwrap() as usize).collect();
    assert_eq!(reported, lost);
    for limit in [0, 1, 3] {
        let filter = Filter::new().limit(limit).offset(1);
        assert_eq!(
            snapshot.metrics(Table::Task, &filter).unwrap().rows,
            left.metrics(Table::Task, &filter)
        );
    }
    let strict = Filter { strict: true, ..all.clone() };
    for filter in [&all, &strict, &Filter::new().limit(3).offset(1), &all.clone().agent("a")] {
        check_views(&snapshot, Table::Task, filter);
    }
    let error = snapshot.metrics(Table::Task, &strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);

    // A rank needs every value, so a bad duration cannot go unnoticed.
    let bad_durations: BTreeSet<usize> =
        bad.iter().filter(|(_, c)| *c == 3).map(|(block, _)| block.index(blocks)).collect();
    let series = |filter: &Filter| {
        let rank = Aggregation::Percentile(0.5);
        snapshot.aggregate_by_time(Table::Task, "duration_ms", Interval::Month, rank, filter)
    };
    let partial = Filter { allow_partial: true, ..Filter::new() };
    if bad_durations.is_empty() {
        assert!(series(&Filter::new()).is_ok());
    } else {
        assert_eq!(series(&Filter::new()).unwrap_err().kind(), ErrorKind::Corrupt);
        let answer = series(&partial).unwrap();
        assert_eq!(answer.coverage.damaged.len(), bad_durations.len());
        let strict = Filter { strict: true, ..partial.clone() };
        assert_eq!(series(&strict).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    // Whatever else is asked, it does not panic.
    let _ = snapshot.summary_stats(Percentile::Exact, &partial);
    let _ = snapshot.slowest_tasks(&partial).unwrap();
    let _ = snapshot.top_agents(TopBy::TaskCount, Order::Ascending, &partial).unwrap();
    let _ = snapshot.aggregate(Table::Task, "tokens_used", &partial.clone().agent("a")).unwrap();
}

fn rows_of(block: &columns::ColumnsBlock) -> Vec<Row> {
    let columns = rows::Columns(block.columns.iter().collect());
    (0..block.len()).map(|row| Row::from_columns(Table::Task, &columns, row)).collect()
}

fn one(segment: Arc<MemorySegment>) -> View {
    let mut view = View::default();
    view.segments[segment.table.index()].push(segment);
    view
}

const EVERYTHING: Kept = Kept {
    keys: true,
    key_digests: true,
    hour_digests: true,
    digests: true,
    hour_keys_min: 1,
    top: 20,
    runs: true,
};

/// `count` tasks, one every ten seconds, of three agents.
fn plain_tasks(count: usize) -> Vec<Row> {
    (0..count)
        .map(|number| {
            Row::Task(TaskRow {
                timestamp: Timestamp::from_micros(START + number as i64 * 10_000_000).unwrap(),
                task_id: format!("task_{number:05}"),
                agent_id: NAMES[number % 3].to_owned(),
                duration_ms: Some((number as i64 * 7919) % 1009),
                tokens_used: (!number.is_multiple_of(5)).then_some(number as i64),
                success: !number.is_multiple_of(10),
                metadata: None,
            })
        })
        .collect()
}

fn sealed_day(count: usize) -> (Vec<Row>, Arc<MemorySegment>) {
    let rows = plain_tasks(count);
    let borrowed: Vec<&Row> = rows.iter().collect();
    let segment = MemorySegment::sealed(Table::Task, 1, &borrowed, 360, EVERYTHING);
    (rows, Arc::new(segment))
}

#[test]
fn summaries_answer_without_reading_rows() {
    let (_, segment) = sealed_day(2000);
    let snapshot = Snapshot::new(one(Arc::clone(&segment)));
    let field = "duration_ms";
    let all = Filter::new();
    let agent = Filter::new().agent("a");
    let hours = Filter::new().between(
        Timestamp::from_micros(START + MICROS_PER_HOUR).unwrap(),
        Timestamp::from_micros(START + 4 * MICROS_PER_HOUR).unwrap(),
    );
    for filter in [&all, &agent, &hours] {
        snapshot.average(Table::Task, field, filter).unwrap();
        snapshot
            .aggregate_by_time(Table::Task, field, Interval::Hour, Aggregation::Avg, filter)
            .unwrap();
    }
    for filter in [&all, &agent] {
        let answer = snapshot.aggregate(Table::Task, field, filter).unwrap();
        assert!(answer.plan.summarised.count >= 1);
        snapshot.top_agents(TopBy::AvgDurationMs, Order::Descending, filter).unwrap();
        snapshot.summary_stats(Percentile::Estimate, filter).unwrap();
        snapshot.aggregate_by_key(Table::Task, field, "agent_id", filter).unwrap();
    }
    let slowest = snapshot.slowest_tasks(&all).unwrap();
    assert_eq!(slowest.rows.len(), 10);
    assert_eq!(slowest.plan.blocks_pruned.count, 0, "nothing but the list is looked at");
    assert_eq!(*segment.reads.lock().unwrap(), 0);
}

#[test]
fn rows_that_differ_in_metadata_alone_are_read_to_be_ordered() {
    let mut rows = plain_tasks(1000);
    let slow = |metadata: &str, task_id: &str| {
        Row::Task(TaskRow {
            timestamp: Timestamp::from_micros(START).unwrap(),
            task_id: task_id.to_owned(),
            agent_id: NAMES[0].to_owned(),
            duration_ms: Some(5000),
            tokens_used: Some(1),
            success: true,
            metadata: Some(metadata.to_owned()),
        })
    };
    rows.extend(["[1]", "[2]", "[3]"].map(|metadata| slow(metadata, "equal")));
    let borrowed: Vec<&Row> = rows.iter().collect();
    let build =
        |rows: &[&Row]| Arc::new(MemorySegment::sealed(Table::Task, 1, rows, 360, EVERYTHING));
    let segment = build(&borrowed);
    let snapshot = Snapshot::new(one(Arc::clone(&segment)));
    let model: ReferenceModel = rows.iter().cloned().collect();
    for limit in [1, 2, 5] {
        let filter = Filter::new().limit(limit);
        assert_eq!(snapshot.slowest_tasks(&filter).unwrap().rows, model.slowest_tasks(&filter));
    }
    assert!(*segment.reads.lock().unwrap() > 0);

    // Ids that differ are in the list.
    rows.truncate(1000);
    rows.extend(["a", "c", "b"].map(|id| slow("[]", id)));
    let borrowed: Vec<&Row> = rows.iter().collect();
    let segment = build(&borrowed);
    let snapshot = Snapshot::new(one(Arc::clone(&segment)));
    let model: ReferenceModel = rows.iter().cloned().collect();
    let filter = Filter::new().limit(2);
    assert_eq!(snapshot.slowest_tasks(&filter).unwrap().rows, model.slowest_tasks(&filter));
    assert_eq!(*segment.reads.lock().unwrap(), 0);
}

#[test]
fn ragged_edges_alone_are_scanned() {
    let (rows, segment) = sealed_day(2000);
    let snapshot = Snapshot::new(one(segment));
    let filter = Filter::new().between(
        Timestamp::from_micros(START + MICROS_PER_HOUR / 2).unwrap(),
        Timestamp::from_micros(START + 4 * MICROS_PER_HOUR + 1).unwrap(),
    );
    let answer = snapshot.average(Table::Task, "duration_ms", &filter).unwrap();
    let model: ReferenceModel = rows.into_iter().collect();
    assert_eq!(answer.value, model.average(Table::Task, "duration_ms", &filter));
    assert_eq!(answer.plan.summarised.rows, 3 * 360);
    assert_eq!(answer.plan.blocks_scanned.count, 2);
    assert_eq!(answer.plan.blocks_scanned.rows, 720);
}

#[test]
fn exact_percentiles_look_at_the_bracket_only() {
    // Durations rise with time, so that the blocks below and above are told by zone maps.
    let mut rows = plain_tasks(3000);
    for (number, row) in rows.iter_mut().enumerate() {
        if let Row::Task(row) = row {
            row.duration_ms = Some(number as i64);
        }
    }
    let borrowed: Vec<&Row> = rows.iter().collect();
    let segment = MemorySegment::sealed(Table::Task, 1, &borrowed, 100, EVERYTHING);
    let snapshot = Snapshot::new(one(Arc::new(segment)));
    let exact = Percentile::Exact;
    let answer = snapshot.percentile(Table::Task, "duration_ms", 0.5, exact, &Filter::new());
    let answer = answer.unwrap();
    assert_eq!(answer.value.value, Some(answer::Value::Int(1500)));
    assert!(answer.plan.blocks_scanned.count <= 3, "{:?}", answer.plan);
    assert!(answer.plan.blocks_pruned.count >= 27, "{:?}", answer.plan);
}

#[test]
fn digests_that_lie_cost_a_pass_and_no_more() {
    let rows = plain_tasks(1000);
    let borrowed: Vec<&Row> = rows.iter().collect();
    let mut segment = MemorySegment::sealed(Table::Task, 1, &borrowed, 100, EVERYTHING);
    let mut summaries = segment.summarise(&borrowed, EVERYTHING);
    let mut wrong: Vec<f64> = (0..1000).map(|value| f64::from(value) * 3.0 + 40.5).collect();
    summaries.digests[0] = Digest::build(&mut wrong).map(Arc::new);
    segment.summaries = Some(Arc::new(summaries));
    let snapshot = Snapshot::new(one(Arc::new(segment)));
    let model: ReferenceModel = rows.iter().cloned().collect();
    let shares = [0.1, 0.5, 0.9];
    let (field, exact) = ("duration_ms", Percentile::Exact);
    let found = snapshot.percentiles(Table::Task, field, &shares, exact, &Filter::new()).unwrap();
    assert_eq!(found.value, model.percentiles(Table::Task, field, &shares, &Filter::new()));
}

#[test]
fn newest_rows_of_a_key_read_one_block() {
    let (_, segment) = sealed_day(2000);
    let snapshot = Snapshot::new(one(segment));
    let page = snapshot.task_metrics(&Filter::new().agent("b").limit(20)).unwrap();
    assert_eq!(page.rows.len(), 20);
    assert_eq!(page.plan.blocks_scanned.count, 1, "{:?}", page.plan);
    assert_eq!(page.plan.blocks_pruned.count, 5, "{:?}", page.plan);
    assert!(page.next_cursor.is_some());
    let one = snapshot.task_metrics(&Filter::new().task("task_00700")).unwrap();
    assert_eq!((one.rows.len(), one.plan.blocks_scanned.count), (1, 1));
    let none = snapshot.task_metrics(&Filter::new().task("nobody")).unwrap();
    assert_eq!(none.plan.segments_pruned.count, 1);
}

#[test]
fn wrong_arguments_are_refused() {
    let snapshot = Snapshot::new(View::default());
    let kind = |result: Result<()>| result.unwrap_err().kind();
    let (table, field) = (Table::Task, "duration_ms");
    let all = Filter::new();
    let refused = [
        snapshot.metrics(Table::Agent, &Filter::new().task("t")).map(drop),
        snapshot.metrics(table, &Filter::new().cursor(Cursor::from_text("x"))).map(drop),
        snapshot.average(table, "metadata", &all).map(drop),
        snapshot.average(table, field, &Filter::new().limit(3)).map(drop),
        snapshot.aggregate(table, field, &Filter::new().offset(3)).map(drop),
        snapshot.percentile(table, field, f64::NAN, Percentile::Exact, &all).map(drop),
        snapshot.percentile(table, field, 1.5, Percentile::Estimate, &all).map(drop),
        snapshot
            .aggregate_by_time(table, field, Interval::Fixed(1), Aggregation::Sum, &all)
            .map(drop),
        snapshot
            .aggregate_by_time(table, field, Interval::Day, Aggregation::Percentile(2.0), &all)
            .map(drop),
        snapshot.aggregate_by_key(table, field, "task_id", &all).map(drop),
        snapshot.slowest_tasks(&Filter::new().cursor(Cursor::from_text("x"))).map(drop),
        snapshot.columns(table, &all, Some(&["nothing"])).map(drop),
        snapshot.columns(table, &all, Some(&[])).map(drop),
        snapshot.columns(table, &all, Some(&["success"])).unwrap().into_rows().map(drop),
    ];
    for (number, result) in refused.into_iter().enumerate() {
        assert_eq!(kind(result), ErrorKind::InvalidArgument, "{number}");
    }
}

#[test]
fn cursors_of_other_questions_are_refused() {
    let (_, segment) = sealed_day(100);
    let snapshot = Snapshot::new(one(segment));
    let stamp = |hour: i64| Timestamp::from_micros(START + hour * MICROS_PER_HOUR).unwrap();
    let asked = Filter::new().agent("a").between(stamp(0), stamp(5)).limit(3);
    let cursor = snapshot.task_metrics(&asked).unwrap().next_cursor.unwrap();
    let with = |filter: Filter| snapshot.task_metrics(&filter.cursor(cursor.clone()));
    assert!(with(asked.clone()).is_ok());
    // The cursor knows the range.
    assert_eq!(with(Filter::new().agent("a").limit(3)).unwrap(), with(asked.clone()).unwrap());
    for other in [
        Filter::new().agent("b"),
        Filter::new(),
        asked.clone().success(true),
        asked.clone().between(stamp(0), stamp(4)),
    ] {
        assert_eq!(with(other).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    let mut damaged = cursor.to_string();
    damaged.replace_range(9..10, if damaged.as_bytes()[9] == b'A' { "B" } else { "A" });
    let damaged = asked.cursor(Cursor::from_text(damaged));
    assert_eq!(snapshot.task_metrics(&damaged).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn the_same_question_is_answered_from_the_cache() {
    let (_, segment) = sealed_day(500);
    let mut view = one(Arc::clone(&segment));
    view.cache = Some(Arc::new(AnswerCache::new(10)));
    let snapshot = Snapshot::new(view);
    let rank =
        |p| snapshot.percentile(Table::Task, "duration_ms", p, Percentile::Exact, &Filter::new());
    let first = rank(0.5).unwrap();
    let reads = *segment.reads.lock().unwrap();
    let again = rank(0.5).unwrap();
    assert!(!first.cached && again.cached);
    assert_eq!((&first.value, &first.plan), (&again.value, &again.plan));
    assert_eq!(*segment.reads.lock().unwrap(), reads);
    assert!(!rank(0.25).unwrap().cached);
    assert!(rank(7.0).is_err() && rank(7.0).is_err());
}

#[test]
fn merged_keys_are_kept_and_answer_like_their_segments() {
    let rows = plain_tasks(30_000);
    let kinds = [Kind::Sealed(1000, EVERYTHING)];
    let mut apart = view(Table::Task, &rows, &kinds, 0);
    apart.merged = None;
    let merged = Arc::new(AnswerCache::new(2));
    let mut together = view(Table::Task, &rows, &kinds, 0);
    together.merged = Some(Arc::clone(&merged));
    let [apart, together] = [apart, together].map(Snapshot::new);
    let files = together.keys(Table::Task);
    assert_eq!(files.len(), 4, "days");
    let kept = |files: &[SegmentKey]| {
        let agents = format!("{} {}", Table::Task, task::AGENT_ID);
        merged.get::<Option<Arc<keyed::Keyed>>>(&agents, files).is_some()
    };
    assert!(!kept(&files));
    let day = |days: i64| Timestamp::from_micros(START + days * MICROS_PER_DAY).unwrap();
    let odd = Timestamp::from_micros(START + 3 * MICROS_PER_DAY + 12_345_678_901).unwrap();
    let ranges = [
        Filter::new(),
        Filter::new().limit(2),
        Filter::new().between(day(0), odd),
        Filter::new().between(day(1), day(3)),
        Filter::new().between(day(1), day(2)),
        Filter::new().agent("a"),
        Filter::new().success(false),
    ];
    for filter in ranges {
        for by in [TopBy::TaskCount, TopBy::AvgDurationMs, TopBy::SuccessRate] {
            let ask = |from: &Snapshot| from.top_agents(by, Order::Ascending, &filter).unwrap();
            assert_eq!(ask(&apart), ask(&together), "{filter:?}");
        }
        for field in ["duration_ms", "tokens_used"] {
            let ask = |from: &Snapshot| {
                from.aggregate_by_key(Table::Task, field, "agent_id", &filter).unwrap()
            };
            assert_eq!(ask(&apart), ask(&together), "{filter:?}");
        }
        let scalar = Filter { limit: Limit::Default, ..filter };
        let ask = |from: &Snapshot| from.summary_stats(Percentile::Exact, &scalar).unwrap();
        assert_eq!(ask(&apart), ask(&together), "{scalar:?}");
        let all = Filter::new();
        assert!(together.top_agents(TopBy::TaskCount, Order::Ascending, &all).is_ok());
        assert!(kept(&files));
    }
    assert!(kept(&files[1..3]), "the days inside");
    assert!(!kept(&files[..3]), "two sets are kept, the others were dropped");
}

#[test]
fn coverage_says_what_is_there_gone_and_lost() {
    let (_, segment) = sealed_day(10);
    let mut view = one(segment);
    let day = |number: i64| TimeRange {
        start: START + number * MICROS_PER_DAY,
        end: START + (number + 1) * MICROS_PER_DAY,
    };
    view.gone[0] = vec![day(-2), day(-3), day(-9)];
    let reason = "header is wrong".to_owned();
    let damage = SegmentDamage::unknown(reason);
    let kind = ErrorKind::Corrupt;
    view.damage[0] = vec![FileDamage { file: "f".into(), range: day(3), damage, kind }];
    let snapshot = Snapshot::new(view);
    let stamp = |micros: i64| Timestamp::from_micros(micros).unwrap();
    let wide = Filter::new().between(stamp(day(-4).start), stamp(START + MICROS_PER_HOUR));
    let page = snapshot.task_metrics(&wide).unwrap();
    let coverage = &page.coverage;
    assert_eq!(coverage.detail.len(), 1);
    assert_eq!(coverage.detail[0].to, stamp(START + MICROS_PER_HOUR));
    assert_eq!((coverage.gone.len(), coverage.damaged.len()), (1, 0));
    assert_eq!(coverage.gone[0].from, stamp(day(-3).start));
    let strict = Filter { strict: true, ..wide.clone() };
    assert_eq!(snapshot.task_metrics(&strict).unwrap_err().kind(), ErrorKind::Incomplete);
    // Expired rows are no damage: a figure of what is left is whole.
    assert!(snapshot.average(Table::Task, "duration_ms", &wide).is_ok());
    let later = Filter { from: Some(stamp(START)), ..Filter::new() };
    let error = snapshot.average(Table::Task, "duration_ms", &later).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("header is wrong"), "{error}");
    assert_eq!(snapshot.task_metrics(&later).unwrap().coverage.damaged.len(), 1);
    // Damage is told before expiry, whatever else is missing.
    let strict = Filter { strict: true, ..later };
    assert_eq!(snapshot.task_metrics(&strict).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_empty_store_answers() {
    let model = ReferenceModel::new();
    let snapshot = Snapshot::new(View::default());
    for table in Table::ALL {
        model.check(&snapshot, table, &Filter::new());
    }
    let summary = snapshot.summary_stats(Percentile::Exact, &Filter::new()).unwrap().value;
    assert_eq!((summary.total_tasks, summary.success_rate), (0, None));
    assert_eq!(summary.total_tokens_used, answer::Value::Int(0));
}

#[test]
fn whole_blocks_are_handed_out_as_read() {
    let (rows, segment) = sealed_day(1000);
    let snapshot = Snapshot::new(one(segment));
    let names = ["duration_ms", "agent_id", "duration_ms"];
    let mut columns = snapshot.columns(Table::Task, &Filter::new(), Some(&names)).unwrap();
    assert!(columns.coverage().is_none());
    assert_eq!(columns.schema().map(|column| column.name).collect::<Vec<_>>(), names);
    let mut count = 0;
    for block in columns.by_ref() {
        let block = block.unwrap();
        for row in block.rows() {
            assert_eq!(row.int(0), row.int(2));
            assert!(row.text(1).is_some() && row.float(0).is_none() && row.bool(1).is_none());
        }
        count += block.len();
    }
    assert_eq!(count, rows.len());
    assert_eq!(columns.coverage().unwrap().detail.len(), 1);
    assert_eq!(columns.plan().unwrap().blocks_scanned.count, 3);
}

#[test]
fn a_block_of_views_outlives_its_iterator() {
    let (rows, segment) = sealed_day(1000);
    let snapshot = Snapshot::new(one(segment));
    let names = ["duration_ms", "task_id", "duration_ms"];
    let views = snapshot.views(Table::Task, &Filter::new(), Some(&names)).unwrap();
    assert_eq!(views.schema().map(|column| column.name).collect::<Vec<_>>(), names);
    let blocks: Vec<_> = views.map(Result::unwrap).collect();
    drop(snapshot);
    let mut count = 0;
    for block in &blocks {
        assert_eq!(block.columns().len(), 3);
        let [first, ids, again] = [0, 1, 2].map(|column| block.column(column));
        assert_eq!(first.ints().unwrap().sum(), again.ints().unwrap().sum());
        let ViewValues::Text(ids) = ids.values else { panic!("ids are text") };
        assert_eq!(ids.text_bytes(), 10 * block.len() as u64);
        count += block.len();
    }
    assert_eq!(count, rows.len());
}
