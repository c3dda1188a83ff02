//! Random rows through random operations: every method answers as the reference model does,
//! whatever state the rows are in.
//!
//! A run is decided by its seed: the kinds of rows, the options, the operations. Rows are
//! appended one by one, in columns, by imports and through second handles; they are
//! committed, flushed, sealed, and survive reopening and kills. In between, snapshots and
//! snapshots taken earlier are compared with the model. On failure the seed and the
//! operations are printed; `TALLYSTONE_SEED=<seed>` repeats that one run alone.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tallystone::column::{Batch, Bitmap, Column, Strings, Values};
use tallystone::testing::model::ReferenceModel;
use tallystone::testing::workload::{Random, Tasks};
use tallystone::testing::{SimFileSystem, open_store, open_store_read_only};
use tallystone::time::{Clock, MICROS_PER_DAY, MICROS_PER_HOUR, SystemClock};
use tallystone::{
    AgentMetric, AgentRow, Appender, Filter, Import, ImportSource, Limit, MaintenanceRequest,
    MaintenanceWork, Options, ReadMode, Retention, Row, Snapshot, Store, SwarmMetric, SwarmRow,
    Table, TableRetention, TaskMetric, TaskRow, Tiers, Timestamp, Value,
};

/// 2026-11-16, a Monday.
const START: i64 = 1_794_787_200_000_000;

/// A few days after most of the rows.
#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(START + 3 * MICROS_PER_DAY).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).unwrap()
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[below(random, from.len())]
}

fn signed(random: &mut Random, end: i64) -> i64 {
    i64::try_from(random.below(end.unsigned_abs())).unwrap()
}

// ---------------------------------------------------------------------------------------
// Rows

const TEXTS: [&str; 16] = [
    "a",
    "b",
    "agent-1",
    "agent-10",
    "agent-2",
    "\u{e9}",
    "e\u{301}",
    "\u{1f600}\u{200d}\u{1f525}",
    "\u{10ffff}",
    "\0",
    " ",
    "line\nfeed\ttab\r",
    "\"quoted\\\" {json: 1}",
    "\u{202e}right to left \u{5d0}\u{5d1}",
    "null",
    "the long one",
];

const DOCUMENTS: [&str; 9] = [
    "{}",
    "null",
    " [1, 2,\n3 ] ",
    "\"text\"",
    "{\"k\":\"\u{e9}\",\"k\":2}",
    "0",
    "1e400",
    "{\"a\":{\"b\":[[[[]]]]}}",
    "\"\\u0000\\ud83d\\ude00\"",
];

/// What the rows of a run are like.
struct Palette {
    days: Vec<i64>,
    /// Moments of a day that come up again and again; none makes all moments equally likely.
    moments: Vec<i64>,
    ids: Vec<String>,
    metrics: Vec<String>,
    tasks: u64,
    numbers: u64,
    nulls: f64,
    repeats: f64,
    last: Vec<Row>,
}

impl Palette {
    fn new(random: &mut Random) -> Self {
        let days = match random.below(5) {
            0 => vec![START],
            1 => vec![START, START + MICROS_PER_DAY, START - 17 * MICROS_PER_DAY],
            2 => vec![
                START,
                Timestamp::MIN.as_micros(),
                Timestamp::MAX.as_micros() + 1 - MICROS_PER_DAY,
                -MICROS_PER_DAY,
                0,
            ],
            // More days than a process keeps active segments open for.
            3 => (0..40).map(|day| START - day * MICROS_PER_DAY).collect(),
            _ => (0..3).map(|day| START + (day - 1) * MICROS_PER_DAY).collect(),
        };
        let moments = match random.below(3) {
            0 => Vec::new(),
            1 => vec![0, MICROS_PER_HOUR - 1, MICROS_PER_HOUR, MICROS_PER_DAY - 1],
            _ => (0..12).map(|_| signed(random, MICROS_PER_DAY)).collect(),
        };
        let mut ids: Vec<String> = match random.below(4) {
            0 => (0..2_000).map(|agent| format!("agent_{agent:04}")).collect(),
            1 => vec!["alone".to_owned()],
            _ => TEXTS.iter().map(|text| (*text).to_owned()).collect(),
        };
        if random.chance(0.2) {
            ids.push("x".repeat(64 << 10));
            ids.push("\u{1f600}".repeat(16 << 10));
        }
        let metrics = TEXTS[..1 + below(random, TEXTS.len())].iter();
        Self {
            days,
            moments,
            ids,
            metrics: metrics.map(|text| (*text).to_owned()).collect(),
            tasks: *pick(random, &[1, 20, 1 << 40]),
            numbers: random.below(5),
            nulls: *pick(random, &[0.0, 0.1, 0.5, 1.0]),
            repeats: *pick(random, &[0.0, 0.1, 0.4]),
            last: Vec::new(),
        }
    }

