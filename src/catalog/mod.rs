//! The catalog: what files the store has, as of the last maintenance (spec 8.8).
//!
//! A cache of headers and footers, and the log of maintenance jobs. It follows the
//! directories and never leads: nothing that a reader needs lives only here, and whatever
//! is wrong with it costs time, not rows. Only the holder of `maintenance.lock` writes it.
//!
//! Owns the rules of reconciling with the files that it is handed; does not look at
//! segment files, and knows no metric values. [`sqlite`] keeps it in `catalog.sqlite`,
//! [`memory`] nowhere, for file systems that SQLite cannot reach.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::format::id::FileKind;
use crate::fs::FileSystem;
use crate::schema::Table;
use crate::store_files::Id;
use crate::store_files::retention::RetentionRules;
use crate::time::Partition;

mod memory;
mod sqlite;

pub(crate) use sqlite::{ReaderCatalog, damage, file_names, open_reader, outline};

/// Largest summary that is cached; a file with a larger one is cached without.
pub(crate) const SUMMARY_BYTES_MAX: usize = 16 << 20;

/// Finished jobs that are remembered.
const JOBS_KEPT: usize = 10_000;

/// What a job that its process did not survive is said to have come to.
const INTERRUPTED: &str = "interrupted";

/// What is known of one segment file from its name, its header and its footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    /// Identity of the file.
    pub(crate) uuid: Id,
    /// Table whose rows it holds.
    pub(crate) table: Table,
    /// Day whose rows it holds.
    pub(crate) partition: Partition,
    /// Kind of file, as in its header.
    pub(crate) kind: u8,
    /// Rows in it.
    pub(crate) rows: u64,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Earliest timestamp in it, microseconds since 1970.
    pub(crate) min_ts: i64,
    /// Latest timestamp in it, microseconds since 1970.
    pub(crate) max_ts: i64,
    /// When it was created, microseconds since 1970.
    pub(crate) created: i64,
    /// The import that it belongs to.
    pub(crate) txn: Option<Id>,
    /// The files that it replaces.
    pub(crate) replaces: Vec<Id>,
    /// Header and footer in a form that is the caller's business.
    pub(crate) summary: Vec<u8>,
}

/// What the catalog remembers of one segment file. Counts only if the file is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CachedSegment {
    /// Identity of the file.
    pub(crate) uuid: Id,
    /// Table whose rows it holds.
    pub(crate) table: Table,
    /// Day whose rows it holds.
    pub(crate) partition: Partition,
    /// Kind of file, as in its header.
    pub(crate) kind: u8,
    /// Rows in it.
    pub(crate) rows: u64,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Earliest timestamp in it, microseconds since 1970.
    pub(crate) min_ts: i64,
    /// Latest timestamp in it, microseconds since 1970.
    pub(crate) max_ts: i64,
    /// When it was created, microseconds since 1970.
    pub(crate) created: i64,
    /// The import that it belongs to.
    pub(crate) txn: Option<Id>,
    /// Header and footer, as handed to `reconcile`.
    pub(crate) summary: Vec<u8>,
}

impl CachedSegment {
    /// Counts are kept as what SQLite can hold; a header that claims more is not believed
    /// to the last row, and is no reason to fail.
    fn of(facts: &SegmentFacts) -> Self {
        let capped = |count: u64| count.min(i64::MAX.unsigned_abs());
        let cached = facts.summary.len() <= SUMMARY_BYTES_MAX;
        Self {
            uuid: facts.uuid,
            table: facts.table,
            partition: facts.partition,
            kind: facts.kind,
            rows: capped(facts.rows),
            bytes: capped(facts.bytes),
            min_ts: facts.min_ts,
            max_ts: facts.max_ts,
            created: facts.created,
            txn: facts.txn,
            summary: if cached { facts.summary.clone() } else { Vec::new() },
        }
    }
}

/// A segment file that is gone although nothing was to delete it: its rows are lost,
/// unless somebody brings it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingSegment {
    /// Identity of the file.
    pub(crate) uuid: Id,
    /// Table whose rows it held.
    pub(crate) table: Table,
    /// Day whose rows it held.
    pub(crate) partition: Partition,
    /// What it was.
    pub(crate) kind: FileKind,
    /// Rows in it.
    pub(crate) rows: u64,
    /// Earliest timestamp in it.
    pub(crate) min_ts: i64,
    /// Latest timestamp in it.
    pub(crate) max_ts: i64,
    /// Header and footer, as handed to `reconcile`.
    pub(crate) summary: Vec<u8>,
}

