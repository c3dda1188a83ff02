//! Loops over lanes as they lie in a chunk, compiled for several instruction sets.
//!
//! Owns the choice of the set at run time, and what is done to many lanes at once:
//! splitting them at a window, finding equal ones, adding them up, spreading them, following
//! a run of like ones. What a lane means is its caller's business. Each kernel is one plain
//! loop that the compiler turns into vectors of each set; all sets give the same results.

use std::sync::atomic::{AtomicU8, Ordering};

use zerocopy::little_endian::{F64, U16, U32, U64};

use crate::format::order::float_key;

/// Lanes that are looked at together. Counts of them fit the narrowest word.
const GROUP: usize = 128;

/// A stored value that is compared as an unsigned integer, its word.
pub(super) trait Lane: Copy {
    /// The word's type.
    type Word: Copy + Ord;

    /// The word of the lane.
    fn word(self) -> Self::Word;

    /// The word in 64 bits.
    fn wide(word: Self::Word) -> u64;

    /// The word of 64 bits, which must fit.
    fn narrow(wide: u64) -> Self::Word;

    /// `a - b`, modulo the range of words.
    fn minus(a: Self::Word, b: Self::Word) -> Self::Word;

    /// `count`, and one more if `more`.
    fn count(count: Self::Word, more: bool) -> Self::Word;
}

macro_rules! lane {
    ($lane:ty, $word:ty, $get:expr) => {
        impl Lane for $lane {
            type Word = $word;

            #[inline(always)]
            fn word(self) -> $word {
                $get(self)
            }

            #[inline(always)]
            fn wide(word: $word) -> u64 {
                word.into()
            }

            #[inline(always)]
            fn narrow(wide: u64) -> $word {
                <$word>::try_from(wide).unwrap_or(<$word>::MAX)
            }

            #[inline(always)]
            fn minus(a: $word, b: $word) -> $word {
                a.wrapping_sub(b)
            }

            #[inline(always)]
            fn count(count: $word, more: bool) -> $word {
                count.wrapping_add(<$word>::from(more))
            }
        }
    };
}

lane!(u8, u8, |lane| lane);
lane!(U16, u16, U16::get);
lane!(U32, u32, U32::get);
lane!(U64, u64, U64::get);
lane!(i64, u64, word_of);
lane!(F64, u64, |lane: F64| word_of(float_key(lane.get())));

/// The word of a signed integer: its sign turned over, which keeps the order.
#[inline(always)]
pub(super) fn word_of(value: i64) -> u64 {
    value.cast_unsigned() ^ (1 << 63)
}

/// The signed integer of a word.
#[inline(always)]
pub(super) fn value_of_word(word: u64) -> i64 {
    (word ^ (1 << 63)).cast_signed()
}

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// What every machine of the architecture has.
    Portable = 1,
    Avx2 = 2,
    /// AVX-512 with bytes, words and all lengths of vectors.
    Avx512 = 3,
}

/// The widest level of this machine.
fn level() -> Level {
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];
    let known = KNOWN.load(Ordering::Relaxed);
    if let Some(level) = LEVELS.into_iter().find(|level| *level as u8 == known) {
        return level;
    }
    let level = detect();
    KNOWN.store(level as u8, Ordering::Relaxed);
    level
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// Calls `body` compiled for the level.
macro_rules! at_level {
    ($level:expr, $body:ident::<$lane:ident>($($arg:ident: $type:ty),*) -> $result:ty) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
        fn avx2<$lane: Lane>($($arg: $type),*) -> $result {
            $body($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512<$lane: Lane>($($arg: $type),*) -> $result {
            $body($($arg),*)
        }
        #[expect(unsafe_code, reason = "the compiler cannot know the machine that this runs on")]
        match $level {
            // SAFETY: `detect` found every feature that the function is compiled with, and
            // levels come from there alone.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::<$lane>($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::<$lane>($($arg),*) },
            _ => $body($($arg),*),
        }
    }};
}

/// Counts the lanes below `low`, and appends the words from `low` to `low + width`.
pub(super) fn split<L: Lane>(
    lanes: &[L],
    low: L::Word,
    width: L::Word,
    inside: &mut Vec<u64>,
) -> usize {
    split_at(level(), lanes, low, width, inside)
}

fn split_at<L: Lane>(
    level: Level,
    lanes: &[L],
    low: L::Word,
    width: L::Word,
    inside: &mut Vec<u64>,
) -> usize {
    at_level!(level, split_body::<L>(
        lanes: &[L], low: L::Word, width: L::Word, inside: &mut Vec<u64>
    ) -> usize)
}

