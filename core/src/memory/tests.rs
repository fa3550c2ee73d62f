use proptest::prelude::*;

use super::*;

fn reference(physical_gib: u64) -> MemoryCap {
    MemoryCap::new(physical_gib * GIB, MemoryPolicy::reference())
}

/// With another activation reserve, in halves of a GiB.
fn with_activation(physical_gib: u64, half_gib: u64) -> MemoryCap {
    let policy = MemoryPolicy {
        activation_bytes: half_gib * GIB / 2,
        ..MemoryPolicy::reference()
    };
    MemoryCap::new(physical_gib * GIB, policy)
}

/// A machine on which nothing runs.
fn untouched(cap: &MemoryCap) -> Occupancy {
    Occupancy {
        facts: MemoryFacts {
            available_bytes: cap.physical_bytes(),
            engine_used_bytes: 0,
        },
        ..Occupancy::default()
    }
}

/// Thousandths of a GiB, to the nearest.
fn thousandths(bytes: u64) -> u64 {
    (bytes * 1_000 + GIB / 2) / GIB
}

#[test]
fn weights_take_in_memory_what_is_published() {
    let published = [
        (5_000, 5_588),
        (13_000, 14_529),
        (20_000, 22_352),
        (93_700, 104_718),
    ];
    for (megabytes, expected) in published {
        assert_eq!(thousandths(loaded_bytes(megabytes * 1_000_000)), expected);
    }
}

/// The published sum takes the padded weights off, and nothing for the operator. What a machine grants
/// counts the weights as they are, once they are in: it is never less.
#[test]
fn the_tokens_of_a_machine_that_has_still_to_load_are_as_published() {
    let published = [
        (24, 12, 6, 13_928),
        (32, 12, 11, 26_545),
        (64, 12, 11, 103_854),
        (128, 60, 11, 114_471),
    ];
    for (physical_gib, weights_gb, half_gib, tokens) in published {
        let policy = MemoryPolicy {
            activation_bytes: half_gib * GIB / 2,
            reserve_bytes: 0,
            ..MemoryPolicy::reference()
        };
        let cap = MemoryCap::new(physical_gib * GIB, policy);
        let weights_bytes = weights_gb * 1_000_000_000;
        let per_token = 400_000;
        let of = |weights| token_budget(cap.kv_budget_bytes(weights), per_token, 0, 0);
        // The published factor has four decimals: 134 tokens in a thousand gigabytes.
        let rounding = 1 + weights_gb * 134 / 1_000;
        assert!(of(loaded_bytes(weights_bytes)).abs_diff(tokens) <= rounding);
        assert!(of(weights_bytes) > tokens);
    }
}

#[test]
fn a_grant_holds_as_many_tokens_as_published_for_its_size() {
    for (tokens, expected) in [(500, 186), (8_192, 3_052), (32_768, 12_207)] {
        let grant_bytes = tokens * 400_000;
        assert_eq!(thousandths(grant_bytes), expected);
        assert_eq!(token_budget(grant_bytes, 400_000, 0, 0), tokens);
        assert_eq!(token_budget(grant_bytes - 1, 400_000, 0, 0), tokens - 1);
    }
}

/// Tenths of a GiB, to the nearest.
fn tenths(bytes: u64) -> u64 {
    (bytes * 10 + GIB / 2) / GIB
}

/// ENG-18.
#[test]
fn the_hard_cap_follows_the_published_table() {
    let table = [
        (8, 60),
        (16, 140),
        (24, 216),
        (32, 288),
        (64, 576),
        (128, 1_152),
    ];
    for (physical_gib, expected) in table {
        assert_eq!(tenths(reference(physical_gib).hard_cap_bytes()), expected);
    }
    // Below 20 GiB the system's floor binds, and there the amounts are whole.
    assert_eq!(reference(16).hard_cap_bytes(), 14 * GIB);
    assert_eq!(reference(20).hard_cap_bytes(), 18 * GIB);
    // 21.6 GiB is no whole number of bytes: rounded down.
    assert_eq!(reference(24).hard_cap_bytes(), 23_192_823_398);
    for physical_gib in [0, 1, 2] {
        assert_eq!(reference(physical_gib).hard_cap_bytes(), 0);
    }
}

