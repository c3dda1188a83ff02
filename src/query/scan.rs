//! Which rows of a block a question means, and the loops over their values.
//!
//! Owns the narrowing of a selection by the filter, and the gathering of values.
//! The loops work on plain slices; what a value means is `aggregate`'s and `rows`'s.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::column::{Bitmap, Column, Strings, Values};
use crate::encoding::find_inside;
use crate::error::{Error, Result};
use crate::format::order::float_key;
use crate::query::plan::{Ledger, Map, Question, Source};
use crate::selection::{Selection, index};

/// The rows of one block that a question means, and the columns asked for.
pub(crate) struct Scanned {
    /// Its rows.
    pub(crate) rows: Selection,
    /// The columns asked for, of these rows alone, in the order asked for.
    pub(crate) columns: Vec<Column>,
}

impl Scanned {
    /// The positions of all rows in the columns.
    pub(crate) fn all(&self) -> Selection {
        Selection::Range(0..self.rows.len())
    }
}

/// Calls `each` for every block of the source that has rows of the question among `rows`,
/// with the columns asked for. Damaged blocks are left out and noted.
pub(crate) fn scan(
    question: &Question,
    source: &Source,
    ledger: &mut Ledger,
    rows: &[Range<u64>],
    columns: &[usize],
    mut each: impl FnMut(Scanned) -> Result<()>,
) -> Result<()> {
    for_each_block(source, rows, |block, ranges| {
        match scan_block(question, source, ledger, block, ranges, columns)? {
            Some(scanned) => each(scanned),
            None => Ok(()),
        }
    })
}

/// Calls `each` for every block with rows among `rows`, with those, counted from its first.
pub(crate) fn for_each_block(
    source: &Source,
    rows: &[Range<u64>],
    mut each: impl FnMut(usize, &[Range<usize>]) -> Result<()>,
) -> Result<()> {
    let blocks = source.segment.blocks();
    let Some(first) = rows.first() else { return Ok(()) };
    let start =
        blocks.partition_point(|block| block.first_row + u64::from(block.rows) <= first.start);
    let mut next = 0;
    let mut ranges = Vec::new();
    for (block, info) in blocks.iter().enumerate().skip(start) {
        let end = info.first_row + u64::from(info.rows);
        ranges.clear();
        while let Some(range) = rows.get(next) {
            let inside = range.start.max(info.first_row)..range.end.min(end);
            if inside.start < inside.end {
                ranges
                    .push(local(inside.start - info.first_row)..local(inside.end - info.first_row));
            }
            if range.end > end {
                break;
            }
            next += 1;
        }
        if !ranges.is_empty() {
            each(block, &ranges)?;
        }
        if next == rows.len() {
            break;
        }
    }
    Ok(())
}

/// A row counted from the first of its block.
pub(crate) fn local(row: u64) -> usize {
    usize::try_from(row).expect("a block has fewer than 2^32 rows")
}

/// The rows of the question among some of a block, with the columns asked for; `None` if
/// there are none or the block is damaged.
pub(crate) fn scan_block(
    question: &Question,
    source: &Source,
    ledger: &mut Ledger,
    block: usize,
    ranges: &[Range<usize>],
    columns: &[usize],
) -> Result<Option<Scanned>> {
    match select(question, source, ledger, block, ranges, columns)? {
        Some(rows) => read(source, ledger, block, rows, columns),
        None => Ok(None),
    }
}

/// Columns of some rows of a block; `None` if it is damaged.
pub(crate) fn read(
    source: &Source,
    ledger: &mut Ledger,
    block: usize,
    rows: Selection,
    columns: &[usize],
) -> Result<Option<Scanned>> {
    let mut read = Vec::with_capacity(columns.len());
    for column in columns {
        let Some(values) = ledger.read_rows(source, block, *column, &rows)? else {
            return Ok(None);
        };
        read.push(values);
    }
    Ok(Some(Scanned { rows, columns: read }))
}

/// What of a filter the indexes leave open for a block.
struct Open {
    ranges: Vec<Range<usize>>,
    time: bool,
    /// Positions in the question's texts.
    texts: Vec<usize>,
    success: bool,
}

