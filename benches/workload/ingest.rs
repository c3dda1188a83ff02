//! Ingest: bulk, batches of 100 synced and not, one call; sealing, and bytes a row.
//!
//! Owns loading stores of its own in a scratch folder, and the bare writes beside it.

#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]
#![expect(clippy::cast_possible_truncation, reason = "figures are printed with three digits")]
#![expect(clippy::disallowed_methods, reason = "folders of the benchmark, not of a store")]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tallystone::column::Batch;
use tallystone::testing::workload::START;
use tallystone::{Durability, Store, Table, TaskMetric, Timestamp};

use crate::arguments::Arguments;
use crate::data::{gauges, tasks};
use crate::floor::bare_file;
use crate::measure::{Effort, Timing, timed};
use crate::report::{Figure, Report, heading};
use crate::stores::{bytes_of_files, create, load, size};

/// Seed of the rows that come in small batches.
const SEED: u64 = 2;
/// Rows of a small batch.
const BATCH: usize = 100;

/// What is to be reached with a table, in millions of rows a second and bytes a row.
struct Aims {
    bulk: f64,
    seal: f64,
    active: f64,
    sealed: f64,
}

/// Everything about getting rows of one table in.
pub(crate) struct Ingest<'a> {
    pub(crate) table: Table,
    pub(crate) rows: usize,
    pub(crate) dir: &'a Path,
    pub(crate) effort: Effort,
    pub(crate) arguments: &'a Arguments,
}

