//! Who must leave, and what becomes of them.

use super::super::*;
use super::{ask, config, layout, running, step, submit};
use crate::kv::BlockHash;

fn optimistic(grant_tokens: u64) -> Scheduler {
    let config = SchedulerConfig {
        admission: Admission::Optimistic { watermark_ppm: 0 },
        ..config()
    };
    Scheduler::new(config, layout(grant_tokens)).unwrap()
}

fn preempted(plan: &StepPlan) -> Vec<u64> {
    plan.preempted.iter().map(|row| row.row.0).collect()
}

#[test]
fn the_youngest_of_the_lowest_priority_leaves() {
    let mut scheduler = optimistic(48);
    submit(&mut scheduler, ask(1, 16, 20));
    let urgent = RowRequest {
        priority: 1,
        ..ask(2, 14, 20)
    };
    submit(&mut scheduler, urgent);
    submit(&mut scheduler, ask(3, 15, 20));
    // All admitted; 2 goes first, and two pages each are all there are.
    let plan = step(&mut scheduler);
    assert_eq!(plan.admitted.len(), 3);
    assert_eq!(running(&scheduler), [2, 1, 3]);
    let plan = step(&mut scheduler);
    assert_eq!(preempted(&plan), [3], "1 begins a third page");
    assert_eq!(running(&scheduler), [2, 1]);
    assert_eq!(plan.decode.len(), 2);
    assert_eq!(scheduler.capacity().waiting, 1);
}

/// ENG-04.
#[test]
fn a_preempted_row_comes_back_with_what_it_said_and_before_later_ones() {
    let mut scheduler = optimistic(40);
    submit(&mut scheduler, ask(1, 22, 4));
    submit(&mut scheduler, ask(2, 14, 6));
    let mut seen = Vec::new();
    let mut plan = StepPlan::default();
    for at in 0..12 {
        if at == 3 {
            submit(&mut scheduler, ask(3, 1, 2));
        }
        scheduler.plan(&mut plan);
        seen.extend(plan.prefill.iter().map(|c| (c.row.0, c.start, c.len)));
        scheduler.commit(&plan, &[], &mut Vec::new());
    }
    // 2 had said three tokens when 1 needed its page, so it has 17 to compute again.
    let expected = [
        (1, 0, 16),
        (1, 16, 6),
        (2, 0, 14),
        (2, 0, 16),
        (2, 16, 1),
        (3, 0, 1),
    ];
    assert_eq!(seen, expected);
    assert!(scheduler.is_idle());
}

#[test]
fn a_preempted_row_finds_its_own_blocks_again() {
    let mut scheduler = optimistic(64);
    let hashes = [1, 2].map(|byte| BlockHash([byte; 32]));
    submit(&mut scheduler, ask(1, 23, 3));
    scheduler.submit(ask(2, 39, 6), &hashes).unwrap();
    let mut plans = Vec::new();
    while !scheduler.is_idle() {
        plans.push(step(&mut scheduler));
    }
    let victim: Vec<u64> = plans.iter().flat_map(preempted).collect();
    assert_eq!(victim, [2]);
    let again = plans.iter().flat_map(|plan| &plan.admitted).next_back();
    assert_eq!(
        again.map(|row| (row.row.0, row.cached_tokens)),
        Some((2, 32))
    );
}

#[test]
fn what_a_victim_was_given_in_the_same_step_is_taken_back() {
    let mut scheduler = optimistic(48);
    let urgent = |id, prompt| RowRequest {
        priority: 1,
        ..ask(id, prompt, 20)
    };
    submit(&mut scheduler, ask(1, 16, 20));
    step(&mut scheduler);
    submit(&mut scheduler, urgent(2, 15));
    submit(&mut scheduler, urgent(3, 8));
    // 1 holds three pages by now, 2 two and 3 one.
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [1, 2, 3]);
    let plan = step(&mut scheduler);
    assert_eq!(preempted(&plan), [1], "3 begins a second page");
    assert_eq!(plan.decode.len(), 2, "what 1 was given is taken back");
}

/// ENG-02.
#[test]
fn a_victim_that_stood_before_who_drove_it_out_makes_nobody_miss_a_turn() {
    let mut scheduler = optimistic(48);
    let urgent = |id, prompt| RowRequest {
        priority: 1,
        ..ask(id, prompt, 20)
    };
    submit(&mut scheduler, ask(1, 16, 20));
    step(&mut scheduler);
    submit(&mut scheduler, urgent(2, 8));
    submit(&mut scheduler, urgent(3, 15));
    // 1 holds three pages by now, 2 one and 3 two.
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [1, 2, 3]);
    let plan = step(&mut scheduler);
    assert_eq!(preempted(&plan), [1], "2 begins a second page");
    let decoded: Vec<u64> = plan.decode.iter().map(|decode| decode.row.0).collect();
    assert_eq!(decoded, [2, 3]);
}

#[test]
fn a_row_that_is_its_own_victim_stops_the_rest_of_the_running() {
    let mut scheduler = optimistic(40);
    submit(&mut scheduler, ask(1, 22, 18));
    step(&mut scheduler);
    let urgent = RowRequest {
        priority: 1,
        ..ask(2, 10, 20)
    };
    submit(&mut scheduler, urgent);
    step(&mut scheduler);
    assert_eq!(step(&mut scheduler).decode.len(), 2);
    let plan = step(&mut scheduler);
    assert_eq!(preempted(&plan), [1], "it begins a page that is not there");
    assert!(plan.is_empty());
    assert_eq!(step(&mut scheduler).decode.len(), 1);
}

