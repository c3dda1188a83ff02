//! Frames: the self-identifying units that every file is made of (spec 2.3, 3.2).
//!
//! A frame header holds the file's uuid, a sequence number and its own offset, so that a
//! frame in a wrong place is told apart from a right one. Walking frames, and what a bad
//! one means, is the work of whoever reads the file.

use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum::{self, Seed};
use crate::format::cursor::{Fields, Record, is_zero, padded};
use crate::format::id::Id;
use crate::format::layout::{
    ACTIVE_PAYLOAD_BYTES_MAX, ALIGNMENT, CHUNK_BYTES_MIN, CHUNK_ENTRY_BYTES, COMMIT_BYTES,
    DICTIONARY_ENTRIES_MAX, DIRECTORY_BYTES_MAX, DIRECTORY_FIXED_BYTES, DURABLE_NONE,
    FILE_BYTES_MAX, FOOTER_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_KIND_BLOCK, FRAME_KIND_COMMIT,
    FRAME_KIND_DICTIONARY, FRAME_KIND_END, FRAME_KIND_FOOTER, FRAME_KIND_INDEX, FRAME_KIND_ROWS,
    FRAME_MAGIC, FRAME_ROWS_MAX, FRAMES_OFFSET, INDEX_CENTROIDS, INDEX_DIGESTS, INDEX_HOURS,
    INDEX_KEY_CENTROIDS, INDEX_KEY_DIGESTS, INDEX_KEYS, INDEX_LAST, INDEX_MEMBERS, INDEX_ROWS_MAX,
    INDEX_SUMMARIES, INDEX_TOP, INDEX_ZONES, SEALED_PAYLOAD_BYTES_MAX, commit, frame_header,
};
use crate::planted::{Bug, is_planted};
use crate::time::Timestamp;

const SECTION: &str = "2.3";
const COMMIT_SECTION: &str = "3.2";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FrameKind {
    /// Rows of one batch in an active segment.
    Rows,
    /// What precedes it is committed.
    Commit,
    /// Nothing follows in this active segment.
    End,
    /// The dictionary of one column.
    Dictionary,
    /// A block of rows of a sealed segment.
    Block,
    /// A section of derived data.
    Index,
    /// The directory of frames.
    Footer,
}

impl FrameKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 7] = [
        Self::Rows,
        Self::Commit,
        Self::End,
        Self::Dictionary,
        Self::Block,
        Self::Index,
        Self::Footer,
    ];

    /// The tag in the frame header.
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Rows => FRAME_KIND_ROWS,
            Self::Commit => FRAME_KIND_COMMIT,
            Self::End => FRAME_KIND_END,
            Self::Dictionary => FRAME_KIND_DICTIONARY,
            Self::Block => FRAME_KIND_BLOCK,
            Self::Index => FRAME_KIND_INDEX,
            Self::Footer => FRAME_KIND_FOOTER,
        }
    }

    /// The kind of a tag.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.tag() == tag)
    }

    /// Whether the payload is a block: a directory and one chunk per column.
    pub(crate) const fn is_block(self) -> bool {
        matches!(self, Self::Rows | Self::Dictionary | Self::Block | Self::Index)
    }

    /// Whether the frame holds rows of the table.
    pub(crate) const fn has_rows(self) -> bool {
        matches!(self, Self::Rows | Self::Block)
    }

    /// Fewest and most payload bytes.
    const fn payload_bytes(self) -> (usize, usize) {
        const BLOCK_MIN: usize = DIRECTORY_FIXED_BYTES + CHUNK_ENTRY_BYTES + CHUNK_BYTES_MIN;
        match self {
            Self::Rows => (BLOCK_MIN, ACTIVE_PAYLOAD_BYTES_MAX),
            Self::Dictionary | Self::Block | Self::Index => (BLOCK_MIN, SEALED_PAYLOAD_BYTES_MAX),
            Self::Commit => (COMMIT_BYTES, COMMIT_BYTES),
            Self::End => (0, 0),
            Self::Footer => (1, FOOTER_BYTES_MAX),
        }
    }

    /// Fewest and most rows.
    const fn rows(self) -> (usize, usize) {
        match self {
            Self::Rows | Self::Block => (1, FRAME_ROWS_MAX),
            Self::Dictionary => (1, DICTIONARY_ENTRIES_MAX),
            Self::Index => (1, INDEX_ROWS_MAX),
            Self::Commit | Self::End | Self::Footer => (0, 0),
        }
    }
}

