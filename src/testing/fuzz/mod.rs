//! What fuzz targets call: the readers, run on any bytes.
//!
//! Each function takes the bytes of one input, feeds them to a reader through the
//! simulated file system, and throws the answer away; what may not happen is a panic, an
//! endless loop, memory without bound, or a store that does not open. Checksums keep random
//! bytes out, so half of the inputs have theirs repaired first.
//!
//! A fuzzer finds by trying often, and a whole store asked everything takes as long as sixty
//! questions. So the first byte of a segment says which one it is asked, of a directory with
//! nothing else in it. Sealing what was read, and the store with threads and neighbours, take
//! ten times as long and more; a fuzzer keeps what reaches new code and tries the like of it
//! again, so their share would grow if the mode alone decided. A checksum of the input lets one
//! in 16 of them through.

pub mod memory;
mod patched;
mod texts;

pub use patched::patched;
pub use texts::texts;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::column::{Column, Strings};
use crate::config::{Options, ReadMode};
use crate::encoding::views::Layout;
use crate::encoding::{self, Chunk, Effort, TextScope};
use crate::format::checksum::{self, Seed};
use crate::format::id::{FileKind, Id};
use crate::format::layout::{
    ALIGNMENT, CHUNK_ENTRY_BYTES, COLUMNS_MAX, DIRECTORY_FIXED_BYTES, FRAME_HEADER_BYTES,
    FRAME_MAGIC, FRAMES_OFFSET, Field, HEADER_CHECKSUM_OFFSET, HEADER_COPIES, HEADER_COPY_BYTES,
    HEADER_MAGIC, TRAILER_BYTES, TRAILER_MAGIC, chunk_entry, directory, frame_header, trailer,
};
use crate::format::order::float_key;
use crate::fs::FileSystem;
use crate::fs::sim::SimFileSystem;
use crate::import::{Format, ReadOptions, read_rows};
use crate::maintain::merge::{self, Reach};
use crate::maintain::{self, compact, verify};
use crate::query::filter::{Aggregation, Filter, Order, Percentile, TopBy};
use crate::row::{AgentMetric, TaskMetric};
use crate::schema::{ColumnType, Table};
use crate::segment::Tier;
use crate::segment::files::{StoreRoot, seal_rows};
use crate::segment::tombstone::{StandsFor, write_tombstone};
use crate::selection::{Selection, index};
use crate::snapshot::Snapshot;
use crate::snapshot::lister::{Content, Lister};
use crate::store::Store;
use crate::store_files::identity::{self, StoreFile};
use crate::store_files::maintenance::try_maintenance_lock;
use crate::store_files::retention::RetentionRules;
use crate::store_files::txn::TxnRecord;
use crate::store_files::{alerts, document};
use crate::testing::{open_store, open_store_read_only, trust};
use crate::time::{Clock, Interval, MICROS_PER_HOUR, Partition, SystemClock, Timestamp};

const DIR: &str = "/store";
const START: i64 = 1_794_787_200_000_000;
/// The measure that is asked for.
const FIELD: &str = "duration_ms";
/// Bytes of an input that are one file at most.
const FILE_BYTES_MAX: usize = 1 << 18;

/// Repair the checksums.
const MODE_FIX: u8 = 1;
/// The input is what lies after a good header; else it is changes to a good file.
const MODE_FRAMES: u8 = 2;
/// The input is the whole file.
const MODE_WHOLE: u8 = 4;
/// Seal what was read, too.
const MODE_WRITE: u8 = 8;
/// Read the file into memory instead of mapping it.
const MODE_COPIED: u8 = 16;
/// The three bits above are the number of the questions.
const QUESTIONS_SHIFT: u32 = 5;
/// All four upper bits: everything, in a whole store.
const MODE_STORE: u8 = 0xF0;
/// One input in so many may take the slow ways.
const SLOW_EVERY: u32 = 16;

/// Reads an active segment made of the input.
///
/// # Panics
///
/// When the store does not open or cannot be listed, which is what is looked for.
pub fn active(input: &[u8]) {
    segment(input, &sample().active);
}

