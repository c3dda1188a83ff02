//! Active segments: append committed frames, read them live (spec 3).
//!
//! Owns the one writer of an active segment and the tail that any process follows it
//! with. An active segment is its own log: a batch is one or more ROWS frames and a
//! COMMIT, and it counts from the moment the COMMIT is whole. There is no published
//! length; a reader finds the end by verifying frames from the last end it knew.
//!
//! ```text
//! | header | header | ROWS COMMIT | ROWS ROWS COMMIT | END | zeros ...
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::column::{Batch, Column, Strings, extremes};
use crate::encoding::{Chunk, Effort};
use crate::error::{Error, ErrorKind, Result};
use crate::format::directory::BlockDirectory;
use crate::format::frame::{Commit, FrameHeader, FrameKind};
use crate::format::header::{Header, TableSchema};
use crate::format::id::{FileKind, Id};
use crate::format::layout::{ALIGNMENT, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAMES_OFFSET};
use crate::fs::{Bytes, File, FileSystem, lock_new, make_locked, read_exact_at};
use crate::limits::{FRAME_BYTES_MAX, FRAME_ROWS_MAX};
use crate::planted::{Bug, is_planted};
use crate::schema::Table;
use crate::segment::files::{FileName, SegmentPlace, StoreRoot, seal_rows};
use crate::segment::frames::{self, BlockReader, FramePlace};
use crate::segment::seal::SealedFile;
use crate::segment::{
    BlockInfo, Depth, LastValue, Segment, SegmentDamage, SegmentKey, Summaries, UseChunk, reason_of,
};
use crate::time::Partition;

/// Space that is zero-filled when an active segment is created.
const FIRST_FILL_BYTES: u64 = 64 << 10;
/// Most space that is zero-filled at once.
const FILL_BYTES_MAX: u64 = 8 << 20;
/// Space is not filled ahead after a commit of at least this many bytes.
const LARGE_APPEND_BYTES: u64 = 1 << 20;
/// Raw bytes of the rows of one frame; a larger batch becomes several frames.
const FRAME_RAW_BYTES: usize = FRAME_BYTES_MAX / 2;
/// Rows of one frame; a larger batch becomes several.
const FRAME_ROWS: usize = FRAME_ROWS_MAX / 4;
/// Bytes that a tail reads at once while it verifies.
const READ_BYTES: usize = 1 << 20;

/// The one appender of an active segment. It holds the file's lock while it lives.
#[derive(Debug)]
pub(crate) struct ActiveWriter {
    fs: Arc<dyn FileSystem>,
    file: Arc<dyn File>,
    path: PathBuf,
    header: Header,
    table: Table,
    next_seq: u64,
    end: u64,
    filled: u64,
    rows: u64,
    /// Bytes of the last commit.
    last_append: u64,
    /// Last sequence number that is known to be durable.
    durable: Option<u64>,
    /// Committed batches that no sync has covered yet; not kept in `Durability::Os`.
    unsynced: Vec<Arc<Batch>>,
    keep_unsynced: bool,
    /// A sync failed: what is not known to be durable may never be, whatever a later one says.
    is_lost: bool,
    scratch: Vec<u8>,
}

impl ActiveWriter {
    /// Creates an active segment: locked, written, synced, and then named (spec 3.6).
    ///
    /// The caller bumps the store's generation before it commits anything.
    pub(crate) fn create(
        fs: &Arc<dyn FileSystem>,
        place: &SegmentPlace<'_>,
        writer: Id,
        created: i64,
        keep_unsynced: bool,
    ) -> Result<Self> {
        place.ensure_dir(fs.as_ref())?;
        make_locked(|| Self::try_create(fs, place, writer, created, keep_unsynced))
    }

    fn try_create(
        fs: &Arc<dyn FileSystem>,
        place: &SegmentPlace<'_>,
        writer: Id,
        created: i64,
        keep_unsynced: bool,
    ) -> Result<Self> {
        let uuid = Id::from_bytes(fs.unique_id());
        let (major, minor) = Header::VERSION;
        let header = Header {
            major,
            minor,
            kind: FileKind::Active,
            store_id: place.store_id,
            uuid,
            writer,
            txn: None,
            partition: place.partition,
            created,
            table: TableSchema::of(place.table.schema()),
            replaces: Vec::new(),
        };
        let dir = place.dir();
        let path = dir.join(FileName::new(uuid, FileKind::Active).to_string());
        let tmp = dir.join(format!("{}.tmp", FileName::new(uuid, FileKind::Active)));
        let file = fs.create(&tmp)?;
        let made = (|| {
            lock_new(fs.as_ref(), &*file)?;
            let mut bytes = header.encode()?;
            bytes.resize(bytes.len() + usize::try_from(FIRST_FILL_BYTES).unwrap_or(0), 0);
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            fs.rename_new(&tmp, &path)?;
            if !is_planted(Bug::SkipDirectorySync) {
                fs.sync_dir(&dir)?;
            }
            if fs.metadata(&path)?.inode != file.inode()? {
                return Err(
                    Error::new(ErrorKind::Locked, "another file took its name").with_path(&path)
                );
            }
            Ok(bytes.len() as u64)
        })();
        match made {
            Ok(filled) => Ok(Self {
                fs: Arc::clone(fs),
                file,
                path,
                header,
                table: place.table,
                next_seq: 0,
                end: FRAMES_OFFSET as u64,
                filled,
                rows: 0,
                last_append: 0,
                durable: None,
                unsynced: Vec::new(),
                keep_unsynced,
                is_lost: false,
                scratch: Vec::new(),
            }),
            Err(error) => {
                // Best effort: what stays is an unnamed or empty file that merging removes.
                let _ = fs.remove(&tmp);
                Err(error)
            }
        }
    }

