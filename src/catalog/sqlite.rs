//! The catalog in `catalog.sqlite` (spec 8.8): the only module that knows SQL.
//!
//! The file is touched through SQLite alone: to open it any other way and close it again
//! would drop the locks that SQLite holds on it in this process. What is not exactly ours
//! is renamed into `quarantine/` together with its log, never deleted, and made anew. Each
//! row carries a checksum of its own, since SQLite's pages have none.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, Transaction,
    TransactionBehavior, params,
};

use super::{
    CachedSegment, Catalog, CatalogState, INTERRUPTED, Intent, JOBS_KEPT, Job, JobId, MakeDurable,
    MissingSegment, Outcome, RebuildReason, Reconciled, Reconciler, SUMMARY_BYTES_MAX,
    SegmentFacts, Verdict,
};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{EntryKind, FileSystem, check_growth, publish};
use crate::schema::Table;
use crate::store_files::Id;
use crate::store_files::maintenance::CatalogMark;
use crate::store_files::retention::RetentionRules;
use crate::time::Partition;

const NAME: &str = "catalog.sqlite";
const QUARANTINE: &str = "quarantine";
const SECTION: &str = "8.8";

/// "TLLY": what `file` and SQLite itself tell our databases by.
const APPLICATION_ID: i32 = 0x544c_4c59;
/// Version of the schema. A catalog of any other is made anew.
const USER_VERSION: i32 = 1;
/// What SQLite appends to the name for its log, its index, and the journal of old.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Pages in which several rows fit, summaries and all: reading all rows took a quarter of the
/// time that it took from pages of 4 KiB (summaries of 1 KB), or two thirds (4 KB).
const PAGE_BYTES: i64 = 16 << 10;
/// What a transaction adds to the catalog and its log at most, beside as much as they have.
const GROWTH_BYTES: u64 = 16 << 20;
/// Characters of a name in a schema that are shown.
const OUTLINE_CHARS: usize = 100;
/// Times that a reader checks the catalog before it calls it damaged, and the time between.
const CHECK_ATTEMPTS: usize = 4;
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// How long a writer waits for a reader or a backup to let go.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Size to which the log is cut back after a checkpoint.
const LOG_BYTES_KEPT: i64 = 4 << 20;

/// Type, name and text of everything in the schema, by name; compared byte for byte.
const SCHEMA: [(&str, &str, &str); 6] = [
    (
        "table",
        "intents",
        "CREATE TABLE intents (uuid BLOB NOT NULL, job INTEGER NOT NULL, crc32 INTEGER NOT NULL, \
         PRIMARY KEY (uuid, job)) STRICT, WITHOUT ROWID",
    ),
    (
        "table",
        "jobs",
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, started INTEGER NOT NULL, \
         finished INTEGER, what TEXT NOT NULL, outcome TEXT, rows INTEGER NOT NULL, \
         bytes INTEGER NOT NULL, crc32 INTEGER NOT NULL) STRICT",
    ),
    (
        "view",
        "partitions",
        "CREATE VIEW partitions AS SELECT table_name, partition_day, count(*) AS files, \
         sum(rows) AS rows, sum(bytes) AS bytes, min(min_ts) AS min_ts, max(max_ts) AS max_ts \
         FROM segments WHERE missing = 0 GROUP BY table_name, partition_day",
    ),
    (
        "table",
        "retention",
        "CREATE TABLE retention (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), \
         rules TEXT NOT NULL) STRICT",
    ),
    (
        "table",
        "segments",
        "CREATE TABLE segments (uuid BLOB NOT NULL PRIMARY KEY, table_name TEXT NOT NULL, \
         partition_day INTEGER NOT NULL, kind INTEGER NOT NULL, rows INTEGER NOT NULL, \
         bytes INTEGER NOT NULL, min_ts INTEGER NOT NULL, max_ts INTEGER NOT NULL, \
         created INTEGER NOT NULL, txn BLOB, missing INTEGER NOT NULL, crc32 INTEGER NOT NULL, \
         summary BLOB NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        "table",
        "store",
        "CREATE TABLE store (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), \
         store_id BLOB NOT NULL, serial INTEGER NOT NULL, crc32 INTEGER NOT NULL) STRICT",
    ),
];

/// Columns of a segment in the order of [`read_segment`].
const SEGMENT: &str = "SELECT uuid, table_name, partition_day, kind, rows, bytes, min_ts, max_ts, \
                       created, txn, missing, crc32, summary FROM segments";

const JOB: &str = "SELECT id, kind, started, finished, what, outcome, rows, bytes, crc32 FROM jobs";

/// The names of a catalog's files in the directory of its store.
pub(crate) fn file_names() -> Vec<String> {
    [""].into_iter().chain(COMPANIONS).map(|companion| format!("{NAME}{companion}")).collect()
}

/// The catalog, open for writing.
#[derive(Debug)]
pub(super) struct SqliteCatalog {
    connection: Connection,
    path: PathBuf,
    store_id: Id,
    mark: CatalogMark,
    /// Jobs from here on are of this process; earlier ones that never ended are dead.
    first_live: JobId,
}

/// Why an existing file is not used.
enum Refusal {
    /// It holds nothing yet: its creation was cut off.
    Blank,
    /// It is not whole, or not ours.
    Unfit(RebuildReason, String),
    /// It may be whole, but cannot be got at.
    Failed(Error),
}

/// Fails where a limit on the size of files is near: SQLite would meet it as a signal that ends
/// the process.
fn check_limit(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    let sizes = file_names().into_iter().map(|name| fs.metadata(&dir.join(name)));
    let bytes: u64 = sizes.filter_map(|found| found.ok().map(|found| found.len)).sum();
    check_growth(&dir.join(NAME), bytes.saturating_mul(2).saturating_add(GROWTH_BYTES))
}

/// Opens the catalog, or makes it anew.
pub(super) fn open(
    fs: &dyn FileSystem,
    dir: &Path,
    store_id: &Id,
) -> Result<(SqliteCatalog, CatalogState)> {
    check_limit(fs, dir)?;
    let mark = CatalogMark::open(fs, dir)?;
    let (reason, why) = match fs.metadata(&dir.join(NAME)) {
        Err(error) if error.is_not_found() => {
            if mark.committed() == 0 && !has_companion(fs, dir)? {
                return create(fs, dir, store_id, mark, CatalogState::Fresh);
            }
            (RebuildReason::Lost, "the catalog had vanished".to_owned())
        }
        Err(error) => return Err(error),
        Ok(found) if found.kind != EntryKind::File => {
            (RebuildReason::Foreign, "not a regular file".to_owned())
        }
        Ok(_) => match open_existing(dir, store_id, mark.committed()) {
            Ok((connection, path, serial)) => {
                let catalog = SqliteCatalog::new(connection, path, store_id, mark, serial)?;
                return Ok((catalog, CatalogState::Good));
            }
            Err(Refusal::Failed(error)) => return Err(error),
            Err(Refusal::Unfit(reason, why)) => (reason, why),
            Err(Refusal::Blank) if mark.committed() == 0 => {
                // Out of the way, but no loss to report.
                set_aside(fs, dir, "its creation was cut off")?;
                return create(fs, dir, store_id, mark, CatalogState::Fresh);
            }
            Err(Refusal::Blank) => (RebuildReason::Damaged, "nothing is in it".to_owned()),
        },
    };
    make_anew(fs, dir, store_id, mark, reason, &why)
}

/// Sets the catalog aside and makes it anew.
pub(super) fn rebuild(
    fs: &dyn FileSystem,
    dir: &Path,
    store_id: &Id,
    reason: RebuildReason,
) -> Result<(SqliteCatalog, CatalogState)> {
    check_limit(fs, dir)?;
    let mark = CatalogMark::open(fs, dir)?;
    make_anew(fs, dir, store_id, mark, reason, "it was to be rebuilt")
}

