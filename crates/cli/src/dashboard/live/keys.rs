//! What keys and the mouse do.
//!
//! Owns the table of keys, of which help and docs are printed, and the lines that are typed.

use super::app::{App, Input, Next, Screen, Target, Typed};
use crate::dashboard::read::AgentOrder;
use crate::dashboard::settings::parse_window;
use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

/// Every key, and what it does.
pub(super) const KEYS: [(&str, &str); 19] = [
    ("q, Ctrl-C", "quit"),
    ("Esc", "back: help, typing, filter, agent, list; then quit"),
    ("?, h", "this help"),
    ("p, Space", "pause: nothing is read until p or r"),
    ("f", "freeze: the screen stays, reading goes on"),
    ("r", "read now"),
    ("w", "next window: 5m, 1h, 24h, 7d"),
    ("W", "type a window, as 30m"),
    ("+, -", "refresh less often, more often: 1s to 1h"),
    ("a, Tab", "all agents, and back"),
    ("/", "list agents with this in their names"),
    ("s, S", "order the list by the next column; the other way round"),
    ("Enter", "open the chosen agent"),
    ("Up, Down, k, j", "scroll, or choose an agent"),
    ("PgUp, PgDn", "a screenful up or down"),
    ("Home, End", "to the start or the end"),
    ("mouse", "the wheel scrolls; a click opens an agent or orders by a column"),
    ("m", "mouse on or off; off, the terminal selects text"),
    ("Ctrl-Z, Ctrl-L", "stop for a while; draw anew"),
];

/// Windows that `w` goes through, in microseconds.
const WINDOW_STEPS: [i64; 4] = [300_000_000, 3_600_000_000, 86_400_000_000, 604_800_000_000];

/// Times between two looks that `+` and `-` go through, in seconds.
const REFRESH_STEPS: [u64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600];

/// Longest line that can be typed, in characters.
const INPUT_CHARS_MAX: usize = 128;

/// Rows that a turn of the wheel scrolls.
const WHEEL_ROWS: usize = 3;

