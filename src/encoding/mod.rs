//! Column chunks: the bytes of one column of some rows (spec 4.2 and 5).
//!
//! Owns the encodings, the chunk header, and the choice of an encoding by estimated size
//! and scan cost. Leaves alone where the bytes go, their checksum, and the segment
//! dictionary that codes refer to.
//!
//! ```text
//! Column --encode--> | header 16 | validity | body | --Chunk::parse--> decode(): Column
//! ```
//!
//! Encodings nest: the lengths of strings, the positions of exceptions and the values of
//! runs are chunks of integers inside a body, coded by the same rules.

mod bools;
mod bytes;
mod floats;
mod ints;
mod kernels;
mod layout;
mod numbered;
mod numbers;
mod packed;
mod planes;
mod text;
pub(crate) mod views;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use self::numbers::{Numbers, count_inside, find_inside};

use self::bytes::{Reader, pad, padding, put_count};
use self::layout::{
    FLAG_DENSE, FLAG_PACKED, FLAG_VALIDITY, HEADER_BYTES, NEST_MAX, TEXT_RAW_BYTES_MAX, tag,
};
use crate::column::{Bitmap, Column, Strings, Values, valid_extremes};
use crate::error::{Error, Result};
use crate::limits::FRAME_ROWS_MAX;
use crate::schema::ColumnType;
use crate::selection::{Selection, index};

/// How much work an encoder puts into the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// One pass: constant, byte-aligned lanes, or plain.
    Append,
    /// Every encoding is estimated and the one of least [`cost`] taken.
    Seal,
    /// The smallest of all encodings, whatever reading it asks; zstd at this level.
    Archive {
        /// Level of zstd, 1 to 22.
        level: i32,
    },
}

/// Where the dictionary of a coded column lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextScope {
    /// In the chunk: exactly the strings that it uses.
    Local,
    /// In the segment: the chunk has codes only.
    Segment,
}

/// What reading an encoding asks of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The bytes are scanned as they lie.
    View,
    /// One cheap pass unpacks them.
    Unpack,
    /// A general decompressor runs over them.
    Decompress,
}

/// The rule by which one encoding is preferred to another: its bytes, weighted by what a
/// scan pays. Unpacking must save 25 % against a view, and decompression 50 %; between
/// equals the earlier candidate stays. The encoding of least cost is chosen. For archives
/// bytes alone count.
fn cost(bytes: usize, access: Access, effort: Effort) -> usize {
    match access {
        _ if matches!(effort, Effort::Archive { .. }) => bytes,
        Access::View => bytes.saturating_mul(3),
        Access::Unpack => bytes.saturating_mul(4),
        Access::Decompress => bytes.saturating_mul(6),
    }
}

/// Appends one chunk of the column; its length is a multiple of 8.
///
/// # Errors
///
/// `InvalidArgument` when the column has more rows, or more bytes of text, than a frame
/// may have. Then `out` holds an unfinished chunk.
pub(crate) fn encode(
    column: &Column,
    scope: TextScope,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    check_limits(column)?;
    match &column.values {
        Values::Int(values) => {
            let shape = Shape::of(column, false, effort);
            let stored = shape.gather(values);
            ints::encode(&stored, &shape, effort, out)
        }
        Values::Float(values) => {
            let shape = Shape::of(column, true, effort);
            floats::encode(&shape.gather_dense(values), &shape, effort, out)
        }
        Values::Bool(values) => {
            bools::encode(values, &Shape::of(column, false, effort), effort, out)
        }
        Values::Text(values) => text::encode(values, &Shape::of(column, true, effort), effort, out),
        Values::Coded { codes, dictionary } => {
            let shape = Shape::of(column, false, effort);
            let stored = shape.gather(codes);
            match scope {
                TextScope::Local => text::encode_local(&stored, dictionary, &shape, effort, out),
                TextScope::Segment => text::encode_codes(&stored, &shape, effort, out),
            }
        }
    }
}

fn check_limits(column: &Column) -> Result<()> {
    let rows = column.len();
    if rows > FRAME_ROWS_MAX {
        return Err(Error::invalid(format!("{rows} rows, expected at most {FRAME_ROWS_MAX}")));
    }
    if column.validity.as_ref().is_some_and(|validity| validity.len() != rows) {
        return Err(Error::invalid(format!("validity of other than {rows} rows")));
    }
    match &column.values {
        Values::Text(values) if values.text_bytes() > TEXT_RAW_BYTES_MAX => {
            Err(Error::invalid(format!(
                "{} bytes of text in one chunk, expected at most {TEXT_RAW_BYTES_MAX}",
                values.text_bytes()
            )))
        }
        _ => Ok(()),
    }
}

/// Rows, nulls, and which rows the body of a chunk has values of.
#[derive(Clone, Copy, Debug)]
struct Shape<'a> {
    rows: usize,
    nulls: usize,
    validity: Option<&'a Bitmap>,
    dense: bool,
    /// With what effort the bitmap is written as a sub-chunk; `None`: as it is.
    packed: Option<Effort>,
}

impl<'a> Shape<'a> {
    /// Of a sub-chunk: all rows have a value.
    fn plain(rows: usize) -> Self {
        Self { rows, nulls: 0, validity: None, dense: false, packed: None }
    }

    /// Of a column. Values that cannot be scanned in place anyway are kept densely as soon
    /// as there is a null, the others when more than half of the rows are null.
    fn of(column: &'a Column, dense: bool, effort: Effort) -> Self {
        let (rows, nulls) = (column.len(), column.null_count());
        let validity = column.validity.as_ref().filter(|_| nulls > 0);
        let dense = nulls > 0 && (dense || nulls > rows / 2);
        let packed = matches!(effort, Effort::Archive { .. }).then_some(effort);
        Self { rows, nulls, validity, dense, packed }
    }

    /// The values that go into the body: dense, or with the least of them in null rows.
    fn gather<'v, T: Copy + Ord>(&self, values: &'v [T]) -> std::borrow::Cow<'v, [T]> {
        let Some(validity) = self.validity.filter(|_| !self.dense) else {
            return self.gather_dense(values);
        };
        let mut filled = values.to_vec();
        if let Some((least, _)) = valid_extremes(values, validity) {
            zeros(validity.as_bytes(), self.rows).for_each(|row| filled[row] = least);
        }
        filled.into()
    }

    /// The values of the rows that have one.
    fn gather_dense<'v, T: Copy>(&self, values: &'v [T]) -> std::borrow::Cow<'v, [T]> {
        let Some(validity) = self.validity else { return values.into() };
        let mut stored = Vec::with_capacity(self.rows - self.nulls);
        for (byte, values) in validity.as_bytes().iter().zip(values.chunks(8)) {
            match *byte {
                0 => {}
                u8::MAX => stored.extend_from_slice(values),
                byte => stored.extend(Bits(byte).map(|bit| values[bit])),
            }
        }
        stored.into()
    }
}

/// Positions of the set bits, rising.
fn ones(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.iter().enumerate().flat_map(|(index, byte)| Bits(*byte).map(move |bit| index * 8 + bit))
}

/// Positions of the cleared bits below `rows`, rising.
fn zeros(bytes: &[u8], rows: usize) -> impl Iterator<Item = usize> + '_ {
    bytes
        .iter()
        .enumerate()
        .flat_map(|(index, byte)| Bits(!*byte).map(move |bit| index * 8 + bit))
        .take_while(move |row| *row < rows)
}

/// Positions of the set bits of one byte.
struct Bits(u8);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (bit < 8).then_some(bit as usize)
    }
}

