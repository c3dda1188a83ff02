//! CSV: of one table its columns, of several one layout that has a column for everything.

use crate::column::Column;
use crate::error::Result;
use crate::export::Export;
use crate::export::rows::{Field, push_bool};
use crate::export::text::{Times, push_cell, push_float, push_int, push_seconds};
use crate::query::ordered::Ordered;
use crate::schema::{Table, gauge, task};

/// The columns of several tables in one file. `metric_type` says which table a row is of, and
/// the metric type of a gauge is in `metric_name`.
const COMMON: &str = "metric_type,timestamp,timestamp_iso,agent_id,task_id,swarm_id,\
                      duration_ms,tokens_used,success,metric_name,value,metadata";

/// How a record is written.
struct Records {
    fields: Vec<Field>,
    raw: bool,
    times: Times,
}

impl Records {
    fn push(&mut self, out: &mut Vec<u8>, columns: &[Column], row: usize) {
        for (index, field) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match *field {
                Field::Time(at) => {
                    columns[at].int(row).into_iter().for_each(|stamp| self.times.push(out, stamp));
                }
                Field::Seconds(at) => {
                    columns[at].int(row).into_iter().for_each(|stamp| push_seconds(out, stamp));
                }
                Field::Int(at) => {
                    columns[at].int(row).into_iter().for_each(|value| push_int(out, value));
                }
                Field::Float(at) => {
                    columns[at].float(row).into_iter().for_each(|value| push_float(out, value));
                }
                Field::Bool(at) => {
                    columns[at].bool(row).into_iter().for_each(|value| push_bool(out, value));
                }
                Field::Text(at) | Field::Json(at) => {
                    let text = columns[at].text(row).into_iter();
                    text.for_each(|text| push_cell(out, text, self.raw));
                }
                Field::Fixed(text) => out.extend_from_slice(text.as_bytes()),
                Field::Empty => {}
            }
        }
        self.end(out);
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.raw { b"\n" } else { b"\r\n" });
    }
}

/// The fields of a table in the common layout.
fn common_fields(table: Table, rows: &Ordered) -> Vec<Field> {
    let at = |column| rows.position(column);
    let (time, seconds) = (Field::Time(at(0)), Field::Seconds(at(0)));
    if table == Table::Task {
        return vec![
            Field::Fixed("task"),
            seconds,
            time,
            Field::Text(at(task::AGENT_ID)),
            Field::Text(at(task::TASK_ID)),
            Field::Empty,
            Field::Int(at(task::DURATION_MS)),
            Field::Int(at(task::TOKENS_USED)),
            Field::Bool(at(task::SUCCESS)),
            Field::Empty,
            Field::Empty,
            Field::Json(at(task::METADATA)),
        ];
    }
    let owner = Field::Text(at(gauge::OWNER_ID));
    let (name, agent, swarm) = match table {
        Table::Swarm => ("swarm", Field::Empty, owner),
        _ => ("agent", owner, Field::Empty),
    };
    vec![
        Field::Fixed(name),
        seconds,
        time,
        agent,
        Field::Empty,
        swarm,
        Field::Empty,
        Field::Empty,
        Field::Empty,
        Field::Text(at(gauge::METRIC_TYPE)),
        Field::Float(at(gauge::VALUE)),
        Field::Json(at(gauge::METADATA)),
    ]
}

impl Export<'_> {
    pub(super) fn csv(&mut self) -> Result<()> {
        // Whoever names one table gets its layout, whatever a filter leaves of the others.
        let own = self.request.is_of_one_table();
        let raw = self.request.raw;
        let header = match self.tables.first() {
            Some(table) if own => {
                let columns = self.columns(*table)?;
                let names = columns.iter().map(|column| table.schema().columns[*column].name);
                names.collect::<Vec<_>>().join(",")
            }
            _ => COMMON.to_owned(),
        };
        self.sink.push(&header);
        self.sink.push(if raw { "\n" } else { "\r\n" });
        for table in self.tables.clone() {
            let columns = self.columns(table)?;
            let rows = self.ordered(table, &self.request.filter, &columns)?;
            let fields = if own {
                let schema = table.schema();
                let field = |column: &usize| Field::of(schema, *column, rows.position(*column));
                columns.iter().map(field).collect()
            } else {
                common_fields(table, &rows)
            };
            let mut records = Records { fields, raw, times: Times::default() };
            self.write_rows(table, rows, |sink, columns, row| {
                records.push(&mut sink.buffer, columns, row);
            })?;
        }
        Ok(())
    }
}
