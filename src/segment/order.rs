//! The rows of a segment in the order they are stored: sort, dictionaries, block cuts.
//!
//! Owns `OrderedRows`: a permutation over borrowed batches, so that sealing never holds a
//! second copy of its input, and columns are gathered block by block. Strings are
//! compared once, when the distinct ones are ranked; rows are then sorted as packed
//! integers (hour, the schema's order, position), and only equal rows are compared value
//! by value. Knows no bytes and no files (spec 6.2, 6.3).

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::column::{Batch, Bitmap, Column, Strings, Values};
use crate::error::{Error, Result};
use crate::limits::{CHUNK_RAW_BYTES_MAX, DICTIONARY_BYTES_MAX, DICTIONARY_ENTRIES_MAX};
use crate::schema::{ColumnType, Schema};
use crate::time::{MICROS_PER_HOUR, Partition};

/// So few distinct texts always get a segment dictionary, however few the rows.
const DICTIONARY_ENTRIES_SMALL: usize = 256;

/// Raw bytes that a text takes beside its own: where it ends.
const TEXT_END_BYTES: usize = 4;

/// An hour's rows: positions in the stored order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HourRun {
    /// Hours since 1970.
    pub(crate) hour: i64,
    /// Its rows.
    pub(crate) rows: Range<usize>,
}

/// Where a row lies in the input.
#[derive(Clone, Copy, Debug)]
struct Place {
    batch: u32,
    row: u32,
}

enum TextPart<'a> {
    Plain(&'a Strings),
    Coded(&'a [u32], &'a Strings),
}

impl<'a> TextPart<'a> {
    /// Bytes of the longest text.
    fn longest(&self) -> usize {
        match self {
            Self::Plain(strings) | Self::Coded(_, strings) => strings.longest(),
        }
    }

    fn get(&self, row: usize) -> &'a str {
        match self {
            Self::Plain(strings) => strings.get(row),
            Self::Coded(codes, dictionary) => dictionary.get(codes[row] as usize),
        }
    }
}

/// One column of all batches, its type settled once.
enum Parts<'a> {
    Int(Vec<&'a [i64]>),
    Float(Vec<&'a [f64]>),
    Bool(Vec<&'a Bitmap>),
    Text(Vec<TextPart<'a>>),
}

struct View<'a> {
    parts: Parts<'a>,
    /// Per batch; `None` when no batch has a null.
    validity: Option<Vec<Option<&'a Bitmap>>>,
    /// For a dimension: each row's rank among the distinct texts.
    ranks: Option<Vec<u32>>,
}

impl View<'_> {
    fn is_valid(&self, place: Place) -> bool {
        self.validity.as_ref().is_none_or(|parts| {
            parts[place.batch as usize].is_none_or(|bitmap| bitmap.get(place.row as usize))
        })
    }

    fn compare(&self, left: Place, right: Place) -> Ordering {
        let valid = self.is_valid(left).cmp(&self.is_valid(right));
        let (lb, lr) = (left.batch as usize, left.row as usize);
        let (rb, rr) = (right.batch as usize, right.row as usize);
        valid.then_with(|| match &self.parts {
            Parts::Int(parts) => parts[lb][lr].cmp(&parts[rb][rr]),
            Parts::Float(parts) => parts[lb][lr].total_cmp(&parts[rb][rr]),
            Parts::Bool(parts) => parts[lb].get(lr).cmp(&parts[rb].get(rr)),
            Parts::Text(parts) => parts[lb].get(lr).cmp(parts[rb].get(rr)),
        })
    }
}

/// The rows of some batches, sorted by hour and then by the table's order.
pub(crate) struct OrderedRows<'a> {
    schema: &'static Schema,
    views: Vec<View<'a>>,
    /// First row of each batch, and the end of the last.
    starts: Vec<u32>,
    order: Vec<u32>,
    hours: Vec<HourRun>,
    dictionaries: Vec<Option<Arc<Strings>>>,
}

impl<'a> OrderedRows<'a> {
    /// Sorts the rows of `batches`, which are all of `schema` and of one partition.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when a batch is of another shape, a stamp lies outside the
    /// partition, or there are more rows than a segment can hold.
    pub(crate) fn new(
        schema: &'static Schema,
        partition: Partition,
        batches: &'a [Batch],
    ) -> Result<Self> {
        Self::with(schema, partition, batches, None)
    }

