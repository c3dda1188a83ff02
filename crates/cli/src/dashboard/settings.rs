//! The `[dashboard]` section of the configuration file.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tallystone::alert::{MetricNames, Query};
use tallystone::time::{format_length, parse_length};

/// Most panels of one dashboard.
const PANELS_MAX: usize = 64;

/// What the dashboard shows, and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Time between two looks at the store, 1 s to 1 h.
    #[serde(deserialize_with = "refresh")]
    pub(crate) refresh: Duration,
    /// Time before now that is looked at, in microseconds.
    #[serde(deserialize_with = "window")]
    pub(crate) window: i64,
    /// Time that a token budget and a quota are for, in microseconds.
    #[serde(deserialize_with = "budget_window")]
    pub(crate) budget_window: i64,
    /// Names of the metrics that queue, budget and memory are read from.
    pub(crate) metrics: MetricNames,
    /// Panels in their order; all that are built in unless some are named.
    #[serde(rename = "panel", deserialize_with = "panels")]
    pub(crate) panels: Vec<Panel>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            window: 300_000_000,
            budget_window: 86_400_000_000,
            metrics: MetricNames::default(),
            panels: Show::BUILT_IN.map(Panel::built_in).to_vec(),
        }
    }
}

/// What a panel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Show {
    /// Alerts, those that fire first.
    Alerts,
    /// Tasks in numbers, each with its change against the window before.
    Summary,
    /// Agents: fastest, slowest, all.
    Agents,
    /// Tasks that wait.
    Queue,
    /// Tokens, quotas, memory, disk.
    Resources,
    /// The last hour and the last day.
    Trends,
    /// The number of a query.
    Number,
    /// The entries of a query, as a table.
    Table,
    /// The numbers of a query's entries, as a line.
    Sparkline,
    /// The numbers of a query's entries, as bars.
    Bar,
}

impl Show {
    /// The panels that need no query.
    pub(crate) const BUILT_IN: [Self; 6] =
        [Self::Alerts, Self::Summary, Self::Agents, Self::Queue, Self::Resources, Self::Trends];

    /// Name, as the file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Summary => "summary",
            Self::Agents => "agents",
            Self::Queue => "queue",
            Self::Resources => "resources",
            Self::Trends => "trends",
            Self::Number => "number",
            Self::Table => "table",
            Self::Sparkline => "sparkline",
            Self::Bar => "bar",
        }
    }
}

/// One panel.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "PanelText")]
pub(crate) struct Panel {
    /// What it shows.
    pub(crate) show: Show,
    /// Its heading; of a query its description unless given.
    pub(crate) title: String,
    /// What is asked, of a panel that is not built in.
    pub(crate) query: Option<Query>,
    /// Text after its numbers.
    pub(crate) unit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PanelText {
    show: Show,
    title: Option<String>,
    query: Option<Query>,
    unit: Option<String>,
}

impl TryFrom<PanelText> for Panel {
    type Error = String;

    fn try_from(text: PanelText) -> Result<Self, String> {
        let name = text.show.name();
        match (Show::BUILT_IN.contains(&text.show), &text.query) {
            (true, Some(_)) => return Err(format!("panel {name}: has no use for a query")),
            (false, None) => return Err(format!("panel {name}: expected a query")),
            _ => {}
        }
        if text.query.is_none() && text.unit.is_some() {
            return Err(format!("panel {name}: has no use for a unit"));
        }
        let title = text.title.or_else(|| text.query.as_ref().map(Query::describe));
        Ok(Self {
            show: text.show,
            title: title.unwrap_or_else(|| name.to_owned()),
            query: text.query,
            unit: text.unit.unwrap_or_default(),
        })
    }
}

impl Panel {
    fn built_in(show: Show) -> Self {
        Self { show, title: show.name().to_owned(), query: None, unit: String::new() }
    }
}

/// Lengths of a window, in microseconds: ten seconds to ten years.
const WINDOWS: RangeInclusive<i64> = 10_000_000..=315_360_000_000_000;

/// Times between two looks at a store, in microseconds: a second to an hour.
const REFRESHES: RangeInclusive<i64> = 1_000_000..=3_600_000_000;

/// Reads the length of a window, in microseconds.
pub(crate) fn parse_window(text: &str) -> Result<i64, String> {
    parse(text, WINDOWS)
}

/// Reads the time between two looks at a store.
pub(crate) fn parse_refresh(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_micros(parse(text, REFRESHES)?.unsigned_abs()))
}

fn parse(text: &str, range: RangeInclusive<i64>) -> Result<i64, String> {
    parse_length(text).filter(|length| range.contains(length)).ok_or_else(|| {
        let [least, most] = [range.start(), range.end()].map(|length| format_length(*length));
        format!("{text:?}: expected {least} to {most}, as 5m")
    })
}

fn refresh<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_refresh(&text).map_err(|error| D::Error::custom(format!("refresh {error}")))
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_window(&text).map_err(|error| D::Error::custom(format!("window {error}")))
}

fn budget_window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_window(&text).map_err(|error| D::Error::custom(format!("budget_window {error}")))
}

fn panels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Panel>, D::Error> {
    let panels = Vec::<Panel>::deserialize(deserializer)?;
    if !(1..=PANELS_MAX).contains(&panels.len()) {
        let count = panels.len();
        let message = format!("{count} panels, expected 1 to {PANELS_MAX}");
        return Err(D::Error::custom(message));
    }
    Ok(panels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn panels_are_picked_and_ordered() {
        let shown = |text| {
            let panels = settings(text).unwrap().panels.into_iter();
            panels.map(|panel| (panel.show, panel.title)).collect::<Vec<_>>()
        };
        assert_eq!(shown("").len(), 6);
        let text = "[[panel]]\nshow = \"trends\"\n[[panel]]\nshow = \"number\"\n\
                    query = { method = \"average\" }\n";
        let average = "average duration_ms over 5m".to_owned();
        assert_eq!(shown(text), [(Show::Trends, "trends".to_owned()), (Show::Number, average)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("refresh = \"1ms\"", "refresh \"1ms\": expected 1s to 1h, as 5m"),
            ("window = \"1s\"", "window \"1s\""),
            ("budget_window = \"x\"", "budget_window \"x\""),
            ("panel = []", "0 panels"),
            ("[[panel]]\nshow = \"bar\"", "panel bar: expected a query"),
            ("[[panel]]\nshow = \"trends\"\nunit = \"s\"", "panel trends: has no use for a unit"),
            ("[[panel]]\nshow = \"clock\"", "unknown variant `clock`"),
            (
                "[[panel]]\nshow = \"queue\"\nquery = { method = \"average\" }",
                "panel queue: has no use for a query",
            ),
            ("[metrics]\nqueue = \"q\"", "unknown field `queue`"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
