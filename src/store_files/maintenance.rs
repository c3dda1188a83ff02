//! `maintenance.lock`: who may do maintenance, and how far the catalog has come (spec 8.7).
//!
//! The lock is the operating system's, on an open file; it ends with its owner, however
//! that ends. The file is never unlinked. Its content is the catalog mark: the number of
//! the last transaction of the catalog, written by the holder of the lock, by which a
//! catalog that is an older copy of itself, or has vanished, is known for what it is.

use std::path::Path;
use std::sync::Arc;

use super::{open_or_create, try_lock_file};
use crate::error::Result;
use crate::fs::{File, FileSystem};

/// Name of the file.
pub(crate) const NAME: &str = "maintenance.lock";
const MAGIC: [u8; 8] = *b"TALLYMRK";
/// Magic 8, number 8, CRC-32 of both 4.
const MARK_BYTES: usize = 20;
const CHECKED_BYTES: usize = 16;

/// The right to do maintenance in one store; let go when dropped.
#[derive(Debug)]
pub(crate) struct MaintenanceLock {
    _file: Arc<dyn File>,
}

/// Takes the lock of the store in `dir` without waiting; `None` where somebody has it.
pub(crate) fn try_maintenance_lock(
    fs: &dyn FileSystem,
    dir: &Path,
) -> Result<Option<MaintenanceLock>> {
    Ok(try_lock_file(fs, dir, NAME)?.map(|file| MaintenanceLock { _file: file }))
}

/// The catalog mark. Only the holder of the lock reads or writes it.
#[derive(Debug)]
pub(crate) struct CatalogMark {
    file: Arc<dyn File>,
    committed: u64,
}

impl CatalogMark {
    /// Reads the mark of the store in `dir`. One that is missing or damaged stands at zero,
    /// which proves nothing against any catalog.
    pub(crate) fn open(fs: &dyn FileSystem, dir: &Path) -> Result<Self> {
        let file = open_or_create(fs, &dir.join(NAME))?;
        let committed = Self::read(&*file)?;
        Ok(Self { file, committed })
    }

    /// What the mark in the file says.
    pub(crate) fn read(file: &dyn File) -> Result<u64> {
        let mut bytes = [0; MARK_BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let committed = if read == MARK_BYTES { decode(&bytes) } else { None };
        Ok(committed.unwrap_or(0))
    }

    /// What the mark of the store in `dir` says to somebody who may write nothing: 0 where
    /// there is none, or where it cannot be read.
    pub(crate) fn read_at(fs: &dyn FileSystem, dir: &Path) -> u64 {
        fs.open(&dir.join(NAME)).and_then(|file| Self::read(&*file)).unwrap_or(0)
    }

    /// Number of the last catalog transaction that is known to be durable.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Records that transaction `number` of the catalog is durable. Not synced: a mark that
    /// is behind proves less, and never anything wrong.
    pub(crate) fn record(&mut self, number: u64) -> Result<()> {
        self.committed = number;
        self.file.write_all_at(&encode(number), 0)
    }
}

/// What is wrong with the catalog mark, if anything; a missing one says that no catalog is
/// known.
pub(crate) fn damaged_mark(fs: &dyn FileSystem, dir: &Path) -> Option<&'static str> {
    let bytes = crate::fs::read_whole(fs, &dir.join(NAME), MARK_BYTES as u64);
    let whole = match bytes {
        Ok(bytes) if bytes.is_empty() => return None,
        Ok(bytes) => <[u8; MARK_BYTES]>::try_from(bytes).ok().and_then(|bytes| decode(&bytes)),
        Err(error) if error.is_not_found() => return None,
        Err(_) => None,
    };
    whole.is_none().then_some("the catalog mark is damaged: no catalog is known by it")
}

fn encode(committed: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..CHECKED_BYTES].copy_from_slice(&committed.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..CHECKED_BYTES]);
    bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; MARK_BYTES]) -> Option<u64> {
    let (checked, crc) = bytes.split_last_chunk::<4>()?;
    let (magic, rest) = checked.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let good = *magic == MAGIC && u32::from_le_bytes(*crc) == crc32fast::hash(checked);
    good.then(|| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{OsFileSystem, publish, read_whole};

    const FS: OsFileSystem = OsFileSystem;

    /// The worked example of spec 8.7.
    #[test]
    fn example() {
        let text = include_str!("../../format-spec/8-store.md");
        let hex: Vec<_> = encode(42).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text.contains(&hex.join(" ")), "{}", hex.join(" "));
    }

    #[test]
    fn one_holder_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let held = try_maintenance_lock(&FS, dir).unwrap();
        assert!(held.is_some());
        assert!(try_maintenance_lock(&FS, dir).unwrap().is_none());
        drop(held);
        let again = try_maintenance_lock(&FS, dir).unwrap();
        assert!(again.is_some());

        // Unlinked by hand and made anew: the old holder's lock is on another file.
        FS.remove(&dir.join(NAME)).unwrap();
        assert!(try_maintenance_lock(&FS, dir).unwrap().is_some());
    }

    #[test]
    fn the_mark_is_kept_beside_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let lock = try_maintenance_lock(&FS, dir).unwrap();
        let mut mark = CatalogMark::open(&FS, dir).unwrap();
        assert_eq!(mark.committed(), 0);
        mark.record(41).unwrap();
        mark.record(42).unwrap();
        assert_eq!(CatalogMark::open(&FS, dir).unwrap().committed(), 42);
        assert!(try_maintenance_lock(&FS, dir).unwrap().is_none());
        drop(lock);
        assert!(try_maintenance_lock(&FS, dir).unwrap().is_some());
        assert_eq!(CatalogMark::open(&FS, dir).unwrap().committed(), 42);
    }

    #[test]
    fn a_damaged_mark_proves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        CatalogMark::open(&FS, dir).unwrap().record(u64::MAX - 1).unwrap();
        let whole = read_whole(&FS, &dir.join(NAME), 100).unwrap();
        let reads = |bytes: &[u8]| {
            publish(&FS, dir, NAME, bytes, true).unwrap();
            CatalogMark::open(&FS, dir).unwrap().committed()
        };
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(reads(&damaged), 0, "bit {bit}");
        }
        assert_eq!(reads(&whole[..19]), 0);
        assert_eq!(reads(&[0; 20]), 0);
        assert_eq!(reads(&whole), u64::MAX - 1);
    }
}
