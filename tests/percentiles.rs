//! Percentiles that outlive their rows: how far those of rollups are from the truth, on real
//! recordings and on hard distributions.
//!
//! `cargo test --release --test percentiles -- --nocapture` prints the table.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::cast_possible_truncation, reason = "truncation is the definition of a rank")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tallystone::column::{Batch, Column, Strings, Values};
use tallystone::testing::workload::Random;
use tallystone::testing::{SimFileSystem, open_store};
use tallystone::time::{Clock, MICROS_PER_DAY, SystemClock};
use tallystone::{
    Filter, MaintenanceRequest, Options, Percentile, Retention, Table, TableRetention, Tiers,
    Timestamp,
};

/// 2026-11-16, a Monday.
const START: i64 = 1_794_787_200_000_000;
const DAYS: i64 = 8;
const SHARES: [f64; 4] = [0.5, 0.95, 0.99, 0.999];

#[derive(Debug)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

/// A column of a bundled recording, as floats.
fn recorded(file: &str, column: &str) -> Vec<f64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/cli/data").join(file);
    let mut reader = csv::Reader::from_path(path).unwrap();
    let place = reader.headers().unwrap().iter().position(|name| name == column).unwrap();
    reader.records().map(|record| record.unwrap()[place].parse().unwrap()).collect()
}

fn distributions() -> Vec<(&'static str, Vec<f64>)> {
    let mut random = Random::new(11);
    let count = 80_000;
    let mut of = |draw: &mut dyn FnMut(&mut Random, usize) -> f64| -> Vec<f64> {
        (0..count).map(|number| draw(&mut random, number)).collect()
    };
    let mut walk = 0.0;
    vec![
        ("lognormal", of(&mut |random, _| (7.3 + 0.9 * random.normal()).exp().round())),
        (
            "bimodal",
            of(&mut |random, _| random.normal() + if random.chance(0.1) { 1e4 } else { 10.0 }),
        ),
        ("constant", of(&mut |_, _| 42.0)),
        (
            "tied",
            of(&mut |random, _| {
                if random.chance(0.4) { 5.0 } else { (random.unit() * 3_000.0).floor() }
            }),
        ),
        (
            "drifting",
            of(&mut |random, number| {
                walk += 0.01;
                walk + number as f64 / 100.0 + random.normal()
            }),
        ),
        ("heavy tail", of(&mut |random, _| random.unit().max(1e-9).powf(-1.5))),
        (
            "outliers",
            of(&mut |random, number| {
                if number % 1_000 == 0 { 1e12 } else { random.unit() }
            }),
        ),
        ("recorded latency", recorded("azure_vm_noise_2024/postgresql_latency.csv", LATENCY)),
        ("recorded tokens", recorded("azure_llm_2023/AzureLLMInferenceTrace_conv.csv", TOKENS)),
        ("recorded cpu", recorded("nab/ec2_cpu_utilization_5f5533.csv", "value")),
    ]
}

const LATENCY: &str = "latency_ms";
const TOKENS: &str = "GeneratedTokens";

/// The values over some days, spread evenly in the order they are in, for three agents.
fn batch(values: &[f64]) -> Batch {
    let step = DAYS * MICROS_PER_DAY / values.len() as i64;
    let stamps = (0..values.len() as i64).map(|number| START + number * step).collect();
    let agents: Strings =
        (0..values.len()).map(|number| ["agent-0", "agent-1", "agent-2"][number % 3]).collect();
    let metric: Strings = values.iter().map(|_| "latency").collect();
    let nothing = tallystone::column::Bitmap::filled(values.len(), false);
    Batch {
        schema: Table::Agent.schema(),
        columns: vec![
            Column::new(Values::Int(stamps)),
            Column::new(Values::Text(agents)),
            Column::new(Values::Text(metric)),
            Column::new(Values::Float(values.to_vec())),
            Column::with_validity(Values::Text(values.iter().map(|_| "").collect()), nothing),
        ],
    }
}

/// Distance of the rank of `value` from the one asked for, as a share.
fn distance(sorted: &[f64], share: f64, value: f64) -> f64 {
    let count = sorted.len();
    let rank = ((count as f64 * share) as usize).min(count - 1) as f64;
    let before = sorted.partition_point(|other| *other < value) as f64;
    let upto = sorted.partition_point(|other| *other <= value) as f64;
    (before - rank).max(rank + 1.0 - upto).max(0.0) / count as f64
}

#[test]
fn percentiles_of_rollups_keep_their_bound() {
    let mut table = String::from(
        "| values | rollup | bound of all | p50 | p95 | p99 | p99.9 | one agent: bound | p99 |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (name, values) in distributions() {
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut of_agent: Vec<f64> = values.iter().step_by(3).copied().collect();
        of_agent.sort_unstable_by(f64::total_cmp);
        for (tier, hourly_days) in [("hourly", 1_000), ("daily", 0)] {
            let clock = Arc::new(Hand(AtomicI64::new(START + DAYS * MICROS_PER_DAY)));
            let options = Options {
                maintenance: None,
                clock: Arc::<Hand>::clone(&clock),
                ..Options::default()
            };
            let fs = SimFileSystem::new();
            let store = open_store(&fs, Path::new("/store"), options).unwrap();
            let rule = TableRetention::Tiers(Tiers {
                detailed_days: 1,
                archive_days: 1,
                hourly_days,
                daily_days: 2_000,
            });
            store.set_retention(&Retention { agent: rule, ..Retention::KEEP }).unwrap();
            let mut appender = store.appender().unwrap();
            appender.append_columns(Table::Agent, batch(&values)).unwrap();
            appender.flush().unwrap();
            clock.0.store(START + (DAYS + 10) * MICROS_PER_DAY, Ordering::Relaxed);
            let request = MaintenanceRequest { accept_clock: true, ..Default::default() };
            store.maintain(&request).unwrap();
            let snapshot = store.snapshot().unwrap();
            assert_eq!(snapshot.rows(Table::Agent), 0);
            let ask = |filter: &Filter, shares: &[f64]| {
                let table = Table::Agent;
                snapshot.percentiles(table, "value", shares, Percentile::Exact, filter).unwrap()
            };
            let all = ask(&Filter::new(), &SHARES);
            assert!(all.coverage.is_complete() && all.coverage.detail.is_empty());
            let one = ask(&Filter::new().agent("agent-0"), &[0.99]);
            let mut line = format!("| {name} | {tier} | {:.5} |", all.value[0].rank_error);
            for (share, found) in SHARES.iter().zip(&all.value) {
                let off = distance(&sorted, *share, found.value.unwrap().as_f64());
                assert!(off <= found.rank_error, "{name} {tier} {share}: {off} {found:?}");
                assert_eq!(found.count, sorted.len() as u64);
                write!(line, " {off:.5} |").unwrap();
            }
            let found = &one.value[0];
            let off = distance(&of_agent, 0.99, found.value.unwrap().as_f64());
            assert!(off <= found.rank_error, "{name} {tier} agent: {off} {found:?}");
            writeln!(table, "{line} {:.5} | {off:.5} |", found.rank_error).unwrap();
            assert!(all.value[0].rank_error < 0.02, "{name} {tier}: {:?}", all.value[0]);
        }
    }
    println!("{table}");
}