    fn stamp(&self, random: &mut Random) -> Timestamp {
        let moment = if self.moments.is_empty() || random.chance(0.1) {
            signed(random, MICROS_PER_DAY)
        } else {
            *pick(random, &self.moments)
        };
        Timestamp::from_micros(*pick(random, &self.days) + moment).unwrap()
    }

    fn int(&self, random: &mut Random) -> Option<i64> {
        if random.chance(self.nulls) {
            return None;
        }
        Some(match self.numbers {
            0 => signed(random, 10),
            1 => signed(random, 1 << 20) - 1_000,
            2 => *pick(random, &[i64::MIN, i64::MAX, i64::MIN + 1, i64::MAX - 1, 0, -1, 1]),
            3 => random.bits().cast_signed(),
            _ => 1_500,
        })
    }

    fn float(&self, random: &mut Random) -> f64 {
        let extremes = [
            0.0,
            -0.0,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            -f64::MIN_POSITIVE,
            f64::from_bits(1),
            -f64::from_bits(1),
            f64::EPSILON,
        ];
        match self.numbers {
            0 => *pick(random, &[0.0, -0.0, 1.5, -1.5]),
            1 => (random.unit() * 10_000.0).round() / 100.0,
            2 => *pick(random, &extremes),
            3 => {
                // Any finite bits.
                let value = f64::from_bits(random.bits());
                if value.is_finite() { value } else { 1e16 }
            }
            _ => *pick(random, &[1e16, -1e16, 1.0, 0.1, 1e-9]),
        }
    }

    fn metadata(&self, random: &mut Random) -> Option<String> {
        if random.chance(self.nulls.max(0.3)) {
            return None;
        }
        Some(match random.below(200) {
            0 => format!("{}{}", "[".repeat(127), "]".repeat(127)),
            1 => format!("\"{}\"", "y".repeat(100_000)),
            2..100 => format!("{{\"n\":{}}}", random.below(1_000)),
            _ => (*pick(random, &DOCUMENTS)).to_owned(),
        })
    }

    fn row(&mut self, table: Table, random: &mut Random) -> Row {
        if random.chance(self.repeats)
            && let Some(row) = self.last.iter().find(|row| table_of(row) == table)
        {
            return row.clone();
        }
        let timestamp = self.stamp(random);
        let id = pick(random, &self.ids).clone();
        let metadata = self.metadata(random);
        let row = match table {
            Table::Task => Row::Task(TaskRow {
                timestamp,
                task_id: format!("task-{}", random.below(self.tasks)),
                agent_id: id,
                duration_ms: self.int(random),
                tokens_used: self.int(random),
                success: random.chance(0.8),
                metadata,
            }),
            Table::Agent => Row::Agent(AgentRow {
                timestamp,
                agent_id: id,
                metric_type: pick(random, &self.metrics).clone(),
                value: self.float(random),
                metadata,
            }),
            Table::Swarm => Row::Swarm(SwarmRow {
                timestamp,
                swarm_id: id,
                metric_type: pick(random, &self.metrics).clone(),
                value: self.float(random),
                metadata,
            }),
        };
        self.last.insert(0, row.clone());
        self.last.truncate(20);
        row
    }

