//! The live view in a pseudo-terminal: what an operator sees, presses, and is left with.
//!
//! `setsid` of util-linux gives the command a terminal of its own; without it these tests are
//! skipped, and say so.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use tallystone::time::{Clock, SystemClock};
use tallystone::{Store, TaskMetric};
use vt100::{MouseProtocolMode, Parser};

use crate::support::Place;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands on the terminal before the command is started.
const BEFORE: &str = "what was there before";

/// A terminal, and the command in it.
struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
    modes: Termios,
    parser: Parser,
    command: Child,
}

impl Terminal {
    /// Starts the dashboard in a terminal of 80x24. `None` where `setsid` is missing.
    fn start(place: &Place, args: &[&str]) -> Option<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
        let open = || OpenOptions::new().read(true).write(true).custom_flags(flags).open(&name);
        let theirs: OwnedFd = open().unwrap().into();
        tcsetwinsize(&theirs, size(80, 24)).unwrap();
        let modes = tcgetattr(&theirs).unwrap();
        let dashboard = place.command(args);
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(dashboard.get_program()).args(dashboard.get_args());
        command.current_dir(place.path()).env("TALLYSTONE_STORE", place.store());
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        command.stdin(open().unwrap()).stdout(open().unwrap()).stderr(Stdio::piped());
        let Ok(command) = command.spawn() else {
            println!("skipped: no setsid to start a command in a terminal with");
            return None;
        };
        let mut parser = Parser::new(24, 80, 0);
        parser.process(BEFORE.as_bytes());
        Some(Self { ours, theirs, modes, parser, command })
    }

    /// Takes what the command has drawn; waits for it a little.
    fn take_output(&mut self) {
        let mut watched = [PollFd::new(&self.ours, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut watched, Some(&wait)).unwrap() > 0 {
            let mut bytes = [0; 4096];
            let count = rustix::io::read(&self.ours, &mut bytes).unwrap_or(0);
            self.parser.process(&bytes[..count]);
        }
    }

    fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Waits until the screen is as expected.
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) {
        let started = Instant::now();
        while !is_so(&self.text()) {
            assert!(started.elapsed() < PATIENCE, "{what}:\n{}", self.text());
            if self.command.try_wait().unwrap().is_some() {
                let (status, said) = self.end();
                panic!("{what}: {status}, {said}\n{}", self.text());
            }
            self.take_output();
        }
    }

    fn wait_for(&mut self, part: &str) {
        self.wait_until(part, |text| text.contains(part));
    }

    fn wait_for_no(&mut self, part: &str) {
        self.wait_until(&format!("no {part}"), |text| !text.contains(part));
    }

    fn press(&self, keys: &str) {
        rustix::io::write(&self.ours, keys.as_bytes()).unwrap();
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        tcsetwinsize(&self.ours, size(columns, rows)).unwrap();
        self.parser.screen_mut().set_size(rows, columns);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.command), signal).unwrap();
    }

    /// Waits until the command has ended, and returns how, and what it said.
    fn end(&mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.command.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "still there:\n{}", self.text());
            self.take_output();
        };
        self.take_output();
        let mut said = String::new();
        self.command.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }

    /// Whether the terminal is as it was found.
    fn is_given_back(&self) -> bool {
        let screen = self.parser.screen();
        let modes = tcgetattr(self.theirs.as_fd()).unwrap();
        let is_cooked = modes.input_modes == self.modes.input_modes
            && modes.output_modes == self.modes.output_modes
            && modes.local_modes == self.modes.local_modes;
        is_cooked
            && !screen.alternate_screen()
            && !screen.hide_cursor()
            && screen.mouse_protocol_mode() == MouseProtocolMode::None
            && self.text().trim_end() == BEFORE
    }

    fn ends_well(&mut self) {
        let (status, said) = self.end();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
        assert!(self.is_given_back(), "{:?}", self.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing is left to do where it has ended already.
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}

fn record(store: &Store, number: u64) {
    let agent = ["alpha", "beta", "gamma"][usize::try_from(number % 3).unwrap()];
    let task_id = format!("t-{number}");
    let task = TaskMetric {
        timestamp: SystemClock.now(),
        task_id: &task_id,
        agent_id: agent,
        duration_ms: i64::try_from(number % 100 * 7).ok(),
        tokens_used: Some(100),
        success: !number.is_multiple_of(10),
        metadata: None,
    };
    store.record_task(&task).unwrap();
    store.flush().unwrap();
}

/// A store with a few tasks of now.
fn place() -> Place {
    let place = Place::new();
    let store = Store::open(place.store()).unwrap();
    (1..=30).for_each(|number| record(&store, number));
    place
}

/// The number of tasks on the screen.
fn tasks(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("tasks "))?;
    line.split_whitespace().nth(1)?.replace(',', "").parse().ok()
}

