//! The trailer: the last 64 bytes of a sealed file, which locate its footer (spec 6.6).
//!
//! A file without a good trailer at its end is not lost: its footer can be rebuilt by
//! walking the frames.

use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum;
use crate::format::cursor::{Fields, Record};
use crate::format::id::Id;
use crate::format::layout::{
    ALIGNMENT, FOOTER_BYTES_MAX, FRAME_HEADER_BYTES, FRAMES_OFFSET, TRAILER_BYTES, TRAILER_MAGIC,
    trailer,
};

const SECTION: &str = "6.6";

/// Where the footer of a sealed file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Where the FOOTER frame starts.
    pub(crate) footer_offset: u64,
    /// Bytes of the FOOTER frame: header, payload, padding.
    pub(crate) footer_bytes: u64,
    /// The file.
    pub(crate) uuid: Id,
}

impl Trailer {
    /// The bytes of the trailer.
    pub(crate) fn encode(&self) -> [u8; TRAILER_BYTES] {
        let record = Record::<TRAILER_BYTES>::new()
            .set(trailer::MAGIC, &TRAILER_MAGIC)
            .set(trailer::FOOTER_OFFSET, &self.footer_offset.to_le_bytes())
            .set(trailer::FOOTER_BYTES, &self.footer_bytes.to_le_bytes())
            .set(trailer::UUID, self.uuid.as_bytes());
        let crc = checksum::crc32(record.before(trailer::CRC));
        record.set(trailer::CRC, &crc.to_le_bytes()).finish()
    }

    /// Reads the trailer of the file `uuid` from its last bytes, which start at `offset`.
    ///
    /// # Errors
    ///
    /// `Torn` when there are too few bytes; `Corrupt` when they are not the trailer of
    /// this file in this place.
    pub(crate) fn decode(bytes: &[u8], uuid: &Id, offset: u64) -> Result<Self> {
        if bytes.len() < TRAILER_BYTES {
            return Err(Error::new(ErrorKind::Torn, "the file ends inside its trailer"));
        }
        Self::parse(bytes, uuid, offset).map_err(|error| error.with_offset(offset))
    }

    fn parse(bytes: &[u8], uuid: &Id, offset: u64) -> Result<Self> {
        let bad = |message: String| Err(Error::corrupt(SECTION, message));
        let fields = Fields::new(bytes, SECTION);
        if fields.bytes(trailer::MAGIC)? != TRAILER_MAGIC {
            return bad("no trailer magic".to_owned());
        }
        let checked = bytes.get(..trailer::CRC.offset).unwrap_or_default();
        let crc = fields.u32(trailer::CRC)?;
        checksum::check(SECTION, "trailer", crc, checksum::crc32(checked))?;
        fields.zeros(&[trailer::ZERO_1])?;
        let read = Self {
            footer_offset: fields.u64(trailer::FOOTER_OFFSET)?,
            footer_bytes: fields.u64(trailer::FOOTER_BYTES)?,
            uuid: fields.id(trailer::UUID)?,
        };
        if read.uuid != *uuid {
            return bad(format!("trailer of the file {}, expected {uuid}", read.uuid));
        }
        let sizes = FRAME_HEADER_BYTES as u64..=(FRAME_HEADER_BYTES + FOOTER_BYTES_MAX) as u64;
        if read.footer_offset < FRAMES_OFFSET as u64
            || !read.footer_offset.is_multiple_of(ALIGNMENT as u64)
            || !sizes.contains(&read.footer_bytes)
            || read.footer_offset.checked_add(read.footer_bytes) != Some(offset)
        {
            let Self { footer_offset, footer_bytes, .. } = read;
            return bad(format!(
                "footer of {footer_bytes} bytes at {footer_offset} before a trailer at {offset}"
            ));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::spec_text::assert_example;

    fn sample() -> Trailer {
        Trailer { footer_offset: 83_968, footer_bytes: 240, uuid: Id::from_bytes([0x22; 16]) }
    }

    fn decode(bytes: &[u8]) -> Result<Trailer> {
        Trailer::decode(bytes, &sample().uuid, 84_208)
    }

    #[test]
    fn round_trips_and_is_the_spec_example() {
        let bytes = sample().encode();
        assert_eq!(decode(&bytes).unwrap(), sample());
        assert_example("trailer", &bytes);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(decode(&good[..len]).unwrap_err().kind(), ErrorKind::Torn);
        }
    }

    #[test]
    fn it_holds_for_one_place_of_one_file() {
        let bytes = sample().encode();
        assert!(Trailer::decode(&bytes, &sample().uuid, 84_216).is_err());
        assert!(Trailer::decode(&bytes, &Id::NONE, 84_208).is_err());
        for bad in [
            Trailer { footer_offset: 0, footer_bytes: 84_208, ..sample() },
            Trailer { footer_offset: 84_188, footer_bytes: 20, ..sample() },
            Trailer { footer_offset: u64::MAX - 7, footer_bytes: 240, ..sample() },
            Trailer { footer_offset: 83_964, footer_bytes: 244, ..sample() },
        ] {
            assert!(decode(&bad.encode()).is_err(), "{bad:?}");
        }
    }
}
