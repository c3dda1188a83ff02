//! All rows of a filter in the order of time, in constant memory: what exports read.
//!
//! The order is that of pages turned round: ascending by timestamp, then by the ids of the
//! schema's `page_order`, then by a hash of the other columns that are read, then by these
//! themselves; or all of it descending. JSON counts as what is left of it on one line,
//! without the blanks around it, so that rows which were written as JSON lines and read
//! again are in the same order.
//!
//! Time is cut into windows whose rows take about [`WINDOW_BYTES`]; those of one window are
//! read from all segments and sorted together. Days are cut at hours and between blocks, and
//! where blocks overlap too much for that (many rows of one hour, or rows of an active
//! segment, which lie as they came) by a histogram of their stamps, which is all of such
//! blocks that is read more than once. Rows of the same microsecond stay together, however
//! many they are.

use std::cmp::Ordering;
use std::ops::Range;
use std::slice::from_ref;

use xxhash_rust::xxh3::xxh3_128;

use crate::column::{Column, Values};
use crate::error::{Error, Result};
use crate::query::answer::Coverage;
use crate::query::filter::{Filter, Limit};
use crate::query::plan::{Ledger, Question, Shape, Source};
use crate::query::rows::push_canonical;
use crate::query::scan::{Scanned, scan_block, unexpected};
use crate::schema::{ColumnType, Schema, Table};
use crate::snapshot::Snapshot;
use crate::time::{MICROS_PER_HOUR, Partition, TimeRange};

/// Bytes that the rows of a window take, where they can be cut so small.
const WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that a row takes beside its texts.
const ROW_BYTES: u64 = 80;
/// Slots of the histogram that cuts a crowded range.
const SLOTS: usize = 1024;

/// Rows in the order of time, a window at a time.
#[derive(Debug)]
pub(crate) struct Ordered {
    question: Question,
    filter: Filter,
    sources: Vec<Source>,
    /// `None` once all is read.
    ledger: Option<Ledger>,
    /// By their first stamp.
    blocks: Vec<Block>,
    /// The blocks of each day that are still to be read, the next day last.
    days: Vec<Range<usize>>,
    /// Pieces of the day that is being read, the next one last, and its blocks.
    pieces: Vec<Piece>,
    day: Range<usize>,
    /// The columns that are read, ascending.
    columns: Vec<usize>,
    newest_first: bool,
    skip: usize,
    left: usize,
    coverage: Option<Coverage>,
    window_bytes: u64,
}

/// A block that may have rows of the question.
#[derive(Debug)]
struct Block {
    source: usize,
    block: usize,
    min: i64,
    max: i64,
    rows: u64,
    /// What all of its rows take, once that was asked.
    bytes: Option<u64>,
}

impl Block {
    fn overlaps(&self, range: TimeRange) -> bool {
        range.overlaps(self.min, self.max)
    }
}

/// A piece of time.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// May have too many rows.
    Span(TimeRange),
    /// Has too many rows, which no hour and no block divides.
    Crowd(TimeRange),
    /// Is read at once.
    Window(TimeRange),
}

/// Some rows, and the columns they are in.
#[derive(Debug)]
pub(crate) struct OrderedRows {
    /// Columns, in parts that have the same ones: those of [`Ordered::position`].
    pub(crate) parts: Vec<Vec<Column>>,
    /// The rows, in order.
    pub(crate) rows: Vec<Place>,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    stamp: i64,
    /// Position among the parts.
    pub(crate) part: u32,
    /// Position in the columns of the part.
    pub(crate) row: u32,
}

impl Ordered {
    /// Rows of the filter; `columns` are numbers of columns that are wanted.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a filter that the table does not have, or one with a cursor.
    pub(crate) fn new(
        snapshot: &Snapshot,
        table: Table,
        filter: &Filter,
        columns: &[usize],
        newest_first: bool,
    ) -> Result<Self> {
        Self::with_window(snapshot, table, filter, columns, newest_first, WINDOW_BYTES)
    }

    pub(super) fn with_window(
        snapshot: &Snapshot,
        table: Table,
        filter: &Filter,
        columns: &[usize],
        newest_first: bool,
        window_bytes: u64,
    ) -> Result<Self> {
        let question = Question::new(table, filter)?;
        filter.check_list()?;
        let mut ledger = Ledger::new(snapshot, &question);
        let sources = ledger.sources(snapshot, &question);
        let blocks = blocks_of(&question, &sources, &mut ledger);
        let mut columns = [&[0], question.schema.page_order, columns].concat();
        columns.sort_unstable();
        columns.dedup();
        let mut days = days_of(&blocks);
        if !newest_first {
            days.reverse();
        }
        let left = match filter.limit {
            Limit::Rows(rows) => rows,
            Limit::Default | Limit::All => usize::MAX,
        };
        Ok(Self {
            question,
            filter: filter.clone(),
            sources,
            ledger: Some(ledger),
            blocks,
            days,
            pieces: Vec::new(),
            day: 0..0,
            columns,
            newest_first,
            skip: filter.offset,
            left,
            coverage: None,
            window_bytes,
        })
    }

