//! Stores that released formats wrote: they open, hold exactly the rows that were written,
//! answer, and go on as stores of today.
//!
//! `tests/golden/<version>/` is written once per format and never again; its README says by
//! which command. Rows follow from their number, so what must be there needs no second file.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tallystone::testing::{EntryKind, FileSystem, OsFileSystem};
use tallystone::{
    AgentMetric, AgentRow, Aggregation, Filter, ImportSource, Interval, MaintenanceRequest,
    Options, Order, Percentile, Retention, Row, Snapshot, Store, SwarmMetric, SwarmRow, Table,
    TableRetention, TaskMetric, TaskRow, Tiers, Timestamp, TopBy, Value,
};

const DAY: i64 = 86_400_000_000;
/// 2026-11-23.
const START: i64 = 1_795_392_000_000_000;
/// Where to write a golden store of the current format, instead of reading.
const WRITE: &str = "TALLYSTONE_WRITE_GOLDEN";

/// Rows by how they got into the store.
const SEALED: std::ops::Range<i64> = 0..400;
const IMPORTED: std::ops::Range<i64> = 400..500;
const ACTIVE: std::ops::Range<i64> = 500..540;
const GAUGES: std::ops::Range<i64> = 0..150;

#[derive(Debug)]
struct Fixed;

impl tallystone::time::Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 2 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        tallystone::time::SystemClock.elapsed()
    }
}

fn options() -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        block_rows: 128,
        small_hour_rows: 16,
        unlink_grace: Duration::ZERO,
        clock: Arc::new(Fixed),
        ..Options::default()
    }
}

// ---------------------------------------------------------------------------------------
// The rows

fn stamp(number: i64) -> Timestamp {
    // Every tenth has the stamp of the one before; a few lie at the edges of the day.
    let number = if number % 10 == 9 { number - 1 } else { number };
    let micros = match number {
        20 => 0,
        30 => DAY - 1,
        _ => number * 7_919_000_003 % DAY,
    };
    // Two days; the active segment's rows are of the second.
    let day = if number % 4 == 0 || ACTIVE.contains(&number) { DAY } else { 0 };
    Timestamp::from_micros(START + day + micros).unwrap()
}

fn task(number: i64) -> TaskRow {
    let duration_ms = match number {
        1 => Some(i64::MIN),
        2 => Some(i64::MAX),
        _ if number % 7 == 0 => None,
        _ => Some(number * number % 10_007),
    };
    let metadata = match number {
        5 => Some("null".to_owned()),
        6 => Some("  {\"a\": [1, 2.50, {\"b\":\"\\u00e9\"}]}  ".to_owned()),
        7 => Some(format!("\"{}\"", "long ".repeat(400))),
        _ if number % 6 == 0 => Some(format!("{{\"model\":\"m-{}\",\"n\":{number}}}", number % 3)),
        _ => None,
    };
    TaskRow {
        timestamp: stamp(number),
        task_id: if number == 8 {
            "\u{4efb}\u{52a1} \u{1f41d}".to_owned()
        } else {
            format!("task_{number:07}")
        },
        agent_id: format!("agent_{:03}", number * number % 23),
        duration_ms,
        tokens_used: (number % 11 != 0).then_some(number * 31 % 5_003),
        success: number % 13 != 0,
        metadata,
    }
}

/// All of one day: a file takes 12 KiB at least.
fn gauge_stamp(number: i64) -> Timestamp {
    Timestamp::from_micros(START + number * 500_000_007).unwrap()
}

fn value(number: i64) -> f64 {
    match number {
        0 => -0.0,
        1 => f64::MIN_POSITIVE / 8.0,
        2 => f64::MAX,
        3 => f64::MIN,
        4 => 0.1,
        _ => number as f64 * 0.25,
    }
}

fn agent(number: i64) -> AgentRow {
    AgentRow {
        timestamp: gauge_stamp(number),
        agent_id: format!("agent_{:03}", number % 7),
        metric_type: ["cpu", "memory"][usize::from(number % 2 != 0)].to_owned(),
        value: value(number),
        metadata: (number % 5 == 0).then(|| format!("[{number}]")),
    }
}

fn swarm(number: i64) -> SwarmRow {
    SwarmRow {
        timestamp: gauge_stamp(number),
        swarm_id: format!("swarm_{}", number % 3),
        metric_type: "size".to_owned(),
        value: value(number),
        metadata: None,
    }
}

