//! Tombstones: what is left of files whose rows have expired (spec 6.8).
//!
//! Owns writing one and reading it. Which files it replaces, and when, is decided by
//! maintenance.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::format::cursor::Cursor;
use crate::format::footer::Footer;
use crate::format::frame::{FrameHeader, FrameKind};
use crate::format::header::{Header, TableSchema};
use crate::format::id::{FileKind, Id};
use crate::format::layout::{
    FRAME_HEADER_BYTES, FRAMES_OFFSET, HEADER_CHECKSUM_OFFSET, HEADER_COPY_BYTES, TRAILER_BYTES,
};
use crate::format::trailer::Trailer;
use crate::fs::{File, FileSystem, lock_new, make_locked, read_whole};
use crate::schema::Table;
use crate::segment::files::StoreRoot;
use crate::segment::reason_of;
use crate::time::{Partition, TimeRange};

/// More than a whole tombstone takes: its footer lists no frames.
const BYTES_MAX: u64 = 64 << 10;

/// What a tombstone stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StandsFor {
    /// The files that it replaces.
    pub(crate) replaces: Vec<Id>,
    /// Rows in them; 0 if they are damaged.
    pub(crate) rows: u64,
    /// Earliest and latest stamp of those rows; of damaged ones where that is known.
    pub(crate) stamps: Option<(i64, i64)>,
}

/// A tombstone that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    header: Header,
    /// What it stands for; `None` if that is damaged, which brings nothing back.
    footer: Option<Footer>,
    bytes: u64,
}

impl Tombstone {
    /// Reads the tombstone at `path`. Its header alone says what it replaces.
    ///
    /// # Errors
    ///
    /// Those of opening a file; `Corrupt`, `Torn`, `NotOurFile` or `UnsupportedVersion` when
    /// both headers are unusable or those of another kind of file.
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path) -> Result<Self> {
        let bytes = read_whole(fs, path, BYTES_MAX)?;
        let header = Header::decode(&bytes).map_err(|error| error.with_path(path))?.header;
        let footer = footer_of(&bytes, &header).ok();
        Self::new(header, footer, bytes.len() as u64).map_err(|error| error.with_path(path))
    }

    /// What is wrong with the tombstone at `path`, which has one good header.
    ///
    /// # Errors
    ///
    /// `Io` when it cannot be read; as [`open`](Self::open).
    pub(crate) fn problems(fs: &dyn FileSystem, path: &Path) -> Result<Vec<String>> {
        let bytes = read_whole(fs, path, BYTES_MAX)?;
        let copies = Header::decode(&bytes).map_err(|error| error.with_path(path))?;
        let mut problems = copies.problems();
        if let Err(error) = footer_of(&bytes, &copies.header) {
            let reason = reason_of(&error);
            problems.push(format!("what the tombstone stands for cannot be read: {reason}"));
        }
        let offset = bytes.len().saturating_sub(TRAILER_BYTES);
        let trailer = bytes.get(offset..).unwrap_or_default();
        if let Err(error) = Trailer::decode(trailer, &copies.header.uuid, offset as u64) {
            problems.push(format!("the trailer is damaged: {}", reason_of(&error)));
        }
        Ok(problems)
    }

    fn new(header: Header, footer: Option<Footer>, bytes: u64) -> Result<Self> {
        if header.kind == FileKind::Tombstone {
            return Ok(Self { header, footer, bytes });
        }
        let message = format!("a file of kind {:?}, expected a tombstone", header.kind);
        Err(Error::new(ErrorKind::NotOurFile, message))
    }

    /// As [`open`](Self::open), of what [`summary_bytes`](Self::summary_bytes) kept; the file
    /// is not touched.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the bytes are not such a summary.
    pub(crate) fn from_summary(summary: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(summary, "8");
        let (bytes, header_len) = (cursor.u64()?, cursor.u32()? as usize);
        if header_len > HEADER_CHECKSUM_OFFSET {
            return Err(cursor.error("header is too long"));
        }
        let mut copy = cursor.bytes(header_len)?.to_vec();
        copy.resize(HEADER_CHECKSUM_OFFSET, 0);
        copy.extend_from_slice(cursor.bytes(HEADER_COPY_BYTES - HEADER_CHECKSUM_OFFSET)?);
        let header = Header::decode(&copy)?.header;
        let footer = cursor.bytes(cursor.remaining())?;
        let footer = Footer::decode(footer, header.kind, FRAMES_OFFSET as u64)?;
        Self::new(header, Some(footer), bytes)
    }

    /// What opening the file reads, for a cache; `None` when it is damaged.
    pub(crate) fn summary_bytes(&self) -> Option<Vec<u8>> {
        let footer = self.footer.as_ref()?.encode(self.header.kind, FRAMES_OFFSET as u64).ok()?;
        let copies = self.header.encode().ok()?;
        let (fields, checksum) =
            copies.get(..HEADER_COPY_BYTES)?.split_at_checked(HEADER_CHECKSUM_OFFSET)?;
        let used = fields.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut bytes = self.bytes.to_le_bytes().to_vec();
        bytes.extend_from_slice(&u32::try_from(used).ok()?.to_le_bytes());
        bytes.extend_from_slice(fields.get(..used)?);
        bytes.extend_from_slice(checksum);
        bytes.extend(footer);
        Some(bytes)
    }

    /// What the header says.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Rows that it stands for, where that is known.
    pub(crate) fn rows(&self) -> u64 {
        self.footer.as_ref().map_or(0, |footer| footer.rows)
    }

    /// Earliest and latest stamp of those rows.
    pub(crate) fn stamps(&self) -> Option<(i64, i64)> {
        let footer = self.footer.as_ref().filter(|footer| footer.rows > 0)?;
        Some((footer.min_ts, footer.max_ts))
    }

    /// When the rows that were lost to damage lay, as far as is known.
    pub(crate) fn lost(&self) -> TimeRange {
        let day = self.header.partition.range();
        match &self.footer {
            Some(footer) if self.is_of_damage() && (footer.min_ts, footer.max_ts) != (0, 0) => {
                TimeRange { start: footer.min_ts, end: footer.max_ts.saturating_add(1) }
            }
            _ => day,
        }
    }

    /// What it stands for, with other files in the place of those that it replaces.
    pub(crate) fn stands_for(&self, replaces: Vec<Id>) -> StandsFor {
        let lost = self.footer.as_ref().filter(|footer| footer.rows == 0);
        let lost = lost.map(|footer| (footer.min_ts, footer.max_ts));
        let stamps = self.stamps().or(lost.filter(|stamps| *stamps != (0, 0)));
        StandsFor { replaces, rows: self.rows(), stamps }
    }

    /// Size of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether what it stands for can be read.
    pub(crate) fn is_whole(&self) -> bool {
        self.footer.is_some()
    }

    /// Whether the files that it stands for were damaged.
    pub(crate) fn is_of_damage(&self) -> bool {
        self.footer.as_ref().is_some_and(|footer| footer.rows == 0)
    }
}