/// The sections of derived data, which are the sub-kinds of INDEX frames (spec 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IndexSection {
    /// Zone maps of all blocks.
    Zones,
    /// Where each hour begins.
    Hours,
    /// The blocks of each key.
    Keys,
    /// The membership filter.
    Members,
    /// Counts, sums and extremes.
    Summaries,
    /// Digests of all rows and of hours without their centroids.
    Digests,
    /// The centroids of these.
    Centroids,
    /// The rows with the greatest measures.
    Top,
    /// The last value of each key.
    Last,
    /// Digests of keys without their centroids.
    KeyDigests,
    /// The centroids of these.
    KeyCentroids,
}

impl IndexSection {
    /// All sections, in the order in which they are written.
    pub(crate) const ALL: [Self; 11] = [
        Self::Zones,
        Self::Hours,
        Self::Keys,
        Self::Members,
        Self::Summaries,
        Self::Digests,
        Self::Centroids,
        Self::Top,
        Self::Last,
        Self::KeyDigests,
        Self::KeyCentroids,
    ];

    /// The sub-kind of its frame.
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Zones => INDEX_ZONES,
            Self::Hours => INDEX_HOURS,
            Self::Keys => INDEX_KEYS,
            Self::Members => INDEX_MEMBERS,
            Self::Summaries => INDEX_SUMMARIES,
            Self::Digests => INDEX_DIGESTS,
            Self::Centroids => INDEX_CENTROIDS,
            Self::Top => INDEX_TOP,
            Self::Last => INDEX_LAST,
            Self::KeyDigests => INDEX_KEY_DIGESTS,
            Self::KeyCentroids => INDEX_KEY_CENTROIDS,
        }
    }

    /// The section of a sub-kind; `None` for one of a newer minor version.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.tag() == tag)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
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
    /// Bytes of the payload without padding.
    pub(crate) payload_len: u32,
    /// Bytes of the directory that starts a block, else zero.
    pub(crate) directory_len: u32,
    /// Rows of a block, else zero.
    pub(crate) rows: u32,
    /// Earliest stamp of the rows of the table, else zero.
    pub(crate) min_ts: i64,
    /// Latest stamp of the rows of the table, else zero.
    pub(crate) max_ts: i64,
    /// Checksum of the directory of a block, else of the payload.
    pub(crate) payload_crc: u32,
}

