//! A file system in memory that can fail and lose power at any operation.
//!
//! Owns the twin of `os` that crash tests run on. It keeps, for every file and
//! directory, what is durable apart from what was done since, in a model weaker
//! than that of any local file system in use, so that code right here is right
//! there:
//!
//! - the bytes of a file are durable up to its last `sync_data`; writes since then
//!   survive a crash or not, each sector for itself, as does the new length;
//! - a name is durable once its directory was synced; syncing the file does not do it;
//!   changes of names since then survive in any combination, but a change of a name
//!   needs the earlier changes of that name, and a rename happens whole or not;
//! - after a failed `sync_data` the writes before it read back, yet no later sync
//!   makes them durable (as the page cache of Linux does);
//! - damage stays inside the bytes written since the last sync.
//!
//! Every operation is numbered and every change recorded, so that one recorded run
//! gives the image of a crash after any of its operations under any policy:
//!
//! ```text
//! run the workload on `fs`
//! for op in fs.change_points() { for image in fs.images_after(op, seed, 16) { recover, check } }
//! ```

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed, xxh3_128_with_seed};

use self::model::{Effect, Node, PAGE_BYTES, Slot, State, mix, pick};
use super::{Bytes, Entry, EntryKind, File, FileSystem, Metadata};
use super::{never_mapped, not_a_file, only_for_reading, shorter_than, too_large};
use crate::error::{Error, Result};
use crate::sync::{Mutex, MutexGuard};

/// No file here can be longer.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// The kind of an operation, to choose which of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum OpKind {
    CreateDir,
    List,
    Metadata,
    Create,
    Open,
    OpenWrite,
    Rename,
    RenameNew,
    Remove,
    SyncDir,
    IsLocal,
    Read,
    Write,
    Append,
    SyncData,
    Len,
    Inode,
    TryLock,
    Map,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this error number of the system, having done nothing.
    Errno(i32),
    /// A write does half of its bytes, then finds the disk full. Other operations just find
    /// it full.
    ShortWrite,
}

impl Fault {
    /// The disk failed.
    pub const IO: Self = Self::Errno(libc::EIO);
    /// The disk is full.
    pub const NO_SPACE: Self = Self::Errno(libc::ENOSPC);

    fn error(self) -> io::Error {
        match self {
            Self::Errno(code) => io::Error::from_raw_os_error(code),
            Self::ShortWrite => Errno::NOSPC.into(),
        }
    }
}

/// Which of the operations that were not synced survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// None of them.
    None,
    /// All of them.
    All,
    /// The first so many, names and writes alike, in the order they were done.
    Prefix(usize),
    /// One alone, counted from 0 in the order they were done, and what it cannot be without.
    Only(usize),
    /// All names, no bytes: a rename overtakes the data of the file.
    NamesWithoutData,
    /// All bytes, no names.
    DataWithoutNames,
    /// All names and lengths; the bytes beyond the old length are zero.
    SizeWithoutData,
    /// All names and bytes, but the old lengths.
    DataWithoutSize,
    /// All names; lengths run ahead to the end of the page, with zeros.
    ZeroTail,
    /// A random choice of names, lengths and sectors (of 512 or 4,096 bytes); a sector is as
    /// it was after some of the writes to it.
    Random,
    /// As `Random`, and some of the sectors are half written or hold something else.
    Torn,
}

impl CrashPolicy {
    /// The policies without a number.
    const FIXED: [Self; 7] = [
        Self::None,
        Self::All,
        Self::NamesWithoutData,
        Self::SizeWithoutData,
        Self::DataWithoutSize,
        Self::ZeroTail,
        Self::DataWithoutNames,
    ];

    /// The policy of image `index` of a series where `unsynced` operations may be lost: first
    /// the fixed ones, then in turn a prefix, a single one, two random choices.
    fn of_series(index: usize, seed: u64, unsynced: usize) -> Self {
        let Some(rest) = index.checked_sub(Self::FIXED.len()) else { return Self::FIXED[index] };
        let round = rest / 4;
        let nth = pick(mix(seed, 0), unsynced.max(1)) + round;
        match rest % 4 {
            0 if round + 1 < unsynced => Self::Prefix(1 + nth % (unsynced - 1)),
            1 if round < unsynced => Self::Only(nth % unsynced),
            0 | 2 => Self::Random,
            _ => Self::Torn,
        }
    }
}

/// A simulated file system; clones are the same one, as seen by another process.
#[derive(Clone)]
pub struct SimFileSystem {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// What running programs see, with what of it is durable.
    live: State,
    /// The state before the first recorded change.
    base: State,
    first_op: u64,
    ops: u64,
    journal: Vec<Record>,
    /// The state after the first so many changes, kept because images are mostly asked for in
    /// ascending order.
    replay: Option<(usize, State)>,
    ids: u64,
    id_seed: u64,
    handles: u64,
    /// Open handles of each inode.
    open: BTreeMap<u64, usize>,
    /// The handle that holds the lock of an inode.
    locks: BTreeMap<u64, u64>,
    rules: Vec<Rule>,
    faults_fired: u64,
    /// The call that was made to fail first.
    first_fault: Option<String>,
    stop_at: Option<u64>,
    space_bytes: Option<u64>,
    read_only: bool,
}

/// One change, at the operation that made it.
struct Record {
    op: u64,
    kind: OpKind,
    path: PathBuf,
    effect: Effect,
}

/// Which operations fail, and how.
struct Rule {
    pattern: Option<String>,
    kind: Option<OpKind>,
    /// Matching operations that pass before.
    pass: u64,
    fault: Fault,
    forever: bool,
}

impl Rule {
    fn matches(&self, kind: OpKind, path: &Path) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.pattern.as_ref().is_none_or(|part| path.to_string_lossy().contains(part))
    }
}

impl SimFileSystem {
    /// An empty file system: a root directory.
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    /// An empty file system whose identifiers differ from those of another seed.
    pub fn with_seed(seed: u64) -> Self {
        Self::start(State::empty(), 0, seed)
    }

