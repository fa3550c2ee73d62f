//! Opens requests: those of the published form, each with an agreement of its own, and those of the
//! one sealed session that this connection's coordinator has open.

use crate::envelope::{BoxKey, OpenFault, PublicKey, Ratchet, RatchetFault, SecretKey, open_from};
use crate::wire::messages::SealedText;

#[derive(Clone, Debug, Default)]
pub(super) struct Opener {
    session: Option<Session>,
}

#[derive(Clone, Debug)]
struct Session {
    by: PublicKey,
    ratchet: Ratchet,
}

impl Opener {
    /// The key for the answer and the plaintext, which lies in `scratch`. A session turns only when
    /// something was opened: a frame that anybody could write moves nothing.
    pub(super) fn open<'s>(
        &mut self,
        own: &SecretKey,
        sealed: &SealedText<'_>,
        size_max: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<(BoxKey, &'s [u8]), OpenFault> {
        let SealedText {
            ephemeral_public_key: by,
            ciphertext,
            session_step,
        } = sealed;
        let Some(step) = session_step else {
            return open_from(own, by, ciphertext, size_max, scratch);
        };
        let step = u32::try_from(*step).map_err(|_| OpenFault::Step(RatchetFault::TooFar))?;
        let by = PublicKey::parse(by).map_err(OpenFault::Key)?;
        let fresh;
        let session = match &self.session {
            Some(session) if session.by == by => session,
            Some(_) | None => {
                let agreed = own.agree(&by).map_err(OpenFault::Key)?;
                let ratchet = Ratchet::new(&agreed, &by, &own.public());
                fresh = Session { by, ratchet };
                &fresh
            }
        };
        let (key, ratchet) = session.ratchet.at(step).map_err(OpenFault::Step)?;
        let plain = key.open_text(ciphertext, size_max, scratch)?;
        self.session = Some(Session { by, ratchet });
        Ok((key, plain))
    }

    /// The connection is gone, and its session with it.
    pub(super) fn forget(&mut self) {
        self.session = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Text;

    const ROOM: usize = 1_024;

    fn secret(byte: u8) -> SecretKey {
        SecretKey::from_bytes([byte; 32])
    }

    struct Coordinator {
        own: SecretKey,
        ratchet: Ratchet,
    }

    impl Coordinator {
        fn new(byte: u8, to: &SecretKey) -> Self {
            let own = secret(byte);
            let agreed = own.agree(&to.public()).unwrap();
            let ratchet = Ratchet::new(&agreed, &own.public(), &to.public());
            Self { own, ratchet }
        }

        fn seal(&mut self, body: &str) -> SealedText<'static> {
            let step = self.ratchet.step();
            let mut text = String::new();
            let key = self.ratchet.turn();
            key.seal_text([7; 24], body.as_bytes(), &mut Vec::new(), &mut text);
            SealedText {
                ephemeral_public_key: Text::from(self.own.public().text().as_str().to_owned()),
                ciphertext: Text::from(text),
                session_step: Some(i64::from(step)),
            }
        }
    }

    fn opened(opener: &mut Opener, own: &SecretKey, sealed: &SealedText<'_>) -> Option<String> {
        let mut scratch = vec![];
        let (_, plain) = opener.open(own, sealed, ROOM, &mut scratch).ok()?;
        Some(String::from_utf8(plain.to_vec()).unwrap())
    }

    #[test]
    fn a_request_of_a_session_opens_once() {
        let own = secret(9);
        let mut opener = Opener::default();
        let mut coordinator = Coordinator::new(1, &own);
        let first = coordinator.seal("one");
        let lost = coordinator.seal("two");
        let third = coordinator.seal("three");
        assert_eq!(opened(&mut opener, &own, &first).as_deref(), Some("one"));
        assert_eq!(opened(&mut opener, &own, &first), None, "a repeat");
        assert_eq!(opened(&mut opener, &own, &third).as_deref(), Some("three"));
        assert_eq!(opened(&mut opener, &own, &lost), None, "its key is gone");
    }

    #[test]
    fn the_last_request_of_a_session_opens_though_none_before_it_was_opened() {
        let own = secret(9);
        let mut opener = Opener::default();
        let mut coordinator = Coordinator::new(1, &own);
        assert!(opened(&mut opener, &own, &coordinator.seal("first")).is_some());
        while coordinator.ratchet.step() < Ratchet::STEPS_MAX - 1 {
            let _ = coordinator.ratchet.turn();
        }
        let last = coordinator.seal("last");
        assert_eq!(opened(&mut opener, &own, &last).as_deref(), Some("last"));
    }

    #[test]
    fn another_session_takes_the_place_of_the_old_one() {
        let own = secret(9);
        let mut opener = Opener::default();
        let (mut old, mut new) = (Coordinator::new(1, &own), Coordinator::new(2, &own));
        assert!(opened(&mut opener, &own, &old.seal("one")).is_some());
        assert!(opened(&mut opener, &own, &new.seal("two")).is_some());
        assert_eq!(opener.session.as_ref().unwrap().by, new.own.public());
        assert!(opened(&mut opener, &own, &old.seal("three")).is_some());
        opener.forget();
        assert!(opener.session.is_none());
    }

    #[test]
    fn what_does_not_open_moves_nothing() {
        let own = secret(9);
        let mut opener = Opener::default();
        let mut coordinator = Coordinator::new(1, &own);
        assert!(opened(&mut opener, &own, &coordinator.seal("one")).is_some());
        let good = coordinator.seal("two");
        for step in [2, i64::from(Ratchet::SKIPS_MAX) + 2, -1, i64::MAX] {
            let forged = SealedText {
                session_step: Some(step),
                ..good.clone()
            };
            assert_eq!(opened(&mut opener, &own, &forged), None, "step {step}");
        }
        let mut stranger = Coordinator::new(3, &secret(8));
        assert_eq!(opened(&mut opener, &own, &stranger.seal("x")), None);
        assert_eq!(opened(&mut opener, &own, &good).as_deref(), Some("two"));
    }

    #[test]
    fn the_published_form_opens_beside_a_session() {
        let own = secret(9);
        let mut opener = Opener::default();
        let mut coordinator = Coordinator::new(1, &own);
        assert!(opened(&mut opener, &own, &coordinator.seal("one")).is_some());
        let sender = secret(4);
        let key = sender.agree(&own.public()).unwrap();
        let mut text = String::new();
        key.seal_text([7; 24], b"plain", &mut Vec::new(), &mut text);
        let sealed = SealedText {
            ephemeral_public_key: Text::from(sender.public().text().as_str().to_owned()),
            ciphertext: Text::from(text),
            session_step: None,
        };
        assert_eq!(opened(&mut opener, &own, &sealed).as_deref(), Some("plain"));
        assert!(opened(&mut opener, &own, &coordinator.seal("two")).is_some());
    }
}
