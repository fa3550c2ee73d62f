//! The frames of one job: refusals, sealed chunks, terminals.

use super::{AgentEffect, AgentOut, JobFault, SessionId};
use crate::envelope::{BoxKey, KeyText, NONCE_SIZE};
use crate::event::{Usage, UsageParts};
use crate::ids::WireId;
use crate::slots;
use crate::wire::messages::{InferenceAccepted, InferenceComplete, InferenceError, UsageFrame};
use crate::wire::{Frame, Text, encode_chunk};

/// What `inference_error` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WireRefusal {
    pub(super) status: i64,
    /// A word of the wire's closed list, by which the coordinator decides whether another machine may do
    /// better ("Errors" in `docs/protocol.md`); empty for none.
    pub(super) reason: &'static str,
    /// For people; holds nothing that a consumer wrote.
    pub(super) text: String,
}

impl WireRefusal {
    pub(super) fn new(status: i64, reason: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            text: text.into(),
        }
    }

    pub(super) fn cancelled() -> Self {
        Self::new(499, "cancelled", "request cancelled")
    }

    pub(super) fn draining() -> Self {
        Self::new(503, "", super::DRAINING_TEXT)
    }
}

impl From<JobFault> for WireRefusal {
    fn from(fault: JobFault) -> Self {
        match fault {
            JobFault::Client => Self::new(400, "client_error", "the request cannot be served"),
            JobFault::Internal => Self::new(500, "provider_error", "generation failed"),
            JobFault::Memory => Self::new(
                503,
                "token_budget_exhausted",
                "no memory for this request at present",
            ),
            JobFault::NotLoaded(why) => not_loaded(why),
            JobFault::QueueFull => Self::new(429, "queue_full", "the engine's queue is full"),
            JobFault::Template => Self::new(422, "jinja_template", "the chat template failed"),
            JobFault::TooLong => Self::new(
                400,
                "request_exceeds_context",
                "the prompt is longer than the model's context",
            ),
            JobFault::TurnOverdue => {
                Self::new(503, "capacity_timeout", "the request waited too long")
            }
        }
    }
}

/// A machine without room is at its capacity; a model that will not load or answer is a fault.
fn not_loaded(why: slots::Refusal) -> WireRefusal {
    use slots::Refusal as Why;
    let (status, reason) = match why {
        Why::Fault(_) | Why::Fenced => (500, "model_load"),
        Why::GrantTooSmall { .. }
        | Why::NoHeadroom { .. }
        | Why::NoMemory { .. }
        | Why::SlotsBusy { .. } => (503, "model_load"),
        Why::Pressed => (503, "token_budget_exhausted"),
        Why::QueueFull => (429, "queue_full"),
        Why::Stuck => (500, "provider_error"),
        Why::TurnOverdue => (503, "capacity_timeout"),
        Why::Unknown => (404, "model_load"),
    };
    WireRefusal::new(status, reason, why.to_string())
}

pub(super) fn send(out: &mut AgentOut, session: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
    let mut frame = Vec::new();
    write(&mut frame);
    out.push(AgentEffect::Send { session, frame });
}

/// The id as the wire spells it.
fn spelled(job: WireId) -> Text<'static> {
    Text::from(job.to_string())
}

pub(super) fn send_accepted(job: WireId, session: SessionId, out: &mut AgentOut) {
    let request_id = spelled(job);
    send(out, session, |bytes| {
        InferenceAccepted { request_id }.encode(bytes);
    });
}

pub(super) fn send_error(
    job: WireId,
    session: SessionId,
    refusal: &WireRefusal,
    out: &mut AgentOut,
) {
    let error = InferenceError {
        request_id: spelled(job),
        error: Text::from(refusal.text.as_str()),
        status_code: refusal.status,
        error_reason: Text::from(refusal.reason),
    };
    send(out, session, |bytes| error.encode(bytes));
}

pub(super) fn send_complete(
    job: WireId,
    session: SessionId,
    usage: Usage,
    parts: UsageParts,
    out: &mut AgentOut,
) {
    // Without a hit nothing is said: a miss and a prompt that was never looked up look alike here.
    let is_hit = parts.cached_tokens > 0;
    let when_hit = |word: &'static str| Text::from(if is_hit { word } else { "" });
    let complete = InferenceComplete {
        request_id: spelled(job),
        usage: UsageFrame {
            prompt_tokens: i64::from(usage.prompt_tokens),
            completion_tokens: i64::from(usage.completion_tokens),
            reasoning_tokens: i64::from(parts.reasoning_tokens),
            cache_outcome: when_hit("hit"),
            cache_tier: when_hit("memory"),
            cached_tokens: i64::from(parts.cached_tokens),
            prefill_tokens_saved: i64::from(parts.cached_tokens),
        },
        ..InferenceComplete::default()
    };
    send(out, session, |bytes| complete.encode(bytes));
}

/// Seals chunks; its buffers are reused.
#[derive(Clone)]
pub(super) struct Sealer {
    key_text: KeyText,
    nonce_prefix: [u8; 16],
    /// Boxes sealed by this process: the rest of the nonce.
    sealed: u64,
    pub(super) plain: Vec<u8>,
    scratch: Vec<u8>,
    ciphertext: String,
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Sealer({} sealed)", self.sealed)
    }
}

impl Sealer {
    pub(super) fn new(key_text: KeyText, nonce_prefix: [u8; 16]) -> Self {
        Self {
            key_text,
            nonce_prefix,
            sealed: 0,
            plain: Vec::new(),
            scratch: Vec::new(),
            ciphertext: String::new(),
        }
    }

    pub(super) fn key_text(&self) -> &str {
        self.key_text.as_str()
    }

    pub(super) const fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Seals what is in [`Self::plain`] and appends it as a chunk frame.
    pub(super) fn send_chunk(
        &mut self,
        job: WireId,
        session: SessionId,
        key: &BoxKey,
        out: &mut AgentOut,
    ) {
        let mut nonce = [0; NONCE_SIZE];
        nonce[..16].copy_from_slice(&self.nonce_prefix);
        nonce[16..].copy_from_slice(&self.sealed.to_le_bytes());
        self.sealed += 1;
        self.ciphertext.clear();
        key.seal_text(nonce, &self.plain, &mut self.scratch, &mut self.ciphertext);
        let (sealer, ciphertext) = (self.key_text.as_str(), self.ciphertext.as_str());
        send(out, session, |bytes| {
            encode_chunk(job, sealer, ciphertext, bytes);
        });
    }
}
