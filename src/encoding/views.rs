//! Chunks read in place: lanes, bits and codes as they lie there, and what had to be
//! unpacked.
//!
//! Owns `Layout`, which says where in a chunk its values lie, and the views that read them.
//! A layout is checked as decoding is: what it is made of without an error, its views read
//! without one. Only text that must be decompressed or spelled out waits until it is asked
//! for. Leaves alone who holds the bytes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use zerocopy::FromBytes;
use zerocopy::little_endian::F64;

use super::Chunk;
use super::bytes::widen;
use super::floats::{self, to_float};
use super::ints::{self, Lanes, SLICE, put_apart};
use super::kernels::{self, value_of_word};
use super::layout::tag;
use super::numbered::{self, Pattern};
use super::text::{self, Codes};
use crate::column::{Bitmap, Column, Strings, Values};
use crate::error::{Error, Result};
use crate::schema::ColumnType;

/// Where the values of a chunk lie, or what they are where they had to be unpacked.
#[derive(Debug)]
pub(crate) struct Layout {
    rows: usize,
    validity: Option<Bitmap>,
    values: Held,
}

#[derive(Debug)]
enum Held {
    Int(HeldInts),
    Float(HeldFloats),
    Bool(Bitmap),
    Coded { codes: HeldInts, dictionary: Arc<Strings> },
    Text(HeldTexts),
}

/// Integers; places are counted from the start of the chunk.
#[derive(Debug)]
enum HeldInts {
    Same(i64),
    Lanes(HeldLanes),
    /// The value of every row whose number is a multiple of [`SLICE`], and lanes of what is
    /// added from each row to the next.
    Deltas {
        starts: Vec<i64>,
        deltas: HeldLanes,
    },
    Plain(Vec<i64>),
    Narrow(Vec<u32>),
}

#[derive(Debug)]
struct HeldLanes {
    place: Range<usize>,
    width: u8,
    base: i64,
    scale: i64,
    apart: Vec<(u32, i64)>,
}

#[derive(Debug)]
enum HeldFloats {
    Same(f64),
    Raw(Range<usize>),
    Decimal { integers: HeldInts, power: f64, apart: Vec<(u32, f64)> },
    Plain(Vec<f64>),
}

#[derive(Debug)]
enum HeldTexts {
    Numbered {
        patterns: Vec<Pattern>,
        codes: HeldInts,
        numbers: HeldInts,
        bytes: u64,
    },
    /// UTF-8, and where each text ends in it.
    Plain {
        place: Range<usize>,
        ends: Vec<u32>,
    },
    /// To be decoded when it is asked for.
    Later {
        kind: ColumnType,
        bytes: u64,
        texts: OnceLock<Result<Strings>>,
    },
    Strings(Strings),
}

/// Where in a chunk a part of it lies.
fn place_of(part: &[u8], chunk: &[u8]) -> Result<Range<usize>> {
    if part.is_empty() {
        return Ok(0..0);
    }
    let start = part.as_ptr().addr().wrapping_sub(chunk.as_ptr().addr());
    let end = start.checked_add(part.len()).filter(|end| *end <= chunk.len());
    end.map(|end| start..end).ok_or_else(|| Error::invalid("a part of another chunk"))
}

impl Layout {
    /// Of a chunk, whose bytes are `bytes`; codes refer to `segment`, unless the chunk has a
    /// dictionary of its own.
    ///
    /// # Errors
    ///
    /// As [`Chunk::decode`].
    pub(crate) fn of(
        chunk: &Chunk<'_>,
        bytes: &[u8],
        segment: Option<&Arc<Strings>>,
    ) -> Result<Self> {
        if chunk.nulls > 0 && !(chunk.kind.is_text() && chunk.dense) {
            // Null rows hold zeros: their values have to be put in between.
            return chunk.decode(segment).map(Self::of_column);
        }
        let values = match chunk.kind {
            ColumnType::Timestamp | ColumnType::Int => Held::Int(HeldInts::of(chunk, bytes)?),
            ColumnType::Float => Held::Float(HeldFloats::of(chunk, bytes)?),
            ColumnType::Bool => return chunk.decode(None).map(Self::of_column),
            ColumnType::Dimension | ColumnType::Text | ColumnType::Json => {
                match text::codes(chunk)? {
                    Some(_) if chunk.nulls > 0 => {
                        return chunk.decode(segment).map(Self::of_column);
                    }
                    Some(codes) => Held::coded(&codes, bytes, segment)?,
                    None => Held::Text(HeldTexts::of(chunk, bytes)?),
                }
            }
        };
        Ok(Self { rows: chunk.rows, validity: chunk.validity()?, values })
    }

