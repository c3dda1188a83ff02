//! `tallystone query`: the ten methods, as tables, JSON or CSV.

mod records;

use std::io::{self, Write};

use serde::Serialize;
use tallystone::time::{Clock, SystemClock};
use tallystone::{
    Answer, Coverage, Cursor, Effort, Filter, Interval, Limit, Order, Page, Plan, Quantile,
    Snapshot, Span, Table, Timestamp,
};

pub(crate) use self::records::{
    AVERAGE, BUCKET, QUANTILE, Ranked, SLOW_TASK, SUMMARY, TOP_AGENT, row_columns,
};
use crate::args::{Agg, FilterArgs, Globals, Method, QueryArgs};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, Cell, Columns, Record, escape};

pub(crate) fn run(globals: &Globals, args: &QueryArgs) -> Result<Exit, Failure> {
    check_options(args).map_err(Failure::Usage)?;
    let filter = filter(args)?;
    let store = open::as_told(globals)?;
    let printer =
        Printer { json: globals.json, csv: args.csv, raw: args.raw, explain: args.explain };
    ask(&store.snapshot()?, args, &filter, &printer)
}

fn ask(
    snapshot: &Snapshot,
    args: &QueryArgs,
    filter: &Filter,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let table = args.table.unwrap_or(Table::Task);
    let field = args.field.as_deref().unwrap_or_else(|| default_field(table));
    match args.method {
        Method::Metrics => printer.page(row_columns(table), &snapshot.metrics(table, filter)?),
        Method::TaskMetrics => {
            printer.page(row_columns(Table::Task), &snapshot.task_metrics(filter)?)
        }
        Method::AgentMetrics => {
            printer.page(row_columns(Table::Agent), &snapshot.agent_metrics(filter)?)
        }
        Method::SwarmMetrics => {
            printer.page(row_columns(Table::Swarm), &snapshot.swarm_metrics(filter)?)
        }
        Method::AggregateByTime => {
            let interval = args.interval.unwrap_or(Interval::Hour);
            let rank = args.percentile.first().copied();
            let agg = args.agg.unwrap_or(Agg::Avg).with_rank(rank).map_err(Failure::Usage)?;
            let page = snapshot.aggregate_by_time(table, field, interval, agg, filter)?;
            printer.page(BUCKET, &page)
        }
        Method::Percentile => percentile(snapshot, args, (table, field), filter, printer),
        Method::Average => printer.answer(AVERAGE, &snapshot.average(table, field, filter)?),
        Method::TopAgents => {
            let order = args.order.map_or(Order::Ascending, Order::from);
            printer.page(TOP_AGENT, &snapshot.top_agents(args.top_by()?, order, filter)?)
        }
        Method::SlowestTasks => printer.page(SLOW_TASK, &snapshot.slowest_tasks(filter)?),
        Method::Summary => printer.answer(SUMMARY, &snapshot.summary_stats(args.how(), filter)?),
    }
}

/// One rank is a single result; several are a list, each with its rank.
fn percentile(
    snapshot: &Snapshot,
    args: &QueryArgs,
    (table, field): (Table, &str),
    filter: &Filter,
    printer: &Printer,
) -> Result<Exit, Failure> {
    if let [p] = args.percentile.as_slice() {
        let answer = snapshot.percentile(table, field, *p, args.how(), filter)?;
        return printer.answer(QUANTILE, &answer);
    }
    let answer = snapshot.percentiles(table, field, &args.percentile, args.how(), filter)?;
    let Answer { value, coverage, cached, plan } = answer;
    let ranked = |(percentile, quantile): (&f64, Quantile)| Ranked::new(*percentile, quantile);
    let rows = args.percentile.iter().zip(value).map(ranked).collect();
    printer.page(Ranked::COLUMNS, &Page { rows, next_cursor: None, coverage, cached, plan })
}

/// The column that a method computes with unless told.
fn default_field(table: Table) -> &'static str {
    match table {
        Table::Task => "duration_ms",
        Table::Agent | Table::Swarm => "value",
    }
}

