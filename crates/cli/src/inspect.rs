//! `tallystone inspect`: what is in a file.

use std::io::Write;

use crate::args::{Globals, InspectArgs};
use crate::failure::{Exit, Failure};
use crate::output;

pub(crate) fn run(globals: &Globals, args: &InspectArgs) -> Result<Exit, Failure> {
    let text = tallystone::inspect::describe(&args.file)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &serde_json::json!({ "file": args.file, "description": text }))?;
    } else {
        for line in text.lines() {
            writeln!(out, "{}", output::escape(line))?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}
