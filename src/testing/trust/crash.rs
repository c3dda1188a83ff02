//! Crashes: what was flushed is back, once and whole, whatever a power cut or a kill left.
//!
//! A workload runs once on the simulated file system, with a second handle that seals and
//! maintains while the first writes; then the store is opened on images of a crash after any
//! of its operations, and on images of a crash of that.
//!
//! The threads of a store interleave as they like, so a seed gives the same rows and steps
//! each time, but not the same operations: what is found is run again by its seed, whole.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::rows::{Hand, Ledger, options};
use super::{Verdict, Violation, ensure, guarded};
use crate::config::{MaintenanceRequest, Options, Retention, TableRetention, Tiers};
use crate::store::Store;
use crate::testing::workload::Random;
use crate::testing::{SimFileSystem, open_store, open_store_read_only};

/// Two mebibytes without rows: images that differ in them alone are one.
const RESERVE: &str = "reserve";
/// Where the store is.
pub const DIR: &str = "/store";
/// The grace of stores that have one, and a little more.
const GRACE: Duration = Duration::from_secs(600);
pub(super) const PAST_GRACE: Duration = Duration::from_secs(660);

/// A workload that has run: every change of its files, and what was acknowledged when.
#[derive(Debug)]
pub struct Recorded {
    /// The files.
    pub fs: SimFileSystem,
    /// The rows.
    pub ledger: Ledger,
    seed: u64,
    clock: Arc<Hand>,
    options: Options,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Images of crashes.
    pub images: u64,
    /// Those that differ from each other, and were opened and checked.
    pub distinct: u64,
}

impl Looked {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { images: self.images + other.images, distinct: self.distinct + other.distinct }
    }
}

/// Runs a workload of so many steps: appends, flushes, rolls, seals, imports, passes of
/// maintenance, second openings; and checks the live store now and then.
///
/// # Errors
///
/// What does not hold while it runs.
pub fn record(seed: u64, steps: u64) -> Verdict<Recorded> {
    let clock = Hand::new();
    let mut options = options(&clock);
    if seed % 2 == 1 {
        options.unlink_grace = GRACE;
    }
    let fs = SimFileSystem::with_seed(seed);
    let mut run = Recorded { fs, ledger: Ledger::default(), seed, clock, options };
    run.run(steps).map_err(|violation| violation.after(&format!("seed {seed}, running")))?;
    Ok(run)
}

/// A pass of maintenance that does all there is to do.
pub(super) fn everything() -> MaintenanceRequest {
    MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() }
}

/// Every day of tasks that is over becomes an archive, in which every row stays.
pub(super) fn archive_everything() -> Retention {
    let tiers =
        Tiers { detailed_days: 0, archive_days: Tiers::DAYS_MAX, hourly_days: 0, daily_days: 0 };
    Retention { task: TableRetention::Tiers(tiers), ..Retention::KEEP }
}

impl Recorded {
    fn run(&mut self, steps: u64) -> Verdict {
        let mut random = Random::new(self.seed);
        let mut store = self.open(&self.fs)?;
        store.set_retention(&archive_everything())?;
        for _ in 0..steps {
            match random.below(12) {
                0..5 => self.ledger.append(&store, &mut random)?,
                5..8 => self.flush(&store)?,
                8 => {
                    self.flush(&store)?;
                    match random.below(3) {
                        0 => {
                            self.ledger.import(&store, &mut random)?;
                            self.ledger.acknowledge(self.fs.op_count());
                        }
                        1 => store.seal()?,
                        _ => self.ledger.append(&store, &mut random)?,
                    }
                }
                9 => {
                    store.close()?;
                    self.ledger.acknowledge(self.fs.op_count());
                    store = self.open(&self.fs)?;
                }
                10 => {
                    self.clock.advance(PAST_GRACE);
                    store.maintain(&everything())?;
                }
                _ => {
                    // Another process opens, seals what it may, and goes.
                    let other = self.open(&self.fs)?;
                    other.seal()?;
                    other.close()?;
                }
            }
            if random.below(4) == 0 {
                store.commit()?;
                self.ledger.check(&store, self.ledger.batches.len())?;
            }
        }
        store.close()?;
        self.ledger.acknowledge(self.fs.op_count());
        self.clock.advance(PAST_GRACE);
        Ok(())
    }

    fn flush(&mut self, store: &Store) -> Verdict {
        store.flush()?;
        self.ledger.acknowledge(self.fs.op_count());
        Ok(())
    }

    fn open(&self, fs: &SimFileSystem) -> Verdict<Store> {
        Ok(open_store(fs, Path::new(DIR), self.options.clone())?)
    }

