//! `tallystone verify` and `tallystone rebuild-catalog`.

use std::io::Write;

use crate::args::{Globals, VerifyArgs};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, bytes, counted};

/// Ends as with damaged data if anything is wrong.
pub(crate) fn run(globals: &Globals, args: &VerifyArgs) -> Result<Exit, Failure> {
    let report = open::for_reading(&globals.store)?.verify(args.deep)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        let (files, rows) = (counted(report.files, "file"), counted(report.rows, "row"));
        writeln!(out, "checked {files}, {rows}, {}", bytes(report.bytes))?;
        for problem in &report.problems {
            let loss = if problem.loses_rows { "rows are lost" } else { "no row is lost" };
            let (file, message) = (output::escape(&problem.file), output::escape(&problem.message));
            writeln!(out, "{file}: {message} ({loss})")?;
        }
        let verdict = match report.problems.len() as u64 {
            0 => "no problem".to_owned(),
            count => counted(count, "problem"),
        };
        writeln!(out, "{verdict} found")?;
    }
    out.flush()?;
    Ok(if report.problems.is_empty() { Exit::Ok } else { Exit::Damaged })
}

pub(crate) fn rebuild_catalog(globals: &Globals) -> Result<Exit, Failure> {
    let store = open::existing(&globals.store)?;
    let report = store.rebuild_catalog()?;
    store.close()?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        let (segments, rows) = (counted(report.segments, "segment"), counted(report.rows, "row"));
        writeln!(out, "entered {segments}, {rows}")?;
        if let Some(path) = &report.set_aside {
            writeln!(out, "the old catalog is now {}", path.display())?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}
