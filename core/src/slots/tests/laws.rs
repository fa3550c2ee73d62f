//! Random lives.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    After(u64),
    Ask(u128, u16),
    CacheGrows(u64),
    Dies(u16),
    End(u128),
    LoadAsked(u16, Eviction),
    LoadEnds(Option<LoadFault>),
    Others(u64),
    Reserves(u64),
    RestBegan,
    RestEnded,
    Spoke(u128),
    Stale(u16),
    Steps(u16),
    Strains(u64, u32),
    UnloadEnds,
}

fn ops() -> impl Strategy<Value = Op> {
    let eviction = prop_oneof![Just(Eviction::Allowed), Just(Eviction::Forbidden)];
    let fault = prop_oneof![
        8 => Just(None),
        1 => Just(Some(LoadFault::Failed)),
        1 => Just(Some(LoadFault::Changed)),
    ];
    prop_oneof![
        3 => prop_oneof![0..2_000_u64, 4_000..20_000_u64, Just(200_000), Just(3_700_000)]
            .prop_map(Op::After),
        8 => (0..24_u128, 0..6_u16).prop_map(|(job, build)| Op::Ask(job, build)),
        1 => (0..3_u64).prop_map(Op::CacheGrows),
        1 => (0..5_u16).prop_map(Op::Dies),
        6 => (0..24_u128).prop_map(Op::End),
        2 => (0..6_u16, eviction).prop_map(|(build, eviction)| Op::LoadAsked(build, eviction)),
        6 => fault.prop_map(Op::LoadEnds),
        1 => (0..12_u64).prop_map(Op::Others),
        1 => (0..3_u64).prop_map(Op::Reserves),
        1 => Just(Op::RestBegan),
        1 => Just(Op::RestEnded),
        2 => (0..24_u128).prop_map(Op::Spoke),
        1 => (0..6_u16).prop_map(Op::Stale),
        3 => (0..5_u16).prop_map(Op::Steps),
        1 => (0..1_024_u64, prop_oneof![Just(0), Just(50_000), Just(300_000)])
            .prop_map(|(mib, ppm)| Op::Strains(mib, ppm)),
        6 => Just(Op::UnloadEnds),
    ]
}

prop_compose! {
    fn configs()(
        physical_gib in 12..80_u64,
        weights in proptest::collection::vec(1..20_u64, 5),
        pinned in proptest::option::of(0..5_usize),
        unknown in proptest::option::of(0..5_usize),
        fenced in proptest::option::of(0..5_usize),
        slots_max in 1..=3_u8,
        idle_s in prop_oneof![Just(0), Just(3_600_u64)],
        jobs_max in 1..20_u16,
    ) -> SlotsConfig {
        let mut builds: Vec<BuildSpec> = weights.into_iter().map(gib_build).collect();
        if let Some(ix) = pinned {
            builds[ix].keep = Keep::Pinned;
        }
        if let Some(ix) = unknown {
            builds[ix].kv = None;
        }
        if let Some(ix) = fenced {
            builds[ix].offer = Offer::Fenced;
        }
        SlotsConfig {
            slots_max,
            idle_wait: Span::secs(idle_s),
            jobs_max,
            ..config(physical_gib, builds)
        }
    }
}

