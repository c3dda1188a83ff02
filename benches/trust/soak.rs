//! A soak: one process that writes, maintains and asks for hours, and must not grow.
//!
//! A case is a minute. A store lives through half an hour of its clock in each second, so that
//! rows pass through every tier and expire all the time; from the moment at which as much
//! expires as arrives, memory, descriptors, maps, threads and files must stay what they are.
//! `tests/trust-soak.csv` keeps the figures of each minute.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallystone::testing::trust::rows::{DAYS, Hand, START};
use tallystone::testing::trust::{Verdict, ensure};
use tallystone::time::MICROS_PER_DAY;
use tallystone::{
    AgentMetric, Aggregation, Filter, Interval, MaintenanceRequest, Options, Percentile, Retention,
    Store, Table, TableRetention, Tiers, Timestamp, TopBy,
};
use tallystone::{Order, TaskMetric};

use crate::campaigns::Trial;

/// Time of the store in a second.
const STEP: Duration = Duration::from_secs(1_800);
const STEPS_A_DAY: u64 = 48;
/// Rows are gone after 16 days: thirteen minutes.
const TIERS: Tiers = Tiers { detailed_days: 2, archive_days: 4, hourly_days: 8, daily_days: 16 };
const ROWS_A_STEP: u64 = 2_000;
const AGENTS: u64 = 100;
/// Minutes until as much expires as arrives, and those after them whose largest figures are the
/// measure of all later ones.
const WARM: usize = 20;
const MEASURE: usize = 10;

/// What the process holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    rows: u64,
    memory_kib: u64,
    descriptors: u64,
    maps: u64,
    threads: u64,
    disk_bytes: u64,
}

impl Held {
    /// The larger of each.
    fn max(self, other: Self) -> Self {
        Self {
            rows: self.rows.max(other.rows),
            memory_kib: self.memory_kib.max(other.memory_kib),
            descriptors: self.descriptors.max(other.descriptors),
            maps: self.maps.max(other.maps),
            threads: self.threads.max(other.threads),
            disk_bytes: self.disk_bytes.max(other.disk_bytes),
        }
    }

    /// Whether nothing is larger than it was, but for what differs from minute to minute.
    fn is_like(self, most: Self) -> bool {
        self.memory_kib <= most.memory_kib + most.memory_kib / 5
            && self.descriptors <= most.descriptors + most.descriptors / 5
            && self.maps <= most.maps + most.maps / 5
            && self.threads <= most.threads
            && self.disk_bytes <= most.disk_bytes + most.disk_bytes / 5
    }
}

/// The soak under way.
pub(crate) struct Soak {
    place: tempfile::TempDir,
    clock: Arc<Hand>,
    store: Store,
    reader: Store,
    step: u64,
    minutes: Vec<Held>,
    figures: PathBuf,
}

/// Why there is no soak here.
pub(crate) fn missing() -> Option<String> {
    (!Path::new("/proc/self/smaps_rollup").exists()).then(|| "no /proc".to_owned())
}

fn options(clock: &Arc<Hand>) -> Options {
    Options {
        clock: Arc::<Hand>::clone(clock),
        unlink_grace: Duration::from_secs(30),
        flush_interval: Duration::from_millis(200),
        ..Options::default()
    }
}

impl Soak {
    pub(crate) fn begin() -> Verdict<Self> {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let clock = Hand::new();
        let dir = place.path().join("store");
        let store = Store::open_with(&dir, options(&clock))?;
        let rule = TableRetention::Tiers(TIERS);
        store.set_retention(&Retention {
            task: rule,
            agent: rule,
            swarm: rule,
            ..Retention::KEEP
        })?;
        let reader = Store::open_read_only(&dir)?;
        let figures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trust-soak.csv");
        Ok(Self { place, clock, store, reader, step: 0, minutes: Vec::new(), figures })
    }

    fn now(&self) -> i64 {
        let steps = i64::try_from(self.step).unwrap();
        START + DAYS * MICROS_PER_DAY + steps * i64::try_from(STEP.as_micros()).unwrap()
    }

