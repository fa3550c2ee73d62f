use super::*;

#[test]
fn every_breach_of_the_encryption_contract_ends_the_attempt_as_a_violation() {
    let mut plain = Scene::new(Delivery::Streamed).sealed(FIRST, "x");
    plain.encrypted_data = None;
    plain.data = Text::from("data: {}");
    let mut mixed = Scene::new(Delivery::Streamed).sealed(FIRST, "x");
    mixed.data = Text::from("data: {}");
    let mut other_key = Scene::new(Delivery::Streamed).sealed(FIRST, "x");
    let stranger = PublicKey([9; 32]).text().to_string();
    if let Some(sealed) = &mut other_key.encrypted_data {
        sealed.ephemeral_public_key = Text::from(stranger);
    }
    let wrong_session = Scene::new(Delivery::Streamed).sealed(SECOND, "x");
    let mut cut = Scene::new(Delivery::Streamed).sealed(FIRST, "x");
    if let Some(sealed) = &mut cut.encrypted_data {
        sealed.ciphertext = Text::from("AAAA");
    }
    for chunk in [plain, mixed, other_key, wrong_session, cut] {
        let mut scene = Scene::new(Delivery::Streamed);
        let effects = scene.step(RelayEvent::ChunkCame {
            attempt: FIRST,
            chunk: &chunk,
        });
        assert_eq!(
            effects,
            [RelayEffect::AttemptFailed {
                attempt: FIRST,
                fault: AttemptFault::Encryption
            }]
        );
        let denial = Denial::Encryption;
        assert_eq!(
            scene.step(RelayEvent::Denied { denial }),
            [RelayEffect::Refuse { denial }]
        );
    }
}

#[test]
fn a_chunk_that_the_link_checked_is_relayed_and_one_that_does_not_open_is_a_violation() {
    let mut scene = Scene::new(Delivery::Streamed);
    let sealed = scene.sealed(FIRST, &content("x")).encrypted_data;
    let ciphertext = sealed.expect("just sealed").ciphertext;
    assert_eq!(
        scene.step(RelayEvent::SealedCame {
            attempt: FIRST,
            ciphertext: &ciphertext,
        }),
        [RelayEffect::AttemptStarted { attempt: FIRST }]
    );
    assert_eq!(
        scene
            .step(RelayEvent::SealedCame {
                attempt: FIRST,
                ciphertext: &ciphertext[4..],
            })
            .last(),
        Some(&RelayEffect::AttemptFailed {
            attempt: FIRST,
            fault: AttemptFault::Encryption
        })
    );
}

#[test]
fn a_sealed_chunk_that_is_no_event_ends_the_attempt_as_a_fault() {
    for text in [
        "data: {",
        "data: 7",
        // No array stands for an object.
        "data: [ ]",
        r#"data: {"choices":[["x"]]}"#,
        r#"data: {"choices":[{"delta":["x"]}]}"#,
        r#"data: {"choices":[{"delta":{"tool_calls":[[0]]}}]}"#,
        r#"data: {"choices":[{"delta":{"tool_calls":[{"function":["f"]}]}}]}"#,
        r#"{"choices":[]}"#,
        r#"data: {"choices":[{"delta":{"content":7}}]}"#,
        r#"data: {"error":{"message":"boom"}}"#,
        r#"data: {"choices":[{"delta":{"tool_calls":{}}}]}"#,
        // A consumer would take the carriage return for the end of the line.
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"logprobs\":[1,\r2]}]}",
    ] {
        let mut scene = Scene::new(Delivery::Streamed);
        assert_eq!(
            scene.chunk(FIRST, text).last(),
            Some(&RelayEffect::AttemptFailed {
                attempt: FIRST,
                fault: AttemptFault::Internal
            }),
            "{text}"
        );
    }
}

#[test]
fn a_stalled_consumer_gets_one_grace_and_then_the_attempt_is_cancelled() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    for _ in 0..BUFFER_EVENTS_MAX {
        scene.says("x");
    }
    assert_eq!(scene.relay.next_wake(), None);
    scene.says("x");
    let until = scene.now + GRACE;
    assert_eq!(scene.relay.next_wake(), Some((until, RelayWake::GraceOver)));
    // Early and spurious wakes are harmless.
    assert_eq!(scene.step(RelayEvent::Woke), []);
    scene.now = until;
    assert_eq!(
        scene.step(RelayEvent::Woke),
        [RelayEffect::AttemptFailed {
            attempt: FIRST,
            fault: AttemptFault::ConsumerStalled
        }]
    );
    assert_eq!(scene.relay.next_wake(), None);
}

#[test]
fn a_consumer_that_reads_within_the_grace_loses_nothing() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    let mut read = String::new();
    for _ in 0..=BUFFER_EVENTS_MAX {
        scene.says("x");
    }
    read += &said(&scene.events());
    assert_eq!(scene.relay.next_wake(), None);
    for _ in 0..=BUFFER_EVENTS_MAX {
        scene.says("y");
    }
    read += &said(&scene.events());
    assert_eq!(read.len(), 2 * (BUFFER_EVENTS_MAX as usize + 1));
}

#[test]
fn a_flood_during_the_grace_is_not_buffered_without_bound() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    let mut count = 0;
    let is_broken_off = |effect: &RelayEffect| matches!(effect, RelayEffect::AttemptFailed { .. });
    while !scene.says("x").iter().any(is_broken_off) {
        count += 1;
        assert!(count <= BUFFER_EVENTS_MAX * OVERFLOW_FACTOR);
    }
    assert_eq!(count, BUFFER_EVENTS_MAX * OVERFLOW_FACTOR);
}

