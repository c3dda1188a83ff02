//! The typed rows that users pass in and get back.
//!
//! Owns the borrowed forms that are recorded (`TaskMetric`, `AgentMetric`, `SwarmMetric`),
//! the owned forms that are returned (`TaskRow`, `AgentRow`, `SwarmRow`), and the rules a
//! row must keep, checked once, at the door.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::limits::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, TEXT_BYTES_MAX};
use crate::time::Timestamp;

/// A finished task, to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskMetric<'a> {
    /// When the task finished.
    pub timestamp: Timestamp,
    /// Which task; 1 byte to 64 KiB.
    pub task_id: &'a str,
    /// Which agent ran it; 1 byte to 64 KiB.
    pub agent_id: &'a str,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i64>,
    /// Tokens it used.
    pub tokens_used: Option<i64>,
    /// Whether it succeeded.
    pub success: bool,
    /// JSON text, at most 1 MiB; kept verbatim.
    pub metadata: Option<&'a str>,
}

/// A gauge of an agent, to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgentMetric<'a> {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Which agent; 1 byte to 64 KiB.
    pub agent_id: &'a str,
    /// What was measured; 1 byte to 64 KiB.
    pub metric_type: &'a str,
    /// The measurement; finite.
    pub value: f64,
    /// JSON text, at most 1 MiB; kept verbatim.
    pub metadata: Option<&'a str>,
}

/// A gauge of a swarm, to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwarmMetric<'a> {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Which swarm; 1 byte to 64 KiB.
    pub swarm_id: &'a str,
    /// What was measured; 1 byte to 64 KiB.
    pub metric_type: &'a str,
    /// The measurement; finite.
    pub value: f64,
    /// JSON text, at most 1 MiB; kept verbatim.
    pub metadata: Option<&'a str>,
}

/// A row of `task_metrics`, as returned.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    /// When the task finished.
    pub timestamp: Timestamp,
    /// Which task.
    pub task_id: String,
    /// Which agent ran it.
    pub agent_id: String,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i64>,
    /// Tokens it used.
    pub tokens_used: Option<i64>,
    /// Whether it succeeded.
    pub success: bool,
    /// JSON text, as recorded.
    pub metadata: Option<String>,
}

/// A row of `agent_metrics`, as returned.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRow {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Which agent.
    pub agent_id: String,
    /// What was measured.
    pub metric_type: String,
    /// The measurement.
    pub value: f64,
    /// JSON text, as recorded.
    pub metadata: Option<String>,
}

/// A row of `swarm_metrics`, as returned.
#[derive(Clone, Debug, PartialEq)]
pub struct SwarmRow {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Which swarm.
    pub swarm_id: String,
    /// What was measured.
    pub metric_type: String,
    /// The measurement.
    pub value: f64,
    /// JSON text, as recorded.
    pub metadata: Option<String>,
}

/// A row of any table, as `Snapshot::metrics` returns them.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// Of `task_metrics`.
    Task(TaskRow),
    /// Of `agent_metrics`.
    Agent(AgentRow),
    /// Of `swarm_metrics`.
    Swarm(SwarmRow),
}

impl Row {
    /// When it was measured.
    pub fn timestamp(&self) -> Timestamp {
        match self {
            Self::Task(row) => row.timestamp,
            Self::Agent(row) => row.timestamp,
            Self::Swarm(row) => row.timestamp,
        }
    }
}

impl TaskMetric<'_> {
    /// Checks the rules of a row.
    ///
    /// # Errors
    ///
    /// `BadInput` naming the field, the value and the rule.
    pub fn validate(&self) -> Result<()> {
        check_text("task_id", self.task_id)?;
        check_text("agent_id", self.agent_id)?;
        check_metadata(self.metadata)
    }
}

impl AgentMetric<'_> {
    /// Checks the rules of a row.
    ///
    /// # Errors
    ///
    /// `BadInput` naming the field, the value and the rule.
    pub fn validate(&self) -> Result<()> {
        check_text("agent_id", self.agent_id)?;
        check_text("metric_type", self.metric_type)?;
        check_value(self.value)?;
        check_metadata(self.metadata)
    }
}

impl SwarmMetric<'_> {
    /// Checks the rules of a row.
    ///
    /// # Errors
    ///
    /// `BadInput` naming the field, the value and the rule.
    pub fn validate(&self) -> Result<()> {
        check_text("swarm_id", self.swarm_id)?;
        check_text("metric_type", self.metric_type)?;
        check_value(self.value)?;
        check_metadata(self.metadata)
    }
}

/// A text of a dimension: 1 byte to [`TEXT_BYTES_MAX`].
pub(crate) fn check_text(field: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::bad_input(format!(
            "{field}: \"\" is empty, expected at least one character"
        )));
    }
    if text.len() > TEXT_BYTES_MAX {
        let start: String = text.chars().take(24).collect();
        return Err(Error::bad_input(format!(
            "{field}: {start:?}... has {} bytes, expected at most {TEXT_BYTES_MAX}",
            text.len()
        )));
    }
    Ok(())
}

/// A measurement: finite.
pub(crate) fn check_value(value: f64) -> Result<()> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Error::bad_input(format!("value: {value} is not a finite number")))
    }
}

/// Metadata: JSON text of at most [`METADATA_BYTES_MAX`] bytes, or none.
pub(crate) fn check_metadata(metadata: Option<&str>) -> Result<()> {
    let Some(text) = metadata else { return Ok(()) };
    if text.len() > METADATA_BYTES_MAX {
        return Err(Error::bad_input(format!(
            "metadata: {} bytes of JSON, expected at most {METADATA_BYTES_MAX}",
            text.len()
        )));
    }
    if is_flat_object(text.as_bytes()) {
        return Ok(());
    }
    let wrong = |cause: &dyn fmt::Display| {
        let start: String = text.chars().take(40).collect();
        Error::bad_input(format!(
            "metadata: {start:?} is not JSON of at most {METADATA_DEPTH_MAX} levels: {cause}"
        ))
    };
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|cause| wrong(&cause))?;
    match depth(text) {
        0..=METADATA_DEPTH_MAX => Ok(()),
        depth => Err(wrong(&format_args!("it has {depth}"))),
    }
}

