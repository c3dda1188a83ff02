//! Reading a sealed segment (spec 6).
//!
//! Owns finding the frames of a file, by its footer or by walking them, and reading its
//! blocks, dictionaries and sections, each checked when it is first touched. What is
//! derived is left out when it is damaged; rows are never left out silently: a block that
//! cannot be read is an error wherever it is asked for, and listed as damage.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::column::{Batch, Column, Strings, Values};
use crate::config::ReadMode;
use crate::encoding::{Chunk, TextScope};
use crate::error::{Error, ErrorKind, Result};
use crate::format::cursor::Cursor;
use crate::format::footer::{Footer, FrameEntry};
use crate::format::frame::{FrameHeader, FrameKind, IndexSection};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::format::layout::{
    ALIGNMENT, FILE_BYTES_MAX, FOOTER_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAMES_OFFSET,
    HEADER_CHECKSUM_OFFSET, HEADER_COPY_BYTES, TRAILER_BYTES,
};
use crate::format::trailer::Trailer;
use crate::fs::{Bytes, File, FileSystem, read_exact_at};
use crate::schema::{ColumnType, Schema, Table};
use crate::segment::frames::{BlockReader, check_values, zone_of};
use crate::segment::sections::{self, Facts, SectionSource, Zone};
use crate::segment::summarise::{self, Grain, Summariser};
use crate::segment::{
    BlockInfo, Depth, LastValue, Loaded, Segment, SegmentDamage, SegmentKey, Summaries, Tier,
    UseChunk, reason_of,
};
use crate::sketch::membership::Membership;
use crate::time::{MICROS_PER_HOUR, Partition};

/// Bytes looked through at a time for the next frame after a bad one.
const SEARCH_BYTES: u64 = 1 << 20;

/// The bytes of a file, by the way that was chosen to read them.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    len: u64,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Mapped(Bytes),
    Copied(Arc<dyn File>),
}

impl Source {
    fn open(fs: &dyn FileSystem, path: &Path, mode: ReadMode) -> Result<Self> {
        let file = fs.open(path)?;
        let len = file.len()?;
        let most = if mode == ReadMode::Untrusted { FILE_BYTES_MAX / 2 } else { FILE_BYTES_MAX };
        if len > most {
            let error = Error::corrupt("2", format!("file of {len} bytes"));
            return Err(error.with_path(path));
        }
        let way = match mode {
            ReadMode::Mapped => Way::Mapped(file.map(len)?),
            ReadMode::Copied | ReadMode::Untrusted => Way::Copied(file),
        };
        Ok(Self { path: path.to_path_buf(), len, way })
    }

    /// The bytes of a range, which are not checked.
    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let torn = || {
            let message = format!("the file ends at {}, before {}", self.len, range.end);
            Error::new(ErrorKind::Torn, message).with_path(&self.path).with_offset(range.start)
        };
        if range.start > range.end || range.end > self.len {
            return Err(torn());
        }
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
        else {
            return Err(torn());
        };
        match &self.way {
            Way::Mapped(bytes) => bytes.slice(start..end).ok_or_else(torn),
            Way::Copied(file) => {
                let mut bytes = vec![0; end - start];
                read_exact_at(&**file, &mut bytes, range.start)?;
                Ok(Bytes::from_vec(bytes))
            }
        }
    }

    /// Brings mapped bytes into memory, so that what cannot be read is an error.
    fn populate(&self, bytes: &Bytes) -> Result<()> {
        bytes.populate().map_err(|cause| Error::io("read", &self.path, cause))
    }
}

/// The frames of a file that hold something, with their numbers.
#[derive(Clone, Debug)]
struct Frames {
    frames: Vec<(u64, FrameEntry)>,
    /// Where the FOOTER frame starts; where frames end when there is none.
    footer_offset: u64,
    /// Whether no block can be missing.
    whole: bool,
    /// Rows of the file, and their earliest and latest stamp, as the footer says.
    rows: (u64, i64, i64),
    /// What was wrong, when the footer had to be rebuilt.
    damage: Vec<SegmentDamage>,
}

impl Frames {
    fn of_footer(footer: &Footer, footer_offset: u64) -> Self {
        let frames = (0..).zip(footer.frames.iter().copied()).collect();
        let rows = (footer.rows, footer.min_ts, footer.max_ts);
        Self { frames, footer_offset, whole: true, rows, damage: Vec::new() }
    }

    fn find(&self, kind: FrameKind, sub: u8) -> impl Iterator<Item = &(u64, FrameEntry)> {
        self.frames.iter().filter(move |(_, frame)| frame.kind == kind && frame.sub == sub)
    }
}

/// A sealed segment, or an archive, that is open for reading.
#[derive(Debug)]
pub(crate) struct SealedSegment {
    /// To open the file later with; `None` when it is open.
    fs: Option<Arc<dyn FileSystem>>,
    path: PathBuf,
    file: String,
    mode: ReadMode,
    source: OnceLock<Source>,
    len: u64,
    table: Table,
    schema: &'static Schema,
    header: Header,
    frames: Frames,
    /// Rows of a rollup, and their earliest and latest stamp.
    stands_for: Option<(u64, i64, i64)>,
    /// Positions in `frames` of the blocks.
    block_frames: Vec<usize>,
    blocks: Vec<BlockInfo>,
    readers: Vec<OnceLock<BlockReader>>,
    /// Per block and column: whether the chunk's checksum was found right.
    checked: Vec<AtomicBool>,
    dictionaries: Vec<OnceLock<Option<Arc<Strings>>>>,
    zones: OnceLock<Option<Vec<Vec<Zone>>>>,
    members: OnceLock<Option<Membership>>,
    summaries: Loaded,
    newest: OnceLock<Option<Vec<Option<LastValue>>>>,
    damage: Mutex<Vec<SegmentDamage>>,
    problems: Mutex<Vec<String>>,
    /// Why the system did not read a part that is derived; it may next time.
    unread: Mutex<Option<Error>>,
    /// Whether it was not there any more when it was to be opened.
    is_gone: AtomicBool,
}

