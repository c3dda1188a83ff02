//! The figures of the performance page: every question, ingest, size, opening and memory,
//! beside their aims and this machine's floor.
//!
//! `cargo bench --bench workload` prints them; `benches/README.md` says what each row
//! means. Every answer is checked against a plain computation over the generated rows
//! before it is timed.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

mod aged;
mod arguments;
mod data;
mod dump;
mod floor;
mod guard;
mod ingest;
mod lifecycle;
mod measure;
mod memory;
mod questions;
mod report;
mod serve;
mod stores;
mod truth;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value as Json, json};
use tallystone::Table;
use tallystone::column::Batch;

use arguments::{Arguments, Mode};
use data::{Asked, BULK_ROWS, SEED, gauges, tasks};
use floor::Kernel;
use ingest::Ingest;
use lifecycle::Lifecycle;
use measure::{Effort, timed};
use questions::{Kind, QUESTIONS, Question, Subject};
use report::{Figure, Report, heading, say};
use stores::{bytes_of_files, open, prepare};
use truth::Truth;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let rows = arguments.rows[0];
    // Without --keep the stores go when this is dropped.
    let scratch = tempfile::tempdir_in("target").map_err(|error| format!("target: {error}"))?;
    let folder = |rows: usize| -> PathBuf {
        arguments.keep.as_deref().unwrap_or(scratch.path()).join(rows.to_string())
    };
    match &arguments.mode {
        Mode::Dump(dir) => dump::dump(dir, rows),
        Mode::Serve => serve::serve(&folder(rows), rows),
        Mode::Guard { write } => {
            guard::guard(arguments.keep.as_deref().unwrap_or(scratch.path()), *write)?;
        }
        Mode::Aged => {
            let mut report = Report::default();
            aged::aged(scratch.path(), rows, Effort::new(arguments.smoke), &mut report);
        }
        Mode::Child(what, dir) => memory::run_child(what, dir, rows),
        Mode::Measure => {
            if let Some(id) = &arguments.repeat {
                let question = Question::named(id).ok_or_else(|| format!("no question {id}"))?;
                serve::repeat(&folder(rows), rows, question, arguments.times);
                return Ok(());
            }
            let report = measure(arguments, scratch.path(), folder);
            if arguments.publish {
                let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/README.md");
                report::publish(&page)?;
            }
            if arguments.assert_summaries && !report.broken_summaries.is_empty() {
                return Err(format!("read blocks: {}", report.broken_summaries.join(", ")));
            }
        }
    }
    Ok(())
}

fn measure(arguments: &Arguments, scratch: &Path, folder: impl Fn(usize) -> PathBuf) -> Report {
    let effort = Effort::new(arguments.smoke);
    let mut facts = machine();
    let text = |name: &str| facts[name].as_str().unwrap_or_default();
    say(&format!(
        "tallystone {}, {}; {}, {} cores",
        text("crate"),
        text("rustc"),
        text("cpu"),
        facts["cores"]
    ));
    facts["floor"] = floor::machine(scratch, effort);
    let mut report = Report::default();
    for rows in &arguments.rows {
        let span = rows / 400;
        say(&format!("\n{rows} tasks over 7 days, {rows} gauges over {span} s, 500 agents"));
        let dir = folder(*rows);
        let asked = prepare(&dir, *rows);
        let bytes = |table| bytes_of_files(&stores::place(&dir, table));
        facts["bytes_of_stores"][rows.to_string()] =
            json!({"tasks": bytes(Table::Task), "gauges": bytes(Table::Agent)});
        let size = Size { rows: *rows, dir: &dir, scratch, effort, arguments, asked: &asked };
        size.table(Table::Task, &tasks(*rows, BULK_ROWS, SEED), &mut report);
        size.table(Table::Agent, &gauges(*rows, BULK_ROWS, SEED), &mut report);
        if arguments.wants(&["open", "first"]) {
            memory::opening(&dir, *rows, effort.runs_min * 2, &mut report);
        }
        if arguments.wants(&["memory", "T-memory", "G-memory", "T-load"]) {
            memory::memory(&dir, scratch, *rows, &mut report);
        }
    }
    if let [few, many, ..] = arguments.rows[..] {
        let most = |id: &str| Question::named(id).map(|question| question.kind.growth_max());
        report.growth(few, many, most);
    }
    if let Some(path) = &arguments.json {
        write(path, &report.json(facts));
    }
    report
}

