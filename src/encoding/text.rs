//! Text: codes, dictionaries, plain, UUIDs, compressed (spec 5.4).
//!
//! Owns the text encodings but for the numbered one, and the choice between them. All of
//! them yield at most 16 MiB, which is checked before anything is allocated.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::bytes::{Reader, put_count, widen};
use super::layout::{
    ALIGNMENT, PIECE_BYTES, TEXT_RAW_BYTES_MAX, UUID_BYTES, UUID_TEXT_BYTES, ZSTD_MAGIC,
    ZSTD_WINDOW_LOG_MAX, tag,
};
use super::planes::compress;
use super::{Access, Chunk, Effort, Shape, cost, ints, numbered, write_chunk};
use crate::column::{Bitmap, Strings, Values};
use crate::error::{Error, Result};
use crate::schema::ColumnType;
use crate::selection::{Selection, index};

/// zstd level of sealed chunks.
const ZSTD_LEVEL: i32 = 3;
/// Bytes of text with which a compressed piece ends. Of JSON of 60 bytes a row, half as many
/// take a tenth more bytes in the file, and make reading all of it slower: each piece brings
/// its own tables.
const ZSTD_PIECE_BYTES: usize = 8192;
/// The same in archives, where size counts for more.
const ARCHIVE_PIECE_BYTES: usize = 256 << 10;
/// Fewer bytes than this are not worth a compressed frame.
const ZSTD_BYTES_MIN: usize = 128;
/// About how long an entry of a dictionary is.
const ENTRY_BYTES: usize = 12;
/// Distinct strings seen before their share of the rows decides against a dictionary.
const DISTINCT_MIN: usize = 64;

/// Strings that the body of a chunk holds: those of the rows that have a value.
pub(super) struct Stored<'a> {
    text: &'a str,
    lengths: Vec<u32>,
}

impl<'a> Stored<'a> {
    pub(super) fn new(strings: &'a Strings, shape: &Shape<'_>) -> Result<Self> {
        let ends = strings.ends();
        let mut lengths = Vec::with_capacity(ends.len());
        lengths.extend(ends.first());
        // Ends rise: nothing wraps, and what need not be checked is one loop of vectors.
        lengths.extend(ends.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
        if shape.validity.is_none() {
            return Ok(Self { text: strings.text(), lengths });
        }
        let stored = Self { text: strings.text(), lengths: shape.gather_dense(&lengths).into() };
        let bytes: usize = stored.lengths.iter().map(|length| widen(*length)).sum();
        if bytes == stored.text.len() {
            Ok(stored)
        } else {
            Err(Error::invalid("a null row of a text column holds text"))
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.lengths.iter().scan(self.text, |rest, length| {
            let (text, after) = rest.split_at(widen(*length));
            *rest = after;
            Some(text)
        })
    }
}

/// Appends a chunk of strings.
pub(super) fn encode(
    strings: &Strings,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    encode_stored(&Stored::new(strings, shape)?, shape, effort, true, out).map(drop)
}

/// `coded`: whether a dictionary may be made, which its own entries may not. Says what the
/// chosen encoding asks of a scan.
fn encode_stored(
    stored: &Stored<'_>,
    shape: &Shape<'_>,
    effort: Effort,
    coded: bool,
    out: &mut Vec<u8>,
) -> Result<Access> {
    let start = out.len();
    put_plain(stored, shape, effort, out)?;
    if effort == Effort::Append || stored.text.is_empty() {
        return Ok(Access::View);
    }
    let plain = out.len() - start;
    let mut choice = Choice { start, out, access: Access::View, effort, candidate: Vec::new() };
    choice.offer(|out| put_uuids(stored, shape, out))?;
    choice.offer(|out| numbered::put(stored, shape, effort, out))?;
    if coded {
        choice.offer(|out| put_distinct(stored, shape, effort, out))?;
    }
    // Where structure was found, general compression would hardly halve the rest.
    let unstructured = choice.bytes() > plain / 2 || effort != Effort::Seal;
    if stored.text.len() >= ZSTD_BYTES_MIN && unstructured {
        choice.offer(|out| put_zstd(stored, shape, effort, out))?;
    }
    Ok(choice.access)
}

/// The best chunk so far, at the end of `out`.
struct Choice<'a> {
    start: usize,
    out: &'a mut Vec<u8>,
    access: Access,
    effort: Effort,
    candidate: Vec<u8>,
}

impl Choice<'_> {
    fn bytes(&self) -> usize {
        self.out.len() - self.start
    }

