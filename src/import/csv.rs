//! Rows from CSV with a header line.
//!
//! Splitting into fields is the work of `csv-core` (RFC 4180 with either line end). Lines
//! are handed to it one by one, so that a record's line number, its bytes and a quote that
//! is never closed are known exactly.
//!
//! A NUL byte is text inside of quotes, as exports write it, and nowhere else: files that are
//! no text have it anywhere.

use std::io::Read;

use csv_core::ReadRecordResult;

use super::draft::{Cell, Draft};
use super::fields::{FieldMap, field_names};
use super::lines::{Lines, Next, has_nul, is_blank, not_text, not_utf8, too_long};
use super::{BadLine, ParsedRow, ReadOptions, Rows, Step};
use crate::error::Result;
use crate::limits::LINE_BYTES_MAX;
use crate::schema::Table;

/// Reads CSV; the header is read when it is made.
#[derive(Debug)]
pub struct CsvReader<R> {
    options: ReadOptions,
    records: Records<R>,
    draft: Draft,
    /// For each column of the source the number of its field.
    fields: Vec<Option<usize>>,
}

impl<R: Read> CsvReader<R> {
    /// Reads and checks the header line.
    ///
    /// # Errors
    ///
    /// `BadInput` when there is none or it does not fit the table; `InvalidArgument` when
    /// the map does not; `Io`.
    pub fn new(input: R, options: &ReadOptions) -> Result<Self> {
        let table = options.one_table()?;
        let draft = Draft::new(table, options)?;
        let mut records = Records::new(Lines::new(input).map_err(|cause| options.io_error(cause))?);
        let found = records.read().map_err(|cause| options.io_error(cause))?;
        let line = records.line;
        let fail = |message: &str| Err(options.error(line.max(1), message));
        match found {
            Found::Record => {}
            Found::End => return fail("empty file, expected a header line"),
            Found::Bad(message) => return fail(&message),
        }
        if let Some(message) = not_text(&records.raw) {
            return fail(&format!("not a text file: {message}"));
        }
        let names: Vec<&str> = records.cells().collect();
        let fields = match_header(&names, table, &options.map);
        let fields = fields.map_err(|message| options.error(line, message))?;
        Ok(Self { options: options.clone(), records, draft, fields })
    }

    /// The next row or bad line; `None` at the end.
    ///
    /// # Errors
    ///
    /// `Io`; the reader is of no use after it.
    #[expect(clippy::should_implement_trait, reason = "lends rows, which an iterator cannot")]
    pub fn next(&mut self) -> Result<Option<Step<'_>>> {
        let found = self.records.read().map_err(|cause| self.options.io_error(cause))?;
        match found {
            Found::End => Ok(None),
            Found::Bad(message) => Ok(Some(Err(self.reject(message)))),
            Found::Record => Ok(Some(match fill(&mut self.draft, &self.records, &self.fields) {
                Ok(row) => Ok(row),
                Err(message) => Err(self.records.reject(message)),
            })),
        }
    }
}

impl<R: Read> Rows for CsvReader<R> {
    fn next_row(&mut self) -> Result<Option<Step<'_>>> {
        self.next()
    }

    fn reject(&self, message: String) -> BadLine {
        self.records.reject(message)
    }
}

fn fill<'a, R: Read>(
    draft: &'a mut Draft,
    records: &Records<R>,
    fields: &[Option<usize>],
) -> Result<ParsedRow<'a>, String> {
    if let Some(message) = records.not_text() {
        return Err(message);
    }
    let count = records.ends_count;
    if count != fields.len() {
        let plural = if count == 1 { "" } else { "s" };
        return Err(format!("{count} field{plural}, expected {} as in the header", fields.len()));
    }
    draft.clear()?;
    for (cell, field) in records.cells().zip(fields) {
        if let Some(field) = field {
            draft.set(*field, &Cell::Bare(cell))?;
        }
    }
    draft.row()
}

/// Finds the field of each column of the source.
fn match_header(
    names: &[&str],
    table: Table,
    map: &FieldMap,
) -> Result<Vec<Option<usize>>, String> {
    let schema = table.schema();
    let mut fields = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let field = map.field_of(table, name);
        if field.is_none() && !map.may_skip(name) {
            return Err(format!(
                "unknown column {name:?}, expected {}; name columns with a map of field=column",
                field_names(schema)
            ));
        }
        if field.is_some() && names.get(..index).is_some_and(|before| before.contains(name)) {
            return Err(format!("column {name:?} is there twice, expected it once"));
        }
        fields.push(field);
    }
    let constants = map.constants(table).map_err(|error| error.message().to_owned())?;
    for (number, column) in schema.columns.iter().enumerate() {
        let given = fields.contains(&Some(number)) || constants.iter().any(|(c, _)| *c == number);
        let source = map.column_of(column.name);
        if !given && (!column.nullable || source != column.name) {
            return Err(format!(
                "no column {source:?} for the field {}, found {}",
                column.name,
                names.join(", ")
            ));
        }
    }
    Ok(fields)
}

