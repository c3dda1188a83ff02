//! Columns in memory: what the write buffer fills, chunks decode to and scans read.
//!
//! Owns `Bitmap`, `Strings`, `Column` and `Batch`. A null row holds the type's zero (0,
//! 0.0, false, "") in its place, so that kernels need no branch; the validity bitmap
//! says which rows those are.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::schema::{ColumnType, Schema};

/// Most rows that a buffer which was emptied keeps room for.
pub(crate) const ROOM_ROWS_MAX: usize = 4096;

/// One bit per row, least significant bit of each byte first; bits past the end are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    len: usize,
}

impl Bitmap {
    /// `len` bits, all `value`.
    pub fn filled(len: usize, value: bool) -> Self {
        let mut bitmap = Self { bytes: vec![if value { 0xFF } else { 0 }; len.div_ceil(8)], len };
        bitmap.clear_padding();
        bitmap
    }

    /// Bits from bytes as stored; `None` if there are too few bytes or a padding bit is set.
    pub fn from_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        let bytes = bytes.get(..len.div_ceil(8))?;
        let used = len % 8;
        let clear = used == 0 || bytes.last().is_none_or(|last| last >> used == 0);
        clear.then(|| Self { bytes: bytes.to_vec(), len })
    }

    fn clear_padding(&mut self) {
        let used = self.len % 8;
        if used != 0
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= (1u8 << used) - 1;
        }
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no bit.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bits as bytes, `len.div_ceil(8)` of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bit `index`; false past the end.
    pub fn get(&self, index: usize) -> bool {
        self.bytes.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// Sets bit `index`, which must be inside.
    pub fn set(&mut self, index: usize, value: bool) {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let mask = 1 << (index % 8);
        if value {
            self.bytes[index / 8] |= mask;
        } else {
            self.bytes[index / 8] &= !mask;
        }
    }

    /// Appends a bit.
    pub fn push(&mut self, value: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.len += 1;
        if value {
            self.set(self.len - 1, true);
        }
    }

    /// Takes the bits and leaves room for as many.
    pub(crate) fn take(&mut self) -> Self {
        let room = Vec::with_capacity(self.bytes.len().min(ROOM_ROWS_MAX / 8));
        std::mem::replace(self, Self { bytes: room, len: 0 })
    }

    /// Number of set bits.
    pub fn count_ones(&self) -> usize {
        let (words, rest) = self.bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word).count_ones() as usize);
        words.chain(rest.iter().map(|byte| byte.count_ones() as usize)).sum()
    }

    /// Positions of the set bits, rising.
    pub(crate) fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        self.bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).flat_map(|(index, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| index * 8 + bit)
        })
    }

    /// Each bit in turn.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len).map(|index| self.get(index))
    }
}

impl FromIterator<bool> for Bitmap {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Self {
        let mut bitmap = Self::default();
        bits.into_iter().for_each(|bit| bitmap.push(bit));
        bitmap
    }
}

/// Least and greatest of some values; `None` of none.
pub(crate) fn extremes<T: Copy + Ord>(values: &[T]) -> Option<(T, T)> {
    // Lanes of their own, since each comparison waits for the one before.
    const LANES: usize = 4;
    let first = *values.first()?;
    let (mut min, mut max) = ([first; LANES], [first; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            min[lane] = min[lane].min(chunk[lane]);
            max[lane] = max[lane].max(chunk[lane]);
        }
    }
    for value in rest {
        min[0] = min[0].min(*value);
        max[0] = max[0].max(*value);
    }
    Some((min.into_iter().min()?, max.into_iter().max()?))
}

/// As [`extremes`], of the values whose bit is set.
pub(crate) fn valid_extremes<T: Copy + Ord>(values: &[T], valid: &Bitmap) -> Option<(T, T)> {
    let wider = |all: Option<(T, T)>, some: Option<(T, T)>| match (all, some) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    };
    values.chunks(8).zip(valid.as_bytes()).fold(None, |all, (values, byte)| {
        if *byte == u8::MAX && values.len() == 8 {
            return wider(all, extremes(values));
        }
        values.iter().enumerate().fold(all, |all, (bit, value)| {
            if byte >> bit & 1 == 1 { wider(all, Some((*value, *value))) } else { all }
        })
    })
}

/// Many strings in one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings {
    text: String,
    ends: Vec<u32>,
}

impl Default for Strings {
    fn default() -> Self {
        Self::new()
    }
}

