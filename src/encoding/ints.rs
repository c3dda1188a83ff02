//! Integers: timestamps, counts, codes, lengths (spec 5.1).
//!
//! Owns the seven integer encodings, the view that scans read without unpacking, and the
//! plan by which sealing chooses. Everything that is stored as integers goes through here.
//!
//! Frame of reference and patching follow Zukowski, Heman, Nes, Boncz: Super-Scalar
//! RAM-CPU Cache Compression (ICDE 2006); our lanes are whole bytes wherever a scan should
//! read them in place, and exceptions lie apart from them.

use std::borrow::Cow;
use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::bytes::{Reader, padding, put_count, widen};
use super::kernels::{self, Lane};
use super::layout::{HEADER_BYTES, PACKED_BITS_MAX, tag};
use super::packed::{find_packed, pack, packed_bytes, unpack, unpack_some};
use super::planes::{Joined, Planes};
use super::{Access, Chunk, Effort, Shape, cost, write_chunk};
use crate::column::extremes;
use crate::error::{Error, Result};
use crate::schema::ColumnType;
use crate::selection::{Selection, index};

/// Bytes of base, scale and width before the lanes.
const FRAME_BYTES: usize = 24;
/// Fewest rows for which more than constant and lanes is looked at.
const PLAN_ROWS_MIN: usize = 4;
/// Fewest lanes whose planes are worth compressing.
const PLANE_ROWS_MIN: usize = 32;
/// Values looked at to find a base that leaves low outliers out.
const SAMPLE: usize = 256;
/// Values that are unpacked at a time where a loop wants them as a slice.
pub(super) const SLICE: usize = 512;
/// Lanes that are cut at once.
const BLOCK: usize = 256;

/// What integers are in memory.
pub(super) trait Value: Copy + Default + Ord {
    /// From a stored integer; those out of range become the type's largest, which every
    /// caller refuses.
    fn from_stored(stored: i64) -> Self;
    fn wide(self) -> i64;
    fn all_wide(values: &[Self]) -> Cow<'_, [i64]>;
}

impl Value for i64 {
    #[inline(always)]
    fn from_stored(stored: i64) -> Self {
        stored
    }

    #[inline(always)]
    fn wide(self) -> i64 {
        self
    }

    fn all_wide(values: &[Self]) -> Cow<'_, [i64]> {
        values.into()
    }
}

impl Value for u32 {
    #[inline(always)]
    fn from_stored(stored: i64) -> Self {
        Self::try_from(stored).unwrap_or(Self::MAX)
    }

    #[inline(always)]
    fn wide(self) -> i64 {
        self.into()
    }

    fn all_wide(values: &[Self]) -> Cow<'_, [i64]> {
        values.iter().map(|value| value.wide()).collect()
    }
}

/// Unsigned lanes of one width, as they lie in the chunk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lanes<'a> {
    /// Of one byte.
    U8(&'a [u8]),
    /// Of two bytes.
    U16(&'a [U16]),
    /// Of four bytes.
    U32(&'a [U32]),
    /// Of eight bytes.
    U64(&'a [U64]),
}

impl<'a> Lanes<'a> {
    /// The lanes that bytes are; `None` if there is no such width or a part of a lane.
    pub(super) fn parse(bytes: &'a [u8], width: u8) -> Option<Self> {
        Some(match width {
            1 => Self::U8(bytes),
            2 => Self::U16(<[U16]>::ref_from_bytes(bytes).ok()?),
            4 => Self::U32(<[U32]>::ref_from_bytes(bytes).ok()?),
            8 => Self::U64(<[U64]>::ref_from_bytes(bytes).ok()?),
            _ => return None,
        })
    }

    /// Number of lanes: one per row.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::U8(lanes) => lanes.len(),
            Self::U16(lanes) => lanes.len(),
            Self::U32(lanes) => lanes.len(),
            Self::U64(lanes) => lanes.len(),
        }
    }

    /// Lane of row `index`; `None` past the end. For single rows.
    pub(super) fn get(&self, index: usize) -> Option<u64> {
        match self {
            Self::U8(lanes) => lanes.get(index).map(|lane| u64::from(*lane)),
            Self::U16(lanes) => lanes.get(index).map(|lane| lane.get().into()),
            Self::U32(lanes) => lanes.get(index).map(|lane| lane.get().into()),
            Self::U64(lanes) => lanes.get(index).map(|lane| lane.get()),
        }
    }

    /// Bytes of a lane.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
            Self::U64(_) => 8,
        }
    }

    /// The lanes of some rows; none if they are not all there.
    pub(super) fn slice(&self, rows: Range<usize>) -> Self {
        match self {
            Self::U8(lanes) => Self::U8(lanes.get(rows).unwrap_or_default()),
            Self::U16(lanes) => Self::U16(lanes.get(rows).unwrap_or_default()),
            Self::U32(lanes) => Self::U32(lanes.get(rows).unwrap_or_default()),
            Self::U64(lanes) => Self::U64(lanes.get(rows).unwrap_or_default()),
        }
    }

    fn pick<T: Value>(&self, base: i64, scale: i64, rows: &Selection) -> Vec<T> {
        match rows {
            Selection::Range(range) => self.slice(range.clone()).decode(base, scale),
            Selection::Rows(list) => {
                let lane = |row: &u32| self.get(widen(*row)).unwrap_or(0);
                list.iter().map(|row| T::from_stored(value_of(lane(row), base, scale))).collect()
            }
        }
    }

    fn sum(&self, rows: Range<usize>) -> u64 {
        match self.slice(rows) {
            Self::U8(lanes) => kernels::sum(lanes),
            Self::U16(lanes) => kernels::sum(lanes),
            Self::U32(lanes) => kernels::sum(lanes),
            Self::U64(lanes) => kernels::sum(lanes),
        }
    }

    /// The sum of all lanes.
    pub(super) fn total(&self) -> u128 {
        match self {
            // Sums of as many narrow lanes as a chunk has do not leave 64 bits.
            Self::U8(lanes) => kernels::sum(lanes).into(),
            Self::U16(lanes) => kernels::sum(lanes).into(),
            Self::U32(lanes) => kernels::sum(lanes).into(),
            Self::U64(lanes) => kernels::total(lanes),
        }
    }

    /// Least and largest lane; `None` without lanes.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        match self {
            Self::U8(lanes) => kernels::range(lanes),
            Self::U16(lanes) => kernels::range(lanes),
            Self::U32(lanes) => kernels::range(lanes),
            Self::U64(lanes) => kernels::range(lanes),
        }
    }

    /// The largest word that lanes of this width can be.
    pub(super) fn top(&self) -> u64 {
        match self {
            Self::U8(_) => u8::MAX.into(),
            Self::U16(_) => u16::MAX.into(),
            Self::U32(_) => u32::MAX.into(),
            Self::U64(_) => u64::MAX,
        }
    }

    /// Counts the lanes below `low` and appends those up to `high`, both at most `top`.
    pub(super) fn split(&self, low: u64, high: u64, inside: &mut Vec<u64>) -> usize {
        fn of<L: Lane>(lanes: &[L], low: u64, high: u64, inside: &mut Vec<u64>) -> usize {
            kernels::split(lanes, L::narrow(low), L::narrow(high.saturating_sub(low)), inside)
        }
        match self {
            Self::U8(lanes) => of(lanes, low, high, inside),
            Self::U16(lanes) => of(lanes, low, high, inside),
            Self::U32(lanes) => of(lanes, low, high, inside),
            Self::U64(lanes) => of(lanes, low, high, inside),
        }
    }

    /// Adds up deltas: those from `at` on, `apart` instead of the lanes of its rows. The first
    /// of `values` is `value` and its delta, each other the one before and its delta.
    pub(super) fn add_up<T: Value>(
        &self,
        (base, scale): (i64, i64),
        apart: &[(u32, i64)],
        at: usize,
        value: i64,
        values: &mut [T],
    ) {
        let end = at + values.len();
        let mut apart = apart.iter().skip(apart.partition_point(|(row, _)| widen(*row) < at));
        let (mut at, mut value, mut values) = (at, value, values);
        loop {
            let next = apart.next();
            let stop = next.map_or(end, |(row, _)| widen(*row).min(end));
            let (part, rest) = values.split_at_mut(stop - at);
            value = match self.slice(at..stop) {
                Self::U8(all) => add_lanes(all, |lane| u64::from(*lane), base, scale, value, part),
                Self::U16(all) => {
                    add_lanes(all, |lane| lane.get().into(), base, scale, value, part)
                }
                Self::U32(all) => {
                    add_lanes(all, |lane| lane.get().into(), base, scale, value, part)
                }
                Self::U64(all) => add_lanes(all, |lane| lane.get(), base, scale, value, part),
            };
            let (Some((_, delta)), Some((slot, rest))) = (next, rest.split_first_mut()) else {
                return;
            };
            value = value.wrapping_add(*delta);
            *slot = T::from_stored(value);
            (at, values) = (stop + 1, rest);
        }
    }

    /// The sum, modulo 2^64, of the deltas of a range of rows.
    pub(super) fn sum_deltas(
        &self,
        (base, scale): (i64, i64),
        apart: &[(u32, i64)],
        rows: Range<usize>,
    ) -> i64 {
        let before = |row: usize| apart.partition_point(|(at, _)| widen(*at) < row);
        let inside = apart.get(before(rows.start)..before(rows.end)).unwrap_or_default();
        let lanes = self.sum(rows.clone()).cast_signed().wrapping_mul(scale);
        let all = base.wrapping_mul((rows.len() as u64).cast_signed()).wrapping_add(lanes);
        inside.iter().fold(all, |sum, (row, delta)| {
            let lane = self.get(widen(*row)).unwrap_or_default();
            sum.wrapping_add(*delta).wrapping_sub(value_of(lane, base, scale))
        })
    }

    /// The rows of a range whose lane is `lane`.
    fn find(&self, lane: u64, rows: Range<usize>) -> Selection {
        if lane > self.top() {
            return Selection::NONE;
        }
        fn of<L: Lane>(lanes: &[L], lane: u64, first: usize) -> Vec<u32> {
            let mut found = Vec::new();
            kernels::find(lanes, L::narrow(lane), index(first), &mut found);
            found
        }
        let found = match self.slice(rows.clone()) {
            Self::U8(lanes) => of(lanes, lane, rows.start),
            Self::U16(lanes) => of(lanes, lane, rows.start),
            Self::U32(lanes) => of(lanes, lane, rows.start),
            Self::U64(lanes) => of(lanes, lane, rows.start),
        };
        Selection::of_rows(found)
    }

    /// Writes the values of the lanes into as many places.
    pub(super) fn decode_into(&self, base: i64, scale: i64, values: &mut [i64]) {
        match self {
            Self::U8(lanes) => kernels::spread(lanes, base, scale, values),
            Self::U16(lanes) => kernels::spread(lanes, base, scale, values),
            Self::U32(lanes) => kernels::spread(lanes, base, scale, values),
            Self::U64(lanes) => kernels::spread(lanes, base, scale, values),
        }
    }

    fn decode<T: Value>(&self, base: i64, scale: i64) -> Vec<T> {
        match self {
            Self::U8(lanes) => spread(lanes, |lane| u64::from(*lane), base, scale),
            Self::U16(lanes) => spread(lanes, |lane| lane.get().into(), base, scale),
            Self::U32(lanes) => spread(lanes, |lane| lane.get().into(), base, scale),
            Self::U64(lanes) => spread(lanes, |lane| lane.get(), base, scale),
        }
    }
}

