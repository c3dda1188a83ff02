//! What a dashboard costs: itself, and those who write while it looks.
//!
//! `cargo bench -p tallystone-cli --bench dashboard [-- ROWS]` makes a store of seven days,
//! opens the dashboard on it in a pseudo-terminal, and measures processor time per look, with
//! everything that belongs to it: queries, drawing, waking up. Then a writer writes the same
//! rows in turns with and without a dashboard open. Below 100,000 rows it is a short trial.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tallystone::time::{Clock, SystemClock};
use tallystone::{Durability, Options, Store, SwarmMetric, TaskMetric, Timestamp};

/// Rows of the store, and of each turn of the writer.
const ROWS: u64 = 10_000_000;
const TURN_ROWS: u64 = 10_000_000;
/// Turns with, and without.
const TURNS: usize = 5;
/// Looks that are measured, a second apart.
const LOOKS: u64 = 120;
const AGENTS: u64 = 500;
const WEEK: i64 = 7 * 86_400 * 1_000_000;

fn main() {
    let rows: u64 = std::env::args().find_map(|text| text.parse().ok()).unwrap_or(ROWS);
    let is_trial = rows < 100_000;
    let (looks, turns, turn_rows) =
        if is_trial { (2, 1, rows) } else { (LOOKS, TURNS, TURN_ROWS.min(rows)) };
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = scratch.path().join("store");
    let store = fill(&dir, rows);

    let Some(mut dashboard) = Dashboard::open(&dir, "1s") else {
        println!("skipped: no setsid to start a command in a terminal with");
        return;
    };
    // The first looks read what later ones keep.
    thread::sleep(Duration::from_secs(3));
    let mut before = dashboard.processor_time();
    let mut each_second = Vec::new();
    for _ in 0..looks {
        thread::sleep(Duration::from_secs(1));
        let now = dashboard.processor_time();
        each_second.push((now - before).as_secs_f64() * 1_000.0);
        before = now;
    }
    dashboard.close();
    let mean = each_second.iter().sum::<f64>() / looks as f64;
    let most = each_second.iter().copied().fold(0.0, f64::max);
    println!("{rows} rows, {AGENTS} agents, a look each second for {looks} s");
    println!("processor time of a look          {:>8.2} ms, the median", median(&mut each_second));
    println!("                                  {mean:>8.2} ms, the mean");
    println!("                                  {most:>8.2} ms, the largest");
    println!("share of a core at a look in 5 s  {:>8.2} %", mean / 50.0);

    let mut alone = Vec::new();
    let mut watched = Vec::new();
    for _ in 0..turns {
        // What the turn before has written is sealed before the next one begins.
        store.seal().unwrap();
        alone.push(write(&store, turn_rows));
        store.seal().unwrap();
        let mut dashboard = Dashboard::open(&dir, "5s").unwrap();
        thread::sleep(Duration::from_secs(if is_trial { 1 } else { 12 }));
        watched.push(write(&store, turn_rows));
        dashboard.close();
    }
    let (alone, watched) = (median(&mut alone), median(&mut watched));
    println!("one writer, batches of 1,000      {alone:>8.0} rows/s alone");
    println!("while a dashboard looks every 5 s {watched:>8.0} rows/s");
    println!("ratio of the medians of {turns} turns   {:>8.3}", watched / alone);
    store.close().unwrap();
}

/// A store whose tasks end evenly over the last seven days, with what the panels ask for.
fn fill(dir: &Path, rows: u64) -> Store {
    let options = Options { durability: Durability::Os, maintenance: None, ..Options::default() };
    let store = Store::open_with(dir, options).unwrap();
    let now = SystemClock.now().as_micros();
    let mut appender = store.appender().unwrap();
    let mut text = String::new();
    for row in 0..rows {
        let age = i128::from(WEEK) * i128::from(rows - row) / i128::from(rows);
        let stamp = Timestamp::from_micros(now - i64::try_from(age).unwrap()).unwrap();
        appender.append_task(&task(row, stamp, &mut text)).unwrap();
    }
    for (metric_type, value) in [
        ("queue_pending", 12.0),
        ("queue_pending.high", 4.0),
        ("token_budget", 1e12),
        ("agent_token_quota", 1e9),
        ("memory_bytes", 1e9),
    ] {
        let timestamp = Timestamp::from_micros(now - 1).unwrap();
        let swarm_id = "fleet";
        let row = SwarmMetric { timestamp, swarm_id, metric_type, value, metadata: None };
        appender.append_swarm(&row).unwrap();
    }
    appender.commit().unwrap();
    store.seal().unwrap();
    store
}

/// A task; which agent ran it and how it went follow from its number by a multiplicative hash.
fn task(row: u64, timestamp: Timestamp, text: &mut String) -> TaskMetric<'_> {
    use std::fmt::Write as _;
    let mixed = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    text.clear();
    write!(text, "agent-{:03} t{row}", (mixed >> 40) % AGENTS).unwrap();
    let (agent_id, task_id) = text.split_once(' ').unwrap();
    TaskMetric {
        timestamp,
        task_id,
        agent_id,
        duration_ms: i64::try_from(mixed >> 51).ok(),
        tokens_used: i64::try_from(mixed >> 20 & 0xfff).ok(),
        success: mixed & 31 != 0,
        metadata: None,
    }
}

/// Rows a second of one writer that makes each batch visible to others.
fn write(store: &Store, rows: u64) -> f64 {
    let begun = Instant::now();
    let mut appender = store.appender().unwrap();
    let mut text = String::new();
    for row in 0..rows {
        appender.append_task(&task(row, SystemClock.now(), &mut text)).unwrap();
        if row % 1_000 == 999 {
            appender.commit().unwrap();
        }
    }
    appender.commit().unwrap();
    rows as f64 / begun.elapsed().as_secs_f64()
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A dashboard in a terminal of its own.
struct Dashboard {
    command: Child,
    _theirs: OwnedFd,
}

impl Dashboard {
    /// `None` where `setsid` is missing.
    fn open(store: &Path, refresh: &str) -> Option<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
        let open = || OpenOptions::new().read(true).write(true).custom_flags(flags).open(&name);
        let theirs: OwnedFd = open().unwrap().into();
        let size = Winsize { ws_col: 120, ws_row: 40, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        let mut command = Command::new("setsid");
        command.args([
            "--ctty",
            env!("CARGO_BIN_EXE_tallystone"),
            "dashboard",
            "--refresh",
            refresh,
        ]);
        command.arg("--store").arg(store).env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command.stdin(open().unwrap()).stdout(open().unwrap()).stderr(Stdio::null());
        let command = command.spawn().ok()?;
        // Whoever draws waits for those who look.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while rustix::io::read(&ours, &mut bytes).is_ok_and(|count| count > 0) {}
        });
        Some(Self { command, _theirs: theirs })
    }

    /// What its threads have used of all processors so far.
    fn processor_time(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.command.id());
        let threads = std::fs::read_dir(tasks).unwrap().map(|thread| thread.unwrap().path());
        let used = threads.map(|thread| {
            let used = std::fs::read_to_string(thread.join("schedstat")).unwrap();
            used.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(used.sum())
    }

    fn close(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.command);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.command.wait().unwrap().success());
    }
}
