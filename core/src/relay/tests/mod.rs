use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;
use crate::api::{Api, Writer};
use crate::envelope::{PublicKey, SecretKey};
use crate::event::{Shown, Usage};
use crate::ids::RequestId;
use crate::time::Tick;
use crate::wire::{ChunkFrame, Text, messages::SealedText};

mod bounds;
mod flow;
mod laws;
mod trails;

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

/// More than any answer here has, but for those that are too long.
const OUTPUT_TOKENS_MAX: u32 = 2_000;

/// What the relay counts of an answer without thoughts and calls.
fn shown(pieces: u32, text_bytes: u32) -> Shown {
    Shown {
        pieces,
        text_bytes,
        marks: END_TOKENS,
        counted: None,
    }
}

fn shape(delivery: Delivery, output_tokens_max: u32) -> Shape {
    Shape {
        delivery,
        include_usage: true,
        output_tokens_max,
        stop_bytes_max: 0,
        silent_tokens_max: 0,
    }
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
        Self::bounded(delivery, OUTPUT_TOKENS_MAX)
    }

    fn bounded(delivery: Delivery, output_tokens_max: u32) -> Self {
        Self::shaped(shape(delivery, output_tokens_max))
    }

    fn shaped(shape: Shape) -> Self {
        Self::with(Api::Chat, shape)
    }

    fn of(api: Api, delivery: Delivery) -> Self {
        Self::with(api, shape(delivery, OUTPUT_TOKENS_MAX))
    }

    fn with(api: Api, shape: Shape) -> Self {
        let mut scene = Self {
            relay: Relay::new(Writer::relayed(api, RequestId(9), 5, "public"), shape),
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
        self.step(RelayEvent::AttemptDispatched {
            attempt,
            is_second: false,
        });
        self.seal(attempt);
    }

    /// The attempt's connection has sealed the request.
    fn seal(&mut self, attempt: AttemptKey) {
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
                session_step: None,
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
            parts: UsageParts::default(),
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
