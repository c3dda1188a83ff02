//! Numbers over time as columns of characters.
//!
//! Columns stand on 0, or on the smallest number if that is below; what is missing stays a
//! gap. Of several steps in one column the largest is drawn, so that no peak is lost.

/// Rows of a chart, the upper one first; each is at most `width` cells.
pub(super) fn chart(
    values: &[Option<f64>],
    width: usize,
    height: usize,
    heights: &[&str; 8],
) -> Vec<String> {
    let columns = columns(values, width);
    let bounds = bounds(&columns);
    let eighths: Vec<Option<usize>> =
        columns.iter().map(|value| value.map(|value| eighths(value, bounds, height))).collect();
    (0..height)
        .map(|row| {
            let below = (height - 1 - row) * 8;
            let cell = |eighths: &Option<usize>| match eighths.map(|n| n.saturating_sub(below)) {
                None | Some(0) => " ",
                Some(part) => heights[part.min(8) - 1],
            };
            eighths.iter().map(cell).collect()
        })
        .collect()
}

/// The smallest and the largest number.
pub(super) fn extremes(values: &[Option<f64>]) -> Option<(f64, f64)> {
    let all = values.iter().flatten().copied().filter(|value| value.is_finite());
    all.fold(None, |found, value| match found {
        None => Some((value, value)),
        Some((least, most)) => Some((value.min(least), value.max(most))),
    })
}

/// Numbers as columns: each step as wide as fits, or several steps in one column.
fn columns(values: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
    if values.is_empty() || width == 0 {
        return Vec::new();
    }
    let repeats = (width / values.len()).max(1);
    let count = values.len().min(width);
    (0..count)
        .flat_map(|column| {
            let steps = column * values.len() / count..(column + 1) * values.len() / count;
            let largest = extremes(&values[steps]).map(|(_, most)| most);
            std::iter::repeat_n(largest, repeats)
        })
        .collect()
}

/// What columns stand on, and what the highest one shows.
fn bounds(columns: &[Option<f64>]) -> (f64, f64) {
    let (least, most) = extremes(columns).unwrap_or((0.0, 0.0));
    (least.min(0.0), most.max(0.0))
}

/// Height of a column in eighths of a row; at least one, so that it is no gap.
fn eighths(value: f64, (low, high): (f64, f64), height: usize) -> usize {
    // Halved first, since the distance may be beyond the largest number.
    let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
    super::part::fraction(height * 8, share).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEIGHTS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn columns_grow_with_numbers_and_gaps_stay() {
        let values = [Some(0.0), Some(4.0), None, Some(8.0)];
        assert_eq!(chart(&values, 4, 1, &HEIGHTS), ["14 8"]);
        assert_eq!(chart(&values, 9, 1, &HEIGHTS), ["1144  88"]);
        assert_eq!(chart(&values, 4, 2, &HEIGHTS), ["   8", "18 8"]);
        assert_eq!(chart(&some(&[-8.0, 0.0, 8.0]), 3, 1, &HEIGHTS), ["148"]);
        assert_eq!(chart(&some(&[0.0, 0.0]), 2, 1, &HEIGHTS), ["11"]);
        assert_eq!(chart(&some(&[-f64::MAX, f64::MAX]), 2, 1, &HEIGHTS), ["18"]);
        assert_eq!(chart(&[None, Some(f64::NAN)], 2, 1, &HEIGHTS), ["  "]);
    }

    #[test]
    fn several_steps_in_a_column_keep_their_peak() {
        let mut values = some(&[1.0; 60]);
        values[31] = Some(8.0);
        let drawn = chart(&values, 25, 1, &HEIGHTS);
        assert_eq!(drawn[0].len(), 25);
        assert_eq!(drawn[0].matches('8').count(), 1);
        assert_eq!(chart(&[], 5, 2, &HEIGHTS), ["", ""]);
        assert_eq!(chart(&values, 0, 1, &HEIGHTS), [""]);
    }
}
