//! `tallystone report`: a day or a week, beside the one before.

use std::io::{self, Write};

use serde::Serialize;
use tallystone::time::{Clock, SystemClock};
use tallystone::{
    Coverage, Filter, Interval, Order, Percentile, SlowTask, Store, Table, Timestamp, TopBy, Value,
};

use crate::args::{Globals, ReportArgs, ReportPeriod};
use crate::dashboard::figures::{Agent, Compared};
use crate::dashboard::read::period;
use crate::dashboard::text::{AGENTS, Texts, agent_row, change_text, mark};
use crate::dashboard::{format, lines};
use crate::failure::{Exit, Failure};
use crate::open;
use crate::output::{self, Record, counted, escape};
use crate::query::missing;

/// Agents and tasks that are listed.
const LISTED: usize = 20;
const SLOWEST: usize = 10;

/// A day or a week in numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `daily` or `weekly`.
    kind: &'static str,
    /// The store.
    store: String,
    /// Its tasks, and those of the day or week before.
    summary: Compared,
    /// Agents with the most tasks, at most 20.
    agents: Vec<Agent>,
    /// Agents, listed or not.
    total_agents: usize,
    /// The slowest tasks, at most 10.
    slowest: Vec<SlowTask>,
    /// What the numbers do not rest on.
    missing: Vec<String>,
    #[serde(skip)]
    exit: Exit,
}

pub(crate) fn run(globals: &Globals, args: &ReportArgs) -> Result<Exit, Failure> {
    let store = open::for_reading(&globals.store)?;
    let report = read(&store, args.period, args.of)?;
    let mut out = output::stdout();
    if globals.json {
        output::json(&mut out, &report)?;
    } else if args.markdown {
        report.print(&mut out, &Markdown)?;
    } else {
        report.print(&mut out, &Plain)?;
    }
    out.flush()?;
    Ok(report.exit)
}

/// Reads the day or week that `of` lies in, or else the last that is over.
pub(crate) fn read(
    store: &Store,
    kind: ReportPeriod,
    of: Option<Timestamp>,
) -> Result<Report, Failure> {
    let (name, interval) = match kind {
        ReportPeriod::Daily => ("daily", Interval::Day),
        ReportPeriod::Weekly => ("weekly", Interval::Week),
    };
    let stamp = |micros: i64| Timestamp::from_micros(micros);
    let previous = |start: i64| interval.bucket_start(start.saturating_sub(1));
    let now = SystemClock.now().as_micros();
    let start = match of {
        Some(of) => interval.bucket_start(of.as_micros()),
        None => previous(interval.bucket_start(now)),
    };
    let part = |start: i64| -> Result<Filter, Failure> {
        let range = Filter::new().between(stamp(start)?, stamp(interval.next_bucket(start))?);
        Ok(Filter { allow_partial: true, ..range })
    };
    let filter = part(start)?;
    let snapshot = store.snapshot()?;
    let (this, coverage) = period(&snapshot, &filter)?;
    let (before, earlier) = period(&snapshot, &part(previous(start))?)?;
    let order = Order::Descending;
    let top = snapshot.top_agents(TopBy::TaskCount, order, &filter.clone().all())?;
    let slowest = snapshot.slowest_tasks(&filter.clone().limit(SLOWEST))?;
    let how = if kind == ReportPeriod::Daily { Percentile::Exact } else { Percentile::Estimate };
    let agents = top.rows.iter().take(LISTED).map(|agent| {
        let of = filter.clone().agent(&agent.agent_id);
        let p95 = snapshot.percentile(Table::Task, "duration_ms", 0.95, how, &of)?;
        Ok(Agent::new(agent, p95.value.value.map(Value::as_f64)))
    });
    let agents = agents.collect::<tallystone::Result<_>>()?;
    let mut lines = missing(&coverage);
    let known = [&earlier, &top.coverage, &slowest.coverage];
    for line in known.iter().flat_map(|coverage| missing(coverage)) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let is_damaged = |coverage: &Coverage| !coverage.damaged.is_empty();
    let exit =
        if known.into_iter().chain([&coverage]).any(is_damaged) { Exit::Damaged } else { Exit::Ok };
    Ok(Report {
        kind: name,
        store: store.dir().display().to_string(),
        summary: Compared { now: this, before },
        agents,
        total_agents: top.rows.len(),
        slowest: slowest.rows,
        missing: lines,
        exit,
    })
}

/// How headings, lines and tables are written.
pub(crate) trait Style {
    /// A heading; the first level is the title.
    fn heading(&self, out: &mut dyn Write, level: usize, text: &str) -> io::Result<()>;
    /// A paragraph.
    fn line(&self, out: &mut dyn Write, text: &str) -> io::Result<()>;
    /// A table.
    fn table(&self, out: &mut dyn Write, columns: &[&str], rows: &[Texts]) -> Result<(), Failure>;
}

