//! Rows from elsewhere: CSV, JSON lines, JSON documents and expositions of metrics over any
//! `io::Read`, and SQLite files by their path.
//!
//! Owns reading lines, naming fields, and turning text and values into checked rows. A text may
//! be compressed with gzip, which its first bytes tell. It knows no store: the caller opens the
//! source and takes the rows, most likely into an [`Import`](crate::Import), which keeps
//! nothing unless it is committed.
//!
//! Memory is constant: one line or row, and no allocation per row once the buffers have
//! grown. Every row is judged by itself; a bad one says `file:line: what, expected what`,
//! or in a database `file: table row 7: what, expected what`.
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
mod gzip;
mod json;
mod jsonl;
mod lines;
mod prometheus;
mod scan;
mod source;
mod sqlite;

use std::borrow::Cow;
use std::fmt;
use std::io;

pub use self::csv::CsvReader;
pub use self::fields::{FieldMap, TimeFormat, Zone};
pub use self::jsonl::JsonlReader;
pub use self::prometheus::{Exposition, PrometheusReader};
pub use self::source::{Fingerprint, Hashing, fingerprint_of};
pub use self::sqlite::{SqliteSource, is_sqlite};

use crate::error::{Error, ErrorKind, Result};
use crate::row::{AgentMetric, SwarmMetric, TaskMetric};
use crate::schema::Table;
use crate::time::Timestamp;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated, with a header line.
    Csv,
    /// One JSON object on each line.
    Jsonl,
    /// One JSON document, as the export writes it.
    Json,
    /// The text exposition of Prometheus, version 0.0.4.
    Prometheus,
    /// The text exposition of OpenMetrics, version 1.0.
    OpenMetrics,
}

impl Format {
    /// Tells the format by the end of a file's name: `.csv`, `.jsonl`, `.ndjson`, `.json`,
    /// `.prom`, `.om`, `.openmetrics`, each of them also before `.gz`.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (_, extension) = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?;
        match extension {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "prom" => Some(Self::Prometheus),
            "om" | "openmetrics" => Some(Self::OpenMetrics),
            _ => None,
        }
    }
}

/// How to read a source.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// What the source is called in messages, most often its path.
    pub name: String,
    /// The table that the rows are for; of a source with several tables, the one to read,
    /// or none for all of them.
    pub table: Option<Table>,
    /// Which column of the source holds which field.
    pub map: FieldMap,
    /// How times are written.
    pub time: TimeFormat,
    /// The zone of times that name none: UTC unless given, but in SQLite files the
    /// machine's own, since that is what wrote them.
    pub zone: Option<Zone>,
    /// The time of samples without one; the machine's clock unless given.
    pub now: Option<Timestamp>,
}

impl ReadOptions {
    /// Columns called as in the table, and times in RFC 3339.
    pub fn new(name: impl Into<String>, table: impl Into<Option<Table>>) -> Self {
        Self {
            name: name.into(),
            table: table.into(),
            map: FieldMap::new(),
            time: TimeFormat::Rfc3339,
            zone: None,
            now: None,
        }
    }

    /// The one table that a source without tables is for.
    fn one_table(&self) -> Result<Table> {
        self.table.ok_or_else(|| {
            Error::invalid(format!(
                "{}: has rows of one table, expected to be told which",
                self.name
            ))
        })
    }

    /// Whether rows of the table are wanted of a source with several.
    fn wants(&self, table: Table) -> bool {
        self.table.is_none_or(|wanted| wanted == table)
    }

    /// An error about a line of the source.
    fn error(&self, line: u64, message: impl fmt::Display) -> Error {
        Error::bad_input(format!("{}:{line}: {}", self.name, brief(&message.to_string())))
    }

