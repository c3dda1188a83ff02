//! Alerts: numbers that equal the queries they name, states that outlive their process, one
//! keeper at a time.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "damages a file by hand")]

use std::path::Path;
use std::time::Duration;

use tallystone::alert::{Alert, Bound, Evaluation, HISTORY_SWARM, MetricNames, Query, Rule, State};
use tallystone::testing::{SimFileSystem, open_store};
use tallystone::time::MICROS_PER_SECOND;
use tallystone::{
    AgentMetric, Aggregation, Filter, Interval, Options, Order, Percentile, Store, SwarmMetric,
    Table, TaskMetric, Timestamp, TopBy, Value,
};

const START: i64 = 1_795_428_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START + seconds * MICROS_PER_SECOND).unwrap()
}

fn options() -> Options {
    Options { maintenance: None, flush_interval: Duration::from_secs(3_600), ..Options::default() }
}

fn open(dir: &Path) -> Store {
    let store = Store::open_with(dir, options()).unwrap();
    store.keep_everything().unwrap();
    store
}

fn task(store: &Store, seconds: i64, agent: &str, duration_ms: i64, success: bool) {
    let row = TaskMetric {
        timestamp: at(seconds),
        task_id: &format!("task-{seconds}"),
        agent_id: agent,
        duration_ms: Some(duration_ms),
        tokens_used: Some(10),
        success,
        metadata: None,
    };
    store.record_task(&row).unwrap();
}

fn swarm(store: &Store, seconds: i64, swarm_id: &str, metric_type: &str, value: f64) {
    let timestamp = at(seconds);
    let row = SwarmMetric { timestamp, swarm_id, metric_type, value, metadata: None };
    store.record_swarm(&row).unwrap();
}

