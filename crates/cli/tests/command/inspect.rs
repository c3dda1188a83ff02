//! Every file of a store can be looked at, also a damaged one, and nothing else can.

#![expect(clippy::disallowed_methods, reason = "files are damaged as another program would")]

use std::path::{Path, PathBuf};

use crate::support::Place;

/// A store with a file of nearly every kind.
fn filled() -> Place {
    let place = Place::new();
    place
        .file("in.csv", b"timestamp,task_id,agent_id,duration_ms,success\n2026-01-01,t,a,5,true\n");
    place.ok("import in.csv --keep");
    place.ok("record task --task-id now --agent-id b --success true --duration-ms 7");
    place
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn inspect(place: &Place, path: &Path) -> (i32, serde_json::Value, String) {
    let run = place.run_args(&["inspect", path.to_str().unwrap(), "--json"]);
    assert!(!run.err.contains("panicked"), "{}", run.err);
    (run.code, serde_json::from_str(&run.out).unwrap_or_default(), run.err)
}

#[test]
fn every_file_of_a_store_is_described() {
    let place = filled();
    let mut kinds = Vec::new();
    for path in files(&place.store()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with("-wal") || name.ends_with("-shm") {
            continue;
        }
        let (code, found, err) = inspect(&place, &path);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert_eq!(found["damage"], serde_json::json!([]), "{name}");
        kinds.push(found["kind"].as_str().unwrap().to_owned());
    }
    for kind in [
        "active",
        "segment",
        "catalog",
        "generation",
        "reserve",
        "maintenance.lock",
        "tallystone store",
        "tallystone retention",
        "tallystone import",
    ] {
        assert!(kinds.iter().any(|found| found == kind), "{kind}: {kinds:?}");
    }
    let segment = files(&place.store())
        .into_iter()
        .find(|it| it.extension().is_some_and(|it| it == "segment"));
    let text = place.ok(&format!("inspect {}", segment.unwrap().display()));
    for part in [
        "table      task_metrics",
        "duration_ms",
        "index summaries",
        "1 rows, ",
        "trailer: footer at ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let catalog = place.ok(&format!("inspect {}", place.store().join("catalog.sqlite").display()));
    assert!(catalog.contains("table segments"), "{catalog}");
}

/// As far as it can be read, and then what is wrong and where.
#[test]
fn damaged_files_are_described_as_far_as_they_can_be_read() {
    let place = filled();
    for path in files(&place.store()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let kind = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_owned();
        let good = std::fs::read(&path).unwrap();
        let changes: Vec<(usize, &str)> = match kind.as_str() {
            "segment" => {
                vec![(9, "header copy 0"), (8_300, "at byte "), (good.len() - 9, "trailer")]
            }
            "active" => {
                vec![(4_100, "header copy 1"), (8_200, "at byte 8192"), (8_400, "at byte ")]
            }
            "json" => vec![(20, "")],
            "sqlite" => vec![(3, "")],
            "lock" if good.len() == 20 => vec![(2, "mark")],
            "" if path.parent().unwrap().ends_with("txn") => vec![(30, "")],
            _ => continue,
        };
        for (at, part) in changes {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let (code, found, err) = inspect(&place, &path);
            assert_eq!((code, err.as_str()), (3, ""), "{name}, byte {at}: {found}");
            let damage = found["damage"].as_array().unwrap();
            let is_told = damage.iter().any(|it| it.as_str().unwrap().contains(part));
            assert!(is_told, "{name}, byte {at}: {damage:?}");
        }
        // Cut anywhere, or without a good header.
        for len in (0..good.len()).step_by(good.len() / 9 + 1) {
            std::fs::write(&path, &good[..len]).unwrap();
            let (code, _, err) = inspect(&place, &path);
            assert!(matches!(code, 0 | 1 | 3), "{name} of {len} bytes: {err}");
        }
        if matches!(kind.as_str(), "segment" | "active") {
            let mut bad = good.clone();
            bad[..8_192].fill(0);
            std::fs::write(&path, &bad).unwrap();
            let (code, found, _) = inspect(&place, &path);
            assert_eq!((code, found["kind"].as_str()), (3, Some(kind.as_str())), "{name}");
            // By the id in its name, frames are told from anything else.
            let text = found["description"].as_str().unwrap();
            assert!(text.contains("block") || text.contains("rows"), "{text}");
        }
        std::fs::write(&path, &good).unwrap();
    }
}

#[test]
fn links_pipes_and_strangers_are_refused() {
    let place = filled();
    let link = place.path().join("link.json");
    std::os::unix::fs::symlink(place.store().join("store.json"), &link).unwrap();
    let catalog = place.path().join("catalog.sqlite");
    std::os::unix::fs::symlink(place.store().join("catalog.sqlite"), &catalog).unwrap();
    let pipe = place.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let stranger = place.path().join("thesis.tex");
    std::fs::write(&stranger, "\\documentclass{article}").unwrap();
    for path in [&link, &catalog, &pipe, &stranger, &place.store(), Path::new("/dev/null")] {
        let (code, _, err) = inspect(&place, path);
        assert!(code == 1 && err.contains("not a "), "{}: {code} {err}", path.display());
    }
}

/// A terminal would act on what is in a hostile file.
#[test]
fn text_out_of_a_file_is_escaped() {
    let place = Place::new();
    let hostile =
        "{\"magic\":\"tallystone store\",\"store_id\":\"\u{1b}[2J\u{202e}x\",\"checksum\":\"0\"}";
    place.file("store.json", hostile.as_bytes());
    let run = place.run("inspect store.json");
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(!run.out.contains('\u{1b}') && !run.out.contains('\u{202e}'), "{}", run.out);
    assert!(run.out.contains("[2J"), "{}", run.out);
}