fn make_anew(
    fs: &dyn FileSystem,
    dir: &Path,
    store_id: &Id,
    mark: CatalogMark,
    reason: RebuildReason,
    why: &str,
) -> Result<(SqliteCatalog, CatalogState)> {
    let set_aside = set_aside(fs, dir, why)?;
    create(fs, dir, store_id, mark, CatalogState::Rebuilt { reason, set_aside })
}

fn create(
    fs: &dyn FileSystem,
    dir: &Path,
    store_id: &Id,
    mark: CatalogMark,
    state: CatalogState,
) -> Result<(SqliteCatalog, CatalogState)> {
    // Made through `fs`, so that mode and group are those of the store; SQLite gives its
    // companions the same. No connection is open yet that the closing could disturb.
    fs.create(&dir.join(NAME))?;
    fs.sync_dir(dir)?;
    let path = real_path(dir)?;
    let serial = mark.committed().saturating_add(1);
    let connection = connect(&path, Access::Write)
        .and_then(|mut connection| {
            connection.pragma_update(None, "page_size", PAGE_BYTES)?;
            set_journal(&connection)?;
            lay_out(&mut connection, store_id, serial)?;
            Ok(connection)
        })
        .map_err(|error| sqlite_error("create", &path, &error))?;
    Ok((SqliteCatalog::new(connection, path, store_id, mark, serial)?, state))
}

fn lay_out(connection: &mut Connection, store_id: &Id, serial: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (_, _, sql) in SCHEMA {
        transaction.execute(sql, ())?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", USER_VERSION)?;
    write_serial(&transaction, store_id, serial)?;
    transaction.commit()
}

/// Checks everything that can be checked without knowing the files.
fn open_existing(
    dir: &Path,
    store_id: &Id,
    committed: u64,
) -> Result<(Connection, PathBuf, u64), Refusal> {
    let path = real_path(dir).map_err(Refusal::Failed)?;
    let refuse = |error: rusqlite::Error| refusal(&path, &error);
    let mut connection = connect(&path, Access::Write).map_err(refuse)?;
    let serial = identify(&connection, store_id, &path)?;
    // The quick check would not see keys out of order, among which rows can be neither found
    // nor deleted; without indexes to compare, the full one costs hardly more.
    let check: String =
        connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0)).map_err(refuse)?;
    if check != "ok" {
        return Err(Refusal::Unfit(RebuildReason::Damaged, check));
    }
    set_journal(&connection).map_err(refuse)?;
    // A flipped bit in the file's header makes it read-only for ever; better known now.
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .and_then(Transaction::rollback)
        .map_err(refuse)?;
    if serial < committed {
        let why = format!("it is of transaction {serial}, {committed} was committed");
        return Err(Refusal::Unfit(RebuildReason::Stale, why));
    }
    Ok((connection, path, serial))
}

