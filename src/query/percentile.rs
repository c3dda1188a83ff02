//! Values by rank: exact from rows, or estimated from digests.
//!
//! The value at share p of n ascending values is the one at rank
//! `min((n as f64 * p) as usize, n - 1)`.
//!
//! Exact: the digests of all summarised pieces, and one of the rows at the edges, say
//! between which values the one at a rank surely lies. One pass counts the values below
//! that window and keeps those inside. The count decides whether the rank was inside; a
//! digest that lies costs a second pass over everything, never a wrong answer.

use std::ops::Range;
use std::sync::Arc;

use crate::encoding::Numbers;
use crate::error::{Error, Result};
use crate::format::order::{float_from_key, float_key};
use crate::query::answer::{Quantile, Value};
use crate::query::filter::Percentile;
use crate::query::number::Numeric;
use crate::query::plan::{Ledger, Need, Piece, Question, Source};
use crate::query::scan::{for_each_block, push_keys, scan, select};
use crate::selection::Selection;
use crate::sketch::digest::{Digest, MergedCdf};

/// With fewer values than this behind digests, all are collected at once.
const BRACKETED_VALUES_MIN: u64 = if cfg!(test) { 8 } else { 4096 };

/// Integers below this are floats without rounding.
const WHOLE_FLOATS: f64 = (1u64 << 53) as f64;

/// Refuses a share that is not from 0 to 1.
pub(crate) fn check_share(field: &str, share: f64) -> Result<()> {
    if (0.0..=1.0).contains(&share) {
        Ok(())
    } else {
        Err(Error::invalid(format!("percentile of {field}: {share}, expected 0 to 1")))
    }
}

/// The rank of a share among `count` ascending values; 0 of none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the definition of the rank; the share was checked"
)]
pub(crate) fn rank(count: usize, share: f64) -> usize {
    ((count as f64 * share) as usize).min(count.saturating_sub(1))
}

/// The keys at ascending ranks, all below the number of keys. Reorders the keys.
pub(crate) fn select_ranks(keys: &mut [i64], ranks: &[usize]) -> Vec<i64> {
    let mut rest = keys;
    let mut passed = 0;
    let mut found: Vec<i64> = Vec::with_capacity(ranks.len());
    for rank in ranks {
        match found.last().copied() {
            // The same rank again: its key lies just before the rest.
            Some(last) if *rank < passed => found.push(last),
            _ if *rank - passed < rest.len() => {
                let (_, key, after) = rest.select_nth_unstable(*rank - passed);
                found.push(*key);
                passed = *rank + 1;
                rest = after;
            }
            _ => return found,
        }
    }
    found
}

/// The values of a measure at shares of the rows of a question.
pub(crate) fn quantiles(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    column: usize,
    shares: &[f64],
    how: Percentile,
) -> Result<Vec<Quantile>> {
    let mut pass = Pass::cut(question, sources, column);
    pass.take_rollups(ledger);
    match how {
        // Where rows have gone, nothing exact can be said of all.
        Percentile::Exact if pass.rolled.is_empty() => pass.exact(ledger, shares),
        _ => pass.estimate(ledger, shares),
    }
}

/// A percentile of the values behind digests and of others, given by their order keys.
pub(crate) fn estimate(
    numeric: Numeric,
    digests: &[Arc<Digest>],
    keys: &[i64],
    share: f64,
) -> Quantile {
    estimate_of(&merge(numeric, digests.iter(), keys), numeric, share)
}

/// What digests and values say together.
fn merge<'a>(
    numeric: Numeric,
    digests: impl Iterator<Item = &'a Arc<Digest>>,
    keys: &[i64],
) -> MergedCdf {
    let mut values: Vec<f64> = match numeric {
        Numeric::Int => keys.iter().map(|key| to_float(*key)).collect(),
        Numeric::Float => keys.iter().map(|key| float_from_key(*key)).collect(),
    };
    let of_values = Digest::build(&mut values);
    let mut all: Vec<&Digest> = digests.map(Arc::as_ref).collect();
    all.extend(of_values.as_ref());
    MergedCdf::new(&all)
}

