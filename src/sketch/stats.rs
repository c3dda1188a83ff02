//! Count, nulls, sum, least and greatest of a numeric column (spec 7.1).
//!
//! Integer sums are exact in 128 bits, and an average of integers is rounded once. Float
//! sums carry two floats: TwoSum (Knuth, The Art of Computer Programming, volume 2,
//! section 4.2.2) catches the rounding error of every addition, as in the compensated
//! summation of Neumaier (1974), in eight lanes that are joined at the end.

use std::cmp::Ordering;

use crate::column::Bitmap;
use crate::format::order::{float_from_key, float_key};

/// A number of an integer or a float column.
///
/// Ordered by value; floats by total order, so that -0.0 is less than +0.0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    /// Of an integer column.
    Int(i64),
    /// Of a float column.
    Float(f64),
}

impl Number {
    /// The number as a float, rounded to the nearest.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            // Columns do not mix; among equals the integer comes first.
            (Self::Int(a), Self::Float(b)) => (*a as f64).total_cmp(b).then(Ordering::Less),
            (Self::Float(a), Self::Int(b)) => a.total_cmp(&(*b as f64)).then(Ordering::Greater),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

/// A sum that does not depend on how it was put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sum {
    /// Of integers, exact.
    Int(i128),
    /// Of floats: `hi + lo`, equal within 1e-12 of the sum of magnitudes however it was
    /// merged. A sum beyond the range of floats stays at the greatest finite float.
    Float {
        /// The sum as a float.
        hi: f64,
        /// What `hi` lacks.
        lo: f64,
    },
}

impl Sum {
    /// The sum as a float, rounded to the nearest.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Int(sum) => sum as f64,
            Self::Float { hi, lo } => hi + lo,
        }
    }

    /// Adds another sum.
    #[inline]
    pub(crate) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Int(a), Self::Int(b)) => *a = a.saturating_add(b),
            (a, b) => *self = a.pair().add(b.pair()).finite().sum(),
        }
    }

    /// Of floats that are integers over a divisor, each rounded to the nearest: their exact
    /// sum is this but for the rounding of each.
    pub(crate) fn of_quotients(integers: i128, divisor: f64) -> Self {
        let Pair { hi, lo } = Self::Int(integers).pair();
        let quotient = hi / divisor;
        // What the division left over, which is a float exactly.
        let rest = quotient.mul_add(-divisor, hi);
        Self::Float { hi: quotient, lo: (rest + lo) / divisor }
    }

    fn pair(self) -> Pair {
        match self {
            Self::Float { hi, lo } => Pair { hi, lo },
            Self::Int(sum) => {
                let hi = sum as f64;
                // The remainder is below 2^75, the cast back is exact or saturates.
                #[expect(clippy::cast_possible_truncation, reason = "saturates at the ends")]
                let back = hi as i128;
                Pair { hi, lo: sum.saturating_sub(back) as f64 }
            }
        }
    }
}

/// A float sum under way.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    hi: f64,
    lo: f64,
}

impl Pair {
    /// TwoSum: `hi` takes the rounded sum, `lo` what rounding lost.
    #[inline(always)]
    fn push(&mut self, value: f64) {
        let sum = self.hi + value;
        let part = sum - self.hi;
        self.lo += (self.hi - (sum - part)) + (value - part);
        self.hi = sum;
    }

    /// Adds a pair, and keeps `lo` below the last bit of `hi`, so that merging many pairs
    /// loses nothing.
    fn add(mut self, other: Self) -> Self {
        self.push(other.hi);
        self.lo += other.lo;
        if !self.is_finite() {
            return self;
        }
        let mut tidy = Self { hi: self.hi, lo: 0.0 };
        tidy.push(self.lo);
        tidy
    }

    fn of(values: &[f64]) -> Self {
        let pair = Self::of_scaled(values, 1.0);
        if pair.is_finite() {
            return pair;
        }
        // A partial sum left the range of floats; the whole need not. Scaling by a power
        // of two is exact but for values too small to count beside those that overflow.
        const SCALE: f64 = 1.0 / (1u128 << 80) as f64;
        let Self { hi, lo } = Self::of_scaled(values, SCALE);
        Self { hi: hi / SCALE, lo: lo / SCALE }.finite()
    }

    fn of_scaled(values: &[f64], scale: f64) -> Self {
        const LANES: usize = 8;
        /// Below this, joining the lanes costs more than they save.
        const FEW: usize = 64;
        if values.len() < FEW {
            let mut pair = Self::default();
            values.iter().for_each(|value| pair.push(value * scale));
            return pair;
        }
        let mut lanes = [Self::default(); LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                lane.push(value * scale);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            lane.push(value * scale);
        }
        lanes.into_iter().fold(Self::default(), Self::add)
    }

