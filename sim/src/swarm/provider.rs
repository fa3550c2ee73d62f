//! One provider's process, honest or not: the engine's scheduler under a chip's speed, keys, and the
//! wire. It speaks frames; the world moves them.

use std::collections::BTreeMap;

use cereus_core::draw::Seed;
use cereus_core::envelope::{BoxKey, KeyText, PublicKey, SecretKey};
use cereus_core::ids::{AttemptKey, WireId};
use cereus_core::time::Tick;
use cereus_core::wire::messages::{
    AttestationResponse, Capacity, Frame as _, Hardware, Heartbeat, InferenceAccepted,
    InferenceComplete, InferenceError, ModelEntry, Register, Slot, UsageFrame,
};
use cereus_core::wire::proof::{Blob, MachineKey};
use cereus_core::wire::{Text, ToProvider, encode_chunk};
use cereus_engine::scheduler::{Refused, SchedulerConfig};

use super::office::{key_bytes, nonce};
use super::plan::{Lie, Plan, PlannedMachine, model_name};
use super::text;
use crate::machine::{CHIPS, Job, Machine, Note, Pace, StepDue};

/// Notes of progress come this often, so that even short answers have several chunks.
const PROGRESS_TOKENS: u32 = 16;
const BODY_SIZE_MAX: usize = 1 << 20;

struct Serving {
    wire: WireId,
    key: BoxKey,
    number: u32,
    model: u16,
    sent_tokens: u32,
}

/// See the module.
pub(super) struct Provider {
    pub(super) machine: Machine,
    pub(super) lie: Lie,
    secret: SecretKey,
    /// The public half as the wire writes it: computed once.
    sealing_text: KeyText,
    identity: Option<MachineKey>,
    /// What this process and the coordinator's last one agreed on.
    shared: Option<(String, BoxKey)>,
    models: u16,
    serving: BTreeMap<AttemptKey, Serving>,
    jobs: u32,
    nonces: u64,
    reports: u64,
    /// The heartbeat before the last, to be sent again.
    old_beat: Option<Vec<u8>>,
}

impl Provider {
    pub(super) fn new(plan: &Plan, ix: u32, planned: &PlannedMachine) -> Self {
        let config = SchedulerConfig {
            rows_max: planned.rows_max,
            step_token_budget: 512,
            prefill_chunk_tokens: 128,
            context_tokens: 4_096,
            kv_token_budget: planned.kv_tokens,
            waiting_max: planned.waiting_max,
        };
        let seed = Seed::from_number(plan.seed);
        let whose = u128::from(ix) * 2;
        let chip = CHIPS[usize::from(planned.chip)];
        let machine = Machine::new(chip, config, Pace::Leap).expect("limits are sane");
        let secret = SecretKey::from_bytes(key_bytes(seed, whose));
        Self {
            machine: machine.with_progress(PROGRESS_TOKENS),
            lie: planned.lie,
            sealing_text: secret.public().text(),
            secret,
            shared: None,
            identity: planned
                .is_attested
                .then(|| MachineKey::from_bytes(key_bytes(seed, whose + 1)))
                .flatten(),
            models: plan.models,
            serving: BTreeMap::new(),
            jobs: 0,
            nonces: 0,
            reports: 0,
            old_beat: None,
        }
    }

    /// The process died and another began: nothing is left but the keys.
    pub(super) fn restart(&mut self) {
        self.machine.reset();
        self.hang_up();
    }

    /// The connection is gone: so is every job, and a new one counts its reports from 1.
    pub(super) fn hang_up(&mut self) {
        self.serving.clear();
        self.machine.reset();
        self.reports = 0;
        self.old_beat = None;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.serving.is_empty() && self.machine.is_idle()
    }

