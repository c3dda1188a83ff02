//! What this machine can do at all: memory, disk, and a plain loop for each question.
//!
//! Owns raw columns in memory, clustered as a store would cluster them, and summaries made
//! ahead; the loops are what a query must at least do. One thread, no checks, no planning.

#![expect(clippy::cast_possible_truncation, reason = "values of the workload fit")]
#![expect(clippy::cast_precision_loss, reason = "values of the workload fit")]
#![expect(clippy::disallowed_methods, reason = "bare files are what is compared with")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tallystone::TaskRow;
use tallystone::column::{Batch, Column};
use tallystone::testing::workload::{AGENTS, METRICS, START};
use tallystone::time::{MICROS_PER_HOUR, Timestamp};

use crate::data::{Asked, FLEET_BUCKET, SHARES, coded};
use crate::measure::{Effort, Timing, timed};
use crate::report::say;

const HOURS: usize = 168;
const DAYS: usize = 7;
const HOUR_MS: u32 = 3_600_000;
/// Centroids of a digest.
const CENTROIDS: usize = 200;
/// Distance of the ends of a bracket from the rank, as a share of the count.
const BRACKET: f64 = 0.001;
/// Rows between two fences of the task ids.
const FENCE_ROWS: usize = 4_096;

// Sums wrap: the profile checks them otherwise, and checked loops are not vectorised.

/// A loop to be timed.
pub(crate) type Kernel<'a> = Box<dyn FnMut() + 'a>;

/// Measures memory and disk, and prints what it finds.
pub(crate) fn machine(dir: &Path, effort: Effort) -> Json {
    let floats = vec![1.0_f64; 16 << 20];
    let bytes = (floats.len() * 8) as f64;
    let few = Effort { runs_max: 20, ..effort };
    let read = bytes / 1e6 / few.repeat(|| timed(|| sum(&floats))).min_ms();
    let mut copy = vec![0.0; floats.len()];
    let copied = bytes
        / 1e6
        / few
            .repeat(|| {
                timed(|| {
                    copy.copy_from_slice(black_box(&floats));
                    black_box(&copy);
                })
            })
            .min_ms();
    let million = few.repeat(|| timed(|| sum(&floats[..1_000_000]))).min_ms();
    let runs = effort.runs_max.min(500);
    let grown = syncs(&dir.join("grown"), runs, false);
    let filled = syncs(&dir.join("filled"), runs, true);
    say(&format!(
        "machine: memory read {read:.1} GB/s, copy {copied:.1} GB/s, sum of 1M f64 {million:.3} ms"
    ));
    say(&format!(
        "         fdatasync of 4 KiB appended {:.3} ms (p99 {:.3}), into space written before \
         {:.3} ms (p99 {:.3})",
        grown.median_ms(),
        grown.permille_ms(990),
        filled.median_ms(),
        filled.permille_ms(990),
    ));
    json!({
        "memory_read_gb_s": read,
        "memory_copy_gb_s": copied,
        "sum_1m_f64_ms": million,
        "fdatasync_appended_ms": grown.median_ms(),
        "fdatasync_appended_p99_ms": grown.permille_ms(990),
        "fdatasync_filled_ms": filled.median_ms(),
        "fdatasync_filled_p99_ms": filled.permille_ms(990),
    })
}

/// A sum in as many lanes as the registers of any x86-64 hold, so that it is bound by memory.
fn sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; 16];
    for chunk in black_box(values).chunks_exact(16) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    lanes.iter().sum()
}

fn total<T: Copy + Into<i64>>(values: &[T]) -> i64 {
    values.iter().fold(0, |sum, value| sum.wrapping_add((*value).into()))
}

/// A file for bare writes; `bytes` of it are written with zeros before.
pub(crate) fn bare_file(path: &Path, bytes: usize) -> File {
    let file = File::create(path).unwrap();
    file.write_all_at(&vec![0; bytes], 0).unwrap();
    file.sync_all().unwrap();
    file
}

fn syncs(path: &Path, runs: usize, filled: bool) -> Timing {
    let page = [1u8; 4_096];
    let file = bare_file(path, if filled { page.len() * runs } else { 0 });
    let write = |run: usize| {
        file.write_all_at(&page, (run * page.len()) as u64).unwrap();
        file.sync_data().unwrap();
    };
    Timing::of((0..runs).map(|run| timed(|| write(run))).collect())
}

