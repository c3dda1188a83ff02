//! Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! Owns families and samples as text, and the exposition: one sample of each series. Tasks
//! are counted and summed by agent, with quantiles from digests; gauges have their newest
//! value with its time. Names of metrics and labels are fixed and legal; whatever an id is
//! called is the value of a label, escaped.

use crate::error::Result;
use crate::export::text::{push_count, push_float, push_int, push_seconds};
use crate::export::{Export, ExportFormat, of_owner, owner};
use crate::query::answer::Value;
use crate::query::filter::{Order, Percentile, TopBy};
use crate::schema::Table;

/// The quantiles of a summary.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];

/// Milliseconds in a second.
const MILLIS: f64 = 1_000.0;

/// A family of metrics.
pub(super) struct Family {
    /// Name, without the suffix of counters.
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// The unit, which the name ends in.
    pub(super) unit: Option<&'static str>,
    pub(super) help: &'static str,
}

const TASKS: Family =
    Family { name: "tallystone_tasks", kind: "counter", unit: None, help: "Finished tasks." };

const DURATION: Family = Family {
    name: "tallystone_task_duration_seconds",
    kind: "summary",
    unit: Some("seconds"),
    help: "How long tasks took.",
};

const TOKENS: Family = Family {
    name: "tallystone_task_tokens",
    kind: "summary",
    unit: None,
    help: "Tokens that tasks used.",
};

/// The gauges of a table.
pub(super) fn gauges(table: Table) -> Family {
    let (name, help) = match table {
        Table::Swarm => ("tallystone_swarm_metric", "Gauges of swarms."),
        Table::Task | Table::Agent => ("tallystone_agent_metric", "Gauges of agents."),
    };
    Family { name, kind: "gauge", unit: None, help }
}

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// A label and its value.
pub(super) type Label<'a> = (&'static str, &'a str);

