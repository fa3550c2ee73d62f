//! One answer: whatever a provider seals or forgets to seal, nothing panics, and the consumer gets
//! every content byte of the running attempt, in order, once, and nothing else.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use cereus_core::api::{Delivery, Framing};
use cereus_core::denial::Denial;
use cereus_core::envelope::{BoxKey, KeyText, SecretKey};
use cereus_core::event::{AttemptFault, Usage, UsageParts};
use cereus_core::ids::{AttemptKey, RequestId};
use cereus_core::relay::{Relay, RelayEffect, RelayEvent, Shape};
use cereus_core::time::{Span, Tick};
use cereus_core::wire::messages::SealedText;
use cereus_core::wire::{ChunkFrame, Text};
use cereus_fuzz::answer::{Content, contents, streamed, whole};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    is_whole: bool,
    include_usage: bool,
    output_tokens_max: u8,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Begin(u8),
    Cancelled(u8),
    /// Properly sealed, whatever stands in it.
    Chunk {
        attempt: u8,
        text: Vec<u8>,
    },
    Completed {
        attempt: u8,
        tokens: u16,
    },
    ConsumerLeft,
    Denied,
    Errored(u8),
    Finished(u16),
    /// Not sealed as agreed.
    Forged {
        attempt: u8,
        forgery: Forgery,
    },
    Released,
    /// Well-formed events, so that deep paths are reached at once.
    Said {
        attempt: u8,
        words: Vec<String>,
        finish: Option<bool>,
        crlf: bool,
    },
    Take,
    /// Tokens of the language in any order: what is almost an event.
    Tokens {
        attempt: u8,
        tokens: Vec<u8>,
    },
    Woke(u16),
}

#[derive(Arbitrary, Debug)]
enum Forgery {
    Ciphertext(String),
    Missing,
    Plain(String),
    Sealer(String),
}

/// What events are made of, and what may spoil them.
const TOKENS: [&str; 40] = [
    "data: ",
    "data:",
    "{\"choices\":[{\"delta\":{",
    "{\"choices\":[{\"message\":{",
    "}}]}",
    "}]}",
    "},",
    "\"content\":",
    "\"reasoning\":",
    "\"reasoning_content\":",
    "\"refusal\":",
    "\"tool_calls\":[",
    "{\"index\":",
    "\"id\":",
    "\"function\":{",
    "\"name\":",
    "\"arguments\":",
    "\"logprobs\":",
    "\"finish_reason\":",
    "\"error\":",
    "\"a\"",
    "\"\\u0041\\ud83d\\ude00\\n\"",
    "\"\\ud83d\"",
    "\"pöng ✓\"",
    "\"tool_calls\"",
    "null",
    "7",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "\r",
    "\n",
    "\n\n",
    "[DONE]",
    "event: x",
    "\u{2028}",
];
const OPS_MAX: usize = 200;
const ATTEMPTS: u8 = 3;

static PROVIDER: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([7; 32]));
static SEALER: LazyLock<KeyText> = LazyLock::new(|| PROVIDER.public().text());
static KEYS: LazyLock<Vec<BoxKey>> = LazyLock::new(|| {
    (1..=ATTEMPTS)
        .map(|number| {
            let session = SecretKey::from_bytes([number; 32]);
            PROVIDER
                .agree(&session.public())
                .expect("both keys are sound")
        })
        .collect()
});

fuzz_target!(|input: Input| {
    let mut scene = Scene::new(&input);
    for op in input.ops.iter().take(OPS_MAX) {
        scene.apply(op);
    }
    scene.end();
});

/// The relay, and a slow idea of what it should have done.
struct Scene {
    relay: Relay,
    shape: Shape,
    now: Tick,
    out: Vec<RelayEffect>,
    nonce: u64,
    /// The attempt whose chunks count.
    running: Option<u8>,
    /// Its key was taken away: only its terminal counts.
    is_mute: bool,
    /// What the consumer must get.
    content: Content,
    taken: Vec<u8>,
    is_opened: bool,
    is_released: bool,
    has_closed: bool,
    has_left: bool,
}

fn attempt_key(number: u8) -> AttemptKey {
    AttemptKey {
        slot: u32::from(number % ATTEMPTS),
        generation: 1,
    }
}

impl Scene {
    fn new(input: &Input) -> Self {
        let shape = Shape {
            delivery: if input.is_whole {
                Delivery::Whole
            } else {
                Delivery::Streamed
            },
            include_usage: input.include_usage,
            output_tokens_max: u32::from(input.output_tokens_max),
        };
        Self {
            relay: Relay::new(Framing::new(RequestId(9), 5, "public"), shape),
            shape,
            now: Tick::ZERO,
            out: vec![],
            nonce: 0,
            running: None,
            is_mute: true,
            content: Content::default(),
            taken: vec![],
            is_opened: false,
            is_released: false,
            has_closed: false,
            has_left: false,
        }
    }

