//! Verifying: every checksum of every file, and on demand every summary.
//!
//! Owns what is wrong with each file: which block, column, rows and range of time. It goes by
//! the files alone: a header or a footer that the catalog remembers is read all the same.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::time::Duration;

use crate::catalog::{self, MissingSegment, ReaderCatalog, open_reader};
use crate::error::Result;
use crate::format::id::{FileKind, Id};
use crate::maintain::reconcile::orphan_note;
use crate::report::{VerifyProblem, VerifyReport};
use crate::segment::files::StoreRoot;
use crate::segment::tombstone::Tombstone;
use crate::segment::{Segment, SegmentDamage};
use crate::snapshot::FileDamage;
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::{alerts, identity, maintenance, retention, txn};
use crate::time::{TimeRange, Timestamp};

/// Times that the catalog is asked for what should be there, and the time between.
const ASKED_MAX: usize = 4;
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// Checks every file of the store.
///
/// # Errors
///
/// `Io` when a directory or a file cannot be read.
pub(crate) fn verify(root: &StoreRoot, lister: &Lister, deep: bool) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    small_files(root, &mut report)?;
    // What the catalog remembers of headers and footers would hide damage to them.
    let fresh = Lister::without_catalog(root.clone());
    let catalog =
        lister.asks_catalog().then(|| open_reader(root.fs.as_ref(), &root.dir, &root.id)).flatten();
    let expected = || catalog.as_ref().and_then(expected).unwrap_or_default();
    // What came before the files were listed, and is still expected afterwards, should be there.
    let before: HashSet<Id> = expected().into_iter().map(|file| file.uuid).collect();
    let files = fresh.files()?;
    if lister.asks_catalog()
        && let Some(why) = catalog::damage(root.fs.as_ref(), &root.dir, &root.id)
    {
        report.add("catalog.sqlite", format!("{why}; it is made anew from the files"));
    }
    // After the files were listed: an import that is being undone has its intents in the catalog by
    // then. Once, and only where it matters, as it may have to wait.
    let known: LazyCell<HashSet<Id>, _> =
        LazyCell::new(|| expected().into_iter().map(|file| file.uuid).collect());
    for facts in files {
        report.files += 1;
        // A replaced file has done its duty: damage to it loses nothing.
        let matters = facts.counts();
        if let Some(segment) = facts.segment() {
            report.bytes += segment.bytes();
            report.rows += if matters { segment.rows() } else { 0 };
        }
        for damage in damage_of(root, &facts, deep)? {
            report.problems.push(problem(&facts, &damage, matters));
        }
        // An import that is being undone loses its record first and its files then.
        if let Some(note) = orphan_note(&facts)
            && known.contains(&facts.name.uuid)
            && root.fs.metadata(&facts.path).is_ok()
        {
            let segment = facts.segment();
            let lost = SegmentDamage {
                rows: segment.map(Segment::rows),
                stamps: segment.and_then(Segment::stamps),
                ..SegmentDamage::unknown(note)
            };
            report.problems.push(problem(&facts, &lost, true));
        }
    }
    let mut missing = expected();
    missing.retain(|file| before.contains(&file.uuid));
    for gone in fresh.still_missing(&missing) {
        // Orphans have been named beside their files.
        let FileDamage { file, range, damage, .. } = gone.damage;
        if !gone.is_there {
            report.problems.push(problem_of(&file, range, None, &damage, true));
        }
    }
    Ok(report)
}

/// What the catalog expects to be there. While maintenance is at work that cannot be told.
fn expected(catalog: &ReaderCatalog<'_>) -> Option<Vec<MissingSegment>> {
    (0..ASKED_MAX).find_map(|time| {
        if time > 0 {
            std::thread::sleep(ASKED_EVERY);
        }
        catalog.expected()
    })
}

fn small_files(root: &StoreRoot, report: &mut VerifyReport) -> Result<()> {
    let (fs, dir) = (root.fs.as_ref(), root.dir.as_path());
    if let Err(error) = identity::read_store_file(fs, dir) {
        report.add("store.json", error.to_string());
    }
    if let Err(error) = retention::read_retention(fs, dir) {
        report.add("retention.json", format!("{error}; everything is kept"));
    }
    if let Err(error) = alerts::read(fs, dir) {
        report.add("alerts.json", format!("{error}; alerts begin anew"));
    }
    if let Some(why) = maintenance::damaged_mark(fs, dir) {
        report.add(maintenance::NAME, why.to_owned());
    }
    for (id, error) in txn::list_committed(fs, dir)?.damaged {
        report.add(&format!("txn/{id}"), error.to_string());
    }
    Ok(())
}

/// What is wrong with a file.
///
/// # Errors
///
/// `Io` when it cannot be read.
pub(super) fn damage_of(
    root: &StoreRoot,
    facts: &FileFacts,
    deep: bool,
) -> Result<Vec<SegmentDamage>> {
    match &facts.content {
        Content::Bad(damage) => Ok(vec![damage.damage.clone()]),
        Content::Active(segment) => segment.verify(),
        Content::Sealed(segment) => segment.verify(deep),
        Content::Tombstone(_) => {
            let problems = Tombstone::problems(root.fs.as_ref(), &facts.path)?;
            Ok(problems.into_iter().map(SegmentDamage::harmless).collect())
        }
    }
}

fn problem(facts: &FileFacts, damage: &SegmentDamage, matters: bool) -> VerifyProblem {
    problem_of(&facts.relative(), facts.partition.range(), Some(facts), damage, matters)
}

/// Damage as a person is told of it. Rows that may be anywhere may be in all of `range`.
fn problem_of(
    file: &str,
    range: TimeRange,
    facts: Option<&FileFacts>,
    damage: &SegmentDamage,
    matters: bool,
) -> VerifyProblem {
    let loses_rows = matters && damage.loses_rows();
    let stamps = match damage.stamps {
        None if loses_rows => Some((range.start, range.end - 1)),
        stamps => stamps,
    };
    let columns = facts.map(|facts| facts.table.schema().columns);
    let column = damage.column.and_then(|column| columns?.get(column));
    let is_active = facts.is_some_and(|facts| facts.name.kind == FileKind::Active);
    VerifyProblem {
        file: file.to_owned(),
        block: damage.block.filter(|_| !is_active),
        frame: damage.block.filter(|_| is_active),
        column: column.map(|column| column.name),
        rows: if loses_rows { damage.rows } else { Some(0) },
        from: stamps.map(|(min, _)| Timestamp::clamped(min)),
        to: stamps.map(|(_, max)| Timestamp::clamped(max)),
        message: damage.reason.clone(),
        loses_rows,
    }
}
