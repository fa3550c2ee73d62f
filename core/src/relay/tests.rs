use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::Framing;
use crate::envelope::{PublicKey, SecretKey};
use crate::event::Usage;
use crate::ids::RequestId;
use crate::time::Tick;
use crate::wire::{ChunkFrame, Text, messages::SealedText};

const FIRST: AttemptKey = AttemptKey {
    slot: 1,
    generation: 1,
};
const SECOND: AttemptKey = AttemptKey {
    slot: 2,
    generation: 1,
};

fn provider() -> SecretKey {
    SecretKey::from_bytes([7; 32])
}

fn session(attempt: AttemptKey) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(attempt.slot).expect("small"); 32])
}

/// Agreed once: the curve is slow without optimisation.
static KEYS: LazyLock<[BoxKey; 2]> = LazyLock::new(|| {
    [FIRST, SECOND].map(|attempt| {
        let peer = session(attempt).public();
        provider().agree(&peer).expect("both keys are sound")
    })
});

static SEALER: LazyLock<KeyText> = LazyLock::new(|| provider().public().text());

fn key(attempt: AttemptKey) -> BoxKey {
    KEYS[usize::from(attempt == SECOND)].clone()
}

/// A relay with its surroundings.
struct Scene {
    relay: Relay,
    now: Tick,
    effects: Vec<RelayEffect>,
    nonce: u8,
}

impl Scene {
    fn new(delivery: Delivery) -> Self {
        let shape = Shape {
            delivery,
            include_usage: true,
            output_tokens_max: 100,
        };
        let mut scene = Self {
            relay: Relay::new(Framing::new(RequestId(9), 5, "public"), shape),
            now: Tick::ZERO,
            effects: Vec::new(),
            nonce: 0,
        };
        scene.begin(FIRST);
        scene
    }

    fn step(&mut self, event: RelayEvent<'_>) -> Vec<RelayEffect> {
        self.effects.clear();
        self.relay.step(self.now, event, &mut self.effects);
        self.effects.clone()
    }

    fn begin(&mut self, attempt: AttemptKey) {
        let sealer = *SEALER;
        let key = key(attempt);
        self.step(RelayEvent::AttemptBegan {
            attempt,
            key,
            sealer,
        });
    }

    fn sealed(&mut self, attempt: AttemptKey, text: &str) -> ChunkFrame<'static> {
        self.nonce = self.nonce.wrapping_add(1);
        let mut ciphertext = String::new();
        key(attempt).seal_text(
            [self.nonce; 24],
            text.as_bytes(),
            &mut vec![],
            &mut ciphertext,
        );
        ChunkFrame {
            request_id: Text::from("any"),
            encrypted_data: Some(SealedText {
                ephemeral_public_key: Text::from(SEALER.to_string()),
                ciphertext: Text::from(ciphertext),
            }),
            data: Text::default(),
        }
    }

    fn chunk(&mut self, attempt: AttemptKey, text: &str) -> Vec<RelayEffect> {
        let chunk = self.sealed(attempt, text);
        self.step(RelayEvent::ChunkCame {
            attempt,
            chunk: &chunk,
        })
    }

    fn says(&mut self, text: &str) -> Vec<RelayEffect> {
        self.chunk(FIRST, &content(text))
    }

    fn complete(&mut self) -> Vec<RelayEffect> {
        self.step(RelayEvent::Completed {
            attempt: FIRST,
            usage: usage(),
            reasoning_tokens: 0,
        })
    }

    fn finish(&mut self) -> Vec<RelayEffect> {
        self.step(RelayEvent::Finished { usage: usage() })
    }

    fn taken(&mut self) -> String {
        let mut bytes = Vec::new();
        self.relay.take(&mut bytes);
        String::from_utf8(bytes).expect("everything we write is text")
    }

    fn events(&mut self) -> Vec<Value> {
        events(&self.taken())
    }
}

fn usage() -> Usage {
    Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
    }
}

fn content(text: &str) -> String {
    let event = json!({"id":"x","object":"chat.completion.chunk","model":"acme/secret-build",
        "choices":[{"index":0,"delta":{"content":text},"finish_reason":null}]});
    format!("data: {event}\n\n")
}

fn events(text: &str) -> Vec<Value> {
    text.split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").expect("one data line"))
        .filter(|payload| *payload != "[DONE]")
        .map(|payload| serde_json::from_str(payload).expect("JSON"))
        .collect()
}

fn said(events: &[Value]) -> String {
    let pieces = events.iter().map(|event| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default()
    });
    pieces.collect()
}

const PREAMBLE: &str = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
const FINISH: &str =
    r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":999}}"#;

