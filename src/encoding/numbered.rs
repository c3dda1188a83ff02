//! Strings that end in digits: `task_0001234` is template `task_` + 7 digits, number 1234
//! (spec 5.4, NUMBERED).
//!
//! Owns cutting strings into template and number and putting them together again, leading
//! zeros included; and the look-up that tells from the table of templates whether a chunk
//! can hold a string. Ids are most of the bytes of a table of tasks.

use hashbrown::HashMap;

use super::bytes::{Reader, pad, put_count, widen};
use super::kernels::{self, value_of_word};
use super::layout::{DIGITS_MAX, TEMPLATE_BYTES, TEMPLATES_MAX, TEXT_RAW_BYTES_MAX, tag};
use super::text::{Stored, checked_strings, ends_of};
use super::{Access, Chunk, Effort, Shape, ints, write_chunk};
use crate::column::Strings;
use crate::error::{Error, Result};
use crate::limits::TEXT_BYTES_MAX;
use crate::schema::ColumnType;
use crate::selection::{Selection, index};

/// Templates that a chunk may have before their share of the rows decides against it.
const TEMPLATES_MIN: usize = 16;

/// What precedes the number, how many digits the number has, and its range in the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Template<'a> {
    prefix: &'a [u8],
    width: u32,
    min: u64,
    max: u64,
}

impl Template<'_> {
    /// Bytes of a string of the template.
    fn length(&self) -> u64 {
        self.prefix.len() as u64 + u64::from(self.width)
    }

    /// The number of a string of the template, if it is in the range.
    fn number(&self, text: &str) -> Option<u64> {
        let digits = text.as_bytes().strip_prefix(self.prefix)?;
        let shape = digits.len() == self.width as usize && digits.iter().all(u8::is_ascii_digit);
        let number = number_of(digits);
        (shape && (self.min..=self.max).contains(&number)).then_some(number)
    }
}

/// Cuts off the digits at the end, at most [`DIGITS_MAX`] of them.
fn split(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes().iter().rev().take(DIGITS_MAX as usize);
    let digits = bytes.take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(text.len() - digits)
}

/// The number that ASCII digits spell.
fn number_of(digits: &[u8]) -> u64 {
    digits.iter().fold(0u64, |number, digit| {
        number.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
    })
}

/// Strings cut into templates and numbers.
#[derive(Default)]
struct Parts<'a> {
    templates: Vec<Template<'a>>,
    codes: Vec<u32>,
    numbers: Vec<i64>,
}

impl<'a> Parts<'a> {
    /// `None` when there are too many templates for them to pay.
    fn of(stored: &Stored<'a>) -> Option<Self> {
        let most = TEMPLATES_MAX.min(TEMPLATES_MIN + stored.len() / 16);
        let mut known: HashMap<(&str, usize), u32, foldhash::fast::RandomState> =
            HashMap::default();
        let mut parts = Self::default();
        let mut last = None;
        for text in stored.iter() {
            let (prefix, digits) = split(text);
            let key = (prefix, digits.len());
            // Neighbours mostly share their template: compare before hashing.
            let code = match last {
                Some((same, code)) if same == key => code,
                _ => *known.entry(key).or_insert_with(|| parts.add(key)),
            };
            last = Some((key, code));
            if parts.templates.len() > most {
                return None;
            }
            parts.push(code, number_of(digits.as_bytes()));
        }
        Some(parts)
    }

