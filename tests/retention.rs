//! Retention: rules that can be changed on a live store, and what follows from them.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::time::{Boot, Clock, MICROS_PER_DAY, MICROS_PER_HOUR, SystemClock};
use tallystone::{
    AgentMetric, ErrorKind, Filter, ImportSource, MaintenanceReport, MaintenanceRequest,
    MaintenanceWork, Options, Retention, Store, Table, TableRetention, TaskMetric, Tiers,
    Timestamp,
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

// ---------------------------------------------------------------------------------------
// Expiry

/// A Monday, midnight.
const START: i64 = 1_794_787_200_000_000;

/// A machine that runs as long as the test says, and a clock that may be set wrong.
#[derive(Debug, Default)]
struct Machine {
    running: AtomicI64,
    wrong_by: AtomicI64,
}

impl Machine {
    fn run_days(&self, days: i64) {
        self.running.fetch_add(days * MICROS_PER_DAY, Ordering::Relaxed);
    }

    fn set_wrong(&self, by: i64) {
        self.wrong_by.store(by, Ordering::Relaxed);
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        let right = START + self.running.load(Ordering::Relaxed);
        let now = right.saturating_add(self.wrong_by.load(Ordering::Relaxed));
        let (min, max) = (Timestamp::MIN.as_micros(), Timestamp::MAX.as_micros());
        Timestamp::from_micros(now.clamp(min, max)).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn boot(&self) -> Boot {
        let micros = self.running.load(Ordering::Relaxed).unsigned_abs();
        Boot { id: [7; 16], uptime: Duration::from_micros(micros) }
    }
}

struct World {
    fs: SimFileSystem,
    machine: Arc<Machine>,
    options: Options,
}

impl World {
    fn new() -> Self {
        let machine = Arc::new(Machine::default());
        let options = Options {
            flush_interval: Duration::from_secs(3_600),
            block_rows: 64,
            small_hour_rows: 8,
            maintenance: None,
            clock: Arc::<Machine>::clone(&machine),
            ..Options::default()
        };
        Self { fs: SimFileSystem::new(), machine, options }
    }

    fn open(&self) -> Store {
        self.open_on(&self.fs)
    }

    fn open_on(&self, fs: &SimFileSystem) -> Store {
        open_store(fs, Path::new("/store"), self.options.clone()).unwrap()
    }
}

/// Ten tasks and five gauges for each day from `first` to `last`.
fn fill(store: &Store, first: i64, last: i64) {
    for day in first..=last {
        for number in 0..10 {
            let stamp = START + day * MICROS_PER_DAY + number * MICROS_PER_HOUR;
            store.record_task(&task(stamp, &format!("d{day}-{number}"))).unwrap();
        }
        for number in 0..5 {
            let stamp = START + day * MICROS_PER_DAY + number * MICROS_PER_HOUR;
            let timestamp = Timestamp::from_micros(stamp).unwrap();
            let (agent_id, metric_type) = ("agent", "cpu");
            let value = number as f64;
            let row = AgentMetric { timestamp, agent_id, metric_type, value, metadata: None };
            store.record_agent(&row).unwrap();
        }
    }
    store.flush().unwrap();
}

fn expire(store: &Store) -> MaintenanceReport {
    run(store, MaintenanceWork::Expire, false, false)
}

fn run(
    store: &Store,
    what: MaintenanceWork,
    dry_run: bool,
    accept_clock: bool,
) -> MaintenanceReport {
    store.maintain(&MaintenanceRequest { what, dry_run, accept_clock }).unwrap()
}

/// Tasks per day, counted from `START`.
fn tasks(store: &Store) -> BTreeMap<i64, usize> {
    let page = store.snapshot().unwrap().task_metrics(&Filter::new().all()).unwrap();
    let mut days = BTreeMap::new();
    let mut seen = HashSet::new();
    for row in page.rows {
        assert!(seen.insert(row.task_id.clone()), "{} is there twice", row.task_id);
        *days.entry((row.timestamp.as_micros() - START).div_euclid(MICROS_PER_DAY)).or_default() +=
            1;
    }
    days
}

fn all_tasks(days: std::ops::RangeInclusive<i64>) -> BTreeMap<i64, usize> {
    days.map(|day| (day, 10)).collect()
}

/// Days that the coverage of all tasks says are gone, counted from `START`.
fn gone(store: &Store) -> Vec<(i64, i64)> {
    let page = store.snapshot().unwrap().task_metrics(&Filter::new()).unwrap();
    let day = |stamp: Timestamp| (stamp.as_micros() - START) / MICROS_PER_DAY;
    page.coverage.gone.iter().map(|span| (day(span.from), day(span.to))).collect()
}

fn check_sound(store: &Store) {
    let report = store.verify(true).unwrap();
    assert_eq!(report.problems, []);
}

#[test]
fn days_go_when_they_are_past_the_last_tier() {
    let world = World::new();
    let store = world.open();
    let mut rules = Retention::default();
    rules.set_table(Table::Agent, TableRetention::Keep);
    store.set_retention(&rules).unwrap();
    fill(&store, 0, 4);
    store.seal().unwrap();
    assert_eq!(expire(&store).changes, []);

    // Day 1 ends with day 2, and is 90 days old with day 92.
    world.machine.run_days(92);
    let dry = run(&store, MaintenanceWork::Expire, true, false);
    assert_eq!(tasks(&store), all_tasks(0..=4));
    let done = expire(&store);
    assert_eq!(tasks(&store), all_tasks(2..=4));
    assert_eq!(gone(&store), [(0, 2)]);
    assert!(dry.dry_run && !done.dry_run);
    assert_eq!(dry.changes, done.changes);
    let [change] = &done.changes[..] else { panic!("{done:?}") };
    assert_eq!((change.table, change.tier), ("task_metrics", "gone"));
    assert_eq!((change.rows, change.files, change.damaged_files), (20, 2, 0));
    assert_eq!(change.from.unwrap().as_micros(), START);
    let last = START + MICROS_PER_DAY + 9 * MICROS_PER_HOUR;
    assert_eq!(change.to.unwrap().as_micros(), last);
    // Gauges are kept.
    let gauges = store.snapshot().unwrap().agent_metrics(&Filter::new().all()).unwrap();
    assert_eq!((gauges.rows.len(), gauges.coverage.gone.len()), (25, 0));

    // Replaced files stay for the grace, and then go; a second pass has nothing to do.
    let stats = store.stats().unwrap();
    assert!(stats.replaced_bytes >= change.bytes, "{stats:?}");
    assert_eq!((stats.gone[0].rows, stats.gone[0].files, stats.damaged_gone), (20, 2, 0));
    let running = &world.machine.running;
    running.fetch_add(MICROS_PER_HOUR, Ordering::Relaxed);
    let swept = expire(&store);
    assert_eq!((swept.changes.len(), swept.files_removed), (0, 2));
    assert_eq!(store.stats().unwrap().replaced_bytes, 0);
    check_sound(&store);
    assert_eq!(tasks(&store), all_tasks(2..=4));
    store.close().unwrap();

    // Whoever opens the store sees the same, and nothing that would be missing.
    let store = world.open();
    assert_eq!(store.recovery().notes, Vec::<String>::new());
    assert_eq!((tasks(&store), gone(&store)), (all_tasks(2..=4), vec![(0, 2)]));
}

/// The same on real files, with the catalog in SQLite.
#[test]
fn the_catalog_explains_what_went() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new();
    let open = || Store::open_with(place.path().join("store"), world.options.clone()).unwrap();
    let store = open();
    fill(&store, 0, 4);
    store.seal().unwrap();
    world.machine.run_days(92);
    assert_eq!(expire(&store).changes.len(), 2);
    world.machine.run_days(1);
    assert_eq!(expire(&store).changes.len(), 2);
    let jobs = store.health().unwrap().jobs;
    assert!(jobs.iter().any(|job| job.kind == "expire" && job.rows == 10), "{jobs:?}");
    store.close().unwrap();
    for _ in 0..2 {
        let store = open();
        assert_eq!(store.recovery().notes, Vec::<String>::new());
        assert_eq!((tasks(&store), gone(&store)), (all_tasks(3..=4), vec![(0, 3)]));
        let health = store.health().unwrap();
        assert_eq!((health.missing_files, health.clock_refused), (0, None));
        assert_eq!(health.last_maintenance.unwrap().what, "expire");
        check_sound(&store);
        store.close().unwrap();
    }
    let store = open();
    store.rebuild_catalog().unwrap();
    store.close().unwrap();
    let reader = Store::open_read_only(place.path().join("store")).unwrap();
    assert_eq!((tasks(&reader), gone(&reader)), (all_tasks(3..=4), vec![(0, 3)]));
}

#[test]
fn a_day_that_is_written_to_waits_and_late_rows_follow() {
    let world = World::new();
    let (store, late) = (world.open(), world.open());
    fill(&store, 0, 1);
    store.seal().unwrap();
    // A process whose door does not know the time yet.
    late.record_task(&task(START + MICROS_PER_HOUR, "late")).unwrap();
    late.flush().unwrap();
    world.machine.run_days(92);
    let report = expire(&store);
    assert_eq!((report.postponed.len(), report.postponed[0].day.as_str()), (1, "2026-11-16"));
    assert!(report.postponed[0].reason.contains("a process is writing to it"), "{report:?}");
    assert_eq!(tasks(&store).get(&0), Some(&11));
    assert_eq!(gone(&store), [(1, 2)]);
    late.close().unwrap();
    assert_eq!(expire(&store).changes[0].rows, 11);

    // Rows that come after the tombstone are there until the next pass.
    let late = world.open();
    late.keep_everything().unwrap();
    late.record_task(&task(START + MICROS_PER_HOUR, "later")).unwrap();
    late.close().unwrap();
    late.snapshot().unwrap();
    assert_eq!((tasks(&store).get(&0), gone(&store)), (Some(&1), vec![(0, 2)]));
    let page = store.snapshot().unwrap().task_metrics(&Filter::new()).unwrap();
    assert_eq!(page.coverage.detail.len(), 1);
    assert_eq!(expire(&store).changes, [], "everything is kept now");
    store.set_retention(&Retention::default()).unwrap();
    assert_eq!(expire(&store).changes[0].rows, 1);
    assert_eq!((tasks(&store).len(), gone(&store)), (0, vec![(0, 2)]));
    // Both tombstones were folded into one, which knows of all rows.
    world.machine.run_days(1);
    expire(&store);
    let gone = &store.stats().unwrap().gone[0];
    assert_eq!((gone.files, gone.rows), (2, 22));
}

#[test]
fn many_files_go_in_rounds() {
    let world = World::new();
    let store = world.open();
    for number in 0..200 {
        let name = format!("source {number}");
        let source = ImportSource { name, hash: number, crc32: 0, bytes: 1, again: false };
        let mut import = store.begin_import(source).unwrap();
        let id = format!("t{number}");
        import.append_task(&task(START, &id)).unwrap();
        import.commit().unwrap();
    }
    world.machine.run_days(100);
    assert_eq!(expire(&store).changes[0].rows, 200);
    assert!(tasks(&store).is_empty());
    assert_eq!(store.stats().unwrap().gone[0].files, 2);
    world.machine.run_days(1);
    for _ in 0..3 {
        expire(&store);
        world.machine.run_days(1);
    }
    let stats = store.stats().unwrap();
    assert_eq!((stats.gone[0].files, stats.gone[0].rows), (1, 200));
    assert_eq!(stats.replaced_bytes, 0);
    assert!(tasks(&store).is_empty());
}

#[test]
fn the_oldest_days_go_when_the_store_is_too_large() {
    let world = World::new();
    let store = world.open();
    fill(&store, 0, 9);
    store.seal().unwrap();
    world.machine.run_days(9);
    let bytes: u64 = store.stats().unwrap().tables.iter().map(|table| table.bytes).sum();
    let rules = Retention { max_bytes: Some(bytes * 6 / 10), ..Retention::KEEP };
    store.set_retention(&rules).unwrap();
    let report = expire(&store);
    let rows: u64 = report.changes.iter().map(|change| change.rows).sum();
    assert!((50..=75).contains(&rows), "{report:?}");
    let left = tasks(&store);
    assert_eq!(left, all_tasks(10 - i64::try_from(left.len()).unwrap()..=9));
    assert_eq!(expire(&store).changes, []);
    // Today stays, whatever it takes.
    store.set_retention(&Retention { max_bytes: Some(0), ..Retention::KEEP }).unwrap();
    expire(&store);
    assert_eq!(tasks(&store), all_tasks(9..=9));
    assert_eq!(expire(&store).changes, []);
}

#[test]
fn a_damaged_file_goes_and_is_not_forgotten() {
    let world = World::new();
    let store = world.open();
    fill(&store, 0, 3);
    store.close().unwrap();
    let store = world.open();
    store.seal().unwrap();
    // Past the grace, so that nothing but the segments has the rows.
    world.machine.run_days(1);
    expire(&store);
    let stats = world.fs.dump();
    let segments: Vec<_> = stats
        .into_iter()
        .filter(|(path, _)| path.starts_with("/store/task_metrics"))
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "segment"))
        .collect();
    let damaged = &segments[0].0;
    let mut bytes = world.fs.read_file(damaged).unwrap();
    bytes[..8192].fill(0x55);
    // Right magic, wrong checksum: damaged, and not another's.
    bytes[..8].copy_from_slice(b"TALLYSEG");
    world.fs.write_file(damaged, &bytes).unwrap();
    // A file of another store is no business of ours.
    let stranger =
        segments[1].0.with_file_name(format!("{}.segment", "00000000-0000-4000-8000-0000000000aa"));
    world.fs.write_file(&stranger, &world.fs.read_file(&segments[1].0).unwrap()).unwrap();
    store.close().unwrap();
    let store = world.open();
    assert_eq!(store.stats().unwrap().damaged_files, 2);
    world.machine.run_days(100);
    let report = expire(&store);
    let change = report.changes.iter().find(|change| change.table == "task_metrics").unwrap();
    assert_eq!((change.rows, change.files, change.damaged_files), (30, 4, 1), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("it is left alone")), "{report:?}");
    world.machine.run_days(1);
    expire(&store);
    let stats = store.stats().unwrap();
    assert_eq!((stats.damaged_files, stats.damaged_gone), (1, 1));
    assert!(world.fs.read_file(&stranger).is_ok());
    assert!(world.fs.read_file(damaged).is_err());
    let page = store.snapshot().unwrap().task_metrics(&Filter::new()).unwrap();
    let reasons: Vec<_> =
        page.coverage.gone.iter().filter_map(|span| span.reason.clone()).collect();
    assert_eq!(reasons, ["damaged"], "{:?}", page.coverage.gone);
}

