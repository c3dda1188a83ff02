//! What opening a store does about the past, what it leaves alone, and what it reports.

#![expect(clippy::disallowed_methods, reason = "looks at the files beside the store")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tallystone::alert::{MetricNames, Rule};
use tallystone::testing::{
    CrashPolicy, Fault, OpKind, SimFileSystem, open_store, open_store_read_only,
};
use tallystone::{
    Durability, ErrorKind, Filter, ImportSource, MaintenanceRequest, MaintenanceWork, Options,
    ReadMode, Retention, Store, Table, TableRetention, TaskMetric, Tiers, Timestamp,
};

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

fn task(number: i64, task_id: &str) -> TaskMetric<'_> {
    TaskMetric {
        timestamp: Timestamp::from_micros(START + number).unwrap(),
        task_id,
        agent_id: "agent",
        duration_ms: Some(number),
        tokens_used: None,
        success: true,
        metadata: None,
    }
}

fn record(store: &Store, numbers: std::ops::Range<i64>) {
    for number in numbers {
        store.record_task(&task(number, &format!("task-{number}"))).unwrap();
    }
}

/// Imports rows and returns the id of the import.
fn import(store: &Store, numbers: std::ops::Range<i64>) -> String {
    let source = ImportSource {
        name: "rows.csv".to_owned(),
        hash: u128::from(numbers.start.unsigned_abs()),
        crc32: 1,
        bytes: 1,
        again: false,
    };
    let mut import = store.begin_import(source).unwrap();
    for number in numbers {
        import.append_task(&task(number, &format!("task-{number}"))).unwrap();
    }
    import.commit().unwrap().id
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

/// A read-only open said nothing of a torn tail, and rows that were never acknowledged went
/// in silence. Now it reports what a writer reports, and leaves the bytes where they are.
#[test]
fn a_read_only_open_reports_torn_tails() {
    let (fs, dir) = (SimFileSystem::with_seed(1), Path::new("/store"));
    let store = open_store(&fs, dir, options()).unwrap();
    for start in [0, 10] {
        record(&store, start..start + 10);
        store.flush().unwrap();
    }
    let image = fs.kill_image();
    let is_active = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "active");
    let active = image.dump().into_iter().map(|(path, _)| path).find(is_active).unwrap();
    let mut bytes = image.read_file(&active).unwrap();
    // The end of the last COMMIT did not reach the disk.
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - 20..].fill(0);
    image.write_file(&active, &bytes).unwrap();

    let reader = open_store_read_only(&image, dir, options()).unwrap();
    let recovery = reader.recovery().clone();
    assert_eq!(rows(&reader), 10);
    assert!(recovery.torn_tail_bytes > 0 && recovery.frames_dropped > 0, "{recovery:?}");
    assert!(recovery.notes[0].contains(".active"), "{recovery:?}");
    assert_eq!(image.read_file(&active).unwrap(), bytes);
    assert!(!image.dump().iter().any(|(path, _)| path.starts_with("/store/quarantine")));
    assert_eq!(open_store(&image, dir, options()).unwrap().recovery(), &recovery);

    let reader = open_store_read_only(&fs, dir, options()).unwrap();
    assert_eq!(reader.recovery().torn_tail_bytes, 0);
}

