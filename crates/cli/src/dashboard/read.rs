//! From a store to figures.
//!
//! Owns which query each figure is; docs/dashboard.md names them in the same order.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tallystone::alert::{Alerts, Query};
use tallystone::time::format_length;
use tallystone::{
    AgentSummary, Aggregation, Answer, Coverage, Filter, Interval, Order, Page, Percentile,
    Snapshot, Store, Table, Timestamp, TopBy, Value,
};

use super::entries;
use super::figures::{
    Agent, AgentDetail, Agents, Compared, Figures, Gauge, Number, PanelFigures, Period, Queue,
    Quota, Resources, Trend,
};
use super::settings::{Panel, Settings, Show};
use crate::config::Config;
use crate::failure::Failure;
use crate::open;
use crate::query::missing;

/// Time in which the newest value of a gauge counts.
const GAUGE_WINDOW: i64 = 24 * HOUR;

/// Longest window whose percentiles are computed exactly; those of longer ones are estimates.
const EXACT_WINDOW: i64 = 24 * HOUR;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

/// Agents in the lists of the fastest, the slowest, and those near their quota.
const FEW: usize = 5;

/// Gauges of one agent, priorities of a queue.
const GAUGES_MAX: usize = 20;

/// Lines about what is missing.
const MISSING_MAX: usize = 20;

/// How long slow figures are kept: those of a day by half hours or agents, which scan rows, and
/// the size of the store, which reads directories.
const KEPT: Duration = Duration::from_secs(60);

/// Name, step, its length and the number of steps of a trend.
type TrendSteps = (&'static str, &'static str, i64, i64);

const HOUR_STEPS: TrendSteps = ("last hour", "1m", MINUTE, 60);
const DAY_STEPS: TrendSteps = ("last day", "30m", 30 * MINUTE, 48);

/// What is asked at a look at the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    /// Time before now that is looked at, in microseconds.
    pub(crate) window: i64,
    /// Which agents are listed.
    pub(crate) list: ListAsk,
    /// The agent that is shown more closely.
    pub(crate) agent: Option<String>,
}

/// Which part of the list of all agents, in which order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListAsk {
    /// Only agents with this in their names, upper or lower case; empty for all.
    pub(crate) contains: String,
    /// What they are ordered by.
    pub(crate) by: AgentOrder,
    /// Largest first.
    pub(crate) is_descending: bool,
    /// So many are left out first.
    pub(crate) first: usize,
    /// So many are listed.
    pub(crate) rows: usize,
}

/// What agents are ordered by; those without the number come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentOrder {
    /// Their tasks.
    Tasks,
    /// Mean duration.
    Duration,
    /// Mean tokens.
    Tokens,
    /// Success rate.
    Success,
    /// Their names.
    Name,
}

impl Ask {
    /// Everything of a window, and no list of agents.
    pub(crate) fn of_window(window: i64) -> Self {
        let list = ListAsk {
            contains: String::new(),
            by: AgentOrder::Tasks,
            is_descending: true,
            first: 0,
            rows: 0,
        };
        Self { window, list, agent: None }
    }
}

/// A store that is looked at again and again.
#[derive(Debug)]
pub(crate) struct Reader {
    store: Store,
    identity: Option<Identity>,
    alerts: Alerts,
    settings: Settings,
    slow: Slow,
}

/// Slow figures of earlier looks.
#[derive(Debug, Default)]
struct Slow {
    size: Option<Kept<(), Size>>,
    quotas: Option<Kept<(), Option<Vec<Quota>>>>,
    day: Option<Kept<(), Trend>>,
    /// Only of windows longer than an hour.
    agents: Option<Kept<(i64, ListAsk), Agents>>,
}

/// Figures of an earlier look, and what they do not rest on.
#[derive(Debug)]
struct Kept<K, T> {
    key: K,
    at: Instant,
    value: T,
    ledger: Ledger,
}

/// Bytes and rows of the store.
#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u64,
    rows: u64,
}

/// Device and number of the file that says which store it is: both change if the store is
/// replaced.
type Identity = (u64, u64);

impl Reader {
    /// Opens the store; for writing where that can be, so that states of alerts are kept.
    pub(crate) fn open(dir: &Path, config: &Config) -> Result<Self, Failure> {
        Self::new(open::for_writing_or_reading(dir)?, config)
    }

