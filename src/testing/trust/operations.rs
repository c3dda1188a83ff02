//! Any order of operations, faults and crashes: a list of bytes says what is done to a store, by
//! one handle or another, which calls fail, when the power goes and what survives that.
//!
//! The ledger knows what was acknowledged; it must be there after every step, once. What was not
//! acknowledged and is gone after a crash stays gone, and what was read after a loss of power
//! stays there. Without a fault no call fails.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::calls::{FAULTS, fits};
use super::crash::{DIR, PAST_GRACE, archive_everything, everything};
use super::rows::{Fate, Hand, Ledger, options};
use super::{Verdict, Violation, ensure, guarded};
use crate::config::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::testing::workload::Random;
use crate::testing::{CrashPolicy, SimFileSystem, open_store, open_store_read_only};

/// Most steps of one list.
pub const STEPS_MAX: usize = 64;
/// Calls that may pass before the one that is to fail.
const CALLS_MAX: u64 = 64;

/// What is done next; a byte says which, the byte after it how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Append,
    Commit,
    Flush,
    Import,
    Seal,
    Reopen,
    Maintain,
    Wait,
    OtherAppends,
    OtherSeals,
    OtherOpensOrCloses,
    Verify,
    Kill,
    PowerCut,
    CallFails,
    DiskFills,
    Heal,
    UndoImport,
    BackUp,
    Repair,
}

/// By number; those that are listed more often are done more often. What is added comes last, so
/// that lists that found something stay what they were.
const STEPS: [Step; 28] = [
    Step::Append,
    Step::Append,
    Step::Append,
    Step::Flush,
    Step::Flush,
    Step::Commit,
    Step::Import,
    Step::Seal,
    Step::Reopen,
    Step::Maintain,
    Step::Maintain,
    Step::Wait,
    Step::OtherAppends,
    Step::OtherAppends,
    Step::OtherSeals,
    Step::OtherOpensOrCloses,
    Step::Verify,
    Step::Kill,
    Step::PowerCut,
    Step::PowerCut,
    Step::CallFails,
    Step::DiskFills,
    Step::Heal,
    Step::Heal,
    Step::UndoImport,
    Step::UndoImport,
    Step::BackUp,
    Step::Repair,
];

/// Where backups go, each into the one before.
const BACKUP: &str = "/backup";

/// Ways in which a loss of power leaves what was not synced.
const POLICIES: [CrashPolicy; 12] = [
    CrashPolicy::None,
    CrashPolicy::All,
    CrashPolicy::Prefix(1),
    CrashPolicy::Prefix(3),
    CrashPolicy::Only(0),
    CrashPolicy::Only(2),
    CrashPolicy::NamesWithoutData,
    CrashPolicy::DataWithoutNames,
    CrashPolicy::SizeWithoutData,
    CrashPolicy::ZeroTail,
    CrashPolicy::Random,
    CrashPolicy::Torn,
];

/// A store under a list of steps, and what it said.
struct Trial {
    fs: SimFileSystem,
    clock: Arc<Hand>,
    options: Options,
    ledger: Ledger,
    /// Batches that were acknowledged.
    durable: usize,
    store: Option<Store>,
    other: Option<Store>,
    /// Whether calls fail, or the disk is full.
    faulty: bool,
    /// Whether that was so since the stores were opened.
    troubled: bool,
}

/// Does what the list says, and checks the store on the way and at its end.
///
/// # Errors
///
/// What does not hold.
pub fn check(list: &[u8]) -> Verdict {
    let mut trial = Trial::new()?;
    let mut done = Vec::new();
    let outcome = guarded(|| trial.run(list, &mut done));
    outcome.map_err(|found| {
        let fault = trial.fs.first_fault();
        // Threads that wait for a disk that works again would wait for ever.
        trial.heal();
        found.after(&format!("{done:?} ({fault:?})"))
    })
}

/// A store without rows, closed: making one takes longer than most of what is done to it then.
fn base() -> Verdict<&'static SimFileSystem> {
    static BASE: OnceLock<SimFileSystem> = OnceLock::new();
    if let Some(made) = BASE.get() {
        return Ok(made);
    }
    let fs = SimFileSystem::with_seed(1);
    let store = open_store(&fs, Path::new(DIR), options(&Hand::new()))?;
    store.set_retention(&archive_everything())?;
    store.close()?;
    fs.checkpoint();
    Ok(BASE.get_or_init(|| fs))
}

impl Trial {
    fn new() -> Verdict<Self> {
        let clock = Hand::new();
        Ok(Self {
            fs: base()?.kill_image(),
            options: options(&clock),
            clock,
            ledger: Ledger::default(),
            durable: 0,
            store: None,
            other: None,
            faulty: false,
            troubled: false,
        })
    }

