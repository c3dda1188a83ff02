//! Reconciling: the catalog follows the files, and remembers what was deleted and why.
//!
//! Owns `Books`: the catalog in the hands of the holder of the maintenance lock. Nothing
//! that a reader needs lives only there.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use crate::catalog::{self, Catalog, CatalogState, Intent, MissingSegment, Outcome, SegmentFacts};
use crate::error::Result;
use crate::format::id::{FileKind, Id};
use crate::fs::FileSystem;
use crate::report::CatalogReport;
use crate::segment::Segment;
use crate::segment::files::{FileName, StoreRoot, partition_dir};
use crate::segment::tombstone::Tombstone;
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::maintenance::{MaintenanceLock, try_maintenance_lock};
use crate::store_files::retention::{self, RetentionRules, RulesSource};
use crate::store_files::txn;
use crate::time::Timestamp;

/// A job that is about to begin.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// What kind of job: `delete`, `expire` and so on.
    pub(crate) kind: &'static str,
    /// What it is about to do and why.
    pub(crate) what: String,
    /// Rows that it is about.
    pub(crate) rows: u64,
    /// Bytes that it is about.
    pub(crate) bytes: u64,
    /// Files that go by it.
    pub(crate) deletes: Vec<Id>,
}

/// The catalog, open for writing.
#[derive(Debug)]
pub(crate) struct Books {
    catalog: Box<dyn Catalog>,
    /// Whether it was made anew.
    pub(crate) rebuilt: bool,
    /// One line per thing that a person should know.
    pub(crate) notes: Vec<String>,
    /// Files that are gone without a reason, as of the last reconciling.
    pub(crate) missing: Vec<MissingSegment>,
}

impl Books {
    fn of(catalog: Box<dyn Catalog>) -> Self {
        Self { catalog, rebuilt: false, notes: Vec::new(), missing: Vec::new() }
    }

    /// Opens the catalog; one that is not whole is set aside and made anew.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, `Locked`: maintenance can go on later.
    pub(crate) fn open(root: &StoreRoot, _lock: &MaintenanceLock) -> Result<Self> {
        let (catalog, state) = catalog::open_writer(root.fs.as_ref(), &root.dir, &root.id)?;
        let mut books = Self::of(catalog);
        if let CatalogState::Rebuilt { reason, set_aside } = state {
            books.rebuilt = true;
            let kept = set_aside
                .map_or(String::new(), |path| format!(", the old one is {}", path.display()));
            books
                .notes
                .push(format!("catalog.sqlite: {reason:?}: built anew from the files{kept}"));
        }
        Ok(books)
    }

    /// Whether the catalog knows that a file counted once, and nothing was to delete it.
    ///
    /// # Errors
    ///
    /// `Io`, `Corrupt`: the file must be left alone.
    pub(crate) fn was_committed(&self, facts: &FileFacts) -> Result<bool> {
        self.catalog.was_committed(&facts.name.uuid)
    }

    /// What the catalog knows of a file.
    ///
    /// # Errors
    ///
    /// `Io`, `Corrupt`.
    pub(crate) fn known(&self, uuid: &Id) -> Result<Option<MissingSegment>> {
        Ok(self.catalog.cached(uuid)?.as_ref().map(MissingSegment::from))
    }

    /// Copies the catalog into the directory `to`, which has none.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, `Locked`.
    pub(crate) fn back_up(&self, fs: &dyn FileSystem, to: &Path) -> Result<()> {
        self.catalog.back_up(fs, to)
    }

    /// Logs that files are to be deleted, deletes them, and logs what came of it.
    ///
    /// # Errors
    ///
    /// As `delete`, and those of the catalog.
    pub(crate) fn delete(
        &mut self,
        root: &StoreRoot,
        reason: &str,
        files: &[&FileFacts],
        delete: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let what = Planned {
            kind: "delete",
            what: reason.to_owned(),
            rows: files.iter().filter_map(|facts| facts.segment()).map(Segment::rows).sum(),
            bytes: files.iter().filter_map(|facts| facts.segment()).map(Segment::bytes).sum(),
            deletes: files.iter().map(|facts| facts.name.uuid).collect(),
        };
        self.logged(root, what, delete)
    }

    /// Logs what is about to be done, does it, and logs what came of it.
    ///
    /// # Errors
    ///
    /// As `work`, and those of the catalog.
    pub(crate) fn logged<T>(
        &mut self,
        root: &StoreRoot,
        planned: Planned,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Planned { kind, what, rows, bytes, deletes } = planned;
        let started = root.now();
        let intent = Intent { kind, started, what, rows, bytes, deletes };
        let job = self.catalog.log_intent(&intent)?;
        let result = work();
        let outcome = match &result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        let finished = root.now();
        self.catalog.log_done(job, &Outcome { finished, outcome, rows, bytes })?;
        result
    }

