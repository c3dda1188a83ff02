//! Recording from a shell.

use std::process::Stdio;

use crate::support::{Place, Run};

#[test]
fn one_row_of_each_table() {
    let place = Place::keeping();
    let run = place.run(
        "record task --task-id t1 --agent-id a1 --duration-ms 1200 --tokens-used 5 \
         --success true --timestamp 2026-01-02T03:04:05.678901Z --metadata {\"k\":[1,2.50]}",
    );
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{}", run.err);
    place.ok("record agent --agent-id a1 --metric-type cpu --value -0.5 --timestamp 2026-01-02");
    let printed = place.json("record swarm --swarm-id s1 --metric-type queue --value 7");
    assert_eq!(printed, serde_json::json!({ "recorded": 1 }));

    let page = place.ok("query task-metrics --json");
    let row = concat!(
        r#"{"task_id":"t1","agent_id":"a1","timestamp":"2026-01-02T03:04:05.678901Z","#,
        r#""duration_ms":1200,"tokens_used":5,"success":true,"metadata":{"k":[1,2.50]}}"#
    );
    assert!(page.starts_with(&format!("{{\"rows\":[{row}]")), "{page}");
    assert_eq!(place.json("query agent-metrics")["rows"][0]["value"], -0.5);
    assert_eq!(place.rows("swarm"), 1);
}

#[test]
fn a_row_that_breaks_a_rule_makes_no_store() {
    let place = Place::new();
    let task = "record task --agent-id a --success true";
    let empty = ["record", "task", "--task-id", "", "--agent-id", "a", "--success", "true"];
    place.run_args(&empty).fails(1, &["task_id: \"\" is empty"]);
    place.run(&format!("{task} --task-id t --metadata {{")).fails(1, &["metadata", "is not JSON"]);
    place.run("record agent --agent-id a --metric-type m --value nan").fails(1, &["value: NaN"]);
    assert!(!place.store().exists());
}

#[test]
fn many_shells_at_once() {
    let place = Place::new();
    let shells: Vec<_> = (0..8)
        .map(|number| {
            let id = number.to_string();
            let args = ["record", "task", "--task-id", &id, "--agent-id", "a", "--success", "true"];
            place.command(&args).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut shell in shells {
        assert!(shell.wait().unwrap().success());
    }
    assert_eq!(place.json("query summary")["total_tasks"], 8);
}

/// `ulimit -f` raises a signal that would end the process without a word.
#[test]
fn the_file_size_limit_is_an_error() {
    let place = Place::new();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -f 1 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tallystone")]);
    shell.args(["record", "task", "--task-id", "t", "--agent-id", "a", "--success", "true"]);
    let run = Run::of(shell.env("TALLYSTONE_STORE", place.store()).output().unwrap());
    run.fails(1, &["error: "]);
}
