//! Every message that coordinator and provider need to work together (`docs/protocol.md`), and which of the
//! two speaks it.

mod attempt;
mod attest;
mod command;
mod heartbeat;
mod model;
mod register;

use crate::wire::limits::REGISTER_SIZE_MAX;
use serde::{Deserialize, Serialize};

use super::chunk::ChunkFrame;
use super::scan::frame_type;

pub use super::sealed::SealedText;
pub use attempt::{
    InferenceAccepted, InferenceComplete, InferenceError, InferenceRequest, UsageFrame,
    encode_inference_request,
};
pub use attest::{
    AttestationChallenge, AttestationResponse, CodeAttestationResponse, Mismatch, RuntimeStatus,
    TrustStatus,
};
pub use command::{Cancel, DesiredModel, DesiredModels, LoadModel, PrefetchModel};
pub use heartbeat::{Capacity, Heartbeat, PrefixCache, Slot, Stats, SystemMetrics};
pub use model::{LoadModelStatus, ModelEntry, ModelsUpdate, PrefetchModelStatus};
pub use register::{CpuCores, Hardware, PrivacyCapabilities, Register, Verbatim};

/// A message that can be written as one frame.
pub trait Frame: Serialize {
    const TYPE: &'static str;

    /// Appends the frame to `out`.
    fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("messages hold no map with keys other than text");
    }
}

macro_rules! frames {
    ($($name:ident $(<$lt:lifetime>)? = $kind:literal),* $(,)?) => {
        $(impl Frame for $name $(<$lt>)? {
            const TYPE: &'static str = $kind;
        })*
    };
}

frames! {
    AttestationChallenge<'_> = "attestation_challenge",
    AttestationResponse<'_> = "attestation_response",
    Cancel<'_> = "cancel",
    CodeAttestationResponse<'_> = "code_attestation_response",
    DesiredModels<'_> = "desired_models",
    Heartbeat<'_> = "heartbeat",
    InferenceAccepted<'_> = "inference_accepted",
    InferenceComplete<'_> = "inference_complete",
    InferenceError<'_> = "inference_error",
    InferenceRequest<'_> = "inference_request",
    LoadModel<'_> = "load_model",
    LoadModelStatus<'_> = "load_model_status",
    ModelsUpdate<'_> = "models_update",
    PrefetchModel<'_> = "prefetch_model",
    PrefetchModelStatus<'_> = "prefetch_model_status",
    Register<'_> = "register",
    RuntimeStatus<'_> = "runtime_status",
    TrustStatus<'_> = "trust_status",
}

/// Kinds of frames, for errors and counters: never the sender's own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    AttestationChallenge,
    AttestationResponse,
    Cancel,
    CodeAttestationResponse,
    DesiredModels,
    Heartbeat,
    InferenceAccepted,
    InferenceComplete,
    InferenceError,
    InferenceRequest,
    InferenceResponseChunk,
    LoadModel,
    LoadModelStatus,
    ModelsUpdate,
    PrefetchModel,
    PrefetchModelStatus,
    Register,
    RuntimeStatus,
    TrustStatus,
}

