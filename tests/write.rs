//! Recording: what is accepted, what is visible, what survives.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use tallystone::column::{Batch, Bitmap, Column, Strings, Values};
use tallystone::{Durability, ErrorKind, Filter, Options, Store, Table, TaskMetric, Timestamp};

const START: i64 = 1_794_787_200_000_000;

fn task<'a>(micros: i64, task_id: &'a str, agent_id: &'a str) -> TaskMetric<'a> {
    TaskMetric {
        timestamp: Timestamp::from_micros(micros).unwrap(),
        task_id,
        agent_id,
        duration_ms: Some(5),
        tokens_used: None,
        success: true,
        metadata: Some("{\"a\": 1}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the store has the real clock here")]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

#[test]
fn rows_are_visible_after_commit_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let start = now();
    for i in 0..250 {
        store.record_task(&task(start + i, &format!("t{i}"), "a")).unwrap();
    }
    store.commit().unwrap();
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), 250);
    let before = store.snapshot().unwrap();
    store.record_task(&task(start, "late", "b")).unwrap();
    store.flush().unwrap();
    assert_eq!(before.rows(Table::Task), 250);
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), 251);
    store.close().unwrap();
    let again = Store::open(dir.path().join("store")).unwrap();
    assert_eq!(again.snapshot().unwrap().rows(Table::Task), 251);
}

#[test]
fn readers_of_another_handle_see_commits_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open(dir.path().join("store")).unwrap();
    let reader = Store::open_read_only(writer.dir()).unwrap();
    let mut appender = writer.appender().unwrap();
    for i in 0..50 {
        appender.append_task(&task(now(), &format!("t{i}"), "a")).unwrap();
        appender.commit().unwrap();
        assert_eq!(reader.snapshot().unwrap().rows(Table::Task), i + 1);
    }
}

#[test]
fn the_timer_commits_what_nobody_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        flush_interval: std::time::Duration::from_millis(20),
        durability: Durability::Os,
        ..Options::default()
    };
    let store = Store::open_with(dir.path().join("store"), options).unwrap();
    store.record_task(&task(now(), "t", "a")).unwrap();
    let mut appender = store.appender().unwrap();
    appender.append_task(&task(now(), "t", "a")).unwrap();
    for _ in 0..200 {
        if store.snapshot().unwrap().rows(Table::Task) == 2 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the rows were not committed");
}

#[test]
fn bad_rows_are_refused_at_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let refused = |row: TaskMetric<'_>, kind: ErrorKind, words: &str| {
        let error = store.record_task(&row).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(task(now(), "", "a"), ErrorKind::BadInput, "task_id");
    refused(task(now(), "t", &"x".repeat(70_000)), ErrorKind::BadInput, "agent_id");
    refused(
        TaskMetric { metadata: Some("{not json"), ..task(now(), "t", "a") },
        ErrorKind::BadInput,
        "metadata",
    );
    refused(task(0, "t", "a"), ErrorKind::PastRetention, "timestamp");
    store.keep_everything().unwrap();
    store.record_task(&task(0, "t", "a")).unwrap();
    store.flush().unwrap();
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), 1);
}

#[test]
fn a_closed_store_takes_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let mut appender = store.appender().unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(store.record_task(&task(now(), "t", "a")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(appender.append_task(&task(now(), "t", "a")).unwrap_err().kind(), ErrorKind::Closed);
}

/// A batch whose null metadata held text was accepted, could not be stored, and stayed at
/// the head of the queue before everything that came later. Now it is refused at the door.
#[test]
fn columns_with_text_under_a_null_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    store.keep_everything().unwrap();
    let mut tasks = tallystone::testing::workload::Tasks::new(200, 1);
    let good = tasks.next_batch(100).unwrap();
    let mut bad = tasks.next_batch(100).unwrap();
    let metadata = bad.columns.last_mut().unwrap();
    metadata.values = Values::Text((0..100).map(|_| "{}").collect());
    let mut appender = store.appender().unwrap();
    let error = appender.append_columns(Table::Task, bad).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    assert!(error.to_string().contains("metadata"), "{error}");
    appender.append_columns(Table::Task, good).unwrap();
    appender.flush().unwrap();
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), 100);
}

#[test]
fn a_text_that_a_dictionary_has_twice_is_one_text() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    store.keep_everything().unwrap();
    let stamps = (0..4).map(|number| START + number).collect();
    let nothing = Bitmap::filled(4, false);
    let dictionary: Strings = ["ada", "bob", "ada", "of no row"].into_iter().collect();
    let codes = Values::Coded { codes: vec![0, 1, 2, 2], dictionary: Arc::new(dictionary) };
    let metrics = Values::Text(["cpu"; 4].into_iter().collect());
    let batch = Batch {
        schema: Table::Agent.schema(),
        columns: vec![
            Column::new(Values::Int(stamps)),
            Column::new(codes),
            Column::new(metrics),
            Column::new(Values::Float(vec![1.0, 2.0, 3.0, 4.0])),
            Column::with_validity(Values::Text([""; 4].into_iter().collect()), nothing),
        ],
    };
    store.appender().unwrap().append_columns(Table::Agent, batch).unwrap();
    store.commit().unwrap();
    for sealed in [false, true] {
        let snapshot = store.snapshot().unwrap();
        let of_ada = Filter::new().agent("ada");
        assert_eq!(snapshot.agent_metrics(&of_ada).unwrap().rows.len(), 3, "sealed: {sealed}");
        let keys = snapshot.aggregate_by_key(Table::Agent, "value", "agent_id", &Filter::new());
        let rows: Vec<u64> = keys.unwrap().rows.iter().map(|key| key.aggregate.rows).collect();
        assert_eq!(rows, [3, 1]);
        store.seal().unwrap();
    }
}
