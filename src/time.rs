//! Time: stamps, ranges, partitions, intervals, and the clock.
//!
//! Owns `Timestamp`, `TimeRange`, `Partition`, `Interval` and the `Clock` trait. All
//! times are UTC; a partition is one UTC day. Reading the real clock happens here
//! alone, in [`SystemClock`].

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::temporal::Pieces;

use crate::error::{Error, Result};

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in an hour.
pub const MICROS_PER_HOUR: i64 = 3_600 * MICROS_PER_SECOND;
/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// Microseconds since 1970-01-01T00:00:00Z, from year 0001 to year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0001-01-01T00:00:00Z, the earliest stamp.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z, the latest stamp.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// A stamp of `micros` since the Unix epoch.
    ///
    /// # Errors
    ///
    /// `BadInput` outside the years 0001 to 9999, which is also what nanoseconds
    /// given as microseconds run into.
    pub fn from_micros(micros: i64) -> Result<Self> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(Error::bad_input(format!(
                "timestamp: {micros} is outside the years 0001 to 9999, expected microseconds since 1970"
            )))
        }
    }

    /// A stamp of whole seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// As [`from_micros`](Self::from_micros).
    pub fn from_seconds(seconds: i64) -> Result<Self> {
        Self::from_micros(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since the Unix epoch until a clock of UTC shows `civil`.
    pub(crate) fn of_civil(civil: DateTime) -> i64 {
        let since = civil.duration_since(EPOCH);
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    /// Clamps to the years 0001 to 9999.
    pub(crate) fn clamped(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 text (`2026-11-23T10:00:00Z`, any offset, up to nine decimals of
    /// which six are kept), or a date, which means 00:00 UTC.
    ///
    /// # Errors
    ///
    /// `BadInput` naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::bad_input(format!(
                "time {text:?}: expected RFC 3339 as 2026-11-23T10:00:00Z, or a date as 2026-11-23"
            ))
        };
        if text.len() == 10 {
            let date: Date = text.parse().map_err(|_| bad())?;
            return Self::from_micros(i64::from(days_of(date)) * MICROS_PER_DAY).map_err(|_| bad());
        }
        Self::from_micros(micros_of(text).ok_or_else(bad)?).map_err(|_| bad())
    }

    /// The UTC day that holds this stamp.
    pub fn partition(self) -> Partition {
        Partition::of_micros(self.0)
    }

    /// Hours since the Unix epoch, rounded down.
    pub fn hour(self) -> i64 {
        self.0.div_euclid(MICROS_PER_HOUR)
    }
}

/// RFC 3339 in UTC with as many decimals as needed: none, three or six.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = civil_of(self.0);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            civil.year(),
            civil.month(),
            civil.day(),
            civil.hour(),
            civil.minute(),
            civil.second()
        )?;
        match self.0.rem_euclid(MICROS_PER_SECOND) {
            0 => write!(f, "Z"),
            micros if micros % 1_000 == 0 => write!(f, ".{:03}Z", micros / 1_000),
            micros => write!(f, ".{micros:06}Z"),
        }
    }
}

// `jiff::Timestamp` ends a day before the year 9999 does, so civil time is reached without it.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

fn civil_of(micros: i64) -> DateTime {
    EPOCH.checked_add(SignedDuration::from_micros(micros)).unwrap_or(DateTime::MIN)
}

fn days_of(date: Date) -> i32 {
    let days = date.duration_since(EPOCH.date()).as_hours() / 24;
    i32::try_from(days).unwrap_or(i32::MIN)
}

/// The moment of RFC 3339 text in its most frequent form, `2026-11-23T10:00:00Z` with any
/// decimals; `None` for any other, which may be right all the same.
fn micros_of_utc(text: &[u8]) -> Option<i64> {
    let (date_and_time, rest) = text.split_first_chunk::<19>()?;
    let (b'Z', decimals) = rest.split_last()? else { return None };
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', rest @ ..] = date_and_time else {
        return None;
    };
    let [h0, h1, b':', i0, i1, b':', s0, s1] = rest else { return None };
    let number = |digits: &[&u8]| {
        digits.iter().try_fold(0, |value: i64, digit| {
            digit.is_ascii_digit().then(|| value * 10 + i64::from(**digit - b'0'))
        })
    };
    let (year, month, day) = (number(&[y0, y1, y2, y3])?, number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[i0, i1])?, number(&[s0, s1])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_real = (1..=12).contains(&month) && (1..=last_day).contains(&day);
    if !is_real || year == 0 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match decimals {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            let all = digits.iter().chain(std::iter::repeat(&b'0')).take(digits.len().max(6));
            let mut value = 0;
            for (place, digit) in all.enumerate() {
                let digit = number(&[digit])?;
                value = if place < 6 { value * 10 + digit } else { value };
            }
            value
        }
        _ => return None,
    };
    // Years that begin in March have their odd day at the end.
    let shifted = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros)
}