fn footer_of(bytes: &[u8], header: &Header) -> Result<Footer> {
    let offset = FRAMES_OFFSET as u64;
    let rest = bytes.get(FRAMES_OFFSET..).unwrap_or_default();
    let frame = FrameHeader::decode(rest, &header.uuid, offset)?;
    if frame.kind != FrameKind::Footer {
        let message = format!("a {:?} frame, expected the footer", frame.kind);
        return Err(Error::corrupt("6.8", message));
    }
    let payload = rest.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let payload = payload.get(..frame.padded_len()).unwrap_or_default();
    Footer::decode(frame.whole_payload(payload)?, header.kind, offset)
}

/// Writes a tombstone of the partition, and makes it durable; from then on what it replaces
/// has no rows.
///
/// # Errors
///
/// `InvalidArgument` for more files than one may replace; those of the file system; `Corrupt`
/// when what was written is not what is read back. Then no file is left, but where the very
/// last step failed, the sync of the directory.
pub(crate) fn write_tombstone(
    root: &StoreRoot,
    table: Table,
    partition: Partition,
    stands_for: &StandsFor,
) -> Result<Id> {
    let fs = root.fs.as_ref();
    let place = root.place(table, partition);
    place.ensure_dir(fs)?;
    make_locked(|| {
        let uuid = Id::from_bytes(fs.unique_id());
        let header = Header {
            major: Header::VERSION.0,
            minor: Header::VERSION.1,
            kind: FileKind::Tombstone,
            store_id: root.id,
            uuid,
            writer: root.writer,
            txn: None,
            partition,
            created: root.now(),
            table: TableSchema::of(table.schema()),
            replaces: stands_for.replaces.clone(),
        };
        publish(fs, &place.dir(), &header, stands_for)?;
        Ok(uuid)
    })
}

fn publish(fs: &dyn FileSystem, dir: &Path, header: &Header, stands_for: &StandsFor) -> Result<()> {
    let bytes = encode(header, stands_for)?;
    let name = header.kind.file_name(header.uuid);
    let temporary = dir.join(format!("{name}.tmp"));
    let file = fs.create(&temporary)?;
    let placed = write_and_read_back(fs, &*file, &bytes, header)
        .and_then(|()| fs.rename(&temporary, &dir.join(&name)));
    if let Err(error) = placed {
        // The first error says more than one of cleaning up would.
        let _ = fs.remove(&temporary);
        return Err(error);
    }
    fs.sync_dir(dir)
}

fn write_and_read_back(
    fs: &dyn FileSystem,
    file: &dyn File,
    bytes: &[u8],
    header: &Header,
) -> Result<()> {
    lock_new(fs, file)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    let found = Tombstone::open(fs, file.path())?;
    if found.header == *header && found.is_whole() {
        return Ok(());
    }
    Err(Error::corrupt("6.8", "what was written is not what is read back").with_path(file.path()))
}

