//! A readable description of one file, for people and for tests.
//!
//! Owns the walk over what a file of a store holds, of every kind, the bad parts included: it
//! is described as far as it can be read, with what is wrong and where. Changes nothing, trusts
//! nothing, follows no link; text out of a file is escaped.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::directory::BlockDirectory;
use crate::format::footer::Footer;
use crate::format::frame::{Commit, FrameHeader, FrameKind, IndexSection};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::format::layout::{ALIGNMENT, FRAME_HEADER_BYTES, FRAMES_OFFSET, TRAILER_BYTES};
use crate::format::trailer::Trailer;
use crate::fs::{File, FileSystem, OsFileSystem, read_exact_at, read_whole};
use crate::segment::files::FileName;
use crate::segment::reason_of;
use crate::store_files::backup_mark::BackupMark;
use crate::store_files::identity::StoreFile;
use crate::store_files::retention::RetentionRules;
use crate::store_files::txn::TxnRecord;
use crate::store_files::{alerts, maintenance};
use crate::time::Timestamp;

/// Bytes of a frame's payload that are read to describe it.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Longest document that is described.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Characters of a document that is none that are shown.
const EXCERPT_CHARS: usize = 400;

/// What a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// What kind of file: `segment`, `active`, `catalog`, `tallystone store` and so on.
    pub kind: String,
    /// What is wrong with it, and where; empty for a sound file.
    pub damage: Vec<String>,
    /// All of it, line by line.
    pub text: String,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Adds a line; writing to a string cannot fail.
macro_rules! line {
    ($page:expr, $($format:tt)*) => {{
        let _ = writeln!($page.text, $($format)*);
    }};
}

impl Description {
    /// Notes damage at an offset.
    fn bad(&mut self, offset: u64, what: &str) {
        let what = shown(what);
        line!(self, "{offset:>12}  DAMAGED: {what}");
        self.damage.push(format!("at byte {offset}: {what}"));
    }

    /// Notes damage to the file as a whole.
    fn bad_whole(&mut self, what: &str) {
        let what = shown(what);
        line!(self, "DAMAGED    {what}");
        self.damage.push(what);
    }
}

/// Text out of a file, without anything that a terminal would act on.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let is_plain = c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
            let escaped: Vec<char> = if is_plain { vec![c] } else { c.escape_default().collect() };
            escaped
        })
        .collect()
}

/// Describes a file of a store, whatever its kind, and what is wrong with it: segments and all
/// that comes of them, `store.json` and the other documents, records of imports, the catalog
/// (its kind and its tables alone), the files that are locks or counters, and what is in
/// `quarantine/`.
///
/// # Errors
///
/// `Io` when it cannot be read; `UnsupportedVersion` for a later format; `NotOurFile` for what
/// is no regular file, as links and pipes, and for a file that is none of a store.
pub fn describe(path: impl AsRef<Path>) -> Result<Description> {
    describe_on(&OsFileSystem, path.as_ref())
}

/// As [`describe`], on any file system.
pub(crate) fn describe_on(fs: &dyn FileSystem, path: &Path) -> Result<Description> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // SQLite alone may touch it: closing it here would drop locks of this process on it.
    if is_catalog(name) {
        return describe_catalog(fs, path);
    }
    let file = fs.open(path)?;
    if let Some(description) = describe_marker(fs, path, name, file.as_ref())? {
        return Ok(description);
    }
    let mut head = vec![0; FRAMES_OFFSET];
    let read = file.read_at(&mut head, 0)?;
    head.truncate(read);
    let uuid = segment_name(name);
    match Header::decode(&head) {
        Ok(_) => describe_segment(file.as_ref(), &head, uuid),
        Err(error) if error.kind() == ErrorKind::UnsupportedVersion => Err(error.with_path(path)),
        Err(_) if uuid.is_some() => describe_segment(file.as_ref(), &head, uuid),
        Err(_) => describe_document(fs, path, name),
    }
}

fn is_catalog(name: &str) -> bool {
    name.starts_with("catalog") && name.ends_with(".sqlite")
}

/// The uuid and kind in the name of a segment file, set aside or not yet whole ones included.
fn segment_name(name: &str) -> Option<FileName> {
    let mut parts = name.splitn(3, '.');
    let (uuid, kind) = (parts.next()?, parts.next()?);
    FileName::parse(&format!("{uuid}.{kind}"))
}