/// ENG-18.
#[test]
fn a_machine_of_64_gib_has_1_89_million_tokens_for_gpt_oss_20b() {
    let cap = reference(64);
    let budget = cap.kv_budget_bytes(12_100_000_000);
    // 61 847 529 062 (57.6 GiB, rounded down) - 12 100 000 000 - 3 221 225 472.
    assert_eq!(budget, 46_526_303_590);
    assert_eq!(tenths(budget), 433);
    // The quotient is 1 893 160.04; rounded down.
    assert_eq!(token_budget(budget, 24_576, 0, 0), 1_893_160);
    // The watermark of 2 326 315 179.5 bytes is rounded up.
    assert_eq!(above_watermark(budget), 44_199_988_410);
    assert_eq!(
        token_budget(above_watermark(budget), 24_576, 0, 0),
        1_798_502
    );
}

/// ENG-19.
#[test]
fn on_16_gib_the_two_rules_differ_by_the_factor_of_a_fifth() {
    let cap = reference(16);
    let held = untouched(&cap);
    assert_eq!(cap.admissible_bytes(held), Some(10 * GIB));
    assert!(cap.can_admit(held, 10 * GIB));
    assert!(!cap.can_admit(held, 10 * GIB + 1));
    assert_eq!(cap.free_for_load_bytes(held), 12 * GIB);
    // (12 - 4) / 1.2 GiB = 6.67 GiB, rounded down.
    let largest = 8 * GIB * 5 / 6;
    assert_eq!(cap.load(held, largest), Load::Fits);
    let shortage = Shortage {
        rule: Rule::Free,
        free_bytes: 12 * GIB,
        needed_bytes: 12 * GIB + 1,
    };
    assert_eq!(cap.load(held, largest + 1), Load::Refused(shortage));
}

#[test]
fn required_memory_and_the_smallest_mac_follow_the_published_table() {
    // Weights in tenths of 10^9 bytes, required memory in tenths of a GiB, the smallest Mac.
    let published = [
        (121, 7, 180, 24),
        (156, 11, 239, 32),
        (183, 11, 270, 32),
        (209, 11, 299, 36),
        (213, 11, 303, 36),
        (280, 11, 378, 48),
    ];
    const MACS_GIB: [u64; 8] = [8, 16, 18, 24, 32, 36, 48, 64];
    for (weights, half_gib, required, mac_gib) in published {
        let weights_bytes = weights * 100_000_000;
        let cap = with_activation(64, half_gib);
        assert_eq!(tenths(cap.required_for_load_bytes(weights_bytes)), required);
        let smallest = MACS_GIB.into_iter().find(|&gib| {
            let cap = with_activation(gib, half_gib);
            cap.load(untouched(&cap), weights_bytes) == Load::Fits
        });
        assert_eq!(smallest, Some(mac_gib), "{weights}");
    }
    for (weights, required) in [(121, 175), (156, 214), (183, 245)] {
        let cap = reference(64);
        let bytes = cap.required_for_load_bytes(weights * 100_000_000);
        assert_eq!(tenths(bytes), required);
    }
}

#[test]
fn the_allocator_is_told_limits_that_leave_the_system_its_part() {
    let table = [
        (4, 2 * GIB, 3 * GIB / 2),
        (8, 2 * GIB, 3 * GIB / 2),
        (16, 10 * GIB, 15 * GIB / 2),
        (64, 58 * GIB, 8 * GIB),
    ];
    for (physical_gib, memory_bytes, cache_bytes) in table {
        let limits = AllocatorLimits {
            memory_bytes,
            cache_bytes,
        };
        assert_eq!(reference(physical_gib).allocator_limits(), limits);
    }
}

#[test]
fn a_cap_fraction_is_read_as_the_environment_has_it() {
    let ppm = |text| CapFraction::parse(text).map(CapFraction::ppm);
    let table = [
        ("0.9", Some(900_000)),
        (" 0.85 ", Some(850_000)),
        ("1", Some(1_000_000)),
        ("1.5", Some(1_000_000)),
        ("5e-1", Some(500_000)),
        ("1e-9", Some(1)),
        ("0", None),
        ("-0.5", None),
        ("NaN", None),
        ("inf", None),
        ("", None),
        ("a lot", None),
        ("0,9", None),
    ];
    for (text, expected) in table {
        assert_eq!(ppm(text), expected, "`{text}`");
    }
    assert_eq!(activation_bytes_of("5.5"), Some(11 * GIB / 2));
    for text in ["0", "-1", "inf", "nan", "x"] {
        assert_eq!(activation_bytes_of(text), None, "`{text}`");
    }
}

