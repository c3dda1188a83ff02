//! The committer: the one thread of a store that writes active segments.
//!
//! Owns this process's active segments. It takes what waits in the channel, writes one
//! run of frames per file, syncs once for all of it where durability asks, and answers
//! flushes. What cannot be written stays at the head of its queue and is tried again; a
//! file whose sync failed is given up and its rows are sealed elsewhere (spec 3.6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Durability;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::buffer::PartitionBatch;
use crate::ingest::channel::{Gate, Message, poisoned, soon};
use crate::limits::ACTIVES_OPEN_MAX;
use crate::planted::{Bug, is_planted};
use crate::schema::Table;
use crate::segment::active::ActiveWriter;
use crate::segment::files::StoreRoot;
use crate::store_files::generation;
use crate::sync::channel::{Receiver, RecvTimeoutError, Sender};
use crate::time::{MICROS_PER_SECOND, Partition};

/// How long after a failed write it is tried again, at first and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// Bytes that are committed in one round at most.
const ROUND_BYTES: usize = 16 << 20;
/// A closing store seals actives of at least this many rows; smaller ones are left for
/// merging, so that a process of a few rows ends at once.
pub(crate) const SEAL_ON_CLOSE_ROWS: u64 = 16 << 10;

/// What to do about a full disk.
const ROWS_WAIT: &str = "free some space; accepted rows wait and are written then";

#[derive(Debug)]
struct Active {
    writer: ActiveWriter,
    /// When it was last committed to, by the clock's `elapsed`.
    used: Duration,
}

/// An active segment that is not trusted any more. Its lock stays held: nobody else judges
/// the file.
type Lost = ((Table, Partition), ActiveWriter);

type Reply = Sender<Result<()>>;

/// The state of the committer thread.
pub(crate) struct Committer {
    root: StoreRoot,
    gate: Arc<Gate>,
    receiver: Receiver<Message>,
    rolled: Box<dyn Fn(ActiveWriter) + Send>,
    actives: BTreeMap<(Table, Partition), Active>,
    pending: Vec<PartitionBatch>,
    /// Files that were given up, and whose rows are to be sealed elsewhere yet.
    lost: Vec<Lost>,
    /// Of a poisoned store: those whose rows cannot be.
    given_up: Vec<ActiveWriter>,
    last_sync: Duration,
    last_look: Duration,
    retry_after: Duration,
    /// Somebody waited for the last round, which waited for no disk: the next is near.
    is_asked: bool,
}

/// What a round has to do besides committing rows.
#[derive(Default)]
struct Duties {
    barriers: Vec<(bool, Reply)>,
    rolls: Vec<Reply>,
    /// The number of the try to close, and who made it.
    close: Option<(u64, Reply)>,
}

impl Duties {
    fn wants_sync(&self) -> bool {
        !self.rolls.is_empty()
            || self.close.is_some()
            || self.barriers.iter().any(|(sync, _)| *sync)
    }

    fn answer(self, result: &Result<()>) {
        let replies = self.barriers.into_iter().map(|(_, reply)| reply);
        for reply in replies.chain(self.rolls).chain(self.close.map(|(_, reply)| reply)) {
            // Whoever asked may have given up waiting.
            let _ = reply.send(result.clone());
        }
    }
}

impl Committer {
    /// A committer that takes messages from `receiver` and hands ended segments to `rolled`.
    pub(crate) fn new(
        root: StoreRoot,
        gate: Arc<Gate>,
        receiver: Receiver<Message>,
        rolled: Box<dyn Fn(ActiveWriter) + Send>,
    ) -> Self {
        Self {
            root,
            gate,
            receiver,
            rolled,
            actives: BTreeMap::new(),
            pending: Vec::new(),
            lost: Vec::new(),
            given_up: Vec::new(),
            last_sync: Duration::ZERO,
            last_look: Duration::ZERO,
            retry_after: RETRY_AFTER.0,
            is_asked: false,
        }
    }