/// Appends a chunk: header (spec 4.2), validity, the body that `body` writes, padding.
fn write_chunk(
    out: &mut Vec<u8>,
    encoding: u8,
    shape: &Shape<'_>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    // Of rows that are all null there is nothing to say.
    let validity = shape.validity.filter(|_| shape.nulls < shape.rows);
    let mut flags = if shape.dense { FLAG_DENSE } else { 0 };
    let mut packed = Vec::new();
    if let Some(validity) = validity {
        flags |= FLAG_VALIDITY;
        if let Some(effort) = shape.packed {
            put_bytes(validity.as_bytes(), effort, &mut packed)?;
            let bytes = validity.as_bytes().len();
            flags |= if packed.len() < bytes + padding(bytes) { FLAG_PACKED } else { 0 };
        }
    }
    out.extend_from_slice(&[encoding, flags, 0, 0]);
    put_count(out, shape.rows)?;
    put_count(out, shape.nulls)?;
    let length_at = out.len();
    put_count(out, 0)?;
    match validity {
        Some(_) if flags & FLAG_PACKED != 0 => out.extend_from_slice(&packed),
        Some(validity) => {
            let start = out.len();
            out.extend_from_slice(validity.as_bytes());
            pad(out, start);
        }
        None => {}
    }
    let start = out.len();
    body(out)?;
    let length = u32::try_from(out.len() - start)
        .map_err(|_| Error::invalid("a chunk holds less than 4 GiB"))?;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    pad(out, start);
    Ok(())
}

/// Appends an ints sub-chunk of bytes.
fn put_bytes(bytes: &[u8], effort: Effort, out: &mut Vec<u8>) -> Result<()> {
    let bytes: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
    ints::encode(&bytes, &Shape::plain(bytes.len()), effort, out)
}

/// The bytes of such a sub-chunk.
fn read_bytes(chunk: &Chunk<'_>) -> Result<Vec<u8>> {
    let bytes: Vec<u32> = ints::decode(chunk)?;
    let byte = |byte: u32| u8::try_from(byte).map_err(|_| Error::corrupt("4.2", "not a byte"));
    bytes.into_iter().map(byte).collect()
}

