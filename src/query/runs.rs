//! Runs of rows of one block, added up as their values lie.
//!
//! Owns `Adder`: integers and decimals, which are most of what is measured, are added as
//! integers, which is exact, and divided once at the end. Other columns are left to
//! `aggregate`, which decodes them.

use std::ops::Range;

use crate::encoding::views::{ColumnView, IntRanges, ViewValues, join};
use crate::sketch::stats::{Number, Stats, Sum};

/// What runs of one column of one block add up to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    rows: u64,
    sum: i128,
    /// Least and largest integer.
    range: Option<(i64, i64)>,
    /// Values that are not integers over the divisor.
    apart: Stats,
}

impl Runs {
    /// None yet.
    pub(crate) const NONE: Self = Self { rows: 0, sum: 0, range: None, apart: Stats::FLOAT };
}

/// Adds up runs of rows that ascend.
pub(crate) struct Adder<'a> {
    integers: IntRanges<'a>,
    /// Of decimals.
    divisor: Option<f64>,
    /// Rows and values of the exceptions from the next run on.
    apart: &'a [(u32, f64)],
    /// Whether least and largest are wanted.
    with_range: bool,
}

impl<'a> Adder<'a> {
    /// Of a column; `None` if it has to be decoded.
    pub(crate) fn new(column: &ColumnView<'a>, with_range: bool) -> Option<Self> {
        if column.validity.is_some() {
            return None;
        }
        let (integers, divisor, apart) = match column.values {
            ViewValues::Int(integers) => (integers, None, &[][..]),
            ViewValues::Float(floats) => {
                let decimals = floats.decimals()?;
                (decimals.integers, Some(decimals.divisor), decimals.exceptions)
            }
            _ => return None,
        };
        Some(Self { integers: IntRanges::new(integers), divisor, apart, with_range })
    }

    /// Adds a run that begins where the last one ended, or later.
    pub(crate) fn add(&mut self, rows: Range<usize>, runs: &mut Runs) {
        let mut from = rows.start;
        while let Some(((row, value), rest)) = self.apart.split_first()
            && (*row as usize) < rows.end
        {
            self.apart = rest;
            if *row as usize >= rows.start {
                self.add_integers(from..*row as usize, runs);
                runs.apart.add_floats(&[*value], None);
                from = *row as usize + 1;
            }
        }
        self.add_integers(from..rows.end, runs);
    }

    fn add_integers(&mut self, rows: Range<usize>, runs: &mut Runs) {
        if rows.is_empty() {
            return;
        }
        runs.rows += rows.len() as u64;
        runs.sum += self.integers.sum(rows.clone());
        if self.with_range {
            runs.range = join(runs.range, self.integers.range(rows));
        }
    }

    /// What the runs add up to; least and largest only if they were wanted.
    pub(crate) fn stats(&self, runs: &Runs) -> Stats {
        let number = |integer: i64| match self.divisor {
            None => Number::Int(integer),
            Some(divisor) => Number::Float(to_float(integer) / divisor),
        };
        let mut stats = Stats {
            rows: runs.rows,
            nulls: 0,
            sum: match self.divisor {
                None => Sum::Int(runs.sum),
                Some(divisor) => Sum::of_quotients(runs.sum, divisor),
            },
            min: runs.range.map(|(min, _)| number(min)),
            max: runs.range.map(|(_, max)| number(max)),
        };
        if runs.apart.rows > 0 {
            stats.merge(&runs.apart);
        }
        stats
    }
}

#[expect(clippy::cast_precision_loss, reason = "what decoding does (spec 5.3)")]
fn to_float(integer: i64) -> f64 {
    integer as f64
}
