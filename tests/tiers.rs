//! Rows that age: archives answer like the rows they hold, rollups like the rows they stand
//! for wherever a cell lies wholly inside the range, and what they cannot say is named.
//!
//! A store is aged by its clock; each answer is compared with one computed from all rows
//! ever accepted, less those that the answer's own coverage calls unanswerable or gone.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::cast_possible_truncation, reason = "truncation is the definition of a rank")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tallystone::export::{ExportFormat, ExportRequest};
use tallystone::testing::model::ReferenceModel;
use tallystone::testing::workload::Random;
use tallystone::testing::{SimFileSystem, open_store};
use tallystone::time::{Clock, MICROS_PER_DAY, MICROS_PER_HOUR, SystemClock};
use tallystone::{
    AgentMetric, AgentRow, Aggregation, Coverage, ErrorKind, Filter, Interval, MaintenanceRequest,
    MaintenanceWork, Options, Order, Percentile, Quantile, Retention, Row, Snapshot, Store,
    SwarmMetric, SwarmRow, Table, TableRetention, TaskMetric, TaskRow, Tiers, Timestamp, TopBy,
    Value,
};

/// 2026-11-16, a Monday.
const START: i64 = 1_794_787_200_000_000;

/// A clock that is set.
#[derive(Debug)]
struct Hand(AtomicI64);