/// Whether the text is, beyond doubt, an object without objects, arrays, escapes, exponents
/// and blanks: what most metadata is. All else is the parser's to judge.
fn is_flat_object(json: &[u8]) -> bool {
    const { assert!(METADATA_DEPTH_MAX >= 1) };
    let Some((b'{', mut rest)) = json.split_first() else { return false };
    if rest == b"}" {
        return true;
    }
    loop {
        let Some((b':', value)) = after_text(rest).and_then(<[u8]>::split_first) else {
            return false;
        };
        rest = match after_scalar(value).and_then(<[u8]>::split_first) {
            Some((b',', rest)) => rest,
            end => return end == Some((&b'}', &[])),
        };
    }
}

/// What follows a plain text in quotes.
fn after_text(json: &[u8]) -> Option<&[u8]> {
    let (b'"', rest) = json.split_first()? else { return None };
    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    let (b'"', rest) = rest[end..].split_first()? else { return None };
    Some(rest)
}

/// What follows a text, a plain number, or a word.
fn after_scalar(json: &[u8]) -> Option<&[u8]> {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match json.first()? {
        b'"' => after_text(json),
        b't' => json.strip_prefix(b"true"),
        b'f' => json.strip_prefix(b"false"),
        b'n' => json.strip_prefix(b"null"),
        _ => {
            let json = json.strip_prefix(b"-").unwrap_or(json);
            let count = digits(json);
            if count == 0 || (count > 1 && json[0] == b'0') {
                return None;
            }
            let rest = &json[count..];
            let Some(fraction) = rest.strip_prefix(b".") else { return Some(rest) };
            let count = digits(fraction);
            (count > 0).then(|| &fraction[count..])
        }
    }
}

/// Levels of arrays and objects of JSON text. The parser counts none while it skips values.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Metadata as a JSON value: verbatim, `null` where there is none.
#[derive(Debug)]
pub(crate) struct Metadata<'a>(pub(crate) Option<&'a str>);

impl Serialize for Metadata<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.map(serde_json::from_str::<&serde_json::value::RawValue>) {
            Some(Ok(raw)) => raw.serialize(serializer),
            _ => serializer.serialize_none(),
        }
    }
}

macro_rules! serialize_fields {
    ($type:ty { $($field:ident),+ }) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;
                let count = [$(stringify!($field)),+].len() + 1;
                let mut fields = serializer.serialize_struct(stringify!($type), count)?;
                $(fields.serialize_field(stringify!($field), &self.$field)?;)+
                fields.serialize_field("metadata", &Metadata(self.metadata.as_deref()))?;
                fields.end()
            }
        }
    };
}

serialize_fields!(TaskRow { task_id, agent_id, timestamp, duration_ms, tokens_used, success });
serialize_fields!(AgentRow { agent_id, timestamp, metric_type, value });
serialize_fields!(SwarmRow { swarm_id, timestamp, metric_type, value });

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Task(row) => row.serialize(serializer),
            Self::Agent(row) => row.serialize(serializer),
            Self::Swarm(row) => row.serialize(serializer),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn metadata_is_json_of_few_levels() {
        let arrays = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let objects = |levels: usize| "{\"a\":".repeat(levels) + "0" + &"}".repeat(levels);
        let good = |text: &str| check_metadata(Some(text)).unwrap();
        let bad = |text: &str| {
            assert_eq!(check_metadata(Some(text)).unwrap_err().kind(), ErrorKind::BadInput);
        };
        check_metadata(None).unwrap();
        for text in ["0", "null", "{}", "[[],[],{}]", " {\"a\": [1, {\"b\": \"\\\"[[\"}]} "] {
            good(text);
        }
        good(&arrays(METADATA_DEPTH_MAX));
        good(&objects(METADATA_DEPTH_MAX));
        good(&format!("[{}[]]", "[],".repeat(5_000)));
        // Brackets in text are no levels, however the text is escaped.
        good(&format!("{{\"a\": \"{}\"}}", "\\\"[{\\\\".repeat(500)));
        for text in ["", "{", "[1,]", "{a: 1}", "NaN", "1 2", "\"a"] {
            bad(text);
        }
        // The short cut for flat objects agrees with the parser wherever it says yes.
        let parts = [
            "",
            "{",
            "}",
            "{\"a\":",
            ",",
            "\"a\":",
            "1",
            "-0",
            "01",
            "-",
            "1.5",
            "1.",
            ".5",
            "1e5",
            "true",
            "nul",
            "null",
            "\"\"",
            "\"b\u{e9}\"",
            "\"\\n\"",
            "\"\n\"",
            "[]",
            " ",
            ":",
        ];
        let mut flat = 0;
        for number in 0..parts.len().pow(4) {
            let pick = |place: u32| parts[number / parts.len().pow(place) % parts.len()];
            let json = format!("{}{}{}{}", pick(0), pick(1), pick(2), pick(3));
            if is_flat_object(json.as_bytes()) {
                flat += 1;
                let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&json);
                assert!(parsed.is_ok() && depth(&json) == 1, "{json}");
            }
        }
        assert!(flat > 50, "{flat}");
        bad(&arrays(METADATA_DEPTH_MAX + 1));
        bad(&objects(METADATA_DEPTH_MAX + 1));
        bad(&arrays(5_000));
    }
}