#[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
fn write(path: &Path, json: &Json) {
    std::fs::write(path, serde_json::to_string_pretty(json).unwrap()).unwrap();
}

/// What the figures were measured on.
#[expect(clippy::disallowed_methods, reason = "what the kernel says of the machine")]
fn machine() -> Json {
    let info = std::fs::read("/proc/cpuinfo").unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let compiler = Command::new("rustc").arg("-V").output();
    let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    json!({
        "crate": env!("CARGO_PKG_VERSION"),
        "rustc": compiler.unwrap_or_else(|_| "rustc unknown".to_owned()),
        "cpu": model.map_or("unknown", |(_, model)| model),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// The figures of one number of rows.
struct Size<'a> {
    rows: usize,
    dir: &'a Path,
    scratch: &'a Path,
    effort: Effort,
    arguments: &'a Arguments,
    asked: &'a Asked,
}

impl Size<'_> {
    fn table(&self, table: Table, batches: &[Batch], report: &mut Report) {
        let ingest = Ingest {
            table,
            rows: self.rows,
            dir: self.scratch,
            effort: self.effort,
            arguments: self.arguments,
        };
        ingest.run(batches, report);
        let (rows, dir, arguments) = (self.rows, self.scratch, self.arguments);
        Lifecycle { table, rows, dir, arguments }.run(batches, report);
        let wanted = |question: &&Question| {
            let group = if table == Table::Task { "tasks" } else { "gauges" };
            question.table == table && self.arguments.wants(&[question.id, group])
        };
        let questions: Vec<&Question> = QUESTIONS.iter().filter(wanted).collect();
        if questions.is_empty() {
            return;
        }
        heading(&format!("Questions about {table}"));
        let (subject, _stores) = open(self.dir, self.asked);
        let plain = Plain::of(table, batches, self.asked, &self.scratch.join("floor"));
        let truth = match table {
            Table::Task => Truth::of_tasks(batches, self.asked),
            _ => Truth::of_gauges(batches, self.asked),
        };
        for question in questions {
            self.question(question, &subject, &truth, &plain, report);
        }
    }

    fn question(
        &self,
        question: &Question,
        subject: &Subject,
        truth: &Truth<'_>,
        plain: &Plain<'_>,
        report: &mut Report,
    ) {
        let (cold, reply) = question.timed(subject);
        let rank_error = truth.check(question.id, &reply);
        let blocks = reply.blocks_read().unwrap_or(0);
        drop(reply);
        let timing = self.effort.repeat(|| question.timed(subject).0);
        let mut figure = Figure::new(question.id, question.title, self.rows, "ms", timing.min_ms());
        figure.median = timing.median_ms();
        figure.runs = timing.runs();
        if self.rows >= 500_000 {
            figure = figure.aim(question.aims_ms[usize::from(self.rows >= 3_000_000)]);
        }
        if let Some(mut kernel) = plain.kernel(question.id) {
            let floor = self.effort.repeat(|| timed(&mut kernel));
            figure = figure.floor(floor.min_ms());
        }
        if question.kind == Kind::Summary && blocks > 0 {
            figure = figure.note(format!("READS {blocks} BLOCKS"));
            report.broken_summaries.push(question.id.to_owned());
        }
        if let Some(error) = rank_error {
            figure = figure.note(format!("rank error {error:.6}"));
        }
        let cold = measure::millis(cold);
        report.add(figure.note(format!("first {cold:.2}")));
    }
}

/// Raw columns of either table.
enum Plain<'a> {
    Tasks(Box<floor::Tasks<'a>>),
    Gauges(Box<floor::Gauges<'a>>),
}

impl<'a> Plain<'a> {
    fn of(table: Table, batches: &'a [Batch], asked: &Asked, file: &Path) -> Self {
        match table {
            Table::Task => Self::Tasks(Box::new(floor::Tasks::of(batches, asked, file))),
            _ => Self::Gauges(Box::new(floor::Gauges::of(batches, asked))),
        }
    }

    fn kernel(&self, id: &str) -> Option<Kernel<'_>> {
        match self {
            Self::Tasks(tasks) => tasks.kernel(id),
            Self::Gauges(gauges) => gauges.kernel(id),
        }
    }
}
