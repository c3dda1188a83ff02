//! What a store should answer: all rows in a plain `Vec`, and every method written the
//! slow and obvious way.
//!
//! Shares nothing with the engine but the types of rows and answers. It knows no
//! segments, no damage and no cursors; `check` compares all methods of a snapshot with it.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::export::{ExportFormat, ExportRequest};
use crate::query::answer::{
    AgentSummary, Aggregate, Average, Bucket, KeyAggregate, Last, Quantile, SlowTask, Summary,
    Value,
};
use crate::query::filter::{Aggregation, Filter, Limit, Order, Percentile, TopBy};
use crate::row::{AgentRow, Row, SwarmRow, TaskRow};
use crate::schema::Table;
use crate::snapshot::Snapshot;
use crate::time::{Interval, Timestamp};

/// All rows that were accepted.
#[derive(Clone, Debug, Default)]
pub struct ReferenceModel {
    rows: Vec<Row>,
}

/// A number of a row.
#[derive(Clone, Copy, Debug)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            _ => unreachable!("a field has one type"),
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
        }
    }
}

impl FromIterator<Row> for ReferenceModel {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        Self { rows: rows.into_iter().collect() }
    }
}

impl ReferenceModel {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Keeps the rows for which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&Row) -> bool) {
        self.rows.retain(keep);
    }

    /// All rows, as they were added.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// All rows of a filter in the order of pages, whatever its limit and offset.
    pub fn matching(&self, table: Table, filter: &Filter) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.rows.iter().filter(|row| matches(row, table, filter)).cloned().collect();
        rows.sort_by_cached_key(|row| Reverse(page_key(row)));
        rows
    }

    /// `Snapshot::metrics`.
    pub fn metrics(&self, table: Table, filter: &Filter) -> Vec<Row> {
        part(self.matching(table, filter), filter, Some(1_000))
    }

    /// `Snapshot::task_metrics`.
    pub fn task_metrics(&self, filter: &Filter) -> Vec<TaskRow> {
        let rows = self.metrics(Table::Task, filter).into_iter();
        rows.filter_map(|row| if let Row::Task(row) = row { Some(row) } else { None }).collect()
    }

    /// `Snapshot::agent_metrics`.
    pub fn agent_metrics(&self, filter: &Filter) -> Vec<AgentRow> {
        let rows = self.metrics(Table::Agent, filter).into_iter();
        rows.filter_map(|row| if let Row::Agent(row) = row { Some(row) } else { None }).collect()
    }

    /// `Snapshot::swarm_metrics`.
    pub fn swarm_metrics(&self, filter: &Filter) -> Vec<SwarmRow> {
        let rows = self.metrics(Table::Swarm, filter).into_iter();
        rows.filter_map(|row| if let Row::Swarm(row) = row { Some(row) } else { None }).collect()
    }

    /// `Snapshot::aggregate_by_time`.
    pub fn aggregate_by_time(
        &self,
        table: Table,
        field: &str,
        interval: Interval,
        aggregation: Aggregation,
        filter: &Filter,
    ) -> Vec<Bucket> {
        let mut buckets: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
        for row in self.matching(table, filter) {
            let start = interval.bucket_start(row.timestamp().as_micros());
            buckets.entry(start).or_default().push(row);
        }
        let bucket = |(start, rows): (i64, Vec<Row>)| Bucket {
            time_bucket: Timestamp::clamped(start),
            value: bucket_value(&rows, field, aggregation),
            count: rows.len() as u64,
            rank_error: 0.0,
        };
        part(buckets.into_iter().map(bucket).collect(), filter, None)
    }

    /// `Snapshot::percentiles`, exact.
    pub fn percentiles(
        &self,
        table: Table,
        field: &str,
        shares: &[f64],
        filter: &Filter,
    ) -> Vec<Quantile> {
        let values = ascending(&self.matching(table, filter), field);
        let quantile = |share: &f64| Quantile {
            value: at_share(&values, *share),
            exact: true,
            rank_error: 0.0,
            count: values.len() as u64,
        };
        shares.iter().map(quantile).collect()
    }

    /// `Snapshot::percentile`, exact.
    pub fn percentile(&self, table: Table, field: &str, share: f64, filter: &Filter) -> Quantile {
        self.percentiles(table, field, &[share], filter).remove(0)
    }

    /// `Snapshot::average`.
    pub fn average(&self, table: Table, field: &str, filter: &Filter) -> Average {
        let values = ascending(&self.matching(table, filter), field);
        Average { value: mean(&values), exact: true, rank_error: 0.0, count: values.len() as u64 }
    }

    /// `Snapshot::top_agents`.
    pub fn top_agents(&self, by: TopBy, order: Order, filter: &Filter) -> Vec<AgentSummary> {
        let mut agents: Vec<AgentSummary> = self
            .by_key(Table::Task, "agent_id", filter)
            .into_iter()
            .map(|(agent_id, rows)| {
                let succeeded = rows.iter().filter(|row| succeeded(row)).count();
                AgentSummary {
                    agent_id,
                    task_count: rows.len() as u64,
                    avg_duration_ms: mean(&ascending(&rows, "duration_ms")),
                    avg_tokens_used: mean(&ascending(&rows, "tokens_used")),
                    success_rate: succeeded as f64 / rows.len() as f64,
                }
            })
            .collect();
        let figure = |agent: &AgentSummary| match by {
            TopBy::TaskCount => Some(agent.task_count as f64),
            TopBy::AvgDurationMs => agent.avg_duration_ms,
            TopBy::AvgTokensUsed => agent.avg_tokens_used,
            TopBy::SuccessRate => Some(agent.success_rate),
        };
        // They are by name already, and the sort is stable.
        agents.sort_by(|a, b| match (figure(a), figure(b)) {
            (Some(a), Some(b)) if order == Order::Ascending => a.total_cmp(&b),
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        part(agents, filter, Some(10))
    }

    /// `Snapshot::slowest_tasks`.
    pub fn slowest_tasks(&self, filter: &Filter) -> Vec<SlowTask> {
        let rows = self.matching(Table::Task, filter).into_iter();
        let mut tasks: Vec<SlowTask> = rows
            .filter_map(|row| match row {
                Row::Task(row) => Some(SlowTask {
                    task_id: row.task_id,
                    agent_id: row.agent_id,
                    duration_ms: row.duration_ms?,
                    tokens_used: row.tokens_used,
                    success: row.success,
                    timestamp: row.timestamp,
                }),
                _ => None,
            })
            .collect();
        tasks.sort_by_key(|task| Reverse(task.duration_ms));
        part(tasks, filter, Some(10))
    }

    /// `Snapshot::summary_stats`, exact.
    pub fn summary_stats(&self, filter: &Filter) -> Summary {
        let rows = self.matching(Table::Task, filter);
        let durations = ascending(&rows, "duration_ms");
        let tokens = ascending(&rows, "tokens_used");
        let successful = rows.iter().filter(|row| succeeded(row)).count();
        Summary {
            total_tasks: rows.len() as u64,
            successful_tasks: successful as u64,
            success_rate: (!rows.is_empty()).then(|| successful as f64 / rows.len() as f64),
            avg_duration_ms: mean(&durations),
            p95_duration_ms: at_share(&durations, 0.95),
            p99_duration_ms: at_share(&durations, 0.99),
            avg_tokens_per_task: mean(&tokens),
            total_tokens_used: sum(&tokens, true),
            unique_agents: self.by_key(Table::Task, "agent_id", filter).len() as u64,
            rank_error: 0.0,
        }
    }

    /// `Snapshot::aggregate`.
    pub fn aggregate(&self, table: Table, field: &str, filter: &Filter) -> Aggregate {
        aggregate(table, field, &self.matching(table, filter))
    }

    /// `Snapshot::aggregate_by_key`.
    pub fn aggregate_by_key(
        &self,
        table: Table,
        field: &str,
        key: &str,
        filter: &Filter,
    ) -> Vec<KeyAggregate> {
        let keys = self
            .by_key(table, key, filter)
            .into_iter()
            .map(|(key, rows)| KeyAggregate { key, aggregate: aggregate(table, field, &rows) });
        part(keys.collect(), filter, None)
    }

    fn by_key(&self, table: Table, key: &str, filter: &Filter) -> BTreeMap<String, Vec<Row>> {
        let mut keys: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in self.matching(table, filter) {
            keys.entry(text(&row, key).unwrap_or_default().to_owned()).or_default().push(row);
        }
        keys
    }

    /// Compares all methods of a snapshot with this model, estimates included.
    ///
    /// # Panics
    ///
    /// Where an answer differs.
    pub fn check(&self, snapshot: &Snapshot, table: Table, filter: &Filter) {
        let context = format!("{table} {filter:?}");
        assert_eq!(
            snapshot.metrics(table, filter).expect("metrics").rows,
            self.metrics(table, filter),
            "metrics of {context}"
        );
        self.check_pages(snapshot, table, filter);
        self.check_columns(snapshot, table, filter);
        self.check_export(snapshot, table, filter);
        let scalar = Filter { limit: Limit::Default, offset: 0, cursor: None, ..filter.clone() };
        for field in fields(table) {
            self.check_field(snapshot, table, field, &scalar);
            self.check_series(snapshot, table, field, filter);
            for key in keys(table) {
                let got =
                    snapshot.aggregate_by_key(table, field, key, filter).expect("by key").rows;
                let expected = self.aggregate_by_key(table, field, key, filter);
                assert_eq!(got.len(), expected.len(), "{key}s of {context}");
                for (got, expected) in got.iter().zip(&expected) {
                    assert_eq!(got.key, expected.key, "{key}s of {context}");
                    same_aggregate(&got.aggregate, &expected.aggregate, &context);
                }
            }
        }
        if table == Table::Task {
            self.check_tasks(snapshot, filter, &scalar);
        }
    }

    /// Goes through all rows by cursor and by offset, in small pages.
    fn check_pages(&self, snapshot: &Snapshot, table: Table, filter: &Filter) {
        let all = self.matching(table, filter);
        let base = Filter { offset: 0, cursor: None, ..filter.clone() };
        for size in [1 + all.len() / 7, 2 + all.len() / 2] {
            let (mut by_cursor, mut by_offset) = (Vec::new(), Vec::new());
            let mut cursor = None;
            loop {
                let asked = base.clone().limit(size).offset(by_offset.len());
                by_offset.extend(snapshot.metrics(table, &asked).expect("page").rows);
                let asked = Filter { cursor: cursor.take(), ..base.clone().limit(size) };
                let page = snapshot.metrics(table, &asked).expect("page");
                by_cursor.extend(page.rows);
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(by_cursor, all, "pages by cursor of {table} {filter:?}");
            assert_eq!(by_offset, all, "pages by offset of {table} {filter:?}");
        }
    }

    /// Reads whole columns, which come in no order.
    fn check_columns(&self, snapshot: &Snapshot, table: Table, filter: &Filter) {
        let base = Filter { limit: Limit::All, offset: 0, cursor: None, ..filter.clone() };
        check_views(snapshot, table, filter);
        check_views(snapshot, table, &base);
        let columns = snapshot.columns(table, &base, None).expect("columns");
        let rows: Result<Vec<Row>, _> = columns.into_rows().expect("rows").collect();
        let mut rows = rows.expect("blocks");
        rows.sort_by_cached_key(|row| Reverse(page_key(row)));
        assert_eq!(rows, self.matching(table, filter), "columns of {table} {filter:?}");
        let blocks = snapshot.columns(table, filter, Some(&["timestamp"])).expect("columns");
        let count: usize = blocks.map(|block| block.expect("block").len()).sum();
        let limit = if filter.limit == Limit::Default { Limit::All } else { filter.limit };
        let expected = part(rows, &Filter { limit, ..filter.clone() }, None).len();
        assert_eq!(count, expected, "columns of {table} {filter:?}");
    }

    /// Rows as JSON lines: each as `serde_json` writes it, in the order of time, and those of
    /// the same time by their ids.
    fn check_export(&self, snapshot: &Snapshot, table: Table, filter: &Filter) {
        let mut request = ExportRequest::new(ExportFormat::Jsonl);
        request.tables = vec![table];
        request.filter = Filter { limit: Limit::All, offset: 0, cursor: None, ..filter.clone() };
        let oldest_first = exported(snapshot, &request);
        request.newest_first = true;
        let mut newest_first = exported(snapshot, &request);
        newest_first.reverse();
        assert_eq!(oldest_first, newest_first, "both orders of {table} {filter:?}");
        let mut matching = self.matching(table, filter);
        matching.reverse();
        assert_eq!(oldest_first.len(), matching.len(), "export of {table} {filter:?}");
        let mut lines = oldest_first.iter();
        for rows in matching.chunk_by(|a, b| key_of_ids(a) == key_of_ids(b)) {
            let line = |row: &Row| {
                let row = with_quoted_metadata(row.clone());
                serde_json::to_string(&row).expect("a row is JSON")
            };
            let mut expected: Vec<String> =
                rows.iter().map(|row| line(row).replace(['\r', '\n'], " ")).collect();
            let mut got: Vec<&String> = lines.by_ref().take(rows.len()).collect();
            // What else decides is a hash, which no reader knows.
            expected.sort_unstable();
            got.sort_unstable();
            assert_eq!(got, expected.iter().collect::<Vec<_>>(), "{table} {filter:?}");
        }
    }

    fn check_field(&self, snapshot: &Snapshot, table: Table, field: &str, filter: &Filter) {
        let context = format!("{field} of {table} {filter:?}");
        let got = snapshot.aggregate(table, field, filter).expect("aggregate").value;
        same_aggregate(&got, &self.aggregate(table, field, filter), &context);
        let got = snapshot.average(table, field, filter).expect("average").value;
        let expected = self.average(table, field, filter);
        let values = ascending(&self.matching(table, filter), field);
        assert!(close(got.value, expected.value, magnitude(&values)), "average of {context}");
        assert_eq!(got.count, expected.count, "average of {context}");
        let shares = [0.0, 0.25, 0.5, 0.95, 0.99, 1.0, 0.5];
        let exact = snapshot.percentiles(table, field, &shares, Percentile::Exact, filter);
        let expected = self.percentiles(table, field, &shares, filter);
        assert_eq!(bits_of(&exact.expect("exact").value), bits_of(&expected), "{context}");
        let one = snapshot.percentile(table, field, 0.95, Percentile::Exact, filter);
        assert_eq!(one.expect("percentile").value, expected[3], "{context}");
        let estimates = snapshot.percentiles(table, field, &shares, Percentile::Estimate, filter);
        for (share, got) in shares.iter().zip(estimates.expect("estimates").value) {
            check_estimate(&values, *share, &got, &context);
        }
    }

    fn check_series(&self, snapshot: &Snapshot, table: Table, field: &str, filter: &Filter) {
        let intervals = [
            Interval::Minute,
            Interval::Hour,
            Interval::Day,
            Interval::Week,
            Interval::Month,
            Interval::Fixed(7 * 60 * 1_000_000),
            Interval::Fixed(3 * 3_600 * 1_000_000),
        ];
        let aggregations = [
            Aggregation::Avg,
            Aggregation::Sum,
            Aggregation::Count,
            Aggregation::Min,
            Aggregation::Max,
            Aggregation::Percentile(0.9),
        ];
        // Every interval and every aggregation, not every pair of them.
        for step in 0..intervals.len() * 2 {
            let interval = intervals[step % intervals.len()];
            let aggregation = aggregations[(step * 5 + step / 7) % aggregations.len()];
            let got = snapshot.aggregate_by_time(table, field, interval, aggregation, filter);
            let got = got.expect("series").rows;
            let expected = self.aggregate_by_time(table, field, interval, aggregation, filter);
            let context = format!("{interval:?} {aggregation:?} {field} of {table} {filter:?}");
            assert_eq!(got.len(), expected.len(), "{context}");
            let scale = magnitude(&ascending(&self.matching(table, filter), field));
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!(
                    (got.time_bucket, got.count),
                    (expected.time_bucket, expected.count),
                    "{context}"
                );
                same_value(got.value, expected.value, scale, &context);
            }
        }
    }

    fn check_tasks(&self, snapshot: &Snapshot, filter: &Filter, scalar: &Filter) {
        let context = format!("{filter:?}");
        let all = filter.clone().all();
        for filter in [filter, &all] {
            assert_eq!(
                snapshot.slowest_tasks(filter).expect("slowest").rows,
                self.slowest_tasks(filter),
                "slowest of {context}"
            );
        }
        for by in [TopBy::TaskCount, TopBy::AvgDurationMs, TopBy::AvgTokensUsed, TopBy::SuccessRate]
        {
            for order in [Order::Ascending, Order::Descending] {
                let got = snapshot.top_agents(by, order, filter).expect("top agents").rows;
                let expected = self.top_agents(by, order, filter);
                assert_eq!(got, expected, "top agents by {by:?} {order:?} of {context}");
            }
        }
        let got = snapshot.summary_stats(Percentile::Exact, scalar).expect("summary").value;
        assert_eq!(got, self.summary_stats(scalar), "summary of {context}");
        let estimate = snapshot.summary_stats(Percentile::Estimate, scalar).expect("summary").value;
        let without = |summary: Summary| Summary {
            p95_duration_ms: None,
            p99_duration_ms: None,
            rank_error: 0.0,
            ..summary
        };
        assert_eq!(without(estimate), without(got), "summary of {context}");
    }
}

fn fields(table: Table) -> &'static [&'static str] {
    match table {
        Table::Task => &["duration_ms", "tokens_used"],
        Table::Agent | Table::Swarm => &["value"],
    }
}

