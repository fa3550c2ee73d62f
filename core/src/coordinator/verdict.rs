//! Is it the request's fault or the machine's?
//!
//! The coordinator found a request valid before it sent it. A machine that then calls it wrong, or
//! answers it with nothing, may be right: it knows its model and its template. It may also lie, to
//! keep others from serving. So a second machine is asked before the consumer hears of it. When that
//! one says the same, the consumer hears it and nobody is blamed; when it serves the request, the
//! first was wrong. That counts against it when half of its consumers have seen it wrong: templates
//! differ, a sampled answer may be empty by chance, and a consumer may know how to ask for either.

use serde::{Deserialize, Serialize};

use super::Coordinator;
use super::conduct::Offence;
use crate::ids::{AccountId, MachineId};
use crate::slab::Key;
use crate::time::Tick;

/// Machines of one owner that must agree where no other owner's does.
const SAME_OWNER_AGREES: usize = 3;

/// What a machine said against a request that we found valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It cannot be served as it is, with the status to pass on.
    Client(u16),
    /// There is nothing to say.
    Empty,
    /// The same, where the consumer's own stop strings may be why.
    Stopped,
}

/// Whose verdict it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Opinion {
    pub(crate) verdict: Verdict,
    pub(crate) machine: MachineId,
    pub(crate) owner: AccountId,
    /// It had no fault on record when it said so, and had served a request since it last spoke
    /// against one: a machine that says so of everything agrees with nobody.
    pub(crate) is_credible: bool,
}

impl Verdict {
    /// Machines differ in the status of one and the same refusal.
    const fn is_like(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Client(_), Self::Client(_))
                | (Self::Empty | Self::Stopped, Self::Empty | Self::Stopped)
        )
    }
}

/// Whether the newest opinion is shared by enough machines that do not hang together.
pub(super) fn is_agreed(opinions: &[Opinion]) -> bool {
    let Some(newest) = opinions.last() else {
        return false;
    };
    let alike = |opinion: &&Opinion| opinion.is_credible && opinion.verdict.is_like(newest.verdict);
    let count = opinions.iter().filter(alike).count();
    let is_shared_by_owners = newest.is_credible
        && opinions
            .iter()
            .filter(alike)
            .any(|opinion| opinion.owner != newest.owner);
    is_shared_by_owners || count >= SAME_OWNER_AGREES
}

/// The status that machines wanted to be passed on, where any did.
pub(super) fn status(opinions: &[Opinion]) -> Option<u16> {
    opinions.iter().find_map(|opinion| match opinion.verdict {
        Verdict::Client(status) => Some(status),
        Verdict::Empty | Verdict::Stopped => None,
    })
}

impl Coordinator {
    /// The request was served after all: whoever spoke against it was wrong, and may be so by habit.
    pub(super) fn refute(&mut self, now: Tick, key: Key) {
        let consumer = self.requests.at(key).ask().account;
        for opinion in self.requests.at_mut(key).take_opinions() {
            let offence = match opinion.verdict {
                Verdict::Client(_) => Offence::LoneRefusal,
                Verdict::Empty => Offence::EmptyAnswer,
                Verdict::Stopped => continue,
            };
            let machine = opinion.machine;
            if self.fleet.answers(now, machine, consumer, true) {
                self.strike_machine(now, machine, offence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opinion(verdict: Verdict, owner: u64, is_credible: bool) -> Opinion {
        Opinion {
            verdict,
            machine: MachineId(u128::from(owner)),
            owner: AccountId(owner),
            is_credible,
        }
    }

    #[test]
    fn two_owners_agree_and_one_owner_needs_three_machines() {
        let client = |owner| opinion(Verdict::Client(400), owner, true);
        assert!(!is_agreed(&[client(1)]));
        assert!(!is_agreed(&[client(1), client(1)]));
        assert!(is_agreed(&[client(1), client(2)]));
        assert!(is_agreed(&[client(1), client(1), client(1)]));
        let other_status = opinion(Verdict::Client(422), 2, true);
        assert!(is_agreed(&[client(1), other_status]));
    }

    #[test]
    fn a_machine_with_faults_supports_nobody_and_unlike_verdicts_do_not_add_up() {
        let client = |owner, is_credible| opinion(Verdict::Client(400), owner, is_credible);
        assert!(!is_agreed(&[client(1, true), client(2, false)]));
        assert!(!is_agreed(&[client(1, false), client(2, true)]));
        let empty = opinion(Verdict::Empty, 2, true);
        assert!(!is_agreed(&[client(1, true), empty]));
    }
}
