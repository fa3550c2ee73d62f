//! Frames of the coordinator, and the answers to those that are not about a job: challenges,
//! loads, prefetches, statuses.

use super::jobs::exact_id;
use super::machine::{Agent, Challenge};
use super::reply::send;
use super::session::Session;
use super::{AgentEffect, AgentOut, CHALLENGE_SIZE_MAX, DRAINING_TEXT, Notice, SessionId};
use crate::link::{IDENTITY_CONTESTED, LOST_AT_WORK, NOTHING_SOLD};
use crate::wire::messages::{
    AttestationChallenge, AttestationResponse, Heartbeat, LoadModelStatus, PrefetchModelStatus,
};
use crate::wire::proof::write_status;
use crate::wire::{Frame, Text, ToProvider};

impl Agent {
    pub(super) fn on_frame(&mut self, session: SessionId, frame: &[u8], out: &mut AgentOut) {
        if self.open(session).is_none() {
            self.counts.stale_events += 1;
            return;
        }
        let Ok(message) = ToProvider::decode(frame) else {
            self.counts.bad_frames += 1;
            out.push(AgentEffect::Notice(Notice::BadFrame));
            return;
        };
        if let Some(open) = self.open(session).filter(|open| !open.is_accepted) {
            open.is_accepted = true;
            out.push(AgentEffect::Notice(Notice::Joined));
        }
        let is_leaving = self.is_leaving();
        match message {
            ToProvider::AttestationChallenge(challenge) => {
                self.on_challenge(session, &challenge, out);
            }
            ToProvider::Cancel(cancel) => match exact_id(&cancel.request_id) {
                Some(id) => self.jobs.on_cancel(session, id, &mut self.counts, out),
                None => self.counts.bad_frames += 1,
            },
            ToProvider::InferenceRequest(request) => self.jobs.on_request(
                session,
                &request,
                &self.config,
                is_leaving,
                &mut self.counts,
                out,
            ),
            ToProvider::LoadModel(load) => self.on_load_model(&load.model_id, is_leaving, out),
            ToProvider::PrefetchModel(prefetch) => send(out, session, |bytes| {
                PrefetchModelStatus {
                    model_id: prefetch.model_id,
                    status: Text::from("failed"),
                    error: Text::from("this provider does not fetch models"),
                    ..PrefetchModelStatus::default()
                }
                .encode(bytes);
            }),
            ToProvider::RuntimeStatus(status) => {
                if !status.verified {
                    out.push(AgentEffect::Notice(Notice::RuntimeMismatch));
                }
            }
            ToProvider::TrustStatus(status) => {
                if status.account_linked
                    && let Some(open) = self.open(session).filter(|open| !open.is_linked)
                {
                    open.is_linked = true;
                    out.push(AgentEffect::Notice(Notice::Linked));
                }
                match status.reason.as_str() {
                    IDENTITY_CONTESTED => out.push(AgentEffect::Notice(Notice::Contested)),
                    LOST_AT_WORK => out.push(AgentEffect::Notice(Notice::LostAtWork)),
                    NOTHING_SOLD => out.push(AgentEffect::Notice(Notice::NothingSold)),
                    _ => {}
                }
                if status.status.as_str() == "untrusted" {
                    out.push(AgentEffect::Notice(Notice::Untrusted));
                }
            }
            ToProvider::DesiredModels(_) | ToProvider::Later => {}
        }
    }

    fn on_challenge(
        &mut self,
        session: SessionId,
        challenge: &AttestationChallenge<'_>,
        out: &mut AgentOut,
    ) {
        if challenge.nonce.len() + challenge.timestamp.len() > CHALLENGE_SIZE_MAX {
            self.counts.bad_frames += 1;
            return;
        }
        let mut status = String::new();
        let (nonce, timestamp) = (challenge.nonce.as_str(), challenge.timestamp.as_str());
        write_status(nonce, timestamp, &self.answer(nonce), &mut status);
        out.push(AgentEffect::Sign {
            challenge: [nonce.as_bytes(), timestamp.as_bytes()].concat(),
            status,
        });
        self.challenge = Some(Challenge {
            session,
            nonce: nonce.into(),
        });
    }

    /// What is said in each answer, signatures aside.
    fn answer<'a>(&'a self, nonce: &'a str) -> AttestationResponse<'a> {
        let facts = &self.config.facts;
        let hashes = facts.model_hashes.iter();
        AttestationResponse {
            nonce: Text::from(nonce),
            public_key: Text::from(self.key_text()),
            sip_enabled: facts.sip_enabled,
            rdma_disabled: facts.rdma_disabled,
            secure_boot_enabled: facts.secure_boot_enabled,
            binary_hash: Text::from(facts.binary_hash.as_str()),
            model_hashes: hashes
                .map(|(build, hash)| (Text::from(build.as_str()), Text::from(hash.as_str())))
                .collect(),
            ..AttestationResponse::default()
        }
    }

    pub(super) fn on_signed(
        &mut self,
        signature: &str,
        status_signature: &str,
        out: &mut AgentOut,
    ) {
        let Some(challenge) = self.challenge.take() else {
            self.counts.stale_events += 1;
            return;
        };
        let answer = AttestationResponse {
            signature: Text::from(signature),
            status_signature: Text::from(status_signature),
            ..self.answer(&challenge.nonce)
        };
        send(out, challenge.session, |bytes| answer.encode(bytes));
    }

    fn on_load_model(&mut self, build: &str, is_leaving: bool, out: &mut AgentOut) {
        if is_leaving {
            self.send_load_status(build, "failed", DRAINING_TEXT, out);
        } else if self.config.builds.iter().any(|known| known == build) {
            let build = build.to_owned();
            out.push(AgentEffect::LoadModel { build });
        } else {
            self.send_load_status(build, "failed", "this model is not served here", out);
        }
    }

    pub(super) fn send_load_status(
        &mut self,
        build: &str,
        status: &'static str,
        error: &str,
        out: &mut AgentOut,
    ) {
        let Some(session) = self.open_id() else {
            return;
        };
        let status = LoadModelStatus {
            model_id: Text::from(build),
            status: Text::from(status),
            error: Text::from(error),
        };
        send(out, session, |bytes| status.encode(bytes));
    }

    pub(super) fn on_measured(&mut self, mut heartbeat: Heartbeat<'_>, out: &mut AgentOut) {
        let is_leaving = self.is_leaving();
        let Session::Open(open) = &mut self.session else {
            self.counts.stale_events += 1;
            return;
        };
        heartbeat.status = Text::from(if is_leaving {
            "draining"
        } else if self.jobs.live_count() > 0 {
            "serving"
        } else {
            "idle"
        });
        heartbeat.stats = self.jobs.stats;
        if let Some(capacity) = &mut heartbeat.backend_capacity {
            capacity.capacity_seq = open.number_report();
        }
        let session = open.id;
        send(out, session, |bytes| heartbeat.encode(bytes));
    }
}
