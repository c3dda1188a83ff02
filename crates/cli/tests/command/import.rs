//! Imports: what is taken, what is refused, and that a refused file leaves nothing.

use serde_json::json;

use crate::support::Place;

const HEADER: &str = "timestamp,task_id,agent_id,duration_ms,tokens_used,success,metadata";
const ROW: &str = "2026-01-01T00:00:00Z,t1,a1,5,,true,\"{\"\"k\"\": 1}\"";

#[test]
fn every_way_to_end_a_line() {
    for text in [
        format!("{HEADER}\n{ROW}\n"),
        format!("{HEADER}\n{ROW}"),
        format!("{HEADER}\r\n{ROW}\r\n"),
        format!("{HEADER}\r\n{ROW}"),
        format!("\u{feff}{HEADER}\r\n{ROW}\r\n\r\n"),
    ] {
        let place = Place::new();
        place.file("in.csv", text.as_bytes());
        let report = place.json("import in.csv --keep");
        assert_eq!(report["imports"][0]["rows"], 1, "{text:?}");
        let expected = json!({
            "task_id": "t1", "agent_id": "a1", "timestamp": "2026-01-01T00:00:00Z",
            "duration_ms": 5, "tokens_used": null, "success": true, "metadata": { "k": 1 },
        });
        assert_eq!(place.json("query task-metrics")["rows"], json!([expected]), "{text:?}");
    }
}

/// Bad inputs, each after good rows where it can be.
#[test]
fn bad_inputs_say_where_and_leave_nothing() {
    let bad_line = |line: &str| format!("{HEADER}\n{ROW}\n{line}\n{ROW}\n").into_bytes();
    let cases: [(Vec<u8>, &[&str]); 13] = [
        (bad_line("2026-01-01,t,a,1,1,true"), &["in.csv:3: 6 fields, expected 7"]),
        (bad_line("2026-01-01,t,a,1,1,true,,"), &["in.csv:3: 8 fields, expected 7"]),
        (bad_line("2026-01-01,t,a,1.5,1,true,"), &["in.csv:3: duration_ms: \"1.5\"", "expected"]),
        (bad_line("2026-01-01,t,a,1,x,true,"), &["in.csv:3: tokens_used: \"x\"", "expected"]),
        (bad_line("2026-01-01,t,a,1,1,maybe,"), &["in.csv:3: success: \"maybe\"", "true, false"]),
        (
            bad_line("01/02/2026,t,a,1,1,true,"),
            &["in.csv:3: timestamp: \"01/02/2026\"", "RFC 3339"],
        ),
        (bad_line("2026-01-01,,a,1,1,true,"), &["in.csv:3: task_id", "expected"]),
        (bad_line("2026-01-01,t,a,1,1,true,{"), &["in.csv:3: metadata", "not JSON"]),
        (
            format!("{HEADER}\n2026-01-01,\"t,a,1,1,true,\n2026-01-01,t,a,1,1,true,\n").into(),
            &["in.csv:2: a quote", "never closed"],
        ),
        (
            b"timestamp,task,agent_id,success\n2026-01-01,t,a,true\n".to_vec(),
            &["in.csv:1: unknown column \"task\", expected timestamp, task_id"],
        ),
        (b"timestamp,task_id,agent_id\n".to_vec(), &["in.csv:1: no column \"success\""]),
        (Vec::new(), &["in.csv:1: empty file, expected a header line"]),
        (b"\x7fELF\x02\x01\x01\0\0\0".to_vec(), &["in.csv:1: not a text file", "NUL byte"]),
    ];
    let place = Place::new();
    place.ok("record swarm --swarm-id s --metric-type m --value 1");
    for (bytes, parts) in cases {
        place.file("in.csv", &bytes);
        place.run("import in.csv --keep").fails(1, parts);
        assert_eq!(place.rows("task"), 0, "{parts:?}");
    }
    place.file("in.csv", format!("{HEADER}\n{ROW}\n").as_bytes());
    place.ok("import in.csv --keep");
    assert_eq!(place.rows("task"), 1, "the good file goes in after all");
}

#[test]
fn files_that_cannot_be_read() {
    let place = Place::new();
    place.run("import none.csv").fails(1, &["none.csv", "No such file"]);
    std::fs::create_dir(place.path().join("dir.csv")).unwrap();
    place.run("import dir.csv").fails(1, &["dir.csv: a directory, expected a file"]);
    assert!(!place.store().exists());
}

