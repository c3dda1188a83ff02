//! Every sample of every series as OpenMetrics, series by series.
//!
//! The format wants the samples of a series together and their times to rise, while rows lie
//! by time. So the series are counted first, and then as many of them as fit into memory are
//! collected by each pass over the rows. A series with more samples than that is read by
//! itself, in the order of time.
//!
//! Prometheus tells milliseconds apart: of the samples that a series has in one of them the
//! latest is kept, and of those of one time the largest.

use std::collections::BTreeMap;

use crate::column::{Column, Values};
use crate::error::Result;
use crate::export::Export;
use crate::export::exposition::{Dialect, Family, gauges};
use crate::export::text::push_float;
use crate::query::filter::Filter;
use crate::query::ordered::Ordered;
use crate::query::plan::Map;
use crate::query::scan::{coded, unexpected};
use crate::schema::{Table, gauge, task};

/// Samples that are collected at a time.
const COLLECTED_MAX: u64 = 512 << 10;

const DURATIONS: Family = Family {
    name: "tallystone_task_duration_seconds",
    kind: "gauge",
    unit: Some("seconds"),
    help: "How long tasks took.",
};

const TOKENS: Family = Family {
    name: "tallystone_task_tokens",
    kind: "gauge",
    unit: None,
    help: "Tokens that tasks used.",
};

/// The values of the two labels of a series.
type Names = (String, String);

/// A sample that waits for its series.
#[derive(Clone, Copy, Debug)]
struct Sample {
    series: u32,
    micros: i64,
    value: f64,
}

/// Where samples come from.
struct Origin {
    table: Table,
    family: Family,
    /// The columns that are the labels.
    labels: [usize; 2],
    /// The measure.
    measure: usize,
    /// What it is divided by.
    unit: f64,
}

impl Origin {
    fn of(table: Table) -> Vec<Self> {
        let labels = match table {
            Table::Task => [task::AGENT_ID, task::SUCCESS],
            Table::Agent | Table::Swarm => [gauge::OWNER_ID, gauge::METRIC_TYPE],
        };
        let origin = |family, measure, unit| Self { table, family, labels, measure, unit };
        match table {
            Table::Task => vec![
                origin(DURATIONS, task::DURATION_MS, 1_000.0),
                origin(TOKENS, task::TOKENS_USED, 1.0),
            ],
            Table::Agent | Table::Swarm => vec![origin(gauges(table), gauge::VALUE, 1.0)],
        }
    }

    fn name(&self, column: usize) -> &'static str {
        self.table.schema().columns[column].name
    }

    /// The filter, of one series.
    fn filter(&self, filter: &Filter, names: &Names) -> Filter {
        let filter = filter.clone();
        match self.table {
            Table::Task => filter.agent(&names.0).success(names.1 == "true"),
            Table::Agent => filter.agent(&names.0).metric_type(&names.1),
            Table::Swarm => filter.swarm(&names.0).metric_type(&names.1),
        }
    }

    /// The value of a row as it is written.
    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    fn value(&self, column: &Column, row: usize) -> Option<f64> {
        let int = || column.int(row).map(|value| value as f64);
        column.float(row).or_else(int).map(|value| value / self.unit)
    }
}

/// The labels of the rows of a block: pairs of codes, and what they mean.
struct Labels {
    first: (Vec<u32>, Vec<String>),
    second: (Vec<u32>, Vec<String>),
}

impl Labels {
    fn of(first: &Column, second: &Column) -> Result<Self> {
        Ok(Self { first: codes(first)?, second: codes(second)? })
    }

    fn pair(&self, row: usize) -> (u32, u32) {
        (self.first.0[row], self.second.0[row])
    }

    fn names(&self, pair: (u32, u32)) -> Names {
        (self.first.1[pair.0 as usize].clone(), self.second.1[pair.1 as usize].clone())
    }
}

