//! Files of other programs: read and copied, never written.
//!
//! Owns `ForeignFile`. Unlike the files of a store they may be reached through links, lie on
//! any file system and change at any time; who reads one has to ask whether it did.

#![expect(clippy::disallowed_methods, reason = "this is where files are touched")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file of another program, or the place of one.
#[derive(Clone, Debug)]
pub(crate) struct ForeignFile(PathBuf);

impl ForeignFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The file that is called as this one with `ending` behind its name.
    pub(crate) fn beside(&self, ending: &str) -> Self {
        let mut name = self.0.clone().into_os_string();
        name.push(ending);
        Self(name.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// An error of `operation` on the file.
    pub(crate) fn error(&self, operation: &str, cause: io::Error) -> Error {
        Error::io(operation, &self.0, cause)
    }

    /// Opens it for reading; `None` where there is none.
    ///
    /// # Errors
    ///
    /// `Io`; `BadInput` where it is no regular file.
    pub(crate) fn open(&self) -> Result<Option<File>> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.error("open", cause)),
        };
        if !file.metadata().map_err(|cause| self.error("stat", cause))?.is_file() {
            return Err(Error::bad_input("not a regular file, expected one").with_path(&self.0));
        }
        Ok(Some(file))
    }

    /// Writes all of `bytes` into a new file at `to`.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`, of the side that failed.
    pub(crate) fn copy(&self, mut bytes: impl Read, to: &Path) -> Result<()> {
        let write_error = |cause| Error::io("write", to, cause);
        let mut out = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(to)
            .map_err(write_error)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match bytes.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(self.error("read", cause)),
            };
            out.write_all(buffer.get(..count).unwrap_or_default()).map_err(write_error)?;
        }
    }
}