    /// Where a column is among those of a part; it was wanted, or is a stamp or an id.
    pub(crate) fn position(&self, column: usize) -> usize {
        self.columns.partition_point(|other| *other < column)
    }

    /// What the rows rest on; nothing until all were read.
    pub(crate) fn into_coverage(self) -> Coverage {
        self.coverage.unwrap_or_default()
    }

    /// The next rows, at least one; `None` at the end.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `Incomplete` at the end if the filter is strict and something is missing.
    pub(crate) fn next(&mut self) -> Result<Option<OrderedRows>> {
        while let Some(mut ledger) = self.ledger.take() {
            let Some(range) = self.next_window(&mut ledger)? else {
                let (coverage, _) = ledger.finish(&self.filter, Shape::Rows)?;
                self.coverage = Some(coverage);
                break;
            };
            let mut found = self.read(&mut ledger, range)?;
            self.ledger = Some(ledger);
            let skipped = self.skip.min(found.rows.len());
            found.rows.drain(..skipped);
            self.skip -= skipped;
            found.rows.truncate(self.left);
            self.left -= found.rows.len();
            if !found.rows.is_empty() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The next piece of time that is read at once; `None` at the end.
    fn next_window(&mut self, ledger: &mut Ledger) -> Result<Option<TimeRange>> {
        while self.left > 0 {
            match self.pieces.pop() {
                Some(Piece::Window(range)) => return Ok(Some(range)),
                Some(Piece::Span(range)) => self.divide(ledger, range)?,
                Some(Piece::Crowd(range)) => self.count(ledger, range)?,
                None => {
                    let Some(day) = self.days.pop() else { return Ok(None) };
                    let stamp = self.blocks.get(day.start).map_or(0, |block| block.min);
                    let range = meet(self.question.range, Partition::of_micros(stamp).range());
                    self.day = day;
                    self.pieces.push(Piece::Span(range));
                }
            }
        }
        Ok(None)
    }

    /// Queues pieces of time, which are in order.
    fn queue(&mut self, mut pieces: Vec<Piece>) {
        if !self.newest_first {
            pieces.reverse();
        }
        self.pieces.extend(pieces);
    }

    /// Cuts a span where few blocks lie on both sides, into pieces as large as a window can be.
    fn divide(&mut self, ledger: &mut Ledger, range: TimeRange) -> Result<()> {
        let most = self.window_bytes;
        let inside: Vec<usize> =
            self.day.clone().filter(|block| self.blocks[*block].overlaps(range)).collect();
        let mut total = 0u64;
        for block in &inside {
            total += self.bytes(ledger, *block)?;
        }
        if total <= most || range.end - range.start <= 1 {
            self.queue(vec![Piece::Window(range)]);
            return Ok(());
        }
        let cuts = self.cuts(&inside, range);
        let mut pieces = Vec::new();
        let (mut start, mut end) = (range.start, range.start);
        // What the blocks take that have rows between the two. There may be a block for every
        // few rows: each is added once, and asked again only where a piece begins.
        let (mut taken, mut begun) = (0u64, 0);
        for cut in cuts.into_iter().chain([range.end]) {
            let before = begun;
            let mut more = 0;
            while let Some(block) = inside.get(begun).map(|block| &self.blocks[*block])
                && block.min < cut
            {
                more += block.bytes.unwrap_or(0);
                begun += 1;
            }
            if end > start && taken + more > most {
                pieces.push(self.judged(taken, TimeRange { start, end }, range));
                start = end;
                let known = inside.iter().take(before).map(|block| &self.blocks[*block]);
                taken = known.filter(|block| block.max >= start).filter_map(|b| b.bytes).sum();
            }
            (taken, end) = (taken + more, cut);
        }
        pieces.push(self.judged(taken, TimeRange { start, end }, range));
        self.queue(pieces);
        Ok(())
    }

    /// Whether a piece of a range, whose blocks take so much, can be read, divided further, or
    /// only counted out.
    fn judged(&self, taken: u64, piece: TimeRange, whole: TimeRange) -> Piece {
        if taken <= self.window_bytes {
            Piece::Window(piece)
        } else if piece == whole {
            Piece::Crowd(piece)
        } else {
            Piece::Span(piece)
        }
    }

    /// Where a range may be cut: at its hours, or, inside an hour, where no block lies on both
    /// sides.
    fn cuts(&self, inside: &[usize], range: TimeRange) -> Vec<i64> {
        let first = range.start.div_euclid(MICROS_PER_HOUR) + 1;
        let last = (range.end - 1).div_euclid(MICROS_PER_HOUR);
        if first <= last {
            return (first..=last).map(|hour| hour * MICROS_PER_HOUR).collect();
        }
        let mut reached = i64::MIN;
        let mut cuts = Vec::new();
        for block in inside.iter().map(|block| &self.blocks[*block]) {
            if reached != i64::MIN && block.min > reached && block.min > range.start {
                cuts.push(block.min);
            }
            reached = reached.max(block.max);
        }
        cuts
    }

    /// What all rows of a block take.
    fn bytes(&mut self, ledger: &mut Ledger, number: usize) -> Result<u64> {
        let block = &mut self.blocks[number];
        if let Some(bytes) = block.bytes {
            return Ok(bytes);
        }
        let source = &self.sources[block.source];
        let mut bytes = block.rows * ROW_BYTES;
        let schema = self.question.schema;
        for column in self.columns.iter().filter(|column| schema.columns[**column].kind.is_text()) {
            let text = ledger
                .with_chunk(source, block.block, *column, |chunk, _| chunk.text_bytes_max())?;
            bytes += text.unwrap_or(0);
        }
        block.bytes = Some(bytes);
        Ok(bytes)
    }

    /// Cuts a crowded range by how many rows its parts have.
    fn count(&mut self, ledger: &mut Ledger, range: TimeRange) -> Result<()> {
        let slot = (range.end - range.start - 1) / SLOTS as i64 + 1;
        let mut bytes = [0u64; SLOTS];
        for block in self.blocks[self.day.clone()].iter().filter(|block| block.overlaps(range)) {
            let each = block.bytes.unwrap_or(0) / block.rows.max(1);
            let rows = usize::try_from(block.rows).unwrap_or(0);
            let source = &self.sources[block.source];
            ledger.with_chunk(source, block.block, 0, |chunk, _| {
                chunk.for_each_ints(0..rows, |stamps| {
                    for stamp in stamps.iter().filter(|stamp| range.contains(**stamp)) {
                        let at = usize::try_from((stamp - range.start) / slot).unwrap_or(0);
                        bytes[at] += each;
                    }
                })
            })?;
        }
        let edge = |slots: usize| (range.start + slots as i64 * slot).min(range.end);
        let most = self.window_bytes;
        let (mut pieces, mut start, mut sum) = (Vec::new(), 0, 0);
        for (at, more) in bytes.iter().copied().enumerate() {
            if at > start && sum + more > most {
                pieces.push(piece(edge(start), edge(at), sum > most));
                (start, sum) = (at, 0);
            }
            sum += more;
        }
        pieces.push(piece(edge(start), range.end, sum > most));
        self.queue(pieces);
        Ok(())
    }

    /// Reads and sorts the rows of a window.
    fn read(&self, ledger: &mut Ledger, range: TimeRange) -> Result<OrderedRows> {
        let question = self.question.within(range);
        let mut found = OrderedRows { parts: Vec::new(), rows: Vec::new() };
        for block in self.blocks[self.day.clone()].iter().filter(|block| block.overlaps(range)) {
            let source = &self.sources[block.source];
            let all = source.block_rows(block.block);
            let scanned =
                scan_block(&question, source, ledger, block.block, from_ref(&all), &self.columns)?;
            if let Some(Scanned { columns, .. }) = scanned {
                found.add(columns)?;
            }
        }
        found.sort(self.question.schema, &self.columns);
        if self.newest_first {
            found.rows.reverse();
        }
        Ok(found)
    }
}

/// A part of a counted range.
fn piece(start: i64, end: i64, is_crowded: bool) -> Piece {
    let range = TimeRange { start, end };
    if is_crowded && end - start > 1 { Piece::Crowd(range) } else { Piece::Window(range) }
}

fn meet(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange { start: a.start.max(b.start), end: a.end.min(b.end) }
}

/// The blocks that may have rows in the range of the question, by their first stamp.
fn blocks_of(question: &Question, sources: &[Source], ledger: &mut Ledger) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        for (block, info) in source.segment.blocks().iter().enumerate() {
            if question.range.overlaps(info.min_ts, info.max_ts) {
                blocks.push(Block {
                    source: number,
                    block,
                    min: info.min_ts,
                    max: info.max_ts,
                    rows: u64::from(info.rows),
                    bytes: None,
                });
            } else {
                ledger.prune(source, block, &[0]);
            }
        }
    }
    blocks.sort_by_key(|block| block.min);
    blocks
}

