//! What the store tells about itself: recovery, size, imports, verification, the catalog.
//!
//! Owns the public reports; they are plain data, filled by whoever did the work.

use std::path::PathBuf;

use crate::time::Timestamp;

/// What opening a store found, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RecoveryReport {
    /// One line each: what was found, where, and what was done.
    pub notes: Vec<String>,
    /// Bytes of torn tails: never acknowledged, set aside when their file is sealed.
    pub torn_tail_bytes: u64,
    /// Whole frames in them.
    pub frames_dropped: u64,
    /// Rows sealed from the active segments of processes that are gone.
    pub rows_recovered: u64,
    /// Whether the catalog was built anew from the files.
    pub catalog_rebuilt: bool,
}

/// Size of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// One entry per table and kind of file that is there.
    pub tables: Vec<TableStats>,
    /// What has expired: tombstones, and the rows that they stand for.
    pub gone: Vec<TableStats>,
    /// Tombstones of files that were damaged when they expired: rows of unknown number.
    pub damaged_gone: u64,
    /// Bytes of replaced files that wait for the grace to pass.
    pub replaced_bytes: u64,
    /// Files that cannot be read.
    pub damaged_files: u64,
}

/// Size of one table in one kind of file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableStats {
    /// Name of the table.
    pub table: &'static str,
    /// `active`, `segment`, and so on: the ending of the files' names.
    pub kind: &'static str,
    /// Files.
    pub files: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Earliest stamp.
    pub from: Option<Timestamp>,
    /// Latest stamp.
    pub to: Option<Timestamp>,
}

/// A committed import.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    /// Id, as undoing takes it.
    pub id: String,
    /// Name of the source.
    pub source: String,
    /// Bytes of the source.
    pub bytes: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Files written.
    pub files: u64,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// Files looked at.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes in use in them.
    pub bytes: u64,
    /// Everything that is wrong: empty for a sound store.
    pub problems: Vec<VerifyProblem>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VerifyProblem {
    /// File, relative to the store.
    pub file: String,
    /// Number of the block, of a sealed file.
    pub block: Option<u64>,
    /// Number of the frame, of an active segment.
    pub frame: Option<u64>,
    /// Name of the column, where it is one.
    pub column: Option<&'static str>,
    /// Rows that are lost by it; `None` where nobody knows how many. Several problems may be
    /// about the same rows: a block with two damaged columns is lost once.
    pub rows: Option<u64>,
    /// Earliest stamp of the rows concerned, or a moment before it.
    pub from: Option<Timestamp>,
    /// Latest stamp of the rows concerned, or a moment after it.
    pub to: Option<Timestamp>,
    /// What, and where in the file.
    pub message: String,
    /// Whether rows are lost by it; damage to something derived costs time only.
    pub loses_rows: bool,
}

impl VerifyReport {
    /// Adds something that is wrong with a file that has no rows.
    pub(crate) fn add(&mut self, file: &str, message: String) {
        self.problems.push(VerifyProblem {
            file: file.to_owned(),
            block: None,
            frame: None,
            column: None,
            rows: Some(0),
            from: None,
            to: None,
            message,
            loses_rows: false,
        });
    }

    /// Whether any row is lost.
    pub fn loses_rows(&self) -> bool {
        self.problems.iter().any(|problem| problem.loses_rows)
    }
}

/// What a repair did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RepairReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// One entry for each file that was damaged or gone.
    pub files: Vec<RepairedFile>,
    /// Rows of these files that are kept.
    pub rows_kept: u64,
    /// Rows that are lost.
    pub rows_lost: u64,
    /// Whether there may be more of them.
    pub rows_lost_is_at_least: bool,
    /// One line per thing that a person should know.
    pub notes: Vec<String>,
}

impl RepairReport {
    /// Whether rows are lost, or may be.
    pub fn loses_rows(&self) -> bool {
        self.rows_lost > 0 || self.rows_lost_is_at_least
    }

    /// Whether a damaged file was left as it is.
    pub fn leaves_damage(&self) -> bool {
        self.files.iter().any(|file| file.is_left)
    }

    /// Sums up what was done file by file.
    pub(crate) fn add_up(&mut self) {
        self.rows_kept = self.files.iter().map(|file| file.rows_kept).sum();
        self.rows_lost = self.files.iter().map(|file| file.rows_lost).sum();
        self.rows_lost_is_at_least = self.files.iter().any(|file| file.rows_lost_is_at_least);
    }
}

/// What became of one damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RepairedFile {
    /// File, relative to the store.
    pub file: String,
    /// What was damaged.
    pub damage: String,
    /// What was done.
    pub done: String,
    /// Whether it was left as it is.
    pub is_left: bool,
    /// Rows of it that are kept.
    pub rows_kept: u64,
    /// Rows of it that are lost.
    pub rows_lost: u64,
    /// Whether there may be more of them.
    pub rows_lost_is_at_least: bool,
    /// Earliest stamp of the rows that are lost; `None` where it is not known, and may be any
    /// of the day.
    pub lost_from: Option<Timestamp>,
    /// Latest stamp of the rows that are lost, likewise.
    pub lost_to: Option<Timestamp>,
    /// Where the damaged file is now, relative to the store.
    pub set_aside: Option<String>,
    /// The file that stands in for it.
    pub replaced_by: Option<String>,
}

