//! Rows that say what they must be, and the ledger of what a store accepted of them.
//!
//! The task id is `b<batch>-<row of it>-<rows of it>`; stamp, duration and tokens follow from
//! it. So a verifier needs no copy: a row is right or not by itself, and a batch is whole or
//! absent by its numbers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{Verdict, Violation, ensure};
use crate::config::Options;
use crate::error::Result;
use crate::ingest::transaction::{Import, ImportSource};
use crate::query::filter::Filter;
use crate::row::{TaskMetric, TaskRow};
use crate::schema::Table;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::testing::workload::Random;
use crate::time::{Clock, MICROS_PER_DAY, SystemClock, Timestamp};

/// 2026-11-16T00:00:00Z, in microseconds since 1970.
pub const START: i64 = 1_794_787_200_000_000;
/// Days that the rows lie in, from `START`.
pub const DAYS: i64 = 2;

/// Imports have more rows than this, other batches at most as many.
pub const LONG: u64 = 40;

/// A clock that is set by hand; it begins when all days of the rows are over.
#[derive(Debug)]
pub struct Hand(AtomicI64);

impl Hand {
    /// A clock at the end of the days of the rows.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(START + DAYS * MICROS_PER_DAY)))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed)).unwrap_or(Timestamp::MIN)
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

/// Limits so small that what is rare in use happens all the time.
pub fn options(clock: &Arc<Hand>) -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        roll_rows: 150,
        block_rows: 32,
        small_hour_rows: 8,
        unlink_grace: Duration::ZERO,
        maintenance: None,
        clock: Arc::<Hand>::clone(clock),
        ..Options::default()
    }
}

/// The row of that number of a batch of so many rows.
pub fn row_of(batch: usize, row: u64, rows: u64) -> TaskRow {
    let seed = (batch as u64).wrapping_mul(1_000).wrapping_add(row);
    let number = i64::try_from(seed).unwrap_or(0);
    // Those that are long lie in both days, row by row.
    let days = if rows > LONG { number % DAYS * MICROS_PER_DAY } else { 0 };
    let moment = number.wrapping_mul(7_919_000).wrapping_add(days);
    let stamp = START + moment.rem_euclid(DAYS * MICROS_PER_DAY);
    TaskRow {
        timestamp: Timestamp::from_micros(stamp).unwrap_or(Timestamp::MIN),
        task_id: format!("b{batch}-{row}-{rows}"),
        agent_id: format!("agent-{}", seed % 5),
        duration_ms: (!seed.is_multiple_of(7)).then_some(number * 31 % 10_007),
        tokens_used: (!seed.is_multiple_of(11)).then_some(number * 17 % 5_003),
        success: !seed.is_multiple_of(13),
        metadata: seed.is_multiple_of(4).then(|| format!("{{\"seed\":{seed}}}")),
    }
}

/// The row as it is given to a store.
pub fn metric(row: &TaskRow) -> TaskMetric<'_> {
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

fn day_of(row: &TaskRow) -> i64 {
    row.timestamp.as_micros().div_euclid(MICROS_PER_DAY)
}

/// Rows of a batch by day, in days since 1970.
pub fn days_of(rows: u64, row_of: impl Fn(u64) -> TaskRow) -> BTreeMap<i64, u64> {
    let mut days = BTreeMap::new();
    for row in 0..rows {
        *days.entry(day_of(&row_of(row))).or_default() += 1;
    }
    days
}

/// The number of a row: batch, row, rows; `None` for a row of nobody.
fn number_of(task_id: &str) -> Option<(usize, u64, u64)> {
    let mut parts = task_id.strip_prefix('b')?.split('-').map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    let (batch, row, rows) = (next()?, next()?, next()?);
    (row < rows).then_some((usize::try_from(batch).ok()?, row, rows))
}

/// What a snapshot has of batches: every row of it is right by itself, and there once.
#[derive(Debug, Default)]
pub struct Found {
    /// Rows in all.
    pub rows: u64,
    /// How many rows each batch has by what its rows say.
    pub batches: BTreeMap<usize, u64>,
    /// Rows that are there of a batch on a day.
    pub by_day: BTreeMap<(usize, i64), u64>,
}

