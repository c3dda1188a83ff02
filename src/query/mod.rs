//! The ten methods: filter, plan, scan, aggregate.
//!
//! Owns what a snapshot is asked and how it answers. A method makes a `Question` of its
//! filter, lets `plan` find the sources and what their summaries offer, scans the rest,
//! and closes the `Ledger`, which says what the answer rests on. Knows neither files nor
//! the catalog; segments are read through `segment::Segment` alone.

mod aggregate;
pub mod answer;
pub mod columns;
mod cursor;
pub mod filter;
mod keyed;
mod number;
pub(crate) mod ordered;
mod percentile;
pub(crate) mod plan;
mod rows;
mod runs;
pub(crate) mod scan;
mod tiers;
mod top;
pub mod views;

#[cfg(test)]
mod tests;

use std::any::Any;

use crate::error::Result;
use crate::limits::LIMIT_DEFAULT;
use crate::row::{AgentRow, Row, SwarmRow, TaskRow};
use crate::schema::{ColumnType, Table, task};
use crate::snapshot::{Snapshot, cached};
use crate::time::Interval;
use aggregate::{Wanted, buckets, distinct, groups, newest_value, to_aggregate, total};
use answer::{
    AgentSummary, Aggregate, Answer, Average, Bucket, Coverage, KeyAggregate, Page, Plan, Quantile,
    SlowTask, Summary,
};
use columns::Columns;
use filter::{Aggregation, Filter, Limit, Order, Percentile, TopBy};
use number::Numeric;
use percentile::{check_share, quantiles};
use plan::{Ledger, Question, Shape, Source};
use rows::{FromColumns, page};
use top::{agents, part, share, slowest};
use views::Views;

/// Most entries of an answer that the result cache keeps.
const CACHED_ENTRIES_MAX: usize = 10_000;

/// Most bytes of text of a page of rows that the result cache keeps.
const CACHED_TEXT_BYTES_MAX: usize = 256 << 10;

impl Snapshot {
    /// Rows of a table, newest first: by timestamp, then ids, descending. At most 1,000
    /// unless the filter says otherwise.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a filter that the table does not have, or a cursor of another
    /// question; if the filter is strict, `Corrupt` if rows cannot be read and `Incomplete`
    /// if others are missing.
    pub fn metrics(&self, table: Table, filter: &Filter) -> Result<Page<Row>> {
        self.page("metrics", table, filter)
    }

    /// Task rows, newest first: by timestamp, then task, then agent, descending.
    ///
    /// # Errors
    ///
    /// As [`metrics`](Self::metrics).
    pub fn task_metrics(&self, filter: &Filter) -> Result<Page<TaskRow>> {
        self.page("task_metrics", Table::Task, filter)
    }

    /// Agent rows, newest first: by timestamp, then agent, then metric type, descending.
    ///
    /// # Errors
    ///
    /// As [`metrics`](Self::metrics).
    pub fn agent_metrics(&self, filter: &Filter) -> Result<Page<AgentRow>> {
        self.page("agent_metrics", Table::Agent, filter)
    }

    /// Swarm rows, newest first: by timestamp, then swarm, then metric type, descending.
    ///
    /// # Errors
    ///
    /// As [`metrics`](Self::metrics).
    pub fn swarm_metrics(&self, filter: &Filter) -> Result<Page<SwarmRow>> {
        self.page("swarm_metrics", Table::Swarm, filter)
    }

    /// A time series; buckets ascending, empty ones left out.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a field that is not a measure, an interval under a second, a
    /// percentile outside 0 to 1, or a filter that the table does not have; `Corrupt` if
    /// rows cannot be read, unless the filter allows a partial answer; `Incomplete` if it
    /// is strict and rows are missing.
    pub fn aggregate_by_time(
        &self,
        table: Table,
        field: &str,
        interval: Interval,
        aggregation: Aggregation,
        filter: &Filter,
    ) -> Result<Page<Bucket>> {
        let column = table.schema().measure(field)?;
        aggregate::check_series(field, interval, aggregation)?;
        let asked = || format!("aggregate_by_time {column} {interval:?} {aggregation:?}");
        self.list(asked, table, filter, |question, sources, ledger| {
            let all = buckets(question, sources, ledger, column, interval, aggregation)?;
            Ok(part(all, filter, Limit::All))
        })
    }

