//! The write buffer: rows become columns, filed by partition.
//!
//! Owns `Buffer` and `BatchBuilder`. A row is checked against the rules of the data model
//! before anything of it is kept. Dimensions are interned as they come, so a buffer
//! holds each distinct text once and the frame it becomes carries exactly those.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::column::{Batch, Bitmap, Column, ROOM_ROWS_MAX, Strings, Values};
use crate::row::{AgentMetric, SwarmMetric, TaskMetric};
use crate::schema::{ColumnType, Schema, Table};
use crate::time::Partition;

/// A row of any table, borrowed: what travels from the front to the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowRef<'a> {
    /// Of `task_metrics`.
    Task(&'a TaskMetric<'a>),
    /// Of `agent_metrics`.
    Agent(&'a AgentMetric<'a>),
    /// Of `swarm_metrics`.
    Swarm(&'a SwarmMetric<'a>),
}

impl RowRef<'_> {
    /// The table that the row belongs to.
    pub(crate) fn table(&self) -> Table {
        match self {
            Self::Task(_) => Table::Task,
            Self::Agent(_) => Table::Agent,
            Self::Swarm(_) => Table::Swarm,
        }
    }

    /// The row's stamp, in microseconds.
    pub(crate) fn timestamp(&self) -> i64 {
        match self {
            Self::Task(row) => row.timestamp.as_micros(),
            Self::Agent(row) => row.timestamp.as_micros(),
            Self::Swarm(row) => row.timestamp.as_micros(),
        }
    }

    /// Checks the rules of a row.
    pub(crate) fn validate(&self) -> crate::error::Result<()> {
        match self {
            Self::Task(row) => row.validate(),
            Self::Agent(row) => row.validate(),
            Self::Swarm(row) => row.validate(),
        }
    }
}

/// Distinct texts and their codes, in order of arrival.
#[derive(Debug, Default)]
struct Interner {
    strings: Strings,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Interner {
    fn code(&mut self, text: &str) -> u32 {
        let Self { strings, table, hasher } = self;
        let hash = hasher.hash_one(text);
        let entry = table.entry(
            hash,
            |code| strings.get(*code as usize) == text,
            |code| hasher.hash_one(strings.get(*code as usize)),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(slot) => {
                let code = u32::try_from(strings.len()).expect("a batch has under 2^32 rows");
                slot.insert(code);
                strings.push(text);
                code
            }
        }
    }

    fn take(&mut self) -> Strings {
        self.table.clear();
        self.strings.take()
    }
}

#[derive(Debug)]
enum Builder {
    Int { values: Vec<i64>, validity: Bitmap },
    Float(Vec<f64>),
    Bool(Bitmap),
    Dimension { codes: Vec<u32>, interner: Interner },
    Text { strings: Strings, validity: Bitmap },
}

impl Builder {
    fn new(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Timestamp | ColumnType::Int => {
                Self::Int { values: Vec::new(), validity: Bitmap::default() }
            }
            ColumnType::Float => Self::Float(Vec::new()),
            ColumnType::Bool => Self::Bool(Bitmap::default()),
            ColumnType::Dimension => {
                Self::Dimension { codes: Vec::new(), interner: Interner::default() }
            }
            ColumnType::Text | ColumnType::Json => {
                Self::Text { strings: Strings::new(), validity: Bitmap::default() }
            }
        }
    }

    fn int(&mut self, value: Option<i64>) {
        if let Self::Int { values, validity } = self {
            values.push(value.unwrap_or(0));
            validity.push(value.is_some());
        }
    }

    fn float(&mut self, value: f64) {
        if let Self::Float(values) = self {
            values.push(value);
        }
    }

    fn bool(&mut self, value: bool) {
        if let Self::Bool(values) = self {
            values.push(value);
        }
    }

    fn text(&mut self, value: Option<&str>) {
        match self {
            Self::Dimension { codes, interner } => codes.push(interner.code(value.unwrap_or(""))),
            Self::Text { strings, validity } => {
                strings.push(value.unwrap_or(""));
                validity.push(value.is_some());
            }
            _ => {}
        }
    }

    fn take(&mut self) -> Column {
        match self {
            Self::Int { values, validity } => {
                let values = Values::Int(take_vec(values));
                Column::with_validity(values, validity.take())
            }
            Self::Float(values) => Column::new(Values::Float(take_vec(values))),
            Self::Bool(values) => Column::new(Values::Bool(values.take())),
            Self::Dimension { codes, interner } => Column::new(Values::Coded {
                codes: take_vec(codes),
                dictionary: Arc::new(interner.take()),
            }),
            Self::Text { strings, validity } => {
                Column::with_validity(Values::Text(strings.take()), validity.take())
            }
        }
    }
}

/// Takes the values and leaves room for as many: the next batch is likely as large.
fn take_vec<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len().min(ROOM_ROWS_MAX));
    std::mem::replace(values, room)
}

/// Rows of one table and partition, growing column by column.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    schema: &'static Schema,
    columns: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

