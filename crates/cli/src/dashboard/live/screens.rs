//! Screens as they are to look, and what must hold of all of them.
//!
//! `screens/*.txt` are what the tests compare with. `TALLYSTONE_WRITE_SCREENS=1` writes them
//! anew, and at a second run those in README.md and docs/dashboard.md; look at the difference
//! before it is committed.

#![expect(clippy::disallowed_methods, reason = "expected screens are files beside the sources")]

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, CellWidth};
use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::style::{Color, Modifier};

use super::app::{App, Next, Screen};
use super::reader::Answer;
use super::theme::Theme;
use super::{fixtures, view};
use crate::dashboard::figures::Figures;
use crate::dashboard::read::AgentOrder;
use crate::dashboard::settings::Settings;

const WRITE: &str = "TALLYSTONE_WRITE_SCREENS";

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];

fn settings() -> Settings {
    Settings::default()
}

/// With a panel of each kind that has a query.
fn with_queries() -> Settings {
    let mut text = String::new();
    for show in ["number", "table", "sparkline", "bar", "number"] {
        text += &format!("[[panel]]\nshow = \"{show}\"\nquery = {{ method = \"average\" }}\n");
    }
    for show in ["summary", "alerts"] {
        text += &format!("[[panel]]\nshow = \"{show}\"\n");
    }
    toml::from_str(&text).unwrap()
}

fn app(settings: &Settings) -> App {
    App::new("/var/lib/agents/metrics".to_owned(), settings, true)
}

/// The app after it has read.
fn reading(settings: &Settings, figures: Figures) -> App {
    let mut app = app(settings);
    read(&mut app, figures);
    app
}

fn read(app: &mut App, figures: Figures) {
    answer(app, Ok(figures));
}

fn answer(app: &mut App, result: Result<Figures, String>) {
    let order = app.order();
    let answer = Answer { number: order.number, ask: order.ask, at: fixtures::noon(), result };
    assert_eq!(app.take(answer), Next::Draw);
}

fn draw(app: &mut App, theme: &Theme, size: (u16, u16)) -> Buffer {
    // The second time with what the first has told of the room that there is.
    draw_once(app, theme, size);
    draw_once(app, theme, size)
}

fn draw_once(app: &mut App, theme: &Theme, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut drawn = None;
    terminal.draw(|frame| drawn = Some(view::draw(app, theme, frame))).unwrap();
    app.drawn(drawn.unwrap());
    terminal.backend().buffer().clone()
}

/// The characters of a screen, without spaces at the ends of lines.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line += symbol;
            x += symbol.cell_width().max(1);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn key(app: &mut App, code: KeyCode) -> Next {
    app.on_event(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn keys(app: &mut App, text: &str) {
    for c in text.chars() {
        key(app, if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) });
    }
}

fn unicode() -> Theme {
    Theme::new(false, true)
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/live/screens")
}

fn expect(name: &str, screen: &str) {
    let path = directory().join(format!("{name}.txt"));
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(directory()).unwrap();
        std::fs::write(&path, screen).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(screen, expected, "{name}.txt; {WRITE}=1 writes it anew");
}

fn expect_sizes(name: &str, mut app: App) {
    for size in SIZES {
        let screen = text(&draw(&mut app, &unicode(), size));
        expect(&format!("{name}-{}x{}", size.0, size.1), &screen);
    }
}

#[test]
fn stores_in_every_condition() {
    expect_sizes("empty", reading(&settings(), fixtures::empty()));
    expect_sizes("live", reading(&settings(), fixtures::live()));
    expect_sizes("firing", reading(&settings(), fixtures::firing()));
    expect_sizes("damaged", reading(&settings(), fixtures::damaged()));
    expect_sizes("old", reading(&settings(), fixtures::old()));
}

#[test]
fn the_list_and_an_agent() {
    let mut app = reading(&settings(), fixtures::listed());
    let size = (80, 24);
    draw(&mut app, &unicode(), size);
    keys(&mut app, "ajj");
    assert!(app.is_reading());
    read(&mut app, fixtures::listed());
    expect("list-80x24", &text(&draw(&mut app, &unicode(), size)));
    assert_eq!(app.order().ask.list.by, AgentOrder::Duration);
    keys(&mut app, "/cod");
    assert_eq!(app.order().ask.list.contains, "cod");
    expect("filter-80x24", &text(&draw(&mut app, &unicode(), size)));
    keys(&mut app, "\nS");
    read(&mut app, fixtures::listed());
    keys(&mut app, "\n");
    assert_eq!(app.order().ask.agent.as_deref(), Some("writer-3"));
    draw(&mut app, &unicode(), size);
    read(&mut app, fixtures::detailed("writer-3"));
    expect_sizes("agent", app);
}