fn estimate_of(merged: &MergedCdf, numeric: Numeric, share: f64) -> Quantile {
    let value = merged.quantile(share);
    let (value, whole) = match (value, numeric) {
        (Some(value), Numeric::Int) => (Some(to_int(value)), value.abs() < WHOLE_FLOATS),
        (value, Numeric::Float) => (value.map(Value::Float), true),
        (None, Numeric::Int) => (None, true),
    };
    let exact = merged.error() == 0.0 && whole;
    // The bound is on the curve, whose steps are a whole rank high.
    let half = 0.5 / to_float(i64::try_from(merged.count()).unwrap_or(i64::MAX));
    let rank_error = if exact { 0.0 } else { (merged.error() + half).min(1.0) };
    Quantile { value, exact, rank_error, count: merged.count() }
}

/// A summarised piece with the digests of its values.
struct Digested<'a> {
    source: &'a Source,
    piece: Piece,
    digests: Vec<Arc<Digest>>,
    count: u64,
}

/// How the sources are cut for one measure.
struct Pass<'a> {
    question: &'a Question,
    column: usize,
    numeric: Numeric,
    digested: Vec<Digested<'a>>,
    /// Sources with rows that no digest stands for.
    edges: Vec<(&'a Source, Vec<Range<u64>>)>,
    /// Digests of rows that have gone.
    rolled: Vec<Arc<Digest>>,
}

impl<'a> Pass<'a> {
    fn cut(question: &'a Question, sources: &'a [Source], column: usize) -> Self {
        let measure = question.schema.measures.iter().position(|measure| *measure == column);
        let measure = measure.expect("a field is a measure");
        let need = Need { interval: None, digest: Some(measure) };
        let mut pass = Self {
            question,
            column,
            numeric: Numeric::of(question.schema, column),
            digested: Vec::new(),
            edges: Vec::new(),
            rolled: Vec::new(),
        };
        for source in sources {
            for piece in source.pieces(question, need) {
                match source.digests(&piece, measure) {
                    Some(digests) => {
                        let cells = source.cells(&piece);
                        let count = cells.iter().map(|cell| cell.measures[measure].count()).sum();
                        pass.digested.push(Digested { source, piece, digests, count });
                    }
                    None => pass.edges.push((source, source.piece_rows(&piece))),
                }
            }
        }
        pass
    }

    fn take_rollups(&mut self, ledger: &mut Ledger) {
        let measures = &self.question.schema.measures;
        let measure = measures.iter().position(|measure| *measure == self.column);
        let need = Need { interval: None, digest: measure };
        for source in ledger.rollups().iter() {
            for piece in ledger.rolled_pieces(source, self.question, need) {
                ledger.summarise(&source.cells(&piece));
                let digests = measure.and_then(|measure| source.digests(&piece, measure));
                self.rolled.extend(digests.into_iter().flatten());
            }
        }
    }

    /// Order keys of the values at the edges.
    fn edge_keys(&self, ledger: &mut Ledger) -> Result<Vec<i64>> {
        let mut keys = Vec::new();
        for (source, rows) in &self.edges {
            self.collect(source, ledger, rows, &mut keys)?;
        }
        Ok(keys)
    }

    fn collect(
        &self,
        source: &Source,
        ledger: &mut Ledger,
        rows: &[Range<u64>],
        keys: &mut Vec<i64>,
    ) -> Result<()> {
        scan(self.question, source, ledger, rows, &[self.column], |scanned| {
            push_keys(&scanned.columns[0], &scanned.all(), keys)
        })
    }

    fn digested_count(&self) -> u64 {
        self.digested.iter().map(|digested| digested.count).sum()
    }

    /// What the digests and the values at the edges say together.
    fn merged(&self, edges: &[i64]) -> MergedCdf {
        let digests = self.digested.iter().flat_map(|digested| &digested.digests);
        merge(self.numeric, digests.chain(&self.rolled), edges)
    }

    fn exact(&self, ledger: &mut Ledger, shares: &[f64]) -> Result<Vec<Quantile>> {
        let mut edges = self.edge_keys(ledger)?;
        let digested = self.digested_count();
        if digested >= BRACKETED_VALUES_MIN
            && let Some(found) = self.bracketed(ledger, &edges, shares)?
        {
            return Ok(found);
        }
        for digested in &self.digested {
            let rows = digested.source.piece_rows(&digested.piece);
            self.collect(digested.source, ledger, &rows, &mut edges)?;
        }
        Ok(self.of_keys(&mut edges, shares))
    }

