//! Many processes at one store: readers beside writers that seal, archive and expire, any of
//! which is stopped, goes on, or is killed and replaced at a random moment.
//!
//! Writers print each batch that was committed into a pipe; whoever started them appends it to
//! a file outside of the store. A reader reads that file before each look, and the store after:
//! no row of nobody, none changed, none twice; a batch is there whole or not at all, day by
//! day; what was acknowledged before the look, or seen by an earlier one, is there, unless it
//! may have expired. A day takes [`DAY_TAKES`], so that days are archived and expire all the
//! time.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "a file beside the store")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tallystone::testing::trust::rows::{self, DAYS, Found, Hand, LONG, START, days_of, metric};
use tallystone::testing::trust::{Verdict, Violation, ensure};
use tallystone::testing::workload::Random;
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{
    Durability, Error, ErrorKind, ImportSource, MaintenanceRequest, Options, ReadMode, Retention,
    Store, TableRetention, TaskRow, Tiers, Timestamp,
};

const READERS: usize = 8;
const WRITERS: usize = 4;
/// Threads of a writer that append.
const APPENDERS: usize = 2;
/// Time in which the clock of the store goes a day ahead.
const DAY_TAKES: Duration = Duration::from_millis(700);
/// Days after which a row may be gone, from the end of its own.
const KEPT_DAYS: u32 = 5;
/// Every so many batches one is an import.
const IMPORT_EVERY: usize = 16;
/// Batches of an appender on a day, at most, and processes of a case, at most.
const BATCHES_MAX: usize = 1_000;
const PROCESSES_MAX: usize = 10_000;
/// Snapshots that a look may take until one is read before its files go.
const LOOKS_MAX: usize = 100;

const ROLE: &str = "TALLYSTONE_PROCESSES_ROLE";
const PLACE: &str = "TALLYSTONE_PROCESSES_PLACE";
const NUMBER: &str = "TALLYSTONE_PROCESSES_NUMBER";
const BEGAN: &str = "TALLYSTONE_PROCESSES_BEGAN";

/// A clock by which a day takes [`DAY_TAKES`], the same one in every process.
#[derive(Clone, Copy, Debug)]
struct Fast {
    /// When it began, in microseconds since 1970: a moment that all processes know.
    began: i64,
}

impl Fast {
    /// Days that have passed since it began, and microseconds of the one that has not.
    fn micros(&self) -> i64 {
        let day_takes = i64::try_from(DAY_TAKES.as_micros()).unwrap();
        (SystemClock.now().as_micros() - self.began) * (MICROS_PER_DAY / day_takes)
    }

    fn day(&self) -> usize {
        usize::try_from(self.micros() / MICROS_PER_DAY).unwrap()
    }
}

