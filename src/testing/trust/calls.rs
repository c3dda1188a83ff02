//! Failing calls: each call of a workload fails, once or for ever, with each error that fits.
//!
//! The workload opens, appends, flushes, imports, seals, maintains, backs up, closes and opens
//! again; one of its calls fails. What must hold: no panic and no error without a kind that
//! fits; what was acknowledged is there, live, after a power cut and after a kill; and when the
//! fault is gone the store works again, without being reopened where nothing but space was
//! missing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::crash::{DIR, archive_everything, everything};
use super::rows::{Hand, Ledger, options};
use super::{Verdict, Violation, ensure, guarded};
use crate::config::{Options, Retention, TableRetention, Tiers};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Table;
use crate::store::Store;
use crate::testing::workload::Random;
use crate::testing::{CrashPolicy, Fault, OpKind, SimFileSystem, open_store, open_store_read_only};

/// The errors that calls of the system fail with, by name.
pub const FAULTS: [(&str, Fault); 9] = [
    ("EIO", Fault::IO),
    ("ENOSPC", Fault::NO_SPACE),
    ("EDQUOT", Fault::Errno(libc::EDQUOT)),
    ("EMFILE", Fault::Errno(libc::EMFILE)),
    ("EINTR", Fault::Errno(libc::EINTR)),
    ("EAGAIN", Fault::Errno(libc::EAGAIN)),
    ("EACCES", Fault::Errno(libc::EACCES)),
    ("EROFS", Fault::Errno(libc::EROFS)),
    ("short write", Fault::ShortWrite),
];

/// A process gives up after so many flushes that failed.
const FLUSHES_FAILED_MAX: usize = 2;

/// One injection: which call fails, how, and whether all after it do.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// The call, counted from 0 among those of its kind.
    pub call: u64,
    /// Which calls are counted and fail; all where there is none.
    pub kind: Option<OpKind>,
    /// How it fails.
    pub fault: Fault,
    /// Whether every later call fails too.
    pub forever: bool,
}

/// The store under a fault, and what it said.
struct Trial {
    fs: SimFileSystem,
    clock: Arc<Hand>,
    ledger: Ledger,
    random: Random,
    /// Batches that were acknowledged.
    durable: usize,
}

/// Runs the workload with one injection, and checks what is left. False if the workload ended
/// before the call that was to fail.
///
/// # Errors
///
/// What does not hold.
pub fn check(injection: Injection) -> Verdict<bool> {
    let Injection { call, kind, fault, forever } = injection;
    let mut trial = Trial {
        fs: SimFileSystem::with_seed(call),
        clock: Hand::new(),
        ledger: Ledger::default(),
        random: Random::new(5),
        durable: 0,
    };
    trial.fs.fail_path_matching("", kind, call, fault, forever);
    let story = format!("{fault:?} at call {call} of {kind:?}, for ever: {forever}");
    let done = guarded(|| trial.run(fault));
    done.map_err(|found| found.after(&format!("{story} ({:?})", trial.fs.first_fault())))
}

/// Whether a call of the system that fails may be told so; `fired`: whether one has failed.
pub(super) fn fits(kind: ErrorKind, fired: bool) -> bool {
    match kind {
        ErrorKind::Io
        | ErrorKind::NoSpace
        | ErrorKind::Locked
        | ErrorKind::Poisoned
        | ErrorKind::Closed
        | ErrorKind::Full
        | ErrorKind::SnapshotGone => true,
        ErrorKind::Incomplete => fired,
        _ => false,
    }
}

/// Errors that say that only space is missing.
fn is_space(fault: Fault) -> bool {
    matches!(fault, Fault::ShortWrite)
        || fault == Fault::NO_SPACE
        || fault == Fault::Errno(libc::EDQUOT)
}

impl Trial {
    fn options(&self) -> Options {
        options(&self.clock)
    }

    fn open(&self) -> Result<Store> {
        open_store(&self.fs, Path::new(DIR), self.options())
    }

    fn run(&mut self, fault: Fault) -> Verdict<bool> {
        let mut store = None;
        // A crash that a writer left, so that opening has something to recover.
        for round in 0..2 {
            match self.open() {
                Ok(opened) => {
                    self.work(&opened)?;
                    if round == 0 {
                        let closed = self.note(opened.close())?;
                        self.durable =
                            if closed { self.ledger.batches.len() } else { self.durable };
                    }
                    store = Some(opened);
                }
                Err(error) => self.accept(&error)?,
            }
        }
        let fired = self.fs.faults_fired() > 0;
        self.fs.heal();
        if let Some(store) = &store {
            self.check_healed(store, fault, fired)?;
        }
        self.check_left(fired)?;
        Ok(fired)
    }

    /// Everything a process does with a store.
    fn work(&mut self, store: &Store) -> Verdict {
        self.note(store.set_retention(&archive_everything()))?;
        let mut failures = 0;
        for step in 0..7 {
            let appended = self.ledger.append(store, &mut self.random);
            self.note(appended)?;
            match step {
                2 => drop(self.note(store.seal())?),
                4 => {
                    let imported = self.ledger.import(store, &mut self.random);
                    self.note(imported)?;
                }
                5 => {
                    self.note(store.maintain(&everything()).map(drop))?;
                }
                _ => {}
            }
            if self.note(store.flush())? {
                self.durable = self.ledger.batches.len();
            } else {
                failures += 1;
            }
            // Every call to a store that cannot write waits for an attempt of it to write.
            if failures == FLUSHES_FAILED_MAX {
                break;
            }
        }
        let _ = store.verify(true);
        Ok(())
    }

