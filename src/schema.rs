//! Tables, as data: columns, order, keys and measures.
//!
//! Owns `Table` and `Schema`. Everything below the typed rows works on a `Schema`, so
//! that a table with other columns needs no other format (spec 1.2). The three tables of
//! a store are declared here and nowhere else.

use std::fmt;

use crate::error::{Error, Result};

/// One of the tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `task_metrics`: one row per finished task.
    Task,
    /// `agent_metrics`: gauges of an agent.
    Agent,
    /// `swarm_metrics`: gauges of a swarm.
    Swarm,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 3] = [Self::Task, Self::Agent, Self::Swarm];

    /// The table's name, which is also the name of its directory.
    pub fn name(self) -> &'static str {
        self.schema().name
    }

    /// Finds a table by `task_metrics` or `task`, and so on.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the text and the tables there are.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|table| {
                text == table.name() || table.name().strip_suffix("_metrics") == Some(text)
            })
            .ok_or_else(|| Error::invalid(format!("table {text:?}: expected task, agent or swarm")))
    }

    /// The table's columns and rules.
    pub fn schema(self) -> &'static Schema {
        match self {
            Self::Task => &TASK,
            Self::Agent => &AGENT,
            Self::Swarm => &SWARM,
        }
    }

    /// Position in [`Table::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Task => 0,
            Self::Agent => 1,
            Self::Swarm => 2,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Microseconds since the Unix epoch, i64; never null.
    Timestamp,
    /// i64.
    Int,
    /// f64, finite, kept bit for bit.
    Float,
    /// True or false.
    Bool,
    /// UTF-8 with few distinct values: coded by a segment dictionary.
    Dimension,
    /// UTF-8 with mostly distinct values.
    Text,
    /// JSON text, read only when asked for.
    Json,
}

impl ColumnType {
    /// Whether values are UTF-8 text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Dimension | Self::Text | Self::Json)
    }
}

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSchema {
    /// Name, as in queries and exports.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether a row may have no value.
    pub nullable: bool,
}

/// Columns and rules of one table. Column numbers are positions in `columns`.
#[derive(Debug, PartialEq, Eq)]
pub struct Schema {
    /// Name of the table.
    pub name: &'static str,
    /// Columns, the timestamp first.
    pub columns: &'static [ColumnSchema],
    /// Columns by which rows are sorted inside an hour of a sealed segment.
    pub order: &'static [usize],
    /// Column sets that summaries are kept for, the coarsest first.
    pub keys: &'static [&'static [usize]],
    /// Numeric columns that are summarised, the first one ranked.
    pub measures: &'static [usize],
    /// The column that counts successes, if there is one.
    pub success: Option<usize>,
    /// The column with a membership filter, if there is one.
    pub member: Option<usize>,
    /// Columns of the newest-first order of pages after the timestamp.
    pub page_order: &'static [usize],
}

impl Schema {
    /// Number of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Number of the measure called `name`, among the columns.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there is no such column or it is not a measure.
    pub fn measure(&self, name: &str) -> Result<usize> {
        self.column(name).filter(|column| self.measures.contains(column)).ok_or_else(|| {
            let names: Vec<_> = self.measures.iter().map(|m| self.columns[*m].name).collect();
            Error::invalid(format!(
                "field {name:?} of {}: expected {}",
                self.name,
                names.join(" or ")
            ))
        })
    }
}

const fn column(name: &'static str, kind: ColumnType) -> ColumnSchema {
    ColumnSchema { name, kind, nullable: false }
}

const fn nullable(name: &'static str, kind: ColumnType) -> ColumnSchema {
    ColumnSchema { name, kind, nullable: true }
}

/// Column numbers of `task_metrics`.
pub(crate) mod task {
    pub(crate) const TIMESTAMP: usize = 0;
    pub(crate) const TASK_ID: usize = 1;
    pub(crate) const AGENT_ID: usize = 2;
    pub(crate) const DURATION_MS: usize = 3;
    pub(crate) const TOKENS_USED: usize = 4;
    pub(crate) const SUCCESS: usize = 5;
    pub(crate) const METADATA: usize = 6;
}

/// Column numbers of `agent_metrics` and `swarm_metrics`.
pub(crate) mod gauge {
    pub(crate) const TIMESTAMP: usize = 0;
    pub(crate) const OWNER_ID: usize = 1;
    pub(crate) const METRIC_TYPE: usize = 2;
    pub(crate) const VALUE: usize = 3;
    pub(crate) const METADATA: usize = 4;
}

static TASK: Schema = Schema {
    name: "task_metrics",
    columns: &[
        column("timestamp", ColumnType::Timestamp),
        column("task_id", ColumnType::Text),
        column("agent_id", ColumnType::Dimension),
        nullable("duration_ms", ColumnType::Int),
        nullable("tokens_used", ColumnType::Int),
        column("success", ColumnType::Bool),
        nullable("metadata", ColumnType::Json),
    ],
    order: &[task::TIMESTAMP, task::AGENT_ID, task::TASK_ID],
    keys: &[&[task::AGENT_ID]],
    measures: &[task::DURATION_MS, task::TOKENS_USED],
    success: Some(task::SUCCESS),
    member: Some(task::TASK_ID),
    page_order: &[task::TASK_ID, task::AGENT_ID],
};

static AGENT: Schema = Schema {
    name: "agent_metrics",
    columns: &[
        column("timestamp", ColumnType::Timestamp),
        column("agent_id", ColumnType::Dimension),
        column("metric_type", ColumnType::Dimension),
        column("value", ColumnType::Float),
        nullable("metadata", ColumnType::Json),
    ],
    order: GAUGE_ORDER,
    keys: GAUGE_KEYS,
    measures: &[gauge::VALUE],
    success: None,
    member: None,
    page_order: &[gauge::OWNER_ID, gauge::METRIC_TYPE],
};

static SWARM: Schema = Schema {
    name: "swarm_metrics",
    columns: &[
        column("timestamp", ColumnType::Timestamp),
        column("swarm_id", ColumnType::Dimension),
        column("metric_type", ColumnType::Dimension),
        column("value", ColumnType::Float),
        nullable("metadata", ColumnType::Json),
    ],
    order: GAUGE_ORDER,
    keys: GAUGE_KEYS,
    measures: &[gauge::VALUE],
    success: None,
    member: None,
    page_order: &[gauge::OWNER_ID, gauge::METRIC_TYPE],
};

const GAUGE_ORDER: &[usize] = &[gauge::METRIC_TYPE, gauge::OWNER_ID, gauge::TIMESTAMP];
const GAUGE_KEYS: &[&[usize]] = &[&[gauge::METRIC_TYPE], &[gauge::METRIC_TYPE, gauge::OWNER_ID]];