/// A parsed chunk: the header is checked, the body is not yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    kind: ColumnType,
    encoding: u8,
    dense: bool,
    depth: u8,
    rows: usize,
    nulls: usize,
    /// The bitmap, or the sub-chunk of its bytes.
    validity: &'a [u8],
    packed: bool,
    body: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Reads the header of a chunk that takes up all of `bytes` (spec 4.2). Constant time.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the header, a length or the padding is wrong, or when a column of
    /// this type cannot have the encoding.
    pub(crate) fn parse(bytes: &'a [u8], kind: ColumnType) -> Result<Chunk<'a>> {
        let mut reader = Reader::new(bytes, "4.2");
        let chunk = Self::read(&mut reader, kind, 0)?;
        reader.end()?;
        Ok(chunk)
    }

    fn read(reader: &mut Reader<'a>, kind: ColumnType, depth: u8) -> Result<Chunk<'a>> {
        let [encoding, flags] = [reader.u8()?, reader.u8()?];
        reader.zeros(2)?;
        let [rows, nulls, length] = [reader.count()?, reader.count()?, reader.count()?];
        let (has_validity, dense) = (flags & FLAG_VALIDITY != 0, flags & FLAG_DENSE != 0);
        if !fits(encoding, kind) {
            return Err(reader.corrupt(format!("encoding {encoding} in a column of {kind:?}")));
        }
        if rows > FRAME_ROWS_MAX || nulls > rows {
            return Err(reader.corrupt(format!("{rows} rows of which {nulls} are null")));
        }
        let packed = flags & FLAG_PACKED != 0;
        let known = flags & !(FLAG_VALIDITY | FLAG_DENSE | FLAG_PACKED) == 0;
        let mixed = nulls > 0 && nulls < rows;
        if !known || has_validity != mixed || (dense && nulls == 0) || (packed && !mixed) {
            return Err(reader.corrupt(format!("flags {flags:#04x} with {nulls} nulls")));
        }
        let bytes = if has_validity { rows.div_ceil(8) } else { 0 };
        let validity =
            if packed { Self::read_packed(reader, depth, bytes)? } else { reader.padded(bytes)? };
        let body = reader.padded(length)?;
        Ok(Self { kind, encoding, dense, depth, rows, nulls, validity, packed, body })
    }

    /// The bytes of the sub-chunk that a bitmap of so many bytes is.
    fn read_packed(reader: &mut Reader<'a>, depth: u8, bytes: usize) -> Result<&'a [u8]> {
        if depth >= NEST_MAX {
            return Err(reader.corrupt(format!("more than {NEST_MAX} levels of sub-chunks")));
        }
        let mut ahead = *reader;
        let chunk = Self::read(&mut ahead, ColumnType::Int, depth + 1)?;
        if chunk.rows != bytes || chunk.nulls != 0 {
            return Err(reader.corrupt(format!("a bitmap of {} bytes", chunk.rows)));
        }
        reader.take(chunk.len())
    }

    /// Reads a sub-chunk, which has no nulls and `rows` rows.
    fn nested(&self, reader: &mut Reader<'a>, kind: ColumnType, rows: usize) -> Result<Chunk<'a>> {
        if self.depth >= NEST_MAX {
            return Err(reader.corrupt(format!("more than {NEST_MAX} levels of sub-chunks")));
        }
        let chunk = Self::read(reader, kind, self.depth + 1)?;
        if chunk.rows != rows || chunk.nulls != 0 {
            return Err(reader.corrupt(format!(
                "sub-chunk of {} rows and {} nulls, expected {rows} rows and none",
                chunk.rows, chunk.nulls
            )));
        }
        Ok(chunk)
    }

    /// Checks that compressed text is no more than `most` times as long as what is stored.
    ///
    /// # Errors
    ///
    /// `Corrupt` where it is, or a length is wrong.
    pub(crate) fn check_ratio(&self, most: usize) -> Result<()> {
        text::check_ratio(self, most)
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of rows without a value, as the header says.
    pub(crate) fn null_count(&self) -> usize {
        self.nulls
    }

    /// Which rows have a value; `None` when all have.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the bitmap does not have as many nulls as the header says.
    pub(crate) fn validity(&self) -> Result<Option<Bitmap>> {
        if self.nulls == 0 {
            return Ok(None);
        }
        if self.nulls == self.rows {
            return Ok(Some(Bitmap::filled(self.rows, false)));
        }
        let bitmap = if self.packed {
            let mut reader = Reader::new(self.validity, "4.2");
            let chunk = Self::read(&mut reader, ColumnType::Int, self.depth + 1)?;
            Bitmap::from_bytes(&read_bytes(&chunk)?, self.rows)
        } else {
            Bitmap::from_bytes(self.validity, self.rows)
        };
        bitmap
            .filter(|bitmap| self.rows - bitmap.count_ones() == self.nulls)
            .map(Some)
            .ok_or_else(|| Error::corrupt("4.2", "the validity bitmap and the null count differ"))
    }

    /// Decodes the chunk and checks all of it. Codes refer to `dictionary`, the segment's,
    /// unless the chunk has its own.
    ///
    /// # Errors
    ///
    /// `Corrupt` naming the section that the bytes break.
    pub(crate) fn decode(&self, dictionary: Option<&Arc<Strings>>) -> Result<Column> {
        let validity = self.validity()?;
        let values = match self.kind {
            ColumnType::Timestamp | ColumnType::Int => {
                self.check_filler(validity.as_ref())?;
                Values::Int(self.place(ints::decode(self)?, validity.as_ref()))
            }
            ColumnType::Float => {
                Values::Float(self.place(floats::decode(self)?, validity.as_ref()))
            }
            ColumnType::Bool => Values::Bool(bools::decode(self, validity.as_ref())?),
            ColumnType::Dimension | ColumnType::Text | ColumnType::Json => {
                text::decode(self, validity.as_ref(), dictionary)?
            }
        };
        Ok(Column { values, validity })
    }

    /// Decodes some rows. Checks what it reads.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub(crate) fn decode_some(
        &self,
        rows: &Selection,
        dictionary: Option<&Arc<Strings>>,
    ) -> Result<Column> {
        if *rows == Selection::Range(0..self.rows) {
            return self.decode(dictionary);
        }
        if rows.span().end > self.rows {
            return Err(Error::invalid("a row that the chunk does not have"));
        }
        let Some(validity) = self.validity()? else {
            return Ok(Column::new(self.stored_some(rows, dictionary)?));
        };
        let picked: Bitmap = rows.iter().map(|row| validity.get(row)).collect();
        let nulls = picked.len() - picked.count_ones();
        if self.dense {
            let stored = dense_rows(&validity, rows);
            let values = self.stored_some(&stored, dictionary)?;
            if nulls == 0 {
                return Ok(Column::new(values));
            }
            return Ok(Column { values: spread(values, &picked), validity: Some(picked) });
        }
        let mut values = self.stored_some(rows, dictionary)?;
        let null_rows = || zeros(picked.as_bytes(), picked.len());
        match &mut values {
            Values::Int(values) => null_rows().for_each(|row| values[row] = 0),
            Values::Float(values) => null_rows().for_each(|row| values[row] = 0.0),
            Values::Bool(values) => null_rows().for_each(|row| values.set(row, false)),
            Values::Coded { codes, .. } => null_rows().for_each(|row| codes[row] = 0),
            // Text with nulls is dense.
            Values::Text(_) => return self.decode(dictionary).map(|all| all.gather(&list(rows))),
        }
        Ok(Column { values, validity: (nulls > 0).then_some(picked) })
    }

    /// Decodes some of the values in the body.
    fn stored_some(&self, rows: &Selection, dictionary: Option<&Arc<Strings>>) -> Result<Values> {
        match self.kind {
            ColumnType::Timestamp | ColumnType::Int => {
                ints::decode_some(self, rows).map(Values::Int)
            }
            ColumnType::Float => floats::decode_some(self, rows).map(Values::Float),
            ColumnType::Bool => bools::decode_some(self, rows).map(Values::Bool),
            ColumnType::Dimension | ColumnType::Text | ColumnType::Json => {
                text::decode_some(self, rows, dictionary)
            }
        }
    }

    /// The rows, among some, whose text is `text`, whose code in the segment's dictionary
    /// is `code`, if it has one.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub(crate) fn find_text(
        &self,
        text: &str,
        code: Option<u32>,
        rows: &Selection,
    ) -> Result<Selection> {
        if self.nulls == 0 {
            return text::find(self, text, code, rows);
        }
        // A null row has a code or an empty text in its place, which says nothing.
        Err(Error::corrupt("4.2", "a column that is never null has nulls"))
    }

    /// Numbers of a range of rows, to be compared without decoding.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub(crate) fn numbers(&self, rows: Range<usize>) -> Result<Numbers<'a>> {
        Numbers::of(self, rows)
    }

    /// Hands the integers of a range of rows to `each`, some at a time, in order; a null row
    /// has any.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub(crate) fn for_each_ints(&self, rows: Range<usize>, each: impl FnMut(&[i64])) -> Result<()> {
        if rows.end > self.rows {
            return Err(Error::invalid("a row that the chunk does not have"));
        }
        if self.dense || !matches!(self.kind, ColumnType::Timestamp | ColumnType::Int) {
            return Err(Error::corrupt("4.2", "not an integer for each row"));
        }
        ints::for_each_slice(self, rows, each)
    }

    /// Checks that rows have values as they may be (spec 1.2): stamps of `day`, finite floats.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), and `Corrupt` for another value.
    pub(crate) fn check_values(&self, day: &Range<i64>) -> Result<()> {
        let (are_right, what) = match self.kind {
            ColumnType::Timestamp => {
                let mut are_right = true;
                self.for_each_ints(0..self.rows, |stamps| {
                    are_right &= stamps.iter().fold(true, |all, stamp| all & day.contains(stamp));
                })?;
                (are_right, "a timestamp is outside the partition")
            }
            ColumnType::Float => (floats::are_finite(self)?, "a float is not finite"),
            _ => return Ok(()),
        };
        if are_right { Ok(()) } else { Err(Error::corrupt("1.2", what)) }
    }

    /// Bytes that the texts of the chunk take at most once they are decoded, as its headers
    /// say; 0 where it has no text.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub(crate) fn text_bytes_max(&self) -> Result<u64> {
        if self.kind.is_text() { text::bytes_max(self) } else { Ok(0) }
    }

    /// Whether a row may hold `text`: false only when that is certain. Reads a few bytes.
    pub(crate) fn might_contain(&self, text: &str) -> bool {
        text::might_contain(self, text).unwrap_or(true)
    }

    /// Values in the body.
    fn stored(&self) -> usize {
        if self.dense { self.rows - self.nulls } else { self.rows }
    }

    /// Puts stored values into their rows and zeros into the null ones.
    fn place<T: Copy + Default>(&self, mut stored: Vec<T>, validity: Option<&Bitmap>) -> Vec<T> {
        let Some(validity) = validity else { return stored };
        if self.dense {
            let mut placed = vec![T::default(); self.rows];
            let rows = ones(validity.as_bytes());
            rows.zip(stored).for_each(|(row, value)| placed[row] = value);
            return placed;
        }
        let rows = zeros(validity.as_bytes(), self.rows);
        rows.for_each(|row| stored[row] = T::default());
        stored
    }

    /// Null rows between others have lane 0 (spec 5.1).
    fn check_filler(&self, validity: Option<&Bitmap>) -> Result<()> {
        let Some(validity) = validity.filter(|_| !self.dense) else { return Ok(()) };
        let nulls = zeros(validity.as_bytes(), self.rows);
        if ints::lanes_are_zero(self, nulls)? {
            Ok(())
        } else {
            Err(Error::corrupt("5.1", "a null row has a lane other than 0"))
        }
    }

    /// Bytes that the chunk takes up, padding included.
    fn len(&self) -> usize {
        let validity = self.validity.len() + padding(self.validity.len());
        HEADER_BYTES + validity + self.body.len() + padding(self.body.len())
    }
}

/// Positions among the stored values of those rows that have one.
fn dense_rows(validity: &Bitmap, rows: &Selection) -> Selection {
    let span = rows.span();
    let mut before = count_ones(validity, 0..span.start);
    if let Selection::Range(range) = rows {
        return Selection::Range(before..before + count_ones(validity, range.clone()));
    }
    let mut at = span.start;
    let mut stored = Vec::new();
    rows.for_each(|row| {
        before += count_ones(validity, at..row);
        at = row;
        if validity.get(row) {
            stored.push(index(before));
        }
    });
    Selection::of_rows(stored)
}

/// Set bits of a range.
fn count_ones(bitmap: &Bitmap, range: Range<usize>) -> usize {
    let bytes = bitmap.as_bytes();
    let (first, last) = (range.start / 8, range.end / 8);
    let low = |bit: usize| bytes.get(bit / 8).map_or(0, |byte| byte & !(u8::MAX << (bit % 8)));
    let whole = bytes.get(first..last).unwrap_or_default();
    let ones: usize = whole.iter().map(|byte| byte.count_ones() as usize).sum();
    ones + low(range.end).count_ones() as usize - low(range.start).count_ones() as usize
}

