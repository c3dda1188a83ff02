//! The `tallystone` command.
//!
//! Owns nothing but the way in and the way out: `args` says what may be asked, one module
//! per command does it through the library's public calls, `output` prints, and `failure`
//! turns every error into a message and an exit code.

mod alerts;
mod args;
mod config;
mod dashboard;
mod demo;
mod export;
mod failure;
mod files;
mod import;
mod inspect;
mod maintain;
mod open;
mod output;
mod query;
mod record;
mod repair;
mod report;
mod shell;
mod stats;
mod verify;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use failure::{Exit, Failure};

fn main() -> ExitCode {
    keep_running_at_the_file_size_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to be told if even the message cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let globals = &cli.globals;
    let only_reads = matches!(
        cli.command,
        Command::Query(_)
            | Command::Export(_)
            | Command::Stats(_)
            | Command::Verify(_)
            | Command::Inspect(_)
    );
    if globals.untrusted && !only_reads {
        let message = "--untrusted goes with query, export, stats, verify and inspect alone";
        return Err(Failure::Usage(message.to_owned()));
    }
    match &cli.command {
        Command::Demo(args) => demo::run(globals, args),
        Command::Record(args) => record::run(globals, args),
        Command::Import(args) => import::run(globals, args),
        Command::Query(args) => query::run(globals, args),
        Command::Export(args) => export::run(globals, args),
        Command::Dashboard(args) => dashboard::run(globals, args),
        Command::Alerts(args) => alerts::run(globals, args),
        Command::Report(args) => report::run(globals, args),
        Command::Stats(args) => stats::run(globals, args),
        Command::Maintain(args) => maintain::run(globals, args),
        Command::Retention(args) => maintain::retention(globals, args),
        Command::Backup(args) => maintain::backup(globals, args),
        Command::Inspect(args) => inspect::run(globals, args),
        Command::Verify(args) => verify::run(globals, args),
        Command::Repair(args) => repair::run(globals, args),
        Command::RebuildCatalog => verify::rebuild_catalog(globals),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    }
}

/// A write past `ulimit -f` raises a signal that ends the process; handled, it is an error
/// like that of a full disk.
fn keep_running_at_the_file_size_limit() {
    const SIGXFSZ: i32 = 25;
    let _ = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
}
