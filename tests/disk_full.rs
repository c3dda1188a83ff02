//! A full disk: appends and flushes say so, reads go on, nothing accepted is lost, and as
//! soon as there is space the same process writes again.

#![expect(clippy::disallowed_methods, reason = "fills a real file system to the brim")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tallystone::testing::{
    CrashPolicy, Fault, OpKind, SimFileSystem, open_store, open_store_read_only,
};
use tallystone::{Durability, ErrorKind, Filter, Options, Store, TaskMetric, Timestamp};

const DAY: i64 = 86_400_000_000;
const START: i64 = 1_794_787_200_000_000;
const BATCH: usize = 20;

fn options(roll_rows: u64) -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        roll_rows,
        block_rows: 64,
        unlink_grace: Duration::ZERO,
        clock: Arc::new(Fixed),
        ..Options::default()
    }
}

#[derive(Debug)]
struct Fixed;

impl tallystone::time::Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 2 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        tallystone::time::SystemClock.elapsed()
    }
}

/// Rows accepted so far, and how many of them were flushed.
#[derive(Default)]
struct Ledger {
    accepted: BTreeSet<String>,
    next: i64,
    flushed: usize,
    refused: usize,
}

impl Ledger {
    fn record(&mut self, store: &Store, metadata_bytes: usize) {
        let metadata = format!("\"{}\"", "x".repeat(metadata_bytes));
        for _ in 0..BATCH {
            let number = self.next;
            self.next += 1;
            let row = TaskMetric {
                timestamp: Timestamp::from_micros(START + number * 7_919_003 % DAY).unwrap(),
                task_id: &format!("task-{number}"),
                agent_id: "agent",
                duration_ms: Some(number),
                tokens_used: None,
                success: true,
                metadata: Some(&metadata),
            };
            match store.record_task(&row) {
                Ok(()) => drop(self.accepted.insert(format!("task-{number}"))),
                Err(error) => self.refuse(&error),
            }
        }
    }

    fn flush(&mut self, store: &Store) -> bool {
        match store.flush() {
            Ok(()) => self.flushed = self.accepted.len(),
            Err(error) => {
                self.refuse(&error);
                let text = error.to_string();
                assert!(text.ends_with("accepted rows wait and are written then"), "{text}");
                return false;
            }
        }
        true
    }

    fn refuse(&mut self, error: &tallystone::Error) {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        self.refused += 1;
    }

    /// Each row there was accepted and is there once; what was flushed is there.
    fn check(&self, store: &Store, all: bool, story: &str) {
        let page = store.snapshot().unwrap().task_metrics(&Filter::new().all()).unwrap();
        assert!(page.coverage.damaged.is_empty(), "{story}: {:?}", page.coverage.damaged);
        let found: BTreeSet<String> = page.rows.iter().map(|row| row.task_id.clone()).collect();
        assert_eq!(found.len(), page.rows.len(), "{story}: a row is there twice");
        assert!(found.is_subset(&self.accepted), "{story}: a row that was refused");
        let least = if all { self.accepted.len() } else { self.flushed };
        assert!(found.len() >= least, "{story}: {} of {least} rows", found.len());
    }
}

