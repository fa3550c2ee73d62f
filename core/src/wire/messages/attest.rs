//! Challenge, answer, and what the coordinator concludes ("Challenge" in `docs/protocol.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::text::{Text, is_zero, tolerant};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "attestation_challenge")]
pub struct AttestationChallenge<'a> {
    /// Base64 of 32 bytes, used once.
    #[serde(borrow)]
    pub nonce: Text<'a>,
    /// UTC, RFC 3339, whole seconds, `Z`.
    #[serde(borrow)]
    pub timestamp: Text<'a>,
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "attestation_response")]
    pub struct AttestationResponse<'a> {
        pub nonce: Text<'a>,
        /// Over nonce and timestamp; empty when the machine has no key.
        pub signature: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub status_signature: Text<'a>,
        /// The X25519 key of `register`.
        pub public_key: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sip_enabled: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub rdma_disabled: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub secure_boot_enabled: Option<bool>,
        /// Retired, yet inside the signed status of old providers.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hypervisor_active: Option<bool>,
        #[serde(skip_serializing_if = "is_zero")]
        pub binary_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub active_model_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub python_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub runtime_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub template_hashes: BTreeMap<Text<'a>, Text<'a>>,
        #[serde(skip_serializing_if = "is_zero")]
        pub model_hashes: BTreeMap<Text<'a>, Text<'a>>,
    }
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "code_attestation_response")]
    pub struct CodeAttestationResponse<'a> {
        pub nonce: Text<'a>,
        pub signature: Text<'a>,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "runtime_status")]
pub struct RuntimeStatus<'a> {
    pub verified: bool,
    #[serde(borrow, default, skip_serializing_if = "is_zero")]
    pub mismatches: Vec<Mismatch<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch<'a> {
    #[serde(borrow)]
    pub component: Text<'a>,
    #[serde(borrow)]
    pub expected: Text<'a>,
    #[serde(borrow)]
    pub got: Text<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "trust_status")]
pub struct TrustStatus<'a> {
    /// `none`, `self_signed` or `hardware`.
    #[serde(borrow)]
    pub trust_level: Text<'a>,
    /// `online`, `untrusted` and so on.
    #[serde(borrow)]
    pub status: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "is_zero")]
    pub reason: Text<'a>,
    /// The earning key was recognised: what this machine earns goes to its account.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub account_linked: bool,
}