fn query(json: &str) -> Query {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn rule(json: &str) -> Rule {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn defaults() -> Vec<Rule> {
    Rule::defaults(&MetricNames::default())
}

/// Evaluates once, in a process of its own so to speak.
fn check(store: &Store, rules: Vec<Rule>, seconds: i64) -> Evaluation {
    store.commit().unwrap();
    let mut alerts = store.alerts(rules).unwrap();
    store.evaluate_alerts_at(&mut alerts, &store.snapshot().unwrap(), at(seconds)).unwrap()
}

fn states(found: &Evaluation) -> Vec<State> {
    found.alerts.iter().map(|alert| alert.state).collect()
}

/// The history as (metric type, value), oldest first.
fn history(store: &Store) -> Vec<(String, f64)> {
    let filter = Filter::new().swarm(HISTORY_SWARM).all();
    let page = store.snapshot().unwrap().swarm_metrics(&filter).unwrap();
    let mut rows: Vec<_> = page.rows.into_iter().collect();
    rows.reverse();
    rows.into_iter().map(|row| (row.metric_type, row.value)).collect()
}

#[test]
fn without_rows_nothing_fires() {
    let place = tempfile::tempdir().unwrap();
    let store = open(&place.path().join("store"));
    let found = check(&store, defaults(), 0);
    assert_eq!(states(&found), [State::Inactive; 4]);
    assert!(found.alerts.iter().all(|alert| alert.value.is_none() && alert.error.is_none()));
    assert!(found.keeps_states && found.notes.is_empty(), "{:?}", found.notes);
    assert_eq!(history(&store), []);

    // Four failures of four are too few to judge; the fifth is not.
    (0..4).for_each(|second| task(&store, second, "a", 5, false));
    assert_eq!(check(&store, defaults(), 60).alerts[0].value, None);
    task(&store, 4, "a", 5, false);
    let found = check(&store, defaults(), 60);
    assert_eq!((found.alerts[0].value, found.alerts[0].state), (Some(0.0), State::Firing));
}

#[test]
fn the_defaults_fire_and_are_resolved() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = open(&dir);
    for second in 0..100 {
        task(&store, second, "a", if second < 98 { 5 } else { 9_000 }, second % 5 > 0);
    }
    swarm(&store, 0, "s1", "queue_pending", 500.0);
    swarm(&store, 10, "s1", "queue_pending", 30.0);
    swarm(&store, 10, "s2", "queue_pending", 21.0);
    swarm(&store, 10, "s2", "token_budget", 1_200.0);
    let found = check(&store, defaults(), 100);
    let values: Vec<_> = found.alerts.iter().map(|alert| alert.value.unwrap()).collect();
    assert_eq!(values, [0.8, 9_000.0, 1_000.0 / 1_200.0, 51.0]);
    assert_eq!(states(&found), [State::Firing; 4]);
    assert_eq!(found.firing(), 4);

    // A new process goes on from there, and five minutes later the tasks are out of sight.
    store.close().unwrap();
    drop(store);
    let store = open(&dir);
    let again = check(&store, defaults(), 160);
    assert_eq!(states(&again), [State::Firing; 4]);
    assert!(again.alerts.iter().all(|alert| alert.since == Some(at(100))));
    swarm(&store, 390, "s1", "queue_pending", 29.0);
    let later = check(&store, defaults(), 400);
    use State::{Firing, Resolved};
    assert_eq!(states(&later), [Resolved, Resolved, Firing, Resolved]);
    assert_eq!(later.alerts[3].value, Some(50.0));

    let names = ["success-rate", "p99-latency", "token-budget", "queue-backlog"];
    let mut expected: Vec<(String, f64)> =
        names.map(|name| (format!("alert.{name}"), 2.0)).to_vec();
    expected.extend([0, 1, 3].map(|index| (format!("alert.{}", names[index]), 3.0)));
    let mut found = history(&store);
    found.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    expected.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    assert_eq!(found, expected);
    let filter = Filter::new().swarm(HISTORY_SWARM).metric_type("alert.success-rate");
    let rows = store.snapshot().unwrap().swarm_metrics(&filter).unwrap().rows;
    let metadata: serde_json::Value =
        serde_json::from_str(rows[1].metadata.as_deref().unwrap()).unwrap();
    assert_eq!(
        metadata,
        serde_json::json!({
            "state": "firing", "severity": "critical", "value": 0.8, "below": 0.9, "count": 100,
            "label": null
        })
    );
}

#[test]
fn an_alert_waits_for_as_long_as_its_rule_says() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let rules = || {
        vec![rule(
            r#"{"name":"slow","query":{"method":"average","window":"30s"},"above":100,"for":"2m"}"#,
        )]
    };
    // Each look is a process of its own, as from cron; slow from the second minute on.
    let mut seen = Vec::new();
    for minute in 0..7 {
        let store = open(&dir);
        let slow = (1..5).contains(&minute);
        task(&store, minute * 60 - 1, "a", if slow { 101 } else { 100 }, true);
        let found = check(&store, rules(), minute * 60);
        seen.push((found.alerts[0].state, found.alerts[0].since.unwrap()));
        store.close().unwrap();
    }
    use State::{Firing, Inactive, Pending, Resolved};
    let expected = [
        (Inactive, at(0)),
        (Pending, at(60)),
        (Pending, at(60)),
        (Firing, at(180)),
        (Firing, at(180)),
        (Resolved, at(300)),
        (Resolved, at(300)),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn one_keeper_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let (first, second) = (open(&dir), open(&dir));
    (0..5).for_each(|second| task(&first, second, "a", 5, false));
    first.commit().unwrap();
    let mut keeper = first.alerts(defaults()).unwrap();
    let mut other = second.alerts(defaults()).unwrap();
    let look = |store: &Store, alerts: &mut _, seconds| {
        store.evaluate_alerts_at(alerts, &store.snapshot().unwrap(), at(seconds)).unwrap()
    };
    assert!(look(&first, &mut keeper, 10).keeps_states);
    let found = look(&second, &mut other, 20);
    assert!(!found.keeps_states);
    assert_eq!(found.alerts[0].since, Some(at(10)), "the state that is kept");
    assert_eq!(history(&second).len(), 1);

    // What the other one sees first is neither kept nor recorded.
    assert_eq!(look(&second, &mut other, 500).alerts[0].state, State::Resolved);
    assert_eq!(history(&second).len(), 1);
    drop(keeper);
    let found = look(&second, &mut other, 600);
    assert!(found.keeps_states);
    assert_eq!(found.alerts[0].state, State::Resolved);
    assert_eq!(history(&second).len(), 2);
}

#[test]
fn a_reader_evaluates_and_leaves_no_trace() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = open(&dir);
    (0..5).for_each(|second| task(&store, second, "a", 5, false));
    store.close().unwrap();
    drop(store);
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let reader = Store::open_read_only(&dir).unwrap();
    let mut alerts = reader.alerts(defaults()).unwrap();
    for seconds in [10, 20] {
        let snapshot = reader.snapshot().unwrap();
        let found = reader.evaluate_alerts_at(&mut alerts, &snapshot, at(seconds)).unwrap();
        assert!(!found.keeps_states);
        assert_eq!((found.alerts[0].state, found.alerts[0].since), (State::Firing, Some(at(10))));
    }
    assert_eq!(names(), before);
}