    /// Runs until the store closes or every sender is gone.
    pub(crate) fn run(mut self) {
        loop {
            let mut duties = Duties::default();
            let open = self.gather(&mut duties);
            if is_planted(Bug::AnswerBeforeWrite) {
                duties.barriers.drain(..).for_each(|(_, reply)| drop(reply.send(Ok(()))));
            }
            let result = self.round(&duties);
            if duties.close.is_some() || !open {
                let result = result.and_then(|()| self.end_all());
                // Before the answer: whoever asked may give up waiting for it at any moment,
                // and then goes on with a committer that must be there.
                let closing = duties.close.as_ref().map(|(closing, _)| *closing);
                let ended =
                    result.is_ok() && closing.is_some_and(|closing| self.gate.end_close(closing));
                if !open {
                    self.gate.end();
                }
                duties.answer(&result);
                if ended || !open {
                    return;
                }
                continue;
            }
            let result = match result {
                Ok(()) if !duties.rolls.is_empty() => {
                    self.roll_all().and_then(|()| self.replace_lost())
                }
                result => result,
            };
            self.is_asked = self.root.options.durability == Durability::Os
                && duties.barriers.iter().any(|(sync, _)| !sync);
            duties.answer(&result);
            self.idle_work();
        }
    }

    /// Takes what waits in the channel and in old slots; false when every sender is gone.
    fn gather(&mut self, duties: &mut Duties) -> bool {
        if !(self.pending.is_empty() && self.lost.is_empty()) {
            // The head of the queue comes first: nothing is taken until it is written.
            self.gate.wait_for_retry(self.retry_after);
            self.retry_after = (self.retry_after * 2).min(RETRY_AFTER.1);
            return !self.gate.is_abandoned();
        }
        self.retry_after = RETRY_AFTER.0;
        let next = self.is_asked.then(|| soon(|| self.receiver.try_recv().ok())).flatten();
        match next.map_or_else(|| self.receiver.recv_timeout(self.patience()), Ok) {
            Ok(message) => self.take(message, duties),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        self.drain(duties);
        self.collect_old_slots(duties);
        !self.gate.is_abandoned()
    }

    fn take(&mut self, message: Message, duties: &mut Duties) {
        match message {
            Message::Batch(batch) => self.pending.push(batch),
            Message::Barrier { sync, reply } => duties.barriers.push((sync, reply)),
            Message::Roll { reply } => duties.rolls.push(reply),
            // Whoever asked may have given up waiting, and gone on.
            Message::Close { closing, reply } if self.gate.is_closing(closing) => {
                duties.close = Some((closing, reply));
            }
            Message::Close { .. } => {}
        }
    }

    fn drain(&mut self, duties: &mut Duties) {
        let mut bytes: usize = self.pending.iter().map(|batch| batch.bytes).sum();
        while bytes < ROUND_BYTES && duties.close.is_none() {
            let Ok(message) = self.receiver.try_recv() else { return };
            if let Message::Batch(batch) = &message {
                bytes += batch.bytes;
            }
            self.take(message, duties);
        }
    }

    /// Takes the rows of slots whose oldest row has waited for the flush interval.
    fn collect_old_slots(&mut self, duties: &mut Duties) {
        let now = self.root.options.clock.elapsed();
        let Some(moment) = now.checked_sub(self.root.options.flush_interval) else { return };
        for slot in self.gate.slots() {
            // A slot that is locked belongs to an appender at work: its turn comes.
            if let Ok(mut slot) = slot.try_lock()
                && slot.is_older_than(moment)
            {
                // What its appender sent before comes first.
                self.drain(duties);
                for batch in slot.take() {
                    self.gate.take_room(batch.bytes);
                    self.pending.push(batch);
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        let interval = self.root.options.flush_interval;
        let sync = match self.root.options.durability {
            Durability::Interval(sync) => sync,
            _ => interval,
        };
        (interval.min(sync) / 4).clamp(Duration::from_millis(2), Duration::from_millis(250))
    }

    fn round(&mut self, duties: &Duties) -> Result<()> {
        let attempt = self.gate.begin_attempt();
        let committed = self.commit_pending();
        let now = self.root.options.clock.elapsed();
        let due = match self.root.options.durability {
            Durability::Sync => true,
            Durability::Interval(every) => now.saturating_sub(self.last_sync) >= every,
            Durability::Os => false,
        };
        if due || duties.wants_sync() {
            self.last_sync = now;
            self.sync_all();
        }
        // Whatever was given up in this round or before: the round is a success only if its
        // rows are durable elsewhere.
        let mut result = self.replace_lost().and(committed).map_err(|error| match error.kind() {
            ErrorKind::NoSpace => error.with_remedy(ROWS_WAIT),
            _ => error,
        });
        if self.gate.is_poisoned() {
            self.gate.set_poisoned(std::mem::take(&mut self.pending));
            result = Err(poisoned());
        }
        self.gate.end_attempt(attempt, result.as_ref().err().cloned());
        result
    }

    /// Commits what is pending; what cannot be written stays.
    fn commit_pending(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut groups: BTreeMap<(Table, Partition), Vec<PartitionBatch>> = BTreeMap::new();
        for batch in self.pending.drain(..) {
            groups.entry((batch.table, batch.partition)).or_default().push(batch);
        }
        let mut failed = None;
        for (key, batches) in groups {
            match self.commit_group(key, &batches) {
                Ok(()) => batches.iter().for_each(|batch| self.gate.release(batch.bytes)),
                Err(error) => {
                    if !is_planted(Bug::DropOnFullDisk) {
                        self.pending.extend(batches);
                    }
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn commit_group(&mut self, key: (Table, Partition), batches: &[PartitionBatch]) -> Result<()> {
        self.open_active(key)?;
        let now = self.root.options.clock.elapsed();
        let Some(active) = self.actives.get_mut(&key) else {
            return Err(Error::new(ErrorKind::Closed, "the active segment is gone"));
        };
        let rows: Vec<_> = batches.iter().map(|batch| Arc::clone(&batch.batch)).collect();
        active.used = now;
        match active.writer.append(&rows) {
            Err(error) if error.kind() == ErrorKind::Io => {
                // A disk that refuses to write may have lost more: give the file up.
                self.give_up(key);
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => {
                let full = active.writer.rows() >= self.root.options.roll_rows
                    || active.writer.bytes() >= self.root.options.roll_bytes;
                // The rows are committed; a roll that fails is tried again later.
                if full && self.roll(key).is_err() {
                    self.last_look = Duration::ZERO;
                }
                Ok(())
            }
        }
    }

    fn open_active(&mut self, key: (Table, Partition)) -> Result<()> {
        if self.actives.contains_key(&key) {
            return Ok(());
        }
        if self.actives.len() >= ACTIVES_OPEN_MAX {
            let oldest = self.actives.iter().min_by_key(|(_, active)| active.used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.roll(oldest)?;
            }
        }
        let place = self.root.place(key.0, key.1);
        let keep_unsynced = self.root.options.durability != Durability::Os;
        let writer = ActiveWriter::create(
            &self.root.fs,
            &place,
            self.root.writer,
            self.root.now(),
            keep_unsynced,
        )?;
        generation::bump(self.root.fs.as_ref(), &self.root.dir)?;
        let used = self.root.options.clock.elapsed();
        self.actives.insert(key, Active { writer, used });
        Ok(())
    }

    fn sync_all(&mut self) {
        let dirty: Vec<_> = self
            .actives
            .iter()
            .filter(|(_, active)| active.writer.is_dirty())
            .map(|(key, _)| *key)
            .collect();
        for key in dirty {
            let synced = self.actives.get_mut(&key).map_or(Ok(()), |active| active.writer.sync());
            if synced.is_err() {
                self.give_up(key);
            }
        }
    }

    /// Gives up an active segment that could not be written to or synced: its committed rows
    /// are to become a sealed segment that replaces it.
    fn give_up(&mut self, key: (Table, Partition)) {
        self.lost.extend(self.actives.remove(&key).map(|active| (key, active.writer)));
    }

    /// Seals the rows of files that were given up elsewhere. Afterwards they are durable.
    ///
    /// # Errors
    ///
    /// `NoSpace`: the rows stay in memory, and it is tried again like a commit. `Poisoned`
    /// after any other: they can never be made durable.
    fn replace_lost(&mut self) -> Result<()> {
        if is_planted(Bug::ForgetLostFile) {
            self.lost.clear();
        }
        while let Some((_, writer)) = self.lost.last() {
            match self.seal_elsewhere(writer) {
                Ok(()) => drop(self.lost.pop()),
                Err(error) if error.kind() == ErrorKind::NoSpace => return Err(error),
                Err(_) => {
                    self.poison();
                    return Err(poisoned());
                }
            }
        }
        Ok(())
    }

    fn poison(&mut self) {
        let mut rows = Vec::new();
        for ((table, partition), writer) in self.lost.drain(..) {
            rows.extend(writer.unsynced().iter().map(|batch| PartitionBatch {
                table,
                partition,
                bytes: 0,
                batch: Arc::clone(batch),
            }));
            // The lock stays held while the store is open: nobody else judges the file.
            self.given_up.push(writer);
        }
        rows.append(&mut self.pending);
        self.gate.set_poisoned(rows);
    }

    fn seal_elsewhere(&self, writer: &ActiveWriter) -> Result<()> {
        let mut batches;
        if writer.keeps_unsynced() {
            batches = writer.read_back(writer.durable_seq())?;
            batches.extend(writer.unsynced().iter().map(|batch| batch.as_ref().clone()));
        } else {
            batches = writer.read_back(Some(u64::MAX))?;
        }
        let sealed = writer.seal(&self.root, &batches)?;
        // Best effort: readers list again within a second whatever it says.
        let _ = generation::bump(self.root.fs.as_ref(), &self.root.dir);
        if sealed.is_durable {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, "the directory could not be synced").with_path(writer.path()))
    }

    /// Ends an active segment and hands it on to be sealed.
    fn roll(&mut self, key: (Table, Partition)) -> Result<()> {
        let Some(active) = self.actives.get_mut(&key) else { return Ok(()) };
        match active.writer.finish() {
            Ok(()) => {}
            // Only the END mark did not fit; a sync that found the disk full is another matter.
            Err(error) if error.kind() == ErrorKind::NoSpace && !active.writer.is_lost() => {
                return Err(error);
            }
            Err(_) => {
                self.give_up(key);
                return Ok(());
            }
        }
        if let Some(active) = self.actives.remove(&key) {
            // Waits when sealing lags behind.
            (self.rolled)(active.writer);
        }
        Ok(())
    }

    fn roll_all(&mut self) -> Result<()> {
        let keys: Vec<_> = self.actives.keys().copied().collect();
        keys.into_iter().try_for_each(|key| self.roll(key))
    }

    /// Ends every active segment; hands on those that are worth sealing at once.
    fn end_all(&mut self) -> Result<()> {
        let keys: Vec<_> = self.actives.keys().copied().collect();
        for key in keys {
            let Some(active) = self.actives.get_mut(&key) else { continue };
            if active.writer.rows() >= SEAL_ON_CLOSE_ROWS {
                self.roll(key)?;
            } else if active.writer.finish().is_err() {
                // Everything committed is durable already: only the END mark is missing.
                self.actives.remove(&key);
            }
        }
        self.actives.clear();
        self.replace_lost()
    }

    /// What can wait until nobody does: space ahead, segments whose day is past.
    fn idle_work(&mut self) {
        if !(self.pending.is_empty() && self.lost.is_empty() && self.receiver.is_empty()) {
            return;
        }
        let keys: Vec<_> = self.actives.keys().copied().collect();
        for key in &keys {
            let filled = self.actives.get_mut(key).map_or(Ok(()), |a| a.writer.fill_ahead());
            if filled.is_err() {
                // The next round replaces it.
                self.give_up(*key);
            }
        }
        let elapsed = self.root.options.clock.elapsed();
        let delay = self.root.options.roll_delay;
        if elapsed.saturating_sub(self.last_look) < delay.min(Duration::from_secs(10)) {
            return;
        }
        self.last_look = elapsed;
        let delay_micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        let now = self.root.now();
        for key in keys {
            let past = now >= key.1.range().end.saturating_add(delay_micros.max(MICROS_PER_SECOND));
            let active = self.actives.get(&key);
            let idle = active.is_some_and(|a| elapsed.saturating_sub(a.used) >= delay);
            let full = active.is_some_and(|a| a.writer.rows() >= self.root.options.roll_rows);
            if full || (past && idle) {
                // Tried again at the next look.
                let _ = self.roll(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Options;
    use crate::format::id::Id;
    use crate::fs::FileSystem;
    use crate::fs::sim::SimFileSystem;
    use crate::ingest::buffer::RowRef;
    use crate::ingest::channel::SharedSlot;
    use crate::row::TaskMetric;
    use crate::snapshot::lister::Lister;
    use crate::store_files::identity::create_store;
    use crate::store_files::retention::RetentionRules;
    use crate::sync::channel::bounded;
    use crate::sync::thread;
    use crate::time::Timestamp;

    fn store() -> (SimFileSystem, StoreRoot) {
        let (fs, dir) = (SimFileSystem::new(), Path::new("/store"));
        let store = create_store(&fs, dir, 0, &RetentionRules::default()).unwrap();
        let root = StoreRoot {
            fs: Arc::new(fs.clone()),
            dir: dir.to_path_buf(),
            id: store.store().store_id,
            writer: Id::from_bytes(fs.unique_id()),
            options: Arc::new(Options::default()),
        };
        (fs, root)
    }

    fn start(root: &StoreRoot, gate: &Arc<Gate>, receiver: Receiver<Message>) -> Committing {
        let committer = Committer::new(root.clone(), Arc::clone(gate), receiver, Box::new(drop));
        thread::spawn(move || committer.run())
    }

    type Committing = thread::JoinHandle<()>;

    fn accept(gate: &Gate, slot: &SharedSlot, number: i64) -> Result<()> {
        let row = TaskMetric {
            timestamp: Timestamp::clamped(number),
            task_id: "task",
            agent_id: "agent",
            duration_ms: Some(number),
            tokens_used: None,
            success: true,
            metadata: None,
        };
        gate.accept(slot, RowRef::Task(&row), Duration::ZERO)
    }

    fn send_close(gate: &Gate, closing: u64) -> Receiver<Result<()>> {
        let (reply, answer) = bounded(1);
        assert!(gate.send(Message::Close { closing, reply }).is_ok());
        answer
    }

    fn rows(root: &StoreRoot) -> u64 {
        Lister::new(root.clone()).snapshot().unwrap().rows(Table::Task)
    }

    /// A close that was given up left its message in the channel. When the committer met it
    /// during the next close, it ended, although that close had not handed over its rows.
    #[test]
    fn a_close_that_was_given_up_does_not_end_the_next_one() {
        let (_, root) = store();
        let (gate, receiver) = Gate::new(64, 1 << 20, 100);
        let slot = gate.slot();
        accept(&gate, &slot, 1).unwrap();
        let first = gate.begin_close().unwrap();
        gate.hand_over_all().unwrap();
        drop(send_close(&gate, first));
        assert!(gate.give_up_close(first));
        accept(&gate, &slot, 2).unwrap();
        let second = gate.begin_close().unwrap();
        assert_eq!(accept(&gate, &slot, 3).unwrap_err().kind(), ErrorKind::Closed);

        let thread = start(&root, &gate, receiver);
        // It has met the first message when it has committed what lay before it.
        while rows(&root) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        gate.hand_over_all().unwrap();
        send_close(&gate, second).recv().unwrap().unwrap();
        thread.join().unwrap();
        assert_eq!(rows(&root), 2);
        assert!(!gate.give_up_close(second), "it came through");
        assert_eq!(gate.begin_close(), None);
    }

    /// A close that was given up raced with the committer's end: the store was open, but the
    /// committer gone. Now only one of the two can happen.
    #[test]
    fn a_close_is_given_up_or_comes_through() {
        for round in 0..200 {
            let (_, root) = store();
            let (gate, receiver) = Gate::new(64, 1 << 20, 100);
            let slot = gate.slot();
            let thread = start(&root, &gate, receiver);
            accept(&gate, &slot, 1).unwrap();
            let closing = gate.begin_close().unwrap();
            gate.hand_over_all().unwrap();
            let answer = send_close(&gate, closing);
            if round % 2 == 0 {
                thread::sleep(Duration::from_micros(5 * round));
            }
            let given_up = gate.give_up_close(closing);
            drop(answer);
            if given_up {
                accept(&gate, &slot, 2).unwrap();
                gate.ask(|reply| Message::Barrier { sync: true, reply }).unwrap();
                let closing = gate.begin_close().unwrap();
                send_close(&gate, closing).recv().unwrap().unwrap();
            }
            thread.join().unwrap();
            assert_eq!(rows(&root), 1 + u64::from(given_up));
        }
    }
}