    /// Opens the store for reading only: nothing is kept.
    pub(crate) fn open_read_only(dir: &Path, config: &Config) -> Result<Self, Failure> {
        Self::new(open::for_reading(dir)?, config)
    }

    fn new(store: Store, config: &Config) -> Result<Self, Failure> {
        Ok(Self {
            identity: identity(store.dir()),
            alerts: store.alerts(config.rules())?,
            store,
            settings: config.dashboard.clone(),
            slow: Slow::default(),
        })
    }

    /// Reads everything. An error says that the store is lost, replaced or cannot be read at
    /// all; the caller opens it anew.
    pub(crate) fn read(&mut self, ask: &Ask, now: Timestamp) -> Result<Figures, Failure> {
        let begun = Instant::now();
        match identity(self.store.dir()) {
            None => return Err(self.gone("the store is gone")),
            found if found != self.identity => return Err(self.gone("another store is here now")),
            _ => {}
        }
        let snapshot = self.store.snapshot()?;
        let alerts = self.store.evaluate_alerts_at(&mut self.alerts, &snapshot, now)?;
        let mut ledger = Ledger::default();
        for note in self.store.recovery().notes.iter().chain(&alerts.notes) {
            ledger.note(note.clone());
        }
        ledger.is_damaged |= alerts.alerts.iter().any(|alert| alert.is_damaged);
        let mut look = Look {
            snapshot: &snapshot,
            settings: &self.settings,
            now,
            window: ask.window,
            ledger,
            has_renewed: false,
        };
        let slow = &mut self.slow;
        let size = look.kept(&mut slow.size, (), |_| size(&self.store))?;
        let quotas = look.kept(&mut slow.quotas, (), Look::quotas)?;
        let day = look.kept(&mut slow.day, (), |look| look.trend(None, DAY_STEPS))?;
        let agents = if ask.window > HOUR {
            let key = (ask.window, ask.list.clone());
            look.kept(&mut slow.agents, key, |look| look.agents(&ask.list))?
        } else {
            look.agents(&ask.list)?
        };
        let summary = look.compared(None)?;
        let rate = summary.now.tasks_per_minute;
        Ok(Figures {
            at: now,
            store: self.store.dir().display().to_string(),
            window: format_length(ask.window),
            summary,
            agents,
            agent: ask.agent.as_deref().map(|agent| look.detail(agent)).transpose()?,
            queue: look.queue(rate)?,
            resources: look.resources(size, quotas)?,
            trends: vec![look.trend(None, HOUR_STEPS)?, day],
            alerts,
            panels: look.panels(),
            is_damaged: look.ledger.is_damaged,
            missing: look.ledger.lines(),
            read_ms: begun.elapsed().as_secs_f64() * 1_000.0,
        })
    }

    fn gone(&self, what: &str) -> Failure {
        Failure::Other(format!("{}: {what}", self.store.dir().display()))
    }
}

fn size(store: &Store) -> Result<Size, Failure> {
    let stats = store.stats()?;
    let bytes: u64 = stats.tables.iter().map(|table| table.bytes).sum();
    let rows = stats.tables.iter().map(|table| table.rows).sum();
    Ok(Size { bytes: bytes.saturating_add(stats.replaced_bytes), rows })
}

fn identity(dir: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(dir.join("store.json")).ok()?;
    Some((found.dev(), found.ino()))
}

/// What the answers so far do not rest on.
#[derive(Debug, Default)]
struct Ledger {
    lines: Vec<String>,
    left_off: usize,
    is_damaged: bool,
}

impl Ledger {
    fn note(&mut self, line: String) {
        if self.lines.contains(&line) {
            return;
        }
        if self.lines.len() < MISSING_MAX {
            self.lines.push(line);
        } else {
            self.left_off += 1;
        }
    }

    fn add(&mut self, section: &str, coverage: &Coverage) {
        self.is_damaged |= !coverage.damaged.is_empty();
        for line in missing(coverage) {
            // Damage is the same whoever met it; the rest is about one section's range.
            let is_damage = line.starts_with("damaged");
            self.note(if is_damage { line } else { format!("{section}: {line}") });
        }
    }

    /// Adds what another one has.
    fn merge(&mut self, other: &Self) {
        self.is_damaged |= other.is_damaged;
        self.left_off += other.left_off;
        other.lines.iter().for_each(|line| self.note(line.clone()));
    }

