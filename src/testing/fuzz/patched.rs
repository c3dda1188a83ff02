//! A sound file of any kind with changes that follow its structure, and checksums that are right
//! again: what a mistake in a writer would leave, or a stranger would make.
//!
//! Owns taking a file apart into header, frames and trailer, the changes, and putting it together.
//! The input says which file, what is asked of it, and the changes one by one. Checksums are no
//! defence here, so answers may be anything; what may not happen is a panic, memory without
//! bound, or an answer that another one gives the lie: mapped, copied and asked again must be
//! the same; where a deep `verify` finds nothing the aggregates are those of the rows; and what
//! `repair`, sealing and compaction write of such a file is sound and has its rows.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{
    DIR, FILE_BYTES_MAX, Good, SLOW_EVERY, field, fix_checksums, memory, number, number64, options,
    sample, seal, set,
};
use crate::config::ReadMode;
use crate::error::Result;
use crate::format::checksum;
use crate::format::footer::{Footer, FrameEntry};
use crate::format::frame::{FrameHeader, FrameKind};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::format::layout::{
    ALIGNMENT, CHUNK_ENTRY_BYTES, COLUMNS_MAX, DIRECTORY_FIXED_BYTES, FRAME_HEADER_BYTES,
    FRAME_KIND_FOOTER, FRAME_MAGIC, FRAMES_OFFSET, Field, HEADER_COPIES, HEADER_COPY_BYTES,
    TRAILER_BYTES, TRAILER_MAGIC, chunk_entry, directory, frame_header, header, trailer,
};
use crate::fs::sim::SimFileSystem;
use crate::inspect;
use crate::maintain::{compact, repair, verify};
use crate::query::answer::{Answer, Page, Value};
use crate::query::filter::{Aggregation, Filter, Order, Percentile, TopBy};
use crate::report::VerifyReport;
use crate::row::Row;
use crate::schema::Table;
use crate::segment::Tier;
use crate::segment::files::StoreRoot;
use crate::snapshot::Snapshot;
use crate::snapshot::lister::{Content, Lister};
use crate::time::Interval;

/// A measure of each table.
const FIELDS: [&str; 3] = ["duration_ms", "value", "value"];

/// Most changes of one input.
const CHANGES_MAX: usize = 32;

/// Bytes that opening a store may take: the file, what its frames say of themselves, and the
/// stamps of the largest frame of rows that there may be.
const OPENING_BYTES: usize = 64 << 20;
/// Rows beyond which not all of them are asked for: what holds an answer is as large as it.
const ROWS_MAX: u64 = 200_000;

/// Frames keep the number, place and file that they say they have.
const AS_THEY_SAY: u8 = 8;
/// The footer and the trailer stay as they are, whatever became of the frames.
const OLD_FOOTER: u8 = 16;

/// The fields of a chunk's header (spec 4.2).
const CHUNK_FIELDS: [Field; 5] = [
    Field { offset: 0, size: 1 },
    Field { offset: 1, size: 1 },
    Field { offset: 4, size: 4 },
    Field { offset: 8, size: 4 },
    Field { offset: 12, size: 4 },
];
/// Its number of rows.
const CHUNK_ROWS: Field = CHUNK_FIELDS[2];

/// Reads a file that the input makes of a sound one.
///
/// # Panics
///
/// When one answer gives another the lie.
pub fn patched(input: &[u8]) {
    let mut bytes = Input(input);
    let (Some(kind), Some(way)) = (bytes.next(), bytes.next()) else { return };
    let goods = sample().all();
    let good = goods[usize::from(kind) % goods.len()];
    let file = patch(good, way, &mut bytes);
    let image = good.alone.kill_image();
    image.write_file(&good.path, &file).expect("write");
    // The slow ways would take all of the time if the input alone chose them.
    let slow = checksum::crc32(input).is_multiple_of(SLOW_EVERY / 4);
    let root = root(&image, ReadMode::Mapped);
    match way % 8 {
        4 | 5 => verified(&root),
        6 if slow => repaired(&root),
        7 if slow => rewritten(&root, good),
        _ => read(&image, &good.path, slow),
    }
}