impl Strings {
    /// No strings.
    pub const fn new() -> Self {
        Self { text: String::new(), ends: Vec::new() }
    }

    /// Room for `count` strings of `bytes` bytes in total.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// From text and the end of each string in it; `None` if the ends do not rise, leave
    /// text over, or fall inside a character.
    pub fn from_parts(text: String, ends: Vec<u32>) -> Option<Self> {
        // Looks at all of them, so that the loop has no branch.
        let later = ends.iter().skip(1);
        let rising = ends.iter().zip(later).fold(true, |rise, (end, next)| rise & (end <= next));
        let whole = ends.last().map_or(0, |end| *end as usize) == text.len();
        // ASCII, as most texts are, is cut anywhere, and looked through faster than its ends.
        let cut = || ends.iter().all(|end| text.is_char_boundary(*end as usize));
        (rising && whole && (text.is_ascii() || cut())).then_some(Self { text, ends })
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all strings together.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// All strings, one after the other.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// End of each string in [`text`](Self::text).
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// String `index`, which must be inside.
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }

    /// Appends a string. All of them together stay under 4 GiB.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(u32::try_from(self.text.len()).expect("strings of a batch are under 4 GiB"));
    }

    /// Takes the strings and leaves room for as many.
    pub(crate) fn take(&mut self) -> Self {
        let count = self.len().min(ROOM_ROWS_MAX);
        let room = Self::with_capacity(count, self.text.len().min(16 * ROOM_ROWS_MAX));
        std::mem::replace(self, room)
    }

    /// Bytes of the longest string.
    pub(crate) fn longest(&self) -> usize {
        let first = self.ends.first().copied().unwrap_or(0);
        let lengths = self.ends.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        lengths.fold(first, u32::max) as usize
    }

    /// Whether the bytes of each string are in the range.
    pub(crate) fn lengths_are_in(&self, range: std::ops::RangeInclusive<u32>) -> bool {
        // Ends rise, so nothing wraps but what is too short; without a branch per string the
        // loop is one of vectors.
        let (least, span) = (*range.start(), range.end().wrapping_sub(*range.start()));
        let fits = |start: u32, end: u32| end.wrapping_sub(start).wrapping_sub(least) <= span;
        let first = self.ends.first().is_none_or(|end| fits(0, *end));
        self.ends.windows(2).fold(first, |all, pair| all & fits(pair[0], pair[1]))
    }

    /// The chosen strings, in the order given. Neighbours are copied together.
    fn gather(&self, rows: &[u32]) -> Self {
        let mut kept = Self::with_capacity(rows.len(), 0);
        for run in rows.chunk_by(|row, next| *next == row.wrapping_add(1)) {
            let [first, .., last] = run else {
                kept.push(self.get(run[0] as usize));
                continue;
            };
            let (first, last) = (*first as usize, *last as usize);
            let start = if first == 0 { 0 } else { self.ends[first - 1] };
            let base = kept.text.len();
            kept.text.push_str(&self.text[start as usize..self.ends[last] as usize]);
            assert!(u32::try_from(kept.text.len()).is_ok(), "strings of a batch are under 4 GiB");
            // Neither wraps: ends rise from `start`, and the last new one was just checked.
            let base = u32::try_from(base).unwrap_or(u32::MAX);
            let ends = self.ends[first..=last].iter();
            kept.ends.extend(ends.map(|end| end.wrapping_sub(start).wrapping_add(base)));
        }
        kept
    }

    /// Position of `text`, where the strings rise.
    pub(crate) fn find_sorted(&self, text: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).cmp(text) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return u32::try_from(middle).ok(),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Each string in turn.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(strings: I) -> Self {
        let strings = strings.into_iter();
        let mut all = Self::with_capacity(strings.size_hint().0, 0);
        strings.for_each(|text| all.push(text));
        all
    }
}

/// The values of a column, one per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Timestamps and integers.
    Int(Vec<i64>),
    /// Floats.
    Float(Vec<f64>),
    /// True or false.
    Bool(Bitmap),
    /// Text, plain.
    Text(Strings),
    /// Text, as positions in a dictionary.
    Coded {
        /// One per row, each below the dictionary's length.
        codes: Vec<u32>,
        /// The distinct texts.
        dictionary: Arc<Strings>,
    },
}

