//! Writing a sealed segment (spec 6).
//!
//! Owns the order of the steps: sort, encode block by block, summarise on the way, decide
//! which derived parts are worth their bytes, write, sync, read back, rename. The file has
//! its name only when all of that went well; what it replaces is not touched here.
//!
//! ```text
//! header x 2 | dictionaries | blocks | sections | dictionaries again | footer | trailer
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::column::{Batch, Column, Strings, Values};
use crate::config::ReadMode;
use crate::encoding::{Effort, TextScope};
use crate::error::{Error, ErrorKind, Result};
use crate::format::directory::ChunkEntry;
use crate::format::footer::{Footer, FrameEntry};
use crate::format::frame::{FrameHeader, FrameKind, IndexSection};
use crate::format::header::{Header, TableSchema};
use crate::format::id::{FileKind, Id};
use crate::format::layout::{FRAME_HEADER_BYTES, TRAILER_BYTES};
use crate::format::trailer::Trailer;
use crate::fs::{File, FileSystem, lock_new, make_locked};
use crate::planted::{Bug, is_planted};
use crate::schema::{ColumnType, Schema, Table};
use crate::segment::frames::{BlockFrame, FramePlace};
use crate::segment::order::OrderedRows;
use crate::segment::sealed::SealedSegment;
use crate::segment::sections;
use crate::segment::summarise::{Grain, Summariser};
use crate::segment::{Segment, Summaries, TopRows};
use crate::sketch::membership::Membership;
use crate::time::Partition;

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// The sections other than zone maps, hours, total and membership filter take at most one
/// byte in this many of the file.
const SECTIONS_SHARE: usize = 10;

/// What is written, besides the rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealSpec<'a> {
    /// The store.
    pub(crate) store_id: Id,
    /// The process that writes.
    pub(crate) writer: Id,
    /// The import transaction that the file counts with.
    pub(crate) txn: Option<Id>,
    /// The table of the rows.
    pub(crate) table: Table,
    /// The day of the rows.
    pub(crate) partition: Partition,
    /// Files of the same partition that the new one stands for.
    pub(crate) replaces: &'a [Id],
    /// Now, in microseconds since 1970.
    pub(crate) created: i64,
    /// `Sealed` or `Archive`.
    pub(crate) kind: FileKind,
    /// What is put into the choice of encodings.
    pub(crate) effort: Effort,
    /// Most rows of a block.
    pub(crate) block_rows: usize,
    /// Hours with fewer rows share a block.
    pub(crate) small_hour_rows: usize,
}

/// A segment that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedFile {
    /// The file.
    pub(crate) uuid: Id,
    /// Its name in the partition's directory.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Its rows.
    pub(crate) rows: u64,
    /// Whether its name is known to be durable. If not, what it replaces must stay, and
    /// sealing again would make the rows count twice: the file is there for all to see.
    pub(crate) is_durable: bool,
}

/// Times that the directory of a segment that has its name is synced.
const SYNC_ATTEMPTS: usize = 3;

/// Writes the rows of `batches`, in whatever order they are, as one sealed segment in the
/// partition's directory `dir`, and makes it durable.
///
/// # Errors
///
/// `InvalidArgument` when rows are not of the table and the day; those of the file system;
/// `Corrupt` when what was written is not what is read back. Then no file is left. A
/// failure of the very last step, the sync of the directory, is no error: see
/// [`SealedFile::is_durable`].
pub(crate) fn seal(
    fs: &dyn FileSystem,
    dir: &Path,
    spec: &SealSpec<'_>,
    batches: &[Batch],
) -> Result<SealedFile> {
    let schema = spec.table.schema();
    let rows = OrderedRows::new(schema, spec.partition, batches)?;
    make_locked(|| {
        let write = |file: &dyn File, uuid| {
            let mut writer = SegmentWriter::begin(file, spec, uuid, rows.dictionaries().to_vec())?;
            writer.reserve(rows.len());
            writer.add(&rows)?;
            let bytes = writer.finish()?;
            Ok(Written { bytes, rows: rows.len() as u64, sums: sums(schema, batches) })
        };
        publish(fs, dir, spec, write, |_| Ok(()))
    })
}