/// Reads a sealed segment made of the input.
///
/// # Panics
///
/// As [`active`].
pub fn sealed(input: &[u8]) {
    segment(input, &sample().sealed);
}

/// Reads an archive or an hourly rollup made of the input, as its first byte says.
///
/// # Panics
///
/// As [`active`].
pub fn cold(input: &[u8]) {
    let Some((kind, input)) = input.split_first() else { return };
    // The other two cannot be sealed; they are among the files that are patched.
    segment(input, &sample().cold[usize::from(*kind) % 2]);
}

/// Does operations to a store as the input lists them, with faults and crashes among them.
///
/// # Panics
///
/// When a promise does not hold.
pub fn operations(input: &[u8]) {
    if let Err(found) = trust::operations::check(input) {
        panic!("{found}");
    }
}

/// Decodes a column chunk; what can be decoded must come through another encoding.
///
/// # Panics
///
/// When it does not.
pub fn chunk(input: &[u8]) {
    const KINDS: [ColumnType; 7] = [
        ColumnType::Timestamp,
        ColumnType::Int,
        ColumnType::Float,
        ColumnType::Bool,
        ColumnType::Dimension,
        ColumnType::Text,
        ColumnType::Json,
    ];
    let Some((kind, bytes)) = input.split_first() else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let Ok(parsed) = Chunk::parse(bytes, kind) else { return };
    let _ = parsed.might_contain("agent");
    let dictionary: Arc<Strings> = Arc::new(["", "a", "agent", "b", "c"].into_iter().collect());
    let _ = parsed.decode(Some(&dictionary));
    if let Ok(layout) = Layout::of(&parsed, bytes, Some(&dictionary))
        && let Ok(viewed) = layout.view(bytes).to_column()
    {
        assert_same(&viewed, &parsed.decode(Some(&dictionary)).expect("views read no less"));
    }
    let whole = parsed.decode(Some(&dictionary)).ok();
    read_parts(&parsed, &dictionary, whole.as_ref());
    let Ok(column) = parsed.decode(None) else { return };
    for effort in [Effort::Append, Effort::Seal, Effort::Archive { level: 1 }] {
        let mut out = Vec::new();
        if encoding::encode(&column, TextScope::Local, effort, &mut out).is_ok() {
            let again = Chunk::parse(&out, kind).and_then(|chunk| chunk.decode(None));
            assert_same(&column, &again.expect("what was encoded can be decoded"));
        }
    }
}

/// Reads some rows, finds texts and splits numbers; where the whole can be decoded, that
/// must agree with it.
fn read_parts(chunk: &Chunk<'_>, dictionary: &Arc<Strings>, whole: Option<&Column>) {
    let rows = chunk.rows();
    let range = rows / 3..rows - rows / 5;
    let some = (0..).take(rows).step_by(rows / 50 + 1).collect();
    for rows in [Selection::Range(range.clone()), Selection::of_rows(some)] {
        for text in ["a", "agent", "task_0000017", ""] {
            let _ = chunk.find_text(text, Some(1), &rows);
        }
        let part = chunk.decode_some(&rows, Some(dictionary));
        if let Some(whole) = whole {
            let list: Vec<u32> = rows.iter().map(index).collect();
            assert_same(&whole.gather(&list), &part.expect("some rows of a whole that is good"));
        }
    }
    let Ok(numbers) = chunk.numbers(range.clone()) else { return };
    for (low, high) in [(i64::MIN, -1), (-3, 1_000), (1 << 40, i64::MAX)] {
        let mut inside = Vec::new();
        let below = numbers.split(low, high, &mut inside);
        if let (Some(whole), Some(below)) = (whole, below) {
            let key = |row| whole.int(row).or_else(|| whole.float(row).map(float_key));
            let keys = || range.clone().filter_map(key);
            assert_eq!(below, keys().filter(|key| *key < low).count());
            assert_eq!(inside.len(), keys().filter(|key| (low..=high).contains(key)).count());
        }
    }
}

