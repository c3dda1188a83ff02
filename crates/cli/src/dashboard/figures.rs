//! What the dashboard shows, as numbers: `--once --json` prints them as they are.
//!
//! Owns the shapes. How they are read from a store is in `read`, how they look in `text` and
//! in the live view; which query each of them is, in docs/dashboard.md.

use serde::Serialize;
use tallystone::alert::Evaluation;
use tallystone::{AgentSummary, SlowTask, Timestamp, Value};

/// Everything, at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// The moment: windows end here.
    pub(crate) at: Timestamp,
    /// The store.
    pub(crate) store: String,
    /// Length of the window, as `5m`.
    pub(crate) window: String,
    /// Tasks of the window and of the one before.
    pub(crate) summary: Compared,
    /// Agents of the window.
    pub(crate) agents: Agents,
    /// The agent that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<AgentDetail>,
    /// Tasks that wait.
    pub(crate) queue: Queue,
    /// Tokens, quotas, memory, disk.
    pub(crate) resources: Resources,
    /// The last hour, and the last day.
    pub(crate) trends: Vec<Trend>,
    /// All alerts.
    pub(crate) alerts: Evaluation,
    /// Answers of the panels with a query, in their order.
    pub(crate) panels: Vec<PanelFigures>,
    /// How long reading them took, in milliseconds.
    pub(crate) read_ms: f64,
    /// What the numbers do not rest on: expired, unreadable or not kept.
    pub(crate) missing: Vec<String>,
    /// Whether damaged data were met.
    pub(crate) is_damaged: bool,
}

/// Tasks of a window, and of the window of the same length before.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    /// The window.
    pub(crate) now: Period,
    /// The one before.
    pub(crate) before: Period,
}

/// Tasks of a piece of time, in numbers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Period {
    /// First moment inside.
    pub(crate) from: Timestamp,
    /// First moment after.
    pub(crate) to: Timestamp,
    /// Finished tasks.
    pub(crate) total_tasks: u64,
    /// Those that succeeded.
    pub(crate) successful_tasks: u64,
    /// Share that succeeded, 0 to 1; `None` of no tasks.
    pub(crate) success_rate: Option<f64>,
    /// Mean duration.
    pub(crate) avg_duration_ms: Option<f64>,
    /// Median duration.
    pub(crate) p50_duration_ms: Option<f64>,
    /// 95th percentile of the durations.
    pub(crate) p95_duration_ms: Option<f64>,
    /// 99th percentile of the durations.
    pub(crate) p99_duration_ms: Option<f64>,
    /// Largest distance of the ranks of the percentiles, as a share of the values; 0 when they
    /// are exact.
    pub(crate) rank_error: f64,
    /// Sum of the tokens.
    pub(crate) total_tokens_used: Value,
    /// Mean tokens of the tasks that have them.
    pub(crate) avg_tokens_per_task: Option<f64>,
    /// Finished tasks per minute.
    pub(crate) tasks_per_minute: f64,
    /// Distinct agents.
    pub(crate) unique_agents: u64,
}

/// Agents of the window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Agents {
    /// How many there are.
    pub(crate) total: usize,
    /// The five with the smallest mean duration, smallest first.
    pub(crate) fastest: Vec<Agent>,
    /// The five with the largest, largest first.
    pub(crate) slowest: Vec<Agent>,
    /// How many of them the list is of.
    #[serde(skip)]
    pub(crate) matching: usize,
    /// The part of the list that was asked for.
    #[serde(skip)]
    pub(crate) listed: Vec<Agent>,
}

/// An agent's tasks in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Agent {
    /// The agent.
    pub(crate) agent_id: String,
    /// Its tasks.
    pub(crate) task_count: u64,
    /// Mean duration.
    pub(crate) avg_duration_ms: Option<f64>,
    /// 95th percentile of the durations.
    pub(crate) p95_duration_ms: Option<f64>,
    /// Mean tokens.
    pub(crate) avg_tokens_used: Option<f64>,
    /// Share that succeeded, 0 to 1.
    pub(crate) success_rate: f64,
}

impl Agent {
    /// From what the list of all agents says, and the percentile of this one.
    pub(crate) fn new(agent: &AgentSummary, p95_duration_ms: Option<f64>) -> Self {
        Self {
            agent_id: agent.agent_id.clone(),
            task_count: agent.task_count,
            avg_duration_ms: agent.avg_duration_ms,
            p95_duration_ms,
            avg_tokens_used: agent.avg_tokens_used,
            success_rate: agent.success_rate,
        }
    }
}

/// One agent, more closely.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AgentDetail {
    /// The agent.
    pub(crate) agent_id: String,
    /// Its tasks of the window and of the one before.
    pub(crate) summary: Compared,
    /// Its last hour, and its last day.
    pub(crate) trends: Vec<Trend>,
    /// Its slowest tasks of the window.
    pub(crate) slowest: Vec<SlowTask>,
    /// The newest value of each of its gauges in the last day, by name; at most 20.
    pub(crate) gauges: Vec<(String, Gauge)>,
}

/// The newest value of a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Gauge {
    /// The value; of several swarms, added up.
    pub(crate) value: f64,
    /// When it was measured; of several swarms, the newest.
    pub(crate) at: Timestamp,
}

