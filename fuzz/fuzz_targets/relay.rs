//! One answer: whatever a provider seals or forgets to seal, nothing panics, and the consumer gets
//! every content byte of the running attempt, in order, once, and nothing else.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use cereus_core::api::{Api, Delivery, Writer};
use cereus_core::denial::Denial;
use cereus_core::envelope::{BoxKey, KeyText, SecretKey};
use cereus_core::event::{Usage, UsageParts};
use cereus_core::ids::{AttemptKey, RequestId};
use cereus_core::relay::{RACING_MAX, Relay, RelayEffect, RelayEvent, Shape};
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
        cached_tokens: u16,
    },
    ConsumerLeft,
    Denied,
    Dispatch(u8),
    Ended(u8),
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
const ATTEMPTS: u8 = 6;

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
    racing: Racing,
    /// Whose content the consumer is given.
    winner: Option<u8>,
    /// What the consumer must get.
    content: Content,
    taken: Vec<u8>,
    is_opened: bool,
    is_released: bool,
    has_closed: bool,
    has_left: bool,
    dispatched: [bool; ATTEMPTS as usize],
}

/// Which attempts the relay knows, by a plain list.
#[derive(Debug, Default)]
struct Racing {
    runners: Vec<Runner>,
}

#[derive(Debug)]
struct Runner {
    number: u8,
    is_sealed: bool,
    is_mute: bool,
    /// What it said while another had won; nothing for what does not open.
    held: Vec<Option<Vec<u8>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BrokenOff {
    Cut,
    Failed,
    No,
}

impl Racing {
    fn push(&mut self, number: u8) {
        if self.runners.len() == RACING_MAX {
            self.runners.remove(0);
        }
        self.runners.push(Runner {
            number,
            is_sealed: false,
            is_mute: false,
            held: vec![],
        });
    }

    fn remove(&mut self, number: u8) {
        self.runners.retain(|runner| runner.number != number);
    }

    fn seal(&mut self, number: u8) {
        for runner in &mut self.runners {
            runner.is_sealed |= runner.number == number && !runner.is_mute;
        }
    }

    fn mute(&mut self, which: impl Fn(u8) -> bool) {
        for runner in &mut self.runners {
            runner.is_mute |= which(runner.number);
        }
    }

    fn hold(&mut self, number: u8, text: Option<Vec<u8>>) {
        let mut runners = self.runners.iter_mut();
        if let Some(runner) = runners.find(|runner| runner.number == number) {
            runner.held.push(text);
        }
    }

    fn take_held(&mut self, number: u8) -> Vec<Option<Vec<u8>>> {
        let mut runners = self.runners.iter_mut();
        let runner = runners.find(|runner| runner.number == number && !runner.is_mute);
        runner.map_or_else(Vec::new, |runner| core::mem::take(&mut runner.held))
    }

    fn runs(&self, number: u8) -> bool {
        let mut runners = self.runners.iter();
        runners.any(|runner| runner.number == number && !runner.is_mute)
    }