fn keys(table: Table) -> &'static [&'static str] {
    match table {
        Table::Task => &["agent_id"],
        Table::Agent => &["agent_id", "metric_type"],
        Table::Swarm => &["swarm_id", "metric_type"],
    }
}

fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    match (row, column) {
        (Row::Task(row), "task_id") => Some(&row.task_id),
        (Row::Task(row), "agent_id") => Some(&row.agent_id),
        (Row::Agent(row), "agent_id") => Some(&row.agent_id),
        (Row::Agent(row), "metric_type") => Some(&row.metric_type),
        (Row::Swarm(row), "swarm_id") => Some(&row.swarm_id),
        (Row::Swarm(row), "metric_type") => Some(&row.metric_type),
        _ => None,
    }
}

fn succeeded(row: &Row) -> bool {
    matches!(row, Row::Task(row) if row.success)
}

fn number(row: &Row, field: &str) -> Option<Number> {
    match (row, field) {
        (Row::Task(row), "duration_ms") => row.duration_ms.map(Number::Int),
        (Row::Task(row), "tokens_used") => row.tokens_used.map(Number::Int),
        (Row::Agent(row), _) => Some(Number::Float(row.value)),
        (Row::Swarm(row), _) => Some(Number::Float(row.value)),
        _ => None,
    }
}

