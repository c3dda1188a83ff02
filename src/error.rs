//! The one error type of the library.
//!
//! Owns `Error`, `ErrorKind` and `Result`. A kind is what a caller would act on;
//! everything else is context, kept as data so that a message can name the file,
//! the offset, the section of the format specification, and what was expected
//! and found.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a file operation.
    Io,
    /// Stored bytes are wrong: a checksum, a bound or an invariant does not hold.
    Corrupt,
    /// The file ends inside a structure, as it may after a crash.
    Torn,
    /// The file was written by a newer major version of the format.
    UnsupportedVersion,
    /// The file or directory is not one of a Tallystone store.
    NotOurFile,
    /// A row or a line of input breaks a rule of the data model.
    BadInput,
    /// An answer would be incomplete and the caller asked for a whole one.
    Incomplete,
    /// The source has been imported before.
    AlreadyImported,
    /// The row is older than the last retention tier.
    PastRetention,
    /// The clock disagrees with what was recorded; nothing is expired.
    ClockJump,
    /// An argument of a call is out of its range.
    InvalidArgument,
    /// Another process holds the lock.
    Locked,
    /// The channel to the committer is full.
    Full,
    /// The disk, the quota or the file size limit is exhausted.
    NoSpace,
    /// The handle was inherited through `fork` and is unusable in the child.
    Forked,
    /// A file of the snapshot is gone; take a new snapshot.
    SnapshotGone,
    /// A segment that the catalog knows has disappeared.
    MissingSegment,
    /// The store has been closed.
    Closed,
    /// The store can no longer make rows durable.
    Poisoned,
}

impl ErrorKind {
    /// A short, stable name in lower case with underscores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Torn => "torn",
            Self::UnsupportedVersion => "unsupported_version",
            Self::NotOurFile => "not_our_file",
            Self::BadInput => "bad_input",
            Self::Incomplete => "incomplete",
            Self::AlreadyImported => "already_imported",
            Self::PastRetention => "past_retention",
            Self::ClockJump => "clock_jump",
            Self::InvalidArgument => "invalid_argument",
            Self::Locked => "locked",
            Self::Full => "full",
            Self::NoSpace => "no_space",
            Self::Forked => "forked",
            Self::SnapshotGone => "snapshot_gone",
            Self::MissingSegment => "missing_segment",
            Self::Closed => "closed",
            Self::Poisoned => "poisoned",
        }
    }
}

/// An error of the library: a kind, a message, and where it happened.
///
/// Cheap to move (one pointer) and to clone: the cause is shared.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    section: Option<&'static str>,
    remedy: Option<&'static str>,
    cause: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what was expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            offset: None,
            section: None,
            remedy: None,
            cause: None,
        }))
    }

    /// Stored bytes that break section `section` of the format specification.
    pub(crate) fn corrupt(section: &'static str, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Corrupt, message);
        error.0.section = Some(section);
        error
    }

    /// An argument out of its range.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// A row or line that breaks a rule of the data model.
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadInput, message)
    }

    /// A failed file operation on `path`; a full disk becomes [`ErrorKind::NoSpace`].
    pub fn io(operation: &str, path: &Path, cause: io::Error) -> Self {
        let remedy = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free some space"),
            io::ErrorKind::FileTooLarge => Some("raise the limit on the size of files"),
            _ if is_too_many_files(&cause) => Some("raise the limit on open files (ulimit -n)"),
            _ => None,
        };
        let mut error = Self::output(operation, cause).with_path(path);
        error.0.remedy = remedy;
        error
    }

    /// A failed operation on something that has no path; a full disk becomes
    /// [`ErrorKind::NoSpace`].
    pub(crate) fn output(operation: &str, cause: io::Error) -> Self {
        let kind = match cause.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, format!("{operation}: {cause}"));
        error.0.cause = Some(std::sync::Arc::new(cause));
        error
    }

    /// Adds the file that the error is about, unless one is named already.
    #[must_use]
    pub fn with_path(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// Adds the byte offset in the file, unless one is named already.
    #[must_use]
    pub(crate) fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.0.remedy = Some(remedy);
        self
    }

    /// What a caller can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message without its context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file or directory that the error is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte offset in that file, counted from its start.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The section of `format-spec/` that the bytes break.
    pub fn section(&self) -> Option<&'static str> {
        self.0.section
    }

    /// The error of the operating system, where one was the cause.
    pub(crate) fn io_cause(&self) -> Option<&io::Error> {
        self.0.cause.as_deref()?.downcast_ref()
    }

    /// Whether a file or directory was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.io_cause().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the system does not allow it.
    pub(crate) fn is_denied(&self) -> bool {
        self.io_cause().is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether a file was there already.
    pub(crate) fn is_already_there(&self) -> bool {
        self.io_cause().is_some_and(|cause| cause.kind() == io::ErrorKind::AlreadyExists)
    }
}

/// Whether the process, or the system, has as many files open as it may.
fn is_too_many_files(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            write!(f, "{}", path.display())?;
            if let Some(offset) = self.0.offset {
                write!(f, " at byte {offset}")?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}", self.0.message)?;
        if let Some(section) = self.0.section {
            write!(f, " (format-spec {section})")?;
        }
        if let Some(remedy) = self.0.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {self})", self.0.kind.name())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}