    /// Its chunks count.
    fn shows(&self, number: u8) -> bool {
        let mut runners = self.runners.iter();
        runners.any(|runner| runner.number == number && !runner.is_mute && runner.is_sealed)
    }
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
            stop_bytes_max: 0,
            silent_tokens_max: 0,
        };
        Self {
            relay: Relay::new(Writer::relayed(Api::Chat, RequestId(9), 5, "public"), shape),
            shape,
            now: Tick::ZERO,
            out: vec![],
            nonce: 0,
            racing: Racing::default(),
            winner: None,
            content: Content::default(),
            taken: vec![],
            is_opened: false,
            is_released: false,
            has_closed: false,
            has_left: false,
            dispatched: [false; ATTEMPTS as usize],
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
                self.racing.mute(|it| it == *number % ATTEMPTS);
                if self.winner == Some(*number % ATTEMPTS) {
                    self.disown(*number % ATTEMPTS);
                }
            }
            Op::Chunk { attempt, text } => self.chunk(*attempt % ATTEMPTS, text),
            Op::Completed {
                attempt,
                cached_tokens,
            } => {
                let pieces = self.relay.counts().pieces;
                let parts = UsageParts {
                    cached_tokens: u32::from(*cached_tokens),
                    reasoning_tokens: 1,
                };
                self.step(RelayEvent::Completed {
                    attempt: attempt_key(*attempt),
                    parts,
                });
                self.completed(*attempt % ATTEMPTS, pieces);
            }
            Op::ConsumerLeft => {
                self.step(RelayEvent::ConsumerLeft);
                self.has_left = true;
                self.racing.mute(|_| true);
            }
            Op::Denied => self.denied(),
            Op::Dispatch(number) => self.dispatch(*number % ATTEMPTS),
            Op::Ended(number) => {
                let attempt = attempt_key(*number);
                self.step(RelayEvent::AttemptEnded { attempt });
                self.racing.remove(*number % ATTEMPTS);
                if self.winner == Some(*number % ATTEMPTS) {
                    self.disown(*number % ATTEMPTS);
                }
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
        if let Some(winner) = self.winner.filter(|_| self.is_opened) {
            // What was seen cannot be taken back.
            self.racing.mute(|it| it != winner);
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
                RelayEffect::AttemptCut { .. }
                | RelayEffect::AttemptFailed { .. }
                | RelayEffect::AttemptProgressed { .. }
                | RelayEffect::AttemptStarted { .. }
                | RelayEffect::Close => {}
            }
        }
    }

    /// The coordinator names each attempt once.
    fn dispatch(&mut self, number: u8) {
        if self.is_over() || core::mem::replace(&mut self.dispatched[usize::from(number)], true) {
            return;
        }
        let attempt = attempt_key(number);
        self.step(RelayEvent::AttemptDispatched {
            attempt,
            is_second: false,
        });
        self.racing.push(number);
        let is_over = self.winner.is_none_or(|winner| !self.racing.runs(winner));
        if is_over && !self.is_opened {
            self.winner = None;
            self.content = Content::default();
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
        assert!(self.out.is_empty(), "a key alone shows nothing");
        if !self.is_over() {
            self.racing.seal(number);
        }
    }

    fn completed(&mut self, number: u8, pieces: u32) {
        let held = self.racing.take_held(number);
        if held.is_empty() || self.has_rival_won(number) {
            assert!(self.out.is_empty(), "what an end means the core says");
        } else {
            self.opened(number, &held, pieces);
        }
        self.racing.remove(number);
    }

    /// How the last step ended an attempt, if it did.
    fn broken_off(&mut self) -> BrokenOff {
        let mut broken_off = BrokenOff::No;
        for effect in &self.out {
            let attempt = match effect {
                RelayEffect::AttemptCut { attempt, .. } => {
                    broken_off = BrokenOff::Cut;
                    attempt
                }
                RelayEffect::AttemptFailed { attempt, .. } => {
                    broken_off = BrokenOff::Failed;
                    attempt
                }
                _ => continue,
            };
            let number = u8::try_from(attempt.slot).expect("ours");
            self.racing.remove(number);
        }
        broken_off
    }

    /// Nobody is given what this attempt said, unless somebody has seen it.
    fn disown(&mut self, number: u8) {
        if self.winner.is_none_or(|winner| winner == number) && !self.is_opened {
            self.winner = None;
            self.content = Content::default();
        }
    }

    fn has_rival_won(&self, number: u8) -> bool {
        self.winner.is_some_and(|winner| winner != number)
    }

    fn chunk(&mut self, number: u8, text: &[u8]) {
        let chunk = self.sealed(number, text);
        let pieces = self.relay.counts().pieces;
        let attempt = attempt_key(number);
        let shows = self.racing.shows(number);
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
        self.fed(number, shows, Some(text.to_vec()), pieces);
    }

    /// `text` was fed to the relay, sealed, or something that does not open.
    fn fed(&mut self, number: u8, shows: bool, text: Option<Vec<u8>>, pieces: u32) {
        if !shows || self.has_rival_won(number) {
            assert!(self.out.is_empty(), "what nobody is to see has no effect");
            assert_eq!(self.relay.counts().pieces, pieces);
            if shows {
                self.racing.hold(number, text);
            }
            return;
        }
        let mut texts = self.racing.take_held(number);
        texts.push(text);
        self.opened(number, &texts, pieces);
    }

    /// The relay has read these in turn, up to the first that is nothing.
    fn opened(&mut self, number: u8, texts: &[Option<Vec<u8>>], pieces: u32) {
        let (mut expected, mut is_sound) = (vec![], true);
        for text in texts {
            let (read, is_read) = text.as_deref().map_or((vec![], false), contents);
            expected.extend(read);
            is_sound &= is_read;
            if !is_sound {
                break;
            }
        }
        let broken_off = self.broken_off();
        if broken_off == BrokenOff::Failed && !self.is_opened {
            return self.disown(number);
        }
        let relayed = (self.relay.counts().pieces - pieces) as usize;
        match broken_off {
            BrokenOff::Cut | BrokenOff::Failed => {
                assert!(relayed <= expected.len(), "more than the chunk held");
            }
            BrokenOff::No => {
                assert!(is_sound, "something that is no event was passed over");
                assert_eq!(relayed, expected.len(), "a piece was lost");
            }
        }
        for piece in &expected[..relayed] {
            self.content.push(piece);
        }
        if relayed > 0 {
            self.winner.get_or_insert(number);
        }
    }

    fn forged(&mut self, number: u8, forgery: &Forgery) {
        let mut chunk = self.sealed(number, b"data: {}\n\n");
        let sealed = chunk.encrypted_data.as_mut().expect("it was sealed");
        let mut has_form = false;
        match forgery {
            Forgery::Ciphertext(text) => {
                has_form = true;
                sealed.ciphertext = Text::from(text.as_str());
            }
            Forgery::Missing => chunk.encrypted_data = None,
            Forgery::Plain(text) if text.is_empty() => return,
            Forgery::Plain(text) => chunk.data = Text::from(text.as_str()),
            Forgery::Sealer(text) if text == SEALER.as_str() => return,
            Forgery::Sealer(text) => sealed.ephemeral_public_key = Text::from(text.as_str()),
        }
        let pieces = self.relay.counts().pieces;
        let shows = self.racing.shows(number);
        self.step(RelayEvent::ChunkCame {
            attempt: attempt_key(number),
            chunk: &chunk,
        });
        if has_form {
            return self.fed(number, shows, None, pieces);
        }
        let broken_off = self.broken_off();
        let is_failed = broken_off == BrokenOff::Failed;
        assert_eq!(is_failed, shows, "what is not sealed ends the attempt");
        if is_failed && self.winner == Some(number) {
            self.disown(number);
        }
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
                session_step: None,
            }),
            data: Text::default(),
        }
    }

    fn denied(&mut self) {
        let was_over = self.is_over();
        self.step(RelayEvent::Denied {
            denial: Denial::ProviderFailed,
        });
        self.racing.mute(|_| true);
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
        self.racing.mute(|_| true);
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