impl Values {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Coded { codes, .. } => codes.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One column of some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// One per row.
    pub values: Values,
    /// Which rows have a value; `None` when all have.
    pub validity: Option<Bitmap>,
}

impl Column {
    /// A column in which every row has a value.
    pub fn new(values: Values) -> Self {
        Self { values, validity: None }
    }

    /// A column with nulls; a bitmap without a cleared bit is dropped.
    pub fn with_validity(values: Values, validity: Bitmap) -> Self {
        let all = validity.count_ones() == validity.len();
        Self { values, validity: (!all).then_some(validity) }
    }

    /// An empty column of the type.
    pub fn empty(kind: ColumnType) -> Self {
        Self::new(match kind {
            ColumnType::Timestamp | ColumnType::Int => Values::Int(Vec::new()),
            ColumnType::Float => Values::Float(Vec::new()),
            ColumnType::Bool => Values::Bool(Bitmap::default()),
            ColumnType::Dimension | ColumnType::Text | ColumnType::Json => {
                Values::Text(Strings::new())
            }
        })
    }

    /// One row of each of some columns of the type, in the order given; texts are copied.
    pub(crate) fn of_rows<'a>(
        kind: ColumnType,
        rows: impl Iterator<Item = (&'a Self, usize)> + Clone,
    ) -> Self {
        let cells = rows.clone();
        let values = match kind {
            ColumnType::Timestamp | ColumnType::Int => Values::Int(
                cells.map(|(column, row)| column.int(row).unwrap_or_default()).collect(),
            ),
            ColumnType::Float => Values::Float(
                cells.map(|(column, row)| column.float(row).unwrap_or_default()).collect(),
            ),
            ColumnType::Bool => Values::Bool(
                cells.map(|(column, row)| column.bool(row).unwrap_or_default()).collect(),
            ),
            ColumnType::Dimension | ColumnType::Text | ColumnType::Json => Values::Text(
                cells.map(|(column, row)| column.text(row).unwrap_or_default()).collect(),
            ),
        };
        Self::with_validity(values, rows.map(|(column, row)| column.is_valid(row)).collect())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether row `index` has a value.
    pub fn is_valid(&self, index: usize) -> bool {
        self.validity.as_ref().is_none_or(|validity| validity.get(index))
    }

    /// Number of rows without a value.
    pub fn null_count(&self) -> usize {
        self.validity.as_ref().map_or(0, |validity| validity.len() - validity.count_ones())
    }

    /// The integer of row `index`; `None` if null or not an integer column.
    pub fn int(&self, index: usize) -> Option<i64> {
        match &self.values {
            Values::Int(values) if self.is_valid(index) => values.get(index).copied(),
            _ => None,
        }
    }

    /// The float of row `index`; `None` if null or not a float column.
    pub fn float(&self, index: usize) -> Option<f64> {
        match &self.values {
            Values::Float(values) if self.is_valid(index) => values.get(index).copied(),
            _ => None,
        }
    }

    /// The boolean of row `index`; `None` if null or not a boolean column.
    pub fn bool(&self, index: usize) -> Option<bool> {
        match &self.values {
            Values::Bool(values) if self.is_valid(index) => Some(values.get(index)),
            _ => None,
        }
    }

    /// The text of row `index`; `None` if null or not a text column.
    pub fn text(&self, index: usize) -> Option<&str> {
        match &self.values {
            Values::Text(values) if self.is_valid(index) => Some(values.get(index)),
            Values::Coded { codes, dictionary } if self.is_valid(index) => {
                Some(dictionary.get(codes[index] as usize))
            }
            _ => None,
        }
    }

    /// About how many bytes the column takes in memory.
    pub fn memory_bytes(&self) -> usize {
        match &self.values {
            Values::Int(values) => values.len() * 8,
            Values::Float(values) => values.len() * 8,
            Values::Bool(values) => values.len().div_ceil(8),
            Values::Text(strings) => strings.text_bytes() + strings.len() * 4,
            Values::Coded { codes, dictionary } => codes.len() * 4 + dictionary.text_bytes(),
        }
    }

    /// The chosen rows, in the order given; a dictionary keeps only the entries in use.
    ///
    /// # Panics
    ///
    /// When a row is not there.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Self {
        let at = |row: &u32| *row as usize;
        let values = match &self.values {
            Values::Int(values) => Values::Int(rows.iter().map(|row| values[at(row)]).collect()),
            Values::Float(values) => {
                Values::Float(rows.iter().map(|row| values[at(row)]).collect())
            }
            Values::Bool(values) => {
                Values::Bool(rows.iter().map(|row| values.get(at(row))).collect())
            }
            Values::Text(strings) => Values::Text(strings.gather(rows)),
            Values::Coded { codes, dictionary } => gather_coded(codes, dictionary, rows),
        };
        match &self.validity {
            Some(validity) => {
                Self::with_validity(values, rows.iter().map(|row| validity.get(at(row))).collect())
            }
            None => Self::new(values),
        }
    }
}

