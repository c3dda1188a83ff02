//! 128-bit ids of stores, files, writers and transactions, and the names of files.
//!
//! A file is named after its uuid and its kind, and found by that name alone (spec
//! 1.3): a name found inside a file is never used to open another.

use std::fmt;

use uuid::Uuid;

use crate::format::layout::{
    FILE_KIND_ACTIVE, FILE_KIND_ARCHIVE, FILE_KIND_DAILY, FILE_KIND_HOURLY, FILE_KIND_SEALED,
    FILE_KIND_TOMBSTONE, ID_BYTES,
};

/// A uuid; all zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id([u8; ID_BYTES]);

impl Id {
    /// No id.
    pub(crate) const NONE: Self = Self([0; ID_BYTES]);

    /// The id of these bytes.
    pub(crate) const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, as stored.
    pub(crate) const fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }

    /// Whether this is no id.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// `None` for the id that means none.
    pub(crate) fn some(self) -> Option<Self> {
        (!self.is_none()).then_some(self)
    }

    /// Reads 36 characters in lower case with hyphens; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = Self(*Uuid::try_parse(text).ok()?.as_bytes());
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

/// What a file of a partition is (spec 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileKind {
    /// Being appended by one process.
    Active,
    /// Immutable, sorted, indexed.
    Sealed,
    /// Cold: the partition's segments compacted into one.
    Archive,
    /// Rows aggregated to the hour.
    Hourly,
    /// Rows aggregated to the day.
    Daily,
    /// The partition has expired.
    Tombstone,
}

impl FileKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 6] =
        [Self::Active, Self::Sealed, Self::Archive, Self::Hourly, Self::Daily, Self::Tombstone];

    /// The tag in the header.
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Active => FILE_KIND_ACTIVE,
            Self::Sealed => FILE_KIND_SEALED,
            Self::Archive => FILE_KIND_ARCHIVE,
            Self::Hourly => FILE_KIND_HOURLY,
            Self::Daily => FILE_KIND_DAILY,
            Self::Tombstone => FILE_KIND_TOMBSTONE,
        }
    }

    /// The kind of a tag.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.tag() == tag)
    }

    /// What the file's name ends in.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Sealed => "segment",
            Self::Archive => "archive",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Tombstone => "tombstone",
        }
    }

    /// Name of the file of this kind with the uuid.
    pub(crate) fn file_name(self, uuid: Id) -> String {
        format!("{uuid}.{}", self.extension())
    }

    /// Uuid and kind of a file by its name; `None` for a name that is not ours.
    pub(crate) fn parse_file_name(name: &str) -> Option<(Id, Self)> {
        let (stem, extension) = name.split_once('.')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        Some((Id::parse(stem)?.some()?, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_round_trip() {
        let uuid = Id::from_bytes(*b"0123456789abcdef");
        for kind in FileKind::ALL {
            let name = kind.file_name(uuid);
            assert_eq!(FileKind::parse_file_name(&name), Some((uuid, kind)), "{name}");
            assert_eq!(FileKind::from_tag(kind.tag()), Some(kind));
        }
        assert_eq!(FileKind::from_tag(0), None);
        assert_eq!(FileKind::from_tag(7), None);
    }

    #[test]
    fn only_the_canonical_name_is_ours() {
        let good = "30313233-3435-3637-3839-616263646566.segment";
        assert!(FileKind::parse_file_name(good).is_some());
        for bad in [
            "30313233-3435-3637-3839-616263646566",
            "30313233-3435-3637-3839-616263646566.",
            "30313233-3435-3637-3839-616263646566.segment.tmp",
            "30313233-3435-3637-3839-61626364656G.segment",
            "30313233-3435-3637-3839-61626364656F.segment",
            "30313233343536373839616263646566.segment",
            "{30313233-3435-3637-3839-616263646566}.segment",
            "00000000-0000-0000-0000-000000000000.segment",
            "../30313233-3435-3637-3839-616263646566.segment",
            "",
        ] {
            assert_eq!(FileKind::parse_file_name(bad), None, "{bad}");
        }
    }
}