#[test]
fn a_prompt_is_begun_only_where_it_can_be_ended() {
    let mut scheduler = optimistic(48);
    submit(&mut scheduler, ask(1, 16, 20));
    submit(&mut scheduler, ask(2, 33, 6));
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [1]);
}

#[test]
fn a_smaller_grant_preempts_even_what_was_reserved() {
    let mut scheduler = Scheduler::new(config(), layout(400)).unwrap();
    submit(&mut scheduler, ask(1, 10, 90));
    submit(&mut scheduler, ask(2, 10, 30));
    step(&mut scheduler);
    assert_eq!(running(&scheduler), [1, 2]);
    let mut lost = Vec::new();
    scheduler.resize(104, &mut lost);
    assert_eq!(lost, []);
    assert_eq!(scheduler.steps_until_change(), None);
    let plan = step(&mut scheduler);
    assert_eq!(preempted(&plan), [2]);
    assert_eq!(plan.decode.len(), 1);
    assert!(scheduler.kv().used_bytes() <= 104);
    scheduler.resize(96, &mut lost);
    assert_eq!(lost, [RowId(1)], "it would wait for ever");
    scheduler.cancel(RowId(1));
    assert_eq!(step(&mut scheduler).admitted.len(), 1);
    assert_eq!(running(&scheduler), [2]);
}

/// ENG-03.
#[test]
fn a_waiting_row_makes_nobody_leave() {
    let mut scheduler = optimistic(48);
    submit(&mut scheduler, ask(1, 40, 8));
    step(&mut scheduler);
    let urgent = RowRequest {
        priority: 9,
        ..ask(2, 16, 8)
    };
    submit(&mut scheduler, urgent);
    let plan = step(&mut scheduler);
    assert_eq!((preempted(&plan).len(), plan.admitted.len()), (0, 0));
    assert_eq!(running(&scheduler), [1]);
}

#[test]
fn a_failed_step_leaves_nothing_behind() {
    let recurrent = KvLayout {
        state_bytes: 5,
        ..layout(1_000)
    };
    let mut scheduler = Scheduler::new(config(), recurrent).unwrap();
    let hashes = [1, 2].map(|byte| BlockHash([byte; 32]));
    scheduler.submit(ask(1, 40, 5), &hashes).unwrap();
    let mut plan = StepPlan::default();
    scheduler.plan(&mut plan);
    assert_eq!(plan.saves.len(), 1);
    scheduler.abandon(&plan);
    scheduler.cancel(RowId(1));
    assert_eq!(scheduler.kv().used_bytes(), 0);
    scheduler.submit(ask(2, 40, 5), &hashes).unwrap();
    assert_eq!(step(&mut scheduler).admitted[0].cached_tokens, 0);
}

/// Six requests without a bound on a grant of little more than one context.
fn without_bounds() -> Scheduler {
    let config = SchedulerConfig {
        rows_max: 8,
        waiting_max: 8,
        context_tokens: 2_048,
        admission: Admission::OPTIMISTIC,
        ..config()
    };
    let mut scheduler = Scheduler::new(config, layout(2_330)).unwrap();
    for id in 1..=6 {
        submit(&mut scheduler, ask(id, 48, 2_000));
    }
    scheduler
}

#[test]
fn requests_without_a_bound_run_together_where_answers_are_short() {
    let mut scheduler = without_bounds();
    for _ in 0..24 {
        assert!(preempted(&step(&mut scheduler)).is_empty());
    }
    assert_eq!(running(&scheduler), [1, 2, 3, 4, 5, 6]);
    // They end by themselves, long before the context does.
    let mut plan = StepPlan::default();
    let mut ended = Vec::new();
    for _ in 0..200 {
        scheduler.plan(&mut plan);
        assert!(preempted(&plan).is_empty());
        scheduler.commit(&plan, &[], &mut ended);
    }
    scheduler.plan(&mut plan);
    let all: Vec<RowId> = (1..=6).map(RowId).collect();
    scheduler.commit(&plan, &all, &mut ended);
    assert_eq!(ended.len(), 6);
    assert!(scheduler.is_idle());
}

#[test]
fn where_answers_fill_the_context_all_end_and_none_leaves_twice() {
    let mut scheduler = without_bounds();
    let mut left = Vec::new();
    let mut ended = Vec::new();
    let mut plan = StepPlan::default();
    let mut computed = 0;
    while !scheduler.is_idle() {
        scheduler.plan(&mut plan);
        left.extend(preempted(&plan));
        assert!(
            !plan.is_empty() || !plan.preempted.is_empty(),
            "somebody goes on"
        );
        computed += plan.prefill_tokens() + plan.decode.len() as u64;
        scheduler.commit(&plan, &[], &mut ended);
    }
    let reasons = ended.iter().map(|row| (row.generated, row.reason));
    assert!(reasons.eq([(2_000, EndReason::LimitReached); 6]));
    let count = left.len();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len(), count, "a row leaves once at most");
    assert!(count > 0, "and some must");
    // What was computed again is less than what was computed once.
    let once = 6 * 2_047;
    assert!(computed < 2 * once, "{computed} tokens for {once}");
}