    /// Writes another form, which `put` may decline by `None`, and keeps the one of less cost.
    fn offer(&mut self, put: impl FnOnce(&mut Vec<u8>) -> Result<Option<Access>>) -> Result<()> {
        self.candidate.clear();
        let Some(access) = put(&mut self.candidate)? else { return Ok(()) };
        let cost = |bytes, access| cost(bytes, access, self.effort);
        if cost(self.candidate.len(), access) < cost(self.bytes(), self.access) {
            self.out.truncate(self.start);
            self.out.extend_from_slice(&self.candidate);
            self.access = access;
        }
        Ok(())
    }
}

fn put_lengths(stored: &Stored<'_>, effort: Effort, out: &mut Vec<u8>) -> Result<()> {
    ints::encode(&stored.lengths, &Shape::plain(stored.len()), effort, out)
}

fn put_plain(
    stored: &Stored<'_>,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    write_chunk(out, tag::TEXT_PLAIN, shape, |out| {
        put_lengths(stored, effort, out)?;
        out.extend_from_slice(stored.text.as_bytes());
        Ok(())
    })
}

fn put_uuids(stored: &Stored<'_>, shape: &Shape<'_>, out: &mut Vec<u8>) -> Result<Option<Access>> {
    let Some(uuids) = stored.iter().map(parse_uuid).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    write_chunk(out, tag::TEXT_UUID, shape, |out| {
        out.extend_from_slice(uuids.as_flattened());
        Ok(())
    })?;
    Ok(Some(Access::View))
}

/// A UUID in the one form that comes back as it was: 36 characters in lower case.
fn parse_uuid(text: &str) -> Option<[u8; UUID_BYTES]> {
    if text.len() != UUID_TEXT_BYTES || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let uuid = uuid::Uuid::try_parse(text).ok()?;
    Some(uuid.into_bytes())
}

fn put_zstd(
    stored: &Stored<'_>,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Option<Access>> {
    let (level, piece_bytes) = match effort {
        Effort::Archive { level } => (level, ARCHIVE_PIECE_BYTES),
        _ => (ZSTD_LEVEL, ZSTD_PIECE_BYTES),
    };
    let compressed = compress_pieces(stored, level, piece_bytes);
    // Without memory for the compressor the chunk stays as it is.
    let Ok(Compressed { pieces, frames }) = compressed else { return Ok(None) };
    write_chunk(out, tag::TEXT_ZSTD, shape, |out| {
        put_count(out, stored.text.len())?;
        put_count(out, pieces.len())?;
        put_lengths(stored, effort, out)?;
        for (strings, bytes) in pieces {
            put_count(out, strings)?;
            put_count(out, bytes)?;
        }
        out.extend_from_slice(&frames);
        Ok(())
    })?;
    Ok(Some(Access::Decompress))
}

#[derive(Default)]
struct Compressed {
    /// Of each piece: its number of strings, and the bytes of its frame.
    pieces: Vec<(usize, usize)>,
    frames: Vec<u8>,
}

fn compress_pieces(
    stored: &Stored<'_>,
    level: i32,
    piece_bytes: usize,
) -> std::io::Result<Compressed> {
    let mut compressed = Compressed::default();
    let (mut rest, mut strings, mut raw) = (stored.text.as_bytes(), 0, 0);
    for (row, length) in (1..).zip(&stored.lengths) {
        strings += 1;
        raw += widen(*length);
        if raw >= piece_bytes || row == stored.len() {
            let (piece, after) = rest.split_at(raw);
            let frame = compress(piece, level)?;
            compressed.pieces.push((strings, frame.len()));
            compressed.frames.extend_from_slice(&frame);
            (rest, strings, raw) = (after, 0, 0);
        }
    }
    Ok(compressed)
}

