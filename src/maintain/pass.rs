//! A pass of maintenance: seal what is left, let every partition come to the tier of its age,
//! sweep, bring the catalog up to date.
//!
//! Owns which partition comes to which tier, and when a pass may believe the clock. Each step
//! leaves the store whole, so that a pass may end after any of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::config::{MaintenanceRequest, MaintenanceWork};
use crate::error::{ErrorKind, Result};
use crate::format::id::{FileKind, Id};
use crate::maintain::clock::{self, Verdict};
use crate::maintain::compact;
use crate::maintain::expire::{self, Doomed, Outcome};
use crate::maintain::merge::{self, Reach};
use crate::maintain::reconcile::{Books, Planned};
use crate::maintain::sweep::{self, Grace};
use crate::maintain::tiers::{self, Tier};
use crate::report::{MaintenanceReport, Postponed, TierChange};
use crate::schema::Table;
use crate::segment::Tier as Kept;
use crate::segment::files::StoreRoot;
use crate::snapshot::lister::{FileFacts, Lister};
use crate::store_files::maintenance::MaintenanceLock;
use crate::store_files::retention::RetentionRules;
use crate::store_files::{reserve, retention};
use crate::time::{MICROS_PER_HOUR, Partition, Timestamp};

/// Interval of maintenance where none is set.
const INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// A pass: where, what, and whether it is to end early.
pub(crate) struct Pass<'a> {
    pub(crate) root: &'a StoreRoot,
    pub(crate) lister: &'a Lister,
    pub(crate) lock: &'a MaintenanceLock,
    pub(crate) request: MaintenanceRequest,
    /// Asked between two partitions.
    pub(crate) stop: &'a dyn Fn() -> bool,
}

/// The active segments that a sealing is about.
pub(crate) type Actives = Vec<FileFacts>;

/// The active segments there are, before any is sealed.
///
/// # Errors
///
/// `Io` when a directory cannot be read.
pub(crate) fn actives(lister: &Lister) -> Result<Actives> {
    let mut files = lister.files()?;
    files.retain(|facts| facts.name.kind == FileKind::Active && facts.counts());
    Ok(files)
}