impl MissingSegment {
    /// Rows of an active segment that were durable when maintenance last saw it.
    pub(crate) fn durable_rows(&self) -> u64 {
        let summary = (self.kind == FileKind::Active).then_some(self.summary.as_slice());
        summary.and_then(|summary| summary.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

impl From<&CachedSegment> for MissingSegment {
    fn from(row: &CachedSegment) -> Self {
        Self {
            uuid: row.uuid,
            table: row.table,
            partition: row.partition,
            kind: FileKind::from_tag(row.kind).unwrap_or(FileKind::Sealed),
            rows: row.rows,
            min_ts: row.min_ts,
            max_ts: row.max_ts,
            summary: row.summary.clone(),
        }
    }
}

/// What reconciling found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// Files that the catalog had not known.
    pub(crate) added: u64,
    /// Files whose facts had changed.
    pub(crate) updated: u64,
    /// Files forgotten: gone, and replaced or meant to be deleted.
    pub(crate) removed: u64,
    /// Rows of the catalog whose checksum was wrong; dropped, and read anew where the file
    /// is there.
    pub(crate) damaged: u64,
    /// Jobs that their process did not survive.
    pub(crate) interrupted: u64,
    /// Files gone for no reason, by table and time; reported until
    /// [`forget_missing`](Catalog::forget_missing).
    pub(crate) missing: Vec<MissingSegment>,
}

impl Reconciled {
    fn sort(&mut self) {
        self.missing.sort_by_key(|it| (it.table, it.partition, it.min_ts, it.uuid));
    }
}

/// Number of a maintenance job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobId(pub(crate) i64);

/// A job about to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// What kind of job: `seal`, `compact`, `expire` and so on.
    pub(crate) kind: &'static str,
    /// When it begins, microseconds since 1970.
    pub(crate) started: i64,
    /// What it is about to do and why, with the cutoff where there is one.
    pub(crate) what: String,
    /// Rows that it is about.
    pub(crate) rows: u64,
    /// Bytes that it is about.
    pub(crate) bytes: u64,
    /// Files that it will delete. None may be deleted before this is logged.
    pub(crate) deletes: Vec<Id>,
}

/// What a job has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// When it ended, microseconds since 1970.
    pub(crate) finished: i64,
    /// `done`, or what went wrong.
    pub(crate) outcome: String,
    /// Rows that it dealt with.
    pub(crate) rows: u64,
    /// Bytes that it dealt with.
    pub(crate) bytes: u64,
}

/// One entry of the job log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its number, ascending with time.
    pub(crate) id: JobId,
    /// What kind of job.
    pub(crate) kind: String,
    /// When it began, microseconds since 1970.
    pub(crate) started: i64,
    /// When it ended; `None` while it runs, and where its process did not survive.
    pub(crate) finished: Option<i64>,
    /// What it was about to do and why.
    pub(crate) what: String,
    /// What it has come to; `None` while it runs.
    pub(crate) outcome: Option<String>,
    /// Rows that it dealt with, or is about.
    pub(crate) rows: u64,
    /// Bytes that it dealt with, or is about.
    pub(crate) bytes: u64,
}

/// Makes the names of files durable.
pub(crate) type MakeDurable<'a> = dyn Fn(&[&SegmentFacts]) -> Result<()> + 'a;

/// The catalog in the hands of the one process that holds `maintenance.lock`.
///
/// # Errors
///
/// All methods: `NoSpace` and `Io` from the disk, `Locked` where something else keeps the
/// database busy. `Corrupt` means that it was damaged since it was opened: [`rebuild`] it.
pub(crate) trait Catalog: Send + fmt::Debug {
    /// Makes the catalog say what the directories say, in one transaction: unknown files
    /// are added, changed ones updated. The row of a file that is gone is removed if some
    /// file names it in `replaces`, or a logged intent to delete it; otherwise it is kept
    /// and reported as missing. The rules of retention are stored beside.
    ///
    /// Unknown files are given to `make_durable` first, whose error changes nothing: a name
    /// that a power cut may take must not be in a catalog that it leaves.
    fn reconcile(
        &mut self,
        files: &[SegmentFacts],
        retention: &RetentionRules,
        make_durable: &MakeDurable<'_>,
    ) -> Result<Reconciled>;

    /// Forgets missing files. Returns how many of them were known and missing.
    fn forget_missing(&mut self, uuids: &[Id]) -> Result<u64>;

    /// What is remembered of file `uuid`.
    fn cached(&self, uuid: &Id) -> Result<Option<CachedSegment>>;