    /// An error of reading the source; `InvalidData` is one of what it holds.
    fn io_error(&self, cause: io::Error) -> Error {
        match cause.kind() {
            io::ErrorKind::InvalidData => Error::bad_input(format!("{}: {cause}", self.name)),
            _ => Error::io("read", self.name.as_ref(), cause),
        }
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

impl<'a> ParsedRow<'a> {
    /// The row, if it keeps every rule of its table.
    fn checked(self) -> Result<Self, String> {
        let checked = match &self {
            Self::Task(row) => row.validate(),
            Self::Agent(row) => row.validate(),
            Self::Swarm(row) => row.validate(),
        };
        checked.map(|()| self).map_err(|error| error.message().to_owned())
    }

    /// A gauge of an agent or of a swarm.
    fn gauge(
        table: Table,
        timestamp: Timestamp,
        owner: &'a str,
        metric_type: &'a str,
        value: f64,
        metadata: Option<&'a str>,
    ) -> Self {
        if table == Table::Swarm {
            let swarm_id = owner;
            Self::Swarm(SwarmMetric { timestamp, swarm_id, metric_type, value, metadata })
        } else {
            let agent_id = owner;
            Self::Agent(AgentMetric { timestamp, agent_id, metric_type, value, metadata })
        }
    }
}

/// Where in a source something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a text: number of the line, from 1; the first one where there are several.
    Line(u64),
    /// In a database: the table and the number of the row.
    Row {
        /// The table, by the name that it has there.
        table: &'static str,
        /// The row, by its rowid.
        row: i64,
        /// Where the row holds many: which of them, from 1.
        entry: Option<u64>,
    },
}

/// A part of a source that should be a row and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it, and what was expected.
    pub message: String,
    /// Its bytes, with the line end; cut where it is too long. Of a database, its values.
    pub raw: Vec<u8>,
}

impl BadLine {
    /// A line of a text.
    fn of_line(line: u64, message: String, raw: &[u8]) -> Self {
        Self { place: Place::Line(line), message, raw: raw.to_vec() }
    }

    /// As an error that names the source and the place.
    pub fn to_error(&self, name: &str) -> Error {
        let message = brief(&self.message);
        Error::bad_input(match &self.place {
            Place::Line(line) => format!("{name}:{line}: {message}"),
            Place::Row { table, row, entry: None } => {
                format!("{name}: {table} row {row}: {message}")
            }
            Place::Row { table, row, entry: Some(entry) } => {
                format!("{name}: {table} row {row}, entry {entry}: {message}")
            }
        })
    }
}

/// A message, without its middle where a text of the source makes it long.
fn brief(message: &str) -> Cow<'_, str> {
    const BYTES: usize = 400;
    if message.len() <= 3 * BYTES {
        return message.into();
    }
    let is_start = |at: &usize| message.is_char_boundary(*at);
    let (start, end) = ((BYTES..).find(is_start), (message.len() - BYTES..).find(is_start));
    let (start, end) = (start.unwrap_or(0), end.unwrap_or(message.len()));
    let (start, end) = (message.get(..start), message.get(end..));
    format!("{} ... {}", start.unwrap_or_default(), end.unwrap_or_default()).into()
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
/// `BadInput` where the source as a whole is unusable (empty, binary, its header, its gzip
/// stream);
/// `InvalidArgument` for options that do not fit the format; `Io`; and whatever the two
/// functions return.
pub fn read_rows(
    format: Format,
    input: impl io::Read,
    options: &ReadOptions,
    mut on_row: impl FnMut(&ParsedRow<'_>) -> Result<()>,
    mut on_bad: impl FnMut(&BadLine) -> Result<()>,
) -> Result<ReadCount> {
    let mut sink = Sink::new(options, &mut on_row, &mut on_bad);
    match format {
        Format::Csv => drain(&mut CsvReader::new(input, options)?, &mut sink)?,
        Format::Jsonl => drain(&mut JsonlReader::new(input, options)?, &mut sink)?,
        Format::Json => json::read(input, options, &mut sink)?,
        Format::Prometheus => {
            drain(&mut PrometheusReader::new(input, options, Exposition::Text)?, &mut sink)?;
        }
        Format::OpenMetrics => {
            drain(&mut PrometheusReader::new(input, options, Exposition::OpenMetrics)?, &mut sink)?;
        }
    }
    Ok(sink.count)
}

/// Where rows and bad lines go.
struct Sink<'a> {
    options: &'a ReadOptions,
    on_row: &'a mut dyn FnMut(&ParsedRow<'_>) -> Result<()>,
    on_bad: &'a mut dyn FnMut(&BadLine) -> Result<()>,
    count: ReadCount,
}

