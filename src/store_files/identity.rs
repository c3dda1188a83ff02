//! `store.json`: who the store is (spec 8.2), and how a store comes into being.
//!
//! The file is written once and never again, save by repair. It is the last step of
//! creation: a directory that has it has everything that a new store has.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::retention::RetentionRules;
use super::{Id, document, generation, if_absent, if_present, reserve, retention};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileSystem, parent_of, publish, sync_name};

/// Major version of the store format that this release writes and reads.
pub(crate) const FORMAT_MAJOR: u16 = 0;
/// Minor version of the store format that this release writes.
pub(crate) const FORMAT_MINOR: u16 = 1;

/// Name of the file.
pub(crate) const NAME: &str = "store.json";
const MAGIC: &str = "tallystone store";
const SECTION: &str = "8.2";
const BYTES_MAX: u64 = 64 << 10;
const PARTITION_WIDTH: &str = "day";

/// What `store.json` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreFile {
    /// Identity of the store, in every header of its files.
    pub(crate) store_id: Id,
    /// Major version of the format at creation.
    pub(crate) major: u16,
    /// Minor version of the format at creation.
    pub(crate) minor: u16,
    /// When the store was created, in microseconds since 1970.
    pub(crate) created: i64,
}

/// The outcome of [`create_store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// This call made the store.
    New(StoreFile),
    /// Somebody else had made it, or won the race.
    Existing(StoreFile),
}

impl Created {
    /// What `store.json` says, whoever wrote it.
    pub(crate) fn store(self) -> StoreFile {
        match self {
            Self::New(store) | Self::Existing(store) => store,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoreDocument {
    magic: String,
    store_id: String,
    format: FormatVersion,
    partition: String,
    created: i64,
}

#[derive(Serialize, Deserialize)]
struct FormatVersion {
    major: u16,
    minor: u16,
}

impl StoreFile {
    /// A new store of the current format.
    pub(crate) fn new(store_id: Id, created: i64) -> Self {
        Self { store_id, major: FORMAT_MAJOR, minor: FORMAT_MINOR, created }
    }

    /// The bytes of `store.json`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        document::seal(&StoreDocument {
            magic: MAGIC.to_owned(),
            store_id: self.store_id.to_string(),
            format: FormatVersion { major: self.major, minor: self.minor },
            partition: PARTITION_WIDTH.to_owned(),
            created: self.created,
        })
    }

    /// Reads the bytes of `store.json`. The version is looked at before any other member,
    /// so that a store of a later major version is named as such whatever else it holds.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let members = document::unseal(bytes, MAGIC)?;
        if let Some(major) = members.get("format").and_then(|format| format.get("major")) {
            refuse_newer(major)?;
        }
        let found: StoreDocument = document::decode(members)?;
        if found.partition != PARTITION_WIDTH {
            let message = format!("partition {:?}, expected {PARTITION_WIDTH:?}", found.partition);
            return Err(Error::corrupt(SECTION, message));
        }
        let store_id = Id::parse(&found.store_id).and_then(Id::some).ok_or_else(|| {
            Error::corrupt(SECTION, format!("store id {:?} is not one", found.store_id))
        })?;
        let FormatVersion { major, minor } = found.format;
        Ok(Self { store_id, major, minor, created: found.created })
    }
}

fn refuse_newer(major: &Value) -> Result<()> {
    match major.as_u64() {
        Some(major) if major > u64::from(FORMAT_MAJOR) => Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("format version {major}, this release reads up to {FORMAT_MAJOR}"),
        )
        .with_remedy("use a newer release")),
        _ => Ok(()),
    }
}

