//! The swarm is clean, repeats itself, and its oracles bite.

use super::*;

#[test]
fn worlds_keep_every_law() {
    let mut tally = Tally::default();
    for seed in 0..60 {
        match run_seed(seed, None) {
            Ok(one) => tally.add(&one),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(tally.answered > 100, "{tally:?}");
    assert!(
        tally.refused > 0 && tally.reset > 0 && tally.left > 0,
        "{tally:?}"
    );
}

/// INV-18.
#[test]
fn a_seed_is_a_world_again_and_again() {
    for seed in 0..5 {
        assert_eq!(run_seed(seed, None), run_seed(seed, None));
    }
}

/// INV-30 is looked at where something happens.
#[test]
fn machines_that_begin_without_models_are_told_to_load_them() {
    let loads = (0..40).map(|seed| run_seed(seed, None).map_or(0, |tally| tally.loads));
    assert!(loads.sum::<u64>() > 0);
}

/// The first seed that notices a planted bug in this way; without the bug its world is clean.
fn found(plant: Plant, is_meant: impl Fn(&Violation) -> bool) -> Failure {
    let mut failures = (0..2_000).filter_map(|seed| run_seed(seed, Some(plant)).err());
    let failure = failures.find(|it| is_meant(&it.violation));
    let failure = failure.expect("an oracle bites within 2,000 seeds");
    assert_eq!(run_seed(failure.seed, None).map(|_| ()), Ok(()));
    *failure
}

fn assert_found(plant: Plant, laws: &[&str]) {
    let failure = found(plant, |_| true);
    let law = failure.violation.law;
    assert!(laws.contains(&law), "{plant:?} was found by {failure}");
}

#[test]
fn a_double_settlement_is_found() {
    assert_found(Plant::DoubleSettle, &["INV-03", "INV-04"]);
}

#[test]
fn a_dropped_chunk_is_found() {
    assert_found(Plant::DroppedChunk, &["INV-21"]);
}

#[test]
fn a_leaked_hold_is_found() {
    assert_found(Plant::LeakedHold, &["INV-04", "an assertion"]);
}

#[test]
fn a_lost_cancel_is_found() {
    assert_found(Plant::LostCancel, &["INV-22"]);
}

/// INV-25: where two machines race, by the winner's release, and by the attempt that comes after a
/// lost one.
#[test]
fn a_rival_that_was_never_told_to_stop_is_found() {
    for what in ["is released for", "is sent out beside"] {
        found(Plant::LostCancel, |violation| {
            violation.law == "INV-25" && violation.what.contains(what)
        });
    }
}

/// Who leaves a stream pays for what was shown, and never sees for what.
#[test]
fn a_charge_without_a_receipt_is_found() {
    assert_found(Plant::LostReceipt, &["INV-29"]);
}

#[test]
fn an_old_connections_event_is_found() {
    assert_found(Plant::OldConnection, &["INV-10", "INV-23"]);
}

/// Two connections' tasks run in the other order than the coordinator decided.
#[test]
fn an_older_attempt_that_replaces_a_newer_one_is_found() {
    assert_found(Plant::OlderAttempt, &["INV-21", "INV-31"]);
    // What the consumer sees shows it, and so does the trail of its relay.
    for law in ["INV-21", "INV-31"] {
        found(Plant::OlderAttempt, |violation| violation.law == law);
    }
}

/// The consumer leaves, the provider ends at once, and nobody tells the core.
#[test]
fn a_terminal_that_the_core_does_not_hear_is_found() {
    assert_found(Plant::UnheardTerminal, &["INV-24"]);
}

#[test]
fn a_stale_report_is_found() {
    assert_found(Plant::StaleReport, &["INV-10"]);
}
