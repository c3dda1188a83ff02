//! Cutting stored bytes up, and padding written ones (spec 1).
//!
//! Owns `Reader`, which never reads past its end, and the helpers that write headers and
//! padding. Knows nothing of encodings.

use super::layout::ALIGNMENT;
use crate::error::{Error, Result};

/// What is left of some stored bytes, and the section of the spec that describes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    section: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8], section: &'static str) -> Self {
        Self { rest, section }
    }

    pub(super) fn corrupt(&self, message: impl Into<String>) -> Error {
        Error::corrupt(self.section, message)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| {
            self.corrupt(format!("expected {count} more bytes, found {}", self.rest.len()))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| {
            self.corrupt(format!("expected {N} more bytes, found {}", self.rest.len()))
        })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A count or length of 32 bits.
    pub(super) fn count(&mut self) -> Result<usize> {
        self.u32().map(widen)
    }

    /// Takes `count` bytes, which must all be zero.
    pub(super) fn zeros(&mut self, count: usize) -> Result<()> {
        if self.take(count)?.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err(self.corrupt("expected zero padding"))
        }
    }

    /// `count` bytes and the zeros that pad them.
    pub(super) fn padded(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.take(count)?;
        self.zeros(padding(count))?;
        Ok(taken)
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything was read.
    pub(super) fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.corrupt(format!("{extra} bytes too many"))),
        }
    }
}

/// A stored 32-bit count as an index; the targets that are supported have 64 bits.
#[inline]
pub(super) fn widen(count: u32) -> usize {
    count as usize
}

/// Zeros that follow `count` bytes.
pub(super) fn padding(count: usize) -> usize {
    count.wrapping_neg() % ALIGNMENT
}

/// Pads what was written since `start` with zeros.
pub(super) fn pad(out: &mut Vec<u8>, start: usize) {
    out.resize(out.len() + padding(out.len() - start), 0);
}

/// A count that the limits keep below 4 Gi.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) -> Result<()> {
    let count = u32::try_from(count)
        .map_err(|_| Error::invalid(format!("{count}: a chunk holds less than 4 GiB")))?;
    out.extend_from_slice(&count.to_le_bytes());
    Ok(())
}
