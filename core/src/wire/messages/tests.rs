use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::wire::Text;

fn value(frame: &[u8]) -> Value {
    serde_json::from_slice(frame).unwrap()
}

fn encoded<T: Frame>(message: &T) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// One frame of each baseline type to the coordinator, as small as a provider may send it and as
/// we write it ourselves.
const MINIMAL: [&str; 10] = [
    r#"{"type":"register","hardware":{"machine_model":"","chip_name":"","chip_family":"","chip_tier":"","memory_gb":0,"memory_available_gb":0.0,"cpu_cores":{"total":0,"performance":0,"efficiency":0},"gpu_cores":0,"memory_bandwidth_gbs":0.0},"models":[],"backend":""}"#,
    r#"{"type":"heartbeat","status":"idle","active_model":null,"stats":{"requests_served":0,"tokens_generated":0},"system_metrics":{"memory_pressure":0.0,"cpu_usage":0.0,"thermal_state":"nominal"}}"#,
    r#"{"type":"inference_accepted","request_id":"r"}"#,
    r#"{"type":"inference_complete","request_id":"r","usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
    r#"{"type":"inference_error","request_id":"r","error":"e","status_code":503}"#,
    r#"{"type":"attestation_response","nonce":"n","signature":"","public_key":"k"}"#,
    r#"{"type":"code_attestation_response","nonce":"n","signature":"s"}"#,
    r#"{"type":"load_model_status","model_id":"m","status":"started"}"#,
    r#"{"type":"prefetch_model_status","model_id":"m","status":"verified"}"#,
    r#"{"type":"models_update","models":[]}"#,
];

fn reencoded(message: &ToCoordinator<'_>) -> Vec<u8> {
    match message {
        ToCoordinator::Accepted(m) => encoded(m),
        ToCoordinator::AttestationResponse(m) => encoded(&**m),
        ToCoordinator::Chunk(m) => serde_json::to_vec(m).unwrap(),
        ToCoordinator::CodeAttestationResponse(m) => encoded(m),
        ToCoordinator::Complete(m) => encoded(m),
        ToCoordinator::Error(m) => encoded(m),
        ToCoordinator::Heartbeat(m) => encoded(&**m),
        ToCoordinator::Later => vec![],
        ToCoordinator::LoadModelStatus(m) => encoded(m),
        ToCoordinator::ModelsUpdate(m) => encoded(m),
        ToCoordinator::PrefetchModelStatus(m) => encoded(m),
        ToCoordinator::Register(m) => encoded(&**m),
    }
}

#[test]
fn optional_keys_are_omitted_and_required_ones_written() {
    for frame in MINIMAL {
        let message = ToCoordinator::decode(frame.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(reencoded(&message)).unwrap(), frame);
    }
}

#[test]
fn the_type_of_each_frame_that_we_write_is_found_without_decoding_it() {
    for frame in MINIMAL {
        let found = crate::wire::scan::scan_type(frame.as_bytes());
        let kind = value(frame.as_bytes())["type"].clone();
        assert_eq!(found, kind.as_str(), "{frame}");
    }
}

#[test]
fn the_published_samples_survive_a_round_trip() {
    let samples = [
        r#"{"type":"register",
 "hardware":{"machine_model":"Mac15,14","chip_name":"Apple M3 Ultra","chip_family":"M3",
   "chip_tier":"Ultra","memory_gb":96,"memory_available_gb":88.0,
   "cpu_cores":{"total":28,"performance":20,"efficiency":8},"gpu_cores":60,
   "memory_bandwidth_gbs":819.0},
 "models":[{"id":"acme/tiny-chat-4bit","size_bytes":2100000000,"model_type":"llama",
   "quantization":"4bit","estimated_memory_gb":2.6,"template_render_ok":true}],
 "backend":"mlx-swift","version":"0.6.40",
 "public_key":"eaYx7t4b+cmPEgMs3q3Q56B5OY/HhriMyEbsia+FpRo=",
 "encrypted_response_chunks":true,
 "attestation":{"attestation":{"a\/b": 1 },"signature":"s"},
 "template_hashes":{"mlx_metallib":"3f0c"},
 "privacy_capabilities":{"text_backend_inprocess":true,"text_proxy_disabled":true,
   "python_runtime_locked":true,"dangerous_modules_blocked":true,"sip_enabled":true,
   "anti_debug_enabled":true,"core_dumps_disabled":true,"env_scrubbed":true}}"#,
        r#"{"type":"heartbeat","status":"serving","active_model":"acme/tiny-chat-4bit",
 "warm_models":["acme/tiny-chat-4bit"],
 "stats":{"requests_served":12,"tokens_generated":3400,"cancellations_received":1},
 "system_metrics":{"memory_pressure":0.31,"cpu_usage":0.12,"thermal_state":"nominal"},
 "backend_capacity":{"slots":[{"model":"acme/tiny-chat-4bit","state":"running",
   "num_running":1,"num_waiting":0,"max_concurrency":8,"active_tokens":640,
   "max_tokens_potential":1024,"observed_decode_tps":88.5,
   "active_token_budget_used":1500,"active_token_budget_max":60000,
   "kv_bytes_per_token":98304,"model_load_time_ms":2140}],
  "gpu_memory_active_gb":3.4,"gpu_memory_peak_gb":4.0,"gpu_memory_cache_gb":0.5,
  "total_memory_gb":96.0,"free_for_load_gb":71.25}}"#,
        r#"{"type":"inference_complete","request_id":"0b1d6f3e-52a4-4c0e-9f6e-7a0d6a1f2c33",
 "usage":{"prompt_tokens":41,"completion_tokens":128,"reasoning_tokens":60},
 "response_hash":"9013f95089bab5c2bc5a86b41ccdd780f98e1455a99d5eda3ff501d38d314544"}"#,
    ];
    for sample in samples {
        let message = ToCoordinator::decode(sample.as_bytes()).unwrap();
        let again = reencoded(&message);
        assert_eq!(value(&again), value(sample.as_bytes()));
        assert_eq!(ToCoordinator::decode(&again).as_ref(), Ok(&message));
    }
}