/// Asks the indexes; `None` if they rule the block out.
fn ask_indexes(
    question: &Question,
    source: &Source,
    block: usize,
    ranges: &[Range<usize>],
) -> Option<Open> {
    let info = source.segment.blocks()[block];
    if !question.range.overlaps(info.min_ts, info.max_ts) {
        return None;
    }
    let mut open = Open {
        ranges: ranges.to_vec(),
        time: !question.range.covers(info.min_ts, info.max_ts),
        texts: Vec::new(),
        success: false,
    };
    let mut theirs_alone = false;
    if let Some((runs, dense)) = source.runs_in(block) {
        open.ranges = intersect(&open.ranges, &runs);
        theirs_alone = dense;
        if open.ranges.is_empty() {
            return None;
        }
    }
    for (position, ((column, text), code)) in question.texts.iter().zip(&source.codes).enumerate() {
        match code {
            Some(code) => {
                let zone = source.segment.zone(block, *column);
                let code = i64::from(*code);
                if zone.is_some_and(|(min, max)| code < min || max < code) {
                    return None;
                }
                if !theirs_alone && zone != Some((code, code)) {
                    open.texts.push(position);
                }
            }
            None if !source.segment.block_might_contain(block, *column, text) => return None,
            None => open.texts.push(position),
        }
    }
    if let (Some(success), Some(column)) = (question.success, question.schema.success) {
        let wanted = i64::from(success);
        let zone = source.segment.zone(block, column);
        if zone.is_some_and(|(min, max)| wanted < min || max < wanted) {
            return None;
        }
        open.success = zone != Some((wanted, wanted));
    }
    Some(open)
}

/// Finds the rows of the question, at least one; `None` if there are none or the block is
/// damaged.
pub(crate) fn select(
    question: &Question,
    source: &Source,
    ledger: &mut Ledger,
    block: usize,
    ranges: &[Range<usize>],
    columns: &[usize],
) -> Result<Option<Selection>> {
    if ledger.is_damaged(source, block) {
        return Ok(None);
    }
    let Some(open) = ask_indexes(question, source, block, ranges) else {
        ledger.prune(source, block, columns);
        return Ok(None);
    };
    let mut rows = Selection::of(&open.ranges);
    if open.time {
        let Some(found) = in_time(question, source, ledger, block, rows)? else { return Ok(None) };
        rows = found;
    }
    for position in open.texts {
        if rows.is_empty() {
            break;
        }
        let (column, text) = &question.texts[position];
        let code = source.codes[position];
        let found = ledger
            .with_chunk(source, block, *column, |chunk, _| chunk.find_text(text, code, &rows))?;
        let Some(found) = found else { return Ok(None) };
        rows = found;
    }
    if let (true, Some(success), Some(column)) =
        (open.success && !rows.is_empty(), question.success, question.schema.success)
    {
        let Some(values) = ledger.read_rows(source, block, column, &rows)? else {
            return Ok(None);
        };
        let Values::Bool(bits) = &values.values else { return Err(unexpected("success")) };
        rows = rows.narrow(|position| bits.get(position) == success);
    }
    Ok(Some(rows).filter(|rows| !rows.is_empty()))
}

/// The rows whose stamps are in the question's range; `None` if the block is damaged.
fn in_time(
    question: &Question,
    source: &Source,
    ledger: &mut Ledger,
    block: usize,
    rows: Selection,
) -> Result<Option<Selection>> {
    let time = question.range;
    if let Selection::Range(all) = &rows {
        // Neighbours mostly are in the range together, or not.
        let (mut found, mut first) = (Vec::new(), all.start);
        let read = ledger.with_chunk(source, block, 0, |chunk, _| {
            chunk.for_each_ints(all.clone(), |stamps| {
                find_inside(stamps, &(time.start..time.end), first, &mut found);
                first += stamps.len();
            })
        })?;
        return Ok(read.map(|()| Selection::of(&found)));
    }
    let Some(stamps) = ledger.read_rows(source, block, 0, &rows)? else { return Ok(None) };
    let Values::Int(micros) = &stamps.values else { return Err(unexpected("timestamp")) };
    Ok(Some(rows.narrow(|position| time.contains(micros[position]))))
}