/// Whether a database is ours, of this store and this schema; its serial number.
fn identify(connection: &Connection, store_id: &Id, path: &Path) -> Result<u64, Refusal> {
    let refuse = |error: rusqlite::Error| refusal(path, &error);
    let unfit = |reason, why: &str| Refusal::Unfit(reason, why.to_owned());
    let pragma = |name| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(refuse)
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let schema = read_schema(connection).map_err(refuse)?;
    if application == 0 && version == 0 && schema.is_empty() {
        return Err(Refusal::Blank);
    }
    if application != APPLICATION_ID {
        return Err(unfit(RebuildReason::Foreign, "not a catalog"));
    }
    if version != USER_VERSION {
        return Err(unfit(RebuildReason::Foreign, "a catalog of another release"));
    }
    let ours = SCHEMA.map(|(kind, name, sql)| (kind.into(), name.into(), Some(sql.into())));
    if schema != ours {
        return Err(unfit(RebuildReason::Damaged, "its schema is not that of a catalog"));
    }
    let row = connection
        .query_row("SELECT store_id, serial, crc32 FROM store", (), |row| {
            Ok((row.get::<_, Id>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()
        .map_err(refuse)?;
    match row {
        Some((id, serial, crc)) if crc == store_crc(&id, serial) => {
            if id != *store_id {
                return Err(unfit(RebuildReason::Foreign, "the catalog of another store"));
            }
            u64::try_from(serial)
                .map_err(|_| unfit(RebuildReason::Damaged, "its serial number is negative"))
        }
        _ => Err(unfit(RebuildReason::Damaged, "its first row is damaged")),
    }
}

type SchemaEntry = (String, String, Option<String>);

/// What the schema holds, by name.
fn read_schema(connection: &Connection) -> rusqlite::Result<Vec<SchemaEntry>> {
    let sql = "SELECT type, name, sql FROM sqlite_schema ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let entries = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // One more than there should be is enough to tell that there are too many.
    entries.take(SCHEMA.len() + 1).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// A connection that trusts nothing in the file. Writes nothing.
///
/// A reader says that the file is immutable, although it is not: SQLite then takes no lock,
/// waits for nobody and makes no `-wal` and `-shm` beside it, which it does even for
/// connections that only read. The reader misses what is in the log alone, and may see a
/// checkpoint half done. It can afford that: rows count only with their own checksum, and
/// about files that are listed.
fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = match access {
        Access::Read => Connection::open_with_flags(
            immutable_uri(path),
            flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        ),
        Access::Write => {
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)
        }
    }?;
    connection.busy_timeout(match access {
        Access::Read => Duration::ZERO,
        Access::Write => BUSY_TIMEOUT,
    })?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Answers with the value, and with nothing where mapping is compiled out.
    connection.query_row("PRAGMA mmap_size = 0", (), |_| Ok(())).optional()?;
    Ok(connection)
}

/// The path as SQLite takes it with a setting; every byte that could mean something else in
/// it is escaped.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

fn set_journal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("the file system cannot hold a write-ahead log: journal mode {mode}")),
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let sql = format!("PRAGMA journal_size_limit = {LOG_BYTES_KEPT}");
    connection.query_row(&sql, (), |_| Ok(()))
}

/// The path with every link before the last name resolved, which alone is not followed.
fn real_path(dir: &Path) -> Result<PathBuf> {
    let real = dir.canonicalize().map_err(|cause| Error::io("resolve", dir, cause))?;
    Ok(real.join(NAME))
}

fn has_companion(fs: &dyn FileSystem, dir: &Path) -> Result<bool> {
    for companion in COMPANIONS {
        match fs.metadata(&dir.join(format!("{NAME}{companion}"))) {
            Ok(_) => return Ok(true),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Renames the catalog and its companions into `quarantine/` (spec 8.9), under one new
/// name. The companions must go too: a log left behind would be taken for that of the next
/// catalog.
fn set_aside(fs: &dyn FileSystem, dir: &Path, why: &str) -> Result<Option<PathBuf>> {
    let quarantine = dir.join(QUARANTINE);
    match fs.create_dir(&quarantine) {
        Ok(()) => fs.sync_dir(dir)?,
        Err(error) if error.is_already_there() => {}
        Err(error) => return Err(error),
    }
    let name = format!("catalog-{}", Id::from_bytes(fs.unique_id()));
    let mut moved = false;
    for companion in [""].into_iter().chain(COMPANIONS) {
        let from = dir.join(format!("{NAME}{companion}"));
        match fs.rename(&from, &quarantine.join(format!("{name}.sqlite{companion}"))) {
            Ok(()) => moved = true,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if !moved {
        return Ok(None);
    }
    fs.sync_dir(&quarantine)?;
    fs.sync_dir(dir)?;
    // The name says enough; on a full disk that must do.
    let note = format!("{NAME}: set aside because {why}\n");
    let _ = publish(fs, &quarantine, &format!("{name}.txt"), note.as_bytes(), false);
    Ok(Some(quarantine.join(format!("{name}.sqlite"))))
}

fn refusal(path: &Path, error: &rusqlite::Error) -> Refusal {
    let error = sqlite_error("open", path, error);
    match error.kind() {
        ErrorKind::Corrupt => Refusal::Unfit(RebuildReason::Damaged, error.message().to_owned()),
        _ => Refusal::Failed(error),
    }
}

/// What SQLite complains of, as a caller would act on it.
fn sqlite_error(operation: &str, path: &Path, error: &rusqlite::Error) -> Error {
    let kind = match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => ErrorKind::NoSpace,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ErrorKind::Locked,
            ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::NoLargeFileSupport
            | ErrorCode::AuthorizationForStatementDenied => io_kind(failure.extended_code),
            // Our statements are right for our schema: what they fail on is the file.
            _ => ErrorKind::Corrupt,
        },
        rusqlite::Error::InvalidPath(_) | rusqlite::Error::NulError(_) => {
            ErrorKind::InvalidArgument
        }
        _ => ErrorKind::Corrupt,
    };
    let message = format!("catalog, {operation}: {error}");
    let error = match kind {
        ErrorKind::Corrupt => Error::corrupt(SECTION, message)
            .with_remedy("it is a cache: `rebuild-catalog` makes it anew from the files"),
        kind => Error::new(kind, message),
    };
    error.with_path(path)
}

/// A symbolic link and a file shorter than its own header says are damage, not trouble
/// with the disk.
fn io_kind(extended_code: i32) -> ErrorKind {
    use rusqlite::ffi;
    match extended_code {
        ffi::SQLITE_CANTOPEN_SYMLINK
        | ffi::SQLITE_IOERR_SHORT_READ
        | ffi::SQLITE_IOERR_CORRUPTFS
        | ffi::SQLITE_IOERR_DATA => ErrorKind::Corrupt,
        // The index of the log, which all processes share, could not grow.
        ffi::SQLITE_IOERR_SHMSIZE => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    }
}

/// Checksum of one row: its columns in order, each told from its neighbours.
struct RowChecksum(crc32fast::Hasher);

impl RowChecksum {
    fn of(table: &str) -> Self {
        Self(crc32fast::Hasher::new()).bytes(table.as_bytes())
    }

    fn integer(mut self, value: i64) -> Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    fn bytes(self, value: &[u8]) -> Self {
        let mut sum = self.integer(i64::try_from(value.len()).unwrap_or(i64::MAX));
        sum.0.update(value);
        sum
    }

    /// A length of -1 stands for null.
    fn optional(self, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.bytes(value),
            None => self.integer(-1),
        }
    }

    fn optional_integer(self, value: Option<i64>) -> Self {
        self.optional(value.map(i64::to_le_bytes).as_ref().map(|bytes| bytes.as_slice()))
    }

    fn finish(self) -> i64 {
        i64::from(self.0.finalize())
    }
}

fn store_crc(store_id: &Id, serial: i64) -> i64 {
    RowChecksum::of("store").bytes(store_id.as_bytes()).integer(serial).finish()
}

fn segment_crc(row: &CachedSegment, missing: bool) -> i64 {
    RowChecksum::of("segments")
        .bytes(row.uuid.as_bytes())
        .bytes(row.table.name().as_bytes())
        .integer(row.partition.days().into())
        .integer(row.kind.into())
        .integer(stored(row.rows))
        .integer(stored(row.bytes))
        .integer(row.min_ts)
        .integer(row.max_ts)
        .integer(row.created)
        .optional(row.txn.as_ref().map(|txn| txn.as_bytes().as_slice()))
        .integer(missing.into())
        .bytes(&row.summary)
        .finish()
}

fn job_crc(job: &Job) -> i64 {
    RowChecksum::of("jobs")
        .integer(job.id.0)
        .bytes(job.kind.as_bytes())
        .integer(job.started)
        .optional_integer(job.finished)
        .bytes(job.what.as_bytes())
        .optional(job.outcome.as_deref().map(str::as_bytes))
        .integer(stored(job.rows))
        .integer(stored(job.bytes))
        .finish()
}

fn intent_crc(uuid: &Id, job: JobId) -> i64 {
    RowChecksum::of("intents").bytes(uuid.as_bytes()).integer(job.0).finish()
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A row of `segments` whose checksum is right.
struct SegmentRow {
    segment: CachedSegment,
    missing: bool,
}

/// `None` for a row that is not as it was written.
fn read_segment(row: &Row<'_>) -> Option<SegmentRow> {
    let table: String = row.get(1).ok()?;
    let segment = CachedSegment {
        uuid: row.get(0).ok()?,
        table: Table::ALL.into_iter().find(|it| it.name() == table)?,
        partition: Partition::from_days(row.get(2).ok()?),
        kind: row.get(3).ok()?,
        rows: count(row, 4)?,
        bytes: count(row, 5)?,
        min_ts: row.get(6).ok()?,
        max_ts: row.get(7).ok()?,
        created: row.get(8).ok()?,
        txn: row.get(9).ok()?,
        summary: match row.get_ref(12).ok()? {
            ValueRef::Blob(bytes) if bytes.len() <= SUMMARY_BYTES_MAX => bytes.to_vec(),
            _ => return None,
        },
    };
    let missing: bool = row.get(10).ok()?;
    let crc: i64 = row.get(11).ok()?;
    (crc == segment_crc(&segment, missing)).then_some(SegmentRow { segment, missing })
}

fn read_job(row: &Row<'_>) -> Option<Job> {
    let job = Job {
        id: JobId(row.get(0).ok()?),
        kind: row.get(1).ok()?,
        started: row.get(2).ok()?,
        finished: row.get(3).ok()?,
        what: row.get(4).ok()?,
        outcome: row.get(5).ok()?,
        rows: count(row, 6)?,
        bytes: count(row, 7)?,
    };
    let crc: i64 = row.get(8).ok()?;
    (crc == job_crc(&job)).then_some(job)
}

fn count(row: &Row<'_>, column: usize) -> Option<u64> {
    u64::try_from(row.get::<_, i64>(column).ok()?).ok()
}

fn put_segment(
    connection: &Connection,
    segment: &CachedSegment,
    missing: bool,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO segments (uuid, table_name, partition_day, kind, rows, \
               bytes, min_ts, max_ts, created, txn, missing, crc32, summary) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    connection.execute(
        sql,
        params![
            segment.uuid,
            segment.table.name(),
            segment.partition.days(),
            segment.kind,
            stored(segment.rows),
            stored(segment.bytes),
            segment.min_ts,
            segment.max_ts,
            segment.created,
            segment.txn,
            missing,
            segment_crc(segment, missing),
            segment.summary,
        ],
    )?;
    Ok(())
}

fn put_job(connection: &Connection, job: &Job) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO jobs (id, kind, started, finished, what, outcome, rows, \
               bytes, crc32) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.execute(
        sql,
        params![
            job.id.0,
            job.kind,
            job.started,
            job.finished,
            job.what,
            job.outcome,
            stored(job.rows),
            stored(job.bytes),
            job_crc(job),
        ],
    )?;
    Ok(())
}

fn write_serial(connection: &Connection, store_id: &Id, serial: u64) -> rusqlite::Result<()> {
    let serial = stored(serial);
    connection.execute(
        "INSERT OR REPLACE INTO store (only_row, store_id, serial, crc32) VALUES (1, ?1, ?2, ?3)",
        params![store_id, serial, store_crc(store_id, serial)],
    )?;
    Ok(())
}

/// Runs a query; what `read` takes for damaged is passed over.
fn collect<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Option<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(read(row));
    }
    Ok(found)
}

fn cached(connection: &Connection, uuid: &Id) -> rusqlite::Result<Option<CachedSegment>> {
    let found = collect(connection, &format!("{SEGMENT} WHERE uuid = ?1"), [uuid], read_segment)?;
    Ok(found.into_iter().map(|row| row.segment).find(|segment| segment.uuid == *uuid))
}

fn was_committed(connection: &Connection, uuid: &Id) -> rusqlite::Result<bool> {
    let intended = || read_intents(connection).map(|all| all.iter().any(|(it, _)| it == uuid));
    Ok(cached(connection, uuid)?.is_some() && !intended()?)
}

fn jobs(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Job>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    collect(connection, &format!("{JOB} ORDER BY id DESC LIMIT ?1"), [limit], read_job)
}

fn read_rules(connection: &Connection) -> rusqlite::Result<Option<RetentionRules>> {
    let rules = collect(connection, "SELECT rules FROM retention", (), |row| {
        RetentionRules::decode(row.get_ref(0).ok()?.as_str().ok()?.as_bytes()).ok()
    })?;
    Ok(rules.into_iter().next())
}

/// Work inside a transaction, and whether it changed anything.
struct Done<T> {
    value: T,
    changed: bool,
}

impl SqliteCatalog {
    fn new(
        connection: Connection,
        path: PathBuf,
        store_id: &Id,
        mut mark: CatalogMark,
        serial: u64,
    ) -> Result<Self> {
        let last: Option<i64> = connection
            .query_row("SELECT max(id) FROM jobs", (), |row| row.get(0))
            .map_err(|error| sqlite_error("read the job log", &path, &error))?;
        let first_live = JobId(last.unwrap_or(0).saturating_add(1));
        if mark.committed() != serial {
            // Behind, after a power cut or a first creation: a hint, not worth an error.
            let _ = mark.record(serial);
        }
        Ok(Self { connection, path, store_id: *store_id, mark, first_live })
    }

    /// Does `work` in one transaction; durable on return if it changed anything.
    fn write<T>(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<Done<T>, WorkError>,
    ) -> Result<T> {
        let Self { connection, path, store_id, mark, .. } = self;
        let run = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let Done { value, changed } = work(&transaction)?;
            if !changed {
                return Ok(value);
            }
            let serial: i64 =
                transaction.query_row("SELECT serial FROM store", (), |row| row.get(0))?;
            let serial = u64::try_from(serial).unwrap_or(0).max(mark.committed()) + 1;
            write_serial(&transaction, store_id, serial)?;
            transaction.commit()?;
            // The transaction stands; a mark that is behind only proves less.
            let _ = mark.record(serial);
            Ok(value)
        };
        run().map_err(|error| match error {
            WorkError::Sqlite(error) => sqlite_error(operation, path, &error),
            WorkError::Own(error) => error,
        })
    }

    fn read<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        work(&self.connection).map_err(|error| sqlite_error(operation, &self.path, &error))
    }
}