#[test]
fn numbers_change_while_another_writes_and_keys_are_pressed() {
    let place = place();
    let Some(mut terminal) = Terminal::start(&place, &["dashboard", "--refresh", "1s"]) else {
        return;
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = Store::open(place.store()).unwrap();
            for number in 31.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                record(&store, number);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            use_all_keys(&mut terminal);
        }));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    terminal.press("q");
    terminal.ends_well();
}

fn use_all_keys(terminal: &mut Terminal) {
    terminal.wait_for("live");
    assert!(terminal.parser.screen().alternate_screen());
    let first = tasks(&terminal.text()).unwrap();
    terminal.wait_until("more tasks", |text| tasks(text) > Some(first));
    terminal.press("w");
    terminal.wait_for("last 1h, with the change");
    terminal.press("?");
    terminal.wait_for("Esc closes this help");
    terminal.press("\u{1b}");
    terminal.wait_for_no("Esc closes this help");
    terminal.press("a");
    terminal.wait_for("agents 3 in the last 1h");
    terminal.press("/ph");
    terminal.wait_for("agents with: ph");
    terminal.wait_for("agents 1 with");
    terminal.wait_for_no("beta");
    terminal.press("\r");
    terminal.wait_for("Enter open");
    terminal.press("\r");
    terminal.wait_for("alpha last 1h");
    terminal.wait_for("slowest tasks");
    terminal.press("\u{1b}");
    terminal.wait_for("agents 1 with");
    terminal.press("\u{1b}");
    terminal.wait_for("gamma");
    terminal.press("\u{1b}");
    terminal.wait_for("summary");
    terminal.resize(120, 40);
    let beside = |text: &str| {
        text.lines().any(|line| line.starts_with("alerts") && line.contains("summary"))
    };
    terminal.wait_until("two columns", beside);
    terminal.press("p");
    terminal.wait_for("paused");
    terminal.press("pf");
    terminal.wait_for("frozen");
    terminal.press("W30m\r");
    terminal.wait_for("last 30m");
    terminal.press("f");
    terminal.wait_for("last 30m, with the change");
}

#[test]
fn signals_end_it_and_give_the_terminal_back() {
    let place = place();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        let Some(mut terminal) = Terminal::start(&place, &["dashboard"]) else { return };
        terminal.wait_for("live");
        assert!(!terminal.is_given_back());
        terminal.signal(signal);
        terminal.ends_well();
    }
}

#[test]
fn a_stop_gives_the_terminal_back_until_it_goes_on() {
    let place = place();
    let Some(mut terminal) = Terminal::start(&place, &["dashboard"]) else { return };
    terminal.wait_for("live");
    for stop in [None, Some(Signal::TSTP)] {
        match stop {
            None => terminal.press("\u{1a}"),
            Some(signal) => terminal.signal(signal),
        }
        let started = Instant::now();
        while !terminal.is_given_back() {
            assert!(started.elapsed() < PATIENCE, "{}", terminal.text());
            terminal.take_output();
        }
        while !is_stopped(&terminal.command) {
            assert!(started.elapsed() < PATIENCE, "not stopped");
            std::thread::sleep(Duration::from_millis(10));
        }
        terminal.signal(Signal::CONT);
        terminal.wait_for("live");
        assert!(!terminal.is_given_back());
    }
    terminal.press("q");
    terminal.ends_well();
}

/// Whether a process is stopped, as the system says.
fn is_stopped(command: &Child) -> bool {
    let ps = Command::new("ps").args(["-o", "stat=", "-p", &command.id().to_string()]).output();
    ps.unwrap().stdout.starts_with(b"T")
}

#[test]
fn it_ends_when_the_terminal_is_gone() {
    let place = place();
    let Some(mut terminal) = Terminal::start(&place, &["dashboard"]) else { return };
    terminal.wait_for("live");
    // Nobody holds the other side any more.
    let other = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    drop(std::mem::replace(&mut terminal.ours, other));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = terminal.command.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < PATIENCE, "still there");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_lost_store_is_told_and_found_again() {
    let place = place();
    let Some(mut terminal) = Terminal::start(&place, &["dashboard", "--refresh", "1s"]) else {
        return;
    };
    terminal.wait_for("live");
    let aside = place.path().join("aside");
    rustix::fs::rename(place.store(), &aside).unwrap();
    terminal.wait_for("lost since");
    // The last figures stay.
    assert_eq!(tasks(&terminal.text()), Some(30));
    rustix::fs::rename(&aside, place.store()).unwrap();
    terminal.wait_for_no("lost since");
    terminal.press("q");
    terminal.ends_well();
}

#[test]
fn without_a_terminal_it_says_what_does_without() {
    let place = place();
    place.run("dashboard").fails(2, &["no terminal", "--once"]);
    let absent = Place::new();
    if let Some(mut terminal) = Terminal::start(&absent, &["dashboard"]) {
        let (status, said) = terminal.end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("expected a store"), "{said}");
        assert!(terminal.is_given_back());
    }
}
