//! The panel of the summary: tasks of a window, each number with its change.

use ratatui::style::Style;
use ratatui::text::Span;

use super::fit::{cells, pad};
use super::part::{Part, Room, Row};
use crate::dashboard::figures::Compared;
use crate::dashboard::lines::{self, Line};

/// Cells of a label, of a value, of a change, and of the three with the space between columns.
const LABEL: usize = 16;
const VALUE: usize = 11;
const CHANGE: usize = 11;
const ITEM: usize = LABEL + VALUE + CHANGE + GAP;
const GAP: usize = 2;

pub(super) fn summary(compared: &Compared, window: &str, room: &Room<'_>, title: &str) -> Part {
    let note = format!("last {window}, with the change from the {window} before");
    let mut part = Part::new(room, title, &note);
    let lines = lines::summary(compared);
    let columns = ((room.width + GAP) / ITEM).clamp(1, 3);
    let rows = lines.len().div_ceil(columns);
    for row in 0..rows {
        let in_row = lines.iter().skip(row).step_by(rows);
        part.push(Row::new(in_row.flat_map(|line| spans(line, room)).collect()));
    }
    if let Some(estimate) = lines::estimate(compared) {
        part.push(Row::styled(room.cut(&estimate, room.width), room.theme.secondary()));
    }
    part
}

fn spans(line: &Line, room: &Room<'_>) -> [Span<'static>; 4] {
    let value = match line.level {
        Some(level) => room.theme.marked(level, &line.value),
        None => Span::styled(line.value.clone(), Style::new()),
    };
    // A long value takes the room of its change.
    let text = pad(&value.content, VALUE, true);
    let left = (VALUE + CHANGE).saturating_sub(cells(&text));
    let change = pad(&room.cut(&room.change(line.change.clone()), left), left, true);
    [
        Span::raw(pad(line.name, LABEL, false)),
        Span::styled(text, value.style),
        Span::styled(change, room.theme.secondary()),
        Span::raw(" ".repeat(GAP)),
    ]
}