#[test]
fn help_fits_and_names_what_records() {
    let toml = "[metrics]\nqueue_pending = \"waiting\"\n";
    let mut app = reading(&toml::from_str(toml).unwrap(), fixtures::live());
    keys(&mut app, "?");
    let screen = text(&draw(&mut app, &unicode(), (100, 48)));
    assert!(screen.contains("--metric-type waiting.high --value N"), "{screen}");
    expect("help-100x48", &screen);
}

#[test]
fn ascii_and_nothing_else() {
    let theme = Theme::new(true, false);
    for (name, figures) in [("live", fixtures::live()), ("firing", fixtures::firing())] {
        let mut app = reading(&settings(), figures);
        let buffer = draw(&mut app, &theme, (120, 40));
        assert!(text(&buffer).is_ascii());
        assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset));
        expect(&format!("ascii-{name}-120x40"), &text(&buffer));
    }
}

#[test]
fn panels_of_queries() {
    let mut app = reading(&with_queries(), fixtures::queried());
    expect("queries-120x40", &text(&draw(&mut app, &unicode(), (120, 40))));
}

#[test]
fn a_lost_store_keeps_its_last_figures_dimmed() {
    let mut app = reading(&settings(), fixtures::live());
    answer(&mut app, Err("/var/lib/agents/metrics: no such directory".to_owned()));
    let buffer = draw(&mut app, &unicode(), (80, 24));
    expect("lost-80x24", &text(&buffer));
    assert!(buffer[(0, 4)].modifier.contains(Modifier::DIM));
    read(&mut app, fixtures::live());
    let screen = text(&draw(&mut app, &unicode(), (80, 24)));
    assert!(!screen.contains("lost"), "{screen}");
}

#[test]
fn nasty_names_stay_in_their_cells() {
    let mut app = reading(&with_queries(), fixtures::nasty());
    app.store = fixtures::NASTY[0].to_owned();
    expect("nasty-queries-120x40", &text(&draw(&mut app, &unicode(), (120, 40))));
    let mut app = reading(&settings(), fixtures::nasty());
    expect("nasty-120x40", &text(&draw(&mut app, &unicode(), (120, 40))));
    keys(&mut app, "a");
    read(&mut app, fixtures::nasty());
    let buffer = draw(&mut app, &unicode(), (80, 24));
    expect("nasty-list-80x24", &text(&buffer));
    // The column of success ends at the same cell in every row.
    let ends: Vec<_> = (5..20)
        .map(|y| (0..80).rfind(|x| buffer[(*x, y)].symbol() == "%").unwrap_or_default())
        .collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[test]
fn colours_come_with_marks() {
    let mut app = reading(&settings(), fixtures::firing());
    let buffer = draw(&mut app, &unicode(), (120, 40));
    let of = |symbol: &str| buffer.content.iter().find(|cell| cell.symbol() == symbol).unwrap();
    assert_eq!(of("\u{2717}").fg, Color::Red);
    assert_eq!(of("\u{25b2}").fg, Color::Yellow);
    assert_eq!(of("\u{2713}").fg, Color::Green);
    assert!(buffer.content.iter().all(|cell| cell.bg == Color::Reset));
}

/// The text between a line that is `start` or begins with it, and the next fence.
fn blocks<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let pieces = text.split(start).skip(1);
    pieces.map(|piece| piece.split("```").next().unwrap_or_default()).collect()
}

/// Compares the screens of a page with the files, or writes them anew; returns the page.
fn page_with_screens(page: &str, least: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let mut text = std::fs::read_to_string(&path).unwrap();
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("<!-- screen ")?.strip_suffix(" -->"))
        .map(str::to_owned)
        .collect();
    assert!(names.len() >= least, "{page}: {names:?}");
    for name in names {
        let screen = std::fs::read_to_string(directory().join(format!("{name}.txt"))).unwrap();
        let start = format!("<!-- screen {name} -->\n```text\n");
        if std::env::var_os(WRITE).is_some() {
            let shown = blocks(&text, &start)[0];
            text = text.replace(&format!("{start}{shown}```"), &format!("{start}{screen}```"));
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(blocks(&text, &start), [screen], "{page}, {name}; {WRITE}=1 writes it anew");
    }
    text
}

