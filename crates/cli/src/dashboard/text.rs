//! Figures as plain text, fit for a log or a mail.

use std::cmp::Ordering;
use std::io::{self, Write};

use tallystone::Timestamp;
use tallystone::alert::{Alert, Evaluation, State};

use super::figures::{Agent, Entries, Figures, Level, PanelFigures, Queue, Resources, Trend};
use super::format::{self, Change};
use super::lines;
use super::settings::{Settings, Show};
use crate::failure::Failure;
use crate::output::{self, Cell, Record, escape};

/// A row of texts.
pub(crate) struct Texts(pub(crate) Vec<String>);

impl Record for Texts {
    fn cells(&self) -> Vec<Cell<'_>> {
        self.0.iter().map(|text| Cell::text(text)).collect()
    }
}

/// Prints all panels in their order.
pub(crate) fn print(
    out: &mut impl Write,
    figures: &Figures,
    settings: &Settings,
    is_ascii: bool,
) -> Result<(), Failure> {
    let (at, window) = (format::time(figures.at), &figures.window);
    writeln!(out, "{}  at {at}  window {window}", escape(&figures.store))?;
    let mut panels = figures.panels.iter();
    for panel in &settings.panels {
        heading(out, &panel.title)?;
        match panel.show {
            Show::Alerts => alerts(out, &figures.alerts)?,
            Show::Summary => summary(out, figures)?,
            Show::Agents => agents(out, figures)?,
            Show::Queue => queue(out, &figures.queue, settings, figures.at)?,
            Show::Resources => resources(out, &figures.resources, settings)?,
            Show::Trends => figures.trends.iter().try_for_each(|t| trend(out, t, is_ascii))?,
            show => panels.next().map_or(Ok(()), |found| query(out, show, found, is_ascii))?,
        }
    }
    if !figures.missing.is_empty() {
        heading(out, "missing")?;
        for line in &figures.missing {
            writeln!(out, "  {}", escape(line))?;
        }
    }
    Ok(())
}

fn heading(out: &mut impl Write, title: &str) -> io::Result<()> {
    writeln!(out, "\n== {} ==\n", escape(title))
}

/// Words for how good a number is; nothing where it is good.
pub(crate) fn mark(level: Option<Level>) -> &'static str {
    match level {
        Some(Level::Bad) => "!!",
        Some(Level::Fair) => "!",
        Some(Level::Good) | None => "",
    }
}

/// The columns and rows of alerts.
pub(crate) fn alert_rows(found: &Evaluation) -> (&'static [&'static str], Vec<Texts>) {
    let row = |alert: &Alert| {
        let value = match (&alert.error, alert.value) {
            (Some(error), _) => error.clone(),
            (None, Some(value)) => format::number(value),
            (None, None) => "-".to_owned(),
        };
        let label = alert.label.as_deref().map_or_else(String::new, |label| format!(" ({label})"));
        Texts(vec![
            alert.state.name().to_owned(),
            alert.since.map_or_else(|| "-".to_owned(), format::time),
            alert.severity.name().to_owned(),
            alert.name.clone(),
            value + &label,
            alert.rule.clone(),
        ])
    };
    let rank = |alert: &&Alert| match alert.state {
        State::Firing => 0,
        State::Pending => 1,
        State::Resolved => 2,
        _ => 3,
    };
    let mut ordered: Vec<&Alert> = found.alerts.iter().collect();
    ordered.sort_by_key(rank);
    let columns = &["state", "since", "severity", "alert", "value", "fires when"];
    (columns, ordered.into_iter().map(row).collect())
}

fn alerts(out: &mut impl Write, found: &Evaluation) -> Result<(), Failure> {
    if found.alerts.is_empty() {
        writeln!(out, "  no rules")?;
        return Ok(());
    }
    let (columns, rows) = alert_rows(found);
    output::table(out, 2, columns, &rows)?;
    if !found.keeps_states {
        writeln!(out, "  another process keeps the states, or the store is open for reading only")?;
    }
    Ok(())
}

/// `+12 %`, with a mark of its direction.
pub(crate) fn change_text(change: Option<&Change>) -> String {
    change.map_or_else(String::new, |change| match change.direction {
        Ordering::Equal => "=".to_owned(),
        _ => change.text.clone(),
    })
}

fn summary(out: &mut impl Write, figures: &Figures) -> Result<(), Failure> {
    let rows: Vec<Texts> = lines::summary(&figures.summary)
        .into_iter()
        .map(|line| {
            let change = change_text(line.change.as_ref());
            let mark = mark(line.level).to_owned();
            Texts(vec![line.name.to_owned(), line.value, mark, line.before, change])
        })
        .collect();
    output::table(out, 2, &["", "now", "", "before", "change"], &rows)?;
    if let Some(note) = lines::estimate(&figures.summary) {
        writeln!(out, "  {note}")?;
    }
    Ok(())
}

/// The columns of a list of agents.
pub(crate) const AGENTS: [&str; 7] =
    ["agent", "tasks", "average", "p95", "tokens per task", "success", ""];