/// A dictionary in order of first appearance, if few enough strings are distinct.
fn put_distinct(
    stored: &Stored<'_>,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Option<Access>> {
    let mut seen: HashMap<&str, u32, foldhash::fast::RandomState> = HashMap::default();
    let (mut entries, mut codes) = (Strings::new(), Vec::with_capacity(stored.len()));
    for (text, row) in stored.iter().zip(1usize..) {
        let next = u32::try_from(seen.len()).map_err(|_| Error::invalid("too many strings"))?;
        let code = *seen.entry(text).or_insert_with(|| {
            entries.push(text);
            next
        });
        codes.push(code);
        if entries.len() > DISTINCT_MIN + row / 2 {
            return Ok(None);
        }
    }
    put_dictionary(&codes, &entries, shape, effort, out).map(Some)
}

/// Appends a chunk of codes with the dictionary of exactly the strings they use.
pub(super) fn encode_local(
    codes: &[u32],
    dictionary: &Strings,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    const UNUSED: u32 = u32::MAX;
    thread_local! {
        // Small batches of a large dictionary come by the thousand.
        static PLACES: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }
    if shape.nulls == shape.rows {
        return put_dictionary(&vec![0; codes.len()], &Strings::new(), shape, effort, out)
            .map(drop);
    }
    if dictionary.len() > codes.len() {
        // Some are not used for sure, maybe nearly all: only those that are get looked at.
        let (codes, entries) = PLACES.with_borrow_mut(|place| {
            place.clear();
            place.resize(dictionary.len(), UNUSED);
            let mut entries = Strings::with_capacity(codes.len(), codes.len() * ENTRY_BYTES);
            let renumber = |code: &u32| {
                let place = &mut place[widen(*code)];
                if *place == UNUSED {
                    *place = index(entries.len());
                    entries.push(dictionary.get(widen(*code)));
                }
                *place
            };
            (codes.iter().map(renumber).collect::<Vec<u32>>(), entries)
        });
        return put_dictionary(&codes, &entries, shape, effort, out).map(drop);
    }
    let mut place = vec![UNUSED; dictionary.len()];
    codes.iter().for_each(|code| place[widen(*code)] = 0);
    if !place.contains(&UNUSED) {
        return put_dictionary(codes, dictionary, shape, effort, out).map(drop);
    }
    let used = place.iter_mut().zip(dictionary.iter()).filter(|(place, _)| **place != UNUSED);
    let entries = (0..).zip(used).map(|(code, (place, text))| {
        *place = code;
        text
    });
    let entries: Strings = entries.collect();
    let codes: Vec<u32> = codes.iter().map(|code| place[widen(*code)]).collect();
    put_dictionary(&codes, &entries, shape, effort, out).map(drop)
}

/// Says what reading the entries asks of a scan.
fn put_dictionary(
    codes: &[u32],
    entries: &Strings,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Access> {
    if entries.text_bytes() > TEXT_RAW_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a dictionary of {} bytes, expected at most {TEXT_RAW_BYTES_MAX}",
            entries.text_bytes()
        )));
    }
    let mut access = Access::View;
    write_chunk(out, tag::TEXT_DICTIONARY, shape, |out| {
        put_count(out, entries.len())?;
        put_count(out, 0)?;
        let whole = Shape::plain(entries.len());
        access = encode_stored(&Stored::new(entries, &whole)?, &whole, effort, false, out)?;
        ints::encode(codes, &Shape::plain(codes.len()), effort, out)
    })?;
    Ok(access)
}

/// Appends a chunk of codes of the segment dictionary.
pub(super) fn encode_codes(
    codes: &[u32],
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<()> {
    write_chunk(out, tag::TEXT_CODES, shape, |out| {
        ints::encode(codes, &Shape::plain(codes.len()), effort, out)
    })
}

/// The codes of a chunk, undecoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes<'a> {
    pub(super) codes: Chunk<'a>,
    dictionary: Option<Chunk<'a>>,
}

impl Codes<'_> {
    /// The chunk's own dictionary, decoded; `None` if the codes are the segment's.
    ///
    /// # Errors
    ///
    /// `Corrupt` when its bytes are wrong.
    pub(super) fn dictionary(&self) -> Result<Option<Strings>> {
        self.dictionary.map(|entries| decode_strings(&entries)).transpose()
    }
}

