//! Imports of SQLite files: what earlier stores left behind, in every state such a file can
//! be found in. The file and what lies beside it are never changed.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "files of others, not of a store")]

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rusqlite::{Connection, params};
use tallystone::import::{BadLine, ParsedRow, ReadCount, ReadOptions, SqliteSource, Zone};
use tallystone::{Error, ErrorKind, ImportSource, Result, Store, Table};

/// The tables of schema 2.0.0.
const SCHEMA_2: &str = "
    CREATE TABLE task_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL,
        agent_id TEXT NOT NULL, timestamp INTEGER NOT NULL, duration_ms INTEGER,
        tokens_used INTEGER DEFAULT 0, success INTEGER NOT NULL, metadata TEXT);
    CREATE INDEX idx_task_time ON task_metrics(timestamp, task_id);
    CREATE TABLE agent_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, agent_id TEXT NOT NULL,
        timestamp INTEGER NOT NULL, metric_type TEXT NOT NULL, value REAL NOT NULL, metadata TEXT);
    CREATE TABLE swarm_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, swarm_id TEXT NOT NULL,
        timestamp INTEGER NOT NULL, metric_type TEXT NOT NULL, value REAL NOT NULL, metadata TEXT);
    CREATE TABLE metrics_archive (id INTEGER PRIMARY KEY AUTOINCREMENT, archive_date TEXT NOT NULL,
        metric_table TEXT NOT NULL, aggregation_level TEXT NOT NULL, compressed_data BLOB NOT NULL,
        record_count INTEGER NOT NULL, created_at INTEGER NOT NULL);
    CREATE TABLE storage_schema_info (key TEXT PRIMARY KEY, value TEXT NOT NULL,
        updated_at TEXT DEFAULT CURRENT_TIMESTAMP);
    INSERT INTO storage_schema_info (key, value) VALUES ('version', '2.0.0');";

/// The tables of schema 1.0.0.
const SCHEMA_1: &str = "
    CREATE TABLE task_metrics (task_id TEXT, agent_id TEXT, duration_ms INTEGER, result TEXT,
        tokens_used INTEGER, files_changed INTEGER, timestamp DATETIME DEFAULT CURRENT_TIMESTAMP,
        PRIMARY KEY (task_id, timestamp));
    CREATE TABLE agent_metrics (metric_id INTEGER PRIMARY KEY, agent_id TEXT, metric_type TEXT,
        value REAL, metadata TEXT, timestamp DATETIME DEFAULT CURRENT_TIMESTAMP);
    CREATE TABLE swarm_metrics (metric_id INTEGER PRIMARY KEY, swarm_id TEXT, metric_type TEXT,
        value REAL, metadata TEXT, timestamp DATETIME DEFAULT CURRENT_TIMESTAMP);
    CREATE TABLE metrics_schema_info (key TEXT PRIMARY KEY, value TEXT, updated_at TEXT);
    INSERT INTO metrics_schema_info (key, value) VALUES ('version', '1.0.0');";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("old store?#%.db")
    }

    fn make(&self, sql: &str) -> Connection {
        let connection = Connection::open(self.db()).unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    /// Names, sizes and bytes of all files.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn read(&self) -> Read {
        self.read_with(&options())
    }

    /// Rows as text, and bad ones as messages; checks that nothing was written.
    fn read_with(&self, options: &ReadOptions) -> Read {
        let before = self.files();
        let mut found = Read::default();
        let outcome = SqliteSource::open(&self.db()).and_then(|source| {
            source.read(
                options,
                |row| {
                    found.rows.push(shown(row));
                    Ok(())
                },
                |bad: &BadLine| {
                    found.bad.push(bad.to_error("old.db").message().to_owned());
                    found.raw.push(String::from_utf8(bad.raw.clone()).unwrap());
                    Ok(())
                },
            )
        });
        assert!(self.files() == before, "the file or what lies beside it has changed");
        match outcome {
            Ok(count) => {
                let (rows, bad) = (found.rows.len() as u64, found.bad.len() as u64);
                assert_eq!(count, ReadCount { rows, bad });
            }
            Err(error) => found.error = Some(error),
        }
        found
    }
}