/// For terminals, logs and mails.
pub(crate) struct Plain;

impl Style for Plain {
    fn heading(&self, out: &mut dyn Write, level: usize, text: &str) -> io::Result<()> {
        match level {
            1 => writeln!(out, "{}", escape(text)),
            _ => writeln!(out, "\n== {} ==\n", escape(text)),
        }
    }

    fn line(&self, out: &mut dyn Write, text: &str) -> io::Result<()> {
        writeln!(out, "  {}", escape(text))
    }

    fn table(
        &self,
        mut out: &mut dyn Write,
        columns: &[&str],
        rows: &[Texts],
    ) -> Result<(), Failure> {
        output::table(&mut out, 2, columns, rows)
    }
}

/// For wikis and chats.
pub(crate) struct Markdown;

impl Style for Markdown {
    fn heading(&self, out: &mut dyn Write, level: usize, text: &str) -> io::Result<()> {
        writeln!(out, "{} {}\n", "#".repeat(level), literal(text))
    }

    fn line(&self, out: &mut dyn Write, text: &str) -> io::Result<()> {
        writeln!(out, "{}\n", literal(text))
    }

    fn table(&self, out: &mut dyn Write, columns: &[&str], rows: &[Texts]) -> Result<(), Failure> {
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            let cells: Vec<String> = cells.collect();
            writeln!(out, "| {} |", cells.join(" | "))
        };
        line(&mut columns.iter().map(|name| literal(name)))?;
        line(&mut columns.iter().map(|_| "---".to_owned()))?;
        for row in rows {
            line(&mut row.cells().iter().map(|cell| literal(&cell.plain())))?;
        }
        writeln!(out)?;
        Ok(())
    }
}

/// Text of which Markdown takes nothing for more than itself.
fn literal(text: &str) -> String {
    let mut literal = String::new();
    for c in escape(text).chars() {
        match c {
            '<' => literal.push_str("&lt;"),
            '&' => literal.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' | '>' | '@' => {
                literal.extend(['\\', c]);
            }
            _ => literal.push(c),
        }
    }
    literal
}

impl Report {
    /// Prints everything.
    pub(crate) fn print(&self, out: &mut impl Write, style: &impl Style) -> Result<(), Failure> {
        let (from, to) = (self.summary.now.from, self.summary.now.to);
        let title = format!("Tallystone, {} report: {from} to {to}", self.kind);
        style.heading(out, 1, &title)?;
        style.line(out, &format!("Store {}", self.store))?;

        style.heading(out, 2, "Tasks")?;
        let rows: Vec<Texts> = lines::summary(&self.summary)
            .into_iter()
            .map(|line| {
                let change = change_text(line.change.as_ref());
                let mark = mark(line.level).to_owned();
                Texts(vec![line.name.to_owned(), line.value, mark, line.before, change])
            })
            .collect();
        style.table(out, &["", "this", "", "before", "change"], &rows)?;
        if let Some(note) = lines::estimate(&self.summary) {
            style.line(out, &note)?;
        }

        style.heading(out, 2, "Agents")?;
        let rows: Vec<Texts> = self.agents.iter().map(agent_row).collect();
        style.table(out, &AGENTS, &rows)?;
        if let Some(rest) = self.total_agents.checked_sub(LISTED).filter(|rest| *rest > 0) {
            let rest = counted(rest.try_into().unwrap_or(u64::MAX), "agent");
            style.line(out, &format!("and {rest} with fewer tasks"))?;
        }

        style.heading(out, 2, "Slowest tasks")?;
        let rows: Vec<Texts> = self.slowest.iter().map(slow_row).collect();
        let columns = ["task", "agent", "duration", "tokens", "success", "finished"];
        style.table(out, &columns, &rows)?;

        if !self.missing.is_empty() {
            style.heading(out, 2, "Missing")?;
            for line in &self.missing {
                style.line(out, line)?;
            }
        }
        Ok(())
    }
}

fn slow_row(task: &SlowTask) -> Texts {
    let tokens = |tokens: i64| Value::Int(tokens).as_f64();
    Texts(vec![
        task.task_id.clone(),
        task.agent_id.clone(),
        format::duration_ms(Value::Int(task.duration_ms).as_f64()),
        task.tokens_used.map_or_else(|| "-".to_owned(), |used| format::number(tokens(used))),
        task.success.to_string(),
        format::time(task.timestamp),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_takes_names_for_text() {
        let mut out = Vec::new();
        let rows = [Texts(vec!["a|b`c`".to_owned(), "<b>*x*\n\u{202e}".to_owned()])];
        Markdown.table(&mut out, &["one", "two_"], &rows).unwrap();
        let lines = [
            "| one | two\\_ |",
            "| --- | --- |",
            "| a\\|b\\`c\\` | &lt;b\\>\\*x\\*\\\\n\\\\u{202e} |",
            "",
            "",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), lines.join("\n"));
    }
}