pub(super) fn codes<'a>(chunk: &Chunk<'a>) -> Result<Option<Codes<'a>>> {
    let mut reader = Reader::new(chunk.body, "5.4");
    let dictionary = match chunk.encoding {
        tag::TEXT_CODES => None,
        tag::TEXT_DICTIONARY => {
            let count = reader.count()?;
            reader.zeros(4)?;
            Some(read_entries(chunk, &mut reader, count)?)
        }
        _ => return Ok(None),
    };
    let codes = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
    reader.end()?;
    Ok(Some(Codes { codes, dictionary }))
}

fn read_entries<'a>(chunk: &Chunk<'a>, reader: &mut Reader<'a>, count: usize) -> Result<Chunk<'a>> {
    let entries = chunk.nested(reader, ColumnType::Text, count)?;
    match entries.encoding {
        tag::TEXT_CODES | tag::TEXT_DICTIONARY => {
            Err(reader.corrupt(format!("encoding {} of dictionary entries", entries.encoding)))
        }
        _ => Ok(entries),
    }
}

/// Decodes a column of text: coded chunks to codes, the others to strings.
pub(super) fn decode(
    chunk: &Chunk<'_>,
    validity: Option<&Bitmap>,
    segment: Option<&Arc<Strings>>,
) -> Result<Values> {
    let Some(parts) = codes(chunk)? else {
        return Ok(Values::Text(place(decode_strings(chunk)?, validity)?));
    };
    let dictionary = dictionary_of(&parts, segment)?;
    let codes = chunk.place(ints::decode::<u32>(&parts.codes)?, validity);
    // Null rows have code 0, which an empty dictionary lacks: nobody looks it up.
    if chunk.nulls < chunk.rows {
        check_codes(&codes, &dictionary)?;
    }
    Ok(Values::Coded { codes, dictionary })
}

/// Decodes some of the stored rows, all of which have a value. Text whose place the lengths
/// before it tell is decoded as a whole first.
pub(super) fn decode_some(
    chunk: &Chunk<'_>,
    rows: &Selection,
    segment: Option<&Arc<Strings>>,
) -> Result<Values> {
    if let Some(parts) = codes(chunk)? {
        let dictionary = dictionary_of(&parts, segment)?;
        let codes: Vec<u32> = ints::decode_some(&parts.codes, rows)?;
        check_codes(&codes, &dictionary)?;
        return Ok(Values::Coded { codes, dictionary });
    }
    match chunk.encoding {
        tag::TEXT_NUMBERED => return numbered::decode_some(chunk, rows).map(Values::Text),
        tag::TEXT_ZSTD => return Pieces::read(chunk)?.decode_some(rows).map(Values::Text),
        _ => {}
    }
    let all = decode_strings(chunk)?;
    let mut some = Strings::new();
    rows.iter().filter(|row| *row < all.len()).for_each(|row| some.push(all.get(row)));
    Ok(Values::Text(some))
}

/// The rows, among some, whose text is `text`; `code` is its code in the segment's
/// dictionary, if it has one. The chunk has no nulls.
pub(super) fn find(
    chunk: &Chunk<'_>,
    text: &str,
    code: Option<u32>,
    rows: &Selection,
) -> Result<Selection> {
    if let Some(parts) = codes(chunk)? {
        let code = match parts.dictionary()? {
            Some(local) => local.iter().position(|have| have == text).map(index),
            None => code,
        };
        return match code {
            Some(code) => ints::find(&parts.codes, code.into(), rows),
            None => Ok(Selection::NONE),
        };
    }
    if chunk.encoding == tag::TEXT_NUMBERED {
        return numbered::find(chunk, text, rows);
    }
    if chunk.encoding == tag::TEXT_ZSTD {
        let pieces = Pieces::read(chunk)?;
        let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let alike = ints::find(&pieces.lengths, length, rows)?;
        let some = pieces.decode_some(&alike)?;
        return Ok(alike.narrow(|position| some.get(position) == text));
    }
    let all = decode_strings(chunk)?;
    let is_it = |position| {
        let row = rows.row(position);
        row < all.len() && all.get(row) == text
    };
    Ok(rows.clone().narrow(is_it))
}