#[derive(Clone, Copy)]
struct Summary {
    count: u64,
    sum: i64,
    min: i64,
    max: i64,
}

impl Summary {
    const NONE: Self = Self { count: 0, sum: 0, min: i64::MAX, max: i64::MIN };

    fn of(values: &[i32]) -> Self {
        let mut found = Self::NONE;
        found.count = values.len() as u64;
        for value in values {
            let value = i64::from(*value);
            found.sum = found.sum.wrapping_add(value);
            found.min = found.min.min(value);
            found.max = found.max.max(value);
        }
        found
    }

    fn merge(self, other: &Self) -> Self {
        Self {
            count: self.count.wrapping_add(other.count),
            sum: self.sum.wrapping_add(other.sum),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// Ascending means and weights.
type Digest = Vec<(f64, f64)>;

fn digest(mut values: Vec<i32>) -> Digest {
    values.sort_unstable();
    let size = values.len().div_ceil(CENTROIDS).max(1);
    let mean = |part: &[i32]| {
        let sum: i64 = part.iter().map(|value| i64::from(*value)).sum();
        (sum as f64 / part.len() as f64, part.len() as f64)
    };
    values.chunks(size).map(mean).collect()
}

fn estimate(digests: &[Digest], shares: &[f64]) -> Vec<f64> {
    let mut all: Digest = digests.concat();
    // Stable sorting finds the ascending runs and merges them.
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count: f64 = all.iter().map(|centroid| centroid.1).sum();
    let (mut below, mut found, mut shares) = (0.0, Vec::new(), shares.iter().peekable());
    for (mean, weight) in &all {
        below += weight;
        while shares.next_if(|share| below >= **share * count).is_some() {
            found.push(*mean);
        }
    }
    found
}

/// Values at ranks, by a pass that counts what lies below each bracket and keeps what lies
/// inside.
fn bracketed<T: Copy + PartialOrd>(values: &[T], brackets: &[(T, T)]) -> Vec<(usize, Vec<T>)> {
    let mut found: Vec<(usize, Vec<T>)> = vec![(0, Vec::new()); brackets.len()];
    for part in values.chunks(128) {
        for ((low, high), (below, inside)) in brackets.iter().zip(&mut found) {
            let under = |end: T| {
                part.iter().fold(0u32, |count, value| count.wrapping_add(u32::from(*value < end)))
            };
            let (low_count, high_count) = (under(*low), under(*high));
            *below += low_count as usize;
            if high_count > low_count {
                inside.extend(part.iter().filter(|value| **value >= *low && **value < *high));
            }
        }
    }
    found
}

fn brackets<T: Copy>(sorted: &[T], shares: &[f64]) -> Vec<(T, T)> {
    let count = sorted.len() as f64;
    let at = |share: f64| {
        let rank = (count * share.clamp(0.0, 1.0)) as usize;
        sorted[rank.min(sorted.len() - 1)]
    };
    shares.iter().map(|share| (at(share - BRACKET), at(share + BRACKET))).collect()
}

/// Tasks as raw columns, by hour, then agent, then time.
pub(crate) struct Tasks<'a> {
    batches: &'a [Batch],
    /// Where rows are written.
    file: PathBuf,
    /// Milliseconds since the start.
    stamps: Vec<u32>,
    tasks: Vec<u32>,
    agents: Vec<u16>,
    durations: Vec<i32>,
    tokens: Vec<i32>,
    success: Vec<u8>,
    metadata: Vec<u32>,
    /// First row of each hour and agent; the next one's ends it.
    starts: Vec<u32>,
    hours: Vec<Summary>,
    /// Sum and count by hour and agent, the agents of an hour side by side.
    agent_hours: Vec<(i64, u32)>,
    tops: Vec<(i32, u32)>,
    digests: Vec<Digest>,
    brackets: Vec<(i32, i32)>,
    fences: Vec<(u32, u32)>,
    agent: usize,
    hour: usize,
    task: u32,
    range: Range<u32>,
}

impl<'a> Tasks<'a> {
    pub(crate) fn of(batches: &'a [Batch], asked: &Asked, file: &Path) -> Self {
        let millis = |micros: i64| ((micros - START) / 1_000) as u32;
        let (mut rows, mut texts) = (Vec::new(), 0);
        for (number, batch) in batches.iter().enumerate() {
            let agents = coded(&batch.columns[2]).0;
            for (row, stamp) in batch.timestamps().iter().enumerate() {
                let stamp = millis(*stamp);
                rows.push((stamp / HOUR_MS, agents[row], stamp, number as u32, row as u32));
            }
        }
        rows.sort_unstable();
        let mut found = Self {
            batches,
            file: file.to_owned(),
            stamps: rows.iter().map(|row| row.2).collect(),
            tasks: Vec::with_capacity(rows.len()),
            agents: rows.iter().map(|row| row.1 as u16).collect(),
            durations: Vec::with_capacity(rows.len()),
            tokens: Vec::with_capacity(rows.len()),
            success: Vec::with_capacity(rows.len()),
            metadata: Vec::with_capacity(rows.len()),
            starts: vec![0; HOURS * AGENTS + 1],
            hours: Vec::new(),
            agent_hours: Vec::new(),
            tops: Vec::new(),
            digests: Vec::new(),
            brackets: Vec::new(),
            fences: Vec::new(),
            agent: asked.agent[6..].parse().unwrap(),
            hour: (millis(asked.hour) / HOUR_MS) as usize,
            task: asked.task[5..].parse().unwrap(),
            range: millis(asked.from)..millis(asked.to),
        };
        for (hour, agent, _, batch, row) in rows {
            let (columns, row) = (&batches[batch as usize].columns, row as usize);
            found.tasks.push(columns[1].text(row).unwrap()[5..].parse().unwrap());
            found.durations.push(columns[3].int(row).unwrap() as i32);
            found.tokens.push(columns[4].int(row).unwrap() as i32);
            found.success.push(u8::from(columns[5].bool(row).unwrap()));
            texts += u32::from(columns[6].text(row).is_some());
            found.metadata.push(texts);
            found.starts[hour as usize * AGENTS + agent as usize + 1] = found.tasks.len() as u32;
        }
        // A key without rows ends where the one before ends.
        for key in 1..found.starts.len() {
            found.starts[key] = found.starts[key].max(found.starts[key - 1]);
        }
        found.summarise();
        found
    }

    fn key(&self, hour: usize, agent: usize) -> Range<usize> {
        let key = hour * AGENTS + agent;
        self.starts[key] as usize..self.starts[key + 1] as usize
    }

    fn hour(&self, hour: usize) -> Range<usize> {
        self.starts[hour * AGENTS] as usize..self.starts[(hour + 1) * AGENTS] as usize
    }

    fn summarise(&mut self) {
        for hour in 0..HOURS {
            let rows = self.hour(hour);
            self.hours.push(Summary::of(&self.durations[rows.clone()]));
            let mut slow: Vec<(i32, u32)> =
                rows.map(|row| (self.durations[row], row as u32)).collect();
            slow.sort_unstable_by(|a, b| b.cmp(a));
            self.tops.extend(slow.iter().take(10));
            for agent in 0..AGENTS {
                let found = Summary::of(&self.durations[self.key(hour, agent)]);
                self.agent_hours.push((found.sum, found.count as u32));
            }
        }
        for day in 0..DAYS {
            let rows = self.hour(day * 24).start..self.hour(day * 24 + 23).end;
            self.digests.push(digest(self.durations[rows].to_vec()));
        }
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        self.brackets = brackets(&sorted, &SHARES);
        for part in self.tasks.chunks(FENCE_ROWS) {
            let ends = part
                .iter()
                .fold((u32::MAX, 0), |(min, max), task| (min.min(*task), max.max(*task)));
            self.fences.push(ends);
        }
    }

    /// The loop of a question.
    pub(crate) fn kernel(&self, id: &str) -> Option<Kernel<'_>> {
        let this = black_box(self);
        Some(match id {
            "Q1" => Box::new(|| {
                black_box(this.hours.iter().fold(Summary::NONE, Summary::merge));
            }),
            "Q1p" => Box::new(|| {
                black_box(this.ragged());
            }),
            "Q2" => Box::new(|| this.exact(&this.brackets)),
            "Q2a" => Box::new(|| {
                black_box(estimate(&this.digests, &SHARES));
            }),
            "Q3" => Box::new(|| {
                let mut part = this.durations[this.key(this.hour, this.agent)].to_vec();
                let sum = total(&part);
                black_box(sum as f64 / part.len() as f64);
                part.sort_unstable();
                black_box(part);
            }),
            "Q4" => Box::new(|| {
                let bucket =
                    |summary: &Summary| (summary.sum as f64 / summary.count as f64, summary.count);
                black_box(this.hours.iter().map(bucket).collect::<Vec<_>>());
            }),
            "Q5" => Box::new(|| {
                black_box(this.top_agents());
            }),
            "Q6" => Box::new(|| {
                let mut tops = this.tops.clone();
                let last = tops.len().min(10) - 1;
                tops.select_nth_unstable_by(last, |a, b| b.cmp(a));
                tops.truncate(10);
                tops.sort_unstable_by(|a, b| b.cmp(a));
                black_box(tops);
            }),
            "Q7" => Box::new(|| {
                black_box(this.hours.iter().fold(Summary::NONE, Summary::merge));
                this.exact(&this.brackets[1..]);
            }),
            "Q7a" => Box::new(|| {
                black_box(this.hours.iter().fold(Summary::NONE, Summary::merge));
                black_box(estimate(&this.digests, &SHARES[1..]));
            }),
            "Q8" => Box::new(|| {
                black_box(this.of_task());
            }),
            "Q9" => Box::new(|| {
                black_box(this.newest());
            }),
            "Q10" => Box::new(|| this.touch()),
            "Q10c" => Box::new(|| {
                black_box(this.batches.to_vec());
            }),
            "Q11" => Box::new(|| this.write(csv_line)),
            "Q12" => Box::new(|| this.write(json_line)),
            _ => return None,
        })
    }

    fn ragged(&self) -> Summary {
        let whole =
            self.range.start.div_ceil(HOUR_MS) as usize..(self.range.end / HOUR_MS) as usize;
        let mut found = self.hours[whole.clone()].iter().fold(Summary::NONE, Summary::merge);
        for hour in [whole.start - 1, whole.end] {
            for row in self.hour(hour) {
                if self.range.contains(&self.stamps[row]) {
                    found = found.merge(&Summary::of(&self.durations[row..=row]));
                }
            }
        }
        found
    }

    fn exact(&self, brackets: &[(i32, i32)]) {
        for (_, mut inside) in bracketed(&self.durations, brackets) {
            if !inside.is_empty() {
                let middle = inside.len() / 2;
                black_box(*inside.select_nth_unstable(middle).1);
            }
        }
    }

    fn top_agents(&self) -> Vec<(f64, usize)> {
        let mut totals = vec![(0i64, 0u32); AGENTS];
        for hour in self.agent_hours.chunks(AGENTS) {
            for (total, part) in totals.iter_mut().zip(hour) {
                *total = (total.0.wrapping_add(part.0), total.1.wrapping_add(part.1));
            }
        }
        let avg = |(agent, (sum, count)): (usize, &(i64, u32))| {
            (*sum as f64 / f64::from((*count).max(1)), agent)
        };
        let mut agents: Vec<(f64, usize)> = totals.iter().enumerate().map(avg).collect();
        agents.select_nth_unstable_by(4, |a, b| b.0.total_cmp(&a.0));
        agents.truncate(5);
        agents.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        agents
    }

    fn of_task(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for (number, (min, max)) in self.fences.iter().enumerate() {
            if (*min..=*max).contains(&self.task) {
                let first = number * FENCE_ROWS;
                let part = &self.tasks[first..self.tasks.len().min(first + FENCE_ROWS)];
                let rows = part.iter().enumerate().filter(|(_, task)| **task == self.task);
                found.extend(rows.map(|(row, _)| first + row));
            }
        }
        found
    }

    /// Owned rows, as a caller gets them.
    fn newest(&self) -> Vec<TaskRow> {
        let mut found = Vec::with_capacity(100);
        for hour in (0..HOURS).rev() {
            for row in self.key(hour, self.agent).rev() {
                let stamp = START + i64::from(self.stamps[row]) * 1_000;
                found.push(TaskRow {
                    timestamp: Timestamp::from_micros(stamp).unwrap(),
                    task_id: format!("task_{:07}", self.tasks[row]),
                    agent_id: format!("agent_{:03}", self.agents[row]),
                    duration_ms: Some(i64::from(self.durations[row])),
                    tokens_used: Some(i64::from(self.tokens[row])),
                    success: self.success[row] == 1,
                    // As many and as long as the generated ones.
                    metadata: row.is_multiple_of(10).then(|| "x".repeat(58)),
                });
                if found.len() == 100 {
                    return found;
                }
            }
        }
        found
    }

    fn touch(&self) {
        black_box((total(&self.stamps), total(&self.tasks), total(&self.metadata)));
        black_box((total(&self.durations), total(&self.tokens)));
        black_box((total(&self.agents), total(&self.success)));
    }

    /// Formats the generated batches.
    fn write(&self, line: fn(&mut Vec<u8>, Timestamp, &[Column], usize)) {
        let mut file = File::create(&self.file).unwrap();
        let mut text = Vec::with_capacity(1 << 20);
        for batch in self.batches {
            for (row, stamp) in batch.timestamps().iter().enumerate() {
                line(&mut text, Timestamp::from_micros(*stamp).unwrap(), &batch.columns, row);
                if text.len() > 900_000 {
                    file.write_all(&text).unwrap();
                    text.clear();
                }
            }
        }
        file.write_all(&text).unwrap();
    }
}

/// A record of CSV, without quoting but for metadata.
fn csv_line(text: &mut Vec<u8>, stamp: Timestamp, columns: &[Column], row: usize) {
    let (task, agent) = (columns[1].text(row).unwrap(), columns[2].text(row).unwrap());
    let (duration, tokens) = (columns[3].int(row).unwrap(), columns[4].int(row).unwrap());
    let success = columns[5].bool(row).unwrap();
    write!(text, "{stamp},{task},{agent},{duration},{tokens},{success},").unwrap();
    if let Some(metadata) = columns[6].text(row) {
        text.push(b'"');
        text.extend_from_slice(metadata.replace('"', "\"\"").as_bytes());
        text.push(b'"');
    }
    text.push(b'\n');
}

/// An object of JSON, without escapes.
fn json_line(text: &mut Vec<u8>, stamp: Timestamp, columns: &[Column], row: usize) {
    let (task, agent) = (columns[1].text(row).unwrap(), columns[2].text(row).unwrap());
    let (duration, tokens) = (columns[3].int(row).unwrap(), columns[4].int(row).unwrap());
    let (success, metadata) = (columns[5].bool(row).unwrap(), columns[6].text(row));
    writeln!(
        text,
        "{{\"task_id\":\"{task}\",\"agent_id\":\"{agent}\",\"timestamp\":\"{stamp}\",\
         \"duration_ms\":{duration},\"tokens_used\":{tokens},\"success\":{success},\
         \"metadata\":{}}}",
        metadata.unwrap_or("null")
    )
    .unwrap();
}

/// Gauges as raw columns, by metric type, then agent, then time.
pub(crate) struct Gauges<'a> {
    batches: &'a [Batch],
    stamps: Vec<u32>,
    series: Vec<u16>,
    values: Vec<f64>,
    /// First row of each metric type and agent; the next one's ends it.
    starts: Vec<usize>,
    metric: usize,
    agent: usize,
    agent_metric: usize,
    /// Count, sum, min, max by hour of the metric type that is asked about.
    hours: Vec<(u64, f64, f64, f64)>,
    brackets: Vec<(f64, f64)>,
}

