//! Agents: the fastest and the slowest, the list of all, and one more closely.

use ratatui::text::Span;

use super::part::{Cell, Column, Part, Room, Row, table};
use super::resources::quota_row;
use super::summary::summary;
use super::trends::trends;
use crate::dashboard::figures::{Agent, AgentDetail, Agents, Figures, Level};
use crate::dashboard::format;
use crate::dashboard::live::app::{Shown, Target};
use crate::dashboard::read::AgentOrder;

/// Cells that a name is cut to before columns are laid out.
const NAME_CELLS_MAX: usize = 80;

pub(super) fn agents(agents: &Agents, window: &str, room: &Room<'_>, title: &str) -> Part {
    let note = match agents.total {
        0 => String::new(),
        total => format!("{} in the last {window}, a for all", format::number(float(total))),
    };
    let mut part = Part::new(room, title, &note);
    if let Some(heading) = part.rows.first_mut() {
        heading.targets.push((0..room.width, Target::List));
    }
    if agents.total == 0 {
        part.push(Row::styled(format!("no tasks in the last {window}"), room.theme.secondary()));
        return part;
    }
    // All of them in one table are fastest and slowest at once.
    let is_short = agents.total <= agents.fastest.len();
    let slowest = if is_short { &[][..] } else { &agents.slowest[..] };
    let all: Vec<&Agent> = agents.fastest.iter().chain(slowest).collect();
    let mut rows = table(room, &columns(None, room), &cells(&all, room)).into_iter();
    part.rows.extend(rows.next());
    let heading = |text: &str| Row::styled(text, room.theme.heading());
    if !is_short {
        part.push(heading("fastest"));
    }
    for (index, (row, agent)) in rows.zip(&all).enumerate() {
        if index == agents.fastest.len() {
            part.push(heading("slowest"));
        }
        let target = Target::Agent(agent.agent_id.clone());
        part.push(row.leading_to(room.width, target));
    }
    part
}

#[expect(clippy::cast_precision_loss, reason = "a number to read has few digits")]
fn float(count: usize) -> f64 {
    count as f64
}

