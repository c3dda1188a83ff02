//! A question whose answer is one number: a method, its arguments, and which number counts.

use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::query::answer::{Coverage, Value};
use crate::query::filter::{Aggregation, Filter, Order, Percentile, TopBy};
use crate::schema::{ColumnType, Table};
use crate::snapshot::Snapshot;
use crate::time::{Interval, MICROS_PER_SECOND, Timestamp, format_length, parse_length};

/// Time before now that a query looks at unless it says otherwise: 5 minutes.
const WINDOW_DEFAULT: i64 = 300 * MICROS_PER_SECOND;

/// A method of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// Rows of any table.
    Metrics,
    /// Rows of tasks.
    TaskMetrics,
    /// Rows of agents' gauges.
    AgentMetrics,
    /// Rows of swarms' gauges.
    SwarmMetrics,
    /// One number for each interval of time.
    AggregateByTime,
    /// The value at a rank.
    Percentile,
    /// The mean.
    Average,
    /// Agents by what their tasks add up to.
    TopAgents,
    /// Tasks with the largest durations.
    SlowestTasks,
    /// All tasks in a few numbers.
    Summary,
    /// Everything that one pass over a column tells.
    Aggregate,
    /// The same for each value of a dimension.
    AggregateByKey,
}

impl Method {
    /// Name, as the command takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::TaskMetrics => "task-metrics",
            Self::AgentMetrics => "agent-metrics",
            Self::SwarmMetrics => "swarm-metrics",
            Self::AggregateByTime => "aggregate-by-time",
            Self::Percentile => "percentile",
            Self::Average => "average",
            Self::TopAgents => "top-agents",
            Self::SlowestTasks => "slowest-tasks",
            Self::Summary => "summary",
            Self::Aggregate => "aggregate",
            Self::AggregateByKey => "aggregate-by-key",
        }
    }

    /// The table that the method is about, where it is about one.
    fn table(self) -> Option<Table> {
        match self {
            Self::TaskMetrics | Self::TopAgents | Self::SlowestTasks | Self::Summary => {
                Some(Table::Task)
            }
            Self::AgentMetrics => Some(Table::Agent),
            Self::SwarmMetrics => Some(Table::Swarm),
            _ => None,
        }
    }

    /// The numbers of its answer that may be asked for; the first unless another is named.
    fn measures(self) -> &'static [&'static str] {
        const AGGREGATE: &[&str] = &["sum", "rows", "count", "nulls", "min", "max", "avg", "last"];
        match self {
            Self::Metrics | Self::TaskMetrics | Self::AgentMetrics | Self::SwarmMetrics => {
                &["rows", "newest"]
            }
            Self::AggregateByTime => &["last", "min", "max"],
            Self::Percentile | Self::Average => &["value"],
            Self::TopAgents => {
                &["task_count", "avg_duration_ms", "avg_tokens_used", "success_rate"]
            }
            Self::SlowestTasks => &["duration_ms"],
            Self::Summary => &[
                "success_rate",
                "total_tasks",
                "successful_tasks",
                "avg_duration_ms",
                "p95_duration_ms",
                "p99_duration_ms",
                "avg_tokens_per_task",
                "total_tokens_used",
                "unique_agents",
            ],
            Self::Aggregate => AGGREGATE,
            Self::AggregateByKey => &["last", "sum", "rows", "count", "nulls", "min", "max", "avg"],
        }
    }
}

/// How the numbers of several keys become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Across {
    /// Added up.
    #[default]
    Sum,
    /// The smallest of them.
    Min,
    /// The largest of them.
    Max,
}