/// An import whose record had vanished was taken for one that was undone, and the next writer
/// deleted its files: committed rows were lost for good. The catalog knows better.
#[test]
fn files_of_an_import_whose_record_is_gone_are_kept() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = Store::open_with(&dir, options()).unwrap();
    record(&store, 0..10);
    store.flush().unwrap();
    let undone = import(&store, 100..110);
    let id = import(&store, 200..250);
    store.undo_import(&undone).unwrap();
    assert_eq!(rows(&store), 60);
    store.close().unwrap();

    let path = dir.join("txn").join(&id);
    let record = std::fs::read(&path).unwrap();
    let earlier = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&earlier), missed(&earlier).len()), (60, 0));
    std::fs::remove_file(&path).unwrap();
    // Answers say it before any maintenance does: at once, or within a second.
    let later = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&later), missed(&later)[0].1), (10, Some(50)));
    wait_for(|| rows(&earlier) == 10);
    assert_eq!(missed(&earlier), missed(&later));
    for rebuilt in [false, false, true, false] {
        let store = Store::open_with(&dir, options()).unwrap();
        let notes = &store.recovery().notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains(&format!("txn/{id} is gone")), "{notes:?}");
        assert!(notes[0].contains("50 rows"), "{notes:?}");
        for store in [&store, &Store::open_read_only(&dir).unwrap()] {
            let report = store.verify(false).unwrap();
            assert!(report.loses_rows() && report.problems.len() == 1, "{report:?}");
            assert!(report.problems[0].message.contains(&id), "{report:?}");
        }
        let page = Store::open_read_only(&dir).unwrap().snapshot().unwrap();
        let page = page.task_metrics(&Filter::new().all()).unwrap();
        assert_eq!(page.rows.len(), 10);
        assert_eq!(page.coverage.damaged.len(), 1, "{:?}", page.coverage);
        if rebuilt {
            store.rebuild_catalog().unwrap();
        }
        store.close().unwrap();
    }

    std::fs::write(&path, record).unwrap();
    let store = Store::open_with(&dir, options()).unwrap();
    assert_eq!(store.recovery().notes, Vec::<String>::new());
    assert_eq!(rows(&store), 60);
    assert!(store.verify(true).unwrap().problems.is_empty());
    store.undo_import(&id).unwrap();
    assert_eq!(rows(&store), 10);
    store.close().unwrap();
    let store = Store::open_with(&dir, options()).unwrap();
    assert_eq!(store.recovery().notes, Vec::<String>::new());
    assert!(store.verify(true).unwrap().problems.is_empty());
    assert!(
        store.snapshot().unwrap().task_metrics(&Filter::new()).unwrap().coverage.damaged.is_empty()
    );
}

/// A clock that is far ahead, and by which no listing grows old.
#[derive(Debug)]
struct Ahead;

impl tallystone::time::Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 9_000 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// A directory was taken for long unchanged by the clock in the options. With that far ahead,
/// a file that came in the same tick of the file system's clock stayed unseen for a second.
#[test]
fn a_clock_far_ahead_hides_no_change() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let first = Store::open_with(&dir, options()).unwrap();
    record(&first, 0..10);
    first.flush().unwrap();
    let ahead = Options { clock: Arc::new(Ahead), ..options() };
    let reader = Store::open_with(&dir, ahead).unwrap();
    assert_eq!(rows(&reader), 10);

    let day = std::fs::read_dir(dir.join("task_metrics")).unwrap().next().unwrap().unwrap().path();
    let day = std::fs::File::open(day).unwrap();
    let modified = day.metadata().unwrap().modified().unwrap();
    let second = Store::open_with(&dir, options()).unwrap();
    record(&second, 10..20);
    second.flush().unwrap();
    day.set_modified(modified).unwrap();
    assert_eq!(rows(&reader), 20);
}

/// How many files of a kind a simulated store has.
fn count(fs: &SimFileSystem, kind: &str) -> usize {
    let is_of = |path: &Path| path.extension().is_some_and(|it| it == kind);
    fs.dump().iter().filter(|(path, _)| is_of(path)).count()
}

fn small() -> Options {
    Options { roll_rows: 100, unlink_grace: Duration::ZERO, ..options() }
}

/// Short-lived writers leave an active segment each; the one that makes them more than 64 in a
/// partition merges them when it closes. A writer that does not get to close leaves that to
/// the next one that opens.
#[test]
fn many_small_actives_are_merged_on_close_and_on_open() {
    let (fs, dir) = (SimFileSystem::with_seed(2), Path::new("/store"));
    for number in 0..64 {
        let store = open_store(&fs, dir, small()).unwrap();
        record(&store, number..number + 1);
        store.close().unwrap();
    }
    assert_eq!((count(&fs, "active"), count(&fs, "segment")), (64, 0));

    let store = open_store(&fs, dir, small()).unwrap();
    assert_eq!((count(&fs, "active"), count(&fs, "segment")), (64, 0));
    record(&store, 64..65);
    store.flush().unwrap();
    let killed = fs.kill_image();
    store.close().unwrap();
    assert_eq!((count(&fs, "active"), count(&fs, "segment")), (0, 1));
    let reader = open_store_read_only(&fs, dir, small()).unwrap();
    assert_eq!(rows(&reader), 65);

    assert_eq!((count(&killed, "active"), count(&killed, "segment")), (65, 0));
    let store = open_store(&killed, dir, small()).unwrap();
    assert_eq!(store.recovery().rows_recovered, 65);
    assert_eq!((count(&killed, "active"), count(&killed, "segment")), (0, 1));
    assert_eq!(rows(&store), 65);
}