impl SealedSegment {
    /// Opens the file at `path` in the store at `store_dir`. Where `expect` is given, the
    /// file must be of that store, table and day. Reads header and footer only.
    ///
    /// # Errors
    ///
    /// Those of opening a file; `Corrupt`, `Torn`, `NotOurFile` or `UnsupportedVersion`
    /// when both headers are unusable or the file does not belong where it is.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        store_dir: &Path,
        path: &Path,
        mode: ReadMode,
        expect: Option<(Id, Table, Partition)>,
    ) -> Result<Self> {
        let source = Source::open(fs, path, mode)?;
        let head = source.read(0..source.len.min(FRAMES_OFFSET as u64))?;
        let copies = Header::decode(&head).map_err(|error| error.with_path(path))?;
        let problems = copies.problems();
        let header = copies.header;
        let table = check_header(&header, path, expect).map_err(|error| error.with_path(path))?;
        let frames = match read_footer(&source, &header) {
            Ok(frames) => frames,
            Err(error) if is_damage(&error) => {
                let frames = walk(&source, &header, table.schema(), &error)?;
                // Without its footer nobody knows what a rollup stands for.
                if is_rollup(header.kind) && frames.rows.0 == 0 {
                    return Err(error);
                }
                frames
            }
            Err(error) => return Err(error),
        };
        let len = source.len;
        let segment = Self::new(None, store_dir, path, mode, header, table, frames, len);
        problems.into_iter().for_each(|problem| segment.problem(problem));
        let _ = segment.source.set(source);
        Ok(segment)
    }

    /// Opens a file of which [`summary_bytes`](Self::summary_bytes) were kept: the file is
    /// not touched until something else of it is asked for.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the bytes are not such a summary, and as [`open`](Self::open).
    pub(crate) fn from_summary(
        fs: &Arc<dyn FileSystem>,
        store_dir: &Path,
        path: &Path,
        mode: ReadMode,
        expect: Option<(Id, Table, Partition)>,
        summary: &[u8],
    ) -> Result<Self> {
        let mut cursor = Cursor::new(summary, "8");
        let (len, footer_offset, header) = read_summary(&mut cursor)?;
        let table = check_header(&header, path, expect).map_err(|error| error.with_path(path))?;
        let footer = cursor.bytes(cursor.remaining())?;
        let footer = Footer::decode(footer, header.kind, footer_offset)?;
        let frames = Frames::of_footer(&footer, footer_offset);
        Ok(Self::new(Some(Arc::clone(fs)), store_dir, path, mode, header, table, frames, len))
    }

    /// The files that a file replaced of which these summary bytes were kept; none where that is
    /// not known.
    pub(crate) fn replaced_by(summary: &[u8]) -> Vec<Id> {
        let read = read_summary(&mut Cursor::new(summary, "8"));
        read.map(|(_, _, header)| header.replaces).unwrap_or_default()
    }

    /// What opening the file reads, for a cache: length, header, footer. `None` when the
    /// file is damaged, so that nobody learns less of it than is known here.
    pub(crate) fn summary_bytes(&self) -> Option<Vec<u8>> {
        if !self.lock_problems().is_empty() || !self.frames.damage.is_empty() {
            return None;
        }
        let copies = self.header.encode().ok()?;
        let copy = copies.get(..HEADER_COPY_BYTES)?;
        let (fields, checksum) = copy.split_at_checked(HEADER_CHECKSUM_OFFSET)?;
        let used = fields.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.frames.footer_offset.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(used).ok()?.to_le_bytes());
        bytes.extend_from_slice(&fields[..used]);
        bytes.extend_from_slice(checksum);
        let (rows, stamps) = (self.rows(), self.stamps().unwrap_or((0, 0)));
        let frames = self.frames.frames.iter().map(|(_, frame)| *frame).collect();
        let footer = Footer { rows, min_ts: stamps.0, max_ts: stamps.1, frames };
        bytes.extend(footer.encode(self.header.kind, self.frames.footer_offset).ok()?);
        Some(bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where the parts meet")]
    fn new(
        fs: Option<Arc<dyn FileSystem>>,
        store_dir: &Path,
        path: &Path,
        mode: ReadMode,
        header: Header,
        table: Table,
        frames: Frames,
        len: u64,
    ) -> Self {
        let schema = table.schema();
        let (mut block_frames, mut blocks) = (Vec::new(), Vec::new());
        for (place, (_, frame)) in frames.frames.iter().enumerate() {
            if frame.kind == FrameKind::Block {
                block_frames.push(place);
                blocks.push(BlockInfo {
                    first_row: frame.first_row,
                    rows: frame.rows,
                    min_ts: frame.min_ts,
                    max_ts: frame.max_ts,
                });
            }
        }
        let chunks = blocks.len() * schema.columns.len();
        let stands_for = is_rollup(header.kind).then_some(frames.rows);
        Self {
            fs,
            path: path.to_path_buf(),
            file: path.strip_prefix(store_dir).unwrap_or(path).to_string_lossy().into_owned(),
            mode,
            source: OnceLock::new(),
            len,
            table,
            schema,
            header,
            stands_for,
            block_frames,
            readers: blocks.iter().map(|_| OnceLock::new()).collect(),
            checked: (0..chunks).map(|_| AtomicBool::new(false)).collect(),
            dictionaries: schema.columns.iter().map(|_| OnceLock::new()).collect(),
            zones: OnceLock::new(),
            members: OnceLock::new(),
            summaries: Loaded::default(),
            newest: OnceLock::new(),
            damage: Mutex::new(frames.damage.clone()),
            problems: Mutex::new(Vec::new()),
            unread: Mutex::default(),
            is_gone: AtomicBool::new(false),
            frames,
            blocks,
        }
    }

    /// What the header says.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Damage to what is derived or stored twice, which loses no row.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock_problems().clone()
    }

    /// Takes note of a part that the system did not read.
    fn not_read(&self, error: Error) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.at(error));
    }

    /// Whether the file was not there any more when something of it was asked for.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    fn lock_problems(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem(&self, problem: String) {
        let mut problems = self.lock_problems();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn source(&self) -> Result<&Source> {
        if let Some(source) = self.source.get() {
            return Ok(source);
        }
        let Some(fs) = &self.fs else {
            return Err(Error::invalid("the segment was never opened").with_path(&self.path));
        };
        let source = Source::open(&**fs, &self.path, self.mode).map_err(|error| {
            if !error.is_not_found() {
                return error;
            }
            self.is_gone.store(true, Ordering::Release);
            Error::new(ErrorKind::SnapshotGone, "the file has been deleted since")
                .with_path(&self.path)
                .with_remedy("take a new snapshot")
        })?;
        if source.len != self.len {
            let message = format!("file of {} bytes, expected {}", source.len, self.len);
            return Err(Error::corrupt("6", message).with_path(&self.path));
        }
        Ok(self.source.get_or_init(|| source))
    }

    /// Reads and checks the header of a frame.
    fn frame(&self, (seq, entry): &(u64, FrameEntry)) -> Result<FrameHeader> {
        let bytes = self.source()?.read(entry.offset..entry.offset + FRAME_HEADER_BYTES as u64)?;
        let frame = FrameHeader::decode(&bytes, &self.header.uuid, entry.offset)?;
        if frame.seq == *seq && FrameEntry::of(&frame, entry.first_row) == *entry {
            Ok(frame)
        } else {
            let error = Error::corrupt("6.5", "a frame is not what the footer says");
            Err(error.with_offset(entry.offset))
        }
    }

    /// Reads and checks a dictionary or a section, whose codes refer to `dictionaries`.
    fn table_of(
        &self,
        entry: &(u64, FrameEntry),
        kinds: &[ColumnType],
        dictionaries: &[Option<Arc<Strings>>],
    ) -> Result<Vec<Column>> {
        let frame = self.frame(entry)?;
        let source = self.source()?;
        let start = frame.offset + FRAME_HEADER_BYTES as u64;
        let payload = source.read(start..start + u64::from(frame.payload_len))?;
        source.populate(&payload)?;
        self.block_reader(frame, &payload)?.decode_all(&payload, kinds, dictionaries)
    }

    fn block_reader(&self, frame: FrameHeader, payload: &[u8]) -> Result<BlockReader> {
        BlockReader::of(frame, payload, self.mode == ReadMode::Untrusted)
    }

    fn at(&self, error: Error) -> Error {
        error.with_path(&self.path)
    }

    fn reader(&self, block: usize) -> Result<&BlockReader> {
        if let Some(reader) = self.readers[block].get() {
            return Ok(reader);
        }
        let frame = self.frame(&self.frames.frames[self.block_frames[block]])?;
        let start = frame.offset + FRAME_HEADER_BYTES as u64;
        let source = self.source()?;
        let directory = source.read(start..start + u64::from(frame.directory_len))?;
        source.populate(&directory)?;
        let reader = self.block_reader(frame, &directory)?;
        if reader.columns() != self.schema.columns.len() {
            let message = format!("block of {} columns", reader.columns());
            return Err(Error::corrupt("4.1", message).with_offset(frame.offset));
        }
        Ok(self.readers[block].get_or_init(|| reader))
    }

    /// The bytes of a column chunk, whose checksum and values are right.
    fn chunk(&self, block: usize, column: usize) -> Result<(&BlockReader, Bytes)> {
        let reader = self.reader(block)?;
        let source = self.source()?;
        let bytes = source.read(reader.chunk_range(column)?)?;
        let checked = &self.checked[block * self.schema.columns.len() + column];
        if self.mode != ReadMode::Mapped || !checked.load(Ordering::Acquire) {
            source.populate(&bytes)?;
            reader.check(column, &bytes)?;
            check_values(column, &bytes, self.schema, self.header.partition)
                .map_err(|error| reader.at(column, error))?;
            checked.store(true, Ordering::Release);
        }
        Ok((reader, bytes))
    }

    fn use_chunk(&self, block: usize, column: usize, each: UseChunk<'_>) -> Result<()> {
        let schema = &self.schema.columns[column];
        let dictionary = match schema.kind {
            ColumnType::Dimension => self.load_dictionary(column)?,
            _ => None,
        };
        let (reader, bytes) = self.chunk(block, column)?;
        let chunk = reader.parse(column, &bytes, schema.kind)?;
        if !schema.nullable && chunk.null_count() > 0 {
            return Err(Error::corrupt("4.1", format!("column {column} has nulls")));
        }
        each(&chunk, &bytes, dictionary.as_ref()).map_err(|error| reader.at(column, error))
    }

    /// Either copy of the dictionary of a column.
    fn load_dictionary(&self, column: usize) -> Result<Option<Arc<Strings>>> {
        if let Some(loaded) = self.dictionaries[column].get() {
            return Ok(loaded.clone());
        }
        let sub = u8::try_from(column).unwrap_or(u8::MAX);
        let mut error = None;
        for entry in self.frames.find(FrameKind::Dictionary, sub) {
            match self.table_of(entry, &[ColumnType::Text], &[]).and_then(dictionary_of) {
                Ok(strings) => {
                    let loaded = Some(Arc::new(strings));
                    return Ok(self.dictionaries[column].get_or_init(|| loaded).clone());
                }
                Err(bad) => {
                    if is_damage(&bad) {
                        self.problem(self.dictionary_problem(column, &bad));
                    }
                    error.get_or_insert(bad);
                }
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(self.dictionaries[column].get_or_init(|| None).clone()),
        }
    }

    fn facts(&self, dictionaries: Vec<Option<usize>>) -> Facts<'_> {
        Facts { schema: self.schema, blocks: &self.blocks, rows: self.rows(), dictionaries }
    }

    /// Per column: entries of its dictionary, as far as it can be read.
    fn dictionary_entries(&self) -> Vec<Option<usize>> {
        let entries = |column: usize| {
            let dictionary = self.load_dictionary(column).ok().flatten();
            dictionary.map(|dictionary| dictionary.len())
        };
        (0..self.schema.columns.len()).map(entries).collect()
    }

    fn zones(&self) -> Option<&Vec<Vec<Zone>>> {
        // Without all blocks their numbers are not those of the section.
        let load = || {
            let columns = self.section(IndexSection::Zones).filter(|_| self.frames.whole)?;
            sections::decode_zones(&columns, &self.facts(Vec::new()))
                .map_err(|error| self.broken(IndexSection::Zones, error))
                .ok()
        };
        self.zones.get_or_init(load).as_ref()
    }

    fn members(&self) -> Option<&Membership> {
        let load = || {
            let columns = self.section(IndexSection::Members)?;
            sections::decode_members(&columns)
                .map_err(|error| self.broken(IndexSection::Members, error))
                .ok()
        };
        self.members.get_or_init(load).as_ref()
    }

    fn load_rollup(&self, depth: Depth) -> Result<Summaries> {
        let mut entries = Vec::new();
        for column in 0..self.schema.columns.len() {
            entries.push(self.load_dictionary(column)?.map(|dictionary| dictionary.len()));
        }
        let section = |section: IndexSection| {
            let entry = self.frames.find(FrameKind::Index, section.tag()).next();
            let kinds = sections::kinds(section, self.schema);
            entry.map(|entry| self.table_of(entry, &kinds, &[])).transpose()
        };
        sections::decode_rollup(&self.facts(entries), self.tier(), depth, &section)
    }

    /// Takes note of a rollup that is damaged.
    fn lost_rollup(&self, error: &Error) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.is_empty() {
            damage.push(SegmentDamage {
                block: None,
                column: None,
                rows: Some(self.rows()),
                stamps: self.stamps(),
                reason: error.to_string(),
            });
        }
    }

    /// Takes note of rows that cannot be read.
    fn lost(&self, block: usize, error: &Error) {
        if !is_damage(error) {
            return;
        }
        let info = self.blocks[block];
        let number = Some(block as u64);
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.iter().all(|damage| damage.block != number) {
            damage.push(SegmentDamage {
                block: number,
                column: None,
                rows: Some(info.rows.into()),
                stamps: Some((info.min_ts, info.max_ts)),
                reason: error.to_string(),
            });
        }
    }

    /// All columns of a block.
    ///
    /// # Errors
    ///
    /// As [`Segment::read`].
    pub(crate) fn batch(&self, block: usize) -> Result<Batch> {
        let columns = (0..self.schema.columns.len()).map(|column| self.read(block, column));
        Ok(Batch { schema: self.schema, columns: columns.collect::<Result<_>>()? })
    }

    /// Checks that rows lie in the order of hours, within their block and after those of the block
    /// that is read before it, if any: whoever reads hour by hour relies on it.
    ///
    /// # Errors
    ///
    /// `Corrupt` when they do not (spec 6.3).
    pub(crate) fn check_order(
        &self,
        block: usize,
        before: Option<usize>,
        stamps: &[i64],
    ) -> Result<()> {
        let hour = |stamp: i64| stamp.div_euclid(MICROS_PER_HOUR);
        let (info, before) = (self.blocks.get(block), before.and_then(|at| self.blocks.get(at)));
        let extremes = stamps.iter().copied().min().zip(stamps.iter().copied().max());
        let problem = if extremes != info.map(|info| (info.min_ts, info.max_ts)) {
            "the stamps are not those of the frame"
        } else if !stamps.is_sorted_by_key(|stamp| hour(*stamp))
            || before.zip(info).is_some_and(|(a, b)| hour(a.max_ts) > hour(b.min_ts))
        {
            "the rows are not in the order of hours"
        } else {
            return Ok(());
        };
        let file = self.path.as_path();
        Err(Error::corrupt("6.3", format!("block {block}: {problem}")).with_path(file))
    }

    /// The blocks in turn, each whole or as the error that keeps it from being read.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<Batch>> + '_ {
        (0..self.blocks.len()).map(|block| self.batch(block))
    }

    /// Checks every checksum of the file; `deep` also decodes everything, builds what is
    /// derived again and compares. Returns what is wrong, nothing when all is well: blocks and
    /// columns with the rows that are lost with them, and damage that costs no row.
    ///
    /// # Errors
    ///
    /// `Io` when the file cannot be read.
    pub(crate) fn verify(&self, deep: bool) -> Result<Vec<SegmentDamage>> {
        let mut wrong: Vec<SegmentDamage> =
            self.problems().into_iter().map(SegmentDamage::harmless).collect();
        wrong.extend(self.frames.damage.iter().cloned());
        for entry in &self.frames.frames {
            self.verify_frame(entry, &mut wrong)?;
        }
        self.verify_dictionaries(&mut wrong)?;
        if deep {
            match self.stands_for {
                // Nothing is left to compute it from again.
                Some(_) if !wrong.iter().any(SegmentDamage::loses_rows) => {
                    if let Err(error) = self.load_rollup(Depth::All) {
                        let reason = only_damage(error)?;
                        wrong.push(self.all_lost(None, reason));
                    }
                }
                Some(_) => {}
                None => self.verify_rows(&mut wrong)?,
            }
        }
        // Reading may have found more, or the same in the same words.
        for problem in self.problems() {
            if wrong.iter().all(|known| known.reason != problem) {
                wrong.push(SegmentDamage::harmless(problem));
            }
        }
        Ok(wrong)
    }

    /// The blocks of which every column can be read.
    ///
    /// # Errors
    ///
    /// `Io` when the file cannot be read.
    pub(crate) fn readable_blocks(&self) -> Result<Vec<usize>> {
        let mut readable = Vec::new();
        for block in 0..self.blocks.len() {
            match self.batch(block) {
                Ok(_) => readable.push(block),
                Err(error) => drop(only_damage(error)?),
            }
        }
        Ok(readable)
    }

    /// Damage by which every row that the file has, or stands for, is lost.
    fn all_lost(&self, column: Option<usize>, reason: String) -> SegmentDamage {
        SegmentDamage {
            block: None,
            column,
            rows: Some(self.rows()),
            stamps: self.stamps(),
            reason,
        }
    }

    /// Checks the checksums of one frame.
    fn verify_frame(
        &self,
        entry: &(u64, FrameEntry),
        wrong: &mut Vec<SegmentDamage>,
    ) -> Result<()> {
        for (chunk, error) in self.bad_parts(entry)? {
            let sub = usize::from(entry.1.sub);
            wrong.push(match entry.1.kind {
                FrameKind::Block => {
                    let position = self.frames.frames.iter().position(|frame| frame == entry);
                    let block = self.block_frames.iter().position(|at| Some(*at) == position);
                    self.block_lost(block.unwrap_or_default(), chunk, &error)
                }
                FrameKind::Dictionary => SegmentDamage {
                    column: Some(sub),
                    ..SegmentDamage::harmless(self.dictionary_problem(sub, &error))
                },
                _ => {
                    let reason = match IndexSection::from_tag(entry.1.sub) {
                        Some(section) => section_problem(section, &error),
                        None => reason_of(&error),
                    };
                    match self.stands_for {
                        Some(_) => self.all_lost(None, reason),
                        None => SegmentDamage::harmless(reason),
                    }
                }
            });
        }
        Ok(())
    }

    /// What of a frame is wrong: chunks by number, or all of it.
    fn bad_parts(&self, entry: &(u64, FrameEntry)) -> Result<Vec<(Option<usize>, Error)>> {
        let reader = match self.read_directory(entry) {
            Ok(reader) => reader,
            Err(error) if is_damage(&error) => return Ok(vec![(None, error)]),
            Err(error) => return Err(error),
        };
        let source = self.source()?;
        let mut bad = Vec::new();
        for column in 0..reader.columns() {
            let checked = reader.chunk_range(column).and_then(|range| {
                let bytes = source.read(range)?;
                source.populate(&bytes)?;
                reader.check(column, &bytes)
            });
            match checked {
                Err(error) if is_damage(&error) => bad.push((Some(column), error)),
                checked => checked?,
            }
        }
        Ok(bad)
    }

    fn read_directory(&self, entry: &(u64, FrameEntry)) -> Result<BlockReader> {
        let frame = self.frame(entry)?;
        let source = self.source()?;
        let start = frame.offset + FRAME_HEADER_BYTES as u64;
        let directory = source.read(start..start + u64::from(frame.directory_len))?;
        source.populate(&directory)?;
        self.block_reader(frame, &directory)
    }

    /// A block that cannot be read, for the sake of one column or of all.
    fn block_lost(&self, block: usize, column: Option<usize>, error: &Error) -> SegmentDamage {
        let info = self.blocks.get(block);
        SegmentDamage {
            block: Some(block as u64),
            column,
            rows: info.map(|info| info.rows.into()),
            stamps: info.map(|info| (info.min_ts, info.max_ts)),
            reason: reason_of(error),
        }
    }

    /// Without either copy of a dictionary no block can be read.
    fn verify_dictionaries(&self, wrong: &mut Vec<SegmentDamage>) -> Result<()> {
        for column in 0..self.schema.columns.len() {
            if let Err(error) = self.load_dictionary(column) {
                drop(only_damage(error)?);
                let reason = "no copy of the column's dictionary can be read".to_owned();
                wrong.push(self.all_lost(Some(column), reason));
            }
        }
        Ok(())
    }

    fn dictionary_problem(&self, column: usize, error: &Error) -> String {
        let name = self.schema.columns.get(column).map_or("?", |column| column.name);
        format!("a dictionary of {name}: {}", reason_of(error))
    }

    fn verify_rows(&self, wrong: &mut Vec<SegmentDamage>) -> Result<()> {
        let dictionaries: Vec<_> = (0..self.schema.columns.len())
            .map(|column| self.load_dictionary(column).ok().flatten())
            .collect();
        let all_lost = |wrong: &[SegmentDamage]| {
            wrong.iter().any(|damage| damage.block.is_none() && damage.loses_rows())
        };
        // Of blocks that are not there nothing can be computed again.
        let mut whole = !all_lost(wrong) && self.frames.whole;
        let mut fresh = Summariser::new(self.schema, &dictionaries, Grain::SEGMENT);
        for block in 0..self.blocks.len() {
            let number = Some(block as u64);
            if wrong.iter().any(|damage| damage.block == number && damage.loses_rows()) {
                whole = false;
                continue;
            }
            let columns = (0..self.schema.columns.len())
                .map(|column| self.read(block, column).map_err(|error| (column, error)));
            match columns.collect::<Result<Vec<_>, _>>() {
                Ok(columns) => {
                    let batch = Batch { schema: self.schema, columns };
                    self.verify_block(block, &batch, wrong);
                    fresh.add_block(&batch.columns);
                }
                Err((column, error)) if is_damage(&error) => {
                    whole = false;
                    // Without its dictionary, which has been named.
                    let is_named = |damage: &SegmentDamage| {
                        damage.block.is_none() && damage.column == Some(column)
                    };
                    if !wrong.iter().any(|damage| is_named(damage) && damage.loses_rows()) {
                        wrong.push(self.block_lost(block, Some(column), &error));
                    }
                }
                Err((_, error)) => return Err(error),
            }
        }
        if !whole {
            return Ok(());
        }
        match self.summaries(Depth::All) {
            Some(stored) => {
                let differences = summarise::differences(&stored, &fresh.finish());
                wrong.extend(differences.into_iter().map(SegmentDamage::harmless));
            }
            None if wrong.is_empty() && self.problems().is_empty() => {
                if let Some(error) = self.unread() {
                    return Err(error);
                }
                let reason = "the summaries cannot be read".to_owned();
                wrong.push(SegmentDamage::harmless(reason));
            }
            None => {}
        }
        Ok(())
    }

    /// Compares what the index says of a block with its rows.
    fn verify_block(&self, block: usize, batch: &Batch, wrong: &mut Vec<SegmentDamage>) {
        let derived = |column, reason: &str| SegmentDamage {
            block: Some(block as u64),
            column,
            ..SegmentDamage::harmless(reason.to_owned())
        };
        for (column, values) in batch.columns.iter().enumerate() {
            let coded = matches!(values.values, Values::Coded { .. })
                && self.dictionaries[column].get().is_some_and(Option::is_some);
            let zone = zone_of(values, if coded { TextScope::Segment } else { TextScope::Local });
            let nulls = u32::try_from(values.null_count()).ok();
            if self.zone(block, column) != zone || self.nulls(block, column) != nulls {
                wrong.push(derived(Some(column), "the zone map is wrong"));
            }
        }
        if let Err(error) = self.check_order(block, block.checked_sub(1), batch.timestamps()) {
            wrong.push(derived(Some(0), error.message()));
        }
        let Some(member) = self.schema.member else { return };
        let ids = &batch.columns[member];
        let absent = |row: usize| ids.text(row).is_some_and(|id| !self.might_contain(member, id));
        if (0..batch.len()).any(absent) {
            wrong.push(derived(Some(member), "the membership filter lacks a row"));
        }
    }
}