fn tasks() -> Vec<TaskRow> {
    (SEALED.start..ACTIVE.end).map(task).collect()
}

/// All rows of a table, in an order of their own; text shows every bit but that of zero's sign,
/// which it shows too.
fn expected(table: Table) -> Vec<String> {
    let mut rows: Vec<String> = match table {
        Table::Task => tasks().into_iter().map(Row::Task).map(|row| format!("{row:?}")).collect(),
        Table::Agent => GAUGES.map(|n| format!("{:?}", Row::Agent(agent(n)))).collect(),
        Table::Swarm => GAUGES.map(|n| format!("{:?}", Row::Swarm(swarm(n)))).collect(),
    };
    rows.sort();
    rows
}

fn found(snapshot: &Snapshot, table: Table) -> Vec<String> {
    let page = snapshot.metrics(table, &Filter::new().all()).unwrap();
    assert!(page.coverage.is_complete(), "{:?}", page.coverage);
    let stamps: Vec<_> = page.rows.iter().map(Row::timestamp).collect();
    assert!(stamps.is_sorted_by(|a, b| a >= b), "newest first");
    let mut rows: Vec<String> = page.rows.iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}

// ---------------------------------------------------------------------------------------
// Writing

fn metric(row: &TaskRow) -> TaskMetric<'_> {
    TaskMetric {
        timestamp: row.timestamp,
        task_id: &row.task_id,
        agent_id: &row.agent_id,
        duration_ms: row.duration_ms,
        tokens_used: row.tokens_used,
        success: row.success,
        metadata: row.metadata.as_deref(),
    }
}

fn write(dir: &Path) {
    let store = Store::open_with(dir, options()).unwrap();
    for number in SEALED {
        store.record_task(&metric(&task(number))).unwrap();
    }
    for number in GAUGES {
        let (agent, swarm) = (agent(number), swarm(number));
        let row = AgentMetric {
            timestamp: agent.timestamp,
            agent_id: &agent.agent_id,
            metric_type: &agent.metric_type,
            value: agent.value,
            metadata: agent.metadata.as_deref(),
        };
        store.record_agent(&row).unwrap();
        let row = SwarmMetric {
            timestamp: swarm.timestamp,
            swarm_id: &swarm.swarm_id,
            metric_type: &swarm.metric_type,
            value: swarm.value,
            metadata: swarm.metadata.as_deref(),
        };
        store.record_swarm(&row).unwrap();
    }
    store.seal().unwrap();
    let source =
        ImportSource { name: "a source".to_owned(), hash: 1, crc32: 2, bytes: 3, again: false };
    let mut import = store.begin_import(source).unwrap();
    for number in IMPORTED {
        import.append_task(&metric(&task(number))).unwrap();
    }
    import.commit().unwrap();
    for number in ACTIVE {
        store.record_task(&metric(&task(number))).unwrap();
        if number % 10 == 0 {
            store.flush().unwrap();
        }
    }
    store.close().unwrap();
    // The reserve is megabytes of nothing, and a store can live without.
    let _ = OsFileSystem.remove(&dir.join("reserve"));
}

/// Days of the aged store: two that are gone, two kept as days, two as hours, two archived,
/// and one as it was.
const AGED_DAYS: i64 = 9;
const AGED: std::ops::Range<i64> = 0..540;

/// Ten days after the first of them began.
#[derive(Debug)]
struct TenDaysLater;

impl tallystone::time::Clock for TenDaysLater {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 10 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        tallystone::time::SystemClock.elapsed()
    }
}

fn aged_options() -> Options {
    Options { clock: Arc::new(TenDaysLater), maintenance: None, ..options() }
}

fn aged_day(number: i64) -> i64 {
    number % AGED_DAYS
}

fn aged_task(number: i64) -> TaskRow {
    let micros = START + aged_day(number) * DAY + number * 7_919_000_003 % DAY;
    TaskRow {
        timestamp: Timestamp::from_micros(micros).unwrap(),
        duration_ms: (number % 7 != 0).then_some(number * number % 10_007),
        ..task(number + 10)
    }
}

