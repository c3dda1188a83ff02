//! Every magic, size, offset, tag and reader limit of the format, in one place.
//!
//! Each number follows from the one before it, and relations are asserted when the crate
//! is compiled. The names are those of the tables in `format-spec/`, and a test compares
//! the two. Nobody else writes a layout number.

use crate::limits;

/// A field of a structure of fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Bytes from the start of the structure.
    pub(crate) offset: usize,
    /// Bytes of the field.
    pub(crate) size: usize,
}

impl Field {
    /// First byte after the field.
    pub(crate) const fn end(self) -> usize {
        self.offset + self.size
    }
}

/// Declares the fields of a structure one after the other, so that each offset follows
/// from the field before it; `FIELDS` lists them under the names of the spec.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident { $($field:ident : $size:expr),+ $(,)? }) => {
        $(#[$doc])*
        pub(crate) mod $name {
            use super::Field;
            structure!(@field 0; $($field : $size),+);
            /// Every field with its name, in order.
            pub(crate) const FIELDS: &[(&str, Field)] = &[$((stringify!($field), $field)),+];
            /// Bytes of all fields together.
            pub(crate) const BYTES: usize = FIELDS[FIELDS.len() - 1].1.end();
        }
    };
    (@field $offset:expr; $field:ident : $size:expr $(, $next:ident : $next_size:expr)*) => {
        pub(crate) const $field: Field = Field { offset: $offset, size: $size };
        structure!(@field $field.end(); $($next : $next_size),*);
    };
    (@field $offset:expr;) => {};
}

/// Major version written and read by this release (spec 9).
pub(crate) const VERSION_MAJOR: u16 = 0;
/// Minor version written by this release; any minor of the same major is read (spec 9).
pub(crate) const VERSION_MINOR: u16 = 1;

/// Bytes of a uuid.
pub(crate) const ID_BYTES: usize = 16;
/// Frames, chunks and bodies start at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// Bytes of a CRC-32.
pub(crate) const CHECKSUM_BYTES: usize = 4;
/// Bytes hashed ahead of a payload or a chunk: uuid, sequence number, file offset.
pub(crate) const CHECKSUM_SEED_BYTES: usize = ID_BYTES + 8 + 8;

/// First bytes of each header copy.
pub(crate) const HEADER_MAGIC: [u8; 8] = *b"TALLYSEG";
/// Bytes of one header copy.
pub(crate) const HEADER_COPY_BYTES: usize = 4096;
/// Header copies at the start of a file.
pub(crate) const HEADER_COPIES: usize = 2;
/// Offset of the first frame.
pub(crate) const FRAMES_OFFSET: usize = HEADER_COPIES * HEADER_COPY_BYTES;

structure! {
    /// The fixed part of a header copy (spec 2.1).
    header {
        MAGIC: 8,
        MAJOR: 2,
        MINOR: 2,
        KIND: 1,
        ZERO_1: 3,
        STORE_ID: 16,
        UUID: 16,
        WRITER: 16,
        TXN: 16,
        PARTITION: 4,
        ZERO_2: 4,
        CREATED: 8,
        SCHEMA_LEN: 2,
        REPLACES_COUNT: 2,
        ZERO_3: 4,
    }
}

/// Bytes of the fixed part of a header copy; the schema follows.
pub(crate) const HEADER_FIXED_BYTES: usize = header::BYTES;
/// Offset of the checksum in a header copy.
pub(crate) const HEADER_CHECKSUM_OFFSET: usize = HEADER_COPY_BYTES - CHECKSUM_BYTES;
/// Most files that one file can replace.
pub(crate) const REPLACES_MAX: usize = limits::REPLACES_MAX;
/// Most bytes of a table's schema in a header.
pub(crate) const SCHEMA_BYTES_MAX: usize =
    HEADER_CHECKSUM_OFFSET - HEADER_FIXED_BYTES - REPLACES_MAX * ID_BYTES;
/// Most columns of a table.
pub(crate) const COLUMNS_MAX: usize = 64;
/// Most bytes of the name of a table or a column.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Earliest day of a partition: 0001-01-01.
pub(crate) const PARTITION_DAYS_MIN: i32 = -719_162;
/// Latest day of a partition: 9999-12-31.
pub(crate) const PARTITION_DAYS_MAX: i32 = 2_932_896;

