//! Numbers of the chunk layout: header, flags, tags, limits (spec 4.2 and 5).
//!
//! Owns every layout constant of column chunks; the other files of `encoding` write none.

use crate::limits::FRAME_BYTES_MAX;

/// Bytes of a chunk header (spec 4.2).
pub(super) const HEADER_BYTES: usize = 16;
/// Chunks, and the parts inside one, are padded with zeros to a multiple of this.
pub(super) const ALIGNMENT: usize = 8;
/// Header flag: a validity bitmap follows the header.
pub(super) const FLAG_VALIDITY: u8 = 1;
/// Header flag: the bitmap is a sub-chunk of its bytes.
pub(super) const FLAG_PACKED: u8 = 4;
/// Header flag: the body holds the values of non-null rows only.
pub(super) const FLAG_DENSE: u8 = 2;

/// Deepest level of a sub-chunk; the chunk itself is level 0.
pub(super) const NEST_MAX: u8 = 6;
/// Most bytes of text that one chunk decodes to.
pub(super) const TEXT_RAW_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Widest lane of PACKED, in bits: eight bytes hold it wherever in a byte it starts.
pub(super) const PACKED_BITS_MAX: u8 = 56;
/// Largest decimal exponent of DECIMAL.
pub(super) const EXPONENT_MAX: u8 = 18;
/// Most templates of NUMBERED.
pub(super) const TEMPLATES_MAX: usize = 4096;
/// Most digits that NUMBERED takes from the end of a string.
pub(super) const DIGITS_MAX: u32 = 18;
/// Bytes of one template record of NUMBERED.
pub(super) const TEMPLATE_BYTES: usize = 24;
/// Bytes of a UUID in binary.
pub(super) const UUID_BYTES: usize = 16;
/// Bytes of a UUID as text.
pub(super) const UUID_TEXT_BYTES: usize = 36;
/// Bytes of one piece record of ZSTD.
pub(super) const PIECE_BYTES: usize = 8;
/// First four bytes of a zstd frame (RFC 8878, 3.1.1).
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Largest window of a zstd frame, as a power of two.
pub(super) const ZSTD_WINDOW_LOG_MAX: u32 = 26;

/// Encoding tags (spec 5.0).
pub(super) mod tag {
    pub(in crate::encoding) const CONSTANT: u8 = 1;
    pub(in crate::encoding) const LANES: u8 = 2;
    pub(in crate::encoding) const RUNS: u8 = 3;
    pub(in crate::encoding) const DELTA: u8 = 4;
    pub(in crate::encoding) const PACKED: u8 = 5;
    pub(in crate::encoding) const PATCHED: u8 = 6;
    pub(in crate::encoding) const BITS: u8 = 7;
    pub(in crate::encoding) const PLANES: u8 = 8;
    pub(in crate::encoding) const BIT_BYTES: u8 = 9;
    pub(in crate::encoding) const FLOAT_RAW: u8 = 16;
    pub(in crate::encoding) const FLOAT_DECIMAL: u8 = 17;
    pub(in crate::encoding) const FLOAT_CONSTANT: u8 = 18;
    pub(in crate::encoding) const FLOAT_PATTERNS: u8 = 19;
    pub(in crate::encoding) const TEXT_CODES: u8 = 32;
    pub(in crate::encoding) const TEXT_DICTIONARY: u8 = 33;
    pub(in crate::encoding) const TEXT_PLAIN: u8 = 34;
    pub(in crate::encoding) const TEXT_NUMBERED: u8 = 35;
    pub(in crate::encoding) const TEXT_UUID: u8 = 36;
    pub(in crate::encoding) const TEXT_ZSTD: u8 = 38;
}

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!((FLAG_VALIDITY | FLAG_DENSE | FLAG_PACKED).count_ones() == 3);
// The reader of PACKED loads eight bytes from the byte in which a lane starts.
const _: () = assert!(PACKED_BITS_MAX as usize + 7 < 64);
