//! The ten methods, asked of the demo's store.

use std::io::Write;
use std::time::Instant;

use serde::Serialize;
use tallystone::{
    Aggregation, Answer, Bucket, Filter, Interval, Order, Page, Percentile, Result as StoreResult,
    Snapshot, Table, Timestamp, TopBy,
};

use crate::failure::Failure;
use crate::output::{self, Columns, Record};
use crate::query::{AVERAGE, BUCKET, QUANTILE, SLOW_TASK, SUMMARY, TOP_AGENT, row_columns};

/// A question with its answer, ready to print.
#[derive(Serialize)]
pub(super) struct Answered {
    method: &'static str,
    /// The command's options that ask the same.
    options: &'static str,
    ms: f64,
    #[serde(skip)]
    says: &'static str,
    #[serde(skip)]
    text: Vec<u8>,
}

impl Answered {
    pub(super) fn print(&self, out: &mut impl Write, dir: &str) -> Result<(), Failure> {
        writeln!(out, "{}", self.says)?;
        let options = if self.options.is_empty() { "" } else { " " };
        let command = format!("{}{options}{}", self.method, self.options);
        writeln!(out, "$ tallystone --store {dir} query {command}   ({:.2} ms)", self.ms)?;
        out.write_all(&self.text)?;
        writeln!(out)?;
        Ok(())
    }
}

/// Asks all ten.
pub(super) fn ask(snapshot: &Snapshot) -> Result<Vec<Answered>, Failure> {
    let all = Filter::new;
    Ok(vec![
        single("All tasks in nine numbers.", ("summary", ""), SUMMARY, || {
            snapshot.summary_stats(Percentile::Exact, &all())
        })?,
        single(
            "How long did 95 of 100 runs take at most?",
            ("percentile", "--field duration_ms --percentile 0.95"),
            QUANTILE,
            || snapshot.percentile(Table::Task, "duration_ms", 0.95, Percentile::Exact, &all()),
        )?,
        single(
            "How busy were the database instances, in percent?",
            ("average", "--table agent --field value --metric-type rds_cpu_utilization"),
            AVERAGE,
            || {
                let filter = all().metric_type("rds_cpu_utilization");
                snapshot.average(Table::Agent, "value", &filter)
            },
        )?,
        series(
            "Mean run time by day, nine weeks.",
            ("aggregate-by-time", "--to 2023-08-02 --field duration_ms --interval day --agg avg"),
            || {
                let filter = Filter { to: Some(Timestamp::parse("2023-08-02")?), ..all() };
                let avg = Aggregation::Avg;
                snapshot.aggregate_by_time(Table::Task, "duration_ms", Interval::Day, avg, &filter)
            },
        )?,
        series(
            "Tokens of the conversation service, every five minutes of the hour.",
            ("aggregate-by-time", "--agent-id conv --field tokens_used --interval 5m --agg sum"),
            || {
                let interval = Interval::parse("5m")?;
                let filter = all().agent("conv");
                let sum = Aggregation::Sum;
                snapshot.aggregate_by_time(Table::Task, "tokens_used", interval, sum, &filter)
            },
        )?,
        list(
            "Which agents did most?",
            ("top-agents", "--metric-type task_count --order desc --limit 5"),
            TOP_AGENT,
            || snapshot.top_agents(TopBy::TaskCount, Order::Descending, &all().limit(5)),
        )?,
        list("Which runs took longest?", ("slowest-tasks", "--limit 5"), SLOW_TASK, || {
            snapshot.slowest_tasks(&all().limit(5))
        })?,
        list(
            "The newest rows of a table.",
            ("metrics", "--table agent --limit 3"),
            row_columns(Table::Agent),
            || snapshot.metrics(Table::Agent, &all().limit(3)),
        )?,
        list(
            "The newest requests to the code service.",
            ("task-metrics", "--agent-id code --limit 3"),
            row_columns(Table::Task),
            || snapshot.task_metrics(&all().agent("code").limit(3)),
        )?,
        list(
            "The newest gauges of one instance.",
            ("agent-metrics", "--agent-id 5f5533 --limit 3"),
            row_columns(Table::Agent),
            || snapshot.agent_metrics(&all().agent("5f5533").limit(3)),
        )?,
        list(
            "The newest counts of requests.",
            ("swarm-metrics", "--swarm-id azure-llm --limit 3"),
            row_columns(Table::Swarm),
            || snapshot.swarm_metrics(&all().swarm("azure-llm").limit(3)),
        )?,
    ])
}

type Command = (&'static str, &'static str);

fn single<T: Record>(
    says: &'static str,
    command: Command,
    columns: Columns<'_>,
    ask: impl FnOnce() -> StoreResult<Answer<T>>,
) -> Result<Answered, Failure> {
    answered(says, command, ask, |out, answer| output::list(out, 2, columns, &answer.value))
}

fn list<T: Record>(
    says: &'static str,
    command: Command,
    columns: Columns<'_>,
    ask: impl FnOnce() -> StoreResult<Page<T>>,
) -> Result<Answered, Failure> {
    answered(says, command, ask, |out, page| output::table(out, 2, columns, &page.rows))
}

/// Draws the buckets, and shows the first and the last.
fn series(
    says: &'static str,
    command: Command,
    ask: impl FnOnce() -> StoreResult<Page<Bucket>>,
) -> Result<Answered, Failure> {
    answered(says, command, ask, |out, page| {
        let values: Vec<f64> =
            page.rows.iter().filter_map(|bucket| bucket.value).map(|v| v.as_f64()).collect();
        writeln!(out, "  {}", sparkline(&values))?;
        let ends: Vec<Bucket> =
            page.rows.first().into_iter().chain(page.rows.last()).cloned().collect();
        output::table(out, 2, BUCKET, &ends)
    })
}

fn answered<A>(
    says: &'static str,
    (method, options): Command,
    ask: impl FnOnce() -> StoreResult<A>,
    print: impl FnOnce(&mut Vec<u8>, &A) -> Result<(), Failure>,
) -> Result<Answered, Failure> {
    let start = Instant::now();
    let answer = ask()?;
    let ms = super::ms(start.elapsed());
    let mut text = Vec::new();
    print(&mut text, &answer)?;
    Ok(Answered { method, options, ms, says, text })
}

/// Eight heights from the smallest value to the largest.
fn sparkline(values: &[f64]) -> String {
    const HEIGHTS: [char; 8] = [
        '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
        '\u{2588}',
    ];
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: &f64| {
        let share = if max > min { (value - min) / (max - min) } else { 0.0 };
        let above = (1_u8..8).filter(|step| share >= f64::from(*step) / 8.0).count();
        HEIGHTS.get(above).copied().unwrap_or(' ')
    };
    values.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_span_the_range() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[5.0, 5.0]), "\u{2581}\u{2581}");
        assert_eq!(sparkline(&[0.0, 0.5, 1.0]), "\u{2581}\u{2585}\u{2588}");
    }
}
