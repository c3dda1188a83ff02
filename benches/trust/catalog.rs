//! The catalog lost: deleted, emptied, cut, garbage, flipped, an older copy, another store's.
//!
//! The catalog is a cache. Whatever becomes of it, a store opens, every row is there before and
//! after a pass of maintenance, and no file goes because a catalog says so.

#![expect(clippy::disallowed_methods, reason = "changes the files beside the store")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tallystone::testing::trust::rows::{Hand, Ledger, options};
use tallystone::testing::trust::{Verdict, Violation, ensure};
use tallystone::testing::workload::Random;
use tallystone::{MaintenanceRequest, Options, Retention, Store, TableRetention, Tiers};

/// Losses of one store; then another is made.
const LOSSES_OF_A_STORE: u64 = 40;

/// A store that all of its losses begin from.
struct Base {
    place: tempfile::TempDir,
    clock: Arc<Hand>,
    ledger: Ledger,
    /// Copies of the catalog at earlier times.
    older: Vec<PathBuf>,
}

/// The stores that were made so far.
#[derive(Default)]
pub(crate) struct Bases {
    made: BTreeMap<u64, Base>,
}

fn done<T>(result: io::Result<T>) -> Verdict<T> {
    result.map_err(|error| Violation::new(format!("the test itself: {error}")))
}

fn names_of(dir: &Path) -> Verdict<Vec<PathBuf>> {
    let entries = done(std::fs::read_dir(dir))?;
    done(entries.map(|entry| entry.map(|entry| entry.path())).collect())
}

fn copy(from: &Path, to: &Path) -> Verdict {
    done(std::fs::create_dir_all(to))?;
    for path in names_of(from)? {
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else if name != "reserve" {
            done(std::fs::copy(&path, to.join(name)))?;
        }
    }
    Ok(())
}

fn is_catalog(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("catalog.sqlite"))
}

/// Takes the catalog away, and what SQLite has beside it.
fn remove_catalog(dir: &Path) -> Verdict {
    for path in names_of(dir)?.iter().filter(|path| is_catalog(path)) {
        done(std::fs::remove_file(path))?;
    }
    Ok(())
}

fn copy_catalog(from: &Path, to: &Path) -> Verdict {
    done(std::fs::create_dir_all(to))?;
    for path in names_of(from)?.iter().filter(|path| is_catalog(path)) {
        done(std::fs::copy(path, to.join(path.file_name().unwrap_or_default())))?;
    }
    Ok(())
}

fn options_of(clock: &Arc<Hand>) -> Options {
    // The kernel calls a file system in memory no disk at all.
    Options { network_file_system: true, ..options(clock) }
}

fn maintain(store: &Store) -> Verdict {
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    store.maintain(&request)?;
    Ok(())
}

impl Base {
    /// A store that was written, sealed, archived and reopened a few times.
    fn make(seed: u64) -> Verdict<Self> {
        let place = done(tempfile::tempdir_in(scratch()))?;
        let mut base =
            Self { place, clock: Hand::new(), ledger: Ledger::default(), older: Vec::new() };
        let mut random = Random::new(seed);
        for step in 0..4 {
            let store = Store::open_with(base.dir(), options_of(&base.clock))?;
            if step == 0 {
                let tiers = Tiers {
                    detailed_days: 0,
                    archive_days: Tiers::DAYS_MAX,
                    hourly_days: 0,
                    daily_days: 0,
                };
                let task = TableRetention::Tiers(tiers);
                store.set_retention(&Retention { task, ..Retention::KEEP })?;
            }
            for _ in 0..1 + random.below(4) {
                base.ledger.append(&store, &mut random)?;
            }
            match random.below(4) {
                0 => store.seal()?,
                1 => base.ledger.import(&store, &mut random)?,
                2 => maintain(&store)?,
                _ => store.flush()?,
            }
            if step == 3 {
                // The last files are those that older copies of the catalog do not know.
                base.ledger.append(&store, &mut random)?;
                store.seal()?;
            }
            store.close()?;
            let older = base.place.path().join(format!("older-{step}"));
            copy_catalog(&base.dir(), &older)?;
            base.older.push(older);
        }
        Ok(base)
    }

