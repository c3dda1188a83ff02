//! Exports: every format, over rows of every kind; what was exported, imported and exported
//! again is the same to the byte.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io;
use std::path::Path;

use serde_json::{Value, json};
use tallystone::export::{ExportFormat, ExportReport, ExportRequest, Series};
use tallystone::import::{Format, ParsedRow, ReadOptions, read_rows};
use tallystone::testing::workload::Random;
use tallystone::{
    AgentMetric, Aggregation, ErrorKind, Filter, ImportSource, Interval, Snapshot, Store,
    SwarmMetric, Table, TaskMetric, Timestamp,
};

/// 2026-11-16, a Monday.
const START: i64 = 1_794_787_200_000_000;

const FORMATS: [ExportFormat; 6] = [
    ExportFormat::Json,
    ExportFormat::Jsonl,
    ExportFormat::Csv,
    ExportFormat::Prometheus,
    ExportFormat::OpenMetrics,
    ExportFormat::Grafana,
];

const TEXTS: [&str; 18] = [
    "a",
    "agent-10",
    "agent-2",
    "\u{e9}",
    "\u{1f600}\u{200d}\u{1f525}",
    " ",
    "line\nfeed\ttab\r",
    "\r\n",
    "\"quoted\\\" {json: 1}",
    "\u{202e}right to left \u{5d0}",
    "null",
    "=1+1",
    "-5",
    ",",
    "\"",
    "\u{7f}\u{1}",
    "\0",
    "nul\0,\"\0\"",
];

const DOCUMENTS: [&str; 10] = [
    "{}",
    "null",
    " [1, 2,\n3 ] ",
    "\"text\"",
    "{\"k\":\"\u{e9}\",\"k\":2}",
    "0",
    "-1e400",
    "\r\n{\"a\" :\r{\"b\":[[[[]]]]}}",
    "\"\\u0000\\ud83d\\ude00\"",
    "{\"swarm_id\":\"s\"}",
];

type Change = fn(&mut ExportRequest);

fn new_store(dir: &Path) -> Store {
    let store = Store::open(dir).unwrap();
    store.keep_everything().unwrap();
    store
}

fn pick<'a, T: ?Sized>(random: &mut Random, from: &[&'a T]) -> &'a T {
    from[usize::try_from(random.below(from.len() as u64)).unwrap()]
}

/// Rows of all tables, of few moments and ids, so that most of them tie with others.
fn fill(store: &Store, rows: usize, seed: u64) {
    let mut random = Random::new(seed);
    let mut appender = store.appender().unwrap();
    for number in 0..rows {
        let moments = [0, 1, 999, 1_000, 3_599_999_999, 3_600_000_000, 86_400_000_000, -1];
        let days = [START, START - 40 * 86_400_000_000, -3, 0];
        let day = days[usize::try_from(random.below(4)).unwrap()];
        let moment = moments[usize::try_from(random.below(8)).unwrap()];
        let timestamp = Timestamp::from_micros(day + moment).unwrap();
        let ints = [None, Some(0), Some(-7), Some(i64::MIN), Some(i64::MAX), Some(1_500)];
        let mut int = || ints[usize::try_from(random.below(6)).unwrap()];
        let (duration_ms, tokens_used) = (int(), int());
        let floats = [0.0, -0.0, f64::MAX, f64::from_bits(1), 0.1 + 0.2, -1e-9, 1e16, 237.0];
        let value = floats[usize::try_from(random.below(8)).unwrap()];
        let documents: Vec<Option<&str>> =
            DOCUMENTS.iter().map(|text| Some(*text)).chain([None; 5]).collect();
        let metadata = documents[usize::try_from(random.below(15)).unwrap()];
        let (first, second) = (pick(&mut random, &TEXTS), pick(&mut random, &TEXTS[..3]));
        match number % 3 {
            0 => appender.append_task(&TaskMetric {
                timestamp,
                task_id: first,
                agent_id: second,
                duration_ms,
                tokens_used,
                success: random.chance(0.7),
                metadata,
            }),
            1 => appender.append_agent(&AgentMetric {
                timestamp,
                agent_id: first,
                metric_type: second,
                value,
                metadata,
            }),
            _ => appender.append_swarm(&SwarmMetric {
                timestamp,
                swarm_id: second,
                metric_type: first,
                value,
                metadata,
            }),
        }
        .unwrap();
    }
    appender.commit().unwrap();
}