/// Puts values in the places of the set bits.
fn spread(values: Values, validity: &Bitmap) -> Values {
    fn over<T: Copy + Default>(values: &[T], validity: &Bitmap) -> Vec<T> {
        let mut placed = vec![T::default(); validity.len()];
        ones(validity.as_bytes()).zip(values).for_each(|(row, value)| placed[row] = *value);
        placed
    }
    match values {
        Values::Int(values) => Values::Int(over(&values, validity)),
        Values::Float(values) => Values::Float(over(&values, validity)),
        Values::Bool(values) => {
            let mut placed = Bitmap::filled(validity.len(), false);
            ones(validity.as_bytes())
                .zip(values.iter())
                .for_each(|(row, value)| placed.set(row, value));
            Values::Bool(placed)
        }
        Values::Coded { codes, dictionary } => {
            Values::Coded { codes: over(&codes, validity), dictionary }
        }
        Values::Text(strings) => {
            let mut placed = Strings::with_capacity(validity.len(), strings.text_bytes());
            let mut stored = strings.iter();
            for valid in validity.iter() {
                placed.push(if valid { stored.next().unwrap_or_default() } else { "" });
            }
            Values::Text(placed)
        }
    }
}

/// The rows of a selection, one by one.
fn list(rows: &Selection) -> Vec<u32> {
    rows.iter().map(index).collect()
}