/// More than 8 sealed segments under a quarter of the roll size become one, at any age of the
/// partition; larger ones stay as they are.
#[test]
fn many_small_segments_are_merged() {
    // Four of 24 rows make one of about the roll size; a ninth is alone.
    for (rows_each, after_nine) in [(24, 3), (25, 9)] {
        let (fs, dir) = (SimFileSystem::with_seed(3), Path::new("/store"));
        let store = open_store(&fs, dir, small()).unwrap();
        for number in 0..9 {
            assert_eq!(count(&fs, "segment"), usize::try_from(number).unwrap());
            record(&store, number * rows_each..(number + 1) * rows_each);
            store.seal().unwrap();
        }
        assert_eq!(count(&fs, "segment"), after_nine, "{rows_each} rows");
        assert_eq!(rows(&store), usize::try_from(9 * rows_each).unwrap());
    }
}

/// A process was stopped, or met an error, after it had made a directory and before that was
/// durable. The next one found the directory there and did not sync its name: everything that
/// it flushed went with the next power cut.
#[test]
fn what_others_made_is_made_durable_before_it_is_used() {
    let dir = Path::new("/store");
    let mut failed = 0;
    for call in 0.. {
        let fs = SimFileSystem::with_seed(call);
        fs.fail_at(call, Fault::IO, false);
        if let Ok(store) = open_store(&fs, dir, options()) {
            record(&store, 0..1);
            let _ = store.flush();
            let _ = store.close();
        }
        if fs.faults_fired() == 0 {
            break;
        }
        failed += 1;
        let story = format!("call {call}: {:?}", fs.first_fault());
        for killed in [fs.clone(), fs.kill_image()] {
            let store = open_store(&killed, dir, options()).unwrap();
            record(&store, 1..11);
            store.flush().unwrap_or_else(|e| panic!("{story}: {e}"));
            import(&store, 100..110);
            let image = killed.crash_image(CrashPolicy::None, 1);
            let reader = open_store_read_only(&image, dir, options())
                .unwrap_or_else(|e| panic!("{story}: {e}"));
            assert!(rows(&reader) >= 20, "{story}: {} rows are left", rows(&reader));
        }
    }
    assert!(failed > 40, "{failed}");
}

/// A listing that failed half way had taken new files in, and forgot that it had; following a
/// segment that is being written, a read that failed had moved past commits that no view had
/// taken in. Their rows were missing, in silence, until the process opened the store again.
#[test]
fn a_listing_that_failed_hides_nothing_from_the_next() {
    let (fs, dir) = (SimFileSystem::with_seed(4), Path::new("/store"));
    let store = open_store(&fs, dir, options()).unwrap();
    let mut recorded = 0;
    for call in 0.. {
        let reader = open_store_read_only(&fs, dir, options()).unwrap();
        assert_eq!(rows(&reader), recorded);
        let number = i64::try_from(recorded).unwrap();
        if call % 2 == 0 {
            // A new file, too, where there was only a longer one.
            store.seal().unwrap();
        }
        record(&store, number..number + 10);
        store.flush().unwrap();
        recorded += 10;
        let before = fs.faults_fired();
        fs.fail_at(call / 2, Fault::IO, false);
        let failed = reader.snapshot().is_err();
        fs.heal();
        assert_eq!(rows(&reader), recorded, "call {} of a listing failed", call / 2);
        if fs.faults_fired() == before {
            break;
        }
        assert!(failed || call > 0);
    }
    assert!(recorded > 100, "{recorded}");
}