    fn rows(&mut self, random: &mut Random, most: usize) -> Vec<Row> {
        let only = random.chance(0.5).then(|| *pick(random, &Table::ALL));
        let count = 1 + below(random, most);
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let table = only.unwrap_or_else(|| *pick(random, &Table::ALL));
            rows.push(self.row(table, random));
        }
        rows
    }
}

fn table_of(row: &Row) -> Table {
    match row {
        Row::Task(_) => Table::Task,
        Row::Agent(_) => Table::Agent,
        Row::Swarm(_) => Table::Swarm,
    }
}

fn task(row: &TaskRow) -> TaskMetric<'_> {
    TaskMetric {
        timestamp: row.timestamp,
        task_id: &row.task_id,
        agent_id: &row.agent_id,
        duration_ms: row.duration_ms,
        tokens_used: row.tokens_used,
        success: row.success,
        metadata: row.metadata.as_deref(),
    }
}

fn agent(row: &AgentRow) -> AgentMetric<'_> {
    AgentMetric {
        timestamp: row.timestamp,
        agent_id: &row.agent_id,
        metric_type: &row.metric_type,
        value: row.value,
        metadata: row.metadata.as_deref(),
    }
}

fn swarm(row: &SwarmRow) -> SwarmMetric<'_> {
    SwarmMetric {
        timestamp: row.timestamp,
        swarm_id: &row.swarm_id,
        metric_type: &row.metric_type,
        value: row.value,
        metadata: row.metadata.as_deref(),
    }
}

fn append(appender: &mut Appender, row: &Row) {
    match row {
        Row::Task(row) => appender.append_task(&task(row)),
        Row::Agent(row) => appender.append_agent(&agent(row)),
        Row::Swarm(row) => appender.append_swarm(&swarm(row)),
    }
    .unwrap();
}

fn record(store: &Store, row: &Row) {
    match row {
        Row::Task(row) => store.record_task(&task(row)),
        Row::Agent(row) => store.record_agent(&agent(row)),
        Row::Swarm(row) => store.record_swarm(&swarm(row)),
    }
    .unwrap();
}

fn import(import: &mut Import, row: &Row) {
    match row {
        Row::Task(row) => import.append_task(&task(row)),
        Row::Agent(row) => import.append_agent(&agent(row)),
        Row::Swarm(row) => import.append_swarm(&swarm(row)),
    }
    .unwrap();
}

/// Rows of one table as columns: texts plain or coded.
fn batch_of(table: Table, rows: &[Row], random: &mut Random) -> Batch {
    let stamps = rows.iter().map(|row| row.timestamp().as_micros()).collect();
    let metadata = rows.iter().map(|row| match row {
        Row::Task(row) => row.metadata.as_deref(),
        Row::Agent(row) => row.metadata.as_deref(),
        Row::Swarm(row) => row.metadata.as_deref(),
    });
    let metadata = Column::with_validity(
        Values::Text(metadata.clone().map(Option::unwrap_or_default).collect()),
        metadata.map(|text| text.is_some()).collect(),
    );
    let ids = rows.iter().map(|row| match row {
        Row::Task(row) => row.agent_id.as_str(),
        Row::Agent(row) => &row.agent_id,
        Row::Swarm(row) => &row.swarm_id,
    });
    let mut columns = vec![Column::new(Values::Int(stamps))];
    if table == Table::Task {
        let tasks: Vec<&TaskRow> = rows
            .iter()
            .filter_map(|row| if let Row::Task(row) = row { Some(row) } else { None })
            .collect();
        let texts = tasks.iter().map(|row| row.task_id.as_str()).collect();
        columns.push(Column::new(Values::Text(texts)));
        columns.push(dimension(&ids.collect::<Vec<_>>(), random));
        columns.push(ints(tasks.iter().map(|row| row.duration_ms).collect(), random));
        columns.push(ints(tasks.iter().map(|row| row.tokens_used).collect(), random));
        let success: Bitmap = tasks.iter().map(|row| row.success).collect();
        columns.push(Column::new(Values::Bool(success)));
    } else {
        let gauges = rows.iter().map(|row| match row {
            Row::Task(row) => (row.agent_id.as_str(), 0.0),
            Row::Agent(row) => (row.metric_type.as_str(), row.value),
            Row::Swarm(row) => (row.metric_type.as_str(), row.value),
        });
        let (metrics, values): (Vec<&str>, Vec<f64>) = gauges.unzip();
        columns.push(dimension(&ids.collect::<Vec<_>>(), random));
        columns.push(dimension(&metrics, random));
        columns.push(Column::new(Values::Float(values)));
    }
    columns.push(metadata);
    Batch { schema: table.schema(), columns }
}

