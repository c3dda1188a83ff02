//! `generation`: a counter that tells readers when to list again (spec 8.4).
//!
//! One byte is appended for each rename or unlink of a file of the store, by any process
//! and without a lock; the size of the file is the count. It is a hint: nothing is wrong
//! when it is lost or behind, readers only find out later.

use std::path::Path;

use super::if_absent;
use crate::error::Result;
use crate::fs::{EntryKind, FileSystem};

pub(super) const NAME: &str = "generation";

/// What one rename or unlink appends.
const MARK: &[u8] = b"+";

/// Makes the file unless it is there.
pub(crate) fn create(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    if_absent(fs.create(&dir.join(NAME)).map(|_| ()))
}

/// Counts one rename or unlink that has happened in the store in `dir`.
pub(crate) fn bump(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    let path = dir.join(NAME);
    let file = match fs.open_write(&path) {
        Err(error) if error.is_not_found() => {
            create(fs, dir)?;
            fs.open_write(&path)?
        }
        other => other?,
    };
    file.append(MARK)
}

/// What the counter says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    /// The count so far. A reader compares it with what it saw before and lists again when
    /// they differ, in either direction.
    pub(crate) count: u64,
    /// When it was last counted up, by the clock of the file system, in nanoseconds since 1970:
    /// no later than the moment of looking.
    pub(crate) moved: i64,
}

/// Reads the counter; count 0 where there is no such file.
pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Generation> {
    match fs.metadata(&dir.join(NAME)) {
        Ok(found) if found.kind == EntryKind::File => {
            Ok(Generation { count: found.len, moved: found.modified })
        }
        Ok(_) => Ok(Generation::default()),
        Err(error) if error.is_not_found() => Ok(Generation::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;

    const FS: OsFileSystem = OsFileSystem;

    #[test]
    fn counts_and_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert_eq!(read(&FS, dir).unwrap().count, 0);
        create(&FS, dir).unwrap();
        assert_eq!(read(&FS, dir).unwrap().count, 0);
        bump(&FS, dir).unwrap();
        bump(&FS, dir).unwrap();
        create(&FS, dir).unwrap();
        assert_eq!(read(&FS, dir).unwrap().count, 2);
        FS.remove(&dir.join(NAME)).unwrap();
        bump(&FS, dir).unwrap();
        assert_eq!(read(&FS, dir).unwrap().count, 1);
    }

    #[test]
    fn no_bump_of_many_is_lost() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| bump(&FS, root.path()).unwrap()));
            }
        });
        assert_eq!(read(&FS, root.path()).unwrap().count, 200);
    }
}