impl Dialect {
    /// Appends what introduces a family.
    pub(super) fn push_family(self, out: &mut Vec<u8>, family: &Family) {
        let Family { name, kind, unit, help } = *family;
        // In the older format the type belongs to the name of the samples.
        let suffix = match self {
            Self::Prometheus if kind == "counter" => "_total",
            _ => "",
        };
        let mut line = |what: &str, text: &str| {
            for part in ["# ", what, " ", name, suffix, " ", text, "\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        line("HELP", help);
        line("TYPE", kind);
        if let (Self::OpenMetrics, Some(unit)) = (self, unit) {
            line("UNIT", unit);
        }
    }

    /// Appends the name of a sample and its labels.
    pub(super) fn push_series(self, out: &mut Vec<u8>, names: &[&str], labels: &[Label<'_>]) {
        names.iter().for_each(|name| out.extend_from_slice(name.as_bytes()));
        let mut before = b'{';
        for (label, value) in labels {
            out.push(before);
            before = b',';
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(b"=\"");
            push_label(out, value);
            out.push(b'"');
        }
        out.extend_from_slice(b"} ");
    }

    /// Appends a time: milliseconds, or seconds with as many decimals as milliseconds have.
    pub(super) fn push_time(self, out: &mut Vec<u8>, micros: i64) {
        let millis = micros.div_euclid(1_000);
        out.push(b' ');
        match self {
            Self::Prometheus => push_int(out, millis),
            Self::OpenMetrics => push_seconds(out, millis * 1_000),
        }
    }
}

/// Appends the value of a label.
fn push_label(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

impl Export<'_> {
    pub(super) fn dialect(&self) -> Dialect {
        match self.request.format {
            ExportFormat::OpenMetrics => Dialect::OpenMetrics,
            _ => Dialect::Prometheus,
        }
    }

    /// One sample of each series.
    pub(super) fn exposition(&mut self) -> Result<()> {
        for table in self.tables.clone() {
            match table {
                Table::Task => self.task_families()?,
                Table::Agent | Table::Swarm => self.newest_gauges(table)?,
            }
        }
        if self.dialect() == Dialect::OpenMetrics {
            self.sink.push("# EOF\n");
        }
        Ok(())
    }

    fn task_families(&mut self) -> Result<()> {
        let (dialect, filter) = (self.dialect(), self.filter());
        let order = Order::Ascending;
        let page = self.snapshot.top_agents(TopBy::TaskCount, order, &filter)?;
        self.note(Table::Task, page.coverage);
        let mut agents = page.rows;
        if agents.is_empty() {
            return Ok(());
        }
        agents.sort_unstable_by(|a, b| a.agent_id.cmp(&b.agent_id));
        dialect.push_family(&mut self.sink.buffer, &TASKS);
        for agent in &agents {
            let successes = successes(agent.success_rate, agent.task_count);
            for (success, count) in [("true", successes), ("false", agent.task_count - successes)] {
                let labels = [("agent_id", &agent.agent_id[..]), ("success", success)];
                self.push_counted(&TASKS, "_total", &labels, count)?;
            }
        }
        let names: Vec<String> = agents.into_iter().map(|agent| agent.agent_id).collect();
        self.summaries(&DURATION, "duration_ms", MILLIS, &names)?;
        self.summaries(&TOKENS, "tokens_used", 1.0, &names)
    }

    fn push_counted(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: &[Label<'_>],
        count: u64,
    ) -> Result<()> {
        let dialect = self.dialect();
        let out = &mut self.sink.buffer;
        dialect.push_series(out, &[family.name, suffix], labels);
        push_count(out, count);
        self.end_sample()
    }

    fn push_valued(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: &[Label<'_>],
        value: f64,
    ) -> Result<()> {
        let dialect = self.dialect();
        let out = &mut self.sink.buffer;
        dialect.push_series(out, &[family.name, suffix], labels);
        push_float(out, value);
        self.end_sample()
    }

    fn end_sample(&mut self) -> Result<()> {
        self.sink.buffer.push(b'\n');
        self.sink.count(1);
        self.sink.settle()
    }

    /// Quantiles, sum and count of a measure of tasks, by agent.
    fn summaries(
        &mut self,
        family: &Family,
        field: &str,
        unit: f64,
        agents: &[String],
    ) -> Result<()> {
        let (dialect, table) = (self.dialect(), Table::Task);
        dialect.push_family(&mut self.sink.buffer, family);
        let ranks = QUANTILES.map(|(rank, _)| rank);
        for agent in agents {
            let filter = of_owner(table, &self.figure_filter(), agent);
            let how = Percentile::Estimate;
            let found = self.snapshot.percentiles(table, field, &ranks, how, &filter)?;
            self.note(table, found.coverage);
            let label = ("agent_id", &agent[..]);
            for ((_, rank), quantile) in QUANTILES.iter().zip(&found.value) {
                if let Some(value) = quantile.value {
                    let labels = [label, ("quantile", rank)];
                    self.push_valued(family, "", &labels, value.as_f64() / unit)?;
                }
            }
            let sums = self.snapshot.aggregate(table, field, &filter)?.value;
            // The sum of a summary only grows; one that does not is left out.
            if sums.sum.as_f64() >= 0.0 {
                self.push_valued(family, "_sum", &[label], sums.sum.as_f64() / unit)?;
            }
            self.push_counted(family, "_count", &[label], sums.count)?;
        }
        Ok(())
    }

    /// The newest value of each gauge.
    fn newest_gauges(&mut self, table: Table) -> Result<()> {
        let (dialect, filter) = (self.dialect(), self.filter());
        let mut is_first = true;
        for metric in self.names(table, "metric_type", &filter)? {
            let filter = filter.clone().metric_type(&metric);
            let page = self.snapshot.aggregate_by_key(table, "value", owner(table), &filter)?;
            self.note(table, page.coverage);
            for entry in page.rows {
                // Where a rollup may hold a newer one, the newest is not known.
                let Some(last) = entry.aggregate.last else { continue };
                let out = &mut self.sink.buffer;
                if std::mem::replace(&mut is_first, false) {
                    dialect.push_family(out, &gauges(table));
                }
                let labels = [(owner(table), &entry.key[..]), ("metric_type", &metric[..])];
                dialect.push_series(out, &[gauges(table).name], &labels);
                push_float(out, Value::as_f64(last.value));
                dialect.push_time(out, last.timestamp.as_micros());
                self.end_sample()?;
            }
        }
        Ok(())
    }
}

/// How many of so many tasks succeeded.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count, rounded, is a count again"
)]
fn successes(rate: f64, count: u64) -> u64 {
    ((rate * count as f64).round() as u64).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn families_are_named_as_each_format_wants() {
        let of = |dialect: Dialect, family| text(|out| dialect.push_family(out, family));
        let expected = "# HELP tallystone_tasks_total Finished tasks.\n\
                        # TYPE tallystone_tasks_total counter\n";
        assert_eq!(of(Dialect::Prometheus, &TASKS), expected);
        let expected = "# HELP tallystone_tasks Finished tasks.\n# TYPE tallystone_tasks counter\n";
        assert_eq!(of(Dialect::OpenMetrics, &TASKS), expected);
        assert!(of(Dialect::OpenMetrics, &DURATION).ends_with("_seconds seconds\n"));
        assert!(!of(Dialect::Prometheus, &DURATION).contains("UNIT"));
    }

    #[test]
    fn labels_are_escaped_and_times_have_their_unit() {
        let labels = [("agent_id", "a\\b\"c\nd\r\u{e9}"), ("metric_type", "")];
        let series = text(|out| Dialect::Prometheus.push_series(out, &["m", "_sum"], &labels));
        assert_eq!(series, "m_sum{agent_id=\"a\\\\b\\\"c\\nd\r\u{e9}\",metric_type=\"\"} ");
        for (micros, millis, seconds) in [
            (1_700_000_000_123_456, " 1700000000123", " 1700000000.123"),
            (5_000_000, " 5000", " 5"),
            (-1, " -1", " -0.001"),
        ] {
            assert_eq!(text(|out| Dialect::Prometheus.push_time(out, micros)), millis);
            assert_eq!(text(|out| Dialect::OpenMetrics.push_time(out, micros)), seconds);
        }
    }

    #[test]
    fn shares_give_the_count_back() {
        for count in [1_u64, 3, 7, 1_000_003] {
            for some in [0, 1, count / 2, count] {
                assert_eq!(successes(some as f64 / count as f64, count), some);
            }
        }
    }
}
