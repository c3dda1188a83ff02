//! `Appender`: one thread's way into the store, and the checks at the door.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::column::{Batch, Column, Strings, Values, extremes};
use crate::config::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::ForkGuard;
use crate::ingest::buffer::{PartitionBatch, RowRef};
use crate::ingest::channel::{Gate, Message, SharedSlot, locked};
use crate::limits::{BATCH_BYTES_MAX, TEXT_BYTES_MAX};
use crate::row::{self, AgentMetric, SwarmMetric, TaskMetric};
use crate::schema::{ColumnType, Table};
use crate::sync::Mutex;
use crate::time::{Partition, Timestamp};

/// What is checked before a row is accepted.
#[derive(Debug)]
pub(crate) struct Door {
    /// Per table: rows before this moment are past the last retention tier.
    cutoffs: [AtomicI64; 3],
    fork: ForkGuard,
    /// Dictionaries of batches that were found to have each text once.
    distinct: Mutex<Vec<Weak<Strings>>>,
}

/// Dictionaries that are known to have each text once.
const DISTINCT_KNOWN: usize = 4;

impl Door {
    /// A door that refuses nothing for its age.
    pub(crate) fn new() -> Self {
        Self {
            cutoffs: [const { AtomicI64::new(i64::MIN) }; 3],
            fork: ForkGuard::new(),
            distinct: Mutex::default(),
        }
    }

    /// Refuses rows of `table` before `micros` from now on.
    pub(crate) fn set_cutoff(&self, table: Table, micros: i64) {
        self.cutoffs[table.index()].store(micros, Ordering::Relaxed);
    }

    /// Fails in the child of a fork.
    ///
    /// # Errors
    ///
    /// `Forked`.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.fork.check()
    }

    fn check_age(&self, table: Table, earliest: i64) -> Result<()> {
        let cutoff = self.cutoffs[table.index()].load(Ordering::Relaxed);
        if earliest >= cutoff {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PastRetention,
            format!(
                "timestamp: {} lies before {}, from where {table} keeps rows",
                Timestamp::clamped(earliest),
                Timestamp::clamped(cutoff)
            ),
        )
        .with_remedy("keep everything (import --keep), or lengthen the retention"))
    }

    /// Checks one row.
    ///
    /// # Errors
    ///
    /// `BadInput`, `PastRetention`, `Forked`.
    pub(crate) fn check_row(&self, row: &RowRef<'_>) -> Result<()> {
        self.check_process()?;
        row.validate()?;
        self.check_age(row.table(), row.timestamp())
    }

    /// Checks whole columns and files them by partition.
    ///
    /// # Errors
    ///
    /// `BadInput` naming the column, the row and the rule; `PastRetention`; `Forked`.
    pub(crate) fn split(&self, table: Table, mut batch: Batch) -> Result<Vec<PartitionBatch>> {
        self.check_process()?;
        check_batch(table, &batch)?;
        batch.columns.iter_mut().for_each(|column| self.unite_codes(column));
        let stamps = batch.timestamps();
        let Some((min, max)) = extremes(stamps) else { return Ok(Vec::new()) };
        self.check_age(table, min)?;
        let first = Partition::of_micros(min);
        if first == Partition::of_micros(max) {
            return Ok(vec![filed(table, first, batch)]);
        }
        let mut rows: std::collections::BTreeMap<Partition, Vec<u32>> = Default::default();
        let mut start = 0u32;
        // Neighbours are mostly of one day: each run of them is looked up once.
        for run in stamps.chunk_by(|a, b| Partition::of_micros(*a) == Partition::of_micros(*b)) {
            let end = start.saturating_add(u32::try_from(run.len()).unwrap_or(u32::MAX));
            rows.entry(Partition::of_micros(run[0])).or_default().extend(start..end);
            start = end;
        }
        Ok(rows
            .into_iter()
            .map(|(partition, rows)| filed(table, partition, batch.gather(&rows)))
            .collect())
    }
}