    /// Makes the catalog say what the directories say, and reports files that are gone
    /// without a reason.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, `Locked`, `Corrupt`: it is made right next time.
    pub(crate) fn reconcile(&mut self, root: &StoreRoot, lister: &Lister) -> Result<Counted> {
        self.reconcile_with(root, lister, &HashSet::new())
    }

    /// As `reconcile`, and enters the files `also`, which do not count now.
    fn reconcile_with(
        &mut self,
        root: &StoreRoot,
        lister: &Lister,
        also: &HashSet<Id>,
    ) -> Result<Counted> {
        let rules = self.rules(root)?;
        let listed = lister.files()?;
        let counts = |facts: &&FileFacts| facts.is_committed || also.contains(&facts.name.uuid);
        let files: Vec<SegmentFacts> = listed.iter().filter(counts).filter_map(facts_of).collect();
        let mut found = self.catalog.reconcile(&files, &rules, &|new| make_durable(root, new))?;
        // What a file was made of may be there yet, and counts again: then nothing is lost.
        let made_again = |gone: &MissingSegment| {
            !listed.iter().any(|facts| facts.name.uuid == gone.uuid)
                && lister.still_missing(std::slice::from_ref(gone)).is_empty()
        };
        // What was committed and not flushed, a power cut may take, and leave the file.
        let is_emptied = |gone: &MissingSegment| {
            let file = listed.iter().find(|facts| facts.name.uuid == gone.uuid);
            let file = file.filter(|_| gone.durable_rows() == 0);
            file.is_some_and(|facts| match &facts.content {
                Content::Active(segment) => segment.is_emptied(),
                _ => false,
            })
        };
        let emptied = found.missing.iter().filter(|gone| is_emptied(gone));
        self.notes.extend(emptied.map(|gone| emptied_note(gone.uuid, gone.rows)));
        let is_no_loss = |gone: &MissingSegment| is_emptied(gone) || made_again(gone);
        let no_loss: Vec<Id> =
            found.missing.iter().filter(|gone| is_no_loss(gone)).map(|gone| gone.uuid).collect();
        if !no_loss.is_empty() {
            self.catalog.forget_missing(&no_loss)?;
            found.missing.retain(|gone| !no_loss.contains(&gone.uuid));
        }
        for missing in &found.missing {
            let kept = listed.iter().find(|facts| facts.name.uuid == missing.uuid);
            let orphaned = kept.and_then(orphan_note);
            let note = orphaned.unwrap_or_else(|| missing_note(missing));
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        lister.learn_missing(&found.missing);
        self.missing = found.missing;
        Ok(Counted { segments: files.len() as u64, rows: files.iter().map(|file| file.rows).sum() })
    }

    /// Sets the rules in `retention.json` first, in the catalog second; durable on return.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, `Locked`: if only the file has them, the longer of both hold.
    pub(crate) fn set_rules(&mut self, root: &StoreRoot, rules: &RetentionRules) -> Result<()> {
        retention::write_retention(root.fs.as_ref(), &root.dir, rules)?;
        self.catalog.set_retention(rules)
    }

    /// The rules in force. Where the mirror and the catalog differ, the longer of each tier
    /// holds and is written to both.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, `Corrupt`: nothing may be expired.
    pub(crate) fn rules(&mut self, root: &StoreRoot) -> Result<RetentionRules> {
        let fs = root.fs.as_ref();
        let read = retention::read_retention(fs, &root.dir);
        let file = read.as_ref().ok().cloned();
        let cataloged = self.catalog.retention()?;
        let effective = retention::effective_rules(read, cataloged.as_ref())?;
        // A file that has grown longer than the catalog's copy is just newer.
        let newer = file.is_some_and(|file| file.same_rules(&effective.rules));
        if matches!(effective.source, RulesSource::Merged) && !newer {
            self.notes.push(
                "retention.json and the catalog differ: the longer of each tier holds".to_owned(),
            );
            retention::write_retention(fs, &root.dir, &effective.rules)?;
        }
        Ok(effective.rules)
    }
}

/// What is in the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Segments.
    pub(crate) segments: u64,
    /// Rows in them, those of replaced files included.
    pub(crate) rows: u64,
}

/// Syncs the directories of files that are new to the catalog. Whoever made them may not have
/// got that far yet; the catalog's own sync would come first, and after a power cut it would
/// miss a file that was never durable.
fn make_durable(root: &StoreRoot, new: &[&SegmentFacts]) -> Result<()> {
    let fs = root.fs.as_ref();
    let places: BTreeSet<_> = new.iter().map(|facts| (facts.table, facts.partition)).collect();
    for (table, partition) in places {
        fs.sync_dir(&partition_dir(&root.dir, table, partition))?;
    }
    if new.iter().any(|facts| facts.txn.is_some()) {
        match fs.sync_dir(&root.dir.join(txn::DIR)) {
            // With all records of imports: files of theirs are kept as they are.
            Err(error) if error.is_not_found() => {}
            done => done?,
        }
    }
    Ok(())
}

