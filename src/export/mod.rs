//! Rows to text: JSON, JSON lines, CSV, Prometheus, OpenMetrics and Grafana, into any
//! `io::Write`.
//!
//! Owns the formats. It knows no files, and rows come from `query`: in the order of time, a
//! few MiB of them at a time, so that memory does not depend on how many there are.
//!
//! ```
//! # use tallystone::{AgentMetric, Store, Table, Timestamp};
//! # use tallystone::export::{ExportFormat, ExportRequest};
//! # fn main() -> tallystone::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let store = Store::open(dir.path().join("store"))?;
//! # store.keep_everything()?;
//! # store.record_agent(&AgentMetric {
//! #     timestamp: Timestamp::parse("2026-11-23T10:00:00Z")?,
//! #     agent_id: "=planner",
//! #     metric_type: "cpu",
//! #     value: 0.5,
//! #     metadata: None,
//! # })?;
//! # store.commit()?;
//! let mut request = ExportRequest::new(ExportFormat::Csv);
//! request.tables = vec![Table::Agent];
//! let mut text = Vec::new();
//! let report = store.snapshot()?.export(&request, &mut text, &mut |_| {})?;
//! assert_eq!(report.rows, 1);
//! let expected = "agent_id,timestamp,metric_type,value,metadata\r\n\
//!                 '=planner,2026-11-23T10:00:00Z,cpu,0.5,\r\n";
//! assert_eq!(text, expected.as_bytes());
//! # Ok(())
//! # }
//! ```

mod csv;
mod document;
mod exposition;
mod grafana;
mod rows;
mod samples;
mod sink;
mod text;

pub use self::text::is_formula;

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::query::answer::{Coverage, Damage};
use crate::query::filter::{Aggregation, Filter, Limit};
use crate::schema::Table;
use crate::snapshot::Snapshot;
use crate::time::{Interval, Timestamp};
use sink::Sink;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportFormat {
    /// One JSON document: agents with their tasks and gauges, under their swarm where one is
    /// known; or, `flat`, a list for each table.
    Json,
    /// One JSON object on each line, table after table.
    Jsonl,
    /// Comma-separated (RFC 4180), with a header line: of one table its columns, of several
    /// one layout for all.
    Csv,
    /// Prometheus text format 0.0.4: what tasks add up to, and the newest value of each gauge.
    Prometheus,
    /// OpenMetrics 1.0: the same, or with `all_samples` every sample of every series.
    OpenMetrics,
    /// A response of Grafana's JSON data source: time series, or, `flat`, tables.
    Grafana,
}

impl ExportFormat {
    /// The name, as in the command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Prometheus => "prometheus",
            Self::OpenMetrics => "openmetrics",
            Self::Grafana => "grafana",
        }
    }
}

/// What to export, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportRequest {
    /// The format.
    pub format: ExportFormat,
    /// Which tables; if none is named, all that have the columns of the filter.
    pub tables: Vec<Table>,
    /// Which columns, in this order; all if none is named. Only where rows of one table are
    /// written as CSV, JSON lines or a Grafana table.
    pub columns: Vec<String>,
    /// Which rows. A limit and an offset count rows of each table, in the order written; there
    /// is no limit unless one is set.
    pub filter: Filter,
    /// Rows from the newest to the oldest, instead of the other way round.
    pub newest_first: bool,
    /// CSV for programs: lines end in `\n`, and no text is guarded against being taken for a
    /// formula.
    pub raw: bool,
    /// JSON without nesting; Grafana tables instead of series.
    pub flat: bool,
    /// JSON with line breaks and indentation.
    pub pretty: bool,
    /// OpenMetrics with every sample, each with its time, as
    /// `promtool tsdb create-blocks-from openmetrics` reads it.
    pub all_samples: bool,
    /// To which swarm an agent belongs, for nested JSON. Goes before what metadata says.
    pub swarms: BTreeMap<String, String>,
    /// What Grafana series are made of.
    pub series: Series,
    /// When this is; JSON says it.
    pub exported_at: Option<Timestamp>,
}

/// What a time series is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The measure; `duration_ms` of tasks and `value` of gauges if none is named.
    pub field: Option<String>,
    /// How far its points are apart.
    pub interval: Interval,
    /// What a point is of the values of its interval.
    pub aggregation: Aggregation,
}

