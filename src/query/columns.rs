//! Whole columns, block by block: the bulk read.
//!
//! Owns `Columns`, an iterator that holds one block at a time, so that any number of rows
//! is read in constant memory, and `Walk`, which goes through the blocks for it and for
//! `Views`. A block all of whose rows are meant is handed out as it was read.

use std::collections::VecDeque;
use std::ops::Range;
use std::slice::from_ref;

use crate::column::Column;
use crate::error::{Error, Result};
use crate::query::answer::{Coverage, Plan};
use crate::query::filter::{Filter, Limit};
use crate::query::plan::{Ledger, Question, Shape, Source};
use crate::query::rows::{Columns as BlockColumns, FromColumns};
use crate::query::scan::{Scanned, scan_block};
use crate::row::Row;
use crate::schema::{ColumnSchema, Table};
use crate::selection::index;
use crate::snapshot::Snapshot;

/// Columns of the rows of a filter, block by block, in the order in which they are
/// stored: by day, otherwise unspecified.
///
/// Each item is a block with at least one row. Damaged blocks are left out and reported by
/// [`coverage`](Self::coverage), which is whole once the iteration has ended; with a
/// `strict` filter anything missing is an error instead.
#[derive(Debug)]
pub struct Columns {
    walk: Walk,
}

/// The blocks of a filter, one after the other, and what was found of them.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) question: Question,
    filter: Filter,
    numbers: Vec<usize>,
    blocks: VecDeque<(usize, usize)>,
    sources: Vec<Source>,
    /// `None` once the iteration has ended.
    ledger: Option<Ledger>,
    finished: Option<(Coverage, Plan)>,
    skip: usize,
    left: usize,
}

/// How many rows of the filter a block has, and what was made of those that its offset and
/// its limit leave; `None` if there are none or the block is damaged.
pub(super) type Found<T> = Option<(usize, Option<T>)>;

/// A block that is to be read.
pub(super) struct Visit<'a> {
    pub(super) question: &'a Question,
    pub(super) source: &'a Source,
    pub(super) ledger: &'a mut Ledger,
    pub(super) block: usize,
    /// The columns asked for, ascending, each once.
    pub(super) columns: Vec<usize>,
    skip: usize,
    left: usize,
}

impl Visit<'_> {
    /// Which of so many rows are neither of the offset nor beyond the limit.
    pub(super) fn limited(&self, rows: usize) -> Range<usize> {
        let start = self.skip.min(rows);
        start..rows.min(start.saturating_add(self.left))
    }
}

/// Columns of some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnsBlock {
    /// One per column asked for, in that order, all of the same length.
    pub columns: Vec<Column>,
}

impl ColumnsBlock {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each row in turn.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = RowView<'_>> {
        (0..self.len()).map(|row| RowView { columns: &self.columns, row })
    }
}

/// One row of a block, read in place. Columns are numbered in the order asked for.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    columns: &'a [Column],
    row: usize,
}

impl<'a> RowView<'a> {
    /// The integer or stamp; `None` if null or of another type.
    pub fn int(&self, column: usize) -> Option<i64> {
        self.columns.get(column)?.int(self.row)
    }

    /// The float; `None` if null or of another type.
    pub fn float(&self, column: usize) -> Option<f64> {
        self.columns.get(column)?.float(self.row)
    }

    /// The boolean; `None` if null or of another type.
    pub fn bool(&self, column: usize) -> Option<bool> {
        self.columns.get(column)?.bool(self.row)
    }

    /// The text; `None` if null or of another type.
    pub fn text(&self, column: usize) -> Option<&'a str> {
        self.columns.get(column)?.text(self.row)
    }
}

impl Walk {
    pub(super) fn new(
        snapshot: &Snapshot,
        table: Table,
        filter: &Filter,
        names: Option<&[&str]>,
    ) -> Result<Self> {
        let question = Question::new(table, filter)?;
        filter.check_list()?;
        let numbers = match names {
            None => (0..question.schema.columns.len()).collect(),
            Some(names) => names
                .iter()
                .map(|name| {
                    question.schema.column(name).ok_or_else(|| {
                        Error::invalid(format!("column {name:?}: {table} has no such column"))
                    })
                })
                .collect::<Result<_>>()?,
        };
        if names.is_some_and(<[&str]>::is_empty) {
            return Err(Error::invalid("columns: none is named, expected at least one"));
        }
        let mut ledger = Ledger::new(snapshot, &question);
        let sources = ledger.sources(snapshot, &question);
        let blocks = sources.iter().enumerate().flat_map(|(number, source)| {
            (0..source.segment.blocks().len()).map(move |block| (number, block))
        });
        let left = match filter.limit {
            Limit::Rows(rows) => rows,
            Limit::Default | Limit::All => usize::MAX,
        };
        Ok(Self {
            blocks: blocks.collect(),
            question,
            filter: filter.clone(),
            numbers,
            sources,
            ledger: Some(ledger),
            finished: None,
            skip: filter.offset,
            left,
        })
    }

