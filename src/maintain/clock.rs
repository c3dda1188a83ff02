//! The guard against wrong clocks (spec 8.3): when a pass of expiry may believe the time.
//!
//! A reading is held against the last one that was believed: since then as much time should
//! have gone by as the machine has run. If it says something else, the pass is refused, and
//! the reading is kept as a doubt; when enough of these agree with each other, the clock was
//! right after all, and the reading before was not.

use crate::format::id::Id;
use crate::store_files::retention::{ClockReading, DOUBTS_MAX, LastPass};
use crate::time::{Clock, MICROS_PER_HOUR, Timestamp};

/// Refused passes that agree before one is believed, that one included.
const PASSES_NEEDED: usize = 3;
/// Running time between two of them, in microseconds.
const APART: i64 = MICROS_PER_HOUR;

/// What the clocks say now.
pub(crate) fn read(clock: &dyn Clock) -> ClockReading {
    let (now, boot) = (clock.now().as_micros(), clock.boot());
    let uptime = u64::try_from(boot.uptime.as_micros()).unwrap_or(u64::MAX);
    ClockReading { now, boot: Id::from_bytes(boot.id), uptime }
}

/// What the guard says of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What is to be remembered.
    pub(crate) remember: LastPass,
    /// Why the pass is refused; `None` if it may run.
    pub(crate) refused: Option<String>,
}

impl Verdict {
    fn run(at: ClockReading) -> Self {
        Self { remember: LastPass { at, doubts: Vec::new() }, refused: None }
    }
}

/// Judges a reading. `tolerance` is the largest difference that is no jump, in microseconds.
/// With `accept` it is believed whatever it says.
pub(crate) fn judge(
    last: Option<&LastPass>,
    reading: ClockReading,
    tolerance: i64,
    accept: bool,
) -> Verdict {
    if accept {
        return Verdict::run(reading);
    }
    let Some(last) = last else {
        // Nothing to hold it against: it is kept as the first of three.
        let remember = LastPass { at: reading, doubts: vec![reading] };
        let refused = Some("no earlier reading of the clock is known".to_owned());
        return Verdict { remember, refused };
    };
    let agrees = |earlier: &ClockReading| jump(earlier, &reading).abs() <= i128::from(tolerance);
    if !is_unproven(last) && agrees(&last.at) {
        return Verdict::run(reading);
    }
    let mut doubts = last.doubts.clone();
    if !doubts.last().is_none_or(agrees) {
        doubts.clear();
    }
    let at = if is_unproven(last) { doubts.first().copied().unwrap_or(reading) } else { last.at };
    push(&mut doubts, reading);
    let passes = count(&doubts).passes;
    if passes >= PASSES_NEEDED {
        return Verdict::run(reading);
    }
    let refused = Some(refusal(&at, &reading, passes));
    Verdict { remember: LastPass { at, doubts }, refused }
}

fn refusal(at: &ClockReading, reading: &ClockReading, passes: usize) -> String {
    let expected = i128::from(at.now) + i128::from(running(at, reading));
    let expected = i64::try_from(expected).unwrap_or(i64::MAX);
    format!(
        "the clock says {}, expected about {}: {passes} of {PASSES_NEEDED} passes that are \
         an hour of running time apart agree",
        Timestamp::clamped(reading.now),
        Timestamp::clamped(expected)
    )
}

/// Why passes are refused as of the last one; `None` while they run.
pub(crate) fn standing_refusal(last: &LastPass) -> Option<String> {
    let reading = last.doubts.last()?;
    Some(refusal(&last.at, reading, count(&last.doubts).passes))
}

/// Whether no pass has run yet: the reading that is remembered is itself a doubt.
fn is_unproven(last: &LastPass) -> bool {
    last.doubts.first() == Some(&last.at)
}

/// How much more time went by on the clock than the machine has run.
fn jump(earlier: &ClockReading, later: &ClockReading) -> i128 {
    i128::from(later.now) - i128::from(earlier.now) - i128::from(running(earlier, later))
}

