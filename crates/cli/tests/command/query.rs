//! The ten methods: keys of the JSON, tables, CSV, pages.

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Place, Run, expect_keys, keys};

/// Ten tasks of two agents in one hour, two gauges of each kind.
fn filled() -> Place {
    let place = Place::new();
    let mut tasks =
        String::from("timestamp,task_id,agent_id,duration_ms,tokens_used,success,metadata\n");
    for number in 0..10 {
        let agent = if number < 6 { "a" } else { "b" };
        let tokens = if number == 9 { String::new() } else { (number * 10).to_string() };
        let success = number % 5 != 0;
        let row = format!(
            "2026-01-01T00:{number:02}:00Z,t{number},{agent},{},{tokens},{success},\n",
            (number + 1) * 100
        );
        tasks.push_str(&row);
    }
    place.file("tasks.csv", tasks.as_bytes());
    place.file(
        "agents.jsonl",
        br#"{"timestamp":"2026-01-01T00:00:00Z","agent_id":"a","metric_type":"cpu","value":0.25}
{"timestamp":"2026-01-01T00:01:00Z","agent_id":"=b","metric_type":"cpu","value":0.75}
"#,
    );
    place.ok("import tasks.csv --keep");
    place.ok("import agents.jsonl --table agent --keep");
    place.ok("record swarm --swarm-id s --metric-type queue --value 3 --timestamp 2026-01-01");
    place
}

const PAGE: [&str; 3] = ["rows", "next_cursor", "coverage"];
const COVERAGE: [&str; 6] = ["detail", "hourly", "daily", "gone", "damaged", "unanswerable"];

fn page(place: &Place, line: &str) -> Vec<Value> {
    let page = place.json(line);
    assert_eq!(keys_in_text(place, line, &PAGE), PAGE, "{line}");
    expect_keys(&page["coverage"], &COVERAGE);
    page["rows"].as_array().unwrap().clone()
}

/// The keys in the order in which they are printed.
fn keys_in_text<'a>(place: &Place, line: &str, keys: &[&'a str]) -> Vec<&'a str> {
    let text = place.ok(&format!("{line} --json"));
    let mut found: Vec<_> =
        keys.iter().map(|key| (text.find(&format!("\"{key}\":")).unwrap(), *key)).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, key)| key).collect()
}

#[test]
fn rows_have_the_keys_of_the_seed() {
    let place = filled();
    let rows = page(&place, "query task-metrics");
    assert_eq!(rows.len(), 10);
    let first = json!({
        "task_id": "t9", "agent_id": "b", "timestamp": "2026-01-01T00:09:00Z",
        "duration_ms": 1000, "tokens_used": null, "success": true, "metadata": null,
    });
    assert_eq!(rows[0], first);
    assert_eq!(page(&place, "query metrics --table task"), rows);
    let gauge = ["timestamp", "metric_type", "value", "metadata"];
    let rows = page(&place, "query agent-metrics --metric-type cpu");
    assert_eq!(rows.len(), 2);
    expect_keys(&rows[0], &[&["agent_id"], &gauge[..]].concat());
    let rows = page(&place, "query swarm-metrics --swarm-id s");
    expect_keys(&rows[0], &[&["swarm_id"], &gauge[..]].concat());
}

