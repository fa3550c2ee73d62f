//! The swarm is clean, repeats itself, and its oracles bite.

use super::marks::{Mark, Marks};
use super::plan::FaultKind;
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

/// A generator that is lazy shows here, and so does a branch that came since and that no world reaches.
#[test]
fn every_rare_branch_is_reached_apart_from_those_that_no_world_can_reach() {
    let mut marks = Marks::default();
    // The rarest come once in some hundred worlds.
    for seed in 0..6_000 {
        if seed >= 400 && marks.missing().next().is_none() {
            break;
        }
        let tally = run_seed(seed, None).expect("the worlds are clean");
        marks.add(&tally.marks);
    }
    let missing: Vec<String> = marks.missing().map(|mark| mark.to_string()).collect();
    assert_eq!(missing, [""; 0]);
    let reached = Mark::all().filter(|mark| marks.count(*mark) > 0);
    let mistaken = reached.filter(|mark| mark.unreachable().is_some());
    let mistaken: Vec<String> = mistaken.map(|mark| mark.to_string()).collect();
    assert_eq!(mistaken, [""; 0]);
}

/// The first seed that notices a planted bug in this way; without the bug its world is clean.
fn found(plant: Plant, is_meant: impl Fn(&Violation) -> bool) -> Failure {
    let mut failures = (0..2_000).filter_map(|seed| run_seed(seed, Some(plant)).err());
    let failure = failures.find(|it| is_meant(&it.violation));
    let failure = failure.expect("an oracle bites within 2,000 seeds");
    assert_eq!(run_seed(failure.seed, None).map(|_| ()), Ok(()));
    *failure
}

fn assert_found(plant: Plant, laws: &[&str]) -> Failure {
    let failure = found(plant, |_| true);
    let law = failure.violation.law;
    assert!(laws.contains(&law), "{plant:?} was found by {failure}");
    failure
}

/// What shows this bug is this kind of fault and no other: without it the same world is clean.
fn assert_shown_by(plant: Plant, kind: FaultKind, laws: &[&str]) {
    let failure = assert_found(plant, laws);
    let plan = Plan::draw(failure.seed);
    let others = (0..).zip(&plan.faults);
    let others = others.filter(|(_, timed)| timed.fault.kind() != kind);
    let spared = Trial {
        plant: Some(plant),
        only: Only {
            faults: Some(others.map(|(number, _)| number).collect()),
            ..Only::default()
        },
        ..Trial::of(failure.seed)
    };
    assert_eq!(
        spared.run().map(|_| ()),
        Ok(()),
        "{plant:?} without {kind:?}"
    );
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

#[test]
fn a_clock_that_goes_back_is_found() {
    assert_shown_by(Plant::ClockGoesBack, FaultKind::Clock, &["INV-16"]);
}

/// A process that stood still hears of requests before it is woken.
#[test]
fn a_machine_that_stays_open_until_somebody_is_woken_is_found() {
    assert_shown_by(
        Plant::ClosesWhenWoken,
        FaultKind::Clock,
        &["INV-07", "INV-10"],
    );
}

#[test]
fn a_failed_write_that_counts_is_found() {
    let kind = FaultKind::WriteError;
    assert_shown_by(Plant::IgnoresWriteErrors, kind, &["INV-05"]);
}

/// A commit that nobody had heard of when its process died.
#[test]
fn a_start_that_forgets_what_was_not_heard_of_is_found() {
    assert_found(Plant::ForgetsUnheard, &["INV-03", "INV-04"]);
}

#[test]
fn a_start_that_takes_half_a_line_is_found() {
    assert_found(Plant::TakesTornLines, &["INV-03", "INV-04"]);
}

#[test]
fn a_start_that_reads_over_a_hole_is_found() {
    let kind = FaultKind::DiskDamage;
    assert_shown_by(Plant::ReadsOverHoles, kind, &["INV-03", "INV-04"]);
}

#[test]
fn a_start_that_writes_behind_damage_is_found() {
    assert_found(Plant::WritesBehindDamage, &["INV-05"]);
}

/// Nothing passes, and nobody is told.
#[test]
fn a_dead_socket_that_is_taken_for_alive_is_found() {
    let kind = FaultKind::Partition;
    assert_shown_by(Plant::PongsFromNowhere, kind, &["INV-15", "INV-32"]);
}

/// The transport damages, repeats and swaps nothing, so whatever does is a machine or our own process.
#[test]
fn a_damaged_piece_that_is_left_out_is_found() {
    assert_found(Plant::SkipsDamaged, &["INV-21"]);
}

#[test]
fn a_repeated_piece_is_found() {
    assert_found(Plant::RepeatedChunk, &["INV-21"]);
}

#[test]
fn two_pieces_that_change_places_are_found() {
    assert_found(Plant::SwappedChunks, &["INV-21"]);
}

#[test]
fn a_proven_machine_that_stays_closed_is_found() {
    assert_found(Plant::UnopenedGate, &["INV-32"]);
}

#[test]
fn a_journal_that_goes_on_behind_a_tear_is_found() {
    assert_found(Plant::JournalGoesOn, &["INV-33"]);
}

#[test]
fn a_failing_world_shrinks_to_what_it_needs_and_fails_again_by_what_is_printed() {
    let seed = found(Plant::ReadsOverHoles, |_| true).seed;
    let plant = Some(Plant::ReadsOverHoles);
    let shrunk = shrink::shrink(seed, plant, &mut |_| {}).expect("it fails");
    let mut plan = Plan::draw(seed);
    let whole = plan.faults.len();
    plan.keep(&shrunk.only);
    let kinds: Vec<FaultKind> = plan.faults.iter().map(|timed| timed.fault.kind()).collect();
    assert!(
        kinds.contains(&FaultKind::DiskDamage) && kinds.len() <= 2,
        "{kinds:?} of {whole}"
    );
    let again = Trial {
        plant,
        only: shrunk.only.to_string().parse().unwrap(),
        ..Trial::of(seed)
    };
    assert_eq!(
        again.run().map_err(|failure| *failure).err(),
        Some(shrunk.failure)
    );
    assert_eq!(shrink::shrink(seed, None, &mut |_| {}), None);
}