pub(super) fn dictionary_of(
    parts: &Codes<'_>,
    segment: Option<&Arc<Strings>>,
) -> Result<Arc<Strings>> {
    match (parts.dictionary()?, segment) {
        (Some(local), _) => Ok(Arc::new(local)),
        (None, Some(segment)) => Ok(Arc::clone(segment)),
        (None, None) => Err(Error::corrupt("5.4", "codes without a segment dictionary")),
    }
}

fn check_codes(codes: &[u32], dictionary: &Strings) -> Result<()> {
    match codes.iter().copied().max().map(widen) {
        Some(most) if most >= dictionary.len() => Err(wrong_code(most, dictionary)),
        _ => Ok(()),
    }
}

/// The error of a code that the dictionary lacks.
pub(super) fn wrong_code(code: impl std::fmt::Display, dictionary: &Strings) -> Error {
    let entries = dictionary.len();
    Error::corrupt("5.4", format!("code {code} of a dictionary of {entries} entries"))
}

/// Puts stored strings into their rows and "" into the null ones.
fn place(stored: Strings, validity: Option<&Bitmap>) -> Result<Strings> {
    let Some(validity) = validity else { return Ok(stored) };
    let ends = place_ends(stored.ends(), validity);
    strings(stored.text().to_owned(), ends)
}

/// Where the text of each row ends, from where those of the rows with a value do.
pub(super) fn place_ends(stored: &[u32], validity: &Bitmap) -> Vec<u32> {
    let mut ends = vec![0; validity.len()];
    let (mut end, mut next) = (0, 0);
    for (rows, byte) in ends.chunks_mut(8).zip(validity.as_bytes()) {
        if *byte == 0 {
            rows.fill(end);
            continue;
        }
        for (bit, row) in rows.iter_mut().enumerate() {
            // No branch: which rows are null cannot be foreseen.
            let valid = byte >> bit & 1 == 1;
            end = if valid { stored.get(next).copied().unwrap_or(end) } else { end };
            next += usize::from(valid);
            *row = end;
        }
    }
    ends
}

fn strings(text: String, ends: Vec<u32>) -> Result<Strings> {
    Strings::from_parts(text, ends)
        .ok_or_else(|| Error::corrupt("5.4", "a string ends inside a character"))
}

/// Strings from UTF-8 that is still to be checked.
pub(super) fn checked_strings(text: Vec<u8>, ends: Vec<u32>) -> Result<Strings> {
    let text = String::from_utf8(text).map_err(|_| Error::corrupt("5.4", "text is not UTF-8"))?;
    strings(text, ends)
}

/// Decodes the stored strings of a chunk that is not coded.
fn decode_strings(chunk: &Chunk<'_>) -> Result<Strings> {
    check_dense(chunk)?;
    match chunk.encoding {
        tag::TEXT_PLAIN => decode_plain(chunk),
        tag::TEXT_UUID => decode_uuids(chunk),
        tag::TEXT_NUMBERED => numbered::decode(chunk),
        _ => Pieces::read(chunk)?.decode(),
    }
}

/// Text has no filler for null rows.
fn check_dense(chunk: &Chunk<'_>) -> Result<()> {
    if chunk.nulls > 0 && !chunk.dense {
        return Err(Error::corrupt("5.4", "text with nulls that is not dense"));
    }
    Ok(())
}

/// Ends from lengths; `None` if they are more than `TEXT_RAW_BYTES_MAX` in total.
pub(super) fn ends_of(mut lengths: Vec<u32>) -> Option<Vec<u32>> {
    let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
    if total > TEXT_RAW_BYTES_MAX as u64 {
        return None;
    }
    lengths.iter_mut().fold(0u32, |end, length| {
        *length += end;
        *length
    });
    Some(lengths)
}

fn read_ends(chunk: &Chunk<'_>, reader: &mut Reader<'_>) -> Result<Vec<u32>> {
    let mut inner = *reader;
    let lengths = chunk.nested(&mut inner, ColumnType::Int, chunk.stored())?;
    reader.take(lengths.len())?;
    decode_ends(reader, &lengths)
}

