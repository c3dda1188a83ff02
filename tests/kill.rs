//! `kill -9`: what was acknowledged is back, once and right, however often writers are killed.
//! A little of what `benches/trust` does for hours.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use tallystone::time::{Clock, SystemClock};

#[path = "../benches/trust/kill.rs"]
mod kill;

const ROUNDS: u64 = 200;
/// After so many rounds a new store is begun, so that checking stays quick.
const ROUNDS_OF_A_STORE: u64 = 10;

/// Not a test: what a child does. Nothing when nobody asks for it.
#[test]
fn child() {
    kill::child();
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let begun = SystemClock.elapsed();
    let arguments = ["--exact", "child", "--nocapture", "--test-threads=1"];
    let (mut kills, mut torn, mut rows, mut acknowledged) = (0, 0, 0, 0);
    for first in (0..ROUNDS).step_by(10) {
        let place = tempfile::tempdir().unwrap();
        let rounds = first..first + ROUNDS_OF_A_STORE;
        let store = place.path().join("store");
        let survived = kill::kill_again_and_again(&arguments, &store, rounds).unwrap();
        kills += survived.kills;
        torn += survived.torn;
        rows += survived.rows;
        acknowledged += survived.acknowledged;
    }
    let took = SystemClock.elapsed().saturating_sub(begun);
    println!(
        "{kills} kills, {torn} torn tails, {rows} rows found, {acknowledged} acknowledged, 0 lost, {took:.1?}"
    );
    assert!(acknowledged > ROUNDS * 10, "the children write too little");
}
