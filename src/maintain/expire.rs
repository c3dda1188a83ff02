//! Expiry: a partition's files give way to tombstones (spec 6.8, 8.3).
//!
//! Owns the order of the steps: list what counts, take the lock of each active, list again,
//! log the intent, write tombstones that replace exactly what was listed. The files go later,
//! when they are swept. A file that is not named is additive: it has rows that came late, and
//! the next pass folds it in.

use std::collections::HashSet;
use std::sync::Arc;

use crate::catalog::MissingSegment;
use crate::error::{ErrorKind, Result};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::format::layout::FRAMES_OFFSET;
use crate::fs::File;
use crate::limits::REPLACES_MAX;
use crate::maintain::reconcile::{Books, Planned};
use crate::schema::Table;
use crate::segment::files::StoreRoot;
use crate::segment::tombstone::{StandsFor, write_tombstone};
use crate::segment::{Segment, SegmentDamage};
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::generation;
use crate::time::Partition;

/// What of a partition has expired, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    /// Files with rows, the damaged ones included.
    pub(crate) files: u64,
    /// Those of them that were damaged, so that nobody knows how many rows they had.
    pub(crate) damaged_files: u64,
    /// Rows of the others.
    pub(crate) rows: u64,
    /// Bytes of all of them.
    pub(crate) bytes: u64,
    /// Earliest and latest stamp of the rows.
    pub(crate) stamps: Option<(i64, i64)>,
}

/// What came of expiring a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was there, or only a tombstone.
    Nothing,
    /// Nothing has changed, for this reason.
    Postponed(String),
    /// It has expired.
    Expired(Expired),
}

/// Which partition is to expire, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doomed<'a> {
    pub(crate) table: Table,
    pub(crate) partition: Partition,
    /// For the log, with the cutoff where there is one.
    pub(crate) reason: &'a str,
    /// Only look what there is to do.
    pub(crate) dry_run: bool,
}

/// Lets a partition expire. The caller holds the maintenance lock, and has reconciled.
///
/// # Errors
///
/// `Io`, `NoSpace`: what was not done is done by the next pass.
pub(crate) fn expire(
    root: &StoreRoot,
    lister: &Lister,
    books: &mut Books,
    doomed: Doomed<'_>,
) -> Result<Outcome> {
    let Doomed { table, partition, .. } = doomed;
    let mut locks = Locks::default();
    for facts in live_files(lister, table, partition)? {
        if let Err(held) = locks.take(root, &facts)? {
            return Ok(Outcome::Postponed(held));
        }
    }
    // An owner may have sealed its file, and let go of the lock, since the files were listed;
    // and a new writer may have come.
    let files = live_files(lister, table, partition)?;
    if let Some(new) = files.iter().find(|facts| !locks.covers(facts)) {
        let file = new.relative();
        return Ok(Outcome::Postponed(format!("{file}: it came while the others were listed")));
    }
    let missing: Vec<Id> = books
        .missing
        .iter()
        .filter(|it: &&MissingSegment| (it.table, it.partition) == (table, partition))
        .map(|it| it.uuid)
        .collect();
    let plan = Plan::new(root, files, &missing, &mut books.notes);
    if plan.is_nothing() {
        return Ok(Outcome::Nothing);
    }
    if !doomed.dry_run {
        carry_out(root, books, doomed, &plan)?;
    }
    Ok(Outcome::Expired(plan.expired))
}

fn live_files(lister: &Lister, table: Table, partition: Partition) -> Result<Vec<FileFacts>> {
    let mut files = lister.files()?;
    files.retain(|facts| (facts.table, facts.partition) == (table, partition) && facts.counts());
    Ok(files)
}

/// The locks of active segments, let go when dropped.
#[derive(Debug, Default)]
struct Locks {
    held: Vec<Arc<dyn File>>,
    of: HashSet<Id>,
}

