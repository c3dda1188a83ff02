//! `txn/`: commit records of imports (spec 8.6).
//!
//! An import is one transaction: it holds `txn/<id>.tmp`, locked, while it writes files
//! tagged with its id, and commits by filling that file and renaming it to `txn/<id>`. A
//! tagged file counts exactly if `txn/<id>` is there, which a reader tells from names
//! alone. Owns these files; the tagged ones, and deleting them, are others'.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Id, document, if_absent, if_present, is_at, is_damage, parse_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{EntryKind, File, FileSystem};
use crate::report::ImportReport;

/// Name of the directory.
pub(crate) const DIR: &str = "txn";
const UNFINISHED: &str = ".tmp";
const MAGIC: &str = "tallystone import";
const SECTION: &str = "8.6";
/// Bounds the memory for one record: some 400,000 files.
const BYTES_MAX: u64 = 16 << 20;
/// Ids tried before giving up; only a cleaner that catches each in its first instant
/// makes a second one necessary.
const ATTEMPTS: usize = 8;

/// What a committed import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TxnRecord {
    /// Identity of the import, and the tag of its files.
    pub(crate) id: Id,
    /// Name of the source as the user gave it; never used as a path.
    pub(crate) source: String,
    /// CRC-32 of the source's bytes.
    pub(crate) source_crc32: u32,
    /// XXH3 of the source's bytes, 128 bits.
    pub(crate) source_xxh3: u128,
    /// Size of the source in bytes.
    pub(crate) bytes: u64,
    /// Rows taken in, per table in the order of `Table::ALL`.
    pub(crate) rows: [u64; 3],
    /// Uuids of the files that hold them.
    pub(crate) files: Vec<Id>,
    /// When the import was committed, in microseconds since 1970.
    pub(crate) created: i64,
}

#[derive(Serialize, Deserialize)]
struct TxnDocument {
    magic: String,
    id: String,
    source: SourceDocument,
    rows: RowsDocument,
    files: Vec<String>,
    created: i64,
}

#[derive(Serialize, Deserialize)]
struct SourceDocument {
    name: String,
    bytes: u64,
    crc32: String,
    xxh3: String,
}

#[derive(Serialize, Deserialize)]
struct RowsDocument {
    task_metrics: u64,
    agent_metrics: u64,
    swarm_metrics: u64,
}

impl TxnRecord {
    /// The record as the public sees it.
    pub(crate) fn report(&self) -> ImportReport {
        ImportReport {
            id: self.id.to_string(),
            source: self.source.clone(),
            bytes: self.bytes,
            rows: self.rows.iter().sum(),
            files: self.files.len() as u64,
        }
    }

    /// The bytes of `txn/<id>`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let [task_metrics, agent_metrics, swarm_metrics] = self.rows;
        let bytes = document::seal(&TxnDocument {
            magic: MAGIC.to_owned(),
            id: self.id.to_string(),
            source: SourceDocument {
                name: self.source.clone(),
                bytes: self.bytes,
                crc32: format!("{:08x}", self.source_crc32),
                xxh3: format!("{:032x}", self.source_xxh3),
            },
            rows: RowsDocument { task_metrics, agent_metrics, swarm_metrics },
            files: self.files.iter().map(Id::to_string).collect(),
            created: self.created,
        })?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(Error::invalid(format!(
                "import of {} files: its record would be {} bytes, at most {BYTES_MAX} can \
                 be read back",
                self.files.len(),
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) writes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let found: TxnDocument = document::decode(document::unseal(bytes, MAGIC)?)?;
        let bad = |what: &str, text: &str| Error::corrupt(SECTION, format!("{what} {text:?}"));
        let id =
            |text: &str| Id::parse(text).and_then(Id::some).ok_or_else(|| bad("not an id:", text));
        let RowsDocument { task_metrics, agent_metrics, swarm_metrics } = found.rows;
        let crc32 = &found.source.crc32;
        Ok(Self {
            id: id(&found.id)?,
            source_crc32: u32::from_str_radix(crc32, 16)
                .map_err(|_| bad("not a CRC-32:", crc32))?,
            source_xxh3: parse_hex(&found.source.xxh3)
                .ok_or_else(|| bad("not a hash:", &found.source.xxh3))?,
            source: found.source.name,
            bytes: found.source.bytes,
            rows: [task_metrics, agent_metrics, swarm_metrics],
            files: found.files.iter().map(|text| id(text)).collect::<Result<_>>()?,
            created: found.created,
        })
    }
}

/// An import under way. Dropping it leaves a dead `txn/<id>.tmp` for maintenance to find,
/// as a crash would.
#[derive(Debug)]
pub(crate) struct TxnInProgress {
    id: Id,
    dir: PathBuf,
    file: Arc<dyn File>,
}

impl TxnInProgress {
    /// Begins an import into the store in `dir`.
    pub(crate) fn begin(fs: &dyn FileSystem, dir: &Path) -> Result<Self> {
        let txn = make_dir(fs, dir)?;
        for _ in 0..ATTEMPTS {
            let id = Id::from_bytes(fs.unique_id());
            let path = unfinished_path(dir, &id);
            let file = match fs.create(&path) {
                Err(error) if error.is_already_there() => continue,
                other => other?,
            };
            // Between creation and lock a cleaner may have taken it for dead and removed it.
            if file.try_lock()? && is_at(fs, &*file, &path)? {
                return Ok(Self { id, dir: dir.to_path_buf(), file });
            }
        }
        Err(Error::new(ErrorKind::Locked, "no import could begin: its file is taken each time")
            .with_path(&txn))
    }

