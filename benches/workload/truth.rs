//! What naive loops over the generated rows answer, and whether a reply agrees.
//!
//! Owns a computation for each question that shares nothing with the library: no order,
//! no index, no summary.

#![expect(clippy::cast_precision_loss, reason = "counts and sums are below 2^53")]
#![expect(clippy::cast_possible_truncation, reason = "truncation is the definition of a rank")]

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value as Json, json};
use tallystone::column::Batch;
use tallystone::testing::workload::START;
use tallystone::time::MICROS_PER_HOUR;

use crate::data::{Asked, FLEET_BUCKET, Gauge, SHARES, Task, each_gauge, each_task};
use crate::questions::Reply;

/// Relative difference that sums of floats may have.
const ROUNDING: f64 = 1e-9;
/// Largest rank error of an estimate that does not state one.
const RANK_ERROR_MAX: f64 = 0.002;

/// The rows of one table, and the ascending values that its estimates are held against.
pub(crate) struct Truth<'a> {
    batches: &'a [Batch],
    asked: &'a Asked,
    sorted: Vec<i64>,
}

impl<'a> Truth<'a> {
    pub(crate) fn of_tasks(batches: &'a [Batch], asked: &'a Asked) -> Self {
        let mut sorted: Vec<i64> = each_task(batches).map(|task| task.duration).collect();
        sorted.sort_unstable();
        Self { batches, asked, sorted }
    }

    pub(crate) fn of_gauges(batches: &'a [Batch], asked: &'a Asked) -> Self {
        Self { batches, asked, sorted: Vec::new() }
    }

    /// Stops unless the reply is right. Returns the rank error of an estimate.
    pub(crate) fn check(&self, id: &str, reply: &Reply) -> Option<f64> {
        let got = reply.canonical();
        match id {
            "Q2a" => {
                let bound = reply.rank_error();
                let errors = got.iter().zip(SHARES).map(|(value, p)| self.rank_error(value, p));
                let error = errors.fold(0.0, f64::max);
                assert!(error <= bound, "{id}: off by {error}, said at most {bound}");
                Some(error)
            }
            "Q7a" => {
                let exact = self.answer("Q7");
                compare(id, &got[..4], &exact[..4]);
                compare(id, &got[6..], &exact[6..]);
                let error = self.rank_error(&got[4], 0.95).max(self.rank_error(&got[5], 0.99));
                assert!(error <= RANK_ERROR_MAX, "{id}: off by {error}");
                Some(error)
            }
            _ => {
                compare(id, &got, &self.answer(id));
                None
            }
        }
    }

    /// How far the value is from the rank, as a share of the count.
    fn rank_error(&self, value: &Json, p: f64) -> f64 {
        let (value, count) = (value.as_f64().unwrap(), self.sorted.len() as f64);
        let below = self.sorted.partition_point(|other| (*other as f64) < value) as f64 / count;
        let upto = self.sorted.partition_point(|other| (*other as f64) <= value) as f64 / count;
        (below - p).max(p - upto).max(0.0)
    }

    fn tasks(&self) -> impl Iterator<Item = Task<'a>> + use<'a> {
        each_task(self.batches)
    }

    /// The points of the metric type that is asked about.
    fn metric(&self) -> impl Iterator<Item = Gauge<'a>> + use<'a> {
        let asked = self.asked;
        each_gauge(self.batches).filter(move |gauge| gauge.metric == asked.metric)
    }