impl Clock for Fast {
    fn now(&self) -> Timestamp {
        // Rows of a day lie in it and the next, and never in the future.
        Timestamp::from_micros(START + DAYS * MICROS_PER_DAY + self.micros()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

fn options(clock: Fast, random: &mut Random) -> Options {
    let durability = match random.below(3) {
        0 => Durability::Sync,
        1 => Durability::Os,
        _ => Durability::Interval(Duration::from_millis(5)),
    };
    Options {
        durability,
        network_file_system: true,
        clock: Arc::new(clock),
        ..rows::options(&Hand::new())
    }
}

// ---------------------------------------------------------------------------------------
// Batches

/// The number of a batch says who wrote it when, and whether it is an import.
fn batch_of(day: usize, process: usize, appender: usize, number: usize) -> usize {
    ((day * PROCESSES_MAX + process) * APPENDERS + appender) * BATCHES_MAX + number
}

fn process_of(batch: usize) -> usize {
    batch / (BATCHES_MAX * APPENDERS) % PROCESSES_MAX
}

fn is_import(batch: usize) -> bool {
    batch % IMPORT_EVERY == IMPORT_EVERY - 1
}

fn rows_of(batch: usize) -> u64 {
    1 + Random::new(batch as u64).below(LONG) + if is_import(batch) { LONG } else { 0 }
}

/// As that of the other campaigns, on the days that follow the batch's own.
fn row_of(batch: usize, row: u64, rows: u64) -> TaskRow {
    let mut task = rows::row_of(batch, row, rows);
    let day = batch / (BATCHES_MAX * APPENDERS * PROCESSES_MAX);
    let later = i64::try_from(day).unwrap_or(0) * MICROS_PER_DAY;
    task.timestamp = Timestamp::from_micros(task.timestamp.as_micros() + later).unwrap();
    task
}

// ---------------------------------------------------------------------------------------
// Children

/// Prints a line at once and whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
    if said.is_err() {
        // Nobody listens: the parent is gone.
        std::process::exit(0);
    }
}

/// What a child does. False when nobody asked for one.
pub(crate) fn child() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let place = std::env::var(PLACE).unwrap();
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    let began = std::env::var(BEGAN).unwrap().parse().unwrap();
    let (place, clock) = (Path::new(&place), Fast { began });
    // The harness of tests does not end its line.
    say("");
    let done = match role.as_str() {
        "write" => write_until_killed(place, clock, number),
        _ => read_until_over(place, clock, number),
    };
    if let Err(found) = done {
        say(&format!("found {}", found.to_string().replace('\n', " ")));
    }
    true
}

fn write_until_killed(place: &Path, clock: Fast, process: usize) -> Verdict {
    let options = options(clock, &mut Random::new(process as u64));
    let dir = place.join("store");
    let store = Store::open_with(&dir, options.clone())?;
    let second = Store::open_with(&dir, options)?;
    // Sealing hands over what appenders hold: a batch in two parts would be two.
    let whole = RwLock::new(());
    std::thread::scope(|scope| {
        let mut threads = vec![scope.spawn(|| maintain_until_killed(&store, &second, &whole))];
        for appender in 0..APPENDERS {
            let (store, whole) = (&store, &whole);
            threads.push(scope.spawn(move || {
                append_until_killed(store, clock, whole, (process, appender)).inspect_err(|found| {
                    say(&format!("found {}", found.to_string().replace('\n', " ")));
                })
            }));
        }
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })
}

fn append_until_killed(
    store: &Store,
    clock: Fast,
    whole: &RwLock<()>,
    (process, appender): (usize, usize),
) -> Verdict {
    let mut random = Random::new((process * APPENDERS + appender) as u64);
    let (mut day, mut number) = (clock.day(), 0);
    loop {
        if day != clock.day() {
            (day, number) = (clock.day(), 0);
        }
        ensure(number < BATCHES_MAX, || "the test itself: too many batches in a day".to_owned())?;
        let batch = batch_of(day, process, appender, number);
        number += 1;
        match append(store, batch, whole, &mut random) {
            Ok(()) => say(&format!("committed {batch}")),
            // Who was stopped for days comes too late; nobody is told of what is in the buffer.
            Err(error) if error.kind() == ErrorKind::PastRetention => std::process::exit(0),
            Err(error) => return Err(Violation::from(error).after("a batch")),
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
    }
}

fn append(
    store: &Store,
    batch: usize,
    whole: &RwLock<()>,
    random: &mut Random,
) -> tallystone::Result<()> {
    let rows = rows_of(batch);
    if is_import(batch) {
        let mut import = store.begin_import(ImportSource {
            name: format!("source {batch}"),
            hash: batch as u128,
            crc32: 0,
            bytes: rows,
            again: false,
        })?;
        for row in 0..rows {
            import.append_task(&metric(&row_of(batch, row, rows)))?;
        }
        return import.commit().map(drop);
    }
    let _whole = whole.read().unwrap();
    let mut appender = store.appender()?;
    for row in 0..rows {
        appender.append_task(&metric(&row_of(batch, row, rows)))?;
    }
    if random.chance(0.2) { appender.flush() } else { appender.commit() }
}

/// Seals what the process wrote, and looks after the whole store through another handle.
fn maintain_until_killed(store: &Store, second: &Store, whole: &RwLock<()>) -> Verdict {
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    // Another process may be at it, and stopped.
    let unless_locked = |error: Error| match error.kind() {
        ErrorKind::Locked => Ok(()),
        _ => Err(Violation::from(error).after("maintenance")),
    };
    loop {
        std::thread::sleep(Duration::from_millis(40));
        {
            let _alone = whole.write().unwrap();
            store.seal().or_else(unless_locked)?;
        }
        second.maintain(&request).map(drop).or_else(unless_locked)?;
    }
}

/// What one reader, or the parent, has heard and seen so far.
struct Sight {
    /// The file of what was acknowledged, and a line of it that has no end yet.
    heard: BufReader<File>,
    rest: String,
    /// Number of processes that were begun.
    begun: usize,
    /// Batches that were heard of since the last look began.
    news: Vec<usize>,
    /// Whether nothing comes any more.
    is_over: bool,
    /// Batches that must be there, until they may have expired; rows of each by day.
    committed: BTreeMap<usize, BTreeMap<i64, u64>>,
    /// Rows of the last look, by batch and day.
    before: BTreeMap<(usize, i64), u64>,
    /// Days with rows that were acknowledged at any time, and how many of them are gone.
    days: BTreeSet<i64>,
    expired: usize,
}

impl Sight {
    fn new(place: &Path) -> Self {
        Self {
            heard: BufReader::new(File::open(place.join("acknowledged")).unwrap()),
            rest: String::new(),
            begun: 0,
            news: Vec::new(),
            is_over: false,
            committed: BTreeMap::new(),
            before: BTreeMap::new(),
            days: BTreeSet::new(),
            expired: 0,
        }
    }

    fn hear(&mut self) {
        while self.heard.read_line(&mut self.rest).unwrap() > 0 && self.rest.ends_with('\n') {
            let (word, number) = self.rest.trim().split_once(' ').unwrap();
            let number = number.parse().unwrap();
            match word {
                "begun" => self.begun = number,
                "committed" => self.news.push(number),
                _ => self.is_over = true,
            }
            self.rest.clear();
        }
    }

    /// Looks at the whole store once. Returns the rows that were checked.
    fn look(&mut self, store: &Store, clock: Fast) -> Verdict<u64> {
        self.hear();
        let days = |batch| days_of(rows_of(batch), |row| row_of(batch, row, rows_of(batch)));
        self.committed.extend(self.news.drain(..).map(|batch| (batch, days(batch))));
        let (found, today) = read(store, clock)?;
        let kept = today - i64::from(KEPT_DAYS);
        // Who wrote since the look began had been begun before.
        self.hear();
        for (batch, rows) in &found.batches {
            let is_somebodys = process_of(*batch) < self.begun && *rows == rows_of(*batch);
            ensure(is_somebodys, || format!("rows that nobody wrote: batch {batch} of {rows}"))?;
            self.check_batch(*batch, &days(*batch), kept, &found)?;
        }
        for (batch, days) in &self.committed {
            for (day, rows) in days.iter().filter(|(day, _)| **day >= kept) {
                let there = found.by_day.get(&(*batch, *day)).copied().unwrap_or(0);
                ensure(there == *rows, || {
                    format!("{there} of {rows} rows of batch {batch}, which was acknowledged")
                })?;
            }
        }
        for ((batch, day), rows) in self.before.iter().filter(|((_, day), _)| *day >= kept) {
            let there = found.by_day.get(&(*batch, *day)).copied().unwrap_or(0);
            ensure(there >= *rows, || {
                format!("{there} rows of batch {batch}, of which {rows} were there before")
            })?;
        }
        self.days.extend(self.committed.values().flat_map(|days| days.keys()));
        let there: BTreeSet<i64> = found.by_day.keys().map(|(_, day)| *day).collect();
        self.expired = self.days.difference(&there).count();
        self.committed.retain(|_, days| days.keys().any(|day| *day >= kept));
        self.before = found.by_day;
        Ok(found.rows)
    }

    /// A batch is there whole or not at all: an import over all days, others day by day.
    fn check_batch(
        &self,
        batch: usize,
        days: &BTreeMap<i64, u64>,
        kept: i64,
        found: &Found,
    ) -> Verdict {
        let mut whole = BTreeSet::new();
        for (day, rows) in days.iter().filter(|(day, _)| **day >= kept) {
            let there = found.by_day.get(&(batch, *day)).copied().unwrap_or(0);
            ensure(there == 0 || there == *rows, || {
                format!("{there} of {rows} rows of batch {batch} on a day")
            })?;
            whole.insert(there == *rows);
        }
        ensure(!is_import(batch) || whole.len() < 2, || format!("a part of import {batch}"))
    }
}

/// Reads the whole store. What is of the day that it returns, or later, had not expired when
/// the snapshot was taken.
///
/// Files go as soon as they are replaced, so a snapshot may be too old by the time it is read;
/// it says so, and then another is taken.
fn read(store: &Store, clock: Fast) -> Verdict<(Found, i64)> {
    let mut read = Err(Violation::new("never read"));
    for _ in 0..LOOKS_MAX {
        let snapshot = store.snapshot()?;
        let today = clock.now().as_micros().div_euclid(MICROS_PER_DAY);
        read = Found::read(&snapshot, row_of).map(|found| (found, today));
        match &read {
            Err(found) if found.kind() == Some(ErrorKind::SnapshotGone) => {}
            _ => return read,
        }
    }
    read
}

fn read_until_over(place: &Path, clock: Fast, number: usize) -> Verdict {
    let dir = place.join("store");
    let mut random = Random::new(number as u64);
    let open = |random: &mut Random| match number % 4 {
        0 => Store::open_untrusted(&dir),
        1 => {
            let options = Options { read_mode: ReadMode::Copied, ..options(clock, random) };
            Store::open_with(&dir, options)
        }
        _ => Store::open_read_only(&dir),
    };
    let mut store = open(&mut random)?;
    let mut sight = Sight::new(place);
    loop {
        let is_last = sight.is_over;
        let rows = sight.look(&store, clock)?;
        say(&format!("checked {rows} {}", sight.expired));
        if is_last {
            return Ok(());
        }
        if random.chance(0.05) {
            store = open(&mut random)?;
        }
        // Writers are to come to write.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
    }
}

// ---------------------------------------------------------------------------------------
// The parent's side

/// What all processes of a case came to.
#[derive(Default)]
pub(crate) struct Seen {
    /// Looks at the whole store, and rows that were checked in them.
    pub(crate) looks: u64,
    pub(crate) rows: u64,
    /// Most days that one reader found gone.
    pub(crate) expired: u64,
    /// Batches that were acknowledged.
    pub(crate) batches: u64,
    pub(crate) stops: u64,
    pub(crate) kills: u64,
    found: Option<Violation>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { looks, rows, expired, batches, stops, kills, .. } = self;
        write!(
            f,
            "{looks} looks, {rows} rows checked, {batches} batches acknowledged, {expired} days \
             expired, {stops} stopped, {kills} killed"
        )
    }
}

/// Where a case is run, and what it has come to.
struct Stage<'a> {
    arguments: &'a [&'a str],
    place: &'a Path,
    clock: Fast,
    acknowledged: Arc<Mutex<File>>,
    seen: Arc<Mutex<Seen>>,
    begun: usize,
}

