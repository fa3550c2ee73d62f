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
    let mut world = World::verified();
    world.pass_until(119);
    assert!(!world.link.is_closed());
    world.pass_until(120);
    assert!(
        world
            .took_log()
            .ends_with("tell left Silent\nclose 1008 no heartbeat\n")
    );
}

/// What a report says may be too old to count; that somebody sent it is news all the same.
#[test]
fn a_report_that_comes_too_late_to_count_is_a_sign_of_life() {
    let mut world = World::verified();
    let repeated = Heartbeat {
        status: Text::from("idle"),
        backend_capacity: Some(Capacity {
            capacity_seq: 1,
            ..Capacity::default()
        }),
        ..Heartbeat::default()
    };
    for s in (5..=600).step_by(5) {
        world.pass_until(s);
        world.frame(&encoded(&repeated));
        assert!(!world.link.is_closed(), "after {s} s");
    }
}

#[test]
fn who_has_not_registered_is_given_little_time_and_small_frames() {
    let mut silent = World::new();
    let by = Tick::ZERO + silent.rules.config.register_wait_max;
    assert_eq!(
        silent.link.next_wake(),
        Some((by, LinkWake::RegisterOverdue))
    );
    silent.pass_until(9);
    // What is no registration buys no time.
    silent.heartbeat();
    assert!(!silent.link.is_closed());
    silent.pass_until(10);
    assert_eq!(silent.took_log(), "close 1008 no registration\n");

    let size_max = silent.rules.config.register_size_max;
    let mut large = World::new();
    assert_eq!(large.link.frame_size_max(&large.rules.config), size_max);
    large.frame(&vec![b' '; size_max + 1]);
    assert_eq!(large.took_log(), "close 1009 frame too large\n");

    let mut registered = World::joined();
    registered.frame(&vec![b' '; size_max + 1]);
    assert!(!registered.link.is_closed());
    let idle = registered.link.frame_size_max(&registered.rules.config);
    registered.dispatch(1);
    let carrying = registered.link.frame_size_max(&registered.rules.config);
    assert_eq!(carrying, registered.rules.config.frame_size_max);
    assert!(
        size_max < idle && idle < carrying,
        "it has nothing to answer"
    );
}

#[test]
fn a_registration_of_as_many_models_as_are_heard_of_fits() {
    let frame = register_with(|register| {
        register.models = (0..crate::wire::REPORTED_SLOTS_MAX)
            .map(|number| ModelEntry {
                id: Text::from(format!("{}/{}-{number}", "o".repeat(96), "m".repeat(96))),
                weight_hash: Text::from("0".repeat(64)),
                ..ModelEntry::default()
            })
            .collect();
    });
    let room = crate::wire::limits::REGISTER_SIZE_MAX / 2;
    assert!(frame.len() < room, "{} bytes", frame.len());
}

#[test]
fn a_registration_whose_first_challenge_nobody_answers_is_let_go() {
    let mut world = World::joined();
    beats_until(&mut world, 29);
    assert!(!world.link.is_closed());
    beats_until(&mut world, 30);
    assert!(
        world
            .took_log()
            .ends_with("tell left Violation\nclose 1008 challenges unanswered\n")
    );
}

#[test]
fn unanswered_challenges_unverify_at_three_and_close_at_six() {
    let mut world = World::verified();
    beats_until(&mut world, 30 + 6 * 300);
    let log = world.took_log().replace("tell reported 0\n", "");
    let expected = "\
write attestation_challenge
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