impl SectionSource for SealedSegment {
    fn section(&self, section: IndexSection) -> Option<Vec<Column>> {
        let entry = self.frames.find(FrameKind::Index, section.tag()).next()?;
        let dictionary = |column: Option<usize>| self.load_dictionary(column?).ok().flatten();
        let dictionaries: Vec<_> =
            sections::table_columns(section, self.schema).into_iter().map(dictionary).collect();
        let columns = self.table_of(entry, &sections::kinds(section, self.schema), &dictionaries);
        columns.map_err(|error| self.broken(section, error)).ok()
    }

    fn broken(&self, section: IndexSection, error: Error) {
        if is_damage(&error) {
            self.problem(section_problem(section, &error));
        } else {
            self.not_read(error);
        }
    }
}

impl Segment for SealedSegment {
    fn key(&self) -> SegmentKey {
        SegmentKey { uuid: *self.header.uuid.as_bytes(), end: self.len }
    }

    fn file(&self) -> String {
        self.file.clone()
    }

    fn table(&self) -> Table {
        self.table
    }

    fn partition(&self) -> Partition {
        self.header.partition
    }

    fn tier(&self) -> Tier {
        match self.header.kind {
            FileKind::Hourly => Tier::Hourly,
            FileKind::Daily => Tier::Daily,
            _ => Tier::Rows,
        }
    }

