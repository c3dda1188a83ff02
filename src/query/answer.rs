//! What a query returns: values, pages, and what they rest on.
//!
//! The field names are those of the JSON that the command prints.

use serde::Serialize;

use crate::query::filter::{Cursor, TopBy};
use crate::row::Row;
use crate::time::Timestamp;

/// A number of a column: an integer stays one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Of an integer column.
    Int(i64),
    /// A sum of an integer column that does not fit 64 bits.
    Wide(i128),
    /// Of a float column, or a mean.
    Float(f64),
}

impl Value {
    /// As a float, rounded once.
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is asked for")]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Wide(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

impl Row {
    /// The number of a measure, `duration_ms` and `tokens_used` of tasks, `value` of gauges.
    pub fn number(&self, field: &str) -> Option<f64> {
        let value = match (self, field) {
            (Self::Task(row), "duration_ms") => row.duration_ms.map(Value::Int),
            (Self::Task(row), "tokens_used") => row.tokens_used.map(Value::Int),
            (Self::Agent(row), "value") => Some(Value::Float(row.value)),
            (Self::Swarm(row), "value") => Some(Value::Float(row.value)),
            _ => None,
        };
        value.map(Value::as_f64)
    }
}

/// One page of rows or a list of entries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T> {
    /// Rows newest first, or entries in the method's order.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` when there is no more, and for lists.
    pub next_cursor: Option<Cursor>,
    /// What the answer rests on.
    pub coverage: Coverage,
    /// Whether the result cache answered.
    #[serde(skip)]
    pub cached: bool,
    /// How it was answered.
    #[serde(skip)]
    pub plan: Plan,
}

/// A single result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer<T> {
    /// The result.
    #[serde(flatten)]
    pub value: T,
    /// What the answer rests on.
    pub coverage: Coverage,
    /// Whether the result cache answered.
    #[serde(skip)]
    pub cached: bool,
    /// How it was answered.
    #[serde(skip)]
    pub plan: Plan,
}

/// A closed-open piece of time, with a reason where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// First moment inside.
    pub from: Timestamp,
    /// First moment after.
    pub to: Timestamp,
    /// Why, where that needs saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Rows that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// First moment of the rows that may be missing.
    pub from: Timestamp,
    /// First moment after them.
    pub to: Timestamp,
    /// File, relative to the store's directory.
    pub file: String,
    /// Number of the block or frame in it, where one is known.
    pub block: Option<u64>,
    /// Rows that may be missing, where known.
    pub rows: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

/// Which parts of the range an answer rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Answered from rows, or from summaries of all rows.
    pub detail: Vec<Span>,
    /// Answered from hourly rollups.
    pub hourly: Vec<Span>,
    /// Answered from daily rollups.
    pub daily: Vec<Span>,
    /// Expired: nothing is kept. With the reason `damaged` where a file could not be read when
    /// it expired.
    pub gone: Vec<Span>,
    /// Unreadable.
    pub damaged: Vec<Damage>,
    /// Kept, but in a form that cannot answer this question.
    pub unanswerable: Vec<Span>,
}

impl Coverage {
    /// Whether every row of the range is in the answer.
    pub fn is_complete(&self) -> bool {
        self.gone.is_empty() && self.damaged.is_empty() && self.unanswerable.is_empty()
    }
}

/// How a question was answered: what was skipped, summarised and scanned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Segments of the snapshot's table, and the rows in them.
    pub segments: Effort,
    /// Segments left out by time or key.
    pub segments_pruned: Effort,
    /// Segments, hours or keys answered by a summary.
    pub summarised: Effort,
    /// Blocks left out by zone map, key index or membership filter.
    pub blocks_pruned: Effort,
    /// Blocks that were read.
    pub blocks_scanned: Effort,
}

/// A number of things, the rows in them, and the bytes that were read for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effort {
    /// Segments, summaries or blocks.
    pub count: u64,
    /// Rows in them.
    pub rows: u64,
    /// Stored bytes of the columns concerned.
    pub bytes: u64,
}

impl Effort {
    /// Counts one more thing.
    pub(crate) fn add(&mut self, rows: u64, bytes: u64) {
        self.count += 1;
        self.rows += rows;
        self.bytes += bytes;
    }
}

/// One bucket of a time series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// Start of the bucket.
    pub time_bucket: Timestamp,
    /// The aggregate; `None` when no row of the bucket has a value, unless it is a count.
    pub value: Option<Value>,
    /// Rows in the bucket, null or not.
    pub count: u64,
    /// Of a percentile that rests on rollups: the largest distance of its rank, as a share of
    /// the values; 0 when exact.
    #[serde(skip_serializing_if = "is_zero")]
    pub rank_error: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// A percentile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// The value; `None` when no row has one.
    pub value: Option<Value>,
    /// Whether it is the value at the rank itself.
    pub exact: bool,
    /// Largest distance of the rank, as a share of the count; 0 when exact.
    pub rank_error: f64,
    /// Values that are not null.
    pub count: u64,
}