fn assert_same(a: &Column, b: &Column) {
    assert_eq!((a.len(), a.null_count()), (b.len(), b.null_count()));
    // A column of many rows takes few bytes when all are alike: some rows are enough.
    for row in (0..a.len()).step_by(a.len() / 1_000 + 1) {
        assert_eq!((a.int(row), a.bool(row), a.text(row)), (b.int(row), b.bool(row), b.text(row)));
        assert_eq!(a.float(row).map(f64::to_bits), b.float(row).map(f64::to_bits));
    }
}

/// Imports a JSON document, whole and in pieces: both have to come to the same.
///
/// # Panics
///
/// When they do not.
pub fn import_document(input: &[u8]) {
    import(Format::Json, input, None);
}

/// Imports an exposition, the same way; the first byte says of which format, and for which
/// table.
///
/// # Panics
///
/// As [`import_document`].
pub fn import_exposition(input: &[u8]) {
    let Some((mode, text)) = input.split_first() else { return };
    let format = if mode & 1 == 0 { Format::Prometheus } else { Format::OpenMetrics };
    let table = if mode & 2 == 0 { Table::Agent } else { Table::Swarm };
    import(format, text, Some(table));
}

fn import(format: Format, text: &[u8], table: Option<Table>) {
    let mut options = ReadOptions::new("fuzz", table);
    options.now = Some(Timestamp::clamped(START));
    let read = |input: &mut dyn io::Read| {
        let (rows, bad) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let outcome = read_rows(
            format,
            input,
            &options,
            |row| {
                rows.borrow_mut().push(format!("{row:?}"));
                Ok(())
            },
            |line| {
                bad.borrow_mut().push(line.clone());
                Ok(())
            },
        );
        (outcome.map_err(|error| error.to_string()), rows.into_inner(), bad.into_inner())
    };
    let whole = read(&mut &text[..]);
    let pieces = read(&mut Pieces { text, next: 1 });
    // How far a gzip stream is read before it is found to be damaged depends on the pieces.
    if text.starts_with(&[0x1F, 0x8B]) && whole.0.is_err() {
        assert!(pieces.0.is_err(), "whether it can be read depends on the pieces");
    } else {
        assert_eq!(whole, pieces, "what was read depends on the pieces");
    }
    if let (Ok(count), rows, bad) = whole {
        assert_eq!((count.rows, count.bad), (rows.len() as u64, bad.len() as u64));
    }
}

/// A text that comes a few bytes at a time.
struct Pieces<'a> {
    text: &'a [u8],
    next: usize,
}

impl io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next = self.next % 7 + 1;
        let count = self.next.min(buffer.len()).min(self.text.len());
        let (piece, rest) = self.text.split_at(count);
        buffer[..count].copy_from_slice(piece);
        self.text = rest;
        Ok(count)
    }
}

/// Reads a document of the store, as it is and with the checksum that it should have; what can
/// be read must come through writing.
///
/// # Panics
///
/// When it does not.
pub fn documents(input: &[u8]) {
    read_documents(input);
    if let Ok(serde_json::Value::Object(mut members)) = serde_json::from_slice(input) {
        members.remove("checksum");
        if let Ok(sealed) = document::seal(&members)
            && sealed.trim_ascii_end() != input.trim_ascii_end()
        {
            read_documents(&sealed);
        }
    }
}

fn read_documents(input: &[u8]) {
    if let Ok(store) = StoreFile::decode(input) {
        assert_eq!(StoreFile::decode(&store.encode().expect("encode")).expect("decode"), store);
    }
    if let Ok(rules) = RetentionRules::decode(input) {
        let again = RetentionRules::decode(&rules.encode().expect("encode"));
        assert_eq!(again.expect("decode"), rules);
    }
    if let Ok(record) = TxnRecord::decode(input) {
        assert_eq!(TxnRecord::decode(&record.encode().expect("encode")).expect("decode"), record);
    }
    if let Ok(states) = alerts::decode(input) {
        let again = alerts::encode(&states).expect("encode");
        assert_eq!(alerts::decode(&again).expect("decode"), states);
    }
    let sample = sample();
    let image = sample.fs.kill_image();
    for name in ["retention.json", "generation", "maintenance.lock", "alerts.json"] {
        image.write_file(&Path::new(DIR).join(name), input).expect("write");
    }
    image.write_file(&sample.import, input).expect("write");
    let store = read(&image, ReadMode::Mapped);
    assert!(store.snapshot().expect("snapshot").rows(Table::Task) > 0);
    let _ = (store.imports(), store.verify(false));
}

