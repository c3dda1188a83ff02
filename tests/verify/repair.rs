//! What `repair` makes of damage: every readable row is kept, once; what is lost is named;
//! nothing is deleted; and a crash at any step changes none of that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::{
    ErrorKind, Filter, ImportSource, MaintenanceRequest, Options, RepairReport, Row, Store, Table,
    TaskMetric, Timestamp,
};

use crate::{
    BLOCK, DIR, INDEX, ROWS, START, file_of, frames, options, record, remembered, store_with,
};

/// Rows by the minute of their stamps; none may be there twice.
fn minutes(store: &Store) -> BTreeSet<i64> {
    let page = store.snapshot().unwrap().metrics(Table::Task, &Filter::new().all()).unwrap();
    assert!(page.coverage.damaged.is_empty(), "{:?}", page.coverage);
    let count = page.rows.len();
    let minutes: BTreeSet<i64> =
        page.rows.iter().map(|row| (row.timestamp().as_micros() - START) / 60_000_000).collect();
    assert_eq!(minutes.len(), count, "a row is there twice");
    for row in page.rows {
        let Row::Task(row) = row else { panic!("{row:?}") };
        let number = (row.timestamp.as_micros() - START) / 60_000_000;
        assert_eq!(row.task_id, format!("task-{number:05}"));
    }
    minutes
}

/// Rows of the table, whatever tier they are in, as far as answers go by default.
fn counted(store: &Store) -> u64 {
    let all = store.snapshot().unwrap().aggregate(Table::Task, "duration_ms", &Filter::new());
    all.unwrap().value.rows
}

fn repair(image: &SimFileSystem, options: &Options, dry_run: bool) -> RepairReport {
    Store::repair_simulated(image, Path::new(DIR), options.clone(), dry_run).unwrap()
}

/// Everything that has to hold after a repair; returns the rows that are there.
fn check_repaired(image: &SimFileSystem, options: &Options, story: &str) -> BTreeSet<i64> {
    let again = repair(image, options, false);
    assert!(again.files.is_empty(), "{story}: a second repair: {again:?}");
    let store = open_store_read_only(image, Path::new(DIR), options.clone()).unwrap();
    let found = store.verify(true).unwrap().problems;
    assert!(found.is_empty(), "{story}: {found:?}");
    let rows = minutes(&store);
    // A writer opens it, sweeps, seals, and finds the same.
    let store = open_store(image, Path::new(DIR), options.clone()).unwrap();
    store.seal().unwrap();
    assert_eq!(minutes(&store), rows, "{story}: opened for writing");
    assert!(store.verify(true).unwrap().problems.is_empty(), "{story}: opened for writing");
    store.close().unwrap();
    rows
}

fn damaged(sample: &(SimFileSystem, Options), path: &Path, at: usize) -> (SimFileSystem, Vec<u8>) {
    let image = sample.0.kill_image();
    let mut bytes = image.read_file(path).unwrap();
    bytes[at] ^= 0x20;
    image.write_file(path, &bytes).unwrap();
    (image, bytes)
}

/// The bytes of what was set aside.
fn set_aside(image: &SimFileSystem, report: &RepairReport) -> Vec<u8> {
    let kept = report.files[0].set_aside.as_ref().unwrap();
    image.read_file(&Path::new(DIR).join(kept)).unwrap()
}