fn matches(row: &Row, table: Table, filter: &Filter) -> bool {
    let of_table = matches!(
        (row, table),
        (Row::Task(_), Table::Task) | (Row::Agent(_), Table::Agent) | (Row::Swarm(_), Table::Swarm)
    );
    let same = |column: &str, asked: &Option<String>| {
        asked.as_deref().is_none_or(|asked| text(row, column) == Some(asked))
    };
    of_table
        && filter.from.is_none_or(|from| from <= row.timestamp())
        && filter.to.is_none_or(|to| row.timestamp() < to)
        && same("task_id", &filter.task_id)
        && same("agent_id", &filter.agent_id)
        && same("swarm_id", &filter.swarm_id)
        && same("metric_type", &filter.metric_type)
        && filter.success.is_none_or(|success| succeeded(row) == success)
}

/// Ascending by this, rows are in the reverse order of pages.
fn page_key(row: &Row) -> (Timestamp, String, String, u128, Vec<u8>) {
    fn int(bytes: &mut Vec<u8>, value: Option<i64>) {
        bytes.push(u8::from(value.is_some()));
        bytes.extend(value.iter().flat_map(|value| value.to_le_bytes()));
    }
    fn json(bytes: &mut Vec<u8>, value: Option<&String>) {
        bytes.push(u8::from(value.is_some()));
        if let Some(value) = value {
            bytes.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
            bytes.extend(value.as_bytes());
        }
    }
    let mut bytes = Vec::new();
    let (first, second) = match row {
        Row::Task(row) => {
            int(&mut bytes, row.duration_ms);
            int(&mut bytes, row.tokens_used);
            bytes.extend([1, u8::from(row.success)]);
            json(&mut bytes, row.metadata.as_ref());
            (&row.task_id, &row.agent_id)
        }
        Row::Agent(row) => {
            int(&mut bytes, Some(row.value.to_bits().cast_signed()));
            json(&mut bytes, row.metadata.as_ref());
            (&row.agent_id, &row.metric_type)
        }
        Row::Swarm(row) => {
            int(&mut bytes, Some(row.value.to_bits().cast_signed()));
            json(&mut bytes, row.metadata.as_ref());
            (&row.swarm_id, &row.metric_type)
        }
    };
    (row.timestamp(), first.clone(), second.clone(), xxh3_128(&bytes), bytes)
}

