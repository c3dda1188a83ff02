//! `retention.json`: how long rows stay (spec 8.3).
//!
//! Owns the rules, the last pass of expiry that they carry, and the merge of the two
//! copies: this file, written first, and the catalog. Does not expire anything. Whatever
//! cannot be read means that everything is kept.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Id, document, is_damage};
use crate::config::{Retention, TableRetention, Tiers};
use crate::error::{Error, Result};
use crate::fs::{FileSystem, publish, read_whole};
use crate::schema::Table;
use crate::time::MICROS_PER_DAY;

/// Name of the file.
pub(crate) const NAME: &str = "retention.json";
const MAGIC: &str = "tallystone retention";
const SECTION: &str = "8.3";
const VERSION: u16 = 1;
const BYTES_MAX: u64 = 64 << 10;

/// Readings of the clock that are kept while passes are refused.
pub(crate) const DOUBTS_MAX: usize = 8;

/// One reading of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockReading {
    /// Wall clock, microseconds since 1970.
    pub(crate) now: i64,
    /// Which boot of which machine this was; all zero where that is not known.
    pub(crate) boot: Id,
    /// Microseconds since that boot, sleep included.
    pub(crate) uptime: u64,
}

/// The last pass of expiry that ran, and the readings of passes refused since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastPass {
    /// The clocks when the pass ran.
    pub(crate) at: ClockReading,
    /// The clocks of each pass refused since, oldest first, at most [`DOUBTS_MAX`].
    pub(crate) doubts: Vec<ClockReading>,
}

/// The rules of retention of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetentionRules {
    /// Counts the changes of the rules.
    pub(crate) generation: u64,
    /// One rule per table, in the order of [`Table::ALL`].
    pub(crate) tables: [TableRetention; 3],
    /// Size of the store above which the oldest partitions go, whatever their age.
    pub(crate) max_bytes: Option<u64>,
    /// What the guard against clock jumps remembers.
    pub(crate) last_pass: Option<LastPass>,
}

