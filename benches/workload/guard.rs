//! `guard`: instructions of key questions, compared with those kept in the repository.
//!
//! Owns counting them with callgrind, whose counts hardly depend on what else the machine
//! does, and the file of counts. A slow-down fails here and not in front of a user.

use std::collections::{BTreeMap, BTreeSet};
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
/// Share of more instructions that fails. Runs differ by less than one per cent, and builds of
/// the same sources in other directories by up to six: functions are inlined differently.
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
    let kept: Json = serde_json::from_slice(&read(&path)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
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

#[expect(clippy::disallowed_methods, reason = "files of the benchmark, not of a store")]
fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Instructions of one answer.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn of_question(dir: &Path, id: &str) -> Result<f64, String> {
    let (few, many) = (of_run(dir, id, TIMES.0)?, of_run(dir, id, TIMES.1)?);
    Ok((many.saturating_sub(few) as f64 / (TIMES.1 - TIMES.0) as f64).round())
}

/// Instructions of a process that asks a question so often, outside of the C library: what an
/// allocation takes there hangs on the state of the heap, and what a copy takes on the processor.
fn of_run(dir: &Path, id: &str, times: usize) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let keep = dir.parent().unwrap_or(dir);
    let profile = keep.join("profile");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(this)
        .args(["--loop", id, "--times", &times.to_string(), "--rows", &ROWS.to_string()])
        .arg("--keep")
        .arg(keep)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let text = read(&profile).ok().filter(|_| output.status.success());
    let text = text.ok_or_else(|| format!("{id}: valgrind says\n{said}"))?;
    match outside_of_libc(&String::from_utf8_lossy(&text)) {
        0 => Err(format!("{id}: no counts in what valgrind wrote")),
        count => Ok(count),
    }
}

/// Sums up the costs of a profile (callgrind's own format, "Callgrind Format Specification" in
/// the manual of Valgrind). Objects are named once, and by their number afterwards.
fn outside_of_libc(profile: &str) -> u64 {
    let (mut libraries, mut is_libc, mut sum) = (BTreeSet::new(), false, 0);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("calls=") {
            // What the callee took is counted where it is itself.
            lines.next();
        } else if let Some(object) = line.strip_prefix("ob=").or(line.strip_prefix("cob=")) {
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            if name.rsplit('/').next().is_some_and(|name| name.starts_with("libc.so")) {
                libraries.insert(number);
            }
            if line.starts_with("ob=") {
                is_libc = libraries.contains(number);
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let count = line.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok());
            sum += count.filter(|_| !is_libc).unwrap_or(0);
        }
    }
    sum
}