#[test]
fn a_wrong_clock_wipes_nothing() {
    let wrongs = [
        365 * MICROS_PER_DAY,
        -365 * MICROS_PER_DAY,
        -START,
        // 2262, where nanoseconds end.
        9_223_372_036_854_775 - START,
        Timestamp::MAX.as_micros() - START,
    ];
    for wrong in wrongs {
        let world = World::new();
        let store = world.open();
        fill(&store, 0, 3);
        store.seal().unwrap();
        world.machine.run_days(4);
        world.machine.set_wrong(wrong);
        for pass in 0..4 {
            let report = expire(&store);
            assert!(report.refused.is_some(), "{wrong}, pass {pass}: {report:?}");
            assert_eq!(report.changes, []);
        }
        assert_eq!(tasks(&store), all_tasks(0..=3), "{wrong}");
        assert!(store.health().unwrap().clock_refused.is_some());
        store.close().unwrap();
        let store = world.open();
        assert!(run(&store, MaintenanceWork::All, false, false).refused.is_some());
        assert_eq!(tasks(&store), all_tasks(0..=3), "{wrong}");
        // Set right: on with the work.
        world.machine.set_wrong(0);
        assert_eq!(expire(&store).refused, None);
        assert_eq!(store.health().unwrap().clock_refused, None);
        assert_eq!(tasks(&store), all_tasks(0..=3), "{wrong}");
    }
}