    fn rows(&self) -> u64 {
        let of_blocks =
            || self.blocks.last().map_or(0, |block| block.first_row + u64::from(block.rows));
        self.stands_for.map_or_else(of_blocks, |(rows, ..)| rows)
    }

    fn stamps(&self) -> Option<(i64, i64)> {
        if let Some((rows, min, max)) = self.stands_for {
            return (rows > 0).then_some((min, max));
        }
        let min = self.blocks.iter().map(|block| block.min_ts).min()?;
        Some((min, self.blocks.iter().map(|block| block.max_ts).max()?))
    }

    fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    fn zone(&self, block: usize, column: usize) -> Option<(i64, i64)> {
        match self.zones() {
            Some(zones) => zones[block][column].keys,
            None => self.reader(block).ok()?.entry(column)?.zone,
        }
    }

    fn nulls(&self, block: usize, column: usize) -> Option<u32> {
        match self.zones() {
            Some(zones) => Some(zones[block][column].nulls),
            None => Some(self.reader(block).ok()?.entry(column)?.nulls),
        }
    }

    fn chunk_bytes(&self, block: usize, column: usize) -> u64 {
        match self.zones() {
            Some(zones) => zones[block][column].bytes,
            None => {
                let entry = self.reader(block).ok().and_then(|reader| reader.entry(column));
                entry.map_or(0, |entry| entry.len.into())
            }
        }
    }

