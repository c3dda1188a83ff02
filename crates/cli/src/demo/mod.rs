//! `tallystone demo`: a store from real recordings, and what can be asked of it.

mod aged;
mod exports;
mod questions;
mod recordings;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use tallystone::{
    Appender, Durability, Options, Result as StoreResult, Store, StoreStats, Timestamp,
};

use crate::args::{DemoArgs, Globals, ReportPeriod};
use crate::failure::{Exit, Failure};
use crate::open::{self, Contents};
use crate::output::{self, Cell, Record, thousands};
use crate::{report, stats};

pub(crate) fn run(globals: &Globals, args: &DemoArgs) -> Result<Exit, Failure> {
    let dir = match &args.dir {
        Some(dir) => expect_new(dir)?,
        None => free_name()?,
    };
    let options = Options { durability: Durability::Os, buffer_rows: 8_192, ..open::options() };
    let store = Store::open_with(&dir, options)?;
    store.keep_everything()?;
    let mut out = output::stdout();
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let steps = write(&store, &bar)?;
    bar.set_message("asking");
    let answers = questions::ask(&store.snapshot()?)?;
    let week = report::read(&store, ReportPeriod::Weekly, Some(Timestamp::parse(WEEK)?))?;
    bar.set_message("exporting");
    let exported = exports::write(&store.snapshot()?, &exports::beside(&dir))?;
    let stats = store.stats()?;
    store.close()?;
    bar.set_message("a hundred days go by");
    let aged = aged::age(&aged::beside(&dir))?;
    bar.finish_and_clear();
    let report = Report {
        dir: &dir,
        steps: &steps,
        questions: &answers,
        week: &week,
        exports: &exported,
        stats: &stats,
        aged: &aged,
    };
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        print(&mut out, &report)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    dir: &'a Path,
    steps: &'a [Step],
    questions: &'a [questions::Answered],
    week: &'a report::Report,
    exports: &'a [exports::Exported],
    stats: &'a StoreStats,
    aged: &'a aged::Aged,
}

/// Something that was done, and how long it took.
#[derive(Serialize)]
struct Step {
    name: &'static str,
    rows: Option<u64>,
    ms: f64,
}

impl Step {
    fn rows_per_second(&self) -> Option<f64> {
        self.rows
            .map(|rows| tallystone::Value::Int(rows.try_into().unwrap_or(i64::MAX)).as_f64())
            .map(|rows| rows / (self.ms / 1_000.0).max(1e-6))
    }
}

impl Record for Step {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(self.name),
            Cell::optional(self.rows, Cell::count),
            Cell::Float((self.ms * 10.0).round() / 10.0),
            Cell::optional(self.rows_per_second(), |rate| Cell::Float(rate.round())),
        ]
    }
}

fn expect_new(dir: &Path) -> Result<PathBuf, Failure> {
    for dir in [dir, &aged::beside(dir), &exports::beside(dir)] {
        if open::contents(dir)? == Contents::Something {
            let shown = dir.display();
            return Err(Failure::Other(format!("{shown}: not empty, expected a new directory")));
        }
    }
    Ok(dir.to_path_buf())
}

/// `tallystone-demo`, or with the first number that is free.
fn free_name() -> Result<PathBuf, Failure> {
    let numbered = (2..1_000).map(|number| PathBuf::from(format!("tallystone-demo-{number}")));
    std::iter::once(PathBuf::from("tallystone-demo"))
        .chain(numbered)
        .find(|dir| {
            let beside = [aged::beside(dir), exports::beside(dir)];
            !dir.exists() && !beside.iter().any(|dir| dir.exists())
        })
        .ok_or_else(|| Failure::Other("tallystone-demo-999: is there too, use --dir".to_owned()))
}

/// Writes all recordings, then makes them durable and seals them.
fn write(store: &Store, bar: &ProgressBar) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    let mut minutes = recordings::Minutes::default();
    steps.push(timed(bar, "benchmark runs on cloud machines", || {
        append(store, |to| recordings::vm_runs(|row| to.append_task(row)))
    })?);
    steps.push(timed(bar, "requests to LLM services", || {
        append(store, |to| recordings::llm_requests(&mut minutes, |row| to.append_task(row)))
    })?);
    steps.push(timed(bar, "CloudWatch gauges", || {
        append(store, |to| recordings::cloudwatch(|row| to.append_agent(row)))
    })?);
    steps.push(timed(bar, "requests per minute", || {
        append(store, |to| minutes.rows(|row| to.append_swarm(row)))
    })?);
    steps.push(timed(bar, "flush: all durable", || store.flush().map(|()| None))?);
    steps.push(timed(bar, "seal: sorted, encoded, summarised", || store.seal().map(|()| None))?);
    Ok(steps)
}