/// A store with one segment of each kind, and what is damaged in it.
struct Sample {
    fs: SimFileSystem,
    id: Id,
    active: Good,
    sealed: Good,
    /// An archive, an hourly rollup, a daily one, a tombstone.
    cold: [Good; 4],
    /// Samples of agents, active and sealed.
    gauges: [Good; 2],
    import: PathBuf,
}

impl Sample {
    /// A file of each kind.
    fn all(&self) -> [&Good; 8] {
        let [archive, hourly, daily, tombstone] = &self.cold;
        let [gauges, sealed_gauges] = &self.gauges;
        [&self.active, &self.sealed, archive, hourly, daily, tombstone, gauges, sealed_gauges]
    }
}

/// A good segment file.
struct Good {
    path: PathBuf,
    table: Table,
    bytes: Vec<u8>,
    /// The store with this segment and no other.
    alone: SimFileSystem,
}

impl Good {
    fn new(fs: &SimFileSystem, table: Table, path: PathBuf) -> Self {
        let bytes = fs.read_file(&path).expect("read");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bytes = bytes[..used.next_multiple_of(ALIGNMENT)].to_vec();
        let alone = SimFileSystem::with_seed(2);
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for dir in above.iter().rev().skip(1) {
            alone.create_dir(dir).expect("create");
        }
        for name in ["store.json", "retention.json", "generation", "maintenance.lock"] {
            let document = Path::new(DIR).join(name);
            let content = fs.read_file(&document).expect("read");
            alone.write_file(&document, &content).expect("write");
        }
        // Every input begins with a copy of it.
        alone.checkpoint();
        Self { path, table, bytes, alone }
    }
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let fs = SimFileSystem::with_seed(1);
        let store = open_store(&fs, Path::new(DIR), options(ReadMode::Mapped)).expect("open");
        record(&store, 0);
        store.seal().expect("seal");
        for round in 1..4 {
            record(&store, round);
            store.flush().expect("flush");
        }
        store.close().expect("close");
        let find = |table: Table, part: &str| {
            let paths = fs.dump().into_iter().map(|(path, _)| path);
            let is_it = |path: &PathBuf| {
                let text = path.to_string_lossy();
                text.contains(table.name()) && text.ends_with(part)
            };
            Good::new(&fs, table, paths.into_iter().find(is_it).expect("a segment"))
        };
        let id = identity::read_store_file(&fs, Path::new(DIR)).expect("read").store_id;
        let import = Path::new(DIR).join("txn").join(Id::from_bytes([7; 16]).to_string());
        let kinds = ["active", "segment"];
        let [active, sealed] = kinds.map(|kind| find(Table::Task, kind));
        let gauges = kinds.map(|kind| find(Table::Agent, kind));
        let cold = cold_files(&fs, id);
        let sample = Sample { id, active, sealed, cold, gauges, import, fs };
        // The directory of imports is there as soon as one was begun.
        let source = crate::ingest::transaction::ImportSource {
            name: String::new(),
            hash: 0,
            crc32: 0,
            bytes: 0,
            again: false,
        };
        let store = open_store(&sample.fs, Path::new(DIR), options(ReadMode::Mapped));
        drop(store.and_then(|store| store.begin_import(source)));
        sample.fs.checkpoint();
        sample
    })
}

