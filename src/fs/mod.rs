//! Files: open, append, sync, map, lock, publish a whole file.
//!
//! Owns the two traits that everything above reads and writes through, their
//! implementation for the operating system (`os`; `untrusted`: for reading what may be
//! anybody's), and its simulated twin
//! (`sim`), which can be stopped, filled, made to fail, and cut off from power at
//! any operation. Does not know what the bytes mean.
//!
//! The rules that the promises rest on: files are written by positioned writes and
//! never shortened; what is mapped is read-only and lies below a verified end; a
//! name is durable only once its directory has been synced; a locked descriptor is
//! never mapped, since a map would keep the lock alive.
//!
//! ```text
//! publish:  create name.<id>.tmp, lock, write, sync_data, rename, sync_dir
//! ```

#![cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public with the feature `testing` only")
)]

pub(crate) mod foreign;
mod fork;
mod mmap;
mod os;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod sim;
mod untrusted;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

pub(crate) use fork::ForkGuard;
pub use mmap::Bytes;
pub use os::OsFileSystem;
pub(crate) use os::check_growth;
pub(crate) use untrusted::UntrustedFileSystem;

/// Times that a file is begun which cleaners take.
const MAKE_ATTEMPTS: usize = 8;

/// What an entry of a directory is. Other kinds of files are not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name inside the directory.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What is known of a file or directory without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: EntryKind,
    /// Length in bytes; never evidence of how much of it is valid.
    pub len: u64,
    /// The inode: tells a file from another that took its name.
    pub inode: u64,
    /// Time of the last change, in nanoseconds since the Unix epoch. That of a directory
    /// moves when a name in it comes, goes or changes.
    pub modified: i64,
}

/// A file system: the operating system's or a simulated one.
///
/// Every method fails with `Io` (or `NoSpace` where space, quota or the file size limit
/// is exhausted) naming the path; `Error::is_not_found` and `Error::is_already_there`
/// tell the two causes that callers act on.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Makes a directory inside a store. It is shared with the group where the directory
    /// that holds it is.
    ///
    /// # Errors
    ///
    /// `is_already_there` if the name is taken.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// Makes a directory that only its owner can enter: the root of a store or a backup.
    ///
    /// # Errors
    ///
    /// `is_already_there` if the name is taken.
    fn create_private_dir(&self, path: &Path) -> Result<()>;

    /// The regular files and directories in a directory, by name. Anything else (symbolic
    /// links, pipes, names that are not UTF-8) is left out.
    ///
    /// # Errors
    ///
    /// `is_not_found` if there is no such directory.
    fn list(&self, path: &Path) -> Result<Vec<Entry>>;

    /// What is known of a file or directory; symbolic links are followed.
    ///
    /// # Errors
    ///
    /// `is_not_found`; `NotOurFile` if it is neither a regular file nor a directory.
    fn metadata(&self, path: &Path) -> Result<Metadata>;

    /// Makes a file, for reading and writing. Its mode follows that of its directory.
    ///
    /// # Errors
    ///
    /// `is_already_there` if the name is taken, by a dangling link too.
    fn create(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens a regular file for reading. A link is not followed.
    ///
    /// # Errors
    ///
    /// `is_not_found`; `NotOurFile` if it is not a regular file.
    fn open(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens a regular file that is there for reading and writing. A link is not followed.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    ///
    /// `is_not_found` if `from` is not there.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives a file another name that nothing has yet.
    ///
    /// Where the file system has no such operation the file is linked under the new name
    /// and the old one is removed: a crash between the two leaves both names.
    ///
    /// # Errors
    ///
    /// `is_already_there` if the name is taken; nothing has changed then.
    fn rename_new(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives a file another name beside the one it has. Returns whether that was possible:
    /// not across file systems, nor where there is no such thing or it is not permitted; then
    /// nothing has changed, and the bytes can be copied instead.
    ///
    /// # Errors
    ///
    /// `is_not_found` if `from` is not there; `is_already_there` if the name is taken.
    fn link(&self, from: &Path, to: &Path) -> Result<bool>;

    /// Removes the name of a file. Its bytes stay for as long as it is open or mapped.
    ///
    /// # Errors
    ///
    /// `is_not_found` if it is not there.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// `Io` if the directory is not there or the disk failed.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Whether the path lies on a file system known to keep what it was told to sync, and
    /// whose locks and maps hold between processes: a local one. Linux only; elsewhere true.
    ///
    /// # Errors
    ///
    /// `is_not_found` if the path is not there.
    fn is_local(&self, path: &Path) -> Result<bool>;

    /// Bytes that this process may still write where the path lies, as far as that is known:
    /// a quota may leave less.
    ///
    /// # Errors
    ///
    /// `is_not_found` if the path is not there.
    fn available_bytes(&self, path: &Path) -> Result<u64>;

    /// An identifier that no other call returns, in any process; never all zero.
    fn unique_id(&self) -> [u8; 16];

    /// Whether other processes can see these files.
    fn shared_with_other_processes(&self) -> bool;
}

/// An open file.
///
/// In a child made by `fork` every method fails with `Forked`.
#[cfg_attr(
    feature = "testing",
    expect(clippy::len_without_is_empty, reason = "an empty file has no meaning of its own here")
)]
pub trait File: Send + Sync + fmt::Debug {
    /// The path it was opened by; it may have been renamed since.
    fn path(&self) -> &Path;

