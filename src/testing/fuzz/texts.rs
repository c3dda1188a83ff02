//! Texts that people write: times, lengths, intervals, zones, names, cursors, and the queries and
//! rules of alerts.
//!
//! Owns what must hold of each: what is read and written again is the same, two ways to write
//! one moment are one moment, and what is not understood is an error that says so.

use super::{START, sample};
use crate::alert::{Query, Rule};
use crate::config::ReadMode;
use crate::import::{FieldMap, TimeFormat, Zone};
use crate::query::filter::{Cursor, Filter, TopBy};
use crate::schema::Table;
use crate::snapshot::Snapshot;
use crate::time::{Interval, Partition, Timestamp, format_length, parse_length};

/// Reads the input as each kind of text.
///
/// # Panics
///
/// When what was read is not what was written.
pub fn texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.trim_start().starts_with('{') {
        return queries(text);
    }
    times(text);
    names(text);
    if let Some((format, text)) = text.split_once('\n') {
        stamps(format, text);
    }
}

fn times(text: &str) {
    let stamp = Timestamp::parse(text);
    if let Ok(stamp) = &stamp {
        assert_eq!(Timestamp::parse(&stamp.to_string()).expect("what was written"), *stamp);
        let day = stamp.partition();
        assert_eq!(Partition::parse_directory_name(&day.to_string()), Some(day));
    }
    // The same moment by the long way.
    if let Some(civil) = text.strip_suffix('Z') {
        let other = Timestamp::parse(&format!("{civil}+00:00"));
        assert_eq!(stamp.is_ok(), other.is_ok(), "{text}: {stamp:?}, {other:?}");
        assert_eq!(stamp.ok(), other.ok(), "{text}");
    }
    if let Some(day) = Partition::parse_directory_name(text) {
        assert_eq!(day.directory_name(), text);
    }
    if let Some(length) = parse_length(text) {
        assert_eq!(parse_length(&format_length(length)), Some(length));
    }
    let Ok(interval) = Interval::parse(text) else { return };
    for micros in [Timestamp::MIN.as_micros(), -1, 0, START, Timestamp::MAX.as_micros()] {
        let start = interval.bucket_start(micros);
        assert!(start <= micros && micros < interval.next_bucket(start), "{text}: {micros}");
        assert_eq!(interval.bucket_start(start), start, "{text}: {micros}");
    }
}

fn names(text: &str) {
    if let Ok(table) = Table::parse(text) {
        assert_eq!(Table::parse(table.name()).expect("its own name"), table);
    }
    let _ = (TopBy::parse(text), FieldMap::parse(text), FieldMap::new().constant(text));
    let from = Filter::new().cursor(Cursor::from_text(text));
    let _ = snapshot().metrics(Table::Task, &from);
}

/// A time as a format and a zone say: `%Y-%m-%d`, `seconds`, `Europe/Berlin`.
fn stamps(format: &str, text: &str) {
    let zone = Zone::parse(text.lines().next_back().unwrap_or_default());
    let Ok(format) = TimeFormat::parse(format) else { return };
    let _ = format.read(text);
    if let Ok(zone) = zone {
        let _ = format.read_in(text.lines().next().unwrap_or_default(), &zone);
    }
}

fn queries(text: &str) {
    let now = Timestamp::clamped(START + 3_600_000_000);
    let ask = |query: &Query| {
        assert!(!query.describe().is_empty());
        let _ = query.read(snapshot(), now, 1);
    };
    if let Ok(query) = serde_json::from_str::<Query>(text) {
        ask(&query);
    }
    if let Ok(rule) = serde_json::from_str::<Rule>(text) {
        ask(&rule.query);
        rule.of.iter().for_each(ask);
    }
}

fn snapshot() -> &'static Snapshot {
    static SNAPSHOT: std::sync::OnceLock<Snapshot> = std::sync::OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let store = super::read(&sample().fs, ReadMode::Copied);
        store.snapshot().expect("a snapshot can be taken")
    })
}