/// What an image of the store has as its day grows cold: an archive, an hourly rollup, a daily
/// one, a tombstone.
fn cold_files(fs: &SimFileSystem, id: Id) -> [Good; 4] {
    let image = fs.kill_image();
    let root = StoreRoot {
        fs: Arc::new(image.clone()),
        dir: PathBuf::from(DIR),
        id,
        writer: Id::from_bytes([9; 16]),
        options: Arc::new(options(ReadMode::Mapped)),
    };
    let lister = Lister::new(root.clone());
    let place = (Table::Task, Partition::of_micros(START));
    let good = |kind: FileKind| {
        let files = lister.files().expect("list");
        let found = files.iter().find(|facts| facts.name.kind == kind && facts.table == place.0);
        Good::new(&image, place.0, found.expect("a file of the kind").path.clone())
    };
    compact::compact(&root, &lister, place, false).expect("compact");
    let archive = good(FileKind::Archive);
    compact::roll_up_to(&root, &lister, place, Tier::Hourly, false).expect("roll up");
    let hourly = good(FileKind::Hourly);
    compact::roll_up_to(&root, &lister, place, Tier::Daily, false).expect("roll up");
    let daily = good(FileKind::Daily);
    let stamps = Some((START, START + MICROS_PER_HOUR));
    let gone = StandsFor { replaces: Vec::new(), rows: 30, stamps };
    write_tombstone(&root, place.0, place.1, &gone).expect("a tombstone");
    [archive, hourly, daily, good(FileKind::Tombstone)]
}

fn record(store: &Store, round: i64) {
    for number in round * 30..round * 30 + 30 {
        let timestamp = Timestamp::clamped(START + number * 1_000_000_007 % 86_400_000_000);
        let task = TaskMetric {
            timestamp,
            task_id: &format!("task-{number}"),
            agent_id: &format!("agent-{}", number % 4),
            duration_ms: (number % 5 != 0).then_some(number * 13),
            tokens_used: Some(number * number),
            success: number % 7 != 0,
            metadata: (number % 3 == 0).then_some("{\"a\":[1,2]}"),
        };
        store.record_task(&task).expect("record");
        let agent = AgentMetric {
            timestamp,
            agent_id: "agent",
            metric_type: "load",
            value: number as f64 / 8.0,
            metadata: None,
        };
        store.record_agent(&agent).expect("record");
    }
}

fn options(read_mode: ReadMode) -> Options {
    Options {
        buffer_rows: 1_000,
        flush_interval: Duration::from_secs(3_600),
        block_rows: 16,
        small_hour_rows: 4,
        unlink_grace: Duration::ZERO,
        result_cache: 0,
        read_mode,
        clock: Arc::new(Fixed),
        ..Options::default()
    }
}

/// The day after the rows: what an input does must not depend on when it runs.
#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::clamped(START + 2 * 86_400_000_000)
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

fn segment(input: &[u8], good: &Good) {
    let Some((mode, input)) = input.split_first() else { return };
    let mut bytes = if mode & MODE_WHOLE != 0 {
        input.to_vec()
    } else if mode & MODE_FRAMES != 0 {
        [&good.bytes[..FRAMES_OFFSET], input].concat()
    } else {
        changed(&good.bytes, input)
    };
    if mode & MODE_FIX != 0 {
        fix_checksums(&mut bytes);
    }
    let may_be_slow = checksum::crc32(input).is_multiple_of(SLOW_EVERY);
    let write = mode & MODE_WRITE != 0 && may_be_slow;
    if mode & MODE_STORE == MODE_STORE && may_be_slow {
        let image = sample().fs.kill_image();
        image.write_file(&good.path, &bytes).expect("write");
        // The mode has no bit left for how to read.
        let modes = [ReadMode::Mapped, ReadMode::Copied];
        whole_store(&image, modes[input.len() % 2], write);
    } else {
        let image = good.alone.kill_image();
        image.write_file(&good.path, &bytes).expect("write");
        alone(&image, *mode, write);
    }
}

fn whole_store(image: &SimFileSystem, read_mode: ReadMode, write: bool) {
    ask_everything(&read(image, read_mode));
    if write {
        let store = open_store(image, Path::new(DIR), options(read_mode));
        let store = store.expect("a store opens for writing, whatever is in its segments");
        let _ = store.seal();
        ask_everything(&store);
    }
}

fn read(fs: &SimFileSystem, mode: ReadMode) -> Store {
    let store = open_store_read_only(fs, Path::new(DIR), options(mode));
    store.expect("a store opens for reading, whatever is in its segments")
}

fn ask_everything(store: &Store) {
    let snapshot = store.snapshot().expect("a snapshot can be taken");
    QUESTIONS.iter().for_each(|question| question(&snapshot));
    let _ = (store.verify(true), store.stats());
}

