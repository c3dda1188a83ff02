//! Limits of the system on a process: file size, descriptors, address space, memory.
//!
//! A child of this test runs under `ulimit` or in a control group. Whatever it meets is a typed
//! error, never a signal or an abort, and what it was told is committed is there afterwards.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "control groups are files")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tallystone::testing::trust::rows::{Found, Hand, START, metric, options, row_of};
use tallystone::time::{MICROS_PER_DAY, Timestamp};
use tallystone::{Error, Filter, MaintenanceRequest, Options, ReadMode, Store, Table, TaskMetric};

const ROLE: &str = "TALLYSTONE_LIMITS_ROLE";
const DIR: &str = "TALLYSTONE_LIMITS_DIR";
/// Batches that a writer commits, and rows of each.
const BATCHES: usize = 60;
const ROWS: u64 = 40;
/// Days of a store of many files.
const DAYS: i64 = 120;

fn writing() -> Options {
    Options { network_file_system: true, ..options(&Hand::new()) }
}

/// Not a test: what a child does. Nothing when nobody asks for it.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let done = match role.as_str() {
        "write" => write(&dir),
        "map" => count(Store::open_read_only(&dir)),
        "untrusted" => count(Store::open_untrusted(&dir)),
        _ => count(Store::open_with(
            &dir,
            Options { read_mode: ReadMode::Copied, maintenance: None, ..Options::default() },
        )),
    };
    if let Err(error) = done {
        println!("\nfailed {}: {error}", error.kind().name());
    }
}

fn count(store: Result<Store, Error>) -> Result<(), Error> {
    let page = store?.snapshot()?.task_metrics(&Filter { strict: true, ..Filter::new().all() })?;
    println!("\nrows {}", page.rows.len());
    Ok(())
}

/// Commits batches, seals and archives now and then, and goes on after errors.
fn write(dir: &Path) -> Result<(), Error> {
    let store = Store::open_with(dir, writing())?;
    let say = |error: Error| println!("\nfailed {}: {error}", error.kind().name());
    println!();
    for batch in 0..BATCHES {
        let mut appender = store.appender()?;
        let rows = (0..ROWS).map(|row| row_of(batch, row, ROWS));
        let accepted = rows.map(|row| appender.append_task(&metric(&row)));
        let accepted = accepted.collect::<Result<(), Error>>();
        match accepted.and_then(|()| appender.flush()) {
            Ok(()) => println!("committed {batch}"),
            Err(error) => say(error),
        }
        if batch % 20 == 19 {
            store.seal().unwrap_or_else(say);
            let request =
                MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
            store.maintain(&request).map(drop).unwrap_or_else(say);
        }
    }
    store.close().unwrap_or_else(say);
    Ok(())
}

/// Runs a child after `limit`, which is words of a shell.
fn run(limit: &str, role: &str, dir: &Path) -> Output {
    Command::new("bash")
        .args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .output()
        .unwrap()
}

/// What a child said, which came to its end by itself.
fn said(limit: &str, role: &str, dir: &Path) -> String {
    let output = run(limit, role, dir);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert_eq!(status.signal(), None, "{limit}, {role}: {status}: {text}{errors}");
    assert!(status.success(), "{limit}, {role}: {status}: {text}{errors}");
    text
}

fn lines<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
}

/// Every row that was committed is there, right and once; the store is whole, and goes on.
fn check_left(dir: &Path, text: &str) {
    let committed = lines(text, "committed ");
    let store = Store::open_with(dir, writing()).unwrap();
    let found = Found::read(&store.snapshot().unwrap(), row_of).unwrap();
    for batch in committed {
        let batch: usize = batch.parse().unwrap();
        let rows: u64 =
            found.by_day.range((batch, i64::MIN)..=(batch, i64::MAX)).map(|it| it.1).sum();
        assert_eq!(rows, ROWS, "batch {batch} was committed: {text}");
    }
    store.record_task(&metric(&row_of(BATCHES, 0, 1))).unwrap();
    store.flush().unwrap();
    store.seal().unwrap();
    assert!(store.verify(true).unwrap().problems.is_empty());
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), found.rows + 1);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_costs_nothing_committed() {
    let mut refused = 0;
    for kibibytes in [1, 4, 16, 40, 64, 100, 200, 1_000, 4_000] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("store");
        let text = said(&format!("ulimit -f {kibibytes}"), "write", &dir);
        let failed = lines(&text, "failed ");
        refused += failed.len();
        for error in failed {
            assert!(error.starts_with("no_space"), "{kibibytes} KiB: {error}");
            assert!(error.contains("limit"), "{kibibytes} KiB: {error}");
        }
        check_left(&dir, &text);
    }
    assert!(refused > 0, "no limit was met");
}

