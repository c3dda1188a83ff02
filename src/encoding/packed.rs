//! Bit-packed lanes of 1 to 56 bits, least significant bit first (spec 5.1, PACKED).
//!
//! Owns packing and unpacking of unsigned lanes; what they mean is `ints`' business. Eight
//! lanes take as many bytes as a lane has bits, so that a group of eight starts on a byte
//! and one kernel per width unpacks it with constant shifts.

use std::ops::Range;

use super::layout::PACKED_BITS_MAX;
use crate::selection::{Selection, index};

/// Lanes that start on a byte together.
const GROUP: usize = 8;
/// Bytes that a kernel may read: the widest group, and the load of its last lane.
const WINDOW: usize = 64;
/// Groups that one call of a kernel unpacks.
const GROUPS: usize = 32;

/// Bytes of `count` lanes of `bits` bits.
pub(super) fn packed_bytes(count: usize, bits: u8) -> usize {
    (count * usize::from(bits)).div_ceil(8)
}

/// Appends lanes, each below 2^`bits`.
pub(super) fn pack(lanes: impl Iterator<Item = u64>, bits: u8, out: &mut Vec<u8>) {
    let bits = u32::from(bits);
    let (mut word, mut filled) = (0u64, 0u32);
    for lane in lanes {
        word |= lane << filled;
        filled += bits;
        if filled >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            word = lane >> (bits - filled);
        }
    }
    let rest = word.to_le_bytes();
    out.extend(rest.iter().take(filled.div_ceil(8) as usize));
}

/// Unpacks `count` lanes and gives each to `value`; `None` if the bytes are not exactly
/// those of `count` lanes, or a bit after the last lane is set.
pub(super) fn unpack<T: Copy + Default>(
    bytes: &[u8],
    bits: u8,
    count: usize,
    value: impl Fn(u64) -> T,
) -> Option<Vec<T>> {
    if bits == 0 || bits > PACKED_BITS_MAX || bytes.len() != packed_bytes(count, bits) {
        return None;
    }
    let used = count * usize::from(bits) % 8;
    if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    for_each_part(bytes, bits, count, |lanes| {
        values.extend(lanes.iter().map(|lane| value(*lane)));
    });
    Some(values)
}

/// Positions from `start` to `end` of the lanes that are `lane`; `None` as [`unpack`].
pub(super) fn find_packed(
    bytes: &[u8],
    bits: u8,
    count: usize,
    lane: u64,
    rows: &Range<usize>,
) -> Option<Vec<u32>> {
    let width = usize::from(bits);
    if bits == 0 || bits > PACKED_BITS_MAX || bytes.len() != packed_bytes(count, bits) {
        return None;
    }
    let start = rows.start / GROUP * GROUP;
    let part = bytes.get(start / GROUP * width..)?;
    let (mut found, mut at) = (Vec::new(), start);
    for_each_part(part, bits, rows.end.min(count).checked_sub(start)?, |lanes| {
        let hits = (at..).zip(lanes).filter(|(row, have)| **have == lane && *row >= rows.start);
        found.extend(hits.map(|(row, _)| index(row)));
        at += lanes.len();
    });
    Some(found)
}

/// Unpacks lanes part by part, which stay in the cache.
fn for_each_part(bytes: &[u8], bits: u8, count: usize, mut each: impl FnMut(&[u64])) {
    let kernel = kernel(bits);
    let mut lanes = [[0; GROUP]; GROUPS];
    let (mut rest, mut left) = (bytes, count);
    while left > 0 {
        kernel(rest, &mut lanes);
        let part = left.min(GROUPS * GROUP);
        each(lanes.as_flattened().get(..part).unwrap_or_default());
        left -= part;
        rest = rest.get(GROUPS * usize::from(bits)..).unwrap_or_default();
    }
}