/// What was written, to be compared with what is read back.
pub(super) struct Written {
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Its rows.
    pub(super) rows: u64,
    /// Per column: the sum of its integers, modulo 2^64.
    pub(super) sums: Vec<i64>,
}

/// Writes a file by `write`, which also syncs it, reads it back, where `check` may look at
/// it too, and gives it its name.
pub(super) fn publish(
    fs: &dyn FileSystem,
    dir: &Path,
    spec: &SealSpec<'_>,
    write: impl FnOnce(&dyn File, Id) -> Result<Written>,
    check: impl FnOnce(&SealedSegment) -> Result<()>,
) -> Result<SealedFile> {
    let uuid = Id::from_bytes(fs.unique_id());
    let name = spec.kind.file_name(uuid);
    let temporary = dir.join(format!("{name}.tmp"));
    let file = fs.create(&temporary)?;
    let written = lock_new(fs, &*file).and_then(|()| write(&*file, uuid)).and_then(|written| {
        let segment = read_back(fs, &temporary, &written)?;
        check(&segment).map_err(|error| error.with_path(&temporary))?;
        fs.rename(&temporary, &dir.join(&name))?;
        Ok(written)
    });
    match written {
        Ok(Written { bytes, rows, .. }) => {
            let is_durable = is_planted(Bug::DeleteBeforeDurable)
                || (0..SYNC_ATTEMPTS).any(|_| fs.sync_dir(dir).is_ok());
            Ok(SealedFile { uuid, name, bytes, rows, is_durable })
        }
        Err(error) => {
            // The first error says more than one of cleaning up would.
            let _ = fs.remove(&temporary);
            Err(error)
        }
    }
}

/// A segment that is being written: rows are added in parts, hour after hour.
pub(super) struct SegmentWriter<'a> {
    spec: &'a SealSpec<'a>,
    schema: &'static Schema,
    writer: Writer<'a>,
    dictionaries: Vec<(u8, BlockFrame)>,
    scopes: Vec<TextScope>,
    summariser: Summariser,
    zones: Vec<Vec<ChunkEntry>>,
    members: Option<Membership>,
}

impl<'a> SegmentWriter<'a> {
    /// Writes the header and the dictionaries, which hold all texts of their columns.
    pub(super) fn begin(
        file: &'a dyn File,
        spec: &'a SealSpec<'a>,
        uuid: Id,
        dictionaries: Vec<Option<Arc<Strings>>>,
    ) -> Result<Self> {
        let schema = spec.table.schema();
        let mut writer = Writer::begin(file, spec, uuid)?;
        let mut frames = dictionary_frames(&dictionaries, spec.effort)?;
        for (column, frame) in &mut frames {
            writer.frame(FrameKind::Dictionary, *column, frame, (0, 0))?;
        }
        let grain = match spec.kind {
            FileKind::Archive => Grain::ARCHIVE,
            _ => Grain::SEGMENT,
        };
        let scope = |dictionary: &Option<_>| match dictionary {
            Some(_) => TextScope::Segment,
            None => TextScope::Local,
        };
        Ok(Self {
            spec,
            schema,
            writer,
            scopes: dictionaries.iter().map(scope).collect(),
            summariser: Summariser::new(schema, &dictionaries, grain),
            dictionaries: frames,
            zones: Vec::new(),
            members: None,
        })
    }

