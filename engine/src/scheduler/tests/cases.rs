//! The cases that a sentence states.

use core::num::NonZeroU32;

use super::super::*;
use super::{ask, config, layout, running, scheduler, step, submit};
use crate::kv::{BlockHash, Group, LayoutError};

fn chunks(plan: &StepPlan) -> Vec<(u64, u32, u32)> {
    let chunk = |chunk: &Prefill| (chunk.row.0, chunk.start, chunk.len);
    plan.prefill.iter().map(chunk).collect()
}

#[test]
fn rows_of_one_priority_enter_in_order_of_arrival() {
    let mut scheduler = scheduler();
    for id in 0..5 {
        submit(&mut scheduler, ask(id, 10, 10));
    }
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [0, 1, 2]);
    assert_eq!(scheduler.capacity().waiting, 2);
}

#[test]
fn a_higher_priority_enters_first() {
    let mut scheduler = scheduler();
    submit(&mut scheduler, ask(1, 100, 100));
    let urgent = RowRequest {
        priority: 9,
        ..ask(2, 100, 101)
    };
    submit(&mut scheduler, urgent);
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [2], "both together exceed the grant");
}

#[test]
fn nobody_overtakes_a_head_that_does_not_fit_yet() {
    let mut scheduler = scheduler();
    submit(&mut scheduler, ask(1, 10, 150));
    step(&mut scheduler);
    submit(&mut scheduler, ask(2, 100, 150));
    submit(&mut scheduler, ask(3, 1, 1));
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [1]);
    scheduler.cancel(RowId(1));
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [2], "3 waits for the prompt before it");
}

#[test]
fn refusals_say_why() {
    let mut scheduler = scheduler();
    let mut refuse = |row| scheduler.submit(row, &[]).unwrap_err();
    assert_eq!(refuse(ask(1, 0, 5)), Refused::Empty);
    assert_eq!(refuse(ask(1, 5, 0)), Refused::Empty);
    assert_eq!(refuse(ask(1, 200, 57)), Refused::TooLong);
    assert_eq!(refuse(ask(1, u32::MAX, u32::MAX)), Refused::TooLong);
    submit(&mut scheduler, ask(1, 5, 5));
    assert_eq!(scheduler.submit(ask(1, 5, 5), &[]), Err(Refused::Duplicate));
    for id in 2..7 {
        submit(&mut scheduler, ask(id, 5, 5));
    }
    assert_eq!(scheduler.submit(ask(7, 5, 5), &[]), Err(Refused::QueueFull));
}

#[test]
fn what_never_fits_is_refused_at_once() {
    let mut scheduler = Scheduler::new(config(), layout(104)).unwrap();
    assert_eq!(scheduler.tokens_max(), 104);
    assert_eq!(
        scheduler.submit(ask(1, 60, 45), &[]),
        Err(Refused::NeverFits)
    );
    submit(&mut scheduler, ask(1, 60, 44));
    // 5 % of the grant are for rows that run.
    let optimistic = SchedulerConfig {
        admission: Admission::OPTIMISTIC,
        ..config()
    };
    let mut scheduler = Scheduler::new(optimistic, layout(104)).unwrap();
    assert_eq!(scheduler.tokens_max(), 96);
    assert_eq!(
        scheduler.submit(ask(1, 60, 37), &[]),
        Err(Refused::NeverFits)
    );
    submit(&mut scheduler, ask(1, 60, 36));
}

#[test]
fn an_impossible_configuration_is_refused() {
    let cases = [
        (
            SchedulerConfig {
                rows_max: 0,
                ..config()
            },
            ConfigError::NoRows,
        ),
        (
            SchedulerConfig {
                prefill_chunk_tokens: 0,
                ..config()
            },
            ConfigError::NoChunk,
        ),
        (
            SchedulerConfig {
                solo_prefill_tokens: 15,
                ..config()
            },
            ConfigError::SoloBelowChunk,
        ),
        (
            SchedulerConfig {
                partial_prefills_max: 0,
                ..config()
            },
            ConfigError::NoPartialPrefill,
        ),
        (
            SchedulerConfig {
                step_token_budget: 3,
                ..config()
            },
            ConfigError::BudgetBelowRows,
        ),
        (
            SchedulerConfig {
                context_tokens: 1,
                ..config()
            },
            ConfigError::NoContext,
        ),
    ];
    for (config, error) in cases {
        assert_eq!(Scheduler::new(config, layout(400)).unwrap_err(), error);
    }
    let none = Scheduler::new(config(), layout(7));
    assert_eq!(none.unwrap_err(), ConfigError::NoKv);
    let free = KvLayout::full_attention(0, 1);
    let free = Scheduler::new(config(), free).unwrap_err();
    assert_eq!(free, ConfigError::Layout(LayoutError::FreePages));
}