impl Door {
    /// Gives rows of one text one code: a stored dictionary has each text once.
    fn unite_codes(&self, column: &mut Column) {
        let Values::Coded { codes, dictionary } = &mut column.values else { return };
        let mut known = locked(&self.distinct);
        // An address is not used again while a weak reference is left.
        if known.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(dictionary))) {
            return;
        }
        match first_codes(dictionary) {
            Some(first) => codes.iter_mut().for_each(|code| *code = first[*code as usize]),
            None => {
                known.truncate(DISTINCT_KNOWN - 1);
                known.insert(0, Arc::downgrade(dictionary));
            }
        }
    }
}

/// For each entry the first one of the same text; `None` if there is no other.
fn first_codes(dictionary: &Strings) -> Option<Vec<u32>> {
    let mut seen: HashMap<&str, u32, RandomState> = HashMap::default();
    let first = |(text, code)| *seen.entry(text).or_insert(code);
    let first: Vec<u32> = dictionary.iter().zip(0u32..).map(first).collect();
    (seen.len() < dictionary.len()).then_some(first)
}

fn filed(table: Table, partition: Partition, batch: Batch) -> PartitionBatch {
    let bytes = batch.memory_bytes();
    PartitionBatch { table, partition, bytes, batch: Arc::new(batch) }
}

fn check_batch(table: Table, batch: &Batch) -> Result<()> {
    let schema = table.schema();
    if batch.schema != schema || batch.columns.len() != schema.columns.len() {
        return Err(Error::bad_input(format!(
            "columns of {}, expected those of {table}",
            batch.schema.name
        )));
    }
    let rows = batch.len();
    if batch.memory_bytes() > BATCH_BYTES_MAX {
        return Err(Error::bad_input(format!(
            "batch: {} bytes, expected at most {BATCH_BYTES_MAX}; append it in parts",
            batch.memory_bytes()
        )));
    }
    for (column, field) in batch.columns.iter().zip(schema.columns) {
        let bad = |what: String| Err(Error::bad_input(format!("{}: {what}", field.name)));
        if column.len() != rows {
            return bad(format!("{} values, expected {rows} as in the first column", column.len()));
        }
        if column.null_count() > 0 && !field.nullable {
            return bad(format!("{} nulls in a column that takes none", column.null_count()));
        }
        if column.validity.as_ref().is_some_and(|validity| validity.len() != rows) {
            return bad("the validity has another length than the values".to_owned());
        }
        // Such a row could not be stored, and would block all that come after it.
        if let (Some(validity), Values::Text(texts)) = (&column.validity, &column.values)
            && let Some(row) =
                (0..rows).find(|row| !validity.get(*row) && !texts.get(*row).is_empty())
        {
            return bad(format!("row {row} is null and has a text, expected an empty one"));
        }
        check_values(field.name, field.kind, column)?;
    }
    Ok(())
}

fn check_values(name: &str, kind: ColumnType, column: &Column) -> Result<()> {
    let at = |row: usize, error: Error| Error::bad_input(format!("row {row}: {}", error.message()));
    match (kind, &column.values) {
        (ColumnType::Timestamp, Values::Int(values)) => {
            let range = Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros();
            if extremes(values).is_none_or(|(a, b)| range.contains(&a) && range.contains(&b)) {
                return Ok(());
            }
            match values.iter().position(|stamp| !range.contains(stamp)) {
                Some(row) => {
                    Timestamp::from_micros(values[row]).map(|_| ()).map_err(|e| at(row, e))
                }
                None => Ok(()),
            }
        }
        (ColumnType::Int, Values::Int(_)) | (ColumnType::Bool, Values::Bool(_)) => Ok(()),
        (ColumnType::Float, Values::Float(values)) => {
            // All of them first, without a branch each.
            if values.iter().fold(true, |all, value| all & value.is_finite()) {
                return Ok(());
            }
            match values.iter().position(|value| !value.is_finite()) {
                Some(row) => row::check_value(values[row]).map_err(|e| at(row, e)),
                None => Ok(()),
            }
        }
        (ColumnType::Dimension, Values::Coded { codes, dictionary }) => {
            let outside = |code: &u32| *code as usize >= dictionary.len();
            if extremes(codes).is_some_and(|(_, most)| outside(&most))
                && let Some(row) = codes.iter().position(outside)
            {
                return Err(Error::bad_input(format!(
                    "row {row}: {name}: code {} of a dictionary of {}",
                    codes[row],
                    dictionary.len()
                )));
            }
            if are_texts(dictionary) {
                return Ok(());
            }
            dictionary.iter().try_for_each(|text| row::check_text(name, text))
        }
        (ColumnType::Dimension | ColumnType::Text, Values::Text(strings)) => {
            if are_texts(strings) {
                return Ok(());
            }
            let mut rows = strings.iter().enumerate();
            rows.try_for_each(|(row, text)| row::check_text(name, text).map_err(|e| at(row, e)))
        }
        (ColumnType::Json, Values::Text(strings)) => {
            let check = |row: usize| {
                row::check_metadata(Some(strings.get(row))).map_err(|error| at(row, error))
            };
            match &column.validity {
                Some(validity) => validity.ones().try_for_each(check),
                None => (0..strings.len()).try_for_each(check),
            }
        }
        _ => Err(Error::bad_input(format!("{name}: values of another type"))),
    }
}

