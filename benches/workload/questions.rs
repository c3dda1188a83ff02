//! The questions of the performance page, as calls of the public API.
//!
//! Owns what each question is called, asks and answers, and its aims. `Reply` holds what
//! the library returned; `canonical` flattens it, so that engines can be compared.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tallystone::column::{Column, Values};
use tallystone::export::{ExportFormat, ExportRequest};
use tallystone::testing::workload::START;
use tallystone::time::MICROS_PER_HOUR;
use tallystone::{
    AgentSummary, Aggregate, Aggregation, Answer, Average, Bucket, ColumnView, ColumnsBlock,
    Filter, Interval, KeyAggregate, Order, Page, Percentile, Plan, Quantile, SlowTask, Snapshot,
    Summary, Table, TaskRow, Timestamp, TopBy, Value, ViewInts, ViewValues, ViewsBlock,
};

use crate::data::{Asked, FLEET_BUCKET, SHARES};

/// How the time may grow from one to ten million rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answered from summaries: by less than 1.5.
    Summary,
    /// Finds few rows: by less than 2.
    LookUp,
    /// Reads rows: by at most 10.
    Scan,
}

impl Kind {
    pub(crate) fn growth_max(self) -> f64 {
        match self {
            Self::Summary => 1.5,
            Self::LookUp => 2.0,
            Self::Scan => 10.0,
        }
    }
}

/// One question.
pub(crate) struct Question {
    pub(crate) id: &'static str,
    pub(crate) table: Table,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    /// Milliseconds to reach with 1M and with 10M rows; 0 where none is named.
    pub(crate) aims_ms: [f64; 2],
    pub(crate) ask: fn(&Subject) -> Reply,
}

/// What is asked: two stores, and the parameters made ready.
pub(crate) struct Subject {
    pub(crate) tasks: Snapshot,
    pub(crate) gauges: Snapshot,
    /// Where Q11 and Q12 write.
    pub(crate) file: PathBuf,
    whole: Filter,
    all: Filter,
    ragged: Filter,
    agent_hour: Filter,
    top_5: Filter,
    top_10: Filter,
    task: Filter,
    agent_100: Filter,
    metric: Filter,
    series: Filter,
}

impl Subject {
    pub(crate) fn new(tasks: Snapshot, gauges: Snapshot, asked: &Asked, file: PathBuf) -> Self {
        let between = |from: i64, to: i64| {
            let stamp = |micros| Timestamp::from_micros(micros).unwrap();
            Filter::new().between(stamp(from), stamp(to))
        };
        let metric = Filter::new().metric_type(&asked.metric);
        let series = Filter::new().agent(&asked.series_agent).metric_type(&asked.series_metric);
        Self {
            tasks,
            gauges,
            file,
            whole: Filter::new(),
            all: Filter::new().all(),
            ragged: between(asked.from, asked.to),
            agent_hour: between(asked.hour, asked.hour + MICROS_PER_HOUR).agent(&asked.agent),
            top_5: Filter::new().limit(5),
            top_10: Filter::new().limit(10),
            task: Filter::new().task(&asked.task).all(),
            agent_100: Filter::new().agent(&asked.agent).limit(100),
            metric,
            series: series.all(),
        }
    }
}

