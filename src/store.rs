//! `Store`: open, wire the parts together, close.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::alert::{Alerts, Change, Evaluation, HISTORY_SWARM, Rule};
use crate::column::Batch;
use crate::config::{MaintenanceRequest, MaintenanceWork, Options, ReadMode, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::format::id::Id;
use crate::fs::{FileSystem, OsFileSystem, UntrustedFileSystem};
use crate::ingest::appender::{Appender, Door};
use crate::ingest::buffer::RowRef;
use crate::ingest::channel::{Gate, Message, SharedSlot, locked};
use crate::ingest::committer::Committer;
use crate::ingest::transaction::{AfterCommit, Import, ImportSource};
use crate::maintain::{self, merge::Reach, pass, scheduler, sealer};
use crate::report::{
    BackupReport, CatalogReport, Health, ImportReport, MaintenanceReport, MaintenanceStatus,
    RecoveryReport, RepairReport, StoreStats, VerifyReport,
};
use crate::row::{AgentMetric, SwarmMetric, TaskMetric};
use crate::schema::Table;
use crate::segment::files::StoreRoot;
use crate::snapshot::Snapshot;
use crate::snapshot::lister::Lister;
use crate::store_files::retention::{LastPass, RetentionRules};
use crate::store_files::txn::TxnRecord;
use crate::store_files::{backup_mark, identity, txn};
use crate::sync::Mutex;
use crate::sync::channel::{Sender, bounded};
use crate::sync::thread::{self, JoinHandle};
use crate::time::Timestamp;

/// Buffers behind `Store::record_*`: threads spread over them.
const RECORD_SLOTS: usize = 8;
/// Ended active segments that may wait for the sealing thread before commits do.
const SEALS_WAITING: usize = 4;
/// How long a call that needs the maintenance lock waits for it.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A store, open for reading, or for reading and writing. Cheap to clone and to share
/// between threads; the last clone closes it.
///
/// Any number of processes may have the same store open.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: StoreRoot,
    lister: Arc<Lister>,
    door: Arc<Door>,
    writing: Option<Writing>,
    recovery: RecoveryReport,
}