    fn add(&mut self, (prefix, width): (&'a str, usize)) -> u32 {
        let code = u32::try_from(self.templates.len()).expect("few templates");
        let width = u32::try_from(width).expect("few digits");
        let prefix = prefix.as_bytes();
        self.templates.push(Template { prefix, width, min: u64::MAX, max: 0 });
        code
    }

    fn push(&mut self, code: u32, number: u64) {
        let template = &mut self.templates[widen(code)];
        template.min = template.min.min(number);
        template.max = template.max.max(number);
        self.codes.push(code);
        self.numbers.push(number.cast_signed());
    }
}

/// Appends the chunk, unless the strings have no number or too many templates.
pub(super) fn put(
    stored: &Stored<'_>,
    shape: &Shape<'_>,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Option<Access>> {
    let Some(parts) = Parts::of(stored) else { return Ok(None) };
    if parts.templates.iter().all(|template| template.width == 0) {
        return Ok(None);
    }
    write_chunk(out, tag::TEXT_NUMBERED, shape, |out| {
        put_templates(&parts.templates, out)?;
        let whole = Shape::plain(stored.len());
        ints::encode(&parts.codes, &whole, effort, out)?;
        ints::encode(&parts.numbers, &whole, effort, out)
    })?;
    Ok(Some(Access::View))
}

fn put_templates(templates: &[Template<'_>], out: &mut Vec<u8>) -> Result<()> {
    put_count(out, templates.len())?;
    put_count(out, templates.iter().map(|template| template.prefix.len()).sum())?;
    for template in templates {
        put_count(out, template.prefix.len())?;
        out.extend_from_slice(&template.width.to_le_bytes());
        out.extend_from_slice(&template.min.to_le_bytes());
        out.extend_from_slice(&template.max.to_le_bytes());
    }
    let start = out.len();
    templates.iter().for_each(|template| out.extend_from_slice(template.prefix));
    pad(out, start);
    Ok(())
}

/// Reads the table of templates, each checked.
fn read_templates<'a>(reader: &mut Reader<'a>) -> Result<Vec<Template<'a>>> {
    let (count, prefix_bytes) = (reader.count()?, reader.count()?);
    if count > TEMPLATES_MAX {
        return Err(reader.corrupt(format!("{count} templates, expected {TEMPLATES_MAX}")));
    }
    let mut records = Reader::new(reader.take(count * TEMPLATE_BYTES)?, "5.4");
    let mut prefixes = Reader::new(reader.padded(prefix_bytes)?, "5.4");
    let mut templates = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, width) = (records.count()?, records.u32()?);
        let (min, max) = (records.u64()?, records.u64()?);
        if length > TEXT_BYTES_MAX || width > DIGITS_MAX || min > max || max >= 10u64.pow(width) {
            return Err(records.corrupt(format!(
                "template of {length} bytes and {width} digits from {min} to {max}"
            )));
        }
        templates.push(Template { prefix: prefixes.take(length)?, width, min, max });
    }
    prefixes.end()?;
    Ok(templates)
}

/// Decodes the stored strings.
pub(super) fn decode(chunk: &Chunk<'_>) -> Result<Strings> {
    decode_some(chunk, &Selection::Range(0..chunk.stored()))
}

/// Decodes some of the stored strings.
pub(super) fn decode_some(chunk: &Chunk<'_>, rows: &Selection) -> Result<Strings> {
    let (templates, codes, numbers) = read_parts(chunk)?;
    let codes: Vec<u32> = ints::decode_some(&codes, rows)?;
    let numbers: Vec<i64> = ints::decode_some(&numbers, rows)?;
    let ends = ends(&templates, &codes, &numbers).ok_or_else(out_of_range)?;
    checked_strings(spell(&templates, &codes, &numbers, &ends), ends)
}

fn out_of_range() -> Error {
    Error::corrupt("5.4", "a number or a template out of its range")
}

/// A template that outlives its chunk.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) prefix: String,
    pub(super) width: usize,
}

impl Pattern {
    fn template(&self) -> Template<'_> {
        let width = u32::try_from(self.width).unwrap_or(DIGITS_MAX);
        Template { prefix: self.prefix.as_bytes(), width, min: 0, max: u64::MAX }
    }

    /// The string of a number, which has no more digits than the pattern.
    pub(super) fn spell(&self, number: u64) -> String {
        match self.width {
            0 => self.prefix.clone(),
            width => format!("{}{number:0width$}", self.prefix),
        }
    }
}

/// The patterns of templates, in their order.
pub(super) fn patterns(templates: &[Template<'_>]) -> Result<Vec<Pattern>> {
    let pattern = |template: &Template<'_>| {
        let prefix = str::from_utf8(template.prefix)
            .map_err(|_| Error::corrupt("5.4", "text is not UTF-8"))?
            .to_owned();
        Ok(Pattern { prefix, width: widen(template.width) })
    };
    templates.iter().map(pattern).collect()
}

/// Bytes of the strings of one template whose numbers have this range.
pub(super) fn check_one(
    templates: &[Template<'_>],
    code: i64,
    range: Option<(i64, i64)>,
    rows: usize,
) -> Result<u64> {
    let Some((least, most)) = range else { return Ok(0) };
    check_each(templates, [(code, least), (code, most)].into_iter())?;
    let template = usize::try_from(code).ok().and_then(|code| templates.get(code));
    let length = template.map_or(0, Template::length);
    checked_total(length.saturating_mul(rows as u64))
}

/// Bytes of the strings of these codes and numbers, each of which is checked.
pub(super) fn check_each(
    templates: &[Template<'_>],
    rows: impl Iterator<Item = (i64, i64)>,
) -> Result<u64> {
    let mut total = 0;
    for (code, number) in rows {
        let template = usize::try_from(code).ok().and_then(|code| templates.get(code));
        let within = |template: &&Template<'_>| {
            (template.min..=template.max).contains(&number.cast_unsigned())
        };
        let template = template.filter(within).ok_or_else(out_of_range)?;
        total += template.length();
    }
    checked_total(total)
}

fn checked_total(total: u64) -> Result<u64> {
    if total <= TEXT_RAW_BYTES_MAX as u64 { Ok(total) } else { Err(out_of_range()) }
}

/// The strings of codes and numbers, in memory of their own.
pub(super) fn spell_all(patterns: &[Pattern], codes: &[u32], numbers: &[i64]) -> Result<Strings> {
    let templates: Vec<Template<'_>> = patterns.iter().map(Pattern::template).collect();
    let ends = ends(&templates, codes, numbers).ok_or_else(out_of_range)?;
    checked_strings(spell(&templates, codes, numbers, &ends), ends)
}

/// The templates, and the chunks of their codes and of the numbers.
pub(super) fn read_parts<'a>(
    chunk: &Chunk<'a>,
) -> Result<(Vec<Template<'a>>, Chunk<'a>, Chunk<'a>)> {
    let mut reader = Reader::new(chunk.body, "5.4");
    let templates = read_templates(&mut reader)?;
    let codes = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
    let numbers = chunk.nested(&mut reader, ColumnType::Int, chunk.stored())?;
    reader.end()?;
    Ok((templates, codes, numbers))
}