/// The bytes of an input, in turn.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of so many; 0 where there is none or nothing is left.
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % end.max(1)
    }

    /// A place among so many.
    fn place(&mut self, end: usize) -> usize {
        let bytes = [self.next().unwrap_or(0), self.next().unwrap_or(0)];
        usize::from(u16::from_le_bytes(bytes)) % end.max(1)
    }

    /// A number to put in the place of another: small, near to it, about a power of two, the
    /// largest ones, or any.
    fn value(&mut self, old: u64) -> u64 {
        let code = self.next().unwrap_or(0);
        let low = u64::from(code & 31);
        match code >> 5 {
            0 => low,
            1 => old.wrapping_add(low + 1),
            2 => old.wrapping_sub(low + 1),
            3 => 1 << (2 * low),
            4 => (1 << (2 * low)) - 1,
            5 => u64::MAX - low,
            6 => old ^ 1 << (2 * low),
            _ => {
                let mut value = [0; 8];
                value.iter_mut().for_each(|byte| *byte = self.next().unwrap_or(0));
                u64::from_le_bytes(value)
            }
        }
    }

    /// Puts such a number into a field.
    fn change(&mut self, bytes: &mut [u8], of: Field) {
        let Some(place) = bytes.get_mut(of.offset..of.end()) else { return };
        let mut old = [0; 8];
        for (byte, stored) in old.iter_mut().zip(place.iter()) {
            *byte = *stored;
        }
        let new = self.value(u64::from_le_bytes(old)).to_le_bytes();
        place.iter_mut().zip(new).for_each(|(byte, new)| *byte = new);
    }
}

// ---------------------------------------------------------------------------------------
// Files

/// A file in its parts.
struct Parts {
    headers: Vec<u8>,
    frames: Vec<Frame>,
    /// What lies behind the last frame: the trailer, or nothing.
    tail: Vec<u8>,
}

#[derive(Clone)]
struct Frame {
    header: Vec<u8>,
    payload: Vec<u8>,
}

impl Frame {
    fn is_footer(&self) -> bool {
        field(&self.header, frame_header::KIND) == [FRAME_KIND_FOOTER]
    }

    /// Columns of the block that the payload is; none where it is no block.
    fn columns(&self) -> usize {
        let len = number(&self.header, frame_header::DIRECTORY_LEN).min(self.payload.len());
        (len.saturating_sub(DIRECTORY_FIXED_BYTES) / CHUNK_ENTRY_BYTES).min(COLUMNS_MAX)
    }

    fn entry(&mut self, column: usize) -> Option<&mut [u8]> {
        let start = DIRECTORY_FIXED_BYTES + column * CHUNK_ENTRY_BYTES;
        self.payload.get_mut(start..start + CHUNK_ENTRY_BYTES)
    }

    fn chunk(&mut self, column: usize) -> Option<&mut [u8]> {
        let entry = self.entry(column)?;
        let (offset, len) = (number(entry, chunk_entry::OFFSET), number(entry, chunk_entry::LEN));
        self.payload.get_mut(offset..offset.saturating_add(len))
    }

    /// Bytes with header and padding.
    fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len().next_multiple_of(ALIGNMENT)
    }

    fn settle_length(&mut self) {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        set(&mut self.header, frame_header::PAYLOAD_LEN.offset, &len.to_le_bytes());
    }

    /// Says everywhere that there are so many rows.
    fn set_rows(&mut self, rows: u64) {
        let rows = &rows.to_le_bytes()[..4];
        set(&mut self.header, frame_header::ROWS.offset, rows);
        let columns = self.columns();
        if columns > 0 {
            set(&mut self.payload, directory::ROWS.offset, rows);
        }
        for column in 0..columns {
            if let Some(chunk) = self.chunk(column) {
                set(chunk, CHUNK_ROWS.offset, rows);
            }
        }
    }
}