#[test]
fn a_machine_that_was_off_is_believed_when_it_insists() {
    let world = World::new();
    let store = world.open();
    fill(&store, 0, 3);
    store.seal().unwrap();
    // Off for 200 days: the clock is right, and nothing can tell.
    world.machine.set_wrong(200 * MICROS_PER_DAY);
    let dry = run(&store, MaintenanceWork::Expire, true, false);
    assert!(dry.refused.is_some());
    let running = &world.machine.running;
    for _ in 0..2 {
        assert!(expire(&store).refused.is_some());
        running.fetch_add(MICROS_PER_HOUR, Ordering::Relaxed);
    }
    assert_eq!(tasks(&store), all_tasks(0..=3));
    assert_eq!(expire(&store).refused, None);
    assert!(tasks(&store).is_empty());

    let world = World::new();
    let store = world.open();
    fill(&store, 0, 3);
    world.machine.set_wrong(200 * MICROS_PER_DAY);
    assert_eq!(run(&store, MaintenanceWork::All, false, true).refused, None);
    assert!(tasks(&store).is_empty(), "what is sealed by the pass goes with it");
}

#[test]
fn a_crash_at_any_operation_leaves_whole_days_or_none() {
    let world = World::new();
    let store = world.open();
    fill(&store, 0, 3);
    store.seal().unwrap();
    store.close().unwrap();
    world.fs.checkpoint();
    let first = world.fs.op_count();
    world.machine.run_days(93);
    let store = world.open();
    assert_eq!(expire(&store).changes.len(), 2);
    world.machine.run_days(1);
    assert_eq!(expire(&store).changes.len(), 2);
    store.close().unwrap();
    let after_all = world.fs.op_count();
    let mut images = HashSet::new();
    for op in world.fs.change_points().into_iter().filter(|op| (first..=after_all).contains(op)) {
        for image in
            world.fs.images_after(op, 1, 6).into_iter().chain([world.fs.kill_image_within(op, 1)])
        {
            if !images.insert(image.hash()) {
                continue;
            }
            let story = format!("crash after operation {op}");
            let reader =
                open_store_read_only(&image, Path::new("/store"), world.options.clone()).unwrap();
            check_whole(&reader, &story);
            let store = world.open_on(&image);
            check_whole(&store, &story);
            let gone_before = gone(&store);
            expire(&store);
            assert_eq!(tasks(&store), BTreeMap::new(), "{story}");
            world.machine.run_days(1);
            expire(&store);
            expire(&store);
            world.machine.run_days(-1);
            assert_eq!(gone(&store), [(0, 4)], "{story}, before {gone_before:?}");
            assert_eq!(store.stats().unwrap().gone[0].rows, 40, "{story}");
            check_sound(&store);
        }
    }
    assert!(images.len() > 50, "{}", images.len());
}

