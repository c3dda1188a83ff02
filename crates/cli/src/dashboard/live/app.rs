//! What the live view knows: which page is open, what was read, what is asked next.
//!
//! Pure: messages go in, the state changes, and the loop in the parent looks at the state.
//! Leaves keys to `keys`, drawing to `view`, and reading to `reader`.

use std::time::Duration;

use ratatui::layout::{Position, Rect};
use tallystone::Timestamp;
use tallystone::alert::MetricNames;

use super::reader::{Answer, Order};
use crate::dashboard::figures::Figures;
use crate::dashboard::read::{AgentOrder, Ask, ListAsk};
use crate::dashboard::settings::{Panel, Settings};

/// Agents that are read at once around those on screen, so that a step is no new look at the
/// store.
const LIST_STEP: usize = 100;

/// What is on screen below the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// The panels.
    Overview,
    /// All agents.
    List,
    /// One agent.
    Agent(String),
    /// Keys, marks, and how to record what is not.
    Help,
}

/// A screen, and how far it is scrolled.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) screen: Screen,
    pub(super) scroll: usize,
}

/// The list of all agents, as it was asked for.
#[derive(Clone, Debug)]
pub(super) struct List {
    /// Part of the name of every agent that is listed.
    pub(super) contains: String,
    pub(super) by: AgentOrder,
    pub(super) is_descending: bool,
    /// Index of the chosen agent.
    pub(super) chosen: usize,
    /// Index of the first agent on screen.
    pub(super) top: usize,
}

/// A line that is being typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    pub(super) what: Typed,
    pub(super) text: String,
    /// What is wrong with it.
    pub(super) error: Option<String>,
}

/// What is being typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Typed {
    /// A length of time.
    #[default]
    Window,
    /// A part of agents' names.
    Filter,
}

/// Figures, and what they answer.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) ask: Ask,
    pub(super) figures: Figures,
}

/// Why the store cannot be read, and since when.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) why: String,
    pub(super) since: Timestamp,
}

/// Where a click leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Agent(String),
    List,
    Sort(AgentOrder),
}

/// What the last drawing came to: how far there is to scroll, and what can be clicked.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// Rows below the header.
    pub(super) body_rows: usize,
    /// Rows that there are to show.
    pub(super) content_rows: usize,
    pub(super) targets: Vec<(Rect, Target)>,
}

impl Drawn {
    pub(super) fn target_at(&self, column: u16, row: u16) -> Option<&Target> {
        let position = Position::new(column, row);
        let hit = |(area, _): &&(Rect, Target)| area.contains(position);
        self.targets.iter().find(hit).map(|(_, target)| target)
    }
}

/// What the loop has to do after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing has changed.
    Wait,
    /// Draw what has changed.
    Draw,
    /// Draw everything.
    Redraw,
    /// Give the terminal back and stop until told to go on.
    Suspend,
    /// End.
    Quit,
}

/// All that the live view knows.
#[derive(Debug)]
pub(super) struct App {
    /// Where the store is.
    pub(super) store: String,
    pub(super) panels: Vec<Panel>,
    pub(super) metrics: MetricNames,
    pub(super) window: i64,
    pub(super) refresh: Duration,
    pub(super) is_paused: bool,
    pub(super) is_mouse_on: bool,
    pub(super) list: List,
    pub(super) input: Option<Input>,
    pub(super) lost: Option<Lost>,
    pub(super) drawn: Drawn,
    /// The overview, and what was opened from it.
    pub(super) pages: Vec<Page>,
    latest: Option<Shown>,
    frozen: Option<Shown>,
    /// Number of the look at the store that is wanted.
    wanted: u64,
    /// Number of the last one that was answered.
    answered: u64,
}

impl App {
    pub(super) fn new(store: String, settings: &Settings, is_mouse_on: bool) -> Self {
        Self {
            store,
            panels: settings.panels.clone(),
            metrics: settings.metrics.clone(),
            window: settings.window,
            refresh: settings.refresh,
            is_paused: false,
            is_mouse_on,
            list: List {
                contains: String::new(),
                by: AgentOrder::Duration,
                is_descending: true,
                chosen: 0,
                top: 0,
            },
            input: None,
            lost: None,
            drawn: Drawn::default(),
            pages: vec![Page { screen: Screen::Overview, scroll: 0 }],
            latest: None,
            frozen: None,
            wanted: 1,
            answered: 0,
        }
    }

    /// What the reader is to do.
    pub(super) fn order(&self) -> Order {
        Order {
            number: self.wanted,
            ask: self.ask(),
            refresh: self.refresh,
            is_paused: self.is_paused,
        }
    }