    /// Uuid of the file.
    pub(crate) fn uuid(&self) -> Id {
        self.header.uuid
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Committed rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes up to the last COMMIT.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// Whether a commit has not been synced.
    pub(crate) fn is_dirty(&self) -> bool {
        self.next_seq > 0 && self.durable != Some(self.next_seq - 1)
    }

    /// Whether a sync of the file failed, for whatever reason: it must not be appended to or
    /// synced again.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Commits batches, each whole or absent, in one write.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `Io`: nothing of the batches counts; the call may be repeated.
    pub(crate) fn append(&mut self, batches: &[Arc<Batch>]) -> Result<()> {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let done = self.encode(batches, &mut out).and_then(|after| {
            self.file.write_all_at(&out, self.end)?;
            Ok(after)
        });
        let written = out.len() as u64;
        if out.capacity() <= 4 * FRAME_RAW_BYTES {
            self.scratch = out;
        }
        let (next_seq, rows) = done?;
        self.next_seq = next_seq;
        self.rows = rows;
        self.end += written;
        self.filled = self.filled.max(self.end);
        self.last_append = written;
        if self.keep_unsynced {
            self.unsynced.extend(batches.iter().cloned());
        }
        Ok(())
    }

    fn encode(&self, batches: &[Arc<Batch>], out: &mut Vec<u8>) -> Result<(u64, u64)> {
        let mut seq = self.next_seq;
        let mut rows = self.rows;
        for batch in batches {
            for piece in pieces(batch) {
                let piece = piece.as_deref().unwrap_or(batch);
                let (min, max) = extremes(piece.timestamps()).unwrap_or((i64::MAX, i64::MIN));
                let place = self.frame_place(FrameKind::Rows, seq, out.len(), (min, max));
                frames::encode_block_frame(&place, &piece.columns, &[], Effort::Append, out)?;
                seq += 1;
            }
            rows += batch.len() as u64;
            let durable_upto = self.durable.filter(|_| !is_planted(Bug::LoseDurableMark));
            let commit = Commit { rows_total: rows, durable_upto };
            let place = self.frame_place(FrameKind::Commit, seq, out.len(), (0, 0));
            frames::encode_plain_frame(&place, &commit.encode(), out)?;
            seq += 1;
        }
        Ok((seq, rows))
    }

    fn frame_place(
        &self,
        kind: FrameKind,
        seq: u64,
        ahead: usize,
        stamps: (i64, i64),
    ) -> FramePlace {
        let offset = self.end + ahead as u64;
        FramePlace { kind, sub: 0, uuid: self.uuid(), seq, offset, stamps }
    }

    /// Makes every committed batch durable.
    ///
    /// # Errors
    ///
    /// After an error this file must not be appended to or synced again: the rows of
    /// [`unsynced`](Self::unsynced) have to be written elsewhere.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.is_dirty() {
            self.sync_file()?;
            self.durable = Some(self.next_seq - 1);
            self.unsynced.clear();
        }
        Ok(())
    }

    fn sync_file(&mut self) -> Result<()> {
        if is_planted(Bug::AcknowledgeBeforeSync)
            || is_planted(Bug::RetryFailedSync) && self.file.sync_data().is_err()
        {
            return Ok(());
        }
        self.file.sync_data().inspect_err(|_| self.is_lost = true)
    }

    /// Zero-fills space for what is to come, so that a commit need not grow the file. Not
    /// part of a commit: call it when nobody waits.
    ///
    /// # Errors
    ///
    /// A failed sync counts as one of [`sync`](Self::sync); a failed write costs only speed.
    pub(crate) fn fill_ahead(&mut self) -> Result<()> {
        let used = self.end - FRAMES_OFFSET as u64;
        let enough = self.filled - self.end >= FIRST_FILL_BYTES.min(used / 4 + 1);
        // To a large commit the growing of the file is little, and zeros are twice the writing.
        // Where commits are left to the operating system, none of them waits for a sync that
        // could be cheaper, and syncing the zeros would cost more than all of them.
        if enough || self.last_append >= LARGE_APPEND_BYTES || !self.keep_unsynced {
            return Ok(());
        }
        let bytes = used.clamp(FIRST_FILL_BYTES, FILL_BYTES_MAX);
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
        if self.file.write_all_at(&zeros, self.filled.max(self.end)).is_err() {
            return Ok(());
        }
        self.filled = self.filled.max(self.end) + bytes;
        self.sync_file()?;
        self.durable = self.next_seq.checked_sub(1);
        self.unsynced.clear();
        Ok(())
    }

    /// Ends the segment: nothing is appended any more. Synced (spec 3.3).
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append) and [`sync`](Self::sync); [`is_lost`](Self::is_lost) tells
    /// which.
    pub(crate) fn finish(&mut self) -> Result<()> {
        // END says that all before it was durable: none of it may come after END does.
        self.sync()?;
        let mut out = Vec::new();
        let place = self.frame_place(FrameKind::End, self.next_seq, 0, (0, 0));
        frames::encode_plain_frame(&place, &[], &mut out)?;
        self.file.write_all_at(&out, self.end)?;
        self.sync_file()?;
        self.durable = Some(self.next_seq);
        self.unsynced.clear();
        Ok(())
    }

    /// The batches after the last durable COMMIT, in the order they were committed.
    pub(crate) fn unsynced(&self) -> &[Arc<Batch>] {
        &self.unsynced
    }

    /// Whether `unsynced` holds all that is not durable.
    pub(crate) fn keeps_unsynced(&self) -> bool {
        self.keep_unsynced
    }

    /// Last sequence number that is known to be durable.
    pub(crate) fn durable_seq(&self) -> Option<u64> {
        self.durable
    }

    /// Seals `batches`, the rows of this segment, into a segment that replaces it.
    ///
    /// # Errors
    ///
    /// As `segment::seal::seal`; this segment is as it was.
    pub(crate) fn seal(&self, root: &StoreRoot, batches: &[Batch]) -> Result<SealedFile> {
        let replaces = [self.uuid()];
        seal_rows(root, self.table, self.header.partition, &replaces, None, batches)
    }

    /// Reads back every committed row whose frame has a sequence number up to `last`.
    ///
    /// # Errors
    ///
    /// `Corrupt`, `Io`: what was committed cannot be read.
    pub(crate) fn read_back(&self, last: Option<u64>) -> Result<Vec<Batch>> {
        let mut tail = ActiveTail::open(&self.fs, &self.path, String::new())?;
        tail.refresh(true)?;
        let view = tail.view();
        let mut batches = Vec::new();
        for block in 0..view.frames.len() {
            if last.is_some_and(|last| view.frames[block].seq <= last) {
                batches.push(view.batch(block)?);
            }
        }
        match view.damage.first() {
            Some(damage) => Err(Error::corrupt("3.5", damage.reason.clone()).with_path(&self.path)),
            None => Ok(batches),
        }
    }
}