#[test]
fn filters_and_pages() {
    let place = filled();
    let count = |line: &str| page(&place, line).len();
    assert_eq!(count("query task-metrics --agent-id a"), 6);
    assert_eq!(count("query task-metrics --success false"), 2);
    assert_eq!(count("query task-metrics --task-id t3"), 1);
    assert_eq!(
        count("query task-metrics --from 2026-01-01T00:02:00Z --to 2026-01-01T00:04:00Z"),
        2
    );
    assert_eq!(count("query task-metrics --last 24h"), 0);
    assert_eq!(count("query task-metrics --offset 7"), 3);
    assert_eq!(count("query task-metrics --limit 0"), 0);

    let all = page(&place, "query task-metrics --limit all");
    let mut paged = Vec::new();
    let mut line = "query task-metrics --limit 4".to_owned();
    loop {
        let page = place.json(&line);
        paged.extend(page["rows"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        line = format!("query task-metrics --limit 4 --cursor {cursor}");
    }
    assert_eq!(paged, all);
    let run = place.run("query task-metrics --limit 4");
    assert!(run.err.contains("there is more: --cursor "), "{}", run.err);
    place.run("query swarm-metrics --agent-id a").fails(2, &["agent_id", "no such column"]);
    place.run("query summary --limit 5").fails(2, &["limit"]);
}

#[test]
fn lists_and_single_results() {
    let place = filled();
    let rows = page(&place, "query slowest-tasks --limit 2");
    let slowest = json!({
        "task_id": "t9", "agent_id": "b", "duration_ms": 1000, "tokens_used": null,
        "success": true, "timestamp": "2026-01-01T00:09:00Z",
    });
    assert_eq!(rows[0], slowest);
    assert_eq!(rows.len(), 2);

    let rows = page(&place, "query top-agents --metric-type task_count --order desc");
    let first = json!({
        "agent_id": "a", "task_count": 6, "avg_duration_ms": 350.0, "avg_tokens_used": 25.0,
        "success_rate": 4.0 / 6.0,
    });
    assert_eq!(rows[0], first);
    assert_eq!(page(&place, "query top-agents")[0]["agent_id"], "a", "fastest first");

    let rows = page(&place, "query aggregate-by-time --interval 5m --agg sum --field tokens_used");
    let first = json!({ "time_bucket": "2026-01-01T00:00:00Z", "value": 100, "count": 5 });
    assert_eq!(rows[0], first);
    assert_eq!(rows.len(), 2);
    let median = "query aggregate-by-time --interval day --agg percentile --percentile 0.5";
    assert_eq!(page(&place, median)[0]["value"], 600);

    let found = place.json("query percentile --field duration_ms --percentile 0.5");
    expect_keys(&found, &["value", "exact", "rank_error", "count", "coverage"]);
    assert_eq!((&found["value"], &found["exact"]), (&json!(600), &json!(true)));
    assert_eq!((&found["rank_error"], &found["count"]), (&json!(0.0), &json!(10)));
    let rows = page(&place, "query percentile --percentile 0 --percentile 1");
    expect_keys(&rows[0], &["percentile", "value", "exact", "rank_error", "count"]);
    assert_eq!((&rows[0]["value"], &rows[1]["value"]), (&json!(100), &json!(1000)));

    let found = place.json("query average --table agent");
    expect_keys(&found, &["value", "exact", "rank_error", "count", "coverage"]);
    assert_eq!((&found["value"], &found["count"]), (&json!(0.5), &json!(2)));

    let found = place.json("query summary");
    expect_keys(&found["coverage"], &COVERAGE);
    let mut numbers = found.clone();
    numbers.as_object_mut().unwrap().remove("coverage");
    let expected = json!({
        "total_tasks": 10, "successful_tasks": 8, "success_rate": 0.8, "avg_duration_ms": 550.0,
        "p95_duration_ms": 1000, "p99_duration_ms": 1000, "avg_tokens_per_task": 40.0,
        "total_tokens_used": 360, "unique_agents": 2,
    });
    assert_eq!(numbers, expected);
}

#[test]
fn an_empty_store_has_zeros_and_nulls() {
    let place = Place::new();
    place.ok("record swarm --swarm-id s --metric-type m --value 1");
    let summary = place.json("query summary");
    for (key, value) in summary.as_object().unwrap() {
        match key.as_str() {
            "total_tasks" | "successful_tasks" | "total_tokens_used" | "unique_agents" => {
                assert_eq!(*value, json!(0), "{key}");
            }
            "coverage" => {}
            _ => assert_eq!(*value, json!(null), "{key}"),
        }
    }
    for line in ["query average", "query percentile --percentile 0.9"] {
        let found = place.json(line);
        assert_eq!((&found["value"], &found["count"]), (&json!(null), &json!(0)), "{line}");
    }
    for line in ["query task-metrics", "query top-agents", "query slowest-tasks"] {
        assert!(page(&place, line).is_empty(), "{line}");
    }
    assert!(page(&place, "query aggregate-by-time").is_empty());
    assert!(place.ok("query task-metrics").starts_with("task_id  agent_id"));
}

#[test]
fn tables_csv_and_the_plan() {
    let place = filled();
    let table = place.ok("query agent-metrics");
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0], "agent_id  timestamp             metric_type  value  metadata");
    assert_eq!(lines[2], "=b        2026-01-01T00:01:00Z  cpu           0.75  -");
    let csv = place.ok("query agent-metrics --csv");
    assert_eq!(
        csv,
        "agent_id,timestamp,metric_type,value,metadata\n\
         '=b,2026-01-01T00:01:00Z,cpu,0.75,\n\
         a,2026-01-01T00:00:00Z,cpu,0.25,\n"
    );
    assert!(place.ok("query agent-metrics --csv --raw").contains("\n=b,"));
    assert!(place.ok("query summary").contains("unique_agents        2\n"));
    let run = place.run("query summary --json --explain");
    assert!(run.err.contains("blocks scanned") && run.err.contains("result cache: miss"));
    assert_eq!(keys(&serde_json::from_str(&run.out).unwrap()).len(), 10);
}

#[test]
fn a_terminal_is_not_at_the_mercy_of_an_id() {
    let place = Place::new();
    let id = "\u{1b}]0;owned\u{7}";
    place.run_args(&["record", "task", "--task-id", id, "--agent-id", "a", "--success", "true"]);
    let table = place.ok("query task-metrics");
    assert!(table.contains("\\u{1b}]0;owned\\u{7}") && !table.contains('\u{1b}'), "{table}");
    assert_eq!(place.json("query task-metrics")["rows"][0]["task_id"], id);
}

/// `tallystone query ... | head`: the reader goes away in the middle of the answer.
#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    let mut text = String::from("timestamp,task_id,agent_id,success\n");
    for number in 0..20_000 {
        text.push_str(&format!("2026-01-01,a-rather-long-task-id-{number},a,true\n"));
    }
    place.file("many.csv", text.as_bytes());
    place.ok("import many.csv --keep");
    for format in [&[][..], &["--json"], &["--csv"]] {
        let args = [&["query", "task-metrics", "--limit", "all"], format].concat();
        let mut child =
            place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut [0; 10]).unwrap();
        drop(pipe);
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{format:?}");
    }
}
