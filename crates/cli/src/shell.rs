//! `tallystone completions` and `tallystone man`: made from the command line itself.

use std::io::Write;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Exit, Failure};
use crate::output;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    // By way of a buffer: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tallystone", &mut script);
    print(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let mut command = Cli::command();
    command.build();
    if let Some(name) = &args.command {
        let found = command.find_subcommand(name).cloned();
        let unknown = || Failure::Usage(format!("man {name:?}: no such command"));
        let page = found.ok_or_else(unknown)?;
        command = page.display_name(format!("tallystone-{name}"));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print(&page)
}

fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut out = output::stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(Exit::Ok)
}
