//! Values as text: numbers, times, cells of CSV, strings and values of JSON.
//!
//! Everything is appended to a buffer, and nothing is allocated for a value. Numbers are
//! those of `serde_json`, so that all that the store writes agrees to the last digit.

use crate::query::ordered::{line_byte, one_line};
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND, Partition};

/// Appends an integer.
pub(super) fn push_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a count.
pub(super) fn push_count(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a finite float: the shortest text that gives it back.
pub(super) fn push_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// Appends microseconds as seconds, with as many decimals as needed.
pub(super) fn push_seconds(out: &mut Vec<u8>, micros: i64) {
    if micros < 0 {
        out.push(b'-');
    }
    let second = MICROS_PER_SECOND.unsigned_abs();
    let micros = micros.unsigned_abs();
    push_count(out, micros / second);
    push_decimals(out, micros % second);
}

/// Appends a point and the decimals of microseconds: none, three or six.
fn push_decimals(out: &mut Vec<u8>, micros: u64) {
    match micros {
        0 => {}
        _ if micros.is_multiple_of(1_000) => {
            let [_, a, b, c] = digits(micros / 1_000);
            out.extend_from_slice(&[b'.', a, b, c]);
        }
        _ => {
            let ([_, a, b, c], [_, d, e, f]) = (digits(micros / 1_000), digits(micros % 1_000));
            out.extend_from_slice(&[b'.', a, b, c, d, e, f]);
        }
    }
}

/// The last four digits of a number.
fn digits(number: u64) -> [u8; 4] {
    [number / 1_000, number / 100, number / 10, number]
        .map(|part| b'0' + u8::try_from(part % 10).unwrap_or(0))
}

/// Times in RFC 3339, UTC, as `Timestamp` is displayed; remembers the day.
#[derive(Debug, Default)]
pub(super) struct Times {
    day: Option<i64>,
    /// `2026-11-23T`.
    date: Vec<u8>,
}

impl Times {
    pub(super) fn push(&mut self, out: &mut Vec<u8>, micros: i64) {
        let day = micros.div_euclid(MICROS_PER_DAY);
        if self.day != Some(day) {
            self.day = Some(day);
            self.date.clear();
            let name = Partition::of_micros(micros).directory_name();
            self.date.extend_from_slice(name.as_bytes());
            self.date.push(b'T');
        }
        out.extend_from_slice(&self.date);
        let of_day = micros.rem_euclid(MICROS_PER_DAY).unsigned_abs();
        let second = of_day / MICROS_PER_SECOND.unsigned_abs();
        let [_, _, h, i] = digits(second / 3_600);
        let [_, _, m, n] = digits(second / 60 % 60);
        let [_, _, s, t] = digits(second % 60);
        out.extend_from_slice(&[h, i, b':', m, n, b':', s, t]);
        push_decimals(out, of_day % MICROS_PER_SECOND.unsigned_abs());
        out.push(b'Z');
    }
}

/// Whether a spreadsheet may take a text for a formula: it begins with what formulas begin with,
/// in full width too, or with a blank that is not seen.
pub fn is_formula(text: &str) -> bool {
    const SIGNS: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    text.starts_with(SIGNS) || text.starts_with(['\t', '\r', '\n'])
}

/// Appends a cell of CSV, in quotes where it needs them (RFC 4180), and where it has a NUL, which
/// imports take for text in quotes alone. Unless `raw`, a text that
/// a spreadsheet would take for a formula gets an apostrophe in front.
pub(super) fn push_cell(out: &mut Vec<u8>, text: &str, raw: bool) {
    let guard = !raw && is_formula(text);
    let guard = if guard { "'" } else { "" };
    // Looks at all bytes, so that the loop has no branch.
    let special = |byte: u8| matches!(byte, b',' | b'"' | b'\r' | b'\n' | 0);
    let quoted = text.bytes().fold(false, |any, byte| any | special(byte));
    if !quoted {
        out.extend_from_slice(guard.as_bytes());
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(guard.as_bytes());
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'"') {
        let (before, after) = rest.split_at(at + 1);
        out.extend_from_slice(before);
        out.push(b'"');
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a string of JSON.
pub(super) fn push_json_text(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    out.push(b'"');
    if text.bytes().fold(false, |any, byte| any | special(byte)) {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 => {
                    let digit = |half: u8| HEX[usize::from(half & 15)];
                    out.extend_from_slice(&[
                        b'\\',
                        b'u',
                        b'0',
                        b'0',
                        digit(byte >> 4),
                        digit(byte),
                    ]);
                }
                _ => out.push(byte),
            }
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

/// Appends JSON text as it is, on one line. A string becomes JSON text in a string: so it is
/// what imports take it for.
pub(super) fn push_json(out: &mut Vec<u8>, json: &str) {
    let json = one_line(json);
    if json.starts_with('"') {
        push_json_text(out, json);
        return;
    }
    if json.bytes().fold(false, |any, byte| any | (line_byte(byte) != byte)) {
        out.extend(json.bytes().map(line_byte));
    } else {
        out.extend_from_slice(json.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_spelled_as_they_are_displayed() {
        let mut times = Times::default();
        let stamps =
            [Timestamp::MIN, Timestamp::MAX, Timestamp::clamped(0), Timestamp::clamped(-1)]
                .into_iter()
                .chain(
                    (0..4_000)
                        .map(|i| Timestamp::clamped(i * 7_919_000_001_234 - 1_000_000_000_000)),
                )
                .chain((0..4_000).map(|i| Timestamp::clamped(i * 86_399_999)));
        for stamp in stamps {
            let spelled = text(|out| times.push(out, stamp.as_micros()));
            assert_eq!(spelled, stamp.to_string());
        }
    }

    #[test]
    fn seconds_have_the_decimals_they_need() {
        for (micros, expected) in [
            (0, "0"),
            (1_500_000, "1.500"),
            (-1, "-0.000001"),
            (-2_000_000, "-2"),
            (1_700_000_000_123_456, "1700000000.123456"),
        ] {
            assert_eq!(text(|out| push_seconds(out, micros)), expected);
        }
    }

    #[test]
    fn cells_are_quoted_and_guarded() {
        for (cell, guarded, raw) in [
            ("", "", ""),
            ("a b", "a b", "a b"),
            ("a,\"b\"\n", "\"a,\"\"b\"\"\n\"", "\"a,\"\"b\"\"\n\""),
            ("=1+1", "'=1+1", "=1+1"),
            ("+\"", "\"'+\"\"\"", "\"+\"\"\""),
            ("\r", "\"'\r\"", "\"\r\""),
            ("\t", "'\t", "\t"),
            ("\u{ff1d}1", "'\u{ff1d}1", "\u{ff1d}1"),
            (" =\u{ff1d}", " =\u{ff1d}", " =\u{ff1d}"),
            ("\0a", "\"\0a\"", "\"\0a\""),
            ("\"\"", "\"\"\"\"\"\"", "\"\"\"\"\"\""),
        ] {
            assert_eq!(text(|out| push_cell(out, cell, false)), guarded, "{cell:?}");
            assert_eq!(text(|out| push_cell(out, cell, true)), raw, "{cell:?}");
        }
    }

    #[test]
    fn strings_of_json_are_those_of_the_library() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        for string in [&all[..], "", "plain", "\u{1f600}\u{2028}", "\0"] {
            let spelled = text(|out| push_json_text(out, string));
            assert_eq!(serde_json::from_str::<String>(&spelled).unwrap(), string);
            assert!(!spelled.contains('\n'));
        }
        assert_eq!(text(|out| push_json(out, " [1, 2,\r\n3 ]\n")), "[1, 2,  3 ]");
        assert_eq!(text(|out| push_json(out, "\"a\"")), "\"\\\"a\\\"\"");
        for value in [0.0, -0.0, 1e300, 0.1 + 0.2, 5e-324, -17.0] {
            let spelled = text(|out| push_float(out, value));
            assert_eq!(spelled, serde_json::to_string(&value).unwrap());
        }
    }
}