/// ENG-09.
#[test]
fn a_row_cancelled_between_plan_and_commit_gets_nothing() {
    let mut scheduler = scheduler();
    let mut plan = StepPlan::default();
    let mut ended = Vec::new();
    submit(&mut scheduler, ask(1, 4, 4));
    scheduler.plan(&mut plan);
    assert_eq!(scheduler.cancel(RowId(1)), Cancelled::Running(RowSlot(0)));
    scheduler.commit(&plan, &[], &mut ended);
    assert!(ended.is_empty());
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.cancel(RowId(1)), Cancelled::Unknown);
}

#[test]
fn the_first_token_comes_with_the_last_chunk() {
    let mut scheduler = scheduler();
    submit(&mut scheduler, ask(1, 100, 2));
    let plan = step(&mut scheduler);
    assert_eq!(chunks(&plan), [(1, 0, 64)]);
    assert!(!plan.prefill[0].is_last);
    let plan = step(&mut scheduler);
    assert_eq!(chunks(&plan), [(1, 64, 36)]);
    assert!(plan.prefill[0].is_last);
    let mut plan = StepPlan::default();
    scheduler.plan(&mut plan);
    assert_eq!(plan.decode[0].position, 100);
    let mut ended = Vec::new();
    scheduler.commit(&plan, &[], &mut ended);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].generated, 2);
    assert_eq!(ended[0].reason, EndReason::LimitReached);
}

#[test]
fn a_lone_prompt_takes_stripes_and_company_takes_chunks() {
    let mut scheduler = scheduler();
    submit(&mut scheduler, ask(1, 150, 20));
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0, 64)]);
    submit(&mut scheduler, ask(2, 40, 20));
    assert_eq!(
        chunks(&step(&mut scheduler)),
        [(1, 64, 16)],
        "2 waits: one prompt is half done at a time"
    );
    scheduler.cancel(RowId(2));
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 80, 64)]);
}

#[test]
fn short_prompts_share_a_step_and_one_goes_on_in_the_next() {
    let mut scheduler = scheduler();
    submit(&mut scheduler, ask(1, 10, 20));
    submit(&mut scheduler, ask(2, 40, 20));
    submit(&mut scheduler, ask(3, 10, 20));
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0, 10), (2, 0, 16)]);
    let plan = step(&mut scheduler);
    assert_eq!(plan.decode.len(), 1);
    assert_eq!(chunks(&plan), [(2, 16, 16)]);
    let plan = step(&mut scheduler);
    assert_eq!(chunks(&plan), [(2, 32, 8), (3, 0, 10)]);
}

#[test]
fn a_quota_bounds_all_prefill_beside_decode() {
    let quota = SchedulerConfig {
        mixed_prefill_tokens_max: NonZeroU32::new(12),
        ..config()
    };
    let mut scheduler = Scheduler::new(quota, layout(400)).unwrap();
    submit(&mut scheduler, ask(1, 10, 20));
    step(&mut scheduler);
    submit(&mut scheduler, ask(2, 8, 20));
    submit(&mut scheduler, ask(3, 8, 20));
    assert_eq!(chunks(&step(&mut scheduler)), [(2, 0, 8), (3, 0, 4)]);
    assert_eq!(chunks(&step(&mut scheduler)), [(3, 4, 4)]);
}

#[test]
fn a_paused_row_keeps_its_place_and_does_nothing() {
    let mut scheduler = scheduler();
    submit(&mut scheduler, ask(1, 10, 20));
    submit(&mut scheduler, ask(2, 10, 20));
    step(&mut scheduler);
    scheduler.pause(RowId(1));
    let plan = step(&mut scheduler);
    assert_eq!(plan.decode.len(), 1);
    assert_eq!(plan.decode[0].row, RowId(2));
    scheduler.pause(RowId(2));
    assert!(step(&mut scheduler).is_empty());
    assert_eq!(scheduler.steps_until_change(), None);
    scheduler.resume(RowId(1));
    let plan = step(&mut scheduler);
    assert_eq!(
        (plan.decode[0].row, plan.decode[0].position),
        (RowId(1), 10)
    );
}

