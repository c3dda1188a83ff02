//! `tallystone import`: each file one transaction.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tallystone::import::{
    FieldMap, Fingerprint, Format, Hashing, ParsedRow, ReadCount, ReadOptions, SqliteSource,
    fingerprint_of, is_sqlite, read_rows,
};
use tallystone::{Error, Import, ImportReport, ImportSource, Store, Table};
use tempfile::NamedTempFile;

use crate::args::{FormatArg, Globals, ImportArgs};
use crate::failure::{Exit, Failure};
use crate::files::{self, Rejected};
use crate::{open, output};

pub(crate) fn run(globals: &Globals, args: &ImportArgs) -> Result<Exit, Failure> {
    if let Some(id) = &args.undo {
        return undo(globals, id);
    }
    if args.files.iter().filter(|path| path.as_os_str() == STDIN).count() > 1 {
        return Err(Failure::Usage("- is standard input, expected it once".to_owned()));
    }
    let sources = args.files.iter().map(|path| Source::new(path, args));
    let sources = sources.collect::<Result<Vec<_>, Failure>>()?;
    let store = open::for_writing(&globals.store)?;
    if args.keep {
        store.keep_everything()?;
    }
    let mut out = output::stdout();
    let mut outcomes = Vec::new();
    let mut failure = None;
    for source in &sources {
        match import_one(&store, source, args) {
            Ok(outcome) if globals.json => outcomes.push(outcome),
            Ok(outcome) => outcome.print(&mut out)?,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    // Files before the one that failed are in the store, and are reported.
    if globals.json && (failure.is_none() || !outcomes.is_empty()) {
        output::json(&mut out, &serde_json::json!({ "imports": outcomes }))?;
    }
    io::Write::flush(&mut out)?;
    store.close()?;
    failure.map_or(Ok(Exit::Ok), Err)
}

fn undo(globals: &Globals, id: &str) -> Result<Exit, Failure> {
    let store = open::existing(&globals.store)?;
    // The command line was fine: an unknown id is a failure, not a question of usage.
    let report = store.undo_import(id).map_err(|error| Failure::Other(error.to_string()))?;
    store.close()?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &serde_json::json!({ "undone": report }))?;
    } else {
        let rows = output::counted(report.rows, "row");
        let source = output::escape(&report.source);
        io::Write::write_fmt(&mut out, format_args!("took back {rows} of {source}\n"))?;
    }
    io::Write::flush(&mut out)?;
    Ok(Exit::Ok)
}

/// A file to import, checked as far as can be without reading it.
struct Source {
    path: PathBuf,
    format: FormatArg,
    options: ReadOptions,
    /// Holds what came from standard input, and goes with this.
    _spool: Option<NamedTempFile>,
}

impl Source {
    fn new(given: &Path, args: &ImportArgs) -> Result<Self, Failure> {
        let (name, path, spool) = if given.as_os_str() == STDIN {
            let spool = files::spool(io::stdin().lock())?;
            ("standard input".to_owned(), spool.path().to_path_buf(), Some(spool))
        } else {
            (given.display().to_string(), given.to_path_buf(), None)
        };
        let opened = files::open_source(&path);
        let format = match (args.format.or_else(|| of_name(&name)), &opened) {
            (Some(format), _) => format,
            (None, Ok((file, _))) if is_sqlite(&files::beginning(file, &path)?) => {
                FormatArg::Sqlite
            }
            _ => {
                return Err(Failure::Usage(format!(
                    "{name}: the name does not tell the format, \
                     expected .csv, .jsonl, .json, .prom, .om, .db or --format"
                )));
            }
        };
        let table = args.table.or(match format {
            FormatArg::Csv | FormatArg::Jsonl => Some(Table::Task),
            FormatArg::Prometheus | FormatArg::OpenMetrics => Some(Table::Agent),
            FormatArg::Json | FormatArg::Sqlite => None,
        });
        let mut map = if args.map.is_empty() {
            FieldMap::new()
        } else {
            FieldMap::parse(&args.map.join(","))?
        };
        for constant in &args.set {
            map = map.constant(constant)?;
        }
        if let Some(table) = table {
            map.check(table)?;
        }
        // A command line that makes no sense is told first.
        opened?;
        let mut options = ReadOptions::new(name, table);
        options.map = map;
        options.time = args.time_format.clone();
        options.zone = args.zone.clone();
        Ok(Self { path, format, options, _spool: spool })
    }

    fn read_error(&self, cause: io::Error) -> Failure {
        Failure::Store(Error::io("read", self.options.name.as_ref(), cause))
    }
}

/// What stands for standard input.
const STDIN: &str = "-";