#[derive(Default)]
struct Read {
    rows: Vec<String>,
    bad: Vec<String>,
    raw: Vec<String>,
    error: Option<Error>,
}

impl Read {
    fn fails(&self, kind: ErrorKind, parts: &[&str]) {
        let error = self.error.as_ref().expect("an error");
        let message = error.to_string();
        assert_eq!(error.kind(), kind, "{message}");
        for part in parts {
            assert!(message.contains(part), "expected {part:?} in {message:?}");
        }
    }
}

/// Times that name no zone are two hours ahead.
fn options() -> ReadOptions {
    let mut options = ReadOptions::new("old.db", None);
    options.zone = Some(Zone::parse("+02:00").unwrap());
    options
}

fn shown(row: &ParsedRow<'_>) -> String {
    match row {
        ParsedRow::Task(row) => format!(
            "task {} {} {} {:?} {:?} {} {}",
            row.timestamp,
            row.task_id,
            row.agent_id,
            row.duration_ms,
            row.tokens_used,
            row.success,
            row.metadata.unwrap_or("-")
        ),
        ParsedRow::Agent(row) => format!(
            "agent {} {} {} {} {}",
            row.timestamp,
            row.agent_id,
            row.metric_type,
            row.value,
            row.metadata.unwrap_or("-")
        ),
        ParsedRow::Swarm(row) => format!(
            "swarm {} {} {} {} {}",
            row.timestamp,
            row.swarm_id,
            row.metric_type,
            row.value,
            row.metadata.unwrap_or("-")
        ),
    }
}

fn deflated(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn archive(connection: &Connection, table: &str, data: &[u8], count: i64) {
    connection
        .execute(
            "INSERT INTO metrics_archive (archive_date, metric_table, aggregation_level, \
             compressed_data, record_count, created_at) VALUES ('2025-10-19', ?, 'detailed', ?, ?, 0)",
            params![table, data, count],
        )
        .unwrap();
}

fn archived_task(id: i64) -> String {
    format!(
        "{{\"id\": {id}, \"task_id\": \"t{id}\", \"agent_id\": \"caf\\u00e9\", \
         \"timestamp\": 1760894945, \"duration_ms\": 0, \"tokens_used\": null, \"success\": 1, \
         \"metadata\": \"{{\\\"i\\\": {id}}}\"}}"
    )
}

const TASK: &str = "INSERT INTO task_metrics (task_id, agent_id, timestamp, duration_ms, \
                    tokens_used, success, metadata) VALUES ";

#[test]
fn schema_2_with_its_archives() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    connection
        .execute_batch(&format!(
            "{TASK} ('t9', 'a', 1760894945, 12, 34, 1, '{{}}'), ('t8', 'a', -1, NULL, NULL, 0, NULL);
             INSERT INTO agent_metrics VALUES (5, 'a', 1760894945, 'cpu', 0.5, '{{\"k\": 1}}');
             INSERT INTO swarm_metrics VALUES (6, 's', 1760894945.25, 'queue', 7, '');"
        ))
        .unwrap();
    let tasks = format!("[{}, {}]", archived_task(1), archived_task(2));
    archive(&connection, "task_metrics", &deflated(&tasks), 2);
    let gauge = "[{\"id\": 1, \"swarm_id\": \"s\", \"timestamp\": 1760894945, \
                 \"metric_type\": \"m\", \"value\": 1.5, \"metadata\": \"{}\"}]";
    archive(&connection, "swarm_metrics", &deflated(gauge), 1);
    archive(&connection, "agent_metrics", &deflated("[]"), 0);
    drop(connection);
    let found = place.read();
    assert_eq!(found.bad, [""; 0]);
    assert!(found.error.is_none());
    assert_eq!(
        found.rows,
        [
            "task 2025-10-19T17:29:05Z t1 caf\u{e9} Some(0) None true {\"i\": 1}",
            "task 2025-10-19T17:29:05Z t2 caf\u{e9} Some(0) None true {\"i\": 2}",
            "swarm 2025-10-19T17:29:05Z s m 1.5 {}",
            "task 2025-10-19T17:29:05Z t9 a Some(12) Some(34) true {}",
            "task 1969-12-31T23:59:59Z t8 a None None false -",
            "agent 2025-10-19T17:29:05Z a cpu 0.5 {\"k\": 1}",
            "swarm 2025-10-19T17:29:05.250Z s queue 7 -",
        ]
    );
    let agents = place.read_with(&ReadOptions::new("old.db", Table::Agent));
    assert_eq!(agents.rows, ["agent 2025-10-19T17:29:05Z a cpu 0.5 {\"k\": 1}"]);
}

