//! Crashes: what was flushed is back, once and whole, whatever a power cut, a kill or a failing
//! call left. A little of what `benches/trust` does for hours.

use tallystone::testing::trust::calls::{FAULTS, Injection, check, check_full_disk, check_reserve};
use tallystone::testing::trust::crash::{Looked, record};

#[test]
fn a_crash_after_any_operation_loses_nothing_flushed() {
    let mut looked = Looked::default();
    for seed in 0..4 {
        looked = looked.and(record(seed, 50).unwrap().check_every_crash(6).unwrap());
    }
    println!("{} crash images, {} distinct, 0 violations", looked.images, looked.distinct);
    assert!(looked.distinct > 500, "the workload makes few images: {looked:?}");
}

#[test]
fn a_crash_during_recovery_loses_nothing_flushed() {
    let mut looked = Looked::default();
    for seed in 10..12 {
        let recorded = record(seed, 30).unwrap();
        looked = looked.and(recorded.check_crashes_of_recovery(12, 10, 3).unwrap());
    }
    assert!(looked.distinct > 100, "{looked:?}");
}

#[test]
fn a_killed_process_loses_nothing_committed() {
    let looked = record(77, 60).unwrap().check_every_kill().unwrap();
    assert!(looked.distinct > 50, "{looked:?}");
}

#[test]
fn every_failing_call_leaves_the_flushed_rows() {
    let mut injections = 0;
    for (index, (_, fault)) in FAULTS.into_iter().enumerate() {
        for forever in [false, true] {
            // Campaigns let every call fail; here each fails of some fault.
            for call in (0..).map(|n| n * 97 + index as u64) {
                if !check(Injection { call, kind: None, fault, forever }).unwrap() {
                    break;
                }
                injections += 1;
            }
        }
    }
    assert!(injections > 100, "{injections}");
}

#[test]
fn a_full_disk_loses_nothing_and_lets_expired_days_go() {
    for seed in 0..8 {
        check_full_disk(seed).unwrap();
        check_reserve(seed).unwrap();
    }
}

/// Seeds of campaigns that found something once, and what.
#[test]
fn what_campaigns_found_stays_away() {
    // END of a segment on the disk, commits before it not: read as damage.
    record(1, 40).unwrap().check_every_crash(24).unwrap();
}
