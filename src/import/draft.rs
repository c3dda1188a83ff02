//! A row in the making: fields are set one by one, then checked as a whole.

use std::borrow::Cow;

use super::fields::{TimeFormat, Zone};
use super::{ParsedRow, ReadOptions};
use crate::error::Result;
use crate::row::TaskMetric;
use crate::schema::{ColumnType, Table, gauge, task};
use crate::time::Timestamp;

/// The fields of one row, by column number. Its buffers are used again for the next row.
#[derive(Debug)]
pub(super) struct Draft {
    table: Table,
    time: TimeFormat,
    zone: Zone,
    slots: Vec<Slot>,
    constants: Vec<(usize, String)>,
}

#[derive(Debug, Default)]
struct Slot {
    is_set: bool,
    text: String,
    int: i64,
    float: f64,
}

/// A value of a source, before it is known what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// Bare text, as in CSV: a number or a flag, if the field is one.
    Bare(&'a str),
    /// Quoted text, as in JSON: only ever text.
    Quoted(Cow<'a, str>),
    /// A number, `true`, `false`, an object or an array of JSON.
    Json(&'a str),
    /// No value.
    Null,
}

impl Draft {
    pub(super) fn new(table: Table, options: &ReadOptions) -> Result<Self> {
        options.map.check(table)?;
        let constants = options.map.constants(table)?;
        Ok(Self {
            table,
            time: options.time.clone(),
            zone: options.zone.clone().unwrap_or_default(),
            slots: table.schema().columns.iter().map(|_| Slot::default()).collect(),
            constants: constants.into_iter().map(|(c, value)| (c, value.to_owned())).collect(),
        })
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// Empties all fields but those that are the same in every row.
    pub(super) fn clear(&mut self) -> Result<(), String> {
        for slot in &mut self.slots {
            slot.is_set = false;
        }
        for (column, value) in std::mem::take(&mut self.constants) {
            let outcome = self.set(column, &Cell::Bare(&value));
            self.constants.push((column, value));
            outcome?;
        }
        Ok(())
    }

    /// Whether a field has a value or was named with none.
    pub(super) fn is_set(&self, column: usize) -> bool {
        self.slots.get(column).is_some_and(|slot| slot.is_set)
    }

    /// Sets a field; the error says what the value is and what was expected.
    pub(super) fn set(&mut self, column: usize, cell: &Cell<'_>) -> Result<(), String> {
        let schema = self.table.schema();
        let (Some(field), Some(slot)) = (schema.columns.get(column), self.slots.get_mut(column))
        else {
            return Ok(());
        };
        let name = field.name;
        if matches!(cell, Cell::Null | Cell::Bare("")) {
            return if field.nullable {
                Ok(())
            } else {
                Err(format!("{name}: no value, expected one"))
            };
        }
        match field.kind {
            ColumnType::Timestamp => {
                let text = time_text(cell, &self.time).map_err(|e| format!("{name}: {e}"))?;
                let stamp = self.time.read_in(text, &self.zone);
                slot.int = stamp.map_err(|e| format!("{name}: {}", e.message()))?.as_micros();
            }
            ColumnType::Int => slot.int = int(cell).map_err(|e| format!("{name}: {e}"))?,
            ColumnType::Float => slot.float = float(cell).map_err(|e| format!("{name}: {e}"))?,
            ColumnType::Bool => {
                slot.int = i64::from(flag(cell).map_err(|e| format!("{name}: {e}"))?);
            }
            ColumnType::Dimension | ColumnType::Text => {
                let text = quoted(cell).map_err(|e| format!("{name}: {e}"))?;
                slot.text.clear();
                slot.text.push_str(text);
            }
            ColumnType::Json => {
                slot.text.clear();
                slot.text.push_str(verbatim(cell));
            }
        }
        slot.is_set = true;
        Ok(())
    }

    /// The row, if it keeps every rule of its table.
    pub(super) fn row(&self) -> Result<ParsedRow<'_>, String> {
        for (field, slot) in self.table.schema().columns.iter().zip(&self.slots) {
            if !slot.is_set && !field.nullable {
                return Err(format!("{}: missing, expected a value", field.name));
            }
        }
        let row = match self.table {
            Table::Task => ParsedRow::Task(TaskMetric {
                timestamp: self.stamp(task::TIMESTAMP)?,
                task_id: self.text(task::TASK_ID),
                agent_id: self.text(task::AGENT_ID),
                duration_ms: self.int(task::DURATION_MS),
                tokens_used: self.int(task::TOKENS_USED),
                success: self.int(task::SUCCESS) == Some(1),
                metadata: self.optional(task::METADATA),
            }),
            Table::Agent | Table::Swarm => ParsedRow::gauge(
                self.table,
                self.stamp(gauge::TIMESTAMP)?,
                self.text(gauge::OWNER_ID),
                self.text(gauge::METRIC_TYPE),
                self.float(gauge::VALUE),
                self.optional(gauge::METADATA),
            ),
        };
        row.checked()
    }

    fn slot(&self, column: usize) -> Option<&Slot> {
        self.slots.get(column).filter(|slot| slot.is_set)
    }

    fn stamp(&self, column: usize) -> Result<Timestamp, String> {
        Timestamp::from_micros(self.int(column).unwrap_or_default())
            .map_err(|error| error.message().to_owned())
    }

    fn text(&self, column: usize) -> &str {
        self.optional(column).unwrap_or_default()
    }

    fn optional(&self, column: usize) -> Option<&str> {
        self.slot(column).map(|slot| slot.text.as_str())
    }

    fn int(&self, column: usize) -> Option<i64> {
        self.slot(column).map(|slot| slot.int)
    }

    fn float(&self, column: usize) -> f64 {
        self.slot(column).map_or(f64::NAN, |slot| slot.float)
    }
}

/// The value as a message shows it, cut where it is long.
fn shown(cell: &Cell<'_>) -> String {
    const CHARS: usize = 40;
    let (text, is_json) = match cell {
        Cell::Bare(text) => (*text, false),
        Cell::Quoted(text) => (text.as_ref(), false),
        Cell::Json(text) => (*text, true),
        Cell::Null => ("null", true),
    };
    let start: String = text.chars().take(CHARS).collect();
    let dots = if start.len() < text.len() { "..." } else { "" };
    if is_json { format!("{start}{dots}") } else { format!("{start:?}{dots}") }
}

fn time_text<'a>(cell: &'a Cell<'_>, time: &TimeFormat) -> Result<&'a str, String> {
    match cell {
        Cell::Bare(text) => Ok(text),
        Cell::Quoted(text) => Ok(text),
        Cell::Json(text) if time.is_number() => Ok(text),
        _ => Err(format!(
            "{} is not text, expected RFC 3339 text, or its unit named by the time format",
            shown(cell)
        )),
    }
}

fn int(cell: &Cell<'_>) -> Result<i64, String> {
    match cell {
        Cell::Bare(text) | Cell::Json(text) => text.parse().ok(),
        Cell::Quoted(_) | Cell::Null => None,
    }
    .ok_or_else(|| {
        format!("{} is not a whole number of 64 bits, expected one or nothing", shown(cell))
    })
}

fn float(cell: &Cell<'_>) -> Result<f64, String> {
    match cell {
        Cell::Bare(text) | Cell::Json(text) => text.parse().ok().filter(|v: &f64| v.is_finite()),
        Cell::Quoted(_) | Cell::Null => None,
    }
    .ok_or_else(|| format!("{} is not a number, expected a finite one", shown(cell)))
}

fn flag(cell: &Cell<'_>) -> Result<bool, String> {
    match cell {
        Cell::Bare("true" | "1") | Cell::Json("true" | "1") => Ok(true),
        Cell::Bare("false" | "0") | Cell::Json("false" | "0") => Ok(false),
        _ => Err(format!("{} is not a flag, expected true, false, 1 or 0", shown(cell))),
    }
}

fn quoted<'a>(cell: &'a Cell<'_>) -> Result<&'a str, String> {
    match cell {
        Cell::Bare(text) => Ok(text),
        Cell::Quoted(text) => Ok(text),
        Cell::Json(_) | Cell::Null => Err(format!("{} is not text, expected text", shown(cell))),
    }
}

/// JSON text: as it stands, or inside a string.
fn verbatim<'a>(cell: &'a Cell<'_>) -> &'a str {
    match cell {
        Cell::Bare(text) | Cell::Json(text) => text,
        Cell::Quoted(text) => text,
        Cell::Null => "null",
    }
}
