//! The small files of a store directory beside segments and catalog (spec 8).
//!
//! Owns `store.json` (who the store is), `retention.json` (how long rows stay),
//! `generation` (a counter that tells readers to look again), `reserve` (space to work
//! with on a full disk), `txn/` (which imports are committed), `maintenance.lock` (who may do
//! maintenance, and how far the catalog has come), `backup.json` (whether this is a backup,
//! and whole), `alerts.json` and `alerts.lock` (the states of alerts, and who keeps them). Does
//! not decide when any of them is written, does not look into segments, and never reads the
//! clock.
//!
//! All of them are published whole or changed by one small write, so that a crash leaves
//! the old state or the new one.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{File, FileSystem};

pub(crate) mod alerts;
pub(crate) mod backup_mark;
pub(crate) mod document;
pub(crate) mod generation;
pub(crate) mod identity;
pub(crate) mod maintenance;
pub(crate) mod reserve;
pub(crate) mod retention;
pub(crate) mod txn;

pub(crate) use crate::format::id::Id;

/// Reads 32 lower-case hexadecimal digits.
fn parse_hex(text: &str) -> Option<u128> {
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == 32 && text.bytes().all(lower_hex))
        .then(|| u128::from_str_radix(text, 16).ok())?
}

/// Takes "it was there already" as success.
fn if_absent(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_already_there() => Ok(()),
        other => other,
    }
}

/// Takes "it was not there" as `None`.
fn if_present<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `file` is still what is found at `path`: asked after locking, since the one who
/// had the lock may have renamed or removed it.
fn is_at(fs: &dyn FileSystem, file: &dyn File, path: &Path) -> Result<bool> {
    let inode = file.inode()?;
    Ok(if_present(fs.metadata(path))?.is_some_and(|found| found.inode == inode))
}

/// Opens a file for writing that nothing of ours unlinks, and makes it where it is missing.
fn open_or_create(fs: &dyn FileSystem, path: &Path) -> Result<Arc<dyn File>> {
    match fs.open_write(path) {
        Err(error) if error.is_not_found() => {
            if_absent(fs.create(path).map(|_| ()))?;
            fs.open_write(path)
        }
        other => other,
    }
}

/// Takes the lock of a file in `dir` that nothing of ours unlinks, without waiting; `None`
/// where somebody has it.
fn try_lock_file(fs: &dyn FileSystem, dir: &Path, name: &str) -> Result<Option<Arc<dyn File>>> {
    let path = dir.join(name);
    let file = open_or_create(fs, &path)?;
    // A person may unlink it all the same, and two holders must not come of that.
    Ok(if file.try_lock()? && is_at(fs, &*file, &path)? { Some(file) } else { None })
}

/// Whether the bytes are wrong, as against a file that could not be read.
fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt
            | ErrorKind::Torn
            | ErrorKind::NotOurFile
            | ErrorKind::UnsupportedVersion
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_text() {
        assert_eq!(
            parse_hex("000102030405060708090a0b0c0d0eff"),
            Some(0x0001_0203_0405_0607_0809_0a0b_0c0d_0eff)
        );
        for bad in [
            "",
            "000102030405060708090a0b0c0d0ef",
            "000102030405060708090A0b0c0d0eff",
            "+00102030405060708090a0b0c0d0eff",
        ] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }
}