    fn start(state: State, ops: u64, id_seed: u64) -> Self {
        let inner = Inner {
            base: state.clone(),
            live: state,
            first_op: ops,
            ops,
            journal: Vec::new(),
            replay: None,
            ids: 0,
            id_seed,
            handles: 0,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            rules: Vec::new(),
            faults_fired: 0,
            first_fault: None,
            stop_at: None,
            space_bytes: None,
            read_only: false,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is made by one call that does not panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- operations and their images

    /// Operations done so far, reading ones and failed ones included. An image goes on
    /// counting where its original was.
    pub fn op_count(&self) -> u64 {
        self.lock().ops
    }

    /// The operation count at which this file system began to record.
    pub fn first_op(&self) -> u64 {
        self.lock().first_op
    }

    /// The operation counts after which a crash can leave something new: the start, and after
    /// each operation that changed or synced anything. Ascending.
    pub fn change_points(&self) -> Vec<u64> {
        let inner = self.lock();
        let mut points = vec![inner.first_op];
        points.extend(inner.journal.iter().map(|record| record.op + 1));
        points.dedup();
        points
    }

    /// What changed by the operation of that number (the first is 0), for messages.
    pub fn describe(&self, op: u64) -> Option<String> {
        let inner = self.lock();
        let record = inner.journal.iter().find(|record| record.op == op)?;
        let what = match &record.effect {
            Effect::Write { offset, bytes, .. } => format!(" {} bytes at {offset}", bytes.len()),
            Effect::SyncFailed { .. } => " (failed)".to_owned(),
            _ => String::new(),
        };
        Some(format!("{op}: {:?} {}{what}", record.kind, record.path.display()))
    }

    /// Forgets how the present state came about; images of earlier operations are no longer
    /// to be had. Keeps memory flat in long runs.
    pub fn checkpoint(&self) {
        let mut inner = self.lock();
        let kept = inner.open.keys().copied().collect();
        inner.live.forget_unreachable(&kept);
        inner.base = inner.live.clone();
        inner.first_op = inner.ops;
        inner.journal.clear();
        inner.replay = None;
    }

    /// How many operations a crash after `op` operations could undo.
    pub fn unsynced_after(&self, op: u64) -> usize {
        self.lock().state_after(op).unsynced().len()
    }

    /// What a power cut now would leave.
    pub fn crash_image(&self, policy: CrashPolicy, seed: u64) -> Self {
        self.image_after(self.op_count(), policy, seed)
    }

    /// What a power cut after the first `op` operations would have left. No locks are held in
    /// it and nothing fails. An `op` before [`first_op`](Self::first_op) is taken for that.
    pub fn image_after(&self, op: u64, policy: CrashPolicy, seed: u64) -> Self {
        let mut inner = self.lock();
        let id_seed = inner.id_seed_after(op);
        let state = inner.state_after(op).after_crash(policy, seed);
        Self::start(state, op, id_seed)
    }

    /// Up to `count` images of a power cut now: see [`images_after`](Self::images_after).
    pub fn crash_images(&self, seed: u64, count: usize) -> Vec<Self> {
        self.images_after(self.op_count(), seed, count)
    }

    /// Up to `count` images of a power cut after `op` operations, each under another policy or
    /// seed: first the fixed policies, then prefixes, single operations and random choices in
    /// turn. Just one where nothing could be lost.
    pub fn images_after(&self, op: u64, seed: u64, count: usize) -> Vec<Self> {
        let unsynced = self.unsynced_after(op);
        let count = if unsynced == 0 { count.min(1) } else { count };
        let image = |index: usize| {
            let policy = CrashPolicy::of_series(index, seed, unsynced);
            self.image_after(op, policy, mix(seed, index as u64))
        };
        (0..count).map(image).collect()
    }

    /// What killing the process now would leave: all that was done, no locks. What was not
    /// synced can still be lost by a later crash of the image.
    pub fn kill_image(&self) -> Self {
        let inner = self.lock();
        Self::start(inner.live.clone(), inner.ops, inner.id_seed_after(inner.ops))
    }

    /// What killing the process inside operation number `op` would have left: the operations
    /// before it, and of a write as many whole pages as the seed says.
    pub fn kill_image_within(&self, op: u64, seed: u64) -> Self {
        let mut inner = self.lock();
        let mut state = inner.state_after(op).clone();
        let record = inner.journal.iter().find(|record| record.op == op);
        if let Some(Effect::Write { inode, offset, bytes }) = record.map(|record| &record.effect) {
            let pages: Vec<&[u8]> = bytes.chunks_exact(PAGE_BYTES).collect();
            let kept = pick(mix(seed, op), pages.len() + 1);
            let bytes = pages.get(..kept).unwrap_or_default().concat().into();
            state.apply(op, &Effect::Write { inode: *inode, offset: *offset, bytes });
        }
        Self::start(state, op, inner.id_seed_after(op))
    }

    // ---- faults

    /// Makes the `n`th operation from now (0 is the next one) fail, or all from it on.
    pub fn fail_at(&self, n: u64, fault: Fault, forever: bool) {
        self.add_rule(None, None, n, fault, forever);
    }

    /// Makes the `n`th operation from now (0 is the next one) fail, or all from it on, counting
    /// those of `kind` alone (all kinds if none) whose path contains `pattern`.
    pub fn fail_path_matching(
        &self,
        pattern: &str,
        kind: Option<OpKind>,
        n: u64,
        fault: Fault,
        forever: bool,
    ) {
        self.add_rule(Some(pattern.to_owned()), kind, n, fault, forever);
    }

    fn add_rule(
        &self,
        pattern: Option<String>,
        kind: Option<OpKind>,
        pass: u64,
        fault: Fault,
        forever: bool,
    ) {
        self.lock().rules.push(Rule { pattern, kind, pass, fault, forever });
    }

    /// Takes back everything that [`fail_at`](Self::fail_at) and
    /// [`fail_path_matching`](Self::fail_path_matching) asked for.
    pub fn heal(&self) {
        self.lock().rules.clear();
    }

    /// Operations that were made to fail so far. A loop over every operation of a workload
    /// ends with the first run in which this stays 0.
    pub fn faults_fired(&self) -> u64 {
        self.lock().faults_fired
    }

    /// The call that was made to fail first, for messages.
    pub fn first_fault(&self) -> Option<String> {
        self.lock().first_fault.clone()
    }

    /// Stops the machine at the `n`th operation from now (0 is the next one): it and all after
    /// it fail and change nothing.
    pub fn stop_at(&self, n: u64) {
        let mut inner = self.lock();
        inner.stop_at = Some(inner.ops.saturating_add(n));
    }

    /// Whether an operation met the stop.
    pub fn is_stopped(&self) -> bool {
        let inner = self.lock();
        inner.stop_at.is_some_and(|at| inner.ops > at)
    }

    /// Limits the bytes of all files together; none takes the limit away. A write that does
    /// not fit writes what does and finds the disk full.
    pub fn space_limit(&self, bytes: Option<u64>) {
        self.lock().space_bytes = bytes;
    }

    /// Bytes of all files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Makes every change fail as on a read-only mount, or no longer.
    pub fn read_only(&self, yes: bool) {
        self.lock().read_only = yes;
    }

    // ---- looking, which is no operation, and patching, which is one; no fault hits them

    /// A hash of all paths and bytes, to count images that differ.
    pub fn hash(&self) -> u64 {
        self.hash_but_for(None)
    }

    /// As [`hash`](Self::hash), without the bytes of files of this name.
    pub fn hash_but_for(&self, name: Option<&str>) -> u64 {
        let inner = self.lock();
        let mut hasher = Xxh3::new();
        inner.live.walk(|path, node| {
            hasher.update(path.as_os_str().as_encoded_bytes());
            match node {
                Node::Directory(_) => hasher.update(&[0, 1]),
                Node::File(file) => {
                    hasher.update(&[0, 2]);
                    hasher.update(&(file.content.len() as u64).to_le_bytes());
                    if name.is_none() || path.file_name() != name.map(OsStr::new) {
                        hasher.update(&file.content);
                    }
                }
            }
        });
        hasher.digest()
    }

    /// The path and length of every file, by path.
    pub fn dump(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        self.lock().live.walk(|path, node| {
            if let Node::File(file) = node {
                files.push((path.to_path_buf(), file.content.len() as u64));
            }
        });
        files
    }

    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// `is_not_found`; `NotOurFile` for a directory.
    pub fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let inner = self.lock();
        let inode = inner.find(path).map_err(|errno| failed("read", path, errno))?;
        let file = inner.live.file(inode).ok_or_else(|| not_a_file(path))?;
        Ok(file.content.to_vec())
    }

    /// Makes a file hold these bytes, durably and at once, whether it was there or not.
    ///
    /// # Errors
    ///
    /// `is_not_found` if its directory is not there; `NotOurFile` for a directory.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        let slot = inner.slot(path).map_err(|errno| failed("write", path, errno))?;
        let found = inner.live.entry(&slot);
        if found.is_some_and(|inode| inner.live.file(inode).is_none()) {
            return Err(not_a_file(path));
        }
        let inode = Some(found.unwrap_or_else(|| inner.live.free_inode()));
        inner.settle(path, Slot { inode, ..slot }, Some(bytes.to_vec()));
        Ok(())
    }

