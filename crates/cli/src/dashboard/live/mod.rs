//! The live view of a store in a terminal.
//!
//! Owns the threads and the loop that joins them. One channel brings everything that happens:
//! keys, answers of the store, signals; the loop changes the state, tells the reader what is
//! wanted, and draws. Nothing is polled: what has nothing to do sleeps.
//!
//! ```text
//! keys, mouse --\                    /--> reader (the store)
//! signals -------+--> App::update --+
//! answers ------/                    \--> view (the terminal)
//! ```

mod app;
#[cfg(test)]
mod fixtures;
mod keys;
mod reader;
#[cfg(test)]
mod screens;
mod terminal;
mod theme;
mod view;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tallystone::Timestamp;

use self::app::{App, Next};
use self::reader::{Answer, Order};
use self::terminal::Taken;
use self::theme::Theme;
use super::figures::Figures;
use super::read::{Ask, Reader};
use crate::args::{DashboardArgs, Globals};
use crate::config::Config;
use crate::failure::{Exit, Failure};

/// How long the end waits for a look at the store that is under way.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Something that happened.
#[derive(Debug)]
enum Message {
    /// A key, the mouse, or a new size of the terminal.
    Event(Event),
    /// The store was looked at.
    Read(Box<Answer>),
    /// A signal asks to end.
    End,
    /// A signal asks to stop for a while.
    Stop,
    /// The process goes on after a stop.
    GoOn,
    /// The terminal is gone.
    Gone,
    /// The reader has panicked.
    Broken,
}

/// Shows the store until told to end.
pub(crate) fn run(
    globals: &Globals,
    args: &DashboardArgs,
    config: Config,
) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "dashboard: standard output is no terminal; --once prints it as text".to_owned(),
        ));
    }
    let mut settings = config.dashboard.clone();
    settings.window = args.window.unwrap_or(settings.window);
    settings.refresh = args.refresh.unwrap_or(settings.refresh);
    let mut app = App::new(globals.store.display().to_string(), &settings, !args.no_mouse);
    let theme = Theme::of_environment(args.ascii);
    // Before the terminal is taken: a wrong directory is told as by every other command.
    let store = Kept {
        dir: globals.store.clone(),
        reader: Some(Reader::open(&globals.store, &config)?),
        config,
    };

    let (send, messages) = channel();
    let (orders, received) = channel();
    let mut taken = Taken::take()?;
    watch_signals(send.clone())?;
    watch_hang_up(send.clone())?;
    read_events(send.clone())?;
    let ended = read_store(store, received, send)?;
    let outcome = show(&mut app, &theme, &mut taken, &orders, &messages);
    drop(taken);
    // So that the states of alerts are written whole, and let go of.
    drop((orders, messages));
    let _ = ended.recv_timeout(LAST_LOOK);
    match outcome {
        Err(Failure::Output(error)) if is_hang_up(&error) => Ok(Exit::Ok),
        outcome => outcome,
    }
}

/// The loop: waits for something to happen, and draws what that changes.
fn show(
    app: &mut App,
    theme: &Theme,
    taken: &mut Taken,
    orders: &Sender<Order>,
    messages: &Receiver<Message>,
) -> Result<Exit, Failure> {
    let mut given = None;
    let mut next = Next::Draw;
    loop {
        match next {
            Next::Wait => {}
            Next::Quit => return Ok(Exit::Ok),
            Next::Draw => taken.draw(app, theme)?,
            Next::Redraw | Next::Suspend => {
                if next == Next::Suspend {
                    taken.stop()?;
                }
                taken.forget()?;
                taken.draw(app, theme)?;
            }
        }
        let order = app.order();
        if given.as_ref() != Some(&order) {
            // A reader that is gone has said so.
            let _ = orders.send(order.clone());
            given = Some(order);
        }
        let Ok(message) = messages.recv() else { return Ok(Exit::Ok) };
        next = match message {
            Message::Event(event) => app.on_event(&event),
            Message::Read(answer) => app.take(*answer),
            Message::End | Message::Gone => Next::Quit,
            Message::Stop => Next::Suspend,
            Message::GoOn => {
                taken.go_on()?;
                Next::Redraw
            }
            Message::Broken => return Err(Failure::Other("reading the store: panicked".into())),
        };
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The store while it can be read; opened anew where it could not.
struct Kept {
    dir: std::path::PathBuf,
    config: Config,
    reader: Option<Reader>,
}

impl Kept {
    fn look(&mut self, ask: &Ask, now: Timestamp) -> Result<Figures, String> {
        let mut look = || {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(Reader::open(&self.dir, &self.config)?),
            };
            reader.read(ask, now)
        };
        look().map_err(|failure: Failure| {
            self.reader = None;
            failure.message().unwrap_or_default()
        })
    }
}

/// Starts the reader. What is returned ends with it.
fn read_store(
    mut store: Kept,
    orders: Receiver<Order>,
    send: Sender<Message>,
) -> Result<Receiver<()>, Failure> {
    let (ending, ended) = channel();
    spawn("reader", move || {
        let _ending: Sender<()> = ending;
        let broken = Broken(send.clone());
        reader::run(&orders, &send, |ask, now| store.look(ask, now));
        drop(store);
        drop(broken);
    })?;
    Ok(ended)
}

/// Tells of a panic in the reader.
struct Broken(Sender<Message>);

impl Drop for Broken {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Message::Broken);
        }
    }
}

/// Brings keys, the mouse, and new sizes of the terminal.
fn read_events(send: Sender<Message>) -> Result<(), Failure> {
    spawn(
        "keys",
        move || {
            while send.send(event::read().map_or(Message::Gone, Message::Event)).is_ok() {}
        },
    )
}

/// Brings the end of the terminal: those who read keys are not told of it.
fn watch_hang_up(send: Sender<Message>) -> Result<(), Failure> {
    spawn("hang-up", move || {
        let out = io::stdout();
        // Nothing is waited for but what is always told: that the other side is gone.
        let mut watched = [PollFd::new(&out, PollFlags::empty())];
        while poll(&mut watched, None) == Err(rustix::io::Errno::INTR) {}
        let _ = send.send(Message::Gone);
    })
}

/// Brings signals. The second one that asks to end does so at once: the loop may be waiting
/// for a terminal that takes no more output.
fn watch_signals(send: Sender<Message>) -> Result<(), Failure> {
    let all = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT];
    let mut signals = Signals::new(all)?;
    spawn("signals", move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            let message = match signal {
                SIGTSTP => Message::Stop,
                SIGCONT => Message::GoOn,
                _ if is_ending => {
                    let _ = ratatui::crossterm::terminal::disable_raw_mode();
                    let _ = emulate_default_handler(signal);
                    return;
                }
                _ => {
                    is_ending = true;
                    Message::End
                }
            };
            if send.send(message).is_err() {
                return;
            }
        }
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}
