//! What is printed: tables for people, CSV and JSON for programs.
//!
//! A value is described once, as cells under columns; tables and CSV are two ways to
//! write the same cells. JSON is what the library's types serialise to.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use tallystone::export::is_formula;
use tallystone::{Timestamp, Value};
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;

/// Longest text that a table shows of one cell, in characters.
const CELL_CHARS_MAX: usize = 60;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Text(Cow<'a, str>),
    Int(i128),
    Float(f64),
    Bool(bool),
    Time(Timestamp),
}

impl<'a> Cell<'a> {
    pub(crate) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    pub(crate) fn count(count: u64) -> Self {
        Self::Int(i128::from(count))
    }

    pub(crate) fn optional<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, cell)
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Float(_))
    }

    /// Whole and exact, for CSV.
    fn exact(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(value) => Cow::Owned(value.to_string()),
            Self::Float(value) => Cow::Owned(exact_float(*value)),
            Self::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Self::Time(stamp) => Cow::Owned(stamp.to_string()),
        }
    }

    /// Whole, but floats short: for those who escape and cut texts themselves.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Null => "-".to_owned(),
            Self::Float(value) => short_float(*value),
            _ => self.exact().into_owned(),
        }
    }

    /// Short and safe to show, for tables.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => {
                let start: String = text.chars().take(CELL_CHARS_MAX).collect();
                let dots = if start.len() < text.len() { "..." } else { "" };
                escape(&start) + dots
            }
            _ => self.plain(),
        }
    }
}

impl From<Value> for Cell<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Int(value) => Self::Int(i128::from(value)),
            Value::Wide(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
        }
    }
}

/// As JSON writes it, so that CSV and JSON agree to the last digit.
fn exact_float(value: f64) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

/// Three decimals where they tell something.
fn short_float(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (0.001..1e15).contains(&size) {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.3e}")
    }
}

/// Something that is printed as one line of cells.
pub(crate) trait Record {
    /// One cell under each column.
    fn cells(&self) -> Vec<Cell<'_>>;
}

