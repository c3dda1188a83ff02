//! Gauges from expositions of metrics: the text format 0.0.4 of Prometheus, and OpenMetrics
//! 1.0.
//!
//! Each sample is a row, whatever its family is: counters and gauges by their value, histograms
//! and summaries as the series that they consist of (`_bucket`, `_sum`, `_count`, quantiles).
//!
//! | field | where it comes from |
//! |---|---|
//! | `agent_id` | the label `agent_id`, else `agent`, else `instance` |
//! | `swarm_id` | the label `swarm_id`, else `swarm` |
//! | `metric_type` | the label `metric_type`, else the name of the metric |
//! | `value` | the value, which has to be finite |
//! | `timestamp` | the sample's own, in milliseconds, or in seconds in OpenMetrics |
//! | | without one the time of the import |
//! | `metadata` | all other labels, as a JSON object of texts |
//!
//! A map names other labels for the id and the type (`metric_type=__name__` means the name),
//! a constant gives them the same value in every row. Exemplars are left out.

use std::io::Read;

use super::fields::TimeFormat;
use super::lines::{Lines, Next, not_text, too_long};
use super::{BadLine, ParsedRow, ReadOptions, Rows, Step};
use crate::error::{Error, Result};
use crate::limits::LABELS_MAX;
use crate::schema::{Table, gauge};
use crate::time::{Clock, SystemClock, Timestamp};

/// What a map calls the name of a metric.
const NAME: &str = "__name__";
/// Labels that hold the type of a gauge, the first of which counts.
const TYPE_LABELS: &[&str] = &["metric_type", NAME];

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text, version 0.0.4: times in milliseconds.
    Text,
    /// OpenMetrics 1.0: times in seconds, and `# EOF` at the end.
    OpenMetrics,
}

/// Reads an exposition, sample by sample.
#[derive(Debug)]
pub struct PrometheusReader<R> {
    options: ReadOptions,
    exposition: Exposition,
    lines: Lines<R>,
    raw: Vec<u8>,
    fields: Fields,
    sample: Sample,
    /// Whether the end was announced.
    is_over: bool,
}

/// What a row is made of beside the sample.
#[derive(Debug)]
struct Fields {
    table: Table,
    owner: Origin,
    metric_type: Origin,
    time: TimeFormat,
    now: Timestamp,
}

/// Where a field comes from.
#[derive(Debug)]
enum Origin {
    /// The first of these labels that there is.
    Labels(Vec<String>),
    /// The same text in every row.
    Constant(String),
}

/// A piece of the sample's text.
type Span = std::ops::Range<usize>;

/// A sample; its buffers are used again for the next one.
#[derive(Debug, Default)]
struct Sample {
    /// The name, and names and values of the labels, without quotes and escapes.
    text: String,
    /// The labels; the name of the metric is one called `__name__`.
    labels: Vec<(Span, Span)>,
    metadata: String,
}

impl<R: Read> PrometheusReader<R> {
    /// Reads the first bytes, which tell whether the rest is compressed.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the table has no gauges, or the map is for fields that every
    /// sample has itself; `Io`.
    pub fn new(input: R, options: &ReadOptions, exposition: Exposition) -> Result<Self> {
        let table = options.one_table()?;
        let owners: &[&str] = match table {
            Table::Agent => &["agent_id", "agent", "instance"],
            Table::Swarm => &["swarm_id", "swarm"],
            Table::Task => {
                return Err(Error::invalid(
                    "an exposition of metrics has gauges, expected the table agent or swarm",
                ));
            }
        };
        options.map.check(table)?;
        for field in ["timestamp", "value", "metadata"] {
            if options.map.names(field) {
                return Err(Error::invalid(format!(
                    "map {field:?}: every sample has its own, expected the id or metric_type"
                )));
            }
        }
        let time = match (&options.time, exposition) {
            (TimeFormat::Rfc3339, Exposition::Text) => TimeFormat::Millis,
            (TimeFormat::Rfc3339, Exposition::OpenMetrics) => TimeFormat::Seconds,
            (given, _) => given.clone(),
        };
        let fields = Fields {
            table,
            owner: origin(options, gauge::OWNER_ID, owners)?,
            metric_type: origin(options, gauge::METRIC_TYPE, TYPE_LABELS)?,
            time,
            now: options.now.unwrap_or_else(|| SystemClock.now()),
        };
        Ok(Self {
            options: options.clone(),
            exposition,
            lines: Lines::new(input).map_err(|cause| options.io_error(cause))?,
            raw: Vec::new(),
            fields,
            sample: Sample::default(),
            is_over: false,
        })
    }

