//! Options of a store: units, defaults, validation.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits;
use crate::time::{Clock, SystemClock};

/// When a background commit is made durable. `flush()` is durable in every mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Each background commit is synced before the next is written.
    #[default]
    Sync,
    /// Synced at most this long after the commit.
    Interval(Duration),
    /// Left to the operating system.
    Os,
}

/// How the bytes of sealed segments reach a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// Mapped; checksums are checked at first touch in a process.
    #[default]
    Mapped,
    /// Read into memory and checked at every load; no signal can be raised by a file that
    /// something else truncates.
    Copied,
}

/// Options of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows after which a buffer is committed (default 100).
    pub buffer_rows: usize,
    /// Time after which a buffer is committed (default 5 s).
    pub flush_interval: Duration,
    /// When background commits are synced.
    pub durability: Durability,
    /// Rows after which an active segment is sealed and a new one begun (default 4 Mi).
    pub roll_rows: u64,
    /// Bytes after which an active segment is sealed and a new one begun (default 128 MiB).
    pub roll_bytes: u64,
    /// Time after its day's end at which an active segment is sealed (default 10 min).
    pub roll_delay: Duration,
    /// Batches that may wait for the committer (default 64).
    pub channel_batches: usize,
    /// Bytes that may wait for the committer (default 16 MiB).
    pub channel_bytes: usize,
    /// Most rows of a block of a sealed segment (default 64 Ki).
    pub block_rows: usize,
    /// Hours with fewer rows share a block (default 4,096).
    pub small_hour_rows: usize,
    /// Level of zstd in archives, 1 to 22 (default 6).
    pub archive_level: i32,
    /// Time that replaced files stay, so that readers that listed them can open them
    /// (default 10 min).
    pub unlink_grace: Duration,
    /// Answers that the result cache keeps (default 100; 0 turns it off).
    pub result_cache: usize,
    /// How sealed segments are read.
    pub read_mode: ReadMode,
    /// Write on a network file system, although locks and syncs may not hold there.
    pub network_file_system: bool,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffer_rows: 100,
            flush_interval: Duration::from_secs(5),
            durability: Durability::Sync,
            roll_rows: 4 << 20,
            roll_bytes: 128 << 20,
            roll_delay: Duration::from_secs(600),
            channel_batches: 64,
            channel_bytes: 16 << 20,
            block_rows: limits::BLOCK_ROWS_MAX,
            small_hour_rows: limits::SMALL_HOUR_ROWS,
            archive_level: 6,
            unlink_grace: Duration::from_secs(600),
            result_cache: limits::RESULT_CACHE_ENTRIES,
            read_mode: ReadMode::Mapped,
            network_file_system: false,
            clock: Arc::new(SystemClock),
        }
    }
}

impl Options {
    /// Checks every option.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the option, the value and the range.
    pub fn validate(&self) -> Result<()> {
        in_range("buffer_rows", self.buffer_rows as u64, 1, limits::FRAME_ROWS_MAX as u64)?;
        in_range("roll_rows", self.roll_rows, 1, 1 << 32)?;
        in_range("roll_bytes", self.roll_bytes, 1 << 10, 1 << 36)?;
        in_range("channel_batches", self.channel_batches as u64, 1, 1 << 16)?;
        in_range("channel_bytes", self.channel_bytes as u64, 1, 1 << 34)?;
        in_range("archive_level", u64::try_from(self.archive_level).unwrap_or(0), 1, 22)?;
        in_range("block_rows", self.block_rows as u64, 1, limits::BLOCK_ROWS_MAX as u64)?;
        in_range("small_hour_rows", self.small_hour_rows as u64, 1, self.block_rows as u64).or_else(
            |error| if self.block_rows < limits::SMALL_HOUR_ROWS { Ok(()) } else { Err(error) },
        )
    }
}

fn in_range(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Error::invalid(format!("option {name}: {value}, expected {min} to {max}")))
    }
}
