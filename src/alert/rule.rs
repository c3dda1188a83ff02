//! What a rule is: a number, a bound that it should not pass, and for how long it may.

use serde::{Deserialize, Serialize};

use super::query::{Method, Query};
use crate::error::{Error, Result};
use crate::limits::{ALERT_NAME_BYTES_MAX, ALERT_RULES_MAX};
use crate::time::{MICROS_PER_DAY, parse_length};

/// Names of the swarm metrics that queue, budget and memory are read from.
///
/// Of each the newest value of every swarm counts, and those of several swarms are added up;
/// of the quota, which holds for each agent, the smallest counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct MetricNames {
    /// Tasks that wait; with a point and a priority after it, those of that priority.
    pub queue_pending: String,
    /// Tokens that may be used in the time that a budget is for.
    pub token_budget: String,
    /// Tokens that each agent may use in that time. As a metric of an agent: that one.
    pub agent_token_quota: String,
    /// Memory in use, in bytes.
    pub memory_bytes: String,
}

impl Default for MetricNames {
    fn default() -> Self {
        Self {
            queue_pending: "queue_pending".to_owned(),
            token_budget: "token_budget".to_owned(),
            agent_token_quota: "agent_token_quota".to_owned(),
            memory_bytes: "memory_bytes".to_owned(),
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Should be looked at.
    #[default]
    Warning,
    /// Must be looked at now.
    Critical,
}

impl Severity {
    /// Name, as rules have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Where a number begins to be bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Larger than this.
    Above(f64),
    /// Smaller than this.
    Below(f64),
}

impl Bound {
    /// Whether `value` lies beyond.
    pub fn is_passed_by(self, value: f64) -> bool {
        match self {
            Self::Above(bound) => value > bound,
            Self::Below(bound) => value < bound,
        }
    }

    /// `above` or `below`.
    pub fn side(self) -> &'static str {
        match self {
            Self::Above(_) => "above",
            Self::Below(_) => "below",
        }
    }

    /// The bound itself.
    pub fn value(self) -> f64 {
        match self {
            Self::Above(bound) | Self::Below(bound) => bound,
        }
    }
}

/// A rule: an alert is pending as soon as the number is beyond the bound, and fires once it
/// has been so for the time that the rule allows.
///
/// It is read from text (TOML, JSON) with these keys:
///
/// | key | means | unless given |
/// |---|---|---|
/// | `name` | what the alert is called, up to 64 bytes of printable text | |
/// | `query` | the number ([`Query`]) | |
/// | `of` | a second number by which it is divided; of none, or 0, there is nothing to judge | |
/// | `above` or `below` | the bound; one of the two | |
/// | `min_count` | rows or values below which there is nothing to judge | 1 |
/// | `for` | time that the number has to stay beyond the bound: `0s`, `10m` | `0s` |
/// | `severity` | `info`, `warning` or `critical` | `warning` |
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RuleText")]
#[non_exhaustive]
pub struct Rule {
    /// What the alert is called.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The number.
    pub query: Query,
    /// What it is divided by.
    pub of: Option<Query>,
    /// Where it begins to be bad.
    pub bound: Bound,
    /// Rows or values below which there is nothing to judge.
    pub min_count: u64,
    /// Time in microseconds that it has to stay bad before the alert fires.
    pub hold: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: String,
    query: Query,
    of: Option<Query>,
    above: Option<f64>,
    below: Option<f64>,
    min_count: Option<u64>,
    #[serde(rename = "for")]
    hold: Option<String>,
    severity: Option<Severity>,
}

impl TryFrom<RuleText> for Rule {
    type Error = Error;

    fn try_from(text: RuleText) -> Result<Self> {
        let name = &text.name;
        let bound = match (text.above, text.below) {
            (Some(bound), None) => Bound::Above(bound),
            (None, Some(bound)) => Bound::Below(bound),
            _ => {
                return Err(Error::invalid(format!("alert {name:?}: expected above or below")));
            }
        };
        let hold = match &text.hold {
            None => 0,
            Some(length) => parse_length(length).ok_or_else(|| {
                Error::invalid(format!("alert {name:?}: for {length:?}: expected a length as 10m"))
            })?,
        };
        let mut rule = Self::new(&text.name, text.query, bound)?;
        rule.of = text.of;
        rule.min_count = text.min_count.unwrap_or(rule.min_count);
        rule.severity = text.severity.unwrap_or_default();
        rule.hold = hold;
        Ok(rule)
    }
}

impl Rule {
    /// A rule of one number with everything else as it is unless given.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a name that cannot be one, or a bound that is no number.
    pub fn new(name: &str, query: Query, bound: Bound) -> Result<Self> {
        let is_name = !name.trim().is_empty()
            && name.len() <= ALERT_NAME_BYTES_MAX
            && !name.chars().any(char::is_control);
        if !is_name {
            return Err(Error::invalid(format!(
                "alert {name:?}: expected a name of 1 to {ALERT_NAME_BYTES_MAX} printable bytes"
            )));
        }
        if !bound.value().is_finite() {
            let (side, value) = (bound.side(), bound.value());
            return Err(Error::invalid(format!("alert {name:?}: {side} {value}: not a number")));
        }
        let severity = Severity::Warning;
        Ok(Self { name: name.to_owned(), severity, query, of: None, bound, min_count: 1, hold: 0 })
    }

