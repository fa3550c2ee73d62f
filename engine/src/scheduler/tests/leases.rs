//! Who runs out of time, when, and of what.

use cereus_core::time::{Span, Tick};
use proptest::prelude::*;

use crate::scheduler::RowId;
use crate::scheduler::leases::{Cause, Expired, LeaseConfig, Leases, Watchdog};

const ROW: RowId = RowId(7);

fn at(seconds: u64) -> Tick {
    Tick::ZERO + Span::secs(seconds)
}

/// A row of 2,000 and 400 tokens, submitted at 0.
fn leases() -> Leases {
    let mut leases = Leases::new(LeaseConfig::REFERENCE);
    leases.submitted(at(0), ROW, 2_000, 400);
    leases
}

/// The row's time is up at this second and not a microsecond before.
fn assert_expires(leases: &Leases, seconds: u64, cause: Cause) {
    assert_eq!(leases.next_deadline(), Some((at(seconds), cause)));
    let mut out = Vec::new();
    leases.clone().expire(Tick(at(seconds).0 - 1), &mut out);
    assert_eq!(out, []);
    let mut leases = leases.clone();
    leases.expire(at(seconds), &mut out);
    assert_eq!(out, [Expired { row: ROW, cause }]);
    assert_eq!(leases.next_deadline(), None, "a row expires once");
}

/// ENG-20.
#[test]
fn the_ceiling_is_what_the_specification_computes() {
    let config = LeaseConfig::REFERENCE;
    assert_eq!(config.ceiling(2_000, 400), Span::secs(120 + 20 + 80 + 60));
    assert_eq!(config.ceiling(0, 0), Span::secs(180));
    assert_eq!(config.ceiling(1, 1), Span::micros(180_210_000));
    assert_eq!(
        config.ceiling(u32::MAX, u32::MAX),
        Span::secs(120 + 60) + Span(u64::from(u32::MAX) * 210_000)
    );
}

#[test]
fn a_row_that_is_never_admitted_times_out() {
    assert_expires(&leases(), 120, Cause::AdmissionTimeout);
}

#[test]
fn a_prompt_that_does_not_advance_stalls() {
    let mut leases = leases();
    leases.prefilled(at(100), ROW);
    assert_expires(&leases, 220, Cause::PrefillStall);
    leases.prefilled(at(150), ROW);
    assert_expires(&leases, 270, Cause::PrefillStall);
}

#[test]
fn a_row_without_a_token_stalls() {
    let mut leases = leases();
    leases.prefilled(at(1), ROW);
    leases.decoded(at(2), ROW);
    leases.decoded(at(60), ROW);
    assert_expires(&leases, 180, Cause::DecodeStall);
}

#[test]
fn a_preempted_row_gets_a_fresh_lease_and_is_admitted_no_second_time() {
    let mut leases = leases();
    leases.prefilled(at(1), ROW);
    leases.decoded(at(2), ROW);
    leases.preempted(at(100), ROW);
    assert_expires(&leases, 220, Cause::PrefillStall);
}

#[test]
fn progress_stands_still_while_a_consumer_does_not_read() {
    let mut leases = leases();
    leases.decoded(at(10), ROW);
    leases.paused(at(30), ROW);
    leases.paused(at(90), ROW);
    assert_expires(&leases, 150, Cause::BackpressureTimeout);
    leases.resumed(at(110), ROW);
    // 100 of its 120 seconds were left.
    assert_expires(&leases, 210, Cause::DecodeStall);
}

#[test]
fn an_admission_does_not_wait_for_a_reader() {
    let mut leases = leases();
    leases.paused(at(30), ROW);
    assert_expires(&leases, 120, Cause::AdmissionTimeout);
}

#[test]
fn no_progress_outlasts_the_ceiling() {
    let mut leases = leases();
    for seconds in 1..280 {
        leases.decoded(at(seconds), ROW);
    }
    assert_expires(&leases, 280, Cause::SafetyDeadline);
}