/// An error inside a transaction, of SQLite or of our own.
enum WorkError {
    Sqlite(rusqlite::Error),
    Own(Error),
}

impl From<rusqlite::Error> for WorkError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for WorkError {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl Catalog for SqliteCatalog {
    fn reconcile(
        &mut self,
        files: &[SegmentFacts],
        retention: &RetentionRules,
        make_durable: &MakeDurable<'_>,
    ) -> Result<Reconciled> {
        let rules = retention.encode()?;
        let first_live = self.first_live;
        self.write("reconcile", |transaction| {
            let rules = str::from_utf8(&rules).map_err(|_| Error::invalid("rules are not text"))?;
            let mut changed = reconcile_rules(transaction, rules)?;
            let interrupted = end_dead_jobs(transaction, first_live)?;
            let live: BTreeSet<JobId> =
                collect(transaction, &format!("{JOB} WHERE outcome IS NULL"), (), read_job)?
                    .into_iter()
                    .map(|job| job.id)
                    .collect();
            let intents = read_intents(transaction)?;
            let mut reconciler = Reconciler::new(files, intents.iter().map(|(uuid, _)| *uuid));
            changed |= reconcile_segments(transaction, &mut reconciler, make_durable)?;
            for (uuid, job) in intents {
                // One that was carried out is used up. One that its job did not live to
                // carry out must not explain a loss later on.
                if !(reconciler.is_there(&uuid) && live.contains(&job)) {
                    let sql = "DELETE FROM intents WHERE uuid = ?1 AND job = ?2";
                    changed |= transaction.execute(sql, params![uuid, job.0])? > 0;
                }
            }
            let mut value = reconciler.outcome;
            value.interrupted = interrupted;
            value.sort();
            changed |= interrupted > 0;
            Ok(Done { value, changed })
        })
    }

    fn forget_missing(&mut self, uuids: &[Id]) -> Result<u64> {
        self.write("forget missing files", |transaction| {
            let mut forgotten: u64 = 0;
            for uuid in uuids {
                let sql = "DELETE FROM segments WHERE uuid = ?1 AND missing = 1";
                forgotten += transaction.execute(sql, [uuid])? as u64;
            }
            Ok(Done { value: forgotten, changed: forgotten > 0 })
        })
    }

    fn cached(&self, uuid: &Id) -> Result<Option<CachedSegment>> {
        self.read("look up a file", |connection| cached(connection, uuid))
    }

    fn was_committed(&self, uuid: &Id) -> Result<bool> {
        self.read("look up a file", |connection| was_committed(connection, uuid))
    }

    fn retention(&self) -> Result<Option<RetentionRules>> {
        self.read("read the rules of retention", read_rules)
    }

    fn set_retention(&mut self, rules: &RetentionRules) -> Result<()> {
        let rules = rules.encode()?;
        self.write("store the rules of retention", |transaction| {
            let rules = str::from_utf8(&rules).map_err(|_| Error::invalid("rules are not text"))?;
            Ok(Done { value: (), changed: reconcile_rules(transaction, rules)? })
        })
    }

    fn log_intent(&mut self, intent: &Intent) -> Result<JobId> {
        self.write("log an intent", |transaction| {
            let sql = "SELECT max(id) FROM jobs";
            let last: Option<i64> = transaction.query_row(sql, (), |row| row.get(0))?;
            let id = last.unwrap_or(0).checked_add(1).map(JobId).ok_or_else(|| {
                Error::corrupt(SECTION, "the number of the last job is the largest there is")
            })?;
            put_job(
                transaction,
                &Job {
                    id,
                    kind: intent.kind.to_owned(),
                    started: intent.started,
                    finished: None,
                    what: intent.what.clone(),
                    outcome: None,
                    rows: intent.rows,
                    bytes: intent.bytes,
                },
            )?;
            for uuid in &intent.deletes {
                let sql = "INSERT OR REPLACE INTO intents (uuid, job, crc32) VALUES (?1, ?2, ?3)";
                transaction.execute(sql, params![uuid, id.0, intent_crc(uuid, id)])?;
            }
            let oldest = id.0.saturating_sub(i64::try_from(JOBS_KEPT).unwrap_or(i64::MAX));
            transaction.execute("DELETE FROM jobs WHERE id <= ?1", [oldest])?;
            Ok(Done { value: id, changed: true })
        })
    }

    fn log_done(&mut self, id: JobId, outcome: &Outcome) -> Result<()> {
        self.write("log an outcome", |transaction| {
            let found = collect(transaction, &format!("{JOB} WHERE id = ?1"), [id.0], read_job)?;
            let under_way = found.into_iter().find(|job| job.outcome.is_none());
            let mut job =
                under_way.ok_or_else(|| Error::invalid(format!("no job {} is under way", id.0)))?;
            job.finished = Some(outcome.finished);
            job.outcome = Some(outcome.outcome.clone());
            job.rows = outcome.rows;
            job.bytes = outcome.bytes;
            put_job(transaction, &job)?;
            Ok(Done { value: (), changed: true })
        })
    }

    fn jobs(&self, limit: usize) -> Result<Vec<Job>> {
        self.read("read the job log", |connection| jobs(connection, limit))
    }

