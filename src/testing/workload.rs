//! The workload that benchmarks and size tests share: seeded, the same on every machine.
//!
//! `Tasks` of a fleet of 500 agents over seven days from a Monday: arrivals are random and
//! follow a daily wave, 1 % come late, 3 % of the ids are retries, durations and tokens are
//! lognormal and correlated, metadata is null in 90 %.
//!
//! `Gauges` of the same fleet: eight metric types of each agent every ten seconds, so their
//! span follows from the number of rows (400 a second); fewer rows are a prefix of more.

use std::collections::VecDeque;
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
    /// Share of all arrivals that lies before the next row, 0 to 1.
    brought: f64,
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
        let agents = agent_names();
        Self { rows, next: 0, brought: 0.0, random, agents, shares, speeds, newest_task: 0 }
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
    ///
    /// The shares are as many uniform numbers as there are rows, made in ascending order:
    /// the smallest of n lies 1 - u^(1/n) into what is left. So arrivals are independent,
    /// and the gaps between them as hard to compress as real ones.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "times of seven days in milliseconds"
    )]
    fn stamp(&mut self) -> i64 {
        let days = DAYS as f64;
        let left = (self.rows - self.next) as f64;
        self.brought = 1.0 - (1.0 - self.brought) * (1.0 - self.random.unit()).powf(left.recip());
        let share = self.brought * days;
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

/// Metric types of the gauges, in the order in which an agent sends them.
pub const METRICS: [&str; 8] = [
    "cpu_percent",
    "memory_mb",
    "queue_depth",
    "context_tokens",
    "latency_ms",
    "errors_per_minute",
    "requests_total",
    "tokens_total",
];
/// Milliseconds between two samples of a series.
pub const GAUGE_PERIOD: i64 = 10_000;

/// Samples of all agents and metric types in one period.
const SERIES: usize = AGENTS * METRICS.len();
/// Most milliseconds that a sample is off its beat, either way.
const JITTER: u64 = 20;
/// Most milliseconds that a late sample is under way.
const LATE: u64 = 60_000;

/// How the values of a metric type go on.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// Holds still with this probability, else takes a normal step of this many units, and
    /// is turned back at the ends.
    Walk { still: f64, step: f64, low: i64, high: i64 },
    /// Independent lognormal values: location and scale of the logarithm, in units.
    Noise { mu: f64, sigma: f64 },
    /// Zero but with this probability; then up to so many units.
    Rare { chance: f64, most: u64 },
    /// Rises by up to so many units, or not at all with this probability.
    Counter { still: f64, most: u64 },
}

/// Decimals and course of each metric type. Values are whole numbers of the last decimal.
const COURSES: [(i32, Course); 8] = [
    (1, Course::Walk { still: 0.05, step: 12.0, low: 0, high: 1_000 }),
    (2, Course::Walk { still: 0.3, step: 150.0, low: 20_000, high: 800_000 }),
    (0, Course::Walk { still: 0.5, step: 1.5, low: 0, high: 500 }),
    (0, Course::Walk { still: 0.2, step: 60.0, low: 0, high: 200_000 }),
    (1, Course::Noise { mu: 7.8, sigma: 0.5 }),
    (1, Course::Rare { chance: 0.03, most: 50 }),
    (0, Course::Counter { still: 0.1, most: 20 }),
    (0, Course::Counter { still: 0.1, most: 4_000 }),
];

#[derive(Clone, Copy, Debug)]
struct Sample {
    arrival: i64,
    stamp: i64,
    series: u32,
    value: f64,
}

/// Generates the gauges in order of arrival.
///
/// Each agent has a phase of its own in the period of ten seconds and samples its eight
/// metric types together. Each sample by itself is off the beat by up to 20 ms (10 %), and
/// up to 60 s late (1 %).
#[derive(Debug)]
pub struct Gauges {
    left: usize,
    period: i64,
    random: Random,
    agents: Arc<Strings>,
    metrics: Arc<Strings>,
    /// Of each agent, in milliseconds.
    phases: Vec<i64>,
    /// Newest value of each series, in units of its last decimal.
    units: Vec<i64>,
    /// Samples that have not arrived when the period ends.
    late: Vec<Sample>,
    arrived: VecDeque<Sample>,
}

