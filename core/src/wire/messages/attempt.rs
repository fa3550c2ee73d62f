//! One attempt: request, acceptance, terminal. The chunk has its own file.

use serde::{Deserialize, Serialize};

use crate::ids::WireId;
use crate::wire::sealed::SealedText;
use crate::wire::text::{Text, is_zero, tolerant};

/// Work for a provider. A request without `encrypted_body` must be refused with 400.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "inference_request")]
pub struct InferenceRequest<'a> {
    #[serde(borrow)]
    pub request_id: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub encrypted_body: Option<SealedText<'a>>,
    /// Whose prompts this one may share a cache with; nobody's when absent.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub cache_scope: Option<Text<'a>>,
}

/// Appends an `inference_request` frame without a copy of the ciphertext in between. The texts are
/// base64; an empty `scope` is left out, and so is `step` where the key is that of the two public keys.
pub fn encode_inference_request(
    id: WireId,
    sealer: &str,
    step: Option<u32>,
    ciphertext: &str,
    scope: &str,
    out: &mut Vec<u8>,
) {
    use std::io::Write as _;
    out.reserve(ciphertext.len() + sealer.len() + scope.len() + 180);
    write!(
        out,
        r#"{{"type":"inference_request","request_id":"{id}","encrypted_body":{{"ephemeral_public_key":"{sealer}","ciphertext":""#
    )
    .expect("a Vec takes every byte");
    out.extend_from_slice(ciphertext.as_bytes());
    out.push(b'"');
    if let Some(step) = step {
        write!(out, r#","session_step":{step}"#).expect("a Vec takes every byte");
    }
    out.push(b'}');
    if !scope.is_empty() {
        out.extend_from_slice(br#","cache_scope":""#);
        out.extend_from_slice(scope.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
}

/// The provider opened the request and means to serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "inference_accepted")]
pub struct InferenceAccepted<'a> {
    pub request_id: Text<'a>,
}

tolerant!('a, InferenceAccepted<'a>, { "request_id" => request_id });

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct UsageFrame<'a> {
        pub prompt_tokens: i64,
        pub completion_tokens: i64,
        /// Part of `completion_tokens`.
        #[serde(skip_serializing_if = "is_zero")]
        pub reasoning_tokens: i64,
        /// `hit`, or why there was none.
        #[serde(skip_serializing_if = "is_zero")]
        pub cache_outcome: Text<'a>,
        /// `memory` or `ssd`.
        #[serde(skip_serializing_if = "is_zero")]
        pub cache_tier: Text<'a>,
        /// Part of `prompt_tokens`: those that were found.
        #[serde(skip_serializing_if = "is_zero")]
        pub cached_tokens: i64,
        /// Part of `cached_tokens`: those that were not computed again.
        #[serde(skip_serializing_if = "is_zero")]
        pub prefill_tokens_saved: i64,
    }
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "inference_complete")]
    pub struct InferenceComplete<'a> {
        pub request_id: Text<'a>,
        pub usage: UsageFrame<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub se_signature: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub response_hash: Text<'a>,
    }
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "inference_error")]
    pub struct InferenceError<'a> {
        pub request_id: Text<'a>,
        /// For people near the provider; never shown to a consumer, never logged.
        pub error: Text<'a>,
        pub status_code: i64,
        /// A word of a closed list ("Errors" in `docs/protocol.md`); others are ignored.
        #[serde(skip_serializing_if = "is_zero")]
        pub error_reason: Text<'a>,
    }
}