    fn back_up(&self, fs: &dyn FileSystem, to: &Path) -> Result<()> {
        fs.create(&to.join(NAME))?;
        let path = real_path(to)?;
        let copy = || {
            let mut copy = connect(&path, Access::Write)?;
            rusqlite::backup::Backup::new(&self.connection, &mut copy)?.run_to_completion(
                1_000,
                Duration::ZERO,
                None,
            )
        };
        copy().map_err(|error| sqlite_error("back up", &path, &error))?;
        fs.sync_dir(to)
    }
}

/// Stores the rules unless these very ones are stored. Returns whether they were not.
fn reconcile_rules(transaction: &Transaction<'_>, rules: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT rules FROM retention WHERE rules = ?1";
    let same = transaction.query_row(sql, [rules], |_| Ok(())).optional()?.is_some();
    if !same {
        let sql = "INSERT OR REPLACE INTO retention (only_row, rules) VALUES (1, ?1)";
        transaction.execute(sql, [rules])?;
    }
    Ok(!same)
}

/// Ends jobs of earlier holders of the lock, who can no longer do so. Returns how many.
fn end_dead_jobs(transaction: &Transaction<'_>, first_live: JobId) -> rusqlite::Result<u64> {
    let sql = format!("{JOB} WHERE outcome IS NULL AND id < ?1");
    let dead = collect(transaction, &sql, [first_live.0], read_job)?;
    for job in &dead {
        put_job(transaction, &Job { outcome: Some(INTERRUPTED.to_owned()), ..job.clone() })?;
    }
    Ok(dead.len() as u64)
}

fn read_intents(connection: &Connection) -> rusqlite::Result<Vec<(Id, JobId)>> {
    collect(connection, "SELECT uuid, job, crc32 FROM intents", (), |row| {
        let (uuid, job) = (row.get::<_, Id>(0).ok()?, JobId(row.get(1).ok()?));
        let crc: i64 = row.get(2).ok()?;
        (crc == intent_crc(&uuid, job)).then_some((uuid, job))
    })
}

/// A row to be written: anew from its file, or as it was but for `missing`.
enum Put<'a> {
    Facts(&'a SegmentFacts),
    Row { segment: CachedSegment, missing: bool },
}

/// Carries out what the reconciler decides. Returns whether that was anything.
fn reconcile_segments(
    transaction: &Transaction<'_>,
    reconciler: &mut Reconciler<'_>,
    make_durable: &MakeDurable<'_>,
) -> Result<bool, WorkError> {
    let mut puts = Vec::new();
    let mut removals: Vec<rusqlite::types::Value> = Vec::new();
    let mut statement = transaction.prepare(SEGMENT)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let Some(SegmentRow { segment, missing }) = read_segment(row) else {
            reconciler.outcome.damaged += 1;
            removals.push(row.get(0)?);
            continue;
        };
        match reconciler.judge(&segment) {
            Verdict::Keep if missing => puts.push(Put::Row { segment, missing: false }),
            Verdict::Keep => {}
            Verdict::Update(facts) => puts.push(Put::Facts(facts)),
            Verdict::Remove => removals.push(segment.uuid.as_bytes().to_vec().into()),
            Verdict::Missing if missing => {}
            Verdict::Missing => puts.push(Put::Row { segment, missing: true }),
        }
    }
    // Removed first: a damaged row and the file that it was about may share their uuid.
    for uuid in &removals {
        transaction.execute("DELETE FROM segments WHERE uuid = ?1", [uuid])?;
    }
    let unknown = reconciler.unknown();
    make_durable(&unknown)?;
    puts.extend(unknown.into_iter().map(Put::Facts));
    for put in &puts {
        match put {
            Put::Facts(facts) => put_segment(transaction, &CachedSegment::of(facts), false)?,
            Put::Row { segment, missing } => put_segment(transaction, segment, *missing)?,
        }
    }
    Ok(!(removals.is_empty() && puts.is_empty()))
}

/// The catalog in the hands of a reader, who asks and never waits. Whatever goes wrong
/// means that the reader goes by the files.
pub(crate) struct ReaderCatalog<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    store_id: Id,
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl fmt::Debug for ReaderCatalog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderCatalog").finish_non_exhaustive()
    }
}

/// Opens the catalog of the store in `dir` for reading; `None` where it is not there, not
/// whole or not this store's. Creates and changes nothing. What it says may be older than
/// the last maintenance: transactions that a crash left in the log are not in it.
pub(crate) fn open_reader<'a>(
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    store_id: &Id,
) -> Option<ReaderCatalog<'a>> {
    if !fs.shared_with_other_processes() {
        return None;
    }
    fs.metadata(&dir.join(NAME)).ok().filter(|found| found.kind == EntryKind::File)?;
    // A reader, too, writes: the index of the log that all processes share.
    check_limit(fs, dir).ok()?;
    let path = real_path(dir).ok()?;
    let connection = connect(&path, Access::Read).ok()?;
    identify(&connection, store_id, &path).ok()?;
    Some(ReaderCatalog { fs, dir, store_id: *store_id, path, connection: Mutex::new(connection) })
}

/// What is wrong with the catalog of the store in `dir`, as far as a reader can tell; `None`
/// of one that is not there. Creates and changes nothing.
pub(crate) fn damage(fs: &dyn FileSystem, dir: &Path, store_id: &Id) -> Option<String> {
    if !fs.shared_with_other_processes() || fs.metadata(&dir.join(NAME)).is_err() {
        return None;
    }
    let mut found = None;
    for _ in 0..CHECK_ATTEMPTS {
        found = check(dir, store_id);
        // A writer may have been at a checkpoint, which a reader sees half done.
        match &found {
            None => break,
            Some(_) => std::thread::sleep(CHECK_EVERY),
        }
    }
    found
}

/// The tables and views of the database at `path`, which may be anybody's, and what is wrong
/// with it, if anything. Changes nothing.
///
/// # Errors
///
/// `NotOurFile` where the path is a link.
pub(crate) fn outline(path: &Path) -> Result<(Vec<String>, Option<String>)> {
    let dir = path.parent().filter(|parent| *parent != Path::new(""));
    let real = dir.unwrap_or(Path::new(".")).canonicalize();
    let real = real.map_err(|cause| Error::io("resolve", path, cause))?;
    let real = real.join(path.file_name().unwrap_or_default());
    let damaged = |error: &rusqlite::Error| match sqlite_error("open", path, error) {
        error if error.kind() == ErrorKind::Corrupt => Ok((Vec::new(), Some(error.to_string()))),
        error => Err(error),
    };
    let connection = match connect(&real, Access::Read) {
        Ok(connection) => connection,
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if failure.extended_code == rusqlite::ffi::SQLITE_CANTOPEN_SYMLINK =>
        {
            return Err(Error::new(ErrorKind::NotOurFile, "not a regular file").with_path(path));
        }
        Err(error) => return damaged(&error),
    };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let opened = pragma("application_id").and_then(|application| {
        Ok((application, pragma("user_version")?, read_schema(&connection)?))
    });
    let (application, version, schema) = match opened {
        Ok(found) => found,
        Err(error) => return damaged(&error),
    };
    let entries = schema.into_iter().map(|(kind, name, _)| {
        let name: String = name.chars().take(OUTLINE_CHARS).collect();
        format!("{kind} {name}")
    });
    let is_ours = (application, version) == (APPLICATION_ID, USER_VERSION);
    let damage = (!is_ours).then(|| {
        format!("application_id {application:#x}, user_version {version}: not a catalog of ours")
    });
    Ok((entries.collect(), damage))
}

fn check(dir: &Path, store_id: &Id) -> Option<String> {
    let path = match real_path(dir) {
        Ok(path) => path,
        Err(error) => return Some(error.to_string()),
    };
    let checked = connect(&path, Access::Read).map_err(|error| refusal(&path, &error));
    let checked = checked.and_then(|connection| {
        identify(&connection, store_id, &path)?;
        let sql = "PRAGMA integrity_check(1)";
        let found = connection.query_row(sql, (), |row| row.get::<_, String>(0));
        found.map_err(|error| refusal(&path, &error))
    });
    match checked {
        Ok(found) if found == "ok" => None,
        Ok(found) => Some(found),
        // Its creation was cut off, or all of it is still in the log.
        Err(Refusal::Blank) => None,
        Err(Refusal::Unfit(reason, why)) => Some(format!("{reason:?}: {why}")),
        Err(Refusal::Failed(error)) => Some(error.to_string()),
    }
}

