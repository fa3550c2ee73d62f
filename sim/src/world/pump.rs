//! Steps the core by one event and carries out in the simulated world what it then orders.

use std::borrow::Cow;

use cereus_core::digest::Mix;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{Ask, AttemptFault, Delivery, Ending, Event, Shown, Usage};
use cereus_core::ids::{AttemptKey, ConnId};
use cereus_core::prefix::{BLOCK_TOKENS, Prefix};
use cereus_core::time::Tick;
use cereus_engine::scheduler::Refused;

use super::config::PrefixCache;
use super::crowd::{Crowd, End, Number};
use super::links::Link;
use super::net::Way;
use super::residency::Housed;
use super::{BYTES_PER_TOKEN, Happening, News, RunError, World};
use crate::machine::{Job, Note, names};
use crate::workload::{Arrival, WorkloadError};

impl<I: Iterator<Item = Result<Arrival, WorkloadError>>> World<I> {
    pub(super) fn admit(&mut self, now: Tick, number: u64) -> Result<(), RunError> {
        let ask = self.ask_of(number);
        self.recorder.admitted(number, ask.account);
        self.tell(now, &Event::Arrived(ask))
    }

    /// What the coordinator is told of a request that has just come.
    pub(super) fn ask_of(&self, number: u64) -> Ask {
        let asked = self
            .crowd
            .asked(number)
            .expect("a request arrives once, before its end");
        Ask {
            prompt_tokens: asked.prompt_bytes.div_ceil(Ask::BYTES_PER_TOKEN),
            prompt_tokens_bound: asked.prompt_bytes,
            output_tokens_max: asked.output_tokens_max,
            delivery: Delivery::Streamed,
            prefix: match self.config.prefix_cache {
                PrefixCache::Off => Prefix::NONE,
                PrefixCache::On => prefix_of(self.crowd.blocks(number), asked.prompt_tokens),
            },
            ..Ask::new(asked.id, asked.account, asked.model)
        }
    }

    /// A machine's scheduler takes the job or refuses it, and says so.
    pub(super) fn take_job(&mut self, now: Tick, link: Link, attempt: AttemptKey, number: u64) {
        if !self.links.is_held(link) {
            return;
        }
        if self.crowd.asked(number).is_none() {
            // The request ended while its dispatch was under way; the cancel is behind it.
            return;
        }
        let machine = self.links.machine(link);
        self.fleet.count_job(machine);
        if self.refuses_all(machine) {
            return self.refuse_job(now, link, attempt, AttemptFault::Busy);
        }
        if self.wares.is_choice() {
            return self.house_job(now, link, attempt, number);
        }
        let engine = self.fleet.only_engine(machine);
        // What it accepts it says before it begins.
        let at = self.up(now, machine);
        let news = match self.submit(now, engine, attempt, number) {
            Ok(()) => News::Accepted { attempt },
            Err(fault) => {
                self.tally.machine_refusals += 1;
                News::Failed { attempt, fault }
            }
        };
        self.queue.push(at, Happening::Up { link, news });
    }

    /// Hands a job to the scheduler of its model.
    pub(super) fn submit(
        &mut self,
        now: Tick,
        engine: u32,
        attempt: AttemptKey,
        number: u64,
    ) -> Result<(), AttemptFault> {
        let asked = self.crowd.asked(number);
        let asked = asked.ok_or(AttemptFault::Cancelled)?;
        let job = Job {
            attempt,
            prompt_tokens: asked.prompt_tokens,
            output_tokens_max: asked.output_tokens_max,
            output_tokens_true: asked.output_tokens_true,
        };
        let taker = self.fleet.engine_mut(engine);
        self.names.clear();
        match self.config.prefix_cache {
            PrefixCache::Off => {}
            PrefixCache::On => names(
                self.crowd.blocks(number),
                job.prompt_tokens,
                taker.block_tokens(),
                &mut self.names,
            ),
        }
        match taker.submit(now, &job, &self.names) {
            Ok(due) => {
                self.schedule(engine, due);
                Ok(())
            }
            Err(Refused::NeverFits | Refused::QueueFull) => Err(AttemptFault::Busy),
            Err(Refused::TooLong | Refused::Empty) => Err(AttemptFault::Client(400)),
            Err(Refused::Duplicate) => unreachable!("rows are numbered"),
        }
    }

