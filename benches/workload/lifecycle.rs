//! Cold days: archives and daily rollups, how fast they are written and how large they are.
//!
//! Owns the rules under which all days of the workload are cold. Compaction runs in a process
//! of its own, whose memory is watched.

#![expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tallystone::column::Batch;
use tallystone::{
    Durability, MaintenanceRequest, MaintenanceWork, Retention, Store, Table, TableRetention, Tiers,
};

use crate::arguments::Arguments;
use crate::measure::{millis, timed};
use crate::memory::{Watch, child};
use crate::report::{Figure, Report, heading};
use crate::stores::{create, load, options, size};

/// As long as a tier may be.
const EVER: u32 = Tiers::DAYS_MAX;

/// Everything about a table's cold days.
pub(crate) struct Lifecycle<'a> {
    pub(crate) table: Table,
    pub(crate) rows: usize,
    pub(crate) dir: &'a Path,
    pub(crate) arguments: &'a Arguments,
}

impl Lifecycle<'_> {
    fn mark(&self) -> &'static str {
        if self.table == Table::Task { "T" } else { "G" }
    }

    fn figure(&self, name: &str, what: &str, unit: &'static str, value: f64) -> Figure {
        let what = format!("{}: {what}", self.table);
        Figure::new(&format!("{}-{name}", self.mark()), &what, self.rows, unit, value)
    }

    pub(crate) fn run(&self, batches: &[Batch], report: &mut Report) {
        let names = ["compact", "archive", "daily"].map(|name| format!("{}-{name}", self.mark()));
        if !self.arguments.wants(&[&names[0], &names[1], &names[2], "cold"]) {
            return;
        }
        heading(&format!("Cold days of {}", self.table));
        let place = self.dir.join("cold");
        let store = create(&place, Durability::default());
        load(&store, self.table, batches.to_vec());
        store.seal().unwrap();
        let (rows, sealed) = size(&store, "segment");
        store.close().unwrap();
        drop(store);
        let found = child("compact", &place, self.rows);
        let store = Store::open_with(&place, options(Durability::default())).unwrap();
        let (archived_rows, archived) = size(&store, "archive");
        assert_eq!(archived_rows, rows);
        let seconds = found["ms"].as_f64().unwrap() / 1e3;
        let mut figure = self.figure(
            "compact",
            "compaction into archives",
            "M rows/s",
            rows as f64 / seconds / 1e6,
        );
        figure.higher_is_better = true;
        let peak = found["peak_mib"].as_f64().unwrap();
        report.add(figure.aim(1.0).note(format!("{peak:.0} MiB of anonymous memory, aim 256")));
        let aim = if self.table == Table::Task { 6.2 } else { 1.1 };
        let per_row = archived as f64 / rows as f64;
        let figure =
            self.figure("archive", "size, archived, everything in the files", "B/row", per_row);
        let level = options(Durability::default()).archive_level;
        report.add(figure.aim(aim).note(format!("{archived} B, zstd level {level}")));
        let took = roll_up(&store, self.table);
        let (rolled_rows, daily) = size(&store, "daily");
        assert_eq!(rolled_rows, rows);
        let days = store.stats().unwrap().tables.iter().map(|kind| kind.files).sum::<u64>();
        let share = daily as f64 / sealed as f64 * 100.0;
        let figure = self.figure("daily", "daily rollups, of the sealed size", "%", share);
        let per_key = rows as f64 / days.max(1) as f64 / 500.0;
        report.add(figure.note(format!(
            "{daily} B; {per_key:.0} rows an agent and day; {:.2} M rows/s",
            rows as f64 / took.as_secs_f64() / 1e6
        )));
        store.close().unwrap();
        drop(store);
        std::fs::remove_dir_all(&place).unwrap();
    }
}

/// Rules by which only one tier is left for days that are over.
fn only(table: Table, archive_days: u32, daily_days: u32) -> Retention {
    let tiers = Tiers { detailed_days: 0, archive_days, hourly_days: 0, daily_days };
    let mut retention = Retention::KEEP;
    retention.set_table(table, TableRetention::Tiers(tiers));
    retention
}

fn maintain(store: &Store, what: MaintenanceWork) -> Duration {
    let request = MaintenanceRequest { what, accept_clock: true, ..MaintenanceRequest::default() };
    timed(|| {
        let report = store.maintain(&request).unwrap();
        assert!(report.refused.is_none() && report.postponed.is_empty() && report.notes.is_empty());
    })
}

fn roll_up(store: &Store, table: Table) -> Duration {
    store.set_retention(&only(table, 0, EVER)).unwrap();
    maintain(store, MaintenanceWork::RollUp)
}

/// Compacts a store whose days are all past, and watches the memory. Runs in a child.
pub(crate) fn compact(dir: &Path) -> Json {
    let store = Store::open_with(dir, options(Durability::default())).unwrap();
    let mut retention = Retention::KEEP;
    for table in Table::ALL {
        retention.set_table(table, only(table, EVER, 0).table(table));
    }
    store.set_retention(&retention).unwrap();
    let watch = Watch::start();
    let took = maintain(&store, MaintenanceWork::Compact);
    json!({"ms": millis(took), "peak_mib": watch.peak()})
}