    /// Of values in memory.
    pub(crate) fn of_column(column: Column) -> Self {
        let rows = column.len();
        let values = match column.values {
            Values::Int(values) => Held::Int(HeldInts::Plain(values)),
            Values::Float(values) => Held::Float(HeldFloats::Plain(values)),
            Values::Bool(values) => Held::Bool(values),
            Values::Text(values) => Held::Text(HeldTexts::Strings(values)),
            Values::Coded { codes, dictionary } => {
                Held::Coded { codes: HeldInts::Narrow(codes), dictionary }
            }
        };
        Self { rows, validity: column.validity, values }
    }

    /// The view of the same bytes.
    pub(crate) fn view<'a>(&'a self, bytes: &'a [u8]) -> ColumnView<'a> {
        let rows = self.rows;
        let values = match &self.values {
            Held::Int(ints) => ViewValues::Int(ints.view(bytes, rows)),
            Held::Float(floats) => ViewValues::Float(floats.view(bytes, rows)),
            Held::Bool(bits) => ViewValues::Bool(bits),
            Held::Coded { codes, dictionary } => {
                ViewValues::Coded { codes: codes.view(bytes, rows), dictionary }
            }
            Held::Text(texts) => ViewValues::Text(ViewTexts { held: texts, bytes, rows }),
        };
        ColumnView { values, validity: self.validity.as_ref() }
    }
}

impl Held {
    fn coded(codes: &Codes<'_>, bytes: &[u8], segment: Option<&Arc<Strings>>) -> Result<Self> {
        let dictionary = text::dictionary_of(codes, segment)?;
        let held = HeldInts::of_narrow(&codes.codes, bytes)?;
        let rows = codes.codes.rows;
        if let Some((least, most)) = held.view(bytes, rows).range()
            && (least < 0 || usize::try_from(most).is_ok_and(|most| most >= dictionary.len()))
        {
            return Err(text::wrong_code(most, &dictionary));
        }
        Ok(Self::Coded { codes: held, dictionary })
    }
}

impl HeldInts {
    fn of(chunk: &Chunk<'_>, bytes: &[u8]) -> Result<Self> {
        match Self::in_place(chunk, bytes)? {
            Some(held) => Ok(held),
            None => ints::decode(chunk).map(Self::Plain),
        }
    }

    /// Of integers that are codes or refused.
    fn of_narrow(chunk: &Chunk<'_>, bytes: &[u8]) -> Result<Self> {
        match Self::in_place(chunk, bytes)? {
            Some(held) => Ok(held),
            None => ints::decode(chunk).map(Self::Narrow),
        }
    }

    fn in_place(chunk: &Chunk<'_>, bytes: &[u8]) -> Result<Option<Self>> {
        if chunk.encoding == tag::CONSTANT {
            return ints::read_constant(chunk).map(Self::Same).map(Some);
        }
        if chunk.encoding == tag::DELTA {
            let (first, deltas) = ints::read_deltas(chunk)?;
            let Some((deltas, _)) = HeldLanes::of(&deltas, bytes)? else { return Ok(None) };
            let starts = deltas.view(bytes).starts(first, chunk.stored());
            return Ok(Some(Self::Deltas { starts, deltas }));
        }
        // Values that wrap are not in the order of their lanes, nor is their sum.
        let held = HeldLanes::of(chunk, bytes)?.filter(|(_, reaches)| *reaches);
        Ok(held.map(|(lanes, _)| Self::Lanes(lanes)))
    }

    fn view<'a>(&'a self, bytes: &'a [u8], rows: usize) -> ViewInts<'a> {
        ViewInts(match self {
            Self::Same(value) => Ints::Same(*value, rows),
            Self::Plain(values) => Ints::Plain(values),
            Self::Narrow(values) => Ints::Narrow(values),
            Self::Lanes(lanes) => Ints::Lanes(lanes.view(bytes)),
            Self::Deltas { starts, deltas } => {
                Ints::Deltas { starts, deltas: deltas.view(bytes), rows }
            }
        })
    }
}

impl HeldLanes {
    /// Of a chunk of lanes, with exceptions or without, and whether their values do not
    /// wrap; `None` of another encoding.
    fn of(chunk: &Chunk<'_>, bytes: &[u8]) -> Result<Option<(Self, bool)>> {
        let (lanes, apart) = match chunk.encoding {
            tag::LANES => (*chunk, Vec::new()),
            tag::PATCHED => {
                let patches = ints::read_patches(chunk)?;
                (patches.lanes, patches.apart())
            }
            _ => return Ok(None),
        };
        let (base, scale, width, reader) = ints::read_frame(&lanes)?;
        ints::read_lanes(&lanes)?;
        let place = place_of(reader.rest(), bytes)?;
        let reaches = ints::reach(&lanes)?.is_some();
        Ok(Some((Self { place, width, base, scale, apart }, reaches)))
    }