#[test]
fn bad_lines_can_be_passed_over() {
    let place = Place::new();
    let text = format!("{HEADER}\n{ROW}\nbad\n{ROW}\n2026-01-01,t,a,1,1,no,\n");
    place.file("in.csv", text.as_bytes());
    let report = place.json("import in.csv --skip-bad --keep");
    let report = &report["imports"][0];
    assert_eq!((&report["rows"], &report["rejected"]), (&json!(2), &json!(2)));
    assert_eq!(place.rows("task"), 2);
    let id = report["id"].as_str().unwrap();
    let path = place.store().join("quarantine").join(format!("import-{id}.rejected"));
    assert!(report["rejected_file"].as_str().unwrap().ends_with(&format!("import-{id}.rejected")));
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        "# in.csv:3: 1 field, expected 7 as in the header\nbad\n\
         # in.csv:5: success: \"no\" is not a flag, expected true, false, 1 or 0\n\
         2026-01-01,t,a,1,1,no,\n"
    );
}

#[test]
fn a_source_goes_in_once_and_can_be_taken_back() {
    let place = Place::new();
    place.file("in.csv", format!("{HEADER}\n{ROW}\n").as_bytes());
    let report = place.json("import in.csv --keep");
    let id = report["imports"][0]["id"].as_str().unwrap().to_owned();
    place.file("copy.csv", format!("{HEADER}\n{ROW}\n").as_bytes());
    place.run("import copy.csv").fails(1, &["imported"]);
    assert_eq!(place.rows("task"), 1);
    place.ok("import copy.csv --again");
    assert_eq!(place.rows("task"), 2);
    let out = place.ok(&format!("import --undo {id}"));
    assert_eq!(out, "took back 1 row of in.csv\n");
    assert_eq!(place.rows("task"), 1);
}

#[test]
fn names_times_and_constants_of_other_people() {
    let place = Place::new();
    place.file("cpu.csv", b"timestamp,value\r\n2014-02-14 14:30:00,0.132\r\n");
    let run = place.run_args(&[
        "import",
        "cpu.csv",
        "--keep",
        "--table",
        "agent",
        "--set",
        "agent_id=i-1",
        "--set",
        "metric_type=cpu",
        "--time-format",
        "%Y-%m-%d %H:%M:%S",
    ]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.starts_with("cpu.csv: 1 row, import "), "{}", run.out);
    let row = &place.json("query agent-metrics")["rows"][0];
    assert_eq!(
        (&row["agent_id"], &row["timestamp"]),
        (&json!("i-1"), &json!("2014-02-14T14:30:00Z"))
    );

    place.file("jobs.ndjson", br#"{"at":1700000000123,"job":"j1","worker":"w","ok":1,"x":{}}"#);
    place.ok("import jobs.ndjson --keep --time-format ms \
              --map timestamp=at,task_id=job --map agent_id=worker,success=ok");
    let row = &place.json("query task-metrics")["rows"][0];
    assert_eq!(
        (&row["task_id"], &row["timestamp"]),
        (&json!("j1"), &json!("2023-11-14T22:13:20.123Z"))
    );
}

#[test]
fn files_after_a_bad_one_wait_and_those_before_stay() {
    let place = Place::new();
    let good = |id: &str| format!("{HEADER}\n{}\n", ROW.replace("t1", id));
    place.file("1.csv", good("one").as_bytes());
    place.file("2.csv", b"");
    place.file("3.csv", good("three").as_bytes());
    let run = place.run("import 1.csv 2.csv 3.csv --keep");
    run.fails(1, &["2.csv:1: empty file"]);
    assert!(run.out.starts_with("1.csv: 1 row, "), "{}", run.out);
    assert_eq!(place.rows("task"), 1);
}

/// What the next pass of retention would delete is refused at the door.
#[test]
fn rows_past_retention_need_a_decision() {
    let place = Place::new();
    place.file("in.csv", format!("{HEADER}\n{}\n", ROW.replace("2026", "1999")).as_bytes());
    place.run("import in.csv").fails(1, &["in.csv: timestamp: 1999-", "import --keep"]);
    assert_eq!(place.rows("task"), 0);
    place.ok("import in.csv --keep");
    assert_eq!(place.rows("task"), 1);
}