/// A process, and the thread that hears what it prints.
struct Member {
    child: Child,
    ear: Option<JoinHandle<()>>,
    role: &'static str,
    /// When it goes on, while it is stopped.
    stopped: Option<Duration>,
}

impl Stage<'_> {
    fn note(&self, line: &str) {
        self.acknowledged.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn begin(&mut self, role: &'static str) -> Member {
        let number = self.begun;
        self.begun += 1;
        self.note(&format!("begun {}", self.begun));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(self.arguments)
            .env(ROLE, role)
            .env(PLACE, self.place)
            .env(NUMBER, number.to_string())
            .env(BEGAN, self.clock.began.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (file, seen) = (Arc::clone(&self.acknowledged), Arc::clone(&self.seen));
        let ear = std::thread::spawn(move || {
            let mut line = String::new();
            // The last line may be cut off: it says nothing.
            while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
                hear(&line, &file, &seen);
                line.clear();
            }
        });
        Member { child, ear: Some(ear), role, stopped: None }
    }
}

/// Takes in what a member has printed.
fn hear(line: &str, acknowledged: &Mutex<File>, seen: &Mutex<Seen>) {
    let mut words = line.split_whitespace();
    let word = words.next();
    let mut next = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    match word {
        Some("committed") => {
            acknowledged.lock().unwrap().write_all(line.as_bytes()).unwrap();
            seen.lock().unwrap().batches += 1;
        }
        Some("checked") => {
            let mut seen = seen.lock().unwrap();
            seen.looks += 1;
            seen.rows += next();
            seen.expired = seen.expired.max(next());
        }
        Some("found") => {
            seen.lock().unwrap().found.get_or_insert(Violation::new(line.trim()));
        }
        _ => {}
    }
}

