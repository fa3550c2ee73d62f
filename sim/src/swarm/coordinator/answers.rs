//! The relays and bodies of the requests of one life, as the exchange's host.

use std::collections::BTreeMap;

use cereus_core::api::{Request, Writer};
use cereus_core::draw::Seed;
use cereus_core::envelope::{NONCE_SIZE, SecretKey};
use cereus_core::event::Ask;
use cereus_core::exchange::{Host, RequestKey};
use cereus_core::ids::{AttemptKey, RequestId, WireId};
use cereus_core::relay::{
    AttemptNews, Relay, RelayEffect, RelayEvent, RelayMischief, Shape, TrailReplayer,
};
use cereus_core::time::Tick;
use cereus_core::wire::messages::encode_inference_request;

use super::{ProcessEffect, Reply, key_bytes};
use crate::oracle::{Violation, require};
use crate::stream::{Ratio, Stream};
use crate::swarm::Plant;

#[derive(Debug)]
struct Answering {
    relay: Relay,
    /// As the provider will get it.
    lowered: Vec<u8>,
}

/// See the module.
pub(super) struct Answers {
    answers: BTreeMap<RequestId, Answering>,
    /// What consumers heard, in order, until the coordinator passes it on.
    replies: Vec<(RequestId, Reply)>,
    seed: Seed,
    /// Secrets that were given out.
    secrets: u64,
    nonces: u64,
    plant: Option<Plant>,
    dropping: Stream,
    /// A piece that comes after the next one, and whether that one has come.
    kept_back: Option<(RequestId, AttemptKey, String)>,
    gave_one: bool,
    relay_out: Vec<RelayEffect>,
}

impl Answers {
    pub(super) fn new(world: u64, seed: Seed, plant: Option<Plant>) -> Self {
        Self {
            answers: BTreeMap::new(),
            replies: Vec::new(),
            seed,
            secrets: 0,
            nonces: 0,
            plant,
            dropping: Stream::new(world, "dropped chunks"),
            kept_back: None,
            gave_one: false,
            relay_out: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, request: RequestId, chat: &Request<'_>, ask: Ask, model: &str) {
        let mischief = match self.plant {
            Some(Plant::OlderAttempt) => RelayMischief::LastBegunWins,
            Some(Plant::SkipsDamaged) => RelayMischief::SkipsDamaged,
            Some(_) | None => RelayMischief::None,
        };
        self.answers.entry(request).or_insert_with(|| {
            let mut lowered = Vec::new();
            chat.lower(model, ask.output_tokens_max, &mut lowered);
            let writer = Writer::relayed(chat.api, request, 1_700_000_000, model);
            let mut relay = Relay::new(writer, Shape::of(chat, ask.output_tokens_max));
            relay.dangerous_plant(mischief);
            Answering { relay, lowered }
        });
    }

    pub(super) fn take(&mut self, request: RequestId, into: &mut Vec<u8>) {
        into.clear();
        if let Some(answering) = self.answers.get_mut(&request) {
            answering.relay.take(into);
        }
    }

    /// An event that concerns the consumer only.
    pub(super) fn step(&mut self, now: Tick, request: RequestId, event: RelayEvent<'_>) {
        let mut out = Vec::new();
        self.relay(now, request, event, &mut out);
        assert!(out.is_empty(), "it concerns the consumer only");
    }

    /// INV-31: the trail of each relay steps a fresh one to the same end.
    pub(super) fn require_trails(&self) -> Result<(), Violation> {
        let mut replayer = TrailReplayer::new();
        for (request, answering) in &self.answers {
            let recorded = answering.relay.trail();
            let replayed = replayer.replayed(recorded);
            require(&replayed == recorded, "INV-31", || {
                format!("the relay of {request} did {recorded:?}, stepped again {replayed:?}")
            })?;
        }
        Ok(())
    }

    pub(super) fn drain(&mut self, effects: &mut Vec<ProcessEffect>) {
        let replies = self.replies.drain(..);
        effects.extend(replies.map(|(request, reply)| ProcessEffect::Reply { request, reply }));
    }

    pub(super) fn finished(&mut self, request: RequestId, completion_tokens: u32) {
        let reply = Reply::Finished { completion_tokens };
        self.replies.push((request, reply));
    }

    fn relay(
        &mut self,
        now: Tick,
        request: RequestId,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) {
        let Some(answering) = self.answers.get_mut(&request) else {
            return;
        };
        answering.relay.step(now, event, &mut self.relay_out);
        for effect in self.relay_out.drain(..) {
            let reply = match effect {
                RelayEffect::AttemptCut { .. }
                | RelayEffect::AttemptFailed { .. }
                | RelayEffect::AttemptProgressed { .. }
                | RelayEffect::AttemptStarted { .. } => {
                    out.push(effect);
                    continue;
                }
                RelayEffect::Close => Reply::Closed,
                RelayEffect::Open => continue,
                RelayEffect::Readable => Reply::Readable,
                RelayEffect::Refuse { denial } => Reply::Refused(denial),
            };
            self.replies.push((request, reply));
        }
    }

    /// What a bug of the process makes of a piece of an answer.
    fn planted(&mut self, event: &RelayEvent<'_>) -> Planted {
        let what = match self.plant {
            Some(Plant::DroppedChunk) => Planted::Dropped,
            Some(Plant::RepeatedChunk) => Planted::Repeated,
            Some(Plant::SwappedChunks) if self.kept_back.is_none() => Planted::KeptBack,
            Some(_) | None => Planted::Nothing,
        };
        let is_chunk = matches!(event, RelayEvent::SealedCame { .. });
        match what != Planted::Nothing && is_chunk && self.dropping.chance(Ratio::new(1, 4)) {
            true => what,
            false => Planted::Nothing,
        }
    }

    /// The piece that was kept back follows the one after it.
    fn give_back(
        &mut self,
        now: Tick,
        request: RequestId,
        attempt: AttemptKey,
        out: &mut Vec<RelayEffect>,
    ) {
        let is_due = |(of, by, _): &mut (RequestId, AttemptKey, String)| {
            self.gave_one && *of == request && *by == attempt
        };
        let Some((.., ciphertext)) = self.kept_back.take_if(is_due) else {
            self.gave_one = self.kept_back.is_some();
            return;
        };
        self.gave_one = false;
        let ciphertext = ciphertext.as_str();
        let event = RelayEvent::SealedCame {
            attempt,
            ciphertext,
        };
        self.relay(now, request, event, out);
    }
}

/// See [`Answers::planted`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Dropped,
    KeptBack,
    Nothing,
    Repeated,
}