#[test]
fn schema_1_keeps_how_tasks_ended() {
    let place = Place::new();
    let connection = place.make(SCHEMA_1);
    connection
        .execute_batch(
            "INSERT INTO task_metrics VALUES
                 ('t1', 'a', 12, 'success', 34, 5, '2026-11-23T17:32:32.380770'),
                 ('t2', 'a', 12.5, 'timeout', NULL, NULL, '2026-11-23T17:32:32'),
                 ('t3', 'a', NULL, 'par\"tial', 0, 0, '2026-11-23 17:32:32');
             INSERT INTO agent_metrics VALUES
                 (1, 'a', 'agent_throughput', 2, '{\"x\": [1]}', '2026-11-23T17:32:32');
             INSERT INTO swarm_metrics VALUES (1, 's', 'swarm_health', 0.9, NULL, 1700000000);",
        )
        .unwrap();
    drop(connection);
    let found = place.read();
    assert_eq!(found.bad, [""; 0]);
    assert_eq!(
        found.rows,
        [
            "task 2026-11-23T15:32:32.380770Z t1 a Some(12) Some(34) true \
             {\"result\":\"success\",\"files_changed\":5}",
            "task 2026-11-23T15:32:32Z t2 a Some(13) None false {\"result\":\"timeout\"}",
            "task 2026-11-23T17:32:32Z t3 a None Some(0) false \
             {\"result\":\"par\\\"tial\",\"files_changed\":0}",
            "agent 2026-11-23T15:32:32Z a agent_throughput 2 {\"x\": [1]}",
            "swarm 2023-11-14T22:13:20Z s swarm_health 0.9 -",
        ]
    );
}

