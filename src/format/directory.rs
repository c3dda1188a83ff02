//! The directory of a block: where each column's chunk lies and what is in it (spec 4.1).
//!
//! The payload of a ROWS, DICTIONARY, BLOCK or INDEX frame is such a directory and then
//! the chunks, without a gap. What a chunk's bytes mean is the work of `encoding`.

use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum;
use crate::format::cursor::{Fields, Record};
use crate::format::frame::FrameHeader;
use crate::format::layout::{
    ALIGNMENT, CHUNK_BYTES_MIN, CHUNK_ENTRY_BYTES, COLUMNS_MAX, DIRECTORY_FIXED_BYTES,
    SEALED_PAYLOAD_BYTES_MAX, ZONE_KIND_KEYS, ZONE_KIND_NONE, chunk_entry, directory,
};

const SECTION: &str = "4.1";

/// One column of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    /// Where the chunk starts, from the start of the payload.
    pub(crate) offset: u32,
    /// Bytes of the chunk.
    pub(crate) len: u32,
    /// Checksum of the chunk, with the place of the frame and the column number.
    pub(crate) crc: u32,
    /// Rows without a value.
    pub(crate) nulls: u32,
    /// Least and greatest order key of the rows with a value.
    pub(crate) zone: Option<(i64, i64)>,
}

/// The directory of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockDirectory {
    /// Rows of the block.
    pub(crate) rows: u32,
    /// One entry per column.
    pub(crate) chunks: Vec<ChunkEntry>,
}

/// Bytes of the directory of a block of `columns` columns.
pub(crate) const fn directory_bytes(columns: usize) -> usize {
    DIRECTORY_FIXED_BYTES + columns * CHUNK_ENTRY_BYTES
}

impl BlockDirectory {
    /// Appends the bytes of the directory.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        let columns = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        let fixed = Record::<DIRECTORY_FIXED_BYTES>::new()
            .set(directory::COLUMN_COUNT, &columns.to_le_bytes())
            .set(directory::ROWS, &self.rows.to_le_bytes());
        bytes.extend_from_slice(&fixed.finish());
        self.chunks.iter().for_each(|chunk| bytes.extend_from_slice(&chunk.encode()));
    }

    /// Reads the directory that is the first bytes of a payload of `payload_len` bytes;
    /// checksums are not looked at.
    ///
    /// # Errors
    ///
    /// `Corrupt` when a rule of spec 4.1 is broken.
    pub(crate) fn decode(bytes: &[u8], payload_len: u32) -> Result<Self> {
        let fields = Fields::new(bytes, SECTION);
        let columns = fields.u32(directory::COLUMN_COUNT)? as usize;
        let rows = fields.u32(directory::ROWS)?;
        if !(1..=COLUMNS_MAX).contains(&columns) || bytes.len() != directory_bytes(columns) {
            let len = bytes.len();
            return Err(corrupt(format!("directory of {columns} columns in {len} bytes")));
        }
        let mut chunks = Vec::with_capacity(columns);
        let mut end = bytes.len() as u64;
        let (entries, _) =
            bytes.get(DIRECTORY_FIXED_BYTES..).unwrap_or_default().as_chunks::<CHUNK_ENTRY_BYTES>();
        for (column, entry) in entries.iter().enumerate() {
            let chunk = ChunkEntry::decode(entry, rows)
                .map_err(|error| corrupt(format!("column {column}: {}", error.message())))?;
            if u64::from(chunk.offset) != end {
                let offset = chunk.offset;
                return Err(corrupt(format!("column {column} at {offset}, expected at {end}")));
            }
            end += u64::from(chunk.len);
            chunks.push(chunk);
        }
        if end != u64::from(payload_len) {
            return Err(corrupt(format!("chunks end at {end} of {payload_len} bytes")));
        }
        Ok(Self { rows, chunks })
    }

    /// Reads and checks the directory of a frame; `payload` starts after its header.
    ///
    /// # Errors
    ///
    /// `Torn` when the bytes end too soon; `Corrupt` when the checksum or a rule of
    /// spec 4.1 is broken.
    pub(crate) fn read(frame: &FrameHeader, payload: &[u8]) -> Result<Self> {
        let place = |error: Error| error.with_offset(frame.offset);
        let read = Self::decode(frame.directory(payload)?, frame.payload_len).map_err(place)?;
        if read.rows != frame.rows {
            let (rows, stated) = (read.rows, frame.rows);
            return Err(place(corrupt(format!("{rows} rows, the frame header says {stated}"))));
        }
        Ok(read)
    }

    /// The bytes of a column's chunk, unchecked; `payload` is the frame's.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there is no such column; `Torn` when the bytes end too soon.
    pub(crate) fn chunk<'a>(&self, payload: &'a [u8], column: usize) -> Result<&'a [u8]> {
        let entry = self.entry(column)?;
        let start = entry.offset as usize;
        payload
            .get(start..start + entry.len as usize)
            .ok_or_else(|| Error::new(ErrorKind::Torn, "the file ends inside a column chunk"))
    }

    /// Checks the checksum of a column's chunk.
    ///
    /// # Errors
    ///
    /// As [`chunk`](Self::chunk), and `Corrupt` when the checksum is wrong.
    pub(crate) fn check_chunk(
        &self,
        frame: &FrameHeader,
        payload: &[u8],
        column: usize,
    ) -> Result<()> {
        let entry = self.entry(column)?;
        let bytes = self.chunk(payload, column).map_err(|error| error.with_offset(frame.offset))?;
        let computed = frame.seed().chunk(u32::try_from(column).unwrap_or(u32::MAX), bytes);
        checksum::check(SECTION, &format!("chunk of column {column}"), entry.crc, computed)
            .map_err(|error| error.with_offset(frame.offset))
    }

    fn entry(&self, column: usize) -> Result<&ChunkEntry> {
        self.chunks.get(column).ok_or_else(|| {
            Error::invalid(format!("column {column}: the block has {}", self.chunks.len()))
        })
    }
}

