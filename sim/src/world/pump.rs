//! Steps the core by one event and carries out in the simulated world what it then orders.

use cereus_core::digest::Mix;
use cereus_core::draw::Purpose;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{Ask, AttemptFault, Delivery, Ending, Event, Shown, Usage};
use cereus_core::ids::{AccountId, AttemptKey, RequestId};
use cereus_core::prefix::{BLOCK_TOKENS, Prefix};
use cereus_core::time::Tick;
use cereus_engine::scheduler::Refused;

use super::config::PrefixCache;
use super::crowd::{Crowd, End};
use super::net::Way;
use super::{BYTES_PER_TOKEN, Happening, MODEL, RunError, World, fleet};
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
        let payer = self.seed.draw_below(
            Purpose::Simulation,
            u128::from(number),
            1,
            u64::from(self.config.accounts),
        );
        Ask {
            prompt_tokens: asked.prompt_bytes.div_ceil(Ask::BYTES_PER_TOKEN),
            prompt_tokens_bound: asked.prompt_bytes,
            output_tokens_max: asked.output_tokens_max,
            delivery: Delivery::Streamed,
            prefix: match self.config.prefix_cache {
                PrefixCache::Off => Prefix::NONE,
                PrefixCache::On => prefix_of(self.crowd.blocks(number), asked.prompt_tokens),
            },
            ..Ask::new(asked.id, AccountId(payer + 1), MODEL)
        }
    }

    /// A machine's scheduler takes the job or refuses it, and says so.
    pub(super) fn take_job(&mut self, now: Tick, machine: u32, attempt: AttemptKey, number: u64) {
        let Some(asked) = self.crowd.asked(number) else {
            // The request ended while its dispatch was under way; the cancel is behind it.
            return;
        };
        let job = Job {
            attempt,
            prompt_tokens: asked.prompt_tokens,
            output_tokens_max: asked.output_tokens_max,
            output_tokens_true: asked.output_tokens_true,
        };
        let taker = self.fleet.machine_mut(machine);
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
        let taken = taker.submit(now, &job, &self.names);
        let at = self.up(now, machine);
        let fault = match taken {
            Ok(due) => {
                self.schedule(machine, due);
                return self
                    .queue
                    .push(at, Happening::AcceptArrived { machine, attempt });
            }
            Err(Refused::NeverFits | Refused::QueueFull) => AttemptFault::Busy,
            Err(Refused::TooLong | Refused::Empty) => AttemptFault::Client(400),
            Err(Refused::Duplicate) => unreachable!("rows are numbered"),
        };
        self.tally.machine_refusals += 1;
        self.queue.push(
            at,
            Happening::FailureArrived {
                machine,
                attempt,
                fault,
            },
        );
    }

    pub(super) fn hear(&mut self, now: Tick, machine: u32, note: Note) -> Result<(), RunError> {
        let conn = fleet::conn(machine);
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
        self.core
            .step(now, event, &mut out)
            .map_err(RunError::Misuse)?;
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
                let machine = fleet::of_conn(conn);
                let at = self.net.arrival(now, machine as usize, Way::ToMachine);
                let number = Crowd::number(request);
                self.recorder.dispatched(now, number, attempt, machine);
                self.queue.push(
                    at,
                    Happening::Dispatched {
                        machine,
                        attempt,
                        number,
                    },
                );
            }
            Effect::CancelAttempt { attempt, conn } => {
                self.tally.cancels += 1;
                let machine = fleet::of_conn(conn);
                let at = self.net.arrival(now, machine as usize, Way::ToMachine);
                self.queue
                    .push(at, Happening::CancelArrived { machine, attempt });
            }
            Effect::Release { request, .. } => {
                let at = now + self.net.latency();
                self.crowd.begin(request, at);
                self.recorder.began(Crowd::number(request), at);
            }
            Effect::Refuse { request, denial } => {
                self.end(request, End::Refused);
                self.tally.refuse(denial);
                self.recorder.refused(now, Crowd::number(request), denial);
            }
            Effect::Fail { request, denial } => {
                self.end(request, End::Failed);
                self.tally.fail(denial);
                self.recorder.failed(now, Crowd::number(request), denial);
            }
            Effect::Finish { request, receipt } => {
                let at = now + self.net.latency();
                let asked = self.crowd.end(request, End::Finished);
                let receipt = &out.receipts[receipt as usize];
                let served = self.tally.finish(at, &asked, receipt);
                let number = Crowd::number(request);
                self.recorder
                    .finished(now, number, at, receipt.usage, &served);
            }
            Effect::Post { transfer } => {
                let transfer = &out.transfers[transfer as usize];
                self.ledger.note(transfer);
                self.store.post(transfer.seq);
            }
            Effect::Alarm { alarm, count } => self.tally.alarm(alarm, count),
            Effect::Charge { .. }
            | Effect::Disconnect { .. }
            | Effect::LoadModel { .. }
            | Effect::TellContested { .. }
            | Effect::Drained => {
                unreachable!(
                    "every simulated machine behaves, holds its model and stays, as every consumer \
                     does: {effect:?}"
                )
            }
        }
    }

    pub(super) fn end(&mut self, request: RequestId, end: End) {
        self.crowd.end(request, end);
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