    /// Makes room in the membership filter for so many rows; to be called once, first.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.members = self.schema.member.map(|_| Membership::with_capacity(rows));
    }

    /// Adds rows of hours after those that were added before.
    pub(super) fn add(&mut self, rows: &OrderedRows<'_>) -> Result<()> {
        for block in rows.blocks(self.spec.block_rows, self.spec.small_hour_rows) {
            let columns = rows.gather(block);
            let mut frame = BlockFrame::encode(&columns, &self.scopes, self.spec.effort)?;
            self.writer.frame(FrameKind::Block, 0, &mut frame, stamps_of(&columns))?;
            self.zones.push(frame.chunks().to_vec());
            self.summariser.add_block(&columns);
            if let (Some(members), Some(column)) = (&mut self.members, self.schema.member) {
                let ids = &columns[column];
                (0..ids.len()).filter_map(|row| ids.text(row)).for_each(|id| members.insert(id));
            }
        }
        Ok(())
    }

    /// Writes all that is derived, footer and trailer, and syncs; returns the length.
    pub(super) fn finish(mut self) -> Result<u64> {
        let dictionary_bytes: usize = self.dictionaries.iter().map(|(_, frame)| frame.len()).sum();
        let bytes = usize::try_from(self.writer.end()).unwrap_or(usize::MAX) + dictionary_bytes;
        let (summaries, members) = (self.summariser.finish(), self.members.as_ref());
        let effort = self.spec.effort;
        let frames = sections_of(self.schema, summaries, &self.zones, members, bytes, effort)?;
        for (section, mut frame) in frames {
            self.writer.frame(FrameKind::Index, section.tag(), &mut frame, (0, 0))?;
        }
        for (column, frame) in &mut self.dictionaries {
            self.writer.frame(FrameKind::Dictionary, *column, frame, (0, 0))?;
        }
        self.writer.finish(self.spec.kind)
    }
}

pub(super) fn dictionary_frames(
    dictionaries: &[Option<Arc<Strings>>],
    effort: Effort,
) -> Result<Vec<(u8, BlockFrame)>> {
    let mut frames = Vec::new();
    for (column, dictionary) in (0u8..).zip(dictionaries) {
        if let Some(dictionary) = dictionary.as_ref().filter(|dictionary| !dictionary.is_empty()) {
            let entries = Column::new(Values::Text(dictionary.as_ref().clone()));
            frames.push((column, BlockFrame::encode(&[entries], &[], effort)?));
        }
    }
    Ok(frames)
}

fn stamps_of(columns: &[Column]) -> (i64, i64) {
    match columns.first().map(|column| &column.values) {
        Some(Values::Int(stamps)) => {
            let extremes = (stamps.iter().min(), stamps.iter().max());
            (extremes.0.copied().unwrap_or(0), extremes.1.copied().unwrap_or(0))
        }
        _ => (0, 0),
    }
}

/// The sections that are worth their bytes, in the order in which they are written.
/// `bytes` is the size of the file without them.
fn sections_of(
    schema: &'static Schema,
    mut summaries: Summaries,
    zones: &[Vec<ChunkEntry>],
    members: Option<&Membership>,
    bytes: usize,
    effort: Effort,
) -> Result<Vec<(IndexSection, BlockFrame)>> {
    let mut frames: Vec<Option<BlockFrame>> = Vec::new();
    for section in IndexSection::ALL {
        frames.push(match section {
            IndexSection::Zones => sections::encode_zones(zones, effort)?,
            // A filter that is larger than this share says less than it costs.
            IndexSection::Members => members
                .map(|members| sections::encode_members(members, effort))
                .transpose()?
                .flatten()
                .filter(|frame| frame.len() <= bytes / SECTIONS_SHARE),
            _ => sections::encode_summaries(section, schema, &summaries, effort)?,
        });
    }
    let most = bytes / (SECTIONS_SHARE - 1);
    let counts = |section: IndexSection| {
        !matches!(section, IndexSection::Zones | IndexSection::Hours | IndexSection::Members)
    };
    for omission in OMISSIONS {
        let size: usize = IndexSection::ALL
            .into_iter()
            .zip(&frames)
            .filter(|(section, _)| counts(*section))
            .filter_map(|(_, frame)| frame.as_ref())
            .map(BlockFrame::len)
            .sum();
        if size <= most {
            break;
        }
        (omission.take)(&mut summaries);
        for (section, frame) in IndexSection::ALL.into_iter().zip(&mut frames) {
            if omission.sections.contains(&section) {
                *frame = sections::encode_summaries(section, schema, &summaries, effort)?;
            }
        }
    }
    let kept = IndexSection::ALL.into_iter().zip(frames);
    Ok(kept.filter_map(|(section, frame)| Some((section, frame?))).collect())
}

