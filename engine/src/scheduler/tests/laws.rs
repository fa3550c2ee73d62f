//! The invariants of `engine/INVARIANTS.md`, after every step of random schedules that a stand-in for
//! the tensors carries out.

use core::cmp::Reverse;
use core::num::NonZeroU32;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{ask, config};
use crate::kv::HitLimit;
use crate::kv::tests::layouts;
use crate::kv::tests::memory::{Memory, Sequence, token_after};
use crate::kv::tests::recount::recount;

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Cancel(u64),
    /// The next step fails.
    Fail,
    Pause(u64),
    /// To so many eighths of the first grant.
    Resize(u64),
    Resume(u64),
    Steps(u32),
    Submit {
        prompt_tokens: u32,
        output_tokens_max: u32,
        stop_after: u32,
        priority: u8,
        tenant: Option<u8>,
        /// Prompts begin alike up to here.
        common: u32,
    },
    /// The row is cancelled while the next step is computed.
    Withdraw(u64),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let tenant = prop_oneof![Just(None), Just(Some(1u8)), Just(Some(1)), Just(Some(2))];
    let id = 0u64..24;
    // Whole blocks, asked again, are found whole.
    let prompt = prop_oneof![1u32..150, (1u32..4).prop_map(|blocks| blocks * 32)];
    let common = prop_oneof![0u32..150, Just(200)];
    prop_oneof![
        8 => (prompt, 1u32..150, 1u32..150, 0u8..3, tenant, common).prop_map(
            |(prompt_tokens, output_tokens_max, stop_after, priority, tenant, common)| Op::Submit {
                prompt_tokens, output_tokens_max, stop_after, priority, tenant, common,
            }
        ),
        8 => (1u32..40).prop_map(Op::Steps),
        1 => id.clone().prop_map(Op::Cancel),
        1 => id.clone().prop_map(Op::Withdraw),
        1 => id.clone().prop_map(Op::Pause),
        1 => id.prop_map(Op::Resume),
        1 => Just(Op::Fail),
        2 => (1u64..10).prop_map(Op::Resize),
    ]
}

pub(super) fn configs() -> impl Strategy<Value = SchedulerConfig> {
    let watermark = |watermark_ppm| Just(Admission::Optimistic { watermark_ppm });
    let admission = prop_oneof![Just(Admission::WorstCase), watermark(0), watermark(50_000)];
    let hits = prop_oneof![Just(HitLimit::LastBlock), Just(HitLimit::LastToken)];
    let quota = prop_oneof![Just(None), (1u32..40).prop_map(NonZeroU32::new)];
    let chunks = (5u32..40, 0u32..60);
    (admission, hits, quota, chunks, 1u16..5, 1u16..4, 1u32..4).prop_map(
        |(admission, hit_limit, quota, (chunk, more), rows_max, partial, checkpoint)| {
            SchedulerConfig {
                rows_max,
                prefill_chunk_tokens: chunk,
                solo_prefill_tokens: chunk + more,
                mixed_prefill_tokens_max: quota,
                partial_prefills_max: partial,
                admission,
                hit_limit,
                checkpoint_blocks: NonZeroU32::new(checkpoint).unwrap(),
                ..config()
            }
        },
    )
}

struct Truth {
    sequence: Sequence,
    prompt_tokens: u32,
    stop_after: u32,
    output_tokens_max: u32,
    is_paused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Computed,
    Failed,
}

/// How often a run came by what is worth coming by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) adopted: u32,
    pub(super) cancelled: u32,
    pub(super) copied: u32,
    pub(super) forgotten: u32,
    pub(super) paused: u32,
    pub(super) preempted: u32,
    pub(super) restored: u32,
    pub(super) withdrawn: u32,
}

pub(super) struct Harness {
    pub(super) scheduler: Scheduler,
    memory: Memory,
    plan: StepPlan,
    live: BTreeMap<RowId, Truth>,
    grant_first: u64,
    /// The next row's id.
    pub(super) submitted: u64,
    withdraw: Option<RowId>,
    /// Of each row that came to its end: stands for all that it said.
    pub(super) said: BTreeMap<RowId, u64>,
    pub(super) seen: Seen,
}