    pub(super) fn refuse_job(
        &mut self,
        now: Tick,
        link: Link,
        attempt: AttemptKey,
        fault: AttemptFault,
    ) {
        self.tally.machine_refusals += 1;
        self.say(now, link, News::Failed { attempt, fault });
    }

    /// What comes on a connection that is gone is lost with it.
    pub(super) fn hear(&mut self, now: Tick, link: Link, news: News) -> Result<(), RunError> {
        if !self.links.is_known(link) {
            return Ok(());
        }
        let conn = link.conn();
        match news {
            News::Accepted { attempt } => self.tell(now, &Event::AttemptAccepted { conn, attempt }),
            News::Answered => self.tell(now, &Event::ProviderVerified { conn }),
            News::Failed { attempt, fault } => self.tell(
                now,
                &Event::AttemptFailed {
                    conn,
                    attempt,
                    fault,
                },
            ),
            News::LoadFailed { model } => {
                let draining = false;
                let failed = Event::ModelLoadFailed {
                    conn,
                    model,
                    draining,
                };
                self.tell(now, &failed)
            }
            News::Loaded { model } => self.tell(now, &Event::ModelLoaded { conn, model }),
            News::Noted(note) => self.hear_note(now, conn, note),
            News::Reported => self.hear_report(now, link),
        }
    }

    fn hear_report(&mut self, now: Tick, link: Link) -> Result<(), RunError> {
        if !self.links.is_held(link) {
            // Told by a machine that has gone since.
            return Ok(());
        }
        let beat = self.fleet.take_beat(self.links.machine(link));
        let slots = beat.slots.all();
        for slot in slots {
            self.tally.sample(slot);
            self.recorder.sampled(now, slot);
        }
        self.tell(
            now,
            &Event::ProviderReported {
                conn: link.conn(),
                report: beat.report,
                slots: Cow::Borrowed(slots),
            },
        )
    }

    fn hear_note(&mut self, now: Tick, conn: ConnId, note: Note) -> Result<(), RunError> {
        match note {
            Note::Cancelled { attempt } => {
                let fault = AttemptFault::Cancelled;
                self.tell(
                    now,
                    &Event::AttemptFailed {
                        conn,
                        attempt,
                        fault,
                    },
                )
            }
            Note::Completed {
                attempt,
                prompt_tokens,
                cached_tokens,
                completion_tokens,
            } => {
                self.recorder.completed(attempt, cached_tokens);
                let usage = Usage {
                    prompt_tokens,
                    completion_tokens,
                };
                let completed = Event::AttemptCompleted {
                    conn,
                    attempt,
                    usage,
                    shown: shown(completion_tokens),
                    ending: Ending::Said,
                };
                self.tell(now, &completed)
            }
            Note::Evicted { attempt } => {
                let fault = AttemptFault::Busy;
                self.tell(
                    now,
                    &Event::AttemptFailed {
                        conn,
                        attempt,
                        fault,
                    },
                )
            }
            Note::Progressed { attempt, tokens } => self.tell(
                now,
                &Event::AttemptProgressed {
                    conn,
                    attempt,
                    shown: shown(tokens),
                },
            ),
            Note::Started { attempt } => self.tell(now, &Event::AttemptStarted { conn, attempt }),
        }
    }

