//! `tallystone alerts check`: for timers and pipelines.

use std::io::Write;

use tallystone::alert::Evaluation;

use crate::args::{AlertsArgs, AlertsWhat, Globals};
use crate::config::Config;
use crate::dashboard::text::alert_rows;
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output;
use crate::query::note;

pub(crate) fn run(globals: &Globals, args: &AlertsArgs) -> Result<Exit, Failure> {
    match args.what {
        AlertsWhat::Check => check(globals),
    }
}

/// Takes every alert to its next state, where no other process keeps the states.
fn check(globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(globals.config.as_deref(), &globals.store).map_err(Failure::Usage)?;
    let store = open::for_writing_or_reading(&globals.store)?;
    let mut alerts = store.alerts(config.rules())?;
    let found = store.evaluate_alerts(&mut alerts)?;
    store.close()?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &found)?;
    } else {
        let (columns, rows) = alert_rows(&found);
        output::table(&mut out, 0, columns, &rows)?;
    }
    out.flush()?;
    found.notes.iter().for_each(|text| note(text));
    Ok(exit(&found))
}

/// Damage goes before an alert that fires, and that before one that could not be judged.
pub(crate) fn exit(found: &Evaluation) -> Exit {
    if found.alerts.iter().any(|alert| alert.is_damaged) {
        Exit::Damaged
    } else if found.firing() > 0 {
        Exit::Firing
    } else if found.alerts.iter().any(|alert| alert.error.is_some()) {
        Exit::Failed
    } else {
        Exit::Ok
    }
}
