mod joining;
mod liveness;
mod property;

use core::fmt::Write as _;

use super::*;
use crate::config::ModelSpec;
use crate::envelope::SecretKey;
use crate::event::{AttemptFault, Shown, Trust};
use crate::ids::ConnId;
use crate::money::Price;
use crate::wire::messages::{
    AttestationResponse, Capacity, Heartbeat, InferenceComplete, InferenceError, ModelEntry,
    ModelsUpdate, Register, UsageFrame, encode_inference_request,
};
use crate::wire::proof::{Blob, MachineKey};
use crate::wire::{Frame, ToProvider, encode_chunk};

const CONN: ConnId = ConnId(9);
const OWNER: AccountId = AccountId(3);
const MODEL: &str = "acme/tiny";

fn rules() -> LinkRules {
    let spec = |id: &str| ModelSpec {
        id: id.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1,
    };
    LinkRules {
        config: LinkConfig::reference(Seed::from_number(5), 1_782_864_000, Posture::Advisory),
        catalog: Catalog::new(vec![spec(MODEL), spec("acme/zebra")]).unwrap(),
        owners: Owners::new(vec![(Owners::digest("tok-8"), AccountId(8))]),
    }
}

fn provider_key() -> SecretKey {
    SecretKey::from_bytes([0x44; 32])
}

fn machine_key() -> MachineKey {
    MachineKey::from_bytes([7; 32]).unwrap()
}

fn wire(number: u128) -> WireId {
    WireId::from_bits(number)
}

fn attempt(number: u32) -> AttemptKey {
    AttemptKey {
        slot: number,
        generation: 1,
    }
}

