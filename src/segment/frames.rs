//! Block frames: a directory and one chunk per column, with their checksums.
//!
//! Owns putting columns into one frame and getting them out again, for active and sealed
//! segments alike (spec 2.3, 4.1). Leaves alone which frames follow which, and what a bad
//! one means for the rest of the file.
//!
//! ```text
//! header 96 | directory 8 + 40 x columns | chunk | chunk | ...
//!           '----------------- payload ----------------------'
//! ```

use std::ops::Range;
use std::sync::Arc;

use crate::column::{Column, Strings, Values};
use crate::encoding::{self, Chunk, Effort, TextScope};
use crate::error::{Error, Result};
use crate::format::checksum;
use crate::format::directory::{BlockDirectory, ChunkEntry, directory_bytes};
use crate::format::frame::{FrameHeader, FrameKind};
use crate::format::id::Id;
use crate::format::layout::{
    ACTIVE_PAYLOAD_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_ROWS_MAX, INDEX_ROWS_MAX,
    SEALED_PAYLOAD_BYTES_MAX,
};
use crate::limits::UNTRUSTED_RATIO_MAX;
use crate::planted::{Bug, is_planted};
use crate::schema::{ColumnType, Schema};
use crate::sketch::zone::zone;
use crate::time::Partition;

/// Which frame it is and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramePlace {
    /// What the frame holds.
    pub(crate) kind: FrameKind,
    /// Column of a dictionary, section of an index, else zero.
    pub(crate) sub: u8,
    /// The file.
    pub(crate) uuid: Id,
    /// Number of the frame in the file, from zero.
    pub(crate) seq: u64,
    /// Where the frame starts in the file.
    pub(crate) offset: u64,
    /// Earliest and latest stamp of the rows of a ROWS or BLOCK frame, else zeros.
    pub(crate) stamps: (i64, i64),
}

/// Columns encoded into a frame that has no place yet: its size is known, and it can be
/// put anywhere, any number of times.
#[derive(Clone, Debug)]
pub(crate) struct BlockFrame {
    directory: BlockDirectory,
    /// The whole frame; header, directory and checksums are still zero.
    bytes: Vec<u8>,
}

impl BlockFrame {
    /// Encodes columns of one length. `scopes` says for each column where its dictionary
    /// lies; those it does not reach have it in the chunk.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when a column is larger than a chunk may be.
    pub(crate) fn encode(columns: &[Column], scopes: &[TextScope], effort: Effort) -> Result<Self> {
        let mut bytes = Vec::new();
        let directory = encode_chunks(columns, scopes, effort, &mut bytes)?;
        Ok(Self { directory, bytes })
    }

    /// Bytes of the frame.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What the directory says of each column; checksums are those of the last place.
    pub(crate) fn chunks(&self) -> &[ChunkEntry] {
        &self.directory.chunks
    }

    /// Gives the frame its place and returns its header and its bytes.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the frame is larger than one of its kind may be.
    pub(crate) fn place(&mut self, place: &FramePlace) -> Result<(FrameHeader, &[u8])> {
        let header = finish_frame(place, &mut self.directory, &mut self.bytes)?;
        Ok((header, &self.bytes))
    }
}