/// A batch in pieces that fit a frame; `None` stands for the batch itself.
fn pieces(batch: &Batch) -> Vec<Option<Box<Batch>>> {
    let bytes = batch.memory_bytes();
    let count = bytes.div_ceil(FRAME_RAW_BYTES).max(batch.len().div_ceil(FRAME_ROWS)).max(1);
    if count == 1 {
        return vec![None];
    }
    let step = batch.len().div_ceil(count).max(1);
    let mut pieces = Vec::with_capacity(count);
    let mut start = 0;
    while start < batch.len() {
        let end = (start + step).min(batch.len());
        let rows: Vec<u32> =
            (start..end).map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        let piece = batch.gather(&rows);
        // Rows of very different sizes: halve what is still too large.
        if piece.memory_bytes() > FRAME_BYTES_MAX / 8 * 7 && piece.len() > 1 {
            pieces.extend(pieces_of(piece));
        } else {
            pieces.push(Some(Box::new(piece)));
        }
        start = end;
    }
    pieces
}

fn pieces_of(batch: Batch) -> Vec<Option<Box<Batch>>> {
    let inner = pieces(&batch);
    match inner.as_slice() {
        [None] => vec![Some(Box::new(batch))],
        _ => inner,
    }
}

/// An immutable view of the committed rows of an active segment.
#[derive(Clone, Debug)]
pub(crate) struct ActiveSegment {
    key: SegmentKey,
    file: String,
    path: PathBuf,
    table: Table,
    partition: Partition,
    frames: Vec<FrameHeader>,
    blocks: Vec<BlockInfo>,
    stamps: Option<(i64, i64)>,
    bytes: Bytes,
    damage: Vec<SegmentDamage>,
    problems: Vec<String>,
    /// Number of the last frame that a COMMIT says is durable.
    durable: Option<u64>,
    /// Whether the file may be anybody's.
    is_untrusted: bool,
}

impl ActiveSegment {
    /// Whether it has no rows, and no damage that would explain that.
    pub(crate) fn is_emptied(&self) -> bool {
        self.frames.is_empty() && self.damage.is_empty()
    }

    /// Rows that a COMMIT says are durable: no power cut takes them.
    pub(crate) fn durable_rows(&self) -> u64 {
        let durable = self.frames.iter().filter(|frame| Some(frame.seq) <= self.durable);
        durable.map(|frame| u64::from(frame.rows)).sum()
    }

    /// Checks every frame again, and decodes it. Returns what is wrong.
    ///
    /// # Errors
    ///
    /// `Io` when the file cannot be read.
    pub(crate) fn verify(&self) -> Result<Vec<SegmentDamage>> {
        let mut wrong: Vec<SegmentDamage> =
            self.problems.iter().cloned().map(SegmentDamage::harmless).collect();
        wrong.extend(self.damage.iter().cloned());
        for (block, frame) in self.frames.iter().enumerate() {
            for column in 0..self.table.schema().columns.len() {
                let Err(error) = self.verify_chunk(block, column) else { continue };
                if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn) {
                    return Err(error);
                }
                wrong.push(BadFrame::of(frame, Some(column), &error).damage(None));
            }
        }
        Ok(wrong)
    }

    fn verify_chunk(&self, block: usize, column: usize) -> Result<()> {
        let (reader, bytes) = self.chunk(block, column)?;
        bytes.populate().map_err(|cause| Error::io("read", &self.path, cause))?;
        reader.check(column, &bytes)?;
        self.read(block, column).map(|_| ())
    }

    /// All columns of one frame.
    pub(crate) fn batch(&self, block: usize) -> Result<Batch> {
        let schema = self.table.schema();
        let columns: Result<Vec<Column>> =
            (0..schema.columns.len()).map(|column| self.read(block, column)).collect();
        Ok(Batch { schema, columns: columns? })
    }

    fn reader(&self, block: usize) -> Result<BlockReader> {
        let frame = &self.frames[block];
        let payload = self.bytes_at(frame.offset, frame.frame_bytes(), true)?;
        BlockReader::of(*frame, &payload, self.is_untrusted)
    }

    /// Bytes of the file; those of a frame without its header if `payload`.
    fn bytes_at(&self, offset: u64, len: u64, payload: bool) -> Result<Bytes> {
        let skip = if payload { FRAME_HEADER_BYTES as u64 } else { 0 };
        let place = |at: u64| usize::try_from(at).ok();
        place(offset + skip)
            .zip(place(offset + len))
            .and_then(|(start, end)| self.bytes.slice(start..end))
            .ok_or_else(|| Error::corrupt("3.1", "a frame lies outside the file"))
    }

    fn chunk(&self, block: usize, column: usize) -> Result<(BlockReader, Bytes)> {
        let reader = self.reader(block)?;
        let range = reader.chunk_range(column)?;
        let bytes = self.bytes_at(range.start, range.end - range.start, false)?;
        Ok((reader, bytes))
    }
}

