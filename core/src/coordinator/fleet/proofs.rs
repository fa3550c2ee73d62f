//! What has been proven of one connection, each thing for a time.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Fleet;
use crate::time::Tick;
use crate::traits::Traits;

/// Proofs of one connection: more kinds than there are.
pub(crate) const PROOFS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Proof {
    gives: Traits,
    until: Tick,
}

/// See the module. At most one proof of the same traits: the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Proofs(SmallVec<[Proof; 1]>);

impl Proofs {
    pub(super) fn traits(&self) -> Traits {
        let proofs = self.0.iter();
        proofs.fold(Traits::NONE, |all, proof| all.and(proof.gives))
    }

    /// `false`: there is no place for another.
    fn put(&mut self, gives: Traits, until: Tick) -> bool {
        self.0.retain(|proof| proof.gives != gives);
        if self.0.len() >= PROOFS_MAX {
            return false;
        }
        self.0.push(Proof { gives, until });
        true
    }

    /// Drops what is over by now, and says when the next is.
    fn expire(&mut self, now: Tick) -> Option<Tick> {
        self.0.retain(|proof| proof.until > now);
        self.0.iter().map(|proof| proof.until).min()
    }
}

impl Fleet {
    /// Takes a proof, in place of an older one of the same traits. `false`: there is no place for it.
    pub(crate) fn attest(&mut self, slot: u32, gives: Traits, until: Tick) -> bool {
        self.providers.at_mut(slot).proofs.put(gives, until)
    }

    /// Drops what is over by now, and says when the next is.
    pub(crate) fn expire_proofs(&mut self, now: Tick, slot: u32) -> Option<Tick> {
        self.providers.at_mut(slot).proofs.expire(now)
    }

    /// Nobody will notice when they are over: that is as if they were.
    pub(crate) fn drop_proofs(&mut self, slot: u32) {
        self.providers.at_mut(slot).proofs = Proofs::default();
    }
}
