//! Which tables a database has, and which column holds what.

use std::path::Path;

use rusqlite::Connection;

use super::files;
use crate::error::{Error, Result};
use crate::schema::Table;

/// The table of compressed rows.
pub(super) const ARCHIVE: &str = "metrics_archive";
/// The columns of the archive that are read.
const ARCHIVE_COLUMNS: [&str; 4] =
    ["metric_table", "aggregation_level", "compressed_data", "record_count"];
/// Columns that a table may do without.
const OPTIONAL: [&str; 4] = ["duration_ms", "tokens_used", "metadata", "files_changed"];

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Tasks that say whether they succeeded.
    Task,
    /// Tasks of the older schema, which say how they ended.
    TaskResult,
    /// Gauges of agents.
    Agent,
    /// Gauges of swarms.
    Swarm,
}

impl Shape {
    /// The columns that are read, in the order in which values are made of them.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Task => &[
                "timestamp",
                "task_id",
                "agent_id",
                "duration_ms",
                "tokens_used",
                "success",
                "metadata",
            ],
            Self::TaskResult => &[
                "timestamp",
                "task_id",
                "agent_id",
                "duration_ms",
                "tokens_used",
                "result",
                "files_changed",
            ],
            Self::Agent => &["timestamp", "agent_id", "metric_type", "value", "metadata"],
            Self::Swarm => &["timestamp", "swarm_id", "metric_type", "value", "metadata"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Task | Self::TaskResult => "task_metrics",
            Self::Agent => "agent_metrics",
            Self::Swarm => "swarm_metrics",
        }
    }
}

/// A table and the columns that it has.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    /// For each field whether the table has it.
    present: Vec<bool>,
}

impl Layout {
    /// The layout of archived rows, which name their columns themselves.
    pub(super) fn of_archived(name: &str) -> Option<Self> {
        let shapes = [Shape::Task, Shape::Agent, Shape::Swarm];
        let shape = shapes.into_iter().find(|shape| shape.name() == name)?;
        Some(Self { shape, present: vec![true; shape.fields().len()] })
    }

    /// The layout of the table called as `shape`, if it has the columns.
    fn of(shape: Shape, found: &[String]) -> Result<Self, String> {
        let has = |field: &&str| found.iter().any(|name| name == field);
        let present: Vec<bool> = shape.fields().iter().map(has).collect();
        let missing = shape.fields().iter().zip(&present);
        let missing = missing.filter(|(field, is_there)| !*is_there && !OPTIONAL.contains(field));
        if let Some((field, _)) = missing.into_iter().next() {
            return Err(format!(
                "{} has no column {field}, found columns {}, expected {}",
                shape.name(),
                found.join(", "),
                shape.fields().join(", ")
            ));
        }
        Ok(Self { shape, present })
    }

    pub(super) fn table(&self) -> Table {
        match self.shape {
            Shape::Task | Shape::TaskResult => Table::Task,
            Shape::Agent => Table::Agent,
            Shape::Swarm => Table::Swarm,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.shape.name()
    }

    pub(super) fn fields(&self) -> &'static [&'static str] {
        self.shape.fields()
    }

    /// What to select: a column for each field, NULL where there is none.
    pub(super) fn columns(&self) -> String {
        let columns = self.fields().iter().zip(&self.present);
        let columns: Vec<&str> =
            columns.map(|(field, is_there)| if *is_there { field } else { "NULL" }).collect();
        columns.join(", ")
    }
}

/// The tables of a database that are known.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) layouts: Vec<Layout>,
    pub(super) has_archive: bool,
}

impl Tables {
    /// Finds the tables, by name and columns.
    ///
    /// # Errors
    ///
    /// `BadInput` naming what was found and expected; `Locked`; `Io`.
    pub(super) fn find(connection: &Connection, path: &Path) -> Result<Self> {
        let failed = |cause: rusqlite::Error| files::error(path, &cause);
        let refuse = |message: String| Error::bad_input(message).with_path(path);
        let names = table_names(connection).map_err(failed)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let mut layouts = Vec::new();
        for shape in [Shape::Task, Shape::Agent, Shape::Swarm] {
            if has(shape.name()) {
                let found = columns(connection, shape.name()).map_err(failed)?;
                let is_older = |name: &str| found.iter().any(|column| column == name);
                let older = shape == Shape::Task && is_older("result") && !is_older("success");
                let shape = if older { Shape::TaskResult } else { shape };
                layouts.push(Layout::of(shape, &found).map_err(refuse)?);
            }
        }
        let has_archive = has(ARCHIVE);
        if has_archive {
            let found = columns(connection, ARCHIVE).map_err(failed)?;
            if !ARCHIVE_COLUMNS.iter().all(|name| found.iter().any(|column| column == name)) {
                let (found, expected) = (found.join(", "), ARCHIVE_COLUMNS.join(", "));
                return Err(refuse(format!(
                    "{ARCHIVE}: found columns {found}, expected {expected}"
                )));
            }
        } else if layouts.is_empty() {
            let found = match names.as_slice() {
                [] => "a database without tables".to_owned(),
                names => format!("found tables {}", names.join(", ")),
            };
            return Err(refuse(format!(
                "{found}, expected task_metrics, agent_metrics, swarm_metrics"
            )));
        }
        Ok(Self { layouts, has_archive })
    }
}

fn table_names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT lower(name) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' \
         ESCAPE '!' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let statement = connection.prepare(&format!("SELECT * FROM {table} LIMIT 0"))?;
    Ok(statement.column_names().map(str::to_ascii_lowercase).collect())
}