/// Appends the frame of some columns of one length, and returns its header. `scopes` as in
/// [`BlockFrame::encode`].
///
/// # Errors
///
/// `InvalidArgument` when a column or the frame is larger than it may be; then `out` is as
/// it was.
pub(crate) fn encode_block_frame(
    place: &FramePlace,
    columns: &[Column],
    scopes: &[TextScope],
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<FrameHeader> {
    let start = out.len();
    let written = encode_chunks(columns, scopes, effort, out)
        .and_then(|mut directory| finish_frame(place, &mut directory, &mut out[start..]));
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends a frame whose payload is checked as a whole: COMMIT, END.
///
/// # Errors
///
/// `InvalidArgument` when the payload is larger than a frame may be.
pub(crate) fn encode_plain_frame(
    place: &FramePlace,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<FrameHeader> {
    let mut header = FrameHeader {
        kind: place.kind,
        sub: place.sub,
        uuid: place.uuid,
        seq: place.seq,
        offset: place.offset,
        payload_len: size(payload.len())?,
        directory_len: 0,
        rows: 0,
        min_ts: place.stamps.0,
        max_ts: place.stamps.1,
        payload_crc: 0,
    };
    header.payload_crc = header.seed().payload(payload);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    out.resize(out.len() + header.padded_len() - payload.len(), 0);
    Ok(header)
}

/// Appends a frame without checksums: zeros for header and directory, then the chunks.
fn encode_chunks(
    columns: &[Column],
    scopes: &[TextScope],
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<BlockDirectory> {
    let payload = out.len() + FRAME_HEADER_BYTES;
    out.resize(payload + directory_bytes(columns.len()), 0);
    let rows = columns.first().map_or(0, Column::len);
    let mut chunks = Vec::with_capacity(columns.len());
    for (number, column) in columns.iter().enumerate() {
        if column.len() != rows {
            return Err(Error::invalid(format!("column {number} has {} rows", column.len())));
        }
        let scope = scopes.get(number).copied().unwrap_or(TextScope::Local);
        let start = out.len();
        encoding::encode(column, scope, effort, out)?;
        chunks.push(ChunkEntry {
            offset: size(start - payload)?,
            len: size(out.len() - start)?,
            crc: 0,
            nulls: size(column.null_count())?,
            zone: zone_of(column, scope),
        });
    }
    Ok(BlockDirectory { rows: size(rows)?, chunks })
}

/// Fills in header, directory and checksums of the frame that is `frame`.
fn finish_frame(
    place: &FramePlace,
    directory: &mut BlockDirectory,
    frame: &mut [u8],
) -> Result<FrameHeader> {
    let most = match place.kind {
        FrameKind::Rows => ACTIVE_PAYLOAD_BYTES_MAX,
        _ => SEALED_PAYLOAD_BYTES_MAX,
    };
    let (head, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    if payload.len() > most {
        let len = payload.len();
        return Err(Error::invalid(format!("frame of {len} bytes, expected at most {most}")));
    }
    let mut header = FrameHeader {
        kind: place.kind,
        sub: place.sub,
        uuid: place.uuid,
        seq: place.seq,
        offset: place.offset,
        payload_len: size(payload.len())?,
        directory_len: size(directory_bytes(directory.chunks.len()))?,
        rows: directory.rows,
        min_ts: place.stamps.0,
        max_ts: place.stamps.1,
        payload_crc: 0,
    };
    let seed = header.seed();
    for (column, chunk) in (0u32..).zip(&mut directory.chunks) {
        let start = chunk.offset as usize;
        chunk.crc = seed.chunk(column, &payload[start..start + chunk.len as usize]);
    }
    let mut encoded = Vec::with_capacity(header.directory_len as usize);
    directory.encode(&mut encoded);
    payload[..encoded.len()].copy_from_slice(&encoded);
    header.payload_crc = seed.payload(&encoded);
    head.copy_from_slice(&header.encode());
    Ok(header)
}

fn size(value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::invalid(format!("{value} in one frame")))
}

/// The zone map of a column as it is stored. Text has order keys only as codes of a
/// segment dictionary, which is sorted (spec 1.4).
pub(crate) fn zone_of(column: &Column, scope: TextScope) -> Option<(i64, i64)> {
    match &column.values {
        Values::Coded { .. } if scope == TextScope::Local => None,
        _ => zone(column),
    }
}

/// A block frame whose header and directory are checked. Holds no chunk: whoever reads the
/// file brings the bytes, so that they may be mapped or read one by one.
#[derive(Clone, Debug)]
pub(crate) struct BlockReader {
    frame: FrameHeader,
    directory: BlockDirectory,
    /// Whether the file may be anybody's.
    is_untrusted: bool,
}

/// Checks a frame of a file that may be anybody's: half of what a frame of its kind may have.
///
/// # Errors
///
/// `Corrupt` where it has more.
pub(crate) fn check_untrusted(frame: &FrameHeader) -> Result<()> {
    let bytes = match frame.kind {
        FrameKind::Rows => ACTIVE_PAYLOAD_BYTES_MAX / 2,
        _ => SEALED_PAYLOAD_BYTES_MAX / 2,
    };
    let rows = match frame.kind {
        FrameKind::Index => INDEX_ROWS_MAX / 2,
        _ => FRAME_ROWS_MAX / 2,
    };
    if frame.payload_len as usize <= bytes && frame.rows as usize <= rows {
        return Ok(());
    }
    let (found, of) = (frame.payload_len, frame.rows);
    let message = format!("{found} bytes and {of} rows, too much of a file that is not trusted");
    Err(Error::corrupt("2.3", message).with_offset(frame.offset))
}

/// Checks that a column of rows of `day`, whose chunk is `bytes`, has values as it may have.
///
/// # Errors
///
/// `Corrupt` when it has others, or the bytes break the spec.
pub(crate) fn check_values(
    column: usize,
    bytes: &[u8],
    schema: &Schema,
    day: Partition,
) -> Result<()> {
    let Some(known) = schema.columns.get(column) else { return Ok(()) };
    let day = day.range();
    Chunk::parse(bytes, known.kind)?.check_values(&(day.start..day.end))
}

impl BlockReader {
    /// Checks the directory; `payload` starts after the frame's header and holds at least
    /// `frame.directory_len` bytes.
    ///
    /// # Errors
    ///
    /// `Torn` when the bytes end too soon; `Corrupt` when the checksum or a rule of
    /// spec 4.1 is broken.
    pub(crate) fn new(frame: FrameHeader, payload: &[u8]) -> Result<Self> {
        let directory = BlockDirectory::read(&frame, payload)?;
        Ok(Self { frame, directory, is_untrusted: false })
    }

    /// As [`new`](Self::new), of a file that may be anybody's if `is_untrusted`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and where the frame is larger than one of such a file may be.
    pub(crate) fn of(frame: FrameHeader, payload: &[u8], is_untrusted: bool) -> Result<Self> {
        if is_untrusted {
            check_untrusted(&frame)?;
        }
        Ok(Self { is_untrusted, ..Self::new(frame, payload)? })
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.directory.chunks.len()
    }

    /// What the directory says of a column.
    pub(crate) fn entry(&self, column: usize) -> Option<&ChunkEntry> {
        self.directory.chunks.get(column)
    }

    /// Where a column's chunk lies in the file.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the block has no such column.
    pub(crate) fn chunk_range(&self, column: usize) -> Result<Range<u64>> {
        let entry = self.expect(column)?;
        let start = self.frame.offset + FRAME_HEADER_BYTES as u64 + u64::from(entry.offset);
        Ok(start..start + u64::from(entry.len))
    }

    /// Checks the checksum of a column's chunk, whose bytes are `bytes`.
    ///
    /// # Errors
    ///
    /// `Corrupt` when it is wrong.
    pub(crate) fn check(&self, column: usize, bytes: &[u8]) -> Result<()> {
        let entry = self.expect(column)?;
        let number = u32::try_from(column).unwrap_or(u32::MAX);
        let computed = self.frame.seed().chunk(number, bytes);
        checksum::check("4.1", &format!("chunk of column {column}"), entry.crc, computed)
            .or_else(|error| if is_planted(Bug::SkipChunkChecksum) { Ok(()) } else { Err(error) })
            .map_err(|error| self.at(column, error))
    }

    /// The header of a column's chunk, whose checksum is not looked at.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the bytes break the spec, or the directory says otherwise.
    pub(crate) fn parse<'a>(
        &self,
        column: usize,
        bytes: &'a [u8],
        kind: ColumnType,
    ) -> Result<Chunk<'a>> {
        let entry = self.expect(column)?;
        let chunk = Chunk::parse(bytes, kind).map_err(|error| self.at(column, error))?;
        // Before anything of that size is allocated.
        if chunk.rows() != self.frame.rows as usize || chunk.null_count() != entry.nulls as usize {
            let error = Error::corrupt(
                "4.1",
                format!(
                    "chunk of {} rows and {} nulls, the directory says {} and {}",
                    chunk.rows(),
                    chunk.null_count(),
                    self.frame.rows,
                    entry.nulls
                ),
            );
            return Err(self.at(column, error));
        }
        if self.is_untrusted {
            chunk.check_ratio(UNTRUSTED_RATIO_MAX).map_err(|error| self.at(column, error))?;
        }
        Ok(chunk)
    }

    /// Decodes a column's chunk, whose checksum is not looked at.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the bytes break the spec, or the directory says otherwise.
    pub(crate) fn decode(
        &self,
        column: usize,
        bytes: &[u8],
        kind: ColumnType,
        dictionary: Option<&Arc<Strings>>,
    ) -> Result<Column> {
        let chunk = self.parse(column, bytes, kind)?;
        chunk.decode(dictionary).map_err(|error| self.at(column, error))
    }

    /// The error with the place of a column's chunk.
    pub(crate) fn at(&self, column: usize, error: Error) -> Error {
        match self.chunk_range(column) {
            Ok(range) => error.with_offset(range.start),
            Err(_) => error,
        }
    }

    fn expect(&self, column: usize) -> Result<&ChunkEntry> {
        self.entry(column).ok_or_else(|| {
            let found = self.columns();
            Error::corrupt("4.1", format!("the block has {found} columns, none of number {column}"))
                .with_offset(self.frame.offset)
        })
    }
}

#[cfg(test)]
/// Checks and decodes a whole block; `payload` starts after the frame's header. There is
/// one column for each of `kinds`, and codes refer to the dictionary at their place in
/// `dictionaries`, or to the chunk's own.
///
/// # Errors
///
/// `Torn` when the bytes end too soon; `Corrupt` when they are not right in every way.
pub(crate) fn parse_block(
    frame: &FrameHeader,
    payload: &[u8],
    kinds: &[ColumnType],
    dictionaries: &[Option<Arc<Strings>>],
) -> Result<Vec<Column>> {
    BlockReader::new(*frame, payload)?.decode_all(payload, kinds, dictionaries)
}

impl BlockReader {
    /// Checks and decodes all columns, which are of these kinds.
    ///
    /// # Errors
    ///
    /// `Corrupt` when a checksum is wrong, or the bytes break the spec.
    pub(crate) fn decode_all(
        &self,
        payload: &[u8],
        kinds: &[ColumnType],
        dictionaries: &[Option<Arc<Strings>>],
    ) -> Result<Vec<Column>> {
        if self.columns() != kinds.len() {
            let error = Error::corrupt(
                "4.1",
                format!("block of {} columns, expected {}", self.columns(), kinds.len()),
            );
            return Err(error.with_offset(self.frame.offset));
        }
        kinds
            .iter()
            .enumerate()
            .map(|(column, kind)| {
                let bytes = self.directory.chunk(payload, column)?;
                self.check(column, bytes)?;
                let dictionary = dictionaries.get(column).and_then(Option::as_ref);
                self.decode(column, bytes, *kind, dictionary)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::order::float_key;

    const KINDS: [ColumnType; 4] =
        [ColumnType::Timestamp, ColumnType::Float, ColumnType::Dimension, ColumnType::Text];

    fn dictionary() -> Arc<Strings> {
        Arc::new(["a", "b", "c"].into_iter().collect())
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::new(Values::Int(vec![10, 30, 20])),
            Column::with_validity(
                Values::Float(vec![1.5, 0.0, -2.0]),
                [true, false, true].into_iter().collect(),
            ),
            Column::new(Values::Coded { codes: vec![2, 1, 2], dictionary: dictionary() }),
            Column::new(Values::Text(["x", "", "zz"].into_iter().collect())),
        ]
    }

    fn place(seq: u64, offset: u64) -> FramePlace {
        FramePlace {
            kind: FrameKind::Block,
            sub: 0,
            uuid: Id::from_bytes([7; 16]),
            seq,
            offset,
            stamps: (10, 30),
        }
    }

    fn scopes() -> [TextScope; 3] {
        [TextScope::Local, TextScope::Local, TextScope::Segment]
    }

    fn read(frame: &[u8], seq: u64, offset: u64) -> Result<Vec<Column>> {
        let header = FrameHeader::decode(frame, &Id::from_bytes([7; 16]), offset)?;
        assert_eq!(header.seq, seq);
        parse_block(&header, &frame[96..], &KINDS, &[None, None, Some(dictionary())])
    }

    #[test]
    fn columns_round_trip_wherever_the_frame_lies() {
        let mut out = vec![1, 2, 3];
        let header =
            encode_block_frame(&place(4, 8192), &columns(), &scopes(), Effort::Seal, &mut out)
                .unwrap();
        assert_eq!(header.end(), 8192 + out.len() as u64 - 3);
        assert_eq!(read(&out[3..], 4, 8192).unwrap(), columns());

        let mut frame = BlockFrame::encode(&columns(), &scopes(), Effort::Append).unwrap();
        for (seq, offset) in [(0, 8192), (9, 81920)] {
            let (header, bytes) = frame.place(&place(seq, offset)).unwrap();
            assert_eq!(header.frame_bytes(), bytes.len() as u64);
            assert_eq!(read(bytes, seq, offset).unwrap(), columns());
        }
    }

    #[test]
    fn zones_are_order_keys() {
        let frame = BlockFrame::encode(&columns(), &scopes(), Effort::Seal).unwrap();
        let zones: Vec<_> = frame.chunks().iter().map(|chunk| chunk.zone).collect();
        let floats = (float_key(-2.0), float_key(1.5));
        assert_eq!(zones, [Some((10, 30)), Some(floats), Some((1, 2)), None]);
        assert_eq!(frame.chunks()[1].nulls, 1);
        let nulls =
            Column::with_validity(Values::Int(vec![0, 0]), [false, false].into_iter().collect());
        assert_eq!(zone_of(&nulls, TextScope::Local), None);
    }

    #[test]
    fn what_is_too_large_leaves_the_output_alone() {
        let text = "x".repeat(15 << 20);
        let column = || Column::new(Values::Text([text.as_str()].into_iter().collect()));
        let long = |kind| {
            let mut out = vec![9];
            let place = FramePlace { kind, ..place(0, 8192) };
            let columns: Vec<_> = (0..2).map(|_| column()).collect();
            let written = encode_block_frame(&place, &columns, &[], Effort::Append, &mut out);
            (written.is_ok(), out.len())
        };
        assert!(long(FrameKind::Block).0);
        assert_eq!(long(FrameKind::Rows), (false, 1));
        let uneven = [Column::new(Values::Int(vec![1])), Column::new(Values::Int(vec![]))];
        let mut out = vec![9];
        let written = encode_block_frame(&place(0, 8192), &uneven, &[], Effort::Append, &mut out);
        assert_eq!((written.unwrap_err().kind(), out), (ErrorKind::InvalidArgument, vec![9]));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_an_error() {
        let mut out = Vec::new();
        encode_block_frame(&place(4, 8192), &columns(), &scopes(), Effort::Seal, &mut out).unwrap();
        for at in 0..out.len() {
            let mut bad = out.clone();
            bad[at] ^= 0x10;
            assert!(
                FrameHeader::decode(&bad, &Id::from_bytes([7; 16]), 8192).is_err()
                    || read(&bad, 4, 8192).is_err(),
                "byte {at}"
            );
            assert!(read(&out[..at], 4, 8192).is_err(), "{at} bytes");
        }
    }
}
