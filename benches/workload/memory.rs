//! What is measured in a process of its own: opening, and anonymous memory.
//!
//! The program starts itself as `child WHAT DIR`; the child prints one line of JSON.
//! Owns reading `RssAnon`, which mapped pages of files do not count in.

use std::io::{Read, Seek};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tallystone::testing::workload::Tasks;
use tallystone::{Durability, Filter, Store, Table};

use crate::data::{Asked, BULK_ROWS, SEED};
use crate::measure::millis;
use crate::questions::QUESTIONS;
use crate::report::{Figure, Report, heading};
use crate::stores::{create, open, place};

/// Questions whose answers are copies that the caller owns.
const COPIES: [&str; 2] = ["Q10c", "A6c"];

/// Starts the program again.
pub(crate) fn child(what: &str, dir: &Path, rows: usize) -> Json {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["child", what]).arg(dir).args(["--rows", &rows.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Opening and the first answer, in new processes.
pub(crate) fn opening(dir: &Path, rows: usize, runs: usize, report: &mut Report) {
    heading("Opening, in a new process");
    let found: Vec<Json> = (0..runs).map(|_| child("open", dir, rows)).collect();
    let of = |name: &str| found.iter().map(|run| run[name].as_f64().unwrap()).collect();
    let open = Figure::new("open", "open read-only and take a snapshot", rows, "ms", 0.0);
    report.add(open.runs(of("open_ms"), false).aim(2.0));
    let first = Figure::new("first", "the first Q1", rows, "ms", 0.0);
    report.add(first.runs(of("first_ms"), false).aim(0.5));
}

/// Peaks of anonymous memory.
pub(crate) fn memory(dir: &Path, scratch: &Path, rows: usize, report: &mut Report) {
    heading("Anonymous memory over the process's base");
    for (id, table, aim) in [("T-memory", Table::Task, 16.0), ("G-memory", Table::Agent, 0.0)] {
        let found = child(table.name(), dir, rows);
        let what = format!("{table}: all questions but owned copies, peak");
        let figure = Figure::new(id, &what, rows, "MiB", found["peak_mib"].as_f64().unwrap());
        let most = found["most"].as_str().unwrap_or_default();
        report.add(figure.aim(aim).note(format!("peak in {most}")));
    }
    let found = child("load", scratch, rows);
    std::fs::remove_dir_all(scratch.join("load")).unwrap();
    let what = format!("bulk load of tasks in batches of {BULK_ROWS}, peak over one batch");
    let figure = Figure::new("T-load", &what, rows, "MiB", found["peak_mib"].as_f64().unwrap());
    report.add(figure.aim(32.0));
}

/// Runs in the child.
pub(crate) fn run_child(what: &str, dir: &Path, rows: usize) {
    let line = match what {
        "open" => first_answer(dir),
        "load" => bulk_load(dir, rows),
        "compact" => crate::lifecycle::compact(dir),
        table => questions(dir, Table::parse(table).unwrap()),
    };
    println!("{line}");
}

fn first_answer(dir: &Path) -> Json {
    let start = Instant::now();
    let store = Store::open_read_only(place(dir, Table::Task)).unwrap();
    let snapshot = store.snapshot().unwrap();
    let opened = start.elapsed();
    let answer = snapshot.aggregate(Table::Task, "duration_ms", &Filter::new()).unwrap();
    let first = start.elapsed() - opened;
    assert!(answer.value.rows > 0);
    json!({"open_ms": millis(opened), "first_ms": millis(first)})
}

fn questions(dir: &Path, table: Table) -> Json {
    let watch = Watch::start();
    let asked = Asked::read(dir).unwrap();
    let (subject, _stores) = open(dir, &asked);
    let (mut most, mut peak) = ("opening", watch.peak());
    for question in QUESTIONS {
        if question.table == table && !COPIES.contains(&question.id) {
            // The second time shows what stays from the first.
            question.timed(&subject);
            question.timed(&subject);
            if watch.peak() > peak + 0.5 {
                (most, peak) = (question.id, watch.peak());
            }
        }
    }
    json!({"peak_mib": watch.peak(), "most": most})
}

fn bulk_load(dir: &Path, rows: usize) -> Json {
    let mut tasks = Tasks::new(rows, SEED);
    let mut next = tasks.next_batch(BULK_ROWS);
    let store = create(&dir.join("load"), Durability::default());
    let mut appender = store.appender().unwrap();
    let watch = Watch::start();
    while let Some(batch) = next {
        appender.append_columns(Table::Task, batch).unwrap();
        next = tasks.next_batch(BULK_ROWS);
    }
    appender.flush().unwrap();
    json!({"peak_mib": watch.peak()})
}

/// Looks at the process's anonymous memory all the time.
pub(crate) struct Watch {
    base: u64,
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let (peak, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let seen = (Arc::clone(&peak), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut status = Status::open();
            while !seen.1.load(Ordering::Relaxed) {
                seen.0.fetch_max(status.anonymous_kib(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        while peak.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        Self { base: Status::open().anonymous_kib(), peak, done }
    }

    /// MiB over the base.
    #[expect(clippy::cast_precision_loss, reason = "printed with three digits")]
    pub(crate) fn peak(&self) -> f64 {
        let now = Status::open().anonymous_kib();
        let peak = self.peak.fetch_max(now, Ordering::Relaxed).max(now);
        peak.saturating_sub(self.base) as f64 / 1024.0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

struct Status {
    file: std::fs::File,
    text: String,
}

impl Status {
    #[expect(clippy::disallowed_methods, reason = "what the kernel says of this process")]
    fn open() -> Self {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        Self { file, text: String::with_capacity(4_096) }
    }

    fn anonymous_kib(&mut self) -> u64 {
        self.text.clear();
        self.file.rewind().unwrap();
        self.file.read_to_string(&mut self.text).unwrap();
        let line = self.text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