/// Writes sums of `value` and the deltas up to each place, and returns the last.
#[inline(always)]
fn add_lanes<L, T: Value>(
    lanes: &[L],
    get: impl Fn(&L) -> u64,
    base: i64,
    scale: i64,
    mut value: i64,
    values: &mut [T],
) -> i64 {
    for (to, lane) in values.iter_mut().zip(lanes) {
        value = value.wrapping_add(value_of(get(lane), base, scale));
        *to = T::from_stored(value);
    }
    value
}

/// Two loops, since without wide vectors a 64-bit multiplication is several instructions.
fn spread<L, T: Value>(lanes: &[L], get: impl Fn(&L) -> u64, base: i64, scale: i64) -> Vec<T> {
    if scale == 1 {
        lanes.iter().map(|lane| T::from_stored(value_of(get(lane), base, 1))).collect()
    } else {
        lanes.iter().map(|lane| T::from_stored(value_of(get(lane), base, scale))).collect()
    }
}

#[inline(always)]
pub(super) fn value_of(lane: u64, base: i64, scale: i64) -> i64 {
    base.wrapping_add(lane.cast_signed().wrapping_mul(scale))
}

/// Lanes with a base and a scale; the largest lane decides their width.
#[derive(Clone, Copy, Debug)]
struct Frame {
    base: i64,
    scale: u64,
    top: u64,
}

impl Frame {
    /// Of values from `min` to `max`.
    fn new(min: i64, max: i64, scale: u64) -> Self {
        Self { base: min, scale, top: max.wrapping_sub(min).cast_unsigned() / scale }
    }

    /// Bytes of a lane.
    fn width(&self) -> u8 {
        match self.top {
            0..=0xFF => 1,
            0x100..=0xFFFF => 2,
            0x1_0000..=0xFFFF_FFFF => 4,
            _ => 8,
        }
    }

    /// Bits of a lane, at least one.
    fn bits(&self) -> u8 {
        match u64::BITS - self.top.leading_zeros() {
            0 => 1,
            bits => u8::try_from(bits).expect("at most 64"),
        }
    }

    /// From value to lane. The scale divides every offset, so that a shift and a
    /// multiplication by the inverse of its odd part (mod 2^64) do for the division.
    fn lane_of(&self) -> impl Fn(i64) -> u64 + Copy + use<> {
        let (base, shift) = (self.base, self.scale.trailing_zeros());
        let odd = self.scale >> shift;
        let inverse = inverse(odd);
        move |value| (value.wrapping_sub(base).cast_unsigned() >> shift).wrapping_mul(inverse)
    }

    fn put(&self, width: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.scale.to_le_bytes());
        out.extend_from_slice(&u64::from(width).to_le_bytes());
    }
}

/// Whole bytes of a chunk with `body` bytes in its body.
fn chunk_bytes(body: usize) -> usize {
    HEADER_BYTES + body + padding(body)
}

