//! `guard`: instructions of key questions, compared with those kept in the repository.
//!
//! Owns counting them with callgrind, whose counts hardly depend on what else the machine
//! does, and the file of counts. A slow-down fails here and not in front of a user.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};

use crate::stores::prepare;

/// Rows of each table.
const ROWS: usize = 200_000;
/// Questions that are counted.
const GUARDED: &[&str] = &[
    "Q1", "Q1p", "Q2", "Q2a", "Q3", "Q4", "Q5", "Q6", "Q7", "Q7a", "Q8", "Q9", "Q10c", "A1", "A2",
    "A3", "A4", "A5",
];
/// How often a question is asked in the two runs whose counts are subtracted, so that
/// opening the store does not count.
const TIMES: (usize, usize) = (4, 24);
/// Share of more instructions that fails. Runs differ by less than half a per cent; other
/// compilers and processors by more.
const MORE: f64 = 0.08;
/// The counts, beside the manifest.
const FILE: &str = "benches/instructions.json";

/// Counts, and compares or writes.
pub(crate) fn guard(dir: &Path, write: bool) -> Result<(), String> {
    let dir = dir.join(ROWS.to_string());
    prepare(&dir, ROWS);
    let mut counts = BTreeMap::new();
    for id in GUARDED {
        counts.insert((*id).to_owned(), of_question(&dir, id)?);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if write {
        let json = json!({"rows": ROWS, "instructions": counts});
        crate::write(&path, &json);
        println!("{} counts written to {FILE}", counts.len());
        return Ok(());
    }
    let kept = read(&path)?;
    let mut slower = Vec::new();
    println!("{:<6} {:>14} {:>14} {:>8}", "row", "kept", "now", "change");
    for (id, count) in &counts {
        let Some(before) = kept["instructions"][id].as_f64() else {
            return Err(format!("{FILE} has no {id}: write it anew with `guard --write`"));
        };
        let change = count / before - 1.0;
        println!("{id:<6} {before:>14.0} {count:>14.0} {:>+7.1}%", change * 100.0);
        if change > MORE {
            slower.push(id.as_str());
        }
    }
    if slower.is_empty() {
        return Ok(());
    }
    let most = MORE * 100.0;
    Err(format!("more than {most} % more instructions than {FILE} says: {}", slower.join(", ")))
}

#[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
fn read(path: &Path) -> Result<Json, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Instructions of one answer.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn of_question(dir: &Path, id: &str) -> Result<f64, String> {
    let (few, many) = (of_run(dir, id, TIMES.0)?, of_run(dir, id, TIMES.1)?);
    Ok((many.saturating_sub(few) as f64 / (TIMES.1 - TIMES.0) as f64).round())
}

/// Instructions of a process that asks a question so often.
fn of_run(dir: &Path, id: &str, times: usize) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let keep = dir.parent().unwrap_or(dir);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--loop", id, "--times", &times.to_string(), "--rows", &ROWS.to_string()])
        .arg("--keep")
        .arg(keep)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected :")?;
        count.trim().parse().ok()
    });
    count.filter(|_| output.status.success()).ok_or_else(|| format!("{id}: valgrind says\n{text}"))
}