/// What is to be said of a file that is gone for no reason.
pub(crate) fn missing_note(missing: &MissingSegment) -> String {
    format!(
        "{} of {} {} is gone: {} rows from {} to {}",
        missing.kind.file_name(missing.uuid),
        missing.table,
        missing.partition,
        missing.rows,
        Timestamp::clamped(missing.min_ts),
        Timestamp::clamped(missing.max_ts)
    )
}

/// What is to be said of an active segment without rows of which the catalog knows some.
pub(crate) fn emptied_note(uuid: Id, rows: u64) -> String {
    let file = FileKind::Active.file_name(uuid);
    format!("{file}: nothing is left of {rows} rows that were committed, and not flushed")
}

/// What is to be said of a file that counted once and does not now, because the record of its
/// import is gone; `None` of any other.
pub(crate) fn orphan_note(facts: &FileFacts) -> Option<String> {
    let txn = facts.header.as_ref()?.txn.filter(|_| !facts.is_committed && !facts.is_replaced)?;
    Some(format!(
        "{}: txn/{txn} is gone, although that import was committed: {} rows do not count until \
         it is back; the file is kept",
        facts.relative(),
        facts.segment().map_or(0, Segment::rows)
    ))
}

/// Enters what has just been committed, unless another process is doing maintenance, which
/// will do so: from then on the loss of `txn/<id>` is told from an import that never was.
///
/// # Errors
///
/// As [`Books::open`] and [`Books::reconcile`]: a later maintenance makes it right.
pub(crate) fn remember(root: &StoreRoot, lister: &Lister) -> Result<()> {
    let Some(lock) = try_maintenance_lock(root.fs.as_ref(), &root.dir)? else { return Ok(()) };
    Books::open(root, &lock)?.reconcile(root, lister).map(|_| ())
}

/// What the catalog keeps of a file; nothing of one that is unreadable or empty.
pub(crate) fn facts_of(facts: &FileFacts) -> Option<SegmentFacts> {
    if let Content::Tombstone(tombstone) = &facts.content {
        return Some(facts_of_tombstone(facts, tombstone));
    }
    let segment = facts.segment().filter(|segment| segment.rows() > 0)?;
    let header = facts.header.as_ref()?;
    let (min_ts, max_ts) = segment.stamps()?;
    let FileName { uuid, kind } = facts.name;
    Some(SegmentFacts {
        uuid,
        table: facts.table,
        partition: facts.partition,
        kind: kind.tag(),
        rows: segment.rows(),
        bytes: segment.bytes(),
        min_ts,
        max_ts,
        created: header.created,
        txn: header.txn,
        replaces: header.replaces.clone(),
        summary: match &facts.content {
            Content::Sealed(segment) => segment.summary_bytes().unwrap_or_default(),
            Content::Active(segment) => segment.durable_rows().to_le_bytes().to_vec(),
            Content::Tombstone(_) | Content::Bad(_) => Vec::new(),
        },
    })
}

/// A tombstone has no rows: with it none is lost.
fn facts_of_tombstone(facts: &FileFacts, tombstone: &Tombstone) -> SegmentFacts {
    let header = tombstone.header();
    let (min_ts, max_ts) = tombstone.stamps().unwrap_or((0, 0));
    SegmentFacts {
        uuid: header.uuid,
        table: facts.table,
        partition: facts.partition,
        kind: header.kind.tag(),
        rows: 0,
        bytes: tombstone.bytes(),
        min_ts,
        max_ts,
        created: header.created,
        txn: header.txn,
        replaces: header.replaces.clone(),
        summary: tombstone.summary_bytes().unwrap_or_default(),
    }
}

/// Builds the catalog anew from the files, whatever its state.
///
/// # Errors
///
/// `Locked` when the maintenance lock is not to be had in `patience`; `Io`, `NoSpace`.
pub(crate) fn rebuild(
    root: &StoreRoot,
    lister: &Lister,
    patience: Duration,
) -> Result<CatalogReport> {
    let _lock = super::wait_for_lock(root, patience)?;
    // What only the old catalog knows: that files whose record is gone were committed.
    let old = catalog::open_reader(root.fs.as_ref(), &root.dir, &root.id);
    let orphans: HashSet<Id> = lister
        .files()?
        .iter()
        .filter(|facts| orphan_note(facts).is_some())
        .map(|facts| facts.name.uuid)
        .filter(|uuid| old.as_ref().is_some_and(|old| old.was_committed(uuid)))
        .collect();
    drop(old);
    let (catalog, state) = catalog::rebuild(root.fs.as_ref(), &root.dir, &root.id)?;
    let set_aside = match state {
        CatalogState::Rebuilt { set_aside, .. } => set_aside,
        CatalogState::Fresh | CatalogState::Good => None,
    };
    let mut books = Books { rebuilt: true, ..Books::of(catalog) };
    let counted = books.reconcile_with(root, lister, &orphans)?;
    Ok(CatalogReport { segments: counted.segments, rows: counted.rows, set_aside })
}
