//! Everything out: the demo's store as files of each format.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::ProgressBar;
use serde::Serialize;
use tallystone::export::{ExportFormat, ExportRequest, Series};
use tallystone::{Aggregation, Error, Interval, Snapshot, Table};

use crate::export::write_file;
use crate::failure::Failure;
use crate::output::{self, Cell, Columns, Record};

/// A file that was written.
#[derive(Debug, Serialize)]
pub(super) struct Exported {
    file: PathBuf,
    /// The command's options that write the same.
    options: &'static str,
    rows: u64,
    bytes: u64,
    ms: f64,
}

const EXPORTED: Columns<'static> = &["file", "rows", "bytes", "ms", "tallystone export"];

impl Record for Exported {
    fn cells(&self) -> Vec<Cell<'_>> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        vec![
            Cell::Text(name),
            Cell::count(self.rows),
            Cell::count(self.bytes),
            Cell::Float(self.ms.round()),
            Cell::text(self.options),
        ]
    }
}

/// Where the exports of a demo lie.
pub(super) fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push("-exports");
    dir.with_file_name(name)
}

type Change = fn(&mut ExportRequest);

/// Name of the file, format, options of the command, and what they ask for.
const FILES: [(&str, ExportFormat, &str, Change); 8] = [
    ("everything.csv", ExportFormat::Csv, "--format csv", |_| {}),
    ("tasks.csv.gz", ExportFormat::Csv, "--format csv --table task --raw --gzip", |request| {
        request.tables = vec![Table::Task];
        request.raw = true;
    }),
    ("everything.jsonl", ExportFormat::Jsonl, "--format jsonl", |_| {}),
    ("everything.json", ExportFormat::Json, "--format json --pretty", |request| {
        request.pretty = true;
    }),
    ("now.prom", ExportFormat::Prometheus, "--format prometheus", |_| {}),
    ("now.openmetrics", ExportFormat::OpenMetrics, "--format openmetrics", |_| {}),
    (
        "samples.openmetrics",
        ExportFormat::OpenMetrics,
        "--format openmetrics --all-samples",
        |request| request.all_samples = true,
    ),
    (
        "grafana.json",
        ExportFormat::Grafana,
        "--format grafana --table agent --interval 1h --agg max",
        |request| {
            request.tables = vec![Table::Agent];
            request.series =
                Series { field: None, interval: Interval::Hour, aggregation: Aggregation::Max };
        },
    ),
];

/// Writes all of them.
#[expect(clippy::disallowed_methods, reason = "a directory beside the store")]
pub(super) fn write(snapshot: &Snapshot, dir: &Path) -> Result<Vec<Exported>, Failure> {
    let failed = |cause| Failure::Store(Error::io("create", dir, cause));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut written = Vec::new();
    for (name, format, options, change) in FILES {
        let mut request = ExportRequest::new(format);
        change(&mut request);
        let file = dir.join(name);
        let (start, gzip) = (Instant::now(), name.ends_with(".gz"));
        let (report, bytes) = write_file(snapshot, &request, &file, gzip, &ProgressBar::hidden())?;
        let ms = super::ms(start.elapsed());
        written.push(Exported { file, options, rows: report.rows, bytes, ms });
    }
    Ok(written)
}

pub(super) fn print(
    out: &mut impl Write,
    exported: &[Exported],
    dir: &Path,
) -> Result<(), Failure> {
    output::table(out, 2, EXPORTED, exported)?;
    writeln!(out, "  in {}", dir.display())?;
    Ok(())
}