/// Fills the disk, reads and tries on, has space again, and goes on.
fn fill(budget: u64, roll_rows: u64) -> usize {
    let story = format!("{budget} bytes, rolling at {roll_rows} rows");
    let (fs, dir) = (SimFileSystem::with_seed(budget), Path::new("/store"));
    let mut store = open_store(&fs, dir, options(roll_rows)).unwrap();
    let mut ledger = Ledger::default();
    ledger.record(&store, 50);
    assert!(ledger.flush(&store));
    fs.space_limit(Some(fs.used_bytes() + budget));
    let mut failures = 0;
    for batch in 0..60 {
        ledger.record(&store, 300);
        failures += usize::from(!ledger.flush(&store));
        ledger.check(&store, false, &story);
        if batch % 8 == 7
            && let Err(error) = store.seal()
        {
            ledger.refuse(&error);
        }
        if failures == 2 {
            break;
        }
    }
    if failures > 0 {
        // What was flushed is in the files, for this process, another, and the next.
        for image in [fs.clone(), fs.kill_image()] {
            let reader = open_store_read_only(&image, dir, options(roll_rows)).unwrap();
            ledger.check(&reader, false, &story);
            let other = open_store(&image, dir, options(roll_rows))
                .unwrap_or_else(|e| panic!("{story}: opening on a full disk: {e}"));
            ledger.check(&other, false, &story);
        }
        match store.close() {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{story}: {error}");
                ledger.record(&store, 10);
                fs.space_limit(None);
                store.flush().unwrap_or_else(|e| panic!("{story}: there is space again: {e}"));
            }
            // The reserve was given up for a sweep of another handle, so there was space.
            Ok(()) => store = open_store(&fs, dir, options(roll_rows)).unwrap(),
        }
        ledger.flushed = ledger.accepted.len();
    }
    fs.space_limit(None);
    ledger.check(&store, true, &story);
    ledger.record(&store, 10);
    assert!(ledger.flush(&store));
    store.seal().unwrap_or_else(|e| panic!("{story}: sealing: {e}"));
    ledger.check(&store, true, &story);
    store.close().unwrap();
    let store = open_store(&fs, dir, options(roll_rows)).unwrap();
    ledger.check(&store, true, &format!("{story}, reopened"));
    assert!(store.verify(true).unwrap().problems.is_empty(), "{story}");
    ledger.refused
}

#[test]
fn a_full_disk_is_an_error_until_there_is_space() {
    let mut refused = 0;
    for (index, budget) in (0..100_000).step_by(2_003).enumerate() {
        refused += fill(budget, if index % 2 == 0 { 100_000 } else { 70 });
    }
    println!("{refused} calls met a full disk");
    assert!(refused >= 50);
}

#[test]
fn rows_wait_while_the_disk_is_full_and_then_the_door_closes() {
    let (fs, dir) = (SimFileSystem::with_seed(9), Path::new("/store"));
    let small = Options { buffer_rows: 10, channel_batches: 2, ..options(100_000) };
    let store = open_store(&fs, dir, small).unwrap();
    let mut ledger = Ledger::default();
    fs.space_limit(Some(fs.used_bytes()));
    while ledger.refused == 0 && ledger.next < 10_000 {
        ledger.record(&store, 10);
    }
    assert!(ledger.refused > 0, "rows are accepted without end");
    assert!(!ledger.accepted.is_empty());
    fs.space_limit(None);
    store.flush().unwrap();
    ledger.check(&store, true, "space again");
}

/// A close that failed once left its message in the channel: the committer met it when there
/// was space again, ended, and the store that was open for all to see never wrote again.
#[test]
fn a_store_that_could_not_be_closed_goes_on() {
    let (fs, dir) = (SimFileSystem::with_seed(10), Path::new("/store"));
    let store = open_store(&fs, dir, options(100_000)).unwrap();
    let mut ledger = Ledger::default();
    fs.space_limit(Some(fs.used_bytes()));
    ledger.record(&store, 10);
    for _ in 0..3 {
        assert_eq!(store.close().unwrap_err().kind(), ErrorKind::NoSpace);
        ledger.record(&store, 10);
    }
    fs.space_limit(None);
    for _ in 0..3 {
        assert!(ledger.flush(&store));
        ledger.record(&store, 10);
    }
    store.close().unwrap();
    let store = open_store_read_only(&fs, dir, options(100_000)).unwrap();
    ledger.check(&store, true, "closed at last");
}

/// A sync found the disk full, and so did the segment that was to replace the file: the store
/// was poisoned, although all it lacked was space. A sync at the end of a file that met the
/// same was even repeated, and its success believed.
#[test]
fn a_sync_that_finds_the_disk_full_is_made_good_when_there_is_space() {
    let mut refused = 0;
    for durability in [Durability::Sync, Durability::Interval(Duration::ZERO), Durability::Os] {
        // The sync of a flush, and that of the END mark.
        for roll_rows in [100_000, 40] {
            refused += sync_on_a_full_disk(durability, roll_rows);
        }
    }
    assert_eq!(refused, 6 * 3);
}