/// Any byte of any file: at most its block is lost, and named.
#[test]
fn a_changed_byte_costs_its_block_at_most_and_nothing_is_deleted() {
    let mut cases = 0;
    for age in [None, Some(1), Some(4)] {
        let sample = store_with(age);
        let path = file_of(&sample.0);
        let bytes = sample.0.read_file(&path).unwrap();
        let frames = frames(&bytes);
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let headers = [3, 700, 4_100, 8_191];
        for at in headers.into_iter().chain((8_192..used).step_by(23)) {
            let story = format!("{}: byte {at}", path.display());
            let (image, bad) = damaged(&sample, &path, at);
            let dry = repair(&image, &sample.1, true);
            assert_eq!(image.read_file(&path).unwrap(), bad, "{story}");
            let report = repair(&image, &sample.1, false);
            let lost: u64 = frames
                .iter()
                .filter(|frame| matches!(frame.kind, ROWS | BLOCK))
                .filter(|frame| frame.chunks.last().unwrap().end > at && frame.offset <= at)
                .map(|frame| frame.rows)
                .sum();
            let rows = check_repaired(&image, &sample.1, &story);
            assert_eq!(rows.len() as u64, 160 - report.rows_lost, "{story}: {report:?}");
            // Of the last COMMIT: nothing says that it was no frame of rows.
            let is_last = age.is_none() && lost == 0 && at > frames[6].end;
            assert!(is_last || !report.rows_lost_is_at_least, "{story}: {report:?}");
            if report.files.is_empty() {
                // The last batch of a segment that was not ended: a torn tail, or filling.
                continue;
            }
            assert_eq!(report.rows_lost, lost, "{story}: {report:?}");
            assert_eq!(report.rows_kept, 160 - lost, "{story}: {report:?}");
            assert_eq!((dry.rows_kept, dry.rows_lost), (report.rows_kept, report.rows_lost));
            assert_eq!(set_aside(&image, &report), bad, "{story}");
            if lost > 0 {
                let store = open_store_read_only(&image, Path::new(DIR), sample.1.clone()).unwrap();
                let all = store.snapshot().unwrap().metrics(Table::Task, &Filter::new().all());
                let gone = all.unwrap().coverage.gone;
                assert_eq!(gone.len(), 1, "{story}: {gone:?}");
                assert_eq!(gone[0].reason.as_deref(), Some("damaged"));
                let from = report.files[0].lost_from;
                assert!(from.is_none_or(|from| from == gone[0].from), "{story}: {gone:?}");
                for minute in (0..160).filter(|minute| !rows.contains(minute)) {
                    let at = Timestamp::from_micros(START + minute * 60_000_000).unwrap();
                    assert!((gone[0].from..gone[0].to).contains(&at), "{story}: {gone:?}");
                }
            }
            cases += 1;
        }
    }
    println!("{cases} repairs");
    assert!(cases > 600, "{cases}");
}

/// What can be computed of nothing else is lost whole, and what is stored twice is not.
#[test]
fn rollups_and_tombstones_are_written_anew_or_named_as_lost() {
    for age in [6, 8, 20] {
        let sample = store_with(Some(age));
        let path = file_of(&sample.0);
        let bytes = sample.0.read_file(&path).unwrap();
        let frames = frames(&bytes);
        let sections =
            frames.iter().filter(|frame| frame.kind == INDEX).map(|it| it.chunks[0].end - 1);
        let places: Vec<usize> = [5, 4_500, bytes.len() - 2].into_iter().chain(sections).collect();
        for at in places {
            let story = format!("{}: byte {at}", path.display());
            let (image, bad) = damaged(&sample, &path, at);
            let report = repair(&image, &sample.1, false);
            let is_section = (8_192..bytes.len() - 64).contains(&at);
            assert_eq!(report.rows_lost, if is_section { 160 } else { 0 }, "{story}: {report:?}");
            assert_eq!(set_aside(&image, &report), bad, "{story}");
            check_repaired(&image, &sample.1, &story);
            let store = open_store_read_only(&image, Path::new(DIR), sample.1.clone()).unwrap();
            let expected = if is_section || age == 20 { 0 } else { 160 };
            assert_eq!(counted(&store), expected, "{story}");
        }
        // The footer of a rollup, and of a tombstone: nobody knows any more.
        let (image, _) = damaged(&sample, &path, bytes.len() - 80);
        let report = repair(&image, &sample.1, false);
        assert_eq!(report.loses_rows(), age != 20, "{report:?}");
        check_repaired(&image, &sample.1, "footer");
    }
}