/// A segment was entered into the catalog between its rename and the sync of its directory, by
/// a pass of maintenance beside the one that sealed. SQLite's own sync came first: a power cut
/// took the file, left the catalog, and rows that were there were called lost from then on.
#[test]
fn a_name_in_the_catalog_is_durable() {
    let (fs, dir) = (SimFileSystem::with_seed(6), Path::new("/store"));
    let store = open_store(&fs, dir, options()).unwrap();
    store.keep_everything().unwrap();
    record(&store, 0..10);
    store.flush().unwrap();
    fs.fail_path_matching("task_metrics", Some(OpKind::SyncDir), 0, Fault::IO, true);
    // It says so, and has sealed.
    assert!(store.seal().is_err());
    fs.heal();
    let sealed = |fs: &SimFileSystem| {
        let store = open_store_read_only(fs, dir, options()).unwrap();
        assert_eq!(rows(&store), 10);
        store.stats().unwrap().tables.iter().any(|table| table.kind == "segment")
    };
    assert!(sealed(&fs));
    assert!(!sealed(&fs.crash_image(CrashPolicy::None, 1)));
    store.maintain(&MaintenanceRequest::default()).unwrap();
    assert!(sealed(&fs.crash_image(CrashPolicy::None, 1)));
}

/// Files of a kind, by name.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    listing(dir).into_keys().filter(|path| path.extension().is_some_and(|it| it == kind)).collect()
}

/// Rules by which a day that is over becomes an archive.
fn archive() -> Retention {
    let archive_days = Tiers::DAYS_MAX;
    let tiers = Tiers { detailed_days: 0, archive_days, hourly_days: 0, daily_days: 0 };
    Retention { task: TableRetention::Tiers(tiers), ..Retention::KEEP }
}

fn wait_for(is_done: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is_done() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What answers say is gone: files and rows.
fn missed(store: &Store) -> Vec<(String, Option<u64>)> {
    let page = store.snapshot().unwrap().task_metrics(&Filter::new().all()).unwrap();
    page.coverage.damaged.into_iter().map(|it| (it.file, it.rows)).collect()
}

/// Answers said nothing of a file that another program had deleted until a pass of maintenance
/// had missed it: rows were left out of sums in silence for up to a day.
#[test]
fn a_file_that_is_gone_is_told_by_answers_at_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let options = Options { unlink_grace: Duration::ZERO, maintenance: None, ..options() };
    let store = Store::open_with(&dir, options).unwrap();
    record(&store, 0..100);
    store.seal().unwrap();
    store.maintain(&MaintenanceRequest::default()).unwrap();
    record(&store, 100..110);
    store.close().unwrap();
    let earlier = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&earlier), missed(&earlier)), (110, vec![]));

    let [file] = &files(&dir, "segment")[..] else { panic!("one segment") };
    let name = file.strip_prefix(&dir).unwrap().to_str().unwrap().to_owned();
    let gone = vec![(name, Some(100))];
    let aside = root.path().join("aside");
    std::fs::rename(file, &aside).unwrap();
    let later = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&later), missed(&later)), (10, gone.clone()));
    let sum = later.snapshot().unwrap().average(Table::Task, "duration_ms", &Filter::new());
    assert_eq!(sum.unwrap_err().kind(), ErrorKind::MissingSegment);
    let mut alerts = later.alerts(Rule::defaults(&MetricNames::default())).unwrap();
    let now = Timestamp::from_micros(START + 60_000_000).unwrap();
    let found = later.evaluate_alerts_at(&mut alerts, &later.snapshot().unwrap(), now).unwrap();
    assert!(found.alerts[0].is_damaged, "{:?}", found.alerts[0]);
    // One who had it open lists again within a second.
    wait_for(|| rows(&earlier) == 10);
    assert_eq!((rows(&earlier), missed(&earlier)), (10, gone));

    std::fs::rename(&aside, file).unwrap();
    let again = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&again), missed(&again)), (110, vec![]));
}

/// Where what a file was sealed from is still there, its rows count again: they were called lost,
/// and then, as the catalog went on missing the file, for good.
#[test]
fn a_file_that_is_gone_loses_nothing_while_its_source_is_there() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let store = Store::open_with(&dir, options()).unwrap();
    record(&store, 0..100);
    store.seal().unwrap();
    store.maintain(&MaintenanceRequest::default()).unwrap();
    let [file] = &files(&dir, "segment")[..] else { panic!("one segment") };
    assert_eq!(files(&dir, "active").len(), 1, "it stays for the grace");
    std::fs::remove_file(file).unwrap();
    let reader = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&reader), missed(&reader)), (100, vec![]));
    assert_eq!(reader.verify(true).unwrap().problems, []);
    let report = store.maintain(&MaintenanceRequest::default()).unwrap();
    assert_eq!(report.notes, Vec::<String>::new());
    store.close().unwrap();
    // Sealed once more, archived, and the first source forgotten.
    let quick = Options { unlink_grace: Duration::ZERO, maintenance: None, ..options() };
    let store = Store::open_with(&dir, quick).unwrap();
    store.set_retention(&archive()).unwrap();
    for _ in 0..3 {
        store.maintain(&MaintenanceRequest::default()).unwrap();
    }
    assert_eq!((rows(&store), missed(&store)), (100, vec![]));
    assert_eq!((files(&dir, "active").len(), files(&dir, "archive").len()), (0, 1));
    assert_eq!(store.verify(true).unwrap().problems, []);
}

