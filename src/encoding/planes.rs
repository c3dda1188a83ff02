//! Byte planes: the first bytes of all lanes, then the second ones, each compressed by
//! itself (spec 5.1, PLANES).
//!
//! Owns cutting lanes into planes and putting them together again. High bytes of neighbouring
//! numbers are much alike and low ones are not: apart, the former shrink to little and the
//! latter to what they hold. Archives are written so; sealed segments are scanned too often.

use std::cell::RefCell;

use super::Chunk;
use super::bytes::{Reader, padding, put_count};
use super::ints::{Lanes, read_frame};
use super::text::{check_frame, decompress};
use crate::error::Result;

/// Bytes of a lane at most.
const WIDTH_MAX: usize = 8;
/// Lanes whose planes are gathered at once, to stay in the cache.
const PART: usize = 4096;

/// The planes of some lanes, least significant first, each as it is stored.
#[derive(Debug)]
pub(super) struct Planes {
    stored: Vec<Vec<u8>>,
}

impl Planes {
    /// Cuts `count` lanes of `width` bytes, given little-endian in full, into compressed
    /// planes.
    pub(super) fn compress(
        lanes: impl Iterator<Item = u64> + Clone,
        width: u8,
        level: i32,
    ) -> Self {
        let planes = (0..u32::from(width)).map(|plane| {
            #[expect(clippy::cast_possible_truncation, reason = "one byte of each lane")]
            let bytes: Vec<u8> = lanes.clone().map(|lane| (lane >> (8 * plane)) as u8).collect();
            // Without memory for the compressor a plane stays as it is.
            match compress(&bytes, level) {
                Ok(frame) if frame.len() < bytes.len() => frame,
                _ => bytes,
            }
        });
        Self { stored: planes.collect() }
    }

    /// Bytes of sizes and planes.
    pub(super) fn bytes(&self) -> usize {
        let sizes = self.stored.len() * 4;
        sizes + padding(sizes) + self.stored.iter().map(Vec::len).sum::<usize>()
    }

    /// Appends sizes and planes.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        for plane in &self.stored {
            put_count(out, plane.len())?;
        }
        out.resize(out.len() + padding(self.stored.len() * 4), 0);
        self.stored.iter().for_each(|plane| out.extend_from_slice(plane));
        Ok(())
    }
}

/// The lanes of a PLANES chunk, whole again.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) base: i64,
    pub(super) scale: i64,
    bytes: Vec<u8>,
    width: u8,
}

impl Joined {
    /// Reads the planes of a chunk and checks all of them.
    pub(super) fn read(chunk: &Chunk<'_>) -> Result<Self> {
        let (base, scale, width, mut reader) = read_frame(chunk)?;
        let (count, planes) = (chunk.stored(), usize::from(width));
        if !(1..=WIDTH_MAX).contains(&planes) {
            return Err(reader.corrupt(format!("lanes of {width} bytes")));
        }
        let sizes = (0..planes).map(|_| reader.count()).collect::<Result<Vec<_>>>()?;
        reader.zeros(padding(planes * 4))?;
        let whole = planes.next_power_of_two();
        let mut bytes = vec![0; count * whole];
        let mut plane = Vec::new();
        for (place, size) in sizes.into_iter().enumerate() {
            let stored = reader.take(size)?;
            let plane = unpack(&reader, stored, count, &mut plane)?;
            let lanes = bytes.chunks_mut(whole * PART).zip(plane.chunks(PART));
            for (lanes, plane) in lanes {
                let slots = lanes.chunks_exact_mut(whole).filter_map(|lane| lane.get_mut(place));
                slots.zip(plane).for_each(|(slot, byte)| *slot = *byte);
            }
        }
        reader.end()?;
        let width = u8::try_from(whole).unwrap_or(width);
        Ok(Self { base, scale, bytes, width })
    }

    /// The lanes.
    pub(super) fn lanes(&self) -> Lanes<'_> {
        Lanes::parse(&self.bytes, self.width).unwrap_or(Lanes::U8(&[]))
    }
}

/// The bytes of a plane of `count` lanes: as they lie, or decompressed into `room`.
fn unpack<'a>(
    reader: &Reader<'_>,
    stored: &'a [u8],
    count: usize,
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    if stored.len() == count {
        return Ok(stored);
    }
    check_frame(reader, stored, count)?;
    room.resize(count, 0);
    decompress(reader, stored, room)?;
    Ok(room)
}

/// A compressor and the level it was made for.
type Kept = Option<(i32, zstd::bulk::Compressor<'static>)>;

/// One zstd frame that states its content size.
pub(super) fn compress(bytes: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    thread_local! {
        // A context is some hundred KiB; keeping it saves more than compressing a plane costs.
        static COMPRESSOR: RefCell<Kept> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|kept| {
        let same = kept.take().filter(|(made_for, _)| *made_for == level);
        let (_, compressor) = kept.insert(match same {
            Some(same) => same,
            None => (level, zstd::bulk::Compressor::new(level)?),
        });
        compressor.compress(bytes)
    })
}