/// A part of the summaries that can be done without.
struct Omission {
    /// Takes it out.
    take: fn(&mut Summaries),
    /// The sections that are smaller without it.
    sections: &'static [IndexSection],
}

/// What is left out to save bytes, the least useful first. Total and hours always stay.
const OMISSIONS: [Omission; 8] = [
    Omission {
        take: |summaries| summaries.hours.iter_mut().for_each(|hour| hour.keys.clear()),
        sections: &[IndexSection::Summaries],
    },
    Omission {
        take: |summaries| {
            let digests = summaries.key_digests.iter_mut().flatten();
            digests.for_each(|digests| digests.fill(None));
        },
        sections: &[IndexSection::KeyDigests, IndexSection::KeyCentroids],
    },
    Omission {
        take: |summaries| summaries.hours.iter_mut().for_each(|hour| hour.digests.fill(None)),
        sections: &[IndexSection::Digests, IndexSection::Centroids],
    },
    Omission {
        take: |summaries| {
            summaries.keys.iter_mut().flatten().for_each(|key| key.runs = Vec::new());
        },
        sections: &[IndexSection::Keys],
    },
    Omission {
        take: |summaries| summaries.top = TopRows::default(),
        sections: &[IndexSection::Top],
    },
    Omission {
        take: |summaries| {
            let finest = summaries.keys.iter().rposition(|keys| !keys.is_empty());
            finest.into_iter().for_each(|level| take_level(summaries, level));
        },
        sections: &[IndexSection::Summaries, IndexSection::Last],
    },
    Omission {
        take: |summaries| summaries.digests.fill(None),
        sections: &[IndexSection::Digests, IndexSection::Centroids],
    },
    Omission {
        take: |summaries| {
            (0..summaries.keys.len()).for_each(|level| take_level(summaries, level));
        },
        sections: &[IndexSection::Summaries, IndexSection::Last],
    },
];

fn take_level(summaries: &mut Summaries, level: usize) {
    summaries.keys[level] = Vec::new();
    summaries.key_digests[level] = Vec::new();
}

/// Puts frame after frame into the file.
pub(super) struct Writer<'a> {
    file: &'a dyn File,
    uuid: Id,
    /// Bytes that are in the file.
    written: u64,
    /// Bytes that come next.
    waiting: Vec<u8>,
    footer: Footer,
}

impl<'a> Writer<'a> {
    /// Writes the header.
    pub(super) fn begin(file: &'a dyn File, spec: &SealSpec<'_>, uuid: Id) -> Result<Self> {
        let header = Header {
            major: Header::VERSION.0,
            minor: Header::VERSION.1,
            kind: spec.kind,
            store_id: spec.store_id,
            uuid,
            writer: spec.writer,
            txn: spec.txn,
            partition: spec.partition,
            created: spec.created,
            table: TableSchema::of(spec.table.schema()),
            replaces: spec.replaces.to_vec(),
        };
        let footer = Footer::default();
        let mut writer = Self { file, uuid, written: 0, waiting: Vec::new(), footer };
        writer.append(&header.encode()?)?;
        Ok(writer)
    }

    pub(super) fn end(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= WRITE_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_all_at(&self.waiting, self.written)?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        kind: FrameKind,
        sub: u8,
        frame: &mut BlockFrame,
        stamps: (i64, i64),
    ) -> Result<()> {
        let seq = self.footer.frames.len() as u64;
        let place = FramePlace { kind, sub, uuid: self.uuid, seq, offset: self.end(), stamps };
        let (header, bytes) = frame.place(&place)?;
        self.append(bytes)?;
        self.footer.frames.push(FrameEntry::of(&header, self.footer.rows));
        if kind == FrameKind::Block {
            let first = self.footer.rows == 0;
            self.footer.min_ts = if first { stamps.0 } else { self.footer.min_ts.min(stamps.0) };
            self.footer.max_ts = if first { stamps.1 } else { self.footer.max_ts.max(stamps.1) };
            self.footer.rows += u64::from(header.rows);
        }
        Ok(())
    }

