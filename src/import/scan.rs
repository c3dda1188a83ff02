//! The structure of a JSON text that need not fit into memory.
//!
//! Owns finding where values begin and end. What a value says, and whether it is right in
//! itself, is for the caller to ask of its text, which is bounded.

use std::io::{self, BufRead, BufReader, Read};

use crate::limits::LINE_BYTES_MAX;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Why a text cannot be read on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be read.
    Io(io::Error),
    /// It is not JSON; what is wrong, and what was expected.
    Syntax(String),
}

impl From<io::Error> for Fault {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

fn syntax<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Syntax(message.into()))
}

/// Reads a JSON text from front to end.
#[derive(Debug)]
pub(super) struct Scanner<R> {
    input: BufReader<R>,
    line: u64,
    begun: bool,
    max: usize,
}

impl<R: Read> Scanner<R> {
    pub(super) fn new(input: R) -> Self {
        Self::with_max(input, LINE_BYTES_MAX)
    }

    fn with_max(input: R, max: usize) -> Self {
        Self { input: BufReader::with_capacity(64 << 10, input), line: 1, begun: false, max }
    }

    /// Number of the line that is being read, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next byte that is no blank; it stays.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, Fault> {
        if !std::mem::replace(&mut self.begun, true) {
            self.skip_mark()?;
        }
        loop {
            let buffer = self.input.fill_buf()?;
            let Some(blanks) = buffer.iter().position(|byte| !b" \t\r\n".contains(byte)) else {
                let length = buffer.len();
                if length == 0 {
                    return Ok(None);
                }
                self.consume(length);
                continue;
            };
            let next = buffer.get(blanks).copied();
            self.consume(blanks);
            return Ok(next);
        }
    }

    fn skip_mark(&mut self) -> Result<(), Fault> {
        if self.input.fill_buf()?.first() != BOM.first() {
            return Ok(());
        }
        let mut mark = Vec::with_capacity(BOM.len());
        self.input.by_ref().take(BOM.len() as u64).read_to_end(&mut mark)?;
        if mark == BOM { Ok(()) } else { syntax("not a JSON text, expected { or [") }
    }

    fn consume(&mut self, count: usize) {
        let taken = self.input.buffer().get(..count).unwrap_or_default();
        self.line += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.input.consume(count);
    }

    /// Takes `byte`, which has to come next.
    pub(super) fn take(&mut self, byte: u8) -> Result<(), Fault> {
        let found = self.peek()?;
        if found == Some(byte) {
            self.consume(1);
            return Ok(());
        }
        syntax(format!("{}, expected {:?}", shown(found), char::from(byte)))
    }

    /// Goes to the next value of the array or member of the object that `end` closes; false
    /// when it is closed.
    pub(super) fn advance(&mut self, first: bool, end: u8) -> Result<bool, Fault> {
        match self.peek()? {
            Some(found) if found == end => {
                self.consume(1);
                return Ok(false);
            }
            _ if first => {}
            Some(b',') => {
                self.consume(1);
                if self.peek()? == Some(end) {
                    return syntax("a comma with nothing after it, expected a value");
                }
            }
            found => {
                let end = char::from(end);
                return syntax(format!("{}, expected ',' or {end:?}", shown(found)));
            }
        }
        Ok(true)
    }

    /// Reads the key of a member, and the colon after it.
    pub(super) fn key(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        if self.peek()? != Some(b'"') {
            let found = self.peek()?;
            return syntax(format!("{}, expected a key", shown(found)));
        }
        buffer.clear();
        let is_whole = self.capture(buffer)?;
        let key = serde_json::from_slice(buffer).ok().filter(|_: &String| is_whole);
        self.take(b':')?;
        key.map_or_else(|| syntax("a key that is no text"), Ok)
    }

    /// Appends the text of the next value to `buffer`; false where it is longer than a line
    /// may be and was cut.
    pub(super) fn capture(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(first) = self.peek()? else {
            return syntax("the text ends, expected a value");
        };
        let start = buffer.len();
        let mut state = State { depth: 0, is_text: false, is_escaped: false };
        let is_scalar = !b"{[\"".contains(&first);
        loop {
            let input = self.input.fill_buf()?;
            let length = input.len();
            if length == 0 {
                return if is_scalar {
                    Ok(buffer.len() - start <= self.max)
                } else {
                    syntax("the text ends inside a value, expected its end")
                };
            }
            let end = if is_scalar {
                input.iter().position(|byte| b",]}: \t\r\n".contains(byte))
            } else {
                input.iter().position(|byte| state.ends_at(*byte)).map(|at| at + 1)
            };
            if is_scalar && end == Some(0) && buffer.len() == start {
                return syntax(format!("{}, expected a value", shown(Some(first))));
            }
            let taken = end.unwrap_or(length);
            let room = (self.max + 1).saturating_sub(buffer.len() - start);
            buffer.extend_from_slice(input.get(..taken.min(room)).unwrap_or_default());
            self.consume(taken);
            if end.is_some() {
                return Ok(buffer.len() - start <= self.max);
            }
        }
    }

    /// Checks that nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        match self.peek()? {
            None => Ok(()),
            found => syntax(format!("{} after the end, expected nothing", shown(found))),
        }
    }
}