/// A store with sealed and with active rows.
fn nasty(dir: &Path) -> Store {
    let store = new_store(dir);
    fill(&store, 2_000, 1);
    store.seal().unwrap();
    fill(&store, 1_000, 2);
    store.seal().unwrap();
    fill(&store, 500, 3);
    store
}

fn export(snapshot: &Snapshot, request: &ExportRequest) -> (String, ExportReport) {
    let mut text = Vec::new();
    let mut told = 0;
    let report = snapshot
        .export(request, &mut text, &mut |progress| {
            assert!(progress.rows >= told);
            told = progress.rows;
        })
        .unwrap();
    assert_eq!((report.bytes, report.rows), (text.len() as u64, told));
    (String::from_utf8(text).unwrap(), report)
}

fn text_of(snapshot: &Snapshot, format: ExportFormat, change: Change) -> String {
    let mut request = ExportRequest::new(format);
    change(&mut request);
    export(snapshot, &request).0
}

fn import(store: &Store, table: Table, format: Format, text: &str) {
    let options = ReadOptions::new("export", table);
    let hash = u128::from(table as u8) + 1;
    let (name, bytes) = ("export".to_owned(), text.len() as u64);
    let source = ImportSource { name, hash, crc32: 0, bytes, again: true };
    let mut import = store.begin_import(source).unwrap();
    read_rows(
        format,
        text.as_bytes(),
        &options,
        |row| match row {
            ParsedRow::Task(row) => import.append_task(row),
            ParsedRow::Agent(row) => import.append_agent(row),
            ParsedRow::Swarm(row) => import.append_swarm(row),
        },
        |bad| Err(bad.to_error("export")),
    )
    .unwrap();
    import.commit().unwrap();
}

#[test]
fn what_is_exported_imported_and_exported_again_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = nasty(&dir.path().join("first")).snapshot().unwrap();
    for (format, read_as) in
        [(ExportFormat::Jsonl, Format::Jsonl), (ExportFormat::Csv, Format::Csv)]
    {
        let second = new_store(&dir.path().join(format.name()));
        for table in Table::ALL {
            let mut request = ExportRequest::new(format);
            request.tables = vec![table];
            request.raw = format == ExportFormat::Csv;
            let (text, report) = export(&snapshot, &request);
            assert_eq!(report.rows, snapshot.rows(table));
            import(&second, table, read_as, &text);
            let (again, _) = export(&second.snapshot().unwrap(), &request);
            for (line, line_again) in text.lines().zip(again.lines()) {
                assert_eq!(line, line_again, "{table} as {}", format.name());
            }
            assert!(text == again, "{table} as {}", format.name());
        }
    }
}

/// The same rows make the same text, whatever files they are in.
#[test]
fn segments_do_not_show() {
    let dir = tempfile::tempdir().unwrap();
    let store = nasty(&dir.path().join("store"));
    let text = |store: &Store| {
        let snapshot = store.snapshot().unwrap();
        FORMATS.map(|format| text_of(&snapshot, format, |_| {}))
    };
    let before = text(&store);
    store.seal().unwrap();
    let after = text(&store);
    for (format, (before, after)) in FORMATS.iter().zip(before.iter().zip(&after)) {
        // Quantiles are estimates, and depend on how rows were summarised.
        let kept = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.contains("quantile="));
            lines.map(str::to_owned).collect()
        };
        assert!(kept(before) == kept(after), "{}", format.name());
    }
}

