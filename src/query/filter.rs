//! What a query asks for: the filter, the cursor, the choices of each method.

use std::fmt;

use crate::error::{Error, Result};
use crate::limits::LIMIT_MAX;
use crate::schema::Table;
use crate::time::{TimeRange, Timestamp};

/// How many rows or entries an answer has at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The method's default: 1,000 rows, 10 top or slowest entries, all buckets.
    #[default]
    Default,
    /// At most this many.
    Rows(usize),
    /// Everything.
    All,
}

/// Which rows a query looks at, and which part of the answer it wants.
///
/// Fields that are `None` do not restrict. A method rejects a field that its table does
/// not have, and `limit`, `offset` and `cursor` where its answer is a single value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// First moment inside.
    pub from: Option<Timestamp>,
    /// First moment after.
    pub to: Option<Timestamp>,
    /// Only this task.
    pub task_id: Option<String>,
    /// Only this agent.
    pub agent_id: Option<String>,
    /// Only this swarm.
    pub swarm_id: Option<String>,
    /// Only this metric type.
    pub metric_type: Option<String>,
    /// Only tasks that succeeded, or only those that failed.
    pub success: Option<bool>,
    /// At most so many rows (row methods) or entries (list methods).
    pub limit: Limit,
    /// Rows or entries to leave out first; relative to one snapshot.
    pub offset: usize,
    /// Where the page before ended; row methods only, and not with `offset`.
    pub cursor: Option<Cursor>,
    /// Make anything missing an error: `Corrupt` if damaged, else `Incomplete`.
    pub strict: bool,
    /// Let aggregates answer from what is readable where some of it is damaged.
    pub allow_partial: bool,
}

impl Filter {
    /// No restriction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows from `from` up to, not including, `to`.
    #[must_use]
    pub fn between(mut self, from: Timestamp, to: Timestamp) -> Self {
        self.from = Some(from);
        self.to = Some(to);
        self
    }

    /// Only rows of the task.
    #[must_use]
    pub fn task(mut self, task_id: impl Into<String>) -> Self {
        self.task_id = Some(task_id.into());
        self
    }

    /// Only rows of the agent.
    #[must_use]
    pub fn agent(mut self, agent_id: impl Into<String>) -> Self {
        self.agent_id = Some(agent_id.into());
        self
    }

    /// Only rows of the swarm.
    #[must_use]
    pub fn swarm(mut self, swarm_id: impl Into<String>) -> Self {
        self.swarm_id = Some(swarm_id.into());
        self
    }

    /// Only rows of the metric type.
    #[must_use]
    pub fn metric_type(mut self, metric_type: impl Into<String>) -> Self {
        self.metric_type = Some(metric_type.into());
        self
    }

    /// Only tasks that succeeded (`true`) or failed (`false`).
    #[must_use]
    pub fn success(mut self, success: bool) -> Self {
        self.success = Some(success);
        self
    }

    /// At most `rows` rows or entries.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = Limit::Rows(rows);
        self
    }

    /// Without a limit.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.limit = Limit::All;
        self
    }

    /// Leaves out the first `rows` rows or entries.
    #[must_use]
    pub fn offset(mut self, rows: usize) -> Self {
        self.offset = rows;
        self
    }

    /// Goes on after the page that returned `cursor`.
    #[must_use]
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// The time range, whole where an end is open.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the end lies before the start.
    pub fn range(&self) -> Result<TimeRange> {
        let all = TimeRange::ALL;
        let start = self.from.map_or(all.start, Timestamp::as_micros);
        let end = self.to.map_or(all.end, Timestamp::as_micros);
        if end < start {
            return Err(Error::invalid(format!(
                "time range: to {} lies before from {}",
                Timestamp::clamped(end),
                Timestamp::clamped(start)
            )));
        }
        Ok(TimeRange { start, end })
    }

    /// Checks that `table` has every field that is set, and that the limit is in range.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the field and the table, or the limit and its range.
    pub(crate) fn check(&self, table: Table) -> Result<()> {
        let set = [
            ("task_id", self.task_id.is_some()),
            ("agent_id", self.agent_id.is_some()),
            ("swarm_id", self.swarm_id.is_some()),
            ("metric_type", self.metric_type.is_some()),
            ("success", self.success.is_some()),
        ];
        for (name, is_set) in set {
            if is_set && table.schema().column(name).is_none() {
                return Err(Error::invalid(format!("filter {name}: {table} has no such column")));
            }
        }
        match self.limit {
            Limit::Rows(rows) if rows > LIMIT_MAX => {
                Err(Error::invalid(format!("limit: {rows}, expected at most {LIMIT_MAX}, or all")))
            }
            _ if self.offset > LIMIT_MAX => Err(Error::invalid(format!(
                "offset: {}, expected at most {LIMIT_MAX}",
                self.offset
            ))),
            _ if self.offset > 0 && self.cursor.is_some() => {
                Err(Error::invalid("offset and cursor: expected one of the two"))
            }
            _ => self.range().map(|_| ()),
        }
    }

    /// For methods whose answer is one value.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when a limit, an offset or a cursor is set.
    pub(crate) fn check_scalar(&self) -> Result<()> {
        if self.limit != Limit::Default || self.offset > 0 || self.cursor.is_some() {
            return Err(Error::invalid(
                "limit, offset and cursor: the answer is a single value, expected none of them",
            ));
        }
        Ok(())
    }

    /// For methods whose answer is a list of entries, not of rows.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when a cursor is set.
    pub(crate) fn check_list(&self) -> Result<()> {
        if self.cursor.is_some() {
            return Err(Error::invalid(
                "cursor: the answer is a list of entries, expected an offset",
            ));
        }
        Ok(())
    }
}

/// Where a page ended: an opaque text that survives seals, merges and restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(pub(crate) String);

impl Cursor {
    /// Takes the text of a cursor; it is checked when it is used.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// How a percentile is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Percentile {
    /// By rank, from the rows.
    #[default]
    Exact,
    /// From digests, with a stated bound on the rank error.
    Estimate,
}

/// What is computed of the values of a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregation {
    /// Mean of the values that are not null.
    Avg,
    /// Sum of the values.
    Sum,
    /// Number of values that are not null.
    Count,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// The value at this rank, from 0 to 1.
    Percentile(f64),
}

/// What the top agents are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopBy {
    /// Number of tasks.
    TaskCount,
    /// Mean duration; agents without one come last.
    AvgDurationMs,
    /// Mean of the tokens used; agents without them come last.
    AvgTokensUsed,
    /// Share of tasks that succeeded.
    SuccessRate,
}

impl TopBy {
    /// Reads `task_count`, `avg_duration_ms` (or `duration_ms`), `avg_tokens_used` (or
    /// `tokens_used`), `success_rate`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "task_count" => Self::TaskCount,
            "avg_duration_ms" | "duration_ms" => Self::AvgDurationMs,
            "avg_tokens_used" | "tokens_used" => Self::AvgTokensUsed,
            "success_rate" => Self::SuccessRate,
            _ => {
                return Err(Error::invalid(format!(
                    "top agents by {text:?}: expected task_count, avg_duration_ms, \
                     avg_tokens_used or success_rate"
                )));
            }
        })
    }
}

/// Direction of an ordered list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}
