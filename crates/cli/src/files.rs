//! The files that the command itself touches: sources of imports, their rejected lines, and
//! targets of exports.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use tallystone::Error;
use tallystone::import::BadLine;
use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Opens a source, which has to be a file that can be read twice.
#[expect(clippy::disallowed_methods, reason = "outside the store")]
pub(crate) fn open_source(path: &Path) -> Result<(File, u64), Failure> {
    let failed = |cause| Failure::Store(Error::io("open", path, cause));
    let file = File::open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?;
    if !kind.is_file() {
        let (what, expected) = if kind.is_dir() {
            ("a directory", "a file")
        } else {
            ("not a regular file", "one, or a stream as standard input (-)")
        };
        return Err(Failure::Other(format!("{}: {what}, expected {expected}", path.display())));
    }
    Ok((file, kind.len()))
}

/// The first bytes of a file, by which some formats are known.
pub(crate) fn beginning(file: &File, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = file.take(64).read_to_end(&mut bytes);
    read.map_err(|cause| Failure::Store(Error::io("read", path, cause)))?;
    Ok(bytes)
}

/// Keeps standard input in a temporary file, since an import reads twice.
pub(crate) fn spool(mut input: impl BufRead) -> Result<NamedTempFile, Failure> {
    let not_kept = |cause| {
        let dir = std::env::temp_dir();
        let dir = dir.display();
        Failure::Other(format!("standard input: could not be kept in {dir}: {cause}"))
    };
    let mut spool = tempfile::Builder::new().prefix("tallystone-").tempfile().map_err(not_kept)?;
    loop {
        let bytes = match input.fill_buf() {
            Ok([]) => return Ok(spool),
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => {
                return Err(Failure::Other(format!("standard input: cannot be read: {cause}")));
            }
        };
        spool.as_file_mut().write_all(bytes).map_err(not_kept)?;
        let count = bytes.len();
        input.consume(count);
    }
}

/// Lines that an import passed over. The file is made when there is one; unless it is
/// kept, it goes with this value.
#[derive(Debug)]
pub(crate) struct Rejected {
    path: PathBuf,
    file: Option<io::BufWriter<File>>,
}

impl Rejected {
    /// For the import with this id into the store in `dir`.
    pub(crate) fn new(dir: &Path, id: &str) -> Self {
        let path = dir.join("quarantine").join(format!("import-{id}.rejected"));
        Self { path, file: None }
    }

    /// Takes a line that is no row: as an error, unless such lines are to be skipped.
    pub(crate) fn take(&mut self, bad: &BadLine, name: &str, skip: bool) -> tallystone::Result<()> {
        let error = bad.to_error(name);
        if skip { self.write(error.message(), &bad.raw) } else { Err(error) }
    }

    /// Writes a line as it stands, under a note that says what is wrong with it.
    fn write(&mut self, note: &str, raw: &[u8]) -> tallystone::Result<()> {
        let path = self.path.clone();
        self.try_write(note, raw).map_err(|cause| Error::io("write", &path, cause))
    }

    fn try_write(&mut self, note: &str, raw: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(io::BufWriter::new(create(&self.path)?));
        }
        if let Some(file) = &mut self.file {
            writeln!(file, "# {}", note.replace('\n', " "))?;
            file.write_all(raw)?;
            if !raw.ends_with(b"\n") {
                file.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Makes the file complete; to be called before the import is committed.
    pub(crate) fn sync(&mut self) -> tallystone::Result<()> {
        let outcome = match &mut self.file {
            Some(file) => file.flush().and_then(|()| file.get_ref().sync_all()),
            None => Ok(()),
        };
        outcome.map_err(|cause| Error::io("write", &self.path, cause))
    }

    /// Keeps the file, and says where it is if there is one.
    pub(crate) fn keep(mut self) -> Option<PathBuf> {
        self.file.take().map(|_| self.path.clone())
    }
}

impl Drop for Rejected {
    #[expect(clippy::disallowed_methods, reason = "the command's own file")]
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // The import was given up, and with it its list; a leftover does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A file that appears under its name when it is complete. What is no regular file (a pipe, a
/// terminal) is written to as it is.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    file: File,
    /// Where it is written until it is complete.
    aside: Option<PathBuf>,
}

impl Target {
    /// Opens a target, or a file beside it.
    #[expect(clippy::disallowed_methods, reason = "the file that the caller names")]
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // A link stays one: what it points to is written.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&path)?;
                return Ok(Self { path, file, aside: None });
            }
            _ => {}
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let aside = path.with_file_name(name);
        let file = File::create(&aside)?;
        Ok(Self { path, file, aside: Some(aside) })
    }

    /// Gives the complete file its name.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        let Some(aside) = self.aside.clone() else { return Ok(()) };
        self.file.sync_all()?;
        rename(&aside, &self.path)?;
        self.aside = None;
        Ok(())
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Target {
    #[expect(clippy::disallowed_methods, reason = "the command's own file")]
    fn drop(&mut self) {
        if let Some(aside) = &self.aside {
            // It was given up; a leftover does no harm.
            let _ = std::fs::remove_file(aside);
        }
    }
}

/// A writer that counts its bytes.
pub(crate) struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, bytes: 0 }
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[expect(clippy::disallowed_methods, reason = "the file that the caller names")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

#[expect(clippy::disallowed_methods, reason = "the command's own file")]
fn create(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    File::options().write(true).create_new(true).open(path)
}
