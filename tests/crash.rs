//! Crashes: what was flushed is back, once and whole, whatever a power cut or a kill left.
//!
//! Every row says what it must be, so that a verifier needs no copy: the task id is
//! `b<batch>-<row of it>-<rows of it>`, and duration, tokens and stamp follow from it. The
//! workload runs once on the simulated file system; then the store is opened on images of
//! a crash after any of its operations.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tallystone::testing::workload::Random;
use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::{Filter, ImportSource, Options, Store, Table, TaskMetric, TaskRow, Timestamp};

const DAY: i64 = 86_400_000_000;
const START: i64 = 1_794_787_200_000_000;

fn options() -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        roll_rows: 150,
        block_rows: 32,
        small_hour_rows: 8,
        unlink_grace: Duration::ZERO,
        clock: std::sync::Arc::new(Fixed),
        ..Options::default()
    }
}

/// The day after the rows, so that no retention refuses them.
#[derive(Debug)]
struct Fixed;

impl tallystone::time::Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 2 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        tallystone::time::SystemClock.elapsed()
    }
}

/// What is accepted, in batches, and which of them were flushed before which operation.
#[derive(Default)]
struct Ledger {
    /// Rows of each batch.
    batches: Vec<u64>,
    /// After this operation, batches below this number are durable.
    flushed: Vec<(u64, usize)>,
}