    /// The next row or bad line; `None` at the end.
    ///
    /// # Errors
    ///
    /// `BadInput` when the file is empty, its first line is not text, or its end is missing;
    /// `Io`.
    #[expect(clippy::should_implement_trait, reason = "lends rows, which an iterator cannot")]
    pub fn next(&mut self) -> Result<Option<Step<'_>>> {
        loop {
            self.raw.clear();
            let next = self.lines.read(&mut self.raw);
            let next = next.map_err(|cause| self.options.io_error(cause))?;
            let line = self.lines.number();
            match next {
                Next::End => return self.end().map(|()| None),
                Next::TooLong => return Ok(Some(Err(self.reject(too_long())))),
                Next::Line => {}
            }
            if self.is_over {
                return Err(self.options.error(line, "text after # EOF, expected nothing"));
            }
            if let Some(message) = not_text(&self.raw) {
                if line == 1 {
                    return Err(self.options.error(1, format!("not a text file: {message}")));
                }
                return Ok(Some(Err(self.reject(message))));
            }
            let text = std::str::from_utf8(&self.raw).unwrap_or_default();
            let text = text.trim_matches([' ', '\t', '\r', '\n']);
            if text.is_empty() {
                continue;
            }
            if text.starts_with('#') {
                self.is_over = text == "# EOF" && self.exposition == Exposition::OpenMetrics;
                continue;
            }
            let row = self.sample.read(text, &self.fields);
            return Ok(Some(row.map_err(|message| BadLine::of_line(line, message, &self.raw))));
        }
    }

    fn end(&self) -> Result<()> {
        let line = self.lines.number();
        if line == 0 {
            return Err(self.options.error(1, "empty file, expected samples"));
        }
        if self.exposition == Exposition::OpenMetrics && !self.is_over {
            let message = "the end is missing, expected # EOF as the last line";
            return Err(self.options.error(line, message));
        }
        Ok(())
    }
}

impl<R: Read> Rows for PrometheusReader<R> {
    fn next_row(&mut self) -> Result<Option<Step<'_>>> {
        self.next()
    }

    fn reject(&self, message: String) -> BadLine {
        BadLine::of_line(self.lines.number(), message, &self.raw)
    }
}

/// Where the field with this number comes from.
fn origin(options: &ReadOptions, field: usize, labels: &[&str]) -> Result<Origin> {
    let table = options.one_table()?;
    let constants = options.map.constants(table)?;
    if let Some((_, value)) = constants.into_iter().find(|(number, _)| *number == field) {
        return Ok(Origin::Constant(value.to_owned()));
    }
    let name = table.schema().columns.get(field).map_or("", |column| column.name);
    let labels = if options.map.names(name) {
        vec![options.map.column_of(name).to_owned()]
    } else {
        labels.iter().map(|label| (*label).to_owned()).collect()
    };
    Ok(Origin::Labels(labels))
}