/// ENG-17.
#[test]
fn the_kv_rate_of_a_config_follows_the_published_sums() {
    let sliding: Vec<&str> = (0..24)
        .map(|layer| match layer % 2 {
            0 => "\"sliding_attention\"",
            _ => "\"full_attention\"",
        })
        .collect();
    let gpt_oss = format!(
        r#"{{"num_hidden_layers":24,"num_attention_heads":64,"num_key_value_heads":8,"head_dim":64,
        "max_position_embeddings":131072,"layer_types":[{}]}}"#,
        sliding.join(",")
    );
    let table = [
        (gpt_oss.as_str(), 24_576, 131_072),
        (
            r#"{"num_hidden_layers":24,"num_attention_heads":14,"num_key_value_heads":2,
            "hidden_size":896,"max_position_embeddings":32768}"#,
            12_288,
            32_768,
        ),
        (
            r#"{"num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,
            "head_dim":64,"max_position_embeddings":131072}"#,
            32_768,
            131_072,
        ),
        // Five sliding layers, then a full one of its own width, twice; two layers share.
        (
            r#"{"vision_config":{},"num_hidden_layers":99,"text_config":{"num_hidden_layers":14,
            "num_kv_shared_layers":2,"num_key_value_heads":4,"head_dim":256,
            "num_global_key_value_heads":2,"global_head_dim":512,"sliding_window_pattern":6,
            "seq_length":4096}}"#,
            2 * 2 * 512 * 4,
            4_096,
        ),
        // A kind of layer that nobody knows counts as the widest.
        (
            r#"{"num_hidden_layers":2,"num_key_value_heads":4,"head_dim":64,"global_head_dim":512,
            "layer_types":["mystery","linear_attention"],"n_positions":99000000}"#,
            4 * 512 * 4,
            2_097_152,
        ),
    ];
    for (config, bytes_per_token, context_tokens) in table {
        let rate = config_kv_rate(config.as_bytes(), 0);
        let expected = KvRate {
            bytes_per_token,
            context_tokens,
        };
        assert_eq!(rate, expected, "{config}");
    }
}

#[test]
fn a_config_that_says_nothing_is_charged_by_its_weights() {
    let huge = vec![b' '; (4 << 20) + 1];
    let hopeless: [&[u8]; 6] = [
        b"",
        b"[]",
        b"{}",
        br#"{"num_hidden_layers":1,"num_key_value_heads":1,"head_dim":1}"#,
        br#"{"num_hidden_layers":2,"num_attention_heads":0,"hidden_size":64}"#,
        &huge,
    ];
    for config in hopeless {
        assert_eq!(config_kv_rate(config, 0).bytes_per_token, 100_000);
        let rate = config_kv_rate(config, 12_100_000_000);
        assert_eq!(rate.bytes_per_token, 484_000);
    }
}

prop_compose! {
    fn machines()(
        physical in 0..1_u64 << 42,
        ppm in 1..=100_u32,
        activation in 0..1_u64 << 34,
        reserve in 0..1_u64 << 34,
        prefix in 0..1_u64 << 32,
    ) -> MemoryCap {
        let fraction = CapFraction::parse(&format!("0.{ppm:02}")).unwrap_or(CapFraction::REFERENCE);
        MemoryCap::new(physical, MemoryPolicy {
            fraction,
            activation_bytes: activation,
            reserve_bytes: reserve,
            prefix_bytes: prefix,
        })
    }
}

prop_compose! {
    fn occupancies()(
        available_bytes in 0..1_u64 << 42,
        engine_used_bytes in 0..1_u64 << 42,
        resident_bytes in 0..1_u64 << 40,
        evictable in 0..=100_u64,
        reclaimable in 0..=100_u64,
        outstanding_bytes in 0..1_u64 << 36,
    ) -> Occupancy {
        Occupancy {
            facts: MemoryFacts { available_bytes, engine_used_bytes },
            resident_bytes,
            evictable_bytes: resident_bytes / 100 * evictable,
            reclaimable_bytes: engine_used_bytes / 100 * reclaimable,
            outstanding_bytes,
        }
    }
}