/// Asks one kind of question of a directory with one segment: what the store's methods do,
/// without its threads.
fn alone(fs: &SimFileSystem, mode: u8, write: bool) {
    let read_mode = if mode & MODE_COPIED == 0 { ReadMode::Mapped } else { ReadMode::Copied };
    let root = StoreRoot {
        fs: Arc::new(fs.clone()),
        dir: PathBuf::from(DIR),
        id: sample().id,
        writer: Id::from_bytes([9; 16]),
        options: Arc::new(options(read_mode)),
    };
    let lister = Lister::new(root.clone());
    let snapshot = || lister.snapshot().expect("a snapshot can be taken");
    let number = usize::from(mode >> QUESTIONS_SHIFT);
    match QUESTIONS.get(number) {
        Some(question) => question(&snapshot()),
        // The last number is not a question of a snapshot.
        None => {
            let _ = (verify::verify(&root, &lister, true), maintain::stats(&lister));
        }
    }
    if write {
        seal(&root, &lister);
        rows(&snapshot());
    }
}

/// Seals the rows of every segment, as the merging of dead and of small segments does.
fn seal(root: &StoreRoot, lister: &Lister) {
    let Ok(files) = lister.files() else { return };
    if let Ok(Some(lock)) = try_maintenance_lock(root.fs.as_ref(), &root.dir) {
        let _ = merge::merge_dead(root, lister, &lock, Reach::All);
    }
    for facts in &files {
        let Content::Sealed(segment) = &facts.content else { continue };
        if !facts.counts() {
            continue;
        }
        let Ok(batches) = segment.batches().collect::<Result<Vec<_>, _>>() else { continue };
        let replaces = [facts.name.uuid];
        let _ = seal_rows(root, facts.table, facts.partition, &replaces, None, &batches);
    }
}

/// Every question that a snapshot answers. Those in one function share most of their way,
/// or cost little beside it; the mode byte counts them.
const QUESTIONS: [fn(&Snapshot); 7] = [rows, rows_of_keys, estimates, exact, tops, by_time, by_key];

fn partial() -> Filter {
    Filter { allow_partial: true, ..Filter::new() }
}

fn rows(snapshot: &Snapshot) {
    let _ = snapshot.metrics(Table::Task, &Filter::new().all());
}

fn rows_of_keys(snapshot: &Snapshot) {
    let _ = snapshot.task_metrics(&Filter::new().agent("agent-1").success(true));
    let _ = snapshot.task_metrics(&Filter::new().task("task-17"));
}

fn estimates(snapshot: &Snapshot) {
    let _ = snapshot.summary_stats(Percentile::Estimate, &partial());
    let shares = [0.0, 0.5, 1.0];
    let _ = snapshot.percentiles(Table::Task, FIELD, &shares, Percentile::Estimate, &partial());
}

fn exact(snapshot: &Snapshot) {
    let _ = snapshot.summary_stats(Percentile::Exact, &partial());
}

fn tops(snapshot: &Snapshot) {
    let _ = snapshot.slowest_tasks(&partial());
    let _ = snapshot.top_agents(TopBy::AvgDurationMs, Order::Descending, &partial());
}

fn by_time(snapshot: &Snapshot) {
    let (hour, sum) = (Interval::Hour, Aggregation::Sum);
    let _ = snapshot.aggregate_by_time(Table::Task, FIELD, hour, sum, &partial());
    let _ = snapshot.aggregate(Table::Task, FIELD, &partial());
}

fn by_key(snapshot: &Snapshot) {
    let _ = snapshot.aggregate_by_key(Table::Task, FIELD, "agent_id", &partial());
}

