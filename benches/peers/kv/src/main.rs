//! redb as a peer: `peers-kv DUMP FOLDER MODE`, with the modes and lines of `worker.py`.
//!
//! Owns how rows become keys: tasks by agent and time, an index of task ids, gauges by series
//! and time. Answers the look-ups, and the first question by a loop, as its user would have to.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable as _, TableDefinition};
use serde_json::{Value as Json, json};

/// Agent, stamp and number of the row: what follows it in the row is the value.
const TASKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tasks");
/// Task and number of the row: the key of the row.
const BY_TASK: TableDefinition<&[u8], &[u8]> = TableDefinition::new("by_task");
/// Metric, agent, stamp and number of the row.
const GAUGES: TableDefinition<&[u8], f64> = TableDefinition::new("gauges");
const BATCH_ROWS: usize = 100;

struct Dump(PathBuf);

impl Dump {
    fn numbers<const N: usize>(&self, file: &str) -> Vec<[u8; N]> {
        let bytes = std::fs::read(self.0.join(file)).unwrap();
        bytes.chunks_exact(N).map(|chunk| chunk.try_into().unwrap()).collect()
    }

    fn ints(&self, file: &str) -> Vec<i64> {
        self.numbers(file).into_iter().map(i64::from_le_bytes).collect()
    }

    fn codes(&self, file: &str) -> Vec<u32> {
        self.numbers(file).into_iter().map(u32::from_le_bytes).collect()
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join(file)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn questions(&self) -> Json {
        let text = std::fs::read(self.0.join("dump.json")).unwrap();
        serde_json::from_slice::<Json>(&text).unwrap()["questions"].take()
    }
}

/// A row of tasks as the two tables take it.
struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    task_key: Vec<u8>,
}

fn stamped(codes: &[u32], stamp: i64, row: u32) -> Vec<u8> {
    let mut key: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
    // Stamps of the workload are after 1970, so their bytes sort as they do.
    key.extend(stamp.to_be_bytes());
    key.extend(row.to_be_bytes());
    key
}

fn task_entries(dump: &Dump) -> Vec<Entry> {
    let stamps = dump.ints("tasks.timestamp.i64");
    let agents = dump.codes("tasks.agent_id.u32");
    let durations = dump.ints("tasks.duration_ms.i64");
    let tokens = dump.ints("tasks.tokens_used.i64");
    let tasks = dump.lines("tasks.task_id.txt");
    let successes = dump.numbers::<1>("tasks.success.u8");
    let metadata = dump.lines("tasks.metadata.txt");
    let rows = stamps.len();
    let entry = |row: usize| {
        let number = u32::try_from(row).unwrap();
        let mut value = Vec::with_capacity(32 + metadata[row].len());
        value.extend(durations[row].to_be_bytes());
        value.extend(tokens[row].to_be_bytes());
        value.push(successes[row][0]);
        value.push(u8::try_from(tasks[row].len()).unwrap());
        value.extend(tasks[row].as_bytes());
        value.extend(metadata[row].as_bytes());
        let mut task_key = tasks[row].clone().into_bytes();
        task_key.extend(number.to_be_bytes());
        Entry { key: stamped(&[agents[row]], stamps[row], number), value, task_key }
    };
    (0..rows).map(entry).collect()
}

fn gauge_entries(dump: &Dump) -> Vec<(Vec<u8>, f64)> {
    let stamps = dump.ints("gauges.timestamp.i64");
    let agents = dump.codes("gauges.agent_id.u32");
    let metrics = dump.codes("gauges.metric_type.u32");
    let values = dump.numbers::<8>("gauges.value.f64");
    let entry = |row: usize| {
        let key = stamped(&[metrics[row], agents[row]], stamps[row], u32::try_from(row).unwrap());
        (key, f64::from_le_bytes(values[row]))
    };
    (0..stamps.len()).map(entry).collect()
}