    /// The first frame of a connection.
    pub(super) fn register(&self) -> Vec<u8> {
        let chip = &self.machine.chip;
        let key = self.sealing_text;
        let names: Vec<String> = (0..self.models).map(model_name).collect();
        let entry = |name: &String| ModelEntry {
            id: Text::from(name.clone()),
            size_bytes: 1_000_000_000,
            ..ModelEntry::default()
        };
        let blob = self.identity.as_ref().map(|identity| {
            identity.sign_blob(&Blob {
                chip_name: Text::from(chip.name),
                encryption_public_key: Some(Text::from(key.as_str())),
                public_key: Text::from(identity.attested().text()),
                timestamp: Text::from("2026-01-01T00:00:00Z"),
                ..Blob::default()
            })
        });
        let register = Register {
            hardware: Hardware {
                memory_gb: i64::from(chip.memory_gb),
                memory_bandwidth_gbs: f64::from(chip.bandwidth_gbs),
                ..Hardware::default()
            },
            models: names.iter().map(entry).collect(),
            backend: Text::from("cereus-mlx"),
            version: Text::from("0.6.0"),
            public_key: Text::from(key.as_str()),
            encrypted_response_chunks: true,
            attestation: blob.as_deref(),
            ..Register::default()
        };
        encoded(|out| register.encode(out))
    }

    /// A heartbeat, numbered; `None` when the machine has none to send.
    pub(super) fn beat(&mut self) -> Vec<u8> {
        self.reports += 1;
        let capacity = self.machine.capacity();
        let slot = |number: u16| {
            let rows = self.serving.values().filter(|one| one.model == number);
            let rows = u16::try_from(rows.count()).expect("rows are bounded");
            let running = rows.min(capacity.running);
            Slot {
                model: Text::from(model_name(number)),
                state: Text::from(if running > 0 { "running" } else { "idle" }),
                num_running: i64::from(running),
                num_waiting: i64::from(rows - running),
                max_concurrency: i64::from(capacity.concurrency_max),
                active_token_budget_used: whole(capacity.budget_used),
                active_token_budget_max: whole(capacity.budget_max),
                queued_token_budget: whole(capacity.budget_queued),
                ..Slot::default()
            }
        };
        let heartbeat = Heartbeat {
            status: Text::from(if capacity.running > 0 {
                "serving"
            } else {
                "idle"
            }),
            backend_capacity: Some(Capacity {
                slots: (0..self.models).map(slot).collect(),
                capacity_seq: self.reports,
                ..Capacity::default()
            }),
            ..Heartbeat::default()
        };
        let frame = encoded(|out| heartbeat.encode(out));
        self.old_beat.get_or_insert_with(|| frame.clone());
        frame
    }

    /// The first heartbeat of this connection, as the network may deliver it again.
    pub(super) fn stale_beat(&self) -> Option<Vec<u8>> {
        self.old_beat.clone().filter(|_| self.reports > 1)
    }

