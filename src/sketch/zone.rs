//! Zone maps: the least and the greatest order key of a column of some rows (spec 1.4).

use crate::column::{Bitmap, Column, Values, extremes, valid_extremes};
use crate::format::order::float_key;

/// The zone of the rows that have a value; `None` when there is none, or the column is
/// plain text. Dictionary codes sort like their texts if the dictionary is sorted.
pub(crate) fn zone(column: &Column) -> Option<(i64, i64)> {
    let validity = column.validity.as_ref();
    match &column.values {
        Values::Int(values) => of(values, validity),
        Values::Float(values) => match validity {
            None => {
                let nothing = (i64::MAX, i64::MIN);
                let (min, max) = values.iter().fold(nothing, |(min, max), value| {
                    let key = float_key(*value);
                    (min.min(key), max.max(key))
                });
                (min <= max).then_some((min, max))
            }
            Some(_) => {
                let keys: Vec<i64> = values.iter().map(|value| float_key(*value)).collect();
                of(&keys, validity)
            }
        },
        Values::Bool(values) => {
            let (mut rows, mut set) = (values.len(), values.count_ones());
            if let Some(validity) = validity {
                let both = values.as_bytes().iter().zip(validity.as_bytes());
                set = both.map(|(value, valid)| (value & valid).count_ones() as usize).sum();
                rows = validity.count_ones();
            }
            (rows > 0).then(|| (i64::from(set == rows), i64::from(set > 0)))
        }
        Values::Coded { codes, .. } => {
            let (min, max) = of(codes, validity)?;
            Some((min.into(), max.into()))
        }
        Values::Text(_) => None,
    }
}

fn of<T: Copy + Ord>(values: &[T], validity: Option<&Bitmap>) -> Option<(T, T)> {
    match validity {
        None => extremes(values),
        Some(validity) => valid_extremes(values, validity),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_type_has_its_keys() {
        let zone_of = |values| zone(&Column::new(values));
        assert_eq!(zone_of(Values::Int(vec![3, -4, 9])), Some((-4, 9)));
        let floats = Values::Float(vec![0.0, -0.0]);
        assert_eq!(zone_of(floats), Some((-1, 0)));
        assert_eq!(zone_of(Values::Bool([true, false].into_iter().collect())), Some((0, 1)));
        assert_eq!(zone_of(Values::Text(["a"].into_iter().collect())), None);
        let dictionary = Arc::new(["a", "b", "c"].into_iter().collect());
        assert_eq!(zone_of(Values::Coded { codes: vec![2, 1], dictionary }), Some((1, 2)));
        assert_eq!(zone_of(Values::Int(Vec::new())), None);
    }

    #[test]
    fn nulls_do_not_count() {
        let validity = |bits: [bool; 3]| bits.into_iter().collect();
        let values = || Values::Int(vec![0, 5, 7]);
        let column = Column::with_validity(values(), validity([false, true, true]));
        assert_eq!(zone(&column), Some((5, 7)));
        let none = Column::with_validity(values(), validity([false; 3]));
        assert_eq!(zone(&none), None);
    }
}
