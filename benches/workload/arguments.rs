//! The command line.

use std::path::PathBuf;

use crate::questions::QUESTIONS;

pub(crate) const USAGE: &str = "\
cargo bench --bench workload -- [OPTIONS]            measure
cargo bench --bench workload -- dump DIR [--rows N]  write the workload for other engines
cargo bench --bench workload -- serve [--rows N] [--keep DIR]  answer questions from stdin
cargo bench --bench workload -- aged [--rows N]      a store of 90 days in every tier
cargo bench --bench workload -- guard [--write]      compare instructions with those kept

  --rows N[,N]         rows of each table (1000000); of two, the growth is printed
  --smoke              50,000 rows and few runs: only shows that everything runs
  --only ID[,ID]       these rows of the table only: Q2, A1, ingest, size, open, memory, ...
  --keep DIR           build the stores there, or use those that are there
  --loop ID --times N  ask one question and nothing else, for profilers
  --assert-summaries   fail if a summary question reads a block
  --publish            put the table into benches/README.md
  --json FILE          write every figure there too";

/// Rows of the table that are no questions, and groups of rows.
const NAMES: &[&str] = &[
    "tasks",
    "gauges",
    "ingest",
    "size",
    "open",
    "first",
    "memory",
    "one",
    "bulk",
    "seal",
    "active",
    "sealed",
    "sync",
    "os",
    "T-bulk",
    "T-seal",
    "T-active",
    "T-sealed",
    "T-sync",
    "T-os",
    "G-bulk",
    "G-seal",
    "G-active",
    "G-sealed",
    "G-sync",
    "G-os",
    "T-memory",
    "G-memory",
    "T-load",
    "cold",
    "T-compact",
    "T-archive",
    "T-daily",
    "G-compact",
    "G-archive",
    "G-daily",
];

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Measure,
    Dump(PathBuf),
    Serve,
    /// A store of 90 days in every tier.
    Aged,
    /// Counts instructions; writes the counts instead of comparing them.
    Guard {
        write: bool,
    },
    /// Runs inside a process of its own, for another mode: what, and in which folder.
    Child(String, PathBuf),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) mode: Mode,
    pub(crate) rows: Vec<usize>,
    pub(crate) smoke: bool,
    pub(crate) only: Vec<String>,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) repeat: Option<String>,
    pub(crate) times: usize,
    pub(crate) assert_summaries: bool,
    pub(crate) publish: bool,
    pub(crate) json: Option<PathBuf>,
}

impl Arguments {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = Self { times: 1_000, ..Self::default() };
        let mut arguments = arguments;
        let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        while let Some(argument) = arguments.next() {
            let mut next =
                || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
            match argument.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--smoke" => found.smoke = true,
                "--publish" => found.publish = true,
                "--assert-summaries" => found.assert_summaries = true,
                "--rows" => {
                    let rows = list(next()?.replace('_', ""));
                    let rows: Result<_, _> = rows.iter().map(|text| text.parse()).collect();
                    found.rows = rows.map_err(|error| format!("--rows: {error}"))?;
                }
                "--only" => found.only = list(next()?),
                "--keep" => found.keep = Some(next()?.into()),
                "--loop" => found.repeat = Some(next()?),
                "--times" => {
                    found.times = next()?.parse().map_err(|error| format!("--times: {error}"))?;
                }
                "--json" => found.json = Some(next()?.into()),
                "dump" => found.mode = Mode::Dump(next()?.into()),
                "serve" => found.mode = Mode::Serve,
                "aged" => found.mode = Mode::Aged,
                "guard" => found.mode = Mode::Guard { write: false },
                "--write" => found.mode = Mode::Guard { write: true },
                "child" => found.mode = Mode::Child(next()?, next()?.into()),
                _ => return Err(format!("{argument}?\n\n{USAGE}")),
            }
        }
        let is_name = |only: &&String| {
            let questions = QUESTIONS.iter().map(|question| question.id);
            questions.chain(NAMES.iter().copied()).any(|name| name.eq_ignore_ascii_case(only))
        };
        if let Some(other) = found.only.iter().find(|only| !is_name(only)) {
            return Err(format!("--only {other}: no such row; see benches/README.md"));
        }
        if found.rows.is_empty() {
            found.rows.push(if found.smoke { 50_000 } else { 1_000_000 });
        }
        if found.rows.contains(&0) || found.times == 0 {
            return Err("--rows and --times: expected at least 1".to_owned());
        }
        Ok(found)
    }

    /// Whether a row of the table is wanted, or one of the groups it belongs to.
    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        let named = |name: &&str| self.only.iter().any(|only| only.eq_ignore_ascii_case(name));
        self.only.is_empty() || names.iter().any(named)
    }
}
