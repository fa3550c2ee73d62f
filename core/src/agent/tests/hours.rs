//! Machines that serve at night only.

use super::*;

use crate::schedule::Weekday;

/// `mon 21:59:59`.
pub(super) fn wall(day: &str, clock: &str) -> LocalTime {
    let at = ["mon", "tue"].iter().position(|known| *known == day);
    let weekday = Weekday::after_monday(at.expect("a day of these scripts"));
    let seconds = clock.split(':').map(|part| part.parse::<u32>().unwrap());
    LocalTime::new(weekday, seconds.fold(0, |sum, part| sum * 60 + part))
}

pub(super) fn at_night() -> Play {
    let window = "mon 22:00-06:00".parse().expect("a window");
    let schedule = Schedule::new([window]);
    let agent = Agent::new(
        Tick::ZERO,
        AgentConfig {
            schedule,
            ..config()
        },
    );
    Play {
        agent,
        ..Play::new()
    }
}

/// Joined at half past ten.
pub(super) fn joined_at_night() -> Play {
    let mut play = at_night();
    play.run("wake; clock mon 22:30:00; wake; connect; challenge; signed");
    play
}

#[test]
fn nobody_is_dialled_before_the_window_opens() {
    let mut play = at_night();
    plays(
        &mut play,
        &[
            ("wake", "read the clock"),
            ("clock mon 20:30:00", "rest"),
            // An hour at most is slept: the wall's clock may be put forward.
            ("after 3599999", ""),
            ("due", "read the clock"),
            ("clock mon 21:30:00", ""),
            ("after 1799999", ""),
            ("after 1", "read the clock"),
            ("clock mon 22:00:00", "rise"),
            ("due", "dial 1"),
            ("connect", "register; measure"),
        ],
    );
}

#[test]
fn a_start_within_the_window_dials_at_once() {
    plays(
        &mut at_night(),
        &[
            ("wake", "read the clock"),
            ("clock tue 05:00:00", "rise"),
            ("wake", "dial 1"),
        ],
    );
}

#[test]
fn at_the_end_of_the_window_what_runs_finishes_and_nothing_more_is_taken() {
    plays(
        &mut joined_at_night(),
        &[
            ("request 1", "start 1; accepted 1"),
            ("clock tue 06:00:00", "HoursEnded; measure"),
            ("measured", "heartbeat draining 1"),
            ("request 2", "error 2 503"),
            ("said 1 a", "chunk 1 assistant 'a'"),
            (
                "done 1 1",
                "chunk 1 finish=stop; complete 1 9+1; close 1 1001; rest",
            ),
            ("wake", ""),
            ("due", "read the clock"),
            ("clock mon 22:00:00", "rise"),
            ("due", "dial 2"),
        ],
    );
}

#[test]
fn the_owner_waits_no_longer_than_the_drain_may_take() {
    let mut play = joined_at_night();
    play.run("request 1; clock tue 06:00:00");
    for _ in 0..5 {
        play.run("after 10000; pong");
    }
    assert_eq!(
        play.run("after 10000"),
        "error 1 503; stop 1; close 1 1001; rest"
    );
    assert!(!play.agent.is_stopped());
}

#[test]
fn an_idle_socket_is_left_at_once_and_one_that_is_lost_is_not_dialled_again() {
    assert_eq!(
        joined_at_night().run("clock tue 06:00:00"),
        "HoursEnded; measure; close 1 1001; rest"
    );
    let mut play = joined_at_night();
    play.run("request 1; clock tue 06:00:00");
    assert_eq!(play.run("closed"), "stop 1; rest");
    assert_eq!(play.run("stopped 1 1; wake"), "");
}

#[test]
fn a_dial_is_given_up_when_the_window_closes() {
    let mut play = at_night();
    play.run("wake; clock tue 05:59:00; wake");
    assert_eq!(
        play.run("clock tue 06:00:00"),
        "HoursEnded; abandon 1; rest"
    );
    let mut play = at_night();
    play.run("wake; clock tue 05:59:00; wake; dialfail");
    assert_eq!(play.run("clock tue 06:00:00"), "HoursEnded; rest");
}

/// The owner put the clock back while jobs were finishing.
#[test]
fn a_window_that_opens_again_meanwhile_keeps_the_models() {
    let mut play = joined_at_night();
    play.run("request 1; clock tue 06:00:00; clock tue 05:00:00");
    assert_eq!(
        play.run("done 1 1"),
        "chunk 1 assistant finish=stop; complete 1 9+1; close 1 1001"
    );
    assert_eq!(play.run("due"), "dial 2");
}

#[test]
fn a_resting_machine_ends_when_it_is_asked_to() {
    assert_eq!(at_night().run("drain"), "stopped");
    let mut play = at_night();
    play.run("wake; clock mon 12:00:00");
    assert_eq!(play.run("drain"), "stopped");
    assert_eq!(play.agent.next_wake(), None);
}

#[test]
fn a_machine_that_always_serves_asks_nobody_for_the_time() {
    let mut play = Play::joined();
    assert_eq!(play.run("clock mon 12:00:00"), "");
    assert_eq!(play.agent.counts().stale_events, 1);
}
