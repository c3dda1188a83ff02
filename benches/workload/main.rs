//! The figures of the performance page: every question, ingest, size, opening and memory,
//! beside their aims and this machine's floor.
//!
//! `cargo bench --bench workload` prints them; `benches/README.md` says what each row
//! means. Every answer is checked against a plain computation over the generated rows
//! before it is timed.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]
#![expect(dead_code, reason = "the table does not ask through `questions` yet")]

mod arguments;
mod data;
mod dump;
mod questions;
mod serve;
mod stores;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Arguments, Mode};
use questions::Question;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let rows = arguments.rows[0];
    // Without --keep the stores go when this is dropped.
    let scratch = tempfile::tempdir_in("target").unwrap();
    let folder = |rows: usize| -> PathBuf {
        arguments.keep.as_deref().unwrap_or(scratch.path()).join(rows.to_string())
    };
    match &arguments.mode {
        Mode::Dump(dir) => dump::dump(dir, rows),
        Mode::Serve => serve::serve(&folder(rows), rows),
        Mode::Child(..) => {}
        Mode::Measure => match arguments.repeat.as_deref().map(Question::named) {
            Some(Some(question)) => serve::repeat(&folder(rows), rows, question, arguments.times),
            _ => table::table(rows, arguments.smoke),
        },
    }
    ExitCode::SUCCESS
}