    fn run(&mut self, list: &[u8], done: &mut Vec<(Step, u8)>) -> Verdict {
        self.open()?;
        for pair in list.chunks(2).take(STEPS_MAX) {
            let [step, how] = [pair[0], pair.get(1).copied().unwrap_or(0)];
            let step = STEPS[usize::from(step) % STEPS.len()];
            done.push((step, how));
            self.step(step, how)?;
        }
        self.crash(None)?;
        let store = self.opened()?;
        store.seal()?;
        self.look("sealed at the end")?;
        self.opened()?.maintain(&everything())?;
        self.look("maintained at the end")?;
        self.close()
    }

    fn opened(&self) -> Verdict<Store> {
        self.store.clone().ok_or_else(|| Violation::new("no store is open"))
    }

    fn open(&mut self) -> Verdict {
        self.troubled = self.faulty;
        match open_store(&self.fs, Path::new(DIR), self.options.clone()) {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                self.accept("opening", &error)?;
                // Whoever opens it next finds a disk that works.
                self.heal();
                self.store = Some(open_store(&self.fs, Path::new(DIR), self.options.clone())?);
            }
        }
        Ok(())
    }

    /// Closes both handles. What could not be written then may be gone.
    fn close(&mut self) -> Verdict {
        let mut is_written = true;
        for store in [self.other.take(), self.store.take()].into_iter().flatten() {
            is_written &= self.note("closing", store.close())?;
        }
        if is_written {
            self.durable = self.ledger.batches.len();
        } else {
            self.ledger.forsake(self.durable);
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.fs.heal();
        self.fs.space_limit(None);
        self.faulty = false;
    }

    /// Whether a call was answered with Ok; an error must have a reason.
    fn note(&self, what: &str, result: Result<()>) -> Verdict<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(error) => self.accept(what, &error).map(|()| false),
        }
    }

    fn accept(&self, what: &str, error: &Error) -> Verdict {
        ensure(self.troubled && fits(error.kind(), true), || {
            let troubled = self.troubled;
            format!("{what}, troubled: {troubled}: {:?}: {error}", error.kind())
        })
    }

    /// The rows, as far as they can be asked for.
    fn look(&mut self, when: &str) -> Verdict {
        if !self.faulty {
            let store = self.opened()?;
            self.ledger.check(&store, self.durable).map_err(|found| found.after(when))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Verdict<bool> {
        let mut is_durable = true;
        for store in [self.other.clone(), self.store.clone()].into_iter().flatten() {
            is_durable &= self.note("flushing", store.flush())?;
        }
        if is_durable {
            self.durable = self.ledger.batches.len();
        }
        Ok(is_durable)
    }

    fn step(&mut self, step: Step, how: u8) -> Verdict {
        let store = self.opened()?;
        let mut random = Random::new(u64::from(how));
        match step {
            Step::Append => {
                let appended = self.ledger.append(&store, &mut random);
                self.note("appending", appended)?;
            }
            Step::OtherAppends => {
                if let Some(other) = self.other.clone() {
                    let appended = self.ledger.append(&other, &mut random);
                    self.note("appending by another handle", appended)?;
                }
            }
            Step::Commit => {
                self.note("committing", store.commit())?;
            }
            Step::Flush => {
                self.flush()?;
            }
            Step::Import => {
                if self.flush()? {
                    let imported = self.ledger.import(&store, &mut random);
                    if self.note("importing", imported)? {
                        self.durable = self.ledger.batches.len();
                    }
                }
            }
            Step::Seal => {
                self.note("sealing", store.seal())?;
            }
            Step::OtherSeals => {
                if let Some(other) = self.other.clone() {
                    self.note("sealing by another handle", other.seal())?;
                }
            }
            Step::Maintain => {
                self.note("maintenance", store.maintain(&everything()).map(drop))?;
            }
            Step::Wait => self.clock.advance(match how % 4 {
                0 => PAST_GRACE,
                _ => Duration::from_secs(u64::from(how)),
            }),
            Step::Reopen => {
                drop(store);
                self.close()?;
                self.open()?;
            }
            Step::OtherOpensOrCloses => match self.other.take() {
                Some(other) => {
                    if !self.note("closing another handle", other.close())? {
                        self.ledger.forsake(self.durable);
                    }
                }
                None => match open_store(&self.fs, Path::new(DIR), self.options.clone()) {
                    Ok(other) => self.other = Some(other),
                    Err(error) => self.accept("opening another handle", &error)?,
                },
            },
            Step::Verify => {
                if !self.faulty {
                    let problems = store.verify(true)?.problems;
                    ensure(problems.is_empty(), || format!("{problems:?}"))?;
                }
            }
            Step::Kill => {
                drop(store);
                self.crash(None)?;
            }
            Step::PowerCut => {
                drop(store);
                let policy = POLICIES[usize::from(how) % POLICIES.len()];
                self.crash(Some((policy, u64::from(how))))?;
            }
            Step::CallFails => {
                let (_, fault) = FAULTS[usize::from(how) % FAULTS.len()];
                let call = random.below(CALLS_MAX);
                self.fs.fail_at(call, fault, how >= 0xC0);
                (self.faulty, self.troubled) = (true, true);
            }
            Step::DiskFills => {
                self.fs.space_limit(Some(self.fs.used_bytes() + u64::from(how) * 256));
                (self.faulty, self.troubled) = (true, true);
            }
            Step::Heal => self.heal(),
            Step::UndoImport => self.undo_import(&store, how)?,
            Step::BackUp => self.back_up(&store)?,
            Step::Repair => {
                let fs = Arc::new(self.fs.clone());
                match Store::repair_on(fs, Path::new(DIR), self.options.clone(), false) {
                    // Nothing that happens here damages anything.
                    Ok(report) => ensure(!report.loses_rows(), || format!("{report:?}"))?,
                    Err(error) => self.accept("repair", &error)?,
                }
            }
        }
        self.look("after it")
    }

    /// Takes one of the imports back that there are.
    fn undo_import(&mut self, store: &Store, how: u8) -> Verdict {
        let imports = match store.imports() {
            Ok(imports) => imports,
            Err(error) => return self.accept("listing imports", &error),
        };
        let Some(import) = imports.get(usize::from(how) % imports.len().max(1)) else {
            return Ok(());
        };
        let nobody = || Violation::new(format!("an import of nobody: {import:?}"));
        let batch = import.source.strip_prefix("source ").and_then(|it| it.parse().ok());
        let given = self.ledger.batches.get_mut(batch.unwrap_or(usize::MAX)).ok_or_else(nobody)?;
        match store.undo_import(&import.id) {
            Ok(_) => given.fate = Fate::Gone,
            // Its rows have been merged with others since.
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {}
            Err(error) => {
                given.fate = Fate::Unknown;
                self.accept("undoing an import", &error)?;
            }
        }
        Ok(())
    }

    /// Makes a backup, and compares it.
    fn back_up(&mut self, store: &Store) -> Verdict {
        if let Err(error) = store.backup(BACKUP) {
            return self.accept("a backup", &error);
        }
        if self.faulty {
            return Ok(());
        }
        let backup = open_store_read_only(&self.fs, Path::new(BACKUP), self.options.clone())?;
        self.ledger.check(&backup, self.durable).map_err(|found| found.after("in the backup"))?;
        Ok(())
    }

    /// Goes on with what a loss of power leaves, or else the end of the process.
    fn crash(&mut self, power: Option<(CrashPolicy, u64)>) -> Verdict {
        let image = match power {
            Some((policy, seed)) => self.fs.crash_image(policy, seed),
            None => self.fs.kill_image(),
        };
        // What the dead handles still do is done to files that nobody reads again.
        let old = std::mem::replace(&mut self.fs, image);
        old.heal();
        old.space_limit(None);
        drop((self.store.take(), self.other.take()));
        self.faulty = false;
        self.ledger.forsake(self.durable);
        self.open()?;
        let store = self.opened()?;
        self.ledger.settle(&store, self.durable, power.is_some())?;
        // From now on the fate of each batch says what is to be expected of it.
        self.durable = self.ledger.batches.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_taken_back_and_the_backup_has_it() {
        let mut trial = Trial::new().unwrap();
        trial.open().unwrap();
        for step in [Step::Import, Step::Import, Step::BackUp, Step::UndoImport, Step::Repair] {
            trial.step(step, 1).unwrap();
        }
        let gone = |given: &super::super::rows::Given| given.fate == Fate::Gone;
        assert_eq!(trial.ledger.batches.iter().filter(|given| gone(given)).count(), 1);
        let backup = open_store_read_only(&trial.fs, Path::new(BACKUP), trial.options.clone());
        let rows = |store: &Store| store.snapshot().unwrap().rows(crate::schema::Table::Task);
        assert!(rows(&backup.unwrap()) > rows(&trial.opened().unwrap()));
        trial.step(Step::PowerCut, 0).unwrap();
        trial.close().unwrap();
    }

    #[test]
    fn any_list_of_operations_keeps_the_promises() {
        let mut random = Random::new(11);
        for _ in 0..60 {
            let list: Vec<u8> = (0..40).map(|_| random.bits().to_le_bytes()[0]).collect();
            check(&list).unwrap_or_else(|found| panic!("{list:?}: {found}"));
        }
    }
}
