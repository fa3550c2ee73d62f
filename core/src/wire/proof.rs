//! Who signs what: machine keys, the registration blob, challenge answers ("Challenge" in
//! `docs/protocol.md`).
//!
//! Signatures are ECDSA P-256 over SHA-256, DER, base64. Signing is deterministic (RFC 6979), so it
//! needs no randomness.

use core::fmt;
use core::hash::{Hash, Hasher};
use std::collections::BTreeMap;

use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::clock::is_rfc3339;
use super::messages::AttestationResponse;
use super::text::{Text, tolerant};
use crate::envelope::{decode_base64, encode_base64};
use crate::ids::MachineId;

/// Room for a DER signature of P-256 (72 bytes) or an uncompressed point (65).
const SIGNED_SIZE_MAX: usize = 96;

/// A machine's private identity. Wiped when dropped; shows nothing of itself.
#[derive(Clone)]
pub struct MachineKey(SigningKey);

impl MachineKey {
    /// `None` for the few values that are no P-256 scalar: draw again.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        let bytes = Zeroizing::new(bytes);
        SigningKey::from_slice(&*bytes).ok().map(Self)
    }

    #[must_use]
    pub fn attested(&self) -> AttestedKey {
        AttestedKey(*self.0.verifying_key())
    }

    /// Base64 of the DER signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        let signature: Signature = self.0.sign(message);
        let mut text = String::new();
        encode_base64(signature.to_der().as_bytes(), &mut text);
        text
    }

    /// The answer to a challenge over `nonce` and `timestamp`, as received: a signature over the
    /// two texts, one directly after the other.
    #[must_use]
    pub fn sign_challenge(&self, nonce: &str, timestamp: &str) -> String {
        self.sign(&challenge_bytes(nonce, timestamp))
    }

    /// The value of `register.attestation`: the blob in canonical form, and its signature.
    #[must_use]
    pub fn sign_blob(&self, blob: &Blob<'_>) -> Box<RawValue> {
        // Serde writes the fields as they are declared, which is in byte order; inside of strings
        // the reference signer escapes slashes as well.
        let inner = serde_json::to_string(blob).expect("the blob is plain data");
        let inner = inner.replace('/', r"\/");
        let signature = self.sign(inner.as_bytes());
        let whole = format!(r#"{{"attestation":{inner},"signature":"{signature}"}}"#);
        RawValue::from_string(whole).expect("two JSON values make an object")
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineKey(..)")
    }
}

/// The public half of a machine's identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AttestedKey(VerifyingKey);

impl fmt::Debug for AttestedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Hash for AttestedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_encoded_point(true).as_bytes().hash(state);
    }
}

impl AttestedKey {
    /// Reads the base64 of a point on the curve: 65 bytes `04,X,Y`, or 64 bytes `X,Y`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut point = vec![0x04];
        let mut bytes = vec![];
        decode_base64(text, SIGNED_SIZE_MAX, &mut bytes).ok()?;
        match (bytes.len(), bytes.first()) {
            (65, Some(0x04)) => point = bytes,
            (64, _) => point.extend_from_slice(&bytes),
            _ => return None,
        }
        VerifyingKey::from_sec1_bytes(&point).ok().map(Self)
    }

    /// Base64 of the 65-byte form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode_base64(self.0.to_encoded_point(false).as_bytes(), &mut text);
        text
    }

    /// Whether `signature` (base64 of DER) is this key's over `message`.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let mut der = vec![];
        if decode_base64(signature, SIGNED_SIZE_MAX, &mut der).is_err() {
            return false;
        }
        let Ok(signature) = Signature::from_der(&der) else {
            return false;
        };
        self.0.verify(message, &signature).is_ok()
    }

    /// What this key has as a name in the fleet: it survives reconnects and restarts.
    #[must_use]
    pub fn machine_id(&self) -> MachineId {
        machine_id(
            "cereus machine key",
            self.0.to_encoded_point(false).as_bytes(),
        )
    }
}

/// A stable number for whatever identifies a machine; `kind` keeps the kinds apart.
#[must_use]
pub fn machine_id(kind: &str, identity: &[u8]) -> MachineId {
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update([0])
        .chain_update(identity);
    let digest: [u8; 32] = digest.finalize().into();
    let (first, _) = digest.split_at(16);
    MachineId(u128::from_be_bytes(
        first.try_into().expect("16 of 32 bytes"),
    ))
}

fn challenge_bytes(nonce: &str, timestamp: &str) -> Vec<u8> {
    [nonce.as_bytes(), timestamp.as_bytes()].concat()
}

/// Whether `signature` answers the challenge: it is over the text of `nonce` and, directly after it, that
/// of `timestamp`, by the key of the registration and no other.
#[must_use]
pub fn is_challenge_signed(
    key: &AttestedKey,
    nonce: &str,
    timestamp: &str,
    signature: &str,
) -> bool {
    key.has_signed(&challenge_bytes(nonce, timestamp), signature)
}

/// What a machine says of itself under its own key ("Challenge" in `docs/protocol.md`).
/// Fields in byte order, which is the order in which they are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob<'a> {
    pub authenticated_root_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary_hash: Option<Text<'a>>,
    pub chip_name: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_public_key: Option<Text<'a>>,
    pub hardware_model: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor_active: Option<bool>,
    pub os_version: Text<'a>,
    pub public_key: Text<'a>,
    pub rdma_disabled: bool,
    pub secure_boot_enabled: bool,
    pub secure_enclave_available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<Text<'a>>,
    pub sip_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_volume_hash: Option<Text<'a>>,
    pub timestamp: Text<'a>,
}

