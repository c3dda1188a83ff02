//! `kill -9`: what was acknowledged is back, once and right, however often writers are killed.
//!
//! A child's threads write rows that say what they must be, and print how far they are after
//! each commit or flush that returned, into a pipe: the log of what was acknowledged lies
//! outside of the store. The parent ends it at a random moment, opens the store as a reader,
//! as a writer, or to seal, and checks everything that any child of that store acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tallystone::testing::trust::rows::metric;
use tallystone::testing::trust::{Verdict, Violation, ensure};
use tallystone::testing::workload::Random;
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{
    Durability, Filter, Limit, MaintenanceRequest, Options, Retention, Store, Table,
    TableRetention, TaskRow, Tiers, Timestamp,
};

const WRITERS: u64 = 4;
const DIR: &str = "TALLYSTONE_KILL_DIR";
const ROUND: &str = "TALLYSTONE_KILL_ROUND";
/// The end of the days of the rows, so that a midnight changes none of them.
const END: &str = "TALLYSTONE_KILL_END";

/// Small, so that segments end, are sealed and merged all the time.
pub(crate) fn options(random: &mut Random) -> Options {
    let durability = match random.below(3) {
        0 => Durability::Sync,
        1 => Durability::Os,
        _ => Durability::Interval(Duration::from_millis(5)),
    };
    Options {
        durability,
        buffer_rows: 50,
        flush_interval: Duration::from_millis(3),
        roll_rows: 60,
        block_rows: 32,
        small_hour_rows: 8,
        unlink_grace: Duration::ZERO,
        network_file_system: true,
        ..Options::default()
    }
}

/// The row that a writer of a round writes as its `seq`th.
fn row_of(end: i64, round: u64, writer: u64, seq: u64) -> TaskRow {
    let number = i64::try_from((round * WRITERS + writer) * 100_000 + seq).unwrap();
    let moment = number.wrapping_mul(7_919_000_003).rem_euclid(2 * MICROS_PER_DAY);
    TaskRow {
        timestamp: Timestamp::from_micros(end - moment - 1).unwrap(),
        task_id: format!("{round}-{writer}-{seq}"),
        agent_id: format!("agent-{}", number % 7),
        duration_ms: (number % 5 != 0).then_some(number * 31),
        tokens_used: (number % 3 != 0).then_some(number % 5_003),
        success: number % 11 != 0,
        metadata: (number % 4 == 0).then(|| format!("{{\"number\":{number}}}")),
    }
}

/// Prints a line at once and whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // When nobody listens, the parent is gone: the next write ends this process.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// What a child does: it writes until it is killed. False when nobody asked for one.
pub(crate) fn child() -> bool {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return false };
    let round: u64 = round.parse().unwrap();
    let end: i64 = std::env::var(END).unwrap().parse().unwrap();
    let mut random = Random::new(round);
    let store = Store::open_with(dir, options(&mut random)).unwrap();
    // Every day that is over becomes an archive, in which every row stays.
    let tiers =
        Tiers { detailed_days: 0, archive_days: Tiers::DAYS_MAX, hourly_days: 0, daily_days: 0 };
    let task = TableRetention::Tiers(tiers);
    let retention = Retention { task, ..Retention::KEEP };
    if store.retention().unwrap() != retention {
        store.set_retention(&retention).unwrap();
    }
    say("\nopen");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || write(store, end, round, writer));
        }
    });
    true
}

fn maintain(store: &Store) -> tallystone::Result<()> {
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    store.maintain(&request).map(drop)
}

/// Writes until it is killed, or its disk is gone. `synced` is what a power cut leaves;
/// `written` is what a kill leaves.
fn write(store: &Store, end: i64, round: u64, writer: u64) {
    let mut random = Random::new(round * WRITERS + writer);
    let Ok(mut appender) = store.appender() else { return };
    for seq in 1.. {
        if appender.append_task(&metric(&row_of(end, round, writer, seq))).is_err() {
            return;
        }
        let (done, said) = match random.below(60) {
            0..4 => (appender.flush(), "synced"),
            4..8 => (appender.commit(), "written"),
            8 => (store.flush(), "synced"),
            9 if writer == 0 => (store.seal(), "written"),
            10..14 if writer == 1 => (maintain(store), "written"),
            _ => continue,
        };
        match done {
            Ok(()) => say(&format!("{said} {writer} {seq}")),
            Err(error) => return say(&format!("failed {writer} {error:?}")),
        }
    }
}

/// A writing process, and the lines it prints.
pub(crate) struct Writer {
    pub(crate) child: Child,
    lines: Receiver<Line>,
    round: u64,
}

/// A line that a child printed, and when it was read.
#[derive(Debug)]
pub(crate) struct Line {
    read: Instant,
    text: String,
}

impl Writer {
    /// Starts this program again with these arguments, in which it must call [`child`].
    pub(crate) fn start(arguments: &[&str], dir: &Path, end: i64, round: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(DIR, dir)
            .env(END, end.to_string())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // The last line may be cut off: it says nothing.
            while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
                let said = Line { read: Instant::now(), text: std::mem::take(&mut line) };
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, round }
    }

    /// Waits until the store is open.
    pub(crate) fn wait_until_open(&self) -> Verdict {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.text == "open\n" => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err(Violation::new("a writer does not come to open the store")),
            }
        }
    }

    /// Kills it, and notes what it had acknowledged. A writer that ended by itself has found
    /// something, unless `may_end`: its disk is gone.
    pub(crate) fn kill(self, acknowledged: &mut Acknowledged, may_end: bool) -> Verdict {
        let round = self.round;
        let (status, lines) = self.end();
        acknowledged.note(round, &lines, Instant::now(), may_end)?;
        ensure(may_end || status.code().is_none(), || format!("a writer ended: {status}"))
    }

    /// Kills it; returns how it ended, and what it had said.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Line>) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        // The pipe has ended: everything that was said is read.
        (status, self.lines.into_iter().collect())
    }
}

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledged {
    /// By round and writer: rows.
    pub(crate) upto: BTreeMap<(u64, u64), u64>,
    /// Whether only what was synced counts, since the power went.
    pub(crate) only_synced: bool,
}