impl Hand {
    fn set_day(&self, day: i64) {
        self.0.store(START + day * MICROS_PER_DAY, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[usize::try_from(random.below(from.len() as u64)).unwrap()]
}

fn table_of(row: &Row) -> Table {
    match row {
        Row::Task(_) => Table::Task,
        Row::Agent(_) => Table::Agent,
        Row::Swarm(_) => Table::Swarm,
    }
}

fn day_of(row: &Row) -> i64 {
    (row.timestamp().as_micros() - START).div_euclid(MICROS_PER_DAY)
}

fn random_row(random: &mut Random, day: i64) -> Row {
    // Few moments and few keys, so that cells have many rows.
    let hour = random.below(24) as i64;
    let within = *pick(random, &[0, 1, MICROS_PER_HOUR / 2, MICROS_PER_HOUR - 1]);
    let stamp = START + day * MICROS_PER_DAY + hour * MICROS_PER_HOUR + within;
    let timestamp = Timestamp::from_micros(stamp).unwrap();
    let agent = format!("agent-{}", random.below(5));
    let metric_type = (*pick(random, &["cpu", "latency", "queue"])).to_owned();
    let value = *pick(random, &[0.0, -0.0, 0.5, 1e-3]) + random.below(100) as f64 / 4.0;
    match random.below(3) {
        0 => Row::Task(TaskRow {
            timestamp,
            task_id: format!("task_{:04}", random.below(400)),
            agent_id: agent,
            duration_ms: random.chance(0.9).then(|| random.below(2_000) as i64 - 100),
            tokens_used: random.chance(0.7).then(|| random.below(50) as i64),
            success: random.chance(0.8),
            metadata: random.chance(0.1).then(|| "{\"k\":1}".to_owned()),
        }),
        1 => {
            Row::Agent(AgentRow { timestamp, agent_id: agent, metric_type, value, metadata: None })
        }
        _ => Row::Swarm(SwarmRow {
            timestamp,
            swarm_id: agent.replace("agent", "swarm"),
            metric_type,
            value,
            metadata: None,
        }),
    }
}

fn record(store: &Store, row: &Row) {
    match row {
        Row::Task(row) => store.record_task(&TaskMetric {
            timestamp: row.timestamp,
            task_id: &row.task_id,
            agent_id: &row.agent_id,
            duration_ms: row.duration_ms,
            tokens_used: row.tokens_used,
            success: row.success,
            metadata: row.metadata.as_deref(),
        }),
        Row::Agent(row) => store.record_agent(&AgentMetric {
            timestamp: row.timestamp,
            agent_id: &row.agent_id,
            metric_type: &row.metric_type,
            value: row.value,
            metadata: None,
        }),
        Row::Swarm(row) => store.record_swarm(&SwarmMetric {
            timestamp: row.timestamp,
            swarm_id: &row.swarm_id,
            metric_type: &row.metric_type,
            value: row.value,
            metadata: None,
        }),
    }
    .unwrap();
}

/// A store and what was ever accepted by it.
struct Aged {
    fs: SimFileSystem,
    clock: Arc<Hand>,
    options: Options,
    store: Option<Store>,
    rows: Vec<Row>,
    /// Days of tables of which rows have been rolled up, and how many of the rows had come.
    rolled: BTreeMap<(&'static str, i64), usize>,
    gone: BTreeSet<(&'static str, i64)>,
}

const TIERS: Tiers = Tiers { detailed_days: 2, archive_days: 4, hourly_days: 7, daily_days: 40 };

impl Aged {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let clock = Arc::new(Hand(AtomicI64::new(START)));
        let options = Options {
            roll_rows: *pick(&mut random, &[60, 4 << 20]),
            block_rows: *pick(&mut random, &[16, 64 << 10]),
            small_hour_rows: 16,
            unlink_grace: Duration::ZERO,
            result_cache: 10,
            maintenance: None,
            clock: Arc::<Hand>::clone(&clock),
            ..Options::default()
        };
        let fs = SimFileSystem::with_seed(seed);
        let store = open_store(&fs, Path::new("/store"), options.clone()).unwrap();
        let rule = TableRetention::Tiers(TIERS);
        let retention = Retention { task: rule, agent: rule, swarm: rule, max_bytes: None };
        store.set_retention(&retention).unwrap();
        Self {
            fs,
            clock,
            options,
            store: Some(store),
            rows: Vec::new(),
            rolled: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn append(&mut self, random: &mut Random, days: std::ops::Range<i64>, count: usize) {
        for _ in 0..count {
            let day = days.start + random.below((days.end - days.start).unsigned_abs()) as i64;
            let row = random_row(random, day);
            record(self.store(), &row);
            self.rows.push(row);
        }
        self.store().commit().unwrap();
    }

    /// Lets the store come to the given day, and notes what must have become of the rows.
    fn age(&mut self, day: i64) {
        self.clock.set_day(day);
        let request =
            MaintenanceRequest { what: MaintenanceWork::All, dry_run: false, accept_clock: true };
        let report = self.store().maintain(&request).unwrap();
        assert_eq!((report.refused, report.postponed.len()), (None, 0));
        for row in &self.rows {
            let age = day - day_of(row) - 1;
            let place = (table_of(row).name(), day_of(row));
            if age >= i64::from(TIERS.daily_days) {
                self.gone.insert(place);
            } else if age >= i64::from(TIERS.archive_days) {
                *self.rolled.entry(place).or_default() = self.rows.len();
            }
        }
    }

    fn reopen(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.store = Some(open_store(&self.fs, Path::new("/store"), self.options.clone()).unwrap());
    }

    fn is_gone(&self, row: &Row) -> bool {
        self.gone.contains(&(table_of(row).name(), day_of(row)))
    }

    fn is_rolled(&self, number: usize, row: &Row) -> bool {
        let place = (table_of(row).name(), day_of(row));
        self.rolled.get(&place).is_some_and(|rows| number < *rows)
    }

    /// The rows that are still there as rows.
    fn detail(&self) -> ReferenceModel {
        let rows = self.rows.iter().enumerate();
        rows.filter(|(number, row)| !self.is_gone(row) && !self.is_rolled(*number, row))
            .map(|(_, row)| row.clone())
            .collect()
    }

    /// The rows that an answer of this coverage rests on.
    fn behind(&self, coverage: &Coverage) -> ReferenceModel {
        assert!(coverage.damaged.is_empty());
        let missed = |row: &Row| {
            let mut spans = coverage.unanswerable.iter();
            spans.any(|span| (span.from..span.to).contains(&row.timestamp()))
        };
        let rows = self.rows.iter().enumerate();
        rows.filter(|(number, row)| {
            !(self.is_gone(row) || self.is_rolled(*number, row) && missed(row))
        })
        .map(|(_, row)| row.clone())
        .collect()
    }
}

fn number(value: Option<Value>) -> Option<f64> {
    value.map(|value| value.as_f64())
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        (a, b) => a == b,
    }
}

/// Asserts that a percentile is as good as it says.
fn check_quantile(rows: &[Row], field: &str, share: f64, got: &Quantile, context: &str) {
    let mut values: Vec<f64> = rows
        .iter()
        .filter_map(|row| match (row, field) {
            (Row::Task(row), "duration_ms") => row.duration_ms.map(|value| value as f64),
            (Row::Task(row), _) => row.tokens_used.map(|value| value as f64),
            (Row::Agent(row), _) => Some(row.value),
            (Row::Swarm(row), _) => Some(row.value),
        })
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    assert_eq!(got.count, values.len() as u64, "{context}");
    let Some(value) = number(got.value) else {
        assert!(values.is_empty(), "{context}");
        return;
    };
    let rank = ((values.len() as f64 * share) as usize).min(values.len() - 1) as f64;
    let before = values.partition_point(|other| *other < value) as f64;
    let upto = values.partition_point(|other| *other <= value) as f64;
    let off = (before - rank).max(rank + 1.0 - upto).max(0.0) / values.len() as f64;
    assert!(off <= got.rank_error + 1e-12, "{off} over {}: {context}", got.rank_error);
    assert_eq!(got.exact, got.rank_error == 0.0, "{context}");
}

fn check(aged: &Aged, snapshot: &Snapshot, table: Table, filter: &Filter) {
    let fields: &[&str] =
        if table == Table::Task { &["duration_ms", "tokens_used"] } else { &["value"] };
    for field in fields {
        let context = format!("{field} of {table} {filter:?}");
        let got = snapshot.aggregate(table, field, filter).unwrap();
        let model = aged.behind(&got.coverage);
        let expected = model.aggregate(table, field, filter);
        let got = got.value;
        assert_eq!(
            (got.rows, got.count, got.nulls, number(got.min), number(got.max)),
            (
                expected.rows,
                expected.count,
                expected.nulls,
                number(expected.min),
                number(expected.max)
            ),
            "{context}"
        );
        assert!(close(got.avg, expected.avg), "{context}");
        assert!(close(Some(got.sum.as_f64()), Some(expected.sum.as_f64())), "{context}");
        if let Some(last) = got.last {
            assert_eq!(Some(last), expected.last, "{context}");
        }
        let average = snapshot.average(table, field, filter).unwrap().value;
        assert!(close(average.value, expected.avg), "{context}");
        let shares = [0.0, 0.5, 0.95, 1.0];
        for how in [Percentile::Exact, Percentile::Estimate] {
            let got = snapshot.percentiles(table, field, &shares, how, filter).unwrap();
            let model = aged.behind(&got.coverage);
            let rows = model.matching(table, filter);
            for (share, got) in shares.iter().zip(&got.value) {
                check_quantile(&rows, field, *share, got, &context);
            }
        }
        check_series(aged, snapshot, table, field, filter);
        let keys: &[&str] = match table {
            Table::Task => &["agent_id"],
            Table::Agent => &["agent_id", "metric_type"],
            Table::Swarm => &["swarm_id", "metric_type"],
        };
        for key in keys {
            let got = snapshot.aggregate_by_key(table, field, key, filter).unwrap();
            let model = aged.behind(&got.coverage);
            let expected = model.aggregate_by_key(table, field, key, filter);
            assert_eq!(got.rows.len(), expected.len(), "{key} {context}");
            for (got, expected) in got.rows.iter().zip(&expected) {
                assert_eq!(got.key, expected.key, "{context}");
                assert_eq!(got.aggregate.rows, expected.aggregate.rows, "{key} {context}");
                assert_eq!(got.aggregate.count, expected.aggregate.count, "{context}");
                assert!(close(got.aggregate.avg, expected.aggregate.avg), "{context}");
            }
        }
    }
    if table == Table::Task {
        let got = snapshot.top_agents(TopBy::TaskCount, Order::Descending, filter).unwrap();
        let expected = aged.behind(&got.coverage);
        let expected = expected.top_agents(TopBy::TaskCount, Order::Descending, filter);
        assert_eq!(got.rows, expected, "top agents {filter:?}");
        let got = snapshot.summary_stats(Percentile::Exact, filter).unwrap();
        let expected = aged.behind(&got.coverage).summary_stats(filter);
        // Of some cells the counts are known, and the percentiles are not.
        let not_kept = Some("filter_not_kept");
        let partly =
            got.coverage.unanswerable.iter().any(|span| span.reason.as_deref() == not_kept);
        let total = aged.rows.len() as u64;
        assert!((expected.total_tasks..=total).contains(&got.value.total_tasks), "{filter:?}");
        let got = if partly { expected.clone() } else { got.value };
        assert_eq!(
            (got.total_tasks, got.successful_tasks, got.unique_agents),
            (expected.total_tasks, expected.successful_tasks, expected.unique_agents),
            "summary {filter:?}"
        );
        let got = snapshot.slowest_tasks(filter).unwrap();
        assert_eq!(got.rows, aged.detail().slowest_tasks(filter), "slowest {filter:?}");
        check_rows_are_gone(aged, table, filter, &got.coverage);
    }
    let got = snapshot.metrics(table, &filter.clone().all()).unwrap();
    assert_eq!(got.rows, aged.detail().matching(table, filter), "rows of {table} {filter:?}");
    check_rows_are_gone(aged, table, filter, &got.coverage);
}

/// Where only rollups are left, a method that needs rows says so, for each row that it lacks.
fn check_rows_are_gone(aged: &Aged, table: Table, filter: &Filter, coverage: &Coverage) {
    let all: ReferenceModel = aged.rows.iter().cloned().collect();
    let there: HashSet<String> =
        aged.detail().matching(table, filter).iter().map(|row| format!("{row:?}")).collect();
    for row in all.matching(table, filter) {
        if there.contains(&format!("{row:?}")) {
            continue;
        }
        let stamp = row.timestamp();
        let lacks = coverage.unanswerable.iter().chain(&coverage.gone);
        let named = lacks.into_iter().any(|span| (span.from..span.to).contains(&stamp));
        assert!(named, "{row:?} is missing without a word: {coverage:?}");
    }
}

fn check_series(aged: &Aged, snapshot: &Snapshot, table: Table, field: &str, filter: &Filter) {
    for interval in [
        Interval::Minute,
        Interval::Hour,
        Interval::Day,
        Interval::Week,
        Interval::Month,
        Interval::Fixed(5 * MICROS_PER_HOUR),
    ] {
        for aggregation in
            [Aggregation::Count, Aggregation::Sum, Aggregation::Max, Aggregation::Percentile(0.9)]
        {
            let context = format!("{interval:?} {aggregation:?} {field} of {table} {filter:?}");
            let got = snapshot.aggregate_by_time(table, field, interval, aggregation, filter);
            let got = got.unwrap();
            let model = aged.behind(&got.coverage);
            let expected = model.aggregate_by_time(table, field, interval, aggregation, filter);
            let buckets = |rows: &[tallystone::Bucket]| -> Vec<(Timestamp, u64)> {
                rows.iter().map(|bucket| (bucket.time_bucket, bucket.count)).collect()
            };
            assert_eq!(buckets(&got.rows), buckets(&expected), "{context}");
            for (got, expected) in got.rows.iter().zip(&expected) {
                match aggregation {
                    Aggregation::Percentile(share) => {
                        let end = interval.next_bucket(got.time_bucket.as_micros());
                        let bucket = got.time_bucket..Timestamp::from_micros(end).unwrap();
                        let rows = model.matching(table, filter);
                        let inside =
                            rows.into_iter().filter(|row| bucket.contains(&row.timestamp()));
                        let inside: Vec<Row> = inside.collect();
                        let count = inside
                            .iter()
                            .filter(|row| match row {
                                Row::Task(row) if field == "duration_ms" => {
                                    row.duration_ms.is_some()
                                }
                                Row::Task(row) => row.tokens_used.is_some(),
                                _ => true,
                            })
                            .count();
                        let quantile = Quantile {
                            value: got.value,
                            exact: got.rank_error == 0.0,
                            rank_error: got.rank_error,
                            count: count as u64,
                        };
                        check_quantile(&inside, field, share, &quantile, &context);
                    }
                    _ => assert!(close(number(got.value), number(expected.value)), "{context}"),
                }
            }
        }
    }
}

fn random_filter(random: &mut Random, table: Table) -> Filter {
    let mut filter = Filter::new();
    let mut edges: Vec<Timestamp> = (0..random.below(3))
        .map(|_| {
            let day = random.below(16) as i64 - 2;
            let hour = *pick(random, &[0, 0, 1, 13]);
            let off = *pick(random, &[0, 0, 1, MICROS_PER_HOUR / 2]);
            let stamp = START + day * MICROS_PER_DAY + hour * MICROS_PER_HOUR + off;
            Timestamp::from_micros(stamp).unwrap()
        })
        .collect();
    edges.sort_unstable();
    filter.from = edges.first().copied();
    filter.to = edges.get(1).copied();
    let key = random.below(6);
    match table {
        Table::Swarm => filter.swarm_id = (key < 2).then(|| format!("swarm-{key}")),
        _ => filter.agent_id = (key < 2).then(|| format!("agent-{key}")),
    }
    if table == Table::Task {
        filter.success = random.chance(0.15).then_some(true);
        filter.task_id = random.chance(0.1).then(|| "task_0007".to_owned());
    } else {
        filter.metric_type =
            random.chance(0.4).then(|| (*pick(random, &["cpu", "queue"])).to_owned());
    }
    filter
}

fn check_all(aged: &Aged, random: &mut Random, filters: usize) {
    let snapshot = aged.store().snapshot().unwrap();
    for table in Table::ALL {
        check(aged, &snapshot, table, &Filter::new());
        for _ in 0..filters {
            check(aged, &snapshot, table, &random_filter(random, table));
        }
    }
    let report = aged.store().verify(true).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn rows_that_age_answer_as_far_as_they_say() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let mut aged = Aged::new(seed);
        aged.append(&mut random, 0..12, 900);
        let held = aged.store().snapshot().unwrap();
        aged.age(12);
        check_all(&aged, &mut random, 4);
        // Late rows, in every tier, beside what stands for the others.
        aged.append(&mut random, 0..12, 150);
        check_all(&aged, &mut random, 4);
        aged.reopen();
        check_all(&aged, &mut random, 2);
        // And folded in.
        aged.age(14);
        check_all(&aged, &mut random, 4);
        aged.age(49);
        check_all(&aged, &mut random, 2);
        // A snapshot from before goes on to see rows.
        let first: ReferenceModel = aged.rows[..900].iter().cloned().collect();
        for table in Table::ALL {
            let rows = held.metrics(table, &Filter::new().all()).unwrap().rows;
            assert_eq!(rows, first.matching(table, &Filter::new()));
        }
    }
}

#[test]
fn random_passes_at_random_days_keep_every_answer_right() {
    for seed in 100..108 {
        let mut random = Random::new(seed);
        let mut aged = Aged::new(seed);
        let mut today = 3;
        aged.clock.set_day(today);
        for _ in 0..14 {
            match random.below(7) {
                0..3 => {
                    let count = 20 + usize::try_from(random.below(120)).unwrap();
                    let first = (today - 14).max(0);
                    aged.append(&mut random, first..today, count);
                }
                3 => aged.store().seal().unwrap(),
                4 => aged.reopen(),
                _ => {
                    today += random.below(4) as i64;
                    aged.age(today);
                }
            }
            check_all(&aged, &mut random, 1);
        }
    }
}

/// Rows, nulls, sum and extremes of the whole table, whatever tier they are in.
fn totals(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot().unwrap();
    ["duration_ms", "tokens_used"]
        .into_iter()
        .map(|field| {
            let all = snapshot.aggregate(Table::Task, field, &Filter::new()).unwrap();
            assert!(all.coverage.is_complete(), "{:?}", all.coverage);
            format!("{:?}", all.value)
        })
        .collect()
}

#[test]
fn a_snapshot_that_is_older_than_the_grace_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let clock = Arc::new(Hand(AtomicI64::new(START)));
    let options = Options {
        unlink_grace: Duration::ZERO,
        maintenance: None,
        clock: Arc::<Hand>::clone(&clock),
        ..Options::default()
    };
    let store = Store::open_with(&place, options).unwrap();
    let rule = TableRetention::Tiers(TIERS);
    let retention = Retention { task: rule, agent: rule, swarm: rule, max_bytes: None };
    store.set_retention(&retention).unwrap();
    let age = |day| {
        clock.set_day(day);
        let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
        store.maintain(&request).unwrap();
    };
    let mut random = Random::new(1);
    for _ in 0..900 {
        record(&store, &random_row(&mut random, 0));
    }
    store.seal().unwrap();
    let total = |snapshot: &Snapshot| {
        let answer = snapshot.aggregate(Table::Task, "duration_ms", &Filter::new());
        answer.map(|answer| (answer.value, answer.coverage))
    };
    let before = total(&store.snapshot().unwrap()).unwrap().0;
    // Sealed, archived, hourly, daily.
    for (day, next) in [(1, 3), (3, 5), (5, 8), (8, 49)] {
        age(day);
        // What the catalog knows is opened when it is asked for.
        let open = || Store::open_read_only(&place).unwrap();
        let (reader, other) = (open(), open());
        let (late, early) = (reader.snapshot().unwrap(), other.snapshot().unwrap());
        let first = total(&early).unwrap();
        assert_eq!(first.0, before, "day {day}");
        // The second pass deletes what the first one replaced.
        age(next);
        age(next);
        let gone = total(&late).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::SnapshotGone, "day {day}: {gone}");
        let all = Filter::new().all();
        if day < 5 {
            let gone = late.task_metrics(&all).unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::SnapshotGone, "day {day}: {gone}");
        }
        let mut text = Vec::new();
        let request = ExportRequest::new(ExportFormat::Csv);
        let gone = late.export(&request, &mut text, &mut |_| {}).unwrap_err();
        assert_eq!((gone.kind(), text.len()), (ErrorKind::SnapshotGone, 0), "day {day}");
        assert_eq!(total(&early).unwrap(), first, "day {day}");
        // Nobody need wait for the next listing.
        let now = total(&reader.snapshot().unwrap()).unwrap();
        assert_eq!(now, total(&store.snapshot().unwrap()).unwrap(), "day {day}");
        assert!(now.1.damaged.is_empty(), "day {day}: {:?}", now.1);
    }
}

