//! A readable description of one file, for people and for tests.
//!
//! Owns the walk over headers and frames that shows what is there, the bad parts
//! included. Changes nothing and trusts nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::directory::BlockDirectory;
use crate::format::frame::{Commit, FrameHeader, FrameKind, IndexSection};
use crate::format::header::Header;
use crate::format::layout::{ALIGNMENT, FRAME_HEADER_BYTES, FRAMES_OFFSET, TRAILER_BYTES};
use crate::format::trailer::Trailer;
use crate::fs::{File, FileSystem, OsFileSystem, read_exact_at};
use crate::time::Timestamp;

/// Bytes of a frame's payload that are read to describe it.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Describes a segment file: header, frames, columns, and what is wrong with them.
///
/// # Errors
///
/// `Io` when it cannot be read; `NotOurFile`, `UnsupportedVersion`, `Corrupt` or `Torn` when
/// no header of it can be.
pub fn describe(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let fs: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
    let file = fs.open(path)?;
    let mut text = String::new();
    let header = describe_header(file.as_ref(), &mut text).map_err(|e| e.with_path(path))?;
    describe_frames(file.as_ref(), &header, &mut text)?;
    describe_trailer(file.as_ref(), &header, &mut text)?;
    Ok(text)
}

/// Adds a line; writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($format:tt)*) => {{
        let _ = writeln!($text, $($format)*);
    }};
}

fn describe_header(file: &dyn File, text: &mut String) -> Result<Header> {
    let mut bytes = vec![0; FRAMES_OFFSET];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let copies = Header::decode(&bytes)?;
    let header = copies.header;
    line!(text, "kind       {}", header.kind.extension());
    line!(text, "format     {}.{}", header.major, header.minor);
    line!(text, "uuid       {}", header.uuid);
    line!(text, "store      {}", header.store_id);
    line!(text, "writer     {}", header.writer);
    if let Some(txn) = header.txn {
        line!(text, "import     {txn}");
    }
    line!(text, "table      {}", header.table.name);
    line!(text, "partition  {}", header.partition);
    line!(text, "created    {}", Timestamp::clamped(header.created));
    line!(text, "bytes      {}", file.len()?);
    for uuid in &header.replaces {
        line!(text, "replaces   {uuid}");
    }
    for (copy, bad) in copies.bad.iter().enumerate() {
        if *bad {
            line!(text, "DAMAGED    header copy {copy}");
        }
    }
    Ok(header)
}

