//! Campaigns: the checks of every promise, run for hours in shards, and counted in a ledger.
//!
//! `cargo bench --bench trust -- crash --seconds 3600 --ledger` goes on where the last shard of
//! that test ended, and appends what it counted to `tests/trust-ledger.jsonl`. Every case has a
//! number; the same number is the same case again: `-- crash --from 17 --cases 1`. Without a
//! test, a little of each runs, as `.ci/run` does. `CONTRIBUTING.md` names the tests.

#![expect(clippy::unwrap_used, reason = "a campaign stops when it itself fails")]
#![expect(clippy::disallowed_methods, reason = "files beside stores, and of the campaigns")]

mod campaigns;
mod catalog;
mod fuzz;
mod kill;
mod ledger;
mod power;
mod processes;
#[cfg(target_os = "linux")]
mod replay;
mod soak;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use campaigns::{CAMPAIGNS, Campaign};
use ledger::Entry;

/// Violations after which a shard ends.
const FAILURES_MAX: u64 = 20;

/// What is asked for.
#[derive(Default)]
struct Arguments {
    tests: Vec<String>,
    from: Option<u64>,
    cases: Option<u64>,
    seconds: Option<u64>,
    ledger: bool,
    summary: bool,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        let mut words = words.filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let mut number = || {
                let text = words.next().unwrap_or_default();
                text.parse().map_err(|_| format!("{word} needs a number, not {text:?}"))
            };
            match word.as_str() {
                "--from" => arguments.from = Some(number()?),
                "--cases" => arguments.cases = Some(number()?),
                "--seconds" => arguments.seconds = Some(number()?),
                "--ledger" => arguments.ledger = true,
                "--summary" => arguments.summary = true,
                name if CAMPAIGNS.iter().any(|campaign| campaign.name == name) => {
                    arguments.tests.push(word);
                }
                _ => {
                    let names: Vec<_> = CAMPAIGNS.iter().map(|campaign| campaign.name).collect();
                    return Err(format!("no test {word:?}; there are: {}", names.join(" ")));
                }
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    if kill::child() || processes::child() {
        return ExitCode::SUCCESS;
    }
    #[cfg(target_os = "linux")]
    if let Some(is_right) = replay::child() {
        return if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.summary {
        let all: Vec<_> = CAMPAIGNS.iter().map(|it| (it.name, it.what)).collect();
        ledger::summarise(&all);
        return ExitCode::SUCCESS;
    }
    let wanted = |campaign: &&Campaign| {
        arguments.tests.is_empty() || arguments.tests.iter().any(|name| name == campaign.name)
    };
    let mut failures = 0;
    for campaign in CAMPAIGNS.iter().filter(wanted) {
        failures += run(campaign, &arguments);
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a shard of a campaign, tells what it found, and returns how often that was.
fn run(campaign: &Campaign, arguments: &Arguments) -> u64 {
    let is_quick = arguments.tests.is_empty();
    if is_quick && campaign.quick == 0 {
        return 0;
    }
    if let Some(reason) = (campaign.missing)() {
        println!("SKIPPED {}: {reason}", campaign.name);
        return 0;
    }
    let mut trial = match (campaign.begin)() {
        Ok(trial) => trial,
        Err(found) => {
            println!("VIOLATION {}: {found}", campaign.name);
            return 1;
        }
    };
    let first = arguments.from.unwrap_or(if is_quick { 0 } else { ledger::next(campaign.name) });
    let cases = arguments.cases.or(is_quick.then_some(campaign.quick)).unwrap_or(u64::MAX);
    let seconds = arguments.seconds.map_or(Duration::MAX, Duration::from_secs);
    // A little of a long list is spread over all of it.
    let total = trial.total();
    let step = total.filter(|_| is_quick).map_or(1, |total| (total / cases.max(1)).max(1));
    // As it is now: what is checked out later is not what runs.
    let commit = arguments.ledger.then(ledger::commit).unwrap_or_default();
    let begun = Instant::now();
    let (mut count, mut failures, mut case) = (0, 0, first);
    for _ in 0..cases {
        let is_over = total.is_some_and(|total| case >= total);
        if is_over || begun.elapsed() >= seconds || failures >= FAILURES_MAX {
            break;
        }
        match trial.check(case) {
            Ok(done) => count += done,
            Err(found) => {
                failures += 1;
                println!("VIOLATION {}: {found}", campaign.name);
                println!(
                    "  again: cargo bench --bench trust -- {} --from {case} --cases 1",
                    campaign.name
                );
            }
        }
        case += step;
        if trial.is_done() {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate with few digits")]
    let rate = count as f64 / seconds;
    println!(
        "{}: cases {first}..{case}, {count} {}, {failures} violations, {seconds:.1} s, {rate:.0}/s",
        campaign.name, campaign.what
    );
    if arguments.ledger {
        let seeds = format!("{first}..{case}");
        ledger::append(&Entry { test: campaign.name, commit, seeds, count, seconds, failures });
    }
    failures
}