    /// A percentile, `p` from 0 to 1.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a field that is not a measure, a share outside 0 to 1, a
    /// filter that the table does not have, or one with a limit, an offset or a cursor;
    /// `Corrupt` and `Incomplete` as [`aggregate_by_time`](Self::aggregate_by_time).
    pub fn percentile(
        &self,
        table: Table,
        field: &str,
        p: f64,
        how: Percentile,
        filter: &Filter,
    ) -> Result<Answer<Quantile>> {
        let Answer { value, coverage, cached, plan } =
            self.percentiles(table, field, &[p], how, filter)?;
        let none = Quantile { value: None, exact: true, rank_error: 0.0, count: 0 };
        Ok(Answer { value: value.into_iter().next().unwrap_or(none), coverage, cached, plan })
    }

    /// Several percentiles in one pass, in the order asked for.
    ///
    /// # Errors
    ///
    /// As [`percentile`](Self::percentile).
    pub fn percentiles(
        &self,
        table: Table,
        field: &str,
        ps: &[f64],
        how: Percentile,
        filter: &Filter,
    ) -> Result<Answer<Vec<Quantile>>> {
        let column = table.schema().measure(field)?;
        ps.iter().try_for_each(|p| check_share(field, *p))?;
        let asked = || format!("percentiles {column} {ps:?} {how:?}");
        self.scalar(asked, table, filter, |question, sources, ledger| {
            quantiles(question, sources, ledger, column, ps, how)
        })
    }

    /// The mean of a field.
    ///
    /// # Errors
    ///
    /// As [`percentile`](Self::percentile).
    pub fn average(&self, table: Table, field: &str, filter: &Filter) -> Result<Answer<Average>> {
        let column = table.schema().measure(field)?;
        let asked = || format!("average {column}");
        self.scalar(asked, table, filter, |question, sources, ledger| {
            let wanted = Wanted::measure(question.schema, column);
            let stats = total(question, sources, ledger, &wanted)?.stats[0];
            let value = stats.average();
            Ok(Average { value, exact: true, rank_error: 0.0, count: stats.count() })
        })
    }

    /// Agents by what their tasks add up to; equal ones by name, those without the figure
    /// last. At most 10 unless the filter says otherwise.
    ///
    /// # Errors
    ///
    /// As [`aggregate_by_time`](Self::aggregate_by_time).
    pub fn top_agents(
        &self,
        by: TopBy,
        order: Order,
        filter: &Filter,
    ) -> Result<Page<AgentSummary>> {
        let asked = || format!("top_agents {by:?} {order:?}");
        self.list(asked, Table::Task, filter, |question, sources, ledger| {
            agents(question, sources, ledger, by, order, filter, self.merged())
        })
    }

    /// Tasks with the largest durations, slowest first; equal ones newest first. At most
    /// 10 unless the filter says otherwise.
    ///
    /// # Errors
    ///
    /// As [`aggregate_by_time`](Self::aggregate_by_time).
    pub fn slowest_tasks(&self, filter: &Filter) -> Result<Page<SlowTask>> {
        let asked = || "slowest_tasks".to_owned();
        self.list(asked, Table::Task, filter, |question, sources, ledger| {
            slowest(question, sources, ledger, filter)
        })
    }

    /// All tasks in nine numbers. Where a rollup keeps counts and no digest for what the filter
    /// asks, the counts have those tasks, the percentiles do not, and the coverage says
    /// `unanswerable`.
    ///
    /// # Errors
    ///
    /// As [`percentile`](Self::percentile).
    pub fn summary_stats(&self, how: Percentile, filter: &Filter) -> Result<Answer<Summary>> {
        let asked = || format!("summary_stats {how:?}");
        self.scalar(asked, Table::Task, filter, |question, sources, ledger| {
            let wanted = Wanted::everything(question.schema);
            let tally = total(question, sources, ledger, &wanted)?;
            let column = task::DURATION_MS;
            let ranked = quantiles(question, sources, ledger, column, &[0.95, 0.99], how)?;
            let at = |position: usize| ranked.get(position).and_then(|found| found.value);
            let rank_error = ranked.iter().map(|found| found.rank_error).fold(0.0, f64::max);
            Ok(Summary {
                total_tasks: tally.rows,
                successful_tasks: tally.successes,
                success_rate: share(tally.successes, tally.rows),
                avg_duration_ms: tally.stats[0].average(),
                p95_duration_ms: at(0),
                p99_duration_ms: at(1),
                avg_tokens_per_task: tally.stats[1].average(),
                total_tokens_used: tally.stats[1].sum.into(),
                unique_agents: distinct(question, sources, ledger, task::AGENT_ID, self.merged())?,
                rank_error,
            })
        })
    }

