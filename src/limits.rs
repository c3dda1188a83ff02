//! Every limit of the data model and of the engine, in one place.
//!
//! A value beyond one of them is refused with an error that names it. The limits
//! of stored structures are in `format::layout`, derived from these.

/// Longest id, metric type or other short text, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Longest metadata document, in bytes of JSON text.
pub const METADATA_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of a metadata document.
pub const METADATA_DEPTH_MAX: usize = 127;

/// Most raw bytes of one batch: the rows of one call for one table and partition.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Most payload bytes of one frame of an active segment.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Most rows of one frame.
pub const FRAME_ROWS_MAX: usize = 1 << 20;

/// Most rows of one block of a sealed segment.
pub const BLOCK_ROWS_MAX: usize = 64 << 10;

/// Most raw bytes of one column chunk of a sealed segment.
pub const CHUNK_RAW_BYTES_MAX: usize = 4 << 20;

/// Hours with fewer rows than this share a block.
pub const SMALL_HOUR_ROWS: usize = 4096;

/// Most entries of a segment dictionary.
pub const DICTIONARY_ENTRIES_MAX: usize = 64 << 10;

/// Most bytes of a segment dictionary's text.
pub const DICTIONARY_BYTES_MAX: usize = 1 << 20;

/// Bytes of text that one stored byte of a file that may be anybody's may stand for.
pub const UNTRUSTED_RATIO_MAX: usize = 1_000;

/// Most files that one file can replace.
pub const REPLACES_MAX: usize = 192;

/// Most active segments open for appending in one process.
pub const ACTIVES_OPEN_MAX: usize = 32;

/// Rows that a row method returns unless told otherwise.
pub const LIMIT_DEFAULT: usize = 1_000;

/// Entries that a list method (top agents, slowest tasks) returns unless told otherwise.
pub const LIST_LIMIT_DEFAULT: usize = 10;

/// Most rows or entries that one answer may be limited to.
pub const LIMIT_MAX: usize = 1_000_000_000;

/// Entries of the result cache.
pub const RESULT_CACHE_ENTRIES: usize = 100;

/// Longest line of an import, in bytes: the longest metadata with every quote doubled, two
/// ids with every character escaped, and room for the rest.
pub const LINE_BYTES_MAX: usize = 3 << 20;

/// Most labels of a sample that is imported.
pub const LABELS_MAX: usize = 256;

/// Most rules of alerts that are in force at one time.
pub const ALERT_RULES_MAX: usize = 1_000;

/// Longest name of an alert, in bytes.
pub const ALERT_NAME_BYTES_MAX: usize = 64;
