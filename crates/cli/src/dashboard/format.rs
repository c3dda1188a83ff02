//! Numbers for people: durations, shares, counts, changes, ages, times.
//!
//! Pure, and shared by the live view and the plain text. A text never promises more than its
//! number: what is not quite all is not 100 %, and what is not quite nothing is not 0 %.

use tallystone::Timestamp;
use tallystone::time::{MICROS_PER_DAY, MICROS_PER_SECOND};

use crate::output;

/// A duration in milliseconds: `412 ms`, `1.25 s`, `2 min 5 s`, `3 h 12 min`, `2 d 3 h`.
pub(crate) fn duration_ms(duration: f64) -> String {
    let size = duration.abs();
    if !size.is_finite() || size >= 1e15 {
        return format!("{} ms", number(duration));
    }
    // Below the bounds at which the shorter unit would round up to the longer one.
    if size < 999.5 {
        return format!("{} ms", digits(duration));
    }
    if size < 59_950.0 {
        return format!("{} s", digits(duration / 1_000.0));
    }
    let sign = if duration < 0.0 { "-" } else { "" };
    let seconds = whole(size / 1_000.0);
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(3).min(2);
    let [(large, length), (small, part)] = [units[first], units[first + 1]];
    // Rounded to the smaller unit before it is split, so that there is no 60 in it.
    let parts = (seconds + part / 2) / part;
    let (large_count, small_count) = (parts / (length / part), parts % (length / part));
    let large_count = output::thousands(large_count);
    match small_count {
        0 => format!("{sign}{large_count} {large}"),
        _ => format!("{sign}{large_count} {large} {small_count} {small}"),
    }
}

/// A share of 0 to 1: `93.1 %`.
pub(crate) fn share(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() {
        return "-".to_owned();
    }
    if share > 0.0 && percent < 0.05 {
        return "<0.1 %".to_owned();
    }
    if share < 1.0 && percent >= 99.95 {
        return ">99.9 %".to_owned();
    }
    format!("{} %", trimmed(format!("{percent:.1}")))
}

/// A number with commas at the thousands, and as many decimals as tell something.
pub(crate) fn number(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() || size >= 1e15 || (size > 0.0 && size < 0.001) {
        return format!("{number:.2e}");
    }
    if size < 999.5 {
        return digits(number);
    }
    let sign = if number < 0.0 { "-" } else { "" };
    format!("{sign}{}", output::thousands(whole(size)))
}

/// A number in at most six characters and a unit: `9,999`, `12.3k`, `4.56M`.
pub(crate) fn compact(number: f64) -> String {
    let size = number.abs();
    if size < 9_999.5 || !number.is_finite() {
        return self::number(number);
    }
    let units = [(1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];
    let unit = units.iter().find(|(unit, _)| size < unit * 999.5);
    match unit {
        Some((unit, name)) => format!("{}{name}", digits(number / unit)),
        None => format!("{number:.2e}"),
    }
}

/// A number of bytes.
pub(crate) fn bytes(bytes: f64) -> String {
    let sign = if bytes <= -0.5 { "-" } else { "" };
    format!("{sign}{}", output::bytes(whole(bytes.abs())))
}

/// How a number has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Where it has gone.
    pub(crate) direction: std::cmp::Ordering,
    /// How far: `+12 %`.
    pub(crate) text: String,
}

/// The change of a number, as a share of what it was; `None` where there is nothing to compare.
pub(crate) fn change(now: Option<f64>, before: Option<f64>) -> Option<Change> {
    let (now, before) = both(now, before)?;
    if before == 0.0 {
        let text = if now == 0.0 { "0 %" } else { "new" };
        return Some(Change { direction: now.total_cmp(&0.0), text: text.to_owned() });
    }
    let percent = (now - before) / before.abs() * 100.0;
    let text = match percent.abs() {
        size if size >= 99_950.0 => format!("{} times", compact(now / before)),
        size if size >= 9.95 => format!("{percent:+.0} %"),
        _ => format!("{percent:+.1} %"),
    };
    Some(Change::of(text))
}

/// The change of a share, in percentage points.
pub(crate) fn change_of_share(now: Option<f64>, before: Option<f64>) -> Option<Change> {
    let (now, before) = both(now, before)?;
    Some(Change::of(format!("{:+.1} pp", (now - before) * 100.0)))
}

impl Change {
    /// Of what is shown: what rounds to nothing is no change.
    fn of(text: String) -> Self {
        use std::cmp::Ordering;
        let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
        if !number.contains(|c: char| ('1'..='9').contains(&c)) {
            return Self { direction: Ordering::Equal, text: format!("0 {unit}") };
        }
        let direction = if number.starts_with('-') { Ordering::Less } else { Ordering::Greater };
        Self { direction, text }
    }
}

fn both(now: Option<f64>, before: Option<f64>) -> Option<(f64, f64)> {
    now.zip(before).filter(|(now, before)| now.is_finite() && before.is_finite())
}

/// How long ago it was: `3 s ago`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let micros = now.as_micros().saturating_sub(at.as_micros());
    // A clock that is ahead by less than a second is no clock that is ahead.
    if micros <= -MICROS_PER_SECOND {
        return format!("{} ahead", span(-micros));
    }
    if micros < MICROS_PER_SECOND { "now".to_owned() } else { format!("{} ago", span(micros)) }
}

/// A length of time in whole units: `3 s`, `5 min`, `3 h`, `2 d`.
pub(crate) fn span(micros: i64) -> String {
    let units = [("d", MICROS_PER_DAY), ("h", 3_600_000_000), ("min", 60_000_000)];
    let (unit, length) =
        units.into_iter().find(|(_, length)| micros >= *length).unwrap_or(("s", MICROS_PER_SECOND));
    format!("{} {unit}", output::thousands((micros / length).unsigned_abs()))
}