impl Harness {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        Self {
            grant_first: scheduler.kv().layout().grant_bytes,
            scheduler,
            memory: Memory::default(),
            plan: StepPlan::default(),
            live: BTreeMap::new(),
            submitted: 0,
            withdraw: None,
            said: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Cancel(id) => self.cancel(RowId(id)),
            Op::Fail => self.step(Outcome::Failed),
            Op::Pause(id) => self.set_paused(id, true),
            Op::Resize(eighths) => {
                let mut lost = Vec::new();
                let grant = self.grant_first * eighths / 8;
                self.scheduler.resize(grant, &mut lost);
                lost.into_iter().for_each(|id| self.cancel(id));
            }
            Op::Resume(id) => self.set_paused(id, false),
            Op::Steps(steps) => (0..steps).for_each(|_| self.step(Outcome::Computed)),
            Op::Submit { .. } => self.submit(op),
            Op::Withdraw(id) => {
                self.withdraw = Some(RowId(id));
                self.step(Outcome::Computed);
            }
        }
        self.check();
    }

    fn submit(&mut self, op: Op) {
        let Op::Submit {
            prompt_tokens,
            output_tokens_max,
            stop_after,
            priority,
            tenant,
            common,
        } = op
        else {
            unreachable!("the caller matched");
        };
        let id = RowId(self.submitted);
        self.submitted += 1;
        let own = 100 + u32::try_from(id.0).unwrap();
        let token = |ix| if ix < common { 7 } else { own };
        let tokens: Vec<u32> = (0..prompt_tokens).map(token).collect();
        let block = self.scheduler.kv().layout().block_tokens;
        let sequence = Sequence::new(&tokens, tenant, block);
        let row = RowRequest {
            priority,
            ..ask(id.0, prompt_tokens, output_tokens_max)
        };
        if self.scheduler.submit(row, &sequence.hashes).is_ok() {
            let truth = Truth {
                sequence,
                prompt_tokens,
                stop_after,
                output_tokens_max,
                is_paused: false,
            };
            self.live.insert(id, truth);
        }
    }

    /// ENG-09: a row leaves at once, and a cancel that comes too late changes nothing.
    fn cancel(&mut self, id: RowId) {
        let was_live = self.live.remove(&id).is_some();
        let before = self.scheduler.clone();
        let found = self.scheduler.cancel(id);
        assert_eq!(was_live, found != Cancelled::Unknown);
        assert_eq!(was_live, self.scheduler != before);
        self.seen.cancelled += u32::from(was_live);
    }

    fn set_paused(&mut self, id: u64, is_paused: bool) {
        if let Some(truth) = self.live.get_mut(&RowId(id)) {
            truth.is_paused = is_paused;
            self.seen.paused += u32::from(is_paused);
        }
        if is_paused {
            self.scheduler.pause(RowId(id));
        } else {
            self.scheduler.resume(RowId(id));
        }
    }

    fn step(&mut self, outcome: Outcome) {
        let before = self.scheduler.clone();
        let mut plan = core::mem::take(&mut self.plan);
        self.scheduler.plan(&mut plan);
        self.check_plan(&before, &plan);
        self.check();
        if plan.is_empty() && plan.preempted.is_empty() {
            // The runtime sleeps on it: nothing comes of asking again.
            let mut again = StepPlan::default();
            self.scheduler.clone().plan(&mut again);
            assert!(again.is_empty() && again.preempted.is_empty());
        }
        let hits = plan.admitted.iter().filter(|row| row.cached_tokens > 0);
        self.seen.adopted += hits.count() as u32;
        self.seen.copied += plan.copies.len() as u32;
        self.seen.preempted += plan.preempted.len() as u32;
        self.seen.restored += plan.restores.len() as u32;
        let blocks = |scheduler: &Scheduler| scheduler.kv().findable_blocks();
        self.seen.forgotten += u32::from(blocks(&self.scheduler) < blocks(&before));
        match outcome {
            Outcome::Computed => self.carry_out(&plan),
            Outcome::Failed => {
                self.scheduler.abandon(&plan);
                let prefill = plan.prefill.iter().map(|chunk| chunk.row);
                let decode = plan.decode.iter().map(|decode| decode.row);
                prefill.chain(decode).for_each(|row| self.cancel(row));
            }
        }
        self.plan = plan;
        self.check();
    }

    fn carry_out(&mut self, plan: &StepPlan) {
        let page_tokens = self.scheduler.kv().layout().page_tokens;
        for copy in &plan.copies {
            self.memory.copy(page_tokens, copy);
        }
        for restore in &plan.restores {
            self.memory.restore(restore.from, restore.slot.0);
        }
        let mut sampled = Vec::new();
        for chunk in &plan.prefill {
            let sequence = &self.live[&chunk.row].sequence;
            let end = chunk.start + chunk.len;
            let read = self.memory.compute(
                self.scheduler.kv(),
                chunk.slot.0,
                chunk.start,
                end,
                sequence,
            );
            assert_eq!(chunk.is_last, end as usize == sequence.prefixes.len());
            let token = token_after(read);
            sampled.extend(chunk.is_last.then_some((chunk.row, token)));
        }
        for decode in &plan.decode {
            let sequence = &self.live[&decode.row].sequence;
            assert_eq!(decode.position as usize + 1, sequence.prefixes.len());
            let end = decode.position + 1;
            let read = self.memory.compute(
                self.scheduler.kv(),
                decode.slot.0,
                decode.position,
                end,
                sequence,
            );
            sampled.push((decode.row, token_after(read)));
        }
        for save in &plan.saves {
            self.memory.save(save.slot.0, save.to);
        }
        if let Some(id) = self.withdraw.take() {
            let was_planned = sampled.iter().any(|row| row.0 == id);
            self.seen.withdrawn += u32::from(was_planned);
            self.cancel(id);
        }
        self.settle(plan, &sampled);
    }

    fn settle(&mut self, plan: &StepPlan, sampled: &[(RowId, u32)]) {
        let mut stopped = Vec::new();
        for (id, token) in sampled {
            let Some(truth) = self.live.get_mut(id) else {
                continue;
            };
            truth.sequence.extend(&[*token]);
            let generated = truth.sequence.prefixes.len() as u32 - truth.prompt_tokens;
            if generated == truth.stop_after {
                stopped.push(*id);
            }
        }
        let mut ended = Vec::new();
        self.scheduler.commit(plan, &stopped, &mut ended);
        for end in ended {
            let truth = self.live.remove(&end.row).expect("a row ends once");
            let said = truth.sequence.prefixes.len() as u32 - truth.prompt_tokens;
            assert_eq!(end.generated, said);
            assert_eq!(said, truth.stop_after.min(truth.output_tokens_max));
            let all = truth.sequence.prefixes.last();
            self.said.extend(all.map(|&all| (end.row, all)));
        }
        for (id, _) in sampled {
            if let Some(truth) = self.live.get(id) {
                let known = self.known_hashes(*id);
                let new = truth.sequence.hashes[known..].to_vec();
                self.scheduler.extend_chain(*id, &new);
            }
        }
    }

    fn known_hashes(&self, id: RowId) -> usize {
        let mut rows = self.scheduler.rows.iter().flatten();
        let row = rows.find(|row| row.ask.id == id);
        row.expect("a row that got a token runs").hashes.len()
    }

    /// ENG-01, and of ENG-03 the bounds: one plan against the scheduler before it.
    fn check_plan(&self, before: &Scheduler, plan: &StepPlan) {
        let config = &before.config;
        let is_solo = before.order.len() + before.waiting.len() == 1;
        let decoding = plan.decode.len() as u64;
        let budget = if is_solo {
            config.step_token_budget.max(config.solo_prefill_tokens)
        } else {
            config.step_token_budget
        };
        assert!(plan.prefill_tokens() + decoding <= u64::from(budget));
        if decoding > 0
            && let Some(quota) = config.mixed_prefill_tokens_max
        {
            assert!(plan.prefill_tokens() <= u64::from(quota.get()));
        }
        for chunk in &plan.prefill {
            let most = if is_solo {
                config.solo_prefill_tokens
            } else {
                config.prefill_chunk_tokens
            };
            assert!(chunk.len > 0 && chunk.len <= most);
            let truth = &self.live[&chunk.row];
            let end = u64::from(chunk.start) + u64::from(chunk.len);
            assert!(end <= truth.sequence.prefixes.len() as u64);
            assert!(!truth.is_paused);
        }
        check_decodes(before, plan);
        self.check_order(before, plan);
        let partial = plan.prefill.iter().filter(|chunk| !chunk.is_last).count();
        let had = before.rows.iter().flatten();
        let had = had.filter(|row| row.is_prefilling()).count();
        assert!(partial <= had.max(usize::from(config.partial_prefills_max)));
        assert!(self.scheduler.order.len() <= usize::from(config.rows_max));
    }

    /// ENG-03 and ENG-04: nobody overtakes, nobody who waits drives another out, and who was driven
    /// out stands before all who came later, with what it said. Of ENG-05, the bound. ENG-10: who has
    /// no scope finds nothing.
    fn check_order(&self, before: &Scheduler, plan: &StepPlan) {
        assert!(plan.preempted.is_empty() || plan.admitted.is_empty());
        let waiting = &self.scheduler.waiting;
        let key = |row: &Row| (Reverse(row.ask.priority), row.arrival);
        assert!(waiting.iter().is_sorted_by_key(key));
        let entered = |id| before.waiting.iter().find(|row| row.ask.id == id);
        for admitted in &plan.admitted {
            let own = key(entered(admitted.row).expect("who enters has waited"));
            let passed = waiting.iter().find(|row| !row.is_paused && key(row) < own);
            assert!(passed.is_none(), "nobody overtakes");
            let has_scope = self.live[&admitted.row].sequence.has_scope();
            assert!(has_scope || admitted.cached_tokens == 0);
        }
        // Who left was of the lowest priority, and the youngest of it, each time.
        let key = |row: &Row| (row.ask.priority, Reverse(row.arrival));
        let mut running: Vec<_> = before.rows.iter().flatten().map(key).collect();
        running.sort_unstable();
        for (preempted, expected) in plan.preempted.iter().zip(running) {
            let row = waiting.iter().find(|row| row.ask.id == preempted.row);
            let row = row.expect("who left waits");
            assert_eq!(key(row), expected);
            assert_eq!(row.computed, 0);
            let truth = &self.live[&preempted.row];
            assert_eq!(row.tokens() as usize, truth.sequence.prefixes.len());
        }
        if !plan.is_empty() {
            let grant = self.scheduler.kv().layout().grant_bytes;
            assert!(self.scheduler.kv().reserved_bytes() <= grant);
            assert!(self.scheduler.kv().used_bytes() <= grant);
        }
    }

    /// Each row is in one place, books and counters equal recomputation from scratch.
    fn check(&self) {
        let s = &self.scheduler;
        let rows: Vec<&Row> = s.rows.iter().flatten().collect();
        assert_eq!(rows.len(), s.order.len());
        assert_eq!(s.free.len() + s.order.len(), s.rows.len());
        let worst = |row: &Row| s.kv.bytes(row.ask.tokens_max());
        assert_eq!(s.queued_bytes, s.waiting.iter().map(worst).sum::<u64>());
        let prefilling = rows.iter().filter(|row| row.is_prefilling()).count();
        assert_eq!(usize::from(s.prefilling_count), prefilling);
        let computed = rows.iter().map(|row| u64::from(row.computed));
        assert_eq!(s.context_tokens_live, computed.sum::<u64>());
        let mut places: Vec<RowId> = rows.iter().map(|row| row.ask.id).collect();
        places.extend(s.waiting.iter().map(|row| row.ask.id));
        places.sort_unstable();
        let live: Vec<RowId> = self.live.keys().copied().collect();
        assert_eq!(places, live, "each live row is in one place");
    }

    /// ENG-05: when all rows have ended, nothing is reserved, and no page is lost.
    pub(super) fn finish(&mut self) {
        for id in 0..self.submitted {
            self.set_paused(id, false);
        }
        self.apply(Op::Resize(12));
        let mut steps = 0;
        while !self.scheduler.is_idle() {
            self.step(Outcome::Computed);
            steps += 1;
            assert!(steps < 20_000, "every row comes to its end");
        }
        assert!(self.live.is_empty());
        assert_eq!(self.scheduler.kv().reserved_bytes(), 0);
        recount(self.scheduler.kv());
        self.scheduler.resize(0, &mut Vec::new());
        assert_eq!(self.scheduler.kv().used_bytes(), 0);
        recount(self.scheduler.kv());
    }
}