    fn with_chunk(&self, block: usize, column: usize, each: UseChunk<'_>) -> Result<()> {
        self.use_chunk(block, column, each).map_err(|error| {
            let error = self.at(error);
            self.lost(block, &error);
            error
        })
    }

    fn dictionary(&self, column: usize) -> Result<Option<Arc<Strings>>> {
        if self.schema.columns[column].kind != ColumnType::Dimension {
            return Ok(None);
        }
        self.load_dictionary(column).map_err(|error| self.at(error))
    }

    fn might_contain(&self, column: usize, text: &str) -> bool {
        if self.schema.member == Some(column) {
            return self.members().is_none_or(|members| members.contains(text));
        }
        match self.dictionary(column) {
            Ok(Some(dictionary)) => dictionary.find_sorted(text).is_some(),
            Ok(None) | Err(_) => true,
        }
    }

    fn block_might_contain(&self, block: usize, column: usize, text: &str) -> bool {
        if let Ok(Some(dictionary)) = self.dictionary(column) {
            let Some(code) = dictionary.find_sorted(text).map(i64::from) else { return false };
            return self.zone(block, column).is_none_or(|(min, max)| (min..=max).contains(&code));
        }
        let kind = self.schema.columns[column].kind;
        let Ok((_, bytes)) = self.chunk(block, column) else { return true };
        // What cannot be parsed may hold anything, until it is read and found damaged.
        Chunk::parse(&bytes, kind).map_or(true, |chunk| chunk.might_contain(text))
    }

