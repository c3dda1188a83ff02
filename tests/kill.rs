//! `kill -9`: what was acknowledged is back, once and right, however often writers are killed.
//!
//! The test binary starts itself again as a child whose threads write rows that say what
//! they must be, and print how far they are after each commit or flush that returned. The
//! parent kills it at a random moment, opens the store as a reader, as a writer, or to seal,
//! and checks everything that any child of that store has acknowledged.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tallystone::testing::workload::Random;
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{
    Durability, Filter, Limit, MaintenanceRequest, Options, Retention, Store, Table,
    TableRetention, TaskMetric, TaskRow, Tiers, Timestamp,
};

const ROUNDS: u64 = 200;
/// After so many rounds a new store is begun, so that checking stays quick.
const ROUNDS_OF_A_STORE: u64 = 10;
const WRITERS: u64 = 4;
const DIR: &str = "TALLYSTONE_KILL_DIR";
const ROUND: &str = "TALLYSTONE_KILL_ROUND";
/// The end of the days of the rows, so that a midnight changes none of them.
const END: &str = "TALLYSTONE_KILL_END";

/// Small, so that segments end, are sealed and merged all the time.
fn options(random: &mut Random) -> Options {
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
        ..Options::default()
    }
}

/// The row that a writer of a round writes as its `seq`th.
fn row_of(end: i64, round: u64, writer: u64, seq: u64) -> TaskRow {
    let number = i64::try_from((round * WRITERS + writer) * 100_000 + seq).unwrap();
    let moment = (number * 7_919_000_003).rem_euclid(2 * MICROS_PER_DAY);
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

fn metric(row: &TaskRow) -> TaskMetric<'_> {
    TaskMetric {
        timestamp: row.timestamp,
        task_id: &row.task_id,
        agent_id: &row.agent_id,
        duration_ms: row.duration_ms,
        tokens_used: row.tokens_used,
        success: row.success,
        metadata: row.metadata.as_deref(),
    }
}

/// Prints a line at once and whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // When nobody listens, the parent is gone: the next write ends this process.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Not a test: what a child does. Nothing when nobody asks for it.
#[test]
fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
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
}

/// Writes until it is killed.
fn write(store: &Store, end: i64, round: u64, writer: u64) {
    let mut random = Random::new(round * WRITERS + writer);
    let mut appender = store.appender().unwrap();
    for seq in 1.. {
        appender.append_task(&metric(&row_of(end, round, writer, seq))).unwrap();
        match random.below(60) {
            0..4 => appender.flush().unwrap(),
            4..8 => appender.commit().unwrap(),
            8 => store.flush().unwrap(),
            9 if writer == 0 => store.seal().unwrap(),
            10..14 if writer == 1 => {
                let request =
                    MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
                store.maintain(&request).unwrap();
            }
            _ => continue,
        }
        say(&format!("ack {writer} {seq}"));
    }
}

/// A child, and the lines it prints.
fn start(dir: &Path, end: i64, round: u64) -> (Child, mpsc::Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(END, end.to_string())
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // The last line may be cut off: it says nothing.
        while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    (child, receiver)
}

/// By round and writer: rows that were acknowledged.
type Acknowledged = BTreeMap<(u64, u64), u64>;