    fn is_finite(self) -> bool {
        self.hi.is_finite() && self.lo.is_finite()
    }

    /// The pair, or the greatest float of its sign when it left the range.
    fn finite(self) -> Self {
        if self.is_finite() {
            self
        } else if self.hi.is_nan() {
            Self::default()
        } else {
            Self { hi: f64::MAX.copysign(self.hi), lo: 0.0 }
        }
    }

    fn sum(self) -> Sum {
        Sum::Float { hi: self.hi, lo: self.lo }
    }
}

/// What is kept of a numeric column of some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stats {
    /// Rows, nulls included.
    pub(crate) rows: u64,
    /// Rows without a value.
    pub(crate) nulls: u64,
    /// Sum of the values.
    pub(crate) sum: Sum,
    /// Least value.
    pub(crate) min: Option<Number>,
    /// Greatest value.
    pub(crate) max: Option<Number>,
}

impl Stats {
    /// Of no rows of an integer column.
    pub(crate) const INT: Self = Self { rows: 0, nulls: 0, sum: Sum::Int(0), min: None, max: None };

    /// Of no rows of a float column.
    pub(crate) const FLOAT: Self = Self { sum: Sum::Float { hi: 0.0, lo: 0.0 }, ..Self::INT };

    /// Rows that have a value.
    pub(crate) fn count(&self) -> u64 {
        self.rows.saturating_sub(self.nulls)
    }

    /// Adds rows of an integer column.
    pub(crate) fn add_ints(&mut self, values: &[i64], validity: Option<&Bitmap>) {
        self.rows += values.len() as u64;
        let count = for_valid(values, validity, |values| {
            self.sum.merge(Sum::Int(sum_of_ints(values)));
            let (min, max) = values
                .iter()
                .fold((i64::MAX, i64::MIN), |(min, max), value| (min.min(*value), max.max(*value)));
            self.widen(Number::Int(min), Number::Int(max));
        });
        self.nulls += values.len() as u64 - count;
    }

    /// Adds rows of a float column.
    pub(crate) fn add_floats(&mut self, values: &[f64], validity: Option<&Bitmap>) {
        self.rows += values.len() as u64;
        let count = for_valid(values, validity, |values| {
            self.sum.merge(Pair::of(values).sum());
            // Two passes, each of which is a plain reduction.
            let keys = || values.iter().map(|value| float_key(*value));
            let min = keys().fold(i64::MAX, i64::min);
            let max = keys().fold(i64::MIN, i64::max);
            self.widen(Number::Float(float_from_key(min)), Number::Float(float_from_key(max)));
        });
        self.nulls += values.len() as u64 - count;
    }

    /// Adds the rows that `other` stands for.
    #[inline]
    pub(crate) fn merge(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.nulls = self.nulls.saturating_add(other.nulls);
        self.sum.merge(other.sum);
        if let (Some(min), Some(max)) = (other.min, other.max) {
            self.widen(min, max);
        }
    }

    #[inline]
    fn widen(&mut self, min: Number, max: Number) {
        // Integers by far the most often: without going through the order of all numbers.
        if let (
            Some(Number::Int(least)),
            Some(Number::Int(greatest)),
            Number::Int(min),
            Number::Int(max),
        ) = (&mut self.min, &mut self.max, min, max)
        {
            *least = min.min(*least);
            *greatest = max.max(*greatest);
            return;
        }
        self.min = Some(self.min.map_or(min, |least| least.min(min)));
        self.max = Some(self.max.map_or(max, |greatest| greatest.max(max)));
    }

    /// The mean of the values; `None` when there is none. Of integers it is the float
    /// nearest to the exact quotient.
    pub(crate) fn average(&self) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        Some(match self.sum {
            Sum::Int(sum) => quotient(sum, count),
            Sum::Float { hi, lo } => (hi + lo) / count as f64,
        })
    }
}

/// Calls `with` on runs of the values that are not null; returns how many there are.
fn for_valid<T: Copy + Default>(
    values: &[T],
    validity: Option<&Bitmap>,
    mut with: impl FnMut(&[T]),
) -> u64 {
    let Some(validity) = validity else {
        if !values.is_empty() {
            with(values);
        }
        return values.len() as u64;
    };
    const RUN: usize = 1024;
    let mut run = [T::default(); RUN];
    let mut count = 0;
    for (chunk, bits) in values.chunks(RUN).zip(validity.as_bytes().chunks(RUN / 8)) {
        let mut len = 0;
        for (eight, byte) in chunk.chunks(8).zip(bits) {
            for (index, value) in eight.iter().enumerate() {
                // Always written, kept only if valid: no branch on the data.
                run[len] = *value;
                len += usize::from(byte >> index & 1);
            }
        }
        if len > 0 {
            with(&run[..len]);
        }
        count += len as u64;
    }
    count
}