impl Gauges {
    /// The first `rows` samples that arrive.
    pub fn new(rows: usize, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6761_7567_6573);
        let below = |random: &mut Random, end: u64| i64::try_from(random.below(end)).unwrap_or(0);
        let phases = (0..AGENTS).map(|_| below(&mut random, GAUGE_PERIOD as u64)).collect();
        let units = (0..SERIES).map(|series| match COURSES[series % COURSES.len()].1 {
            Course::Walk { low, high, .. } => low + below(&mut random, (high - low) as u64),
            Course::Counter { most, .. } => below(&mut random, 10_000 * most),
            Course::Noise { .. } | Course::Rare { .. } => 0,
        });
        Self {
            left: rows,
            units: units.collect(),
            period: 0,
            random,
            agents: agent_names(),
            metrics: Arc::new(METRICS.into_iter().collect()),
            phases,
            late: Vec::new(),
            arrived: VecDeque::new(),
        }
    }

    /// The next rows, at most `most` of them; `None` when all have been given.
    pub fn next_batch(&mut self, most: usize) -> Option<Batch> {
        let count = most.min(self.left);
        if count == 0 {
            return None;
        }
        self.left -= count;
        while self.arrived.len() < count {
            self.next_period();
        }
        let (mut stamps, mut agents) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut metrics, mut values) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let kinds = u32::try_from(METRICS.len()).unwrap_or(u32::MAX);
        for sample in self.arrived.drain(..count) {
            stamps.push(START + sample.stamp * 1_000);
            agents.push(sample.series / kinds);
            metrics.push(sample.series % kinds);
            values.push(sample.value);
        }
        let none = Strings::from_parts(String::new(), vec![0; count]).unwrap_or_default();
        let coded = |codes, dictionary: &Arc<Strings>| {
            Column::new(Values::Coded { codes, dictionary: Arc::clone(dictionary) })
        };
        let columns = vec![
            Column::new(Values::Int(stamps)),
            coded(agents, &self.agents),
            coded(metrics, &self.metrics),
            Column::new(Values::Float(values)),
            Column::with_validity(Values::Text(none), Bitmap::filled(count, false)),
        ];
        Some(Batch { schema: Table::Agent.schema(), columns })
    }

    /// Samples every series once, and lets arrive what no later sample can precede.
    fn next_period(&mut self) {
        let begin = self.period * GAUGE_PERIOD;
        self.period += 1;
        for series in 0..SERIES {
            let sample = self.sample(begin, series);
            self.late.push(sample);
        }
        let until = begin + GAUGE_PERIOD - i64::try_from(JITTER).unwrap_or(0);
        // Stable: what arrives in one millisecond stays in the order of the series.
        self.late.sort_by_key(|sample| sample.arrival);
        let count = self.late.partition_point(|sample| sample.arrival < until);
        self.arrived.extend(self.late.drain(..count));
    }

    #[expect(clippy::cast_possible_truncation, reason = "4,000 series; times under a minute")]
    fn sample(&mut self, begin: i64, series: usize) -> Sample {
        let phase = self.phases[series / METRICS.len()];
        let off = self.random.chance(0.1);
        let jitter = if off { self.random.below(2 * JITTER + 1) as i64 - JITTER as i64 } else { 0 };
        let late = self.random.chance(0.01);
        let delay = if late { self.random.below(LATE + 1) as i64 } else { 0 };
        let stamp = (begin + phase + jitter).max(0);
        let value = self.value(series);
        Sample { arrival: stamp + delay, stamp, series: series as u32, value }
    }

    /// The next value of a series: the float that is nearest to its decimal.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "values are far below 2^53"
    )]
    fn value(&mut self, series: usize) -> f64 {
        let (decimals, course) = COURSES[series % COURSES.len()];
        let random = &mut self.random;
        let old = self.units[series];
        let new = match course {
            Course::Walk { still, .. } if random.chance(still) => old,
            Course::Walk { step, low, high, .. } => {
                let moved = old + (step * random.normal()).round() as i64;
                if (low..=high).contains(&moved) {
                    moved
                } else {
                    (2 * old - moved).clamp(low, high)
                }
            }
            Course::Noise { mu, sigma } => (mu + sigma * random.normal()).exp() as i64,
            Course::Rare { chance, most } if random.chance(chance) => 1 + random.below(most) as i64,
            Course::Rare { .. } => 0,
            Course::Counter { still, .. } if random.chance(still) => old,
            Course::Counter { most, .. } => old + 1 + random.below(most) as i64,
        };
        self.units[series] = new;
        // Both are exact, and a division rounds to the nearest.
        new as f64 / 10_f64.powi(decimals)
    }
}