#[test]
fn damaged_states_begin_anew() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("store");
    let store = open(&dir);
    (0..5).for_each(|second| task(&store, second, "a", 5, false));
    check(&store, defaults(), 10);
    let path = dir.join("alerts.json");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let report = store.verify(false).unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!((&*report.problems[0].file, report.loses_rows()), ("alerts.json", false));
    let found = check(&store, defaults(), 20);
    assert_eq!((found.alerts[0].state, found.alerts[0].since), (State::Firing, Some(at(20))));
    assert!(found.notes[0].contains("begin anew"), "{:?}", found.notes);
    assert_eq!(store.verify(false).unwrap().problems, []);
}

#[test]
fn a_full_disk_does_not_hide_an_alert() {
    let fs = SimFileSystem::new();
    let store = open_store(&fs, Path::new("/store"), options()).unwrap();
    store.keep_everything().unwrap();
    (0..5).for_each(|second| task(&store, second, "a", 5, false));
    store.flush().unwrap();
    let mut alerts = store.alerts(defaults()).unwrap();
    fs.space_limit(Some(fs.used_bytes()));
    let snapshot = store.snapshot().unwrap();
    let found = store.evaluate_alerts_at(&mut alerts, &snapshot, at(10)).unwrap();
    assert_eq!(found.alerts[0].state, State::Firing);
    assert!(!found.notes.is_empty());
    fs.space_limit(None);
    store.flush().unwrap();
    assert_eq!(history(&store), [("alert.success-rate".to_owned(), 2.0)]);
}

#[test]
fn rules_that_cannot_be() {
    let place = tempfile::tempdir().unwrap();
    let store = open(&place.path().join("store"));
    let twice = || {
        let mut rules = defaults();
        rules.push(rules[0].clone());
        rules
    };
    let error = store.alerts(twice()).unwrap_err();
    assert!(error.message().contains("\"success-rate\" is there twice"), "{error}");
}