/// The moment of RFC 3339 text, decimals beyond the sixth cut off.
fn micros_of(text: &str) -> Option<i64> {
    micros_of_utc(text.as_bytes()).or_else(|| micros_of_any(text))
}

fn micros_of_any(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let (time, offset) = (pieces.time()?, pieces.to_numeric_offset()?);
    let of_day = time.duration_since(Time::midnight()).as_micros();
    let of_day = i64::try_from(of_day).ok()? - i64::from(offset.seconds()) * MICROS_PER_SECOND;
    Some(i64::from(days_of(pieces.date())) * MICROS_PER_DAY + of_day)
}

/// A half-open range of time, `start <= t < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First microsecond inside.
    pub start: i64,
    /// First microsecond after.
    pub end: i64,
}

impl TimeRange {
    /// Everything a store can hold.
    pub const ALL: Self = Self { start: Timestamp::MIN.0, end: Timestamp::MAX.0 + 1 };

    /// The range from `start` up to, not including, `end`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when `end` lies before `start`.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self> {
        if end < start {
            return Err(Error::invalid(format!("time range: end {end} lies before start {start}")));
        }
        Ok(Self { start: start.0, end: end.0 })
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether `micros` is inside.
    pub fn contains(&self, micros: i64) -> bool {
        self.start <= micros && micros < self.end
    }

    /// Whether all of the closed interval `min..=max` is inside.
    pub fn covers(&self, min: i64, max: i64) -> bool {
        self.start <= min && max < self.end
    }

    /// Whether any of the closed interval `min..=max` may be inside.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        min < self.end && self.start <= max
    }
}

/// One UTC day: whole days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(i32);

impl Partition {
    /// The day that is `days` after 1970-01-01.
    pub const fn from_days(days: i32) -> Self {
        Self(days)
    }

    /// The day that holds `micros`.
    pub fn of_micros(micros: i64) -> Self {
        let days = micros.div_euclid(MICROS_PER_DAY);
        Self(i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }))
    }

    /// Whole days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.0
    }

    /// From midnight to midnight.
    pub fn range(self) -> TimeRange {
        let start = i64::from(self.0) * MICROS_PER_DAY;
        TimeRange { start, end: start + MICROS_PER_DAY }
    }

    /// The name of the partition's directory, `2026-11-23`.
    pub fn directory_name(self) -> String {
        let civil = civil_of(i64::from(self.0) * MICROS_PER_DAY);
        format!("{:04}-{:02}-{:02}", civil.year(), civil.month(), civil.day())
    }

    /// Reads a directory name; `None` for any other.
    pub fn parse_directory_name(name: &str) -> Option<Self> {
        let date: Date = (name.len() == 10).then(|| name.parse().ok())??;
        let partition = Self(days_of(date));
        (partition.directory_name() == name).then_some(partition)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.directory_name())
    }
}

/// Width of the buckets of a time series. All buckets are aligned in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interval {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday 00:00 (ISO 8601).
    Week,
    /// From the first of the month, 00:00.
    Month,
    /// Any fixed length in microseconds, at least one second, aligned to 1970-01-01.
    Fixed(i64),
}

