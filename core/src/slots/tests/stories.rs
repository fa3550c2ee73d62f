//! One law each, told as it happens.

use super::*;

fn refused(why: Refusal) -> SlotsEffect {
    SlotsEffect::Refuse { job: JobId(1), why }
}

fn ready(build: u16) -> SlotsEffect {
    SlotsEffect::Ready {
        job: JobId(1),
        build: BuildIx(build),
    }
}

#[test]
fn a_fenced_model_is_neither_loaded_nor_asked() {
    let fenced = BuildSpec {
        offer: Offer::Fenced,
        ..gib_build(1)
    };
    let mut world = World::new(config(64, vec![fenced]));
    world.ask(1, 0);
    assert_eq!(world.heard(), [refused(Refusal::Fenced)]);
    let (build, eviction) = (BuildIx(0), Eviction::Allowed);
    world.step(SlotsEvent::LoadAsked { build, eviction });
    let why = Refusal::Fenced;
    assert_eq!(world.heard(), [SlotsEffect::LoadRefused { build, why }]);
    assert_eq!(world.state(0), None);
}

#[test]
fn a_request_for_a_cold_model_waits_for_it_and_then_runs() {
    let mut world = World::new(config(64, vec![gib_build(10)]));
    world.ask(1, 0);
    // 57.6 - 10 - 3 GiB.
    let grant_bytes = 61_847_529_062 - 13 * GIB;
    let build = BuildIx(0);
    assert_eq!(
        world.heard(),
        [SlotsEffect::BeginLoad { build, grant_bytes }]
    );
    assert_eq!(world.state(0), Some("reloading"));
    world.now = world.now + Span::secs(7);
    world.load_ends(None);
    let loaded = SlotsEffect::Loaded { build };
    assert_eq!(
        world.heard(),
        [SlotsEffect::ClearBufferCache, loaded, ready(0)]
    );
    assert_eq!(world.state(0), Some("running"));
    let view = world.slots.views(world.now).next().unwrap();
    assert_eq!(view.load_time, Span::secs(7));
    world.end(1);
    assert_eq!(world.state(0), Some("idle"));
}

#[test]
fn the_least_recently_used_idle_model_goes_for_a_fourth() {
    let mut world = World::new(config(64, vec![gib_build(2); 4]));
    for build in 0..3 {
        world.now = world.now + Span::secs(1);
        world.loaded(build);
    }
    world.now = world.now + Span::secs(1);
    world.ask(7, 0);
    world.end(7);
    world.told.clear();
    world.ask(1, 3);
    // 0 was used again, so 1 is the oldest.
    let unload = SlotsEffect::BeginUnload {
        build: BuildIx(1),
        leave: Leave::Idle,
    };
    assert_eq!(world.heard(), [unload]);
    assert_eq!(world.state(1), Some("idle_shutdown"));
    world.settle();
    assert_eq!(world.heard().last(), Some(&ready(3)));
    assert_eq!(world.slots.counts().evictions, 1);
}

#[test]
fn three_models_at_work_leave_no_slot_and_the_refusal_says_so() {
    let mut world = World::new(config(64, vec![gib_build(2); 4]));
    for build in 0..3 {
        world.ask(u128::from(build) + 10, build);
        world.settle();
    }
    assert_eq!(world.slots.max_loadable_bytes(), 0);
    world.told.clear();
    world.ask(1, 3);
    let why = Refusal::SlotsBusy { slots: 3 };
    assert_eq!(world.heard(), [refused(why)]);
    assert_eq!(why.to_string(), "all 3 model slot(s) are active");
}

#[test]
fn nothing_is_evicted_when_that_would_not_be_enough() {
    let mut world = World::new(config(32, vec![gib_build(5), gib_build(40)]));
    world.loaded(0);
    world.ask(1, 1);
    let shortage = Shortage {
        rule: Rule::Free,
        // 32 - 1 of others - 4 of reserve; 40 * 1.2 + 4.
        free_bytes: 27 * GIB,
        needed_bytes: 52 * GIB,
    };
    let why = Refusal::NoMemory {
        shortage,
        others: Others::Serving,
    };
    // The library gives back what it keeps before the request is refused.
    assert_eq!(world.heard(), [SlotsEffect::ClearBufferCache, refused(why)]);
    assert_eq!(
        why.to_string(),
        "insufficient memory (27.0 GB free, need 52.0 GB) and all loaded models are actively serving"
    );
    assert_eq!(world.state(0), Some("idle"));
}