fn ints(values: Vec<Option<i64>>, random: &mut Random) -> Column {
    let validity = values.iter().map(Option::is_some).collect();
    // What stands in the place of a null is nobody's business.
    let null = *pick(random, &[0, 0, 4_711]);
    let values = values.into_iter().map(|value| value.unwrap_or(null)).collect();
    Column::with_validity(Values::Int(values), validity)
}

fn dimension(texts: &[&str], random: &mut Random) -> Column {
    if random.chance(0.4) {
        return Column::new(Values::Text(texts.iter().copied().collect()));
    }
    // In order of appearance, after some that no row has; some come twice.
    let mut entries = vec!["unused", "of no row", "unused"];
    let codes = texts.iter().map(|text| {
        let known = entries.iter().position(|have| have == text);
        let known = known.filter(|_| !random.chance(0.02)).unwrap_or_else(|| {
            entries.push(text);
            entries.len() - 1
        });
        u32::try_from(known).unwrap()
    });
    let codes = codes.collect();
    let dictionary: Strings = entries.into_iter().collect();
    Column::new(Values::Coded { codes, dictionary: Arc::new(dictionary) })
}

// ---------------------------------------------------------------------------------------
// Runs

/// Where the files of a run are.
enum Place {
    Simulated(SimFileSystem),
    Real(tempfile::TempDir),
}

impl Place {
    fn open(&self, options: &Options) -> Store {
        match self {
            Self::Simulated(fs) => open_store(fs, Path::new("/store"), options.clone()),
            Self::Real(dir) => Store::open_with(dir.path().join("store"), options.clone()),
        }
        .unwrap()
    }

    fn open_read_only(&self, options: &Options) -> Store {
        match self {
            Self::Simulated(fs) => open_store_read_only(fs, Path::new("/store"), options.clone()),
            Self::Real(dir) => Store::open_read_only(dir.path().join("store")),
        }
        .unwrap()
    }
}

struct Run {
    seed: u64,
    random: Random,
    palette: Palette,
    options: Options,
    place: Place,
    /// Taken out only while it is being replaced.
    handles: Option<(Store, Appender)>,
    /// What is committed.
    model: ReferenceModel,
    /// What is accepted but not committed.
    waiting: Vec<Row>,
    /// Snapshots taken before, and what they must go on to see.
    held: Vec<(Snapshot, ReferenceModel)>,
    sources: u128,
    story: String,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} (TALLYSTONE_SEED repeats it):\n{}", self.seed, self.story);
        }
    }
}