    fn summaries(&self, depth: Depth) -> Option<Arc<Summaries>> {
        if !self.frames.whole {
            return None;
        }
        let Some(_) = self.stands_for else {
            return self.summaries.get_or_load(depth, || {
                let entries = match depth {
                    Depth::Hours | Depth::Total | Depth::Digests => Vec::new(),
                    Depth::Keys | Depth::All => self.dictionary_entries(),
                };
                sections::decode_summaries(&self.facts(entries), self, depth).map(Arc::new)
            });
        };
        if let Some(kept) = self.summaries.get(depth) {
            return kept.clone();
        }
        let loaded = match self.load_rollup(depth) {
            Ok(summaries) => Some(Arc::new(summaries)),
            Err(error) if is_damage(&error) => {
                self.lost_rollup(&self.at(error));
                None
            }
            Err(error) => {
                self.not_read(error);
                return None;
            }
        };
        match depth {
            // Those of all keys of all days are too many to be kept in memory.
            Depth::All => loaded,
            _ => self.summaries.get_or_load(depth, || loaded),
        }
    }

    fn unread(&self) -> Option<Error> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pin(&self) -> Result<()> {
        self.source().map(drop)
    }

    fn newest(&self, measure: usize) -> Option<LastValue> {
        let load = || {
            let columns = self.section(IndexSection::Last).filter(|_| self.frames.whole);
            let measures = self.schema.measures.len();
            let newest = columns.map(|columns| sections::decode_newest(&columns, measures));
            newest.and_then(|newest| {
                newest.map_err(|error| self.broken(IndexSection::Last, error)).ok()
            })
        };
        *self.newest.get_or_init(load).as_ref()?.get(measure)?
    }

    fn damage(&self) -> Vec<SegmentDamage> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The dictionary of its table: one column without nulls, each text above the one before.
fn dictionary_of(columns: Vec<Column>) -> Result<Strings> {
    let strings = match columns.into_iter().next() {
        Some(Column { values: Values::Text(strings), validity: None }) => strings,
        Some(Column { values: Values::Coded { codes, dictionary }, validity: None }) => {
            codes.iter().map(|code| dictionary.get(*code as usize)).collect()
        }
        _ => return Err(Error::corrupt("6.2", "a dictionary has a null")),
    };
    if (1..strings.len()).all(|entry| strings.get(entry - 1) < strings.get(entry)) {
        Ok(strings)
    } else {
        Err(Error::corrupt("6.2", "the entries of a dictionary do not rise"))
    }
}

fn section_problem(section: IndexSection, error: &Error) -> String {
    format!("section {section:?}: {}", reason_of(error))
}

/// Whether an error is about the bytes of a file, as against reading them.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn)
}

/// What an error says of the bytes of a file; any other is passed on.
fn only_damage(error: Error) -> Result<String> {
    if is_damage(&error) { Ok(reason_of(&error)) } else { Err(error) }
}

/// Whether files of this kind have summaries and no rows.
fn is_rollup(kind: FileKind) -> bool {
    matches!(kind, FileKind::Hourly | FileKind::Daily)
}