    /// As [`new`](Self::new), as a part of more rows whose sorted dictionaries are known.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and for a text that is not in its dictionary.
    pub(crate) fn with_dictionaries(
        schema: &'static Schema,
        partition: Partition,
        batches: &'a [Batch],
        dictionaries: &[Option<Arc<Strings>>],
    ) -> Result<Self> {
        Self::with(schema, partition, batches, Some(dictionaries))
    }

    fn with(
        schema: &'static Schema,
        partition: Partition,
        batches: &'a [Batch],
        known: Option<&[Option<Arc<Strings>>]>,
    ) -> Result<Self> {
        let starts = starts_of(schema, batches)?;
        let rows = starts.last().copied().unwrap_or(0) as usize;
        let mut views = Vec::with_capacity(schema.columns.len());
        let mut dictionaries = Vec::with_capacity(schema.columns.len());
        for column in 0..schema.columns.len() {
            let known = known.map(|known| known.get(column).cloned().flatten());
            let (view, dictionary) = view_of(schema, batches, column, rows, known)?;
            views.push(view);
            dictionaries.push(dictionary);
        }
        let mut ordered =
            Self { schema, views, starts, order: Vec::new(), hours: Vec::new(), dictionaries };
        ordered.sort(partition)?;
        Ok(ordered)
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Per column: the sorted dictionary of all rows, where the column has one.
    pub(crate) fn dictionaries(&self) -> &[Option<Arc<Strings>>] {
        &self.dictionaries
    }

    fn sort(&mut self, partition: Partition) -> Result<()> {
        let rows = self.starts.last().copied().unwrap_or(0) as usize;
        let day = partition.range();
        let Parts::Int(stamps) = &self.views[0].parts else {
            return Err(Error::invalid("the first column is not a timestamp"));
        };
        if let Some(stamp) = stamps.iter().copied().flatten().find(|stamp| !day.contains(**stamp)) {
            return Err(Error::invalid(format!("timestamp {stamp} is outside {partition}")));
        }
        let mut keys = PackedKeys::new(rows);
        // Hours of a day need five bits, and stamps inside an hour 32.
        keys.add(24, stamps.iter().copied().flatten().map(|s| hour_of(s - day.start)));
        let mut packed = vec![false; self.schema.columns.len()];
        for column in self.schema.order.iter().copied() {
            if !self.pack(&mut keys, column, day.start) {
                break;
            }
            packed[column] = true;
        }
        let (mut order, ties) = keys.sort();
        let rest: Vec<usize> = self
            .schema
            .order
            .iter()
            .copied()
            .chain(0..self.schema.columns.len())
            .filter(|column| !packed[*column])
            .collect();
        for tie in ties {
            // A stable sort: what is equal in every column stays as it came.
            order[tie].sort_by(|left, right| self.compare(&rest, *left, *right));
        }
        self.order = order;
        self.hours = self.hour_runs();
        Ok(())
    }

    /// Adds a column of the order to the keys; false if it is text or does not fit.
    fn pack(&self, keys: &mut PackedKeys, column: usize, day_start: i64) -> bool {
        let view = &self.views[column];
        if view.validity.is_some() {
            return false;
        }
        match (&view.parts, &view.ranks) {
            (_, Some(ranks)) => {
                let limit = ranks.iter().max().map_or(1, |rank| u64::from(*rank) + 1);
                keys.add(limit, ranks.iter().map(|rank| u64::from(*rank)))
            }
            (Parts::Int(parts), None) if column == 0 => keys.add(
                MICROS_PER_HOUR.unsigned_abs(),
                parts.iter().copied().flatten().map(|stamp| {
                    (stamp - day_start).unsigned_abs() % MICROS_PER_HOUR.unsigned_abs()
                }),
            ),
            _ => false,
        }
    }

    fn compare(&self, columns: &[usize], left: u32, right: u32) -> Ordering {
        let (left, right) = (self.place(left), self.place(right));
        columns
            .iter()
            .map(|column| self.views[*column].compare(left, right))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    fn place(&self, row: u32) -> Place {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        Place { batch: to_u32(batch), row: row - self.starts[batch] }
    }

    fn places(&self, rows: Range<usize>) -> Vec<Place> {
        let mut hint = 0;
        let inside = |batch: usize, row: u32| {
            self.starts[batch] <= row && self.starts.get(batch + 1).is_some_and(|end| row < *end)
        };
        self.order[rows]
            .iter()
            .map(|row| {
                if !inside(hint, *row) {
                    hint = self.place(*row).batch as usize;
                }
                Place { batch: to_u32(hint), row: row - self.starts[hint] }
            })
            .collect()
    }

    fn hour_runs(&self) -> Vec<HourRun> {
        let Parts::Int(stamps) = &self.views[0].parts else { return Vec::new() };
        let mut runs: Vec<HourRun> = Vec::new();
        for (position, place) in self.places(0..self.len()).into_iter().enumerate() {
            let stamp = stamps[place.batch as usize][place.row as usize];
            let hour = stamp.div_euclid(MICROS_PER_HOUR);
            match runs.last_mut() {
                Some(run) if run.hour == hour => run.rows.end = position + 1,
                _ => runs.push(HourRun { hour, rows: position..position + 1 }),
            }
        }
        runs
    }

    /// Cuts the rows into blocks of at most `block_rows` rows and `CHUNK_RAW_BYTES_MAX`
    /// raw bytes a column. Hours with fewer than `small_hour_rows` rows share blocks;
    /// the others have their own.
    pub(crate) fn blocks(&self, block_rows: usize, small_hour_rows: usize) -> Vec<Range<usize>> {
        let mut spans: Vec<(bool, Range<usize>)> = Vec::new();
        for hour in &self.hours {
            let small = hour.rows.len() < small_hour_rows;
            match spans.last_mut() {
                Some((true, span)) if small && span.len() + hour.rows.len() <= block_rows => {
                    span.end = hour.rows.end;
                }
                _ => spans.push((small, hour.rows.clone())),
            }
        }
        spans.into_iter().flat_map(|(_, span)| self.cut(span, block_rows.max(1))).collect()
    }

    fn cut(&self, span: Range<usize>, block_rows: usize) -> Vec<Range<usize>> {
        // Even parts: a short last block costs a frame and answers little.
        let even = span.len().div_ceil(span.len().div_ceil(block_rows).max(1));
        let texts: Vec<&Vec<TextPart<'_>>> = self
            .views
            .iter()
            .zip(&self.dictionaries)
            .filter_map(|(view, dictionary)| match &view.parts {
                Parts::Text(parts) if dictionary.is_none() => Some(parts),
                _ => None,
            })
            .collect();
        // Mostly no rows of a block can be too many bytes: nothing has to be added up.
        let longest = texts.iter().flat_map(|parts| parts.iter()).map(TextPart::longest).max();
        let most = longest.unwrap_or(0).saturating_add(TEXT_END_BYTES).saturating_mul(even);
        if most <= CHUNK_RAW_BYTES_MAX {
            let step = even.max(1);
            let starts = span.clone().step_by(step);
            return starts.map(|start| start..(start + step).min(span.end)).collect();
        }
        let mut cuts = Vec::new();
        let mut start = span.start;
        let mut raw = vec![0usize; texts.len()];
        for (position, place) in span.clone().zip(self.places(span.clone())) {
            let mut over = position - start >= even;
            for (raw, parts) in raw.iter_mut().zip(&texts) {
                let text = parts[place.batch as usize].get(place.row as usize);
                *raw += text.len() + TEXT_END_BYTES;
                over |= *raw > CHUNK_RAW_BYTES_MAX;
            }
            if over && position > start {
                cuts.push(start..position);
                start = position;
                for (raw, parts) in raw.iter_mut().zip(&texts) {
                    let text = parts[place.batch as usize].get(place.row as usize);
                    *raw = text.len() + TEXT_END_BYTES;
                }
            }
        }
        cuts.push(start..span.end);
        cuts
    }

    /// The columns of the rows at `rows` of the stored order. Dimensions with a
    /// dictionary are coded by it, all other text is plain.
    pub(crate) fn gather(&self, rows: Range<usize>) -> Vec<Column> {
        let places = self.places(rows.clone());
        let order = &self.order[rows];
        self.views
            .iter()
            .zip(&self.dictionaries)
            .map(|(view, dictionary)| gather(view, dictionary.as_ref(), order, &places))
            .collect()
    }
}

fn starts_of(schema: &'static Schema, batches: &[Batch]) -> Result<Vec<u32>> {
    let mut starts = vec![0u32];
    let mut rows = 0usize;
    for batch in batches {
        let same = batch.columns.iter().all(|column| column.len() == batch.len());
        if batch.schema != schema || batch.columns.len() != schema.columns.len() || !same {
            return Err(Error::invalid(format!("a batch is not of {}", schema.name)));
        }
        rows += batch.len();
        starts.push(u32::try_from(rows).map_err(|_| Error::invalid("more than 2^32 rows"))?);
    }
    Ok(starts)
}

fn view_of<'a>(
    schema: &'static Schema,
    batches: &'a [Batch],
    column: usize,
    rows: usize,
    known: Option<Option<Arc<Strings>>>,
) -> Result<(View<'a>, Option<Arc<Strings>>)> {
    let kind = schema.columns[column].kind;
    let columns = batches.iter().map(|batch| &batch.columns[column]);
    let other =
        || Error::invalid(format!("column {} is of another type", schema.columns[column].name));
    let validity: Vec<_> = columns.clone().map(|column| column.validity.as_ref()).collect();
    let validity = validity.iter().any(Option::is_some).then_some(validity);
    macro_rules! parts {
        ($variant:ident) => {
            columns
                .map(|column| match &column.values {
                    Values::$variant(values) => Ok(values),
                    _ => Err(other()),
                })
                .collect::<Result<Vec<_>>>()?
        };
    }
    let parts = match kind {
        ColumnType::Timestamp | ColumnType::Int => {
            Parts::Int(parts!(Int).into_iter().map(Vec::as_slice).collect())
        }
        ColumnType::Float => Parts::Float(parts!(Float).into_iter().map(Vec::as_slice).collect()),
        ColumnType::Bool => Parts::Bool(parts!(Bool)),
        ColumnType::Dimension | ColumnType::Text | ColumnType::Json => {
            let parts = columns.map(|column| match &column.values {
                Values::Text(strings) => Ok(TextPart::Plain(strings)),
                Values::Coded { codes, dictionary } => Ok(TextPart::Coded(codes, dictionary)),
                _ => Err(other()),
            });
            Parts::Text(parts.collect::<Result<_>>()?)
        }
    };
    let (ranks, dictionary) = match &parts {
        Parts::Text(parts) if kind == ColumnType::Dimension => {
            let (mut ranks, distinct) = rank(parts, rows);
            let dictionary = match known {
                None => dictionary_of(&distinct, rows),
                Some(Some(dictionary)) => {
                    renumber(&mut ranks, &distinct, &dictionary)?;
                    Some(dictionary)
                }
                Some(None) => None,
            };
            (Some(ranks), dictionary)
        }
        _ => (None, None),
    };
    Ok((View { parts, validity, ranks }, dictionary))
}

/// Numbers the distinct texts in ascending order and gives each row its text's number.
fn rank<'a>(parts: &[TextPart<'a>], rows: usize) -> (Vec<u32>, Vec<&'a str>) {
    let mut seen: HashMap<&'a str, u32, RandomState> = HashMap::default();
    let mut distinct: Vec<&'a str> = Vec::new();
    let mut number = |text: &'a str| {
        *seen.entry(text).or_insert_with(|| {
            distinct.push(text);
            to_u32(distinct.len() - 1)
        })
    };
    let mut numbers = Vec::with_capacity(rows);
    let mut known: Vec<Option<u32>> = Vec::new();
    for part in parts {
        match part {
            TextPart::Plain(strings) => numbers.extend(strings.iter().map(&mut number)),
            TextPart::Coded(codes, dictionary) => {
                // Each text is looked up once a batch, and only if a row has it.
                known.clear();
                known.resize(dictionary.len(), None);
                numbers.extend(codes.iter().map(|code| {
                    let code = *code as usize;
                    *known[code].get_or_insert_with(|| number(dictionary.get(code)))
                }));
            }
        }
    }
    let mut by_text: Vec<u32> = (0..to_u32(distinct.len())).collect();
    by_text.sort_unstable_by_key(|number| distinct[*number as usize]);
    let mut rank_of = vec![0u32; distinct.len()];
    for (rank, number) in by_text.iter().enumerate() {
        rank_of[*number as usize] = to_u32(rank);
    }
    for number in &mut numbers {
        *number = rank_of[*number as usize];
    }
    (numbers, by_text.iter().map(|number| distinct[*number as usize]).collect())
}

