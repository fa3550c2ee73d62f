//! Leaping over decode gives the same notes at the same ticks as computing each token.

use proptest::prelude::*;

use super::*;
use crate::hardware::Hardware;

#[derive(Clone, Copy, Debug)]
enum Op {
    Submit {
        prompt: u32,
        bound: u32,
        truth: u32,
        /// Prompts of a family are the beginning of one text.
        family: Option<u64>,
    },
    Cancel(u32),
    Grant(u64),
    Slow(u32),
    Drop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (1u32..3_000, 1u32..700, 0u32..900, prop::option::of(0u64..3)).prop_map(
            |(prompt, bound, truth, family)| Op::Submit { prompt, bound, truth, family }
        ),
        1 => (0u32..30).prop_map(Op::Cancel),
        1 => (1_000u64..9_000).prop_map(Op::Grant),
        1 => (200_000u32..1_000_000).prop_map(Op::Slow),
        1 => Just(Op::Drop),
    ]
}

fn chip() -> Chip {
    let tables = Hardware::built_in();
    let place = "m4-max/128".parse().unwrap();
    tables.pair(&place, tables.measured_with()).unwrap()
}

fn machine(pace: Pace) -> Machine {
    let config = SchedulerConfig {
        rows_max: 4,
        waiting_max: 5,
        ..SchedulerConfig::reference(8_192)
    };
    let layout = KvLayout::full_attention(1, 9_000);
    Machine::new(chip(), config, layout, pace).unwrap()
}

fn names_of(family: Option<u64>, prompt_tokens: u32) -> Vec<BlockHash> {
    let blocks: Vec<u64> = family
        .into_iter()
        .flat_map(|family| (0..6).map(move |ix| family * 10 + ix))
        .collect();
    let mut out = Vec::new();
    names(&blocks, prompt_tokens, KvLayout::BLOCK_TOKENS, &mut out);
    out
}

const fn attempt(slot: u32) -> AttemptKey {
    AttemptKey {
        slot,
        generation: 1,
    }
}

/// Everything that the machine told, with its ticks, and what it would report between.
fn history(pace: Pace, ops: &[(u64, Op)]) -> Vec<String> {
    let mut machine = machine(pace);
    let mut told = Vec::new();
    let mut due: Option<StepDue> = None;
    let mut notes = Vec::new();
    let mut now = 0;
    let mut submitted = 0;
    let end = (u64::MAX, Op::Cancel(u32::MAX));
    for &(gap_us, op) in ops.iter().chain([&end]) {
        now = u64::saturating_add(now, gap_us);
        while let Some(step) = due.filter(|step| step.at <= Tick(now)) {
            due = machine.step_done(step.epoch, &mut notes);
            told.extend(
                notes
                    .drain(..)
                    .map(|note| format!("{:?} {note:?}", step.at)),
            );
        }
        if now == u64::MAX {
            break;
        }
        told.push(format!(
            "{now} {:?} {}",
            machine.capacity(),
            machine.decode_mtps()
        ));
        let next = match op {
            Op::Submit {
                prompt,
                bound,
                truth,
                family,
            } => {
                let job = Job {
                    attempt: attempt(submitted),
                    prompt_tokens: prompt,
                    output_tokens_max: bound,
                    output_tokens_true: truth,
                };
                submitted += 1;
                let taken = machine.submit(Tick(now), &job, &names_of(family, prompt));
                told.push(format!("{:?}", taken.map(|_| ())));
                taken.unwrap_or(None)
            }
            Op::Cancel(which) => machine.cancel(Tick(now), attempt(which)),
            Op::Grant(grant_bytes) => machine.set_grant(Tick(now), grant_bytes),
            Op::Slow(speed_ppm) => machine.set_speed(Tick(now), speed_ppm),
            Op::Drop => {
                told.push(format!("dropped {}", machine.drop_rows(Tick(now))));
                due = None;
                None
            }
        };
        due = next.or(due);
    }
    assert!(machine.is_idle());
    let prompts = machine.prompts;
    told.push(format!(
        "{} {} {prompts:?}",
        machine.busy_ns(),
        machine.steps
    ));
    told
}

proptest! {
    #[test]
    fn leaping_and_stepping_tell_the_same(
        ops in prop::collection::vec((0u64..6_000_000, op()), 1..40)
    ) {
        prop_assert_eq!(history(Pace::Leap, &ops), history(Pace::Step, &ops));
    }
}

#[test]
fn a_reset_machine_ignores_the_step_of_its_past_life() {
    let mut machine = machine(Pace::Leap);
    let job = Job {
        attempt: attempt(0),
        prompt_tokens: 10,
        output_tokens_max: 10,
        output_tokens_true: 10,
    };
    let due = machine.submit(Tick(0), &job, &[]).unwrap().unwrap();
    machine.reset();
    let mut notes = Vec::new();
    assert_eq!(machine.step_done(due.epoch, &mut notes), None);
    assert!(notes.is_empty());
    assert!(machine.is_idle());
}

/// The time of the first token of a prompt of 1,500 tokens that comes when another has ended.
fn first_token_ns(families: [Option<u64>; 2]) -> u64 {
    let mut machine = machine(Pace::Leap);
    let mut notes = Vec::new();
    let mut now = Tick(0);
    for (slot, family) in (0..).zip(families) {
        let job = Job {
            attempt: attempt(slot),
            prompt_tokens: 1_500,
            output_tokens_max: 1,
            output_tokens_true: 1,
        };
        let taken = machine.submit(now, &job, &names_of(family, 1_500));
        let mut due = taken.unwrap();
        while let Some(step) = due {
            now = step.at;
            due = machine.step_done(step.epoch, &mut notes);
        }
    }
    assert_eq!(machine.prompts.tokens, 3_000);
    machine.busy_ns()
}

#[test]
fn what_is_found_of_a_prompt_takes_no_time_to_compute() {
    let cold = first_token_ns([None, None]);
    assert_eq!(first_token_ns([Some(1), Some(2)]), cold);
    assert_eq!(first_token_ns([Some(1), None]), cold);
    // 23 blocks of 64 tokens are all of the prompt but its last 28.
    let found = chip().prompt_ns(23 * 64);
    let warm = first_token_ns([Some(1), Some(1)]);
    // Fewer pieces read the weights less often.
    let saved = cold - warm - found;
    assert!(
        saved.is_multiple_of(chip().step_ns) && saved <= 3 * chip().step_ns,
        "{saved}"
    );
}

#[test]
fn an_answer_of_nothing_begins_with_its_end() {
    let mut machine = machine(Pace::Leap);
    let job = Job {
        attempt: attempt(0),
        prompt_tokens: 10,
        output_tokens_max: 10,
        output_tokens_true: 0,
    };
    let mut due = machine.submit(Tick(0), &job, &[]).unwrap();
    let mut notes = Vec::new();
    while let Some(step) = due {
        due = machine.step_done(step.epoch, &mut notes);
    }
    let nothing = Note::Completed {
        attempt: attempt(0),
        prompt_tokens: 10,
        cached_tokens: 0,
        completion_tokens: 0,
    };
    assert_eq!(notes, [nothing]);
}