/// Kind of a file in its header.
pub(crate) const FILE_KIND_ACTIVE: u8 = 1;
/// Kind of a file in its header.
pub(crate) const FILE_KIND_SEALED: u8 = 2;
/// Kind of a file in its header.
pub(crate) const FILE_KIND_ARCHIVE: u8 = 3;
/// Kind of a file in its header.
pub(crate) const FILE_KIND_HOURLY: u8 = 4;
/// Kind of a file in its header.
pub(crate) const FILE_KIND_DAILY: u8 = 5;
/// Kind of a file in its header.
pub(crate) const FILE_KIND_TOMBSTONE: u8 = 6;

/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_TIMESTAMP: u8 = 1;
/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_INT: u8 = 2;
/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_FLOAT: u8 = 3;
/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_BOOL: u8 = 4;
/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_DIMENSION: u8 = 5;
/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_TEXT: u8 = 6;
/// Type tag of a column in the schema.
pub(crate) const COLUMN_TYPE_JSON: u8 = 7;

/// First bytes of each frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"TFRM";

structure! {
    /// The header of a frame (spec 2.3).
    frame_header {
        MAGIC: 4,
        KIND: 1,
        SUB: 1,
        ZERO_1: 2,
        UUID: 16,
        SEQ: 8,
        FILE_OFFSET: 8,
        PAYLOAD_LEN: 4,
        DIRECTORY_LEN: 4,
        ROWS: 4,
        ZERO_2: 4,
        MIN_TS: 8,
        MAX_TS: 8,
        PAYLOAD_CRC: 4,
        ZERO_3: 16,
        HEADER_CRC: 4,
    }
}

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = frame_header::BYTES;
/// Kind of a frame: rows of one batch in an active segment.
pub(crate) const FRAME_KIND_ROWS: u8 = 1;
/// Kind of a frame: what precedes it is committed.
pub(crate) const FRAME_KIND_COMMIT: u8 = 2;
/// Kind of a frame: nothing follows in this active segment.
pub(crate) const FRAME_KIND_END: u8 = 3;
/// Kind of a frame: the dictionary of one column.
pub(crate) const FRAME_KIND_DICTIONARY: u8 = 4;
/// Kind of a frame: a block of rows of a sealed segment.
pub(crate) const FRAME_KIND_BLOCK: u8 = 5;
/// Kind of a frame: a section of derived data.
pub(crate) const FRAME_KIND_INDEX: u8 = 6;
/// Kind of a frame: the directory of frames.
pub(crate) const FRAME_KIND_FOOTER: u8 = 7;

/// Most payload bytes of a frame in an active segment.
pub(crate) const ACTIVE_PAYLOAD_BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
/// Most payload bytes of a DICTIONARY, BLOCK or INDEX frame.
pub(crate) const SEALED_PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Most rows of a ROWS or BLOCK frame.
pub(crate) const FRAME_ROWS_MAX: usize = limits::FRAME_ROWS_MAX;
/// Most entries of a DICTIONARY frame.
pub(crate) const DICTIONARY_ENTRIES_MAX: usize = limits::DICTIONARY_ENTRIES_MAX;
/// Most rows of an INDEX frame.
pub(crate) const INDEX_ROWS_MAX: usize = 4 << 20;
/// Largest offset in a file.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 46;

structure! {
    /// The payload of a COMMIT frame (spec 3.2).
    commit {
        ROWS_TOTAL: 8,
        DURABLE_UPTO: 8,
    }
}

/// Bytes of the payload of a COMMIT frame.
pub(crate) const COMMIT_BYTES: usize = commit::BYTES;
/// `durable_upto` when no frame was known to be durable.
pub(crate) const DURABLE_NONE: u64 = u64::MAX;

structure! {
    /// The start of a block's directory (spec 4.1).
    directory {
        COLUMN_COUNT: 4,
        ROWS: 4,
    }
}

structure! {
    /// One column's entry in a block's directory (spec 4.1).
    chunk_entry {
        OFFSET: 4,
        LEN: 4,
        CRC: 4,
        NULLS: 4,
        ZONE_KIND: 1,
        ZERO_1: 7,
        MIN: 8,
        MAX: 8,
    }
}