    fn lines(mut self) -> Vec<String> {
        if self.left_off > 0 {
            self.lines.push(format!("and {} more", self.left_off));
        }
        self.lines
    }
}

/// One look at a store.
struct Look<'a> {
    snapshot: &'a Snapshot,
    settings: &'a Settings,
    now: Timestamp,
    window: i64,
    ledger: Ledger,
    /// Whether something slow was read anew in this look: what else is old waits for the next.
    has_renewed: bool,
}

/// The moment so long before.
fn before(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(at.as_micros().saturating_sub(micros)).unwrap_or(Timestamp::MIN)
}

/// Everything from one moment to another, of which damaged rows may be missing.
fn between(from: Timestamp, to: Timestamp) -> Filter {
    Filter { allow_partial: true, ..Filter::new().between(from, to) }
}

/// How percentiles of a window are found.
fn exactness(window: i64) -> Percentile {
    if window <= EXACT_WINDOW { Percentile::Exact } else { Percentile::Estimate }
}

/// Reads the tasks of a filter with a range, and what the numbers rest on.
pub(crate) fn period(snapshot: &Snapshot, filter: &Filter) -> Result<(Period, Coverage), Failure> {
    let range = filter.range()?;
    let length = range.end.saturating_sub(range.start);
    let how = exactness(length);
    let Answer { value: all, coverage, .. } = snapshot.summary_stats(how, filter)?;
    let median = snapshot.percentile(Table::Task, "duration_ms", 0.5, how, filter)?.value;
    let tasks = Value::Wide(all.total_tasks.into()).as_f64();
    let minutes = Value::Int(length.max(1)).as_f64() / Value::Int(MINUTE).as_f64();
    let period = Period {
        from: Timestamp::from_micros(range.start)?,
        to: Timestamp::from_micros(range.end)?,
        total_tasks: all.total_tasks,
        successful_tasks: all.successful_tasks,
        success_rate: all.success_rate,
        avg_duration_ms: all.avg_duration_ms,
        p50_duration_ms: median.value.map(Value::as_f64),
        p95_duration_ms: all.p95_duration_ms.map(Value::as_f64),
        p99_duration_ms: all.p99_duration_ms.map(Value::as_f64),
        rank_error: all.rank_error.max(median.rank_error),
        total_tokens_used: all.total_tokens_used,
        avg_tokens_per_task: all.avg_tokens_per_task,
        tasks_per_minute: tasks / minutes,
        unique_agents: all.unique_agents,
    };
    Ok((period, coverage))
}

