//! The dashboard as text, alerts, reports.

use serde_json::Value;
use tallystone::Timestamp;
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};

use crate::support::{Place, expect_keys};

/// A moment in the middle of a day, an hour and a minute.
const NOW: &str = "2026-11-20T10:30:30Z";

fn stamp(seconds_before: i64) -> String {
    let now = Timestamp::parse(NOW).unwrap().as_micros();
    Timestamp::from_micros(now - seconds_before * 1_000_000).unwrap().to_string()
}

/// Tasks of four agents over the day, and what a scheduler would record.
fn busy() -> Place {
    let place = Place::keeping();
    let mut tasks = String::from("timestamp,task_id,agent_id,duration_ms,tokens_used,success\n");
    for number in 0..400_i64 {
        let before = number * number % 7_300 + 5;
        let agent = ["quick", "steady", "slow", "odd"][usize::try_from(number % 4).unwrap()];
        let duration = match agent {
            "quick" => 50 + number % 30,
            "slow" => 2_000 + number * 7,
            _ => 700 + number,
        };
        let success = number % 11 != 0;
        let line = format!("{},t{number},{agent},{duration},{number},{success}\n", stamp(before));
        tasks.push_str(&line);
    }
    place.file("tasks.csv", tasks.as_bytes());
    place.ok("import tasks.csv");
    let mut gauges = String::from("timestamp,swarm_id,metric_type,value\n");
    for (before, metric, value) in [
        (500, "queue_pending", 80.0),
        (5, "queue_pending", 23.0),
        (5, "queue_pending.high", 3.0),
        (5, "queue_pending.low", 20.0),
        (70_000, "token_budget", 100_000.0),
        (70_000, "agent_token_quota", 25_000.0),
        (40, "memory_bytes", 1_572_864.0),
    ] {
        gauges.push_str(&format!("{},s1,{metric},{value}\n", stamp(before)));
    }
    place.file("gauges.csv", gauges.as_bytes());
    place.ok("import gauges.csv --table swarm");
    place
}

/// The table of the documentation: figure, command, part of the answer.
fn documented() -> Vec<[String; 3]> {
    let text = include_str!("../../../../docs/dashboard.md");
    let rows = text.lines().filter(|line| line.starts_with("| /"));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        let row = [(); 3].map(|()| cells.next().unwrap());
        assert_eq!(cells.next(), None, "{line}");
        row
    })
    .collect()
}

/// Part of an answer: a pointer, of which `-` is the last entry and `*` the sum of all, or two of
/// them.
fn part(answer: &Value, pointer: &str) -> Value {
    if let Some((one, other)) = pointer.split_once(" + ") {
        let sum = part(answer, one).as_f64().unwrap() + part(answer, other).as_f64().unwrap();
        return sum.into();
    }
    if let Some((list, rest)) = pointer.split_once("/*") {
        let all = answer.pointer(list).unwrap().as_array().unwrap().iter();
        return all.map(|one| part(one, rest).as_f64().unwrap()).sum::<f64>().into();
    }
    if let Some((list, rest)) = pointer.split_once("/-") {
        return part(answer.pointer(list).unwrap().as_array().unwrap().last().unwrap(), rest);
    }
    answer.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {answer}")).clone()
}

#[test]
fn each_number_is_that_of_its_query() {
    let place = busy();
    let run = place.run(&format!("dashboard --once --at {NOW} --window 1h --json"));
    assert_eq!(run.code, 4, "the slow agent makes p99 fire: {}", run.err);
    let shown: Value = serde_json::from_str(&run.out).unwrap();
    let rows = documented();
    assert!(rows.len() > 30);
    for [figure, command, pointer] in rows {
        let moments = [
            ("START", stamp(3_600)),
            ("BEFORE", stamp(7_200)),
            ("DAY", stamp(86_400)),
            ("ALERT", stamp(300)),
            ("NOW", NOW.to_owned()),
        ];
        let words = command.split(' ').map(|word| {
            let moment = moments.iter().find(|(name, _)| *name == word);
            moment.map_or(word.to_owned(), |(_, stamp)| stamp.clone())
        });
        let line = words.collect::<Vec<_>>().join(" ");
        let found = part(&place.json(&line), &pointer);
        let expected = shown.pointer(&figure).unwrap_or_else(|| panic!("{figure} in {shown}"));
        match (expected.as_f64(), found.as_f64()) {
            (Some(a), Some(b)) => {
                assert!(a.to_bits() == b.to_bits(), "{figure}: {a}, {line}: {b}");
            }
            _ => assert_eq!(*expected, found, "{figure}, {line}"),
        }
        assert!(!found.is_null(), "{figure}, {line}: nothing to compare");
    }
}