/// Reads `store.json` of the store in `dir`.
///
/// # Errors
///
/// `Io` that [`Error::is_not_found`] where it is missing; `Corrupt` where it is damaged
/// (both can be repaired from the headers); `NotOurFile` where it was never ours;
/// `UnsupportedVersion` with both numbers where the store is of a later major version.
pub(crate) fn read_store_file(fs: &dyn FileSystem, dir: &Path) -> Result<StoreFile> {
    let path = dir.join(NAME);
    let bytes = crate::fs::read_whole(fs, &path, BYTES_MAX)?;
    StoreFile::decode(&bytes).map_err(|error| error.with_path(&path))
}

/// Makes a store in `dir`, which must be absent or empty, with the given rules of
/// retention. Any number of processes may race: one wins, the others read what it wrote.
///
/// `created` is the time now, in microseconds since 1970.
///
/// # Errors
///
/// `NotOurFile` where the directory holds anything else, which is left as it was; those of
/// [`read_store_file`] where a store is there already.
pub(crate) fn create_store(
    fs: &dyn FileSystem,
    dir: &Path,
    created: i64,
    rules: &RetentionRules,
) -> Result<Created> {
    make_dir(fs, dir)?;
    // A store is there once its `store.json` is; listed second, so that one that appears
    // in between is not taken for a stranger's directory.
    if let Some(store) = if_present(read_store_file(fs, dir))? {
        return Ok(Created::Existing(store));
    }
    if let Some(stranger) = first_stranger(fs, dir)? {
        if let Some(store) = if_present(read_store_file(fs, dir))? {
            return Ok(Created::Existing(store));
        }
        return Err(Error::new(
            ErrorKind::NotOurFile,
            format!("not a store, and not empty: it holds {stranger:?}"),
        )
        .with_path(dir)
        .with_remedy("name another directory, or an empty one"));
    }
    if_absent(retention::publish_first(fs, dir, rules))?;
    generation::create(fs, dir)?;
    // A store can live without: maintenance makes the reserve when there is room again.
    match reserve::ensure_reserve(fs, dir) {
        Err(error) if error.kind() != ErrorKind::NoSpace => return Err(error),
        _ => {}
    }
    let store = StoreFile::new(Id::from_bytes(fs.unique_id()), created);
    match publish(fs, dir, NAME, &store.encode()?, false) {
        Ok(()) => Ok(Created::New(store)),
        Err(error) if error.is_already_there() => Ok(Created::Existing(read_store_file(fs, dir)?)),
        Err(error) => Err(error),
    }
}

/// Writes `store.json` anew, for repair: `store` holds the id that all headers agree on.
pub(crate) fn rewrite_store_file(fs: &dyn FileSystem, dir: &Path, store: &StoreFile) -> Result<()> {
    publish(fs, dir, NAME, &store.encode()?, true)
}

fn make_dir(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    match fs.create_private_dir(dir) {
        Ok(()) => fs.sync_dir(&parent_of(dir)),
        other => if_absent(other),
    }
}

/// Makes the names of a store durable that was found: whoever made it may have been stopped
/// before they were, or have met an error.
///
/// # Errors
///
/// `Io`.
pub(crate) fn sync_names(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    fs.sync_dir(dir)?;
    sync_name(fs, dir)
}

