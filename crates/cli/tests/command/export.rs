//! Exports: files that appear whole or not at all, pipes, and what each format looks like.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Place, Run, expect_keys};

fn filled() -> Place {
    let place = Place::new();
    let mut tasks = String::from("timestamp,task_id,agent_id,duration_ms,tokens_used,success\n");
    for number in 0..10 {
        tasks.push_str(&format!(
            "2026-01-01T00:{number:02}:00Z,t{number},=a,{},{number},{}\n",
            number * 100,
            number != 3
        ));
    }
    place.file("tasks.csv", tasks.as_bytes());
    place.ok("import tasks.csv --keep");
    place.ok("record agent --agent-id b --metric-type cpu --value 0.5 --timestamp 2026-01-01");
    place.ok("record swarm --swarm-id s --metric-type queue --value 3 --timestamp 2026-01-01");
    place
}

fn read(place: &Place, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::fs::OpenOptions::new()
        .read(true)
        .open(place.path().join(name))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Names of what lies beside the store.
fn names(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn files_and_what_is_said_of_them() {
    let place = filled();
    let out = place.ok("export --table task --output out.csv");
    assert_eq!(out, "out.csv: 10 rows, 478 B\n");
    let text = String::from_utf8(read(&place, "out.csv")).unwrap();
    assert_eq!(text.lines().nth(1), Some("t0,'=a,2026-01-01T00:00:00Z,0,0,true,"));
    assert_eq!(text, place.ok("export --table task --format csv"));
    assert_eq!(text, place.ok("export --table task,task --format csv"), "it is one table");
    let report = place.json("export --table task,agent --format jsonl -o rows.jsonl --strict");
    expect_keys(&report, &["file", "file_bytes", "rows", "bytes", "merged_samples", "coverage"]);
    assert_eq!(report["rows"], 11);
    assert_eq!(report["file_bytes"], read(&place, "rows.jsonl").len());
    assert_eq!(report["coverage"][0]["table"], "task_metrics");
    // A file that is there is replaced.
    place.ok("export --table agent --output out.csv --raw");
    assert_eq!(read(&place, "out.csv").iter().filter(|byte| **byte == b'\n').count(), 2);
    assert_eq!(names(&place), ["out.csv", "rows.jsonl", "store", "tasks.csv"]);
}

#[test]
fn compressed_by_name_or_by_option() {
    let place = filled();
    place.ok("export --output all.jsonl.gz");
    place.ok("export --format jsonl --gzip --output all.bin");
    let bytes = read(&place, "all.jsonl.gz");
    assert_eq!(bytes, read(&place, "all.bin"));
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    let gzip = |args: &[&str]| Command::new("gzip").args(args).current_dir(place.path()).output();
    match gzip(&["-t", "all.jsonl.gz"]) {
        Ok(tested) => {
            assert!(tested.status.success(), "{tested:?}");
            let plain = gzip(&["-dc", "all.jsonl.gz"]).unwrap().stdout;
            assert_eq!(String::from_utf8(plain).unwrap(), place.ok("export --format jsonl"));
        }
        Err(_) => println!("skipped: no gzip to test with"),
    }
}

/// What went out compressed comes in as it is, and goes out again the same.
#[test]
fn compressed_there_and_back_is_the_same() {
    let place = filled();
    let row = r#"{"agent_id":"=\u0000,\"\n","timestamp":"2026-01-01","metric_type":"m","value":-0.0,"metadata":{"a": [1]}}"#;
    place.file("nasty.jsonl", row.as_bytes());
    place.ok("import nasty.jsonl --table agent");
    for (name, options) in [("rows.csv.gz", " --raw"), ("rows.jsonl.gz", "")] {
        for table in ["task", "agent", "swarm"] {
            let again = Place::keeping();
            place.ok(&format!("export --table {table} --output {name}{options}"));
            let source = place.path().join(name);
            let source = source.to_str().unwrap();
            again.ok_args(&["import", source, "--table", table]);
            again.ok(&format!("export --table {table} --output {name}{options}"));
            assert_eq!(read(&place, name), read(&again, name), "{table} in {name}");
        }
    }
}

#[test]
fn a_target_that_cannot_be_written_leaves_nothing() {
    let place = filled();
    std::fs::create_dir(place.path().join("dir.csv")).unwrap();
    let before = names(&place);
    place.run("export --output dir.csv").fails(1, &["dir.csv", "directory"]);
    place.run("export --output none/out.csv").fails(1, &["none/out.csv", "No such file"]);
    place.run("export --output out.csv --table swarm --columns x").fails(2, &["no such column"]);
    if std::path::Path::new("/dev/full").exists() {
        place
            .run("export --format csv --output /dev/full")
            .fails(1, &["error: /dev/full: the export could not be written: No space"]);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = place.command(&["export", "--format", "jsonl"]).stdout(full).output().unwrap();
        Run::of(run).fails(1, &["error: standard output: could not be written: No space"]);
    }
    // What a full disk does, without one: a file may have 512 bytes.
    let limited = "ulimit -f 1; exec \"$0\" export --format json --pretty --output out.json";
    let mut shell = Command::new("sh");
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_tallystone")]).current_dir(place.path());
    let run = Run::of(shell.env("TALLYSTONE_STORE", place.store()).output().unwrap());
    run.fails(1, &["error: out.json: the export could not be written: File too large"]);
    assert!(!run.err.contains("accepted rows"), "{}", run.err);
    assert_eq!(names(&place), before);
}

#[test]
fn usage() {
    let place = filled();
    for (line, parts) in [
        ("export", &["--format"][..]),
        ("export --output out.txt", &["--format"]),
        ("export --format csv --pretty", &["pretty: not an option of csv"]),
        ("export --format csv --field value", &["--field", "grafana"]),
        ("export --format json --json", &["--json", "--output"]),
        ("export --format csv --columns task_id", &["one table"]),
        ("export --format jsonl --table agent --columns value,value", &["\"value\": named twice"]),
        ("export --format csv --table agent --task-id t", &["task_id", "no such column"]),
        ("export --format grafana --field x", &["no table"]),
        ("export --format grafana --percentile 0.5", &["--agg percentile"]),
        ("export --format json --swarm b", &["AGENT=SWARM"]),
    ] {
        place.run(line).fails(2, parts);
    }
}

#[test]
fn each_format() {
    let place = filled();
    let json = |line: &str| -> Value { serde_json::from_str(&place.ok(line)).unwrap() };
    let nested = json("export --format json --pretty --swarm b=s");
    assert_eq!(nested["swarms"][0]["agents"][0]["agent_id"], "b");
    assert_eq!(nested["ungrouped"]["agents"][0]["tasks"][9]["task_id"], "t9");
    assert!(nested["export_info"]["exported_at"].is_string());
    let newest = json("export --format json --flat --newest-first --success false");
    assert_eq!(newest["task_metrics"][0]["task_id"], "t3");
    let series =
        json("export --format grafana --table task --field tokens_used --interval 5m --agg sum");
    assert_eq!(series[0]["target"], "=a.tokens_used");
    assert_eq!(
        series[0]["datapoints"],
        serde_json::json!([[10, 1_767_225_600_000_i64], [35, 1_767_225_900_000_i64]])
    );
    let text = place.ok("export --format prometheus");
    assert!(
        text.contains("tallystone_tasks_total{agent_id=\"=a\",success=\"false\"} 1\n"),
        "{text}"
    );
    let text = place.ok("export --format openmetrics");
    assert!(text.ends_with("queue\"} 3.0 1767225600\n# EOF\n"), "{text}");
    let text = place.ok("export --format openmetrics --all-samples --table task");
    assert!(text.contains("{agent_id=\"=a\",success=\"true\"} 0.9 1767226140\n"), "{text}");
    let bounded = "export --format jsonl --from 2026-01-01T00:02:00Z --to 2026-01-01T00:04:00Z";
    assert_eq!(place.ok(bounded).lines().count(), 2);
}

/// `tallystone export ... | head`: the reader goes away in the middle.
#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    let mut text = String::from("timestamp,task_id,agent_id,success\n");
    for number in 0..20_000 {
        text.push_str(&format!("2026-01-01,a-rather-long-task-id-{number},a,true\n"));
    }
    place.file("many.csv", text.as_bytes());
    place.ok("import many.csv --keep");
    for options in ["csv", "jsonl", "json", "json --pretty", "jsonl --gzip"] {
        let line = format!("export --format {options}");
        let args: Vec<&str> = line.split(' ').collect();
        let mut child =
            place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut [0; 10]).unwrap();
        drop(pipe);
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{options}");
    }
}

/// The page shows what the commands print.
#[test]
fn the_page_of_exports_is_true() {
    let page = include_str!("../../../../docs/exports.md");
    let place = Place::keeping();
    let mut examples = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in block.split("$ tallystone ").skip(1) {
            let (command, expected) = example.split_once('\n').unwrap();
            let printed = place.ok(command).replace('\r', "");
            assert_eq!(without_moment(&printed), without_moment(expected), "{command}");
            examples += 1;
        }
    }
    assert!(examples > 10, "{examples}");
}

/// The text without the time at which it was exported.
fn without_moment(text: &str) -> String {
    let Some((before, after)) = text.split_once("\"exported_at\":\"") else {
        return text.to_owned();
    };
    let (_, after) = after.split_once('"').unwrap();
    format!("{before}{after}")
}
