//! The rules of retention of a live store (spec 8.3): reading, changing, telling the door.
//!
//! Rules are changed in `retention.json` first and in the catalog second. What lies between
//! the two after a crash is rules that differ, and of those the longer hold.

use std::time::Duration;

use crate::config::{Retention, TableRetention};
use crate::error::Result;
use crate::maintain::reconcile::Books;
use crate::schema::Table;
use crate::segment::files::StoreRoot;
use crate::store_files::retention::{self, EffectiveRules, RetentionRules, RulesSource};

/// The rules that `retention.json` says.
///
/// # Errors
///
/// `Io` when it can neither be read nor be told to be missing or damaged: then everything is
/// kept.
pub(crate) fn current(root: &StoreRoot) -> Result<EffectiveRules> {
    retention::effective_rules(retention::read_retention(root.fs.as_ref(), &root.dir), None)
}

/// Tells the door from when on each table keeps rows.
///
/// # Errors
///
/// As [`current`].
pub(crate) fn apply_retention(
    root: &StoreRoot,
    set_cutoff: &dyn Fn(Table, i64),
    notes: &mut Vec<String>,
) -> Result<()> {
    let effective = current(root)?;
    if let RulesSource::Unreadable(error) = &effective.source {
        notes.push(format!("{error}; everything is kept"));
    }
    for table in Table::ALL {
        set_cutoff(table, effective.rules.cutoff(table, root.now()).unwrap_or(i64::MIN));
    }
    Ok(())
}

/// Sets the rules, in `retention.json` and then in the catalog; durable on return.
///
/// # Errors
///
/// `InvalidArgument` naming the rule that is broken; `Locked` when the maintenance lock is not
/// to be had in `patience`; `Io`, `NoSpace`: then the old rules hold, or the longer of both.
pub(crate) fn set(root: &StoreRoot, set: &Retention, patience: Duration) -> Result<()> {
    set.validate()?;
    let lock = super::wait_for_lock(root, patience)?;
    let mut books = Books::open(root, &lock)?;
    let rules = books.rules(root)?;
    books.set_rules(root, &rules.changed_to(set))
}

/// Changes the rules so that nothing expires for its age. The catalog need not be told: where
/// it differs, the longer holds.
///
/// # Errors
///
/// `Locked`, `Io`, `NoSpace`.
pub(crate) fn keep_everything(root: &StoreRoot, patience: Duration) -> Result<()> {
    let keeps = |rules: &RetentionRules| rules.tables == [TableRetention::Keep; 3];
    if keeps(&current(root)?.rules) {
        return Ok(());
    }
    // A pass of expiry under way writes the rules as well, and knows the old ones.
    let _lock = super::wait_for_lock(root, patience)?;
    let rules = current(root)?.rules;
    let kept = Retention { max_bytes: rules.max_bytes, ..Retention::KEEP };
    retention::write_retention(root.fs.as_ref(), &root.dir, &rules.changed_to(&kept))
}
