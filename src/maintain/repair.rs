//! Repairing: what is damaged gives way to what can be read of it, and nothing is deleted.
//!
//! Owns the order of the steps for one file. Its bytes are kept in `quarantine/` first. Where
//! rows are lost, a tombstone of no rows then says where they lay; what can be read is written
//! into a new file that replaces the damaged one, and only when that is durable does the
//! damaged one lose its name. A crash between any two steps leaves every readable row, once,
//! and a repair that goes on from there.
//!
//! ```text
//! keep -> tombstone (of what is lost) -> segment that replaces it -> unlink its name
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{self, CachedSegment, MissingSegment, open_reader};
use crate::error::{Error, ErrorKind, Result};
use crate::format::header::Header;
use crate::format::id::{FileKind, Id};
use crate::format::layout::FRAMES_OFFSET;
use crate::fs::File;
use crate::limits::REPLACES_MAX;
use crate::maintain::quarantine::keep;
use crate::maintain::reconcile::{Books, Planned, missing_note, orphan_note};
use crate::maintain::verify::damage_of;
use crate::report::{RepairReport, RepairedFile};
use crate::schema::Table;
use crate::segment::active::ActiveTail;
use crate::segment::files::{StoreRoot, rewrite_rollup, salvage, seal_rows};
use crate::segment::sealed::SealedSegment;
use crate::segment::tombstone::{StandsFor, Tombstone, write_tombstone};
use crate::segment::{Segment, SegmentDamage, Tier};
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::identity::{self, StoreFile};
use crate::store_files::maintenance::MaintenanceLock;
use crate::store_files::reserve::give_up_reserve;
use crate::store_files::retention::{self, RetentionRules};
use crate::store_files::txn::{self, TxnRecord};
use crate::store_files::{alerts, generation, maintenance};
use crate::time::Partition;

/// What a record of an import says of its source when nobody knows it.
const SOURCE_UNKNOWN: &str = "unknown: the record was lost, and written anew by repair";

/// Repairs the store, or says what would be done.
///
/// # Errors
///
/// `Locked` when the maintenance lock is not to be had in `patience`; `Io`, `NoSpace`: what
/// was not done is done by the next repair.
pub(crate) fn repair(root: &StoreRoot, dry_run: bool, patience: Duration) -> Result<RepairReport> {
    let lock = match dry_run {
        true => None,
        false => Some(super::wait_for_lock(root, patience)?),
    };
    let mut repair = Repair {
        root,
        lister: Lister::without_catalog(root.clone()),
        books: None,
        remembered: HashMap::new(),
        report: RepairReport { dry_run, ..RepairReport::default() },
    };
    repair.small_files()?;
    let missing = match &lock {
        None => repair.look_up_catalog(),
        Some(lock) => {
            let reader = open_reader(root.fs.as_ref(), &root.dir, &root.id);
            repair.remembered = reader.map(|it| it.cached_all()).unwrap_or_default();
            let mut books = match books_of(root, lock, &repair.lister) {
                // On a full disk, what is repaired needs room: that is the reserve's use.
                Err(error) if error.kind() == ErrorKind::NoSpace => {
                    give_up_reserve(root.fs.as_ref(), &root.dir)?;
                    books_of(root, lock, &repair.lister)?
                }
                books => books?,
            };
            let missing = std::mem::take(&mut books.missing);
            // The report has an entry for each of them that stays missing.
            let told: HashSet<String> = missing.iter().map(missing_note).collect();
            books.notes.retain(|note| !told.contains(note));
            repair.report.notes.append(&mut books.notes);
            repair.books = Some(books);
            missing
        }
    };
    repair.imports()?;
    repair.segments(&missing)?;
    repair.missing(&missing)?;
    repair.leftovers()?;
    repair.finish()
}

struct Repair<'a> {
    root: &'a StoreRoot,
    lister: Lister,
    /// `None` where nothing is to be changed.
    books: Option<Books>,
    /// What the catalog remembered before it was told of damage.
    remembered: HashMap<Id, CachedSegment>,
    report: RepairReport,
}

/// Rows that are lost with a file.
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    rows: u64,
    /// Whether there may be more.
    is_at_least: bool,
    /// Earliest and latest stamp; `None` where nobody knows.
    stamps: Option<(i64, i64)>,
}