#[test]
fn what_the_library_keeps_is_cleared_before_a_load_is_given_up() {
    let mut world = World::new(config(32, vec![gib_build(15), gib_build(6)]));
    world.cache_bytes = 10 * GIB;
    world.ask(1, 0);
    world.settle();
    let told = world.heard();
    assert_eq!(told.first(), Some(&SlotsEffect::ClearBufferCache));
    assert_eq!(told.last(), Some(&ready(0)));
}

#[test]
fn a_start_loads_what_fits_beside_the_others_and_evicts_nothing() {
    let mut world = World::new(config(32, vec![gib_build(11), gib_build(11)]));
    world.loaded(0);
    let build = BuildIx(1);
    let eviction = Eviction::Forbidden;
    world.step(SlotsEvent::LoadAsked { build, eviction });
    let told = world.heard();
    let Some(SlotsEffect::LoadRefused { why, .. }) = told.last() else {
        panic!("{told:?}");
    };
    assert!(
        why.to_string()
            .ends_with("beside the models that are loaded"),
        "{why}"
    );
    assert_eq!(world.state(0), Some("idle"));
    world.ask(1, 1);
    world.settle();
    assert_eq!(world.heard().last(), Some(&ready(1)));
}

#[test]
fn a_model_that_leaves_no_headroom_is_dropped_again() {
    let mut world = World::new(config(16, vec![gib_build(5)]));
    world.ask(1, 0);
    // While it loads, another program takes 6 GiB.
    world.foreign_bytes = 7 * GIB;
    world.load_ends(None);
    let unload = SlotsEffect::BeginUnload {
        build: BuildIx(0),
        leave: Leave::Idle,
    };
    let told = world.heard();
    assert_eq!(told.last(), Some(&unload));
    world.unload_ends();
    // 16 - 7 - 5.5 - 3.
    let headroom_bytes = GIB / 2;
    let told = world.heard();
    let [SlotsEffect::Refuse { why, .. }] = told[..] else {
        panic!("{told:?}");
    };
    let Refusal::NoHeadroom {
        headroom_bytes: said,
    } = why
    else {
        panic!("{why:?}");
    };
    assert!(said.abs_diff(headroom_bytes) < 1_024);
    assert!(
        why.to_string()
            .starts_with("loaded but has insufficient KV headroom")
    );
    assert_eq!(world.state(0), None);
}

#[test]
fn a_load_that_fails_is_told_to_the_order_and_to_the_request() {
    let mut world = World::new(config(64, vec![gib_build(10)]));
    let build = BuildIx(0);
    let eviction = Eviction::Allowed;
    world.step(SlotsEvent::LoadAsked { build, eviction });
    world.ask(1, 0);
    world.told.clear();
    world.load_ends(Some(LoadFault::Failed));
    let why = Refusal::Fault(LoadFault::Failed);
    assert_eq!(
        world.heard(),
        [refused(why), SlotsEffect::LoadRefused { build, why }]
    );
    assert_eq!(world.state(0), None);
    world.loaded(0);
}

#[test]
fn an_unused_model_leaves_after_an_hour_and_a_pinned_one_never() {
    let pinned = BuildSpec {
        keep: Keep::Pinned,
        ..gib_build(2)
    };
    let mut world = World::new(config(64, vec![gib_build(2), pinned]));
    world.loaded(0);
    world.loaded(1);
    world.after(Span(IDLE_WAIT.0 - 1));
    assert_eq!(world.heard(), []);
    world.after(Span(1));
    let unload = SlotsEffect::BeginUnload {
        build: BuildIx(0),
        leave: Leave::Idle,
    };
    assert_eq!(world.heard(), [unload]);
    world.unload_ends();
    assert_eq!(world.state(0), Some("idle_shutdown"));
    assert_eq!(world.state(1), Some("idle"));
    world.after(IDLE_WAIT);
    assert_eq!(world.state(1), Some("idle"));
}

