//! Requests from their consumers' side: sent, sent again, waited for, given up, answered.

use std::collections::BTreeMap;

use cereus_core::denial::Denial;
use cereus_core::draw::Purpose;
use cereus_core::event::Event;
use cereus_core::ids::RequestId;
use cereus_core::time::{Span, Tick};

use super::crowd::{Asked, Crowd, End, Number, Request};
use super::living::Leaving;
use super::{Happening, RunError, WARM_UP, World};
use crate::stream::Stream;
use crate::workload::{Arrival, WorkloadError};

/// What a consumer does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Person {
    /// A session has thought of its next request.
    Asks {
        session: u32,
    },
    /// It leaves, unless its answer is there or over by then.
    LosesInterest {
        number: Number,
    },
    LosesPatience {
        number: Number,
    },
    /// The coordinator sees that it has left.
    Left {
        number: Number,
    },
    TriesAgain {
        ticket: u32,
    },
}

/// Requests that wait to be sent again.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries {
    waiting: BTreeMap<u32, Request>,
    tickets: u32,
}

impl Retries {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn put(&mut self, request: Request) -> u32 {
        self.tickets += 1;
        self.waiting.insert(self.tickets, request);
        self.tickets
    }
}

impl<I: Iterator<Item = Result<Arrival, WorkloadError>>> World<I> {
    /// The trace's first row, or each session's first request within one time of thinking.
    pub(super) fn settle_consumers(&mut self) -> Result<(), RunError> {
        let people = self.config.people;
        if people.sessions == 0 {
            return self.send_next(Tick::ZERO);
        }
        let mut stream = Stream::new(self.config.seed, "sessions");
        for session in 0..people.sessions {
            let at = stream.below(people.think_mean.0.max(1));
            let at = Tick::ZERO + WARM_UP + Span(at);
            self.queue
                .push(at, Happening::Person(Person::Asks { session }));
        }
        Ok(())
    }

    pub(super) fn on_person(&mut self, now: Tick, person: Person) -> Result<(), RunError> {
        match person {
            Person::Asks { session } => {
                match self.arrivals.next() {
                    Some(arrival) => self.ask(now, arrival?, Some(session)),
                    None => self.is_exhausted = true,
                }
                Ok(())
            }
            Person::LosesInterest { number } => {
                self.leave(now, number.long());
                Ok(())
            }
            Person::LosesPatience { number } => {
                let asked = self.crowd.asked(number.long());
                let has_content = asked.and_then(|asked| asked.first_at);
                if has_content.is_none_or(|at| at > now) {
                    self.leave(now, number.long());
                }
                Ok(())
            }
            Person::Left { number } => {
                let asked = self.crowd.asked(number.long());
                let Some(request) = asked
                    .filter(|asked| asked.ended.is_none())
                    .map(|asked| asked.id)
                else {
                    return Ok(());
                };
                self.tell(now, &Event::ConsumerLeft { request })
            }
            Person::TriesAgain { ticket } => {
                let request = self.retries.waiting.remove(&ticket);
                let request = request.expect("a ticket is used once");
                let id = self.new_id();
                let before = Crowd::number(request.asked.id);
                let number = self.crowd.again(id, request);
                self.recorder.again(before, number);
                self.living.tries_again();
                self.post(now, number);
                Ok(())
            }
        }
    }

