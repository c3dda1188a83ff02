//! Several processes at one store: writers beside writers, readers beside both, a store made
//! by many at once, and sealing while others write.
//!
//! The test binary starts itself again in the role that `TALLYSTONE_ROLE` names. Children
//! say on their output what they have done, and take orders on their input.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{Appender, Filter, Limit, Options, Store, Table, TaskMetric, TaskRow, Timestamp};

#[path = "../benches/trust/processes.rs"]
mod crowd;

const CHILD: [&str; 4] = ["--exact", "child", "--nocapture", "--test-threads=1"];
const ROLE: &str = "TALLYSTONE_ROLE";
const DIR: &str = "TALLYSTONE_ROLE_DIR";
const WRITER: &str = "TALLYSTONE_ROLE_WRITER";
/// The end of the days of the rows, so that a midnight changes none of them.
const END: &str = "TALLYSTONE_ROLE_END";

fn options() -> Options {
    Options {
        buffer_rows: 50,
        flush_interval: Duration::from_millis(5),
        roll_rows: 400,
        block_rows: 64,
        small_hour_rows: 16,
        unlink_grace: Duration::from_millis(500),
        ..Options::default()
    }
}

/// The row that a writer writes as its `seq`th.
fn row_of(end: i64, writer: usize, seq: u64) -> TaskRow {
    let number = i64::try_from(writer as u64 * 10_000_000 + seq).unwrap();
    let moment = (number * 7_919_000_003).rem_euclid(2 * MICROS_PER_DAY);
    TaskRow {
        timestamp: Timestamp::from_micros(end - moment - 1).unwrap(),
        task_id: format!("{writer}-{seq}"),
        agent_id: format!("agent-{}", number % 7),
        duration_ms: (number % 5 != 0).then_some(number * 31),
        tokens_used: (number % 3 != 0).then_some(number % 5_003),
        success: number % 11 != 0,
        metadata: (number % 4 == 0).then(|| format!("{{\"number\":{number}}}")),
    }
}

fn append(appender: &mut Appender, row: &TaskRow) {
    let metric = TaskMetric {
        timestamp: row.timestamp,
        task_id: &row.task_id,
        agent_id: &row.agent_id,
        duration_ms: row.duration_ms,
        tokens_used: row.tokens_used,
        success: row.success,
        metadata: row.metadata.as_deref(),
    };
    appender.append_task(&metric).unwrap();
}

/// Reads a whole snapshot: every row right, none twice. Returns which there are.
fn read(store: &Store, end: i64) -> HashSet<(usize, u64)> {
    let snapshot = store.snapshot().unwrap();
    let filter = Filter { strict: true, limit: Limit::All, ..Filter::new() };
    let rows = snapshot.task_metrics(&filter).unwrap().rows;
    assert_eq!(snapshot.rows(Table::Task), rows.len() as u64);
    let mut seen = HashSet::with_capacity(rows.len());
    for row in rows {
        let (writer, seq) = row.task_id.split_once('-').unwrap();
        let key = (writer.parse().unwrap(), seq.parse().unwrap());
        assert_eq!(row, row_of(end, key.0, key.1), "a row has changed");
        assert!(seen.insert(key), "row {key:?} is there twice");
    }
    seen
}

/// What a reader looks at: all rows up to these are there.
fn check_upto(seen: &HashSet<(usize, u64)>, upto: &[u64]) {
    for (writer, upto) in upto.iter().enumerate() {
        let lost = (1..=*upto).find(|seq| !seen.contains(&(writer, *seq)));
        assert_eq!(lost, None, "a row of writer {writer} is lost, {upto} were acknowledged");
    }
}

// ---------------------------------------------------------------------------------------
// Children

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // When nobody listens, the parent is gone, and its temporary directory too.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

fn hear() -> Option<String> {
    let mut line = String::new();
    let bytes = std::io::stdin().read_line(&mut line).unwrap();
    (bytes > 0).then(|| line.trim().to_owned())
}

