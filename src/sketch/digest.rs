//! Digests of many values, for percentiles with an honest bound (spec 7.2, 7.3).
//!
//! The centroids come from the merging t-digest (Dunning, Ertl, Computing extremely
//! accurate quantiles using t-digests, 2019; crate `tdigest`). We differ in what is read
//! off them: a curve of our own through min, centroids and max, with a step wherever all
//! values of a centroid are known to be equal; and in measuring, while the values are at
//! hand, how far that curve is from the truth. The largest distance is stored, merged
//! and reported. Few distinct values are kept as they are, and answer exactly.
//!
//! Integers enter as floats. Beyond 2^53 that rounds, which keeps their order, so that
//! every statement about ranks holds for the rounded values.

use tdigest::{Centroid, TDigest};

use crate::error::{Error, Result};
use crate::format::layout::{
    DIGEST_COUNT_MAX, PLAIN_CENTROIDS_MAX, SKETCH_KIND_PLAIN, SKETCH_KIND_TDIGEST,
    TDIGEST_CENTROIDS_MAX,
};
use crate::format::order::{float_from_key, float_key};

const SECTION: &str = "7.2";

/// Values of one leaf when many are digested: leaves are merged in one call, so that no
/// copy of all values is made.
const LEAF_VALUES: usize = 64 << 10;

/// Half of the last step of a short mean, of 12 bits behind the leading one: a quarter of a
/// thousandth of the value.
const MEAN_HALF: u64 = 1 << 39;

/// What short means may add to the error of a digest.
const ROUNDING_ERROR_MAX: f64 = 0.0005;

/// Relative rounding of a few float operations, with room to spare.
const ROUNDING: f64 = 1.0 / (1u64 << 40) as f64;

/// How a digest keeps its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SketchKind {
    /// Each distinct value with the number of times that it occurs.
    Plain,
    /// The centroids of a t-digest.
    TDigest,
}

impl SketchKind {
    /// The tag, as stored.
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Plain => SKETCH_KIND_PLAIN,
            Self::TDigest => SKETCH_KIND_TDIGEST,
        }
    }

    const fn centroids_max(self) -> usize {
        match self {
            Self::Plain => PLAIN_CENTROIDS_MAX,
            Self::TDigest => TDIGEST_CENTROIDS_MAX,
        }
    }
}

/// A summary of at least one value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Digest {
    kind: SketchKind,
    centroids: Vec<(f64, u64)>,
    min: f64,
    max: f64,
    count: u64,
    error: f64,
}

impl Digest {
    /// The digest of the finite values of `values`, which are left sorted; `None` when
    /// there is none.
    pub(crate) fn build(values: &mut Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        // One zero only, so that equal values are next to each other.
        values.iter_mut().for_each(|value| *value += 0.0);
        if !values.is_sorted() {
            values.sort_unstable_by(f64::total_cmp);
        }
        let (min, max) = (*values.first()?, *values.last()?);
        let count = values.len() as u64;
        if let Some(centroids) = distinct(values) {
            let kind = SketchKind::Plain;
            return Some(Self { kind, centroids, min, max, count, error: 0.0 });
        }
        let mut digest = Self::of_tdigest(&digest_sorted(values), min, max, count);
        digest.error = digest.largest_error(values);
        Some(digest)
    }

    fn of_tdigest(digest: &TDigest, min: f64, max: f64, count: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers up to 2^53")]
        let centroid =
            |centroid: &Centroid| (centroid.mean().clamp(min, max) + 0.0, centroid.weight() as u64);
        let mut centroids: Vec<_> = digest.centroids().iter().map(centroid).collect();
        centroids.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { kind: SketchKind::TDigest, centroids, min, max, count, error: 0.0 }
    }

    /// The same with means of few digits, which are smaller when stored, if that hardly
    /// costs accuracy. `sorted` are the values it was built of.
    pub(crate) fn rounded(mut self, sorted: &[f64]) -> Self {
        if self.kind == SketchKind::Plain {
            return self;
        }
        let mut short = self.clone();
        for (mean, _) in &mut short.centroids {
            let bits = (mean.to_bits() + MEAN_HALF) & !(MEAN_HALF * 2 - 1);
            *mean = f64::from_bits(bits).clamp(self.min, self.max) + 0.0;
        }
        short.error = short.largest_error(sorted);
        if short.error <= self.error + ROUNDING_ERROR_MAX {
            self = short;
        }
        self
    }

