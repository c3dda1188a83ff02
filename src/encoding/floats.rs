//! Floats, bit for bit: constant, raw, or decimal-scaled integers (spec 5.3).
//!
//! DECIMAL follows ALP (Afroozeh, Kuffo, Boncz: ALP: Adaptive Lossless floating-Point
//! Compression, SIGMOD 2023): most measurements are decimals with few digits, so that
//! value x 10^e is an integer that fits a double exactly. We use one exponent per chunk
//! and divide by 10^e when reading, which rounds once and so gives back the nearest double.

use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::little_endian::F64;

use super::bytes::{Reader, put_count, widen};
use super::layout::{EXPONENT_MAX, tag};
use super::{Access, Chunk, Effort, Shape, cost, ints, write_chunk};
use crate::error::Result;
use crate::schema::ColumnType;
use crate::selection::Selection;

/// Values tried to find the exponent.
const SAMPLE: usize = 256;
/// Integers beyond this are not all doubles.
const INTEGER_MAX: f64 = (1u64 << 53) as f64;
/// 10^e: each is a double exactly.
const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// Appends a chunk of floats; `values` are those that the body holds.
pub(super) fn encode(
    values: &[f64],
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    let first = values.first().copied().unwrap_or_default().to_bits();
    // Looked at in parts, each without a branch per value.
    let mut parts = values.chunks(SAMPLE);
    if parts.all(|part| part.iter().fold(true, |same, value| same & (value.to_bits() == first))) {
        return write_chunk(out, tag::FLOAT_CONSTANT, shape, |out| {
            out.extend_from_slice(&first.to_le_bytes());
            Ok(())
        });
    }
    let start = out.len();
    let raw = cost(values.len() * 8, Access::View, effort);
    if effort != Effort::Append && put_decimal(values, shape, effort, out)? {
        if cost(out.len() - start, Access::Unpack, effort) < raw {
            return Ok(());
        }
        out.truncate(start);
    }
    if matches!(effort, Effort::Archive { .. }) {
        put_patterns(values, shape, effort, out)?;
        if cost(out.len() - start, Access::Unpack, effort) < raw {
            return Ok(());
        }
        out.truncate(start);
    }
    write_chunk(out, tag::FLOAT_RAW, shape, |out| {
        put_raw(values, out);
        Ok(())
    })
}

/// Writes the bit patterns as integers.
pub(super) fn put_patterns(
    values: &[f64],
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    let patterns: Vec<i64> = values.iter().map(|value| value.to_bits().cast_signed()).collect();
    write_chunk(out, tag::FLOAT_PATTERNS, shape, |out| {
        ints::encode(&patterns, &Shape::plain(patterns.len()), effort, out)
    })
}

fn put_raw(values: &[f64], out: &mut Vec<u8>) {
    out.reserve(values.len() * 8);
    // Part by part, so that the room is not written twice.
    let mut block = [[0; 8]; SAMPLE];
    for values in values.chunks(SAMPLE) {
        block.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_bits().to_le_bytes());
        out.extend_from_slice(block[..values.len()].as_flattened());
    }
}

/// Writes the decimal form unless too few values have one; says whether it did.
pub(super) fn put_decimal(
    values: &[f64],
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Some(exponent) = exponent(values) else { return Ok(false) };
    let power = POWERS[usize::from(exponent)];
    let mut integers = Vec::with_capacity(values.len());
    let (mut positions, mut apart) = (Vec::new(), Vec::new());
    let mut last = 0;
    for (position, value) in (0u32..).zip(values) {
        match to_integer(*value, power) {
            Some(integer) => last = integer,
            None => {
                positions.push(position);
                apart.push(*value);
            }
        }
        // An exception repeats its neighbour, which costs least.
        integers.push(last);
    }
    if apart.len() > values.len() / 8 {
        return Ok(false);
    }
    write_chunk(out, tag::FLOAT_DECIMAL, shape, |out| {
        put_count(out, apart.len())?;
        out.extend_from_slice(&[exponent, 0, 0, 0]);
        ints::encode(&integers, &Shape::plain(integers.len()), effort, out)?;
        ints::encode(&positions, &Shape::plain(positions.len()), effort, out)?;
        put_raw(&apart, out);
        Ok(())
    })?;
    Ok(true)
}

/// The integer that divided by `power` gives the value bit for bit.
#[expect(clippy::cast_possible_truncation, reason = "in range by the comparison")]
#[inline]
fn to_integer(value: f64, power: f64) -> Option<i64> {
    let scaled = (value * power).round_ties_even();
    if scaled.abs() > INTEGER_MAX || scaled.is_nan() {
        return None;
    }
    let integer = scaled as i64;
    (to_float(integer, power).to_bits() == value.to_bits()).then_some(integer)
}

#[inline(always)]
pub(super) fn to_float(integer: i64, power: f64) -> f64 {
    integer as f64 / power
}