/// Names of columns, in order.
pub(crate) type Columns<'a> = &'a [&'a str];

/// Text without control characters, without the marks that turn the direction of text, and
/// without characters that are not seen: a terminal would act on them, or disagree with others
/// about the room that they take.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        let is_unseen = matches!(
            c,
            '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200d}'
                | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}'
                | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        );
        if c.is_control() || turns || is_unseen {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Standard output, buffered.
pub(crate) fn stdout() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Aligned columns under a header, numbers to the right.
pub(crate) fn table<T: Record>(
    out: &mut impl Write,
    indent: usize,
    columns: Columns<'_>,
    rows: &[T],
) -> Result<(), Failure> {
    let mut widths: Vec<usize> = columns.iter().map(|name| name.width()).collect();
    let mut numbers = vec![false; columns.len()];
    let mut others = vec![false; columns.len()];
    for row in rows {
        for (column, cell) in row.cells().iter().enumerate() {
            if let Some(width) = widths.get_mut(column) {
                *width = (*width).max(cell.shown().width());
            }
            let seen = if cell.is_number() { &mut numbers } else { &mut others };
            if let Some(seen) = seen.get_mut(column) {
                *seen |= *cell != Cell::Null;
            }
        }
    }
    let right: Vec<bool> = numbers.iter().zip(&others).map(|(n, other)| *n && !other).collect();
    let names: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    line(out, indent, &names, &widths, &right)?;
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(out, indent, &rules, &widths, &right)?;
    for row in rows {
        let texts: Vec<String> = row.cells().iter().map(Cell::shown).collect();
        line(out, indent, &texts, &widths, &right)?;
    }
    Ok(())
}

fn line(
    out: &mut impl Write,
    indent: usize,
    texts: &[String],
    widths: &[usize],
    right: &[bool],
) -> io::Result<()> {
    let mut text = " ".repeat(indent);
    for ((cell, width), right) in texts.iter().zip(widths).zip(right) {
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        let (before, after) = if *right { (&*padding, "") } else { ("", &*padding) };
        text.extend([before, cell, after, "  "]);
    }
    writeln!(out, "{}", text.trim_end())
}

/// One value under another, each after its name.
pub(crate) fn list<T: Record>(
    out: &mut impl Write,
    indent: usize,
    columns: Columns<'_>,
    record: &T,
) -> Result<(), Failure> {
    let width = columns.iter().map(|name| name.len()).max().unwrap_or(0);
    for (name, cell) in columns.iter().zip(record.cells()) {
        writeln!(out, "{}{name:width$}  {}", " ".repeat(indent), cell.shown())?;
    }
    Ok(())
}

/// CSV with a header line. Unless `raw`, text that a spreadsheet would take for a formula
/// gets an apostrophe in front.
pub(crate) fn csv<T: Record>(
    out: &mut impl Write,
    columns: Columns<'_>,
    rows: &[T],
    raw: bool,
) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(columns)?;
    for row in rows {
        for cell in row.cells() {
            let text = cell.exact();
            if !raw && matches!(cell, Cell::Text(_)) && is_formula(&text) {
                writer.write_field(format!("'{text}"))?;
            } else {
                writer.write_field(text.as_bytes())?;
            }
        }
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush()?;
    Ok(())
}

/// One line of JSON.
pub(crate) fn json(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

/// A number of bytes, short.
pub(crate) fn bytes(count: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = (u128::from(count) * 10 + u128::from(unit) / 2) / u128::from(unit);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", tenths(1 << 10)),
        1_048_576..1_073_741_824 => format!("{} MiB", tenths(1 << 20)),
        _ => format!("{} GiB", tenths(1 << 30)),
    }
}

/// So many of something.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// A count with a comma at every thousand.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair(&'static str, Cell<'static>);

    impl Record for Pair {
        fn cells(&self) -> Vec<Cell<'_>> {
            vec![Cell::text(self.0), self.1.clone()]
        }
    }

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Widths were counted in characters, and two columns of a terminal for one moved the rest.
    #[test]
    fn wide_characters_align() {
        let rows =
            [Pair("\u{6771}\u{4eac}", Cell::Int(5)), Pair("e\u{301}t\u{e9}", Cell::Int(1234))];
        let text = printed(|out| table(out, 0, &["name", "n"], &rows));
        let expected =
            ["name     n", "----  ----", "\u{6771}\u{4eac}     5", "e\u{301}t\u{e9}   1234", ""];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn tables_align() {
        let rows = [
            Pair("a", Cell::Int(5)),
            Pair("long\u{1b}[2J", Cell::Float(1234.5)),
            Pair("n", Cell::Null),
        ];
        let text = printed(|out| table(out, 1, &["name", "value"], &rows));
        let expected = [
            " name            value",
            " -------------  ------",
            " a                   5",
            " long\\u{1b}[2J  1234.5",
            " n                   -",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(printed(|out| table::<Pair>(out, 0, &["a"], &[])), "a\n-\n");
    }

    #[test]
    fn lists_name_each_value() {
        let text = printed(|out| list(out, 0, &["name", "x"], &Pair("a", Cell::Bool(true))));
        assert_eq!(text, "name  a\nx     true\n");
    }

    #[test]
    fn csv_quotes_and_guards() {
        let rows = [
            Pair("=1+1", Cell::Int(-5)),
            Pair("a,\"b\"\n", Cell::Float(0.1 + 0.2)),
            Pair("\t", Cell::Null),
        ];
        let text = printed(|out| csv(out, &["name", "value"], &rows, false));
        assert_eq!(text, "name,value\n'=1+1,-5\n\"a,\"\"b\"\"\n\",0.30000000000000004\n'\t,\n");
        let text = printed(|out| csv(out, &["name", "value"], &rows[..1], true));
        assert_eq!(text, "name,value\n=1+1,-5\n");
    }

    #[test]
    fn numbers_for_people() {
        let cases =
            [(0.0, "0"), (0.5, "0.5"), (1e-9, "1.000e-9"), (1e20, "1.000e20"), (-2.0, "-2")];
        for (value, expected) in cases {
            assert_eq!(short_float(value), expected);
        }
        assert_eq!([bytes(5), bytes(1536), bytes(3 << 20)], ["5 B", "1.5 KiB", "3.0 MiB"]);
        assert_eq!([thousands(5), thousands(1_234_567)], ["5", "1,234,567"]);
        assert_eq!(escape("a\u{202e}b\n\u{e9}"), "a\\u{202e}b\\n\u{e9}");
        let long = "x".repeat(100);
        assert_eq!(Cell::text(&long).shown().len(), CELL_CHARS_MAX + 3);
    }
}
