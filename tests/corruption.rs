//! Damage: whatever bytes of whatever file are changed, cut off or added, the store opens,
//! wrong bytes are never returned as rows, what is missing is said to be, and nothing else
//! is missing.
//!
//! Small stores are built on the simulated file system. Each case damages one file of a
//! copy, reads it all and compares with what was recorded; rows are known by their stamps,
//! which are all different.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::{
    AgentMetric, Aggregate, ErrorKind, Filter, ImportSource, Options, ReadMode, Row, Snapshot,
    Store, SwarmMetric, Table, TaskMetric, Timestamp,
};

const DIR: &str = "/store";
const DAY: i64 = 86_400_000_000;
const START: i64 = 1_794_787_200_000_000;
/// Most rows of a block or a batch: what one changed byte may cost.
const BLOCK_ROWS: usize = 32;
const HEADERS: usize = 8_192;
const COPY: usize = 4_096;
const FRAME_HEADER: usize = 96;

fn options() -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        roll_rows: 10_000,
        block_rows: BLOCK_ROWS,
        small_hour_rows: 8,
        unlink_grace: Duration::ZERO,
        clock: Arc::new(Fixed),
        ..Options::default()
    }
}

/// The day after the rows, so that no retention refuses them.
#[derive(Debug)]
struct Fixed;

impl tallystone::time::Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 3 * DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        tallystone::time::SystemClock.elapsed()
    }
}

// ---------------------------------------------------------------------------------------
// Stores

/// A moment of the first day, another for each number.
fn stamp(number: i64) -> Timestamp {
    Timestamp::from_micros(START + (number * 7_919_000_003) % DAY).unwrap()
}

