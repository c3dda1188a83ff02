//! Booleans: one bit each, or all the same (spec 5.2).

use super::bytes::Reader;
use super::layout::tag;
use super::{Chunk, Shape, ones, write_chunk};
use crate::column::Bitmap;
use crate::error::{Error, Result};
use crate::selection::Selection;

pub(super) fn encode(values: &Bitmap, shape: &Shape<'_>, out: &mut Vec<u8>) -> Result<()> {
    let (valid, set) = (shape.rows - shape.nulls, values.count_ones());
    if set == 0 || set == valid {
        let value = i64::from(set > 0);
        return write_chunk(out, tag::CONSTANT, shape, |out| {
            out.extend_from_slice(&value.to_le_bytes());
            Ok(())
        });
    }
    write_chunk(out, tag::BITS, shape, |out| {
        match shape.validity.filter(|_| shape.dense) {
            None => out.extend_from_slice(values.as_bytes()),
            Some(validity) => {
                let dense: Bitmap = ones(validity.as_bytes()).map(|row| values.get(row)).collect();
                out.extend_from_slice(dense.as_bytes());
            }
        }
        Ok(())
    })
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
    let bytes = reader.take(count.div_ceil(8))?;
    reader.end()?;
    Bitmap::from_bytes(bytes, count)
        .ok_or_else(|| Error::corrupt("5.2", "a bit past the last row is set"))
}
