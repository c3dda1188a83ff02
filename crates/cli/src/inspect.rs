//! `tallystone inspect`: what is in a file.

use std::io::Write;

use crate::args::{Globals, InspectArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Ends as with damaged data if anything is wrong with the file.
pub(crate) fn run(globals: &Globals, args: &InspectArgs) -> Result<Exit, Failure> {
    let found = tallystone::inspect::describe(&args.file)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(
            &mut out,
            &serde_json::json!({
                "file": args.file.display().to_string(),
                "kind": found.kind,
                "damage": found.damage,
                "description": found.text,
            }),
        )?;
    } else {
        for line in found.text.lines() {
            writeln!(out, "{}", output::escape(line))?;
        }
    }
    out.flush()?;
    Ok(if found.damage.is_empty() { Exit::Ok } else { Exit::Damaged })
}