impl Found {
    /// Reads all tasks. `row_of` is what the row of that number of a batch of so many rows must
    /// be. The count and the sums of an aggregate must be those of the rows.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn read(snapshot: &Snapshot, row_of: impl Fn(usize, u64, u64) -> TaskRow) -> Verdict<Self> {
        let page = snapshot.task_metrics(&Filter::new().all())?;
        ensure(page.coverage.damaged.is_empty(), || format!("{:?}", page.coverage.damaged))?;
        let mut found = Self { rows: page.rows.len() as u64, ..Self::default() };
        let mut seen = HashSet::with_capacity(page.rows.len());
        let (mut count, mut sum) = (0, 0);
        for row in &page.rows {
            let nobody = || Violation::new(format!("a row that nobody wrote: {row:?}"));
            let (batch, number, rows) = number_of(&row.task_id).ok_or_else(nobody)?;
            ensure(*row == row_of(batch, number, rows), || format!("a row has changed: {row:?}"))?;
            ensure(seen.insert((batch, number)), || format!("{} is there twice", row.task_id))?;
            ensure(*found.batches.entry(batch).or_insert(rows) == rows, || nobody().to_string())?;
            *found.by_day.entry((batch, day_of(row))).or_default() += 1;
            count += u64::from(row.duration_ms.is_some());
            sum += row.duration_ms.unwrap_or(0);
        }
        let rows = found.rows;
        ensure(snapshot.rows(Table::Task) == rows, || format!("{rows} rows, the files say more"))?;
        let all = snapshot.aggregate(Table::Task, "duration_ms", &Filter::new())?.value;
        #[expect(clippy::cast_precision_loss, reason = "sums of many small numbers")]
        let sums = (all.sum.as_f64(), sum as f64);
        ensure(
            (all.rows, all.count) == (rows, count) && sums.0.to_bits() == sums.1.to_bits(),
            || format!("an aggregate of {all:?}, the rows say {rows}, {count} and {sum}"),
        )?;
        Ok(found)
    }
}

/// A batch that was given to a store.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Rows of it.
    pub rows: u64,
    /// Whether it is whole or absent over all days, as imports are, not day by day.
    pub is_import: bool,
    /// Whether every row was accepted; one that was not need not be whole.
    pub is_accepted: bool,
    /// What a crash has made of it.
    pub fate: Fate,
}

/// Whether a batch has to be there, once a crash may have taken it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// As soon as it is durable.
    #[default]
    AsAcknowledged,
    /// Nobody knows: it was not durable when its writer died.
    Unknown,
    /// It was not there afterwards, or has been taken back, and stays away.
    Gone,
}

/// What was given to a store, and how much of it was acknowledged before which operation.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By number.
    pub batches: Vec<Given>,
    /// After this operation, batches below this number are durable.
    pub flushed: Vec<(u64, usize)>,
}

impl Ledger {
    fn next_batch(&mut self, random: &mut Random, is_import: bool) -> (usize, u64) {
        let rows = 1 + random.below(LONG) + if is_import { LONG } else { 0 };
        self.batches.push(Given { rows, is_import, is_accepted: false, fate: Fate::default() });
        (self.batches.len() - 1, rows)
    }

    fn accept(&mut self, batch: usize) {
        if let Some(given) = self.batches.get_mut(batch) {
            given.is_accepted = true;
        }
    }

    /// Appends a batch and commits it.
    ///
    /// # Errors
    ///
    /// Those of the store; then the batch counts as not accepted.
    pub fn append(&mut self, store: &Store, random: &mut Random) -> Result<()> {
        let (batch, rows) = self.next_batch(random, false);
        let mut appender = store.appender()?;
        for row in 0..rows {
            appender.append_task(&metric(&row_of(batch, row, rows)))?;
        }
        self.accept(batch);
        appender.commit()
    }

