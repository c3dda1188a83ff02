//! What `verify` says of damage: the file, the block or frame, the column, the rows, and the
//! range of time, for damage to any part of any kind of file.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "files are damaged as another program would")]

mod repair;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{
    MaintenanceRequest, Options, Retention, Store, TableRetention, TaskMetric, Tiers, Timestamp,
    VerifyProblem,
};

const DIR: &str = "/store";
const START: i64 = 1_794_787_200_000_000;
const HEADERS: usize = 8_192;
const FRAME_HEADER: usize = 96;
const BLOCK_ROWS: u64 = 40;
const COLUMNS: [&str; 7] =
    ["timestamp", "task_id", "agent_id", "duration_ms", "tokens_used", "success", "metadata"];

const ROWS: u8 = 1;
const DICTIONARY: u8 = 4;
const BLOCK: u8 = 5;
const INDEX: u8 = 6;
const FOOTER: u8 = 7;

#[derive(Debug)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

fn options(day: i64) -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        block_rows: usize::try_from(BLOCK_ROWS).unwrap(),
        small_hour_rows: 8,
        unlink_grace: Duration::ZERO,
        maintenance: None,
        clock: Arc::new(Hand(AtomicI64::new(START + day * MICROS_PER_DAY))),
        ..Options::default()
    }
}

fn record(store: &Store, rows: std::ops::Range<i64>) {
    for number in rows {
        let metadata = (number % 3 == 0).then(|| format!("{{\"n\":{number}}}"));
        let row = TaskMetric {
            timestamp: Timestamp::from_micros(START + number * 60_000_000).unwrap(),
            task_id: &format!("task-{number:05}"),
            agent_id: &format!("agent-{}", number % 5),
            duration_ms: (number % 7 != 0).then_some(number * 31 % 10_007),
            tokens_used: (number % 11 != 0).then_some(number * 17 % 5_003),
            success: number % 13 != 0,
            metadata: metadata.as_deref(),
        };
        store.record_task(&row).unwrap();
    }
}

/// One file of the kind that a day of that age has; `active` for none.
fn store_with(age: Option<i64>) -> (SimFileSystem, Options) {
    let fs = SimFileSystem::with_seed(7);
    let options = options(age.unwrap_or(1));
    let store = open_store(&fs, Path::new(DIR), options.clone()).unwrap();
    let rule = TableRetention::Tiers(Tiers {
        detailed_days: 2,
        archive_days: 4,
        hourly_days: 6,
        daily_days: 8,
    });
    let retention = Retention { task: rule, agent: rule, swarm: rule, max_bytes: None };
    store.keep_everything().unwrap();
    for batch in 0..4 {
        record(&store, batch * 40..batch * 40 + 40);
        store.flush().unwrap();
    }
    if age.is_some() {
        store.seal().unwrap();
        store.set_retention(&retention).unwrap();
        let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
        // The second pass removes what the first has replaced.
        store.maintain(&request).unwrap();
        store.maintain(&request).unwrap();
    }
    store.close().unwrap();
    (fs.kill_image(), options)
}

fn file_of(fs: &SimFileSystem) -> PathBuf {
    let mut files: Vec<PathBuf> = fs.dump().into_iter().map(|(path, _)| path).collect();
    files.retain(|path| path.starts_with("/store/task_metrics") && path.extension().is_some());
    assert_eq!(files.len(), 1, "{files:?}");
    files.pop().unwrap()
}

struct Frame {
    kind: u8,
    sub: u8,
    offset: usize,
    end: usize,
    rows: u64,
    /// Where each chunk lies in the file.
    chunks: Vec<std::ops::Range<usize>>,
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let (mut frames, mut offset) = (Vec::new(), HEADERS);
    while bytes.get(offset..offset + 4) == Some(b"TFRM") {
        let end = offset + FRAME_HEADER + number(bytes, offset + 40).next_multiple_of(8);
        let payload = offset + FRAME_HEADER;
        let directory = number(bytes, offset + 44);
        let columns = directory.saturating_sub(8) / 40;
        let chunk = |column: usize| {
            let entry = payload + 8 + column * 40;
            let start = payload + number(bytes, entry);
            start..start + number(bytes, entry + 4)
        };
        frames.push(Frame {
            kind: bytes[offset + 4],
            sub: bytes[offset + 5],
            offset,
            end,
            rows: number(bytes, offset + 48) as u64,
            chunks: (0..columns).map(chunk).collect(),
        });
        offset = end;
    }
    frames
}