#[test]
fn rows_of_odd_values_are_named_and_cost_themselves_alone() {
    let place = Place::new();
    // A table without affinity and rules, as anything may have made it.
    let connection = place.make(
        "CREATE TABLE task_metrics (task_id, agent_id, timestamp, duration_ms, tokens_used, \
         success, metadata)",
    );
    let mut insert =
        connection.prepare("INSERT INTO task_metrics VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)").unwrap();
    let long = "x".repeat(2 << 20);
    insert.execute(params!["good", "a", 0, 1.0, -1, 1.0, None::<i64>]).unwrap();
    insert.execute(params![None::<i64>, "a", 0, 1, 1, 1, None::<i64>]).unwrap();
    insert.execute(params!["t", b"\xff\xfe", 0, 1, 1, 1, None::<i64>]).unwrap();
    insert.execute(params!["t", "a", "never", 1, 1, 1, None::<i64>]).unwrap();
    insert.execute(params!["t", "a", 0, "five", 1, 1, None::<i64>]).unwrap();
    insert.execute(params!["t", "a", 0, 1, 1e300, 1, None::<i64>]).unwrap();
    insert.execute(params!["t", "a", 0, 1, 1, None::<i64>, None::<i64>]).unwrap();
    insert.execute(params!["t", "a", 0, 1, 1, 1, "{"]).unwrap();
    insert.execute(params!["t", "a", 0, 1, 1, 1, format!("\"{long}\"")]).unwrap();
    insert.execute(params!["", "a", 0, 1, 1, 1, 7]).unwrap();
    insert.execute(params!["t", "a", i64::MAX, 1, 1, 1, None::<i64>]).unwrap();
    insert.execute(params!["nul\0", "a", 0, 1, 1, 1, None::<i64>]).unwrap();
    drop(insert);
    // Text that is no UTF-8.
    let sql = "INSERT INTO task_metrics VALUES (CAST(x'ff' AS TEXT), 'a', 0, 1, 1, 1, NULL)";
    connection.execute(sql, []).unwrap();
    drop(connection);
    let found = place.read();
    assert!(found.error.is_none());
    assert_eq!(
        found.rows,
        [
            "task 1970-01-01T00:00:00Z good a Some(1) Some(-1) true -",
            "task 1970-01-01T00:00:00Z nul\0 a Some(1) Some(1) true -",
        ]
    );
    let expected = [
        "row 2: task_id: NULL is not text",
        "row 3: agent_id: 2 bytes is not text",
        "row 4: timestamp: \"never\" is not a time, expected seconds since 1970",
        "row 5: duration_ms: \"five\" is not a number",
        "row 6: tokens_used: 1",
        "row 7: success: NULL is not a flag",
        "row 8: metadata: \"{\" is not JSON",
        "row 9: metadata: 2097154 bytes of JSON, expected at most",
        "row 10: metadata: 7 is not JSON text",
        "row 11: timestamp: 9223372036854775807 is not a time",
        "row 13: task_id: 1 bytes is not text",
    ];
    assert_eq!(found.bad.len(), expected.len(), "{:?}", found.bad);
    for (message, expected) in found.bad.iter().zip(expected) {
        assert!(message.starts_with("old.db: task_metrics row "), "{message}");
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
    for line in &found.raw {
        assert!(line.ends_with("}\n"));
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// A value beyond what is read ended the import, and could not be stepped over. It is a row
/// that is none, wherever it is, and tables without row numbers go on behind it too.
#[test]
fn values_too_long_cost_their_row_alone() {
    const LONG: usize = (64 << 20) + 1;
    for (number, rowid) in
        [("id INTEGER PRIMARY KEY", ""), ("id TEXT PRIMARY KEY", "WITHOUT ROWID")]
    {
        let place = Place::new();
        let connection = place.make(&format!(
            "CREATE TABLE task_metrics ({number}, task_id TEXT, agent_id TEXT,
                 timestamp INTEGER, success INTEGER, metadata) {rowid};
             CREATE TABLE metrics_archive (id INTEGER PRIMARY KEY, archive_date TEXT,
                 metric_table TEXT, aggregation_level TEXT, compressed_data BLOB,
                 record_count INTEGER, created_at INTEGER);"
        ));
        let insert = "INSERT INTO task_metrics VALUES (?1, ?2, 'a', 0, 1, ?3)";
        let text = "x".repeat(LONG);
        connection.execute(insert, params![3, "t3", None::<&str>]).unwrap();
        connection.execute(insert, params![5, text, "{}"]).unwrap();
        connection.execute(insert, params![6, "t6", text.as_bytes()]).unwrap();
        connection.execute(insert, params![9, "t9", "{}"]).unwrap();
        drop(text);
        connection
            .execute_batch(&format!(
                "INSERT INTO metrics_archive VALUES
                     (1, '', 'task_metrics', 'detailed', zeroblob({LONG}), 1, 0)"
            ))
            .unwrap();
        archive(&connection, "task_metrics", &deflated(&format!("[{}]", archived_task(1))), 1);
        drop(connection);
        let found = place.read();
        assert!(found.error.is_none(), "{:?}", found.error);
        assert_eq!(found.rows.len(), 3, "{:?}", found.rows);
        let rows = if rowid.is_empty() { [5, 6] } else { [2, 3] };
        let what = "a value of more than 67108864 bytes, expected at most so many";
        assert_eq!(
            found.bad,
            [
                format!("old.db: metrics_archive row 1: {what}"),
                format!("old.db: task_metrics row {}: {what}", rows[0]),
                format!("old.db: task_metrics row {}: {what}", rows[1]),
            ]
        );
        let source = SqliteSource::open(&place.db()).unwrap();
        let stop = |bad: &BadLine| Err(bad.to_error("old.db"));
        let error = source.read(&options(), |_| Ok(()), stop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
    }
}

/// The list of what was left out has no lines longer than those of a text.
#[test]
fn long_values_are_cut_where_they_are_shown() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    let insert = "INSERT INTO task_metrics VALUES (1, 't', 'a', 0, 1, 1, 1, ?)";
    connection.execute(insert, [format!("x{}", "\u{e9}".repeat(2 << 20))]).unwrap();
    drop(connection);
    let found = place.read();
    assert_eq!((found.rows.len(), found.bad.len()), (0, 1));
    assert!(found.raw[0].len() < (3 << 20) + 1_000, "{}", found.raw[0].len());
}

#[test]
fn archives_that_cannot_be_decoded_are_reported_and_the_rest_is_read() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    let whole = deflated(&format!("[{}]", archived_task(1)));
    let mut wrong_sum = whole.clone();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut longer = whole.clone();
    longer.push(0);
    archive(&connection, "task_metrics", &wrong_sum, 1);
    archive(&connection, "task_metrics", &whole[..whole.len() / 2], 1);
    archive(&connection, "task_metrics", b"", 1);
    archive(&connection, "task_metrics", b"no zlib stream at all", 1);
    archive(&connection, "task_metrics", &longer, 1);
    archive(&connection, "task_metrics", &deflated("{\"a\": 1}"), 1);
    archive(&connection, "task_metrics", &deflated(&format!("[{}", archived_task(2))), 1);
    archive(&connection, "other_metrics", &whole, 1);
    let sql = "UPDATE metrics_archive SET aggregation_level = 'hourly' WHERE id = 8";
    archive(&connection, "task_metrics", &deflated(&format!("[{}]", archived_task(3))), 2);
    let odd = archived_task(4).replace("\"t4\"", "7");
    let nan = archived_task(5).replace("\"duration_ms\": 0", "\"duration_ms\": NaN");
    let rows = format!("[{odd}, {nan}, 5, {}]", archived_task(6));
    archive(&connection, "task_metrics", &deflated(&rows), 4);
    connection.execute_batch(&format!("{TASK} ('live', 'a', 0, 1, 1, 1, NULL)")).unwrap();
    let found = place.read();
    assert!(found.error.is_none());
    let ids: Vec<_> = found.rows.iter().map(|row| row.split(' ').nth(2).unwrap()).collect();
    assert_eq!(ids, ["t2", "t3", "t6", "live"]);
    let expected = [
        "old.db: metrics_archive row 1: compressed_data: not a whole zlib stream",
        "old.db: metrics_archive row 2: compressed_data: not a whole zlib stream",
        "old.db: metrics_archive row 3: compressed_data: not a whole zlib stream",
        "old.db: metrics_archive row 4: compressed_data: not a whole zlib stream",
        "old.db: metrics_archive row 5: compressed_data: 1 bytes after the zlib stream",
        "old.db: metrics_archive row 6: not a JSON array: found '{', expected '['",
        "old.db: metrics_archive row 7: not a JSON array: the text ends",
        "old.db: metrics_archive row 8: metric_table: \"other_metrics\", expected task_metrics",
        "old.db: metrics_archive row 9: 1 rows, expected 2 as record_count says",
        "old.db: metrics_archive row 10, entry 1: task_id: 7 is not text",
        "old.db: metrics_archive row 10, entry 2: not a JSON object",
        "old.db: metrics_archive row 10, entry 3: not a JSON object",
    ];
    assert_eq!(found.bad.len(), expected.len(), "{:?}", found.bad);
    for (message, expected) in found.bad.iter().zip(expected) {
        assert!(message.starts_with(expected), "expected {expected:?} in {message:?}");
    }
    connection.execute(sql, []).unwrap();
    drop(connection);
    assert!(place.read().bad[7].contains("aggregation_level: \"hourly\", expected \"detailed\""));
}

/// A stream of a few KiB that would fill memory: it is given up.
#[test]
fn an_archive_that_explodes_is_refused() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![b' '; 1 << 20];
    (0..257).for_each(|_| encoder.write_all(&zeros).unwrap());
    archive(&connection, "task_metrics", &encoder.finish().unwrap(), 1);
    drop(connection);
    let found = place.read();
    assert!(found.bad[0].contains("more than 268435456 bytes when decoded"), "{:?}", found.bad);
}