fn codes(column: &Column) -> Result<(Vec<u32>, Vec<String>)> {
    if let Values::Bool(bits) = &column.values {
        let names = ["false", "true"].map(str::to_owned).to_vec();
        return Ok((bits.iter().map(u32::from).collect(), names));
    }
    if !matches!(column.values, Values::Text(_) | Values::Coded { .. }) {
        return Err(unexpected("label"));
    }
    let (codes, names) = coded(column)?;
    Ok((codes.into_owned(), names.iter().map(str::to_owned).collect()))
}

/// Samples of one series in the order of time, without those that share a millisecond.
struct Thinned {
    held: Option<(i64, f64)>,
    merged: u64,
    written: usize,
}

impl Thinned {
    const NEW: Self = Self { held: None, merged: 0, written: 0 };

    /// Takes a sample; the one before is handed to `write` when it is certain to stay.
    fn push(&mut self, sample: (i64, f64), write: impl FnOnce((i64, f64))) {
        if let Some(held) = self.held {
            if held.0.div_euclid(1_000) == sample.0.div_euclid(1_000) {
                self.merged += 1;
                let is_later = (held.0, held.1) <= (sample.0, sample.1);
                self.held = Some(if is_later { sample } else { held });
                return;
            }
            self.written += 1;
            write(held);
        }
        self.held = Some(sample);
    }

    fn finish(&mut self, write: impl FnOnce((i64, f64))) {
        if let Some(held) = self.held.take() {
            self.written += 1;
            write(held);
        }
    }
}