fn part<T>(list: Vec<T>, filter: &Filter, default: Option<usize>) -> Vec<T> {
    let limit = match filter.limit {
        Limit::Default => default.unwrap_or(usize::MAX),
        Limit::Rows(rows) => rows,
        Limit::All => usize::MAX,
    };
    list.into_iter().skip(filter.offset).take(limit).collect()
}

/// The values that are not null, ascending.
fn ascending(rows: &[Row], field: &str) -> Vec<Number> {
    let mut values: Vec<Number> = rows.iter().filter_map(|row| number(row, field)).collect();
    values.sort_by(|a, b| a.compare(*b));
    values
}

fn at_share(ascending: &[Number], share: f64) -> Option<Value> {
    (!ascending.is_empty()).then(|| ascending[rank(ascending.len(), share)].value())
}

#[expect(clippy::cast_possible_truncation, reason = "truncation is the definition")]
fn rank(count: usize, share: f64) -> usize {
    ((count as f64 * share) as usize).min(count - 1)
}

fn sum(values: &[Number], of_ints: bool) -> Value {
    if of_ints {
        let sum: i128 = values
            .iter()
            .map(|value| if let Number::Int(value) = value { i128::from(*value) } else { 0 })
            .sum();
        return i64::try_from(sum).map_or(Value::Wide(sum), Value::Int);
    }
    Value::Float(float_sum(values))
}

