//! Booleans: one bit each, or all the same (spec 5.2).

use super::bytes::Reader;
use super::layout::tag;
use super::{Chunk, Effort, Shape, ones, put_bytes, read_bytes, write_chunk};
use crate::column::Bitmap;
use crate::error::{Error, Result};
use crate::schema::ColumnType;
use crate::selection::Selection;

pub(super) fn encode(
    values: &Bitmap,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (valid, set) = (shape.rows - shape.nulls, values.count_ones());
    if set == 0 || set == valid {
        let value = i64::from(set > 0);
        return write_chunk(out, tag::CONSTANT, shape, |out| {
            out.extend_from_slice(&value.to_le_bytes());
            Ok(())
        });
    }
    let dense = shape.validity.filter(|_| shape.dense).map(|validity| -> Bitmap {
        ones(validity.as_bytes()).map(|row| values.get(row)).collect()
    });
    let bits = dense.as_ref().unwrap_or(values).as_bytes();
    let start = out.len();
    if matches!(effort, Effort::Archive { .. }) {
        write_chunk(out, tag::BIT_BYTES, shape, |out| put_bytes(bits, effort, out))?;
    }
    let packed = out.split_off(start);
    write_chunk(out, tag::BITS, shape, |out| {
        out.extend_from_slice(bits);
        Ok(())
    })?;
    if !packed.is_empty() && packed.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(&packed);
    }
    Ok(())
}

pub(super) fn decode(chunk: &Chunk<'_>, validity: Option<&Bitmap>) -> Result<Bitmap> {
    let stored = decode_stored(chunk)?;
    let Some(validity) = validity else { return Ok(stored) };
    let mut placed = Bitmap::filled(chunk.rows, false);
    if chunk.dense {
        let rows = ones(validity.as_bytes());
        rows.zip(stored.iter()).for_each(|(row, value)| placed.set(row, value));
    } else {
        let rows = ones(validity.as_bytes());
        rows.for_each(|row| placed.set(row, stored.get(row)));
    }
    Ok(placed)
}

/// Decodes some of the stored values.
pub(super) fn decode_some(chunk: &Chunk<'_>, rows: &Selection) -> Result<Bitmap> {
    let stored = decode_stored(chunk)?;
    if *rows == Selection::Range(0..stored.len()) {
        return Ok(stored);
    }
    Ok(rows.iter().map(|row| stored.get(row)).collect())
}

fn decode_stored(chunk: &Chunk<'_>) -> Result<Bitmap> {
    let mut reader = Reader::new(chunk.body, "5.2");
    let count = chunk.stored();
    if chunk.encoding == tag::CONSTANT {
        let value = reader.i64()?;
        reader.end()?;
        return match value {
            0 | 1 => Ok(Bitmap::filled(count, value == 1)),
            other => Err(Error::corrupt("5.2", format!("constant {other}, expected 0 or 1"))),
        };
    }
    let unpacked;
    let bytes = if chunk.encoding == tag::BIT_BYTES {
        let bytes = chunk.nested(&mut reader, ColumnType::Int, count.div_ceil(8))?;
        unpacked = read_bytes(&bytes)?;
        &unpacked[..]
    } else {
        reader.take(count.div_ceil(8))?
    };
    reader.end()?;
    Bitmap::from_bytes(bytes, count)
        .ok_or_else(|| Error::corrupt("5.2", "a bit past the last row is set"))
}