impl Drop for Subject {
    #[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
    fn drop(&mut self) {
        // There is none if neither of them was asked.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What the library answered.
pub(crate) enum Reply {
    Aggregate(Answer<Aggregate>),
    Quantiles(Answer<Vec<Quantile>>),
    AverageAndQuantiles(Answer<Average>, Answer<Vec<Quantile>>),
    Buckets(Page<Bucket>),
    Agents(Page<AgentSummary>),
    Slowest(Page<SlowTask>),
    Summary(Answer<Summary>),
    Tasks(Page<TaskRow>),
    Keys(Page<KeyAggregate>),
    Points(Vec<ColumnsBlock>),
    TaskBlocks(Vec<ColumnsBlock>),
    GaugeBlocks(Vec<ColumnsBlock>),
    Touched(Table, Touched),
    Written(u64),
}

/// Sums over every column of every row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    rows: u64,
    /// Milliseconds since the start of the workload.
    stamps: i64,
    durations: i64,
    tokens: i64,
    successes: u64,
    task_bytes: u64,
    metadata_bytes: u64,
    metadata_rows: u64,
    values: f64,
}

const DURATION: &str = "duration_ms";

/// Every question, in the order of the performance page.
pub(crate) const QUESTIONS: &[Question] = &[
    Question {
        id: "Q1",
        table: Table::Task,
        title: "count, avg, min, max, all rows",
        kind: Kind::Summary,
        aims_ms: [0.006, 0.009],
        ask: |on| Reply::Aggregate(on.tasks.aggregate(Table::Task, DURATION, &on.whole).unwrap()),
    },
    Question {
        id: "Q1p",
        table: Table::Task,
        title: "the same, unaligned 3.4 days",
        kind: Kind::Scan,
        aims_ms: [0.02, 0.08],
        ask: |on| Reply::Aggregate(on.tasks.aggregate(Table::Task, DURATION, &on.ragged).unwrap()),
    },
    Question {
        id: "Q2",
        table: Table::Task,
        title: "exact p50, p95, p99, all",
        kind: Kind::Scan,
        aims_ms: [0.4, 9.0],
        ask: |on| Reply::Quantiles(quantiles(&on.tasks, Percentile::Exact, &on.whole)),
    },
    Question {
        id: "Q2a",
        table: Table::Task,
        title: "estimated p50, p95, p99, all",
        kind: Kind::Summary,
        aims_ms: [0.03, 0.05],
        ask: |on| Reply::Quantiles(quantiles(&on.tasks, Percentile::Estimate, &on.whole)),
    },
    Question {
        id: "Q3",
        table: Table::Task,
        title: "one agent, 1 hour: avg, p50, p95, p99",
        kind: Kind::LookUp,
        aims_ms: [0.01, 0.02],
        ask: |on| {
            Reply::AverageAndQuantiles(
                on.tasks.average(Table::Task, DURATION, &on.agent_hour).unwrap(),
                quantiles(&on.tasks, Percentile::Exact, &on.agent_hour),
            )
        },
    },
    Question {
        id: "Q4",
        table: Table::Task,
        title: "hourly avg and count, 7 days",
        kind: Kind::Summary,
        aims_ms: [0.03, 0.04],
        ask: |on| {
            let (hour, avg) = (Interval::Hour, Aggregation::Avg);
            let buckets = on.tasks.aggregate_by_time(Table::Task, DURATION, hour, avg, &on.whole);
            Reply::Buckets(buckets.unwrap())
        },
    },
    Question {
        id: "Q5",
        table: Table::Task,
        title: "top 5 agents by avg duration",
        kind: Kind::Summary,
        aims_ms: [0.06, 0.08],
        ask: |on| {
            let by = TopBy::AvgDurationMs;
            Reply::Agents(on.tasks.top_agents(by, Order::Descending, &on.top_5).unwrap())
        },
    },
    Question {
        id: "Q6",
        table: Table::Task,
        title: "10 slowest tasks",
        kind: Kind::Summary,
        aims_ms: [0.01, 0.015],
        ask: |on| Reply::Slowest(on.tasks.slowest_tasks(&on.top_10).unwrap()),
    },
    Question {
        id: "Q7",
        table: Table::Task,
        title: "summary with exact percentiles",
        kind: Kind::Scan,
        aims_ms: [0.45, 9.0],
        ask: |on| Reply::Summary(on.tasks.summary_stats(Percentile::Exact, &on.whole).unwrap()),
    },
    Question {
        id: "Q7a",
        table: Table::Task,
        title: "summary with estimates",
        kind: Kind::Summary,
        aims_ms: [0.04, 0.06],
        ask: |on| Reply::Summary(on.tasks.summary_stats(Percentile::Estimate, &on.whole).unwrap()),
    },
    Question {
        id: "Q8",
        table: Table::Task,
        title: "all rows of one task id",
        kind: Kind::LookUp,
        aims_ms: [0.02, 0.03],
        ask: |on| Reply::Tasks(on.tasks.task_metrics(&on.task).unwrap()),
    },
    Question {
        id: "Q9",
        table: Table::Task,
        title: "newest 100 rows of one agent, as rows",
        kind: Kind::LookUp,
        aims_ms: [0.06, 0.08],
        ask: |on| Reply::Tasks(on.tasks.task_metrics(&on.agent_100).unwrap()),
    },
    Question {
        id: "Q10",
        table: Table::Task,
        title: "all rows, every column touched, as views",
        kind: Kind::Scan,
        aims_ms: [2.4, 26.0],
        ask: |on| {
            let mut touched = Touched::default();
            for block in on.tasks.views(Table::Task, &on.all, None).unwrap() {
                touched.task_views(&block.unwrap());
            }
            Reply::Touched(Table::Task, touched)
        },
    },
    Question {
        id: "Q10c",
        table: Table::Task,
        title: "all rows into owned columns",
        kind: Kind::Scan,
        aims_ms: [18.0, 180.0],
        ask: |on| {
            let blocks = on.tasks.columns(Table::Task, &on.all, None).unwrap();
            Reply::TaskBlocks(blocks.map(Result::unwrap).collect())
        },
    },
    Question {
        id: "Q11",
        table: Table::Task,
        title: "all rows to a CSV file",
        kind: Kind::Scan,
        aims_ms: [66.0, 660.0],
        ask: |on| Reply::Written(write(on, ExportFormat::Csv)),
    },
    Question {
        id: "Q12",
        table: Table::Task,
        title: "all rows to a file of JSON lines",
        kind: Kind::Scan,
        aims_ms: [333.0, 3333.0],
        ask: |on| Reply::Written(write(on, ExportFormat::Jsonl)),
    },
    Question {
        id: "A1",
        table: Table::Agent,
        title: "one metric, all: count, avg, min, max",
        kind: Kind::Summary,
        aims_ms: [0.01, 0.0],
        ask: |on| Reply::Aggregate(on.gauges.aggregate(Table::Agent, "value", &on.metric).unwrap()),
    },
    Question {
        id: "A2",
        table: Table::Agent,
        title: "one metric: exact p50, p95, p99",
        kind: Kind::Scan,
        aims_ms: [0.12, 0.0],
        ask: |on| {
            let (how, filter) = (Percentile::Exact, &on.metric);
            let found = on.gauges.percentiles(Table::Agent, "value", &SHARES, how, filter);
            Reply::Quantiles(found.unwrap())
        },
    },
    Question {
        id: "A3",
        table: Table::Agent,
        title: "one series, all its points",
        kind: Kind::LookUp,
        aims_ms: [0.012, 0.0],
        ask: |on| {
            let names: Option<&[&str]> = Some(&["timestamp", "value"]);
            let blocks = on.gauges.columns(Table::Agent, &on.series, names).unwrap();
            Reply::Points(blocks.map(Result::unwrap).collect())
        },
    },
    Question {
        id: "A4",
        table: Table::Agent,
        title: "one metric, 5-minute avg over the fleet",
        kind: Kind::Scan,
        aims_ms: [0.12, 0.0],
        ask: |on| {
            let (width, avg) = (Interval::Fixed(FLEET_BUCKET), Aggregation::Avg);
            let buckets =
                on.gauges.aggregate_by_time(Table::Agent, "value", width, avg, &on.metric);
            Reply::Buckets(buckets.unwrap())
        },
    },
    Question {
        id: "A5",
        table: Table::Agent,
        title: "last value of each of 500 agents",
        kind: Kind::LookUp,
        aims_ms: [0.03, 0.0],
        ask: |on| {
            let keys = on.gauges.aggregate_by_key(Table::Agent, "value", "agent_id", &on.metric);
            Reply::Keys(keys.unwrap())
        },
    },
    Question {
        id: "A6",
        table: Table::Agent,
        title: "all samples touched, as views",
        kind: Kind::Scan,
        aims_ms: [2.0, 0.0],
        ask: |on| {
            let mut touched = Touched::default();
            for block in on.gauges.views(Table::Agent, &on.all, None).unwrap() {
                touched.gauge_views(&block.unwrap());
            }
            Reply::Touched(Table::Agent, touched)
        },
    },
    Question {
        id: "A6c",
        table: Table::Agent,
        title: "all samples into owned columns",
        kind: Kind::Scan,
        aims_ms: [8.0, 0.0],
        ask: |on| {
            let blocks = on.gauges.columns(Table::Agent, &on.all, None).unwrap();
            Reply::GaugeBlocks(blocks.map(Result::unwrap).collect())
        },
    },
];

impl Question {
    /// The question of this name.
    pub(crate) fn named(id: &str) -> Option<&'static Self> {
        QUESTIONS.iter().find(|question| question.id == id)
    }