/// What reading a record came to.
enum Found {
    Record,
    Bad(String),
    End,
}

/// Records of a source: the bytes of one, and where its fields lie in the unquoted text.
#[derive(Debug)]
struct Records<R> {
    lines: Lines<R>,
    core: csv_core::Reader,
    /// The record as it stands in the source.
    raw: Vec<u8>,
    /// Number of its first line.
    line: u64,
    /// Whether it has no quotes, so that the fields are read as they stand.
    is_plain: bool,
    /// Else its fields, unquoted, one after the other.
    text: Vec<u8>,
    text_len: usize,
    /// Where each field ends, in the record or in the text.
    ends: Vec<usize>,
    ends_count: usize,
    /// Whether the parser stands inside a record that was given up.
    is_inside: bool,
}

impl<R: Read> Records<R> {
    fn new(lines: Lines<R>) -> Self {
        Self {
            lines,
            core: csv_core::Reader::new(),
            raw: Vec::new(),
            line: 0,
            is_plain: true,
            text: vec![0; 256],
            text_len: 0,
            ends: vec![0; 16],
            ends_count: 0,
            is_inside: false,
        }
    }

    /// Reads one record, which has several lines where a quoted field has.
    fn read(&mut self) -> std::io::Result<Found> {
        self.raw.clear();
        (self.text_len, self.ends_count, self.is_plain) = (0, 0, true);
        // Not before every record: a reset parser drops a byte order mark, which is text here.
        if std::mem::replace(&mut self.is_inside, true) {
            self.core.reset();
        }
        loop {
            let start = self.raw.len();
            match self.lines.read(&mut self.raw)? {
                Next::Line if start == 0 && is_blank(&self.raw) => {
                    self.raw.clear();
                    continue;
                }
                Next::Line => {}
                Next::TooLong => {
                    if start == 0 {
                        self.line = self.lines.number();
                    }
                    return Ok(Found::Bad(too_long()));
                }
                Next::End if start == 0 => return Ok(Found::End),
                Next::End => return Ok(Found::Bad(OPEN_QUOTE.to_owned())),
            }
            if start == 0 {
                self.line = self.lines.number();
            }
            if self.raw.len() > LINE_BYTES_MAX {
                return Ok(Found::Bad(format!(
                    "a quoted field of more than {LINE_BYTES_MAX} bytes, \
                     expected its closing quote"
                )));
            }
            if start == 0 && !self.raw.contains(&b'"') {
                return Ok(self.split());
            }
            self.is_plain = false;
            // The last line of a source may lack its end.
            let missing_end = !self.raw.ends_with(b"\n");
            if let Some(found) = self.feed(start, missing_end) {
                return Ok(found);
            }
        }
    }

    /// Finds the fields of a line without quotes.
    fn split(&mut self) -> Found {
        self.is_inside = false;
        let line = self.raw.strip_suffix(b"\n").unwrap_or(&self.raw);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&b'\r') {
            return Found::Bad(CARRIAGE_RETURN.to_owned());
        }
        self.ends.clear();
        self.ends.extend((0..).zip(line).filter(|(_, byte)| **byte == b',').map(|(at, _)| at));
        self.ends.push(line.len());
        self.ends_count = self.ends.len();
        Found::Record
    }

    /// Hands a line to the parser; `None` when the record goes on in the next one.
    fn feed(&mut self, start: usize, missing_end: bool) -> Option<Found> {
        let line = self.raw.get(start..).unwrap_or_default();
        let mut input = line;
        let mut end_fed = !missing_end;
        loop {
            let output = self.text.get_mut(self.text_len..).unwrap_or_default();
            let ends = self.ends.get_mut(self.ends_count..).unwrap_or_default();
            let (result, read, written, ended) = self.core.read_record(input, output, ends);
            input = input.get(read..).unwrap_or_default();
            self.text_len += written;
            self.ends_count += ended;
            match result {
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::InputEmpty if !end_fed => {
                    end_fed = true;
                    input = b"\n";
                }
                ReadRecordResult::InputEmpty => return None,
                ReadRecordResult::Record | ReadRecordResult::End => {
                    let rest_is_end = matches!(input, b"" | b"\n");
                    return Some(if rest_is_end {
                        self.is_inside = false;
                        Found::Record
                    } else {
                        Found::Bad(CARRIAGE_RETURN.to_owned())
                    });
                }
            }
        }
    }

    /// The fields; to be asked for only where the record is text.
    fn cells(&self) -> impl Iterator<Item = &str> {
        let (bytes, comma) = if self.is_plain { (&self.raw, 1) } else { (&self.text, 0) };
        let used = if self.is_plain { bytes.len() } else { self.text_len };
        let text = std::str::from_utf8(bytes.get(..used).unwrap_or_default()).unwrap_or_default();
        let mut start = 0;
        self.ends.iter().take(self.ends_count).map(move |end| {
            let cell = text.get(start..*end).unwrap_or_default();
            start = *end + comma;
            cell
        })
    }

    fn reject(&self, message: String) -> BadLine {
        BadLine::of_line(self.line, message, &self.raw)
    }

    /// Why the record is not text, if it is not. A NUL is, where quotes say that it is meant.
    fn not_text(&self) -> Option<String> {
        if self.is_plain || !self.raw.contains(&0) {
            return not_text(&self.raw);
        }
        bare_nul(&self.raw).map(has_nul).or_else(|| not_utf8(&self.raw))
    }
}

