//! Tenants who send the very same tokens share nothing, and learn nothing of one another.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::ask;
use super::laws::{Op, configs, op};
use crate::kv::PageId;
use crate::kv::tests::layouts;
use crate::kv::tests::memory::Sequence;

/// What each tenant's tokens are more by than those of who has no scope.
type Shifts = [u32; 3];

struct Truth {
    sequence: Sequence,
    tenant: Option<u8>,
    shift: u32,
    generated: u32,
    stop_after: u32,
    known_hashes: usize,
}

/// A scheduler whose rows say what follows from their tokens alone.
struct World {
    scheduler: Scheduler,
    shifts: Shifts,
    plan: StepPlan,
    live: BTreeMap<RowId, Truth>,
    grant_first: u64,
    submitted: u64,
    /// Why the newest row was not taken.
    refused: Option<Refused>,
}

impl World {
    fn new(scheduler: Scheduler, shifts: Shifts) -> Self {
        Self {
            grant_first: scheduler.kv().layout().grant_bytes,
            scheduler,
            shifts,
            plan: StepPlan::default(),
            live: BTreeMap::new(),
            submitted: 0,
            refused: None,
        }
    }

    /// Prompts are all alike, as far as they go.
    fn submit(
        &mut self,
        request: RowRequest,
        stop_after: u32,
        tenant: Option<u8>,
    ) -> Result<(), Refused> {
        let shift = self.shifts[usize::from(tenant.unwrap_or(0))];
        let tokens: Vec<u32> = (0..request.prompt_tokens).map(|ix| ix + shift).collect();
        let block = self.scheduler.kv().layout().block_tokens;
        let sequence = Sequence::new(&tokens, tenant, block);
        self.scheduler.submit(request, &sequence.hashes)?;
        let truth = Truth {
            known_hashes: sequence.hashes.len(),
            sequence,
            tenant,
            shift,
            generated: 0,
            stop_after,
        };
        self.live.insert(request.id, truth);
        Ok(())
    }

    fn cancel(&mut self, id: RowId) {
        self.live.remove(&id);
        self.scheduler.cancel(id);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Cancel(id) | Op::Withdraw(id) => self.cancel(RowId(id)),
            Op::Fail => {
                self.scheduler.plan(&mut self.plan);
                self.scheduler.abandon(&self.plan);
                let prefill = self.plan.prefill.iter().map(|chunk| chunk.row);
                let decode = self.plan.decode.iter().map(|decode| decode.row);
                let lost: Vec<RowId> = prefill.chain(decode).collect();
                lost.into_iter().for_each(|id| self.cancel(id));
            }
            Op::Pause(id) => self.scheduler.pause(RowId(id)),
            Op::Resize(eighths) => {
                let mut lost = Vec::new();
                let grant = self.grant_first * eighths / 8;
                self.scheduler.resize(grant, &mut lost);
                lost.into_iter().for_each(|id| self.cancel(id));
            }
            Op::Resume(id) => self.scheduler.resume(RowId(id)),
            Op::Steps(_) => self.step(),
            Op::Submit {
                prompt_tokens,
                output_tokens_max,
                stop_after,
                priority,
                tenant,
                ..
            } => {
                let request = RowRequest {
                    priority,
                    ..ask(self.submitted, prompt_tokens, output_tokens_max)
                };
                self.submitted += 1;
                self.refused = self.submit(request, stop_after, tenant).err();
            }
        }
    }

    fn step(&mut self) {
        self.scheduler.plan(&mut self.plan);
        let prefilled = self.plan.prefill.iter().filter(|chunk| chunk.is_last);
        let sampled: Vec<RowId> = prefilled
            .map(|chunk| chunk.row)
            .chain(self.plan.decode.iter().map(|decode| decode.row))
            .collect();
        let mut stopped = Vec::new();
        for id in &sampled {
            let truth = self.live.get_mut(id).expect("a planned row lives");
            truth.generated += 1;
            let token = truth.sequence.prefixes.len() as u32 + truth.shift;
            truth.sequence.extend(&[token]);
            if truth.generated == truth.stop_after {
                stopped.push(*id);
            }
        }
        let mut ended = Vec::new();
        self.scheduler.commit(&self.plan, &stopped, &mut ended);
        for end in ended {
            self.live.remove(&end.row);
        }
        for id in &sampled {
            if let Some(truth) = self.live.get_mut(id) {
                let new = &truth.sequence.hashes[truth.known_hashes..];
                self.scheduler.extend_chain(*id, new);
                truth.known_hashes = truth.sequence.hashes.len();
            }
        }
    }

    /// Every page of every row, by slot and group.
    fn tables(&self) -> Vec<&[PageId]> {
        let groups = 0..self.scheduler.kv().layout().groups.len();
        let rows = self.scheduler.running();
        rows.flat_map(|(slot, _)| {
            let kv = self.scheduler.kv();
            groups.clone().map(move |group| kv.table(slot.0, group))
        })
        .collect()
    }

    /// Rows of two tenants name no page in common, and neither do two rows of nobody.
    fn check_apart(&self) {
        for group in 0..self.scheduler.kv().layout().groups.len() {
            let mut holders = BTreeMap::new();
            for (slot, id) in self.scheduler.running() {
                let tenant = self.live[&id].tenant;
                let holder = tenant.ok_or(id);
                for page in self.scheduler.kv().table(slot.0, group) {
                    let known = holders.entry(*page).or_insert(holder);
                    assert!(*page == PageId::NONE || *known == holder, "{page:?}");
                }
            }
        }
    }
}