/// Neumaier's sum, of values scaled down where a partial sum might overflow.
fn float_sum(values: &[Number]) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    let is_large = values.iter().any(|value| to_f64(*value).abs() > 1e290);
    let scale = if is_large { 65_536.0 } else { 1.0 };
    for value in values {
        let value = to_f64(*value) / scale;
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    ((sum + lost) * scale).clamp(f64::MIN, f64::MAX)
}

fn to_f64(value: Number) -> f64 {
    match value {
        Number::Int(value) => value as f64,
        Number::Float(value) => value,
    }
}

fn magnitude(values: &[Number]) -> f64 {
    values.iter().map(|value| to_f64(*value).abs() / 65_536.0).sum::<f64>() * 65_536.0
}

/// The mean, of integers rounded once.
fn mean(values: &[Number]) -> Option<f64> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    if !matches!(values[0], Number::Int(_)) {
        return Some(float_sum(values) / count as f64);
    }
    let sum = match sum(values, true) {
        Value::Int(sum) => i128::from(sum),
        Value::Wide(sum) => sum,
        Value::Float(_) => unreachable!("integers"),
    };
    // Whole quotient and remainder in units of 2^-60 of one, then one rounding.
    let (count, magnitude) = (count as i128, sum.abs());
    let whole = magnitude / count;
    let mean = if whole >= 1 << 60 {
        // The last bit of so large a number is far above one half.
        ((whole << 1) | i128::from(magnitude % count != 0)) as f64 / 2.0
    } else {
        let fraction = ((magnitude % count) << 60) / count;
        let sticky = i128::from(((magnitude % count) << 60) % count != 0);
        (((whole << 60 | fraction) << 1) | sticky) as f64 / 2f64.powi(61)
    };
    Some(if sum < 0 { -mean } else { mean })
}

