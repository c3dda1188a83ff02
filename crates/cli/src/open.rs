//! Opening a store for a command: only writing commands create one.

use std::io::{self, Write};
use std::path::Path;

use tallystone::{Options, Store};

use crate::args::Globals;
use crate::failure::Failure;
use crate::output::escape;

/// For reading; the store has to be there.
pub(crate) fn for_reading(dir: &Path) -> Result<Store, Failure> {
    expect_store(dir)?;
    noted(Store::open_read_only(dir)?)
}

/// For reading, as far as the command line trusts the store.
pub(crate) fn as_told(globals: &Globals) -> Result<Store, Failure> {
    if !globals.untrusted {
        return for_reading(&globals.store);
    }
    expect_store(&globals.store)?;
    noted(Store::open_untrusted(&globals.store)?)
}

/// For changes to a store that has to be there.
pub(crate) fn existing(dir: &Path) -> Result<Store, Failure> {
    expect_store(dir)?;
    noted(Store::open_with(dir, options())?)
}

/// For changes where that can be, else for reading: for those who look at a store that has to
/// be there, and keep what they found if they may. Says nothing of what opening found.
pub(crate) fn for_writing_or_reading(dir: &Path) -> Result<Store, Failure> {
    expect_store(dir)?;
    match Store::open_with(dir, options()) {
        Ok(store) => Ok(store),
        // Where reading fails too, the first reason is the better one.
        Err(error) => Ok(Store::open_read_only(dir).map_err(|_| error)?),
    }
}

/// For writing; the store is created in an absent or empty directory.
pub(crate) fn for_writing(dir: &Path) -> Result<Store, Failure> {
    noted(Store::open_with(dir, options())?)
}

/// A command lives too short to look after the store in the background.
pub(crate) fn options() -> Options {
    Options { maintenance: None, ..Options::default() }
}

/// Makes sure that there is something to be a store.
pub(crate) fn expect_store(dir: &Path) -> Result<(), Failure> {
    let what = match contents(dir)? {
        Contents::Something => return Ok(()),
        Contents::Nothing => "an empty directory",
        Contents::Absent => "no such directory",
    };
    Err(Failure::Other(format!(
        "{}: {what}, expected a store; create one with record, import or demo, \
         or name another with --store",
        dir.display()
    )))
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    Absent,
    Nothing,
    Something,
}

/// Looks whether there is anything in a directory.
pub(crate) fn contents(dir: &Path) -> Result<Contents, Failure> {
    match std::fs::read_dir(dir).map(|mut entries| entries.next()) {
        Ok(Some(_)) => Ok(Contents::Something),
        Ok(None) => Ok(Contents::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Contents::Absent),
        Err(error) => Err(Failure::Store(tallystone::Error::io("open", dir, error))),
    }
}

/// Says what opening found, if anything.
fn noted(store: Store) -> Result<Store, Failure> {
    for note in &store.recovery().notes {
        let _ = writeln!(io::stderr().lock(), "note: {}", escape(note));
    }
    Ok(store)
}
