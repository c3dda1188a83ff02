//! Checksums: CRC-32 (IEEE 802.3), seeded with the place that the bytes belong to (spec 1.5).
//!
//! Structures that hold their own place (headers, frame headers, the trailer) use the
//! plain CRC. Payloads and chunks are hashed after the uuid of the file, the sequence
//! number and the offset of the frame, so that right bytes in a wrong place fail.

use crc32fast::Hasher;

use crate::error::{Error, Result};
use crate::format::id::Id;
use crate::format::layout::CHECKSUM_SEED_BYTES;
use crate::planted::{Bug, is_planted};

/// The plain CRC-32 of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The state after hashing where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// The seed of the frame `seq` at `offset` of the file `uuid`.
    pub(crate) fn new(uuid: &Id, seq: u64, offset: u64) -> Self {
        let is_placeless = is_planted(Bug::AcceptMisplacedFrame);
        let (seq, offset) = if is_placeless { (0, 0) } else { (seq, offset) };
        let mut hasher = Hasher::new();
        hasher.update(uuid.as_bytes());
        hasher.update(&seq.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        Self(hasher.finalize())
    }

    fn hasher(self) -> Hasher {
        Hasher::new_with_initial_len(self.0, CHECKSUM_SEED_BYTES as u64)
    }

    /// Checksum of a payload, or of the directory that starts it.
    pub(crate) fn payload(self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finalize()
    }

    /// Checksum of the chunk of column `column`.
    pub(crate) fn chunk(self, column: u32, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(&column.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Compares a stored checksum with the computed one.
pub(crate) fn check(section: &'static str, what: &str, stored: u32, computed: u32) -> Result<()> {
    if stored == computed {
        Ok(())
    } else {
        Err(Error::corrupt(
            section,
            format!("checksum of the {what}: stored {stored:08x}, computed {computed:08x}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_seed_equals_hashing_everything_at_once() {
        let uuid = Id::from_bytes(*b"0123456789abcdef");
        let mut all = uuid.as_bytes().to_vec();
        all.extend(7u64.to_le_bytes());
        all.extend(8192u64.to_le_bytes());
        let seed = Seed::new(&uuid, 7, 8192);
        assert_eq!(seed.payload(b"body"), crc32(&[&all[..], b"body"].concat()));
        assert_eq!(seed.chunk(3, b"body"), crc32(&[&all[..], &[3, 0, 0, 0], b"body"].concat()));
    }

    #[test]
    fn place_matters() {
        let uuid = Id::from_bytes(*b"0123456789abcdef");
        let here = Seed::new(&uuid, 1, 8192).chunk(0, b"body");
        assert_ne!(here, Seed::new(&uuid, 2, 8192).chunk(0, b"body"));
        assert_ne!(here, Seed::new(&uuid, 1, 8200).chunk(0, b"body"));
        assert_ne!(here, Seed::new(&Id::NONE, 1, 8192).chunk(0, b"body"));
        assert_ne!(here, Seed::new(&uuid, 1, 8192).chunk(1, b"body"));
    }
}