    /// Cuts a file to `len` bytes, durably and at once; zeros make it longer.
    ///
    /// # Errors
    ///
    /// `is_not_found`; `NotOurFile` for a directory.
    pub fn truncate(&self, path: &Path, len: usize) -> Result<()> {
        let mut bytes = self.read_file(path)?;
        bytes.resize(len, 0);
        self.write_file(path, &bytes)
    }

    /// Removes a file, durably and at once.
    ///
    /// # Errors
    ///
    /// `is_not_found`.
    pub fn delete_file(&self, path: &Path) -> Result<()> {
        let mut inner = self.lock();
        inner.find(path).map_err(|errno| failed("remove", path, errno))?;
        let slot = inner.slot(path).map_err(|errno| failed("remove", path, errno))?;
        inner.settle(path, slot, None);
        Ok(())
    }

    // ---- one operation

    /// Counts an operation and finds out whether it is to fail.
    fn begin<'a>(&'a self, kind: OpKind, operation: &'static str, path: &'a Path) -> Step<'a> {
        let mut inner = self.lock();
        let op = inner.ops;
        inner.ops += 1;
        let stopped = inner.stop_at.is_some_and(|at| op >= at);
        let fault = if stopped { None } else { inner.fault(kind, path) };
        Step { inner, op, kind, operation, path, stopped, fault }
    }

    /// As [`begin`](Self::begin), and fails where it is to.
    fn step<'a>(
        &'a self,
        kind: OpKind,
        operation: &'static str,
        path: &'a Path,
    ) -> Result<Step<'a>> {
        let step = self.begin(kind, operation, path);
        match step.refusal() {
            Some(error) => Err(error),
            None => Ok(step),
        }
    }

    /// As [`step`](Self::step), for an operation that changes something.
    fn change<'a>(
        &'a self,
        kind: OpKind,
        operation: &'static str,
        path: &'a Path,
    ) -> Result<Step<'a>> {
        let step = self.step(kind, operation, path)?;
        step.check_mounted_writable()?;
        Ok(step)
    }

    fn handle(&self, mut step: Step<'_>, inode: u64, writable: bool) -> Arc<dyn File> {
        let path = step.path.to_path_buf();
        step.inner.handles += 1;
        let handle = step.inner.handles;
        *step.inner.open.entry(inode).or_default() += 1;
        drop(step);
        Arc::new(SimFile { fs: self.clone(), path, inode, handle, writable })
    }

    fn open_as(&self, kind: OpKind, path: &Path, writable: bool) -> Result<Arc<dyn File>> {
        let step = self.step(kind, "open", path)?;
        if writable {
            step.check_mounted_writable()?;
        }
        let inode = step.ok(step.inner.find(path))?;
        if step.inner.live.file(inode).is_none() {
            return Err(not_a_file(path));
        }
        Ok(self.handle(step, inode, writable))
    }

    fn move_name(&self, kind: OpKind, from: &Path, to: &Path) -> Result<()> {
        let mut step = self.change(kind, "rename", from)?;
        let inode = step.ok(step.inner.find(from))?;
        let source = step.ok(step.inner.slot(from))?;
        let target = step.ok(step.inner.slot(to))?;
        match step.inner.live.entry(&target) {
            Some(_) if kind == OpKind::RenameNew => return Err(step.failed(Errno::EXIST)),
            // Both are the same file already.
            Some(found) if found == inode => return Ok(()),
            Some(found) if step.inner.live.file(found).is_none() => {
                return Err(step.failed(Errno::ISDIR));
            }
            _ => {}
        }
        let slots = vec![Slot { inode: None, ..source }, Slot { inode: Some(inode), ..target }];
        step.record(Effect::Names { made: None, slots });
        Ok(())
    }
}

