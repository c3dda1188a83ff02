//! Power cuts of a disk that loses what it had not flushed: ext4 and XFS on a disk that logs.
//!
//! Shutting a file system down (`power`) stops it between two writes. A disk does worse: until it
//! is told to flush, it may keep any of the writes that it was given, in any order, one of them cut
//! at a sector. So a writer runs on a file system on a loop device on a file that this process
//! serves by FUSE and that logs every write and flush, in the manner of dm-log-writes. Afterwards
//! the disk is made as it may have been at moments of the log, mounted, and what was acknowledged
//! by then must be there. Linux and root only.
//!
//! Nothing here touches the mounted file system itself: a page fault of the process that serves
//! the disk would wait for it for ever. Writers and checks are processes of their own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite,
    Request, WriteFlags,
};
use tallystone::Store;
use tallystone::testing::trust::{Verdict, Violation, ensure};
use tallystone::testing::workload::Random;
use tallystone::time::{Clock, SystemClock};

use crate::kill::{Acknowledged, Line, Writer, check, options};
use crate::power::{mount, run, unmount};

/// Images that are made of one log.
const IMAGES_OF_A_LOG: usize = 40;
/// What a disk writes whole, or not at all.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// What a process is to look at, and the end of the days of its rows.
const DIR: &str = "TALLYSTONE_REPLAY_DIR";
const END: &str = "TALLYSTONE_REPLAY_END";

type Page = [u8; PAGE_BYTES];

/// The bytes of a disk; what was never written is zero.
#[derive(Clone, Default)]
struct Pages(HashMap<u64, Arc<Page>>);

impl Pages {
    fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        const BYTES: u64 = PAGE_BYTES as u64;
        while !data.is_empty() {
            let start = usize::try_from(offset % BYTES).unwrap();
            let (now, rest) = data.split_at(data.len().min(PAGE_BYTES - start));
            let page = self.0.entry(offset / BYTES).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[start..start + now.len()].copy_from_slice(now);
            offset += now.len() as u64;
            data = rest;
        }
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        const BYTES: u64 = PAGE_BYTES as u64;
        let mut bytes = vec![0; len];
        let mut at = 0;
        while at < len {
            let place = offset + at as u64;
            let start = usize::try_from(place % BYTES).unwrap();
            let end = len.min(at + PAGE_BYTES - start);
            if let Some(page) = self.0.get(&(place / BYTES)) {
                bytes[at..end].copy_from_slice(&page[start..start + end - at]);
            }
            at = end;
        }
        bytes
    }
}

/// What a disk was told to do.
#[derive(Clone)]
enum Event {
    Write { offset: u64, data: Arc<[u8]> },
    Flush,
}

struct State {
    pages: Pages,
    /// What happened since a log was asked for, and when.
    log: Option<Vec<(Instant, Event)>>,
    /// Number of the file that is the disk now: a new one for each image, so that the kernel keeps
    /// nothing of the last one.
    file: u64,
}

/// A directory with one file, `disk-N`.
#[derive(Clone)]
struct Disk {
    bytes: u64,
    state: Arc<Mutex<State>>,
}