/// Two agents, of which one belongs to a swarm, and gauges of all kinds.
fn small(dir: &Path) -> Store {
    let store = new_store(dir);
    let at = |seconds: i64| Timestamp::from_micros(START + seconds * 1_000_000).unwrap();
    for (second, task_id, agent_id, duration_ms, success, metadata) in [
        (0, "t1", "coder", Some(1_250), true, Some("{\"swarm_id\":\"s1\"}")),
        (60, "t2", "=cmd", None, false, None),
        (120, "t3", "coder", Some(750), true, None),
    ] {
        let timestamp = at(second);
        let tokens_used = duration_ms.map(|duration| duration / 10);
        let row = TaskMetric {
            timestamp,
            task_id,
            agent_id,
            duration_ms,
            tokens_used,
            success,
            metadata,
        };
        store.record_task(&row).unwrap();
    }
    for (second, agent_id, value) in [(0, "coder", 0.25), (3_600, "coder", 0.75), (5, "idle", 1.0)]
    {
        let (timestamp, metric_type) = (at(second), "cpu");
        let row = AgentMetric { timestamp, agent_id, metric_type, value, metadata: None };
        store.record_agent(&row).unwrap();
    }
    for (micros, value) in [(0, 3.0), (500, 4.0), (1_000, 5.0)] {
        let timestamp = Timestamp::from_micros(START + micros).unwrap();
        let (swarm_id, metric_type) = ("s\"1\"\n", "queue\\depth");
        let row = SwarmMetric { timestamp, swarm_id, metric_type, value, metadata: Some("[1, 2]") };
        store.record_swarm(&row).unwrap();
    }
    store.commit().unwrap();
    store
}

#[test]
fn csv_of_one_table_and_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = small(&dir.path().join("store")).snapshot().unwrap();
    let tasks = text_of(&snapshot, ExportFormat::Csv, |request| {
        request.tables = vec![Table::Task];
    });
    let expected = "task_id,agent_id,timestamp,duration_ms,tokens_used,success,metadata\r\n\
        t1,coder,2026-11-16T00:00:00Z,1250,125,true,\"{\"\"swarm_id\"\":\"\"s1\"\"}\"\r\n\
        t2,'=cmd,2026-11-16T00:01:00Z,,,false,\r\n\
        t3,coder,2026-11-16T00:02:00Z,750,75,true,\r\n";
    assert_eq!(tasks, expected);
    let chosen = text_of(&snapshot, ExportFormat::Csv, |request| {
        request.tables = vec![Table::Task];
        request.columns = vec!["duration_ms".to_owned(), "agent_id".to_owned()];
        request.newest_first = true;
        request.raw = true;
        request.filter = Filter::new().limit(2);
    });
    assert_eq!(chosen, "duration_ms,agent_id\n750,coder\n,=cmd\n");
    let all = text_of(&snapshot, ExportFormat::Csv, |_| {});
    let mut reader = csv::ReaderBuilder::new().from_reader(all.as_bytes());
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(
        header.join(" "),
        "metric_type timestamp timestamp_iso agent_id task_id swarm_id duration_ms tokens_used \
         success metric_name value metadata"
    );
    let records: Vec<Vec<String>> = reader
        .records()
        .map(|record| record.unwrap().iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(records.len(), 9);
    let swarm = "swarm 1794787200.000500 2026-11-16T00:00:00.000500Z   ID    NAME 4.0 [1,_2]";
    let swarm: Vec<String> = swarm
        .split(' ')
        .map(|cell| {
            cell.replace("ID", "s\"1\"\n").replace("NAME", "queue\\depth").replace('_', " ")
        })
        .collect();
    assert_eq!(records[7], swarm);
}

#[test]
fn json_nested_flat_and_in_lines() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = small(&dir.path().join("store")).snapshot().unwrap();
    let parsed = |change: Change| -> Value {
        serde_json::from_str(&text_of(&snapshot, ExportFormat::Json, change)).unwrap()
    };
    let nested = parsed(|_| {});
    assert_eq!(nested["export_info"]["structure"], "nested");
    assert_eq!(nested["summary"]["total_tasks"], 3);
    let counts = json!({ "task_metrics": 3, "agent_metrics": 3, "swarm_metrics": 3 });
    assert_eq!(nested["record_counts"], counts);
    let swarms = nested["swarms"].as_array().unwrap();
    assert_eq!(swarms.len(), 2);
    assert_eq!(swarms[0]["swarm_id"], "s\"1\"\n");
    assert_eq!(swarms[0]["metrics"].as_array().unwrap().len(), 3);
    assert_eq!(swarms[1]["swarm_id"], "s1");
    let coder = &swarms[1]["agents"][0];
    assert_eq!(
        (&coder["agent_id"], &coder["tasks"][1]["task_id"]),
        (&json!("coder"), &json!("t3"))
    );
    assert_eq!(coder["metrics"][1]["value"], 0.75);
    let ungrouped = nested["ungrouped"]["agents"].as_array().unwrap();
    let names: Vec<&str> = ungrouped.iter().map(|a| a["agent_id"].as_str().unwrap()).collect();
    assert_eq!(names, ["=cmd", "idle"]);
    let mapped = parsed(|request| {
        request.swarms = [("idle".to_owned(), "s1".to_owned())].into_iter().collect();
        request.pretty = true;
    });
    let agents = mapped["swarms"][1]["agents"].as_array().unwrap();
    assert_eq!((agents.len(), &agents[1]["agent_id"]), (2, &json!("idle")));

    let flat = parsed(|request| request.flat = true);
    assert_eq!(flat["task_metrics"].as_array().unwrap().len(), 3);
    assert_eq!(flat["swarm_metrics"][0]["metadata"], json!([1, 2]));
    let lines = text_of(&snapshot, ExportFormat::Jsonl, |_| {});
    assert_eq!(
        lines.lines().next().unwrap(),
        r#"{"task_id":"t1","agent_id":"coder","timestamp":"2026-11-16T00:00:00Z","duration_ms":1250,"tokens_used":125,"success":true,"metadata":{"swarm_id":"s1"}}"#
    );
    let of_swarm = text_of(&snapshot, ExportFormat::Jsonl, |request| {
        request.filter = Filter::new().swarm("s\"1\"\n");
    });
    assert_eq!(of_swarm.lines().count(), 3, "the other tables have no such column");
}

