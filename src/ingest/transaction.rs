//! The import transaction: all rows of a source, or none (spec 8.6).
//!
//! Rows are filed by partition in memory; when they take much of it, the largest
//! partition is sealed into a segment that carries the transaction's id. Such a segment
//! counts only once `txn/<id>` is there, and that appears last.

use crate::error::{Error, ErrorKind, Result};
use crate::format::id::{FileKind, Id};
use crate::ingest::appender::Door;
use crate::ingest::buffer::{Buffer, PartitionBatch, RowRef};
use crate::report::ImportReport;
use crate::row::{AgentMetric, SwarmMetric, TaskMetric};
use crate::segment::files::seal_rows;
use crate::segment::files::{FileName, StoreRoot};
use crate::store_files::generation::bump;
use crate::store_files::txn::{TxnInProgress, TxnRecord, list_committed};
use std::fmt;
use std::sync::Arc;

/// Memory for rows that wait to be sealed.
const BUFFER_BYTES: usize = 32 << 20;

/// What an import reads, to tell a source that was imported before.
#[derive(Clone, Debug)]
pub struct ImportSource {
    /// Name, for reports; never used as a path.
    pub name: String,
    /// XXH3-128 of its bytes.
    pub hash: u128,
    /// CRC-32 (IEEE) of its bytes.
    pub crc32: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Import it although it was imported before.
    pub again: bool,
}

/// An import under way; dropped without [`commit`](Self::commit), nothing of it is kept.
#[derive(Debug)]
pub struct Import {
    root: StoreRoot,
    door: Arc<Door>,
    txn: Option<TxnInProgress>,
    id: Id,
    source: ImportSource,
    buffer: Buffer,
    rows: [u64; 3],
    files: Vec<(FileName, std::path::PathBuf)>,
    after: AfterCommit,
}

/// What is to be done when an import has been committed; the store's business.
pub(crate) struct AfterCommit(pub(crate) Box<dyn FnOnce() + Send + Sync>);

impl fmt::Debug for AfterCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterCommit")
    }
}

impl Import {
    /// Begins an import.
    ///
    /// # Errors
    ///
    /// `AlreadyImported` for a source that was imported before, unless `again`; `Io`.
    pub(crate) fn begin(
        root: &StoreRoot,
        door: &Arc<Door>,
        source: ImportSource,
        after: AfterCommit,
    ) -> Result<Self> {
        let before = list_committed(root.fs.as_ref(), &root.dir)?;
        let same = before.records.iter().find(|record| {
            (record.source_crc32, record.source_xxh3, record.bytes)
                == (source.crc32, source.hash, source.bytes)
        });
        if let (Some(record), false) = (same, source.again) {
            return Err(Error::new(
                ErrorKind::AlreadyImported,
                format!("{}: the same bytes were imported as {}", source.name, record.id),
            )
            .with_remedy("import --again takes them once more, import --undo takes them back"));
        }
        let txn = TxnInProgress::begin(root.fs.as_ref(), &root.dir)?;
        Ok(Self {
            root: root.clone(),
            door: Arc::clone(door),
            id: txn.id(),
            txn: Some(txn),
            source,
            buffer: Buffer::default(),
            rows: [0; 3],
            files: Vec::new(),
            after,
        })
    }

    /// Id of the import, as undoing takes it.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    fn append(&mut self, row: RowRef<'_>) -> Result<()> {
        self.door.check_row(&row)?;
        self.rows[row.table().index()] += 1;
        self.buffer.push(row);
        if self.buffer.bytes() >= BUFFER_BYTES
            && let Some(largest) = self.buffer.take_largest()
        {
            self.write(&largest)?;
        }
        Ok(())
    }

    /// Adds a task.
    ///
    /// # Errors
    ///
    /// `BadInput`, `PastRetention` for the row, which is not added; `Io`, `NoSpace`.
    pub fn append_task(&mut self, row: &TaskMetric<'_>) -> Result<()> {
        self.append(RowRef::Task(row))
    }

    /// Adds a gauge of an agent.
    ///
    /// # Errors
    ///
    /// As [`append_task`](Self::append_task).
    pub fn append_agent(&mut self, row: &AgentMetric<'_>) -> Result<()> {
        self.append(RowRef::Agent(row))
    }

    /// Adds a gauge of a swarm.
    ///
    /// # Errors
    ///
    /// As [`append_task`](Self::append_task).
    pub fn append_swarm(&mut self, row: &SwarmMetric<'_>) -> Result<()> {
        self.append(RowRef::Swarm(row))
    }

    fn write(&mut self, rows: &PartitionBatch) -> Result<()> {
        let place = self.root.place(rows.table, rows.partition);
        place.ensure_dir(self.root.fs.as_ref())?;
        let batches = std::slice::from_ref(rows.batch.as_ref());
        let sealed =
            seal_rows(&self.root, rows.table, rows.partition, &[], Some(self.id), batches)?;
        let name = FileName::new(sealed.uuid, FileKind::Sealed);
        let path = place.dir().join(name.to_string());
        let durable = sealed.is_durable.then_some(()).ok_or_else(|| {
            Error::new(ErrorKind::Io, "the directory could not be synced").with_path(&path)
        });
        self.files.push((name, path));
        durable
    }

    /// Makes all of it visible and durable at once.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`: nothing of it is kept.
    pub fn commit(mut self) -> Result<ImportReport> {
        self.door.check_process()?;
        for rows in self.buffer.take() {
            self.write(&rows)?;
        }
        let record = TxnRecord {
            id: self.id,
            source: self.source.name.clone(),
            source_crc32: self.source.crc32,
            source_xxh3: self.source.hash,
            bytes: self.source.bytes,
            rows: self.rows,
            files: self.files.iter().map(|(name, _)| name.uuid).collect(),
            created: self.root.now(),
        };
        let fs = Arc::clone(&self.root.fs);
        let txn = self.txn.take().ok_or_else(|| Error::new(ErrorKind::Closed, "import ended"))?;
        // From here on the files may count: they are not taken back.
        let files = std::mem::take(&mut self.files);
        if let Err(error) = txn.commit(fs.as_ref(), &record) {
            drop(files);
            return Err(error);
        }
        bump(fs.as_ref(), &self.root.dir)?;
        (std::mem::replace(&mut self.after, AfterCommit(Box::new(|| ()))).0)();
        Ok(record.report())
    }
}

impl Drop for Import {
    /// Takes back what was written. What this cannot remove, a later sweep does.
    fn drop(&mut self) {
        if self.door.check_process().is_err() {
            return;
        }
        for (_, path) in self.files.drain(..) {
            let _ = self.root.fs.remove(&path);
        }
        if let Some(txn) = self.txn.take() {
            let _ = txn.abort(self.root.fs.as_ref());
        }
    }
}
