//! Models of what a store's threads do to each other: the engine itself on simulated files,
//! under schedules that `shuttle` chooses, thousands of different ones.
//!
//! Each step between two locks, channels, atomic numbers or operations on files is a point at
//! which any other thread may go on. What is not modelled: weak memory (every order here is
//! sequential; the thread sanitizer looks for those), the time that a wait ends after (it may
//! end at once or never), crossbeam's own channel, SQLite, and real files.
//!
//! `cargo test --release --features shuttle --test models`. `TALLYSTONE_SCHEDULES` says how
//! many schedules each model tries, `TALLYSTONE_SCHEDULES_SEED` from which number on.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Mutex;
use shuttle::thread;
use shuttle::{Config, MaxSteps, Runner};
use tallystone::testing::planted::{Bug, plant};
use tallystone::testing::trust::rows::{
    DAYS, Found, Hand, START, days_of, metric, options, row_of,
};
use tallystone::testing::{CrashPolicy, SimFileSystem, open_store, open_store_read_only};
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock, Timestamp};
use tallystone::{
    Durability, ErrorKind, MaintenanceRequest, Options, Retention, Store, Table, TableRetention,
    Tiers,
};

const DIR: &str = "/store";
const SCHEDULES: &str = "TALLYSTONE_SCHEDULES";
const SEED: &str = "TALLYSTONE_SCHEDULES_SEED";
const BUG: &str = "TALLYSTONE_SCHEDULES_BUG";
/// Stack of each of a model's threads, and steps after which a schedule is taken for endless.
const STACK_BYTES: usize = 1 << 20;
const STEPS_MAX: usize = 10_000_000;
/// Switches of threads at the worst moment, in the schedules that have few.
const SWITCHES: usize = 3;
/// Rows of a batch.
const ROWS: u64 = 3;

/// A clock that stands still: what a schedule does follows from the schedule alone.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + DAYS * MICROS_PER_DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(1)
    }
}

fn still(durability: Durability) -> Options {
    Options { durability, clock: Arc::new(Still), ..options(&Hand::new()) }
}

fn open(fs: &SimFileSystem, durability: Durability) -> Store {
    open_store(fs, Path::new(DIR), still(durability)).unwrap()
}

fn open_beside(fs: &SimFileSystem) -> Store {
    open_store_read_only(fs, Path::new(DIR), still(Durability::Os)).unwrap()
}

/// Batches that were acknowledged.
type Acknowledged = Arc<Mutex<Vec<usize>>>;

fn append(store: &Store, batch: usize, sync: bool) {
    let mut appender = store.appender().unwrap();
    for row in 0..ROWS {
        appender.append_task(&metric(&row_of(batch, row, ROWS))).unwrap();
    }
    if sync { appender.flush() } else { appender.commit() }.unwrap();
}

/// Every row is right, once, and of a whole batch; those of `due` are all there, and so are
/// those that were seen before. Returns what is there, by batch and day.
fn look(store: &Store, due: &[usize], before: &Seen) -> Seen {
    let found = Found::read(&store.snapshot().unwrap(), row_of).unwrap();
    for (batch, rows) in &found.batches {
        assert_eq!(*rows, ROWS);
        let days = days_of(ROWS, |row| row_of(*batch, row, ROWS));
        let there: u64 = days.keys().filter_map(|day| found.by_day.get(&(*batch, *day))).sum();
        assert_eq!(there, ROWS, "batch {batch} is there in part");
    }
    for batch in due {
        assert!(found.batches.contains_key(batch), "batch {batch}, acknowledged, is not there");
    }
    for key in before.keys() {
        assert!(found.by_day.contains_key(key), "{key:?} was there before");
    }
    found.by_day
}

type Seen = BTreeMap<(usize, i64), u64>;

/// Looks twice while others write.
fn read(store: &Store, acknowledged: &Acknowledged) {
    let mut before = Seen::new();
    for _ in 0..2 {
        let due = acknowledged.lock().unwrap().clone();
        before = look(store, &due, &before);
    }
}

// ---------------------------------------------------------------------------------------
// Models

