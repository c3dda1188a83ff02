//! `tallystone dashboard`: what an operator wants to know of a store, live or once.

mod entries;
pub(crate) mod figures;
pub(crate) mod format;
pub(crate) mod lines;
mod live;
pub(crate) mod read;
pub(crate) mod settings;
pub(crate) mod text;

use std::io::Write;

use tallystone::time::{Clock, SystemClock};

use self::read::{Ask, Reader};
use crate::alerts;
use crate::args::{DashboardArgs, Globals};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::output;

pub(crate) fn run(globals: &Globals, args: &DashboardArgs) -> Result<Exit, Failure> {
    let config = Config::load(globals.config.as_deref(), &globals.store).map_err(Failure::Usage)?;
    if args.once {
        return once(globals, args, &config);
    }
    if globals.json {
        return Err(Failure::Usage("--json: expected --once with it".to_owned()));
    }
    live::run(globals, args, config)
}

/// Ends with 3 where damaged data were met, 4 where an alert fires.
fn once(globals: &Globals, args: &DashboardArgs, config: &Config) -> Result<Exit, Failure> {
    let window = args.window.unwrap_or(config.dashboard.window);
    let now = args.at.unwrap_or_else(|| SystemClock.now());
    // States of alerts are about now: a look at another time keeps none.
    let mut reader = match args.at {
        Some(_) => Reader::open_read_only(&globals.store, config)?,
        None => Reader::open(&globals.store, config)?,
    };
    let figures = reader.read(&Ask::of_window(window), now)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &figures)?;
    } else {
        text::print(&mut out, &figures, &config.dashboard, args.ascii || !is_utf8(environment))?;
    }
    out.flush()?;
    Ok(if figures.is_damaged { Exit::Damaged } else { alerts::exit(&figures.alerts) })
}

/// Whether the locale says that text is UTF-8.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A variable of the environment, if it is text.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}
