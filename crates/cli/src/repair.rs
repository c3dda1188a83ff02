//! `tallystone repair`: makes a damaged store whole again, and says what is lost.

use std::io::Write;

use tallystone::{RepairReport, RepairedFile, Store};

use crate::args::{Globals, RepairArgs};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, counted};

/// Ends as with damaged data if rows are lost, or damage is left.
pub(crate) fn run(globals: &Globals, args: &RepairArgs) -> Result<Exit, Failure> {
    open::expect_store(&globals.store)?;
    let report = Store::repair(&globals.store, args.dry_run)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        for file in &report.files {
            writeln!(out, "{}: {}", output::escape(&file.file), output::escape(&file.damage))?;
            writeln!(out, "    {}", fate(file))?;
        }
        for note in &report.notes {
            writeln!(out, "{}", output::escape(note))?;
        }
        writeln!(out, "{}", verdict(&report))?;
    }
    out.flush()?;
    let is_well = !report.loses_rows() && !report.leaves_damage();
    Ok(if is_well { Exit::Ok } else { Exit::Damaged })
}

/// What became of a file, its rows, and its bytes.
fn fate(file: &RepairedFile) -> String {
    let mut parts = vec![output::escape(&file.done)];
    if file.rows_kept > 0 {
        parts.push(format!("{} kept", counted(file.rows_kept, "row")));
    }
    if file.rows_lost > 0 || file.rows_lost_is_at_least {
        let range = match (file.lost_from, file.lost_to) {
            (Some(from), Some(to)) => format!(" from {from} to {to}"),
            _ => String::new(),
        };
        parts.push(format!("{} lost{range}", lost(file.rows_lost, file.rows_lost_is_at_least)));
    }
    if let Some(path) = &file.set_aside {
        parts.push(format!("the old file is {}", output::escape(path)));
    }
    parts.join("; ")
}

fn lost(rows: u64, is_at_least: bool) -> String {
    let least = if is_at_least { "at least " } else { "" };
    format!("{least}{}", counted(rows, "row"))
}

fn verdict(report: &RepairReport) -> String {
    let files = counted(report.files.len() as u64, "file");
    let done = if report.dry_run { "to repair" } else { "repaired" };
    match (report.files.is_empty(), report.notes.is_empty()) {
        (true, true) => "nothing to repair".to_owned(),
        (true, false) => format!("{done}; no row lost"),
        (false, _) if report.loses_rows() => {
            format!("{files} {done}; {} lost", lost(report.rows_lost, report.rows_lost_is_at_least))
        }
        (false, _) => format!("{files} {done}; no row lost"),
    }
}