fn check(store: &Store, end: i64, acknowledged: &Acknowledged, story: &str) -> usize {
    let snapshot = store.snapshot().unwrap_or_else(|e| panic!("{story}: {e}"));
    let filter = Filter { strict: true, limit: Limit::All, ..Filter::new() };
    let rows = snapshot.task_metrics(&filter).unwrap_or_else(|e| panic!("{story}: {e}")).rows;
    let mut seen = HashSet::new();
    for row in &rows {
        let mut parts = row.task_id.split('-').map(|part| part.parse::<u64>().unwrap());
        let mut next = || parts.next().unwrap();
        let key = (next(), next(), next());
        assert_eq!(*row, row_of(end, key.0, key.1, key.2), "{story}: a row has changed");
        assert!(seen.insert(key), "{story}: row {key:?} is there twice");
    }
    for ((round, writer), upto) in acknowledged {
        for seq in 1..=*upto {
            assert!(
                seen.contains(&(*round, *writer, seq)),
                "{story}: row {seq} of writer {writer} of round {round} is lost, {upto} were acknowledged"
            );
        }
    }
    assert_eq!(snapshot.rows(Table::Task), rows.len() as u64, "{story}");
    rows.len()
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let begun = SystemClock.elapsed();
    let end = SystemClock.now().partition().range().start;
    let mut random = Random::new(9);
    let (mut kills, mut rows, mut acknowledged_rows, mut torn, mut archived) = (0, 0, 0, 0, 0);
    let mut dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        if round % ROUNDS_OF_A_STORE == 0 {
            dir = tempfile::tempdir().unwrap();
            acknowledged.clear();
        }
        let place = dir.path().join("store");
        let (mut child, lines) = start(&place, end, round);
        let early = random.chance(0.2);
        if !early {
            // Most rounds begin to count when the store is open.
            while lines.recv_timeout(Duration::from_secs(30)).unwrap() != "open\n" {}
        }
        // A few live long enough for a pass of maintenance.
        let most = if random.chance(0.2) { 300_000 } else { 60_000 };
        std::thread::sleep(Duration::from_micros(random.below(most)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.code().is_none(), "round {round}: the child ended by itself: {status}");
        kills += 1;
        // The pipe has ended: everything that was said is read.
        for line in lines {
            let mut words = line.split_whitespace();
            if words.next() != Some("ack") {
                continue;
            }
            let mut next = || words.next().unwrap().parse::<u64>().unwrap();
            let (writer, seq) = (next(), next());
            acknowledged.insert((round, writer), seq);
        }
        let how = round % 3;
        let story = format!("round {round}, opened in way {how}");
        let store = match how {
            // A child that was killed before it had made a store left nothing to read.
            0 if acknowledged.is_empty() => continue,
            0 => Store::open_read_only(&place),
            _ => Store::open_with(&place, options(&mut random)),
        };
        let store = store.unwrap_or_else(|e| panic!("{story}: {e}"));
        torn += u64::from(store.recovery().torn_tail_bytes > 0);
        let mut found = check(&store, end, &acknowledged, &story);
        if how == 2 {
            store.seal().unwrap_or_else(|e| panic!("{story}: sealing: {e}"));
            assert_eq!(check(&store, end, &acknowledged, &format!("{story}, sealed")), found);
            let request =
                MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
            store.maintain(&request).unwrap_or_else(|e| panic!("{story}: maintenance: {e}"));
            assert_eq!(check(&store, end, &acknowledged, &format!("{story}, archived")), found);
        }
        if how > 0 {
            store.close().unwrap();
        }
        drop(store);
        if round % ROUNDS_OF_A_STORE == ROUNDS_OF_A_STORE - 1 {
            let store = Store::open_with(&place, options(&mut random)).unwrap();
            store.seal().unwrap();
            found = check(&store, end, &acknowledged, &format!("{story}, at the end"));
            let report = store.verify(true).unwrap();
            assert!(report.problems.is_empty(), "{story}: {:?}", report.problems);
            let archives = store.stats().unwrap().tables.into_iter();
            archived +=
                archives.filter(|kind| kind.kind == "archive").map(|kind| kind.rows).sum::<u64>();
            rows += found;
            acknowledged_rows += acknowledged.values().sum::<u64>();
        }
    }
    let took = SystemClock.elapsed().saturating_sub(begun);
    println!(
        "{kills} kills, {torn} torn tails, {rows} rows found, {archived} in archives, {acknowledged_rows} acknowledged, 0 lost, {took:.1?}"
    );
    assert!(acknowledged_rows > ROUNDS * 10, "the children write too little");
}