fn sync_on_a_full_disk(durability: Durability, roll_rows: u64) -> usize {
    let story = format!("{durability:?}, rolling at {roll_rows} rows");
    let (fs, dir) = (SimFileSystem::with_seed(11), Path::new("/store"));
    let options = Options { durability, ..options(roll_rows) };
    let store = open_store(&fs, dir, options.clone()).unwrap();
    let mut ledger = Ledger::default();
    ledger.record(&store, 10);
    assert!(ledger.flush(&store), "{story}");
    // What is appended fits into the space that was filled ahead; a new file does not.
    fs.space_limit(Some(fs.used_bytes() + 500));
    fs.fail_path_matching(".active", Some(OpKind::SyncData), 0, Fault::NO_SPACE, false);
    for _ in 0..3 {
        ledger.record(&store, 10);
        assert!(!ledger.flush(&store), "{story}: there is no space");
        ledger.check(&store, false, &story);
    }
    assert_eq!(fs.faults_fired(), 1, "{story}");
    assert_eq!(store.close().unwrap_err().kind(), ErrorKind::NoSpace, "{story}");
    for image in [fs.kill_image(), fs.crash_image(CrashPolicy::None, 1)] {
        let reader = open_store_read_only(&image, dir, options.clone()).unwrap();
        ledger.check(&reader, false, &story);
    }

    fs.space_limit(None);
    store.flush().unwrap_or_else(|e| panic!("{story}: there is space again: {e}"));
    ledger.check(&store, true, &story);
    // Durable, and not just said to be: nothing of it hangs on the file whose sync failed.
    let image = fs.crash_image(CrashPolicy::None, 2);
    ledger.check(&open_store_read_only(&image, dir, options.clone()).unwrap(), true, &story);
    ledger.record(&store, 10);
    assert!(ledger.flush(&store), "{story}");
    store.close().unwrap();
    ledger.check(&open_store(&fs, dir, options).unwrap(), true, &story);
    ledger.refused
}

// ---------------------------------------------------------------------------------------
// A real file system

/// A tmpfs that goes away with this.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn mount(dir: &Path, size: &str) -> Option<Mount> {
    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").ok()?) == 0;
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(dir);
    (is_root && command.output().ok()?.status.success()).then(|| Mount(dir.to_path_buf()))
}

/// Writes zeros until nothing fits.
fn fill_up(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for size in [65_536, 4_096] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_real_disk_is_full_and_is_not_any_more() {
    let place = tempfile::tempdir().unwrap();
    let Some(_mount) = mount(place.path(), "size=4m") else {
        println!("SKIPPED: mounting a tmpfs needs root");
        return;
    };
    let (dir, filler) = (place.path().join("store"), place.path().join("filler"));
    // The kernel calls a tmpfs no disk at all.
    let options = |roll| Options { network_file_system: true, ..options(roll) };
    for roll in [100_000, 500] {
        let store =
            Store::open_with(dir.join(roll.to_string()), options(roll)).unwrap_or_else(|_| {
                std::fs::create_dir_all(&dir).unwrap();
                Store::open_with(dir.join(roll.to_string()), options(roll)).unwrap()
            });
        let mut ledger = Ledger::default();
        for round in 0..4 {
            ledger.record(&store, 100);
            assert!(ledger.flush(&store), "there is space");
            fill_up(&filler);
            let before = ledger.refused;
            for _ in 0..200 {
                // Sealing, beside, gives space back: rows here become 50 times smaller by it.
                fill_up(&filler);
                ledger.record(&store, 1_000);
                if !ledger.flush(&store) {
                    break;
                }
            }
            assert!(ledger.refused > before, "the disk is full");
            let story = format!("rolling at {roll} rows, round {round}");
            ledger.check(&store, false, &story);
            if round == 2
                && let Err(error) = store.seal()
            {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{story}: {error}");
            }
            let reader = Store::open_read_only(store.dir()).unwrap();
            ledger.check(&reader, false, &story);
            std::fs::remove_file(&filler).unwrap();
            store.flush().unwrap_or_else(|e| panic!("{story}: there is space again: {e}"));
            ledger.flushed = ledger.accepted.len();
            ledger.check(&store, true, &story);
        }
        store.seal().unwrap();
        store.close().unwrap();
        let store = Store::open_read_only(store.dir()).unwrap();
        ledger.check(&store, true, "reopened");
        assert!(store.verify(true).unwrap().problems.is_empty());
    }
}
