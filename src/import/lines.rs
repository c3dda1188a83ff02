//! Lines of a source, with a bound on their length.

use std::io::{self, BufRead, BufReader, Read};

use super::gzip::Unpacked;
use crate::limits::LINE_BYTES_MAX;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What follows in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line; its bytes were appended to the caller's buffer, with the line end if any.
    Line,
    /// A line beyond the limit; its beginning was appended, its end passed over.
    TooLong,
    /// Nothing.
    End,
}

/// Lines of a source, numbered from 1.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: BufReader<Unpacked<R>>,
    number: u64,
    max: usize,
}

impl<R: Read> Lines<R> {
    /// Reads the first bytes.
    pub(super) fn new(input: R) -> io::Result<Self> {
        Self::with_max(input, LINE_BYTES_MAX)
    }

    fn with_max(input: R, max: usize) -> io::Result<Self> {
        let input = BufReader::with_capacity(64 << 10, Unpacked::new(input)?);
        Ok(Self { input, number: 0, max })
    }

    /// Number of the line that was read last; 0 before the first.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Appends the next line to `buffer`; a byte order mark at the very start is left out.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Next> {
        let before = buffer.len();
        let limit = self.max as u64 + 1;
        let count = (&mut self.input).take(limit).read_until(b'\n', buffer)?;
        if count == 0 {
            return Ok(Next::End);
        }
        self.number += 1;
        if self.number == 1 && buffer.get(before..).is_some_and(|line| line.starts_with(BOM)) {
            buffer.drain(before..before + BOM.len());
        }
        if count > self.max {
            if !buffer.ends_with(b"\n") {
                self.input.skip_until(b'\n')?;
            }
            return Ok(Next::TooLong);
        }
        Ok(Next::Line)
    }
}

/// What a line beyond the limit is told.
pub(super) fn too_long() -> String {
    format!("a line of more than {LINE_BYTES_MAX} bytes, expected at most so many")
}

/// Whether a line has nothing but its end.
pub(super) fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"" | b"\n" | b"\r\n")
}

/// Why bytes are not text, if they are not.
pub(super) fn not_text(bytes: &[u8]) -> Option<String> {
    // Told apart first, since a search for one byte is fast and for its place is not.
    if bytes.contains(&0) {
        return Some(has_nul(bytes.iter().position(|byte| *byte == 0).unwrap_or_default()));
    }
    not_utf8(bytes)
}

/// What a line is told that has a NUL here.
pub(super) fn has_nul(at: usize) -> String {
    format!("a NUL byte at column {}, expected text", at + 1)
}

/// Why bytes are not UTF-8, if they are not.
pub(super) fn not_utf8(bytes: &[u8]) -> Option<String> {
    let error = std::str::from_utf8(bytes).err()?;
    Some(format!("invalid UTF-8 at column {}, expected UTF-8 text", error.valid_up_to() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], max: usize) -> Vec<(Next, Vec<u8>)> {
        let mut lines = Lines::with_max(bytes, max).unwrap();
        let mut found = Vec::new();
        loop {
            let mut line = Vec::new();
            match lines.read(&mut line).unwrap() {
                Next::End => return found,
                next => found.push((next, line)),
            }
        }
    }

    #[test]
    fn line_ends_of_every_kind() {
        let found = all(b"\xEF\xBB\xBFa\r\n\nb", 10);
        let expected: [&[u8]; 3] = [b"a\r\n", b"\n", b"b"];
        assert_eq!(found, expected.map(|line| (Next::Line, line.to_vec())));
        assert!(all(b"", 10).is_empty());
    }

    #[test]
    fn a_line_too_long_costs_itself_alone() {
        let found = all(b"0123456789abc\nok\n0123456789abc", 10);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].0, Next::TooLong);
        assert!(found[0].1.len() <= 11);
        assert_eq!(found[1], (Next::Line, b"ok\n".to_vec()));
        assert_eq!(found[2].0, Next::TooLong);
        assert_eq!(all(b"012345678\nx", 10)[0].0, Next::Line);
        assert_eq!(all(b"0123456789\nx", 10)[0].0, Next::TooLong);
        assert_eq!(all(b"0123456789\nx", 10)[1], (Next::Line, b"x".to_vec()));
    }

    #[test]
    fn text_and_what_is_none() {
        assert_eq!(not_text("caf\u{e9}".as_bytes()), None);
        assert!(not_text(b"ab\0").unwrap().contains("NUL byte at column 3"));
        assert!(not_text(b"ab\xff").unwrap().contains("invalid UTF-8 at column 3"));
    }
}