impl Export<'_> {
    /// Every sample of every series.
    pub(super) fn samples(&mut self) -> Result<()> {
        for table in self.tables.clone() {
            for origin in Origin::of(table) {
                self.samples_of(&origin)?;
            }
        }
        self.sink.push("# EOF\n");
        Ok(())
    }

    fn samples_of(&mut self, origin: &Origin) -> Result<()> {
        let series: Vec<(Names, u64)> = self.count_series(origin)?.into_iter().collect();
        if !series.is_empty() {
            Dialect::OpenMetrics.push_family(&mut self.sink.buffer, &origin.family);
        }
        let mut rest = &series[..];
        while let Some((names, count)) = rest.first() {
            if *count > COLLECTED_MAX {
                self.long_series(origin, names)?;
                rest = &rest[1..];
                continue;
            }
            let mut sum = 0;
            let fits = |(_, count): &&(Names, u64)| {
                sum += count;
                sum <= COLLECTED_MAX
            };
            let some = rest.iter().take_while(fits).count();
            let (collected, after) = rest.split_at(some);
            self.collect(origin, collected)?;
            rest = after;
        }
        Ok(())
    }

    /// The series there are, and how many samples each has.
    fn count_series(&mut self, origin: &Origin) -> Result<BTreeMap<Names, u64>> {
        let mut series = BTreeMap::new();
        let names = [origin.labels[0], origin.labels[1], origin.measure].map(|c| origin.name(c));
        let filter = self.filter();
        let mut columns = self.snapshot.columns(origin.table, &filter, Some(&names))?;
        for block in columns.by_ref() {
            let block = block?;
            let labels = Labels::of(&block.columns[0], &block.columns[1])?;
            let mut counts: Map<(u32, u32), u64> = Map::default();
            for row in (0..block.len()).filter(|row| block.columns[2].is_valid(*row)) {
                *counts.entry(labels.pair(row)).or_default() += 1;
            }
            for (pair, count) in counts {
                *series.entry(labels.names(pair)).or_default() += count;
            }
        }
        if let Some(coverage) = columns.coverage().cloned() {
            self.note(origin.table, coverage);
        }
        Ok(series)
    }

    /// Writes some series by one pass over the rows.
    fn collect(&mut self, origin: &Origin, series: &[(Names, u64)]) -> Result<()> {
        let names = [0, origin.labels[0], origin.labels[1], origin.measure];
        let names = names.map(|column| origin.name(column));
        let mut samples: Vec<Sample> = Vec::new();
        for block in self.snapshot.columns(origin.table, &self.filter(), Some(&names))? {
            let block = block?;
            let labels = Labels::of(&block.columns[1], &block.columns[2])?;
            let mut known: Map<(u32, u32), Option<u32>> = Map::default();
            for row in 0..block.len() {
                let pair = labels.pair(row);
                let number = *known.entry(pair).or_insert_with(|| {
                    let names = labels.names(pair);
                    let found = series.binary_search_by(|(other, _)| other.cmp(&names));
                    found.ok().and_then(|number| u32::try_from(number).ok())
                });
                let value = origin.value(&block.columns[3], row);
                if let (Some(series), Some(micros), Some(value)) =
                    (number, block.columns[0].int(row), value)
                {
                    samples.push(Sample { series, micros, value });
                }
            }
        }
        samples.sort_unstable_by(|a, b| {
            let times = (a.series, a.micros).cmp(&(b.series, b.micros));
            times.then_with(|| a.value.total_cmp(&b.value))
        });
        for some in samples.chunk_by(|a, b| a.series == b.series) {
            let (names, _) = &series[some[0].series as usize];
            let prefix = prefix(origin, names);
            let mut thinned = Thinned::NEW;
            for sample in some {
                thinned.push((sample.micros, sample.value), |sample| {
                    push_sample(&mut self.sink.buffer, &prefix, sample);
                });
                self.sink.settle()?;
            }
            self.end_series(&prefix, thinned)?;
        }
        Ok(())
    }

    /// Writes a series with many samples.
    fn long_series(&mut self, origin: &Origin, names: &Names) -> Result<()> {
        let filter = origin.filter(&self.filter(), names);
        let mut rows =
            Ordered::new(self.snapshot, origin.table, &filter, &[origin.measure], false)?;
        let (time, measure) = (rows.position(0), rows.position(origin.measure));
        let prefix = prefix(origin, names);
        let mut thinned = Thinned::NEW;
        while let Some(some) = rows.next()? {
            for (columns, row) in some.iter() {
                let value = origin.value(&columns[measure], row);
                if let (Some(micros), Some(value)) = (columns[time].int(row), value) {
                    thinned.push((micros, value), |sample| {
                        push_sample(&mut self.sink.buffer, &prefix, sample);
                    });
                    self.sink.settle()?;
                }
            }
        }
        self.note(origin.table, rows.into_coverage());
        self.end_series(&prefix, thinned)
    }

    fn end_series(&mut self, prefix: &[u8], mut thinned: Thinned) -> Result<()> {
        thinned.finish(|sample| push_sample(&mut self.sink.buffer, prefix, sample));
        self.merged += thinned.merged;
        self.sink.count(thinned.written);
        self.sink.settle()
    }
}

/// What each sample of a series begins with.
fn prefix(origin: &Origin, names: &Names) -> Vec<u8> {
    let [first, second] = origin.labels.map(|column| origin.name(column));
    let labels = [(first, &names.0[..]), (second, &names.1[..])];
    let mut prefix = Vec::new();
    Dialect::OpenMetrics.push_series(&mut prefix, &[origin.family.name], &labels);
    prefix
}

fn push_sample(out: &mut Vec<u8>, prefix: &[u8], (micros, value): (i64, f64)) {
    out.extend_from_slice(prefix);
    push_float(out, value);
    Dialect::OpenMetrics.push_time(out, micros);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_millisecond_the_latest_and_largest_stays() {
        let mut thinned = Thinned::NEW;
        let mut written = Vec::new();
        for sample in [(0, 1.0), (999, 0.5), (999, 2.0), (999, 1.0), (1_000, -1.0), (-1, 0.0)] {
            thinned.push(sample, |sample| written.push(sample));
        }
        thinned.finish(|sample| written.push(sample));
        assert_eq!(written, [(999, 2.0), (1_000, -1.0), (-1, 0.0)]);
        assert_eq!((thinned.merged, thinned.written), (3, 3));
    }
}