/// Bytes of a directory ahead of its entries.
pub(crate) const DIRECTORY_FIXED_BYTES: usize = directory::BYTES;
/// Bytes of one entry of a directory.
pub(crate) const CHUNK_ENTRY_BYTES: usize = chunk_entry::BYTES;
/// Most bytes of a directory.
pub(crate) const DIRECTORY_BYTES_MAX: usize =
    DIRECTORY_FIXED_BYTES + COLUMNS_MAX * CHUNK_ENTRY_BYTES;
/// Zone kind of a chunk without a zone map.
pub(crate) const ZONE_KIND_NONE: u8 = 0;
/// Zone kind of a chunk with the least and the greatest order key.
pub(crate) const ZONE_KIND_KEYS: u8 = 1;
/// Bytes of the header of a column chunk (spec 4.2), the least a chunk can have.
pub(crate) const CHUNK_BYTES_MIN: usize = 16;

/// Sub-kind of an INDEX frame: zone maps of all blocks.
pub(crate) const INDEX_ZONES: u8 = 1;
/// Sub-kind of an INDEX frame: where each hour begins.
pub(crate) const INDEX_HOURS: u8 = 2;
/// Sub-kind of an INDEX frame: the blocks of each key.
pub(crate) const INDEX_KEYS: u8 = 3;
/// Sub-kind of an INDEX frame: the membership filter.
pub(crate) const INDEX_MEMBERS: u8 = 4;
/// Sub-kind of an INDEX frame: counts, sums and extremes.
pub(crate) const INDEX_SUMMARIES: u8 = 5;
/// Sub-kind of an INDEX frame: digests of all rows and of hours without their centroids.
pub(crate) const INDEX_DIGESTS: u8 = 6;
/// Sub-kind of an INDEX frame: the centroids of these.
pub(crate) const INDEX_CENTROIDS: u8 = 7;
/// Sub-kind of an INDEX frame: the rows with the greatest measures.
pub(crate) const INDEX_TOP: u8 = 8;
/// Sub-kind of an INDEX frame: the last value of each key.
pub(crate) const INDEX_LAST: u8 = 9;
/// Sub-kind of an INDEX frame: digests of keys without their centroids.
pub(crate) const INDEX_KEY_DIGESTS: u8 = 10;
/// Sub-kind of an INDEX frame: the centroids of these.
pub(crate) const INDEX_KEY_CENTROIDS: u8 = 11;

/// Most frames that a footer lists.
pub(crate) const FOOTER_FRAMES_MAX: usize = 64 << 10;
/// Most payload bytes of a FOOTER frame.
pub(crate) const FOOTER_BYTES_MAX: usize = 4 << 20;
/// Fewest bytes of one frame's entry in a footer.
pub(crate) const FOOTER_ENTRY_BYTES_MIN: usize = 8;
/// Most bytes of one frame's entry in a footer.
pub(crate) const FOOTER_ENTRY_BYTES_MAX: usize = 48;

/// First bytes of the trailer.
pub(crate) const TRAILER_MAGIC: [u8; 8] = *b"TALLYEND";

structure! {
    /// The last bytes of a sealed file (spec 6.6).
    trailer {
        MAGIC: 8,
        FOOTER_OFFSET: 8,
        FOOTER_BYTES: 8,
        UUID: 16,
        ZERO_1: 20,
        CRC: 4,
    }
}

/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = trailer::BYTES;

/// Sketch kind: every value, exact (spec 7.2).
pub(crate) const SKETCH_KIND_PLAIN: u8 = 1;
/// Sketch kind: a t-digest (spec 7.2).
pub(crate) const SKETCH_KIND_TDIGEST: u8 = 2;
/// Size parameter of the t-digest, and most centroids of one.
pub(crate) const TDIGEST_CENTROIDS_MAX: usize = 200;
/// Most distinct values that are kept as they are.
pub(crate) const PLAIN_CENTROIDS_MAX: usize = 399;
/// Most values that a digest stands for.
pub(crate) const DIGEST_COUNT_MAX: u64 = 1 << 53;

