//! What tells one source from another: checksums of its bytes, and their number.

use std::io::{self, Read};

use xxhash_rust::xxh3::Xxh3;

/// What tells one source from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// XXH3-128 of the bytes.
    pub hash: u128,
    /// CRC-32 (IEEE) of the bytes.
    pub crc32: u32,
    /// Their number.
    pub bytes: u64,
}

/// A reader that hashes what passes through it, to be sure that a source that is read
/// twice is the same both times.
pub struct Hashing<R> {
    input: R,
    hash: Xxh3,
    crc32: crc32fast::Hasher,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    /// Hashes all that is read from `input` from here on.
    pub fn new(input: R) -> Self {
        Self { input, hash: Xxh3::new(), crc32: crc32fast::Hasher::new(), bytes: 0 }
    }

    /// The fingerprint of the bytes read so far.
    pub fn fingerprint(&self) -> Fingerprint {
        let crc32 = self.crc32.clone().finalize();
        Fingerprint { hash: self.hash.digest128(), crc32, bytes: self.bytes }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        self.hash.update(read);
        self.crc32.update(read);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<R> std::fmt::Debug for Hashing<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashing").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The fingerprint of all that `input` holds.
///
/// # Errors
///
/// Those of reading.
pub fn fingerprint_of(input: impl Read) -> io::Result<Fingerprint> {
    let mut hashing = Hashing::new(input);
    let mut buffer = vec![0; 64 << 10];
    while hashing.read(&mut buffer)? > 0 {}
    Ok(hashing.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_does_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = fingerprint_of(bytes.as_slice()).unwrap();
        assert_eq!(whole.hash, xxhash_rust::xxh3::xxh3_128(&bytes));
        assert_eq!(whole.crc32, crc32fast::hash(&bytes));
        assert_eq!(whole.bytes, bytes.len() as u64);
        let mut slow = Hashing::new(bytes.as_slice());
        while slow.read(&mut [0; 17]).unwrap() > 0 {}
        assert_eq!(slow.fingerprint(), whole);
    }
}