/// How long the machine has run between two readings, at least. What it ran between the first
/// of them and its next start is not known.
fn running(earlier: &ClockReading, later: &ClockReading) -> i64 {
    let micros = if later.boot.is_none() {
        0
    } else if later.boot == earlier.boot {
        later.uptime.saturating_sub(earlier.uptime)
    } else {
        later.uptime
    };
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Passes among readings that are far enough apart.
struct Count {
    passes: usize,
    /// Running time since the last that counts.
    since: i64,
}

fn count(doubts: &[ClockReading]) -> Count {
    let mut count = Count { passes: usize::from(!doubts.is_empty()), since: 0 };
    for pair in doubts.windows(2) {
        if let [earlier, later] = pair {
            count.since = count.since.saturating_add(running(earlier, later));
        }
        if count.since >= APART {
            count = Count { passes: count.passes + 1, since: 0 };
        }
    }
    count
}

/// Adds a reading. Those that do not count only carry running time from boot to boot, so of
/// one boot the last is enough.
fn push(doubts: &mut Vec<ClockReading>, reading: ClockReading) {
    let is_carrier = doubts.len() > 1 && count(doubts).since > 0;
    if is_carrier && doubts.last().is_some_and(|last| last.boot == reading.boot) {
        doubts.pop();
    }
    if doubts.len() >= DOUBTS_MAX {
        // Less running time is known then, which makes the guard stricter.
        doubts.remove(1);
    }
    doubts.push(reading);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::workload::Random;
    use crate::time::MICROS_PER_DAY;

    const NOW: i64 = 1_794_787_200_000_000;
    const HOUR: u64 = MICROS_PER_HOUR.unsigned_abs();
    const TOLERANCE: i64 = 2 * MICROS_PER_DAY;

    fn reading(now: i64, boot: u8, uptime: u64) -> ClockReading {
        ClockReading { now, boot: Id::from_bytes([boot; 16]), uptime }
    }

    /// A machine whose passes are judged one after the other.
    struct Machine {
        last: Option<LastPass>,
    }

    impl Machine {
        fn new() -> Self {
            Self { last: Some(LastPass { at: reading(NOW, 1, 0), doubts: Vec::new() }) }
        }

        /// Whether the pass runs.
        fn pass(&mut self, now: i64, boot: u8, uptime: u64) -> bool {
            let reading = reading(now, boot, uptime);
            let verdict = judge(self.last.as_ref(), reading, TOLERANCE, false);
            assert!(verdict.remember.doubts.len() <= DOUBTS_MAX);
            let standing = standing_refusal(&verdict.remember);
            assert_eq!(standing.is_some(), verdict.refused.is_some());
            self.last = Some(verdict.remember);
            verdict.refused.is_none()
        }
    }

    #[test]
    fn a_clock_that_runs_with_the_machine_is_believed() {
        let mut machine = Machine::new();
        for day in 1..100 {
            let uptime = 24 * HOUR * day;
            assert!(machine.pass(NOW + i64::try_from(uptime).unwrap(), 1, uptime), "day {day}");
        }
        // Off for a day, and a clock that was set by an hour.
        let now = NOW + 101 * MICROS_PER_DAY;
        assert!(machine.pass(now, 2, HOUR));
        assert!(machine.pass(now - MICROS_PER_HOUR, 2, HOUR + 1));
    }

    #[test]
    fn a_jump_is_refused_until_three_passes_agree() {
        let year = 365 * MICROS_PER_DAY;
        let far = [0, 9_214_646_400_000_000, NOW + year, NOW - year, i64::MIN, i64::MAX];
        for wrong in far {
            let mut machine = Machine::new();
            let later = |hours: u64| wrong.saturating_add(i64::try_from(hours * HOUR).unwrap());
            assert!(!machine.pass(later(1), 1, HOUR), "{wrong}");
            assert!(!machine.pass(later(2), 1, 2 * HOUR), "{wrong}");
            // Set right again: nothing has happened.
            let mut mended = Machine { last: machine.last.clone() };
            assert!(mended.pass(NOW + 3 * MICROS_PER_HOUR, 1, 3 * HOUR), "{wrong}");
            assert_eq!(mended.last.unwrap().doubts, []);
            // Or it was right all along.
            assert!(machine.pass(later(3), 1, 3 * HOUR), "{wrong}");
        }
    }

    /// Clocks that walk by up to ten years, are set right, or to one of the days on which clocks
    /// end, with passes at any time. Whatever they do, a pass runs only by a time that agrees with
    /// the last one that was believed, or with passes of at least two hours.
    #[test]
    fn no_walk_of_the_clock_is_believed_at_once() {
        let ends = [0, 2_147_483_647_000_000, 9_223_372_036_854_775, 1_483_228_799_999_999];
        let far = 3_650 * MICROS_PER_DAY.unsigned_abs();
        let (mut ran, mut refused) = (0, 0);
        for seed in 0..2_000 {
            let mut random = Random::new(seed);
            let below = |random: &mut Random, end: u64| random.below(end).cast_signed();
            let mut machine = Machine::new();
            // What the clock is off by, what it was off by when it was last believed, and running
            // time: of the machine, and since the clock was changed.
            let (mut off, mut believed, mut total, mut since) = (0, 0, 0, 0);
            for _ in 0..40 {
                let most = if random.chance(0.5) { MICROS_PER_HOUR } else { MICROS_PER_DAY };
                let runs = below(&mut random, most.unsigned_abs());
                (total, since) = (total + runs, since + runs);
                if random.chance(0.3) {
                    let walk = below(&mut random, 2 * far) - far.cast_signed();
                    let end = ends[usize::try_from(random.below(4)).unwrap()] - NOW - total;
                    let new = [off + walk, off + walk, end, 0];
                    let new = new[usize::try_from(random.below(4)).unwrap()];
                    since = if (new - off).abs() > TOLERANCE { 0 } else { since };
                    off = new;
                }
                let agrees = (off - believed).abs() <= TOLERANCE;
                if machine.pass(NOW + total + off, 1, total.unsigned_abs()) {
                    let insists = since >= 2 * MICROS_PER_HOUR;
                    assert!(agrees || insists, "seed {seed}: {off} {believed} {since}");
                    (believed, ran) = (off, ran + 1);
                } else {
                    refused += 1;
                }
            }
        }
        assert!(ran > 5_000 && refused > 5_000, "{ran} ran, {refused} were refused");
    }

    #[test]
    fn passes_in_a_hurry_do_not_count() {
        let mut machine = Machine::new();
        let wrong = NOW + 365 * MICROS_PER_DAY;
        for minute in 0..119 {
            let micros = minute * 60_000_000;
            let now = wrong + i64::try_from(micros).unwrap();
            assert!(!machine.pass(now, 1, micros), "minute {minute}");
        }
        assert!(machine.pass(wrong + 2 * MICROS_PER_HOUR, 1, 2 * HOUR));
    }

    #[test]
    fn running_time_is_summed_over_boots() {
        let mut machine = Machine::new();
        let wrong = NOW + 365 * MICROS_PER_DAY;
        let runs = (1..=8).filter(|boot| machine.pass(wrong, *boot, HOUR / 3));
        // One pass to begin with, and six thirds of an hour after it.
        assert_eq!(runs.collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn doubts_that_disagree_begin_anew() {
        let mut machine = Machine::new();
        for round in 1..20 {
            let now = NOW + round * 100 * MICROS_PER_DAY;
            assert!(!machine.pass(now, 1, round.unsigned_abs() * 2 * HOUR));
        }
    }

    #[test]
    fn without_an_earlier_reading_three_must_agree() {
        let mut machine = Machine { last: None };
        assert!(!machine.pass(NOW, 1, 5));
        assert!(!machine.pass(NOW + 1, 1, 6));
        assert!(!machine.pass(NOW + 200 * MICROS_PER_DAY, 1, HOUR), "one that was wrong");
        assert!(!machine.pass(NOW, 1, 2 * HOUR));
        assert!(!machine.pass(NOW, 1, 3 * HOUR));
        assert!(machine.pass(NOW, 1, 4 * HOUR));
        assert!(machine.pass(NOW, 1, 4 * HOUR + 1));
    }

    #[test]
    fn an_unknown_boot_proves_nothing() {
        let mut machine = Machine { last: None };
        for pass in 0..10 {
            assert!(!machine.pass(NOW + pass * MICROS_PER_HOUR, 0, u64::MAX));
        }
        let mut machine = Machine::new();
        assert!(machine.pass(NOW + MICROS_PER_DAY, 0, 0));
        assert!(!machine.pass(NOW + 9 * MICROS_PER_DAY, 0, 0));
    }

    #[test]
    fn what_is_accepted_is_believed() {
        let wrong = reading(0, 1, 0);
        let last = Machine::new().last;
        for last in [last.as_ref(), None] {
            assert_eq!(judge(last, wrong, TOLERANCE, true), Verdict::run(wrong));
        }
    }
}