impl Acknowledged {
    /// Takes in what had been read of a writer of a round at a moment. That a call failed is
    /// something found, unless `may_fail`.
    pub(crate) fn note(
        &mut self,
        round: u64,
        lines: &[Line],
        moment: Instant,
        may_fail: bool,
    ) -> Verdict {
        for Line { text, .. } in lines.iter().filter(|line| line.read <= moment) {
            let mut words = text.split_whitespace();
            let only_written = match words.next() {
                Some("synced") => false,
                Some("written") => true,
                Some("failed") if !may_fail => return Err(Violation::new(text.trim().to_owned())),
                _ => continue,
            };
            if !only_written || !self.only_synced {
                let mut next = || words.next().unwrap().parse::<u64>().unwrap();
                let (writer, seq) = (next(), next());
                self.upto.insert((round, writer), seq);
            }
        }
        Ok(())
    }
}

/// Checks every row, and that all that was acknowledged is there. Returns the rows.
pub(crate) fn check(store: &Store, end: i64, acknowledged: &Acknowledged) -> Verdict<u64> {
    let snapshot = store.snapshot()?;
    let filter = Filter { strict: true, limit: Limit::All, ..Filter::new() };
    let rows = snapshot.task_metrics(&filter)?.rows;
    let mut seen = HashSet::new();
    for row in &rows {
        let mut parts = row.task_id.split('-').map(|part| part.parse::<u64>().unwrap());
        let mut next = || parts.next().unwrap();
        let key = (next(), next(), next());
        let expected = row_of(end, key.0, key.1, key.2);
        ensure(*row == expected, || format!("a row has changed: {row:?}"))?;
        ensure(seen.insert(key), || format!("row {key:?} is there twice"))?;
    }
    for ((round, writer), upto) in &acknowledged.upto {
        for seq in 1..=*upto {
            ensure(seen.contains(&(*round, *writer, seq)), || {
                format!(
                    "row {seq} of writer {writer} of round {round} is lost, {upto} were acknowledged"
                )
            })?;
        }
    }
    let count = rows.len() as u64;
    ensure(snapshot.rows(Table::Task) == count, || "the files say more rows".to_owned())?;
    Ok(count)
}

/// What a store went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survived {
    pub(crate) kills: u64,
    pub(crate) torn: u64,
    pub(crate) rows: u64,
    pub(crate) acknowledged: u64,
}

/// Makes a store in `place` and kills its writer in each of the rounds, each with rows of its
/// own, and checks it after each.
pub(crate) fn kill_again_and_again(
    arguments: &[&str],
    place: &Path,
    rounds: std::ops::Range<u64>,
) -> Verdict<Survived> {
    let end = SystemClock.now().partition().range().start;
    let mut random = Random::new(rounds.start ^ 9);
    let mut acknowledged = Acknowledged::default();
    let mut survived = Survived::default();
    for round in rounds {
        let writer = Writer::start(arguments, place, end, round);
        if !random.chance(0.2) {
            // Most rounds begin to count when the store is open.
            writer.wait_until_open()?;
        }
        // A few live long enough for a pass of maintenance.
        let most = if random.chance(0.2) { 300_000 } else { 60_000 };
        std::thread::sleep(Duration::from_micros(random.below(most)));
        writer.kill(&mut acknowledged, false)?;
        survived.kills += 1;
        let how = round % 3;
        if how == 0 && acknowledged.upto.is_empty() {
            // A child that was killed before it had made a store left nothing to read.
            continue;
        }
        let story = format!("round {round}, opened in way {how}");
        let looked = look(place, end, how, &acknowledged, &mut random);
        let (rows, torn) = looked.map_err(|found| found.after(&story))?;
        (survived.rows, survived.torn) = (rows, survived.torn + torn);
    }
    let store = Store::open_with(place, options(&mut random))?;
    store.seal()?;
    survived.rows = check(&store, end, &acknowledged)?;
    let report = store.verify(true)?;
    ensure(report.problems.is_empty(), || format!("{:?}", report.problems))?;
    survived.acknowledged = acknowledged.upto.values().sum();
    Ok(survived)
}

/// Opens the store after a kill, as a reader, as a writer, or to seal and archive.
fn look(
    place: &Path,
    end: i64,
    how: u64,
    acknowledged: &Acknowledged,
    random: &mut Random,
) -> Verdict<(u64, u64)> {
    let store = match how {
        0 => Store::open_read_only(place),
        _ => Store::open_with(place, options(random)),
    }?;
    let torn = u64::from(store.recovery().torn_tail_bytes > 0);
    let rows = check(&store, end, acknowledged)?;
    if how == 2 {
        store.seal()?;
        let sealed = check(&store, end, acknowledged).map_err(|found| found.after("sealed"))?;
        maintain(&store)?;
        let archived = check(&store, end, acknowledged).map_err(|it| it.after("archived"))?;
        ensure((sealed, archived) == (rows, rows), || {
            format!("{rows} rows, {sealed} when sealed, {archived} when archived")
        })?;
    }
    if how > 0 {
        store.close()?;
    }
    Ok((rows, torn))
}
