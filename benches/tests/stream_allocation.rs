//! After warm-up a sealed chunk passes link and relay without an allocation.

use std::alloc::System;

use cereus_benches::stream::Stream;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_chunk_passes_link_and_relay_without_an_allocation() {
    let mut stream = Stream::new();
    for _ in 0..1_000 {
        stream.next();
    }
    let region = Region::new(GLOBAL);
    for _ in 0..20_000 {
        stream.next();
    }
    let change = region.change();
    assert_eq!(change.allocations + change.reallocations, 0, "{change:?}");
}
