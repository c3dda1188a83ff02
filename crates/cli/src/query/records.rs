//! The cells of what the methods return, under the names that JSON has too.

use serde::Serialize;
use tallystone::{
    AgentRow, AgentSummary, Average, Bucket, Quantile, Row, SlowTask, Summary, SwarmRow, Table,
    TaskRow, Value,
};

use crate::output::{Cell, Columns, Record};

pub(crate) const BUCKET: Columns<'static> = &["time_bucket", "value", "count"];
pub(crate) const QUANTILE: Columns<'static> = &["value", "exact", "rank_error", "count"];
pub(crate) const AVERAGE: Columns<'static> = QUANTILE;
pub(crate) const TOP_AGENT: Columns<'static> =
    &["agent_id", "task_count", "avg_duration_ms", "avg_tokens_used", "success_rate"];
pub(crate) const SLOW_TASK: Columns<'static> =
    &["task_id", "agent_id", "duration_ms", "tokens_used", "success", "timestamp"];
pub(crate) const SUMMARY: Columns<'static> = &[
    "total_tasks",
    "successful_tasks",
    "success_rate",
    "avg_duration_ms",
    "p95_duration_ms",
    "p99_duration_ms",
    "avg_tokens_per_task",
    "total_tokens_used",
    "unique_agents",
];

/// Columns of the rows of a table.
pub(crate) fn row_columns(table: Table) -> Columns<'static> {
    match table {
        Table::Task => &[
            "task_id",
            "agent_id",
            "timestamp",
            "duration_ms",
            "tokens_used",
            "success",
            "metadata",
        ],
        Table::Agent => &["agent_id", "timestamp", "metric_type", "value", "metadata"],
        Table::Swarm => &["swarm_id", "timestamp", "metric_type", "value", "metadata"],
    }
}

fn int<'a>(value: i64) -> Cell<'a> {
    Cell::Int(i128::from(value))
}

impl Record for TaskRow {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(&self.task_id),
            Cell::text(&self.agent_id),
            Cell::Time(self.timestamp),
            Cell::optional(self.duration_ms, int),
            Cell::optional(self.tokens_used, int),
            Cell::Bool(self.success),
            Cell::optional(self.metadata.as_deref(), Cell::text),
        ]
    }
}

impl Record for AgentRow {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(&self.agent_id),
            Cell::Time(self.timestamp),
            Cell::text(&self.metric_type),
            Cell::Float(self.value),
            Cell::optional(self.metadata.as_deref(), Cell::text),
        ]
    }
}

impl Record for SwarmRow {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(&self.swarm_id),
            Cell::Time(self.timestamp),
            Cell::text(&self.metric_type),
            Cell::Float(self.value),
            Cell::optional(self.metadata.as_deref(), Cell::text),
        ]
    }
}

impl Record for Row {
    fn cells(&self) -> Vec<Cell<'_>> {
        match self {
            Self::Task(row) => row.cells(),
            Self::Agent(row) => row.cells(),
            Self::Swarm(row) => row.cells(),
        }
    }
}

impl Record for Bucket {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::Time(self.time_bucket),
            Cell::optional(self.value, Cell::from),
            Cell::count(self.count),
        ]
    }
}

impl Record for Quantile {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::optional(self.value, Cell::from),
            Cell::Bool(self.exact),
            Cell::Float(self.rank_error),
            Cell::count(self.count),
        ]
    }
}

impl Record for Average {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::optional(self.value, Cell::Float),
            Cell::Bool(self.exact),
            Cell::Float(self.rank_error),
            Cell::count(self.count),
        ]
    }
}

impl Record for AgentSummary {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(&self.agent_id),
            Cell::count(self.task_count),
            Cell::optional(self.avg_duration_ms, Cell::Float),
            Cell::optional(self.avg_tokens_used, Cell::Float),
            Cell::Float(self.success_rate),
        ]
    }
}

impl Record for SlowTask {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(&self.task_id),
            Cell::text(&self.agent_id),
            int(self.duration_ms),
            Cell::optional(self.tokens_used, int),
            Cell::Bool(self.success),
            Cell::Time(self.timestamp),
        ]
    }
}

impl Record for Summary {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::count(self.total_tasks),
            Cell::count(self.successful_tasks),
            Cell::optional(self.success_rate, Cell::Float),
            Cell::optional(self.avg_duration_ms, Cell::Float),
            Cell::optional(self.p95_duration_ms, Cell::from),
            Cell::optional(self.p99_duration_ms, Cell::from),
            Cell::optional(self.avg_tokens_per_task, Cell::Float),
            Cell::from(self.total_tokens_used),
            Cell::count(self.unique_agents),
        ]
    }
}

/// A percentile with its rank, where several were asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ranked {
    percentile: f64,
    value: Option<Value>,
    exact: bool,
    rank_error: f64,
    count: u64,
}

impl Ranked {
    pub(crate) const COLUMNS: Columns<'static> =
        &["percentile", "value", "exact", "rank_error", "count"];

    pub(crate) fn new(percentile: f64, quantile: Quantile) -> Self {
        let Quantile { value, exact, rank_error, count } = quantile;
        Self { percentile, value, exact, rank_error, count }
    }
}

impl Record for Ranked {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::Float(self.percentile),
            Cell::optional(self.value, Cell::from),
            Cell::Bool(self.exact),
            Cell::Float(self.rank_error),
            Cell::count(self.count),
        ]
    }
}
