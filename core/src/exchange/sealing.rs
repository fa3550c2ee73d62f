//! The keys under which a connection's requests are sealed.
//!
//! The published form asks for a key pair and an agreement for each request, which is the dearest
//! thing in a short request's life. A provider that says so takes a session instead: one agreement,
//! then a key of its own for each request, and another agreement after some minutes or requests.

use crate::envelope::{BoxKey, PublicKey, Ratchet, SecretKey};
use crate::time::{Span, Tick};

/// With [`Ratchet::STEPS_MAX`] it bounds what an agreed key that leaks could open.
const SESSION_AGE_MAX: Span = Span::secs(600);

/// What one request is sealed with.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// Seals the request and opens what comes back.
    pub key: BoxKey,
    /// Our side of the agreement.
    pub own: PublicKey,
    /// The provider's side.
    pub to: PublicKey,
    /// Of a session, which of its keys; `None` where the agreement is this request's alone.
    pub step: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sealing {
    session: Option<Session>,
}

#[derive(Clone, Debug)]
struct Session {
    opened_at: Tick,
    own: PublicKey,
    ratchet: Ratchet,
}

impl Session {
    fn open(now: Tick, to: &PublicKey, secret: &SecretKey) -> Option<Self> {
        let own = secret.public();
        let agreed = secret.agree(to).ok()?;
        Some(Self {
            opened_at: now,
            own,
            ratchet: Ratchet::new(&agreed, &own, to),
        })
    }

    fn is_spent(&self, now: Tick) -> bool {
        self.ratchet.step() >= Ratchet::STEPS_MAX || now.since(self.opened_at) >= SESSION_AGE_MAX
    }
}

impl Sealing {
    /// The key of the next request. `None`: there is no randomness, or the provider's key is not one.
    pub(super) fn next(
        &mut self,
        now: Tick,
        to: PublicKey,
        takes_sessions: bool,
        fresh: impl FnOnce() -> Option<SecretKey>,
    ) -> Option<RequestKey> {
        if !takes_sessions {
            let secret = fresh()?;
            return Some(RequestKey {
                key: secret.agree(&to).ok()?,
                own: secret.public(),
                to,
                step: None,
            });
        }
        if self.session.as_ref().is_none_or(|it| it.is_spent(now)) {
            // The old one is forgotten, whether there is another or not.
            self.session = None;
            self.session = Session::open(now, &to, &fresh()?);
        }
        let session = self.session.as_mut()?;
        let step = session.ratchet.step();
        Some(RequestKey {
            key: session.ratchet.turn(),
            own: session.own,
            to,
            step: Some(step),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretKey {
        SecretKey::from_bytes([byte; 32])
    }

    #[test]
    fn one_agreement_serves_many_requests_each_with_a_key_of_its_own() {
        let to = secret(9).public();
        let mut sealing = Sealing::default();
        let mut agreements = 0;
        let mut next = |now| {
            sealing
                .next(now, to, true, || {
                    agreements += 1;
                    Some(secret(agreements))
                })
                .unwrap()
        };
        let first = next(Tick::ZERO);
        assert_eq!(first.step, Some(0));
        for step in 1..Ratchet::STEPS_MAX {
            let later = next(Tick::ZERO);
            assert_eq!((later.step, later.own), (Some(step), first.own));
        }
        let another = next(Tick::ZERO);
        assert_eq!(another.step, Some(0));
        assert_ne!(another.own, first.own);
        let young = next(Tick(SESSION_AGE_MAX.0 - 1));
        assert_eq!(young.own, another.own);
        let old = next(Tick(SESSION_AGE_MAX.0));
        assert_ne!(old.own, another.own);
        assert_eq!(agreements, 3);
    }

    #[test]
    fn others_get_an_agreement_for_each_request() {
        let (theirs, to) = (secret(9), secret(9).public());
        let mut sealing = Sealing::default();
        for byte in 1..4 {
            let fresh = || Some(secret(byte));
            let request = sealing.next(Tick::ZERO, to, false, fresh).unwrap();
            assert_eq!((request.step, request.own), (None, secret(byte).public()));
            let mut sealed = vec![];
            request.key.seal([byte; 24], b"body", &mut sealed);
            let there = theirs.agree(&request.own).unwrap();
            assert_eq!(there.open_in_place(&mut sealed).unwrap(), b"body");
        }
        assert!(sealing.next(Tick::ZERO, to, false, || None).is_none());
    }

    #[test]
    fn without_randomness_a_spent_session_is_not_used_further() {
        let to = secret(9).public();
        let mut sealing = Sealing::default();
        let fresh = || Some(secret(1));
        assert!(sealing.next(Tick::ZERO, to, true, fresh).is_some());
        let late = Tick(SESSION_AGE_MAX.0);
        assert!(sealing.next(late, to, true, || None).is_none());
        assert!(sealing.next(late, to, true, || None).is_none());
    }
}