impl Run {
    fn new(seed: u64, place: Place, read_mode: ReadMode) -> Self {
        let mut random = Random::new(seed);
        let block_rows = *pick(&mut random, &[1, 8, 32, 64 << 10]);
        let options = Options {
            // Either nothing is committed unless asked for, or almost everything.
            buffer_rows: *pick(&mut random, &[1_000, 1_000, 1_000, 7]),
            flush_interval: Duration::from_secs(3_600),
            roll_rows: *pick(&mut random, &[50, 150, 4 << 20]),
            roll_bytes: *pick(&mut random, &[4 << 10, 128 << 20]),
            block_rows,
            small_hour_rows: (*pick(&mut random, &[1, 8, 4_096])).min(block_rows),
            unlink_grace: Duration::ZERO,
            result_cache: *pick(&mut random, &[0, 3, 100]),
            read_mode,
            clock: match &place {
                Place::Simulated(_) => Arc::new(Fixed),
                // The clock that the times of real directories are of.
                Place::Real(_) => Arc::new(SystemClock),
            },
            ..Options::default()
        };
        let store = place.open(&options);
        store.keep_everything().unwrap();
        let appender = store.appender().unwrap();
        Self {
            seed,
            palette: Palette::new(&mut random),
            random,
            options,
            place,
            handles: Some((store, appender)),
            model: ReferenceModel::new(),
            waiting: Vec::new(),
            held: Vec::new(),
            sources: 0,
            story: String::new(),
        }
    }

    fn store(&self) -> &Store {
        &self.handles.as_ref().unwrap().0
    }

    fn note(&mut self, what: &str) {
        let (committed, waiting) = (self.model.rows().len(), self.waiting.len());
        writeln!(self.story, "  {what}: {committed} rows committed, {waiting} wait").unwrap();
    }

    fn committed(&mut self) {
        self.waiting.drain(..).for_each(|row| self.model.push(row));
    }

    fn commit(&mut self) {
        self.store().commit().unwrap();
        self.committed();
    }

    /// Appends rows, which wait, unless buffers are so small that nobody knows.
    fn append(&mut self) {
        let rows = self.palette.rows(&mut self.random, 40);
        let by_record = self.random.chance(0.3);
        let (store, appender) = self.handles.as_mut().unwrap();
        for row in &rows {
            if by_record { record(store, row) } else { append(appender, row) }
        }
        self.waiting.extend(rows);
        self.note("append");
        if self.options.buffer_rows < 100 {
            self.commit();
        }
    }

    fn append_columns(&mut self) {
        let table = *pick(&mut self.random, &Table::ALL);
        let count = below(&mut self.random, 80);
        let rows: Vec<Row> =
            (0..count).map(|_| self.palette.row(table, &mut self.random)).collect();
        let batch = batch_of(table, &rows, &mut self.random);
        let (_, appender) = self.handles.as_mut().unwrap();
        appender.append_columns(table, batch).unwrap();
        self.waiting.extend(rows);
        self.note("append columns");
        self.commit();
    }

    /// Rows of an import, which may be taken back.
    fn import(&mut self) {
        let rows = self.palette.rows(&mut self.random, 40);
        self.sources += 1;
        let source = ImportSource {
            name: format!("source {}", self.sources),
            hash: self.sources,
            crc32: 0,
            bytes: 1,
            again: false,
        };
        let mut begun = self.store().begin_import(source).unwrap();
        rows.iter().for_each(|row| import(&mut begun, row));
        match self.random.below(3) {
            0 => drop(begun),
            1 => {
                let report = begun.commit().unwrap();
                self.store().undo_import(&report.id).unwrap();
            }
            _ => {
                assert_eq!(begun.commit().unwrap().rows, rows.len() as u64);
                rows.into_iter().for_each(|row| self.model.push(row));
            }
        }
        self.note("import");
    }

    /// Another handle on the same store writes, while this one goes on.
    fn second_handle(&mut self) {
        let rows = self.palette.rows(&mut self.random, 30);
        let other = self.place.open(&self.options);
        let mut appender = other.appender().unwrap();
        rows.iter().for_each(|row| append(&mut appender, row));
        match self.random.below(3) {
            0 => appender.flush().unwrap(),
            1 => other.seal().unwrap(),
            _ => {
                drop(appender);
                other.close().unwrap();
            }
        }
        drop(other);
        rows.into_iter().for_each(|row| self.model.push(row));
        self.note("second handle");
    }

