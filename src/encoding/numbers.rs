//! Numbers of a chunk as they lie there, compared with bounds without being decoded.
//!
//! Owns what a word means as an order key (spec 1.4), and the way back from a bound on
//! keys to one on words. Percentiles count and collect through this.

use std::ops::Range;

use super::floats::{self, to_float};
use super::ints::{self, Words};
use super::kernels::{self, value_of_word, word_of};
use super::{Chunk, count_ones};
use crate::error::{Error, Result};
use crate::format::order::float_key;
use crate::schema::ColumnType;

/// How many values, from the first on, are inside a range that is not empty.
pub(crate) fn count_inside(values: &[i64], range: &Range<i64>) -> usize {
    kernels::run(values, word_of(range.start), range.end.abs_diff(range.start) - 1)
}

/// Appends the rows, counted from `first`, whose values are inside a range, as ranges of
/// neighbours. Best where those are many.
pub(crate) fn find_inside(
    values: &[i64],
    range: &Range<i64>,
    first: usize,
    found: &mut Vec<Range<usize>>,
) {
    if range.is_empty() {
        return;
    }
    // What is outside is inside the range from its end around to its start.
    let outside = range.start.wrapping_sub(range.end).cast_unsigned().wrapping_sub(1);
    let mut at = 0;
    while let Some(rest) = values.get(at..).filter(|rest| !rest.is_empty()) {
        let run = count_inside(rest, range);
        let rows = first + at..first + at + run;
        match found.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ if run > 0 => found.push(rows),
            _ => {}
        }
        at += run;
        let rest = values.get(at..).unwrap_or_default();
        at += kernels::run(rest, word_of(range.end), outside);
    }
}

/// Numbers of some rows, and what their words stand for.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    words: Words<'a>,
    meaning: Meaning,
    raw: &'a [zerocopy::little_endian::F64],
    /// Rows whose word stands for their value.
    rows: usize,
    /// Words among the lanes that stand for no value, with how often they are there.
    stray: Vec<(u64, usize)>,
    /// Order keys of values that no word stands for.
    apart: Vec<i64>,
}

/// How an integer becomes an order key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    /// It is one.
    Integer,
    /// It is that of a float.
    Key,
    /// The key of the float that it is over a power of ten.
    Decimal(f64),
}

impl Meaning {
    fn key(self, integer: i64) -> i64 {
        match self {
            Self::Integer | Self::Key => integer,
            Self::Decimal(power) => float_key(to_float(integer, power)),
        }
    }
}

impl<'a> Numbers<'a> {
    /// The numbers of a range of rows of a chunk.
    pub(super) fn of(chunk: &Chunk<'a>, rows: Range<usize>) -> Result<Self> {
        if rows.end > chunk.rows {
            return Err(Error::invalid("a row that the chunk does not have"));
        }
        let validity = chunk.validity()?;
        let (stored, nulls) = match &validity {
            None => (rows.clone(), 0),
            Some(validity) => {
                let valid = count_ones(validity, rows.clone());
                let before = count_ones(validity, 0..rows.start);
                let stored = if chunk.dense { before..before + valid } else { rows.clone() };
                (stored, rows.len() - valid)
            }
        };
        let between = if chunk.dense { 0 } else { nulls };
        let mut numbers = match chunk.kind {
            ColumnType::Timestamp | ColumnType::Int => Self::of_ints(chunk, stored)?,
            ColumnType::Float => Self::of_floats(chunk, stored)?,
            _ => return Err(Error::corrupt("4.2", "numbers of a column of another type")),
        };
        numbers.leave_out(between, validity.as_ref(), &rows);
        Ok(numbers)
    }

    fn of_ints(chunk: &Chunk<'a>, stored: Range<usize>) -> Result<Self> {
        let found = ints::numbers(chunk, stored.clone())?;
        Ok(Self {
            rows: stored.len() - found.apart.len(),
            words: found.words,
            meaning: Meaning::Integer,
            raw: &[],
            stray: found.stray.into_iter().map(|word| (word, 1)).collect(),
            apart: found.apart,
        })
    }

    fn of_floats(chunk: &Chunk<'a>, stored: Range<usize>) -> Result<Self> {
        let plain = |words, meaning| Self {
            words,
            meaning,
            raw: &[],
            rows: stored.len(),
            stray: Vec::new(),
            apart: Vec::new(),
        };
        Ok(match floats::numbers(chunk, stored.clone())? {
            floats::Numbers::Same(value) => plain(Words::Same(float_key(value)), Meaning::Key),
            floats::Numbers::Raw(raw) => {
                Self { raw, ..plain(Words::Values(Vec::new()), Meaning::Key) }
            }
            floats::Numbers::Values(values) => {
                let keys = values.into_iter().map(float_key).collect();
                plain(Words::Values(keys), Meaning::Key)
            }
            floats::Numbers::Decimal { integers, power, apart, stray } => {
                let numbers = plain(integers, Meaning::Decimal(power));
                let stray = stray.iter().map(|integer| (numbers.word(*integer), 1)).collect();
                let rows = numbers.rows - apart.len();
                let apart = apart.iter().map(|value| float_key(*value)).collect();
                Self { stray, apart, rows, ..numbers }
            }
        })
    }

