//! What one relay was told and what it let through, without a word of the answer: three kinds of task
//! step a relay, in an order that no other record has. With it whoever asks why a consumer saw what it
//! saw steps the same relay again, in the same order.

use smallvec::SmallVec;

use super::breach::Breach;
use super::{Relay, RelayEvent, RelayMischief, Shape};
use crate::api::{Api, Delivery, Writer};
use crate::denial::Denial;
use crate::envelope::{BoxKey, KeyText, SecretKey};
use crate::event::{Usage, UsageParts};
use crate::ids::{AttemptKey, RequestId};
use crate::time::Tick;

/// Entries of one answer: more than its attempts can bring about, unless they take turns in odd ways.
pub const ENTRIES_MAX: usize = 64;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It had no content: a preamble, or an end.
    Empty,
    /// Another attempt has won: kept for the case that this one is given up.
    Held,
    Relayed,
    /// Its attempt has no place, or not yet: dropped.
    Stale,
}

/// One thing that a relay was told, or did of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    Began,
    /// The relay broke the attempt off.
    BrokenOff,
    Cancelled,
    /// A chunk came. Of those alike in a row only the first.
    Chunk(Fate),
    Completed,
    /// The relay ended the attempt at its bound; what it had is the answer.
    Cut,
    Denied,
    Dispatched,
    DispatchedBeside,
    Ended,
    Finished,
    Left,
    Released,
}

/// When, of which attempt, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub at: Tick,
    /// `None` where it concerns the request.
    pub attempt: Option<AttemptKey>,
    pub told: Told,
}

/// See the module. Oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trail {
    delivery: Delivery,
    entries: SmallVec<[Entry; 8]>,
}

impl Trail {
    #[must_use]
    pub fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            entries: SmallVec::new(),
        }
    }

    /// Whether what was relayed is seen at once or at the end.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        self.delivery
    }

    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// `None`: more than a trail has.
    #[must_use]
    pub fn of(delivery: Delivery, entries: &[Entry]) -> Option<Self> {
        (entries.len() <= ENTRIES_MAX).then(|| Self {
            delivery,
            entries: SmallVec::from_slice(entries),
        })
    }

    /// Adds what was told, if there is room.
    pub(super) fn note(&mut self, at: Tick, attempt: Option<AttemptKey>, told: Told) {
        if self.entries.len() >= ENTRIES_MAX {
            return;
        }
        if let Told::Chunk(_) = told {
            let of_it = |entry: &&Entry| entry.attempt == attempt;
            if self.entries.iter().rev().find(of_it).map(|it| it.told) == Some(told) {
                return;
            }
        }
        self.entries.push(Entry { at, attempt, told });
    }
}

/// Steps relays through trails.
#[derive(Debug)]
pub struct TrailReplayer {
    key: BoxKey,
    sealer: KeyText,
    mischief: RelayMischief,
    nonce: u64,
}

/// A chunk with content, and one without.
const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
const PREAMBLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";

impl TrailReplayer {
    /// The keys are of no machine: nothing that is secret is in a trail.
    ///
    /// # Panics
    /// Never: the two keys agree.
    #[must_use]
    pub fn new() -> Self {
        let own = SecretKey::from_bytes([1; 32]);
        let peer = SecretKey::from_bytes([2; 32]).public();
        Self {
            key: own.agree(&peer).expect("both keys are sound"),
            sealer: peer.text(),
            mischief: RelayMischief::None,
            nonce: 0,
        }
    }

    /// Plants a bug, for the proof that a trail shows it.
    pub fn dangerous_plant(&mut self, mischief: RelayMischief) {
        self.mischief = mischief;
    }

    /// The trail of a fresh relay that is told the same in the same order. It differs where the
    /// recorded relay did otherwise than this build's.
    pub fn replayed(&mut self, trail: &Trail) -> Trail {
        let shape = Shape {
            delivery: trail.delivery,
            include_usage: false,
            output_tokens_max: u32::MAX,
            stop_bytes_max: 0,
            silent_tokens_max: 0,
        };
        let writer = Writer::relayed(Api::Chat, RequestId(0), 0, "");
        let mut relay = Relay::new(writer, shape);
        relay.dangerous_plant(self.mischief);
        let mut out = Vec::new();
        for entry in &trail.entries {
            out.clear();
            self.step(&mut relay, *entry, &mut out);
        }
        relay.trail().clone()
    }

    fn step(&mut self, relay: &mut Relay, entry: Entry, out: &mut Vec<super::RelayEffect>) {
        let Entry { at, attempt, told } = entry;
        let attempt = attempt.unwrap_or(AttemptKey {
            slot: u32::MAX,
            generation: u32::MAX,
        });
        let event = match told {
            Told::Began => RelayEvent::AttemptBegan {
                attempt,
                key: self.key.clone(),
                sealer: self.sealer,
            },
            Told::BrokenOff => return relay.break_off(at, attempt, &Breach::Malformed, out),
            Told::Cancelled => RelayEvent::AttemptCancelled { attempt },
            Told::Chunk(fate) => {
                let text = match fate {
                    Fate::Empty => PREAMBLE,
                    Fate::Held | Fate::Relayed | Fate::Stale => CONTENT,
                };
                let ciphertext = &self.sealed(text);
                let event = RelayEvent::SealedCame {
                    attempt,
                    ciphertext,
                };
                return relay.step(at, event, out);
            }
            Told::Completed => RelayEvent::Completed {
                attempt,
                parts: UsageParts::default(),
            },
            Told::Cut => return relay.break_off(at, attempt, &Breach::Overrun, out),
            Told::Denied => RelayEvent::Denied {
                denial: Denial::Internal,
            },
            Told::Dispatched => RelayEvent::AttemptDispatched {
                attempt,
                is_second: false,
            },
            Told::DispatchedBeside => RelayEvent::AttemptDispatched {
                attempt,
                is_second: true,
            },
            Told::Ended => RelayEvent::AttemptEnded { attempt },
            Told::Finished => RelayEvent::Finished {
                usage: Usage::default(),
            },
            Told::Left => RelayEvent::ConsumerLeft,
            Told::Released => RelayEvent::Released,
        };
        relay.step(at, event, out);
    }

    fn sealed(&mut self, text: &str) -> String {
        self.nonce += 1;
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&self.nonce.to_le_bytes());
        let mut ciphertext = String::new();
        self.key
            .seal_text(nonce, text.as_bytes(), &mut Vec::new(), &mut ciphertext);
        ciphertext
    }
}

impl Default for TrailReplayer {
    fn default() -> Self {
        Self::new()
    }
}
