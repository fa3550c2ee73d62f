//! What a coordinator's journal says of the speed of its machines. Its times are of the coordinator, so
//! the network is in them.
//!
//! A first token counts where the machine had nothing else from the dispatch on and had not seen the
//! beginning of the prompt before; what comes then counts as long as the same rows decode.

use std::collections::{BTreeMap, BTreeSet};

use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{Event, MachineSpec};
use cereus_core::ids::{AttemptKey, ConnId, MachineId, ModelIx, RequestId};
use cereus_core::time::Tick;

use super::{Decode, Noise, Points, Prefill};

/// Of one row between two moments at least: the network's delays vary by as much as a few tokens take.
const TOKENS_MIN: u32 = 32;
/// What engines read at once of a lone prompt.
const SOLO_TOKENS: u32 = 2_048;
/// By how much a pair of messages differs in its way.
const JITTER_NS: f64 = 20e6;
const SHARE: f64 = 0.02;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Timings {
    model: ModelIx,
    conns: BTreeMap<ConnId, usize>,
    machines: Vec<MachineTimings>,
    /// Requests that have not ended.
    asks: BTreeMap<RequestId, Asked>,
    /// True lengths of prompts, as machines said them.
    prompts: BTreeMap<AttemptKey, u32>,
}

/// One machine's.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineTimings {
    /// None where it joined before the journal begins.
    pub machine: Option<MachineId>,
    pub spec: Option<MachineSpec>,
    pub load_ms: Option<u64>,
    /// Attempts of the model that it finished.
    pub finished: u64,
    rows: Vec<Row>,
    /// Names of the first blocks of prompts that it has read.
    read: BTreeSet<u32>,
    decode: Vec<Together>,
    prefill: Vec<Prefill>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    model: ModelIx,
    prompt_tokens: u32,
    first_block: Option<u32>,
}

/// An attempt on its machine.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    attempt: AttemptKey,
    asked: Asked,
    sent_at: Tick,
    /// Nothing else was there since, and its beginning is new.
    is_alone: bool,
    /// Until its first token came, had it been alone until then.
    first_took_ns: Option<f64>,
    has_begun: bool,
    tokens: u32,
    /// A moment since which the same rows decode, and its tokens then.
    since: Option<(Tick, u32)>,
}

/// Rows that decoded together for a while.
#[derive(Clone, Debug, PartialEq)]
struct Together {
    steps: u32,
    took_ns: f64,
    /// Each with what is told of its prompt, and its tokens.
    rows: Vec<(AttemptKey, u32, u32)>,
}

impl MachineTimings {
    const fn new(machine: Option<MachineId>, spec: Option<MachineSpec>) -> Self {
        Self {
            machine,
            spec,
            load_ms: None,
            finished: 0,
            rows: Vec::new(),
            read: BTreeSet::new(),
            decode: Vec::new(),
            prefill: Vec::new(),
        }
    }

    /// Other rows decode from now on.
    fn part(&mut self) {
        for row in &mut self.rows {
            row.since = None;
        }
    }

    fn is_sent(&mut self, at: Tick, attempt: AttemptKey, asked: Asked) {
        self.part();
        for row in &mut self.rows {
            row.is_alone = false;
        }
        let is_new = asked.first_block.is_none_or(|name| self.read.insert(name));
        self.rows.push(Row {
            attempt,
            asked,
            sent_at: at,
            is_alone: self.rows.is_empty() && is_new,
            first_took_ns: None,
            has_begun: false,
            tokens: 0,
            since: None,
        });
    }

    fn has_begun(&mut self, at: Tick, attempt: AttemptKey) {
        self.part();
        let Some(row) = self.rows.iter_mut().find(|row| row.attempt == attempt) else {
            return;
        };
        row.has_begun = true;
        row.tokens = 1;
        row.since = Some((at, 1));
        if row.is_alone {
            row.first_took_ns = Some(ns_between(row.sent_at, at));
        }
    }

    /// A row has so many tokens now.
    fn progresses(&mut self, at: Tick, model: ModelIx, attempt: AttemptKey, tokens: u32) {
        let are_alike = |row: &Row| row.has_begun && row.asked.model == model;
        let is_clear = self.rows.iter().all(are_alike);
        let Some(row) = self.rows.iter_mut().find(|row| row.attempt == attempt) else {
            return;
        };
        let since = row.since.replace((at, tokens));
        row.tokens = row.tokens.max(tokens);
        let Some((before, had)) = since.filter(|_| is_clear) else {
            return;
        };
        let steps = tokens.saturating_sub(had);
        if steps < TOKENS_MIN || at <= before {
            return;
        }
        // The others are where they were when they last said so, or somewhat further.
        let rows = self.rows.iter().map(|row| {
            let back = if row.attempt == attempt { steps / 2 } else { 0 };
            (
                row.attempt,
                row.asked.prompt_tokens,
                row.tokens - back.min(row.tokens),
            )
        });
        self.decode.push(Together {
            steps,
            took_ns: ns_between(before, at),
            rows: rows.collect(),
        });
    }

    fn is_over(&mut self, attempt: AttemptKey) -> Option<Row> {
        self.part();
        let ix = self.rows.iter().position(|row| row.attempt == attempt)?;
        Some(self.rows.remove(ix))
    }
}

impl Timings {
    /// Of the attempts at one model.
    #[must_use]
    pub const fn of(model: ModelIx) -> Self {
        Self {
            model,
            conns: BTreeMap::new(),
            machines: Vec::new(),
            asks: BTreeMap::new(),
            prompts: BTreeMap::new(),
        }
    }

    /// In the order in which they came.
    #[must_use]
    pub fn machines(&self) -> &[MachineTimings] {
        &self.machines
    }

