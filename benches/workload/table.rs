//! The figures of the README: ingest, size and the ten queries on one million tasks.
//! Every answer is checked against a plain computation over the generated rows before it is
//! timed.

#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tallystone::column::Batch;
use tallystone::testing::workload::{self, Tasks};
use tallystone::{
    Aggregation, Durability, Filter, Interval, Options, Order, Percentile, Snapshot, Store, Table,
    Timestamp, TopBy, Value,
};

/// Rows of one call of `append_columns` in the bulk load.
const BULK_ROWS: usize = 65_536;

pub(crate) fn table(rows: usize, smoke: bool) {
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap().join("target")).unwrap();
    println!("tallystone {}, {rows} tasks over 7 days, 500 agents\n", env!("CARGO_PKG_VERSION"));
    let batches = generate(rows);
    let truth = Truth::of(&batches);
    let store = bulk_load(&dir.path().join("bulk"), &batches);
    synced_batches(dir.path(), if smoke { 20 } else { 500 });
    seal(&store, rows);
    reopen(store.dir(), &truth);
    let runs = if smoke { 3 } else { 15 };
    queries(&store.snapshot().unwrap(), &truth, runs);
    bulk_read(&store.snapshot().unwrap(), rows, runs.min(5));
}

fn options() -> Options {
    // Answers are timed, not looked up; the workload's days are long past.
    Options { result_cache: 0, ..Options::default() }
}

fn generate(rows: usize) -> Vec<Batch> {
    let mut tasks = Tasks::new(rows, 1);
    std::iter::from_fn(|| tasks.next_batch(BULK_ROWS)).collect()
}

/// What a plain loop over the generated rows says.
struct Truth {
    rows: u64,
    sum: i128,
    sorted: Vec<i64>,
    first_task: String,
    first_task_rows: usize,
}

impl Truth {
    fn of(batches: &[Batch]) -> Self {
        let mut sorted = Vec::new();
        let first_task = batches[0].columns[1].text(0).unwrap().to_owned();
        let mut first_task_rows = 0;
        for batch in batches {
            for row in 0..batch.len() {
                sorted.extend(batch.columns[3].int(row));
                first_task_rows += usize::from(batch.columns[1].text(row) == Some(&first_task));
            }
        }
        let sum = sorted.iter().map(|value| i128::from(*value)).sum();
        sorted.sort_unstable();
        let rows = batches.iter().map(|batch| batch.len() as u64).sum();
        Self { rows, sum, sorted, first_task, first_task_rows }
    }

    fn percentile(&self, p: f64) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "truncation is the definition")]
        let rank = ((self.sorted.len() as f64 * p) as usize).min(self.sorted.len() - 1);
        self.sorted[rank]
    }
}

fn bulk_load(dir: &Path, batches: &[Batch]) -> Store {
    let store = Store::open_with(dir, options()).unwrap();
    store.keep_everything().unwrap();
    let rows: usize = batches.iter().map(Batch::len).sum();
    let mut appender = store.appender().unwrap();
    let copies: Vec<Batch> = batches.to_vec();
    let start = Instant::now();
    for batch in copies {
        appender.append_columns(Table::Task, batch).unwrap();
    }
    appender.flush().unwrap();
    let took = start.elapsed();
    let bytes: u64 = store.stats().unwrap().tables.iter().map(|table| table.bytes).sum();
    println!(
        "bulk append, whole columns, durable at the end   {:>8.2} M rows/s  {:>6.1} B/row active",
        rows as f64 / took.as_secs_f64() / 1e6,
        bytes as f64 / rows as f64
    );
    store
}

