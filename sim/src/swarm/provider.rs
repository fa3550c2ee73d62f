//! One provider's process: the real agent over the engine's scheduler under a chip's speed. The
//! simulated twin of the provider's shell. Liars change what the agent does and says on its way out.

use std::collections::{BTreeMap, BTreeSet};

use cereus_core::agent::{
    Agent, AgentConfig, AgentEffect, AgentEvent, AgentOut, Facts, JobEnd, JobFault, SessionId,
};
use cereus_core::api::{FinishReason, Piece};
use cereus_core::draw::Seed;
use cereus_core::envelope::SecretKey;
use cereus_core::event::{Usage, UsageParts};
use cereus_core::ids::{AttemptKey, WireId};
use cereus_core::schedule::Schedule;
use cereus_core::slots::Refusal;
use cereus_core::time::{Span, Tick};
use cereus_core::wire::Text;
use cereus_core::wire::messages::{
    Capacity, Frame as _, Hardware, Heartbeat, ModelEntry, Register, Slot, Verbatim,
};
use cereus_core::wire::proof::{Blob, MachineKey};
use cereus_engine::kv::KvLayout;
use cereus_engine::scheduler::{Refused, SchedulerConfig};

use super::clock::Clock;
use super::coordinator::key_bytes;
use super::plan::{Lie, PROBE_TOKENS, Plan, PlannedMachine, model_name};
use super::{lies, text};
use crate::hardware::Hardware as Tables;
use crate::machine::{Job, Machine, Note, Pace, StepDue};

/// Notes of progress come this often, so that even short answers have several chunks.
const PROGRESS_TOKENS: u32 = 16;

struct Running {
    wire: WireId,
    number: u32,
    model: u16,
    said_tokens: u32,
}

/// What the world does for a provider.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// The provider drops this socket.
    Drop {
        session: SessionId,
    },
    Dial {
        session: SessionId,
    },
    Ping {
        session: SessionId,
    },
    Send {
        session: SessionId,
        frame: Vec<u8>,
    },
    /// The machine's next step.
    Step(StepDue),
    /// It has drained: the process ends.
    Stopped,
}

fn resident_at_start(models: u16, begins_cold: bool) -> BTreeSet<u16> {
    (0..models).filter(|_| !begins_cold).collect()
}

/// See the module.
pub(super) struct Provider {
    agent: Agent,
    machine: Machine,
    pub(super) lie: Lie,
    seed: Seed,
    ix: u32,
    identity: Option<MachineKey>,
    models: u16,
    /// Models that are in memory.
    resident: BTreeSet<u16>,
    begins_cold: bool,
    truths: Vec<u32>,
    running: BTreeMap<AttemptKey, Running>,
    jobs: u32,
    /// The first heartbeat of a session, as the network may deliver it again.
    first_beat: Option<(SessionId, Vec<u8>)>,
    /// A piece that one who swaps keeps back.
    kept_back: Option<Vec<u8>>,
    sent: u64,
    pub(super) clock: Clock,
    out: AgentOut,
}

/// The machines of these worlds.
const PLACES: [&str; 3] = ["m1-max/64", "m4-max/128", "m3-ultra/256"];

impl Provider {
    pub(super) fn new(plan: &Plan, ix: u32, planned: &PlannedMachine) -> Self {
        let config = SchedulerConfig {
            rows_max: planned.rows_max,
            step_token_budget: 512,
            prefill_chunk_tokens: 128,
            solo_prefill_tokens: 512,
            waiting_max: planned.waiting_max,
            ..SchedulerConfig::reference(4_096)
        };
        let layout = KvLayout::full_attention(1, planned.kv_tokens);
        let seed = Seed::from_number(plan.seed);
        let tables = Tables::built_in();
        let place = PLACES[usize::from(planned.chip)];
        let place = place.parse().expect("a chip and its memory");
        let chip = tables.pair(&place, tables.measured_with());
        let chip = chip.expect("the tables know it");
        let machine = Machine::new(chip, config, layout, Pace::Leap).expect("limits are sane");
        let identity = planned
            .is_attested
            .then(|| MachineKey::from_bytes(key_bytes(seed, whose(ix, u32::MAX))));
        let identity = identity.flatten();
        let life = 0;
        Self {
            agent: agent(
                planned.joins_at,
                seed,
                ix,
                life,
                identity.is_some(),
                plan.models,
            ),
            machine: machine.with_progress(PROGRESS_TOKENS),
            lie: planned.lie,
            seed,
            ix,
            identity,
            models: plan.models,
            resident: resident_at_start(plan.models, plan.warm_min.is_some()),
            begins_cold: plan.warm_min.is_some(),
            truths: plan.asks.iter().map(|ask| ask.output_tokens_true).collect(),
            running: BTreeMap::new(),
            jobs: 0,
            first_beat: None,
            kept_back: None,
            sent: 0,
            clock: Clock::default(),
            out: AgentOut::default(),
        }
    }

