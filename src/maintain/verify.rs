//! Verifying: every checksum of every file, and on demand every summary.

use crate::catalog::open_reader;
use crate::error::Result;
use crate::maintain::reconcile::orphan_note;
use crate::report::VerifyReport;
use crate::segment::Segment;
use crate::segment::files::StoreRoot;
use crate::snapshot::lister::{Content, FileFacts, Lister};
use crate::store_files::{identity, retention, txn};

/// Checks every file of the store.
///
/// # Errors
///
/// `Io` when a directory cannot be read.
pub(crate) fn verify(root: &StoreRoot, lister: &Lister, deep: bool) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    if let Err(error) = identity::read_store_file(root.fs.as_ref(), &root.dir) {
        report.add("store.json", error.to_string(), false);
    }
    if let Err(error) = retention::read_retention(root.fs.as_ref(), &root.dir) {
        report.add("retention.json", format!("{error}; everything is kept"), false);
    }
    for (id, error) in txn::list_committed(root.fs.as_ref(), &root.dir)?.damaged {
        report.add(&format!("txn/{id}"), error.to_string(), false);
    }
    let catalog = open_reader(root.fs.as_ref(), &root.dir, &root.id);
    for facts in lister.files()? {
        report.files += 1;
        check(&facts, deep, &mut report);
        let known = || catalog.as_ref().is_some_and(|it| it.was_committed(&facts.name.uuid));
        // An import that is being undone loses its record first and its files then.
        if let Some(note) = orphan_note(&facts)
            && known()
            && root.fs.metadata(&facts.path).is_ok()
        {
            report.add(&facts.relative(), note, true);
        }
    }
    Ok(report)
}

fn check(facts: &FileFacts, deep: bool, report: &mut VerifyReport) {
    let file = facts.relative();
    // A replaced file has done its duty: damage to it loses nothing.
    let matters = !facts.is_replaced && facts.is_committed;
    if let Some(segment) = facts.segment() {
        report.bytes += segment.bytes();
        if matters {
            report.rows += segment.rows();
        }
    }
    match &facts.content {
        Content::Tombstone(tombstone) if tombstone.is_whole() => {}
        Content::Tombstone(_) => {
            let what = "what the tombstone stands for cannot be read";
            report.add(&file, what.to_owned(), false);
        }
        Content::Bad(damage) => report.add(&file, damage.damage.reason.clone(), matters),
        Content::Active(segment) => {
            for damage in segment.damage() {
                let loses_rows = matters && damage.rows != Some(0);
                report.add(&file, damage.reason, loses_rows);
            }
            for block in 0..segment.blocks().len() {
                if let Err(error) = segment.batch(block) {
                    report.add(&file, error.to_string(), matters);
                }
            }
        }
        Content::Sealed(segment) => {
            let known = segment.damage();
            let lost = known.iter().filter(|damage| damage.rows != Some(0)).count()
                + (0..segment.blocks().len())
                    .filter(|block| segment.batch(*block).is_err())
                    .count();
            match segment.verify(deep) {
                Ok(problems) => problems.into_iter().for_each(|problem| {
                    report.add(&file, problem, matters && lost > 0);
                }),
                Err(error) => report.add(&file, error.to_string(), matters),
            }
        }
    }
}