    /// Says how many rows the file stands for, and their earliest and latest stamp.
    pub(super) fn stand_for(&mut self, rows: u64, stamps: (i64, i64)) {
        (self.footer.rows, self.footer.min_ts, self.footer.max_ts) = (rows, stamps.0, stamps.1);
    }

    /// Writes footer and trailer, and syncs; returns the length of the file.
    pub(super) fn finish(mut self, kind: FileKind) -> Result<u64> {
        let offset = self.end();
        let payload = self.footer.encode(kind, offset)?;
        let mut header = FrameHeader {
            kind: FrameKind::Footer,
            sub: 0,
            uuid: self.uuid,
            seq: self.footer.frames.len() as u64,
            offset,
            payload_len: u32::try_from(payload.len())
                .map_err(|_| Error::invalid("the footer is too long"))?,
            directory_len: 0,
            rows: 0,
            min_ts: 0,
            max_ts: 0,
            payload_crc: 0,
        };
        header.payload_crc = header.seed().payload(&payload);
        self.append(&header.encode())?;
        self.append(&payload)?;
        let padding = header.padded_len() - payload.len();
        self.append(&vec![0; padding])?;
        debug_assert_eq!(self.end(), header.end());
        let footer_bytes = (FRAME_HEADER_BYTES + header.padded_len()) as u64;
        let trailer = Trailer { footer_offset: offset, footer_bytes, uuid: self.uuid };
        self.append(&trailer.encode())?;
        self.write_out()?;
        debug_assert_eq!(self.written, offset + footer_bytes + TRAILER_BYTES as u64);
        if !is_planted(Bug::RenameUnsynced) {
            self.file.sync_data()?;
        }
        Ok(self.written)
    }
}

/// Per integer column: the sum of its values, modulo 2^64.
pub(super) fn sums(schema: &Schema, batches: &[Batch]) -> Vec<i64> {
    let mut sums = vec![0i64; schema.columns.len()];
    for batch in batches {
        for (sum, column) in sums.iter_mut().zip(&batch.columns) {
            add_sum(sum, column);
        }
    }
    sums
}

/// Null rows count as the zero that they hold.
fn add_sum(sum: &mut i64, column: &Column) {
    if let Values::Int(values) = &column.values {
        *sum = values.iter().fold(*sum, |sum, value| sum.wrapping_add(*value));
    }
}