impl Default for RetentionRules {
    fn default() -> Self {
        Self {
            generation: 1,
            tables: [TableRetention::Tiers(Tiers::DEFAULT); 3],
            max_bytes: None,
            last_pass: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RetentionDocument {
    magic: String,
    version: u16,
    generation: u64,
    tables: TablesDocument,
    max_bytes: Option<u64>,
    last_pass: Option<PassDocument>,
}

#[derive(Serialize, Deserialize)]
struct TablesDocument {
    task_metrics: RuleDocument,
    agent_metrics: RuleDocument,
    swarm_metrics: RuleDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RuleDocument {
    Keep(Keep),
    Tiers { detailed_days: u32, hourly_days: u32, daily_days: u32, archive_days: u32 },
}

#[derive(Serialize, Deserialize)]
enum Keep {
    #[serde(rename = "keep")]
    Keep,
}

#[derive(Serialize, Deserialize)]
struct PassDocument {
    at: ReadingDocument,
    doubts: Vec<ReadingDocument>,
}

#[derive(Serialize, Deserialize)]
struct ReadingDocument {
    now: i64,
    boot: String,
    uptime: u64,
}

impl From<&TableRetention> for RuleDocument {
    fn from(rule: &TableRetention) -> Self {
        match *rule {
            TableRetention::Keep => Self::Keep(Keep::Keep),
            TableRetention::Tiers(Tiers {
                detailed_days,
                hourly_days,
                daily_days,
                archive_days,
            }) => Self::Tiers { detailed_days, hourly_days, daily_days, archive_days },
        }
    }
}

impl From<RuleDocument> for TableRetention {
    fn from(rule: RuleDocument) -> Self {
        match rule {
            RuleDocument::Keep(Keep::Keep) => Self::Keep,
            RuleDocument::Tiers { detailed_days, hourly_days, daily_days, archive_days } => {
                Self::Tiers(Tiers { detailed_days, hourly_days, daily_days, archive_days })
            }
        }
    }
}

impl From<&ClockReading> for ReadingDocument {
    fn from(reading: &ClockReading) -> Self {
        Self { now: reading.now, boot: reading.boot.to_string(), uptime: reading.uptime }
    }
}

impl TryFrom<ReadingDocument> for ClockReading {
    type Error = Error;

    fn try_from(found: ReadingDocument) -> Result<Self> {
        let boot = Id::parse(&found.boot).ok_or_else(|| {
            Error::corrupt(SECTION, format!("boot {:?} is not an id", found.boot))
        })?;
        Ok(Self { now: found.now, boot, uptime: found.uptime })
    }
}

impl RetentionRules {
    /// Rules that never let go of anything.
    pub(crate) fn keep_everything() -> Self {
        Self { tables: [TableRetention::Keep; 3], ..Self::default() }
    }

    /// The rule of `table`.
    pub(crate) fn table(&self, table: Table) -> TableRetention {
        let [task, agent, swarm] = self.tables;
        match table {
            Table::Task => task,
            Table::Agent => agent,
            Table::Swarm => swarm,
        }
    }

    /// Earliest stamp of `table` that is kept at `now`, both in microseconds since 1970;
    /// `None` where everything is. A partition ages as a whole, from its end.
    pub(crate) fn cutoff(&self, table: Table, now: i64) -> Option<i64> {
        match self.table(table) {
            TableRetention::Keep => None,
            TableRetention::Tiers(tiers) => {
                let today = now.div_euclid(MICROS_PER_DAY);
                Some((today - i64::from(tiers.last_days())).saturating_mul(MICROS_PER_DAY))
            }
        }
    }

    /// Whether both let go of the same rows: generation and last pass do not matter.
    pub(crate) fn same_rules(&self, other: &Self) -> bool {
        self.tables == other.tables && self.max_bytes == other.max_bytes
    }

    /// What of the rules is for users to set.
    pub(crate) fn retention(&self) -> Retention {
        let [task, agent, swarm] = self.tables;
        Retention { task, agent, swarm, max_bytes: self.max_bytes }
    }

    /// These rules with what a user set, as a new generation.
    pub(crate) fn changed_to(self, set: &Retention) -> Self {
        Self {
            generation: self.generation.saturating_add(1),
            tables: [set.task, set.agent, set.swarm],
            max_bytes: set.max_bytes,
            ..self
        }
    }

    /// Checks what a reader would reject. How the tiers of a table fit together is no part of
    /// that: the longer of each of two sound rules may be a rule that nobody would set.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the table.
    pub(crate) fn validate(&self) -> Result<()> {
        for table in Table::ALL {
            let TableRetention::Tiers(tiers) = self.table(table) else { continue };
            tiers.check_last().map_err(|error| {
                Error::invalid(format!("retention of {table}: {}", error.message()))
            })?;
        }
        match &self.last_pass {
            Some(pass) if pass.doubts.len() > DOUBTS_MAX => Err(Error::invalid(format!(
                "retention: {} refused passes, at most {DOUBTS_MAX} are kept",
                pass.doubts.len()
            ))),
            _ => Ok(()),
        }
    }

    /// The bytes of `retention.json`, which are also what the catalog keeps.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let [task_metrics, agent_metrics, swarm_metrics] = self.tables.each_ref().map(Into::into);
        document::seal(&RetentionDocument {
            magic: MAGIC.to_owned(),
            version: VERSION,
            generation: self.generation,
            tables: TablesDocument { task_metrics, agent_metrics, swarm_metrics },
            max_bytes: self.max_bytes,
            last_pass: self.last_pass.as_ref().map(|pass| PassDocument {
                at: (&pass.at).into(),
                doubts: pass.doubts.iter().map(Into::into).collect(),
            }),
        })
    }

    /// Reads what [`encode`](Self::encode) writes.
    ///
    /// # Errors
    ///
    /// `Corrupt`, or `NotOurFile`, or `UnsupportedVersion`: the rules of a later version
    /// may say something that this release would not follow.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let members = document::unseal(bytes, MAGIC)?;
        match members.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version > u64::from(VERSION) => {
                return Err(Error::new(
                    crate::error::ErrorKind::UnsupportedVersion,
                    format!("retention rules of version {version}, this release reads {VERSION}"),
                ));
            }
            _ => {}
        }
        let found: RetentionDocument = document::decode(members)?;
        let last_pass = match found.last_pass {
            None => None,
            Some(pass) => Some(LastPass {
                at: pass.at.try_into()?,
                doubts: pass.doubts.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            }),
        };
        let TablesDocument { task_metrics, agent_metrics, swarm_metrics } = found.tables;
        let rules = Self {
            generation: found.generation,
            tables: [task_metrics, agent_metrics, swarm_metrics].map(Into::into),
            max_bytes: found.max_bytes,
            last_pass,
        };
        rules.validate().map_err(|error| Error::corrupt(SECTION, error.message()))?;
        Ok(rules)
    }
}

/// Reads `retention.json` of the store in `dir`.
///
/// # Errors
///
/// `Io` that [`Error::is_not_found`] where it is missing; those of
/// [`RetentionRules::decode`]. [`effective_rules`] turns either into "keep everything".
pub(crate) fn read_retention(fs: &dyn FileSystem, dir: &Path) -> Result<RetentionRules> {
    let path = dir.join(NAME);
    let bytes = read_whole(fs, &path, BYTES_MAX)?;
    RetentionRules::decode(&bytes).map_err(|error| error.with_path(&path))
}

/// Replaces `retention.json` of the store in `dir`; durable on return. The catalog is told
/// afterwards, never before.
pub(crate) fn write_retention(
    fs: &dyn FileSystem,
    dir: &Path,
    rules: &RetentionRules,
) -> Result<()> {
    publish(fs, dir, NAME, &rules.encode()?, true)
}

/// Writes the rules of a new store, unless another creator has.
pub(super) fn publish_first(fs: &dyn FileSystem, dir: &Path, rules: &RetentionRules) -> Result<()> {
    publish(fs, dir, NAME, &rules.encode()?, false)
}

/// Rules that let go of a row only where both `a` and `b` do: the longer of each tier.
///
/// Where they agree these are the rules of `a` with the larger generation; where they
/// differ the generation is a new one. What the clock guard remembers is `a`'s, or `b`'s
/// where `a` has nothing.
pub(crate) fn merge_longer(a: &RetentionRules, b: &RetentionRules) -> RetentionRules {
    let [a0, a1, a2] = a.tables;
    let [b0, b1, b2] = b.tables;
    let generation = a.generation.max(b.generation);
    RetentionRules {
        generation: if a.same_rules(b) { generation } else { generation.saturating_add(1) },
        tables: [a0.longer(b0), a1.longer(b1), a2.longer(b2)],
        max_bytes: a.max_bytes.zip(b.max_bytes).map(|(a, b)| a.max(b)),
        last_pass: a.last_pass.clone().or_else(|| b.last_pass.clone()),
    }
}

/// Where the rules in force come from, to be reported unless [`RulesSource::File`].
#[derive(Clone, Debug)]
pub(crate) enum RulesSource {
    /// `retention.json`, and the catalog says the same or nothing.
    File,
    /// File and catalog differ; the longer of each tier holds.
    Merged,
    /// `retention.json` is missing or damaged, as the error says; everything is kept.
    Unreadable(Error),
}

/// The rules in force.
#[derive(Clone, Debug)]
pub(crate) struct EffectiveRules {
    /// The rules.
    pub(crate) rules: RetentionRules,
    /// Where they come from.
    pub(crate) source: RulesSource,
}

/// The rules in force, from what reading `retention.json` gave and from the catalog's copy.
///
/// # Errors
///
/// The error of reading the file where that does not say that it is missing or damaged.
pub(crate) fn effective_rules(
    file: Result<RetentionRules>,
    cataloged: Option<&RetentionRules>,
) -> Result<EffectiveRules> {
    match (file, cataloged) {
        (Ok(file), Some(other)) if !file.same_rules(other) => {
            Ok(EffectiveRules { rules: merge_longer(&file, other), source: RulesSource::Merged })
        }
        (Ok(rules), _) => Ok(EffectiveRules { rules, source: RulesSource::File }),
        (Err(error), other) if error.is_not_found() || is_damage(&error) => {
            // The catalog's copy may be the older one, of rules that were too short: it only
            // lends its generation, so that rules set from here on count as newer.
            let mut rules = RetentionRules::keep_everything();
            rules.generation = other.map_or(1, |rules| rules.generation.saturating_add(1));
            Ok(EffectiveRules { rules, source: RulesSource::Unreadable(error) })
        }
        (Err(error), _) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::fs::OsFileSystem;
    use crate::time::Timestamp;

    const FS: OsFileSystem = OsFileSystem;

    fn tiers(detailed: u32, hourly: u32, daily: u32, archive: u32) -> TableRetention {
        TableRetention::Tiers(Tiers {
            detailed_days: detailed,
            hourly_days: hourly,
            daily_days: daily,
            archive_days: archive,
        })
    }

    fn sample() -> RetentionRules {
        let reading = |now, uptime| ClockReading { now, boot: Id::from_bytes([0xb0; 16]), uptime };
        RetentionRules {
            generation: 4,
            tables: [TableRetention::Keep, tiers(7, 30, 90, 30), tiers(1, 2, 365, 0)],
            max_bytes: Some(50_000_000_000),
            last_pass: Some(LastPass {
                at: reading(1_700_000_000_000_000, 3_600_000_000),
                doubts: vec![reading(1_900_000_000_000_000, 7_200_000_000)],
            }),
        }
    }

    fn micros(text: &str) -> i64 {
        Timestamp::parse(text).unwrap().as_micros()
    }

    /// The worked example of spec 8.3.
    #[test]
    fn example() {
        let text = include_str!("../../format-spec/8-store.md");
        let line = String::from_utf8(RetentionRules::default().encode().unwrap()).unwrap();
        assert!(text.contains(line.trim_end()), "{line}");
        let line = String::from_utf8(sample().encode().unwrap()).unwrap();
        assert!(text.contains(line.trim_end()), "{line}");
    }

    #[test]
    fn written_and_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert!(read_retention(&FS, dir).unwrap_err().is_not_found());
        for rules in [RetentionRules::default(), sample(), RetentionRules::keep_everything()] {
            write_retention(&FS, dir, &rules).unwrap();
            assert_eq!(read_retention(&FS, dir).unwrap(), rules);
        }
        assert!(publish_first(&FS, dir, &sample()).unwrap_err().is_already_there());
    }

    #[test]
    fn every_bit_counts() {
        document::check_damage(&sample().encode().unwrap(), RetentionRules::decode);
    }

    #[test]
    fn rules_of_a_later_version_are_not_followed() {
        let bytes = sample().encode().unwrap();
        let mut members = document::unseal(&bytes, MAGIC).unwrap();
        members.insert("version".to_owned(), 2.into());
        let error = RetentionRules::decode(&document::seal(&members).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("version 2, this release reads 1"), "{error}");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let mut rules = sample();
        rules.tables[1] = tiers(0, 0, 0, 0);
        assert_eq!(rules.encode().unwrap_err().kind(), ErrorKind::InvalidArgument);
        rules.tables[1] = tiers(1, 1, Tiers::DAYS_MAX + 1, 1);
        assert!(rules.encode().unwrap_err().message().contains("agent_metrics"));

        let mut members = document::unseal(&sample().encode().unwrap(), MAGIC).unwrap();
        members["tables"]["swarm_metrics"]["daily_days"] = Tiers::DAYS_MAX.saturating_add(1).into();
        let error = RetentionRules::decode(&document::seal(&members).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        members["tables"]["swarm_metrics"] = "never".into();
        let error = RetentionRules::decode(&document::seal(&members).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    fn is_past(rules: &RetentionRules, table: Table, now: i64, ts: i64) -> bool {
        rules.cutoff(table, now).is_some_and(|cutoff| ts < cutoff)
    }

    #[test]
    fn a_partition_ages_from_its_end() {
        let rules = RetentionRules::default();
        let past = |now, ts| is_past(&rules, Table::Task, micros(now), micros(ts));
        // The partition of 1 January ends at 00:00 of the 2nd; 90 days later is 2 April.
        assert!(!past("2026-04-01T23:59:59.999999Z", "2026-01-01T00:00:00Z"));
        assert!(past("2026-04-02T00:00:00Z", "2026-01-01T00:00:00Z"));
        assert!(past("2026-04-02T00:00:00Z", "2026-01-01T23:59:59.999999Z"));
        assert!(!past("2026-04-02T00:00:00Z", "2026-01-02T00:00:00Z"));
        assert!(!past("2026-01-01T00:00:00Z", "9998-12-31T00:00:00Z"));
        let keep = RetentionRules::keep_everything();
        assert!(!is_past(&keep, Table::Task, i64::MAX, i64::MIN));
        assert!(is_past(&rules, Table::Task, i64::MAX, i64::MIN));
        assert!(!is_past(&rules, Table::Task, i64::MIN, i64::MAX));
    }

    #[test]
    fn two_copies_that_differ() {
        let a = RetentionRules { tables: [tiers(7, 30, 90, 30); 3], ..sample() };
        let mut b = RetentionRules { generation: 9, max_bytes: None, last_pass: None, ..a.clone() };
        b.tables = [tiers(9, 20, 80, 40), TableRetention::Keep, tiers(1, 1, 1, 1)];
        let merged = merge_longer(&a, &b);
        assert_eq!(
            merged.tables,
            [tiers(9, 30, 90, 40), TableRetention::Keep, tiers(7, 30, 90, 30)]
        );
        assert_eq!((merged.generation, merged.max_bytes), (10, None));
        assert_eq!(merged.last_pass, a.last_pass);
        assert!(merge_longer(&b, &a).same_rules(&merged));
    }

    #[test]
    fn rules_in_force() {
        let file = sample();
        let check = |file, cataloged| {
            let effective = effective_rules(file, cataloged).unwrap();
            (effective.rules, effective.source)
        };
        let (rules, source) = check(Ok(file.clone()), None);
        assert!(rules == file && matches!(source, RulesSource::File));

        // A newer pass in one of them is no difference.
        let same = RetentionRules { last_pass: None, generation: 3, ..file.clone() };
        let (rules, source) = check(Ok(file.clone()), Some(&same));
        assert!(rules == file && matches!(source, RulesSource::File));

        let longer = RetentionRules { max_bytes: None, ..file.clone() };
        let (rules, source) = check(Ok(file.clone()), Some(&longer));
        assert!(rules.max_bytes.is_none() && matches!(source, RulesSource::Merged));

        // Damaged and missing files keep everything, whatever the catalog remembers.
        let root = tempfile::tempdir().unwrap();
        let missing = read_retention(&FS, root.path());
        publish(&FS, root.path(), NAME, b"{\"magic\":\"tallystone rete", true).unwrap();
        let damaged = read_retention(&FS, root.path());
        publish(&FS, root.path(), NAME, &vec![b' '; 1 << 20], true).unwrap();
        let huge = read_retention(&FS, root.path());
        for unreadable in [missing, damaged, huge] {
            let (rules, source) = check(unreadable, Some(&file));
            assert_eq!(rules.tables, [TableRetention::Keep; 3]);
            assert_eq!((rules.max_bytes, rules.generation), (None, 5));
            assert!(matches!(source, RulesSource::Unreadable(_)));
        }
        let io = Error::new(ErrorKind::Io, "no answer");
        assert_eq!(effective_rules(Err(io), None).unwrap_err().kind(), ErrorKind::Io);
    }

    fn any_rule() -> impl Strategy<Value = TableRetention> {
        let days = 0..=400_u32;
        prop_oneof![
            Just(TableRetention::Keep),
            (1..=400_u32, days.clone(), days.clone(), days)
                .prop_map(|(a, b, c, d)| tiers(a, b, c, d)),
        ]
    }

    fn any_rules() -> impl Strategy<Value = RetentionRules> {
        (any::<u64>(), [any_rule(), any_rule(), any_rule()], any::<Option<u64>>()).prop_map(
            |(generation, tables, max_bytes)| RetentionRules {
                generation,
                tables,
                max_bytes,
                last_pass: None,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(rules in any_rules()) {
            prop_assert_eq!(RetentionRules::decode(&rules.encode().unwrap()).unwrap(), rules);
        }

        #[test]
        fn a_merge_never_lets_go_of_more(
            a in any_rules(), b in any_rules(), now in 0_i64..800, day in 0_i64..800
        ) {
            let merged = merge_longer(&a, &b);
            let (now, ts) = (now * MICROS_PER_DAY, day * MICROS_PER_DAY);
            for table in Table::ALL {
                let both =
                    is_past(&a, table, now, ts) && is_past(&b, table, now, ts);
                prop_assert_eq!(is_past(&merged, table, now, ts), both);
            }
        }
    }
}