impl Pass<'_> {
    /// Does what was asked for. `before` are the active segments there were before the
    /// caller's own were sealed.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, `Locked`: what was not done is done by the next pass.
    pub(crate) fn run(&self, before: &Actives) -> Result<MaintenanceReport> {
        let dry_run = self.request.dry_run;
        let mut report = MaintenanceReport { dry_run, ..MaintenanceReport::default() };
        let sealed = match self.request.what {
            MaintenanceWork::Seal | MaintenanceWork::All => self.seal(before, &mut report),
            MaintenanceWork::Compact | MaintenanceWork::RollUp | MaintenanceWork::Expire => Ok(()),
        };
        let fs = self.root.fs.as_ref();
        match self.age(Grace::Kept, &mut report) {
            // On a full disk, what makes room again needs some itself: that is the reserve's use.
            Err(error) if error.kind() == ErrorKind::NoSpace && !dry_run => {
                reserve::give_up_reserve(fs, &self.root.dir)?;
                self.age(Grace::SkippedForExpired, &mut report)?;
            }
            done => done?,
        }
        sealed?;
        // After what expires has made room.
        if report.refused.is_none() && self.request.what != MaintenanceWork::Seal {
            self.cool(&mut report)?;
        }
        if !dry_run {
            // Best effort: without the room for it, a later pass makes it.
            let _ = reserve::ensure_reserve(fs, &self.root.dir);
        }
        Ok(report)
    }

    /// Seals what dead processes left, and merges what is small.
    fn seal(&self, before: &Actives, report: &mut MaintenanceReport) -> Result<()> {
        if !self.request.dry_run {
            let dead = merge::merge_dead(self.root, self.lister, self.lock, Reach::All)?;
            report.notes.extend(dead.notes);
            merge::merge_small(self.root, self.lister)?;
        }
        let left: HashSet<Id> = match self.request.dry_run {
            true => HashSet::new(),
            false => actives(self.lister)?.iter().map(|facts| facts.name.uuid).collect(),
        };
        for facts in before.iter().filter(|facts| !left.contains(&facts.name.uuid)) {
            let Some(segment) = facts.segment().filter(|segment| segment.rows() > 0) else {
                continue;
            };
            let change = change_of(report, facts.table, Tier::Detail);
            change.files += 1;
            change.rows += segment.rows();
            change.bytes += segment.bytes();
            widen(change, segment.stamps());
        }
        Ok(())
    }

    /// Lets partitions age, sweeps, and reconciles.
    fn age(&self, grace: Grace, report: &mut MaintenanceReport) -> Result<()> {
        let (root, lister) = (self.root, self.lister);
        let mut books = Books::open(root, self.lock)?;
        books.reconcile(root, lister)?;
        let rules = books.rules(root)?;
        if self.request.what != MaintenanceWork::Seal {
            self.expire(&mut books, &rules, report)?;
        }
        if !self.request.dry_run {
            report.files_removed += sweep::sweep(root, lister, &mut books, grace)?.files;
            books.reconcile(root, lister)?;
            self.log(&mut books, report)?;
        }
        report.notes.append(&mut books.notes);
        Ok(())
    }

    /// Enters the pass into the job log.
    fn log(&self, books: &mut Books, report: &MaintenanceReport) -> Result<()> {
        let rows = report.changes.iter().map(|change| change.rows).sum();
        let bytes = report.changes.iter().map(|change| change.bytes).sum();
        let mut what = self.request.what.name().to_owned();
        if let Some(why) = &report.refused {
            what = format!("{what}, expiry refused: {why}");
        }
        let planned = Planned { kind: "maintain", what, rows, bytes, deletes: Vec::new() };
        books.logged(self.root, planned, || Ok(()))
    }

    fn expire(
        &self,
        books: &mut Books,
        rules: &RetentionRules,
        report: &mut MaintenanceReport,
    ) -> Result<()> {
        let reading = clock::read(&*self.root.options.clock);
        let accept = self.request.accept_clock;
        let Verdict { remember, refused } =
            clock::judge(rules.last_pass.as_ref(), reading, tolerance(self.root), accept);
        if !self.request.dry_run {
            let rules = RetentionRules { last_pass: Some(remember), ..rules.clone() };
            retention::write_retention(self.root.fs.as_ref(), &self.root.dir, &rules)?;
        }
        report.refused = refused;
        if report.refused.is_some() {
            return Ok(());
        }
        if matches!(self.request.what, MaintenanceWork::Compact | MaintenanceWork::RollUp) {
            return Ok(());
        }
        let files = self.lister.files()?;
        let mut sizes: BTreeMap<Place, u64> = BTreeMap::new();
        // What is known to be missing may be all there was of a partition.
        let lost = books.missing.iter().map(|it| (it.partition, it.table.index()));
        let mut all: BTreeSet<Place> = lost.collect();
        for facts in files.iter().filter(|facts| facts.counts()) {
            let place = (facts.partition, facts.table.index());
            all.insert(place);
            if facts.name.kind != FileKind::Tombstone {
                *sizes.entry(place).or_default() += bytes_of(self.root, facts);
            }
        }
        let mut going = BTreeSet::new();
        for (partition, index) in all {
            let table = Table::ALL[index];
            if tiers::target(rules.table(table), partition, reading.now) == Tier::Gone {
                going.insert((partition, index));
                let reason = format!("older than the last tier at {}", stamp(reading.now));
                self.expire_one(books, (table, partition), &reason, report)?;
            }
            if (self.stop)() {
                return Ok(());
            }
        }
        self.shrink(books, rules, &sizes, &going, report)
    }

    /// Archives and rolls up what is due, the oldest first. The clock has been believed.
    fn cool(&self, report: &mut MaintenanceReport) -> Result<()> {
        let (root, lister, dry_run) = (self.root, self.lister, self.request.dry_run);
        let mut books = Books::open(root, self.lock)?;
        let rules = books.rules(root)?;
        let files = lister.files()?;
        let counting = files.iter().filter(|facts| facts.counts());
        let places: BTreeSet<Place> =
            counting.map(|facts| (facts.partition, facts.table.index())).collect();
        let (archives, rollups) = match self.request.what {
            MaintenanceWork::All => (true, true),
            MaintenanceWork::Compact => (true, false),
            MaintenanceWork::RollUp => (false, true),
            MaintenanceWork::Seal | MaintenanceWork::Expire => return Ok(()),
        };
        for (partition, index) in places {
            if (self.stop)() {
                break;
            }
            let place = (Table::ALL[index], partition);
            let tier = tiers::target(rules.table(place.0), partition, root.now());
            let changed = match tier {
                Tier::Archive if archives => compact::compact(root, lister, place, dry_run)?,
                Tier::Hourly if rollups => {
                    compact::roll_up_to(root, lister, place, Kept::Hourly, dry_run)?
                }
                Tier::Daily if rollups => {
                    compact::roll_up_to(root, lister, place, Kept::Daily, dry_run)?
                }
                _ => continue,
            };
            report.notes.extend(changed.notes);
            if changed.inputs > 0 {
                let change = change_of(report, place.0, tier);
                change.files += changed.inputs;
                change.rows += changed.rows;
                change.bytes += changed.bytes_before;
                change.bytes_after += changed.bytes_after;
                widen(change, changed.stamps);
            }
        }
        if !dry_run {
            books.reconcile(root, lister)?;
        }
        report.notes.append(&mut books.notes);
        Ok(())
    }

    /// Lets the oldest partitions go until the store is no larger than it may be. One that is
    /// postponed counts as gone: it is the first to go next time.
    fn shrink(
        &self,
        books: &mut Books,
        rules: &RetentionRules,
        sizes: &BTreeMap<Place, u64>,
        going: &BTreeSet<Place>,
        report: &mut MaintenanceReport,
    ) -> Result<()> {
        let Some(max_bytes) = rules.max_bytes else { return Ok(()) };
        let left = || sizes.iter().filter(|(place, _)| !going.contains(place));
        let mut bytes: u64 = left().map(|(_, size)| size).sum();
        let today = Partition::of_micros(self.root.now());
        for ((partition, index), size) in left() {
            if bytes <= max_bytes || *partition >= today || (self.stop)() {
                break;
            }
            let reason = format!("{bytes} bytes in the store, at most {max_bytes} are to be");
            self.expire_one(books, (Table::ALL[*index], *partition), &reason, report)?;
            bytes = bytes.saturating_sub(*size);
        }
        Ok(())
    }

    fn expire_one(
        &self,
        books: &mut Books,
        (table, partition): (Table, Partition),
        reason: &str,
        report: &mut MaintenanceReport,
    ) -> Result<()> {
        let doomed = Doomed { table, partition, reason, dry_run: self.request.dry_run };
        match expire::expire(self.root, self.lister, books, doomed)? {
            Outcome::Nothing => {}
            Outcome::Postponed(reason) => report.postponed.push(Postponed {
                table: table.name(),
                day: partition.directory_name(),
                reason,
            }),
            Outcome::Expired(expired) => {
                let change = change_of(report, table, Tier::Gone);
                change.files += expired.files;
                change.damaged_files += expired.damaged_files;
                change.rows += expired.rows;
                change.bytes += expired.bytes;
                widen(change, expired.stamps);
            }
        }
        Ok(())
    }
}

