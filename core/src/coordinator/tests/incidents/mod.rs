//! What went wrong on real networks, as scenarios: `docs/incidents.md` lists them by their numbers.

mod losses;

use super::*;

/// The next request's attempt, where one is sent.
fn sent(world: &mut World, id: u128) -> Option<(AttemptKey, ConnId)> {
    dispatched(&world.ask(id))
}