    fn answer(&self, id: &str) -> Vec<Json> {
        let asked = self.asked;
        match id {
            "Q1" => aggregate(self.tasks().map(|task| task.duration)),
            "Q1p" => {
                let range = asked.from..asked.to;
                let inside = self.tasks().filter(|task| range.contains(&task.stamp));
                aggregate(inside.map(|task| task.duration))
            }
            "Q2" => SHARES.iter().map(|p| json!(ranked(&self.sorted, *p))).collect(),
            "Q3" => self.agent_hour(),
            "Q4" => {
                let points = self.tasks().map(|task| (task.stamp, task.duration as f64));
                buckets(points, MICROS_PER_HOUR)
            }
            "Q5" => self.top_agents(),
            "Q6" => self.slowest(),
            "Q7" => self.summary(),
            "Q8" => newest(self.tasks().filter(|task| task.task == asked.task), usize::MAX),
            "Q9" => newest(self.tasks().filter(|task| task.agent == asked.agent), 100),
            "Q10" | "Q10c" => self.touched_tasks(),
            "Q11" | "Q12" => vec![json!(self.sorted.len())],
            "A1" => {
                let values: Vec<f64> = self.metric().map(|gauge| gauge.value).collect();
                let sum: f64 = values.iter().sum();
                let min = values.iter().copied().fold(f64::INFINITY, f64::min);
                let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                vec![json!(values.len()), json!(sum / values.len() as f64), json!(min), json!(max)]
            }
            "A2" => {
                let mut values: Vec<f64> = self.metric().map(|gauge| gauge.value).collect();
                values.sort_unstable_by(f64::total_cmp);
                SHARES.iter().map(|p| json!(ranked(&values, *p))).collect()
            }
            "A3" => self.series(),
            "A4" => buckets(self.metric().map(|gauge| (gauge.stamp, gauge.value)), FLEET_BUCKET),
            "A5" => self.newest_values(),
            "A6" | "A6c" => {
                let (mut rows, mut stamps, mut values) = (0u64, 0, 0.0);
                for gauge in each_gauge(self.batches) {
                    rows += 1;
                    stamps += (gauge.stamp - START) / 1_000;
                    values += gauge.value;
                }
                vec![json!(rows), json!(stamps), json!(values)]
            }
            _ => panic!("{id}: no naive answer"),
        }
    }

    fn agent_hour(&self) -> Vec<Json> {
        let asked = self.asked;
        let hour = asked.hour..asked.hour + MICROS_PER_HOUR;
        let inside =
            self.tasks().filter(|task| task.agent == asked.agent && hour.contains(&task.stamp));
        let mut durations: Vec<i64> = inside.map(|task| task.duration).collect();
        durations.sort_unstable();
        let avg = durations.iter().sum::<i64>() as f64 / durations.len() as f64;
        let shares = SHARES.iter().map(|p| json!(ranked(&durations, *p)));
        std::iter::once(json!(avg)).chain(shares).collect()
    }

    fn top_agents(&self) -> Vec<Json> {
        let mut agents: HashMap<&str, (i64, u64)> = HashMap::new();
        for task in self.tasks() {
            let entry = agents.entry(task.agent).or_default();
            *entry = (entry.0 + task.duration, entry.1 + 1);
        }
        let avg = |(agent, (sum, count)): (_, (i64, u64))| (agent, sum as f64 / count as f64);
        let mut agents: Vec<(&str, f64)> = agents.into_iter().map(avg).collect();
        agents.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        agents.iter().take(5).flat_map(|(agent, avg)| [json!(agent), json!(avg)]).collect()
    }

    fn slowest(&self) -> Vec<Json> {
        let least = self.sorted[self.sorted.len().saturating_sub(10)];
        let mut slow: Vec<Task<'_>> = self.tasks().filter(|task| task.duration >= least).collect();
        slow.sort_unstable_by_key(|task| {
            std::cmp::Reverse((task.duration, task.stamp, task.task, task.agent))
        });
        slow.iter().take(10).flat_map(|task| [json!(task.duration), json!(task.task)]).collect()
    }

    fn summary(&self) -> Vec<Json> {
        let (mut successes, mut durations, mut tokens) = (0u64, 0, 0);
        let mut agents = HashSet::new();
        for task in self.tasks() {
            successes += u64::from(task.success);
            durations += task.duration;
            tokens += task.tokens;
            agents.insert(task.agent);
        }
        let count = self.sorted.len() as f64;
        vec![
            json!(self.sorted.len()),
            json!(successes),
            json!(successes as f64 / count),
            json!(durations as f64 / count),
            json!(ranked(&self.sorted, 0.95)),
            json!(ranked(&self.sorted, 0.99)),
            json!(tokens as f64 / count),
            json!(tokens),
            json!(agents.len()),
        ]
    }

