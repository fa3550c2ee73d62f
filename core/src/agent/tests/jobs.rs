use super::*;
use crate::envelope::ScopeKey;

#[test]
fn a_request_is_accepted_streamed_sealed_and_completed_in_order() {
    plays(
        &mut Play::joined(),
        &[
            ("request 1", "start 1; accepted 1"),
            ("said 1 4", "chunk 1 assistant '4'"),
            ("said 1 !", "chunk 1 '!'"),
            ("done 1 2", "chunk 1 finish=stop; complete 1 9+2"),
            ("request 1", ""),
            ("said 1 late", ""),
        ],
    );
}

#[test]
fn what_cannot_be_served_is_refused_with_its_status() {
    plays(
        &mut Play::joined(),
        &[
            ("bare 1", "error 1 400 client_error"),
            ("request 2 {}", "error 2 400 client_error"),
            (
                r#"request 3 {"model":"big","messages":[{"role":"user","content":""}]}"#,
                "error 3 404 model_load",
            ),
            (
                "request 4; request 5",
                "start 4; accepted 4; start 5; accepted 5",
            ),
            ("request 6", "error 6 429 queue_full"),
            ("failed 4", "error 4 503 token_budget_exhausted"),
            ("request 7", "start 7; accepted 7"),
            ("unloaded 7", "error 7 500 model_load"),
        ],
    );
}

#[test]
fn a_request_sealed_to_another_key_is_refused() {
    let mut play = Play::joined();
    let other = SecretKey::from_bytes([9; 32]).public();
    let payload =
        EncryptedPayload::seal(&SESSION, &other, [1; 24], BODY.as_bytes()).expect("sound keys");
    let sealer = payload.ephemeral_public_key;
    for (number, sealer, ciphertext) in [
        ("1", sealer.as_str(), payload.ciphertext.as_str()),
        ("2", "AAAA", payload.ciphertext.as_str()),
        ("3", sealer.as_str(), "!"),
    ] {
        let mut frame = Vec::new();
        encode_inference_request(id(number), sealer, None, ciphertext, "", &mut frame);
        play.told.clear();
        play.frame(&frame);
        assert_eq!(play.told, format!("error {number} 400 client_error"));
    }
}

#[test]
fn a_cancel_ends_with_partial_usage_after_output_and_with_499_before() {
    plays(
        &mut Play::joined(),
        &[
            (
                "request 1; said 1 a",
                "start 1; accepted 1; chunk 1 assistant 'a'",
            ),
            ("cancel 1", "stop 1"),
            ("cancel 1", ""),
            ("said 1 b", ""),
            ("stopped 1 1", "complete 1 9+1"),
            ("request 2; cancel 2", "start 2; accepted 2; stop 2"),
            ("stopped 2 0", "error 2 499 cancelled"),
            ("cancel 2; cancel 77", ""),
        ],
    );
}

#[test]
fn a_cancel_that_overtakes_its_request_prevents_the_start() {
    plays(
        &mut Play::joined(),
        &[
            ("cancel 1", ""),
            ("request 1", "error 1 499 cancelled"),
            ("request 1", ""),
        ],
    );
}

#[test]
fn lost_usage_is_floored_by_what_was_sent() {
    plays(
        &mut Play::joined(),
        &[
            (
                "request 1; said 1 a; said 1 b",
                "start 1; accepted 1; chunk 1 assistant 'a'; chunk 1 'b'",
            ),
            ("done 1 0", "chunk 1 finish=stop; complete 1 9+2"),
        ],
    );
}

#[test]
fn hashes_of_models_are_told_once_they_are_known() {
    plays(
        &mut Play::joined(),
        &[
            ("challenge; signed", "sign n0t0; answer n0 s1 s2"),
            (
                "hashed tiny abcd; challenge; signed",
                "sign n0t0; answer n0 s1 s2 tiny=abcd",
            ),
        ],
    );
}

#[test]
fn models_are_loaded_when_asked_and_known() {
    plays(
        &mut Play::joined(),
        &[
            ("load tiny", "load tiny"),
            ("loaded tiny", "load_status succeeded"),
            (
                "loadfailed tiny",
                "load_status failed all 3 model slot(s) are active",
            ),
            (
                "load big",
                "load_status failed this model is not served here",
            ),
        ],
    );
}

#[test]
fn a_scope_that_is_too_long_is_refused() {
    let mut play = Play::joined();
    let payload =
        EncryptedPayload::seal(&SESSION, &PUBLIC, [1; 24], BODY.as_bytes()).expect("sound keys");
    let sealer = payload.ephemeral_public_key;
    let longest = ScopeKey::SCOPE_SIZE_MAX;
    for (number, size) in [("1", longest + 1), ("2", 1 << 20)] {
        let mut frame = Vec::new();
        let scope = "A".repeat(size);
        encode_inference_request(
            id(number),
            sealer.as_str(),
            None,
            &payload.ciphertext,
            &scope,
            &mut frame,
        );
        play.told.clear();
        play.frame(&frame);
        assert_eq!(play.told, format!("error {number} 400 client_error"));
    }
}

#[test]
fn what_was_found_of_a_prompt_is_told_so_that_the_coordinator_believes_it() {
    plays(
        &mut Play::joined(),
        &[
            (
                "request 1; said 1 a",
                "start 1; accepted 1; chunk 1 assistant 'a'",
            ),
            (
                "found 1 8",
                "chunk 1 finish=stop; complete 1 9+1 cached=8 thought=1",
            ),
        ],
    );
}

#[test]
fn a_job_is_accepted_when_it_is_taken_and_one_that_is_turned_away_never_was() {
    let mut play = Play {
        takes_jobs: false,
        ..Play::joined()
    };
    plays(
        &mut play,
        &[
            ("request 1", "start 1"),
            ("taken 1", "accepted 1"),
            ("request 2", "start 2"),
            ("unloaded 2", "error 2 500 model_load"),
            ("taken 2", ""),
            ("request 3; cancel 3", "start 3; stop 3"),
            ("taken 3", ""),
            ("stopped 3 0", "error 3 499 cancelled"),
        ],
    );
    assert_eq!(play.agent.counts().stale_events, 1);
}

#[test]
fn what_changed_of_the_models_is_told_to_whoever_knows_them_already() {
    plays(
        &mut Play::new(),
        &[
            ("changed", ""),
            ("wake; changed", "dial 1"),
            ("connect; changed", "register; measure; update tiny"),
        ],
    );
}
