//! Which rows of a block a question means, and the loops over their values.
//!
//! Owns `Selection`, the narrowing of one by the filter, and the gathering of values.
//! The loops work on plain slices; what a value means is `aggregate`'s and `rows`'s.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::column::{Bitmap, Column, Strings, Values};
use crate::error::{Error, Result};
use crate::format::order::float_key;
use crate::query::plan::{Ledger, Map, Question, Source};

/// Some rows of a block, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Rows in a row.
    Range(Range<usize>),
    /// These rows.
    Rows(Vec<u32>),
}

impl Selection {
    /// The rows of ascending ranges.
    fn of(ranges: &[Range<usize>]) -> Self {
        match ranges {
            [] => Self::Range(0..0),
            [one] => Self::Range(one.clone()),
            [first, .., last] => {
                let rows: usize = ranges.iter().map(ExactSizeIterator::len).sum();
                if last.end - first.start == rows {
                    return Self::Range(first.start..last.end);
                }
                Self::Rows(ranges.iter().flat_map(|range| narrow_row(range.clone())).collect())
            }
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

    /// The rows at positions `part` of the selection.
    pub(crate) fn slice(&self, part: Range<usize>) -> Self {
        match self {
            Self::Range(range) => Self::Range(range.start + part.start..range.start + part.end),
            Self::Rows(rows) => Self::Rows(rows[part].to_vec()),
        }
    }

    /// The row at a position of the selection.
    pub(crate) fn row(&self, position: usize) -> usize {
        match self {
            Self::Range(range) => range.start + position,
            Self::Rows(rows) => rows[position] as usize,
        }
    }

    /// The rows for which `keep` holds.
    pub(crate) fn narrow(self, keep: impl Fn(usize) -> bool) -> Self {
        let mut kept = vec![0u32; self.len()];
        let mut count = 0;
        // Writes always and steps on a match, so that the loop has no branch to miss.
        match self {
            Self::Range(range) => {
                for row in range {
                    kept[count] = index(row);
                    count += usize::from(keep(row));
                }
            }
            Self::Rows(rows) => {
                for row in rows {
                    kept[count] = row;
                    count += usize::from(keep(row as usize));
                }
            }
        }
        kept.truncate(count);
        match (kept.first(), kept.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == count => {
                Self::Range(*first as usize..*last as usize + 1)
            }
            (None, _) => Self::Range(0..0),
            _ => Self::Rows(kept),
        }
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
fn index(row: usize) -> u32 {
    u32::try_from(row).expect("a block has fewer than 2^32 rows")
}

fn narrow_row(range: Range<usize>) -> Range<u32> {
    index(range.start)..index(range.end)
}

/// The rows of one block that a question means, and the columns asked for.
pub(crate) struct Scanned {
    /// Its rows.
    pub(crate) rows: Selection,
    /// The columns asked for, whole, in the order asked for.
    pub(crate) columns: Vec<Column>,
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

fn local(row: u64) -> usize {
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
    let Some(mut selected) = select(question, source, ledger, block, ranges, columns)? else {
        return Ok(None);
    };
    if selected.rows.is_empty() {
        return Ok(None);
    }
    let mut read = Vec::with_capacity(columns.len());
    for column in columns {
        let fetched = selected.fetched.iter().position(|(fetched, _)| fetched == column);
        let values = match fetched {
            Some(position) => Some(selected.fetched.swap_remove(position).1),
            None => ledger.read(source, block, *column)?,
        };
        let Some(values) = values else { return Ok(None) };
        read.push(values);
    }
    Ok(Some(Scanned { rows: selected.rows, columns: read }))
}

struct Selected {
    rows: Selection,
    /// Columns that had to be read to tell.
    fetched: Vec<(usize, Column)>,
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

/// Finds the rows of the question; `None` if the block is ruled out or damaged.
fn select(
    question: &Question,
    source: &Source,
    ledger: &mut Ledger,
    block: usize,
    ranges: &[Range<usize>],
    columns: &[usize],
) -> Result<Option<Selected>> {
    if ledger.is_damaged(source, block) {
        return Ok(None);
    }
    let Some(open) = ask_indexes(question, source, block, ranges) else {
        ledger.prune(source, block, columns);
        return Ok(None);
    };
    let mut selected = Selected { rows: Selection::of(&open.ranges), fetched: Vec::new() };
    if open.time {
        let Some(stamps) = ledger.read(source, block, 0)? else { return Ok(None) };
        let Values::Int(micros) = &stamps.values else { return Err(unexpected("timestamp")) };
        selected.rows = selected.rows.narrow(|row| question.range.contains(micros[row]));
        selected.fetched.push((0, stamps));
    }
    for position in open.texts {
        if selected.rows.is_empty() {
            break;
        }
        let (column, text) = &question.texts[position];
        let Some(values) = ledger.read(source, block, *column)? else { return Ok(None) };
        selected.rows =
            select_text(source, selected.rows, &values, *column, text, source.codes[position])?;
        selected.fetched.push((*column, values));
    }
    if let (true, Some(success), Some(column)) =
        (open.success && !selected.rows.is_empty(), question.success, question.schema.success)
    {
        let Some(values) = ledger.read(source, block, column)? else { return Ok(None) };
        let Values::Bool(bits) = &values.values else { return Err(unexpected("success")) };
        selected.rows = selected.rows.narrow(|row| bits.get(row) == success);
        selected.fetched.push((column, values));
    }
    Ok(Some(selected))
}

fn select_text(
    source: &Source,
    rows: Selection,
    column: &Column,
    number: usize,
    text: &str,
    code: Option<u32>,
) -> Result<Selection> {
    match &column.values {
        Values::Coded { codes, dictionary } => {
            let found = match (code, source.segment.dictionary(number)) {
                (Some(code), Ok(Some(shared))) if Arc::ptr_eq(&shared, dictionary) => Some(code),
                _ => dictionary.iter().position(|have| have == text).map(index),
            };
            Ok(match found {
                Some(code) => rows.narrow(|row| codes[row] == code),
                None => Selection::Range(0..0),
            })
        }
        Values::Text(strings) => Ok(rows.narrow(|row| strings.get(row) == text)),
        _ => Err(unexpected("text")),
    }
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

/// A column of the selected rows only; the column itself if those are all.
pub(crate) fn take(column: Column, rows: &Selection) -> Column {
    if *rows == Selection::Range(0..column.len()) {
        return column;
    }
    let validity = column.validity.as_ref().map(|validity| {
        let mut kept = Bitmap::default();
        rows.for_each(|row| kept.push(validity.get(row)));
        kept
    });
    let values = match &column.values {
        Values::Int(values) => Values::Int(gather(values, None, rows).into_owned()),
        Values::Float(values) => Values::Float(gather(values, None, rows).into_owned()),
        Values::Bool(values) => {
            let mut kept = Bitmap::default();
            rows.for_each(|row| kept.push(values.get(row)));
            Values::Bool(kept)
        }
        Values::Text(values) => {
            let mut kept = Strings::new();
            rows.for_each(|row| kept.push(values.get(row)));
            Values::Text(kept)
        }
        Values::Coded { codes, dictionary } => Values::Coded {
            codes: gather(codes, None, rows).into_owned(),
            dictionary: Arc::clone(dictionary),
        },
    };
    match validity {
        Some(validity) => Column::with_validity(values, validity),
        None => Column::new(values),
    }
}
