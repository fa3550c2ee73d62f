//! The formulas behind the head of this module: from a machine's memory to what models, loads
//! and keys and values may take of it.

use super::policy::MemoryPolicy;
use super::{GIB, KV_BYTES_MIN, OS_FLOOR_BYTES, loaded_bytes, share_floor};

/// MLX keeps this much away from its own limit, and asks for no less than [`ALLOCATOR_BYTES_MIN`].
const ALLOCATOR_MARGIN_BYTES: u64 = 6 * GIB;
const ALLOCATOR_BYTES_MIN: u64 = 2 * GIB;
const CACHE_BYTES_MIN: u64 = GIB;
const CACHE_BYTES_MAX: u64 = 8 * GIB;

/// What a machine's models may take. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryCap {
    pub(super) physical_bytes: u64,
    pub(super) policy: MemoryPolicy,
}

/// What was measured at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryFacts {
    /// What the system could give to a process now.
    pub available_bytes: u64,
    /// What the engine holds: in use, and kept for reuse.
    pub engine_used_bytes: u64,
}

/// Who holds the memory, as seen by one that wants to load a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Occupancy {
    pub facts: MemoryFacts,
    /// Weights of all loaded models, by the size of their files.
    pub resident_bytes: u64,
    /// Those of them that may be evicted.
    pub evictable_bytes: u64,
    /// Engine memory that comes free when these are gone. At most what the engine uses.
    pub reclaimable_bytes: u64,
    /// Promised to requests and to a load in progress, and not given back.
    pub outstanding_bytes: u64,
}

impl Occupancy {
    /// The same with nothing evicted: what is free this instant.
    #[must_use]
    pub const fn as_it_is(self) -> Self {
        Self {
            evictable_bytes: 0,
            reclaimable_bytes: 0,
            ..self
        }
    }
}

/// What would come of loading a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Load {
    /// It fits once idle models are evicted.
    Evicts,
    Fits,
    Refused(Shortage),
}

/// Why a load was refused: `needed_bytes` is more than `free_bytes`, by this rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shortage {
    pub rule: Rule,
    pub free_bytes: u64,
    pub needed_bytes: u64,
}

/// The two rules that a load must pass. They differ by the factor of [`loaded_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// All weights, the activations and the least useful KV memory stay below the cap.
    Cap,
    /// What is free now takes the weights as they are when loaded, and the same headroom.
    Free,
}

/// What the engine's allocator is told. Both are soft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllocatorLimits {
    pub memory_bytes: u64,
    pub cache_bytes: u64,
}

impl MemoryCap {
    #[must_use]
    pub const fn new(physical_bytes: u64, policy: MemoryPolicy) -> Self {
        Self {
            physical_bytes,
            policy,
        }
    }

    #[must_use]
    pub const fn physical_bytes(&self) -> u64 {
        self.physical_bytes
    }

    #[must_use]
    pub const fn policy(&self) -> &MemoryPolicy {
        &self.policy
    }

    /// The share of the physical memory, rounded down, or less where the system needs its floor.
    #[must_use]
    pub fn hard_cap_bytes(&self) -> u64 {
        let share = share_floor(self.physical_bytes, u64::from(self.policy.fraction.ppm()));
        share.min(self.physical_bytes.saturating_sub(OS_FLOOR_BYTES))
    }

    /// The hard cap, or less where the operator keeps more for himself.
    #[must_use]
    pub fn live_cap_bytes(&self) -> u64 {
        let unreserved = self
            .physical_bytes
            .saturating_sub(self.policy.reserve_bytes);
        self.hard_cap_bytes().min(unreserved)
    }

    /// Keys and values of all models together, when weights of this size are loaded.
    #[must_use]
    pub fn kv_budget_bytes(&self, weights_bytes: u64) -> u64 {
        self.live_cap_bytes()
            .saturating_sub(weights_bytes)
            .saturating_sub(self.policy.activation_bytes)
            .saturating_sub(self.policy.prefix_bytes)
    }

    /// What keys and values could still take at this moment.
    #[must_use]
    pub fn live_kv_headroom_bytes(&self, facts: MemoryFacts) -> u64 {
        self.live_cap_bytes()
            .saturating_sub(facts.engine_used_bytes)
            .min(facts.available_bytes)
            .saturating_sub(self.policy.activation_bytes)
    }

    /// What is left of [`Self::live_kv_headroom_bytes`] when each running request has what it was
    /// promised.
    #[must_use]
    pub fn kv_available_bytes(&self, facts: MemoryFacts, outstanding_bytes: u64) -> u64 {
        self.live_kv_headroom_bytes(facts)
            .saturating_sub(outstanding_bytes)
    }