    /// Lets all days that are over become archives, in which every row stays.
    fn archive(&mut self) {
        self.commit();
        let tiers = Tiers {
            detailed_days: *pick(&mut self.random, &[0, 1, 20]),
            archive_days: Tiers::DAYS_MAX,
            hourly_days: 0,
            daily_days: 0,
        };
        let rule = TableRetention::Tiers(tiers);
        let retention = Retention { task: rule, agent: rule, swarm: rule, max_bytes: None };
        self.store().set_retention(&retention).unwrap();
        let what = *pick(&mut self.random, &[MaintenanceWork::All, MaintenanceWork::Compact]);
        let request = MaintenanceRequest { what, accept_clock: true, dry_run: false };
        let report = self.store().maintain(&request).unwrap();
        assert!(report.refused.is_none() && report.postponed.is_empty(), "{report:?}");
        // What is accepted from now on may be of any age.
        self.store().keep_everything().unwrap();
        self.note("archive");
    }

    fn reopen(&mut self) {
        let (store, appender) = self.handles.take().unwrap();
        if self.random.chance(0.5) {
            drop(appender);
            store.close().unwrap();
        } else {
            // Whoever comes last closes it.
            drop(store);
            drop(appender);
        }
        self.committed();
        self.open();
        self.note("reopen");
    }

    fn open(&mut self) {
        let store = self.place.open(&self.options);
        let appender = store.appender().unwrap();
        self.handles = Some((store, appender));
    }

    /// What was committed stays, what was not is gone. Real files cannot be killed in here.
    fn kill(&mut self) {
        let Place::Simulated(fs) = &self.place else { return self.reopen() };
        let image = fs.kill_image();
        self.handles = None;
        self.place = Place::Simulated(image);
        self.waiting.clear();
        self.open();
        self.note("kill");
    }

    fn hold(&mut self) {
        if self.held.len() > 1 {
            let (snapshot, model) = self.held.remove(0);
            self.compare(&snapshot, &model);
        }
        let snapshot = self.store().snapshot().unwrap();
        self.held.push((snapshot, self.model.clone()));
        self.note("hold");
    }

    /// Pages through a table while it is sealed and opened again.
    fn page(&mut self) {
        self.commit();
        let table = *pick(&mut self.random, &Table::ALL);
        let filter = self.filter(table);
        let expected = self.model.matching(table, &filter);
        let size = 1 + expected.len() / 5;
        let mut rows = Vec::new();
        let mut cursor = None;
        for step in 0.. {
            let asked = Filter { offset: 0, cursor, ..filter.clone().limit(size) };
            let page = self.store().snapshot().unwrap().metrics(table, &asked).unwrap();
            rows.extend(page.rows);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
            match step {
                0 => self.store().seal().unwrap(),
                1 => self.reopen(),
                2 => self.kill(),
                _ => {}
            }
        }
        assert_eq!(rows, expected, "pages of {table} {filter:?} while it is sealed");
        self.note("page");
    }

    fn step(&mut self) {
        match self.random.below(21) {
            20 => self.archive(),
            0..5 => self.append(),
            5..8 => self.append_columns(),
            8..10 => {
                self.commit();
                self.note("commit");
            }
            10 => {
                self.store().flush().unwrap();
                self.committed();
                self.note("flush");
            }
            11..13 => {
                self.store().seal().unwrap();
                self.committed();
                self.note("seal");
            }
            13 => self.reopen(),
            14 | 15 => self.kill(),
            16 => self.import(),
            17 => self.second_handle(),
            18 => self.hold(),
            _ => self.page(),
        }
        if self.random.chance(0.7) {
            compare_counts(&self.store().snapshot().unwrap(), &self.model);
        }
        if self.random.chance(0.3) {
            let snapshot = if self.random.chance(0.2) {
                self.place.open_read_only(&self.options).snapshot().unwrap()
            } else {
                self.store().snapshot().unwrap()
            };
            let model = std::mem::take(&mut self.model);
            self.compare(&snapshot, &model);
            self.model = model;
        }
    }