/// Whether each of them is a text of a dimension, as [`row::check_text`] says.
fn are_texts(texts: &Strings) -> bool {
    u32::try_from(TEXT_BYTES_MAX).is_ok_and(|most| texts.lengths_are_in(1..=most))
}

/// A fast path of its own for one thread.
///
/// Rows are buffered and handed to the committer at [`buffer_rows`](Options::buffer_rows)
/// rows, after the store's flush interval, by [`commit`](Self::commit) and by any `flush`.
/// Dropping an appender commits what it holds.
#[derive(Debug)]
pub struct Appender {
    pub(crate) gate: Arc<Gate>,
    pub(crate) door: Arc<Door>,
    pub(crate) options: Arc<Options>,
    pub(crate) slot: SharedSlot,
}

impl Appender {
    fn append(&mut self, row: RowRef<'_>) -> Result<()> {
        self.door.check_row(&row)?;
        self.gate.accept(&self.slot, row, self.options.clock.elapsed())
    }

    /// Buffers a task.
    ///
    /// # Errors
    ///
    /// `BadInput` or `PastRetention` for the row; `NoSpace`, `Io`, `Poisoned`, `Closed`,
    /// `Forked` for the store. The row is not accepted then.
    pub fn append_task(&mut self, row: &TaskMetric<'_>) -> Result<()> {
        self.append(RowRef::Task(row))
    }

    /// Buffers a gauge of an agent.
    ///
    /// # Errors
    ///
    /// As [`append_task`](Self::append_task).
    pub fn append_agent(&mut self, row: &AgentMetric<'_>) -> Result<()> {
        self.append(RowRef::Agent(row))
    }

    /// Buffers a gauge of a swarm.
    ///
    /// # Errors
    ///
    /// As [`append_task`](Self::append_task).
    pub fn append_swarm(&mut self, row: &SwarmMetric<'_>) -> Result<()> {
        self.append(RowRef::Swarm(row))
    }

    /// Hands whole columns to the committer, without a call per row. At most 64 MiB.
    ///
    /// The rows of one day are one batch: visible all at once or not at all.
    ///
    /// # Errors
    ///
    /// As [`append_task`](Self::append_task), naming the column and the row; then nothing
    /// is accepted.
    pub fn append_columns(&mut self, table: Table, batch: Batch) -> Result<()> {
        let batches = self.door.split(table, batch)?;
        self.gate.accept_batches(&self.slot, batches)
    }

    /// Commits what this appender holds: visible to every process when it returns.
    ///
    /// # Errors
    ///
    /// Why it could not be written; it is kept and tried again.
    pub fn commit(&mut self) -> Result<()> {
        self.ask(false)
    }

    /// Commits what this appender holds and makes it durable.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn flush(&mut self) -> Result<()> {
        self.ask(true)
    }

    fn ask(&self, sync: bool) -> Result<()> {
        self.door.check_process()?;
        self.gate.check()?;
        self.gate.hand_over(&mut locked(&self.slot))?;
        self.gate.ask_only(|reply| Message::Barrier { sync, reply })
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if self.door.check_process().is_ok() {
            // What cannot be handed over now has no owner to wait for it: the store keeps it.
            let handed = self.gate.hand_over(&mut locked(&self.slot));
            if handed.is_err() {
                self.gate.adopt(Arc::clone(&self.slot));
            }
        }
    }
}