fn row_of(batch: usize, row: u64, rows: u64) -> TaskRow {
    let seed = batch as u64 * 1_000 + row;
    TaskRow {
        timestamp: Timestamp::from_micros(START + (seed as i64 * 7_919_000) % (2 * DAY)).unwrap(),
        task_id: format!("b{batch}-{row}-{rows}"),
        agent_id: format!("agent-{}", seed % 5),
        duration_ms: (!seed.is_multiple_of(7)).then_some(seed as i64 * 31 % 10_007),
        tokens_used: (!seed.is_multiple_of(11)).then_some(seed as i64 * 17 % 5_003),
        success: !seed.is_multiple_of(13),
        metadata: seed.is_multiple_of(4).then(|| format!("{{\"seed\":{seed}}}")),
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

impl Ledger {
    fn next_batch(&mut self, random: &mut Random) -> (usize, u64) {
        let rows = 1 + random.below(40);
        self.batches.push(rows);
        (self.batches.len() - 1, rows)
    }

    /// Appends a batch and commits it, as rows.
    fn append(&mut self, store: &Store, random: &mut Random) {
        let (batch, rows) = self.next_batch(random);
        let mut appender = store.appender().unwrap();
        for row in 0..rows {
            appender.append_task(&metric(&row_of(batch, row, rows))).unwrap();
        }
        appender.commit().unwrap();
    }

    /// Imports a batch: durable when it returns.
    fn import(&mut self, store: &Store, random: &mut Random) {
        let (batch, rows) = self.next_batch(random);
        let source = ImportSource {
            name: format!("source {batch}"),
            hash: batch as u128,
            crc32: 0,
            bytes: rows,
            again: false,
        };
        let mut import = store.begin_import(source).unwrap();
        for row in 0..rows {
            import.append_task(&metric(&row_of(batch, row, rows))).unwrap();
        }
        import.commit().unwrap();
    }

    /// Batches that must be there after operation `op`.
    fn durable_after(&self, op: u64) -> usize {
        self.flushed.iter().filter(|(at, _)| *at <= op).map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// Checks a store: rows are whole batches' rows, unchanged, each once, and all that were
    /// flushed are there.
    fn check(&self, store: &Store, durable: usize, story: &str) {
        let snapshot = store.snapshot().unwrap_or_else(|e| panic!("{story}: {e}"));
        let page = snapshot.task_metrics(&Filter::new().all()).unwrap();
        assert!(page.coverage.damaged.is_empty(), "{story}: {:?}", page.coverage.damaged);
        let mut seen = HashSet::new();
        let mut by_batch: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        for row in &page.rows {
            let mut parts = row.task_id[1..].split('-').map(|part| part.parse::<u64>().unwrap());
            let mut next = || parts.next().unwrap();
            let (batch, number, rows) = (usize::try_from(next()).unwrap(), next(), next());
            assert_eq!(*row, row_of(batch, number, rows), "{story}: a row has changed");
            assert!(seen.insert(row.task_id.clone()), "{story}: {} is there twice", row.task_id);
            let day = row.timestamp.as_micros().div_euclid(DAY);
            *by_batch.entry((batch, day)).or_default() += 1;
        }
        for (batch, rows) in self.batches.iter().enumerate() {
            let mut expected: BTreeMap<i64, u64> = BTreeMap::new();
            for row in 0..*rows {
                let day = row_of(batch, row, *rows).timestamp.as_micros().div_euclid(DAY);
                *expected.entry(day).or_default() += 1;
            }
            for (day, expected) in expected {
                let found = by_batch.get(&(batch, day)).copied().unwrap_or(0);
                assert!(
                    found == expected || (found == 0 && batch >= durable),
                    "{story}: batch {batch}: {found} of {expected} rows of day {day}, durable below {durable}"
                );
            }
        }
        assert_eq!(snapshot.rows(Table::Task), page.rows.len() as u64, "{story}");
    }
}

/// A run with appends, flushes, rolls, seals, imports and a second opening.
fn run(seed: u64, steps: u64) -> (SimFileSystem, Ledger) {
    let fs = SimFileSystem::with_seed(seed);
    let dir = Path::new("/store");
    let mut random = Random::new(seed);
    let mut ledger = Ledger::default();
    let mut store = open_store(&fs, dir, options()).unwrap();
    for _ in 0..steps {
        match random.below(10) {
            0..5 => ledger.append(&store, &mut random),
            5..8 => {
                store.flush().unwrap();
                ledger.flushed.push((fs.op_count(), ledger.batches.len()));
            }
            8 => {
                store.flush().unwrap();
                ledger.flushed.push((fs.op_count(), ledger.batches.len()));
                match random.below(3) {
                    0 => ledger.import(&store, &mut random),
                    1 => store.seal().unwrap(),
                    _ => ledger.append(&store, &mut random),
                }
            }
            _ => {
                store.close().unwrap();
                ledger.flushed.push((fs.op_count(), ledger.batches.len()));
                store = open_store(&fs, dir, options()).unwrap();
            }
        }
    }
    store.close().unwrap();
    ledger.flushed.push((fs.op_count(), ledger.batches.len()));
    (fs, ledger)
}

/// Opens an image as a writer would after the crash, checks it, and again after sealing.
fn check_image(image: &SimFileSystem, ledger: &Ledger, durable: usize, story: &str) {
    let dir = Path::new("/store");
    let store = match open_store(image, dir, options()) {
        Ok(store) => store,
        Err(error) => panic!("{story}: {error}"),
    };
    ledger.check(&store, durable, story);
    store.seal().unwrap_or_else(|e| panic!("{story}: sealing: {e}"));
    ledger.check(&store, durable, &format!("{story}, sealed"));
    store.close().unwrap();
    let store = open_store_read_only(image, dir, options()).unwrap();
    ledger.check(&store, durable, &format!("{story}, reopened"));
}

#[test]
fn a_crash_after_any_operation_loses_nothing_flushed() {
    let images_per_point = 6;
    let mut distinct = HashSet::new();
    let mut images = 0u64;
    for seed in 0..4 {
        let (fs, ledger) = run(seed, 60);
        for op in fs.change_points() {
            let durable = ledger.durable_after(op);
            for (index, image) in fs.images_after(op, seed, images_per_point).iter().enumerate() {
                images += 1;
                if !distinct.insert((seed, durable, image.hash())) {
                    continue;
                }
                let story = format!("seed {seed}, crash after operation {op}, image {index}");
                check_image(image, &ledger, durable, &story);
            }
        }
    }
    println!("{images} crash images, {} distinct, 0 violations", distinct.len());
    assert!(distinct.len() > 500, "the workload makes few images: {}", distinct.len());
}

#[test]
fn a_crash_during_recovery_loses_nothing_flushed() {
    let mut checked = 0;
    for seed in 10..12 {
        let (fs, ledger) = run(seed, 30);
        let points = fs.change_points();
        for op in points.iter().copied().step_by(points.len() / 12 + 1) {
            let durable = ledger.durable_after(op);
            for first in fs.images_after(op, seed, 2) {
                if let Ok(store) = open_store(&first, Path::new("/store"), options()) {
                    let _ = store.seal();
                    let _ = store.close();
                }
                let inner = first.change_points();
                for inner_op in inner.iter().copied().step_by(inner.len() / 10 + 1) {
                    for image in first.images_after(inner_op, seed, 3) {
                        let story = format!(
                            "seed {seed}, crash after operation {op}, and after {inner_op} of recovery"
                        );
                        check_image(&image, &ledger, durable, &story);
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 100);
}

#[test]
fn a_killed_process_loses_nothing_committed() {
    let (fs, ledger) = run(77, 60);
    for op in fs.change_points() {
        let image = fs.kill_image_within(op, 77);
        let durable = ledger.durable_after(op);
        check_image(&image, &ledger, durable, &format!("killed within operation {op}"));
    }
}

#[test]
fn every_failing_call_leaves_the_flushed_rows() {
    use tallystone::testing::Fault;
    let dir = Path::new("/store");
    for fault in [Fault::IO, Fault::NO_SPACE, Fault::ShortWrite] {
        for forever in [false, true] {
            let mut n = 0;
            loop {
                let fs = SimFileSystem::with_seed(n);
                let mut random = Random::new(5);
                let mut ledger = Ledger::default();
                fs.fail_at(n, fault, forever);
                let mut flushed = 0;
                if let Ok(store) = open_store(&fs, dir, options()) {
                    for _ in 0..4 {
                        let (batch, rows) = ledger.next_batch(&mut random);
                        let Ok(mut appender) = store.appender() else { break };
                        for row in 0..rows {
                            // Refused rows are not accepted: the batch stays unflushed.
                            let _ = appender.append_task(&metric(&row_of(batch, row, rows)));
                        }
                        if store.flush().is_ok() {
                            flushed = ledger.batches.len();
                        }
                    }
                    let _ = store.seal();
                    let _ = store.close();
                }
                let fired = fs.faults_fired() > 0;
                fs.heal();
                let story = format!("{fault:?} at call {n}, for ever: {forever}");
                match open_store(&fs, dir, options()) {
                    Ok(store) => ledger.check(&store, flushed, &story),
                    Err(error) => assert_eq!(flushed, 0, "{story}: {error}"),
                }
                if !fired {
                    break;
                }
                n += if forever { 7 } else { 2 };
            }
        }
    }
}