impl FrameHeader {
    /// The bytes of the header.
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let record = Record::<FRAME_HEADER_BYTES>::new()
            .set(frame_header::MAGIC, &FRAME_MAGIC)
            .set(frame_header::KIND, &[self.kind.tag()])
            .set(frame_header::SUB, &[self.sub])
            .set(frame_header::UUID, self.uuid.as_bytes())
            .set(frame_header::SEQ, &self.seq.to_le_bytes())
            .set(frame_header::FILE_OFFSET, &self.offset.to_le_bytes())
            .set(frame_header::PAYLOAD_LEN, &self.payload_len.to_le_bytes())
            .set(frame_header::DIRECTORY_LEN, &self.directory_len.to_le_bytes())
            .set(frame_header::ROWS, &self.rows.to_le_bytes())
            .set(frame_header::MIN_TS, &self.min_ts.to_le_bytes())
            .set(frame_header::MAX_TS, &self.max_ts.to_le_bytes())
            .set(frame_header::PAYLOAD_CRC, &self.payload_crc.to_le_bytes());
        let crc = checksum::crc32(record.before(frame_header::HEADER_CRC));
        record.set(frame_header::HEADER_CRC, &crc.to_le_bytes()).finish()
    }

    /// Whether bytes where a frame may start are untouched space.
    pub(crate) fn is_blank(bytes: &[u8]) -> bool {
        is_zero(bytes.get(..FRAME_HEADER_BYTES).unwrap_or(bytes))
    }

    /// Reads the header at `offset` of the file `uuid`; `bytes` starts there.
    /// Whether `seq` is the number of the frame is for the caller to check.
    ///
    /// # Errors
    ///
    /// `Torn` when the bytes end too soon or are untouched space; `Corrupt` otherwise.
    pub(crate) fn decode(bytes: &[u8], uuid: &Id, offset: u64) -> Result<Self> {
        let Some(bytes) = bytes.get(..FRAME_HEADER_BYTES) else {
            return Err(torn("the file ends inside a frame header", offset));
        };
        if is_zero(bytes) {
            return Err(torn("no frame was written here", offset));
        }
        Self::parse(bytes, uuid, offset).map_err(|error| error.with_offset(offset))
    }

    fn parse(bytes: &[u8], uuid: &Id, offset: u64) -> Result<Self> {
        let bad = |message: String| Error::corrupt(SECTION, message);
        let fields = Fields::new(bytes, SECTION);
        if fields.bytes(frame_header::MAGIC)? != FRAME_MAGIC {
            return Err(bad("no frame magic".to_owned()));
        }
        let checked = bytes.get(..frame_header::HEADER_CRC.offset).unwrap_or_default();
        let crc = fields.u32(frame_header::HEADER_CRC)?;
        checksum::check(SECTION, "frame header", crc, checksum::crc32(checked))?;
        fields.zeros(&[frame_header::ZERO_1, frame_header::ZERO_2, frame_header::ZERO_3])?;
        let tag = fields.u8(frame_header::KIND)?;
        let mut header = Self {
            kind: FrameKind::from_tag(tag)
                .ok_or_else(|| bad(format!("frame kind {tag} is unknown")))?,
            sub: fields.u8(frame_header::SUB)?,
            uuid: fields.id(frame_header::UUID)?,
            seq: fields.u64(frame_header::SEQ)?,
            offset: fields.u64(frame_header::FILE_OFFSET)?,
            payload_len: fields.u32(frame_header::PAYLOAD_LEN)?,
            directory_len: fields.u32(frame_header::DIRECTORY_LEN)?,
            rows: fields.u32(frame_header::ROWS)?,
            min_ts: fields.i64(frame_header::MIN_TS)?,
            max_ts: fields.i64(frame_header::MAX_TS)?,
            payload_crc: fields.u32(frame_header::PAYLOAD_CRC)?,
        };
        if header.uuid != *uuid {
            return Err(bad(format!("frame of the file {}, expected {uuid}", header.uuid)));
        }
        if is_planted(Bug::AcceptMisplacedFrame) {
            header.offset = offset;
        }
        if header.offset != offset {
            return Err(bad(format!("frame of offset {}, found at {offset}", header.offset)));
        }
        header.validate()?;
        Ok(header)
    }

    /// The rules of spec 2.3 about the numbers of a header whose checksum is right.
    fn validate(&self) -> Result<()> {
        let bad = |message: String| Err(Error::corrupt(SECTION, message));
        let in_range =
            |value: u32, (min, max): (usize, usize)| (min..=max).contains(&(value as usize));
        if self.offset < FRAMES_OFFSET as u64
            || self.offset > FILE_BYTES_MAX
            || !self.offset.is_multiple_of(ALIGNMENT as u64)
        {
            return bad(format!("no frame starts at offset {}", self.offset));
        }
        if !in_range(self.payload_len, self.kind.payload_bytes()) {
            return bad(format!("{:?} frame of {} bytes", self.kind, self.payload_len));
        }
        if !in_range(self.rows, self.kind.rows()) {
            return bad(format!("{:?} frame of {} rows", self.kind, self.rows));
        }
        if !self.directory_fits() {
            return bad(format!("directory of {} bytes", self.directory_len));
        }
        if !self.range_is_right() {
            return bad(format!("stamps {} to {}", self.min_ts, self.max_ts));
        }
        if self.sub != 0 && !matches!(self.kind, FrameKind::Dictionary | FrameKind::Index)
            || self.sub == 0 && self.kind == FrameKind::Index
        {
            return bad(format!("sub-kind {} of a {:?} frame", self.sub, self.kind));
        }
        Ok(())
    }

    fn directory_fits(&self) -> bool {
        let len = self.directory_len as usize;
        if !self.kind.is_block() {
            return len == 0;
        }
        (DIRECTORY_FIXED_BYTES + CHUNK_ENTRY_BYTES..=DIRECTORY_BYTES_MAX).contains(&len)
            && (len - DIRECTORY_FIXED_BYTES).is_multiple_of(CHUNK_ENTRY_BYTES)
            && self.directory_len < self.payload_len
            && (self.payload_len as usize).is_multiple_of(ALIGNMENT)
    }

    fn range_is_right(&self) -> bool {
        if !self.kind.has_rows() {
            return self.min_ts == 0 && self.max_ts == 0;
        }
        let stamp = |micros| Timestamp::from_micros(micros).is_ok();
        self.min_ts <= self.max_ts && stamp(self.min_ts) && stamp(self.max_ts)
    }

    /// Bytes of the payload with padding.
    pub(crate) fn padded_len(&self) -> usize {
        padded(self.payload_len as usize)
    }

    /// Bytes of the whole frame: header, payload, padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.padded_len()) as u64
    }

    /// Where the next frame starts.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.frame_bytes()
    }

    /// The seed of the checksums of payload and chunks.
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(&self.uuid, self.seq, self.offset)
    }

    /// Checks the payload of a COMMIT, END or FOOTER frame, padding included, and returns
    /// it; `bytes` starts after the header.
    ///
    /// # Errors
    ///
    /// `Torn` when the bytes end too soon; `Corrupt` for a wrong checksum or padding.
    pub(crate) fn whole_payload<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let cut = bytes.get(..self.padded_len());
        let parts = cut.and_then(|whole| whole.split_at_checked(self.payload_len as usize));
        let Some((payload, padding)) = parts else {
            return Err(torn("the file ends inside a frame", self.offset));
        };
        self.check_payload(payload)?;
        if !is_zero(padding) {
            let error = Error::corrupt(SECTION, "padding after the payload is not zero");
            return Err(error.with_offset(self.offset));
        }
        Ok(payload)
    }

    /// Checks the directory of a block, and returns it; `bytes` starts after the header.
    ///
    /// # Errors
    ///
    /// `Torn` when the bytes end too soon; `Corrupt` for a wrong checksum.
    pub(crate) fn directory<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(directory) = bytes.get(..self.directory_len as usize) else {
            return Err(torn("the file ends inside a directory", self.offset));
        };
        self.check_payload(directory)?;
        Ok(directory)
    }

    fn check_payload(&self, covered: &[u8]) -> Result<()> {
        let computed = self.seed().payload(covered);
        checksum::check(SECTION, "payload", self.payload_crc, computed)
            .map_err(|error| error.with_offset(self.offset))
    }
}