impl Sample {
    /// The row of a line.
    fn read<'a>(&'a mut self, line: &str, fields: &'a Fields) -> Result<ParsedRow<'a>, String> {
        let rest = self.series(line)?;
        let mut parts = rest.split_ascii_whitespace();
        let value = parts.next().ok_or("no value, expected one after the series")?;
        let stamp = match parts.next() {
            None | Some("#") => fields.now,
            Some(text) => {
                if !matches!(parts.next(), None | Some("#")) {
                    return Err("text after the time, expected the end of the line".to_owned());
                }
                time(text, &fields.time).map_err(|error| format!("time: {}", error.message()))?
            }
        };
        let value = finite(value)?;
        let columns = fields.table.schema().columns;
        let [owner, metric_type] =
            [(gauge::OWNER_ID, &fields.owner), (gauge::METRIC_TYPE, &fields.metric_type)].map(
                |(column, origin)| {
                    let field = columns.get(column).map_or("", |column| column.name);
                    self.find(origin).ok_or_else(|| missing(field, origin))
                },
            );
        let (owner, metric_type) = (owner?, metric_type?);
        self.describe(&[owner, metric_type])?;
        let metadata = (!self.metadata.is_empty()).then_some(self.metadata.as_str());
        let owner = self.text_of(owner, &fields.owner);
        let metric_type = self.text_of(metric_type, &fields.metric_type);
        ParsedRow::gauge(fields.table, stamp, owner, metric_type, value, metadata).checked()
    }

    /// Takes the series apart; returns what follows it.
    fn series<'a>(&mut self, line: &'a str) -> Result<&'a str, String> {
        self.text.clear();
        self.labels.clear();
        self.text.push_str(NAME);
        let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        if !name.is_empty() {
            check_name(name)?;
            let value = self.keep(name);
            self.labels.push((0..NAME.len(), value));
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let rest = match rest.strip_prefix('{') {
            Some(inside) => self.braces(inside)?,
            None => rest,
        };
        if self.labels.iter().all(|(name, _)| *name != (0..NAME.len())) {
            return Err("no name, expected one of a metric".to_owned());
        }
        Ok(rest)
    }

    /// The labels up to the brace that closes.
    fn braces<'a>(&mut self, inside: &'a str) -> Result<&'a str, String> {
        let mut rest = inside;
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            if let Some(after) = rest.strip_prefix('}') {
                return Ok(after);
            }
            let name;
            let is_quoted = rest.starts_with('"');
            if is_quoted {
                (name, rest) = self.quoted(rest)?;
            } else {
                let end = rest.find(['=', ' ', '\t', ',', '}']).unwrap_or(rest.len());
                let (text, after) = rest.split_at(end);
                check_name(text)?;
                (name, rest) = (self.keep(text), after);
            }
            rest = rest.trim_start_matches([' ', '\t']);
            let (name, value) = if let Some(after) = rest.strip_prefix('=') {
                let (value, after) = self.quoted(after.trim_start_matches([' ', '\t']))?;
                rest = after;
                (name, value)
            } else if is_quoted {
                // A name beyond the old rules stands inside.
                (0..NAME.len(), name)
            } else {
                return Err("a label without a value, expected = and a quoted text".to_owned());
            };
            let known = self.piece(&name);
            if self.labels.iter().any(|(other, _)| self.piece(other) == known) {
                return Err(format!("label {known:?} is there twice, expected it once"));
            }
            // Each label is compared with all before it.
            if self.labels.len() >= LABELS_MAX {
                return Err(format!("more than {LABELS_MAX} labels, expected at most so many"));
            }
            self.labels.push((name, value));
            rest = rest.trim_start_matches([' ', '\t']);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with('}') => {}
                None => return Err("no comma after a label, expected one or }".to_owned()),
            }
        }
    }

    /// Keeps a quoted text without its quotes and escapes; returns what follows it.
    fn quoted<'a>(&mut self, text: &'a str) -> Result<(Span, &'a str), String> {
        let mut rest = text.strip_prefix('"').ok_or("no quoted text, expected one")?;
        let start = self.text.len();
        loop {
            let end = rest.find(['"', '\\']).ok_or("a quote is opened and never closed")?;
            let (plain, after) = rest.split_at(end);
            self.text.push_str(plain);
            if let Some(after) = after.strip_prefix('"') {
                return Ok((start..self.text.len(), after));
            }
            let mut escaped = after.chars();
            match escaped.nth(1) {
                Some('n') => self.text.push('\n'),
                Some(found @ ('"' | '\\')) => self.text.push(found),
                // What is no escape stands for itself.
                Some(found) => self.text.extend(['\\', found]),
                None => return Err("a quote is opened and never closed".to_owned()),
            }
            rest = escaped.as_str();
        }
    }

    fn keep(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    fn piece(&self, span: &Span) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The label that a field comes from, by number; a constant comes from none of them.
    fn find(&self, origin: &Origin) -> Option<usize> {
        let Origin::Labels(names) = origin else { return Some(usize::MAX) };
        names.iter().find_map(|name| {
            let mut labels = self.labels.iter();
            labels.position(|(label, value)| self.piece(label) == name && !value.is_empty())
        })
    }

    fn text_of<'a>(&'a self, label: usize, origin: &'a Origin) -> &'a str {
        match origin {
            Origin::Constant(text) => text,
            Origin::Labels(_) => self.labels.get(label).map_or("", |(_, value)| self.piece(value)),
        }
    }

    /// All labels but these and the name as a JSON object; nothing where there is none.
    fn describe(&mut self, used: &[usize]) -> Result<(), String> {
        let mut json = std::mem::take(&mut self.metadata).into_bytes();
        json.clear();
        for (number, (name, value)) in self.labels.iter().enumerate() {
            if used.contains(&number) || *name == (0..NAME.len()) {
                continue;
            }
            json.push(if json.is_empty() { b'{' } else { b',' });
            for (text, after) in [(name, b':'), (value, b' ')] {
                serde_json::to_writer(&mut json, self.piece(text))
                    .map_err(|error| error.to_string())?;
                json.push(after);
            }
            json.pop();
        }
        if !json.is_empty() {
            json.push(b'}');
        }
        self.metadata = String::from_utf8(json).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn missing(field: &str, origin: &Origin) -> String {
    let labels = match origin {
        Origin::Labels(labels) => labels.join(" or "),
        Origin::Constant(_) => String::new(),
    };
    format!("no label {labels}, expected one for {field}; name it with a map of {field}=label")
}

/// A name of a metric or of a label that stands without quotes.
fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':');
    let good = bytes.next().is_some_and(is_letter)
        && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit());
    if good {
        return Ok(());
    }
    let start: String = name.chars().take(40).collect();
    Err(format!("{start:?} is not a name, expected letters, digits, _ and :"))
}

