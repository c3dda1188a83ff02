//! Cold partitions: their segments become archives, and later rollups.
//!
//! Owns which files of a partition go into an archive or a rollup. A file that is not named
//! in what is written stays and counts beside it: rows that come late are folded in by the
//! next pass. A damaged file stays as it is until it is repaired.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::format::id::FileKind;
use crate::limits::REPLACES_MAX;
use crate::maintain::merge::{groups, is_young, unreadable};
use crate::schema::Table;
use crate::segment::files::{StoreRoot, archive, roll_up};
use crate::segment::sealed::SealedSegment;
use crate::segment::{Segment, Tier};
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::generation;
use crate::time::Partition;

/// What became of the files of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Files that went in.
    pub(crate) inputs: u64,
    /// Files that stand for them.
    pub(crate) outputs: u64,
    /// Rows of them.
    pub(crate) rows: u64,
    /// Bytes of the files that went in.
    pub(crate) bytes_before: u64,
    /// Bytes of the files that stand for them.
    pub(crate) bytes_after: u64,
    /// Earliest and latest stamp of the rows.
    pub(crate) stamps: Option<(i64, i64)>,
    /// One line per file that could not go in.
    pub(crate) notes: Vec<String>,
}

/// The files of a partition that can go in, and notes of those that cannot.
struct Inputs {
    files: Vec<(FileKind, Arc<SealedSegment>)>,
    notes: Vec<String>,
}

impl Inputs {
    fn of(
        root: &StoreRoot,
        lister: &Lister,
        place: (Table, Partition),
        kinds: &[FileKind],
    ) -> Result<Self> {
        let files = lister.files()?;
        let mut inputs = Self { files: Vec::new(), notes: Vec::new() };
        if unreadable(&files).contains(&place) {
            // It may replace any other, whose rows would then count twice.
            inputs.notes.push(format!(
                "{} {}: a file whose header cannot be read",
                place.0.name(),
                place.1
            ));
            return Ok(inputs);
        }
        let counts = |facts: &&FileFacts| (facts.table, facts.partition) == place && facts.counts();
        for facts in files.iter().filter(counts) {
            let Content::Sealed(segment) = &facts.content else { continue };
            if !kinds.contains(&facts.name.kind) || is_young(root, facts) {
                continue;
            }
            match segment.damage().first() {
                Some(damage) => {
                    inputs.notes.push(format!("{}: {}", facts.relative(), damage.reason));
                }
                None => inputs.files.push((facts.name.kind, Arc::clone(segment))),
            }
        }
        Ok(inputs)
    }
}

/// What archiving a partition would take, or has taken, as files of [`FileKind::Archive`].
/// `dry_run`: writes nothing. The caller holds the maintenance lock.
///
/// # Errors
///
/// `Io`, `NoSpace`: what is not archived stays as it is.
pub(crate) fn compact(
    root: &StoreRoot,
    lister: &Lister,
    (table, partition): (Table, Partition),
    dry_run: bool,
) -> Result<Changed> {
    let kinds = [FileKind::Sealed, FileKind::Archive];
    let Inputs { mut files, notes } = Inputs::of(root, lister, (table, partition), &kinds)?;
    let mut changed = Changed { notes, ..Changed::default() };
    if files.iter().all(|(kind, _)| *kind == FileKind::Archive) {
        return Ok(changed);
    }
    // An archive that is large already is not written again for the sake of a few late rows.
    let large = root.options.roll_rows / 2;
    files.retain(|(kind, file)| *kind == FileKind::Sealed || file.rows() < large);
    files.sort_by_key(|(_, file)| file.rows());
    for group in groups(files, root.options.roll_rows, |(_, file)| file.rows()) {
        let inputs: Vec<_> = group.into_iter().map(|(_, file)| file).collect();
        changed.take(&inputs);
        if !dry_run {
            let done = archive(root, table, partition, &inputs);
            let Some(done) = changed.unless_corrupt(done, &inputs)? else { continue };
            changed.outputs += 1;
            changed.bytes_after += done.bytes;
            generation::bump(root.fs.as_ref(), &root.dir)?;
        }
    }
    Ok(changed)
}

/// What rolling a partition up to `tier` would take, or has taken. `dry_run`: writes
/// nothing. The caller holds the maintenance lock.
///
/// # Errors
///
/// `Io`, `NoSpace`: what is not rolled up stays as it is.
pub(crate) fn roll_up_to(
    root: &StoreRoot,
    lister: &Lister,
    (table, partition): (Table, Partition),
    tier: Tier,
    dry_run: bool,
) -> Result<Changed> {
    let (kinds, target) = match tier {
        Tier::Daily => (
            &[FileKind::Sealed, FileKind::Archive, FileKind::Hourly, FileKind::Daily][..],
            FileKind::Daily,
        ),
        _ => (&[FileKind::Sealed, FileKind::Archive, FileKind::Hourly][..], FileKind::Hourly),
    };
    let Inputs { files, notes } = Inputs::of(root, lister, (table, partition), kinds)?;
    let mut changed = Changed { notes, ..Changed::default() };
    if files.iter().all(|(kind, _)| *kind == target) && files.len() <= 1 {
        return Ok(changed);
    }
    let mut files: Vec<_> = files.into_iter().map(|(_, file)| file).collect();
    while !files.is_empty() {
        let rest = files.split_off(files.len().min(REPLACES_MAX));
        let inputs = std::mem::replace(&mut files, rest);
        changed.take(&inputs);
        if !dry_run {
            let done = roll_up(root, table, partition, &inputs, tier);
            let Some(done) = changed.unless_corrupt(done, &inputs)? else { continue };
            changed.outputs += 1;
            changed.bytes_after += done.bytes;
            generation::bump(root.fs.as_ref(), &root.dir)?;
        }
    }
    Ok(changed)
}

impl Changed {
    fn take(&mut self, inputs: &[Arc<SealedSegment>]) {
        self.inputs += inputs.len() as u64;
        self.rows += inputs.iter().map(|input| input.rows()).sum::<u64>();
        self.bytes_before += inputs.iter().map(|input| input.bytes()).sum::<u64>();
        let stamps = inputs.iter().filter_map(|input| input.stamps()).chain(self.stamps);
        self.stamps = stamps.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    }

    /// Damage that shows only when a file is read keeps its group as it is.
    fn unless_corrupt<T>(
        &mut self,
        done: Result<T>,
        inputs: &[Arc<SealedSegment>],
    ) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn) => {
                let names = inputs.iter().map(|input| input.file()).collect::<Vec<_>>();
                self.notes.push(format!("{error}; left as they are: {}", names.join(", ")));
                self.inputs -= inputs.len() as u64;
                self.rows -= inputs.iter().map(|input| input.rows()).sum::<u64>();
                self.bytes_before -= inputs.iter().map(|input| input.bytes()).sum::<u64>();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