    /// Somebody asks something for the first time.
    pub(super) fn ask(&mut self, now: Tick, mut arrival: Arrival, session: Option<u32>) {
        let id = self.new_id();
        let number = Crowd::number(id);
        let prompt_tokens = arrival.prompt_tokens;
        let room = self.config.context_tokens.saturating_sub(prompt_tokens);
        let told = self
            .teller
            .tell(prompt_tokens, arrival.output_tokens, room.max(1));
        let model = self.wares.wanted(self.seed, number);
        self.living.is_asked(&self.wares.facts(model).name);
        let account = match session {
            None => self.purses.of_request(number, &arrival.blocks),
            Some(session) => self.purses.of(u64::from(session)),
        };
        self.purses.scoped(account, &mut arrival.blocks);
        self.crowd.ask(Request {
            asked: Asked {
                id,
                account,
                model,
                sent_at: now,
                prompt_tokens: prompt_tokens.max(1),
                prompt_bytes: told.prompt_bytes,
                output_tokens_true: arrival.output_tokens,
                output_tokens_max: told.output_tokens_max,
                session,
                nth: 0,
                has_left: false,
                first_at: None,
                ended: None,
            },
            blocks: arrival.blocks,
        });
        let asked = self.crowd.asked(number).expect("it was just asked");
        self.recorder.asked(now, number, asked);
        self.tally.asked += 1;
        self.post(now, number);
    }

    fn new_id(&self) -> RequestId {
        let number = u128::from(self.crowd.next_number());
        let drawn = self.seed.draw_wide(Purpose::Simulation, number, 0);
        RequestId((drawn >> 64 << 64) | number)
    }

    fn post(&mut self, now: Tick, number: u64) {
        let at = now + self.net.latency();
        self.queue.push(
            at,
            Happening::RequestArrived {
                number: Number::of(number),
            },
        );
        if let Some(patience) = self.manners.patience(number) {
            let person = Person::LosesPatience {
                number: Number::of(number),
            };
            self.queue.push(now + patience, Happening::Person(person));
        }
    }

    /// Its consumer has had enough, unless the request is over.
    fn leave(&mut self, now: Tick, number: u64) {
        let at = now + self.net.latency();
        if let Some(asked) = self.crowd.leaves(number) {
            let has_content = asked.first_at.is_some_and(|at| at <= now);
            self.living.leaves(match has_content {
                true => Leaving::AmidAnswer,
                false => Leaving::BeforeContent,
            });
            let person = Person::Left {
                number: Number::of(number),
            };
            self.queue.push(at, Happening::Person(person));
        }
    }

    /// First content of an answer reaches its consumer at this moment.
    pub(super) fn is_released(&mut self, at: Tick, request: RequestId) {
        self.crowd.begin(request, at);
        let number = Crowd::number(request);
        self.recorder.began(number, at);
        if let Some(reading) = self.manners.reading(number) {
            let person = Person::LosesInterest {
                number: Number::of(number),
            };
            self.queue.push(at + reading, Happening::Person(person));
        }
    }

    /// A request ended without an answer, or with half of one. Its consumer may try again.
    pub(super) fn is_denied(&mut self, now: Tick, request: RequestId, denial: Denial, end: End) {
        let Request { asked, blocks } = self.crowd.end(request, end);
        let number = Crowd::number(request);
        let wait = match end {
            End::Refused if !asked.has_left => self.manners.retry(number, asked.nth, denial),
            End::Failed | End::Finished | End::Refused => None,
        };
        if let Some(wait) = wait {
            // The refusal travels, and so does what follows.
            let at = now + self.net.latency() + wait;
            let ticket = self.retries.put(Request { asked, blocks });
            let person = Person::TriesAgain { ticket };
            self.queue.push(at, Happening::Person(person));
            return;
        }
        match end {
            End::Failed => {
                self.tally.fail(denial);
                self.recorder.failed(now, number, denial);
            }
            End::Finished | End::Refused => {
                self.tally.refuse(denial);
                self.recorder.refused(now, number, denial);
            }
        }
        self.living.gives_up(asked.nth);
        self.thinks(now, &asked);
    }

    /// A session goes on once its last request is over.
    pub(super) fn thinks(&mut self, at: Tick, asked: &Asked) {
        if let Some(session) = asked.session {
            let thought = self.manners.thought(Crowd::number(asked.id));
            let person = Person::Asks { session };
            self.queue.push(at + thought, Happening::Person(person));
        }
    }
}