#[test]
fn files_with_other_tables_say_what_was_found_and_expected() {
    let place = Place::new();
    drop(place.make("CREATE TABLE users (id); CREATE TABLE logs (id)"));
    place.read().fails(
        ErrorKind::BadInput,
        &["found tables logs, users, expected task_metrics, agent_metrics, swarm_metrics", ".db"],
    );
    drop(place.make("CREATE TABLE task_metrics (task_id, agent_id, timestamp, status)"));
    place.read().fails(
        ErrorKind::BadInput,
        &["task_metrics has no column success, found columns task_id, agent_id, timestamp, status"],
    );
    let place = Place::new();
    drop(place.make("CREATE TABLE a (b); DROP TABLE a"));
    place.read().fails(ErrorKind::BadInput, &["a database without tables, expected task_metrics"]);
    let place = Place::new();
    drop(place.make("CREATE TABLE Agent_Metrics (AGENT_ID, timestamp, metric_type, value)"));
    assert!(place.read().error.is_none(), "names have no case, and tables may be missing");
}

#[test]
fn files_that_are_no_database() {
    let place = Place::new();
    place.read().fails(ErrorKind::Io, &["old store?#%.db"]);
    std::fs::write(place.db(), b"").unwrap();
    place.read().fails(ErrorKind::BadInput, &["empty file, expected a SQLite database"]);
    std::fs::write(place.db(), b"timestamp,agent_id\n").unwrap();
    place.read().fails(ErrorKind::BadInput, &["not a SQLite database"]);
    std::fs::write(place.db(), b"SQLite format 3\0").unwrap();
    place.read().fails(ErrorKind::BadInput, &[]);
    std::fs::remove_file(place.db()).unwrap();
    std::fs::create_dir(place.db()).unwrap();
    let error = SqliteSource::open(&place.db()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn damaged_files_are_errors_and_no_panics() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    for id in 0..500 {
        let row = format!("{TASK} ('task{id}', 'a', {id}, 1, 1, 1, NULL)");
        connection.execute_batch(&row).unwrap();
    }
    drop(connection);
    let whole = std::fs::read(place.db()).unwrap();
    for cut in (0..whole.len()).step_by(whole.len() / 40) {
        std::fs::write(place.db(), &whole[..cut]).unwrap();
        let found = place.read();
        assert!(found.error.is_some(), "cut at {cut}");
    }
    // SQLite took what is missing of the last page for zeros, and so for a row of no values.
    std::fs::write(place.db(), &whole[..whole.len() - 100]).unwrap();
    place.read().fails(ErrorKind::BadInput, &["damaged: ", "expected whole pages of 4096"]);
    let mut refused = 0;
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(place.db(), &bytes).unwrap();
        refused += usize::from(place.read().error.is_some());
    }
    assert!(refused > 0);
}