    /// Asks once, and times just that.
    pub(crate) fn timed(&self, subject: &Subject) -> (Duration, Reply) {
        let start = Instant::now();
        let reply = black_box((self.ask)(black_box(subject)));
        (start.elapsed(), reply)
    }
}

fn quantiles(tasks: &Snapshot, how: Percentile, filter: &Filter) -> Answer<Vec<Quantile>> {
    tasks.percentiles(Table::Task, DURATION, &SHARES, how, filter).unwrap()
}

/// The exporter, into a file.
#[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
fn write(on: &Subject, format: ExportFormat) -> u64 {
    let mut file = std::fs::File::create(&on.file).unwrap();
    let mut request = ExportRequest::new(format);
    request.tables = vec![Table::Task];
    request.raw = format == ExportFormat::Csv;
    on.tasks.export(&request, &mut file, &mut |_| {}).unwrap().rows
}

impl Touched {
    pub(crate) fn tasks(&mut self, block: &ColumnsBlock) {
        let columns = &block.columns;
        self.rows += block.len() as u64;
        self.stamps += offsets(&columns[0]);
        self.task_bytes += text_bytes(&columns[1]);
        text_bytes(&columns[2]);
        self.durations += sum(ints(&columns[3]));
        self.tokens += sum(ints(&columns[4]));
        let Values::Bool(successes) = &columns[5].values else { panic!("success is boolean") };
        self.successes += successes.count_ones() as u64;
        self.metadata_bytes += text_bytes(&columns[6]);
        self.metadata_rows += (block.len() - columns[6].null_count()) as u64;
    }