    /// One digest of all that several stand for; `None` of none. Its bound is the sum of
    /// theirs and the largest distance between its own curve and the sum of their curves.
    pub(crate) fn merged(digests: &[&Self]) -> Option<Self> {
        let first = *digests.first()?;
        if digests.len() == 1 {
            return Some(first.clone());
        }
        let all = MergedCdf::new(digests);
        let (min, max, count) = (all.min, all.max, all.count);
        let mut centroids: Vec<(f64, u64)> =
            digests.iter().flat_map(|digest| digest.centroids.iter().copied()).collect();
        centroids.sort_by(|a, b| a.0.total_cmp(&b.0));
        if digests.iter().all(|digest| digest.kind == SketchKind::Plain) {
            centroids.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
            if centroids.len() <= PLAIN_CENTROIDS_MAX {
                let kind = SketchKind::Plain;
                return Some(Self { kind, centroids, min, max, count, error: 0.0 });
            }
        }
        let parts = digests.iter().map(|digest| {
            let centroids = digest.centroids.iter();
            let centroids: Vec<_> =
                centroids.map(|(mean, weight)| Centroid::new(*mean, *weight as f64)).collect();
            let sum = centroids.iter().map(|c| c.mean() * c.weight()).sum();
            let size = TDIGEST_CENTROIDS_MAX;
            let (min, max) = (Some(digest.min), Some(digest.max));
            TDigest::new(centroids, sum, digest.count as f64, max, min, size)
        });
        let merged = TDigest::merge_digests(parts.collect());
        let mut merged = Self::of_tdigest(&merged, min, max, count);
        merged.error =
            rounded_up((all.error_ranks + all.largest_distance(&merged.curve())) / count as f64);
        Some(merged)
    }

    /// The digest of stored parts.
    ///
    /// # Errors
    ///
    /// `Corrupt` when a rule of spec 7.2 is broken.
    pub(crate) fn from_parts(
        kind: u8,
        centroids: Vec<(f64, u64)>,
        (min, max): (f64, f64),
        count: u64,
        error: f64,
    ) -> Result<Self> {
        let kind = match kind {
            SKETCH_KIND_PLAIN => SketchKind::Plain,
            SKETCH_KIND_TDIGEST => SketchKind::TDigest,
            other => return Err(corrupt(format!("sketch kind {other} is unknown"))),
        };
        let digest = Self { kind, centroids, min, max, count, error };
        digest.validate()?;
        Ok(digest)
    }

    fn validate(&self) -> Result<()> {
        let plain = self.kind == SketchKind::Plain;
        if !(1..=self.kind.centroids_max()).contains(&self.centroids.len()) {
            return Err(corrupt(format!("digest of {} centroids", self.centroids.len())));
        }
        let extremes = [self.min, self.max];
        let means = || self.centroids.iter().map(|(mean, _)| *mean);
        let stored = |value: f64| value.is_finite() && float_key(value) != float_key(-0.0);
        if !means().chain(extremes).all(stored) {
            return Err(corrupt("a value is not finite, or is -0.0".to_owned()));
        }
        let ascending = if plain {
            self.centroids.is_sorted_by(|a, b| a.0 < b.0)
        } else {
            self.centroids.is_sorted_by(|a, b| a.0 <= b.0)
        };
        let (first, last) = (means().next(), means().next_back());
        let inside = first >= Some(self.min) && last <= Some(self.max);
        let exact = (first, last) == (Some(self.min), Some(self.max));
        if !ascending || !inside || (plain && !exact) {
            return Err(corrupt("means do not rise from min to max".to_owned()));
        }
        let weights = self.centroids.iter().map(|(_, weight)| *weight);
        let sum = weights.clone().try_fold(0u64, u64::checked_add);
        if weights.min() == Some(0) || sum != Some(self.count) || self.count > DIGEST_COUNT_MAX {
            return Err(corrupt(format!("weights do not add up to {}", self.count)));
        }
        if !(0.0..=1.0).contains(&self.error) || (plain && self.error != 0.0) {
            return Err(corrupt(format!("error of {}", self.error)));
        }
        Ok(())
    }

    /// How the values are kept.
    pub(crate) fn kind(&self) -> SketchKind {
        self.kind
    }

