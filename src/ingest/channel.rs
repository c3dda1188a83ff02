//! What lies between appenders and the committer: slots, the bounded channel, its state.
//!
//! Owns `Slot` (one appender's buffer), `Gate` (the sending side) and `Message`. A slot
//! sits behind a lock of its own that nobody contends for but the timer and `flush`.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use crate::column::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::buffer::{Buffer, PartitionBatch, RowRef};
use crate::limits::BATCH_BYTES_MAX;
use crate::planted::{Bug, is_planted};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// How long a sender waits before it looks whether the committer is stalled.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often one who expects an answer at once looks for it before going to sleep.
const LOOKS: usize = 64;

/// Looks for what should be there within microseconds, letting others run in between: being
/// woken costs more than the whole round of a small commit that is not synced.
pub(crate) fn soon<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    (0..LOOKS).find_map(|_| {
        let found = look();
        if found.is_none() {
            thread::yield_now();
        }
        found
    })
}

/// Stages of a store's life. Appenders, closers and the committer look at one and the same
/// value, and of those who try to change it only one can. Between these two lies the number
/// of the try to close that is under way: no row is accepted, and either the committer ends,
/// or whoever closes gives up and opens again.
const OPEN: u64 = 0;
/// The committer has ended, and never takes anything again.
const ENDED: u64 = u64::MAX;

/// What the committer is told, in order.
pub(crate) enum Message {
    /// Commit these rows.
    Batch(PartitionBatch),
    /// Answer when everything before is committed, and durable if `sync`.
    Barrier { sync: bool, reply: Sender<Result<()>> },
    /// As a durable barrier; then end every active segment and have it sealed.
    Roll { reply: Sender<Result<()>> },
    /// As a durable barrier; then end every active segment and stop. `closing` is the number
    /// of the try to close: one that was given up may lie here before rows of the next.
    Close { closing: u64, reply: Sender<Result<()>> },
}

/// One appender's rows that the committer has not been given.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    buffer: Buffer,
    /// Taken out of the buffer, but the channel was full.
    outbox: std::collections::VecDeque<PartitionBatch>,
    /// When the oldest row came, by the clock's `elapsed`.
    since: Option<Duration>,
}

impl Slot {
    /// Whether a row has waited since before `moment`.
    pub(crate) fn is_older_than(&self, moment: Duration) -> bool {
        !self.outbox.is_empty() || self.since.is_some_and(|since| since <= moment)
    }

    /// Whether no row waits in it.
    fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.buffer.rows() == 0
    }

    /// Everything in it, oldest first.
    pub(crate) fn take(&mut self) -> Vec<PartitionBatch> {
        self.since = None;
        let mut batches: Vec<_> = self.outbox.drain(..).collect();
        batches.extend(self.buffer.take());
        batches
    }
}

/// A slot that its appender, the timer and `flush` share.
pub(crate) type SharedSlot = Arc<Mutex<Slot>>;

/// Locks, whatever happened to the thread that held it: a slot is whole between rows.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the committer gets on with writing.
#[derive(Debug, Default)]
struct Progress {
    /// Attempts to write that were begun.
    begun: u64,
    /// Why the last attempt failed, and its number.
    stalled: Option<(u64, Error)>,
    /// Somebody waits for the next attempt.
    nudged: bool,
}

/// The sending side of the channel, and what both sides know of each other.
#[derive(Debug)]
pub(crate) struct Gate {
    sender: Sender<Message>,
    buffer_rows: usize,
    bytes_max: usize,
    queued_bytes: Mutex<usize>,
    room: Condvar,
    slots: Mutex<Vec<Weak<Mutex<Slot>>>>,
    /// Slots whose appender is gone but whose rows are not committed.
    orphans: Mutex<Vec<SharedSlot>>,
    progress: Mutex<Progress>,
    nudge: Condvar,
    poisoned: AtomicBool,
    stage: AtomicU64,
    closings: AtomicU64,
    abandoned: AtomicBool,
    unacknowledged: Mutex<Vec<PartitionBatch>>,
}