    fn view<'a>(&'a self, bytes: &'a [u8]) -> ViewLanes<'a> {
        let raw = bytes.get(self.place.clone()).unwrap_or_default();
        let lanes = Lanes::parse(raw, self.width).unwrap_or(Lanes::U8(&[]));
        ViewLanes { raw, lanes, base: self.base, scale: self.scale, apart: &self.apart }
    }
}

#[derive(Clone, Copy, Debug)]
struct ViewLanes<'a> {
    raw: &'a [u8],
    lanes: Lanes<'a>,
    base: i64,
    scale: i64,
    apart: &'a [(u32, i64)],
}

impl ViewLanes<'_> {
    fn get(&self, row: usize) -> Option<i64> {
        let lane = self.lanes.get(row)?;
        match self.apart.binary_search_by_key(&row, |(at, _)| widen(*at)) {
            Ok(place) => self.apart.get(place).map(|(_, value)| *value),
            Err(_) => Some(ints::value_of(lane, self.base, self.scale)),
        }
    }

    /// Writes the values of the rows from `start` on.
    fn fill(&self, start: usize, room: &mut [i64]) {
        let end = start + room.len();
        self.lanes.slice(start..end).decode_into(self.base, self.scale, room);
        put_apart(self.apart, start, room);
    }

    /// Every [`SLICE`]th of as many values as `rows`, of which these are the deltas.
    fn starts(&self, first: i64, rows: usize) -> Vec<i64> {
        let mut value = first;
        let mut starts = vec![first];
        for start in (SLICE..rows).step_by(SLICE) {
            value = value.wrapping_add(self.sum_deltas(start - SLICE..start));
            starts.push(value);
        }
        starts
    }

    fn sum_deltas(&self, rows: Range<usize>) -> i64 {
        self.lanes.sum_deltas((self.base, self.scale), self.apart, rows)
    }
}

impl HeldFloats {
    fn of(chunk: &Chunk<'_>, bytes: &[u8]) -> Result<Self> {
        Ok(match chunk.encoding {
            tag::FLOAT_RAW => Self::Raw(place_of(floats::raw_bytes(chunk)?, bytes)?),
            tag::FLOAT_DECIMAL => {
                let decimal = floats::Decimal::read(chunk)?;
                let apart = decimal.apart.iter().map(|value| value.get());
                Self::Decimal {
                    integers: HeldInts::of(&decimal.integers, bytes)?,
                    power: decimal.power,
                    apart: decimal.positions.iter().copied().zip(apart).collect(),
                }
            }
            tag::FLOAT_PATTERNS => Self::Plain(floats::decode(chunk)?),
            _ => Self::Same(floats::read_constant(chunk)?),
        })
    }

    fn view<'a>(&'a self, bytes: &'a [u8], rows: usize) -> ViewFloats<'a> {
        ViewFloats(match self {
            Self::Same(value) => Floats::Same(*value, rows),
            Self::Plain(values) => Floats::Plain(values),
            Self::Raw(place) => {
                let raw = bytes.get(place.clone()).unwrap_or_default();
                Floats::Raw(<[F64]>::ref_from_bytes(raw).unwrap_or_default())
            }
            Self::Decimal { integers, power, apart } => {
                Floats::Decimal { integers: integers.view(bytes, rows), power: *power, apart }
            }
        })
    }
}

impl HeldTexts {
    fn of(chunk: &Chunk<'_>, bytes: &[u8]) -> Result<Self> {
        match chunk.encoding {
            tag::TEXT_PLAIN => {
                let (text, ends) = text::read_plain(chunk)?;
                let place = place_of(text, bytes)?;
                let ends = match chunk.validity()? {
                    Some(validity) => text::place_ends(&ends, &validity),
                    None => ends,
                };
                Ok(Self::Plain { place, ends })
            }
            tag::TEXT_NUMBERED if chunk.nulls == 0 => {
                let (templates, codes, numbers) = numbered::read_parts(chunk)?;
                let rows = chunk.rows;
                let codes = HeldInts::of_narrow(&codes, bytes)?;
                let numbers = HeldInts::of(&numbers, bytes)?;
                let (of_codes, of_numbers) = (codes.view(bytes, rows), numbers.view(bytes, rows));
                let total = match of_codes.0 {
                    Ints::Same(code, _) => {
                        numbered::check_one(&templates, code, of_numbers.range(), rows)
                    }
                    _ => numbered::check_each(&templates, of_codes.iter().zip(of_numbers.iter())),
                }?;
                let patterns = numbered::patterns(&templates)?;
                Ok(Self::Numbered { patterns, codes, numbers, bytes: total })
            }
            tag::TEXT_UUID | tag::TEXT_ZSTD => Ok(Self::Later {
                kind: chunk.kind,
                bytes: text::total_bytes(chunk)?,
                texts: OnceLock::new(),
            }),
            _ => match chunk.decode(None)?.values {
                Values::Text(strings) => Ok(Self::Strings(strings)),
                _ => Err(Error::corrupt("5.4", "codes in the place of text")),
            },
        }
    }