impl Interval {
    /// Reads `minute`, `hour`, `day`, `week`, `month`, or a number with `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            _ => {
                let bad = || {
                    Error::invalid(format!(
                        "interval {text:?}: expected minute, hour, day, week, month, or a length as 30s, 5m, 2h, 1d"
                    ))
                };
                Self::Fixed(parse_length(text).filter(|m| *m >= MICROS_PER_SECOND).ok_or_else(bad)?)
            }
        })
    }

    /// Start of the bucket that holds `micros`.
    pub fn bucket_start(self, micros: i64) -> i64 {
        match self {
            Self::Minute => floor_to(micros, 60 * MICROS_PER_SECOND),
            Self::Hour => floor_to(micros, MICROS_PER_HOUR),
            Self::Day => floor_to(micros, MICROS_PER_DAY),
            // 1970-01-01 was a Thursday: Monday lies three days before.
            Self::Week => {
                floor_to(micros + 3 * MICROS_PER_DAY, 7 * MICROS_PER_DAY) - 3 * MICROS_PER_DAY
            }
            Self::Month => {
                let first = civil_of(micros).date().first_of_month();
                i64::from(days_of(first)) * MICROS_PER_DAY
            }
            Self::Fixed(length) => floor_to(micros, length.max(1)),
        }
    }

    /// Start of the bucket after the one that starts at `start`.
    pub fn next_bucket(self, start: i64) -> i64 {
        match self {
            Self::Minute => start + 60 * MICROS_PER_SECOND,
            Self::Hour => start + MICROS_PER_HOUR,
            Self::Day => start + MICROS_PER_DAY,
            Self::Week => start + 7 * MICROS_PER_DAY,
            // No calendar goes on after the last month that there is.
            Self::Month if start + 31 * MICROS_PER_DAY > Timestamp::MAX.0 => TimeRange::ALL.end,
            Self::Month => self.bucket_start(start + 31 * MICROS_PER_DAY),
            Self::Fixed(length) => start + length.max(1),
        }
    }
}

fn floor_to(micros: i64, step: i64) -> i64 {
    micros - micros.rem_euclid(step)
}

/// Reads a length of time such as `90s`, `5m`, `24h`, `7d`, in microseconds.
pub fn parse_length(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let number: i64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    (number >= 0).then(|| number.checked_mul(seconds * MICROS_PER_SECOND))?
}

/// A length of time as [`parse_length`] reads it, in the largest unit that it is a multiple of;
/// parts of a second are cut off.
pub fn format_length(micros: i64) -> String {
    let seconds = micros / MICROS_PER_SECOND;
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let (length, unit) = units
        .into_iter()
        .find(|(length, _)| seconds != 0 && seconds % length == 0)
        .unwrap_or((1, 's'));
    format!("{}{unit}", seconds / length)
}

/// One start of the machine, and how long ago it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// Which start of which machine; all zero where that is not known.
    pub id: [u8; 16],
    /// Time since then, sleep included.
    pub uptime: Duration,
}

/// Where the time comes from. Passed in, so that tests choose it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, in microseconds since the Unix epoch.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;

    /// How long the machine has been running, by which a jump of [`now`](Self::now) is told
    /// from time that went by. Without an answer, expiry refuses to run after a pause of more
    /// than twice the interval of maintenance.
    fn boot(&self) -> Boot {
        Boot::default()
    }
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real clock")]
    fn now(&self) -> Timestamp {
        let micros = match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Timestamp::clamped(micros)
    }

    fn elapsed(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn boot(&self) -> Boot {
        system_boot().unwrap_or_default()
    }
}

#[cfg(target_os = "linux")]
fn system_boot() -> Option<Boot> {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::time::{ClockId, clock_gettime};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open("/proc/sys/kernel/random/boot_id", flags, Mode::empty()).ok()?;
    let mut text = [0; 36];
    let read = rustix::io::read(&file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..read)?).ok()?;
    let id = uuid::Uuid::try_parse(text).ok()?.into_bytes();
    let since = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(since.tv_sec).ok()?, u32::try_from(since.tv_nsec).ok()?);
    Some(Boot { id, uptime: Duration::new(seconds, nanos) })
}