impl App {
    /// Does what a key, the mouse or a new size of the terminal asks for.
    pub(super) fn on_event(&mut self, event: &Event) -> Next {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                self.changing(|app| app.on_key(*key))
            }
            Event::Mouse(mouse) => self.changing(|app| app.on_mouse(*mouse)),
            Event::Resize(..) => Next::Draw,
            _ => Next::Wait,
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                KeyCode::Char('z') => Next::Suspend,
                KeyCode::Char('l') => Next::Redraw,
                KeyCode::Char('u') if self.input.is_some() => self.type_into(|text| text.clear()),
                _ => Next::Wait,
            };
        }
        if self.input.is_some() {
            return self.on_typed(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc => return self.back(),
            KeyCode::Char('?' | 'h') => self.open_or_close(Screen::Help),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('f') => self.freeze_or_go_on(),
            KeyCode::Char('r') => self.look_now(),
            KeyCode::Char('w') => self.window = next_window(self.window),
            KeyCode::Char('W') => self.input = Some(Input::default()),
            KeyCode::Char('+' | '=') => self.step_refresh(true),
            KeyCode::Char('-') => self.step_refresh(false),
            KeyCode::Char('m') => self.is_mouse_on = !self.is_mouse_on,
            _ => return self.on_list_key(key.code),
        }
        Next::Draw
    }

    /// Keys that choose, order, filter and scroll.
    fn on_list_key(&mut self, code: KeyCode) -> Next {
        let page = match self.page().screen {
            Screen::List => self.list_rows(),
            _ => self.drawn.body_rows.saturating_sub(1).max(1),
        };
        let is_list = self.page().screen == Screen::List;
        match code {
            KeyCode::Char('a') | KeyCode::Tab => self.open_or_close(Screen::List),
            KeyCode::Char('/') => {
                self.open_list();
                let text = self.list.contains.clone();
                self.input = Some(Input { what: Typed::Filter, text, error: None });
            }
            KeyCode::Char('s') if is_list => self.order_by(next_order(self.list.by)),
            KeyCode::Char('S') if is_list => self.list.is_descending = !self.list.is_descending,
            KeyCode::Enter if is_list => {
                if let Some(agent) = self.agent_at(self.list.chosen).map(str::to_owned) {
                    self.open(Screen::Agent(agent));
                }
            }
            KeyCode::Enter if self.page().screen == Screen::Overview => self.open(Screen::List),
            KeyCode::Up | KeyCode::Char('k') => self.go(|at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(|at, _| at + 1),
            KeyCode::PageUp => self.go(|at, _| at.saturating_sub(page)),
            KeyCode::PageDown => self.go(|at, _| at + page),
            KeyCode::Home => self.go(|_, _| 0),
            KeyCode::End => self.go(|_, most| most),
            _ => return Next::Wait,
        }
        Next::Draw
    }

    fn on_mouse(&mut self, mouse: MouseEvent) -> Next {
        match mouse.kind {
            MouseEventKind::ScrollUp => self.go(|at, _| at.saturating_sub(WHEEL_ROWS)),
            MouseEventKind::ScrollDown => self.go(|at, _| at + WHEEL_ROWS),
            MouseEventKind::Down(MouseButton::Left) if self.input.is_none() => {
                match self.drawn.target_at(mouse.column, mouse.row).cloned() {
                    Some(Target::Agent(agent)) => self.open(Screen::Agent(agent)),
                    Some(Target::List) => self.open(Screen::List),
                    Some(Target::Sort(by)) if by == self.list.by => {
                        self.list.is_descending = !self.list.is_descending;
                    }
                    Some(Target::Sort(by)) => self.order_by(by),
                    None => return Next::Wait,
                }
            }
            _ => return Next::Wait,
        }
        Next::Draw
    }

    /// Closes what was opened last; ends where nothing is open.
    fn back(&mut self) -> Next {
        if self.page().screen == Screen::List && !self.list.contains.is_empty() {
            self.filter("");
        } else if !self.close() {
            return Next::Quit;
        }
        Next::Draw
    }

    fn open_or_close(&mut self, screen: Screen) {
        if self.page().screen == screen {
            self.close();
        } else {
            self.open(screen);
        }
    }

    /// Goes to the list, back to it where it is open below.
    fn open_list(&mut self) {
        match self.pages.iter().position(|page| page.screen == Screen::List) {
            Some(index) => self.pages.truncate(index + 1),
            None => self.open(Screen::List),
        }
    }

    /// Names and times in their natural order, numbers largest first.
    fn order_by(&mut self, by: AgentOrder) {
        self.list.by = by;
        self.list.is_descending = by != AgentOrder::Name;
        (self.list.chosen, self.list.top) = (0, 0);
    }

    fn filter(&mut self, contains: &str) {
        contains.clone_into(&mut self.list.contains);
        (self.list.chosen, self.list.top) = (0, 0);
    }

    fn step_refresh(&mut self, is_longer: bool) {
        let now = self.refresh.as_secs();
        let step = if is_longer {
            REFRESH_STEPS.into_iter().find(|step| *step > now)
        } else {
            REFRESH_STEPS.into_iter().rfind(|step| *step < now)
        };
        if let Some(step) = step {
            self.refresh = std::time::Duration::from_secs(step);
        }
    }

    /// A key while a line is typed.
    fn on_typed(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Char(c) => self.type_into(|text| {
                if text.chars().count() < INPUT_CHARS_MAX {
                    text.push(c);
                }
            }),
            KeyCode::Backspace => self.type_into(|text| {
                let _ = text.pop();
            }),
            KeyCode::Enter => self.accept_typed(),
            KeyCode::Esc => {
                if self.input.take().is_some_and(|input| input.what == Typed::Filter) {
                    self.filter("");
                }
                Next::Draw
            }
            _ => Next::Wait,
        }
    }

    fn type_into(&mut self, change: impl FnOnce(&mut String)) -> Next {
        let Some(input) = &mut self.input else { return Next::Wait };
        change(&mut input.text);
        input.error = None;
        if input.what == Typed::Filter {
            let text = input.text.clone();
            self.filter(&text);
        }
        Next::Draw
    }

    fn accept_typed(&mut self) -> Next {
        let Some(mut input) = self.input.take() else { return Next::Wait };
        if input.what == Typed::Window {
            match parse_window(input.text.trim()) {
                Ok(window) => self.window = window,
                Err(error) => {
                    input.error = Some(error);
                    self.input = Some(input);
                }
            }
        }
        Next::Draw
    }
}

/// The next longer window of those that there is a key for, else the shortest.
fn next_window(window: i64) -> i64 {
    WINDOW_STEPS.into_iter().find(|step| *step > window).unwrap_or(WINDOW_STEPS[0])
}