impl Gate {
    /// A channel of at most `batches` batches and about `bytes_max` bytes; buffers are
    /// handed over at `buffer_rows` rows.
    pub(crate) fn new(
        batches: usize,
        bytes_max: usize,
        buffer_rows: usize,
    ) -> (Arc<Self>, Receiver<Message>) {
        let (sender, receiver) = bounded(batches);
        let gate = Self {
            sender,
            buffer_rows,
            bytes_max,
            queued_bytes: Mutex::new(0),
            room: Condvar::new(),
            slots: Mutex::default(),
            orphans: Mutex::default(),
            progress: Mutex::default(),
            nudge: Condvar::new(),
            poisoned: AtomicBool::new(false),
            stage: AtomicU64::new(OPEN),
            closings: AtomicU64::new(OPEN),
            abandoned: AtomicBool::new(false),
            unacknowledged: Mutex::default(),
        };
        (Arc::new(gate), receiver)
    }

    /// A new slot, known to the timer and to `flush` while its owner keeps it.
    pub(crate) fn slot(&self) -> SharedSlot {
        let slot = SharedSlot::default();
        let mut slots = locked(&self.slots);
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(&slot));
        slot
    }

    /// Keeps a slot whose appender is gone until its rows are committed.
    pub(crate) fn adopt(&self, slot: SharedSlot) {
        locked(&self.orphans).push(slot);
    }

    /// The slots in use.
    pub(crate) fn slots(&self) -> Vec<SharedSlot> {
        locked(&self.orphans).retain(|slot| !slot.try_lock().is_ok_and(|slot| slot.is_empty()));
        locked(&self.slots).iter().filter_map(Weak::upgrade).collect()
    }

    /// Accepts a row that has passed its checks. Waits only while the channel is full.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `Io`: the committer cannot write and everything before it is full; the
    /// row is not accepted. `Closed`, `Poisoned`.
    pub(crate) fn accept(&self, slot: &Mutex<Slot>, row: RowRef<'_>, now: Duration) -> Result<()> {
        let early = is_planted(Bug::CheckBeforeLock).then(|| self.check());
        let mut slot = locked(slot);
        early.unwrap_or_else(|| self.check())?;
        if slot.buffer.rows() >= self.buffer_rows {
            self.hand_over(&mut slot)?;
        }
        slot.since.get_or_insert(now);
        slot.buffer.push(row);
        if self.is_due(&slot) {
            // The row is accepted: if the committer is stalled, it waits in the buffer.
            let _ = self.hand_over(&mut slot);
        }
        Ok(())
    }

    /// As `accept`, but never waits.
    ///
    /// # Errors
    ///
    /// `Full` when the buffer is, and the channel has no room; the row is not accepted.
    pub(crate) fn try_accept(
        &self,
        slot: &Mutex<Slot>,
        row: RowRef<'_>,
        now: Duration,
    ) -> Result<()> {
        let full = || Error::new(ErrorKind::Full, "the channel to the committer is full");
        let mut slot = slot.try_lock().map_err(|_| full())?;
        self.check()?;
        if slot.buffer.rows() >= self.buffer_rows && !self.try_hand_over(&mut slot) {
            return Err(full());
        }
        slot.since.get_or_insert(now);
        slot.buffer.push(row);
        if self.is_due(&slot) {
            self.try_hand_over(&mut slot);
        }
        Ok(())
    }

    fn is_due(&self, slot: &Slot) -> bool {
        slot.buffer.rows() >= self.buffer_rows || slot.buffer.bytes() >= BATCH_BYTES_MAX / 4
    }

    /// Accepts whole columns, already split by partition.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept): then nothing of them is accepted.
    pub(crate) fn accept_batches(
        &self,
        slot: &Mutex<Slot>,
        batches: Vec<PartitionBatch>,
    ) -> Result<()> {
        let mut slot = locked(slot);
        self.check()?;
        self.hand_over(&mut slot)?;
        slot.outbox.extend(batches);
        // Accepted from here on; what the channel has no room for yet waits in the outbox.
        let _ = self.send_outbox(&mut slot);
        Ok(())
    }

    /// Gives the committer everything in the slot.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); what was not handed over stays in the slot.
    pub(crate) fn hand_over(&self, slot: &mut Slot) -> Result<()> {
        self.send_outbox(slot)?;
        let batches = slot.take();
        slot.outbox.extend(batches);
        self.send_outbox(slot)
    }

    fn send_outbox(&self, slot: &mut Slot) -> Result<()> {
        while let Some(batch) = slot.outbox.pop_front() {
            if let Err((batch, error)) = self.send_batch(batch) {
                slot.outbox.push_front(batch);
                return Err(error);
            }
        }
        Ok(())
    }

    fn try_hand_over(&self, slot: &mut Slot) -> bool {
        if slot.outbox.is_empty() {
            let batches = slot.take();
            slot.outbox.extend(batches);
        }
        while let Some(batch) = slot.outbox.pop_front() {
            let bytes = batch.bytes;
            if !self.reserve_now(bytes) {
                slot.outbox.push_front(batch);
                return false;
            }
            match self.sender.try_send(Message::Batch(batch)) {
                Ok(()) => {}
                Err(error) => {
                    self.release(bytes);
                    if let Message::Batch(batch) = error.into_inner() {
                        slot.outbox.push_front(batch);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn send_batch(&self, batch: PartitionBatch) -> Result<(), (PartitionBatch, Error)> {
        let bytes = batch.bytes;
        if let Err(error) = self.reserve(bytes) {
            return Err((batch, error));
        }
        match self.send(Message::Batch(batch)) {
            Ok(()) => Ok(()),
            Err((Message::Batch(batch), error)) => {
                self.release(bytes);
                Err((batch, error))
            }
            Err(_) => unreachable!("the message that was not sent is the one that was given"),
        }
    }

    /// Sends a message; waits while the channel is full and the committer gets on.
    pub(crate) fn send(&self, mut message: Message) -> Result<(), (Message, Error)> {
        // Mostly there is room, and nothing has to be known of time and attempts.
        match self.sender.try_send(message) {
            Ok(()) => return Ok(()),
            Err(back) => message = back.into_inner(),
        }
        let since = self.attempts();
        loop {
            match self.sender.send_timeout(message, LOOK_EVERY) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Disconnected(back)) => return Err((back, closed())),
                Err(SendTimeoutError::Timeout(back)) => {
                    if let Err(error) = self.check_progress(since) {
                        return Err((back, error));
                    }
                    message = back;
                }
            }
        }
    }

    fn reserve_now(&self, bytes: usize) -> bool {
        let mut queued = locked(&self.queued_bytes);
        let fits = *queued == 0 || *queued + bytes <= self.bytes_max;
        if fits {
            *queued += bytes;
        }
        fits
    }

    fn reserve(&self, bytes: usize) -> Result<()> {
        if self.reserve_now(bytes) {
            return Ok(());
        }
        let since = self.attempts();
        let mut queued = locked(&self.queued_bytes);
        while *queued > 0 && *queued + bytes > self.bytes_max {
            let (back, wait) =
                self.room.wait_timeout(queued, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner);
            queued = back;
            if wait.timed_out() {
                self.check_progress(since)?;
            }
        }
        *queued += bytes;
        Ok(())
    }

    /// Takes room for a batch that did not come through the channel.
    pub(crate) fn take_room(&self, bytes: usize) {
        *locked(&self.queued_bytes) += bytes;
    }

    /// Gives back the room of a batch that has been committed.
    pub(crate) fn release(&self, bytes: usize) {
        let mut queued = locked(&self.queued_bytes);
        *queued = queued.saturating_sub(bytes);
        self.room.notify_all();
    }

    /// Hands over every slot, sends the message that `make` makes, and waits for its answer.
    ///
    /// # Errors
    ///
    /// What the committer answers, or why it cannot get on.
    pub(crate) fn ask(&self, make: impl FnOnce(Sender<Result<()>>) -> Message) -> Result<()> {
        self.check()?;
        self.hand_over_all()?;
        self.ask_only(make)
    }

    /// Gives the committer everything in every slot.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); what was not handed over stays in its slot.
    pub(crate) fn hand_over_all(&self) -> Result<()> {
        self.slots().iter().try_for_each(|slot| self.hand_over(&mut locked(slot)))
    }

    /// As `ask`, without handing over any slot.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub(crate) fn ask_only(&self, make: impl FnOnce(Sender<Result<()>>) -> Message) -> Result<()> {
        let since = self.attempts();
        let (reply, answer) = bounded(1);
        let message = make(reply);
        let quick = matches!(message, Message::Barrier { sync: false, .. });
        self.send(message).map_err(|(_, error)| error)?;
        if quick && let Some(result) = soon(|| answer.try_recv().ok()) {
            return result;
        }
        loop {
            match answer.recv_timeout(LOOK_EVERY) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {
                    self.check_progress(since)?;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.check_progress(since)?;
                    return Err(closed());
                }
            }
        }
    }

    /// Whether the store takes rows at all. Looked at under the lock of the slot that a row
    /// goes to: closing takes each of these locks to empty the slots, so that a row is either
    /// among what it hands over, or refused.
    pub(crate) fn check(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(poisoned());
        }
        if self.stage.load(Ordering::Acquire) != OPEN {
            return Err(closed());
        }
        Ok(())
    }

    fn attempts(&self) -> u64 {
        locked(&self.progress).begun
    }

    /// Fails when an attempt to write failed that was begun after the first `since`: what
    /// an earlier one met, a full disk above all, may be over. Asks for the next attempt.
    fn check_progress(&self, since: u64) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(poisoned());
        }
        let mut progress = locked(&self.progress);
        match &progress.stalled {
            Some((attempt, error)) if *attempt > since => return Err(error.clone()),
            Some(_) => progress.nudged = true,
            None => return Ok(()),
        }
        self.nudge.notify_all();
        Ok(())
    }

    /// The committer begins an attempt to write; returns its number.
    pub(crate) fn begin_attempt(&self) -> u64 {
        let mut progress = locked(&self.progress);
        progress.begun += 1;
        progress.begun
    }

    /// How the attempt ended: the committer cannot write, or can again.
    pub(crate) fn end_attempt(&self, attempt: u64, error: Option<Error>) {
        locked(&self.progress).stalled = error.map(|error| (attempt, error));
    }

    /// Waits before the next attempt, or until somebody asks for it.
    pub(crate) fn wait_for_retry(&self, time: Duration) {
        let progress = locked(&self.progress);
        let (mut progress, _) = self
            .nudge
            .wait_timeout_while(progress, time, |progress| !progress.nudged)
            .unwrap_or_else(PoisonError::into_inner);
        progress.nudged = false;
    }

    /// No row is accepted from now on; the number of this try to close. `None` if the
    /// committer has ended already. One caller at a time.
    pub(crate) fn begin_close(&self) -> Option<u64> {
        let closing = self.closings.fetch_add(1, Ordering::AcqRel) + 1;
        self.change_stage(OPEN, closing).then_some(closing)
    }

    /// Rows are accepted again: what was accepted before could not be written. False if the
    /// committer has ended after all, with everything written.
    pub(crate) fn give_up_close(&self, closing: u64) -> bool {
        self.change_stage(closing, OPEN)
    }

    /// The committer ends, and takes no message any more. False if whoever closed the store
    /// has given that up: rows may wait again.
    pub(crate) fn end_close(&self, closing: u64) -> bool {
        self.change_stage(closing, ENDED)
    }

    /// The committer ends, whatever is left.
    pub(crate) fn end(&self) {
        self.stage.store(ENDED, Ordering::Release);
    }

    /// Whether this try to close is the one under way.
    pub(crate) fn is_closing(&self, closing: u64) -> bool {
        self.stage.load(Ordering::Acquire) == closing
    }

    fn change_stage(&self, from: u64, to: u64) -> bool {
        self.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Nobody waits for what cannot be written: the committer ends without it.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        locked(&self.progress).nudged = true;
        self.nudge.notify_all();
    }

    /// Whether the committer is to end although rows are left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Whether rows' outcome is unknown.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Nothing can be made durable any more; these rows' outcome is unknown.
    pub(crate) fn set_poisoned(&self, rows: Vec<PartitionBatch>) {
        locked(&self.unacknowledged).extend(rows);
        self.poisoned.store(true, Ordering::Release);
    }

    /// Rows that were accepted, but are not known to be durable, of a poisoned store.
    pub(crate) fn take_unacknowledged(&self) -> Vec<Arc<Batch>> {
        let mut rows: Vec<_> =
            locked(&self.unacknowledged).drain(..).map(|batch| batch.batch).collect();
        if self.poisoned.load(Ordering::Acquire) {
            for slot in self.slots() {
                rows.extend(locked(&slot).take().into_iter().map(|batch| batch.batch));
            }
        }
        rows
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store has been closed")
}

pub(crate) fn poisoned() -> Error {
    Error::new(ErrorKind::Poisoned, "rows could not be made durable, nor written elsewhere")
        .with_remedy("take_unacknowledged() hands back the rows whose outcome is unknown")
}
