//! Opening a database of another program: what may lie beside the file, and how each state
//! of it is read without a trace.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::is_sqlite;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::foreign::ForeignFile;
use crate::import::Fingerprint;
use crate::import::source::Sums;

/// How long to wait for another program's lock.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to copy files that change meanwhile.
const ATTEMPTS: usize = 5;
/// Longest value that is read. A row may have 1 MiB of metadata, an archive 1,000 rows.
const VALUE_BYTES_MAX: i32 = 64 << 20;
/// Bytes of the header that are looked at.
const HEADER_BYTES: usize = 20;
/// Where the header says how the file is written; 2 means through a log.
const WRITE_VERSION_OFFSET: usize = 18;
/// Where the header says how long a page is, big-endian; 1 means 64 KiB.
const PAGE_BYTES: Range<usize> = 16..18;
/// What the copy is called.
const COPY: &str = "copy.db";
/// Files that lie beside a database and belong to it.
const COMPANIONS: [&str; 2] = ["-wal", "-journal"];

/// The files of a database.
#[derive(Debug)]
pub(super) struct Files {
    main: ForeignFile,
    fingerprint: Fingerprint,
    /// Where the copy lies, if one had to be made.
    copy: Option<TempDir>,
    has_log: bool,
}

impl Files {
    /// Looks at the files, and copies them if they cannot be read as they lie.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let main = ForeignFile::new(path);
        let header = header(&main)?;
        let has_log = header.get(WRITE_VERSION_OFFSET) == Some(&2);
        if companions(&main)?.is_empty() {
            let fingerprint = fingerprint(&main)?;
            check_length(&main, &header, fingerprint.bytes)?;
            return Ok(Self { main, fingerprint, copy: None, has_log });
        }
        let (copy, fingerprint) = copy(&main)?;
        Ok(Self { main, fingerprint, copy: Some(copy), has_log })
    }

    pub(super) fn path(&self) -> &Path {
        self.main.path()
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Opens what is to be read. One transaction holds until the connection is closed.
    pub(super) fn connect(&self) -> Result<Connection> {
        let common = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let opened = match &self.copy {
            // SQLite applies the log or the journal, to the copy.
            Some(copy) => Connection::open_with_flags(
                copy.path().join(COPY),
                common | OpenFlags::SQLITE_OPEN_READ_WRITE,
            ),
            // A file in the mode of a log cannot be read without making the log's files, unless
            // it is said not to change; whether it did is looked at afterwards.
            None if self.has_log => Connection::open_with_flags(
                immutable(self.path()),
                common | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
            ),
            None => {
                Connection::open_with_flags(self.path(), common | OpenFlags::SQLITE_OPEN_READ_ONLY)
            }
        };
        let prepared = opened.and_then(|connection| {
            connection.busy_timeout(PATIENCE)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
            connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; BEGIN")?;
            Ok(connection)
        });
        prepared.map_err(|cause| error(self.path(), &cause))
    }

    /// Checks that what was read is what the fingerprint is of.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        if self.copy.is_some()
            || (companions(&self.main)?.is_empty() && fingerprint(&self.main)? == self.fingerprint)
        {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Locked, "changed while it was read, nothing is kept")
            .with_remedy(STOP_IT)
            .with_path(self.path()))
    }
}

const STOP_IT: &str = "stop the program that writes to it, or import a copy that \
                       `sqlite3 FILE \".backup COPY\"` makes";

fn header(main: &ForeignFile) -> Result<Vec<u8>> {
    let refuse = |message: &str| Err(Error::bad_input(message).with_path(main.path()));
    let Some(file) = main.open()? else {
        return Err(main.error("open", io::ErrorKind::NotFound.into()));
    };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let mut limited = file.take(HEADER_BYTES as u64);
    limited.read_to_end(&mut header).map_err(|cause| main.error("read", cause))?;
    if header.is_empty() {
        return refuse("empty file, expected a SQLite database");
    }
    if !is_sqlite(&header) {
        return refuse(
            "not a SQLite database, expected one that is neither encrypted nor compressed",
        );
    }
    Ok(header)
}