    fn dir(&self) -> PathBuf {
        self.place.path().join("store")
    }
}

/// Where small files are made: in memory where there is such a place.
pub(crate) fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }
}

impl Bases {
    fn base(&mut self, number: u64) -> Verdict<&Base> {
        if !self.made.contains_key(&number) {
            // Two are enough: the one at hand, and one whose catalog is foreign to it.
            self.made.retain(|made, _| made + 1 == number);
            self.made.insert(number, Base::make(number)?);
        }
        self.made.get(&number).ok_or_else(|| Violation::new("the store is gone"))
    }

    /// Loses the catalog once, in the way that the number says, and checks all rows.
    pub(crate) fn check(&mut self, case: u64) -> Verdict {
        let number = case / LOSSES_OF_A_STORE + 1;
        let foreign = self.base(number - 1)?.dir();
        let base = self.base(number)?;
        let mut random = Random::new(case);
        let place = done(tempfile::tempdir_in(scratch()))?;
        let dir = place.path().join("store");
        copy(&base.dir(), &dir)?;
        let what = lose(&dir, base, &foreign, &mut random)?;
        check_rows(&dir, base).map_err(|found| found.after(&format!("case {case}, {what}")))
    }
}

/// Does something to the catalog; says what.
fn lose(dir: &Path, base: &Base, foreign: &Path, random: &mut Random) -> Verdict<String> {
    let path = dir.join("catalog.sqlite");
    let mut bytes = done(std::fs::read(&path))?;
    let at = usize::try_from(random.below(bytes.len() as u64)).unwrap_or(0);
    Ok(match random.below(8) {
        0 => {
            remove_catalog(dir)?;
            "deleted".to_owned()
        }
        1 => {
            done(std::fs::write(&path, b""))?;
            "emptied".to_owned()
        }
        2 => {
            bytes.truncate(at);
            done(std::fs::write(&path, &bytes))?;
            format!("cut at {at}")
        }
        3 => {
            let garbage: Vec<u8> = (0..at).map(|_| random.bits().to_le_bytes()[0]).collect();
            done(std::fs::write(&path, garbage))?;
            format!("{at} bytes of garbage")
        }
        4 => {
            for _ in 0..1 + random.below(20) {
                let bit = random.below(bytes.len() as u64 * 8);
                let at = usize::try_from(bit / 8).unwrap_or(0);
                bytes[at] ^= 1 << (bit % 8);
            }
            done(std::fs::write(&path, &bytes))?;
            "bits flipped".to_owned()
        }
        5 => {
            let end = (at + 4_096).min(bytes.len());
            bytes[at..end].fill(0);
            done(std::fs::write(&path, &bytes))?;
            format!("zeros from {at} to {end}")
        }
        6 => {
            let index = usize::try_from(random.below(base.older.len() as u64)).unwrap_or(0);
            remove_catalog(dir)?;
            copy_catalog(&base.older[index], dir)?;
            format!("the copy of time {index}")
        }
        _ => {
            remove_catalog(dir)?;
            copy_catalog(foreign, dir)?;
            "another store's".to_owned()
        }
    })
}

fn check_rows(dir: &Path, base: &Base) -> Verdict {
    let all = base.ledger.batches.len();
    let reader = Store::open_read_only(dir)?;
    let rows = base.ledger.check(&reader, all).map_err(|found| found.after("read"))?;
    let store = Store::open_with(dir, options_of(&base.clock))?;
    let same = |store: &Store, when: &str| -> Verdict {
        let now = base.ledger.check(store, all).map_err(|found| found.after(when))?;
        ensure(now == rows, || format!("{when}: {now} rows, {rows} before"))
    };
    same(&store, "opened")?;
    maintain(&store)?;
    same(&store, "maintained")?;
    store.close()?;
    same(&Store::open_read_only(dir)?, "read again")?;
    let report = Store::open_read_only(dir)?.verify(true)?;
    ensure(report.problems.is_empty(), || format!("{:?}", report.problems))
}