/// Day and time of day: `2026-11-26 11:53:51Z`.
pub(crate) fn time(at: Timestamp) -> String {
    // A stamp is a day, a T, a time of day with decimals where it has any, and a Z.
    let text = at.to_string().replace('T', " ");
    text.split_once('.').map(|(seconds, _)| format!("{seconds}Z")).unwrap_or(text)
}

/// Time of day: `11:53`.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    time(at).get(11..16).unwrap_or_default().to_owned()
}

/// Three digits that tell something, without zeros at the end of decimals.
fn digits(number: f64) -> String {
    let text = match number.abs() {
        size if size >= 99.95 => format!("{number:.0}"),
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.9995 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    };
    trimmed(text)
}

fn trimmed(text: String) -> String {
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if text == "-0" { "0".to_owned() } else { text }
}

/// Rounded; what does not fit is the largest or smallest that does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_or_two_units() {
        let cases = [
            (0.0, "0 ms"),
            (0.4217, "0.422 ms"),
            (-0.0001, "0 ms"),
            (12.34, "12.3 ms"),
            (999.4, "999 ms"),
            (999.6, "1 s"),
            (1_250.0, "1.25 s"),
            (59_949.0, "59.9 s"),
            (59_960.0, "1 min"),
            (125_000.0, "2 min 5 s"),
            (3_599_600.0, "1 h"),
            (11_520_000.0, "3 h 12 min"),
            (86_399_000.0, "24 h"),
            (183_600_000.0, "2 d 3 h"),
            (-125_000.0, "-2 min 5 s"),
            (1e20, "1.00e20 ms"),
            (f64::NAN, "NaN ms"),
        ];
        for (duration, expected) in cases {
            assert_eq!(duration_ms(duration), expected, "{duration}");
        }
    }

    #[test]
    fn shares_do_not_round_to_all_or_nothing() {
        let cases = [
            (0.0, "0 %"),
            (0.0001, "<0.1 %"),
            (0.931, "93.1 %"),
            (0.9996, ">99.9 %"),
            (1.0, "100 %"),
            (2.5, "250 %"),
            (f64::INFINITY, "-"),
        ];
        for (value, expected) in cases {
            assert_eq!(share(value), expected, "{value}");
        }
    }

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        let cases = [
            (0.0, "0", "0"),
            (0.25, "0.25", "0.25"),
            (1e-9, "1.00e-9", "1.00e-9"),
            (12.34, "12.3", "12.3"),
            (1_234.5, "1,235", "1,235"),
            (-1_234.0, "-1,234", "-1,234"),
            (9_999.9, "10,000", "10k"),
            (12_345.0, "12,345", "12.3k"),
            (999_600.0, "999,600", "1M"),
            (4.56e6, "4,560,000", "4.56M"),
            (-7e9, "-7,000,000,000", "-7G"),
            (1e14, "100,000,000,000,000", "100T"),
            (1e20, "1.00e20", "1.00e20"),
            (f64::NEG_INFINITY, "-inf", "-inf"),
        ];
        for (value, long, short) in cases {
            assert_eq!((number(value).as_str(), compact(value).as_str()), (long, short));
        }
        assert_eq!([bytes(1536.0), bytes(-3.0), bytes(0.2)], ["1.5 KiB", "-3 B", "0 B"]);
    }

    #[test]
    fn changes_say_which_way_and_how_far() {
        let text =
            |now, before| change(now, before).map(|change| (change.direction as i8, change.text));
        let is = |direction, text: &str| Some((direction, text.to_owned()));
        assert_eq!(text(Some(112.0), Some(100.0)), is(1, "+12 %"));
        assert_eq!(text(Some(99.0), Some(100.0)), is(-1, "-1.0 %"));
        assert_eq!(text(Some(100.01), Some(100.0)), is(0, "0 %"));
        assert_eq!(text(Some(5.0), Some(0.0)), is(1, "new"));
        assert_eq!(text(Some(0.0), Some(0.0)), is(0, "0 %"));
        assert_eq!(text(Some(0.0), Some(7.0)), is(-1, "-100 %"));
        assert_eq!(text(Some(3e6), Some(2.0)), is(1, "1.5M times"));
        assert_eq!(text(Some(-1.0), Some(-2.0)), is(1, "+50 %"));
        assert_eq!(text(None, Some(1.0)), None);
        assert_eq!(text(Some(f64::NAN), Some(1.0)), None);
        let points = change_of_share(Some(0.931), Some(0.95)).unwrap();
        assert_eq!((points.direction as i8, points.text.as_str()), (-1, "-1.9 pp"));
        assert_eq!(change_of_share(Some(0.5), Some(0.5)).unwrap().text, "0 pp");
    }

    #[test]
    fn ages_and_times_are_in_whole_units() {
        let now = Timestamp::parse("2026-11-26T11:53:51.25Z").unwrap();
        let before = |micros| Timestamp::from_micros(now.as_micros() - micros).unwrap();
        let cases = [
            (0, "now"),
            (999_999, "now"),
            (3_000_000, "3 s ago"),
            (119_000_000, "1 min ago"),
            (7_200_000_000, "2 h ago"),
            (172_800_000_000, "2 d ago"),
            (-500_000, "now"),
            (-90_000_000, "1 min ahead"),
        ];
        for (micros, expected) in cases {
            assert_eq!(ago(before(micros), now), expected);
        }
        assert_eq!(time(now), "2026-11-26 11:53:51Z");
        assert_eq!(time(before(250_000)), "2026-11-26 11:53:51Z");
        assert_eq!(time_of_day(now), "11:53");
        assert_eq!(time_of_day(Timestamp::MIN), "00:00");
    }
}