    fn touched_tasks(&self) -> Vec<Json> {
        let mut sums = [0i64; 8];
        for task in self.tasks() {
            let metadata = task.metadata.unwrap_or_default();
            let row = [
                1,
                (task.stamp - START) / 1_000,
                task.duration,
                task.tokens,
                i64::from(task.success),
                task.task.len() as i64,
                metadata.len() as i64,
                i64::from(task.metadata.is_some()),
            ];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sums.iter().map(|sum| json!(sum)).collect()
    }

    fn series(&self) -> Vec<Json> {
        let asked = self.asked;
        let wanted = |gauge: &Gauge<'_>| {
            gauge.agent == asked.series_agent && gauge.metric == asked.series_metric
        };
        let points = each_gauge(self.batches).filter(wanted);
        let mut points: Vec<_> = points.map(|gauge| (gauge.stamp, gauge.value)).collect();
        points.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.iter().flat_map(|(stamp, value)| [json!(stamp), json!(value)]).collect()
    }

    fn newest_values(&self) -> Vec<Json> {
        let mut newest: BTreeMap<&str, (i64, f64)> = BTreeMap::new();
        for gauge in self.metric() {
            let entry = newest.entry(gauge.agent).or_insert((gauge.stamp, gauge.value));
            if (gauge.stamp, gauge.value) > *entry {
                *entry = (gauge.stamp, gauge.value);
            }
        }
        newest.iter().flat_map(|(agent, (_, value))| [json!(agent), json!(value)]).collect()
    }
}

fn aggregate(values: impl Iterator<Item = i64>) -> Vec<Json> {
    let (mut count, mut sum, mut min, mut max) = (0u64, 0, i64::MAX, i64::MIN);
    for value in values {
        count += 1;
        sum += value;
        min = min.min(value);
        max = max.max(value);
    }
    vec![json!(count), json!(sum as f64 / count as f64), json!(min), json!(max)]
}

/// The value at a share of ascending values.
fn ranked<T: Copy>(sorted: &[T], p: f64) -> T {
    sorted[((sorted.len() as f64 * p) as usize).min(sorted.len() - 1)]
}

fn buckets(points: impl Iterator<Item = (i64, f64)>, width: i64) -> Vec<Json> {
    let mut buckets: BTreeMap<i64, (f64, u64)> = BTreeMap::new();
    for (stamp, value) in points {
        let entry = buckets.entry(stamp - stamp.rem_euclid(width)).or_default();
        *entry = (entry.0 + value, entry.1 + 1);
    }
    let list = |(start, (sum, count)): (&i64, &(f64, u64))| {
        [json!(start), json!(sum / *count as f64), json!(count)]
    };
    buckets.iter().flat_map(list).collect()
}

fn newest<'a>(tasks: impl Iterator<Item = Task<'a>>, limit: usize) -> Vec<Json> {
    let mut tasks: Vec<Task<'_>> = tasks.collect();
    tasks.sort_unstable_by_key(|task| std::cmp::Reverse((task.stamp, task.task, task.agent)));
    let list = |task: &Task<'_>| {
        vec![
            json!(task.stamp),
            json!(task.task),
            json!(task.agent),
            json!(task.duration),
            json!(task.tokens),
            json!(u8::from(task.success)),
            json!(task.metadata.unwrap_or_default()),
        ]
    };
    tasks.iter().take(limit).flat_map(list).collect()
}

/// Integers and texts must be equal, floats but for the order in which they were added.
fn compare(id: &str, got: &[Json], want: &[Json]) {
    assert_eq!(got.len(), want.len(), "{id}: entries; {got:?}, expected {want:?}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let close = match (got.as_f64(), want.as_f64()) {
            (Some(a), Some(b)) if got.is_f64() && want.is_f64() => {
                (a - b).abs() <= ROUNDING * b.abs().max(1.0)
            }
            _ => got == want,
        };
        assert!(close, "{id}: entry {at} is {got}, expected {want}");
    }
}
