//! The laws of the scheduler, on random schedules.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn config() -> SchedulerConfig {
    SchedulerConfig {
        rows_max: 3,
        step_token_budget: 64,
        prefill_chunk_tokens: 16,
        context_tokens: 256,
        kv_token_budget: 400,
        waiting_max: 6,
    }
}

fn ask(id: u64, prompt_tokens: u32, output_tokens_max: u32) -> RowRequest {
    RowRequest {
        id: RowId(id),
        prompt_tokens,
        output_tokens_max,
        priority: 0,
    }
}

fn scheduler() -> Scheduler {
    Scheduler::new(config()).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Submit {
        prompt_tokens: u32,
        output_tokens_max: u32,
        stop_after: u32,
        priority: u8,
    },
    Cancel(u64),
    Steps(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u32..150, 1u32..120, 1u32..150, 0u8..3).prop_map(
            |(prompt_tokens, output_tokens_max, stop_after, priority)| Op::Submit {
                prompt_tokens, output_tokens_max, stop_after, priority,
            }
        ),
        1 => (0u64..40).prop_map(Op::Cancel),
        4 => (1u32..90).prop_map(Op::Steps),
    ]
}

/// A scheduler together with the hidden truth of where each row's text ends.
struct Harness {
    scheduler: Scheduler,
    plan: StepPlan,
    stop_after: BTreeMap<RowId, u32>,
    generated: BTreeMap<RowId, u32>,
    ends: BTreeMap<RowId, u32>,
    submitted: Vec<RowId>,
    history: Vec<(u64, Ended)>,
    steps_done: u64,
    next_id: u64,
}

impl Harness {
    fn new() -> Self {
        Self {
            scheduler: scheduler(),
            plan: StepPlan::default(),
            stop_after: BTreeMap::new(),
            generated: BTreeMap::new(),
            ends: BTreeMap::new(),
            submitted: Vec::new(),
            history: Vec::new(),
            steps_done: 0,
            next_id: 0,
        }
    }

    fn apply(&mut self, op: Op, pace: Pace) {
        match op {
            Op::Submit {
                prompt_tokens,
                output_tokens_max,
                stop_after,
                priority,
            } => {
                let id = RowId(self.next_id);
                self.next_id += 1;
                let row = RowRequest {
                    priority,
                    ..ask(id.0, prompt_tokens, output_tokens_max)
                };
                if self.scheduler.submit(row).is_ok() {
                    self.stop_after.insert(id, stop_after);
                    self.submitted.push(id);
                }
            }
            Op::Cancel(id) => match self.scheduler.cancel(RowId(id)) {
                Cancelled::Running(_) | Cancelled::Waiting => {
                    *self.ends.entry(RowId(id)).or_default() += 1;
                }
                Cancelled::Unknown => {}
            },
            Op::Steps(steps) => match pace {
                Pace::Slow => (0..steps).for_each(|_| self.step()),
                Pace::Macro => self.leap(steps),
            },
        }
        self.check();
    }

    fn step(&mut self) {
        self.scheduler.plan(&mut self.plan);
        self.check_plan();
        self.steps_done += 1;
        let mut stopped = Vec::new();
        let firsts = self.plan.prefill.iter().filter(|chunk| chunk.is_last);
        let tokens = firsts.map(|chunk| chunk.row);
        for row in tokens.chain(self.plan.decode.iter().map(|decode| decode.row)) {
            let count = self.generated.entry(row).or_default();
            *count += 1;
            if *count == self.stop_after[&row] {
                stopped.push(row);
            }
        }
        let mut ended = Vec::new();
        self.scheduler.commit(&self.plan, &stopped, &mut ended);
        self.note(&ended);
    }

    fn leap(&mut self, steps: u32) {
        let mut left = steps;
        while left > 0 {
            let Some(bound) = self.scheduler.steps_until_change() else {
                self.step();
                left -= 1;
                continue;
            };
            let rows: Vec<RowId> = self.scheduler.running().map(|(_, row)| row).collect();
            let until_stop = rows
                .iter()
                .map(|row| self.stop_after[row] - self.generated[row])
                .min()
                .unwrap();
            let leap = bound.min(until_stop).min(left);
            let mut stopped = Vec::new();
            for row in &rows {
                let count = self.generated.get_mut(row).unwrap();
                *count += leap;
                if *count == self.stop_after[row] {
                    stopped.push(*row);
                }
            }
            let mut ended = Vec::new();
            self.scheduler.advance_decode(leap, &stopped, &mut ended);
            self.steps_done += u64::from(leap);
            left -= leap;
            self.note(&ended);
        }
    }

    fn note(&mut self, ended: &[Ended]) {
        for end in ended {
            *self.ends.entry(end.row).or_default() += 1;
            assert_eq!(end.generated, self.generated[&end.row]);
            self.history.push((self.steps_done, *end));
        }
    }

    fn check_plan(&self) {
        let limit = u64::from(self.scheduler.config.step_token_budget);
        let decoding = u64::try_from(self.plan.decode.len()).unwrap();
        assert!(self.plan.prefill_tokens() + decoding <= limit);
        if decoding > 0 {
            let chunk = u64::from(self.scheduler.config.prefill_chunk_tokens);
            assert!(self.plan.prefill_tokens() <= chunk);
        }
    }

