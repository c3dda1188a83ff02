//! The file system of the operating system.
//!
//! Owns every system call on files. Calls that a signal interrupts are made again, short
//! writes go on where they stopped, no descriptor survives `exec`, a symbolic link is never
//! opened in place of a file, and a process is never killed for reaching its file size limit.

use std::fs;
use std::io::{self, ErrorKind as IoErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Gid, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use super::fork::{WritableSlot, open_for_parent_only};
use super::{Bytes, Entry, EntryKind, File, FileSystem, ForkGuard, Metadata};
use super::{never_mapped, not_a_file, only_for_reading, parent_of, shorter_than, too_large};
use crate::error::{Error, Result};

/// The files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

const GROUP_WRITE: u32 = 0o020;
const STICKY: u32 = 0o1000;

impl FileSystem for OsFileSystem {
    fn create_dir(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::io("create directory", path, error);
        let parent = fs::metadata(parent_of(path)).map_err(failed)?;
        make_dir(path, 0o777).map_err(failed)?;
        if let Ok(made) = open_dir(path, libc::O_NOFOLLOW) {
            share_with_group(&made, &parent);
        }
        Ok(())
    }

    fn create_private_dir(&self, path: &Path) -> Result<()> {
        make_dir(path, 0o700).map_err(|error| Error::io("create directory", path, error))
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        let failed = |error| Error::io("list directory", path, error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            entries.extend(describe(&entry.map_err(failed)?).map_err(failed)?);
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let found = fs::metadata(path).map_err(|error| Error::io("stat", path, error))?;
        metadata_of(&found).ok_or_else(|| not_a_file(path))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let failed = |error| Error::io("create", path, error);
        let parent = fs::metadata(parent_of(path)).map_err(failed)?;
        let mode = parent.mode() & 0o666;
        let create = || options(true).create_new(true).mode(mode).open(path);
        let (file, slot) = open_for_parent_only(create).map_err(failed)?;
        share_with_group(&file, &parent);
        Ok(OsFile::shared(path, file, Some(slot)))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = options(false).open(path).map_err(|error| not_opened(path, error))?;
        OsFile::for_reading(path, file)
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>> {
        let (file, slot) = open_for_parent_only(|| options(true).open(path))
            .map_err(|error| not_opened(path, error))?;
        check_regular(path, &file)?;
        Ok(OsFile::shared(path, file, Some(slot)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        retry_on_intr(|| rustix::fs::rename(from, to))
            .map_err(|error| Error::io("rename", from, error.into()))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        let no_replace = || rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
        match retry_on_intr(no_replace) {
            // The file system or an old kernel does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_and_unlink(from, to),
            result => result,
        }
        .map_err(|error| Error::io("rename", from, error.into()))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        match retry_on_intr(|| rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())) {
            Ok(()) => Ok(true),
            Err(
                Errno::XDEV
                | Errno::PERM
                | Errno::ACCESS
                | Errno::MLINK
                | Errno::NOTSUP
                | Errno::NOSYS,
            ) => Ok(false),
            Err(error) => Err(Error::io("link", from, error.into())),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        retry_on_intr(|| rustix::fs::unlink(path))
            .map_err(|error| Error::io("remove", path, error.into()))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        open_dir(path, 0)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| Error::io("sync directory", path, error))
    }

    fn is_local(&self, path: &Path) -> Result<bool> {
        is_local(path).map_err(|error| Error::io("statfs", path, error))
    }

    fn available_bytes(&self, path: &Path) -> Result<u64> {
        let found = retry_on_intr(|| rustix::fs::statvfs(path))
            .map_err(|error| Error::io("statvfs", path, error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn unique_id(&self) -> [u8; 16] {
        uuid::Uuid::new_v4().into_bytes()
    }

    fn shared_with_other_processes(&self) -> bool {
        true
    }
}

/// What is known of a file or directory; `None` of anything else.
pub(super) fn metadata_of(found: &fs::Metadata) -> Option<Metadata> {
    let kind = kind_of(found.file_type())?;
    let modified = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Some(Metadata { kind, len: found.len(), inode: found.ino(), modified })
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)
}

/// How every file is opened: a link is not followed, a pipe does not make the call wait.
fn options(writable: bool) -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(writable).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn open_dir(path: &Path, more_flags: i32) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | more_flags).open(path)
}

fn not_opened(path: &Path, error: io::Error) -> Error {
    if is_another_kind(&error) { not_a_file(path) } else { Error::io("open", path, error) }
}

fn check_regular(path: &Path, file: &fs::File) -> Result<()> {
    let found = file.metadata().map_err(|error| Error::io("stat", path, error))?;
    if found.is_file() { Ok(()) } else { Err(not_a_file(path)) }
}

/// What opening says of a link, of a directory (for writing), of a socket.
pub(super) fn is_another_kind(error: &io::Error) -> bool {
    let another = [Errno::LOOP, Errno::ISDIR, Errno::NXIO].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| another.contains(&code))
}

/// Makes a new file or directory as open to the group of its directory as that is, whatever
/// the umask says: writers of one store may be several users. Where the directory is not
/// open to its group, or is one for everybody such as `/tmp`, the umask decides.
///
/// A file system without groups and modes refuses this, and has no need of it.
fn share_with_group(file: &fs::File, parent: &fs::Metadata) {
    if parent.mode() & GROUP_WRITE == 0 || parent.mode() & STICKY != 0 {
        return;
    }
    let Ok(own) = file.metadata() else { return };
    let group = Gid::from_raw(parent.gid());
    if own.gid() != parent.gid() && rustix::fs::fchown(file, None, Some(group)).is_err() {
        // Not to be opened to a group that has nothing to do with the store.
        return;
    }
    let mode = own.mode() & 0o7777;
    let shared = mode | (parent.mode() & group_mask(&own));
    if shared != mode {
        let _ = file.set_permissions(fs::Permissions::from_mode(shared));
    }
}

/// Files are never made executable.
fn group_mask(own: &fs::Metadata) -> u32 {
    if own.is_dir() { 0o070 } else { 0o060 }
}

/// The entry, if it is one of ours in kind; none also if it went away meanwhile.
fn describe(entry: &fs::DirEntry) -> io::Result<Option<Entry>> {
    let kind = match entry.file_type() {
        Ok(file_type) => kind_of(file_type),
        Err(error) if error.kind() == IoErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let name = entry.file_name().into_string().ok();
    Ok(name.zip(kind).map(|(name, kind)| Entry { name, kind }))
}

fn kind_of(file_type: fs::FileType) -> Option<EntryKind> {
    if file_type.is_file() {
        Some(EntryKind::File)
    } else if file_type.is_dir() {
        Some(EntryKind::Directory)
    } else {
        None
    }
}

fn link_and_unlink(from: &Path, to: &Path) -> rustix::io::Result<()> {
    retry_on_intr(|| rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()))?;
    retry_on_intr(|| rustix::fs::unlink(from))
}

/// The file systems that the fault model covers, by their numbers in statfs(2). An overlay is
/// taken for what it usually lies on.
#[cfg(target_os = "linux")]
const LOCAL: [i64; 10] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // zfs
    0xF2F5_2010, // f2fs
    0x3153_464A, // jfs
    0x0102_1994, // tmpfs
    0x8584_58F6, // ramfs
    0x794C_7630, // overlayfs
];

#[cfg(target_os = "linux")]
fn is_local(path: &Path) -> io::Result<bool> {
    let found = retry_on_intr(|| rustix::fs::statfs(path))?;
    Ok(LOCAL.contains(&found.f_type))
}

#[cfg(not(target_os = "linux"))]
fn is_local(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| true)
}

/// An open file of the operating system.
#[derive(Debug)]
pub(super) struct OsFile {
    path: PathBuf,
    guard: ForkGuard,
    locked: AtomicBool,
    /// There if the file is open for writing. Before `file`, so that the entry is gone when
    /// the descriptor's number is free for another file.
    slot: Option<WritableSlot>,
    file: fs::File,
}

impl OsFile {
    /// A regular file that is open for reading.
    pub(super) fn for_reading(path: &Path, file: fs::File) -> Result<Arc<dyn File>> {
        check_regular(path, &file)?;
        Ok(Self::shared(path, file, None))
    }

    fn shared(path: &Path, file: fs::File, slot: Option<WritableSlot>) -> Arc<dyn File> {
        let (guard, locked) = (ForkGuard::new(), AtomicBool::new(false));
        Arc::new(Self { path: path.to_path_buf(), guard, locked, slot, file })
    }

    fn check_writable(&self) -> Result<()> {
        self.guard.check()?;
        if self.slot.is_some() { Ok(()) } else { Err(only_for_reading(&self.path)) }
    }

    fn metadata(&self) -> Result<fs::Metadata> {
        self.guard.check()?;
        self.file.metadata().map_err(|error| Error::io("stat", &self.path, error))
    }

    fn failed(&self, operation: &str, offset: u64, error: io::Error) -> Error {
        Error::io(operation, &self.path, error).with_offset(offset)
    }
}

impl Drop for OsFile {
    fn drop(&mut self) {
        // A child made after the entry has left the table has the descriptor without the lock.
        // In a child it is another file already, and the parent's lock is not ours to release.
        if self.locked.load(Ordering::Acquire) && !self.guard.is_inherited() {
            let _ = self.file.unlock();
        }
    }
}

impl File for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.guard.check()?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // Beyond the largest offset that the system knows nothing can be.
            let Some(at) = file_offset(offset, filled) else { break };
            match rustix::io::pread(&self.file, rest, at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed("read", at, error.into())),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        check_size_limit(offset, bytes.len())
            .and_then(|()| write_all(bytes, |rest, done| write_at(&self.file, rest, offset, done)))
            .map_err(|error| self.failed("write", offset, error))
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        self.check_writable()?;
        let end = self.len()?;
        check_size_limit(end, bytes.len())
            .and_then(|()| write_all(bytes, |rest, _| append_some(&self.file, rest)))
            .map_err(|error| self.failed("append", end, error))
    }

    fn sync_data(&self) -> Result<()> {
        self.guard.check()?;
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn inode(&self) -> Result<u64> {
        Ok(self.metadata()?.ino())
    }

    fn try_lock(&self) -> Result<bool> {
        self.check_writable()?;
        match self.file.try_lock() {
            Ok(()) => {
                self.locked.store(true, Ordering::Release);
                Ok(true)
            }
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &self.path, error)),
        }
    }

    fn map(&self, len: u64) -> Result<Bytes> {
        if self.slot.is_some() {
            return Err(never_mapped(&self.path));
        }
        let found = self.len()?;
        match usize::try_from(len) {
            Ok(size) if len <= found => {
                Bytes::map(&self.file, size).map_err(|error| Error::io("map", &self.path, error))
            }
            _ => Err(shorter_than(&self.path, len, found)),
        }
    }
}