#[test]
fn prometheus_and_openmetrics() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = small(&dir.path().join("store")).snapshot().unwrap();
    let text = text_of(&snapshot, ExportFormat::Prometheus, |_| {});
    for line in [
        "# TYPE tallystone_tasks_total counter",
        "tallystone_tasks_total{agent_id=\"=cmd\",success=\"false\"} 1",
        "tallystone_tasks_total{agent_id=\"coder\",success=\"true\"} 2",
        "# TYPE tallystone_task_duration_seconds summary",
        "tallystone_task_duration_seconds{agent_id=\"coder\",quantile=\"0.5\"} 1.25",
        "tallystone_task_duration_seconds_sum{agent_id=\"coder\"} 2.0",
        "tallystone_task_duration_seconds_count{agent_id=\"coder\"} 2",
        "tallystone_task_tokens_sum{agent_id=\"coder\"} 200.0",
        "# TYPE tallystone_agent_metric gauge",
        "tallystone_agent_metric{agent_id=\"coder\",metric_type=\"cpu\"} 0.75 1794790800000",
        "tallystone_swarm_metric{swarm_id=\"s\\\"1\\\"\\n\",metric_type=\"queue\\\\depth\"} 5.0 \
         1794787200001",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    let mut series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once("} ").unwrap().0)
        .collect();
    let count = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), count, "no series twice");

    let text = text_of(&snapshot, ExportFormat::OpenMetrics, |_| {});
    assert!(text.ends_with("} 5.0 1794787200.001\n# EOF\n"), "{text}");
    assert!(text.contains("# TYPE tallystone_tasks counter\n"));
    assert!(text.contains("# UNIT tallystone_task_duration_seconds seconds\n"));

    let mut request = ExportRequest::new(ExportFormat::OpenMetrics);
    request.all_samples = true;
    let (text, report) = export(&snapshot, &request);
    assert_eq!((report.rows, report.merged_samples), (9, 1));
    let cpu: Vec<&str> = text.lines().filter(|line| line.contains("\"cpu\"")).collect();
    assert_eq!(
        cpu,
        [
            "tallystone_agent_metric{agent_id=\"coder\",metric_type=\"cpu\"} 0.25 1794787200",
            "tallystone_agent_metric{agent_id=\"coder\",metric_type=\"cpu\"} 0.75 1794790800",
            "tallystone_agent_metric{agent_id=\"idle\",metric_type=\"cpu\"} 1.0 1794787205",
        ]
    );
    assert!(text.contains("} 4.0 1794787200\n") && !text.contains("} 3.0 1794787200\n"), "{text}");
}