/// At any step: the rows are there, none twice, and the next repair goes on.
#[test]
fn a_crash_at_any_step_of_a_repair_keeps_every_readable_row_once() {
    let mut images = 0;
    for age in [None, Some(1), Some(4)] {
        let sample = store_with(age);
        let path = file_of(&sample.0);
        let bytes = sample.0.read_file(&path).unwrap();
        let frames = frames(&bytes);
        let rows = frames.iter().filter(|frame| matches!(frame.kind, ROWS | BLOCK));
        let first = rows.clone().next().unwrap().chunks[3].start;
        let all_headers: Vec<usize> = vec![10, 4_106];
        for places in [vec![first], vec![700], all_headers] {
            let image = sample.0.kill_image();
            let mut bad = bytes.clone();
            places.iter().for_each(|at| bad[*at] ^= 1);
            image.write_file(&path, &bad).unwrap();
            image.checkpoint();
            let begin = image.op_count();
            let report = repair(&image, &sample.1, false);
            assert!(!report.files.is_empty());
            let expected = check_repaired(&image.kill_image(), &sample.1, "whole");
            for op in image.change_points().into_iter().filter(|op| *op >= begin) {
                for crashed in image.images_after(op, op, 2) {
                    let story = format!("{}: {places:?}, operation {op}", path.display());
                    let partial = Filter { allow_partial: true, ..Filter::new().all() };
                    let seen = |store: &Store| -> Vec<i64> {
                        let page =
                            store.snapshot().unwrap().metrics(Table::Task, &partial).unwrap();
                        let mut rows: Vec<i64> = page
                            .rows
                            .iter()
                            .map(|row| (row.timestamp().as_micros() - START) / 60_000_000)
                            .collect();
                        rows.sort_unstable();
                        rows
                    };
                    let all: Vec<i64> = expected.iter().copied().collect();
                    let dir = Path::new(DIR);
                    let reader = open_store_read_only(&crashed, dir, sample.1.clone()).unwrap();
                    assert_eq!(seen(&reader), all, "{story}");
                    // A writer may come first, and sweep.
                    if op % 2 == 0 {
                        let store = open_store(&crashed, dir, sample.1.clone()).unwrap();
                        store.seal().unwrap();
                        assert_eq!(seen(&store), all, "{story}: opened for writing");
                        store.close().unwrap();
                    }
                    repair(&crashed, &sample.1, false);
                    assert_eq!(check_repaired(&crashed, &sample.1, &story), expected, "{story}");
                    let store = open_store_read_only(&crashed, dir, sample.1.clone()).unwrap();
                    let page = store.snapshot().unwrap().metrics(Table::Task, &partial).unwrap();
                    let is_whole = expected.len() == 160;
                    assert_eq!(page.coverage.gone.is_empty(), is_whole, "{story}");
                    let kept = crashed.dump().into_iter().map(|(path, _)| path);
                    let kept: Vec<PathBuf> =
                        kept.filter(|path| path.starts_with("/store/quarantine")).collect();
                    let is_kept = |path: &PathBuf| crashed.read_file(path).unwrap() == bad;
                    // An active segment with one bad header copy is sealed like any other.
                    let is_sealed = age.is_none() && places == [700] && op % 2 == 0;
                    assert!(is_sealed || kept.iter().any(is_kept), "{story}: {kept:?}");
                    images += 1;
                }
            }
        }
    }
    println!("{images} crash images");
    assert!(images > 200, "{images}");
}

