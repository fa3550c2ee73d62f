use proptest::prelude::*;

use super::*;
use crate::config::ModelSpec;
use crate::money::Price;
use crate::wire::messages::Capacity;
use crate::wire::{Text, ToCoordinator};

fn catalog() -> Catalog {
    let spec = |id: &str| ModelSpec {
        id: id.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1,
    };
    Catalog::new(vec![spec("a"), spec("b"), spec("c")]).unwrap()
}

fn slot(model: &'static str) -> Slot<'static> {
    Slot {
        model: Text::from(model),
        state: Text::from("idle"),
        ..Slot::default()
    }
}

fn reported(slots: Vec<Slot<'_>>) -> (MachineReport, Vec<SlotReport>) {
    let heartbeat = Heartbeat {
        backend_capacity: Some(Capacity {
            slots,
            ..Capacity::default()
        }),
        ..Heartbeat::default()
    };
    let mut out = vec![];
    let report = heartbeat.to_reports(&catalog(), &[ModelIx(0), ModelIx(1)], &mut out);
    (report, out)
}

#[test]
fn slots_outside_the_inventory_are_dropped_and_the_first_of_two_wins() {
    let mut first = slot("b");
    first.num_running = 3;
    let (_, slots) = reported(vec![first, slot("c"), slot("nobody"), slot("b"), slot("a")]);
    let models: Vec<(u16, u16)> = slots.iter().map(|s| (s.model.0, s.running)).collect();
    assert_eq!(models, [(1, 3), (0, 0)]);
}

#[test]
fn every_claim_is_clamped() {
    let wild = Slot {
        num_running: -4,
        num_waiting: 1 << 40,
        max_concurrency: 1_000,
        active_token_budget_used: -1,
        active_token_budget_max: i64::MAX,
        queued_token_budget: 7,
        observed_decode_tps: 1e9,
        observed_prefill_tps: 1e9,
        model_load_time_ms: i64::MAX,
        wedge_suspected: true,
        ..slot("a")
    };
    let (_, slots) = reported(vec![wild]);
    let clamped = SlotReport {
        model: ModelIx(0),
        state: SlotState::Idle,
        running: 0,
        waiting: u16::MAX,
        concurrency_max: 24,
        budget_used: 0,
        budget_max: 10_000_000_000,
        budget_queued: 7,
        decode_mtps: 500_000,
        prefill_mtps: 20_000_000,
        load_ms: 3_600_000,
        wedged: true,
    };
    assert_eq!(slots, [clamped]);
    let tame = Slot {
        observed_decode_tps: 88.5,
        observed_prefill_tps: 19_999.9,
        ..slot("a")
    };
    let (_, slots) = reported(vec![tame]);
    assert_eq!(
        (slots[0].decode_mtps, slots[0].prefill_mtps),
        (88_500, 19_999_900)
    );
}

proptest! {
    /// A bound on what is believed must not make who is beyond it look slower.
    #[test]
    fn a_machine_that_says_more_of_its_speed_never_looks_slower(
        one in 0.0f64..60_000.0,
        two in 0.0f64..60_000.0,
        is_endless in any::<bool>(),
    ) {
        let (slower, faster) = (one.min(two), one.max(two));
        let faster = if is_endless { f64::INFINITY } else { faster };
        let believed = |tps| {
            let said = Slot { observed_decode_tps: tps, observed_prefill_tps: tps, ..slot("a") };
            let (_, slots) = reported(vec![said]);
            let register = Register { decode_tps: tps, prefill_tps: tps, ..Register::default() };
            let spec = machine_spec(&register, true);
            [slots[0].decode_mtps, slots[0].prefill_mtps, spec.decode_mtps, spec.prefill_mtps]
        };
        let pairs = believed(slower).into_iter().zip(believed(faster));
        for (of_slower, of_faster) in pairs {
            prop_assert!(of_slower <= of_faster, "{} {}", slower, faster);
        }
    }
}

#[test]
fn a_priced_token_without_a_budget_is_a_full_slot() {
    let full = Slot {
        kv_bytes_per_token: 98_304,
        ..slot("a")
    };
    let (_, slots) = reported(vec![full]);
    assert_eq!((slots[0].budget_used, slots[0].budget_max), (1, 1));
}

#[test]
fn states_fold_as_routing_names_them() {
    let table = [
        ("running", SlotState::Running),
        ("", SlotState::Running),
        ("idle", SlotState::Idle),
        ("idle_shutdown", SlotState::IdleShutdown),
        ("reloading", SlotState::Reloading),
        ("crashed", SlotState::Crashed),
        ("unheard-of", SlotState::Absent),
    ];
    for (text, state) in table {
        assert_eq!(slot_state(text), state, "{text}");
    }
}

#[test]
fn free_space_beyond_belief_is_unknown_and_zero_is_zero() {
    let bytes = |gb: f64| free_bytes(gb);
    assert_eq!(bytes(0.0), Some(0));
    assert_eq!(bytes(71.25), Some(76_504_104_960));
    for wild in [-0.5, 1_024.5, f64::NAN, f64::INFINITY] {
        assert_eq!(bytes(wild), None);
    }
}

#[test]
fn no_capacity_is_told_from_an_empty_one() {
    let mut slots = vec![];
    let legacy = Heartbeat::default().to_reports(&catalog(), &[], &mut slots);
    assert!(!legacy.has_capacity);
    assert!(reported(vec![]).0.has_capacity);
}

#[test]
fn the_sample_heartbeat_becomes_one_report() {
    let frame = br#"{"type":"heartbeat","status":"serving","active_model":"a","warm_models":["a"],
        "stats":{"requests_served":12,"tokens_generated":3400},
        "system_metrics":{"memory_pressure":0.31,"cpu_usage":0.12,"thermal_state":"fair"},
        "backend_capacity":{"slots":[{"model":"a","state":"running","num_running":1,"num_waiting":0,
        "max_concurrency":8,"active_tokens":640,"max_tokens_potential":1024,
        "observed_decode_tps":88,"active_token_budget_used":1500,"active_token_budget_max":60000,
        "kv_bytes_per_token":98304,"model_load_time_ms":2140}],"gpu_memory_active_gb":3.4,
        "gpu_memory_peak_gb":4.0,"gpu_memory_cache_gb":0.5,"total_memory_gb":96,
        "free_for_load_gb":1,"capacity_seq":9}}"#;
    let Ok(ToCoordinator::Heartbeat(heartbeat)) = ToCoordinator::decode(frame) else {
        panic!("the sample decodes");
    };
    let mut slots = vec![];
    let report = heartbeat.to_reports(&catalog(), &[ModelIx(0)], &mut slots);
    let expected = MachineReport {
        seq: 9,
        draining: false,
        thermal: Thermal::Fair,
        memory_pressure_ppm: 310_000,
        has_capacity: true,
        free_for_load_bytes: Some(1 << 30),
    };
    assert_eq!(report, expected);
    assert_eq!(
        (slots.len(), slots[0].budget_max, slots[0].load_ms),
        (1, 60_000, 2_140)
    );
}