#[derive(Debug)]
struct Writing {
    gate: Arc<Gate>,
    slots: Vec<SharedSlot>,
    jobs: Mutex<Option<Sender<sealer::Job>>>,
    /// What background maintenance has done, and how it is told to pause.
    maintenance: Arc<scheduler::Shared>,
    /// Ends background maintenance by being dropped.
    scheduled: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens a store for reading and writing, creating it in an absent or empty directory.
    ///
    /// # Errors
    ///
    /// `NotOurFile` for a directory that holds something else, `UnsupportedVersion` for a
    /// store of a newer format, `Io`, `NoSpace`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, Options::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and `InvalidArgument` for an option out of its range.
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_on(Arc::new(OsFileSystem), dir.as_ref(), options)
    }

    /// Opens an existing store for reading only. Writes nothing and takes no lock, so it
    /// works on a read-only mount.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); nothing is created. `Io` where a directory cannot be read.
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_read_only_on(Arc::new(OsFileSystem), dir.as_ref(), Options::default())
    }

    /// As [`open_read_only`](Self::open_read_only), with options, on any file system.
    pub(crate) fn open_read_only_on(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: Options,
    ) -> Result<Self> {
        options.validate()?;
        backup_mark::check_whole(fs.as_ref(), dir)?;
        let mut recovery = RecoveryReport::default();
        let id = existing_id(fs.as_ref(), dir, &mut recovery)?;
        let root = root_of(fs, dir, id, options);
        let lister = Arc::new(match root.options.read_mode {
            ReadMode::Untrusted => Lister::without_catalog(root.clone()),
            ReadMode::Mapped | ReadMode::Copied => Lister::new(root.clone()),
        });
        report_torn_tails(&lister, &mut recovery)?;
        let door = Arc::new(Door::new());
        Ok(Self { inner: Arc::new(Inner { root, lister, door, writing: None, recovery }) })
    }

    /// Opens a store that may be anybody's, for reading only.
    ///
    /// Nothing is trusted that is not checked: the catalog is not opened; no link is followed and
    /// nothing outside of the directory is reached; everything is read into memory and checked at
    /// every load, so that a file that somebody truncates is an error; and limits are half of
    /// what they are ([`ReadMode::Untrusted`]). Checksums are no defence against intent: rows are
    /// what their writer wants them to be.
    ///
    /// # Errors
    ///
    /// As [`open_read_only`](Self::open_read_only).
    pub fn open_untrusted(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let fs = Arc::new(UntrustedFileSystem::open(dir)?);
        let options = Options { read_mode: ReadMode::Untrusted, ..Options::default() };
        Self::open_read_only_on(fs, dir, options)
    }

    /// As [`open_with`](Self::open_with), on any file system.
    pub(crate) fn open_on(fs: Arc<dyn FileSystem>, dir: &Path, options: Options) -> Result<Self> {
        options.validate()?;
        // A backup that is opened for writing is a store of its own from then on.
        backup_mark::take_away(fs.as_ref(), dir)?;
        let mut recovery = RecoveryReport::default();
        let id = match existing_id(fs.as_ref(), dir, &mut recovery) {
            Ok(id) => id,
            Err(error) if error.is_not_found() || error.kind() == ErrorKind::NotOurFile => {
                let now = options.clock.now().as_micros();
                // The first reading of the clock, which later ones are held against.
                let at = maintain::clock::read(&*options.clock);
                let last_pass = Some(LastPass { at, doubts: Vec::new() });
                let rules = RetentionRules { last_pass, ..RetentionRules::default() };
                identity::create_store(fs.as_ref(), dir, now, &rules)?.store().store_id
            }
            Err(error) => return Err(error),
        };
        identity::sync_names(fs.as_ref(), dir)?;
        if !options.network_file_system && !fs.is_local(dir)? {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the directory is on a network or unknown file system, where locks and syncs may not hold",
            )
            .with_path(dir)
            .with_remedy("use a local one, or set Options::network_file_system"));
        }
        let root = root_of(fs, dir, id, options);
        let lister = Arc::new(Lister::new(root.clone()));
        let door = Arc::new(Door::new());
        maintain::rules::apply_retention(&root, &door_cutoffs(&door), &mut recovery.notes)?;
        recover(&root, &lister, &mut recovery)?;
        let writing = Writing::start(&root, &lister, &door)?;
        let inner = Inner { root, lister, door, writing: Some(writing), recovery };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn writing(&self) -> Result<&Writing> {
        self.inner.door.check_process()?;
        self.inner.writing.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the store was opened for reading only")
        })
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.root.dir
    }

    /// The store's id.
    pub fn id(&self) -> String {
        self.inner.root.id.to_string()
    }

    /// What opening found. A store opened for reading only reports torn tails too, and leaves
    /// them; while the owner of a segment lives, one may be a commit that is being written.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    fn record(&self, row: RowRef<'_>) -> Result<()> {
        let writing = self.writing()?;
        self.inner.door.check_row(&row)?;
        let now = self.inner.root.options.clock.elapsed();
        writing.gate.accept(writing.slot(), row, now)
    }

    fn try_record(&self, row: RowRef<'_>) -> Result<()> {
        let writing = self.writing()?;
        self.inner.door.check_row(&row)?;
        let now = self.inner.root.options.clock.elapsed();
        writing.gate.try_accept(writing.slot(), row, now)
    }

    /// Accepts a task. It is committed with the buffer it joins, at the latest after the
    /// flush interval. Waits only while the channel to the committer is full.
    ///
    /// # Errors
    ///
    /// `BadInput` or `PastRetention` for the row; `NoSpace`, `Io` while the disk refuses and
    /// everything before it is full; `Poisoned`, `Closed`, `Forked`. The row is not
    /// accepted then.
    pub fn record_task(&self, row: &TaskMetric<'_>) -> Result<()> {
        self.record(RowRef::Task(row))
    }

    /// Accepts a gauge of an agent.
    ///
    /// # Errors
    ///
    /// As [`record_task`](Self::record_task).
    pub fn record_agent(&self, row: &AgentMetric<'_>) -> Result<()> {
        self.record(RowRef::Agent(row))
    }

    /// Accepts a gauge of a swarm.
    ///
    /// # Errors
    ///
    /// As [`record_task`](Self::record_task).
    pub fn record_swarm(&self, row: &SwarmMetric<'_>) -> Result<()> {
        self.record(RowRef::Swarm(row))
    }

    /// As [`record_task`](Self::record_task), but never waits.
    ///
    /// # Errors
    ///
    /// `Full` when it would have to; the row is not accepted.
    pub fn try_record_task(&self, row: &TaskMetric<'_>) -> Result<()> {
        self.try_record(RowRef::Task(row))
    }

    /// As [`record_agent`](Self::record_agent), but never waits.
    ///
    /// # Errors
    ///
    /// `Full` when it would have to; the row is not accepted.
    pub fn try_record_agent(&self, row: &AgentMetric<'_>) -> Result<()> {
        self.try_record(RowRef::Agent(row))
    }

    /// As [`record_swarm`](Self::record_swarm), but never waits.
    ///
    /// # Errors
    ///
    /// `Full` when it would have to; the row is not accepted.
    pub fn try_record_swarm(&self, row: &SwarmMetric<'_>) -> Result<()> {
        self.try_record(RowRef::Swarm(row))
    }

    /// A fast path of its own for one thread.
    ///
    /// # Errors
    ///
    /// `Closed`, `Poisoned`, `Forked`; `InvalidArgument` for a store opened for reading.
    pub fn appender(&self) -> Result<Appender> {
        let writing = self.writing()?;
        writing.gate.check()?;
        Ok(Appender {
            gate: Arc::clone(&writing.gate),
            door: Arc::clone(&self.inner.door),
            options: Arc::clone(&self.inner.root.options),
            slot: writing.gate.slot(),
        })
    }

    /// Commits every row accepted before, by any appender of this store: visible to every
    /// process when it returns.
    ///
    /// # Errors
    ///
    /// Why it could not be written; the rows are kept and tried again.
    pub fn commit(&self) -> Result<()> {
        self.writing()?.gate.ask(|reply| Message::Barrier { sync: false, reply })
    }

    /// Commits every row accepted before, by any appender of this store, and makes it
    /// durable: when it returns, the rows survive a loss of power.
    ///
    /// # Errors
    ///
    /// Why it could not be written; the rows are kept and tried again. `Poisoned` when
    /// they can never be.
    pub fn flush(&self) -> Result<()> {
        self.writing()?.gate.ask(|reply| Message::Barrier { sync: true, reply })
    }

    /// Flushes, then seals this process's active segments and those that dead processes
    /// left, and merges small segments where there are many.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush). What could not be sealed stays readable and is tried again.
    pub fn seal(&self) -> Result<()> {
        self.seal_own()?;
        maintain::merge_and_sweep(&self.inner.root, &self.inner.lister, Reach::All).map(|_| ())
    }

    /// Seals this process's active segments.
    fn seal_own(&self) -> Result<()> {
        let writing = self.writing()?;
        writing.gate.ask(|reply| Message::Roll { reply })?;
        let jobs = locked(&writing.jobs).clone();
        jobs.map_or(Ok(()), |jobs| sealer::drain(&jobs))
    }

    /// Does maintenance now, in this thread.
    ///
    /// Partitions are worked on one by one, and each step leaves the store whole. Snapshots
    /// that were taken before are not disturbed. Files that are replaced or expired stay for
    /// the grace of the options, but on a full disk.
    ///
    /// # Errors
    ///
    /// `Locked` while another process does maintenance; as [`flush`](Self::flush) where
    /// segments are to be sealed; `Io`, `NoSpace`: what was not done is done by the next pass.
    /// A clock that is not believed is no error: the report says so.
    pub fn maintain(&self, request: &MaintenanceRequest) -> Result<MaintenanceReport> {
        self.writing()?;
        let (root, lister) = (&self.inner.root, self.inner.lister.as_ref());
        let before = pass::actives(lister)?;
        if request.what != MaintenanceWork::Expire && !request.dry_run {
            self.seal_own()?;
        }
        let lock = &maintain::wait_for_lock(root, LOCK_PATIENCE)?;
        let pass = pass::Pass { root, lister, lock, request: *request, stop: &|| false };
        let report = pass.run(&before)?;
        self.apply_retention()?;
        Ok(report)
    }

    /// Flushes, and backs the store up into the directory `to`, while any process goes on
    /// writing: every row that was accepted before by this store, and what others have
    /// committed, as one snapshot sees it. The directory opens as a store.
    ///
    /// It has to be absent, empty, or an earlier backup of this store, which is brought up to
    /// date: what it has is not copied again, and what does not count any more is removed.
    /// While this is under way, and where it ended early, the directory does not open. Once it
    /// has been opened for writing it is a store of its own, and no backup is written to it.
    ///
    /// Files that never change are linked where the file system can do that, so that a backup
    /// takes little time and space; it then protects against mistakes, not against a disk that
    /// fails. Files in `quarantine/` are not in it.
    ///
    /// # Errors
    ///
    /// `NotOurFile` where the directory holds anything else; `InvalidArgument` inside the
    /// store; `Locked` while another process does maintenance; as [`flush`](Self::flush);
    /// `Io`, `NoSpace`: the next backup into the directory goes on.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<BackupReport> {
        self.flush()?;
        let (root, lister) = (&self.inner.root, self.inner.lister.as_ref());
        let lock = maintain::wait_for_lock(root, LOCK_PATIENCE)?;
        maintain::backup::back_up(root, lister, &lock, to.as_ref())
    }

    /// What background maintenance in this process has done so far.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a store opened for reading; `Forked`.
    pub fn maintenance_status(&self) -> Result<MaintenanceStatus> {
        Ok(self.writing()?.maintenance.status())
    }

    /// Pauses background maintenance in this process, or lets it go on. A pass under way ends
    /// with the partition that it is at. [`maintain`](Self::maintain) works all the same.
    ///
    /// # Errors
    ///
    /// As [`maintenance_status`](Self::maintenance_status).
    pub fn pause_maintenance(&self, yes: bool) -> Result<()> {
        self.writing()?.maintenance.pause(yes);
        Ok(())
    }

    /// How maintenance of the store stands, whichever process does it.
    ///
    /// # Errors
    ///
    /// `Io`, `Forked`.
    pub fn health(&self) -> Result<Health> {
        self.inner.door.check_process()?;
        maintain::health::health(&self.inner.root, &self.inner.lister)
    }

    /// Begins to watch the store with these rules.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for too many rules, or two of one name.
    pub fn alerts(&self, rules: Vec<Rule>) -> Result<Alerts> {
        Alerts::new(rules)
    }

    /// Asks what the rules ask, as of now, and takes every alert to its next state.
    ///
    /// The states are kept in the store by one process of those that have it open for writing:
    /// the first to come, and when it ends the next. It also records every change of a state as
    /// a gauge of the swarm [`HISTORY_SWARM`], with the metric type `alert.` and the name of
    /// the rule, and 0 for inactive, 1 for pending, 2 for firing, 3 for resolved. All others go
    /// on from the states that are kept, and keep nothing.
    ///
    /// # Errors
    ///
    /// `Io` when a directory cannot be read; `Forked`. That a rule cannot be judged is said by
    /// its alert, and that the states cannot be kept by a note.
    pub fn evaluate_alerts(&self, alerts: &mut Alerts) -> Result<Evaluation> {
        let now = self.inner.root.options.clock.now();
        self.evaluate_alerts_at(alerts, &self.snapshot()?, now)
    }

    /// The same, for windows that end at `now`, on a snapshot of this store.
    ///
    /// # Errors
    ///
    /// As [`evaluate_alerts`](Self::evaluate_alerts).
    pub fn evaluate_alerts_at(
        &self,
        alerts: &mut Alerts,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Evaluation> {
        self.inner.door.check_process()?;
        let is_writable = self.inner.writing.is_some();
        let record = |changes: &[Change]| self.record_changes(changes);
        Ok(alerts.evaluate(&self.inner.root, is_writable, snapshot, now, &record))
    }

    /// The history of alerts, as gauges of a swarm.
    fn record_changes(&self, changes: &[Change]) -> Result<()> {
        for change in changes {
            self.record_swarm(&SwarmMetric {
                timestamp: change.at,
                swarm_id: HISTORY_SWARM,
                metric_type: &change.metric_type,
                value: change.value,
                metadata: Some(&change.metadata),
            })?;
        }
        self.flush()
    }

    /// A fixed view: every row that any process committed before.
    ///
    /// # Errors
    ///
    /// `Io` when a directory cannot be read; `Forked`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.inner.door.check_process()?;
        self.inner.lister.snapshot()
    }

    /// Flushes and ends the background threads. A second call does nothing.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush); the store stays open then.
    pub fn close(&self) -> Result<()> {
        self.inner.close(self.writing()?)
    }

    /// After `Poisoned`: the rows accepted after the last durable commit. They may be on
    /// disk too.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a store opened for reading; `Forked`.
    pub fn take_unacknowledged(&self) -> Result<impl Iterator<Item = Arc<Batch>> + use<>> {
        Ok(self.writing()?.gate.take_unacknowledged().into_iter())
    }

    /// The rules of retention in force. Where `retention.json` cannot be read everything is
    /// kept, and [`recovery`](Self::recovery) says so.
    ///
    /// # Errors
    ///
    /// `Io`, `Forked`.
    pub fn retention(&self) -> Result<Retention> {
        self.inner.door.check_process()?;
        Ok(maintain::rules::current(&self.inner.root)?.rules.retention())
    }

    /// Sets the rules of retention, for every process. Rows past the last tier are refused
    /// from now on by this one, and by others with their next seal; what has expired goes
    /// with the next maintenance, whole days at a time.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the rule that is broken; `Locked` while another process does
    /// maintenance; `Io`, `NoSpace`: then the old rules hold, or the longer of both.
    pub fn set_retention(&self, retention: &Retention) -> Result<()> {
        self.writing()?;
        maintain::rules::set(&self.inner.root, retention, LOCK_PATIENCE)?;
        self.apply_retention()
    }

    /// Keeps every row of every table from now on: no age is refused, nothing expires for
    /// its age.
    ///
    /// # Errors
    ///
    /// `Locked` while another process does maintenance; `Io`, `NoSpace`.
    pub fn keep_everything(&self) -> Result<()> {
        self.writing()?;
        maintain::rules::keep_everything(&self.inner.root, LOCK_PATIENCE)?;
        self.apply_retention()
    }

    fn apply_retention(&self) -> Result<()> {
        let set_cutoff = door_cutoffs(&self.inner.door);
        maintain::rules::apply_retention(&self.inner.root, &set_cutoff, &mut Vec::new())
    }

    /// Begins an import: one transaction, of which nothing counts before its commit.
    ///
    /// # Errors
    ///
    /// `AlreadyImported` for a source that was imported before, unless `again` is set.
    pub fn begin_import(&self, source: ImportSource) -> Result<Import> {
        self.writing()?;
        let (root, lister) = (self.inner.root.clone(), Arc::clone(&self.inner.lister));
        let after = AfterCommit(Box::new(move || {
            // Best effort: the next maintenance does it again.
            let _ = maintain::reconcile::remember(&root, &lister);
        }));
        Import::begin(&self.inner.root, &self.inner.door, source, after)
    }

    /// Takes a committed import back.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an id that was not imported, or whose rows have been merged
    /// with others since; `Locked` while another process does maintenance.
    pub fn undo_import(&self, id: &str) -> Result<ImportReport> {
        self.writing()?;
        maintain::undo_import(&self.inner.root, &self.inner.lister, id, LOCK_PATIENCE)
    }

    /// The committed imports, oldest first.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn imports(&self) -> Result<Vec<ImportReport>> {
        let root = &self.inner.root;
        let listing = txn::list_committed(root.fs.as_ref(), &root.dir)?;
        Ok(listing.records.iter().map(TxnRecord::report).collect())
    }

    /// Rows, bytes and ranges by table and kind of file.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn stats(&self) -> Result<StoreStats> {
        maintain::stats(&self.inner.lister)
    }

    /// Checks every checksum of every file. `deep` also computes every summary again.
    ///
    /// # Errors
    ///
    /// `Io` when a directory cannot be read; damage is in the report.
    pub fn verify(&self, deep: bool) -> Result<VerifyReport> {
        maintain::verify::verify(&self.inner.root, &self.inner.lister, deep)
    }

    /// Repairs the store in `dir`: whatever is damaged gives way to what can be read of it.
    ///
    /// Every row that can be read is kept, indexes, summaries and the catalog are built anew,
    /// and nothing is deleted: damaged files are kept in `quarantine/`. What is lost is
    /// named, in the report and from then on in the coverage of answers, as gone for the reason
    /// `damaged`. A second repair finds nothing to do. `dry_run` says what would be done.
    ///
    /// Other processes may have the store open. A damaged active segment that one of them
    /// writes to is left, and so are files of a later release.
    ///
    /// # Errors
    ///
    /// `NotOurFile` where there is no store; `Corrupt` where `store.json` is lost and headers
    /// name several stores: nothing is done; `Locked` while another process does maintenance;
    /// `Io`, `NoSpace`: the next repair goes on.
    pub fn repair(dir: impl AsRef<Path>, dry_run: bool) -> Result<RepairReport> {
        Self::repair_on(Arc::new(OsFileSystem), dir.as_ref(), Options::default(), dry_run)
    }

    /// As [`repair`](Self::repair), on any file system.
    pub(crate) fn repair_on(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: Options,
        dry_run: bool,
    ) -> Result<RepairReport> {
        let options = Options { read_mode: ReadMode::Copied, ..options };
        options.validate()?;
        let is_backup = backup_mark::check_whole(fs.as_ref(), dir)?.is_some();
        let id = existing_id(fs.as_ref(), dir, &mut RecoveryReport::default())?;
        let root = root_of(fs, dir, id, options);
        if is_backup && !dry_run {
            let planned = maintain::repair::repair(&root, true, LOCK_PATIENCE)?;
            if planned.files.is_empty() && planned.notes.is_empty() {
                return Ok(RepairReport { dry_run, ..planned });
            }
            // With a change of its own it is a backup no more.
            backup_mark::take_away(root.fs.as_ref(), dir)?;
        }
        maintain::repair::repair(&root, dry_run, LOCK_PATIENCE)
    }

    /// Builds the catalog anew from the files; the old one is set aside.
    ///
    /// # Errors
    ///
    /// `Locked` while another process does maintenance; `Io`.
    pub fn rebuild_catalog(&self) -> Result<CatalogReport> {
        self.writing()?;
        maintain::reconcile::rebuild(&self.inner.root, &self.inner.lister, LOCK_PATIENCE)
    }
}