#[test]
fn a_prompt_that_ran_before_is_found_but_for_its_last_block() {
    let mut scheduler = scheduler();
    let hashes = [1, 2, 3].map(|byte| BlockHash([byte; 32]));
    scheduler.submit(ask(1, 48, 1), &hashes).unwrap();
    step(&mut scheduler);
    assert!(scheduler.is_idle());
    scheduler.submit(ask(2, 48, 2), &hashes).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!(plan.admitted[0].cached_tokens, 32);
    assert_eq!(chunks(&plan), [(2, 32, 16)]);
    assert_eq!(scheduler.cached_tokens(RowId(2)), 32);
    assert_eq!(scheduler.context_tokens_live(), 48);
    submit(&mut scheduler, ask(3, 48, 2));
    assert_eq!(step(&mut scheduler).admitted[0].cached_tokens, 0);
}

#[test]
fn what_a_cancelled_prompt_had_computed_is_found() {
    let mut scheduler = scheduler();
    let hashes = [1, 2, 3, 4, 5].map(|byte| BlockHash([byte; 32]));
    scheduler.submit(ask(1, 90, 5), &hashes).unwrap();
    step(&mut scheduler);
    scheduler.cancel(RowId(1));
    scheduler.submit(ask(2, 90, 5), &hashes).unwrap();
    assert_eq!(step(&mut scheduler).admitted[0].cached_tokens, 64);
}

#[test]
fn blocks_of_an_answer_are_found_once_they_are_named() {
    let mut scheduler = scheduler();
    let hashes = [1, 2].map(|byte| BlockHash([byte; 32]));
    scheduler.submit(ask(1, 16, 40), &hashes[..1]).unwrap();
    step(&mut scheduler);
    for _ in 0..15 {
        step(&mut scheduler);
    }
    scheduler.extend_chain(RowId(1), &hashes[1..]);
    step(&mut scheduler);
    scheduler.submit(ask(2, 60, 5), &hashes).unwrap();
    assert_eq!(step(&mut scheduler).admitted[0].cached_tokens, 32);
}

#[test]
fn states_are_saved_at_few_boundaries_and_restored() {
    let recurrent = KvLayout {
        state_bytes: 5,
        ..layout(1_000)
    };
    let mut scheduler = Scheduler::new(config(), recurrent).unwrap();
    let hashes = [1, 2, 3, 4, 5, 6].map(|byte| BlockHash([byte; 32]));
    scheduler.submit(ask(1, 90, 5), &hashes[..5]).unwrap();
    let mut saved = Vec::new();
    for _ in 0..8 {
        let plan = step(&mut scheduler);
        saved.extend(plan.saves.iter().map(|save| save.tokens));
    }
    // Every second block of 16, and the last whole one of the prompt.
    assert_eq!(saved, [32, 64, 80]);
    scheduler.submit(ask(2, 100, 5), &hashes).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!(plan.admitted[0].cached_tokens, 80);
    let restore = Restore {
        slot: plan.admitted[0].slot,
        from: crate::kv::StateId(2),
    };
    assert_eq!(plan.restores, [restore]);
}

#[test]
fn a_stripe_beside_a_window_is_paid_for_only_while_it_lasts() {
    let window = KvLayout {
        groups: vec![Group {
            window_tokens: NonZeroU32::new(17),
            bytes_per_page: 8,
        }],
        ..layout(400)
    };
    let mut scheduler = Scheduler::new(config(), window).unwrap();
    submit(&mut scheduler, ask(1, 150, 50));
    let mut plan = StepPlan::default();
    scheduler.plan(&mut plan);
    assert_eq!(chunks(&plan), [(1, 0, 64)]);
    // 16 positions behind and 64 written span 11 pages at most; 16 and 16 span 5.
    assert_eq!(scheduler.kv().reserved_bytes(), 11 * 8);
    scheduler.commit(&plan, &[], &mut Vec::new());
    assert_eq!(scheduler.kv().reserved_bytes(), 5 * 8);
    assert_eq!(scheduler.kv().used_bytes(), 2 * 8);
}