/// By an older copy of the catalog files are missing that were merged since, and deleted, and
/// what they were merged into as well: nothing that is there explains that.
#[test]
fn an_older_catalog_misses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let options = || Options { unlink_grace: Duration::ZERO, maintenance: None, ..options() };
    let archive = || {
        let tiers =
            |archive_days| Tiers { detailed_days: 0, archive_days, hourly_days: 0, daily_days: 0 };
        Retention { task: TableRetention::Tiers(tiers(Tiers::DAYS_MAX)), ..Retention::KEEP }
    };
    let catalog = ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"];
    let maintained = |numbers: std::ops::Range<i64>| {
        let store = Store::open_with(&dir, options()).unwrap();
        record(&store, numbers);
        store.seal().unwrap();
        store.set_retention(&archive()).unwrap();
        for _ in 0..2 {
            store.maintain(&MaintenanceRequest::default()).unwrap();
        }
        store.close().unwrap();
        files(&dir, "archive")
    };
    let first = maintained(0..100);
    for name in catalog.iter().filter(|name| dir.join(name).exists()) {
        std::fs::copy(dir.join(name), root.path().join(name)).unwrap();
    }
    let (second, third) = (maintained(100..200), maintained(200..300));
    assert!(!second.iter().any(|file| first.contains(file) || third.contains(file)));
    for name in catalog {
        let _ = std::fs::remove_file(dir.join(name));
        let _ = std::fs::copy(root.path().join(name), dir.join(name));
    }
    let reader = Store::open_read_only(&dir).unwrap();
    assert_eq!((rows(&reader), missed(&reader)), (300, vec![]));
    assert_eq!(reader.verify(true).unwrap().problems, []);
    // In the mark's absence nothing shows that it is older.
    std::fs::remove_file(dir.join("maintenance.lock")).unwrap();
    assert!(!missed(&Store::open_read_only(&dir).unwrap()).is_empty());
}

/// Rows that were committed and not flushed, which the catalog had come to know, were gone after a
/// power cut, as they may be. The file without rows was removed without a word to the catalog: from
/// then on it was missing, and every sum was refused. Many are removed before the catalog is
/// compared with what is there.
#[test]
fn rows_that_a_power_cut_took_are_not_missed_for_ever() {
    for count in [1, 65] {
        let root = tempfile::tempdir().unwrap();
        let (dir, image) = (root.path().join("store"), root.path().join("image"));
        let quick =
            || Options { durability: Durability::Os, unlink_grace: Duration::ZERO, ..small() };
        let writers: Vec<Store> = (0..count)
            .map(|number| {
                let store = Store::open_with(&dir, quick()).unwrap();
                record(&store, 20 * number..20 * (number + 1));
                store.commit().unwrap();
                store
            })
            .collect();
        let what = MaintenanceWork::Expire;
        writers[0].maintain(&MaintenanceRequest { what, ..MaintenanceRequest::default() }).unwrap();
        copy(&dir, &image);
        drop(writers);
        let actives = files(&image, "active");
        assert_eq!(actives.len(), usize::try_from(count).unwrap());
        for active in &actives {
            let mut bytes = std::fs::read(active).unwrap();
            bytes[8192..].fill(0);
            std::fs::write(active, bytes).unwrap();
        }

        let reader = Store::open_read_only(&image).unwrap();
        assert_eq!((rows(&reader), missed(&reader)), (0, vec![]));
        let store = Store::open_with(&image, quick()).unwrap();
        let notes = &store.recovery().notes;
        let told = notes.iter().filter(|note| note.contains("nothing is left of 20 rows"));
        assert_eq!((told.count(), notes.len()), (actives.len(), actives.len()), "{notes:?}");
        assert_eq!(files(&image, "active").len(), if count > 64 { 0 } else { 1 });
        record(&store, 0..10);
        store.flush().unwrap();
        assert_eq!((rows(&store), missed(&store)), (10, vec![]));
        assert_eq!(store.verify(true).unwrap().problems, []);
        store.close().unwrap();
        let reader = Store::open_read_only(&image).unwrap();
        assert_eq!((rows(&reader), missed(&reader)), (10, vec![]));
        assert_eq!(reader.verify(true).unwrap().problems, []);
    }
}