    /// Whether a model that was just loaded leaves enough to serve with.
    #[must_use]
    pub fn is_serveable(&self, facts: MemoryFacts, outstanding_bytes: u64) -> bool {
        self.kv_available_bytes(facts, outstanding_bytes) >= KV_BYTES_MIN
    }

    /// What a load leaves free beside the weights.
    #[must_use]
    pub const fn load_headroom_bytes(&self) -> u64 {
        self.policy.activation_bytes.saturating_add(KV_BYTES_MIN)
    }

    /// What a load never touches.
    #[must_use]
    pub fn load_reserve_bytes(&self) -> u64 {
        let above_cap = self.physical_bytes.saturating_sub(self.hard_cap_bytes());
        above_cap.max(self.policy.reserve_bytes)
    }

    #[must_use]
    pub const fn required_for_load_bytes(&self, weights_bytes: u64) -> u64 {
        loaded_bytes(weights_bytes).saturating_add(self.load_headroom_bytes())
    }

    /// What a load may count on, evictable models counted as gone.
    #[must_use]
    pub fn free_for_load_bytes(&self, held: Occupancy) -> u64 {
        let untaken = self
            .physical_bytes
            .saturating_sub(held.facts.engine_used_bytes)
            .min(held.facts.available_bytes);
        untaken
            .saturating_add(held.reclaimable_bytes)
            .saturating_sub(self.load_reserve_bytes())
            .saturating_sub(held.outstanding_bytes)
    }

    /// Further weights, by the size of their files, that the cap has room for.
    #[must_use]
    pub fn admissible_bytes(&self, held: Occupancy) -> Option<u64> {
        self.hard_cap_bytes()
            .checked_sub(self.charged_by_cap_bytes(held))
    }

    /// Whether the cap has room for weights of this size.
    #[must_use]
    pub fn can_admit(&self, held: Occupancy, weights_bytes: u64) -> bool {
        self.admissible_bytes(held)
            .is_some_and(|room| weights_bytes <= room)
    }

    /// The largest [`loaded_bytes`] that passes both rules: what a heartbeat reports as
    /// `free_for_load_gb`.
    #[must_use]
    pub fn max_loadable_bytes(&self, held: Occupancy) -> u64 {
        let by_free = self
            .free_for_load_bytes(held)
            .saturating_sub(self.load_headroom_bytes());
        let by_cap = self.admissible_bytes(held).map_or(0, loaded_bytes);
        by_free.min(by_cap)
    }

    /// Whether weights of this size can be loaded, and what stands in their way if not.
    #[must_use]
    pub fn load(&self, held: Occupancy, weights_bytes: u64) -> Load {
        if self.shortage(held.as_it_is(), weights_bytes).is_none() {
            return Load::Fits;
        }
        match self.shortage(held, weights_bytes) {
            Some(shortage) => Load::Refused(shortage),
            None => Load::Evicts,
        }
    }

    #[must_use]
    pub fn allocator_limits(&self) -> AllocatorLimits {
        let memory_bytes = self
            .physical_bytes
            .saturating_sub(ALLOCATOR_MARGIN_BYTES)
            .max(ALLOCATOR_BYTES_MIN);
        let cache_bytes = (memory_bytes - memory_bytes.div_ceil(4))
            .clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX)
            .min(memory_bytes);
        AllocatorLimits {
            memory_bytes,
            cache_bytes,
        }
    }

    /// The first rule that weights of this size break.
    fn shortage(&self, held: Occupancy, weights_bytes: u64) -> Option<Shortage> {
        let needed_bytes = self.required_for_load_bytes(weights_bytes);
        let free_bytes = self.free_for_load_bytes(held);
        if needed_bytes > free_bytes {
            return Some(Shortage {
                rule: Rule::Free,
                free_bytes,
                needed_bytes,
            });
        }
        if !self.can_admit(held, weights_bytes) {
            return Some(Shortage {
                rule: Rule::Cap,
                free_bytes: self.hard_cap_bytes(),
                needed_bytes: self
                    .charged_by_cap_bytes(held)
                    .saturating_add(weights_bytes),
            });
        }
        None
    }

    /// What the cap is charged with before any further model.
    fn charged_by_cap_bytes(&self, held: Occupancy) -> u64 {
        held.resident_bytes
            .saturating_sub(held.evictable_bytes)
            .saturating_add(self.policy.activation_bytes)
            .saturating_add(self.policy.prefix_bytes)
            .saturating_add(KV_BYTES_MIN)
    }
}