/// Bytes of the longest string that a template of the chunk can have.
pub(super) fn longest(chunk: &Chunk<'_>) -> Result<u64> {
    let (templates, ..) = read_parts(chunk)?;
    Ok(templates.iter().map(Template::length).max().unwrap_or(0))
}

/// The rows, among some, whose string is `text`: those of its template and its number, and
/// as a string can be cut in one way only, there is one such template at most.
pub(super) fn find(chunk: &Chunk<'_>, text: &str, rows: &Selection) -> Result<Selection> {
    let (templates, codes, numbers) = read_parts(chunk)?;
    let mut found: Vec<usize> = Vec::new();
    for (code, template) in (0i64..).zip(&templates) {
        let Some(number) = template.number(text) else { continue };
        let same = ints::find(&numbers, number.cast_signed(), rows)?;
        found.extend(ints::find(&codes, code, &same)?.iter());
    }
    // Templates of a foreign writer may overlap.
    found.sort_unstable();
    found.dedup();
    Ok(Selection::of_rows(found.into_iter().map(index).collect()))
}

/// Checks every row's template and number and adds the lengths up; `None` if one is wrong,
/// or if all strings together are longer than a chunk's text may be.
fn ends(templates: &[Template<'_>], codes: &[u32], numbers: &[i64]) -> Option<Vec<u32>> {
    // Nearly always one template, of which only the range of the numbers is checked.
    if let [one] = templates
        && codes.iter().fold(0, |any, code| any | code) == 0
    {
        let range = kernels::range(numbers)
            .map(|(least, most)| (value_of_word(least), value_of_word(most)));
        check_one(templates, 0, range, numbers.len()).ok()?;
        let length = u32::try_from(one.length()).ok()?;
        return Some((1u32..).take(numbers.len()).map(|row| row.wrapping_mul(length)).collect());
    }
    let rows = codes.iter().zip(numbers);
    let lengths: Option<Vec<u32>> = rows
        .map(|(code, number)| {
            let template = templates.get(widen(*code))?;
            let within = (template.min..=template.max).contains(&number.cast_unsigned());
            let length = u32::try_from(template.prefix.len()).ok()? + template.width;
            within.then_some(length)
        })
        .collect();
    ends_of(lengths?)
}

/// A short template ready to be written: one store of [`BLOCK`] bytes per string, of which
/// those past its end are overwritten by the next.
#[derive(Clone, Copy)]
struct Block {
    prefix: u128,
    prefix_bits: u32,
    skipped_bits: u32,
}

/// Bytes of a block.
const BLOCK: usize = 16;
/// Digits that [`eight_digits`] spells.
const EIGHT: u32 = 8;

impl Block {
    /// `None` for templates that are too long.
    fn new(template: &Template<'_>) -> Option<Self> {
        let mut prefix = [0; BLOCK];
        let fits = template.prefix.len() + EIGHT as usize <= BLOCK && template.width <= EIGHT;
        prefix.get_mut(..template.prefix.len()).filter(|_| fits)?.copy_from_slice(template.prefix);
        let prefix_bits = u32::try_from(template.prefix.len()).ok()? * 8;
        let skipped_bits = (EIGHT - template.width) * 8;
        Some(Self { prefix: u128::from_le_bytes(prefix), prefix_bits, skipped_bits })
    }

    #[inline(always)]
    fn spell(&self, number: u64) -> [u8; BLOCK] {
        let digits = eight_digits(number).checked_shr(self.skipped_bits).unwrap_or(0);
        (self.prefix | u128::from(digits) << self.prefix_bits).to_le_bytes()
    }
}

/// Writes the strings one after the other. Rows have been checked.
fn spell(templates: &[Template<'_>], codes: &[u32], numbers: &[i64], ends: &[u32]) -> Vec<u8> {
    let blocks: Vec<Option<Block>> = templates.iter().map(Block::new).collect();
    let total = ends.last().map_or(0, |end| widen(*end));
    let mut text = vec![0; total + BLOCK];
    let mut start = 0;
    if let [Some(block)] = blocks.as_slice() {
        for (number, end) in numbers.iter().zip(ends) {
            let place = text.get_mut(start..).and_then(<[u8]>::first_chunk_mut);
            place.into_iter().for_each(|place| *place = block.spell(number.cast_unsigned()));
            start = widen(*end);
        }
        text.truncate(total);
        return text;
    }
    for ((code, number), end) in codes.iter().zip(numbers).zip(ends) {
        let (code, number, end) = (widen(*code), number.cast_unsigned(), widen(*end));
        if let Some(Some(block)) = blocks.get(code) {
            let place = text.get_mut(start..).and_then(<[u8]>::first_chunk_mut);
            place.into_iter().for_each(|place| *place = block.spell(number));
        } else if let (Some(template), Some(place)) =
            (templates.get(code), text.get_mut(start..end))
        {
            let (prefix, digits) = place.split_at_mut(template.prefix.len());
            prefix.copy_from_slice(template.prefix);
            put_digits(number, digits);
        }
        start = end;
    }
    text.truncate(total);
    text
}

/// Writes a number with leading zeros into all of `digits`.
fn put_digits(mut number: u64, digits: &mut [u8]) {
    for digits in digits.rchunks_mut(EIGHT as usize) {
        let eight = eight_digits(number % 100_000_000).to_le_bytes();
        digits.copy_from_slice(&eight[EIGHT as usize - digits.len()..]);
        number /= 100_000_000;
    }
}

/// The digits of a number below 10^8 in ASCII, the first one in the lowest byte: halves,
/// then pairs, then digits, all lanes of a word at once. Multiplications and shifts divide
/// by 100 and by 10, exactly in the ranges of the lanes.
#[inline(always)]
fn eight_digits(number: u64) -> u64 {
    // No lane overflows into the next, so nothing wraps: checks would cost and find nothing.
    let halves = (number / 10_000 % 10_000) | (number % 10_000) << 32;
    let hundreds = halves.wrapping_mul(10_486) >> 20 & 0x7F_0000_007F;
    let pairs = hundreds | halves.wrapping_sub(hundreds.wrapping_mul(100)) << 16;
    let tens = pairs.wrapping_mul(103) >> 10 & 0x000F_000F_000F_000F;
    let digits = tens | pairs.wrapping_sub(tens.wrapping_mul(10)) << 8;
    digits | 0x3030_3030_3030_3030
}

/// Whether a template and its range allow the string.
pub(super) fn might_contain(chunk: &Chunk<'_>, text: &str) -> Result<bool> {
    let mut reader = Reader::new(chunk.body, "5.4");
    let templates = read_templates(&mut reader)?;
    Ok(templates.iter().any(|template| template.number(text).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_spelled_as_std_does() {
        let numbers = (0..20_000).chain((0..30_000).map(|i| i * 3331)).chain([99_999_999]);
        for number in numbers {
            let digits = eight_digits(number).to_le_bytes();
            assert_eq!(std::str::from_utf8(&digits).unwrap(), format!("{number:08}"));
        }
        let mut wide = [0; 18];
        put_digits(12_345_678_901_234, &mut wide);
        assert_eq!(&wide, b"000012345678901234");
    }

    #[test]
    fn short_and_long_templates_are_spelled_alike() {
        for width in 0..=18 {
            for length in [0usize, 1, 7, 8, 9, 20] {
                let prefix = "x".repeat(length);
                let number = 123_456_789_012_345_678 % 10u64.pow(width);
                let max = 10u64.pow(width) - 1;
                let template = Template { prefix: prefix.as_bytes(), width, min: 0, max };
                let number = number.cast_signed();
                let ends = ends(&[template], &[0, 0], &[number, 0]).unwrap();
                let text = spell(&[template], &[0, 0], &[number, 0], &ends);
                let digits = |number: i64| match width {
                    0 => String::new(),
                    width => format!("{number:0width$}", width = width as usize),
                };
                let expected = format!("{prefix}{}{prefix}{}", digits(number), digits(0));
                assert_eq!(String::from_utf8(text).unwrap(), expected);
            }
        }
    }

    #[test]
    fn at_most_eighteen_digits_are_cut_off() {
        assert_eq!(split("a12"), ("a", "12"));
        assert_eq!(split("1234567890123456789"), ("1", "234567890123456789"));
        assert_eq!(split("\u{e9}"), ("\u{e9}", ""));
        assert_eq!(split("\u{663}4"), ("\u{663}", "4"));
    }
}
