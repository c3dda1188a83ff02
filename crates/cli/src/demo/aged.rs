//! A hundred days in a few seconds: a store whose clock is set forward day by day, so that
//! its rows age through every tier, and what it still says of a day whose rows are gone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tallystone::time::{Boot, Clock, MICROS_PER_DAY, MICROS_PER_SECOND};
use tallystone::{
    Durability, Filter, MaintenanceRequest, Options, Percentile, Store, Table, TaskMetric,
    Timestamp,
};

use crate::demo::recordings;
use crate::failure::Failure;
use crate::output::{self, Cell, Columns, Record};

/// Days that go by.
const DAYS: i64 = 100;
/// Tasks a day, more on some than on others.
const TASKS: usize = 2_400;
/// Agents that they are of.
const AGENTS: usize = 6;
/// The first day: 2026-06-01.
const START: i64 = 1_780_272_000 * MICROS_PER_SECOND;
/// Ages of the days that are asked about.
const AGES: [i64; 3] = [3, 20, 80];

/// A clock that is set by hand, of a machine that has been running all the while.
#[derive(Debug)]
struct Hand(AtomicI64);

impl Hand {
    fn micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros()).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.micros().unsigned_abs())
    }

    fn boot(&self) -> Boot {
        Boot { id: [1; 16], uptime: self.elapsed() }
    }
}

/// What the store says of one day, and what was true.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    day: String,
    age_days: i64,
    tier: &'static str,
    tasks: u64,
    p99_ms: f64,
    true_p99_ms: i64,
    rank_error: f64,
    true_rank_error: f64,
}

const ASKED: Columns<'static> =
    &["day", "age", "answered by", "tasks", "p99 ms", "true p99 ms", "bound", "off by"];

impl Record for Asked {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(&self.day),
            Cell::count(self.age_days.unsigned_abs()),
            Cell::text(self.tier),
            Cell::count(self.tasks),
            Cell::Float((self.p99_ms * 10.0).round() / 10.0),
            Cell::count(self.true_p99_ms.unsigned_abs()),
            Cell::Float((self.rank_error * 1e6).round() / 1e6),
            Cell::Float((self.true_rank_error * 1e6).round() / 1e6),
        ]
    }
}

/// What became of the hundred days.
#[derive(Debug, Serialize)]
pub(super) struct Aged {
    dir: PathBuf,
    days: i64,
    rows: u64,
    rows_left: u64,
    asked: Vec<Asked>,
}

/// Where the aged store of a demo lies.
pub(super) fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push("-aged");
    dir.with_file_name(name)
}

/// Builds the store in `dir` and asks it.
pub(super) fn age(dir: &Path) -> Result<Aged, Failure> {
    let clock = Arc::new(Hand(AtomicI64::new(START)));
    let options = Options {
        durability: Durability::Os,
        buffer_rows: 8_192,
        unlink_grace: Duration::ZERO,
        maintenance: None,
        clock: Arc::<Hand>::clone(&clock),
        ..Options::default()
    };
    let mut recorded = Vec::new();
    recordings::vm_runs(|row| {
        recorded.extend(row.duration_ms);
        Ok(())
    })?;
    let store = Store::open_with(dir, options)?;
    let mut days: Vec<Vec<i64>> = Vec::new();
    let mut rows = 0;
    for day in 0..DAYS {
        let durations = write_day(&store, day, &recorded)?;
        rows += durations.len() as u64;
        days.push(durations);
        clock.0.store(START + (day + 1) * MICROS_PER_DAY, Ordering::Relaxed);
        store.maintain(&MaintenanceRequest::default())?;
    }
    let asked = AGES.iter().map(|age| ask(&store, *age, &mut days)).collect::<Result<_, _>>()?;
    let all = store.snapshot()?.aggregate(Table::Task, "duration_ms", &Filter::new())?;
    store.close()?;
    Ok(Aged { dir: dir.to_path_buf(), days: DAYS, rows, rows_left: all.value.rows, asked })
}

