//! Rows as objects of JSON, and what CSV and JSON have in common: fields.

use crate::column::Column;
use crate::error::{Error, Result};
use crate::export::text::{Times, push_float, push_int, push_json, push_json_text, push_seconds};
use crate::export::{Export, Sink};
use crate::query::filter::Filter;
use crate::query::ordered::Ordered;
use crate::schema::{ColumnType, Schema, Table, gauge, task};

/// A value of a row: what it is, and where among the columns that are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Time(usize),
    /// A time as seconds since 1970.
    Seconds(usize),
    Int(usize),
    Float(usize),
    Bool(usize),
    Text(usize),
    Json(usize),
    /// The same in every row.
    Fixed(&'static str),
    /// None.
    Empty,
}

impl Field {
    pub(super) fn of(schema: &Schema, column: usize, position: usize) -> Self {
        match schema.columns[column].kind {
            ColumnType::Timestamp => Self::Time(position),
            ColumnType::Int => Self::Int(position),
            ColumnType::Float => Self::Float(position),
            ColumnType::Bool => Self::Bool(position),
            ColumnType::Dimension | ColumnType::Text => Self::Text(position),
            ColumnType::Json => Self::Json(position),
        }
    }

    /// Appends the value as JSON.
    pub(super) fn push_json(
        self,
        out: &mut Vec<u8>,
        columns: &[Column],
        row: usize,
        times: &mut Times,
    ) {
        let value = match self {
            Self::Time(at) => columns[at].int(row).map(|stamp| {
                out.push(b'"');
                times.push(out, stamp);
                out.push(b'"');
            }),
            Self::Seconds(at) => columns[at].int(row).map(|stamp| push_seconds(out, stamp)),
            Self::Int(at) => columns[at].int(row).map(|value| push_int(out, value)),
            Self::Float(at) => columns[at].float(row).map(|value| push_float(out, value)),
            Self::Bool(at) => columns[at].bool(row).map(|value| push_bool(out, value)),
            Self::Text(at) => columns[at].text(row).map(|text| push_json_text(out, text)),
            Self::Json(at) => columns[at].text(row).map(|json| push_json(out, json)),
            Self::Fixed(text) => {
                push_json_text(out, text);
                Some(())
            }
            Self::Empty => None,
        };
        if value.is_none() {
            out.extend_from_slice(b"null");
        }
    }
}

pub(super) fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Columns of a table in the order in which rows are written.
pub(super) fn written_order(table: Table) -> &'static [usize] {
    match table {
        Table::Task => &[
            task::TASK_ID,
            task::AGENT_ID,
            task::TIMESTAMP,
            task::DURATION_MS,
            task::TOKENS_USED,
            task::SUCCESS,
            task::METADATA,
        ],
        Table::Agent | Table::Swarm => {
            &[gauge::OWNER_ID, gauge::TIMESTAMP, gauge::METRIC_TYPE, gauge::VALUE, gauge::METADATA]
        }
    }
}

/// Objects of JSON, one for each row.
pub(super) struct Objects {
    /// What precedes each value, and the value.
    members: Vec<(Vec<u8>, Field)>,
    times: Times,
}

impl Objects {
    pub(super) fn new(table: Table, columns: &[usize], rows: &Ordered) -> Self {
        let schema = table.schema();
        let member = |(index, column): (usize, &usize)| {
            let name = schema.columns[*column].name;
            let before = format!("{}\"{name}\":", if index == 0 { '{' } else { ',' });
            (before.into_bytes(), Field::of(schema, *column, rows.position(*column)))
        };
        Self { members: columns.iter().enumerate().map(member).collect(), times: Times::default() }
    }

    pub(super) fn push(&mut self, out: &mut Vec<u8>, columns: &[Column], row: usize) {
        for (before, field) in &self.members {
            out.extend_from_slice(before);
            field.push_json(out, columns, row, &mut self.times);
        }
        out.push(b'}');
    }
}

impl Export<'_> {
    /// The columns that were asked for, by number.
    pub(super) fn columns(&self, table: Table) -> Result<Vec<usize>> {
        if self.request.columns.is_empty() {
            return Ok(written_order(table).to_vec());
        }
        let number = |name: &String| {
            let unknown = || Error::invalid(format!("column {name:?}: {table} has no such column"));
            table.schema().column(name).ok_or_else(unknown)
        };
        self.request.columns.iter().map(number).collect()
    }

    /// The rows of a filter in the order asked for.
    pub(super) fn ordered(
        &self,
        table: Table,
        filter: &Filter,
        columns: &[usize],
    ) -> Result<Ordered> {
        Ordered::new(self.snapshot, table, filter, columns, self.request.newest_first)
    }

    /// Writes each row by `each`, and notes what they rest on.
    pub(super) fn write_rows(
        &mut self,
        table: Table,
        mut rows: Ordered,
        mut each: impl FnMut(&mut Sink<'_>, &[Column], usize),
    ) -> Result<u64> {
        let mut written = 0;
        while let Some(some) = rows.next()? {
            for (columns, row) in some.iter() {
                each(&mut self.sink, columns, row);
                self.sink.settle()?;
            }
            written += some.rows.len() as u64;
            self.sink.count(some.rows.len());
        }
        self.note(table, rows.into_coverage());
        Ok(written)
    }

    /// JSON lines: an object a line, table after table.
    pub(super) fn lines(&mut self) -> Result<()> {
        for table in self.tables.clone() {
            let columns = self.columns(table)?;
            let rows = self.ordered(table, &self.request.filter, &columns)?;
            let mut objects = Objects::new(table, &columns, &rows);
            self.write_rows(table, rows, |sink, columns, row| {
                objects.push(&mut sink.buffer, columns, row);
                sink.buffer.push(b'\n');
            })?;
        }
        Ok(())
    }
}
