//! A sealed session: one key agreement, and from it a fresh key for each request.
//!
//! A chain of keys that only turns forwards, by HKDF-SHA256 (RFC 5869). The first link is extracted
//! from the agreed key and the two public keys; from each link, two expansions give the key of one
//! request and the next link, and the old one is wiped. So whoever reads the memory of either side
//! learns nothing of the requests before, as with a key pair for each request, at a thousandth of its
//! cost.

use core::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cipher::BoxKey;
use super::key::PublicKey;

/// Keeps the chain apart from everything else that may be made of the same agreed key.
const SALT: &[u8] = b"cereus sealed session 1";
const REQUEST: &[u8] = b"request";
const NEXT: &[u8] = b"next";

/// Where a session stands. Wiped when dropped; shows its place and nothing else.
#[derive(Clone)]
pub struct Ratchet {
    link: Zeroizing<[u8; 32]>,
    step: u32,
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ratchet(step {})", self.step)
    }
}

/// Why there is no key for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatchetFault {
    /// It was turned past, and its key is forgotten: a repeat.
    Behind,
    /// Further ahead than steps are ever left out.
    TooFar,
}

impl Ratchet {
    /// Requests of one session.
    pub const STEPS_MAX: u32 = 4_096;
    /// Steps that may be left out at once: all, since a machine that is full refuses requests without
    /// opening them.
    pub const SKIPS_MAX: u32 = Self::STEPS_MAX;

    /// The session that `initiator` opened towards `responder`. `agreed` is the key of both.
    #[must_use]
    pub fn new(agreed: &BoxKey, initiator: &PublicKey, responder: &PublicKey) -> Self {
        let mut material = Zeroizing::new([0; 96]);
        material[..32].copy_from_slice(agreed.bytes());
        material[32..64].copy_from_slice(&initiator.0);
        material[64..].copy_from_slice(&responder.0);
        let (link, _) = Hkdf::<Sha256>::extract(Some(SALT), &*material);
        Self {
            link: Zeroizing::new(link.into()),
            step: 0,
        }
    }

    /// The step whose key comes next.
    #[must_use]
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// The key of this step. The session then stands at the next one.
    ///
    /// # Panics
    /// After 2^32 steps; whoever opens sessions opens another one long before.
    #[must_use]
    pub fn turn(&mut self) -> BoxKey {
        let mut key = Zeroizing::new([0; 32]);
        let mut next = Zeroizing::new([0; 32]);
        let chain = Hkdf::<Sha256>::from_prk(&*self.link).expect("a link is as long as a hash");
        chain
            .expand(REQUEST, &mut *key)
            .expect("a key is no longer than a hash");
        chain
            .expand(NEXT, &mut *next)
            .expect("a link is no longer than a hash");
        self.link = next;
        self.step = self.step.checked_add(1).expect("sessions end before");
        BoxKey::from_bytes(*key)
    }

    /// The key of `step`, and the session as it stands behind it. Take it over once the key has opened
    /// something: a step that anybody could name turns nothing.
    ///
    /// # Errors
    /// Its key is forgotten, or so far ahead that nobody would have left out so many.
    pub fn at(&self, step: u32) -> Result<(BoxKey, Self), RatchetFault> {
        let skips = step.checked_sub(self.step).ok_or(RatchetFault::Behind)?;
        if skips > Self::SKIPS_MAX {
            return Err(RatchetFault::TooFar);
        }
        let mut ahead = self.clone();
        for _ in 0..skips {
            let _ = ahead.turn();
        }
        let key = ahead.turn();
        Ok((key, ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::SecretKey;

    fn sides() -> (Ratchet, Ratchet) {
        let (ours, theirs) = (
            SecretKey::from_bytes([3; 32]),
            SecretKey::from_bytes([5; 32]),
        );
        let (one, other) = (ours.public(), theirs.public());
        let from_here = Ratchet::new(&ours.agree(&other).unwrap(), &one, &other);
        let from_there = Ratchet::new(&theirs.agree(&one).unwrap(), &one, &other);
        (from_here, from_there)
    }

    #[test]
    fn both_sides_have_the_same_key_at_each_step_and_no_two_are_alike() {
        let (mut here, mut there) = sides();
        let mut keys = vec![];
        for step in 0..64 {
            assert_eq!(here.step(), step);
            let (key, ahead) = there.at(step).unwrap();
            there = ahead;
            assert_eq!(here.turn().bytes(), key.bytes());
            assert!(!keys.contains(key.bytes()), "each request has its own");
            keys.push(*key.bytes());
        }
    }

    #[test]
    fn the_keys_are_those_of_the_published_derivation() {
        // RFC 5869 by hand: HMAC-SHA256 of the salt, then of one block each.
        use hkdf::hmac::{Hmac, Mac as _};
        let mac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            for part in parts {
                mac.update(part);
            }
            mac.finalize().into_bytes().into()
        };
        let (ours, theirs) = (
            SecretKey::from_bytes([3; 32]),
            SecretKey::from_bytes([5; 32]),
        );
        let agreed = ours.agree(&theirs.public()).unwrap();
        let (one, other) = (ours.public(), theirs.public());
        let first = mac(SALT, &[agreed.bytes(), &one.0, &other.0]);
        let second = mac(&first, &[NEXT, &[1]]);
        let (mut here, _) = sides();
        assert_eq!(here.turn().bytes(), &mac(&first, &[REQUEST, &[1]]));
        assert_eq!(here.turn().bytes(), &mac(&second, &[REQUEST, &[1]]));
    }

    #[test]
    fn steps_may_be_left_out_and_none_comes_twice() {
        let (mut here, there) = sides();
        for _ in 0..9 {
            let _ = here.turn();
        }
        let (key, there) = there.at(9).unwrap();
        assert_eq!(here.turn().bytes(), key.bytes());
        for step in [0, 8, 9] {
            assert_eq!(there.at(step).unwrap_err(), RatchetFault::Behind);
        }
        let far = there.step() + Ratchet::SKIPS_MAX;
        assert!(there.at(far).is_ok());
        assert_eq!(there.at(far + 1).unwrap_err(), RatchetFault::TooFar);
        assert_eq!(there.at(u32::MAX).unwrap_err(), RatchetFault::TooFar);
    }
}
