//! Retention: rules that can be changed on a live store, and what follows from them.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{
    ErrorKind, Retention, Store, Table, TableRetention, TaskMetric, Tiers, Timestamp,
};

fn task<'a>(timestamp: i64, id: &'a str) -> TaskMetric<'a> {
    TaskMetric {
        timestamp: Timestamp::from_micros(timestamp).unwrap(),
        task_id: id,
        agent_id: "agent",
        duration_ms: Some(5),
        tokens_used: None,
        success: true,
        metadata: None,
    }
}

fn days(detailed_days: u32, archive_days: u32, hourly_days: u32, daily_days: u32) -> Tiers {
    Tiers { detailed_days, archive_days, hourly_days, daily_days }
}

fn open(dir: &Path) -> Store {
    Store::open(dir.join("store")).unwrap()
}

#[test]
fn rules_are_changed_on_a_live_store() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    assert_eq!(store.retention().unwrap(), Retention::default());
    let now = SystemClock.now().as_micros();
    let old = task(now - 20 * MICROS_PER_DAY, "old");
    store.record_task(&old).unwrap();

    // Shorter: the door refuses at once what it took before.
    let mut rules = Retention { max_bytes: Some(1 << 40), ..Retention::default() };
    rules.set_table(Table::Task, TableRetention::Tiers(days(1, 0, 2, 10)));
    store.set_retention(&rules).unwrap();
    assert_eq!(store.retention().unwrap(), rules);
    assert_eq!(store.record_task(&old).unwrap_err().kind(), ErrorKind::PastRetention);
    store.record_task(&task(now - 9 * MICROS_PER_DAY, "younger")).unwrap();

    // Another process, and the next one, find the same rules; maintenance changes nothing.
    assert_eq!(Store::open_read_only(store.dir()).unwrap().retention().unwrap(), rules);
    store.seal().unwrap();
    store.close().unwrap();
    let store = open(place.path());
    assert_eq!(store.retention().unwrap(), rules);
    assert!(store.recovery().notes.is_empty(), "{:?}", store.recovery().notes);

    store.keep_everything().unwrap();
    assert_eq!(
        store.retention().unwrap(),
        Retention { max_bytes: Some(1 << 40), ..Retention::KEEP }
    );
    store.record_task(&task(0, "oldest")).unwrap();
}

#[test]
fn rules_that_make_no_sense_change_nothing() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let mut rules = Retention::default();
    rules.set_table(Table::Agent, TableRetention::Tiers(days(7, 30, 6, 90)));
    let error = store.set_retention(&rules).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("agent_metrics: hourly_days is 6"), "{error}");
    assert_eq!(store.retention().unwrap(), Retention::default());
    let reader = Store::open_read_only(store.dir()).unwrap();
    let error = reader.set_retention(&Retention::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// A crash between the two places leaves rules that differ: the longer hold, and it is said.
#[test]
#[expect(clippy::disallowed_methods, reason = "puts an older copy of a file back")]
fn where_the_copies_differ_the_longer_holds() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let mut short = Retention::default();
    short.set_table(Table::Task, TableRetention::Tiers(days(1, 0, 0, 0)));
    store.set_retention(&short).unwrap();
    let file = store.dir().join("retention.json");
    let bytes = std::fs::read(&file).unwrap();
    store.set_retention(&Retention::default()).unwrap();
    store.close().unwrap();
    std::fs::write(&file, bytes).unwrap();
    let store = open(place.path());
    assert_eq!(store.retention().unwrap(), Retention::default());
    let notes = &store.recovery().notes;
    assert!(notes.iter().any(|note| note.contains("the longer of each tier holds")), "{notes:?}");
}