/// Turns ranks among the distinct texts into positions in a dictionary that has them all.
fn renumber(ranks: &mut [u32], distinct: &[&str], dictionary: &Strings) -> Result<()> {
    let mut entries = dictionary.iter().zip(0u32..);
    let places = distinct.iter().map(|text| {
        let place = entries.find(|(entry, _)| entry == text).map(|(_, place)| place);
        place.ok_or_else(|| Error::invalid("a text is not in the dictionary"))
    });
    let places = places.collect::<Result<Vec<_>>>()?;
    ranks.iter_mut().for_each(|rank| *rank = places[*rank as usize]);
    Ok(())
}

/// The dictionary of these distinct texts, which ascend, of so many rows; `None` where it
/// does not pay.
pub(super) fn dictionary_of(distinct: &[&str], rows: usize) -> Option<Arc<Strings>> {
    let few = distinct.len() <= DICTIONARY_ENTRIES_SMALL || distinct.len() < rows.div_ceil(2);
    let bytes: usize = distinct.iter().map(|text| text.len()).sum();
    let fits = distinct.len() <= DICTIONARY_ENTRIES_MAX && bytes <= DICTIONARY_BYTES_MAX;
    (few && fits).then(|| {
        let mut strings = Strings::with_capacity(distinct.len(), bytes);
        distinct.iter().for_each(|text| strings.push(text));
        Arc::new(strings)
    })
}

