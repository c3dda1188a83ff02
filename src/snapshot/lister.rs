//! Finding the segments of a store, from any process, without a catalog.
//!
//! Owns `Lister`: what this process knows of the directories, kept up to date cheaply. A
//! moved `generation` or an old listing makes it look again; in between, only the ends of
//! active segments are followed. It writes nothing and takes no lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::catalog::{CachedSegment, MissingSegment, open_reader};
use crate::config::ReadMode;
use crate::error::{Error, ErrorKind, Result};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::planted::{Bug, is_planted};
use crate::schema::Table;
use crate::segment::active::{ActiveSegment, ActiveTail};
use crate::segment::files::{
    FileName, StoreRoot, partition_dir, partitions, relative, segment_files,
};
use crate::segment::sealed::SealedSegment;
use crate::segment::tombstone::Tombstone;
use crate::segment::{Segment, SegmentDamage, Tier};
use crate::snapshot::{AnswerCache, FileDamage, Snapshot, View};
use crate::store_files::{generation, txn};
use crate::sync::Mutex;
use crate::time::Partition;

/// A listing older than this is made again, whatever `generation` says.
const LISTING_AGE_MAX: Duration = Duration::from_secs(1);
/// A directory changed this shortly before `generation` moved may have changed again since it
/// was listed without its modification time showing it.
const MTIME_STEP_NS: i64 = 2_000_000_000;
/// Sets of segments whose merged keys are kept, each by one dimension.
const MERGED_MAX: usize = 8;
/// Times that a listing is begun again when files come and go under it.
const ATTEMPTS: usize = 20;

/// What this process knows of a store's files.
#[derive(Debug)]
pub(crate) struct Lister {
    root: StoreRoot,
    cache: Arc<AnswerCache>,
    merged: Arc<AnswerCache>,
    asks_catalog: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    listed: Option<Duration>,
    directories: BTreeMap<(Table, Partition), Directory>,
    txns: BTreeSet<Id>,
    /// Whether a file could not be read for a reason that may have passed.
    is_incomplete: bool,
    /// Headers and footers that the catalog remembers, until the first listing is done.
    cached: HashMap<Id, CachedSegment>,
    /// Files that were there once, and that the last listing did not find.
    unseen: HashSet<Id>,
    /// Whether the record of an import was gone when the catalog could not be asked.
    is_record_gone: bool,
    /// Files that the catalog knows and that are gone for no reason.
    missing: Vec<MissingSegment>,
    view: Option<Arc<View>>,
}

#[derive(Debug, Default)]
struct Directory {
    modified: i64,
    /// Whether a later change is certain to show in `modified`: when the directory was listed,
    /// the clock that the file system stamps with was well past it. That clock is read off
    /// `generation`, which every change of a file moves afterwards; the clock in the options
    /// may be any, and one ahead would hide changes. If nothing has moved it since the
    /// directory's own change, the directory is listed again, which costs time only.
    settled: bool,
    files: BTreeMap<FileName, Opened>,
}

impl Directory {
    fn is_incomplete(&self) -> bool {
        self.files.values().any(|opened| matches!(opened, Opened::Unread(_)))
    }

    /// Whether a file was found gone that was there when the directory was listed.
    fn is_outdated(&self) -> bool {
        self.files.values().any(Opened::is_gone)
    }
}

#[derive(Debug)]
enum Opened {
    Sealed(Arc<SealedSegment>),
    Active(Box<ActiveTail>),
    Tombstone(Arc<Tombstone>),
    Bad(FileDamage),
    /// As `Bad`, but the system failed, not the bytes: it is tried again each time.
    Unread(FileDamage),
}

impl Opened {
    fn header(&self) -> Option<&Header> {
        match self {
            Self::Sealed(segment) => Some(segment.header()),
            Self::Active(tail) => Some(tail.header()),
            Self::Tombstone(tombstone) => Some(tombstone.header()),
            Self::Bad(_) | Self::Unread(_) => None,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self, Self::Sealed(segment) if segment.is_gone())
    }

