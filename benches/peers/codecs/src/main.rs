//! Bytes a value of the columns of an archive, beside what `pco` and plain zstd make of the
//! same values in the same blocks. Prints a table in Markdown.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use pco::ChunkConfig;
use tallystone::column::{Column, Values};
use tallystone::testing::workload::{Gauges, Tasks};
use tallystone::{
    Filter, MaintenanceRequest, MaintenanceWork, Options, Retention, Store, Table, TableRetention,
    Tiers,
};

const ROWS: usize = 1_000_000;
const SEED: u64 = 1;
const PCO_LEVEL: usize = 8;
const ZSTD_LEVEL: i32 = 19;

/// Bytes and values of a column by codec.
#[derive(Default)]
struct Sizes {
    values: usize,
    ours: usize,
    pco: usize,
    zstd: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let mut sizes: BTreeMap<String, Sizes> = BTreeMap::new();
    for table in [Table::Task, Table::Agent] {
        let dir = scratch.path().join(table.name());
        let store = archive(&dir, table)?;
        for path in archives(&dir.join(table.name()))? {
            ours(&path, table, &mut sizes)?;
        }
        others(&store, table, &mut sizes)?;
    }
    println!("| column | values | archive | pco {PCO_LEVEL} | zstd {ZSTD_LEVEL} of 8 bytes each |");
    println!("|---|---:|---:|---:|---:|");
    for (column, size) in sizes.iter().filter(|(_, size)| size.values > 0) {
        let per = |bytes: usize| bytes as f64 / size.values as f64;
        let Sizes { values, ours, pco, zstd } = size;
        println!(
            "| {column} | {values} | {:.3} | {:.3} | {:.3} |",
            per(*ours),
            per(*pco),
            per(*zstd)
        );
    }
    Ok(())
}

/// A store of the workload whose days are all archived.
fn archive(dir: &Path, table: Table) -> Result<Store, Box<dyn Error>> {
    let store = Store::open_with(dir, Options { maintenance: None, ..Options::default() })?;
    let tiers =
        Tiers { detailed_days: 0, archive_days: Tiers::DAYS_MAX, hourly_days: 0, daily_days: 0 };
    let rule = TableRetention::Tiers(tiers);
    store.set_retention(&Retention { task: rule, agent: rule, swarm: rule, max_bytes: None })?;
    let mut appender = store.appender()?;
    let (mut tasks, mut gauges) = (Tasks::new(ROWS, SEED), Gauges::new(ROWS, SEED));
    loop {
        let batch = match table {
            Table::Task => tasks.next_batch(65_536),
            _ => gauges.next_batch(65_536),
        };
        let Some(batch) = batch else { break };
        appender.append_columns(table, batch)?;
    }
    appender.flush()?;
    let what = MaintenanceWork::All;
    store.maintain(&MaintenanceRequest { what, accept_clock: true, dry_run: false })?;
    Ok(store)
}

fn archives(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for day in std::fs::read_dir(dir)? {
        for file in std::fs::read_dir(day?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "archive") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Adds the bytes of column chunks, as `inspect` prints them.
fn ours(
    path: &Path,
    table: Table,
    sizes: &mut BTreeMap<String, Sizes>,
) -> Result<(), Box<dyn Error>> {
    let text = tallystone::inspect::describe(path)?;
    let mut in_block = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, _, "block", ..] => in_block = true,
            [_, _, "index" | "dictionary" | "footer", ..] => in_block = false,
            [_, name, "encoding", _, bytes, "bytes", ..] if in_block => {
                let size = sizes.entry(format!("{table}.{name}")).or_default();
                size.ours += bytes.parse::<usize>()?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Compresses the values of the same blocks with the other codecs.
fn others(
    store: &Store,
    table: Table,
    sizes: &mut BTreeMap<String, Sizes>,
) -> Result<(), Box<dyn Error>> {
    let snapshot = store.snapshot()?;
    for block in snapshot.columns(table, &Filter::new(), None)? {
        let block = block?;
        for (field, column) in table.schema().columns.iter().zip(&block.columns) {
            let name = format!("{table}.{}", field.name);
            add(column, sizes.entry(name).or_default())?;
        }
    }
    Ok(())
}

fn add(column: &Column, size: &mut Sizes) -> Result<(), Box<dyn Error>> {
    let config = ChunkConfig::default().with_compression_level(PCO_LEVEL);
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, ZSTD_LEVEL).map(|frame| frame.len());
    match &column.values {
        Values::Int(values) => {
            size.pco += pco::standalone::simple_compress(values, &config)?.len();
            size.zstd += zstd(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
            size.values += values.len();
        }
        Values::Float(values) => {
            size.pco += pco::standalone::simple_compress(values, &config)?.len();
            size.zstd += zstd(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
            size.values += values.len();
        }
        Values::Coded { codes, .. } => {
            size.pco += pco::standalone::simple_compress(codes, &config)?.len();
            let bytes = codes.iter().flat_map(|code| u64::from(*code).to_le_bytes());
            size.zstd += zstd(&bytes.collect::<Vec<_>>())?;
            size.values += codes.len();
        }
        _ => {}
    }
    Ok(())
}
