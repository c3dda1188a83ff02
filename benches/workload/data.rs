//! The rows of a run, and what the questions ask about them.
//!
//! Owns the generated batches, a view of one row for naive loops, and `Asked`: the
//! parameters of the questions, the same for every engine. Knows no store.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tallystone::column::{Batch, Column, Strings, Values};
use tallystone::testing::workload::{Gauges, START, Tasks};
use tallystone::time::{MICROS_PER_HOUR, MICROS_PER_SECOND};

/// Rows of one call of `append_columns` in a bulk load.
pub(crate) const BULK_ROWS: usize = 65_536;
/// Seed of the rows that the questions are about.
pub(crate) const SEED: u64 = 1;
/// Shares of Q2, Q2a, Q3 and A2.
pub(crate) const SHARES: [f64; 3] = [0.5, 0.95, 0.99];
/// Buckets of A4, in microseconds.
pub(crate) const FLEET_BUCKET: i64 = 300 * MICROS_PER_SECOND;

/// All tasks, in batches of at most `most` rows.
pub(crate) fn tasks(rows: usize, most: usize, seed: u64) -> Vec<Batch> {
    let mut tasks = Tasks::new(rows, seed);
    std::iter::from_fn(|| tasks.next_batch(most)).collect()
}

/// All gauges, in batches of at most `most` rows.
pub(crate) fn gauges(rows: usize, most: usize, seed: u64) -> Vec<Batch> {
    let mut gauges = Gauges::new(rows, seed);
    std::iter::from_fn(|| gauges.next_batch(most)).collect()
}

/// One generated task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) stamp: i64,
    pub(crate) task: &'a str,
    pub(crate) agent: &'a str,
    pub(crate) duration: i64,
    pub(crate) tokens: i64,
    pub(crate) success: bool,
    pub(crate) metadata: Option<&'a str>,
}

/// Each task in order of arrival.
pub(crate) fn each_task(batches: &[Batch]) -> impl Iterator<Item = Task<'_>> {
    batches.iter().flat_map(|batch| {
        (0..batch.len()).map(|row| Task {
            stamp: batch.columns[0].int(row).unwrap(),
            task: batch.columns[1].text(row).unwrap(),
            agent: batch.columns[2].text(row).unwrap(),
            duration: batch.columns[3].int(row).unwrap(),
            tokens: batch.columns[4].int(row).unwrap(),
            success: batch.columns[5].bool(row).unwrap(),
            metadata: batch.columns[6].text(row),
        })
    })
}

/// One generated gauge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauge<'a> {
    pub(crate) stamp: i64,
    pub(crate) agent: &'a str,
    pub(crate) metric: &'a str,
    pub(crate) value: f64,
}

/// Each gauge in order of arrival.
pub(crate) fn each_gauge(batches: &[Batch]) -> impl Iterator<Item = Gauge<'_>> {
    batches.iter().flat_map(|batch| {
        (0..batch.len()).map(|row| Gauge {
            stamp: batch.columns[0].int(row).unwrap(),
            agent: batch.columns[1].text(row).unwrap(),
            metric: batch.columns[2].text(row).unwrap(),
            value: batch.columns[3].float(row).unwrap(),
        })
    })
}

/// The codes and the dictionary of a dimension.
pub(crate) fn coded(column: &Column) -> (&[u32], &Strings) {
    match &column.values {
        Values::Coded { codes, dictionary } => (codes, dictionary),
        _ => panic!("a generated dimension is coded"),
    }
}

/// Parameters of the questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) rows: usize,
    /// Range of Q1p: 3.4 days that begin and end inside an hour.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Agent of Q3 and Q9: the one with the tenth most tasks.
    pub(crate) agent: String,
    /// Hour of Q3.
    pub(crate) hour: i64,
    /// Task of Q8: one that was tried more than once, from the middle.
    pub(crate) task: String,
    /// Metric type of A1, A2, A4 and A5.
    pub(crate) metric: String,
    /// Series of A3.
    pub(crate) series_agent: String,
    pub(crate) series_metric: String,
}

impl Asked {
    pub(crate) fn of(tasks: &[Batch]) -> Self {
        let from = START + 37 * MICROS_PER_HOUR + 1_234_567;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut tries: HashMap<&str, usize> = HashMap::new();
        let rows: usize = tasks.iter().map(Batch::len).sum();
        for (row, task) in each_task(tasks).enumerate() {
            *counts.entry(task.agent).or_default() += 1;
            // Tries lie close together, so the middle is all that must be remembered.
            if row >= rows / 2 && row < rows / 2 + 5_000 {
                *tries.entry(task.task).or_default() += 1;
            }
        }
        let mut agents: Vec<(&str, usize)> = counts.into_iter().collect();
        agents.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let agent = agents[agents.len().min(10) - 1].0;
        let middle = each_task(tasks).skip(rows / 2).find(|task| task.agent == agent);
        let hour = middle.or_else(|| each_task(tasks).find(|task| task.agent == agent)).unwrap();
        let task = tries.iter().filter(|(_, count)| **count > 1).map(|(task, _)| *task).min();
        Self {
            rows,
            from,
            to: from + 293_760_000_000,
            agent: agent.to_owned(),
            hour: hour.stamp - hour.stamp.rem_euclid(MICROS_PER_HOUR),
            task: task.unwrap_or("task_0000001").to_owned(),
            metric: "latency_ms".to_owned(),
            series_agent: "agent_123".to_owned(),
            series_metric: "cpu_percent".to_owned(),
        }
    }

    /// What was asked of the stores in this folder; `None` if there are none.
    #[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = std::fs::read(dir.join("workload.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Notes that the stores in this folder are complete.
    #[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
    pub(crate) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("workload.json"), serde_json::to_string(self).unwrap()).unwrap();
    }

    /// The parameters by question, as other engines take them.
    pub(crate) fn by_question(&self) -> Json {
        let metric = json!({"metric_type": self.metric});
        let mut ranked = metric.clone();
        ranked["p"] = json!(SHARES);
        let mut bucketed = metric.clone();
        bucketed["bucket_us"] = json!(FLEET_BUCKET);
        json!({
            "Q1": {},
            "Q1p": {"from": self.from, "to": self.to},
            "Q2": {"p": SHARES},
            "Q2a": {"p": SHARES},
            "Q3": {
                "agent_id": self.agent,
                "from": self.hour,
                "to": self.hour + MICROS_PER_HOUR,
                "p": SHARES,
            },
            "Q4": {"bucket_us": MICROS_PER_HOUR},
            "Q5": {"limit": 5},
            "Q6": {"limit": 10},
            "Q7": {"p": [0.95, 0.99]},
            "Q7a": {"p": [0.95, 0.99]},
            "Q8": {"task_id": self.task},
            "Q9": {"agent_id": self.agent, "limit": 100},
            "Q10": {},
            "Q10c": {},
            "Q11": {},
            "Q12": {},
            "A1": metric,
            "A2": ranked,
            "A3": {"agent_id": self.series_agent, "metric_type": self.series_metric},
            "A4": bucketed,
            "A5": metric,
            "A6": {},
            "A6c": {},
        })
    }
}