/// The first entry that a creation under way, or one that was cut off, does not explain.
fn first_stranger(fs: &dyn FileSystem, dir: &Path) -> Result<Option<String>> {
    let ours = [NAME, retention::NAME, generation::NAME, reserve::NAME];
    let explained = |name: &str| {
        ours.iter().any(|own| {
            name == *own
                || (name.strip_prefix(own).is_some_and(|rest| rest.starts_with('.'))
                    && name.ends_with(".tmp"))
        })
    };
    Ok(fs.list(dir)?.into_iter().map(|entry| entry.name).find(|name| !explained(name)))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::fs::OsFileSystem;

    const FS: OsFileSystem = OsFileSystem;

    fn create(dir: &Path) -> Result<Created> {
        create_store(&FS, dir, 1_700_000_000_000_000, &RetentionRules::default())
    }

    fn put(dir: &Path, text: &str) {
        publish(&FS, dir, NAME, text.as_bytes(), true).unwrap();
    }

    /// The worked example of spec 8.2.
    #[test]
    fn example() {
        let id =
            Id::from_bytes(*b"\x6f\x1e\xd0\x02\xab\x55\x4c\x9e\x88\x40\x1b\x2c\x3d\x4e\x5f\x60");
        let store = StoreFile::new(id, 1_700_000_000_000_000);
        let text = include_str!("../../format-spec/8-store.md");
        let line = String::from_utf8(store.encode().unwrap()).unwrap();
        assert!(text.contains(line.trim_end()), "{line}");
        assert_eq!(StoreFile::decode(line.as_bytes()).unwrap(), store);
    }

    #[test]
    fn a_new_store_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let created = create(&dir).unwrap();
        let Created::New(store) = created else { panic!("{created:?}") };
        assert_eq!(read_store_file(&FS, &dir).unwrap(), store);
        assert_eq!((store.major, store.minor), (FORMAT_MAJOR, FORMAT_MINOR));
        assert_eq!(create(&dir).unwrap(), Created::Existing(store));
        let names: Vec<_> = FS.list(&dir).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["generation", "reserve", "retention.json", "store.json"]);
    }

    #[test]
    fn creation_goes_on_after_a_crash() {
        let root = tempfile::tempdir().unwrap();
        for name in ["retention.json", "store.json.1234.tmp", "generation"] {
            FS.create(&root.path().join(name)).unwrap();
        }
        assert!(matches!(create(root.path()).unwrap(), Created::New(_)));
    }

    #[test]
    fn a_strange_directory_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        FS.create(&root.path().join("thesis.tex")).unwrap();
        let error = create(root.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotOurFile);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(FS.list(root.path()).unwrap().len(), 1);
    }

    #[test]
    fn racing_creators_agree() {
        for _ in 0..5 {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("store");
            let barrier = Barrier::new(4);
            let outcomes: Vec<Created> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            create(&dir).unwrap()
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            let new = outcomes.iter().filter(|outcome| matches!(outcome, Created::New(_))).count();
            assert_eq!(new, 1, "{outcomes:?}");
            let store = read_store_file(&FS, &dir).unwrap();
            assert!(outcomes.iter().all(|outcome| outcome.store() == store), "{outcomes:?}");
            let left = FS.list(&dir).unwrap();
            assert_eq!(left.len(), 4, "{left:?}");
        }
    }

    #[test]
    fn missing_damaged_and_foreign_differ() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert!(read_store_file(&FS, dir).unwrap_err().is_not_found());

        let good = StoreFile::new(Id::from_bytes([7; 16]), 5);
        let text = String::from_utf8(good.encode().unwrap()).unwrap();
        put(dir, &text.replace("\"created\":5", "\"created\":6"));
        assert_eq!(read_store_file(&FS, dir).unwrap_err().kind(), ErrorKind::Corrupt);

        put(dir, "{\"name\":\"webshop\"}");
        let error = create(dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotOurFile);
        assert_eq!(FS.list(dir).unwrap().len(), 1, "nothing may be written beside it");

        rewrite_store_file(&FS, dir, &good).unwrap();
        assert_eq!(read_store_file(&FS, dir).unwrap(), good);
    }

    #[test]
    fn a_later_version_names_both_numbers() {
        let store = StoreFile { major: 3, ..StoreFile::new(Id::from_bytes([7; 16]), 5) };
        let error = StoreFile::decode(&store.encode().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("version 3, this release reads up to 0"), "{error}");

        let minor = StoreFile { minor: 9, ..StoreFile::new(Id::from_bytes([7; 16]), 5) };
        assert_eq!(StoreFile::decode(&minor.encode().unwrap()).unwrap(), minor);
    }

    #[test]
    fn every_bit_counts() {
        let store = StoreFile::new(Id::from_bytes([7; 16]), 1_700_000_000_000_000);
        document::check_damage(&store.encode().unwrap(), StoreFile::decode);
    }
}
