//! Bytes of a file, mapped or in memory.
//!
//! Owns `Bytes` and the only use of maps. A map is safe under four promises, kept
//! by the layers named: maps are read-only (here); only bytes below a verified end
//! are looked at, and those never change (`segment`); writers use positioned
//! writes, never a map (`os`); no file is ever shortened (the `File` trait cannot).
//! What a foreign program does to the files is outside them: `Bytes::populate`
//! narrows that window, and reading into memory closes it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// Bytes of a file, cheap to clone and to slice: a map or memory, shared by all slices of it.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Owner {
    Memory(Arc<Vec<u8>>),
    Map(Arc<Mmap>),
}

impl Bytes {
    /// The bytes of a vector, which is not copied.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { owner: Owner::Memory(Arc::new(bytes)), start: 0, end }
    }

    /// Maps the first `len` bytes of a file, which has at least as many.
    pub(super) fn map(file: &File, len: usize) -> io::Result<Self> {
        // The system refuses an empty map.
        if len == 0 {
            return Ok(Self::from_vec(Vec::new()));
        }
        let map = map_read_only(file, len)?;
        Ok(Self { owner: Owner::Map(Arc::new(map)), start: 0, end: len })
    }

    /// The bytes of a range, counted from the start of these; none if it reaches beyond.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.start.checked_add(range.start)?;
        let end = self.start.checked_add(range.end)?;
        Some(Self { owner: self.owner.clone(), start, end })
    }

    /// Brings mapped bytes into memory, so that a bad sector or a file that something cut
    /// short is an error here and not a signal at first touch. Memory, and kernels before
    /// 5.14, are left as they are.
    ///
    /// # Errors
    ///
    /// That of the operating system, for bytes that cannot be read.
    pub fn populate(&self) -> io::Result<()> {
        match &self.owner {
            Owner::Map(map) if self.start < self.end => populate(map, self.start, self.len()),
            _ => Ok(()),
        }
    }
}

#[cfg(target_os = "linux")]
fn populate(map: &Mmap, start: usize, len: usize) -> io::Result<()> {
    match map.advise_range(memmap2::Advice::PopulateRead, start, len) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

#[cfg(not(target_os = "linux"))]
fn populate(_map: &Mmap, _start: usize, _len: usize) -> io::Result<()> {
    Ok(())
}

#[expect(unsafe_code, reason = "the language cannot know that nobody changes a mapped file")]
fn map_read_only(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: the map is read-only. `File::map` promises, and its callers in `segment` keep,
    // that only bytes below a verified end are looked at, which no writer changes; no code of
    // ours shortens a file, so the pages stay.
    unsafe { MmapOptions::new().len(len).map(file) }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Memory(bytes) => bytes,
            Owner::Map(map) => map,
        };
        // In bounds by construction.
        all.get(self.start..self.end).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match self.owner {
            Owner::Memory(_) => "memory",
            Owner::Map(_) => "map",
        };
        write!(f, "Bytes({owner}, {}..{})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_and_stay_inside() {
        let bytes = Bytes::from_vec((0..100).collect());
        let slice = bytes.slice(10..20).unwrap();
        assert_eq!(slice[..], [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(slice.as_ptr(), bytes[10..].as_ptr());
        assert!(slice.slice(10..10).unwrap().is_empty());
        assert!(slice.slice(0..11).is_none());
        assert!(slice.slice(0..usize::MAX).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "hostile input")]
        let reversed = slice.slice(3..2);
        assert!(reversed.is_none());
        assert!(bytes.slice(101..101).is_none());
        assert_eq!(format!("{slice:?}"), "Bytes(memory, 10..20)");
    }

    #[test]
    fn a_file_cut_short_by_another_program_is_an_error_when_populated() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16_384).unwrap();
        let map = Bytes::map(&file, 16_384).unwrap();
        map.populate().unwrap();
        file.set_len(0).unwrap();
        if cfg!(target_os = "linux") {
            assert!(map.slice(8_192..8_200).unwrap().populate().is_err());
        }
    }
}
