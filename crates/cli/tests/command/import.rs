//! Imports: what is taken, what is refused, and that a refused file leaves nothing.

use serde_json::json;

use crate::support::{Place, Run};

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
    let null = place.run("import /dev/null --format csv");
    null.fails(1, &["/dev/null: not a regular file, expected one, or a stream as standard input"]);
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

/// A database of an earlier store, with rows of these task ids.
fn database(place: &Place, name: &str, ids: &[&str]) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(place.path().join(name)).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE task_metrics (task_id TEXT, agent_id TEXT, duration_ms INTEGER,
                 result TEXT, tokens_used INTEGER, files_changed INTEGER, timestamp DATETIME);
             CREATE TABLE agent_metrics (metric_id INTEGER PRIMARY KEY, agent_id TEXT,
                 metric_type TEXT, value REAL, metadata TEXT, timestamp DATETIME);
             INSERT INTO agent_metrics VALUES (1, 'a', 'cpu', 0.5, NULL, '2026-01-01T12:00:00');",
        )
        .unwrap();
    for id in ids {
        let sql = "INSERT INTO task_metrics VALUES (?, 'a', 5, 'timeout', 7, 2, ?)";
        connection.execute(sql, [id, "2026-01-01T12:00:00.250000"]).unwrap();
    }
    connection
}

#[test]
fn databases_of_earlier_stores_are_known_by_their_beginning() {
    let place = Place::new();
    drop(database(&place, "metrics.old", &["t1"]));
    let report = place.json("import metrics.old --keep --zone +01:00");
    assert_eq!(report["imports"][0]["rows"], 2);
    let expected = json!({
        "task_id": "t1", "agent_id": "a", "timestamp": "2026-01-01T11:00:00.250Z",
        "duration_ms": 5, "tokens_used": 7, "success": false,
        "metadata": { "result": "timeout", "files_changed": 2 },
    });
    assert_eq!(place.json("query task-metrics")["rows"], json!([expected]));
    assert_eq!(place.rows("agent"), 1);
    place.run("import metrics.old").fails(1, &["the same bytes were imported"]);
    place.ok("import metrics.old --again --table agent");
    assert_eq!((place.rows("task"), place.rows("agent")), (1, 2));
    place.run("import metrics.old --again --map task_id=id").fails(2, &["have known names"]);
    place.run("import metrics.old --again --zone Nowhere").fails(2, &["expected UTC, local"]);
}

#[test]
fn databases_in_use_wrong_or_damaged() {
    let place = Place::keeping();
    let connection = database(&place, "in use.db", &["t1"]);
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    let more = "INSERT INTO task_metrics VALUES ('t2', 'a', 5, 'success', 7, 2, 0)";
    connection.execute_batch(more).unwrap();
    let run = place.run_args(&["import", "in use.db"]);
    assert_eq!((run.code, run.out.contains("3 rows")), (0, true), "{}", run.err);
    drop(connection);

    let connection = database(&place, "bad.db", &["t3"]);
    connection.execute_batch("INSERT INTO task_metrics (task_id) VALUES ('t4')").unwrap();
    drop(connection);
    place.run("import bad.db").fails(1, &["bad.db: task_metrics row 2: timestamp: NULL is not"]);
    assert_eq!(place.rows("task"), 2);
    let report = place.json("import bad.db --skip-bad");
    assert_eq!(report["imports"][0]["rejected"], 1);
    let list = report["imports"][0]["rejected_file"].as_str().unwrap();
    let list = std::fs::read_to_string(list).unwrap();
    assert!(list.starts_with("# bad.db: task_metrics row 2: timestamp: NULL"), "{list}");
    assert!(list.contains("\"task_id\":\"t4\""), "{list}");

    let connection = rusqlite::Connection::open(place.path().join("other.db")).unwrap();
    connection.execute_batch("CREATE TABLE users (id)").unwrap();
    drop(connection);
    place
        .run("import other.db")
        .fails(1, &["other.db", "found tables users, expected task_metrics"]);
    place.file("none.db", b"");
    place.run("import none.db").fails(1, &["none.db", "empty file"]);
    place.file("text.sqlite", b"hello");
    place.run("import text.sqlite").fails(1, &["text.sqlite", "not a SQLite database"]);
    place.file("cut.db", b"SQLite format 3\0");
    place.run("import cut.db").fails(1, &["cut.db"]);
}

