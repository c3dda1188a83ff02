//! Maintenance, retention and backups by command.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Place, expect_keys};

/// Tasks of so many days before now, one a day.
fn filled(days: &[u64]) -> Place {
    let place = Place::keeping();
    #[expect(clippy::disallowed_methods, reason = "the command goes by the real clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut text = String::from("timestamp,task_id,agent_id,duration_ms,success\n");
    for days in days {
        text.push_str(&format!("{},t{days},a,5,true\n", now - days * 86_400));
    }
    place.file("in.csv", text.as_bytes());
    place.ok("import in.csv --time-format s");
    place
}

#[test]
fn rules_are_shown_and_set() {
    let place = Place::new();
    place.ok("record task --task-id t --agent-id a --success true");
    let shown = place.ok("retention show");
    assert!(shown.contains("task_metrics   7 days    30 days  30 days  90 days"), "{shown}");
    assert!(shown.ends_with("of any size\n"), "{shown}");
    let rules = place.json("retention set --table task --detailed-days 2 --daily-days 40");
    expect_keys(&rules, &["task_metrics", "agent_metrics", "swarm_metrics", "max_bytes"]);
    assert_eq!(rules["task_metrics"]["detailed_days"], 2);
    assert_eq!(rules["task_metrics"]["archive_days"], 30);
    assert_eq!(rules["task_metrics"]["daily_days"], 40);
    assert_eq!(rules["agent_metrics"]["daily_days"], 90);
    let rules = place.json("retention set --keep --max-bytes 5000000");
    assert_eq!((&rules["agent_metrics"], &rules["max_bytes"]), (&"keep".into(), &5_000_000.into()));
    assert_eq!(place.json("retention show"), rules);
    assert!(place.ok("retention show").contains("for ever"));
    let rules = place.json("retention set --max-bytes none --table task --hourly-days 7");
    assert!(rules["max_bytes"].is_null());
    assert_eq!(rules["task_metrics"]["hourly_days"], 7);
    assert_eq!(rules["swarm_metrics"], "keep");
}

#[test]
fn rules_that_make_no_sense_end_with_2() {
    let place = Place::new();
    place.ok("record task --task-id t --agent-id a --success true");
    let before = place.json("retention show");
    for (line, words) in [
        ("retention set --hourly-days 6", "hourly_days is 6, expected 0 (none), or at least"),
        ("retention set --detailed-days -1", "expected a number of days"),
        ("retention set --daily-days 3652060", "expected 1 to 3652059"),
        ("retention set --max-bytes -5", "expected a number of bytes"),
        ("retention set --keep --daily-days 5", "cannot be used with"),
        ("retention set", "required"),
        ("retention set --table task", "required"),
        ("retention", "show"),
        ("maintain nonsense", "seal"),
        ("backup", "<DIR>"),
    ] {
        place.run(line).fails(2, &[words]);
    }
    assert_eq!(place.json("retention show"), before);
    let place = Place::new();
    for line in ["retention show", "retention set --keep", "maintain", "backup b"] {
        place.run(line).fails(1, &["store: no such directory, expected a store"]);
    }
    assert!(!place.path().join("b").exists());
}

#[test]
fn old_days_go() {
    let place = filled(&[1, 50, 95, 200]);
    assert_eq!(place.json("maintain")["changes"].as_array().unwrap().len(), 0);
    place.ok("retention set --daily-days 90");
    let dry = place.json("maintain expire --dry-run");
    assert_eq!((&dry["dry_run"], &dry["changes"][0]["rows"]), (&true.into(), &2.into()));
    assert_eq!(place.rows("task"), 4);
    assert!(place.ok("maintain expire --dry-run").contains("nothing was changed"));
    let done = place.ok("maintain expire");
    assert!(done.contains("task_metrics  gone"), "{done}");
    assert_eq!(place.rows("task"), 2);
    assert!(place.ok("maintain expire --accept-clock").contains("nothing to do"));
    let stats = place.json("stats");
    assert_eq!(
        (&stats["gone"][0]["rows"], &stats["gone"][0]["kind"]),
        (&2.into(), &"tombstone".into())
    );
    let stats = place.ok("stats");
    assert!(stats.contains("2 rows in ") && stats.contains("gone        2     2"), "{stats}");
    let page = place.json("query task-metrics");
    assert_eq!(page["coverage"]["gone"].as_array().unwrap().len(), 2);
    let health = place.json("stats --health");
    assert_eq!(health["clock_refused"], serde_json::Value::Null);
    assert_eq!(health["last_maintenance"]["what"], "expire");
    let health = place.ok("stats --health");
    assert!(
        health.contains("last maintenance at 2") && health.contains("expire, done"),
        "{health}"
    );
    assert!(!health.contains(" 0 B in replaced files"), "they wait for the grace: {health}");
}

