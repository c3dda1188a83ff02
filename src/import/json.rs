//! Rows from one JSON document, as the export writes it, of any size.
//!
//! | shape | where rows are |
//! |---|---|
//! | flat | lists called `task_metrics`, `agent_metrics`, `swarm_metrics` |
//! | nested | `swarms`, each with `metrics` and `agents`; `ungrouped` with `agents` |
//! | | each agent with `tasks` and `metrics` |
//!
//! Every row is a whole object, as of JSON lines. Other members are passed over, but
//! `record_counts`, where it comes last, has to agree with what was found.

use std::io::Read;

use super::draft::Draft;
use super::gzip::Unpacked;
use super::jsonl::fill;
use super::lines::too_long;
use super::scan::{Fault, Scanner};
use super::{BadLine, ReadOptions, Sink};
use crate::error::{Error, Result};
use crate::schema::Table;

/// Members that rows of earlier stores have beside their fields.
const EXTRA: &[&str] = &["id", "timestamp_dt"];

/// Reads a document.
pub(super) fn read(input: impl Read, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    if options.map != Default::default() {
        return Err(Error::invalid("map: the members of a JSON document have known names"));
    }
    let mut document = Document {
        scanner: Scanner::new(Unpacked::new(input).map_err(|cause| options.io_error(cause))?),
        drafts: [
            Draft::new(Table::Task, options)?,
            Draft::new(Table::Agent, options)?,
            Draft::new(Table::Swarm, options)?,
        ],
        found: [0; 3],
        counted: None,
        has_rows: false,
        raw: Vec::new(),
        sink,
    };
    let outcome = document.read();
    let line = document.scanner.line();
    outcome.map_err(|stop| match stop {
        Stop::Fault(Fault::Io(cause)) => options.io_error(cause),
        Stop::Fault(Fault::Syntax(message)) => options.error(line, message),
        Stop::Error(error) => error,
    })
}

/// Why reading ended.
enum Stop {
    Fault(Fault),
    Error(Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Which object is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Top,
    Swarm,
    Ungrouped,
    Agent,
}

/// What a member of an object holds.
enum Member {
    Rows(Table),
    Objects(Level),
    Object(Level),
    Counts,
    Other,
}

impl Level {
    fn member(self, key: &str) -> Member {
        match (self, key) {
            (Self::Top, "task_metrics") | (Self::Agent, "tasks") => Member::Rows(Table::Task),
            (Self::Top, "agent_metrics") | (Self::Agent, "metrics") => Member::Rows(Table::Agent),
            (Self::Top, "swarm_metrics") | (Self::Swarm, "metrics") => Member::Rows(Table::Swarm),
            (Self::Top, "swarms") => Member::Objects(Self::Swarm),
            (Self::Swarm | Self::Ungrouped, "agents") => Member::Objects(Self::Agent),
            (Self::Top, "ungrouped") => Member::Object(Self::Ungrouped),
            (Self::Top, "record_counts") => Member::Counts,
            _ => Member::Other,
        }
    }
}

struct Document<'a, 'b, R> {
    scanner: Scanner<R>,
    /// A row in the making for each table.
    drafts: [Draft; 3],
    /// Rows of each table.
    found: [u64; 3],
    /// What the document says how many there are.
    counted: Option<[u64; 3]>,
    has_rows: bool,
    raw: Vec<u8>,
    sink: &'a mut Sink<'b>,
}

impl<R: Read> Document<'_, '_, R> {
    fn read(&mut self) -> Result<(), Stop> {
        if self.scanner.peek()?.is_none() {
            return syntax("empty file, expected a JSON document");
        }
        self.object(Level::Top)?;
        self.scanner.finish()?;
        if !self.has_rows {
            return syntax(
                "a document without rows, expected task_metrics, agent_metrics, swarm_metrics, \
                 swarms or ungrouped",
            );
        }
        for (table, (found, counted)) in Table::ALL
            .into_iter()
            .zip(self.found.into_iter().zip(self.counted.unwrap_or(self.found)))
        {
            if found != counted {
                return syntax(format!(
                    "{found} rows of {table}, expected {counted} as record_counts says"
                ));
            }
        }
        Ok(())
    }

