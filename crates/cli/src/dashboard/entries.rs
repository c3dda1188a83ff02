//! The entries of a panel's query: what its table, line and bars are drawn from.

use tallystone::alert::{Method, Query};
use tallystone::{
    Coverage, KeyAggregate, Percentile, Result, Row, Snapshot, Timestamp, TopBy, Value,
};

use super::figures::Entries;
use crate::output::{Cell, Columns, Record};
use crate::query::{BUCKET, SLOW_TASK, SUMMARY, TOP_AGENT, row_columns};

/// Most entries of a panel.
const ENTRIES_MAX: usize = 100;

/// Columns of what one pass over a column tells.
const AGGREGATE: Columns<'static> = &["sum", "rows", "count", "nulls", "min", "max", "avg", "last"];

/// Columns of the same by key.
const KEYS: Columns<'static> = &["key", "last", "sum", "count", "min", "max", "avg"];

impl Record for KeyAggregate {
    fn cells(&self) -> Vec<Cell<'_>> {
        let numbers = KEYS.iter().skip(1).map(|name| self.aggregate.number(name));
        let cells = numbers.map(|number| Cell::optional(number, Cell::Float));
        std::iter::once(Cell::text(&self.key)).chain(cells).collect()
    }
}

/// A number and its name.
struct Named<'a>(&'a str, Option<f64>);

impl Record for Named<'_> {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![Cell::text(self.0), Cell::optional(self.1, Cell::Float)]
    }
}

/// Asks for the entries of the window that ends at `now`: rows oldest first, the others in
/// the order of the method.
pub(crate) fn of(
    query: &Query,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<(Entries, Coverage)> {
    let filter = query.filter_at(now);
    let some = filter.clone().limit(ENTRIES_MAX);
    match query.method {
        Method::Metrics | Method::TaskMetrics | Method::AgentMetrics | Method::SwarmMetrics => {
            let mut page = snapshot.metrics(query.table, &some)?;
            page.rows.reverse();
            let number = |row: &Row| (row.timestamp().to_string(), row.number(query.field));
            Ok((entries(row_columns(query.table), &page.rows, number), page.coverage))
        }
        Method::AggregateByTime => {
            let mut page = snapshot.aggregate_by_time(
                query.table,
                query.field,
                query.interval,
                query.aggregation,
                &filter,
            )?;
            page.rows.drain(..page.rows.len().saturating_sub(ENTRIES_MAX));
            let found = entries(BUCKET, &page.rows, |bucket| {
                (bucket.time_bucket.to_string(), bucket.value.map(Value::as_f64))
            });
            Ok((found, page.coverage))
        }
        Method::TopAgents => {
            let by = TopBy::parse(query.measure)?;
            let page = snapshot.top_agents(by, query.order, &some)?;
            let found =
                entries(TOP_AGENT, &page.rows, |agent| (agent.agent_id.clone(), agent.number(by)));
            Ok((found, page.coverage))
        }
        Method::SlowestTasks => {
            let page = snapshot.slowest_tasks(&some)?;
            let found = entries(SLOW_TASK, &page.rows, |task| {
                (task.task_id.clone(), Some(Value::Int(task.duration_ms).as_f64()))
            });
            Ok((found, page.coverage))
        }
        Method::AggregateByKey => {
            let page = snapshot.aggregate_by_key(query.table, query.field, query.key, &some)?;
            let found = entries(KEYS, &page.rows, |key| {
                (key.key.clone(), key.aggregate.number(query.measure))
            });
            Ok((found, page.coverage))
        }
        Method::Summary => {
            let found = snapshot.summary_stats(Percentile::Exact, &filter)?;
            Ok((named(SUMMARY, |name| found.value.number(name)), found.coverage))
        }
        Method::Aggregate => {
            let found = snapshot.aggregate(query.table, query.field, &filter)?;
            Ok((named(AGGREGATE, |name| found.value.number(name)), found.coverage))
        }
        _ => {
            let reading = query.read(snapshot, now, 1)?;
            Ok((named(&[query.measure], |_| reading.value), reading.coverage))
        }
    }
}

/// Rows as texts, and what is drawn of each.
fn entries<T: Record>(
    columns: Columns<'_>,
    rows: &[T],
    number: impl Fn(&T) -> (String, Option<f64>),
) -> Entries {
    Entries {
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        rows: rows.iter().map(|row| row.cells().iter().map(Cell::plain).collect()).collect(),
        numbers: rows.iter().map(number).collect(),
    }
}

/// Numbers, each under its name.
fn named(names: Columns<'_>, number: impl Fn(&str) -> Option<f64>) -> Entries {
    let rows: Vec<_> = names.iter().map(|name| Named(name, number(name))).collect();
    entries(&["name", "value"], &rows, |row| (row.0.to_owned(), row.1))
}
