//! What `fork` does to an open store, undone.
//!
//! Owns the fork generation, the guard that refuses handles inherited from a
//! parent, and the table of the descriptors that are open for writing and may be
//! locked. A lock belongs to the open file, which a child shares: it would outlive
//! its owner for as long as the child does. So a handler that the C library runs in
//! the child lets go of the descriptors before anything else happens there. It must
//! not unlock (that would unlock the parent's file as well) and it must not merely
//! close them (the handles in the child would close the same numbers again, by then
//! perhaps another file's): each is replaced, in one step, by one of `/dev/null`.
//!
//! A child made between the opening of a file and its entry in the table would have
//! it without knowing, and share a lock taken later. So a fork waits, for a moment,
//! until no file is between the two.
//!
//! The handler in the child does only what is allowed between `fork` and `exec`:
//! atomics and single system calls. Processes made by a bare `clone` call do not run
//! it, nor do those that go on to `exec`, where the descriptors close by themselves.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// Files open for writing in one process, of all stores: a store has one per active segment
/// and a few more.
const WRITABLE_MAX: usize = 4096;

/// How long a fork waits for files that are being opened. More only if the disk hangs, or if
/// a signal handler forks that has interrupted the opening: then waiting is of no use.
const OPENING_MAX: Duration = Duration::from_secs(1);

const FREE: RawFd = -1;

static GENERATION: AtomicU64 = AtomicU64::new(1);
static WRITABLE: [AtomicI32; WRITABLE_MAX] = [const { AtomicI32::new(FREE) }; WRITABLE_MAX];
static NULL: AtomicI32 = AtomicI32::new(FREE);
/// Threads that are opening a file, and threads that are forking. Each side counts itself
/// first and then looks at the other, in one total order, so that never both go on.
static OPENING: AtomicU32 = AtomicU32::new(0);
static FORKING: AtomicU32 = AtomicU32::new(0);

/// A number that differs between a process and its parent.
pub(crate) fn fork_generation() -> u64 {
    if handler_installed() {
        GENERATION.load(Ordering::Relaxed)
    } else {
        u64::from(std::process::id())
    }
}

/// Refuses to work in a child of the process that made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkGuard {
    generation: u64,
}

impl ForkGuard {
    pub(crate) fn new() -> Self {
        Self { generation: fork_generation() }
    }

    pub(crate) fn is_inherited(self) -> bool {
        self.generation != fork_generation()
    }

    /// # Errors
    ///
    /// `Forked` in a child of the process that made the guard.
    pub(crate) fn check(self) -> Result<()> {
        if self.is_inherited() {
            let message = "the handle was inherited through fork";
            return Err(Error::new(ErrorKind::Forked, message)
                .with_remedy("open the store again in the child"));
        }
        Ok(())
    }
}

/// Opens a file so that children made by `fork` do not have it.
pub(super) fn open_for_parent_only(
    open: impl FnOnce() -> io::Result<File>,
) -> io::Result<(File, WritableSlot)> {
    // Made first, so that the handler is there before the entry is.
    let guard = ForkGuard::new();
    let _opening = Opening::begin();
    let file = open()?;
    let slot = WritableSlot::enter(file.as_raw_fd(), guard)?;
    Ok((file, slot))
}

/// Held while a file is open that is not in the table yet.
struct Opening;