fn describe_catalog(fs: &dyn FileSystem, path: &Path) -> Result<Description> {
    let mut page = Description { kind: "catalog".to_owned(), ..Description::default() };
    // A link is refused by SQLite.
    let len = fs.metadata(path)?.len;
    line!(page, "kind       catalog, an SQLite database (spec 8.8)");
    line!(page, "bytes      {len}");
    let (entries, damage) = catalog::outline(path)?;
    for entry in entries {
        line!(page, "holds      {}", shown(&entry));
    }
    if let Some(damage) = damage {
        page.bad_whole(&damage);
    }
    Ok(page)
}

/// Files that say something by their size or their lock.
fn describe_marker(
    fs: &dyn FileSystem,
    path: &Path,
    name: &str,
    file: &dyn File,
) -> Result<Option<Description>> {
    let len = file.len()?;
    let mut page = Description { kind: name.to_owned(), ..Description::default() };
    match name {
        "generation" => line!(page, "a counter of changes (spec 8.4): {len}"),
        "reserve" => line!(page, "room to work in on a full disk (spec 8.5): {len} bytes"),
        "alerts.lock" => line!(page, "locked by who keeps the states of alerts (spec 8.12)"),
        maintenance::NAME => {
            line!(page, "locked by who does maintenance (spec 8.7)");
            let dir = path.parent().unwrap_or(path);
            match maintenance::damaged_mark(fs, dir) {
                Some(why) => page.bad_whole(why),
                None => {
                    let committed = maintenance::CatalogMark::read(file)?;
                    line!(page, "last transaction of the catalog: {committed}");
                }
            }
        }
        _ if name.ends_with(".torn") => {
            page.kind = "torn".to_owned();
            line!(page, "a copy of the torn end of an active segment (spec 8.9): {len} bytes");
        }
        _ => return Ok(None),
    }
    Ok(Some(page))
}

/// A document (spec 8.1).
fn describe_document(fs: &dyn FileSystem, path: &Path, name: &str) -> Result<Description> {
    let bytes = read_whole(fs, path, DOCUMENT_BYTES_MAX)?;
    let parsed = serde_json::from_slice::<Value>(&bytes).ok();
    let magic = parsed.as_ref().and_then(|value| value.get("magic")).and_then(Value::as_str);
    let is_of_txn = path.parent().is_some_and(|parent| parent.ends_with("txn"));
    let id = Id::parse(name.split('.').next().unwrap_or_default());
    let checked = match magic {
        Some("tallystone store") => StoreFile::decode(&bytes).map(drop),
        Some("tallystone retention") => RetentionRules::decode(&bytes).map(drop),
        Some("tallystone import") => TxnRecord::decode(&bytes).and_then(|record| {
            if !is_of_txn || id.is_none_or(|id| id == record.id) {
                return Ok(());
            }
            Err(Error::corrupt("8.6", format!("the record of import {}", record.id)))
        }),
        Some("tallystone backup") => BackupMark::decode(&bytes).map(drop),
        Some("tallystone alerts") => alerts::decode(&bytes).map(drop),
        _ => {
            let ours = ["store.json", "retention.json", "alerts.json", "backup.json"];
            let is_ours = ours.iter().any(|own| name.starts_with(own)) || is_of_txn;
            if !is_ours {
                let error = Error::new(ErrorKind::NotOurFile, "not a file of a store");
                return Err(error.with_path(path));
            }
            Err(Error::corrupt("8.1", "not a document of a known kind"))
        }
    };
    if let Err(error) = &checked
        && error.kind() == ErrorKind::UnsupportedVersion
    {
        return Err(error.clone().with_path(path));
    }
    let kind = magic.map_or_else(|| "document".to_owned(), shown);
    let mut page = Description { kind, ..Description::default() };
    line!(page, "kind       {}", page.kind);
    line!(page, "bytes      {}", bytes.len());
    if let Err(error) = checked {
        page.bad_whole(&reason_of(&error));
    }
    match parsed {
        Some(value) => {
            let text = serde_json::to_string_pretty(&value).unwrap_or_default();
            text.lines().for_each(|member| line!(page, "{}", shown(member)));
        }
        None => {
            let text: String =
                String::from_utf8_lossy(&bytes).chars().take(EXCERPT_CHARS).collect();
            line!(page, "begins     {}", shown(&text));
        }
    }
    Ok(page)
}