impl Segment for ActiveSegment {
    fn key(&self) -> SegmentKey {
        self.key
    }

    fn file(&self) -> String {
        self.file.clone()
    }

    fn table(&self) -> Table {
        self.table
    }

    fn partition(&self) -> Partition {
        self.partition
    }

    fn stamps(&self) -> Option<(i64, i64)> {
        self.stamps
    }

    fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    fn zone(&self, block: usize, column: usize) -> Option<(i64, i64)> {
        self.reader(block).ok()?.entry(column)?.zone
    }

    fn nulls(&self, block: usize, column: usize) -> Option<u32> {
        Some(self.reader(block).ok()?.entry(column)?.nulls)
    }

    fn chunk_bytes(&self, block: usize, column: usize) -> u64 {
        let bytes = |reader: BlockReader| reader.entry(column).map(|chunk| u64::from(chunk.len));
        self.reader(block).ok().and_then(bytes).unwrap_or(0)
    }

    fn with_chunk(&self, block: usize, column: usize, each: UseChunk<'_>) -> Result<()> {
        let kind = self.table.schema().columns[column].kind;
        let used = self
            .chunk(block, column)
            .and_then(|(reader, bytes)| each(&reader.parse(column, &bytes, kind)?, &bytes, None));
        let offset = self.frames[block].offset;
        used.map_err(|error| error.with_path(&self.path).with_offset(offset))
    }

    fn dictionary(&self, _column: usize) -> Result<Option<Arc<Strings>>> {
        Ok(None)
    }

    fn might_contain(&self, _column: usize, _text: &str) -> bool {
        true
    }

    fn block_might_contain(&self, block: usize, column: usize, text: &str) -> bool {
        let kind = self.table.schema().columns[column].kind;
        self.chunk(block, column)
            .and_then(|(_, bytes)| Ok(Chunk::parse(&bytes, kind)?.might_contain(text)))
            .unwrap_or(true)
    }

    fn summaries(&self, _depth: Depth) -> Option<Arc<Summaries>> {
        None
    }

    fn newest(&self, _measure: usize) -> Option<LastValue> {
        None
    }

    fn damage(&self) -> Vec<SegmentDamage> {
        self.damage.clone()
    }
}

/// A torn tail: bytes after the last whole COMMIT that no durable mark vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TornTail {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Bytes up to the last one that is not zero.
    pub(crate) bytes: u64,
    /// Whole frames among them, at least.
    pub(crate) frames: u64,
}

/// Follows an active segment from any process.
#[derive(Debug)]
pub(crate) struct ActiveTail {
    file: Arc<dyn File>,
    header: Header,
    view: Arc<ActiveSegment>,
    end: u64,
    next_seq: u64,
    durable: Option<u64>,
    rows_lost: u64,
    ended: bool,
    /// Whether the space after the last frame has been looked through.
    searched: bool,
    torn: Option<TornTail>,
}

/// What lies at an offset.
enum Found {
    Frame(FrameHeader, Vec<u8>),
    Nothing,
    Bad(BadFrame),
}

/// A frame that cannot be used.
#[derive(Clone, Debug)]
struct BadFrame {
    /// Its number, or that of the frame that should be there.
    seq: u64,
    reason: String,
    /// The column, where one chunk alone is bad.
    column: Option<usize>,
    /// Rows, and their earliest and latest stamp, where its header can be read.
    rows: Option<(u32, i64, i64)>,
}

impl BadFrame {
    /// One of which not even the header can be used.
    fn unknown(seq: u64, reason: impl Into<String>) -> Self {
        Self { seq, reason: reason.into(), column: None, rows: None }
    }

    /// One whose header is good.
    fn of(frame: &FrameHeader, column: Option<usize>, error: &Error) -> Self {
        let is_rows = frame.kind == FrameKind::Rows;
        let rows = is_rows.then_some((frame.rows, frame.min_ts, frame.max_ts));
        Self { seq: frame.seq, reason: reason_of(error), column, rows }
    }

    /// As damage; `rows` where the header does not say how many there were.
    fn damage(self, rows: Option<u64>) -> SegmentDamage {
        SegmentDamage {
            block: Some(self.seq),
            column: self.column,
            rows: self.rows.map(|(rows, ..)| rows.into()).or(rows),
            stamps: self.rows.map(|(_, min, max)| (min, max)),
            reason: self.reason,
        }
    }
}

