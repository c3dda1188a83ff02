//! Panels with a query of their own: a number, a table, a sparkline, or bars.

use ratatui::text::Span;

use super::chart::extremes;
use super::fit::{cells, pad};
use super::part::{Cell, Column, Part, Room, Row, table};
use super::trends::sparkline;
use crate::dashboard::figures::{Entries, Level, Number, PanelFigures};
use crate::dashboard::format;
use crate::dashboard::settings::Show;

/// Most entries of a table or of bars.
const ENTRIES_MAX: usize = 20;
/// Cells that a text of an entry is cut to before columns are laid out.
const CELL_CELLS_MAX: usize = 40;

pub(super) fn query(figures: &PanelFigures, show: Show, room: &Room<'_>) -> Part {
    let mut part = Part::new(room, &figures.title, "");
    if let Some(error) = &figures.error {
        let text = room.name(error, room.width.saturating_sub(3));
        part.push(Row::new(vec![room.theme.marked(Level::Bad, &text)]));
    } else if let Some(number) = &figures.number {
        part.push(number_row(number, &figures.unit, room));
    } else if let Some(entries) = &figures.entries {
        let rows = match show {
            Show::Table => table_rows(entries, room),
            Show::Sparkline => sparkline_rows(entries, &figures.unit, room),
            _ => bar_rows(entries, &figures.unit, room),
        };
        part.rows.extend(rows);
        if part.rows.len() == 1 {
            part.push(Row::styled("nothing", room.theme.secondary()));
        }
    }
    part
}

/// A number and its unit.
fn with_unit(value: f64, unit: &str) -> String {
    let number = format::number(value);
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

fn number_row(number: &Number, unit: &str, room: &Room<'_>) -> Row {
    let Some(value) = number.value else { return Row::styled("-", room.theme.secondary()) };
    let mut note = match &number.label {
        Some(label) => format!("  of {}, {} rows", room.name(label, 40), number.count),
        None => format!("  of {} rows", number.count),
    };
    if number.rank_error > 0.0 {
        note = format!("{note}, rank within {}", format::share(number.rank_error));
    }
    let value = room.name(&with_unit(value, unit), room.width);
    let note = room.cut(&note, room.width.saturating_sub(cells(&value)));
    Row::new(vec![
        Span::styled(value, room.theme.heading()),
        Span::styled(note, room.theme.secondary()),
    ])
}

fn table_rows(entries: &Entries, room: &Room<'_>) -> Vec<Row> {
    if entries.rows.is_empty() {
        return Vec::new();
    }
    let shown = entries.rows.iter().take(ENTRIES_MAX);
    let safe = |text: &String| Cell::new(room.name(text, CELL_CELLS_MAX));
    let cells: Vec<Vec<Cell>> = shown.map(|row| row.iter().map(safe).collect()).collect();
    let is_number = |index: usize| {
        let mut texts = entries.rows.iter().filter_map(|row| row.get(index));
        texts.all(|text| text.is_empty() || text.parse::<f64>().is_ok())
    };
    let columns: Vec<Column> = entries
        .columns
        .iter()
        .enumerate()
        .map(|(index, title)| {
            let title = room.name(title, CELL_CELLS_MAX);
            Column { is_number: is_number(index), ..Column::text(&title) }
        })
        .collect();
    let mut rows = table(room, &columns, &cells);
    rows.extend(left_out(entries.rows.len(), room));
    rows
}

fn left_out(count: usize, room: &Room<'_>) -> Option<Row> {
    let more = count.checked_sub(ENTRIES_MAX).filter(|more| *more > 0)?;
    Some(Row::styled(format!("and {more} more"), room.theme.secondary()))
}

fn sparkline_rows(entries: &Entries, unit: &str, room: &Room<'_>) -> Vec<Row> {
    if entries.numbers.is_empty() {
        return Vec::new();
    }
    let values: Vec<_> = entries.numbers.iter().map(|(_, value)| *value).collect();
    let unit = room.name(unit, 8);
    sparkline(&unit, &values, format::number, room)
}

fn bar_rows(entries: &Entries, unit: &str, room: &Room<'_>) -> Vec<Row> {
    let shown = &entries.numbers[..entries.numbers.len().min(ENTRIES_MAX)];
    let label_cells = (room.width / 3).min(CELL_CELLS_MAX);
    let labels: Vec<_> = shown.iter().map(|(label, _)| room.name(label, label_cells)).collect();
    let texts: Vec<_> = shown
        .iter()
        .map(|(_, value)| value.map_or_else(|| "-".to_owned(), |value| with_unit(value, unit)))
        .map(|text| room.name(&text, 24))
        .collect();
    let widest = |texts: &[String]| texts.iter().map(|text| cells(text)).max().unwrap_or(0);
    let (label_cells, text_cells) = (widest(&labels), widest(&texts));
    let bar_cells = room.width.saturating_sub(label_cells + text_cells + 2);
    let values: Vec<_> = shown.iter().map(|(_, value)| *value).collect();
    // Bars start at 0; what is below it has none.
    let most = extremes(&values).map_or(0.0, |(_, most)| most);
    let mut rows: Vec<Row> = shown
        .iter()
        .zip(labels.iter().zip(&texts))
        .map(|((_, value), (label, text))| {
            Row::new(vec![
                Span::raw(pad(label, label_cells, false) + " "),
                room.bar(value.unwrap_or(0.0) / most, bar_cells, room.theme.chart()),
                Span::raw(format!(" {}", pad(text, text_cells, true))),
            ])
        })
        .collect();
    rows.extend(left_out(entries.numbers.len(), room));
    rows
}
