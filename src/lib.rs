//! Tallystone: an embedded, append-only columnar store for the metrics of AI-agent fleets.
//!
//! A store is a directory. Any number of threads and processes record tasks and gauges in
//! it; what was flushed survives a kill and a loss of power; ten methods answer questions
//! about it, most of them from summaries that were computed when the rows were sealed.
//!
//!
//! # Words
//!
//! A row is *accepted* when a `record_*` or `append_*` call returns, *committed* (visible to
//! every process) when its buffer is full, old, or `Store::commit` is called, and
//! *durable* after `Store::flush`.
//!
//! # Reading
//!
//! `Store::snapshot` fixes a view; all methods are on `Snapshot`. Each answer says what
//! it rests on (`Coverage`) and how it was found (`Plan`).
//!
//! # Limits and quirks
//!
//! - Linux and macOS on 64-bit machines. The writer wants a local file system.
//! - Rows older than the last retention tier (90 days unless changed) are refused; see
//!   `Store::keep_everything`.
//! - Duplicates are rows, and the order of arrival does not matter.
//! - The limits of a row are in `limits`.
//! - After `fork`, a handle is useless in the child: every call is `Forked`.
//!
//! # Features
//!
//! - `bundled-sqlite` (default): builds SQLite from source instead of linking the system's.
//! - `testing`: the simulated file system, the reference model and the workload; outside
//!   the stability promise.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("tallystone maps files whole and needs a 64-bit machine");
#[cfg(not(unix))]
compile_error!("tallystone is written for Linux and macOS");

mod catalog;
pub mod column;
pub mod config;
mod encoding;
pub mod error;
mod format;
mod fs;
mod ingest;
pub mod inspect;
pub mod limits;
mod maintain;
mod report;
pub mod row;
pub mod schema;
mod segment;
mod sketch;
mod snapshot;
mod store;
mod store_files;
pub mod time;

pub use config::{Durability, Options, ReadMode};
pub use error::{Error, ErrorKind, Result};
pub use ingest::appender::Appender;
pub use ingest::transaction::{Import, ImportSource};
pub use report::{
    CatalogReport, ImportReport, RecoveryReport, StoreStats, TableStats, VerifyProblem,
    VerifyReport,
};
pub use row::{AgentMetric, AgentRow, Row, SwarmMetric, SwarmRow, TaskMetric, TaskRow};
pub use schema::Table;
pub use snapshot::Snapshot;
pub use store::Store;
pub use time::{Interval, TimeRange, Timestamp};