    /// Whether it is an active segment without rows, and without damage that would explain that.
    fn is_emptied(&self) -> bool {
        matches!(self, Self::Active(tail) if tail.view().is_emptied())
    }
}

impl Lister {
    /// A lister that knows nothing yet.
    pub(crate) fn new(root: StoreRoot) -> Self {
        let cache = Arc::new(AnswerCache::new(root.options.result_cache));
        let merged = Arc::new(AnswerCache::new(MERGED_MAX));
        Self { root, cache, merged, asks_catalog: true, state: Mutex::default() }
    }

    /// A lister that goes by the files alone.
    pub(crate) fn without_catalog(root: StoreRoot) -> Self {
        Self { asks_catalog: false, ..Self::new(root) }
    }

    /// Whether it asks the catalog what it remembers.
    pub(crate) fn asks_catalog(&self) -> bool {
        self.asks_catalog
    }

    /// A fixed view of all that is committed.
    ///
    /// # Errors
    ///
    /// `Io` when a directory cannot be read. Damaged files do not fail it: the view says
    /// which they are.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.update(&mut state)?;
        let view = match &state.view {
            Some(view) => Arc::clone(view),
            None => {
                let view = Arc::new(self.view_of(&state));
                state.view = Some(Arc::clone(&view));
                view
            }
        };
        Ok(Snapshot::new(view))
    }

    fn update(&self, state: &mut State) -> Result<()> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let generation = generation::read(self.root.fs.as_ref(), &self.root.dir)?;
            let now = self.root.options.clock.elapsed();
            let fresh = state.listed.is_some_and(|at| now.saturating_sub(at) <= LISTING_AGE_MAX);
            let moved = generation.count != state.generation || state.listed.is_none();
            let fresh = fresh && !state.directories.values().any(Directory::is_outdated);
            if moved || !fresh || state.is_incomplete {
                match self.list(state, generation.moved, !fresh) {
                    Ok(true) => {
                        state.generation = generation.count;
                        state.listed = Some(now);
                    }
                    Ok(false) => continue,
                    Err(error) if error.is_not_found() => {
                        last = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            return self.follow(state);
        }
        Err(last.unwrap_or_else(|| {
            Error::new(
                ErrorKind::SnapshotGone,
                "the store's files change faster than they can be listed",
            )
        }))
    }

    /// Lists again; false if imports were committed or undone meanwhile.
    fn list(&self, state: &mut State, moved: i64, all: bool) -> Result<bool> {
        let fs = self.root.fs.as_ref();
        if state.listed.is_none() {
            self.ask_catalog(state);
        }
        // Put back only if nothing changed: what was taken in before an error counts, too.
        let view = state.view.take();
        let before = txn::list_ids(fs, &self.root.dir)?;
        let mut changed = before != state.txns;
        let mut there = HashSet::new();
        for table in Table::ALL {
            for partition in partitions(fs, &self.root.dir, table)? {
                there.insert((table, partition));
                let directory = state.directories.entry((table, partition)).or_default();
                let known = directory.settled && !all;
                let seen = (&mut state.cached, &mut state.unseen);
                changed |=
                    self.list_directory((table, partition), directory, known, moved, seen)?;
            }
        }
        state.is_incomplete = state.directories.values().any(Directory::is_incomplete);
        let known = state.directories.len();
        state.directories.retain(|key, directory| {
            let stays = there.contains(key);
            let gone = directory.files.keys().filter(|_| !stays);
            state.unseen.extend(gone.filter_map(vouched));
            stays
        });
        changed |= known != state.directories.len();
        if txn::list_ids(fs, &self.root.dir)? != before {
            return Ok(false);
        }
        let is_record_gone = state.listed.is_none() || !before.is_superset(&state.txns);
        state.txns = before;
        changed |= self.miss(state, is_record_gone);
        if !changed {
            state.view = view;
        }
        Ok(true)
    }

    fn list_directory(
        &self,
        (table, partition): (Table, Partition),
        directory: &mut Directory,
        settled: bool,
        moved: i64,
        (cached, unseen): (&mut HashMap<Id, CachedSegment>, &mut HashSet<Id>),
    ) -> Result<bool> {
        let fs = self.root.fs.as_ref();
        let dir = partition_dir(&self.root.dir, table, partition);
        let modified = match fs.metadata(&dir) {
            Ok(metadata) => metadata.modified,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        if settled && directory.modified == modified && !directory.is_incomplete() {
            return Ok(false);
        }
        let names = segment_files(fs, &dir)?;
        directory.settled = moved.saturating_sub(modified) > MTIME_STEP_NS;
        directory.modified = modified;
        let listed: BTreeSet<FileName> = names.iter().copied().collect();
        let known = directory.files.len();
        unseen.extend(
            directory.files.keys().filter(|name| !listed.contains(name)).filter_map(vouched),
        );
        // What could not be read is tried again: it may have been a passing fault.
        directory.files.retain(|name, opened| {
            listed.contains(name) && opened.header().is_some() && !opened.is_gone()
        });
        let mut changed = known != directory.files.len();
        for name in names {
            if is_planted(Bug::CatalogLeads)
                && !cached.is_empty()
                && !cached.contains_key(&name.uuid)
            {
                continue;
            }
            if let Entry::Vacant(entry) = directory.files.entry(name) {
                entry.insert(self.open(table, partition, &name, cached.remove(&name.uuid))?);
                changed = true;
            }
        }
        Ok(changed)
    }

    fn open(
        &self,
        table: Table,
        partition: Partition,
        name: &FileName,
        cached: Option<CachedSegment>,
    ) -> Result<Opened> {
        let path = partition_dir(&self.root.dir, table, partition).join(name.to_string());
        let relative = relative(table, partition, name);
        let opened = match name.kind {
            FileKind::Active => ActiveTail::open(&self.root.fs, &path, relative.clone())
                .map(|tail| match self.root.options.read_mode {
                    ReadMode::Untrusted => tail.distrust(),
                    ReadMode::Mapped | ReadMode::Copied => tail,
                })
                .map(Box::new)
                .map(Opened::Active),
            FileKind::Tombstone => {
                self.open_tombstone(&path, cached).map(Arc::new).map(Opened::Tombstone)
            }
            _ => self.open_sealed(&path, cached).map(Arc::new).map(Opened::Sealed),
        };
        let checked = opened
            .and_then(|opened| self.check_place(table, partition, name, &opened).map(|()| opened));
        match checked {
            Ok(opened) => Ok(opened),
            Err(error) if error.is_not_found() => Err(error),
            Err(error) => {
                let damage = SegmentDamage::unknown(error.to_string());
                let damage =
                    |kind| FileDamage { file: relative, range: partition.range(), damage, kind };
                Ok(match error.kind() {
                    ErrorKind::Io => Opened::Unread(damage(ErrorKind::Io)),
                    _ => Opened::Bad(damage(ErrorKind::Corrupt)),
                })
            }
        }
    }

    /// Opens a sealed segment, by what the catalog remembers of it where that is good.
    fn open_sealed(&self, path: &Path, cached: Option<CachedSegment>) -> Result<SealedSegment> {
        let (root, mode) = (&self.root, self.root.options.read_mode);
        let remembered = cached.filter(|cached| !cached.summary.is_empty()).and_then(|cached| {
            SealedSegment::from_summary(&root.fs, &root.dir, path, mode, None, &cached.summary).ok()
        });
        match remembered {
            Some(segment) => Ok(segment),
            None => SealedSegment::open(root.fs.as_ref(), &root.dir, path, mode, None),
        }
    }

    /// Opens a tombstone, by what the catalog remembers of it where that is good.
    fn open_tombstone(&self, path: &Path, cached: Option<CachedSegment>) -> Result<Tombstone> {
        let remembered = cached.and_then(|cached| Tombstone::from_summary(&cached.summary).ok());
        remembered.map_or_else(|| Tombstone::open(self.root.fs.as_ref(), path), Ok)
    }

    /// Asks the catalog what it remembers; without one, the files are asked.
    fn ask_catalog(&self, state: &mut State) {
        if !self.asks_catalog {
            return;
        }
        let Some(catalog) = open_reader(self.root.fs.as_ref(), &self.root.dir, &self.root.id)
        else {
            return;
        };
        state.cached = catalog.cached_all();
        state.missing = catalog.missing().unwrap_or_default();
    }

    /// Takes note of files that were there, by the catalog or an earlier listing, and are not
    /// any more, or do not count any more as their import has no record, though the catalog still
    /// expects them. Returns whether there are any.
    fn miss(&self, state: &mut State, is_record_gone: bool) -> bool {
        let is_record_gone = std::mem::take(&mut state.is_record_gone) || is_record_gone;
        let mut unseen = std::mem::take(&mut state.unseen);
        unseen.extend(std::mem::take(&mut state.cached).into_keys());
        if !self.asks_catalog || unseen.is_empty() && !is_record_gone {
            return false;
        }
        for directory in state.directories.values() {
            let replaced = replaced(directory, &state.txns);
            for uuid in directory.files.keys().map(|name| &name.uuid).chain(&replaced) {
                unseen.remove(uuid);
            }
            let uncounted = directory.files.iter().filter(|(_, it)| !counts(it, &state.txns));
            unseen.extend(uncounted.filter(|_| is_record_gone).map(|(name, _)| name.uuid));
        }
        state.missing.iter().for_each(|gone| _ = unseen.remove(&gone.uuid));
        if unseen.is_empty() {
            return false;
        }
        let catalog = open_reader(self.root.fs.as_ref(), &self.root.dir, &self.root.id);
        let Some(catalog) = catalog else { return false };
        let Some(mut gone) = catalog.expected() else {
            // Maintenance is at work: the next listing asks again.
            (state.unseen, state.is_record_gone) = (unseen, is_record_gone);
            return false;
        };
        gone.retain(|gone| unseen.contains(&gone.uuid));
        let found = !gone.is_empty();
        state.missing.append(&mut gone);
        found
    }

    /// A file counts only where its header says it belongs.
    fn check_place(
        &self,
        table: Table,
        partition: Partition,
        name: &FileName,
        opened: &Opened,
    ) -> Result<()> {
        let Some(header) = opened.header() else { return Ok(()) };
        let wrong = |what: &str| {
            Err(Error::new(ErrorKind::NotOurFile, format!("the header names another {what}")))
        };
        if header.store_id != self.root.id {
            return wrong("store");
        }
        if header.uuid != name.uuid || header.kind != name.kind {
            return wrong("file");
        }
        if header.known_table() != Some(table) || header.partition != partition {
            return wrong("table or partition");
        }
        Ok(())
    }

    /// Follows the ends of active segments.
    fn follow(&self, state: &mut State) -> Result<()> {
        let copied = self.root.options.read_mode != ReadMode::Mapped;
        let mut changed = false;
        let view = state.view.take();
        for directory in state.directories.values_mut() {
            for opened in directory.files.values_mut() {
                if let Opened::Active(tail) = opened {
                    let before = tail.view().key();
                    tail.refresh(copied)?;
                    changed |= tail.view().key() != before;
                }
            }
        }
        if !changed {
            state.view = view;
        }
        Ok(())
    }

    fn view_of(&self, state: &State) -> View {
        let mut view = View {
            cache: Some(Arc::clone(&self.cache)),
            merged: Some(Arc::clone(&self.merged)),
            ..View::default()
        };
        for gone in &state.missing {
            let damage = missing(state, gone).map(|missing| missing.damage);
            view.damage[gone.table.index()].extend(damage);
        }
        for ((table, partition), directory) in &state.directories {
            let replaced = replaced(directory, &state.txns);
            for (name, opened) in &directory.files {
                if replaced.contains(&name.uuid) || !counts(opened, &state.txns) {
                    continue;
                }
                match opened {
                    Opened::Sealed(segment) => {
                        let segment: Arc<dyn Segment> = Arc::<SealedSegment>::clone(segment);
                        let kept = match segment.tier() {
                            Tier::Rows => &mut view.segments,
                            Tier::Hourly | Tier::Daily => &mut view.rollups,
                        };
                        kept[table.index()].push(segment);
                    }
                    Opened::Active(tail) => {
                        let segment: Arc<dyn Segment> = Arc::<ActiveSegment>::clone(&tail.view());
                        view.segments[table.index()].push(segment);
                    }
                    // Rows that came later may lie beside it.
                    Opened::Tombstone(tombstone) => {
                        let (gone, range) = match tombstone.is_of_damage() {
                            true => (&mut view.damaged_gone[table.index()], tombstone.lost()),
                            false => (&mut view.gone[table.index()], partition.range()),
                        };
                        if gone.last() != Some(&range) {
                            gone.push(range);
                        }
                    }
                    Opened::Bad(damage) | Opened::Unread(damage) => {
                        view.damage[table.index()].push(damage.clone());
                    }
                }
            }
        }
        view
    }

    /// Every segment file there is, the replaced and the uncommitted ones included, by
    /// table, partition and name.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot).
    pub(crate) fn files(&self) -> Result<Vec<FileFacts>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.listed = None;
        self.update(&mut state)?;
        let mut facts = Vec::new();
        for ((table, partition), directory) in &state.directories {
            let replaced = replaced(directory, &state.txns);
            for (name, opened) in &directory.files {
                facts.push(FileFacts {
                    table: *table,
                    partition: *partition,
                    name: *name,
                    path: partition_dir(&self.root.dir, *table, *partition).join(name.to_string()),
                    is_replaced: replaced.contains(&name.uuid),
                    is_committed: counts(opened, &state.txns),
                    header: opened.header().cloned(),
                    content: match opened {
                        Opened::Sealed(segment) => Content::Sealed(Arc::clone(segment)),
                        Opened::Active(tail) => Content::Active(tail.view()),
                        Opened::Tombstone(tombstone) => Content::Tombstone(Arc::clone(tombstone)),
                        Opened::Bad(damage) | Opened::Unread(damage) => {
                            Content::Bad(damage.clone())
                        }
                    },
                });
            }
        }
        Ok(facts)
    }

    /// Those of the segments, which the catalog calls missing, of which the directories, as of
    /// the last listing, know no better.
    pub(crate) fn still_missing(&self, gone: &[MissingSegment]) -> Vec<Missing> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        gone.iter().filter_map(|gone| missing(&state, gone)).collect()
    }

    /// Takes note of what maintenance has found gone for no reason.
    pub(crate) fn learn_missing(&self, missing: &[MissingSegment]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known: HashSet<Id> = state.missing.iter().map(|gone| gone.uuid).collect();
        let news: Vec<_> = missing.iter().filter(|it| !known.contains(&it.uuid)).cloned().collect();
        if self.asks_catalog && !news.is_empty() {
            state.missing.extend(news);
            state.view = None;
        }
    }

    /// Most active segments, other than replaced ones, that a partition has.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot).
    pub(crate) fn most_actives(&self) -> Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.update(&mut state)?;
        let count = |directory: &Directory| {
            let replaced = replaced(directory, &state.txns);
            let names = directory.files.keys();
            let actives = names.filter(|name| name.kind == FileKind::Active);
            actives.filter(|name| !replaced.contains(&name.uuid)).count()
        };
        Ok(state.directories.values().map(count).max().unwrap_or(0))
    }

    /// The torn tails of active segments as of the last snapshot: file, bytes, whole frames.
    pub(crate) fn torn_tails(&self) -> Vec<(String, u64, u64)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let files = state.directories.values().flat_map(|directory| directory.files.values());
        files
            .filter_map(|opened| match opened {
                Opened::Active(tail) => {
                    tail.torn().map(|torn| (tail.view().file(), torn.bytes, torn.frames))
                }
                _ => None,
            })
            .collect()
    }
}

