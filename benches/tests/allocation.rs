//! After warm-up a step does not allocate: the buffers that a request used serve the next one.

use std::alloc::System;

use cereus_benches::fleet::Fleet;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What was measured of a machine moves it between the buckets of the index, and each bucket grows
/// to the most that it ever held: that takes a minute of the fleet's time.
const WARM_UP_LIVES: u32 = 3_000_000;
const LIVES: u32 = 200_000;

#[test]
fn a_million_steps_allocate_nothing() {
    let mut fleet = Fleet::of(64);
    for turn in 0..WARM_UP_LIVES {
        fleet.lifecycle();
        fleet.heartbeat(turn % 64);
    }
    let region = Region::new(GLOBAL);
    for turn in 0..LIVES {
        fleet.lifecycle();
        fleet.heartbeat(turn % 64);
    }
    let change = region.change();
    assert_eq!(change.allocations + change.reallocations, 0, "{change:?}");
    fleet.core.check();
}