fn record_tasks(store: &Store, first: i64, rows: i64, day: i64) {
    for number in first..first + rows {
        let at = Timestamp::from_micros(stamp(number).as_micros() + day * DAY).unwrap();
        let metadata = (number % 4 == 0).then(|| format!("{{\"n\":{number}}}"));
        let row = TaskMetric {
            timestamp: at,
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

fn record_gauges(store: &Store, first: i64, rows: i64) {
    for number in first..first + rows {
        let value = number as f64 * 0.37;
        let (id, kind) = (format!("id-{}", number % 3), format!("kind-{}", number % 2));
        let (timestamp, metadata) = (stamp(number), (number % 5 == 0).then_some("[1]"));
        let agent = AgentMetric { timestamp, agent_id: &id, metric_type: &kind, value, metadata };
        store.record_agent(&agent).unwrap();
        let swarm = SwarmMetric { timestamp, swarm_id: &id, metric_type: &kind, value, metadata };
        store.record_swarm(&swarm).unwrap();
    }
}

/// Six batches of rows in one active segment, all flushed, the process still there: only
/// the last batch has no durable mark after it.
fn active_only() -> SimFileSystem {
    let fs = SimFileSystem::with_seed(1);
    let store = open_store(&fs, Path::new(DIR), options()).unwrap();
    for batch in 0..6 {
        record_tasks(&store, batch * 20, 20, 0);
        store.flush().unwrap();
    }
    fs.kill_image()
}

/// As [`active_only`], but the process ended as it should.
fn active_ended() -> SimFileSystem {
    let fs = SimFileSystem::with_seed(2);
    let store = open_store(&fs, Path::new(DIR), options()).unwrap();
    for batch in 0..3 {
        record_tasks(&store, batch * 20, 20, 0);
        store.flush().unwrap();
    }
    store.close().unwrap();
    fs.kill_image()
}

/// Two sealed segments of one day.
fn sealed_only() -> SimFileSystem {
    let fs = SimFileSystem::with_seed(3);
    let store = open_store(&fs, Path::new(DIR), options()).unwrap();
    for segment in 0..2 {
        record_tasks(&store, segment * 120, 120, 0);
        store.seal().unwrap();
    }
    store.close().unwrap();
    fs.kill_image()
}

/// All tables; sealed, imported and active segments; two days.
fn mixed() -> SimFileSystem {
    let fs = SimFileSystem::with_seed(4);
    let store = open_store(&fs, Path::new(DIR), options()).unwrap();
    record_tasks(&store, 0, 60, 0);
    record_gauges(&store, 0, 60);
    store.seal().unwrap();
    let source =
        ImportSource { name: "source".to_owned(), hash: 7, crc32: 0, bytes: 1, again: false };
    let mut import = store.begin_import(source).unwrap();
    for number in 100..140 {
        let row = TaskMetric {
            timestamp: stamp(number),
            task_id: &format!("task-{number:05}"),
            agent_id: "agent-1",
            duration_ms: Some(number),
            tokens_used: None,
            success: true,
            metadata: None,
        };
        import.append_task(&row).unwrap();
    }
    import.commit().unwrap();
    record_tasks(&store, 200, 30, 0);
    record_tasks(&store, 300, 30, 1);
    record_gauges(&store, 200, 20);
    store.flush().unwrap();
    record_tasks(&store, 400, 10, 0);
    store.flush().unwrap();
    store.close().unwrap();
    fs.kill_image()
}

// ---------------------------------------------------------------------------------------
// What a store must answer

type Rows = [BTreeMap<i64, Row>; 3];

/// A store before damage: its rows, and which file each is in.
struct Sample {
    fs: SimFileSystem,
    rows: Rows,
    totals: [Aggregate; 3],
    files: Vec<SegmentFile>,
}

struct SegmentFile {
    path: PathBuf,
    bytes: Vec<u8>,
    rows: Rows,
    /// Header to the last byte in use.
    used: usize,
    frames: Vec<Frame>,
}

/// A frame as its header tells (spec 2.3).
struct Frame {
    kind: u8,
    offset: usize,
    end: usize,
    rows: usize,
}

const ROWS: u8 = 1;
const COMMIT: u8 = 2;
const END: u8 = 3;
const BLOCK: u8 = 5;

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut offset = HEADERS;
    while bytes.get(offset..offset + 4) == Some(b"TFRM") {
        let payload = number(bytes, offset + 40).next_multiple_of(8);
        let end = offset + FRAME_HEADER + payload;
        frames.push(Frame {
            kind: bytes[offset + 4],
            offset,
            end,
            rows: number(bytes, offset + 48),
        });
        offset = end;
    }
    frames
}

const FIELDS: [&str; 3] = ["duration_ms", "value", "value"];

fn all(snapshot: &Snapshot) -> (Rows, Vec<tallystone::Damage>) {
    let mut damaged = Vec::new();
    let rows = Table::ALL.map(|table| {
        let page = snapshot.metrics(table, &Filter::new().all()).unwrap();
        damaged.extend(page.coverage.damaged);
        let count = page.rows.len();
        let rows: BTreeMap<_, _> =
            page.rows.into_iter().map(|row| (row.timestamp().as_micros(), row)).collect();
        assert_eq!(rows.len(), count, "a row is there twice");
        rows
    });
    (rows, damaged)
}

fn totals(snapshot: &Snapshot) -> [Aggregate; 3] {
    [0, 1, 2].map(|table| {
        let filter = Filter { allow_partial: true, ..Filter::new() };
        snapshot.aggregate(Table::ALL[table], FIELDS[table], &filter).unwrap().value
    })
}

impl Sample {
    fn new(fs: SimFileSystem) -> Self {
        let read = |fs: &SimFileSystem| {
            let store = open_store_read_only(fs, Path::new(DIR), options()).unwrap();
            let snapshot = store.snapshot().unwrap();
            let (rows, damaged) = all(&snapshot);
            assert!(damaged.is_empty());
            (rows, totals(&snapshot))
        };
        let (rows, totals) = read(&fs);
        let is_segment =
            |path: &Path| matches!(path.extension(), Some(e) if e == "active" || e == "segment");
        let paths: Vec<PathBuf> =
            fs.dump().into_iter().map(|(path, _)| path).filter(|path| is_segment(path)).collect();
        let files = paths.iter().map(|path| {
            let alone = fs.kill_image();
            paths.iter().filter(|other| *other != path).for_each(|p| alone.delete_file(p).unwrap());
            let bytes = fs.read_file(path).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let frames = frames(&bytes);
            SegmentFile { path: path.clone(), rows: read(&alone).0, bytes, used, frames }
        });
        let files: Vec<_> = files.collect();
        let count = |rows: &Rows| rows.iter().map(BTreeMap::len).sum::<usize>();
        assert_eq!(files.iter().map(|file| count(&file.rows)).sum::<usize>(), count(&rows));
        Self { rows, totals, files, fs }
    }

    /// Reads a damaged store and compares: nothing but rows of `file` is missing, at most
    /// `most` of them, and damage says so. Returns how many are missing, and whether
    /// damage says so.
    fn check(&self, store: &Store, file: Option<&SegmentFile>, story: &str) -> (usize, bool) {
        let snapshot = store.snapshot().unwrap_or_else(|e| panic!("{story}: {e}"));
        let (found, damaged) = all(&snapshot);
        let mut missing = 0;
        for (index, expected) in self.rows.iter().enumerate() {
            let found = &found[index];
            for (stamp, row) in found {
                assert_eq!(
                    Some(row),
                    expected.get(stamp),
                    "{story}: a row that was never recorded"
                );
            }
            if found.len() == expected.len() {
                continue;
            }
            for stamp in expected.keys().filter(|stamp| !found.contains_key(stamp)) {
                let file = file.unwrap_or_else(|| panic!("{story}: a row is missing"));
                assert!(file.rows[index].contains_key(stamp), "{story}: a row of another file");
                let told = damaged.iter().any(|damage| {
                    file.path.ends_with(&damage.file)
                        && (damage.from.as_micros()..damage.to.as_micros()).contains(stamp)
                        && damage.rows != Some(0)
                });
                assert!(told || damaged.is_empty(), "{story}: not in what is told: {damaged:?}");
                missing += 1;
            }
        }
        self.check_totals(&snapshot, missing, damaged.is_empty(), story);
        (missing, !damaged.is_empty())
    }

    /// An aggregate is right or refused; asked for what there is, it answers.
    fn check_totals(&self, snapshot: &Snapshot, missing: usize, silent: bool, story: &str) {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            match snapshot.aggregate(table, FIELDS[index], &Filter::new()) {
                Ok(answer) if missing == 0 || !silent => {
                    assert_eq!(answer.value, self.totals[index], "{story}: aggregate");
                }
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{story}: {error}");
                    assert!(!silent, "{story}: {error}, but nothing is damaged");
                }
            }
            let partial = Filter { allow_partial: true, ..Filter::new() };
            let answer = snapshot.aggregate(table, FIELDS[index], &partial);
            assert!(answer.is_ok(), "{story}: {answer:?}");
        }
    }

    /// Every other answer of a damaged store: right, partial or refused, never a panic.
    fn ask_everything(&self, store: &Store, story: &str) {
        use tallystone::{Aggregation, Interval, Order, Percentile, TopBy};
        let snapshot = store.snapshot().unwrap();
        let filter = Filter::new();
        let _ = snapshot.summary_stats(Percentile::Estimate, &filter);
        let _ = snapshot.slowest_tasks(&filter);
        let _ = snapshot.top_agents(TopBy::TaskCount, Order::Descending, &filter);
        let _ = snapshot.task_metrics(&Filter::new().agent("agent-1"));
        let _ = snapshot.task_metrics(&Filter::new().task("task-00007"));
        for (index, table) in Table::ALL.into_iter().enumerate() {
            let field = FIELDS[index];
            let hour = Interval::Hour;
            let _ = snapshot.aggregate_by_time(table, field, hour, Aggregation::Avg, &filter);
            let _ = snapshot.percentile(table, field, 0.5, Percentile::Estimate, &filter);
        }
        store.stats().unwrap_or_else(|e| panic!("{story}: {e}"));
        store.verify(true).unwrap_or_else(|e| panic!("{story}: {e}"));
    }

    /// A copy of the store with other bytes in one file, opened for reading.
    fn with(&self, path: &Path, bytes: &[u8]) -> SimFileSystem {
        let image = self.fs.kill_image();
        image.write_file(path, bytes).unwrap();
        image
    }

    /// Reads the image, and, if `deep`, opens it for writing too and asks everything.
    fn check_image(
        &self,
        image: &SimFileSystem,
        file: Option<&SegmentFile>,
        deep: bool,
        story: &str,
    ) -> (usize, bool) {
        // What a file lacks at its end leaves no trace when it ends with a commit.
        let cut = story.contains(": cut at");
        let dir = Path::new(DIR);
        let mode = if deep { ReadMode::Copied } else { ReadMode::Mapped };
        let read = Options { read_mode: mode, ..options() };
        let store = open_store_read_only(image, dir, read)
            .unwrap_or_else(|e| panic!("{story}: opening: {e}"));
        let (missing, told) = self.check(&store, file, story);
        if deep {
            self.ask_everything(&store, story);
            let store = open_store(image, dir, options())
                .unwrap_or_else(|e| panic!("{story}: opening for writing: {e}"));
            let torn = store.recovery().torn_tail_bytes > 0;
            let (again, told) = self.check(&store, file, story);
            assert_eq!(again, missing, "{story}: opened for writing");
            assert!(missing == 0 || told || torn || cut, "{story}: rows are gone without a word");
            // What is damaged is not merged away: the rows stay as they were.
            store.seal().unwrap_or_else(|e| panic!("{story}: sealing: {e}"));
            let (again, _) = self.check(&store, file, &format!("{story}, sealed"));
            assert_eq!(again, missing, "{story}: sealed");
            store.close().unwrap();
        }
        (missing, told)
    }
}