#[inline(always)]
fn split_body<L: Lane>(lanes: &[L], low: L::Word, width: L::Word, inside: &mut Vec<u64>) -> usize {
    let mut below = 0;
    let zero = L::minus(low, low);
    for group in lanes.chunks(GROUP) {
        let (mut under, mut hits) = (zero, zero);
        for lane in group {
            let word = lane.word();
            under = L::count(under, word < low);
            // What is below wraps around to beyond the width.
            hits = L::count(hits, L::minus(word, low) <= width);
        }
        below += L::wide(under);
        // Windows are narrow: most groups have nothing inside.
        if hits != zero {
            let words = group.iter().map(|lane| lane.word());
            let hit = words.filter(|word| L::minus(*word, low) <= width);
            inside.extend(hit.map(L::wide));
        }
    }
    usize::try_from(below).unwrap_or(usize::MAX)
}

/// Appends the positions, counted from `first`, of the lanes that are `word`.
pub(super) fn find<L: Lane>(lanes: &[L], word: L::Word, first: u32, found: &mut Vec<u32>) {
    find_at(level(), lanes, word, first, found);
}

fn find_at<L: Lane>(level: Level, lanes: &[L], word: L::Word, first: u32, found: &mut Vec<u32>) {
    at_level!(level, find_body::<L>(
        lanes: &[L], word: L::Word, first: u32, found: &mut Vec<u32>
    ) -> ());
}

#[inline(always)]
fn find_body<L: Lane>(lanes: &[L], word: L::Word, first: u32, found: &mut Vec<u32>) {
    let zero = L::minus(word, word);
    for (start, group) in (first..).step_by(GROUP).zip(lanes.chunks(GROUP)) {
        let mut hits = zero;
        for lane in group {
            hits = L::count(hits, lane.word() == word);
        }
        if hits != zero {
            let rows = (start..).zip(group).filter(|(_, lane)| lane.word() == word);
            found.extend(rows.map(|(row, _)| row));
        }
    }
}

/// The sum of the words, modulo 2^64.
pub(super) fn sum<L: Lane>(lanes: &[L]) -> u64 {
    sum_at(level(), lanes)
}

fn sum_at<L: Lane>(level: Level, lanes: &[L]) -> u64 {
    at_level!(level, sum_body::<L>(lanes: &[L]) -> u64)
}

#[inline(always)]
fn sum_body<L: Lane>(lanes: &[L]) -> u64 {
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(L::wide(lane.word())))
}

/// Writes `base + word * scale` of each lane, modulo 2^64, into as many places.
pub(super) fn spread<L: Lane>(lanes: &[L], base: i64, scale: i64, values: &mut [i64]) {
    spread_at(level(), lanes, base, scale, values);
}

fn spread_at<L: Lane>(level: Level, lanes: &[L], base: i64, scale: i64, values: &mut [i64]) {
    at_level!(level, spread_body::<L>(
        lanes: &[L], base: i64, scale: i64, values: &mut [i64]
    ) -> ());
}

#[inline(always)]
fn spread_body<L: Lane>(lanes: &[L], base: i64, scale: i64, values: &mut [i64]) {
    let each = values.iter_mut().zip(lanes);
    let word = |lane: &L| L::wide(lane.word()).cast_signed();
    // Two loops, since without wide vectors a 64-bit multiplication is several instructions.
    if scale == 1 {
        each.for_each(|(to, lane)| *to = base.wrapping_add(word(lane)));
    } else {
        each.for_each(|(to, lane)| *to = base.wrapping_add(word(lane).wrapping_mul(scale)));
    }
}

/// How many values, from the first on, are from `low` to `low + width`.
pub(super) fn run<L: Lane>(lanes: &[L], low: L::Word, width: L::Word) -> usize {
    run_at(level(), lanes, low, width)
}

fn run_at<L: Lane>(level: Level, lanes: &[L], low: L::Word, width: L::Word) -> usize {
    at_level!(level, run_body::<L>(lanes: &[L], low: L::Word, width: L::Word) -> usize)
}

#[inline(always)]
fn run_body<L: Lane>(lanes: &[L], low: L::Word, width: L::Word) -> usize {
    /// Runs end often: lanes that are looked at together are few.
    const FEW: usize = 16;
    let mut count = 0;
    for group in lanes.chunks(FEW) {
        // A bit for each lane outside; what is below wraps around to beyond the width.
        let mut outside = 0u32;
        for (bit, lane) in group.iter().enumerate() {
            outside |= u32::from(L::minus(lane.word(), low) > width) << bit;
        }
        if outside != 0 {
            return count + outside.trailing_zeros() as usize;
        }
        count += group.len();
    }
    count
}

/// The sum of the words; there are fewer than 2^32.
pub(super) fn total<L: Lane>(lanes: &[L]) -> u128 {
    total_at(level(), lanes)
}

fn total_at<L: Lane>(level: Level, lanes: &[L]) -> u128 {
    at_level!(level, total_body::<L>(lanes: &[L]) -> u128)
}

#[inline(always)]
fn total_body<L: Lane>(lanes: &[L]) -> u128 {
    // Halves of words, so that no sum of them leaves 64 bits.
    let (low, high) = lanes.iter().fold((0u64, 0u64), |(low, high), lane| {
        let word = L::wide(lane.word());
        (low.wrapping_add(word & 0xFFFF_FFFF), high.wrapping_add(word >> 32))
    });
    u128::from(low) + (u128::from(high) << 32)
}

