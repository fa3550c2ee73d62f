//! The engine's thread. Each turn it takes new requests, cancels and settings from the inbox,
//! computes one step, and hands out the text that came of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cereus_core::draw::{Purpose, Seed};
use cereus_core::time::Tick;

use super::backend::{Backend, StepError, StepWork};
use super::disk::Disk;
use super::event::{Delta, Event, FinishReason, Finished, Timing};
use super::inbox::{Arrived, Asked, Inbox, Mode, Patience};
use super::prepare::Opening;
use super::refusals::{overdue, refusal};
use super::row::{Prompt, Row};
use super::snapshot::{CapacitySnapshot, observe};
use super::tokens_per_second;
use super::watch::{Listener, tell};
use super::work::{askers, work};
use crate::failure::{Failure, Reason};
use crate::kv::{Chain, Scope};
use crate::sampling::Chosen;
use crate::scheduler::leases::{Expired, Leases};
use crate::scheduler::{
    Cancelled, EndReason, Ended, RowId, RowRequest, RowSlot, Scheduler, StepPlan,
};
use crate::text::{Answer, Stopped, TextEnd};

pub(super) struct Worker<B, F> {
    backend: B,
    scheduler: Scheduler,
    inbox: Arc<Inbox>,
    seed: Seed,
    listener: Listener<F>,
    rows: BTreeMap<RowId, Row>,
    /// What is published after each turn; counters and speeds live in it.
    snapshot: CapacitySnapshot,
    /// What prompts are shared under; absent when they are not.
    contract: Option<[u8; 32]>,
    leases: Leases,
    /// The last plan found nothing to do, and it will not before something is told.
    is_at_rest: bool,
    /// Where prompts are found that are not in memory.
    disk: Option<Disk>,
    /// The zero of the leases' time.
    born: Instant,
    // Reused by every step.
    plan: StepPlan,
    chosen: Vec<Option<Chosen>>,
    stopped: Vec<RowId>,
    broken: Vec<RowId>,
    paused: Vec<RowId>,
    ended: Vec<Ended>,
}

impl<B: Backend, F: FnMut(Event)> Worker<B, F> {
    pub(super) fn new(
        backend: B,
        scheduler: Scheduler,
        leases: Leases,
        inbox: Arc<Inbox>,
        seed: Seed,
        load_time: Duration,
        listener: Listener<F>,
    ) -> Self {
        let snapshot = CapacitySnapshot {
            kv_bytes_per_token: backend.limits().kv_bytes_per_token,
            model_load_time_ms: u64::try_from(load_time.as_millis()).unwrap_or(u64::MAX),
            ..CapacitySnapshot::default()
        };
        let contract = backend.contract();
        let mut worker = Self {
            backend,
            scheduler,
            inbox,
            seed,
            listener,
            rows: BTreeMap::new(),
            snapshot,
            contract,
            leases,
            disk: None,
            born: Instant::now(),
            plan: StepPlan::default(),
            chosen: vec![],
            stopped: vec![],
            broken: vec![],
            paused: vec![],
            is_at_rest: false,
            ended: vec![],
        };
        worker.publish();
        worker
    }

    pub(super) fn with_disk(mut self, disk: Option<Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Serves until told to stop. A panic is a defect of this program: what lives is failed, so that
    /// nobody waits for an answer that cannot come, and the panic goes on.
    pub(super) fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        if let Err(panic) = served {
            for id in self.inbox.crashed() {
                let failure = Failure::new(Reason::ProviderError, "the engine crashed");
                self.tell(Event::Failed { id, failure });
            }
            resume_unwind(panic);
        }
    }

    fn serve(&mut self) {
        loop {
            let mail = self.inbox.mail(self.patience());
            for arrived in mail.jobs {
                self.take(arrived);
            }
            for id in mail.cancels {
                self.cancel(id);
            }
            for id in mail.resumed {
                self.scheduler.resume(id);
                self.leases.resumed(self.now(), id);
            }
            if let Some(bytes) = mail.grant_bytes {
                self.regrant(bytes);
            }
            self.stage();
            self.expire();
            if !self.scheduler.is_idle() && !self.step() {
                return;
            }
            self.publish();
            if mail.mode == Mode::Stopping && self.scheduler.is_idle() {
                break;
            }
        }
        let now = self.now();
        if let Some(disk) = &mut self.disk {
            disk.flush(now, self.scheduler.kv(), &mut self.backend);
        }
    }