/// The blocks of each day.
fn days_of(blocks: &[Block]) -> Vec<Range<usize>> {
    let mut days = Vec::new();
    let mut start = 0;
    let day = |block: &Block| Partition::of_micros(block.min);
    for day in blocks.chunk_by(|a, b| day(a) == day(b)) {
        days.push(start..start + day.len());
        start += day.len();
    }
    days
}

impl OrderedRows {
    /// Each row, with the columns it is in.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[Column], usize)> {
        self.rows.iter().map(|place| (&self.parts[place.part as usize][..], place.row as usize))
    }

    fn add(&mut self, columns: Vec<Column>) -> Result<()> {
        let part = u32::try_from(self.parts.len())
            .map_err(|_| Error::invalid("a window has fewer than 2^32 blocks"))?;
        let Some(Values::Int(stamps)) = columns.first().map(|column| &column.values) else {
            return Err(unexpected("timestamp"));
        };
        let place = |(row, stamp): (u32, &i64)| Place { stamp: *stamp, part, row };
        self.rows.extend((0..).zip(stamps).map(place));
        self.parts.push(columns);
        Ok(())
    }

    fn sort(&mut self, schema: &Schema, columns: &[usize]) {
        let Self { parts, rows } = self;
        // Stable: it finds the runs in which blocks are sorted already.
        rows.sort_by_key(|place| place.stamp);
        let order = TieOrder::new(schema, columns, parts);
        for tie in rows.chunk_by_mut(|a, b| a.stamp == b.stamp).filter(|tie| tie.len() > 1) {
            tie.sort_by(|a, b| order.by_ids(a, b));
            for equal in tie.chunk_by_mut(|a, b| order.by_ids(a, b).is_eq()) {
                if equal.len() > 1 {
                    equal.sort_by_cached_key(|place| order.key(place));
                }
            }
        }
    }
}