/// A mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Average {
    /// The mean; `None` when no row has a value.
    pub value: Option<f64>,
    /// Always true: means are computed from every value.
    pub exact: bool,
    /// Always 0.
    pub rank_error: f64,
    /// Values that are not null.
    pub count: u64,
}

/// Everything that one pass over a column tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aggregate {
    /// Rows, null or not.
    pub rows: u64,
    /// Values that are not null.
    pub count: u64,
    /// Rows without a value.
    pub nulls: u64,
    /// Sum of the values; 0 of none.
    pub sum: Value,
    /// Smallest value.
    pub min: Option<Value>,
    /// Largest value.
    pub max: Option<Value>,
    /// Mean of the values.
    pub avg: Option<f64>,
    /// The newest value that is not null, and when it was measured; of several with one
    /// stamp the largest. `None` also where a rollup may hold a newer one and does not say.
    pub last: Option<Last>,
}

impl Aggregate {
    /// One of its numbers by the name of its field; that of `last` is its value.
    pub fn number(&self, name: &str) -> Option<f64> {
        match name {
            "rows" => Some(of_count(self.rows)),
            "count" => Some(of_count(self.count)),
            "nulls" => Some(of_count(self.nulls)),
            "sum" => Some(self.sum.as_f64()),
            "min" => self.min.map(Value::as_f64),
            "max" => self.max.map(Value::as_f64),
            "avg" => self.avg,
            "last" => self.last.as_ref().map(|last| last.value.as_f64()),
            _ => None,
        }
    }
}

fn of_count(count: u64) -> f64 {
    Value::Wide(count.into()).as_f64()
}

/// The newest value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Last {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// The measurement.
    pub value: Value,
}

/// An aggregate of one key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyAggregate {
    /// The key: an agent, a swarm or a metric type.
    pub key: String,
    /// Its aggregate.
    #[serde(flatten)]
    pub aggregate: Aggregate,
}

/// An agent's tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentSummary {
    /// The agent.
    pub agent_id: String,
    /// Its tasks.
    pub task_count: u64,
    /// Mean duration of those that have one.
    pub avg_duration_ms: Option<f64>,
    /// Mean tokens of those that have them.
    pub avg_tokens_used: Option<f64>,
    /// Share that succeeded, 0 to 1.
    pub success_rate: f64,
}

impl AgentSummary {
    /// The number that agents are ordered by.
    pub fn number(&self, by: TopBy) -> Option<f64> {
        match by {
            TopBy::TaskCount => Some(of_count(self.task_count)),
            TopBy::AvgDurationMs => self.avg_duration_ms,
            TopBy::AvgTokensUsed => self.avg_tokens_used,
            TopBy::SuccessRate => Some(self.success_rate),
        }
    }
}

/// A task, in the list of the slowest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlowTask {
    /// The task.
    pub task_id: String,
    /// The agent that ran it.
    pub agent_id: String,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// Tokens it used.
    pub tokens_used: Option<i64>,
    /// Whether it succeeded.
    pub success: bool,
    /// When it finished.
    pub timestamp: Timestamp,
}

/// All tasks in nine numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Number of tasks.
    pub total_tasks: u64,
    /// Tasks that succeeded.
    pub successful_tasks: u64,
    /// Share that succeeded, 0 to 1; `None` when there is no task.
    pub success_rate: Option<f64>,
    /// Mean duration of the tasks that have one.
    pub avg_duration_ms: Option<f64>,
    /// 95th percentile of the durations.
    pub p95_duration_ms: Option<Value>,
    /// 99th percentile of the durations.
    pub p99_duration_ms: Option<Value>,
    /// Mean tokens of the tasks that have them.
    pub avg_tokens_per_task: Option<f64>,
    /// Sum of the tokens.
    pub total_tokens_used: Value,
    /// Distinct agents.
    pub unique_agents: u64,
    /// Largest distance of the ranks of the percentiles, as a share of the values; 0 when they
    /// are exact.
    #[serde(skip_serializing_if = "is_zero")]
    pub rank_error: f64,
}

impl Summary {
    /// One of its nine numbers by the name of its field.
    pub fn number(&self, name: &str) -> Option<f64> {
        match name {
            "total_tasks" => Some(of_count(self.total_tasks)),
            "successful_tasks" => Some(of_count(self.successful_tasks)),
            "success_rate" => self.success_rate,
            "avg_duration_ms" => self.avg_duration_ms,
            "p95_duration_ms" => self.p95_duration_ms.map(Value::as_f64),
            "p99_duration_ms" => self.p99_duration_ms.map(Value::as_f64),
            "avg_tokens_per_task" => self.avg_tokens_per_task,
            "total_tokens_used" => Some(self.total_tokens_used.as_f64()),
            "unique_agents" => Some(of_count(self.unique_agents)),
            _ => None,
        }
    }
}
