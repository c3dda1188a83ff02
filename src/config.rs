//! Options of a store and its rules of retention: units, defaults, validation.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits;
use crate::schema::Table;
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
    /// As [`Copied`](Self::Copied), for files that may be anybody's: half of the limits on the
    /// size of a file, and on bytes and rows of a frame, and compressed text may be at most
    /// [`UNTRUSTED_RATIO_MAX`](crate::limits::UNTRUSTED_RATIO_MAX) times as long as what is
    /// stored of it. What is beyond that counts as damaged.
    Untrusted,
}

/// What a pass of maintenance is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MaintenanceWork {
    /// Seals what is active, also what dead processes left, and merges small segments.
    Seal,
    /// Compacts partitions past `detailed_days` into archives.
    Compact,
    /// Rolls partitions up that are past `archive_days`, by hours or days.
    RollUp,
    /// Lets partitions expire that are past the last tier, or too many for `max_bytes`.
    Expire,
    /// Everything.
    #[default]
    All,
}

impl MaintenanceWork {
    /// Name of the work, as the command takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Compact => "compact",
            Self::RollUp => "rollup",
            Self::Expire => "expire",
            Self::All => "all",
        }
    }
}

/// A pass of maintenance to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MaintenanceRequest {
    /// What to do.
    pub what: MaintenanceWork,
    /// Only report what would be done.
    pub dry_run: bool,
    /// Believe the clock, although it disagrees with what was recorded.
    pub accept_clock: bool,
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
    /// How often maintenance runs in the background, in one process of those that have the
    /// store open for writing (default 24 h); `None`: not in this process. A clock that jumps
    /// by more than twice this time is not believed at once.
    pub maintenance: Option<Duration>,
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
            maintenance: Some(Duration::from_secs(24 * 3_600)),
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
        if let Some(interval) = self.maintenance {
            let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            in_range("maintenance (milliseconds)", millis, 1, 366 * 24 * 3_600 * 1_000)?;
        }
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

/// How long the rows of one table stay, and in what form, in days of age.
///
/// A partition (one UTC day) ages as a whole, from its end: at midnight it is 0 days old. It
/// is in the first of these tiers that it is not older than:
///
/// | tier | what answers |
/// |---|---|
/// | `detailed_days` | every row, sealed and mapped |
/// | `archive_days` | every row, archived |
/// | `hourly_days` | hourly rollups |
/// | `daily_days` | daily rollups |
/// | beyond | nothing: the partition is gone |
///
/// So a tier that is not longer than one before it is skipped. With the default, hours are:
/// whole rows serve until the 30th day, days from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tiers {
    /// Age up to which every row answers, sealed and mapped: 0 to [`Tiers::DAYS_MAX`].
    pub detailed_days: u32,
    /// Age up to which every row answers, archived: 0 for no archives, or from
    /// `detailed_days`; if it equals that, detail goes without being archived.
    pub archive_days: u32,
    /// Age up to which hourly rollups answer: 0 for none, or from `detailed_days`.
    pub hourly_days: u32,
    /// Age up to which daily rollups answer: 0 for none, or from the longer of
    /// `detailed_days` and `hourly_days`.
    pub daily_days: u32,
}

impl Tiers {
    /// The rules of a table for which nobody set any: 7, 30, 30 and 90 days.
    pub const DEFAULT: Self =
        Self { detailed_days: 7, archive_days: 30, hourly_days: 30, daily_days: 90 };

    /// Longest time that a tier can be given: the ten thousand years that stamps cover.
    pub const DAYS_MAX: u32 = 3_652_059;

    /// Age in days after which nothing of a partition is left.
    pub fn last_days(&self) -> u32 {
        self.detailed_days.max(self.hourly_days).max(self.daily_days).max(self.archive_days)
    }

    /// Checks the days against each other.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let Self { detailed_days, archive_days, hourly_days, daily_days } = *self;
        let not_before = |name: &str, days: u32, before: &str, least: u32| {
            if days == 0 || days >= least {
                return Ok(());
            }
            Err(Error::invalid(format!(
                "{name} is {days}, expected 0 (none), or at least {before}, which is {least}"
            )))
        };
        not_before("archive_days", archive_days, "detailed_days", detailed_days)?;
        not_before("hourly_days", hourly_days, "detailed_days", detailed_days)?;
        not_before("daily_days", daily_days, "detailed_days", detailed_days)?;
        not_before("daily_days", daily_days, "hourly_days", hourly_days)?;
        self.check_last()
    }

    /// Checks the longest tier alone.
    pub(crate) fn check_last(&self) -> Result<()> {
        let last = self.last_days();
        if (1..=Self::DAYS_MAX).contains(&last) {
            return Ok(());
        }
        let most = Self::DAYS_MAX;
        Err(Error::invalid(format!("the longest tier is {last} days, expected 1 to {most}")))
    }

    fn longer(self, other: Self) -> Self {
        Self {
            detailed_days: self.detailed_days.max(other.detailed_days),
            hourly_days: self.hourly_days.max(other.hourly_days),
            daily_days: self.daily_days.max(other.daily_days),
            archive_days: self.archive_days.max(other.archive_days),
        }
    }
}