    /// Count, nulls, sum, min, max, average and last in one pass.
    ///
    /// # Errors
    ///
    /// As [`percentile`](Self::percentile).
    pub fn aggregate(
        &self,
        table: Table,
        field: &str,
        filter: &Filter,
    ) -> Result<Answer<Aggregate>> {
        let column = table.schema().measure(field)?;
        let asked = || format!("aggregate {column}");
        self.scalar(asked, table, filter, |question, sources, ledger| {
            let wanted = Wanted::measure(question.schema, column);
            let tally = total(question, sources, ledger, &wanted)?;
            let last = newest_value(question, sources, ledger, column)?;
            let numeric = Numeric::of(question.schema, column);
            Ok(to_aggregate(numeric, tally.rows, &tally.stats[0], last))
        })
    }

    /// The same for each value of a dimension (`agent_id`, `swarm_id`, `metric_type`), by
    /// name; all of them unless the filter says otherwise.
    ///
    /// # Errors
    ///
    /// As [`aggregate_by_time`](Self::aggregate_by_time), and `InvalidArgument` for a key
    /// that is not a dimension.
    pub fn aggregate_by_key(
        &self,
        table: Table,
        field: &str,
        key: &str,
        filter: &Filter,
    ) -> Result<Page<KeyAggregate>> {
        let column = table.schema().measure(field)?;
        let by = dimension(table, key)?;
        let asked = || format!("aggregate_by_key {column} {by}");
        self.list(asked, table, filter, |question, sources, ledger| {
            let wanted = Wanted::measure(question.schema, column);
            let cache = self.merged();
            let groups = groups(question, sources, ledger, by, &wanted, true, cache)?;
            let mut found = groups.list();
            found.sort_unstable_by_key(|group| group.name);
            let numeric = Numeric::of(question.schema, column);
            let all = part(found, filter, Limit::All).into_iter().map(|group| {
                let aggregate = to_aggregate(numeric, group.rows, &group.stats[0], group.last);
                KeyAggregate { key: group.name.to_owned(), aggregate }
            });
            Ok(all.collect())
        })
    }

    /// Columns of the rows of a filter, block by block, in no promised order: the bulk
    /// read. All columns unless some are named; all rows unless the filter has a limit.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a column or a filter that the table does not have, or a
    /// cursor.
    pub fn columns(
        &self,
        table: Table,
        filter: &Filter,
        names: Option<&[&str]>,
    ) -> Result<Columns> {
        Columns::new(self, table, filter, names)
    }

    /// Views of the columns of the rows of a filter, block by block, in no promised order:
    /// the bulk read without a copy. All columns unless some are named; all rows unless the
    /// filter has a limit.
    ///
    /// ```
    /// # use tallystone::{AgentMetric, Filter, Store, Table, Timestamp};
    /// # fn main() -> tallystone::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(dir.path().join("store"))?;
    /// # store.keep_everything()?;
    /// # for value in [1.25, 2.5] {
    /// #     store.record_agent(&AgentMetric {
    /// #         timestamp: Timestamp::parse("2026-11-23T10:00:00Z")?,
    /// #         agent_id: "planner",
    /// #         metric_type: "cpu",
    /// #         value,
    /// #         metadata: None,
    /// #     })?;
    /// # }
    /// # store.commit()?;
    /// let (mut rows, mut sum) = (0, 0.0);
    /// for block in store.snapshot()?.views(Table::Agent, &Filter::new(), Some(&["value"]))? {
    ///     let block = block?;
    ///     let values = block.column(0).floats().expect("a column of floats");
    ///     rows += values.len();
    ///     sum += values.sum();
    /// }
    /// assert_eq!((rows, sum), (2, 3.75));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`columns`](Self::columns).
    pub fn views(&self, table: Table, filter: &Filter, names: Option<&[&str]>) -> Result<Views> {
        Views::new(self, table, filter, names)
    }