    /// Mean and weight of each centroid, rising.
    pub(crate) fn centroids(&self) -> &[(f64, u64)] {
        &self.centroids
    }

    /// The least value.
    pub(crate) fn min(&self) -> f64 {
        self.min
    }

    /// The greatest value.
    pub(crate) fn max(&self) -> f64 {
        self.max
    }

    /// How many values it stands for.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The largest distance between what the digest says and the truth, as a share of
    /// all values.
    pub(crate) fn error(&self) -> f64 {
        self.error
    }

    /// Whether all values behind a run of centroids of the same mean are that mean:
    /// centroids of sorted values do not overlap, so two can agree only if both are pure,
    /// and only pure ones reach the extremes. After merging cells this is a guess, whose
    /// cost is measured like any other.
    fn is_pure(&self, run: &[(f64, u64)]) -> bool {
        self.kind == SketchKind::Plain
            || run.len() > 1
            || run.first().is_some_and(|(mean, _)| *mean == self.min || *mean == self.max)
    }

    fn runs(&self) -> impl Iterator<Item = &[(f64, u64)]> {
        self.centroids.chunk_by(|a, b| a.0 == b.0)
    }

    /// The curve that the digest stands for (spec 7.3).
    fn curve(&self) -> Curve {
        let mut curve = Curve::default();
        let mut before = 0;
        for run in self.runs() {
            let Some((mean, _)) = run.first() else { continue };
            let weight: u64 = run.iter().map(|(_, weight)| weight).sum();
            if curve.values.is_empty() && *mean > self.min {
                curve.push(self.min, 0.0, 1.0);
            }
            if self.is_pure(run) {
                curve.push(*mean, before as f64, (before + weight) as f64);
            } else {
                let middle = before as f64 + weight as f64 / 2.0;
                curve.push(*mean, middle, middle);
            }
            before += weight;
        }
        if curve.values.last().is_some_and(|last| *last < self.max) {
            curve.push(self.max, (self.count - 1) as f64, self.count as f64);
        }
        curve
    }

    /// The largest distance from the true curve of the sorted `values`. Between two
    /// values the truth is flat and ours rises, so that both sides of each value are all
    /// that has to be looked at.
    fn largest_error(&self, values: &[f64]) -> f64 {
        let curve = self.curve();
        let mut place = 0;
        let mut largest = 0.0f64;
        let mut before = 0.0;
        for run in values.chunk_by(|a, b| a == b) {
            let Some(value) = run.first() else { continue };
            let after = before + run.len() as f64;
            let (below, upto) = curve.sides(*value, &mut place);
            largest = largest.max((below - before).abs()).max((upto - after).abs());
            before = after;
        }
        rounded_up(largest / self.count as f64)
    }
}

/// The distinct values and how often each occurs, if they are few enough to be kept.
fn distinct(sorted: &[f64]) -> Option<Vec<(f64, u64)>> {
    let mut found = Vec::new();
    for run in sorted.chunk_by(|a, b| a == b) {
        if found.len() == PLAIN_CENTROIDS_MAX {
            return None;
        }
        found.push((*run.first()?, run.len() as u64));
    }
    Some(found)
}

/// A t-digest of sorted values: of leaves, merged in one call, when they are many.
fn digest_sorted(values: &[f64]) -> TDigest {
    let empty = TDigest::new_with_size(TDIGEST_CENTROIDS_MAX);
    let mut leaves: Vec<_> =
        values.chunks(LEAF_VALUES).map(|leaf| empty.merge_sorted(leaf.to_vec())).collect();
    match leaves.pop() {
        Some(only) if leaves.is_empty() => only,
        Some(last) => {
            leaves.push(last);
            TDigest::merge_digests(leaves)
        }
        None => empty,
    }
}

fn rounded_up(error: f64) -> f64 {
    (error * (1.0 + ROUNDING)).min(1.0)
}

fn corrupt(message: String) -> Error {
    Error::corrupt(SECTION, message)
}

/// How many values are at most x, as a function of x: straight lines between points, and
/// a step up at each point from `below` to `upto`.
#[derive(Clone, Debug, Default)]
struct Curve {
    values: Vec<f64>,
    below: Vec<f64>,
    upto: Vec<f64>,
}