/// ENG-02: who decodes and stays is planned, but for those behind a row that was its own victim. When the
/// row that finds no memory is itself the one to leave, planning of the running rows stops there, and
/// nothing else is planned either.
fn check_decodes(before: &Scheduler, plan: &StepPlan) {
    let row_of = |slot: &RowSlot| before.rows[usize::from(slot.0)].as_ref();
    let decoding = before.order.iter().filter_map(row_of);
    let decoding: Vec<RowId> = decoding
        .filter(|row| row.is_decoding())
        .map(|row| row.ask.id)
        .collect();
    let left = |id: &RowId| plan.preempted.iter().any(|row| row.row == *id);
    let kept = decoding.iter().filter(|id| !left(id));
    let planned: Vec<RowId> = plan.decode.iter().map(|decode| decode.row).collect();
    let expected: Vec<RowId> = kept.copied().collect();
    if planned == expected {
        return;
    }
    assert!(
        expected.starts_with(&planned),
        "{planned:?} of {expected:?}"
    );
    let last = plan
        .preempted
        .last()
        .expect("nobody is passed over for nothing");
    let place = |id| decoding.iter().position(|other| *other == id);
    let own = place(last.row).expect("who stopped the running decodes");
    assert!(planned.iter().all(|id| place(*id) < Some(own)));
    let missed = expected[planned.len()..].iter();
    assert!(missed.clone().all(|id| place(*id) > Some(own)));
    assert!(plan.prefill.is_empty() && plan.admitted.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// ENG-01, ENG-02, ENG-03, ENG-04, ENG-05, ENG-06 and ENG-09.
    #[test]
    fn plans_keep_the_laws_and_rows_read_what_was_computed_for_them(
        config in configs(),
        layout in layouts(),
        ops in prop::collection::vec(op(), 1..50),
    ) {
        let Ok(scheduler) = Scheduler::new(config, layout) else {
            return Ok(());
        };
        let mut harness = Harness::new(scheduler);
        for &op in &ops {
            harness.apply(op);
            recount(harness.scheduler.kv());
        }
        harness.finish();
    }
}
