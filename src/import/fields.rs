//! Which column of a source is which field of a table, and how its times are written.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::error::{Error, Result};
use crate::schema::{Schema, Table};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// Which column of a source holds which field of the table.
///
/// Without an entry a field is looked for under its own name. With at least one entry,
/// columns that are no field are passed over; without any, they are an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldMap {
    columns: Vec<(String, String)>,
    constants: Vec<(String, String)>,
}

impl FieldMap {
    /// No entries: every column is called as its field.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `field=column,field=column`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the part that is not of this form.
    pub fn parse(text: &str) -> Result<Self> {
        let mut map = Self::new();
        for part in text.split(',') {
            let (field, column) = pair("map", part)?;
            map = map.column(field, column)?;
        }
        Ok(map)
    }

    /// Looks for `field` in `column` of the source.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the field has an entry already.
    pub fn column(mut self, field: &str, column: &str) -> Result<Self> {
        self.check_new(field)?;
        self.columns.push((field.to_owned(), column.to_owned()));
        Ok(self)
    }

    /// Reads `field=value` and gives `field` this value in every row.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is not of this form or the field has an entry already.
    pub fn constant(mut self, text: &str) -> Result<Self> {
        let (field, value) = pair("set", text)?;
        self.check_new(field)?;
        self.constants.push((field.to_owned(), value.to_owned()));
        Ok(self)
    }

    fn check_new(&self, field: &str) -> Result<()> {
        if self.names(field) {
            return Err(Error::invalid(format!("map {field:?}: named twice, expected once")));
        }
        Ok(())
    }

    /// Whether columns that are no field are passed over.
    pub(super) fn is_explicit(&self) -> bool {
        !self.columns.is_empty()
    }

    /// The fields with one value for all rows, by number.
    pub(super) fn constants(&self, table: Table) -> Result<Vec<(usize, &str)>> {
        let number = |field| field_number(table.schema(), field);
        self.constants.iter().map(|(field, value)| Ok((number(field)?, value.as_str()))).collect()
    }

    /// Checks that every entry names a field of the table.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the entry and the fields there are.
    pub fn check(&self, table: Table) -> Result<()> {
        self.columns
            .iter()
            .chain(&self.constants)
            .try_for_each(|(field, _)| field_number(table.schema(), field).map(|_| ()))
    }

    /// The field that the column called `name` holds, by number; `None` where it is no field.
    pub(super) fn field_of(&self, table: Table, name: &str) -> Option<usize> {
        if let Some((field, _)) = self.columns.iter().find(|(_, column)| column == name) {
            return table.schema().column(field);
        }
        let taken = self.columns.iter().chain(&self.constants).any(|(field, _)| field == name);
        if taken { None } else { table.schema().column(name) }
    }

    /// Whether a column that holds no field may be passed over.
    pub(super) fn may_skip(&self, name: &str) -> bool {
        self.is_explicit() || self.constants.iter().any(|(field, _)| field == name)
    }

    /// Whether the field has an entry.
    pub(super) fn names(&self, field: &str) -> bool {
        self.columns.iter().chain(&self.constants).any(|(name, _)| name == field)
    }

    /// The name under which the source holds a field.
    pub(super) fn column_of<'a>(&'a self, field: &'a str) -> &'a str {
        self.columns.iter().find(|(name, _)| name == field).map_or(field, |(_, column)| column)
    }
}

fn pair<'a>(option: &str, text: &'a str) -> Result<(&'a str, &'a str)> {
    text.split_once('=').filter(|(field, value)| !field.is_empty() && !value.is_empty()).ok_or_else(
        || {
            let form = if option == "set" { "field=value" } else { "field=column" };
            Error::invalid(format!("{option} {text:?}: expected {form}"))
        },
    )
}

fn field_number(schema: &Schema, field: &str) -> Result<usize> {
    schema.column(field).ok_or_else(|| {
        Error::invalid(format!(
            "map {field:?}: {} has no such field, expected {}",
            schema.name,
            field_names(schema)
        ))
    })
}

/// The fields of a table, for messages.
pub(super) fn field_names(schema: &Schema) -> String {
    let names: Vec<_> = schema.columns.iter().map(|column| column.name).collect();
    names.join(", ")
}

/// How the times of a source are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339, or a date.
    Rfc3339,
    /// Seconds since 1970, with or without decimals.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970; whole microseconds are kept.
    Nanos,
    /// A pattern in the manner of `strptime`; in the zone given where it has no offset.
    Pattern(String),
}

