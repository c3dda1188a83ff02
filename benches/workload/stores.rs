//! The two stores of a run, built or found: one of tasks, one of gauges.
//!
//! Owns their folder, their options, loading and sealing them, and their size.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tallystone::column::Batch;
use tallystone::{Durability, Options, Store, Table};

use crate::data::{Asked, BULK_ROWS, SEED, gauges, tasks};
use crate::questions::Subject;

/// Options of every store: answers are timed, not looked up, and what was replaced goes.
pub(crate) fn options(durability: Durability) -> Options {
    Options { result_cache: 0, unlink_grace: Duration::ZERO, durability, ..Options::default() }
}

/// A store that keeps everything: the days of the workload are long past.
pub(crate) fn create(dir: &Path, durability: Durability) -> Store {
    let store = Store::open_with(dir, options(durability)).unwrap();
    store.keep_everything().unwrap();
    store
}

/// Where the store of a table is.
pub(crate) fn place(dir: &Path, table: Table) -> PathBuf {
    dir.join(table.name())
}

/// Appends everything and makes it durable; how long that took.
pub(crate) fn load(store: &Store, table: Table, batches: Vec<Batch>) -> Duration {
    let mut appender = store.appender().unwrap();
    let start = Instant::now();
    for batch in batches {
        appender.append_columns(table, batch).unwrap();
    }
    appender.flush().unwrap();
    start.elapsed()
}

/// Rows and bytes of a table in files of a kind (`active`, `segment`).
pub(crate) fn size(store: &Store, kind: &str) -> (u64, u64) {
    let stats = store.stats().unwrap();
    let found = stats.tables.iter().filter(|table| table.kind == kind);
    found.fold((0, 0), |(rows, bytes), table| (rows + table.rows, bytes + table.bytes))
}

/// Bytes of all files below a folder.
pub(crate) fn bytes_of_files(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| match entry.metadata().unwrap() {
        facts if facts.is_dir() => bytes_of_files(&entry.path()),
        facts => facts.len(),
    });
    bytes.sum()
}

/// Builds both stores unless they are there, sealed; what is asked of them.
#[expect(clippy::disallowed_methods, reason = "a folder of the benchmark, not of a store")]
pub(crate) fn prepare(dir: &Path, rows: usize) -> Asked {
    if let Some(asked) = Asked::read(dir) {
        assert_eq!(asked.rows, rows, "{} holds another number of rows", dir.display());
        return asked;
    }
    std::fs::create_dir_all(dir).unwrap();
    let batches = tasks(rows, BULK_ROWS, SEED);
    let asked = Asked::of(&batches);
    build(dir, Table::Task, batches);
    build(dir, Table::Agent, gauges(rows, BULK_ROWS, SEED));
    asked.write(dir);
    asked
}

fn build(dir: &Path, table: Table, batches: Vec<Batch>) {
    let place = place(dir, table);
    if place.exists() {
        // Left by a run that did not finish.
        std::fs::remove_dir_all(&place).unwrap();
    }
    let store = create(&place, Durability::default());
    load(&store, table, batches);
    store.seal().unwrap();
    store.close().unwrap();
}

/// Both stores, open for reading and writing as a service has them.
pub(crate) fn open(dir: &Path, asked: &Asked) -> (Subject, [Store; 2]) {
    open_with(dir, asked, options(Durability::default()))
}

/// As [`open`], without maintenance in the background: what it does would count with the answers.
pub(crate) fn open_alone(dir: &Path, asked: &Asked) -> (Subject, [Store; 2]) {
    open_with(dir, asked, Options { maintenance: None, ..options(Durability::default()) })
}

fn open_with(dir: &Path, asked: &Asked, options: Options) -> (Subject, [Store; 2]) {
    let open = |table| Store::open_with(place(dir, table), options.clone()).unwrap();
    let stores = [open(Table::Task), open(Table::Agent)];
    let [tasks, gauges] = [&stores[0], &stores[1]].map(|store| store.snapshot().unwrap());
    (Subject::new(tasks, gauges, asked, dir.join("exported")), stores)
}