fn bucket_value(rows: &[Row], field: &str, aggregation: Aggregation) -> Option<Value> {
    let values = ascending(rows, field);
    let of_ints = matches!(rows.first(), Some(Row::Task(_)));
    match aggregation {
        Aggregation::Count => Some(Value::Int(values.len() as i64)),
        _ if values.is_empty() => None,
        Aggregation::Avg => mean(&values).map(Value::Float),
        Aggregation::Sum => Some(sum(&values, of_ints)),
        Aggregation::Min => values.first().map(|value| value.value()),
        Aggregation::Max => values.last().map(|value| value.value()),
        Aggregation::Percentile(share) => at_share(&values, share),
    }
}

fn aggregate(table: Table, field: &str, rows: &[Row]) -> Aggregate {
    let values = ascending(rows, field);
    let newest = rows
        .iter()
        .filter_map(|row| Some((row.timestamp(), number(row, field)?)))
        .max_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.compare(b.1)));
    Aggregate {
        rows: rows.len() as u64,
        count: values.len() as u64,
        nulls: (rows.len() - values.len()) as u64,
        sum: sum(&values, table == Table::Task),
        min: values.first().map(|value| value.value()),
        max: values.last().map(|value| value.value()),
        avg: mean(&values),
        last: newest.map(|(timestamp, value)| Last { timestamp, value: value.value() }),
    }
}