#[test]
fn a_backup_is_a_store() {
    let place = filled(&[1, 2, 3]);
    place.ok("record task --task-id live --agent-id a --success true");
    let first = place.ok("backup copy");
    assert!(first.contains("4 files with 4 rows"), "{first}");
    let second = place.json("backup copy");
    assert_eq!((&second["files"], &second["files_unchanged"]), (&4.into(), &4.into()));
    assert!(place.ok("verify --deep --store copy").ends_with("no problem found\n"));
    let count =
        |store: &str| place.json(&format!("query summary --store {store}"))["total_tasks"].clone();
    assert_eq!(count("copy"), 4);
    place.ok("record task --task-id more --agent-id a --success true --store copy");
    assert_eq!(count("copy"), 5);
    place.run("backup copy").fails(1, &["not a backup, or one that was opened for writing"]);
    place.run("backup store/inside").fails(2, &["inside the store"]);
    assert_eq!(place.rows("task"), 4);
}

#[test]
fn days_are_archived_and_rolled_up_by_command() {
    let place = Place::keeping();
    #[expect(clippy::disallowed_methods, reason = "the command goes by the real clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    for days in [10, 40] {
        let micros = i64::try_from(now).unwrap() - days * 86_400_000_000;
        let stamp = tallystone::Timestamp::from_micros(micros).unwrap();
        let row = "--agent-id a --duration-ms 5 --success true";
        place.ok(&format!("record task --task-id t{days} --timestamp {stamp} {row}"));
    }
    place.ok("retention set --table task --detailed-days 7 --archive-days 30 --daily-days 90");
    place.ok("maintain seal");
    let tiers = |line: &str| -> Vec<String> {
        let report = place.json(line);
        let changes = report["changes"].as_array().unwrap();
        changes
            .iter()
            .map(|it| format!("{} {}", it["tier"].as_str().unwrap(), it["rows"]))
            .collect()
    };
    assert_eq!(tiers("maintain compact --dry-run"), ["archive 1"]);
    assert_eq!(tiers("maintain compact"), ["archive 1"]);
    assert_eq!(tiers("maintain compact"), [""; 0]);
    assert_eq!(tiers("maintain rollup --dry-run"), ["daily 1"]);
    assert_eq!(tiers("maintain rollup"), ["daily 1"]);
    assert_eq!(place.json("query summary")["total_tasks"], 2);
    let rows = place.json("query task-metrics");
    assert_eq!(rows["rows"].as_array().unwrap().len(), 1);
    assert_eq!(rows["coverage"]["unanswerable"][0]["reason"], "detail_gone");
    place.ok("verify --deep");
}

/// Days are those of UTC, wherever the process runs: the same rows lie in the same directories.
#[test]
fn partitions_are_the_same_in_every_zone() {
    let zones = [
        "UTC",
        "Europe/Berlin",
        "Europe/London",
        "Europe/Dublin",
        "Europe/Moscow",
        "Europe/Istanbul",
        "Atlantic/Azores",
        "Atlantic/Reykjavik",
        "Africa/Casablanca",
        "Africa/Cairo",
        "Africa/Johannesburg",
        "Africa/Monrovia",
        "America/New_York",
        "America/Chicago",
        "America/Denver",
        "America/Phoenix",
        "America/Los_Angeles",
        "America/Anchorage",
        "America/St_Johns",
        "America/Sao_Paulo",
        "America/Santiago",
        "America/Caracas",
        "America/Havana",
        "Asia/Tokyo",
        "Asia/Shanghai",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Asia/Tehran",
        "Asia/Kabul",
        "Asia/Jerusalem",
        "Asia/Dubai",
        "Australia/Sydney",
        "Australia/Lord_Howe",
        "Australia/Eucla",
        "Pacific/Auckland",
        "Pacific/Chatham",
        "Pacific/Apia",
        "Pacific/Kiritimati",
        "Pacific/Honolulu",
        "right/UTC",
        "<+14>-14",
        "EST5EDT,M3.2.0,M11.1.0",
    ];
    let mut text = String::from("timestamp,task_id,agent_id,success\n");
    // Around midnight on days of summer time, of a leap second, of a year's end, of 2038.
    for (number, day) in [
        "2026-03-29",
        "2026-10-25",
        "2026-11-01",
        "2017-01-01",
        "2027-01-01",
        "2038-01-19",
        "1970-01-01",
        "2262-04-12",
    ]
    .iter()
    .enumerate()
    {
        for time in ["00:00:00Z", "00:59:59.999999Z", "02:30:00Z", "03:14:08Z", "23:59:59.999999Z"]
        {
            text.push_str(&format!("{day}T{time},t{number}-{time},a,true\n"));
        }
    }
    let days = |zone: &str| {
        let place = Place::keeping();
        place.file("in.csv", text.as_bytes());
        let args = ["import", "in.csv", "--time-format", "rfc3339"];
        let run = place.command(&args).env("TZ", zone).output().unwrap();
        assert!(run.status.success(), "{zone}: {}", String::from_utf8_lossy(&run.stderr));
        let mut names: Vec<_> = place
            .store()
            .join("task_metrics")
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let expected = days("UTC");
    assert_eq!(expected.len(), 8);
    for zone in zones {
        assert_eq!(days(zone), expected, "{zone}");
    }
}
