//! The panel of trends: the last hour and the last day as charts.

use ratatui::text::Span;
use tallystone::Timestamp;
use tallystone::time::{MICROS_PER_DAY, parse_length};

use super::chart::{chart, extremes};
use super::fit::{cells, pad};
use super::part::{Part, Room, Row};
use crate::dashboard::figures::Trend;
use crate::dashboard::format;

/// How a number is written.
type Written = fn(f64) -> String;

pub(super) fn trends(trends: &[Trend], room: &Room<'_>, title: &str) -> Part {
    let mut part = Part::new(room, title, "");
    for trend in trends {
        let steps = trend.tasks.len();
        let [from, to] = ends(trend, steps);
        let note = format!("  {from} to {to}, steps of {}", trend.step);
        part.push(Row::new(vec![
            Span::styled(trend.name, room.theme.heading()),
            Span::styled(room.cut(&note, room.width.saturating_sub(9)), room.theme.secondary()),
        ]));
        let lines: [(&str, &[Option<f64>], Written); 4] = [
            ("duration", &trend.avg_duration_ms, format::duration_ms),
            ("tasks", &trend.tasks, format::compact),
            ("errors", &trend.errors, format::compact),
            ("tokens", &trend.tokens, format::compact),
        ];
        if lines.iter().all(|(_, values, _)| extremes(values).is_none()) {
            part.push(Row::styled("no tasks", room.theme.secondary()));
            continue;
        }
        for (label, values, written) in lines {
            part.rows.extend(sparkline(label, values, written, room));
        }
        if room.chart_rows > 1 {
            part.rows.extend(axis([&from, &to], steps, room));
        }
    }
    part
}

/// Time of the start of the first step and of the end of the last.
fn ends(trend: &Trend, steps: usize) -> [String; 2] {
    let step = parse_length(trend.step).unwrap_or(0);
    let length = i64::try_from(steps).unwrap_or(0).saturating_mul(step);
    let end = trend.from.as_micros().saturating_add(length);
    let to = Timestamp::from_micros(end).unwrap_or(trend.from);
    [trend.from, to].map(|at| match length < MICROS_PER_DAY {
        true => format::time_of_day(at),
        // Without the year: `11-26 11:53`.
        false => format::time(at).get(5..16).unwrap_or_default().to_owned(),
    })
}

/// Cells of the smallest and the largest number after a chart.
const RANGE_CELLS: usize = 18;
/// Cells before a chart.
const LABEL_CELLS: usize = 9;

fn chart_cells(room: &Room<'_>) -> usize {
    room.width.saturating_sub(LABEL_CELLS + RANGE_CELLS + 1)
}

fn labelled(label: &str, mut spans: Vec<Span<'static>>) -> Row {
    spans.insert(0, Span::raw(pad(label, LABEL_CELLS, false)));
    Row::new(spans)
}

/// A chart between its label and its smallest and largest number.
pub(super) fn sparkline(
    label: &str,
    values: &[Option<f64>],
    written: impl Fn(f64) -> String,
    room: &Room<'_>,
) -> Vec<Row> {
    let Some((least, most)) = extremes(values) else {
        let nothing = Span::styled("nothing recorded", room.theme.secondary());
        return vec![labelled(label, vec![nothing])];
    };
    let (least, most) = (written(least), written(most));
    let width = chart_cells(room);
    let rows = chart(values, width, room.chart_rows, &room.theme.glyphs.heights);
    let last = rows.len().saturating_sub(1);
    let widest = rows.iter().map(|row| cells(row)).max().unwrap_or(0);
    let row = |(index, drawn): (usize, String)| {
        let range = match (index, last) {
            (0, 0) if least == most => least.clone(),
            (0, 0) => format!("{least} to {most}"),
            (0, _) => format!("{most} most"),
            (index, last) if index == last => format!("{least} least"),
            _ => String::new(),
        };
        let range = room.cut(&range, RANGE_CELLS);
        labelled(
            if index == 0 { label } else { "" },
            vec![
                Span::styled(pad(&drawn, widest, false), room.theme.chart()),
                Span::styled(format!(" {range}"), room.theme.secondary()),
            ],
        )
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// The ends of the time below the charts, if they have room beside each other.
fn axis([from, to]: [&str; 2], steps: usize, room: &Room<'_>) -> Option<Row> {
    let width = chart_cells(room);
    let drawn = if steps == 0 { 0 } else { steps.min(width) * (width / steps).max(1) };
    let between = drawn.checked_sub(cells(from) + cells(to)).filter(|between| *between > 0)?;
    let text = format!("{from}{}{to}", " ".repeat(between));
    Some(labelled("", vec![Span::styled(text, room.theme.secondary())]))
}