/// A question whose answer is one number.
///
/// It is read from text (TOML, JSON) with these keys; all but `method` may be left out:
///
/// | key | means | unless given |
/// |---|---|---|
/// | `method` | one of the ten methods, `aggregate` or `aggregate-by-key` | |
/// | `measure` | which number of the answer ([below](#measures)) | the first |
/// | `window` | time before now that is looked at: `90s`, `5m`, `24h`, `7d` | `5m` |
/// | `table` | `task`, `agent` or `swarm` | `task` |
/// | `field` | the column that is computed with | `duration_ms` or `value` |
/// | `percentile` | the rank, 0 to 1 | |
/// | `interval`, `agg` | of `aggregate-by-time` | `1m`, `avg` |
/// | `order` | of `top-agents`: `asc` or `desc` | `asc` |
/// | `key` | the dimension of `aggregate-by-key` | agent or swarm |
/// | `across` | `sum`, `min` or `max` of the numbers of its values | `sum` |
/// | `task_id`, `agent_id`, `swarm_id`, `metric_type`, `success` | the filter | all rows |
///
/// # Measures
///
/// | method | measures |
/// |---|---|
/// | `metrics`, and the three of one table | `rows`, `newest` (the field of the newest row) |
/// | `aggregate-by-time` | `last` (of the newest bucket with rows), `min`, `max` |
/// | `percentile`, `average` | `value` |
/// | `top-agents` | a number of the first agent in its order: `task_count` first |
/// | `slowest-tasks` | `duration_ms`, of the slowest |
/// | `summary` | its nine numbers: `success_rate` first |
/// | `aggregate` | `sum`, `rows`, `count`, `nulls`, `min`, `max`, `avg`, `last` |
/// | `aggregate-by-key` | the same, `last` first |
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Query {
    /// What is asked.
    pub method: Method,
    /// Which number of the answer counts.
    pub measure: &'static str,
    /// Time before now that is looked at, in microseconds.
    pub window: i64,
    /// The table.
    pub table: Table,
    /// The column that is computed with.
    pub field: &'static str,
    /// The dimension of `aggregate-by-key`.
    pub key: &'static str,
    /// How the numbers of its keys become one.
    pub across: Across,
    /// Buckets of `aggregate-by-time`.
    pub interval: Interval,
    /// What is computed in each of them.
    pub aggregation: Aggregation,
    /// Rank of `percentile`.
    pub percentile: f64,
    /// Order of `top-agents`.
    pub order: Order,
    /// The filter, without its times.
    pub filter: Filter,
}

/// The keys as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryText {
    method: Method,
    measure: Option<String>,
    window: Option<String>,
    table: Option<String>,
    field: Option<String>,
    percentile: Option<f64>,
    interval: Option<String>,
    agg: Option<String>,
    order: Option<String>,
    key: Option<String>,
    across: Option<Across>,
    task_id: Option<String>,
    agent_id: Option<String>,
    swarm_id: Option<String>,
    metric_type: Option<String>,
    success: Option<bool>,
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        QueryText::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl TryFrom<QueryText> for Query {
    type Error = Error;

    fn try_from(text: QueryText) -> Result<Self> {
        text.check_keys()?;
        let method = text.method;
        let asked = text.table.as_deref().map(Table::parse).transpose()?;
        let table = match (method.table(), asked) {
            (Some(own), Some(other)) if own != other => {
                let name = method.name();
                return Err(Error::invalid(format!("table {other}: {name} is about {own}")));
            }
            (Some(own), _) => own,
            (None, asked) => asked.unwrap_or(Table::Task),
        };
        let columns = table.schema().columns;
        let field = match &text.field {
            Some(name) => table.schema().measure(name)?,
            None => table.schema().measures[0],
        };
        let mut query = Self::new(method);
        query.table = table;
        query.field = columns[field].name;
        query.key = match &text.key {
            Some(name) => dimension(table, name)?,
            None if table == Table::Swarm => "swarm_id",
            None => "agent_id",
        };
        query.across = text.across.unwrap_or_default();
        if let Some(name) = &text.measure {
            query.measure = one_of("measure", name, method.measures())?;
        }
        if let Some(length) = &text.window {
            query.window = parse_length(length).filter(|window| *window > 0).ok_or_else(|| {
                Error::invalid(format!("window {length:?}: expected a length as 90s, 5m, 24h, 7d"))
            })?;
        }
        if let Some(interval) = &text.interval {
            query.interval = Interval::parse(interval)?;
        }
        if let Some(order) = &text.order {
            query.order = match one_of("order", order, &["asc", "desc"])? {
                "desc" => Order::Descending,
                _ => Order::Ascending,
            };
        }
        query.set_rank(&text)?;
        query.filter = Filter {
            task_id: text.task_id,
            agent_id: text.agent_id,
            swarm_id: text.swarm_id,
            metric_type: text.metric_type,
            success: text.success,
            ..Filter::new()
        };
        query.filter.check(table)?;
        Ok(query)
    }
}

impl QueryText {
    /// Refuses keys that the method has no use for: they would be taken for what they are not.
    fn check_keys(&self) -> Result<()> {
        use Method::{
            AgentMetrics, Aggregate, AggregateByKey, AggregateByTime, Average, Metrics, Percentile,
            SwarmMetrics, TaskMetrics, TopAgents,
        };
        let method = self.method;
        let rows = matches!(method, Metrics | TaskMetrics | AgentMetrics | SwarmMetrics);
        let figures =
            matches!(method, Aggregate | AggregateByKey | AggregateByTime | Average | Percentile);
        let by_time = method == AggregateByTime;
        for (key, given, fits) in [
            ("field", self.field.is_some(), rows || figures),
            ("percentile", self.percentile.is_some(), by_time || method == Percentile),
            ("interval", self.interval.is_some(), by_time),
            ("agg", self.agg.is_some(), by_time),
            ("order", self.order.is_some(), method == TopAgents),
            ("key", self.key.is_some(), method == AggregateByKey),
            ("across", self.across.is_some(), method == AggregateByKey),
        ] {
            if given && !fits {
                let name = method.name();
                return Err(Error::invalid(format!("key {key}: {name} has no use for it")));
            }
        }
        Ok(())
    }
}