/// A good file with the changes that the input lists.
fn changed(good: &[u8], input: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let mut rest = input.iter().copied();
    let mut next = || rest.next();
    while let Some(change) = next() {
        let (Some(low), Some(high)) = (next(), next()) else { break };
        let place = usize::from(u16::from_le_bytes([low, high]));
        // The frames more often than the headers, which are mostly zeros.
        let start = if change & 0x80 == 0 { FRAMES_OFFSET.min(bytes.len()) } else { 0 };
        let place = start + place % (bytes.len() - start).max(1);
        match change % 5 {
            0 => set(&mut bytes, place, &[next().unwrap_or(0)]),
            1 => {
                let count = usize::from(next().unwrap_or(0) % 16);
                let new: Vec<u8> = (0..count).map_while(|_| next()).collect();
                set(&mut bytes, place, &new);
            }
            2 => {
                let from = FRAMES_OFFSET + usize::from(next().unwrap_or(0)) * 64;
                let copy = good.get(from..from + 64).unwrap_or_default().to_vec();
                set(&mut bytes, place, &copy);
            }
            3 => bytes.truncate(place),
            _ => {
                let tail = good[FRAMES_OFFSET.min(place)..].to_vec();
                bytes.extend_from_slice(&tail);
                bytes.truncate(FILE_BYTES_MAX);
            }
        }
    }
    bytes
}

fn set(bytes: &mut [u8], place: usize, new: &[u8]) {
    bytes.iter_mut().skip(place).zip(new).for_each(|(byte, new)| *byte = *new);
}

/// Repairs the checksums of headers, frames and trailer, wherever there is something like
/// one, so that what they hold is read.
pub fn fix_checksums(bytes: &mut [u8]) {
    for copy in bytes.chunks_exact_mut(HEADER_COPY_BYTES).take(HEADER_COPIES) {
        if copy.starts_with(&HEADER_MAGIC) {
            let crc = checksum::crc32(&copy[..HEADER_CHECKSUM_OFFSET]);
            set(copy, HEADER_CHECKSUM_OFFSET, &crc.to_le_bytes());
        }
    }
    let mut offset = FRAMES_OFFSET;
    while let Some(frame) = bytes.get_mut(offset..).filter(|frame| !frame.is_empty()) {
        offset += match frame.split_at_mut_checked(FRAME_HEADER_BYTES) {
            Some((header, payload)) if header.starts_with(&FRAME_MAGIC) => {
                fix_frame(header, payload).max(ALIGNMENT)
            }
            _ => ALIGNMENT,
        };
    }
    let end = bytes.len().saturating_sub(TRAILER_BYTES);
    let last = &mut bytes[end..];
    if last.starts_with(&TRAILER_MAGIC) && last.len() == TRAILER_BYTES {
        let crc = checksum::crc32(&last[..trailer::CRC.offset]);
        set(last, trailer::CRC.offset, &crc.to_le_bytes());
    }
}

/// Repairs the checksums of one frame; returns its bytes, as far as they are there.
fn fix_frame(header: &mut [u8], payload: &mut [u8]) -> usize {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(field(header, frame_header::UUID));
    let seed = Seed::new(
        &Id::from_bytes(uuid),
        number64(header, frame_header::SEQ),
        number64(header, frame_header::FILE_OFFSET),
    );
    let len = number(header, frame_header::PAYLOAD_LEN).min(payload.len());
    let payload = &mut payload[..len];
    let directory_len = number(header, frame_header::DIRECTORY_LEN).min(len);
    let covered = if directory_len > 0 {
        fix_chunks(&seed, directory_len, payload);
        directory_len
    } else {
        len
    };
    let crc = seed.payload(&payload[..covered]);
    set(header, frame_header::PAYLOAD_CRC.offset, &crc.to_le_bytes());
    let crc = checksum::crc32(&header[..frame_header::HEADER_CRC.offset]);
    set(header, frame_header::HEADER_CRC.offset, &crc.to_le_bytes());
    FRAME_HEADER_BYTES + len.next_multiple_of(ALIGNMENT)
}

fn fix_chunks(seed: &Seed, directory_len: usize, payload: &mut [u8]) {
    if directory_len < DIRECTORY_FIXED_BYTES {
        return;
    }
    let columns = number(payload, directory::COLUMN_COUNT).min(COLUMNS_MAX);
    for column in 0..columns {
        let start = DIRECTORY_FIXED_BYTES + column * CHUNK_ENTRY_BYTES;
        let Some(entry) = payload.get(start..start + CHUNK_ENTRY_BYTES) else { return };
        let offset = number(entry, chunk_entry::OFFSET);
        let len = number(entry, chunk_entry::LEN);
        let Some(chunk) = payload.get(offset..offset.saturating_add(len)) else { continue };
        let crc = seed.chunk(u32::try_from(column).unwrap_or(u32::MAX), chunk);
        set(payload, start + chunk_entry::CRC.offset, &crc.to_le_bytes());
    }
}