/// Refuses options that the method does not look at.
fn check_options(args: &QueryArgs) -> Result<(), String> {
    use Method::{AggregateByTime, Average, Metrics, Percentile, Summary, TopAgents};
    let computes: &[Method] = &[AggregateByTime, Percentile, Average];
    let given: [(&str, bool, &[Method]); 7] = [
        ("--table", args.table.is_some(), &[Metrics, AggregateByTime, Percentile, Average]),
        ("--field", args.field.is_some(), computes),
        ("--percentile", !args.percentile.is_empty(), &[AggregateByTime, Percentile]),
        ("--interval", args.interval.is_some(), &[AggregateByTime]),
        ("--agg", args.agg.is_some(), &[AggregateByTime]),
        ("--order", args.order.is_some(), &[TopAgents]),
        ("--estimate", args.estimate, &[Percentile, Summary]),
    ];
    for (option, is_given, methods) in given {
        if is_given && !methods.contains(&args.method) {
            return Err(format!("{option}: not an option of this method"));
        }
    }
    if args.method == Metrics && args.table.is_none() {
        return Err("metrics: expected --table task, agent or swarm".to_owned());
    }
    match (args.method, args.percentile.len()) {
        (Percentile, 0) => Err("percentile: expected --percentile P, as 0.95".to_owned()),
        (AggregateByTime, 2..) => Err("--percentile: expected one with this method".to_owned()),
        _ => Ok(()),
    }
}

fn filter(args: &QueryArgs) -> Result<Filter, Failure> {
    let rows = rows_of(&args.filter)?;
    let is_ordering = args.method == Method::TopAgents;
    Ok(Filter {
        metric_type: rows.metric_type.filter(|_| !is_ordering),
        limit: args.limit.unwrap_or(Limit::Default),
        offset: args.offset.unwrap_or(0),
        cursor: args.cursor.as_deref().map(Cursor::from_text),
        strict: args.strict,
        allow_partial: args.allow_partial,
        ..rows
    })
}

/// Which rows are meant.
pub(crate) fn rows_of(args: &FilterArgs) -> Result<Filter, Failure> {
    let (mut from, mut to) = (args.from, args.to);
    if let Some(length) = args.last {
        let now = SystemClock.now();
        from = Some(Timestamp::from_micros(now.as_micros().saturating_sub(length))?);
        to = Some(now);
    }
    Ok(Filter {
        from,
        to,
        task_id: args.task_id.clone(),
        agent_id: args.agent_id.clone(),
        swarm_id: args.swarm_id.clone(),
        metric_type: args.metric_type.clone(),
        success: args.success,
        ..Filter::new()
    })
}

/// How the answer is printed.
struct Printer {
    json: bool,
    csv: bool,
    raw: bool,
    explain: bool,
}

impl Printer {
    fn page<T: Record + Serialize>(
        &self,
        columns: Columns<'_>,
        page: &Page<T>,
    ) -> Result<Exit, Failure> {
        let mut out = output::stdout();
        if self.json {
            output::json(&mut out, page)?;
        } else if self.csv {
            output::csv(&mut out, columns, &page.rows, self.raw)?;
        } else {
            output::table(&mut out, 0, columns, &page.rows)?;
        }
        out.flush()?;
        if let Some(cursor) = page.next_cursor.as_ref().filter(|_| !self.json) {
            note(&format!("there is more: --cursor {cursor}"));
        }
        Ok(self.finish(&page.coverage, &page.plan, page.cached))
    }

    fn answer<T: Record + Serialize>(
        &self,
        columns: Columns<'_>,
        answer: &Answer<T>,
    ) -> Result<Exit, Failure> {
        let mut out = output::stdout();
        if self.json {
            output::json(&mut out, answer)?;
        } else if self.csv {
            output::csv(&mut out, columns, std::slice::from_ref(&answer.value), self.raw)?;
        } else {
            output::list(&mut out, 0, columns, &answer.value)?;
        }
        out.flush()?;
        Ok(self.finish(&answer.coverage, &answer.plan, answer.cached))
    }