fn write_aged(dir: &Path) {
    let store = Store::open_with(dir, aged_options()).unwrap();
    for number in AGED {
        let row = aged_task(number);
        store.record_task(&metric(&row)).unwrap();
        store
            .record_agent(&AgentMetric {
                timestamp: row.timestamp,
                agent_id: &row.agent_id,
                metric_type: ["cpu", "memory"][usize::from(number % 2 != 0)],
                value: number as f64 * 0.25,
                metadata: None,
            })
            .unwrap();
    }
    store.seal().unwrap();
    let rule = TableRetention::Tiers(Tiers {
        detailed_days: 2,
        archive_days: 4,
        hourly_days: 6,
        daily_days: 8,
    });
    store.set_retention(&Retention { task: rule, agent: rule, ..Retention::KEEP }).unwrap();
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    store.maintain(&request).unwrap();
    // What was replaced goes with the second pass.
    store.maintain(&request).unwrap();
    store.close().unwrap();
    let _ = OsFileSystem.remove(&dir.join("reserve"));
}

fn check_aged(store: &Store) {
    let snapshot = store.snapshot().unwrap();
    let rows: Vec<(i64, TaskRow)> = AGED.map(|n| (aged_day(n), aged_task(n))).collect();
    let all = snapshot.aggregate(Table::Task, "duration_ms", &Filter::new()).unwrap();
    let coverage = &all.coverage;
    let parts = [&coverage.detail, &coverage.hourly, &coverage.daily, &coverage.gone];
    assert!(parts.iter().all(|part| part.len() == 1), "{coverage:?}");
    assert_eq!((coverage.damaged.len(), coverage.unanswerable.len()), (0, 0));
    let left = || rows.iter().filter(|(day, _)| *day >= 2).map(|(_, row)| row);
    let sum: i64 = left().filter_map(|row| row.duration_ms).sum();
    assert_eq!((all.value.rows, all.value.sum), (left().count() as u64, Value::Int(sum)));
    // Rows, of the days that have some; of the others it is said that they are gone.
    let page = snapshot.task_metrics(&Filter::new().all()).unwrap();
    let mut expected: Vec<_> =
        rows.iter().filter(|(day, _)| *day >= 6).map(|(_, row)| format!("{row:?}")).collect();
    let mut found: Vec<_> = page.rows.iter().map(|row| format!("{row:?}")).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(page.coverage.unanswerable.len(), 1, "{:?}", page.coverage);
    // Plain digests are exact.
    let mut values: Vec<f64> =
        AGED.filter(|n| aged_day(*n) >= 2).map(|n| n as f64 * 0.25).collect();
    values.sort_unstable_by(f64::total_cmp);
    let p99 = snapshot
        .percentile(Table::Agent, "value", 0.99, Percentile::Exact, &Filter::new())
        .unwrap()
        .value;
    let rank = values.len() * 99 / 100;
    assert_eq!((p99.value, p99.rank_error), (Some(Value::Float(values[rank])), 0.0));
    let hours = snapshot
        .aggregate_by_time(
            Table::Task,
            "duration_ms",
            Interval::Hour,
            Aggregation::Count,
            &Filter::new(),
        )
        .unwrap();
    let counted: u64 = hours.rows.iter().map(|bucket| bucket.count).sum();
    assert_eq!(counted, rows.iter().filter(|(day, _)| *day >= 4).count() as u64);
    let report = store.verify(true).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

// ---------------------------------------------------------------------------------------
// Reading

/// The golden stores, aged ones or the others.
fn golden(aged: bool) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let versions: Vec<PathBuf> = OsFileSystem
        .list(&dir)
        .unwrap()
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::Directory)
        .filter(|entry| entry.name.ends_with("-aged") == aged)
        .map(|entry| dir.join(entry.name))
        .collect();
    assert!(!versions.is_empty());
    versions
}

/// Every file below a directory, by path in it, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in OsFileSystem.list(&next).unwrap() {
            let path = next.join(entry.name);
            if entry.kind == EntryKind::Directory {
                waiting.push(path);
            } else {
                let file = OsFileSystem.open(&path).unwrap();
                let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                file.read_at(&mut bytes, 0).unwrap();
                files.insert(path.strip_prefix(dir).unwrap().to_path_buf(), bytes);
            }
        }
    }
    files
}

/// A copy that may be written to.
fn copy(dir: &Path) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in files(dir) {
        let mut parent = root.path().to_path_buf();
        for part in path.parent().unwrap().iter() {
            parent.push(part);
            // The next file of the directory finds it there.
            let _ = OsFileSystem.create_dir(&parent);
        }
        OsFileSystem.create(&root.path().join(path)).unwrap().write_all_at(&bytes, 0).unwrap();
    }
    root
}