impl Loss {
    /// What the damage to a file costs; `remembered` are the rows that it had.
    fn of(damage: &[SegmentDamage], kept: u64, remembered: Option<u64>) -> Self {
        let mut loss = Self::default();
        let mut seen = HashSet::new();
        let (mut stamps, mut is_somewhere) = (None, false);
        for damage in damage.iter().filter(|damage| damage.loses_rows()) {
            // Two columns of a block are the same rows, and so is all of the file.
            if damage.block.is_some() && !seen.insert(damage.block) {
                continue;
            }
            loss.rows = loss.rows.saturating_add(damage.rows.unwrap_or(0));
            loss.is_at_least |= damage.rows.is_none();
            is_somewhere |= damage.stamps.is_none();
            stamps = joined(stamps, damage.stamps);
        }
        loss.stamps = stamps.filter(|_| !is_somewhere);
        // Rows may be lost for two reasons: by their block, and by a dictionary of all.
        if let Some(lost) = remembered.and_then(|rows| rows.checked_sub(kept)) {
            (loss.rows, loss.is_at_least) = (lost, false);
        }
        loss
    }

    fn is_any(&self) -> bool {
        self.rows > 0 || self.is_at_least
    }
}

fn joined(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

// ---------------------------------------------------------------------------------------
// Small files

impl Repair<'_> {
    fn is_dry(&self) -> bool {
        self.report.dry_run
    }

    fn small_files(&mut self) -> Result<()> {
        let (fs, dir) = (self.root.fs.as_ref(), self.root.dir.as_path());
        if let Err(error) = identity::read_store_file(fs, dir) {
            let files = self.lister.files()?;
            let created = files.iter().filter_map(|facts| facts.header.as_ref());
            let created = created.map(|header| header.created).min();
            let done = format!("written anew with the id of all headers, {}", self.root.id);
            self.small_file(identity::NAME, &error, done, |repair| {
                let created = created.unwrap_or_else(|| repair.root.now());
                let store = StoreFile::new(repair.root.id, created);
                identity::rewrite_store_file(repair.root.fs.as_ref(), &repair.root.dir, &store)
            })?;
        }
        match retention::read_retention(fs, dir) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnsupportedVersion => {
                self.leave(retention::NAME, error.to_string(), None);
            }
            Err(error) => {
                let done = "every row is kept until rules are set again".to_owned();
                self.small_file(retention::NAME, &error, done, |repair| {
                    let rules = RetentionRules::keep_everything();
                    retention::write_retention(repair.root.fs.as_ref(), &repair.root.dir, &rules)
                })?;
            }
        }
        if let Err(error) = alerts::read(fs, dir) {
            let held = match self.is_dry() {
                true => None,
                false => Some(alerts::try_alerts_lock(fs, dir)?),
            };
            if matches!(held, Some(None)) {
                self.leave(alerts::NAME, format!("{error}; a process keeps it"), None);
            } else {
                self.small_file(alerts::NAME, &error, "alerts begin anew".to_owned(), |repair| {
                    let fs = repair.root.fs.as_ref();
                    super::backup::remove(fs, &repair.root.dir.join(alerts::NAME))?;
                    fs.sync_dir(&repair.root.dir)
                })?;
            }
        }
        if let Some(why) = maintenance::damaged_mark(fs, dir) {
            let mut entry = RepairedFile::new(maintenance::NAME, why);
            entry.done = "written anew with the next change of the catalog".to_owned();
            self.report.files.push(entry);
        }
        Ok(())
    }

    /// Sets a small file aside, if it is there, and does what is to be done instead.
    fn small_file(
        &mut self,
        name: &str,
        error: &Error,
        done: String,
        instead: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        if error.kind() == ErrorKind::Io && !error.is_not_found() {
            self.leave(name, error.to_string(), None);
            return Ok(());
        }
        let mut entry = RepairedFile::new(name, error.to_string());
        entry.done = done;
        if !self.is_dry() {
            if !error.is_not_found() {
                let path = self.root.dir.join(name);
                let kept = keep(self.root, &path, &name.replace('/', "-"), &entry.damage)?;
                entry.set_aside = Some(kept);
            }
            instead(self)?;
        }
        self.report.files.push(entry);
        Ok(())
    }

    /// Notes damage that is left as it is.
    fn leave(&mut self, file: &str, why: String, loss: Option<Loss>) {
        let mut entry = RepairedFile::new(file, why);
        entry.is_left = true;
        entry.done = "left as it is".to_owned();
        if let Some(loss) = loss {
            entry.lose(loss.rows, loss.is_at_least, loss.stamps);
        }
        self.report.files.push(entry);
    }

    /// What a reader can tell of the catalog; returns what it misses.
    fn look_up_catalog(&mut self) -> Vec<MissingSegment> {
        let (fs, dir, id) = (self.root.fs.as_ref(), &self.root.dir, &self.root.id);
        if let Some(why) = catalog::damage(fs, dir, id) {
            self.report.notes.push(format!("catalog.sqlite: {why}: it is made anew"));
        }
        let Some(reader) = open_reader(fs, dir, id) else { return Vec::new() };
        self.remembered = reader.cached_all();
        reader.expected().unwrap_or_default()
    }

    /// Records of imports that are damaged, or gone although the import was committed.
    fn imports(&mut self) -> Result<()> {
        let (fs, dir) = (self.root.fs.as_ref(), self.root.dir.clone());
        let files = self.lister.files()?;
        let damaged = txn::list_committed(fs, &dir)?.damaged;
        for (id, error) in damaged {
            let record = self.record(id, &files);
            let name = format!("{}/{id}", txn::DIR);
            let done = "written anew; what its source was is not known any more".to_owned();
            self.small_file(&name, &error, done, |repair| {
                txn::restore(repair.root.fs.as_ref(), &repair.root.dir, &record)
            })?;
        }
        let mut lost: BTreeMap<Id, u64> = BTreeMap::new();
        for facts in &files {
            if orphan_note(facts).is_some()
                && self.was_committed(facts)?
                && let Some(txn) = facts.header.as_ref().and_then(|header| header.txn)
            {
                *lost.entry(txn).or_default() += facts.segment().map_or(0, Segment::rows);
            }
        }
        for (id, rows) in lost {
            let record = self.record(id, &files);
            let mut entry = RepairedFile::new(
                &format!("{}/{id}", txn::DIR),
                "gone, although that import was committed".to_owned(),
            );
            entry.rows_kept = rows;
            entry.done = "written anew, so that its rows count again".to_owned();
            if !self.is_dry() {
                txn::restore(fs, &dir, &record)?;
                generation::bump(fs, &dir)?;
            }
            self.report.files.push(entry);
        }
        Ok(())
    }

    fn was_committed(&self, facts: &FileFacts) -> Result<bool> {
        match &self.books {
            Some(books) => books.was_committed(facts),
            None => Ok(self.remembered.contains_key(&facts.name.uuid)),
        }
    }

    /// A record of an import as far as its files tell.
    fn record(&self, id: Id, files: &[FileFacts]) -> TxnRecord {
        let of_import = files
            .iter()
            .filter(|facts| facts.header.as_ref().is_some_and(|header| header.txn == Some(id)));
        let mut record = TxnRecord {
            id,
            source: SOURCE_UNKNOWN.to_owned(),
            source_crc32: 0,
            source_xxh3: 0,
            bytes: 0,
            rows: [0; 3],
            files: Vec::new(),
            created: self.root.now(),
        };
        for facts in of_import {
            record.files.push(facts.name.uuid);
            record.rows[facts.table.index()] += facts.segment().map_or(0, Segment::rows);
        }
        record
    }
}

