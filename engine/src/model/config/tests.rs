//! What configs are read as, and what is refused in which words.

use super::*;
fn json(extra: &str) -> String {
    format!(
        r#"{{"model_type":"llama","hidden_size":64,"intermediate_size":128,
            "num_hidden_layers":2,"num_attention_heads":4,"vocab_size":32,
            "rms_norm_eps":1e-5{extra}}}"#
    )
}

fn attention(config: &Config) -> &Attention {
    let Mixer::Attention(attention) = &config.layers[0].mixer else {
        panic!("the first layer attends");
    };
    attention
}

#[test]
fn absent_keys_take_the_values_that_transformers_gives_them() {
    let config = Config::from_json(json("").as_bytes()).unwrap();
    assert_eq!(config.layers.len(), 2);
    let attention = attention(&config);
    assert_eq!(attention.kv_heads, 4);
    assert_eq!(attention.head_dim, 16);
    assert!((attention.rope.theta - 10_000.0).abs() < f32::EPSILON);
    assert_eq!(attention.rope.stretch, RopeStretch::None);
    assert_eq!(config.head, Head::Own);
}

#[test]
fn one_end_token_and_several_are_both_read() {
    let one = Config::from_json(json(r#","eos_token_id":7"#).as_bytes()).unwrap();
    let several = Config::from_json(json(r#","eos_token_id":[7,9]"#).as_bytes()).unwrap();
    assert_eq!(one.eos_ids, [7]);
    assert_eq!(several.eos_ids, [7, 9]);
}

#[test]
fn rope_parameters_of_both_generations_are_read() {
    let old = json(
        r#","rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,
           "low_freq_factor":1.0,"high_freq_factor":4.0,
           "original_max_position_embeddings":8192}"#,
    );
    let new = json(
        r#","rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,
           "low_freq_factor":1.0,"high_freq_factor":4.0,
           "original_max_position_embeddings":8192}"#,
    );
    let old = Config::from_json(old.as_bytes()).unwrap();
    assert_eq!(old, Config::from_json(new.as_bytes()).unwrap());
    let stretch = &attention(&old).rope.stretch;
    assert!(matches!(stretch, RopeStretch::Llama3 { .. }));
}

#[test]
fn a_config_that_cannot_be_served_says_why() {
    let table = [
        (json(r#","num_key_value_heads":3"#), "num_key_value_heads"),
        (json(r#","head_dim":15"#), "head_dim turns 15 components"),
        (
            json(r#","num_key_value_heads":0"#),
            "num_key_value_heads is 0",
        ),
        (
            json(r#","rope_scaling":{"rope_type":"spiral"}"#),
            "rope scaling spiral",
        ),
        (
            json(r#","rope_scaling":{"rope_type":"longrope"}"#),
            "original_max_position_embeddings is missing",
        ),
        (
            json(
                r#","max_position_embeddings":256,"rope_scaling":{"rope_type":"longrope",
                   "original_max_position_embeddings":64,"long_factor":[1.0,2.0]}"#,
            ),
            "long_factor is [1.0,2.0], not 8 positive numbers",
        ),
        (
            json(r#","rope_scaling":{"rope_type":"dynamic"}"#),
            "factor is missing",
        ),
        (
            json(r#","rope_scaling":{"rope_type":"llama3"}"#),
            "low_freq_factor is missing",
        ),
        (json(r#","hidden_act":"gelu""#), "hidden_act gelu"),
        (json("").replace("\"llama\"", "\"mamba\""), "mamba"),
        (json("").replace("1e-5", "-1"), "rms_norm_eps"),
        (
            json("").replace("\"vocab_size\":32", "\"vocab_size\":0"),
            "vocab_size is 0",
        ),
        ("{".to_owned(), "config.json"),
    ];
    for (json, expected) in table {
        let error = Config::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{error} should speak of {expected}"
        );
    }
}

fn read(json: &str) -> Config {
    Config::from_json(json.as_bytes()).unwrap()
}

fn refusal(json: &str) -> String {
    Config::from_json(json.as_bytes()).unwrap_err().to_string()
}

const LLAMA_1B: &str = r#"{"model_type":"llama","hidden_size":2048,"intermediate_size":8192,
    "num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":64,
    "vocab_size":128256,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#;

const QWEN2_HALF_B: &str = r#"{"model_type":"qwen2","hidden_size":896,"intermediate_size":4864,
    "num_hidden_layers":24,"num_attention_heads":14,"num_key_value_heads":2,"vocab_size":151936,
    "rms_norm_eps":1e-6,"rope_theta":1000000.0,"use_sliding_window":false,"sliding_window":32768,
    "tie_word_embeddings":true}"#;

const GPT_OSS_20B: &str = r#"{"model_type":"gpt_oss","hidden_size":2880,"intermediate_size":2880,
    "num_hidden_layers":24,"num_attention_heads":64,"num_key_value_heads":8,"head_dim":64,
    "vocab_size":201088,"rms_norm_eps":1e-5,"rope_theta":150000,"sliding_window":128,
    "num_local_experts":32,"num_experts_per_tok":4,"attention_bias":true,"swiglu_limit":7.0,
    "rope_scaling":{"rope_type":"yarn","factor":32.0,"beta_fast":32.0,"beta_slow":1.0,
        "original_max_position_embeddings":4096,"truncate":false},
    "quantization_config":{"quant_method":"mxfp4"}}"#;

const GEMMA3_4B: &str = r#"{"model_type":"gemma3","vision_config":{"hidden_size":1152},
    "text_config":{"model_type":"gemma3_text","hidden_size":2560,"intermediate_size":10240,
        "num_hidden_layers":34,"sliding_window":1024,
        "rope_scaling":{"rope_type":"linear","factor":8.0}}}"#;

const GEMMA4_E2B: &str = r#"{"model_type":"gemma4","text_config":{"hidden_size":1536,
    "intermediate_size":6144,"num_hidden_layers":35,"num_attention_heads":8,
    "num_key_value_heads":1,"head_dim":256,"global_head_dim":512,"vocab_size":262144,
    "num_kv_shared_layers":20,"hidden_size_per_layer_input":256,"sliding_window":512,
    "sliding_window_pattern":5,"final_logit_softcapping":null}}"#;

const QWEN35: &str = r#"{"model_type":"qwen3_5","text_config":{"hidden_size":1024,
    "intermediate_size":3584,"num_hidden_layers":24,"num_attention_heads":8,
    "num_key_value_heads":2,"head_dim":256,"vocab_size":248320,"rms_norm_eps":1e-6,
    "full_attention_interval":4,"linear_num_value_heads":16,"linear_num_key_heads":16,
    "linear_key_head_dim":128,"linear_value_head_dim":128,"linear_conv_kernel_dim":4,
    "rope_parameters":{"rope_type":"default","rope_theta":10000000,
        "partial_rotary_factor":0.25}}}"#;

#[test]
fn the_rate_of_memory_counts_the_layers_that_keep_every_token() {
    // The figures of engine.md 16.4, at two bytes a number.
    assert_eq!(read(LLAMA_1B).kv_bytes_per_token(2), 32_768);
    assert_eq!(read(QWEN2_HALF_B).kv_bytes_per_token(2), 12_288);
    assert_eq!(read(GPT_OSS_20B).kv_bytes_per_token(2), 24_576);
    // Five of 34 layers see everything, with four heads of 256.
    assert_eq!(read(GEMMA3_4B).kv_bytes_per_token(2), 5 * 4 * 256 * 2 * 2);
    // Three of the 15 layers that own keys and values see everything, with one head of 512.
    assert_eq!(read(GEMMA4_E2B).kv_bytes_per_token(2), 3 * 512 * 2 * 2);
    // Six of 24 layers attend.
    assert_eq!(read(QWEN35).kv_bytes_per_token(2), 6 * 2 * 256 * 2 * 2);
}

#[test]
fn a_layer_that_shares_sees_the_last_owner_of_its_kind() {
    let config = read(GEMMA4_E2B);
    assert_eq!(config.stores().len(), 15);
    let stores = config.store_of_layers();
    assert_eq!(stores[..15], (0..15).collect::<Vec<_>>());
    // Every fifth layer sees everything: the last of those among the first 15 is layer 14, the
    // last with a window layer 13.
    for (layer, &store) in stores.iter().enumerate().skip(15) {
        let expected = if (layer + 1) % 5 == 0 { 14 } else { 13 };
        assert_eq!(store, expected, "layer {layer}");
    }
    assert_eq!(config.logit_softcap, None, "null means no cap");
}

#[test]
fn a_recurrent_layer_keeps_a_state_and_no_tokens() {
    let stores = read(QWEN35).stores();
    let recurrent = |store: &&Store| matches!(store, Store::Recurrent(_));
    assert_eq!(stores.iter().filter(recurrent).count(), 18);
    let Store::Recurrent(delta) = &stores[0] else {
        panic!("the first layer is recurrent");
    };
    assert_eq!(delta.mixed_width(), 3 * 16 * 128);
}

#[test]
fn what_a_text_part_leaves_out_is_found_around_it() {
    let inner = r#"{"model_type":"gemma3","eos_token_id":[1,106],"vocab_size":1000,
        "text_config":{"hidden_size":64,"intermediate_size":64,"num_hidden_layers":2}}"#;
    let config = read(inner);
    assert_eq!(config.eos_ids, [1, 106]);
    assert_eq!(config.vocab_size, 1_000);
    assert_eq!(attention(&config).query_heads, 8);
}

#[test]
fn a_mistral_means_its_window_for_every_layer() {
    let mistral = json(r#","sliding_window":4096"#).replace("\"llama\"", "\"mistral\"");
    let llama = json(r#","sliding_window":4096"#);
    assert_eq!(attention(&read(&mistral)).window, Some(4_096));
    assert_eq!(attention(&read(&llama)).window, None);
}

#[test]
fn a_key_that_a_family_cannot_serve_is_named() {
    let without = |json: &str, key: &str, value: &str| {
        let pair = format!("\"{key}\":{value}");
        assert!(json.contains(&pair), "{key} should be in the example");
        json.replace(&pair, &format!("\"other_{key}\":{value}"))
    };
    let with = |json: &str, pair: &str| json.replacen('{', &format!("{{{pair},"), 1);
    let table = [
        (
            json(r#","quantization_config":{"quant_method":"fp8"}"#),
            "quant_method fp8",
        ),
        (
            json(r#","layer_types":["full_attention","chunked_attention"]"#),
            "layer_types chunked_attention",
        ),
        (
            json(r#","layer_types":["full_attention"]"#),
            "layer_types is",
        ),
        (
            json(r#","layer_types":["full_attention","sliding_attention"]"#),
            "sliding_window is missing",
        ),
        (
            without(GPT_OSS_20B, "num_local_experts", "32"),
            "num_local_experts is missing",
        ),
        (
            without(GPT_OSS_20B, "sliding_window", "128"),
            "sliding_window is missing",
        ),
        (
            GPT_OSS_20B.replace("\"num_experts_per_tok\":4", "\"num_experts_per_tok\":33"),
            "num_experts_per_tok 33 is more than the 32",
        ),
        (
            with(GEMMA3_4B, r#""final_logit_softcapping":30.0"#),
            "final_logit_softcapping",
        ),
        (
            with(GEMMA3_4B, r#""hidden_activation":"relu""#),
            "hidden_activation relu",
        ),
        (
            GEMMA4_E2B.replace("\"num_kv_shared_layers\":20", "\"num_kv_shared_layers\":35"),
            "num_kv_shared_layers 35 leaves none",
        ),
        (
            GEMMA4_E2B.replace("\"num_kv_shared_layers\":20", "\"num_kv_shared_layers\":31"),
            "no earlier layer is of its kind",
        ),
        (
            without(QWEN35, "linear_num_key_heads", "16"),
            "linear_num_key_heads is missing",
        ),
        (
            QWEN35.replace("\"linear_num_key_heads\":16", "\"linear_num_key_heads\":3"),
            "no multiple of linear_num_key_heads",
        ),
        (
            QWEN35.replace(
                "\"linear_conv_kernel_dim\":4",
                "\"linear_conv_kernel_dim\":1",
            ),
            "linear_conv_kernel_dim is 1",
        ),
        (
            QWEN2_HALF_B.replace(
                "\"use_sliding_window\":false",
                "\"use_sliding_window\":true",
            ),
            "use_sliding_window",
        ),
    ];
    for (json, expected) in table {
        let error = refusal(&json);
        assert!(
            error.contains(expected),
            "{error} should speak of {expected}"
        );
    }
}

#[test]
fn a_base_that_the_file_leaves_out_is_the_familys_published_one() {
    let table = [
        ("llama", 10_000.0),
        ("mistral", 10_000.0),
        ("qwen3", 10_000.0),
    ];
    for (family, expected) in table {
        let config = read(&json("").replace("llama", family));
        let theta = attention(&config).rope.theta;
        assert!(
            (theta - expected).abs() < f32::EPSILON,
            "{family}: {theta}, not {expected}"
        );
    }
}

#[test]
fn neighbours_turn_together_where_a_llama_asks_for_it() {
    let pairs = |extra: &str| attention(&read(&json(extra))).rope.pairs;
    assert_eq!(pairs(""), RopePairs::Halves);
    assert_eq!(pairs(r#","rope_traditional":false"#), RopePairs::Halves);
    assert_eq!(pairs(r#","rope_traditional":true"#), RopePairs::Neighbours);
}

#[test]
fn a_long_rope_has_the_factors_of_the_context_that_it_serves() {
    let stretch = |context: &str| {
        let factors = |factor: f32| vec![factor; 8];
        let section = serde_json::json!({"rope_type": "longrope", "short_factor": factors(1.0),
            "long_factor": factors(4.0), "original_max_position_embeddings": 64});
        let keys = format!(r#","max_position_embeddings":{context},"rope_scaling":{section}"#);
        attention(&read(&json(&keys))).rope.stretch.clone()
    };
    let RopeStretch::Long { factors, magnitude } = stretch("64") else {
        panic!("a long rope");
    };
    assert_eq!((factors, magnitude), (vec![1.0; 8], 1.0));
    let RopeStretch::Long { factors, magnitude } = stretch("4096") else {
        panic!("a long rope");
    };
    assert_eq!(factors, vec![4.0; 8]);
    // The context is the first one's square: one and its logarithm's share of one, under a root.
    assert!((magnitude - 2.0_f32.sqrt()).abs() < 1e-6, "{magnitude}");
}

#[test]
fn what_yarn_says_outright_goes_before_what_follows_from_its_factor() {
    let yarn = |extra: &str| {
        let keys = format!(r#","rope_scaling":{{"rope_type":"yarn","factor":8.0{extra}}}"#);
        let RopeStretch::Yarn(yarn) = attention(&read(&json(&keys))).rope.stretch.clone() else {
            panic!("a yarn");
        };
        yarn
    };
    assert_eq!(yarn("").attention_factor, None);
    assert_eq!(yarn("").ramp, YarnRamp::Truncated);
    let told = yarn(r#","attention_factor":1.25,"truncate":false"#);
    assert_eq!(told.attention_factor, Some(1.25));
    assert_eq!(told.ramp, YarnRamp::Exact);
}

#[test]
fn mixed_widths_and_every_mode_of_mlx_are_left_to_the_tensors() {
    let quantised = |inner: &str| read(&json(&format!(r#","quantization":{{{inner}}}"#))).numbers;
    for inner in [
        r#""bits":5,"group_size":64,"model.layers.0.mlp.up_proj":{"bits":8,"group_size":32}"#,
        r#""bits":4,"group_size":16,"mode":"nvfp4""#,
        r#""bits":8,"group_size":32,"mode":"mxfp8""#,
    ] {
        assert_eq!(quantised(inner), Numbers::Quantised, "{inner}");
    }
    let other = quantised(r#""bits":4,"group_size":64,"mode":"nf4""#);
    let (mode, bits) = ("nf4".to_owned(), Some(4));
    assert_eq!(other, Numbers::Unknown { mode, bits });
}