    /// The pump: one event in, its effects carried out, the next wake armed.
    pub(super) fn tell(&mut self, now: Tick, event: &Event<'_>) -> Result<(), RunError> {
        self.tally.core_steps += 1;
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        let began_ns = self.profile.as_ref().map(|(clock, _)| clock());
        self.core
            .step(now, event, &mut out)
            .map_err(RunError::Misuse)?;
        if let (Some(began_ns), Some((clock, profile))) = (began_ns, &mut self.profile) {
            profile.note(event, &out, clock().saturating_sub(began_ns));
        }
        self.watch.note(now, event, &out);
        for &effect in &out.list {
            self.carry_out(now, effect, &out);
        }
        self.tally.effects += out.list.len() as u64;
        self.out = out;
        if let Some(at) = self.store.begin(now) {
            self.queue.push(at, Happening::Written);
        }
        if let Some((at, _)) = self.core.next_wake()
            && at < self.wake_at
        {
            self.wake_at = at.max(now);
            self.queue.push(self.wake_at, Happening::Wake);
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, now: Tick, effect: Effect, out: &Effects) {
        match effect {
            Effect::Dispatch {
                request,
                attempt,
                conn,
                wire: _,
                is_second: _,
            } => {
                let link = Link::of(conn);
                let at = self.down(now, link);
                let machine = self.links.machine(link);
                let number = Crowd::number(request);
                self.recorder.dispatched(now, number, attempt, machine);
                let number = Number::of(number);
                self.queue.push(
                    at,
                    Happening::Dispatched {
                        link,
                        attempt,
                        number,
                    },
                );
            }
            Effect::CancelAttempt { attempt, conn } => {
                self.tally.cancels += 1;
                let link = Link::of(conn);
                let at = self.down(now, link);
                self.queue
                    .push(at, Happening::CancelArrived { link, attempt });
            }
            Effect::Release { request, .. } => {
                let at = now + self.net.latency();
                self.is_released(at, request);
            }
            Effect::Refuse { request, denial } => {
                self.is_denied(now, request, denial, End::Refused);
            }
            Effect::Fail { request, denial } => {
                self.is_denied(now, request, denial, End::Failed);
            }
            Effect::Finish { request, receipt } => {
                let at = now + self.net.latency();
                let asked = self.crowd.end(request, End::Finished).asked;
                let first_at = asked.first_at.unwrap_or(at);
                let model = &self.wares.facts(asked.model).name;
                self.living
                    .is_finished(model, first_at.since(asked.sent_at));
                self.living.is_answered(asked.nth);
                let receipt = &out.receipts[receipt as usize];
                let served = self.tally.finish(at, &asked, receipt);
                let number = Crowd::number(request);
                self.recorder
                    .finished(now, number, at, receipt.usage, &served);
                self.thinks(at, &asked);
            }
            Effect::Post { transfer } => {
                let transfer = &out.transfers[transfer as usize];
                self.ledger.note(transfer);
                self.store.post(transfer.seq);
            }
            Effect::Alarm { alarm, count } => self.tally.alarm(alarm, count),
            Effect::Disconnect { conn, cause } => self.disconnect(now, Link::of(conn), cause),
            // What a consumer had seen of an answer that broke off is paid; the request has ended.
            Effect::Charge { .. } => self.living.is_charged(),
            Effect::TellContested { .. } | Effect::TellLossy { .. } => {}
            Effect::LoadModel { conn, model } => {
                let link = Link::of(conn);
                let at = self.down(now, link);
                let ordered = Housed::Ordered { link, model };
                self.queue.push(at, Happening::Housed(ordered));
            }
            Effect::Drained => unreachable!("nobody drains the coordinator"),
        }
    }

    fn down(&mut self, now: Tick, link: Link) -> Tick {
        let machine = self.links.machine(link) as usize;
        self.net.arrival(now, machine, Way::ToMachine)
    }
}

/// What production would name of a prompt: the blocks of a trace are as long, and the same tenant's.
fn prefix_of(blocks: &[u64], prompt_tokens: u32) -> Prefix {
    let full = (prompt_tokens / BLOCK_TOKENS) as usize;
    Prefix::of(blocks.iter().take(full).map(|block| Mix::of(block) as u32))
}

/// An answer of so many tokens, each a piece of its own.
fn shown(tokens: u32) -> Shown {
    Shown {
        pieces: tokens,
        text_bytes: tokens.saturating_mul(BYTES_PER_TOKEN),
        ..Shown::default()
    }
}