impl Parts {
    fn of(good: &Good) -> Self {
        let (headers, mut rest) = good.bytes.split_at(FRAMES_OFFSET);
        let mut frames = Vec::new();
        while let Some((header, payload)) = rest.split_at_checked(FRAME_HEADER_BYTES)
            && header.starts_with(&FRAME_MAGIC)
        {
            let len = number(header, frame_header::PAYLOAD_LEN);
            let (payload, padded) = (&payload[..len], len.next_multiple_of(ALIGNMENT));
            frames.push(Frame { header: header.to_vec(), payload: payload.to_vec() });
            rest = &rest[FRAME_HEADER_BYTES + padded..];
        }
        Self { headers: headers.to_vec(), frames, tail: rest.to_vec() }
    }

    /// The footer as it is.
    fn footer(&self, kind: FileKind) -> Option<Footer> {
        let Frame { header, payload } = self.frames.last().filter(|last| last.is_footer())?;
        Footer::decode(payload, kind, number64(header, frame_header::FILE_OFFSET)).ok()
    }

    /// Has each frame say where it lies now.
    fn settle_places(&mut self, uuid: &Id) {
        let mut offset = FRAMES_OFFSET;
        for (seq, frame) in self.frames.iter_mut().enumerate() {
            let place = (offset as u64).to_le_bytes();
            set(&mut frame.header, frame_header::UUID.offset, uuid.as_bytes());
            set(&mut frame.header, frame_header::SEQ.offset, &(seq as u64).to_le_bytes());
            set(&mut frame.header, frame_header::FILE_OFFSET.offset, &place);
            offset += frame.bytes();
        }
    }

