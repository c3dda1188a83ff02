//! What opening a store does about the past, what it leaves alone, and what it reports.

#![expect(clippy::disallowed_methods, reason = "looks at the files beside the store")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tallystone::{Filter, Options, Store, Table, TaskMetric, Timestamp};

const DAY: i64 = 86_400_000_000;
const START: i64 = 1_794_787_200_000_000;

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

fn options() -> Options {
    Options { block_rows: 64, clock: Arc::new(Fixed), ..Options::default() }
}

fn record(store: &Store, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let row = TaskMetric {
            timestamp: Timestamp::from_micros(START + number).unwrap(),
            task_id: &format!("task-{number}"),
            agent_id: "agent",
            duration_ms: Some(number),
            tokens_used: None,
            success: true,
            metadata: None,
        };
        store.record_task(&row).unwrap();
    }
}

fn rows(store: &Store) -> usize {
    store.snapshot().unwrap().task_metrics(&Filter::new().all()).unwrap().rows.len()
}

/// Every file and directory below `dir`: its size and when it was changed.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::metadata(&path).unwrap();
        found.insert(path.clone(), (metadata.len(), metadata.modified().unwrap()));
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// A read-only open asked the catalog, and SQLite made `catalog.sqlite-shm` beside it, also
/// where the catalog's last writer was killed. Now it creates and changes nothing at all.
#[test]
fn a_read_only_open_writes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (dir, image) = (place.path().join("store"), place.path().join("image"));
    let store = Store::open_with(&dir, options()).unwrap();
    record(&store, 0..100);
    store.seal().unwrap();
    // While somebody else has the database open, its log is not taken in and removed.
    let other = rusqlite::Connection::open(dir.join("catalog.sqlite")).unwrap();
    other.query_row("SELECT count(*) FROM segments", (), |_| Ok(())).unwrap();
    record(&store, 100..300);
    store.seal().unwrap();
    copy(&dir, &image);
    drop(other);
    std::fs::remove_file(image.join("catalog.sqlite-shm")).unwrap();
    assert!(std::fs::metadata(image.join("catalog.sqlite-wal")).unwrap().len() > 0);

    let before = listing(&image);
    for _ in 0..2 {
        let reader = Store::open_read_only(&image).unwrap();
        assert_eq!(reader.snapshot().unwrap().rows(Table::Task), 300);
        assert_eq!(rows(&reader), 300);
        assert!(reader.verify(true).unwrap().problems.is_empty());
        assert_eq!(listing(&image), before);
    }
    assert_eq!(listing(&image), before);
}
