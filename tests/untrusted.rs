//! Stores that may be anybody's: the same answers as for one's own, and nothing that a hostile
//! file could gain by.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "files are damaged as another program would")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use tallystone::{
    ErrorKind, Filter, MaintenanceRequest, Options, Store, Table, TaskMetric, Timestamp,
};

const START: i64 = 1_794_787_200_000_000;

fn options() -> Options {
    Options {
        maintenance: None,
        unlink_grace: Duration::ZERO,
        block_rows: 64,
        small_hour_rows: 8,
        ..Options::default()
    }
}

/// Sealed rows, rows that are not, and metadata as `of` makes it.
fn store(dir: &Path, of: impl Fn(i64) -> String) {
    let store = Store::open_with(dir, options()).unwrap();
    store.keep_everything().unwrap();
    for number in 0..300 {
        let metadata = of(number);
        let row = TaskMetric {
            timestamp: Timestamp::from_micros(START + number * 60_000_000).unwrap(),
            task_id: &format!("task-{number:05}"),
            agent_id: &format!("agent-{}", number % 5),
            duration_ms: Some(number * 31 % 10_007),
            tokens_used: None,
            success: true,
            metadata: Some(&metadata),
        };
        store.record_task(&row).unwrap();
        if number == 199 {
            store.seal().unwrap();
            // What it replaced goes, and does not answer in its place.
            store.maintain(&MaintenanceRequest::default()).unwrap();
        }
    }
    store.close().unwrap();
}

fn rows(store: &Store) -> Vec<String> {
    let filter = Filter { allow_partial: true, ..Filter::new().all() };
    let page = store.snapshot().unwrap().metrics(Table::Task, &filter).unwrap();
    page.rows.iter().map(|row| format!("{row:?}")).collect()
}

fn file_with_ending(dir: &Path, ending: &str) -> PathBuf {
    let day = std::fs::read_dir(dir.join("task_metrics/2026-11-16")).unwrap();
    let mut paths = day.map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|it| it == ending)).unwrap()
}

/// All that lies in a directory: names, lengths and times of change.
fn listing(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let (len, at) = (found.len(), found.modified().unwrap());
        all.push(format!("{} {len} {at:?}", entry.path().display()));
        if found.is_dir() {
            all.extend(listing(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn the_same_answers_without_a_trace() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    store(&dir, |number| format!("{{\"n\":{number}}}"));
    let own = rows(&Store::open_read_only(&dir).unwrap());
    assert_eq!(own.len(), 300);
    let before = listing(&dir);
    let untrusted = Store::open_untrusted(&dir).unwrap();
    assert_eq!(rows(&untrusted), own);
    assert!(untrusted.verify(true).unwrap().problems.is_empty());
    assert_eq!(untrusted.commit().unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(untrusted);
    assert_eq!(listing(&dir), before);
    // A catalog that is anything at all is not even opened.
    std::fs::write(dir.join("catalog.sqlite"), b"SQLite format 3\0 and then anything").unwrap();
    let untrusted = Store::open_untrusted(&dir).unwrap();
    assert_eq!(rows(&untrusted), own);
    assert!(untrusted.health().unwrap().jobs.is_empty());
    assert!(untrusted.verify(true).unwrap().problems.is_empty());
}

/// A map of a file that somebody shortens raises a signal, which would end this test.
#[test]
fn a_file_cut_short_under_it_is_an_error_and_no_signal() {
    for (ending, len) in [("segment", 0), ("segment", 9_000), ("active", 0), ("active", 8_192)] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("store");
        store(&dir, |number| format!("{{\"n\":{number}}}"));
        let untrusted = Store::open_untrusted(&dir).unwrap();
        let snapshot = untrusted.snapshot().unwrap();
        let path = file_with_ending(&dir, ending);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len).unwrap();
        let all = snapshot.metrics(Table::Task, &Filter::new().all());
        let sum = snapshot.aggregate(Table::Task, "duration_ms", &Filter::new().agent("agent-1"));
        match ending {
            // What was committed when the snapshot was taken is in memory.
            "active" => assert_eq!(all.unwrap().rows.len(), 300),
            _ => {
                assert!(!all.unwrap().coverage.damaged.is_empty());
                let error = sum.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn), "{error}");
            }
        }
        assert!(!untrusted.verify(true).unwrap().problems.is_empty() || ending == "active");
    }
}

/// A few bytes that stand for very many.
#[test]
fn text_that_swells_a_thousandfold_is_damage() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    store(&dir, |number| format!("{{\"n\":{number},\"x\":\"{}\"}}", "a".repeat(60_000)));
    let own = Store::open_read_only(&dir).unwrap();
    assert_eq!(rows(&own).len(), 300);
    let untrusted = Store::open_untrusted(&dir).unwrap();
    let page = untrusted.snapshot().unwrap().metrics(Table::Task, &Filter::new().all()).unwrap();
    assert!(page.rows.len() < 300, "{}", page.rows.len());
    let reasons: Vec<&String> = page.coverage.damaged.iter().map(|it| &it.reason).collect();
    assert!(reasons.iter().any(|it| it.contains("over 1000 times as many")), "{reasons:?}");
    // Who asks for other columns never looks at it.
    let other = Store::open_untrusted(&dir).unwrap();
    let sum = other.snapshot().unwrap().aggregate(Table::Task, "duration_ms", &Filter::new());
    assert_eq!(sum.unwrap().value.rows, 300);
}

#[test]
fn links_out_of_the_store_are_not_followed() {
    let place = tempfile::tempdir().unwrap();
    let (dir, other) = (place.path().join("store"), place.path().join("other"));
    store(&dir, |number| format!("[{number}]"));
    let path = file_with_ending(&dir, "segment");
    std::fs::create_dir(&other).unwrap();
    let moved = other.join(path.file_name().unwrap());
    std::fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    assert_eq!(rows(&Store::open_untrusted(&dir).unwrap()).len(), 100);
    for name in ["store.json", "task_metrics"] {
        let (from, to) = (dir.join(name), other.join(name));
        std::fs::rename(&from, &to).unwrap();
        std::os::unix::fs::symlink(&to, &from).unwrap();
    }
    // Nothing of it is a file of its own any more.
    let error = Store::open_untrusted(&dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOurFile, "{error}");
    assert!(Store::open_untrusted(place.path().join("none")).is_err());
}

/// Whatever single byte is another, nothing that was not written comes out.
#[test]
fn changed_bytes_are_never_rows() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    store(&dir, |number| format!("[{number}]"));
    let own = rows(&Store::open_read_only(&dir).unwrap());
    for ending in ["segment", "active"] {
        let path = file_with_ending(&dir, ending);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(211) {
            let mut bad = good.clone();
            bad[at] ^= 0x24;
            std::fs::write(&path, &bad).unwrap();
            let found = rows(&Store::open_untrusted(&dir).unwrap());
            assert!(found.iter().all(|row| own.contains(row)), "{ending}, byte {at}");
        }
        std::fs::write(&path, &good).unwrap();
    }
}