#[test]
fn a_model_is_never_unloaded_for_want_of_use_when_the_wait_is_zero() {
    let idle_wait = Span::ZERO;
    let mut world = World::new(SlotsConfig {
        idle_wait,
        ..config(64, vec![gib_build(2)])
    });
    world.loaded(0);
    world.after(Span::secs(1_000_000));
    assert_eq!(world.state(0), Some("idle"));
}

#[test]
fn grants_follow_the_cost_of_a_context_and_grow_back() {
    let with_context = |context_tokens| BuildSpec {
        kv: Some(KvRate {
            bytes_per_token: 1_024,
            context_tokens,
        }),
        ..gib_build(2)
    };
    // Beyond 131 072 tokens of context a model gets no more.
    let builds = vec![with_context(32_768), with_context(1_048_576)];
    let mut world = World::new(config(64, builds));
    world.loaded(0);
    let whole = 61_847_529_062 - 5 * GIB;
    assert_eq!(world.grants[&BuildIx(0)], whole);
    world.ask(1, 1);
    let shared = whole - 2 * GIB;
    let [first, second] = [shared / 5, shared * 4 / 5];
    let build = BuildIx(0);
    // The one that serves shrinks before the other begins to load.
    let expected = [
        SlotsEffect::SetGrant {
            build,
            bytes: first,
        },
        SlotsEffect::BeginLoad {
            build: BuildIx(1),
            grant_bytes: second,
        },
    ];
    assert_eq!(world.heard(), expected);
    world.load_ends(Some(LoadFault::Failed));
    assert_eq!(world.grants[&build], whole);
}

#[test]
fn a_load_that_would_starve_a_model_of_grants_is_refused() {
    let small = BuildSpec {
        kv: Some(KvRate {
            bytes_per_token: 1_024,
            context_tokens: 1_024,
        }),
        ..gib_build(2)
    };
    let mut world = World::new(config(64, vec![small, gib_build(2)]));
    world.ask(9, 0);
    world.settle();
    world.told.clear();
    world.ask(1, 1);
    let told = world.heard();
    let [SlotsEffect::Refuse { why, .. }] = told[..] else {
        panic!("{told:?}");
    };
    assert!(matches!(why, Refusal::GrantTooSmall { grant_bytes } if grant_bytes < GIB));
    // Once it is idle it goes instead.
    world.end(9);
    world.ask(1, 1);
    world.settle();
    assert_eq!(world.heard().last(), Some(&ready(1)));
    assert_eq!(world.state(0), Some("idle_shutdown"));
}

#[test]
fn a_suspect_engine_is_shown_as_crashed_and_may_go_on_after_all() {
    let mut world = World::new(config(64, vec![gib_build(2)]));
    world.loaded(0);
    for job in 10..13 {
        world.ask(job, 0);
    }
    world.after(Span(WEDGE_WAIT.0 - 1));
    assert_eq!(world.state(0), Some("running"));
    world.after(MEASURE_EVERY);
    assert_eq!(world.state(0), Some("crashed"));
    assert!(world.slots.views(world.now).next().unwrap().is_suspect);
    world.told.clear();
    world.ask(1, 0);
    assert_eq!(world.heard(), [refused(Refusal::Stuck)]);
    world.steps.insert(BuildIx(0), 1);
    world.after(MEASURE_EVERY);
    assert_eq!(world.state(0), Some("running"));
}

#[test]
fn two_silent_requests_or_one_that_spoke_are_no_wedge() {
    let mut world = World::new(config(64, vec![gib_build(2)]));
    world.loaded(0);
    for job in 10..13 {
        world.ask(job, 0);
    }
    world.step(SlotsEvent::JobSpoke { job: JobId(10) });
    world.after(Span::secs(60));
    assert_eq!(world.state(0), Some("running"));
}