    pub(crate) fn gauges(&mut self, block: &ColumnsBlock) {
        let columns = &block.columns;
        self.rows += block.len() as u64;
        self.stamps += offsets(&columns[0]);
        text_bytes(&columns[1]);
        text_bytes(&columns[2]);
        let Values::Float(values) = &columns[3].values else { panic!("value is a float") };
        self.values += values.iter().sum::<f64>();
        self.metadata_bytes += text_bytes(&columns[4]);
    }

    fn task_views(&mut self, block: &ViewsBlock) {
        let column = |column: usize| block.column(column);
        let sum = |ints: Option<ViewInts<'_>>| i64::try_from(ints.unwrap().sum()).unwrap();
        self.rows += block.len() as u64;
        self.stamps += offsets_of(column(0));
        self.task_bytes += view_bytes(column(1));
        view_bytes(column(2));
        self.durations += sum(column(3).ints());
        self.tokens += sum(column(4).ints());
        let ViewValues::Bool(successes) = column(5).values else { panic!("success is boolean") };
        self.successes += successes.count_ones() as u64;
        self.metadata_bytes += view_bytes(column(6));
        self.metadata_rows += (block.len() - column(6).null_count()) as u64;
    }

    fn gauge_views(&mut self, block: &ViewsBlock) {
        let column = |column: usize| block.column(column);
        self.rows += block.len() as u64;
        self.stamps += offsets_of(column(0));
        view_bytes(column(1));
        view_bytes(column(2));
        self.values += column(3).floats().unwrap().sum();
        self.metadata_bytes += view_bytes(column(4));
    }