fn gather(
    view: &View<'_>,
    dictionary: Option<&Arc<Strings>>,
    order: &[u32],
    places: &[Place],
) -> Column {
    let at = |place: &Place| (place.batch as usize, place.row as usize);
    let values = match (&view.parts, &view.ranks, dictionary) {
        (_, Some(ranks), Some(dictionary)) => Values::Coded {
            codes: order.iter().map(|row| ranks[*row as usize]).collect(),
            dictionary: Arc::clone(dictionary),
        },
        (Parts::Int(parts), ..) => {
            Values::Int(places.iter().map(at).map(|(batch, row)| parts[batch][row]).collect())
        }
        (Parts::Float(parts), ..) => {
            Values::Float(places.iter().map(at).map(|(batch, row)| parts[batch][row]).collect())
        }
        (Parts::Bool(parts), ..) => {
            Values::Bool(places.iter().map(at).map(|(batch, row)| parts[batch].get(row)).collect())
        }
        (Parts::Text(parts), ..) => {
            // A null row may have a code, which says nothing.
            let text = |place: &Place| match (view.is_valid(*place), at(place)) {
                (true, (batch, row)) => parts[batch].get(row),
                (false, _) => "",
            };
            Values::Text(places.iter().map(text).collect())
        }
    };
    match &view.validity {
        None => Column::new(values),
        Some(_) => Column::with_validity(
            values,
            places.iter().map(|place| view.is_valid(*place)).collect(),
        ),
    }
}