impl Curve {
    /// Adds a point to the right; the curve never falls.
    fn push(&mut self, value: f64, below: f64, upto: f64) {
        let below = below.max(self.upto.last().copied().unwrap_or(0.0));
        self.values.push(value);
        self.below.push(below);
        self.upto.push(upto.max(below));
    }

    /// The curve just before and at `value`. `place` is kept from call to call while
    /// values rise.
    fn sides(&self, value: f64, place: &mut usize) -> (f64, f64) {
        while self.values.get(*place).is_some_and(|point| *point < value) {
            *place += 1;
        }
        match self.values.get(*place) {
            Some(point) if *point == value => (self.below[*place], self.upto[*place]),
            _ => {
                let between = self.between(*place, value);
                (between, between)
            }
        }
    }

    /// The curve at `value`.
    fn at(&self, value: f64) -> f64 {
        let place = self.values.partition_point(|point| *point <= value);
        match place.checked_sub(1) {
            Some(previous) if self.values[previous] == value => self.upto[previous],
            _ => self.between(place, value),
        }
    }

    /// The curve strictly between the points `place - 1` and `place`.
    fn between(&self, place: usize, value: f64) -> f64 {
        let Some(previous) = place.checked_sub(1) else { return 0.0 };
        let left = self.upto[previous];
        let Some(right) = self.below.get(place).copied() else { return left };
        let share = share_of(value, self.values[previous], self.values[place]);
        // Each step rounds towards no side in particular but keeps the order of values,
        // and so does the whole; the clamp keeps it so across points.
        (left + (right - left) * share).clamp(left, right)
    }
}

/// Where `value` lies between `left` and `right`, without overflow.
fn share_of(value: f64, left: f64, right: f64) -> f64 {
    let width = right - left;
    if width.is_finite() {
        (value - left) / width
    } else {
        (value / 2.0 - left / 2.0) / (right / 2.0 - left / 2.0)
    }
}

/// What several digests say together: the sum of their curves, with one bound.
#[derive(Clone, Debug)]
pub(crate) struct MergedCdf {
    curves: Vec<Curve>,
    min: f64,
    max: f64,
    count: u64,
    /// The bound as a number of values.
    error_ranks: f64,
}

impl MergedCdf {
    /// The sum of the curves of `digests`.
    pub(crate) fn new(digests: &[&Digest]) -> Self {
        let count = digests.iter().map(|digest| digest.count).fold(0, u64::saturating_add);
        let sum: f64 = digests.iter().map(|digest| digest.count as f64 * digest.error).sum();
        // Sums of whole numbers are exact; others round once per curve.
        let slack = count as f64 * (digests.len() + 4) as f64 * f64::EPSILON;
        let exact = digests.iter().all(|digest| digest.kind == SketchKind::Plain);
        Self {
            curves: digests.iter().map(|digest| digest.curve()).collect(),
            min: digests.iter().map(|digest| digest.min).fold(f64::INFINITY, f64::min),
            max: digests.iter().map(|digest| digest.max).fold(f64::NEG_INFINITY, f64::max),
            count,
            error_ranks: if exact { 0.0 } else { sum * (1.0 + ROUNDING) + slack },
        }
    }

