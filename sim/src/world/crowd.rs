//! The consumers: what each request is, when it was sent and when its answer came.

use std::collections::VecDeque;

use cereus_core::ids::RequestId;
use cereus_core::time::{Span, Tick};

use super::knowledge::Told;
use crate::workload::Arrival;

/// How a request ended for its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Failed,
    Finished,
    Refused,
}

/// One request, with the truth about its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: RequestId,
    pub sent_at: Tick,
    pub prompt_tokens: u32,
    /// Of its text: what the coordinator sees.
    pub prompt_bytes: u32,
    pub output_tokens_true: u32,
    pub output_tokens_max: u32,
    pub first_at: Option<Tick>,
    pub ended: Option<End>,
}

#[derive(Clone, Debug)]
struct Place {
    asked: Asked,
    /// See [`Arrival::blocks`]; none once the request has ended.
    blocks: Vec<u64>,
}

/// Requests by number, forgotten from the oldest on once they have ended.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    first: u64,
    live: VecDeque<Place>,
    open: u64,
}

impl Crowd {
    /// Numbers the next request.
    pub fn ask(&mut self, sent_at: Tick, id_bits: u128, arrival: Arrival, told: Told) -> u64 {
        let number = self.first + self.live.len() as u64;
        let asked = Asked {
            id: RequestId((id_bits << 64) | u128::from(number)),
            sent_at,
            prompt_tokens: arrival.prompt_tokens.max(1),
            prompt_bytes: told.prompt_bytes,
            output_tokens_true: arrival.output_tokens,
            output_tokens_max: told.output_tokens_max,
            first_at: None,
            ended: None,
        };
        self.live.push_back(Place {
            asked,
            blocks: arrival.blocks,
        });
        self.open += 1;
        number
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
    pub fn end(&mut self, id: RequestId, end: End) -> Asked {
        let place = self.of_mut(id);
        assert!(
            place.asked.ended.is_none(),
            "a request ends exactly once (INV-02)"
        );
        place.asked.ended = Some(end);
        place.blocks = Vec::new();
        let copy = place.asked;
        self.open -= 1;
        let has_ended = |place: &Place| place.asked.ended.is_some();
        while self.live.front().is_some_and(has_ended) {
            self.live.pop_front();
            self.first += 1;
        }
        copy
    }

    /// Requests that have not ended.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.open
    }

    fn place(&self, number: u64) -> Option<&Place> {
        let ix = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.live.get(ix)
    }

    fn of_mut(&mut self, id: RequestId) -> &mut Place {
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
