//! Challenges: when one goes out, what its answer is worth, what failures in a row lead to ("Challenge" in
//! `docs/protocol.md`).

use sha2::{Digest as _, Sha256};

use super::LinkConfig;
use crate::envelope::encode_base64;
use crate::ids::ConnId;
use crate::time::Tick;
use crate::wire::clock::utc_text;
use crate::wire::messages::AttestationResponse;
use crate::wire::proof::{AttestedKey, Posture, is_challenge_signed, write_status};

/// What one answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The machine admits to be what we refuse: for good.
    Condemned,
    Failed,
    Passed,
}

/// What follows for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Distrusted,
    GivenUp,
    Nothing,
    Unverified,
    Verified,
}

/// A challenge on its way. Used once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outstanding {
    pub(super) nonce: String,
    pub(super) timestamp: String,
    deadline: Tick,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Challenges {
    sent_count: u64,
    /// `None`: nothing can change any more.
    due_at: Option<Tick>,
    outstanding: Option<Outstanding>,
    /// In a row, of any kind.
    failures: u8,
    /// In a row.
    timeouts: u8,
    /// One of the failures in a row was more than silence.
    has_failed_hard: bool,
    /// Somebody at the other end holds the key.
    has_passed: bool,
}

impl Challenges {
    /// The first one is due at once.
    pub(super) fn new(now: Tick) -> Self {
        Self {
            sent_count: 0,
            due_at: Some(now),
            outstanding: None,
            failures: 0,
            timeouts: 0,
            has_failed_hard: false,
            has_passed: false,
        }
    }

    pub(super) fn due_at(&self) -> Option<Tick> {
        self.due_at
    }

    pub(super) fn overdue_at(&self) -> Option<Tick> {
        self.outstanding
            .as_ref()
            .map(|outstanding| outstanding.deadline)
    }

    /// A fresh challenge; the caller sends it.
    pub(super) fn begin(&mut self, now: Tick, conn: ConnId, config: &LinkConfig) -> &Outstanding {
        self.sent_count += 1;
        self.due_at = Some(now + config.challenge_every);
        self.outstanding.insert(Outstanding {
            nonce: nonce(conn, self.sent_count, config),
            timestamp: utc_text(config.unix_s_at_zero.saturating_add(now.0 / 1_000_000)),
            deadline: now + config.challenge_reply_max,
        })
    }

    /// It could not be queued: as if it had not been tried.
    pub(super) fn put_off(&mut self, now: Tick, config: &LinkConfig) {
        self.outstanding = None;
        self.due_at = Some(now + config.challenge_reply_max);
    }

    /// The challenge that `nonce` answers; an unknown or used one answers none.
    pub(super) fn take(&mut self, nonce: &str) -> Option<Outstanding> {
        self.outstanding
            .take_if(|outstanding| outstanding.nonce == nonce)
    }

    /// Nothing that comes can help: no more challenges.
    pub(super) fn stop(&mut self) {
        self.outstanding = None;
        self.due_at = None;
    }

    /// What follows from an answer. A wrong one of a machine that never passed ends the connection, as
    /// silence does ([`Self::timed_out`]).
    pub(super) fn judged(&mut self, verdict: Verdict, config: &LinkConfig) -> Outcome {
        match verdict {
            Verdict::Condemned => Outcome::Distrusted,
            Verdict::Failed => {
                self.failures = self.failures.saturating_add(1);
                self.timeouts = 0;
                self.has_failed_hard = true;
                if !self.has_passed {
                    Outcome::GivenUp
                } else if self.failures >= config.challenge_failures_max {
                    Outcome::Distrusted
                } else {
                    Outcome::Unverified
                }
            }
            Verdict::Passed => {
                self.failures = 0;
                self.timeouts = 0;
                self.has_failed_hard = false;
                self.has_passed = true;
                Outcome::Verified
            }
        }
    }

    /// Nobody answered in time. Of one who has proven itself a lost packet costs nothing; one who
    /// never did may be a registration that somebody else recorded, and its patience is one answer.
    pub(super) fn timed_out(&mut self, config: &LinkConfig) -> Outcome {
        self.outstanding = None;
        self.failures = self.failures.saturating_add(1);
        self.timeouts = self.timeouts.saturating_add(1);
        if !self.has_passed || self.timeouts >= config.challenge_timeouts_max {
            Outcome::GivenUp
        } else if self.failures >= config.challenge_failures_max && self.has_failed_hard {
            Outcome::Distrusted
        } else if self.failures == config.challenge_failures_max {
            Outcome::Unverified
        } else {
            Outcome::Nothing
        }
    }

    /// Why [`Outcome::GivenUp`], in words for the other end.
    pub(super) fn given_up_for(&self) -> &'static str {
        if self.timeouts == 0 {
            "the first challenge failed"
        } else {
            "challenges unanswered"
        }
    }
}

/// Base64 of 32 bytes that nobody without the seed can foretell: a draw keyed by SHA-256, since the
/// ordinary draw is no match for malice.
fn nonce(conn: ConnId, count: u64, config: &LinkConfig) -> String {
    let mut hash = Sha256::new_with_prefix("cereus challenge nonce\0");
    for word in [config.seed.0[0], config.seed.0[1], conn.0, count] {
        hash.update(word.to_le_bytes());
    }
    let mut text = String::new();
    encode_base64(&hash.finalize(), &mut text);
    text
}

/// Weighs an answer: first who speaks (key, signature, signed status), then what is claimed of the system,
/// which means nothing unless signed. `sealing_key` is the text of the registration.
pub(super) fn judge(
    answer: &AttestationResponse<'_>,
    asked: &Outstanding,
    sealing_key: &str,
    attested: Option<&AttestedKey>,
    posture: Posture,
) -> Verdict {
    if answer.public_key.as_str() != sealing_key {
        return Verdict::Failed;
    }
    match attested {
        Some(key) => {
            let (nonce, moment) = (&asked.nonce, &asked.timestamp);
            if !is_challenge_signed(key, nonce, moment, &answer.signature) {
                return Verdict::Failed;
            }
            if !answer.status_signature.is_empty() {
                let mut status = String::new();
                write_status(nonce, moment, answer, &mut status);
                if !key.has_signed(status.as_bytes(), &answer.status_signature) {
                    return Verdict::Failed;
                }
            }
        }
        // Without a key there is nothing to verify; the coordinator's trust floor decides.
        None if posture == Posture::Advisory => {}
        None if answer.signature.is_empty() => return Verdict::Failed,
        None => {}
    }
    if posture == Posture::Advisory {
        return Verdict::Passed;
    }
    match (
        answer.sip_enabled,
        answer.secure_boot_enabled,
        answer.rdma_disabled,
    ) {
        (Some(false), _, _) | (_, Some(false), _) => Verdict::Condemned,
        (None, _, _) | (_, _, None) => Verdict::Failed,
        (Some(true), Some(true) | None, Some(_)) => Verdict::Passed,
    }
}

#[cfg(test)]
#[path = "challenge_tests.rs"]
mod tests;