#[test]
fn grafana_series_and_tables() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = small(&dir.path().join("store")).snapshot().unwrap();
    let mut request = ExportRequest::new(ExportFormat::Grafana);
    request.tables = vec![Table::Agent];
    let (aggregation, interval) = (Aggregation::Max, Interval::Minute);
    request.series = Series { field: None, interval, aggregation };
    let (text, report) = export(&snapshot, &request);
    let expected = json!([
        { "target": "coder.cpu",
          "datapoints": [[0.25, 1_794_787_200_000_i64], [0.75, 1_794_790_800_000_i64]] },
        { "target": "idle.cpu", "datapoints": [[1.0, 1_794_787_200_000_i64]] },
    ]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert_eq!(report.rows, 3);
    request.tables = Vec::new();
    request.series.field = Some("tokens_used".to_owned());
    let (text, _) = export(&snapshot, &request);
    let series: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(series[1]["target"], "coder.tokens_used");
    assert_eq!(series[1]["datapoints"][0][0], 125);

    request = ExportRequest::new(ExportFormat::Grafana);
    request.flat = true;
    request.tables = vec![Table::Task];
    request.columns = ["timestamp", "success", "metadata"].map(str::to_owned).to_vec();
    let (text, _) = export(&snapshot, &request);
    let expected = json!([{
        "type": "table",
        "columns": [
            { "text": "timestamp", "type": "time" },
            { "text": "success", "type": "boolean" },
            { "text": "metadata", "type": "string" },
        ],
        "rows": [
            [1_794_787_200_000_i64, true, "{\"swarm_id\":\"s1\"}"],
            [1_794_787_260_000_i64, false, null],
            [1_794_787_320_000_i64, true, null],
        ],
    }]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
}

#[test]
fn an_empty_store_is_an_empty_export() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = new_store(&dir.path().join("store")).snapshot().unwrap();
    for (format, flat) in FORMATS.iter().flat_map(|format| [(*format, false), (*format, true)]) {
        let mut request = ExportRequest::new(format);
        request.flat = flat;
        if flat && !matches!(format, ExportFormat::Json | ExportFormat::Grafana) {
            let refused = snapshot.export(&request, &mut Vec::new(), &mut |_| {}).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
            continue;
        }
        let (text, report) = export(&snapshot, &request);
        assert_eq!(report.rows, 0, "{format:?}");
        match format {
            ExportFormat::Csv => assert_eq!(text.lines().count(), 1),
            ExportFormat::Jsonl | ExportFormat::Prometheus => assert_eq!(text, ""),
            ExportFormat::OpenMetrics => assert_eq!(text, "# EOF\n"),
            ExportFormat::Json | ExportFormat::Grafana => {
                serde_json::from_str::<Value>(&text).unwrap();
            }
        }
    }
}

#[test]
fn what_a_format_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = small(&dir.path().join("store")).snapshot().unwrap();
    let cases: [(ExportFormat, Change, &str); 8] = [
        (ExportFormat::Jsonl, |r| r.raw = true, "raw"),
        (ExportFormat::Csv, |r| r.pretty = true, "pretty"),
        (ExportFormat::Prometheus, |r| r.all_samples = true, "all samples"),
        (ExportFormat::Grafana, |r| r.newest_first = true, "newest first"),
        (ExportFormat::Json, |r| r.filter = Filter::new().limit(5), "limit"),
        (ExportFormat::Csv, |r| r.columns = vec!["value".to_owned()], "one table"),
        (
            ExportFormat::Csv,
            |r| {
                r.tables = vec![Table::Task];
                r.columns = vec!["value".to_owned()];
            },
            "no such column",
        ),
        (ExportFormat::Csv, |r| r.filter = Filter::new().task("t").swarm("s"), "no table"),
    ];
    for (format, change, expected) in cases {
        let mut request = ExportRequest::new(format);
        change(&mut request);
        let mut out = Vec::new();
        let error = snapshot.export(&request, &mut out, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{expected}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A writer that takes some bytes and then fails.
struct Failing(usize, io::ErrorKind);

impl io::Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.0.min(bytes.len());
        self.0 -= taken;
        if taken == 0 { Err(self.1.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_ends_the_export_with_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = nasty(&dir.path().join("store")).snapshot().unwrap();
    for format in FORMATS {
        for (cause, kind) in [
            (io::ErrorKind::BrokenPipe, ErrorKind::Io),
            (io::ErrorKind::StorageFull, ErrorKind::NoSpace),
        ] {
            let request = ExportRequest::new(format);
            let mut out = Failing(1_000, cause);
            let error = snapshot.export(&request, &mut out, &mut |_| {}).unwrap_err();
            assert_eq!(error.kind(), kind, "{}", format.name());
            let source = std::error::Error::source(&error).unwrap();
            assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), cause);
        }
    }
}