    /// The tag for the files of this import.
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// Commits: from here on the tagged files count. They must be durable already.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the record is another import's. After an error of the last
    /// step, the sync of the directory, the import is visible but may be gone after a
    /// power cut; after any other it is not committed.
    pub(crate) fn commit(self, fs: &dyn FileSystem, record: &TxnRecord) -> Result<()> {
        if record.id != self.id {
            return Err(Error::invalid("a commit record of another import"));
        }
        self.file.write_all_at(&record.encode()?, 0)?;
        self.file.sync_data()?;
        fs.rename_new(&unfinished_path(&self.dir, &self.id), &committed_path(&self.dir, &self.id))?;
        fs.sync_dir(&self.dir.join(DIR))
    }

    /// Gives up. The tagged files must be gone already.
    pub(crate) fn abort(self, fs: &dyn FileSystem) -> Result<()> {
        fs.remove(&unfinished_path(&self.dir, &self.id))
    }
}

/// Makes the directory of records, durably, unless it is there.
fn make_dir(fs: &dyn FileSystem, dir: &Path) -> Result<PathBuf> {
    let txn = dir.join(DIR);
    match fs.create_dir(&txn) {
        Ok(()) => {}
        other => if_absent(other)?,
    }
    // Whoever made it: an import is durable only in a directory that is.
    fs.sync_dir(dir)?;
    Ok(txn)
}

/// Writes the record of a committed import anew; durable on return. For repair alone.
pub(crate) fn restore(fs: &dyn FileSystem, dir: &Path, record: &TxnRecord) -> Result<()> {
    let txn = make_dir(fs, dir)?;
    crate::fs::publish(fs, &txn, &record.id.to_string(), &record.encode()?, true)
}

/// What an import that a file is tagged with has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxnState {
    /// Its process is at work: leave its files alone.
    Running,
    /// Its files count.
    Committed,
    /// Its process died, or it was undone: its files never count.
    Dead,
}

/// What import `id` has come to. The answer `Dead` lasts only while the caller holds
/// `maintenance.lock`.
///
/// The unfinished name is looked at first: the rename goes from there to the committed
/// name, so that an import cannot slip past both looks.
pub(crate) fn judge(fs: &dyn FileSystem, dir: &Path, id: &Id) -> Result<TxnState> {
    match take_unfinished(fs, dir, id)? {
        Unfinished::Held => return Ok(TxnState::Running),
        Unfinished::Taken { .. } => return Ok(TxnState::Dead),
        Unfinished::Absent => {}
    }
    Ok(match if_present(fs.metadata(&committed_path(dir, id)))? {
        Some(found) if found.kind == EntryKind::File => TxnState::Committed,
        _ => TxnState::Dead,
    })
}

/// Removes `txn/<id>.tmp` if its process is dead. Returns whether it was. The files tagged
/// with the id go first, so that a crash in between leaves the evidence.
pub(crate) fn remove_dead(fs: &dyn FileSystem, dir: &Path, id: &Id) -> Result<bool> {
    match take_unfinished(fs, dir, id)? {
        Unfinished::Taken { _lock } => {
            fs.remove(&unfinished_path(dir, id))?;
            Ok(true)
        }
        Unfinished::Held | Unfinished::Absent => Ok(false),
    }
}

