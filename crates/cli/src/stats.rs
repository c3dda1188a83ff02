//! `tallystone stats`: how large the store is.

use std::io::Write;

use tallystone::TableStats;

use crate::args::Globals;
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, Cell, Columns, Record};

/// Columns of the table of sizes.
pub(crate) const COLUMNS: Columns<'static> =
    &["table", "kind", "files", "rows", "bytes", "from", "to"];

impl Record for TableStats {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(self.table),
            Cell::text(self.kind),
            Cell::count(self.files),
            Cell::count(self.rows),
            Cell::count(self.bytes),
            Cell::optional(self.from, Cell::Time),
            Cell::optional(self.to, Cell::Time),
        ]
    }
}

pub(crate) fn run(globals: &Globals) -> Result<Exit, Failure> {
    let stats = open::for_reading(&globals.store)?.stats()?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &stats)?;
    } else {
        output::table(&mut out, 0, COLUMNS, &stats.tables)?;
        let rows: u64 = stats.tables.iter().map(|table| table.rows).sum();
        let bytes: u64 = stats.tables.iter().map(|table| table.bytes).sum();
        writeln!(out, "{} in {}", output::counted(rows, "row"), output::bytes(bytes))?;
        writeln!(out, "{} in replaced files", output::bytes(stats.replaced_bytes))?;
        if stats.damaged_files > 0 {
            let files = output::counted(stats.damaged_files, "file");
            writeln!(out, "{files} cannot be read, see verify")?;
        }
    }
    out.flush()?;
    Ok(if stats.damaged_files == 0 { Exit::Ok } else { Exit::Damaged })
}
