//! `backup.json`: whether a directory is a backup, and a whole one (spec 8.11).
//!
//! While a backup is being written its mark says so, and nothing opens it. Whoever opens a
//! whole one for writing takes the mark away: from then on it is a store of its own, which no
//! later backup may overwrite.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Id, document, if_present};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileSystem, publish, read_whole};

const NAME: &str = "backup.json";
const MAGIC: &str = "tallystone backup";
const SECTION: &str = "8.11";
const BYTES_MAX: u64 = 64 << 10;

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackupMark {
    /// The store that this is a backup of.
    pub(crate) store_id: Id,
    /// When the backup was begun, in microseconds since 1970.
    pub(crate) begun: i64,
    /// Whether all of it is there.
    pub(crate) is_finished: bool,
}

#[derive(Serialize, Deserialize)]
struct MarkDocument {
    magic: String,
    store_id: String,
    begun: i64,
    finished: bool,
}

impl BackupMark {
    fn encode(&self) -> Result<Vec<u8>> {
        document::seal(&MarkDocument {
            magic: MAGIC.to_owned(),
            store_id: self.store_id.to_string(),
            begun: self.begun,
            finished: self.is_finished,
        })
    }

    /// Reads what [`write`] writes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let found: MarkDocument = document::decode(document::unseal(bytes, MAGIC)?)?;
        let store_id = Id::parse(&found.store_id).and_then(Id::some).ok_or_else(|| {
            Error::corrupt(SECTION, format!("store {:?} is not an id", found.store_id))
        })?;
        Ok(Self { store_id, begun: found.begun, is_finished: found.finished })
    }
}

/// Reads the mark of the directory; `None` where it is no backup.
///
/// # Errors
///
/// `Corrupt` where the mark is damaged; `Io`.
pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Option<BackupMark>> {
    let path = dir.join(NAME);
    let Some(bytes) = if_present(read_whole(fs, &path, BYTES_MAX))? else { return Ok(None) };
    BackupMark::decode(&bytes).map(Some).map_err(|error| error.with_path(&path))
}

/// Whether this is what a crash leaves of the first mark: nothing else is there yet.
pub(crate) fn is_begun(name: &str) -> bool {
    name.starts_with("backup.json.") && name.ends_with(".tmp")
}

/// Writes the mark; durable on return.
pub(crate) fn write(fs: &dyn FileSystem, dir: &Path, mark: &BackupMark) -> Result<()> {
    publish(fs, dir, NAME, &mark.encode()?, true)
}

/// Makes sure that the directory is no backup of which some may be missing.
///
/// # Errors
///
/// `Incomplete` if it is; `Corrupt` where the mark is damaged.
pub(crate) fn check_whole(fs: &dyn FileSystem, dir: &Path) -> Result<Option<BackupMark>> {
    let remedy = "back up again, or remove backup.json to open what is there";
    let mark = read(fs, dir).map_err(|error| error.with_remedy(remedy))?;
    if mark.is_none_or(|mark| mark.is_finished) {
        return Ok(mark);
    }
    let message = "a backup that was not finished: some of it may be missing";
    Err(Error::new(ErrorKind::Incomplete, message).with_path(dir).with_remedy(remedy))
}

/// Makes a whole backup a store of its own, durably; any other store stays what it is.
///
/// # Errors
///
/// As [`check_whole`].
pub(crate) fn take_away(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    if check_whole(fs, dir)?.is_some() {
        if_present(fs.remove(&dir.join(NAME)))?;
        fs.sync_dir(dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;

    const FS: OsFileSystem = OsFileSystem;

    fn mark(is_finished: bool) -> BackupMark {
        let store_id = Id::parse("6f1ed002-ab55-4c9e-8840-1b2c3d4e5f60").unwrap();
        BackupMark { store_id, begun: 1_700_000_000_000_000, is_finished }
    }

    /// The worked example of spec 8.11.
    #[test]
    fn example() {
        let text = include_str!("../../format-spec/8-store.md");
        let line = String::from_utf8(mark(true).encode().unwrap()).unwrap();
        assert!(text.contains(line.trim_end()), "{line}");
        document::check_damage(line.as_bytes(), BackupMark::decode);
    }

    #[test]
    fn an_unfinished_one_is_refused_and_a_whole_one_becomes_a_store() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert_eq!(check_whole(&FS, dir).unwrap(), None);
        take_away(&FS, dir).unwrap();
        write(&FS, dir, &mark(false)).unwrap();
        assert_eq!(check_whole(&FS, dir).unwrap_err().kind(), ErrorKind::Incomplete);
        assert_eq!(take_away(&FS, dir).unwrap_err().kind(), ErrorKind::Incomplete);
        write(&FS, dir, &mark(true)).unwrap();
        assert_eq!(check_whole(&FS, dir).unwrap(), Some(mark(true)));
        take_away(&FS, dir).unwrap();
        assert_eq!(read(&FS, dir).unwrap(), None);
        publish(&FS, dir, NAME, b"{\"magic\":\"tallystone backup\"", true).unwrap();
        assert_eq!(take_away(&FS, dir).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