/// Whether a file is what it is taken for; returns its table.
fn check_header(
    header: &Header,
    path: &Path,
    expect: Option<(Id, Table, Partition)>,
) -> Result<Table> {
    let not_ours = |message: String| Err(Error::new(ErrorKind::NotOurFile, message));
    if !matches!(header.kind, FileKind::Sealed | FileKind::Archive) && !is_rollup(header.kind) {
        return not_ours(format!("a file of kind {:?}, expected a sealed segment", header.kind));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(named) = FileKind::parse_file_name(name)
        && named != (header.uuid, header.kind)
    {
        return not_ours(format!("the header is that of {}", header.kind.file_name(header.uuid)));
    }
    let table = Table::ALL.into_iter().find(|table| table.name() == header.table.name);
    let Some(table) = table.filter(|table| header.table_matches(table.schema())) else {
        return Err(Error::corrupt("2.2", format!("unknown table {}", header.table.name)));
    };
    if let Some((store, expected, partition)) = expect
        && (store, expected, partition) != (header.store_id, table, header.partition)
    {
        return not_ours(format!(
            "a file of store {}, {table}, {}; expected {store}, {expected}, {partition}",
            header.store_id, header.partition
        ));
    }
    Ok(table)
}

/// The frames by trailer and footer.
fn read_footer(source: &Source, header: &Header) -> Result<Frames> {
    let offset = source.len.checked_sub(TRAILER_BYTES as u64);
    let offset = offset.ok_or_else(|| Error::new(ErrorKind::Torn, "no room for a trailer"))?;
    let trailer = Trailer::decode(&source.read(offset..source.len)?, &header.uuid, offset)?;
    read_footer_at(source, header, trailer.footer_offset)
}

fn read_footer_at(source: &Source, header: &Header, offset: u64) -> Result<Frames> {
    let most = (FRAME_HEADER_BYTES + FOOTER_BYTES_MAX) as u64;
    let end = source.len.min(offset.saturating_add(most));
    let head = source.read(offset..end.min(offset.saturating_add(FRAME_HEADER_BYTES as u64)))?;
    let frame = FrameHeader::decode(&head, &header.uuid, offset)?;
    if frame.kind != FrameKind::Footer {
        return Err(Error::corrupt(
            "6.5",
            format!("a {:?} frame, expected the footer", frame.kind),
        ));
    }
    let payload = source.read(offset + FRAME_HEADER_BYTES as u64..frame.end())?;
    let footer = Footer::decode(frame.whole_payload(&payload)?, header.kind, offset)?;
    if frame.seq != footer.frames.len() as u64 {
        let found = footer.frames.len();
        return Err(Error::corrupt("6.5", format!("frame {} lists {found} frames", frame.seq)));
    }
    Ok(Frames::of_footer(&footer, offset))
}

/// Finds the frames one by one, because the footer cannot be read as `cause` says.
fn walk(source: &Source, header: &Header, schema: &Schema, cause: &Error) -> Result<Frames> {
    let mut walk = Walk { frames: Vec::new(), next_seq: 0, rows: 0, damage: Vec::new() };
    let mut offset = FRAMES_OFFSET as u64;
    while let Some(frame) = next_frame(source, &header.uuid, offset)? {
        if frame.kind == FrameKind::Footer
            && let Ok(mut frames) = read_footer_at(source, header, frame.offset)
        {
            frames.damage =
                vec![SegmentDamage::harmless(format!("the trailer is damaged: {cause}"))];
            return Ok(frames);
        }
        walk.take(&frame, source.len, schema);
        offset = frame.end();
    }
    Ok(walk.finish(offset, cause))
}

struct Walk {
    frames: Vec<(u64, FrameEntry)>,
    next_seq: u64,
    rows: u64,
    damage: Vec<SegmentDamage>,
}

impl Walk {
    fn take(&mut self, frame: &FrameHeader, len: u64, schema: &Schema) {
        let first_copy = frame.kind == FrameKind::Dictionary
            && frame.seq
                < schema.columns.iter().filter(|c| c.kind == ColumnType::Dimension).count() as u64;
        if frame.seq != self.next_seq && !first_copy && !self.past_blocks() {
            self.damage.push(SegmentDamage::unknown(format!(
                "frames {} to {} cannot be found",
                self.next_seq,
                frame.seq.saturating_sub(1)
            )));
        }
        self.next_seq = frame.seq.saturating_add(1);
        if frame.end() > len {
            if frame.kind == FrameKind::Block {
                self.damage.push(SegmentDamage {
                    block: None,
                    column: None,
                    rows: Some(frame.rows.into()),
                    stamps: Some((frame.min_ts, frame.max_ts)),
                    reason: format!("the file ends inside frame {}", frame.seq),
                });
            }
        } else if matches!(frame.kind, FrameKind::Dictionary | FrameKind::Block | FrameKind::Index)
        {
            self.frames.push((frame.seq, FrameEntry::of(frame, self.rows)));
            if frame.kind == FrameKind::Block {
                self.rows = self.rows.saturating_add(frame.rows.into());
            }
        }
    }

    /// Whether no block can follow: sections, and what comes after them, were seen.
    fn past_blocks(&self) -> bool {
        self.frames.iter().any(|(_, frame)| frame.kind == FrameKind::Index)
    }

    fn finish(mut self, end: u64, cause: &Error) -> Frames {
        if !self.past_blocks() {
            self.damage.push(SegmentDamage::unknown(format!("the file may lack blocks: {cause}")));
        }
        let whole = self.damage.is_empty();
        if whole {
            self.damage.push(SegmentDamage::harmless(format!("the footer is damaged: {cause}")));
        }
        let (frames, damage) = (self.frames, self.damage);
        Frames { frames, footer_offset: end, whole, rows: (0, 0, 0), damage }
    }
}

/// The first whole frame header at or after `offset`.
fn next_frame(source: &Source, uuid: &Id, mut offset: u64) -> Result<Option<FrameHeader>> {
    const HEADER: u64 = FRAME_HEADER_BYTES as u64;
    while offset.saturating_add(HEADER) <= source.len {
        // A small look first: the next frame is nearly always right here.
        let bytes = source.read(offset..offset + HEADER)?;
        if let Ok(frame) = FrameHeader::decode(&bytes, uuid, offset) {
            return Ok(Some(frame));
        }
        let end = source.len.min(offset + SEARCH_BYTES);
        let window = source.read(offset..end)?;
        source.populate(&window)?;
        let mut places = (ALIGNMENT..window.len()).step_by(ALIGNMENT);
        let found = places.find_map(|place| {
            let bytes = window.get(place..place + FRAME_HEADER_BYTES)?;
            bytes.starts_with(&FRAME_MAGIC).then_some(())?;
            FrameHeader::decode(bytes, uuid, offset + place as u64).ok()
        });
        if found.is_some() || end == source.len {
            return Ok(found);
        }
        // A header may lie across the end of the window.
        offset = end - HEADER;
    }
    Ok(None)
}

/// Length, offset of the footer and header of a file, of the bytes that were kept of it; the
/// cursor is at the footer then.
fn read_summary(cursor: &mut Cursor<'_>) -> Result<(u64, u64, Header)> {
    let (len, footer_offset) = (cursor.u64()?, cursor.u64()?);
    let header_len = cursor.u32()? as usize;
    if header_len > HEADER_CHECKSUM_OFFSET {
        return Err(cursor.error("header is too long"));
    }
    let mut copy = cursor.bytes(header_len)?.to_vec();
    copy.resize(HEADER_CHECKSUM_OFFSET, 0);
    copy.extend_from_slice(cursor.bytes(HEADER_COPY_BYTES - HEADER_CHECKSUM_OFFSET)?);
    Ok((len, footer_offset, Header::decode(&copy)?.header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::{Fault, SimFileSystem};
    use crate::segment::order::tests::rows_text;
    use crate::segment::samples::{day, gauges, tasks};
    use crate::segment::seal::tests::sealed;
    use crate::segment::summarise::differences;

    fn open(fs: &SimFileSystem, path: &Path, mode: ReadMode) -> Result<SealedSegment> {
        SealedSegment::open(fs, Path::new("/store"), path, mode, None)
    }

    /// What a damaged file is compared with.
    struct Truth {
        blocks: Vec<Vec<String>>,
        summaries: Arc<Summaries>,
        zones: Vec<Vec<Option<(i64, i64)>>>,
        ids: Vec<String>,
    }

    fn truth(segment: &SealedSegment) -> Truth {
        let columns = segment.schema.columns.len();
        let zones = |block| (0..columns).map(|column| segment.zone(block, column)).collect();
        let batches: Vec<Batch> = segment.batches().map(Result::unwrap).collect();
        let ids = batches.iter().map(|batch| batch.columns[1].text(0).unwrap().to_owned());
        Truth {
            blocks: batches.iter().map(|batch| rows_text(&batch.columns)).collect(),
            summaries: segment.summaries(Depth::All).unwrap(),
            zones: (0..batches.len()).map(zones).collect(),
            ids: ids.collect(),
        }
    }

    /// Rows are right or known to be lost, and what is derived is right or left out.
    /// Returns whether anything was found wrong.
    fn check(segment: &SealedSegment, truth: &Truth, what: &str) -> bool {
        let found: Vec<_> = (0..segment.blocks.len()).map(|block| segment.batch(block)).collect();
        let lost = segment.damage();
        // With blocks missing the others are not where they were.
        let whole = segment.frames.whole;
        if whole {
            assert_eq!(found.len(), truth.blocks.len(), "{what}");
        } else {
            assert!(lost.iter().any(|damage| damage.rows != Some(0)), "{what}");
            assert!(segment.summaries(Depth::All).is_none(), "{what}");
        }
        for (block, batch) in found.iter().enumerate() {
            match batch {
                Ok(batch) => {
                    let rows = rows_text(&batch.columns);
                    let same = if whole {
                        truth.blocks[block] == rows
                    } else {
                        truth.blocks.contains(&rows)
                    };
                    assert!(same, "{what}: wrong rows in block {block}");
                }
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn),
                        "{what}: {error}"
                    );
                    assert!(lost.iter().any(|d| d.block == Some(block as u64)), "{what}");
                }
            }
            for (column, zone) in segment.schema.columns.iter().enumerate() {
                let found = segment.zone(block, column);
                let same = !whole || found.is_none() || found == truth.zones[block][column];
                assert!(same, "{what}: wrong zone of {}", zone.name);
            }
        }
        for (block, id) in truth.ids.iter().enumerate() {
            assert!(segment.might_contain(1, id), "{what}");
            assert!(!whole || segment.block_might_contain(block, 1, id), "{what}");
        }
        if let Some(summaries) = segment.summaries(Depth::All) {
            assert_eq!(differences(&summaries, &truth.summaries), Vec::<String>::new(), "{what}");
        }
        !lost.is_empty() || !segment.problems().is_empty() || found.iter().any(Result::is_err)
    }

    #[test]
    fn a_flipped_byte_is_found_and_costs_its_block_at_most() {
        let (fs, path, file) = sealed(Table::Task, &[tasks(400, 6, 11)]);
        let truth = truth(&open(&fs, &path, ReadMode::Mapped).unwrap());
        assert!(truth.blocks.len() > 1);
        let bytes = fs.read_file(&path).unwrap();
        let handle = fs.open_write(&path).unwrap();
        let frames = FRAMES_OFFSET..usize::try_from(file.bytes).unwrap();
        let places = (0..FRAMES_OFFSET).step_by(501).chain(frames.step_by(11));
        for at in places {
            let flipped = bytes[at] ^ (1 << (at % 8));
            handle.write_all_at(&[flipped], at as u64).unwrap();
            for mode in [ReadMode::Mapped, ReadMode::Copied] {
                let what = format!("byte {at}, {mode:?}");
                let segment = open(&fs, &path, mode).unwrap();
                let found = check(&segment, &truth, &what);
                assert!(found || !segment.verify(false).unwrap().is_empty(), "{what}");
            }
            handle.write_all_at(&bytes[at..=at], at as u64).unwrap();
            fs.checkpoint();
        }
    }

    #[test]
    fn a_file_cut_short_keeps_its_whole_blocks() {
        let (fs, path, file) = sealed(Table::Task, &[tasks(400, 6, 12)]);
        let truth = truth(&open(&fs, &path, ReadMode::Mapped).unwrap());
        let lengths = (0..usize::try_from(file.bytes).unwrap()).rev();
        for len in lengths.filter(|len| len % 37 == 0 || *len < 300) {
            fs.truncate(&path, len).unwrap();
            for mode in [ReadMode::Mapped, ReadMode::Copied] {
                let opened = open(&fs, &path, mode);
                if len >= FRAMES_OFFSET {
                    assert!(check(&opened.unwrap(), &truth, &format!("{len} bytes")));
                } else if let Ok(segment) = opened {
                    assert!(len >= HEADER_COPY_BYTES);
                    assert!(segment.blocks().is_empty() && segment.damage()[0].rows.is_none());
                }
            }
            fs.checkpoint();
        }
    }

    fn flip(fs: &SimFileSystem, path: &Path, at: u64) {
        let file = fs.open_write(path).unwrap();
        let mut byte = [0];
        read_exact_at(&*file, &mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }

    /// A read that the system failed was told as damage: a seal said `Corrupt` of a file that
    /// was sound, and a reader kept the note for as long as it had the file open.
    #[test]
    fn a_read_that_failed_is_no_damage() {
        let (fs, path, _) = sealed(Table::Task, &[tasks(400, 6, 14)]);
        let good = truth(&open(&fs, &path, ReadMode::Copied).unwrap());
        let (mut failed, before) = (0, fs.faults_fired());
        loop {
            let segment = open(&fs, &path, ReadMode::Copied).unwrap();
            fs.fail_at(failed, Fault::IO, false);
            let fired = fs.faults_fired();
            let found = segment.verify(true);
            let has_failed = fs.faults_fired() > fired;
            fs.heal();
            match found {
                Ok(wrong) => assert_eq!(wrong, [], "call {failed}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "call {failed}"),
            }
            assert!(!check(&segment, &good, &format!("call {failed}")));
            if !has_failed {
                break;
            }
            failed += 1;
        }
        assert!(failed > 10 && fs.faults_fired() - before == failed, "{failed}");
    }

    #[test]
    fn a_dictionary_is_read_from_either_copy() {
        let (fs, path, _) = sealed(Table::Agent, &[gauges(900, 9, 13)]);
        let good = open(&fs, &path, ReadMode::Mapped).unwrap();
        let truth = truth(&good);
        let copies: Vec<_> = good.frames.find(FrameKind::Dictionary, 1).copied().collect();
        assert_eq!(copies.len(), 2);
        flip(&fs, &path, copies[0].1.offset + 150);
        let one = open(&fs, &path, ReadMode::Mapped).unwrap();
        assert!(check(&one, &truth, "one copy"));
        assert!(one.damage().is_empty());
        assert_eq!(one.problems().len(), 1);
        flip(&fs, &path, copies[1].1.offset + 150);
        let none = open(&fs, &path, ReadMode::Mapped).unwrap();
        assert_eq!(none.read(0, 1).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(none.dictionary(1).is_err());
        assert!(none.might_contain(1, "nobody"));
        assert!(none.read(0, 2).is_ok() && none.read(0, 3).is_ok());
        assert!(none.summaries(Depth::All).unwrap().keys[1].is_empty());
    }

    #[test]
    fn a_footer_is_rebuilt_from_the_frames() {
        let (fs, path, file) = sealed(Table::Task, &[tasks(400, 6, 14)]);
        let good = open(&fs, &path, ReadMode::Mapped).unwrap();
        let truth = truth(&good);
        flip(&fs, &path, file.bytes - 10);
        let trailer = open(&fs, &path, ReadMode::Copied).unwrap();
        assert!(check(&trailer, &truth, "trailer"));
        assert_eq!(trailer.frames.frames, good.frames.frames);
        assert_eq!(trailer.damage().iter().map(|d| d.rows).collect::<Vec<_>>(), [Some(0)]);
        flip(&fs, &path, good.frames.footer_offset + 100);
        let footer = open(&fs, &path, ReadMode::Mapped).unwrap();
        assert!(check(&footer, &truth, "footer"));
        assert_eq!(footer.frames.frames, good.frames.frames);
        assert_eq!(footer.damage().iter().map(|d| d.rows).collect::<Vec<_>>(), [Some(0)]);
        assert!(footer.summaries(Depth::All).is_some() && footer.summary_bytes().is_none());
        let block = good.frames.frames[good.block_frames[1]].1;
        flip(&fs, &path, block.offset + 20);
        let hole = open(&fs, &path, ReadMode::Mapped).unwrap();
        assert!(check(&hole, &truth, "hole"));
        assert_eq!(hole.blocks().len(), good.blocks().len() - 1);
        assert_eq!(hole.damage()[0].rows, None);
    }

    #[test]
    fn a_file_in_a_wrong_place_is_refused() {
        let (fs, path, _) = sealed(Table::Task, &[tasks(10, 2, 15)]);
        let store = Id::from_bytes([1; 16]);
        let open = |path: &Path, expect| {
            SealedSegment::open(&*fs, Path::new("/store"), path, ReadMode::Mapped, expect)
                .map_err(|error| error.kind())
        };
        assert!(open(&path, Some((store, Table::Task, day()))).is_ok());
        for expect in [
            (Id::from_bytes([9; 16]), Table::Task, day()),
            (store, Table::Agent, day()),
            (store, Table::Task, Partition::from_days(1)),
        ] {
            assert_eq!(open(&path, Some(expect)).unwrap_err(), ErrorKind::NotOurFile);
        }
        let other = path.with_file_name(FileKind::Sealed.file_name(Id::from_bytes([5; 16])));
        fs.rename(&path, &other).unwrap();
        assert_eq!(open(&other, None).unwrap_err(), ErrorKind::NotOurFile);
    }
}