    /// Opens an image as a writer would after the crash, checks it, and again after sealing;
    /// `deep`: and after a pass of maintenance, and as a reader.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_image(&self, image: &SimFileSystem, durable: usize, deep: bool) -> Verdict {
        guarded(|| {
            let store = self.open(image).map_err(|found| found.after("opening"))?;
            let rows = self.ledger.check(&store, durable)?;
            let same = |when: &str| -> Verdict {
                let now = self.ledger.check(&store, durable).map_err(|it| it.after(when))?;
                ensure(now == rows, || format!("{when}: {now} rows, {rows} before"))
            };
            store.seal().map_err(|error| Violation::from(error).after("sealing"))?;
            same("sealed")?;
            if !deep {
                return Ok(store.close()?);
            }
            store.maintain(&everything()).map_err(|e| Violation::from(e).after("maintenance"))?;
            same("maintained")?;
            store.close()?;
            let reader = open_store_read_only(image, Path::new(DIR), self.options.clone())?;
            let now = self.ledger.check(&reader, durable).map_err(|it| it.after("reopened"))?;
            ensure(now == rows, || format!("reopened: {now} rows, {rows} before"))
        })
    }

    /// Checks up to `count` images of a power cut after operation `op`. Those that `seen`
    /// holds already are not looked at again.
    ///
    /// # Errors
    ///
    /// What does not hold in one of them.
    pub fn check_after(
        &self,
        op: u64,
        count: usize,
        seen: &mut HashSet<(usize, u64)>,
    ) -> Verdict<Looked> {
        let durable = self.ledger.durable_after(op);
        let images = self.fs.images_after(op, self.seed, count);
        self.check_images(&images, durable, seen)
            .map_err(|found| found.after(&self.story(&format!("crash after operation {op}"))))
    }

    fn check_images(
        &self,
        images: &[SimFileSystem],
        durable: usize,
        seen: &mut HashSet<(usize, u64)>,
    ) -> Verdict<Looked> {
        let mut looked = Looked::default();
        for (index, image) in images.iter().enumerate() {
            looked.images += 1;
            if seen.insert((durable, image.hash_but_for(Some(RESERVE)))) {
                looked.distinct += 1;
                let deep = looked.distinct % 8 == 1;
                self.check_image(image, durable, deep)
                    .map_err(|found| found.after(&format!("image {index}")))?;
            }
        }
        Ok(looked)
    }

    fn story(&self, what: &str) -> String {
        format!("seed {}, {what}", self.seed)
    }

    /// Checks up to `count` images after each operation that changed anything.
    ///
    /// # Errors
    ///
    /// What does not hold in one of them.
    pub fn check_every_crash(&self, count: usize) -> Verdict<Looked> {
        let mut seen = HashSet::new();
        let each = |op| self.check_after(op, count, &mut seen);
        self.fs
            .change_points()
            .into_iter()
            .map(each)
            .try_fold(Looked::default(), |sum, looked| Ok(sum.and(looked?)))
    }

    /// Crashes at about `points` operations, and again at about `inner` operations of the
    /// recovery, with `count` images each.
    ///
    /// # Errors
    ///
    /// What does not hold in one of them.
    pub fn check_crashes_of_recovery(
        &self,
        points: usize,
        inner: usize,
        count: usize,
    ) -> Verdict<Looked> {
        let mut looked = Looked::default();
        let mut seen = HashSet::new();
        for op in spread(&self.fs.change_points(), points, self.seed) {
            let durable = self.ledger.durable_after(op);
            for first in self.fs.images_after(op, self.seed, 2) {
                let recovered = guarded(|| {
                    let store = self.open(&first)?;
                    store.seal()?;
                    Ok(store.close()?)
                });
                let story = self.story(&format!("crash after operation {op}"));
                recovered.map_err(|found| found.after(&format!("{story}, recovering")))?;
                for again in spread(&first.change_points(), inner, self.seed) {
                    let images = first.images_after(again, self.seed, count);
                    let done = self.check_images(&images, durable, &mut seen).map_err(|found| {
                        found.after(&format!("{story}, and after {again} of recovery"))
                    })?;
                    looked = looked.and(done);
                }
            }
        }
        Ok(looked)
    }

    /// Kills the process within every operation that changed anything.
    ///
    /// # Errors
    ///
    /// What does not hold in one of them.
    pub fn check_every_kill(&self) -> Verdict<Looked> {
        let mut looked = Looked::default();
        let mut seen = HashSet::new();
        for op in self.fs.change_points() {
            let image = self.fs.kill_image_within(op, self.seed);
            let durable = self.ledger.durable_after(op);
            let done = self
                .check_images(&[image], durable, &mut seen)
                .map_err(|it| it.after(&self.story(&format!("killed within operation {op}"))))?;
            looked = looked.and(done);
        }
        Ok(looked)
    }
}

/// About `count` of the points, spread over all of them from a place that the seed chooses.
fn spread(points: &[u64], count: usize, seed: u64) -> Vec<u64> {
    let step = points.len() / count.max(1) + 1;
    let first = usize::try_from(seed).unwrap_or(0) % step;
    points.iter().copied().skip(first).step_by(step).collect()
}