#[test]
fn a_streamed_answer_arrives_in_the_consumers_shape() {
    let mut scene = Scene::new(Delivery::Streamed);
    assert_eq!(scene.chunk(FIRST, PREAMBLE), []);
    assert_eq!(
        scene.says("hel"),
        [RelayEffect::AttemptStarted { attempt: FIRST }]
    );
    assert_eq!(
        scene.step(RelayEvent::Released),
        [RelayEffect::Open, RelayEffect::Readable]
    );
    assert_eq!(scene.says("lo"), [RelayEffect::Readable]);
    assert_eq!(scene.chunk(FIRST, FINISH), []);
    assert_eq!(scene.chunk(FIRST, "data: [DONE]\n\n"), []);
    assert_eq!(
        scene.complete(),
        [RelayEffect::AttemptCompleted {
            attempt: FIRST,
            usage: usage(),
            relayed_tokens_max: 6,
        }]
    );
    assert_eq!(scene.finish(), [RelayEffect::Readable, RelayEffect::Close]);

    let text = scene.taken();
    assert_eq!(text.matches("[DONE]").count(), 1);
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(!text.contains("secret-build"), "the build is not public");
    let events = events(&text);
    assert_eq!(said(&events), "hello");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(events[1]["choices"][0]["delta"].get("role").is_none());
    for event in &events {
        assert_eq!(event["model"], "public");
        assert_eq!(event["object"], "chat.completion.chunk");
    }
    assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[3]["usage"]["total_tokens"], 5);
    assert!(scene.relay.is_over());
}

#[test]
fn a_whole_answer_is_gathered_and_comes_at_once() {
    let mut scene = Scene::new(Delivery::Whole);
    assert_eq!(
        scene.says("hel"),
        [RelayEffect::AttemptStarted { attempt: FIRST }]
    );
    assert_eq!(scene.step(RelayEvent::Released), []);
    assert_eq!(scene.says("lo"), []);
    scene.chunk(FIRST, FINISH);
    scene.complete();
    assert_eq!(scene.taken(), "", "the settlement is not durable yet");
    assert_eq!(
        scene.finish(),
        [RelayEffect::Open, RelayEffect::Readable, RelayEffect::Close]
    );
    let whole: Value = serde_json::from_str(&scene.taken()).expect("JSON");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["content"], "hello");
    assert_eq!(whole["usage"]["completion_tokens"], 2);
}

#[test]
fn nothing_is_shown_before_the_hold_is_durable() {
    let mut scene = Scene::new(Delivery::Streamed);
    for _ in 0..300 {
        let effects = scene.says("x");
        assert!(!effects.contains(&RelayEffect::Open));
        assert!(!effects.contains(&RelayEffect::Readable));
    }
    assert_eq!(scene.taken(), "");
    scene.step(RelayEvent::Released);
    assert_eq!(scene.events().len(), 300);
}

#[test]
fn the_finish_waits_for_the_settlement() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    let both = r#"data: {"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}"#;
    scene.chunk(FIRST, both);
    scene.complete();
    let before = scene.taken();
    assert_eq!(said(&events(&before)), "a");
    assert!(!before.contains("length") && !before.contains("[DONE]"));
    scene.finish();
    assert!(scene.taken().contains(r#""finish_reason":"length""#));
}

#[test]
fn failing_over_before_content_is_invisible_and_old_chunks_are_ignored() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.chunk(FIRST, PREAMBLE);
    let fault = AttemptFault::Busy;
    assert_eq!(
        scene.step(RelayEvent::Errored {
            attempt: FIRST,
            fault
        }),
        [RelayEffect::AttemptFailed {
            attempt: FIRST,
            fault
        }]
    );
    scene.begin(SECOND);
    assert_eq!(scene.says("late"), [], "a chunk of the first attempt");
    assert_eq!(scene.complete(), [], "its terminal as well");
    assert_eq!(scene.relay.counts().stale_chunks, 1);
    scene.step(RelayEvent::Released);
    scene.chunk(SECOND, &content("new"));
    let events = scene.events();
    assert_eq!(said(&events), "new");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
}

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
            [
                RelayEffect::Cancel { attempt: FIRST },
                RelayEffect::AttemptFailed {
                    attempt: FIRST,
                    fault: AttemptFault::Encryption
                }
            ]
        );
        let denial = Denial::Encryption;
        assert_eq!(
            scene.step(RelayEvent::Denied { denial }),
            [RelayEffect::Refuse { denial }]
        );
    }
}

#[test]
fn a_sealed_chunk_that_is_no_event_ends_the_attempt_as_a_fault() {
    for text in [
        "data: {",
        "data: 7",
        r#"{"choices":[]}"#,
        r#"data: {"choices":[{"delta":{"content":7}}]}"#,
        r#"data: {"error":{"message":"boom"}}"#,
        r#"data: {"choices":[{"delta":{"tool_calls":{}}}]}"#,
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
fn an_error_after_content_is_one_event_and_no_done() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.says("half");
    let denial = Denial::ProviderFailed;
    assert_eq!(
        scene.step(RelayEvent::Denied { denial }),
        [RelayEffect::Readable, RelayEffect::Close]
    );
    let text = scene.taken();
    assert!(!text.contains("[DONE]"));
    let events = events(&text);
    assert_eq!(events[1]["error"]["code"], "provider_error");
    assert_eq!(scene.says("more"), []);
    assert_eq!(scene.finish(), []);
}

#[test]
fn an_error_while_all_is_held_back_is_still_a_status() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.says("held");
    let denial = Denial::ProviderFailed;
    assert_eq!(
        scene.step(RelayEvent::Denied { denial }),
        [RelayEffect::Refuse { denial }]
    );
    assert_eq!(scene.taken(), "");
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
        [
            RelayEffect::Cancel { attempt: FIRST },
            RelayEffect::AttemptFailed {
                attempt: FIRST,
                fault: AttemptFault::ConsumerStalled
            }
        ]
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
    while !scene
        .says("x")
        .contains(&RelayEffect::Cancel { attempt: FIRST })
    {
        count += 1;
        assert!(count <= BUFFER_EVENTS_MAX * OVERFLOW_FACTOR);
    }
    assert_eq!(count, BUFFER_EVENTS_MAX * OVERFLOW_FACTOR);
}