#[test]
fn the_attestation_is_handed_on_byte_for_byte() {
    let frame =
        br#"{"type":"register","attestation": {"attestation":{"x":"a\/b" },"signature":""} }"#;
    let Ok(ToCoordinator::Register(register)) = ToCoordinator::decode(frame) else {
        panic!("a register with defaults decodes");
    };
    let raw = register.attestation.unwrap();
    assert_eq!(
        raw.as_str(),
        r#"{"attestation":{"x":"a\/b" },"signature":""}"#
    );
}

#[test]
fn absent_zero_and_null_keep_their_meanings() {
    let entry = |members: &str| -> ModelEntry<'static> {
        let frame = format!(r#"{{"type":"models_update","models":[{{{members}}}]}}"#);
        let Ok(ToCoordinator::ModelsUpdate(update)) = ToCoordinator::decode(frame.as_bytes())
        else {
            panic!("{members}");
        };
        let found = &update.models[0];
        ModelEntry {
            template_render_ok: found.template_render_ok,
            size_bytes: found.size_bytes,
            ..ModelEntry::default()
        }
    };
    assert_eq!(entry("").template_render_ok, None);
    assert_eq!(
        entry(r#""template_render_ok":null"#).template_render_ok,
        None
    );
    assert_eq!(
        entry(r#""template_render_ok":false"#).template_render_ok,
        Some(false)
    );
    assert_eq!(entry(r#""size_bytes":null"#).size_bytes, 0);
    assert_eq!(entry(r#""size_bytes":5,"size_bytes":7"#).size_bytes, 7);
    let crash = ModelEntry {
        template_render_ok: Some(false),
        ..ModelEntry::default()
    };
    let update = ModelsUpdate {
        models: vec![crash],
    };
    assert_eq!(
        value(&encoded(&update))["models"][0]["template_render_ok"],
        Value::Bool(false)
    );
    let nothing_loads = Capacity {
        free_for_load_gb: Some(0.0),
        ..Capacity::default()
    };
    assert_eq!(
        serde_json::to_value(nothing_loads).unwrap()["free_for_load_gb"],
        0.0
    );
}

#[test]
fn the_coordinator_forgives_and_still_drops_wrong_types() {
    let forgiven = [
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"heartbeat","stats":null,"system_metrics":null,"warm_models":null,"backend_capacity":null}"#,
        r#"{"type":"heartbeat","unknown":{"deep":[1,2,{"x":null}]},"prefix_cache_protocol":2}"#,
        r#"{"type":"heartbeat","system_metrics":{"memory_pressure":1,"cpu_usage":0}}"#,
    ];
    for frame in forgiven {
        assert!(ToCoordinator::decode(frame.as_bytes()).is_ok(), "{frame}");
    }
    let malformed = Err(DecodeError::Malformed(FrameKind::Heartbeat));
    let dropped = [
        r#"{"type":"heartbeat","status":7}"#,
        r#"{"type":"heartbeat","stats":{"requests_served":"many"}}"#,
        r#"{"type":"heartbeat","stats":{"requests_served":1.5}}"#,
        r#"{"type":"heartbeat","stats":[]}"#,
        r#"{"type":"heartbeat"} x"#,
    ];
    for frame in dropped {
        assert_eq!(
            ToCoordinator::decode(frame.as_bytes()),
            malformed,
            "{frame}"
        );
    }
}

#[test]
fn later_types_are_known_and_strange_ones_are_not() {
    for kind in LATER_TO_COORDINATOR {
        let frame = format!(r#"{{"type":"{kind}","request_id":1}}"#);
        assert_eq!(
            ToCoordinator::decode(frame.as_bytes()),
            Ok(ToCoordinator::Later)
        );
    }
    for kind in LATER_TO_PROVIDER {
        let frame = format!(r#"{{"type":"{kind}"}}"#);
        assert_eq!(ToProvider::decode(frame.as_bytes()), Ok(ToProvider::Later));
    }
    let unknown = Err(DecodeError::TypeUnknown);
    for frame in [
        r#"{"type":"cancel","request_id":"r"}"#,
        r#"{"type":null}"#,
        "{}",
    ] {
        assert_eq!(ToCoordinator::decode(frame.as_bytes()), unknown);
    }
    assert_eq!(
        ToProvider::decode(br#"{"type":"heartbeat"}"#),
        Err(DecodeError::TypeUnknown)
    );
    assert_eq!(
        ToProvider::decode(b"nonsense"),
        Err(DecodeError::TypeUnreadable)
    );
}

#[test]
fn orders_to_a_provider_round_trip_strictly() {
    let frames = [
        r#"{"type":"inference_request","request_id":"r","encrypted_body":{"ephemeral_public_key":"k","ciphertext":"c"}}"#,
        r#"{"type":"cancel","request_id":"r"}"#,
        r#"{"type":"attestation_challenge","nonce":"n","timestamp":"t"}"#,
        r#"{"type":"runtime_status","verified":false,"mismatches":[{"component":"python","expected":"a","got":"(missing)"}]}"#,
        r#"{"type":"runtime_status","verified":true}"#,
        r#"{"type":"trust_status","trust_level":"self_signed","status":"online"}"#,
        r#"{"type":"load_model","model_id":"m"}"#,
        r#"{"type":"prefetch_model","model_id":"m","priority":3}"#,
        r#"{"type":"desired_models","models":[{"model_name":"m","desired_build":"b","previous_build":"p"}]}"#,
        r#"{"type":"desired_models","models":[]}"#,
    ];
    for frame in frames {
        let again = match ToProvider::decode(frame.as_bytes()).unwrap() {
            ToProvider::AttestationChallenge(m) => encoded(&m),
            ToProvider::Cancel(m) => encoded(&m),
            ToProvider::DesiredModels(m) => encoded(&m),
            ToProvider::InferenceRequest(m) => encoded(&m),
            ToProvider::Later => vec![],
            ToProvider::LoadModel(m) => encoded(&m),
            ToProvider::PrefetchModel(m) => encoded(&m),
            ToProvider::RuntimeStatus(m) => encoded(&m),
            ToProvider::TrustStatus(m) => encoded(&m),
        };
        assert_eq!(String::from_utf8(again).unwrap(), frame);
    }
    let dropped = [
        r#"{"type":"cancel"}"#,
        r#"{"type":"cancel","request_id":null}"#,
        r#"{"type":"desired_models","models":null}"#,
        r#"{"type":"attestation_challenge","nonce":"n"}"#,
        r#"{"type":"runtime_status"}"#,
    ];
    for frame in dropped {
        let answer = ToProvider::decode(frame.as_bytes());
        assert!(matches!(answer, Err(DecodeError::Malformed(_))), "{frame}");
    }
}

#[test]
fn a_request_without_a_sealed_body_decodes_so_that_it_can_be_refused() {
    let frame = br#"{"type":"inference_request","request_id":"r","body":{}}"#;
    let Ok(ToProvider::InferenceRequest(request)) = ToProvider::decode(frame) else {
        panic!("a stray body is tolerated");
    };
    assert_eq!(request.encrypted_body, None);
}

#[test]
fn the_hand_written_request_encoder_writes_what_serde_writes() {
    let id = crate::ids::WireId::parse("0b1d6f3e-52a4-4c0e-9f6e-7a0d6a1f2c33").unwrap();
    for (scope, step) in [("", None), ("c2NvcGU=", Some(0)), ("", Some(u32::MAX))] {
        let mut by_hand = Vec::new();
        encode_inference_request(id, "a2V5", step, "Ym94", scope, &mut by_hand);
        let request = InferenceRequest {
            request_id: Text::from(id.to_string()),
            encrypted_body: Some(SealedText {
                ephemeral_public_key: Text::from("a2V5"),
                ciphertext: Text::from("Ym94"),
                session_step: step.map(i64::from),
            }),
            cache_scope: (!scope.is_empty()).then(|| Text::from(scope)),
        };
        assert_eq!(by_hand, encoded(&request));
    }
}

proptest! {
    #[test]
    fn random_bytes_decode_to_an_error_or_a_message_but_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in ".{0,200}",
    ) {
        let _ = ToCoordinator::decode(&bytes);
        let _ = ToProvider::decode(&bytes);
        let _ = ToCoordinator::decode(text.as_bytes());
    }

    #[test]
    fn a_mutated_frame_never_panics(
        which in 0..MINIMAL.len(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = MINIMAL[which].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ToCoordinator::decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = ToCoordinator::decode(&bytes);
    }

    #[test]
    fn whatever_a_model_is_called_it_survives_the_wire(name in ".{0,40}", hash in "[a-f0-9]{0,8}") {
        let entry = ModelEntry {
            id: Text::from(name.clone()),
            weight_hash: Text::from(hash),
            ..ModelEntry::default()
        };
        let update = ModelsUpdate { models: vec![entry] };
        let frame = encoded(&update);
        prop_assert_eq!(ToCoordinator::decode(&frame), Ok(ToCoordinator::ModelsUpdate(update)));
        let order = LoadModel { model_id: Text::from(name) };
        let frame = encoded(&order);
        prop_assert_eq!(ToProvider::decode(&frame), Ok(ToProvider::LoadModel(order)));
    }
}