/// Inputs that are still there are better than what is left of their output.
#[test]
fn what_a_damaged_file_replaced_counts_again_while_it_is_there() {
    let fs = SimFileSystem::with_seed(9);
    let options = Options { unlink_grace: std::time::Duration::from_secs(600), ..options(1) };
    let store = open_store(&fs, Path::new(DIR), options.clone()).unwrap();
    record(&store, 0..160);
    store.seal().unwrap();
    store.close().unwrap();
    let image = fs.kill_image();
    let files = image.dump().into_iter().map(|(path, _)| path);
    let path = files.into_iter().find(|path| path.extension().is_some_and(|it| it == "segment"));
    let path = path.unwrap();
    let mut bytes = image.read_file(&path).unwrap();
    bytes[8_192..].fill(0);
    image.write_file(&path, &bytes).unwrap();
    let report = repair(&image, &options, false);
    assert_eq!((report.rows_kept, report.loses_rows()), (160, false), "{report:?}");
    assert_eq!(check_repaired(&image, &options, "inputs").len(), 160);
}

/// On a real disk, where there is a catalog, and links.
#[test]
fn a_real_store_is_made_whole_again() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = Store::open_with(&dir, options(1)).unwrap();
    record(&store, 0..160);
    store.seal().unwrap();
    let source =
        ImportSource { name: "x.csv".to_owned(), hash: 1, crc32: 2, bytes: 3, again: false };
    let mut import = store.begin_import(source).unwrap();
    for number in 200..220 {
        let row = TaskMetric {
            timestamp: Timestamp::from_micros(START + number * 60_000_000).unwrap(),
            task_id: &format!("task-{number:05}"),
            agent_id: "a",
            duration_ms: Some(number),
            tokens_used: None,
            success: true,
            metadata: None,
        };
        import.append_task(&row).unwrap();
    }
    import.commit().unwrap();
    store.maintain(&MaintenanceRequest::default()).unwrap();
    store.close().unwrap();
    let read = || Store::open_read_only(&dir).unwrap();
    assert_eq!(minutes(&read()).len(), 180);
    assert_eq!(Store::repair(&dir, false).unwrap(), RepairReport::default());

    for name in ["store.json", "retention.json", "maintenance.lock", "catalog.sqlite"] {
        let path = dir.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let dry = Store::repair(&dir, true).unwrap();
        assert_eq!(dry.files.len() + dry.notes.len(), 1, "{name}: {dry:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
        let report = Store::repair(&dir, false).unwrap();
        assert!(!report.loses_rows(), "{name}: {report:?}");
        assert_eq!(read().verify(true).unwrap().problems, [], "{name}");
        assert_eq!(Store::repair(&dir, false).unwrap(), RepairReport::default(), "{name}");
        assert_eq!(minutes(&read()).len(), 180, "{name}");
    }
    assert_eq!(read().retention().unwrap(), tallystone::Retention::KEEP);

    // Without the record of its import a file does not count; the catalog knows that it did.
    let record = std::fs::read_dir(dir.join("txn")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&record).unwrap();
    assert_eq!(read().snapshot().unwrap().rows(Table::Task), 160);
    let report = Store::repair(&dir, false).unwrap();
    assert_eq!((report.rows_kept, report.loses_rows()), (20, false), "{report:?}");
    assert_eq!(minutes(&read()).len(), 180);
    std::fs::write(&record, b"tallystone import").unwrap();
    assert_eq!(Store::repair(&dir, false).unwrap().files.len(), 1);
    assert_eq!(read().verify(true).unwrap().problems, []);

    // A file that is gone whole, and one that nothing can be read of.
    let day = dir.join("task_metrics/2026-11-16");
    let files = || -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&day)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "segment"))
            .collect();
        files.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
        files
    };
    let (small, large) = (files()[0].clone(), files()[1].clone());
    std::fs::remove_file(&small).unwrap();
    let report = Store::repair(&dir, false).unwrap();
    assert_eq!((report.files.len(), report.rows_lost), (1, 20), "{report:?}");
    assert!(!report.rows_lost_is_at_least);
    let coverage = |store: &Store| {
        let page = store.snapshot().unwrap().metrics(Table::Task, &Filter::new()).unwrap();
        (page.coverage.gone, page.coverage.damaged)
    };
    let (gone, lost) = coverage(&read());
    assert!(gone.len() == 1 && lost.is_empty(), "{gone:?} {lost:?}");
    assert_eq!(gone[0].from.as_micros(), START + 200 * 60_000_000);
    assert_eq!(minutes(&read()).len(), 160);
    std::fs::write(&large, [0xA5; 20_000]).unwrap();
    let report = Store::repair(&dir, false).unwrap();
    assert_eq!((report.files.len(), report.rows_lost), (1, 160), "{report:?}");
    assert!(!report.rows_lost_is_at_least, "the catalog knew it: {report:?}");
    assert_eq!(read().verify(true).unwrap().problems, []);
    assert_eq!(Store::repair(&dir, false).unwrap(), RepairReport::default());
}