#[test]
fn documents_of_both_shapes() {
    let place = Place::keeping();
    let task =
        r#"{"task_id":"t","agent_id":"a","timestamp":"2026-01-01T00:00:00Z","success":true}"#;
    let gauge =
        r#""timestamp":"2026-01-01T00:00:00Z","metric_type":"m","value":1,"metadata":null}"#;
    let (agent, swarm) =
        (format!(r#"{{"agent_id":"a",{gauge}"#), format!(r#"{{"swarm_id":"s",{gauge}"#));
    let nested = format!(
        r#"{{"export_info":{{}},"swarms":[{{"swarm_id":"s","metrics":[{swarm}],"agents":[{{
        "agent_id":"a","tasks":[{task}],"metrics":[{agent}]}}]}}],"ungrouped":{{"agents":[]}}}}"#
    );
    place.file("nested.json", nested.as_bytes());
    place.ok("import nested.json");
    let flat = format!(r#"{{"task_metrics":[{task},{task}],"agent_metrics":[{agent}]}}"#);
    place.file("flat.json", flat.as_bytes());
    place.ok("import flat.json --table task");
    assert_eq!((place.rows("task"), place.rows("agent"), place.rows("swarm")), (3, 1, 1));
    place.file("cut.json", &nested.as_bytes()[..nested.len() - 1]);
    place.run("import cut.json").fails(1, &["cut.json:2: the text ends"]);
    place.file("other.json", b"{\"users\":[]}");
    place.run("import other.json").fails(1, &["other.json:1: a document without rows"]);
    assert_eq!(place.rows("task"), 3);
}

#[test]
fn expositions_of_both_formats() {
    let place = Place::keeping();
    place.file("m.prom", b"# TYPE up gauge\nup{instance=\"h:1\",zone=\"z\"} 1 1700000000123\n");
    place.ok("import m.prom");
    let row = &place.json("query agent-metrics")["rows"][0];
    assert_eq!(
        *row,
        json!({ "agent_id": "h:1", "timestamp": "2023-11-14T22:13:20.123Z", "metric_type": "up",
                "value": 1.0, "metadata": { "zone": "z" } })
    );
    place.file("m.om", b"queue{pool=\"p\"} 7 1700000000.5\n# EOF\n");
    place.ok("import m.om --table swarm --map swarm_id=pool");
    assert_eq!(place.json("query swarm-metrics")["rows"][0]["swarm_id"], "p");
    place.file("cut.om", b"queue{swarm_id=\"p\"} 7 1700000000.5\n");
    place.run("import cut.om --table swarm").fails(1, &["cut.om:1: the end is missing"]);
    place
        .run("import m.prom --table task --again")
        .fails(2, &["expected the table agent or swarm"]);
    place.file("nan.prom", b"up{agent_id=\"a\"} NaN 5\nup{agent_id=\"a\"} 5 5\n");
    place.run("import nan.prom").fails(1, &["nan.prom:1: value: NaN is not a finite number"]);
    let report = place.json("import nan.prom --skip-bad");
    assert_eq!(
        (&report["imports"][0]["rows"], &report["imports"][0]["rejected"]),
        (&json!(1), &json!(1))
    );
}

/// Runs the command with these bytes as its standard input.
fn fed(place: &Place, args: &[&str], bytes: &[u8]) -> Run {
    use std::io::Write as _;
    let mut command = place.command(args);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn compressed_text_goes_in_as_what_it_holds() {
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    };
    let place = Place::keeping();
    let text = format!("{HEADER}\n{ROW}\n");
    let whole = gzip(text.as_bytes());
    place.file("rows.csv.gz", &whole);
    assert!(place.ok("import rows.csv.gz").starts_with("rows.csv.gz: 1 row, "));
    place.run("import rows.csv.gz").fails(1, &["the same bytes were imported"]);
    // Whatever it is called, and in pieces; of any format; and through a pipe.
    place.file("rows", &[gzip(text.as_bytes()), gzip(ROW.as_bytes()), gzip(b"\n")].concat());
    place.ok("import rows --format csv");
    assert_eq!(place.rows("task"), 3);
    let gauge = r#"{"agent_id":"a","timestamp":"2026-01-01","metric_type":"m","value":1}"#;
    for (name, text) in [
        ("a.jsonl.gz", gauge.to_owned()),
        ("a.json.gz", format!("{{\"agent_metrics\":[{gauge}]}}")),
        ("a.prom.gz", "m{agent_id=\"a\"} 1 5\n".to_owned()),
        ("a.om.gz", "m{agent_id=\"a\"} 1 5\n# EOF\n".to_owned()),
    ] {
        place.file(name, &gzip(text.as_bytes()));
        place.ok(&format!("import {name} --table agent"));
    }
    assert_eq!(place.rows("agent"), 4);
    let run = fed(&place, &["import", "-", "--format", "csv", "--again"], &whole);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(place.rows("task"), 4);

    // Whoever passes over bad lines does not pass over the end of the stream.
    let many = gzip(format!("{HEADER}\n{}", format!("{ROW}\n").repeat(5_000)).as_bytes());
    let mut wrong = many.clone();
    let sum = wrong.len() - 8;
    wrong[sum] ^= 1;
    for bytes in [&many[..many.len() - 1], &many[..100], &wrong, &[&many[..], b"x"].concat()] {
        place.file("bad.csv.gz", bytes);
        for line in ["import bad.csv.gz", "import bad.csv.gz --skip-bad"] {
            place.run(line).fails(1, &["error: bad.csv.gz: not a whole gzip stream: "]);
        }
        let run = fed(&place, &["import", "-", "--format", "csv"], bytes);
        run.fails(1, &["error: standard input: not a whole gzip stream: "]);
    }
    place.file("none.csv.gz", &gzip(b""));
    place.run("import none.csv.gz").fails(1, &["none.csv.gz:1: empty file"]);
    place.file("twice.csv.gz", &gzip(&whole));
    place.run("import twice.csv.gz").fails(1, &["twice.csv.gz:1: not a text file"]);
    place.file("some.db.gz", &gzip(b"SQLite format 3\0"));
    place.run("import some.db.gz --format sqlite").fails(1, &["encrypted nor compressed"]);
    let long = format!("{HEADER}\n{ROW}\n{}", "x".repeat(100 << 20));
    place.file("bomb.csv.gz", &gzip(long.as_bytes()));
    place.run("import bomb.csv.gz").fails(1, &["bomb.csv.gz:3: a line of more than 3145728 bytes"]);
    assert_eq!(place.rows("task"), 4);
}