impl SegmentFile {
    fn is_active(&self) -> bool {
        self.path.extension().unwrap() == "active"
    }

    fn row_count(&self) -> usize {
        self.rows.iter().map(BTreeMap::len).sum()
    }

    /// Positions to damage: every byte that says something, and some of the filling.
    fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        let filling = |at: usize| at < HEADERS && self.bytes[at] == 0 && at % COPY > 400;
        let is_checksum = |at: usize| at % COPY >= COPY - 4;
        (0..self.used + FRAME_HEADER)
            .filter(move |at| *at < self.bytes.len())
            .filter(move |at| !filling(*at) || is_checksum(*at) || at % 61 == 0)
    }

    /// Rows that a file cut at `len` must still have: those of whole blocks, or of whole
    /// commits.
    fn rows_below(&self, len: usize) -> usize {
        let mut rows = 0;
        let mut pending = 0;
        for frame in self.frames.iter().filter(|frame| frame.end <= len) {
            match frame.kind {
                BLOCK => rows += frame.rows,
                ROWS => pending += frame.rows,
                COMMIT => rows += std::mem::take(&mut pending),
                _ => {}
            }
        }
        rows
    }
}

/// Whether silence about missing rows is right when the bytes of `hit` are damaged: the last
/// batch of an active segment is, and nothing later is left to say that it was durable.
fn may_be_silent(file: &SegmentFile, hit: Range<usize>) -> bool {
    let Some(last) = file.frames.iter().rfind(|frame| frame.kind == ROWS) else { return false };
    let end = file.frames.last().filter(|frame| frame.kind == END);
    let ended = end.is_some_and(|frame| hit.end <= frame.offset);
    file.is_active() && !ended && hit.end > last.offset
}