impl ChunkEntry {
    fn encode(&self) -> [u8; CHUNK_ENTRY_BYTES] {
        let record = Record::<CHUNK_ENTRY_BYTES>::new()
            .set(chunk_entry::OFFSET, &self.offset.to_le_bytes())
            .set(chunk_entry::LEN, &self.len.to_le_bytes())
            .set(chunk_entry::CRC, &self.crc.to_le_bytes())
            .set(chunk_entry::NULLS, &self.nulls.to_le_bytes());
        let Some((min, max)) = self.zone else { return record.finish() };
        record
            .set(chunk_entry::ZONE_KIND, &[ZONE_KIND_KEYS])
            .set(chunk_entry::MIN, &min.to_le_bytes())
            .set(chunk_entry::MAX, &max.to_le_bytes())
            .finish()
    }

    fn decode(bytes: &[u8], rows: u32) -> Result<Self> {
        let fields = Fields::new(bytes, SECTION);
        fields.zeros(&[chunk_entry::ZERO_1])?;
        let entry = Self {
            offset: fields.u32(chunk_entry::OFFSET)?,
            len: fields.u32(chunk_entry::LEN)?,
            crc: fields.u32(chunk_entry::CRC)?,
            nulls: fields.u32(chunk_entry::NULLS)?,
            zone: decode_zone(&fields)?,
        };
        if !(CHUNK_BYTES_MIN..=SEALED_PAYLOAD_BYTES_MAX).contains(&(entry.len as usize))
            || !(entry.len as usize).is_multiple_of(ALIGNMENT)
        {
            return Err(corrupt(format!("chunk of {} bytes", entry.len)));
        }
        if entry.nulls > rows || (entry.nulls == rows && entry.zone.is_some()) {
            let (nulls, zone) = (entry.nulls, entry.zone);
            return Err(corrupt(format!("{nulls} nulls in {rows} rows with zone {zone:?}")));
        }
        Ok(entry)
    }
}

fn decode_zone(fields: &Fields<'_>) -> Result<Option<(i64, i64)>> {
    match fields.u8(chunk_entry::ZONE_KIND)? {
        ZONE_KIND_NONE => {
            fields.zeros(&[chunk_entry::MIN, chunk_entry::MAX])?;
            Ok(None)
        }
        ZONE_KIND_KEYS => {
            let (min, max) = (fields.i64(chunk_entry::MIN)?, fields.i64(chunk_entry::MAX)?);
            if min > max {
                return Err(corrupt(format!("zone from {min} to {max}")));
            }
            Ok(Some((min, max)))
        }
        other => Err(corrupt(format!("zone kind {other} is unknown"))),
    }
}

