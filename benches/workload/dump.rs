//! `dump DIR`: the workload as raw columns, for other engines.
//!
//! Owns the files' layout: little-endian numbers, or one text a line. `dump.json` says how
//! many rows there are, and what each question asks.

#![expect(clippy::disallowed_methods, reason = "files of the benchmark, not of a store")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value as Json, json};
use tallystone::column::Batch;
use tallystone::testing::workload::START;

use crate::data::{Asked, BULK_ROWS, SEED, coded, gauges, tasks};

pub(crate) fn dump(dir: &Path, rows: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let batches = tasks(rows, BULK_ROWS, SEED);
    let asked = Asked::of(&batches);
    let mut columns = table(dir, "tasks", &batches);
    drop(batches);
    columns.append(&mut table(dir, "gauges", &gauges(rows, BULK_ROWS, SEED)));
    let facts = json!({
        "rows": rows,
        "seed": SEED,
        "start_us": START,
        "columns": columns,
        "questions": asked.by_question(),
    });
    std::fs::write(dir.join("dump.json"), serde_json::to_string_pretty(&facts).unwrap()).unwrap();
}

/// Writes every column of a table; returns the file and the form of each.
fn table(dir: &Path, table: &str, batches: &[Batch]) -> Map<String, Json> {
    let mut written = Map::new();
    let Some(first) = batches.first() else { return written };
    for (number, column) in first.schema.columns.iter().enumerate() {
        let form = form(table, column.name);
        let name = format!("{table}.{}.{form}", column.name);
        let mut file = BufWriter::new(File::create(dir.join(&name)).unwrap());
        for batch in batches {
            write_column(&mut file, form, batch, number);
        }
        file.flush().unwrap();
        written.insert(format!("{table}.{}", column.name), json!({"file": name, "form": form}));
        if form == "u32" {
            let (_, dictionary) = coded(&first.columns[number]);
            let lines: String = dictionary.iter().map(|text| format!("{text}\n")).collect();
            std::fs::write(dir.join(format!("{table}.{}.txt", column.name)), lines).unwrap();
        }
    }
    written
}

fn form(table: &str, column: &str) -> &'static str {
    match (table, column) {
        (_, "timestamp" | "duration_ms" | "tokens_used") => "i64",
        (_, "agent_id" | "metric_type") => "u32",
        (_, "success") => "u8",
        (_, "value") => "f64",
        _ => "txt",
    }
}

fn write_column(file: &mut impl Write, form: &str, batch: &Batch, number: usize) {
    let column = &batch.columns[number];
    for row in 0..batch.len() {
        match form {
            "i64" => file.write_all(&column.int(row).unwrap().to_le_bytes()),
            "u32" => file.write_all(&coded(column).0[row].to_le_bytes()),
            "u8" => file.write_all(&[u8::from(column.bool(row).unwrap())]),
            "f64" => file.write_all(&column.float(row).unwrap().to_le_bytes()),
            _ => writeln!(file, "{}", column.text(row).unwrap_or_default()),
        }
        .unwrap();
    }
}