/// What is known of a file before its frames.
struct Subject<'a> {
    uuid: Id,
    kind: FileKind,
    header: Option<&'a Header>,
}

/// A segment, or what comes of one; by its name where no header is good.
fn describe_segment(file: &dyn File, head: &[u8], name: Option<FileName>) -> Result<Description> {
    let mut page = Description::default();
    let header = match Header::decode(head) {
        Ok(copies) => {
            describe_header(&copies.header, file.len()?, &mut page);
            copies.problems().iter().for_each(|problem| page.bad_whole(problem));
            if name.is_some_and(|name| {
                (name.uuid, name.kind) != (copies.header.uuid, copies.header.kind)
            }) {
                page.bad_whole("its name is that of another file");
            }
            Some(copies.header)
        }
        Err(error) => {
            line!(page, "bytes      {}", file.len()?);
            page.bad_whole(&format!("neither header is good: {}", reason_of(&error)));
            None
        }
    };
    let known = match (&header, name) {
        (Some(header), _) => (header.uuid, header.kind),
        (None, Some(name)) => (name.uuid, name.kind),
        (None, None) => return Ok(page),
    };
    page.kind = known.1.extension().to_owned();
    let what = Subject { uuid: known.0, kind: known.1, header: header.as_ref() };
    describe_frames(file, &what, &mut page)?;
    describe_trailer(file, &what, &mut page)?;
    Ok(page)
}

fn describe_header(header: &Header, len: u64, page: &mut Description) {
    line!(page, "kind       {}", header.kind.extension());
    line!(page, "format     {}.{}", header.major, header.minor);
    line!(page, "uuid       {}", header.uuid);
    line!(page, "store      {}", header.store_id);
    line!(page, "writer     {}", header.writer);
    if let Some(txn) = header.txn {
        line!(page, "import     {txn}");
    }
    line!(page, "table      {}", shown(&header.table.name));
    line!(page, "partition  {}", header.partition);
    line!(page, "created    {}", Timestamp::clamped(header.created));
    line!(page, "bytes      {len}");
    for uuid in &header.replaces {
        line!(page, "replaces   {uuid}");
    }
}