/// Checks that a file that nobody writes to has whole pages: SQLite reads zeros where the last
/// one was cut off, and takes them for values.
fn check_length(main: &ForeignFile, header: &[u8], bytes: u64) -> Result<()> {
    let page = match header.get(PAGE_BYTES) {
        Some(&[0, 1]) => 65_536,
        Some(&[high, low]) => u64::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    // What is no size of a page is for SQLite to refuse.
    if page == 0 || bytes.is_multiple_of(page) {
        return Ok(());
    }
    let message = format!("damaged: {bytes} bytes, expected whole pages of {page}");
    Err(Error::bad_input(message).with_path(main.path()))
}

/// What belongs to the file and has something in it.
fn companions(main: &ForeignFile) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for ending in COMPANIONS {
        if let Some(file) = main.beside(ending).open()?
            && file.metadata().map_err(|cause| main.error("stat", cause))?.len() > 0
        {
            found.push(ending);
        }
    }
    Ok(found)
}

fn fingerprint(main: &ForeignFile) -> Result<Fingerprint> {
    let mut sums = Sums::default();
    for ending in [""].into_iter().chain(COMPANIONS) {
        let file = main.beside(ending);
        if let Some(open) = file.open()? {
            sums.absorb(open).map_err(|cause| file.error("read", cause))?;
        }
    }
    Ok(sums.fingerprint())
}

/// Copies the files as they are at one moment: until they are found to be what was copied.
fn copy(main: &ForeignFile) -> Result<(TempDir, Fingerprint)> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        let dir = tempfile::Builder::new().prefix("tallystone-import-").tempdir();
        let dir =
            dir.map_err(|cause| Error::io("create directory", &std::env::temp_dir(), cause))?;
        let copy = ForeignFile::new(dir.path().join(COPY));
        for ending in [""].into_iter().chain(COMPANIONS) {
            let from = main.beside(ending);
            if let Some(file) = from.open()? {
                from.copy(file, copy.beside(ending).path())?;
            }
        }
        let copied = fingerprint(&copy)?;
        if copied == fingerprint(main)? {
            return Ok((dir, copied));
        }
    }
    Err(Error::new(ErrorKind::Locked, "is written to all the time, expected a pause for a copy")
        .with_remedy(STOP_IT)
        .with_path(main.path()))
}

/// The address of a file that is said not to change, for SQLite.
fn immutable(path: &Path) -> String {
    let mut address = String::from("file:");
    for byte in std::path::absolute(path).as_deref().unwrap_or(path).as_os_str().as_encoded_bytes()
    {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                address.push(char::from(*byte));
            }
            _ => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address.push_str("?immutable=1");
    address
}

/// Whether a value is longer than is read.
pub(super) fn is_too_long(cause: &rusqlite::Error) -> bool {
    cause.sqlite_error_code() == Some(ErrorCode::TooBig)
}

/// What a row with such a value is told.
pub(super) fn too_long() -> String {
    format!("a value of more than {VALUE_BYTES_MAX} bytes, expected at most so many")
}

/// An error of SQLite on a file that is not ours.
pub(super) fn error(path: &Path, cause: &rusqlite::Error) -> Error {
    let code = match cause {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.code),
        _ => None,
    };
    let (kind, what) = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Locked, "another program has locked it")
        }
        Some(ErrorCode::DiskFull) => (ErrorKind::NoSpace, "no space for a copy"),
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory,
        ) => (ErrorKind::Io, "cannot be read"),
        Some(ErrorCode::NotADatabase) => (ErrorKind::BadInput, "not a SQLite database"),
        _ => (ErrorKind::BadInput, "damaged, expected a whole SQLite database"),
    };
    let error = Error::new(kind, format!("{what}: {cause}")).with_path(path);
    if kind == ErrorKind::Locked { error.with_remedy(STOP_IT) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_any_name() {
        let address = immutable("/tmp/a b?c#d%e\u{e9}.db".as_ref());
        assert_eq!(address, "file:/tmp/a%20b%3Fc%23d%25e%C3%A9.db?immutable=1");
    }
}
