//! The demo runs, prints every section, and leaves a store that answers.

use crate::support::Place;

#[test]
fn the_demo_shows_everything() {
    let place = Place::new();
    let out = place.ok("demo");
    for section in ["Written", "Asked", "Reported", "Exported", "On disk", "Aged", "Go on"] {
        let section = format!("== {section} ==");
        assert!(out.contains(&section), "{section} in {out}");
    }
    for method in [
        "metrics",
        "task-metrics",
        "agent-metrics",
        "swarm-metrics",
        "aggregate-by-time",
        "percentile",
        "average",
        "top-agents",
        "slowest-tasks",
        "summary",
    ] {
        let line = format!("$ tallystone --store tallystone-demo query {method} ");
        assert!(out.contains(&line), "{method} in {out}");
    }
    assert!(out.contains("== Slowest tasks =="), "the report of a week");
    assert!(out.contains('\u{2588}'), "a sparkline");
    assert!(out.contains("CC-BY-4.0") && out.contains("MIT"), "the licences");
    let summary = place.json("--store tallystone-demo query summary");
    assert_eq!(summary["total_tasks"], 15_793 + 28_185);
    assert_eq!(summary["unique_agents"], 7_502 + 2);

    // Again: another directory; every command of the first report works.
    let report = place.json("demo");
    assert_eq!(report["dir"], "tallystone-demo-2");
    assert_eq!(report["questions"].as_array().unwrap().len(), 11);
    assert_eq!(report["week"]["summary"]["now"]["total_tasks"], 1_744);
    let exports = report["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 8);
    for export in exports {
        let file = place.path().join(export["file"].as_str().unwrap());
        assert_eq!(file.metadata().unwrap().len(), export["bytes"].as_u64().unwrap());
        assert!(export["rows"].as_u64().unwrap() > 0, "{export}");
    }
    assert!(out.contains("  in tallystone-demo-exports\n"), "{out}");
    let aged = report["aged"]["asked"].as_array().unwrap();
    let tiers: Vec<&str> = aged.iter().map(|asked| asked["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, ["rows", "archived rows", "daily rollup"]);
    for asked in aged {
        let (bound, off) = (&asked["rank_error"], &asked["true_rank_error"]);
        assert!(off.as_f64().unwrap() <= bound.as_f64().unwrap(), "{asked}");
    }
    assert_eq!(aged[1]["p99_ms"].as_f64(), aged[1]["true_p99_ms"].as_f64());
    let (_, go_on) = out.split_once("== Go on ==").unwrap();
    let commands: Vec<_> =
        go_on.lines().filter_map(|l| l.trim().strip_prefix("tallystone ")).collect();
    assert!(commands.len() >= 5);
    for command in commands {
        place.ok(command);
    }
}

#[test]
fn the_demo_takes_a_new_directory_only() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("mine")).unwrap();
    place.file("mine/file", b"precious");
    place.run("demo --dir mine").fails(1, &["mine: not empty, expected a new directory"]);
    assert_eq!(std::fs::read_dir(place.path().join("mine")).unwrap().count(), 1);
}
