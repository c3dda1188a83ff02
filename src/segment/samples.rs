//! Rows for tests of segments: the workloads of the benchmarks in small, seeded.

#![expect(clippy::cast_possible_truncation, reason = "values are chosen to fit")]

use crate::column::{Batch, Bitmap, Column, Strings, Values};
use crate::schema::Table;
use crate::time::{MICROS_PER_DAY, Partition};

/// The day of all samples: 2026-11-23.
pub(crate) const DAY: i32 = 20_780;

pub(crate) fn day() -> Partition {
    Partition::from_days(DAY)
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

fn texts(values: Vec<Option<String>>) -> Column {
    let validity: Bitmap = values.iter().map(Option::is_some).collect();
    let strings: Strings = values.iter().map(|text| text.as_deref().unwrap_or("")).collect();
    Column::with_validity(Values::Text(strings), validity)
}

fn ints(values: Vec<Option<i64>>) -> Column {
    let validity: Bitmap = values.iter().map(Option::is_some).collect();
    let values = values.into_iter().map(Option::unwrap_or_default).collect();
    Column::with_validity(Values::Int(values), validity)
}

/// Finished tasks of one day in the order in which they came.
pub(crate) fn tasks(rows: usize, agents: usize, seed: u64) -> Batch {
    let mut random = Random(seed);
    let start = i64::from(DAY) * MICROS_PER_DAY;
    let weights: Vec<f64> = (1..=agents).map(|rank| (rank as f64).powf(-0.9)).collect();
    let total: f64 = weights.iter().sum();
    let mut columns: (Vec<i64>, Vec<_>, Vec<_>, Vec<_>, Vec<_>, Bitmap, Vec<_>) =
        Default::default();
    for row in 0..rows {
        let late = if random.below(100) == 0 { random.below(300_000) as i64 } else { 0 };
        let millis = (row as f64 / rows as f64 * 86_000_000.0) as i64 + 300_000;
        columns.0.push(start + (millis - late) * 1000);
        let number = match random.below(100) {
            0..3 => row.saturating_sub(1 + random.below(100)),
            _ => row,
        };
        columns.1.push(Some(format!("task_{number:07}")));
        let mut pick = random.unit() * total;
        let agent = weights.iter().position(|weight| {
            pick -= weight;
            pick <= 0.0
        });
        columns.2.push(Some(format!("agent_{:03}", agent.unwrap_or(0) * 7919 % agents)));
        let shared = random.normal();
        let duration = (7.3 + 0.9 * shared).exp() as i64;
        columns.3.push((random.below(200) != 0).then_some(duration));
        let tokens = (6.2 + 0.8 * (0.7 * shared + 0.71 * random.normal())).exp() as i64;
        columns.4.push((random.below(50) != 0).then_some(tokens));
        columns.5.push(random.below(100) < 97);
        columns.6.push((random.below(10) == 0).then(|| {
            let (model, region) = (random.below(4), random.below(4));
            let trace = random.below(100_000);
            format!(r#"{{"model":"m{model}","region":"r{region}","trace":"{trace:05}"}}"#)
        }));
    }
    Batch {
        schema: Table::Task.schema(),
        columns: vec![
            Column::new(Values::Int(columns.0)),
            texts(columns.1),
            texts(columns.2),
            ints(columns.3),
            ints(columns.4),
            Column::new(Values::Bool(columns.5)),
            texts(columns.6),
        ],
    }
}

/// Gauges of some agents, every ten seconds, as random walks.
pub(crate) fn gauges(rows: usize, agents: usize, seed: u64) -> Batch {
    const METRICS: [&str; 4] = ["cpu", "latency", "memory", "queue"];
    let mut random = Random(seed);
    let start = i64::from(DAY) * MICROS_PER_DAY;
    let series = agents * METRICS.len();
    let mut walks = vec![50.0f64; series];
    let mut columns: (Vec<i64>, Vec<_>, Vec<_>, Vec<f64>) = Default::default();
    for row in 0..rows {
        let index = row % series;
        let step = (row / series) as i64 * 10_000_000;
        columns.0.push(start + (step + index as i64 * 1000) % MICROS_PER_DAY);
        columns.1.push(Some(format!("agent_{:03}", index / METRICS.len())));
        columns.2.push(Some(METRICS[index % METRICS.len()].to_owned()));
        if random.below(3) > 0 {
            walks[index] = ((walks[index] + random.normal()) * 100.0).round() / 100.0;
        }
        columns.3.push(walks[index]);
    }
    Batch {
        schema: Table::Agent.schema(),
        columns: vec![
            Column::new(Values::Int(columns.0)),
            texts(columns.1),
            texts(columns.2),
            Column::new(Values::Float(columns.3)),
            texts(vec![None; rows]),
        ],
    }
}

/// The batch in pieces of at most `rows` rows.
pub(crate) fn pieces(batch: &Batch, rows: usize) -> Vec<Batch> {
    (0..batch.len())
        .step_by(rows)
        .map(|start| {
            let rows = start..batch.len().min(start + rows);
            let columns = batch.columns.iter().map(|column| {
                let values = match &column.values {
                    Values::Int(values) => Values::Int(values[rows.clone()].to_vec()),
                    Values::Float(values) => Values::Float(values[rows.clone()].to_vec()),
                    Values::Bool(values) => {
                        Values::Bool(rows.clone().map(|row| values.get(row)).collect())
                    }
                    Values::Text(values) => {
                        Values::Text(rows.clone().map(|row| values.get(row)).collect())
                    }
                    Values::Coded { codes, dictionary } => Values::Coded {
                        codes: codes[rows.clone()].to_vec(),
                        dictionary: dictionary.clone(),
                    },
                };
                let validity = rows.clone().map(|row| column.is_valid(row)).collect();
                Column::with_validity(values, validity)
            });
            Batch { schema: batch.schema, columns: columns.collect() }
        })
        .collect()
}
