//! Tallystone: an embedded, append-only columnar store for the metrics of AI-agent fleets.
//!
//! A store is a directory. Any number of threads and processes record tasks and gauges in
//! it; what was flushed survives a kill and a loss of power; ten methods answer questions
//! about it, most of them from summaries that were computed when the rows were sealed.
//!
//! ```
//! use tallystone::{Filter, Percentile, Store, Table, TaskMetric, Timestamp};
//!
//! # fn main() -> tallystone::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("store");
//! let store = Store::open(dir)?;
//! # store.keep_everything()?;
//! store.record_task(&TaskMetric {
//!     timestamp: Timestamp::parse("2026-11-23T10:00:00Z")?,
//!     task_id: "task-1",
//!     agent_id: "planner",
//!     duration_ms: Some(1_250),
//!     tokens_used: Some(900),
//!     success: true,
//!     metadata: None,
//! })?;
//! store.flush()?; // durable from here on
//! let p95 = store.snapshot()?.percentile(
//!     Table::Task, "duration_ms", 0.95, Percentile::Exact, &Filter::new())?;
//! println!("{:?}", p95.value.value);
//! # assert_eq!(p95.value.count, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Words
//!
//! A row is *accepted* when a `record_*` or `append_*` call returns, *committed* (visible to
//! every process) when its buffer is full, old, or [`Store::commit`] is called, and
//! *durable* after [`Store::flush`].
//!
//! # Reading
//!
//! [`Store::snapshot`] fixes a view; all methods are on [`Snapshot`]. Each answer says what
//! it rests on ([`Coverage`]) and how it was found ([`Plan`]).
//!
//! # Limits and quirks
//!
//! - Linux and macOS on 64-bit machines. The writer wants a local file system.
//! - Rows older than the last retention tier (90 days unless changed) are refused; see
//!   [`Store::set_retention`] and [`Store::keep_everything`].
//! - Duplicates are rows, and the order of arrival does not matter.
//! - The limits of a row are in [`limits`].
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

pub mod alert;
mod catalog;
pub mod column;
pub mod config;
mod encoding;
pub mod error;
pub mod export;
mod format;
mod fs;
pub mod import;
mod ingest;
pub mod inspect;
pub mod limits;
mod maintain;
mod planted;
pub mod query;
mod report;
pub mod row;
pub mod schema;
mod segment;
mod selection;
mod sketch;
mod snapshot;
mod store;
mod store_files;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;

pub use config::{
    Durability, MaintenanceRequest, MaintenanceWork, Options, ReadMode, Retention, TableRetention,
    Tiers,
};
pub use encoding::views::{
    ColumnView, Decimals, IntLanes, Numbered, ViewFloats, ViewInts, ViewTexts, ViewValues,
};
pub use error::{Error, ErrorKind, Result};
pub use ingest::appender::Appender;
pub use ingest::transaction::{Import, ImportSource};
pub use query::answer::{
    AgentSummary, Aggregate, Answer, Average, Bucket, Coverage, Damage, Effort, KeyAggregate, Last,
    Page, Plan, Quantile, SlowTask, Span, Summary, Value,
};
pub use query::columns::{Columns, ColumnsBlock, RowView};
pub use query::filter::{Aggregation, Cursor, Filter, Limit, Order, Percentile, TopBy};
pub use query::views::{Views, ViewsBlock};
pub use report::{
    BackupReport, CatalogReport, Health, ImportReport, JobReport, MaintenanceReport,
    MaintenanceStatus, Postponed, RecoveryReport, RepairReport, RepairedFile, StoreStats,
    TableStats, TierChange, VerifyProblem, VerifyReport,
};
pub use row::{AgentMetric, AgentRow, Row, SwarmMetric, SwarmRow, TaskMetric, TaskRow};
pub use schema::Table;
pub use snapshot::Snapshot;
pub use store::Store;
pub use time::{Interval, TimeRange, Timestamp};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
