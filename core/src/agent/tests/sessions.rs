use super::*;
use crate::link::{EARN_KEY_UNKNOWN, IDENTITY_CONTESTED, LOST_AT_WORK, NOTHING_SOLD};

#[test]
fn a_session_registers_first_and_answers_its_challenge() {
    plays(
        &mut Play::new(),
        &[
            ("wake", "dial 1"),
            ("connect", "register; measure"),
            ("challenge", "Joined; sign n0t0"),
            ("signed", "answer n0 s1 s2"),
            ("signed", ""),
        ],
    );
}

#[test]
fn heartbeats_are_numbered_and_say_what_we_do() {
    plays(
        &mut Play::joined(),
        &[
            ("after 5000", "measure"),
            ("measured", "heartbeat idle 1"),
            ("request 1", "start 1; accepted 1"),
            ("measured", "heartbeat serving 2"),
            ("drain", "measure"),
            ("measured", "heartbeat draining 3"),
            ("request 2", "error 2 503"),
        ],
    );
}

#[test]
fn silence_of_thirty_seconds_ends_the_session_and_a_pong_keeps_it() {
    plays(
        &mut Play::joined(),
        &[
            ("after 10000; pong", "ping; measure"),
            ("after 10000", "ping; measure"),
            ("after 10000", "ping; measure"),
            ("after 10000", "abandon 1"),
            ("due", "dial 2"),
            ("pong", ""),
        ],
    );
}

#[test]
fn a_gap_of_the_ping_timer_is_a_suspension_and_reconnects_at_once() {
    plays(
        &mut Play::joined(),
        &[
            ("request 1", "start 1; accepted 1"),
            ("after 31000", "Suspended; abandon 1; stop 1"),
            ("wake", "dial 2"),
        ],
    );
}

#[test]
fn a_lost_socket_stops_its_jobs_and_nothing_is_resumed() {
    plays(
        &mut Play::joined(),
        &[
            (
                "request 1; said 1 a",
                "start 1; accepted 1; chunk 1 assistant 'a'",
            ),
            ("closed", "stop 1"),
            ("said 1 b", ""),
            ("after 2000; connect", "dial 2; register; measure"),
            // The engine has not let go yet: one of two slots is still taken.
            (
                "request 2; request 3",
                "Joined; start 2; accepted 2; error 3 429 queue_full",
            ),
            ("stopped 1 1", ""),
            ("request 4", "start 4; accepted 4"),
        ],
    );
}

#[test]
fn events_of_an_old_socket_take_no_effect() {
    let mut play = Play::joined();
    play.run("closed; after 2000");
    assert_eq!(play.session, SessionId(2));
    play.session = SessionId(1);
    plays(
        &mut play,
        &[
            ("challenge", ""),
            ("closed", ""),
            ("dialfail", ""),
            ("close 1001 drain:operator", ""),
            ("connect", "abandon 1"),
        ],
    );
    play.session = SessionId(2);
    assert_eq!(play.run("connect"), "register; measure");
    assert_eq!(play.agent.counts().stale_events, 5);
}

#[test]
fn a_deploy_lets_jobs_finish_takes_none_and_comes_back_within_seconds() {
    let mut play = Play::joined();
    plays(
        &mut play,
        &[
            ("request 1", "start 1; accepted 1"),
            ("close 1001 drain:deploy", "CoordinatorDeploys"),
            ("request 2", "error 2 503"),
            (
                "done 1 1",
                "chunk 1 assistant finish=stop; complete 1 9+1; close 1 1001",
            ),
            ("due", "dial 2"),
        ],
    );
    assert!((1_000..5_000).contains(&play.dialled_after.as_millis_floor()));
}

#[test]
fn being_sent_away_costs_thirty_seconds() {
    let mut play = Play::joined();
    plays(
        &mut play,
        &[
            ("close 1001 drain:operator", "SentAway; close 1 1001"),
            ("due", "dial 2"),
        ],
    );
    assert_eq!(play.dialled_after, OPERATOR_WAIT);
}

#[test]
fn any_other_close_is_an_outage() {
    plays(
        &mut Play::joined(),
        &[
            ("request 1", "start 1; accepted 1"),
            ("close 1000 ", "abandon 1; stop 1"),
            ("after 2000", "dial 2"),
        ],
    );
}

#[test]
fn a_dial_that_hangs_is_given_up() {
    plays(
        &mut Play::new(),
        &[
            ("wake", "dial 1"),
            ("after 10000", "abandon 1"),
            ("due", "dial 2"),
            ("dialfail", ""),
            ("due", "dial 3"),
        ],
    );
}

#[test]
fn sigterm_finishes_what_runs_and_then_leaves() {
    plays(
        &mut Play::joined(),
        &[
            ("request 1", "start 1; accepted 1"),
            ("drain", "measure"),
            ("said 1 a", "chunk 1 assistant 'a'"),
            (
                "load tiny",
                "load_status failed provider draining for update",
            ),
            (
                "done 1 1",
                "chunk 1 finish=stop; complete 1 9+1; close 1 1001; stopped",
            ),
            ("wake", ""),
        ],
    );
}

#[test]
fn sigterm_fails_what_does_not_finish_in_time() {
    let mut play = Play::joined();
    play.run("request 1; drain");
    for _ in 0..5 {
        play.run("after 10000; pong");
    }
    assert_eq!(
        play.run("after 10000"),
        "error 1 503; stop 1; close 1 1001; stopped"
    );
    assert!(play.agent.is_stopped());
}

#[test]
fn sigterm_without_a_socket_leaves_at_once() {
    assert_eq!(Play::new().run("drain"), "stopped");
    assert_eq!(Play::new().run("wake; drain"), "dial 1; abandon 1; stopped");
}

#[test]
fn bad_frames_are_dropped_and_the_session_kept() {
    plays(
        &mut Play::joined(),
        &[
            ("frame {", "BadFrame"),
            (r#"frame {"type":"mystery"}"#, "BadFrame"),
            (r#"frame {"type":"cancel","request_id":"x"}"#, ""),
            ("request 1", "start 1; accepted 1"),
        ],
    );
}

#[test]
fn a_key_that_nobody_holds_and_an_identity_of_two_are_told_to_the_operator() {
    let table = [
        (EARN_KEY_UNKNOWN, "EarnKeyUnknown; abandon 1"),
        (IDENTITY_CONTESTED, "Contested; abandon 1"),
        ("something else", "abandon 1"),
    ];
    for (reason, told) in table {
        let close = format!("close 1008 {reason}");
        plays(&mut Play::joined(), &[(close.as_str(), told)]);
    }
}

#[test]
fn an_owner_hears_why_a_machine_that_joined_gets_nothing_or_may_be_sent_away() {
    plays(
        &mut Play::joined(),
        &[
            (&format!("trust {NOTHING_SOLD}"), "NothingSold"),
            (&format!("trust {IDENTITY_CONTESTED}"), "Contested"),
            (&format!("trust {LOST_AT_WORK}"), "LostAtWork"),
            ("trust words of somebody else", ""),
            ("request 1", "start 1; accepted 1"),
        ],
    );
}