    /// The process died, and its `life`th begins.
    pub(super) fn restart(&mut self, now: Tick, life: u32) {
        self.machine.reset();
        self.running.clear();
        self.first_beat = None;
        self.kept_back = None;
        self.clock = Clock::default();
        self.resident = resident_at_start(self.models, self.begins_cold);
        let is_attested = self.identity.is_some();
        self.agent = agent(now, self.seed, self.ix, life, is_attested, self.models);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.agent.live_jobs() == 0 && self.running.is_empty() && self.machine.is_idle()
    }

    pub(super) fn next_wake(&self) -> Option<Tick> {
        self.agent.next_wake().map(|(at, _)| self.clock.world(at))
    }

    /// Something happened to the process.
    pub(super) fn step(&mut self, now: Tick, event: AgentEvent<'_>, acts: &mut Vec<Act>) {
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        self.agent.step(self.clock.read(now), event, &mut out);
        for effect in &out.list {
            self.follow(now, effect, acts);
        }
        self.out = out;
    }

    /// The upgrade is complete.
    pub(super) fn connected(&mut self, now: Tick, session: SessionId, acts: &mut Vec<Act>) {
        let register = &self.register();
        self.step(now, AgentEvent::Connected { session, register }, acts);
    }

    /// The machine's step ended; what it made is said.
    pub(super) fn step_done(&mut self, now: Tick, epoch: u32, acts: &mut Vec<Act>) {
        let mut notes = Vec::new();
        if let Some(due) = self.machine.step_done(epoch, &mut notes) {
            acts.push(Act::Step(due));
        }
        for note in notes {
            match note {
                Note::Started { attempt } => self.say(now, attempt, 1, acts),
                Note::Progressed { attempt, .. } if self.lie == Lie::Breaks => {
                    acts.extend(self.machine.cancel(now, attempt).map(Act::Step));
                    self.end(now, attempt, JobEnd::Failed(JobFault::Internal), acts);
                }
                Note::Progressed { attempt, tokens } => self.say(now, attempt, tokens, acts),
                Note::Completed {
                    attempt,
                    prompt_tokens,
                    cached_tokens: _,
                    completion_tokens,
                } => {
                    self.say(now, attempt, completion_tokens, acts);
                    let times = if self.lie == Lie::OverClaim { 1_000 } else { 1 };
                    let end = JobEnd::Finished {
                        usage: Usage {
                            prompt_tokens: prompt_tokens * times,
                            completion_tokens: completion_tokens * times,
                        },
                        parts: UsageParts::default(),
                        finish: FinishReason::Stop,
                    };
                    self.end(now, attempt, end, acts);
                }
                Note::Evicted { .. } => unreachable!("a machine of one model keeps its grant"),
                Note::Cancelled { attempt } => self.stopped(now, attempt, acts),
            }
        }
    }

    /// Sends the first heartbeat of the session again.
    pub(super) fn stale_beat(&self) -> Option<Act> {
        let (session, frame) = self.first_beat.clone()?;
        Some(Act::Send { session, frame })
    }

    fn follow(&mut self, now: Tick, effect: &AgentEffect, acts: &mut Vec<Act>) {
        match effect {
            AgentEffect::Abandon { session } | AgentEffect::Close { session, .. } => {
                acts.push(Act::Drop { session: *session });
            }
            AgentEffect::Dial { session } => acts.push(Act::Dial { session: *session }),
            AgentEffect::LoadModel { build } => self.load(now, build, acts),
            AgentEffect::Measure => {
                let heartbeat = Box::new(self.heartbeat());
                self.again(now, AgentEvent::Measured { heartbeat }, acts);
            }
            AgentEffect::Notice(_) => {}
            AgentEffect::ReadLocalTime | AgentEffect::Rest | AgentEffect::Rise => {
                unreachable!("these machines always serve")
            }
            AgentEffect::Ping { session } => acts.push(Act::Ping { session: *session }),
            AgentEffect::Send { session, frame } => self.send(*session, frame, acts),
            AgentEffect::Sign { challenge, status } => {
                let sign = |text: &[u8]| self.identity.as_ref().map(|key| key.sign(text));
                let signature = sign(challenge).unwrap_or_default();
                let status_signature = sign(status.as_bytes()).unwrap_or_default();
                let signed = AgentEvent::Signed {
                    signature: &signature,
                    status_signature: &status_signature,
                };
                self.again(now, signed, acts);
            }
            AgentEffect::StartJob { job, body, .. } => {
                self.start(now, *job, body.as_ref(), acts);
            }
            AgentEffect::StopJob { job } => self.stop(now, *job, acts),
            AgentEffect::Stopped => acts.push(Act::Stopped),
        }
    }

