//! What tests of the store and of programs around it use: the simulated file system and the
//! reference model, and the checks that prove the promises.
//!
//! Outside the stability promise.

pub use crate::fs::sim::{CrashPolicy, Fault, OpKind, SimFileSystem};
/// Bugs that can be planted in the engine.
pub mod planted {
    pub use crate::planted::{Bug, Planted, plant};
}

pub use crate::fs::{Bytes, Entry, EntryKind, File, FileSystem, Metadata, OsFileSystem};

pub mod fuzz;
pub mod model;
pub mod trust;
pub mod workload;

use std::path::Path;
use std::sync::Arc;

use crate::config::Options;
use crate::error::Result;
use crate::store::Store;

/// Opens a store on a simulated file system for reading and writing.
///
/// # Errors
///
/// As [`Store::open_with`].
pub fn open_store(fs: &SimFileSystem, dir: &Path, options: Options) -> Result<Store> {
    Store::open_on(Arc::new(fs.clone()), dir, options)
}

/// Opens a store on a simulated file system for reading only.
///
/// # Errors
///
/// As [`Store::open_read_only`].
pub fn open_store_read_only(fs: &SimFileSystem, dir: &Path, options: Options) -> Result<Store> {
    Store::open_read_only_on(Arc::new(fs.clone()), dir, options)
}
