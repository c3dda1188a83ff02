//! Values of any type, and the rows that are made of them.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::civil::DateTime;
use rusqlite::types::ValueRef;

use super::layout::{Layout, Shape};
use crate::import::{ParsedRow, Zone};
use crate::limits::LINE_BYTES_MAX;
use crate::row::TaskMetric;
use crate::time::Timestamp;

/// Most fields of a layout.
pub(super) const VALUES_MAX: usize = 7;
/// Fields that every layout begins with.
const TIMESTAMP: usize = 0;

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    /// Bytes that are no text, and how many.
    Bytes(usize),
}

impl<'a> Value<'a> {
    pub(super) fn of(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(Cow::Borrowed(text)),
                Err(_) => Self::Bytes(bytes.len()),
            },
            ValueRef::Blob(bytes) => Self::Bytes(bytes.len()),
        }
    }

    /// As a message shows it, cut where it is long.
    pub(super) fn shown(&self) -> String {
        const CHARS: usize = 40;
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Text(text) => {
                let start: String = text.chars().take(CHARS).collect();
                let dots = if start.len() < text.len() { "..." } else { "" };
                format!("{start:?}{dots}")
            }
            Self::Bytes(count) => format!("{count} bytes"),
        }
    }

    fn is_not(&self, field: &str, expected: &str) -> String {
        format!("{field}: {} is not {expected}", self.shown())
    }
}

/// Makes rows; its buffers are used again for the next one.
#[derive(Debug)]
pub(super) struct Maker {
    zone: Option<Zone>,
    metadata: String,
}

impl Maker {
    pub(super) fn new(zone: Option<Zone>) -> Self {
        Self { zone, metadata: String::new() }
    }

    /// The row of these values, which are those of the layout's fields.
    pub(super) fn row<'a>(
        &'a mut self,
        layout: &Layout,
        values: &'a [Value<'_>; VALUES_MAX],
    ) -> Result<ParsedRow<'a>, String> {
        let timestamp = self.time(&values[TIMESTAMP])?;
        let fields = layout.fields();
        match layout.shape {
            Shape::Task | Shape::TaskResult => {
                let [_, task, agent, duration, tokens, outcome, extra] = values;
                let (success, metadata) = if layout.shape == Shape::Task {
                    (flag("success", outcome)?, json("metadata", extra)?)
                } else {
                    let result = text("result", outcome)?;
                    (result == "success", Some(self.ended(result, extra)?))
                };
                ParsedRow::Task(TaskMetric {
                    timestamp,
                    task_id: text("task_id", task)?,
                    agent_id: text("agent_id", agent)?,
                    duration_ms: whole("duration_ms", duration)?,
                    tokens_used: whole("tokens_used", tokens)?,
                    success,
                    metadata,
                })
            }
            Shape::Agent | Shape::Swarm => {
                let [_, owner, metric_type, value, metadata, ..] = values;
                ParsedRow::gauge(
                    layout.table(),
                    timestamp,
                    text(fields.get(1).copied().unwrap_or_default(), owner)?,
                    text("metric_type", metric_type)?,
                    real("value", value)?,
                    json("metadata", metadata)?,
                )
            }
        }
        .checked()
    }

    /// How a task of the older schema ended, as its metadata.
    fn ended(&mut self, result: &str, files_changed: &Value<'_>) -> Result<&str, String> {
        let files = whole("files_changed", files_changed)?;
        self.metadata.clear();
        let quoted = serde_json::to_string(result).map_err(|error| error.to_string())?;
        let written = match files {
            Some(files) => {
                write!(self.metadata, "{{\"result\":{quoted},\"files_changed\":{files}}}")
            }
            None => write!(self.metadata, "{{\"result\":{quoted}}}"),
        };
        written.map_err(|error| error.to_string())?;
        Ok(&self.metadata)
    }

    fn time(&mut self, value: &Value<'_>) -> Result<Timestamp, String> {
        let stamp = match value {
            Value::Integer(seconds) => Timestamp::from_seconds(*seconds),
            Value::Real(seconds) => {
                let micros = rounded(seconds * 1e6);
                let micros = micros.ok_or_else(|| value.is_not("timestamp", EXPECTED_TIME))?;
                Timestamp::from_micros(micros)
            }
            Value::Text(text) => self.text_time(text).unwrap_or_else(|| Timestamp::parse(text)),
            Value::Null | Value::Bytes(_) => {
                return Err(value.is_not("timestamp", EXPECTED_TIME));
            }
        };
        stamp.map_err(|_| value.is_not("timestamp", EXPECTED_TIME))
    }

    /// A time without an offset; `None` for any other text.
    fn text_time(&mut self, text: &str) -> Option<crate::error::Result<Timestamp>> {
        let separator = *text.as_bytes().get(10)?;
        let has_offset = text.get(11..)?.contains(['+', '-', 'Z', 'z']);
        if has_offset || !matches!(separator, b'T' | b' ') {
            return None;
        }
        let civil: DateTime = text.parse().ok()?;
        if separator == b' ' {
            return Some(Timestamp::from_micros(Timestamp::of_civil(civil)));
        }
        Some(self.zone.get_or_insert_with(Zone::local).at(civil))
    }
}

