//! Every term between a machine's memory and the verdict on one model, by name, in the order of
//! their computation.

use super::cap::{Load, MemoryCap, Occupancy};
use super::{
    KV_BYTES_MIN, OS_FLOOR_BYTES, above_watermark, loaded_bytes, share_floor, token_budget,
};

/// One amount on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    pub name: &'static str,
    /// How it follows from the terms above it; empty for what was measured or set.
    pub rule: &'static str,
    pub amount: Amount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Bytes(u64),
    Ppm(u32),
    Tokens(u64),
}

/// What `doctor --explain-memory` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub terms: Vec<Term>,
    pub load: Load,
}

impl Explanation {
    #[must_use]
    pub fn term(&self, name: &str) -> Option<Amount> {
        let term = self.terms.iter().find(|term| term.name == name)?;
        Some(term.amount)
    }
}

impl MemoryCap {
    /// The terms of the machine alone.
    #[must_use]
    pub fn explain_machine(&self, held: Occupancy) -> Vec<Term> {
        let policy = self.policy;
        let physical = self.physical_bytes;
        let share = share_floor(physical, u64::from(policy.fraction.ppm()));
        let term = |name, rule, bytes| Term {
            name,
            rule,
            amount: Amount::Bytes(bytes),
        };
        vec![
            term("physical", "", physical),
            Term {
                name: "fraction",
                rule: "",
                amount: Amount::Ppm(policy.fraction.ppm()),
            },
            term("share", "fraction of physical", share),
            term("os_floor", "", OS_FLOOR_BYTES),
            term(
                "hard_cap",
                "min(share, physical - os_floor)",
                self.hard_cap_bytes(),
            ),
            term("config_reserve", "", policy.reserve_bytes),
            term(
                "cap",
                "min(hard_cap, physical - config_reserve)",
                self.live_cap_bytes(),
            ),
            term("activation", "", policy.activation_bytes),
            term("prefix", "", policy.prefix_bytes),
            term("kv_min", "", KV_BYTES_MIN),
            term(
                "load_headroom",
                "activation + kv_min",
                self.load_headroom_bytes(),
            ),
            term(
                "load_reserve",
                "max(config_reserve, physical - hard_cap)",
                self.load_reserve_bytes(),
            ),
            term("available", "", held.facts.available_bytes),
            term("engine_used", "", held.facts.engine_used_bytes),
            term("reclaimable", "", held.reclaimable_bytes),
            term("outstanding", "", held.outstanding_bytes),
            term("resident", "", held.resident_bytes),
            term("evictable", "", held.evictable_bytes),
            term(
                "kv_headroom",
                "min(cap - engine_used, available) - activation",
                self.live_kv_headroom_bytes(held.facts),
            ),
            term(
                "free_for_load",
                "min(physical - engine_used, available) + reclaimable - load_reserve - outstanding",
                self.free_for_load_bytes(held),
            ),
            term(
                "admissible",
                "hard_cap - (resident - evictable) - activation - prefix - kv_min",
                self.admissible_bytes(held).unwrap_or(0),
            ),
            term(
                "max_loadable",
                "min(free_for_load - load_headroom, 1.2 * admissible)",
                self.max_loadable_bytes(held),
            ),
        ]
    }

    /// The terms of one model on it, and what loading it would come to.
    #[must_use]
    pub fn explain_model(
        &self,
        held: Occupancy,
        weights_bytes: u64,
        kv_bytes_per_token: u64,
    ) -> Explanation {
        let term = |name, rule, bytes| Term {
            name,
            rule,
            amount: Amount::Bytes(bytes),
        };
        let tokens = |name, rule, tokens| Term {
            name,
            rule,
            amount: Amount::Tokens(tokens),
        };
        let budget = self.kv_budget_bytes(weights_bytes);
        let usable = above_watermark(budget);
        let terms = vec![
            term("weights", "", weights_bytes),
            term("loaded", "1.2 * weights", loaded_bytes(weights_bytes)),
            term(
                "required",
                "loaded + load_headroom",
                self.required_for_load_bytes(weights_bytes),
            ),
            term(
                "kv_budget",
                "cap - weights - activation - prefix, with no other model",
                budget,
            ),
            term("kv_per_token", "", kv_bytes_per_token),
            tokens(
                "kv_tokens",
                "kv_budget / kv_per_token",
                token_budget(budget, kv_bytes_per_token, 0, 0),
            ),
            tokens(
                "kv_tokens_usable",
                "95 % of kv_budget / kv_per_token",
                token_budget(usable, kv_bytes_per_token, 0, 0),
            ),
        ];
        Explanation {
            terms,
            load: self.load(held, weights_bytes),
        }
    }
}