/// Publish and read: appenders, the committer, and readers of this and of another process.
/// Answers are kept and asked for by several threads.
fn publish_and_read() {
    let fs = SimFileSystem::with_seed(1);
    let store = Arc::new(open(&fs, Durability::Os));
    let beside = Arc::new(open_beside(&fs));
    let acknowledged = Acknowledged::default();
    let writers = (0..2).map(|writer| {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        thread::spawn(move || {
            for number in 0..2 {
                let batch = writer * 10 + number;
                append(&store, batch, false);
                acknowledged.lock().unwrap().push(batch);
            }
        })
    });
    let mut threads: Vec<_> = writers.collect();
    for reader in [&store, &beside, &beside] {
        let (reader, acknowledged) = (Arc::clone(reader), Arc::clone(&acknowledged));
        threads.push(thread::spawn(move || read(&reader, &acknowledged)));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.close().unwrap();
    assert_eq!(look(&beside, &[0, 1, 10, 11], &Seen::new()).len(), 4);
}

/// Files are sealed, merged and archived under readers and two writers.
fn swap_under_readers() {
    let fs = SimFileSystem::with_seed(2);
    let store = Arc::new(open(&fs, Durability::Os));
    let tiers =
        Tiers { detailed_days: 0, archive_days: Tiers::DAYS_MAX, hourly_days: 0, daily_days: 0 };
    let task = TableRetention::Tiers(tiers);
    store.set_retention(&Retention { task, ..Retention::KEEP }).unwrap();
    let acknowledged = Acknowledged::default();
    for batch in 0..2 {
        append(&store, batch, false);
        acknowledged.lock().unwrap().push(batch);
    }
    let beside = Arc::new(open_beside(&fs));
    let mut threads = Vec::new();
    for reader in [&store, &beside] {
        let (reader, acknowledged) = (Arc::clone(reader), Arc::clone(&acknowledged));
        threads.push(thread::spawn(move || read(&reader, &acknowledged)));
    }
    // Another process: sealing hands over what this one's appenders hold, batches in part.
    let (writing, told) = (open(&fs, Durability::Os), Arc::clone(&acknowledged));
    threads.push(thread::spawn(move || {
        append(&writing, 2, false);
        told.lock().unwrap().push(2);
        writing.close().unwrap();
    }));
    store.seal().unwrap();
    append(&store, 3, false);
    acknowledged.lock().unwrap().push(3);
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    store.maintain(&request).unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    look(&beside, &[0, 1, 2, 3], &Seen::new());
    store.close().unwrap();
    look(&beside, &[0, 1, 2, 3], &Seen::new());
}

/// Group commit: what one sync answers for is on the disk, whoever asked.
fn commit_together() {
    let fs = SimFileSystem::with_seed(3);
    let store = Arc::new(open(&fs, Durability::Os));
    let threads = (0..3).map(|batch| {
        let (fs, store) = (fs.clone(), Arc::clone(&store));
        thread::spawn(move || {
            append(&store, batch, true);
            let after = fs.crash_image(CrashPolicy::None, 1);
            look(&open_beside(&after), &[batch], &Seen::new());
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.close().unwrap();
}

/// Closing beside rows that come, and closing twice: a row is refused, or there afterwards.
fn close_beside_rows() {
    let fs = SimFileSystem::with_seed(4);
    let store = Arc::new(open(&fs, Durability::Os));
    let writers = (0..2).map(|batch| {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            let accepted =
                (0..ROWS).map(|row| match store.record_task(&metric(&row_of(batch, row, ROWS))) {
                    Ok(()) => 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                        0
                    }
                });
            accepted.sum::<u64>()
        })
    });
    let writers: Vec<_> = writers.collect();
    let closing = Arc::clone(&store);
    let other = thread::spawn(move || closing.close().unwrap());
    store.close().unwrap();
    other.join().unwrap();
    let accepted: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert_eq!(open_beside(&fs).snapshot().unwrap().rows(Table::Task), accepted);
}

/// What threads do, in how many schedules every run of the checks tries it, and the bugs that
/// it is to find.
struct Model {
    name: &'static str,
    threads: fn(),
    schedules: usize,
    bugs: &'static [Bug],
}

const MODELS: [Model; 4] = [
    Model {
        name: "publish and read",
        threads: publish_and_read,
        schedules: 500,
        bugs: &[Bug::AnswerBeforeWrite, Bug::StaleAnswer],
    },
    Model {
        name: "swap under readers",
        threads: swap_under_readers,
        schedules: 500,
        bugs: &[Bug::IgnoreReplaces],
    },
    Model {
        name: "commit together",
        threads: commit_together,
        schedules: 500,
        bugs: &[Bug::AcknowledgeBeforeSync],
    },
    Model {
        name: "close beside rows",
        threads: close_beside_rows,
        schedules: 500,
        bugs: &[Bug::CheckBeforeLock],
    },
];

impl Model {
    /// Runs it: half of the schedules are random, half have few switches, at the worst moments.
    /// Returns how many there were.
    fn run(&self) -> usize {
        let asked = std::env::var(SCHEDULES);
        let schedules = asked.map_or(self.schedules, |text| text.parse().expect("a number"));
        let seed = std::env::var(SEED).map_or(1, |text| text.parse().expect("a number"));
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
        let half = schedules.div_ceil(2);
        let random = RandomScheduler::new_from_seed(seed, half);
        Runner::new(random, config.clone()).run(self.threads);
        let few = PctScheduler::new_from_seed(seed, SWITCHES, half);
        half + Runner::new(few, config).run(self.threads)
    }
}

#[test]
fn no_schedule_breaks_a_promise() {
    let _none = plant(None);
    for model in &MODELS {
        let begun = SystemClock.elapsed();
        let schedules = model.run();
        let took = SystemClock.elapsed().saturating_sub(begun);
        println!("{}: {schedules} schedules, 0 violations, {took:.1?}", model.name);
    }
}

/// Not a test: a model with a bug in it, which fails. Nothing when nobody asks for it.
#[test]
fn child() {
    let Ok(wanted) = std::env::var(BUG) else { return };
    let all = MODELS.iter().flat_map(|model| model.bugs.iter().map(move |bug| (model, *bug)));
    for (model, bug) in all.filter(|(_, bug)| format!("{bug:?}") == wanted) {
        let _planted = plant(Some(bug));
        model.run();
    }
}

/// A schedule that fails leaves threads that are not gone on with: each in its own process.
#[test]
fn models_find_the_bugs_that_are_planted() {
    let bugs: Vec<Bug> = MODELS.iter().flat_map(|model| model.bugs).copied().collect();
    assert!(Bug::RACES.iter().all(|bug| bugs.contains(bug)));
    for bug in bugs {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(BUG, format!("{bug:?}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let mut lines = said.lines().skip_while(|line| !line.contains("panicked at tests/models"));
        let found = lines.nth(1).filter(|_| !output.status.success());
        println!("{bug:?}: {}", found.unwrap_or_else(|| panic!("{bug:?} is not found: {said}")));
    }
}