/// Each day is whole or gone, never half, and never without a word.
fn check_whole(store: &Store, story: &str) {
    let left = tasks(store);
    let gone = gone(store);
    for day in 0..=3 {
        let is_gone = gone.iter().any(|(from, to)| (*from..*to).contains(&day));
        let rows = left.get(&day).copied().unwrap_or(0);
        assert_eq!(rows, if is_gone { 0 } else { 10 }, "{story}, day {day}");
    }
}

#[test]
fn a_full_disk_is_made_room_on() {
    let mut freed = 0;
    for spare in (0..40_000).step_by(1_000) {
        let world = World::new();
        let store = world.open();
        fill(&store, 0, 3);
        store.seal().unwrap();
        store.close().unwrap();
        let store = world.open();
        world.machine.run_days(100);
        world.fs.space_limit(Some(world.fs.used_bytes() + spare));
        let report = expire(&store);
        assert_eq!(report.changes.len(), 2, "{spare} bytes to spare");
        assert!(tasks(&store).is_empty());
        // Where the reserve was needed, nothing waits for the grace.
        freed += u64::from(report.files_removed >= 8);
        world.fs.space_limit(None);
        expire(&store);
        check_sound(&store);
    }
    assert!(freed > 0);
}

#[test]
fn the_scheduler_works_in_one_process_and_ends_with_the_store() {
    let mut world = World::new();
    let store = world.open();
    fill(&store, 0, 3);
    store.close().unwrap();
    assert!(store.health().unwrap().last_expiry.is_some());
    world.machine.run_days(100);
    world.machine.set_wrong(0);
    world.options.maintenance = Some(Duration::from_millis(5));
    let store = world.open();
    store.pause_maintenance(true).unwrap();
    let status = store.maintenance_status().unwrap();
    assert!(status.is_paused);
    store.pause_maintenance(false).unwrap();
    for _ in 0..2_000 {
        if store.maintenance_status().unwrap().passes > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = store.maintenance_status().unwrap();
    assert!(status.passes > 0 && status.is_scheduled && !status.is_paused, "{status:?}");
    assert_eq!(status.failed, 0, "{status:?}");
    assert!(tasks(&store).is_empty());
    let begun = std::time::Instant::now();
    store.close().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}