impl Opening {
    fn begin() -> Self {
        loop {
            OPENING.fetch_add(1, Ordering::SeqCst);
            if FORKING.load(Ordering::SeqCst) == 0 {
                return Self;
            }
            OPENING.fetch_sub(1, Ordering::SeqCst);
            thread::yield_now();
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        OPENING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The place of a descriptor in the table; it leaves when this is dropped, which must be
/// before the file is closed and its number is another's.
#[derive(Debug)]
pub(super) struct WritableSlot {
    slot: &'static AtomicI32,
    guard: ForkGuard,
}

impl WritableSlot {
    fn enter(descriptor: RawFd, guard: ForkGuard) -> io::Result<Self> {
        let free = |slot: &&AtomicI32| {
            slot.compare_exchange(FREE, descriptor, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        match WRITABLE.iter().find(free) {
            Some(slot) => Ok(Self { slot, guard }),
            None => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }
}

impl Drop for WritableSlot {
    fn drop(&mut self) {
        // In a child the handler has emptied the table, and the place may be taken again.
        if !self.guard.is_inherited() {
            self.slot.store(FREE, Ordering::Release);
        }
    }
}

/// Installs the handler once in a process; false if the system has no memory for it.
fn handler_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "this is `fs`")]
        if let Ok(null) = File::open("/dev/null") {
            NULL.store(null.into_raw_fd(), Ordering::Release);
        }
        install_handler()
    })
}

#[expect(unsafe_code, reason = "the C library alone knows of every fork")]
fn install_handler() -> bool {
    // SAFETY: the handlers are functions that live as long as the process and take nothing;
    // that of the child does only what is allowed in a child of a process with threads.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) == 0 }
}

extern "C" fn before() {
    FORKING.fetch_add(1, Ordering::SeqCst);
    let begun = Instant::now();
    while OPENING.load(Ordering::SeqCst) > 0 && begun.elapsed() < OPENING_MAX {
        thread::yield_now();
    }
}

extern "C" fn in_parent() {
    FORKING.fetch_sub(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // Other threads that were forking or opening do not exist here.
    FORKING.store(0, Ordering::SeqCst);
    OPENING.store(0, Ordering::SeqCst);
    let null = NULL.load(Ordering::Acquire);
    for slot in &WRITABLE {
        let descriptor = slot.load(Ordering::Acquire);
        if descriptor != FREE {
            slot.store(FREE, Ordering::Release);
            let_go(descriptor, null);
        }
    }
}

/// Points `descriptor` at `/dev/null`, or closes it where that cannot be had.
#[expect(unsafe_code, reason = "only bare system calls are allowed in a child of a fork")]
fn let_go(descriptor: RawFd, null: RawFd) {
    // SAFETY: both calls are allowed in a signal handler and touch no memory. The descriptor
    // is open and of one of our files, since it leaves the table before it is closed.
    unsafe {
        if null == FREE || duplicate_onto(null, descriptor) == -1 {
            libc::close(descriptor);
        }
    }
}

/// # Safety
///
/// Whoever owns `descriptor` must expect it to be another file from now on.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "only bare system calls are allowed in a child of a fork")]
unsafe fn duplicate_onto(null: RawFd, descriptor: RawFd) -> RawFd {
    // SAFETY: a system call that touches no memory; the rest is promised by the caller.
    unsafe { libc::dup3(null, descriptor, libc::O_CLOEXEC) }
}

/// # Safety
///
/// Whoever owns `descriptor` must expect it to be another file from now on.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "only bare system calls are allowed in a child of a fork")]
unsafe fn duplicate_onto(null: RawFd, descriptor: RawFd) -> RawFd {
    // SAFETY: system calls that touch no memory; the rest is promised by the caller.
    unsafe {
        let duplicate = libc::dup2(null, descriptor);
        libc::fcntl(duplicate, libc::F_SETFD, libc::FD_CLOEXEC);
        duplicate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A child process, ended when this is dropped.
    struct Child(libc::pid_t);

    impl Drop for Child {
        #[expect(unsafe_code, reason = "a test of fork ends its child")]
        fn drop(&mut self) {
            // SAFETY: ends a child of ours that nobody has waited for; no status is asked for.
            unsafe {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, std::ptr::null_mut(), 0);
            }
        }
    }

    /// Runs a check in a child process, which then stays.
    #[expect(unsafe_code, reason = "a test of fork forks")]
    fn forked(check: impl FnOnce() -> bool) -> Child {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        // SAFETY: the child does its check and waits to be ended.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let _ = theirs.write_all(&[u8::from(check())]);
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        }
        let child = Child(pid);
        let mut answer = [0];
        ours.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1], "the child's own check");
        child
    }

    #[test]
    fn a_guard_is_refused_in_the_child_only() {
        let guard = ForkGuard::new();
        guard.check().unwrap();
        let child = forked(|| {
            let refused = guard.check().is_err_and(|error| error.kind() == ErrorKind::Forked);
            refused && !ForkGuard::new().is_inherited()
        });
        guard.check().unwrap();
        drop(child);
    }

    /// Waits for the lock: a process that another test starts shares every file until it
    /// has come to its `exec`.
    fn is_free_soon(file: &File) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if file.try_lock().is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn a_child_does_not_keep_the_lock_of_a_dead_owner() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (owner, slot) = open_for_parent_only(|| Ok(file.reopen().unwrap())).unwrap();
        owner.try_lock().unwrap();
        let descriptor = owner.as_raw_fd();
        let child = forked(|| {
            let now = std::fs::read_link(format!("/proc/self/fd/{descriptor}"));
            now.is_ok_and(|path| path.ends_with("null")) || !cfg!(target_os = "linux")
        });
        // The child did not unlock the parent's file.
        assert!(file.as_file().try_lock().is_err());
        // As at the owner's death: closed, without unlocking.
        drop(slot);
        drop(owner);
        assert!(is_free_soon(file.as_file()));
        drop(child);
    }

    #[test]
    fn a_lock_not_in_the_table_is_kept_by_a_child() {
        // The reason for the table; if this fails, it has none.
        let file = tempfile::NamedTempFile::new().unwrap();
        let owner = file.reopen().unwrap();
        owner.try_lock().unwrap();
        let child = forked(|| true);
        drop(owner);
        assert!(file.as_file().try_lock().is_err());
        drop(child);
        assert!(is_free_soon(file.as_file()));
    }

    /// A lock of one test was once kept by the child of another, made between the opening of
    /// the file and its entry in the table; so a fork waits until there is no such file.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_made_while_files_are_opened_has_none_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let inherited = || {
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut paths = descriptors.flatten().map(|entry| std::fs::read_link(entry.path()));
            paths.any(|path| path.is_ok_and(|path| path.starts_with(dir.path())))
        };
        let open = |index: usize| {
            let path = dir.path().join(index.to_string());
            open_for_parent_only(|| File::create_new(path)).unwrap()
        };
        thread::scope(|scope| {
            let opened = scope.spawn(|| (0..400).map(open).collect::<Vec<_>>());
            while !opened.is_finished() {
                drop(forked(|| !inherited()));
            }
            let opened = opened.join().unwrap();
            assert!(opened.len() == 400 && inherited());
            for (file, slot) in opened {
                drop(slot);
                drop(file);
            }
        });
    }
}