/// While another program has rows in its log that are not in the file yet.
#[test]
fn a_file_in_use_is_read_with_its_log() {
    let place = Place::new();
    let connection = place.make("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
    connection.execute_batch(SCHEMA_2).unwrap();
    connection.execute_batch(&format!("{TASK} ('t1', 'a', 0, 1, 1, 1, NULL)")).unwrap();
    assert!(place.db().metadata().unwrap().len() <= 4096, "the rows are in the log alone");
    assert_eq!(place.read().rows.len(), 1);
    // A transaction that is not committed does not count.
    connection.execute_batch("PRAGMA cache_size = 1; BEGIN").unwrap();
    for id in 0..2_000 {
        let row = format!("{TASK} ('more{id}', 'a', 0, 1, 1, 1, NULL)");
        connection.execute_batch(&row).unwrap();
    }
    assert_eq!(place.read().rows.len(), 1);
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(place.read().rows.len(), 2_001);
    drop(connection);
    // Closed, the log is gone, and the file says still that there may be one.
    assert_eq!(place.files().len(), 1);
    assert_eq!(place.read().rows.len(), 2_001);
}

/// A program that was killed leaves a journal; without it the file is in between.
#[test]
fn a_journal_is_applied_to_a_copy() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    connection.execute_batch(&format!("{TASK} ('t1', 'a', 0, 1, 1, 1, NULL)")).unwrap();
    connection.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN").unwrap();
    connection.execute_batch("UPDATE task_metrics SET task_id = 'changed'").unwrap();
    for id in 0..5_000 {
        let row = format!("{TASK} ('more{id}', 'a', 0, 1, 1, 1, NULL)");
        connection.execute_batch(&row).unwrap();
    }
    // What a kill would leave: copied while the transaction is open and partly written.
    let killed = Place::new();
    for (path, bytes) in place.files() {
        std::fs::write(killed.dir.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    assert_eq!(killed.files().len(), 2, "the file and its journal");
    let found = killed.read();
    assert_eq!(found.rows, ["task 1970-01-01T00:00:00Z t1 a Some(1) Some(1) true -"]);
    connection.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_locked_file_is_said_to_be_locked() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    // Without a journal on disk, so that the lock is all that tells.
    connection.execute_batch("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE").unwrap();
    place.read().fails(ErrorKind::Locked, &["another program has locked it", "stop the program"]);
    connection.execute_batch("ROLLBACK").unwrap();
    assert!(place.read().error.is_none());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let place = Place::new();
    drop(place.make(&format!("{SCHEMA_2} {TASK} ('t1', 'a', 0, 1, 1, 1, NULL)")));
    let source = SqliteSource::open(&place.db()).unwrap();
    let change = |_: &ParsedRow<'_>| -> Result<()> {
        let mut file = std::fs::OpenOptions::new().append(true).open(place.db()).unwrap();
        file.write_all(&[0; 4096]).unwrap();
        Ok(())
    };
    let error = source.read(&options(), change, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let place = Place::new();
    drop(place.make(SCHEMA_2));
    let mut options = options();
    options.map = tallystone::import::FieldMap::parse("task_id=id").unwrap();
    place.read_with(&options).fails(ErrorKind::InvalidArgument, &["have known names"]);
    let mut options = ReadOptions::new("old.db", None);
    options.time = tallystone::import::TimeFormat::Millis;
    place.read_with(&options).fails(ErrorKind::InvalidArgument, &["times of a SQLite file"]);
}

/// All the way into a store, once.
#[test]
fn into_a_store_and_only_once() {
    let place = Place::new();
    let connection = place.make(SCHEMA_2);
    connection.execute_batch(&format!("{TASK} ('t1', 'a', 0, 1, 1, 1, NULL)")).unwrap();
    let tasks = format!("[{}, {}]", archived_task(1), archived_task(2));
    archive(&connection, "task_metrics", &deflated(&tasks), 2);
    drop(connection);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    store.keep_everything().unwrap();
    let import = |path: &Path| {
        let source = SqliteSource::open(path)?;
        let found = source.fingerprint();
        let identity = ImportSource {
            name: path.display().to_string(),
            hash: found.hash,
            crc32: found.crc32,
            bytes: found.bytes,
            again: false,
        };
        let mut import = store.begin_import(identity)?;
        source.read(
            &options(),
            |row| match row {
                ParsedRow::Task(row) => import.append_task(row),
                ParsedRow::Agent(row) => import.append_agent(row),
                ParsedRow::Swarm(row) => import.append_swarm(row),
            },
            |bad| Err(bad.to_error("old.db")),
        )?;
        import.commit()
    };
    assert_eq!(import(&place.db()).unwrap().rows, 3);
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), 3);
    assert_eq!(import(&place.db()).unwrap_err().kind(), ErrorKind::AlreadyImported);
    let connection = place.make("");
    archive(&connection, "task_metrics", b"damaged", 2);
    drop(connection);
    let error = import(&place.db()).unwrap_err();
    assert!(error.message().contains("old.db: metrics_archive row 2: compressed_data"), "{error}");
    assert_eq!(store.snapshot().unwrap().rows(Table::Task), 3, "nothing of it is kept");
}
