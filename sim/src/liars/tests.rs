//! A few worlds, each lie alone, and each defence taken away.

use super::*;

#[test]
fn liars_do_no_lasting_harm() {
    let mut tally = Tally::default();
    for seed in 0..12 {
        match run_seed(seed, None) {
            Ok(one) => tally.add(&one),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(tally.liars >= 24 && tally.lies > 100, "{tally:?}");
    assert!(tally.answered > tally.requests * 99 / 100, "{tally:?}");
}

#[test]
fn no_single_lie_does() {
    for lie in Lie::ALL {
        if let Err(failure) = run_plan(&Plan::only(3, lie), None) {
            panic!("{}: {failure}", lie.name());
        }
    }
}

/// It was barred for what counts at once, and went on with what half of its consumers must see.
#[test]
fn who_lies_in_many_ways_is_given_no_benefit_of_the_doubt() {
    if let Err(failure) = run_seed(13_900, None) {
        panic!("{failure}");
    }
}

/// INV-18.
#[test]
fn a_seed_is_a_world_again_and_again() {
    assert_eq!(run_seed(1, None), run_seed(1, None));
}

/// What the first seeds say when a defence is missing, where all liars lie in this way.
fn assert_missed(plant: Plant, lie: Lie, law: &str) {
    let mut failures = (0..40).map(|seed| (seed, run_plan(&Plan::only(seed, lie), Some(plant))));
    let found = failures.find_map(|(seed, ran)| Some((seed, ran.err()?)));
    let Some((seed, failure)) = found else {
        panic!("nobody missed what {} takes away", plant.name());
    };
    assert_eq!(failure.violation.law, law, "{failure}");
    let whole = run_plan(&Plan::only(seed, lie), None);
    assert_eq!(whole.map(|_| ()), Ok(()), "with the defence all is well");
}

#[test]
fn a_second_opinion_is_missed() {
    assert_missed(Plant::BelievesOne, Lie::ClientError, "INV-26");
    assert_missed(Plant::BelievesOne, Lie::Empty, "INV-26");
}

#[test]
fn the_proof_of_a_newcomer_is_missed() {
    assert_missed(Plant::JoinsUnproven, Lie::Replays, "INV-26");
}

#[test]
fn the_owner_of_an_attempt_is_missed() {
    assert_missed(Plant::ForeignWord, Lie::Replays, "INV-06");
}

#[test]
fn the_band_of_claims_is_missed() {
    assert_missed(Plant::PaysClaims, Lie::OverClaim, "INV-06");
}

#[test]
fn the_memory_of_lateness_is_missed() {
    assert_missed(Plant::ForgetsLateness, Lie::ClaimsSpeed, "INV-27");
    assert_missed(Plant::ForgetsLateness, Lie::Drip, "INV-27");
}

#[test]
fn the_memory_of_a_machine_that_reconnects_is_missed() {
    assert_missed(Plant::ForgetsMachines, Lie::HangsUp, "INV-27");
    assert_missed(Plant::ForgetsMachines, Lie::Plaintext, "INV-27");
}

#[test]
fn each_fault_that_counts_is_missed() {
    for (offence, lie) in [
        (Offence::BrokenSeal, Lie::Plaintext),
        (Offence::Broke, Lie::Breaks),
        (Offence::Broke, Lie::BreaksOff),
        (Offence::Deserted, Lie::HangsUp),
        (Offence::EmptyAnswer, Lie::Empty),
        (Offence::GrossOverClaim, Lie::OverClaim),
        (Offence::LoneRefusal, Lie::ClientError),
        (Offence::OverClaim, Lie::CountsBytes),
        (Offence::Overrun, Lie::OverRun),
        (Offence::Refusals, Lie::Absent),
        (Offence::Refusals, Lie::Refuses),
        (Offence::Silence, Lie::Silence),
        (Offence::Silence, Lie::SilenceAccepted),
    ] {
        assert_missed(Plant::Forgives(offence), lie, "INV-27");
    }
}