impl TimeFormat {
    /// Reads `rfc3339`, `s`, `ms`, `us`, `ns`, or a pattern such as `%Y-%m-%d %H:%M:%S%.f`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "rfc3339" => Self::Rfc3339,
            "s" => Self::Seconds,
            "ms" => Self::Millis,
            "us" => Self::Micros,
            "ns" => Self::Nanos,
            _ if text.contains('%') => Self::Pattern(text.to_owned()),
            _ => {
                return Err(Error::invalid(format!(
                    "time format {text:?}: expected rfc3339, s, ms, us, ns, \
                     or a pattern as %Y-%m-%d %H:%M:%S"
                )));
            }
        })
    }

    /// Whether times are plain numbers.
    pub(super) fn is_number(&self) -> bool {
        self.number_scale().is_some()
    }

    /// Reads a time; one of a pattern without an offset is UTC.
    ///
    /// # Errors
    ///
    /// `BadInput` naming the text and the form that was expected.
    pub fn read(&self, text: &str) -> Result<Timestamp> {
        self.read_in(text, &Zone::default())
    }

    /// Reads a time; one of a pattern without an offset is of `zone`.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_in(&self, text: &str, zone: &Zone) -> Result<Timestamp> {
        if let Some((name, times, divided)) = self.number_scale() {
            let micros = billionths(text)
                .map(|value| (value * times).div_euclid(1_000_000_000 * divided))
                .ok_or_else(|| {
                    Error::bad_input(format!(
                        "{text:?} is not a number, expected {name} since 1970"
                    ))
                })?;
            return i64::try_from(micros)
                .ok()
                .and_then(|m| Timestamp::from_micros(m).ok())
                .ok_or_else(|| {
                    Error::bad_input(format!(
                        "{text} is outside the years 0001 to 9999, expected {name} since 1970"
                    ))
                });
        }
        match self {
            Self::Pattern(pattern) => read_pattern(pattern, text, zone),
            _ => Timestamp::parse(text).map_err(|_| {
                Error::bad_input(format!(
                    "{text:?} is not a time, expected RFC 3339 as 2026-11-23T10:00:00Z, \
                     or another form named by the time format"
                ))
            }),
        }
    }

    /// Name of the unit, and the fraction that turns it into microseconds.
    fn number_scale(&self) -> Option<(&'static str, i128, i128)> {
        match self {
            Self::Seconds => Some(("seconds", i128::from(MICROS_PER_SECOND), 1)),
            Self::Millis => Some(("milliseconds", 1_000, 1)),
            Self::Micros => Some(("microseconds", 1, 1)),
            Self::Nanos => Some(("nanoseconds", 1, 1_000)),
            Self::Rfc3339 | Self::Pattern(_) => None,
        }
    }
}

/// A time zone, for times that name none.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    /// UTC.
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// Reads `UTC`, `local` for the machine's own, an offset such as `+02:00`, or a name
    /// such as `Europe/Berlin`, by the machine's time zone database.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "local" => return Ok(Self::local()),
            "UTC" | "utc" | "Z" => return Ok(Self::default()),
            _ => {}
        }
        let offset = || {
            let at = format!("1970-01-01T00:00:00{text}");
            jiff::fmt::temporal::Pieces::parse(&at).ok()?.to_numeric_offset()
        };
        let starts_as_offset = text.starts_with(['+', '-']);
        let zone = match starts_as_offset.then(offset) {
            Some(found) => found.map(TimeZone::fixed),
            None => TimeZone::get(text).ok(),
        };
        zone.map(Self).ok_or_else(|| {
            Error::invalid(format!(
                "zone {text:?}: expected UTC, local, an offset as +02:00, or a name as \
                 Europe/Berlin that this machine knows"
            ))
        })
    }

    /// The zone of this machine.
    pub fn local() -> Self {
        Self(TimeZone::system())
    }

    /// The moment at which clocks of this zone show `civil`: the earlier of two, and across
    /// a gap as if there were none.
    pub(super) fn at(&self, civil: DateTime) -> Result<Timestamp> {
        let offset = self.0.to_ambiguous_timestamp(civil).offset();
        let offset = match offset {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => before,
        };
        let seconds = i64::from(offset.seconds());
        Timestamp::from_micros(Timestamp::of_civil(civil) - seconds * MICROS_PER_SECOND)
    }
}

/// A decimal number in billionths, exactly; further decimals are cut.
fn billionths(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    // Twenty digits hold every stamp in nanoseconds, and cannot overflow here.
    if whole.len() > 20 || !all_digits(whole) || !all_digits(decimals) {
        return None;
    }
    let digits = decimals.bytes().chain(std::iter::repeat(b'0')).take(9);
    let fraction = digits.fold(0, |value, digit| value * 10 + i128::from(digit - b'0'));
    let value = whole.parse::<i128>().ok()? * 1_000_000_000 + fraction;
    Some(if negative { -value } else { value })
}