/// What the prompts of the two tenants and of nobody have in common changes nothing.
fn serve_alike(alike: &mut World, unlike: &mut World, ops: &[Op]) -> u64 {
    let mut cached_tokens = 0;
    for &op in ops {
        let steps = if let Op::Steps(count) = op { count } else { 1 };
        for _ in 0..steps {
            alike.apply(op);
            unlike.apply(op);
            alike.check_apart();
            assert_eq!(alike.refused, unlike.refused);
            assert_eq!(alike.plan, unlike.plan);
            assert_eq!(alike.tables(), unlike.tables());
            assert_eq!(alike.scheduler.capacity(), unlike.scheduler.capacity());
            if matches!(op, Op::Steps(_)) {
                let found = alike.plan.admitted.iter();
                cached_tokens += found.map(|row| u64::from(row.cached_tokens)).sum::<u64>();
            }
        }
    }
    cached_tokens
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// ENG-10.
    #[test]
    fn no_plan_and_no_page_tells_whether_another_tenant_sent_the_same(
        config in configs(),
        layout in layouts(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let Ok(scheduler) = Scheduler::new(config, layout) else {
            return Ok(());
        };
        let mut alike = World::new(scheduler.clone(), [0; 3]);
        let mut unlike = World::new(scheduler, [0, 10_000, 20_000]);
        serve_alike(&mut alike, &mut unlike, &ops);
    }
}

/// The law above says little of schedules in which nobody finds anything.
#[test]
fn a_tenant_finds_its_own_while_another_sends_the_same() {
    let submit = |tenant| Op::Submit {
        prompt_tokens: 100,
        output_tokens_max: 20,
        stop_after: 20,
        priority: 0,
        tenant: Some(tenant),
        common: 0,
    };
    let turn = |tenant| [submit(tenant), Op::Steps(40)];
    let ops = [turn(1), turn(2), turn(2), turn(1)].concat();
    let scheduler = super::scheduler();
    let mut alike = World::new(scheduler.clone(), [0; 3]);
    let mut unlike = World::new(scheduler, [0, 10_000, 20_000]);
    let cached_tokens = serve_alike(&mut alike, &mut unlike, &ops);
    // Each tenant's second prompt finds the whole blocks before its last token.
    assert_eq!(cached_tokens, 2 * 96);
}
