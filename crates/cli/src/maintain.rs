//! `tallystone maintain`, `tallystone retention` and `tallystone backup`.

use std::io::Write;
use std::time::Duration;

use indicatif::ProgressBar;
use tallystone::{
    MaintenanceReport, MaintenanceRequest, Postponed, Retention, Table, TableRetention, TierChange,
    Tiers,
};

use crate::args::{BackupArgs, Globals, MaintainArgs, RetentionArgs, RetentionWhat, SetArgs};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, Cell, Columns, Record, bytes, counted};

const CHANGES: Columns<'static> =
    &["table", "tier", "files", "rows", "bytes", "then", "from", "to"];
const POSTPONED: Columns<'static> = &["table", "day", "postponed because"];
const RULES: Columns<'static> = &["table", "detailed", "archive", "hourly", "daily"];

impl Record for TierChange {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![
            Cell::text(self.table),
            Cell::text(self.tier),
            Cell::count(self.files),
            Cell::count(self.rows),
            Cell::count(self.bytes),
            Cell::count(self.bytes_after),
            Cell::optional(self.from, Cell::Time),
            Cell::optional(self.to, Cell::Time),
        ]
    }
}

impl Record for Postponed {
    fn cells(&self) -> Vec<Cell<'_>> {
        vec![Cell::text(self.table), Cell::text(&self.day), Cell::text(&self.reason)]
    }
}

/// Ends as failed where the clock is not believed, so that whoever runs it by a timer is told.
pub(crate) fn run(globals: &Globals, args: &MaintainArgs) -> Result<Exit, Failure> {
    let store = open::existing(&globals.store)?;
    let bar = spinner();
    let request = MaintenanceRequest {
        what: args.what.into(),
        dry_run: args.dry_run,
        accept_clock: args.accept_clock,
    };
    let report = store.maintain(&request)?;
    store.close()?;
    bar.finish_and_clear();
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        print(&mut out, &report)?;
    }
    out.flush()?;
    match &report.refused {
        None => Ok(Exit::Ok),
        Some(why) => {
            let remedy = "where the clock is right, say so with --accept-clock";
            Err(Failure::Other(format!("nothing may expire: {why}; {remedy}")))
        }
    }
}

fn print(out: &mut impl Write, report: &MaintenanceReport) -> Result<(), Failure> {
    if report.changes.is_empty() {
        writeln!(out, "nothing to do")?;
    } else {
        output::table(out, 0, CHANGES, &report.changes)?;
    }
    let damaged: u64 = report.changes.iter().map(|change| change.damaged_files).sum();
    if damaged > 0 {
        writeln!(out, "{} damaged, gone: their rows are not counted", counted(damaged, "file"))?;
    }
    if !report.postponed.is_empty() {
        output::table(out, 0, POSTPONED, &report.postponed)?;
    }
    for note in &report.notes {
        writeln!(out, "note: {}", output::escape(note))?;
    }
    if report.dry_run {
        writeln!(out, "a dry run: nothing was changed")?;
    } else {
        writeln!(out, "removed {}", counted(report.files_removed, "old file"))?;
    }
    Ok(())
}

pub(crate) fn retention(globals: &Globals, args: &RetentionArgs) -> Result<Exit, Failure> {
    let rules = match &args.what {
        RetentionWhat::Show => open::for_reading(&globals.store)?.retention()?,
        RetentionWhat::Set(args) => {
            let store = open::existing(&globals.store)?;
            let mut rules = store.retention()?;
            set(&mut rules, args);
            store.set_retention(&rules)?;
            store.close()?;
            rules
        }
    };
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &rules)?;
    } else {
        let lines = Table::ALL.map(|table| Rule { table, rule: rules.table(table) });
        output::table(&mut out, 0, RULES, &lines)?;
        match rules.max_bytes {
            Some(most) => writeln!(out, "at most {}", bytes(most))?,
            None => writeln!(out, "of any size")?,
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// Changes what was named, of the tables that were named.
fn set(rules: &mut Retention, args: &SetArgs) {
    for table in Table::ALL.into_iter().filter(|table| args.table.is_none_or(|it| it == *table)) {
        let now = match rules.table(table) {
            TableRetention::Tiers(tiers) => tiers,
            TableRetention::Keep => Tiers::DEFAULT,
        };
        let days = [args.detailed_days, args.archive_days, args.hourly_days, args.daily_days];
        if args.keep {
            rules.set_table(table, TableRetention::Keep);
        } else if days.iter().any(Option::is_some) {
            rules.set_table(
                table,
                TableRetention::Tiers(Tiers {
                    detailed_days: args.detailed_days.unwrap_or(now.detailed_days),
                    archive_days: args.archive_days.unwrap_or(now.archive_days),
                    hourly_days: args.hourly_days.unwrap_or(now.hourly_days),
                    daily_days: args.daily_days.unwrap_or(now.daily_days),
                }),
            );
        }
    }
    if let Some(most) = args.max_bytes {
        rules.max_bytes = most.0;
    }
}

/// The rule of a table as a line.
struct Rule {
    table: Table,
    rule: TableRetention,
}

impl Record for Rule {
    fn cells(&self) -> Vec<Cell<'_>> {
        let name = Cell::text(self.table.name());
        match self.rule {
            TableRetention::Keep => {
                vec![name, Cell::text("for ever"), Cell::Null, Cell::Null, Cell::Null]
            }
            TableRetention::Tiers(tiers) => {
                let days = |days: u32| Cell::Text(counted(days.into(), "day").into());
                let Tiers { detailed_days, archive_days, hourly_days, daily_days } = tiers;
                let mut cells = vec![name];
                cells.extend([detailed_days, archive_days, hourly_days, daily_days].map(days));
                cells
            }
        }
    }
}

pub(crate) fn backup(globals: &Globals, args: &BackupArgs) -> Result<Exit, Failure> {
    let store = open::existing(&globals.store)?;
    let bar = spinner();
    let report = store.backup(&args.dir)?;
    store.close()?;
    bar.finish_and_clear();
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else {
        let (files, rows) = (counted(report.files, "file"), counted(report.rows, "row"));
        writeln!(out, "{files} with {rows}, {}, of these", bytes(report.bytes))?;
        writeln!(out, "{} there already,", counted(report.files_unchanged, "file"))?;
        writeln!(out, "{} linked,", counted(report.files_linked, "file"))?;
        writeln!(out, "{} copied", bytes(report.bytes_copied))?;
        if report.files_removed > 0 {
            let files = counted(report.files_removed, "file");
            writeln!(out, "{files} of an earlier backup removed")?;
        }
        for note in &report.notes {
            writeln!(out, "note: {}", output::escape(note))?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// On standard error; nothing where that is not a terminal.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