impl Default for Tiers {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How long the rows of one table stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum TableRetention {
    /// For ever.
    #[serde(rename = "keep")]
    Keep,
    /// They age through tiers.
    #[serde(untagged)]
    Tiers(Tiers),
}

impl TableRetention {
    /// What lets go of a row only where both do.
    pub(crate) fn longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tiers(a), Self::Tiers(b)) => Self::Tiers(a.longer(b)),
            _ => Self::Keep,
        }
    }
}

impl Default for TableRetention {
    fn default() -> Self {
        Self::Tiers(Tiers::DEFAULT)
    }
}

/// How long the rows of a store stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Retention {
    /// Finished tasks.
    #[serde(rename = "task_metrics")]
    pub task: TableRetention,
    /// Gauges of agents.
    #[serde(rename = "agent_metrics")]
    pub agent: TableRetention,
    /// Gauges of swarms.
    #[serde(rename = "swarm_metrics")]
    pub swarm: TableRetention,
    /// Bytes above which the oldest partitions of any table go, whatever their age and also
    /// where rows would stay for ever; those of today and later stay. `None`: any size.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Rules by which every row stays for ever.
    pub const KEEP: Self = Self {
        task: TableRetention::Keep,
        agent: TableRetention::Keep,
        swarm: TableRetention::Keep,
        max_bytes: None,
    };

    /// The rule of `table`.
    pub fn table(&self, table: Table) -> TableRetention {
        match table {
            Table::Task => self.task,
            Table::Agent => self.agent,
            Table::Swarm => self.swarm,
        }
    }

    /// Gives `table` another rule.
    pub fn set_table(&mut self, table: Table, rule: TableRetention) {
        match table {
            Table::Task => self.task = rule,
            Table::Agent => self.agent = rule,
            Table::Swarm => self.swarm = rule,
        }
    }

    /// Checks the days of each table.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the table and the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        for table in Table::ALL {
            if let TableRetention::Tiers(tiers) = self.table(table) {
                tiers.validate().map_err(|error| {
                    Error::invalid(format!("retention of {table}: {}", error.message()))
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(days: [u32; 4]) -> Tiers {
        let [detailed_days, archive_days, hourly_days, daily_days] = days;
        Tiers { detailed_days, archive_days, hourly_days, daily_days }
    }

    #[test]
    fn days_that_fit_together() {
        for days in [
            [7, 30, 30, 90],
            [7, 7, 30, 90],
            [7, 0, 0, 0],
            [0, 0, 0, 1],
            [0, 5, 0, 2],
            [7, 90, 30, 30],
            [1, 0, 2, Tiers::DAYS_MAX],
        ] {
            tiers(days).validate().unwrap_or_else(|error| panic!("{days:?}: {error}"));
        }
    }

    #[test]
    fn a_broken_rule_is_named() {
        for (days, rule) in [
            ([7, 6, 30, 90], "archive_days is 6, expected 0 (none), or at least detailed_days"),
            ([7, 30, 6, 90], "hourly_days is 6, expected 0 (none), or at least detailed_days"),
            ([7, 30, 0, 6], "daily_days is 6, expected 0 (none), or at least detailed_days"),
            ([7, 30, 30, 29], "daily_days is 29, expected 0 (none), or at least hourly_days"),
            ([0, 0, 0, 0], "the longest tier is 0 days"),
            ([7, 0, 0, Tiers::DAYS_MAX + 1], "the longest tier is 3652060 days"),
        ] {
            let error = tiers(days).validate().unwrap_err();
            assert!(error.message().contains(rule), "{days:?}: {error}");
            let mut rules = Retention::default();
            rules.set_table(Table::Swarm, TableRetention::Tiers(tiers(days)));
            let error = rules.validate().unwrap_err();
            assert!(error.message().contains("swarm_metrics"), "{error}");
        }
    }

    #[test]
    fn rules_as_json() {
        let mut rules = Retention { max_bytes: Some(5), ..Retention::KEEP };
        rules.set_table(Table::Agent, TableRetention::default());
        let expected = "{\"task_metrics\":\"keep\",\"agent_metrics\":{\"detailed_days\":7,\
                        \"archive_days\":30,\"hourly_days\":30,\"daily_days\":90},\
                        \"swarm_metrics\":\"keep\",\"max_bytes\":5}";
        assert_eq!(serde_json::to_string(&rules).unwrap(), expected);
    }
}