    /// Has the footer say what the frames say; `old` is the one that the sound file had.
    fn settle_footer(&mut self, uuid: &Id, kind: FileKind, old: &Footer) {
        let (mut offset, mut first_row, mut frames) = (FRAMES_OFFSET, 0, Vec::new());
        let Some(last) = self.frames.iter().rposition(Frame::is_footer) else { return };
        for frame in &mut self.frames[..last] {
            let crc = checksum::crc32(&frame.header[..frame_header::HEADER_CRC.offset]);
            set(&mut frame.header, frame_header::HEADER_CRC.offset, &crc.to_le_bytes());
            if let Ok(read) = FrameHeader::decode(&frame.header, uuid, offset as u64) {
                frames.push(FrameEntry::of(&read, first_row));
                first_row += u64::from(if read.kind == FrameKind::Block { read.rows } else { 0 });
            }
            offset += frame.bytes();
        }
        // A file without blocks stands for the rows that it stood for.
        let blocks = || frames.iter().filter(|frame| frame.kind == FrameKind::Block);
        let stamps = blocks().map(|block| block.min_ts).min();
        let stamps = stamps.zip(blocks().map(|block| block.max_ts).max());
        let (min_ts, max_ts) = stamps.unwrap_or((old.min_ts, old.max_ts));
        let rows = if stamps.is_some() { first_row } else { old.rows };
        let footer = Footer { rows, min_ts, max_ts, frames };
        let frame = &mut self.frames[last];
        // What a footer may not say is left to that which is there.
        if let Ok(payload) = footer.encode(kind, offset as u64) {
            frame.payload = payload;
            frame.settle_length();
        }
        let bytes = frame.bytes() as u64;
        if self.tail.starts_with(&TRAILER_MAGIC) && self.tail.len() == TRAILER_BYTES {
            let place = (offset as u64).to_le_bytes();
            set(&mut self.tail, trailer::FOOTER_OFFSET.offset, &place);
            set(&mut self.tail, trailer::FOOTER_BYTES.offset, &bytes.to_le_bytes());
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.headers.clone();
        for frame in &self.frames {
            bytes.extend_from_slice(&frame.header);
            bytes.extend_from_slice(&frame.payload);
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        }
        bytes.extend_from_slice(&self.tail);
        bytes.truncate(FILE_BYTES_MAX);
        bytes
    }
}

/// The file that the input makes of a sound one.
fn patch(good: &Good, way: u8, input: &mut Input<'_>) -> Vec<u8> {
    let mut parts = Parts::of(good);
    let Header { uuid, kind, .. } = Header::decode(&good.bytes).expect("a sound header").header;
    let footer = parts.footer(kind);
    let mut len = usize::MAX;
    for _ in 0..CHANGES_MAX {
        let Some(change) = input.next() else { break };
        if change % 16 == 15 {
            len = input.place(good.bytes.len());
        } else {
            change_parts(&mut parts, change % 16, input);
        }
    }
    if way & AS_THEY_SAY == 0 {
        parts.settle_places(&uuid);
    }
    if let Some(old) = footer.filter(|_| way & OLD_FOOTER == 0) {
        parts.settle_footer(&uuid, kind, &old);
    }
    let mut bytes = parts.bytes();
    bytes.truncate(len);
    fix_checksums(&mut bytes);
    bytes
}

fn change_parts(parts: &mut Parts, change: u8, input: &mut Input<'_>) {
    if change == 0 {
        let (_, of) = header::FIELDS[input.below(header::FIELDS.len())];
        let rest = input.0;
        for copy in parts.headers.chunks_exact_mut(HEADER_COPY_BYTES).take(HEADER_COPIES) {
            input.0 = rest;
            input.change(copy, of);
        }
        return;
    }
    if parts.frames.is_empty() {
        return;
    }
    let count = parts.frames.len();
    let at = input.below(count);
    let frame = &mut parts.frames[at];
    let columns = frame.columns();
    match change {
        1 => {
            let (_, of) = frame_header::FIELDS[input.below(frame_header::FIELDS.len())];
            input.change(&mut frame.header, of);
        }
        2 if columns > 0 => {
            let (_, of) = directory::FIELDS[input.below(directory::FIELDS.len())];
            input.change(&mut frame.payload, of);
        }
        3 if columns > 0 => {
            let column = input.below(columns);
            let (_, of) = chunk_entry::FIELDS[input.below(chunk_entry::FIELDS.len())];
            frame.entry(column).map(|entry| input.change(entry, of)).unwrap_or_default();
        }
        4 if columns > 0 => {
            let column = input.below(columns);
            let of = CHUNK_FIELDS[input.below(CHUNK_FIELDS.len())];
            frame.chunk(column).map(|chunk| input.change(chunk, of)).unwrap_or_default();
        }
        5 if columns > 0 => {
            let column = input.below(columns);
            let place = input.place(4_096);
            let new: Vec<u8> = (0..input.below(16) + 1).map_while(|_| input.next()).collect();
            if let Some(chunk) = frame.chunk(column) {
                let place = place % chunk.len().max(1);
                set(chunk, place, &new);
            }
        }
        6 if columns > 1 => {
            // Two columns in each other's place.
            let places = [input.below(columns), input.below(columns)];
            let [a, b] = places.map(|place| DIRECTORY_FIXED_BYTES + place * CHUNK_ENTRY_BYTES);
            let entry = |at: usize| frame.payload.get(at..at + CHUNK_ENTRY_BYTES);
            if let (Some(first), Some(second)) = (entry(a), entry(b)) {
                let (first, second) = (first.to_vec(), second.to_vec());
                set(&mut frame.payload, a, &second);
                set(&mut frame.payload, b, &first);
            }
        }
        7 => {
            let old = number(&frame.header, frame_header::ROWS) as u64;
            frame.set_rows(input.value(old));
        }
        8 => {
            // Bytes more or fewer, and a length that goes with them.
            let (place, more) = (input.place(frame.payload.len() + 1), input.next().unwrap_or(0));
            let count = usize::from(more % 64) * ALIGNMENT / 4;
            if more < 128 {
                let filler = input.next().unwrap_or(0);
                drop(frame.payload.splice(place..place, std::iter::repeat_n(filler, count)));
            } else {
                let end = (place + count).min(frame.payload.len());
                drop(frame.payload.drain(place..end));
            }
            frame.settle_length();
        }
        9 => parts.frames.swap(at, input.below(count)),
        10 => {
            let copy = frame.clone();
            parts.frames.insert(input.below(count + 1), copy);
        }
        11 if !frame.is_footer() || input.below(4) == 0 => drop(parts.frames.remove(at)),
        12 => {
            // A frame of another file.
            let goods = sample().all();
            let mut other = Parts::of(goods[input.below(goods.len())]).frames;
            if !other.is_empty() {
                let from = input.below(other.len());
                parts.frames.insert(at, other.swap_remove(from));
            }
        }
        13 => {
            let of = trailer::FIELDS[input.below(trailer::FIELDS.len())].1;
            input.change(&mut parts.tail, of);
        }
        _ => {
            let place = input.place(frame.payload.len());
            let new: Vec<u8> = (0..input.below(16) + 1).map_while(|_| input.next()).collect();
            set(&mut frame.payload, place, &new);
        }
    }
}

// ---------------------------------------------------------------------------------------
// Answers

fn root(image: &SimFileSystem, read_mode: ReadMode) -> StoreRoot {
    StoreRoot {
        fs: Arc::new(image.clone()),
        dir: PathBuf::from(DIR),
        id: sample().id,
        writer: Id::from_bytes([9; 16]),
        options: Arc::new(options(read_mode)),
    }
}

/// Opens the store; that takes little, whatever the file says of itself.
fn snapshot(root: &StoreRoot) -> Snapshot {
    memory::METER.bounded("opening", OPENING_BYTES, || {
        Lister::new(root.clone()).snapshot().expect("a snapshot can be taken")
    })
}

/// Reads the file in every way, and twice.
fn read(image: &SimFileSystem, path: &Path, slow: bool) {
    let mapped = snapshot(&root(image, ReadMode::Mapped));
    let copied = snapshot(&root(image, ReadMode::Copied));
    for table in [Table::Task, Table::Agent] {
        let first = answers(&mapped, table);
        assert_eq!(first, answers(&copied, table), "mapped, and copied");
        if slow {
            assert_eq!(first, answers(&mapped, table), "once, and once more");
            // What is beyond the limits for strangers counts as damaged there.
            let _ = answers(&snapshot(&root(image, ReadMode::Untrusted)), table);
        }
    }
    let described = inspect::describe_on(image, path);
    assert!(described.map_or(true, |it| !it.text.is_empty()), "a description of nothing");
}

/// What a snapshot answers, and what it says that the answers rest on.
fn answers(snapshot: &Snapshot, table: Table) -> Vec<String> {
    let partial = || Filter { allow_partial: true, ..Filter::new() };
    if snapshot.rows(table) > ROWS_MAX {
        return vec![page(snapshot.metrics(table, &partial()))];
    }
    let measure = FIELDS[table.index()];
    let (hour, sum) = (Interval::Hour, Aggregation::Sum);
    let shares = [0.0, 0.5, 0.99, 1.0];
    let estimate = Percentile::Estimate;
    let mut told = vec![
        page(snapshot.metrics(table, &Filter::new().all())),
        page(snapshot.metrics(table, &Filter::new().agent("agent-1"))),
        answer(snapshot.aggregate(table, measure, &partial())),
        answer(snapshot.percentiles(table, measure, &shares, estimate, &partial())),
        answer(snapshot.percentiles(table, measure, &shares, Percentile::Exact, &partial())),
        page(snapshot.aggregate_by_time(table, measure, hour, sum, &partial())),
        page(snapshot.aggregate_by_key(table, measure, "agent_id", &partial())),
    ];
    if table == Table::Task {
        let (by, order) = (TopBy::AvgDurationMs, Order::Descending);
        told.push(answer(snapshot.summary_stats(estimate, &partial())));
        told.push(page(snapshot.slowest_tasks(&partial())));
        told.push(page(snapshot.top_agents(by, order, &partial())));
        told.push(page(snapshot.task_metrics(&Filter::new().task("task-17"))));
    }
    told
}

/// An answer without how it was found, or why there is none.
fn answer<T: Debug>(found: Result<Answer<T>>) -> String {
    match found {
        Ok(found) => format!("{:?} {:?}", found.value, found.coverage),
        Err(error) => error.to_string(),
    }
}

fn page<T: Debug>(found: Result<Page<T>>) -> String {
    match found {
        Ok(found) => format!("{:?} {:?}", found.rows, found.coverage),
        Err(error) => error.to_string(),
    }
}

/// The rows of a table that can be read, and whether that is all of it.
fn rows(snapshot: &Snapshot, table: Table) -> (Vec<String>, bool) {
    if snapshot.rows(table) > ROWS_MAX {
        return (Vec::new(), false);
    }
    let Ok(page) = snapshot.metrics(table, &Filter::new().all()) else {
        return (Vec::new(), false);
    };
    let mut rows: Vec<String> = page.rows.iter().map(|row| format!("{row:?}")).collect();
    rows.sort_unstable();
    let coverage = page.coverage;
    let is_all = coverage.damaged.is_empty() && coverage.unanswerable.is_empty();
    (rows, is_all && coverage.hourly.is_empty() && coverage.daily.is_empty())
}

/// Aggregates are those of the rows, where every row can be read.
fn assert_agrees(snapshot: &Snapshot, table: Table) {
    if snapshot.rows(table) > ROWS_MAX {
        return;
    }
    let page = snapshot.metrics(table, &Filter::new().all()).expect("rows of a sound store");
    assert!(page.coverage.damaged.is_empty(), "{:?}", page.coverage.damaged);
    let coverage = page.coverage;
    if [&coverage.unanswerable, &coverage.hourly, &coverage.daily].iter().any(|it| !it.is_empty()) {
        return;
    }
    let all = snapshot.aggregate(table, FIELDS[table.index()], &Filter::new());
    let all = all.expect("an aggregate of a sound store").value;
    let values: Vec<Value> = page.rows.iter().filter_map(value).collect();
    assert_eq!(all.rows, page.rows.len() as u64, "rows");
    assert_eq!((all.count, all.nulls), (values.len() as u64, all.rows - all.count), "values");
    let whole = |value: &Value| match value {
        Value::Int(value) => i128::from(*value),
        Value::Wide(value) => *value,
        Value::Float(_) => 0,
    };
    assert_eq!(whole(&all.sum), values.iter().map(whole).sum::<i128>(), "sum");
    let floats = || values.iter().map(|value| value.as_f64());
    let by_order = |a: &f64, b: &f64| a.total_cmp(b);
    let ends = [floats().min_by(by_order), floats().max_by(by_order)];
    // By their bits: -0.0 is not 0.0.
    let bits = |end: Option<f64>| end.map(f64::to_bits);
    let found = [all.min, all.max].map(|end| bits(end.map(Value::as_f64)));
    assert_eq!(found, ends.map(bits), "least and greatest");
    let (sum, size) = floats().fold((0.0, 0.0), |(sum, size), it| (sum + it, size + it.abs()));
    let off = (all.sum.as_f64() - sum).abs();
    assert!(off <= 1e-9 * size || !size.is_finite(), "{:?}, the rows say {sum}", all.sum);
}

fn value(row: &Row) -> Option<Value> {
    match row {
        Row::Task(row) => row.duration_ms.map(Value::Int),
        Row::Agent(row) => Some(Value::Float(row.value)),
        Row::Swarm(row) => Some(Value::Float(row.value)),
    }
}

fn verify_deeply(root: &StoreRoot) -> VerifyReport {
    let lister = Lister::new(root.clone());
    verify::verify(root, &lister, true).expect("what is damaged is in the report")
}

/// Where a deep `verify` finds nothing, the answers agree with each other.
fn verified(root: &StoreRoot) {
    let report = verify_deeply(root);
    if report.problems.is_empty() {
        for table in [Table::Task, Table::Agent] {
            assert_agrees(&snapshot(root), table);
        }
    }
}

/// A repair keeps every row that can be read, and leaves nothing for another one to do.
fn repaired(root: &StoreRoot) {
    let tables = [Table::Task, Table::Agent];
    // Where files say that there are too many to ask for, the repair may find that there are few.
    let asked = tables.map(|table| snapshot(root).rows(table) <= ROWS_MAX);
    let before = tables.map(|table| rows(&snapshot(root), table).0);
    let done = match repair::repair(root, false, Duration::ZERO) {
        Ok(done) => done,
        Err(error) => panic!("a repair fails: {error}"),
    };
    for ((table, before), _) in tables.iter().zip(before).zip(asked).filter(|(_, asked)| *asked) {
        assert_eq!(before, rows(&snapshot(root), *table).0, "rows, repaired");
    }
    if !done.leaves_damage() {
        let report = verify_deeply(root);
        assert!(report.problems.is_empty(), "repaired, and still {:?}", report.problems);
        verified(root);
        let again = repair::repair(root, false, Duration::ZERO).expect("a second repair");
        assert!(again.files.is_empty(), "{:?}", again.files);
    }
}

/// What is written of the rows that were read is sound, and has these rows.
fn rewritten(root: &StoreRoot, good: &Good) {
    let lister = Lister::new(root.clone());
    let facts = lister.files().expect("files can be listed");
    let before = [Table::Task, Table::Agent].map(|table| rows(&snapshot(root), table));
    seal(root, &lister);
    let is_gone = || {
        let files = Lister::new(root.clone()).files().expect("files can be listed");
        files.iter().all(|facts| facts.path != good.path || !facts.counts())
    };
    let is_rows = |facts: &crate::snapshot::lister::FileFacts| {
        matches!(facts.content, Content::Active(_) | Content::Sealed(_))
    };
    // What was replaced is still there, and as it was.
    let assert_sound = |when: &str| {
        let problems = verify_deeply(root).problems;
        let is_old = |file: &str| good.path.ends_with(file);
        let new = problems.iter().find(|problem| !is_old(&problem.file));
        assert!(new.is_none(), "{when}: {new:?}");
    };
    let check = |when: &str| {
        for (table, (rows_before, is_all)) in [Table::Task, Table::Agent].into_iter().zip(&before) {
            let snapshot = snapshot(root);
            if *is_all {
                assert_eq!(*rows_before, rows(&snapshot, table).0, "rows, {when}");
                assert_agrees(&snapshot, table);
            }
        }
        assert_sound(when);
    };
    if !facts.iter().any(is_rows) || !is_gone() {
        return;
    }
    check("sealed");
    let place = (good.table, facts[0].partition);
    compact::compact(root, &lister, place, false).expect("compact");
    check("archived");
    compact::roll_up_to(root, &lister, place, Tier::Hourly, false).expect("roll up");
    assert_sound("rolled up");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::workload::Random;

    /// An active segment that says to be of an import: none of ours does. Where that import has no
    /// record, its rows do not count, and sealing it made them.
    #[test]
    fn an_active_of_an_import_without_a_record_is_not_sealed() {
        patched(b"\x08\x07magic%\x00\x08!");
    }

    /// Damaged files of an import without a record: `verify` named them, and `repair`, which looked
    /// at files that count and at replaced ones, left them.
    #[test]
    fn damaged_files_of_an_import_without_a_record_are_set_aside() {
        for input in [
            &b"\x1a\xe6\x2a\x84\x67\x52\x01\x00\x00\x00\x44\x29\x65\x01\x33\xfe\x4b"[..],
            &b"\x07\x6e\x00\x08\xaa\x28\xf4\xf9\x07\x08\x07\x08\x9c\x9c\x9c"[..],
        ] {
            patched(input);
        }
    }

    /// A block that cannot be read between two whose hours overlap: each was in order after it, and
    /// a repair, which leaves it out, wrote the two into a file that was not in order.
    #[test]
    fn blocks_are_in_order_of_those_that_are_read() {
        patched(
            b"\x02\xe6\x8a\x14\x5b\x76\x00\x14\x01\x04\x53\x00\x5d\xca\xca\xca\xca\x01\x24\x3a",
        );
    }

    /// Stamps of another day in a frame that says to be of this one: rows that no file can hold, on
    /// which a repair of the store failed.
    #[test]
    fn stamps_of_another_day_are_damage() {
        for input in [
            &b"\x48\x0e\x44\x00success\xf5\xf5a\xf5u\x0e\x0e\xf5\x19\x00E\xf5\xf5\x80"[..],
            &b"\x00n\xee%n\x01dnn\xeennnnnnn\xf7\x9ce"[..],
            &b"\xe0\xbe\xf8\xf8\xfe\xfe\x85\xfe\xa1\xc6\x01\xbe\xaa\x9a\xf6"[..],
        ] {
            patched(input);
        }
    }

    /// Infinite values: what was sealed of them had summaries that no reader takes.
    #[test]
    fn values_that_are_not_finite_are_damage() {
        for input in [
            &b"\xee\xef\xee\xee-\xff\xff\xff\xff\xff\xff\xff\xee\xee\xff\xff\xff\xff\x00\x17-h`"[..],
            &b"\x07g^n\x00\x08\xff\xff\xb7h$\x93\xff\xff\xff\xff\x86\x86(\xff\xff\x01\n)"[..],
            &b"~\x07.\x00\xffG\xfb\t\x0b\x08\x9a\xff\xff\xff\xff\xff\xff\xff\x7f"[..],
        ] {
            patched(input);
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_the_least_by_its_bits() {
        patched(b"\xee\xee\xee\xee\x2d\xff\xff\xff\xff\xff\xff\xff\xff\xff\xee\xee\xff\xff\xff\xff\xff\x41\x2d\x68\x60");
    }

    /// A frame that says to have a million rows, of which thirty others can be read: too many to
    /// be asked for before the repair, and not after it.
    #[test]
    fn rows_that_were_not_asked_for_are_not_compared() {
        patched(b"\x40\x76gr\x8as.\x00\x10Hs\xe6\"-");
    }

    #[test]
    fn a_file_without_changes_is_itself() {
        for good in sample().all() {
            let file = patch(good, 0, &mut Input(&[]));
            assert_eq!(file, good.bytes, "{}", good.path.display());
        }
    }

    /// Found by fuzzing: a block of an archive whose rows, under right checksums, were not in the
    /// order of hours. It was rewritten hour by hour by what its frame tells, so its hours came
    /// late, and what repair wrote was as wrong as what it replaced. Now such a block keeps its
    /// file from being merged, and repair puts the rows in order.
    #[test]
    fn rows_out_of_order_are_put_in_order() {
        let input = [0x1A, 0xF6, 0x84, 0x79, 0x09, 0x7B, 0x05, 0x2A, 0x5B, 0x85, 0x04];
        let good = sample().all()[2];
        let file = patch(good, input[1], &mut Input(&input[2..]));
        let image = good.alone.kill_image();
        image.write_file(&good.path, &file).unwrap();
        let root = root(&image, ReadMode::Mapped);
        let problems = verify_deeply(&root).problems;
        let told = |part: &str| problems.iter().any(|problem| problem.message.contains(part));
        assert!(told("the rows are not in the order of hours"), "{problems:?}");
        repaired(&root);
    }

    #[test]
    fn every_file_is_read_in_every_way() {
        let mut random = Random::new(7);
        for kind in 0..8 {
            for way in 0..32 {
                patched(&[kind, way]);
                for _ in 0..4 {
                    let changes = (0..12).map(|_| random.bits().to_le_bytes()[0]);
                    patched(&[&[kind, way][..], &changes.collect::<Vec<u8>>()].concat());
                }
            }
        }
    }
}