    fn ask(&self) -> Ask {
        let is_listed = self.pages.iter().any(|page| page.screen == Screen::List);
        let rows = self.drawn.body_rows.max(LIST_STEP) + 2 * LIST_STEP;
        Ask {
            window: self.window,
            list: ListAsk {
                contains: self.list.contains.clone(),
                by: self.list.by,
                is_descending: self.list.is_descending,
                first: self.list.top.saturating_sub(LIST_STEP) / LIST_STEP * LIST_STEP,
                rows: if is_listed { rows } else { 0 },
            },
            agent: self.pages.iter().rev().find_map(|page| match &page.screen {
                Screen::Agent(agent) => Some(agent.clone()),
                _ => None,
            }),
        }
    }

    /// Lets `change` change something, and has the store looked at if that asks for more.
    pub(super) fn changing<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.ask();
        let was_paused = self.is_paused;
        let answer = change(self);
        if !self.is_paused && (was_paused || self.ask() != before) {
            self.look_now();
        }
        answer
    }

    /// Has the store looked at, even while paused.
    pub(super) fn look_now(&mut self) {
        self.wanted += 1;
    }

    /// Whether an answer is being waited for.
    pub(super) fn is_reading(&self) -> bool {
        self.answered < self.wanted
    }

    /// Takes what was read, unless something newer was asked for meanwhile.
    pub(super) fn take(&mut self, answer: Answer) -> Next {
        if answer.number < self.wanted {
            return Next::Wait;
        }
        self.answered = answer.number;
        match answer.result {
            Ok(figures) => {
                self.lost = None;
                self.latest = Some(Shown { ask: answer.ask, figures });
                if self.frozen.is_none() {
                    self.keep_choice_in_list();
                }
            }
            Err(why) => {
                let since = self.lost.take().map_or(answer.at, |lost| lost.since);
                self.lost = Some(Lost { why, since });
            }
        }
        Next::Draw
    }

    /// What is on screen.
    pub(super) fn shown(&self) -> Option<&Shown> {
        self.frozen.as_ref().or(self.latest.as_ref())
    }

    /// When the newest figures are of, if they are not those on screen.
    pub(super) fn newer(&self) -> Option<Timestamp> {
        self.frozen.as_ref().and(self.latest.as_ref()).map(|shown| shown.figures.at)
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Keeps what is on screen, or goes on with the newest.
    pub(super) fn freeze_or_go_on(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => self.latest.clone(),
        };
        self.keep_choice_in_list();
    }

    /// Number of agents that the list has.
    pub(super) fn listed(&self) -> usize {
        self.shown().map_or(0, |shown| shown.figures.agents.matching)
    }

    /// Name of an agent of the list, if it was read.
    pub(super) fn agent_at(&self, index: usize) -> Option<&str> {
        let shown = self.shown()?;
        let row = index.checked_sub(shown.ask.list.first)?;
        shown.figures.agents.listed.get(row).map(|agent| agent.agent_id.as_str())
    }

    pub(super) fn page(&self) -> &Page {
        // The overview is never closed.
        self.pages.last().expect("the overview is there")
    }

    pub(super) fn open(&mut self, screen: Screen) {
        if self.page().screen != screen {
            self.pages.push(Page { screen, scroll: 0 });
        }
    }

    /// Closes a page; the overview stays. Says whether there was one to close.
    pub(super) fn close(&mut self) -> bool {
        let has_more = self.pages.len() > 1;
        if has_more {
            self.pages.pop();
        }
        has_more
    }

    /// Rows of the list on screen: one is the heading of the panel, one those of the columns.
    pub(super) fn list_rows(&self) -> usize {
        self.drawn.body_rows.saturating_sub(2).max(1)
    }

    /// Scrolls the page, or moves the choice in the list, to `place(where it is, most)`.
    pub(super) fn go(&mut self, place: impl FnOnce(usize, usize) -> usize) {
        if self.page().screen == Screen::List {
            let most = self.listed().saturating_sub(1);
            self.list.chosen = place(self.list.chosen, most).min(most);
            self.keep_choice_in_list();
        } else {
            let most = self.drawn.content_rows.saturating_sub(self.drawn.body_rows);
            if let Some(page) = self.pages.last_mut() {
                page.scroll = place(page.scroll, most).min(most);
            }
        }
    }

    /// The chosen agent is one of those that there are, and on screen.
    fn keep_choice_in_list(&mut self) {
        let (rows, listed) = (self.list_rows(), self.listed());
        let list = &mut self.list;
        list.chosen = list.chosen.min(listed.saturating_sub(1));
        let lowest_top = (list.chosen + 1).saturating_sub(rows);
        list.top = list.top.clamp(lowest_top, list.chosen).min(listed.saturating_sub(rows));
    }

    /// What a drawing came to; a page that has become shorter is scrolled back.
    pub(super) fn drawn(&mut self, drawn: Drawn) {
        self.changing(|app| {
            app.drawn = drawn;
            let most = app.drawn.content_rows.saturating_sub(app.drawn.body_rows);
            if let Some(page) = app.pages.last_mut() {
                page.scroll = page.scroll.min(most);
            }
            app.keep_choice_in_list();
        });
    }
}
