//! The sealing thread: turns a process's own ended active segments into sealed ones.

use std::time::Duration;

use crate::error::Result;
use crate::segment::active::ActiveWriter;
use crate::segment::files::StoreRoot;
use crate::store_files::generation;
use crate::sync::channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// How long after a failed seal it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the sealing thread is told.
pub(crate) enum Job {
    /// Seal this segment, whose lock the writer holds.
    Seal(Box<ActiveWriter>),
    /// Answer when everything before is sealed, or why it is not.
    Drain(Sender<Result<()>>),
}

/// Runs until every sender is gone and everything is sealed, or cannot be.
pub(crate) fn run(root: &StoreRoot, jobs: &Receiver<Job>, after: &dyn Fn()) {
    let mut waiting: Vec<ActiveWriter> = Vec::new();
    loop {
        let job = if waiting.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(RETRY_AFTER)
        };
        match job {
            Ok(Job::Seal(writer)) => waiting.push(*writer),
            Ok(Job::Drain(reply)) => {
                let result = seal_all(root, &mut waiting);
                // Whoever asked may have given up waiting.
                let _ = reply.send(result);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // What cannot be sealed now keeps its rows; a later process seals it.
                let _ = seal_all(root, &mut waiting);
                return;
            }
        }
        if seal_all(root, &mut waiting).is_ok() {
            after();
        }
    }
}

fn seal_all(root: &StoreRoot, waiting: &mut Vec<ActiveWriter>) -> Result<()> {
    while let Some(writer) = waiting.last() {
        let batches = writer.read_back(Some(u64::MAX))?;
        if batches.is_empty() {
            root.fs.remove(writer.path())?;
        } else {
            writer.seal(root, &batches)?;
        }
        // Sealed: whatever fails from here on, these rows must not be sealed again.
        waiting.pop();
        // Best effort: readers list again within a second whatever it says.
        let _ = generation::bump(root.fs.as_ref(), &root.dir);
    }
    Ok(())
}

/// Waits until the sealing thread has sealed everything it was given.
///
/// # Errors
///
/// Why something could not be sealed; it is tried again.
pub(crate) fn drain(jobs: &Sender<Job>) -> Result<()> {
    let (reply, answer) = bounded(1);
    if jobs.send(Job::Drain(reply)).is_err() {
        return Ok(());
    }
    answer.recv().unwrap_or(Ok(()))
}