/// A small generator of numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// Every number that a rule can look at equals that of the method which it names.
#[test]
fn a_number_is_that_of_its_method() {
    let place = tempfile::tempdir().unwrap();
    let store = open(&place.path().join("store"));
    let mut numbers = Numbers(7);
    for second in 0..600 {
        let agent = format!("agent-{}", numbers.below(4));
        let duration = i64::try_from(numbers.below(1_000)).unwrap();
        task(&store, second, &agent, duration, numbers.below(10) > 1);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let value = numbers.below(100) as f64;
        swarm(&store, second, &format!("s{}", numbers.below(3)), "queue_pending", value);
        store
            .record_agent(&AgentMetric {
                timestamp: at(second),
                agent_id: &agent,
                metric_type: "cpu",
                value: value / 100.0,
                metadata: None,
            })
            .unwrap();
    }
    store.commit().unwrap();
    let now = at(450);
    for sealed in [false, true] {
        if sealed {
            store.seal().unwrap();
        }
        let snapshot = store.snapshot().unwrap();
        let filter = || Filter::new().between(at(150), now);
        let read = |json: &str| query(json).read(&snapshot, now, 1).unwrap();
        let value = |json: &str| read(json).value;

        let all = snapshot.summary_stats(Percentile::Exact, &filter()).unwrap().value;
        let summary = serde_json::to_value(&all).unwrap();
        for (measure, expected) in summary.as_object().unwrap() {
            let found = value(&format!(r#"{{"method":"summary","measure":"{measure}"}}"#));
            assert_eq!(found, expected.as_f64(), "{measure}");
        }
        let tokens = snapshot.aggregate(Table::Task, "tokens_used", &filter()).unwrap().value;
        let aggregate = serde_json::to_value(&tokens).unwrap();
        for measure in ["sum", "rows", "count", "nulls", "min", "max", "avg"] {
            let json =
                format!(r#"{{"method":"aggregate","field":"tokens_used","measure":"{measure}"}}"#);
            assert_eq!(value(&json), aggregate[measure].as_f64(), "{measure}");
        }
        let p = snapshot
            .percentile(Table::Agent, "value", 0.95, Percentile::Exact, &filter())
            .unwrap()
            .value;
        assert_eq!(
            value(r#"{"method":"percentile","table":"agent","percentile":0.95}"#),
            p.value.map(Value::as_f64)
        );
        let mean =
            snapshot.average(Table::Task, "duration_ms", &filter().agent("agent-1")).unwrap();
        assert_eq!(value(r#"{"method":"average","agent_id":"agent-1"}"#), mean.value.value);

        let best = snapshot
            .top_agents(TopBy::SuccessRate, Order::Descending, &filter())
            .unwrap()
            .rows
            .remove(0);
        let found = read(r#"{"method":"top-agents","measure":"success_rate","order":"desc"}"#);
        assert_eq!((found.value, found.label), (Some(best.success_rate), Some(best.agent_id)));
        assert_eq!(found.count, best.task_count);
        let slowest = snapshot.slowest_tasks(&filter()).unwrap().rows.remove(0);
        let found = read(r#"{"method":"slowest-tasks"}"#);
        assert_eq!(found.value, Some(Value::Int(slowest.duration_ms).as_f64()));

        let buckets = snapshot
            .aggregate_by_time(
                Table::Task,
                "duration_ms",
                Interval::Minute,
                Aggregation::Max,
                &filter(),
            )
            .unwrap();
        let of_buckets: Vec<f64> =
            buckets.rows.iter().filter_map(|bucket| bucket.value.map(Value::as_f64)).collect();
        let series = |measure: &str| {
            value(&format!(r#"{{"method":"aggregate-by-time","agg":"max","measure":"{measure}"}}"#))
        };
        assert_eq!(series("last"), of_buckets.last().copied());
        assert_eq!(series("min"), of_buckets.iter().copied().min_by(f64::total_cmp));
        assert_eq!(series("max"), of_buckets.iter().copied().max_by(f64::total_cmp));

        let keys = snapshot.aggregate_by_key(Table::Swarm, "value", "swarm_id", &filter()).unwrap();
        let last: Vec<f64> = keys
            .rows
            .iter()
            .map(|key| key.aggregate.last.as_ref().unwrap().value.as_f64())
            .collect();
        let across = |across: &str| {
            value(&format!(
                r#"{{"method":"aggregate-by-key","table":"swarm","across":"{across}"}}"#
            ))
        };
        assert_eq!(across("sum"), Some(last.iter().sum()));
        assert_eq!(across("min"), last.iter().copied().min_by(f64::total_cmp));
        assert_eq!(across("max"), last.iter().copied().max_by(f64::total_cmp));

        let newest = snapshot.agent_metrics(&filter()).unwrap();
        let found = read(r#"{"method":"agent-metrics","measure":"newest"}"#);
        assert_eq!(found.value, Some(newest.rows[0].value));
        assert_eq!(value(r#"{"method":"swarm-metrics"}"#), Some(300.0));
        assert_eq!(found.coverage.is_complete(), newest.coverage.is_complete());
    }
}

/// The bound of an agent with too few tasks is not looked at.
#[test]
fn agents_with_too_few_tasks_are_passed_over() {
    let place = tempfile::tempdir().unwrap();
    let store = open(&place.path().join("store"));
    task(&store, 0, "rare", 5, false);
    (1..21).for_each(|second| task(&store, second, "busy", 5, second % 4 > 0));
    let worst = |min_count: u64| -> Alert {
        let rules = vec![rule(&format!(
            r#"{{"name":"worst","min_count":{min_count},"below":0.8,
                "query":{{"method":"top-agents","measure":"success_rate"}}}}"#
        ))];
        check(&store, rules, 60).alerts.remove(0)
    };
    let found = worst(1);
    assert_eq!((found.label.as_deref(), found.value), (Some("rare"), Some(0.0)));
    let found = worst(10);
    assert_eq!((found.label.as_deref(), found.value), (Some("busy"), Some(0.75)));
    let found = worst(100);
    assert_eq!((found.label, found.value, found.state), (None, None, State::Resolved));
    assert!(Bound::Below(0.8).is_passed_by(0.75));
}