/// What verifying says of the store with the byte at `at` of `path` changed.
fn problems(
    (fs, options): &(SimFileSystem, Options),
    path: &Path,
    at: usize,
    deep: bool,
) -> Vec<VerifyProblem> {
    let image = fs.kill_image();
    let mut bytes = image.read_file(path).unwrap();
    bytes[at] ^= 0x20;
    image.write_file(path, &bytes).unwrap();
    let store = open_store_read_only(&image, Path::new(DIR), options.clone()).unwrap();
    let report = store.verify(deep).unwrap();
    let relative = path.strip_prefix(DIR).unwrap().to_str().unwrap();
    assert!(report.problems.iter().all(|problem| problem.file == relative), "{report:?}");
    report.problems
}

fn stamp(number: u64) -> Option<Timestamp> {
    let number = i64::try_from(number).unwrap();
    Some(Timestamp::from_micros(START + number * 60_000_000).unwrap())
}

/// In every block, every column is named, with its rows and their range.
fn check_blocks(age: i64) {
    let sample = store_with(Some(age));
    let path = file_of(&sample.0);
    let bytes = sample.0.read_file(&path).unwrap();
    let frames = frames(&bytes);
    let blocks: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == BLOCK).collect();
    assert!(blocks.len() >= 4, "{}", blocks.len());
    let mut first = 0;
    for (block, frame) in (0..).zip(&blocks) {
        let last = first + frame.rows - 1;
        for (column, chunk) in frame.chunks.iter().enumerate() {
            for deep in [false, true] {
                let found = problems(&sample, &path, chunk.end - 1, deep);
                let [problem] = found.as_slice() else { panic!("{found:?}") };
                assert_eq!((problem.block, problem.frame), (Some(block), None));
                assert_eq!(problem.column, Some(COLUMNS[column]));
                assert_eq!((problem.rows, problem.loses_rows), (Some(frame.rows), true));
                assert_eq!((problem.from, problem.to), (stamp(first), stamp(last)));
                assert!(problem.message.contains("at byte "), "{}", problem.message);
            }
        }
        // Header and directory: the block, and no column.
        for at in [frame.offset + 20, frame.offset + FRAME_HEADER + 3] {
            let found = problems(&sample, &path, at, true);
            let [problem] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((problem.block, problem.column), (Some(block), None));
            assert_eq!((problem.rows, problem.from), (Some(frame.rows), stamp(first)));
        }
        first = last + 1;
    }
    assert_eq!(first, 160);
}

#[test]
fn blocks_and_columns_of_segments_and_archives_are_named() {
    check_blocks(1);
    check_blocks(4);
}

/// Whatever byte is changed is named, and what is derived or stored twice loses nothing.
#[test]
fn every_part_of_every_kind_of_file_is_looked_at() {
    for (age, kind) in
        [(1, "segment"), (4, "archive"), (6, "hourly"), (8, "daily"), (20, "tombstone")]
    {
        let sample = store_with(Some(age));
        let path = file_of(&sample.0);
        assert_eq!(path.extension().unwrap(), kind);
        let bytes = sample.0.read_file(&path).unwrap();
        let frames = frames(&bytes);
        let is_rollup = matches!(kind, "hourly" | "daily");
        for copy in [0, 4_096] {
            for at in [0, 9, 40, 300, 4_095] {
                let found = problems(&sample, &path, copy + at, true);
                let [problem] = found.as_slice() else { panic!("{kind}, {at}: {found:?}") };
                assert!(problem.message.contains("header copy"), "{}", problem.message);
                assert!(!problem.loses_rows);
            }
        }
        for frame in &frames {
            let places = [frame.offset + 30, frame.offset + FRAME_HEADER + 1];
            for at in places.into_iter().chain(frame.chunks.iter().map(|chunk| chunk.start)) {
                let found = problems(&sample, &path, at, true);
                assert!(!found.is_empty(), "{kind}: byte {at} of a frame of {}", frame.kind);
                let loses_rows = found.iter().any(|problem| problem.loses_rows);
                let expected = match frame.kind {
                    BLOCK => true,
                    INDEX => is_rollup,
                    // Nobody knows what a rollup without its footer stands for.
                    FOOTER => is_rollup,
                    _ => false,
                };
                assert_eq!(loses_rows, expected, "{kind}, byte {at}: {found:?}");
                match frame.kind {
                    DICTIONARY => {
                        let column = COLUMNS[usize::from(frame.sub)];
                        assert!(found.iter().any(|it| it.column == Some(column)), "{found:?}");
                    }
                    INDEX => assert!(found[0].message.contains("section "), "{found:?}"),
                    _ => {}
                }
                if is_rollup && frame.kind == INDEX {
                    assert_eq!((found[0].rows, found[0].from), (Some(160), stamp(0)));
                    assert_eq!(found[0].to, stamp(159));
                }
            }
        }
        for at in [bytes.len() - 64, bytes.len() - 1] {
            let found = problems(&sample, &path, at, true);
            let [problem] = found.as_slice() else { panic!("{kind}: {found:?}") };
            assert!(problem.message.contains("trailer"), "{}", problem.message);
            assert!(!problem.loses_rows, "{kind}");
        }
    }
}