impl Default for SimFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFileSystem(after {} operations)", self.op_count())
    }
}

impl Inner {
    fn state_after(&mut self, op: u64) -> &State {
        let wanted = self.journal.partition_point(|record| record.op < op);
        let (done, mut state) = match self.replay.take() {
            Some((done, state)) if done <= wanted => (done, state),
            _ => (0, self.base.clone()),
        };
        for record in self.journal.get(done..wanted).unwrap_or_default() {
            state.apply(record.op, &record.effect);
        }
        &self.replay.insert((wanted, state)).1
    }

    /// Images at different operations, and images of images, draw from different sequences.
    fn id_seed_after(&self, op: u64) -> u64 {
        xxh3_64_with_seed(&op.to_le_bytes(), self.id_seed)
    }

    fn fault(&mut self, kind: OpKind, path: &Path) -> Option<Fault> {
        let mut fired = None;
        self.rules.retain_mut(|rule| {
            if fired.is_some() || !rule.matches(kind, path) {
                return true;
            }
            if rule.pass > 0 {
                rule.pass -= 1;
                return true;
            }
            fired = Some(rule.fault);
            rule.forever
        });
        if fired.is_some() {
            self.faults_fired += 1;
            self.first_fault.get_or_insert_with(|| format!("{kind:?} {}", path.display()));
        }
        fired
    }

    fn find(&self, path: &Path) -> Result<u64, Errno> {
        self.live.find(&components(path)?)
    }

    /// The place of a path's last name, with nothing in it.
    fn slot(&self, path: &Path) -> Result<Slot, Errno> {
        let names = components(path)?;
        let (name, above) = names.split_last().ok_or(Errno::EXIST)?;
        let directory = self.live.find(above)?;
        match self.live.directory(directory) {
            Some(_) => Ok(Slot { directory, name: (*name).to_owned(), inode: None }),
            None => Err(Errno::NOTDIR),
        }
    }

    fn record(&mut self, record: Record) {
        self.live.apply(record.op, &record.effect);
        self.journal.push(record);
    }

    /// Changes a file from outside: counted as an operation, so that images know it.
    fn settle(&mut self, path: &Path, slot: Slot, content: Option<Vec<u8>>) {
        let op = self.ops;
        self.ops += 1;
        let effect = Effect::Settle { slot, content: content.map(Arc::new) };
        self.record(Record { op, kind: OpKind::Write, path: path.to_path_buf(), effect });
    }

    fn used_bytes(&self) -> u64 {
        let mut used: BTreeSet<u64> = self.open.keys().copied().collect();
        for node in self.live.nodes.values() {
            if let Node::Directory(directory) = node {
                used.extend(directory.entries.values());
            }
        }
        let bytes = |inode| self.live.file(inode).map_or(0, |file| file.content.len() as u64);
        used.into_iter().map(bytes).sum()
    }

    /// How many of `len` bytes at `offset` the space limit allows.
    fn bytes_that_fit(&self, inode: u64, offset: u64, len: usize) -> usize {
        let Some(limit) = self.space_bytes else { return len };
        let own = self.live.file(inode).map_or(0, |file| file.content.len() as u64);
        let free = limit.saturating_sub(self.used_bytes());
        let fits = own.saturating_add(free).saturating_sub(offset);
        usize::try_from(fits).map_or(len, |fits| fits.min(len))
    }
}

/// One operation, under the lock of the whole file system.
struct Step<'a> {
    inner: MutexGuard<'a, Inner>,
    op: u64,
    kind: OpKind,
    operation: &'static str,
    path: &'a Path,
    stopped: bool,
    fault: Option<Fault>,
}

impl Step<'_> {
    fn refusal(&self) -> Option<Error> {
        let cause = match (self.stopped, self.fault) {
            (true, _) => io::Error::other("the simulated machine has stopped"),
            (false, Some(fault)) => fault.error(),
            (false, None) => return None,
        };
        Some(Error::io(self.operation, self.path, cause))
    }

    fn failed(&self, errno: Errno) -> Error {
        failed(self.operation, self.path, errno)
    }

    fn ok<T>(&self, result: Result<T, Errno>) -> Result<T> {
        result.map_err(|errno| self.failed(errno))
    }

    fn check_mounted_writable(&self) -> Result<()> {
        if self.inner.read_only { Err(self.failed(Errno::ROFS)) } else { Ok(()) }
    }

    fn record(&mut self, effect: Effect) {
        let record = Record { op: self.op, kind: self.kind, path: self.path.into(), effect };
        self.inner.record(record);
    }

    /// Makes a file or directory.
    fn make(&mut self, kind: EntryKind) -> Result<u64> {
        let slot = self.ok(self.inner.slot(self.path))?;
        if self.inner.live.entry(&slot).is_some() {
            return Err(self.failed(Errno::EXIST));
        }
        let inode = self.inner.live.free_inode();
        let slots = vec![Slot { inode: Some(inode), ..slot }];
        self.record(Effect::Names { made: Some((inode, kind)), slots });
        Ok(inode)
    }

    /// Writes what fits, at the end if no offset is given.
    fn write(mut self, inode: u64, bytes: &[u8], offset: Option<u64>) -> Result<()> {
        let short = self.fault == Some(Fault::ShortWrite);
        if let Some(error) = self.refusal().filter(|_| self.stopped || !short) {
            return Err(error);
        }
        let end = self.inner.live.file(inode).map_or(0, |file| file.content.len() as u64);
        let offset = offset.unwrap_or(end);
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Error::io(self.operation, self.path, too_large()).with_offset(offset));
        }
        let wanted = if short { bytes.len() / 2 } else { bytes.len() };
        let fits = self.inner.bytes_that_fit(inode, offset, wanted);
        let written: Arc<[u8]> = bytes.get(..fits).unwrap_or_default().into();
        if !written.is_empty() {
            self.record(Effect::Write { inode, offset, bytes: written });
        }
        if fits < bytes.len() || short {
            return Err(self.failed(Errno::NOSPC).with_offset(offset));
        }
        Ok(())
    }
}

