//! Debits and credits: what was sent to an offer and has not come back.

use serde::{Deserialize, Serialize};

use super::Fleet;
use super::gate::Gate;
use crate::time::{Span, Tick};

/// How long a first refusal is believed at least; each further one in a row doubles it.
const REFUSED_WAIT: Span = Span::secs(1);
const REFUSED_WAIT_MAX: Span = Span::secs(60);
const REFUSALS_COUNTED_MAX: u8 = 6;

/// Size of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) prompt_tokens: u32,
    /// Of these, what the machine has not read before, as far as is known.
    pub(crate) fresh_tokens: u32,
    pub(crate) need_tokens: u64,
}

impl Load {
    /// The bound of the answer.
    pub(crate) fn output_tokens(self) -> u32 {
        let output = self
            .need_tokens
            .saturating_sub(u64::from(self.prompt_tokens));
        u32::try_from(output).unwrap_or(u32::MAX)
    }
}

impl Fleet {
    /// Debits one attempt (INV-08: never beyond what is believed to be there).
    pub(crate) fn reserve(&mut self, now: Tick, ix: u32, load: Load) {
        self.last_sent = ix;
        let offer = self.offers.at_mut(ix);
        assert!(
            offer.gate.is_open() || offer.gate == Gate::BARRED,
            "work goes to open offers, or to the last resort"
        );
        assert!(
            offer.fits(load.need_tokens),
            "a reservation fits the believed budget"
        );
        offer.pending += 1;
        offer.sent_at = now;
        offer.reserved_tokens += load.need_tokens;
        offer.prefill_tokens += u64::from(load.fresh_tokens);
        let provider = offer.provider;
        let provider = self.providers.at_mut(provider);
        provider.pending += 1;
        if provider.pending > 1 {
            provider.crowded_at = now;
        }
    }

    /// The provider counts this attempt in its reports from now on.
    pub(crate) fn accepted(&mut self, ix: u32, load: Load) {
        let offer = self.offers.at_mut(ix);
        offer.refusals = 0;
        offer.accepted += 1;
        offer.accepted_tokens += load.need_tokens;
    }

    /// First content came: the prompt is no longer ahead of anybody.
    pub(crate) fn prefilled(&mut self, ix: u32, load: Load) {
        self.offers.at_mut(ix).prefill_tokens -= u64::from(load.fresh_tokens);
    }

    /// Credits one attempt back. What the engine may still run (`lingers`) stays visible as load
    /// until the next report.
    pub(crate) fn release(
        &mut self,
        ix: u32,
        load: Load,
        was_accepted: bool,
        was_started: bool,
        lingers: bool,
    ) {
        let offer = self.offers.at_mut(ix);
        offer.pending -= 1;
        offer.reserved_tokens -= load.need_tokens;
        if was_accepted {
            offer.accepted -= 1;
            offer.accepted_tokens -= load.need_tokens;
        }
        if !was_started {
            offer.prefill_tokens -= u64::from(load.fresh_tokens);
        }
        if lingers {
            offer.linger(load.need_tokens);
        }
        let provider = offer.provider;
        self.providers.at_mut(provider).pending -= 1;
    }

    /// Believed full until its next report. Who refuses again and again, whatever its reports say,
    /// is asked ever more rarely.
    pub(crate) fn refused(&mut self, now: Tick, ix: u32) {
        let offer = self.offers.at_mut(ix);
        // While a refusal is believed nothing is sent: this was under way before it, and neither says
        // anything new nor moves the end of what is believed.
        if offer.has_refused && now < offer.refused_until {
            return;
        }
        let wait = REFUSED_WAIT.0 << offer.refusals.min(REFUSALS_COUNTED_MAX);
        offer.has_refused = true;
        offer.refused_until = now + Span(wait.min(REFUSED_WAIT_MAX.0));
        offer.refusals = offer.refusals.saturating_add(1);
    }
}
