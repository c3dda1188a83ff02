//! Bugs that tests plant, to show that the suite would find them.
//!
//! A suite that finds nothing proves something only if it finds what is there. Each [`Bug`] is
//! a mistake that engines were published with, at the one place where it would be made. It is
//! in the engine while a test asks for it by name, one at a time. Without the feature `testing`
//! [`is_planted`] is the constant false, and the compiler removes what hangs on it.

#![cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public with the feature `testing` only")
)]

/// A mistake that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Bug {
    /// The directory of a new active segment is not synced: a power cut takes the file's name.
    SkipDirectorySync = 1,
    /// A flush returns Ok before anything was synced.
    AcknowledgeBeforeSync,
    /// A frame whose bytes are all inside the file is taken for whole, whatever they say.
    TrustFileLength,
    /// The checksums of a sealed block's columns are not compared.
    SkipChunkChecksum,
    /// The checksums of a file's headers are not compared.
    SkipHeaderChecksum,
    /// A frame counts wherever it lies, and under any number.
    AcceptMisplacedFrame,
    /// Files are replaced, and go, before their replacement is durable under its name.
    DeleteBeforeDurable,
    /// A sync that failed is tried again on the same file, and the second answer believed.
    RetryFailedSync,
    /// An active segment is sealed by others although its owner holds the lock.
    SealLiveActive,
    /// What a file replaces counts as long as it lies beside it.
    IgnoreReplaces,
    /// A file goes before those that it replaces have gone.
    LetDeadReturn,
    /// An answer is kept by its question alone, not by the files that it rests on.
    StaleAnswer,
    /// Files of an import count before it is committed.
    ShowPartialImport,
    /// A sealed file is given its name before its bytes were synced.
    RenameUnsynced,
    /// Segments that the catalog does not know are not read.
    CatalogLeads,
    /// A torn tail is dropped without a word.
    SilentTornTail,
    /// COMMIT frames do not say what was durable before: damage reads as a torn tail.
    LoseDurableMark,
    /// A commit that finds the disk full forgets its rows.
    DropOnFullDisk,
    /// Maintenance on a full disk does not give the reserve up.
    KeepReserve,
    /// The rows of a file whose sync failed are not written elsewhere.
    ForgetLostFile,
    /// Whether the store is open is looked at before the lock that closing waits for.
    CheckBeforeLock,
    /// A commit is answered before its rows are written.
    AnswerBeforeWrite,
}

#[cfg(any(test, feature = "testing"))]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use crate::planted::Bug;

    static PLANTED: AtomicU8 = AtomicU8::new(0);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    impl Bug {
        /// Those that only some schedules of threads show: models find them.
        pub const RACES: [Self; 2] = [Self::CheckBeforeLock, Self::AnswerBeforeWrite];

        /// All others.
        pub const ALL: [Self; 20] = [
            Self::SkipDirectorySync,
            Self::AcknowledgeBeforeSync,
            Self::TrustFileLength,
            Self::SkipChunkChecksum,
            Self::SkipHeaderChecksum,
            Self::AcceptMisplacedFrame,
            Self::DeleteBeforeDurable,
            Self::RetryFailedSync,
            Self::SealLiveActive,
            Self::IgnoreReplaces,
            Self::LetDeadReturn,
            Self::StaleAnswer,
            Self::ShowPartialImport,
            Self::RenameUnsynced,
            Self::CatalogLeads,
            Self::SilentTornTail,
            Self::LoseDurableMark,
            Self::DropOnFullDisk,
            Self::KeepReserve,
            Self::ForgetLostFile,
        ];
    }

    /// While it lives, its bug is in every store of the process.
    #[derive(Debug)]
    pub struct Planted {
        _alone: MutexGuard<'static, ()>,
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.store(0, Ordering::SeqCst);
        }
    }

    /// Plants a bug, or none; waits until no other is planted.
    pub fn plant(bug: Option<Bug>) -> Planted {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
        Planted { _alone: alone }
    }

    /// Whether the bug is in the engine now.
    #[inline]
    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(any(test, feature = "testing"))]
pub(crate) use switch::is_planted;
#[cfg(any(test, feature = "testing"))]
pub use switch::{Planted, plant};

/// Whether the bug is in the engine now: never.
#[cfg(not(any(test, feature = "testing")))]
#[inline(always)]
pub(crate) const fn is_planted(_bug: Bug) -> bool {
    false
}
