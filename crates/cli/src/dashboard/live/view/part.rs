//! Pieces that every panel is made of: rows, headings, labels, tables and bars.
//!
//! A panel is rows of a given width, so that it can be put anywhere and scrolled. A row knows
//! where a click on it leads.

use std::ops::Range;

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::fit::{cells, cut, name, pad};
use crate::dashboard::figures::Level;
use crate::dashboard::format::Change;
use crate::dashboard::lines::how_to_record;
use crate::dashboard::live::app::{App, Target};
use crate::dashboard::live::theme::Theme;

/// Cells of what stands before a value, with the space after it.
pub(super) const LABEL_CELLS: usize = 12;

/// What a panel is drawn with, and how much room there is.
#[derive(Clone, Copy)]
pub(super) struct Room<'a> {
    pub(super) app: &'a App,
    pub(super) theme: &'a Theme,
    /// Cells of a row.
    pub(super) width: usize,
    /// Rows of a chart.
    pub(super) chart_rows: usize,
}

impl Room<'_> {
    pub(super) fn name(&self, text: &str, width: usize) -> String {
        name(text, width, self.theme.glyphs.ellipsis)
    }

    pub(super) fn cut(&self, text: &str, width: usize) -> String {
        cut(text, width, self.theme.glyphs.ellipsis)
    }

    /// An arrow and how far: `^ +12 %`.
    pub(super) fn change(&self, change: Option<Change>) -> String {
        use std::cmp::Ordering;
        let [up, down] = self.theme.glyphs.arrows;
        change.map_or_else(String::new, |change| match change.direction {
            Ordering::Greater => format!("{up} {}", change.text),
            Ordering::Less => format!("{down} {}", change.text),
            Ordering::Equal => change.text,
        })
    }

    /// A bar of `width` cells, filled by `share`.
    pub(super) fn bar(&self, share: f64, width: usize, style: Style) -> Span<'static> {
        let filled = fraction(width, share);
        let [full, empty] = self.theme.glyphs.bar;
        Span::styled(full.repeat(filled) + &empty.repeat(width - filled), style)
    }
}

/// So much of `whole`, at least a cell of what is not nothing.
pub(super) fn fraction(whole: usize, share: f64) -> usize {
    // Widths of screens are small, and shares beyond 1 are of no more than the whole.
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a width is small, and a share is at most 1"
    )]
    let part = (whole as f64 * share).round() as usize;
    part.clamp(usize::from(share > 0.0), whole.max(1)).min(whole)
}

/// One row of a panel.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) line: Line<'static>,
    pub(super) targets: Vec<(Range<usize>, Target)>,
}

impl Row {
    pub(super) fn new(spans: Vec<Span<'static>>) -> Self {
        Self { line: Line::from(spans), targets: Vec::new() }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new(vec![Span::raw(text.into())])
    }

    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self::new(vec![Span::styled(text.into(), style)])
    }

    /// A value after its label.
    pub(super) fn labelled(label: &str, mut value: Vec<Span<'static>>) -> Self {
        value.insert(0, Span::raw(pad(label, LABEL_CELLS, false)));
        Self::new(value)
    }

    /// A click anywhere on it leads there.
    pub(super) fn leading_to(mut self, width: usize, target: Target) -> Self {
        self.targets.push((0..width, target));
        self
    }
}

/// A panel: a heading and rows.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) rows: Vec<Row>,
}

impl Part {
    /// With a heading of a title and what is read second, over the whole width.
    pub(super) fn new(room: &Room<'_>, title: &str, note: &str) -> Self {
        let rule = room.theme.glyphs.rule;
        let title = room.name(title, room.width);
        let left = room.width.saturating_sub(cells(&title) + 1);
        let note = if note.is_empty() { String::new() } else { room.name(note, left) + " " };
        let rest = left.saturating_sub(cells(&note));
        let row = Row::new(vec![
            Span::styled(title, room.theme.heading()),
            Span::raw(" "),
            Span::styled(note, room.theme.secondary()),
            Span::styled(rule.repeat(rest), room.theme.secondary()),
        ]);
        Self { rows: vec![row] }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A value that nobody records, and the command that records it, where there is room.
    pub(super) fn push_unrecorded(&mut self, room: &Room<'_>, label: &str, metric: &str) {
        let command = room.name(&how_to_record(metric), room.width + 1);
        let has_room = cells(&command) <= room.width;
        let text = if has_room { "not recorded" } else { "not recorded, ? says how" };
        let style = room.theme.secondary();
        self.push(Row::labelled(label, vec![Span::styled(text, style)]));
        if has_room {
            self.push(Row::styled(command, style));
        }
    }
}

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: String,
    pub(super) is_number: bool,
    /// Columns with a larger one give way first; the first column stays.
    pub(super) gives_way: u8,
    pub(super) target: Option<Target>,
}

