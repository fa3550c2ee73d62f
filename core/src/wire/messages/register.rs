//! `register`: what a machine is, holds and promises (`spec/wire` 4.1).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::model::ModelEntry;
use crate::wire::text::{Text, is_zero, tolerant};

/// The first frame of every connection.
#[derive(Clone, Debug, Default, Serialize)]
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
    /// The signed blob, byte for byte as in the frame (`spec/wire` 7.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation: Option<&'a RawValue>,
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

tolerant!('a, Register<'a>, {
    "hardware" => hardware,
    "models" => models,
    "backend" => backend,
    "version" => version,
    "public_key" => public_key,
    "encrypted_response_chunks" => encrypted_response_chunks,
    "attestation" => attestation,
    "prefill_tps" => prefill_tps,
    "decode_tps" => decode_tps,
    "auth_token" => auth_token,
    "private_only" => private_only,
    "apns_device_token" => apns_device_token,
    "apns_environment" => apns_environment,
    "python_hash" => python_hash,
    "runtime_hash" => runtime_hash,
    "template_hashes" => template_hashes,
    "privacy_capabilities" => privacy_capabilities,
});

/// Compares the attestation by its bytes: they are what is signed.
impl PartialEq for Register<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.hardware == other.hardware
            && self.models == other.models
            && self.backend == other.backend
            && self.version == other.version
            && self.public_key == other.public_key
            && self.encrypted_response_chunks == other.encrypted_response_chunks
            && self.attestation.map(RawValue::get) == other.attestation.map(RawValue::get)
            && self.prefill_tps == other.prefill_tps
            && self.decode_tps == other.decode_tps
            && self.auth_token == other.auth_token
            && self.private_only == other.private_only
            && self.apns_device_token == other.apns_device_token
            && self.apns_environment == other.apns_environment
            && self.python_hash == other.python_hash
            && self.runtime_hash == other.runtime_hash
            && self.template_hashes == other.template_hashes
            && self.privacy_capabilities == other.privacy_capabilities
    }
}

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

tolerant!('a, Hardware<'a>, {
    "machine_model" => machine_model,
    "chip_name" => chip_name,
    "chip_family" => chip_family,
    "chip_tier" => chip_tier,
    "memory_gb" => memory_gb,
    "memory_available_gb" => memory_available_gb,
    "cpu_cores" => cpu_cores,
    "gpu_cores" => gpu_cores,
    "memory_bandwidth_gbs" => memory_bandwidth_gbs,
});

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuCores {
    pub total: i64,
    pub performance: i64,
    pub efficiency: i64,
}

tolerant!('a, CpuCores, {
    "total" => total,
    "performance" => performance,
    "efficiency" => efficiency,
});

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

tolerant!('a, PrivacyCapabilities, {
    "text_backend_inprocess" => text_backend_inprocess,
    "text_proxy_disabled" => text_proxy_disabled,
    "python_runtime_locked" => python_runtime_locked,
    "dangerous_modules_blocked" => dangerous_modules_blocked,
    "sip_enabled" => sip_enabled,
    "anti_debug_enabled" => anti_debug_enabled,
    "core_dumps_disabled" => core_dumps_disabled,
    "env_scrubbed" => env_scrubbed,
});

impl PrivacyCapabilities {
    /// The flags of the private-text gate; `sip_enabled` is proven by a challenge instead
    /// (`spec/wire` 4.1.3).
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