// ---------------------------------------------------------------------------------------
// Damage

fn change_every_byte(sample: &Sample) {
    let mut cases = 0;
    for file in &sample.files {
        for at in file.positions() {
            let flip = if (at / 3) % 2 == 0 { 1 } else { 0x80 };
            let mut bytes = file.bytes.clone();
            bytes[at] ^= flip;
            let story = format!("{}: byte {at} ^ {flip:#x}", file.path.display());
            let image = sample.with(&file.path, &bytes);
            let deep = at % 67 == 0;
            let (missing, told) = sample.check_image(&image, Some(file), deep, &story);
            assert!(missing <= BLOCK_ROWS, "{story}: {missing} rows are missing");
            assert!(missing == 0 || told || may_be_silent(file, at..at + 1), "{story}: silence");
            assert!(missing == 0 || at >= HEADERS, "{story}: the other header is good");
            cases += 1;
        }
    }
    println!("{cases} changed bytes");
    assert!(cases > 1_000);
}

/// Whole sectors: never written, or those of another place.
fn change_sectors(sample: &Sample) {
    for file in &sample.files {
        for at in (0..file.used).step_by(512) {
            let end = (at + 512).min(file.bytes.len());
            for (what, from) in [("zeroed", None), ("another", Some((at + 4_096) % file.used))] {
                let mut bytes = file.bytes.clone();
                for (index, place) in (at..end).enumerate() {
                    let other = from.and_then(|from| file.bytes.get(from + index));
                    bytes[place] = other.copied().unwrap_or(0);
                }
                let story = format!("{}: sector at {at} {what}", file.path.display());
                let image = sample.with(&file.path, &bytes);
                let deep = at % 2_048 == 0;
                let (missing, told) = sample.check_image(&image, Some(file), deep, &story);
                // A frame's end and the next one's start can be hit together.
                let hit = file.frames.iter().filter(|f| f.offset < end && f.end > at);
                let lost: usize = hit.map(|frame| frame.rows).sum();
                let batch = if file.is_active() { BLOCK_ROWS } else { 0 };
                assert!(missing <= lost + batch, "{story}: {missing} rows, {lost} were hit");
                assert!(missing == 0 || told || may_be_silent(file, at..end), "{story}: silence");
            }
        }
    }
}

