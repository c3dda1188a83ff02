//! An immutable view of a store: which segments, and how much of each.
//!
//! Owns `Snapshot` and the caches that snapshots of one store share: of answers, and of
//! what was merged of the summaries of several segments. Knows
//! nothing of queries: `query` adds the methods. A snapshot holds the files open that were
//! read, so seals, merges and deletions do not disturb it; the others stay for a grace.

pub(crate) mod lister;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::error::{ErrorKind, Result};
use crate::planted::{Bug, is_planted};
use crate::schema::Table;
use crate::segment::{Segment, SegmentDamage, SegmentKey};
use crate::sync::Mutex;
use crate::time::TimeRange;

/// A fixed view of a store, on which the ten methods answer.
///
/// Cheap to clone. It sees every row that was committed before it was taken, by any
/// process, and none that came later. Files that merges, compaction and retention replace stay
/// for [`Options::unlink_grace`](crate::Options::unlink_grace); a method that needs one which
/// has been deleted since, and which no method opened before, fails with
/// [`SnapshotGone`](crate::ErrorKind::SnapshotGone): take a new snapshot.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) view: Arc<View>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> =
            Table::ALL.iter().map(|t| (t.name(), self.segments(*t).len())).collect();
        f.debug_struct("Snapshot").field("segments", &counts).finish_non_exhaustive()
    }
}

/// What a snapshot fixes.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Per table (by `Table::index`): its segments by partition, then uuid.
    pub(crate) segments: [Vec<Arc<dyn Segment>>; 3],
    /// Per table: its rollups, likewise.
    pub(crate) rollups: [Vec<Arc<dyn Segment>>; 3],
    /// Per table: files that cannot be read at all.
    pub(crate) damage: [Vec<FileDamage>; 3],
    /// Per table: days whose rows have expired.
    pub(crate) gone: [Vec<TimeRange>; 3],
    /// Per table: days of which damaged files have expired.
    pub(crate) damaged_gone: [Vec<TimeRange>; 3],
    /// Answers of this store's snapshots.
    pub(crate) cache: Option<Arc<AnswerCache>>,
    /// Summaries of several segments that snapshots merged.
    pub(crate) merged: Option<Arc<AnswerCache>>,
}

/// A file none of whose rows can be read.
#[derive(Clone, Debug)]
pub(crate) struct FileDamage {
    /// File, relative to the store's directory.
    pub(crate) file: String,
    /// The day it belongs to.
    pub(crate) range: TimeRange,
    /// What is lost.
    pub(crate) damage: SegmentDamage,
    /// `Corrupt`; `Io` where the system failed, and another try may not; `MissingSegment`.
    pub(crate) kind: ErrorKind,
}

impl Snapshot {
    /// A snapshot of the view.
    pub(crate) fn new(view: impl Into<Arc<View>>) -> Self {
        Self { view: view.into() }
    }

    /// The table's segments by partition, then uuid.
    pub(crate) fn segments(&self, table: Table) -> &[Arc<dyn Segment>] {
        &self.view.segments[table.index()]
    }

    /// The table's rollups by partition, then uuid.
    pub(crate) fn rollups(&self, table: Table) -> &[Arc<dyn Segment>] {
        &self.view.rollups[table.index()]
    }

    /// Files of the table that cannot be read at all.
    pub(crate) fn file_damage(&self, table: Table) -> &[FileDamage] {
        &self.view.damage[table.index()]
    }

    /// Days of the table whose rows have expired.
    pub(crate) fn gone(&self, table: Table) -> &[TimeRange] {
        &self.view.gone[table.index()]
    }

    /// Days of the table of which damaged files have expired.
    pub(crate) fn damaged_gone(&self, table: Table) -> &[TimeRange] {
        &self.view.damaged_gone[table.index()]
    }

    /// Opens every file of the table that has rows of the range, so that none can be missed
    /// later. What cannot be opened for another reason is left to whoever reads it.
    ///
    /// # Errors
    ///
    /// `SnapshotGone` when one has been deleted already.
    pub(crate) fn pin(&self, table: Table, range: TimeRange) -> Result<()> {
        let all = self.segments(table).iter().chain(self.rollups(table));
        for segment in all {
            let has_rows = segment.stamps().is_some_and(|(min, max)| range.overlaps(min, max));
            match has_rows.then(|| segment.pin()) {
                Some(Err(error)) if error.kind() == ErrorKind::SnapshotGone => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Committed rows of the table; not those that only rollups stand for.
    pub fn rows(&self, table: Table) -> u64 {
        self.segments(table).iter().map(|segment| segment.rows()).sum()
    }

    /// Where what is merged of the summaries of several segments is kept.
    pub(crate) fn merged(&self) -> Option<&AnswerCache> {
        self.view.merged.as_deref()
    }

    /// The exact files and verified ends of the table: what an answer depends on.
    pub(crate) fn keys(&self, table: Table) -> Vec<SegmentKey> {
        let all = self.segments(table).iter().chain(self.rollups(table));
        all.map(|segment| segment.key()).collect()
    }
}

/// The most recent answers of a store's snapshots, or other things that were made of the
/// same files, least recently used first out.
///
/// An answer is found only under the same question and the same files with the same
/// verified ends, so it is never stale. Answers own their data.
pub(crate) struct AnswerCache {
    capacity: usize,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    question: String,
    files: Vec<SegmentKey>,
    answer: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for AnswerCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCache").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl AnswerCache {
    /// A cache of at most `capacity` answers; 0 keeps none.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::new(Vec::new()) }
    }

    /// The answer to the question over exactly these files.
    pub(crate) fn get<T: Any + Send + Sync + Clone>(
        &self,
        question: &str,
        files: &[SegmentKey],
    ) -> Option<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |e: &Entry| e.files == files || is_planted(Bug::StaleAnswer);
        let found = entries.iter().position(|e| e.question == question && is_same(e))?;
        let entry = entries.remove(found);
        let answer = entry.answer.downcast_ref::<T>().cloned();
        entries.push(entry);
        answer
    }

    /// Keeps an answer, dropping the least recently used one when full.
    pub(crate) fn put<T: Any + Send + Sync>(
        &self,
        question: String,
        files: Vec<SegmentKey>,
        answer: T,
    ) {
        if self.capacity == 0 {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|e| e.question != question || e.files != files);
        if entries.len() >= self.capacity {
            entries.remove(0);
        }
        entries.push(Entry { question, files, answer: Arc::new(answer) });
    }
}

/// Runs `compute` unless the cache holds its answer; says which. An answer that `keep`
/// refuses is not put into the cache.
pub(crate) fn cached<T: Any + Send + Sync + Clone>(
    snapshot: &Snapshot,
    table: Table,
    question: impl FnOnce() -> String,
    keep: impl FnOnce(&T) -> bool,
    compute: impl FnOnce() -> Result<T>,
) -> Result<(T, bool)> {
    // A cache that keeps nothing is not worth the copy of an answer.
    let Some(cache) = snapshot.view.cache.as_ref().filter(|cache| cache.capacity > 0) else {
        return Ok((compute()?, false));
    };
    let question = question();
    let files = snapshot.keys(table);
    if let Some(answer) = cache.get::<T>(&question, &files) {
        return Ok((answer, true));
    }
    let answer = compute()?;
    if keep(&answer) {
        cache.put(question, files, answer.clone());
    }
    Ok((answer, false))
}
