//! Reading and writing numbers at checked places.
//!
//! `Cursor` reads one thing after the other, `Fields` reads the fields of a structure of
//! fixed size by their place in `layout`, `Record` fills such a structure. All numbers
//! are little-endian (spec 1.1). Reading never goes past the end and never panics.

use crate::error::{Error, Result};
use crate::format::id::Id;
use crate::format::layout::{ALIGNMENT, Field, ID_BYTES};

/// `len` rounded up to the alignment of frames and chunks.
pub(crate) const fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    section: &'static str,
}

macro_rules! numbers {
    ($($name:ident: $type:ty),+) => {
        $(
            /// Takes a little-endian number.
            pub(crate) fn $name(&mut self) -> Result<$type> {
                Ok(<$type>::from_le_bytes(self.array()?))
            }
        )+
    };
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`; errors name `section` of the spec.
    pub(crate) fn new(bytes: &'a [u8], section: &'static str) -> Self {
        Self { rest: bytes, section }
    }

    /// Bytes that are left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(format!("{count} bytes expected, {} left", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Takes as many bytes as the array has.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(format!("{N} bytes expected, {} left", self.rest.len())));
        };
        self.rest = rest;
        Ok(*taken)
    }

    numbers!(u8: u8, u32: u32, u64: u64);

    /// Takes a uuid.
    pub(crate) fn id(&mut self) -> Result<Id> {
        Ok(Id::from_bytes(self.array()?))
    }

    /// Takes a length byte and that much text.
    pub(crate) fn short_text(&mut self) -> Result<&'a str> {
        let len = self.u8()?;
        let bytes = self.bytes(usize::from(len))?;
        std::str::from_utf8(bytes).map_err(|_| self.error("text is not UTF-8"))
    }

    /// Takes `count` bytes that must be zero.
    pub(crate) fn zeros(&mut self, count: usize) -> Result<()> {
        if is_zero(self.bytes(count)?) { Ok(()) } else { Err(self.error("padding is not zero")) }
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.error(format!("{} bytes left over", self.rest.len())))
        }
    }

    /// An error of the bytes being read.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::corrupt(self.section, message)
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A structure of fixed size whose fields are read by their place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    section: &'static str,
}

macro_rules! fields {
    ($($name:ident: $type:ty),+) => {
        $(
            /// Reads a little-endian number.
            pub(crate) fn $name(&self, field: Field) -> Result<$type> {
                Ok(<$type>::from_le_bytes(self.array(field)?))
            }
        )+
    };
}

impl<'a> Fields<'a> {
    /// Reads from `bytes`; errors name `section` of the spec.
    pub(crate) fn new(bytes: &'a [u8], section: &'static str) -> Self {
        Self { bytes, section }
    }

    /// The bytes of a field.
    pub(crate) fn bytes(&self, field: Field) -> Result<&'a [u8]> {
        self.bytes
            .get(field.offset..field.end())
            .ok_or_else(|| Error::corrupt(self.section, "structure is cut short"))
    }

    fn array<const N: usize>(&self, field: Field) -> Result<[u8; N]> {
        self.bytes(field)?
            .try_into()
            .map_err(|_| Error::corrupt(self.section, "field has another size"))
    }

    fields!(u8: u8, u16: u16, u32: u32, u64: u64, i32: i32, i64: i64);

    /// Reads a uuid.
    pub(crate) fn id(&self, field: Field) -> Result<Id> {
        Ok(Id::from_bytes(self.array::<ID_BYTES>(field)?))
    }

    /// Checks that fields are zero.
    pub(crate) fn zeros(&self, fields: &[Field]) -> Result<()> {
        for field in fields {
            if !is_zero(self.bytes(*field)?) {
                return Err(Error::corrupt(
                    self.section,
                    format!("bytes {}..{} are not zero", field.offset, field.end()),
                ));
            }
        }
        Ok(())
    }
}

/// A structure of `N` bytes being filled; what is not set stays zero.
#[derive(Clone, Debug)]
pub(crate) struct Record<const N: usize>([u8; N]);

impl<const N: usize> Record<N> {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self([0; N])
    }

    /// Sets a field; `value` has exactly its size.
    #[must_use]
    pub(crate) fn set(mut self, field: Field, value: &[u8]) -> Self {
        self.0[field.offset..field.end()].copy_from_slice(value);
        self
    }

    /// Bytes before `end`, for a checksum over them.
    pub(crate) fn before(&self, end: Field) -> &[u8] {
        &self.0[..end.offset]
    }

    /// The whole structure.
    pub(crate) fn finish(self) -> [u8; N] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_reads_to_the_end_and_no_further() {
        let bytes = [1, 2, 0, 3, 0, 2, b'o', b'k', 0, 0, 7];
        let mut cursor = Cursor::new(&bytes, "1.1");
        assert_eq!(cursor.u8().unwrap(), 1);
        assert_eq!(cursor.u32().unwrap(), 0x3_0002);
        assert_eq!(cursor.short_text().unwrap(), "ok");
        cursor.zeros(2).unwrap();
        assert!({ cursor }.zeros(1).is_err());
        assert!({ cursor }.finish().is_err());
        assert!({ cursor }.u64().is_err());
        assert!({ cursor }.bytes(usize::MAX).is_err());
        assert_eq!(cursor.u8().unwrap(), 7);
        assert_eq!(cursor.remaining(), 0);
        cursor.finish().unwrap();
    }

    #[test]
    fn short_text_must_be_utf8_and_whole() {
        assert!(Cursor::new(&[2, 0xC3, 0x28], "2.2").short_text().is_err());
        assert!(Cursor::new(&[3, b'a', b'b'], "2.2").short_text().is_err());
    }

    #[test]
    fn padding_rounds_up_to_eight() {
        assert_eq!([0, 1, 7, 8, 9].map(padded), [0, 8, 8, 8, 16]);
    }
}