impl<'a> Gauges<'a> {
    pub(crate) fn of(batches: &'a [Batch], asked: &Asked) -> Self {
        let number = |name: &str| METRICS.iter().position(|metric| *metric == name).unwrap();
        let mut rows = Vec::new();
        for batch in batches {
            let (agents, metrics) = (coded(&batch.columns[1]).0, coded(&batch.columns[2]).0);
            for (row, stamp) in batch.timestamps().iter().enumerate() {
                let series = metrics[row] as usize * AGENTS + agents[row] as usize;
                let stamp = ((stamp - START) / 1_000) as u32;
                rows.push((series as u16, stamp, batch.columns[3].float(row).unwrap()));
            }
        }
        rows.sort_unstable_by_key(|row| (row.0, row.1));
        let mut starts = vec![0; METRICS.len() * AGENTS + 1];
        for (row, (series, ..)) in rows.iter().enumerate() {
            starts[*series as usize + 1] = row + 1;
        }
        for key in 1..starts.len() {
            starts[key] = starts[key].max(starts[key - 1]);
        }
        let mut found = Self {
            batches,
            stamps: rows.iter().map(|row| row.1).collect(),
            series: rows.iter().map(|row| row.0).collect(),
            values: rows.iter().map(|row| row.2).collect(),
            starts,
            metric: number(&asked.metric),
            agent: asked.series_agent[6..].parse().unwrap(),
            agent_metric: number(&asked.series_metric),
            hours: Vec::new(),
            brackets: Vec::new(),
        };
        found.summarise();
        found
    }