    /// How long there is nothing to do but to wait for mail.
    fn patience(&self) -> Patience {
        let now = self.now();
        let at = |tick: Tick| self.born + Duration::from_micros(tick.0);
        let wake = self.disk.as_ref().map(|disk| disk.next_wake(now));
        if self.scheduler.is_idle() {
            return Patience::Wait(wake.map(at));
        }
        match self.leases.next_deadline() {
            Some((deadline, _)) if self.is_at_rest => {
                Patience::Until(at(wake.map_or(deadline, |wake| wake.min(deadline))))
            }
            Some(_) | None => Patience::Look,
        }
    }

    /// Lets rows go on whose blocks have come from the disk.
    fn stage(&mut self) {
        let now = self.now();
        if let Some(disk) = &mut self.disk {
            disk.turn(now, &mut self.scheduler, &mut self.backend);
        }
    }

    fn take(&mut self, arrived: Arrived) {
        let id = arrived.id;
        match self.accept(arrived) {
            Ok(prompt_tokens) => self.tell(Event::Accepted { id, prompt_tokens }),
            Err(failure) => self.fail(id, failure),
        }
    }

    fn accept(&mut self, arrived: Arrived) -> Result<u32, Failure> {
        let id = arrived.id;
        let Asked {
            request,
            opening,
            constraint,
        } = arrived.asked?;
        let opening = match opening {
            Some(opening) => opening,
            None => {
                let tokens = self.backend.prompt(&request)?;
                let parser = self.backend.parser(&request, &tokens);
                Opening { tokens, parser }
            }
        };
        let Opening {
            tokens: prompt,
            parser,
        } = opening;
        let limits = self.backend.limits();
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = limits.context_tokens.saturating_sub(prompt_tokens);
        if room == 0 {
            let text = format!(
                "the prompt has {prompt_tokens} tokens; the model takes {} with the answer",
                limits.context_tokens
            );
            return Err(Failure::new(Reason::RequestExceedsContext, text));
        }
        let budget = self.scheduler.tokens_max();
        let budget_room = budget.saturating_sub(prompt_tokens);
        if budget_room == 0 {
            let text = format!(
                "the prompt has {prompt_tokens} tokens; this machine has memory for {budget} with \
                 the answer"
            );
            return Err(Failure::new(Reason::RequestExceedsNodeBudget, text));
        }
        // Whoever asks for more tokens than there is room for gets all the room: the answer ends by
        // length.
        let room = room.min(budget_room);
        let output_tokens_max = request.max_tokens.unwrap_or(u32::MAX).min(room);
        let ask = RowRequest {
            id,
            prompt_tokens,
            output_tokens_max,
            priority: 0,
        };
        let mut hashes = vec![];
        let chain = self.chain(arrived.scope.as_ref()).map(|mut chain| {
            chain.extend(&prompt, &mut hashes);
            chain
        });
        self.scheduler.submit(ask, &hashes).map_err(refusal)?;
        let now = self.now();
        if let Some(disk) = &mut self.disk {
            let block_tokens = self.scheduler.kv().layout().block_tokens;
            // The last token of a prompt is always computed, so the block that it ends is not read.
            let blocks = hashes.len().min((prompt.len() - 1) / block_tokens as usize);
            disk.stage(now, id, &hashes[..blocks], &mut self.scheduler);
        }
        // It has waited since it came, not since it was looked at.
        let arrived_at = self.tick(arrived.at);
        self.leases
            .submitted(arrived_at, id, prompt_tokens, output_tokens_max);
        let seed = self
            .seed
            .draw(Purpose::Sampling, u128::from(id.0), u128::MAX);
        let sampling = request.wishes.or(self.backend.defaults(), seed);
        let answer = Answer::new(request.stops, parser);
        let prompt = Prompt {
            tokens: prompt,
            chain,
            hashes,
        };
        let mut row = Row::new(&ask, prompt, sampling, answer, arrived.at);
        row.ends = request.ends;
        row.end_tokens = request.end_tokens;
        if request.min_tokens > 0 {
            row.hold_ends_back(request.min_tokens, self.backend.ends());
        }
        row.constraint = constraint;
        let previous = self.rows.insert(id, row);
        assert!(previous.is_none(), "the inbox lets no id in twice");
        Ok(prompt_tokens)
    }