/// Reads the file as written, not as remembered: every checksum, rows, integer sums.
fn read_back(fs: &dyn FileSystem, path: &Path, written: &Written) -> Result<SealedSegment> {
    let bad = |what: String| Err(Error::new(ErrorKind::Corrupt, what).with_path(path));
    let segment = SealedSegment::open(fs, Path::new(""), path, ReadMode::Copied, None)?;
    let wrong = segment.verify(false)?;
    if let Some(first) = wrong.first() {
        return bad(format!("read back after writing: {}", first.reason));
    }
    let Written { bytes, rows, sums } = written;
    if segment.rows() != *rows || segment.bytes() != *bytes {
        let (found, len) = (segment.rows(), segment.bytes());
        return bad(format!("{found} rows in {len} bytes, expected {rows} in {bytes}"));
    }
    let schema = segment.table().schema();
    for (column, expected) in sums.iter().enumerate() {
        if !matches!(schema.columns[column].kind, ColumnType::Int | ColumnType::Timestamp) {
            continue;
        }
        let mut sum = 0;
        for block in 0..segment.blocks().len() {
            add_sum(&mut sum, &segment.read(block, column)?);
        }
        if sum != *expected {
            return bad(format!("the sum of column {column} is not that of the input"));
        }
    }
    Ok(segment)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fs::OsFileSystem;
    use crate::fs::sim::{Fault, SimFileSystem};
    use crate::segment::order::tests::rows_text;
    use crate::segment::samples::{day, gauges, pieces, tasks};
    use crate::time::MICROS_PER_HOUR;

    pub(crate) fn spec(table: Table) -> SealSpec<'static> {
        SealSpec {
            store_id: Id::from_bytes([1; 16]),
            writer: Id::from_bytes([2; 16]),
            txn: None,
            table,
            partition: day(),
            replaces: &[],
            created: 0,
            kind: FileKind::Sealed,
            effort: Effort::Seal,
            block_rows: 150,
            small_hour_rows: 50,
        }
    }

    /// A simulated file system with one sealed file in it, and where it lies.
    pub(crate) fn sealed(
        table: Table,
        batches: &[Batch],
    ) -> (Arc<SimFileSystem>, std::path::PathBuf, SealedFile) {
        let fs = Arc::new(SimFileSystem::new());
        let dir = Path::new("/store/day").to_path_buf();
        for path in [Path::new("/store"), &dir] {
            fs.create_dir(path).unwrap();
        }
        let file = seal(&*fs, &dir, &spec(table), batches).unwrap();
        (fs, dir.join(&file.name), file)
    }

    fn open(fs: &dyn FileSystem, path: &Path, mode: ReadMode) -> SealedSegment {
        let store = path.parent().and_then(Path::parent).unwrap();
        let table = SealedSegment::open(fs, store, path, mode, None).unwrap().table();
        let expect = Some((Id::from_bytes([1; 16]), table, day()));
        SealedSegment::open(fs, store, path, mode, expect).unwrap()
    }

    fn all_rows(segment: &SealedSegment) -> Vec<String> {
        segment.batches().flat_map(|batch| rows_text(&batch.unwrap().columns)).collect()
    }

    fn sorted(mut rows: Vec<String>) -> Vec<String> {
        rows.sort_unstable();
        rows
    }

    /// Hour and order columns of each row, as something that sorts like them.
    fn order_of(segment: &SealedSegment) -> Vec<Vec<String>> {
        let schema = segment.table().schema();
        let mut keys = Vec::new();
        for batch in segment.batches() {
            let batch = batch.unwrap();
            for (row, stamp) in batch.timestamps().iter().enumerate() {
                let mut key = vec![format!("{:020}", stamp / MICROS_PER_HOUR)];
                key.extend(schema.order.iter().map(|column| match *column {
                    0 => format!("{stamp:020}"),
                    column => batch.columns[column].text(row).unwrap().to_owned(),
                }));
                keys.push(key);
            }
        }
        keys
    }

    fn check_round_trip(table: Table, batch: &Batch, piece: usize) {
        let (fs, path, file) = sealed(table, &pieces(batch, piece));
        assert_eq!(file.rows, batch.len() as u64);
        for mode in [ReadMode::Mapped, ReadMode::Copied] {
            let segment = open(&*fs, &path, mode);
            assert_eq!(segment.rows(), batch.len() as u64);
            assert_eq!(segment.bytes(), file.bytes);
            assert_eq!(segment.file(), format!("day/{}", file.name));
            assert_eq!(sorted(all_rows(&segment)), sorted(rows_text(&batch.columns)));
            assert!(order_of(&segment).is_sorted());
            assert_eq!(segment.verify(true).unwrap(), []);
            assert!(segment.damage().is_empty());
        }
    }

    #[test]
    fn rows_come_back_in_order() {
        check_round_trip(Table::Task, &tasks(12_000, 50, 1), 777);
        check_round_trip(Table::Task, &tasks(12_000, 5000, 2), 12_000);
        check_round_trip(Table::Task, &tasks(1, 1, 3), 1);
        check_round_trip(Table::Agent, &gauges(12_000, 9, 4), 100);
        check_round_trip(Table::Task, &Batch::empty(Table::Task.schema()), 1);
    }

    #[test]
    fn a_dimension_of_many_texts_has_no_dictionary() {
        let batch = tasks(900, 20_000, 10);
        check_round_trip(Table::Task, &batch, 100);
        let (fs, path, _) = sealed(Table::Task, &[batch]);
        let segment = open(&*fs, &path, ReadMode::Mapped);
        assert_eq!(segment.dictionary(2).unwrap(), None);
        assert!(segment.summaries(crate::segment::Depth::All).unwrap().keys[0].is_empty());
        let agent = segment.read(3, 2).unwrap().text(0).unwrap().to_owned();
        assert!(segment.might_contain(2, &agent) && segment.block_might_contain(3, 2, &agent));
    }

    #[test]
    fn the_same_rows_in_another_order_give_the_same_blocks() {
        let batch = tasks(3000, 20, 5);
        let mut reversed = pieces(&batch, 100);
        reversed.reverse();
        let rows = |batches: &[Batch]| {
            let (fs, path, _) = sealed(Table::Task, batches);
            all_rows(&open(&*fs, &path, ReadMode::Mapped))
        };
        assert_eq!(rows(&reversed), rows(&[batch]));
    }

    #[test]
    fn a_summary_opens_the_file_later() {
        let (fs, path, _) = sealed(Table::Agent, &[gauges(2000, 5, 6)]);
        let first = open(&*fs, &path, ReadMode::Mapped);
        let summary = first.summary_bytes().unwrap();
        let shared: Arc<dyn FileSystem> = fs.clone();
        let open = |summary: &[u8]| {
            let store = Path::new("/store");
            SealedSegment::from_summary(&shared, store, &path, ReadMode::Mapped, None, summary)
        };
        let second = open(&summary).unwrap();
        assert_eq!(second.blocks(), first.blocks());
        assert_eq!(second.key(), first.key());
        assert_eq!(all_rows(&second), all_rows(&first));
        for len in 0..summary.len() {
            assert!(open(&summary[..len]).is_err(), "{len} bytes");
        }
        fs.delete_file(&path).unwrap();
        let late = open(&summary).unwrap();
        assert_eq!(late.read(0, 0).unwrap_err().kind(), ErrorKind::SnapshotGone);
        assert!(late.is_gone() && !first.is_gone());
    }

    #[test]
    fn a_failure_leaves_no_file() {
        let batches = [tasks(600, 5, 7)];
        for op in 0.. {
            let fs = SimFileSystem::new();
            let dir = Path::new("/day");
            fs.create_dir(dir).unwrap();
            fs.fail_at(op, Fault::NO_SPACE, false);
            let sealed = seal(&fs, dir, &spec(Table::Task), &batches);
            let fired = fs.faults_fired();
            fs.heal();
            let left: Vec<_> = fs.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
            match sealed {
                Ok(file) => {
                    assert_eq!(left, [file.name], "operation {op}");
                    if fired == 0 {
                        return;
                    }
                }
                // The sync of the directory comes last: the file is whole.
                Err(_) if left.iter().any(|name| name.ends_with(".segment")) => {
                    let path = dir.join(&left[0]);
                    assert_eq!(open(&fs, &path, ReadMode::Copied).rows(), 600);
                }
                Err(_) => assert!(left.is_empty(), "operation {op}: {left:?}"),
            }
        }
    }

    #[test]
    fn tasks_take_few_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let spec = SealSpec { block_rows: 64 << 10, small_hour_rows: 4096, ..spec(Table::Task) };
        let batches = pieces(&tasks(100_000, 500, 8), 5000);
        let file = seal(&OsFileSystem, directory.path(), &spec, &batches).unwrap();
        let bytes = file.bytes as f64 / file.rows as f64;
        let path = directory.path().join(&file.name);
        let segment =
            SealedSegment::open(&OsFileSystem, directory.path(), &path, ReadMode::Mapped, None)
                .unwrap();
        let columns: Vec<f64> = (0..7)
            .map(|column| {
                let chunks = (0..segment.blocks().len()).map(|b| segment.chunk_bytes(b, column));
                chunks.sum::<u64>() as f64 / file.rows as f64
            })
            .collect();
        println!("{bytes:.2} bytes a row, by column {columns:.2?}");
        assert!(bytes <= 20.0, "{bytes:.2} bytes a row, by column {columns:.2?}");
    }
}