/// A store of one file for each of many days.
fn many_files(dir: &Path) {
    let store = Store::open_with(dir, writing()).unwrap();
    store.keep_everything().unwrap();
    for day in 0..DAYS {
        let timestamp = Timestamp::from_micros(START - day * MICROS_PER_DAY).unwrap();
        let task_id = format!("task-{day}");
        let task = TaskMetric {
            timestamp,
            task_id: &task_id,
            agent_id: "agent",
            duration_ms: Some(day),
            tokens_used: None,
            success: true,
            metadata: None,
        };
        store.record_task(&task).unwrap();
    }
    store.seal().unwrap();
    let files: u64 = store.stats().unwrap().tables.iter().map(|table| table.files).sum();
    assert!(files >= DAYS.unsigned_abs(), "{files} files");
    store.close().unwrap();
}

#[test]
fn a_store_of_many_files_opens_with_few_descriptors() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    many_files(&dir);
    for (role, descriptors) in
        [("map", 32), ("copy", 32), ("untrusted", 32), ("copy", 1_000), ("untrusted", 1_000)]
    {
        let text = said(&format!("ulimit -n {descriptors}"), role, &dir);
        let all = lines(&text, "rows ") == [DAYS.to_string()];
        let errors = lines(&text, "failed ");
        // A file that is read by position stays open; one that is mapped does not.
        let is_told = errors.iter().any(|it| it.contains("ulimit -n"));
        assert!(all || is_told && role != "map", "{role}, {descriptors}: {text}");
        assert!(all || descriptors < 1_000, "{role}, {descriptors}: {text}");
    }
}

#[test]
fn a_limit_on_the_address_space_is_no_end() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    for kibibytes in [200_000, 400_000, 1_000_000] {
        let text = said(&format!("ulimit -v {kibibytes}"), "write", &dir);
        let failed = lines(&text, "failed ");
        assert!(failed.is_empty(), "{kibibytes} KiB: {failed:?}");
        assert_eq!(lines(&text, "committed ").len(), BATCHES);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// A control group of so many bytes of memory; `None` where none can be made.
fn memory_group(bytes: u64) -> Option<PathBuf> {
    let name = format!("tallystone-test-{}", std::process::id());
    let v1 = Path::new("/sys/fs/cgroup/memory").join(&name);
    let v2 = Path::new("/sys/fs/cgroup").join(&name);
    for (group, limit) in [(v1, "memory.limit_in_bytes"), (v2, "memory.max")] {
        if std::fs::create_dir(&group).is_ok() {
            if std::fs::write(group.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
            let _ = std::fs::remove_dir(&group);
        }
    }
    None
}

#[test]
fn a_control_group_of_little_memory_is_enough() {
    let Some(group) = memory_group(48 << 20) else {
        println!("SKIPPED: no control group for memory can be made here");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let enter = format!("echo $$ > {}/cgroup.procs", group.display());
    let written = run(&enter, "write", &dir);
    let read = run(&enter, "map", &dir);
    let _ = std::fs::remove_dir(&group);
    let text = String::from_utf8_lossy(&written.stdout);
    assert!(written.status.success(), "{}: {text}", written.status);
    assert_eq!(lines(&text, "committed ").len(), BATCHES, "{text}");
    let text = String::from_utf8_lossy(&read.stdout);
    assert_eq!(lines(&text, "rows "), [(BATCHES as u64 * ROWS).to_string()], "{text}");
}