#[test]
fn figures_that_no_decision_needs_cannot_spoil_a_report() {
    let plain = r#""model":"a","state":"idle","num_running":2"#;
    let report_of = |more: &str| {
        let frame = format!(
            r#"{{"type":"heartbeat","backend_capacity":{{"slots":[{{{plain}{more}}}],"telemetry":7}}}}"#
        );
        let Ok(ToCoordinator::Heartbeat(heartbeat)) = ToCoordinator::decode(frame.as_bytes())
        else {
            panic!("{frame} is a heartbeat");
        };
        let mut slots = vec![];
        let report = heartbeat.to_reports(&catalog(), &[ModelIx(0)], &mut slots);
        (report, slots)
    };
    let expected = report_of("");
    assert_eq!(expected.1.len(), 1);
    for more in [
        r#""prefix_cache":{"prompt_tokens":10,"cached_tokens":64}"#,
        r#""prefix_cache":{"prompt_tokens":"many","cached_tokens":-1}"#,
        r#""prefix_cache":[],"telemetry":"x","paged_storage":null,"performance_profile":[[[]]]"#,
        r#""kv_backend":"paged","kv_backend_fallback_reason":"none""#,
        r#""kv_backend":null,"eval_in_flight_ms":-9,"idle_clear_in_flight_ms":9223372036854775807"#,
    ] {
        assert_eq!(report_of(&format!(",{more}")), expected, "{more}");
    }
}

fn hit() -> UsageFrame<'static> {
    UsageFrame {
        prompt_tokens: 300,
        completion_tokens: 20,
        reasoning_tokens: 5,
        cache_outcome: Text::from("hit"),
        cache_tier: Text::from("memory"),
        cached_tokens: 256,
        prefill_tokens_saved: 256,
    }
}

#[test]
fn a_claim_of_cached_tokens_that_contradicts_itself_counts_as_none() {
    let expected = UsageParts {
        cached_tokens: 256,
        reasoning_tokens: 5,
    };
    assert_eq!(hit().parts(), expected);
    let lies: [fn(&mut UsageFrame<'_>); 9] = [
        |it| it.cached_tokens = 301,
        |it| it.cached_tokens = -1,
        |it| it.cached_tokens = 0,
        |it| it.prefill_tokens_saved = 257,
        |it| it.prefill_tokens_saved = 0,
        |it| it.cache_outcome = Text::from("miss_absent"),
        |it| it.cache_outcome = Text::default(),
        |it| it.cache_tier = Text::from("cloud"),
        |it| it.prompt_tokens = i64::MIN,
    ];
    for lie in lies {
        let mut frame = hit();
        lie(&mut frame);
        assert_eq!(frame.parts().cached_tokens, 0, "{frame:?}");
    }
    let most = UsageFrame {
        prompt_tokens: i64::MAX,
        cached_tokens: 1_000_000,
        ..hit()
    };
    assert_eq!(most.parts().cached_tokens, 1_000_000);
    let more = UsageFrame {
        cached_tokens: 1_000_001,
        ..most
    };
    assert_eq!(more.parts().cached_tokens, 0);
}

#[test]
fn thought_tokens_are_no_more_than_the_tokens_of_the_completion() {
    for (thought, told) in [(-3, 0), (20, 20), (i64::MAX, 20)] {
        let frame = UsageFrame {
            reasoning_tokens: thought,
            ..hit()
        };
        assert_eq!(frame.parts().reasoning_tokens, told);
    }
}
