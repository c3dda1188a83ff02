//! Where panels stand: one column, two from 100 cells on, three from 180.
//!
//! A panel goes to the column that is shortest so far, so that the first ones are on top.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::part::{Part, Room, Row};
use crate::dashboard::live::app::Drawn;

/// Cells between columns.
const GAP: usize = 2;
/// Rows that charts may have where there is room.
const CHART_ROWS_MAX: usize = 5;

/// Panels as they look in some room.
type Parts<'a> = dyn Fn(&Room<'_>) -> Vec<Part> + 'a;

/// Columns of panels, with charts as high as fits into `rows`.
pub(super) fn fitting(room: &Room<'_>, rows: usize, parts: &Parts<'_>) -> Vec<Vec<Part>> {
    let count = match room.width {
        ..100 => 1,
        100..180 => 2,
        180.. => 3,
    };
    let with = |chart_rows| columns(&Room { chart_rows, ..*room }, count, parts);
    let higher = (2..=CHART_ROWS_MAX).rev().map(with);
    higher.into_iter().find(|columns| height(columns) <= rows).unwrap_or_else(|| with(1))
}

/// `count` columns of panels.
pub(super) fn columns(room: &Room<'_>, count: usize, parts: &Parts<'_>) -> Vec<Vec<Part>> {
    let width = (room.width.saturating_sub(GAP * (count - 1))) / count;
    let mut columns: Vec<Vec<Part>> = (0..count).map(|_| Vec::new()).collect();
    for part in parts(&Room { width, ..*room }) {
        let shortest = columns.iter_mut().min_by_key(|column| rows(column));
        if let Some(column) = shortest {
            column.push(part);
        }
    }
    columns
}

/// Rows of a column, with one between panels.
fn rows(column: &[Part]) -> usize {
    let between = column.len().saturating_sub(1);
    column.iter().map(|part| part.rows.len()).sum::<usize>() + between
}

fn height(columns: &[Vec<Part>]) -> usize {
    columns.iter().map(|column| rows(column)).max().unwrap_or(0)
}

/// Draws columns, without their first `scroll` rows.
pub(super) fn draw(
    columns: &[Vec<Part>],
    scroll: usize,
    frame: &mut Frame<'_>,
    body: Rect,
) -> Drawn {
    let content_rows = height(columns);
    let body_rows = usize::from(body.height);
    let scroll = scroll.min(content_rows.saturating_sub(body_rows));
    let mut drawn = Drawn { body_rows, content_rows, targets: Vec::new() };
    let count = columns.len().max(1);
    let width = (usize::from(body.width).saturating_sub(GAP * (count - 1))) / count;
    let cells = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    for (index, column) in columns.iter().enumerate() {
        let x = body.x.saturating_add(cells(index * (width + GAP)));
        let blank = Row::default();
        let all = column.iter().enumerate().flat_map(|(index, part)| {
            let between = (index > 0).then_some(&blank);
            between.into_iter().chain(&part.rows)
        });
        for (y, row) in (body.y..body.bottom()).zip(all.skip(scroll)) {
            frame.buffer_mut().set_line(x, y, &row.line, cells(width));
            for (range, target) in &row.targets {
                let left = x.saturating_add(cells(range.start.min(width)));
                let right = x.saturating_add(cells(range.end.min(width)));
                let area = Rect::new(left, y, right.saturating_sub(left), 1);
                drawn.targets.push((area, target.clone()));
            }
        }
    }
    drawn
}