    /// Steps the agent from inside its own effects, with a buffer of its own.
    fn again(&mut self, now: Tick, event: AgentEvent<'_>, acts: &mut Vec<Act>) {
        let mut out = AgentOut::default();
        self.agent.step(self.clock.read(now), event, &mut out);
        for effect in &out.list {
            self.follow(now, effect, acts);
        }
    }

    fn send(&mut self, session: SessionId, frame: &[u8], acts: &mut Vec<Act>) {
        let is_beat = lies::is_of(frame, "heartbeat");
        let is_new = self
            .first_beat
            .as_ref()
            .is_none_or(|(of, _)| *of != session);
        if is_beat && is_new {
            self.first_beat = Some((session, frame.to_vec()));
        }
        self.sent += 1;
        for frame in lies::told(self.lie, frame, self.sent, &mut self.kept_back) {
            acts.push(Act::Send { session, frame });
        }
    }

    fn start(&mut self, now: Tick, wire: WireId, body: &[u8], acts: &mut Vec<Act>) {
        let number = text::number_in(body).expect("the body came through unchanged");
        let value: serde_json::Value = serde_json::from_slice(body).expect("bodies are JSON");
        let bound = value["max_tokens"].as_u64().unwrap_or(1);
        self.jobs += 1;
        let attempt = AttemptKey {
            slot: self.jobs,
            generation: 0,
        };
        let running = Running {
            wire,
            number,
            model: text::model_in(&value),
            said_tokens: 0,
        };
        let truth = self.truths.get(number as usize).copied();
        let job = Job {
            attempt,
            prompt_tokens: u32::try_from(body.len() / 8 + 1).expect("bodies are bounded"),
            output_tokens_max: u32::try_from(bound).expect("the bound was a u32"),
            output_tokens_true: truth.unwrap_or(PROBE_TOKENS),
        };
        let taken = match self.lie {
            Lie::BlackHole => Ok(None),
            Lie::Blames => Err(Refused::TooLong),
            Lie::Refuses => Err(Refused::QueueFull),
            _ => self.machine.submit(now, &job, &[]),
        };
        self.resident.insert(running.model);
        self.running.insert(attempt, running);
        let fault = match taken {
            Ok(due) => {
                self.again(now, AgentEvent::JobTaken { job: wire }, acts);
                acts.extend(due.map(Act::Step));
                return;
            }
            Err(Refused::QueueFull) => JobFault::QueueFull,
            Err(Refused::NeverFits) => JobFault::Memory,
            Err(Refused::Duplicate | Refused::Empty | Refused::TooLong) => JobFault::Client,
        };
        self.end(now, attempt, JobEnd::Failed(fault), acts);
    }

    fn stop(&mut self, now: Tick, wire: WireId, acts: &mut Vec<Act>) {
        let mut running = self.running.iter();
        let found = running.find(|(_, running)| running.wire == wire);
        let Some(attempt) = found.map(|(attempt, _)| *attempt) else {
            return;
        };
        match self.lie {
            Lie::BlackHole => self.stopped(now, attempt, acts),
            Lie::Deaf => {}
            _ => acts.extend(self.machine.cancel(now, attempt).map(Act::Step)),
        }
    }

    fn stopped(&mut self, now: Tick, attempt: AttemptKey, acts: &mut Vec<Act>) {
        let said = self.running.get(&attempt).map_or(0, |one| one.said_tokens);
        let usage = Usage {
            prompt_tokens: 1,
            completion_tokens: said,
        };
        self.end(now, attempt, JobEnd::Stopped { usage }, acts);
    }

    /// Says the text up to `tokens`.
    fn say(&mut self, now: Tick, attempt: AttemptKey, tokens: u32, acts: &mut Vec<Act>) {
        let Some(running) = self.running.get_mut(&attempt) else {
            return;
        };
        let text = text::tokens(running.number, running.said_tokens, tokens);
        running.said_tokens = tokens;
        let job = running.wire;
        if !text.is_empty() {
            let piece = Piece::content(&text);
            self.again(now, AgentEvent::JobSaid { job, piece }, acts);
        }
    }