/// Sort keys, one integer a row: the parts in the order they were added, most
/// significant first, then the row's position, which makes every sort a stable one.
struct PackedKeys {
    keys: Vec<u128>,
    bits: u32,
    position_bits: u32,
}

impl PackedKeys {
    fn new(rows: usize) -> Self {
        Self { keys: vec![0; rows], bits: 0, position_bits: bits_for(rows as u64) }
    }

    /// Adds a part whose values are below `limit`; false if there is no room for it.
    fn add(&mut self, limit: u64, values: impl Iterator<Item = u64>) -> bool {
        let bits = bits_for(limit);
        if self.bits + bits + self.position_bits > u128::BITS {
            return false;
        }
        self.bits += bits;
        for (key, value) in self.keys.iter_mut().zip(values) {
            *key = *key << bits | u128::from(value);
        }
        true
    }

    /// The positions in order, and the ranges of them whose keys are equal.
    fn sort(self) -> (Vec<u32>, Vec<Range<usize>>) {
        let shift = self.position_bits;
        let keys = self.keys.into_iter().enumerate();
        if self.bits + shift <= u64::BITS {
            let keys = keys.map(|(row, key)| low_u64(key << shift | row as u128)).collect();
            sorted(keys, |key: &u64| low_u32(*key & ((1u64 << shift) - 1)), |key| key >> shift)
        } else {
            let keys = keys.map(|(row, key)| key << shift | row as u128).collect();
            let mask = (1u128 << shift) - 1;
            sorted(keys, |key: &u128| low_u32(low_u64(key & mask)), |key| key >> shift)
        }
    }
}

