//! `tallystone record`: one metric, durable when the command ends.

use tallystone::import::ParsedRow;
use tallystone::time::{Clock, SystemClock};
use tallystone::{AgentMetric, SwarmMetric, TaskMetric, Timestamp};

use crate::args::{Globals, RecordArgs, RecordCommon, RecordWhat};
use crate::failure::{Exit, Failure};
use crate::{open, output};

/// Nothing is printed, unless JSON is asked for: the command is made for shell hooks.
pub(crate) fn run(globals: &Globals, args: &RecordArgs) -> Result<Exit, Failure> {
    let row = row(&args.what);
    // A metric that breaks a rule is refused before a store is made for it.
    match &row {
        ParsedRow::Task(row) => row.validate()?,
        ParsedRow::Agent(row) => row.validate()?,
        ParsedRow::Swarm(row) => row.validate()?,
    }
    let store = open::for_writing(&globals.store)?;
    match &row {
        ParsedRow::Task(row) => store.record_task(row)?,
        ParsedRow::Agent(row) => store.record_agent(row)?,
        ParsedRow::Swarm(row) => store.record_swarm(row)?,
    }
    store.flush()?;
    store.close()?;
    if globals.json {
        output::json(&mut output::stdout(), &serde_json::json!({ "recorded": 1 }))?;
    }
    Ok(Exit::Ok)
}

fn row(what: &RecordWhat) -> ParsedRow<'_> {
    match what {
        RecordWhat::Task(task) => ParsedRow::Task(TaskMetric {
            timestamp: timestamp(&task.common),
            task_id: &task.task_id,
            agent_id: &task.agent_id,
            duration_ms: task.duration_ms,
            tokens_used: task.tokens_used,
            success: task.success,
            metadata: task.common.metadata.as_deref(),
        }),
        RecordWhat::Agent(agent) => ParsedRow::Agent(AgentMetric {
            timestamp: timestamp(&agent.gauge.common),
            agent_id: &agent.agent_id,
            metric_type: &agent.gauge.metric_type,
            value: agent.gauge.value,
            metadata: agent.gauge.common.metadata.as_deref(),
        }),
        RecordWhat::Swarm(swarm) => ParsedRow::Swarm(SwarmMetric {
            timestamp: timestamp(&swarm.gauge.common),
            swarm_id: &swarm.swarm_id,
            metric_type: &swarm.gauge.metric_type,
            value: swarm.gauge.value,
            metadata: swarm.gauge.common.metadata.as_deref(),
        }),
    }
}

fn timestamp(common: &RecordCommon) -> Timestamp {
    common.timestamp.unwrap_or_else(|| SystemClock.now())
}