    /// Whether a call was answered with Ok; an error must be of a kind that fits.
    fn note(&self, result: Result<()>) -> Verdict<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(error) => self.accept(&error).map(|()| false),
        }
    }

    fn accept(&self, error: &Error) -> Verdict {
        ensure(fits(error.kind(), self.fs.faults_fired() > 0), || {
            format!("a failing call is told as {:?}: {error}", error.kind())
        })
    }

    /// The running store, after the fault has gone.
    fn check_healed(&mut self, store: &Store, fault: Fault, fired: bool) -> Verdict {
        let story = |found: Violation| found.after("healed, not reopened");
        match store.flush() {
            Ok(()) => self.durable = self.ledger.batches.len(),
            Err(error) if error.kind() == ErrorKind::Closed => {}
            Err(error) => {
                // An error that waited to be told; the next says how it is now.
                self.accept(&error)?;
                match store.flush() {
                    Ok(()) => self.durable = self.ledger.batches.len(),
                    Err(error) => {
                        let only_space = is_space(fault) || !fired;
                        let kind = error.kind();
                        ensure(!only_space && kind == ErrorKind::Poisoned, || {
                            format!("healed, and still {kind:?}: {error}")
                        })?;
                    }
                }
            }
        }
        self.ledger.check(store, self.durable).map_err(story)?;
        let crash = self.fs.crash_image(CrashPolicy::None, 1);
        let crash = open_store_read_only(&crash, Path::new(DIR), self.options());
        match crash {
            Ok(crash) => {
                self.ledger.check(&crash, self.durable).map_err(|it| it.after("cut"))?;
            }
            Err(error) => ensure(self.durable == 0, || format!("cut: {error}"))?,
        }
        Ok(())
    }

    /// What is left for the next process.
    fn check_left(&mut self, fired: bool) -> Verdict {
        let images = [
            ("killed", self.fs.kill_image()),
            ("power cut", self.fs.crash_image(CrashPolicy::None, 1)),
            ("power cut at random", self.fs.crash_image(CrashPolicy::Random, 2)),
        ];
        for (what, image) in images {
            let again = guarded(|| {
                let store = match open_store(&image, Path::new(DIR), self.options()) {
                    Ok(store) => store,
                    Err(error) => {
                        return ensure(self.durable == 0 && fired, || format!("opening: {error}"));
                    }
                };
                let rows = self.ledger.check(&store, self.durable)?;
                let mut ledger = self.ledger.clone();
                ledger.append(&store, &mut self.random.clone())?;
                store.flush()?;
                let more = ledger.check(&store, self.durable)?;
                ensure(more > rows, || "a row is not there that was flushed".to_owned())?;
                store.seal()?;
                ledger.check(&store, self.durable)?;
                Ok(store.close()?)
            });
            again.map_err(|found| found.after(what))?;
        }
        Ok(())
    }
}

/// Rows that find the disk full wait, and are there when there is space, in the same store.
///
/// # Errors
///
/// What does not hold.
pub fn check_full_disk(seed: u64) -> Verdict {
    guarded(|| {
        let clock = Hand::new();
        let fs = SimFileSystem::with_seed(seed);
        let mut ledger = Ledger::default();
        let mut random = Random::new(seed);
        let store = open_store(&fs, Path::new(DIR), options(&clock))?;
        for _ in 0..10 {
            ledger.append(&store, &mut random)?;
        }
        store.flush()?;
        fs.space_limit(Some(fs.used_bytes() + random.below(20_000)));
        // What fits into the space that was filled ahead is written; then the door closes.
        let full = (0..1_000).find_map(|_| ledger.append(&store, &mut random).err());
        let full = full.ok_or_else(|| Violation::new("a full disk takes rows without end"))?;
        ensure(full.kind() == ErrorKind::NoSpace, || full.to_string())?;
        fs.space_limit(None);
        store.flush()?;
        ledger.check(&store, ledger.batches.len())?;
        Ok(store.close()?)
    })
}

/// Days that have expired go although the disk is full: the reserve is given up for that.
///
/// # Errors
///
/// What does not hold.
pub fn check_reserve(seed: u64) -> Verdict {
    guarded(|| {
        let clock = Hand::new();
        let fs = SimFileSystem::with_seed(seed);
        let mut ledger = Ledger::default();
        let mut random = Random::new(seed);
        let store = open_store(&fs, Path::new(DIR), options(&clock))?;
        let days = Tiers { detailed_days: 10, archive_days: 0, hourly_days: 0, daily_days: 0 };
        store.set_retention(&Retention { task: TableRetention::Tiers(days), ..Retention::KEEP })?;
        for _ in 0..20 {
            ledger.append(&store, &mut random)?;
        }
        store.seal()?;
        clock.advance(Duration::from_secs(100 * 86_400));
        fs.space_limit(Some(fs.used_bytes()));
        store.maintain(&everything())?;
        let rows = store.snapshot()?.rows(Table::Task);
        ensure(rows == 0, || format!("{rows} rows are past their time and still there"))?;
        fs.space_limit(None);
        Ok(store.close()?)
    })
}
