//! Figures as lines of text: a name, a value, how it has changed, how good it is.

use super::figures::{Compared, Gauge, Level, Period};
use super::format::{self, Change};
use super::settings::Settings;

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What it is.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) value: String,
    /// What it was in the window before.
    pub(crate) before: String,
    /// How it has changed.
    pub(crate) change: Option<Change>,
    /// How good it is, where there is a good and a bad.
    pub(crate) level: Option<Level>,
}

/// What stands where there is no value.
const NONE: &str = "-";

fn or_none(value: Option<f64>, text: fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), text)
}

/// Tasks of a window in lines, the most important first.
pub(crate) fn summary(figures: &Compared) -> Vec<Line> {
    let Compared { now, before } = figures;
    type Of = fn(&Period) -> Option<f64>;
    let line = |name, of: Of, text: fn(f64) -> String, level: Option<fn(f64) -> Level>| Line {
        name,
        value: or_none(of(now), text),
        before: or_none(of(before), text),
        change: format::change(of(now), of(before)),
        level: of(now).zip(level).map(|(value, level)| level(value)),
    };
    // Of percentiles that are estimates.
    let ranked = |mut line: Line| {
        for (text, period) in [(&mut line.value, now), (&mut line.before, before)] {
            if period.rank_error > 0.0 && text != NONE {
                text.insert(0, '~');
            }
        }
        line
    };
    let duration = Some(Level::of_duration_ms as fn(f64) -> Level);
    let success = Line {
        change: format::change_of_share(now.success_rate, before.success_rate),
        ..line("success rate", |p| p.success_rate, format::share, Some(Level::of_success))
    };
    vec![
        line("tasks", |p| Some(count(p.total_tasks)), format::number, None),
        success,
        line("average", |p| p.avg_duration_ms, format::duration_ms, duration),
        ranked(line("p50", |p| p.p50_duration_ms, format::duration_ms, duration)),
        ranked(line("p95", |p| p.p95_duration_ms, format::duration_ms, duration)),
        ranked(line("p99", |p| p.p99_duration_ms, format::duration_ms, duration)),
        // Of tasks without tokens there is no sum, though the query says 0.
        line(
            "tokens",
            |p| p.avg_tokens_per_task.map(|_| p.total_tokens_used.as_f64()),
            format::number,
            None,
        ),
        line("tokens per task", |p| p.avg_tokens_per_task, format::number, None),
        line("tasks per minute", |p| Some(p.tasks_per_minute), format::number, None),
        line("agents", |p| Some(count(p.unique_agents)), format::number, None),
    ]
}

/// What `~` before a percentile means; `None` where all are exact.
pub(crate) fn estimate(figures: &Compared) -> Option<String> {
    let error = figures.now.rank_error.max(figures.before.rank_error);
    (error > 0.0).then(|| format!("~ estimated, rank within {}", format::share(error)))
}

fn count(count: u64) -> f64 {
    tallystone::Value::Wide(count.into()).as_f64()
}

/// The newest value of a metric, or how to record it.
pub(crate) fn gauge(gauge: Option<Gauge>, metric: &str, text: impl Fn(Gauge) -> String) -> String {
    gauge.map_or_else(|| format!("not recorded; {}", how_to_record(metric)), text)
}

/// The command that records a metric of a swarm.
pub(crate) fn how_to_record(metric: &str) -> String {
    format!("tallystone record swarm --swarm-id S --metric-type {metric} --value N")
}

/// What stands in the place of quotas where there is none.
pub(crate) fn no_quota(settings: &Settings) -> String {
    format!("not recorded; {}", how_to_record(&settings.metrics.agent_token_quota))
}