/// Appends a chunk of integers; `values` are those that the body holds.
pub(super) fn encode<T: Value>(
    values: &[T],
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    match effort {
        Effort::Seal | Effort::Archive { .. } if values.len() >= PLAN_ROWS_MIN => {
            let wide = T::all_wide(values);
            // A null row has the least value: base must be that, so that its lane is 0.
            let rule = if shape.nulls > 0 { Rule::WithNulls } else { Rule::Any };
            plan(&wide, rule, effort).emit(&wide, shape, out)
        }
        _ => match bounds(values) {
            None => put_constant(0, shape, out),
            Some((min, max)) if min == max => put_constant(min, shape, out),
            Some((min, max)) => put_lanes(values, &Frame::new(min, max, 1), shape, out),
        },
    }
}

/// Least and largest value; `None` of no values.
fn bounds<T: Value>(values: &[T]) -> Option<(i64, i64)> {
    extremes(values).map(|(min, max)| (min.wide(), max.wide()))
}

fn put_constant(value: i64, shape: &Shape<'_>, out: &mut Vec<u8>) -> Result<()> {
    write_chunk(out, tag::CONSTANT, shape, |out| {
        out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    })
}

fn put_lanes<T: Value>(
    values: &[T],
    frame: &Frame,
    shape: &Shape<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    write_chunk(out, tag::LANES, shape, |out| {
        frame.put(frame.width(), out);
        if frame.scale == 1 {
            // The common case, and without a multiplication of 64 bits a loop of vectors.
            let base = frame.base;
            write_lanes(values, |value| value.wrapping_sub(base).cast_unsigned(), frame, out);
        } else {
            write_lanes(values, frame.lane_of(), frame, out);
        }
        Ok(())
    })
}

#[expect(clippy::cast_possible_truncation, reason = "lanes are below 256^width")]
fn write_lanes<T: Value>(
    values: &[T],
    lane_of: impl Fn(i64) -> u64,
    frame: &Frame,
    out: &mut Vec<u8>,
) {
    /// Block by block, so that the room for the lanes is not written twice.
    fn by<T: Value, const WIDTH: usize>(
        values: &[T],
        out: &mut Vec<u8>,
        cut: impl Fn(i64) -> [u8; WIDTH],
    ) {
        out.reserve(values.len() * WIDTH);
        let mut block = [[0; WIDTH]; BLOCK];
        for values in values.chunks(BLOCK) {
            block.iter_mut().zip(values).for_each(|(to, value)| *to = cut(value.wide()));
            out.extend_from_slice(block[..values.len()].as_flattened());
        }
    }
    match frame.width() {
        1 => by(values, out, |value| [lane_of(value) as u8]),
        2 => by(values, out, |value| (lane_of(value) as u16).to_le_bytes()),
        4 => by(values, out, |value| (lane_of(value) as u32).to_le_bytes()),
        _ => by(values, out, |value| lane_of(value).to_le_bytes()),
    }
}

/// Which encodings a plan may use; each level of nesting allows fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// All.
    Any,
    /// All; the base of lanes is the least value.
    WithNulls,
    /// For deltas: no deltas of deltas.
    Deltas,
    /// For runs and exceptions: constant, lanes, packed.
    Flat,
}

/// An encoding, its whole chunk's size, and what it asks of a scan.
struct Plan {
    choice: Choice,
    bytes: usize,
    access: Access,
}

enum Choice {
    Constant(i64),
    Lanes(Frame),
    Packed(Frame),
    Planes(Frame, Planes),
    Patched { frame: Frame, positions: Nested, values: Nested },
    Runs { values: Nested, lengths: Nested },
    Delta { first: i64, deltas: Nested },
}

/// Integers of a sub-chunk and their plan.
struct Nested {
    values: Vec<i64>,
    plan: Box<Plan>,
}

impl Nested {
    fn new(values: Vec<i64>, rule: Rule, effort: Effort) -> Self {
        let plan = Box::new(plan(&values, rule, effort));
        Self { values, plan }
    }

    fn bytes(&self) -> usize {
        self.plan.bytes
    }

    fn emit(&self, out: &mut Vec<u8>) -> Result<()> {
        self.plan.emit(&self.values, &Shape::plain(self.values.len()), out)
    }
}

impl Plan {
    fn new(choice: Choice, body: usize, access: Access) -> Self {
        Self { choice, bytes: chunk_bytes(body), access }
    }

    fn constant(value: i64) -> Self {
        Self::new(Choice::Constant(value), 8, Access::View)
    }

    fn lanes(frame: Frame, count: usize) -> Self {
        let body = FRAME_BYTES + count * usize::from(frame.width());
        Self::new(Choice::Lanes(frame), body, Access::View)
    }

    fn packed(frame: Frame, count: usize) -> Option<Self> {
        let body = FRAME_BYTES + packed_bytes(count, frame.bits());
        (frame.bits() <= PACKED_BITS_MAX)
            .then(|| Self::new(Choice::Packed(frame), body, Access::Unpack))
    }

    /// Compressed planes of the lanes; not of few.
    fn planes(values: &[i64], frame: Frame, level: i32) -> Option<Self> {
        (values.len() >= PLANE_ROWS_MIN).then(|| {
            let width = frame.bits().div_ceil(8);
            let lanes = values.iter().copied().map(frame.lane_of());
            let planes = Planes::compress(lanes, width, level);
            let body = FRAME_BYTES + planes.bytes();
            Self::new(Choice::Planes(frame, planes), body, Access::Decompress)
        })
    }

    /// The better of two, this one if they cost the same.
    fn or(self, other: Option<Self>, effort: Effort) -> Self {
        let cost = |plan: &Self| cost(plan.bytes, plan.access, effort);
        match other {
            Some(other) if cost(&other) < cost(&self) => other,
            _ => self,
        }
    }

    fn emit(&self, values: &[i64], shape: &Shape<'_>, out: &mut Vec<u8>) -> Result<()> {
        match &self.choice {
            Choice::Constant(value) => put_constant(*value, shape, out),
            Choice::Lanes(frame) => put_lanes(values, frame, shape, out),
            Choice::Packed(frame) => write_chunk(out, tag::PACKED, shape, |out| {
                frame.put(frame.bits(), out);
                pack(values.iter().copied().map(frame.lane_of()), frame.bits(), out);
                Ok(())
            }),
            Choice::Planes(frame, planes) => write_chunk(out, tag::PLANES, shape, |out| {
                frame.put(frame.bits().div_ceil(8), out);
                planes.put(out)
            }),
            Choice::Patched { frame, positions, values: apart } => {
                write_chunk(out, tag::PATCHED, shape, |out| {
                    put_count(out, positions.values.len())?;
                    put_count(out, 0)?;
                    put_lanes(&inside(values, frame), frame, &Shape::plain(values.len()), out)?;
                    positions.emit(out)?;
                    apart.emit(out)
                })
            }
            Choice::Runs { values, lengths } => write_chunk(out, tag::RUNS, shape, |out| {
                put_count(out, values.values.len())?;
                put_count(out, 0)?;
                values.emit(out)?;
                lengths.emit(out)
            }),
            Choice::Delta { first, deltas } => write_chunk(out, tag::DELTA, shape, |out| {
                out.extend_from_slice(&first.to_le_bytes());
                deltas.emit(out)
            }),
        }
    }
}