impl Disk {
    fn new(bytes: u64) -> Self {
        let state = State { pages: Pages::default(), log: None, file: 2 };
        Self { bytes, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of its file.
    fn name(&self) -> String {
        name_of(self.lock().file)
    }

    /// Puts other bytes on the disk; returns the name of its file.
    fn load(&self, pages: Pages) -> String {
        let mut state = self.lock();
        state.pages = pages;
        state.file += 1;
        name_of(state.file)
    }

    fn attributes(&self, ino: u64) -> FileAttr {
        let is_dir = ino == 1;
        FileAttr {
            ino: INodeNo(ino),
            size: if is_dir { 0 } else { self.bytes },
            blocks: if is_dir { 0 } else { self.bytes / SECTOR_BYTES as u64 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_dir { FileType::Directory } else { FileType::RegularFile },
            perm: if is_dir { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn name_of(file: u64) -> String {
    format!("disk-{file}")
}

/// How long the kernel may keep what it was told of the one file.
const KEPT: Duration = Duration::from_secs(3600);

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let file = self.lock().file;
        if name.to_str() == Some(&name_of(file)) {
            reply.entry(&KEPT, &self.attributes(file), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KEPT, &self.attributes(u64::from(ino)));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.lock();
        if u64::from(ino) != state.file {
            return reply.error(Errno::EIO);
        }
        let len = self.bytes.saturating_sub(offset).min(size.into());
        reply.data(&state.pages.read(offset, usize::try_from(len).unwrap_or(0)));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.lock();
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if u64::from(ino) != state.file || offset.saturating_add(size.into()) > self.bytes {
            return reply.error(Errno::EIO);
        }
        state.pages.write(offset, data);
        if let Some(log) = &mut state.log {
            log.push((Instant::now(), Event::Write { offset, data: data.into() }));
        }
        reply.written(size);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(log) = &mut self.lock().log {
            log.push((Instant::now(), Event::Flush));
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// A disk, where its file is, and where its file system is mounted.
struct Machine {
    disk: Disk,
    place: tempfile::TempDir,
    /// Options of the mount.
    mount: &'static str,
    served: Option<BackgroundSession>,
}

impl Machine {
    /// Makes a file system of a kind: a tool, its arguments, bytes, and options of the mount.
    fn make(kind: &Kind) -> Verdict<Self> {
        let place = tempfile::tempdir_in(super::catalog::scratch()).unwrap();
        let disk = Disk::new(kind.bytes);
        let machine = |served| Self { disk: disk.clone(), place, mount: kind.mount, served };
        let mut machine = machine(None);
        std::fs::create_dir(machine.served()).unwrap();
        std::fs::create_dir(machine.mounted()).unwrap();
        let served = fuser::spawn_mount(disk.clone(), machine.served(), &Config::default());
        let served = served.map_err(|error| {
            Violation::new(format!("the test itself: FUSE cannot be mounted: {error}"))
        })?;
        machine.served = Some(served);
        let file = machine.served().join(disk.name());
        let mut arguments = kind.arguments.to_vec();
        arguments.push(file.to_str().unwrap_or_default());
        run(kind.tool, &arguments)?;
        Ok(machine)
    }

    fn served(&self) -> PathBuf {
        self.place.path().join("served")
    }

    fn mounted(&self) -> PathBuf {
        self.place.path().join("mounted")
    }

    /// Where the store is.
    fn store(&self) -> PathBuf {
        self.mounted().join("store")
    }

    fn mount(&self, file: &str) -> Verdict {
        mount(self.mount, &self.served().join(file), &self.mounted())
    }

    fn unmount(&self) -> Verdict {
        unmount(&self.mounted())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-q").arg(self.mounted()).output();
        if let Some(served) = self.served.take() {
            let _ = served.umount_and_join();
        }
    }
}

/// A kind of file system.
struct Kind {
    name: &'static str,
    tool: &'static str,
    arguments: &'static [&'static str],
    bytes: u64,
    mount: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "ext4",
        tool: "mkfs.ext4",
        arguments: &["-qF", "-E", "nodiscard"],
        bytes: 96 << 20,
        mount: "loop",
    },
    Kind { name: "xfs", tool: "mkfs.xfs", arguments: &["-qfK"], bytes: 320 << 20, mount: "loop" },
    Kind {
        name: "ext4, data=writeback, blocks of 1 KiB",
        tool: "mkfs.ext4",
        arguments: &["-qF", "-E", "nodiscard", "-b", "1024"],
        bytes: 96 << 20,
        mount: "loop,data=writeback",
    },
    Kind {
        name: "ext4, data=journal",
        tool: "mkfs.ext4",
        arguments: &["-qF", "-E", "nodiscard"],
        bytes: 96 << 20,
        mount: "loop,data=journal",
    },
];

/// Why there can be no such cuts here, if so.
pub(crate) fn missing() -> Option<String> {
    crate::power::missing().or_else(|| {
        let place = tempfile::tempdir_in(super::catalog::scratch()).unwrap();
        let served = fuser::spawn_mount(Disk::new(0), place.path(), &Config::default());
        let tried = served.and_then(BackgroundSession::umount_and_join);
        tried.err().map(|error| format!("FUSE cannot be mounted here: {error}"))
    })
}

/// Has a writer write, and checks the disk as it may have been at some moments. Returns the images.
pub(crate) fn replay(case: u64) -> Verdict<u64> {
    let kinds = KINDS.len() as u64;
    let kind = &KINDS[usize::try_from(case % kinds).unwrap()];
    let machine = Machine::make(kind)?;
    let end = SystemClock.now().partition().range().start;
    let mut random = Random::new(case);
    machine.mount(&machine.disk.name())?;
    let mut pages = {
        let mut state = machine.disk.lock();
        state.log = Some(Vec::new());
        state.pages.clone()
    };
    let writer = Writer::start(&["child"], &machine.store(), end, case);
    writer.wait_until_open().map_err(|found| found.after(kind.name))?;
    std::thread::sleep(Duration::from_millis(100 + random.below(400)));
    let (_, lines) = writer.end();
    let log = machine.disk.lock().log.take().unwrap_or_default();
    machine.unmount()?;

    let mut moments: Vec<usize> = (0..IMAGES_OF_A_LOG)
        .map(|_| usize::try_from(random.below(log.len() as u64 + 1)).unwrap())
        .collect();
    moments.sort_unstable();
    // Events up to here are on the disk.
    let mut flushed = 0;
    for moment in &moments {
        let last = log[..*moment].iter().rposition(|(_, event)| matches!(event, Event::Flush));
        let flush = last.map_or(0, |last| last + 1);
        for (_, event) in &log[flushed..flush] {
            apply(&mut pages, event);
        }
        flushed = flush;
        let (image, how) = survivors(&pages, &log[flush..*moment], &mut random);
        let at = moment.checked_sub(1).map(|last| log[last].0);
        let acknowledged = acknowledged(case, &lines, at)?;
        let story = format!("{}, {moment} of {} events, {how}", kind.name, log.len());
        let looked = look_at(&machine, image, end, &acknowledged);
        looked.map_err(|found| found.after(&story))?;
    }
    Ok(moments.len() as u64)
}

fn apply(pages: &mut Pages, event: &Event) {
    if let Event::Write { offset, data } = event {
        pages.write(*offset, data);
    }
}

/// The disk with what may be left of writes that were not flushed, and what that is.
fn survivors(
    pages: &Pages,
    pending: &[(Instant, Event)],
    random: &mut Random,
) -> (Pages, &'static str) {
    let mut image = pages.clone();
    // What, how likely each write is there, and whether the last one is cut.
    let (how, chance, is_cut) = match random.below(5) {
        0 => ("nothing since the last flush", 0.0, false),
        1 => ("everything", 1.0, false),
        2 => ("any of the writes since the last flush", 0.5, false),
        3 => ("all but a few since the last flush", 0.9, false),
        _ => ("the last write cut at a sector", 1.0, true),
    };
    for (number, (_, event)) in pending.iter().enumerate() {
        match event {
            Event::Write { offset, data } if is_cut && number + 1 == pending.len() => {
                let sectors = random.below((data.len() / SECTOR_BYTES) as u64 + 1);
                let sectors = usize::try_from(sectors).unwrap();
                image.write(*offset, &data[..sectors * SECTOR_BYTES]);
            }
            event if random.chance(chance) => apply(&mut image, event),
            _ => {}
        }
    }
    (image, how)
}

/// What was acknowledged until a moment; nothing before the log began.
fn acknowledged(round: u64, lines: &[Line], at: Option<Instant>) -> Verdict<Acknowledged> {
    let mut found = Acknowledged { only_synced: true, ..Acknowledged::default() };
    if let Some(at) = at {
        found.note(round, lines, at, false)?;
    }
    Ok(found)
}

/// Mounts an image, and has a process look at the store.
fn look_at(machine: &Machine, image: Pages, end: i64, acknowledged: &Acknowledged) -> Verdict {
    machine.mount(&machine.disk.load(image))?;
    let looked = have_looked_at(&machine.store(), end, acknowledged);
    machine.unmount()?;
    looked
}

fn have_looked_at(dir: &Path, end: i64, acknowledged: &Acknowledged) -> Verdict {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("child")
        .env(DIR, dir)
        .env(END, end.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for ((round, writer), upto) in &acknowledged.upto {
        // An error means that it has ended, and says why itself.
        let _ = writeln!(input, "{round} {writer} {upto}");
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure(output.status.success(), || format!("{said} ({})", output.status))
}

/// What a process does that is to look at a store. `None` when nobody asked for it.
pub(crate) fn child() -> Option<bool> {
    let dir = PathBuf::from(std::env::var_os(DIR)?);
    let end: i64 = std::env::var(END).unwrap().parse().unwrap();
    let mut acknowledged = Acknowledged::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let numbers: Vec<u64> = line.split(' ').map(|it| it.parse().unwrap()).collect();
        acknowledged.upto.insert((numbers[0], numbers[1]), numbers[2]);
    }
    let looked = look(&dir, end, &acknowledged);
    if let Err(found) = &looked {
        println!("{found}");
    }
    Some(looked.is_ok())
}

/// Opens the store as a reader, and as a writer that seals what is left.
fn look(dir: &Path, end: i64, acknowledged: &Acknowledged) -> Verdict {
    if acknowledged.upto.is_empty() && !dir.join("store.json").exists() {
        // The power went before the store was made.
        return Ok(());
    }
    let read = check(&Store::open_read_only(dir)?, end, acknowledged)?;
    let store = Store::open_with(dir, options(&mut Random::new(read)))?;
    store.seal()?;
    let sealed = check(&store, end, acknowledged).map_err(|found| found.after("sealed"))?;
    ensure(read == sealed, || format!("{read} rows, {sealed} when sealed"))?;
    let problems = store.verify(true)?.problems;
    ensure(problems.is_empty(), || format!("{problems:?}"))?;
    Ok(store.close()?)
}