#[test]
fn frames_and_columns_of_active_segments_are_named() {
    let sample = store_with(None);
    let path = file_of(&sample.0);
    let bytes = sample.0.read_file(&path).unwrap();
    let batches = frames(&bytes);
    let rows: Vec<_> = batches.iter().enumerate().filter(|(_, it)| it.kind == ROWS).collect();
    assert_eq!(rows.len(), 4);
    for (batch, (seq, frame)) in (0..).zip(rows) {
        for (column, chunk) in frame.chunks.iter().enumerate() {
            let found = problems(&sample, &path, chunk.start, true);
            let [problem] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((problem.block, problem.frame), (None, Some(seq as u64)));
            assert_eq!((problem.column, problem.rows), (Some(COLUMNS[column]), Some(40)));
            let range = (stamp(batch * 40), stamp(batch * 40 + 39));
            assert_eq!((problem.from, problem.to, problem.loses_rows), (range.0, range.1, true));
        }
        // Of a frame whose header is bad, the COMMIT after it says how many rows it had.
        let found = problems(&sample, &path, frame.offset + 8, true);
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((problem.frame, problem.rows), (Some(seq as u64), Some(40)));
    }
    let found = problems(&sample, &path, 700, true);
    assert!(found.len() == 1 && found[0].message.contains("header copy 0"), "{found:?}");
}

/// A store on disk, with one sealed segment of 160 rows that its catalog knows.
fn remembered(dir: &Path) -> Store {
    let store = Store::open_with(dir, options(1)).unwrap();
    record(&store, 0..160);
    store.seal().unwrap();
    store.maintain(&MaintenanceRequest::default()).unwrap();
    store
}

/// `verify` knew of a file that was gone only once a pass of maintenance had missed it; until then
/// it found no problem, and repair called the rows lost.
#[test]
fn a_file_that_is_gone_is_told_before_maintenance_misses_it() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = remembered(&dir);
    // Of these the catalog does not know yet.
    record(&store, 160..170);
    store.close().unwrap();
    let verify = || Store::open_read_only(&dir).unwrap().verify(true).unwrap().problems;
    assert_eq!(verify(), []);
    let day = dir.join("task_metrics/2026-11-16");
    let mut files = std::fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().path());
    let sealed = files.find(|path| path.extension().is_some_and(|it| it != "active")).unwrap();
    std::fs::rename(&sealed, dir.join("aside")).unwrap();
    let found = verify();
    assert!(found.len() == 1 && found[0].loses_rows && found[0].rows == Some(160), "{found:?}");
    std::fs::rename(dir.join("aside"), &sealed).unwrap();
    assert_eq!(verify(), []);
}

/// The catalog remembers headers and footers, so that opening need not read them. Verifying
/// went by what it remembers, too, and said nothing of damage to them.
#[test]
fn what_the_catalog_remembers_hides_no_damage() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = remembered(&dir);
    store.close().unwrap();
    let day = dir.join("task_metrics/2026-11-16");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (path, good) = (files.pop().unwrap(), dir.join("good"));
    assert!(files.is_empty());
    std::fs::copy(&path, &good).unwrap();
    let bytes = std::fs::read(&good).unwrap();
    let footer = frames(&bytes).last().unwrap().offset;
    let verify = || {
        let store = Store::open_read_only(&dir).unwrap();
        assert_eq!(store.snapshot().unwrap().rows(tallystone::Table::Task), 160);
        store.verify(true).unwrap().problems
    };
    assert_eq!(verify(), []);
    for at in [20, 4_100, footer + 100, bytes.len() - 5] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let found = verify();
        assert!(found.len() == 1 && !found[0].loses_rows, "byte {at}: {found:?}");
        assert!(found[0].file.starts_with("task_metrics/"));
    }
    std::fs::write(&path, &bytes).unwrap();
    for (name, at) in [
        ("catalog.sqlite", 100),
        ("store.json", 20),
        ("retention.json", 20),
        ("maintenance.lock", 3),
    ] {
        let good = std::fs::read(dir.join(name)).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        std::fs::write(dir.join(name), &bad).unwrap();
        let found = verify();
        assert!(found.len() == 1 && found[0].file == name, "{name}: {found:?}");
        assert!(!found[0].loses_rows && found[0].rows == Some(0));
        std::fs::write(dir.join(name), &good).unwrap();
    }
    // A file gone whole, once maintenance has seen that it is.
    std::fs::remove_file(&path).unwrap();
    Store::open_with(&dir, options(1)).unwrap().close().unwrap();
    let found = Store::open_read_only(&dir).unwrap().verify(true).unwrap().problems;
    let [gone] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((gone.rows, gone.from, gone.to), (Some(160), stamp(0), stamp(159)));
    assert!(gone.loses_rows && gone.message.contains("gone"), "{gone:?}");
}