/// Finds the encoding of least cost.
fn plan(values: &[i64], rule: Rule, effort: Effort) -> Plan {
    let Some((min, max)) = bounds(values) else { return Plan::constant(0) };
    if min == max {
        return Plan::constant(min);
    }
    let frame = Frame::new(min, max, common_divisor(values, min));
    let packed = Plan::packed(frame, values.len());
    let flat = Plan::lanes(frame, values.len()).or(packed, effort);
    // Compressed planes take outliers in their stride.
    let flat = match effort {
        Effort::Archive { level } => flat.or(Plan::planes(values, frame, level), effort),
        _ if rule == Rule::Flat => flat,
        _ => flat.or(patched(values, &frame, rule, effort), effort),
    };
    match rule {
        Rule::Flat => flat,
        Rule::Deltas => flat.or(runs(values, effort), effort),
        Rule::Any | Rule::WithNulls => {
            flat.or(runs(values, effort), effort).or(delta(values, effort), effort)
        }
    }
}

/// Greatest common divisor of the offsets from `min`; 0 when all are 0.
fn common_divisor(values: &[i64], min: i64) -> u64 {
    let mut divisor = 0;
    let mut divides = Divides::new(1);
    for value in values {
        let offset = value.wrapping_sub(min).cast_unsigned();
        if divisor == 0 || !divides.check(offset) {
            divisor = greatest_common_divisor(offset, divisor);
            divides = Divides::new(divisor.max(1));
        }
        if divisor == 1 {
            break;
        }
    }
    divisor
}

/// Whether numbers are multiples of one divisor, without dividing: the product with the
/// inverse of the odd part (mod 2^64) is small exactly for multiples of it, and turning it
/// by the power of two moves low bits that are set to the top (Granlund, Montgomery:
/// Division by Invariant Integers using Multiplication, PLDI 1994).
struct Divides {
    inverse: u64,
    shift: u32,
    most: u64,
}

impl Divides {
    fn new(divisor: u64) -> Self {
        let shift = divisor.trailing_zeros();
        Self { inverse: inverse(divisor >> shift), shift, most: u64::MAX / divisor }
    }

    #[inline(always)]
    fn check(&self, number: u64) -> bool {
        number.wrapping_mul(self.inverse).rotate_right(self.shift) <= self.most
    }
}

/// The inverse of an odd number, mod 2^64.
fn inverse(odd: u64) -> u64 {
    // Newton's iteration: each step doubles the number of right bits, from three.
    (0..5)
        .fold(odd, |inverse, _| inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse))))
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Narrower lanes with the few values that they do not reach apart: from the least value,
/// or from a low one of a sample where a few are far below the rest.
fn patched(values: &[i64], whole: &Frame, rule: Rule, effort: Effort) -> Option<Plan> {
    if whole.width() == 1 {
        return None;
    }
    let low = (rule != Rule::WithNulls).then(|| low_value(values));
    let bases = std::iter::once(whole.base).chain(low.filter(|low| *low != whole.base));
    let (frame, _) = bases
        .flat_map(|base| windows(values, base, whole, values.len() / 16))
        // An exception costs its position and its value.
        .min_by_key(|(frame, outside)| values.len() * usize::from(frame.width()) + outside * 8)?;
    let outside = |value: &i64| !reaches(&frame, *value);
    let apart: Vec<i64> = values.iter().copied().filter(outside).collect();
    let positions = (0i64..).zip(values).filter(|(_, value)| outside(value));
    let positions =
        Nested::new(positions.map(|(position, _)| position).collect(), Rule::Flat, effort);
    let apart = Nested::new(apart, Rule::Flat, effort);
    let lanes = chunk_bytes(FRAME_BYTES + values.len() * usize::from(frame.width()));
    let body = 8 + lanes + positions.bytes() + apart.bytes();
    Some(Plan::new(Choice::Patched { frame, positions, values: apart }, body, Access::View))
}

/// A value near the lower end of a sample.
fn low_value(values: &[i64]) -> i64 {
    let step = values.len().div_ceil(SAMPLE).max(1);
    let mut sample: Vec<i64> = values.iter().step_by(step).copied().collect();
    let low = sample.len() / 32;
    *sample.select_nth_unstable(low).1
}

/// Each width narrower than that of `whole`, and how many values lie outside its lanes;
/// without those outside of which more than `most` lie.
fn windows(
    values: &[i64],
    base: i64,
    whole: &Frame,
    most: usize,
) -> impl Iterator<Item = (Frame, usize)> {
    let frames = [0xFFu64, 0xFFFF, 0xFFFF_FFFF].map(|top| Frame { base, scale: whole.scale, top });
    let width = whole.width();
    frames.into_iter().filter(move |frame| frame.width() < width).filter_map(move |frame| {
        // Part by part: what does not fit shows early.
        let mut outside = 0;
        for part in values.chunks(BLOCK) {
            let part = part.iter().map(|value| u32::from(!reaches(&frame, *value)));
            outside += widen(part.fold(0, u32::wrapping_add));
            if outside > most {
                return None;
            }
        }
        Some((frame, outside))
    })
}

/// Whether the value is one of the frame's lanes.
#[inline(always)]
fn reaches(frame: &Frame, value: i64) -> bool {
    let reach = frame.top.saturating_mul(frame.scale);
    value >= frame.base && value.wrapping_sub(frame.base).cast_unsigned() <= reach
}

/// The values, those that the frame does not reach replaced by its base.
fn inside(values: &[i64], frame: &Frame) -> Vec<i64> {
    let keep = |value: &i64| if reaches(frame, *value) { *value } else { frame.base };
    values.iter().map(keep).collect()
}

/// Runs, if they are long enough to be worth a look.
fn runs(values: &[i64], effort: Effort) -> Option<Plan> {
    let count = 1 + values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    if count > values.len() / 4 {
        return None;
    }
    let (mut firsts, mut lengths) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for run in values.chunk_by(i64::eq) {
        firsts.push(run[0]);
        lengths.push(i64::try_from(run.len()).expect("rows fit in 64 bits"));
    }
    let flat = |values| Nested::new(values, Rule::Flat, effort);
    let (values, lengths) = (flat(firsts), flat(lengths));
    let body = 8 + values.bytes() + lengths.bytes();
    Some(Plan::new(Choice::Runs { values, lengths }, body, Access::Unpack))
}

fn delta(values: &[i64], effort: Effort) -> Option<Plan> {
    let (first, rest) = values.split_first()?;
    let deltas = rest.iter().zip(values).map(|(next, last)| next.wrapping_sub(*last)).collect();
    let deltas = Nested::new(deltas, Rule::Deltas, effort);
    let body = 8 + deltas.bytes();
    Some(Plan::new(Choice::Delta { first: *first, deltas }, body, Access::Unpack))
}

/// Base, scale and width, and the reader of the lanes behind them.
pub(super) fn read_frame<'a>(chunk: &Chunk<'a>) -> Result<(i64, i64, u8, Reader<'a>)> {
    let mut reader = Reader::new(chunk.body, "5.1");
    let (base, scale, width) = (reader.i64()?, reader.u64()?, reader.u8()?);
    reader.zeros(7)?;
    if scale == 0 {
        return Err(reader.corrupt("scale 0"));
    }
    Ok((base, scale.cast_signed(), width, reader))
}