fn gather_coded(codes: &[u32], dictionary: &Strings, rows: &[u32]) -> Values {
    let mut map = vec![None; dictionary.len()];
    let mut kept = Strings::new();
    let codes = rows
        .iter()
        .map(|row| {
            let code = codes[*row as usize] as usize;
            // Where all rows are null the dictionary may lack the code that stands there.
            let Some(place) = map.get_mut(code) else { return 0 };
            *place.get_or_insert_with(|| {
                kept.push(dictionary.get(code));
                u32::try_from(kept.len() - 1).expect("a dictionary has under 2^32 entries")
            })
        })
        .collect();
    Values::Coded { codes, dictionary: Arc::new(kept) }
}

/// Some rows of one table, column by column, in the order of the schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The table's schema.
    pub schema: &'static Schema,
    /// One per column of the schema, all of the same length.
    pub columns: Vec<Column>,
}

impl Batch {
    /// No rows of the table.
    pub fn empty(schema: &'static Schema) -> Self {
        let columns = schema.columns.iter().map(|column| Column::empty(column.kind)).collect();
        Self { schema, columns }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stamps of the rows, in microseconds.
    pub fn timestamps(&self) -> &[i64] {
        match self.columns.first().map(|column| &column.values) {
            Some(Values::Int(stamps)) => stamps,
            _ => &[],
        }
    }

    /// About how many bytes the rows take in memory.
    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().map(Column::memory_bytes).sum()
    }

    /// The chosen rows, in the order given, as a batch of their own; texts keep only the
    /// dictionary entries that are used.
    ///
    /// # Panics
    ///
    /// When a row is not there.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Self {
        let columns = self.columns.iter().map(|column| column.gather(rows)).collect();
        Self { schema: self.schema, columns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_those_of_every_length_and_validity() {
        let values: Vec<i64> = (0..40).map(|i| (i * 7919 % 83) - 41).collect();
        for len in 0..values.len() {
            let part = &values[..len];
            let naive = part.iter().copied().min().zip(part.iter().copied().max());
            assert_eq!(extremes(part), naive);
            for step in [1, 2, 3, 9, 50] {
                let valid: Bitmap = (0..len).map(|row| row % step == 0).collect();
                let kept = || part.iter().copied().step_by(step);
                assert_eq!(valid_extremes(part, &valid), kept().min().zip(kept().max()));
                assert_eq!(valid.count_ones(), kept().count());
            }
        }
    }

    #[test]
    fn strings_are_gathered_in_any_order() {
        let strings: Strings = ["a", "", "ccc", "d\u{e9}", "e"].into_iter().collect();
        for rows in [&[][..], &[0, 1, 2, 3, 4], &[3, 4, 0, 1], &[4, 3, 2], &[1, 1, 2, 3, 3]] {
            let naive: Strings = rows.iter().map(|row| strings.get(*row as usize)).collect();
            assert_eq!(strings.gather(rows), naive, "{rows:?}");
        }
        assert!(strings.lengths_are_in(0..=3) && !strings.lengths_are_in(0..=2));
        assert!(!strings.lengths_are_in(1..=3) && Strings::new().lengths_are_in(1..=1));
        assert!(!strings.lengths_are_in(2..=9), "the first is shorter");
    }

    #[test]
    fn a_slice_carries_only_the_texts_it_uses() {
        let dictionary: Arc<Strings> = Arc::new(["x", "y", "z"].into_iter().collect());
        let column = Column::new(Values::Coded { codes: vec![0, 1, 2, 1], dictionary });
        let cut = column.gather(&[3, 2]);
        let Values::Coded { codes, dictionary } = &cut.values else { panic!("coded stays coded") };
        assert_eq!((codes.as_slice(), dictionary.len()), ([0, 1].as_slice(), 2));
        assert_eq!((cut.text(0), cut.text(1)), (Some("y"), Some("z")));
    }
}
