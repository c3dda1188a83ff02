//! `reserve`: space that is given up when maintenance must run on a full disk (spec 8.5).

use std::path::Path;

use super::if_present;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{EntryKind, FileSystem, publish};
use crate::planted::{Bug, is_planted};

pub(super) const NAME: &str = "reserve";

/// Size of the reserve.
pub(crate) const RESERVE_BYTES: usize = 2 << 20;

/// Space that is left for rows when the reserve is made. An attempt that meets the end of the
/// disk would fill it up for a moment, and appends beside it would find it full.
const MARGIN_BYTES: usize = RESERVE_BYTES / 2;

/// Makes the reserve unless it is there in full. Returns whether it had to be made.
///
/// # Errors
///
/// `NoSpace` where there is no room for it and some rows; nothing is left behind then.
pub(crate) fn ensure_reserve(fs: &dyn FileSystem, dir: &Path) -> Result<bool> {
    let found = if_present(fs.metadata(&dir.join(NAME)))?;
    if found.is_some_and(|it| it.kind == EntryKind::File && it.len == RESERVE_BYTES as u64) {
        return Ok(false);
    }
    if fs.available_bytes(dir).is_ok_and(|it| it < (RESERVE_BYTES + MARGIN_BYTES) as u64) {
        return Err(Error::new(ErrorKind::NoSpace, "no room for the reserve").with_path(dir));
    }
    publish(fs, dir, NAME, &filling(), true).map(|()| true)
}

/// Frees the reserve for other files. Returns whether there was one.
pub(crate) fn give_up_reserve(fs: &dyn FileSystem, dir: &Path) -> Result<bool> {
    if is_planted(Bug::KeepReserve) {
        return Ok(false);
    }
    if if_present(fs.remove(&dir.join(NAME)))?.is_none() {
        return Ok(false);
    }
    fs.sync_dir(dir)?;
    Ok(true)
}

/// Bytes without pattern (xorshift64), none of them zero: a file system that compresses,
/// shares equal blocks or leaves holes keeps all of it all the same.
fn filling() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(RESERVE_BYTES);
    while bytes.len() < RESERVE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes().map(|byte| byte.max(1)));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFileSystem;
    use crate::fs::{OsFileSystem, read_whole};

    const FS: OsFileSystem = OsFileSystem;

    #[test]
    fn made_once_given_up_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert!(!give_up_reserve(&FS, dir).unwrap());
        assert!(ensure_reserve(&FS, dir).unwrap());
        assert!(!ensure_reserve(&FS, dir).unwrap());
        let bytes = read_whole(&FS, &dir.join(NAME), 4 << 20).unwrap();
        assert_eq!(bytes.len(), RESERVE_BYTES);
        assert!(bytes.iter().all(|byte| *byte != 0));
        assert!(give_up_reserve(&FS, dir).unwrap());
        assert!(!give_up_reserve(&FS, dir).unwrap());
    }

    /// Making it wrote until the disk was full, where there was no room for all of it, and an
    /// append in that moment found no space on a disk that was a third free.
    #[test]
    fn it_leaves_room_for_rows() {
        let (fs, dir) = (SimFileSystem::with_seed(1), Path::new("/store"));
        fs.create_dir(dir).unwrap();
        let room = (RESERVE_BYTES + MARGIN_BYTES) as u64;
        fs.space_limit(Some(room - 1));
        let calls = fs.op_count();
        assert_eq!(ensure_reserve(&fs, dir).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!((fs.op_count(), fs.used_bytes()), (calls + 1, 0), "asked whether it is there");
        fs.space_limit(Some(room));
        assert!(ensure_reserve(&fs, dir).unwrap());
    }

    #[test]
    fn a_short_one_is_made_whole() {
        let root = tempfile::tempdir().unwrap();
        publish(&FS, root.path(), NAME, b"short", false).unwrap();
        assert!(ensure_reserve(&FS, root.path()).unwrap());
        assert!(!ensure_reserve(&FS, root.path()).unwrap());
    }
}