impl Locks {
    /// Takes the lock of an active; of other files there is none. The inner error says who
    /// has it.
    fn take(&mut self, root: &StoreRoot, facts: &FileFacts) -> Result<Result<(), String>> {
        if facts.name.kind != FileKind::Active {
            return Ok(Ok(()));
        }
        let file = match root.fs.open_write(&facts.path) {
            Ok(file) => file,
            // Gone: the second listing shows what has become of it.
            Err(error) if error.is_not_found() => return Ok(Ok(())),
            Err(error) => return Err(error),
        };
        if !file.try_lock()? {
            return Ok(Err(format!("{}: a process is writing to it", facts.relative())));
        }
        match root.fs.metadata(&facts.path) {
            Ok(found) if found.inode == file.inode()? => {
                self.of.insert(facts.name.uuid);
                self.held.push(file);
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(Ok(()))
    }

    /// Whether nobody can add rows to the file.
    fn covers(&self, facts: &FileFacts) -> bool {
        facts.name.kind != FileKind::Active || self.of.contains(&facts.name.uuid)
    }
}

/// One file, or part of what a file stands for, on its way into a tombstone.
#[derive(Clone, Copy, Debug)]
struct Input {
    uuid: Id,
    is_tombstone: bool,
    rows: u64,
    stamps: Option<(i64, i64)>,
}

/// What is to be replaced.
#[derive(Debug, Default)]
struct Plan {
    sound: Vec<Input>,
    /// Under tombstones of their own, which have no rows.
    damaged: Vec<Input>,
    expired: Expired,
}

impl Plan {
    fn new(
        root: &StoreRoot,
        files: Vec<FileFacts>,
        missing: &[Id],
        notes: &mut Vec<String>,
    ) -> Self {
        let mut plan = Self::default();
        for facts in files {
            let uuid = facts.name.uuid;
            let (input, bytes, is_damaged) = match &facts.content {
                Content::Tombstone(tombstone) => {
                    let (rows, stamps) = (tombstone.rows(), tombstone.stamps());
                    let input = Input { uuid, is_tombstone: true, rows, stamps };
                    // One whose footer is damaged says as little as one of damaged files.
                    let group = if rows > 0 { &mut plan.sound } else { &mut plan.damaged };
                    group.push(input);
                    continue;
                }
                Content::Bad(damage) => {
                    if is_foreign(root, &facts) {
                        let reason = &damage.damage.reason;
                        notes.push(format!("{}: {reason}; it is left alone", facts.relative()));
                        continue;
                    }
                    let bytes = root.fs.metadata(&facts.path).map_or(0, |found| found.len);
                    (Input { uuid, is_tombstone: false, rows: 0, stamps: None }, bytes, true)
                }
                Content::Active(segment) => input_of(uuid, segment.as_ref()),
                Content::Sealed(segment) => input_of(uuid, segment.as_ref()),
            };
            plan.expired.files += 1;
            plan.expired.bytes += bytes;
            if is_damaged {
                plan.expired.damaged_files += 1;
                plan.damaged.push(Input { rows: 0, stamps: None, ..input });
            } else {
                plan.expired.rows += input.rows;
                plan.expired.stamps = joined(plan.expired.stamps, input.stamps);
                plan.sound.push(input);
            }
        }
        let lost = |uuid: &Id| Input { uuid: *uuid, is_tombstone: false, rows: 0, stamps: None };
        plan.damaged.extend(missing.iter().map(lost));
        plan
    }

    fn groups(&self) -> impl Iterator<Item = &Vec<Input>> {
        [&self.sound, &self.damaged].into_iter().filter(|group| !is_settled(group))
    }

    fn is_nothing(&self) -> bool {
        self.groups().next().is_none()
    }
}

/// Whether a group is what it would be made: nothing, or one tombstone.
fn is_settled(group: &[Input]) -> bool {
    match group {
        [] => true,
        [one] => one.is_tombstone,
        _ => false,
    }
}

fn input_of(uuid: Id, segment: &dyn Segment) -> (Input, u64, bool) {
    let loses_rows = |damage: &SegmentDamage| damage.rows != Some(0);
    let (rows, stamps) = (segment.rows(), segment.stamps());
    let input = Input { uuid, is_tombstone: false, rows, stamps };
    (input, segment.bytes(), segment.damage().iter().any(loses_rows))
}

/// Whether a file that cannot be used is another's, or of a later release, as against damaged:
/// then it may be anything, and is not for us to delete.
fn is_foreign(root: &StoreRoot, facts: &FileFacts) -> bool {
    let mut head = vec![0; FRAMES_OFFSET];
    let read = root.fs.open(&facts.path).and_then(|file| file.read_at(&mut head, 0));
    let decoded = read.and_then(|len| Header::decode(head.get(..len).unwrap_or_default()));
    match decoded {
        Ok(copies) => {
            let header = copies.header;
            (header.store_id, header.known_table(), header.partition)
                != (root.id, Some(facts.table), facts.partition)
                || (header.uuid, header.kind) != (facts.name.uuid, facts.name.kind)
        }
        Err(error) => {
            matches!(error.kind(), ErrorKind::NotOurFile | ErrorKind::UnsupportedVersion)
        }
    }
}

fn joined(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

fn carry_out(root: &StoreRoot, books: &mut Books, doomed: Doomed<'_>, plan: &Plan) -> Result<()> {
    let Doomed { table, partition, reason, .. } = doomed;
    let Expired { rows, bytes, damaged_files, .. } = plan.expired;
    let damaged = match damaged_files {
        0 => String::new(),
        count => format!(", {count} of the files damaged, gone"),
    };
    let planned = Planned {
        kind: "expire",
        what: format!("{table} {partition}: {reason}{damaged}"),
        rows,
        bytes,
        deletes: plan.groups().flatten().map(|input| input.uuid).collect(),
    };
    books.logged(root, planned, || {
        for group in plan.groups() {
            for round in group.chunks(REPLACES_MAX) {
                write_tombstone(root, table, partition, &stands_for(round))?;
                generation::bump(root.fs.as_ref(), &root.dir)?;
            }
        }
        Ok(())
    })
}

fn stands_for(inputs: &[Input]) -> StandsFor {
    StandsFor {
        replaces: inputs.iter().map(|input| input.uuid).collect(),
        rows: inputs.iter().fold(0, |rows, input| rows.saturating_add(input.rows)),
        stamps: inputs.iter().fold(None, |stamps, input| joined(stamps, input.stamps)),
    }
}