pub(super) fn read_lanes<'a>(chunk: &Chunk<'a>) -> Result<(i64, i64, Lanes<'a>)> {
    let (base, scale, width, reader) = read_frame(chunk)?;
    let lanes = Lanes::parse(reader.rest(), width)
        .filter(|lanes| lanes.len() == chunk.stored())
        .ok_or_else(|| {
            let (bytes, rows) = (reader.rest().len(), chunk.stored());
            reader.corrupt(format!("{bytes} bytes of lanes of {width} bytes for {rows} rows"))
        })?;
    Ok((base, scale, lanes))
}

pub(super) fn read_constant(chunk: &Chunk<'_>) -> Result<i64> {
    let mut reader = Reader::new(chunk.body, "5.1");
    let value = reader.i64()?;
    reader.end()?;
    Ok(value)
}

/// Count of runs or exceptions, at most one per row.
fn read_part_count(reader: &mut Reader<'_>, rows: usize) -> Result<usize> {
    let count = reader.count()?;
    reader.zeros(4)?;
    if count > rows {
        return Err(reader.corrupt(format!("{count} parts of {rows} rows")));
    }
    Ok(count)
}

/// The parts of PATCHED: its lanes, and positions and values of the exceptions.
pub(super) struct Patches<'a> {
    pub(super) lanes: Chunk<'a>,
    pub(super) positions: Vec<u32>,
    pub(super) values: Vec<i64>,
}

impl Patches<'_> {
    /// Rows and values of the exceptions.
    pub(super) fn apart(&self) -> Vec<(u32, i64)> {
        self.positions.iter().copied().zip(self.values.iter().copied()).collect()
    }

    /// Which of the exceptions lie in a range of rows.
    fn inside(&self, rows: &Range<usize>) -> Range<usize> {
        let before = |row: usize| self.positions.partition_point(|at| widen(*at) < row);
        before(rows.start)..before(rows.end)
    }

    /// Puts the exceptions among some rows into their places.
    fn put<T: Value>(&self, rows: &Selection, values: &mut [T]) {
        let inside = self.inside(&rows.span());
        let apart = self.positions.get(inside.clone()).unwrap_or_default();
        let apart = apart.iter().zip(self.values.get(inside).unwrap_or_default());
        for (position, value) in apart {
            let place = match rows {
                Selection::Range(range) => Some(widen(*position) - range.start),
                Selection::Rows(list) => list.binary_search(position).ok(),
            };
            if let Some(slot) = place.and_then(|place| values.get_mut(place)) {
                *slot = T::from_stored(*value);
            }
        }
    }
}

pub(super) fn read_patches<'a>(chunk: &Chunk<'a>) -> Result<Patches<'a>> {
    let mut reader = Reader::new(chunk.body, "5.1");
    let count = read_part_count(&mut reader, chunk.stored())?;
    let lanes = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
    if lanes.encoding != tag::LANES {
        return Err(reader.corrupt(format!("encoding {} under exceptions", lanes.encoding)));
    }
    let positions = chunk.nested(&mut reader, ColumnType::Int, count)?;
    let positions = rising(decode(&positions)?, chunk.stored())?;
    let values = decode(&chunk.nested(&mut reader, ColumnType::Int, count)?)?;
    reader.end()?;
    Ok(Patches { lanes, positions, values })
}

/// Checks that positions rise and stay below `rows`.
pub(super) fn rising(positions: Vec<u32>, rows: usize) -> Result<Vec<u32>> {
    let rise = positions.windows(2).all(|pair| pair[0] < pair[1]);
    if rise && positions.last().is_none_or(|last| widen(*last) < rows) {
        Ok(positions)
    } else {
        Err(Error::corrupt("5.1", format!("positions that do not rise below {rows}")))
    }
}

/// Whether lanes are 0 in all these rows; true where there are no lanes.
pub(super) fn lanes_are_zero(
    chunk: &Chunk<'_>,
    mut rows: impl Iterator<Item = usize>,
) -> Result<bool> {
    match chunk.encoding {
        tag::LANES => {
            let (.., lanes) = read_lanes(chunk)?;
            Ok(rows.all(|row| lanes.get(row) == Some(0)))
        }
        tag::PATCHED => {
            let Patches { lanes, positions, .. } = read_patches(chunk)?;
            let (.., lanes) = read_lanes(&lanes)?;
            Ok(rows.all(|row| {
                lanes.get(row) == Some(0)
                    && positions.binary_search_by_key(&row, |position| widen(*position)).is_err()
            }))
        }
        _ => Ok(true),
    }
}

/// Least and largest value that the chunk could hold, read from its frame alone; `None`
/// when the encoding does not say.
pub(super) fn reach(chunk: &Chunk<'_>) -> Result<Option<(i128, i128)>> {
    let (base, scale, top) = match chunk.encoding {
        tag::CONSTANT => (read_constant(chunk)?, 1, 0),
        tag::LANES | tag::PACKED | tag::PLANES => {
            let (base, scale, width, _) = read_frame(chunk)?;
            let bits = u32::from(width) * if chunk.encoding == tag::PACKED { 1 } else { 8 };
            let top = u64::MAX.checked_shr(u64::BITS.saturating_sub(bits)).unwrap_or(0);
            (base, scale.cast_unsigned(), top)
        }
        _ => return Ok(None),
    };
    let (base, most) = (i128::from(base), u128::from(scale) * u128::from(top));
    let most = base.saturating_add_unsigned(most);
    // Values that wrap could be anywhere.
    Ok((most <= i128::from(i64::MAX)).then_some((base, most)))
}

/// Decodes some of the stored values.
pub(super) fn decode_some<T: Value>(chunk: &Chunk<'_>, rows: &Selection) -> Result<Vec<T>> {
    match chunk.encoding {
        _ if *rows == Selection::Range(0..chunk.stored()) => decode(chunk),
        tag::CONSTANT => Ok(vec![T::from_stored(read_constant(chunk)?); rows.len()]),
        tag::LANES => {
            let (base, scale, lanes) = read_lanes(chunk)?;
            Ok(lanes.pick(base, scale, rows))
        }
        tag::PACKED => {
            let (base, scale, bits, reader) = read_frame(chunk)?;
            let value = |lane| T::from_stored(value_of(lane, base, scale));
            unpack_some(reader.rest(), bits, chunk.stored(), rows, value).ok_or_else(|| {
                let count = chunk.stored();
                reader.corrupt(format!("not {count} lanes of {bits} bits and zero padding"))
            })
        }
        tag::PATCHED => {
            let patches = read_patches(chunk)?;
            let mut values = decode_some(&patches.lanes, rows)?;
            patches.put(rows, &mut values);
            Ok(values)
        }
        tag::RUNS => Runs::read(chunk)?.pick(rows),
        tag::PLANES => {
            let joined = Joined::read(chunk)?;
            Ok(joined.lanes().pick(joined.base, joined.scale, rows))
        }
        _ => pick_deltas(chunk, rows),
    }
}