    /// A filter whose edges and texts are near the rows.
    fn filter(&mut self, table: Table) -> Filter {
        let random = &mut self.random;
        let rows = self.model.rows();
        let near = |random: &mut Random| {
            if rows.is_empty() { None } else { Some(pick(random, rows).clone()) }
        };
        let mut edges: Vec<Timestamp> = Vec::new();
        for _ in 0..random.below(3) {
            let Some(row) = near(random) else { break };
            let stamp = row.timestamp().as_micros();
            let step = *pick(random, &[1, MICROS_PER_HOUR, MICROS_PER_DAY]);
            let stamp = stamp - stamp.rem_euclid(step) + signed(random, 2);
            edges.extend(Timestamp::from_micros(stamp).ok());
        }
        edges.sort();
        let id = match near(random) {
            _ if random.chance(0.65) => None,
            _ if random.chance(0.1) => Some("nobody".to_owned()),
            Some(Row::Task(row)) => Some(row.agent_id),
            Some(Row::Agent(row)) => Some(row.agent_id),
            Some(Row::Swarm(row)) => Some(row.swarm_id),
            None => None,
        };
        let task_id = match near(random) {
            Some(Row::Task(row)) if random.chance(0.15) => Some(row.task_id),
            _ => None,
        };
        let metric = random.chance(0.3).then(|| pick(random, &self.palette.metrics).clone());
        let is_task = table == Table::Task;
        Filter {
            from: edges.first().copied().filter(|_| edges.len() == 2 || random.chance(0.5)),
            to: edges.last().copied().filter(|_| edges.len() == 2 || random.chance(0.5)),
            task_id: task_id.filter(|_| is_task),
            agent_id: id.clone().filter(|_| table != Table::Swarm),
            swarm_id: id.filter(|_| table == Table::Swarm),
            metric_type: metric.filter(|_| !is_task),
            success: Some(random.chance(0.5)).filter(|_| is_task && random.chance(0.2)),
            limit: *pick(random, &[Limit::Default, Limit::Rows(3), Limit::Rows(40), Limit::All]),
            offset: *pick(random, &[0, 0, 0, 1, 25]),
            strict: random.chance(0.5),
            ..Filter::default()
        }
    }

    fn compare(&mut self, snapshot: &Snapshot, model: &ReferenceModel) {
        compare_counts(snapshot, model);
        for _ in 0..2 {
            let table = *pick(&mut self.random, &Table::ALL);
            let filter = self.filter(table);
            model.check(snapshot, table, &filter);
            compare_bits(snapshot, model, table, &filter);
        }
    }

    /// The end of a run: all tables in every state, and every file verified.
    fn finish(mut self) {
        self.commit();
        for sealed in [false, true] {
            let snapshot = self.store().snapshot().unwrap();
            for table in Table::ALL {
                self.model.check(&snapshot, table, &Filter::new());
                compare_bits(&snapshot, &self.model, table, &Filter::new());
            }
            let report = self.store().verify(true).unwrap();
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            assert_eq!(report.rows, self.model.rows().len() as u64);
            if !sealed {
                self.store().seal().unwrap();
                self.note("sealed at the end");
            }
        }
        for (snapshot, model) in std::mem::take(&mut self.held) {
            self.compare(&snapshot, &model);
        }
        self.store().close().unwrap();
    }
}

fn compare_counts(snapshot: &Snapshot, model: &ReferenceModel) {
    for table in Table::ALL {
        let count = model.rows().iter().filter(|row| table_of(row) == table).count();
        assert_eq!(snapshot.rows(table), count as u64, "rows of {table}");
    }
}

