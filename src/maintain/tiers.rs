//! The tier that a partition belongs in, by rules and age alone (spec 8.3).

use crate::config::{TableRetention, Tiers};
use crate::time::{MICROS_PER_DAY, Partition};

/// What is to be left of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Every row, sealed and mapped.
    Detail,
    /// Every row, archived.
    Archive,
    /// Hourly rollups.
    Hourly,
    /// Daily rollups.
    Daily,
    /// Nothing.
    Gone,
}

impl Tier {
    /// Name of the tier in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Detail => "detail",
            Self::Archive => "archive",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Gone => "gone",
        }
    }
}

/// The tier that `partition` belongs in at `now`, in microseconds since 1970. It ages as a
/// whole, from its end; a tier that is not longer than one before it is skipped.
pub(crate) fn target(rule: TableRetention, partition: Partition, now: i64) -> Tier {
    let TableRetention::Tiers(tiers) = rule else { return Tier::Detail };
    let Tiers { detailed_days, archive_days, hourly_days, daily_days } = tiers;
    let end = partition.range().end;
    let is_older = |days: u32| end.saturating_add(i64::from(days) * MICROS_PER_DAY) <= now;
    [
        (detailed_days, Tier::Detail),
        (archive_days, Tier::Archive),
        (hourly_days, Tier::Hourly),
        (daily_days, Tier::Daily),
    ]
    .into_iter()
    .find(|(days, _)| !is_older(*days))
    .map_or(Tier::Gone, |(_, tier)| tier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Table;
    use crate::store_files::retention::RetentionRules;
    use crate::time::Timestamp;

    /// The tiers of one partition on each day of its age, as runs: tier and first age.
    fn life(rule: TableRetention, days: i32) -> Vec<(Tier, i32)> {
        let partition = Partition::from_days(20_000);
        let mut runs: Vec<(Tier, i32)> = Vec::new();
        for age in -2..days {
            let midnight = partition.range().end + i64::from(age) * MICROS_PER_DAY;
            let tier = target(rule, partition, midnight);
            // It does not change between midnights.
            assert_eq!(target(rule, partition, midnight + MICROS_PER_DAY - 1), tier);
            if runs.last().is_none_or(|(last, _)| *last != tier) {
                runs.push((tier, age));
            }
        }
        runs
    }

    fn rule(days: [u32; 4]) -> TableRetention {
        let [detailed_days, archive_days, hourly_days, daily_days] = days;
        TableRetention::Tiers(Tiers { detailed_days, archive_days, hourly_days, daily_days })
    }

    #[test]
    fn a_life() {
        use Tier::{Archive, Daily, Detail, Gone, Hourly};
        for (days, expected) in [
            ([7, 30, 30, 90], vec![(Detail, -2), (Archive, 7), (Daily, 30), (Gone, 90)]),
            (
                [7, 14, 30, 90],
                vec![(Detail, -2), (Archive, 7), (Hourly, 14), (Daily, 30), (Gone, 90)],
            ),
            ([7, 7, 30, 90], vec![(Detail, -2), (Hourly, 7), (Daily, 30), (Gone, 90)]),
            ([7, 0, 0, 0], vec![(Detail, -2), (Gone, 7)]),
            ([7, 0, 0, 9], vec![(Detail, -2), (Daily, 7), (Gone, 9)]),
            ([0, 0, 0, 1], vec![(Detail, -2), (Daily, 0), (Gone, 1)]),
            ([0, 2, 0, 1], vec![(Detail, -2), (Archive, 0), (Gone, 2)]),
            ([1, 0, 2, 365], vec![(Detail, -2), (Hourly, 1), (Daily, 2), (Gone, 365)]),
            ([9, 5, 3, 1], vec![(Detail, -2), (Gone, 9)]),
        ] {
            assert_eq!(life(rule(days), 400), expected, "{days:?}");
        }
        assert_eq!(life(TableRetention::Keep, 400), [(Detail, -2)]);
    }

    /// All rules of up to four days, each tier absent, shorter, equal and longer.
    #[test]
    fn tiers_only_get_coarser_and_end_with_the_longest() {
        for code in 0..5u32.pow(4) {
            let days = [code % 5, code / 5 % 5, code / 25 % 5, code / 125];
            let last = days.into_iter().max().unwrap();
            let runs = life(rule(days), 8);
            assert!(runs.windows(2).all(|pair| pair[0].0 < pair[1].0), "{days:?}: {runs:?}");
            assert_eq!(runs.first().unwrap().0, Tier::Detail, "{days:?}");
            let gone = (Tier::Gone, i32::try_from(last).unwrap());
            assert_eq!(*runs.last().unwrap(), gone, "{days:?}");
        }
    }

    /// What the door refuses and what expires is the same, to the microsecond.
    #[test]
    fn the_door_and_expiry_agree() {
        for last in [1, 2, 90, Tiers::DAYS_MAX] {
            let rules =
                RetentionRules { tables: [rule([0, 0, 0, last]); 3], ..RetentionRules::default() };
            for at in [0, 1, MICROS_PER_DAY - 1, 1_794_787_200_000_000, 1_794_787_200_000_001] {
                let cutoff = rules.cutoff(Table::Task, at).unwrap();
                for stamp in [cutoff - 1, cutoff, cutoff + MICROS_PER_DAY] {
                    let partition = Partition::of_micros(stamp);
                    let is_gone = target(rules.table(Table::Task), partition, at) == Tier::Gone;
                    assert_eq!(is_gone, stamp < cutoff, "{last} days, {stamp} at {at}");
                }
            }
        }
    }

    #[test]
    fn clocks_at_the_ends_of_time_do_not_overflow() {
        let all = rule([Tiers::DAYS_MAX; 4]);
        for partition in [Timestamp::MIN.partition(), Timestamp::MAX.partition()] {
            for at in [i64::MIN, Timestamp::MIN.as_micros(), 0, i64::MAX] {
                target(all, partition, at);
                target(rule([0, 0, 0, 1]), partition, at);
            }
        }
    }
}
