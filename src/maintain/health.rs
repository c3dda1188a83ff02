//! How maintenance stands: from the rules, the job log and the files. Takes no lock.

use crate::catalog::{Job, open_reader};
use crate::error::Result;
use crate::format::id::FileKind;
use crate::maintain::{clock, rules};
use crate::report::{Health, JobReport, StoreStats, TableStats};
use crate::segment::files::StoreRoot;
use crate::snapshot::lister::Lister;
use crate::time::Timestamp;

/// Jobs that are reported.
const JOBS: usize = 20;

/// Tells how maintenance of the store stands.
///
/// # Errors
///
/// `Io` when a directory or the rules cannot be read.
pub(crate) fn health(root: &StoreRoot, lister: &Lister) -> Result<Health> {
    let StoreStats { tables, replaced_bytes, damaged_files, .. } = super::stats(lister)?;
    let last_pass = rules::current(root)?.rules.last_pass;
    let catalog =
        lister.asks_catalog().then(|| open_reader(root.fs.as_ref(), &root.dir, &root.id)).flatten();
    let jobs = catalog.as_ref().map(|catalog| catalog.jobs(usize::MAX)).unwrap_or_default();
    let missing = catalog.and_then(|catalog| catalog.missing()).unwrap_or_default();
    let is_unsealed = |entry: &&TableStats| entry.kind == FileKind::Active.extension();
    let unsealed: Vec<&TableStats> = tables.iter().filter(is_unsealed).collect();
    Ok(Health {
        last_expiry: last_pass.as_ref().map(|last| Timestamp::clamped(last.at.now)),
        clock_refused: last_pass.as_ref().and_then(clock::standing_refusal),
        last_maintenance: jobs.iter().find(|job| job.kind == "maintain").map(report),
        jobs: jobs.iter().take(JOBS).map(report).collect(),
        unsealed_rows: unsealed.iter().map(|entry| entry.rows).sum(),
        unsealed_bytes: unsealed.iter().map(|entry| entry.bytes).sum(),
        unsealed_from: unsealed.iter().filter_map(|entry| entry.from).min(),
        replaced_bytes,
        damaged_files,
        missing_files: missing.len() as u64,
    })
}

fn report(job: &Job) -> JobReport {
    JobReport {
        kind: job.kind.clone(),
        what: job.what.clone(),
        started: Timestamp::clamped(job.started),
        finished: job.finished.map(Timestamp::clamped),
        outcome: job.outcome.clone(),
        rows: job.rows,
        bytes: job.bytes,
    }
}
