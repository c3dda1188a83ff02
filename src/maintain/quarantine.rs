//! Setting a file aside: its bytes are kept in `quarantine/` (spec 8.9) before its name goes.
//!
//! Nothing in there is ever overwritten or deleted by the store: each name has an id of its own.

use std::path::Path;

use crate::error::{ErrorKind, Result};
use crate::format::id::Id;
use crate::fs::{EntryKind, FileSystem, publish, read_exact_at};
use crate::maintain::backup::copy;
use crate::segment::files::{StoreRoot, ensure_dir};

/// The directory, relative to the store.
pub(super) const DIR: &str = "quarantine";
/// Ending of a note beside what it is about.
const NOTE: &str = ".txt";
/// Ending of a copy that is not whole.
const UNFINISHED: &str = ".tmp";
/// Bytes compared at a time.
const COMPARE_BYTES: usize = 1 << 20;

/// Keeps the file at `path` as `<name>.<new id>`, durably, with a note of why; returns where,
/// relative to the store. The file stays where it is, as a second name of the same bytes
/// where the file system can do that. What is no regular file is moved.
///
/// If the same bytes have been kept before, by a repair that was cut off, they are enough.
///
/// # Errors
///
/// `Io`, `NoSpace`: the file is where it was.
pub(super) fn keep(root: &StoreRoot, path: &Path, name: &str, why: &str) -> Result<String> {
    let fs = root.fs.as_ref();
    let dir = root.dir.join(DIR);
    ensure_dir(fs, &dir)?;
    let prefix = format!("{name}.");
    for entry in fs.list(&dir)? {
        let is_such = entry.kind == EntryKind::File
            && entry.name.starts_with(&prefix)
            && ![NOTE, UNFINISHED].iter().any(|ending| entry.name.ends_with(ending));
        if is_such && is_same(fs, path, &dir.join(&entry.name))? {
            fs.sync_dir(&dir)?;
            return Ok(format!("{DIR}/{}", entry.name));
        }
    }
    let kept = format!("{prefix}{}", Id::from_bytes(fs.unique_id()));
    let target = dir.join(&kept);
    match fs.metadata(path) {
        Ok(found) if found.kind == EntryKind::File => match fs.link(path, &target) {
            Ok(true) => {}
            Ok(false) => copy(fs, path, &target, found.len)?,
            Err(error) => return Err(error),
        },
        Ok(_) => fs.rename_new(path, &target)?,
        Err(error) if error.kind() == ErrorKind::NotOurFile => fs.rename_new(path, &target)?,
        Err(error) => return Err(error),
    }
    fs.sync_dir(&dir)?;
    // The name says where it was; on a full disk that must do.
    let from = path.strip_prefix(&root.dir).unwrap_or(path);
    let note = format!("{}: {why}\n", from.display());
    let _ = publish(fs, &dir, &format!("{kept}{NOTE}"), note.as_bytes(), false);
    Ok(format!("{DIR}/{kept}"))
}

fn is_same(fs: &dyn FileSystem, a: &Path, b: &Path) -> Result<bool> {
    let Ok(of_a) = fs.metadata(a) else { return Ok(false) };
    let of_b = fs.metadata(b)?;
    if of_a.kind != EntryKind::File || of_a.len != of_b.len {
        return Ok(false);
    }
    if of_a.inode == of_b.inode {
        return Ok(true);
    }
    let (a, b) = (fs.open(a)?, fs.open(b)?);
    let (mut left, mut right) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut offset = 0;
    while offset < of_a.len {
        let most = usize::try_from(of_a.len - offset).unwrap_or(COMPARE_BYTES).min(COMPARE_BYTES);
        read_exact_at(&*a, &mut left[..most], offset)?;
        read_exact_at(&*b, &mut right[..most], offset)?;
        if left[..most] != right[..most] {
            return Ok(false);
        }
        offset += most as u64;
    }
    Ok(true)
}