fn check(store: &Store) {
    let snapshot = store.snapshot().unwrap();
    for table in Table::ALL {
        assert_eq!(found(&snapshot, table), expected(table), "{table}");
    }
    check_answers(&snapshot);
    assert_eq!(store.imports().unwrap().len(), 1);
    assert_eq!(store.imports().unwrap()[0].rows, 100);
    let report = store.verify(true).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// A few answers, found the slow way.
fn check_answers(snapshot: &Snapshot) {
    let (rows, filter) = (tasks(), Filter::new());
    let mut durations: Vec<i64> = rows.iter().filter_map(|row| row.duration_ms).collect();
    durations.sort_unstable();
    let all = snapshot.aggregate(Table::Task, "duration_ms", &filter).unwrap().value;
    assert_eq!((all.rows, all.count), (rows.len() as u64, durations.len() as u64));
    let sum: i128 = durations.iter().map(|value| i128::from(*value)).sum();
    assert_eq!(all.sum.as_f64(), sum as f64);
    assert_eq!(all.min, Some(Value::Int(i64::MIN)));
    assert_eq!(all.max, Some(Value::Int(i64::MAX)));
    let successes = rows.iter().filter(|row| row.success).count() as u64;
    let summary = snapshot.summary_stats(Percentile::Exact, &filter).unwrap().value;
    assert_eq!((summary.total_tasks, summary.successful_tasks), (rows.len() as u64, successes));
    let slowest = snapshot.slowest_tasks(&Filter::new().limit(3)).unwrap().rows;
    let slowest: Vec<i64> = slowest.iter().map(|task| task.duration_ms).collect();
    assert!(slowest.iter().eq(durations.iter().rev().take(3)));
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(&row.agent_id).or_default() += 1);
    let top = snapshot.top_agents(TopBy::TaskCount, Order::Descending, &filter).unwrap().rows;
    assert_eq!(Some(&top[0].task_count), counts.values().max());
    let one = snapshot.task_metrics(&Filter::new().agent("agent_004").all()).unwrap().rows;
    assert_eq!(one.len() as u64, counts["agent_004"]);
    let day = Timestamp::from_micros(START + DAY).unwrap();
    let second = snapshot.task_metrics(&Filter { from: Some(day), ..Filter::new().all() });
    let expected = rows.iter().filter(|row| row.timestamp >= day).count();
    assert_eq!(second.unwrap().rows.len(), expected);
}

#[test]
fn stores_of_every_format_are_read_and_left_alone() {
    if let Some(dir) = std::env::var_os(WRITE) {
        write(Path::new(&dir));
        let mut aged = dir;
        aged.push("-aged");
        write_aged(Path::new(&aged));
        return;
    }
    for dir in golden(false).into_iter().chain(golden(true)) {
        let before = files(&dir);
        let bytes: usize = before.values().map(Vec::len).sum();
        assert!(bytes < 400 << 10, "{}: {bytes} bytes", dir.display());
        let copy = copy(&dir);
        let store = Store::open_read_only(copy.path()).unwrap();
        assert!(store.recovery().notes.is_empty(), "{:?}", store.recovery());
        if dir.to_string_lossy().ends_with("-aged") {
            check_aged(&store)
        } else {
            check(&store)
        }
        drop(store);
        let mut after = files(copy.path());
        // SQLite makes these beside a catalog that it reads, wherever it may write.
        for companion in ["catalog.sqlite-wal", "catalog.sqlite-shm"] {
            after.remove(Path::new(companion));
        }
        assert!(before == after, "{}: reading has changed it", dir.display());
    }
}

#[test]
fn stores_of_every_format_go_on_as_stores_of_today() {
    if std::env::var_os(WRITE).is_some() {
        return;
    }
    for dir in golden(true) {
        let copy = copy(&dir);
        let store = Store::open_with(copy.path(), aged_options()).unwrap();
        check_aged(&store);
        let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
        store.maintain(&request).unwrap();
        check_aged(&store);
    }
    for dir in golden(false) {
        let copy = copy(&dir);
        let store = Store::open_with(copy.path(), options()).unwrap();
        assert!(!store.recovery().catalog_rebuilt, "{:?}", store.recovery());
        check(&store);
        store.seal().unwrap();
        check(&store);
        let row = TaskRow { task_id: "new".to_owned(), ..task(0) };
        store.record_task(&metric(&row)).unwrap();
        store.close().unwrap();
        let store = Store::open_read_only(copy.path()).unwrap();
        let rows = store.snapshot().unwrap().rows(Table::Task);
        assert_eq!(rows, tasks().len() as u64 + 1);
    }
}
