//! The files of a directory that may be anybody's, for reading alone.
//!
//! Owns that nothing outside of the directory is reached: each name on the way is opened
//! relative to the directory before it and not followed if it is a link, whoever changes it
//! meanwhile. The directory itself is the caller's choice and may be reached by a link.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr};

use super::os::{OsFile, is_another_kind, metadata_of};
use super::{Entry, EntryKind, File, FileSystem, Metadata, not_a_file, only_for_reading};
use crate::error::{Error, ErrorKind, Result};

/// How every name is opened: no link is followed, and no pipe waited for.
const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What lies in one directory and below it.
#[derive(Debug)]
pub(crate) struct UntrustedFileSystem {
    root: PathBuf,
    dir: OwnedFd,
}

impl UntrustedFileSystem {
    /// Of the directory `root`.
    ///
    /// # Errors
    ///
    /// `is_not_found`; `Io` if it is no directory.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| rustix::fs::open(root, flags, Mode::empty()))
            .map_err(|error| Error::io("open", root, error.into()))?;
        Ok(Self { root: root.to_path_buf(), dir })
    }

    /// Opens what `path` names below the directory.
    fn reach(&self, path: &Path) -> Result<OwnedFd> {
        let failed = |error: Errno| match is_another_kind(&error.into()) {
            true => not_a_file(path),
            false => Error::io("open", path, error.into()),
        };
        let outside = || Error::invalid("outside of the store").with_path(path);
        let inside = path.strip_prefix(&self.root).map_err(|_| outside())?;
        let mut names: Vec<&OsStr> = Vec::new();
        for part in inside.components() {
            match part {
                Component::Normal(name) => names.push(name),
                Component::CurDir => {}
                _ => return Err(outside()),
            }
        }
        let Some((last, dirs)) = names.split_last() else {
            return self.dir.try_clone().map_err(|error| Error::io("open", path, error));
        };
        let step = |dir: &OwnedFd, name: &OsStr, flags: OFlags| {
            retry_on_intr(|| openat(dir.as_fd(), name, flags, Mode::empty())).map_err(failed)
        };
        let mut dir = None;
        for name in dirs {
            dir = Some(step(dir.as_ref().unwrap_or(&self.dir), name, FLAGS | OFlags::DIRECTORY)?);
        }
        step(dir.as_ref().unwrap_or(&self.dir), last, FLAGS)
    }

    fn refuse<T>(path: &Path) -> Result<T> {
        Err(only_for_reading(path))
    }
}

impl FileSystem for UntrustedFileSystem {
    fn create_dir(&self, path: &Path) -> Result<()> {
        Self::refuse(path)
    }

    fn create_private_dir(&self, path: &Path) -> Result<()> {
        Self::refuse(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        let failed = |error: Errno| Error::io("list directory", path, error.into());
        let found = match self.reach(path) {
            // A link to a directory is none.
            Err(error) if error.kind() == ErrorKind::NotOurFile => return Ok(Vec::new()),
            found => found?,
        };
        let mut entries = Vec::new();
        for entry in Dir::read_from(&found).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let kind = match entry.file_type() {
                // Not every file system says; opening does.
                FileType::Unknown => self.metadata(&path.join(name)).ok().map(|it| it.kind),
                kind => kind_of(kind),
            };
            if let Some(kind) = kind.filter(|_| name != "." && name != "..") {
                entries.push(Entry { name: name.to_owned(), kind });
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let file = fs::File::from(self.reach(path)?);
        let found = file.metadata().map_err(|error| Error::io("stat", path, error))?;
        metadata_of(&found).ok_or_else(|| not_a_file(path))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        Self::refuse(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        OsFile::for_reading(path, fs::File::from(self.reach(path)?))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>> {
        Self::refuse(path)
    }

    fn rename(&self, from: &Path, _to: &Path) -> Result<()> {
        Self::refuse(from)
    }

    fn rename_new(&self, from: &Path, _to: &Path) -> Result<()> {
        Self::refuse(from)
    }

    fn link(&self, from: &Path, _to: &Path) -> Result<bool> {
        Self::refuse(from)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        Self::refuse(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        Self::refuse(path)
    }

    fn is_local(&self, _path: &Path) -> Result<bool> {
        Ok(true)
    }

    fn available_bytes(&self, _path: &Path) -> Result<u64> {
        Ok(0)
    }

    fn unique_id(&self) -> [u8; 16] {
        uuid::Uuid::new_v4().into_bytes()
    }

    fn shared_with_other_processes(&self) -> bool {
        true
    }
}

fn kind_of(kind: FileType) -> Option<EntryKind> {
    match kind {
        FileType::RegularFile => Some(EntryKind::File),
        FileType::Directory => Some(EntryKind::Directory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_reached() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("in"), place.path().join("out"));
        let os = super::super::OsFileSystem;
        for dir in [&inside, &outside, &inside.join("dir")] {
            os.create_dir(dir).unwrap();
        }
        for file in [inside.join("dir/file"), outside.join("secret")] {
            os.create(&file).unwrap().write_all_at(b"bytes", 0).unwrap();
        }
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, inside.join(name)).unwrap();
        };
        link(&outside, "to-dir");
        link(&outside.join("secret"), "to-file");
        let fs = UntrustedFileSystem::open(&inside).unwrap();
        let file = fs.open(&inside.join("dir/file")).unwrap();
        assert_eq!((file.len().unwrap(), fs.metadata(file.path()).unwrap().len), (5, 5));
        let names = |path: &Path| -> Vec<String> {
            fs.list(path).unwrap().into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(&inside), ["dir"]);
        assert_eq!(names(&inside.join("dir")), ["file"]);
        assert_eq!(names(&inside.join("to-dir")), Vec::<String>::new());
        for path in ["to-file", "to-dir", "to-dir/secret", "dir/../../out/secret", "../out/secret"]
        {
            assert!(fs.open(&inside.join(path)).is_err(), "{path}");
        }
        assert!(fs.open(&outside.join("secret")).is_err());
        assert!(fs.open(&inside.join("dir/none")).unwrap_err().is_not_found());
        let path = inside.join("dir/file");
        assert!(fs.remove(&path).is_err() && fs.create(&inside.join("new")).is_err());
        assert!(fs.open_write(&path).is_err() && fs.rename(&path, &path).is_err());
    }
}