    fn chain(&self, scope: Option<&Scope>) -> Option<Chain> {
        let (contract, scope) = (self.contract.as_ref()?, scope?);
        let block_tokens = self.scheduler.kv().layout().block_tokens;
        Some(Chain::new(contract, scope, block_tokens))
    }

    fn cancel(&mut self, id: RowId) {
        match self.scheduler.cancel(id) {
            Cancelled::Running(slot) => self.backend.release(slot),
            Cancelled::Waiting => {}
            // The scheduler does not know it: it was refused in this very turn.
            Cancelled::Unknown => return,
        }
        let row = self.row(id);
        if row.has_text {
            self.finish(id, FinishReason::Cancelled);
        } else {
            self.fail(id, Failure::cancelled());
        }
    }

    /// Rows that a smaller grant cannot hold together are preempted by the next plans.
    fn regrant(&mut self, bytes: u64) {
        let mut too_long = vec![];
        self.scheduler.resize(bytes, &mut too_long);
        for id in too_long {
            if let Cancelled::Running(slot) = self.scheduler.cancel(id) {
                self.backend.release(slot);
            }
            let text = "this machine has no more memory for a request of this length";
            self.fail(id, Failure::new(Reason::RequestExceedsNodeBudget, text));
        }
    }

    fn tick(&self, at: Instant) -> Tick {
        let age = at.saturating_duration_since(self.born);
        Tick(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
    }

    fn now(&self) -> Tick {
        self.tick(Instant::now())
    }

    /// Ends the rows whose time is up, as a cancel does.
    fn expire(&mut self) {
        let mut expired = vec![];
        self.leases.expire(self.now(), &mut expired);
        for Expired { row, cause } in expired {
            if let Cancelled::Running(slot) = self.scheduler.cancel(row) {
                self.backend.release(slot);
            }
            self.fail(row, overdue(cause));
        }
    }

    /// Tells the leases what the step did for each row.
    fn renew(&mut self, plan: &StepPlan) {
        let now = self.now();
        for chunk in &plan.prefill {
            self.leases.prefilled(now, chunk.row);
        }
        for id in askers(plan) {
            self.leases.decoded(now, id);
        }
    }

    /// Whether the engine can go on: not after a step that took too long.
    fn step(&mut self) -> bool {
        let mut plan = std::mem::take(&mut self.plan);
        self.scheduler.plan(&mut plan);
        self.snapshot.preemptions += plan.preempted.len() as u64;
        let now = self.now();
        for preempted in &plan.preempted {
            self.leases.preempted(now, preempted.row);
        }
        if plan.is_empty() {
            // An empty plan has two causes. Either a row was preempted and the room is given out by
            // the next plan, or all rows wait for their readers or the disk, and then the thread
            // rests.
            self.is_at_rest = plan.preempted.is_empty();
            self.plan = plan;
            return true;
        }
        self.is_at_rest = false;
        self.begin(&plan);
        let rows = work(&self.rows, &plan);
        let step = StepWork {
            kv: self.scheduler.kv(),
            copies: &plan.copies,
            restores: &plan.restores,
            rows: &rows,
            saves: &plan.saves,
        };
        self.chosen.clear();
        self.inbox.step_began();
        let outcome = self.backend.step(&step, &mut self.chosen);
        if !self.inbox.step_ended() {
            return false;
        }
        let asked = rows.iter().filter(|row| row.sample.is_some()).count();
        self.snapshot.steps_executed += 1;
        match outcome {
            Ok(()) => {
                assert_eq!(
                    self.chosen.len(),
                    asked,
                    "a backend answers each row that asks"
                );
                self.read(&plan);
                self.settle(&plan);
            }
            Err(cause) => self.lose(&plan, &cause),
        }
        self.pause();
        self.plan = plan;
        true
    }

    /// Rows whose readers are behind do nothing from the next step on.
    fn pause(&mut self) {
        let now = self.now();
        for id in self.paused.drain(..) {
            self.scheduler.pause(id);
            self.leases.paused(now, id);
        }
    }

    /// Notes what is known of rows when they enter.
    fn begin(&mut self, plan: &StepPlan) {
        let now = Instant::now();
        let tick = self.now();
        for admitted in &plan.admitted {
            self.leases.prefilled(tick, admitted.row);
            let row = self.rows.get_mut(&admitted.row);
            let row = row.expect("a planned row is known");
            // One that comes back after a preemption has begun before.
            if row.began.is_none() {
                row.began = Some(now);
                row.cached_tokens = admitted.cached_tokens;
                self.snapshot.admits += 1;
                self.snapshot.prompt_tokens += u64::from(row.prompt_tokens);
                self.snapshot.cached_tokens += u64::from(row.cached_tokens);
            }
        }
    }

    /// Turns the step's tokens into text.
    fn read(&mut self, plan: &StepPlan) {
        let now = Instant::now();
        self.stopped.clear();
        self.broken.clear();
        let mut chosen = std::mem::take(&mut self.chosen);
        for (id, chosen) in askers(plan).zip(chosen.drain(..)) {
            let row = self.rows.get_mut(&id).expect("a planned row is known");
            let Some(chosen) = chosen else {
                self.broken.push(id);
                continue;
            };
            let token = chosen.token;
            row.take(token);
            if row.first_token.is_none() {
                row.first_token = Some(now);
                self.snapshot.first_tokens_emitted += 1;
                let computed = row.prompt_tokens - row.cached_tokens;
                let speed = row
                    .began
                    .and_then(|began| tokens_per_second(computed, now - began));
                if let Some(speed) = speed {
                    observe(&mut self.snapshot.observed_prefill_tps, speed);
                }
            }
            if row.is_end(token, self.backend.is_end(token)) {
                self.stopped.push(id);
                continue;
            }
            let (delta, stopped) = row.say(&chosen, &self.backend, self.seed);
            if stopped == Stopped::Yes {
                self.stopped.push(id);
            }
            self.send(id, delta);
        }
        self.chosen = chosen;
    }

    /// Tells the scheduler, and ends the rows that it names.
    fn settle(&mut self, plan: &StepPlan) {
        let mut ended = std::mem::take(&mut self.ended);
        self.scheduler.commit(plan, &self.stopped, &mut ended);
        self.name_blocks(plan);
        self.renew(plan);
        for end in ended.drain(..) {
            self.backend.release(end.slot);
            let reason = match end.reason {
                EndReason::LimitReached => FinishReason::Length,
                EndReason::Stopped => FinishReason::Stop,
            };
            self.finish(end.row, reason);
        }
        self.ended = ended;
        for id in std::mem::take(&mut self.broken) {
            self.give_up(id);
        }
    }

    /// Blocks that the step's tokens filled get their names, before they are written.
    fn name_blocks(&mut self, plan: &StepPlan) {
        for id in askers(plan) {
            let Some(row) = self.rows.get_mut(&id) else {
                continue;
            };
            if let Some(hash) = row.name_block() {
                self.scheduler.extend_chain(id, &[hash]);
            }
        }
    }

    /// A row without a next token has nothing to go on from; the others do not suffer from it.
    fn give_up(&mut self, id: RowId) {
        if let Cancelled::Running(slot) = self.scheduler.cancel(id) {
            self.backend.release(slot);
        }
        // The row may be gone: its own limit may have ended it in this very step.
        if let Some(row) = self.rows.remove(&id) {
            self.fail(id, row.why_stuck());
        }
    }

    /// The step failed: its rows have no state left to go on from.
    fn lose(&mut self, plan: &StepPlan, cause: &StepError) {
        let failure = Failure::new(
            Reason::ProviderError,
            format!("the model failed to compute: {cause}"),
        );
        self.scheduler.abandon(plan);
        let decoding = plan.decode.iter().map(|decode| (decode.row, decode.slot));
        let prefilling = plan.prefill.iter().map(|chunk| (chunk.row, chunk.slot));
        let lost: Vec<(RowId, RowSlot)> = decoding.chain(prefilling).collect();
        for (id, slot) in lost {
            self.scheduler.cancel(id);
            self.backend.release(slot);
            // Nothing of its keys and values is kept for reuse: the step that failed may have left
            // anything in them.
            self.rows.remove(&id);
            self.fail(id, failure.clone());
        }
    }

    fn finish(&mut self, id: RowId, reason: FinishReason) {
        let mut row = self.rows.remove(&id).expect("a row finishes once");
        let mut reason = reason;
        // A cancelled row has nothing more to say; any other lets out what was held back.
        if reason != FinishReason::Cancelled {
            let end = match reason {
                FinishReason::Cancelled | FinishReason::Length => TextEnd::Cut,
                FinishReason::Stop | FinishReason::ToolCalls => TextEnd::Whole,
            };
            let (delta, stopped) = row.say_rest(end, &self.backend, self.seed);
            if stopped == Stopped::Yes {
                reason = FinishReason::Stop;
            }
            self.send(id, delta);
        }
        let now = Instant::now();
        let began = row.began.unwrap_or(now);
        let first_token = row.first_token.unwrap_or(now);
        let timing = Timing {
            queued: began - row.arrived,
            prefill: first_token - began,
            decode: now - first_token,
        };
        let later_tokens = row.generated.saturating_sub(1);
        if later_tokens > 0
            && let Some(speed) = tokens_per_second(later_tokens, timing.decode)
        {
            observe(&mut self.snapshot.observed_decode_tps, speed);
        }
        let (usage, reason) = (row.usage(), row.finish_reason(reason));
        self.leases.ended(id);
        // Counters first: who hears of the end finds the room that it left.
        self.publish();
        self.inbox.ended(id);
        self.tell(Event::Finished(Finished {
            id,
            reason,
            usage,
            timing,
        }));
        self.keep(id, row);
    }

    fn fail(&mut self, id: RowId, failure: Failure) {
        let row = self.rows.remove(&id);
        self.leases.ended(id);
        self.publish();
        self.inbox.ended(id);
        self.tell(Event::Failed { id, failure });
        if let Some(row) = row {
            self.keep(id, row);
        }
    }

    /// The row is gone: what it has left in memory is to be written as well.
    fn keep(&mut self, id: RowId, row: Row) {
        if let Some(disk) = &mut self.disk {
            disk.ended(id, row.hashes, self.scheduler.kv());
        }
    }

    fn send(&mut self, id: RowId, delta: Delta) {
        if delta.is_empty() {
            return;
        }
        if let Some(row) = self.rows.get_mut(&id) {
            row.has_text = true;
        }
        if self.inbox.said(id) {
            self.paused.push(id);
        }
        self.tell(Event::Delta { id, delta });
    }

    fn tell(&self, event: Event) {
        tell(&self.listener, event);
    }

    fn row(&self, id: RowId) -> &Row {
        self.rows
            .get(&id)
            .expect("a row that the scheduler knows is known here")
    }

    fn publish(&mut self) {
        let capacity = self.scheduler.capacity();
        let rows = || {
            self.scheduler
                .running()
                .filter_map(|(_, id)| self.rows.get(&id))
        };
        let active = rows().map(|row| row.tokens.len() as u64).sum();
        let potential = rows().map(|row| u64::from(row.output_tokens_max)).sum();
        self.snapshot = CapacitySnapshot {
            num_running: u32::from(capacity.running),
            num_waiting: u32::from(capacity.waiting),
            max_concurrency: u32::from(capacity.concurrency_max),
            active_tokens: active,
            max_tokens_potential: potential,
            active_token_budget_used: capacity.budget_used,
            active_token_budget_max: capacity.budget_max,
            queued_token_budget: capacity.budget_queued,
            row_tokens_max: self.scheduler.tokens_max(),
            context_tokens: self.scheduler.config().context_tokens,
            disk: self.disk.as_ref().map(Disk::counts).unwrap_or_default(),
            memory: self.backend.memory(),
            ..self.snapshot
        };
        self.inbox.publish(self.snapshot);
    }
}
