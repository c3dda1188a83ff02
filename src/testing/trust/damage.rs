//! Damage: whatever bit of whatever file is flipped, wherever a file is cut or goes on, the
//! store opens, wrong rows are never returned, what is missing is said to be, and nothing else
//! is missing.
//!
//! A [`Target`] is one file of a store, with as little of the store around it as it needs to be
//! read: that is what makes millions of cases possible.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::crash::DIR;
use super::rows::{Hand, options};
use super::{Verdict, ensure, guarded};
use crate::config::{MaintenanceRequest, Options, Retention, TableRetention, Tiers};
use crate::error::ErrorKind;
use crate::format::frame::{FrameHeader, FrameKind};
use crate::format::id::Id;
use crate::format::layout::{FRAME_MAGIC, FRAMES_OFFSET, HEADER_COPY_BYTES};
use crate::fs::FileSystem;
use crate::ingest::transaction::ImportSource;
use crate::query::answer::{Aggregate, Coverage};
use crate::query::filter::Filter;
use crate::row::{AgentMetric, Row, SwarmMetric};
use crate::schema::Table;
use crate::segment::files::FileName;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::testing::{SimFileSystem, open_store, open_store_read_only};
use crate::time::{MICROS_PER_DAY, Timestamp};

/// A measure of each table.
const FIELDS: [&str; 3] = ["duration_ms", "value", "value"];

/// One file to be damaged, in a store that has little else.
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    fs: SimFileSystem,
    options: Options,
    found: Found,
    frames: Vec<FrameHeader>,
    is_active: bool,
    is_segment: bool,
}

/// What a store answers.
#[derive(Debug)]
struct Found {
    rows: [Vec<Row>; 3],
    totals: [Option<Aggregate>; 3],
    /// Whether something is said to be damaged, or torn off.
    told: bool,
}

/// What became of one damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Rows that are missing.
    pub rows: usize,
    /// Whether anything is said to be damaged.
    pub told: bool,
}

fn answers(store: &Store) -> Verdict<Found> {
    let snapshot = store.snapshot()?;
    let mut told = store.recovery().torn_tail_bytes > 0;
    let mut rows: [Vec<Row>; 3] = Default::default();
    let mut totals: [Option<Aggregate>; 3] = Default::default();
    for (index, table) in Table::ALL.into_iter().enumerate() {
        let page = snapshot.metrics(table, &Filter::new().all())?;
        told |= is_told(&page.coverage);
        rows[index] = page.rows;
        totals[index] = total(&snapshot, table, FIELDS[index], &mut told)?;
    }
    Ok(Found { rows, totals, told })
}

fn is_told(coverage: &Coverage) -> bool {
    !coverage.damaged.is_empty()
}

/// The aggregate of all rows; `None` where it is refused for damage.
fn total(
    snapshot: &Snapshot,
    table: Table,
    field: &str,
    told: &mut bool,
) -> Verdict<Option<Aggregate>> {
    match snapshot.aggregate(table, field, &Filter::new()) {
        Ok(answer) => Ok(Some(answer.value)),
        Err(error) => {
            ensure(error.kind() == ErrorKind::Corrupt, || format!("an aggregate: {error}"))?;
            let partial = Filter { allow_partial: true, ..Filter::new() };
            *told |= is_told(&snapshot.aggregate(table, field, &partial)?.coverage);
            Ok(None)
        }
    }
}

/// Equal to the last bit: `==` takes the zeros for one.
fn is_same(a: &Row, b: &Row) -> bool {
    let bits = |row: &Row| match row {
        Row::Task(_) => 0,
        Row::Agent(row) => row.value.to_bits(),
        Row::Swarm(row) => row.value.to_bits(),
    };
    a == b && bits(a) == bits(b)
}

/// How many of the expected rows are missing; none may be there that is not expected.
fn missing(expected: &[Row], found: &[Row]) -> Verdict<usize> {
    if expected.len() == found.len() && expected.iter().zip(found).all(|(a, b)| is_same(a, b)) {
        return Ok(0);
    }
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for row in expected {
        *left.entry(format!("{row:?}")).or_default() += 1;
    }
    for row in found {
        let text = format!("{row:?}");
        match left.get_mut(&text) {
            Some(count) if *count > 0 => *count -= 1,
            _ => return Err(super::Violation::new(format!("a row that was never there: {text}"))),
        }
    }
    Ok(left.values().sum())
}