    fn is_over(&self) -> bool {
        self.has_closed || self.has_left
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Begin(number) => self.begin(*number % ATTEMPTS),
            Op::Cancelled(number) => {
                let attempt = attempt_key(*number);
                self.step(RelayEvent::AttemptCancelled { attempt });
                self.is_mute |= self.running == Some(*number % ATTEMPTS);
            }
            Op::Chunk { attempt, text } => self.chunk(*attempt % ATTEMPTS, text),
            Op::Completed { attempt, tokens } => {
                let key = attempt_key(*attempt);
                self.step(RelayEvent::Completed {
                    attempt: key,
                    usage: usage(*tokens),
                    parts: UsageParts {
                        cached_tokens: u32::from(*tokens),
                        reasoning_tokens: 1,
                    },
                });
                let is_running = self
                    .running
                    .take_if(|it| *it == *attempt % ATTEMPTS)
                    .is_some();
                assert_eq!(is_running, !self.out.is_empty(), "a terminal counts once");
            }
            Op::ConsumerLeft => {
                self.step(RelayEvent::ConsumerLeft);
                self.has_left = true;
                self.is_mute = true;
            }
            Op::Denied => self.denied(),
            Op::Errored(number) => {
                let (attempt, fault) = (attempt_key(*number), AttemptFault::Internal);
                self.step(RelayEvent::Errored { attempt, fault });
                self.running.take_if(|it| *it == *number % ATTEMPTS);
            }
            Op::Finished(tokens) => self.finish(*tokens),
            Op::Forged { attempt, forgery } => self.forged(*attempt % ATTEMPTS, forgery),
            Op::Released => {
                self.step(RelayEvent::Released);
                self.is_released |= !self.is_over();
            }
            Op::Said {
                attempt,
                words,
                finish,
                crlf,
            } => {
                let text = said(words, *finish, *crlf);
                self.chunk(*attempt % ATTEMPTS, text.as_bytes());
            }
            Op::Take => self.take(),
            Op::Tokens { attempt, tokens } => {
                let token = |ix: &u8| TOKENS[usize::from(*ix) % TOKENS.len()];
                let text: String = tokens.iter().map(token).collect();
                self.chunk(*attempt % ATTEMPTS, text.as_bytes());
            }
            Op::Woke(millis) => {
                self.now = self.now + Span::millis(u64::from(*millis));
                self.step(RelayEvent::Woke);
                self.broken_off();
            }
        }
        assert!(
            self.relay
                .next_wake()
                .is_none_or(|(at, _)| at.0 <= self.now.0 + 250_000),
            "the grace is 250 ms"
        );
    }

    fn step(&mut self, event: RelayEvent<'_>) {
        self.out.clear();
        self.relay.step(self.now, event, &mut self.out);
        for effect in &self.out {
            match effect {
                RelayEffect::Open => {
                    assert!(!self.is_opened && !self.is_over(), "headers go out once");
                    self.is_opened = true;
                }
                RelayEffect::Readable => assert!(self.is_opened, "bytes follow the headers"),
                RelayEffect::Refuse { .. } => assert!(!self.is_opened, "the status is taken"),
                RelayEffect::AttemptCompleted { .. }
                | RelayEffect::AttemptFailed { .. }
                | RelayEffect::AttemptProgressed { .. }
                | RelayEffect::AttemptStarted { .. }
                | RelayEffect::Cancel { .. }
                | RelayEffect::Close => {}
            }
        }
    }

    fn begin(&mut self, number: u8) {
        let attempt = attempt_key(number);
        let key = KEYS[usize::from(number)].clone();
        self.step(RelayEvent::AttemptBegan {
            attempt,
            key,
            sealer: *SEALER,
        });
        self.running = Some(number);
        self.is_mute = self.is_over();
        if !self.is_opened && !self.is_over() {
            self.content = Content::default();
        }
    }

    /// Whether the last step ended the running attempt.
    fn broken_off(&mut self) -> bool {
        let is_broken = self
            .out
            .iter()
            .any(|effect| matches!(effect, RelayEffect::AttemptFailed { .. }));
        if is_broken {
            let cancels = |effect: &RelayEffect| matches!(effect, RelayEffect::Cancel { .. });
            assert!(self.out.iter().any(cancels), "the provider is told to stop");
            self.running = None;
        }
        is_broken
    }

    fn chunk(&mut self, number: u8, text: &[u8]) {
        let chunk = self.sealed(number, text);
        let pieces = self.relay.counts().pieces;
        let is_live = self.running == Some(number) && !self.is_mute;
        let attempt = attempt_key(number);
        // By turns as a frame and as what a link has checked already.
        match chunk
            .encrypted_data
            .as_ref()
            .filter(|_| self.nonce.is_multiple_of(2))
        {
            Some(sealed) => {
                let ciphertext = &sealed.ciphertext;
                self.step(RelayEvent::SealedCame {
                    attempt,
                    ciphertext,
                });
            }
            None => self.step(RelayEvent::ChunkCame {
                attempt,
                chunk: &chunk,
            }),
        }
        if !is_live {
            assert!(self.out.is_empty(), "a stale chunk has no effect");
            assert_eq!(self.relay.counts().pieces, pieces);
            return;
        }
        let is_broken = self.broken_off();
        let (expected, is_sound) = contents(text);
        let relayed = (self.relay.counts().pieces - pieces) as usize;
        if is_broken {
            assert!(relayed <= expected.len(), "more than the chunk held");
        } else {
            assert!(is_sound, "something that is no event was passed over");
            assert_eq!(relayed, expected.len(), "a piece was lost");
        }
        for piece in &expected[..relayed] {
            self.content.push(piece);
        }
    }

    fn forged(&mut self, number: u8, forgery: &Forgery) {
        let mut chunk = self.sealed(number, b"data: {}\n\n");
        let sealed = chunk.encrypted_data.as_mut().expect("it was sealed");
        match forgery {
            Forgery::Ciphertext(text) => sealed.ciphertext = Text::from(text.as_str()),
            Forgery::Missing => chunk.encrypted_data = None,
            Forgery::Plain(text) if text.is_empty() => return,
            Forgery::Plain(text) => chunk.data = Text::from(text.as_str()),
            Forgery::Sealer(text) if text == SEALER.as_str() => return,
            Forgery::Sealer(text) => sealed.ephemeral_public_key = Text::from(text.as_str()),
        }
        let is_live = self.running == Some(number) && !self.is_mute;
        self.step(RelayEvent::ChunkCame {
            attempt: attempt_key(number),
            chunk: &chunk,
        });
        assert_eq!(
            self.broken_off(),
            is_live,
            "what is not sealed ends the attempt"
        );
    }

    fn sealed(&mut self, number: u8, text: &[u8]) -> ChunkFrame<'static> {
        self.nonce += 1;
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&self.nonce.to_le_bytes());
        let mut ciphertext = String::new();
        KEYS[usize::from(number)].seal_text(nonce, text, &mut vec![], &mut ciphertext);
        ChunkFrame {
            request_id: Text::from("any"),
            encrypted_data: Some(SealedText {
                ephemeral_public_key: Text::from(SEALER.as_str()),
                ciphertext: Text::from(ciphertext),
            }),
            data: Text::default(),
        }
    }

    fn denied(&mut self) {
        let was_over = self.is_over();
        self.step(RelayEvent::Denied {
            denial: Denial::ProviderFailed,
        });
        self.running = None;
        if was_over {
            assert!(self.out.is_empty());
            return;
        }
        let is_refusal = self
            .out
            .iter()
            .any(|effect| matches!(effect, RelayEffect::Refuse { .. }));
        assert_eq!(is_refusal, !self.is_opened);
        self.has_closed = true;
        self.take();
        if self.is_opened {
            let answer = streamed(&self.taken);
            assert!(
                answer.has_error && !answer.is_done,
                "a broken stream says so, once"
            );
            assert_eq!(
                answer.content, self.content,
                "content was lost before the error"
            );
        } else {
            assert!(self.taken.is_empty(), "nobody sees what was never paid for");
        }
    }

    fn finish(&mut self, tokens: u16) {
        let was_over = self.is_over();
        self.step(RelayEvent::Finished {
            usage: usage(tokens),
        });
        self.running = None;
        if was_over {
            assert!(self.out.is_empty());
            return;
        }
        self.has_closed = true;
        self.is_released = true;
        self.take();
        match self.shape.delivery {
            Delivery::Streamed => {
                let answer = streamed(&self.taken);
                assert!(answer.is_done && !answer.has_error);
                assert_eq!(answer.has_usage, self.shape.include_usage);
                assert_eq!(answer.roles, 1, "the role is told once");
                assert_eq!(answer.finishes, 1);
                assert_eq!(answer.content, self.content, "content was lost");
            }
            Delivery::Whole => assert_eq!(whole(&self.taken), self.content.joined()),
        }
    }

    fn take(&mut self) {
        let mut bytes = vec![];
        self.relay.take(&mut bytes);
        assert!(
            bytes.is_empty() || self.is_opened,
            "bytes before the headers"
        );
        assert!(
            bytes.is_empty() || self.is_released,
            "INV-05: seen before it was paid for"
        );
        self.taken.extend_from_slice(&bytes);
    }

    fn end(&mut self) {
        if !self.is_over() {
            self.finish(3);
        }
        assert!(self.relay.is_over());
        let taken = self.taken.len();
        self.take();
        assert_eq!(self.taken.len(), taken, "bytes after the end");
    }
}

fn usage(tokens: u16) -> Usage {
    Usage {
        prompt_tokens: 5,
        completion_tokens: u32::from(tokens),
    }
}

fn said(words: &[String], finish: Option<bool>, crlf: bool) -> String {
    let mut text = String::new();
    for word in words {
        let quoted = serde_json::to_string(word).expect("text is JSON");
        let finish = match finish {
            None => "null",
            Some(true) => "\"stop\"",
            Some(false) => "\"length\"",
        };
        text += &format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{quoted}}},\"finish_reason\":{finish}}}]}}"
        );
        text += if crlf { "\r\n\r\n" } else { "\n\n" };
    }
    text
}