    /// The coordinator spoke. Answers are appended to `out`; the machine may have a step to do.
    pub(super) fn hear(
        &mut self,
        now: Tick,
        frame: &[u8],
        truth: impl FnOnce(u32) -> u32,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<StepDue> {
        match ToProvider::decode(frame).expect("the coordinator speaks the wire") {
            ToProvider::AttestationChallenge(challenge) => {
                let sign = |identity: &MachineKey| {
                    identity.sign_challenge(&challenge.nonce, &challenge.timestamp)
                };
                let signature = self.identity.as_ref().map(sign).unwrap_or_default();
                let answer = AttestationResponse {
                    nonce: challenge.nonce.clone(),
                    signature: Text::from(signature),
                    public_key: Text::from(self.sealing_text.as_str().to_owned()),
                    sip_enabled: Some(true),
                    rdma_disabled: Some(true),
                    secure_boot_enabled: Some(true),
                    ..AttestationResponse::default()
                };
                out.push(encoded(|frame| answer.encode(frame)));
                None
            }
            ToProvider::Cancel(cancel) => {
                if self.lie == Lie::Deaf {
                    return None;
                }
                let wire = WireId::parse(&cancel.request_id)?;
                let attempt = self.attempt_of(wire)?;
                if self.lie == Lie::BlackHole {
                    self.end_with_error(attempt, 499, "cancelled", out);
                    return None;
                }
                self.machine.cancel(now, attempt)
            }
            ToProvider::InferenceRequest(request) => {
                let wire = WireId::parse(&request.request_id)?;
                let sealed = request.encrypted_body?;
                self.take_job(
                    now,
                    wire,
                    &sealed.ephemeral_public_key,
                    &sealed.ciphertext,
                    truth,
                    out,
                )
            }
            ToProvider::DesiredModels(_)
            | ToProvider::Later
            | ToProvider::LoadModel(_)
            | ToProvider::PrefetchModel(_)
            | ToProvider::RuntimeStatus(_)
            | ToProvider::TrustStatus(_) => None,
        }
    }

    /// The machine's step ended; what it made goes out.
    pub(super) fn step_done(&mut self, epoch: u32, out: &mut Vec<Vec<u8>>) -> Option<StepDue> {
        let mut notes = Vec::new();
        let due = self.machine.step_done(epoch, &mut notes);
        for note in notes {
            match note {
                Note::Started { attempt } => self.send_text(attempt, 1, None, out),
                Note::Progressed { attempt, tokens } => {
                    self.send_text(attempt, tokens, None, out);
                }
                Note::Completed {
                    attempt,
                    prompt_tokens,
                    completion_tokens,
                } => {
                    self.send_text(attempt, completion_tokens, Some("stop"), out);
                    self.complete(attempt, prompt_tokens, completion_tokens, out);
                }
                Note::Cancelled { attempt } => self.end_with_error(attempt, 499, "cancelled", out),
            }
        }
        due
    }

    fn take_job(
        &mut self,
        now: Tick,
        wire: WireId,
        sealer: &str,
        ciphertext: &str,
        truth: impl FnOnce(u32) -> u32,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<StepDue> {
        let mut scratch = Vec::new();
        let key = self.agreed(sealer);
        let body = key.open_text(ciphertext, BODY_SIZE_MAX, &mut scratch);
        let body = body.expect("the coordinator seals to the registered key");
        let number = text::number_in(body).expect("the body came through unchanged");
        let body: serde_json::Value = serde_json::from_slice(body).expect("bodies are JSON");
        let bound = body["max_tokens"].as_u64().unwrap_or(1);
        self.jobs += 1;
        let attempt = AttemptKey {
            slot: self.jobs,
            generation: 0,
        };
        let serving = Serving {
            wire,
            key,
            number,
            model: text::model_in(&body),
            sent_tokens: 0,
        };
        if self.lie == Lie::Refuses {
            push_error(wire, 503, "capacity_timeout", out);
            return None;
        }
        let job = Job {
            attempt,
            prompt_tokens: u32::try_from(scratch.len() / 8 + 1).expect("bodies are bounded"),
            output_tokens_max: u32::try_from(bound).expect("the bound was a u32"),
            output_tokens_true: truth(number),
        };
        if self.lie == Lie::BlackHole {
            self.serving.insert(attempt, serving);
            push_accepted(wire, out);
            return None;
        }
        match self.machine.submit(now, &job) {
            Ok(due) => {
                self.serving.insert(attempt, serving);
                push_accepted(wire, out);
                if self.lie == Lie::Doubles {
                    push_accepted(wire, out);
                }
                due
            }
            Err(Refused::QueueFull) => {
                push_error(wire, 503, "queue_full", out);
                None
            }
            Err(Refused::NeverFits) => {
                push_error(wire, 503, "token_budget_exhausted", out);
                None
            }
            Err(Refused::TooLong | Refused::Empty | Refused::Duplicate) => {
                push_error(wire, 400, "", out);
                None
            }
        }
    }

    fn agreed(&mut self, sealer: &str) -> BoxKey {
        if let Some((text, key)) = &self.shared
            && text == sealer
        {
            return key.clone();
        }
        let peer = PublicKey::parse(sealer).expect("the coordinator's key is one");
        let key = self.secret.agree(&peer).expect("and not of low order");
        self.shared = Some((sealer.to_owned(), key.clone()));
        key
    }

    fn attempt_of(&self, wire: WireId) -> Option<AttemptKey> {
        let mut serving = self.serving.iter();
        serving
            .find(|(_, serving)| serving.wire == wire)
            .map(|(attempt, _)| *attempt)
    }

    /// Seals and sends the text up to `tokens`.
    fn send_text(
        &mut self,
        attempt: AttemptKey,
        tokens: u32,
        finish: Option<&str>,
        out: &mut Vec<Vec<u8>>,
    ) {
        let Some(serving) = self.serving.get_mut(&attempt) else {
            return;
        };
        let text = text::tokens(serving.number, serving.sent_tokens, tokens);
        serving.sent_tokens = tokens;
        let mut event = text::event(&text, finish);
        if self.lie == Lie::Plaintext {
            let text = serde_json::to_string(&text).expect("a string is JSON");
            let id = serving.wire;
            out.push(
                format!(
                    r#"{{"type":"inference_response_chunk","request_id":"{id}","data":{text}}}"#
                )
                .into_bytes(),
            );
            return;
        }
        self.nonces += 1;
        if self.lie == Lie::WrongKey {
            event.reverse();
        }
        let mut ciphertext = String::new();
        // Odd counts, from the other end of the range than the coordinator's.
        let nonce = nonce(u64::MAX - self.nonces);
        serving
            .key
            .seal_text(nonce, &event, &mut Vec::new(), &mut ciphertext);
        if self.lie == Lie::WrongKey {
            let flipped = if ciphertext.starts_with('A') {
                "B"
            } else {
                "A"
            };
            ciphertext.replace_range(40..41, flipped);
        }
        let own = self.sealing_text.as_str();
        out.push(encoded(|frame| {
            encode_chunk(serving.wire, own, &ciphertext, frame);
        }));
        if self.lie == Lie::Garbage {
            out.push(b"{\"type\":\"inference_response_chunk\",\"request_id\":7".to_vec());
            out.push(vec![0xff, 0xfe, 0x00]);
            out.push(b"{\"type\":\"no_such_thing\"}".to_vec());
        }
    }

    fn complete(
        &mut self,
        attempt: AttemptKey,
        prompt_tokens: u32,
        completion_tokens: u32,
        out: &mut Vec<Vec<u8>>,
    ) {
        let Some(serving) = self.serving.remove(&attempt) else {
            return;
        };
        let times = if self.lie == Lie::OverClaim { 1_000 } else { 1 };
        let message = InferenceComplete {
            request_id: Text::from(serving.wire.to_string()),
            usage: UsageFrame {
                prompt_tokens: i64::from(prompt_tokens) * times,
                completion_tokens: i64::from(completion_tokens) * times,
                reasoning_tokens: 0,
            },
            ..InferenceComplete::default()
        };
        out.push(encoded(|frame| message.encode(frame)));
        if self.lie == Lie::Doubles {
            out.push(encoded(|frame| message.encode(frame)));
            push_error(serving.wire, 500, "", out);
        }
    }

    fn end_with_error(
        &mut self,
        attempt: AttemptKey,
        status: i64,
        reason: &'static str,
        out: &mut Vec<Vec<u8>>,
    ) {
        if let Some(serving) = self.serving.remove(&attempt) {
            push_error(serving.wire, status, reason, out);
        }
    }
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame);
    frame
}

fn push_accepted(wire: WireId, out: &mut Vec<Vec<u8>>) {
    let message = InferenceAccepted {
        request_id: Text::from(wire.to_string()),
    };
    out.push(encoded(|frame| message.encode(frame)));
}

fn push_error(wire: WireId, status: i64, reason: &'static str, out: &mut Vec<Vec<u8>>) {
    let message = InferenceError {
        request_id: Text::from(wire.to_string()),
        error: Text::from("simulated"),
        status_code: status,
        error_reason: Text::from(reason),
    };
    out.push(encoded(|frame| message.encode(frame)));
}

fn whole(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
