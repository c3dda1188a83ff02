//! A store of 90 days in every tier, and what it takes to ask about all of them.
//!
//! Owns the clock that is set forward, and the days: the workload's week of tasks, over and
//! over.

#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tallystone::column::{Batch, Values};
use tallystone::testing::workload::START;
use tallystone::time::{Boot, Clock, MICROS_PER_DAY};
use tallystone::{
    Aggregation, Durability, Filter, Interval, MaintenanceRequest, Options, Percentile, Retention,
    Store, Table, TableRetention, Tiers, Timestamp,
};

use crate::data::{BULK_ROWS, SEED, tasks};
use crate::measure::{Effort, millis, timed};
use crate::report::{Figure, Report, heading};
use crate::stores::options;

/// Weeks that go by: 91 days, of which the first is gone.
const WEEKS: i64 = 13;

/// Rows for a week, archives to a month, hours to the end.
const TIERS: Tiers = Tiers { detailed_days: 7, archive_days: 30, hourly_days: 90, daily_days: 90 };

#[derive(Debug)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed).unsigned_abs())
    }

    fn boot(&self) -> Boot {
        Boot { id: [1; 16], uptime: self.elapsed() }
    }
}

fn aged_options(clock: &Arc<Hand>) -> Options {
    Options { maintenance: None, clock: Arc::<Hand>::clone(clock), ..options(Durability::Os) }
}

/// The rows of a batch so much later.
fn later(batch: &Batch, micros: i64) -> Batch {
    let mut batch = batch.clone();
    if let Values::Int(stamps) = &mut batch.columns[0].values {
        stamps.iter_mut().for_each(|stamp| *stamp += micros);
    }
    batch
}

/// Builds the store in `dir` and asks it.
pub(crate) fn aged(dir: &Path, rows: usize, effort: Effort, report: &mut Report) {
    let week = tasks(rows / usize::try_from(WEEKS).unwrap(), BULK_ROWS, SEED);
    let clock = Arc::new(Hand(AtomicI64::new(START)));
    let place = dir.join("aged");
    let store = Store::open_with(&place, aged_options(&clock)).unwrap();
    let rule = TableRetention::Tiers(TIERS);
    store.set_retention(&Retention { task: rule, ..Retention::KEEP }).unwrap();
    let (mut appending, mut maintaining) = (Duration::ZERO, Duration::ZERO);
    for number in 0..WEEKS {
        let shift = number * 7 * MICROS_PER_DAY;
        appending += timed(|| {
            let mut appender = store.appender().unwrap();
            for batch in &week {
                appender.append_columns(Table::Task, later(batch, shift)).unwrap();
            }
            appender.flush().unwrap();
        });
        clock.0.store(START + shift + 7 * MICROS_PER_DAY, Ordering::Relaxed);
        maintaining += timed(|| {
            store.maintain(&MaintenanceRequest::default()).unwrap();
            // What was replaced goes with the next.
            store.maintain(&MaintenanceRequest::default()).unwrap();
        });
    }
    let sizes = store.stats().unwrap().tables;
    store.close().unwrap();
    drop(store);
    heading("A store of 90 days");
    let of = |name: &str, what: &str, unit: &'static str, value: f64| {
        Figure::new(name, what, rows, unit, value)
    };
    let rate = |took: Duration| rows as f64 / took.as_secs_f64() / 1e6;
    let mut figure = of("age", "all maintenance of its life", "M rows/s", rate(maintaining));
    figure.higher_is_better = true;
    report.add(figure.note(format!("appended at {:.1} M rows/s", rate(appending))));
    for kind in sizes {
        let per_row = kind.bytes as f64 / kind.rows.max(1) as f64;
        let what = format!("size of {} files of kind {}", kind.files, kind.kind);
        report.add(of("size", &what, "B/row", per_row).note(format!("{} rows", kind.rows)));
    }
    let (mut opened, mut first_hours, mut first_p99) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hours, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..effort.runs_min.max(3) {
        let start = Instant::now();
        let store = Store::open_with(&place, aged_options(&clock)).unwrap();
        let snapshot = store.snapshot().unwrap();
        opened.push(millis(start.elapsed()));
        let ask_hours = || {
            let all = snapshot
                .aggregate_by_time(
                    Table::Task,
                    "duration_ms",
                    Interval::Hour,
                    Aggregation::Avg,
                    &Filter::new(),
                )
                .unwrap();
            assert!(all.coverage.unanswerable.is_empty() && all.rows.len() >= 90 * 24);
        };
        let ask_p99 = || {
            let all = snapshot
                .percentile(Table::Task, "duration_ms", 0.99, Percentile::Exact, &Filter::new())
                .unwrap();
            assert!(all.coverage.unanswerable.is_empty() && !all.value.exact);
            all.value.rank_error
        };
        first_hours.push(millis(timed(ask_hours)));
        first_p99.push(millis(timed(ask_p99)));
        hours.push(effort.repeat(|| timed(ask_hours)).min_ms());
        p99.push(effort.repeat(|| timed(ask_p99)).min_ms());
    }
    let add = |report: &mut Report, name: &str, what: &str, values: Vec<f64>, aim: f64| {
        report.add(of(name, what, "ms", 0.0).runs(values, false).aim(aim));
    };
    add(report, "open", "open for writing, and a snapshot", opened, 20.0);
    add(report, "hours-1st", "hourly average of 90 days, the first time", first_hours, 50.0);
    add(report, "hours", "the same again", hours, 50.0);
    add(report, "p99-1st", "p99 of 90 days, the first time", first_p99, 50.0);
    add(report, "p99", "the same again", p99, 50.0);
}