#[test]
fn a_crash_at_any_step_of_aging_neither_loses_nor_doubles_a_row() {
    let mut images = 0;
    for seed in 0..2 {
        let mut random = Random::new(seed);
        let mut aged = Aged::new(seed);
        let mut append = |aged: &mut Aged, count: usize| {
            for number in 0..count {
                // One day for each tier but the last.
                let day = [1, 6, 9, 10][number % 4];
                let row = loop {
                    let row = random_row(&mut random, day);
                    if matches!(row, Row::Task(_)) {
                        break row;
                    }
                };
                record(aged.store(), &row);
                aged.rows.push(row);
            }
            aged.store().flush().unwrap();
        };
        append(&mut aged, 120);
        for day in [12, 12] {
            let expected = totals(aged.store());
            let first = aged.fs.op_count();
            aged.age(day);
            assert_eq!(totals(aged.store()), expected);
            for op in aged.fs.change_points().into_iter().filter(|op| *op >= first) {
                for image in aged.fs.images_after(op, seed ^ op, 2) {
                    let open = || open_store(&image, Path::new("/store"), aged.options.clone());
                    let store = open().unwrap();
                    assert_eq!(totals(&store), expected, "after operation {op}");
                    let request =
                        MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
                    store.maintain(&request).unwrap();
                    assert_eq!(totals(&store), expected, "after operation {op} and maintenance");
                    let problems = store.verify(true).unwrap().problems;
                    assert!(problems.is_empty(), "after operation {op}: {problems:?}");
                    images += 1;
                }
            }
            // Late rows for the second round.
            append(&mut aged, 40);
        }
    }
    println!("{images} crash images");
    assert!(images > 400, "{images}");
}

#[test]
fn a_full_disk_keeps_what_there_is_and_the_next_pass_goes_on() {
    let mut random = Random::new(5);
    let mut aged = Aged::new(5);
    aged.append(&mut random, 0..12, 600);
    aged.store().seal().unwrap();
    let expected = totals(aged.store());
    aged.clock.set_day(12);
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    // Without the room that the reserve makes.
    let used = aged.fs.used_bytes() - (2 << 20);
    let mut refused = 0;
    for room in [0, 1 << 10, 20 << 10, 60 << 10, 200 << 10] {
        aged.fs.space_limit(Some(used + room));
        refused += u32::from(aged.store().maintain(&request).is_err());
        assert_eq!(totals(aged.store()), expected, "with {room} bytes of room");
    }
    assert!(refused > 0);
    aged.fs.space_limit(None);
    aged.age(12);
    assert_eq!(totals(aged.store()), expected);
    assert!(aged.store().verify(true).unwrap().problems.is_empty());
}
