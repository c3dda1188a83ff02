//! The workload as a file of each format.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rusqlite::{Connection, params};

use tallystone::column::Batch;
use tallystone::import::Format;
use tallystone::testing::workload::{Gauges, Tasks};
use tallystone::{Table, Timestamp};

/// A file to import.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    /// None for a SQLite file.
    pub(crate) format: Option<Format>,
    pub(crate) table: Table,
    pub(crate) write: fn(&Path, usize),
}

/// All formats.
pub(crate) fn all() -> Vec<Source> {
    let source = |name, format, table, write| Source { name, format, table, write };
    vec![
        source("csv", Some(Format::Csv), Table::Task, csv as fn(&Path, usize)),
        source("jsonl", Some(Format::Jsonl), Table::Task, jsonl),
        source("json", Some(Format::Json), Table::Task, json),
        source("prometheus", Some(Format::Prometheus), Table::Agent, prometheus),
        source("sqlite", None, Table::Task, sqlite),
        source("archive", None, Table::Task, archive),
    ]
}

/// Seed of the rows.
const SEED: u64 = 1;

fn batches(rows: usize) -> impl Iterator<Item = Batch> {
    let mut tasks = Tasks::new(rows, SEED);
    std::iter::from_fn(move || tasks.next_batch(1 << 16))
}

/// Passes each task on as its fields.
fn each_task(rows: usize, mut on_task: impl FnMut(&Task<'_>)) {
    for batch in batches(rows) {
        for row in 0..batch.len() {
            let [stamp, task, agent, duration, tokens, success, metadata] = &batch.columns[..]
            else {
                unreachable!("task_metrics has seven columns")
            };
            on_task(&Task {
                micros: stamp.int(row).unwrap(),
                task: task.text(row).unwrap(),
                agent: agent.text(row).unwrap(),
                duration: duration.int(row),
                tokens: tokens.int(row),
                success: success.bool(row).unwrap(),
                metadata: metadata.text(row),
            });
        }
    }
}

struct Task<'a> {
    micros: i64,
    task: &'a str,
    agent: &'a str,
    duration: Option<i64>,
    tokens: Option<i64>,
    success: bool,
    metadata: Option<&'a str>,
}

impl Task<'_> {
    fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.micros).unwrap()
    }
}

fn create(path: &Path) -> BufWriter<File> {
    BufWriter::new(File::create(path).unwrap())
}

/// A number, or else what the format has for none.
fn number(value: Option<i64>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

fn csv(path: &Path, rows: usize) {
    let mut out = create(path);
    writeln!(out, "timestamp,task_id,agent_id,duration_ms,tokens_used,success,metadata").unwrap();
    each_task(rows, |task| {
        let (duration, tokens) = (number(task.duration, ""), number(task.tokens, ""));
        write!(out, "{},{},{},", task.time(), task.task, task.agent).unwrap();
        write!(out, "{duration},{tokens},{},", task.success).unwrap();
        match task.metadata {
            Some(json) => writeln!(out, "\"{}\"", json.replace('"', "\"\"")).unwrap(),
            None => writeln!(out).unwrap(),
        }
    });
    out.flush().unwrap();
}

fn jsonl(path: &Path, rows: usize) {
    let mut out = create(path);
    each_task(rows, |task| {
        writeln!(out, "{}", json_row(task)).unwrap();
    });
    out.flush().unwrap();
}

/// A flat document, as the export writes it.
fn json(path: &Path, rows: usize) {
    let mut out = create(path);
    write!(out, "{{\"export_info\":{{\"format\":\"json\"}},\"task_metrics\":").unwrap();
    let mut before = '[';
    each_task(rows, |task| {
        write!(out, "{before}\n{}", json_row(task)).unwrap();
        before = ',';
    });
    writeln!(out, "]}}").unwrap();
    out.flush().unwrap();
}

fn prometheus(path: &Path, rows: usize) {
    let mut out = create(path);
    let mut gauges = Gauges::new(rows, SEED);
    writeln!(out, "# TYPE tallystone_agent_metric gauge").unwrap();
    while let Some(batch) = gauges.next_batch(1 << 16) {
        let [stamp, agent, metric, value, ..] = &batch.columns[..] else {
            unreachable!("agent_metrics has five columns")
        };
        for row in 0..batch.len() {
            writeln!(
                out,
                "tallystone_agent_metric{{agent_id=\"{}\",metric_type=\"{}\"}} {} {}",
                agent.text(row).unwrap(),
                metric.text(row).unwrap(),
                value.float(row).unwrap(),
                stamp.int(row).unwrap() / 1_000
            )
            .unwrap();
        }
    }
    out.flush().unwrap();
}

/// A database as an earlier store made it.
fn database(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE task_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT,
                 task_id TEXT NOT NULL, agent_id TEXT NOT NULL, timestamp INTEGER NOT NULL,
                 duration_ms INTEGER, tokens_used INTEGER DEFAULT 0, success INTEGER NOT NULL,
                 metadata TEXT);
             CREATE TABLE metrics_archive (id INTEGER PRIMARY KEY AUTOINCREMENT,
                 archive_date TEXT NOT NULL, metric_table TEXT NOT NULL,
                 aggregation_level TEXT NOT NULL, compressed_data BLOB NOT NULL,
                 record_count INTEGER NOT NULL, created_at INTEGER NOT NULL);
             BEGIN",
        )
        .unwrap();
    connection
}

