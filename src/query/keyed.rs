//! The values of a dimension with what their rows add up to, merged over segments.
//!
//! Owns `Keyed`: the cells that several sealed segments have of the same keys, added up once
//! for exactly these segments and kept with the store's snapshots. Every question about all
//! rows of such segments takes its figures from there, whatever its measure, order or limit.

use std::ops::Range;
use std::sync::Arc;

use crate::column::Strings;
use crate::query::aggregate::{Names, keep_newest};
use crate::query::number::Numeric;
use crate::query::plan::{Question, Source};
use crate::schema::Schema;
use crate::segment::{KeyCell, LastValue, SegmentKey};
use crate::sketch::stats::Stats;
use crate::snapshot::AnswerCache;

/// Values of a dimension beyond which what is merged is not worth the memory to keep it.
const KEYS_MAX: usize = 1 << 14;

/// The merged keys of some segments.
#[derive(Debug)]
pub(crate) struct Keyed {
    /// The values, ascending.
    pub(crate) names: Arc<Strings>,
    /// One per value.
    cells: Vec<Merged>,
    /// One per value and measure.
    stats: Vec<Stats>,
    /// One per value and measure.
    last: Vec<Option<LastValue>>,
    measures: usize,
    /// Rows of each segment.
    pub(crate) rows: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Merged {
    rows: u64,
    successes: u64,
}

/// What the rows of one value of a dimension add up to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    /// The value.
    pub(crate) name: &'a str,
    /// All rows.
    pub(crate) rows: u64,
    /// Rows whose success column is true, where that is wanted.
    pub(crate) successes: u64,
    /// One per wanted measure.
    pub(crate) stats: &'a [Stats],
    /// The newest value of the first wanted measure, where that is wanted.
    pub(crate) last: Option<LastValue>,
}

impl Keyed {
    /// The merged keys of all sources that answer by their cells, and the other sources. None
    /// are merged where there are fewer than two, or too many keys.
    pub(crate) fn split<'a>(
        question: &Question,
        sources: &'a [Source],
        key: usize,
        cache: Option<&AnswerCache>,
    ) -> (Option<Arc<Self>>, Vec<&'a Source>) {
        let everything = || (None, sources.iter().collect());
        let Some(cache) = cache else { return everything() };
        let (whole, rest): (Vec<&Source>, Vec<&Source>) =
            sources.iter().partition(|source| source.is_summed_by(question, key));
        if whole.len() < 2 {
            return everything();
        }
        let files: Vec<SegmentKey> = whole.iter().map(|source| source.segment.key()).collect();
        let asked = format!("{} {key}", question.table);
        if let Some(known) = cache.get::<Option<Arc<Self>>>(&asked, &files) {
            return known.map_or_else(everything, |known| (Some(known), rest));
        }
        let merged = Self::merge(question, &whole, key).map(Arc::new);
        // That there are too many keys is kept as well.
        cache.put(asked, files, merged.clone());
        merged.map_or_else(everything, |merged| (Some(merged), rest))
    }

    fn merge(question: &Question, sources: &[&Source], key: usize) -> Option<Self> {
        let mut names = Names::default();
        let mut keyed = Self {
            names: Arc::default(),
            cells: Vec::new(),
            stats: Vec::new(),
            last: Vec::new(),
            measures: question.schema.measures.len(),
            rows: Vec::with_capacity(sources.len()),
        };
        for source in sources {
            let (dictionary, cells) = source.cells_by(question, key)?;
            names.enter(&dictionary, true);
            keyed.rows.push(cells.iter().map(|(_, cell)| cell.cell.rows).sum());
            for (code, cell) in cells {
                let number = names.number(code);
                keyed.grow(names.len(), question.schema);
                keyed.add(number, cell);
            }
            if names.len() > KEYS_MAX {
                return None;
            }
        }
        Some(keyed.sorted(&names))
    }

    fn grow(&mut self, count: usize, schema: &Schema) {
        while self.cells.len() < count {
            self.cells.push(Merged::default());
            let none = |column: &usize| Numeric::of(schema, *column).no_rows();
            self.stats.extend(schema.measures.iter().map(none));
            self.last.resize(self.stats.len(), None);
        }
    }

    fn add(&mut self, number: usize, key: &KeyCell) {
        self.cells[number].rows += key.cell.rows;
        self.cells[number].successes += key.cell.successes;
        let first = number * self.measures;
        let own = self.stats[first..].iter_mut().zip(&key.cell.measures);
        own.for_each(|(stats, other)| stats.merge(other));
        for (own, other) in self.last[first..].iter_mut().zip(&key.last) {
            other.iter().for_each(|other| keep_newest(own, *other));
        }
    }

    /// The same by name.
    fn sorted(self, names: &Names) -> Self {
        let mut order: Vec<usize> = (0..self.cells.len()).collect();
        order.sort_unstable_by_key(|number| names.name(*number));
        let measures = |number: &usize| number * self.measures..(number + 1) * self.measures;
        Self {
            names: Arc::new(order.iter().map(|number| names.name(*number)).collect()),
            cells: order.iter().map(|number| self.cells[*number]).collect(),
            stats: order.iter().flat_map(|n| &self.stats[measures(n)]).copied().collect(),
            last: order.iter().flat_map(|n| &self.last[measures(n)]).copied().collect(),
            ..self
        }
    }

    /// What is known of each value, in their order, with the figures of some measures.
    pub(crate) fn groups(&self, wanted: Range<usize>) -> impl Iterator<Item = Group<'_>> {
        self.cells.iter().enumerate().map(move |(number, cell)| {
            let first = number * self.measures;
            Group {
                name: self.names.get(number),
                rows: cell.rows,
                successes: cell.successes,
                stats: &self.stats[first + wanted.start..first + wanted.end],
                last: self.last.get(first + wanted.start).copied().flatten(),
            }
        })
    }
}