/// Rows that had been durable are not forgotten so: with all of their file zero, they are lost.
#[test]
fn durable_rows_of_a_file_that_was_emptied_are_missed() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("store"), root.path().join("image"));
    let store = Store::open_with(&dir, options()).unwrap();
    for number in 0..3 {
        record(&store, 20 * number..20 * (number + 1));
        store.flush().unwrap();
    }
    let what = MaintenanceWork::Expire;
    store.maintain(&MaintenanceRequest { what, ..MaintenanceRequest::default() }).unwrap();
    copy(&dir, &image);
    let [active] = &files(&image, "active")[..] else { panic!("one active segment") };
    let mut bytes = std::fs::read(active).unwrap();
    bytes[8192..].fill(0);
    std::fs::write(active, bytes).unwrap();
    let name = active.strip_prefix(&image).unwrap().to_str().unwrap().to_owned();

    let [problem] = &Store::open_read_only(&image).unwrap().verify(true).unwrap().problems[..]
    else {
        panic!("one problem")
    };
    assert!(problem.loses_rows && problem.message.contains("although some were durable"));
    let store = Store::open_with(&image, options()).unwrap();
    let notes = &store.recovery().notes;
    assert!(notes.iter().any(|note| note.contains("is gone: 60 rows")), "{notes:?}");
    assert_eq!((rows(&store), missed(&store)), (0, vec![(name.clone(), Some(60))]));
    // Also when it has been removed.
    store.maintain(&MaintenanceRequest::default()).unwrap();
    store.close().unwrap();
    let reader = Store::open_read_only(&image).unwrap();
    assert_eq!((rows(&reader), missed(&reader)), (0, vec![(name, Some(60))]));
    let sum = reader.snapshot().unwrap().average(Table::Task, "duration_ms", &Filter::new());
    assert_eq!(sum.unwrap_err().kind(), ErrorKind::MissingSegment);
    let report = Store::repair(&image, false).unwrap();
    assert_eq!((report.rows_lost, report.files.len()), (60, 1), "{report:?}");
    let again = Store::open_read_only(&image).unwrap();
    assert_eq!(again.verify(true).unwrap().problems, []);
}

/// An aggregate over rows of which a read had failed was refused as if they were damaged, which
/// makes a monitor call for a repair; the next try answers.
#[test]
fn an_answer_that_a_read_failed_is_not_called_damaged() {
    let (fs, dir) = (SimFileSystem::with_seed(5), Path::new("/store"));
    let options = || Options { read_mode: ReadMode::Copied, maintenance: None, ..options() };
    let store = open_store(&fs, dir, options()).unwrap();
    record(&store, 0..100);
    store.seal().unwrap();
    store.close().unwrap();
    let stamp = |number| Timestamp::from_micros(START + number).unwrap();
    let part = Filter::new().between(stamp(10), stamp(90));
    let mut failed = 0;
    for call in 0.. {
        let reader = open_store_read_only(&fs, dir, options()).unwrap();
        let snapshot = reader.snapshot().unwrap();
        let before = fs.faults_fired();
        fs.fail_at(call, Fault::IO, false);
        let answer = snapshot.average(Table::Task, "duration_ms", &part);
        let has_fired = fs.faults_fired() > before;
        fs.heal();
        if let Err(error) = answer {
            assert_eq!(error.kind(), ErrorKind::Io, "call {call}: {error}");
            failed += 1;
        }
        let again = reader.snapshot().unwrap().average(Table::Task, "duration_ms", &part);
        assert_eq!(again.unwrap().value.value, Some(49.5), "call {call}");
        if !has_fired {
            break;
        }
    }
    assert!(failed > 0);
}