/// Whether two aggregates of the same rows agree: float sums may differ in their last digits,
/// by how they were added up.
fn agrees(a: &Aggregate, b: &Aggregate) -> bool {
    let (x, y) = (a.sum.as_f64(), b.sum.as_f64());
    let size = a.min.map_or(0.0, |v| v.as_f64().abs()).max(a.max.map_or(0.0, |v| v.as_f64().abs()));
    let sums = (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(size);
    (a.rows, a.count, a.nulls, a.min, a.max) == (b.rows, b.count, b.nulls, b.min, b.max)
        && (sums || size > 1e300)
}

/// The frames of a segment file as their headers tell.
fn frames(bytes: &[u8], uuid: &Id) -> Vec<FrameHeader> {
    let mut frames = Vec::new();
    let mut offset = FRAMES_OFFSET;
    while bytes.get(offset..).is_some_and(|rest| rest.starts_with(&FRAME_MAGIC)) {
        let rest = bytes.get(offset..).unwrap_or_default();
        let Ok(header) = FrameHeader::decode(rest, uuid, offset as u64) else { break };
        offset = place(header.end());
        frames.push(header);
    }
    frames
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Every file of a store that damage may hit, each as a target. Other segments of the store
/// are left out of it, so that one case costs as little as it can.
///
/// # Errors
///
/// What does not hold before anything is damaged.
pub fn targets(store: &SimFileSystem, options: &Options) -> Verdict<Vec<Target>> {
    let files = store.dump();
    let name =
        |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse);
    let mut targets = Vec::new();
    for (path, _) in &files {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if file.starts_with("catalog.") || file == "reserve" {
            continue;
        }
        let alone = store.kill_image();
        if let Some(own) = name(path) {
            for (other, _) in files.iter().filter(|(other, _)| other != path) {
                if name(other).is_some_and(|it| it.uuid != own.uuid) || other.ends_with("reserve") {
                    alone.delete_file(other)?;
                }
            }
        }
        // What the image has behind it is forgotten, and goes into no copy of it.
        alone.checkpoint();
        targets.push(Target::new(alone, path, name(path), options)?);
    }
    Ok(targets)
}

impl Target {
    fn new(
        fs: SimFileSystem,
        path: &Path,
        name: Option<FileName>,
        options: &Options,
    ) -> Verdict<Self> {
        let bytes = fs.read_file(path)?;
        let found = answers(&open_store_read_only(&fs, Path::new(DIR), options.clone())?)?;
        ensure(!found.told, || format!("{}: damaged before it was damaged", path.display()))?;
        let frames = name.map_or_else(Vec::new, |name| frames(&bytes, &name.uuid));
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            options: options.clone(),
            found,
            frames,
            is_active: path.extension().is_some_and(|it| it == "active"),
            is_segment: name.is_some(),
            fs,
        })
    }

    /// Rows of the largest block or batch.
    fn block_rows(&self) -> usize {
        let rows = self.frames.iter().filter(|frame| frame.kind.has_rows());
        rows.map(|frame| frame.rows as usize).max().unwrap_or(0)
    }

    fn all_rows(&self) -> usize {
        self.found.rows.iter().map(Vec::len).sum()
    }

    /// Rows of whole blocks, or of whole commits, in the first `len` bytes.
    fn rows_below(&self, len: usize) -> usize {
        let (mut rows, mut pending) = (0, 0);
        for frame in self.frames.iter().filter(|frame| place(frame.end()) <= len) {
            match frame.kind {
                FrameKind::Rows => pending += frame.rows as usize,
                FrameKind::Commit => rows += std::mem::take(&mut pending),
                FrameKind::Block => rows += frame.rows as usize,
                _ => {}
            }
        }
        rows
    }

    /// Reads the store with other bytes in the file. `deep`: opens it for writing, too, and
    /// seals.
    fn loss(&self, bytes: &[u8], deep: bool) -> Verdict<Loss> {
        guarded(|| {
            let image = self.fs.kill_image();
            image.write_file(&self.path, bytes)?;
            let store = open_store_read_only(&image, Path::new(DIR), self.options.clone())?;
            let loss = self.compare(&store)?;
            if deep {
                store.verify(true)?;
                let store = open_store(&image, Path::new(DIR), self.options.clone())
                    .map_err(|error| super::Violation::from(error).after("opening to write"))?;
                let again = self.compare(&store).map_err(|it| it.after("opened to write"))?;
                ensure(again.rows == loss.rows, || {
                    format!("opened to write: {again:?}, {loss:?}")
                })?;
                // What is damaged is not merged away: the rows stay as they were.
                store.seal()?;
                let sealed = self.compare(&store).map_err(|it| it.after("sealed"))?;
                ensure(sealed.rows == loss.rows, || format!("sealed: {sealed:?}, {loss:?}"))?;
                store.close()?;
            }
            Ok(loss)
        })
    }

    fn compare(&self, store: &Store) -> Verdict<Loss> {
        let found = answers(store)?;
        let mut rows = 0;
        for table in Table::ALL {
            rows += missing(&self.found.rows[table.index()], &found.rows[table.index()])?;
        }
        for (expected, found_total) in self.found.totals.iter().zip(&found.totals) {
            match (expected, found_total) {
                (Some(expected), Some(total)) if rows == 0 => {
                    ensure(agrees(expected, total), || {
                        format!("{total:?}, expected {expected:?}")
                    })?;
                }
                (_, None) => ensure(found.told, || "an aggregate is refused, and why?".to_owned())?,
                _ => {}
            }
        }
        Ok(Loss { rows, told: found.told })
    }

    /// Flips one bit. A header copy, an index, a summary or any other file costs no row; a
    /// block or a batch costs at most itself, and is told.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_flip(&self, bit: usize) -> Verdict<Loss> {
        let at = bit / 8;
        let mut bytes = self.bytes.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
        let story = |what: &str| format!("{}: bit {bit} flipped: {what}", self.path.display());
        let loss = self
            .loss(&bytes, bit.is_multiple_of(1_021))
            .map_err(|found| found.after(&story("")))?;
        let most = if self.is_segment && at >= FRAMES_OFFSET { self.block_rows() } else { 0 };
        let is_record = self.path.parent().is_some_and(|dir| dir.ends_with("txn"));
        ensure(loss.rows <= most || is_record && loss.told, || story(&format!("{loss:?}")))?;
        ensure(loss.rows == 0 || loss.told, || {
            story(&format!("{} rows are gone in silence", loss.rows))
        })?;
        Ok(loss)
    }

    /// Cuts the file. What is whole before the cut is there; what is gone is told, but for the
    /// end of an active segment, which leaves no trace.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_cut(&self, len: usize) -> Verdict<Loss> {
        let story = |what: &str| format!("{}: cut at {len}: {what}", self.path.display());
        let bytes = self.bytes.get(..len).unwrap_or(&self.bytes);
        // Opened for writing, the file of which nothing is left may go: it was never written.
        let deep = len.is_multiple_of(131) && len >= FRAMES_OFFSET;
        let loss = self.loss(bytes, deep).map_err(|found| found.after(&story("")))?;
        if !self.is_segment {
            ensure(loss.rows == 0 || loss.told, || story(&format!("{loss:?}")))?;
            return Ok(loss);
        }
        let kept = self.all_rows() - loss.rows;
        let headers = if self.is_active { FRAMES_OFFSET } else { HEADER_COPY_BYTES };
        if len >= headers {
            let least = self.rows_below(len);
            ensure(kept >= least && (kept == least || !self.is_active), || {
                story(&format!("{kept} rows, {least} are whole"))
            })?;
        }
        ensure(loss.rows == 0 || loss.told || self.is_active && len >= headers, || {
            story(&format!("{} rows are gone in silence", loss.rows))
        })?;
        Ok(loss)
    }

    /// Appends bytes that do not belong to the file: nothing changes.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_longer(&self, tail: &[u8]) -> Verdict<Loss> {
        let bytes = [&self.bytes[..], tail].concat();
        let story =
            |what: &str| format!("{}: {} bytes more: {what}", self.path.display(), tail.len());
        let loss = self.loss(&bytes, false).map_err(|found| found.after(&story("")))?;
        ensure(loss.rows == 0 || !self.is_segment && loss.told, || story(&format!("{loss:?}")))?;
        Ok(loss)
    }

    /// Writes each frame over every other of its length, as a disk does that mixes up places
    /// or brings an old copy back: the frame that was there is lost, and told, and no row of
    /// the other is there twice. Returns how often that could be done.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_misplaced(&self) -> Verdict<u64> {
        let mut count = 0;
        for from in &self.frames {
            for to in &self.frames {
                if from.offset == to.offset || from.frame_bytes() != to.frame_bytes() {
                    continue;
                }
                let mut bytes = self.bytes.clone();
                let source = place(from.offset)..place(from.end());
                bytes.copy_within(source, place(to.offset));
                let story =
                    format!("{}: frame {} over frame {}", self.path.display(), from.seq, to.seq);
                let loss = self.loss(&bytes, false).map_err(|found| found.after(&story))?;
                ensure(loss.rows <= self.block_rows(), || format!("{story}: {loss:?}"))?;
                ensure(loss.rows == 0 || loss.told, || {
                    format!("{story}: {} rows are gone in silence", loss.rows)
                })?;
                count += 1;
            }
        }
        Ok(count)
    }
}