    /// Leaves out null rows that lie between the others.
    fn leave_out(
        &mut self,
        nulls: usize,
        validity: Option<&crate::column::Bitmap>,
        rows: &Range<usize>,
    ) {
        let (Some(validity), true) = (validity, nulls > 0) else { return };
        self.rows = self.rows.saturating_sub(nulls);
        match &mut self.words {
            // Their lanes are 0 (spec 5.1).
            Words::Lanes { .. } => self.stray.push((0, nulls)),
            Words::Values(values) => {
                let mut row = rows.start;
                values.retain(|_| {
                    row += 1;
                    validity.get(row - 1)
                });
            }
            Words::Same(_) => {}
        }
    }

    /// The word of an integer among the words.
    fn word(&self, integer: i64) -> u64 {
        match &self.words {
            Words::Lanes { base, scale, .. } => {
                integer.wrapping_sub(*base).cast_unsigned() / scale.cast_unsigned().max(1)
            }
            Words::Values(_) | Words::Same(_) => word_of(integer),
        }
    }

    /// The order key that a word stands for.
    fn key(&self, word: u64) -> i64 {
        match &self.words {
            Words::Lanes { base, scale, .. } => {
                let offset = word.cast_signed().wrapping_mul(*scale);
                self.meaning.key(base.wrapping_add(offset))
            }
            Words::Values(_) | Words::Same(_) => self.meaning.key(value_of_word(word)),
        }
    }

    /// The least word up to `top` whose key is at least `key`.
    fn least(&self, key: i64, top: u64) -> Option<u64> {
        match (&self.words, self.meaning) {
            (_, Meaning::Decimal(_)) => {}
            (Words::Lanes { base, scale, .. }, _) => {
                let offset = i128::from(key).saturating_sub(i128::from(*base)).max(0);
                let scale = i128::from(scale.cast_unsigned().max(1));
                let word = u64::try_from((offset + scale - 1) / scale).unwrap_or(u64::MAX);
                return (word <= top).then_some(word);
            }
            _ => return Some(word_of(key)),
        }
        if self.key(top) < key {
            return None;
        }
        let (mut low, mut high) = (0, top);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    /// Counts the values whose order key is below `low`, and appends the keys from `low`
    /// to `high`; `None`, and nothing appended, where words that stand for no value are
    /// in the way, so that the values must be decoded.
    pub(crate) fn split(&self, low: i64, high: i64, inside: &mut Vec<i64>) -> Option<usize> {
        let mut words = Vec::new();
        let mut below = if let Words::Same(integer) = &self.words {
            let key = self.meaning.key(*integer);
            let hits = if (low..=high).contains(&key) { self.rows } else { 0 };
            inside.resize(inside.len() + hits, key);
            if key < low { self.rows } else { 0 }
        } else {
            self.split_words(low, high, &mut words)?
        };
        inside.extend(words.iter().map(|word| self.key(*word)));
        below += self.apart.iter().filter(|key| **key < low).count();
        inside.extend(self.apart.iter().filter(|key| (low..=high).contains(*key)));
        Some(below)
    }

    fn split_words(&self, low: i64, high: i64, inside: &mut Vec<u64>) -> Option<usize> {
        let top = match &self.words {
            Words::Lanes { lanes, .. } => lanes.top(),
            _ => u64::MAX,
        };
        let Some(first) = self.least(low, top) else {
            return Some(self.rows);
        };
        // The first word above the window, if there is one, ends it.
        let last = match high.checked_add(1).and_then(|above| self.least(above, top)) {
            Some(0) => return Some(0),
            Some(above) => above - 1,
            None => top,
        };
        let within = first <= last;
        if within && self.stray.iter().any(|(word, _)| (first..=last).contains(word)) {
            return None;
        }
        // An empty window still splits: its words are counted, none is kept.
        let below = match &self.words {
            Words::Lanes { lanes, .. } => lanes.split(first, last.max(first), inside),
            Words::Values(values) if self.raw.is_empty() => {
                kernels::split(values, first, last.max(first) - first, inside)
            }
            Words::Values(_) => kernels::split(self.raw, first, last.max(first) - first, inside),
            Words::Same(_) => 0,
        };
        if !within {
            inside.clear();
        }
        let stray: usize =
            self.stray.iter().filter(|(word, _)| *word < first).map(|(_, count)| count).sum();
        Some(below.saturating_sub(stray))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn neighbours_inside_are_found(
            values in prop::collection::vec(prop_oneof![-9i64..9, any::<i64>()], 0..90),
            sorted: bool,
            ends in any::<(i64, i64)>(),
            near in (-9i64..9, 1i64..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut values = values;
            if sorted {
                values.sort_unstable();
            }
            let wide = ends.0.min(ends.1)..ends.0.max(ends.1).saturating_add(1);
            for range in [near.0..near.0 + near.1, wide, i64::MIN..0, 0..i64::MAX, 3..3] {
                let cut = cut.index(values.len() + 1);
                let mut found = Vec::new();
                find_inside(&values[..cut], &range, 5, &mut found);
                find_inside(&values[cut..], &range, 5 + cut, &mut found);
                let rows: Vec<usize> = found.iter().cloned().flatten().collect();
                let inside = (5..).zip(&values).filter(|(_, value)| range.contains(value));
                prop_assert_eq!(rows, inside.map(|(row, _)| row).collect::<Vec<_>>());
                prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }
}