tolerant!('a, Blob<'a>, {
    "authenticatedRootEnabled" => authenticated_root_enabled,
    "binaryHash" => binary_hash,
    "chipName" => chip_name,
    "encryptionPublicKey" => encryption_public_key,
    "hardwareModel" => hardware_model,
    "hypervisorActive" => hypervisor_active,
    "osVersion" => os_version,
    "publicKey" => public_key,
    "rdmaDisabled" => rdma_disabled,
    "secureBootEnabled" => secure_boot_enabled,
    "secureEnclaveAvailable" => secure_enclave_available,
    "serialNumber" => serial_number,
    "sipEnabled" => sip_enabled,
    "systemVolumeHash" => system_volume_hash,
    "timestamp" => timestamp,
});

#[derive(Default)]
struct SignedBlob<'a> {
    attestation: Option<&'a RawValue>,
    signature: Text<'a>,
}

tolerant!('a, SignedBlob<'a>, {
    "attestation" => attestation,
    "signature" => signature,
});

/// How much a machine must prove about its own software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Posture {
    /// A fleet for development: a key file may stand for an enclave, and what a machine says about
    /// its system is recorded, not required.
    Advisory,
    /// The Apple fleet: enclave, system integrity and secure boot are required.
    Required,
}

impl Posture {
    /// What a coordinator asks of its machines, unless it is told to ask for more.
    pub const REFERENCE: Self = Self::Advisory;
}

/// Why a registration blob proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobFault {
    Forged,
    KeyUnbound,
    KeyUnreadable,
    Malformed,
    SystemWeak,
    TimestampUnreadable,
}

/// Verifies `register.attestation` over its exact bytes and binds it to `sealing_key`, the text of
/// `register.public_key`.
pub fn verify_blob(
    attestation: &RawValue,
    sealing_key: &str,
    posture: Posture,
) -> Result<AttestedKey, BlobFault> {
    let signed: SignedBlob<'_> =
        serde_json::from_str(attestation.get()).map_err(|_| BlobFault::Malformed)?;
    let raw = signed.attestation.ok_or(BlobFault::Malformed)?;
    let blob: Blob<'_> = serde_json::from_str(raw.get()).map_err(|_| BlobFault::Malformed)?;
    if !is_rfc3339(&blob.timestamp) {
        return Err(BlobFault::TimestampUnreadable);
    }
    let key = AttestedKey::parse(&blob.public_key).ok_or(BlobFault::KeyUnreadable)?;
    if !key.has_signed(raw.get().as_bytes(), &signed.signature) {
        return Err(BlobFault::Forged);
    }
    let is_strong = blob.secure_enclave_available && blob.sip_enabled && blob.secure_boot_enabled;
    if posture == Posture::Required && !is_strong {
        return Err(BlobFault::SystemWeak);
    }
    let bound = blob.encryption_public_key.as_ref().map_or("", Text::as_str);
    if !sealing_key.is_empty() && bound != sealing_key {
        return Err(BlobFault::KeyUnbound);
    }
    Ok(key)
}

/// Appends the status as both sides write it before it is signed or verified: one flat JSON object without
/// spaces, keys in byte order, what was not reported left out. `nonce` and `timestamp` are the verifier's
/// own, so that no old status can be shown again.
pub fn write_status(
    nonce: &str,
    timestamp: &str,
    reported: &AttestationResponse<'_>,
    out: &mut String,
) {
    let mut object = Canonical {
        out,
        is_empty: true,
    };
    object.out.push('{');
    object.text("active_model_hash", &reported.active_model_hash);
    object.text("binary_hash", &reported.binary_hash);
    object.flag("hypervisor_active", reported.hypervisor_active);
    object.map("model_hashes", &reported.model_hashes);
    object.key("nonce");
    write_string(nonce, object.out);
    object.text("python_hash", &reported.python_hash);
    object.flag("rdma_disabled", reported.rdma_disabled);
    object.text("runtime_hash", &reported.runtime_hash);
    object.flag("secure_boot_enabled", reported.secure_boot_enabled);
    object.flag("sip_enabled", reported.sip_enabled);
    object.map("template_hashes", &reported.template_hashes);
    object.key("timestamp");
    write_string(timestamp, object.out);
    object.out.push('}');
}

struct Canonical<'o> {
    out: &'o mut String,
    is_empty: bool,
}

impl Canonical<'_> {
    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        write_string(key, self.out);
        self.out.push(':');
    }

    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.key(key);
            write_string(value, self.out);
        }
    }

    fn flag(&mut self, key: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.key(key);
            self.out.push_str(if value { "true" } else { "false" });
        }
    }

    fn map(&mut self, key: &str, entries: &BTreeMap<Text<'_>, Text<'_>>) {
        if entries.is_empty() {
            return;
        }
        self.key(key);
        self.out.push('{');
        for (ix, (name, value)) in entries.iter().enumerate() {
            if ix > 0 {
                self.out.push(',');
            }
            write_string(name, self.out);
            self.out.push(':');
            write_string(value, self.out);
        }
        self.out.push('}');
    }
}

fn write_string(text: &str, out: &mut String) {
    use core::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str(r#"\""#),
            '\\' => out.push_str(r"\\"),
            '\t' => out.push_str(r"\t"),
            '\n' => out.push_str(r"\n"),
            '\r' => out.push_str(r"\r"),
            '\u{0}'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                write!(out, r"\u{:04x}", u32::from(c)).expect("a String takes every character");
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
