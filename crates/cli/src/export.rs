//! `tallystone export`: rows as files for other programs.

use std::error::Error as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tallystone::export::{ExportFormat, ExportReport, ExportRequest, Progress, Series};
use tallystone::time::{Clock, SystemClock};
use tallystone::{Aggregation, Filter, Interval, Snapshot, Table};

use crate::args::{ExportArgs, Globals};
use crate::failure::{Exit, Failure};
use crate::files::Target;
use crate::output::{self, bytes, counted};
use crate::query::{missing, note, rows_of};
use crate::{files, open};

/// What came of an export into a file.
#[derive(Serialize)]
struct Outcome<'a> {
    file: &'a Path,
    /// Bytes of the file.
    file_bytes: u64,
    #[serde(flatten)]
    report: &'a ExportReport,
}

pub(crate) fn run(globals: &Globals, args: &ExportArgs) -> Result<Exit, Failure> {
    if globals.json && args.output.is_none() {
        let message = "--json: expected --output with it, since standard output is the export";
        return Err(Failure::Usage(message.to_owned()));
    }
    let request = request(args)?;
    let store = open::as_told(globals)?;
    let snapshot = store.snapshot()?;
    let bar = progress(&snapshot, &request);
    let gzip = args.gzip || args.output.as_deref().is_some_and(|path| ends_in(path, "gz"));
    let report = match &args.output {
        None => write(&snapshot, &request, &mut io::stdout().lock(), gzip, &bar)?.0,
        Some(path) => {
            let (report, file_bytes) = write_file(&snapshot, &request, path, gzip, &bar)?;
            let mut out = output::stdout();
            if globals.json {
                output::json(&mut out, &Outcome { file: path, file_bytes, report: &report })?;
            } else {
                let name = path.display().to_string();
                let rows = counted(report.rows, unit(&request));
                writeln!(out, "{}: {rows}, {}", output::escape(&name), bytes(file_bytes))?;
            }
            out.flush()?;
            report
        }
    };
    bar.finish_and_clear();
    Ok(notes(&report))
}

/// What the format is made of.
fn unit(request: &ExportRequest) -> &'static str {
    match request.format {
        ExportFormat::Prometheus | ExportFormat::OpenMetrics => "sample",
        ExportFormat::Grafana if !request.flat => "point",
        _ => "row",
    }
}

/// Says what is missing, and how to end.
fn notes(report: &ExportReport) -> Exit {
    let mut exit = Exit::Ok;
    for part in &report.coverage {
        missing(&part.coverage).iter().for_each(|text| note(&format!("{}: {text}", part.table)));
        if Exit::of(&part.coverage) != Exit::Ok {
            exit = Exit::Damaged;
        }
    }
    if report.merged_samples > 0 {
        let left_out = counted(report.merged_samples, "sample");
        note(&format!("{left_out} left out: their series have a later one in the millisecond"));
    }
    exit
}

/// Writes a file, which appears when it is complete; its bytes.
pub(crate) fn write_file(
    snapshot: &Snapshot,
    request: &ExportRequest,
    path: &Path,
    gzip: bool,
    bar: &ProgressBar,
) -> Result<(ExportReport, u64), Failure> {
    let not_written = |cause: &io::Error| {
        let name = path.display();
        Failure::Other(format!("{name}: the export could not be written: {cause}"))
    };
    let mut target = Target::create(path).map_err(|cause| not_written(&cause))?;
    let written = write(snapshot, request, &mut target, gzip, bar);
    let (report, file_bytes) = written.map_err(|failure| match failure {
        Failure::Output(cause) => not_written(&cause),
        other => other,
    })?;
    target.publish().map_err(|cause| not_written(&cause))?;
    Ok((report, file_bytes))
}