const EXPECTED_TIME: &str = "a time, expected seconds since 1970 or text as 2026-11-23T10:00:00";

/// The nearest whole number; of two the one farther from 0.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn rounded(value: f64) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    let value = value.round();
    (-END..END).contains(&value).then_some(value as i64)
}

fn whole(field: &str, value: &Value<'_>) -> Result<Option<i64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Integer(value) => Ok(Some(*value)),
        Value::Real(real) => {
            let number = rounded(*real);
            number.map(Some).ok_or_else(|| value.is_not(field, "a whole number of 64 bits"))
        }
        Value::Text(_) | Value::Bytes(_) => {
            Err(value.is_not(field, "a number, expected one or NULL"))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a column of reals holds no more")]
fn real(field: &str, value: &Value<'_>) -> Result<f64, String> {
    match value {
        Value::Integer(value) => Ok(*value as f64),
        Value::Real(value) => Ok(*value),
        _ => Err(value.is_not(field, "a number, expected one")),
    }
}

fn flag(field: &str, value: &Value<'_>) -> Result<bool, String> {
    match value {
        Value::Integer(value) => Ok(*value != 0),
        Value::Real(value) => Ok(*value != 0.0),
        _ => Err(value.is_not(field, "a flag, expected 0 or 1")),
    }
}

fn text<'a>(field: &str, value: &'a Value<'_>) -> Result<&'a str, String> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(value.is_not(field, "text, expected UTF-8 text")),
    }
}

fn json<'a>(field: &str, value: &'a Value<'_>) -> Result<Option<&'a str>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) if text.is_empty() => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        _ => Err(value.is_not(field, "JSON text, expected it or NULL")),
    }
}

/// The values as one line of JSON, for the list of what was left out.
pub(super) fn shown(layout: &Layout, values: &[Value<'_>; VALUES_MAX]) -> Vec<u8> {
    let mut row = serde_json::Map::new();
    for (field, value) in layout.fields().iter().zip(values) {
        let value = match value {
            Value::Null => serde_json::Value::Null,
            Value::Integer(value) => (*value).into(),
            Value::Real(value) => (*value).into(),
            Value::Text(text) => beginning(text).into(),
            Value::Bytes(_) => value.shown().into(),
        };
        row.insert((*field).to_owned(), value);
    }
    let mut line = serde_json::Value::Object(row).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// A text, cut where it is longer than a line may be.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(LINE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reals_become_the_nearest_whole_number() {
        for (real, expected) in [
            (1.0, Some(1)),
            (2.4, Some(2)),
            (2.5, Some(3)),
            (-2.5, Some(-3)),
            (9.3e18, None),
            (-9_223_372_036_854_775_808.0, Some(i64::MIN)),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            let found = whole("x", &Value::Real(real));
            assert_eq!(found.ok().flatten(), expected, "{real}");
        }
        assert_eq!(whole("x", &Value::Null), Ok(None));
        assert!(whole("x", &Value::Text("1".into())).unwrap_err().contains("x: \"1\" is not"));
    }

    #[test]
    fn times_of_every_form() {
        let mut maker = Maker::new(Some(Zone::parse("+02:00").unwrap()));
        let mut read = |value: Value<'_>| maker.time(&value).map(|stamp| stamp.to_string());
        let text = |text: &'static str| Value::Text(text.into());
        let cases = [
            (Value::Integer(1_760_894_945), "2025-10-19T17:29:05Z"),
            (Value::Integer(-1), "1969-12-31T23:59:59Z"),
            (Value::Real(0.25), "1970-01-01T00:00:00.250Z"),
            (text("2026-11-23T17:32:32.380770"), "2026-11-23T15:32:32.380770Z"),
            (text("2026-11-23T17:32:32"), "2026-11-23T15:32:32Z"),
            (text("2026-11-23 17:32:32"), "2026-11-23T17:32:32Z"),
            (text("2026-11-23T17:32:32+01:00"), "2026-11-23T16:32:32Z"),
            (text("2026-11-23T17:32:32Z"), "2026-11-23T17:32:32Z"),
            (text("2026-11-23"), "2026-11-23T00:00:00Z"),
        ];
        for (value, expected) in cases {
            assert_eq!(read(value.clone()).as_deref(), Ok(expected), "{value:?}");
        }
        for value in [
            Value::Null,
            Value::Bytes(3),
            Value::Integer(i64::MAX),
            Value::Real(f64::NAN),
            text("yesterday"),
            text("2026-13-01T00:00:00"),
            text("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}T"),
        ] {
            let message = read(value.clone()).unwrap_err();
            assert!(message.contains("expected seconds since 1970"), "{value:?}: {message}");
        }
    }
}