/// An estimate is right if some rank within its bound has a value on its other side.
fn check_estimate(values: &[Number], share: f64, got: &Quantile, context: &str) {
    assert_eq!(got.count, values.len() as u64, "estimate of {context}");
    let Some(value) = got.value else {
        assert!(values.is_empty(), "estimate of {context}");
        return;
    };
    if got.exact {
        assert_eq!(got.rank_error, 0.0, "estimate of {context}");
        assert_eq!(Some(value.as_f64()), at_share(values, share).map(Value::as_f64), "{context}");
        return;
    }
    let rank = rank(values.len(), share) as f64;
    // Compared as floats: that is what digests hold.
    let below = values.iter().filter(|other| to_f64(**other) < value.as_f64()).count() as f64;
    let upto = values.iter().filter(|other| to_f64(**other) <= value.as_f64()).count() as f64;
    let distance = (below - rank).max(rank + 1.0 - upto).max(0.0) / values.len() as f64;
    assert!(
        distance <= got.rank_error + 1e-9,
        "estimate {value:?} at {share} of {context}: off by {distance}, stated {}",
        got.rank_error
    );
}

fn bits_of(quantiles: &[Quantile]) -> Vec<(Option<(bool, u64)>, u64)> {
    let bits = |value: Value| match value {
        Value::Float(value) => (true, value.to_bits()),
        other => (false, other.as_f64().to_bits()),
    };
    quantiles.iter().map(|quantile| (quantile.value.map(bits), quantile.count)).collect()
}

/// Equal up to what the order of float additions may change.
fn close(a: Option<f64>, b: Option<f64>, magnitude: f64) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= 1e-12 * magnitude,
        (a, b) => a == b,
    }
}

