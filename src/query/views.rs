//! Columns read where they lie, block by block: the bulk read without a copy.
//!
//! Owns `Views`, which goes through the blocks as `Columns` does, and `ViewsBlock`, which
//! keeps the bytes of its chunks alive. What lies in them is `encoding`'s.

use std::slice::from_ref;

use crate::encoding::views::{ColumnView, Layout};
use crate::error::Result;
use crate::fs::Bytes;
use crate::query::answer::{Coverage, Plan};
use crate::query::columns::{Found, Visit, Walk};
use crate::query::filter::Filter;
use crate::query::scan::select;
use crate::schema::{ColumnSchema, Table};
use crate::selection::Selection;
use crate::snapshot::Snapshot;

/// Views of the columns of the rows of a filter, block by block, in the order in which they
/// are stored: by day, otherwise unspecified.
///
/// Each item is a block with at least one row. Where all rows of a stored block are meant,
/// it borrows the file's bytes; of a block that a filter, an offset or a limit cuts, the
/// rows meant are copied, so that a view never has others among them. Damaged blocks are
/// left out and reported as by [`Columns`](crate::Columns): checksums, numbers and codes are
/// checked before a block is handed out. Compressed text is decompressed when it is first
/// asked for.
#[derive(Debug)]
pub struct Views {
    walk: Walk,
}

/// Views of some rows. It keeps their file mapped for as long as it lives.
#[derive(Debug)]
pub struct ViewsBlock {
    rows: usize,
    chunks: Vec<Held>,
    /// Where in `chunks` each column asked for is.
    order: Vec<usize>,
}

#[derive(Debug)]
struct Held {
    bytes: Bytes,
    layout: Layout,
}

impl ViewsBlock {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The view of a column. Columns are numbered in the order asked for.
    ///
    /// # Panics
    ///
    /// When fewer were asked for.
    pub fn column(&self, column: usize) -> ColumnView<'_> {
        let held = &self.chunks[self.order[column]];
        held.layout.view(&held.bytes)
    }

    /// The view of each column, in the order asked for.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = ColumnView<'_>> {
        (0..self.order.len()).map(|column| self.column(column))
    }
}

impl Views {
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

    fn read(visit: Visit<'_>) -> Result<Found<(usize, Vec<Held>)>> {
        let Visit { question, source, block, .. } = visit;
        let all = source.block_rows(block);
        let ledger = &mut *visit.ledger;
        let selected = select(question, source, ledger, block, from_ref(&all), &visit.columns)?;
        let Some(rows) = selected else { return Ok(None) };
        let found = rows.len();
        let kept = visit.limited(found);
        let rows = if kept.len() == found {
            rows
        } else {
            rows.narrow(|position| kept.contains(&position))
        };
        let whole = rows == Selection::Range(all);
        let ledger = visit.ledger;
        let mut chunks = Vec::with_capacity(visit.columns.len());
        for column in visit.columns {
            let held = ledger.with_bytes(source, block, column, |chunk, bytes, dictionary| {
                if whole {
                    let layout = Layout::of(chunk, bytes, dictionary)?;
                    return Ok(Held { bytes: bytes.clone(), layout });
                }
                let layout = Layout::of_column(chunk.decode_some(&rows, dictionary)?);
                Ok(Held { bytes: Bytes::from_vec(Vec::new()), layout })
            })?;
            let Some(held) = held else { return Ok(None) };
            chunks.push(held);
        }
        Ok(Some((found, (!rows.is_empty()).then_some((rows.len(), chunks)))))
    }
}

impl Iterator for Views {
    type Item = Result<ViewsBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.walk.next(Self::read)?;
        Some(read.map(|(rows, chunks)| ViewsBlock { rows, chunks, order: self.walk.order() }))
    }
}