impl Column {
    pub(super) fn text(title: &str) -> Self {
        Self { title: title.to_owned(), is_number: false, gives_way: 0, target: None }
    }

    pub(super) fn number(title: &str, gives_way: u8) -> Self {
        Self { title: title.to_owned(), is_number: true, gives_way, target: None }
    }

    pub(super) fn leading_to(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    /// A text with the mark of its level.
    pub(super) fn marked(room: &Room<'_>, level: Level, text: &str) -> Self {
        let span = room.theme.marked(level, text);
        Self { text: span.content.into_owned(), style: span.style }
    }
}

/// Space between columns.
const GAP: usize = 2;
/// Least cells of the first column, if others can give way.
const FIRST_CELLS_MIN: usize = 12;
/// Cells that the first column takes where there is room.
const FIRST_CELLS_WISHED: usize = 16;

/// A heading and rows, aligned; the first column is cut first, then others are left out.
pub(super) fn table(room: &Room<'_>, columns: &[Column], cells_of: &[Vec<Cell>]) -> Vec<Row> {
    let width_of = |index: usize| {
        let widest = cells_of.iter().filter_map(|row| Some(cells(&row.get(index)?.text))).max();
        let title = columns.get(index).map_or(0, |column| cells(&column.title));
        widest.unwrap_or(0).max(title)
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(width_of).collect();
    if let Some(first) = widths.first_mut() {
        *first = (*first).max(FIRST_CELLS_WISHED);
    }
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    loop {
        let all: usize = kept.iter().map(|index| widths[*index] + GAP).sum();
        let over = all.saturating_sub(GAP).saturating_sub(room.width);
        let first = widths.first().copied().unwrap_or(0);
        let can_shrink = first.saturating_sub(FIRST_CELLS_MIN);
        if over <= can_shrink || kept.len() <= 1 {
            if let Some(first) = widths.first_mut() {
                *first = first.saturating_sub(over);
            }
            break;
        }
        let last =
            kept.iter().skip(1).copied().max_by_key(|index| (columns[*index].gives_way, *index));
        kept.retain(|index| Some(*index) != last);
    }
    let heading: Vec<Cell> = columns
        .iter()
        .map(|column| Cell { text: column.title.clone(), style: room.theme.secondary() })
        .collect();
    let mut rows: Vec<Row> = std::iter::once(&heading)
        .chain(cells_of)
        .map(|row| line_of(room, row, columns, &widths, &kept))
        .collect();
    let mut at = 0;
    for index in kept {
        let end = at + widths[index] + GAP;
        if let (Some(target), Some(row)) = (&columns[index].target, rows.first_mut()) {
            row.targets.push((at..end, target.clone()));
        }
        at = end;
    }
    rows
}

fn line_of(
    room: &Room<'_>,
    row: &[Cell],
    columns: &[Column],
    widths: &[usize],
    kept: &[usize],
) -> Row {
    let mut spans = Vec::new();
    for index in kept {
        let (column, width) = (&columns[*index], widths[*index]);
        let Some(cell) = row.get(*index) else { break };
        let text = pad(&room.cut(&cell.text, width), width, column.is_number);
        spans.extend([Span::styled(text, cell.style), Span::raw(" ".repeat(GAP))]);
    }
    spans.pop();
    Row::new(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_a_little_of_little_and_no_more_than_all() {
        let of = |share| fraction(10, share);
        assert_eq!([of(0.0), of(0.001), of(0.5), of(1.0), of(7.0)], [0, 1, 5, 10, 10]);
        assert_eq!([of(-1.0), of(f64::NAN), fraction(0, 0.5)], [0, 0, 0]);
    }
}
