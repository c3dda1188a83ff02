//! Rows of the SQLite files that earlier metrics stores left behind.
//!
//! Owns reading such a file without writing to it or beside it, whatever state it is in
//! (`files`), finding out which tables of which schema it has (`layout`), turning values into
//! rows (`values`), and the compressed rows of its archive (`archive`).
//!
//! Two schemas are known, told apart by the columns of `task_metrics`: 2.0.0 has `success`,
//! the older 1.0.0 has `result` and `files_changed`, which are kept in the metadata of the
//! row, and `success` is whether `result` is `success`.
//!
//! SQLite columns hold values of any type. A NULL number is no number; a real where a whole
//! number belongs is rounded to the nearest; a boolean is whether a number is not 0. Times
//! are seconds since 1970, whole or not, or text: `T` between date and time means a time of
//! the writer's zone unless it names an offset, a blank is SQLite's own form and means UTC.
//! Empty metadata is none.

mod archive;
mod files;
mod layout;
mod values;

use std::path::Path;

use rusqlite::{Connection, Row};

use self::files::Files;
use self::layout::{Layout, Tables};
use self::values::{Maker, VALUES_MAX, Value};
use super::{BadLine, Fingerprint, ParsedRow, Place, ReadCount, ReadOptions, Sink, TimeFormat};
use crate::error::{Error, Result};

/// First bytes of every SQLite file.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Whether a file that begins with these bytes is one of SQLite.
pub fn is_sqlite(beginning: &[u8]) -> bool {
    beginning.starts_with(MAGIC)
}

/// A SQLite file of an earlier metrics store, open for reading.
///
/// ```no_run
/// use tallystone::import::{ReadOptions, SqliteSource};
///
/// let source = SqliteSource::open("metrics_persistent.db".as_ref())?;
/// let options = ReadOptions::new("metrics_persistent.db", None);
/// let count = source.read(&options, |_row| Ok(()), |bad| Err(bad.to_error("old.db")))?;
/// println!("{} rows", count.rows);
/// # Ok::<(), tallystone::Error>(())
/// ```
#[derive(Debug)]
pub struct SqliteSource {
    files: Files,
    connection: Connection,
    tables: Tables,
}

impl SqliteSource {
    /// Opens the file and looks at its tables.
    ///
    /// Nothing is written to it or beside it. Where a write-ahead log or a journal with
    /// something in it lies beside the file, all are copied to the directory for temporary
    /// files and the copy is read, which is as of one moment even while others write.
    ///
    /// # Errors
    ///
    /// `BadInput` when it is no such file, is damaged, or has other tables, which are named;
    /// `Locked` when another program holds it or writes too often for a copy; `Io`, `NoSpace`.
    pub fn open(path: &Path) -> Result<Self> {
        let files = Files::open(path)?;
        let connection = files.connect()?;
        let tables = Tables::find(&connection, path)?;
        Ok(Self { files, connection, tables })
    }

    /// What tells the source from another: of the file, and of the log beside it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.files.fingerprint()
    }

    /// Reads all of the tables asked for: what was archived first, then the tables, by rowid.
    ///
    /// A row that is none is passed to `on_bad`, an archive that cannot be decoded as well;
    /// both return an error to stop there and `Ok` to go on.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for options that do not fit: columns have their own names and times
    /// their own form; `BadInput` when the file is damaged or changed while it was read;
    /// `Locked`; `Io`; and whatever the two functions return.
    pub fn read(
        &self,
        options: &ReadOptions,
        mut on_row: impl FnMut(&ParsedRow<'_>) -> Result<()>,
        mut on_bad: impl FnMut(&BadLine) -> Result<()>,
    ) -> Result<ReadCount> {
        if options.map != Default::default() {
            return Err(Error::invalid("map: the columns of a SQLite file have known names"));
        }
        if options.time != TimeFormat::Rfc3339 {
            return Err(Error::invalid("time format: the times of a SQLite file have known forms"));
        }
        let mut sink = Sink::new(options, &mut on_row, &mut on_bad);
        let mut maker = Maker::new(options.zone.clone());
        if self.tables.has_archive {
            archive::read(&self.connection, &mut maker, &mut sink)
                .map_err(|failure| self.error(failure))?;
        }
        for layout in &self.tables.layouts {
            if options.wants(layout.table()) {
                self.read_table(layout, &mut maker, &mut sink)
                    .map_err(|failure| self.error(failure))?;
            }
        }
        self.files.check_unchanged()?;
        Ok(sink.count)
    }

    fn read_table(
        &self,
        layout: &Layout,
        maker: &mut Maker,
        sink: &mut Sink<'_>,
    ) -> Result<(), Failure> {
        let width = layout.fields().len();
        each_row(&self.connection, &layout.columns(), layout.name(), |number, row| {
            let mut values = [const { Value::Null }; VALUES_MAX];
            let message = if let Some(row) = row {
                for (at, value) in values.iter_mut().take(width).enumerate() {
                    *value = Value::of(row.get_ref(at + 1)?);
                }
                match maker.row(layout, &values) {
                    Ok(row) => sink.offer(&row)?,
                    Err(message) => Some(message),
                }
            } else {
                Some(files::too_long())
            };
            if let Some(message) = message {
                let place = Place::Row { table: layout.name(), row: number, entry: None };
                let raw = row.map_or_else(Vec::new, |_| values::shown(layout, &values));
                sink.bad(&BadLine { place, message, raw })?;
            }
            Ok(())
        })
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Sqlite(cause) => files::error(self.files.path(), &cause),
            Failure::Other(error) => error,
        }
    }
}

/// Why reading ended.
enum Failure {
    Sqlite(rusqlite::Error),
    Other(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Sqlite(cause)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Passes each row of a table to `each`, by rowid: its number, and the row with the columns from
/// 1 on. Of a row with a value that is too long to be read there is the number alone.
fn each_row(
    connection: &Connection,
    columns: &str,
    table: &str,
    mut each: impl FnMut(i64, Option<&Row<'_>>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let has_rowid = connection.prepare(&format!("SELECT rowid FROM {table}")).is_ok();
    let (rowid, order) = if has_rowid { ("rowid", "ORDER BY rowid") } else { ("NULL", "") };
    let mut statement = connection
        .prepare(&format!("SELECT {rowid}, {columns} FROM {table} {order} LIMIT -1 OFFSET ?1"))?;
    let mut passed = 0;
    loop {
        let mut rows = statement.query([passed])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    passed += 1;
                    each(row.get_ref(0)?.as_i64().unwrap_or(passed), Some(row))?;
                }
                Ok(None) => return Ok(()),
                Err(cause) if files::is_too_long(&cause) => break,
                Err(cause) => return Err(cause.into()),
            }
        }
        // What is passed over by an offset is not looked at, so that the query can go on behind
        // the row, and the number of it be asked for.
        let number = format!("SELECT {rowid} FROM {table} {order} LIMIT 1 OFFSET ?1");
        let number: Option<i64> = connection.query_row(&number, [passed], |row| row.get(0))?;
        passed += 1;
        each(number.unwrap_or(passed), None)?;
    }
}
