//! Work for every machine. Always taking the best leaves most of a fleet without any as long as few ask:
//! nobody learns how those are by now, and their owners go. So the open machines have a turn, and who had
//! nothing since the last round gets a request now and then, as long as that is cheap: what all of this
//! adds to the times until first content is a stated share of them. Short prompts cost the least anywhere,
//! so it is these that slow machines get.
//!
//! Where most machines work, each gets work by itself, but for one that was slow when it was last seen: it
//! is idle because it was slow, and nobody sees that it no longer is. There only who has had nothing for
//! as long as what is known of a machine lasts has a turn.

use serde::{Deserialize, Serialize};

use super::choose::{Choice, Want, Weighing, is_fit};
use super::cost::Cost;
use super::pool::Place;
use super::{Fleet, Policy};
use crate::config::Config;
use crate::ids::ModelIx;
use crate::time::{Span, Tick};

/// One part in so many of all times until first content may be spent.
const SHARE: u64 = 14;
/// No single request spends more than one part in so many of what has been saved up: cheap ones do first.
const SPENT_AT_ONCE: u64 = 4;
const SAVED_MAX_US: u64 = 256_000_000;
/// One part in so many of a prompt that a machine has read is worth more than a turn.
const READ_SHARE: u32 = 8;
/// Without work for so long, a machine has a turn in a busy fleet too.
const STARVED: Span = Span::secs(120);
/// Machines that one request looks at.
const LOOKS: usize = 16;
/// Classes of speed in which a prompt takes twice as long from the first to the last.
const CLASSES_AN_OCTAVE: u8 = 4;
/// A slow machine has a turn in each second, third or fourth round, not less.
const ROUNDS_MAX: usize = 4;

/// The turn of one model's machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Rota {
    /// Open offers, in no order.
    open: Vec<u32>,
    /// Whose turn is next.
    next: u32,
    /// When the latest rounds began, the newest first.
    began_at: [Tick; ROUNDS_MAX],
    saved_us: u64,
}

/// Where a request that has just come goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) choice: Choice,
    /// It is a stranger, and not the best: somebody has to try it.
    is_trial: bool,
    /// The best is one of those that others than their owner may have.
    is_public: bool,
    /// What it adds to the time until first content that this is not the best.
    extra_us: u64,
    /// That time at the best.
    best_us: u64,
    /// Where the next look begins, and whether that is a new round.
    next: u32,
    is_new_round: bool,
    /// Most machines work.
    is_busy: bool,
}

impl Rota {
    /// Lists an offer, and says where.
    pub(super) fn enter(&mut self, offer: u32) -> u32 {
        self.open.push(offer);
        u32::try_from(self.open.len() - 1).expect("at most all offers")
    }

    /// Takes the offer at a place out. The one returned, if any, is there now.
    pub(super) fn leave(&mut self, at: u32) -> Option<u32> {
        self.open.swap_remove(at as usize);
        self.open.get(at as usize).copied()
    }

    pub(super) fn at(&self, at: u32) -> Option<u32> {
        self.open.get(at as usize).copied()
    }

    fn begin_round(&mut self, now: Tick) {
        self.began_at.rotate_right(1);
        self.began_at[0] = now;
    }
}

impl Fleet {
    /// Where a request that has just come goes: to the best, or to a machine that nobody knows yet, or to
    /// one whose turn it is.
    pub(crate) fn first_choice(&self, now: Tick, want: Want<'_>, config: &Config) -> Option<First> {
        let weighing = self.weighing(want, config);
        let choice = weighing.choice()?;
        let offer = self.offers.at(choice.offer);
        let supply = self.supply(want.model);
        let is_busy = 2 * (supply.pool.idle_count() as usize) < supply.rota.open.len();
        let is_ours = matches!(self.policy, Policy::Expected | Policy::Told);
        let mut first = First {
            choice,
            is_trial: false,
            // Not its own machine and no last resort.
            is_public: is_ours && offer.place.is_some(),
            extra_us: 0,
            best_us: self.first_content_us(choice, &want),
            next: supply.rota.next,
            is_new_round: false,
            is_busy,
        };
        if !first.is_public || self.providers.at(offer.provider).is_unknown() {
            return Some(first);
        }
        if let Some(stranger) = self.stranger_for(now, &want) {
            first.choice = choice_of(stranger, &weighing);
            first.is_trial = true;
            return Some(first);
        }
        // Who has read much of it is worth more than a turn.
        let is_read = choice.cached_tokens > want.prompt_tokens / READ_SHARE;
        if !is_read {
            self.take_turn(&want, &weighing, &mut first);
        }
        Some(first)
    }

