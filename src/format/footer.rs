//! The footer of a sealed file: the directory of its frames (spec 6.5).
//!
//! Encoded by bincode, whose bytes the spec writes out, so that no reader needs the
//! crate. The checksum of the FOOTER frame comes first, then a limit on what decoding
//! may take, then the rules below. A footer can be rebuilt by walking the frames.

use bincode::{Decode, Encode};

use crate::error::{Error, Result};
use crate::format::cursor::padded;
use crate::format::frame::{FrameHeader, FrameKind};
use crate::format::id::FileKind;
use crate::format::layout::{
    FOOTER_BYTES_MAX, FOOTER_FRAMES_MAX, FRAME_HEADER_BYTES, FRAMES_OFFSET,
    SEALED_PAYLOAD_BYTES_MAX,
};
use crate::time::Timestamp;

const SECTION: &str = "6.5";

/// Most memory that decoding may claim, in bytes.
const DECODE_BYTES_MAX: usize = FOOTER_BYTES_MAX;

/// What the footer says of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameEntry {
    /// What the frame holds.
    pub(crate) kind: FrameKind,
    /// Column of a dictionary, section of an index, else zero.
    pub(crate) sub: u8,
    /// Where the frame starts in the file.
    pub(crate) offset: u64,
    /// Bytes of its payload without padding.
    pub(crate) payload_len: u32,
    /// Its rows.
    pub(crate) rows: u32,
    /// Rows of all blocks before it; zero for a frame that is not a block.
    pub(crate) first_row: u64,
    /// Earliest stamp of a block, else zero.
    pub(crate) min_ts: i64,
    /// Latest stamp of a block, else zero.
    pub(crate) max_ts: i64,
}

/// The directory of the frames of a sealed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Rows that the file holds, or stands for when it is a rollup or a tombstone.
    pub(crate) rows: u64,
    /// Earliest stamp of those rows; zero when there are none.
    pub(crate) min_ts: i64,
    /// Latest stamp of those rows; zero when there are none.
    pub(crate) max_ts: i64,
    /// Every frame before the footer; the position is the sequence number.
    pub(crate) frames: Vec<FrameEntry>,
}

#[derive(Encode, Decode)]
struct StoredFooter {
    rows: u64,
    min_ts: i64,
    max_ts: i64,
    frames: Vec<StoredEntry>,
}

#[derive(Encode, Decode)]
struct StoredEntry {
    kind: u8,
    sub: u8,
    offset: u64,
    payload_len: u32,
    rows: u32,
    first_row: u64,
    min_ts: i64,
    max_ts: i64,
}

const _: () = assert!(FOOTER_FRAMES_MAX * size_of::<StoredEntry>() + 64 <= DECODE_BYTES_MAX);

impl FrameEntry {
    /// The entry of a frame; `first_row` counts the rows of the blocks before it.
    pub(crate) fn of(frame: &FrameHeader, first_row: u64) -> Self {
        Self {
            kind: frame.kind,
            sub: frame.sub,
            offset: frame.offset,
            payload_len: frame.payload_len,
            rows: frame.rows,
            first_row: if frame.kind == FrameKind::Block { first_row } else { 0 },
            min_ts: frame.min_ts,
            max_ts: frame.max_ts,
        }
    }

    /// Where the next frame starts.
    pub(crate) fn end(&self) -> u64 {
        let bytes = FRAME_HEADER_BYTES + padded(self.payload_len as usize);
        self.offset.saturating_add(bytes as u64)
    }

    fn stored(&self) -> StoredEntry {
        StoredEntry {
            kind: self.kind.tag(),
            sub: self.sub,
            offset: self.offset,
            payload_len: self.payload_len,
            rows: self.rows,
            first_row: self.first_row,
            min_ts: self.min_ts,
            max_ts: self.max_ts,
        }
    }

    fn from_stored(stored: &StoredEntry) -> Result<Self> {
        let kind = FrameKind::from_tag(stored.kind)
            .ok_or_else(|| corrupt(format!("frame kind {} is unknown", stored.kind)))?;
        Ok(Self {
            kind,
            sub: stored.sub,
            offset: stored.offset,
            payload_len: stored.payload_len,
            rows: stored.rows,
            first_row: stored.first_row,
            min_ts: stored.min_ts,
            max_ts: stored.max_ts,
        })
    }
}