impl ActiveTail {
    /// Opens an active segment for reading. `name` is the file relative to the store.
    ///
    /// # Errors
    ///
    /// `NotOurFile`, `UnsupportedVersion`, `Corrupt`, `Torn` for a bad header, `Io`.
    pub(crate) fn open(fs: &Arc<dyn FileSystem>, path: &Path, name: String) -> Result<Self> {
        let file = fs.open(path)?;
        let mut bytes = vec![0; FRAMES_OFFSET];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let copies = Header::decode(&bytes).map_err(|error| error.with_path(path))?;
        let problems = copies.problems();
        if read < FRAMES_OFFSET {
            // It had both headers when it got its name, so rows may be gone with the second.
            let message = "the file ends before its headers are whole";
            return Err(Error::new(ErrorKind::Torn, message).with_path(path));
        }
        let header = copies.header;
        let table = header.known_table().ok_or_else(|| {
            Error::new(ErrorKind::NotOurFile, "the file is of a table this version does not know")
                .with_path(path)
        })?;
        if header.kind != FileKind::Active {
            return Err(Error::corrupt("2.1", "expected an active segment").with_path(path));
        }
        let end = FRAMES_OFFSET as u64;
        let view = ActiveSegment {
            key: SegmentKey { uuid: *header.uuid.as_bytes(), end },
            file: name,
            path: path.to_path_buf(),
            table,
            partition: header.partition,
            frames: Vec::new(),
            blocks: Vec::new(),
            stamps: None,
            bytes: Bytes::from_vec(Vec::new()),
            damage: Vec::new(),
            problems,
            durable: None,
            is_untrusted: false,
        };
        Ok(Self {
            file,
            header,
            view: Arc::new(view),
            end,
            next_seq: 0,
            durable: None,
            rows_lost: 0,
            ended: false,
            searched: false,
            torn: None,
        })
    }

    /// Takes the file for one that may be anybody's; before the first refresh.
    pub(crate) fn distrust(mut self) -> Self {
        Arc::make_mut(&mut self.view).is_untrusted = true;
        self
    }

    /// The file's header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The committed rows as of the last refresh.
    pub(crate) fn view(&self) -> Arc<ActiveSegment> {
        Arc::clone(&self.view)
    }

    /// The torn tail that the last refresh met, if any. While the owner lives this may be
    /// a commit that is being written.
    pub(crate) fn torn(&self) -> Option<TornTail> {
        self.torn.filter(|_| !is_planted(Bug::SilentTornTail))
    }

    /// Takes in what was committed since (spec 3.4). `copied`: keep the bytes in memory, do
    /// not map.
    ///
    /// # Errors
    ///
    /// `Io` when the file cannot be read; damaged bytes are reported by the view instead.
    pub(crate) fn refresh(&mut self, copied: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let before = (self.end, self.next_seq, self.durable, self.searched);
        let done = self.walk(copied);
        if done.is_err() {
            // What was walked over is in no view yet: it is walked over again.
            (self.end, self.next_seq, self.durable, self.searched) = before;
            self.ended = false;
        }
        done
    }

    fn walk(&mut self, copied: bool) -> Result<()> {
        let len = self.file.len()?;
        let first = !std::mem::replace(&mut self.searched, true);
        let mut walk = Walk { at: self.end, seq: self.next_seq, ..Walk::default() };
        let mut news = News::default();
        self.torn = None;
        loop {
            let bad = match self.found(walk.at, walk.seq, len)? {
                Found::Frame(header, payload) => {
                    if self.take(&mut walk, &mut news, &header, &payload) {
                        break;
                    }
                    continue;
                }
                // Nothing written yet, or a write that was lost: what follows tells. Later
                // refreshes go on from an end that was verified, and need not search.
                Found::Nothing if first && self.is_used_after(walk.at, len)? => BadFrame::unknown(
                    walk.seq,
                    format!("at byte {}: no frame was written", walk.at),
                ),
                Found::Nothing => break,
                Found::Bad(bad) => bad,
            };
            match self.resync(&mut walk, len)? {
                // The frame may have been half written when it was looked at.
                Some(_) if matches!(self.look(walk.at, walk.seq, len)?, Found::Frame(..)) => {}
                Some((offset, seq)) => {
                    let alone = bad.rows.is_none() || seq <= walk.seq + 1;
                    news.bad.push(bad);
                    if !alone {
                        let reason = format!("no whole frame before frame {seq}");
                        news.bad.push(BadFrame::unknown(walk.seq + 1, reason));
                    }
                    (walk.at, walk.seq) = (offset, seq);
                }
                None => {
                    self.torn = self.torn_tail(len, walk.pending.len() as u64)?;
                    break;
                }
            }
        }
        if self.torn.is_none() && !walk.pending.is_empty() {
            self.torn = self.torn_tail(len, walk.pending.len() as u64)?;
        }
        if news.is_empty() { Ok(()) } else { self.publish(news, copied) }
    }

    /// Takes one frame into the walk; true when the segment has ended.
    fn take(
        &mut self,
        walk: &mut Walk,
        news: &mut News,
        header: &FrameHeader,
        payload: &[u8],
    ) -> bool {
        walk.at = header.end();
        walk.seq = header.seq + 1;
        match header.kind {
            FrameKind::Rows => walk.pending.push(*header),
            FrameKind::Commit => {
                news.frames.append(&mut walk.pending);
                if let Ok(commit) = Commit::decode(payload, header.seq) {
                    self.durable = self.durable.max(commit.durable_upto);
                    news.rows_total = Some(commit.rows_total);
                    news.commit_seq = Some(header.seq);
                }
                (news.end, self.end, self.next_seq) = (walk.at, walk.at, walk.seq);
            }
            FrameKind::End => {
                if news.is_damaged_after_commit() {
                    // The COMMIT of these rows was here: END is written after all of them.
                    news.frames.append(&mut walk.pending);
                }
                (news.end, self.end, self.next_seq) = (walk.at, walk.at, walk.seq);
                self.ended = true;
            }
            _ => news.bad.push(BadFrame::unknown(header.seq, "a frame of a sealed segment")),
        }
        self.ended
    }