    /// Name and type of each column of a block, in order.
    pub(super) fn schema(&self) -> impl ExactSizeIterator<Item = &'static ColumnSchema> + '_ {
        let schema = self.question.schema;
        self.numbers.iter().map(|number| &schema.columns[*number])
    }

    /// Where each column asked for is among the distinct ones.
    pub(super) fn order(&self) -> Vec<usize> {
        let distinct = distinct(&self.numbers);
        let place = |number: &usize| distinct.partition_point(|other| other < number);
        self.numbers.iter().map(place).collect()
    }

    pub(super) fn coverage(&self) -> Option<&Coverage> {
        self.finished.as_ref().map(|(coverage, _)| coverage)
    }

    pub(super) fn plan(&self) -> Option<&Plan> {
        self.finished.as_ref().map(|(_, plan)| plan)
    }

    /// What `read` makes of the next block that has rows of the filter, beyond its offset
    /// and within its limit.
    pub(super) fn next<T>(
        &mut self,
        mut read: impl FnMut(Visit<'_>) -> Result<Found<T>>,
    ) -> Option<Result<T>> {
        while self.left > 0
            && let Some(ledger) = &mut self.ledger
            && let Some((source, block)) = self.blocks.pop_front()
        {
            let columns = distinct(&self.numbers);
            let visit = Visit {
                question: &self.question,
                source: &self.sources[source],
                ledger,
                block,
                columns,
                skip: self.skip,
                left: self.left,
            };
            match read(visit) {
                Ok(None) => {}
                Ok(Some((rows, made))) => {
                    let skipped = self.skip.min(rows);
                    self.skip -= skipped;
                    self.left -= self.left.min(rows - skipped);
                    if let Some(made) = made {
                        return Some(Ok(made));
                    }
                }
                Err(error) => {
                    self.ledger = None;
                    return Some(Err(error));
                }
            }
        }
        self.finish().err().map(Err)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(ledger) = self.ledger.take() else { return Ok(()) };
        self.finished = Some(ledger.finish(&self.filter, Shape::Rows)?);
        Ok(())
    }
}

/// A column asked for twice is read once.
fn distinct(numbers: &[usize]) -> Vec<usize> {
    let mut distinct = numbers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

impl Columns {
    pub(crate) fn new(
        snapshot: &Snapshot,
        table: Table,
        filter: &Filter,
        names: Option<&[&str]>,
    ) -> Result<Self> {
        Walk::new(snapshot, table, filter, names).map(|walk| Self { walk })
    }

    /// The table.
    pub fn table(&self) -> Table {
        self.walk.question.table
    }

    /// Name and type of each column of a block, in order.
    pub fn schema(&self) -> impl ExactSizeIterator<Item = &'static ColumnSchema> + '_ {
        self.walk.schema()
    }

    /// What the blocks rest on; `None` until the iteration has ended.
    pub fn coverage(&self) -> Option<&Coverage> {
        self.walk.coverage()
    }

    /// What was skipped and read; `None` until the iteration has ended.
    pub fn plan(&self) -> Option<&Plan> {
        self.walk.plan()
    }

    /// Owned rows, one by one, in the same order.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` unless all columns were asked for, in the order of the schema.
    pub fn into_rows(self) -> Result<impl Iterator<Item = Result<Row>>> {
        let whole =
            self.walk.numbers.iter().copied().eq(0..self.walk.question.schema.columns.len());
        if !whole {
            return Err(Error::invalid("rows: some columns were left out, expected all of them"));
        }
        let table = self.walk.question.table;
        Ok(self.flat_map(move |block| {
            let rows: Vec<Result<Row>> = match block {
                Err(error) => vec![Err(error)],
                Ok(block) => {
                    let columns = BlockColumns(block.columns.iter().collect());
                    let row = |row| Ok(Row::from_columns(table, &columns, row));
                    (0..block.len()).map(row).collect()
                }
            };
            rows
        }))
    }

    fn read(visit: Visit<'_>) -> Result<Found<Vec<Column>>> {
        let all = visit.source.block_rows(visit.block);
        let Visit { question, source, block, .. } = visit;
        let ledger = &mut *visit.ledger;
        let found = scan_block(question, source, ledger, block, from_ref(&all), &visit.columns)?;
        let Some(Scanned { rows, columns }) = found else { return Ok(None) };
        let kept = visit.limited(rows.len());
        let taken = match kept.len() {
            0 => None,
            len if len == rows.len() => Some(columns),
            _ => {
                let kept: Vec<u32> = kept.map(index).collect();
                Some(columns.iter().map(|column| column.gather(&kept)).collect())
            }
        };
        Ok(Some((rows.len(), taken)))
    }
}

impl Iterator for Columns {
    type Item = Result<ColumnsBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.walk.next(Self::read)?;
        Some(read.map(|columns| {
            let order = self.walk.order();
            if order.len() == columns.len() && order.is_sorted() {
                return ColumnsBlock { columns };
            }
            ColumnsBlock { columns: order.iter().map(|at| columns[*at].clone()).collect() }
        }))
    }
}
