//! Archived rows: each a zlib stream (RFC 1950) of a JSON array of objects.
//!
//! A stream is read twice, so that of one that is damaged nothing is taken, without holding
//! all of it: first to its checksum, then for its rows.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::ZlibDecoder;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::layout::{ARCHIVE, Layout};
use super::values::{Maker, VALUES_MAX, Value};
use super::{Failure, each_row, files};
use crate::error::{Error, Result};
use crate::import::jsonl::{Object, unquoted};
use crate::import::scan::{Fault, Scanner};
use crate::import::{BadLine, Place, Sink};

/// Most bytes that one archive may have when it is decoded.
const DECODED_BYTES_MAX: u64 = 256 << 20;

/// Reads all archives, in the order in which they were made.
pub(super) fn read(
    connection: &Connection,
    maker: &mut Maker,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    let columns = "metric_table, aggregation_level, record_count, compressed_data";
    each_row(connection, columns, ARCHIVE, |number, row| {
        let Some(row) = row else {
            return Ok(sink.bad(&bad(number, None, files::too_long(), &[]))?);
        };
        let table = Value::of(row.get_ref(1)?);
        let level = Value::of(row.get_ref(2)?);
        let count = Value::of(row.get_ref(3)?);
        let archive = match (layout(&table, &level), row.get_ref(4)?) {
            (Ok(layout), _) if !sink.options.wants(layout.table()) => return Ok(()),
            (Ok(layout), ValueRef::Blob(data)) => Archive { number, layout, data },
            (Err(message), _) => return Ok(sink.bad(&bad(number, None, message, &[]))?),
            (Ok(_), _) => {
                let message = "compressed_data: no bytes, expected a zlib stream".to_owned();
                return Ok(sink.bad(&bad(number, None, message, &[]))?);
            }
        };
        Ok(archive.read(&count, maker, sink)?)
    })
}

fn layout(table: &Value<'_>, level: &Value<'_>) -> Result<Layout, String> {
    if *level != Value::Text("detailed".into()) {
        return Err(format!("aggregation_level: {}, expected \"detailed\"", level.shown()));
    }
    let known = match table {
        Value::Text(name) => Layout::of_archived(name),
        _ => None,
    };
    known.ok_or_else(|| {
        format!(
            "metric_table: {}, expected task_metrics, agent_metrics or swarm_metrics",
            table.shown()
        )
    })
}

fn bad(row: i64, entry: Option<u64>, message: String, raw: &[u8]) -> BadLine {
    BadLine { place: Place::Row { table: ARCHIVE, row, entry }, message, raw: raw.to_vec() }
}

struct Archive<'a> {
    number: i64,
    layout: Layout,
    data: &'a [u8],
}

impl Archive<'_> {
    fn read(&self, count: &Value<'_>, maker: &mut Maker, sink: &mut Sink<'_>) -> Result<()> {
        if let Err(message) = check(self.data) {
            return sink.bad(&bad(self.number, None, message, &[]));
        }
        let mut entry = 0;
        let wrong = match self.entries(&mut entry, maker, sink) {
            Ok(()) if *count == Value::Integer(i64::try_from(entry).unwrap_or(i64::MAX)) => {
                return Ok(());
            }
            Ok(()) => format!("{entry} rows, expected {} as record_count says", count.shown()),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Fault(Fault::Syntax(message))) => format!("not a JSON array: {message}"),
            Err(Stop::Fault(Fault::Io(cause))) => format!("not a zlib stream: {cause}"),
        };
        sink.bad(&bad(self.number, None, wrong, &[]))
    }

    fn entries(&self, entry: &mut u64, maker: &mut Maker, sink: &mut Sink<'_>) -> Result<(), Stop> {
        let mut scanner = Scanner::new(ZlibDecoder::new(self.data));
        let mut raw = Vec::new();
        scanner.take(b'[')?;
        while scanner.advance(*entry == 0, b']')? {
            *entry += 1;
            raw.clear();
            let is_whole = scanner.capture(&mut raw)?;
            let refused = if is_whole {
                match values(&self.layout, &raw) {
                    Ok(values) => match maker.row(&self.layout, &values) {
                        Ok(row) => sink.offer(&row)?,
                        Err(message) => Some(message),
                    },
                    Err(message) => Some(message),
                }
            } else {
                Some(crate::import::lines::too_long())
            };
            if let Some(message) = refused {
                sink.bad(&bad(self.number, Some(*entry), message, &raw))?;
            }
        }
        Ok(scanner.finish()?)
    }
}

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

/// Decodes all of a stream, to be sure of it.
fn check(data: &[u8]) -> Result<(), String> {
    let mut decoder = ZlibDecoder::new(data);
    let mut buffer = [0; 16 << 10];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if decoder.total_out() <= DECODED_BYTES_MAX => {}
            Ok(_) => {
                return Err(format!(
                    "compressed_data: more than {DECODED_BYTES_MAX} bytes when decoded"
                ));
            }
            Err(cause) => {
                return Err(format!("compressed_data: not a whole zlib stream: {cause}"));
            }
        }
    }
    match data.len() as u64 - decoder.total_in() {
        0 => Ok(()),
        rest => Err(format!("compressed_data: {rest} bytes after the zlib stream, expected none")),
    }
}

/// The values of the layout's fields in a JSON object; other members are passed over.
fn values<'a>(layout: &Layout, raw: &'a [u8]) -> Result<[Value<'a>; VALUES_MAX], String> {
    let object = Object::of(std::str::from_utf8(raw).map_err(|error| error.to_string())?)?;
    let mut values = [const { Value::Null }; VALUES_MAX];
    for (name, json) in object.0 {
        let at = layout.fields().iter().position(|field| *field == name);
        if let Some(value) = at.and_then(|at| values.get_mut(at)) {
            *value = of_json(json.get())?;
        }
    }
    Ok(values)
}

fn of_json(json: &str) -> Result<Value<'_>, String> {
    Ok(match json.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Integer(1),
        Some(b'f') => Value::Integer(0),
        Some(b'"') => Value::Text(unquoted(json)?),
        Some(b'{' | b'[') => Value::Text(Cow::Borrowed(json)),
        _ => match json.parse() {
            Ok(whole) => Value::Integer(whole),
            Err(_) => Value::Real(json.parse().map_err(|_| format!("{json} is not a number"))?),
        },
    })
}
