//! Silence: stalled writes, stale sweeps, unanswered challenges.

use super::*;

#[test]
fn a_write_that_stalls_ends_the_connection_at_its_deadline() {
    let mut world = World::joined();
    world.holds_writes = true;
    world.dispatch(1);
    assert_eq!(
        world.link.next_wake(),
        Some((Tick(5_000_000), LinkWake::WriteOverdue))
    );
    world.pass_until(4);
    assert_eq!(world.took_log(), "write inference_request\n");
    world.pass_until(5);
    assert_eq!(
        world.took_log(),
        "tell left WriteStalled\nclose 1011 write stalled\n"
    );
}

#[test]
fn two_stale_sweeps_end_a_silent_connection() {
    let mut world = World::joined();
    world.pass_until(119);
    assert!(!world.link.is_closed());
    world.pass_until(120);
    assert!(
        world
            .took_log()
            .ends_with("tell left Silent\nclose 1008 no heartbeat\n")
    );
    let mut unregistered = World::new();
    unregistered.pass_until(120);
    assert_eq!(unregistered.took_log(), "close 1008 no heartbeat\n");
}

#[test]
fn unanswered_challenges_unverify_at_three_and_close_at_six() {
    let mut world = World::joined();
    beats_until(&mut world, 30 + 5 * 300);
    let log = world.took_log().replace("tell reported 0\n", "");
    let expected = "\
write attestation_challenge
write attestation_challenge
tell unverified
write trust_status
write attestation_challenge
write attestation_challenge
write attestation_challenge
tell left Violation
close 1008 challenges unanswered
";
    assert_eq!(log, expected);
    assert_eq!(world.link.counts().challenge_timeouts, 6);
}

#[test]
fn answered_challenges_come_every_five_minutes() {
    let mut world = World::joined();
    world.rules.config.stale_after = Span::secs(1_000_000);
    world.link = ProviderLink::new(Tick::ZERO, CONN, OWNER, &world.rules.config);
    world.frame(&plain_register());
    world.answer(|_| {});
    for round in 1..=4u64 {
        world.took_log();
        world.pass_until(round * 300 - 1);
        assert_eq!(world.took_log(), "");
        world.pass_until(round * 300);
        world.answer(|_| {});
        assert_eq!(
            world.took_log(),
            "write attestation_challenge\ntell verified\n"
        );
    }
    world.answer(|_| {});
    assert_eq!(
        world.link.counts().challenge_answers_unknown,
        1,
        "a nonce is used once"
    );
}
