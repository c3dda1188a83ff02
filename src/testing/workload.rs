//! The workload that benchmarks and size tests share: seeded, the same on every machine.
//!
//! Tasks of a fleet of 500 agents over seven days from a Monday: arrivals follow a daily
//! wave, 1 % come late, 3 % of the ids are retries, durations and tokens are lognormal
//! and correlated, metadata is null in 90 %.

use std::f64::consts::TAU;
use std::sync::Arc;

use crate::column::{Batch, Bitmap, Column, Strings, Values};
use crate::schema::Table;
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND};

/// 2026-11-16T00:00:00Z, a Monday, in microseconds since 1970.
pub const START: i64 = 1_794_787_200 * MICROS_PER_SECOND;
/// Days that the workload covers.
pub const DAYS: i64 = 7;
/// Agents of the fleet.
pub const AGENTS: usize = 500;

/// A small generator of random numbers (SplitMix64: Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    /// A number from 0 up to, not including, 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether an event of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A standard normal number (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

/// Generates the tasks in order of arrival.
#[derive(Debug)]
pub struct Tasks {
    rows: usize,
    next: usize,
    random: Random,
    agents: Arc<Strings>,
    /// Cumulative share of the agents' ranks, and which agent has the rank.
    shares: Vec<(f64, u32)>,
    /// Speed of each agent.
    speeds: Vec<f64>,
    newest_task: u64,
}

impl Tasks {
    /// `rows` tasks over the seven days.
    pub fn new(rows: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let names: Vec<String> = (0..AGENTS).map(|agent| format!("agent_{agent:03}")).collect();
        let mut order: Vec<u32> = (0..).take(AGENTS).collect();
        for index in (1..order.len()).rev() {
            let other = usize::try_from(random.below(index as u64 + 1)).unwrap_or(0);
            order.swap(index, other);
        }
        let mut total = 0.0;
        let mut rank = 0.0_f64;
        let mut shares = Vec::with_capacity(AGENTS);
        for agent in order {
            rank += 1.0;
            total += rank.powf(-0.9);
            shares.push((total, agent));
        }
        shares.iter_mut().for_each(|(share, _)| *share /= total);
        let speeds = (0..AGENTS).map(|_| (0.15 * random.normal()).exp()).collect();
        let agents = Arc::new(names.iter().map(String::as_str).collect());
        Self { rows, next: 0, random, agents, shares, speeds, newest_task: 0 }
    }

    /// The next rows, at most `most` of them; `None` when all have been given.
    pub fn next_batch(&mut self, most: usize) -> Option<Batch> {
        let count = most.min(self.rows - self.next);
        if count == 0 {
            return None;
        }
        let mut columns = TaskColumns::default();
        for _ in 0..count {
            let stamp = self.stamp();
            self.row(stamp, &mut columns);
            self.next += 1;
        }
        Some(columns.into_batch(&self.agents))
    }

    /// Arrival of the next row: the point at which the wave has brought its share.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "times of seven days in milliseconds"
    )]
    fn stamp(&mut self) -> i64 {
        let days = DAYS as f64;
        let share = (self.next as f64 + 0.5) / self.rows as f64 * days;
        // Solves t + 0.6 / tau * (1 - cos(tau t)) = share; the left side rises.
        let (mut low, mut high) = (share - 0.2, share + 0.01);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            let brought = middle + 0.6 / TAU * (1.0 - (TAU * middle).cos());
            if brought < share { low = middle } else { high = middle }
        }
        let millis = (low.clamp(0.0, days) * 86_400_000.0) as i64;
        let late = self.random.chance(0.01);
        let delay = if late { self.random.below(300_000) } else { 0 };
        let last = DAYS * 86_400_000 - 1;
        START + (millis - delay as i64).clamp(0, last) * 1_000
    }

    #[expect(clippy::cast_possible_truncation, reason = "durations and tokens are far below 2^63")]
    fn row(&mut self, stamp: i64, columns: &mut TaskColumns) {
        let random = &mut self.random;
        let task = if random.chance(0.03) {
            self.newest_task.saturating_sub(random.below(100))
        } else {
            self.newest_task += 1;
            self.newest_task
        };
        let share = random.unit();
        let rank = self.shares.partition_point(|(until, _)| *until < share).min(AGENTS - 1);
        let agent = self.shares[rank].1;
        let (a, b) = (random.normal(), random.normal());
        let mut duration = (7.3 + 0.9 * a).exp();
        if random.chance(0.005) {
            duration += -30_000.0 * (1.0 - random.unit()).ln();
        }
        duration *= self.speeds[agent as usize];
        let correlated = 0.7 * a + (1.0 - 0.7_f64 * 0.7).sqrt() * b;
        let tokens = (6.2 + 0.8 * correlated).exp();
        columns.stamps.push(stamp);
        columns.tasks.push(&format!("task_{task:07}"));
        columns.agents.push(agent);
        columns.durations.push(duration as i64);
        columns.tokens.push(tokens as i64);
        columns.success.push(random.chance(0.97));
        let metadata = random.chance(0.1).then(|| {
            format!(
                r#"{{"model":"model-{}","region":"region-{}","trace":"{:08x}"}}"#,
                random.below(4),
                random.below(4),
                random.below(100_000).wrapping_mul(0x9E37_79B1) & 0xFFFF_FFFF
            )
        });
        columns.metadata.push(metadata.as_deref().unwrap_or(""));
        columns.has_metadata.push(metadata.is_some());
    }
}

#[derive(Default)]
struct TaskColumns {
    stamps: Vec<i64>,
    tasks: Strings,
    agents: Vec<u32>,
    durations: Vec<i64>,
    tokens: Vec<i64>,
    success: Bitmap,
    metadata: Strings,
    has_metadata: Bitmap,
}

impl TaskColumns {
    fn into_batch(self, agents: &Arc<Strings>) -> Batch {
        let dictionary = Arc::clone(agents);
        let columns = vec![
            Column::new(Values::Int(self.stamps)),
            Column::new(Values::Text(self.tasks)),
            Column::new(Values::Coded { codes: self.agents, dictionary }),
            Column::new(Values::Int(self.durations)),
            Column::new(Values::Int(self.tokens)),
            Column::new(Values::Bool(self.success)),
            Column::with_validity(Values::Text(self.metadata), self.has_metadata),
        ];
        Batch { schema: Table::Task.schema(), columns }
    }
}

/// The first day after the workload, in microseconds since 1970.
pub const fn end() -> i64 {
    START + DAYS * MICROS_PER_DAY
}
