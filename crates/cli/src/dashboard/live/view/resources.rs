//! Panels of what tasks wait for and what they use: the queue, and tokens, memory, disk.

use ratatui::text::Span;

use super::fit::pad;
use super::part::{LABEL_CELLS, Part, Room, Row};
use crate::dashboard::figures::{Figures, Gauge, Level, Quota};
use crate::dashboard::format;

/// Cells of a bar.
const BAR_CELLS_MAX: usize = 30;

pub(super) fn queue(figures: &Figures, room: &Room<'_>, title: &str) -> Part {
    let mut part = Part::new(room, title, "");
    let queue = &figures.queue;
    let Some(pending) = queue.pending else {
        part.push_unrecorded(room, "pending", &room.app.metrics.queue_pending);
        return part;
    };
    let level = Level::of_pending(pending.value);
    let value = room.theme.marked(level, &format::number(pending.value));
    part.push(Row::labelled("pending", vec![value, age(&pending, figures, room)]));
    let backlog = match queue.backlog_minutes {
        Some(minutes) => format::duration_ms(minutes * 60_000.0) + " at the present rate",
        None => "no end at the present rate".to_owned(),
    };
    part.push(Row::labelled("backlog", vec![Span::raw(backlog)]));
    let most = queue.priorities.iter().map(|(_, gauge)| gauge.value).fold(0.0, f64::max);
    for (name, gauge) in &queue.priorities {
        let bar = room.bar(gauge.value / most, bar_cells(room), room.theme.chart());
        let name = format!("  {}", room.name(name, LABEL_CELLS - 3));
        let value = Span::raw(format!(" {}", format::number(gauge.value)));
        part.push(Row::labelled(&name, vec![bar, value]));
    }
    part
}

fn bar_cells(room: &Room<'_>) -> usize {
    room.width.saturating_sub(LABEL_CELLS + 20).clamp(4, BAR_CELLS_MAX)
}

/// How old a gauge is.
fn age(gauge: &Gauge, figures: &Figures, room: &Room<'_>) -> Span<'static> {
    let text = format!("  {}", format::ago(gauge.at, figures.at));
    Span::styled(text, room.theme.secondary())
}

pub(super) fn resources(figures: &Figures, room: &Room<'_>, title: &str) -> Part {
    let mut part =
        Part::new(room, title, &format!("tokens of {}", figures.resources.budget_window));
    let resources = &figures.resources;
    let used = format::compact(resources.tokens_used.as_f64());
    let text = match resources.token_budget {
        Some(budget) => format!("{used} of {}", format::compact(budget.value)),
        None => format!("{used} used"),
    };
    part.push(Row::labelled("tokens", vec![Span::raw(text)]));
    match (resources.token_budget, resources.budget_share) {
        (None, _) => part.push_unrecorded(room, "budget", &room.app.metrics.token_budget),
        (_, Some(share)) => {
            part.push(Row::labelled("budget", share_bar(share, room)));
        }
        _ => {}
    }
    if resources.has_quota {
        for quota in &resources.quotas {
            part.push(quota_row(quota, &quota.agent_id, room));
        }
    } else {
        part.push_unrecorded(room, "quota", &room.app.metrics.agent_token_quota);
    }
    match resources.memory_bytes {
        Some(memory) => part.push(Row::labelled(
            "memory",
            vec![Span::raw(format::bytes(memory.value)), age(&memory, figures, room)],
        )),
        None => part.push_unrecorded(room, "memory", &room.app.metrics.memory_bytes),
    }
    #[expect(clippy::cast_precision_loss, reason = "a number to read has few digits")]
    let [disk, rows] = [resources.disk_bytes, resources.stored_rows].map(|count| count as f64);
    let text = format!("{} in {} rows", format::bytes(disk), format::number(rows));
    part.push(Row::labelled("disk", vec![Span::raw(text)]));
    part
}

/// How much of its quota an agent has used.
pub(super) fn quota_row(quota: &Quota, label: &str, room: &Room<'_>) -> Row {
    let label = room.name(label, LABEL_CELLS - 1);
    let mut spans = share_bar(quota.share, room);
    let of = format!("  of {}", format::compact(quota.quota));
    spans.push(Span::styled(of, room.theme.secondary()));
    Row::labelled(&label, spans)
}

/// A bar with its share: the level is in the colour and in the mark.
fn share_bar(share: f64, room: &Room<'_>) -> Vec<Span<'static>> {
    let level = Level::of_share(share);
    let bar = room.bar(share, bar_cells(room), room.theme.level(level));
    let text = room.theme.marked(level, &format::share(share));
    vec![bar, Span::raw(" "), Span::styled(pad(&text.content, 8, false), text.style)]
}