#[test]
fn what_was_relayed_is_settled_after_the_consumer_left() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.says("abc");
    assert_eq!(scene.step(RelayEvent::ConsumerLeft), []);
    assert_eq!(scene.says("never counted"), []);
    assert_eq!(
        scene.complete(),
        [RelayEffect::AttemptCompleted {
            attempt: FIRST,
            usage: usage(),
            relayed_tokens_max: 4,
        }]
    );
    assert_eq!(scene.finish(), []);
    assert_eq!(scene.taken(), "");
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
fn a_whole_response_in_one_chunk_is_an_answer() {
    let text = r#"data: {"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"all"},"finish_reason":"length"}]}"#;
    for delivery in [Delivery::Streamed, Delivery::Whole] {
        let mut scene = Scene::new(delivery);
        scene.step(RelayEvent::Released);
        scene.chunk(FIRST, text);
        scene.complete();
        scene.finish();
        let text = scene.taken();
        assert!(text.contains(r#""content":"all""#));
        assert!(text.contains(r#""finish_reason":"length""#));
    }
}

#[test]
fn an_answer_without_a_word_is_an_answer() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.chunk(FIRST, FINISH);
    scene.complete();
    assert_eq!(
        scene.finish(),
        [RelayEffect::Open, RelayEffect::Readable, RelayEffect::Close]
    );
    let events = scene.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[1]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn an_answer_of_all_its_tokens_was_cut() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.says("x");
    scene.chunk(FIRST, FINISH);
    scene.complete();
    let usage = Usage {
        prompt_tokens: 1,
        completion_tokens: 100,
    };
    scene.step(RelayEvent::Finished { usage });
    assert!(scene.taken().contains(r#""finish_reason":"length""#));
}

#[test]
fn progress_is_told_by_count_and_by_time() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.says("x");
    for _ in 1..PROGRESS_PIECES {
        assert_eq!(scene.says("x"), []);
    }
    let tokens = PROGRESS_PIECES + 1;
    assert_eq!(
        scene.says("x"),
        [RelayEffect::AttemptProgressed {
            attempt: FIRST,
            tokens
        }]
    );
    scene.now = scene.now + PROGRESS_SPAN;
    let tokens = tokens + 1;
    assert_eq!(
        scene.says("x"),
        [RelayEffect::AttemptProgressed {
            attempt: FIRST,
            tokens
        }]
    );
}

#[test]
fn escapes_do_not_widen_what_a_provider_may_claim() {
    let mut scene = Scene::new(Delivery::Streamed);
    let text = r#"data: {"choices":[{"delta":{"content":"\u0061\u0062\n"}}]}"#;
    scene.chunk(FIRST, text);
    assert_eq!(scene.relay.counts().text_bytes, 3);
}

proptest! {
    #[test]
    fn a_streamed_text_is_the_text_that_was_said(pieces in prop::collection::vec(".{0,12}", 0..40)) {
        let mut scene = Scene::new(Delivery::Streamed);
        scene.step(RelayEvent::Released);
        let mut read = Vec::new();
        for (ix, piece) in pieces.iter().enumerate() {
            scene.says(piece);
            if ix % 3 == 0 {
                read.extend(scene.events());
            }
        }
        scene.complete();
        scene.finish();
        read.extend(scene.events());
        prop_assert_eq!(said(&read), pieces.concat());
        let bytes: usize = pieces.iter().map(String::len).sum();
        prop_assert_eq!(scene.relay.counts().text_bytes, bytes as u64);
    }

    #[test]
    fn arbitrary_sealed_text_never_panics_and_never_breaks_the_framing(text in any::<String>()) {
        let mut scene = Scene::new(Delivery::Streamed);
        scene.step(RelayEvent::Released);
        scene.says("a");
        scene.chunk(FIRST, &text);
        scene.chunk(FIRST, &format!("data: {text}"));
        scene.step(RelayEvent::Denied { denial: Denial::ProviderFailed });
        prop_assert!(scene.events().len() >= 2);
    }

    #[test]
    fn two_relays_with_the_same_past_have_the_same_digest(pieces in prop::collection::vec(".{0,6}", 0..9)) {
        let run = || {
            let mut scene = Scene::new(Delivery::Streamed);
            for piece in &pieces {
                scene.says(piece);
            }
            scene.relay.digest()
        };
        prop_assert_eq!(run(), run());
    }
}
