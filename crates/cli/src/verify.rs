//! `tallystone verify` and `tallystone rebuild-catalog`.

use std::io::Write;

use tallystone::VerifyProblem;

use crate::args::{Globals, VerifyArgs};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, bytes, counted};

/// Ends as with damaged data if anything is wrong.
pub(crate) fn run(globals: &Globals, args: &VerifyArgs) -> Result<Exit, Failure> {
    let report = open::as_told(globals)?.verify(args.deep)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        let (files, rows) = (counted(report.files, "file"), counted(report.rows, "row"));
        writeln!(out, "checked {files}, {rows}, {}", bytes(report.bytes))?;
        for problem in &report.problems {
            writeln!(out, "{}", line(problem))?;
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

/// File, place in it, what is wrong, and what is lost by it.
fn line(problem: &VerifyProblem) -> String {
    let mut place = output::escape(&problem.file);
    for (what, number) in [("block", problem.block), ("frame", problem.frame)] {
        if let Some(number) = number {
            place.push_str(&format!(", {what} {number}"));
        }
    }
    if let Some(column) = problem.column {
        place.push_str(&format!(", column {column}"));
    }
    let range = match (problem.from, problem.to) {
        (Some(from), Some(to)) => format!(", {from} to {to}"),
        _ => String::new(),
    };
    let loss = match (problem.loses_rows, problem.rows) {
        (false, _) => "no row is lost".to_owned(),
        (true, Some(rows)) => format!("{} lost{range}", counted(rows, "row")),
        (true, None) => format!("rows are lost, nobody knows how many{range}"),
    };
    format!("{place}: {} ({loss})", output::escape(&problem.message))
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