fn cut_everywhere(sample: &Sample, step: usize) {
    for file in &sample.files {
        let edges = file.frames.iter().flat_map(|f| [f.offset, f.end - 1, f.end, f.end + 1]);
        let stepped = (0..file.used).step_by(step);
        for len in stepped.chain(edges).filter(|len| *len <= file.bytes.len()) {
            let story = format!("{}: cut at {len}", file.path.display());
            let image = sample.with(&file.path, &file.bytes[..len]);
            let (missing, told) = sample.check_image(&image, Some(file), len % 13 == 0, &story);
            let kept = file.row_count() - missing;
            if len < if file.is_active() { HEADERS } else { COPY } {
                assert_eq!(kept, 0, "{story}");
                assert!(told, "{story}: silence");
            } else if file.is_active() {
                assert_eq!(kept, file.rows_below(len), "{story}");
            } else {
                // A block is read column by column, and its dictionaries come first.
                assert!(kept >= file.rows_below(len), "{story}: {kept} rows");
                assert!(missing == 0 || told, "{story}: silence");
            }
        }
    }
}

fn append_everything(sample: &Sample) {
    for file in &sample.files {
        let other = &sample.files[0].bytes;
        let tails: [(&str, Vec<u8>); 6] = [
            ("zeros", vec![0; 5_000]),
            ("ones", vec![0xFF; 513]),
            ("one byte", vec![7]),
            ("its own head", file.bytes[..HEADERS + 700].to_vec()),
            ("all of itself", file.bytes.clone()),
            ("another file's frames", other[HEADERS..].to_vec()),
        ];
        for (what, tail) in tails {
            for place in [file.bytes.len(), file.frames.last().unwrap().end] {
                if !file.is_active() && place < file.bytes.len() {
                    continue;
                }
                let bytes = [&file.bytes[..place], &tail[..]].concat();
                let story = format!("{}: {what} at {place}", file.path.display());
                let image = sample.with(&file.path, &bytes);
                let (missing, _) = sample.check_image(&image, None, true, &story);
                assert_eq!(missing, 0, "{story}");
            }
        }
    }
}

#[test]
fn an_active_segment_with_any_byte_changed() {
    change_every_byte(&Sample::new(active_only()));
}

#[test]
fn an_ended_active_segment_with_any_byte_changed() {
    let sample = Sample::new(active_ended());
    change_every_byte(&sample);
    change_sectors(&sample);
}

#[test]
fn sealed_segments_with_any_byte_changed() {
    change_every_byte(&Sample::new(sealed_only()));
}

#[test]
fn any_sector_changed() {
    for fs in [active_only(), sealed_only(), mixed()] {
        change_sectors(&Sample::new(fs));
    }
}

#[test]
fn files_cut_anywhere() {
    cut_everywhere(&Sample::new(active_only()), 31);
    cut_everywhere(&Sample::new(sealed_only()), 61);
    cut_everywhere(&Sample::new(mixed()), 401);
}

#[test]
fn files_with_more_behind_them() {
    for fs in [active_only(), active_ended(), sealed_only(), mixed()] {
        append_everything(&Sample::new(fs));
    }
}

#[test]
fn files_in_the_place_of_others() {
    let sample = Sample::new(mixed());
    for file in &sample.files {
        for other in sample.files.iter().filter(|other| other.path != file.path) {
            let story = format!("{} is {}", file.path.display(), other.path.display());
            let image = sample.with(&file.path, &other.bytes);
            let (missing, told) = sample.check_image(&image, Some(file), true, &story);
            assert_eq!(missing, file.row_count(), "{story}");
            assert!(told, "{story}: silence");
        }
        // A copy under another name must not count twice.
        let name = file.path.file_name().unwrap().to_str().unwrap();
        let digit = if name.starts_with('0') { "1" } else { "0" };
        let copy = file.path.with_file_name(format!("{digit}{}", &name[1..]));
        let image = sample.with(&copy, &file.bytes);
        let story = format!("a copy of {}", file.path.display());
        let (missing, told) = sample.check_image(&image, None, true, &story);
        assert_eq!(missing, 0, "{story}");
        assert!(told, "{story}: silence");
    }
}