impl Host for Answers {
    type Request = RequestId;

    fn step_relay(
        &mut self,
        now: Tick,
        request: &RequestId,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> AttemptNews {
        match self.planted(&event) {
            Planted::Nothing => self.relay(now, *request, event, out),
            Planted::Dropped => {}
            Planted::Repeated => {
                self.relay(now, *request, event.clone(), out);
                self.relay(now, *request, event, out);
            }
            Planted::KeptBack => {
                if let RelayEvent::SealedCame { ciphertext, .. } = event {
                    self.kept_back = Some((*request, attempt, ciphertext.to_owned()));
                }
            }
        }
        self.give_back(now, *request, attempt, out);
        let answering = self.answers.get(request);
        answering.map_or_else(AttemptNews::default, |it| it.relay.news_of(attempt))
    }

    fn secret(&mut self) -> Option<SecretKey> {
        self.secrets += 1;
        let whose = u128::MAX - u128::from(self.secrets);
        Some(SecretKey::from_bytes(key_bytes(self.seed, whose)))
    }

    fn seal(&mut self, request: &RequestId, wire: WireId, with: &RequestKey) -> Option<Vec<u8>> {
        let answering = self.answers.get(request)?;
        self.nonces += 1;
        let mut nonce = [0; NONCE_SIZE];
        nonce[..8].copy_from_slice(&self.nonces.to_le_bytes());
        let mut ciphertext = String::new();
        with.key
            .seal_text(nonce, &answering.lowered, &mut Vec::new(), &mut ciphertext);
        let mut frame = Vec::new();
        let own = with.own.text();
        encode_inference_request(wire, own.as_str(), with.step, &ciphertext, "", &mut frame);
        Some(frame)
    }
}