fn same_value(got: Option<Value>, expected: Option<Value>, magnitude: f64, context: &str) {
    match (got, expected) {
        (Some(Value::Float(got)), Some(Value::Float(expected))) => {
            assert!(close(Some(got), Some(expected), magnitude), "{got} {expected} {context}");
        }
        _ => assert_eq!(got, expected, "{context}"),
    }
}

/// What decides the order of rows before their other columns do.
fn key_of_ids(row: &Row) -> (Timestamp, &str, &str) {
    match row {
        Row::Task(row) => (row.timestamp, &row.task_id, &row.agent_id),
        Row::Agent(row) => (row.timestamp, &row.agent_id, &row.metric_type),
        Row::Swarm(row) => (row.timestamp, &row.swarm_id, &row.metric_type),
    }
}

/// The row as it is exported: metadata that is a string of JSON is in a string once more.
fn with_quoted_metadata(mut row: Row) -> Row {
    let metadata = match &mut row {
        Row::Task(row) => &mut row.metadata,
        Row::Agent(row) => &mut row.metadata,
        Row::Swarm(row) => &mut row.metadata,
    };
    if let Some(text) = metadata.as_mut().filter(|text| text.trim().starts_with('"')) {
        *text = serde_json::to_string(text.trim()).expect("a string is JSON");
    }
    row
}

/// The lines of an export.
fn exported(snapshot: &Snapshot, request: &ExportRequest) -> Vec<String> {
    let mut text = Vec::new();
    let report = snapshot.export(request, &mut text, &mut |_| {}).expect("export");
    assert_eq!(report.bytes, text.len() as u64);
    let text = String::from_utf8(text).expect("text");
    let lines: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
    assert_eq!(report.rows, lines.len() as u64, "rows are lines");
    lines
}

fn same_aggregate(got: &Aggregate, expected: &Aggregate, context: &str) {
    // The sum of magnitudes is not at hand; the extremes times the count bound it.
    let extreme = |value: Option<Value>| value.map_or(0.0, |value| value.as_f64().abs());
    let largest = extreme(expected.min).max(extreme(expected.max));
    let magnitude = largest * expected.count as f64;
    same_value(Some(got.sum), Some(expected.sum), magnitude, context);
    assert!(close(got.avg, expected.avg, magnitude), "average of {context}");
    let rest =
        |aggregate: &Aggregate| Aggregate { sum: Value::Int(0), avg: None, ..aggregate.clone() };
    assert_eq!(rest(got), rest(expected), "{context}");
}

/// Compares views with owned columns: blocks, rows, errors and what both rest on.
///
/// # Panics
///
/// When they differ.
pub fn check_views(snapshot: &Snapshot, table: Table, filter: &Filter) {
    let filter = Filter { cursor: None, ..filter.clone() };
    let mut columns = snapshot.columns(table, &filter, None).expect("columns");
    let mut views = snapshot.views(table, &filter, None).expect("views");
    loop {
        let (block, views) = match (columns.next(), views.next()) {
            (None, None) => break,
            (Some(Ok(columns)), Some(Ok(views))) => (columns, views),
            (Some(Err(columns)), Some(Err(views))) => {
                assert_eq!((columns.kind(), columns.message()), (views.kind(), views.message()));
                continue;
            }
            (columns, views) => panic!("{columns:?} and {views:?} of {table} {filter:?}"),
        };
        assert_eq!(block.len(), views.len(), "views of {table} {filter:?}");
        for (column, view) in block.columns.iter().zip(views.columns()) {
            assert_eq!((view.len(), view.null_count()), (column.len(), column.null_count()));
            for row in 0..column.len() {
                assert_eq!((view.int(row), view.bool(row)), (column.int(row), column.bool(row)));
                assert_eq!(view.float(row).map(f64::to_bits), column.float(row).map(f64::to_bits));
                assert_eq!(view.text(row).expect("text").as_deref(), column.text(row));
            }
        }
    }
    assert_eq!(columns.coverage(), views.coverage(), "views of {table} {filter:?}");
    assert_eq!(columns.plan(), views.plan(), "views of {table} {filter:?}");
}