    /// The first in turn that has had nothing in its rounds, if that is cheap enough.
    fn take_turn(&self, want: &Want<'_>, weighing: &Weighing<'_>, first: &mut First) {
        let rota = &self.supply(want.model).rota;
        for _ in 0..LOOKS {
            let Some(offer) = rota.at(first.next) else {
                first.next = 0;
                first.is_new_round = true;
                return;
            };
            if self.is_due(offer, want) {
                let choice = choice_of(offer, weighing);
                let here_us = self.first_content_us(choice, want);
                let extra_us = here_us.saturating_sub(first.best_us);
                if extra_us <= rota.saved_us / SPENT_AT_ONCE {
                    first.choice = choice;
                    first.extra_us = extra_us;
                    first.next += 1;
                }
                return;
            }
            first.next += 1;
        }
    }

    /// Whether an offer could take the request, has nothing to do and has had nothing in its rounds.
    fn is_due(&self, offer: u32, want: &Want<'_>) -> bool {
        let known = self.offers.at(offer);
        let provider = self.providers.at(known.provider);
        let Some(place) = known.place else {
            return false;
        };
        let candidate = self.supply(want.model).pool.at(place);
        let is_sound = !provider.has_faults && !provider.is_unknown();
        let had_none = known.sent_at < self.rounds_began_at(want.model, place);
        had_none && candidate.load == 0 && is_sound && is_fit(want, candidate)
    }

    /// When the rounds began in which a machine of this speed has one turn: who is half as fast gets half
    /// as many.
    fn rounds_began_at(&self, model: ModelIx, place: Place) -> Tick {
        let supply = self.supply(model);
        let fastest = supply.pool.classes().next().unwrap_or(place.class);
        let octaves = (place.class - fastest) / CLASSES_AN_OCTAVE;
        let rounds = usize::from(octaves).min(ROUNDS_MAX - 1);
        let began_at = supply.rota.began_at[..=rounds].iter().min();
        *began_at.expect("one at least")
    }

    fn first_content_us(&self, choice: Choice, want: &Want<'_>) -> u64 {
        let Some(place) = self.offers.at(choice.offer).place else {
            return 0;
        };
        let candidate = self.supply(want.model).pool.at(place);
        Cost::of(want.work(choice.cached_tokens), candidate).first_content_us()
    }

    /// It went there.
    pub(crate) fn note_first(&mut self, now: Tick, want: &Want<'_>, first: First) {
        if !first.is_public {
            return;
        }
        self.note_trial(now, want, first.is_trial.then_some(first.choice.offer));
        let rota = &mut self.supplies[usize::from(want.model.0)].rota;
        let saved_us = rota.saved_us + first.best_us / SHARE;
        rota.saved_us = saved_us.saturating_sub(first.extra_us).min(SAVED_MAX_US);
        rota.next = first.next;
        if first.is_new_round {
            rota.begin_round(match first.is_busy {
                true => Tick(now.0.saturating_sub(STARVED.0)),
                false => now,
            });
        }
    }

    /// Puts an offer on its model's rota, or takes it off.
    pub(super) fn list_turn(&mut self, ix: u32, is_open: bool) {
        let offer = self.offers.at_mut(ix);
        let rota = &mut self.supplies[usize::from(offer.model.0)].rota;
        match (offer.turn_at, is_open) {
            (None, true) => offer.turn_at = Some(rota.enter(ix)),
            (Some(at), false) => {
                offer.turn_at = None;
                if let Some(moved) = rota.leave(at) {
                    self.offers.at_mut(moved).turn_at = Some(at);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

fn choice_of(offer: u32, weighing: &Weighing<'_>) -> Choice {
    Choice {
        offer,
        cached_tokens: weighing.cached_tokens(offer),
    }
}