    fn publish(&mut self, news: News, copied: bool) -> Result<()> {
        let bytes = if copied {
            let mut bytes = vec![0; usize::try_from(self.end).unwrap_or(usize::MAX)];
            read_exact_at(self.file.as_ref(), &mut bytes, 0)?;
            Bytes::from_vec(bytes)
        } else {
            self.file.map(self.end)?
        };
        let view = Arc::make_mut(&mut self.view);
        view.bytes = bytes;
        view.key.end = self.end;
        view.durable = self.durable;
        let mut first_row = view.rows();
        for header in &news.frames {
            view.frames.push(*header);
            view.blocks.push(BlockInfo {
                first_row,
                rows: header.rows,
                min_ts: header.min_ts,
                max_ts: header.max_ts,
            });
            first_row += u64::from(header.rows);
            view.stamps = Some(view.stamps.map_or((header.min_ts, header.max_ts), |(min, max)| {
                (min.min(header.min_ts), max.max(header.max_ts))
            }));
        }
        let lost = news
            .rows_total
            .map_or(0, |total| total.saturating_sub(first_row).saturating_sub(self.rows_lost));
        self.rows_lost += lost;
        // Those that no header speaks of were in the first frame without one, or after it.
        let known = news.bad.iter().filter_map(|bad| bad.rows);
        let known = known.fold(0, |sum: u64, (rows, ..)| sum.saturating_add(rows.into()));
        let mut rest = lost.saturating_sub(known);
        let uncounted = news.is_damaged_after_commit();
        let last = news.bad.len().saturating_sub(1);
        for (index, bad) in news.bad.into_iter().enumerate() {
            // Without a COMMIT after it nothing says how many rows there were.
            let counted = index != last || !uncounted;
            let is_known = bad.rows.is_some();
            view.damage.push(bad.damage(counted.then_some(rest)));
            rest = if is_known { rest } else { 0 };
        }
        Ok(())
    }

    /// The frame at `at`, read once more before a mismatch counts.
    fn found(&self, at: u64, seq: u64, len: u64) -> Result<Found> {
        match self.look(at, seq, len)? {
            Found::Bad(_) => self.look(at, seq, len),
            found => Ok(found),
        }
    }