/// The whole file: header, footer, trailer.
fn encode(header: &Header, stands_for: &StandsFor) -> Result<Vec<u8>> {
    let offset = FRAMES_OFFSET as u64;
    let (min_ts, max_ts) = stands_for.stamps.unwrap_or((0, 0));
    let footer = Footer { rows: stands_for.rows, min_ts, max_ts, frames: Vec::new() };
    let payload = footer.encode(header.kind, offset)?;
    let mut frame = FrameHeader {
        kind: FrameKind::Footer,
        sub: 0,
        uuid: header.uuid,
        seq: 0,
        offset,
        payload_len: u32::try_from(payload.len())
            .map_err(|_| Error::invalid("the footer is too long"))?,
        directory_len: 0,
        rows: 0,
        min_ts: 0,
        max_ts: 0,
        payload_crc: 0,
    };
    frame.payload_crc = frame.seed().payload(&payload);
    let mut bytes = header.encode()?;
    bytes.extend_from_slice(&frame.encode());
    bytes.extend_from_slice(&payload);
    bytes.resize(FRAMES_OFFSET + FRAME_HEADER_BYTES + frame.padded_len(), 0);
    let footer_bytes = frame.frame_bytes();
    let trailer = Trailer { footer_offset: offset, footer_bytes, uuid: header.uuid };
    bytes.extend_from_slice(&trailer.encode());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::config::Options;
    use crate::fs::sim::SimFileSystem;
    use crate::limits::REPLACES_MAX;

    const DAY: Partition = Partition::from_days(20_000);

    fn id(number: u8) -> Id {
        Id::from_bytes([number; 16])
    }

    fn root() -> (SimFileSystem, StoreRoot) {
        let fs = SimFileSystem::new();
        let dir = PathBuf::from("/store");
        fs.create_private_dir(&dir).unwrap();
        let (store, writer) = (id(1), id(2));
        let options = Arc::new(Options::default());
        (fs.clone(), StoreRoot { fs: Arc::new(fs), dir, id: store, writer, options })
    }

    fn written(stands_for: &StandsFor) -> (SimFileSystem, PathBuf, Id) {
        let (fs, root) = root();
        let uuid = write_tombstone(&root, Table::Agent, DAY, stands_for).unwrap();
        let name = FileKind::Tombstone.file_name(uuid);
        (fs, root.place(Table::Agent, DAY).dir().join(name), uuid)
    }

    fn some_rows() -> StandsFor {
        let start = DAY.range().start;
        let replaces = (10..15).map(id).collect();
        StandsFor { replaces, rows: 1_000, stamps: Some((start + 5, start + 9)) }
    }

    #[test]
    fn it_says_what_it_stands_for() {
        let damage = StandsFor { replaces: vec![id(9)], ..StandsFor::default() };
        for stands_for in [some_rows(), damage] {
            let (fs, path, uuid) = written(&stands_for);
            let found = Tombstone::open(&fs, &path).unwrap();
            let header = found.header();
            assert_eq!((header.uuid, header.partition), (uuid, DAY));
            assert_eq!(header.known_table(), Some(Table::Agent));
            assert_eq!(header.replaces, stands_for.replaces);
            assert_eq!((found.rows(), found.stamps()), (stands_for.rows, stands_for.stamps));
            assert_eq!(found.is_of_damage(), stands_for.rows == 0);
            assert_eq!(found.bytes(), fs.metadata(&path).unwrap().len);
            assert!(found.is_whole() && found.bytes() < 9_000);
            let summary = found.summary_bytes().unwrap();
            assert!(summary.len() < 500, "{}", summary.len());
            assert_eq!(Tombstone::from_summary(&summary).unwrap(), found);
            for len in 0..summary.len() {
                assert!(Tombstone::from_summary(&summary[..len]).is_err(), "cut at {len}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_brings_nothing_back() {
        let (fs, path, _) = written(&some_rows());
        let whole = Tombstone::open(&fs, &path).unwrap();
        let bytes = fs.read_file(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs.write_file(&path, &damaged).unwrap();
            let found = Tombstone::open(&fs, &path).unwrap();
            assert_eq!(found.header(), whole.header(), "byte {at}");
            assert!(!found.is_whole() || found == whole, "byte {at}");
            assert!(!found.is_of_damage(), "byte {at}");
        }
        for len in 0..bytes.len() {
            fs.write_file(&path, &bytes[..len]).unwrap();
            match Tombstone::open(&fs, &path) {
                Ok(found) => assert_eq!(found.header(), whole.header(), "cut at {len}"),
                Err(error) => assert!(len < HEADER_COPY_BYTES, "cut at {len}: {error}"),
            }
        }
    }

    #[test]
    fn too_many_files_are_refused_and_leave_nothing() {
        let (fs, root) = root();
        let replaces = (0..=REPLACES_MAX).map(|_| Id::from_bytes(fs.unique_id())).collect();
        let many = StandsFor { replaces, ..some_rows() };
        let error = write_tombstone(&root, Table::Task, DAY, &many).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(fs.list(&root.place(Table::Task, DAY).dir()).unwrap(), []);
    }
}