impl Member {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        // One that has ended is waited for yet, so that the number is its own.
        let _ = kill_process(pid, signal);
    }

    /// Ends it, and hears all that it said. One that ended by itself may have come too late.
    fn kill(&mut self) -> Verdict {
        // An error means that it has ended.
        let _ = self.child.kill();
        self.end()
    }

    fn end(&mut self) -> Verdict {
        let status = self.child.wait().unwrap();
        self.ear.take().map(JoinHandle::join).transpose().unwrap();
        let role = self.role;
        ensure(status.code().is_none_or(|code| code == 0), || format!("{role}: {status}"))
    }

    /// Waits until it ends by itself.
    fn finish(mut self, patience: Duration) -> Verdict {
        let until = SystemClock.elapsed() + patience;
        while self.child.try_wait().unwrap().is_none() {
            if SystemClock.elapsed() > until {
                return Err(Violation::new(format!("{}: it does not end", self.role)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Ended already, unless something was found.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets eight readers and four writers have a store in `place` for a while, and stops and
/// kills them. They are this program, started with `arguments`, in which it calls [`child`].
pub(crate) fn read_beside_writers(
    arguments: &[&str],
    place: &Path,
    takes: Duration,
    seed: u64,
) -> Verdict<Seen> {
    let mut random = Random::new(seed);
    let clock = Fast { began: SystemClock.now().as_micros() };
    let dir = place.join("store");
    let store = Store::open_with(&dir, options(clock, &mut random))?;
    let tiers = Tiers { detailed_days: 2, archive_days: KEPT_DAYS, hourly_days: 0, daily_days: 0 };
    let task = TableRetention::Tiers(tiers);
    store.set_retention(&Retention { task, ..Retention::KEEP })?;
    store.close()?;
    let acknowledged =
        OpenOptions::new().create(true).append(true).open(place.join("acknowledged")).unwrap();
    let mut stage = Stage {
        arguments,
        place,
        clock,
        acknowledged: Arc::new(Mutex::new(acknowledged)),
        seen: Arc::default(),
        begun: 0,
    };
    let roles =
        (0..READERS + WRITERS).map(|member| if member < READERS { "read" } else { "write" });
    let mut members: Vec<Member> = roles.map(|role| stage.begin(role)).collect();
    disturb(&mut stage, &mut members, takes, &mut random)?;
    // Whatever writers have been told is known from here on, and readers look once more.
    let (readers, mut writers): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.role == "read");
    writers.iter_mut().try_for_each(Member::kill)?;
    stage.note("over 0");
    readers.into_iter().try_for_each(|reader| reader.finish(Duration::from_secs(60)))?;
    let mut seen = std::mem::take(&mut *stage.seen.lock().unwrap());
    if let Some(found) = seen.found.take() {
        return Err(found);
    }
    check_left(place, clock, &mut random)?;
    Ok(seen)
}

/// Stops members and lets them go on, or kills them and begins others.
fn disturb(
    stage: &mut Stage<'_>,
    members: &mut [Member],
    takes: Duration,
    random: &mut Random,
) -> Verdict {
    let over = SystemClock.elapsed() + takes;
    while SystemClock.elapsed() < over {
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        let now = SystemClock.elapsed();
        for member in members.iter_mut() {
            if member.stopped.is_some_and(|until| until <= now) {
                member.stopped = None;
                member.signal(Signal::CONT);
            }
            if member.child.try_wait().unwrap().is_some() {
                member.end()?;
                *member = stage.begin(member.role);
            }
        }
        if let Some(found) = stage.seen.lock().unwrap().found.take() {
            return Err(found);
        }
        let index = usize::try_from(random.below(members.len() as u64)).unwrap();
        let member = &mut members[index];
        if random.chance(0.6) {
            member.signal(Signal::STOP);
            member.stopped = Some(now + Duration::from_micros(random.below(400_000)));
            stage.seen.lock().unwrap().stops += 1;
        } else {
            member.kill()?;
            *member = stage.begin(member.role);
            stage.seen.lock().unwrap().kills += 1;
        }
    }
    members.iter().for_each(|member| member.signal(Signal::CONT));
    Ok(())
}

/// When all are gone: what they left is whole, also when it was sealed and archived.
fn check_left(place: &Path, clock: Fast, random: &mut Random) -> Verdict {
    let dir = place.join("store");
    let mut sight = Sight::new(place);
    sight.look(&Store::open_read_only(&dir)?, clock).map_err(|found| found.after("left"))?;
    let store = Store::open_with(&dir, options(clock, random))?;
    sight.look(&store, clock).map_err(|found| found.after("opened"))?;
    store.seal()?;
    sight.look(&store, clock).map_err(|found| found.after("sealed"))?;
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    store.maintain(&request)?;
    sight.look(&store, clock).map_err(|found| found.after("maintained"))?;
    let report = store.verify(true)?;
    ensure(report.problems.is_empty(), || format!("{:?}", report.problems))?;
    Ok(store.close()?)
}