impl World {
    fn play(&mut self, op: &Op) {
        match *op {
            Op::After(ms) => self.after(Span::millis(ms)),
            Op::Ask(job, build) => self.ask(job, build),
            Op::CacheGrows(gib) => self.cache_bytes = gib * GIB,
            Op::Dies(build) => {
                if self.in_memory.contains(&BuildIx(build)) {
                    self.dead.insert(BuildIx(build));
                }
            }
            Op::End(job) => self.end(job),
            Op::LoadAsked(build, eviction) => self.step(SlotsEvent::LoadAsked {
                build: BuildIx(build),
                eviction,
            }),
            Op::LoadEnds(fault) => self.load_ends(fault),
            Op::Others(gib) => self.foreign_bytes = gib * GIB,
            Op::Reserves(gib) => self.reserved_bytes = gib * GIB,
            Op::RestBegan => self.step(SlotsEvent::RestBegan),
            Op::RestEnded => self.step(SlotsEvent::RestEnded),
            Op::Spoke(job) => self.step(SlotsEvent::JobSpoke { job: JobId(job) }),
            // An answer that nobody asked for, as of an unload that was given up.
            Op::Stale(build) => {
                let build = BuildIx(build);
                if self.loading != Some(build) && !self.unloading.contains_key(&build) {
                    let fault = None;
                    self.step(SlotsEvent::LoadEnded { build, fault });
                    self.step(SlotsEvent::Unloaded { build });
                }
            }
            Op::Steps(build) => *self.steps.entry(BuildIx(build)).or_default() += 1,
            Op::Strains(swap_mib, ppm) => {
                self.strain = Strain {
                    swap_used_bytes: swap_mib << 20,
                    stalled_ppm: Some(ppm),
                };
            }
            Op::UnloadEnds => self.unload_ends(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// [`World::step`] holds the laws of every step: slots, loads at once, bytes, what may be
    /// evicted, one outcome for each request, and states by the table.
    #[test]
    fn a_life_breaks_no_law_and_every_request_ends_ready_or_refused(
        config in configs(),
        life in proptest::collection::vec(ops(), 1..150),
    ) {
        let mut world = World::new(config.clone());
        let mut again = World::new(config);
        for op in &life {
            world.play(op);
            again.play(op);
            prop_assert_eq!(world.slots.digest(), again.slots.digest());
            prop_assert!(world.slots.jobs_count() <= usize::from(world.slots.config().jobs_max));
        }
        // Whatever still waits does not wait for ever, even if no load ever ends.
        world.after(WAIT_MAX);
        prop_assert!(world.open.is_empty(), "{:?}", world.open);
    }

    #[test]
    fn when_loads_end_no_request_waits_any_longer(
        config in configs(),
        life in proptest::collection::vec(ops(), 1..100),
    ) {
        let mut world = World::new(config);
        for op in &life {
            world.play(op);
        }
        world.settle();
        prop_assert!(world.open.is_empty(), "{:?}", world.open);
        prop_assert!(!world.slots.is_in_transition());
    }

    /// ENG-12, with real evictions.
    #[test]
    fn what_the_heartbeat_calls_loadable_is_loaded(
        config in configs(),
        busy in proptest::collection::vec((0..5_u16, any::<bool>()), 0..4),
        wanted in 0..5_u16,
    ) {
        let mut world = World::new(SlotsConfig { jobs_max: 16, ..config });
        for (ix, (build, stays)) in busy.into_iter().enumerate() {
            let job = 100 + u128::try_from(ix).unwrap();
            world.ask(job, build);
            world.settle();
            if !stays {
                world.end(job);
            }
        }
        // A heartbeat is measured anew.
        world.after(MEASURE_EVERY);
        let weights = world.spec(BuildIx(wanted)).weights_bytes;
        let is_cold = !world.slots.state(BuildIx(wanted)).is_some_and(SlotState::is_warm);
        let is_loadable = loaded_bytes(weights) <= world.slots.max_loadable_bytes();
        world.told.clear();
        world.ask(1, wanted);
        world.settle();
        let refusal = world.told.iter().find_map(|effect| match effect {
            SlotsEffect::Refuse { why, .. } => Some(*why),
            _ => None,
        });
        let for_want_of_room = matches!(
            refusal,
            Some(Refusal::NoMemory { .. } | Refusal::SlotsBusy { .. })
        );
        let is_fenced = refusal == Some(Refusal::Fenced);
        if is_cold && !is_fenced {
            prop_assert_eq!(!is_loadable, for_want_of_room, "{:?}", refusal);
        }
    }

    #[test]
    fn grants_never_add_up_to_more_than_there_is(
        total in any::<u64>(),
        rates in proptest::collection::vec(
            proptest::option::of((0..u64::MAX, 1..u64::MAX)), 1..4),
    ) {
        let rates: Vec<Option<KvRate>> = rates
            .into_iter()
            .map(|rate| rate.map(|(bytes_per_token, context_tokens)| KvRate {
                bytes_per_token,
                context_tokens,
            }))
            .collect();
        let grants = grants::slice(total, &rates);
        let sum: u128 = grants.iter().map(|&grant| u128::from(grant)).sum();
        prop_assert_eq!(grants.len(), rates.len());
        prop_assert!(sum <= u128::from(total));
        // What rounding loses is less than a byte for each.
        prop_assert!(u128::from(total) - sum < grants.len() as u128);
    }
}