#[cfg(feature = "testing")]
impl Store {
    /// As [`repair`](Self::repair), on a simulated file system and with options.
    ///
    /// # Errors
    ///
    /// As [`repair`](Self::repair).
    #[doc(hidden)]
    pub fn repair_simulated(
        fs: &crate::fs::sim::SimFileSystem,
        dir: &Path,
        options: Options,
        dry_run: bool,
    ) -> Result<RepairReport> {
        Self::repair_on(Arc::new(fs.clone()), dir, options, dry_run)
    }
}

fn door_cutoffs(door: &Arc<Door>) -> impl Fn(Table, i64) + use<> {
    let door = Arc::clone(door);
    move |table, micros| door.set_cutoff(table, micros)
}

fn root_of(fs: Arc<dyn FileSystem>, dir: &Path, id: Id, options: Options) -> StoreRoot {
    let writer = Id::from_bytes(fs.unique_id());
    StoreRoot { fs, dir: dir.to_path_buf(), id, writer, options: Arc::new(options) }
}

/// The id in `store.json`, or else the one that all headers agree on.
fn existing_id(fs: &dyn FileSystem, dir: &Path, recovery: &mut RecoveryReport) -> Result<Id> {
    match identity::read_store_file(fs, dir) {
        Ok(store) => Ok(store.store_id),
        Err(error) if matches!(error.kind(), ErrorKind::UnsupportedVersion) => Err(error),
        Err(error) => match maintain::id_of_headers(fs, dir)? {
            Some(id) => {
                recovery
                    .notes
                    .push(format!("{error}; the id that every segment names is used: {id}"));
                Ok(id)
            }
            None => Err(error),
        },
    }
}