impl Ingest<'_> {
    fn mark(&self) -> &'static str {
        if self.table == Table::Task { "T" } else { "G" }
    }

    fn aims(&self) -> Aims {
        if self.table == Table::Task {
            Aims { bulk: 7.0, seal: 3.0, active: 40.0, sealed: 16.0 }
        } else {
            Aims { bulk: 12.0, seal: 3.0, active: 24.0, sealed: 7.0 }
        }
    }

    fn wants(&self, name: &str, group: &str) -> bool {
        self.arguments.wants(&[&format!("{}-{name}", self.mark()), name, group])
    }

    fn figure(&self, name: &str, what: &str, unit: &'static str) -> Figure {
        let what = format!("{}: {what}", self.table);
        Figure::new(&format!("{}-{name}", self.mark()), &what, self.rows, unit, 0.0)
    }

    fn batches(&self, count: usize) -> Vec<Batch> {
        match self.table {
            Table::Task => tasks(count * BATCH, BATCH, SEED),
            _ => gauges(count * BATCH, BATCH, SEED),
        }
    }

    pub(crate) fn run(&self, batches: &[Batch], report: &mut Report) {
        let bulk = ["bulk", "seal"].iter().any(|name| self.wants(name, "ingest"))
            || ["active", "sealed"].iter().any(|name| self.wants(name, "size"));
        let (sync, os) = (self.wants("sync", "ingest"), self.wants("os", "ingest"));
        let one = self.table == Table::Task && self.arguments.wants(&["one", "ingest"]);
        if bulk || sync || os || one {
            heading(&format!("Ingest of {}", self.table));
        }
        if bulk {
            self.bulk(batches, report);
        }
        if sync {
            self.synced(report);
        }
        if os {
            self.unsynced(report);
        }
        if one {
            one_call(&self.dir.join("one"), self.effort, self.rows, report);
        }
    }

    /// Whole columns, durable at the end, then sealed; the sizes of both.
    fn bulk(&self, batches: &[Batch], report: &mut Report) {
        let (place, aims) = (self.dir.join("bulk"), self.aims());
        let rate = |took: Duration| self.rows as f64 / took.as_secs_f64() / 1e6;
        let (mut rates, mut seals, mut sizes) = (Vec::new(), Vec::new(), None);
        for _ in 0..self.effort.long_runs() {
            let store = create(&place, Durability::default());
            rates.push(rate(load(&store, self.table, batches.to_vec())));
            let (active_rows, active) = size(&store, "active");
            let took = timed(|| store.seal().unwrap());
            seals.push(active_rows as f64 / took.as_secs_f64() / 1e6);
            let (sealed_rows, sealed) = size(&store, "segment");
            assert_eq!(sealed_rows, self.rows as u64);
            store.close().unwrap();
            drop(store);
            sizes = Some((active_rows, active, sealed, bytes_of_files(&place)));
            std::fs::remove_dir_all(&place).unwrap();
        }
        let (active_rows, active, sealed, files) = sizes.unwrap();
        let floor = rate(self.bare_load(active as usize));
        let bulk = self.figure("bulk", "bulk columns, durable at the end", "M rows/s");
        report.add(bulk.runs(rates, true).aim(aims.bulk).floor(floor));
        let seal = self.figure("seal", "sealing what was loaded", "M rows/s");
        report.add(seal.runs(seals, true).aim(aims.seal));
        let per_row = |bytes: u64, rows: u64| vec![bytes as f64 / rows.max(1) as f64];
        let active = self
            .figure("active", "size, active", "B/row")
            .runs(per_row(active, active_rows), false)
            .aim(aims.active);
        report.add(active);
        let note = format!(
            "{sealed} B; all files of the store {:.2} B/row",
            files as f64 / self.rows as f64
        );
        let sealed = self
            .figure("sealed", "size, sealed, everything in the segments", "B/row")
            .runs(per_row(sealed, self.rows as u64), false)
            .aim(aims.sealed);
        report.add(sealed.note(note));
    }

    /// As many bytes written to a new file and synced.
    fn bare_load(&self, bytes: usize) -> Duration {
        let part = vec![1u8; 1 << 20];
        let path = self.dir.join("bare-bulk");
        let took = timed(|| {
            let mut file = std::fs::File::create(&path).unwrap();
            for _ in 0..bytes.div_ceil(part.len()) {
                file.write_all(&part).unwrap();
            }
            file.sync_data().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
        took
    }

    /// Batches of 100, each durable, in turn with a bare write and sync of as many bytes.
    fn synced(&self, report: &mut Report) {
        let count = self.effort.runs_max.min(1_000);
        let warm = 10;
        let batches = self.batches(warm + count);
        let place = self.dir.join("synced");
        let store = create(&place, Durability::Sync);
        let mut appender = store.appender().unwrap();
        let mut append = |batch: Batch| {
            appender.append_columns(self.table, batch).unwrap();
            appender.flush().unwrap();
        };
        let mut batches = batches.into_iter();
        batches.by_ref().take(warm).for_each(&mut append);
        let frame = vec![1u8; frame_bytes(&store, warm)];
        let path = self.dir.join("bare");
        let bare = bare_file(&path, frame.len() * count);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (number, batch) in batches.enumerate() {
            theirs.push(timed(|| {
                bare.write_all_at(&frame, (number * frame.len()) as u64).unwrap();
                bare.sync_data().unwrap();
            }));
            ours.push(timed(|| append(batch)));
        }
        let (ours, theirs) = (Timing::of(ours), Timing::of(theirs));
        let note = format!(
            "{:.0} rows/s; p99 {:.2} ms, bare {:.2}; {} B a batch",
            BATCH as f64 / ours.median_ms() * 1e3,
            ours.permille_ms(990),
            theirs.permille_ms(990),
            frame.len()
        );
        let mut figure = self.figure("sync", "a batch of 100, synced", "ms");
        figure.best = ours.min_ms();
        figure.median = ours.median_ms();
        figure.runs = ours.runs();
        figure.median_counts = true;
        report.add(figure.aim(1.3 * theirs.median_ms()).floor(theirs.median_ms()).note(note));
        drop(appender);
        store.close().unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    /// Batches of 100, left to the operating system.
    fn unsynced(&self, report: &mut Report) {
        let rows = self.rows.min(1_000_000);
        let batches = self.batches(rows / BATCH);
        let run = |each: bool| {
            let place = self.dir.join("unsynced");
            let store = create(&place, Durability::Os);
            let mut appender = store.appender().unwrap();
            let batches = batches.clone();
            let took = timed(|| {
                for batch in batches {
                    appender.append_columns(self.table, batch).unwrap();
                    if each {
                        appender.commit().unwrap();
                    }
                }
                appender.commit().unwrap();
            });
            drop(appender);
            store.close().unwrap();
            std::fs::remove_dir_all(&place).unwrap();
            rows as f64 / took.as_secs_f64() / 1e6
        };
        let runs = self.effort.long_runs();
        let what = "batches of 100, not synced, visible at the end";
        let end = self.figure("os", what, "M rows/s");
        report.add(end.runs((0..runs).map(|_| run(false)).collect(), true).aim(5.0));
        let what = "batches of 100, not synced, each visible";
        let each = self.figure("os-each", what, "M rows/s");
        report.add(each.runs((0..runs).map(|_| run(true)).collect(), true));
    }
}

/// Bytes of a batch in the file.
fn frame_bytes(store: &Store, batches: usize) -> usize {
    size(store, "active").1 as usize / batches
}

/// One `record_task` call: two threads, half of the rate that they sustain.
fn one_call(dir: &Path, effort: Effort, rows: usize, report: &mut Report) {
    const THREADS: usize = 2;
    let calls = if effort.runs_max < 10 { 20_000 } else { 500_000 };
    let store = create(dir, Durability::default());
    let names: Vec<String> = (0..1_000).map(|task| format!("task_{task:07}")).collect();
    let took = timed(|| {
        threads(THREADS, &|thread| {
            (0..calls).for_each(|call| record(&store, &names, thread, call));
        });
        store.flush().unwrap();
    });
    let sustained = (THREADS * calls) as f64 / took.as_secs_f64();
    // Some calls every millisecond, then sleep: spinning would take the committer's core.
    let each_milli = ((sustained / 2.0 / 1e3 / THREADS as f64) as usize).max(1);
    let millis = if effort.runs_max < 10 { 100 } else { 3_000 };
    let mut took = threads(THREADS, &|thread| {
        let mut took = Vec::with_capacity(each_milli * millis);
        let start = Instant::now();
        for milli in 0..millis {
            let due = Duration::from_millis(milli as u64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            for call in 0..each_milli {
                let call = milli * each_milli + call;
                took.push(timed(|| record(&store, &names, thread, call)));
            }
        }
        took
    });
    store.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    let timing = Timing::of(took.drain(..).flatten().collect());
    let clock = Timing::of((0..10_000).map(|_| timed(|| ())).collect()).median_ms() * 1e6;
    let note = format!("sustained {sustained:.0} rows/s; reading the clock {clock:.0} ns included");
    let parts = [("p50", 500, 150.0), ("p99", 990, 0.0), ("p99.9", 999, 5_000.0)];
    for (name, permille, aim) in parts {
        let what = format!("one `record_task` call at half the sustained rate, {name}");
        let value = timing.permille_ms(permille) * 1e6;
        let mut figure = Figure::new(&format!("one-{name}"), &what, rows, "ns", value).aim(aim);
        figure.runs = timing.runs();
        report.add(figure.note(if permille == 500 { note.as_str() } else { "" }));
    }
}

fn record(store: &Store, names: &[String], thread: usize, call: usize) {
    let row = TaskMetric {
        timestamp: Timestamp::from_micros(START + call as i64 * 1_000).unwrap(),
        task_id: &names[call % names.len()],
        agent_id: if thread == 0 { "agent_000" } else { "agent_001" },
        duration_ms: Some(call as i64 % 5_000),
        tokens_used: Some(900),
        success: true,
        metadata: None,
    };
    store.record_task(&row).unwrap();
}

fn threads<T: Send>(count: usize, run: &(impl Fn(usize) -> T + Sync)) -> Vec<T> {
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..count).map(|thread| scope.spawn(move || run(thread))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