#[test]
fn the_docs_show_these_screens_keys_and_layouts() {
    page_with_screens("README.md", 1);
    let docs = page_with_screens("docs/dashboard.md", 4);
    for (key, what) in super::keys::KEYS {
        let row = format!("| `{key}` | {what} |\n");
        assert!(docs.contains(&row), "docs/dashboard.md needs {row}");
    }
    let layouts = blocks(&docs, "```toml\n");
    assert_eq!(layouts.len(), 2);
    for layout in layouts {
        let config: crate::config::Config = toml::from_str(layout).unwrap();
        assert!(!config.dashboard.panels.is_empty());
    }
}

/// Every state at every size: nothing panics, nothing but letters is in a cell.
#[test]
fn any_state_at_any_size() {
    let mut apps = Vec::new();
    let all = [
        fixtures::empty(),
        fixtures::live(),
        fixtures::firing(),
        fixtures::damaged(),
        fixtures::old(),
        fixtures::nasty(),
    ];
    for figures in all {
        for settings in [settings(), with_queries()] {
            for pages in ["", "a", "a\n", "?", "W1x\n", "/\u{1b}\u{65e5}", "f", "p"] {
                let mut app = reading(&settings, figures.clone());
                draw(&mut app, &unicode(), (80, 24));
                for page in pages.split_inclusive('a') {
                    keys(&mut app, page);
                    read(&mut app, figures.clone());
                }
                apps.push(app);
            }
        }
    }
    apps.push(app(&settings()));
    let mut lost = app(&with_queries());
    answer(&mut lost, Err("x\u{1b}".repeat(600)));
    apps.push(lost);
    let sizes: Vec<(u16, u16)> = (1..=200)
        .step_by(19)
        .flat_map(|width| (1..=60).step_by(9).map(move |height| (width, height)))
        .chain([(39, 10), (40, 9), (40, 10), (99, 24), (100, 24), (179, 60), (180, 60), (0, 0)])
        .collect();
    for (number, app) in apps.iter_mut().enumerate() {
        let theme = Theme::new(number % 2 == 0, number % 3 == 0);
        for size in &sizes {
            let buffer = draw_once(app, &theme, *size);
            for symbol in buffer.content.iter().map(|cell| cell.symbol()) {
                let is_plain = match symbol.len() {
                    1 => !symbol.contains(char::is_control),
                    _ => crate::output::escape(symbol) == symbol,
                };
                assert!(is_plain, "{symbol:?} at {size:?}");
            }
        }
    }
}

#[test]
fn eighty_by_twentyfour_shows_alerts_the_summary_and_more() {
    for figures in [fixtures::empty(), fixtures::live(), fixtures::firing()] {
        let screen = text(&draw(&mut reading(&settings(), figures), &unicode(), (80, 24)));
        for part in ["alerts", "summary", "success", "p99", "agents"] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
    }
    let screen = text(&draw(&mut reading(&settings(), fixtures::live()), &unicode(), (39, 24)));
    assert!(screen.starts_with("needs 40x10, has 39x24\n"), "{screen}");
}

#[test]
fn clicks_lead_to_agents_and_orders() {
    let mut app = reading(&settings(), fixtures::live());
    let buffer = draw(&mut app, &unicode(), (80, 24));
    let click = |app: &mut App, buffer: &Buffer, what: &str| {
        let screen = text(buffer);
        let (row, line) = screen.lines().enumerate().find(|(_, line)| line.contains(what)).unwrap();
        let column = line.find(what).unwrap();
        let mouse = MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column: u16::try_from(column).unwrap(),
            row: u16::try_from(row).unwrap(),
            modifiers: KeyModifiers::NONE,
        };
        app.on_event(&Event::Mouse(mouse))
    };
    assert_eq!(click(&mut app, &buffer, "tallystone"), Next::Wait);
    click(&mut app, &buffer, "planner-1");
    assert_eq!(app.page().screen, Screen::Agent("planner-1".to_owned()));
    key(&mut app, KeyCode::Esc);
    click(&mut app, &buffer, "a for all");
    assert_eq!(app.page().screen, Screen::List);
    read(&mut app, fixtures::listed());
    let buffer = draw(&mut app, &unicode(), (80, 24));
    click(&mut app, &buffer, "tasks");
    assert_eq!((app.list.by, app.list.is_descending), (AgentOrder::Tasks, true));
    click(&mut app, &buffer, "tasks");
    assert!(!app.list.is_descending);
    click(&mut app, &buffer, "tester-3");
    assert_eq!(app.order().ask.agent.as_deref(), Some("tester-3"));
}