    /// Exact answers from all values.
    fn of_keys(&self, keys: &mut [i64], shares: &[f64]) -> Vec<Quantile> {
        let count = keys.len();
        if count == 0 {
            return shares.iter().map(|_| self.quantile(None, 0)).collect();
        }
        let ranks: Vec<usize> = shares.iter().map(|share| rank(count, *share)).collect();
        let mut ascending = ranks.clone();
        ascending.sort_unstable();
        let found = select_ranks(keys, &ascending);
        let at = |rank: &usize| {
            let position = ascending.partition_point(|other| other < rank);
            self.quantile(found.get(position).copied(), count as u64)
        };
        ranks.iter().map(at).collect()
    }

    fn quantile(&self, key: Option<i64>, count: u64) -> Quantile {
        let value = key.map(|key| self.numeric.value(key));
        Quantile { value, exact: true, rank_error: 0.0, count }
    }

    /// Exact answers from the values in windows around the ranks; `None` when a rank is
    /// not in its window, or not all rows can be read.
    fn bracketed(
        &self,
        ledger: &mut Ledger,
        edges: &[i64],
        shares: &[f64],
    ) -> Result<Option<Vec<Quantile>>> {
        let damaged = ledger.damaged_blocks();
        let digested = self.digested_count();
        let Ok(count) = usize::try_from(digested + edges.len() as u64) else { return Ok(None) };
        let merged = self.merged(edges);
        if merged.count() != count as u64 {
            return Ok(None);
        }
        let ranks: Vec<usize> = shares.iter().map(|share| rank(count, *share)).collect();
        let Some(mut windows) = self.windows(&merged, &ranks) else { return Ok(None) };
        for window in &mut windows {
            window.add(edges);
        }
        for digested in &self.digested {
            self.fill(ledger, digested, &mut windows)?;
        }
        if ledger.damaged_blocks() > damaged {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(ranks.len());
        for rank in ranks {
            let inside = windows.iter_mut().find_map(|window| {
                let place = rank.checked_sub(window.below)?;
                (place < window.inside.len()).then(|| *window.inside.select_nth_unstable(place).1)
            });
            let Some(key) = inside else { return Ok(None) };
            found.push(self.quantile(Some(key), count as u64));
        }
        Ok(Some(found))
    }

    /// Windows of keys around the ranks, ascending, none touching another.
    fn windows(&self, merged: &MergedCdf, ranks: &[usize]) -> Option<Vec<Window>> {
        let mut windows: Vec<Window> = Vec::with_capacity(ranks.len());
        for rank in ranks {
            let (low, high) = merged.bracket(*rank as u64, *rank as u64)?;
            let (low, high) = self.keys_between(low, high);
            windows.push(Window { low, high, below: 0, inside: Vec::new(), before: (0, 0) });
        }
        windows.sort_unstable_by_key(|window| (window.low, window.high));
        windows.dedup_by(|next, window| {
            let touches = next.low <= window.high;
            if touches {
                window.high = window.high.max(next.high);
            }
            touches
        });
        Some(windows)
    }

    /// The order keys that belong to a bracket of floats, both ends included.
    #[expect(clippy::cast_possible_truncation, reason = "saturates at the ends, as it should")]
    fn keys_between(&self, low: f64, high: f64) -> (i64, i64) {
        match self.numeric {
            Numeric::Float => (float_key(low), float_key(high)),
            Numeric::Int => {
                // Large integers were rounded on their way into the digest.
                let low = if low.abs() < WHOLE_FLOATS { low.ceil() } else { low.next_down() };
                let high = if high.abs() < WHOLE_FLOATS { high.floor() } else { high.next_up() };
                (low as i64, high as i64)
            }
        }
    }

    fn fill(
        &self,
        ledger: &mut Ledger,
        digested: &Digested<'_>,
        windows: &mut [Window],
    ) -> Result<()> {
        let source = digested.source;
        let rows = source.piece_rows(&digested.piece);
        // All rows of these pieces are meant, so that the index can speak for a block.
        let all_rows = matches!(digested.piece, Piece::Total | Piece::Hour(_));
        for_each_block(source, &rows, |block, ranges| {
            let info = source.segment.blocks()[block];
            let whole = ranges.first() == Some(&source.block_rows(block));
            if let (true, true, Some(zone), Some(nulls)) = (
                all_rows,
                whole,
                source.segment.zone(block, self.column),
                source.segment.nulls(block, self.column),
            ) && windows.iter().all(|window| window.is_outside(zone))
            {
                let count = info.rows.saturating_sub(nulls) as usize;
                let over = windows.iter_mut().filter(|window| zone.1 < window.low);
                over.for_each(|window| window.below += count);
                ledger.prune(source, block, &[self.column]);
                return Ok(());
            }
            let columns = [self.column];
            let rows = select(self.question, source, ledger, block, ranges, &columns)?;
            let Some(rows) = rows else { return Ok(()) };
            if let Selection::Range(range) = &rows {
                windows.iter_mut().for_each(Window::begin);
                let split = ledger.with_chunk(source, block, self.column, |chunk, _| {
                    let numbers = chunk.numbers(range.clone())?;
                    Ok(windows.iter_mut().all(|window| window.split(&numbers)))
                })?;
                if split != Some(false) {
                    return Ok(());
                }
                windows.iter_mut().for_each(Window::take_back);
            }
            let Some(column) = ledger.read_rows(source, block, self.column, &rows)? else {
                return Ok(());
            };
            let mut keys = Vec::with_capacity(column.len());
            push_keys(&column, &Selection::Range(0..column.len()), &mut keys)?;
            windows.iter_mut().for_each(|window| window.add(&keys));
            Ok(())
        })
    }

    fn estimate(&self, ledger: &mut Ledger, shares: &[f64]) -> Result<Vec<Quantile>> {
        let mut edges = self.edge_keys(ledger)?;
        if self.digested_count() == 0 && self.rolled.is_empty() {
            return Ok(self.of_keys(&mut edges, shares));
        }
        for digested in &self.digested {
            ledger.summarise(&digested.source.cells(&digested.piece));
        }
        let merged = self.merged(&edges);
        Ok(shares.iter().map(|share| estimate_of(&merged, self.numeric, *share)).collect())
    }
}

/// Values from `low` to `high`, and how many there are below.
struct Window {
    low: i64,
    high: i64,
    below: usize,
    inside: Vec<i64>,
    /// What `below` and the number inside were before the last block.
    before: (usize, usize),
}

impl Window {
    fn is_outside(&self, (min, max): (i64, i64)) -> bool {
        max < self.low || self.high < min
    }