impl ExportRequest {
    /// Everything, oldest first, in the format's own way.
    pub fn new(format: ExportFormat) -> Self {
        Self {
            format,
            tables: Vec::new(),
            columns: Vec::new(),
            filter: Filter::new(),
            newest_first: false,
            raw: false,
            flat: false,
            pretty: false,
            all_samples: false,
            swarms: BTreeMap::new(),
            series: Series { field: None, interval: Interval::Hour, aggregation: Aggregation::Avg },
            exported_at: None,
        }
    }

    /// Refuses what the format does not have.
    fn check(&self) -> Result<()> {
        use ExportFormat::{Csv, Grafana, Json, Jsonl, OpenMetrics};
        let (format, flat) = (self.format, self.flat);
        let in_rows = matches!(format, Csv | Jsonl) || (flat && matches!(format, Json | Grafana));
        let is_cut = self.filter.limit != Limit::Default && self.filter.limit != Limit::All;
        let given = [
            ("columns", !self.columns.is_empty(), in_rows && format != Json),
            ("newest first", self.newest_first, in_rows || format == Json),
            ("limit", is_cut, in_rows),
            ("offset", self.filter.offset > 0, in_rows),
            ("raw", self.raw, format == Csv),
            ("flat", flat, matches!(format, Json | Grafana)),
            ("pretty", self.pretty, matches!(format, Json | Grafana)),
            ("all samples", self.all_samples, format == OpenMetrics),
            ("swarms", !self.swarms.is_empty(), format == Json && !flat),
        ];
        for (option, is_given, fits) in given {
            if is_given && !fits {
                let shape = if flat { ", flat" } else { "" };
                let message = format!("{option}: not an option of {}{shape}", format.name());
                return Err(Error::invalid(message));
            }
        }
        if !self.columns.is_empty() && !self.is_of_one_table() {
            return Err(Error::invalid("columns: expected one table with them"));
        }
        for (at, name) in self.columns.iter().enumerate() {
            if self.columns[..at].contains(name) {
                return Err(Error::invalid(format!("column {name:?}: named twice, expected once")));
            }
        }
        Ok(())
    }

    /// Whether one table was asked for by its name.
    fn is_of_one_table(&self) -> bool {
        self.tables.first().is_some_and(|first| self.tables.iter().all(|table| table == first))
    }

    /// The tables to be written, in their order.
    fn tables(&self) -> Result<Vec<Table>> {
        let field = self.series.field.as_deref().filter(|_| self.format == ExportFormat::Grafana);
        if !self.tables.is_empty() {
            for table in &self.tables {
                self.filter.check(*table)?;
                field.map_or(Ok(0), |field| table.schema().measure(field))?;
            }
            let tables = Table::ALL.into_iter().filter(|table| self.tables.contains(table));
            return Ok(tables.collect());
        }
        let has = |table: &Table| {
            let field = field.is_none_or(|field| table.schema().measure(field).is_ok());
            field && self.filter.check(*table).is_ok()
        };
        let tables: Vec<_> = Table::ALL.into_iter().filter(has).collect();
        if tables.is_empty() {
            // What is wrong with the filter itself is wrong with it in every table.
            self.filter.range()?;
            return Err(Error::invalid("filter: no table has all of its columns and the field"));
        }
        Ok(tables)
    }
}

/// How far an export is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows written so far, or points or samples.
    pub rows: u64,
    /// Bytes made so far.
    pub bytes: u64,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Rows, or points of series, or samples.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Samples that were left out because their series has another one in the same
    /// millisecond, which is all that Prometheus tells apart.
    pub merged_samples: u64,
    /// What of each table the export rests on.
    pub coverage: Vec<TableCoverage>,
}

/// What the rows of a table rest on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableCoverage {
    /// Name of the table.
    pub table: &'static str,
    /// Its coverage.
    #[serde(flatten)]
    pub coverage: Coverage,
}