    fn object(&mut self, level: Level) -> Result<(), Stop> {
        self.scanner.take(b'{')?;
        let mut first = true;
        while self.scanner.advance(first, b'}')? {
            first = false;
            let key = self.scanner.key(&mut self.raw)?;
            match level.member(&key) {
                Member::Rows(table) => self.rows(table)?,
                Member::Object(inner) => self.object(inner)?,
                Member::Objects(inner) => {
                    self.scanner.take(b'[')?;
                    let mut first = true;
                    while self.scanner.advance(std::mem::take(&mut first), b']')? {
                        self.object(inner)?;
                    }
                    self.has_rows = true;
                }
                Member::Counts => self.counts()?,
                Member::Other => {
                    self.raw.clear();
                    self.scanner.capture(&mut self.raw)?;
                }
            }
        }
        self.has_rows |= level == Level::Ungrouped;
        Ok(())
    }

    fn rows(&mut self, table: Table) -> Result<(), Stop> {
        self.has_rows = true;
        self.scanner.take(b'[')?;
        let mut first = true;
        while self.scanner.advance(std::mem::take(&mut first), b']')? {
            let line = self.scanner.line();
            self.raw.clear();
            let is_whole = self.scanner.capture(&mut self.raw)?;
            self.found[table.index()] += 1;
            if self.sink.options.wants(table)
                && let Some(message) = self.row(table, is_whole)?
            {
                self.raw.push(b'\n');
                self.sink.bad(&BadLine::of_line(line, message, &self.raw))?;
            }
        }
        Ok(())
    }

    /// Passes on the row that was captured; the message where it is none.
    fn row(&mut self, table: Table, is_whole: bool) -> Result<Option<String>, Stop> {
        if !is_whole {
            return Ok(Some(too_long()));
        }
        let text = match std::str::from_utf8(&self.raw) {
            Ok(text) => text,
            Err(error) => return Ok(Some(format!("invalid UTF-8, expected UTF-8 text: {error}"))),
        };
        let draft = &mut self.drafts[table.index()];
        match fill(draft, text, &self.sink.options.map, EXTRA) {
            Ok(row) => Ok(self.sink.offer(&row)?),
            Err(message) => Ok(Some(message)),
        }
    }