/// Least and largest word; `None` of no lanes.
pub(super) fn range<L: Lane>(lanes: &[L]) -> Option<(u64, u64)> {
    range_at(level(), lanes)
}

fn range_at<L: Lane>(level: Level, lanes: &[L]) -> Option<(u64, u64)> {
    at_level!(level, range_body::<L>(lanes: &[L]) -> Option<(u64, u64)>)
}

#[inline(always)]
fn range_body<L: Lane>(lanes: &[L]) -> Option<(u64, u64)> {
    let first = lanes.first()?.word();
    let (least, most) = lanes.iter().fold((first, first), |(least, most), lane| {
        (least.min(lane.word()), most.max(lane.word()))
    });
    Some((L::wide(least), L::wide(most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn levels() -> impl Iterator<Item = Level> {
        [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|one| *one <= level())
    }

    fn check<L: Lane>(lanes: &[L], low: u64, width: u64) {
        let words: Vec<u64> = lanes.iter().map(|lane| L::wide(lane.word())).collect();
        let high = low.saturating_add(width);
        let below = words.iter().filter(|word| **word < low).count();
        let inside: Vec<u64> =
            words.iter().copied().filter(|word| (low..=high).contains(word)).collect();
        let equal: Vec<u32> =
            (7..).zip(&words).filter(|(_, word)| **word == low).map(|(row, _)| row).collect();
        let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
        let wide = low;
        for level in levels() {
            let mut found = vec![42];
            let (low, width) = (L::narrow(low), L::narrow(high - low));
            assert_eq!(split_at(level, lanes, low, width, &mut found), below, "{level:?}");
            assert_eq!(found[1..], inside, "{level:?}");
            let mut found = vec![42];
            find_at(level, lanes, low, 7, &mut found);
            assert_eq!(found[1..], equal, "{level:?}");
            assert_eq!(sum_at(level, lanes), sum, "{level:?}");
            let total = words.iter().map(|word| u128::from(*word)).sum::<u128>();
            assert_eq!(total_at(level, lanes), total, "{level:?}");
            let mut values = vec![42; lanes.len()];
            spread_at(level, lanes, -7, 1000, &mut values);
            let value = |word: &u64| word.cast_signed().wrapping_mul(1000).wrapping_sub(7);
            assert!(values.iter().copied().eq(words.iter().map(value)), "{level:?}");
            spread_at(level, lanes, -7, 1, &mut values);
            let value = |word: &u64| word.cast_signed().wrapping_sub(7);
            assert!(values.iter().copied().eq(words.iter().map(value)), "{level:?}");
            // From every lane on, so that runs of every length are met.
            for start in 0..lanes.len() {
                let run = words[start..].iter().take_while(|word| (wide..=high).contains(word));
                assert_eq!(run_at(level, &lanes[start..], low, width), run.count(), "{level:?}");
            }
            let range = words.iter().min().copied().zip(words.iter().max().copied());
            assert_eq!(range_at(level, lanes), range, "{level:?}");
        }
    }

    proptest! {
        #[test]
        fn every_level_gives_what_plain_loops_give(
            bits in prop::collection::vec(any::<u64>(), 0..700),
            narrow in any::<bool>(),
            low: u16,
            width in 0u64..300,
        ) {
            let mask = if narrow { 0xF } else { u64::MAX };
            let bits: Vec<u64> = bits.iter().map(|bits| bits & mask).collect();
            let low = u64::from(low) & mask;
            let bytes: Vec<u8> = bits.iter().map(|bits| bits.to_le_bytes()[0]).collect();
            check(&bytes, low & 0xFF, width.min(0xFF - (low & 0xFF)));
            let low_bits = bits.iter().map(|bits| (bits & 0xFFFF) as u16);
            let lanes: Vec<U16> = low_bits.map(U16::new).collect();
            check(&lanes, low, width.min(0xFFFF - low));
            let lanes: Vec<U32> = bits.iter().map(|bits| U32::new((bits >> 32) as u32)).collect();
            check(&lanes, low, width);
            let lanes: Vec<U64> = bits.iter().map(|bits| U64::new(*bits)).collect();
            check(&lanes, low, width);
            let lanes: Vec<i64> = bits.iter().map(|bits| bits.cast_signed()).collect();
            check(&lanes, word_of(low.cast_signed() - 99), width);
            let floats = bits.iter().map(|bits| f64::from_bits(*bits)).filter(|v| v.is_finite());
            let lanes: Vec<F64> = floats.map(F64::new).collect();
            check(&lanes, word_of(float_key(1.0)), 1 << 52);
        }
    }

    #[test]
    fn words_keep_the_order_of_integers() {
        let values = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(values.map(word_of).is_sorted());
        assert_eq!(values.map(word_of).map(value_of_word), values);
    }
}