    fn look(&self, at: u64, seq: u64, len: u64) -> Result<Found> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if at + FRAME_HEADER_BYTES as u64 > len {
            return Ok(Found::Nothing);
        }
        read_exact_at(self.file.as_ref(), &mut bytes, at)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Found::Nothing);
        }
        let header = match FrameHeader::decode(&bytes, &self.header.uuid, at) {
            Ok(header) => header,
            Err(error) => {
                let reason = reason_of(&error.with_offset(at));
                return Ok(Found::Bad(BadFrame::unknown(seq, reason)));
            }
        };
        if header.seq != seq && !is_planted(Bug::AcceptMisplacedFrame) {
            let reason = format!("at byte {at}: frame {}, expected frame {seq}", header.seq);
            return Ok(Found::Bad(BadFrame::unknown(seq, reason)));
        }
        if header.end() > len {
            let error = Error::corrupt("3.1", "the frame reaches past the end of the file");
            return Ok(Found::Bad(BadFrame::of(&header, None, &error.with_offset(at))));
        }
        if self.view.is_untrusted
            && let Err(error) = frames::check_untrusted(&header)
        {
            return Ok(Found::Bad(BadFrame::of(&header, None, &error)));
        }
        let mut payload = vec![0; header.padded_len()];
        read_exact_at(self.file.as_ref(), &mut payload, at + FRAME_HEADER_BYTES as u64)?;
        if let Err((column, error)) = self.check(&header, &payload)
            && !is_planted(Bug::TrustFileLength)
        {
            let error = error.with_offset(at);
            return Ok(Found::Bad(BadFrame::of(&header, column, &error)));
        }
        payload.truncate(header.payload_len as usize);
        Ok(Found::Frame(header, payload))
    }

    /// Checks a frame; the error says which column is bad where it is one.
    fn check(&self, header: &FrameHeader, padded: &[u8]) -> Result<(), (Option<usize>, Error)> {
        let whole = |error| (None, error);
        match header.kind {
            FrameKind::Rows => {}
            FrameKind::Commit => {
                let payload = header.whole_payload(padded).map_err(whole)?;
                return Commit::decode(payload, header.seq).map(|_| ()).map_err(whole);
            }
            _ => return header.whole_payload(padded).map(|_| ()).map_err(whole),
        }
        let directory = BlockDirectory::read(header, padded).map_err(whole)?;
        let schema = self.view.table.schema();
        if directory.chunks.len() != schema.columns.len() {
            return Err(whole(Error::corrupt("4.1", "the directory does not fit the table")));
        }
        for column in 0..directory.chunks.len() {
            let checked = directory.check_chunk(header, padded, column).and_then(|()| {
                let bytes = directory.chunk(padded, column)?;
                frames::check_values(column, bytes, schema, self.view.partition)
            });
            checked.map_err(|error| (Some(column), error))?;
        }
        if !self.view.partition.range().covers(header.min_ts, header.max_ts) {
            return Err(whole(Error::corrupt("3.1", "rows outside the partition")));
        }
        Ok(())
    }

    /// The next frame after a bad one, if a later durable mark proves that the bad one was
    /// durable once: then it is damage, not a torn tail.
    fn resync(&self, walk: &mut Walk, len: u64) -> Result<Option<(u64, u64)>> {
        let seq = walk.seq;
        let mut first = None;
        let mut offset = walk.at + ALIGNMENT as u64;
        while let Some((found, header)) = self.next_header(offset, len)? {
            if header.seq < seq {
                offset = found + ALIGNMENT as u64;
                continue;
            }
            let Found::Frame(_, payload) = self.look(found, header.seq, len)? else {
                offset = found + ALIGNMENT as u64;
                continue;
            };
            let next = *first.get_or_insert((found, header.seq));
            match header.kind {
                FrameKind::Commit => {
                    let commit = Commit::decode(&payload, header.seq).ok();
                    walk.vouched = walk.vouched.max(commit.and_then(|c| c.durable_upto));
                }
                // END is written and synced after everything before it.
                FrameKind::End => walk.vouched = Some(u64::MAX),
                _ => {}
            }
            if walk.vouched.is_some_and(|mark| mark >= seq) {
                return Ok(Some(next));
            }
            offset = header.end();
        }
        Ok(None)
    }

    /// The next valid frame header at or after `offset`; frames begin at multiples of 8.
    fn next_header(&self, offset: u64, len: u64) -> Result<Option<(u64, FrameHeader)>> {
        if offset + FRAME_HEADER_BYTES as u64 > len {
            return Ok(None);
        }
        // A small look first: the next frame is nearly always right here.
        let mut bytes = [0; FRAME_HEADER_BYTES];
        read_exact_at(self.file.as_ref(), &mut bytes, offset)?;
        if let Ok(header) = FrameHeader::decode(&bytes, &self.header.uuid, offset) {
            return Ok(Some((offset, header)));
        }
        let mut start = offset;
        let mut window = vec![0; READ_BYTES];
        while start + FRAME_HEADER_BYTES as u64 <= len {
            let read = self.file.read_at(&mut window, start)?;
            let bytes = &window[..read];
            for at in (0..read.saturating_sub(FRAME_HEADER_BYTES - 1)).step_by(ALIGNMENT) {
                let position = start + at as u64;
                if let Some(bytes) = bytes.get(at..at + FRAME_HEADER_BYTES)
                    && bytes.starts_with(&FRAME_MAGIC)
                    && let Ok(header) = FrameHeader::decode(bytes, &self.header.uuid, position)
                {
                    return Ok(Some((position, header)));
                }
            }
            if read < READ_BYTES {
                break;
            }
            start += (READ_BYTES - FRAME_HEADER_BYTES) as u64;
        }
        Ok(None)
    }

    fn torn_tail(&self, len: u64, frames: u64) -> Result<Option<TornTail>> {
        let mut last = None;
        self.windows(self.end, len, |start, bytes| {
            if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
                last = Some(start + at as u64 + 1);
            }
            true
        })?;
        Ok(last.map(|last| TornTail { offset: self.end, bytes: last - self.end, frames }))
    }

    /// Whether there is anything but zeros from `at` on.
    fn is_used_after(&self, at: u64, len: u64) -> Result<bool> {
        let mut used = false;
        self.windows(at, len, |_, bytes| {
            used = bytes.iter().any(|byte| *byte != 0);
            !used
        })?;
        Ok(used)
    }

    /// Shows the bytes from `start` to `len` in pieces, while `look` wants more.
    fn windows(
        &self,
        mut start: u64,
        len: u64,
        mut look: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<()> {
        let mut window = vec![0; READ_BYTES];
        while start < len {
            let read = self.file.read_at(&mut window, start)?;
            if read == 0 || !look(start, &window[..read]) {
                break;
            }
            start += read as u64;
        }
        Ok(())
    }

    /// The bytes of the torn tail, at most `max` of them.
    ///
    /// # Errors
    ///
    /// `Io` when they cannot be read.
    pub(crate) fn torn_bytes(&self, max: usize) -> Result<Vec<u8>> {
        let Some(torn) = self.torn else { return Ok(Vec::new()) };
        let mut bytes = vec![0; usize::try_from(torn.bytes).unwrap_or(max).min(max)];
        let read = self.file.read_at(&mut bytes, torn.offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// Where a refresh stands.
#[derive(Default)]
struct Walk {
    at: u64,
    seq: u64,
    pending: Vec<FrameHeader>,
    /// The highest sequence number that a mark further on vouches for.
    vouched: Option<u64>,
}

/// What a refresh found.
#[derive(Default)]
struct News {
    frames: Vec<FrameHeader>,
    bad: Vec<BadFrame>,
    rows_total: Option<u64>,
    commit_seq: Option<u64>,
    end: u64,
}

impl News {
    /// Whether something is bad that no COMMIT followed.
    fn is_damaged_after_commit(&self) -> bool {
        self.bad.last().is_some_and(|bad| Some(bad.seq) > self.commit_seq)
    }

    fn is_empty(&self) -> bool {
        self.end == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFileSystem;
    use crate::segment::samples;

    const ROWS: usize = 50;

    /// A new active segment.
    fn new_segment() -> (SimFileSystem, ActiveWriter) {
        let sim = SimFileSystem::new();
        let fs: Arc<dyn FileSystem> = Arc::new(sim.clone());
        let dir = PathBuf::from("/store");
        fs.create_private_dir(&dir).unwrap();
        let place = SegmentPlace {
            store_dir: &dir,
            store_id: Id::from_bytes([1; 16]),
            table: Table::Task,
            partition: samples::day(),
        };
        let writer = ActiveWriter::create(&fs, &place, Id::from_bytes([2; 16]), 0, true).unwrap();
        (sim, writer)
    }

    /// An active segment of three batches, each made durable before the next.
    fn three_batches() -> (SimFileSystem, PathBuf) {
        let (sim, mut writer) = new_segment();
        for seed in 0..3 {
            writer.append(&[Arc::new(samples::tasks(ROWS, 3, seed))]).unwrap();
            writer.sync().unwrap();
        }
        (sim, writer.path().to_path_buf())
    }

    fn read(sim: &SimFileSystem, path: &Path) -> ActiveTail {
        let fs: Arc<dyn FileSystem> = Arc::new(sim.clone());
        let mut tail = ActiveTail::open(&fs, path, "file".to_owned()).unwrap();
        tail.refresh(true).unwrap();
        tail
    }

    /// Where each frame lies: ROWS, COMMIT, ROWS, COMMIT, ROWS, COMMIT.
    fn frames(sim: &SimFileSystem, path: &Path) -> Vec<std::ops::Range<usize>> {
        let tail = read(sim, path);
        let commit = FRAME_HEADER_BYTES + crate::format::layout::COMMIT_BYTES;
        let view = tail.view();
        let ends = view.frames.iter().flat_map(|frame| {
            let place = |offset: u64| usize::try_from(offset).unwrap();
            let (start, end) = (place(frame.offset), place(frame.end()));
            [start..end, end..end + commit]
        });
        ends.collect()
    }

    fn damaged(number: usize, byte: impl Fn(u8) -> u8) -> ActiveTail {
        let (sim, path) = three_batches();
        let frame = frames(&sim, &path)[number].clone();
        let mut bytes = sim.read_file(&path).unwrap();
        bytes[frame].iter_mut().for_each(|at| *at = byte(*at));
        sim.write_file(&path, &bytes).unwrap();
        read(&sim, &path)
    }

    #[test]
    fn what_was_committed_is_read() {
        let (sim, path) = three_batches();
        let tail = read(&sim, &path);
        assert_eq!((tail.view().rows(), tail.torn()), (3 * ROWS as u64, None));
        assert!(tail.view().damage().is_empty());
        assert_eq!(tail.view().batch(1).unwrap(), samples::tasks(ROWS, 3, 1));
    }

    /// A durable frame that reads as garbage or as zeros costs itself alone, and is told.
    #[test]
    fn a_bad_frame_below_the_mark_is_damage() {
        for byte in [|_: u8| 0, |byte: u8| byte ^ 0x40] {
            let view = damaged(2, byte).view();
            assert_eq!(view.rows(), 2 * ROWS as u64);
            let damage = view.damage();
            assert_eq!(damage.len(), 1, "{damage:?}");
            assert_eq!((damage[0].block, damage[0].rows), (Some(2), Some(ROWS as u64)));
            // A COMMIT costs nothing: a later one covers the same rows.
            let view = damaged(1, byte).view();
            assert_eq!((view.rows(), view.damage().len()), (3 * ROWS as u64, 1));
        }
    }

    #[test]
    fn a_bad_frame_above_the_mark_is_a_torn_end() {
        for byte in [|_: u8| 0, |byte: u8| byte ^ 0x40] {
            let tail = damaged(4, byte);
            assert_eq!(tail.view().rows(), 2 * ROWS as u64);
            assert!(tail.view().damage().is_empty());
            assert_eq!(tail.torn().map(|torn| torn.offset), Some(tail.end));
        }
    }

    /// A roll wrote END behind commits that no sync had covered. A power cut could keep END and
    /// lose a commit before it, which then read as damage that no repair could ever undo.
    #[test]
    fn a_crash_while_a_segment_ends_damages_nothing() {
        let (sim, mut writer) = new_segment();
        sim.sync_dir(Path::new("/")).unwrap();
        for seed in 0..3 {
            writer.append(&[Arc::new(samples::tasks(ROWS, 3, seed))]).unwrap();
        }
        let begun = sim.op_count();
        writer.finish().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for op in sim.change_points().into_iter().filter(|op| *op >= begun) {
            for image in sim.images_after(op, 3, 60) {
                let view = read(&image, writer.path()).view();
                assert!(view.damage().is_empty(), "after {op}: {:?}", view.damage());
                seen.insert(view.rows());
            }
        }
        assert!(seen.len() > 2, "{seen:?}");
    }

    /// A COMMIT with a right checksum that vouches for itself breaks the rules.
    #[test]
    fn a_commit_that_vouches_for_itself_is_bad() {
        let (sim, path) = three_batches();
        let at = frames(&sim, &path)[5].clone();
        let mut commit = Vec::new();
        let tail = read(&sim, &path);
        let place = FramePlace {
            kind: FrameKind::Commit,
            sub: 0,
            uuid: tail.header().uuid,
            seq: 5,
            offset: at.start as u64,
            stamps: (0, 0),
        };
        let payload = Commit { rows_total: 150, durable_upto: Some(5) }.encode();
        frames::encode_plain_frame(&place, &payload, &mut commit).unwrap();
        let mut bytes = sim.read_file(&path).unwrap();
        bytes[at].copy_from_slice(&commit);
        sim.write_file(&path, &bytes).unwrap();
        let tail = read(&sim, &path);
        assert_eq!(tail.view().rows(), 2 * ROWS as u64);
        assert!(tail.torn().is_some());
    }
}