fn describe_frames(file: &dyn File, what: &Subject<'_>, page: &mut Description) -> Result<()> {
    let len = file.len()?;
    let mut at = FRAMES_OFFSET as u64;
    line!(page, "\n{:>12}  {:>6}  {:<18} {:>9} {:>10}", "offset", "frame", "kind", "rows", "bytes");
    while at + FRAME_HEADER_BYTES as u64 <= len {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        read_exact_at(file, &mut bytes, at)?;
        if FrameHeader::is_blank(&bytes) {
            line!(page, "{at:>12}  zeros to the end: space written ahead");
            return Ok(());
        }
        match FrameHeader::decode(&bytes, &what.uuid, at) {
            Ok(frame) => {
                describe_frame(file, what, &frame, page)?;
                at = frame.end();
                if frame.kind == FrameKind::Footer {
                    return Ok(());
                }
            }
            Err(error) => {
                page.bad(at, &reason_of(&error));
                match next_frame(file, what, at, len)? {
                    Some(next) => at = next,
                    None => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

/// The next offset after `at` where a valid frame header lies.
fn next_frame(file: &dyn File, what: &Subject<'_>, at: u64, len: u64) -> Result<Option<u64>> {
    let mut window = vec![0; 1 << 20];
    let mut start = at + ALIGNMENT as u64;
    while start + FRAME_HEADER_BYTES as u64 <= len {
        let read = file.read_at(&mut window, start)?;
        for (index, bytes) in
            window[..read].windows(FRAME_HEADER_BYTES).step_by(ALIGNMENT).enumerate()
        {
            let offset = start + (index * ALIGNMENT) as u64;
            if FrameHeader::decode(bytes, &what.uuid, offset).is_ok() {
                return Ok(Some(offset));
            }
        }
        if read < window.len() {
            return Ok(None);
        }
        start += (window.len() - FRAME_HEADER_BYTES) as u64 / 8 * 8;
    }
    Ok(None)
}

fn describe_frame(
    file: &dyn File,
    what: &Subject<'_>,
    frame: &FrameHeader,
    page: &mut Description,
) -> Result<()> {
    line!(
        page,
        "{:>12}  {:>6}  {:<18} {:>9} {:>10}",
        frame.offset,
        frame.seq,
        name_of(frame, what),
        frame.rows,
        frame.frame_bytes()
    );
    let padded = frame.padded_len();
    if padded > PAYLOAD_BYTES_MAX || frame.end() > file.len()? {
        page.bad(frame.offset, "it reaches past the end of the file");
        return Ok(());
    }
    let mut payload = vec![0; padded];
    read_exact_at(file, &mut payload, frame.offset + FRAME_HEADER_BYTES as u64)?;
    if let Err(error) = describe_payload(what, frame, &payload, page) {
        page.bad(frame.offset, &reason_of(&error));
    }
    Ok(())
}

fn name_of(frame: &FrameHeader, what: &Subject<'_>) -> String {
    match frame.kind {
        FrameKind::Dictionary => {
            format!("dictionary {}", column_name(what, usize::from(frame.sub)))
        }
        FrameKind::Index => {
            let section = IndexSection::from_tag(frame.sub);
            section.map_or_else(|| "index ?".to_owned(), |s| format!("index {s:?}").to_lowercase())
        }
        kind => format!("{kind:?}").to_lowercase(),
    }
}

fn column_name(what: &Subject<'_>, column: usize) -> String {
    let column = what.header.and_then(|header| header.table.columns.get(column));
    column.map_or_else(|| "?".to_owned(), |column| shown(&column.name))
}

fn describe_payload(
    what: &Subject<'_>,
    frame: &FrameHeader,
    payload: &[u8],
    page: &mut Description,
) -> Result<()> {
    if !frame.kind.is_block() {
        let whole = frame.whole_payload(payload)?;
        if frame.kind == FrameKind::Commit {
            let commit = Commit::decode(whole, frame.seq)?;
            let durable = commit.durable_upto.map_or("none".to_owned(), |seq| seq.to_string());
            let rows = commit.rows_total;
            line!(page, "{:>12}  {:>6}  rows so far {rows}, durable before it: {durable}", "", "");
        }
        if frame.kind == FrameKind::Footer {
            let footer = Footer::decode(whole, what.kind, frame.offset)?;
            let (from, to) = (Timestamp::clamped(footer.min_ts), Timestamp::clamped(footer.max_ts));
            let frames = footer.frames.len();
            line!(
                page,
                "{:>12}  {:>6}  {} rows, {from} to {to}, {frames} frames",
                "",
                "",
                footer.rows
            );
        }
        return Ok(());
    }
    let directory = BlockDirectory::read(frame, payload)?;
    if frame.kind.has_rows() {
        let (from, to) = (Timestamp::clamped(frame.min_ts), Timestamp::clamped(frame.max_ts));
        line!(page, "{:>12}  {:>6}  {from} to {to}", "", "");
    }
    for (column, chunk) in directory.chunks.iter().enumerate() {
        let encoding = directory.chunk(payload, column)?.first().copied().unwrap_or(0);
        let damage = directory.check_chunk(frame, payload, column).err();
        let name = if frame.kind.has_rows() { column_name(what, column) } else { "-".to_owned() };
        line!(
            page,
            "{:>12}  {:>6}    {column:>2} {name:<14} encoding {encoding:>2} {:>9} bytes {:>7} nulls",
            "",
            "",
            chunk.len,
            chunk.nulls
        );
        if let Some(error) = damage {
            page.bad(frame.offset, &format!("column {column} ({name}): {}", error.message()));
        }
    }
    Ok(())
}

fn describe_trailer(file: &dyn File, what: &Subject<'_>, page: &mut Description) -> Result<()> {
    let len = file.len()?;
    if what.kind == FileKind::Active {
        return Ok(());
    }
    if len < (FRAMES_OFFSET + TRAILER_BYTES) as u64 {
        page.bad(len, "the file ends before its trailer");
        return Ok(());
    }
    let mut bytes = [0; TRAILER_BYTES];
    let offset = len - TRAILER_BYTES as u64;
    read_exact_at(file, &mut bytes, offset)?;
    let read = Trailer::decode(&bytes, &what.uuid, offset);
    match read {
        Ok(trailer) => line!(page, "{offset:>12}  trailer: footer at {}", trailer.footer_offset),
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(error) => page.bad(offset, &format!("the trailer: {}", reason_of(&error))),
    }
    Ok(())
}
