//! The coordinator's end of a connection: whatever arrives in whatever order, it joins once, leaves
//! once, ends each attempt at most once, writes one frame at a time and says nothing after its close.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use cereus_core::config::{Catalog, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::envelope::SecretKey;
use cereus_core::event::{Event, GoneCause, Shown};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, ModelIx, WireId};
use cereus_core::link::{
    LinkConfig, LinkEffect, LinkEvent, LinkMisuse, LinkOut, LinkRules, Owners, ProviderLink,
};
use cereus_core::money::Price;
use cereus_core::time::{Span, Tick};
use cereus_core::wire::messages::{
    AttestationResponse, InferenceAccepted, InferenceComplete, InferenceError, LoadModelStatus,
    ModelEntry, Register, UsageFrame, Verbatim, encode_inference_request,
};
use cereus_core::wire::proof::{Blob, MachineKey, Posture};
use cereus_core::wire::{Frame, Text, ToProvider, encode_chunk};
use cereus_fuzz::nested::unfolded;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Op {
    Accepted(u8),
    /// An answer to the last challenge that was written.
    Answered {
        signature: String,
        is_for_us: bool,
    },
    Cancel(u8),
    Chunk {
        wire: u8,
        forgery: Option<bool>,
        text: String,
    },
    ChunkRefused(u8),
    Close,
    Completed {
        wire: u8,
        prompt: i64,
        completion: i64,
    },
    Disconnect(u8),
    Dispatch(u8),
    Errored {
        wire: u8,
        status: i64,
        reason: String,
        error: String,
    },
    Frame(Vec<u8>),
    LoadStatus {
        status: u8,
        error: bool,
    },
    Load(u16),
    Oversized,
    Passed(u32),
    Register {
        is_attested: bool,
        can_seal: bool,
    },
    Send(bool),
    SocketClosed(Option<u16>),
    Woke,
    WriteFinished,
}

const OPS_MAX: usize = 120;
const WIRES: u8 = 6;
const FRAME_SIZE_MAX: usize = 16 << 10;
const MODEL: &str = "acme/tiny";
const CONN: ConnId = ConnId(9);

static SEALING: LazyLock<String> = LazyLock::new(|| {
    let public = SecretKey::from_bytes([0x44; 32]).public();
    public.text().as_str().to_owned()
});
static ATTESTED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = MachineKey::from_bytes([7; 32]).expect("a key");
    let blob = Blob {
        encryption_public_key: Some(Text::from(SEALING.as_str())),
        public_key: Text::from(key.attested().text()),
        timestamp: Text::from("2026-07-01T00:00:00Z"),
        ..Blob::default()
    };
    let signed = key.sign_blob(&blob);
    registered(|register| register.attestation = Some(Verbatim(&signed)))
});
static RULES: LazyLock<LinkRules> = LazyLock::new(|| {
    let spec = |id: &str| ModelSpec {
        id: id.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1,
    };
    LinkRules {
        config: LinkConfig {
            frame_size_max: FRAME_SIZE_MAX,
            control_frames_max: 4,
            data_frames_max: 4,
            queued_bytes_max: 4_096,
            attempts_max: 4,
            stray_ids_max: 4,
            ..LinkConfig::reference(Seed::from_number(5), 1_782_864_000, Posture::Advisory)
        },
        catalog: Catalog::new(vec![spec(MODEL), spec("acme/zebra")]).expect("two models"),
        owners: Owners::new(vec![(Owners::digest("tok"), AccountId(8))]),
    }
});

fuzz_target!(|ops: Vec<Op>| {
    let run = |ops: &[Op]| {
        let mut scene = Scene::new();
        for op in ops.iter().take(OPS_MAX) {
            scene.apply(op);
        }
        scene.link.digest()
    };
    assert_eq!(run(&ops), run(&ops), "INV-18");
});

struct Scene {
    link: ProviderLink,
    now: Tick,
    out: LinkOut,
    /// Attempts between dispatch and terminal. The link may forget cancelled ones.
    live: BTreeMap<u8, Live>,
    dispatched: u32,
    is_writing: bool,
    joined: u32,
    left: u32,
    closed: u32,
    nonce: Option<String>,
}

#[derive(Clone, Copy)]
struct Live {
    attempt: AttemptKey,
    is_cancelled: bool,
}

fn wire(number: u8) -> WireId {
    WireId::from_bits(u128::from(number % WIRES))
}

fn encoded<M: Frame>(message: &M) -> Vec<u8> {
    let mut out = vec![];
    message.encode(&mut out);
    out
}

fn registered<'a>(change: impl FnOnce(&mut Register<'a>)) -> Vec<u8> {
    let mut register = Register {
        models: vec![ModelEntry {
            id: Text::from(MODEL),
            ..ModelEntry::default()
        }],
        backend: Text::from("cereus-mlx"),
        version: Text::from("0.6.40"),
        public_key: Text::from(SEALING.clone()),
        encrypted_response_chunks: true,
        ..Register::default()
    };
    change(&mut register);
    encoded(&register)
}

