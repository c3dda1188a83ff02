//! An export needs as much memory for many rows as for few. Alone in its file, since it looks
//! at the memory of the process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tallystone::column::{Batch, Column, Strings, Values};
use tallystone::export::{ExportFormat, ExportRequest};
use tallystone::{Store, Table};

/// 2026-11-16.
const START: i64 = 1_794_787_200_000_000;
/// Rows of one hour: the crowd that is hardest to put in order.
const ROWS: usize = 1_500_000;

/// Bytes of this process that are in no file.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Forgets what it is given, and remembers the most memory that was in use.
#[derive(Default)]
struct Watch(u64);

impl io::Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.max(memory());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gauges in no order of time.
fn batch(first: usize, rows: usize) -> Batch {
    let stamp = |row: usize| START + i64::try_from(row * 7_919 % 3_600_000).unwrap() * 1_000;
    let dictionary: Arc<Strings> = Arc::new(["a", "b", "c"].into_iter().collect());
    let coded = |by: usize| {
        let codes = (0..rows).map(|row| u32::try_from((first + row) / by % 3).unwrap()).collect();
        Column::new(Values::Coded { codes, dictionary: Arc::clone(&dictionary) })
    };
    let metadata: Strings =
        (0..rows).map(|_| "{\"note\":\"sixty bytes of text, more or less\"}").collect();
    let columns = vec![
        Column::new(Values::Int((first..first + rows).map(stamp).collect())),
        coded(1),
        coded(3),
        Column::new(Values::Float((0..rows).map(|row| row as f64 / 8.0).collect())),
        Column::new(Values::Text(metadata)),
    ];
    Batch { schema: Table::Agent.schema(), columns }
}

/// Set for the process that exports: where the store is.
const STORE: &str = "TALLYSTONE_EXPORT_STORE";

#[test]
fn memory_does_not_depend_on_the_rows() {
    if let Some(dir) = std::env::var_os(STORE) {
        return export_all(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let store = Store::open(&dir).unwrap();
    store.keep_everything().unwrap();
    let mut appender = store.appender().unwrap();
    for first in (0..ROWS).step_by(50_000) {
        appender.append_columns(Table::Agent, batch(first, 50_000)).unwrap();
    }
    appender.commit().unwrap();
    drop(appender);
    for state in ["active", "sealed"] {
        if state == "sealed" {
            store.seal().unwrap();
        }
        // A process of its own, which owes nothing to what was written and sealed before.
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["memory_does_not_depend_on_the_rows", "--nocapture"])
            .env(STORE, &dir)
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{state}: {out}{}", String::from_utf8_lossy(&child.stderr));
        let figures = out.lines().filter(|line| line.contains("MiB"));
        figures.for_each(|line| println!("{state}, {line}"));
    }
}

fn export_all(dir: &Path) {
    let snapshot = Store::open_read_only(dir).unwrap().snapshot().unwrap();
    for format in [ExportFormat::Csv, ExportFormat::Jsonl, ExportFormat::Json] {
        let request = ExportRequest::new(format);
        let mut watch = Watch::default();
        let report = snapshot.export(&request, &mut watch, &mut |_| {}).unwrap();
        assert_eq!(report.rows, ROWS as u64);
        let most = watch.0 >> 20;
        println!("{}: {most} MiB", format.name());
        assert!(most < 64, "{}: {most} MiB", format.name());
    }
}