#[test]
fn once_prints_every_section_and_keeps_nothing_of_another_time() {
    let place = busy();
    let text = place.run(&format!("dashboard --once --at {NOW} --window 1h --ascii")).out;
    for part in [
        "== alerts ==",
        "success-rate",
        "== summary ==",
        "tasks per minute",
        "== agents ==",
        "fastest of 4 agents",
        "quick",
        "== queue ==",
        "pending  23 !  (5 s ago)",
        "high  3",
        "== resources ==",
        "budget  100,000, ",
        "nearest to quota",
        "memory  1.5 MiB",
        "== trends ==",
        "last hour: steps of 1m",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(text.is_ascii());
    assert!(!place.store().join("alerts.json").exists());
}

#[test]
fn an_empty_store_is_said_to_be_empty() {
    let place = Place::keeping();
    let text = place.ok("dashboard --once");
    for part in ["none in the last 5m", "not recorded; tallystone record swarm", "no values"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let json = place.json("dashboard --once");
    assert_eq!(json["summary"]["now"]["success_rate"], Value::Null);
    assert_eq!(json["queue"]["pending"], Value::Null);
}

#[test]
fn a_file_names_panels_and_alerts() {
    let place = busy();
    let text = r#"
        default_alerts = false
        [[alert]]
        name = "slow agent"
        query = { method = "average", agent_id = "slow", window = "1h" }
        above = 1000
        [[alert]]
        name = "too many agents"
        query = { method = "summary", measure = "unique_agents", window = "1h" }
        above = 1000

        [dashboard]
        window = "1h"
        [[dashboard.panel]]
        show = "alerts"
        [[dashboard.panel]]
        show = "number"
        title = "mean of slow"
        unit = "ms"
        query = { method = "average", agent_id = "slow", window = "1h" }
        [[dashboard.panel]]
        show = "bar"
        query = { method = "top-agents", measure = "avg_duration_ms", window = "1h" }
        [[dashboard.panel]]
        show = "table"
        query = { method = "slowest-tasks", window = "1h" }
        [[dashboard.panel]]
        show = "sparkline"
        query = { method = "aggregate-by-time", interval = "5m", window = "1h" }
    "#;
    place.file("own.toml", text.as_bytes());
    let line = format!("dashboard --once --at {NOW} --config own.toml --ascii");
    let run = place.run(&line);
    assert_eq!(run.code, 4, "{}{}", run.out, run.err);
    assert!(run.out.contains("firing ") && run.out.contains("slow agent"), "{}", run.out);
    for part in
        ["== mean of slow ==", " ms\n", "== avg_duration_ms of top-agents over 1h ==", "####"]
    {
        assert!(run.out.contains(part), "{part:?} in {}", run.out);
    }
    assert!(!run.out.contains("== summary =="));
    let json: Value = serde_json::from_str(&place.run(&format!("{line} --json")).out).unwrap();
    let names: Vec<_> = json["panels"].as_array().unwrap().iter().map(|p| &p["title"]).collect();
    assert_eq!(names.len(), 4);
    let mean =
        place.json(&format!("query average --agent-id slow --from {} --to {NOW}", stamp(3_600)));
    assert_eq!(json["panels"][0]["number"]["value"], mean["value"]);
    // That of the store is found without being named.
    std::fs::copy(place.path().join("own.toml"), place.store().join("tallystone.toml")).unwrap();
    assert!(place.run(&format!("dashboard --once --at {NOW}")).out.contains("== mean of slow =="));
    place.ok("verify");
}

#[test]
fn bad_files_are_refused_with_their_place() {
    let place = Place::keeping();
    for (text, parts) in [
        ("[dashboard]\nrefresh = \"1ms\"\n", ["bad.toml:2:11:", "expected 1s to 1h"]),
        ("[[alert]]\nname = \"a\"\nabove = 1\n", ["bad.toml:1:1:", "missing field `query`"]),
        ("[dashbord]\n", ["bad.toml:1:2:", "unknown field `dashbord`"]),
    ] {
        place.file("bad.toml", text.as_bytes());
        for line in ["dashboard --once", "alerts check"] {
            place.run(&format!("{line} --config bad.toml")).fails(2, &parts);
        }
    }
    place.run("alerts check --config none.toml").fails(2, &["none.toml:"]);
    place.run("alerts check --config .").fails(2, &["not a file"]);
    place.file("bad.toml", &[b'#'; (1 << 20) + 1]);
    place.run("alerts check --config bad.toml").fails(2, &["more than 1048576 bytes"]);
    place.file("bad.toml", b"\xff");
    place.run("alerts check --config bad.toml").fails(2, &["bad.toml:", "UTF-8"]);
}

#[test]
fn alerts_fire_resolve_and_leave_a_history() {
    let place = Place::keeping();
    let record = |value: &str| {
        place.ok(&format!("record swarm --swarm-id s --metric-type queue_pending --value {value}"));
    };
    let state = |run: &str| {
        let found: Value = serde_json::from_str(run).unwrap();
        let alerts = found["alerts"].as_array().unwrap().clone();
        alerts.into_iter().find(|alert| alert["name"] == "queue-backlog").unwrap()
    };
    let run = place.run("alerts check --json");
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(state(&run.out)["state"], "inactive");
    record("51");
    let run = place.run("alerts check --json");
    assert_eq!(run.code, 4, "{}{}", run.out, run.err);
    let alert = state(&run.out);
    assert_eq!((&alert["state"], &alert["value"]), (&"firing".into(), &51.0.into()));
    let since = alert["since"].clone();
    let run = place.run("alerts check");
    assert_eq!(run.code, 4);
    assert!(run.out.lines().nth(2).unwrap().starts_with("firing "), "{}", run.out);
    assert_eq!(place.run("dashboard --once").code, 4);
    assert_eq!(state(&place.run("alerts check --json").out)["since"], since, "kept");
    record("50");
    let run = place.run("alerts check --json");
    assert_eq!((run.code, &state(&run.out)["state"]), (0, &"resolved".into()));
    let history = place.json("query swarm-metrics --metric-type alert.queue-backlog");
    let values: Vec<_> = history["rows"].as_array().unwrap().iter().map(|r| &r["value"]).collect();
    assert_eq!(values, [&Value::from(3.0), &Value::from(2.0)], "newest first");
}

#[test]
fn a_report_sums_up_a_day_or_a_week() {
    let place = busy();
    let json = place.json(&format!("report daily --of {NOW}"));
    expect_keys(
        &json,
        &["kind", "store", "summary", "agents", "total_agents", "slowest", "missing"],
    );
    let range = "--from 2026-11-20 --to 2026-11-21";
    let summary = place.json(&format!("query summary {range}"));
    for name in ["total_tasks", "success_rate", "total_tokens_used", "p99_duration_ms"] {
        let (a, b) = (json["summary"]["now"][name].as_f64(), summary[name].as_f64());
        assert_eq!(a, b, "{name}");
    }
    let slowest = place.json(&format!("query slowest-tasks {range}"));
    assert_eq!(json["slowest"], slowest["rows"]);
    assert_eq!(json["total_agents"], 4);
    let weekly = place.json("report weekly --of 2026-11-18");
    assert_eq!(weekly["summary"]["now"]["from"], "2026-11-16T00:00:00Z");
    assert_eq!(weekly["summary"]["before"]["from"], "2026-11-09T00:00:00Z");
    let markdown = place.ok(&format!("report daily --of {NOW} --markdown"));
    assert!(markdown.starts_with("# Tallystone, daily report: 2026-11-20T00:00:00Z to "));
    assert!(markdown.contains("\n| success rate | "), "{markdown}");
    let plain = place.ok(&format!("report daily --of {NOW}"));
    assert!(plain.contains("== Slowest tasks ==") && plain.contains("slow"), "{plain}");
    // The last day that is over.
    let day = (SystemClock.now().as_micros() / MICROS_PER_DAY - 1) * MICROS_PER_DAY;
    let day = Timestamp::from_micros(day);
    let json = place.json("report daily");
    assert_eq!(json["summary"]["now"]["from"], day.unwrap().to_string());
}
