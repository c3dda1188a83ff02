//! A catalog that is gone when it is dropped.
//!
//! For simulated file systems, which SQLite cannot reach. Every opening of such a store
//! finds its catalog lost, the hardest test of the rule that nothing may depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{
    CachedSegment, Catalog, Intent, JOBS_KEPT, Job, JobId, MakeDurable, Outcome, Reconciled,
    Reconciler, SegmentFacts, Verdict,
};
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::store_files::Id;
use crate::store_files::retention::RetentionRules;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MemoryCatalog {
    segments: BTreeMap<Id, CachedSegment>,
    missing: BTreeSet<Id>,
    retention: Option<RetentionRules>,
    jobs: BTreeMap<JobId, Job>,
    intents: BTreeSet<(Id, JobId)>,
}

impl Catalog for MemoryCatalog {
    fn reconcile(
        &mut self,
        files: &[SegmentFacts],
        retention: &RetentionRules,
        make_durable: &MakeDurable<'_>,
    ) -> Result<Reconciled> {
        let new = files.iter().filter(|facts| !self.segments.contains_key(&facts.uuid));
        make_durable(&new.collect::<Vec<_>>())?;
        let mut reconciler = Reconciler::new(files, self.intents.iter().map(|(uuid, _)| *uuid));
        self.missing.clear();
        self.segments.retain(|uuid, row| match reconciler.judge(row) {
            Verdict::Keep => true,
            Verdict::Update(facts) => {
                *row = CachedSegment::of(facts);
                true
            }
            Verdict::Remove => false,
            Verdict::Missing => self.missing.insert(*uuid),
        });
        for facts in reconciler.unknown() {
            self.segments.insert(facts.uuid, CachedSegment::of(facts));
        }
        let live = |job: &JobId| self.jobs.get(job).is_some_and(|job| job.outcome.is_none());
        self.intents.retain(|(uuid, job)| reconciler.is_there(uuid) && live(job));
        self.retention = Some(retention.clone());
        let mut outcome = reconciler.outcome;
        outcome.sort();
        Ok(outcome)
    }

    fn forget_missing(&mut self, uuids: &[Id]) -> Result<u64> {
        let mut forgotten = 0;
        for uuid in uuids {
            if self.missing.remove(uuid) {
                self.segments.remove(uuid);
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    fn cached(&self, uuid: &Id) -> Result<Option<CachedSegment>> {
        Ok(self.segments.get(uuid).cloned())
    }

    fn was_committed(&self, uuid: &Id) -> Result<bool> {
        let intended = self.intents.iter().any(|(deleted, _)| deleted == uuid);
        Ok(self.segments.contains_key(uuid) && !intended)
    }

    fn retention(&self) -> Result<Option<RetentionRules>> {
        Ok(self.retention.clone())
    }

    fn set_retention(&mut self, rules: &RetentionRules) -> Result<()> {
        self.retention = Some(rules.clone());
        Ok(())
    }

    fn log_intent(&mut self, intent: &Intent) -> Result<JobId> {
        let id = JobId(self.jobs.last_key_value().map_or(1, |(JobId(last), _)| last + 1));
        self.intents.extend(intent.deletes.iter().map(|uuid| (*uuid, id)));
        let job = Job {
            id,
            kind: intent.kind.to_owned(),
            started: intent.started,
            finished: None,
            what: intent.what.clone(),
            outcome: None,
            rows: intent.rows,
            bytes: intent.bytes,
        };
        self.jobs.insert(id, job);
        while self.jobs.len() > JOBS_KEPT {
            self.jobs.pop_first();
        }
        Ok(id)
    }

    fn log_done(&mut self, id: JobId, outcome: &Outcome) -> Result<()> {
        let under_way = self.jobs.get_mut(&id).filter(|job| job.outcome.is_none());
        let job =
            under_way.ok_or_else(|| Error::invalid(format!("no job {} is under way", id.0)))?;
        job.finished = Some(outcome.finished);
        job.outcome = Some(outcome.outcome.clone());
        job.rows = outcome.rows;
        job.bytes = outcome.bytes;
        Ok(())
    }

    fn jobs(&self, limit: usize) -> Result<Vec<Job>> {
        Ok(self.jobs.values().rev().take(limit).cloned().collect())
    }

    fn back_up(&self, _fs: &dyn FileSystem, _to: &Path) -> Result<()> {
        Ok(())
    }
}