// ---------------------------------------------------------------------------------------
// Files of partitions

fn books_of(root: &StoreRoot, lock: &MaintenanceLock, lister: &Lister) -> Result<Books> {
    let mut books = Books::open(root, lock)?;
    books.reconcile(root, lister)?;
    Ok(books)
}

/// What is written instead of a damaged file.
enum Instead {
    /// Nothing: no row was in it, or others have them.
    Nothing,
    /// A tombstone that replaces it.
    Tombstone(StandsFor),
    /// Some blocks of it.
    Blocks(Arc<SealedSegment>, Vec<usize>),
    /// All that it says.
    Rollup(Arc<SealedSegment>),
    /// Rows of an active segment, whose lock is held.
    Rows(Vec<crate::column::Batch>, Arc<dyn File>),
}

impl Repair<'_> {
    /// Files that count and are damaged.
    fn segments(&mut self, missing: &[MissingSegment]) -> Result<()> {
        let files = self.lister.files()?;
        for facts in files.iter().filter(|facts| facts.counts()) {
            let damage = match damage_of(self.root, facts, true) {
                Ok(damage) => damage,
                Err(error) if error.is_not_found() => continue,
                Err(error) => {
                    self.leave(&facts.relative(), error.to_string(), None);
                    continue;
                }
            };
            if damage.is_empty() {
                continue;
            }
            let known = self.known_to_catalog(facts, &damage)?;
            let (facts, damage) = match &known {
                Some((facts, damage)) => (facts, damage),
                None => (facts, &damage),
            };
            match self.repair_file(facts, damage, &files, missing) {
                Ok(()) => {}
                // What one file holds is no reason to give up on the others.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn) => {
                    let loss = Loss::of(damage, 0, None);
                    self.leave(&facts.relative(), error.to_string(), Some(loss));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A file that cannot be opened, by the header and the footer that the catalog remembers of
    /// it, and what is damaged of it then. `None` where it remembers none that fit.
    fn known_to_catalog(
        &self,
        facts: &FileFacts,
        damage: &[SegmentDamage],
    ) -> Result<Option<(FileFacts, Vec<SegmentDamage>)>> {
        let Content::Bad(_) = facts.content else { return Ok(None) };
        let Some(known) = self.remembered.get(&facts.name.uuid) else { return Ok(None) };
        if self.why_unreadable(facts) != Why::Destroyed {
            return Ok(None);
        }
        let root = self.root;
        let mut found: Vec<_> =
            damage.iter().map(|it| SegmentDamage::harmless(it.reason.clone())).collect();
        let (header, content) = if facts.name.kind == FileKind::Tombstone {
            let Ok(tombstone) = Tombstone::from_summary(&known.summary) else { return Ok(None) };
            (tombstone.header().clone(), Content::Tombstone(Arc::new(tombstone)))
        } else {
            let (mode, place) = (root.options.read_mode, (root.id, facts.table, facts.partition));
            let opened = SealedSegment::from_summary(
                &root.fs,
                &root.dir,
                &facts.path,
                mode,
                Some(place),
                &known.summary,
            );
            let Ok(segment) = opened else { return Ok(None) };
            match segment.verify(true) {
                Ok(wrong) => found.extend(wrong),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            (segment.header().clone(), Content::Sealed(Arc::new(segment)))
        };
        // What was imported counts only while its record says so.
        let counts = match &header.txn {
            Some(txn) => txn::judge(root.fs.as_ref(), &root.dir, txn)? == txn::TxnState::Committed,
            None => true,
        };
        let is_it = (header.uuid, header.kind) == (facts.name.uuid, facts.name.kind);
        let known = FileFacts { header: Some(header), content, ..facts.clone() };
        Ok((is_it && counts).then_some((known, found)))
    }

    fn repair_file(
        &mut self,
        facts: &FileFacts,
        damage: &[SegmentDamage],
        files: &[FileFacts],
        missing: &[MissingSegment],
    ) -> Result<()> {
        if damage.iter().any(SegmentDamage::loses_rows)
            && let Some(rows) = self.rows_of_inputs(facts, files)?
        {
            let mut entry = self.entry(facts, damage);
            entry.rows_kept = rows;
            entry.done = "what it replaced is still there, and counts again".to_owned();
            return self.carry_out(facts, files, entry, None, Instead::Nothing);
        }
        match &facts.content {
            Content::Sealed(segment) if segment.tier() == Tier::Rows => {
                self.repair_segment(facts, segment, damage, files)
            }
            Content::Sealed(rollup) => self.repair_rollup(facts, rollup, damage, files),
            Content::Active(_) => self.repair_active(facts, damage, files),
            Content::Tombstone(tombstone) => self.repair_tombstone(facts, tombstone, damage, files),
            Content::Bad(_) => self.repair_unreadable(facts, damage, files, missing),
        }
    }

    fn entry(&self, facts: &FileFacts, damage: &[SegmentDamage]) -> RepairedFile {
        let mut reasons: Vec<&str> = damage.iter().map(|damage| damage.reason.as_str()).collect();
        reasons.dedup();
        RepairedFile::new(&facts.relative(), reasons.join("; "))
    }

    /// Rows of the files that this one replaces, if all of them are there and sound, and would
    /// count without it.
    fn rows_of_inputs(&self, facts: &FileFacts, files: &[FileFacts]) -> Result<Option<u64>> {
        let Some(header) = facts.header.as_ref().filter(|header| !header.replaces.is_empty())
        else {
            return Ok(None);
        };
        let mut rows = 0;
        for uuid in &header.replaces {
            let found = neighbours(facts, files).find(|other| other.name.uuid == *uuid);
            let Some(input) = found.filter(|other| other.is_committed) else { return Ok(None) };
            let by_others = neighbours(facts, files)
                .filter(|other| other.name.uuid != facts.name.uuid && other.is_committed)
                .filter_map(|other| other.header.as_ref())
                .any(|other| other.replaces.contains(uuid));
            let Some(segment) = input.segment().filter(|_| !by_others) else { return Ok(None) };
            if !damage_of(self.root, input, true)?.is_empty() {
                return Ok(None);
            }
            rows += segment.rows();
        }
        Ok(Some(rows))
    }

    fn repair_segment(
        &mut self,
        facts: &FileFacts,
        segment: &Arc<SealedSegment>,
        damage: &[SegmentDamage],
        files: &[FileFacts],
    ) -> Result<()> {
        let blocks = segment.readable_blocks()?;
        let rows_of = |block: &usize| segment.blocks().get(*block).map_or(0, |it| it.rows.into());
        let kept: u64 = blocks.iter().map(rows_of).sum();
        let loss = Loss::of(damage, kept, self.remembered_rows(facts));
        let mut entry = self.entry(facts, damage);
        entry.rows_kept = kept;
        let kept = (kept > 0).then(|| Instead::Blocks(Arc::clone(segment), blocks));
        self.keep_rows(facts, files, entry, loss, kept)
    }

    fn repair_rollup(
        &mut self,
        facts: &FileFacts,
        rollup: &Arc<SealedSegment>,
        damage: &[SegmentDamage],
        files: &[FileFacts],
    ) -> Result<()> {
        let mut entry = self.entry(facts, damage);
        if !damage.iter().any(SegmentDamage::loses_rows) {
            entry.rows_kept = rollup.rows();
            entry.done = "written anew".to_owned();
            let instead = Instead::Rollup(Arc::clone(rollup));
            return self.carry_out(facts, files, entry, None, instead);
        }
        // Every damage to a rollup is damage to all of it.
        let loss = Loss { rows: rollup.rows(), is_at_least: false, stamps: rollup.stamps() };
        let instead = self.all_lost(facts, files, &mut entry, loss);
        self.carry_out(facts, files, entry, Some(loss), instead)
    }

    fn repair_active(
        &mut self,
        facts: &FileFacts,
        damage: &[SegmentDamage],
        files: &[FileFacts],
    ) -> Result<()> {
        let loss = |damage: &[SegmentDamage]| Loss::of(damage, 0, None);
        let Some(lock) = self.take_lock(facts)? else {
            let why = self.entry(facts, damage).damage;
            let why = format!("{why}; a process is writing to it");
            self.leave(&facts.relative(), why, Some(loss(damage)));
            return Ok(());
        };
        // An owner that has just let go of it may have sealed it.
        let is_same = |other: &&FileFacts| other.name == facts.name && other.counts();
        if !self.lister.files()?.iter().any(|other| is_same(&other)) {
            return Ok(());
        }
        let mut tail = ActiveTail::open(&self.root.fs, &facts.path, facts.relative())?;
        tail.refresh(true)?;
        let view = tail.view();
        let batches: Vec<_> = (0..view.blocks().len()).map(|it| view.batch(it)).collect();
        // One that cannot be decoded is in the damage.
        let batches: Vec<_> = batches.into_iter().filter_map(Result::ok).collect();
        let damage = view.verify()?;
        let loss = loss(&damage);
        let mut entry = self.entry(facts, &damage);
        entry.rows_kept = batches.iter().map(|batch| batch.len() as u64).sum();
        let kept = (!batches.is_empty()).then_some(Instead::Rows(batches, lock));
        self.keep_rows(facts, files, entry, loss, kept)
    }

    /// The lock of an active segment whose owner is gone.
    fn take_lock(&self, facts: &FileFacts) -> Result<Option<Arc<dyn File>>> {
        let fs = self.root.fs.as_ref();
        let file = match fs.open_write(&facts.path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_ours = file.try_lock()? && fs.metadata(&facts.path)?.inode == file.inode()?;
        Ok(is_ours.then_some(file))
    }

    fn repair_tombstone(
        &mut self,
        facts: &FileFacts,
        tombstone: &Tombstone,
        damage: &[SegmentDamage],
        files: &[FileFacts],
    ) -> Result<()> {
        let mut entry = self.entry(facts, damage);
        entry.done = "written anew".to_owned();
        let remembered = self.remembered.get(&facts.name.uuid);
        let remembered = remembered.and_then(|it| Tombstone::from_summary(&it.summary).ok());
        let whole = if tombstone.is_whole() { Some(tombstone) } else { remembered.as_ref() };
        let replaces = replaces(facts, files);
        let stands_for = match whole {
            Some(whole) => whole.stands_for(replaces),
            None => StandsFor { replaces, ..StandsFor::default() },
        };
        self.carry_out(facts, files, entry, None, Instead::Tombstone(stands_for))
    }

    fn repair_unreadable(
        &mut self,
        facts: &FileFacts,
        damage: &[SegmentDamage],
        files: &[FileFacts],
        missing: &[MissingSegment],
    ) -> Result<()> {
        let mut entry = self.entry(facts, damage);
        let why = match self.why_unreadable(facts) {
            Why::Later => {
                self.leave(&facts.relative(), entry.damage, None);
                return Ok(());
            }
            why => why,
        };
        let lock = match facts.name.kind {
            FileKind::Active => self.take_lock(facts)?,
            _ => None,
        };
        if facts.name.kind == FileKind::Active && lock.is_none() {
            let why = format!("{}; a process is writing to it", entry.damage);
            let loss = Loss { is_at_least: true, ..Loss::default() };
            self.leave(&facts.relative(), why, Some(loss));
            return Ok(());
        }
        if why == Why::Misplaced {
            entry.done = "it does not belong here".to_owned();
            return self.carry_out(facts, files, entry, None, Instead::Nothing);
        }
        let known = missing.iter().find(|it| it.uuid == facts.name.uuid);
        let remembered = self.remembered.get(&facts.name.uuid);
        let remembered = remembered.map(|it| (it.rows, it.min_ts, it.max_ts));
        let known = known.map(|it| (it.rows, it.min_ts, it.max_ts)).or(remembered);
        let loss = match known {
            Some((rows, min, max)) => Loss { rows, is_at_least: false, stamps: Some((min, max)) },
            None => Loss { is_at_least: true, ..Loss::default() },
        };
        let instead = self.all_lost(facts, files, &mut entry, loss);
        let done = self.carry_out(facts, files, entry, Some(loss), instead);
        drop(lock);
        done
    }

    fn why_unreadable(&self, facts: &FileFacts) -> Why {
        let mut head = vec![0; FRAMES_OFFSET];
        let read = self.root.fs.open(&facts.path).and_then(|file| file.read_at(&mut head, 0));
        let header = match read {
            Ok(len) => Header::decode(head.get(..len).unwrap_or_default()),
            Err(error) => Err(error),
        };
        match header {
            Ok(copies) => {
                let header = copies.header;
                let place = (header.store_id, header.known_table(), header.partition);
                let is_named = (header.uuid, header.kind) == (facts.name.uuid, facts.name.kind);
                if is_named && header.known_table().is_none() {
                    Why::Later
                } else if is_named && place != (self.root.id, Some(facts.table), facts.partition) {
                    Why::Misplaced
                } else {
                    Why::Destroyed
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::UnsupportedVersion | ErrorKind::Io | ErrorKind::Forked => Why::Later,
                _ => Why::Destroyed,
            },
        }
    }

    fn remembered_rows(&self, facts: &FileFacts) -> Option<u64> {
        self.remembered.get(&facts.name.uuid).map(|it| it.rows)
    }

    /// Carries out what is left of a file: its readable rows, or that there are none.
    fn keep_rows(
        &mut self,
        facts: &FileFacts,
        files: &[FileFacts],
        mut entry: RepairedFile,
        loss: Loss,
        kept: Option<Instead>,
    ) -> Result<()> {
        let instead = match kept {
            Some(kept) => {
                entry.done = "its readable rows are in a new file".to_owned();
                kept
            }
            None if loss.is_any() => self.all_lost(facts, files, &mut entry, loss),
            None => {
                entry.done = "it has no rows".to_owned();
                Instead::Nothing
            }
        };
        self.carry_out(facts, files, entry, Some(loss), instead)
    }

    /// Of a file without a readable row a tombstone is left.
    fn all_lost(
        &self,
        facts: &FileFacts,
        files: &[FileFacts],
        entry: &mut RepairedFile,
        loss: Loss,
    ) -> Instead {
        entry.done = "no row of it can be read".to_owned();
        let replaces = replaces(facts, files);
        Instead::Tombstone(StandsFor { replaces, rows: 0, stamps: loss.stamps })
    }

    /// Keeps the file, writes what stands in for it, and takes its name away.
    fn carry_out(
        &mut self,
        facts: &FileFacts,
        files: &[FileFacts],
        mut entry: RepairedFile,
        loss: Option<Loss>,
        instead: Instead,
    ) -> Result<()> {
        let loss = loss.unwrap_or_default();
        entry.lose(loss.rows, loss.is_at_least, loss.stamps);
        if self.is_dry() {
            self.report.files.push(entry);
            return Ok(());
        }
        let (root, place) = (self.root, (facts.table, facts.partition));
        let name = facts.name.to_string();
        entry.set_aside = Some(keep(root, &facts.path, &name, &entry.damage)?);
        let replaces = replaces(facts, files);
        if loss.is_any() && !matches!(instead, Instead::Tombstone(_)) {
            self.say_lost(place, loss.stamps)?;
        }
        let written = match instead {
            Instead::Nothing => None,
            Instead::Tombstone(stands_for) => {
                let uuid = write_tombstone(root, place.0, place.1, &stands_for)?;
                Some((FileKind::Tombstone.file_name(uuid), true))
            }
            Instead::Blocks(segment, blocks) => {
                let written = match salvage(root, &segment, blocks.clone(), &replaces) {
                    // Rows that are not where they should be are put in order in memory.
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        let batches = blocks.iter().map(|block| segment.batch(*block));
                        let batches = batches.collect::<Result<Vec<_>>>()?;
                        seal_rows(root, place.0, place.1, &replaces, None, &batches)?
                    }
                    written => written?,
                };
                Some((written.name, written.is_durable))
            }
            Instead::Rollup(rollup) => {
                let written = rewrite_rollup(root, &rollup, &replaces)?;
                Some((written.name, written.is_durable))
            }
            Instead::Rows(batches, _lock) => {
                let written = seal_rows(root, place.0, place.1, &replaces, None, &batches)?;
                Some((written.name, written.is_durable))
            }
        };
        generation::bump(root.fs.as_ref(), &root.dir)?;
        let is_durable = written.as_ref().is_none_or(|(_, is_durable)| *is_durable);
        let dir = format!("{}/{}", place.0.name(), place.1.directory_name());
        entry.replaced_by = written.map(|(name, _)| format!("{dir}/{name}"));
        // Else what it replaces would come back; it does not count any more, and goes when
        // that has gone.
        let goes = entry.replaced_by.is_none() || (is_durable && replaces.len() < REPLACES_MAX);
        if goes {
            self.take_name(facts, &entry.done)?;
        }
        self.report.files.push(entry);
        Ok(())
    }

    /// Says that rows of a partition are gone, unless that is said already.
    fn say_lost(&self, (table, partition): (Table, Partition), stamps: Lost) -> Result<()> {
        let stands_for = StandsFor { replaces: Vec::new(), rows: 0, stamps };
        let is_said = self.lister.files()?.iter().any(|facts| match &facts.content {
            Content::Tombstone(tombstone) => {
                (facts.table, facts.partition) == (table, partition)
                    && facts.counts()
                    && tombstone.is_of_damage()
                    && tombstone.stands_for(Vec::new()) == stands_for
            }
            _ => false,
        });
        if !is_said {
            write_tombstone(self.root, table, partition, &stands_for)?;
        }
        Ok(())
    }

    /// Takes the name of a file that is kept in quarantine away, and logs it.
    fn take_name(&mut self, facts: &FileFacts, reason: &str) -> Result<()> {
        let fs = self.root.fs.as_ref();
        let dir = facts.path.parent().unwrap_or(&self.root.dir);
        // What stands in for it, and the absence of what it replaced, come first.
        fs.sync_dir(dir)?;
        let unlink = || {
            super::backup::remove(fs, &facts.path)?;
            fs.sync_dir(dir)?;
            generation::bump(fs, &self.root.dir)
        };
        match &mut self.books {
            Some(books) => {
                let what = format!("{}: set aside by repair: {reason}", facts.relative());
                books.delete(self.root, &what, &[facts], unlink)
            }
            None => Ok(()),
        }
    }

    /// Files that the catalog knows and that are not there.
    fn missing(&mut self, missing: &[MissingSegment]) -> Result<()> {
        self.lister.files()?;
        for gone in missing {
            let still = self.lister.still_missing(std::slice::from_ref(gone)).pop();
            let Some(damage) = still.filter(|it| !it.is_there).map(|it| it.damage) else {
                continue;
            };
            let mut entry = RepairedFile::new(&damage.file, damage.damage.reason);
            entry.done = "its rows are gone".to_owned();
            entry.lose(gone.rows, false, Some((gone.min_ts, gone.max_ts)));
            if !self.is_dry() {
                let stamps = Some((gone.min_ts, gone.max_ts)).filter(|it| *it != (0, 0));
                let stands_for = StandsFor { replaces: vec![gone.uuid], rows: 0, stamps };
                let uuid = write_tombstone(self.root, gone.table, gone.partition, &stands_for)?;
                let dir = format!("{}/{}", gone.table.name(), gone.partition.directory_name());
                let name = FileKind::Tombstone.file_name(uuid);
                entry.replaced_by = Some(format!("{dir}/{name}"));
                generation::bump(self.root.fs.as_ref(), &self.root.dir)?;
            }
            self.report.files.push(entry);
        }
        Ok(())
    }

    /// Files that do not count and are damaged: they have been replaced and have done their duty,
    /// or a repair was cut off, or they are of an import that was not committed.
    fn leftovers(&mut self) -> Result<()> {
        let files = self.lister.files()?;
        for facts in files.iter().filter(|facts| !facts.counts()) {
            if !facts.is_committed && !self.is_of_dead_import(facts)? {
                continue;
            }
            // Where another counts again in its place, the list is not that of before.
            let Ok(damage) = damage_of(self.root, facts, true) else { continue };
            let stands = facts.header.as_ref().map_or(&[][..], |header| &header.replaces);
            let holds_back = facts.is_committed
                && neighbours(facts, &files).any(|it| stands.contains(&it.name.uuid));
            if damage.is_empty() || holds_back {
                continue;
            }
            let lock = match facts.name.kind {
                FileKind::Active => self.take_lock(facts)?,
                _ => None,
            };
            if facts.name.kind == FileKind::Active && lock.is_none() {
                continue;
            }
            let mut entry = self.entry(facts, &damage);
            entry.done = match facts.is_committed {
                true => "it was replaced before".to_owned(),
                false => "it is of an import that was not committed".to_owned(),
            };
            self.carry_out(facts, &files, entry, None, Instead::Nothing)?;
            drop(lock);
        }
        Ok(())
    }

    /// Whether the file never counted, and never will.
    fn is_of_dead_import(&self, facts: &FileFacts) -> Result<bool> {
        let Some(txn) = facts.header.as_ref().and_then(|header| header.txn) else {
            return Ok(false);
        };
        let state = txn::judge(self.root.fs.as_ref(), &self.root.dir, &txn)?;
        Ok(state == txn::TxnState::Dead && !self.was_committed(facts)?)
    }

    fn finish(mut self) -> Result<RepairReport> {
        self.report.add_up();
        if let Some(mut books) = self.books.take()
            && !self.report.files.is_empty()
        {
            let report = &self.report;
            let planned = Planned {
                kind: "repair",
                what: format!("{} files, {} rows lost", report.files.len(), report.rows_lost),
                rows: report.rows_kept,
                bytes: 0,
                deletes: Vec::new(),
            };
            books.logged(self.root, planned, || Ok(()))?;
            books.reconcile(self.root, &self.lister)?;
        }
        Ok(self.report)
    }
}

/// Stamps of rows that are lost, where they are known.
type Lost = Option<(i64, i64)>;

/// Why a file cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It is of a later release, or cannot be read now.
    Later,
    /// It is whole, and lies where it does not belong.
    Misplaced,
    /// What had its name is not there any more.
    Destroyed,
}

/// The files of the same partition.
fn neighbours<'f>(
    facts: &FileFacts,
    files: &'f [FileFacts],
) -> impl Iterator<Item = &'f FileFacts> {
    let place = (facts.table, facts.partition);
    files.iter().filter(move |other| (other.table, other.partition) == place)
}

/// What a file that stands in for `facts` replaces: it, and what it replaces of what is there.
fn replaces(facts: &FileFacts, files: &[FileFacts]) -> Vec<Id> {
    let named = facts.header.as_ref().map_or(&[][..], |header| &header.replaces);
    let there = neighbours(facts, files).map(|other| other.name.uuid);
    let mut all = vec![facts.name.uuid];
    all.extend(there.filter(|uuid| named.contains(uuid)));
    all.truncate(REPLACES_MAX);
    all
}