// ---------------------------------------------------------------------------------------
// Small stores

fn stamp(number: i64) -> Timestamp {
    let micros = super::rows::START + (number * 7_919_000_003).rem_euclid(2 * MICROS_PER_DAY);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::MIN)
}

fn record(store: &Store, first: i64, rows: i64) -> Verdict {
    for number in first..first + rows {
        // All batches are equally long, so that frames can take each other's place.
        let row = super::rows::row_of(usize::try_from(number / 10).unwrap_or(0) + 10, 0, 1);
        let (id, metadata) = (format!("task-{number:05}"), (number % 5 == 0).then_some("[1]"));
        let mut task = super::rows::metric(&row);
        (task.timestamp, task.task_id) = (stamp(number), &id);
        store.record_task(&task)?;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let value = number as f64 * 0.375 - 9.0;
        let (id, kind) = (format!("id-{}", number % 3), format!("kind-{}", number % 2));
        let timestamp = stamp(number);
        let agent = AgentMetric { timestamp, agent_id: &id, metric_type: &kind, value, metadata };
        store.record_agent(&agent)?;
        let swarm = SwarmMetric { timestamp, swarm_id: &id, metric_type: &kind, value, metadata };
        store.record_swarm(&swarm)?;
    }
    Ok(())
}

/// A store with files of every kind but rollups and tombstones: active segments, ended and
/// not, sealed ones, archives, an import.
///
/// # Errors
///
/// Those of the store.
pub fn small_store() -> Verdict<(SimFileSystem, Options)> {
    let clock = Hand::new();
    let options = options(&clock);
    let fs = SimFileSystem::with_seed(4);
    let dir = Path::new(DIR);
    let store = open_store(&fs, dir, options.clone())?;
    record(&store, 0, 120)?;
    store.seal()?;
    let tiers =
        Tiers { detailed_days: 0, archive_days: Tiers::DAYS_MAX, hourly_days: 0, daily_days: 0 };
    let rule = TableRetention::Tiers(tiers);
    store.set_retention(&Retention { task: rule, agent: rule, ..Retention::KEEP })?;
    let request = MaintenanceRequest { accept_clock: true, ..MaintenanceRequest::default() };
    store.maintain(&request)?;
    let source =
        ImportSource { name: "source".to_owned(), hash: 7, crc32: 0, bytes: 1, again: false };
    let mut import = store.begin_import(source)?;
    for number in 0..40 {
        import.append_task(&super::rows::metric(&super::rows::row_of(1, number, 40)))?;
    }
    import.commit()?;
    record(&store, 200, 60)?;
    store.seal()?;
    for batch in 0..5 {
        record(&store, 300 + batch * 20, 20)?;
        store.flush()?;
    }
    store.close()?;
    let store = open_store(&fs, dir, options.clone())?;
    for batch in 0..5 {
        record(&store, 500 + batch * 20, 20)?;
        store.flush()?;
    }
    Ok((fs.kill_image(), options))
}

/// A store read from elsewhere: paths below it, and bytes. Options are those of now, on a
/// clock that stands at the end of the rows' days.
///
/// # Errors
///
/// `is_not_found` for a path whose directory comes later than it.
pub fn store_of(files: &[(PathBuf, Vec<u8>)]) -> Verdict<(SimFileSystem, Options)> {
    let fs = SimFileSystem::new();
    fs.create_dir(Path::new(DIR))?;
    for (path, bytes) in files {
        let path = Path::new(DIR).join(path);
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for dir in above.into_iter().rev().filter(|dir| dir.starts_with(DIR)) {
            match fs.create_dir(dir) {
                Err(error) if !error.is_already_there() => return Err(error.into()),
                _ => {}
            }
        }
        fs.write_file(&path, bytes)?;
    }
    Ok((fs, options(&Hand::new())))
}