#[test]
fn a_cancelled_attempt_shows_nothing_more() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.step(RelayEvent::AttemptCancelled { attempt: FIRST });
    assert_eq!(scene.says("late"), []);
    assert_eq!(scene.taken(), "");
}

#[test]
fn progress_is_told_by_count_and_by_time() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.says("x");
    for _ in 1..PROGRESS_PIECES {
        assert_eq!(scene.says("x"), []);
    }
    let progressed = |pieces| RelayEffect::AttemptProgressed {
        attempt: FIRST,
        shown: shown(pieces, pieces),
    };
    let pieces = PROGRESS_PIECES + 1;
    assert_eq!(scene.says("x"), [progressed(pieces)]);
    scene.now = scene.now + PROGRESS_SPAN;
    assert_eq!(scene.says("x"), [progressed(pieces + 1)]);
}

#[test]
fn escapes_do_not_widen_what_a_provider_may_claim() {
    let mut scene = Scene::new(Delivery::Streamed);
    let text = r#"data: {"choices":[{"delta":{"content":"\u0061\u0062\n"}}]}"#;
    scene.chunk(FIRST, text);
    assert_eq!(scene.relay.counts().text_bytes, 3);
}

fn is_cut(effects: &[RelayEffect]) -> bool {
    let mut effects = effects.iter();
    effects.any(|effect| matches!(effect, RelayEffect::AttemptCut { .. }))
}

#[test]
fn an_answer_beyond_its_bound_is_cut_there_and_called_finished() {
    for delivery in [Delivery::Streamed, Delivery::Whole] {
        let mut scene = Scene::bounded(delivery, 5);
        scene.step(RelayEvent::Released);
        for _ in 0..5 {
            let effects = scene.says("word ");
            assert!(!is_cut(&effects));
        }
        assert_eq!(
            scene.says("word "),
            [RelayEffect::AttemptCut {
                attempt: FIRST,
                shown: shown(5, 25),
            }]
        );
        assert_eq!(scene.says("more "), [], "nothing follows what was cut");
        assert_eq!(scene.complete(), [], "nor does its terminal");
        scene.finish();
        let text = scene.taken();
        assert_eq!(text.matches("word ").count(), 5);
        assert!(text.contains(r#""finish_reason":"length""#));
    }
}

#[test]
fn one_piece_that_no_tokens_of_the_bound_can_hold_is_not_shown() {
    let mut scene = Scene::bounded(Delivery::Whole, 2);
    let effects = scene.says(&"x".repeat(2 * TOKEN_SIZE_MAX as usize + 1));
    assert!(is_cut(&effects));
    assert_eq!(scene.relay.counts().pieces, 0);
}

#[test]
fn a_machine_that_sends_its_tokens_in_parts_is_not_cut() {
    let mut scene = Scene::bounded(Delivery::Whole, 10);
    for _ in 0..40 {
        assert!(!is_cut(&scene.says("x")));
    }
}

#[test]
fn a_stream_that_outgrows_what_may_be_held_back_says_so() {
    let mut scene = Scene::new(Delivery::Streamed);
    let fault = AttemptFault::HoldOverdue;
    let broken_off = RelayEffect::AttemptFailed {
        attempt: FIRST,
        fault,
    };
    let mut count = 0;
    while !scene.says("x").contains(&broken_off) {
        count += 1;
        assert!(count <= BUFFER_EVENTS_MAX * OVERFLOW_FACTOR);
    }
    let denial = Denial::HoldOverdue;
    assert_eq!(
        scene.step(RelayEvent::Denied { denial }),
        [RelayEffect::Refuse { denial }]
    );
}

#[test]
fn a_plain_answer_that_outgrows_a_reply_says_so() {
    let mut scene = Scene::bounded(Delivery::Whole, u32::MAX);
    let half = "x".repeat(crate::api::ANSWER_SIZE_MAX / 2 + 1);
    scene.says(&half);
    let fault = AttemptFault::AnswerTooLarge;
    assert_eq!(
        scene.says(&half),
        [RelayEffect::AttemptFailed {
            attempt: FIRST,
            fault
        }]
    );
}

/// The tokens that may have left no text, after an answer that ends for that reason.
fn marks_of(stop_bytes_max: u32, silent_tokens_max: u32, finish: &str) -> u32 {
    let mut scene = Scene::shaped(Shape {
        delivery: Delivery::Streamed,
        include_usage: true,
        output_tokens_max: 50,
        stop_bytes_max,
        silent_tokens_max,
    });
    scene.says("word ");
    let event = json!({"id":"x","object":"chat.completion.chunk","model":"m",
        "choices":[{"index":0,"delta":{},"finish_reason":finish}]});
    scene.chunk(FIRST, &format!("data: {event}\n\n"));
    scene.relay.shown_of(FIRST).marks
}

#[test]
fn what_a_stop_string_or_a_silent_token_kept_back_was_made_all_the_same() {
    assert_eq!(marks_of(0, 0, "stop"), END_TOKENS);
    assert_eq!(marks_of(20, 0, "stop"), END_TOKENS + 20);
    assert_eq!(marks_of(20, 0, "length"), END_TOKENS, "it ended otherwise");
    assert_eq!(marks_of(0, 50, "length"), END_TOKENS + 50);
}