fn field(bytes: &[u8], field: Field) -> &[u8] {
    &bytes[field.offset..field.end()]
}

fn number(bytes: &[u8], of: Field) -> usize {
    let mut value = [0; 4];
    value.copy_from_slice(field(bytes, of));
    u32::from_le_bytes(value) as usize
}

fn number64(bytes: &[u8], of: Field) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(field(bytes, of));
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_files_have_their_checksums() {
        for good in [&sample().active, &sample().sealed] {
            let mut fixed = good.bytes.clone();
            fix_checksums(&mut fixed);
            assert_eq!(fixed, good.bytes);
        }
    }

    #[test]
    fn a_segment_alone_is_read_and_sealed() {
        for (good, rows) in [(&sample().active, 90), (&sample().sealed, 30)] {
            let image = good.alone.kill_image();
            image.write_file(&good.path, &good.bytes).unwrap();
            let segments = |image: &SimFileSystem| {
                let is_one =
                    |(path, _): &(PathBuf, u64)| path.extension() == Some("segment".as_ref());
                image.dump().iter().filter(|file| is_one(file)).count()
            };
            let before = segments(&image);
            alone(&image, 0, true);
            assert_eq!(segments(&image), before + 1, "what was read was sealed");
            let store = read(&image, ReadMode::Mapped);
            assert_eq!(store.snapshot().unwrap().rows(Table::Task), rows);
            assert!(store.verify(true).unwrap().problems.is_empty());
        }
    }

    #[test]
    fn imports_are_read_in_pieces() {
        import_document(b"\xEF\xBB\xBF{\"task_metrics\":[{\"task_id\":5},\n7]}");
        import_document(b"\xEF\xBB");
        for mode in 0..4 {
            let text = b"up{agent_id=\"a\",swarm_id=\"s\"} 1 5\r\nup NaN\n# EOF\n";
            import_exposition(&[&[mode], &text[..]].concat());
        }
    }

    #[test]
    fn every_mode_takes_a_good_file() {
        for mode in 0..=u8::MAX {
            active(&[mode]);
            sealed(&[mode]);
        }
    }

    #[test]
    fn repaired_files_are_read_further_than_damaged_ones() {
        let Good { path, bytes: good, .. } = &sample().sealed;
        // A byte of the first block's first chunk.
        let mut bytes = good.clone();
        let frame = (FRAMES_OFFSET..good.len())
            .step_by(ALIGNMENT)
            .find(|at| good[*at..].starts_with(&FRAME_MAGIC) && good[*at + 4] == 5)
            .unwrap();
        bytes[frame + FRAME_HEADER_BYTES + DIRECTORY_FIXED_BYTES + 7 * CHUNK_ENTRY_BYTES] ^= 0xFF;
        let reason = |bytes: &[u8]| {
            let image = sample().fs.kill_image();
            image.write_file(path, bytes).unwrap();
            let snapshot = read(&image, ReadMode::Mapped).snapshot().unwrap();
            let page = snapshot.metrics(Table::Task, &Filter::new().all()).unwrap();
            page.coverage.damaged[0].reason.clone()
        };
        assert!(reason(&bytes).contains("checksum"), "{}", reason(&bytes));
        fix_checksums(&mut bytes);
        assert!(!reason(&bytes).contains("checksum"), "{}", reason(&bytes));
    }

    #[test]
    fn some_inputs_pass() {
        let mut random = crate::testing::workload::Random::new(5);
        for round in 0..120u8 {
            let len = usize::try_from(random.below(60)).unwrap();
            let mut input: Vec<u8> = (0..len).map(|_| random.bits().to_le_bytes()[0]).collect();
            input.insert(0, round.wrapping_mul(149));
            active(&input);
            sealed(&input);
            chunk(&input);
            documents(&input[1..]);
        }
    }
}