/// Exact sum, as two sums of 32-bit halves that cannot overflow.
fn sum_of_ints(values: &[i64]) -> i128 {
    const RUN: usize = 1 << 20;
    let mut total = 0;
    for run in values.chunks(RUN) {
        let (mut low, mut high) = (0i64, 0i64);
        for value in run {
            low = low.wrapping_add(value & 0xFFFF_FFFF);
            high = high.wrapping_add(value >> 32);
        }
        total += (i128::from(high) << 32) + i128::from(low);
    }
    total
}

/// `sum / count` as the nearest float, ties to even.
fn quotient(sum: i128, count: u64) -> f64 {
    let (magnitude, count) = (sum.unsigned_abs(), u128::from(count.max(1)));
    // A float keeps 53 bits. With at least 55 bits of quotient, all that lies below them
    // matters only by being there, and is folded into the last one.
    let shift = (56 + bits(count)).saturating_sub(bits(magnitude));
    let scaled = magnitude << shift;
    let sticky = u128::from(!scaled.is_multiple_of(count));
    let rounded = ((scaled / count) | sticky) as f64;
    let exact = rounded / (1u128 << shift) as f64;
    if sum < 0 { -exact } else { exact }
}

fn bits(value: u128) -> u32 {
    128 - value.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sum of floats as an exact multiple of 2^-1074, for values that are not too large.
    fn exact_sum(values: &[f64]) -> f64 {
        // Neumaier with three levels is far below the promised error.
        let (mut a, mut b, mut c) = (0.0f64, 0.0f64, 0.0f64);
        for value in values {
            let mut first = Pair { hi: a, lo: 0.0 };
            first.push(*value);
            a = first.hi;
            let mut second = Pair { hi: b, lo: 0.0 };
            second.push(first.lo);
            b = second.hi;
            c += second.lo;
        }
        a + (b + c)
    }

    fn floats(values: &[f64]) -> Stats {
        let mut stats = Stats::FLOAT;
        stats.add_floats(values, None);
        stats
    }

    proptest! {
        #[test]
        fn ints_are_exact_however_merged(
            rows in prop::collection::vec(prop::option::of(any::<i64>()), 0..3000),
            cut in any::<prop::sample::Index>(),
        ) {
            let values: Vec<i64> = rows.iter().map(|row| row.unwrap_or(0)).collect();
            let validity: Bitmap = rows.iter().map(Option::is_some).collect();
            let mut whole = Stats::INT;
            whole.add_ints(&values, Some(&validity));
            let valid = || rows.iter().flatten().copied();
            prop_assert_eq!(whole.rows, rows.len() as u64);
            prop_assert_eq!(whole.count(), valid().count() as u64);
            prop_assert_eq!(whole.sum, Sum::Int(valid().map(i128::from).sum()));
            prop_assert_eq!(whole.min, valid().min().map(Number::Int));
            prop_assert_eq!(whole.max, valid().max().map(Number::Int));

            let cut = cut.index(rows.len() + 1);
            let mut merged = Stats::INT;
            for part in [&rows[..cut], &rows[cut..]] {
                let mut stats = Stats::INT;
                let values: Vec<i64> = part.iter().map(|row| row.unwrap_or(0)).collect();
                let validity: Bitmap = part.iter().map(Option::is_some).collect();
                stats.add_ints(&values, Some(&validity));
                merged.merge(&stats);
            }
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn floats_keep_the_promise_however_merged(
            values in prop::collection::vec(-1e15f64..1e15, 1..2000),
            scale in -200i32..200,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let values: Vec<f64> = values.iter().map(|value| value * 2f64.powi(scale)).collect();
            let magnitudes: f64 = values.iter().map(|value| value.abs()).sum();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(values.len())).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let mut merged = Stats::FLOAT;
            for pair in cuts.windows(2) {
                merged.merge(&floats(&values[pair[0]..pair[1]]));
            }
            let whole = floats(&values);
            let close = |sum: Sum| (sum.to_f64() - exact_sum(&values)).abs() <= 1e-15 * magnitudes;
            prop_assert!(close(whole.sum) && close(merged.sum));
            prop_assert_eq!((merged.min, merged.max), (whole.min, whole.max));
            prop_assert_eq!(merged.rows, whole.rows);
            let least = values.iter().copied().min_by(f64::total_cmp).map(Number::Float);
            prop_assert_eq!(whole.min, least);
        }

        #[test]
        fn any_finite_floats_give_a_finite_sum(
            bits in prop::collection::vec(any::<u64>(), 0..200),
        ) {
            let values: Vec<f64> =
                bits.into_iter().map(f64::from_bits).filter(|value| value.is_finite()).collect();
            let mut stats = floats(&values);
            prop_assert!(stats.sum.to_f64().is_finite());
            stats.merge(&floats(&values));
            prop_assert!(stats.sum.to_f64().is_finite());
        }

        #[test]
        fn quotients_round_once(sum in any::<i128>(), shift in 0u32..127, count in 1u64..) {
            let sum = sum >> shift;
            let got = quotient(sum, count);
            // The exact quotient lies between the neighbours' midpoints: compare in
            // integers, got = mantissa * 2^exponent.
            let nearest = |value: f64| (value - got).abs();
            let rough = sum as f64 / count as f64;
            prop_assert!(nearest(rough) <= got.abs() * 4.5e-16);
            if sum.unsigned_abs() < 1 << 53 && count < 1 << 53 {
                // Both exact: division of floats rounds once as well.
                prop_assert_eq!(got.to_bits(), (rough + 0.0).to_bits());
            }
        }
    }

    proptest! {
        #[test]
        fn sums_of_quotients_keep_the_promise(
            integers in prop::collection::vec(-(1i64 << 53)..1 << 53, 0..300),
            exponent in 0i32..=18,
        ) {
            let divisor = 10f64.powi(exponent);
            let values: Vec<f64> = integers.iter().map(|int| *int as f64 / divisor).collect();
            let magnitudes: f64 = values.iter().map(|value| value.abs()).sum();
            let sum = integers.iter().map(|int| i128::from(*int)).sum();
            let error = Sum::of_quotients(sum, divisor).to_f64() - exact_sum(&values);
            prop_assert!(error.abs() <= 1e-15 * magnitudes);
        }
    }

    #[test]
    fn averages_round_once() {
        // Rounding the sum first would give 2^53 / 3, a different float.
        let mut stats = Stats::INT;
        stats.add_ints(&[1 << 53, 1, 0], None);
        assert_eq!(stats.average(), Some(3_002_399_751_580_331.0));
        let mut large = Stats::INT;
        large.add_ints(&[i64::MAX, i64::MAX], None);
        assert_eq!(large.average(), Some(i64::MAX as f64));
        large.add_ints(&[i64::MIN, i64::MIN], None);
        assert_eq!(large.average(), Some(-0.5));
        assert_eq!(Stats::INT.average(), None);
        assert_eq!(quotient(0, u64::MAX), 0.0);
        assert_eq!(quotient(1, u64::MAX), 1.0 / u64::MAX as f64);
        assert_eq!(quotient(i128::MIN, 1), i128::MIN as f64);
        assert_eq!(quotient(i128::MAX, u64::MAX), i128::MAX as f64 / u64::MAX as f64);
    }

    #[test]
    fn cancellation_keeps_the_small_parts() {
        let stats = floats(&[1e16, 1.0, -1e16, 1.0]);
        assert_eq!(stats.sum.to_f64(), 2.0);
        let mut merged = floats(&[1e16, 1.0]);
        merged.merge(&floats(&[-1e16, 1.0]));
        assert_eq!(merged.sum.to_f64(), 2.0);
    }

    #[test]
    fn sums_out_of_range_come_back_or_stay_at_the_end() {
        assert_eq!(floats(&[1e308, 1e308, -1e308, -1e308]).sum.to_f64(), 0.0);
        assert_eq!(floats(&[f64::MAX, f64::MAX]).sum.to_f64(), f64::MAX);
        assert_eq!(floats(&[-f64::MAX; 20]).sum.to_f64(), -f64::MAX);
        let mut merged = floats(&[f64::MAX]);
        merged.merge(&floats(&[f64::MAX]));
        assert_eq!(merged.sum.to_f64(), f64::MAX);
    }

    #[test]
    fn numbers_sort_by_total_order() {
        assert!(Number::Float(-0.0) < Number::Float(0.0));
        assert!(Number::Int(-1) < Number::Int(0));
        assert_ne!(Number::Int(1), Number::Float(1.0));
        let stats = floats(&[0.0, -0.0]);
        assert_eq!(stats.min, Some(Number::Float(-0.0)));
        assert_eq!(stats.max, Some(Number::Float(0.0)));
        assert_eq!(Number::Int(7).to_f64(), 7.0);
    }

    #[test]
    fn mixed_sums_do_not_panic() {
        let mut sum = Sum::Int(i128::from(i64::MAX) * 2);
        sum.merge(Sum::Float { hi: 0.5, lo: 0.0 });
        assert_eq!(sum.to_f64(), i64::MAX as f64 * 2.0);
    }
}
