//! From stored numbers to the values of answers.
//!
//! Owns the conversions between order keys (spec 1.4), statistics and `Value`.

use crate::format::order::float_from_key;
use crate::query::answer::Value;
use crate::schema::{ColumnType, Schema};
use crate::sketch::stats::{Number, Stats, Sum};

/// The numbers of one column: integers or floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numeric {
    /// An integer column.
    Int,
    /// A float column.
    Float,
}

impl Numeric {
    /// What a measure of the schema holds.
    pub(crate) fn of(schema: &Schema, column: usize) -> Self {
        match schema.columns[column].kind {
            ColumnType::Float => Self::Float,
            _ => Self::Int,
        }
    }

    /// The value of an order key.
    pub(crate) fn value(self, key: i64) -> Value {
        match self {
            Self::Int => Value::Int(key),
            Self::Float => Value::Float(float_from_key(key)),
        }
    }

    /// Statistics of no rows.
    pub(crate) fn no_rows(self) -> Stats {
        match self {
            Self::Int => Stats::INT,
            Self::Float => Stats::FLOAT,
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(value) => Self::Int(value),
            Number::Float(value) => Self::Float(value),
        }
    }
}

impl From<Sum> for Value {
    fn from(sum: Sum) -> Self {
        match sum {
            Sum::Int(sum) => i64::try_from(sum).map_or(Self::Wide(sum), Self::Int),
            Sum::Float { .. } => Self::Float(sum.to_f64()),
        }
    }
}