    fn later<'a>(&'a self, bytes: &[u8]) -> Result<Option<&'a Strings>> {
        let Self::Later { kind, texts, .. } = self else { return Ok(None) };
        let decode = || match Chunk::parse(bytes, *kind)?.decode(None)?.values {
            Values::Text(strings) => Ok(strings),
            _ => Err(Error::corrupt("5.4", "codes in the place of text")),
        };
        texts.get_or_init(decode).as_ref().map(Some).map_err(Clone::clone)
    }
}

/// One column of some rows, read where it lies: what [`Column`] is, without its copy.
#[derive(Clone, Copy, Debug)]
pub struct ColumnView<'a> {
    /// One per row; a null row holds the type's zero.
    pub values: ViewValues<'a>,
    /// Which rows have a value; `None` when all have.
    pub validity: Option<&'a Bitmap>,
}

/// The values of a column, one per row.
#[derive(Clone, Copy, Debug)]
pub enum ViewValues<'a> {
    /// Timestamps and integers.
    Int(ViewInts<'a>),
    /// Floats.
    Float(ViewFloats<'a>),
    /// True or false.
    Bool(&'a Bitmap),
    /// Text.
    Text(ViewTexts<'a>),
    /// Text, as positions in a dictionary.
    Coded {
        /// One per row, each below the dictionary's length.
        codes: ViewInts<'a>,
        /// The distinct texts.
        dictionary: &'a Arc<Strings>,
    },
}

impl<'a> ColumnView<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.values {
            ViewValues::Int(values) => values.len(),
            ViewValues::Float(values) => values.len(),
            ViewValues::Bool(values) => values.len(),
            ViewValues::Text(values) => values.len(),
            ViewValues::Coded { codes, .. } => codes.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether row `index` has a value.
    pub fn is_valid(&self, index: usize) -> bool {
        self.validity.is_none_or(|validity| validity.get(index))
    }

    /// Number of rows without a value.
    pub fn null_count(&self) -> usize {
        self.validity.map_or(0, |validity| validity.len() - validity.count_ones())
    }

    /// The integers or stamps; `None` of another type.
    pub fn ints(&self) -> Option<ViewInts<'a>> {
        match self.values {
            ViewValues::Int(values) => Some(values),
            _ => None,
        }
    }

    /// The floats; `None` of another type.
    pub fn floats(&self) -> Option<ViewFloats<'a>> {
        match self.values {
            ViewValues::Float(values) => Some(values),
            _ => None,
        }
    }

    /// The integer of row `index`; `None` if null or not an integer column.
    pub fn int(&self, index: usize) -> Option<i64> {
        self.ints().filter(|_| self.is_valid(index))?.get(index)
    }

    /// The float of row `index`; `None` if null or not a float column.
    pub fn float(&self, index: usize) -> Option<f64> {
        self.floats().filter(|_| self.is_valid(index))?.get(index)
    }

    /// The boolean of row `index`; `None` if null or not a boolean column.
    pub fn bool(&self, index: usize) -> Option<bool> {
        match self.values {
            ViewValues::Bool(bits) if index < bits.len() && self.is_valid(index) => {
                Some(bits.get(index))
            }
            _ => None,
        }
    }

    /// The text of row `index`; `None` if null or not a text column. Compressed text is
    /// decompressed at the first call and kept.
    ///
    /// # Errors
    ///
    /// `Corrupt` when text that was compressed under a right checksum cannot be read.
    pub fn text(&self, index: usize) -> Result<Option<Cow<'a, str>>> {
        if !self.is_valid(index) {
            return Ok(None);
        }
        match self.values {
            ViewValues::Text(texts) => texts.get(index),
            ViewValues::Coded { codes, dictionary } => {
                let code = codes.get(index).and_then(|code| usize::try_from(code).ok());
                let code = code.filter(|code| *code < dictionary.len());
                Ok(code.map(|code| dictionary.get(code).into()))
            }
            _ => Ok(None),
        }
    }

    /// The same values in memory of their own.
    ///
    /// # Errors
    ///
    /// As [`text`](Self::text).
    pub fn to_column(&self) -> Result<Column> {
        let values = match self.values {
            ViewValues::Int(values) => Values::Int(values.to_vec()),
            ViewValues::Float(values) => Values::Float(values.to_vec()),
            ViewValues::Bool(bits) => Values::Bool(bits.clone()),
            ViewValues::Text(texts) => Values::Text(texts.to_strings()?),
            ViewValues::Coded { codes, dictionary } => {
                let code = |code| u32::try_from(code).unwrap_or_default();
                let codes = codes.iter().map(code).collect();
                Values::Coded { codes, dictionary: Arc::clone(dictionary) }
            }
        };
        Ok(Column { values, validity: self.validity.cloned() })
    }
}