    fn canonical(&self, table: Table) -> Vec<Json> {
        match table {
            Table::Task => vec![
                json!(self.rows),
                json!(self.stamps),
                json!(self.durations),
                json!(self.tokens),
                json!(self.successes),
                json!(self.task_bytes),
                json!(self.metadata_bytes),
                json!(self.metadata_rows),
            ],
            _ => vec![json!(self.rows), json!(self.stamps), json!(self.values)],
        }
    }
}

fn ints(column: &Column) -> &[i64] {
    match &column.values {
        Values::Int(values) => values,
        _ => panic!("a column of integers"),
    }
}

/// Wraps: the profile checks sums otherwise, and checked loops are not vectorised.
fn sum(values: &[i64]) -> i64 {
    values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
}

fn offsets(column: &Column) -> i64 {
    let stamps = ints(column);
    // Offsets in microseconds of a week stay below 2^63 for 15 million rows.
    stamps.iter().fold(0i64, |sum, stamp| sum.wrapping_add(stamp.wrapping_sub(START))) / 1_000
}

/// Bytes of all texts; touches every cache line of them, or every code.
fn text_bytes(column: &Column) -> u64 {
    match &column.values {
        Values::Text(strings) => {
            let touch = |sum: u64, byte: &u8| sum.wrapping_add(u64::from(*byte));
            black_box(strings.text().as_bytes().iter().step_by(64).fold(0, touch));
            u64::from(black_box(strings.ends().iter().copied().fold(0, u32::max)))
        }
        Values::Coded { codes, .. } => {
            black_box(codes.iter().fold(0, |sum, code| sum.wrapping_add(u64::from(*code))))
        }
        _ => panic!("a column of texts"),
    }
}

fn offsets_of(column: ColumnView<'_>) -> i64 {
    let stamps = column.ints().unwrap();
    let start = i128::from(START) * stamps.len() as i128;
    i64::try_from(stamps.sum() - start).unwrap() / 1_000
}

/// Bytes of all texts; touches every number or code. Compressed text is not decompressed:
/// its length is known without.
fn view_bytes(column: ColumnView<'_>) -> u64 {
    match column.values {
        ViewValues::Text(texts) => {
            if let Some(numbered) = texts.numbered() {
                black_box(numbered.numbers.sum());
            }
            black_box(texts.text_bytes())
        }
        ViewValues::Coded { codes, .. } => u64::try_from(black_box(codes.sum())).unwrap(),
        _ => panic!("a column of texts"),
    }
}

fn value(value: Value) -> Json {
    match value {
        Value::Int(value) => json!(value),
        Value::Wide(value) => json!(i64::try_from(value).unwrap()),
        Value::Float(value) => json!(value),
    }
}

impl Reply {
    /// Blocks that were read for it, where the answer tells.
    pub(crate) fn blocks_read(&self) -> Option<u64> {
        let of = |plan: &Plan| Some(plan.blocks_scanned.count);
        match self {
            Self::Aggregate(answer) => of(&answer.plan),
            Self::Quantiles(answer) => of(&answer.plan),
            Self::AverageAndQuantiles(average, quantiles) => {
                Some(of(&average.plan)? + of(&quantiles.plan)?)
            }
            Self::Buckets(page) => of(&page.plan),
            Self::Agents(page) => of(&page.plan),
            Self::Slowest(page) => of(&page.plan),
            Self::Summary(answer) => of(&answer.plan),
            Self::Tasks(page) => of(&page.plan),
            Self::Keys(page) => of(&page.plan),
            _ => None,
        }
    }