/// Unclean ends of active segments are never silent, whoever opens the store. A reader only
/// reports them; a writer sets them aside when it seals the file.
fn report_torn_tails(lister: &Lister, recovery: &mut RecoveryReport) -> Result<()> {
    lister.snapshot()?;
    for (file, bytes, frames) in lister.torn_tails() {
        recovery.torn_tail_bytes += bytes;
        recovery.frames_dropped += frames;
        recovery
            .notes
            .push(format!("{file}: {bytes} bytes after the last commit belong to no whole commit"));
    }
    Ok(())
}

/// What a writer does about the past when it opens: dead processes' segments where there
/// are many, torn tails, replaced files, the catalog.
fn recover(root: &StoreRoot, lister: &Arc<Lister>, recovery: &mut RecoveryReport) -> Result<()> {
    report_torn_tails(lister, recovery)?;
    match maintain::merge_and_sweep(root, lister, Reach::Crowded) {
        Ok(Some(done)) => {
            recovery.rows_recovered += done.rows_recovered;
            recovery.catalog_rebuilt |= done.catalog_rebuilt;
            recovery.notes.extend(done.notes);
            Ok(())
        }
        Ok(None) => Ok(()),
        // Neither a full disk nor a bad file is a reason not to open: what is there can be
        // read, and what was not done is done next time. A newer store is.
        Err(error) if error.kind() != ErrorKind::UnsupportedVersion => {
            recovery.notes.push(format!("maintenance: {error}"));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Writing {
    fn start(root: &StoreRoot, lister: &Arc<Lister>, door: &Arc<Door>) -> Result<Self> {
        let options = &root.options;
        let (gate, receiver) =
            Gate::new(options.channel_batches, options.channel_bytes, options.buffer_rows);
        let (jobs, waiting) = bounded(SEALS_WAITING);
        let rolled = {
            let jobs = jobs.clone();
            move |writer| {
                // Without a sealing thread the segment stays as it is; a later open seals it.
                let _ = jobs.send(sealer::Job::Seal(Box::new(writer)));
            }
        };
        let committer = Committer::new(root.clone(), Arc::clone(&gate), receiver, Box::new(rolled));
        let after = {
            let (root, lister, door) = (root.clone(), Arc::clone(lister), Arc::clone(door));
            move || {
                // Best effort: the next seal, open or command does it again.
                let _ = maintain::merge_and_sweep(&root, &lister, Reach::Crowded);
                let _ =
                    maintain::rules::apply_retention(&root, &door_cutoffs(&door), &mut Vec::new());
            }
        };
        let sealing = {
            let root = root.clone();
            spawn("tallystone-seal", move || sealer::run(&root, &waiting, &after))?
        };
        let committing = spawn("tallystone-commit", move || committer.run())?;
        let slots = (0..RECORD_SLOTS).map(|_| gate.slot()).collect();
        let mut writing = Self {
            gate,
            slots,
            jobs: Mutex::new(Some(jobs)),
            maintenance: Arc::default(),
            scheduled: Mutex::new(None),
            threads: Mutex::new(vec![committing, sealing]),
        };
        if let Some(interval) = options.maintenance {
            writing.schedule(root, lister, door, interval)?;
        }
        Ok(writing)
    }

    /// Starts background maintenance.
    fn schedule(
        &mut self,
        root: &StoreRoot,
        lister: &Arc<Lister>,
        door: &Arc<Door>,
        interval: Duration,
    ) -> Result<()> {
        let (sender, end) = bounded(0);
        let (root, lister) = (root.clone(), Arc::clone(lister));
        let shared = Arc::clone(&self.maintenance);
        let set_cutoff = door_cutoffs(door);
        let thread = spawn("tallystone-maintain", move || {
            let scheduler = scheduler::Scheduler { root, lister, interval, shared };
            scheduler.run(&end, &|| {
                // Rules that another process has set, and the time, move on; best effort.
                let root = &scheduler.root;
                let _ = maintain::rules::apply_retention(root, &set_cutoff, &mut Vec::new());
            });
        })?;
        *locked(&self.scheduled) = Some(sender);
        locked(&self.threads).push(thread);
        Ok(())
    }

    /// The buffer that this thread's records go to.
    fn slot(&self) -> &SharedSlot {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
        &self.slots[MINE.with(|mine| *mine) % self.slots.len()]
    }

    /// Flushes and ends the threads; false if that was done before.
    fn close(&self) -> Result<bool> {
        // One at a time: a second caller gets the outcome of the first, or tries again itself.
        let mut threads = locked(&self.threads);
        let Some(closing) = self.gate.begin_close() else { return Ok(false) };
        let closed = self
            .gate
            .hand_over_all()
            .and_then(|()| self.gate.ask_only(|reply| Message::Close { closing, reply }));
        // What counts is what has become of the committer, not whether its answer was waited
        // for: with an error given, it either takes rows again, or has ended with all written.
        match closed {
            Err(error) if self.gate.give_up_close(closing) => Err(error),
            _ => {
                self.join(&mut threads);
                Ok(true)
            }
        }
    }

    fn join(&self, threads: &mut Vec<JoinHandle<()>>) {
        self.maintenance.stop();
        drop(locked(&self.scheduled).take());
        drop(locked(&self.jobs).take());
        for thread in threads.drain(..) {
            // A panic of the thread has been printed; the rows it had are in the files.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::io("start a thread", &PathBuf::from(name), error))
}

impl Inner {
    fn close(&self, writing: &Writing) -> Result<()> {
        if writing.close()? {
            // Best effort: everything is written, and the next writer to open looks again.
            let _ = maintain::merge_where_crowded(&self.root, &self.lister);
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In the child of a fork the threads are not there: nothing is ours to end.
        if let (Some(writing), Ok(())) = (&self.writing, self.door.check_process()) {
            // Nobody is left to be told; what was flushed is safe.
            if self.close(writing).is_err() {
                writing.gate.abandon();
                writing.join(&mut locked(&writing.threads));
            }
        }
    }
}