#[test]
fn files_that_hold_nothing() {
    let sample = Sample::new(mixed());
    for file in &sample.files {
        for bytes in [Vec::new(), vec![0; file.bytes.len()], vec![0xA5; 30_000], b"x".to_vec()] {
            let story = format!("{}: {} bytes of nothing", file.path.display(), bytes.len());
            let image = sample.with(&file.path, &bytes);
            let (missing, told) = sample.check_image(&image, Some(file), true, &story);
            assert_eq!(missing, file.row_count(), "{story}");
            assert!(told, "{story}: silence");
        }
    }
}

// ---------------------------------------------------------------------------------------
// The other files

/// Every way in which a small file is damaged.
fn damaged_copies(bytes: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut copies = vec![
        ("missing".to_owned(), None),
        ("zeroed".to_owned(), Some(vec![0; bytes.len()])),
        ("garbage".to_owned(), Some(vec![0xA5; 300])),
        ("huge".to_owned(), Some(vec![b'{'; 20 << 20])),
        ("deep".to_owned(), Some(vec![b'['; 60_000])),
        ("twice".to_owned(), Some([bytes, bytes].concat())),
    ];
    for at in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut copy = bytes.to_vec();
            copy[at] ^= flip;
            copies.push((format!("byte {at} ^ {flip:#x}"), Some(copy)));
        }
        copies.push((format!("cut at {at}"), Some(bytes[..at].to_vec())));
    }
    copies
}

/// Opens the store with each damaged copy of a file; `is_told` looks at what is reported.
fn damage_document(path: &Path, is_told: impl Fn(&Store) -> bool, missing_loses: bool) {
    let sample = Sample::new(mixed());
    let good = sample.fs.read_file(path).unwrap();
    for (what, copy) in damaged_copies(&good) {
        let story = format!("{}: {what}", path.display());
        let image = sample.fs.kill_image();
        match &copy {
            Some(bytes) => image.write_file(path, bytes).unwrap(),
            None if missing_loses => continue,
            None => image.delete_file(path).unwrap(),
        }
        let (missing, told) = sample.check_image(&image, None, false, &story);
        assert_eq!((missing, told), (0, false), "{story}");
        let store = open_store(&image, Path::new(DIR), options())
            .unwrap_or_else(|e| panic!("{story}: {e}"));
        // Spaces and a missing line feed at the end change nothing.
        let harmless = copy.is_some_and(|copy| copy.trim_ascii() == good.trim_ascii());
        assert!(harmless || is_told(&store), "{story}: nothing is reported");
        sample.check(&store, None, &story);
        store.seal().unwrap_or_else(|e| panic!("{story}: {e}"));
        sample.check(&store, None, &format!("{story}, sealed"));
    }
}

fn reports(store: &Store, file: &str) -> bool {
    let report = store.verify(false).unwrap();
    assert!(!report.loses_rows());
    report.problems.iter().any(|problem| problem.file.starts_with(file))
}

#[test]
fn a_damaged_store_file_costs_nothing() {
    let told = |store: &Store| !store.recovery().notes.is_empty() && reports(store, "store.json");
    damage_document(Path::new("/store/store.json"), told, false);
}

#[test]
fn damaged_retention_rules_cost_nothing() {
    let told =
        |store: &Store| !store.recovery().notes.is_empty() && reports(store, "retention.json");
    damage_document(Path::new("/store/retention.json"), told, false);
}

#[test]
fn a_damaged_import_record_costs_nothing() {
    let fs = mixed();
    let path =
        fs.dump().into_iter().map(|(path, _)| path).find(|path| path.starts_with("/store/txn"));
    // Without the record the import is one that was taken back: only damage to it is told.
    damage_document(&path.unwrap(), |store| reports(store, "txn/"), true);
}

#[test]
fn other_small_files_are_only_hints() {
    let sample = Sample::new(mixed());
    for name in ["generation", "reserve", "maintenance.lock"] {
        let path = Path::new(DIR).join(name);
        for bytes in [None, Some(Vec::new()), Some(vec![0; 3]), Some(vec![0xFF; 40_000])] {
            let story = format!("{name}: {:?} bytes", bytes.as_ref().map(Vec::len));
            let image = sample.fs.kill_image();
            match &bytes {
                Some(bytes) => image.write_file(&path, bytes).unwrap(),
                None => drop(image.delete_file(&path)),
            }
            let (missing, told) = sample.check_image(&image, None, true, &story);
            assert_eq!((missing, told), (0, false), "{story}");
        }
    }
}