/// Takes back the commit of import `id`: its files no longer count. Durable on return.
/// Returns whether it was committed. The caller holds `maintenance.lock`.
pub(crate) fn undo(fs: &dyn FileSystem, dir: &Path, id: &Id) -> Result<bool> {
    if if_present(fs.remove(&committed_path(dir, id)))?.is_none() {
        return Ok(false);
    }
    fs.sync_dir(&dir.join(DIR))?;
    Ok(true)
}

/// Ids of the committed imports, by name alone.
pub(crate) fn list_ids(fs: &dyn FileSystem, dir: &Path) -> Result<BTreeSet<Id>> {
    Ok(names(fs, dir)?.iter().filter_map(|name| Id::parse(name)?.some()).collect())
}

/// Ids of the imports that have not committed, running or dead.
pub(crate) fn list_unfinished(fs: &dyn FileSystem, dir: &Path) -> Result<BTreeSet<Id>> {
    let unfinished = |name: &String| Id::parse(name.strip_suffix(UNFINISHED)?)?.some();
    Ok(names(fs, dir)?.iter().filter_map(unfinished).collect())
}

/// Every committed import.
#[derive(Debug, Default)]
pub(crate) struct TxnListing {
    /// The records that could be read, oldest first.
    pub(crate) records: Vec<TxnRecord>,
    /// Imports that are committed but whose record is damaged.
    pub(crate) damaged: Vec<(Id, Error)>,
}

/// Reads all records. An import with a damaged one is committed all the same: the name
/// decides.
pub(crate) fn list_committed(fs: &dyn FileSystem, dir: &Path) -> Result<TxnListing> {
    let mut listing = TxnListing::default();
    for id in list_ids(fs, dir)? {
        match read_committed(fs, dir, &id) {
            Ok(Some(record)) => listing.records.push(record),
            Ok(None) => {}
            Err(error) if is_damage(&error) => listing.damaged.push((id, error)),
            Err(error) => return Err(error),
        }
    }
    listing.records.sort_by_key(|record| (record.created, record.id));
    Ok(listing)
}

/// The record of import `id`; `None` where it is not committed.
///
/// # Errors
///
/// `Corrupt` where the record is damaged, or is that of another import.
pub(crate) fn read_committed(
    fs: &dyn FileSystem,
    dir: &Path,
    id: &Id,
) -> Result<Option<TxnRecord>> {
    let path = committed_path(dir, id);
    let Some(bytes) = if_present(crate::fs::read_whole(fs, &path, BYTES_MAX))? else {
        return Ok(None);
    };
    let record = TxnRecord::decode(&bytes).map_err(|error| error.with_path(&path))?;
    if record.id == *id {
        return Ok(Some(record));
    }
    let message = format!("the record of import {}, expected another", record.id);
    Err(Error::corrupt(SECTION, message).with_path(&path))
}

enum Unfinished {
    Absent,
    Held,
    /// The lock on it, which is let go with the value.
    Taken {
        _lock: Arc<dyn File>,
    },
}

fn take_unfinished(fs: &dyn FileSystem, dir: &Path, id: &Id) -> Result<Unfinished> {
    let path = unfinished_path(dir, id);
    let Some(file) = if_present(fs.open_write(&path))? else { return Ok(Unfinished::Absent) };
    if !file.try_lock()? {
        return Ok(Unfinished::Held);
    }
    // Committed or removed between opening and locking.
    Ok(if is_at(fs, &*file, &path)? {
        Unfinished::Taken { _lock: file }
    } else {
        Unfinished::Absent
    })
}