fn append(
    store: &Store,
    rows: impl FnOnce(&mut Appender) -> StoreResult<u64>,
) -> StoreResult<Option<u64>> {
    let mut appender = store.appender()?;
    let count = rows(&mut appender)?;
    appender.commit()?;
    Ok(Some(count))
}

fn timed(
    bar: &ProgressBar,
    name: &'static str,
    work: impl FnOnce() -> StoreResult<Option<u64>>,
) -> Result<Step, Failure> {
    bar.set_message(name);
    let start = Instant::now();
    let rows = work()?;
    Ok(Step { name, rows, ms: ms(start.elapsed()) })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn print(out: &mut impl Write, report: &Report<'_>) -> Result<(), Failure> {
    let Report { dir, steps, questions: answers, week, exports: exported, stats, aged } = *report;
    let shown = dir.display();
    let rows = thousands(steps.iter().filter_map(|step| step.rows).sum());
    writeln!(out, "Tallystone demo: {rows} rows of real recordings in {shown}")?;
    writeln!(out)?;
    for line in SOURCES {
        writeln!(out, "  {line}")?;
    }

    heading(out, "Written")?;
    output::table(out, 2, &["step", "rows", "ms", "rows/s"], steps)?;
    writeln!(
        out,
        "  Each day of a table is a file: many days of few rows cost more than a busy hour."
    )?;

    heading(out, "Asked")?;
    for answer in answers {
        answer.print(out, &shown.to_string())?;
    }

    heading(out, "Reported")?;
    writeln!(out, "$ tallystone --store {shown} report weekly --of {WEEK}")?;
    week.print(out, &report::Plain)?;

    heading(out, "Exported")?;
    exports::print(out, exported, &exports::beside(dir))?;

    heading(out, "On disk")?;
    output::table(out, 2, stats::COLUMNS, &stats.tables)?;
    let bytes: u64 = stats.tables.iter().map(|table| table.bytes).sum();
    let text = output::bytes(recordings::text_bytes());
    writeln!(out, "  {} for {text} of CSV", output::bytes(bytes))?;
    if stats.replaced_bytes > 0 {
        let replaced = output::bytes(stats.replaced_bytes);
        writeln!(out, "  and {replaced} of replaced files, to be deleted when nobody reads them")?;
    }

    heading(out, "Aged")?;
    aged.print(out)?;

    heading(out, "Go on")?;
    for command in GO_ON {
        writeln!(out, "  {}", command.replace("DIR", &shown.to_string()))?;
    }
    Ok(())
}

fn heading(out: &mut impl Write, title: &str) -> io::Result<()> {
    writeln!(out, "\n== {title} ==\n")
}

/// A day of the week that is reported: one with many runs.
const WEEK: &str = "2023-07-05";

const SOURCES: [&str; 6] = [
    "PostgreSQL benchmark runs on 7,502 cloud machines and requests to two LLM services:",
    "  Azure Public Dataset (Microsoft, CC-BY-4.0), in part.",
    "CloudWatch gauges of seven instances: Numenta Anomaly Benchmark (Numenta, MIT), in part.",
    "Derived, not recorded: task ids; success (always true: only finished work is recorded);",
    "  tokens as the sum of prompt and answer; the end of a run as its start and its length;",
    "  requests per minute, counted from the requests.",
];

const GO_ON: [&str; 10] = [
    "tallystone --store DIR stats",
    "tallystone --store DIR verify --deep",
    "tallystone --store DIR query summary --json",
    "tallystone --store DIR-aged stats",
    "tallystone --store DIR query percentile --field tokens_used --percentile 0.5",
    "tallystone --store DIR query task-metrics --agent-id conv --limit 20 --csv",
    "tallystone --store DIR query top-agents --metric-type avg_duration_ms --explain",
    "tallystone --store DIR dashboard --once --at 2023-11-16T19:00:00Z --window 1h",
    "tallystone --store DIR export --format csv --table agent --output DIR-exports/agents.csv",
    "tallystone --store DIR record task --task-id t1 --agent-id me --success true",
];
