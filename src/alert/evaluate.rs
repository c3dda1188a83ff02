//! From numbers to states: what an alert is, how it changes, and who keeps the states.

use std::collections::HashMap;

use serde::Serialize;

use super::query::Reading;
use super::rule::{self, Bound, Rule, Severity};
use crate::error::{ErrorKind, Result};
use crate::segment::files::StoreRoot;
use crate::snapshot::Snapshot;
use crate::store_files::alerts::{self, AlertState, AlertsLock, State};
use crate::time::Timestamp;

/// Swarm under which the changes of alerts are recorded.
pub const HISTORY_SWARM: &str = "tallystone";

/// One alert, as a rule found it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Name of the rule.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// How far it has come.
    pub state: State,
    /// Since when it has that state; `None` for one that was never judged.
    pub since: Option<Timestamp>,
    /// The number, divided where the rule divides; `None` where there is nothing to judge.
    pub value: Option<f64>,
    /// The bound, if it is above which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// The bound, if it is below which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Rows or values that the number rests on.
    pub count: u64,
    /// Whose number it is, where it is one agent's, task's or key's.
    pub label: Option<String>,
    /// Of a percentile that rests on rollups: the largest distance of its rank, as a share of
    /// the values; else 0.
    pub rank_error: f64,
    /// What would fire it, in a few words.
    pub rule: String,
    /// Whether everything that the rule asks about was there and could be read.
    pub is_complete: bool,
    /// Whether damaged data were met.
    pub is_damaged: bool,
    /// Why it could not be judged; its state is then what it was.
    pub error: Option<String>,
}

/// All alerts, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The moment.
    pub at: Timestamp,
    /// In the order of the rules.
    pub alerts: Vec<Alert>,
    /// Whether this process keeps the states.
    pub keeps_states: bool,
    /// What a person should know: why states could not be read or kept.
    pub notes: Vec<String>,
}

impl Evaluation {
    /// Number of alerts that fire.
    pub fn firing(&self) -> usize {
        self.alerts.iter().filter(|alert| alert.state == State::Firing).count()
    }
}

/// A change of a state, as the row of its history.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) at: Timestamp,
    pub(crate) metric_type: String,
    pub(crate) value: f64,
    pub(crate) metadata: String,
}

/// Rules, and the states that their alerts have come to.
#[derive(Debug)]
pub struct Alerts {
    rules: Vec<Rule>,
    states: HashMap<String, Kept>,
    lock: Option<AlertsLock>,
}

/// The state of an alert, and since when.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kept {
    state: State,
    since: Timestamp,
}