/// A file that the catalog knows and that does not count any more, for no reason.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    /// What is lost.
    pub(crate) damage: FileDamage,
    /// Whether the file is there: then it is the record of its import that is gone.
    pub(crate) is_there: bool,
}

/// What is known of one segment file.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    /// Its table.
    pub(crate) table: Table,
    /// Its day.
    pub(crate) partition: Partition,
    /// Its name.
    pub(crate) name: FileName,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whether a file of its partition replaces it.
    pub(crate) is_replaced: bool,
    /// Whether it belongs to no transaction or to a committed one.
    pub(crate) is_committed: bool,
    /// Its header; `None` when unreadable.
    pub(crate) header: Option<Header>,
    /// What is in it.
    pub(crate) content: Content,
}

/// What is in a segment file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Sealed, or of a later stage of life.
    Sealed(Arc<SealedSegment>),
    /// Active, up to its last COMMIT.
    Active(Arc<ActiveSegment>),
    /// What is left of files that have expired.
    Tombstone(Arc<Tombstone>),
    /// Unreadable.
    Bad(FileDamage),
}

impl FileFacts {
    /// The rows, unless the file is unreadable, or has none by its kind.
    pub(crate) fn segment(&self) -> Option<&dyn Segment> {
        match &self.content {
            Content::Sealed(segment) => Some(segment.as_ref()),
            Content::Active(segment) => Some(segment.as_ref()),
            Content::Tombstone(_) | Content::Bad(_) => None,
        }
    }

