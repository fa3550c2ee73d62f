//! Machines of which nobody has had an answer yet. Each stands behind those that are known; so one request in
//! some goes to such a machine all the same, or nobody would ever know it: to each in its turn, whatever it
//! claims. It gets a short prompt where it can, since
//! that costs the least where the machine turns out to be slow.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Fleet;
use super::choose::{INSPECTED_PER_SOURCE_MAX, Want, is_fit};
use super::supply::Typical;
use crate::time::{Span, Tick};

/// So many requests have one among them that tries a stranger.
pub(crate) const TRIED_ONE_IN: u32 = 16;
/// Where few ask, one is tried after so long, if so many requests went elsewhere since.
const TRIED_EVERY: Span = Span::secs(30);
const TRIED_ONE_IN_AT_LEAST: u32 = 4;
/// Long prompts that are spared: then the next one has to do.
const SPARED_MAX: u8 = 3;

/// A place in the order of turns: how often it was tried, then who has waited for longest.
pub(super) type Turn = (u32, u64);

/// The open strangers of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Strangers {
    /// Each with its offer.
    list: BTreeSet<(Turn, u32)>,
    /// How many were ever listed.
    count: u64,
    tries: u64,
    /// Requests since the last that tried one.
    asks: u32,
    tried_at: Tick,
    /// Of them, long ones that came when it was time.
    spared: u8,
}

impl Strangers {
    pub(super) fn has(&self, turn: Turn, offer: u32) -> bool {
        self.list.contains(&(turn, offer))
    }

    /// Lists an offer behind all others that were tried as often.
    fn enter(&mut self, offer: u32, trials: u32) -> Turn {
        self.count += 1;
        let turn = (trials, self.count);
        self.list.insert((turn, offer));
        turn
    }

    fn leave(&mut self, turn: Turn, offer: u32) {
        self.list.remove(&(turn, offer));
    }

    /// Who was tried least first. Of these in turn the one that came last, so that who comes to many waits no
    /// longer than who comes alone, and the one that came first, so that no flood of others keeps it out.
    fn in_turn(&self) -> impl Iterator<Item = u32> {
        let trials = self.list.first().map_or(0, |((trials, _), _)| *trials);
        let least = ((trials, 0), 0)..((trials, u64::MAX), u32::MAX);
        let newest = self.list.range(least).next_back();
        let newest = newest.filter(|_| self.tries.is_multiple_of(2));
        newest
            .into_iter()
            .chain(&self.list)
            .map(|(_, offer)| *offer)
    }

    fn is_time(&self, now: Tick) -> bool {
        let asks = self.asks + 1;
        let has_waited = now.since(self.tried_at) >= TRIED_EVERY;
        asks >= TRIED_ONE_IN || (has_waited && asks >= TRIED_ONE_IN_AT_LEAST)
    }
}

impl Fleet {
    /// The stranger that a request should try that has just come and would go to a machine that is known.
    pub(super) fn stranger_for(&self, now: Tick, want: &Want<'_>) -> Option<u32> {
        let supply = self.supply(want.model);
        let strangers = &supply.strangers;
        if strangers.list.is_empty() || !strangers.is_time(now) || self.is_spared(want) {
            return None;
        }
        let mut looked_at = strangers.in_turn().take(INSPECTED_PER_SOURCE_MAX);
        looked_at.find(|&offer| {
            let place = self.offers.at(offer).place.expect("strangers are open");
            is_fit(want, supply.pool.at(place))
        })
    }

    /// Whether it is long, and another may soon come that is not.
    fn is_spared(&self, want: &Want<'_>) -> bool {
        let supply = self.supply(want.model);
        let is_long = |typical: Typical| want.prompt_tokens > typical.fresh_tokens();
        supply.typical.is_some_and(is_long) && supply.strangers.spared < SPARED_MAX
    }

    /// A request that has just come went to this stranger, or to a machine that is known.
    pub(super) fn note_trial(&mut self, now: Tick, want: &Want<'_>, tried: Option<u32>) {
        let is_spared = self.is_spared(want);
        let strangers = &mut self.supplies[usize::from(want.model.0)].strangers;
        let Some(offer) = tried else {
            let has_spared = is_spared && strangers.is_time(now) && !strangers.list.is_empty();
            strangers.spared += u8::from(has_spared);
            // While nobody is there to be tried, who comes next need not wait.
            strangers.asks = (strangers.asks + 1).min(TRIED_ONE_IN);
            return;
        };
        strangers.tries += 1;
        strangers.asks = 0;
        strangers.spared = 0;
        strangers.tried_at = now;
        let offer = self.offers.at_mut(offer);
        offer.trials = offer.trials.saturating_add(1);
    }

    /// What is thought of a machine has changed.
    pub(super) fn list_strangers(&mut self, slot: u32) {
        let is_stranger = self.providers.at(slot).is_stranger();
        for at in 0..self.providers.at(slot).offers.len() {
            let ix = self.providers.at(slot).offers[at];
            let is_open = self.offers.at(ix).place.is_some();
            self.list_stranger(ix, is_open && is_stranger);
        }
    }

    /// Puts an offer on the list of strangers, or takes it off.
    pub(super) fn list_stranger(&mut self, ix: u32, is_stranger: bool) {
        let offer = self.offers.at_mut(ix);
        let strangers = &mut self.supplies[usize::from(offer.model.0)].strangers;
        match (offer.stranger_at, is_stranger) {
            (None, true) => offer.stranger_at = Some(strangers.enter(ix, offer.trials)),
            (Some(turn), false) => {
                offer.stranger_at = None;
                strangers.leave(turn, ix);
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_after_some_requests_or_after_a_while_where_few_ask() {
        let mut strangers = Strangers::default();
        let late = Tick::ZERO + TRIED_EVERY;
        for asks in 0..20 {
            strangers.asks = asks;
            assert_eq!(strangers.is_time(Tick::ZERO), asks + 1 >= TRIED_ONE_IN);
            assert_eq!(strangers.is_time(late), asks + 1 >= TRIED_ONE_IN_AT_LEAST);
        }
    }
}
