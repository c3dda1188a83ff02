//! Backups: they open as stores, with every row that was flushed before, while others write.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "damages and lists files of its own")]

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::time::{Clock, SystemClock};
use tallystone::{
    ErrorKind, Filter, ImportSource, MaintenanceRequest, Options, Retention, Store, TaskMetric,
    Timestamp,
};

const START: i64 = 1_794_787_200_000_000;
const DAY: i64 = 86_400_000_000;

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 3 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

fn options() -> Options {
    Options {
        flush_interval: Duration::from_secs(3_600),
        roll_rows: 300,
        block_rows: 64,
        small_hour_rows: 8,
        unlink_grace: Duration::ZERO,
        maintenance: None,
        clock: Arc::new(Fixed),
        ..Options::default()
    }
}

fn record(store: &Store, number: i64) {
    let row = TaskMetric {
        timestamp: Timestamp::from_micros(START + number * 7_919_000_000 % (3 * DAY)).unwrap(),
        task_id: &format!("t{number}"),
        agent_id: &format!("a{}", number % 5),
        duration_ms: Some(number * 31),
        tokens_used: None,
        success: number % 7 != 0,
        metadata: None,
    };
    store.record_task(&row).unwrap();
}

/// The numbers of the rows in a store; each must be there once, and as it was written.
fn numbers(store: &Store) -> BTreeSet<i64> {
    let page = store.snapshot().unwrap().task_metrics(&Filter::new().all()).unwrap();
    assert!(page.coverage.damaged.is_empty(), "{:?}", page.coverage);
    let mut numbers = BTreeSet::new();
    for row in page.rows {
        let number: i64 = row.task_id[1..].parse().unwrap();
        assert_eq!(row.duration_ms, Some(number * 31));
        assert!(numbers.insert(number), "{number} is there twice");
    }
    numbers
}

fn import(store: &Store, numbers: std::ops::Range<i64>) -> String {
    let name = format!("source {numbers:?}");
    let hash = numbers.start.unsigned_abs().into();
    let source = ImportSource { name, hash, crc32: 0, bytes: 1, again: false };
    let mut import = store.begin_import(source).unwrap();
    for number in numbers {
        let row = TaskMetric {
            timestamp: Timestamp::from_micros(START).unwrap(),
            task_id: &format!("t{number}"),
            agent_id: "importer",
            duration_ms: Some(number * 31),
            tokens_used: None,
            success: true,
            metadata: None,
        };
        import.append_task(&row).unwrap();
    }
    import.commit().unwrap().id
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.insert(path);
        }
    }
    files
}

fn segments(dir: &Path) -> BTreeSet<PathBuf> {
    let mut files = files(&dir.join("task_metrics"));
    files.retain(|path| path.extension().is_some_and(|end| end == "segment"));
    files
}

#[test]
fn backups_are_whole_while_a_writer_writes() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open_with(place.path().join("store"), options()).unwrap();
    let backup = place.path().join("backup");
    let flushed = AtomicI64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                record(&store, number);
                if number % 50 == 49 {
                    store.flush().unwrap();
                    flushed.store(number + 1, Ordering::Release);
                }
            }
        });
        for round in 0..8 {
            std::thread::sleep(Duration::from_millis(30));
            if round % 3 == 2 {
                store.seal().unwrap();
            }
            let before = flushed.load(Ordering::Acquire);
            let report = store.backup(&backup).unwrap();
            let reader = Store::open_read_only(&backup).unwrap();
            let found = numbers(&reader);
            let last = found.last().copied().unwrap_or(-1);
            assert!(last + 1 >= before, "round {round}: {before} flushed, {last} found");
            assert_eq!(report.rows, found.len() as u64);
            assert_eq!(reader.verify(true).unwrap().problems, []);
            assert_eq!((reader.id(), report.notes.len()), (store.id(), 0));
        }
        done.store(true, Ordering::Relaxed);
    });
    store.close().unwrap();
    let all = numbers(&store);

    // Restored by opening it.
    let store = Store::open_with(place.path().join("store"), options()).unwrap();
    store.backup(&backup).unwrap();
    assert_eq!(numbers(&Store::open_read_only(&backup).unwrap()), all);
    let restored = Store::open_with(&backup, options()).unwrap();
    assert_eq!(restored.recovery().notes, Vec::<String>::new());
    assert_eq!(numbers(&restored), all);
    let next = all.last().unwrap() + 1;
    record(&restored, next);
    restored.seal().unwrap();
    restored.close().unwrap();
    assert_eq!(numbers(&Store::open_read_only(&backup).unwrap()).len(), all.len() + 1);
    // It is a store of its own now.
    let error = store.backup(&backup).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOurFile, "{error}");
    assert_eq!(numbers(&store), all);
}