    /// Reads from `offset` until the buffer is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// Writes all of the bytes at `offset`, making the file longer where needed. On an error
    /// any part may have been written.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `Io`; `InvalidArgument` if the file was opened for reading.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()>;

    /// Writes all of the bytes at the end, wherever other processes have moved it.
    ///
    /// # Errors
    ///
    /// As of [`write_all_at`](Self::write_all_at).
    fn append(&self, bytes: &[u8]) -> Result<()>;

    /// Makes the bytes and the length durable; not the name. After an error this must not be
    /// tried again: the kernel may have dropped the bytes and would say Ok.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`.
    fn sync_data(&self) -> Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn len(&self) -> Result<u64>;

    /// The inode, to compare with [`Metadata::inode`] after locking.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn inode(&self) -> Result<u64>;

    /// Takes the exclusive lock of the file, without waiting; false if another holder has it.
    /// Released when the last reference to this file is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// `Io`; `InvalidArgument` if the file was opened for reading: such files are mapped, and
    /// a map would keep the lock.
    fn try_lock(&self) -> Result<bool>;

    /// The first `len` bytes, mapped for reading. Only bytes that no writer will change may be
    /// looked at.
    ///
    /// # Errors
    ///
    /// `Torn` if the file is shorter; `InvalidArgument` if it was not opened by
    /// [`FileSystem::open`]: a file that may be locked is never mapped.
    fn map(&self, len: u64) -> Result<Bytes>;
}

/// Fills the buffer from `offset`.
///
/// # Errors
///
/// `Torn` with path and offset if the file ends before.
pub(crate) fn read_exact_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> Result<()> {
    let read = file.read_at(buffer, offset)?;
    if read == buffer.len() {
        return Ok(());
    }
    let message = format!("expected {} bytes, the file has {read}", buffer.len());
    Err(Error::new(ErrorKind::Torn, message).with_path(file.path()).with_offset(offset))
}