/// Writes the export, compressed if that is wanted; what came of it, and the bytes written.
fn write(
    snapshot: &Snapshot,
    request: &ExportRequest,
    out: &mut dyn Write,
    gzip: bool,
    bar: &ProgressBar,
) -> Result<(ExportReport, u64), Failure> {
    let mut out = files::Counted::new(out);
    let mut on_progress = |progress: Progress| bar.set_position(progress.rows);
    let report = if gzip {
        let mut encoder = GzEncoder::new(&mut out, Compression::default());
        let report = snapshot.export(request, &mut encoder, &mut on_progress);
        let report = report.map_err(|error| failure(&error))?;
        encoder.finish()?;
        report
    } else {
        let report = snapshot.export(request, &mut out, &mut on_progress);
        report.map_err(|error| failure(&error))?
    };
    out.flush()?;
    let file_bytes = out.bytes();
    Ok((report, file_bytes))
}

/// What could not be written is a matter of the output, not of the store.
fn failure(error: &tallystone::Error) -> Failure {
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if error.path().is_none() => {
            let code = cause.raw_os_error().map(io::Error::from_raw_os_error);
            Failure::Output(code.unwrap_or_else(|| cause.kind().into()))
        }
        _ => Failure::Store(error.clone()),
    }
}

fn request(args: &ExportArgs) -> Result<ExportRequest, Failure> {
    let format = args.format.map(ExportFormat::from);
    let format = format.or_else(|| args.output.as_deref().and_then(format_of_name));
    let format = format.ok_or_else(|| {
        Failure::Usage("the format is not known, expected --format, or --output FILE.csv".into())
    })?;
    let is_series = format == ExportFormat::Grafana && !args.flat;
    let of_series = [
        ("--field", args.field.is_some()),
        ("--interval", args.interval.is_some()),
        ("--agg", args.agg.is_some()),
        ("--percentile", args.percentile.is_some()),
    ];
    if let Some((option, _)) = of_series.iter().find(|(_, is_given)| *is_given && !is_series) {
        return Err(Failure::Usage(format!("{option}: an option of --format grafana series")));
    }
    let rank = args.percentile;
    let aggregation = match args.agg {
        Some(agg) => agg.with_rank(rank).map_err(Failure::Usage)?,
        None if rank.is_some() => {
            return Err(Failure::Usage("--percentile: expected --agg percentile with it".into()));
        }
        None => Aggregation::Avg,
    };
    Ok(ExportRequest {
        tables: args.table.clone(),
        columns: args.columns.clone(),
        filter: Filter { strict: args.strict, ..rows_of(&args.filter)? },
        newest_first: args.newest_first,
        raw: args.raw,
        flat: args.flat,
        pretty: args.pretty,
        all_samples: args.all_samples,
        swarms: args.swarm.iter().cloned().collect(),
        series: Series {
            field: args.field.clone(),
            interval: args.interval.unwrap_or(Interval::Hour),
            aggregation,
        },
        exported_at: Some(SystemClock.now()),
        ..ExportRequest::new(format)
    })
}

/// The format that the end of a name tells, before `.gz` too.
fn format_of_name(path: &Path) -> Option<ExportFormat> {
    let path = if ends_in(path, "gz") { path.with_extension("") } else { PathBuf::from(path) };
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(ExportFormat::Csv),
        "json" => Some(ExportFormat::Json),
        "jsonl" | "ndjson" => Some(ExportFormat::Jsonl),
        _ => None,
    }
}

fn ends_in(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case(extension))
}

/// A bar on standard error, of as many rows as there are at most; nothing where that is not a
/// terminal.
fn progress(snapshot: &Snapshot, request: &ExportRequest) -> ProgressBar {
    let tables = Table::ALL.into_iter();
    let tables = tables.filter(|table| request.tables.is_empty() || request.tables.contains(table));
    let bar = ProgressBar::new(tables.map(|table| snapshot.rows(table)).sum());
    let template = "{wide_bar} {human_pos} rows {elapsed}";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        for (name, expected) in [
            ("a.csv", Some(ExportFormat::Csv)),
            ("a.CSV.GZ", Some(ExportFormat::Csv)),
            ("dir.csv/a.ndjson", Some(ExportFormat::Jsonl)),
            ("a.json.gz", Some(ExportFormat::Json)),
            ("a.gz", None),
            ("csv", None),
            ("a.txt", None),
        ] {
            assert_eq!(format_of_name(Path::new(name)), expected, "{name}");
        }
    }
}