fn agent_names() -> Arc<Strings> {
    let names: Vec<String> = (0..AGENTS).map(|agent| format!("agent_{agent:03}")).collect();
    Arc::new(names.iter().map(String::as_str).collect())
}

/// The first day after the workload, in microseconds since 1970.
pub const fn end() -> i64 {
    START + DAYS * MICROS_PER_DAY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_HOUR;

    fn all(mut next: impl FnMut() -> Option<Batch>) -> Vec<Batch> {
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn tasks_fill_the_days_and_arrive_at_random() {
        let mut tasks = Tasks::new(50_000, 1);
        let batches = all(|| tasks.next_batch(4_096));
        let stamps: Vec<i64> = batches.iter().flat_map(|b| b.timestamps().to_vec()).collect();
        assert_eq!(stamps.len(), 50_000);
        assert!(stamps.iter().all(|stamp| (START..end()).contains(stamp)));
        for day in 0..DAYS {
            let from = START + day * MICROS_PER_DAY;
            let rows = stamps.iter().filter(|s| (from..from + MICROS_PER_DAY).contains(s)).count();
            assert!((6_700..7_600).contains(&rows), "day {day}: {rows}");
        }
        let hour = |hour: i64| {
            let at = |s: &&i64| (**s - START) / MICROS_PER_HOUR % 24 == hour;
            stamps.iter().filter(at).count()
        };
        assert!(hour(6) > 3 * hour(18), "{} in the morning, {} at night", hour(6), hour(18));
        // Independent arrivals: a gap is as often as not below ln 2 of its mean.
        let night = |s: &&i64| (**s - START) / MICROS_PER_HOUR % 24 == 0;
        let mut gaps: Vec<i64> = stamps.iter().filter(night).copied().collect();
        gaps.sort_unstable();
        gaps = gaps
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .filter(|g| *g < MICROS_PER_HOUR)
            .collect();
        gaps.sort_unstable();
        let mean = gaps.iter().sum::<i64>() / gaps.len() as i64;
        let ratio = gaps[gaps.len() / 2] as f64 / mean as f64;
        assert!((0.6..0.8).contains(&ratio), "{ratio}");
    }

    #[test]
    fn gauges_keep_their_beat_and_their_decimals() {
        let mut gauges = Gauges::new(400_000, 1);
        let batches = all(|| gauges.next_batch(65_536));
        let (mut rows, mut late, mut latest) = (0, 0, START);
        let mut series = vec![Vec::new(); SERIES];
        for batch in &batches {
            let Values::Coded { codes: agents, .. } = &batch.columns[1].values else { panic!() };
            let Values::Coded { codes: metrics, .. } = &batch.columns[2].values else { panic!() };
            for row in 0..batch.len() {
                let (stamp, value) =
                    (batch.timestamps()[row], batch.columns[3].float(row).unwrap());
                late += usize::from(stamp < latest);
                latest = latest.max(stamp);
                rows += 1;
                let metric = metrics[row] as usize;
                series[agents[row] as usize * METRICS.len() + metric].push((stamp, value));
                let decimals = usize::try_from(COURSES[metric].0).unwrap();
                let text = format!("{value:.decimals$}");
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            }
        }
        assert_eq!(rows, 400_000);
        assert!((3_000..5_000).contains(&late), "{late} late");
        let (mut gaps, mut even) = (0, 0);
        for points in &mut series {
            points.sort_by_key(|point| point.0);
            for pair in points.windows(2) {
                let gap = pair[1].0 - pair[0].0;
                gaps += 1;
                even += usize::from(gap == GAUGE_PERIOD * 1_000);
                // A late neighbour may be missing at the end.
                assert!((gap - 10_000_000).abs() <= 40_000 || gap < 80_000_000, "{gap}");
            }
        }
        let share = even as f64 / gaps as f64;
        assert!((0.78..0.85).contains(&share), "{share} on the beat");
        let counters = series.iter().enumerate().filter(|(number, _)| number % 8 >= 6);
        for (number, points) in counters {
            assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1), "counter {number}");
        }
        let mut fewer = Gauges::new(5_000, 1);
        assert_eq!(fewer.next_batch(5_000), Gauges::new(400_000, 1).next_batch(5_000));
    }
}