/// Why a frame was dropped. The connection is kept: one frame that a newer release writes must not cost
/// the requests that run on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecodeError {
    /// Not an object with a textual `type`.
    TypeUnreadable,
    /// A type that nobody knows; its text is not repeated.
    TypeUnknown,
    /// A known type whose members do not fit.
    Malformed(FrameKind),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TypeUnreadable => f.write_str("the frame has no readable `type`"),
            Self::TypeUnknown => f.write_str("the frame's `type` is unknown"),
            Self::Malformed(kind) => write!(f, "malformed {kind:?} frame"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// What a provider says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToCoordinator<'a> {
    Accepted(InferenceAccepted<'a>),
    AttestationResponse(Box<AttestationResponse<'a>>),
    Chunk(ChunkFrame<'a>),
    CodeAttestationResponse(CodeAttestationResponse<'a>),
    Complete(InferenceComplete<'a>),
    Error(InferenceError<'a>),
    Heartbeat(Box<Heartbeat<'a>>),
    /// A message of later providers that we understand well enough to ignore.
    Later,
    LoadModelStatus(LoadModelStatus<'a>),
    ModelsUpdate(ModelsUpdate<'a>),
    PrefetchModelStatus(PrefetchModelStatus<'a>),
    Register(Box<Register<'a>>),
}

/// Messages to the coordinator that later releases of the published form added: known, ignored.
const LATER_TO_COORDINATOR: [&str; 11] = [
    "app_attest_shadow",
    "capacity_quote",
    "model_autopilot_status",
    "models_replace",
    "models_replace_ready",
    "prefix_cache_lookup",
    "prefix_cache_lookup_v2",
    "prefix_cache_ready",
    "prefix_cache_ready_v2",
    "provider_drain",
    "service_reservation_released",
];

/// Messages to the provider that later releases of the published form added: known, ignored.
const LATER_TO_PROVIDER: [&str; 9] = [
    "app_attest_shadow",
    "capacity_probe",
    "cluster_member_accepted",
    "code_attestation_resume_challenge",
    "model_autopilot",
    "model_autopilot_control",
    "models_replace_ack",
    "models_replace_resumed",
    "provider_drain_ack",
];

fn body<'a, T: Deserialize<'a>>(frame: &'a [u8], kind: FrameKind) -> Result<T, DecodeError> {
    serde_json::from_slice(frame).map_err(|_| DecodeError::Malformed(kind))
}

/// The same of a frame that carries no part of an answer: one that is larger than any list of models
/// that is read would only fill memory.
fn short<'a, T: Deserialize<'a>>(frame: &'a [u8], kind: FrameKind) -> Result<T, DecodeError> {
    if frame.len() > REGISTER_SIZE_MAX {
        return Err(DecodeError::Malformed(kind));
    }
    body(frame, kind)
}

impl<'a> ToCoordinator<'a> {
    /// Decodes leniently: what is missing or `null` is the default, unknown keys are skipped.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        if let Some(chunk) = ChunkFrame::decode_fast(frame) {
            return Ok(Self::Chunk(chunk));
        }
        Self::decode_generic(frame)
    }

    /// The path without the short cut for chunks; both give the same answer.
    pub fn decode_generic(frame: &'a [u8]) -> Result<Self, DecodeError> {
        use FrameKind as K;
        let kind = frame_type(frame).map_err(|_| DecodeError::TypeUnreadable)?;
        Ok(match &*kind {
            "attestation_response" => {
                Self::AttestationResponse(short(frame, K::AttestationResponse)?)
            }
            "code_attestation_response" => {
                Self::CodeAttestationResponse(short(frame, K::CodeAttestationResponse)?)
            }
            "heartbeat" => Self::Heartbeat(short(frame, K::Heartbeat)?),
            "inference_accepted" => Self::Accepted(body(frame, K::InferenceAccepted)?),
            "inference_complete" => Self::Complete(body(frame, K::InferenceComplete)?),
            "inference_error" => Self::Error(body(frame, K::InferenceError)?),
            "inference_response_chunk" => Self::Chunk(body(frame, K::InferenceResponseChunk)?),
            "load_model_status" => Self::LoadModelStatus(short(frame, K::LoadModelStatus)?),
            "models_update" => Self::ModelsUpdate(short(frame, K::ModelsUpdate)?),
            "prefetch_model_status" => {
                Self::PrefetchModelStatus(short(frame, K::PrefetchModelStatus)?)
            }
            "register" => Self::Register(short(frame, K::Register)?),
            later if LATER_TO_COORDINATOR.contains(&later) => Self::Later,
            _ => return Err(DecodeError::TypeUnknown),
        })
    }
}

/// What a coordinator says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToProvider<'a> {
    AttestationChallenge(AttestationChallenge<'a>),
    Cancel(Cancel<'a>),
    DesiredModels(DesiredModels<'a>),
    InferenceRequest(InferenceRequest<'a>),
    /// A message of later coordinators that we understand well enough to ignore.
    Later,
    LoadModel(LoadModel<'a>),
    PrefetchModel(PrefetchModel<'a>),
    RuntimeStatus(RuntimeStatus<'a>),
    TrustStatus(TrustStatus<'a>),
}

impl<'a> ToProvider<'a> {
    /// Decodes strictly: a required key that is missing or `null` drops the frame.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        use FrameKind as K;
        let kind = frame_type(frame).map_err(|_| DecodeError::TypeUnreadable)?;
        Ok(match &*kind {
            "attestation_challenge" => {
                Self::AttestationChallenge(body(frame, K::AttestationChallenge)?)
            }
            "cancel" => Self::Cancel(body(frame, K::Cancel)?),
            "desired_models" => Self::DesiredModels(body(frame, K::DesiredModels)?),
            "inference_request" => Self::InferenceRequest(body(frame, K::InferenceRequest)?),
            "load_model" => Self::LoadModel(body(frame, K::LoadModel)?),
            "prefetch_model" => Self::PrefetchModel(body(frame, K::PrefetchModel)?),
            "runtime_status" => Self::RuntimeStatus(body(frame, K::RuntimeStatus)?),
            "trust_status" => Self::TrustStatus(body(frame, K::TrustStatus)?),
            later if LATER_TO_PROVIDER.contains(&later) => Self::Later,
            _ => return Err(DecodeError::TypeUnknown),
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
