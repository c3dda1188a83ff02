//! The scheduler: background maintenance in one process of many.
//!
//! Owns when a pass is due, and the counters. It sleeps on a channel; a pass runs in its own
//! thread under the maintenance lock, which it never waits for: whoever has it does the work.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::MaintenanceRequest;
use crate::error::Result;
use crate::maintain::pass::{self, Pass};
use crate::maintain::rules;
use crate::report::{MaintenanceReport, MaintenanceStatus};
use crate::segment::files::StoreRoot;
use crate::snapshot::lister::Lister;
use crate::store_files::maintenance::try_maintenance_lock;
use crate::sync::channel::{Receiver, RecvTimeoutError};

/// The first look comes this long after opening, so that processes that live shorter than
/// that leave the work to others.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// Longest time between two looks at whether a pass is due: other processes count as well.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// What the scheduler and the handles of its store share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    is_paused: AtomicBool,
    is_stopping: AtomicBool,
    status: Mutex<MaintenanceStatus>,
}

impl Shared {
    /// Begins no pass from now on, until resumed; one under way ends after its partition.
    pub(crate) fn pause(&self, yes: bool) {
        self.is_paused.store(yes, Ordering::Release);
    }

    /// Ends a pass under way after its partition.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    fn is_held(&self) -> bool {
        self.is_paused.load(Ordering::Acquire) || self.is_stopping.load(Ordering::Acquire)
    }

    /// What was done so far.
    pub(crate) fn status(&self) -> MaintenanceStatus {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MaintenanceStatus { is_paused: self.is_paused.load(Ordering::Acquire), ..status }
    }

    fn change(&self, change: impl FnOnce(&mut MaintenanceStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Where and how often.
pub(crate) struct Scheduler {
    pub(crate) root: StoreRoot,
    pub(crate) lister: Arc<Lister>,
    pub(crate) interval: Duration,
    pub(crate) shared: Arc<Shared>,
}

impl Scheduler {
    /// Runs until the sender is gone. `after` is called after each look.
    pub(crate) fn run(&self, end: &Receiver<()>, after: &dyn Fn()) {
        self.shared.change(|status| status.is_scheduled = true);
        let mut wait = self.interval.min(FIRST_LOOK);
        while end.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            if !self.shared.is_held() && self.is_due() {
                self.pass();
            }
            after();
            wait = self.interval.min(LOOK_EVERY);
        }
    }

    /// Whether no process has let anything expire for an interval, or has refused to: a
    /// refusal is looked at again as soon as its pass can count.
    fn is_due(&self) -> bool {
        let Ok(effective) = rules::current(&self.root) else { return true };
        let Some(last) = effective.rules.last_pass else { return true };
        let interval = i64::try_from(self.interval.as_micros()).unwrap_or(i64::MAX);
        let age = self.root.now().saturating_sub(last.at.now);
        !last.doubts.is_empty() || !(0..interval).contains(&age)
    }

    fn pass(&self) {
        self.shared.change(|status| status.is_running = true);
        let outcome = self.try_pass();
        self.shared.change(|status| {
            status.is_running = false;
            match outcome {
                Ok(Some(report)) => {
                    status.passes += 1;
                    status.refused += u64::from(report.refused.is_some());
                    status.last = Some(report);
                }
                Ok(None) => status.left_to_others += 1,
                Err(error) => {
                    status.failed += 1;
                    status.last_error = Some(error.to_string());
                }
            }
        });
    }

    fn try_pass(&self) -> Result<Option<MaintenanceReport>> {
        let (root, lister) = (&self.root, self.lister.as_ref());
        let before = pass::actives(lister)?;
        let Some(lock) = try_maintenance_lock(root.fs.as_ref(), &root.dir)? else {
            return Ok(None);
        };
        let (request, stop) = (MaintenanceRequest::default(), || self.shared.is_held());
        Pass { root, lister, lock: &lock, request, stop: &stop }.run(&before).map(Some)
    }
}