    /// What goes to standard error after the answer.
    fn finish(&self, coverage: &Coverage, plan: &Plan, cached: bool) -> Exit {
        if !self.json {
            missing(coverage).iter().for_each(|text| note(text));
        }
        if self.explain {
            // An answer was given; that its explanation cannot be printed does not undo it.
            let _ = explain(plan, cached);
        }
        Exit::of(coverage)
    }
}

/// What an answer does not rest on, a line for each piece.
pub(crate) fn missing(coverage: &Coverage) -> Vec<String> {
    let span = |what: &str, span: &Span| {
        let reason = span.reason.as_deref().map_or_else(String::new, |text| format!(" ({text})"));
        format!("{what}: {} to {}{reason}", span.from, span.to)
    };
    let mut lines: Vec<String> = coverage.gone.iter().map(|s| span("gone", s)).collect();
    lines.extend(coverage.unanswerable.iter().map(|s| span("unanswerable", s)));
    lines.extend(coverage.damaged.iter().map(|damage| {
        let block = damage.block.map_or_else(String::new, |block| format!(" block {block}"));
        let rows = damage.rows.map_or_else(String::new, |rows| format!(", {rows} rows"));
        let (from, to, reason) = (damage.from, damage.to, &damage.reason);
        format!("damaged: {from} to {to}, {}{block}{rows}: {reason}", damage.file)
    }));
    lines
}

/// Says something beside the answer.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "note: {}", escape(text));
}

/// The counters of a plan, as rows of a table.
struct Step(&'static str, Effort);

impl Record for Step {
    fn cells(&self) -> Vec<Cell<'_>> {
        let Self(name, effort) = self;
        let counts = [effort.count, effort.rows, effort.bytes].map(Cell::count);
        std::iter::once(Cell::text(name)).chain(counts).collect()
    }
}

fn explain(plan: &Plan, cached: bool) -> Result<(), Failure> {
    let steps = [
        Step("segments", plan.segments),
        Step("segments pruned", plan.segments_pruned),
        Step("summarised", plan.summarised),
        Step("blocks pruned", plan.blocks_pruned),
        Step("blocks scanned", plan.blocks_scanned),
    ];
    let mut err = io::stderr().lock();
    output::table(&mut err, 0, &["plan", "count", "rows", "bytes"], &steps)?;
    writeln!(err, "result cache: {}", if cached { "hit" } else { "miss" })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn args(line: &str) -> QueryArgs {
        let words = ["tallystone", "query"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Query(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_belong_to_methods() {
        for line in [
            "metrics --table agent",
            "percentile --percentile 0.5 --percentile 0.9 --estimate --field tokens_used",
            "aggregate-by-time --agg percentile --percentile 0.5 --interval 5m",
            "top-agents --order desc --metric-type task_count",
            "summary --estimate --last 24h",
        ] {
            assert_eq!(check_options(&args(line)), Ok(()), "{line}");
        }
        for line in [
            "metrics",
            "percentile",
            "average --percentile 0.5",
            "summary --field duration_ms",
            "slowest-tasks --order asc",
            "task-metrics --table agent",
            "aggregate-by-time --percentile 0.5 --percentile 0.6",
        ] {
            assert!(check_options(&args(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn the_metric_type_of_top_agents_is_an_order() {
        let args = args("top-agents --metric-type task_count --agent-id a");
        let filter = filter(&args).unwrap();
        assert_eq!((filter.metric_type, filter.agent_id.as_deref()), (None, Some("a")));
        assert_eq!(args.top_by().unwrap(), tallystone::TopBy::TaskCount);
    }

    #[test]
    fn missing_pieces_are_named() {
        let time = |seconds| Timestamp::from_seconds(seconds).unwrap();
        let span = Span { from: time(0), to: time(60), reason: Some("cell_cut".into()) };
        let coverage = Coverage { unanswerable: vec![span], ..Coverage::default() };
        let expected = "unanswerable: 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z (cell_cut)";
        assert_eq!(missing(&coverage), [expected]);
    }
}