impl Scene {
    fn new() -> Self {
        Self {
            link: ProviderLink::new(Tick::ZERO, CONN, AccountId(3), &RULES.config),
            now: Tick::ZERO,
            out: LinkOut::default(),
            live: BTreeMap::new(),
            dispatched: 0,
            is_writing: false,
            joined: 0,
            left: 0,
            closed: 0,
            nonce: None,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Accepted(number) => {
                let request_id = Text::from(wire(*number).to_string());
                self.frame(&encoded(&InferenceAccepted { request_id }));
            }
            Op::Answered {
                signature,
                is_for_us,
            } => self.answer(signature, *is_for_us),
            Op::Cancel(number) => self.cancel(*number % WIRES),
            Op::Chunk {
                wire,
                forgery,
                text,
            } => self.chunk(*wire % WIRES, *forgery, text),
            Op::ChunkRefused(number) => {
                let wire = wire(*number);
                self.step(LinkEvent::ChunkRefused { wire });
            }
            Op::Close => {
                self.step(LinkEvent::CloseRequested {
                    code: 1001,
                    reason: "drain:deploy",
                });
            }
            Op::Completed {
                wire: number,
                prompt,
                completion,
            } => {
                let usage = UsageFrame {
                    prompt_tokens: *prompt,
                    completion_tokens: *completion,
                    cached_tokens: *completion,
                    ..UsageFrame::default()
                };
                let request_id = Text::from(wire(*number).to_string());
                let complete = InferenceComplete {
                    request_id,
                    usage,
                    ..InferenceComplete::default()
                };
                self.frame(&encoded(&complete));
            }
            Op::Disconnect(cause) => {
                let causes = [GoneCause::Silent, GoneCause::Replaced, GoneCause::Violation];
                let cause = causes[usize::from(*cause) % causes.len()];
                self.step(LinkEvent::DisconnectRequested { cause });
            }
            Op::Dispatch(number) => self.dispatch(*number % WIRES),
            Op::Errored {
                wire: number,
                status,
                reason,
                error,
            } => {
                self.frame(&encoded(&InferenceError {
                    request_id: Text::from(wire(*number).to_string()),
                    error: Text::from(error.as_str()),
                    status_code: *status,
                    error_reason: Text::from(reason.as_str()),
                }));
            }
            Op::Frame(bytes) => self.frame(&unfolded(bytes)),
            Op::Load(model) => {
                let misuse = self.try_step(LinkEvent::LoadRequested {
                    model: ModelIx(*model),
                });
                assert_eq!(misuse.is_err(), !self.link.is_closed() && *model > 1);
            }
            Op::LoadStatus { status, error } => {
                let statuses = ["started", "succeeded", "failed", "?"];
                self.frame(&encoded(&LoadModelStatus {
                    model_id: Text::from(MODEL),
                    status: Text::from(statuses[usize::from(*status) % statuses.len()]),
                    error: Text::from(if *error {
                        LoadModelStatus::DRAINING
                    } else {
                        ""
                    }),
                }));
            }
            Op::Oversized => {
                self.frame(&[b' '; FRAME_SIZE_MAX + 1]);
                assert!(
                    self.link.is_closed(),
                    "a frame too large ends the connection"
                );
            }
            Op::Passed(millis) => self.now = self.now + Span::millis(u64::from(*millis)),
            Op::Register {
                is_attested: true, ..
            } => self.frame(&ATTESTED),
            Op::Register { can_seal, .. } => {
                let frame = registered(|register| register.encrypted_response_chunks = *can_seal);
                self.frame(&frame);
            }
            Op::Send(is_control) => {
                // Each goes by a lane of its own.
                self.step(if *is_control {
                    LinkEvent::IdentityContested
                } else {
                    LinkEvent::LoadRequested { model: ModelIx(0) }
                });
            }
            Op::SocketClosed(code) => self.step(LinkEvent::SocketClosed { code: *code }),
            Op::Woke => self.step(LinkEvent::Woke),
            Op::WriteFinished => {
                let was_writing = core::mem::take(&mut self.is_writing);
                let is_closed = self.link.is_closed();
                let answer = self.try_step(LinkEvent::WriteFinished);
                assert_eq!(answer.is_err(), !was_writing && !is_closed);
            }
        }
        let limits = &RULES.config;
        assert!(
            self.link.attempts_count() <= limits.attempts_max,
            "INV-12: attempts"
        );
        assert_eq!(
            self.link.next_wake().is_none(),
            self.link.is_closed(),
            "it always wakes"
        );
    }

    fn step(&mut self, event: LinkEvent<'_>) {
        self.try_step(event).expect("the shell keeps the contract");
    }

    fn frame(&mut self, frame: &[u8]) {
        self.step(LinkEvent::FrameReceived(frame));
    }