impl Footer {
    /// The payload of the FOOTER frame that will lie at `offset`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the footer breaks a rule that a reader would reject.
    pub(crate) fn encode(&self, kind: FileKind, offset: u64) -> Result<Vec<u8>> {
        let refused = |error: Error| Error::invalid(format!("footer: {}", error.message()));
        self.validate(kind, offset).map_err(refused)?;
        self.bytes()
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let stored = StoredFooter {
            rows: self.rows,
            min_ts: self.min_ts,
            max_ts: self.max_ts,
            frames: self.frames.iter().map(FrameEntry::stored).collect(),
        };
        bincode::encode_to_vec(stored, bincode::config::standard())
            .map_err(|cause| Error::invalid(format!("footer: {cause}")))
    }

    /// Reads the payload of the FOOTER frame at `offset` of a file of `kind`; its checksum
    /// has been checked.
    ///
    /// # Errors
    ///
    /// `Corrupt` when a rule of spec 6.5 is broken.
    pub(crate) fn decode(payload: &[u8], kind: FileKind, offset: u64) -> Result<Self> {
        if payload.len() > FOOTER_BYTES_MAX {
            return Err(corrupt(format!("footer of {} bytes", payload.len())));
        }
        let config = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();
        let (stored, consumed): (StoredFooter, usize) = bincode::decode_from_slice(payload, config)
            .map_err(|cause| corrupt(format!("footer cannot be decoded: {cause}")))?;
        if consumed != payload.len() {
            return Err(corrupt(format!("{} bytes left over", payload.len() - consumed)));
        }
        let footer = Self {
            rows: stored.rows,
            min_ts: stored.min_ts,
            max_ts: stored.max_ts,
            frames: stored.frames.iter().map(FrameEntry::from_stored).collect::<Result<_>>()?,
        };
        footer.validate(kind, offset)?;
        // A number has one shortest form; a longer one is no output of ours.
        if footer.bytes()? != payload {
            return Err(corrupt("a number is not in its shortest form".to_owned()));
        }
        Ok(footer)
    }

    /// The entries of the blocks, in the order of their rows.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u64, &FrameEntry)> {
        let numbered = (0u64..).zip(&self.frames);
        numbered.filter(|(_, frame)| frame.kind == FrameKind::Block)
    }

    /// The rules of spec 6.5, the same for what is written and what is read.
    fn validate(&self, kind: FileKind, offset: u64) -> Result<()> {
        if kind == FileKind::Active {
            return Err(corrupt("an active segment has no footer".to_owned()));
        }
        if self.frames.len() > FOOTER_FRAMES_MAX {
            return Err(corrupt(format!("{} frames", self.frames.len())));
        }
        // Of rows that are lost, and not counted, a tombstone may say where they lay.
        let counted = if kind == FileKind::Tombstone && (self.min_ts, self.max_ts) != (0, 0) {
            self.rows.max(1)
        } else {
            self.rows
        };
        if !range_is_right(counted, self.min_ts, self.max_ts) {
            let Self { rows, min_ts, max_ts, .. } = self;
            return Err(corrupt(format!("{rows} rows with stamps {min_ts} to {max_ts}")));
        }
        self.validate_frames(offset)?;
        self.validate_order()?;
        self.validate_rows(kind)
    }

    /// Frames lie one after the other, from the header to the footer.
    fn validate_frames(&self, offset: u64) -> Result<()> {
        let mut end = FRAMES_OFFSET as u64;
        for (seq, frame) in self.frames.iter().enumerate() {
            if frame.offset != end || frame.payload_len as usize > SEALED_PAYLOAD_BYTES_MAX {
                return Err(corrupt(format!(
                    "frame {seq} of {} bytes at {}, expected at {end}",
                    frame.payload_len, frame.offset
                )));
            }
            let has_rows = frame.kind == FrameKind::Block;
            let rows = if has_rows { u64::from(frame.rows) } else { 0 };
            if frame.rows == 0 || !range_is_right(rows, frame.min_ts, frame.max_ts) {
                return Err(corrupt(format!("frame {seq}: wrong rows or stamps")));
            }
            end = frame.end();
        }
        if end == offset {
            Ok(())
        } else {
            Err(corrupt(format!("frames end at {end}, the footer is at {offset}")))
        }
    }

    /// Dictionaries, blocks, index sections, and the same dictionaries again.
    fn validate_order(&self) -> Result<()> {
        let mut rest = self.frames.as_slice();
        let mut take = |kind: FrameKind| {
            let count = rest.iter().take_while(|frame| frame.kind == kind).count();
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken
        };
        let dictionaries = take(FrameKind::Dictionary);
        let blocks = take(FrameKind::Block);
        let sections = take(FrameKind::Index);
        let mut copies = take(FrameKind::Dictionary);
        // Without blocks and sections the two runs of dictionaries are one.
        let mut originals = dictionaries;
        if blocks.is_empty() && sections.is_empty() {
            (originals, copies) = dictionaries.split_at(dictionaries.len() / 2);
        }
        let whole = originals.len() + blocks.len() + sections.len() + copies.len();
        let same = originals.iter().map(FrameEntry::shape).eq(copies.iter().map(FrameEntry::shape));
        let rises = |frames: &[FrameEntry]| {
            frames.windows(2).all(|pair| matches!(pair, [a, b] if a.sub < b.sub))
        };
        if whole != self.frames.len() || !same || !rises(originals) || !rises(sections) {
            return Err(corrupt("frames are not in the order of spec 6.1".to_owned()));
        }
        if blocks.iter().any(|block| block.sub != 0) || sections.iter().any(|s| s.sub == 0) {
            return Err(corrupt("a frame has a wrong sub-kind".to_owned()));
        }
        Ok(())
    }

    /// The rows of the blocks add up to those of the file, and their stamps span it.
    fn validate_rows(&self, kind: FileKind) -> Result<()> {
        let mut rows = 0;
        for (seq, frame) in self.frames.iter().enumerate() {
            let is_block = frame.kind == FrameKind::Block;
            if frame.first_row != if is_block { rows } else { 0 } {
                return Err(corrupt(format!("frame {seq} begins with row {}", frame.first_row)));
            }
            rows += if is_block { u64::from(frame.rows) } else { 0 };
        }
        let has_rows = matches!(kind, FileKind::Sealed | FileKind::Archive);
        if !has_rows {
            return if rows == 0 { Ok(()) } else { Err(corrupt("a rollup has blocks".to_owned())) };
        }
        let min = self.blocks().map(|(_, block)| block.min_ts).min().unwrap_or(0);
        let max = self.blocks().map(|(_, block)| block.max_ts).max().unwrap_or(0);
        if (rows, min, max) != (self.rows, self.min_ts, self.max_ts) {
            return Err(corrupt(format!(
                "blocks of {rows} rows from {min} to {max}, the footer says {} rows from {} to {}",
                self.rows, self.min_ts, self.max_ts
            )));
        }
        Ok(())
    }
}

