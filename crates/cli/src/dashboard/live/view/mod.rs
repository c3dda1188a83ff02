//! Drawing: from what the live view knows to the cells of a terminal.
//!
//! Owns the frame of every page: a header, notes, what is scrolled, and a line of keys. Panels
//! are rows of text that are put into one, two or three columns; a file for each family.

mod agents;
mod alerts;
mod chart;
mod fit;
mod grid;
mod help;
mod part;
mod query;
mod resources;
mod summary;
mod trends;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use tallystone::time::format_length;

use self::fit::{cells, cut, name, pad};
use self::part::{Part, Room, Row};
use super::app::{App, Drawn, Screen, Shown, Typed};
use super::theme::Theme;
use crate::dashboard::figures::{AgentDetail, Figures, Level};
use crate::dashboard::format;
use crate::dashboard::settings::Show;

/// Least size that anything is drawn at.
const LEAST: (u16, u16) = (40, 10);
/// Most rows of notes.
const NOTES_MAX: usize = 3;

/// Draws the page that is open.
pub(super) fn draw(app: &App, theme: &Theme, frame: &mut Frame<'_>) -> Drawn {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("needs {}x{}, has {}x{}", LEAST.0, LEAST.1, area.width, area.height);
        let text = cut(&text, area.width.into(), "");
        frame.buffer_mut().set_line(area.x, area.y, &Line::raw(text), area.width);
        return Drawn::default();
    }
    let width = usize::from(area.width);
    let mut lines = vec![header(app, theme, width)];
    lines.extend(notes(app, theme, width));
    for (y, line) in (area.y..).zip(&lines) {
        frame.buffer_mut().set_line(area.x, y, line, area.width);
    }
    let above = u16::try_from(lines.len()).unwrap_or(area.height);
    let footer = area.bottom() - 1;
    frame.buffer_mut().set_line(area.x, footer, &keys(app, theme, width), area.width);
    let height = area.height.saturating_sub(above + 1);
    let body = Rect { y: area.y + above, height, ..area };
    let drawn = draw_body(app, theme, frame, body);
    if app.lost.is_some() {
        frame.buffer_mut().set_style(body, theme.secondary());
    }
    if let Some(input) = &app.input {
        let column = cells(prompt(input.what)) + cells(&typed(&input.text, width));
        let column = u16::try_from(column).unwrap_or(area.width).min(area.width - 1);
        frame.set_cursor_position((area.x + column, footer));
    }
    drawn
}

fn draw_body(app: &App, theme: &Theme, frame: &mut Frame<'_>, body: Rect) -> Drawn {
    let room = Room { app, theme, width: usize::from(body.width), chart_rows: 1 };
    let rows = usize::from(body.height);
    let page = app.page();
    let columns = match (&page.screen, app.shown()) {
        (Screen::Help, _) => grid::columns(&room, 1, &help::help),
        (_, None) if app.lost.is_some() => note("nothing was read yet", theme),
        (_, None) => note("reading the store", theme),
        (Screen::Overview, Some(shown)) => {
            grid::fitting(&room, rows, &|room: &Room<'_>| panels(shown, room))
        }
        (Screen::List, Some(shown)) => {
            vec![vec![agents::list(shown, &room, rows.saturating_sub(2))]]
        }
        (Screen::Agent(agent), Some(shown)) => match agent_in(&shown.figures, agent) {
            Some(detail) => grid::fitting(&room, rows, &|room: &Room<'_>| {
                agents::detail(detail, &shown.figures, room)
            }),
            None if app.is_frozen() => note("not read before the freeze: f goes on", theme),
            None if app.is_paused => {
                note("not read before the pause: r reads once, p goes on", theme)
            }
            None => note("reading the store", theme),
        },
    };
    let scroll = if page.screen == Screen::List { 0 } else { page.scroll };
    grid::draw(&columns, scroll, frame, body)
}

/// A line in place of panels.
fn note(text: &'static str, theme: &Theme) -> Vec<Vec<Part>> {
    vec![vec![Part { rows: vec![Row::styled(text, theme.secondary())] }]]
}

fn agent_in<'a>(figures: &'a Figures, agent: &str) -> Option<&'a AgentDetail> {
    figures.agent.as_ref().filter(|detail| detail.agent_id == agent)
}

/// The panels of the overview, in their order.
fn panels(shown: &Shown, room: &Room<'_>) -> Vec<Part> {
    let figures = &shown.figures;
    let mut answers = figures.panels.iter();
    let mut parts = Vec::new();
    for panel in &room.app.panels {
        let title = &panel.title;
        parts.extend(match panel.show {
            Show::Alerts => Some(alerts::alerts(figures, room, title)),
            Show::Summary => Some(summary::summary(&figures.summary, &figures.window, room, title)),
            Show::Agents => Some(agents::agents(&figures.agents, &figures.window, room, title)),
            Show::Queue => Some(resources::queue(figures, room, title)),
            Show::Resources => Some(resources::resources(figures, room, title)),
            Show::Trends => Some(trends::trends(&figures.trends, room, title)),
            Show::Number | Show::Table | Show::Sparkline | Show::Bar => {
                answers.next().map(|answer| query::query(answer, panel.show, room))
            }
        });
    }
    parts
}