impl ReaderCatalog<'_> {
    /// What is remembered of file `uuid`. Counts only if that file is listed.
    #[cfg_attr(not(test), expect(dead_code, reason = "for `stats --health`"))]
    pub(crate) fn cached(&self, uuid: &Id) -> Option<CachedSegment> {
        self.ask(|connection| cached(connection, uuid)).flatten()
    }

    /// Whether file `uuid` was there and counted, and nothing was to delete it, as far as is
    /// known; for the holder of the maintenance lock.
    pub(crate) fn was_committed(&self, uuid: &Id) -> bool {
        self.ask(|connection| was_committed(connection, uuid)).unwrap_or(false)
    }

    /// What is remembered of all files, those that are missing included: they may be back. In
    /// one look: for opening a store, where asking for each file would cost more.
    pub(crate) fn cached_all(&self) -> HashMap<Id, CachedSegment> {
        let rows = self.ask(|connection| collect(connection, SEGMENT, (), read_segment));
        rows.unwrap_or_default().into_iter().map(|row| (row.segment.uuid, row.segment)).collect()
    }

    /// Files that ought to be there: those that the last maintenance found, or found gone for
    /// no reason, but for those that something was to delete. `None` where that cannot be told
    /// now, which a later try may.
    pub(crate) fn expected(&self) -> Option<Vec<MissingSegment>> {
        self.gone(SEGMENT)
    }

    /// Files that the last maintenance found gone for no reason; `None` as for
    /// [`expected`](Self::expected).
    pub(crate) fn missing(&self) -> Option<Vec<MissingSegment>> {
        self.gone(&format!("{SEGMENT} WHERE missing = 1"))
    }

    /// Those of the files that nothing was to delete.
    fn gone(&self, sql: &str) -> Option<Vec<MissingSegment>> {
        self.settled(|connection| {
            let intended: BTreeSet<Id> =
                read_intents(connection)?.into_iter().map(|(uuid, _)| uuid).collect();
            let mut rows = collect(connection, sql, (), read_segment)?;
            rows.retain(|row| !intended.contains(&row.segment.uuid));
            let missing = rows.iter().map(|row| (&row.segment).into()).collect();
            let mut outcome = Reconciled { missing, ..Reconciled::default() };
            outcome.sort();
            Ok(outcome.missing)
        })
    }

    /// An answer of all that was committed: `None` while something is in the log, some of which a
    /// checkpoint may have brought into the file, or where the catalog is an older copy of itself.
    /// The log is removed when a writer lets go of the catalog.
    fn settled<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let mark = || CatalogMark::read_at(self.fs, self.dir);
        let before = mark();
        if self.has_log() {
            return None;
        }
        // A new connection: one that takes the file for immutable keeps what it has read.
        let connection = connect(&self.path, Access::Read).ok()?;
        let serial = identify(&connection, &self.store_id, &self.path).ok()?;
        let answer = question(&connection).ok()?;
        // Whoever had a log meanwhile, and removed it again, has moved the mark.
        (serial >= before && !self.has_log() && mark() == before).then_some(answer)
    }

    fn has_log(&self) -> bool {
        let [log, ..] = COMPANIONS;
        match self.fs.metadata(&self.dir.join(format!("{NAME}{log}"))) {
            Ok(found) => found.len > 0,
            Err(error) => !error.is_not_found(),
        }
    }

    /// The last maintenance jobs, newest first; none where they cannot be read now.
    pub(crate) fn jobs(&self, limit: usize) -> Vec<Job> {
        self.ask(|connection| jobs(connection, limit)).unwrap_or_default()
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        // Nothing is changed under the lock, so that a panic of another thread spoils nothing.
        question(&self.connection.lock().unwrap_or_else(PoisonError::into_inner)).ok()
    }
}

impl rusqlite::types::FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        <[u8; 16]>::column_result(value).map(Self::from_bytes)
    }
}