#[cfg(not(target_os = "linux"))]
fn system_boot() -> Option<Boot> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_text() {
        for text in ["0s", "90s", "5m", "23h", "7d", "61m"] {
            assert_eq!(format_length(parse_length(text).unwrap()), text);
        }
        assert_eq!(format_length(parse_length("24h").unwrap()), "1d");
        assert_eq!(format_length(1_999_999), "1s");
    }

    #[test]
    fn the_frequent_form_is_read_as_any_other() {
        let mut read = 0;
        let mut check = |text: &str| {
            if let Some(micros) = micros_of_utc(text.as_bytes()) {
                read += 1;
                assert_eq!(Some(micros), micros_of_any(text), "{text}");
            }
        };
        for year in ["0000", "0001", "0004", "0100", "1900", "1969", "2000", "2023", "9999"] {
            for month in 0..14 {
                for day in 0..33 {
                    check(&format!("{year}-{month:02}-{day:02}T23:59:59.999999Z"));
                }
            }
        }
        for time in ["24:00:00", "23:60:00", "23:59:60", "00:00:00", "1:00:00", "12:3x:00"] {
            for end in ["Z", ".5Z", ".123456789Z", ".1234567891Z", ".Z", "", "z", "+01:00", ".1xZ"]
            {
                check(&format!("2026-11-23T{time}{end}"));
            }
        }
        assert!(read > 2_900, "{read}");
        for micros in [Timestamp::MIN.0, -1, 0, 951_782_400_000_000, Timestamp::MAX.0] {
            let text = Timestamp(micros).to_string();
            assert_eq!(micros_of_utc(text.as_bytes()), Some(micros), "{text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_start_of_the_machine_stays_and_its_running_time_grows() {
        let (first, second) = (SystemClock.boot(), SystemClock.boot());
        assert_eq!(first.id, second.id);
        assert!(first.uptime <= second.uptime);
        // Where the kernel does not tell, neither is known.
        assert_eq!(first.id == [0; 16], first.uptime == Duration::ZERO);
    }

    /// Found by fuzzing: the month after December 9999 began in the year -9999, since no calendar
    /// goes on so far. Now it begins where the range of all time ends.
    #[test]
    fn the_last_month_ends_where_time_does() {
        let last = Interval::Month.bucket_start(Timestamp::MAX.0);
        assert_eq!(Interval::Month.next_bucket(last), TimeRange::ALL.end);
        let before = Interval::Month.bucket_start(last - 1);
        assert_eq!(Interval::Month.next_bucket(before), last);
    }

    #[test]
    fn the_first_and_the_last_day_have_names() {
        for (stamp, day, text) in [
            (Timestamp::MIN, "0001-01-01", "0001-01-01T00:00:00Z"),
            (Timestamp(-1), "1969-12-31", "1969-12-31T23:59:59.999999Z"),
            (Timestamp(0), "1970-01-01", "1970-01-01T00:00:00Z"),
            (Timestamp::MAX, "9999-12-31", "9999-12-31T23:59:59.999999Z"),
        ] {
            let partition = stamp.partition();
            assert_eq!(partition.directory_name(), day);
            assert_eq!(Partition::parse_directory_name(day), Some(partition));
            assert!(partition.range().contains(stamp.as_micros()));
            assert_eq!(stamp.to_string(), text);
            assert_eq!(Timestamp::parse(text).unwrap(), stamp);
            let month = Interval::Month.bucket_start(stamp.as_micros());
            assert!(Timestamp(month).to_string().ends_with("-01T00:00:00Z"));
            assert!(month <= stamp.as_micros());
        }
    }

    #[test]
    fn names_of_days_are_read_back() {
        for days in (Timestamp::MIN.partition().days()..=Timestamp::MAX.partition().days())
            .step_by(97)
            .chain([-1, 0, 1, 20_780])
        {
            let partition = Partition::from_days(days);
            assert_eq!(
                Partition::parse_directory_name(&partition.directory_name()),
                Some(partition)
            );
        }
        for name in ["2026-02-30", "2026-1-01", "26-01-01xx", "-001-01-01", "2026-11-23Z"] {
            assert_eq!(Partition::parse_directory_name(name), None, "{name}");
        }
    }

    #[test]
    fn texts_of_times_are_read() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01", 0),
            ("1970-01-01T01:30:00+01:30", 0),
            ("1969-12-31T23:00:00.5-01:00", 500_000),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("10000-01-01T00:00:00Z", i64::MAX),
            ("9999-12-31T23:59:59-00:01", i64::MAX),
            ("0001-01-01T00:00:00+00:01", i64::MAX),
            ("1970-01-01T00:00:00", i64::MAX),
            ("1970-01-01T00:00:00Z?", i64::MAX),
            ("1970-01-01Z", i64::MAX),
            ("noon", i64::MAX),
        ] {
            let parsed = Timestamp::parse(text).map_or(i64::MAX, Timestamp::as_micros);
            assert_eq!(parsed, micros, "{text}");
        }
    }
}
