//! Planted bugs: each is a mistake that engines were published with, and the suite's own checks
//! find it. A check that passes with its bug in the engine proves nothing, and fails here.

use tallystone::testing::planted::{Bug, plant};
use tallystone::testing::trust::calls::{Injection, check, check_full_disk, check_reserve};
use tallystone::testing::trust::crash::record;
use tallystone::testing::trust::damage::{small_store, targets};
use tallystone::testing::trust::{Verdict, guarded};
use tallystone::testing::{Fault, OpKind, trust};

#[path = "../benches/trust/catalog.rs"]
mod catalog;

/// A check of the suite, with what it takes to find what it is to find.
type Check = fn() -> Verdict;

/// Crashes after every operation of a few workloads.
fn crashes() -> Verdict {
    for seed in 0..3 {
        guarded(|| record(seed, 50)?.check_every_crash(6))?;
    }
    Ok(())
}

/// Flips, cuts and misplaced frames, in every file of a small store.
fn damage() -> Verdict {
    guarded(|| {
        let (fs, options) = small_store()?;
        for target in targets(&fs, &options)? {
            target.check_misplaced()?;
            let bits = target.bytes.len() * 8;
            // What names a file lies in the first bytes of its header.
            for bit in (0..bits.min(800)).step_by(11) {
                target.check_flip(bit)?;
            }
            for bit in (0..bits).step_by(if bits > 100_000 { 1_021 } else { 61 }) {
                target.check_flip(bit)?;
            }
            for len in (0..target.bytes.len()).step_by(499) {
                target.check_cut(len)?;
            }
        }
        Ok(())
    })
}

/// Writes and syncs that fail, one by one.
fn failing_calls() -> Verdict {
    for (kind, step) in [(OpKind::SyncData, 1), (OpKind::Write, 7)] {
        let one = |call| Injection { call, kind: Some(kind), fault: Fault::IO, forever: false };
        let mut calls = (0..).step_by(step);
        while check(one(calls.next().unwrap_or(0)))? {}
    }
    Ok(())
}

fn full_disks() -> Verdict {
    (0..4).try_for_each(|seed| check_full_disk(seed).and_then(|()| check_reserve(seed)))
}

fn catalogs() -> Verdict {
    let mut bases = catalog::Bases::default();
    (0..24).try_for_each(|case| guarded(|| bases.check(case)))
}

const CHECKS: [(&str, Check); 5] = [
    ("crashes", crashes),
    ("damage", damage),
    ("failing calls", failing_calls),
    ("full disks", full_disks),
    ("catalogs", catalogs),
];

/// The check that finds a bug.
fn finder(bug: Bug) -> (&'static str, Check) {
    CHECKS[match bug {
        Bug::SkipDirectorySync
        | Bug::AcknowledgeBeforeSync
        | Bug::DeleteBeforeDurable
        | Bug::SealLiveActive
        | Bug::IgnoreReplaces
        | Bug::LetDeadReturn
        | Bug::StaleAnswer
        | Bug::ShowPartialImport
        | Bug::RenameUnsynced => 0,
        Bug::TrustFileLength
        | Bug::SkipChunkChecksum
        | Bug::SkipHeaderChecksum
        | Bug::AcceptMisplacedFrame
        | Bug::SilentTornTail
        | Bug::LoseDurableMark => 1,
        Bug::RetryFailedSync | Bug::ForgetLostFile => 2,
        Bug::DropOnFullDisk | Bug::KeepReserve => 3,
        Bug::CatalogLeads => 4,
        Bug::CheckBeforeLock | Bug::AnswerBeforeWrite => panic!("{bug:?}: found by models"),
    }]
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let _none = plant(None);
    for (name, check) in CHECKS {
        check().unwrap_or_else(|found| panic!("{name}: {found}"));
    }
}

#[test]
fn every_planted_bug_is_found() {
    // Panics that a bug leads to are findings; their traces say nothing.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let planted = plant(Some(bug));
        let (name, check) = finder(bug);
        let found: Result<(), trust::Violation> = check();
        drop(planted);
        match found {
            Err(found) => println!("{bug:?}, found by {name}: {found}"),
            Ok(()) => missed.push((bug, name)),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "planted, and not found: {missed:?}");
}