/// Bytes of a block of the membership filter.
pub(crate) const MEMBERSHIP_BLOCK_BYTES: usize = 32;
/// u64 words of a block of the membership filter.
pub(crate) const MEMBERSHIP_BLOCK_WORDS: usize = MEMBERSHIP_BLOCK_BYTES / 8;
/// Bits of the membership filter for each distinct key.
pub(crate) const MEMBERSHIP_BITS_PER_KEY: usize = 8;
/// Most blocks of a membership filter.
pub(crate) const MEMBERSHIP_BLOCKS_MAX: usize = 1 << 20;
/// Multipliers that spread a hash over the eight lanes of a filter block.
pub(crate) const MEMBERSHIP_SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

const _: () = {
    assert!(HEADER_FIXED_BYTES == 104);
    assert!(
        HEADER_FIXED_BYTES + SCHEMA_BYTES_MAX + REPLACES_MAX * ID_BYTES + CHECKSUM_BYTES
            == HEADER_COPY_BYTES
    );
    assert!(SCHEMA_BYTES_MAX >= 512, "the schemas of the store's tables fit with room");
    assert!(FRAMES_OFFSET.is_multiple_of(4096) && FRAMES_OFFSET.is_multiple_of(ALIGNMENT));
    assert!(FRAME_HEADER_BYTES == 96 && FRAME_HEADER_BYTES.is_multiple_of(ALIGNMENT));
    assert!(COMMIT_BYTES == 16 && COMMIT_BYTES.is_multiple_of(ALIGNMENT));
    assert!(DIRECTORY_FIXED_BYTES == 8 && CHUNK_ENTRY_BYTES == 40);
    assert!(DIRECTORY_FIXED_BYTES.is_multiple_of(ALIGNMENT));
    assert!(CHUNK_ENTRY_BYTES.is_multiple_of(ALIGNMENT));
    assert!(CHUNK_BYTES_MIN.is_multiple_of(ALIGNMENT));
    assert!(TRAILER_BYTES == 64);
    assert!(HEADER_MAGIC.len() == header::MAGIC.size);
    assert!(FRAME_MAGIC.len() == frame_header::MAGIC.size);
    assert!(TRAILER_MAGIC.len() == trailer::MAGIC.size);
    // A flipped bit never turns one magic, or zeros, into another.
    assert!(FRAME_MAGIC[0] != 0);
    assert!(FRAME_ROWS_MAX >= limits::BLOCK_ROWS_MAX);
    assert!(ACTIVE_PAYLOAD_BYTES_MAX <= SEALED_PAYLOAD_BYTES_MAX);
    assert!(SEALED_PAYLOAD_BYTES_MAX <= u32::MAX as usize - ALIGNMENT);
    assert!(FOOTER_ENTRY_BYTES_MIN <= FOOTER_ENTRY_BYTES_MAX);
    assert!(FOOTER_FRAMES_MAX * FOOTER_ENTRY_BYTES_MAX + 64 <= FOOTER_BYTES_MAX);
    assert!(
        MEMBERSHIP_BLOCKS_MAX * MEMBERSHIP_BLOCK_BYTES + DIRECTORY_BYTES_MAX + 4096
            <= SEALED_PAYLOAD_BYTES_MAX
    );
    assert!(MEMBERSHIP_BLOCKS_MAX * MEMBERSHIP_BLOCK_WORDS <= INDEX_ROWS_MAX);
    assert!(FILE_BYTES_MAX < u64::MAX / 2);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::spec_text;

    macro_rules! named {
        ($($name:ident),+ $(,)?) => { &[$((stringify!($name), $name as i128)),+] };
    }

    /// Every constant that the spec states.
    const NAMED: &[(&str, i128)] = named![
        VERSION_MAJOR,
        VERSION_MINOR,
        ID_BYTES,
        ALIGNMENT,
        CHECKSUM_BYTES,
        CHECKSUM_SEED_BYTES,
        HEADER_COPY_BYTES,
        HEADER_COPIES,
        FRAMES_OFFSET,
        HEADER_FIXED_BYTES,
        HEADER_CHECKSUM_OFFSET,
        REPLACES_MAX,
        SCHEMA_BYTES_MAX,
        COLUMNS_MAX,
        NAME_BYTES_MAX,
        PARTITION_DAYS_MIN,
        PARTITION_DAYS_MAX,
        FILE_KIND_ACTIVE,
        FILE_KIND_SEALED,
        FILE_KIND_ARCHIVE,
        FILE_KIND_HOURLY,
        FILE_KIND_DAILY,
        FILE_KIND_TOMBSTONE,
        COLUMN_TYPE_TIMESTAMP,
        COLUMN_TYPE_INT,
        COLUMN_TYPE_FLOAT,
        COLUMN_TYPE_BOOL,
        COLUMN_TYPE_DIMENSION,
        COLUMN_TYPE_TEXT,
        COLUMN_TYPE_JSON,
        FRAME_HEADER_BYTES,
        FRAME_KIND_ROWS,
        FRAME_KIND_COMMIT,
        FRAME_KIND_END,
        FRAME_KIND_DICTIONARY,
        FRAME_KIND_BLOCK,
        FRAME_KIND_INDEX,
        FRAME_KIND_FOOTER,
        ACTIVE_PAYLOAD_BYTES_MAX,
        SEALED_PAYLOAD_BYTES_MAX,
        FRAME_ROWS_MAX,
        DICTIONARY_ENTRIES_MAX,
        INDEX_ROWS_MAX,
        FILE_BYTES_MAX,
        COMMIT_BYTES,
        DURABLE_NONE,
        DIRECTORY_FIXED_BYTES,
        CHUNK_ENTRY_BYTES,
        DIRECTORY_BYTES_MAX,
        ZONE_KIND_NONE,
        ZONE_KIND_KEYS,
        CHUNK_BYTES_MIN,
        INDEX_ZONES,
        INDEX_HOURS,
        INDEX_KEYS,
        INDEX_MEMBERS,
        INDEX_SUMMARIES,
        INDEX_DIGESTS,
        INDEX_CENTROIDS,
        INDEX_TOP,
        INDEX_LAST,
        INDEX_KEY_DIGESTS,
        INDEX_KEY_CENTROIDS,
        FOOTER_FRAMES_MAX,
        FOOTER_BYTES_MAX,
        FOOTER_ENTRY_BYTES_MIN,
        FOOTER_ENTRY_BYTES_MAX,
        TRAILER_BYTES,
        SKETCH_KIND_PLAIN,
        SKETCH_KIND_TDIGEST,
        TDIGEST_CENTROIDS_MAX,
        PLAIN_CENTROIDS_MAX,
        DIGEST_COUNT_MAX,
        MEMBERSHIP_BLOCK_BYTES,
        MEMBERSHIP_BLOCK_WORDS,
        MEMBERSHIP_BITS_PER_KEY,
        MEMBERSHIP_BLOCKS_MAX,
    ];

    #[test]
    fn spec_states_every_constant() {
        let stated = spec_text::constants();
        for (name, value) in NAMED {
            let found: Vec<_> = stated.iter().filter(|(stated, _)| stated == name).collect();
            assert_eq!(found.len(), 1, "{name} is stated once in the spec");
            assert_eq!(found[0].1, *value, "{name}");
        }
        for (name, _) in &stated {
            assert!(NAMED.iter().any(|(known, _)| known == name), "{name} is not in layout.rs");
        }
    }

    #[test]
    fn spec_states_every_field() {
        for (name, fields) in [
            ("header", header::FIELDS),
            ("frame_header", frame_header::FIELDS),
            ("commit", commit::FIELDS),
            ("directory", directory::FIELDS),
            ("chunk_entry", chunk_entry::FIELDS),
            ("trailer", trailer::FIELDS),
        ] {
            let expected: Vec<_> = fields
                .iter()
                .map(|(field, at)| (at.offset, at.size, field.to_lowercase()))
                .collect();
            assert_eq!(spec_text::structure(name), expected, "structure {name}");
        }
    }

    #[test]
    fn spec_states_the_salts() {
        let text = spec_text::section("7-sketches.md");
        for salt in MEMBERSHIP_SALTS {
            assert!(text.contains(&format!("{salt:08x}")), "salt {salt:08x}");
        }
    }
}
