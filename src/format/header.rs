//! The header of every file: two identical copies of 4 KiB (spec 2.1, 2.2).
//!
//! Owns `Header` and the schema of a table as a file describes it. The first good copy
//! wins; whether the file is where its header says is the caller's question.

use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum;
use crate::format::cursor::{Cursor, Fields, Record, is_zero};
use crate::format::id::{FileKind, Id};
use crate::format::layout::{
    COLUMN_TYPE_BOOL, COLUMN_TYPE_DIMENSION, COLUMN_TYPE_FLOAT, COLUMN_TYPE_INT, COLUMN_TYPE_JSON,
    COLUMN_TYPE_TEXT, COLUMN_TYPE_TIMESTAMP, COLUMNS_MAX, HEADER_CHECKSUM_OFFSET, HEADER_COPIES,
    HEADER_COPY_BYTES, HEADER_FIXED_BYTES, HEADER_MAGIC, NAME_BYTES_MAX, PARTITION_DAYS_MAX,
    PARTITION_DAYS_MIN, REPLACES_MAX, SCHEMA_BYTES_MAX, VERSION_MAJOR, VERSION_MINOR, header,
};
use crate::planted::{Bug, is_planted};
use crate::schema::{ColumnType, Schema, Table};
use crate::time::{Partition, Timestamp};

const SECTION: &str = "2.1";
const SCHEMA_SECTION: &str = "2.2";

/// A column as a file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableColumn {
    /// Name, as in queries and exports.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) kind: ColumnType,
    /// Whether a row may have no value.
    pub(crate) nullable: bool,
}

/// A table as a file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableSchema {
    /// Name of the table.
    pub(crate) name: String,
    /// Columns, the timestamp first.
    pub(crate) columns: Vec<TableColumn>,
}

/// What the header of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Major version of the format.
    pub(crate) major: u16,
    /// Minor version of the format.
    pub(crate) minor: u16,
    /// What the file is.
    pub(crate) kind: FileKind,
    /// The store that it belongs to.
    pub(crate) store_id: Id,
    /// The file.
    pub(crate) uuid: Id,
    /// The process that wrote it.
    pub(crate) writer: Id,
    /// The import transaction that it counts with.
    pub(crate) txn: Option<Id>,
    /// The UTC day of its rows.
    pub(crate) partition: Partition,
    /// When it was created, in microseconds since 1970.
    pub(crate) created: i64,
    /// The table of its rows.
    pub(crate) table: TableSchema,
    /// Files of the same partition that it stands for.
    pub(crate) replaces: Vec<Id>,
}

/// A header, and which of its copies were no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderCopies {
    /// The first good copy.
    pub(crate) header: Header,
    /// Which copies are damaged or differ from the first good one.
    pub(crate) bad: [bool; HEADER_COPIES],
}

impl HeaderCopies {
    /// What is to be said of the copies that are no good.
    pub(crate) fn problems(&self) -> Vec<String> {
        let bad = self.bad.iter().enumerate().filter(|(_, bad)| **bad);
        bad.map(|(copy, _)| format!("header copy {copy} is damaged")).collect()
    }
}

const COLUMN_TYPES: [(ColumnType, u8); 7] = [
    (ColumnType::Timestamp, COLUMN_TYPE_TIMESTAMP),
    (ColumnType::Int, COLUMN_TYPE_INT),
    (ColumnType::Float, COLUMN_TYPE_FLOAT),
    (ColumnType::Bool, COLUMN_TYPE_BOOL),
    (ColumnType::Dimension, COLUMN_TYPE_DIMENSION),
    (ColumnType::Text, COLUMN_TYPE_TEXT),
    (ColumnType::Json, COLUMN_TYPE_JSON),
];

impl TableSchema {
    /// The description of a table of the store.
    pub(crate) fn of(schema: &Schema) -> Self {
        let columns = schema.columns.iter().map(|column| TableColumn {
            name: column.name.to_owned(),
            kind: column.kind,
            nullable: column.nullable,
        });
        Self { name: schema.name.to_owned(), columns: columns.collect() }
    }

    fn encode(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let mut bytes = Vec::new();
        push_name(&mut bytes, &self.name)?;
        bytes.push(short_len(self.columns.len())?);
        for column in &self.columns {
            let tag = COLUMN_TYPES.iter().find(|(kind, _)| *kind == column.kind);
            bytes.push(tag.map_or(0, |(_, tag)| *tag));
            bytes.push(u8::from(column.nullable));
            push_name(&mut bytes, &column.name)?;
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, SCHEMA_SECTION);
        let name = cursor.short_text()?.to_owned();
        let mut columns = Vec::new();
        for _ in 0..cursor.u8()? {
            columns.push(decode_column(&mut cursor)?);
        }
        cursor.finish()?;
        let table = Self { name, columns };
        table.validate()?;
        Ok(table)
    }