/// Not a test: what a child does. Nothing when nobody asks for it.
#[test]
fn child() {
    if crowd::child() {
        return;
    }
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = std::env::var(DIR).unwrap();
    let writer: usize = std::env::var(WRITER).unwrap().parse().unwrap();
    let end: i64 = std::env::var(END).unwrap().parse().unwrap();
    say("");
    match role.as_str() {
        "obey" => obey(Path::new(&dir), end, writer),
        other => panic!("role {other}"),
    }
}

/// Does what it is told, line by line, and says so.
fn obey(dir: &Path, end: i64, writer: usize) {
    let mut open: Option<(Store, Appender)> = None;
    let mut seq = 0;
    while let Some(order) = hear() {
        match order.as_str() {
            "open" => {
                let store = Store::open_with(dir, options()).unwrap();
                let appender = store.appender().unwrap();
                say(&format!("opened {}", store.id()));
                open = Some((store, appender));
            }
            "write" => {
                let (_, appender) = open.as_mut().unwrap();
                for _ in 0..10 {
                    seq += 1;
                    append(appender, &row_of(end, writer, seq));
                }
                appender.flush().unwrap();
                say(&format!("wrote {seq}"));
            }
            "seal" => {
                open.as_ref().unwrap().0.seal().unwrap();
                say("sealed");
            }
            "close" => {
                open.take().unwrap().0.close().unwrap();
                say("closed");
            }
            other => panic!("order {other}"),
        }
    }
}

// ---------------------------------------------------------------------------------------
// The parent's side

struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, dir: &Path, end: i64, writer: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(CHILD)
            .env(ROLE, role)
            .env(DIR, dir)
            .env(END, end.to_string())
            .env(WRITER, writer.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, orders, lines }
    }

    fn order(&mut self, order: &str) {
        self.orders.as_mut().unwrap().write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// What follows `word` in the next line that begins with it.
    fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = self.lines.read_line(&mut line).unwrap();
            assert!(bytes > 0, "the child has ended before it said {word:?}");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn obey(&mut self, order: &str, word: &str) -> String {
        self.order(order);
        self.hear(word)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets the child come to its end.
    fn finish(mut self) {
        drop(self.orders.take());
        let mut rest = String::new();
        while self.lines.read_line(&mut rest).unwrap() > 0 {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "a child failed: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn end() -> i64 {
    SystemClock.now().partition().range().start
}

/// Files of the kind, and rows in them.
fn kind(store: &Store, kind: &str) -> (u64, u64) {
    let stats = store.stats().unwrap();
    let of_kind = stats.tables.iter().filter(|table| table.kind == kind);
    of_kind.fold((0, 0), |(files, rows), table| (files + table.files, rows + table.rows))
}

/// A little of what `benches/trust` does for hours.
#[test]
fn readers_beside_writers_see_what_was_acknowledged_whoever_is_stopped_or_killed() {
    // A busy machine may not get to expire a day in the first time, nor one that looks for races.
    let mut runs = [5, 25, 100].map(Duration::from_secs).into_iter().map(|takes| {
        let place = tempfile::tempdir().unwrap();
        let seen = crowd::read_beside_writers(&CHILD, place.path(), takes, 1).unwrap();
        println!("{seen}");
        assert!(seen.looks > 20 && seen.batches > 20, "too little was done: {seen}");
        assert!(seen.kills > 0 && seen.stops > 0, "{seen}");
        seen.expired
    });
    assert!(runs.any(|expired| expired > 0), "no day has expired");
}

#[test]
fn processes_that_make_a_store_at_once_make_one() {
    let end = end();
    for round in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("store");
        let mut processes: Vec<Process> =
            (0..3).map(|writer| Process::start("obey", &place, end, writer)).collect();
        // Started already: they wait for this.
        processes.iter_mut().for_each(|process| process.order("open"));
        let ids: HashSet<String> =
            processes.iter_mut().map(|process| process.hear("opened")).collect();
        assert_eq!(ids.len(), 1, "round {round}: more than one store: {ids:?}");
        processes.iter_mut().for_each(|process| process.order("write"));
        for process in &mut processes {
            assert_eq!(process.hear("wrote"), "10");
        }
        let store = Store::open_read_only(&place).unwrap();
        assert!(ids.contains(&store.id()));
        assert_eq!(read(&store, end).len(), 30, "round {round}");
        processes.iter_mut().for_each(|process| process.order("close"));
        processes.into_iter().for_each(Process::finish);
        assert_eq!(read(&store, end).len(), 30, "round {round}, closed");
    }
}

#[test]
fn sealing_takes_over_from_the_dead_and_not_from_the_living() {
    let (dir, end) = (tempfile::tempdir().unwrap(), end());
    let place = dir.path().join("store");
    let mut living = Process::start("obey", &place, end, 0);
    living.obey("open", "opened");
    assert_eq!(living.obey("write", "wrote"), "10");
    for dead in 1..4 {
        let mut process = Process::start("obey", &place, end, dead);
        process.obey("open", "opened");
        assert_eq!(process.obey("write", "wrote"), "10");
        process.kill();
    }
    let reader = Store::open_read_only(&place).unwrap();
    assert_eq!(kind(&reader, "active").1, 40);
    let store = Store::open_with(&place, options()).unwrap();
    store.seal().unwrap();
    assert_eq!(read(&store, end).len(), 40);
    assert_eq!(kind(&store, "active").1, 10, "the living process keeps its own");
    assert_eq!(kind(&store, "segment").1, 30);
    assert_eq!(living.obey("write", "wrote"), "20");
    assert_eq!(read(&store, end).len(), 50);
    assert_eq!(read(&reader, end).len(), 50);
    // Both seal at once.
    living.order("seal");
    store.seal().unwrap();
    living.hear("sealed");
    assert_eq!(read(&store, end).len(), 50);
    assert_eq!(living.obey("write", "wrote"), "30");
    living.obey("close", "closed");
    living.finish();
    store.seal().unwrap();
    for store in [&store, &reader] {
        let seen = read(store, end);
        check_upto(&seen, &[30, 10, 10]);
        assert_eq!(seen.len(), 60);
        assert_eq!(kind(store, "active"), (0, 0));
    }
}

#[test]
fn two_handles_look_after_a_store_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        maintenance: Some(Duration::from_millis(20)),
        unlink_grace: Duration::ZERO,
        roll_rows: 40,
        ..Options::default()
    };
    let open = || Store::open_with(dir.path().join("store"), options.clone()).unwrap();
    let stores = [open(), open()];
    let (day, now) = (MICROS_PER_DAY, SystemClock.now().as_micros());
    let mut rows = 0u64;
    // Days old enough for archives come while both look after the store.
    for round in 0..60 {
        let store = &stores[round % 2];
        for number in 0..10i64 {
            let stamp = Timestamp::from_micros(now - 10 * day - number * day / 3).unwrap();
            let task_id = format!("{round}-{number}");
            store
                .record_task(&TaskMetric {
                    timestamp: stamp,
                    task_id: &task_id,
                    agent_id: "agent",
                    duration_ms: Some(number),
                    tokens_used: None,
                    success: true,
                    metadata: None,
                })
                .unwrap();
            rows += 1;
        }
        store.commit().unwrap();
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(store.snapshot().unwrap().rows(Table::Task), rows);
    }
    let status = stores.each_ref().map(|store| store.maintenance_status().unwrap());
    assert!(status.iter().map(|status| status.passes).sum::<u64>() > 3, "{status:?}");
    assert!(status.iter().all(|status| status.failed == 0), "{status:?}");
    assert!(stores[0].verify(true).unwrap().problems.is_empty());
    for store in &stores {
        store.close().unwrap();
    }
    let store = open();
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), rows);
    assert!(store.stats().unwrap().tables.iter().any(|kind| kind.kind == "archive"));
}
