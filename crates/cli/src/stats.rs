//! `tallystone stats`: how large the store is.

use std::io::Write;

use tallystone::{Health, TableStats};

use crate::args::{Globals, StatsArgs};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, Cell, Columns, Record, bytes, counted};

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

/// Columns of the table of tiers.
const TIERS: Columns<'static> = &["tier", "files", "rows", "bytes"];

/// What all tables have in one tier.
struct Tier {
    name: &'static str,
    files: u64,
    rows: u64,
    bytes: u64,
}

impl Record for Tier {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(self.name),
            Cell::count(self.files),
            Cell::count(self.rows),
            Cell::count(self.bytes),
        ]
    }
}

/// Sums up kinds of files by tier, in the order of age.
fn tiers(entries: &[TableStats]) -> Vec<Tier> {
    let tier_of = |kind: &str| match kind {
        "archive" => "archive",
        "hourly" => "hourly",
        "daily" => "daily",
        "tombstone" => "gone",
        _ => "detail",
    };
    let mut tiers = Vec::new();
    for name in ["detail", "archive", "hourly", "daily", "gone"] {
        let mut tier = Tier { name, files: 0, rows: 0, bytes: 0 };
        for entry in entries.iter().filter(|entry| tier_of(entry.kind) == name) {
            tier.files += entry.files;
            tier.rows += entry.rows;
            tier.bytes += entry.bytes;
        }
        tiers.extend((tier.files > 0).then_some(tier));
    }
    tiers
}

pub(crate) fn run(globals: &Globals, args: &StatsArgs) -> Result<Exit, Failure> {
    if args.health {
        return health(globals);
    }
    let stats = open::as_told(globals)?.stats()?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &stats)?;
    } else {
        output::table(&mut out, 0, COLUMNS, &stats.tables)?;
        let rows: u64 = stats.tables.iter().map(|table| table.rows).sum();
        let size: u64 = stats.tables.iter().map(|table| table.bytes).sum();
        writeln!(out, "{} in {}", counted(rows, "row"), bytes(size))?;
        writeln!(out, "{} in replaced files", bytes(stats.replaced_bytes))?;
        if !stats.gone.is_empty() {
            let all = [&stats.tables[..], &stats.gone].concat();
            output::table(&mut out, 0, TIERS, &tiers(&all))?;
        }
        if stats.damaged_gone > 0 {
            let files = counted(stats.damaged_gone, "tombstone");
            writeln!(out, "{files} of damaged files: damaged, gone")?;
        }
        if stats.damaged_files > 0 {
            let files = counted(stats.damaged_files, "file");
            writeln!(out, "{files} cannot be read, see verify")?;
        }
    }
    out.flush()?;
    Ok(if stats.damaged_files == 0 { Exit::Ok } else { Exit::Damaged })
}

fn health(globals: &Globals) -> Result<Exit, Failure> {
    let health = open::as_told(globals)?.health()?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &health)?;
    } else {
        print_health(&mut out, &health)?;
    }
    out.flush()?;
    Ok(if health.damaged_files + health.missing_files == 0 { Exit::Ok } else { Exit::Damaged })
}

fn print_health(out: &mut impl Write, health: &Health) -> Result<(), Failure> {
    match &health.last_maintenance {
        Some(job) => {
            let outcome = job.outcome.as_deref().unwrap_or("not ended");
            let what = output::escape(&job.what);
            writeln!(out, "last maintenance at {}: {what}, {outcome}", job.started)?;
        }
        None => writeln!(out, "no maintenance is on record")?,
    }
    if let Some(at) = health.last_expiry {
        writeln!(out, "clock believed at {at}")?;
    }
    if let Some(why) = &health.clock_refused {
        writeln!(out, "nothing expires at present: {why}")?;
    }
    let rows = counted(health.unsealed_rows, "row");
    write!(out, "{rows} in {} not sealed", bytes(health.unsealed_bytes))?;
    match health.unsealed_from {
        Some(from) => writeln!(out, ", the earliest of {from}")?,
        None => writeln!(out)?,
    }
    writeln!(out, "{} in replaced files", bytes(health.replaced_bytes))?;
    if health.damaged_files > 0 {
        writeln!(out, "{} cannot be read, see verify", counted(health.damaged_files, "file"))?;
    }
    if health.missing_files > 0 {
        writeln!(out, "{} gone for no reason, see verify", counted(health.missing_files, "file"))?;
    }
    Ok(())
}