/// The column to the right, in the order of the columns on screen.
fn next_order(by: AgentOrder) -> AgentOrder {
    match by {
        AgentOrder::Name => AgentOrder::Tasks,
        AgentOrder::Tasks => AgentOrder::Duration,
        AgentOrder::Duration => AgentOrder::Tokens,
        AgentOrder::Tokens => AgentOrder::Success,
        AgentOrder::Success => AgentOrder::Name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::live::app::Drawn;
    use crate::dashboard::live::fixtures;
    use crate::dashboard::live::reader::Answer;
    use crate::dashboard::settings::Settings;
    use tallystone::time::format_length;

    fn app() -> App {
        let mut app = App::new("s".to_owned(), &Settings::default(), true);
        app.drawn(Drawn { body_rows: 12, content_rows: 40, targets: Vec::new() });
        read(&mut app);
        app
    }

    /// Answers what is asked, with the list of fifteen agents.
    fn read(app: &mut App) {
        let order = app.order();
        let result = Ok(fixtures::listed());
        app.take(Answer { number: order.number, ask: order.ask, at: fixtures::noon(), result });
    }

    fn press(app: &mut App, code: KeyCode) -> Next {
        app.on_event(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn keys(app: &mut App, text: &str) -> Next {
        let mut next = Next::Wait;
        for c in text.chars() {
            next = match c {
                '\n' => press(app, KeyCode::Enter),
                '\u{1b}' => press(app, KeyCode::Esc),
                '\u{8}' => press(app, KeyCode::Backspace),
                c => press(app, KeyCode::Char(c)),
            };
        }
        next
    }

    #[test]
    fn escape_goes_back_before_it_quits() {
        let mut app = app();
        assert_eq!(keys(&mut app, "a"), Next::Draw);
        read(&mut app);
        keys(&mut app, "/er\n\n?");
        assert_eq!(app.pages.len(), 4);
        assert_eq!(keys(&mut app, "\u{1b}"), Next::Draw);
        assert_eq!(app.page().screen, Screen::Agent("writer-3".to_owned()));
        keys(&mut app, "\u{1b}");
        assert_eq!((&app.page().screen, app.list.contains.as_str()), (&Screen::List, "er"));
        keys(&mut app, "\u{1b}");
        assert_eq!((&app.page().screen, app.list.contains.as_str()), (&Screen::List, ""));
        assert_eq!(keys(&mut app, "\u{1b}"), Next::Draw);
        assert_eq!(keys(&mut app, "\u{1b}"), Next::Quit);
        assert_eq!(keys(&mut app, "q"), Next::Quit);
        // In the middle of typing q is a letter, and Ctrl-C quits.
        assert_eq!(keys(&mut app, "/q"), Next::Draw);
        assert_eq!(app.list.contains, "q");
        let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.on_event(&Event::Key(quit)), Next::Quit);
    }

    #[test]
    fn windows_go_round_or_are_typed() {
        let mut app = app();
        let mut windows = Vec::new();
        for _ in 0..4 {
            keys(&mut app, "w");
            windows.push(format_length(app.order().ask.window));
        }
        assert_eq!(windows, ["1h", "1d", "7d", "5m"]);
        keys(&mut app, "W30x\n");
        let error = app.input.as_ref().and_then(|input| input.error.clone());
        assert_eq!(error.as_deref(), Some("\"30x\": expected 10s to 3650d, as 5m"));
        keys(&mut app, "\u{8}m\n");
        assert_eq!((app.input.is_none(), app.order().ask.window), (true, 1_800_000_000));
        keys(&mut app, "w");
        assert_eq!(app.window, 3_600_000_000);
        keys(&mut app, "W1s\n\u{1b}");
        assert_eq!((app.input.is_none(), app.window), (true, 3_600_000_000));
        keys(&mut app, "W");
        keys(&mut app, &"9".repeat(1_000));
        assert_eq!(app.input.as_ref().map(|input| input.text.len()), Some(INPUT_CHARS_MAX));
    }

    #[test]
    fn the_refresh_stays_within_its_bounds() {
        let mut app = app();
        keys(&mut app, "+");
        assert_eq!(app.order().refresh.as_secs(), 10);
        keys(&mut app, &"-".repeat(20));
        assert_eq!(app.order().refresh.as_secs(), 1);
        keys(&mut app, &"+".repeat(20));
        assert_eq!(app.order().refresh.as_secs(), 3_600);
        // A new refresh alone asks for nothing.
        assert!(!app.is_reading());
    }

    #[test]
    fn an_old_answer_does_not_overwrite_a_newer_question() {
        let mut app = app();
        let old = app.order();
        keys(&mut app, "w");
        assert!(app.is_reading());
        let result = Ok(fixtures::empty());
        let at = fixtures::noon();
        let stale = Answer { number: old.number, ask: old.ask, at, result };
        assert_eq!(app.take(stale), Next::Wait);
        assert_eq!(app.shown().map(|shown| shown.figures.agents.total), Some(15));
        read(&mut app);
        assert!(!app.is_reading());
    }

    #[test]
    fn while_paused_only_r_reads() {
        let mut app = app();
        let number = app.order().number;
        keys(&mut app, "pwa");
        assert_eq!((app.order().number, app.order().is_paused), (number, true));
        keys(&mut app, "r");
        assert_eq!(app.order().number, number + 1);
        read(&mut app);
        keys(&mut app, " ");
        assert_eq!((app.order().number, app.order().is_paused), (number + 2, false));
    }

    #[test]
    fn a_frozen_screen_stays_while_reading_goes_on() {
        let mut app = app();
        keys(&mut app, "f");
        let order = app.order();
        let mut later = fixtures::empty();
        later.at = fixtures::ago(-12);
        let answer =
            Answer { number: order.number, ask: order.ask, at: later.at, result: Ok(later) };
        app.take(answer);
        assert_eq!(app.shown().map(|shown| shown.figures.agents.total), Some(15));
        assert_eq!(app.newer(), Some(fixtures::ago(-12)));
        keys(&mut app, "f");
        assert_eq!(app.shown().map(|shown| shown.figures.agents.total), Some(0));
        assert_eq!(app.newer(), None);
    }

    #[test]
    fn the_list_is_ordered_chosen_from_and_scrolled() {
        let mut app = app();
        keys(&mut app, "a");
        read(&mut app);
        // Ten rows are on screen.
        keys(&mut app, "jjjjjjjjjjjj");
        assert_eq!((app.list.chosen, app.list.top), (12, 3));
        press(&mut app, KeyCode::Home);
        assert_eq!((app.list.chosen, app.list.top), (0, 0));
        press(&mut app, KeyCode::End);
        assert_eq!((app.list.chosen, app.list.top), (14, 5));
        press(&mut app, KeyCode::PageUp);
        press(&mut app, KeyCode::Down);
        assert_eq!((app.list.chosen, app.list.top), (5, 4));
        let orders: Vec<_> = (0..5)
            .map(|_| {
                keys(&mut app, "s");
                (app.list.by, app.list.is_descending)
            })
            .collect();
        use AgentOrder::{Duration, Name, Success, Tasks, Tokens};
        let expected = [(Tokens, true), (Success, true), (Name, false), (Tasks, true)];
        assert_eq!(orders, [&expected[..], &[(Duration, true)]].concat());
        keys(&mut app, "S");
        assert!(!app.order().ask.list.is_descending);
        // Beyond what was read there is nobody to open.
        app.list.chosen = 99;
        assert_eq!(app.agent_at(99), None);
        keys(&mut app, "\n");
        assert_eq!(app.page().screen, Screen::List);
    }

    #[test]
    fn a_store_of_very_many_agents_is_read_in_parts() {
        let mut app = app();
        keys(&mut app, "a");
        let order = app.order();
        let mut figures = fixtures::listed();
        figures.agents.matching = 1_000_000;
        let at = fixtures::noon();
        app.take(Answer { number: order.number, ask: order.ask, at, result: Ok(figures) });
        press(&mut app, KeyCode::End);
        let list = app.order().ask.list;
        assert_eq!((app.list.top, list.first), (999_990, 999_800));
        assert!(list.first + list.rows >= 1_000_000 && list.rows < 1_000);
        // A step within what is read asks for nothing.
        read(&mut app);
        let number = app.order().number;
        app.list = crate::dashboard::live::app::List { chosen: 8, top: 3, ..app.list.clone() };
        keys(&mut app, "j");
        assert_eq!(app.order().number, number);
    }

    #[test]
    fn pages_scroll_no_further_than_their_end() {
        let mut app = app();
        press(&mut app, KeyCode::End);
        assert_eq!(app.page().scroll, 28);
        press(&mut app, KeyCode::PageDown);
        assert_eq!(app.page().scroll, 28);
        press(&mut app, KeyCode::PageUp);
        assert_eq!(app.page().scroll, 17);
        app.drawn(Drawn { body_rows: 30, content_rows: 40, targets: Vec::new() });
        assert_eq!(app.page().scroll, 10);
        let wheel = |kind| MouseEvent { kind, column: 0, row: 0, modifiers: KeyModifiers::NONE };
        app.on_event(&Event::Mouse(wheel(MouseEventKind::ScrollUp)));
        assert_eq!(app.page().scroll, 7);
        assert_eq!(app.on_event(&Event::Mouse(wheel(MouseEventKind::Moved))), Next::Wait);
    }
}