/// The one of `names` that the text is.
fn one_of(what: &str, text: &str, names: &[&'static str]) -> Result<&'static str> {
    names.iter().find(|name| **name == text).copied().ok_or_else(|| {
        Error::invalid(format!("{what} {text:?}: expected one of {}", names.join(", ")))
    })
}

/// Name of a dimension that the rows of a key share.
fn dimension(table: Table, name: &str) -> Result<&'static str> {
    let dimensions = table.schema().columns.iter().filter(|c| c.kind == ColumnType::Dimension);
    one_of("key", name, &dimensions.map(|column| column.name).collect::<Vec<_>>())
}

impl Query {
    /// The question of a method with everything else as it is unless given.
    pub fn new(method: Method) -> Self {
        let table = method.table().unwrap_or(Table::Task);
        Self {
            method,
            measure: method.measures()[0],
            window: WINDOW_DEFAULT,
            table,
            field: table.schema().columns[table.schema().measures[0]].name,
            key: if table == Table::Swarm { "swarm_id" } else { "agent_id" },
            across: Across::Sum,
            interval: Interval::Minute,
            aggregation: Aggregation::Avg,
            percentile: 0.5,
            order: Order::Ascending,
            filter: Filter::new(),
        }
    }

    /// The newest value of a swarm metric, added up over the swarms.
    pub fn newest_of_swarms(metric_type: &str, window: i64) -> Self {
        Self {
            table: Table::Swarm,
            field: "value",
            key: "swarm_id",
            window,
            filter: Filter::new().metric_type(metric_type),
            ..Self::new(Method::AggregateByKey)
        }
    }

    /// Rank and aggregation, which belong together.
    fn set_rank(&mut self, text: &QueryText) -> Result<()> {
        let rank = text.percentile;
        if let Some(p) = rank.filter(|p| !(0.0..=1.0).contains(p)) {
            return Err(Error::invalid(format!("percentile {p}: expected 0 to 1, as 0.95")));
        }
        if self.method == Method::Percentile {
            self.percentile = rank.ok_or_else(|| {
                Error::invalid("key percentile is missing: the rank, from 0 to 1, as 0.95")
            })?;
            return Ok(());
        }
        let names = ["avg", "sum", "count", "min", "max", "percentile"];
        self.aggregation =
            match (one_of("agg", text.agg.as_deref().unwrap_or("avg"), &names)?, rank) {
                ("percentile", Some(p)) => Aggregation::Percentile(p),
                ("percentile", None) => {
                    return Err(Error::invalid("key percentile is missing: the rank of agg"));
                }
                (name, Some(_)) => {
                    return Err(Error::invalid(format!("key percentile: agg {name} has no rank")));
                }
                ("sum", None) => Aggregation::Sum,
                ("count", None) => Aggregation::Count,
                ("min", None) => Aggregation::Min,
                ("max", None) => Aggregation::Max,
                _ => Aggregation::Avg,
            };
        Ok(())
    }

    /// The filter of the window that ends at `now`; damage makes the answer partial, which its
    /// coverage says.
    pub fn filter_at(&self, now: Timestamp) -> Filter {
        let from = Timestamp::clamped(now.as_micros().saturating_sub(self.window));
        Filter { allow_partial: true, ..self.filter.clone().between(from, now) }
    }

    /// Asks for the number, of the window that ends at `now`. Keys and agents with fewer than
    /// `min_count` rows are passed over.
    ///
    /// # Errors
    ///
    /// As the method that is asked.
    pub fn read(&self, snapshot: &Snapshot, now: Timestamp, min_count: u64) -> Result<Reading> {
        let filter = self.filter_at(now);
        match self.method {
            Method::Metrics | Method::TaskMetrics | Method::AgentMetrics | Method::SwarmMetrics => {
                self.rows(snapshot, filter)
            }
            Method::AggregateByTime => self.series(snapshot, &filter),
            Method::Percentile => {
                let exact = Percentile::Exact;
                let found =
                    snapshot.percentile(self.table, self.field, self.percentile, exact, &filter)?;
                let value = found.value.value.map(Value::as_f64);
                let reading = Reading::new(value, found.value.count, found.coverage);
                Ok(Reading { rank_error: found.value.rank_error, ..reading })
            }
            Method::Average => {
                let found = snapshot.average(self.table, self.field, &filter)?;
                Ok(Reading::new(found.value.value, found.value.count, found.coverage))
            }
            Method::TopAgents => self.agents(snapshot, filter, min_count),
            Method::SlowestTasks => {
                let page = snapshot.slowest_tasks(&filter.limit(1))?;
                let slowest = page.rows.into_iter().next();
                let label = slowest.as_ref().map(|task| task.task_id.clone());
                let value = slowest.as_ref().map(|task| Value::Int(task.duration_ms).as_f64());
                let count = u64::from(slowest.is_some());
                Ok(Reading { label, ..Reading::new(value, count, page.coverage) })
            }
            Method::Summary => self.summary(snapshot, &filter),
            Method::Aggregate => {
                let found = snapshot.aggregate(self.table, self.field, &filter)?;
                let value = found.value.number(self.measure);
                Ok(Reading::new(value, found.value.rows, found.coverage))
            }
            Method::AggregateByKey => self.keys(snapshot, &filter, min_count),
        }
    }

    fn rows(&self, snapshot: &Snapshot, filter: Filter) -> Result<Reading> {
        let all = snapshot.aggregate(self.table, self.field, &filter)?;
        let rows = all.value.rows;
        if self.measure == "rows" {
            return Ok(Reading::new(Some(Value::Wide(rows.into()).as_f64()), rows, all.coverage));
        }
        let page = snapshot.metrics(self.table, &filter.limit(1))?;
        let value = page.rows.first().and_then(|row| row.number(self.field));
        Ok(Reading::new(value, rows, all.coverage))
    }

    fn series(&self, snapshot: &Snapshot, filter: &Filter) -> Result<Reading> {
        let page = snapshot.aggregate_by_time(
            self.table,
            self.field,
            self.interval,
            self.aggregation,
            filter,
        )?;
        let count = page.rows.iter().map(|bucket| bucket.count).sum();
        let mut values = page.rows.iter().filter_map(|bucket| bucket.value.map(Value::as_f64));
        let value = match self.measure {
            "min" => values.min_by(f64::total_cmp),
            "max" => values.max_by(f64::total_cmp),
            _ => values.next_back(),
        };
        let rank_error = page.rows.iter().map(|bucket| bucket.rank_error).fold(0.0, f64::max);
        Ok(Reading { rank_error, ..Reading::new(value, count, page.coverage) })
    }

    fn agents(&self, snapshot: &Snapshot, filter: Filter, min_count: u64) -> Result<Reading> {
        let by = TopBy::parse(self.measure)?;
        let page = snapshot.top_agents(by, self.order, &filter.all())?;
        let first = page.rows.iter().find(|agent| agent.task_count >= min_count);
        let value = first.and_then(|agent| agent.number(by));
        let label = first.map(|agent| agent.agent_id.clone());
        let count = first.map_or(0, |agent| agent.task_count);
        Ok(Reading { label, ..Reading::new(value, count, page.coverage) })
    }

    fn summary(&self, snapshot: &Snapshot, filter: &Filter) -> Result<Reading> {
        let found = snapshot.summary_stats(Percentile::Exact, filter)?;
        let all = &found.value;
        let value = all.number(self.measure);
        let is_ranked = self.measure.starts_with('p');
        let rank_error = if is_ranked { all.rank_error } else { 0.0 };
        Ok(Reading { rank_error, ..Reading::new(value, all.total_tasks, found.coverage) })
    }

    fn keys(&self, snapshot: &Snapshot, filter: &Filter, min_count: u64) -> Result<Reading> {
        let page = snapshot.aggregate_by_key(self.table, self.field, self.key, filter)?;
        let mut count = 0;
        let mut folded: Option<(f64, &str)> = None;
        for key in page.rows.iter().filter(|key| key.aggregate.rows >= min_count) {
            let Some(value) = key.aggregate.number(self.measure) else { continue };
            count += key.aggregate.rows;
            folded = Some(match (folded, self.across) {
                (None, _) => (value, &key.key),
                (Some((sum, _)), Across::Sum) => (sum + value, ""),
                (Some((least, _)), Across::Min) if value < least => (value, &key.key),
                (Some((most, _)), Across::Max) if value > most => (value, &key.key),
                (Some(kept), _) => kept,
            });
        }
        let label = folded.map(|(_, key)| key).filter(|key| !key.is_empty()).map(str::to_owned);
        let value = folded.map(|(value, _)| value);
        Ok(Reading { label, ..Reading::new(value, count, page.coverage) })
    }

    /// What is asked, in a few words: `success_rate of summary over 5m`.
    pub fn describe(&self) -> String {
        let mut text = match self.method {
            Method::Percentile => format!("p{} of {}", self.percentile * 100.0, self.field),
            Method::Average => format!("average {}", self.field),
            Method::Aggregate => format!("{} of {}", self.measure, self.field),
            Method::AggregateByKey => match &self.filter.metric_type {
                Some(metric) => format!("{metric} by {}", self.key),
                None => format!("{} of {} by {}", self.measure, self.field, self.key),
            },
            Method::AggregateByTime => format!("{} of {} by time", self.measure, self.field),
            _ => format!("{} of {}", self.measure, self.method.name()),
        };
        let dimensions = [
            ("task", &self.filter.task_id),
            ("agent", &self.filter.agent_id),
            ("swarm", &self.filter.swarm_id),
        ];
        for (name, value) in dimensions {
            if let Some(value) = value {
                text += &format!(" of {name} {value}");
            }
        }
        text + " over " + &format_length(self.window)
    }
}

/// The number that a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The number; `None` where nothing has one.
    pub value: Option<f64>,
    /// Rows or values that it rests on.
    pub count: u64,
    /// Whose number it is, where it is one agent's, task's or key's.
    pub label: Option<String>,
    /// Of a percentile that rests on rollups: the largest distance of its rank, as a share of
    /// the values; else 0.
    pub rank_error: f64,
    /// What the answer rests on.
    pub coverage: Coverage,
}

