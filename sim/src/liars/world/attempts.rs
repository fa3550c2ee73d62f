//! Requests come, and what becomes of each attempt at one.

use cereus_core::event::{Ask, AttemptFault, Delivery, Event, GoneCause};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, RequestId};
use cereus_core::time::Span;

use super::super::judge::Choice;
use super::super::machine::{MODEL, Machine};
use super::super::plan::{CONSUMERS, Lie, PROMPT_BYTES};
use super::super::script::{self, Act, Answer, Truth};
use super::{Asked, Checked, Try, What, World};

/// The consumer whose text may be of another kind.
const UNUSUAL: AccountId = AccountId(1);

impl World<'_> {
    pub(super) fn arrives(&mut self, number: u32) -> Checked {
        let stream = &mut self.chance;
        let prompt_bytes = stream.pick(&PROMPT_BYTES);
        let most = u64::from(self.plan.output_tokens_most);
        let output_tokens = u32::try_from(stream.between(1, most)).expect("few");
        let spare = u32::try_from(stream.between(0, most)).expect("few");
        let account = AccountId(1 + stream.below(CONSUMERS.into()));
        let unusual_milli = self.plan.unusual_milli.filter(|_| account == UNUSUAL);
        let text_milli = unusual_milli.unwrap_or(self.plan.text_milli);
        let truth = Truth {
            prompt_bytes,
            text_milli,
            prompt_tokens: prompt_bytes * 1_000 / text_milli + self.plan.template,
            output_tokens_max: output_tokens + spare,
            output_tokens,
        };
        let delivery = match stream.below(4) {
            0 => Delivery::Whole,
            _ => Delivery::Streamed,
        };
        let pause = Span(stream.exponential(self.plan.mean_between.0));
        self.asked.push(Asked {
            truth,
            asked_at: self.now,
            tried: 0,
            speaks: None,
            answered: None,
            is_over: false,
            was_cut_off: false,
        });
        self.open += 1;
        if number == self.plan.asks / 2 {
            self.judge.half_is_over(self.now, self.plan);
        }
        if number + 1 < self.plan.asks {
            self.queue.push(self.now + pause, What::Arrives(number + 1));
        }
        self.step(&Event::Arrived(Ask {
            prompt_tokens: prompt_bytes / Ask::BYTES_PER_TOKEN,
            prompt_tokens_bound: prompt_bytes + 64,
            output_tokens_max: truth.output_tokens_max,
            delivery,
            ..Ask::new(RequestId(u128::from(number)), account, MODEL)
        }))
    }

    pub(super) fn dispatched(&mut self, request: u32, key: AttemptKey, conn: ConnId) -> Checked {
        let number = *self
            .by_conn
            .get(&conn)
            .expect("work goes to proven machines");
        let tried = self.asked[request as usize].tried;
        let others = tried | (1 << number);
        let machine = &mut self.machines[number];
        machine.pending += 1;
        machine.attempts += 1;
        machine.attempts_here += 1;
        let lie = machine.plan.liar.and_then(|liar| {
            let is_served = liar
                .serves_each
                .is_some_and(|each| machine.attempts.is_multiple_of(each));
            match liar.lie {
                _ if is_served => None,
                Lie::Mixed => Some(self.chance.pick(&Lie::single())),
                lie => Some(lie),
            }
        });
        let is_free = match lie {
            None => true,
            Some(lie) if lie.is_slow() => self.honest(others, Machine::is_idle).is_some(),
            Some(_) => self.honest(others, Machine::has_room).is_some(),
        };
        let choice = if is_free {
            Choice::Free
        } else {
            Choice::Forced
        };
        self.judge.dispatched(number, choice, lie.is_some());
        self.tally.attempts += 1;
        self.asked[request as usize].tried = others;
        self.tries.insert(
            key,
            Try {
                request,
                machine: number,
                conn,
                lie,
                has_row: false,
                is_accepted: false,
            },
        );
        self.queue
            .push(self.now + self.plan.latency, What::Came(key));
        Ok(())
    }

    /// A request reaches a machine.
    pub(super) fn came(&mut self, key: AttemptKey) -> Checked {
        let Some(&attempt) = self.tries.get(&key) else {
            return Ok(());
        };
        let truth = self.asked[attempt.request as usize].truth;
        let machine = &mut self.machines[attempt.machine];
        let script = match attempt.lie {
            Some(lie) => script::lying(lie, machine, &truth, &mut self.chance),
            None => script::honest(machine, &truth),
        };
        if machine.can_take() {
            machine.running += 1;
            self.tries.get_mut(&key).expect("just found").has_row = true;
        }
        for (after, act) in script {
            // The answer takes the same way back, so the latency counts a second time.
            let at = self.now + after + self.plan.latency;
            self.queue.push(at, What::Act(key, act));
        }
        Ok(())
    }

    pub(super) fn act(&mut self, key: AttemptKey, act: Act) -> Checked {
        let Some(&attempt) = self.tries.get(&key) else {
            return Ok(());
        };
        let conn = attempt.conn;
        let asked = &mut self.asked[attempt.request as usize];
        match act {
            Act::Accept => {
                self.tries.get_mut(&key).expect("just found").is_accepted = true;
                self.step(&Event::AttemptAccepted { conn, attempt: key })
            }
            Act::Start => {
                asked.speaks = Some(attempt.machine);
                self.step(&Event::AttemptStarted { conn, attempt: key })
            }
            Act::Complete(answer) => {
                let machine = self.machines[attempt.machine].id;
                asked.answered = Some((machine, answer));
                self.machines[attempt.machine].has_gone_on = true;
                self.ended(key);
                self.step(&completed(conn, key, answer))?;
                self.maybe_reconnects(attempt.machine)
            }
            Act::Fail(fault) => {
                self.ended(key);
                if fault == AttemptFault::Busy {
                    self.machines[attempt.machine].refused_at = Some(self.now);
                }
                self.step(&Event::AttemptFailed {
                    conn,
                    attempt: key,
                    fault,
                })?;
                if fault == AttemptFault::Encryption {
                    // A breach of the encryption ends trust in this connection, so a liar closes it
                    // and comes back on another.
                    let back_after = Span(self.chance.between(100_000, 3_000_000));
                    return self.leaves(attempt.machine, GoneCause::Closed, back_after);
                }
                self.maybe_reconnects(attempt.machine)
            }
            Act::Progress(shown) => {
                self.machines[attempt.machine].has_gone_on |= shown.pieces >= 32;
                self.step(&Event::AttemptProgressed {
                    conn,
                    attempt: key,
                    shown,
                })
            }
            Act::HangUp => {
                let back_after = Span(self.chance.between(100_000, 3_000_000));
                self.leaves(attempt.machine, GoneCause::Closed, back_after)
            }
        }
    }

    /// The machine is done with an attempt.
    pub(super) fn ended(&mut self, key: AttemptKey) {
        let attempt = self.tries.remove(&key).expect("it was there");
        let machine = &mut self.machines[attempt.machine];
        machine.pending -= 1;
        machine.running -= u32::from(attempt.has_row);
    }

    pub(super) fn cancelled(&mut self, key: AttemptKey, conn: ConnId) {
        let Some(attempt) = self.tries.remove(&key) else {
            return;
        };
        let machine = &mut self.machines[attempt.machine];
        machine.pending -= 1;
        machine.lingering += 1;
        if attempt.has_row {
            let at = self.now + self.plan.latency;
            self.queue.push(at, What::Freed(attempt.machine, conn));
        }
    }
}

pub(super) fn completed(conn: ConnId, attempt: AttemptKey, answer: Answer) -> Event<'static> {
    Event::AttemptCompleted {
        conn,
        attempt,
        usage: answer.usage,
        shown: answer.shown,
        ending: answer.ending,
    }
}