impl Look<'_> {
    /// Everything of a length of time before now.
    fn last(&self, micros: i64) -> Filter {
        between(before(self.now, micros), self.now)
    }

    /// What is kept under the key, or else is read now. One look renews one figure at most, so
    /// that no look takes as long as all of them.
    fn kept<K: PartialEq, T: Clone>(
        &mut self,
        kept: &mut Option<Kept<K, T>>,
        key: K,
        read: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let known = kept.take().filter(|kept| kept.key == key);
        let known = known.filter(|kept| kept.at.elapsed() < KEPT || self.has_renewed);
        let known = match known {
            Some(known) => known,
            None => {
                self.has_renewed = true;
                let others = std::mem::take(&mut self.ledger);
                let value = read(self);
                let ledger = std::mem::replace(&mut self.ledger, others);
                Kept { key, at: Instant::now(), value: value?, ledger }
            }
        };
        self.ledger.merge(&known.ledger);
        Ok(kept.insert(known).value.clone())
    }

    fn rows<T>(&mut self, section: &str, page: Page<T>) -> Vec<T> {
        self.ledger.add(section, &page.coverage);
        page.rows
    }

    /// The window and the one before, of all agents or of one.
    fn compared(&mut self, agent: Option<&str>) -> Result<Compared, Failure> {
        let start = before(self.now, self.window);
        let of = |filter: Filter| match agent {
            Some(agent) => filter.agent(agent),
            None => filter,
        };
        let (now, coverage) = period(self.snapshot, &of(between(start, self.now)))?;
        self.ledger.add("summary", &coverage);
        let earlier = between(before(start, self.window), start);
        let (before, coverage) = period(self.snapshot, &of(earlier))?;
        self.ledger.add("summary, the window before", &coverage);
        Ok(Compared { now, before })
    }

    fn agents(&mut self, ask: &ListAsk) -> Result<Agents, Failure> {
        let filter = self.last(self.window).all();
        let by = TopBy::AvgDurationMs;
        let page = self.snapshot.top_agents(by, Order::Ascending, &filter)?;
        let mut all = self.rows("agents", page);
        // Those without a duration come last: they are neither fast nor slow.
        let timed = all.iter().take_while(|agent| agent.avg_duration_ms.is_some()).count();
        let fastest = all.iter().take(timed.min(FEW));
        let slowest = all.iter().take(timed).rev().take(FEW);
        let total = all.len();
        let (fastest, slowest) = (self.with_p95(fastest)?, self.with_p95(slowest)?);
        let (matching, listed) = if ask.rows == 0 {
            (total, Vec::new())
        } else {
            let part = ask.contains.to_lowercase();
            all.retain(|agent| agent.agent_id.to_lowercase().contains(&part));
            sort(&mut all, ask.by, ask.is_descending);
            (all.len(), self.with_p95(all.iter().skip(ask.first).take(ask.rows))?)
        };
        Ok(Agents { total, fastest, slowest, matching, listed })
    }

    fn with_p95<'b>(
        &mut self,
        agents: impl Iterator<Item = &'b AgentSummary>,
    ) -> Result<Vec<Agent>, Failure> {
        let how = exactness(self.window);
        agents
            .map(|agent| {
                let filter = self.last(self.window).agent(&agent.agent_id);
                let found =
                    self.snapshot.percentile(Table::Task, "duration_ms", 0.95, how, &filter)?;
                self.ledger.add("agents", &found.coverage);
                Ok(Agent::new(agent, found.value.value.map(Value::as_f64)))
            })
            .collect()
    }

    fn detail(&mut self, agent: &str) -> Result<AgentDetail, Failure> {
        let slowest =
            self.snapshot.slowest_tasks(&self.last(self.window).agent(agent).limit(FEW))?;
        let filter = self.last(GAUGE_WINDOW).agent(agent).limit(GAUGES_MAX);
        let gauges =
            self.snapshot.aggregate_by_key(Table::Agent, "value", "metric_type", &filter)?;
        let gauges = self.rows("gauges", gauges).into_iter().filter_map(|gauge| {
            let last = gauge.aggregate.last?;
            Some((gauge.key, Gauge { value: last.value.as_f64(), at: last.timestamp }))
        });
        let gauges = gauges.collect();
        Ok(AgentDetail {
            agent_id: agent.to_owned(),
            summary: self.compared(Some(agent))?,
            trends: [HOUR_STEPS, DAY_STEPS]
                .map(|steps| self.trend(Some(agent), steps))
                .into_iter()
                .collect::<Result<_, _>>()?,
            slowest: self.rows("slowest tasks", slowest),
            gauges,
        })
    }

    /// The newest value of each swarm for a metric, or of each agent.
    fn newest(&mut self, table: Table, metric: &str) -> Result<Vec<(String, Gauge)>, Failure> {
        let key = if table == Table::Agent { "agent_id" } else { "swarm_id" };
        let filter = self.last(GAUGE_WINDOW).metric_type(metric);
        let page = self.snapshot.aggregate_by_key(table, "value", key, &filter)?;
        let newest = self.rows(metric, page).into_iter().filter_map(|entry| {
            let last = entry.aggregate.last?;
            Some((entry.key, Gauge { value: last.value.as_f64(), at: last.timestamp }))
        });
        Ok(newest.collect())
    }

    /// The newest values of all swarms, added up.
    fn total(&mut self, metric: &str) -> Result<Option<Gauge>, Failure> {
        let swarms = self.newest(Table::Swarm, metric)?.into_iter();
        Ok(swarms
            .map(|(_, gauge)| gauge)
            .reduce(|a, b| Gauge { value: a.value + b.value, at: a.at.max(b.at) }))
    }

    fn queue(&mut self, tasks_per_minute: f64) -> Result<Queue, Failure> {
        let settings = self.settings;
        let name = &settings.metrics.queue_pending;
        let pending = self.total(name)?;
        let filter = self.last(GAUGE_WINDOW);
        let kinds =
            self.snapshot.aggregate_by_key(Table::Swarm, "value", "metric_type", &filter)?;
        let kinds = self.rows("queue", kinds).into_iter().map(|kind| kind.key);
        let mut priorities = Vec::new();
        for kind in kinds {
            let part = kind.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('.'));
            let (Some(priority), true) = (part, priorities.len() < GAUGES_MAX) else { continue };
            priorities.extend(self.total(&kind)?.map(|gauge| (priority.to_owned(), gauge)));
        }
        let backlog_minutes = pending
            .filter(|_| tasks_per_minute > 0.0)
            .map(|pending| pending.value / tasks_per_minute);
        Ok(Queue { pending, backlog_minutes, priorities })
    }

    fn resources(&mut self, size: Size, quotas: Option<Vec<Quota>>) -> Result<Resources, Failure> {
        let settings = self.settings;
        let names = &settings.metrics;
        let filter = self.last(settings.budget_window);
        let used = self.snapshot.aggregate(Table::Task, "tokens_used", &filter)?;
        self.ledger.add("tokens", &used.coverage);
        let tokens_used = used.value.sum;
        let token_budget = self.total(&names.token_budget)?;
        let budget_share = token_budget
            .filter(|budget| budget.value > 0.0)
            .map(|budget| tokens_used.as_f64() / budget.value);
        Ok(Resources {
            budget_window: format_length(settings.budget_window),
            tokens_used,
            token_budget,
            budget_share,
            has_quota: quotas.is_some(),
            quotas: quotas.unwrap_or_default(),
            memory_bytes: self.total(&names.memory_bytes)?,
            disk_bytes: size.bytes,
            stored_rows: size.rows,
        })
    }

    /// The agents nearest to their quota; `None` where there is no quota.
    fn quotas(&mut self) -> Result<Option<Vec<Quota>>, Failure> {
        let filter = self.last(self.settings.budget_window);
        let name = &self.settings.metrics.agent_token_quota;
        let swarms = self.newest(Table::Swarm, name)?.into_iter().map(|(_, gauge)| gauge.value);
        let for_all = swarms.min_by(f64::total_cmp);
        let own: HashMap<String, Gauge> = self.newest(Table::Agent, name)?.into_iter().collect();
        if for_all.is_none() && own.is_empty() {
            return Ok(None);
        }
        let page =
            self.snapshot.aggregate_by_key(Table::Task, "tokens_used", "agent_id", &filter)?;
        let agents = self.rows("quotas", page).into_iter();
        let mut quotas: Vec<Quota> = agents
            .filter_map(|agent| {
                let quota = own.get(&agent.key).map(|own| own.value).or(for_all)?;
                let tokens_used = agent.aggregate.sum.as_f64();
                let share = tokens_used / quota;
                let is_share = share.is_finite() && quota > 0.0;
                is_share.then_some(Quota { agent_id: agent.key, tokens_used, quota, share })
            })
            .collect();
        quotas.sort_by(|a, b| b.share.total_cmp(&a.share));
        quotas.truncate(FEW);
        Ok(Some(quotas))
    }

    /// Tasks over a piece of time, of all agents or of one; the step that is going on last.
    fn trend(
        &mut self,
        agent: Option<&str>,
        (name, step, length, steps): TrendSteps,
    ) -> Result<Trend, Failure> {
        let interval = Interval::parse(step)?;
        let current = interval.bucket_start(self.now.as_micros());
        let start = current.saturating_sub(length * (steps - 1));
        let from = Timestamp::from_micros(start).unwrap_or(Timestamp::MIN);
        let mut filter = between(from, self.now);
        filter.agent_id = agent.map(ToOwned::to_owned);
        let mut series = |field: &str, aggregation, filter: &Filter, none: Option<f64>| {
            let page = self.snapshot.aggregate_by_time(
                Table::Task,
                field,
                interval,
                aggregation,
                filter,
            )?;
            let mut values = vec![none; usize::try_from(steps).unwrap_or(0)];
            let mut counts = vec![Some(0.0); values.len()];
            for bucket in self.rows(name, page) {
                let step = (bucket.time_bucket.as_micros() - from.as_micros()) / length;
                let Ok(step) = usize::try_from(step) else { continue };
                if let (Some(value), Some(count)) = (values.get_mut(step), counts.get_mut(step)) {
                    *value = bucket.value.map(Value::as_f64).or(none);
                    *count = Some(Value::Wide(bucket.count.into()).as_f64());
                }
            }
            Ok::<_, Failure>((values, counts))
        };
        let zero = Some(0.0);
        let (avg_duration_ms, tasks) = series("duration_ms", Aggregation::Avg, &filter, None)?;
        let (tokens, _) = series("tokens_used", Aggregation::Sum, &filter, zero)?;
        let failed = filter.success(false);
        let (_, errors) = series("duration_ms", Aggregation::Count, &failed, zero)?;
        Ok(Trend { name, from, step, avg_duration_ms, tasks, errors, tokens })
    }

    fn panels(&mut self) -> Vec<PanelFigures> {
        let settings = self.settings;
        settings
            .panels
            .iter()
            .filter_map(|panel| Some((panel, panel.query.as_ref()?)))
            .map(|(panel, query)| self.panel(panel, query))
            .collect()
    }

    /// What a panel's query cannot answer is said in its place: the others still stand.
    fn panel(&mut self, panel: &Panel, query: &Query) -> PanelFigures {
        let mut figures = PanelFigures {
            title: panel.title.clone(),
            unit: panel.unit.clone(),
            number: None,
            entries: None,
            error: None,
        };
        if panel.show == Show::Number {
            match query.read(self.snapshot, self.now, 1) {
                Ok(reading) => {
                    self.ledger.add(&panel.title, &reading.coverage);
                    figures.number = Some(Number {
                        value: reading.value,
                        count: reading.count,
                        label: reading.label,
                        rank_error: reading.rank_error,
                    });
                }
                Err(error) => figures.error = Some(error.to_string()),
            }
            return figures;
        }
        match entries::of(query, self.snapshot, self.now) {
            Ok((entries, coverage)) => {
                self.ledger.add(&panel.title, &coverage);
                figures.entries = Some(entries);
            }
            Err(error) => figures.error = Some(error.to_string()),
        }
        figures
    }
}