/// A segment without a good header was set aside, and its rows with it, although the catalog
/// remembers what was in the header and every frame vouches for itself.
#[test]
fn a_file_without_a_header_is_read_by_what_the_catalog_remembers() {
    for lost_block in [None, Some(1)] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("store");
        remembered(&dir).close().unwrap();
        let day = std::fs::read_dir(dir.join("task_metrics/2026-11-16")).unwrap();
        let path = day.map(|entry| entry.unwrap().path()).next().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let mut blocks = frames(&bytes).into_iter().filter(|frame| frame.kind == BLOCK);
        let block = lost_block.map(|block| blocks.nth(block).unwrap());
        bytes[20] ^= 1;
        bytes[4_096 + 20] ^= 1;
        if let Some(block) = &block {
            bytes[block.offset + 10] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
        let lost = block.map_or(0, |block| block.rows);
        for dry_run in [true, false] {
            let report = Store::repair(&dir, dry_run).unwrap();
            let context = format!("block {lost_block:?}, {report:?}");
            assert_eq!((report.files.len(), report.rows_lost), (1, lost), "{context}");
            assert_eq!(report.notes, Vec::<String>::new());
            assert_eq!(
                (report.rows_kept, report.leaves_damage()),
                (160 - lost, false),
                "{context}"
            );
        }
        let store = Store::open_read_only(&dir).unwrap();
        assert_eq!(store.verify(true).unwrap().problems, []);
        assert_eq!(minutes(&store).len() as u64, 160 - lost);
        assert_eq!(Store::repair(&dir, false).unwrap(), RepairReport::default());
    }
}

#[test]
fn a_segment_that_a_process_writes_to_is_left_and_said() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = Store::open_with(&dir, options(1)).unwrap();
    for batch in 0..3 {
        record(&store, batch * 40..batch * 40 + 40);
        store.flush().unwrap();
    }
    let day = std::fs::read_dir(dir.join("task_metrics/2026-11-16")).unwrap();
    let path = day.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8_192 + 400] ^= 1;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[8_592..8_593], 8_592).unwrap();
    let report = Store::repair(&dir, false).unwrap();
    assert!(report.leaves_damage() && report.rows_lost == 40, "{report:?}");
    assert!(path.exists());
    drop(store);
    let report = Store::repair(&dir, false).unwrap();
    assert!(!report.leaves_damage() && report.rows_lost == 40, "{report:?}");
    assert_eq!(minutes(&Store::open_read_only(&dir).unwrap()).len(), 80);
}

#[test]
fn headers_that_disagree_change_nothing() {
    let sample = store_with(Some(1));
    let other = SimFileSystem::with_seed(77);
    let store = open_store(&other, Path::new(DIR), options(1)).unwrap();
    record(&store, 0..10);
    store.seal().unwrap();
    store.close().unwrap();
    let image = sample.0.kill_image();
    for (path, _) in other.dump() {
        if path.extension().is_some_and(|kind| kind == "segment") {
            image.write_file(&path, &other.read_file(&path).unwrap()).unwrap();
        }
    }
    image.write_file(&Path::new(DIR).join("store.json"), b"tallystone store").unwrap();
    let before = image.hash();
    let error = Store::repair_simulated(&image, Path::new(DIR), options(1), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(image.hash(), before);
}