/// An offset that the system can express, as a signed number.
fn file_offset(offset: u64, more: usize) -> Option<u64> {
    offset.checked_add(more as u64).filter(|&at| i64::try_from(at).is_ok())
}

/// A write beyond the file size limit raises a signal that ends the process, and signals are
/// the host program's. So the limit is asked for first; the host may change it at any time.
fn check_size_limit(offset: u64, len: usize) -> io::Result<()> {
    let end = file_offset(offset, len).ok_or_else(too_large)?;
    match getrlimit(Resource::Fsize).current {
        Some(limit) if end > limit && len > 0 => {
            let message = format!("the file size limit (ulimit -f) is {limit} bytes");
            Err(io::Error::new(IoErrorKind::FileTooLarge, message))
        }
        _ => Ok(()),
    }
}

/// Fails where the limit lets no file grow to `end`: for files that another library writes.
///
/// # Errors
///
/// `NoSpace`.
pub(crate) fn check_growth(path: &Path, end: u64) -> Result<()> {
    let checked = usize::try_from(end).map_or(Ok(()), |len| check_size_limit(0, len));
    checked.map_err(|error| Error::io("write", path, error))
}

/// Calls `write` with what is left and the count of bytes written until nothing is left.
fn write_all(
    bytes: &[u8],
    mut write: impl FnMut(&[u8], usize) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match write(rest, done) {
            Ok(0) => return Err(IoErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write_at(file: &fs::File, rest: &[u8], offset: u64, done: usize) -> rustix::io::Result<usize> {
    let at = file_offset(offset, done).ok_or(Errno::FBIG)?;
    rustix::io::pwrite(file, rest, at)
}

/// The kernel finds the end and writes there in one step, on a descriptor that positioned
/// writes use as well.
#[cfg(target_os = "linux")]
fn append_some(file: &fs::File, rest: &[u8]) -> rustix::io::Result<usize> {
    use rustix::io::{ReadWriteFlags, pwritev2};
    let rest_slice = [io::IoSlice::new(rest)];
    match pwritev2(file, &rest_slice, 0, ReadWriteFlags::APPEND) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => append_at_length(file, rest),
        result => result,
    }
}

#[cfg(not(target_os = "linux"))]
fn append_some(file: &fs::File, rest: &[u8]) -> rustix::io::Result<usize> {
    append_at_length(file, rest)
}

/// Two processes that do this at once may write to one place: a lost count in a hint.
fn append_at_length(file: &fs::File, rest: &[u8]) -> rustix::io::Result<usize> {
    let end = rustix::fs::fstat(file.as_fd())?.st_size;
    write_at(file, rest, u64::try_from(end).unwrap_or_default(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fs::tests::check_contract;
    use rustix::fs::{FileType, Mode};
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        check_contract(&OsFileSystem, dir.path());
        assert!(OsFileSystem.shared_with_other_processes());
    }

    #[test]
    fn links_and_pipes_are_not_files() {
        let dir = tempfile::tempdir().unwrap();
        let fs = OsFileSystem;
        let at = |name: &str| dir.path().join(name);
        fs.create(&at("file")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let names: Vec<String> =
            fs.list(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["file"]);
        for name in ["link", "pipe", "dangling"] {
            assert_eq!(fs.open(&at(name)).unwrap_err().kind(), ErrorKind::NotOurFile, "{name}");
            let error = fs.open_write(&at(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotOurFile, "{name}");
        }
        assert!(fs.create(&at("dangling")).unwrap_err().is_already_there());
        assert!(fs.rename_new(&at("file"), &at("dangling")).unwrap_err().is_already_there());
        assert_eq!(fs.metadata(&at("pipe")).unwrap_err().kind(), ErrorKind::NotOurFile);
    }

    #[test]
    fn the_way_round_a_missing_rename_flag_does_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let fs = OsFileSystem;
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs.create(&a).unwrap().append(b"a").unwrap();
        fs.create(&b).unwrap();
        assert_eq!(link_and_unlink(&a, &b), Err(Errno::EXIST));
        fs.remove(&b).unwrap();
        link_and_unlink(&a, &b).unwrap();
        assert!(fs.open(&a).unwrap_err().is_not_found());
        assert_eq!(fs.metadata(&b).unwrap().len, 1);
    }

    #[test]
    fn modes_follow_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let fs = OsFileSystem;
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let private = dir.path().join("private");
        fs.create_private_dir(&private).unwrap();
        fs.create(&private.join("file")).unwrap();
        assert_eq!((mode(&private), mode(&private.join("file"))), (0o700, 0o600));

        let group = dir.path().join("group");
        fs.create_private_dir(&group).unwrap();
        fs::set_permissions(&group, fs::Permissions::from_mode(0o770)).unwrap();
        fs.create(&group.join("file")).unwrap();
        fs.create_dir(&group.join("dir")).unwrap();
        assert_eq!(mode(&group.join("file")), 0o660);
        assert_eq!(mode(&group.join("dir")) & 0o770, 0o770);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn tells_local_file_systems() {
        assert!(!OsFileSystem.is_local(Path::new("/proc")).unwrap());
        assert!(OsFileSystem.is_local(Path::new("/nowhere/at/all")).unwrap_err().is_not_found());
    }

    /// The process of this test is started again with a limit, at which a write ends it by
    /// a signal unless the limit is looked at.
    #[test]
    fn the_file_size_limit_is_an_error_and_no_signal() {
        const LIMITED: &str = "TALLYSTONE_TEST_FILE_SIZE_LIMIT";
        let name = "fs::os::tests::the_file_size_limit_is_an_error_and_no_signal";
        if let Some(dir) = std::env::var_os(LIMITED) {
            return check_limited(Path::new(&dir));
        }
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("sh")
            .args(["-c", "ulimit -f 8; exec \"$0\" --exact \"$1\" >/dev/null 2>&1"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(LIMITED, dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(dir.path().join("file").exists(), "the test has moved: {name}");
    }

    fn check_limited(dir: &Path) {
        let limit = getrlimit(Resource::Fsize).current.unwrap();
        let size = usize::try_from(limit).unwrap();
        let file = OsFileSystem.create(&dir.join("file")).unwrap();
        file.write_all_at(&vec![1; size], 0).unwrap();
        for error in [
            file.write_all_at(b"x", limit).unwrap_err(),
            file.write_all_at(b"xx", limit - 1).unwrap_err(),
            file.append(b"x").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            assert!(error.message().contains("file size limit"), "{error}");
        }
        file.write_all_at(b"x", limit - 1).unwrap();
        assert_eq!(file.len().unwrap(), limit);
    }

    #[test]
    fn appends_of_several_handles_do_not_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("generation");
        OsFileSystem.create(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let file = OsFileSystem.open_write(&path).unwrap();
                    (0..200).for_each(|_| file.append(b"+").unwrap());
                });
            }
        });
        assert_eq!(OsFileSystem.metadata(&path).unwrap().len, 800);
    }
}
