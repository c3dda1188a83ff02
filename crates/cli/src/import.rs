//! `tallystone import`: each file one transaction.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tallystone::import::{
    BadLine, FieldMap, Fingerprint, Format, Hashing, ParsedRow, ReadOptions, fingerprint_of,
    read_rows,
};
use tallystone::{Error, Import, ImportReport, ImportSource, Store};

use crate::args::{Globals, ImportArgs};
use crate::failure::{Exit, Failure};
use crate::files::{self, Rejected};
use crate::{open, output};

pub(crate) fn run(globals: &Globals, args: &ImportArgs) -> Result<Exit, Failure> {
    if let Some(id) = &args.undo {
        return undo(globals, id);
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
    format: Format,
    options: ReadOptions,
}

impl Source {
    fn new(path: &Path, args: &ImportArgs) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let format =
            args.format.map(Format::from).or_else(|| Format::of_name(&name)).ok_or_else(|| {
                Failure::Usage(format!(
                    "{name}: the name does not tell the format, \
                     expected .csv, .jsonl, .ndjson or --format"
                ))
            })?;
        let mut map = if args.map.is_empty() {
            FieldMap::new()
        } else {
            FieldMap::parse(&args.map.join(","))?
        };
        for constant in &args.set {
            map = map.constant(constant)?;
        }
        map.check(args.table)?;
        files::open_source(path)?;
        let time = args.time_format.clone();
        let options = ReadOptions { name, table: args.table, map, time };
        Ok(Self { path: path.to_path_buf(), format, options })
    }
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
    let read_error = |cause| Failure::Store(Error::io("read", &source.path, cause));
    let (file, length) = files::open_source(&source.path)?;
    let bar = progress(length);
    let fingerprint = fingerprint_of(file).map_err(read_error)?;
    let name = source.options.name.clone();
    let Fingerprint { hash, crc32, bytes } = fingerprint;
    let identity = ImportSource { name, hash, crc32, bytes, again: args.again };
    let mut import = store.begin_import(identity)?;

    let mut rejected = Rejected::new(store.dir(), &import.id());
    let (file, _) = files::open_source(&source.path)?;
    let mut input = Hashing::new(bar.wrap_read(file));
    let count = read_rows(
        source.format,
        &mut input,
        &source.options,
        |row| append(&mut import, row),
        |bad| reject(&mut rejected, bad, &source.options.name, args.skip_bad),
    )?;
    // Whatever the parser did not ask for still belongs to the source.
    io::copy(&mut input.by_ref(), &mut io::sink()).map_err(read_error)?;
    if input.fingerprint() != fingerprint {
        let shown = source.path.display();
        return Err(Failure::Other(format!("{shown}: changed while it was read, nothing is kept")));
    }
    rejected.sync()?;
    let report = import.commit()?;
    bar.finish_and_clear();
    Ok(Outcome { report, rejected: count.bad, rejected_file: rejected.keep() })
}

fn append(import: &mut Import, row: &ParsedRow<'_>) -> tallystone::Result<()> {
    match row {
        ParsedRow::Task(row) => import.append_task(row),
        ParsedRow::Agent(row) => import.append_agent(row),
        ParsedRow::Swarm(row) => import.append_swarm(row),
    }
}

fn reject(
    rejected: &mut Rejected,
    bad: &BadLine,
    name: &str,
    skip: bool,
) -> tallystone::Result<()> {
    let error = bad.to_error(name);
    if skip { rejected.write(error.message(), &bad.raw) } else { Err(error) }
}

/// A bar on standard error; nothing where that is not a terminal.
fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let template = "{wide_bar} {bytes}/{total_bytes} {eta}";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
