//! The bundled recordings as rows. What is recorded and what is derived is said in
//! `data/README.md`; it has to stay true to this file.

use std::collections::BTreeMap;

use tallystone::import::TimeFormat;
use tallystone::time::MICROS_PER_SECOND;
use tallystone::{AgentMetric, Error, ErrorKind, Result, SwarmMetric, TaskMetric, Timestamp};

const VM_RUNS: &str = include_str!("../../data/azure_vm_noise_2024/postgresql_latency.csv");

const LLM_REQUESTS: [(&str, &str); 2] = [
    ("code", include_str!("../../data/azure_llm_2023/AzureLLMInferenceTrace_code.csv")),
    ("conv", include_str!("../../data/azure_llm_2023/AzureLLMInferenceTrace_conv.csv")),
];

/// Metric, instance, recording.
const CLOUDWATCH: [(&str, &str, &str); 7] = [
    (
        "ec2_cpu_utilization",
        "5f5533",
        include_str!("../../data/nab/ec2_cpu_utilization_5f5533.csv"),
    ),
    (
        "ec2_cpu_utilization",
        "825cc2",
        include_str!("../../data/nab/ec2_cpu_utilization_825cc2.csv"),
    ),
    (
        "ec2_cpu_utilization",
        "fe7f93",
        include_str!("../../data/nab/ec2_cpu_utilization_fe7f93.csv"),
    ),
    (
        "rds_cpu_utilization",
        "cc0c53",
        include_str!("../../data/nab/rds_cpu_utilization_cc0c53.csv"),
    ),
    (
        "rds_cpu_utilization",
        "e47b3b",
        include_str!("../../data/nab/rds_cpu_utilization_e47b3b.csv"),
    ),
    ("ec2_network_in", "257a54", include_str!("../../data/nab/ec2_network_in_257a54.csv")),
    ("elb_request_count", "8c0756", include_str!("../../data/nab/elb_request_count_8c0756.csv")),
];

/// Bytes of all recordings, as text.
pub(super) fn text_bytes() -> u64 {
    let llm = LLM_REQUESTS.iter().map(|(_, text)| text.len());
    let cloudwatch = CLOUDWATCH.iter().map(|(_, _, text)| text.len());
    llm.chain(cloudwatch).map(|bytes| bytes as u64).sum::<u64>() + VM_RUNS.len() as u64
}