fn finite(text: &str) -> Result<f64, String> {
    let value =
        text.parse().map_err(|_| format!("value: {text:?} is not a number, expected one"))?;
    if f64::is_finite(value) {
        return Ok(value);
    }
    Err(format!("value: {text} is not a finite number, expected one"))
}

/// A time, which writers in a hurry may give an exponent.
fn time(text: &str, format: &TimeFormat) -> Result<Timestamp> {
    if !text.contains(['e', 'E']) || !format.is_number() {
        return format.read(text);
    }
    match text.parse::<f64>() {
        // Microseconds of whatever the unit is; Display never has an exponent.
        Ok(number) if number.is_finite() => format.read(&number.to_string()),
        _ => format.read(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::FieldMap;
    use proptest::prelude::*;

    fn options(table: Table) -> ReadOptions {
        let mut options = ReadOptions::new("in.prom", table);
        options.now = Some(Timestamp::from_seconds(1_700_000_000).unwrap());
        options
    }

    fn read_with(input: &[u8], options: &ReadOptions, exposition: Exposition) -> Vec<String> {
        let mut reader = match PrometheusReader::new(input, options, exposition) {
            Ok(reader) => reader,
            Err(error) => return vec![error.to_string()],
        };
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(None) => return found,
                Ok(Some(Ok(ParsedRow::Agent(row)))) => found.push(format!(
                    "{} {} {} {} {}",
                    row.timestamp,
                    row.agent_id,
                    row.metric_type,
                    row.value,
                    row.metadata.unwrap_or("-")
                )),
                Ok(Some(Ok(row))) => found.push(format!("{row:?}")),
                Ok(Some(Err(bad))) => found.push(bad.to_error("in.prom").to_string()),
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    fn read(input: &str) -> Vec<String> {
        read_with(input.as_bytes(), &options(Table::Agent), Exposition::Text)
    }

    #[test]
    fn samples_of_every_kind() {
        let text = "\
# HELP http_requests_total The total.\n\
# TYPE http_requests_total counter\n\
http_requests_total{instance=\"a:9090\",code=\"200\"} 1027 1395066363000\n\
\n\
# any comment\n\
up{agent=\"b\",instance=\"x\"}1\n\
 \t\n\
http_bucket { agent_id = \"c\" , le=\"+Inf\", } +3.5E2 -1500 \r\n\
{\"my.name\", \"a b\"=\"1\", agent_id=\"d\"} 0x 1\n\
{\"my.name\", \"a b\"=\"1\", agent_id=\"d\"} -.5 1\n\
tallystone_agent_metric{agent_id=\"e\\\\\\\"\\n\\x\",metric_type=\"cpu load\"} 2";
        assert_eq!(
            read(text),
            [
                "2014-03-17T14:26:03Z a:9090 http_requests_total 1027 {\"code\":\"200\"}",
                "2023-11-14T22:13:20Z b up 1 {\"instance\":\"x\"}",
                "1969-12-31T23:59:58.500Z c http_bucket 350 {\"le\":\"+Inf\"}",
                "in.prom:9: value: \"0x\" is not a number, expected one",
                "1970-01-01T00:00:00.001Z d my.name -0.5 {\"a b\":\"1\"}",
                "2023-11-14T22:13:20Z e\\\"\n\\x cpu load 2 -",
            ]
        );
    }

    #[test]
    fn open_metrics() {
        let read = |text: &str| {
            read_with(text.as_bytes(), &options(Table::Agent), Exposition::OpenMetrics)
        };
        let text = "# TYPE a counter\n# UNIT a seconds\n\
                    a_total{agent_id=\"x\"} 5 1520879607.789 # {trace_id=\"q\"} 0.67 1\n\
                    a_total{agent_id=\"y\"} 5 # {trace_id=\"q\"} 0.67\n\
                    a_total{agent_id=\"z\"} 5 1.520879607789e+09\n# EOF\n";
        assert_eq!(
            read(text),
            [
                "2018-03-12T18:33:27.789Z x a_total 5 -",
                "2023-11-14T22:13:20Z y a_total 5 -",
                "2018-03-12T18:33:27.789Z z a_total 5 -",
            ]
        );
        let cut = text.replace("# EOF\n", "");
        assert!(read(&cut)[3].contains("in.prom:5: the end is missing, expected # EOF"));
        let more = format!("{text}a 1\n");
        assert!(read(&more)[3].contains("in.prom:7: text after # EOF"));
        assert!(read("# EOF").is_empty());
    }

    #[test]
    fn bad_lines_name_the_line_and_what_was_expected() {
        for (line, expected) in [
            ("a{agent_id=\"x\"} NaN", "value: NaN is not a finite number"),
            ("a{agent_id=\"x\"} +Inf", "value: +Inf is not a finite number"),
            ("a{agent_id=\"x\"}", "no value, expected one"),
            ("a{agent_id=\"x\"} 1 2 3", "text after the time"),
            ("a{agent_id=\"x\"} 1 x", "time: \"x\" is not a number, expected milliseconds"),
            ("a{agent_id=\"x\"} 1 1e17", "outside the years 0001 to 9999"),
            ("a{agent_id=\"x} 1", "a quote is opened and never closed"),
            ("a{agent_id=\"x\\", "a quote is opened and never closed"),
            ("a{agent_id=x} 1", "no quoted text"),
            ("a{agent_id} 1", "a label without a value"),
            ("a{agent_id=\"x\" b=\"y\"} 1", "no comma after a label"),
            ("a{agent_id=\"x\",agent_id=\"y\"} 1", "label \"agent_id\" is there twice"),
            ("a{agent_id=\"x\",\"b\"} 1", "label \"__name__\" is there twice"),
            ("{agent_id=\"x\"} 1", "no name"),
            ("a{agent_id=\"x\"", "no comma after a label"),
            ("1a{agent_id=\"x\"} 1", "\"1a\" is not a name"),
            ("a{b=\"x\"} 1", "no label agent_id or agent or instance, expected one for agent_id"),
            ("a{agent_id=\"\"} 1", "no label agent_id or agent or instance"),
            ("a\0 1", "a NUL byte at column 2"),
        ] {
            let found = read(&format!("# x\n{line}\n"));
            assert!(found[0].starts_with("in.prom:2: "), "{line}: {found:?}");
            assert!(found[0].contains(expected), "{line}: {found:?}");
            assert_eq!(found.len(), 1, "{line}: {found:?}");
        }
        assert!(read("")[0].contains("in.prom:1: empty file"));
        let found = read_with(b"\xff", &options(Table::Agent), Exposition::Text);
        assert!(found[0].contains("in.prom:1: not a text file"), "{found:?}");
    }

    /// A line of 3 MiB may have half a million labels; comparing each with each took minutes.
    #[test]
    fn labels_are_limited() {
        let line = |count: usize| {
            let labels = (0..count).map(|number| format!("l{number}=\"\","));
            format!("a{{agent_id=\"x\",{}}} 1 0\n", labels.collect::<String>())
        };
        assert!(read(&line(254))[0].starts_with("1970-01-01T00:00:00Z x a 1 {\"l0\":\"\","));
        for count in [255, 200_000] {
            let found = read(&line(count));
            assert_eq!(found, ["in.prom:1: more than 256 labels, expected at most so many"]);
        }
    }

    #[test]
    fn maps_and_constants() {
        let text = "up{host=\"h\",kind=\"k\",metric_type=\"m\"} 1 5\n";
        let with = |table, map: FieldMap| {
            let mut options = options(table);
            options.map = map;
            read_with(text.as_bytes(), &options, Exposition::Text)
        };
        let map = FieldMap::parse("metric_type=__name__,agent_id=host").unwrap();
        let rest = "{\"kind\":\"k\",\"metric_type\":\"m\"}";
        assert_eq!(with(Table::Agent, map), [format!("1970-01-01T00:00:00.005Z h up 1 {rest}")]);
        let map = FieldMap::parse("metric_type=kind").unwrap().constant("swarm_id=s").unwrap();
        let found = with(Table::Swarm, map);
        assert!(found[0].contains("swarm_id: \"s\", metric_type: \"k\""), "{found:?}");
        let map = FieldMap::parse("value=kind").unwrap();
        assert!(with(Table::Agent, map)[0].contains("map \"value\": every sample has its own"));
        assert!(
            with(Table::Task, FieldMap::new())[0].contains("expected the table agent or swarm")
        );
        let mut options = options(Table::Swarm);
        options.time = TimeFormat::Seconds;
        let found = read_with(b"a{swarm=\"s\"} 1 5", &options, Exposition::Text);
        assert!(found[0].contains("Timestamp(5000000)"), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            open in any::<bool>(),
        ) {
            let exposition = if open { Exposition::OpenMetrics } else { Exposition::Text };
            read_with(&bytes, &options(Table::Agent), exposition);
        }

        #[test]
        fn any_label_is_read_back(value in ".{1,20}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let text = format!("a{{agent_id=\"{quoted}\"}} 1 0\n");
            if !value.contains(['\0', '\r']) {
                prop_assert_eq!(read(&text), [format!("1970-01-01T00:00:00Z {value} a 1 -")]);
            }
        }
    }
}