fn names(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<String>> {
    let entries = if_present(fs.list(&dir.join(DIR)))?.unwrap_or_default();
    let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
    Ok(files.map(|entry| entry.name).collect())
}

fn committed_path(dir: &Path, id: &Id) -> PathBuf {
    dir.join(DIR).join(id.to_string())
}

fn unfinished_path(dir: &Path, id: &Id) -> PathBuf {
    dir.join(DIR).join(format!("{id}{UNFINISHED}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{OsFileSystem, publish};

    const FS: OsFileSystem = OsFileSystem;

    fn record(id: Id) -> TxnRecord {
        TxnRecord {
            id,
            source: "runs/2026-11-23 \"night\".csv".to_owned(),
            source_crc32: 0x00c0_ffee,
            source_xxh3: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            bytes: 123_456,
            rows: [1_000, 0, 24],
            files: vec![Id::from_bytes([0xaa; 16]), Id::from_bytes([0xbb; 16])],
            created: 1_700_000_000_000_000,
        }
    }

    /// The worked example of spec 8.6.
    #[test]
    fn example() {
        let id =
            Id::from_bytes(*b"\x10\x32\x54\x76\x98\xba\x4c\xfe\x81\x02\x03\x04\x05\x06\x07\x08");
        let text = include_str!("../../format-spec/8-store.md");
        let line = String::from_utf8(record(id).encode().unwrap()).unwrap();
        assert!(text.contains(line.trim_end()), "{line}");
        assert_eq!(TxnRecord::decode(line.as_bytes()).unwrap(), record(id));
    }

    #[test]
    fn begin_and_commit() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert!(list_ids(&FS, dir).unwrap().is_empty());
        let txn = TxnInProgress::begin(&FS, dir).unwrap();
        let id = txn.id();
        assert!(list_ids(&FS, dir).unwrap().is_empty());
        assert_eq!(list_unfinished(&FS, dir).unwrap(), BTreeSet::from([id]));
        assert_eq!(judge(&FS, dir, &id).unwrap(), TxnState::Running);
        assert!(!remove_dead(&FS, dir, &id).unwrap());

        txn.commit(&FS, &record(id)).unwrap();
        assert_eq!(list_ids(&FS, dir).unwrap(), BTreeSet::from([id]));
        assert!(list_unfinished(&FS, dir).unwrap().is_empty());
        assert_eq!(judge(&FS, dir, &id).unwrap(), TxnState::Committed);
        let listing = list_committed(&FS, dir).unwrap();
        assert_eq!(listing.records, [record(id)]);

        assert!(undo(&FS, dir, &id).unwrap());
        assert!(!undo(&FS, dir, &id).unwrap());
        assert_eq!(judge(&FS, dir, &id).unwrap(), TxnState::Dead);
        assert_eq!(read_committed(&FS, dir, &id).unwrap(), None);
    }

    #[test]
    fn a_dead_import_is_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let running = TxnInProgress::begin(&FS, dir).unwrap();
        let dead = TxnInProgress::begin(&FS, dir).unwrap().id();
        assert_eq!(judge(&FS, dir, &dead).unwrap(), TxnState::Dead);
        assert!(remove_dead(&FS, dir, &dead).unwrap());
        assert!(!remove_dead(&FS, dir, &dead).unwrap());
        assert_eq!(judge(&FS, dir, &dead).unwrap(), TxnState::Dead);
        assert_eq!(list_unfinished(&FS, dir).unwrap(), BTreeSet::from([running.id()]));
        running.abort(&FS).unwrap();
        assert!(list_unfinished(&FS, dir).unwrap().is_empty());
    }

    #[test]
    fn the_record_of_another_is_not_committed() {
        let root = tempfile::tempdir().unwrap();
        let txn = TxnInProgress::begin(&FS, root.path()).unwrap();
        let error = txn.commit(&FS, &record(Id::from_bytes([1; 16]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(list_ids(&FS, root.path()).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_record_is_committed_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let txn = TxnInProgress::begin(&FS, dir).unwrap();
        let good = txn.id();
        txn.commit(&FS, &record(good)).unwrap();
        let (cut, moved) = (Id::from_bytes([3; 16]), Id::from_bytes([4; 16]));
        let bytes = record(good).encode().unwrap();
        publish(&FS, &dir.join(DIR), &cut.to_string(), &bytes[..40], false).unwrap();
        publish(&FS, &dir.join(DIR), &moved.to_string(), &bytes, false).unwrap();
        publish(&FS, &dir.join(DIR), "notes.txt", b"hello", false).unwrap();
        assert_eq!(list_ids(&FS, dir).unwrap(), BTreeSet::from([good, cut, moved]));
        let listing = list_committed(&FS, dir).unwrap();
        assert_eq!(listing.records, [record(good)]);
        let damaged: Vec<_> = listing.damaged.iter().map(|(id, _)| *id).collect();
        assert_eq!(damaged, [cut, moved]);
        assert_eq!(judge(&FS, dir, &cut).unwrap(), TxnState::Committed);
    }

    #[test]
    fn every_bit_counts() {
        document::check_damage(
            &record(Id::from_bytes([5; 16])).encode().unwrap(),
            TxnRecord::decode,
        );
    }
}
