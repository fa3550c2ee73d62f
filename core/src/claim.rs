//! An owner's proof that what a machine earned for nobody is theirs: the machine's own key signs which
//! API key's account is to have it.
//!
//! The key is named by its id, which no two coordinators share, so a proof is of use at one of them
//! and to one account, however often it is shown.

use core::fmt;

use crate::ids::MachineId;
use crate::wire::proof::{AttestedKey, MachineKey};

/// No text begins with this byte, and all else that a machine's key signs is text that others have a
/// say in: no challenge can be made to look like a claim.
const NO_TEXT: u8 = 0xff;
const SUBJECT: &str = "cereus earnings claim";
/// Before hexadecimal digits.
const KEY_ID_PREFIX: &str = "key_";
const KEY_ID_CHARS_MAX: usize = 64;

/// A proof that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub machine: MachineId,
    /// The id of the API key whose account is to have the money.
    pub key_id: String,
}

/// Why a text is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimFault {
    /// Not what `prove` wrote.
    Form,
    /// The signature is not that of the machine's key over this claim.
    Signature,
}

impl fmt::Display for ClaimFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "this is no proof: it has three parts between dots, as `cereus earnings prove` prints it"
            }
            Self::Signature => "the proof is not signed by the machine that it names",
        })
    }
}

impl core::error::Error for ClaimFault {}

/// What the owner hands over. `None`: this can be no key's id.
#[must_use]
pub fn prove(machine: &MachineKey, key_id: &str) -> Option<String> {
    let signature = is_key_id(key_id).then(|| machine.sign(&statement(key_id)))?;
    Some(format!(
        "{key_id}.{}.{signature}",
        machine.attested().text()
    ))
}

/// # Errors
/// It is no proof, or does not hold.
pub fn verify(proof: &str) -> Result<Claim, ClaimFault> {
    let mut parts = proof.trim().splitn(3, '.');
    let mut part = || parts.next().ok_or(ClaimFault::Form);
    let (key_id, key, signature) = (part()?, part()?, part()?);
    let key = AttestedKey::parse(key).ok_or(ClaimFault::Form)?;
    if !is_key_id(key_id) {
        return Err(ClaimFault::Form);
    }
    if !key.has_signed(&statement(key_id), signature) {
        return Err(ClaimFault::Signature);
    }
    Ok(Claim {
        machine: key.machine_id(),
        key_id: key_id.to_owned(),
    })
}

fn is_key_id(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(KEY_ID_PREFIX) else {
        return false;
    };
    let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    !digits.is_empty() && text.len() <= KEY_ID_CHARS_MAX && digits.chars().all(is_digit)
}

fn statement(key_id: &str) -> Vec<u8> {
    let mut statement = vec![NO_TEXT];
    statement.extend_from_slice(SUBJECT.as_bytes());
    statement.push(0);
    statement.extend_from_slice(key_id.as_bytes());
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_ID: &str = "key_0123456789abcdef01234567";

    fn machine(seed: u8) -> MachineKey {
        MachineKey::from_bytes([seed; 32]).unwrap()
    }

    #[test]
    fn a_proof_names_the_machine_that_made_it_and_the_key_that_it_was_made_for() {
        let proof = prove(&machine(7), KEY_ID).unwrap();
        let claim = verify(&format!(" {proof}\n")).unwrap();
        assert_eq!(claim.machine, machine(7).attested().machine_id());
        assert_eq!(claim.key_id, KEY_ID);
    }

    #[test]
    fn a_proof_for_another_key_or_of_another_machine_does_not_hold() {
        let proof = prove(&machine(7), KEY_ID).unwrap();
        let other_key = proof.replacen("key_0", "key_1", 1);
        assert_eq!(verify(&other_key), Err(ClaimFault::Signature));
        let own = machine(7).attested().text();
        let other = machine(8).attested().text();
        let other_machine = proof.replacen(&own, &other, 1);
        assert_eq!(verify(&other_machine), Err(ClaimFault::Signature));
        for text in ["", ".", "..", "a.b.c", &proof[1..5]] {
            assert_eq!(verify(text), Err(ClaimFault::Form), "{text}");
        }
    }

    #[test]
    fn nothing_is_proved_for_what_can_be_no_keys_id() {
        let long = format!("key_{}", "0".repeat(KEY_ID_CHARS_MAX));
        for text in [
            "",
            "nonsense",
            "key.1",
            "key_",
            "key_g",
            "key_AB",
            "sk-cereus-0",
            &long,
        ] {
            assert_eq!(prove(&machine(7), text), None, "{text}");
        }
    }

    #[test]
    fn nothing_that_a_coordinator_can_have_signed_is_a_proof() {
        assert!(core::str::from_utf8(&statement(KEY_ID)).is_err());
    }
}