fn sqlite(path: &Path, rows: usize) {
    let connection = database(path);
    let mut insert =
        connection.prepare("INSERT INTO task_metrics VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)").unwrap();
    each_task(rows, |task| {
        let seconds = task.micros.div_euclid(1_000_000);
        let values = params![
            task.task,
            task.agent,
            seconds,
            task.duration,
            task.tokens,
            task.success,
            task.metadata.unwrap_or("{}")
        ];
        insert.execute(values).unwrap();
    });
    connection.execute_batch("COMMIT").unwrap();
}

/// Rows of an archive, as earlier stores made them.
const ARCHIVED: usize = 1_000;

fn archive(path: &Path, rows: usize) {
    let connection = database(path);
    let mut entries = Vec::new();
    let flush = |entries: &mut Vec<String>| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
        write!(encoder, "[{}]", entries.join(", ")).unwrap();
        let count = i64::try_from(entries.len()).unwrap();
        let sql = "INSERT INTO metrics_archive VALUES \
                   (NULL, '2026-11-23', 'task_metrics', 'detailed', ?, ?, 0)";
        connection.execute(sql, params![encoder.finish().unwrap(), count]).unwrap();
        entries.clear();
    };
    each_task(rows, |task| {
        let (duration, tokens) = (number(task.duration, "null"), number(task.tokens, "null"));
        entries.push(format!(
            "{{\"id\": 1, \"task_id\": \"{}\", \"agent_id\": \"{}\", \"timestamp\": {}, \
             \"duration_ms\": {duration}, \"tokens_used\": {tokens}, \"success\": {}, \
             \"metadata\": {:?}}}",
            task.task,
            task.agent,
            task.micros.div_euclid(1_000_000),
            u8::from(task.success),
            task.metadata.unwrap_or("{}")
        ));
        if entries.len() == ARCHIVED {
            flush(&mut entries);
        }
    });
    if !entries.is_empty() {
        flush(&mut entries);
    }
    connection.execute_batch("COMMIT").unwrap();
}

fn json_row(task: &Task<'_>) -> String {
    let (duration, tokens) = (number(task.duration, "null"), number(task.tokens, "null"));
    format!(
        "{{\"timestamp\":\"{}\",\"task_id\":\"{}\",\"agent_id\":\"{}\",\"duration_ms\":{duration},\
         \"tokens_used\":{tokens},\"success\":{},\"metadata\":{}}}",
        task.time(),
        task.task,
        task.agent,
        task.success,
        task.metadata.unwrap_or("null")
    )
}
