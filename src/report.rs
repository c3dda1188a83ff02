//! What the store tells about itself: recovery, size, imports, verification, the catalog.
//!
//! Owns the public reports; they are plain data, filled by whoever did the work.

use std::path::PathBuf;

use crate::time::Timestamp;

/// What opening a store found, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RecoveryReport {
    /// One line each: what was found, where, and what was done.
    pub notes: Vec<String>,
    /// Bytes of torn tails: never acknowledged, set aside when their file is sealed.
    pub torn_tail_bytes: u64,
    /// Whole frames in them.
    pub frames_dropped: u64,
    /// Rows sealed from the active segments of processes that are gone.
    pub rows_recovered: u64,
    /// Whether the catalog was built anew from the files.
    pub catalog_rebuilt: bool,
}

/// Size of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// One entry per table and kind of file that is there.
    pub tables: Vec<TableStats>,
    /// Bytes of replaced files that wait for the grace to pass.
    pub replaced_bytes: u64,
    /// Files that cannot be read.
    pub damaged_files: u64,
}

/// Size of one table in one kind of file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableStats {
    /// Name of the table.
    pub table: &'static str,
    /// `active`, `segment`, and so on: the ending of the files' names.
    pub kind: &'static str,
    /// Files.
    pub files: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Earliest stamp.
    pub from: Option<Timestamp>,
    /// Latest stamp.
    pub to: Option<Timestamp>,
}

/// A committed import.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    /// Id, as undoing takes it.
    pub id: String,
    /// Name of the source.
    pub source: String,
    /// Bytes of the source.
    pub bytes: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Files written.
    pub files: u64,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// Files looked at.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes in use in them.
    pub bytes: u64,
    /// Everything that is wrong: empty for a sound store.
    pub problems: Vec<VerifyProblem>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VerifyProblem {
    /// File, relative to the store.
    pub file: String,
    /// What, and where in it.
    pub message: String,
    /// Whether rows are lost by it; damage to something derived costs time only.
    pub loses_rows: bool,
}

impl VerifyReport {
    /// Adds something that is wrong.
    pub(crate) fn add(&mut self, file: &str, message: String, loses_rows: bool) {
        self.problems.push(VerifyProblem { file: file.to_owned(), message, loses_rows });
    }

    /// Whether any row is lost.
    pub fn loses_rows(&self) -> bool {
        self.problems.iter().any(|problem| problem.loses_rows)
    }
}

/// What rebuilding the catalog did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CatalogReport {
    /// Segments entered.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Where the old catalog was put, if there was one.
    pub set_aside: Option<PathBuf>,
}