impl Snapshot {
    /// Writes rows, or what they add up to, as text.
    ///
    /// Rows are in the order of time, those of one time by their ids, whatever files they are
    /// in: the same rows always make the same text. Memory is constant: a window of about
    /// 8 MiB of rows and its text, however many rows there are, in sealed and in active
    /// segments alike; only rows of the very same microsecond are always held together, and
    /// formats by agent or series remember the names of these. Damaged rows are left out and
    /// reported, as by the row methods.
    ///
    /// `on_progress` is called every few thousand rows.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an option that the format does not have, and a filter or a column
    /// that the table does not have; `Io` and `NoSpace` when `out` refuses (the cause is the
    /// `source` of the error); if the filter is strict, `Corrupt` and `Incomplete`;
    /// `SnapshotGone` before anything is written.
    pub fn export(
        &self,
        request: &ExportRequest,
        out: &mut dyn io::Write,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<ExportReport> {
        request.check()?;
        let tables = request.tables()?;
        let range = request.filter.range()?;
        tables.iter().try_for_each(|table| self.pin(*table, range))?;
        let sink = Sink::new(out, on_progress);
        let mut export =
            Export { snapshot: self, request, tables, sink, coverage: Vec::new(), merged: 0 };
        match request.format {
            ExportFormat::Csv => export.csv()?,
            ExportFormat::Jsonl => export.lines()?,
            ExportFormat::Json if request.flat => export.flat_document()?,
            ExportFormat::Json => export.nested_document()?,
            ExportFormat::OpenMetrics if request.all_samples => export.samples()?,
            ExportFormat::Prometheus | ExportFormat::OpenMetrics => export.exposition()?,
            ExportFormat::Grafana if request.flat => export.grafana_tables()?,
            ExportFormat::Grafana => export.grafana_series()?,
        }
        let (rows, bytes) = export.sink.finish()?;
        let coverage = export.coverage.into_iter();
        let coverage =
            coverage.map(|(table, coverage)| TableCoverage { table: table.name(), coverage });
        let coverage = coverage.collect();
        Ok(ExportReport { rows, bytes, merged_samples: export.merged, coverage })
    }
}

/// An export under way.
struct Export<'a> {
    snapshot: &'a Snapshot,
    request: &'a ExportRequest,
    tables: Vec<Table>,
    sink: Sink<'a>,
    coverage: Vec<(Table, Coverage)>,
    /// Samples left out.
    merged: u64,
}

impl Export<'_> {
    /// The filter of the request, for answers that are figures: what is damaged is reported.
    fn filter(&self) -> Filter {
        let filter = self.request.filter.clone();
        Filter { limit: Limit::All, offset: 0, allow_partial: !filter.strict, ..filter }
    }

    /// The same for a single answer, which has no limit.
    fn figure_filter(&self) -> Filter {
        Filter { limit: Limit::Default, ..self.filter() }
    }

    /// Notes what a part of the export rests on.
    fn note(&mut self, table: Table, coverage: Coverage) {
        let Some((_, known)) = self.coverage.iter_mut().find(|(name, _)| *name == table) else {
            self.coverage.push((table, coverage));
            return;
        };
        let place = |damage: &Damage| (damage.file.clone(), damage.block);
        for damage in coverage.damaged {
            if !known.damaged.iter().any(|other| place(other) == place(&damage)) {
                known.damaged.push(damage);
            }
        }
        for span in coverage.unanswerable {
            if !known.unanswerable.contains(&span) {
                known.unanswerable.push(span);
            }
        }
    }

    /// The values that a dimension has in the rows of a filter, or in what stands for them.
    fn names(&mut self, table: Table, key: &str, filter: &Filter) -> Result<Vec<String>> {
        let field = table.schema().measures[0];
        let field = table.schema().columns[field].name;
        let page = self.snapshot.aggregate_by_key(table, field, key, filter)?;
        self.note(table, page.coverage);
        Ok(page.rows.into_iter().map(|entry| entry.key).collect())
    }
}

/// The dimension that owns the rows of a table: an agent or a swarm.
fn owner(table: Table) -> &'static str {
    match table {
        Table::Task | Table::Agent => "agent_id",
        Table::Swarm => "swarm_id",
    }
}

/// The filter, of one owner.
fn of_owner(table: Table, filter: &Filter, name: &str) -> Filter {
    match table {
        Table::Task | Table::Agent => filter.clone().agent(name),
        Table::Swarm => filter.clone().swarm(name),
    }
}