/// The order of rows of the same stamp.
struct TieOrder<'a> {
    parts: &'a [Vec<Column>],
    /// Positions of the ids among the columns of a part.
    ids: Vec<usize>,
    /// Positions of the other columns, and whether they are JSON.
    rest: Vec<(usize, bool)>,
}

impl<'a> TieOrder<'a> {
    fn new(schema: &Schema, columns: &[usize], parts: &'a [Vec<Column>]) -> Self {
        let position = |column: &usize| columns.partition_point(|other| other < column);
        let is_rest = |column: &usize| *column != 0 && !schema.page_order.contains(column);
        let rest = columns.iter().enumerate().filter(|(_, column)| is_rest(column));
        let is_json = |column: usize| schema.columns[column].kind == ColumnType::Json;
        Self {
            parts,
            ids: schema.page_order.iter().map(position).collect(),
            rest: rest.map(|(position, column)| (position, is_json(*column))).collect(),
        }
    }

    fn by_ids(&self, a: &Place, b: &Place) -> Ordering {
        let text = |place: &Place, id: usize| {
            self.parts[place.part as usize][id].text(place.row as usize).unwrap_or_default()
        };
        let ids = self.ids.iter().map(|id| text(a, *id).cmp(text(b, *id)));
        ids.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Hash and bytes of the other columns, JSON on one line, then their bytes as they are.
    fn key(&self, place: &Place) -> (u128, Vec<u8>, Vec<u8>) {
        let (mut line, mut exact) = (Vec::new(), Vec::new());
        let row = place.row as usize;
        for (position, is_json) in &self.rest {
            let column = &self.parts[place.part as usize][*position];
            push_canonical(column, row, &mut exact);
            let json = column.text(row).filter(|_| *is_json);
            match json {
                None => push_canonical(column, row, &mut line),
                Some(json) => push_json(json, &mut line),
            }
        }
        (xxh3_128(&line), line, exact)
    }
}

/// Appends the canonical bytes of JSON text on one line; `null` is a null.
fn push_json(json: &str, bytes: &mut Vec<u8>) {
    let json = one_line(json);
    if json.eq("null") {
        bytes.push(0);
        return;
    }
    bytes.push(1);
    bytes.extend(u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(json.bytes().map(line_byte));
}

/// JSON text without the blanks around it. What is left has line ends only between tokens:
/// with [`line_byte`] of each byte it is one line and means the same.
pub(crate) fn one_line(json: &str) -> &str {
    json.trim_matches([' ', '\t', '\r', '\n'])
}

/// A byte of JSON text, or a blank in place of a line end.
pub(crate) fn line_byte(byte: u8) -> u8 {
    if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }
}