/// The store, the window, the time of the figures, and what the view is doing.
fn header(app: &App, theme: &Theme, width: usize) -> Line<'static> {
    let figures = app.shown().map(|shown| &shown.figures);
    let at = figures.map(|figures| format::time(figures.at) + "  ").unwrap_or_default();
    let window = format_length(app.window);
    let every = i64::try_from(app.refresh.as_micros()).map(format::span).unwrap_or_default();
    let mut doing = Vec::new();
    if app.lost.is_some() {
        doing.push("lost".to_owned());
    }
    if app.is_paused {
        doing.push("paused".to_owned());
    }
    if let (true, Some(figures)) = (app.is_frozen(), figures) {
        let newest = app.newer().unwrap_or(figures.at);
        doing.push(format!("frozen, {} old", age(figures, newest)));
    }
    if app.is_reading() && !app.is_frozen() {
        doing.push("reading".to_owned());
    } else if doing.is_empty() {
        doing.push("live".to_owned());
    }
    let right = format!("last {window}  {at}every {every}  {}", doing.join(", "));
    let right = cut(&right, width, theme.glyphs.ellipsis);
    let left = width.saturating_sub(cells(&right) + 2);
    let store = name(&app.store, left.saturating_sub(12), theme.glyphs.ellipsis);
    let left = match left < 12 {
        true => String::new(),
        false => pad(&format!("tallystone  {store}"), left, false) + "  ",
    };
    Line::from(vec![Span::styled(left, theme.heading()), Span::raw(right)])
}

fn age(figures: &Figures, now: tallystone::Timestamp) -> String {
    format::span(now.as_micros().saturating_sub(figures.at.as_micros()).max(0))
}

/// What a person should know before reading on; the most important first.
fn notes(app: &App, theme: &Theme, width: usize) -> Vec<Line<'static>> {
    let mut notes = Vec::new();
    if let Some(lost) = &app.lost {
        let every = i64::try_from(app.refresh.as_micros()).map(format::span).unwrap_or_default();
        let again = match app.is_paused {
            true => "paused, r tries again".to_owned(),
            false => format!("tries again every {every}"),
        };
        let since = format::time(lost.since);
        notes.push((Level::Bad, format!("lost since {since}, {again}: {}", lost.why)));
    }
    if let Some(shown) = app.shown() {
        let figures = &shown.figures;
        if figures.is_damaged {
            let text = "damaged data were met; tallystone verify names them".to_owned();
            notes.push((Level::Bad, text));
        }
        notes.extend(figures.alerts.notes.iter().map(|note| (Level::Fair, note.clone())));
        if !figures.alerts.keeps_states && figures.alerts.notes.is_empty() {
            let text = "states of alerts are kept by another process".to_owned();
            notes.push((Level::Fair, text));
        }
        notes.extend(figures.missing.iter().map(|what| (Level::Fair, what.clone())));
    }
    let left_out = notes.len().saturating_sub(NOTES_MAX);
    notes.truncate(NOTES_MAX);
    if let Some((_, last)) = notes.last_mut().filter(|_| left_out > 0) {
        *last = format!("(and {left_out} more) {last}");
    }
    let line = |(level, text): (Level, String)| {
        let text = name(&text, width.saturating_sub(3), theme.glyphs.ellipsis);
        Line::from(theme.marked(level, &text))
    };
    notes.into_iter().map(line).collect()
}

fn prompt(what: Typed) -> &'static str {
    match what {
        Typed::Window => "window, as 30m: ",
        Typed::Filter => "agents with: ",
    }
}

/// The end of what was typed, as far as there is room.
fn typed(text: &str, width: usize) -> String {
    let text = crate::output::escape(text);
    let mut rest = text.as_str();
    while cells(rest) > width / 2 {
        let mut chars = rest.chars();
        chars.next();
        rest = chars.as_str();
    }
    rest.to_owned()
}

/// The last line: keys, or what is typed.
fn keys(app: &App, theme: &Theme, width: usize) -> Line<'static> {
    if let Some(input) = &app.input {
        let mut spans = vec![
            Span::styled(prompt(input.what), theme.heading()),
            Span::raw(typed(&input.text, width)),
        ];
        if let Some(error) = &input.error {
            spans.extend([Span::raw("  "), theme.marked(Level::Bad, error)]);
        }
        return Line::from(spans);
    }
    let keys: &[(&str, &str)] = match app.page().screen {
        Screen::Overview => &[
            ("q", "quit"),
            ("?", "help"),
            ("a", "agents"),
            ("w", "window"),
            ("p", "pause"),
            ("f", "freeze"),
            ("r", "read"),
            ("+-", "refresh"),
        ],
        Screen::List => &[
            ("Esc", "back"),
            ("Enter", "open"),
            ("/", "filter"),
            ("s", "order"),
            ("S", "reverse"),
            ("w", "window"),
            ("?", "help"),
        ],
        Screen::Agent(_) => &[("Esc", "back"), ("w", "window"), ("p", "pause"), ("?", "help")],
        Screen::Help => &[("Esc", "back"), ("q", "quit")],
    };
    let mut spans = Vec::new();
    let more = more_below(app);
    let mut used = cells(&more);
    for (key, what) in keys {
        used += key.len() + what.len() + 3;
        if used > width {
            break;
        }
        spans.push(Span::styled(*key, theme.heading()));
        spans.push(Span::styled(format!(" {what}  "), theme.secondary()));
    }
    let left = width.saturating_sub(Line::from(spans.clone()).width());
    spans.push(Span::styled(pad(&more, left, true), Modifier::BOLD));
    Line::from(spans)
}

/// How far the page is scrolled, where it does not fit.
fn more_below(app: &App) -> String {
    let (rows, all) = (app.drawn.body_rows, app.drawn.content_rows);
    let page = app.page();
    if page.screen == Screen::List {
        let all = app.listed();
        return if all == 0 { String::new() } else { format!("{} of {all}", app.list.chosen + 1) };
    }
    if all <= rows || rows == 0 {
        return String::new();
    }
    match all - rows - page.scroll.min(all - rows) {
        0 => "end".to_owned(),
        below => format!("{below} more below"),
    }
}