fn sorted<K: Ord>(
    mut keys: Vec<K>,
    position: impl Fn(&K) -> u32,
    prefix: impl Fn(&K) -> K,
) -> (Vec<u32>, Vec<Range<usize>>) {
    keys.sort_unstable();
    let mut ties: Vec<Range<usize>> = Vec::new();
    for index in 1..keys.len() {
        if prefix(&keys[index - 1]) == prefix(&keys[index]) {
            match ties.last_mut() {
                Some(tie) if tie.end == index => tie.end = index + 1,
                _ => ties.push(index - 1..index + 1),
            }
        }
    }
    (keys.iter().map(position).collect(), ties)
}

/// Bits that hold every value below `limit`.
fn bits_for(limit: u64) -> u32 {
    u64::BITS - limit.saturating_sub(1).leading_zeros()
}

fn hour_of(micros: i64) -> u64 {
    micros.unsigned_abs() / MICROS_PER_HOUR.unsigned_abs()
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("a segment has fewer than 2^32 rows")
}

#[expect(clippy::cast_possible_truncation, reason = "the caller keeps no more bits than these")]
fn low_u64(value: u128) -> u64 {
    value as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the caller keeps no more bits than these")]
fn low_u32(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::schema::Table;
    use crate::time::MICROS_PER_DAY;

    const DAY: i64 = 20_000;

    /// A row of a table as text, for comparing rows as multisets.
    pub(crate) fn row_text(columns: &[Column], row: usize) -> String {
        let cell = |column: &Column| match &column.values {
            _ if !column.is_valid(row) => "null".to_owned(),
            Values::Int(values) => values[row].to_string(),
            Values::Float(values) => format!("{:016x}", values[row].to_bits()),
            Values::Bool(values) => values.get(row).to_string(),
            Values::Text(_) | Values::Coded { .. } => format!("{:?}", column.text(row)),
        };
        columns.iter().map(cell).collect::<Vec<_>>().join("|")
    }

    pub(crate) fn rows_text(columns: &[Column]) -> Vec<String> {
        (0..columns[0].len()).map(|row| row_text(columns, row)).collect()
    }

    fn nullable(values: Vec<Option<i64>>) -> Column {
        let validity = values.iter().map(Option::is_some).collect();
        let values = values.into_iter().map(Option::unwrap_or_default).collect();
        Column::with_validity(Values::Int(values), validity)
    }

    fn tasks(rows: &[(i64, &str, &str, Option<i64>)]) -> Batch {
        let stamps = rows.iter().map(|row| DAY * MICROS_PER_DAY + row.0).collect();
        Batch {
            schema: Table::Task.schema(),
            columns: vec![
                Column::new(Values::Int(stamps)),
                Column::new(Values::Text(rows.iter().map(|row| row.1).collect())),
                Column::new(Values::Text(rows.iter().map(|row| row.2).collect())),
                nullable(rows.iter().map(|row| row.3).collect()),
                nullable(rows.iter().map(|_| None).collect()),
                Column::new(Values::Bool(rows.iter().map(|_| true).collect())),
                Column::with_validity(
                    Values::Text(rows.iter().map(|_| "").collect()),
                    Bitmap::filled(rows.len(), false),
                ),
            ],
        }
    }

    fn day() -> Partition {
        Partition::from_days(i32::try_from(DAY).unwrap())
    }

    #[test]
    fn rows_are_sorted_by_the_order_then_by_all_else() {
        let batches = [
            tasks(&[(5, "b", "y", Some(2)), (5, "b", "y", None), (5, "a", "y", Some(9))]),
            tasks(&[]),
            tasks(&[(MICROS_PER_HOUR, "z", "x", None), (5, "c", "x", None), (4, "d", "z", None)]),
            tasks(&[(5, "b", "y", Some(1))]),
        ];
        let ordered = OrderedRows::new(Table::Task.schema(), day(), &batches).unwrap();
        let columns = ordered.gather(0..ordered.len());
        let found: Vec<_> = (0..ordered.len())
            .map(|row| {
                let stamp = columns[0].int(row).unwrap() - DAY * MICROS_PER_DAY;
                (
                    stamp,
                    columns[2].text(row).unwrap(),
                    columns[1].text(row).unwrap(),
                    columns[3].int(row),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (4, "z", "d", None),
                (5, "x", "c", None),
                (5, "y", "a", Some(9)),
                (5, "y", "b", None),
                (5, "y", "b", Some(1)),
                (5, "y", "b", Some(2)),
                (MICROS_PER_HOUR, "x", "z", None),
            ]
        );
        let hours: Vec<_> = ordered.hours.iter().map(|hour| hour.rows.clone()).collect();
        assert_eq!(hours, [0..6, 6..7]);
        assert_eq!(ordered.hours[1].hour, DAY * 24 + 1);
        let dictionary: Vec<_> = ordered.dictionaries()[2].as_ref().unwrap().iter().collect();
        assert_eq!(dictionary, ["x", "y", "z"]);
    }

    #[test]
    fn the_order_does_not_depend_on_how_rows_came() {
        let mut rows: Vec<_> = (0..200i64)
            .map(|i| (i * 7919 % 13 * 1000, ["a", "b", "c"][(i % 3) as usize], "x", Some(i % 5)))
            .collect();
        let sorted = |rows: &[_]| {
            let batches: Vec<_> = rows.chunks(17).map(tasks).collect();
            let ordered = OrderedRows::new(Table::Task.schema(), day(), &batches).unwrap();
            rows_text(&ordered.gather(0..ordered.len()))
        };
        let first = sorted(&rows);
        rows.reverse();
        assert_eq!(sorted(&rows), first);
    }

    #[test]
    fn many_distinct_texts_get_no_dictionary() {
        let names: Vec<String> = (0..1000).map(|i| format!("agent-{i}")).collect();
        let rows: Vec<_> =
            (0..1000usize).map(|i| (i as i64, "t", names[i].as_str(), None)).collect();
        let batches = [tasks(&rows)];
        let ordered = OrderedRows::new(Table::Task.schema(), day(), &batches).unwrap();
        assert!(ordered.dictionaries()[2].is_none());
        assert!(matches!(ordered.gather(0..10)[2].values, Values::Text(_)));
    }

    #[test]
    fn small_hours_share_blocks_and_large_ones_are_cut_evenly() {
        let rows: Vec<_> = [3, 4, 25, 2, 3]
            .iter()
            .enumerate()
            .flat_map(|(hour, count)| {
                (0..*count).map(move |i| (hour as i64 * MICROS_PER_HOUR + i, "t", "a", None))
            })
            .collect();
        let batches = [tasks(&rows)];
        let ordered = OrderedRows::new(Table::Task.schema(), day(), &batches).unwrap();
        assert_eq!(ordered.blocks(10, 5), [0..7, 7..16, 16..25, 25..32, 32..37]);
        assert_eq!(
            ordered.blocks(4, 5),
            [0..3, 3..7, 7..11, 11..15, 15..19, 19..23, 23..27, 27..31, 31..32, 32..34, 34..37]
        );
    }

    #[test]
    fn blocks_are_cut_by_raw_bytes() {
        let long = "x".repeat(60 << 10);
        let rows: Vec<_> = (0..200).map(|i| (i, long.as_str(), "a", None)).collect();
        let batches = [tasks(&rows)];
        let ordered = OrderedRows::new(Table::Task.schema(), day(), &batches).unwrap();
        let blocks = ordered.blocks(1000, 5);
        assert_eq!(blocks.iter().map(ExactSizeIterator::len).sum::<usize>(), 200);
        assert!(blocks.len() >= 3);
        for block in blocks {
            assert!(block.len() * ((60 << 10) + TEXT_END_BYTES) <= CHUNK_RAW_BYTES_MAX);
        }
    }

    #[test]
    fn rows_of_another_day_are_refused() {
        let batches = [tasks(&[(MICROS_PER_DAY, "t", "a", None)])];
        assert!(OrderedRows::new(Table::Task.schema(), day(), &batches).is_err());
        let empty = OrderedRows::new(Table::Task.schema(), day(), &[]).unwrap();
        assert_eq!((empty.len(), empty.blocks(10, 5).len()), (0, 0));
    }
}