/// Rows and extremes bit for bit: `==` does not tell -0.0 from 0.0.
fn compare_bits(snapshot: &Snapshot, model: &ReferenceModel, table: Table, filter: &Filter) {
    fn value(row: &Row) -> Option<u64> {
        match row {
            Row::Task(_) => None,
            Row::Agent(row) => Some(row.value.to_bits()),
            Row::Swarm(row) => Some(row.value.to_bits()),
        }
    }
    if table == Table::Task {
        return;
    }
    let scalar = Filter { limit: Limit::Default, offset: 0, ..filter.clone() };
    let all = scalar.clone().all();
    let got = snapshot.metrics(table, &all).unwrap().rows;
    let expected = model.matching(table, &all);
    let bits = |rows: &[Row]| rows.iter().map(value).collect::<Vec<_>>();
    assert_eq!(bits(&got), bits(&expected), "bits of {table} {filter:?}");
    let got = snapshot.aggregate(table, "value", &scalar).unwrap().value;
    let expected = model.aggregate(table, "value", &scalar);
    let bits = |value: Option<Value>| value.map(|value| value.as_f64().to_bits());
    assert_eq!(bits(got.min), bits(expected.min), "smallest of {table} {filter:?}");
    assert_eq!(bits(got.max), bits(expected.max), "largest of {table} {filter:?}");
    let last = |last: Option<tallystone::Last>| bits(last.map(|last| last.value));
    assert_eq!(last(got.last), last(expected.last), "newest of {table} {filter:?}");
}

/// The seeds of a test, or the one that is asked for.
fn seeds(range: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("TALLYSTONE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => range.collect(),
    }
}

fn run(seed: u64, steps: usize, place: Place, read_mode: ReadMode) {
    let mut run = Run::new(seed, place, read_mode);
    for _ in 0..steps {
        run.step();
    }
    run.finish();
}

#[test]
fn random_runs_on_simulated_files_answer_like_the_model() {
    for seed in seeds(0..36) {
        let mode = if seed % 2 == 0 { ReadMode::Mapped } else { ReadMode::Copied };
        run(seed, 30, Place::Simulated(SimFileSystem::with_seed(seed)), mode);
    }
}

#[test]
fn random_runs_on_real_files_answer_like_the_model() {
    for seed in seeds(1_000..1_006) {
        for mode in [ReadMode::Mapped, ReadMode::Copied] {
            run(seed, 20, Place::Real(tempfile::tempdir().unwrap()), mode);
        }
    }
}

#[test]
fn a_week_of_a_fleet_answers_like_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    store.keep_everything().unwrap();
    let mut appender = store.appender().unwrap();
    let mut tasks = Tasks::new(30_000, 7);
    let mut sealed = false;
    while let Some(batch) = tasks.next_batch(5_000) {
        appender.append_columns(Table::Task, batch).unwrap();
        if !std::mem::replace(&mut sealed, true) {
            store.seal().unwrap();
        }
    }
    appender.flush().unwrap();
    let mut again = Tasks::new(30_000, 7);
    let mut model = ReferenceModel::new();
    while let Some(batch) = again.next_batch(5_000) {
        rows_of(&batch).into_iter().for_each(|row| model.push(row));
    }
    let stamp = |hour: i64| Timestamp::from_micros(START + hour * MICROS_PER_HOUR + 7).unwrap();
    let filters = [
        Filter::new(),
        Filter::new().between(stamp(20), stamp(75)),
        Filter::new().agent("agent_001").success(true),
    ];
    for filter in &filters {
        model.check(&store.snapshot().unwrap(), Table::Task, filter);
    }
    store.seal().unwrap();
    for filter in &filters {
        model.check(&store.snapshot().unwrap(), Table::Task, filter);
    }
}

fn rows_of(batch: &Batch) -> Vec<Row> {
    let columns = &batch.columns;
    let row = |row: usize| {
        Row::Task(TaskRow {
            timestamp: Timestamp::from_micros(columns[0].int(row).unwrap()).unwrap(),
            task_id: columns[1].text(row).unwrap().to_owned(),
            agent_id: columns[2].text(row).unwrap().to_owned(),
            duration_ms: columns[3].int(row),
            tokens_used: columns[4].int(row),
            success: columns[5].bool(row).unwrap(),
            metadata: columns[6].text(row).map(str::to_owned),
        })
    };
    (0..batch.len()).map(row).collect()
}