/// Whether a column of the type may have the encoding (spec 5, table of tags).
fn fits(encoding: u8, kind: ColumnType) -> bool {
    match kind {
        ColumnType::Timestamp | ColumnType::Int => matches!(
            encoding,
            tag::CONSTANT
                | tag::LANES
                | tag::RUNS
                | tag::DELTA
                | tag::PACKED
                | tag::PATCHED
                | tag::PLANES
        ),
        ColumnType::Bool => matches!(encoding, tag::CONSTANT | tag::BITS | tag::BIT_BYTES),
        ColumnType::Float => matches!(
            encoding,
            tag::FLOAT_RAW | tag::FLOAT_DECIMAL | tag::FLOAT_CONSTANT | tag::FLOAT_PATTERNS
        ),
        ColumnType::Dimension | ColumnType::Text | ColumnType::Json => matches!(
            encoding,
            tag::TEXT_CODES
                | tag::TEXT_DICTIONARY
                | tag::TEXT_PLAIN
                | tag::TEXT_NUMBERED
                | tag::TEXT_UUID
                | tag::TEXT_ZSTD
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::views::{ColumnView, IntRanges, Layout, ViewInts, ViewValues};
    use super::*;

    const EFFORTS: [Effort; 3] = [Effort::Append, Effort::Seal, Effort::Archive { level: 6 }];

    fn chunk_of(column: &Column, scope: TextScope, effort: Effort) -> Vec<u8> {
        // Something before it: a chunk must not care where it starts.
        let mut out = vec![0xEE; 5];
        encode(column, scope, effort, &mut out).unwrap();
        let chunk = out.split_off(5);
        assert_eq!(chunk.len() % 8, 0);
        chunk
    }

    fn kind_of(column: &Column) -> ColumnType {
        match column.values {
            Values::Int(_) => ColumnType::Int,
            Values::Float(_) => ColumnType::Float,
            Values::Bool(_) => ColumnType::Bool,
            Values::Text(_) => ColumnType::Json,
            Values::Coded { .. } => ColumnType::Dimension,
        }
    }

    fn same(a: &Column, b: &Column) {
        assert_eq!(a.len(), b.len());
        assert_eq!(a.validity, b.validity);
        match (&a.values, &b.values) {
            (Values::Float(a), Values::Float(b)) => {
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(a), bits(b));
            }
            (Values::Text(a), Values::Text(b)) => assert_eq!(a, b),
            (Values::Coded { .. } | Values::Text(_), _) => {
                (0..a.len()).for_each(|row| assert_eq!(a.text(row), b.text(row)));
            }
            (a, b) => assert_eq!(a, b),
        }
    }

    /// Encodes with every effort, decodes, compares, and gives back the encodings used.
    fn check(column: &Column) -> [u8; 3] {
        EFFORTS.map(|effort| {
            let bytes = chunk_of(column, TextScope::Local, effort);
            let chunk = Chunk::parse(&bytes, kind_of(column)).unwrap();
            assert_eq!((chunk.rows(), chunk.null_count()), (column.len(), column.null_count()));
            assert_eq!(chunk.len(), bytes.len());
            let decoded = chunk.decode(None).unwrap();
            same(column, &decoded);
            if kind_of(column).is_text() {
                let texts = (0..column.len()).filter_map(|row| column.text(row));
                texts.for_each(|text| assert!(chunk.might_contain(text), "{text:?}"));
            }
            check_parts(&chunk, &decoded);
            check_view(&Layout::of(&chunk, &bytes, None).unwrap().view(&bytes), &decoded);
            check_view(&Layout::of_column(decoded.clone()).view(&[]), &decoded);
            chunk.encoding
        })
    }

    /// Compares what is read of some rows with the same rows of the whole.
    fn check_parts(chunk: &Chunk<'_>, whole: &Column) {
        let rows = whole.len();
        let every = |step: usize, from: usize| (from..rows).step_by(step).map(index).collect();
        let scattered = (0..rows).filter(|row| mix(*row).is_multiple_of(5)).map(index);
        let selections = [
            Selection::NONE,
            Selection::Range(rows / 3..rows),
            Selection::Range(rows / 4..rows / 2 + rows / 5),
            Selection::Range(0..rows.min(1)),
            Selection::Rows(every(2, 0)),
            Selection::Rows(every(97, 5)),
            Selection::of_rows(scattered.collect()),
        ];
        for rows in selections {
            let some = chunk.decode_some(&rows, None).unwrap();
            let list = list(&rows);
            same(&whole.gather(&list), &some);
            if whole.validity.is_none() && kind_of(whole).is_text() {
                let found = |text: &str| -> Vec<u32> {
                    let is_it = |row: &&u32| whole.text(**row as usize) == Some(text);
                    list.iter().filter(is_it).copied().collect()
                };
                for text in list.iter().take(3).filter_map(|row| whole.text(*row as usize)) {
                    let same = chunk.find_text(text, None, &rows).unwrap();
                    assert_eq!(self::list(&same), found(text));
                    let longer = format!("{text}0");
                    let other = chunk.find_text(&longer, None, &rows).unwrap();
                    assert_eq!(self::list(&other), found(&longer));
                }
            }
            if let (Selection::Range(range), Values::Int(_) | Values::Float(_)) =
                (rows, &whole.values)
            {
                check_numbers(&chunk.numbers(range.clone()).unwrap(), &some);
                if let (Values::Int(values), 0) = (&some.values, whole.null_count()) {
                    let mut all = Vec::new();
                    chunk.for_each_ints(range, |part| all.extend_from_slice(part)).unwrap();
                    assert_eq!(&all, values);
                }
            }
        }
    }

    /// Compares a view with the decoded column in every way.
    fn check_view(view: &ColumnView<'_>, column: &Column) {
        assert_eq!((view.len(), view.null_count()), (column.len(), column.null_count()));
        same(&view.to_column().unwrap(), column);
        for row in 0..=column.len() {
            if row == column.len() {
                assert_eq!(
                    (view.ints().and_then(|ints| ints.get(row)), view.bool(row)),
                    (None, None)
                );
                assert!(view.floats().is_none_or(|floats| floats.get(row).is_none()));
                continue;
            }
            assert_eq!(view.is_valid(row), column.is_valid(row));
            assert_eq!((view.int(row), view.bool(row)), (column.int(row), column.bool(row)));
            assert_eq!(view.float(row).map(f64::to_bits), column.float(row).map(f64::to_bits));
            assert_eq!(view.text(row).unwrap().as_deref(), column.text(row));
        }
        match (&column.values, view.values) {
            (Values::Int(values), ViewValues::Int(ints)) => {
                assert!(ints.iter().eq(values.iter().copied()));
                assert_eq!(ints.sum(), values.iter().map(|value| i128::from(*value)).sum());
                let range = values.iter().min().copied().zip(values.iter().max().copied());
                assert_eq!(ints.range(), range);
                check_ranges(ints, values);
            }
            (Values::Float(values), ViewValues::Float(floats)) => {
                let same = |(a, b): (f64, &f64)| a.to_bits() == b.to_bits();
                assert!(floats.iter().zip(values).all(same));
                let (sum, expected) = (floats.sum(), values.iter().sum::<f64>());
                let size = values.iter().map(|value| value.abs()).sum::<f64>();
                let close = (sum - expected).abs() <= size * 1e-12;
                assert!(close || !size.is_finite() || sum.to_bits() == expected.to_bits());
            }
            (Values::Text(strings), ViewValues::Text(texts)) => {
                assert_eq!(texts.text_bytes(), strings.text_bytes() as u64);
                assert!(texts.get(column.len()).unwrap().is_none());
            }
            _ => {}
        }
    }

    /// Compares what ranges add up to with plain loops.
    fn check_ranges(ints: ViewInts<'_>, values: &[i64]) {
        let mut ranges = IntRanges::new(ints);
        let mut end = 0;
        while end < values.len() {
            let length = 1 + mix(end).to_le_bytes()[0] as usize * 3;
            let rows = end..(end + length).min(values.len());
            end = rows.end;
            let part = &values[rows.clone()];
            let sum = part.iter().map(|value| i128::from(*value)).sum::<i128>();
            assert_eq!(ranges.sum(rows.clone()), sum);
            let range = part.iter().min().copied().zip(part.iter().max().copied());
            assert_eq!(ranges.range(rows), range);
        }
    }

    /// Without it a value that no writer takes would get into sums and into summaries.
    #[test]
    fn values_that_may_not_be_are_found_in_every_encoding() {
        let day = 1_000..2_000;
        let check = |column: &Column, kind, effort| {
            let chunk = chunk_of(column, TextScope::Local, effort);
            Chunk::parse(&chunk, kind).unwrap().check_values(&day).is_ok()
        };
        let decimals = |at: usize, value: f64| {
            let mut values: Vec<f64> = (0..300).map(|it| f64::from(it) / 4.0).collect();
            values[at] = value;
            values
        };
        let patterns = |value: f64| {
            let mut values: Vec<f64> = (0..300).map(|it| f64::from(it).sqrt()).collect();
            values[299] = value;
            values
        };
        for effort in EFFORTS {
            for stamps in [vec![1_000, 1_999], vec![1_500; 9], (1_000..1_300).collect()] {
                let mut bad = stamps.clone();
                assert!(check(&Column::new(Values::Int(stamps)), ColumnType::Timestamp, effort));
                for outside in [999, 2_000, i64::MIN, i64::MAX] {
                    bad[1] = outside;
                    let column = Column::new(Values::Int(bad.clone()));
                    assert!(!check(&column, ColumnType::Timestamp, effort));
                    assert!(check(&column, ColumnType::Int, effort));
                }
            }
            for value in [f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for values in [vec![value; 9], decimals(7, value), patterns(value)] {
                    let column = Column::new(Values::Float(values));
                    assert_eq!(check(&column, ColumnType::Float, effort), value.is_finite());
                }
                // What is stored in the place of a null row has no meaning.
                let validity = (0..300).map(|row| row != 7).collect();
                let values = Values::Float(decimals(7, value));
                assert!(check(&Column::with_validity(values, validity), ColumnType::Float, effort));
            }
        }
    }

    #[test]
    fn views_borrow_what_lies_plain() {
        let of = |column: &Column| {
            let bytes = chunk_of(column, TextScope::Local, Effort::Seal);
            let chunk = Chunk::parse(&bytes, kind_of(column)).unwrap();
            (chunk.encoding, Layout::of(&chunk, &bytes, None).unwrap(), bytes)
        };
        for (encoding, column) in samples(3000) {
            let (_, layout, bytes) = of(&column);
            match (encoding, layout.view(&bytes).values) {
                (tag::LANES | tag::PATCHED, ViewValues::Int(ints)) => {
                    let lanes = ints.lanes().unwrap();
                    assert_eq!(lanes.bytes.len(), 3000 * lanes.width);
                    assert_eq!(lanes.exceptions.is_empty(), encoding == tag::LANES);
                }
                (tag::PACKED | tag::RUNS, ViewValues::Int(ints)) => {
                    assert!(ints.lanes().is_none() && ints.as_slice().is_some());
                }
                (tag::DELTA, ViewValues::Int(ints)) => assert!(ints.lanes().is_none()),
                (tag::FLOAT_DECIMAL, ViewValues::Float(floats)) => {
                    assert_eq!(floats.decimals().unwrap().divisor, 100.0);
                }
                (tag::TEXT_NUMBERED, ViewValues::Text(texts)) => {
                    let numbered = texts.numbered().unwrap();
                    assert_eq!(numbered.pattern(0), Some(("task_", 7)));
                    assert_eq!((numbered.patterns(), numbered.pattern(1)), (1, None));
                    assert_eq!(numbered.numbers.get(5), Some(95));
                }
                _ => {}
            }
        }
    }

    /// Splits numbers at windows around some of them, and compares with plain loops.
    fn check_numbers(numbers: &Numbers<'_>, column: &Column) {
        let key = |row| {
            let float = |value| crate::format::order::float_key(value);
            column.int(row).or_else(|| column.float(row).map(float))
        };
        let mut keys: Vec<i64> = (0..column.len()).filter_map(key).collect();
        keys.sort_unstable();
        let bounds: Vec<i64> = keys.iter().step_by(keys.len() / 5 + 1).copied().collect();
        let bounds = [i64::MIN, 0, i64::MAX].into_iter().chain(bounds);
        for low in bounds {
            for width in [0, 3, 1 << 20, i64::MAX] {
                let high = low.saturating_add(width);
                let mut inside = vec![7];
                let Some(below) = numbers.split(low, high, &mut inside) else {
                    assert_eq!(inside, [7], "nothing is left behind");
                    continue;
                };
                let (start, end) = (
                    keys.partition_point(|key| *key < low),
                    keys.partition_point(|key| *key <= high),
                );
                assert_eq!(below, start, "below {low}");
                inside.remove(0);
                inside.sort_unstable();
                assert_eq!(inside, keys[start..end], "{low} to {high}");
            }
        }
    }

    fn ints(values: Vec<i64>) -> Column {
        Column::new(Values::Int(values))
    }

    fn texts<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Column {
        let mut strings = Strings::new();
        values.into_iter().for_each(|text| strings.push(text.as_ref()));
        Column::new(Values::Text(strings))
    }

    /// The column with every row null that `null` names.
    fn with_nulls(column: Column, null: impl Fn(usize) -> bool) -> Column {
        let validity: Bitmap = (0..column.len()).map(|row| !null(row)).collect();
        let values = match column.values {
            Values::Int(mut values) => {
                (0..values.len()).filter(|row| null(*row)).for_each(|row| values[row] = 0);
                Values::Int(values)
            }
            Values::Float(mut values) => {
                (0..values.len()).filter(|row| null(*row)).for_each(|row| values[row] = 0.0);
                Values::Float(values)
            }
            Values::Bool(values) => {
                Values::Bool((0..values.len()).map(|row| !null(row) && values.get(row)).collect())
            }
            Values::Text(values) => Values::Text(
                (0..values.len()).map(|row| if null(row) { "" } else { values.get(row) }).collect(),
            ),
            Values::Coded { mut codes, dictionary } => {
                (0..codes.len()).filter(|row| null(*row)).for_each(|row| codes[row] = 0);
                Values::Coded { codes, dictionary }
            }
        };
        Column::with_validity(values, validity)
    }

    /// Compares a chunk with the worked example of that name in the format specification:
    /// eight bytes a line, remarks behind a `#`.
    pub(super) fn assert_example(name: &str, chunk: &[u8]) {
        let spec = include_str!("../../format-spec/5-encodings.md");
        let (_, after) = spec.split_once(&format!("Example `{name}`")).unwrap_or_default();
        let block = after.split("```").nth(1).unwrap_or_default();
        let lines = block.lines().skip(1).map(|line| line.split('#').next().unwrap_or_default());
        let stated: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
        let actual: Vec<String> = chunk.chunks(8).map(|bytes| hex(bytes).join(" ")).collect();
        assert_eq!(stated, actual, "{name} is\n{}", actual.join("\n"));
    }

    #[test]
    fn examples_of_the_spec() {
        let append = |column: &Column| chunk_of(column, TextScope::Local, Effort::Append);
        assert_example("CONSTANT", &append(&ints(vec![-2; 5])));
        assert_example("LANES", &append(&ints(vec![1000, 1003, 1001])));
        let nulls = with_nulls(ints(vec![1000, 0, 1500]), |row| row == 1);
        assert_example("LANES with a null", &append(&nulls));
        let dense = with_nulls(ints(vec![0, 0, 300]), |row| row < 2);
        assert_example("dense", &append(&dense));
        let bits = Column::new(Values::Bool([true, false, true].into_iter().collect()));
        assert_example("BITS", &append(&bits));
        let archive =
            |column: &Column| chunk_of(column, TextScope::Local, Effort::Archive { level: 6 });
        let bits = Column::new(Values::Bool((0..1024).map(|row| row % 2 == 0).collect()));
        assert_example("BIT BYTES", &archive(&bits));
        let sevens = with_nulls(ints(vec![7; 1024]), |row| row % 2 == 1);
        assert_example("packed validity", &archive(&sevens));
        assert_example("RAW", &append(&Column::new(Values::Float(vec![1.5, -0.0]))));
        let mut out = Vec::new();
        let values: Vec<f64> = vec![0.5, 1.25, -0.0, 3.0, 0.75, 1.0, 2.0, 2.5];
        floats::put_decimal(&values, &Shape::plain(8), Effort::Seal, &mut out).unwrap();
        same(
            &Column::new(Values::Float(values)),
            &Chunk::parse(&out, ColumnType::Float).unwrap().decode(None).unwrap(),
        );
        assert_example("DECIMAL", &out);
        let mut out = Vec::new();
        floats::put_patterns(&[1.5, 2.5], &Shape::plain(2), Effort::Append, &mut out).unwrap();
        assert_example("PATTERNS", &out);
    }

    #[test]
    fn text_examples_of_the_spec() {
        let append = |column: &Column, scope| chunk_of(column, scope, Effort::Append);
        let dictionary: Arc<Strings> = Arc::new(["cpu", "rss"].into_iter().collect());
        let coded = Column::new(Values::Coded { codes: vec![1, 0, 1], dictionary });
        assert_example("CODES", &append(&coded, TextScope::Segment));
        assert_example("DICTIONARY", &append(&coded, TextScope::Local));
        let plain = with_nulls(texts(["ab", "", "cde"]), |row| row == 1);
        assert_example("PLAIN with a null", &append(&plain, TextScope::Local));
        let ids = texts(["task_007", "task_008", "idle"]);
        let Values::Text(strings) = &ids.values else { unreachable!() };
        let (shape, mut out) = (Shape::plain(3), Vec::new());
        let stored = text::Stored::new(strings, &shape).unwrap();
        numbered::put(&stored, &shape, Effort::Seal, &mut out).unwrap();
        same(&ids, &Chunk::parse(&out, ColumnType::Text).unwrap().decode(None).unwrap());
        assert_example("NUMBERED", &out);
        let uuids = texts(["00112233-4455-6677-8899-aabbccddeeff"]);
        assert_example("UUID", &chunk_of(&uuids, TextScope::Local, Effort::Seal));
    }

    /// A cheap spread of numbers.
    pub(super) fn mix(index: usize) -> u64 {
        let mixed = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 7
    }

    fn uuid_text(index: usize) -> String {
        uuid::Uuid::from_u64_pair(mix(index), mix(index + 7)).hyphenated().to_string()
    }

    /// One column per encoding, and the tag that sealing gives it.
    fn samples(rows: usize) -> Vec<(u8, Column)> {
        let each = || 0..rows;
        let int = |value: &dyn Fn(usize) -> i64| ints(each().map(value).collect());
        let entries: Arc<Strings> = Arc::new(["ab", "c", "", "d\u{e9}"].into_iter().collect());
        let float =
            |value: &dyn Fn(usize) -> f64| Column::new(Values::Float(each().map(value).collect()));
        let small = |index: usize, below: u64| (mix(index) % below) as i64;
        vec![
            (tag::CONSTANT, int(&|_| -5)),
            (tag::LANES, int(&|i| 1_000_000 + small(i, 250))),
            (tag::PACKED, int(&|i| -1_000 * small(i, 1500) - 3)),
            (tag::PATCHED, int(&|i| if i % 50 == 7 { i64::MAX } else { small(i, 60_000) })),
            (tag::RUNS, int(&|i| (i / 40) as i64 * 7919 % 1009)),
            (tag::DELTA, int(&|i| i as i64 * 1_000_000 + small(i, 200) * 1000)),
            (tag::CONSTANT, Column::new(Values::Bool(each().map(|_| true).collect()))),
            (tag::BITS, Column::new(Values::Bool(each().map(|i| i % 3 == 0).collect()))),
            (tag::FLOAT_CONSTANT, float(&|_| -0.0)),
            (tag::FLOAT_RAW, float(&|i| f64::from_bits(mix(i)))),
            (
                tag::FLOAT_DECIMAL,
                float(&|i| if i % 40 == 9 { -0.0 } else { small(i, 9000) as f64 / 100.0 }),
            ),
            (
                tag::TEXT_DICTIONARY,
                Column::new(Values::Coded {
                    codes: each().map(|i| (mix(i) % 4) as u32).collect(),
                    dictionary: entries,
                }),
            ),
            (tag::TEXT_DICTIONARY, texts(each().map(|i| format!("x{}\u{0}\u{e9}", mix(i) % 9)))),
            (
                tag::TEXT_PLAIN,
                texts(each().map(|i| {
                    let letters = (0..7).map(|at| char::from(33 + (mix(i * 9 + at) % 90) as u8));
                    letters.collect::<String>() + "\u{0}"
                })),
            ),
            (tag::TEXT_NUMBERED, texts(each().map(|i| format!("task_{:07}", i + 90)))),
            (tag::TEXT_UUID, texts(each().map(uuid_text))),
            (
                tag::TEXT_ZSTD,
                texts(each().map(|i| {
                    format!(
                        "{{\"model\":\"opus\",\"n\":{},\"region\":\"eu-west\"}}",
                        mix(i) % 999_999
                    )
                })),
            ),
        ]
    }

    #[test]
    fn sealing_chooses_as_expected_and_everything_comes_back() {
        for (expected, column) in samples(3000) {
            let [_, sealed, _] = check(&column);
            assert_eq!(sealed, expected, "of {:?}", column.values.len());
        }
    }

    #[test]
    fn every_length_comes_back() {
        for rows in [0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 255, 256, 257] {
            for (_, column) in samples(rows) {
                check(&column);
            }
        }
    }

    #[test]
    fn blocks_around_64_ki_rows_come_back() {
        for rows in [65_535, 65_536, 65_537] {
            for (_, column) in samples(rows) {
                check(&column);
            }
        }
    }

    #[test]
    fn nulls_of_every_share_come_back() {
        for rows in [1, 8, 9, 100, 1000] {
            for (_, column) in samples(rows) {
                check(&with_nulls(column.clone(), |_| true));
                check(&with_nulls(column.clone(), |row| row % 10 == 0));
                check(&with_nulls(column.clone(), |row| row % 10 != 3));
                check(&with_nulls(column, |row| row == rows - 1));
            }
        }
    }

    #[test]
    fn nulls_do_not_spoil_base_and_width() {
        let values = (0..1000).map(|i| 1_000_000 + i % 200).collect();
        let column = with_nulls(ints(values), |row| row % 7 == 0);
        for effort in [Effort::Append, Effort::Seal] {
            let bytes = chunk_of(&column, TextScope::Local, effort);
            let chunk = Chunk::parse(&bytes, ColumnType::Int).unwrap();
            assert_eq!(chunk.encoding, tag::LANES);
            let (frame, lanes) = chunk.body.split_at(24);
            assert_eq!(frame[..8], 1_000_000i64.to_le_bytes());
            assert_eq!((frame[16], lanes.len()), (1, 1000));
            assert!((0..1000).step_by(7).all(|row| lanes[row] == 0));
        }
    }

    #[test]
    fn mostly_null_metadata_is_small() {
        let text =
            |i: usize| format!("{{\"model\":\"m{}\",\"trace\":{}}}", i % 4, mix(i) % 100_000);
        let column = with_nulls(texts((0..65_536).map(text)), |row| row % 10 != 0);
        let bytes = chunk_of(&column, TextScope::Local, Effort::Seal);
        assert!(bytes.len() < 40_000, "{}", bytes.len());
    }

    #[test]
    fn extremes_come_back() {
        let all = vec![i64::MIN, i64::MAX, 0, -1, 1, i64::MIN + 1, i64::MAX - 1];
        check(&ints(all.clone()));
        check(&ints(all.iter().cycle().take(500).copied().collect()));
        check(&ints((0..200).map(|i| if i % 2 == 0 { i64::MIN } else { i64::MAX }).collect()));
        check(&ints((0..200).map(|i| i64::MIN.wrapping_add(i * (i64::MAX / 200))).collect()));
        check(&ints((0..200).map(|i| (i - 100) << 40).collect()));
        let floats = [f64::MIN, f64::MAX, 0.0, -0.0, f64::MIN_POSITIVE, 5e-324, 1e18, 0.1, 1e300];
        check(&Column::new(Values::Float(floats.to_vec())));
        check(&Column::new(Values::Float(vec![f64::NAN, f64::INFINITY, 1.5, 2.5, 3.5])));
        check(&texts([
            "",
            "0",
            "00",
            "\u{0}",
            "\u{1F600}9",
            "999999999999999999",
            "9".repeat(40).as_str(),
        ]));
        check(&texts([
            "a1",
            "a01",
            "a001",
            "a1",
            "a2",
            "a999999999999999999",
            "a1000000000000000000",
        ]));
    }

    #[test]
    fn codes_of_a_segment_dictionary() {
        let dictionary: Arc<Strings> = Arc::new(["a", "bb", "ccc"].into_iter().collect());
        let codes = vec![2, 0, 1, 1, 2, 2, 0];
        let column = Column::new(Values::Coded { codes, dictionary: Arc::clone(&dictionary) });
        for effort in EFFORTS {
            let bytes = chunk_of(&column, TextScope::Segment, effort);
            let chunk = Chunk::parse(&bytes, ColumnType::Dimension).unwrap();
            assert_eq!(chunk.decode(Some(&dictionary)).unwrap(), column);
            assert!(chunk.decode(None).is_err());
            let short = Arc::new(["a", "bb"].into_iter().collect());
            assert!(chunk.decode(Some(&short)).is_err());
            assert_eq!(chunk.encoding, tag::TEXT_CODES);
        }
    }

    #[test]
    fn a_local_dictionary_has_the_strings_used() {
        let dictionary: Arc<Strings> = Arc::new(["a", "bb", "ccc", "d"].into_iter().collect());
        let column = Column::new(Values::Coded { codes: vec![3, 1, 3], dictionary });
        check(&column);
        let bytes = chunk_of(&column, TextScope::Local, Effort::Append);
        let chunk = Chunk::parse(&bytes, ColumnType::Dimension).unwrap();
        let kept = text::codes(&chunk).unwrap().unwrap().dictionary().unwrap().unwrap();
        let mut kept: Vec<&str> = kept.iter().collect();
        kept.sort_unstable();
        assert_eq!(kept, ["bb", "d"]);
        // Few rows of a large dictionary, and many of a small one, are coded on two ways.
        let dictionary: Arc<Strings> = Arc::new(["a", "bb", "ccc", "d"].into_iter().collect());
        check(&Column::new(Values::Coded { codes: vec![3, 1, 3, 1, 0, 0], dictionary }));
    }

    #[test]
    fn numbered_chunks_exclude_other_strings() {
        let column = texts((100..5000).map(|i| format!("task_{i:07}")));
        let bytes = chunk_of(&column, TextScope::Local, Effort::Seal);
        let chunk = Chunk::parse(&bytes, ColumnType::Text).unwrap();
        assert!(chunk.might_contain("task_0000100"));
        for other in ["task_0000099", "task_0005000", "task_100", "job_0000100", "task_", ""] {
            assert!(!chunk.might_contain(other), "{other}");
        }
    }

    #[test]
    fn limits_are_refused_when_written() {
        let mut out = Vec::new();
        let column = ints(vec![1; FRAME_ROWS_MAX + 1]);
        assert!(encode(&column, TextScope::Local, Effort::Append, &mut out).is_err());
        let column = texts(["x".repeat(TEXT_RAW_BYTES_MAX + 1)]);
        assert!(encode(&column, TextScope::Local, Effort::Append, &mut out).is_err());
    }

    #[test]
    fn a_small_chunk_may_claim_many_rows_but_not_too_many() {
        let mut bytes = chunk_of(&ints(vec![7; 9]), TextScope::Local, Effort::Append);
        bytes[4..8].copy_from_slice(&(1u32 << 20).to_le_bytes());
        let chunk = Chunk::parse(&bytes, ColumnType::Int).unwrap();
        assert_eq!(chunk.decode(None).unwrap().len(), 1 << 20);
        bytes[4..8].copy_from_slice(&((1u32 << 20) + 1).to_le_bytes());
        assert!(Chunk::parse(&bytes, ColumnType::Int).is_err());
    }

    #[test]
    fn a_piece_of_compressed_text_is_read_without_the_others() {
        let (_, column) = samples(3000).pop().unwrap();
        let bytes = chunk_of(&column, TextScope::Local, Effort::Seal);
        let body = &bytes[HEADER_BYTES..];
        let pieces = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
        assert!((10..30).contains(&pieces), "{pieces}");
        let lengths = Chunk::read(&mut Reader::new(&body[8..], "5.4"), ColumnType::Int, 1).unwrap();
        let records = HEADER_BYTES + 8 + lengths.len();
        let frames = records + pieces * layout::PIECE_BYTES;
        let first = u32::from_le_bytes(bytes[records..records + 4].try_into().unwrap());
        let some = |bytes: &[u8], rows: &[u32]| {
            let chunk = Chunk::parse(bytes, ColumnType::Text)?;
            assert!(chunk.decode(None).is_err());
            chunk.decode_some(&Selection::of_rows(rows.to_vec()), None)
        };

        // One frame is bad.
        let mut bad = bytes.clone();
        bad[frames] ^= 1;
        assert!(some(&bad, &[first - 1, first]).is_err());
        let rows = [first, first + 2, 2000, 2999];
        assert_eq!(some(&bad, &rows).unwrap(), column.gather(&rows));

        // There is more text than the chunk says, which would be its bound.
        let mut bad = bytes.clone();
        bad[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&10_000u32.to_le_bytes());
        assert_eq!(some(&bad, &[0, 2]).unwrap(), column.gather(&[0, 2]));
        assert!(some(&bad, &[0, first]).is_err());

        // The pieces do not share the strings, or the bytes, among them.
        for (at, number) in [(records, 0), (records, first + 1), (records + 4, 1)] {
            let mut bad = bytes.clone();
            bad[at..at + 4].copy_from_slice(&number.to_le_bytes());
            assert!(some(&bad, &[0]).is_err(), "{number} at {at}");
        }
        let mut bad = bytes.clone();
        let moved =
            first + u32::from_le_bytes(bytes[records + 8..records + 12].try_into().unwrap());
        bad[records..records + 4].copy_from_slice(&(first - 1).to_le_bytes());
        bad[records + 8..records + 12].copy_from_slice(&(moved - first + 1).to_le_bytes());
        assert!(some(&bad, &[0]).is_err(), "a frame has other strings than its record says");
        assert_eq!(some(&bad, &[2999]).unwrap(), column.gather(&[2999]));
    }

    #[test]
    fn short_templates_do_not_become_gigabytes() {
        // One long prefix and a constant template for a million rows.
        let strings: Strings = [("p".repeat(60_000) + "1").as_str()].into_iter().collect();
        let mut bytes = Vec::new();
        let shape = Shape::plain(1);
        let stored = text::Stored::new(&strings, &shape).unwrap();
        assert!(numbered::put(&stored, &shape, Effort::Seal, &mut bytes).unwrap().is_some());
        let constant = chunk_of(&ints(vec![1; 1 << 20]), TextScope::Local, Effort::Seal);
        let table = HEADER_BYTES + 8 + 24 + 60_000;
        let mut codes = constant.clone();
        codes[16] = 0;
        bytes.truncate(table);
        bytes.extend([codes, constant].concat());
        let body = u32::try_from(bytes.len() - HEADER_BYTES).unwrap();
        bytes[4..8].copy_from_slice(&(1u32 << 20).to_le_bytes());
        bytes[12..16].copy_from_slice(&body.to_le_bytes());
        let error = Chunk::parse(&bytes, ColumnType::Text).unwrap().decode(None).unwrap_err();
        assert!(error.message().contains("out of its range"), "{error}");
    }

    /// Reads hostile bytes in every way: any answer will do, but there must be one.
    fn read_anyhow(bytes: &[u8], kind: ColumnType, segment: &Arc<Strings>) {
        let Ok(chunk) = Chunk::parse(bytes, kind) else { return };
        let _ = chunk.might_contain("task_0000123");
        if let Ok(layout) = Layout::of(&chunk, bytes, Some(segment))
            && let Ok(viewed) = layout.view(bytes).to_column()
        {
            same(&viewed, &chunk.decode(Some(segment)).unwrap());
            let view = layout.view(bytes);
            let (ints, floats) = (view.ints(), view.floats());
            let _ = (ints.map(|ints| (ints.sum(), ints.range())), floats.map(|all| all.sum()));
            (0..view.len().min(70)).for_each(|row| drop(view.text(row)));
        }
        if let Ok(column) = chunk.decode(Some(segment)) {
            assert_eq!(column.len(), chunk.rows());
            assert_eq!(column.null_count(), chunk.null_count());
            if let Values::Coded { codes, dictionary } = &column.values {
                let all_null = column.null_count() == column.len();
                let known = codes.iter().all(|code| (*code as usize) < dictionary.len());
                assert!(known || all_null);
            }
        }
    }

    #[test]
    fn changed_and_cut_chunks_never_panic() {
        let segment: Arc<Strings> = Arc::new(["a", "b"].into_iter().collect());
        for (_, column) in samples(40) {
            for column in [with_nulls(column.clone(), |row| row % 5 == 1), column] {
                for effort in EFFORTS {
                    let bytes = chunk_of(&column, TextScope::Local, effort);
                    mutate(&bytes, kind_of(&column), &segment);
                }
            }
        }
    }

    fn mutate(bytes: &[u8], kind: ColumnType, segment: &Arc<Strings>) {
        (0..bytes.len()).for_each(|end| {
            assert!(Chunk::parse(&bytes[..end], kind).is_err(), "cut at {end}");
        });
        for at in 0..bytes.len() {
            let old = bytes[at];
            for new in [0, 1, 7, 0x7F, 0x80, 0xFF, old ^ 1, old ^ 0x10, old.wrapping_add(1)] {
                let mut changed = bytes.to_vec();
                changed[at] = new;
                read_anyhow(&changed, kind, segment);
            }
        }
    }

    #[test]
    fn a_chunk_of_another_type_is_refused() {
        for (_, column) in samples(20) {
            let bytes = chunk_of(&column, TextScope::Local, Effort::Seal);
            let other = match kind_of(&column) {
                ColumnType::Float => ColumnType::Int,
                _ => ColumnType::Float,
            };
            assert!(Chunk::parse(&bytes, other).is_err());
        }
    }

    #[test]
    fn sub_chunks_nest_only_so_deep() {
        // Deltas of deltas of deltas: each level is valid, eight of them are not.
        let mut bytes = chunk_of(&ints(vec![1, 2]), TextScope::Local, Effort::Append);
        for level in 1..=8u32 {
            let mut outer = vec![tag::DELTA, 0, 0, 0];
            outer.extend((level + 2).to_le_bytes());
            outer.extend(0u32.to_le_bytes());
            outer.extend(u32::try_from(bytes.len() + 8).unwrap().to_le_bytes());
            outer.extend(0i64.to_le_bytes());
            outer.extend(&bytes);
            bytes = outer;
            let chunk = Chunk::parse(&bytes, ColumnType::Int).unwrap();
            assert_eq!(chunk.decode(None).is_ok(), level <= u32::from(NEST_MAX));
        }
    }

    fn int_column() -> impl Strategy<Value = Vec<i64>> {
        let edges = prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -3i64..3];
        prop_oneof![
            prop::collection::vec(edges, 0..300),
            (any::<i64>(), 1i64..1 << 40, prop::collection::vec(0i64..5000, 0..300)).prop_map(
                |(base, scale, lanes)| {
                    let value = |lane: i64| base.wrapping_add(lane.wrapping_mul(scale));
                    lanes.into_iter().map(value).collect()
                }
            ),
            prop::collection::vec((any::<i16>(), 1usize..30), 0..30).prop_map(|runs| {
                runs.into_iter().flat_map(|(v, n)| std::iter::repeat_n(i64::from(v), n)).collect()
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 200,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_integers_come_back(values in int_column(), nulls in any::<u64>()) {
            let column = ints(values);
            check(&with_nulls(column.clone(), |row| nulls >> (row % 64) & 1 == 1));
            check(&column);
        }

        #[test]
        fn any_floats_come_back(
            values in prop::collection::vec(prop_oneof![
                any::<u64>().prop_map(f64::from_bits),
                (-100_000i32..100_000, 0i32..5).prop_map(|(n, e)| f64::from(n) / 10f64.powi(e)),
            ], 0..200),
            nulls in any::<u64>(),
        ) {
            let column = Column::new(Values::Float(values));
            check(&with_nulls(column.clone(), |row| nulls >> (row % 64) & 1 == 1));
            check(&column);
        }

        #[test]
        fn any_text_comes_back(
            values in prop::collection::vec(
                prop_oneof!["\\PC{0,12}", "[a-c]{0,2}[0-9]{0,20}", "task_[0-9]{3}"], 0..200),
            nulls in any::<u64>(),
        ) {
            let column = texts(&values);
            check(&with_nulls(column.clone(), |row| nulls >> (row % 64) & 1 == 1));
            check(&column);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            encoding in 1u8..39,
            rows in 0u32..70,
            body in prop::collection::vec(any::<u8>(), 0..160),
        ) {
            let mut bytes = vec![encoding, 0, 0, 0];
            bytes.extend(rows.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            bytes.extend(&body);
            bytes.resize(bytes.len() + padding(body.len()), 0);
            let segment = Arc::new(Strings::new());
            for kind in [ColumnType::Int, ColumnType::Bool, ColumnType::Float, ColumnType::Text] {
                read_anyhow(&bytes, kind, &segment);
            }
        }
    }
}