fn encoded<M: Frame>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn register_with(change: impl FnOnce(&mut Register<'_>)) -> Vec<u8> {
    let sealing = provider_key().public().text();
    let mut register = Register {
        models: vec![ModelEntry {
            id: Text::from(MODEL),
            ..ModelEntry::default()
        }],
        backend: Text::from("cereus-mlx"),
        version: Text::from("0.6.40"),
        public_key: Text::from(sealing.as_str().to_owned()),
        encrypted_response_chunks: true,
        ..Register::default()
    };
    change(&mut register);
    encoded(&register)
}

fn plain_register() -> Vec<u8> {
    register_with(|_| {})
}

/// One link, and everything that came out of it as text.
struct World {
    link: ProviderLink,
    rules: LinkRules,
    now: Tick,
    out: LinkOut,
    log: String,
    /// Frames on the wire, oldest first, each already confirmed unless `holds_writes`.
    written: Vec<Vec<u8>>,
    holds_writes: bool,
}

impl World {
    fn new() -> Self {
        let rules = rules();
        Self {
            link: ProviderLink::new(Tick::ZERO, CONN, OWNER, &rules.config),
            rules,
            now: Tick::ZERO,
            out: LinkOut::default(),
            log: String::new(),
            written: vec![],
            holds_writes: false,
        }
    }

    fn joined() -> Self {
        let mut world = Self::new();
        world.frame(&plain_register());
        world.log.clear();
        world.written.clear();
        world
    }

    /// It has answered its first challenge.
    fn verified() -> Self {
        let mut world = Self::new();
        world.frame(&plain_register());
        world.answer(|_| {});
        world.log.clear();
        world.written.clear();
        world
    }

    fn step(&mut self, event: LinkEvent<'_>) {
        let chunk = self
            .link
            .step(self.now, event, &self.rules, &mut self.out)
            .unwrap();
        if let Some(chunk) = chunk {
            let Chunk {
                attempt,
                ciphertext,
                ..
            } = chunk;
            writeln!(self.log, "chunk {} {}", attempt.slot, &*ciphertext).unwrap();
        }
        for effect in core::mem::take(&mut self.out.list) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: LinkEffect) {
        match effect {
            LinkEffect::Close { code, reason } => {
                writeln!(self.log, "close {code} {reason}").unwrap();
            }
            LinkEffect::Completed { attempt, usage, .. } => {
                let (prompt, completion) = (usage.prompt_tokens, usage.completion_tokens);
                writeln!(self.log, "completed {} {prompt}+{completion}", attempt.slot).unwrap();
            }
            LinkEffect::Tell(event) => writeln!(self.log, "tell {}", told(&event)).unwrap(),
            LinkEffect::Write { frame, .. } => {
                writeln!(self.log, "write {}", kind(&frame)).unwrap();
                self.written.push(frame);
                if !self.holds_writes {
                    self.step(LinkEvent::WriteFinished);
                }
            }
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        self.step(LinkEvent::FrameReceived(frame));
    }

    fn dispatch(&mut self, number: u32) {
        let wire = wire(number.into());
        let mut frame = vec![];
        encode_inference_request(wire, "key", None, "box", "", &mut frame);
        self.step(LinkEvent::DispatchRequested {
            attempt: attempt(number),
            wire,
            frame,
        });
    }

    fn chunk(&mut self, number: u128, key: &str) {
        let mut frame = vec![];
        encode_chunk(wire(number), key, "Ym94", &mut frame);
        self.frame(&frame);
    }

    /// Wakes the link whenever it asks, up to and including `until_s`.
    fn pass_until(&mut self, until_s: u64) {
        let until = Tick::ZERO + Span::secs(until_s);
        while let Some((at, _)) = self.link.next_wake().filter(|(at, _)| *at <= until) {
            self.now = at.max(self.now);
            self.step(LinkEvent::Woke);
        }
        self.now = until;
    }

    fn took_log(&mut self) -> String {
        core::mem::take(&mut self.log)
    }

    /// Answers the newest challenge that was written.
    fn answer(&mut self, change: impl FnOnce(&mut AttestationResponse<'_>)) {
        let challenge =
            self.written
                .iter()
                .rev()
                .find_map(|frame| match ToProvider::decode(frame) {
                    Ok(ToProvider::AttestationChallenge(challenge)) => Some(challenge),
                    _ => None,
                });
        let challenge = challenge.expect("a challenge was written");
        let mut answer = AttestationResponse {
            nonce: challenge.nonce.clone().into_owned(),
            signature: Text::from(
                machine_key().sign_challenge(&challenge.nonce, &challenge.timestamp),
            ),
            public_key: Text::from(provider_key().public().text().as_str().to_owned()),
            ..AttestationResponse::default()
        };
        change(&mut answer);
        let frame = encoded(&answer);
        self.frame(&frame);
    }

    fn heartbeat(&mut self) {
        let heartbeat = Heartbeat {
            status: Text::from("idle"),
            ..Heartbeat::default()
        };
        self.frame(&encoded(&heartbeat));
    }

    fn complete(&mut self, number: u128) {
        let complete = InferenceComplete {
            request_id: Text::from(wire(number).to_string()),
            usage: UsageFrame {
                prompt_tokens: 41,
                completion_tokens: 128,
                ..UsageFrame::default()
            },
            ..InferenceComplete::default()
        };
        self.frame(&encoded(&complete));
    }

    fn error(&mut self, number: u128, status_code: i64) {
        let error = InferenceError {
            request_id: Text::from(wire(number).to_string()),
            status_code,
            ..InferenceError::default()
        };
        self.frame(&encoded(&error));
    }
}

fn kind(frame: &[u8]) -> String {
    crate::wire::scan::frame_type(frame).unwrap().into_owned()
}

fn told(event: &Event<'_>) -> String {
    match event {
        Event::ProviderJoined {
            owner,
            trust,
            spec,
            models,
            ..
        } => {
            let models: Vec<u16> = models.iter().map(|model| model.0).collect();
            format!(
                "joined owner {} {trust:?} seal {} models {models:?}",
                owner.0, spec.can_seal
            )
        }
        Event::ProviderRestocked { models, .. } => format!("restocked {}", models.len()),
        Event::ProviderVerified { .. } => "verified".to_owned(),
        Event::ProviderUnverified { .. } => "unverified".to_owned(),
        Event::ProviderDistrusted { .. } => "distrusted".to_owned(),
        Event::ProviderReported { slots, .. } => format!("reported {}", slots.len()),
        Event::ProviderLeft { cause, .. } => format!("left {cause:?}"),
        Event::ModelLoaded { model, .. } => format!("loaded {}", model.0),
        Event::ModelLoadFailed {
            model, draining, ..
        } => {
            format!("load failed {} draining {draining}", model.0)
        }
        Event::AttemptAccepted { attempt, .. } => format!("accepted {}", attempt.slot),
        Event::AttemptFailed { attempt, fault, .. } => format!("failed {} {fault:?}", attempt.slot),
        other => panic!("a link never says {other:?}"),
    }
}

/// A provider that beats but answers no challenge.
fn beats_until(world: &mut World, until_s: u64) {
    for s in (5..=until_s).step_by(5) {
        world.pass_until(s);
        if !world.link.is_closed() {
            world.heartbeat();
        }
    }
}

#[test]
fn a_whole_session_reads_as_it_should() {
    let mut world = World::new();
    let key = provider_key().public().text();
    world.heartbeat();
    world.frame(&plain_register());
    world.answer(|_| {});
    world.heartbeat();
    world.dispatch(1);
    world.frame(
        format!(
            r#"{{"type":"inference_accepted","request_id":"{}"}}"#,
            wire(1)
        )
        .as_bytes(),
    );
    world.chunk(1, key.as_str());
    world.chunk(1, key.as_str());
    world.complete(1);
    world.step(LinkEvent::SocketClosed { code: Some(1001) });
    world.heartbeat();
    let expected = "\
tell joined owner 3 None seal true models [0]
write attestation_challenge
write desired_models
tell verified
tell reported 0
write inference_request
tell accepted 1
chunk 1 Ym94
chunk 1 Ym94
completed 1 41+128
tell left Closed
";
    assert_eq!(world.log, expected);
    assert_eq!(world.link.counts().frames_before_register, 1);
    assert_eq!(world.link.next_wake(), None);
}

#[test]
fn a_second_register_and_unknown_frames_change_nothing() {
    let mut world = World::joined();
    let before = world.link.next_wake();
    world.frame(&plain_register());
    for frame in [
        "nonsense",
        r#"{"type":"unheard_of"}"#,
        r#"{"type":"heartbeat","status":7}"#,
    ] {
        world.frame(frame.as_bytes());
    }
    world.frame(br#"{"type":"provider_drain","request_id":"x"}"#);
    assert_eq!(world.took_log(), "");
    assert_eq!(world.link.next_wake(), before);
    let counts = world.link.counts();
    assert_eq!(
        (
            counts.registers_repeated,
            counts.frames_malformed,
            counts.frames_unknown,
            counts.frames_later
        ),
        (1, 2, 1, 1)
    );
}

#[test]
fn a_frame_over_the_limit_closes_with_1009() {
    let mut world = World::joined();
    world.rules.config.frame_size_max = 100;
    world.frame(&[b' '; 100]);
    assert_eq!(world.took_log(), "");
    world.frame(&[b' '; 101]);
    assert_eq!(
        world.took_log(),
        "tell left Violation\nclose 1009 frame too large\n"
    );
}

#[test]
fn a_cancel_overtakes_the_bodies_that_wait() {
    let mut world = World::joined();
    world.holds_writes = true;
    for number in 1..=3 {
        world.dispatch(number);
    }
    world.step(LinkEvent::CancelRequested {
        shown: Shown::default(),
        attempt: attempt(1),
    });
    world.step(LinkEvent::CancelRequested {
        shown: Shown::default(),
        attempt: attempt(1),
    });
    world.step(LinkEvent::CancelRequested {
        shown: Shown::default(),
        attempt: attempt(3),
    });
    for _ in 0..3 {
        world.step(LinkEvent::WriteFinished);
    }
    let expected = "write inference_request\nwrite cancel\nwrite inference_request\n";
    assert_eq!(
        world.took_log(),
        expected,
        "the third was withdrawn before its write began"
    );
    assert_eq!(world.link.attempts_count(), 2);
    assert_eq!(
        world.link.step(
            world.now,
            LinkEvent::WriteFinished,
            &world.rules,
            &mut world.out
        ),
        Err(LinkMisuse::NothingWritten)
    );
}

#[test]
fn a_challenge_that_finds_no_room_is_put_off() {
    let mut world = World::new();
    world.rules.config.control_frames_max = 0;
    world.frame(&plain_register());
    let later = Tick::ZERO + world.rules.config.challenge_reply_max;
    assert_eq!(
        world.link.next_wake(),
        Some((later, LinkWake::ChallengeDue))
    );
    assert_eq!(world.link.counts().lane_full, 1);
    world.rules.config.control_frames_max = 1;
    world.took_log();
    world.pass_until(30);
    assert_eq!(world.took_log(), "write attestation_challenge\n");
    assert_eq!(world.link.counts().challenge_timeouts, 0);
}

#[test]
fn a_full_data_lane_fails_the_attempt_at_once() {
    let mut world = World::joined();
    world.holds_writes = true;
    for number in 0..=128 {
        world.dispatch(number);
    }
    world.took_log();
    world.dispatch(129);
    assert_eq!(world.took_log(), "tell failed 129 Unsent\n");
    assert_eq!(world.link.counts().lane_full, 1);
    let frame = LinkEvent::DispatchRequested {
        attempt: attempt(7),
        wire: wire(1),
        frame: vec![],
    };
    assert_eq!(
        world
            .link
            .step(world.now, frame, &world.rules, &mut world.out),
        Err(LinkMisuse::WireIdReused)
    );
}

#[test]
fn every_breach_of_the_encryption_contract_condemns_the_provider() {
    let id = wire(1);
    let key = provider_key().public().text();
    let sealed = format!(r#"{{"ephemeral_public_key":"{key}","ciphertext":"Ym94"}}"#);
    let head = format!(r#""type":"inference_response_chunk","request_id":"{id}""#);
    let breaches = [
        format!("{{{head}}}"),
        format!(r#"{{{head},"data":"plain"}}"#),
        format!(r#"{{{head},"encrypted_data":null}}"#),
        format!(r#"{{{head},"data":"plain","encrypted_data":{sealed}}}"#),
        format!(
            r#"{{{head},"encrypted_data":{{"ephemeral_public_key":"x","ciphertext":"Ym94"}}}}"#
        ),
        format!(r#"{{{head},"encrypted_data":{{"ciphertext":"Ym94"}}}}"#),
    ];
    let expected = "tell failed 1 Encryption\ntell distrusted\nwrite cancel\nwrite trust_status\n";
    for breach in breaches {
        let mut world = World::joined();
        world.dispatch(1);
        world.took_log();
        world.frame(breach.as_bytes());
        assert_eq!(world.took_log(), expected, "{breach}");
        world.dispatch(2);
        assert_eq!(
            world.took_log(),
            "tell failed 2 Unsent\n",
            "nothing goes there any more"
        );
        beats_until(&mut world, 700);
        assert!(
            !world.took_log().contains("challenge"),
            "no challenge can help"
        );
    }
    let mut world = World::joined();
    world.dispatch(1);
    world.chunk(1, key.as_str());
    world.took_log();
    world.step(LinkEvent::ChunkRefused { wire: id });
    assert_eq!(world.took_log(), expected, "the relay could not open it");
}

#[test]
fn an_escaped_ciphertext_is_delivered_unescaped() {
    let mut world = World::joined();
    world.dispatch(1);
    let key = provider_key().public().text().as_str().replace('/', r"\/");
    world.chunk(1, &key);
    assert!(world.took_log().ends_with("chunk 1 Ym94\n"));
}

#[test]
fn stray_chunks_are_cancelled_once_in_ten_seconds() {
    let mut world = World::joined();
    let key = provider_key().public().text();
    for ms in [0, 1, 9_999, 10_000, 10_001] {
        world.now = Tick::ZERO + Span::millis(ms);
        world.chunk(77, key.as_str());
    }
    world.frame(br#"{"type":"inference_response_chunk","request_id":"not ours"}"#);
    assert_eq!(world.took_log(), "write cancel\nwrite cancel\n");
    assert_eq!(world.link.counts().stray_chunks, 6);
}

#[test]
fn a_cancelled_attempt_delivers_nothing_but_its_terminal() {
    let mut world = World::joined();
    let key = provider_key().public().text();
    for number in 1..=2 {
        world.dispatch(number);
        world.step(LinkEvent::CancelRequested {
            shown: Shown::default(),
            attempt: attempt(number),
        });
    }
    world.took_log();
    world.chunk(1, key.as_str());
    world.now = Tick::ZERO + Span::secs(10);
    world.chunk(1, key.as_str());
    world.complete(1);
    world.complete(1);
    world.error(2, 499);
    assert_eq!(
        world.took_log(),
        "write cancel\ncompleted 1 41+128\ntell failed 2 Cancelled\n"
    );
    assert_eq!(world.link.counts().unexpected_terminals, 1);
    world.dispatch(3);
    world.step(LinkEvent::CancelRequested {
        shown: Shown::default(),
        attempt: attempt(3),
    });
    world.now = world.now + Span::secs(60);
    world.heartbeat();
    assert_eq!(
        world.link.attempts_count(),
        0,
        "a terminal that never comes is forgotten"
    );
}

#[test]
fn errors_reach_the_coordinator_as_faults() {
    let mut world = World::joined();
    let table = [
        (503, AttemptFault::Busy),
        (499, AttemptFault::Internal),
        (400, AttemptFault::Client(400)),
        (404, AttemptFault::ModelUnavailable),
    ];
    for (number, (status, fault)) in (1u32..).zip(table) {
        world.dispatch(number);
        world.took_log();
        world.error(number.into(), status);
        assert_eq!(
            world.took_log(),
            format!("tell failed {number} {fault:?}\n")
        );
    }
}

#[test]
fn an_order_to_load_is_sent_and_only_its_end_is_told() {
    let mut world = World::joined();
    let status = |status: &str, error: &str| {
        format!(
            r#"{{"type":"load_model_status","model_id":"{MODEL}","status":"{status}","error":"{error}"}}"#
        )
    };
    let order = || LinkEvent::LoadRequested { model: ModelIx(0) };
    world.frame(status("succeeded", "").as_bytes());
    world.step(order());
    world.frame(status("started", "").as_bytes());
    world.frame(status("succeeded", "").as_bytes());
    world.frame(status("succeeded", "").as_bytes());
    assert_eq!(world.took_log(), "write load_model\ntell loaded 0\n");
    assert_eq!(world.link.counts().loads_unasked, 2);
    world.step(order());
    world.frame(status("failed", "provider draining for update").as_bytes());
    assert_eq!(
        world.took_log(),
        "write load_model\ntell load failed 0 draining true\n"
    );
    world.step(order());
    world.frame(status("failed", "no memory").as_bytes());
    assert_eq!(
        world.took_log(),
        "write load_model\ntell load failed 0 draining false\n"
    );
    let unknown = LinkEvent::LoadRequested { model: ModelIx(99) };
    let answer = world
        .link
        .step(world.now, unknown, &world.rules, &mut world.out);
    assert_eq!(answer, Err(LinkMisuse::UnknownModel));
}

#[test]
fn a_models_update_replaces_the_inventory() {
    let mut world = World::joined();
    world.frame(
        br#"{"type":"models_update","models":[{"id":"acme/zebra"},{"id":"nobody"},
        {"id":"acme/tiny","template_render_ok":false},{"id":"acme/zebra"}]}"#,
    );
    assert_eq!(world.took_log(), "tell restocked 1\n");
}

#[test]
fn each_way_to_end_tells_the_coordinator_once() {
    let table: [(LinkEvent<'static>, &str); 6] = [
        (
            LinkEvent::SocketClosed { code: Some(1000) },
            "tell left Closed\n",
        ),
        (
            LinkEvent::SocketClosed { code: Some(1006) },
            "tell left Lost\n",
        ),
        (LinkEvent::SocketClosed { code: None }, "tell left Lost\n"),
        (
            LinkEvent::CloseRequested {
                code: 1001,
                reason: "drain:deploy",
            },
            "tell left Closed\nclose 1001 drain:deploy\n",
        ),
        (
            LinkEvent::DisconnectRequested {
                cause: GoneCause::Replaced,
            },
            "tell left Replaced\nclose 1000 replaced by a newer connection\n",
        ),
        (
            LinkEvent::DisconnectRequested {
                cause: GoneCause::Violation,
            },
            "tell left Violation\nclose 1008 protocol violation\n",
        ),
    ];
    for (event, expected) in table {
        let mut world = World::joined();
        world.step(event.clone());
        world.step(event);
        world.step(LinkEvent::Woke);
        world.step(LinkEvent::WriteFinished);
        assert_eq!(world.took_log(), expected);
    }
}

#[test]
fn every_wake_reason_can_fire() {
    let mut seen = vec![];
    let mut note = |world: &World| seen.extend(world.link.next_wake().map(|(_, why)| why));
    let mut world = World::new();
    note(&world);
    world.frame(&plain_register());
    note(&world);
    world.answer(|_| {});
    note(&world);
    world.rules.config.stale_after = Span::secs(1_000);
    world.link = ProviderLink::new(Tick::ZERO, CONN, OWNER, &world.rules.config);
    world.frame(&plain_register());
    world.answer(|_| {});
    note(&world);
    let mut flooded = World::joined();
    for _ in 0..100 {
        flooded.heartbeat();
    }
    note(&flooded);
    world.holds_writes = true;
    world.dispatch(1);
    note(&world);
    seen.sort_unstable();
    assert_eq!(seen, LinkWake::ALL);
}

#[test]
fn a_spurious_wake_is_harmless() {
    let mut world = World::joined();
    let before = world.link.digest();
    world.step(LinkEvent::Woke);
    assert_eq!(
        (world.link.digest(), world.took_log().as_str()),
        (before, "")
    );
}

#[test]
fn the_apple_posture_wants_promises_before_text() {
    let mut world = World::new();
    world.rules.config.posture = Posture::Required;
    world.frame(&plain_register());
    assert!(world.log.starts_with("tell joined owner 3 None seal false"));
    let promises = crate::wire::messages::PrivacyCapabilities {
        text_backend_inprocess: true,
        text_proxy_disabled: true,
        python_runtime_locked: true,
        dangerous_modules_blocked: true,
        sip_enabled: false,
        anti_debug_enabled: true,
        core_dumps_disabled: true,
        env_scrubbed: true,
    };
    let mut world = World::new();
    world.rules.config.posture = Posture::Required;
    world.frame(&register_with(|register| {
        register.privacy_capabilities = Some(promises);
    }));
    assert!(world.log.starts_with("tell joined owner 3 None seal true"));
    assert_eq!(world.link.trust(), Some(Trust::None));
}