fn decode_ends(reader: &Reader<'_>, lengths: &Chunk<'_>) -> Result<Vec<u32>> {
    ends_of(ints::decode(lengths)?).ok_or_else(|| too_much_text(reader))
}

fn too_much_text(reader: &Reader<'_>) -> Error {
    reader.corrupt("more text than a chunk may have")
}

fn check_total(reader: &Reader<'_>, ends: &[u32], bytes: usize) -> Result<()> {
    let total = ends.last().map_or(0, |end| widen(*end));
    if total == bytes {
        Ok(())
    } else {
        Err(reader.corrupt(format!("strings of {total} bytes in {bytes} bytes of text")))
    }
}

/// The text of a PLAIN chunk, and where each of its strings ends.
fn plain_parts<'a>(chunk: &Chunk<'a>) -> Result<(&'a [u8], Vec<u32>)> {
    let mut reader = Reader::new(chunk.body, "5.4");
    let ends = read_ends(chunk, &mut reader)?;
    check_total(&reader, &ends, reader.rest().len())?;
    Ok((reader.rest(), ends))
}

fn decode_plain(chunk: &Chunk<'_>) -> Result<Strings> {
    let (text, ends) = plain_parts(chunk)?;
    checked_strings(text.to_vec(), ends)
}

/// The UTF-8 of a PLAIN chunk where it lies, and where each of its strings ends.
pub(super) fn read_plain<'a>(chunk: &Chunk<'a>) -> Result<(&'a [u8], Vec<u32>)> {
    check_dense(chunk)?;
    let (bytes, ends) = plain_parts(chunk)?;
    let text = str::from_utf8(bytes).map_err(|_| Error::corrupt("5.4", "text is not UTF-8"))?;
    if text.is_ascii() || ends.iter().all(|end| text.is_char_boundary(widen(*end))) {
        Ok((bytes, ends))
    } else {
        Err(Error::corrupt("5.4", "a string ends inside a character"))
    }
}

/// Bytes of all strings of a UUID or ZSTD chunk, of which only the lengths are read.
pub(super) fn total_bytes(chunk: &Chunk<'_>) -> Result<u64> {
    check_dense(chunk)?;
    if chunk.encoding == tag::TEXT_UUID {
        return read_uuids(chunk).map(|uuids| (uuids.len() * UUID_TEXT_BYTES) as u64);
    }
    let pieces = Pieces::read(chunk)?;
    pieces.ends()?;
    Ok(pieces.raw as u64)
}

/// Bytes of all strings of a chunk, or a bound on them. A dictionary counts once.
pub(super) fn bytes_max(chunk: &Chunk<'_>) -> Result<u64> {
    if let Some(codes) = codes(chunk)? {
        return codes.dictionary.map_or(Ok(0), |entries| bytes_max(&entries));
    }
    match chunk.encoding {
        tag::TEXT_ZSTD | tag::TEXT_UUID => total_bytes(chunk),
        tag::TEXT_NUMBERED => {
            let longest = numbered::longest(chunk)?;
            Ok(longest.saturating_mul(chunk.stored() as u64).min(TEXT_RAW_BYTES_MAX as u64))
        }
        _ => Ok(chunk.body.len() as u64),
    }
}

fn read_uuids<'a>(chunk: &Chunk<'a>) -> Result<&'a [[u8; UUID_BYTES]]> {
    let mut reader = Reader::new(chunk.body, "5.4");
    let count = chunk.stored();
    if count * UUID_TEXT_BYTES > TEXT_RAW_BYTES_MAX {
        return Err(too_much_text(&reader));
    }
    let (uuids, _) = reader.take(count * UUID_BYTES)?.as_chunks::<UUID_BYTES>();
    reader.end()?;
    Ok(uuids)
}

fn decode_uuids(chunk: &Chunk<'_>) -> Result<Strings> {
    let uuids = read_uuids(chunk)?;
    let count = uuids.len();
    let mut text = vec![0; count * UUID_TEXT_BYTES];
    let (places, _) = text.as_chunks_mut::<UUID_TEXT_BYTES>();
    for (place, bytes) in places.iter_mut().zip(uuids) {
        uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(place);
    }
    let ends = ends_of(vec![36; count]).unwrap_or_default();
    checked_strings(text, ends)
}