/// Batches of 100 rows, each flushed, beside the same bytes written and synced bare.
#[expect(clippy::disallowed_methods, reason = "the bare file is what is compared with")]
fn synced_batches(dir: &Path, count: usize) {
    let mut tasks = Tasks::new(100 * count, 2);
    let batches: Vec<Batch> = std::iter::from_fn(|| tasks.next_batch(100)).collect();
    let store =
        Store::open_with(dir.join("synced"), Options { durability: Durability::Sync, ..options() })
            .unwrap();
    store.keep_everything().unwrap();
    let mut appender = store.appender().unwrap();
    appender.append_columns(Table::Task, batches[0].clone()).unwrap();
    appender.flush().unwrap();
    let bare = std::fs::File::create(dir.join("bare")).unwrap();
    let frame = vec![1u8; 5_000];
    let filled = frame.len() * count;
    bare.write_all_at(&vec![0; filled], 0).unwrap();
    bare.sync_data().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (index, batch) in batches.into_iter().enumerate() {
        let start = Instant::now();
        bare.write_all_at(&frame, (index * frame.len()) as u64).unwrap();
        bare.sync_data().unwrap();
        theirs.push(start.elapsed());
        let start = Instant::now();
        appender.append_columns(Table::Task, batch).unwrap();
        appender.flush().unwrap();
        ours.push(start.elapsed());
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "batches of 100, each durable                     {:>8.3} ms a batch, {:.2} x the bare write and fdatasync ({:.3} ms)",
        millis(ours),
        ours.as_secs_f64() / theirs.as_secs_f64(),
        millis(theirs)
    );
}

fn seal(store: &Store, rows: usize) {
    let start = Instant::now();
    store.seal().unwrap();
    let took = start.elapsed();
    let stats = store.stats().unwrap();
    let sealed: Vec<_> = stats.tables.iter().filter(|table| table.kind == "segment").collect();
    let bytes: u64 = sealed.iter().map(|table| table.bytes).sum();
    let files: u64 = sealed.iter().map(|table| table.files).sum();
    println!(
        "seal                                             {:>8.2} M rows/s  {:>6.1} B/row in {files} segments",
        rows as f64 / took.as_secs_f64() / 1e6,
        bytes as f64 / rows as f64
    );
}

fn reopen(dir: &Path, truth: &Truth) {
    let start = Instant::now();
    let store = Store::open_read_only(dir).unwrap();
    let snapshot = store.snapshot().unwrap();
    let opened = start.elapsed();
    let answer = snapshot.aggregate(Table::Task, "duration_ms", &Filter::new()).unwrap();
    assert_eq!(answer.value.rows, truth.rows);
    println!(
        "open, then the first answer                      {:>8.3} ms, {:.3} ms\n",
        millis(opened),
        millis(start.elapsed() - opened)
    );
}

fn queries(snapshot: &Snapshot, truth: &Truth, runs: usize) {
    let all = Filter::new();
    let agent = Filter::new().agent("agent_007");
    let from = Timestamp::from_micros(workload::START + 37 * 3_600_000_000 + 1_234_567).unwrap();
    let to = Timestamp::from_micros(from.as_micros() + 293_760_000_000).unwrap();
    let ragged = Filter::new().between(from, to);
    let duration = "duration_ms";
    check(snapshot, truth);
    println!("{:<48} {:>10} {:>10}", "query", "min ms", "median ms");
    let time = |name: &str, run: &dyn Fn()| {
        run();
        let mut times: Vec<Duration> = (0..runs).map(|_| timed(run)).collect();
        let middle = median(&mut times);
        println!("{name:<48} {:>10.3} {:>10.3}", millis(times[0]), millis(middle));
    };
    time("metrics: newest 1,000 rows", &|| {
        black_box(snapshot.metrics(Table::Task, &all).unwrap());
    });
    time("task_metrics: newest 100 of one agent", &|| {
        black_box(snapshot.task_metrics(&agent.clone().limit(100)).unwrap());
    });
    time("task_metrics: all rows of one task", &|| {
        black_box(snapshot.task_metrics(&Filter::new().task(&truth.first_task)).unwrap());
    });
    time("agent_metrics: an empty table", &|| {
        black_box(snapshot.agent_metrics(&all).unwrap());
    });
    time("swarm_metrics: an empty table", &|| {
        black_box(snapshot.swarm_metrics(&all).unwrap());
    });
    time("aggregate: count, average, min, max, all rows", &|| {
        black_box(snapshot.aggregate(Table::Task, duration, &all).unwrap());
    });
    time("aggregate: the same, unaligned 3.4 days", &|| {
        black_box(snapshot.aggregate(Table::Task, duration, &ragged).unwrap());
    });
    time("average: all rows", &|| {
        black_box(snapshot.average(Table::Task, duration, &all).unwrap());
    });
    time("aggregate_by_time: hourly average", &|| {
        let buckets = snapshot.aggregate_by_time(
            Table::Task,
            duration,
            Interval::Hour,
            Aggregation::Avg,
            &all,
        );
        black_box(buckets.unwrap());
    });
    time("percentiles: exact p50, p95, p99, all rows", &|| {
        let ps = [0.5, 0.95, 0.99];
        black_box(
            snapshot.percentiles(Table::Task, duration, &ps, Percentile::Exact, &all).unwrap(),
        );
    });
    time("percentiles: estimated p50, p95, p99, all rows", &|| {
        let ps = [0.5, 0.95, 0.99];
        black_box(
            snapshot.percentiles(Table::Task, duration, &ps, Percentile::Estimate, &all).unwrap(),
        );
    });
    time("top_agents: 10 by average duration", &|| {
        black_box(snapshot.top_agents(TopBy::AvgDurationMs, Order::Descending, &all).unwrap());
    });
    time("slowest_tasks: 10", &|| {
        black_box(snapshot.slowest_tasks(&all).unwrap());
    });
    time("summary_stats: exact percentiles", &|| {
        black_box(snapshot.summary_stats(Percentile::Exact, &all).unwrap());
    });
    time("summary_stats: estimates", &|| {
        black_box(snapshot.summary_stats(Percentile::Estimate, &all).unwrap());
    });
}