/// An agent's row in a list.
pub(crate) fn agent_row(agent: &Agent) -> Texts {
    let optional =
        |value: Option<f64>, text: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), text);
    Texts(vec![
        agent.agent_id.clone(),
        output::thousands(agent.task_count),
        optional(agent.avg_duration_ms, format::duration_ms),
        optional(agent.p95_duration_ms, format::duration_ms),
        optional(agent.avg_tokens_used, format::number),
        format::share(agent.success_rate),
        mark(Some(Level::of_agent_success(agent.success_rate))).to_owned(),
    ])
}

fn agents(out: &mut impl Write, figures: &Figures) -> Result<(), Failure> {
    let agents = &figures.agents;
    if agents.total == 0 {
        writeln!(out, "  none in the last {}", figures.window)?;
        return Ok(());
    }
    let total = output::counted(agents.total.try_into().unwrap_or(u64::MAX), "agent");
    if agents.fastest.is_empty() {
        writeln!(out, "  {total}, none with durations")?;
        return Ok(());
    }
    for (name, list) in [("fastest", &agents.fastest), ("slowest", &agents.slowest)] {
        writeln!(out, "  {name} of {total}")?;
        let rows: Vec<Texts> = list.iter().map(agent_row).collect();
        output::table(out, 4, &AGENTS, &rows)?;
    }
    Ok(())
}

fn queue(
    out: &mut impl Write,
    queue: &Queue,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), Failure> {
    let pending = lines::gauge(queue.pending, &settings.metrics.queue_pending, |gauge| {
        let level = mark(Some(Level::of_pending(gauge.value)));
        let text = format!("{} {level}", format::number(gauge.value));
        format!("{}  ({})", text.trim_end(), format::ago(gauge.at, now))
    });
    writeln!(out, "  pending  {}", escape(&pending))?;
    if queue.pending.is_some() {
        let backlog = queue.backlog_minutes.map_or_else(
            || "no task finishes".to_owned(),
            |minutes| {
                let length = format::duration_ms(minutes * 60_000.0);
                format!("{length} at the present rate")
            },
        );
        writeln!(out, "  backlog  {backlog}")?;
    }
    for (priority, gauge) in &queue.priorities {
        writeln!(out, "  {}  {}", escape(priority), format::number(gauge.value))?;
    }
    Ok(())
}

fn resources(
    out: &mut impl Write,
    resources: &Resources,
    settings: &Settings,
) -> Result<(), Failure> {
    let names = &settings.metrics;
    let used = format::number(resources.tokens_used.as_f64());
    writeln!(out, "  tokens of {}  {used}", resources.budget_window)?;
    let budget = lines::gauge(resources.token_budget, &names.token_budget, |budget| {
        let share = resources.budget_share.map_or_else(String::new, |share| {
            format!(", {} used {}", format::share(share), mark(Some(Level::of_share(share))))
        });
        format!("{}{share}", format::number(budget.value)).trim_end().to_owned()
    });
    writeln!(out, "  budget  {}", escape(&budget))?;
    if resources.has_quota {
        let rows: Vec<Texts> = resources
            .quotas
            .iter()
            .map(|quota| {
                Texts(vec![
                    quota.agent_id.clone(),
                    format::number(quota.tokens_used),
                    format::number(quota.quota),
                    format::share(quota.share),
                    mark(Some(Level::of_share(quota.share))).to_owned(),
                ])
            })
            .collect();
        output::table(out, 2, &["nearest to quota", "tokens", "quota", "used", ""], &rows)?;
    } else {
        writeln!(out, "  quota  {}", escape(&lines::no_quota(settings)))?;
    }
    let memory = lines::gauge(resources.memory_bytes, &names.memory_bytes, |memory| {
        format::bytes(memory.value)
    });
    writeln!(out, "  memory  {}", escape(&memory))?;
    let (size, rows) = (output::bytes(resources.disk_bytes), resources.stored_rows);
    writeln!(out, "  disk  {size} for {}", output::counted(rows, "row"))?;
    Ok(())
}

fn trend(out: &mut impl Write, trend: &Trend, is_ascii: bool) -> Result<(), Failure> {
    let from = format::time(trend.from);
    writeln!(out, "  {}: steps of {} from {from}", trend.name, trend.step)?;
    type Text = fn(f64) -> String;
    let series: [(&str, &[Option<f64>], Text); 4] = [
        ("duration", &trend.avg_duration_ms, format::duration_ms),
        ("tasks", &trend.tasks, format::number),
        ("errors", &trend.errors, format::number),
        ("tokens", &trend.tokens, format::compact),
    ];
    for (name, values, text) in series {
        let line = sparkline(values, is_ascii);
        writeln!(out, "    {name:8}  {line}  {}", extremes(values, text))?;
    }
    Ok(())
}