/// One transaction, durable when it is committed.
fn commit_tasks(database: &Database, entries: &[Entry]) {
    let transaction = database.begin_write().unwrap();
    {
        let mut tasks = transaction.open_table(TASKS).unwrap();
        let mut by_task = transaction.open_table(BY_TASK).unwrap();
        for entry in entries {
            tasks.insert(entry.key.as_slice(), entry.value.as_slice()).unwrap();
            by_task.insert(entry.task_key.as_slice(), entry.key.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn commit_gauges(database: &Database, entries: &[(Vec<u8>, f64)]) {
    let transaction = database.begin_write().unwrap();
    {
        let mut gauges = transaction.open_table(GAUGES).unwrap();
        for (key, value) in entries {
            gauges.insert(key.as_slice(), value).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn say(line: &Json) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn wait() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Anonymous memory of this process.
fn anonymous_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn load(dump: &Dump, folder: &Path) {
    // Keys in order are what a B-tree takes best; sorting them is in the time.
    let (mut tasks, mut gauges) = (task_entries(dump), gauge_entries(dump));
    say(&json!({"ready": true, "base": anonymous_bytes()}));
    wait();
    let start = Instant::now();
    tasks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut database = Database::create(folder.join("tasks.redb")).unwrap();
    commit_tasks(&database, &tasks);
    let tasks_ms = millis(start);
    let start = Instant::now();
    gauges.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut other = Database::create(folder.join("gauges.redb")).unwrap();
    commit_gauges(&other, &gauges);
    say(&json!({"tasks_ms": tasks_ms, "gauges_ms": millis(start)}));
    wait();
    let start = Instant::now();
    database.compact().unwrap();
    other.compact().unwrap();
    let settle_ms = millis(start);
    drop((database, other));
    let size = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
    say(&json!({
        "settle_ms": settle_ms,
        "tasks_bytes": size("tasks.redb"),
        "gauges_bytes": size("gauges.redb"),
    }));
}

fn batches(dump: &Dump, folder: &Path, count: usize) {
    let entries = task_entries(dump);
    let database = Database::create(folder.join("batches.redb")).unwrap();
    let mut times = Vec::new();
    for batch in entries.chunks_exact(BATCH_ROWS).take(count) {
        let start = Instant::now();
        commit_tasks(&database, batch);
        times.push(millis(start));
    }
    say(&json!({"ms": times, "rows": BATCH_ROWS}));
}

/// Both databases, open, and what is asked of them.
struct Subject {
    tasks: ReadTransaction,
    gauges: ReadTransaction,
    agents: Vec<String>,
    gauge_agents: Vec<String>,
    metrics: Vec<String>,
    asked: Json,
    _databases: [Database; 2],
}

fn big(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().unwrap())
}

fn count_avg_min_max(values: impl Iterator<Item = i64>) -> Vec<Json> {
    let (mut count, mut sum, mut min, mut max) = (0u64, 0i64, i64::MAX, i64::MIN);
    for value in values {
        count += 1;
        sum += value;
        min = min.min(value);
        max = max.max(value);
    }
    #[expect(clippy::cast_precision_loss, reason = "sums of the workload are below 2^53")]
    let average = sum as f64 / count as f64;
    vec![json!(count), json!(average), json!(min), json!(max)]
}

impl Subject {
    fn open(dump: &Dump, folder: &Path) -> Self {
        let open = |name: &str| Database::open(folder.join(name)).unwrap();
        let databases = [open("tasks.redb"), open("gauges.redb")];
        let [tasks, gauges] = [0, 1].map(|at: usize| databases[at].begin_read().unwrap());
        Self {
            tasks,
            gauges,
            agents: dump.lines("tasks.agent_id.txt"),
            gauge_agents: dump.lines("gauges.agent_id.txt"),
            metrics: dump.lines("gauges.metric_type.txt"),
            asked: dump.questions(),
            _databases: databases,
        }
    }

    fn text(&self, question: &str, name: &str) -> &str {
        self.asked[question][name].as_str().unwrap()
    }

    /// The code that the asked text has in a dictionary.
    fn code(&self, dictionary: &[String], question: &str, name: &str) -> u32 {
        let wanted = self.text(question, name);
        u32::try_from(dictionary.iter().position(|text| text == wanted).unwrap()).unwrap()
    }

    /// A row as the answers have it.
    fn row(&self, key: &[u8], value: &[u8]) -> Vec<Json> {
        let agent = u32::from_be_bytes(key[..4].try_into().unwrap());
        let (task, metadata) = value[18..].split_at(usize::from(value[17]));
        vec![
            json!(big(&key[4..12])),
            json!(std::str::from_utf8(task).unwrap()),
            json!(self.agents[agent as usize]),
            json!(big(&value[..8])),
            json!(big(&value[8..16])),
            json!(value[16]),
            json!(std::str::from_utf8(metadata).unwrap()),
        ]
    }

    /// Newest first, as all rows are answered, and the first `limit` of them.
    fn newest(mut rows: Vec<Vec<Json>>, limit: usize) -> Vec<Json> {
        let text = |row: &[Json], at: usize| row[at].as_str().unwrap().to_owned();
        let order = |row: &Vec<Json>| (row[0].as_i64().unwrap(), text(row, 1), text(row, 2));
        rows.sort_by_cached_key(|row| std::cmp::Reverse(order(row)));
        rows.truncate(limit);
        rows.concat()
    }

    fn metric_values(&self, range: Range<Vec<u8>>) -> Vec<(i64, f64)> {
        let table = self.gauges.open_table(GAUGES).unwrap();
        let found = table.range(range.start.as_slice()..range.end.as_slice()).unwrap();
        found
            .map(|entry| entry.unwrap())
            .map(|(k, v)| (big(&k.value()[8..16]), v.value()))
            .collect()
    }

    /// The answer and how long finding it took; `None` for what is a loop over everything.
    fn ask(&self, question: &str) -> Option<(f64, Vec<Json>)> {
        let start = Instant::now();
        let answer = match question {
            "Q1" => {
                let table = self.tasks.open_table(TASKS).unwrap();
                let rows = table.iter().unwrap().map(|entry| entry.unwrap());
                count_avg_min_max(rows.map(|(_, value)| big(&value.value()[..8])))
            }
            "Q3" => {
                let agent = self.code(&self.agents, question, "agent_id");
                let at = |name| stamped(&[agent], self.asked[question][name].as_i64().unwrap(), 0);
                let table = self.tasks.open_table(TASKS).unwrap();
                let found = table.range(at("from").as_slice()..at("to").as_slice()).unwrap();
                let mut values: Vec<i64> =
                    found.map(|entry| big(&entry.unwrap().1.value()[..8])).collect();
                values.sort_unstable();
                let mut answer = count_avg_min_max(values.iter().copied());
                answer = vec![answer.swap_remove(1)];
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "truncation is the definition"
                )]
                let rank = |p: f64| ((values.len() as f64 * p) as usize).min(values.len() - 1);
                answer.extend([0.5, 0.95, 0.99].map(|p| json!(values[rank(p)])));
                answer
            }
            "Q8" => {
                let task = self.text(question, "task_id").as_bytes();
                let end = [task, &[0xFF; 5]].concat();
                let index = self.tasks.open_table(BY_TASK).unwrap();
                let table = self.tasks.open_table(TASKS).unwrap();
                let keys = index.range(task..end.as_slice()).unwrap();
                let rows = keys
                    .map(|entry| entry.unwrap().1.value().to_vec())
                    .map(|key| self.row(&key, table.get(key.as_slice()).unwrap().unwrap().value()));
                Self::newest(rows.collect(), usize::MAX)
            }
            "Q9" => {
                let agent = self.code(&self.agents, question, "agent_id");
                let (from, to) = (stamped(&[agent], 0, 0), stamped(&[agent + 1], 0, 0));
                let table = self.tasks.open_table(TASKS).unwrap();
                let mut rows: Vec<Vec<Json>> = Vec::with_capacity(101);
                for entry in table.range(from.as_slice()..to.as_slice()).unwrap().rev() {
                    let (key, value) = entry.unwrap();
                    let row = self.row(key.value(), value.value());
                    // Rows of one stamp are ordered by what is not in the key.
                    if rows.len() >= 100 && rows.last().is_some_and(|last| last[0] != row[0]) {
                        break;
                    }
                    rows.push(row);
                }
                Self::newest(rows, 100)
            }
            "A3" => {
                let metric = self.code(&self.metrics, question, "metric_type");
                let agent = self.code(&self.gauge_agents, question, "agent_id");
                let range = stamped(&[metric, agent], 0, 0)..stamped(&[metric, agent + 1], 0, 0);
                let points = self.metric_values(range);
                let took = millis(start);
                let flat = points.iter().flat_map(|(stamp, value)| [json!(stamp), json!(value)]);
                return Some((took, flat.collect()));
            }
            "A5" => {
                let metric = self.code(&self.metrics, question, "metric_type");
                let table = self.gauges.open_table(GAUGES).unwrap();
                let last = |agent: u32| {
                    let (from, to) =
                        (stamped(&[metric, agent], 0, 0), stamped(&[metric, agent + 1], 0, 0));
                    let found = table.range(from.as_slice()..to.as_slice()).unwrap().next_back();
                    found.map(|entry| (agent as usize, entry.unwrap().1.value()))
                };
                let agents = u32::try_from(self.gauge_agents.len()).unwrap();
                let mut found: Vec<(&str, f64)> = (0..agents)
                    .filter_map(last)
                    .map(|(agent, value)| (self.gauge_agents[agent].as_str(), value))
                    .collect();
                found.sort_unstable_by(|a, b| a.0.cmp(b.0));
                let took = millis(start);
                let flat = found.iter().flat_map(|(agent, value)| [json!(agent), json!(value)]);
                return Some((took, flat.collect()));
            }
            _ => return None,
        };
        Some((millis(start), answer))
    }
}

fn serve(dump: &Dump, folder: &Path) {
    say(&json!({"ready": true, "base": anonymous_bytes(), "version": "4.6.0"}));
    wait();
    let subject = Subject::open(dump, folder);
    say(&json!({"questions": ["Q1", "Q3", "Q8", "Q9", "A3", "A5"]}));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match subject.ask(line.trim()) {
            Some((ms, answer)) => say(&json!({"q": line.trim(), "ms": ms, "answer": answer})),
            None => say(&json!({"q": line.trim(), "error": "a loop over everything"})),
        }
    }
}

fn reopen(folder: &Path) {
    let start = Instant::now();
    let database = Database::open(folder.join("tasks.redb")).unwrap();
    let open_ms = millis(start);
    let start = Instant::now();
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(TASKS).unwrap();
    let rows = table.iter().unwrap().map(|entry| entry.unwrap());
    std::hint::black_box(count_avg_min_max(rows.map(|(_, value)| big(&value.value()[..8]))));
    say(&json!({"open_ms": open_ms, "first_ms": millis(start)}));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dump, folder, mode, rest @ ..] = arguments.as_slice() else {
        panic!("expected DUMP FOLDER MODE");
    };
    let (dump, folder) = (Dump(dump.into()), PathBuf::from(folder));
    std::fs::create_dir_all(&folder).unwrap();
    match mode.as_str() {
        "load" => load(&dump, &folder),
        "batches" => batches(&dump, &folder, rest[0].parse().unwrap()),
        "open" => reopen(&folder),
        _ => serve(&dump, &folder),
    }
}