/// Values of a chunk of deltas: what precedes the first row wanted is only added up, and
/// so is what lies between rows where adding up needs no unpacking.
fn pick_deltas<T: Value>(chunk: &Chunk<'_>, rows: &Selection) -> Result<Vec<T>> {
    let (first, deltas) = read_deltas(chunk)?;
    let span = rows.span();
    let summed = matches!(deltas.encoding, tag::CONSTANT | tag::LANES);
    if deltas.encoding == tag::RUNS && span.len() < chunk.stored() / 2 {
        return pick_runs_of_deltas(first, &Runs::read(&deltas)?, rows);
    }
    match rows {
        Selection::Rows(list) if summed => {
            let (mut value, mut at) = (first, 0);
            list.iter()
                .map(|row| {
                    let row = widen(*row);
                    value = value.wrapping_add(sum(&deltas, at..row)?);
                    at = row;
                    Ok(T::from_stored(value))
                })
                .collect()
        }
        _ if span.is_empty() => Ok(Vec::new()),
        _ => {
            let value = first.wrapping_add(sum(&deltas, 0..span.start)?);
            let mut values = vec![T::default(); span.len()];
            if let Some((slot, rest)) = values.split_first_mut() {
                *slot = T::from_stored(value);
                add_up(&deltas, span.start, value, rest)?;
            }
            match rows {
                Selection::Range(_) => Ok(values),
                Selection::Rows(list) => {
                    let value = |row: &u32| values.get(widen(*row) - span.start).copied();
                    Ok(list.iter().filter_map(value).collect())
                }
            }
        }
    }
}

/// Values of runs of deltas: the same step over and over.
fn pick_runs_of_deltas<T: Value>(first: i64, runs: &Runs, rows: &Selection) -> Result<Vec<T>> {
    // Before each run: the value, and how many deltas came earlier.
    let (mut value, mut before) = (first, 0u64);
    let mut steps = runs.values.iter().zip(&runs.ends).peekable();
    rows.iter()
        .map(|row| {
            let row = row as u64;
            while let Some((step, end)) = steps.next_if(|(_, end)| **end <= row) {
                let count = end.saturating_sub(before).cast_signed();
                value = value.wrapping_add(step.wrapping_mul(count));
                before = *end;
            }
            match (steps.peek(), row.saturating_sub(before).cast_signed()) {
                (_, 0) => Ok(T::from_stored(value)),
                (Some((step, _)), more) => {
                    Ok(T::from_stored(value.wrapping_add(step.wrapping_mul(more))))
                }
                (None, _) => Err(Error::corrupt("5.1", "a row beyond the last run")),
            }
        })
        .collect()
}

/// Adds up the deltas of a chunk from `at` on, as [`Lanes::add_up`] does.
fn add_up<T: Value>(deltas: &Chunk<'_>, at: usize, value: i64, values: &mut [T]) -> Result<()> {
    let rows = at..at + values.len();
    match deltas.encoding {
        tag::LANES => {
            let (base, scale, lanes) = read_lanes(deltas)?;
            lanes.add_up((base, scale), &[], at, value, values);
        }
        tag::PATCHED => {
            let patches = read_patches(deltas)?;
            let (base, scale, lanes) = read_lanes(&patches.lanes)?;
            lanes.add_up((base, scale), &patches.apart(), at, value, values);
        }
        tag::RUNS => Runs::read(deltas)?.add_up(rows, value, values)?,
        _ => {
            let deltas: Vec<i64> = decode_some(deltas, &Selection::Range(rows))?;
            let mut value = value;
            for (to, delta) in values.iter_mut().zip(&deltas) {
                value = value.wrapping_add(*delta);
                *to = T::from_stored(value);
            }
        }
    }
    Ok(())
}

/// Hands the stored values of a range to `each`, some at a time, in order: slices that stay
/// in the cache, whatever the values are stored as.
pub(super) fn for_each_slice(
    chunk: &Chunk<'_>,
    rows: Range<usize>,
    mut each: impl FnMut(&[i64]),
) -> Result<()> {
    if chunk.encoding == tag::DELTA {
        let (first, deltas) = read_deltas(chunk)?;
        if let Some((frame, lanes, apart)) = read_any_lanes(&deltas)? {
            add_up_slices(first, frame, lanes, &apart, rows, each);
            return Ok(());
        }
    }
    let values: Vec<i64> = decode_some(chunk, &Selection::Range(rows))?;
    values.chunks(SLICE).for_each(&mut each);
    Ok(())
}

/// Base and scale, lanes, and the rows and values of exceptions.
type AnyLanes<'a> = ((i64, i64), Lanes<'a>, Vec<(u32, i64)>);

/// Of a chunk of lanes, with exceptions or without; `None` of another encoding.
fn read_any_lanes<'a>(chunk: &Chunk<'a>) -> Result<Option<AnyLanes<'a>>> {
    let (lanes, apart) = match chunk.encoding {
        tag::LANES => (*chunk, Vec::new()),
        tag::PATCHED => {
            let patches = read_patches(chunk)?;
            (patches.lanes, patches.apart())
        }
        _ => return Ok(None),
    };
    let (base, scale, lanes) = read_lanes(&lanes)?;
    Ok(Some(((base, scale), lanes, apart)))
}

fn add_up_slices(
    first: i64,
    (base, scale): (i64, i64),
    deltas: Lanes<'_>,
    apart: &[(u32, i64)],
    rows: Range<usize>,
    mut each: impl FnMut(&[i64]),
) {
    let mut value = first.wrapping_add(deltas.sum_deltas((base, scale), apart, 0..rows.start));
    let mut room = [0; SLICE];
    for start in rows.clone().step_by(SLICE) {
        let room = &mut room[..SLICE.min(rows.end - start)];
        // The last row of the chunk has no delta after it.
        let end = (start + room.len()).min(deltas.len());
        deltas.slice(start..end).decode_into(base, scale, room);
        put_apart(apart, start, room);
        for slot in room.iter_mut() {
            let delta = std::mem::replace(slot, value);
            value = value.wrapping_add(delta);
        }
        each(room);
    }
}

/// Puts those of the exceptions into their places that lie in the rows from `start` on.
pub(super) fn put_apart<T: Copy>(apart: &[(u32, T)], start: usize, room: &mut [T]) {
    let end = start + room.len();
    let from = apart.partition_point(|(row, _)| widen(*row) < start);
    let inside = apart.iter().skip(from).take_while(|(row, _)| widen(*row) < end);
    inside.for_each(|(row, value)| room[widen(*row) - start] = *value);
}