    /// The rules of spec 2.2, the same for what is written and what is read.
    fn validate(&self) -> Result<()> {
        let bad = |message: String| Err(Error::corrupt(SCHEMA_SECTION, message));
        check_name(&self.name)?;
        if self.columns.len() > COLUMNS_MAX {
            return bad(format!("{} columns, expected at most {COLUMNS_MAX}", self.columns.len()));
        }
        let first = self.columns.first();
        if first.map(|column| (column.kind, column.nullable))
            != Some((ColumnType::Timestamp, false))
        {
            return bad("the first column is not a timestamp without nulls".to_owned());
        }
        for (index, column) in self.columns.iter().enumerate() {
            check_name(&column.name)?;
            if self.columns.iter().take(index).any(|other| other.name == column.name) {
                return bad(format!("column {} appears twice", column.name));
            }
        }
        Ok(())
    }
}

fn decode_column(cursor: &mut Cursor<'_>) -> Result<TableColumn> {
    let tag = cursor.u8()?;
    let Some((kind, _)) = COLUMN_TYPES.iter().find(|(_, known)| *known == tag) else {
        return Err(cursor.error(format!("column type {tag} is unknown")));
    };
    let nullable = match cursor.u8()? {
        0 => false,
        1 => true,
        other => return Err(cursor.error(format!("nullable is {other}, expected 0 or 1"))),
    };
    Ok(TableColumn { name: cursor.short_text()?.to_owned(), kind: *kind, nullable })
}

fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        let message = format!(
            "name {name:?}: expected 1 to {NAME_BYTES_MAX} of a to z, 0 to 9 and underscore"
        );
        Err(Error::corrupt(SCHEMA_SECTION, message))
    }
}

fn short_len(len: usize) -> Result<u8> {
    u8::try_from(len).map_err(|_| Error::corrupt(SCHEMA_SECTION, format!("length {len} over 255")))
}

fn push_name(bytes: &mut Vec<u8>, name: &str) -> Result<()> {
    bytes.push(short_len(name.len())?);
    bytes.extend_from_slice(name.as_bytes());
    Ok(())
}

impl Header {
    /// A header of the current version.
    pub(crate) const VERSION: (u16, u16) = (VERSION_MAJOR, VERSION_MINOR);

    /// Whether the file's table is `schema`, column for column.
    pub(crate) fn table_matches(&self, schema: &Schema) -> bool {
        self.table == TableSchema::of(schema)
    }