/// The bytes of a small file.
///
/// # Errors
///
/// `Corrupt` if it is longer than `max` bytes; those of [`FileSystem::open`].
pub(crate) fn read_whole(fs: &dyn FileSystem, path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = fs.open(path)?;
    let len = file.len()?;
    let size = match usize::try_from(len) {
        Ok(size) if len <= max => size,
        _ => {
            let message = format!("expected at most {max} bytes, the file has {len}");
            return Err(Error::new(ErrorKind::Corrupt, message).with_path(path));
        }
    };
    let mut bytes = vec![0; size];
    // A file that is being appended to may be longer by now, one of another program shorter.
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a whole file under a temporary name, syncs it, gives it its name and syncs the
/// directory: after a crash the file is there with all its bytes, or as it was before.
///
/// The temporary file is locked while this runs, so that cleaning can tell it from one that a
/// crash left, and is removed on an error.
///
/// # Errors
///
/// `is_already_there` if the name is taken and `replace` is false; `Locked` if something else
/// took the temporary file. An error of the last step, the sync of the directory, leaves the
/// file in place with its durability unknown.
pub(crate) fn publish(
    fs: &dyn FileSystem,
    dir: &Path,
    name: &str,
    bytes: &[u8],
    replace: bool,
) -> Result<()> {
    let id = u128::from_be_bytes(fs.unique_id());
    let temporary = dir.join(format!("{name}.{id:032x}.tmp"));
    let file = fs.create(&temporary)?;
    let placed = write_locked(fs, &*file, bytes).and_then(|()| {
        let path = dir.join(name);
        if replace { fs.rename(&temporary, &path) } else { fs.rename_new(&temporary, &path) }
    });
    if let Err(error) = placed {
        // The first error says more than one of cleaning up would.
        let _ = fs.remove(&temporary);
        return Err(error);
    }
    drop(file);
    fs.sync_dir(dir)
}

/// Locks, writes and syncs a file just made.
fn write_locked(fs: &dyn FileSystem, file: &dyn File, bytes: &[u8]) -> Result<()> {
    lock_new(fs, file)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()
}

/// Locks a file just made, and makes sure that no cleaner was faster: one that took it for
/// a file that a crash has left.
///
/// # Errors
///
/// `Locked` if one was: begin again, under another name.
pub(crate) fn lock_new(fs: &dyn FileSystem, file: &dyn File) -> Result<()> {
    let is_there = || match fs.metadata(file.path()) {
        Ok(metadata) => Ok(metadata.inode == file.inode()?),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    };
    if file.try_lock()? && is_there()? {
        return Ok(());
    }
    let message = "the temporary file was taken by another process";
    Err(Error::new(ErrorKind::Locked, message).with_path(file.path()))
}

/// Makes a file by `make`, under a new name each time, until no cleaner is faster.
///
/// # Errors
///
/// Those of `make`.
pub(crate) fn make_locked<T>(mut make: impl FnMut() -> Result<T>) -> Result<T> {
    let mut made = make();
    for _ in 1..MAKE_ATTEMPTS {
        match &made {
            Err(error) if error.kind() == ErrorKind::Locked => made = make(),
            _ => break,
        }
    }
    made
}

/// Makes the name of a directory durable that somebody else may have made, and not got that far.
///
/// # Errors
///
/// `Io`. A directory above that may not be read is left to whoever made it.
pub(crate) fn sync_name(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    match fs.sync_dir(&parent_of(dir)) {
        Err(error) if error.is_denied() => Ok(()),
        done => done,
    }
}

/// The directory that holds `path`.
pub(crate) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A call that does not fit how the file was opened.
fn misuse(path: &Path, message: &str) -> Error {
    Error::invalid(message).with_path(path)
}

fn only_for_reading(path: &Path) -> Error {
    misuse(path, "the file was opened for reading")
}

fn never_mapped(path: &Path) -> Error {
    misuse(path, "a file that is open for writing may be locked and is never mapped")
}

fn shorter_than(path: &Path, len: u64, found: u64) -> Error {
    let message = format!("expected at least {len} bytes, the file has {found}");
    Error::new(ErrorKind::Torn, message).with_path(path).with_offset(found)
}

fn not_a_file(path: &Path) -> Error {
    Error::new(ErrorKind::NotOurFile, "not a regular file").with_path(path)
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the end of the write is beyond any file")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What both implementations promise. `root` is an empty directory.
    pub(crate) fn check_contract(fs: &dyn FileSystem, root: &Path) {
        check_names(fs, &root.join("names"));
        check_bytes(fs, &root.join("bytes"));
        check_maps(fs, &root.join("maps"));
        check_locks(fs, &root.join("locks"));
        check_publish(fs, &root.join("publish"));
        let (a, b) = (fs.unique_id(), fs.unique_id());
        assert_ne!(a, b);
        assert_ne!(a, [0; 16]);
    }

    fn names(fs: &dyn FileSystem, dir: &Path) -> Vec<String> {
        fs.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    fn check_names(fs: &dyn FileSystem, dir: &Path) {
        assert!(fs.list(dir).unwrap_err().is_not_found());
        assert!(fs.metadata(dir).unwrap_err().is_not_found());
        assert!(fs.sync_dir(dir).unwrap_err().is_not_found());
        assert!(fs.create(&dir.join("x")).unwrap_err().is_not_found());
        fs.create_private_dir(dir).unwrap();
        assert!(fs.create_dir(dir).unwrap_err().is_already_there());
        assert!(fs.create_private_dir(dir).unwrap_err().is_already_there());
        assert_eq!(fs.metadata(dir).unwrap().kind, EntryKind::Directory);
        assert!(fs.is_local(dir).is_ok());

        let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
        let second = dir.join("second");
        assert!(!matches!(fs.link(&a, &second), Ok(true)), "there is nothing to link");
        fs.create_dir(&dir.join("d")).unwrap();
        fs.create(&b).unwrap().write_all_at(b"bb", 0).unwrap();
        let before = fs.metadata(&b).unwrap();
        assert_eq!((before.kind, before.len), (EntryKind::File, 2));
        fs.create(&a).unwrap();
        assert!(fs.create(&a).unwrap_err().is_already_there());
        let entries = fs.list(dir).unwrap();
        let entry = |name: &str, kind| Entry { name: name.into(), kind };
        assert_eq!(
            entries,
            [
                entry("a", EntryKind::File),
                entry("b", EntryKind::File),
                entry("d", EntryKind::Directory)
            ]
        );

        let refused = fs.rename_new(&b, &a).unwrap_err();
        assert!(refused.is_already_there());
        assert_eq!(names(fs, dir), ["a", "b", "d"]);
        fs.rename_new(&b, &c).unwrap();
        fs.rename(&c, &a).unwrap();
        assert_eq!(names(fs, dir), ["a", "d"]);
        assert_eq!(fs.metadata(&a).unwrap().inode, before.inode);
        assert!(fs.rename(&b, &c).unwrap_err().is_not_found());
        assert!(fs.rename_new(&b, &c).unwrap_err().is_not_found());
        fs.rename(&a, &dir.join("d/e")).unwrap();
        assert_eq!(names(fs, &dir.join("d")), ["e"]);
        fs.sync_dir(dir).unwrap();

        let held = fs.open(&dir.join("d/e")).unwrap();
        fs.remove(&dir.join("d/e")).unwrap();
        assert!(fs.remove(&dir.join("d/e")).unwrap_err().is_not_found());
        assert!(fs.open(&dir.join("d/e")).unwrap_err().is_not_found());
        assert!(fs.open_write(&dir.join("d/e")).unwrap_err().is_not_found());
        assert_eq!(held.len().unwrap(), 2, "an open file outlives its name");
        assert_eq!(fs.open(dir).unwrap_err().kind(), ErrorKind::NotOurFile);
        assert!(fs.list(&dir.join("d")).unwrap().is_empty());
    }

    fn check_bytes(fs: &dyn FileSystem, dir: &Path) {
        fs.create_dir(dir).unwrap();
        let path = dir.join("file");
        let file = fs.create(&path).unwrap();
        assert_eq!(file.path(), path);
        file.write_all_at(b"hello", 3).unwrap();
        file.write_all_at(b"", 100).unwrap();
        file.append(b" world").unwrap();
        file.write_all_at(b"J", 3).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 14);
        assert_eq!(file.inode().unwrap(), fs.metadata(&path).unwrap().inode);

        let mut buffer = [0xFF; 20];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 14);
        assert_eq!(&buffer[..14], b"\0\0\0Jello world");
        assert_eq!(file.read_at(&mut buffer, 14).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        read_exact_at(&*file, &mut buffer[..5], 9).unwrap();
        assert_eq!(&buffer[..5], b"world");
        let torn = read_exact_at(&*file, &mut buffer, 9).unwrap_err();
        assert_eq!((torn.kind(), torn.offset()), (ErrorKind::Torn, Some(9)));
        assert_eq!(torn.path(), Some(&*path));

        // Two handles append to what the file is, not to what each of them knew.
        let other = fs.open_write(&path).unwrap();
        other.append(b"!").unwrap();
        file.append(b"?").unwrap();
        assert_eq!(read_whole(fs, &path, 16).unwrap(), b"\0\0\0Jello world!?");
        assert_eq!(read_whole(fs, &path, 15).unwrap_err().kind(), ErrorKind::Corrupt);

        let reader = fs.open(&path).unwrap();
        for error in [reader.write_all_at(b"x", 0), reader.append(b"x")] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        reader.sync_data().unwrap();
        let beyond = file.write_all_at(b"xy", u64::MAX).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::NoSpace);
    }

    fn check_maps(fs: &dyn FileSystem, dir: &Path) {
        fs.create_dir(dir).unwrap();
        let path = dir.join("file");
        let file = fs.create(&path).unwrap();
        let bytes: Vec<u8> = (0..20_000u32).map(|i| i.to_le_bytes()[0]).collect();
        file.write_all_at(&bytes, 0).unwrap();
        assert_eq!(file.map(1).unwrap_err().kind(), ErrorKind::InvalidArgument);

        let reader = fs.open(&path).unwrap();
        assert_eq!(reader.map(20_001).unwrap_err().kind(), ErrorKind::Torn);
        assert_eq!(reader.map(u64::MAX).unwrap_err().kind(), ErrorKind::Torn);
        assert!(reader.map(0).unwrap().is_empty());
        let map = reader.map(19_999).unwrap();
        fs.remove(&path).unwrap();
        drop(reader);
        assert_eq!(map[..], bytes[..19_999]);
        let slice = map.slice(5_000..9_000).unwrap();
        drop(map);
        slice.populate().unwrap();
        assert_eq!(slice[..], bytes[5_000..9_000]);
        assert_eq!(slice.slice(1..2).unwrap()[..], bytes[5_001..5_002]);
        assert!(slice.slice(0..4_001).is_none());
    }

    fn check_locks(fs: &dyn FileSystem, dir: &Path) {
        fs.create_dir(dir).unwrap();
        let path = dir.join("lock");
        let first = fs.create(&path).unwrap();
        let second = fs.open_write(&path).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(first.try_lock().unwrap(), "a holder has what it asks for");
        assert!(!second.try_lock().unwrap());
        let reader = fs.open(&path).unwrap();
        assert_eq!(reader.try_lock().unwrap_err().kind(), ErrorKind::InvalidArgument);
        fs.rename(&path, &dir.join("renamed")).unwrap();
        assert!(!second.try_lock().unwrap(), "the lock is the file's, not the name's");
        let shared = Arc::clone(&first);
        drop(first);
        assert!(!second.try_lock().unwrap());
        drop(shared);
        assert!(second.try_lock().unwrap());
    }

    fn check_publish(fs: &dyn FileSystem, dir: &Path) {
        fs.create_dir(dir).unwrap();
        publish(fs, dir, "store.json", b"one", false).unwrap();
        let taken = publish(fs, dir, "store.json", b"two", false).unwrap_err();
        assert!(taken.is_already_there());
        assert_eq!(read_whole(fs, &dir.join("store.json"), 99).unwrap(), b"one");
        publish(fs, dir, "store.json", b"three", true).unwrap();
        assert_eq!(read_whole(fs, &dir.join("store.json"), 99).unwrap(), b"three");
        assert_eq!(names(fs, dir), ["store.json"], "no temporary file stays");
    }
}