    fn counts(&mut self) -> Result<(), Stop> {
        self.raw.clear();
        self.scanner.capture(&mut self.raw)?;
        let counts = serde_json::from_slice::<serde_json::Value>(&self.raw).unwrap_or_default();
        let of = |table: Table| counts.get(table.name()).and_then(serde_json::Value::as_u64);
        let [task, agent, swarm] = Table::ALL.map(of);
        let (Some(task), Some(agent), Some(swarm)) = (task, agent, swarm) else {
            return syntax("record_counts: expected a number for each table");
        };
        self.counted = Some([task, agent, swarm]);
        Ok(())
    }
}

fn syntax<T>(message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Fault(Fault::Syntax(message.into())))
}

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::import::{Format, ReadOptions, TimeFormat, read_rows};
    use crate::schema::Table;
    use proptest::prelude::*;

    const TASK: &str = r#"{"task_id":"t","agent_id":"a","timestamp":"2026-01-01T00:00:00Z","duration_ms":5,"tokens_used":null,"success":true,"metadata":{"k": [1]}}"#;
    const AGENT: &str = r#"{"agent_id":"a","timestamp":"2026-01-01T00:00:00Z","metric_type":"m","value":0.5,"metadata":null}"#;
    const SWARM: &str = r#"{"swarm_id":"s","timestamp":"2026-01-01T00:00:00Z","metric_type":"m","value":0.5,"metadata":null}"#;

    /// Names of the tables of the rows, and what is bad.
    fn read_with(text: &[u8], options: &ReadOptions) -> Result<(String, Vec<String>)> {
        let mut rows = String::new();
        let mut bad = Vec::new();
        read_rows(
            Format::Json,
            text,
            options,
            |row| {
                rows.extend(format!("{row:?}").chars().next());
                Ok(())
            },
            |line| {
                bad.push(line.to_error("in.json").message().to_owned());
                Ok(())
            },
        )?;
        Ok((rows, bad))
    }

    fn read(text: &str) -> Result<(String, Vec<String>)> {
        read_with(text.as_bytes(), &ReadOptions::new("in.json", None))
    }

    fn nested() -> String {
        format!(
            r#"{{"export_info":{{"format":"json"}},"summary":null,"swarms":[
  {{"swarm_id":"s","metrics":[{SWARM},{SWARM}],"agents":[
    {{"agent_id":"a","tasks":[{TASK}],"metrics":[]}}]}},{{"swarm_id":"empty"}}],
  "ungrouped":{{"agents":[{{"agent_id":"b","metrics":[{AGENT}]}}]}},
  "record_counts":{{"task_metrics":1,"agent_metrics":1,"swarm_metrics":2}}}}"#
        )
    }

    fn flat() -> String {
        format!(
            r#"{{"export_info":{{}},"task_metrics":[
{TASK},
{TASK}
],"agent_metrics":[{AGENT}],"swarm_metrics":[]}}"#
        )
    }

    #[test]
    fn both_shapes() {
        assert_eq!(read(&nested()).unwrap(), ("SSTA".to_owned(), vec![]));
        assert_eq!(read(&flat()).unwrap(), ("TTA".to_owned(), vec![]));
        let one = read_with(nested().as_bytes(), &ReadOptions::new("in.json", Table::Agent));
        assert_eq!(one.unwrap().0, "A");
        assert_eq!(read("{\"task_metrics\":[]}").unwrap().0, "");
        assert_eq!(read("\u{feff}{\"ungrouped\":{}}").unwrap().0, "");
    }

    #[test]
    fn documents_of_earlier_stores() {
        let text = r#"{"export_info": {"format": "json", "record_counts": {"task_metrics": 7}},
            "task_metrics": [{"id": 1, "task_id": "t", "agent_id": "a", "timestamp": 1760894945,
            "duration_ms": 5, "tokens_used": 1, "success": 1, "metadata": {},
            "timestamp_dt": "2025-10-19 19:29:05"}], "summary": {}}"#;
        let mut options = ReadOptions::new("in.json", None);
        options.time = TimeFormat::Seconds;
        assert_eq!(read_with(text.as_bytes(), &options).unwrap(), ("T".to_owned(), vec![]));
    }

    #[test]
    fn bad_rows_cost_themselves_alone() {
        let text = flat().replacen("\"t\"", "7", 1);
        let (rows, bad) = read(&text).unwrap();
        assert_eq!((rows.as_str(), bad.len()), ("TA", 1));
        assert!(bad[0].starts_with("in.json:2: task_id: 7 is not text"), "{bad:?}");
        let long = flat().replacen("[1]", &format!("\"{}\"", "x".repeat(4 << 20)), 1);
        let (rows, bad) = read(&long).unwrap();
        assert_eq!(rows, "TA");
        assert!(bad[0].starts_with("in.json:2: a line of more than"), "{bad:?}");
        let odd = flat().replacen(TASK, "17", 1).replacen(AGENT, "{\"agent_id\":}", 1);
        let (rows, bad) = read(&odd).unwrap();
        assert_eq!((rows.as_str(), bad.len()), ("T", 2));
        assert!(bad.iter().all(|bad| bad.contains("not a JSON object")), "{bad:?}");
    }

    #[test]
    fn documents_that_are_none() {
        let nested = nested();
        let cut = &nested[..nested.len() - 1];
        for (text, expected) in [
            ("", "in.json:1: empty file, expected a JSON document"),
            (" \n", "in.json:2: empty file"),
            ("[]", "in.json:1: found '[', expected '{'"),
            ("{}", "in.json:1: a document without rows, expected task_metrics"),
            ("{\"a\":1}", "a document without rows"),
            ("{\"task_metrics\":{}}", "found '{', expected '['"),
            ("{\"task_metrics\":[1", "the text ends, expected ',' or ']'"),
            ("{\"task_metrics\":[]}{}", "found '{' after the end"),
            ("{\"ungrouped\":[]}", "found '[', expected '{'"),
            ("{\"task_metrics\":[],\"record_counts\":5}", "record_counts: expected a number"),
            ("{task_metrics:[]}", "found 't', expected a key"),
            ("{\"\\q\":[]}", "a key that is no text"),
            ("\x7fELF", "expected '{'"),
            (cut, "in.json:5: the text ends"),
            (
                &nested.replace("\"swarm_metrics\":2", "\"swarm_metrics\":3"),
                "in.json:5: 2 rows of swarm_metrics, expected 3 as record_counts says",
            ),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_read_without_a_panic(at in 0..600_usize, byte in any::<u8>()) {
            let mut text = nested().into_bytes();
            let at = at % text.len();
            text[at] = byte;
            let _ = read_with(&text, &ReadOptions::new("in.json", None));
            let _ = read_with(&text[..at], &ReadOptions::new("in.json", None));
        }
    }
}