    /// Both copies, one after the other.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the header breaks a rule that a reader would reject.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let refused = |error: Error| Error::invalid(format!("file header: {}", error.message()));
        self.validate().map_err(refused)?;
        let schema = self.table.encode().map_err(refused)?;
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(Error::invalid(format!(
                "file header: schema of {} bytes, expected at most {SCHEMA_BYTES_MAX}",
                schema.len()
            )));
        }
        let schema_len = u16::try_from(schema.len()).unwrap_or(u16::MAX);
        let replaces_count = u16::try_from(self.replaces.len()).unwrap_or(u16::MAX);
        let fixed = Record::<HEADER_FIXED_BYTES>::new()
            .set(header::MAGIC, &HEADER_MAGIC)
            .set(header::MAJOR, &self.major.to_le_bytes())
            .set(header::MINOR, &self.minor.to_le_bytes())
            .set(header::KIND, &[self.kind.tag()])
            .set(header::STORE_ID, self.store_id.as_bytes())
            .set(header::UUID, self.uuid.as_bytes())
            .set(header::WRITER, self.writer.as_bytes())
            .set(header::TXN, self.txn.unwrap_or(Id::NONE).as_bytes())
            .set(header::PARTITION, &self.partition.days().to_le_bytes())
            .set(header::CREATED, &self.created.to_le_bytes())
            .set(header::SCHEMA_LEN, &schema_len.to_le_bytes())
            .set(header::REPLACES_COUNT, &replaces_count.to_le_bytes());
        let mut copy = Vec::with_capacity(HEADER_COPIES * HEADER_COPY_BYTES);
        copy.extend_from_slice(&fixed.finish());
        copy.extend_from_slice(&schema);
        self.replaces.iter().for_each(|uuid| copy.extend_from_slice(uuid.as_bytes()));
        copy.resize(HEADER_CHECKSUM_OFFSET, 0);
        let crc = checksum::crc32(&copy);
        copy.extend_from_slice(&crc.to_le_bytes());
        copy.extend_from_within(..);
        Ok(copy)
    }

    /// The table of this version that the file's rows are of; `None` for another.
    pub(crate) fn known_table(&self) -> Option<Table> {
        Table::ALL.into_iter().find(|table| self.table_matches(table.schema()))
    }

    /// Reads the first `FRAMES_OFFSET` bytes of a file, or as many as there are.
    ///
    /// # Errors
    ///
    /// `UnsupportedVersion` when a whole copy is of a newer major version; `Corrupt` when
    /// there is a copy and none is good; `NotOurFile` when there is something else;
    /// `Torn` when there is nothing, or zeros, or the start of a copy.
    pub(crate) fn decode(bytes: &[u8]) -> Result<HeaderCopies> {
        let first = bytes.get(..HEADER_COPY_BYTES).unwrap_or(bytes);
        let second = bytes.get(HEADER_COPY_BYTES..).unwrap_or_default();
        let second = second.get(..HEADER_COPY_BYTES).unwrap_or(second);
        match (Self::decode_copy(first), Self::decode_copy(second)) {
            (Ok(header), Ok(_)) => Ok(HeaderCopies { header, bad: [false, first != second] }),
            (Ok(header), Err(_)) => Ok(HeaderCopies { header, bad: [false, true] }),
            (Err(_), Ok(header)) => Ok(HeaderCopies { header, bad: [true, false] }),
            (Err(first), Err(second)) => Err(worse(first, second)),
        }
    }

    /// Reads one copy. What a newer major version changed cannot be known, so its number
    /// is looked at as soon as the checksum is right, and before anything else.
    fn decode_copy(copy: &[u8]) -> Result<Self> {
        check_presence(copy)?;
        let fields = Fields::new(copy, SECTION);
        let checked = copy.get(..HEADER_CHECKSUM_OFFSET).unwrap_or_default();
        let stored = Cursor::new(copy.get(HEADER_CHECKSUM_OFFSET..).unwrap_or_default(), SECTION);
        let checksum =
            checksum::check(SECTION, "header", { stored }.u32()?, checksum::crc32(checked));
        if !is_planted(Bug::SkipHeaderChecksum) {
            checksum?;
        }
        check_version(fields.u16(header::MAJOR)?, fields.u16(header::MINOR)?)?;
        fields.zeros(&[header::ZERO_1, header::ZERO_2, header::ZERO_3])?;
        let tag = fields.u8(header::KIND)?;
        let kind = FileKind::from_tag(tag)
            .ok_or_else(|| Error::corrupt(SECTION, format!("file kind {tag} is unknown")))?;
        let mut rest = Cursor::new(checked, SECTION);
        rest.bytes(HEADER_FIXED_BYTES)?;
        let table = TableSchema::decode(rest.bytes(fields.u16(header::SCHEMA_LEN)?.into())?)?;
        let mut replaces = Vec::new();
        for _ in 0..fields.u16(header::REPLACES_COUNT)? {
            replaces.push(rest.id()?);
        }
        rest.zeros(rest.remaining())?;
        let header = Self {
            major: fields.u16(header::MAJOR)?,
            minor: fields.u16(header::MINOR)?,
            kind,
            store_id: fields.id(header::STORE_ID)?,
            uuid: fields.id(header::UUID)?,
            writer: fields.id(header::WRITER)?,
            txn: fields.id(header::TXN)?.some(),
            partition: Partition::from_days(fields.i32(header::PARTITION)?),
            created: fields.i64(header::CREATED)?,
            table,
            replaces,
        };
        header.validate()?;
        Ok(header)
    }

    /// The rules of spec 2.1 that hold for what is written and what is read.
    fn validate(&self) -> Result<()> {
        let bad = |message: String| Err(Error::corrupt(SECTION, message));
        if self.store_id.is_none() || self.uuid.is_none() {
            return bad("store id or uuid is zero".to_owned());
        }
        let days = self.partition.days();
        if !(PARTITION_DAYS_MIN..=PARTITION_DAYS_MAX).contains(&days) {
            return bad(format!("partition {days} is outside the years 0001 to 9999"));
        }
        if Timestamp::from_micros(self.created).is_err() {
            return bad(format!("created {} is outside the years 0001 to 9999", self.created));
        }
        if self.replaces.len() > REPLACES_MAX {
            let count = self.replaces.len();
            return bad(format!("replaces {count} files, expected at most {REPLACES_MAX}"));
        }
        if self.kind == FileKind::Active && !self.replaces.is_empty() {
            return bad("an active segment replaces nothing".to_owned());
        }
        let mut seen = self.replaces.clone();
        seen.sort_unstable();
        let twice = seen.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        if twice || seen.contains(&Id::NONE) || seen.contains(&self.uuid) {
            return bad("replaces names a file twice, itself, or none".to_owned());
        }
        Ok(())
    }
}