#[test]
fn a_wedged_engine_is_abandoned_and_its_model_loaded_anew() {
    let mut world = World::new(config(64, vec![gib_build(2)]));
    world.loaded(0);
    for job in 10..13 {
        world.ask(job, 0);
    }
    world.after(Span::secs(15));
    world.told.clear();
    world.after(RECOVERY_WAIT);
    let unload = SlotsEffect::BeginUnload {
        build: BuildIx(0),
        leave: Leave::Abandoned,
    };
    let told = world.heard();
    assert_eq!(told.first(), Some(&unload));
    assert_eq!(told.len(), 4, "each of the three requests is ended");
    assert_eq!(world.state(0), Some("reloading"));
    world.settle();
    assert_eq!(world.state(0), Some("idle"));
}

#[test]
fn an_engine_that_dies_at_once_again_stays_cold_until_somebody_asks() {
    let mut world = World::new(config(64, vec![gib_build(2)]));
    world.loaded(0);
    world.dead.insert(BuildIx(0));
    world.after(MEASURE_EVERY);
    world.settle();
    assert_eq!(world.state(0), Some("idle"), "the first time it comes back");
    world.dead.insert(BuildIx(0));
    world.after(MEASURE_EVERY);
    world.settle();
    assert_eq!(world.state(0), None);
    world.loaded(0);
}

#[test]
fn an_unload_that_never_ends_keeps_its_slot_and_the_others_go_on() {
    let mut world = World::new(SlotsConfig {
        slots_max: 2,
        ..config(64, vec![gib_build(2); 3])
    });
    world.loaded(0);
    world.loaded(1);
    world.dead.insert(BuildIx(0));
    world.after(MEASURE_EVERY);
    world.ask(1, 0);
    world.told.clear();
    world.after(UNLOAD_WAIT_MAX);
    assert_eq!(world.heard(), [refused(Refusal::Stuck)]);
    assert_eq!(world.state(0), Some("reloading"));
    world.ask(2, 2);
    assert_eq!(world.state(1), Some("idle_shutdown"));
    let stuck = world.unloading.pop_first();
    world.settle();
    assert_eq!(world.state(2), Some("running"));
    world.unloading.extend(stuck);
    world.unload_ends();
    assert_eq!(world.state(0), None);
}

#[test]
fn a_machine_that_swaps_takes_nothing_more_until_it_is_calm() {
    let mut world = World::new(config(64, vec![gib_build(2); 2]));
    world.loaded(0);
    let whole = world.grants[&BuildIx(0)];
    world.strain.swap_used_bytes = 256 << 20;
    world.after(MEASURE_EVERY);
    assert_eq!(world.grants[&BuildIx(0)], whole / 2);
    assert_eq!(world.slots.max_loadable_bytes(), 0);
    world.told.clear();
    world.ask(1, 0);
    assert_eq!(world.heard(), [refused(Refusal::Pressed)]);
    // Still growing after a window: halved again.
    world.strain.swap_used_bytes = 512 << 20;
    world.after(Span::secs(60));
    assert_eq!(world.grants[&BuildIx(0)], whole / 4);
    // Stalls between the two limits keep it waiting.
    world.strain.stalled_ppm = Some(50_000);
    world.after(Span::secs(30));
    assert!(world.slots.is_pressed());
    world.strain.stalled_ppm = Some(9_999);
    world.after(Span::secs(29));
    assert!(world.slots.is_pressed());
    world.after(MEASURE_EVERY);
    assert!(!world.slots.is_pressed());
    assert_eq!(world.grants[&BuildIx(0)], whole);
    world.told.clear();
    world.ask(1, 0);
    assert_eq!(world.heard(), [ready(0)]);
}

#[test]
fn swap_that_was_always_there_or_grows_slowly_is_no_pressure() {
    let mut world = World::new(config(64, vec![gib_build(2)]));
    world.strain.swap_used_bytes = 1 << 40;
    world.after(MEASURE_EVERY);
    assert!(
        world.slots.is_pressed(),
        "it grew by as much since the first look"
    );
    let mut world = World::new(config(64, vec![gib_build(2)]));
    for _ in 0..100 {
        world.strain.swap_used_bytes += 100 << 20;
        world.after(Span::secs(60));
        assert!(!world.slots.is_pressed());
    }
}

#[test]
fn a_load_that_nobody_waits_for_any_more_does_not_begin() {
    let mut world = World::new(config(64, vec![gib_build(2); 2]));
    world.ask(1, 0);
    world.ask(2, 1);
    world.end(2);
    world.settle();
    assert_eq!(world.slots.counts().loads, 1);
    assert_eq!(world.state(1), None);
}