impl Reading {
    fn new(value: Option<f64>, count: u64, coverage: Coverage) -> Self {
        Self { value, count, label: None, rank_error: 0.0, coverage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(json: &str) -> Query {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    #[test]
    fn keys_that_are_left_out() {
        assert_eq!(query(r#"{"method":"summary"}"#), Query::new(Method::Summary));
        let found = query(r#"{"method":"average","table":"agent","metric_type":"cpu"}"#);
        assert_eq!((found.table, found.field, found.window), (Table::Agent, "value", 300_000_000));
        let found = query(r#"{"method":"aggregate-by-key","table":"swarm","metric_type":"q"}"#);
        assert_eq!(found, Query::newest_of_swarms("q", WINDOW_DEFAULT));
        let rank = r#"{"method":"aggregate-by-time","agg":"percentile","percentile":0.9}"#;
        assert_eq!(query(rank).aggregation, Aggregation::Percentile(0.9));
    }

    #[test]
    fn what_is_asked_in_words() {
        for (json, words) in [
            (r#"{"method":"summary"}"#, "success_rate of summary over 5m"),
            (
                r#"{"method":"percentile","percentile":0.99,"window":"24h","agent_id":"a"}"#,
                "p99 of duration_ms of agent a over 1d",
            ),
            (
                r#"{"method":"aggregate-by-key","table":"swarm","metric_type":"queue"}"#,
                "queue by swarm_id over 5m",
            ),
        ] {
            assert_eq!(query(json).describe(), words);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (r#"{"method":"mean"}"#, "unknown variant `mean`"),
            (r#"{"method":"summary","measure":"p98"}"#, "measure \"p98\": expected one of succ"),
            (r#"{"method":"summary","window":"5"}"#, "window \"5\": expected a length"),
            (r#"{"method":"summary","window":"0s"}"#, "window \"0s\": expected a length"),
            (r#"{"method":"summary","field":"x"}"#, "key field: summary has no use for it"),
            (r#"{"method":"average","field":"x"}"#, "field \"x\""),
            (r#"{"method":"summary","table":"agent"}"#, "summary is about task_metrics"),
            (r#"{"method":"percentile"}"#, "key percentile is missing"),
            (r#"{"method":"percentile","percentile":99}"#, "percentile 99: expected 0 to 1"),
            (r#"{"method":"aggregate-by-time","agg":"percentile"}"#, "percentile is missing"),
            (r#"{"method":"aggregate-by-time","percentile":0.5}"#, "agg avg has no rank"),
            (r#"{"method":"summary","swarm_id":"s"}"#, "task_metrics has no such column"),
            (r#"{"method":"aggregate-by-key","key":"value"}"#, "expected one of agent_id"),
            (r#"{"method":"top-agents","order":"up"}"#, "order \"up\": expected one of asc"),
            (r#"{"method":"summary","windw":"5m"}"#, "unknown field `windw`"),
        ] {
            let error = serde_json::from_str::<Query>(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