/// The sum of words is 2^63 too large for each of the integers.
fn sum_of(values: &[i64]) -> i128 {
    signed(kernels::total(values)) - ((values.len() as i128) << 63)
}

/// Sums of chunks are far below the limit.
fn signed(sum: u128) -> i128 {
    sum.cast_signed()
}

/// Integers: lanes of whole bytes as they lie in the file, or unpacked ones.
#[derive(Clone, Copy, Debug)]
pub struct ViewInts<'a>(Ints<'a>);

#[derive(Clone, Copy, Debug)]
enum Ints<'a> {
    Same(i64, usize),
    Lanes(ViewLanes<'a>),
    Deltas { starts: &'a [i64], deltas: ViewLanes<'a>, rows: usize },
    Plain(&'a [i64]),
    Narrow(&'a [u32]),
}

/// Little-endian unsigned lanes as they lie in the file: the value of a row is
/// `base + lane * scale`, but for the exceptions.
#[derive(Clone, Copy, Debug)]
pub struct IntLanes<'a> {
    /// The lanes, one after the other.
    pub bytes: &'a [u8],
    /// Bytes of a lane: 1, 2, 4 or 8.
    pub width: usize,
    /// Value of lane 0.
    pub base: i64,
    /// Distance between the values of two neighbouring lanes, above 0.
    pub scale: i64,
    /// Rows, ascending, whose value is this and whose lane says nothing.
    pub exceptions: &'a [(u32, i64)],
}

impl<'a> ViewInts<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.0 {
            Ints::Same(_, rows) | Ints::Deltas { rows, .. } => *rows,
            Ints::Lanes(view) => view.lanes.len(),
            Ints::Plain(values) => values.len(),
            Ints::Narrow(values) => values.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lanes, where that is how the values lie.
    pub fn lanes(&self) -> Option<IntLanes<'a>> {
        match self.0 {
            Ints::Lanes(ViewLanes { raw, lanes, base, scale, apart }) => {
                Some(IntLanes { bytes: raw, width: lanes.width(), base, scale, exceptions: apart })
            }
            _ => None,
        }
    }

    /// The values, where they are unpacked already.
    pub fn as_slice(&self) -> Option<&'a [i64]> {
        match self.0 {
            Ints::Plain(values) => Some(values),
            _ => None,
        }
    }

    /// The value of a row; `None` past the end. For single rows, which may lie as deltas:
    /// loops over many are faster with [`for_each_slice`](Self::for_each_slice).
    pub fn get(&self, row: usize) -> Option<i64> {
        match &self.0 {
            Ints::Same(value, rows) => (row < *rows).then_some(*value),
            Ints::Plain(values) => values.get(row).copied(),
            Ints::Narrow(values) => values.get(row).map(|value| i64::from(*value)),
            Ints::Lanes(view) => view.get(row),
            Ints::Deltas { starts, deltas, rows } => {
                let start = starts.get(row / SLICE).filter(|_| row < *rows)?;
                Some(start.wrapping_add(deltas.sum_deltas(row / SLICE * SLICE..row)))
            }
        }
    }

    /// Writes the values from row `start`, a multiple of [`SLICE`], on; says how many.
    fn fill(&self, start: usize, room: &mut [i64; SLICE]) -> usize {
        let count = self.len().saturating_sub(start).min(SLICE);
        let rows = start..start + count;
        let room = &mut room[..count];
        match &self.0 {
            Ints::Same(value, _) => room.fill(*value),
            Ints::Plain(values) => room.copy_from_slice(&values[rows]),
            Ints::Narrow(values) => {
                room.iter_mut().zip(&values[rows]).for_each(|(to, value)| *to = i64::from(*value));
            }
            Ints::Lanes(view) => view.fill(start, room),
            Ints::Deltas { starts, deltas, .. } => {
                let Some((slot, rest)) = room.split_first_mut() else { return 0 };
                *slot = starts.get(start / SLICE).copied().unwrap_or_default();
                let frame = (deltas.base, deltas.scale);
                deltas.lanes.add_up(frame, deltas.apart, start, *slot, rest);
            }
        }
        count
    }

    /// Each value in turn.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + 'a {
        let (view, mut room) = (*self, [0; SLICE]);
        (0..self.len()).map(move |row| {
            if row.is_multiple_of(SLICE) {
                view.fill(row, &mut room);
            }
            room[row % SLICE]
        })
    }

    /// Hands all values to `each`, some at a time, in order: slices that stay in the
    /// cache, whatever the values are stored as.
    pub fn for_each_slice(&self, mut each: impl FnMut(&[i64])) {
        if let Ints::Plain(values) = self.0 {
            return values.chunks(SLICE).for_each(each);
        }
        let mut room = [0; SLICE];
        for start in (0..self.len()).step_by(SLICE) {
            let count = self.fill(start, &mut room);
            each(&room[..count]);
        }
    }

    /// The sum of all values; null rows add nothing.
    pub fn sum(&self) -> i128 {
        match self.0 {
            Ints::Same(value, rows) => i128::from(value) * rows as i128,
            Ints::Plain(values) => sum_of(values),
            Ints::Narrow(values) => values
                .iter()
                .fold(0u64, |sum, value| {
                    // Of at most 2^20 values below 2^32.
                    sum.wrapping_add(u64::from(*value))
                })
                .into(),
            Ints::Deltas { .. } => {
                let mut sum = 0;
                self.for_each_slice(|values| sum += sum_of(values));
                sum
            }
            Ints::Lanes(ViewLanes { lanes, base, scale, apart, .. }) => {
                let all = i128::from(base) * lanes.len() as i128;
                let all = all + signed(lanes.total()) * i128::from(scale);
                apart.iter().fold(all, |sum, (row, value)| {
                    let lane = lanes.get(widen(*row)).unwrap_or_default();
                    sum + i128::from(*value) - i128::from(ints::value_of(lane, base, scale))
                })
            }
        }
    }

    /// Least and largest value, the zeros of null rows among them; `None` without rows.
    pub fn range(&self) -> Option<(i64, i64)> {
        if let Ints::Lanes(ViewLanes { lanes, base, scale, apart: [], .. }) = self.0 {
            let (least, most) = lanes.range()?;
            return Some((ints::value_of(least, base, scale), ints::value_of(most, base, scale)));
        }
        if let Ints::Same(value, rows) = self.0 {
            return (rows > 0).then_some((value, value));
        }
        let mut range = None;
        self.for_each_slice(|values| range = join(range, range_of(values)));
        range
    }

    /// The values in memory of their own.
    pub fn to_vec(&self) -> Vec<i64> {
        match self.0 {
            Ints::Plain(values) => values.to_vec(),
            _ => {
                let mut all = Vec::with_capacity(self.len());
                self.for_each_slice(|values| all.extend_from_slice(values));
                all
            }
        }
    }
}