    /// Half an hour of the store.
    fn step(&mut self) -> Verdict {
        let now = self.now();
        let mut appender = self.store.appender()?;
        let mut text = String::new();
        for row in 0..ROWS_A_STEP {
            let number = self.step * ROWS_A_STEP + row;
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            text.clear();
            let agent = mixed >> 40;
            write!(text, "agent-{} task-{number} {{\"seed\":{mixed}}}", agent % AGENTS).unwrap();
            let mut words = text.split(' ');
            let mut word = || words.next().unwrap();
            let micros = i64::try_from(row).unwrap() * 900_000;
            let timestamp = Timestamp::from_micros(now + micros)?;
            let agent_id = word();
            appender.append_task(&TaskMetric {
                timestamp,
                task_id: word(),
                agent_id,
                duration_ms: i64::try_from(mixed >> 51).ok(),
                tokens_used: i64::try_from(mixed >> 52).ok(),
                success: mixed & 15 != 0,
                metadata: (row % 8 == 0).then(word),
            })?;
            if row % 4 == 0 {
                let value = f64::from(u32::try_from(mixed >> 48).unwrap());
                let metric_type = "queue";
                appender.append_agent(&AgentMetric {
                    timestamp,
                    agent_id,
                    metric_type,
                    value,
                    metadata: None,
                })?;
            }
        }
        appender.commit()?;
        self.clock.advance(STEP);
        self.step += 1;
        match self.step % STEPS_A_DAY {
            0 => {
                let request = MaintenanceRequest { accept_clock: true, ..Default::default() };
                self.store.maintain(&request)?;
            }
            12 => self.store.flush()?,
            24 => self.store.seal()?,
            // Other handles come and go.
            36 => {
                let other =
                    Store::open_with(self.place.path().join("store"), options(&self.clock))?;
                self.ask(&other)?;
                other.close()?;
            }
            _ => {}
        }
        self.ask(&self.store)?;
        self.ask(&self.reader)
    }

    /// Asks most of what can be asked.
    fn ask(&self, store: &Store) -> Verdict {
        let snapshot = store.snapshot()?;
        let (all, field) = (Filter::new(), "duration_ms");
        let stats = snapshot.summary_stats(Percentile::Estimate, &all)?.value;
        ensure(stats.total_tasks > 0 && stats.successful_tasks <= stats.total_tasks, || {
            format!("{stats:?}")
        })?;
        let (from, to) = (self.now() - MICROS_PER_DAY, self.now());
        let last =
            Filter::new().between(Timestamp::from_micros(from)?, Timestamp::from_micros(to)?);
        snapshot.percentile(Table::Task, field, 0.99, Percentile::Exact, &last)?;
        snapshot.aggregate_by_time(Table::Task, field, Interval::Hour, Aggregation::Avg, &all)?;
        snapshot.top_agents(TopBy::AvgDurationMs, Order::Ascending, &last.clone().limit(5))?;
        snapshot.slowest_tasks(&last.clone().limit(5))?;
        let rows = snapshot.task_metrics(&last.agent("agent-7").limit(100))?.rows.len();
        ensure(rows > 0, || "an agent without tasks in a day".to_owned())
    }

    fn held(&self) -> Verdict<Held> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let status = read("/proc/self/status");
        let stats = self.store.stats()?;
        Ok(Held {
            rows: self.step * ROWS_A_STEP,
            // What no other process has, and no file can give back.
            memory_kib: number(&status, "RssAnon:"),
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            maps: read("/proc/self/maps").lines().count() as u64,
            threads: number(&status, "Threads:"),
            disk_bytes: stats.tables.iter().map(|table| table.bytes).sum::<u64>()
                + stats.replaced_bytes,
        })
    }

    fn keep(&self, minute: u64, held: Held) {
        let mut text = String::new();
        if minute == 0 {
            text.push_str("minute,rows,memory_kib,descriptors,maps,threads,disk_bytes\n");
        }
        let Held { rows, memory_kib, descriptors, maps, threads, disk_bytes } = held;
        writeln!(text, "{minute},{rows},{memory_kib},{descriptors},{maps},{threads},{disk_bytes}")
            .unwrap();
        let mut options = std::fs::OpenOptions::new();
        let append = minute > 0;
        let options = options.create(true).write(true).append(append).truncate(!append);
        options.open(&self.figures).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Trial for Soak {
    fn check(&mut self, minute: u64) -> Verdict<u64> {
        let begun = Instant::now();
        let mut most = Held::default();
        for second in 1..=60 {
            self.step()?;
            most = most.max(self.held()?);
            std::thread::sleep(Duration::from_secs(second).saturating_sub(begun.elapsed()));
        }
        self.keep(minute, most);
        self.minutes.push(most);
        if let Some(measure) = self.minutes.get(WARM..WARM + MEASURE) {
            let bound = measure.iter().copied().fold(Held::default(), Held::max);
            ensure(most.is_like(bound), || {
                format!("minute {minute}: {most:?}, and at most {bound:?} before")
            })?;
        }
        Ok(1)
    }
}