    fn try_step(
        &mut self,
        event: LinkEvent<'_>,
    ) -> Result<Option<(AttemptKey, String)>, LinkMisuse> {
        let was_closed = self.link.is_closed();
        let answer = self.link.step(self.now, event, &RULES, &mut self.out);
        let chunk = answer.map(|chunk| chunk.map(|it| (it.attempt, it.ciphertext.to_string())));
        assert!(
            !was_closed || self.out.list.is_empty(),
            "something follows the close"
        );
        for effect in core::mem::take(&mut self.out.list) {
            self.carry_out(effect);
        }
        chunk
    }

    fn carry_out(&mut self, effect: LinkEffect) {
        assert_eq!(self.closed, 0, "something follows the close");
        match effect {
            LinkEffect::Close { .. } => self.closed += 1,
            LinkEffect::Completed { wire, .. } => self.ended(wire),
            LinkEffect::Tell(event) => self.told(&event),
            LinkEffect::Write { frame, deadline } => {
                assert!(!self.is_writing, "one frame at a time");
                assert!(deadline > self.now, "a write has its time");
                self.is_writing = true;
                let message = ToProvider::decode(&frame).expect("what we write can be read");
                if let ToProvider::AttestationChallenge(challenge) = message {
                    self.nonce = Some(challenge.nonce.to_string());
                }
            }
        }
    }

    fn told(&mut self, event: &Event<'_>) {
        assert_eq!(self.left, 0, "something follows the farewell");
        match event {
            Event::ProviderJoined { .. } => self.joined += 1,
            Event::ProviderLeft { .. } => {
                self.left += 1;
                self.live.clear();
            }
            Event::AttemptFailed { attempt, .. } => {
                let number = u8::try_from(attempt.slot).expect("ours");
                self.ended(wire(number));
            }
            Event::AttemptAccepted { attempt, .. } => {
                let number = u8::try_from(attempt.slot).expect("ours");
                assert!(self.is_running(number), "only what runs is accepted");
            }
            _ => {}
        }
        assert_eq!(
            self.joined, 1,
            "nothing comes before the registration, which comes once"
        );
    }

    fn ended(&mut self, id: WireId) {
        let number = (0..WIRES).find(|number| wire(*number) == id).expect("ours");
        assert!(
            self.live.remove(&number).is_some(),
            "INV-02: an attempt ended twice"
        );
    }

    fn is_running(&self, number: u8) -> bool {
        self.live
            .get(&number)
            .is_some_and(|live| !live.is_cancelled)
    }

    fn dispatch(&mut self, number: u8) {
        // The coordinator dispatches to providers that it heard of.
        if self.joined == 0 || self.left > 0 {
            return;
        }
        let mut frame = vec![];
        encode_inference_request(wire(number), "key", None, "box", "", &mut frame);
        self.dispatched += 1;
        let attempt = AttemptKey {
            slot: u32::from(number),
            generation: self.dispatched,
        };
        let was_running = self.is_running(number);
        let before = self.live.insert(
            number,
            Live {
                attempt,
                is_cancelled: false,
            },
        );
        let event = LinkEvent::DispatchRequested {
            attempt,
            wire: wire(number),
            frame,
        };
        let answer = self.try_step(event);
        assert!(
            answer.is_err() || !was_running,
            "a wire id carries one attempt"
        );
        if answer.is_err() {
            self.live
                .insert(number, before.expect("only an id in use is refused"));
        }
    }

    fn cancel(&mut self, number: u8) {
        let Some(live) = self.live.get_mut(&number) else {
            return;
        };
        live.is_cancelled = true;
        let attempt = live.attempt;
        self.step(LinkEvent::CancelRequested {
            attempt,
            shown: Shown::default(),
        });
    }

    fn answer(&mut self, signature: &str, is_for_us: bool) {
        let Some(nonce) = self.nonce.clone() else {
            return;
        };
        let key = if is_for_us { SEALING.as_str() } else { "other" };
        self.frame(&encoded(&AttestationResponse {
            nonce: Text::from(nonce),
            signature: Text::from(signature),
            public_key: Text::from(key),
            ..AttestationResponse::default()
        }));
    }

    fn chunk(&mut self, number: u8, forgery: Option<bool>, text: &str) {
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        let text: String = text
            .chars()
            .filter(|c| c.is_ascii() && is_base64(*c as u8))
            .collect();
        let mut frame = vec![];
        match forgery {
            None => encode_chunk(wire(number), &SEALING, &text, &mut frame),
            Some(true) => encode_chunk(wire(number), "other", &text, &mut frame),
            Some(false) => {
                let id = wire(number);
                frame = format!(
                    r#"{{"type":"inference_response_chunk","request_id":"{id}","data":"plain"}}"#
                )
                .into_bytes();
            }
        }
        let is_running = self.is_running(number);
        let chunk = self
            .try_step(LinkEvent::FrameReceived(&frame))
            .expect("a frame is no misuse");
        match chunk {
            Some((attempt, ciphertext)) => {
                assert_eq!(attempt.slot, u32::from(number));
                assert_eq!(ciphertext, text, "not a byte is changed");
                assert!(is_running && forgery.is_none(), "nothing else is relayed");
            }
            None => assert!(
                !is_running || forgery.is_some() || !self.live.contains_key(&number),
                "a chunk was lost"
            ),
        }
    }
}