/// What is read, range after range, of integers that may have to be unpacked for it.
#[derive(Debug)]
pub(crate) struct IntRanges<'a> {
    view: ViewInts<'a>,
    room: [i64; SLICE],
    /// Where the unpacked values start.
    unpacked: Option<usize>,
}

impl<'a> IntRanges<'a> {
    /// Of no range yet.
    pub(crate) fn new(view: ViewInts<'a>) -> Self {
        Self { view, room: [0; SLICE], unpacked: None }
    }

    /// The sum of the values of some rows.
    pub(crate) fn sum(&mut self, rows: Range<usize>) -> i128 {
        match self.view.0 {
            Ints::Same(value, _) => i128::from(value) * rows.len() as i128,
            Ints::Plain(values) => sum_of(values.get(rows).unwrap_or_default()),
            Ints::Lanes(ViewLanes { lanes, base, scale, apart: [], .. }) => {
                let all = i128::from(base) * rows.len() as i128;
                all + signed(lanes.slice(rows).total()) * i128::from(scale)
            }
            _ => {
                let mut sum = 0;
                self.for_each_part(rows, |values| sum += sum_of(values));
                sum
            }
        }
    }

    /// Least and largest value of some rows; `None` of none.
    pub(crate) fn range(&mut self, rows: Range<usize>) -> Option<(i64, i64)> {
        match self.view.0 {
            Ints::Same(value, _) => (!rows.is_empty()).then_some((value, value)),
            Ints::Plain(values) => range_of(values.get(rows).unwrap_or_default()),
            Ints::Lanes(ViewLanes { lanes, base, scale, apart: [], .. }) => {
                let (least, most) = lanes.slice(rows).range()?;
                Some((ints::value_of(least, base, scale), ints::value_of(most, base, scale)))
            }
            _ => {
                let mut range = None;
                self.for_each_part(rows, |values| range = join(range, range_of(values)));
                range
            }
        }
    }