fn torn(message: &str, offset: u64) -> Error {
    Error::new(ErrorKind::Torn, message).with_offset(offset)
}

/// The payload of a COMMIT frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Rows of all ROWS frames up to here.
    pub(crate) rows_total: u64,
    /// The last frame known to be durable before this commit was written.
    pub(crate) durable_upto: Option<u64>,
}

impl Commit {
    /// The bytes of the payload.
    pub(crate) fn encode(&self) -> [u8; COMMIT_BYTES] {
        Record::<COMMIT_BYTES>::new()
            .set(commit::ROWS_TOTAL, &self.rows_total.to_le_bytes())
            .set(commit::DURABLE_UPTO, &self.durable_upto.unwrap_or(DURABLE_NONE).to_le_bytes())
            .finish()
    }

    /// Reads the payload of the COMMIT frame `seq`.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the length is wrong or a later frame is said to be durable.
    pub(crate) fn decode(payload: &[u8], seq: u64) -> Result<Self> {
        let bad = |message: String| Err(Error::corrupt(COMMIT_SECTION, message));
        if payload.len() != COMMIT_BYTES {
            return bad(format!("commit of {} bytes, expected {COMMIT_BYTES}", payload.len()));
        }
        let fields = Fields::new(payload, COMMIT_SECTION);
        let durable_upto = fields.u64(commit::DURABLE_UPTO)?;
        let durable_upto = (durable_upto != DURABLE_NONE).then_some(durable_upto);
        if durable_upto.is_some_and(|durable| durable >= seq) {
            return bad(format!("commit {seq} says that frame {durable_upto:?} was durable"));
        }
        Ok(Self { rows_total: fields.u64(commit::ROWS_TOTAL)?, durable_upto })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::spec_text::assert_example;
    use proptest::prelude::*;

    fn uuid() -> Id {
        Id::from_bytes([0x22; 16])
    }

    fn commit_frame() -> (FrameHeader, Vec<u8>) {
        let payload = Commit { rows_total: 100, durable_upto: None }.encode();
        let mut header = FrameHeader {
            kind: FrameKind::Commit,
            sub: 0,
            uuid: uuid(),
            seq: 1,
            offset: 8_400,
            payload_len: 16,
            directory_len: 0,
            rows: 0,
            min_ts: 0,
            max_ts: 0,
            payload_crc: 0,
        };
        header.payload_crc = header.seed().payload(&payload);
        (header, [&header.encode()[..], &payload].concat())
    }

    fn rows_header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Rows,
            seq: 0,
            offset: 8_192,
            payload_len: 112,
            directory_len: 88,
            rows: 100,
            min_ts: 1_795_392_000_000_000,
            max_ts: 1_795_392_005_000_000,
            payload_crc: 0x1234_5678,
            ..commit_frame().0
        }
    }

    #[test]
    fn round_trips_for_every_kind() {
        for kind in FrameKind::ALL {
            let header = FrameHeader {
                kind,
                sub: u8::from(kind == FrameKind::Index),
                payload_len: if kind.is_block() {
                    112
                } else {
                    u32::try_from(kind.payload_bytes().0).unwrap()
                },
                directory_len: if kind.is_block() { 88 } else { 0 },
                rows: u32::from(kind.is_block()),
                min_ts: if kind.has_rows() { 5 } else { 0 },
                max_ts: if kind.has_rows() { 6 } else { 0 },
                ..rows_header()
            };
            let read = FrameHeader::decode(&header.encode(), &uuid(), header.offset).unwrap();
            assert_eq!(read, header);
            assert_eq!(FrameKind::from_tag(kind.tag()), Some(kind));
        }
        for section in IndexSection::ALL {
            assert_eq!(IndexSection::from_tag(section.tag()), Some(section));
        }
        assert_eq!(FrameKind::from_tag(0), None);
        assert_eq!(IndexSection::from_tag(0), None);
    }

    #[test]
    fn the_spec_examples_are_what_is_written() {
        assert_example("frame", &commit_frame().1);
    }

    #[test]
    fn a_commit_is_checked_whole() {
        let (header, bytes) = commit_frame();
        let payload = header.whole_payload(&bytes[FRAME_HEADER_BYTES..]).unwrap();
        let commit = Commit::decode(payload, header.seq).unwrap();
        assert_eq!(commit, Commit { rows_total: 100, durable_upto: None });
        assert_eq!(header.end(), 8_400 + 112);
        for len in 0..16 {
            let error = header.whole_payload(&payload[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Torn);
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        let (good, bytes) = commit_frame();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = FrameHeader::decode(&bytes, &good.uuid, good.offset).and_then(|header| {
                header.whole_payload(&bytes[FRAME_HEADER_BYTES..]).map(<[u8]>::to_vec)
            });
            assert!(read.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn padding_must_be_zero() {
        let mut header =
            FrameHeader { kind: FrameKind::Footer, payload_len: 5, ..commit_frame().0 };
        header.payload_crc = header.seed().payload(b"hello");
        assert_eq!(header.whole_payload(b"hello\0\0\0").unwrap(), b"hello");
        assert!(header.whole_payload(b"hello\0\0\x01").is_err());
        assert!(header.whole_payload(b"hello").is_err());
    }

    #[test]
    fn a_frame_in_a_wrong_place_is_rejected() {
        let (header, bytes) = commit_frame();
        assert!(FrameHeader::decode(&bytes, &Id::from_bytes([1; 16]), header.offset).is_err());
        assert!(FrameHeader::decode(&bytes, &header.uuid, header.offset + 8).is_err());
        let moved = FrameHeader { seq: 2, ..header };
        assert!(moved.whole_payload(&bytes[FRAME_HEADER_BYTES..]).is_err());
    }

    #[test]
    fn untouched_space_and_short_reads_are_torn() {
        let kind = |bytes: &[u8]| FrameHeader::decode(bytes, &uuid(), 8_192).unwrap_err().kind();
        assert_eq!(kind(&[]), ErrorKind::Torn);
        assert_eq!(kind(&rows_header().encode()[..95]), ErrorKind::Torn);
        assert_eq!(kind(&[0; 200]), ErrorKind::Torn);
        assert!(
            FrameHeader::is_blank(&[0; 200]) && !FrameHeader::is_blank(&rows_header().encode())
        );
        assert_eq!(kind(&[1; 200]), ErrorKind::Corrupt);
    }

    #[test]
    fn rules_hold_for_right_checksums() {
        let good = rows_header();
        for bad in [
            FrameHeader { offset: 4_096, ..good },
            FrameHeader { offset: 8_196, ..good },
            FrameHeader { offset: u64::MAX - 7, ..good },
            FrameHeader { payload_len: u32::MAX, ..good },
            FrameHeader { payload_len: 16 << 20 | 8, ..good },
            FrameHeader { payload_len: 113, ..good },
            FrameHeader { payload_len: 0, directory_len: 0, ..good },
            FrameHeader { directory_len: 0, ..good },
            FrameHeader { directory_len: 112, ..good },
            FrameHeader { directory_len: 87, ..good },
            FrameHeader { directory_len: u32::MAX, ..good },
            FrameHeader { rows: 0, ..good },
            FrameHeader { rows: (1 << 20) + 1, ..good },
            FrameHeader { min_ts: good.max_ts + 1, ..good },
            FrameHeader { max_ts: i64::MAX, ..good },
            FrameHeader { sub: 1, ..good },
            FrameHeader { kind: FrameKind::Index, min_ts: 0, max_ts: 0, ..good },
            FrameHeader { kind: FrameKind::Commit, ..good },
            FrameHeader { kind: FrameKind::End, payload_len: 8, ..commit_frame().0 },
            FrameHeader { kind: FrameKind::Footer, payload_len: 0, ..commit_frame().0 },
            FrameHeader { rows: 1, ..commit_frame().0 },
        ] {
            let error = FrameHeader::decode(&bad.encode(), &bad.uuid, bad.offset).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:?}");
        }
    }

    #[test]
    fn commits_cannot_vouch_for_the_future() {
        let bytes = Commit { rows_total: 7, durable_upto: Some(4) }.encode();
        assert_eq!(Commit::decode(&bytes, 5).unwrap().durable_upto, Some(4));
        assert!(Commit::decode(&bytes, 4).is_err());
        assert!(Commit::decode(&bytes[..15], 5).is_err());
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            patches in prop::collection::vec((0usize..92, any::<u8>()), 0..12),
        ) {
            let mut bytes = rows_header().encode();
            patches.iter().for_each(|(at, value)| bytes[*at] = *value);
            let crc = checksum::crc32(&bytes[..92]).to_le_bytes();
            bytes[92..].copy_from_slice(&crc);
            if let Ok(header) = FrameHeader::decode(&bytes, &uuid(), 8_192) {
                prop_assert_eq!(header.encode(), bytes);
                let _ = (header.end(), header.directory(&[]), header.whole_payload(&[]));
            }
        }
    }
}