/// The least exponent with which nearly as many values of a sample are decimals as with
/// any; `None` if those are too few.
fn exponent(values: &[f64]) -> Option<u8> {
    let step = values.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<f64> = values.iter().step_by(step).copied().collect();
    let fitting = |exponent: u8| {
        let power = POWERS[usize::from(exponent)];
        sample.iter().filter(|value| to_integer(**value, power).is_some()).count()
    };
    let fits: Vec<(u8, usize)> = (0..=EXPONENT_MAX).map(|e| (e, fitting(e))).collect();
    let most = fits.iter().map(|(_, count)| *count).max()?;
    let enough = (most - most / 64).max(sample.len() - sample.len() / 8);
    fits.into_iter().find(|(_, count)| *count >= enough).map(|(exponent, _)| exponent)
}

/// Decodes the stored values, as many as the body has.
pub(super) fn decode(chunk: &Chunk<'_>) -> Result<Vec<f64>> {
    let mut reader = Reader::new(chunk.body, "5.3");
    let count = chunk.stored();
    match chunk.encoding {
        tag::FLOAT_CONSTANT => Ok(vec![read_constant(chunk)?; count]),
        tag::FLOAT_RAW => {
            let raw = read_raw(&mut reader, count)?;
            reader.end()?;
            Ok(raw.iter().map(|value| value.get()).collect())
        }
        tag::FLOAT_PATTERNS => {
            let patterns: Vec<i64> = ints::decode(&read_patterns(chunk)?)?;
            Ok(patterns.into_iter().map(float_of_pattern).collect())
        }
        _ => decode_decimal(chunk),
    }
}

/// Decodes some of the stored values.
pub(super) fn decode_some(chunk: &Chunk<'_>, rows: &Selection) -> Result<Vec<f64>> {
    let mut reader = Reader::new(chunk.body, "5.3");
    match chunk.encoding {
        _ if *rows == Selection::Range(0..chunk.stored()) => decode(chunk),
        tag::FLOAT_CONSTANT => Ok(vec![read_constant(chunk)?; rows.len()]),
        tag::FLOAT_RAW => {
            let raw = read_raw(&mut reader, chunk.stored())?;
            reader.end()?;
            Ok(rows.iter().filter_map(|row| raw.get(row)).map(|value| value.get()).collect())
        }
        tag::FLOAT_PATTERNS => {
            let patterns: Vec<i64> = ints::decode_some(&read_patterns(chunk)?, rows)?;
            Ok(patterns.into_iter().map(float_of_pattern).collect())
        }
        _ => {
            let decimal = Decimal::read(chunk)?;
            let integers: Vec<i64> = ints::decode_some(&decimal.integers, rows)?;
            let power = decimal.power;
            let mut values: Vec<f64> = integers.iter().map(|int| to_float(*int, power)).collect();
            decimal.put(rows, &mut values);
            Ok(values)
        }
    }
}

/// Whether all rows that have a value have a finite one.
pub(super) fn are_finite(chunk: &Chunk<'_>) -> Result<bool> {
    let finite = |values: &[F64]| values.iter().fold(true, |all, it| all & it.get().is_finite());
    let mut reader = Reader::new(chunk.body, "5.3");
    Ok(match chunk.encoding {
        // What a null row stores between others has no meaning.
        _ if chunk.nulls > 0 && !chunk.dense => {
            let values = chunk.place(decode(chunk)?, chunk.validity()?.as_ref());
            values.iter().all(|value| value.is_finite())
        }
        tag::FLOAT_CONSTANT => read_constant(chunk)?.is_finite(),
        tag::FLOAT_RAW => finite(read_raw(&mut reader, chunk.stored())?),
        tag::FLOAT_PATTERNS => decode(chunk)?.iter().all(|value| value.is_finite()),
        // Integers over a power of ten are.
        _ => finite(Decimal::read(chunk)?.apart),
    })
}

/// Floats of a range of stored values, to be compared without decoding.
pub(super) enum Numbers<'a> {
    /// All the same value.
    Same(f64),
    /// As they are.
    Raw(&'a [F64]),
    /// Decoded.
    Values(Vec<f64>),
    /// Integers over a power of ten; the values of exceptions, and the integers that stand
    /// in their places.
    Decimal { integers: ints::Words<'a>, power: f64, apart: Vec<f64>, stray: Vec<i64> },
}

/// The numbers of a range of stored values.
pub(super) fn numbers<'a>(chunk: &Chunk<'a>, rows: Range<usize>) -> Result<Numbers<'a>> {
    let mut reader = Reader::new(chunk.body, "5.3");
    match chunk.encoding {
        tag::FLOAT_CONSTANT => read_constant(chunk).map(Numbers::Same),
        tag::FLOAT_RAW => {
            let raw = read_raw(&mut reader, chunk.stored())?;
            reader.end()?;
            Ok(Numbers::Raw(raw.get(rows).unwrap_or_default()))
        }
        tag::FLOAT_PATTERNS => decode_some(chunk, &Selection::Range(rows)).map(Numbers::Values),
        _ => {
            let decimal = Decimal::read(chunk)?;
            let of = ints::numbers(&decimal.integers, rows.clone())?;
            let integers = if of.apart.is_empty() {
                of.words
            } else {
                // Exceptions of both kinds may meet: the integers' are put in their places.
                let range = Selection::Range(rows.clone());
                ints::Words::Values(ints::decode_some(&decimal.integers, &range)?)
            };
            let inside = decimal.inside(&rows);
            let positions = decimal.positions.get(inside.clone()).unwrap_or_default();
            let stray = ints::decode_some(&decimal.integers, &Selection::Rows(positions.to_vec()))?;
            let apart = decimal.apart.get(inside).unwrap_or_default();
            let apart = apart.iter().map(|value| value.get()).collect();
            Ok(Numbers::Decimal { integers, power: decimal.power, apart, stray })
        }
    }
}