    /// Whether file `uuid` was there and counted, and nothing was to delete it. Only files
    /// that count are entered, so that this outlives the record of a file's import.
    fn was_committed(&self, uuid: &Id) -> Result<bool>;

    /// The rules of retention as last stored; `None` where there are none, or damaged ones.
    fn retention(&self) -> Result<Option<RetentionRules>>;

    /// Stores rules that were set, whatever they were before. `retention.json` has them.
    fn set_retention(&mut self, rules: &RetentionRules) -> Result<()>;

    /// Logs a job before it begins; durable on return.
    fn log_intent(&mut self, intent: &Intent) -> Result<JobId>;

    /// Logs what a job has come to.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where there is no such job under way.
    fn log_done(&mut self, job: JobId, outcome: &Outcome) -> Result<()>;

    /// The last jobs, newest first.
    #[cfg_attr(not(test), expect(dead_code, reason = "for `stats --health`"))]
    fn jobs(&self, limit: usize) -> Result<Vec<Job>>;

    /// Copies the catalog into directory `to`, for a backup.
    fn back_up(&self, fs: &dyn FileSystem, to: &Path) -> Result<()>;
}

/// In what state the catalog was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CatalogState {
    /// The store had none yet.
    Fresh,
    /// It was whole.
    Good,
    /// It could not be used and was made anew; reconciling fills it again.
    Rebuilt {
        /// What was wrong.
        reason: RebuildReason,
        /// Where the old one was set aside, unless it had vanished.
        set_aside: Option<PathBuf>,
    },
}

/// Why a catalog could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RebuildReason {
    /// It had vanished.
    Lost,
    /// Its bytes or its schema were wrong.
    Damaged,
    /// It was an older copy of itself.
    Stale,
    /// It was another store's, another release's, or no catalog at all.
    Foreign,
    /// Somebody asked for it.
    Asked,
}

/// Opens the catalog of the store in `dir` for writing; the caller holds
/// `maintenance.lock`. One that is not whole is set aside in `quarantine/` and made anew.
///
/// # Errors
///
/// `Io`, `NoSpace`, `Locked`: maintenance can go on later, appends and queries at once.
pub(crate) fn open_writer(
    fs: &dyn FileSystem,
    dir: &Path,
    store_id: &Id,
) -> Result<(Box<dyn Catalog>, CatalogState)> {
    if !fs.shared_with_other_processes() {
        return Ok((Box::new(memory::MemoryCatalog::default()), CatalogState::Fresh));
    }
    let (catalog, state) = sqlite::open(fs, dir, store_id)?;
    Ok((Box::new(catalog), state))
}

/// Sets the catalog aside whatever its state, and makes a new one. The caller holds
/// `maintenance.lock`, and has the catalog open nowhere.
pub(crate) fn rebuild(
    fs: &dyn FileSystem,
    dir: &Path,
    store_id: &Id,
) -> Result<(Box<dyn Catalog>, CatalogState)> {
    if !fs.shared_with_other_processes() {
        return open_writer(fs, dir, store_id);
    }
    let (catalog, state) = sqlite::rebuild(fs, dir, store_id, RebuildReason::Asked)?;
    Ok((Box::new(catalog), state))
}

/// What is to become of one row of the catalog.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// Row and file agree.
    Keep,
    /// The file has other facts.
    Update(&'a SegmentFacts),
    /// The file is gone, and should be.
    Remove,
    /// The file is gone, and should not be.
    Missing,
}

/// Decides about rows, one after the other, and then about the files that had none.
#[derive(Debug)]
struct Reconciler<'a> {
    files: HashMap<Id, &'a SegmentFacts>,
    explained: HashSet<Id>,
    seen: HashSet<Id>,
    outcome: Reconciled,
}

impl<'a> Reconciler<'a> {
    fn new(files: &'a [SegmentFacts], intended: impl IntoIterator<Item = Id>) -> Self {
        let replaced = files.iter().flat_map(|facts| facts.replaces.iter().copied());
        Self {
            // Two files of one uuid are one copied: either will do.
            files: files.iter().map(|facts| (facts.uuid, facts)).collect(),
            explained: replaced.chain(intended).collect(),
            seen: HashSet::new(),
            outcome: Reconciled::default(),
        }
    }

