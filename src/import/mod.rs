//! Rows from text: CSV and JSON lines, over any `io::Read`.
//!
//! Owns reading lines, naming fields, and turning text into checked rows. It knows no
//! files and no store: the caller opens the source and takes the rows, most likely into
//! an [`Import`](crate::Import), which keeps nothing unless it is committed.
//!
//! Memory is constant: one line, and no allocation per row once the buffers have grown.
//! Every line is judged by itself; a bad one says `file:line: what, expected what`.
//!
//! ```
//! use tallystone::Table;
//! use tallystone::import::{Format, ParsedRow, ReadOptions, read_rows};
//!
//! let text = "timestamp,agent_id,metric_type,value\n2026-11-23T10:00:00Z,a1,cpu,0.5\n";
//! let mut sum = 0.0;
//! let count = read_rows(
//!     Format::Csv,
//!     text.as_bytes(),
//!     &ReadOptions::new("cpu.csv", Table::Agent),
//!     |row| {
//!         if let ParsedRow::Agent(row) = row {
//!             sum += row.value;
//!         }
//!         Ok(())
//!     },
//!     |bad| Err(bad.to_error("cpu.csv")),
//! )?;
//! assert_eq!((count.rows, count.bad, sum), (1, 0, 0.5));
//! # Ok::<(), tallystone::Error>(())
//! ```

mod csv;
mod draft;
mod fields;
mod jsonl;
mod lines;
mod source;

use std::io;

pub use self::csv::CsvReader;
pub use self::fields::{FieldMap, TimeFormat};
pub use self::jsonl::JsonlReader;
pub use self::source::{Fingerprint, Hashing, fingerprint_of};

use crate::error::{Error, ErrorKind, Result};
use crate::row::{AgentMetric, SwarmMetric, TaskMetric};
use crate::schema::Table;

/// How a source is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated, with a header line.
    Csv,
    /// One JSON object on each line.
    Jsonl,
}

impl Format {
    /// Tells the format by the end of a file's name: `.csv`, `.jsonl`, `.ndjson`.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// How to read a source.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// What the source is called in messages, most often its path.
    pub name: String,
    /// The table that the rows are for.
    pub table: Table,
    /// Which column of the source holds which field.
    pub map: FieldMap,
    /// How times are written.
    pub time: TimeFormat,
}

impl ReadOptions {
    /// Columns called as in the table, and times in RFC 3339.
    pub fn new(name: impl Into<String>, table: Table) -> Self {
        Self { name: name.into(), table, map: FieldMap::new(), time: TimeFormat::Rfc3339 }
    }

    /// An error about a line of the source.
    fn error(&self, line: u64, message: impl std::fmt::Display) -> Error {
        Error::bad_input(format!("{}:{line}: {message}", self.name))
    }

    /// An error of reading the source.
    fn io_error(&self, cause: io::Error) -> Error {
        Error::io("read", self.name.as_ref(), cause)
    }
}

/// A checked row, borrowed from the reader until its next call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParsedRow<'a> {
    /// Of `task_metrics`.
    Task(TaskMetric<'a>),
    /// Of `agent_metrics`.
    Agent(AgentMetric<'a>),
    /// Of `swarm_metrics`.
    Swarm(SwarmMetric<'a>),
}

/// A line that is not a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Number of the line, from 1; the first one where a quoted field spans several.
    pub line: u64,
    /// What is wrong with it, and what was expected.
    pub message: String,
    /// Its bytes, with the line end; cut where it is too long.
    pub raw: Vec<u8>,
}

impl BadLine {
    /// As an error that names the source and the line.
    pub fn to_error(&self, name: &str) -> Error {
        Error::bad_input(format!("{name}:{}: {}", self.line, self.message))
    }
}

/// A step of a reader: a row, or a line that is none.
pub type Step<'a> = Result<ParsedRow<'a>, BadLine>;

/// How much of a source was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCount {
    /// Rows.
    pub rows: u64,
    /// Lines that were none, and were passed over.
    pub bad: u64,
}