    /// Whether the file counts: its rows are rows of the store, or it says that some are gone.
    pub(crate) fn counts(&self) -> bool {
        self.is_committed && !self.is_replaced
    }

    /// Path relative to the store.
    pub(crate) fn relative(&self) -> String {
        relative(self.table, self.partition, &self.name)
    }
}

/// A segment that the catalog knows and that is gone for no reason, as damage. `None` where
/// the directories know better: it may be back since, or replaced, or all that it was made of
/// is still there and counts again.
fn missing(state: &State, gone: &MissingSegment) -> Option<Missing> {
    let mut is_there = false;
    let mut reason = "the segment is gone, and nothing was to delete it".to_owned();
    if let Some(directory) = state.directories.get(&(gone.table, gone.partition)) {
        let replaced = replaced(directory, &state.txns);
        if replaced.contains(&gone.uuid) {
            return None;
        }
        let mut files = directory.files.iter();
        if let Some((_, opened)) = files.find(|(name, _)| name.uuid == gone.uuid) {
            if !counts(opened, &state.txns) {
                let txn = opened.header().and_then(|header| header.txn)?;
                is_there = true;
                reason = format!("txn/{txn} is gone, although that import was committed");
            } else if gone.durable_rows() > 0 && opened.is_emptied() {
                reason = "no row is left of the segment, although some were durable".to_owned();
            } else {
                return None;
            }
        } else {
            let there = |uuid: &Id| {
                let mut files = directory.files.iter();
                replaced.contains(uuid)
                    || files.any(|(name, it)| name.uuid == *uuid && counts(it, &state.txns))
            };
            let made_of = SealedSegment::replaced_by(&gone.summary);
            if !made_of.is_empty() && made_of.iter().all(there) {
                return None;
            }
        }
    }
    let name = FileName::new(gone.uuid, gone.kind);
    let damage = FileDamage {
        file: relative(gone.table, gone.partition, &name),
        range: gone.partition.range(),
        damage: SegmentDamage {
            block: None,
            column: None,
            rows: Some(gone.rows),
            stamps: Some((gone.min_ts, gone.max_ts)),
            reason,
        },
        kind: ErrorKind::MissingSegment,
    };
    Some(Missing { damage, is_there })
}

/// Which file it is, if the catalog may know of it: active segments come and go.
fn vouched(name: &FileName) -> Option<Id> {
    (name.kind != FileKind::Active).then_some(name.uuid)
}

/// Whether a file's transaction, if it has one, has been committed.
fn counts(opened: &Opened, txns: &BTreeSet<Id>) -> bool {
    let txn = opened.header().and_then(|header| header.txn);
    txn.is_none_or(|txn| txns.contains(&txn) || is_planted(Bug::ShowPartialImport))
}

/// The files of a directory that others in it replace.
fn replaced(directory: &Directory, txns: &BTreeSet<Id>) -> HashSet<Id> {
    directory
        .files
        .values()
        .filter(|opened| counts(opened, txns) && !is_planted(Bug::IgnoreReplaces))
        .filter_map(Opened::header)
        .flat_map(|header| header.replaces.iter().copied())
        .collect()
}