/// How far into a value the scan is.
struct State {
    depth: u64,
    is_text: bool,
    is_escaped: bool,
}

impl State {
    /// Whether the value ends with this byte.
    fn ends_at(&mut self, byte: u8) -> bool {
        if self.is_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_text = false,
                _ => return false,
            }
            return byte == b'"' && !self.is_text && self.depth == 0;
        }
        match byte {
            b'"' => self.is_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

fn shown(found: Option<u8>) -> String {
    match found {
        None => "the text ends".to_owned(),
        Some(byte) if byte.is_ascii_graphic() => format!("found {:?}", char::from(byte)),
        Some(byte) => format!("found the byte 0x{byte:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The elements of an array, or what is wrong.
    fn elements(text: &[u8], max: usize) -> Result<Vec<(String, bool)>, String> {
        let mut scanner = Scanner::with_max(text, max);
        let mut found = Vec::new();
        let mut run = || {
            scanner.take(b'[')?;
            while scanner.advance(found.is_empty(), b']')? {
                let mut raw = Vec::new();
                let is_whole = scanner.capture(&mut raw)?;
                found.push((String::from_utf8_lossy(&raw).into_owned(), is_whole));
            }
            scanner.finish()
        };
        match run() {
            Ok(()) => Ok(found),
            Err(Fault::Syntax(message)) => Err(message),
            Err(Fault::Io(cause)) => Err(cause.to_string()),
        }
    }

    #[test]
    fn values_of_every_kind() {
        let text = "\u{feff} [ 1,-2.5e3 ,\"a\\\"]\\\\\" , {\"b\":[{}]},[] ,null\n]\n";
        let found = elements(text.as_bytes(), 100).unwrap();
        let found: Vec<_> = found.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(found, ["1", "-2.5e3", "\"a\\\"]\\\\\"", "{\"b\":[{}]}", "[]", "null"]);
        assert_eq!(elements(b"[]", 100).unwrap(), []);
    }

    #[test]
    fn a_value_too_long_costs_itself_alone() {
        let found = elements(b"[\"0123456789\",7,{\"a\":\"0123456789\"}, 8]", 8).unwrap();
        let flags: Vec<_> = found.iter().map(|(_, is_whole)| *is_whole).collect();
        assert_eq!(flags, [false, true, false, true]);
        assert!(found.iter().all(|(text, _)| text.len() <= 9), "{found:?}");
    }

    #[test]
    fn what_is_no_array() {
        for (text, expected) in [
            ("", "the text ends, expected '['"),
            ("{}", "found '{', expected '['"),
            ("[1 2]", "found '2', expected ',' or ']'"),
            ("[1,]", "a comma with nothing after it"),
            ("[,1]", "found ',', expected a value"),
            ("[1", "the text ends, expected ',' or ']'"),
            ("[\"a", "the text ends inside a value"),
            ("[{\"a\":1", "the text ends inside a value"),
            ("[1]x", "found 'x' after the end"),
            ("[1]\0", "found the byte 0x00 after the end"),
        ] {
            assert!(elements(text.as_bytes(), 100).unwrap_err().contains(expected), "{text}");
        }
        for text in [&b"\xEF\xBB["[..], b"\xEF"] {
            assert!(elements(text, 100).unwrap_err().contains("not a JSON text"), "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted() {
        let mut scanner = Scanner::new(&b"\n[\n{\n},\n 1]"[..]);
        scanner.take(b'[').unwrap();
        scanner.advance(true, b']').unwrap();
        assert_eq!(scanner.line(), 3);
        scanner.capture(&mut Vec::new()).unwrap();
        scanner.advance(false, b']').unwrap();
        assert_eq!(scanner.line(), 5);
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut text = b"[".to_vec();
            text.extend(&bytes);
            let _ = elements(&text, 20);
        }
    }
}
