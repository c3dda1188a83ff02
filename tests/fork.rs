//! Fork: a handle is of no use in a child, says so, and keeps nothing from its parent.
//!
//! The test binary starts itself again, so that what forks has no other test's threads.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, waitpid};
use tallystone::time::{Clock, SystemClock};
use tallystone::{Error, ErrorKind, Filter, Options, Retention, Store, Table, TaskMetric};

const DIR: &str = "TALLYSTONE_FORK_DIR";

fn options() -> Options {
    Options { flush_interval: Duration::from_secs(3_600), ..Options::default() }
}

fn task(task_id: &str) -> TaskMetric<'_> {
    TaskMetric {
        timestamp: SystemClock.now(),
        task_id,
        agent_id: "agent",
        duration_ms: Some(1),
        tokens_used: None,
        success: true,
        metadata: None,
    }
}

/// Forks; the child does `work` and ends with its answer.
#[expect(unsafe_code, reason = "no safe call forks")]
fn fork(work: impl FnOnce() -> i32) -> Pid {
    // SAFETY: no thread but this one holds a lock that the work needs: the store's threads
    // sleep, and the C library readies its own allocator for a child.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(99);
        // SAFETY: ends the process, without the parent's work at exit.
        unsafe { libc::_exit(code) };
    }
    Pid::from_raw(pid).unwrap()
}

/// Runs `check` in a forked child: 0 if it holds, the number of the check that does not, or
/// none if it hangs or is ended by a signal.
fn in_forked_child(check: impl FnOnce() -> i32) -> Option<i32> {
    let pid = fork(check);
    for _ in 0..1_000 {
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG).unwrap() {
            return status.exit_status();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(pid, Signal::KILL).unwrap();
    None
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::Forked)
}

fn ids(store: &Store) -> Vec<String> {
    let rows = store.snapshot().unwrap().task_metrics(&Filter::new().all()).unwrap().rows;
    let mut ids: Vec<String> = rows.into_iter().map(|row| row.task_id).collect();
    ids.sort();
    ids
}

/// Not a test: what a child does. Nothing when nobody asks for it.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Store::open_with(&dir, options()).unwrap();
    let mut appender = store.appender().unwrap();
    store.record_task(&task("recorded")).unwrap();
    store.record_task(&task("flushed")).unwrap();
    store.flush().unwrap();
    appender.append_task(&task("waiting")).unwrap();
    let reader = Store::open_read_only(&dir).unwrap();
    let before = store.snapshot().unwrap();
    let import = store
        .begin_import(tallystone::ImportSource {
            name: "source".to_owned(),
            hash: 1,
            crc32: 1,
            bytes: 1,
            again: false,
        })
        .unwrap();

    let mut appender = Some(appender);
    let mut import = Some(import);
    let answer = in_forked_child(|| {
        let mut appender = appender.take().unwrap();
        let row = task("of the child");
        let checks = [
            is_forked(store.record_task(&row)),
            is_forked(store.try_record_task(&row)),
            is_forked(appender.append_task(&row)),
            is_forked(appender.commit()),
            is_forked(appender.flush()),
            is_forked(store.commit()),
            is_forked(store.flush()),
            is_forked(store.seal()),
            is_forked(store.snapshot()),
            is_forked(reader.snapshot()),
            is_forked(store.appender()),
            is_forked(store.close()),
            is_forked(store.keep_everything()),
            is_forked(store.retention()),
            is_forked(store.set_retention(&Retention::KEEP)),
            is_forked(import.take().unwrap().commit()),
            // A snapshot is memory and files open for reading.
            before.rows(Table::Task) == 2,
            before.task_metrics(&Filter::new()).is_ok_and(|page| page.rows.len() == 2),
        ];
        drop(appender);
        if let Some(failed) = (1..).zip(checks).find(|(_, held)| !held) {
            return failed.0;
        }
        // Opened again, as the error says, it is of use.
        let Ok(again) = Store::open_with(&dir, options()) else { return 50 };
        if again.record_task(&row).is_err() || again.flush().is_err() {
            return 51;
        }
        if again.snapshot().is_ok_and(|snapshot| snapshot.rows(Table::Task) != 3) {
            return 52;
        }
        if again.seal().is_err() || again.close().is_err() {
            return 53;
        }
        0
    });
    assert_eq!(answer, Some(0), "the check of that number failed in the child");

    // The parent goes on: the child's copies were dropped without doing anything to it.
    let mut appender = appender.take().unwrap();
    drop(import);
    appender.append_task(&task("after")).unwrap();
    appender.flush().unwrap();
    assert_eq!(ids(&store), ["after", "flushed", "of the child", "recorded", "waiting"]);

    // Another child lives on while this process is killed.
    let pid = fork(|| {
        std::thread::sleep(Duration::from_secs(20));
        0
    });
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nchild {}\n", pid.as_raw_nonzero()).as_bytes()).unwrap();
    out.flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_forked_child_is_refused_and_keeps_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let (pid, mut owner) = start(&place);
    owner.kill().unwrap();
    owner.wait().unwrap();
    // Its child lives and has inherited every descriptor, but none of the locks.
    test_kill_process(pid).unwrap();
    let store = Store::open(&place).unwrap();
    store.seal().unwrap();
    let stats = store.stats().unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(ids(&store), ["after", "flushed", "of the child", "recorded", "waiting"]);
    assert!(stats.tables.iter().all(|table| table.kind != "active"), "{:?}", stats.tables);
    assert!(store.verify(true).unwrap().problems.is_empty());
}

/// The process whose handles are forked, and the child that it has left.
fn start(place: &Path) -> (Pid, std::process::Child) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let pid = loop {
        let line = lines.next().expect("the child failed").unwrap();
        if let Some(pid) = line.strip_prefix("child ") {
            break Pid::from_raw(pid.parse().unwrap()).unwrap();
        }
    };
    (pid, owner)
}