/// Reads all of a source, passing its rows to `on_row` and its bad lines to `on_bad`,
/// which returns an error to stop there and `Ok` to go on.
///
/// A row that `on_row` refuses with `BadInput` is a bad line like any other.
///
/// # Errors
///
/// `BadInput` where the source as a whole is unusable (empty, binary, its header); `Io`;
/// and whatever the two functions return.
pub fn read_rows(
    format: Format,
    input: impl io::Read,
    options: &ReadOptions,
    on_row: impl FnMut(&ParsedRow<'_>) -> Result<()>,
    on_bad: impl FnMut(&BadLine) -> Result<()>,
) -> Result<ReadCount> {
    match format {
        Format::Csv => drain(&mut CsvReader::new(input, options)?, options, on_row, on_bad),
        Format::Jsonl => drain(&mut JsonlReader::new(input, options)?, options, on_row, on_bad),
    }
}

/// What the readers have in common.
trait Rows {
    fn next_row(&mut self) -> Result<Option<Step<'_>>>;
    fn reject(&self, message: String) -> BadLine;
}

fn drain(
    reader: &mut impl Rows,
    options: &ReadOptions,
    mut on_row: impl FnMut(&ParsedRow<'_>) -> Result<()>,
    mut on_bad: impl FnMut(&BadLine) -> Result<()>,
) -> Result<ReadCount> {
    let mut count = ReadCount::default();
    while let Some(step) = reader.next_row()? {
        let refused = match step {
            Ok(row) => on_row(&row).err(),
            Err(bad) => {
                count.bad += 1;
                on_bad(&bad)?;
                continue;
            }
        };
        match refused {
            None => count.rows += 1,
            Some(error) if error.kind() == ErrorKind::BadInput => {
                count.bad += 1;
                on_bad(&reader.reject(error.message().to_owned()))?;
            }
            Some(error) if error.kind() == ErrorKind::PastRetention => {
                return Err(error.with_path(options.name.as_ref()));
            }
            Some(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        assert_eq!(Format::of_name("a/b.CSV"), Some(Format::Csv));
        assert_eq!(Format::of_name("b.ndjson"), Some(Format::Jsonl));
        assert_eq!(Format::of_name("b.jsonl"), Some(Format::Jsonl));
        assert_eq!(Format::of_name("csv"), None);
        assert_eq!(Format::of_name("b.json"), None);
    }

    #[test]
    fn a_row_that_the_caller_refuses_is_a_bad_line() {
        let text = "timestamp,agent_id,metric_type,value\n\
                    2026-01-01,a,m,1\n2026-01-01,b,m,2\n2026-01-01,c,m,3\n";
        let mut bad = Vec::new();
        let count = read_rows(
            Format::Csv,
            text.as_bytes(),
            &ReadOptions::new("x.csv", Table::Agent),
            |row| match row {
                ParsedRow::Agent(row) if row.agent_id == "b" => Err(Error::bad_input("no b")),
                _ => Ok(()),
            },
            |line| {
                bad.push(line.clone());
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(count, ReadCount { rows: 2, bad: 1 });
        assert_eq!(bad[0].to_error("x.csv").message(), "x.csv:3: no b");
        assert_eq!(bad[0].raw, b"2026-01-01,b,m,2\n");
    }

    #[test]
    fn any_other_refusal_ends_the_reading() {
        let text = "timestamp,agent_id,metric_type,value\n2026-01-01,a,m,1\n";
        let options = ReadOptions::new("x.csv", Table::Agent);
        let refuse = |_: &ParsedRow<'_>| Err(Error::new(ErrorKind::NoSpace, "full"));
        let end = read_rows(Format::Csv, text.as_bytes(), &options, refuse, |_| Ok(()));
        assert_eq!(end.unwrap_err().kind(), ErrorKind::NoSpace);
    }
}
