//! Command lines, good and bad.

use crate::support::Place;

#[test]
fn help_and_version_end_well() {
    let place = Place::new();
    for line in ["--help", "--version", "query --help", "import --help", "record task --help"] {
        assert!(place.ok(line).contains("tallystone"), "{line}");
    }
}

#[test]
fn lines_that_make_no_sense_end_with_2() {
    let place = Place::new();
    for line in [
        "",
        "nonsense",
        "query nonsense",
        "query metrics",
        "query percentile",
        "query percentile --percentile 95",
        "query summary --from yesterday",
        "query summary --last 5",
        "query summary --last 5m --from 2026-01-01",
        "query task-metrics --limit -1",
        "query task-metrics --success maybe",
        "query task-metrics --offset 1 --cursor x",
        "query average --interval hour",
        "query summary --json --csv",
        "query task-metrics --raw",
        "record task --task-id t",
        "record agent --agent-id a --metric-type m --value many",
        "import",
        "import x.csv --undo y",
        "import x.txt",
        "import x.csv --table tasks",
        "import x.csv --time-format iso",
        "import x.csv --map task_id",
        "import x.csv --map colour=c",
        "completions nonsense",
        "man nonsense",
    ] {
        let run = place.run(line);
        assert_eq!(run.code, 2, "{line}: {}", run.err);
        assert!(!run.err.is_empty(), "{line}");
        assert!(run.out.is_empty(), "{line}");
    }
    assert!(!place.store().exists(), "nothing of this makes a store");
}

#[test]
fn reading_commands_make_no_store() {
    let place = Place::new();
    let lines = ["query summary", "stats", "verify", "rebuild-catalog", "import --undo x"];
    for line in lines {
        place.run(line).fails(1, &["store: no such directory, expected a store"]);
    }
    assert!(!place.store().exists());
    std::fs::create_dir(place.store()).unwrap();
    for line in lines {
        place.run(line).fails(1, &["store: an empty directory, expected a store"]);
    }
    assert_eq!(std::fs::read_dir(place.store()).unwrap().count(), 0);
}

#[test]
fn completions_and_man_pages() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.ok(&format!("completions {shell}")).contains("rebuild-catalog"), "{shell}");
    }
    assert!(place.ok("man").contains(".TH"));
    assert!(place.ok("man query").contains("aggregate\\-by\\-time"), "as roff writes it");
}

#[test]
fn the_store_is_named_by_option_before_variable() {
    let place = Place::new();
    place.run("query summary --store elsewhere").fails(1, &["elsewhere: no such directory"]);
}