    /// Begins a block.
    fn begin(&mut self) {
        self.before = (self.below, self.inside.len());
    }

    /// Adds numbers as they lie; false if they have to be decoded.
    fn split(&mut self, numbers: &Numbers<'_>) -> bool {
        match numbers.split(self.low, self.high, &mut self.inside) {
            Some(below) => self.below += below,
            None => return false,
        }
        true
    }

    /// Forgets the last block.
    fn take_back(&mut self) {
        self.below = self.before.0;
        self.inside.truncate(self.before.1);
    }

    fn add(&mut self, keys: &[i64]) {
        self.below += keys.iter().map(|key| usize::from(*key < self.low)).sum::<usize>();
        let inside = |key: &&i64| (self.low..=self.high).contains(*key);
        self.inside.extend(keys.iter().filter(inside));
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest float is what is meant")]
fn to_float(value: i64) -> f64 {
    value as f64
}

/// The nearest integer: what lies between two integers has the rank of either.
#[expect(clippy::cast_possible_truncation, reason = "saturates at the ends")]
fn to_int(value: f64) -> Value {
    Value::Int(value.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_select_what_sorting_finds(
            mut keys in prop::collection::vec(-20i64..20, 1..200),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            let mut ranks: Vec<usize> = picks.iter().map(|pick| pick.index(keys.len())).collect();
            ranks.sort_unstable();
            let expected: Vec<i64> = ranks.iter().map(|rank| sorted[*rank]).collect();
            prop_assert_eq!(select_ranks(&mut keys, &ranks), expected);
        }
    }

    #[test]
    fn shares_outside_are_refused() {
        for share in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            let error = check_share("duration_ms", share).unwrap_err();
            assert!(error.message().contains("duration_ms"), "{error}");
        }
        assert!(check_share("value", 0.0).is_ok() && check_share("value", 1.0).is_ok());
    }

    #[test]
    fn rank_is_truncated_and_kept_inside() {
        assert_eq!((rank(10, 0.95), rank(10, 1.0), rank(0, 0.5), rank(3, 0.5)), (9, 9, 0, 1));
    }
}
