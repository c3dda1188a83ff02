//! Where a page ended, as text.
//!
//! A cursor names no file and no position: it holds the range, a hash of the filter, the
//! key of the last row given and how many rows equal to it were given, so that it goes on
//! at the same row after a seal, a merge or a restart. Its bytes, little-endian:
//!
//! ```text
//! version u8 = 1 | range start i64 | range end i64 | filter hash u64 | has key u8
//! | stamp i64 | count of ids u8 | (length u32, text) per id | row hash u128 | equal u64
//! | CRC-32 of all before u32
//! ```
//!
//! as URL-safe base 64 without padding (RFC 4648, section 5).

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::query::filter::{Cursor, Filter};
use crate::query::plan::Question;
use crate::time::TimeRange;

const VERSION: u8 = 1;

/// The place of a row in the order of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowKey {
    /// Its stamp.
    pub(crate) stamp: i64,
    /// Its ids, in the schema's `page_order`.
    pub(crate) ids: Vec<String>,
    /// Hash of its other columns.
    pub(crate) hash: u128,
}

/// What a cursor holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The range of the first page.
    pub(crate) range: TimeRange,
    /// Hash of table and filter.
    pub(crate) filter: u64,
    /// The last row given; `None` before the first.
    pub(crate) key: Option<RowKey>,
    /// Rows with that key that were given.
    pub(crate) equal: u64,
}

impl Place {
    /// The place in front of the first row of a question.
    pub(crate) fn start(question: &Question) -> Self {
        Self { range: question.range, filter: filter_hash(question), key: None, equal: 0 }
    }

    /// Reads the cursor of a filter, if it has one.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is damaged, or comes from another question.
    pub(crate) fn of(filter: &Filter, question: &Question) -> Result<Option<Self>> {
        let Some(cursor) = &filter.cursor else { return Ok(None) };
        let place = Self::decode(&cursor.0).ok_or_else(|| {
            Error::invalid("cursor: the text is damaged, expected one that a page returned")
        })?;
        let ids = place.key.as_ref().map_or(question.schema.page_order.len(), |key| key.ids.len());
        // An end that the filter leaves open is the cursor's.
        let start_differs = filter.from.is_some() && question.range.start != place.range.start;
        let end_differs = filter.to.is_some() && question.range.end != place.range.end;
        if place.filter != filter_hash(question)
            || ids != question.schema.page_order.len()
            || start_differs
            || end_differs
        {
            return Err(Error::invalid(
                "cursor: it comes from another table or filter, expected the one of its page",
            ));
        }
        Ok(Some(place))
    }

    /// As text.
    pub(crate) fn encode(&self) -> Cursor {
        let mut bytes = vec![VERSION];
        bytes.extend(self.range.start.to_le_bytes());
        bytes.extend(self.range.end.to_le_bytes());
        bytes.extend(self.filter.to_le_bytes());
        bytes.push(u8::from(self.key.is_some()));
        if let Some(key) = &self.key {
            bytes.extend(key.stamp.to_le_bytes());
            bytes.push(u8::try_from(key.ids.len()).expect("a table has few ids"));
            for id in &key.ids {
                bytes.extend(length(id).to_le_bytes());
                bytes.extend(id.as_bytes());
            }
            bytes.extend(key.hash.to_le_bytes());
            bytes.extend(self.equal.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        Cursor(to_text(&bytes))
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = from_text(text)?;
        let (bytes, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(bytes) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let start = i64::from_le_bytes(take(&mut rest)?);
        let end = i64::from_le_bytes(take(&mut rest)?);
        let filter = u64::from_le_bytes(take(&mut rest)?);
        let mut place = Self { range: TimeRange { start, end }, filter, key: None, equal: 0 };
        let [has_key] = take(&mut rest)?;
        if has_key == 1 {
            let stamp = i64::from_le_bytes(take(&mut rest)?);
            let [count] = take(&mut rest)?;
            let mut ids = Vec::new();
            for _ in 0..count {
                let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
                let (id, after) = rest.split_at_checked(length)?;
                ids.push(std::str::from_utf8(id).ok()?.to_owned());
                rest = after;
            }
            let hash = u128::from_le_bytes(take(&mut rest)?);
            place.equal = u64::from_le_bytes(take(&mut rest)?);
            place.key = Some(RowKey { stamp, ids, hash });
        }
        (has_key <= 1 && rest.is_empty() && start <= end).then_some(place)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).expect("a text is at most 64 KiB")
}

/// Hash of the table and of what the filter asks for besides time.
fn filter_hash(question: &Question) -> u64 {
    let mut bytes = Vec::new();
    let mut push = |text: &str| {
        bytes.extend(length(text).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    push(question.schema.name);
    for (column, text) in &question.texts {
        push(question.schema.columns[*column].name);
        push(text);
    }
    match question.success {
        None => bytes.push(0),
        Some(false) => bytes.push(1),
        Some(true) => bytes.push(2),
    }
    xxh3_64(&bytes)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for digit in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

fn from_text(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0;
        for (position, byte) in chunk.iter().enumerate() {
            group |= digit(byte)? << (18 - 6 * position);
        }
        let [_, decoded @ ..] = group.to_be_bytes();
        let (kept, left) = decoded.split_at(chunk.len().checked_sub(1).filter(|kept| *kept > 0)?);
        if left.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(stamp: i64, ids: Vec<String>, hash: u128, equal: u64) -> Place {
        Place {
            range: TimeRange { start: -5, end: i64::MAX },
            filter: 7,
            key: Some(RowKey { stamp, ids, hash }),
            equal,
        }
    }

    proptest! {
        #[test]
        fn text_gives_the_place_back(
            stamp in any::<i64>(),
            ids in prop::collection::vec(".{0,20}", 0..3),
            hash in any::<u128>(),
            equal in any::<u64>(),
        ) {
            let place = place(stamp, ids, hash, equal);
            prop_assert_eq!(Place::decode(&place.encode().0), Some(place));
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text in "[A-Za-z0-9_-]{0,200}") {
            let _ = Place::decode(&text);
        }

        #[test]
        fn bytes_survive_text(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(from_text(&to_text(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn every_changed_digit_is_noticed() {
        let text = place(17, vec!["a".into(), "b".into()], 1 << 100, 2).encode().0;
        for position in 0..text.len() {
            for other in ['A', 'z', '5', '_', '.'] {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[position] == other {
                    continue;
                }
                changed[position] = other;
                assert_eq!(Place::decode(&changed.into_iter().collect::<String>()), None);
            }
            assert_eq!(Place::decode(&text[..position]), None);
        }
    }

    #[test]
    fn start_of_a_page_is_a_place() {
        let start = Place { range: TimeRange::ALL, filter: 1, key: None, equal: 0 };
        assert_eq!(Place::decode(&start.encode().0), Some(start));
    }
}