impl FrameEntry {
    fn shape(&self) -> (u8, u32, u32) {
        (self.sub, self.payload_len, self.rows)
    }
}

fn range_is_right(rows: u64, min_ts: i64, max_ts: i64) -> bool {
    if rows == 0 {
        return min_ts == 0 && max_ts == 0;
    }
    let stamp = |micros| Timestamp::from_micros(micros).is_ok();
    min_ts <= max_ts && stamp(min_ts) && stamp(max_ts)
}

fn corrupt(message: String) -> Error {
    Error::corrupt(SECTION, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::layout::{FOOTER_ENTRY_BYTES_MAX, FOOTER_ENTRY_BYTES_MIN};
    use crate::format::spec_text::assert_example;
    use proptest::prelude::*;

    const STAMP: i64 = 1_795_392_000_000_000;

    /// Frames laid out one after the other, and the offset after them.
    fn frames(parts: &[(FrameKind, u8, u32, u32)]) -> (Vec<FrameEntry>, u64) {
        let (mut offset, mut first_row) = (8_192, 0);
        let mut frames = Vec::new();
        for &(kind, sub, payload_len, rows) in parts {
            let is_block = kind == FrameKind::Block;
            let frame = FrameEntry {
                kind,
                sub,
                offset,
                payload_len,
                rows,
                first_row: if is_block { first_row } else { 0 },
                min_ts: if is_block { STAMP } else { 0 },
                max_ts: if is_block { STAMP + 250 } else { 0 },
            };
            first_row += if is_block { u64::from(rows) } else { 0 };
            offset = frame.end();
            frames.push(frame);
        }
        (frames, offset)
    }

    fn sample() -> (Footer, u64) {
        let (frames, offset) = frames(&[
            (FrameKind::Dictionary, 2, 200, 5),
            (FrameKind::Block, 0, 70_000, 60_000),
            (FrameKind::Block, 0, 4_000, 300),
            (FrameKind::Index, 1, 400, 10),
            (FrameKind::Index, 4, 400, 8),
            (FrameKind::Dictionary, 2, 200, 5),
        ]);
        (Footer { rows: 60_300, min_ts: STAMP, max_ts: STAMP + 250, frames }, offset)
    }

    #[test]
    fn round_trips() {
        let (footer, offset) = sample();
        let bytes = footer.encode(FileKind::Sealed, offset).unwrap();
        assert_eq!(Footer::decode(&bytes, FileKind::Archive, offset).unwrap(), footer);
        assert_eq!(footer.blocks().map(|(seq, _)| seq).collect::<Vec<_>>(), [1, 2]);
        let empty = Footer::default();
        let bytes = empty.encode(FileKind::Tombstone, 8_192).unwrap();
        assert_eq!(bytes, [0; 4]);
        assert_eq!(Footer::decode(&bytes, FileKind::Tombstone, 8_192).unwrap(), empty);
        let gone = Footer { rows: 9, min_ts: 5, max_ts: 6, frames: Vec::new() };
        gone.encode(FileKind::Tombstone, 8_192).unwrap();
        assert!(gone.encode(FileKind::Sealed, 8_192).is_err());
    }

    #[test]
    fn the_spec_example_is_what_is_written() {
        let (footer, offset) = sample();
        assert_example("footer", &footer.encode(FileKind::Sealed, offset).unwrap());
    }

    #[test]
    fn entries_keep_within_their_sizes() {
        let encode = |entry| bincode::encode_to_vec(entry, bincode::config::standard()).unwrap();
        let least = StoredEntry {
            kind: 4,
            sub: 0,
            offset: 0,
            payload_len: 0,
            rows: 0,
            first_row: 0,
            min_ts: 0,
            max_ts: 0,
        };
        assert_eq!(encode(least).len(), FOOTER_ENTRY_BYTES_MIN);
        let most = StoredEntry {
            kind: 4,
            sub: 0xFF,
            offset: u64::MAX,
            payload_len: u32::MAX,
            rows: u32::MAX,
            first_row: u64::MAX,
            min_ts: i64::MIN,
            max_ts: i64::MAX,
        };
        assert_eq!(encode(most).len(), FOOTER_ENTRY_BYTES_MAX);
    }

    #[test]
    fn rules_hold() {
        let (good, offset) = sample();
        let rejected = |change: &dyn Fn(&mut Footer)| {
            let mut footer = good.clone();
            change(&mut footer);
            let bytes = footer.bytes().unwrap();
            assert!(Footer::decode(&bytes, FileKind::Sealed, offset).is_err(), "{footer:?}");
        };
        rejected(&|footer| footer.rows += 1);
        rejected(&|footer| footer.min_ts -= 1);
        rejected(&|footer| footer.max_ts = i64::MAX);
        rejected(&|footer| footer.frames[1].offset += 8);
        rejected(&|footer| footer.frames[1].payload_len += 8);
        rejected(&|footer| footer.frames[5].payload_len = u32::MAX);
        rejected(&|footer| footer.frames[2].first_row = 0);
        rejected(&|footer| footer.frames[0].first_row = 1);
        rejected(&|footer| footer.frames[0].rows = 0);
        rejected(&|footer| footer.frames[1].rows = u32::MAX);
        rejected(&|footer| footer.frames[1].min_ts = STAMP + 251);
        rejected(&|footer| footer.frames[3].max_ts = STAMP);
        rejected(&|footer| footer.frames[4].sub = 1);
        rejected(&|footer| footer.frames[5].sub = 3);
        rejected(&|footer| footer.frames[1].sub = 1);
        rejected(&|footer| footer.frames[3].kind = FrameKind::Rows);
        rejected(&|footer| footer.frames[3].kind = FrameKind::Block);
        rejected(&|footer| footer.frames.truncate(5));
        let bytes = good.bytes().unwrap();
        assert!(Footer::decode(&bytes, FileKind::Hourly, offset).is_err());
        assert!(Footer::decode(&bytes, FileKind::Active, offset).is_err());
        assert!(Footer::decode(&bytes, FileKind::Sealed, offset + 8).is_err());
    }

    #[test]
    fn a_length_out_of_thin_air_is_refused() {
        let mut hostile = vec![0, 0, 0, 253];
        hostile.extend([0xFF; 8]);
        assert!(Footer::decode(&hostile, FileKind::Sealed, 8_192).is_err());
        // Zero in nine bytes: readable, but not what is written.
        let long = [253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(Footer::decode(&long, FileKind::Tombstone, 8_192).is_err());
        assert!(Footer::decode(&[0; 5], FileKind::Tombstone, 8_192).is_err());
    }

    proptest! {
        #[test]
        fn hostile_footers_never_panic(
            patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let (footer, offset) = sample();
            let mut bytes = footer.bytes().unwrap();
            for (at, value) in patches {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(read) = Footer::decode(&bytes, FileKind::Sealed, offset) {
                prop_assert_eq!(read.bytes().unwrap(), bytes.clone());
            }
            let len = cut.index(bytes.len());
            prop_assert!(Footer::decode(&bytes[..len], FileKind::Sealed, offset).is_err());
        }
    }
}