fn read_raw<'a>(reader: &mut Reader<'a>, count: usize) -> Result<&'a [F64]> {
    let bytes = reader.take(count * 8)?;
    <[F64]>::ref_from_bytes(bytes).map_err(|_| reader.corrupt("floats of other than 8 bytes"))
}

/// The value of a chunk in which all are the same.
pub(super) fn read_constant(chunk: &Chunk<'_>) -> Result<f64> {
    let mut reader = Reader::new(chunk.body, "5.3");
    let value = f64::from_bits(reader.u64()?);
    reader.end()?;
    Ok(value)
}

/// The bytes of the floats of a RAW chunk.
pub(super) fn raw_bytes<'a>(chunk: &Chunk<'a>) -> Result<&'a [u8]> {
    let mut reader = Reader::new(chunk.body, "5.3");
    let bytes = reader.take(chunk.stored() * 8)?;
    reader.end()?;
    Ok(bytes)
}

/// The bit patterns of a PATTERNS chunk.
fn read_patterns<'a>(chunk: &Chunk<'a>) -> Result<Chunk<'a>> {
    let mut reader = Reader::new(chunk.body, "5.3");
    let patterns = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
    reader.end()?;
    Ok(patterns)
}

fn float_of_pattern(pattern: i64) -> f64 {
    f64::from_bits(pattern.cast_unsigned())
}

/// The parts of DECIMAL: integers, and positions and values of the exceptions.
pub(super) struct Decimal<'a> {
    pub(super) integers: Chunk<'a>,
    pub(super) power: f64,
    pub(super) positions: Vec<u32>,
    pub(super) apart: &'a [F64],
}

impl<'a> Decimal<'a> {
    pub(super) fn read(chunk: &Chunk<'a>) -> Result<Self> {
        let count = chunk.stored();
        let mut reader = Reader::new(chunk.body, "5.3");
        let (exceptions, exponent) = (reader.count()?, reader.u8()?);
        reader.zeros(3)?;
        let Some(power) = POWERS.get(usize::from(exponent)).copied() else {
            return Err(reader.corrupt(format!("exponent {exponent}")));
        };
        if exceptions > count {
            return Err(reader.corrupt(format!("{exceptions} exceptions of {count} rows")));
        }
        let integers = chunk.nested(&mut reader, ColumnType::Int, count)?;
        let positions = chunk.nested(&mut reader, ColumnType::Int, exceptions)?;
        let positions = ints::rising(ints::decode(&positions)?, count)?;
        let apart = read_raw(&mut reader, exceptions)?;
        reader.end()?;
        Ok(Self { integers, power, positions, apart })
    }

    /// Which of the exceptions lie in a range of rows.
    fn inside(&self, rows: &Range<usize>) -> Range<usize> {
        let before = |row: usize| self.positions.partition_point(|at| widen(*at) < row);
        before(rows.start)..before(rows.end)
    }

    /// Puts the exceptions among some rows into their places.
    fn put(&self, rows: &Selection, values: &mut [f64]) {
        let inside = self.inside(&rows.span());
        let apart = self.positions.get(inside.clone()).unwrap_or_default();
        for (position, value) in apart.iter().zip(self.apart.get(inside).unwrap_or_default()) {
            let place = match rows {
                Selection::Range(range) => Some(widen(*position) - range.start),
                Selection::Rows(list) => list.binary_search(position).ok(),
            };
            if let Some(slot) = place.and_then(|place| values.get_mut(place)) {
                *slot = value.get();
            }
        }
    }
}

fn decode_decimal(chunk: &Chunk<'_>) -> Result<Vec<f64>> {
    let decimal = Decimal::read(chunk)?;
    let integers: Vec<i64> = ints::decode(&decimal.integers)?;
    let mut values: Vec<f64> =
        integers.iter().map(|integer| to_float(*integer, decimal.power)).collect();
    decimal.put(&Selection::Range(0..values.len()), &mut values);
    Ok(values)
}
