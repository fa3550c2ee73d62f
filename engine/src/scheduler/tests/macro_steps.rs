//! Leaping over decode is the same as going step by step.

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{ask, config};
use crate::kv::tests::layouts;
use crate::kv::{BlockHash, Group};

#[derive(Clone, Copy, Debug)]
enum Op {
    Submit {
        prompt_tokens: u32,
        output_tokens_max: u32,
        stop_after: u32,
        priority: u8,
        family: Option<u8>,
    },
    Cancel(u64),
    Pause(u64),
    Resume(u64),
    Steps(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let family = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
    prop_oneof![
        6 => (1u32..150, 1u32..120, 1u32..150, 0u8..3, family).prop_map(
            |(prompt_tokens, output_tokens_max, stop_after, priority, family)| Op::Submit {
                prompt_tokens, output_tokens_max, stop_after, priority, family,
            }
        ),
        1 => (0u64..40).prop_map(Op::Cancel),
        1 => (0u64..40).prop_map(Op::Pause),
        1 => (0u64..40).prop_map(Op::Resume),
        6 => (1u32..90).prop_map(Op::Steps),
    ]
}

#[derive(Clone, Copy)]
enum Pace {
    Macro,
    Slow,
}

/// A scheduler together with the hidden truth of where each row's text ends.
struct Harness {
    scheduler: Scheduler,
    plan: StepPlan,
    stop_after: BTreeMap<RowId, u32>,
    generated: BTreeMap<RowId, u32>,
    paused: BTreeMap<RowId, bool>,
    history: Vec<(u64, Ended)>,
    cached: Vec<Admitted>,
    preempted: Vec<(u64, Preempted)>,
    steps_done: u64,
    next_id: u64,
}

impl Harness {
    fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            plan: StepPlan::default(),
            stop_after: BTreeMap::new(),
            generated: BTreeMap::new(),
            paused: BTreeMap::new(),
            history: Vec::new(),
            cached: Vec::new(),
            preempted: Vec::new(),
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
                family,
            } => {
                let id = RowId(self.next_id);
                self.next_id += 1;
                let row = RowRequest {
                    priority,
                    ..ask(id.0, prompt_tokens, output_tokens_max)
                };
                let name = |ix| family.map(|family| BlockHash([family * 100 + ix; 32]));
                let hashes: Vec<BlockHash> = (0..100).map_while(name).collect();
                let blocks = prompt_tokens / self.scheduler.kv().layout().block_tokens;
                let hashes = &hashes[..hashes.len().min(blocks as usize)];
                if self.scheduler.submit(row, hashes).is_ok() {
                    self.stop_after.insert(id, stop_after);
                }
            }
            Op::Cancel(id) => {
                self.scheduler.cancel(RowId(id));
            }
            Op::Pause(id) if id < self.next_id => {
                self.paused.insert(RowId(id), true);
                self.scheduler.pause(RowId(id));
            }
            Op::Resume(id) => {
                self.paused.insert(RowId(id), false);
                self.scheduler.resume(RowId(id));
            }
            Op::Pause(_) => {}
            Op::Steps(steps) => match pace {
                Pace::Slow => (0..steps).for_each(|_| self.step()),
                Pace::Macro => self.leap(steps),
            },
        }
    }

    fn step(&mut self) {
        self.scheduler.plan(&mut self.plan);
        self.steps_done += 1;
        let at = self.steps_done;
        self.cached.extend(&self.plan.admitted);
        let preempted = self.plan.preempted.iter();
        self.preempted.extend(preempted.map(|&row| (at, row)));
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
            let rows: Vec<RowId> = (self.scheduler.running())
                .map(|(_, row)| row)
                .filter(|row| !self.paused.get(row).copied().unwrap_or(false))
                .collect();
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
            assert_eq!(end.generated, self.generated[&end.row]);
            self.history.push((self.steps_done, *end));
        }
    }
}

/// Both paces tell the same and leave the same books.
fn compare(layout: KvLayout, admission: Admission, ops: &[Op]) {
    let config = SchedulerConfig {
        admission,
        ..config()
    };
    let Ok(scheduler) = Scheduler::new(config, layout) else {
        return;
    };
    let mut slow = Harness::new(scheduler.clone());
    let mut fast = Harness::new(scheduler);
    for &op in ops {
        slow.apply(op, Pace::Slow);
        fast.apply(op, Pace::Macro);
        assert_eq!(slow.scheduler.capacity(), fast.scheduler.capacity());
        let [slow, fast] = [&slow, &fast].map(|it| it.scheduler.kv().used_bytes());
        assert_eq!(slow, fast);
    }
    for id in 0..slow.next_id {
        slow.apply(Op::Resume(id), Pace::Slow);
        fast.apply(Op::Resume(id), Pace::Macro);
    }
    let finish = Op::Steps(9_000);
    slow.apply(finish, Pace::Slow);
    fast.apply(finish, Pace::Macro);
    assert_eq!(&slow.history, &fast.history);
    assert_eq!(&slow.cached, &fast.cached);
    assert_eq!(&slow.preempted, &fast.preempted);
    assert_eq!(
        slow.scheduler.kv().used_bytes(),
        fast.scheduler.kv().used_bytes()
    );
    assert!(slow.scheduler.is_idle() && fast.scheduler.is_idle());
    assert_eq!(slow.scheduler.capacity().budget_used, 0);
}

#[test]
fn a_row_that_ends_while_a_window_slides_is_let_go_after_it() {
    let group = |window, bytes_per_page| Group {
        window_tokens: NonZeroU32::new(window),
        bytes_per_page,
    };
    let layout = KvLayout {
        page_tokens: 8,
        block_tokens: 8,
        groups: vec![group(0, 10), group(40, 11)],
        state_bytes: 25,
        grant_bytes: 630,
    };
    let row = |prompt_tokens, tokens, family| Op::Submit {
        prompt_tokens,
        output_tokens_max: tokens,
        stop_after: tokens,
        priority: 0,
        family: Some(family),
    };
    let ops = [
        row(104, 8, 0),
        row(40, 66, 0),
        Op::Steps(41),
        row(25, 29, 1),
    ];
    compare(layout, Admission::WorstCase, &ops);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// ENG-07, of runs of plain decode.
    #[test]
    fn macro_steps_equal_token_by_token(
        layout in layouts(),
        is_optimistic in any::<bool>(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let admission = if is_optimistic { Admission::OPTIMISTIC } else { Admission::WorstCase };
        compare(layout, admission, &ops);
    }
}