/// Tells the format by the end of a file's name.
fn of_name(name: &str) -> Option<FormatArg> {
    if let Some(format) = Format::of_name(name) {
        return Some(match format {
            Format::Csv => FormatArg::Csv,
            Format::Jsonl => FormatArg::Jsonl,
            Format::Json => FormatArg::Json,
            Format::Prometheus => FormatArg::Prometheus,
            Format::OpenMetrics => FormatArg::OpenMetrics,
        });
    }
    let (_, extension) = name.rsplit_once('.')?;
    let known = ["db", "sqlite", "sqlite3"];
    known.contains(&extension.to_ascii_lowercase().as_str()).then_some(FormatArg::Sqlite)
}

/// What came of one file.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: ImportReport,
    rejected: u64,
    rejected_file: Option<PathBuf>,
}

impl Outcome {
    fn print(&self, out: &mut impl io::Write) -> Result<(), Failure> {
        let rows = output::counted(self.report.rows, "row");
        let source = output::escape(&self.report.source);
        writeln!(out, "{source}: {rows}, import {}", self.report.id)?;
        if let Some(path) = &self.rejected_file {
            let rejected = output::counted(self.rejected, "bad line");
            writeln!(out, "  {rejected} left out, see {}", path.display())?;
        }
        Ok(())
    }
}

fn import_one(store: &Store, source: &Source, args: &ImportArgs) -> Result<Outcome, Failure> {
    let format = match source.format {
        FormatArg::Csv => Format::Csv,
        FormatArg::Jsonl => Format::Jsonl,
        FormatArg::Json => Format::Json,
        FormatArg::Prometheus => Format::Prometheus,
        FormatArg::OpenMetrics => Format::OpenMetrics,
        FormatArg::Sqlite => return import_sqlite(store, source, args),
    };
    let read_error = |cause| source.read_error(cause);
    let (file, length) = files::open_source(&source.path)?;
    let bar = progress(length, "{wide_bar} {bytes}/{total_bytes} {eta}");
    let fingerprint = fingerprint_of(file).map_err(read_error)?;
    let mut target = Target::new(store, source, fingerprint, args)?;

    let (file, _) = files::open_source(&source.path)?;
    let mut input = Hashing::new(bar.wrap_read(file));
    let count = read_rows(
        format,
        &mut input,
        &source.options,
        |row| append(&mut target.import, row),
        |bad| target.rejected.take(bad, &source.options.name, args.skip_bad),
    )?;
    // Whatever the parser did not ask for still belongs to the source.
    io::copy(&mut input.by_ref(), &mut io::sink()).map_err(read_error)?;
    if input.fingerprint() != fingerprint {
        let shown = &source.options.name;
        return Err(Failure::Other(format!("{shown}: changed while it was read, nothing is kept")));
    }
    bar.finish_and_clear();
    target.commit(count)
}

fn import_sqlite(store: &Store, source: &Source, args: &ImportArgs) -> Result<Outcome, Failure> {
    let database = SqliteSource::open(&source.path)?;
    let bar = progress(0, "{spinner} {human_pos} rows {elapsed}");
    let mut target = Target::new(store, source, database.fingerprint(), args)?;
    let mut rows = 0;
    let count = database.read(
        &source.options,
        |row| {
            rows += 1;
            if rows % ROWS_SHOWN == 0 {
                bar.set_position(rows);
            }
            append(&mut target.import, row)
        },
        |bad| target.rejected.take(bad, &source.options.name, args.skip_bad),
    )?;
    bar.finish_and_clear();
    target.commit(count)
}

/// Rows between two looks at the bar.
const ROWS_SHOWN: u64 = 4096;

/// Where the rows of a source go.
struct Target {
    import: Import,
    rejected: Rejected,
}

impl Target {
    fn new(
        store: &Store,
        source: &Source,
        fingerprint: Fingerprint,
        args: &ImportArgs,
    ) -> Result<Self, Failure> {
        let Fingerprint { hash, crc32, bytes } = fingerprint;
        let name = source.options.name.clone();
        let identity = ImportSource { name, hash, crc32, bytes, again: args.again };
        let import = store.begin_import(identity)?;
        let rejected = Rejected::new(store.dir(), &import.id());
        Ok(Self { import, rejected })
    }

    fn commit(mut self, count: ReadCount) -> Result<Outcome, Failure> {
        self.rejected.sync()?;
        let report = self.import.commit()?;
        Ok(Outcome { report, rejected: count.bad, rejected_file: self.rejected.keep() })
    }
}

fn append(import: &mut Import, row: &ParsedRow<'_>) -> tallystone::Result<()> {
    match row {
        ParsedRow::Task(row) => import.append_task(row),
        ParsedRow::Agent(row) => import.append_agent(row),
        ParsedRow::Swarm(row) => import.append_swarm(row),
    }
}

/// A bar on standard error; nothing where that is not a terminal.
fn progress(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