/// Orders agents; equal ones by name, those without the number last.
fn sort(agents: &mut [AgentSummary], by: AgentOrder, is_descending: bool) {
    let number = |agent: &AgentSummary| match by {
        AgentOrder::Tasks => Some(Value::Wide(agent.task_count.into()).as_f64()),
        AgentOrder::Duration => agent.avg_duration_ms,
        AgentOrder::Tokens => agent.avg_tokens_used,
        AgentOrder::Success => Some(agent.success_rate),
        AgentOrder::Name => None,
    };
    agents.sort_by(|a, b| {
        let names = a.agent_id.cmp(&b.agent_id);
        let order = match (number(a), number(b)) {
            (Some(a), Some(b)) if is_descending => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (None, None) if by == AgentOrder::Name && is_descending => names.reverse(),
            (None, None) => names,
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        order.then(names)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_ordered_by_any_number() {
        let agent = |name: &str, tasks, duration| AgentSummary {
            agent_id: name.to_owned(),
            task_count: tasks,
            avg_duration_ms: duration,
            avg_tokens_used: None,
            success_rate: 0.5,
        };
        let all = [agent("b", 5, None), agent("a", 5, Some(2.0)), agent("c", 1, Some(3.0))];
        let order = |by, is_descending| {
            let mut agents = all.to_vec();
            sort(&mut agents, by, is_descending);
            agents.into_iter().map(|agent| agent.agent_id).collect::<String>()
        };
        assert_eq!(order(AgentOrder::Tasks, true), "abc");
        assert_eq!(order(AgentOrder::Tasks, false), "cab");
        assert_eq!(order(AgentOrder::Duration, true), "cab");
        assert_eq!(order(AgentOrder::Duration, false), "acb");
        assert_eq!(order(AgentOrder::Tokens, true), "abc");
        assert_eq!(order(AgentOrder::Name, false), "abc");
        assert_eq!(order(AgentOrder::Name, true), "cba");
    }

    #[test]
    fn what_is_missing_is_said_once_and_not_without_end() {
        let mut ledger = Ledger::default();
        for number in 0..30 {
            ledger.note(format!("line {number}"));
            ledger.note("line 0".to_owned());
        }
        let lines = ledger.lines();
        assert_eq!(lines.len(), MISSING_MAX + 1);
        assert_eq!(lines.last().unwrap(), "and 10 more");
    }
}
