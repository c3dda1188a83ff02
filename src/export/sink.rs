//! Where an export goes: a buffer in front of the caller's writer.
//!
//! Owns the counts of an export and how they are told on the way.

use std::io;

use crate::error::{Error, Result};
use crate::export::Progress;

/// Bytes that are handed to the writer at once.
const BUFFER_BYTES: usize = 128 << 10;

/// A buffered writer that counts.
pub(super) struct Sink<'a> {
    /// What is to be written next. Formats append to it, and call [`settle`](Self::settle).
    pub(super) buffer: Vec<u8>,
    out: &'a mut dyn io::Write,
    on_progress: &'a mut dyn FnMut(Progress),
    written: u64,
    rows: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        out: &'a mut dyn io::Write,
        on_progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 4);
        Self { buffer, out, on_progress, written: 0, rows: 0 }
    }

    /// Appends a text as it is.
    pub(super) fn push(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    /// Hands the buffer on if there is much in it. To be called once a row.
    ///
    /// # Errors
    ///
    /// `Io` or `NoSpace` when it cannot be written.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.buffer.len() < BUFFER_BYTES { Ok(()) } else { self.hand_on() }
    }

    fn hand_on(&mut self) -> Result<()> {
        self.out.write_all(&self.buffer).map_err(failed)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Counts rows that were written, and says so.
    pub(super) fn count(&mut self, rows: usize) {
        self.rows += rows as u64;
        let bytes = self.written + self.buffer.len() as u64;
        (self.on_progress)(Progress { rows: self.rows, bytes });
    }

    /// Writes what is left; rows and bytes of all.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub(super) fn finish(mut self) -> Result<(u64, u64)> {
        self.hand_on()?;
        self.out.flush().map_err(failed)?;
        Ok((self.rows, self.written))
    }
}

fn failed(cause: io::Error) -> Error {
    Error::output("write the export", cause)
}