#[test]
fn every_wake_reason_can_fire_and_is_done_with() {
    for reason in SlotsWake::ALL {
        let mut world = World::new(config(64, vec![gib_build(2); 2]));
        match reason {
            SlotsWake::IdleDue => world.loaded(0),
            SlotsWake::MeasureDue => {}
            SlotsWake::UnloadOverdue => {
                world.loaded(0);
                // Off the beat of the measuring, whose wake would serve both.
                world.after(Span(IDLE_WAIT.0 - 2));
                world.after(Span(2));
            }
            SlotsWake::WaitOverdue => {
                world.now = world.now + Span(1);
                world.ask(1, 0);
            }
        }
        let mut seen = false;
        for _ in 0..2_000 {
            let (at, why) = world.slots.next_wake();
            assert!(at >= world.now, "{why:?} was due and is still there");
            seen |= why == reason;
            world.now = at;
            world.step(SlotsEvent::Woke);
        }
        assert!(seen, "{reason:?}");
    }
}

#[test]
fn the_table_of_states_has_these_lines_and_no_others() {
    let states = || SlotState::ALL.into_iter().map(Some).chain([None]);
    let word = |state: Option<SlotState>| state.map_or("none", SlotState::as_str);
    let mut lines = BTreeSet::new();
    for from in states() {
        for to in states() {
            if state::may_follow(from, to) {
                lines.insert(format!("{} {}", word(from), word(to)));
            }
        }
    }
    let expected = [
        "none reloading",
        "reloading idle",
        "idle running",
        "running idle",
        "idle idle_shutdown",
        "idle_shutdown reloading",
        "running crashed",
        "crashed reloading",
        // Left open by the table.
        "reloading none",
        "idle crashed",
        "crashed running",
        "crashed idle",
    ];
    assert_eq!(lines, expected.map(str::to_owned).into());
}

#[test]
fn a_resting_machine_keeps_what_runs_until_it_ends_and_nothing_else() {
    let idle_wait = Span::ZERO;
    let mut world = World::new(SlotsConfig {
        idle_wait,
        ..config(64, vec![gib_build(2), gib_build(2)])
    });
    world.loaded(0);
    world.loaded(1);
    world.ask(1, 0);
    world.told.clear();
    world.step(SlotsEvent::RestBegan);
    let unload = |build| SlotsEffect::BeginUnload {
        build: BuildIx(build),
        leave: Leave::Idle,
    };
    assert_eq!(world.heard(), [unload(1)]);
    world.unload_ends();
    assert_eq!(world.state(0), Some("running"));
    world.told.clear();
    world.end(1);
    assert_eq!(world.heard(), [unload(0)]);
    world.unload_ends();
    world.step(SlotsEvent::RestEnded);
    world.loaded(0);
    world.after(Span::secs(1_000_000));
    assert_eq!(world.state(0), Some("idle"));
}

#[test]
fn a_request_is_accepted_before_its_load_and_never_before_it_is_known_that_there_is_room() {
    let accepted = |world: &mut World| {
        let told = core::mem::take(&mut world.told);
        let of = |effect| match effect {
            SlotsEffect::Accept { job } => Some(job.0),
            SlotsEffect::BeginLoad { .. } => Some(0),
            _ => None,
        };
        told.into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let mut world = World::new(config(16, vec![gib_build(5), gib_build(6), gib_build(5)]));
    world.ask(1, 0);
    assert_eq!(accepted(&mut world), [0, 1], "said while the load goes on");
    world.ask(2, 0);
    assert_eq!(accepted(&mut world), [2], "for the same load");
    world.ask(3, 2);
    assert_eq!(accepted(&mut world), [3], "in the queue");
    world.load_ends(None);
    world.told.clear();
    // Both others are too large beside a model that serves.
    world.ask(4, 1);
    assert_eq!(accepted(&mut world), []);
    assert!(!world.open.contains_key(&JobId(4)), "and refused at once");
    world.ask(5, 0);
    assert_eq!(accepted(&mut world), [5], "its model is in memory");
}