fn describe_frames(file: &dyn File, header: &Header, text: &mut String) -> Result<()> {
    let len = file.len()?;
    let mut at = FRAMES_OFFSET as u64;
    line!(text, "\n{:>12}  {:>6}  {:<18} {:>9} {:>10}", "offset", "frame", "kind", "rows", "bytes");
    while at + FRAME_HEADER_BYTES as u64 <= len {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        read_exact_at(file, &mut bytes, at)?;
        if FrameHeader::is_blank(&bytes) {
            line!(text, "{at:>12}  zeros to the end: space written ahead");
            return Ok(());
        }
        match FrameHeader::decode(&bytes, &header.uuid, at) {
            Ok(frame) => {
                describe_frame(file, header, &frame, text)?;
                at = frame.end();
                if frame.kind == FrameKind::Footer {
                    return Ok(());
                }
            }
            Err(error) => {
                line!(text, "{at:>12}  DAMAGED: {}", error.message());
                match next_frame(file, header, at, len)? {
                    Some(next) => at = next,
                    None => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

/// The next offset after `at` where a valid frame header lies.
fn next_frame(file: &dyn File, header: &Header, at: u64, len: u64) -> Result<Option<u64>> {
    let mut window = vec![0; 1 << 20];
    let mut start = at + ALIGNMENT as u64;
    while start + FRAME_HEADER_BYTES as u64 <= len {
        let read = file.read_at(&mut window, start)?;
        for (index, bytes) in
            window[..read].windows(FRAME_HEADER_BYTES).step_by(ALIGNMENT).enumerate()
        {
            let offset = start + (index * ALIGNMENT) as u64;
            if FrameHeader::decode(bytes, &header.uuid, offset).is_ok() {
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
    header: &Header,
    frame: &FrameHeader,
    text: &mut String,
) -> Result<()> {
    line!(
        text,
        "{:>12}  {:>6}  {:<18} {:>9} {:>10}",
        frame.offset,
        frame.seq,
        name_of(frame, header),
        frame.rows,
        frame.frame_bytes()
    );
    let padded = frame.padded_len();
    if padded > PAYLOAD_BYTES_MAX || frame.end() > file.len()? {
        line!(text, "{:>12}  DAMAGED: it reaches past the end of the file", "");
        return Ok(());
    }
    let mut payload = vec![0; padded];
    read_exact_at(file, &mut payload, frame.offset + FRAME_HEADER_BYTES as u64)?;
    if let Err(error) = describe_payload(header, frame, &payload, text) {
        line!(text, "{:>12}  DAMAGED: {}", "", error.message());
    }
    Ok(())
}

fn name_of(frame: &FrameHeader, header: &Header) -> String {
    match frame.kind {
        FrameKind::Dictionary => {
            let column = header.table.columns.get(usize::from(frame.sub));
            format!("dictionary {}", column.map_or("?", |column| &column.name))
        }
        FrameKind::Index => {
            let section = IndexSection::from_tag(frame.sub);
            section.map_or_else(|| "index ?".to_owned(), |s| format!("index {s:?}").to_lowercase())
        }
        kind => format!("{kind:?}").to_lowercase(),
    }
}

fn describe_payload(
    header: &Header,
    frame: &FrameHeader,
    payload: &[u8],
    text: &mut String,
) -> Result<()> {
    if !frame.kind.is_block() {
        let whole = frame.whole_payload(payload)?;
        if frame.kind == FrameKind::Commit {
            let commit = Commit::decode(whole, frame.seq)?;
            let durable = commit.durable_upto.map_or("none".to_owned(), |seq| seq.to_string());
            let rows = commit.rows_total;
            line!(text, "{:>12}  {:>6}  rows so far {rows}, durable before it: {durable}", "", "");
        }
        return Ok(());
    }
    let directory = BlockDirectory::read(frame, payload)?;
    if frame.kind.has_rows() {
        let (from, to) = (Timestamp::clamped(frame.min_ts), Timestamp::clamped(frame.max_ts));
        line!(text, "{:>12}  {:>6}  {from} to {to}", "", "");
    }
    for (column, chunk) in directory.chunks.iter().enumerate() {
        let encoding = directory.chunk(payload, column)?.first().copied().unwrap_or(0);
        let damage = directory.check_chunk(frame, payload, column).err();
        let name = match header.table.columns.get(column) {
            Some(column) if frame.kind.has_rows() => column.name.as_str(),
            _ => "-",
        };
        line!(
            text,
            "{:>12}  {:>6}    {column:>2} {name:<14} encoding {encoding:>2} {:>9} bytes {:>7} nulls{}",
            "",
            "",
            chunk.len,
            chunk.nulls,
            damage.map_or(String::new(), |error| format!("  DAMAGED: {}", error.message()))
        );
    }
    Ok(())
}

fn describe_trailer(file: &dyn File, header: &Header, text: &mut String) -> Result<()> {
    let len = file.len()?;
    if header.kind.extension() == "active" || len < (FRAMES_OFFSET + TRAILER_BYTES) as u64 {
        return Ok(());
    }
    let mut bytes = [0; TRAILER_BYTES];
    let offset = len - TRAILER_BYTES as u64;
    read_exact_at(file, &mut bytes, offset)?;
    let read = Trailer::decode(&bytes, &header.uuid, offset);
    match read {
        Ok(trailer) => line!(text, "{offset:>12}  trailer: footer at {}", trailer.footer_offset),
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(error) => line!(text, "{offset:>12}  DAMAGED trailer: {}", Error::message(&error)),
    }
    Ok(())
}
