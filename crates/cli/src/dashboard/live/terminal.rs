//! The terminal: taken for the live view, and given back as it was.
//!
//! Owns raw mode, the alternate screen, the cursor and the mouse. They are given back when the
//! value is dropped, by the hook of panics, and by whoever calls [`give_back`]; once is enough.

use std::io::{self, BufWriter, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::app::App;
use super::theme::Theme;
use super::view;

/// Room for a whole screen, so that it is written in one piece.
const BUFFER_BYTES: usize = 256 << 10;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is taken.
pub(super) struct Taken {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    is_mouse_on: bool,
    /// The signal that ends a stop that was asked for here is on its way.
    is_back_from_stop: bool,
}

impl Taken {
    pub(super) fn take() -> io::Result<Self> {
        give_back_on_panic();
        let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
        // What was done before an error is undone when the value is dropped.
        let mut taken = Self {
            terminal: Terminal::new(CrosstermBackend::new(out))?,
            is_mouse_on: false,
            is_back_from_stop: false,
        };
        taken.enter()?;
        Ok(taken)
    }

    fn enter(&mut self) -> io::Result<()> {
        IS_TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        if self.is_mouse_on {
            execute!(io::stdout(), EnableMouseCapture)?;
        }
        self.forget()
    }

    /// Draws what has changed. Does nothing once the terminal was given back.
    pub(super) fn draw(&mut self, app: &mut App, theme: &Theme) -> io::Result<()> {
        if !IS_TAKEN.load(Ordering::SeqCst) {
            return Ok(());
        }
        if app.is_mouse_on != self.is_mouse_on {
            self.is_mouse_on = app.is_mouse_on;
            if self.is_mouse_on {
                execute!(io::stdout(), EnableMouseCapture)?;
            } else {
                execute!(io::stdout(), DisableMouseCapture)?;
            }
        }
        let mut drawn = None;
        self.terminal.draw(|frame| drawn = Some(view::draw(app, theme, frame)))?;
        app.drawn(drawn.unwrap_or_default());
        Ok(())
    }

    /// Forgets what is on the terminal, so that all of it is drawn again.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where the cursor is: the answer would be among
        // the keys.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Stops this process until it is told to go on.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        give_back();
        emulate_default_handler(SIGTSTP)?;
        self.is_back_from_stop = true;
        self.enter()
    }

    /// Takes the terminal anew after a stop that nobody announced.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_back_from_stop) {
            return Ok(());
        }
        give_back();
        self.enter()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Leaves the terminal as it was found. What cannot be written any more is left out: the
/// terminal may be gone.
pub(super) fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // First, since it does not wait for a terminal that takes no more output.
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    }
}

/// The message of a panic is read on the screen that stays.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
    });
}