    /// How many values the digests stand for.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The bound of every answer: how far the rank of the value given may be from the
    /// rank asked for, as a share of all values. Zero means exact.
    pub(crate) fn error(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.error_ranks / self.count as f64).min(1.0) }
    }

    /// The rank of percentile `p` (0 to 1) among the ascending values, from zero.
    pub(crate) fn rank_of(&self, p: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "truncation is the definition")]
        let rank = (self.count as f64 * p) as u64;
        rank.min(self.count.saturating_sub(1))
    }

    /// The value at percentile `p` (0 to 1); `None` when there are no values.
    pub(crate) fn quantile(&self, p: f64) -> Option<f64> {
        self.value_at(self.rank_of(p))
    }

    /// The value at `rank` from zero; `None` when there are not so many.
    pub(crate) fn value_at(&self, rank: u64) -> Option<f64> {
        // The curve steps from `rank` to `rank + 1` there: half way, whatever side the
        // rounding of a sum falls on.
        let target = rank as f64 + 0.5;
        (rank < self.count).then(|| self.first(|sum| sum >= target) + 0.0)
    }

    /// Values between which, both included, the exact values of the ranks `first` to
    /// `last` surely lie; `None` when there are not so many. Integers are meant as
    /// rounded to floats.
    pub(crate) fn bracket(&self, first: u64, last: u64) -> Option<(f64, f64)> {
        if first > last || last >= self.count {
            return None;
        }
        // The truth at the value of rank k is at least k + 1, and just before it at most k.
        let least = (first as f64 + 1.0) - self.error_ranks;
        let most = last as f64 + self.error_ranks;
        let low = self.first(|sum| sum >= least);
        let high = self.first(|sum| sum > most);
        // A zero may be of either sign.
        let low = if low == 0.0 { -0.0 } else { low };
        Some((low, high + 0.0))
    }

    /// The least value from min to max at which the sum satisfies `enough`, which no
    /// greater sum violates; max if none does.
    fn first(&self, enough: impl Fn(f64) -> bool) -> f64 {
        let (mut low, mut high) = (float_key(self.min), float_key(self.max));
        while low < high {
            // The mean rounded down, without overflow.
            let middle = (low & high) + ((low ^ high) >> 1);
            if enough(self.sum_at(float_from_key(middle))) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        float_from_key(high)
    }

    /// The largest distance from another curve, in values. Both are straight between
    /// their points, so that both sides of each point are all that has to be looked at.
    fn largest_distance(&self, other: &Curve) -> f64 {
        let curves = self.curves.iter().chain([other]);
        let mut points: Vec<f64> = curves.flat_map(|curve| curve.values.iter().copied()).collect();
        points.sort_by(f64::total_cmp);
        points.dedup();
        let mut places = vec![0; self.curves.len()];
        let mut place = 0;
        let distance = |point: f64| {
            let (mut below, mut upto) = (0.0, 0.0);
            for (curve, place) in self.curves.iter().zip(&mut places) {
                let sides = curve.sides(point, place);
                (below, upto) = (below + sides.0, upto + sides.1);
            }
            let sides = other.sides(point, &mut place);
            (sides.0 - below).abs().max((sides.1 - upto).abs())
        };
        points.into_iter().map(distance).fold(0.0, f64::max)
    }

    fn sum_at(&self, value: f64) -> f64 {
        self.curves.iter().map(|curve| curve.at(value)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::spec_text;
    use proptest::prelude::*;

    /// A small generator (SplitMix64): the same numbers everywhere.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        fn unit(&mut self) -> f64 {
            ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
        }
    }

    /// Hard distributions by name.
    fn distributions(count: usize) -> Vec<(&'static str, Vec<f64>)> {
        let mut numbers = Numbers(7);
        let mut of = |draw: &mut dyn FnMut(&mut Numbers, usize) -> f64| -> Vec<f64> {
            (0..count).map(|index| draw(&mut numbers, index)).collect()
        };
        vec![
            ("lognormal", of(&mut |n, _| (n.normal() * 1.5 + 6.0).exp())),
            ("lognormal in whole numbers", of(&mut |n, _| (n.normal() * 1.5 + 6.0).exp().round())),
            ("bimodal", of(&mut |n, i| n.normal() + if i % 10 == 0 { 1e6 } else { 0.0 })),
            ("constant", of(&mut |_, _| 42.0)),
            ("few values", of(&mut |n, _| (n.next() % 7) as f64)),
            ("half zero", of(&mut |n, i| if i % 2 == 0 { 0.0 } else { n.normal() })),
            ("ties", of(&mut |n, i| if i % 3 == 0 { 5.0 } else { (n.unit() * 3000.0).floor() })),
            ("heavy tail", of(&mut |n, _| n.unit().powf(-3.0))),
            ("sorted", of(&mut |_, i| i as f64)),
            ("reversed", of(&mut |_, i| -(i as f64))),
            ("outliers", of(&mut |n, i| if i % 1000 == 0 { 1e300 } else { n.unit() })),
            ("negative and zeros", of(&mut |n, i| if i % 5 == 0 { -0.0 } else { -n.unit() })),
            ("whole range", of(&mut |n, i| if i % 2 == 0 { 1.7e308 } else { -1.7e308 } * n.unit())),
            ("tiny", of(&mut |n, _| n.unit() * 1e-310)),
            ("three spikes", of(&mut |n, i| [1.0, 2.0, 3.0][i % 3] + n.unit() * 1e-9)),
        ]
    }

    /// Asserts that each answer is within the bound, and each bracket holds the truth.
    fn check(name: &str, cdf: &MergedCdf, sorted: &[f64]) {
        let n = sorted.len() as u64;
        assert_eq!(cdf.count(), n, "{name}");
        let ranks = (0..=200).map(|step| step * (n - 1) / 200);
        for rank in ranks.chain([1.min(n - 1), 2.min(n - 1), n.saturating_sub(2)]) {
            let value = cdf.value_at(rank).unwrap();
            let before = sorted.partition_point(|v| *v < value) as f64;
            let upto = sorted.partition_point(|v| *v <= value) as f64;
            let target = rank as f64 + 0.5;
            let off = (before - target).max(target - upto).max(0.0);
            let bound = cdf.error() * n as f64;
            assert!(off <= bound, "{name}: rank {rank} is off by {off}, bound {bound}");
            assert!(value >= sorted[0] && value <= sorted[sorted.len() - 1], "{name}: {value}");
            let exact = sorted[usize::try_from(rank).unwrap()];
            if cdf.error() == 0.0 {
                assert_eq!(value, exact, "{name}: rank {rank}");
            }
            let (low, high) = cdf.bracket(rank, rank).unwrap();
            assert!(low.total_cmp(&exact).is_le(), "{name}: rank {rank}: {exact} under {low}");
            assert!(high.total_cmp(&exact).is_ge(), "{name}: rank {rank}: {exact} over {high}");
        }
    }

    fn sorted(values: &[f64]) -> Vec<f64> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }

    fn reload(digest: &Digest) -> Digest {
        let Digest { centroids, min, max, count, error, kind } = digest.clone();
        Digest::from_parts(kind.tag(), centroids, (min, max), count, error).unwrap()
    }

    #[test]
    fn one_digest_keeps_its_bound() {
        for (name, values) in distributions(100_000) {
            let mut given = values.clone();
            let digest = Digest::build(&mut given).unwrap();
            assert_eq!(reload(&digest), digest, "{name}");
            let truth = sorted(&values);
            check(name, &MergedCdf::new(&[&digest]), &truth);
            let most = if name.starts_with("lognormal") { 0.0015 } else { 0.013 };
            assert!(digest.error() < most, "{name}: {}", digest.error());
        }
    }

    #[test]
    fn merged_digests_keep_their_bound() {
        for (name, values) in distributions(60_000) {
            let truth = sorted(&values);
            // Cells of very different sizes, some plain; by position, so that the sorted
            // inputs give cells that do not overlap.
            let mut cells = Vec::new();
            let mut rest = values.as_slice();
            for size in [1, 30, 399, 401, 1_000, 5_000, 20_000, usize::MAX] {
                let (cell, left) = rest.split_at(size.min(rest.len()));
                cells.extend(Digest::build(&mut cell.to_vec()));
                rest = left;
            }
            let cells: Vec<&Digest> = cells.iter().collect();
            let cdf = MergedCdf::new(&cells);
            check(name, &cdf, &truth);
            assert!(cdf.error() < 0.01, "{name}: {}", cdf.error());
        }
    }

    #[test]
    fn one_digest_of_several_keeps_its_bound() {
        for (name, values) in distributions(60_000) {
            let truth = sorted(&values);
            let mut cells = Vec::new();
            let mut rest = values.as_slice();
            for size in [1, 30, 399, 401, 1_000, 5_000, 20_000, usize::MAX] {
                let (cell, left) = rest.split_at(size.min(rest.len()));
                cells.extend(Digest::build(&mut cell.to_vec()));
                rest = left;
            }
            let cells: Vec<&Digest> = cells.iter().collect();
            let merged = Digest::merged(&cells).unwrap();
            assert_eq!(reload(&merged), merged, "{name}");
            check(name, &MergedCdf::new(&[&merged]), &truth);
            assert!(merged.error() < 0.03, "{name}: {}", merged.error());
            // And once more, as days are folded again and again.
            let mut late = values[..3_000].to_vec();
            let late = Digest::build(&mut late).unwrap();
            let again = Digest::merged(&[&merged, &late]).unwrap();
            let truth = sorted(&[values.as_slice(), &values[..3_000]].concat());
            check(name, &MergedCdf::new(&[&again]), &truth);
        }
        assert_eq!(Digest::merged(&[]), None);
    }

    #[test]
    fn short_means_keep_the_bound() {
        for (name, values) in distributions(20_000) {
            let mut given = values.clone();
            let digest = Digest::build(&mut given).unwrap();
            let short = digest.clone().rounded(&given);
            assert_eq!(reload(&short), short, "{name}");
            assert!(short.error() <= digest.error() + ROUNDING_ERROR_MAX, "{name}");
            check(name, &MergedCdf::new(&[&short]), &sorted(&values));
        }
    }

    #[test]
    fn many_values_are_digested_by_leaves() {
        let mut numbers = Numbers(3);
        let mut values: Vec<f64> =
            (0..3 * LEAF_VALUES + 17).map(|_| numbers.normal().exp()).collect();
        let digest = Digest::build(&mut values).unwrap();
        check("leaves", &MergedCdf::new(&[&digest]), &values);
        assert!(digest.error() < 0.003, "{}", digest.error());
    }

    #[test]
    fn few_values_are_exact() {
        for count in [1, 2, 3, 398, 399, 400, 401] {
            let mut values: Vec<f64> = (0..count).map(|i| f64::from(i * 7 % 1009)).collect();
            let digest = Digest::build(&mut values).unwrap();
            assert_eq!(digest.kind() == SketchKind::Plain, count <= 399);
            check("few", &MergedCdf::new(&[&digest]), &values);
        }
        // Many rows of few values are exact as well, and together.
        let mut low: Vec<f64> = (0..9_000).map(|i| f64::from(i % 150)).collect();
        let mut high: Vec<f64> = (0..9_000).map(|i| f64::from(i % 150 + 100)).collect();
        let (a, b) = (Digest::build(&mut low).unwrap(), Digest::build(&mut high).unwrap());
        let truth = sorted(&[low, high].concat());
        check("merged", &MergedCdf::new(&[&a, &b]), &truth);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(Digest::build(&mut Vec::new()), None);
        assert_eq!(Digest::build(&mut vec![f64::NAN, f64::INFINITY]), None);
        let cdf = MergedCdf::new(&[]);
        assert_eq!((cdf.quantile(0.5), cdf.bracket(0, 0), cdf.error()), (None, None, 0.0));
    }

    #[test]
    fn percentiles_use_the_rank_of_exact_ones() {
        let mut values: Vec<f64> = (1..=10).map(f64::from).collect();
        let digest = Digest::build(&mut values).unwrap();
        let cdf = MergedCdf::new(&[&digest]);
        for (p, value) in [(0.0, 1.0), (0.5, 6.0), (0.95, 10.0), (1.0, 10.0), (0.1, 2.0)] {
            assert_eq!(cdf.quantile(p), Some(value), "{p}");
        }
        assert_eq!(cdf.quantile(f64::NAN), Some(1.0));
        assert_eq!(cdf.quantile(-3.0), Some(1.0));
        assert_eq!(cdf.value_at(10), None);
        assert_eq!(cdf.bracket(2, 4), Some((3.0, 5.0)));
    }

    #[test]
    fn large_integers_keep_their_order() {
        let integers: Vec<i64> = (0..5_000).map(|i| (1 << 60) + i * 3).collect();
        let mut values: Vec<f64> = integers.iter().map(|value| *value as f64).collect();
        let digest = Digest::build(&mut values).unwrap();
        let cdf = MergedCdf::new(&[&digest]);
        for (rank, value) in integers.iter().enumerate() {
            let (low, high) = cdf.bracket(rank as u64, rank as u64).unwrap();
            assert!((low..=high).contains(&(*value as f64)));
        }
    }

    #[test]
    fn the_spec_example_holds() {
        // Stored as the text of spec 7.3 says: ten values behind three centroids.
        let digest =
            Digest::from_parts(2, vec![(1.0, 1), (4.0, 6), (20.0, 3)], (1.0, 30.0), 10, 0.25)
                .unwrap();
        let curve = digest.curve();
        let points: Vec<String> = (0..curve.values.len())
            .map(|i| format!("| {} | {} | {} |", curve.values[i], curve.below[i], curve.upto[i]))
            .collect();
        let text = spec_text::section("7-sketches.md");
        assert!(text.contains(&points.join("\n")), "{}", points.join("\n"));
        let cdf = MergedCdf::new(&[&digest]);
        assert_eq!(cdf.quantile(0.5).map(|value| (value * 1e6).round() / 1e6), Some(9.333333));
        assert!(text.contains("9.333333"));
    }

    #[test]
    fn rules_hold_for_stored_parts() {
        let good = || vec![(1.0, 2), (2.0, 3)];
        let read = |kind, centroids, range, count, error| {
            Digest::from_parts(kind, centroids, range, count, error)
        };
        read(1, good(), (1.0, 2.0), 5, 0.0).unwrap();
        read(2, good(), (0.0, 9.0), 5, 0.5).unwrap();
        read(2, vec![(1.0, 2), (1.0, 3)], (1.0, 1.0), 5, 0.5).unwrap();
        for (kind, centroids, range, count, error) in [
            (0, good(), (1.0, 2.0), 5, 0.0),
            (3, good(), (1.0, 2.0), 5, 0.0),
            (1, good(), (0.0, 2.0), 5, 0.0),
            (1, good(), (1.0, 2.0), 5, 0.1),
            (1, vec![(1.0, 2), (1.0, 3)], (1.0, 1.0), 5, 0.0),
            (2, good(), (1.5, 2.0), 5, 0.0),
            (2, good(), (1.0, 1.5), 5, 0.0),
            (2, good(), (1.0, 2.0), 6, 0.0),
            (2, good(), (1.0, 2.0), 5, 1.1),
            (2, good(), (1.0, 2.0), 5, -0.1),
            (2, good(), (1.0, 2.0), 5, f64::NAN),
            (2, good(), (f64::NAN, 2.0), 5, 0.0),
            (2, good(), (-0.0, 2.0), 5, 0.0),
            (2, good(), (1.0, f64::INFINITY), 5, 0.0),
            (2, vec![(2.0, 2), (1.0, 3)], (1.0, 2.0), 5, 0.0),
            (2, vec![(f64::NAN, 2)], (1.0, 2.0), 2, 0.0),
            (2, vec![(1.0, 0), (2.0, 5)], (1.0, 2.0), 5, 0.0),
            (2, vec![(1.0, u64::MAX), (2.0, 6)], (1.0, 2.0), 5, 0.0),
            (2, vec![(1.0, u64::MAX)], (1.0, 2.0), u64::MAX, 0.0),
            (2, Vec::new(), (1.0, 2.0), 0, 0.0),
            (2, (0..201).map(|i| (f64::from(i), 1)).collect(), (0.0, 200.0), 201, 0.0),
            (1, (0..400).map(|i| (f64::from(i), 1)).collect(), (0.0, 399.0), 400, 0.0),
        ] {
            let stated = format!("{kind} {centroids:?} {range:?} {count} {error}");
            assert!(read(kind, centroids, range, count, error).is_err(), "{stated}");
        }
    }

    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            -10f64..10.0,
            (0u8..6).prop_map(f64::from),
        ]
        .prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn any_values_keep_the_bound(
            cells in prop::collection::vec(prop::collection::vec(any_finite(), 1..900), 1..5),
        ) {
            let truth = sorted(&cells.concat());
            let digests: Vec<Digest> =
                cells.iter().map(|cell| Digest::build(&mut cell.clone()).unwrap()).collect();
            let digests: Vec<&Digest> = digests.iter().collect();
            check("cells", &MergedCdf::new(&digests), &truth);
        }

        #[test]
        fn hostile_parts_never_panic(
            kind in 1u8..3,
            centroids in prop::collection::vec((any_finite(), 1u64..1 << 50), 1..6),
            error in 0f64..1.0,
            rank in any::<u64>(),
        ) {
            let mut centroids = centroids;
            centroids.iter_mut().for_each(|(mean, _)| *mean += 0.0);
            centroids.sort_by(|a, b| a.0.total_cmp(&b.0));
            let range = (centroids[0].0, centroids[centroids.len() - 1].0);
            let count = centroids.iter().map(|(_, weight)| weight).sum();
            let error = if kind == 1 { 0.0 } else { error };
            if let Ok(digest) = Digest::from_parts(kind, centroids, range, count, error) {
                let cdf = MergedCdf::new(&[&digest, &digest]);
                let value = cdf.value_at(rank % cdf.count()).unwrap();
                prop_assert!(value >= range.0 && value <= range.1);
                prop_assert!(cdf.bracket(0, cdf.count() - 1).is_some());
            }
        }
    }
}
