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

/// Checksums of bytes that come in pieces.
#[derive(Clone, Default)]
pub(super) struct Sums {
    hash: Xxh3,
    crc32: crc32fast::Hasher,
    bytes: u64,
}

impl Sums {
    fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.crc32.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Adds all that `input` holds.
    pub(super) fn absorb(&mut self, mut input: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.update(buffer.get(..count).unwrap_or_default()),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let crc32 = self.crc32.clone().finalize();
        Fingerprint { hash: self.hash.digest128(), crc32, bytes: self.bytes }
    }
}

/// A reader that hashes what passes through it, to be sure that a source that is read
/// twice is the same both times.
pub struct Hashing<R> {
    input: R,
    sums: Sums,
}

impl<R: Read> Hashing<R> {
    /// Hashes all that is read from `input` from here on.
    pub fn new(input: R) -> Self {
        Self { input, sums: Sums::default() }
    }

    /// The fingerprint of the bytes read so far.
    pub fn fingerprint(&self) -> Fingerprint {
        self.sums.fingerprint()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.sums.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl<R> std::fmt::Debug for Hashing<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashing").field("bytes", &self.sums.bytes).finish_non_exhaustive()
    }
}

/// The fingerprint of all that `input` holds.
///
/// # Errors
///
/// Those of reading.
pub fn fingerprint_of(input: impl Read) -> io::Result<Fingerprint> {
    let mut sums = Sums::default();
    sums.absorb(input)?;
    Ok(sums.fingerprint())
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