    fn page<T: FromColumns>(
        &self,
        method: &'static str,
        table: Table,
        filter: &Filter,
    ) -> Result<Page<T>> {
        let asked = || method.to_owned();
        let keep = |page: &Page<T>| {
            let bytes: usize = page.rows.iter().map(FromColumns::text_bytes).sum();
            page.rows.len() <= LIMIT_DEFAULT && bytes <= CACHED_TEXT_BYTES_MAX
        };
        self.cached(asked, table, filter, keep, || page(self, table, filter))
    }

    fn list<T: Any + Send + Sync + Clone>(
        &self,
        asked: impl FnOnce() -> String,
        table: Table,
        filter: &Filter,
        find: impl FnOnce(&Question, &[Source], &mut Ledger) -> Result<Vec<T>>,
    ) -> Result<Page<T>> {
        filter.check(table)?;
        filter.check_list()?;
        let keep = |page: &Page<T>| page.rows.len() <= CACHED_ENTRIES_MAX;
        self.cached(asked, table, filter, keep, || {
            let (rows, coverage, plan) = self.figure(table, filter, find)?;
            Ok(Page { rows, next_cursor: None, coverage, cached: false, plan })
        })
    }

    fn scalar<T: Any + Send + Sync + Clone>(
        &self,
        asked: impl FnOnce() -> String,
        table: Table,
        filter: &Filter,
        find: impl FnOnce(&Question, &[Source], &mut Ledger) -> Result<T>,
    ) -> Result<Answer<T>> {
        filter.check(table)?;
        filter.check_scalar()?;
        self.cached(
            asked,
            table,
            filter,
            |_| true,
            || {
                let (value, coverage, plan) = self.figure(table, filter, find)?;
                Ok(Answer { value, coverage, cached: false, plan })
            },
        )
    }

    fn figure<T>(
        &self,
        table: Table,
        filter: &Filter,
        find: impl FnOnce(&Question, &[Source], &mut Ledger) -> Result<T>,
    ) -> Result<(T, Coverage, Plan)> {
        let question = Question::new(table, filter)?;
        let mut ledger = Ledger::new(self, &question);
        let sources = ledger.sources(self, &question);
        let value = find(&question, &sources, &mut ledger)?;
        let (coverage, plan) = ledger.finish(filter, Shape::Figure)?;
        Ok((value, coverage, plan))
    }

    fn cached<T: Outcome>(
        &self,
        asked: impl FnOnce() -> String,
        table: Table,
        filter: &Filter,
        keep: impl FnOnce(&T) -> bool,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        // What has gone and which files are lost is no segment, but is in the coverage.
        let question = || {
            let gone = (self.gone(table), self.damaged_gone(table));
            let lost = self.file_damage(table);
            format!("{} {table} {filter:?} {gone:?} {lost:?}", asked())
        };
        // A block that could not be read may be readable the next time.
        let keep = |answer: &T| answer.coverage().damaged.is_empty() && keep(answer);
        let (mut answer, hit) = cached(self, table, question, keep, compute)?;
        answer.set_cached(hit);
        Ok(answer)
    }
}

fn dimension(table: Table, key: &str) -> Result<usize> {
    let columns = table.schema().columns;
    let is_dimension = |column: &usize| columns[*column].kind == ColumnType::Dimension;
    table.schema().column(key).filter(is_dimension).ok_or_else(|| {
        let names = (0..columns.len()).filter(is_dimension).map(|column| columns[column].name);
        let names: Vec<_> = names.collect();
        crate::error::Error::invalid(format!(
            "key {key:?} of {table}: expected {}",
            names.join(" or ")
        ))
    })
}

/// What the result cache hands out.
trait Outcome: Any + Send + Sync + Clone {
    fn coverage(&self) -> &Coverage;
    fn set_cached(&mut self, cached: bool);
}

impl<T: Any + Send + Sync + Clone> Outcome for Page<T> {
    fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    fn set_cached(&mut self, cached: bool) {
        self.cached = cached;
    }
}

impl<T: Any + Send + Sync + Clone> Outcome for Answer<T> {
    fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    fn set_cached(&mut self, cached: bool) {
        self.cached = cached;
    }
}