/// Appends the tasks of a day; gives back how long they took. The durations are recorded,
/// which task took which is not.
fn write_day(store: &Store, day: i64, recorded: &[i64]) -> Result<Vec<i64>, Failure> {
    let count = TASKS + usize::try_from(day % 7).unwrap_or(0) * 60;
    let first = usize::try_from(day).unwrap_or(0) * 997;
    let mut appender = store.appender()?;
    let mut durations = Vec::with_capacity(count);
    for number in 0..count {
        let recorded = recorded[(first + number * 31) % recorded.len()];
        // Work gets a little slower from day to day.
        let duration = recorded + recorded * day / 400;
        let step = MICROS_PER_DAY / i64::try_from(count).unwrap_or(i64::MAX);
        let stamp = START + day * MICROS_PER_DAY + step * i64::try_from(number).unwrap_or(0);
        appender.append_task(&TaskMetric {
            timestamp: Timestamp::from_micros(stamp)?,
            task_id: &format!("day{day:03}_{number:05}"),
            agent_id: ["ada", "bob", "cy", "dee", "eve", "flo"][number % AGENTS],
            duration_ms: Some(duration),
            tokens_used: None,
            success: number % 40 != 7,
            metadata: None,
        })?;
        durations.push(duration);
    }
    appender.commit()?;
    Ok(durations)
}

/// Asks for the p99 of a day, and compares it with the durations that were written.
#[expect(clippy::cast_precision_loss, reason = "a day has some thousand tasks")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the definition of the rank"
)]
fn ask(store: &Store, age_days: i64, days: &mut [Vec<i64>]) -> Result<Asked, Failure> {
    let day = DAYS - 1 - age_days;
    let from = Timestamp::from_micros(START + day * MICROS_PER_DAY)?;
    let to = Timestamp::from_micros(START + (day + 1) * MICROS_PER_DAY)?;
    let filter = Filter { strict: true, ..Filter::new().between(from, to) };
    let snapshot = store.snapshot()?;
    let answer =
        snapshot.percentile(Table::Task, "duration_ms", 0.99, Percentile::Exact, &filter)?;
    let truth = &mut days[usize::try_from(day).unwrap_or(0)];
    truth.sort_unstable();
    let rank = ((truth.len() as f64 * 0.99) as usize).min(truth.len() - 1);
    let found = answer.value;
    let value = found.value.map_or(0.0, |value| value.as_f64());
    let before = truth.partition_point(|other| (*other as f64) < value) as f64;
    let upto = truth.partition_point(|other| (*other as f64) <= value) as f64;
    let off = (before - rank as f64).max(rank as f64 + 1.0 - upto).max(0.0);
    let coverage = &answer.coverage;
    let tier = match (coverage.daily.is_empty(), coverage.hourly.is_empty()) {
        (false, _) => "daily rollup",
        (_, false) => "hourly rollup",
        _ if age_days >= 7 => "archived rows",
        _ => "rows",
    };
    Ok(Asked {
        day: from.to_string().chars().take(10).collect(),
        age_days,
        tier,
        tasks: found.count,
        p99_ms: value,
        true_p99_ms: truth[rank],
        rank_error: found.rank_error,
        true_rank_error: off / truth.len() as f64,
    })
}

impl Aged {
    /// Prints what became of the days.
    pub(super) fn print(&self, out: &mut impl Write) -> Result<(), Failure> {
        let rows = output::thousands(self.rows);
        writeln!(out, "  {rows} tasks over {} days, by a clock that was set forward,", self.days)?;
        writeln!(out, "  in {}: rows for 7 days, archives to 30, days to 90.", self.dir.display())?;
        writeln!(
            out,
            "  It still counts {} of them; older days are gone.\n",
            output::thousands(self.rows_left)
        )?;
        output::table(out, 2, ASKED, &self.asked)?;
        writeln!(
            out,
            "  \"bound\": how far the rank of an answer can be off, as a share; \"off by\": how far it is."
        )?;
        Ok(())
    }
}