    /// The largest distance of a rank that the answer admits.
    pub(crate) fn rank_error(&self) -> f64 {
        match self {
            Self::Quantiles(answer) => {
                answer.value.iter().map(|found| found.rank_error).fold(0.0, f64::max)
            }
            _ => 0.0,
        }
    }

    /// The answer as a flat list of numbers and texts, which other engines can give too.
    pub(crate) fn canonical(&self) -> Vec<Json> {
        let ranked = |found: &Quantile| found.value.map_or(Json::Null, value);
        match self {
            Self::Aggregate(answer) => {
                let found = &answer.value;
                let end = |end: Option<Value>| end.map_or(Json::Null, value);
                vec![json!(found.count), json!(found.avg), end(found.min), end(found.max)]
            }
            Self::Quantiles(answer) => answer.value.iter().map(ranked).collect(),
            Self::AverageAndQuantiles(average, quantiles) => {
                let mut list = vec![json!(average.value.value)];
                list.extend(quantiles.value.iter().map(ranked));
                list
            }
            Self::Buckets(page) => flat(&page.rows, |bucket| {
                let avg = bucket.value.map_or(Json::Null, value);
                vec![json!(bucket.time_bucket.as_micros()), avg, json!(bucket.count)]
            }),
            Self::Agents(page) => {
                flat(&page.rows, |agent| vec![json!(agent.agent_id), json!(agent.avg_duration_ms)])
            }
            Self::Slowest(page) => {
                flat(&page.rows, |task| vec![json!(task.duration_ms), json!(task.task_id)])
            }
            Self::Summary(answer) => summary(&answer.value),
            Self::Tasks(page) => flat(&page.rows, task_row),
            Self::Keys(page) => flat(&page.rows, |found| {
                let last = found.aggregate.last.as_ref();
                vec![json!(found.key), last.map_or(Json::Null, |last| value(last.value))]
            }),
            Self::Points(blocks) => points(blocks),
            Self::TaskBlocks(blocks) => {
                let mut touched = Touched::default();
                blocks.iter().for_each(|block| touched.tasks(block));
                touched.canonical(Table::Task)
            }
            Self::GaugeBlocks(blocks) => {
                let mut touched = Touched::default();
                blocks.iter().for_each(|block| touched.gauges(block));
                touched.canonical(Table::Agent)
            }
            Self::Touched(table, touched) => touched.canonical(*table),
            Self::Written(rows) => vec![json!(rows)],
        }
    }
}

fn flat<T>(rows: &[T], list: impl Fn(&T) -> Vec<Json>) -> Vec<Json> {
    rows.iter().flat_map(list).collect()
}

fn summary(found: &Summary) -> Vec<Json> {
    vec![
        json!(found.total_tasks),
        json!(found.successful_tasks),
        json!(found.success_rate),
        json!(found.avg_duration_ms),
        found.p95_duration_ms.map_or(Json::Null, value),
        found.p99_duration_ms.map_or(Json::Null, value),
        json!(found.avg_tokens_per_task),
        value(found.total_tokens_used),
        json!(found.unique_agents),
    ]
}

fn task_row(row: &TaskRow) -> Vec<Json> {
    vec![
        json!(row.timestamp.as_micros()),
        json!(row.task_id),
        json!(row.agent_id),
        json!(row.duration_ms),
        json!(row.tokens_used),
        json!(u8::from(row.success)),
        json!(row.metadata.as_deref().unwrap_or_default()),
    ]
}

/// Stamp and value of each point by time: `columns` promises no order.
fn points(blocks: &[ColumnsBlock]) -> Vec<Json> {
    let rows = blocks.iter().flat_map(ColumnsBlock::rows);
    let mut points: Vec<_> = rows.map(|row| (row.int(0).unwrap(), row.float(1).unwrap())).collect();
    points.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    flat(&points, |(stamp, value)| vec![json!(stamp), json!(value)])
}
