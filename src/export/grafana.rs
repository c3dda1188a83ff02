//! Responses of Grafana's JSON data source: time series and tables.
//!
//! A series is `{"target": name, "datapoints": [[value, ms], ...]}`, its points ascending; a
//! table is `{"type": "table", "columns": [...], "rows": [[...], ...]}` with times in
//! milliseconds.

use crate::error::Result;
use crate::export::document::Nesting;
use crate::export::rows::Field;
use crate::export::text::{Times, push_float, push_int, push_json_text};
use crate::export::{Export, of_owner, owner};
use crate::query::answer::Value;
use crate::query::filter::Filter;
use crate::schema::{ColumnType, Table};

impl Export<'_> {
    pub(super) fn grafana_series(&mut self) -> Result<()> {
        let mut nesting = Nesting::new(self.request.pretty);
        nesting.open(&mut self.sink.buffer, b'[');
        let filter = self.filter();
        for table in self.tables.clone() {
            let default = table.schema().columns[table.schema().measures[0]].name;
            let field = self.request.series.field.as_deref().unwrap_or(default);
            if table == Table::Task {
                for agent in self.names(table, owner(table), &filter)? {
                    let filter = of_owner(table, &filter, &agent);
                    self.series(&mut nesting, table, field, &format!("{agent}.{field}"), &filter)?;
                }
                continue;
            }
            for metric in self.names(table, "metric_type", &filter)? {
                let filter = filter.clone().metric_type(&metric);
                for name in self.names(table, owner(table), &filter)? {
                    let filter = of_owner(table, &filter, &name);
                    self.series(&mut nesting, table, field, &format!("{name}.{metric}"), &filter)?;
                }
            }
        }
        nesting.close(&mut self.sink.buffer, b']');
        self.sink.buffer.push(b'\n');
        Ok(())
    }

    fn series(
        &mut self,
        nesting: &mut Nesting,
        table: Table,
        field: &str,
        target: &str,
        filter: &Filter,
    ) -> Result<()> {
        let series = &self.request.series;
        let (interval, aggregation) = (series.interval, series.aggregation);
        let page = self.snapshot.aggregate_by_time(table, field, interval, aggregation, filter)?;
        self.note(table, page.coverage);
        let out = &mut self.sink.buffer;
        nesting.entry(out);
        out.extend_from_slice(b"{\"target\":");
        push_json_text(out, target);
        out.extend_from_slice(b",\"datapoints\":[");
        for (index, bucket) in page.rows.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
            match bucket.value {
                None => out.extend_from_slice(b"null"),
                Some(Value::Int(value)) => push_int(out, value),
                Some(value) => push_float(out, value.as_f64()),
            }
            out.push(b',');
            push_int(out, bucket.time_bucket.as_micros().div_euclid(1_000));
            out.push(b']');
        }
        out.extend_from_slice(b"]}");
        self.sink.count(page.rows.len());
        self.sink.settle()
    }

    pub(super) fn grafana_tables(&mut self) -> Result<()> {
        let mut nesting = Nesting::new(self.request.pretty);
        nesting.open(&mut self.sink.buffer, b'[');
        for table in self.tables.clone() {
            self.grafana_table(&mut nesting, table)?;
        }
        nesting.close(&mut self.sink.buffer, b']');
        self.sink.buffer.push(b'\n');
        Ok(())
    }

    fn grafana_table(&mut self, nesting: &mut Nesting, table: Table) -> Result<()> {
        let columns = self.columns(table)?;
        let rows = self.ordered(table, &self.request.filter, &columns)?;
        let schema = table.schema();
        let out = &mut self.sink.buffer;
        nesting.entry(out);
        out.extend_from_slice(b"{\"type\":\"table\",\"columns\":[");
        for (index, column) in columns.iter().enumerate() {
            let column = &schema.columns[*column];
            out.extend_from_slice(if index == 0 { b"" } else { b"," });
            out.extend_from_slice(b"{\"text\":");
            push_json_text(out, column.name);
            out.extend_from_slice(b",\"type\":");
            push_json_text(out, type_name(column.kind));
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"rows\":");
        nesting.open(out, b'[');
        let cell = |column: &usize| {
            let position = rows.position(*column);
            match Field::of(schema, *column, position) {
                Field::Time(at) => Cell::Millis(at),
                // A cell holds no object: what is JSON is shown as its text.
                Field::Json(at) => Cell::Field(Field::Text(at)),
                field => Cell::Field(field),
            }
        };
        let cells: Vec<Cell> = columns.iter().map(cell).collect();
        let mut times = Times::default();
        self.write_rows(table, rows, |sink, columns, row| {
            let out = &mut sink.buffer;
            nesting.entry(out);
            for (index, cell) in cells.iter().enumerate() {
                out.push(if index == 0 { b'[' } else { b',' });
                match cell {
                    Cell::Millis(at) => {
                        let stamp = columns[*at].int(row).unwrap_or_default();
                        push_int(out, stamp.div_euclid(1_000));
                    }
                    Cell::Field(field) => field.push_json(out, columns, row, &mut times),
                }
            }
            out.push(b']');
        })?;
        nesting.close(&mut self.sink.buffer, b']');
        self.sink.buffer.push(b'}');
        Ok(())
    }
}

/// A value of a row of a table.
enum Cell {
    Millis(usize),
    Field(Field),
}

fn type_name(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Timestamp => "time",
        ColumnType::Int | ColumnType::Float => "number",
        ColumnType::Bool => "boolean",
        ColumnType::Dimension | ColumnType::Text | ColumnType::Json => "string",
    }
}