impl Alerts {
    pub(crate) fn new(rules: Vec<Rule>) -> Result<Self> {
        rule::check(&rules)?;
        Ok(Self { rules, states: HashMap::new(), lock: None })
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether this process keeps the states.
    pub fn keeps_states(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes every alert to its next state. `record` is given the changes, and makes them
    /// durable before the states are.
    pub(crate) fn evaluate(
        &mut self,
        root: &StoreRoot,
        is_writable: bool,
        snapshot: &Snapshot,
        now: Timestamp,
        record: &dyn Fn(&[Change]) -> Result<()>,
    ) -> Evaluation {
        let mut notes = Vec::new();
        self.load(root, is_writable, &mut notes);
        let mut alerts = Vec::new();
        let mut states = HashMap::new();
        let mut changes = Vec::new();
        for rule in &self.rules {
            let before = self.states.get(&rule.name).copied();
            let (alert, kept) = judge(rule, before, snapshot, now);
            let was = before.map_or(State::Inactive, |before| before.state);
            if alert.state != was {
                changes.push(change(&alert, now));
            }
            states.extend(kept.map(|kept| (rule.name.clone(), kept)));
            alerts.push(alert);
        }
        let is_new = states != self.states;
        self.states = states;
        if self.lock.is_some() && is_new {
            // History first: after a crash in between a change may be there twice, never be
            // missing.
            let recorded = if changes.is_empty() { Ok(()) } else { record(&changes) };
            let kept = self.store(root);
            let failed = [("history", recorded), ("states", kept)].into_iter();
            notes.extend(failed.filter_map(|(what, result)| {
                result.err().map(|error| format!("the {what} of alerts: {error}"))
            }));
        }
        Evaluation { at: now, alerts, keeps_states: self.keeps_states(), notes }
    }

    /// Becomes the keeper where there is none. Whoever is not goes on from what is kept.
    fn load(&mut self, root: &StoreRoot, is_writable: bool, notes: &mut Vec<String>) {
        if self.lock.is_some() {
            return;
        }
        if is_writable {
            match alerts::try_alerts_lock(root.fs.as_ref(), &root.dir) {
                Ok(lock) => self.lock = lock,
                Err(error) => notes.push(format!("the lock of alerts: {error}")),
            }
        }
        match alerts::read(root.fs.as_ref(), &root.dir) {
            Ok(kept) => {
                self.states
                    .extend(kept.into_iter().map(|alert| {
                        (alert.name, Kept { state: alert.state, since: alert.since })
                    }));
            }
            Err(error) => notes.push(format!("the states of alerts begin anew: {error}")),
        }
    }

    fn store(&self, root: &StoreRoot) -> Result<()> {
        let states: Vec<_> = self
            .rules
            .iter()
            .filter_map(|rule| self.states.get_key_value(&rule.name))
            .map(|(name, kept)| AlertState {
                name: name.clone(),
                state: kept.state,
                since: kept.since,
            })
            .collect();
        alerts::write(root.fs.as_ref(), &root.dir, &states)
    }
}

/// Reads the number of a rule and takes its alert to the next state.
fn judge(
    rule: &Rule,
    before: Option<Kept>,
    snapshot: &Snapshot,
    now: Timestamp,
) -> (Alert, Option<Kept>) {
    let (reading, error) = match read(rule, snapshot, now) {
        Ok(reading) => (Some(reading), None),
        Err(error) => (None, Some(error)),
    };
    let value = reading.as_ref().and_then(|reading| reading.value);
    let kept = match &reading {
        Some(_) => {
            let is_passed = value.is_some_and(|value| rule.bound.is_passed_by(value));
            Some(next(before, is_passed, rule.hold, now))
        }
        None => before,
    };
    let coverage = reading.as_ref().map(|reading| &reading.coverage);
    let (above, below) = match rule.bound {
        Bound::Above(bound) => (Some(bound), None),
        Bound::Below(bound) => (None, Some(bound)),
    };
    let alert = Alert {
        name: rule.name.clone(),
        severity: rule.severity,
        state: kept.map_or(State::Inactive, |kept| kept.state),
        since: kept.map(|kept| kept.since),
        value,
        above,
        below,
        count: reading.as_ref().map_or(0, |reading| reading.count),
        rank_error: reading.as_ref().map_or(0.0, |reading| reading.rank_error),
        rule: rule.describe(),
        is_complete: coverage.is_some_and(|coverage| coverage.is_complete()),
        is_damaged: coverage.is_some_and(|coverage| !coverage.damaged.is_empty())
            || error.as_ref().is_some_and(|error| {
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::MissingSegment)
            }),
        error: error.map(|error| error.to_string()),
        label: reading.and_then(|reading| reading.label),
    };
    (alert, kept)
}

/// The number of a rule. Without enough rows there is none: no task is no failure.
fn read(rule: &Rule, snapshot: &Snapshot, now: Timestamp) -> Result<Reading> {
    let mut reading = rule.query.read(snapshot, now, rule.min_count)?;
    if let Some(of) = &rule.of {
        let whole = of.read(snapshot, now, 1)?;
        let divisor = whole.value.filter(|divisor| *divisor != 0.0);
        reading.value = reading.value.zip(divisor).map(|(part, whole)| part / whole);
        reading.coverage.damaged.extend(whole.coverage.damaged);
        reading.coverage.gone.extend(whole.coverage.gone);
        reading.coverage.unanswerable.extend(whole.coverage.unanswerable);
    }
    if reading.count < rule.min_count {
        reading.value = None;
    }
    Ok(reading)
}

/// The state after `before`. A clock that went back has not let any time pass.
fn next(before: Option<Kept>, is_passed: bool, hold: i64, now: Timestamp) -> Kept {
    let stays = |kept: Kept| kept;
    let becomes = |state| Kept { state, since: now };
    let held = |since: Timestamp| now.as_micros().saturating_sub(since.as_micros()).max(0);
    match (before, is_passed) {
        (Some(kept), true) => match kept.state {
            State::Firing => stays(kept),
            State::Pending if held(kept.since) < hold => stays(kept),
            State::Pending => becomes(State::Firing),
            State::Inactive | State::Resolved if hold > 0 => becomes(State::Pending),
            State::Inactive | State::Resolved => becomes(State::Firing),
        },
        (None, true) => becomes(if hold > 0 { State::Pending } else { State::Firing }),
        (Some(kept), false) => match kept.state {
            State::Firing => becomes(State::Resolved),
            State::Pending => becomes(State::Inactive),
            State::Inactive | State::Resolved => stays(kept),
        },
        (None, false) => becomes(State::Inactive),
    }
}

/// The row of the history of a change.
fn change(alert: &Alert, now: Timestamp) -> Change {
    #[derive(Serialize)]
    struct Metadata<'a> {
        state: State,
        severity: Severity,
        value: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        below: Option<f64>,
        count: u64,
        label: Option<&'a str>,
    }
    let metadata = Metadata {
        state: alert.state,
        severity: alert.severity,
        value: alert.value,
        above: alert.above,
        below: alert.below,
        count: alert.count,
        label: alert.label.as_deref(),
    };
    let value = match alert.state {
        State::Inactive => 0.0,
        State::Pending => 1.0,
        State::Firing => 2.0,
        State::Resolved => 3.0,
    };
    Change {
        at: now,
        metric_type: format!("alert.{}", alert.name),
        value,
        // Plain data is always JSON.
        metadata: serde_json::to_string(&metadata).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds).unwrap()
    }

    /// The states of a rule that is asked once a minute, `!` where the bound is passed.
    fn states(asked: &str, hold: i64) -> String {
        let mut kept = None;
        asked
            .chars()
            .zip(0..)
            .map(|(c, minute)| {
                let now = next(kept, c == '!', hold * 60_000_000, at(minute * 60));
                kept = Some(now);
                now.state.name().chars().next().unwrap()
            })
            .collect()
    }

    #[test]
    fn from_pending_to_firing_to_resolved() {
        assert_eq!(states("..!!!..!", 0), "iifffrrf");
        assert_eq!(states("..!!!..!", 1), "iipffrrp");
        assert_eq!(states("..!!!!..!.", 3), "iipppfrrpi");
        assert_eq!(states("!.!.!!", 1), "pipipf");
    }

    #[test]
    fn a_state_keeps_its_beginning() {
        let first = next(None, true, 60_000_000, at(0));
        assert_eq!(next(Some(first), true, 60_000_000, at(59)), first);
        let firing = next(Some(first), true, 60_000_000, at(60));
        assert_eq!(firing, Kept { state: State::Firing, since: at(60) });
        assert_eq!(next(Some(firing), true, 60_000_000, at(500)), firing);
        // A clock that goes back neither fires nor ends anything.
        assert_eq!(next(Some(first), true, 60_000_000, at(-500)), first);
        assert_eq!(next(Some(firing), true, 60_000_000, at(-500)), firing);
    }
}