/// `2 to 5`, or that there is nothing.
fn extremes(values: &[Option<f64>], text: impl Fn(f64) -> String) -> String {
    let known = || values.iter().flatten().copied();
    match (known().min_by(f64::total_cmp), known().max_by(f64::total_cmp)) {
        (Some(least), Some(most)) => format!("{} to {}", text(least), text(most)),
        _ => "no values".to_owned(),
    }
}

/// A character for each value, higher for larger ones; a blank where there is none. The lowest
/// stands for 0, or for the smallest value where that is less.
pub(crate) fn sparkline(values: &[Option<f64>], is_ascii: bool) -> String {
    const ASCII: [char; 8] = ['_', '.', ',', '-', '=', '+', '*', '#'];
    let known = || values.iter().flatten().copied();
    let least = known().fold(0.0, f64::min);
    let most = known().fold(least, f64::max);
    let glyph = |value: f64| {
        let height = if most > least { (value - least) / (most - least) * 7.0 } else { 0.0 };
        // Between 0 and 7 by what came before.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
        let step = height.round() as u32;
        if is_ascii {
            ASCII.get(step as usize).copied().unwrap_or('#')
        } else {
            char::from_u32(0x2581 + step.min(7)).unwrap_or(' ')
        }
    };
    values.iter().map(|value| value.map_or(' ', glyph)).collect()
}

fn query(
    out: &mut impl Write,
    show: Show,
    panel: &PanelFigures,
    is_ascii: bool,
) -> Result<(), Failure> {
    if let Some(error) = &panel.error {
        writeln!(out, "  {}", escape(error))?;
    }
    if let Some(number) = &panel.number {
        let value = number.value.map_or_else(|| "-".to_owned(), format::number);
        let label = number.label.as_deref().map_or_else(String::new, |l| format!("  ({l})"));
        let error = if number.rank_error > 0.0 {
            format!("  estimated, rank within {}", format::share(number.rank_error))
        } else {
            String::new()
        };
        let unit = after(&panel.unit);
        writeln!(out, "  {}", escape(&format!("{value}{unit}{label}{error}")))?;
    }
    if let Some(entries) = &panel.entries {
        show_entries(out, show, entries, &panel.unit, is_ascii)?;
    }
    Ok(())
}

/// A unit after a number.
fn after(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

fn show_entries(
    out: &mut impl Write,
    show: Show,
    entries: &Entries,
    unit: &str,
    is_ascii: bool,
) -> Result<(), Failure> {
    if entries.rows.is_empty() {
        writeln!(out, "  nothing")?;
        return Ok(());
    }
    match show {
        Show::Sparkline => {
            let values: Vec<_> = entries.numbers.iter().map(|(_, value)| *value).collect();
            let (line, ends) = (sparkline(&values, is_ascii), extremes(&values, format::number));
            writeln!(out, "  {}", escape(&format!("{line}  {ends}{}", after(unit))))?;
        }
        Show::Bar => {
            let rows: Vec<Texts> = bars(&entries.numbers, unit);
            output::table(out, 2, &["", "", ""], &rows)?;
        }
        _ => {
            let columns: Vec<&str> = entries.columns.iter().map(String::as_str).collect();
            let rows: Vec<Texts> = entries.rows.iter().map(|row| Texts(row.clone())).collect();
            output::table(out, 2, &columns, &rows)?;
        }
    }
    Ok(())
}

fn bars(numbers: &[(String, Option<f64>)], unit: &str) -> Vec<Texts> {
    let most = numbers.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max);
    numbers
        .iter()
        .map(|(name, value)| {
            let share = value.filter(|_| most > 0.0).map_or(0.0, |value| value.max(0.0) / most);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 40")]
            let length = (share * 40.0).round() as usize;
            let text = value.map_or_else(|| "-".to_owned(), format::number);
            Texts(vec![name.clone(), format!("{text}{}", after(unit)), "#".repeat(length)])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_gaps_and_begin_at_nothing() {
        let values = [Some(0.0), None, Some(7.0), Some(3.5)];
        assert_eq!(sparkline(&values, true), "_ #=");
        assert_eq!(sparkline(&values, false), "\u{2581} \u{2588}\u{2585}");
        assert_eq!(sparkline(&[Some(-1.0), Some(1.0)], true), "_#");
        assert_eq!(sparkline(&[Some(5.0), Some(5.0)], true), "##");
        assert_eq!(sparkline(&[Some(0.0), None], true), "_ ");
        assert_eq!(extremes(&values, format::number), "0 to 7");
        assert_eq!(extremes(&[None], format::number), "no values");
    }

    #[test]
    fn bars_are_parts_of_the_largest() {
        let numbers =
            [("a".to_owned(), Some(4.0)), ("b".to_owned(), Some(1.0)), ("c".to_owned(), None)];
        let bars = bars(&numbers, "s");
        assert_eq!(bars[0].0, ["a", "4 s", &"#".repeat(40)]);
        assert_eq!(bars[1].0[2].len(), 10);
        assert_eq!(bars[2].0[1..], ["- s", ""]);
    }
}
