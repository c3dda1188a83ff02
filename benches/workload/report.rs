//! The table that is printed, and the same for programs.
//!
//! Owns a figure and how it stands to its aim and to the floor: ratios above 1 are worse.

use std::cell::RefCell;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value as Json, json};

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) rows: usize,
    pub(crate) unit: &'static str,
    pub(crate) higher_is_better: bool,
    pub(crate) best: f64,
    pub(crate) median: f64,
    pub(crate) runs: usize,
    /// The aim and the floor are compared with the median, not with the best run.
    pub(crate) median_counts: bool,
    pub(crate) aim: Option<f64>,
    pub(crate) floor: Option<f64>,
    pub(crate) note: String,
}

impl Figure {
    /// A figure without aim and floor.
    pub(crate) fn new(id: &str, what: &str, rows: usize, unit: &'static str, value: f64) -> Self {
        Self {
            id: id.to_owned(),
            what: what.to_owned(),
            rows,
            unit,
            higher_is_better: false,
            best: value,
            median: value,
            runs: 1,
            median_counts: false,
            aim: None,
            floor: None,
            note: String::new(),
        }
    }

    /// Best and median of these runs.
    pub(crate) fn runs(mut self, mut values: Vec<f64>, higher_is_better: bool) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        self.higher_is_better = higher_is_better;
        self.best = if higher_is_better { values[values.len() - 1] } else { values[0] };
        self.median = values[values.len() / 2];
        self.runs = values.len();
        self
    }

    pub(crate) fn aim(mut self, aim: f64) -> Self {
        self.aim = (aim > 0.0).then_some(aim);
        self
    }

    pub(crate) fn floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        let note = note.into();
        let between = if self.note.is_empty() || note.is_empty() { "" } else { "; " };
        self.note = format!("{}{between}{note}", self.note);
        self
    }

    /// How much worse than `other`.
    fn ratio(&self, other: f64) -> f64 {
        let value = if self.median_counts { self.median } else { self.best };
        if self.higher_is_better { other / value } else { value / other }
    }

    fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), digits);
        let ratio = |other: Option<f64>| {
            other.map_or_else(|| "-".to_owned(), |other| format!("{:.2}", self.ratio(other)))
        };
        format!(
            "{:<9} {:<62} {:>9} {:>9} {:<8} {:>8} {:>7} {:>9} {:>7}  {}",
            self.id,
            self.what,
            digits(self.best),
            digits(self.median),
            self.unit,
            number(self.aim),
            ratio(self.aim),
            number(self.floor),
            ratio(self.floor),
            self.note
        )
        .trim_end()
        .to_owned()
    }
}

/// Three digits, or all before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.001 => format!("{value:.5}"),
        size if size < 0.1 => format!("{value:.4}"),
        size if size < 10.0 => format!("{value:.3}"),
        size if size < 100.0 => format!("{value:.2}"),
        size if size < 1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

thread_local! {
    static PRINTED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Prints a line as soon as it is measured, and keeps it for `publish`.
pub(crate) fn say(line: &str) {
    println!("{line}");
    PRINTED.with_borrow_mut(|all| {
        all.push_str(line);
        all.push('\n');
    });
}

/// Puts all that was said between the marks of the page.
#[expect(clippy::disallowed_methods, reason = "a file of the benchmark, not of a store")]
pub(crate) fn publish(page: &Path) -> Result<(), String> {
    const MARKS: [&str; 2] = ["<!-- table -->", "<!-- /table -->"];
    let failed = |error: std::io::Error| format!("{}: {error}", page.display());
    let text = std::fs::read_to_string(page).map_err(failed)?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| format!("{}: no marks", page.display()))?;
    let said = PRINTED.with_borrow(|all| all.trim().to_owned());
    let text = format!("{before}{}\n\n```text\n{said}\n```\n\n{}{after}", MARKS[0], MARKS[1]);
    std::fs::write(page, text).map_err(failed)
}

/// Begins a part of the table.
pub(crate) fn heading(title: &str) {
    say(&format!(
        "\n{:<72} {:>9} {:>9} {:<8} {:>8} {:>7} {:>9} {:>7}",
        title, "best", "median", "", "aim", "x aim", "floor", "x floor"
    ));
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Figure>,
    /// A summary question that read blocks.
    pub(crate) broken_summaries: Vec<String>,
}

impl Report {
    /// Prints the figure and keeps it.
    pub(crate) fn add(&mut self, figure: Figure) {
        say(&figure.line());
        self.figures.push(figure);
    }

    pub(crate) fn json(&self, machine: Json) -> Json {
        json!({"machine": machine, "figures": self.figures, "summaries_that_read_blocks": self.broken_summaries})
    }

    /// How each figure in milliseconds grew between two numbers of rows.
    pub(crate) fn growth(&self, few: usize, many: usize, most: impl Fn(&str) -> Option<f64>) {
        say(&format!(
            "\n{:<72} {:>9} {:>9} {:>8} {:>8}",
            format!("Growth from {few} to {many} rows, best in ms"),
            few,
            many,
            "x",
            "at most"
        ));
        for small in self.figures.iter().filter(|figure| figure.rows == few) {
            let Some(limit) = most(&small.id) else { continue };
            let large = self.figures.iter().find(|f| f.rows == many && f.id == small.id);
            let Some(large) = large else { continue };
            say(&format!(
                "{:<9} {:<62} {:>9} {:>9} {:>8.2} {:>8}",
                small.id,
                small.what,
                digits(small.best),
                digits(large.best),
                large.best / small.best,
                limit
            ));
        }
    }
}