    /// Hands the values of some rows to `each`. Ranges that ascend unpack nothing twice.
    fn for_each_part(&mut self, rows: Range<usize>, mut each: impl FnMut(&[i64])) {
        let mut from = rows.start;
        while from < rows.end {
            let start = from / SLICE * SLICE;
            if self.unpacked != Some(start) {
                self.view.fill(start, &mut self.room);
                self.unpacked = Some(start);
            }
            let end = rows.end.min(start + SLICE);
            each(&self.room[from - start..end - start]);
            from = end;
        }
    }
}

/// Least and largest of some values; `None` of none.
fn range_of(values: &[i64]) -> Option<(i64, i64)> {
    let (least, most) = kernels::range(values)?;
    Some((value_of_word(least), value_of_word(most)))
}

/// From the lower of two least values to the higher of two largest.
pub(crate) fn join(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

/// Floats: as they lie in the file, or integers over a power of ten.
#[derive(Clone, Copy, Debug)]
pub struct ViewFloats<'a>(Floats<'a>);

#[derive(Clone, Copy, Debug)]
enum Floats<'a> {
    Same(f64, usize),
    Raw(&'a [F64]),
    Decimal { integers: ViewInts<'a>, power: f64, apart: &'a [(u32, f64)] },
    Plain(&'a [f64]),
}

/// Floats stored as decimals: the value of a row is `integer / divisor`, but for the
/// exceptions.
#[derive(Clone, Copy, Debug)]
pub struct Decimals<'a> {
    /// One per row.
    pub integers: ViewInts<'a>,
    /// A power of ten.
    pub divisor: f64,
    /// Rows, ascending, whose value is this and whose integer says nothing.
    pub exceptions: &'a [(u32, f64)],
}

impl<'a> ViewFloats<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.0 {
            Floats::Same(_, rows) => *rows,
            Floats::Raw(values) => values.len(),
            Floats::Decimal { integers, .. } => integers.len(),
            Floats::Plain(values) => values.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The decimals, where that is how the values lie.
    pub fn decimals(&self) -> Option<Decimals<'a>> {
        match self.0 {
            Floats::Decimal { integers, power, apart } => {
                Some(Decimals { integers, divisor: power, exceptions: apart })
            }
            _ => None,
        }
    }

    /// The value of a row; `None` past the end.
    pub fn get(&self, row: usize) -> Option<f64> {
        match &self.0 {
            Floats::Same(value, rows) => (row < *rows).then_some(*value),
            Floats::Raw(values) => values.get(row).map(|value| value.get()),
            Floats::Plain(values) => values.get(row).copied(),
            Floats::Decimal { integers, power, apart } => {
                let integer = integers.get(row)?;
                match apart.binary_search_by_key(&row, |(at, _)| widen(*at)) {
                    Ok(place) => apart.get(place).map(|(_, value)| *value),
                    Err(_) => Some(to_float(integer, *power)),
                }
            }
        }
    }

    /// Each value in turn.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f64> + 'a {
        let (view, mut room) = (*self, [0.0; SLICE]);
        (0..self.len()).map(move |row| {
            if row.is_multiple_of(SLICE) {
                view.fill(row, &mut room);
            }
            room[row % SLICE]
        })
    }

    /// Writes the values from row `start`, a multiple of [`SLICE`], on; says how many.
    fn fill(&self, start: usize, room: &mut [f64; SLICE]) -> usize {
        let count = self.len().saturating_sub(start).min(SLICE);
        let rows = start..start + count;
        let room = &mut room[..count];
        match &self.0 {
            Floats::Same(value, _) => room.fill(*value),
            Floats::Plain(values) => room.copy_from_slice(&values[rows]),
            Floats::Raw(values) => {
                room.iter_mut().zip(&values[rows]).for_each(|(to, value)| *to = value.get());
            }
            Floats::Decimal { integers, power, apart } => {
                let mut whole = [0; SLICE];
                integers.fill(start, &mut whole);
                let values = whole.iter().map(|integer| to_float(*integer, *power));
                room.iter_mut().zip(values).for_each(|(to, value)| *to = value);
                put_apart(apart, start, room);
            }
        }
        count
    }

    /// Hands all values to `each`, some at a time, in order.
    pub fn for_each_slice(&self, mut each: impl FnMut(&[f64])) {
        if let Floats::Plain(values) = self.0 {
            return values.chunks(SLICE).for_each(each);
        }
        let mut room = [0.0; SLICE];
        for start in (0..self.len()).step_by(SLICE) {
            let count = self.fill(start, &mut room);
            each(&room[..count]);
        }
    }

    /// The sum of all values, added in no promised order: decimals are added as integers
    /// and divided once, which rounds less. Null rows add nothing.
    pub fn sum(&self) -> f64 {
        if let Floats::Decimal { integers, power, apart: [] } = self.0 {
            return integers.sum() as f64 / power;
        }
        let mut sums = [0.0; 8];
        self.for_each_slice(|values| {
            let (eights, rest) = values.as_chunks::<8>();
            for eight in eights {
                sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += value);
            }
            sums.iter_mut().zip(rest).for_each(|(sum, value)| *sum += value);
        });
        sums.iter().sum()
    }

    /// The values in memory of their own.
    pub fn to_vec(&self) -> Vec<f64> {
        let mut all = Vec::with_capacity(self.len());
        self.for_each_slice(|values| all.extend_from_slice(values));
        all
    }
}