/// The pieces of a ZSTD chunk, which are not looked into yet.
struct Pieces<'a> {
    reader: Reader<'a>,
    /// Bytes of all strings.
    raw: usize,
    lengths: Chunk<'a>,
    records: &'a [[u8; PIECE_BYTES]],
}

impl<'a> Pieces<'a> {
    fn read(chunk: &Chunk<'a>) -> Result<Self> {
        check_dense(chunk)?;
        let mut reader = Reader::new(chunk.body, "5.4");
        let (raw, count) = (reader.count()?, reader.count()?);
        if raw > TEXT_RAW_BYTES_MAX {
            return Err(reader.corrupt(format!("{raw} bytes of text in one chunk")));
        }
        let lengths = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
        let (records, _) = reader.take(count * PIECE_BYTES)?.as_chunks::<PIECE_BYTES>();
        let pieces = Self { reader, raw, lengths, records };
        let (mut strings, mut bytes) = (0, 0);
        for (of_piece, frame) in records.iter().map(piece_record) {
            if of_piece == 0 {
                return Err(reader.corrupt("a piece without strings"));
            }
            strings += of_piece;
            bytes += frame;
        }
        if (strings, bytes) == (chunk.stored(), reader.rest().len()) {
            Ok(pieces)
        } else {
            Err(reader.corrupt(format!(
                "pieces of {strings} strings and {bytes} bytes, expected {} and {}",
                chunk.stored(),
                reader.rest().len()
            )))
        }
    }

    /// Of each piece, which of the strings it has, and its frame.
    fn iter(&self) -> impl Iterator<Item = (Range<usize>, &'a [u8])> {
        let (mut start, mut rest) = (0, self.reader.rest());
        self.records.iter().map(piece_record).map(move |(strings, bytes)| {
            let (frame, after) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
            rest = after;
            start += strings;
            (start - strings..start, frame)
        })
    }

    /// Where each of all strings ends.
    fn ends(&self) -> Result<Vec<u32>> {
        let ends = decode_ends(&self.reader, &self.lengths)?;
        check_total(&self.reader, &ends, self.raw)?;
        Ok(ends)
    }

    fn decode(&self) -> Result<Strings> {
        let ends = self.ends()?;
        let end_of = |strings: usize| match strings.checked_sub(1) {
            Some(last) => ends.get(last).map_or(self.raw, |end| widen(*end)),
            None => 0,
        };
        let place = |strings: &Range<usize>| end_of(strings.start)..end_of(strings.end);
        for (strings, frame) in self.iter() {
            check_frame(&self.reader, frame, place(&strings).len())?;
        }
        let mut text = vec![0; self.raw];
        for (strings, frame) in self.iter() {
            decompress(&self.reader, frame, &mut text[place(&strings)])?;
        }
        checked_strings(text, ends)
    }

    /// Decompresses the pieces that have some of the rows, and no others.
    fn decode_some(&self, rows: &Selection) -> Result<Strings> {
        let span = rows.span();
        let reached = || {
            let of_span =
                |strings: &Range<usize>| strings.start < span.end && span.start < strings.end;
            self.iter().filter(move |(strings, _)| of_span(strings))
        };
        let first = reached().next().map_or(0, |(strings, _)| strings.start);
        let end = reached().last().map_or(0, |(strings, _)| strings.end);
        // Once for all pieces: what lies before a length may be added up to find it.
        let lengths: Vec<u32> = ints::decode_some(&self.lengths, &Selection::Range(first..end))?;
        let mut some = Strings::new();
        let (mut wanted, mut left) = (rows.iter().peekable(), self.raw);
        for (strings, frame) in reached() {
            if wanted.peek().is_none_or(|row| *row >= strings.end) {
                continue;
            }
            let of_piece = lengths
                .get(strings.start - first..strings.end - first)
                .ok_or_else(|| self.reader.corrupt("a string without a length"))?;
            let ends = ends_of(of_piece.to_vec()).ok_or_else(|| too_much_text(&self.reader))?;
            let raw = ends.last().map_or(0, |end| widen(*end));
            left = left.checked_sub(raw).ok_or_else(|| too_much_text(&self.reader))?;
            check_frame(&self.reader, frame, raw)?;
            let mut text = vec![0; raw];
            decompress(&self.reader, frame, &mut text)?;
            let piece = checked_strings(text, ends)?;
            while let Some(row) = wanted.next_if(|row| *row < strings.end) {
                some.push(piece.get(row - strings.start));
            }
        }
        Ok(some)
    }
}

