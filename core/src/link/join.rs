//! What `register` makes of a socket: a session with an identity. The machine's own key names it if its
//! blob is good, else its sealing key, else the connection ("Connection and registration" in
//! `docs/protocol.md`).

use super::LinkConfig;
use super::challenge::Challenges;
use super::reports::Reports;
use super::stock::Stock;
use crate::config::Catalog;
use crate::envelope::PublicKey;
use crate::event::Trust;
use crate::ids::{ConnId, MachineId};
use crate::time::Tick;
use crate::wire::messages::Register;
use crate::wire::proof::{AttestedKey, Posture, machine_id, verify_blob};

/// Backends that understand `load_model`, `prefetch_model` and `desired_models`, and that may see
/// text: the reference's and our own.
const BACKENDS: [&str; 2] = ["mlx-swift", "cereus-mlx"];

/// First release that understands `desired_models`: an older one may drop its session over a message that it
/// does not know.
const DESIRED_MODELS_SINCE: [u32; 3] = [0, 5, 17];

/// A registered provider.
#[derive(Clone, Debug, Hash)]
pub(super) struct Session {
    pub(super) machine: MachineId,
    pub(super) trust: Trust,
    /// `None`: absent, malformed or of low order. No sealed work then.
    pub(super) sealing_key: Option<PublicKey>,
    /// It takes requests of a sealed session.
    pub(super) takes_sessions: bool,
    /// As registered, byte for byte: chunks and challenges are compared with it as text.
    pub(super) sealing_text: String,
    pub(super) attested: Option<AttestedKey>,
    /// Loads that were ordered and of which no end was heard.
    pub(super) loads_ordered: u32,
    pub(super) takes_commands: bool,
    pub(super) takes_desired_models: bool,
    pub(super) stock: Stock,
    pub(super) is_distrusted: bool,
    /// The provider was told so, for a while: it hears when that is over.
    pub(super) is_told_untrusted: bool,
    pub(super) can_seal: bool,
    /// Its earnings go to the account of the key that it named.
    pub(super) is_linked: bool,
    pub(super) challenges: Challenges,
    pub(super) reports: Reports,
}

impl Session {
    pub(super) fn new(
        now: Tick,
        conn: ConnId,
        register: &Register<'_>,
        catalog: &Catalog,
        config: &LinkConfig,
    ) -> Self {
        let text = register.public_key.as_str();
        let sealing_key = PublicKey::parse(text).ok().filter(PublicKey::is_usable);
        let attested = register
            .attestation
            .and_then(|blob| verify_blob(blob.0, text, config.posture).ok());
        let machine = match (&attested, sealing_key) {
            (Some(key), _) => key.machine_id(),
            (None, Some(key)) => machine_id("cereus sealing key", &key.0),
            (None, None) => machine_id("cereus connection", &conn.0.to_le_bytes()),
        };
        let is_known_backend = BACKENDS.contains(&register.backend.as_str());
        let can_seal = sealing_key.is_some()
            && register.encrypted_response_chunks
            && match config.posture {
                Posture::Advisory => true,
                Posture::Required => {
                    let promises = register.privacy_capabilities.unwrap_or_default();
                    is_known_backend && promises.is_private()
                }
            };
        Self {
            machine,
            trust: if attested.is_some() {
                Trust::SelfSigned
            } else {
                Trust::None
            },
            sealing_key,
            takes_sessions: register.sealed_sessions,
            sealing_text: text.to_owned(),
            attested,
            loads_ordered: 0,
            takes_commands: is_known_backend,
            takes_desired_models: is_known_backend
                && is_at_least(&register.version, DESIRED_MODELS_SINCE),
            stock: Stock::new(&register.models, catalog),
            is_distrusted: false,
            is_told_untrusted: false,
            can_seal,
            is_linked: !register.auth_token.is_empty(),
            challenges: Challenges::new(now),
            reports: Reports::default(),
        }
    }
}

/// Numeric by component: 0.6.10 is later than 0.6.9. What is no version is below every version.
fn is_at_least(version: &str, floor: [u32; 3]) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let mut found = [0; 3];
    for place in &mut found {
        let Some(Ok(part)) = parts.next() else {
            return false;
        };
        *place = part;
    }
    found >= floor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let table = [
            ("0.5.17", true),
            ("0.5.9", false),
            ("0.10.0", true),
            ("1.0.0", true),
            ("0.5.18.2", true),
            ("0.5", false),
            ("", false),
            ("0.6.x", false),
        ];
        for (version, expected) in table {
            assert_eq!(
                is_at_least(version, DESIRED_MODELS_SINCE),
                expected,
                "{version}"
            );
        }
    }
}