    fn series(&self, metric: usize, agent: usize) -> Range<usize> {
        let key = metric * AGENTS + agent;
        self.starts[key]..self.starts[key + 1]
    }

    fn of_metric(&self) -> Range<usize> {
        self.starts[self.metric * AGENTS]..self.starts[(self.metric + 1) * AGENTS]
    }

    fn summarise(&mut self) {
        let rows = self.of_metric();
        let hour = |row: usize| (self.stamps[row] / HOUR_MS) as usize;
        let count = rows.clone().map(hour).max().unwrap_or(0) + 1;
        let mut hours = vec![(0, 0.0, f64::INFINITY, f64::NEG_INFINITY); count];
        for row in rows.clone() {
            let (value, found) = (self.values[row], &mut hours[hour(row)]);
            *found = (found.0 + 1, found.1 + value, found.2.min(value), found.3.max(value));
        }
        self.hours = hours;
        let mut sorted = self.values[rows].to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        self.brackets = brackets(&sorted, &SHARES);
    }

    /// The loop of a question.
    pub(crate) fn kernel(&self, id: &str) -> Option<Kernel<'_>> {
        let this = black_box(self);
        Some(match id {
            "A1" => Box::new(|| {
                let none = (0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
                black_box(
                    this.hours
                        .iter()
                        .fold(none, |a, b| (a.0 + b.0, a.1 + b.1, a.2.min(b.2), a.3.max(b.3))),
                );
            }),
            "A2" => Box::new(|| {
                for (_, mut inside) in bracketed(&this.values[this.of_metric()], &this.brackets) {
                    if !inside.is_empty() {
                        let middle = inside.len() / 2;
                        black_box(*inside.select_nth_unstable_by(middle, f64::total_cmp).1);
                    }
                }
            }),
            "A3" => Box::new(|| {
                let rows = this.series(this.agent_metric, this.agent);
                black_box((this.stamps[rows.clone()].to_vec(), this.values[rows].to_vec()));
            }),
            "A4" => Box::new(|| {
                black_box(this.fleet());
            }),
            "A5" => Box::new(|| {
                let last = |agent: usize| {
                    let value = this.values[this.series(this.metric, agent)].last().copied();
                    (format!("agent_{agent:03}"), value)
                };
                black_box((0..AGENTS).map(last).collect::<Vec<_>>());
            }),
            "A6" => Box::new(|| {
                black_box((total(&this.stamps), total(&this.series), sum(&this.values)));
            }),
            "A6c" => Box::new(|| {
                black_box(this.batches.to_vec());
            }),
            _ => return None,
        })
    }

    fn fleet(&self) -> Vec<(f64, u32)> {
        let width = (FLEET_BUCKET / 1_000) as u32;
        let buckets = self.hours.len() * (MICROS_PER_HOUR / FLEET_BUCKET) as usize;
        let mut found = vec![(0.0, 0u32); buckets];
        for row in self.of_metric() {
            let bucket = &mut found[(self.stamps[row] / width) as usize];
            *bucket = (bucket.0 + self.values[row], bucket.1.wrapping_add(1));
        }
        found
    }
}