/// Strings and bytes of a piece.
fn piece_record(record: &[u8; PIECE_BYTES]) -> (usize, usize) {
    let [a, b, c, d, rest @ ..] = *record;
    (widen(u32::from_le_bytes([a, b, c, d])), widen(u32::from_le_bytes(rest)))
}

/// Checks that no text of the chunk takes more than `most` times the bytes that are stored of
/// it. Decompresses nothing.
pub(super) fn check_ratio(chunk: &Chunk<'_>, most: usize) -> Result<()> {
    match chunk.encoding {
        tag::TEXT_ZSTD => {
            let pieces = Pieces::read(chunk)?;
            for (_, frame) in pieces.iter() {
                let content = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten();
                let room = frame.len().saturating_mul(most);
                if content.is_none_or(|content| content > room as u64) {
                    let bytes = frame.len();
                    let message = format!("{bytes} bytes stand for over {most} times as many");
                    return Err(pieces.reader.corrupt(message));
                }
            }
            Ok(())
        }
        tag::TEXT_DICTIONARY => match codes(chunk)?.and_then(|codes| codes.dictionary) {
            Some(entries) => check_ratio(&entries, most),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// One frame, of the stated content size, without a dictionary, and nothing after it.
pub(super) fn check_frame(reader: &Reader<'_>, frame: &[u8], raw: usize) -> Result<()> {
    let content = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten();
    let whole = zstd::zstd_safe::find_frame_compressed_size(frame) == Ok(frame.len());
    let dictionary = zstd::zstd_safe::get_dict_id_from_frame(frame).is_some();
    if frame.starts_with(&ZSTD_MAGIC) && content == Some(raw as u64) && whole && !dictionary {
        Ok(())
    } else {
        Err(reader.corrupt(format!("not one zstd frame of {raw} bytes")))
    }
}

/// Decompresses a frame that has as many bytes of content as `text`.
pub(super) fn decompress(reader: &Reader<'_>, frame: &[u8], text: &mut [u8]) -> Result<()> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { RefCell::new(None) };
    }
    let room = text.len();
    let count = DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => {
                let mut fresh = zstd::bulk::Decompressor::new()?;
                let window = zstd::zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX);
                fresh.set_parameter(window)?;
                kept.insert(fresh)
            }
        };
        decompressor.decompress_to_buffer(frame, text)
    });
    match count {
        Ok(count) if count == room => Ok(()),
        Ok(count) => Err(reader.corrupt(format!("zstd: {count} bytes, expected {room}"))),
        Err(cause) => Err(reader.corrupt(format!("zstd: {cause}"))),
    }
}

/// Whether a row may hold `text`, from the few bytes that bound the chunk.
pub(super) fn might_contain(chunk: &Chunk<'_>, text: &str) -> Result<bool> {
    if chunk.stored() == 0 {
        return Ok(false);
    }
    let mut reader = Reader::new(chunk.body, "5.4");
    match chunk.encoding {
        tag::TEXT_UUID => Ok(parse_uuid(text).is_some()),
        tag::TEXT_NUMBERED => numbered::might_contain(chunk, text),
        tag::TEXT_DICTIONARY => match codes(chunk)?.and_then(|codes| codes.dictionary) {
            Some(entries) => might_contain(&entries, text),
            None => Ok(true),
        },
        tag::TEXT_PLAIN | tag::TEXT_ZSTD => {
            if chunk.encoding == tag::TEXT_ZSTD {
                reader.take(ALIGNMENT)?;
            }
            let lengths = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
            let reach = ints::reach(&lengths)?;
            let length = i128::try_from(text.len()).unwrap_or(i128::MAX);
            Ok(reach.is_none_or(|(min, max)| (min..=max).contains(&length)))
        }
        _ => Ok(true),
    }
}