impl RepairedFile {
    /// A file of which nothing is lost.
    pub(crate) fn new(file: &str, damage: impl Into<String>) -> Self {
        Self { file: file.to_owned(), damage: damage.into(), ..Self::default() }
    }

    /// Notes what is lost.
    pub(crate) fn lose(&mut self, rows: u64, is_at_least: bool, stamps: Option<(i64, i64)>) {
        (self.rows_lost, self.rows_lost_is_at_least) = (rows, is_at_least);
        let stamps = stamps.filter(|_| rows > 0 || is_at_least);
        self.lost_from = stamps.map(|(min, _)| Timestamp::clamped(min));
        self.lost_to = stamps.map(|(_, max)| Timestamp::clamped(max));
    }
}

/// What rebuilding the catalog did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CatalogReport {
    /// Segments entered.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Where the old catalog was put, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// What a pass of maintenance did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MaintenanceReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// What came, or would come, to another tier; one entry per table and tier.
    pub changes: Vec<TierChange>,
    /// Partitions that are due and were left as they are.
    pub postponed: Vec<Postponed>,
    /// Why expiry was refused as a whole: the clock is not believed.
    pub refused: Option<String>,
    /// Files unlinked: such as were replaced longer than the grace ago, and leftovers.
    pub files_removed: u64,
    /// One line per thing that a person should know.
    pub notes: Vec<String>,
}

/// What of one table came to one tier.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TierChange {
    /// Name of the table.
    pub table: &'static str,
    /// The tier that it came to: `detail` (sealed), `archive`, `hourly`, `daily` or `gone`.
    pub tier: &'static str,
    /// Files that were replaced.
    pub files: u64,
    /// Those of them that were damaged; gone, their rows are not counted.
    pub damaged_files: u64,
    /// Rows in the others.
    pub rows: u64,
    /// Bytes of the files; they are free when the grace has passed.
    pub bytes: u64,
    /// Bytes of the archives and rollups that stand for them; 0 for other tiers, and before
    /// they are written.
    pub bytes_after: u64,
    /// Earliest stamp of the rows.
    pub from: Option<Timestamp>,
    /// Latest stamp of the rows.
    pub to: Option<Timestamp>,
}

impl TierChange {
    /// Nothing yet.
    pub(crate) fn new(table: &'static str, tier: &'static str) -> Self {
        let (files, damaged_files, rows, bytes, bytes_after) = (0, 0, 0, 0, 0);
        let (from, to) = (None, None);
        Self { table, tier, files, damaged_files, rows, bytes, bytes_after, from, to }
    }
}

/// A partition that is due and was left as it is until the next pass.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Postponed {
    /// Name of the table.
    pub table: &'static str,
    /// The day, as `2026-11-23`.
    pub day: String,
    /// Why.
    pub reason: String,
}

/// How maintenance of a store stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// When the clock was last believed: by the last pass of expiry, or at creation.
    pub last_expiry: Option<Timestamp>,
    /// Why expiry is refused at present.
    pub clock_refused: Option<String>,
    /// The last pass of maintenance, as far as the catalog has it.
    pub last_maintenance: Option<JobReport>,
    /// The last jobs, newest first, as far as the catalog has them.
    pub jobs: Vec<JobReport>,
    /// Rows that are not sealed.
    pub unsealed_rows: u64,
    /// Bytes that are not sealed.
    pub unsealed_bytes: u64,
    /// Earliest stamp that is not sealed.
    pub unsealed_from: Option<Timestamp>,
    /// Bytes of replaced files that wait for the grace to pass.
    pub replaced_bytes: u64,
    /// Files that cannot be read.
    pub damaged_files: u64,
    /// Files that are gone although nothing was to delete them.
    pub missing_files: u64,
}

/// One job of the log of maintenance.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct JobReport {
    /// What kind of job: `maintain`, `expire`, `delete`.
    pub kind: String,
    /// What it was about and why.
    pub what: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; `None` while it runs, and where its process did not survive.
    pub finished: Option<Timestamp>,
    /// `done`, or what went wrong.
    pub outcome: Option<String>,
    /// Rows that it was about.
    pub rows: u64,
    /// Bytes that it was about.
    pub bytes: u64,
}

/// What background maintenance in this process has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MaintenanceStatus {
    /// Whether this process looks after the store at all.
    pub is_scheduled: bool,
    /// Whether it is paused.
    pub is_paused: bool,
    /// Whether a pass is under way.
    pub is_running: bool,
    /// Passes that ended well, those included whose expiry was refused.
    pub passes: u64,
    /// Passes whose expiry was refused for the clock.
    pub refused: u64,
    /// Passes that another process was at work in.
    pub left_to_others: u64,
    /// Passes that failed.
    pub failed: u64,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// What the last pass did.
    pub last: Option<MaintenanceReport>,
}

/// What a backup has.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BackupReport {
    /// Segment files in it.
    pub files: u64,
    /// Those of them that an earlier backup had brought.
    pub files_unchanged: u64,
    /// Those that were linked: they take no space while the store has them too.
    pub files_linked: u64,
    /// Files of an earlier backup that do not count any more, and were removed.
    pub files_removed: u64,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of the segment files.
    pub bytes: u64,
    /// Bytes that were copied.
    pub bytes_copied: u64,
    /// One line per thing that a person should know.
    pub notes: Vec<String>,
}