    /// The coordinator handled `event`, and `effects` is what followed.
    pub fn note(&mut self, at: Tick, event: &Event<'_>, effects: &Effects) {
        self.hear(at, event);
        for effect in &effects.list {
            match *effect {
                Effect::Dispatch {
                    request,
                    attempt,
                    conn,
                    ..
                } => {
                    if let Some(&asked) = self.asks.get(&request) {
                        self.machine(conn).is_sent(at, attempt, asked);
                    }
                }
                Effect::Finish { request, .. }
                | Effect::Refuse { request, .. }
                | Effect::Fail { request, .. } => {
                    self.asks.remove(&request);
                }
                Effect::CancelAttempt { .. }
                | Effect::Release { .. }
                | Effect::Post { .. }
                | Effect::Alarm { .. }
                | Effect::Disconnect { .. }
                | Effect::Charge { .. }
                | Effect::TellContested { .. }
                | Effect::TellLossy { .. }
                | Effect::LoadModel { .. }
                | Effect::Drained => {}
            }
        }
    }

    fn hear(&mut self, at: Tick, event: &Event<'_>) {
        match event {
            Event::Arrived(ask) => {
                let asked = Asked {
                    model: ask.model,
                    prompt_tokens: ask.prompt_tokens,
                    first_block: ask.prefix.named().next().map(|named| named.name),
                };
                self.asks.insert(ask.request, asked);
            }
            Event::ProviderJoined {
                conn,
                machine,
                spec,
                ..
            } => {
                let known = self
                    .machines
                    .iter()
                    .position(|one| one.machine == Some(*machine));
                let ix = known.unwrap_or_else(|| {
                    self.machines
                        .push(MachineTimings::new(Some(*machine), Some(*spec)));
                    self.machines.len() - 1
                });
                self.conns.insert(*conn, ix);
            }
            Event::ProviderLeft { conn, .. } => {
                if let Some(ix) = self.conns.remove(conn) {
                    self.machines[ix].rows.clear();
                }
            }
            Event::ProviderReported { conn, slots, .. } => {
                let model = self.model;
                let slot = slots.iter().find(|slot| slot.model == model);
                if let Some(load_ms) = slot.map(|slot| slot.load_ms).filter(|took| *took > 0) {
                    self.machine(*conn).load_ms = Some(load_ms.into());
                }
            }
            Event::AttemptStarted { conn, attempt } => self.machine(*conn).has_begun(at, *attempt),
            Event::AttemptProgressed {
                conn,
                attempt,
                shown,
            } => {
                let model = self.model;
                self.machine(*conn)
                    .progresses(at, model, *attempt, shown.pieces);
            }
            Event::AttemptCompleted {
                conn,
                attempt,
                usage,
                ..
            } => {
                let model = self.model;
                self.prompts.insert(*attempt, usage.prompt_tokens);
                let machine = self.machine(*conn);
                machine.progresses(at, model, *attempt, usage.completion_tokens);
                let Some(row) = machine.is_over(*attempt) else {
                    return;
                };
                if row.asked.model != model {
                    return;
                }
                machine.finished += 1;
                if let Some(took_ns) = row.first_took_ns.filter(|_| usage.prompt_tokens > 0) {
                    let tokens = f64::from(usage.prompt_tokens);
                    machine.prefill.push(Prefill {
                        tokens,
                        pairs: tokens * (tokens + 1.0) / 2.0,
                        steps: f64::from(usage.prompt_tokens.div_ceil(SOLO_TOKENS)),
                        took_ns,
                    });
                }
            }
            Event::AttemptFailed { conn, attempt, .. } => {
                self.machine(*conn).is_over(*attempt);
            }
            Event::AccountOpened { .. }
            | Event::AccountCredited { .. }
            | Event::HoldRecovered { .. }
            | Event::Persisted { .. }
            | Event::ProviderRestocked { .. }
            | Event::ProviderVerified { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderDistrusted { .. }
            | Event::ModelLoaded { .. }
            | Event::ModelLoadFailed { .. }
            | Event::ConsumerLeft { .. }
            | Event::AttemptAccepted { .. }
            | Event::DrainBegan
            | Event::Woke
            | Event::ModelListed { .. }
            | Event::ModelPriced { .. }
            | Event::ModelRetired { .. }
            | Event::LimitsChanged { .. }
            | Event::ProviderAttested { .. }
            | Event::WarmMinChanged { .. } => {}
        }
    }

    fn machine(&mut self, conn: ConnId) -> &mut MachineTimings {
        let machines = &mut self.machines;
        let ix = *self.conns.entry(conn).or_insert_with(|| {
            machines.push(MachineTimings::new(None, None));
            machines.len() - 1
        });
        &mut self.machines[ix]
    }

    /// What is known of a machine, by its place among [`Timings::machines`].
    #[must_use]
    pub fn points(&self, ix: usize) -> Points {
        let machine = &self.machines[ix];
        let context = |rows: &[(AttemptKey, u32, u32)]| -> f64 {
            let each = rows.iter().map(|(attempt, told, tokens)| {
                let prompt_tokens = self.prompts.get(attempt).unwrap_or(told);
                f64::from(*prompt_tokens) + f64::from(*tokens)
            });
            each.sum()
        };
        let decode = machine.decode.iter().map(|together| Decode {
            steps: together.steps.into(),
            rows: super::least::count(together.rows.len()),
            context_tokens: context(&together.rows),
            took_ns: together.took_ns,
        });
        Points {
            decode: decode.collect(),
            prefill: machine.prefill.clone(),
            noise: Noise {
                share: SHARE,
                jitter_ns: JITTER_NS,
            },
            travel: true,
            load_ms: machine.load_ms,
        }
    }
}

fn ns_between(from: Tick, to: Tick) -> f64 {
    super::float(to.since(from).0) * 1e3
}
