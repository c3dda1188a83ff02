//! The panel of alerts: those that fire first.

use ratatui::text::Span;
use tallystone::alert::{Alert, Severity, State};

use super::fit::cells;
use super::part::{Part, Room, Row};
use crate::dashboard::figures::{Figures, Level};
use crate::dashboard::format;

pub(super) fn alerts(figures: &Figures, room: &Room<'_>, title: &str) -> Part {
    let found = &figures.alerts;
    let firing = found.firing();
    let note = if firing > 0 { format!("{firing} firing") } else { String::new() };
    let mut part = Part::new(room, title, &note);
    let mut told: Vec<&Alert> = found.alerts.iter().filter(|alert| !is_quiet(alert)).collect();
    told.sort_by_key(|alert| std::cmp::Reverse((alert.state == State::Firing, level(alert))));
    for alert in &told {
        part.push(row(alert, figures, room));
    }
    let quiet = found.alerts.len() - told.len();
    let text = match (quiet, told.len()) {
        (0, 0) => "no rules".to_owned(),
        (0, _) => return part,
        (1, 0) => "the alert is quiet".to_owned(),
        (_, 0) => format!("all {quiet} alerts are quiet"),
        (1, _) => "1 other is quiet".to_owned(),
        _ => format!("{quiet} others are quiet"),
    };
    part.push(Row::new(vec![room.theme.marked(Level::Good, &text)]));
    part
}

fn is_quiet(alert: &Alert) -> bool {
    alert.state == State::Inactive && alert.error.is_none() && !alert.is_damaged
}

fn level(alert: &Alert) -> Level {
    match alert.state {
        State::Firing if alert.severity == Severity::Critical => Level::Bad,
        State::Firing | State::Pending => Level::Fair,
        _ if alert.error.is_some() || alert.is_damaged => Level::Fair,
        _ => Level::Good,
    }
}

/// `!! critical success-rate firing 3 min: 0.85 (success_rate of summary over 5m below 0.9)`.
fn row(alert: &Alert, figures: &Figures, room: &Room<'_>) -> Row {
    let name = room.name(&alert.name, room.width / 3);
    let mut head = format!("{name} {}", alert.state.name());
    if alert.severity != Severity::Warning {
        head = format!("{} {head}", alert.severity.name());
    }
    if let Some(since) = alert.since.filter(|_| alert.state != State::Inactive) {
        let micros = figures.at.as_micros().saturating_sub(since.as_micros());
        head = format!("{head} {}", format::span(micros.max(0)));
    }
    let mut tail = String::new();
    if let Some(value) = alert.value {
        let about = if alert.rank_error > 0.0 { "about " } else { "" };
        tail = format!(": {about}{}", format::number(value));
    }
    if let Some(label) = &alert.label {
        tail = format!("{tail} of {}", room.name(label, room.width / 4));
    }
    if alert.is_damaged {
        tail.push_str(", damaged data");
    } else if !alert.is_complete {
        tail.push_str(", incomplete");
    }
    tail = match &alert.error {
        Some(error) => format!("{tail}, cannot be judged: {error}"),
        None => format!("{tail} ({})", alert.rule),
    };
    let head = room.theme.marked(level(alert), &head);
    let left = room.width.saturating_sub(cells(&head.content));
    Row::new(vec![head, Span::raw(room.name(&tail, left))])
}