/// The two rules of a load (`Rule`) once more, in signed numbers and from the printed terms alone.
fn verdict_of(terms: &[Term], weights_bytes: u64) -> bool {
    let of = |name: &str| {
        let term = terms.iter().find(|term| term.name == name);
        match term.map(|term| term.amount) {
            Some(Amount::Bytes(bytes)) => i128::from(bytes),
            other => panic!("{name}: {other:?}"),
        }
    };
    let weights = i128::from(weights_bytes);
    let untaken = (of("physical") - of("engine_used"))
        .max(0)
        .min(of("available"));
    let reserve = of("config_reserve").max(of("physical") - of("hard_cap"));
    let free = (untaken + of("reclaimable") - reserve).max(0) - of("outstanding");
    let loaded = (weights * 6 + 4) / 5;
    let by_free = loaded + of("activation") + of("kv_min") <= free.max(0);
    let resident = of("resident") - of("evictable");
    let by_cap =
        resident + weights + of("activation") + of("prefix") + of("kv_min") <= of("hard_cap");
    by_free && by_cap
}

proptest! {
    /// ENG-12.
    #[test]
    fn heartbeat_loader_and_doctor_agree(
        cap in machines(),
        held in occupancies(),
        anywhere in 1..1_u64 << 40,
        // Half of the cases stand at the very edge.
        from_edge in proptest::option::of(-2..=2_i64),
    ) {
        let edge = cap.max_loadable_bytes(held) / 6 * 5;
        let weights_bytes = from_edge.map_or(anywhere, |off| edge.saturating_add_signed(off).max(1));
        let explanation = cap.explain_model(held, weights_bytes, 1);
        let load = cap.load(held, weights_bytes);
        prop_assert_eq!(explanation.load, load);
        let is_possible = !matches!(load, Load::Refused(_));
        prop_assert_eq!(loaded_bytes(weights_bytes) <= cap.max_loadable_bytes(held), is_possible);
        prop_assert_eq!(verdict_of(&cap.explain_machine(held), weights_bytes), is_possible);
        if is_possible {
            prop_assert!(cap.can_admit(held, weights_bytes));
            prop_assert!(cap.required_for_load_bytes(weights_bytes) <= cap.free_for_load_bytes(held));
        }
        if let Load::Refused(shortage) = load {
            prop_assert!(shortage.needed_bytes > shortage.free_bytes);
        }
    }

    #[test]
    fn what_fits_a_machine_leaves_it_memory_to_serve_with(
        cap in machines(),
        held in occupancies(),
        percent in 1..=100_u64,
    ) {
        let held = Occupancy {
            evictable_bytes: 0,
            reclaimable_bytes: 0,
            outstanding_bytes: 0,
            ..held
        };
        let weights_bytes = (cap.max_loadable_bytes(held) / 120 * percent).max(1);
        if cap.load(held, weights_bytes) == Load::Fits {
            let facts = MemoryFacts {
                available_bytes: held.facts.available_bytes - weights_bytes,
                engine_used_bytes: held.facts.engine_used_bytes + weights_bytes,
            };
            prop_assert!(cap.is_serveable(facts, 0));
        }
    }

    #[test]
    fn the_caps_never_pass_what_they_are_shares_of(cap in machines(), held in occupancies()) {
        prop_assert!(cap.hard_cap_bytes() <= cap.physical_bytes());
        prop_assert!(cap.live_cap_bytes() <= cap.hard_cap_bytes());
        prop_assert!(cap.live_kv_headroom_bytes(held.facts) <= cap.live_cap_bytes());
        prop_assert!(cap.kv_budget_bytes(0) <= cap.live_cap_bytes());
        prop_assert!(cap.kv_available_bytes(held.facts, held.outstanding_bytes)
            <= cap.live_kv_headroom_bytes(held.facts));
    }

    #[test]
    fn no_config_is_read_as_more_than_its_limits(bytes in proptest::collection::vec(any::<u8>(), 0..64), weights in any::<u64>()) {
        let rate = config_kv_rate(&bytes, weights);
        prop_assert!(rate.bytes_per_token >= 1_000);
        prop_assert!((1..=2_097_152).contains(&rate.context_tokens));
    }
}