/// Tasks that wait.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queue {
    /// How many; `None` where nobody records it.
    pub(crate) pending: Option<Gauge>,
    /// Minutes that they take at the present rate of finished tasks; `None` at a rate of 0.
    pub(crate) backlog_minutes: Option<f64>,
    /// How many of each priority, by name; at most 20.
    pub(crate) priorities: Vec<(String, Gauge)>,
}

/// Tokens, quotas, memory, disk.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Resources {
    /// Time that budget and quota are for, as `1d`.
    pub(crate) budget_window: String,
    /// Tokens that were used in it.
    pub(crate) tokens_used: Value,
    /// Tokens that may be; `None` where nobody records it.
    pub(crate) token_budget: Option<Gauge>,
    /// The share that is used.
    pub(crate) budget_share: Option<f64>,
    /// Whether there is a quota for any agent.
    pub(crate) has_quota: bool,
    /// Agents with a quota, the largest share first; at most 5.
    pub(crate) quotas: Vec<Quota>,
    /// Memory in use; `None` where nobody records it.
    pub(crate) memory_bytes: Option<Gauge>,
    /// Size of the store's files.
    pub(crate) disk_bytes: u64,
    /// Rows of the store.
    pub(crate) stored_rows: u64,
}

/// How much of its quota an agent has used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Quota {
    /// The agent.
    pub(crate) agent_id: String,
    /// Tokens that it used.
    pub(crate) tokens_used: f64,
    /// Tokens that it may use.
    pub(crate) quota: f64,
    /// The share that is used.
    pub(crate) share: f64,
}

/// Tasks over a piece of time, in equal steps.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trend {
    /// `last hour` or `last day`.
    pub(crate) name: &'static str,
    /// Start of the first step.
    pub(crate) from: Timestamp,
    /// Length of a step, as `1m`.
    pub(crate) step: &'static str,
    /// Mean duration; `None` of a step without any.
    pub(crate) avg_duration_ms: Vec<Option<f64>>,
    /// Finished tasks.
    pub(crate) tasks: Vec<Option<f64>>,
    /// Tasks that failed.
    pub(crate) errors: Vec<Option<f64>>,
    /// Tokens.
    pub(crate) tokens: Vec<Option<f64>>,
}

/// The answer of a panel's query.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PanelFigures {
    /// Its heading.
    pub(crate) title: String,
    /// Text after its numbers.
    pub(crate) unit: String,
    /// The number, of a panel that shows one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<Number>,
    /// The entries, of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<Entries>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The number of a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Number {
    /// The number; `None` where no row has one.
    pub(crate) value: Option<f64>,
    /// Rows or values that it rests on.
    pub(crate) count: u64,
    /// Whose it is, where it is one agent's, task's or key's.
    pub(crate) label: Option<String>,
    /// Largest distance of its rank, as a share of the values; 0 when it is exact.
    pub(crate) rank_error: f64,
}

/// The entries of a query, at most 100.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entries {
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    /// Texts of the entries, a cell under each column; not escaped.
    pub(crate) rows: Vec<Vec<String>>,
    /// The number of each entry, with what it is of.
    pub(crate) numbers: Vec<(String, Option<f64>)>,
}

/// How good a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// Worth a look.
    Fair,
    /// As it should not be.
    Bad,
}

impl Level {
    /// Below `fair` good, below `bad` fair.
    fn rising(value: f64, fair: f64, bad: f64) -> Self {
        if value < fair {
            Self::Good
        } else if value < bad {
            Self::Fair
        } else {
            Self::Bad
        }
    }

    /// From `good` on good, from `fair` on fair.
    fn falling(value: f64, good: f64, fair: f64) -> Self {
        if value >= good {
            Self::Good
        } else if value >= fair {
            Self::Fair
        } else {
            Self::Bad
        }
    }

    /// Of the success rate of all tasks.
    pub(crate) fn of_success(rate: f64) -> Self {
        Self::falling(rate, 0.95, 0.9)
    }

    /// Of the success rate of one agent.
    pub(crate) fn of_agent_success(rate: f64) -> Self {
        Self::falling(rate, 0.9, 0.8)
    }

    /// Of a duration: mean or percentile.
    pub(crate) fn of_duration_ms(duration: f64) -> Self {
        Self::rising(duration, 1_000.0, 3_000.0)
    }

    /// Of the number of tasks that wait.
    pub(crate) fn of_pending(pending: f64) -> Self {
        Self::rising(pending, 20.0, 50.0)
    }

    /// Of the share of a budget or quota that is used.
    pub(crate) fn of_share(share: f64) -> Self {
        Self::rising(share, 0.6, 0.8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_change_at_their_bounds() {
        use Level::{Bad, Fair, Good};
        let of = |level: fn(f64) -> Level, values: [f64; 3]| values.map(level);
        assert_eq!(of(Level::of_success, [0.95, 0.9, 0.899]), [Good, Fair, Bad]);
        assert_eq!(of(Level::of_agent_success, [0.9, 0.8, 0.799]), [Good, Fair, Bad]);
        assert_eq!(of(Level::of_duration_ms, [999.0, 1_000.0, 3_000.0]), [Good, Fair, Bad]);
        assert_eq!(of(Level::of_pending, [19.0, 20.0, 50.0]), [Good, Fair, Bad]);
        assert_eq!(of(Level::of_share, [0.59, 0.6, 0.8]), [Good, Fair, Bad]);
    }
}
