//! Rows from JSON lines: one object on each line.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::draft::{Cell, Draft};
use super::fields::{FieldMap, field_names};
use super::lines::{Lines, Next, is_blank, not_text, too_long};
use super::{BadLine, ParsedRow, ReadOptions, Rows, Step};
use crate::error::Result;

/// Reads JSON lines.
#[derive(Debug)]
pub struct JsonlReader<R> {
    options: ReadOptions,
    lines: Lines<R>,
    draft: Draft,
    raw: Vec<u8>,
    /// Whether the first line has been read.
    begun: bool,
}

impl<R: Read> JsonlReader<R> {
    /// Reads the first bytes, which tell whether the rest is compressed.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the map does not fit the table; `Io`.
    pub fn new(input: R, options: &ReadOptions) -> Result<Self> {
        let draft = Draft::new(options.one_table()?, options)?;
        let lines = Lines::new(input).map_err(|cause| options.io_error(cause))?;
        Ok(Self { options: options.clone(), lines, draft, raw: Vec::new(), begun: false })
    }

    /// The next row or bad line; `None` at the end.
    ///
    /// # Errors
    ///
    /// `BadInput` when the file is empty or its first line is not text; `Io`.
    #[expect(clippy::should_implement_trait, reason = "lends rows, which an iterator cannot")]
    pub fn next(&mut self) -> Result<Option<Step<'_>>> {
        let next = loop {
            self.raw.clear();
            let next =
                self.lines.read(&mut self.raw).map_err(|cause| self.options.io_error(cause))?;
            if next != Next::Line || !is_blank(&self.raw) {
                break next;
            }
        };
        let is_first = !std::mem::replace(&mut self.begun, true);
        let text = match next {
            Next::End if is_first => {
                let message = "empty file, expected a JSON object on each line";
                return Err(self.options.error(1, message));
            }
            Next::End => return Ok(None),
            Next::TooLong => return Ok(Some(Err(self.reject(too_long())))),
            Next::Line => match (not_text(&self.raw), std::str::from_utf8(&self.raw)) {
                (None, Ok(text)) => text,
                (message, _) => {
                    let message = message.unwrap_or_default();
                    if is_first {
                        let message = format!("not a text file: {message}");
                        return Err(self.options.error(self.lines.number(), message));
                    }
                    return Ok(Some(Err(self.reject(message))));
                }
            },
        };
        let line = self.lines.number();
        Ok(Some(
            fill(&mut self.draft, text, &self.options.map, &[])
                .map_err(|message| BadLine::of_line(line, message, &self.raw)),
        ))
    }
}

impl<R: Read> Rows for JsonlReader<R> {
    fn next_row(&mut self) -> Result<Option<Step<'_>>> {
        self.next()
    }

    fn reject(&self, message: String) -> BadLine {
        BadLine::of_line(self.lines.number(), message, &self.raw)
    }
}

/// The row that the text of an object is; keys of `extra` are passed over.
pub(super) fn fill<'a>(
    draft: &'a mut Draft,
    text: &str,
    map: &FieldMap,
    extra: &[&str],
) -> Result<ParsedRow<'a>, String> {
    draft.clear()?;
    let table = draft.table();
    let object = Object::of(text)?;
    let mut seen = 0_u32;
    for (name, value) in &object.0 {
        let Some(field) = map.field_of(table, name) else {
            if map.may_skip(name) || extra.contains(&name.as_ref()) {
                continue;
            }
            return Err(format!(
                "unknown key {name:?}, expected {}; name keys with a map of field=key",
                field_names(table.schema())
            ));
        };
        let bit = 1_u32.checked_shl(u32::try_from(field).unwrap_or(31)).unwrap_or(0);
        if seen & bit != 0 || draft.is_set(field) {
            return Err(format!("key {name:?} is there twice, expected it once"));
        }
        seen |= bit;
        draft.set(field, &cell(value.get())?)?;
    }
    draft.row()
}

/// Tells what kind of value a JSON text is.
fn cell(json: &str) -> Result<Cell<'_>, String> {
    match json.as_bytes().first() {
        Some(b'n') => Ok(Cell::Null),
        Some(b'"') => unquoted(json).map(Cell::Quoted),
        _ => Ok(Cell::Json(json)),
    }
}

/// What a JSON string says.
pub(super) fn unquoted(json: &str) -> Result<Cow<'_, str>, String> {
    let text = serde_json::from_str::<Text<'_>>(json);
    text.map(|text| text.0).map_err(|error| not_an_object(&error))
}