    /// Each row is in one place, budgets and counters equal recomputation from scratch.
    fn check(&self) {
        let s = &self.scheduler;
        let rows: Vec<&Row> = s.rows.iter().flatten().collect();
        assert_eq!(rows.len(), s.order.len());
        assert_eq!(s.free.len() + s.order.len(), s.rows.len());
        assert_eq!(
            s.kv_used,
            rows.iter().map(|row| row.kv_worst_tokens()).sum::<u64>()
        );
        assert!(s.kv_used <= s.config.kv_token_budget);
        assert_eq!(s.kv_queued, s.waiting.iter().map(worst_case).sum::<u64>());
        assert!(s.waiting.len() <= usize::from(s.config.waiting_max));
        let prefilling = rows.iter().filter(|row| row.is_prefilling()).count();
        assert_eq!(usize::from(s.prefilling_count), prefilling);
        let written = |row: &&Row| u64::from(row.prefilled + row.generated.saturating_sub(1));
        assert_eq!(s.context_tokens_live, rows.iter().map(written).sum::<u64>());
        let mut places: Vec<RowId> = rows.iter().map(|row| row.ask.id).collect();
        places.extend(s.waiting.iter().map(|ask| ask.id));
        places.sort_unstable();
        let held = places.len();
        places.dedup();
        assert_eq!(held, places.len(), "each row is in one place");
        for row in &self.submitted {
            let ends = self.ends.get(row).copied().unwrap_or(0);
            let is_held = u32::from(places.binary_search(row).is_ok());
            assert_eq!(ends + is_held, 1, "{row:?} is held or has ended once");
        }
    }
}

#[derive(Clone, Copy)]
enum Pace {
    Macro,
    Slow,
}

proptest! {
    #[test]
    fn macro_steps_equal_token_by_token(ops in prop::collection::vec(op(), 1..60)) {
        let mut slow = Harness::new();
        let mut fast = Harness::new();
        for &op in &ops {
            slow.apply(op, Pace::Slow);
            fast.apply(op, Pace::Macro);
        }
        let finish = Op::Steps(4_000);
        slow.apply(finish, Pace::Slow);
        fast.apply(finish, Pace::Macro);
        prop_assert_eq!(&slow.history, &fast.history);
        prop_assert_eq!(&slow.scheduler, &fast.scheduler);
        prop_assert!(slow.scheduler.is_idle());
        prop_assert_eq!(slow.scheduler.capacity().budget_used, 0);
        for row in &slow.submitted {
            prop_assert_eq!(slow.ends[row], 1);
        }
    }
}

#[test]
fn rows_of_one_priority_enter_in_order_of_arrival() {
    let mut scheduler = scheduler();
    for id in 0..5 {
        scheduler.submit(ask(id, 10, 10)).unwrap();
    }
    scheduler.plan(&mut StepPlan::default());
    let running: Vec<u64> = scheduler.running().map(|(_, row)| row.0).collect();
    assert_eq!(running, [0, 1, 2]);
    assert_eq!(scheduler.capacity().waiting, 2);
}

#[test]
fn a_higher_priority_enters_first() {
    let mut scheduler = scheduler();
    scheduler.submit(ask(1, 100, 100)).unwrap();
    scheduler
        .submit(RowRequest {
            priority: 9,
            ..ask(2, 100, 101)
        })
        .unwrap();
    scheduler.plan(&mut StepPlan::default());
    let running: Vec<u64> = scheduler.running().map(|(_, row)| row.0).collect();
    assert_eq!(running, [2], "both together exceed the KV budget");
}

#[test]
fn refusals_say_why() {
    let mut scheduler = scheduler();
    assert_eq!(scheduler.submit(ask(1, 0, 5)), Err(Refused::Empty));
    assert_eq!(scheduler.submit(ask(1, 5, 0)), Err(Refused::Empty));
    assert_eq!(scheduler.submit(ask(1, 200, 57)), Err(Refused::TooLong));
    assert_eq!(
        scheduler.submit(ask(1, u32::MAX, u32::MAX)),
        Err(Refused::TooLong)
    );
    scheduler.submit(ask(1, 5, 5)).unwrap();
    assert_eq!(scheduler.submit(ask(1, 5, 5)), Err(Refused::Duplicate));
    for id in 2..7 {
        scheduler.submit(ask(id, 5, 5)).unwrap();
    }
    assert_eq!(scheduler.submit(ask(7, 5, 5)), Err(Refused::QueueFull));
    let narrow = SchedulerConfig {
        kv_token_budget: 100,
        ..config()
    };
    let mut scheduler = Scheduler::new(narrow).unwrap();
    assert_eq!(scheduler.submit(ask(1, 60, 41)), Err(Refused::NeverFits));
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
        (
            SchedulerConfig {
                kv_token_budget: 0,
                ..config()
            },
            ConfigError::NoKv,
        ),
    ];
    for (config, error) in cases {
        assert_eq!(Scheduler::new(config).unwrap_err(), error);
    }
}

#[test]
fn a_row_cancelled_between_plan_and_commit_gets_nothing() {
    let mut scheduler = scheduler();
    let mut plan = StepPlan::default();
    let mut ended = Vec::new();
    scheduler.submit(ask(1, 4, 4)).unwrap();
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
    let mut plan = StepPlan::default();
    let mut ended = Vec::new();
    scheduler.submit(ask(1, 100, 2)).unwrap();
    scheduler.plan(&mut plan);
    assert_eq!((plan.prefill[0].start, plan.prefill[0].len), (0, 64));
    assert!(!plan.prefill[0].is_last);
    scheduler.commit(&plan, &[], &mut ended);
    scheduler.plan(&mut plan);
    assert_eq!((plan.prefill[0].start, plan.prefill[0].len), (64, 36));
    assert!(plan.prefill[0].is_last);
    scheduler.commit(&plan, &[], &mut ended);
    scheduler.plan(&mut plan);
    assert_eq!(plan.decode[0].position, 100);
    scheduler.commit(&plan, &[], &mut ended);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].generated, 2);
    assert_eq!(ended[0].reason, EndReason::LimitReached);
}
