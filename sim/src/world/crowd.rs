//! The consumers: what each request is, when it was sent and when its answer came.

use std::collections::VecDeque;

use cereus_core::ids::{AccountId, ModelIx, RequestId};
use cereus_core::time::{Span, Tick};

/// How a request ended for its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Failed,
    Finished,
    Refused,
}

/// A request's number, as short as events carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u32);

impl Number {
    /// # Panics
    /// There were more than four thousand million requests.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self(u32::try_from(number).expect("a run has fewer requests"))
    }

    #[must_use]
    pub const fn long(self) -> u64 {
        self.0 as u64
    }
}

/// One request, with the truth about its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: RequestId,
    pub account: AccountId,
    pub model: ModelIx,
    /// For the first time.
    pub sent_at: Tick,
    pub prompt_tokens: u32,
    /// Of its text: what the coordinator sees.
    pub prompt_bytes: u32,
    pub output_tokens_true: u32,
    pub output_tokens_max: u32,
    /// Whose turn it is of.
    pub session: Option<u32>,
    /// Tries before this one.
    pub nth: u8,
    /// Its consumer does not wait for it any more.
    pub has_left: bool,
    pub first_at: Option<Tick>,
    pub ended: Option<End>,
}

/// A request with what its prompt is made of.
#[derive(Clone, Debug)]
pub struct Request {
    pub asked: Asked,
    /// See [`Arrival::blocks`](crate::workload::Arrival::blocks); none once the request has ended.
    pub blocks: Vec<u64>,
}

/// Requests by number, forgotten from the oldest on once they have ended.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    first: u64,
    live: VecDeque<Request>,
    open: u64,
}

impl Crowd {
    /// What the next request is called; it is part of its id.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.first + self.live.len() as u64
    }

    /// Somebody asks.
    pub fn ask(&mut self, request: Request) {
        assert_eq!(
            Self::number(request.asked.id),
            self.next_number(),
            "requests are numbered in order"
        );
        self.live.push_back(request);
        self.open += 1;
    }

    /// What was turned down is asked again, under another id. Returns its number.
    pub fn again(&mut self, id: RequestId, request: Request) -> u64 {
        self.ask(Request {
            asked: Asked {
                id,
                nth: request.asked.nth + 1,
                first_at: None,
                ended: None,
                ..request.asked
            },
            blocks: request.blocks,
        });
        Self::number(id)
    }

    /// Its consumer leaves; `None`: the request is over, or it has left before.
    pub fn leaves(&mut self, number: u64) -> Option<Asked> {
        let ix = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let asked = &mut self.live.get_mut(ix)?.asked;
        let is_there = asked.ended.is_none() && !asked.has_left;
        is_there.then(|| {
            asked.has_left = true;
            *asked
        })
    }

    #[must_use]
    pub fn number(id: RequestId) -> u64 {
        u64::try_from(id.0 & u128::from(u64::MAX)).expect("masked")
    }

    #[must_use]
    pub fn asked(&self, number: u64) -> Option<&Asked> {
        self.place(number).map(|place| &place.asked)
    }

    /// What the request's prompt is made of, as far as the trace says.
    #[must_use]
    pub fn blocks(&self, number: u64) -> &[u64] {
        self.place(number).map_or(&[], |place| &place.blocks)
    }

    /// First content reached the consumer.
    pub fn begin(&mut self, id: RequestId, at: Tick) {
        let asked = &mut self.of_mut(id).asked;
        assert!(asked.first_at.is_none(), "a request is released once");
        assert!(asked.ended.is_none(), "nothing is released after the end");
        asked.first_at = Some(at);
    }

    /// The request ended (INV-02). Returns it.
    pub fn end(&mut self, id: RequestId, end: End) -> Request {
        let place = self.of_mut(id);
        assert!(
            place.asked.ended.is_none(),
            "a request ends exactly once (INV-02)"
        );
        place.asked.ended = Some(end);
        let ended = Request {
            asked: place.asked,
            blocks: core::mem::take(&mut place.blocks),
        };
        self.open -= 1;
        let has_ended = |place: &Request| place.asked.ended.is_some();
        while self.live.front().is_some_and(has_ended) {
            self.live.pop_front();
            self.first += 1;
        }
        ended
    }

    /// Requests that have not ended.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.open
    }

    fn place(&self, number: u64) -> Option<&Request> {
        let ix = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.live.get(ix)
    }

    fn of_mut(&mut self, id: RequestId) -> &mut Request {
        let ix = Self::number(id).checked_sub(self.first);
        let place = ix.and_then(|ix| self.live.get_mut(usize::try_from(ix).ok()?));
        let place = place.expect("an effect names a request that has not ended (INV-02)");
        assert_eq!(
            place.asked.id, id,
            "an effect names a request that was asked"
        );
        place
    }
}

impl Asked {
    #[must_use]
    pub fn ttft(&self) -> Option<Span> {
        self.first_at.map(|first| first.since(self.sent_at))
    }
}
