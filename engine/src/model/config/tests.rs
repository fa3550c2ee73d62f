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
    let Mixer::Attention(attention) = &config.layers[0].mixer;
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
    let stretch = attention(&old).rope.stretch;
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
        (json(r#","quantization":{"bits":4}"#), "quantization"),
        (
            json(r#","rope_scaling":{"rope_type":"yarn"}"#),
            "rope scaling yarn",
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

#[test]
fn the_rate_of_memory_counts_the_layers_that_keep_every_token() {
    // Llama-3.2-1B.
    let llama = r#"{"model_type":"llama","hidden_size":2048,"intermediate_size":8192,
        "num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":64,
        "vocab_size":128256,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#;
    let config = Config::from_json(llama.as_bytes()).unwrap();
    assert_eq!(config.kv_bytes_per_token(2), 32_768);
}