/// Columns, with a mark at the one that they are ordered by.
fn columns(order: Option<(AgentOrder, bool)>, room: &Room<'_>) -> Vec<Column> {
    let titled = |by: AgentOrder, title: &str| match order {
        Some((chosen, is_descending)) if chosen == by => {
            format!("{title} {}", room.theme.glyphs.orders[usize::from(is_descending)])
        }
        _ => title.to_owned(),
    };
    let number = |by, title: &str, gives_way| {
        let column = Column::number(&titled(by, title), gives_way);
        if order.is_some() { column.leading_to(Target::Sort(by)) } else { column }
    };
    let name = Column::text(&titled(AgentOrder::Name, "agent"));
    vec![
        if order.is_some() { name.leading_to(Target::Sort(AgentOrder::Name)) } else { name },
        number(AgentOrder::Tasks, "tasks", 3),
        number(AgentOrder::Duration, "avg", 1),
        Column::number("p95", 4),
        number(AgentOrder::Tokens, "tokens/task", 5),
        number(AgentOrder::Success, "success", 2),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a number to read has few digits")]
fn cells(agents: &[&Agent], room: &Room<'_>) -> Vec<Vec<Cell>> {
    let duration = |value: Option<f64>| match value {
        Some(value) => {
            Cell::marked(room, Level::of_duration_ms(value), &format::duration_ms(value))
        }
        None => Cell::new("-"),
    };
    let row = |agent: &&Agent| {
        let success = format::share(agent.success_rate);
        vec![
            Cell::new(room.name(&agent.agent_id, NAME_CELLS_MAX)),
            Cell::new(format::compact(agent.task_count as f64)),
            duration(agent.avg_duration_ms),
            duration(agent.p95_duration_ms),
            Cell::new(agent.avg_tokens_used.map_or_else(|| "-".to_owned(), format::compact)),
            Cell::marked(room, Level::of_agent_success(agent.success_rate), &success),
        ]
    };
    agents.iter().map(row).collect()
}

/// The list of all agents, as much of it as is on screen.
pub(super) fn list(shown: &Shown, room: &Room<'_>, rows: usize) -> Part {
    let (list, agents) = (&room.app.list, &shown.figures.agents);
    let matching = format::number(float(agents.matching));
    let note = match list.contains.is_empty() {
        true => format!("{matching} in the last {}", shown.figures.window),
        false => format!("{matching} with \"{}\", Esc for all", list.contains),
    };
    let mut part = Part::new(room, "agents", &note);
    // Of what was read the part that is on screen; the rest is being read.
    let skipped = list.top.saturating_sub(shown.ask.list.first);
    let on_screen: Vec<&Agent> = match list.top < shown.ask.list.first {
        true => Vec::new(),
        false => agents.listed.iter().skip(skipped).take(rows).collect(),
    };
    // A column for the mark of the chosen one.
    let inner = Room { width: room.width.saturating_sub(2), ..*room };
    let order = (list.by, list.is_descending);
    let mut lines = table(&inner, &columns(Some(order), &inner), &cells(&on_screen, &inner));
    for (index, row) in lines.iter_mut().enumerate() {
        let is_chosen = index > 0 && list.top + index - 1 == list.chosen;
        let mark = if is_chosen { room.theme.glyphs.chosen } else { " " };
        row.line.spans.insert(0, Span::raw(format!("{mark} ")));
        if is_chosen {
            row.line.style = room.theme.chosen();
        }
        for (range, _) in &mut row.targets {
            *range = range.start + 2..range.end + 2;
        }
        if let Some(agent) = index.checked_sub(1).and_then(|index| on_screen.get(index)) {
            row.targets.push((0..room.width, Target::Agent(agent.agent_id.clone())));
        }
    }
    part.rows.extend(lines);
    if on_screen.is_empty() {
        let text = match agents.matching {
            0 => "  no agent",
            _ => "  not read yet",
        };
        part.push(Row::styled(text, room.theme.secondary()));
    }
    part
}

/// The panels of one agent.
pub(super) fn detail(agent: &AgentDetail, figures: &Figures, room: &Room<'_>) -> Vec<Part> {
    vec![
        summary(&agent.summary, &figures.window, room, &agent.agent_id),
        slowest(agent, room),
        gauges(agent, figures, room),
        trends(&agent.trends, room, "trends"),
    ]
}

fn slowest(agent: &AgentDetail, room: &Room<'_>) -> Part {
    let mut part = Part::new(room, "slowest tasks", "");
    if agent.slowest.is_empty() {
        part.push(Row::styled("none", room.theme.secondary()));
        return part;
    }
    let columns = [
        Column::text("task"),
        Column::number("duration", 0),
        Column::number("tokens", 2),
        Column::text("outcome"),
        Column { gives_way: 3, ..Column::text("finished") },
    ];
    #[expect(clippy::cast_precision_loss, reason = "a number to read has few digits")]
    let cells = agent.slowest.iter().map(|task| {
        let duration = task.duration_ms as f64;
        let (outcome, text) = match task.success {
            true => (Level::Good, "succeeded"),
            false => (Level::Bad, "failed"),
        };
        let tokens = task.tokens_used.map(|tokens| format::compact(tokens as f64));
        vec![
            Cell::new(room.name(&task.task_id, NAME_CELLS_MAX)),
            Cell::marked(room, Level::of_duration_ms(duration), &format::duration_ms(duration)),
            Cell::new(tokens.unwrap_or_else(|| "-".to_owned())),
            Cell::marked(room, outcome, text),
            Cell::new(format::time(task.timestamp)),
        ]
    });
    part.rows.extend(table(room, &columns, &cells.collect::<Vec<_>>()));
    part
}

/// Gauges, and how much of its quota is used where that is known.
fn gauges(agent: &AgentDetail, figures: &Figures, room: &Room<'_>) -> Part {
    let mut part = Part::new(room, "gauges", "newest of the last day");
    let quotas = &figures.resources.quotas;
    if let Some(quota) = quotas.iter().find(|quota| quota.agent_id == agent.agent_id) {
        part.push(quota_row(quota, "token quota", room));
    }
    if agent.gauges.is_empty() {
        let text = room.cut("none; tallystone record agent records them", room.width);
        part.push(Row::styled(text, room.theme.secondary()));
        return part;
    }
    let columns = [Column::text("gauge"), Column::number("value", 0), Column::number("age", 1)];
    let cells = agent.gauges.iter().map(|(name, gauge)| {
        vec![
            Cell::new(room.name(name, NAME_CELLS_MAX)),
            Cell::new(format::number(gauge.value)),
            Cell::new(format::ago(gauge.at, figures.at)),
        ]
    });
    part.rows.extend(table(room, &columns, &cells.collect::<Vec<_>>()));
    part
}