/// Unpacks the lanes of some rows below `count`; `None` as [`unpack`].
pub(super) fn unpack_some<T: Copy + Default>(
    bytes: &[u8],
    bits: u8,
    count: usize,
    rows: &Selection,
    value: impl Fn(u64) -> T,
) -> Option<Vec<T>> {
    let width = usize::from(bits);
    if bits == 0 || bits > PACKED_BITS_MAX || bytes.len() != packed_bytes(count, bits) {
        return None;
    }
    match rows {
        Selection::Range(range) => {
            // From the group of the first row on; the lanes before it are dropped.
            let start = range.start / GROUP * GROUP;
            let end = range.end.next_multiple_of(GROUP).min(count);
            let part = bytes.get(start / GROUP * width..(end * width).div_ceil(8))?;
            let mut values = unpack(part, bits, end.checked_sub(start)?, value)?;
            values.truncate(range.end - start);
            values.drain(..range.start - start);
            Some(values)
        }
        Selection::Rows(list) => {
            let mask = (1u64 << bits) - 1;
            let lane = |row: &u32| {
                let bit = *row as usize * width;
                // A lane of at most 56 bits lies within eight bytes of where it starts.
                let mut word = [0; 8];
                let near = bytes.get(bit / 8..).unwrap_or_default();
                word.iter_mut().zip(near).for_each(|(to, from)| *to = *from);
                value(u64::from_le_bytes(word) >> (bit % 8) & mask)
            };
            Some(list.iter().map(lane).collect())
        }
    }
}

/// Unpacks groups until the bytes or the room end; bytes past the end count as zeros.
type Kernel = fn(&[u8], &mut [[u64; GROUP]; GROUPS]);

/// The kernel of the width. Listing the widths makes every shift a constant; none depends
/// on the type of the values, so that each is compiled once.
fn kernel(bits: u8) -> Kernel {
    macro_rules! kernels {
        ($($bits:literal)*) => {
            match bits {
                $($bits => unpack_groups::<$bits>,)*
                _ => |_, _| {},
            }
        };
    }
    kernels!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28
        29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56)
}

fn unpack_groups<const BITS: usize>(mut bytes: &[u8], groups: &mut [[u64; GROUP]; GROUPS]) {
    for group in groups {
        *group = match bytes.first_chunk() {
            Some(window) => unpack_group::<BITS>(window),
            None => {
                // Near the end there are fewer bytes than the group's loads reach.
                let mut window = [0; WINDOW];
                window.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                unpack_group::<BITS>(&window)
            }
        };
        bytes = bytes.get(BITS..).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
    }
}

#[inline(always)]
fn unpack_group<const BITS: usize>(window: &[u8; WINDOW]) -> [u64; GROUP] {
    std::array::from_fn(|lane| {
        let word = window[lane * BITS / 8..].first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(word) >> (lane * BITS % 8) & ((1 << BITS) - 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_length_comes_back() {
        for bits in 1..=PACKED_BITS_MAX {
            for count in [0usize, 1, 7, 8, 9, 63, 64, 65, 200] {
                let lanes: Vec<u64> = (0..count as u64)
                    .map(|i| (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - bits))
                    .collect();
                let mut bytes = Vec::new();
                pack(lanes.iter().copied(), bits, &mut bytes);
                assert_eq!(bytes.len(), packed_bytes(count, bits));
                assert_eq!(unpack(&bytes, bits, count, |lane| lane), Some(lanes));
            }
        }
    }

    #[test]
    fn wrong_lengths_and_set_padding_are_refused() {
        assert_eq!(unpack(&[0xFF], 3, 2, |lane| lane), None);
        assert_eq!(unpack(&[0x3F], 3, 2, |lane| lane), Some(vec![7, 7]));
        assert_eq!(unpack(&[0x3F, 0], 3, 2, |lane| lane), None);
        assert_eq!(unpack(&[], 0, 2, |lane| lane), None);
        assert_eq!(unpack(&[0; 8], 64, 1, |lane| lane), None);
    }
}