/// Texts: as they lie in the file, as template and number, or still compressed.
#[derive(Clone, Copy, Debug)]
pub struct ViewTexts<'a> {
    held: &'a HeldTexts,
    bytes: &'a [u8],
    rows: usize,
}

/// Texts that end in a number: that of a row is the prefix of its pattern, and its number
/// with leading zeros in as many digits as the pattern says.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'a> {
    patterns: &'a [Pattern],
    /// Per row, which pattern.
    pub codes: ViewInts<'a>,
    /// Per row, the number.
    pub numbers: ViewInts<'a>,
}

impl<'a> Numbered<'a> {
    /// Number of patterns.
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }

    /// Prefix and digits of a pattern; `None` if there is none of that code.
    pub fn pattern(&self, code: usize) -> Option<(&'a str, usize)> {
        self.patterns.get(code).map(|pattern| (&*pattern.prefix, pattern.width))
    }
}

impl<'a> ViewTexts<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of all texts together. Nothing is spelled or decompressed for it.
    pub fn text_bytes(&self) -> u64 {
        match self.held {
            HeldTexts::Numbered { bytes, .. } | HeldTexts::Later { bytes, .. } => *bytes,
            HeldTexts::Plain { place, .. } => place.len() as u64,
            HeldTexts::Strings(strings) => strings.text_bytes() as u64,
        }
    }

    /// Patterns and numbers, where that is how the texts lie.
    pub fn numbered(&self) -> Option<Numbered<'a>> {
        match self.held {
            HeldTexts::Numbered { patterns, codes, numbers, .. } => Some(Numbered {
                patterns,
                codes: codes.view(self.bytes, self.rows),
                numbers: numbers.view(self.bytes, self.rows),
            }),
            _ => None,
        }
    }

    /// The text of a row, "" of a null one; `None` past the end. Compressed text is
    /// decompressed at the first call and kept.
    ///
    /// # Errors
    ///
    /// `Corrupt` when text that was compressed under a right checksum cannot be read.
    pub fn get(&self, row: usize) -> Result<Option<Cow<'a, str>>> {
        if row >= self.rows {
            return Ok(None);
        }
        let strings = match self.held {
            HeldTexts::Strings(strings) => Some(strings),
            _ => self.held.later(self.bytes)?,
        };
        if let Some(strings) = strings {
            return Ok((row < strings.len()).then(|| strings.get(row).into()));
        }
        if let HeldTexts::Plain { place, ends } = self.held {
            let start = row.checked_sub(1).and_then(|before| ends.get(before)).copied();
            let range = widen(start.unwrap_or(0))..ends.get(row).copied().map_or(0, widen);
            let all = self.bytes.get(place.clone()).unwrap_or_default();
            let text = all.get(range).and_then(|text| str::from_utf8(text).ok());
            return Ok(text.map(Cow::Borrowed));
        }
        let Some(numbered) = self.numbered() else { return Ok(None) };
        let code = numbered.codes.get(row).and_then(|code| usize::try_from(code).ok());
        let number = numbered.numbers.get(row);
        Ok(code.zip(number).and_then(|(code, number)| {
            Some(numbered.patterns.get(code)?.spell(number.cast_unsigned()).into())
        }))
    }

    /// The texts in memory of their own, "" in null rows.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn to_strings(&self) -> Result<Strings> {
        match self.held {
            HeldTexts::Strings(strings) => Ok(strings.clone()),
            HeldTexts::Plain { place, ends } => {
                let text = self.bytes.get(place.clone()).unwrap_or_default();
                text::checked_strings(text.to_vec(), ends.clone())
            }
            HeldTexts::Numbered { patterns, .. } => {
                let Some(numbered) = self.numbered() else { return Ok(Strings::new()) };
                let codes = numbered.codes.iter().map(|code| u32::try_from(code).unwrap_or(0));
                numbered::spell_all(
                    patterns,
                    &codes.collect::<Vec<_>>(),
                    &numbered.numbers.to_vec(),
                )
            }
            HeldTexts::Later { .. } => {
                Ok(self.held.later(self.bytes)?.cloned().unwrap_or_default())
            }
        }
    }
}