/// The sum of a range of stored values, modulo 2^64.
fn sum(chunk: &Chunk<'_>, rows: Range<usize>) -> Result<i64> {
    let count = rows.len() as u64;
    let times = |value: i64| value.wrapping_mul(count.cast_signed());
    match chunk.encoding {
        _ if rows.is_empty() => Ok(0),
        tag::CONSTANT => Ok(times(read_constant(chunk)?)),
        tag::LANES => {
            let (base, scale, lanes) = read_lanes(chunk)?;
            let lanes = lanes.sum(rows).cast_signed().wrapping_mul(scale);
            Ok(times(base).wrapping_add(lanes))
        }
        tag::PATCHED => {
            let patches = read_patches(chunk)?;
            let (base, scale, lanes) = read_lanes(&patches.lanes)?;
            let inside = patches.inside(&rows);
            let total = lanes.sum(rows).cast_signed().wrapping_mul(scale);
            let mut total = times(base).wrapping_add(total);
            // Exceptions count instead of what their lanes say.
            let positions = patches.positions.get(inside.clone()).unwrap_or_default();
            for (position, value) in
                positions.iter().zip(patches.values.get(inside).unwrap_or_default())
            {
                let lane = lanes.get(widen(*position)).unwrap_or(0);
                total = total.wrapping_add(value.wrapping_sub(value_of(lane, base, scale)));
            }
            Ok(total)
        }
        _ => {
            let values: Vec<i64> = decode_some(chunk, &Selection::Range(rows))?;
            Ok(values.iter().fold(0, |sum: i64, value| sum.wrapping_add(*value)))
        }
    }
}

/// The rows, among some, whose stored value is `value`.
pub(super) fn find(chunk: &Chunk<'_>, value: i64, rows: &Selection) -> Result<Selection> {
    match (chunk.encoding, rows) {
        (tag::CONSTANT, _) => {
            let all = read_constant(chunk)? == value;
            Ok(if all { rows.clone() } else { Selection::NONE })
        }
        (tag::LANES, Selection::Range(range)) => {
            let (base, scale, lanes) = read_lanes(chunk)?;
            let offset = i128::from(value) - i128::from(base);
            let scale = i128::from(scale.cast_unsigned());
            let lane = u64::try_from(offset / scale).ok().filter(|_| offset % scale == 0);
            Ok(lane.map_or(Selection::NONE, |lane| lanes.find(lane, range.clone())))
        }
        (tag::RUNS, Selection::Range(range)) => Runs::read(chunk)?.find(value, range.clone()),
        (tag::PACKED, Selection::Range(range)) => {
            let (base, scale, bits, reader) = read_frame(chunk)?;
            let offset = value.wrapping_sub(base).cast_unsigned();
            let scale = scale.cast_unsigned();
            // Modulo 2^64, as lanes are; where that is not exact no lane gives the value.
            let lane = offset / scale;
            let count = chunk.stored();
            if value_of(lane, base, scale.cast_signed()) != value || lane >> bits.min(63) != 0 {
                return Ok(Selection::NONE);
            }
            let found = find_packed(reader.rest(), bits, count, lane, range);
            let found = found.ok_or_else(|| {
                reader.corrupt(format!("not {count} lanes of {bits} bits and zero padding"))
            })?;
            Ok(Selection::of_rows(found))
        }
        (_, Selection::Range(range)) => {
            let values: Vec<i64> = decode_some(chunk, rows)?;
            let mut found = Vec::new();
            kernels::find(&values, kernels::word_of(value), index(range.start), &mut found);
            Ok(Selection::of_rows(found))
        }
        _ => {
            let values: Vec<i64> = decode_some(chunk, rows)?;
            Ok(rows.clone().narrow(|position| values.get(position) == Some(&value)))
        }
    }
}

/// Values as they lie in a chunk, to be compared without decoding: words, each of which is
/// `base + word * scale`.
#[derive(Debug)]
pub(super) enum Words<'a> {
    /// All the same value.
    Same(i64),
    /// Lanes whose values do not leave the range of integers.
    Lanes { base: i64, scale: i64, lanes: Lanes<'a> },
    /// Decoded values.
    Values(Vec<i64>),
}

/// The words of a range of stored values; values of exceptions, which have a word that
/// says nothing; and those words.
pub(super) struct Numbers<'a> {
    pub(super) words: Words<'a>,
    pub(super) apart: Vec<i64>,
    pub(super) stray: Vec<u64>,
}

/// The numbers of a range of stored values.
pub(super) fn numbers<'a>(chunk: &Chunk<'a>, rows: Range<usize>) -> Result<Numbers<'a>> {
    let plain = |words| Numbers { words, apart: Vec::new(), stray: Vec::new() };
    match chunk.encoding {
        tag::CONSTANT => Ok(plain(Words::Same(read_constant(chunk)?))),
        tag::LANES if reach(chunk)?.is_some() => {
            let (base, scale, lanes) = read_lanes(chunk)?;
            Ok(plain(Words::Lanes { base, scale, lanes: lanes.slice(rows) }))
        }
        tag::PATCHED => {
            let patches = read_patches(chunk)?;
            if reach(&patches.lanes)?.is_none() {
                return Ok(plain(Words::Values(decode_some(chunk, &Selection::Range(rows))?)));
            }
            let (base, scale, lanes) = read_lanes(&patches.lanes)?;
            let inside = patches.inside(&rows);
            let positions = patches.positions.get(inside.clone()).unwrap_or_default();
            let stray = positions.iter().filter_map(|position| lanes.get(widen(*position)));
            Ok(Numbers {
                words: Words::Lanes { base, scale, lanes: lanes.slice(rows) },
                apart: patches.values.get(inside).unwrap_or_default().to_vec(),
                stray: stray.collect(),
            })
        }
        _ => Ok(plain(Words::Values(decode_some(chunk, &Selection::Range(rows))?))),
    }
}

/// Decodes the stored values, as many as the body has.
pub(super) fn decode<T: Value>(chunk: &Chunk<'_>) -> Result<Vec<T>> {
    let count = chunk.stored();
    match chunk.encoding {
        tag::CONSTANT => Ok(vec![T::from_stored(read_constant(chunk)?); count]),
        tag::LANES => {
            let (base, scale, lanes) = read_lanes(chunk)?;
            Ok(lanes.decode(base, scale))
        }
        tag::PACKED => {
            let (base, scale, bits, reader) = read_frame(chunk)?;
            unpack(reader.rest(), bits, count, |lane| T::from_stored(value_of(lane, base, scale)))
                .ok_or_else(|| {
                    reader.corrupt(format!("not {count} lanes of {bits} bits and zero padding"))
                })
        }
        tag::PATCHED => decode_patched(chunk),
        tag::RUNS => Runs::read(chunk)?.pick(&Selection::Range(0..count)),
        tag::PLANES => {
            let joined = Joined::read(chunk)?;
            Ok(joined.lanes().decode(joined.base, joined.scale))
        }
        _ => pick_deltas(chunk, &Selection::Range(0..count)),
    }
}

fn decode_patched<T: Value>(chunk: &Chunk<'_>) -> Result<Vec<T>> {
    let patches = read_patches(chunk)?;
    let mut values: Vec<T> = decode(&patches.lanes)?;
    patches.put(&Selection::Range(0..values.len()), &mut values);
    Ok(values)
}

/// Runs of equal values: the values, and where each run ends.
struct Runs {
    values: Vec<i64>,
    ends: Vec<u64>,
}

impl Runs {
    fn read(chunk: &Chunk<'_>) -> Result<Self> {
        let count = chunk.stored();
        let mut reader = Reader::new(chunk.body, "5.1");
        let runs = read_part_count(&mut reader, count)?;
        let values: Vec<i64> = decode(&chunk.nested(&mut reader, ColumnType::Int, runs)?)?;
        let lengths: Vec<u32> = decode(&chunk.nested(&mut reader, ColumnType::Int, runs)?)?;
        reader.end()?;
        let mut end = 0;
        let ends: Vec<u64> = lengths
            .iter()
            .map(|length| {
                end += u64::from(*length);
                end
            })
            .collect();
        if end != count as u64 || lengths.contains(&0) {
            return Err(reader.corrupt(format!("runs of {end} rows, expected {count}")));
        }
        Ok(Self { values, ends })
    }

