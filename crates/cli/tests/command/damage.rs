//! Stats and checks of a sound store, and exit code 3 for a damaged one.

#![expect(clippy::disallowed_methods, reason = "files are damaged as another program would")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::support::Place;

fn filled() -> Place {
    let place = Place::new();
    let mut text = String::from("timestamp,task_id,agent_id,duration_ms,success\n");
    for number in 0..5_000 {
        text.push_str(&format!("2026-01-01,t{number},a{},{number},true\n", number % 7));
    }
    place.file("in.csv", text.as_bytes());
    place.ok("import in.csv --keep");
    place
}

#[test]
fn a_sound_store() {
    let place = filled();
    let stats = place.json("stats");
    let rows = stats["tables"].as_array().unwrap().iter().map(|t| t["rows"].as_u64().unwrap());
    assert_eq!(rows.sum::<u64>(), 5_000);
    assert!(place.ok("stats").contains("5,000 rows in "));
    for line in ["verify", "verify --deep"] {
        let report = place.json(line);
        assert_eq!(report["rows"], 5_000, "{line}");
        assert_eq!(report["problems"].as_array().unwrap().len(), 0, "{line}");
    }
    assert!(place.ok("verify").ends_with("no problem found\n"));
    let report = place.json("rebuild-catalog");
    assert_eq!(report["rows"], 5_000);
    assert_eq!(place.rows("task"), 5_000);
}

#[test]
fn damage_is_met_with_3() {
    let place = filled();
    flip_a_byte(&data_file(&place.store().join("task_metrics")));
    let run = place.run("verify");
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    let run = place.run("query task-metrics --limit all --json");
    assert_eq!(run.code, 3, "{}", run.err);
    let page: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert!(!page["coverage"]["damaged"].as_array().unwrap().is_empty());
    assert!(page["rows"].as_array().unwrap().len() < 5_000);
    let run = place.run("query task-metrics --limit all --strict");
    assert_eq!((run.code, run.out.as_str()), (3, ""), "{}", run.err);
}

#[test]
fn exports_of_damaged_rows_say_so() {
    let place = filled();
    flip_a_byte(&data_file(&place.store().join("task_metrics")));
    for format in ["csv", "jsonl", "json", "prometheus", "openmetrics", "grafana"] {
        let run = place.run(&format!("export --format {format}"));
        assert_eq!(run.code, 3, "{format}: {}", run.err);
        assert!(run.err.contains("note: task_metrics: damaged: "), "{format}: {}", run.err);
        let run = place.run(&format!("export --format {format} --strict --output strict.out"));
        assert_eq!(run.code, 3, "{format}: {}", run.err);
        assert!(!place.path().join("strict.out").exists(), "{format}");
    }
}

#[test]
fn a_repair_says_what_is_lost_and_leaves_a_sound_store() {
    let place = filled();
    assert_eq!(place.ok("repair"), "nothing to repair\n");
    let path = data_file(&place.store().join("task_metrics"));
    flip_a_byte(&path);
    let damaged = std::fs::read(&path).unwrap();
    let verified = place.run("verify --deep");
    assert_eq!(verified.code, 3);
    let told = "(5,000 rows lost, 2026-01-01T00:00:00Z to 2026-01-01T00:00:00Z)";
    assert!(verified.out.contains(", block 0: at byte 8392: "), "{}", verified.out);
    assert!(verified.out.contains(told), "{}", verified.out);
    let dry = place.run("repair --dry-run --json");
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    let dry: serde_json::Value = serde_json::from_str(&dry.out).unwrap();
    let run = place.run("repair --json");
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let lost = report["rows_lost"].as_u64().unwrap();
    assert_eq!((run.code, lost), (3, 5_000), "{}", run.err);
    assert_eq!(dry["rows_lost"], lost);
    let kept = report["files"][0]["set_aside"].as_str().unwrap();
    assert_eq!(std::fs::read(place.store().join(kept)).unwrap(), damaged);
    assert!(place.ok("verify --deep").ends_with("no problem found\n"));
    assert_eq!(place.rows("task") as u64, 5_000 - lost);
    assert_eq!(place.ok("repair"), "nothing to repair\n");
    place.run("repair --store nowhere").fails(1, &["no such directory"]);
}

#[test]
fn a_store_that_is_not_trusted_answers_the_same_and_is_not_written_to() {
    let place = filled();
    let before = place.json("query task-metrics --limit all");
    assert_eq!(place.json("query task-metrics --limit all --untrusted"), before);
    assert_eq!(place.ok("export --format csv --untrusted"), place.ok("export --format csv"));
    assert!(place.ok("verify --deep --untrusted").ends_with("no problem found\n"));
    assert!(place.ok("stats --untrusted").contains("5,000 rows in "));
    place.run("repair --untrusted").fails(2, &["--untrusted goes with query"]);
    // Its rows are somewhere else: they are not its own.
    let (table, elsewhere) = (place.store().join("task_metrics"), place.path().join("else"));
    std::fs::rename(&table, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &table).unwrap();
    assert_eq!(place.rows("task"), 5_000);
    let rows = place.json("query task-metrics --limit all --untrusted");
    assert_eq!(rows["rows"].as_array().unwrap().len(), 0);
}

/// The largest file with rows.
fn data_file(dir: &Path) -> PathBuf {
    let mut files = Vec::new();
    for partition in std::fs::read_dir(dir).unwrap() {
        for file in std::fs::read_dir(partition.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            files.push((path.metadata().unwrap().len(), path));
        }
    }
    files.sort();
    files.pop().unwrap().1
}

/// Behind the two headers, where the first rows are.
fn flip_a_byte(path: &Path) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let offset = SeekFrom::Start(2 * 4096 + 200);
    let mut byte = [0];
    file.seek(offset).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(offset).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}