#[test]
fn standard_input_is_a_source_like_any_other() {
    use std::io::Read as _;
    let place = Place::keeping();
    let import = |args: &[&str], bytes: &[u8]| fed(&place, args, bytes);
    let text = format!("{HEADER}\n{ROW}\n");
    let run = import(&["import", "-", "--format", "csv"], text.as_bytes());
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.starts_with("standard input: 1 row, import "), "{}", run.out);
    let again = import(&["import", "-", "--format", "csv"], text.as_bytes());
    again.fails(1, &["standard input: the same bytes were imported"]);
    import(&["import", "-"], text.as_bytes()).fails(2, &["standard input: the name does not tell"]);
    let bad = import(&["import", "-", "--format", "csv"], format!("{text}x\n").as_bytes());
    bad.fails(1, &["standard input:3: 1 field, expected 7"]);
    import(&["import", "-", "--format", "csv"], b"").fails(1, &["standard input:1: empty file"]);
    import(&["import", "-", "-", "--format", "csv"], b"").fails(2, &["expected it once"]);

    drop(database(&place, "piped.db", &["t1"]));
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.read(true).open(place.path().join("piped.db")).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(import(&["import", "-"], &bytes).code, 0, "a database is known by its beginning");
    assert_eq!((place.rows("task"), place.rows("agent")), (2, 1));
}

/// What no line may be, each refused where it stands, and times of any year taken.
#[test]
fn hostile_lines_and_distant_years() {
    let place = Place::keeping();
    let long = format!("{HEADER}\n{ROW}\n2026-01-01,t,{},1,1,true,\n{ROW}\n", "x".repeat(10 << 20));
    place.file("long.csv", long.as_bytes());
    place.run("import long.csv").fails(1, &["long.csv:3: a line of more than 3145728 bytes"]);
    let report = place.json("import long.csv --skip-bad");
    assert_eq!(
        (&report["imports"][0]["rows"], &report["imports"][0]["rejected"]),
        (&json!(2), &json!(1))
    );
    let list = report["imports"][0]["rejected_file"].as_str().unwrap();
    assert!(std::fs::metadata(list).unwrap().len() < 4 << 20, "the line is cut");
    place.file("twice.csv", b"timestamp,task_id,agent_id,success,task_id\n");
    place.run("import twice.csv").fails(1, &["twice.csv:1: column \"task_id\" is there twice"]);
    let twice = b"{\"timestamp\":\"2026-01-01\",\"timestamp\":\"2026-01-02\"}\n";
    place.file("twice.jsonl", twice);
    place.run("import twice.jsonl").fails(1, &["twice.jsonl:1: key \"timestamp\" is there twice"]);
    for (name, bytes, expected) in [
        ("nul.jsonl", &b"{}\n\0\n"[..], "nul.jsonl:1: "),
        ("utf8.prom", b"# x\na{agent_id=\"\xff\"} 1\n", "utf8.prom:2: invalid UTF-8"),
        (
            "utf8.json",
            b"{\"task_metrics\":[\n{\"task_id\":\"\xff\"}]}",
            "utf8.json:2: invalid UTF-8",
        ),
    ] {
        place.file(name, bytes);
        place.run(&format!("import {name}")).fails(1, &[expected]);
    }
    assert_eq!(place.rows("task"), 2);
    let rows = "0001-01-01T00:00:00Z,t1,a,1,1,true,\n9999-12-31T23:59:59.999999Z,t2,a,1,1,true,\n\
                1969-12-31T23:59:59Z,t3,a,1,1,true,\n2262-04-12T00:00:00Z,t4,a,1,1,true,\n";
    place.file("years.csv", format!("{HEADER}\n{rows}").as_bytes());
    place.ok("import years.csv");
    assert_eq!(place.rows("task"), 6);
}