    /// Imports a batch.
    ///
    /// # Errors
    ///
    /// Those of the store; then the batch counts as not accepted.
    pub fn import(&mut self, store: &Store, random: &mut Random) -> Result<()> {
        let (batch, rows) = self.next_batch(random, true);
        let source = ImportSource {
            name: format!("source {batch}"),
            hash: batch as u128,
            crc32: 0,
            bytes: rows,
            again: false,
        };
        let mut import: Import = store.begin_import(source)?;
        for row in 0..rows {
            import.append_task(&metric(&row_of(batch, row, rows)))?;
        }
        import.commit()?;
        self.accept(batch);
        Ok(())
    }

    /// Notes that all batches so far are durable after `op` operations.
    pub fn acknowledge(&mut self, op: u64) {
        self.flushed.push((op, self.batches.len()));
    }

    /// Batches that must be there after `op` operations.
    pub fn durable_after(&self, op: u64) -> usize {
        self.flushed.iter().filter(|(at, _)| *at <= op).map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// Notes that the writer of all batches from `durable` on is dead, or has given up.
    pub fn forsake(&mut self, durable: usize) {
        let since = self.batches.iter_mut().skip(durable);
        since.filter(|given| given.fate != Fate::Gone).for_each(|it| it.fate = Fate::Unknown);
    }

    /// Checks what a crash left: from now on a batch that is not there stays away, and one that
    /// is stays there if all that can be read `is_durable`, as after a loss of power.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn settle(&mut self, store: &Store, durable: usize, is_durable: bool) -> Verdict {
        self.check(store, durable)?;
        let page = store.snapshot()?.task_metrics(&Filter::new().all())?;
        let mut found: BTreeMap<usize, u64> = BTreeMap::new();
        for (batch, _, _) in page.rows.iter().filter_map(|row| number_of(&row.task_id)) {
            *found.entry(batch).or_default() += 1;
        }
        for (batch, given) in self.batches.iter_mut().enumerate() {
            match found.get(&batch) {
                _ if given.fate != Fate::Unknown => {}
                None => given.fate = Fate::Gone,
                Some(rows) if is_durable && *rows == given.rows => {
                    given.fate = Fate::AsAcknowledged;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Checks a store: rows are whole batches' rows, unchanged, each once; those of accepted
    /// batches below `durable` are all there; the count and the sums of an aggregate are those
    /// of the rows. Returns how many rows there are.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check(&self, store: &Store, durable: usize) -> Verdict<u64> {
        let found = Found::read(&store.snapshot()?, row_of)?;
        for (batch, rows) in &found.batches {
            let given = self.batches.get(*batch).is_some_and(|given| given.rows == *rows);
            ensure(given, || format!("rows that nobody wrote: batch {batch} of {rows}"))?;
        }
        for (batch, given) in self.batches.iter().enumerate() {
            self.check_batch(batch, *given, durable, &found.by_day)?;
        }
        Ok(found.rows)
    }

    fn check_batch(
        &self,
        batch: usize,
        given: Given,
        durable: usize,
        by_day: &BTreeMap<(usize, i64), u64>,
    ) -> Verdict {
        let is_as_acknowledged = given.fate == Fate::AsAcknowledged;
        let must_be_there = batch < durable && given.is_accepted && is_as_acknowledged;
        let expected = days_of(given.rows, |row| row_of(batch, row, given.rows));
        let mut absent = 0;
        for (day, expected) in &expected {
            let found = by_day.get(&(batch, *day)).copied().unwrap_or(0);
            absent += usize::from(found == 0);
            let is_whole = found == *expected || !given.is_accepted && !given.is_import;
            ensure(is_whole || (found == 0 && !must_be_there), || {
                format!(
                    "batch {batch}: {found} of {expected} rows of day {day}, durable below {durable}"
                )
            })?;
        }
        ensure(given.fate != Fate::Gone || absent == expected.len(), || {
            format!("batch {batch} is back, and was gone")
        })?;
        ensure(!given.is_import || absent == 0 || absent == expected.len(), || {
            format!(
                "import {batch} is there on {} of {} days",
                expected.len() - absent,
                expected.len()
            )
        })
    }
}