#[test]
fn a_second_backup_brings_what_is_new_and_takes_away_what_is_old() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open_with(place.path().join("store"), options()).unwrap();
    let backup = place.path().join("backup");
    (0..200).for_each(|number| record(&store, number));
    let undone = import(&store, 1_000..1_010);
    import(&store, 2_000..2_010);
    let first = store.backup(&backup).unwrap();
    assert_eq!((first.files_unchanged, first.files_removed, first.rows), (0, 0, 220));
    assert_eq!(first.files, first.files_linked + 3, "three days are active");
    assert!(first.bytes_copied < first.bytes);
    let again = store.backup(&backup).unwrap();
    assert_eq!((again.files_unchanged, again.files_linked), (again.files, 0));
    assert_eq!(again.bytes_copied, 0);

    store.undo_import(&undone).unwrap();
    store.seal().unwrap();
    let third = store.backup(&backup).unwrap();
    assert_eq!((third.files_removed, third.rows), (4, 210));
    let reader = Store::open_read_only(&backup).unwrap();
    let expected: BTreeSet<i64> = (0..200).chain(2_000..2_010).collect();
    assert_eq!(numbers(&reader), expected);
    assert_eq!(reader.imports().unwrap().len(), 1);
    assert_eq!(segments(&backup).len() as u64, third.files);
    assert_eq!(reader.verify(true).unwrap().problems, []);

    // Rules go along; those of the copy in the catalog agree with them.
    store.set_retention(&Retention { max_bytes: Some(1 << 40), ..Retention::KEEP }).unwrap();
    store.maintain(&MaintenanceRequest::default()).unwrap();
    store.backup(&backup).unwrap();
    let restored = Store::open_with(&backup, options()).unwrap();
    assert_eq!(restored.retention().unwrap(), store.retention().unwrap());
    assert_eq!(restored.recovery().notes, Vec::<String>::new());
    assert_eq!(restored.health().unwrap().missing_files, 0);
    assert!(!restored.health().unwrap().jobs.is_empty());
    assert_eq!(numbers(&restored), expected);
    restored.close().unwrap();
}

#[test]
fn only_an_empty_directory_or_a_backup_is_written_to() {
    let place = tempfile::tempdir().unwrap();
    let open = |name: &str| Store::open_with(place.path().join(name), options()).unwrap();
    let (store, other) = (open("store"), open("other"));
    record(&store, 1);
    let refused = |to: &Path, kind: ErrorKind| {
        let before = files(place.path());
        let error = store.backup(to).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let mut after = files(place.path());
        after.retain(|path| !path.to_string_lossy().contains("/store/"));
        assert!(after.is_subset(&before), "{to:?}");
    };
    refused(store.dir(), ErrorKind::InvalidArgument);
    refused(&store.dir().join("inside"), ErrorKind::InvalidArgument);
    refused(other.dir(), ErrorKind::NotOurFile);
    let full = place.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("letter.txt"), "dear").unwrap();
    refused(&full, ErrorKind::NotOurFile);
    other.backup(place.path().join("of-other")).unwrap();
    refused(&place.path().join("of-other"), ErrorKind::NotOurFile);
    refused(&place.path().join("no/such"), ErrorKind::Io);
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(store.backup(&empty).unwrap().rows, 1);
}

#[test]
fn a_backup_of_damage_has_the_same_damage() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open_with(place.path().join("store"), options()).unwrap();
    (0..200).for_each(|number| record(&store, number));
    store.seal().unwrap();
    store.close().unwrap();
    let damaged = segments(store.dir()).first().unwrap().clone();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[8192 + 200] ^= 0x10;
    std::fs::write(&damaged, bytes).unwrap();
    let store = Store::open_with(store.dir(), options()).unwrap();
    let backup = place.path().join("backup");
    store.backup(&backup).unwrap();
    let problems = |dir: &Path| Store::open_read_only(dir).unwrap().verify(true).unwrap().problems;
    let files = |dir: &Path| problems(dir).into_iter().map(|it| it.file).collect::<Vec<_>>();
    assert_eq!(files(&backup), files(store.dir()));
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert!(files(&backup).iter().any(|file| file.ends_with(name)));
}

/// Whatever a crash leaves of a backup is whole or does not open.
#[test]
fn a_crash_leaves_no_half_backup() {
    let fs = SimFileSystem::new();
    let (dir, to) = (Path::new("/store"), Path::new("/backup"));
    let store = open_store(&fs, dir, options()).unwrap();
    (0..60).for_each(|number| record(&store, number));
    import(&store, 1_000..1_010);
    fs.checkpoint();
    let begun = fs.op_count();
    store.backup(to).unwrap();
    let first_done = fs.op_count();
    (60..120).for_each(|number| record(&store, number));
    store.seal().unwrap();
    store.backup(to).unwrap();
    let (mut whole, mut refused, mut images) = (0, 0, HashSet::new());
    for op in fs.change_points().into_iter().filter(|op| *op >= begun) {
        let killed = fs.kill_image_within(op, 3);
        for image in fs.images_after(op, 3, 5).into_iter().chain([killed]) {
            if !images.insert(image.hash()) {
                continue;
            }
            let story = format!("crash after operation {op}");
            match open_store_read_only(&image, to, options()) {
                Ok(reader) => {
                    let rows = numbers(&reader).len();
                    assert!(rows == 70 || rows == 130, "{story}: {rows} rows");
                    assert!(op >= first_done - 1, "{story}");
                    whole += 1;
                }
                Err(error) => {
                    let unfinished = error.kind() == ErrorKind::Incomplete;
                    assert!(unfinished || op <= first_done, "{story}: {error}");
                    refused += 1;
                }
            }
            // The next backup goes on from what is there.
            let store = open_store(&image, dir, options()).unwrap();
            store.backup(to).unwrap_or_else(|error| panic!("{story}: {error}"));
            let reader = open_store_read_only(&image, to, options()).unwrap();
            assert_eq!(numbers(&reader), numbers(&store), "{story}");
        }
    }
    assert!(whole > 10 && refused > 50, "{whole} whole, {refused} refused");
}