/// Where a record has a NUL outside of quotes.
fn bare_nul(record: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut may_open) = (false, true);
    for (at, byte) in record.iter().enumerate() {
        match byte {
            b'"' if is_quoted || may_open => {
                is_quoted = !is_quoted;
                // Two of them are one inside of quotes, which then go on.
                may_open = true;
                continue;
            }
            0 if !is_quoted => return Some(at),
            _ => {}
        }
        may_open = *byte == b',';
    }
    None
}

const CARRIAGE_RETURN: &str = "a carriage return inside a line, expected a line feed";
const OPEN_QUOTE: &str = "a quote is opened and never closed, expected its closing quote";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::TimeFormat;
    use proptest::prelude::*;

    const HEADER: &str = "timestamp,task_id,agent_id,duration_ms,tokens_used,success,metadata";

    fn options(table: Table) -> ReadOptions {
        ReadOptions::new("in.csv", table)
    }

    /// Every row as text, every bad line as its message.
    fn read_with(input: &[u8], options: &ReadOptions) -> Vec<String> {
        let mut reader = match CsvReader::new(input, options) {
            Ok(reader) => reader,
            Err(error) => return vec![error.to_string()],
        };
        let mut found = Vec::new();
        while let Some(step) = reader.next().unwrap() {
            found.push(match step {
                Ok(ParsedRow::Task(row)) => format!(
                    "{} {} {} {:?} {:?} {} {:?}",
                    row.timestamp,
                    row.task_id,
                    row.agent_id,
                    row.duration_ms,
                    row.tokens_used,
                    row.success,
                    row.metadata
                ),
                Ok(ParsedRow::Agent(row)) => {
                    format!("{} {} {} {}", row.timestamp, row.agent_id, row.metric_type, row.value)
                }
                Ok(ParsedRow::Swarm(row)) => {
                    format!("{} {} {} {}", row.timestamp, row.swarm_id, row.metric_type, row.value)
                }
                Err(bad) => bad.to_error("in.csv").to_string(),
            });
        }
        found
    }

    fn read(input: &[u8]) -> Vec<String> {
        read_with(input, &options(Table::Task))
    }

    fn with_header(rest: &str) -> Vec<u8> {
        format!("{HEADER}\n{rest}").into_bytes()
    }

    #[test]
    fn a_mark_inside_a_file_is_text() {
        let rest = "bad\n\u{feff}t,2026-01-01,a,1\n\u{feff}t,2026-01-01,a,1\n";
        let input = format!("task_id,timestamp,agent_id,success\n{rest}");
        let found = read(input.as_bytes());
        assert!(found[1].contains(" \u{feff}t a "), "{found:?}");
        assert!(found[2].contains(" \u{feff}t a "), "{found:?}");
    }

    const ROW: &str = "2026-01-01T00:00:00Z t1 a1 Some(5) None true None";

    #[test]
    fn line_ends_marks_and_quotes() {
        let plain = "2026-01-01,t1,a1,5,,true,";
        for text in [
            format!("{HEADER}\n{plain}\n"),
            format!("{HEADER}\n{plain}"),
            format!("{HEADER}\r\n{plain}\r\n"),
            format!("{HEADER}\r\n{plain}"),
            format!("\u{feff}{HEADER}\n{plain}\n"),
            format!("\n{HEADER}\n\n\r\n{plain}\n\n"),
            format!("{HEADER}\n\"2026-01-01\",\"t1\",a1,\"5\",\"\",\"true\",\n"),
        ] {
            assert_eq!(read(text.as_bytes()), [ROW], "{text:?}");
        }
    }

    #[test]
    fn quoted_fields_hold_anything() {
        let rest = "2026-01-01,\"t,\"\"1\"\"\nx\r\ny\",a1,,7,0,\"{\"\"k\"\": [1, 2]}\"\r\n\
                    2026-01-01,t2,a1,1,1,1,7\n";
        let found = read(&with_header(rest));
        assert_eq!(
            found[0],
            concat!(
                "2026-01-01T00:00:00Z t,\"1\"\nx\r\ny a1 None Some(7) false ",
                r#"Some("{\"k\": [1, 2]}")"#
            )
        );
        assert_eq!(found[1], "2026-01-01T00:00:00Z t2 a1 Some(1) Some(1) true Some(\"7\")");
    }

    #[test]
    fn bad_lines_name_the_line_and_what_was_expected() {
        let good = "2026-01-01,t,a,1,1,true,";
        let cases = [
            ("2026-01-01,t,a,1,1,true", "in.csv:3: 6 fields, expected 7 as in the header"),
            ("2026-01-01,t,a,1,1,true,,", "in.csv:3: 8 fields, expected 7 as in the header"),
            ("x", "in.csv:3: 1 field, expected 7"),
            ("2026-01-01,t,a,1.5,1,true,", "duration_ms: \"1.5\" is not a whole number"),
            ("2026-01-01,t,a,1, 2,true,", "tokens_used: \" 2\" is not a whole number"),
            ("2026-01-01,t,a,99999999999999999999,1,true,", "is not a whole number of 64 bits"),
            ("2026-01-01,t,a,1,1,yes,", "success: \"yes\" is not a flag, expected true, false, 1"),
            ("2026-01-01,t,a,1,1,,", "success: no value, expected one"),
            ("2026-01-01,,a,1,1,true,", "task_id: no value, expected one"),
            (
                "yesterday,t,a,1,1,true,",
                "timestamp: \"yesterday\" is not a time, expected RFC 3339",
            ),
            ("2026-01-01,t,a,1,1,true,{", "metadata: \"{\" is not JSON"),
            ("2026-01-01,t\0,a,1,1,true,", "a NUL byte at column 13, expected text"),
            ("2026-01-01,\"t\",a\0,1,1,true,", "a NUL byte at column 17, expected text"),
            ("2026-01-01,a\"\"\0\"\",a,1,1,true,", "a NUL byte at column 15, expected text"),
            ("2026-01-01,\"t\"\0,a,1,1,true,", "a NUL byte at column 15, expected text"),
            ("2026-01-01,t,a\r,1,1,true,", "carriage return inside a line"),
        ];
        for (line, expected) in cases {
            let found = read(&with_header(&format!("{good}\n{line}\n{good}\n")));
            assert_eq!(found.len(), 3, "{line:?}: {found:?}");
            assert!(found[1].starts_with("in.csv:3: "), "{line:?}: {found:?}");
            assert!(found[1].contains(expected), "{line:?}: {found:?}");
        }
    }

    #[test]
    fn a_nul_in_quotes_is_text() {
        let found = read(&with_header("2026-01-01,\"\0\",\"a\"\"\0,\n\",1,1,true,\n"));
        assert_eq!(found, ["2026-01-01T00:00:00Z \0 a\"\0,\n Some(1) Some(1) true None"]);
        let found = read(&with_header("2026-01-01,\"\0\",\"a\",1,1,true,\"\0\"\n"));
        assert!(found[0].contains("metadata: \"\\0\" is not JSON"), "{found:?}");
        let header = HEADER.replace("task_id", "\"task_id\0\"");
        assert!(read(header.as_bytes())[0].contains("not a text file: a NUL byte at column 19"));
    }

    #[test]
    fn invalid_utf8_is_a_bad_line() {
        let mut input = with_header("2026-01-01,t,a,1,1,true,\n2026-01-01,");
        input.extend_from_slice(b"\xff\xfe,a,1,1,true,\n");
        assert!(
            read(&input)[1].contains("in.csv:3: invalid UTF-8 at column 12"),
            "{:?}",
            read(&input)
        );
    }

    #[test]
    fn line_numbers_count_lines_not_records() {
        let rest = "\n2026-01-01,\"t\n1\",a,1,1,true,\r\n\r\nbad\r\n";
        let found = read(&with_header(rest));
        assert_eq!(found[1], "in.csv:6: 1 field, expected 7 as in the header");
    }

    #[test]
    fn an_open_quote_is_found_at_the_end() {
        let found = read(&with_header("2026-01-01,t,\"a,1,1,true,\n2026-01-01,t,a,1,1,true,\n"));
        assert_eq!(found, [format!("in.csv:2: {OPEN_QUOTE}")]);
        let found = read(&with_header("2026-01-01,t,a,1,1,true,\"{}"));
        assert_eq!(found, [format!("in.csv:2: {OPEN_QUOTE}")]);
    }

    #[test]
    fn long_lines_are_bounded() {
        let long = format!("{}\n2026-01-01,t1,a1,5,,true,\n", "x".repeat(LINE_BYTES_MAX + 10));
        let found = read(&with_header(&long));
        assert!(found[0].contains("in.csv:2: a line of more than 3145728 bytes"), "{}", found[0]);
        assert_eq!(found[1], ROW);
        let open = format!("2026-01-01,\"{}", "some text\n".repeat(LINE_BYTES_MAX / 10 + 10));
        assert!(read(&with_header(&open))[0].contains("in.csv:2: a quoted field of more than"));
    }

    #[test]
    fn headers_that_do_not_fit() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "in.csv:1: empty file, expected a header line"),
            (b"\xEF\xBB\xBF", "in.csv:1: empty file, expected a header line"),
            (b"\n\r\n", "in.csv:1: empty file, expected a header line"),
            (b"\x7fELF\x02\x01\0\0", "in.csv:1: not a text file: a NUL byte at column 7"),
            (b"\x89PNG\r\n\x1a\n", "in.csv:1: not a text file: invalid UTF-8 at column 1"),
            (
                b"timestamp,task,agent_id,success\n",
                "in.csv:1: unknown column \"task\", expected timestamp, task_id, agent_id, \
                 duration_ms, tokens_used, success, metadata",
            ),
            (b"timestamp,task_id,agent_id\n", "no column \"success\" for the field success"),
            (b"timestamp,task_id,task_id,agent_id,success\n", "column \"task_id\" is there twice"),
            (b"\"timestamp,task_id\n", "in.csv:1: a quote is opened and never closed"),
        ];
        for (input, expected) in cases {
            let found = read(input);
            assert!(found[0].contains(expected), "{input:?}: {found:?}");
        }
        assert!(read(HEADER.as_bytes()).is_empty(), "a header alone has no rows");
    }

    #[test]
    fn maps_and_constants() {
        let mut options = options(Table::Agent);
        options.time = TimeFormat::parse("%Y-%m-%d %H:%M:%S").unwrap();
        options.map = FieldMap::new().constant("agent_id=i-1").unwrap();
        options.map = options.map.constant("metric_type=cpu").unwrap();
        let input = b"timestamp,value\n2014-02-14 14:30:00,0.132\n";
        assert_eq!(read_with(input, &options), ["2014-02-14T14:30:00Z i-1 cpu 0.132"]);

        options.map = FieldMap::parse("value=v,agent_id=machine,metric_type=kind").unwrap();
        let input = b"timestamp,machine,kind,extra,v\n2014-02-14 14:30:00,m,k,zz,1e3\n";
        assert_eq!(read_with(input, &options), ["2014-02-14T14:30:00Z m k 1000"]);
        let input = b"timestamp,machine,v\n";
        assert!(
            read_with(input, &options)[0].contains("no column \"kind\" for the field metric_type")
        );
        let input = b"timestamp,machine,kind,v\n2014-02-14 14:30:00,m,k,inf\n";
        assert!(read_with(input, &options)[0].contains("value: \"inf\" is not a number"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut input = HEADER.as_bytes().to_vec();
            input.push(b'\n');
            input.extend(&bytes);
            read(&input);
            read(&bytes);
        }

        #[test]
        fn what_a_csv_writer_writes_is_read_back(
            ids in proptest::collection::vec("[a-z ,\"\n\r\0\u{e9}]{1,12}", 1..20),
            crlf in any::<bool>(),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = format!("{HEADER}{end}");
            for id in &ids {
                let quoted = id.replace('"', "\"\"");
                text.push_str(&format!("2026-01-01,\"{quoted}\",a1,5,,true,{end}"));
            }
            let expected: Vec<_> = ids.iter().map(|id| ROW.replace("t1", id)).collect();
            prop_assert_eq!(read(text.as_bytes()), expected);
        }
    }
}