impl rusqlite::ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::from(self.as_bytes().as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FS, STORE, facts, id, rules};
    use super::*;
    use crate::fs::read_whole;
    use crate::store_files::maintenance::try_maintenance_lock;

    const ALL_COMPANIONS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

    fn open_at(dir: &Path) -> (SqliteCatalog, CatalogState) {
        open(&FS, dir, &STORE).unwrap()
    }

    fn files(count: u8) -> Vec<SegmentFacts> {
        (1..=count).map(facts).collect()
    }

    fn reconcile(catalog: &mut SqliteCatalog, files: &[SegmentFacts]) -> Reconciled {
        catalog.reconcile(files, &rules(), &|_| Ok(())).unwrap()
    }

    /// A store whose catalog knows `count` files, and is closed.
    fn store(count: u8) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let (mut catalog, state) = open_at(root.path());
        assert_eq!(state, CatalogState::Fresh);
        assert_eq!(reconcile(&mut catalog, &files(count)).added, u64::from(count));
        root
    }

    fn read(path: &Path) -> Vec<u8> {
        read_whole(&FS, path, 1 << 30).unwrap()
    }

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        publish(&FS, dir, name, bytes, true).unwrap();
    }

    /// Nothing is lost: the catalog takes in the files as if it had never known them, the
    /// old one is kept, and the next opening finds all well.
    fn check_rebuilt(dir: &Path, expected: RebuildReason, old: Option<&[u8]>) {
        let (mut catalog, state) = open_at(dir);
        let CatalogState::Rebuilt { reason, set_aside } = state else { panic!("{state:?}") };
        assert_eq!(reason, expected);
        match (old, set_aside) {
            (Some(old), Some(path)) => assert_eq!(read(&path), old),
            (None, None) => {}
            other => panic!("{other:?}"),
        }
        let found = reconcile(&mut catalog, &files(5));
        assert_eq!(found, Reconciled { added: 5, ..Reconciled::default() });
        drop(catalog);
        let (mut catalog, state) = open_at(dir);
        assert_eq!(state, CatalogState::Good);
        assert_eq!(reconcile(&mut catalog, &files(5)), Reconciled::default());
        assert_eq!(catalog.cached(&id(3)).unwrap(), Some(CachedSegment::of(&facts(3))));
    }

    /// The schema and the worked example of spec 8.8.
    #[test]
    fn example() {
        let text = include_str!("../../format-spec/8-store.md").replace('\n', " ");
        for (_, name, sql) in SCHEMA {
            assert!(text.contains(sql), "{name}");
        }
        let store_id =
            Id::from_bytes(*b"\x6f\x1e\xd0\x02\xab\x55\x4c\x9e\x88\x40\x1b\x2c\x3d\x4e\x5f\x60");
        let store = format!("`crc32` {}. The row of", store_crc(&store_id, 42));
        let row = CachedSegment {
            uuid: id(0xaa),
            table: Table::Agent,
            partition: Partition::from_days(20_415),
            kind: 2,
            rows: 1_000,
            bytes: 65_536,
            min_ts: 1_763_856_000_000_000,
            max_ts: 1_763_942_399_999_999,
            created: 1_763_942_400_000_000,
            txn: None,
            summary: vec![1, 2, 3],
        };
        let segment = format!("`crc32` {}. ", segment_crc(&row, false));
        assert!(text.contains(&store) && text.contains(&segment), "{store} {segment}");
    }

    #[test]
    fn settings_are_in_force() {
        let root = store(1);
        let (catalog, _) = open_at(root.path());
        let value = |name: &str| -> i64 {
            catalog.connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        assert_eq!(value("synchronous"), 2);
        assert_eq!(value("cell_size_check"), 1);
        assert_eq!(value("trusted_schema"), 0);
        assert_eq!(value("mmap_size"), 0);
        assert_eq!(value("application_id"), i64::from(APPLICATION_ID));
        assert_eq!(value("user_version"), i64::from(USER_VERSION));
        assert!(catalog.connection.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap());
        let mode: String =
            catalog.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }

    #[test]
    fn the_view_of_partitions() {
        let root = store(5);
        let (mut catalog, _) = open_at(root.path());
        reconcile(&mut catalog, &files(4));
        let sql = "SELECT sum(files), sum(rows) FROM partitions";
        let sums: (i64, i64) =
            catalog.connection.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(sums, (4, files(4).iter().map(|it| stored(it.rows)).sum()));
    }

    #[test]
    fn lost() {
        let root = store(5);
        FS.remove(&root.path().join(NAME)).unwrap();
        check_rebuilt(root.path(), RebuildReason::Lost, None);
    }

    #[test]
    fn lost_but_for_its_log() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "catalog.sqlite-wal", b"a log of something");
        let (_, state) = open_at(root.path());
        let CatalogState::Rebuilt { reason: RebuildReason::Lost, set_aside: Some(aside) } = state
        else {
            panic!("{state:?}")
        };
        let log = aside.with_extension("sqlite-wal");
        assert_eq!(read(&log), b"a log of something");
    }

    #[test]
    fn garbage_and_zeros_and_nothing() {
        for bytes in [vec![0xa5; 20_000], vec![0; 8192], Vec::new()] {
            let root = store(5);
            put(root.path(), NAME, &bytes);
            check_rebuilt(root.path(), RebuildReason::Damaged, Some(&bytes));
        }
    }

    #[test]
    fn truncated() {
        let root = store(5);
        let whole = read(&root.path().join(NAME));
        for len in [1, 99, 100, 4095, 4096, 8192, 10_000, whole.len() - 4096, whole.len() - 1] {
            let root = store(5);
            put(root.path(), NAME, &whole[..len]);
            let (mut catalog, state) = open_at(root.path());
            let CatalogState::Rebuilt { set_aside: Some(_), .. } = state else {
                panic!("{len}: {state:?}")
            };
            assert_eq!(reconcile(&mut catalog, &files(5)).added, 5);
        }
    }

    #[test]
    fn of_another_store() {
        let root = store(5);
        let other = tempfile::tempdir().unwrap();
        let (mut catalog, _) = open(&FS, other.path(), &id(0x77)).unwrap();
        catalog.reconcile(&files(9), &RetentionRules::default(), &|_| Ok(())).unwrap();
        drop(catalog);
        let bytes = read(&other.path().join(NAME));
        put(root.path(), NAME, &bytes);
        check_rebuilt(root.path(), RebuildReason::Foreign, Some(&bytes));
    }

    #[test]
    fn of_another_program() {
        let root = store(5);
        let other = tempfile::tempdir().unwrap();
        let path = other.path().join("app.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute("CREATE TABLE users (name TEXT)", ()).unwrap();
        drop(connection);
        let bytes = read(&path);
        put(root.path(), NAME, &bytes);
        check_rebuilt(root.path(), RebuildReason::Foreign, Some(&bytes));
    }

    #[test]
    fn an_older_copy() {
        let root = store(5);
        let old = read(&root.path().join(NAME));
        let (mut catalog, _) = open_at(root.path());
        let mut compacted = facts(6);
        compacted.replaces = vec![id(1)];
        let now: Vec<_> = [compacted].into_iter().chain(files(5).split_off(1)).collect();
        assert_eq!(reconcile(&mut catalog, &now).removed, 1);
        drop(catalog);
        put(root.path(), NAME, &old);
        // By the old copy file 1 would be missing; nothing explains it once 6 is gone too.
        check_rebuilt(root.path(), RebuildReason::Stale, Some(&old));
    }

    #[test]
    fn a_schema_with_more_in_it() {
        for sql in [
            "CREATE TRIGGER evil AFTER INSERT ON jobs BEGIN DELETE FROM segments; END",
            "CREATE INDEX more ON jobs (kind)",
            "DROP VIEW partitions",
        ] {
            let root = store(5);
            let path = root.path().join(NAME);
            let connection = Connection::open(&path).unwrap();
            connection.execute(sql, ()).unwrap();
            drop(connection);
            let bytes = read(&path);
            assert!(open_reader(&FS, root.path(), &STORE).is_none());
            check_rebuilt(root.path(), RebuildReason::Damaged, Some(&bytes));
        }
    }

    #[test]
    fn not_a_regular_file() {
        let root = store(5);
        let path = root.path().join(NAME);
        let elsewhere = root.path().join("elsewhere");
        FS.rename(&path, &elsewhere).unwrap();
        let before = read(&elsewhere);
        rustix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(open_reader(&FS, root.path(), &STORE).is_none());
        let (_, state) = open_at(root.path());
        assert!(matches!(state, CatalogState::Rebuilt { .. }), "{state:?}");
        assert_eq!(read(&elsewhere), before, "what a link points to is not touched");
    }

    #[test]
    fn a_creation_cut_off_is_no_loss() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), NAME, b"");
        let (mut catalog, state) = open_at(root.path());
        assert_eq!(state, CatalogState::Fresh);
        assert_eq!(reconcile(&mut catalog, &files(2)).added, 2);
    }

    /// A process that is killed leaves the log beside the file. With the log nothing is
    /// lost; without it the file is an older copy.
    #[test]
    fn killed_with_and_without_its_log() {
        let root = tempfile::tempdir().unwrap();
        let (mut catalog, _) = open_at(root.path());
        reconcile(&mut catalog, &files(5));
        let with_log = tempfile::tempdir().unwrap();
        let without = tempfile::tempdir().unwrap();
        for entry in FS.list(root.path()).unwrap() {
            let bytes = read(&root.path().join(&entry.name));
            put(with_log.path(), &entry.name, &bytes);
            if !entry.name.contains("-wal") && !entry.name.contains("-shm") {
                put(without.path(), &entry.name, &bytes);
            }
        }
        let (mut copy, state) = open_at(with_log.path());
        assert_eq!(state, CatalogState::Good);
        assert_eq!(reconcile(&mut copy, &files(5)), Reconciled::default());
        let (mut copy, state) = open_at(without.path());
        assert!(matches!(state, CatalogState::Rebuilt { .. }), "{state:?}");
        assert_eq!(reconcile(&mut copy, &files(5)).added, 5);
    }

    #[test]
    fn asked_to_rebuild() {
        let root = store(5);
        let bytes = read(&root.path().join(NAME));
        let (mut catalog, state) = rebuild(&FS, root.path(), &STORE, RebuildReason::Asked).unwrap();
        let CatalogState::Rebuilt { reason: RebuildReason::Asked, set_aside: Some(path) } = state
        else {
            panic!("{state:?}")
        };
        assert_eq!(read(&path), bytes);
        assert_eq!(reconcile(&mut catalog, &files(5)).added, 5);
    }

    /// Whatever bit flips, the catalog opens or is made anew, no reader is told a wrong
    /// word, and no file is called missing.
    #[test]
    fn flipped_bits() {
        let root = store(5);
        let whole = read(&root.path().join(NAME));
        let mark = read(&root.path().join("maintenance.lock"));
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let header = (0..100).map(|byte| byte * 8 + random(8)).collect::<Vec<_>>();
        let anywhere = (0..150).map(|_| random(whole.len() * 8)).collect::<Vec<_>>();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for bit in header.into_iter().chain(anywhere) {
            for companion in ALL_COMPANIONS {
                let _ = FS.remove(&dir.join(format!("{NAME}{companion}")));
            }
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Not synced: only this process looks at them.
            FS.create(&dir.join(NAME)).unwrap().write_all_at(&damaged, 0).unwrap();
            let _ = FS.remove(&dir.join("maintenance.lock"));
            FS.create(&dir.join("maintenance.lock")).unwrap().write_all_at(&mark, 0).unwrap();

            if let Some(reader) = open_reader(&FS, dir, &STORE) {
                for file in files(5) {
                    let cached = reader.cached(&file.uuid);
                    assert!(
                        cached.is_none_or(|cached| cached == CachedSegment::of(&file)),
                        "bit {bit}"
                    );
                }
                assert!(reader.cached_all().len() <= 5);
                assert!(reader.missing().is_none_or(|missing| missing.is_empty()));
            }
            let (mut catalog, _) = open_at(dir);
            let first = catalog.reconcile(&files(5), &rules(), &|_| Ok(()));
            let first = first.unwrap_or_else(|error| panic!("bit {bit}: {error}"));
            assert_eq!(first.missing, [], "bit {bit}");
            assert_eq!(reconcile(&mut catalog, &files(5)), Reconciled::default(), "bit {bit}");
            for file in files(5) {
                let cached = catalog.cached(&file.uuid).unwrap();
                assert_eq!(cached, Some(CachedSegment::of(&file)), "bit {bit}");
            }
            assert_eq!(catalog.retention().unwrap(), Some(rules()), "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_row_is_read_anew() {
        let root = store(5);
        let connection = Connection::open(root.path().join(NAME)).unwrap();
        connection.execute("UPDATE segments SET rows = rows + 1 WHERE kind = 2", ()).unwrap();
        connection
            .execute("UPDATE segments SET uuid = zeroblob(16) WHERE uuid = ?1", [[1_u8; 16]])
            .unwrap();
        drop(connection);
        let reader = open_reader(&FS, root.path(), &STORE).unwrap();
        assert_eq!(reader.cached(&id(1)), None);
        assert_eq!(reader.cached_all().len(), 0);
        drop(reader);
        let (mut catalog, state) = open_at(root.path());
        assert_eq!(state, CatalogState::Good);
        let found = reconcile(&mut catalog, &files(5));
        assert_eq!(found, Reconciled { added: 5, damaged: 5, ..Reconciled::default() });
        assert_eq!(catalog.cached(&id(1)).unwrap(), Some(CachedSegment::of(&facts(1))));
    }

    #[test]
    fn readers_look_on_while_the_writer_writes() {
        let root = store(1);
        let dir = root.path();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answers = 0_u64;
                        let kept = open_reader(&FS, dir, &STORE);
                        while !done.load(std::sync::atomic::Ordering::Relaxed) || answers == 0 {
                            let fresh = open_reader(&FS, dir, &STORE);
                            for reader in [&kept, &fresh].into_iter().flatten() {
                                let all = reader.cached_all();
                                answers += all.len() as u64;
                                for (uuid, cached) in all {
                                    assert_eq!(
                                        cached,
                                        CachedSegment::of(&facts(uuid.as_bytes()[0]))
                                    );
                                }
                            }
                        }
                    })
                })
                .collect();
            let (mut catalog, state) = open_at(dir);
            assert_eq!(state, CatalogState::Good);
            for count in 2..60 {
                assert_eq!(reconcile(&mut catalog, &files(count)).added, 1);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        let reader = open_reader(&FS, dir, &STORE).unwrap();
        assert_eq!(reader.cached_all().len(), 59);
    }

    /// A reader does not read the log. Of a checkpoint that was under way it saw a part: rows of
    /// files that are gone, without the intents that explain it. And one who asked twice went by
    /// what had been committed when it asked first.
    #[test]
    fn nothing_is_expected_by_half_of_a_transaction() {
        let root = store(3);
        let dir = root.path();
        let expected = |reader: &ReaderCatalog<'_>| {
            reader.expected().map(|files| files.iter().map(|file| file.uuid).collect::<Vec<_>>())
        };
        let early = open_reader(&FS, dir, &STORE).unwrap();
        assert_eq!(expected(&early).unwrap().len(), 3);
        let (mut catalog, _) = open_at(dir);
        assert_eq!(expected(&early).unwrap().len(), 3, "the log is empty");
        let intent = Intent {
            kind: "delete",
            started: 5,
            what: "replaced".to_owned(),
            rows: 10,
            bytes: 20,
            deletes: vec![id(3)],
        };
        let job = catalog.log_intent(&intent).unwrap();
        for reader in [&early, &open_reader(&FS, dir, &STORE).unwrap()] {
            assert_eq!(expected(reader), None);
            assert_eq!(reader.missing(), None);
        }
        let outcome = Outcome { finished: 6, outcome: "done".to_owned(), rows: 10, bytes: 20 };
        catalog.log_done(job, &outcome).unwrap();
        assert_eq!(reconcile(&mut catalog, &files(2)).removed, 1);
        drop(catalog);
        assert_eq!(expected(&early), Some(vec![id(1), id(2)]));
        assert_eq!(early.missing(), Some(Vec::new()));
    }

    #[test]
    fn a_reader_sees_missing_files_and_jobs() {
        let root = store(3);
        let (mut catalog, _) = open_at(root.path());
        assert_eq!(reconcile(&mut catalog, &files(2)).missing.len(), 1);
        let intent = Intent {
            kind: "expire",
            started: 5,
            what: "older than 90 days".to_owned(),
            rows: 10,
            bytes: 20,
            deletes: vec![],
        };
        catalog.log_intent(&intent).unwrap();
        drop(catalog);
        let reader = open_reader(&FS, root.path(), &STORE).unwrap();
        assert_eq!(reader.missing().unwrap()[0].uuid, id(3));
        assert_eq!(reader.cached_all().len(), 3, "it may be back");
        assert_eq!(reader.jobs(10)[0].what, "older than 90 days");
        assert!(open_reader(&FS, root.path(), &id(8)).is_none(), "another store's");
    }

    /// A reader made `-wal` and `-shm` beside the catalog, and on a read-only mount it had none.
    /// Now it looks at the file alone, whatever its directory is called.
    #[test]
    fn a_reader_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a%41 ?immutable=0#\u{e9}");
        FS.create_dir(&dir).unwrap();
        let (mut catalog, _) = open_at(&dir);
        reconcile(&mut catalog, &files(5));
        drop(catalog);
        let names =
            || -> Vec<_> { FS.list(&dir).unwrap().into_iter().map(|entry| entry.name).collect() };
        let before = names();
        let reader = open_reader(&FS, &dir, &STORE).unwrap();
        assert_eq!(reader.cached_all().len(), 5);
        assert_eq!(names(), before);
    }

    #[test]
    fn a_dead_job_explains_nothing_later() {
        let root = store(3);
        let (mut catalog, _) = open_at(root.path());
        let intent = |deletes| Intent {
            kind: "expire",
            started: 5,
            what: "all of it".to_owned(),
            rows: 1,
            bytes: 1,
            deletes,
        };
        let dead = catalog.log_intent(&intent(vec![id(1), id(2)])).unwrap();
        drop(catalog);

        // It deleted 1 and died; the intent explains that, and is then used up. 2 is there.
        let (mut catalog, _) = open_at(root.path());
        let found = reconcile(&mut catalog, &[facts(2), facts(3)]);
        let expected = Reconciled { removed: 1, interrupted: 1, ..Reconciled::default() };
        assert_eq!(found, expected);
        assert_eq!(catalog.jobs(1).unwrap()[0].outcome.as_deref(), Some(INTERRUPTED));
        let outcome = Outcome { finished: 9, outcome: "done".to_owned(), rows: 0, bytes: 0 };
        let error = catalog.log_done(dead, &outcome).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);

        // 2 vanishes later, by other hands.
        assert_eq!(reconcile(&mut catalog, &[facts(3)]).missing.len(), 1);
    }

    #[test]
    fn steady_state_writes_nothing() {
        let root = store(5);
        let (mut catalog, _) = open_at(root.path());
        let before = catalog.mark.committed();
        reconcile(&mut catalog, &files(5));
        assert_eq!(catalog.mark.committed(), before);
        let lock = try_maintenance_lock(&FS, root.path()).unwrap();
        assert!(lock.is_some(), "the mark is not the lock");
    }

    #[test]
    fn a_backup_opens() {
        let root = store(5);
        let (catalog, _) = open_at(root.path());
        let to = tempfile::tempdir().unwrap();
        catalog.back_up(&FS, to.path()).unwrap();
        assert!(catalog.back_up(&FS, to.path()).unwrap_err().is_already_there());
        let (mut copy, state) = open_at(to.path());
        assert_eq!(state, CatalogState::Good);
        assert_eq!(reconcile(&mut copy, &files(5)), Reconciled::default());
    }
}
