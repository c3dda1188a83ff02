//! Power cuts of real file systems: ext4 and XFS on a loop device, shut down under a writer.
//!
//! The file system is told to go down without writing its log (`xfs_io -x -c shutdown`), as
//! after a loss of power; it is mounted again, and what was flushed must be there. Linux and
//! root only.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tallystone::Store;
use tallystone::testing::trust::{Verdict, Violation, ensure};
use tallystone::testing::workload::Random;
use tallystone::time::{Clock, SystemClock};

use crate::kill::{Acknowledged, Writer, check, options};

/// Size of the disk: XFS takes no less.
const DISK_BYTES: u64 = 320 << 20;

/// Why there can be no power cuts here, if so.
pub(crate) fn missing() -> Option<String> {
    let is_there = |tool: &str| {
        Command::new(tool).arg("-V").output().is_ok_and(|output| output.status.success())
    };
    let is_root = rustix_is_root();
    if !is_root || !Path::new("/dev/loop-control").exists() {
        return Some("mounting needs root and loop devices".to_owned());
    }
    let tools = ["mkfs.ext4", "mkfs.xfs", "xfs_io"];
    if let Some(missing) = tools.into_iter().find(|tool| !is_there(tool)) {
        return Some(format!("no {missing} (xfsprogs, e2fsprogs)"));
    }
    // Root of a container may not be let.
    let tried = run("losetup", &["-f"]).and_then(|()| try_mount());
    tried.err().map(|found| format!("file systems cannot be mounted here: {found}"))
}

fn try_mount() -> Verdict {
    let place = tempfile::tempdir_in(super::catalog::scratch()).unwrap();
    run("mount", &["-t", "tmpfs", "none", place.path().to_str().unwrap_or_default()])?;
    unmount(place.path())
}

fn rustix_is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

pub(crate) fn run(tool: &str, arguments: &[&str]) -> Verdict {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Violation::new(format!("the test itself: {tool}: {error}")))?;
    ensure(output.status.success(), || {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        format!("the test itself: {tool} {arguments:?}: {text}")
    })
}

/// Mounts the file system in `image` at `dir`.
pub(crate) fn mount(options: &str, image: &Path, dir: &Path) -> Verdict {
    let text = |path: &Path| path.to_str().unwrap_or_default().to_owned();
    run("mount", &["-o", options, &text(image), &text(dir)])
}

pub(crate) fn unmount(dir: &Path) -> Verdict {
    run("umount", &[dir.to_str().unwrap_or_default()])
}

/// A disk in a file, and where it is mounted.
struct Disk {
    place: tempfile::TempDir,
}

impl Disk {
    fn make(kind: &str) -> Verdict<Self> {
        let disk = Self { place: tempfile::tempdir_in(super::catalog::scratch()).unwrap() };
        std::fs::create_dir(disk.mounted()).unwrap();
        let file = std::fs::File::create(disk.image()).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        drop(file);
        let image = disk.image();
        let image = image.to_str().unwrap_or_default();
        match kind {
            "ext4" => run("mkfs.ext4", &["-qF", image])?,
            _ => run("mkfs.xfs", &["-qf", image])?,
        }
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.place.path().join("disk.img")
    }

    fn mounted(&self) -> PathBuf {
        self.place.path().join("mounted")
    }

    fn mount(&self) -> Verdict {
        mount("loop", &self.image(), &self.mounted())
    }

    fn unmount(&self) -> Verdict {
        unmount(&self.mounted())
    }

    /// The power goes: nothing that is not on the disk gets there any more.
    fn cut(&self) -> Verdict {
        let mounted = self.mounted();
        run("xfs_io", &["-x", "-c", "shutdown", mounted.to_str().unwrap_or_default()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mounted()).output();
    }
}

/// Power cuts of one disk.
pub(crate) const CUTS_OF_A_DISK: u64 = 10;

/// Makes a file system, and cuts its power again and again under a writer. Returns the cuts.
pub(crate) fn cut_again_and_again(case: u64) -> Verdict<u64> {
    let kind = if case.is_multiple_of(2) { "ext4" } else { "xfs" };
    let disk = Disk::make(kind)?;
    let end = SystemClock.now().partition().range().start;
    let mut random = Random::new(case);
    let mut acknowledged = Acknowledged { only_synced: true, ..Acknowledged::default() };
    let dir = disk.mounted().join("store");
    for number in 0..CUTS_OF_A_DISK {
        let round = case * CUTS_OF_A_DISK + number;
        let story = format!("{kind}, cut {number}");
        let writer = Writer::start(&["child"], &dir, end, round);
        writer.wait_until_open().map_err(|found| found.after(&story))?;
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        disk.cut()?;
        writer.kill(&mut acknowledged, true)?;
        disk.unmount()?;
        disk.mount()?;
        let looked = look(&dir, end, number, &acknowledged, &mut random);
        looked.map_err(|found| found.after(&story))?;
    }
    disk.unmount()?;
    Ok(CUTS_OF_A_DISK)
}

fn look(
    dir: &Path,
    end: i64,
    number: u64,
    acknowledged: &Acknowledged,
    random: &mut Random,
) -> Verdict {
    if number.is_multiple_of(2) {
        check(&Store::open_read_only(dir)?, end, acknowledged)?;
        return Ok(());
    }
    let store = Store::open_with(dir, options(random))?;
    let rows = check(&store, end, acknowledged)?;
    store.seal()?;
    let sealed = check(&store, end, acknowledged)?;
    ensure(rows == sealed, || format!("{rows} rows, {sealed} when sealed"))?;
    Ok(store.close()?)
}