impl BatchBuilder {
    /// No rows of the table.
    pub(crate) fn new(table: Table) -> Self {
        let schema = table.schema();
        let columns = schema.columns.iter().map(|column| Builder::new(column.kind)).collect();
        Self { schema, columns, rows: 0, bytes: 0 }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the rows take, uncompressed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row that has passed its checks.
    pub(crate) fn push(&mut self, row: RowRef<'_>) {
        match row {
            RowRef::Task(row) => self.push_task(row),
            RowRef::Agent(row) => self.push_gauge(
                row.timestamp.as_micros(),
                row.agent_id,
                row.metric_type,
                row.value,
                row.metadata,
            ),
            RowRef::Swarm(row) => self.push_gauge(
                row.timestamp.as_micros(),
                row.swarm_id,
                row.metric_type,
                row.value,
                row.metadata,
            ),
        }
        self.rows += 1;
    }

    fn push_task(&mut self, row: &TaskMetric<'_>) {
        let [timestamp, task, agent, duration, tokens, success, metadata] = &mut self.columns[..]
        else {
            unreachable!("task_metrics has seven columns")
        };
        timestamp.int(Some(row.timestamp.as_micros()));
        task.text(Some(row.task_id));
        agent.text(Some(row.agent_id));
        duration.int(row.duration_ms);
        tokens.int(row.tokens_used);
        success.bool(row.success);
        metadata.text(row.metadata);
        self.bytes += 40 + row.task_id.len() + row.metadata.map_or(0, str::len);
    }

    fn push_gauge(
        &mut self,
        stamp: i64,
        owner_id: &str,
        metric_type: &str,
        measured: f64,
        json: Option<&str>,
    ) {
        let [timestamp, owner, metric, value, metadata] = &mut self.columns[..] else {
            unreachable!("a gauge table has five columns")
        };
        timestamp.int(Some(stamp));
        owner.text(Some(owner_id));
        metric.text(Some(metric_type));
        value.float(measured);
        metadata.text(json);
        self.bytes += 32 + json.map_or(0, str::len);
    }

    /// Hands out the rows and starts anew.
    pub(crate) fn take(&mut self) -> Batch {
        self.rows = 0;
        self.bytes = 0;
        let columns = self.columns.iter_mut().map(Builder::take).collect();
        Batch { schema: self.schema, columns }
    }
}

/// Rows of one table and one partition, on their way to a file.
#[derive(Clone, Debug)]
pub(crate) struct PartitionBatch {
    /// The table.
    pub(crate) table: Table,
    /// The day.
    pub(crate) partition: Partition,
    /// The rows.
    pub(crate) batch: Arc<Batch>,
    /// About how many bytes they take, uncompressed.
    pub(crate) bytes: usize,
}

/// Rows of all tables and partitions that wait to be committed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    builders: Vec<(Table, Partition, BatchBuilder)>,
    rows: usize,
    bytes: usize,
}

impl Buffer {
    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row that has passed its checks.
    pub(crate) fn push(&mut self, row: RowRef<'_>) {
        let table = row.table();
        let partition = Partition::of_micros(row.timestamp());
        let builder = self.builder(table, partition);
        let before = builder.bytes();
        builder.push(row);
        let grown = builder.bytes() - before;
        self.bytes += grown;
        self.rows += 1;
    }

    fn builder(&mut self, table: Table, partition: Partition) -> &mut BatchBuilder {
        // A buffer rarely holds more than one or two: newest first finds them at once.
        let found = self.builders.iter().rposition(|(t, p, _)| *t == table && *p == partition);
        let index = found.unwrap_or_else(|| {
            self.builders.push((table, partition, BatchBuilder::new(table)));
            self.builders.len() - 1
        });
        &mut self.builders[index].2
    }

    /// Hands out everything, one batch per table and partition, and starts anew.
    pub(crate) fn take(&mut self) -> Vec<PartitionBatch> {
        self.rows = 0;
        self.bytes = 0;
        let batches = self
            .builders
            .iter_mut()
            .filter(|(_, _, builder)| builder.rows() > 0)
            .map(|(table, partition, builder)| PartitionBatch {
                table: *table,
                partition: *partition,
                bytes: builder.bytes(),
                batch: Arc::new(builder.take()),
            })
            .collect();
        // Builders keep their interner's table; a buffer that wandered over many days drops them.
        if self.builders.len() > 8 {
            self.builders.clear();
        }
        batches
    }

    /// Hands out the largest builder's rows.
    pub(crate) fn take_largest(&mut self) -> Option<PartitionBatch> {
        let index = (0..self.builders.len()).max_by_key(|index| self.builders[*index].2.bytes())?;
        let (table, partition, mut builder) = self.builders.swap_remove(index);
        self.rows -= builder.rows();
        let bytes = builder.bytes();
        self.bytes -= bytes;
        (builder.rows() > 0).then(|| PartitionBatch {
            table,
            partition,
            bytes,
            batch: Arc::new(builder.take()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MICROS_PER_DAY, Timestamp};

    fn task(stamp: i64, agent: &str, duration: Option<i64>) -> (i64, String, Option<i64>) {
        (stamp, agent.to_owned(), duration)
    }

    #[test]
    fn rows_are_filed_by_table_and_day() {
        let rows = [
            task(5, "a", Some(7)),
            task(MICROS_PER_DAY, "b", None),
            task(6, "a", None),
            task(-1, "c", Some(1)),
        ];
        let mut buffer = Buffer::default();
        for (stamp, agent, duration) in &rows {
            let row = TaskMetric {
                timestamp: Timestamp::from_micros(*stamp).unwrap(),
                task_id: "t",
                agent_id: agent,
                duration_ms: *duration,
                tokens_used: None,
                success: true,
                metadata: None,
            };
            buffer.push(RowRef::Task(&row));
        }
        assert_eq!(buffer.rows(), 4);
        let batches = buffer.take();
        let days: Vec<_> = batches.iter().map(|b| (b.partition.days(), b.batch.len())).collect();
        assert_eq!(days, [(0, 2), (1, 1), (-1, 1)]);
        let first = &batches[0].batch;
        assert_eq!(first.timestamps(), [5, 6]);
        assert_eq!(first.columns[2].text(1), Some("a"));
        assert_eq!((first.columns[3].int(0), first.columns[3].int(1)), (Some(7), None));
        assert_eq!((buffer.rows(), buffer.bytes(), buffer.take().len()), (0, 0, 0));
    }
}
