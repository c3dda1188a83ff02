//! The ledger: one line for each shard of a campaign that was run, and never changed again.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value as Json, json};

/// What a shard counted.
pub(crate) struct Entry {
    pub(crate) test: &'static str,
    /// What [`commit`] said when it began.
    pub(crate) commit: String,
    /// The cases, `first..end`.
    pub(crate) seeds: String,
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) failures: u64,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trust-ledger.jsonl")
}

/// The commit that is checked out, marked where files were changed since.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let changed = git(&["status", "--porcelain", "--", "src", "benches/trust"]).unwrap_or_default();
    if changed.is_empty() { head } else { format!("{head}+") }
}

/// Appends a line.
pub(crate) fn append(entry: &Entry) {
    let Entry { test, commit, seeds, count, seconds, failures } = entry;
    let seconds = (seconds * 10.0).round() / 10.0;
    let line = json!({
        "test": test,
        "commit": commit,
        "seeds": seeds,
        "count": count,
        "seconds": seconds,
        "failures": failures,
    });
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path()).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The first case that no shard of the test has run.
pub(crate) fn next(test: &str) -> u64 {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let end = |line: &str| {
        let entry: Json = serde_json::from_str(line).ok()?;
        let ended = entry["test"] == test;
        entry["seeds"].as_str().filter(|_| ended)?.split("..").nth(1)?.parse().ok()
    };
    text.lines().filter_map(end).max().unwrap_or(0)
}

/// The begin and the end of the table in `RELIABILITY.md` that [`summarise`] writes.
const MARKS: [&str; 2] = ["<!-- ledger -->\n", "<!-- end of ledger -->\n"];

/// Prints what all shards of each campaign come to, and writes it into `RELIABILITY.md`.
pub(crate) fn summarise(campaigns: &[(&str, &str)]) {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let entries: Vec<Json> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut table = "| campaign | counted | violations | since the last | hours |\n".to_owned();
    table.push_str("|---|---|---|---|---|\n");
    for (name, what) in campaigns {
        let shards: Vec<&Json> = entries.iter().filter(|entry| entry["test"] == *name).collect();
        let number = |entry: &Json, field: &str| entry[field].as_u64().unwrap_or(0);
        let count: u64 = shards.iter().map(|entry| number(entry, "count")).sum();
        let failures: u64 = shards.iter().map(|entry| number(entry, "failures")).sum();
        let clean = shards.iter().rev().take_while(|entry| number(entry, "failures") == 0);
        let since: u64 = clean.map(|entry| number(entry, "count")).sum();
        let seconds: f64 = shards.iter().filter_map(|entry| entry["seconds"].as_f64()).sum();
        if !shards.is_empty() {
            let (count, since, hours) = (grouped(count), grouped(since), seconds / 3_600.0);
            table.push_str(&format!(
                "| `{name}` | {count} {what} | {failures} | {since} | {hours:.2} |\n"
            ));
        }
    }
    print!("{table}");
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("RELIABILITY.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    let [begin, end] = MARKS;
    std::fs::write(&page, format!("{before}{begin}{table}{end}{after}")).unwrap();
}

/// A number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