/// The parser's message without its line number, which is always 1.
fn not_an_object(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    format!("not a JSON object: {what} at column {}, expected one object", error.column())
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Keys and values in the order of the text; nothing is merged, so that a key that is
/// there twice is seen.
pub(super) struct Object<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The members of the object that a text is.
    pub(super) fn of(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| not_an_object(&error))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(8);
                while let Some((key, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    entries.push((key.0, value));
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::TimeFormat;
    use crate::schema::Table;
    use proptest::prelude::*;

    fn read_with(input: &[u8], options: &ReadOptions) -> Vec<String> {
        let mut reader = JsonlReader::new(input, options).unwrap();
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(None) => return found,
                Ok(Some(Ok(row))) => found.push(format!("{row:?}")),
                Ok(Some(Err(bad))) => found.push(bad.to_error("in.jsonl").to_string()),
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    fn read(input: &str) -> Vec<String> {
        read_with(input.as_bytes(), &ReadOptions::new("in.jsonl", Table::Task))
    }

    const GOOD: &str = concat!(
        r#"{"timestamp":"2026-01-01T00:00:00Z","task_id":"t","agent_id":"a","#,
        r#""duration_ms":5,"tokens_used":null,"success":true,"metadata":{"b": 1,"a":[ ]}}"#
    );

    #[test]
    fn rows_in_every_spelling() {
        let expected = read(GOOD);
        assert_eq!(expected.len(), 1);
        assert!(expected[0].contains(r#"metadata: Some("{\"b\": 1,\"a\":[ ]}")"#), "{expected:?}");
        assert!(expected[0].contains("tokens_used: None"), "{expected:?}");
        for text in [
            format!("{GOOD}\n"),
            format!("\u{feff}{GOOD}\r\n\r\n"),
            GOOD.replace("true", "1"),
            GOOD.replace("\"tokens_used\":null,", ""),
            GOOD.replace("{\"b\": 1,\"a\":[ ]}", r#""{\"b\": 1,\"a\":[ ]}""#),
            GOOD.replace("\"t\"", "\"\\u0074\"").replace("\"task_id\"", "\"task\\u005fid\""),
            format!("  {}  ", GOOD.replace(',', " ,\t")).replace("1 ,\t\"a\"", "1,\"a\""),
        ] {
            assert_eq!(read(&text), expected, "{text}");
        }
    }

    #[test]
    fn bad_lines_name_the_line_and_what_was_expected() {
        let cases = [
            ("[1]".to_owned(), "not a JSON object: invalid type: sequence, expected a JSON object"),
            ("{".to_owned(), "not a JSON object: EOF while parsing"),
            (format!("{GOOD}{GOOD}"), "not a JSON object: trailing characters at column"),
            (GOOD.replace("5,", "5.0,"), "duration_ms: 5.0 is not a whole number"),
            (GOOD.replace("5,", "\"5\","), "duration_ms: \"5\" is not a whole number"),
            (GOOD.replace("true", "\"true\""), "success: \"true\" is not a flag"),
            (GOOD.replace("true", "null"), "success: no value, expected one"),
            (GOOD.replace("\"success\":true,", ""), "success: missing, expected a value"),
            (GOOD.replace("\"t\"", "7"), "task_id: 7 is not text, expected text"),
            (GOOD.replace("\"t\"", "\"\""), "task_id: \"\" is empty"),
            (GOOD.replace("\"2026-01-01T00:00:00Z\"", "17"), "timestamp: 17 is not text"),
            (GOOD.replace("{\"b\": 1,\"a\":[ ]}", "\"{\""), "metadata: \"{\" is not JSON"),
            (
                GOOD.replace("\"success\"", "\"ok\""),
                "unknown key \"ok\", expected timestamp, task_id",
            ),
            (GOOD.replace("tokens_used", "agent_id"), "key \"agent_id\" is there twice"),
            (GOOD.replace("duration_ms\":5", "tokens_used\":null"), "key \"tokens_used\" is there"),
        ];
        for (line, expected) in cases {
            let found = read(&format!("{GOOD}\n\n{line}\n{GOOD}"));
            assert_eq!(found.len(), 3, "{line}: {found:?}");
            assert!(found[1].starts_with("in.jsonl:3: "), "{line}: {found:?}");
            assert!(found[1].contains(expected), "{line}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_text_file() {
        assert_eq!(read(""), ["in.jsonl:1: empty file, expected a JSON object on each line"]);
        let options = ReadOptions::new("in.jsonl", Table::Task);
        assert!(read_with(b"\x7fELF\0\0\n", &options)[0].contains("in.jsonl:1: not a text file"));
        let mut input = format!("{GOOD}\n").into_bytes();
        input.extend_from_slice(b"\xff\n");
        input.extend_from_slice(GOOD.as_bytes());
        let found = read_with(&input, &options);
        assert!(found[1].contains("in.jsonl:2: invalid UTF-8 at column 1"), "{found:?}");
        assert_eq!(found[0], found[2]);
    }

    #[test]
    fn maps_numbers_and_other_tables() {
        let mut options = ReadOptions::new("in.jsonl", Table::Swarm);
        options.time = TimeFormat::Millis;
        options.map = FieldMap::parse("swarm_id=s,metric_type=m,value=v,timestamp=ts").unwrap();
        let line = br#"{"ts":1700000000123,"s":"alpha","m":"queue","v":-0.5e1,"more":[1,{"x":2}]}"#;
        let found = read_with(line, &options);
        assert!(found[0].contains("value: -5.0"), "{found:?}");
        assert!(found[0].contains("Timestamp(1700000000123000)"), "{found:?}");
        let line = br#"{"ts":1,"s":"alpha","m":"queue","v":1e999}"#;
        assert!(read_with(line, &options)[0].contains("value: 1e999 is not a number"), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            read_with(&bytes, &ReadOptions::new("in.jsonl", Table::Task));
        }

        #[test]
        fn a_changed_byte_is_read_without_a_panic(at in 0..GOOD.len(), byte in any::<u8>()) {
            let mut input = GOOD.as_bytes().to_vec();
            input[at] = byte;
            read_with(&input, &ReadOptions::new("in.jsonl", Table::Task));
        }
    }
}