    fn end(&mut self, now: Tick, attempt: AttemptKey, end: JobEnd, acts: &mut Vec<Act>) {
        if let Some(running) = self.running.remove(&attempt) {
            let job = running.wire;
            self.again(now, AgentEvent::JobEnded { job, end }, acts);
        }
    }

    /// A machine that lies says that it has, and has not; one that is not honest in another way fails.
    fn load(&mut self, now: Tick, build: &str, acts: &mut Vec<Act>) {
        if self.lie == Lie::BlackHole {
            return;
        }
        let why = Refusal::Pressed;
        let event = match self.lie {
            Lie::Refuses => AgentEvent::ModelLoadFailed { build, why },
            _ => AgentEvent::ModelLoaded { build },
        };
        let number = (0..self.models).find(|number| model_name(*number) == build);
        self.resident.extend(number);
        self.again(now, event, acts);
    }

    fn heartbeat(&self) -> Heartbeat<'static> {
        let capacity = self.machine.capacity();
        let slot = |number: u16| {
            let rows = self.running.values().filter(|one| one.model == number);
            let rows = u16::try_from(rows.count()).expect("rows are bounded");
            let running = rows.min(capacity.running);
            Slot {
                model: Text::from(model_name(number)),
                state: Text::from(if running > 0 { "running" } else { "idle" }),
                num_running: i64::from(running),
                num_waiting: i64::from(rows - running),
                max_concurrency: i64::from(capacity.concurrency_max),
                active_token_budget_used: whole(capacity.budget_used),
                active_token_budget_max: whole(capacity.budget_max),
                queued_token_budget: whole(capacity.budget_queued),
                ..Slot::default()
            }
        };
        Heartbeat {
            backend_capacity: Some(Capacity {
                slots: self.resident.iter().copied().map(slot).collect(),
                free_for_load_gb: Some(64.0),
                ..Capacity::default()
            }),
            ..Heartbeat::default()
        }
    }

    /// The first frame of a connection.
    fn register(&self) -> Vec<u8> {
        let chip = &self.machine.chip;
        let key = self.agent.key_text();
        let entry = |number: u16| ModelEntry {
            id: Text::from(model_name(number)),
            size_bytes: 1_000_000_000,
            ..ModelEntry::default()
        };
        let blob = self.identity.as_ref().map(|identity| {
            identity.sign_blob(&Blob {
                chip_name: Text::from("Apple M3 Max"),
                encryption_public_key: Some(Text::from(key)),
                public_key: Text::from(identity.attested().text()),
                timestamp: Text::from("2026-01-01T00:00:00Z"),
                ..Blob::default()
            })
        });
        let register = Register {
            hardware: Hardware {
                memory_gb: i64::from(chip.memory_gb),
                memory_bandwidth_gbs: f64::from(chip.bandwidth_gbs),
                ..Hardware::default()
            },
            models: (0..self.models).map(entry).collect(),
            backend: Text::from("cereus-mlx"),
            version: Text::from("0.6.0"),
            public_key: Text::from(key),
            encrypted_response_chunks: true,
            // One in four speaks the published form alone.
            sealed_sessions: !key.as_bytes()[0].is_multiple_of(4),
            attestation: blob.as_deref().map(Verbatim),
            ..Register::default()
        };
        let mut frame = Vec::new();
        register.encode(&mut frame);
        frame
    }
}

/// A process with a signing identity takes a fresh sealing key each time; one without keeps its key,
/// which is its identity.
fn agent(now: Tick, seed: Seed, ix: u32, life: u32, is_attested: bool, models: u16) -> Agent {
    let key_life = if is_attested { life } else { 0 };
    let mut nonce_prefix = [0; 16];
    nonce_prefix[..4].copy_from_slice(&ix.to_le_bytes());
    nonce_prefix[4..8].copy_from_slice(&life.to_le_bytes());
    nonce_prefix[15] = 0xa9;
    let config = AgentConfig {
        seed: Seed([seed.0[0], u64::from(ix) << 32 | u64::from(life)]),
        secret: SecretKey::from_bytes(key_bytes(seed, whose(ix, key_life))),
        nonce_prefix,
        builds: (0..models).map(model_name).collect(),
        jobs_max: core::num::NonZeroU16::new(32).expect("not zero"),
        drain_wait_max: Span::secs(20),
        schedule: Schedule::default(),
        facts: Facts {
            sip_enabled: Some(true),
            rdma_disabled: Some(true),
            secure_boot_enabled: Some(true),
            ..Facts::default()
        },
    };
    Agent::new(now, config)
}

fn whose(ix: u32, life: u32) -> u128 {
    u128::from(ix) << 32 | u128::from(life)
}

fn whole(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