    fn judge(&mut self, row: &CachedSegment) -> Verdict<'a> {
        self.seen.insert(row.uuid);
        if let Some(facts) = self.files.get(&row.uuid) {
            if CachedSegment::of(facts) == *row {
                return Verdict::Keep;
            }
            self.outcome.updated += 1;
            return Verdict::Update(facts);
        }
        if self.explained.contains(&row.uuid) {
            self.outcome.removed += 1;
            return Verdict::Remove;
        }
        self.outcome.missing.push(row.into());
        Verdict::Missing
    }

    /// The files that no row was about, once all rows are judged.
    fn unknown(&mut self) -> Vec<&'a SegmentFacts> {
        let mut unknown: Vec<_> =
            self.files.values().filter(|facts| !self.seen.contains(&facts.uuid)).copied().collect();
        unknown.sort_by_key(|facts| facts.uuid);
        self.outcome.added = unknown.len() as u64;
        unknown
    }

    fn is_there(&self, uuid: &Id) -> bool {
        self.files.contains_key(uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fs::OsFileSystem;

    pub(super) const FS: OsFileSystem = OsFileSystem;
    pub(super) const STORE: Id = id(0x51);

    pub(super) const fn id(number: u8) -> Id {
        Id::from_bytes([number; 16])
    }

    pub(super) fn facts(number: u8) -> SegmentFacts {
        let day = i64::from(number) * crate::time::MICROS_PER_DAY;
        SegmentFacts {
            uuid: id(number),
            table: Table::ALL[usize::from(number) % 3],
            partition: Partition::of_micros(day),
            kind: 2,
            rows: 1_000 + u64::from(number),
            bytes: 65_536,
            min_ts: day + 10,
            max_ts: day + 20,
            created: day + 30,
            txn: number.is_multiple_of(2).then_some(id(0xee)),
            replaces: Vec::new(),
            summary: (0..number).map(|byte| byte ^ 0x55).collect(),
        }
    }

    pub(super) fn rules() -> RetentionRules {
        RetentionRules { max_bytes: Some(1 << 40), ..RetentionRules::default() }
    }

    fn intent(deletes: Vec<Id>) -> Intent {
        Intent {
            kind: "expire",
            started: 100,
            what: "older than 90 days".to_owned(),
            rows: 3,
            bytes: 4,
            deletes,
        }
    }

    fn done() -> Outcome {
        Outcome { finished: 200, outcome: "done".to_owned(), rows: 30, bytes: 40 }
    }

    /// Both catalogs keep the same contract.
    fn check_both(check: impl Fn(&mut dyn Catalog)) {
        check(&mut memory::MemoryCatalog::default());
        let root = tempfile::tempdir().unwrap();
        let (mut catalog, state) = open_writer(&FS, root.path(), &STORE).unwrap();
        assert_eq!(state, CatalogState::Fresh);
        check(&mut *catalog);
    }

    #[test]
    fn unknown_files_are_added_and_changed_ones_updated() {
        check_both(|catalog| {
            let files = [facts(1), facts(2), facts(1)];
            let found = catalog.reconcile(&files, &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled { added: 2, ..Reconciled::default() });
            let expected = CachedSegment::of(&facts(2));
            assert_eq!(catalog.cached(&id(2)).unwrap(), Some(expected));
            assert_eq!(catalog.cached(&id(9)).unwrap(), None);

            let mut grown = facts(1);
            grown.rows += 5;
            grown.summary = vec![7; 100_000];
            let found =
                catalog.reconcile(&[grown.clone(), facts(2)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled { updated: 1, ..Reconciled::default() });
            assert_eq!(catalog.cached(&id(1)).unwrap(), Some(CachedSegment::of(&grown)));
        });
    }

    #[test]
    fn a_file_gone_and_replaced_is_forgotten() {
        check_both(|catalog| {
            catalog.reconcile(&[facts(1), facts(2)], &rules(), &|_| Ok(())).unwrap();
            let archive = SegmentFacts { replaces: vec![id(1), id(2)], ..facts(3) };
            let found = catalog.reconcile(&[archive, facts(2)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled { added: 1, removed: 1, ..Reconciled::default() });
            assert_eq!(catalog.cached(&id(1)).unwrap(), None);
        });
    }

    #[test]
    fn a_file_gone_and_meant_to_be_is_forgotten() {
        check_both(|catalog| {
            catalog.reconcile(&[facts(1), facts(2)], &rules(), &|_| Ok(())).unwrap();
            let job = catalog.log_intent(&intent(vec![id(1)])).unwrap();
            // In the middle of the job nothing has happened yet.
            let found = catalog.reconcile(&[facts(1), facts(2)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled::default());
            let found = catalog.reconcile(&[facts(2)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled { removed: 1, ..Reconciled::default() });
            catalog.log_done(job, &done()).unwrap();
            let found = catalog.reconcile(&[facts(2)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled::default());
        });
    }

    #[test]
    fn a_file_gone_for_no_reason_is_missing_until_forgotten() {
        check_both(|catalog| {
            catalog.reconcile(&[facts(1), facts(2), facts(3)], &rules(), &|_| Ok(())).unwrap();
            for _ in 0..3 {
                let found = catalog.reconcile(&[facts(2)], &rules(), &|_| Ok(())).unwrap();
                let uuids: Vec<Id> = found.missing.iter().map(|it| it.uuid).collect();
                assert_eq!(uuids, [id(3), id(1)], "by table, then day");
                assert_eq!(found.missing[1].rows, 1_001);
                assert_eq!(found.removed, 0);
            }
            // One comes back, the other is given up; a file that is there cannot be.
            let found = catalog.reconcile(&[facts(2), facts(3)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found.missing.len(), 1);
            assert_eq!(catalog.forget_missing(&[id(1), id(2), id(3)]).unwrap(), 1);
            let found = catalog.reconcile(&[facts(2), facts(3)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled::default());
        });
    }

    #[test]
    fn a_missing_file_may_be_replaced() {
        check_both(|catalog| {
            catalog.reconcile(&[facts(1)], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(catalog.reconcile(&[], &rules(), &|_| Ok(())).unwrap().missing.len(), 1);
            let tombstone = SegmentFacts { replaces: vec![id(1)], ..facts(2) };
            let found = catalog.reconcile(&[tombstone], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled { added: 1, removed: 1, ..Reconciled::default() });
        });
    }

    #[test]
    fn an_intent_not_carried_out_explains_nothing_later() {
        check_both(|catalog| {
            catalog.reconcile(&[facts(1)], &rules(), &|_| Ok(())).unwrap();
            let job = catalog.log_intent(&intent(vec![id(1)])).unwrap();
            let failed = Outcome { outcome: "disk full".to_owned(), ..done() };
            catalog.log_done(job, &failed).unwrap();
            assert_eq!(
                catalog.reconcile(&[facts(1)], &rules(), &|_| Ok(())).unwrap(),
                Reconciled::default()
            );
            assert_eq!(catalog.reconcile(&[], &rules(), &|_| Ok(())).unwrap().missing.len(), 1);
        });
    }

    #[test]
    fn jobs_are_logged() {
        check_both(|catalog| {
            let first = catalog.log_intent(&intent(vec![])).unwrap();
            let second = catalog.log_intent(&intent(vec![id(1)])).unwrap();
            assert!(first < second);
            catalog.log_done(first, &done()).unwrap();
            let error = catalog.log_done(first, &done()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let jobs = catalog.jobs(10).unwrap();
            assert_eq!([jobs[0].id, jobs[1].id], [second, first]);
            assert_eq!((jobs[0].finished, jobs[0].rows), (None, 3));
            assert_eq!((jobs[1].finished, jobs[1].rows), (Some(200), 30));
            assert_eq!(jobs[1].outcome.as_deref(), Some("done"));
            assert_eq!(catalog.jobs(1).unwrap().len(), 1);
        });
    }

    #[test]
    fn rules_are_kept_beside() {
        check_both(|catalog| {
            assert_eq!(catalog.retention().unwrap(), None);
            catalog.reconcile(&[], &rules(), &|_| Ok(())).unwrap();
            assert_eq!(catalog.retention().unwrap(), Some(rules()));
            let keep = RetentionRules::keep_everything();
            catalog.reconcile(&[], &keep, &|_| Ok(())).unwrap();
            assert_eq!(catalog.retention().unwrap(), Some(keep));
            catalog.set_retention(&rules()).unwrap();
            assert_eq!(catalog.retention().unwrap(), Some(rules()));
        });
    }

    #[test]
    fn extreme_facts_are_taken() {
        check_both(|catalog| {
            let extreme = SegmentFacts {
                partition: Partition::from_days(i32::MIN),
                kind: u8::MAX,
                rows: u64::MAX,
                bytes: u64::MAX,
                min_ts: i64::MIN,
                max_ts: i64::MAX,
                created: i64::MIN,
                txn: Some(id(0)),
                ..facts(1)
            };
            catalog.reconcile(std::slice::from_ref(&extreme), &rules(), &|_| Ok(())).unwrap();
            let found =
                catalog.reconcile(std::slice::from_ref(&extreme), &rules(), &|_| Ok(())).unwrap();
            assert_eq!(found, Reconciled::default());
            let cached = catalog.cached(&id(1)).unwrap().unwrap();
            assert_eq!((cached.rows, cached.min_ts), (i64::MAX.unsigned_abs(), i64::MIN));
        });
    }
}