#[test]
fn rows_that_ended_are_heard_of_no_more() {
    let mut leases = leases();
    leases.ended(ROW);
    leases.decoded(at(1), ROW);
    leases.paused(at(2), ROW);
    leases.resumed(at(3), ROW);
    assert_eq!(leases.next_deadline(), None);
}

#[test]
fn a_step_that_does_not_end_is_seen() {
    let mut watchdog = Watchdog::REFERENCE;
    assert!(!watchdog.is_stuck(at(1_000)));
    watchdog.step_began(at(1_000));
    assert!(!watchdog.is_stuck(Tick(at(1_030).0 - 1)));
    assert!(watchdog.is_stuck(at(1_030)));
    watchdog.step_ended();
    assert!(!watchdog.is_stuck(at(9_999)));
}

#[test]
fn every_cause_has_its_name_on_the_wire() {
    let codes = [
        (Cause::AdmissionTimeout, "admission_timeout"),
        (Cause::BackpressureTimeout, "backpressure_timeout"),
        (Cause::Cancelled, "cancelled"),
        (Cause::DecodeStall, "decode_stall"),
        (Cause::PrefillStall, "prefill_stall"),
        (Cause::SafetyDeadline, "safety_deadline"),
        (Cause::Watchdog, "watchdog"),
    ];
    for (cause, code) in codes {
        assert_eq!(cause.code(), code);
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Decode,
    Pause,
    Prefill,
    Resume,
}

proptest! {
    /// The slow model adds up, second by second, how long the row has gone without progress.
    #[test]
    fn time_is_up_when_the_seconds_counted_one_by_one_say_so(
        ops in prop::collection::vec(
            (0u64..90, prop_oneof![
                Just(Op::Decode), Just(Op::Pause), Just(Op::Prefill), Just(Op::Resume)
            ]),
            0..12,
        )
    ) {
        let mut leases = leases();
        let mut ops: Vec<(u64, Op)> = ops
            .iter()
            .scan(0, |now, &(gap, op)| {
                *now += gap;
                Some((*now, op))
            })
            .collect();
        ops.reverse();
        let (mut idle, mut unread, mut is_paused) = (0, 0, false);
        let mut stall = Cause::AdmissionTimeout;
        let mut is_over = false;
        for second in 0..=280 {
            if second > 0 {
                let stands_still = is_paused && stall != Cause::AdmissionTimeout;
                idle += u64::from(!stands_still);
                unread += u64::from(is_paused);
            }
            let mut out = Vec::new();
            leases.expire(at(second), &mut out);
            let is_due = idle >= 120 || unread >= 120 || second >= 280;
            prop_assert_eq!(out.len(), usize::from(is_due), "at {}", second);
            if let Some(expired) = out.first() {
                let is_right = match expired.cause {
                    Cause::BackpressureTimeout => unread >= 120,
                    Cause::SafetyDeadline => second >= 280,
                    cause => cause == stall && idle >= 120,
                };
                prop_assert!(is_right, "{:?} at {}", expired.cause, second);
                is_over = true;
                break;
            }
            while let Some(&(_, op)) = ops.last().filter(|(when, _)| *when == second) {
                ops.pop();
                match op {
                    Op::Decode => {
                        leases.decoded(at(second), ROW);
                        (idle, stall) = (0, Cause::DecodeStall);
                    }
                    Op::Pause => {
                        leases.paused(at(second), ROW);
                        is_paused = true;
                    }
                    Op::Prefill => {
                        leases.prefilled(at(second), ROW);
                        (idle, stall) = (0, Cause::PrefillStall);
                    }
                    Op::Resume => {
                        leases.resumed(at(second), ROW);
                        (unread, is_paused) = (0, false);
                    }
                }
            }
        }
        prop_assert!(is_over, "the ceiling ends every row");
    }
}