/// Whether there is a copy at all: `Torn` or `NotOurFile` if not.
fn check_presence(copy: &[u8]) -> Result<()> {
    let start = copy.get(..HEADER_MAGIC.len()).unwrap_or(copy);
    if is_zero(copy) || (copy.len() < HEADER_COPY_BYTES && HEADER_MAGIC.starts_with(start)) {
        return Err(Error::new(ErrorKind::Torn, "the file ends before its header is whole"));
    }
    if start != HEADER_MAGIC {
        return Err(Error::new(
            ErrorKind::NotOurFile,
            format!("the file starts with {start:02x?}, not with {HEADER_MAGIC:02x?}"),
        ));
    }
    Ok(())
}

/// Any minor version is read, no other major one (spec 9.1).
fn check_version(major: u16, minor: u16) -> Result<()> {
    if major == VERSION_MAJOR {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::UnsupportedVersion,
        format!(
            "format version {major}.{minor}, this release reads {VERSION_MAJOR}.x and writes \
             {VERSION_MAJOR}.{VERSION_MINOR}"
        ),
    );
    Err(error.with_remedy("use a release that reads this version; the file was left as it is"))
}

/// Of the errors of two copies, the one that says most about the file.
fn worse(first: Error, second: Error) -> Error {
    let weight = |error: &Error| match error.kind() {
        ErrorKind::UnsupportedVersion => 3,
        ErrorKind::Corrupt => 2,
        ErrorKind::NotOurFile => 1,
        _ => 0,
    };
    if weight(&second) > weight(&first) { second } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::layout::FRAMES_OFFSET;
    use crate::format::spec_text::assert_example;
    use proptest::prelude::*;

    fn id(byte: u8) -> Id {
        Id::from_bytes([byte; 16])
    }

    fn sample() -> Header {
        Header {
            major: 0,
            minor: 1,
            kind: FileKind::Sealed,
            store_id: id(0x11),
            uuid: id(0x22),
            writer: id(0x33),
            txn: None,
            partition: Partition::from_days(20_780),
            created: 1_795_392_000_000_000,
            table: TableSchema::of(Table::Agent.schema()),
            replaces: vec![id(0x44)],
        }
    }

    /// Sets the checksum of both copies right, as a hostile writer would.
    fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
        for copy in bytes.chunks_exact_mut(HEADER_COPY_BYTES) {
            let crc = checksum::crc32(&copy[..HEADER_CHECKSUM_OFFSET]);
            copy[HEADER_CHECKSUM_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Writes `value` at `offset` of both copies.
    fn patched(offset: usize, value: &[u8]) -> Vec<u8> {
        let mut bytes = sample().encode().unwrap();
        for start in [offset, HEADER_COPY_BYTES + offset] {
            bytes[start..start + value.len()].copy_from_slice(value);
        }
        seal(bytes)
    }

    #[test]
    fn round_trips_for_every_table_and_kind() {
        for table in Table::ALL {
            for kind in FileKind::ALL {
                let replaces = if kind == FileKind::Active { 0 } else { 192 };
                let header = Header {
                    kind,
                    txn: Some(id(9)),
                    table: TableSchema::of(table.schema()),
                    replaces: (0..replaces)
                        .map(|i| id(i + 48))
                        .filter(|i| *i != id(0x22))
                        .collect(),
                    ..sample()
                };
                let bytes = header.encode().unwrap();
                assert_eq!(bytes.len(), FRAMES_OFFSET);
                let read = Header::decode(&bytes).unwrap();
                assert!(read.header.table_matches(table.schema()));
                assert_eq!(read, HeaderCopies { header, bad: [false, false] });
            }
        }
    }

    #[test]
    fn the_spec_example_is_what_is_written() {
        assert_example("header", &sample().encode().unwrap()[..HEADER_COPY_BYTES]);
    }

    #[test]
    fn one_damaged_copy_is_survived_and_reported() {
        let good = sample().encode().unwrap();
        for bit in (0..good.len() * 8).step_by(97) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Header::decode(&bytes).unwrap();
            assert_eq!(read.header, sample());
            let first = bit / 8 < HEADER_COPY_BYTES;
            assert_eq!(read.bad, [first, !first], "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_both_copies_is_an_error() {
        let good = sample().encode().unwrap();
        for bit in 0..HEADER_COPY_BYTES * 8 {
            let mut copy = good[..HEADER_COPY_BYTES].to_vec();
            copy[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode_copy(&copy).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_prefix_is_read_or_torn() {
        let good = sample().encode().unwrap();
        for len in 0..good.len() {
            match Header::decode(&good[..len]) {
                Ok(read) => assert!(len >= HEADER_COPY_BYTES && read.bad == [false, true]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Torn, "{len} bytes"),
            }
        }
    }

    #[test]
    fn kinds_of_error() {
        let kind = |bytes: &[u8]| Header::decode(bytes).unwrap_err().kind();
        assert_eq!(kind(&[]), ErrorKind::Torn);
        assert_eq!(kind(&[0; FRAMES_OFFSET]), ErrorKind::Torn);
        assert_eq!(kind(b"TALLY"), ErrorKind::Torn);
        assert_eq!(kind(b"hello, world"), ErrorKind::NotOurFile);
        assert_eq!(kind(&[b'x'; FRAMES_OFFSET]), ErrorKind::NotOurFile);
        assert_eq!(kind(&patched(header::KIND.offset, &[7])), ErrorKind::Corrupt);
        let newer = patched(header::MAJOR.offset, &[1, 0, 5, 0]);
        let error = Header::decode(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.message().contains("1.5") && error.message().contains("0.1"));
    }

    #[test]
    fn a_newer_minor_is_read() {
        let read = Header::decode(&patched(header::MINOR.offset, &[9, 0])).unwrap();
        assert_eq!((read.header.major, read.header.minor), (0, 9));
    }

    #[test]
    fn rules_of_the_header_hold_for_right_checksums() {
        for (offset, value) in [
            (header::ZERO_1.offset, &[1][..]),
            (header::ZERO_2.offset, &[1]),
            (header::ZERO_3.offset, &[1]),
            (header::STORE_ID.offset, &[0; 16]),
            (header::UUID.offset, &[0; 16]),
            (header::UUID.offset, &[0x44; 16]),
            (header::PARTITION.offset, &i32::MAX.to_le_bytes()),
            (header::CREATED.offset, &i64::MAX.to_le_bytes()),
            (header::SCHEMA_LEN.offset, &u16::MAX.to_le_bytes()),
            (header::SCHEMA_LEN.offset, &0u16.to_le_bytes()),
            (header::REPLACES_COUNT.offset, &0u16.to_le_bytes()),
            (header::REPLACES_COUNT.offset, &2u16.to_le_bytes()),
            (header::REPLACES_COUNT.offset, &u16::MAX.to_le_bytes()),
            (header::KIND.offset, &[FILE_KIND_ACTIVE_TAG]),
            (HEADER_FIXED_BYTES, &[200]),
            (HEADER_FIXED_BYTES + 1, b"A"),
            (HEADER_CHECKSUM_OFFSET - 1, &[1]),
        ] {
            let error = Header::decode(&patched(offset, value)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{value:?} at {offset}");
        }
    }

    const FILE_KIND_ACTIVE_TAG: u8 = FileKind::Active.tag();

    #[test]
    fn what_a_reader_rejects_is_not_written() {
        let refused = |header: Header| {
            assert_eq!(header.encode().unwrap_err().kind(), ErrorKind::InvalidArgument);
        };
        refused(Header { uuid: Id::NONE, ..sample() });
        refused(Header { replaces: vec![id(1), id(1)], ..sample() });
        refused(Header { kind: FileKind::Active, ..sample() });
        let mut wide = sample();
        for number in 0..62 {
            wide.table.columns.push(TableColumn {
                name: format!("a_rather_long_column_name_{number}"),
                kind: ColumnType::Int,
                nullable: true,
            });
        }
        refused(Header { table: wide.table, ..sample() });
        let mut twice = sample();
        twice.table.columns[1].name = "value".to_owned();
        refused(twice);
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            patches in prop::collection::vec((0usize..400, any::<u8>()), 1..8),
            len in 0usize..=FRAMES_OFFSET,
        ) {
            let mut bytes = sample().encode().unwrap();
            for (offset, value) in patches {
                bytes[offset] = value;
                bytes[HEADER_COPY_BYTES + offset] = value;
            }
            let bytes = seal(bytes);
            if let Ok(read) = Header::decode(&bytes) {
                prop_assert_eq!(read.header.encode().unwrap(), bytes.clone());
            }
            let _ = Header::decode(&bytes[..len]);
        }
    }
}