/// A partition of a table, by the table's index; the oldest first.
type Place = (Partition, usize);

/// What a file takes.
fn bytes_of(root: &StoreRoot, facts: &FileFacts) -> u64 {
    match facts.segment() {
        Some(segment) => segment.bytes(),
        None => root.fs.metadata(&facts.path).map_or(0, |found| found.len),
    }
}

/// The largest difference of clocks that is no jump: twice the interval, but never so little
/// that setting a clock is taken for one.
fn tolerance(root: &StoreRoot) -> i64 {
    let interval = root.options.maintenance.unwrap_or(INTERVAL).as_micros();
    i64::try_from(interval).unwrap_or(i64::MAX).clamp(MICROS_PER_HOUR, i64::MAX / 2) * 2
}

fn stamp(micros: i64) -> Timestamp {
    Timestamp::clamped(micros)
}

/// The line of the report on a table and a tier.
fn change_of(report: &mut MaintenanceReport, table: Table, tier: Tier) -> &mut TierChange {
    let (table, tier) = (table.name(), tier.name());
    let found = report.changes.iter().position(|it| (it.table, it.tier) == (table, tier));
    let index = found.unwrap_or_else(|| {
        report.changes.push(TierChange::new(table, tier));
        report.changes.len() - 1
    });
    &mut report.changes[index]
}

fn widen(change: &mut TierChange, stamps: Option<(i64, i64)>) {
    if let Some((min, max)) = stamps {
        let (min, max) = (stamp(min), stamp(max));
        change.from = Some(change.from.map_or(min, |from| from.min(min)));
        change.to = Some(change.to.map_or(max, |to| to.max(max)));
    }
}