fn failed(operation: &str, path: &Path, errno: Errno) -> Error {
    Error::io(operation, path, errno.into())
}

/// The names of a path below the root.
fn components(path: &Path) -> Result<Vec<&str>, Errno> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(Errno::INVAL)?),
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
        }
    }
    Ok(names)
}

impl FileSystem for SimFileSystem {
    fn create_dir(&self, path: &Path) -> Result<()> {
        let mut step = self.change(OpKind::CreateDir, "create directory", path)?;
        step.make(EntryKind::Directory).map(|_| ())
    }

    fn create_private_dir(&self, path: &Path) -> Result<()> {
        self.create_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        let step = self.step(OpKind::List, "list directory", path)?;
        let live = &step.inner.live;
        let inode = step.ok(step.inner.find(path))?;
        let directory = live.directory(inode).ok_or_else(|| step.failed(Errno::NOTDIR))?;
        let entry = |(name, inode): (&String, &u64)| {
            let kind = live.nodes.get(inode)?.kind();
            Some(Entry { name: name.clone(), kind })
        };
        Ok(directory.entries.iter().filter_map(entry).collect())
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let step = self.step(OpKind::Metadata, "stat", path)?;
        let inode = step.ok(step.inner.find(path))?;
        let node = step.inner.live.nodes.get(&inode).ok_or_else(|| step.failed(Errno::NOENT))?;
        let (len, modified) = match node {
            Node::File(file) => (file.content.len() as u64, file.modified),
            Node::Directory(directory) => (0, directory.modified),
        };
        // Time here is the count of operations.
        let modified = i64::try_from(modified).unwrap_or(i64::MAX);
        Ok(Metadata { kind: node.kind(), len, inode, modified })
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let mut step = self.change(OpKind::Create, "create", path)?;
        let inode = step.make(EntryKind::File)?;
        Ok(self.handle(step, inode, true))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.open_as(OpKind::Open, path, false)
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.open_as(OpKind::OpenWrite, path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.move_name(OpKind::Rename, from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.move_name(OpKind::RenameNew, from, to)
    }

    /// The simulated file system has one name for each file.
    fn link(&self, _from: &Path, _to: &Path) -> Result<bool> {
        Ok(false)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut step = self.change(OpKind::Remove, "remove", path)?;
        let inode = step.ok(step.inner.find(path))?;
        if step.inner.live.file(inode).is_none() {
            return Err(step.failed(Errno::ISDIR));
        }
        let slot = step.ok(step.inner.slot(path))?;
        step.record(Effect::Names { made: None, slots: vec![slot] });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut step = self.step(OpKind::SyncDir, "sync directory", path)?;
        let inode = step.ok(step.inner.find(path))?;
        if step.inner.live.directory(inode).is_none() {
            return Err(step.failed(Errno::NOTDIR));
        }
        step.record(Effect::SyncDirectory { inode });
        Ok(())
    }

    fn is_local(&self, path: &Path) -> Result<bool> {
        let step = self.step(OpKind::IsLocal, "statfs", path)?;
        step.ok(step.inner.find(path)).map(|_| true)
    }

    fn available_bytes(&self, _path: &Path) -> Result<u64> {
        let inner = self.lock();
        Ok(inner.space_bytes.map_or(u64::MAX, |space| space.saturating_sub(inner.used_bytes())))
    }

    fn unique_id(&self) -> [u8; 16] {
        let mut inner = self.lock();
        inner.ids += 1;
        let id = xxh3_128_with_seed(&inner.ids.to_le_bytes(), inner.id_seed);
        id.max(1).to_be_bytes()
    }

    fn shared_with_other_processes(&self) -> bool {
        false
    }
}

/// An open file of a simulated file system.
struct SimFile {
    fs: SimFileSystem,
    path: PathBuf,
    inode: u64,
    handle: u64,
    writable: bool,
}

impl SimFile {
    fn content(&self, kind: OpKind, operation: &'static str) -> Result<Arc<Vec<u8>>> {
        let step = self.fs.step(kind, operation, &self.path)?;
        match step.inner.live.file(self.inode) {
            Some(file) => Ok(Arc::clone(&file.content)),
            None => Err(step.failed(Errno::IO)),
        }
    }

    fn begin_write(&self, kind: OpKind, operation: &'static str) -> Result<Step<'_>> {
        if !self.writable {
            return Err(only_for_reading(&self.path));
        }
        let step = self.fs.begin(kind, operation, &self.path);
        step.check_mounted_writable()?;
        Ok(step)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({}, inode {})", self.path.display(), self.inode)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = self.fs.lock();
        if inner.locks.get(&self.inode) == Some(&self.handle) {
            inner.locks.remove(&self.inode);
        }
        match inner.open.get_mut(&self.inode) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                inner.open.remove(&self.inode);
            }
        }
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let content = self.content(OpKind::Read, "read")?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = content.get(start..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.begin_write(OpKind::Write, "write")?.write(self.inode, bytes, Some(offset))
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        self.begin_write(OpKind::Append, "append")?.write(self.inode, bytes, None)
    }

    fn sync_data(&self) -> Result<()> {
        let mut step = self.fs.begin(OpKind::SyncData, "sync", &self.path);
        if let Some(error) = step.refusal() {
            if !step.stopped {
                step.record(Effect::SyncFailed { inode: self.inode });
            }
            return Err(error);
        }
        step.record(Effect::SyncData { inode: self.inode });
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.content(OpKind::Len, "stat")?.len() as u64)
    }

    fn inode(&self) -> Result<u64> {
        self.fs.step(OpKind::Inode, "stat", &self.path).map(|_| self.inode)
    }

    fn try_lock(&self) -> Result<bool> {
        if !self.writable {
            return Err(only_for_reading(&self.path));
        }
        let mut step = self.fs.step(OpKind::TryLock, "lock", &self.path)?;
        Ok(*step.inner.locks.entry(self.inode).or_insert(self.handle) == self.handle)
    }

    fn map(&self, len: u64) -> Result<Bytes> {
        if self.writable {
            return Err(never_mapped(&self.path));
        }
        let content = self.content(OpKind::Map, "map")?;
        let found = content.len() as u64;
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        match content.get(..size) {
            Some(bytes) => Ok(Bytes::from_vec(bytes.to_vec())),
            None => Err(shorter_than(&self.path, len, found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fs::tests::check_contract;
    use crate::fs::{publish, read_whole};
    use proptest::prelude::*;

    fn at(path: &str) -> PathBuf {
        Path::new("/").join(path)
    }

    /// A file system with one file whose name is durable.
    fn with_file(bytes: &[u8]) -> (SimFileSystem, Arc<dyn File>) {
        let fs = SimFileSystem::new();
        let file = fs.create(&at("file")).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(&at("")).unwrap();
        (fs, file)
    }

    fn after(fs: &SimFileSystem, policy: CrashPolicy) -> Vec<u8> {
        fs.crash_image(policy, 1).read_file(&at("file")).unwrap()
    }

    fn names(fs: &SimFileSystem) -> Vec<String> {
        fs.dump().into_iter().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn keeps_the_contract() {
        let fs = SimFileSystem::new();
        let root = at("store");
        fs.create_dir(&root).unwrap();
        check_contract(&fs, &root);
        assert!(!fs.shared_with_other_processes());
        let outside = fs.open(&root.join("../store")).unwrap_err();
        assert_eq!(outside.kind(), ErrorKind::Io);
    }

    #[test]
    fn a_name_needs_the_sync_of_its_directory() {
        let fs = SimFileSystem::new();
        fs.create_dir(&at("d")).unwrap();
        let file = fs.create(&at("d/f")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        assert!(names(&fs.crash_image(CrashPolicy::None, 0)).is_empty());
        fs.sync_dir(&at("d")).unwrap();
        assert!(names(&fs.crash_image(CrashPolicy::None, 0)).is_empty(), "d itself is not synced");
        fs.sync_dir(&at("")).unwrap();
        assert_eq!(names(&fs.crash_image(CrashPolicy::None, 0)), ["/d/f"]);
        fs.remove(&at("d/f")).unwrap();
        assert_eq!(names(&fs.crash_image(CrashPolicy::None, 0)), ["/d/f"]);
        assert!(names(&fs.crash_image(CrashPolicy::All, 0)).is_empty());
    }

    #[test]
    fn policies_leave_what_they_say() {
        let (fs, file) = with_file(b"old.");
        file.write_all_at(b"NEW", 1).unwrap();
        file.write_all_at(&[b'+'; 5_000], 4).unwrap();
        let full = [b"oNEW".as_slice(), &[b'+'; 5_000]].concat();
        let zeros = |len: usize| [b"old.".as_slice(), &vec![0; len - 4]].concat();
        assert_eq!(after(&fs, CrashPolicy::None), b"old.");
        assert_eq!(after(&fs, CrashPolicy::All), full);
        assert_eq!(after(&fs, CrashPolicy::Prefix(0)), b"old.");
        assert_eq!(after(&fs, CrashPolicy::Prefix(1)), b"oNEW");
        assert_eq!(after(&fs, CrashPolicy::Prefix(2)), full);
        assert_eq!(after(&fs, CrashPolicy::Only(0)), b"oNEW");
        assert_eq!(after(&fs, CrashPolicy::Only(1))[..5], *b"old.+");
        assert_eq!(after(&fs, CrashPolicy::SizeWithoutData), zeros(5_004));
        assert_eq!(after(&fs, CrashPolicy::DataWithoutSize), b"oNEW");
        assert_eq!(after(&fs, CrashPolicy::ZeroTail), zeros(4_096));
        assert_eq!(fs.unsynced_after(fs.op_count()), 2);

        fs.rename(&at("file"), &at("renamed")).unwrap();
        let early = fs.crash_image(CrashPolicy::NamesWithoutData, 0);
        assert_eq!(early.dump(), [(at("renamed"), 4)]);
        let late = fs.crash_image(CrashPolicy::DataWithoutNames, 0);
        assert_eq!(late.dump(), [(at("file"), 5_004)]);
    }

    #[test]
    fn renames_need_what_made_their_names_and_nothing_else() {
        let fs = SimFileSystem::new();
        fs.create_dir(&at("d")).unwrap();
        fs.sync_dir(&at("")).unwrap();
        fs.create(&at("a")).unwrap();
        fs.create(&at("other")).unwrap();
        fs.rename(&at("a"), &at("b")).unwrap();
        fs.rename(&at("b"), &at("d/c")).unwrap();
        for seed in 0..64 {
            let image = fs.crash_image(CrashPolicy::Random, seed);
            let ours = names(&image).into_iter().filter(|name| name != "/other").count();
            assert!(ours <= 1, "one file has two names: {:?}", image.dump());
        }
        assert_eq!(names(&fs.crash_image(CrashPolicy::Only(3), 0)), ["/d/c"]);
        assert_eq!(names(&fs.crash_image(CrashPolicy::Only(1), 0)), ["/other"]);
        // A rename is durable whole, whichever of its directories was synced.
        fs.sync_dir(&at("d")).unwrap();
        assert_eq!(names(&fs.crash_image(CrashPolicy::None, 0)), ["/d/c"]);
    }

    #[test]
    fn what_a_failed_sync_gave_up_no_later_one_brings_back() {
        let (fs, file) = with_file(b"........");
        file.write_all_at(b"abcd", 0).unwrap();
        file.write_all_at(b"tail", 8).unwrap();
        fs.fail_at(0, Fault::IO, false);
        assert_eq!(file.sync_data().unwrap_err().kind(), ErrorKind::Io);
        file.write_all_at(b"BC", 1).unwrap();
        file.sync_data().unwrap();
        assert_eq!(fs.read_file(&at("file")).unwrap(), b"aBCd....tail");
        assert_eq!(after(&fs, CrashPolicy::None), b".BC.....\0\0\0\0");
        assert_eq!(after(&fs, CrashPolicy::All), b"aBCd....tail");
        file.write_all_at(b"aBCd....tail", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(after(&fs, CrashPolicy::None), b"aBCd....tail");
        assert_eq!(fs.unsynced_after(fs.op_count()), 0);
    }

    /// Runs `publish` over an old file and returns the states that a crash can leave it in.
    fn states_of_a_replacement(
        replace: impl Fn(&SimFileSystem) -> Result<()>,
    ) -> BTreeSet<Vec<u8>> {
        let (fs, file) = with_file(b"old");
        drop(file);
        fs.checkpoint();
        replace(&fs).unwrap();
        let images = fs.change_points().into_iter().flat_map(|op| fs.images_after(op, 7, 40));
        images.map(|image| image.read_file(&at("file")).unwrap_or_default()).collect()
    }

    #[test]
    fn publishing_leaves_the_old_file_or_the_new_one() {
        let new = vec![b'n'; 3_000];
        let states = states_of_a_replacement(|fs| publish(fs, &at(""), "file", &new, true));
        assert_eq!(states, BTreeSet::from([b"old".to_vec(), new.clone()]));
        // The images would show it if the file were not synced before it is renamed.
        let states = states_of_a_replacement(|fs| {
            fs.create(&at("tmp"))?.write_all_at(&new, 0)?;
            fs.rename(&at("tmp"), &at("file"))?;
            fs.sync_dir(&at(""))
        });
        assert!(states.contains(&Vec::new()), "empty");
        assert!(states.contains(&vec![0; 3_000]), "zeros");
        assert!(states.len() > 5, "torn");
    }

    #[test]
    fn publishing_cleans_up_at_every_failure() {
        for fault in [Fault::IO, Fault::NO_SPACE, Fault::ShortWrite] {
            for n in 0.. {
                let (fs, file) = with_file(b"old");
                drop(file);
                fs.fail_at(n, fault, false);
                let result = publish(&fs, &at(""), "file", b"new file", true);
                if fs.faults_fired() == 0 {
                    result.unwrap();
                    assert_eq!(n, 8, "operations of a publish");
                    break;
                }
                result.unwrap_err();
                assert_eq!(names(&fs), ["/file"], "operation {n}");
            }
        }
    }

    #[test]
    fn faults_hit_what_they_are_aimed_at() {
        let (fs, file) = with_file(b"12345678");
        fs.fail_path_matching("fil", Some(OpKind::Write), 1, Fault::Errno(libc::EDQUOT), true);
        file.write_all_at(b"a", 0).unwrap();
        file.sync_data().unwrap();
        for _ in 0..2 {
            let error = file.write_all_at(b"b", 0).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::NoSpace, Some(&*at("file"))));
        }
        fs.create(&at("other")).unwrap().write_all_at(b"c", 0).unwrap();
        fs.heal();
        file.write_all_at(b"d", 0).unwrap();
        fs.fail_at(0, Fault::ShortWrite, false);
        assert_eq!(file.append(b"wxyz").unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(fs.read_file(&at("file")).unwrap(), b"d2345678wx");
        assert_eq!(fs.faults_fired(), 3);
        fs.read_only(true);
        assert!(file.append(b"!").is_err() && fs.remove(&at("file")).is_err());
        assert!(fs.open_write(&at("file")).is_err());
        assert_eq!(read_whole(&fs, &at("file"), 99).unwrap().len(), 10);
    }

    #[test]
    fn a_stopped_machine_changes_nothing_more() {
        let (fs, file) = with_file(b"1");
        fs.stop_at(1);
        file.append(b"2").unwrap();
        assert!(!fs.is_stopped());
        assert!(file.append(b"3").is_err() && file.sync_data().is_err() && file.len().is_err());
        assert!(fs.is_stopped());
        assert_eq!(after(&fs, CrashPolicy::All), b"12");
        assert_eq!(after(&fs, CrashPolicy::None), b"1");
    }

    #[test]
    fn a_full_disk_heals() {
        let (fs, file) = with_file(b"12345678");
        fs.create(&at("other")).unwrap().write_all_at(b"123", 0).unwrap();
        fs.space_limit(Some(13));
        let error = file.append(b"abc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(fs.read_file(&at("file")).unwrap(), b"12345678ab");
        file.write_all_at(b"in place", 0).unwrap();
        let held = fs.open(&at("other")).unwrap();
        fs.remove(&at("other")).unwrap();
        assert!(file.append(b"c").is_err(), "an open file keeps its space");
        drop(held);
        file.append(b"c").unwrap();
        assert_eq!(fs.used_bytes(), 11);
        fs.space_limit(None);
        file.append(&[0; 100]).unwrap();
    }

    #[test]
    fn killing_a_process_keeps_bytes_and_drops_locks() {
        let (fs, file) = with_file(b"1");
        assert!(file.try_lock().unwrap());
        let op = fs.op_count();
        file.append(&[7; 3 * PAGE_BYTES]).unwrap();
        let image = fs.kill_image();
        assert_eq!(image.hash(), fs.hash());
        assert!(image.open_write(&at("file")).unwrap().try_lock().unwrap());
        assert!(!fs.open_write(&at("file")).unwrap().try_lock().unwrap());
        // The power can still go before anyone has synced.
        assert_eq!(after(&image, CrashPolicy::None), b"1");
        let lens: BTreeSet<usize> = (0..64)
            .map(|seed| fs.kill_image_within(op, seed).read_file(&at("file")).unwrap().len())
            .collect();
        assert_eq!(lens, (0..4).map(|pages| 1 + pages * PAGE_BYTES).collect());
    }

    #[test]
    fn identifiers_never_repeat_and_are_the_same_in_each_run() {
        let mut seen = BTreeSet::new();
        let mut fs = SimFileSystem::new();
        for _ in 0..4 {
            assert!((0..50).all(|_| seen.insert(fs.unique_id())));
            fs = fs.crash_image(CrashPolicy::All, 0);
        }
        assert_eq!(SimFileSystem::new().unique_id(), SimFileSystem::new().unique_id());
        assert_ne!(SimFileSystem::new().unique_id(), SimFileSystem::with_seed(1).unique_id());
    }

    #[test]
    fn patches_are_durable_and_known_to_images() {
        let (fs, file) = with_file(b"12345678");
        file.append(b"unsynced").unwrap();
        let before = fs.op_count();
        fs.truncate(&at("file"), 3).unwrap();
        fs.write_file(&at("planted"), b"xy").unwrap();
        assert_eq!(names(&fs.crash_image(CrashPolicy::None, 0)), ["/file", "/planted"]);
        assert_eq!(after(&fs, CrashPolicy::None), b"123");
        fs.delete_file(&at("planted")).unwrap();
        assert!(fs.read_file(&at("planted")).unwrap_err().is_not_found());
        assert!(fs.delete_file(&at("planted")).unwrap_err().is_not_found());
        let earlier = fs.image_after(before, CrashPolicy::None, 0);
        assert_eq!(earlier.dump(), [(at("file"), 8)]);
        assert!(fs.describe(before).unwrap().contains("/file"));
        assert!(fs.describe(1 << 40).is_none());
    }

    #[test]
    fn a_series_of_images_has_every_kind() {
        let policies: Vec<_> = (0..60).map(|index| CrashPolicy::of_series(index, 9, 5)).collect();
        for policy in CrashPolicy::FIXED {
            assert!(policies.contains(&policy));
        }
        for n in 0..5 {
            assert!(policies.contains(&CrashPolicy::Only(n)));
            assert!(n == 0 || policies.contains(&CrashPolicy::Prefix(n)), "{n}");
        }
        let (fs, file) = with_file(b"x");
        assert_eq!(fs.crash_images(0, 10).len(), 1, "nothing can be lost");
        file.append(&[1; 100_000]).unwrap();
        let images = fs.crash_images(0, 100);
        let distinct: BTreeSet<u64> = images.iter().map(SimFileSystem::hash).collect();
        assert!(images.len() == 100 && distinct.len() > 40, "{}", distinct.len());
    }

    /// One step of a random workload over a few files.
    #[derive(Clone, Copy, Debug)]
    enum Action {
        Append { file: usize, len: usize },
        Overwrite { file: usize, len: usize },
        Sync { file: usize },
        FailSync { file: usize },
        SyncRoot,
        Replace { file: usize },
        Crash { seed: u64 },
    }

    fn action() -> impl Strategy<Value = Action> {
        let file = 0..3_usize;
        prop_oneof![
            4 => (file.clone(), 1..9_000_usize)
                .prop_map(|(file, len)| Action::Append { file, len }),
            2 => (file.clone(), 1..9_000_usize)
                .prop_map(|(file, len)| Action::Overwrite { file, len }),
            3 => file.clone().prop_map(|file| Action::Sync { file }),
            1 => file.clone().prop_map(|file| Action::FailSync { file }),
            1 => Just(Action::SyncRoot),
            1 => file.prop_map(|file| Action::Replace { file }),
            1 => any::<u64>().prop_map(|seed| Action::Crash { seed }),
        ]
    }

    /// Does what the action says, with bytes that tell the operations apart.
    fn perform(fs: &SimFileSystem, action: Action) -> SimFileSystem {
        let fill = fs.op_count().to_le_bytes()[0] | 1;
        let open = |file: usize| fs.open_write(&at(&file.to_string())).unwrap();
        match action {
            Action::Append { file, len } => open(file).append(&vec![fill; len]).unwrap(),
            Action::Overwrite { file, len } => {
                open(file).write_all_at(&vec![fill; len], len as u64 / 2).unwrap();
            }
            Action::Sync { file } => open(file).sync_data().unwrap(),
            Action::FailSync { file } => {
                let file = open(file);
                fs.fail_at(0, Fault::IO, false);
                file.sync_data().unwrap_err();
            }
            Action::SyncRoot => fs.sync_dir(&at("")).unwrap(),
            Action::Replace { file } => {
                let name = file.to_string();
                publish(fs, &at(""), &name, &[fill; 700], true).unwrap();
            }
            Action::Crash { seed } => return fs.crash_image(CrashPolicy::Torn, seed),
        }
        fs.clone()
    }

    fn three_files() -> SimFileSystem {
        let fs = SimFileSystem::new();
        for file in 0..3 {
            fs.create(&at(&file.to_string())).unwrap();
        }
        fs.sync_dir(&at("")).unwrap();
        fs
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// The states that a replay passes through are those that the run passed through.
        #[test]
        fn a_replay_is_the_run(actions in prop::collection::vec(action(), 1..40)) {
            let mut fs = three_files();
            let mut seen = Vec::new();
            for action in actions {
                let after = perform(&fs, action);
                if !Arc::ptr_eq(&after.inner, &fs.inner) {
                    seen.clear();
                }
                fs = after;
                seen.push((fs.op_count(), fs.hash()));
            }
            seen.reverse();
            for (op, hash) in seen {
                prop_assert_eq!(fs.image_after(op, CrashPolicy::All, 0).hash(), hash);
            }
        }

        /// Bytes that were synced and not written since are in every image, and bytes that were
        /// never written are not.
        #[test]
        fn crashes_touch_only_what_was_not_synced(
            actions in prop::collection::vec(action(), 1..30),
            len in 1..20_000_usize,
            seed: u64,
        ) {
            let mut fs = three_files();
            for action in actions {
                fs = perform(&fs, action);
            }
            fs = fs.crash_image(CrashPolicy::All, 0);
            let path = at("0");
            let old = fs.read_file(&path).unwrap();
            let file = fs.open_write(&path).unwrap();
            let start = old.len() / 3;
            file.write_all_at(&vec![0xAB; len], start as u64).unwrap();
            for image in fs.crash_images(seed, 30) {
                let found = image.read_file(&path).unwrap();
                prop_assert_eq!(&found[..start], &old[..start]);
                prop_assert!(found.len() >= old.len());
                prop_assert!(found.len() <= old.len().max(start + len));
                let end = (start + len).min(old.len());
                prop_assert_eq!(&found[end..old.len()], &old[end..]);
            }
            file.sync_data().unwrap();
            let now = fs.read_file(&path).unwrap();
            for image in fs.crash_images(seed, 30) {
                prop_assert_eq!(&image.read_file(&path).unwrap(), &now);
            }
        }
    }
}