impl<'a> Sink<'a> {
    fn new(
        options: &'a ReadOptions,
        on_row: &'a mut dyn FnMut(&ParsedRow<'_>) -> Result<()>,
        on_bad: &'a mut dyn FnMut(&BadLine) -> Result<()>,
    ) -> Self {
        Self { options, on_row, on_bad, count: ReadCount::default() }
    }

    /// Passes a row on; the message where it is refused for what it is.
    fn offer(&mut self, row: &ParsedRow<'_>) -> Result<Option<String>> {
        match (self.on_row)(row) {
            Ok(()) => {
                self.count.rows += 1;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::BadInput => {
                Ok(Some(error.message().to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::PastRetention => {
                Err(error.with_path(self.options.name.as_ref()))
            }
            Err(error) => Err(error),
        }
    }

    fn bad(&mut self, bad: &BadLine) -> Result<()> {
        self.count.bad += 1;
        (self.on_bad)(bad)
    }
}

/// What the readers of lines have in common.
trait Rows {
    fn next_row(&mut self) -> Result<Option<Step<'_>>>;
    fn reject(&self, message: String) -> BadLine;
}

fn drain(reader: &mut impl Rows, sink: &mut Sink<'_>) -> Result<()> {
    while let Some(step) = reader.next_row()? {
        let refused = match step {
            Ok(row) => sink.offer(&row)?,
            Err(bad) => {
                sink.bad(&bad)?;
                continue;
            }
        };
        if let Some(message) = refused {
            sink.bad(&reader.reject(message))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        assert_eq!(Format::of_name("a/b.CSV"), Some(Format::Csv));
        assert_eq!(Format::of_name("b.ndjson"), Some(Format::Jsonl));
        assert_eq!(Format::of_name("b.jsonl"), Some(Format::Jsonl));
        assert_eq!(Format::of_name("b.json"), Some(Format::Json));
        assert_eq!(Format::of_name("b.prom"), Some(Format::Prometheus));
        assert_eq!(Format::of_name("b.om"), Some(Format::OpenMetrics));
        assert_eq!(Format::of_name("a.csv/b.JSONL.Gz"), Some(Format::Jsonl));
        for name in ["b.txt", "b.gz", "csv.gz", "b.csv.gz.gz", "csv"] {
            assert_eq!(Format::of_name(name), None, "{name}");
        }
    }

    /// Names of columns and keys are as long as a line may be, and messages show them.
    #[test]
    fn messages_are_short_whatever_the_source_has() {
        let long = "\u{e9}k".repeat(1 << 20);
        let open = "{\"agent_metrics\":[{";
        for (format, text) in [
            (Format::Csv, format!("{long}\n")),
            (Format::Csv, format!("timestamp,{long}\n")),
            (Format::Jsonl, format!("{{\"{long}\":1}}")),
            (Format::Jsonl, format!("{{\"timestamp\":\"{long}\"}}")),
            (Format::Json, format!("{open}\"{long}\":1}}]}}")),
            (Format::Prometheus, format!("{long} 1\n")),
            (Format::Prometheus, format!("m{{agent_id=\"a\"}} {long}\n")),
            (Format::Prometheus, format!("m{{agent_id=\"a\"}} 1 {long}\n")),
        ] {
            let options = ReadOptions::new("in", Table::Agent);
            let stop = |bad: &BadLine| Err(bad.to_error("in"));
            let end = read_rows(format, text.as_bytes(), &options, |_| Ok(()), stop);
            let message = end.unwrap_err().to_string();
            assert!(message.len() < 1_300 && message.starts_with("in:1: "), "{message}");
            assert!(message.contains("expected"), "{message}");
        }
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