fn corrupt(message: String) -> Error {
    Error::corrupt(SECTION, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::FrameKind;
    use crate::format::id::Id;
    use crate::format::spec_text::assert_example;
    use proptest::prelude::*;

    /// A block of two columns, with sixteen and twenty-four bytes for chunks.
    fn sample() -> (FrameHeader, Vec<u8>) {
        let mut frame = FrameHeader {
            kind: FrameKind::Block,
            sub: 0,
            uuid: Id::from_bytes([0x22; 16]),
            seq: 0,
            offset: 8_192,
            payload_len: 88 + 16 + 24,
            directory_len: 88,
            rows: 3,
            min_ts: 10,
            max_ts: 30,
            payload_crc: 0,
        };
        let seed = frame.seed();
        let (first, second) = ([1u8; 16], [2u8; 24]);
        let chunks = vec![
            ChunkEntry {
                offset: 88,
                len: 16,
                crc: seed.chunk(0, &first),
                nulls: 0,
                zone: Some((10, 30)),
            },
            ChunkEntry { offset: 104, len: 24, crc: seed.chunk(1, &second), nulls: 1, zone: None },
        ];
        let mut payload = Vec::new();
        BlockDirectory { rows: 3, chunks }.encode(&mut payload);
        frame.payload_crc = seed.payload(&payload);
        payload.extend(first);
        payload.extend(second);
        (frame, payload)
    }

    #[test]
    fn round_trips() {
        let (frame, payload) = sample();
        let read = BlockDirectory::read(&frame, &payload).unwrap();
        assert_eq!((read.rows, read.chunks.len()), (3, 2));
        assert_eq!(read.chunks[0].zone, Some((10, 30)));
        assert_eq!(read.chunk(&payload, 1).unwrap(), [2; 24]);
        read.check_chunk(&frame, &payload, 0).unwrap();
        read.check_chunk(&frame, &payload, 1).unwrap();
        assert!(read.chunk(&payload, 2).is_err());
        let mut again = Vec::new();
        read.encode(&mut again);
        assert_eq!(again, payload[..88]);
    }

    #[test]
    fn the_spec_example_is_what_is_written() {
        assert_example("directory", &sample().1[..88]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let (frame, payload) = sample();
        let read = |payload: &[u8]| -> Result<()> {
            let directory = BlockDirectory::read(&frame, payload)?;
            directory.check_chunk(&frame, payload, 0)?;
            directory.check_chunk(&frame, payload, 1)
        };
        read(&payload).unwrap();
        for bit in 0..payload.len() * 8 {
            let mut payload = payload.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&payload).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit}");
        }
        for len in 0..payload.len() {
            assert_eq!(read(&payload[..len]).unwrap_err().kind(), ErrorKind::Torn, "{len} bytes");
        }
    }

    #[test]
    fn rules_hold_for_right_checksums() {
        let (frame, payload) = sample();
        for (offset, value) in [
            (0, &[0u8; 4][..]),
            (0, &[1, 0, 0, 0]),
            (0, &[0xFF; 4]),
            (4, &[0; 4]),
            (8, &[96, 0, 0, 0]),
            (8, &[0xFF; 4]),
            (12, &[8, 0, 0, 0]),
            (12, &[17, 0, 0, 0]),
            (12, &[0xFF; 4]),
            (20, &[3, 0, 0, 0]),
            (20, &[0xFF; 4]),
            (24, &[2]),
            (24, &[0]),
            (25, &[1]),
            (32, &[31]),
            (72, &[1]),
        ] {
            let mut bad = payload[..88].to_vec();
            bad[offset..offset + value.len()].copy_from_slice(value);
            let read = BlockDirectory::decode(&bad, frame.payload_len);
            assert!(read.is_err(), "{value:?} at {offset}");
        }
        let other = FrameHeader { rows: 4, ..frame };
        assert_eq!(BlockDirectory::read(&other, &payload).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    proptest! {
        #[test]
        fn hostile_directories_never_panic(
            patches in prop::collection::vec((0usize..88, any::<u8>()), 0..8),
            len in 0usize..=88,
            payload_len in any::<u32>(),
        ) {
            let (frame, payload) = sample();
            let mut bytes = payload[..88].to_vec();
            patches.iter().for_each(|(at, value)| bytes[*at] = *value);
            if let Ok(read) = BlockDirectory::decode(&bytes, frame.payload_len) {
                let mut again = Vec::new();
                read.encode(&mut again);
                prop_assert_eq!(again, bytes.clone());
                let _ = read.check_chunk(&frame, &payload, 0);
            }
            let _ = BlockDirectory::decode(&bytes[..len], payload_len);
        }
    }
}