/// Benchmark runs on cloud machines: the machine is the agent.
pub(super) fn vm_runs(mut each: impl FnMut(&TaskMetric<'_>) -> Result<()>) -> Result<u64> {
    let (mut task_id, mut agent_id) = (String::new(), String::new());
    let clock = Stamps::new()?;
    read(VM_RUNS, |index, [start, latency_ms, runtime_s, lifespan, region, sku, vm_id]| {
        task_id = format!("pg_{index:06}");
        agent_id = format!("{lifespan}/{region}/{sku}/{vm_id}");
        // Read as a time, so that no decimal is lost on the way.
        let runtime = TimeFormat::Seconds.read(runtime_s)?.as_micros();
        each(&TaskMetric {
            timestamp: Timestamp::from_micros(clock.read(start)?.as_micros() + runtime)?,
            task_id: &task_id,
            agent_id: &agent_id,
            duration_ms: Some(runtime / 1_000),
            tokens_used: None,
            success: true,
            metadata: Some(&format!("{{\"latency_ms\":{latency_ms}}}")),
        })
    })
}

/// Requests to LLM services: the service is the agent.
pub(super) fn llm_requests(
    minutes: &mut Minutes,
    mut each: impl FnMut(&TaskMetric<'_>) -> Result<()>,
) -> Result<u64> {
    let clock = Stamps::new()?;
    let mut rows = 0;
    for (service, text) in LLM_REQUESTS {
        rows += read(text, |index, [stamp, context, generated]| {
            let timestamp = clock.read(stamp)?;
            minutes.count(service, timestamp);
            each(&TaskMetric {
                timestamp,
                task_id: &format!("{service}_{index:06}"),
                agent_id: service,
                duration_ms: None,
                tokens_used: Some(whole(context)? + whole(generated)?),
                success: true,
                metadata: Some(&format!(
                    "{{\"context_tokens\":{context},\"generated_tokens\":{generated}}}"
                )),
            })
        })?;
    }
    Ok(rows)
}

/// Requests of each service in each minute, counted while they are read.
#[derive(Debug, Default)]
pub(super) struct Minutes(BTreeMap<(&'static str, i64), u32>);

impl Minutes {
    const MICROS: i64 = 60 * MICROS_PER_SECOND;

    fn count(&mut self, service: &'static str, stamp: Timestamp) {
        let minute = stamp.as_micros().div_euclid(Self::MICROS);
        *self.0.entry((service, minute)).or_default() += 1;
    }

    /// The counts as gauges of a swarm.
    pub(super) fn rows(&self, mut each: impl FnMut(&SwarmMetric<'_>) -> Result<()>) -> Result<u64> {
        for ((service, minute), count) in &self.0 {
            each(&SwarmMetric {
                timestamp: Timestamp::from_micros(minute * Self::MICROS)?,
                swarm_id: "azure-llm",
                metric_type: "requests_per_minute",
                value: f64::from(*count),
                metadata: Some(&format!("{{\"service\":\"{service}\"}}")),
            })?;
        }
        Ok(self.0.len() as u64)
    }
}

/// CloudWatch series: the instance is the agent.
pub(super) fn cloudwatch(mut each: impl FnMut(&AgentMetric<'_>) -> Result<()>) -> Result<u64> {
    let clock = Stamps::new()?;
    let mut rows = 0;
    for (metric_type, agent_id, text) in CLOUDWATCH {
        rows += read(text, |_, [stamp, value]| {
            let value = value.parse().map_err(|_| broken(value))?;
            let timestamp = clock.read(stamp)?;
            each(&AgentMetric { timestamp, agent_id, metric_type, value, metadata: None })
        })?;
    }
    Ok(rows)
}

/// Passes each line after the header, numbered from 1, and counts them.
fn read<const N: usize>(
    text: &str,
    mut each: impl FnMut(u64, [&str; N]) -> Result<()>,
) -> Result<u64> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let mut rows = 0;
    while reader.read_record(&mut record).map_err(|cause| broken(&cause.to_string()))? {
        rows += 1;
        let mut fields = [""; N];
        fields.iter_mut().zip(&record).for_each(|(field, text)| *field = text);
        each(rows, fields)?;
    }
    Ok(rows)
}

/// Times as all the recordings write them.
struct Stamps(TimeFormat);

impl Stamps {
    fn new() -> Result<Self> {
        TimeFormat::parse("%Y-%m-%d %H:%M:%S%.f").map(Self)
    }

    fn read(&self, text: &str) -> Result<Timestamp> {
        self.0.read(text)
    }
}

fn whole(text: &str) -> Result<i64> {
    text.parse().map_err(|_| broken(text))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::BadInput, format!("bundled recording: {what:?} is not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recording_is_read_whole() {
        let mut first = None;
        let rows = vm_runs(|row| {
            row.validate()?;
            first.get_or_insert_with(|| format!("{row:?}"));
            Ok(())
        });
        assert_eq!(rows.unwrap(), 15_793);
        let first = first.unwrap();
        // 22:38:04.650 and 814.26 s later.
        assert!(first.contains("agent_id: \"long/westus2/B8ms/1\""), "{first}");
        assert!(first.contains("duration_ms: Some(814260)"), "{first}");
        let end = Timestamp::parse("2023-05-28T22:51:38.910Z").unwrap();
        assert!(first.contains(&format!("{end:?}")), "{first}");

        let mut tokens = 0;
        let mut minutes = Minutes::default();
        let rows = llm_requests(&mut minutes, |row| {
            tokens += row.tokens_used.unwrap_or(0);
            row.validate()
        });
        assert_eq!(rows.unwrap(), 28_185);
        assert!(tokens > 0);
        assert_eq!(cloudwatch(|row| row.validate()).unwrap(), 28_224);

        let mut requests = 0.0;
        let rows = minutes.rows(|row| {
            requests += row.value;
            row.validate()
        });
        assert_eq!(requests, 28_185.0);
        assert!((100..140).contains(&rows.unwrap()));
    }
}
