//! Rows a second of imports, on the tasks and gauges of the workload that all figures share.
//!
//! `cargo bench --bench import [ROWS]` writes a source of each format, then reads it twice
//! over: `read` only parses, `import` takes it into an empty store and commits, with the
//! fingerprint that tells a source which was imported before.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]
#![expect(clippy::disallowed_methods, reason = "files of the benchmark, not of a store")]

mod sources;

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use tallystone::import::{
    BadLine, Fingerprint, ParsedRow, ReadCount, ReadOptions, SqliteSource, fingerprint_of,
    read_rows,
};
use tallystone::{Import, ImportSource, Result, Store};

use sources::Source;

/// Rows of a source unless told otherwise.
const ROWS: usize = 1_000_000;
/// Runs of each measurement, of which the best counts.
const RUNS: usize = 3;

fn main() {
    // Cargo passes `--bench`; test runs pass other options and are content with a few rows.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rows = arguments.iter().find_map(|text| text.parse().ok());
    let is_bench = arguments.iter().any(|text| text == "--bench");
    let rows = rows.unwrap_or(if is_bench { ROWS } else { 1_000 });
    let only = arguments.iter().find(|text| text.starts_with(char::is_alphabetic));
    let scratch = tempfile::tempdir_in("target").unwrap();
    println!("{:<12} {:>8} {:>16} {:>16}", "format", "MB", "read rows/s", "import rows/s");
    for source in sources::all() {
        if only.is_some_and(|only| only != source.name) {
            continue;
        }
        let path = scratch.path().join(source.name);
        (source.write)(&path, rows);
        let bytes = path.metadata().unwrap().len() as f64 / 1e6;
        let read = best(|| read(&source, &path, |_| Ok(())).rows);
        let import = best(|| import(&source, &path, scratch.path()));
        println!("{:<12} {bytes:>8.0} {read:>16.0} {import:>16.0}", source.name);
        std::fs::remove_file(&path).unwrap();
    }
}

/// The most rows a second of a few runs.
fn best(run: impl Fn() -> u64) -> f64 {
    let one = |_| {
        let begun = Instant::now();
        run() as f64 / begun.elapsed().as_secs_f64()
    };
    (0..RUNS).map(one).fold(0.0, f64::max)
}

fn read(
    source: &Source,
    path: &Path,
    on_row: impl FnMut(&ParsedRow<'_>) -> Result<()>,
) -> ReadCount {
    let options = ReadOptions::new("source", source.table);
    let on_bad = |bad: &BadLine| Err(bad.to_error("source"));
    match source.format {
        Some(format) => {
            let file = File::open(path).unwrap();
            read_rows(format, file, &options, on_row, on_bad).unwrap()
        }
        None => SqliteSource::open(path).unwrap().read(&options, on_row, on_bad).unwrap(),
    }
}

fn import(source: &Source, path: &Path, scratch: &Path) -> u64 {
    let dir = tempfile::tempdir_in(scratch).unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    store.keep_everything().unwrap();
    let Fingerprint { hash, crc32, bytes } = fingerprint_of(File::open(path).unwrap()).unwrap();
    let name = source.name.to_owned();
    let identity = ImportSource { name, hash, crc32, bytes, again: false };
    let mut import = store.begin_import(identity).unwrap();
    let count = read(source, path, |row| append(&mut import, row));
    import.commit().unwrap();
    store.close().unwrap();
    count.rows
}

fn append(import: &mut Import, row: &ParsedRow<'_>) -> Result<()> {
    match row {
        ParsedRow::Task(row) => import.append_task(row),
        ParsedRow::Agent(row) => import.append_agent(row),
        ParsedRow::Swarm(row) => import.append_swarm(row),
    }
}
