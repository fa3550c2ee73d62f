//! `register`: what a machine is, holds and promises ("Connection and registration" in
//! `docs/protocol.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::model::ModelEntry;
use crate::wire::text::{Text, is_zero, tolerant};

/// JSON byte for byte as in the frame: its bytes are what is signed, and what is compared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verbatim<'a>(#[serde(borrow)] pub &'a RawValue);

impl Verbatim<'_> {
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Verbatim<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

tolerant! {
    /// The first frame of every connection.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    #[serde(tag = "type", rename = "register")]
    pub struct Register<'a> {
        pub hardware: Hardware<'a>,
        pub models: Vec<ModelEntry<'a>>,
        pub backend: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub version: Text<'a>,
        /// Padded standard base64 of the X25519 key that work is sealed to.
        #[serde(skip_serializing_if = "is_zero")]
        pub public_key: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub encrypted_response_chunks: bool,
        /// It takes requests of a sealed session (ours alone: the published form has none).
        #[serde(skip_serializing_if = "is_zero")]
        pub sealed_sessions: bool,
        /// The signed blob, byte for byte as in the frame: those bytes are what is signed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub attestation: Option<Verbatim<'a>>,
        #[serde(skip_serializing_if = "is_zero")]
        pub prefill_tps: f64,
        #[serde(skip_serializing_if = "is_zero")]
        pub decode_tps: f64,
        #[serde(skip_serializing_if = "is_zero")]
        pub auth_token: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub private_only: bool,
        #[serde(skip_serializing_if = "is_zero")]
        pub apns_device_token: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub apns_environment: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub python_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub runtime_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub template_hashes: BTreeMap<Text<'a>, Text<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub privacy_capabilities: Option<PrivacyCapabilities>,
    }
}

tolerant! {
    /// Every key is required of a provider; family and tier are open texts.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Hardware<'a> {
        pub machine_model: Text<'a>,
        pub chip_name: Text<'a>,
        pub chip_family: Text<'a>,
        pub chip_tier: Text<'a>,
        pub memory_gb: i64,
        pub memory_available_gb: f64,
        pub cpu_cores: CpuCores,
        pub gpu_cores: i64,
        pub memory_bandwidth_gbs: f64,
    }
}

tolerant! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct CpuCores {
        pub total: i64,
        pub performance: i64,
        pub efficiency: i64,
    }
}

tolerant! {
    /// What the provider promises about its process. Written whole, even when false.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct PrivacyCapabilities {
        pub text_backend_inprocess: bool,
        pub text_proxy_disabled: bool,
        pub python_runtime_locked: bool,
        pub dangerous_modules_blocked: bool,
        pub sip_enabled: bool,
        pub anti_debug_enabled: bool,
        pub core_dumps_disabled: bool,
        pub env_scrubbed: bool,
    }
}

impl PrivacyCapabilities {
    /// Whether all promises are made without which nobody's text is sent there. `sip_enabled` is not among
    /// them: that is a fact about the system, and a challenge asks for it under a signature.
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.text_backend_inprocess
            && self.text_proxy_disabled
            && self.python_runtime_locked
            && self.dangerous_modules_blocked
            && self.anti_debug_enabled
            && self.core_dumps_disabled
            && self.env_scrubbed
    }
}