    /// The parts of a range that lie in one run each, with the run's value.
    fn parts(&self, rows: Range<usize>) -> impl Iterator<Item = (i64, Range<usize>)> + '_ {
        let first = self.ends.partition_point(|end| *end <= rows.start as u64);
        let runs = self.values.iter().zip(&self.ends).skip(first);
        let mut start = rows.start;
        runs.map_while(move |(value, end)| {
            let end = usize::try_from(*end).unwrap_or(usize::MAX).min(rows.end);
            let part = std::mem::replace(&mut start, end)..end;
            (!part.is_empty()).then_some((*value, part))
        })
    }

    fn pick<T: Value>(&self, rows: &Selection) -> Result<Vec<T>> {
        let mut picked = Vec::with_capacity(rows.len());
        match rows {
            Selection::Range(range) => {
                for (value, part) in self.parts(range.clone()) {
                    picked.resize(picked.len() + part.len(), T::from_stored(value));
                }
            }
            Selection::Rows(list) => {
                let mut run = 0;
                for row in list {
                    while self.ends.get(run).is_some_and(|end| *end <= u64::from(*row)) {
                        run += 1;
                    }
                    picked.extend(self.values.get(run).map(|value| T::from_stored(*value)));
                }
            }
        }
        if picked.len() == rows.len() {
            Ok(picked)
        } else {
            Err(Error::corrupt("5.1", "a row beyond the last run"))
        }
    }

    /// Adds up the runs of a range as deltas, as [`Lanes::add_up`] does.
    fn add_up<T: Value>(&self, rows: Range<usize>, value: i64, values: &mut [T]) -> Result<()> {
        let (mut value, mut rest) = (value, values);
        for (delta, part) in self.parts(rows) {
            let (places, after) = rest.split_at_mut(part.len().min(rest.len()));
            for to in places {
                value = value.wrapping_add(delta);
                *to = T::from_stored(value);
            }
            rest = after;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Error::corrupt("5.1", "a row beyond the last run"))
        }
    }

    fn find(&self, value: i64, rows: Range<usize>) -> Result<Selection> {
        let parts = self.parts(rows).filter(|(have, _)| *have == value);
        let parts: Vec<Range<usize>> = parts.map(|(_, part)| part).collect();
        Ok(Selection::of(&parts))
    }
}

/// The first value of a chunk of deltas, and the deltas.
pub(super) fn read_deltas<'a>(chunk: &Chunk<'a>) -> Result<(i64, Chunk<'a>)> {
    let mut reader = Reader::new(chunk.body, "5.1");
    let first = reader.i64()?;
    let Some(count) = chunk.stored().checked_sub(1) else {
        return Err(reader.corrupt("deltas of no rows"));
    };
    let deltas = chunk.nested(&mut reader, ColumnType::Int, count)?;
    reader.end()?;
    Ok((first, deltas))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_example, mix};
    use super::*;

    fn emit(values: &[i64], choice: Choice) -> Vec<u8> {
        let mut out = Vec::new();
        let plan = Plan::new(choice, 0, Access::View);
        plan.emit(values, &Shape::plain(values.len()), &mut out).unwrap();
        let chunk = Chunk::parse(&out, ColumnType::Int).unwrap();
        assert_eq!(decode::<i64>(&chunk).unwrap(), values);
        out
    }

    #[test]
    fn examples_of_the_spec() {
        let flat = |values: &[i64]| Nested::new(values.to_vec(), Rule::Flat, Effort::Seal);
        let packed = Choice::Packed(Frame::new(-300, 400, 100));
        assert_example("PACKED", &emit(&[-300, 400, 0, 100], packed));
        let (positions, values) = (flat(&[2]), flat(&[9_000_000]));
        let frame = Frame::new(10, 14, 1);
        let patched = Choice::Patched { frame, positions, values };
        assert_example("PATCHED", &emit(&[10, 12, 9_000_000, 14], patched));
        let runs = Choice::Runs { values: flat(&[7, 8]), lengths: flat(&[3, 3]) };
        assert_example("RUNS", &emit(&[7, 7, 7, 8, 8, 8], runs));
        let (values, frame) = ([1_000, 66_536, 1_300], Frame::new(1_000, 66_536, 1));
        let planes = Planes::compress(values.into_iter().map(frame.lane_of()), 3, 6);
        assert_example("PLANES", &emit(&values, Choice::Planes(frame, planes)));
        let delta = Choice::Delta { first: 1_000, deltas: flat(&[10, 10, 11]) };
        assert_example("DELTA", &emit(&[1_000, 1_010, 1_020, 1_031], delta));
    }

    /// Sizes decide, so they have to be those that are written.
    #[test]
    fn plans_know_their_size() {
        let cases: [&dyn Fn(usize) -> i64; 6] = [
            &|_| 3,
            &|i| (mix(i) % 200) as i64,
            &|i| (mix(i) % 2000) as i64 - 7,
            &|i| if i % 100 == 0 { -1 << 40 } else { (mix(i) % 250) as i64 },
            &|i| (i / 30) as i64,
            &|i| (i * 1000) as i64 + (mix(i) % 100) as i64,
        ];
        for case in cases {
            let values: Vec<i64> = (0..2000).map(case).collect();
            for rule in [Rule::Any, Rule::WithNulls, Rule::Deltas, Rule::Flat] {
                for effort in [Effort::Seal, Effort::Archive { level: 6 }] {
                    let (plan, mut out) = (plan(&values, rule, effort), Vec::new());
                    plan.emit(&values, &Shape::plain(values.len()), &mut out).unwrap();
                    assert_eq!(out.len(), plan.bytes);
                }
            }
        }
    }

    #[test]
    fn low_and_high_outliers_are_patched() {
        let value = |i: usize| match i % 97 {
            13 => i64::MIN + 5,
            77 => i64::MAX - 5,
            _ => 1_000_000 + (mix(i) % 200) as i64,
        };
        let values: Vec<i64> = (0..5000).map(value).collect();
        match plan(&values, Rule::Any, Effort::Seal).choice {
            Choice::Patched { frame, .. } => assert_eq!(frame.width(), 1),
            _ => panic!("expected exceptions"),
        }
    }

    #[test]
    fn reach_is_what_the_frame_allows() {
        let of = |values: &[i64]| {
            let mut out = Vec::new();
            encode(values, &Shape::plain(values.len()), Effort::Append, &mut out).unwrap();
            reach(&Chunk::parse(&out, ColumnType::Int).unwrap()).unwrap()
        };
        assert_eq!(of(&[4, 4]), Some((4, 4)));
        assert_eq!(of(&[-4, 4]), Some((-4, 251)));
        assert_eq!(of(&[i64::MIN, i64::MAX]), Some((i64::MIN.into(), i64::MAX.into())));
        assert_eq!(of(&[i64::MAX - 1, i64::MAX]), None);
    }
}