fn intersect(left: &[Range<usize>], right: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut both = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (left.get(i), right.get(j)) {
        let start = a.start.max(b.start);
        let end = a.end.min(b.end);
        if start < end {
            both.push(start..end);
        }
        if a.end < b.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

/// A chunk that decoded to another type than the schema says.
pub(crate) fn unexpected(what: &str) -> Error {
    Error::corrupt("1", format!("a {what} column holds values of another type"))
}

/// The integers of the rows that have one.
pub(crate) fn ints<'a>(
    values: &'a [i64],
    validity: Option<&Bitmap>,
    rows: &Selection,
) -> Cow<'a, [i64]> {
    gather(values, validity, rows)
}

/// The floats of the rows that have one.
pub(crate) fn floats<'a>(
    values: &'a [f64],
    validity: Option<&Bitmap>,
    rows: &Selection,
) -> Cow<'a, [f64]> {
    gather(values, validity, rows)
}

fn gather<'a, T: Copy>(
    values: &'a [T],
    validity: Option<&Bitmap>,
    rows: &Selection,
) -> Cow<'a, [T]> {
    match (rows, validity) {
        (Selection::Range(range), None) => Cow::Borrowed(&values[range.clone()]),
        (Selection::Rows(rows), None) => {
            Cow::Owned(rows.iter().map(|row| values[*row as usize]).collect())
        }
        (_, Some(validity)) => {
            let mut kept = Vec::with_capacity(rows.len());
            rows.for_each(|row| {
                if validity.get(row) {
                    kept.push(values[row]);
                }
            });
            Cow::Owned(kept)
        }
    }
}

/// Appends the order keys (spec 1.4) of the rows that have a value.
pub(crate) fn push_keys(column: &Column, rows: &Selection, keys: &mut Vec<i64>) -> Result<()> {
    let validity = column.validity.as_ref();
    match &column.values {
        Values::Int(values) => keys.extend_from_slice(&ints(values, validity, rows)),
        Values::Float(values) => {
            keys.extend(floats(values, validity, rows).iter().map(|value| float_key(*value)));
        }
        _ => return Err(unexpected("numeric")),
    }
    Ok(())
}

/// Order key of a row that has a value.
pub(crate) fn key_at(column: &Column, row: usize) -> Option<i64> {
    column.int(row).or_else(|| column.float(row).map(float_key))
}

/// A text column as codes: its own, or made here.
pub(crate) fn coded(column: &Column) -> Result<(Cow<'_, [u32]>, Arc<Strings>)> {
    match &column.values {
        Values::Coded { codes, dictionary } => Ok((Cow::Borrowed(codes), Arc::clone(dictionary))),
        Values::Text(strings) => {
            let mut known: Map<&str, u32> = Map::default();
            let mut dictionary = Strings::new();
            let codes = strings
                .iter()
                .map(|text| {
                    *known.entry(text).or_insert_with(|| {
                        dictionary.push(text);
                        index(dictionary.len() - 1)
                    })
                })
                .collect();
            Ok((Cow::Owned(codes), Arc::new(dictionary)))
        }
        _ => Err(unexpected("text")),
    }
}

/// The rows of the selection grouped by code: each code that occurs, with its rows.
pub(crate) fn group(codes: &[u32], rows: &Selection) -> Vec<(u32, Selection)> {
    let mut groups: Vec<(u32, Selection)> = Vec::new();
    let mut order: Vec<u32> = Vec::with_capacity(rows.len());
    rows.for_each(|row| order.push(index(row)));
    // Stable, so that rows of a code stay ascending; runs, as sorted gauges have, are cheap.
    order.sort_by_key(|row| codes[*row as usize]);
    for run in order.chunk_by(|a, b| codes[*a as usize] == codes[*b as usize]) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let rows = if (last - first) as usize + 1 == run.len() {
            Selection::Range(first as usize..last as usize + 1)
        } else {
            Selection::Rows(run.to_vec())
        };
        groups.push((codes[first as usize], rows));
    }
    groups
}