    /// The rules that hold where nobody has written any: fewer than 90 % of the tasks of five
    /// minutes succeed (of at least 5), their p99 is above 5 s, more than 80 % of the token
    /// budget of a day is used, more than 50 tasks wait.
    pub fn defaults(names: &MetricNames) -> Vec<Self> {
        let rule = |name: &str, severity, query, bound| Self {
            name: name.to_owned(),
            severity,
            query,
            of: None,
            bound,
            min_count: 1,
            hold: 0,
        };
        let success = rule(
            "success-rate",
            Severity::Critical,
            Query::new(Method::Summary),
            Bound::Below(0.9),
        );
        let p99 = Query { percentile: 0.99, ..Query::new(Method::Percentile) };
        let used =
            Query { field: "tokens_used", window: MICROS_PER_DAY, ..Query::new(Method::Aggregate) };
        let budget = Query::newest_of_swarms(&names.token_budget, MICROS_PER_DAY);
        let pending = Query::newest_of_swarms(&names.queue_pending, MICROS_PER_DAY);
        let tokens = rule("token-budget", Severity::Warning, used, Bound::Above(0.8));
        vec![
            Self { min_count: 5, ..success },
            rule("p99-latency", Severity::Critical, p99, Bound::Above(5_000.0)),
            Self { of: Some(budget), ..tokens },
            rule("queue-backlog", Severity::Warning, pending, Bound::Above(50.0)),
        ]
    }

    /// What would fire it, in a few words: `success_rate of summary over 5m below 0.9`.
    pub fn describe(&self) -> String {
        let of = self.of.as_ref().map_or_else(String::new, |of| format!(" / {}", of.describe()));
        format!("{}{of} {} {}", self.query.describe(), self.bound.side(), self.bound.value())
    }
}

/// Refuses too many rules, and two of one name.
pub(super) fn check(rules: &[Rule]) -> Result<()> {
    if rules.len() > ALERT_RULES_MAX {
        let count = rules.len();
        return Err(Error::invalid(format!("{count} alerts, expected at most {ALERT_RULES_MAX}")));
    }
    for (index, rule) in rules.iter().enumerate() {
        if rules[..index].iter().any(|other| other.name == rule.name) {
            return Err(Error::invalid(format!("alert {:?} is there twice", rule.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rule, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_default_as_text() {
        let text = r#"{"name":"success-rate","query":{"method":"summary"},"below":0.9,
                      "min_count":5,"severity":"critical","for":"0s"}"#;
        let defaults = Rule::defaults(&MetricNames::default());
        assert_eq!(rule(text).unwrap(), defaults[0]);
        let words: Vec<_> = defaults.iter().map(Rule::describe).collect();
        assert_eq!(
            words,
            [
                "success_rate of summary over 5m below 0.9",
                "p99 of duration_ms over 5m above 5000",
                "sum of tokens_used over 1d / token_budget by swarm_id over 1d above 0.8",
                "queue_pending by swarm_id over 1d above 50",
            ]
        );
        check(&defaults).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let query = r#""query":{"method":"summary"}"#;
        for (json, part) in [
            (format!(r#"{{"name":"a",{query}}}"#), "expected above or below"),
            (format!(r#"{{"name":"a",{query},"above":1,"below":2}}"#), "expected above or below"),
            (format!(r#"{{"name":"","above":1,{query}}}"#), "expected a name"),
            (format!(r#"{{"name":"a\nb","above":1,{query}}}"#), "expected a name"),
            (format!(r#"{{"name":"a","above":1,"for":"10",{query}}}"#), "for \"10\""),
            (format!(r#"{{"name":"a","above":1,"sevrity":"info",{query}}}"#), "`sevrity`"),
            (format!(r#"{{"name":"a","above":1,"severity":"bad",{query}}}"#), "`bad`"),
            (r#"{"name":"a","above":1}"#.to_owned(), "missing field `query`"),
        ] {
            let error = rule(&json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
        let one = Rule::new("a", Query::new(Method::Summary), Bound::Below(0.5)).unwrap();
        assert!(check(&[one.clone(), one.clone()]).unwrap_err().message().contains("twice"));
        assert!(check(&vec![one; ALERT_RULES_MAX + 1]).is_err());
        let nan = Bound::Above(f64::NAN);
        assert!(Rule::new("a", Query::new(Method::Summary), nan).is_err());
    }
}