fn read_pattern(pattern: &str, text: &str, zone: &Zone) -> Result<Timestamp> {
    let bad = |cause: jiff::Error| {
        Error::bad_input(format!("{text:?} is not a time of the form {pattern:?}: {cause}"))
    };
    let parts = jiff::fmt::strtime::parse(pattern, text).map_err(bad)?;
    let stamp = match parts.to_timestamp() {
        Ok(stamp) => stamp,
        Err(_) => {
            let civil = parts
                .to_datetime()
                .or_else(|error| parts.to_date().map(|d| d.at(0, 0, 0, 0)).map_err(|_| error));
            return zone.at(civil.map_err(bad)?);
        }
    };
    let micros = stamp.as_nanosecond().div_euclid(1_000);
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, text: &str) -> Result<String> {
        Ok(TimeFormat::parse(format)?.read(text)?.to_string())
    }

    #[test]
    fn times_of_every_form() {
        let cases = [
            ("rfc3339", "2026-11-23T10:00:00+01:00", "2026-11-23T09:00:00Z"),
            ("rfc3339", "2026-11-23", "2026-11-23T00:00:00Z"),
            ("s", "0", "1970-01-01T00:00:00Z"),
            ("s", "1700000000", "2023-11-14T22:13:20Z"),
            ("s", "1700000000.1234567", "2023-11-14T22:13:20.123456Z"),
            ("s", "-0.5", "1969-12-31T23:59:59.500Z"),
            ("ms", "1700000000123", "2023-11-14T22:13:20.123Z"),
            ("us", "1700000000123456", "2023-11-14T22:13:20.123456Z"),
            ("ns", "1700000000123456789", "2023-11-14T22:13:20.123456Z"),
            ("%Y-%m-%d %H:%M:%S%.f", "2023-11-16 18:17:03.9799600", "2023-11-16T18:17:03.979960Z"),
            ("%Y-%m-%d %H:%M:%S", "2014-02-14 14:30:00", "2014-02-14T14:30:00Z"),
            ("%Y-%m-%d %H:%M:%S %z", "2014-02-14 14:30:00 +0200", "2014-02-14T12:30:00Z"),
            ("%d/%m/%Y", "14/02/2014", "2014-02-14T00:00:00Z"),
        ];
        for (format, text, expected) in cases {
            assert_eq!(read(format, text).unwrap(), expected, "{format} {text}");
        }
    }

    #[test]
    fn what_is_no_time_says_what_was_expected() {
        let cases = [
            ("rfc3339", "2026-11-23 10:00", "RFC 3339"),
            ("rfc3339", "1700000000", "RFC 3339"),
            ("s", "", "seconds since 1970"),
            ("s", "1e9", "seconds since 1970"),
            ("s", "1.", "seconds since 1970"),
            ("s", "--1", "seconds since 1970"),
            ("s", "1700000000123456", "0001 to 9999"),
            ("ms", "99999999999999999999999", "milliseconds since 1970"),
            ("%Y", "x", "of the form"),
            ("%H:%M", "10:00", "of the form"),
            ("iso", "x", "rfc3339, s, ms"),
        ];
        for (format, text, expected) in cases {
            let message = read(format, text).unwrap_err().to_string();
            assert!(message.contains(expected), "{format} {text}: {message}");
        }
    }

    #[test]
    fn zones() {
        let read = |zone: &str, text: &str| {
            let time = TimeFormat::parse("%Y-%m-%d %H:%M:%S").unwrap();
            time.read_in(text, &Zone::parse(zone).unwrap()).unwrap().to_string()
        };
        assert_eq!(read("UTC", "2026-07-01 12:00:00"), "2026-07-01T12:00:00Z");
        assert_eq!(read("+02:00", "2026-07-01 12:00:00"), "2026-07-01T10:00:00Z");
        assert_eq!(read("-0330", "2026-07-01 12:00:00"), "2026-07-01T15:30:00Z");
        // Years that stamps of other kinds do not reach.
        assert_eq!(read("UTC", "9999-12-31 23:59:59"), "9999-12-31T23:59:59Z");
        assert_eq!(read("UTC", "0001-01-01 00:00:00"), "0001-01-01T00:00:00Z");
        for text in ["", "+", "+26:00", "Nowhere/None", "../../etc/passwd"] {
            let message = Zone::parse(text).unwrap_err().to_string();
            assert!(message.contains("expected UTC, local"), "{message}");
        }
    }

    #[test]
    fn maps() {
        let map = FieldMap::parse("task_id=id,agent_id=worker").unwrap();
        let map = map.constant("success=true").unwrap();
        map.check(Table::Task).unwrap();
        assert!(map.is_explicit());
        assert_eq!(map.field_of(Table::Task, "id"), Some(1));
        assert_eq!(map.field_of(Table::Task, "worker"), Some(2));
        assert_eq!(map.field_of(Table::Task, "agent_id"), None, "its field is taken");
        assert_eq!(map.field_of(Table::Task, "success"), None, "its field is taken");
        assert_eq!(map.field_of(Table::Task, "duration_ms"), Some(3));
        assert_eq!(map.field_of(Table::Task, "other"), None);
        assert_eq!(map.constants(Table::Task).unwrap(), [(5, "true")]);
        assert_eq!(map.column_of("task_id"), "id");
        assert_eq!(map.column_of("success"), "success");
    }

    #[test]
    fn bad_maps() {
        for text in ["", "task_id", "=x", "task_id=", "task_id=a,task_id=b"] {
            assert!(FieldMap::parse(text).is_err(), "{text}");
        }
        assert!(FieldMap::new().constant("x").is_err());
        let map = FieldMap::parse("colour=c").unwrap();
        let message = map.check(Table::Agent).unwrap_err().to_string();
        assert!(
            message.contains("agent_metrics has no such field, expected timestamp"),
            "{message}"
        );
    }
}