fn check(snapshot: &Snapshot, truth: &Truth) {
    let all = Filter::new();
    let aggregate = snapshot.aggregate(Table::Task, "duration_ms", &all).unwrap().value;
    assert_eq!(aggregate.rows, truth.rows);
    assert_eq!(aggregate.sum.as_f64(), Value::Wide(truth.sum).as_f64());
    for p in [0.5, 0.95, 0.99, 0.999] {
        let exact = snapshot
            .percentile(Table::Task, "duration_ms", p, Percentile::Exact, &all)
            .unwrap()
            .value;
        assert_eq!(exact.value, Some(Value::Int(truth.percentile(p))), "p{p}");
        let estimate = snapshot
            .percentile(Table::Task, "duration_ms", p, Percentile::Estimate, &all)
            .unwrap()
            .value;
        let value = estimate.value.unwrap().as_f64();
        let count = truth.sorted.len() as f64;
        let below = truth.sorted.partition_point(|v| (*v as f64) < value) as f64 / count;
        let upto = truth.sorted.partition_point(|v| (*v as f64) <= value) as f64 / count;
        assert!(below - estimate.rank_error <= p && p <= upto + estimate.rank_error, "p{p}");
    }
    let slowest = snapshot.slowest_tasks(&all).unwrap();
    assert_eq!(slowest.rows[0].duration_ms, *truth.sorted.last().unwrap());
    let task = snapshot.task_metrics(&Filter::new().task(&truth.first_task)).unwrap();
    assert_eq!(task.rows.len(), truth.first_task_rows);
    let summary = snapshot.summary_stats(Percentile::Exact, &all).unwrap().value;
    assert_eq!(summary.total_tasks, truth.rows);
    assert_eq!(summary.p95_duration_ms, Some(Value::Int(truth.percentile(0.95))));
}

fn bulk_read(snapshot: &Snapshot, rows: usize, runs: usize) {
    let read = || {
        let mut seen = 0;
        for block in snapshot.columns(Table::Task, &Filter::new().all(), None).unwrap() {
            seen += black_box(block.unwrap()).len();
        }
        assert_eq!(seen, rows);
    };
    let mut times: Vec<Duration> = (0..runs).map(|_| timed(&read)).collect();
    let middle = median(&mut times);
    println!(
        "{:<48} {:>10.3} {:>10.3}",
        "columns: every column of every row, owned",
        millis(times[0]),
        millis(middle)
    );
    std::io::stdout().flush().unwrap();
}

fn timed(run: &dyn Fn()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
