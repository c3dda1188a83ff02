//! Some rows of a block.
//!
//! Owns `Selection`: which rows a filter leaves, and which ones a chunk is asked to
//! decode. Knows nothing of values.

use std::ops::Range;

/// Some rows of a block, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Rows in a row.
    Range(Range<usize>),
    /// These rows.
    Rows(Vec<u32>),
}

impl Selection {
    /// No rows.
    pub(crate) const NONE: Self = Self::Range(0..0);

    /// The rows of ascending ranges.
    pub(crate) fn of(ranges: &[Range<usize>]) -> Self {
        match ranges {
            [] => Self::NONE,
            [one] => Self::Range(one.clone()),
            [first, .., last] => {
                let rows: usize = ranges.iter().map(ExactSizeIterator::len).sum();
                if last.end - first.start == rows {
                    return Self::Range(first.start..last.end);
                }
                let narrow = |range: &Range<usize>| index(range.start)..index(range.end);
                Self::Rows(ranges.iter().flat_map(narrow).collect())
            }
        }
    }

    /// Rows that ascend, as a range where they are one.
    pub(crate) fn of_rows(rows: Vec<u32>) -> Self {
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => {
                Self::Range(*first as usize..*last as usize + 1)
            }
            (None, _) => Self::NONE,
            _ => Self::Rows(rows),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Rows(rows) => rows.len(),
        }
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From the first row to the last, others between them included.
    pub(crate) fn span(&self) -> Range<usize> {
        match self {
            Self::Range(range) => range.clone(),
            Self::Rows(rows) => match (rows.first(), rows.last()) {
                (Some(first), Some(last)) => *first as usize..*last as usize + 1,
                _ => 0..0,
            },
        }
    }

    /// The row at a position of the selection.
    pub(crate) fn row(&self, position: usize) -> usize {
        match self {
            Self::Range(range) => range.start + position,
            Self::Rows(rows) => rows[position] as usize,
        }
    }

    /// The rows at the positions of the selection for which `keep` holds.
    pub(crate) fn narrow(self, keep: impl Fn(usize) -> bool) -> Self {
        let mut kept = vec![0u32; self.len()];
        let mut count = 0;
        // Writes always and steps on a match, so that the loop has no branch to miss.
        match self {
            Self::Range(range) => {
                for (position, row) in range.enumerate() {
                    kept[count] = index(row);
                    count += usize::from(keep(position));
                }
            }
            Self::Rows(rows) => {
                for (position, row) in rows.into_iter().enumerate() {
                    kept[count] = row;
                    count += usize::from(keep(position));
                }
            }
        }
        kept.truncate(count);
        Self::of_rows(kept)
    }

    /// Each row, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let (range, rows) = match self {
            Self::Range(range) => (range.clone(), &[][..]),
            Self::Rows(rows) => (0..0, rows.as_slice()),
        };
        range.chain(rows.iter().map(|row| *row as usize))
    }

    /// Calls `each` for every row, ascending.
    pub(crate) fn for_each(&self, mut each: impl FnMut(usize)) {
        match self {
            Self::Range(range) => range.clone().for_each(each),
            Self::Rows(rows) => rows.iter().for_each(|row| each(*row as usize)),
        }
    }
}

/// A row of a block as it is kept in selections.
pub(crate) fn index(row: usize) -> u32 {
    u32::try_from(row).expect("a block has fewer than 2^32 rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(Selection::of(&[]), Selection::NONE);
        assert_eq!(Selection::of(&[1..3, 3..5]), Selection::Range(1..5));
        assert_eq!(Selection::of(&[1..3, 4..5]), Selection::Rows(vec![1, 2, 4]));
        assert_eq!(Selection::of_rows(vec![4, 5, 6]), Selection::Range(4..7));
    }

    #[test]
    fn narrowing_keeps_by_position() {
        let rows = Selection::of(&[10..13, 20..22]);
        assert_eq!(rows.span(), 10..22);
        assert_eq!(rows.iter().collect::<Vec<_>>(), [10, 11, 12, 20, 21]);
        assert_eq!((rows.row(0), rows.row(3)), (10, 20));
        assert_eq!(rows.clone().narrow(|position| position > 2), Selection::Range(20..22));
        assert_eq!(rows.narrow(|position| position % 2 == 0), Selection::Rows(vec![10, 12, 21]));
        assert_eq!(Selection::Range(5..8).narrow(|_| false), Selection::NONE);
    }
}
