//! The machines of a liars' world: what is true of each, and what it says of itself.

use std::borrow::Cow;

use cereus_core::event::{Event, MachineReport, MachineSpec, SlotReport, SlotState, Trust};
use cereus_core::ids::{AccountId, ConnId, MachineId, ModelIx};
use cereus_core::time::{Span, Tick};

use super::plan::PlannedMachine;

pub(super) const MODEL: ModelIx = ModelIx(0);
/// For so long after it refused for want of room nobody counts on an honest machine.
const REFUSED_SPAN: Span = Span::secs(65);
/// Slow-down of a decode step for each further row, in thousandths.
const BATCH_SLOWDOWN_MILLI: u64 = 390;

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) plan: PlannedMachine,
    pub(super) id: MachineId,
    pub(super) conn: Option<ConnId>,
    /// Its first report is out.
    pub(super) is_ready: bool,
    pub(super) seq: u64,
    /// Our rows in its engine.
    pub(super) running: u32,
    /// Sent to it and not yet at an end, as the coordinator sees it.
    pub(super) pending: u32,
    /// Given up since its last report.
    pub(super) lingering: u32,
    /// Work that is not ours: now, and as last reported.
    pub(super) foreign: u32,
    pub(super) foreign_told: u32,
    pub(super) refused_at: Option<Tick>,
    /// Attempts that came to it in all, and since it last connected.
    pub(super) attempts: u32,
    pub(super) attempts_here: u32,
    /// An answer on this connection came beyond its first words: before, one request is all that it gets.
    pub(super) has_gone_on: bool,
}

impl Machine {
    pub(super) fn new(plan: PlannedMachine, number: usize) -> Self {
        Self {
            plan,
            id: MachineId(10 + number as u128),
            conn: None,
            is_ready: false,
            seq: 0,
            running: 0,
            pending: 0,
            lingering: 0,
            foreign: 0,
            foreign_told: 0,
            refused_at: None,
            attempts: 0,
            attempts_here: 0,
            has_gone_on: false,
        }
    }

    pub(super) const fn is_honest(&self) -> bool {
        self.plan.liar.is_none()
    }

    /// The connection is gone, and all that it carried.
    pub(super) fn disconnected(&mut self) {
        self.conn = None;
        self.is_ready = false;
        self.seq = 0;
        self.running = 0;
        self.pending = 0;
        self.lingering = 0;
        self.attempts_here = 0;
        self.has_gone_on = false;
    }

    /// An honest machine that can take a request, and of which the coordinator can know that.
    pub(super) fn has_room(&self, now: Tick) -> bool {
        let foreign = self.foreign.max(self.foreign_told);
        let used = self.pending.max(self.running) + self.lingering + foreign;
        let has_refused = self
            .refused_at
            .is_some_and(|at| now.since(at) < REFUSED_SPAN);
        let places = match self.has_gone_on {
            true => u32::from(self.plan.rows),
            false => 1,
        };
        self.is_honest() && self.is_ready && !has_refused && used < places
    }

    /// The same of one that has nothing to do.
    pub(super) fn is_idle(&self, now: Tick) -> bool {
        let work = self.pending + self.running + self.lingering + self.foreign + self.foreign_told;
        self.has_room(now) && work == 0
    }

    /// Whether its engine takes one more row.
    pub(super) fn can_take(&self) -> bool {
        self.running + self.foreign < u32::from(self.plan.rows)
    }

    /// Until the first word of a prompt that comes now.
    pub(super) fn prefill_time(&self, prompt_tokens: u32) -> Span {
        let mtps = u64::from(self.plan.prefill_mtps);
        Span(u64::from(prompt_tokens) * 1_000_000_000 / mtps + self.step_time().0)
    }

    /// One decode step in the batch that runs now.
    pub(super) fn step_time(&self) -> Span {
        let alone_us = 1_000_000_000 / u64::from(self.plan.decode_mtps);
        let others = u64::from((self.running + self.foreign).saturating_sub(1));
        Span(alone_us * (1_000 + BATCH_SLOWDOWN_MILLI * others) / 1_000)
    }

    pub(super) fn joins(&self, conn: ConnId) -> Event<'static> {
        Event::ProviderJoined {
            conn,
            machine: self.id,
            owner: AccountId(self.plan.owner),
            trust: Trust::SelfSigned,
            spec: MachineSpec {
                memory_gb: 256,
                bandwidth_gbs: 400,
                decode_mtps: self.claimed(self.plan.decode_mtps),
                prefill_mtps: self.claimed(self.plan.prefill_mtps),
                can_seal: true,
                private_only: false,
            },
            models: Cow::Borrowed(&[MODEL]),
        }
    }

    /// A liar has all the room there is.
    pub(super) fn reports(&self, conn: ConnId) -> Event<'static> {
        let running = if self.is_honest() {
            self.running + self.foreign
        } else {
            0
        };
        let slot = SlotReport {
            model: MODEL,
            state: SlotState::Idle,
            running: u16::try_from(running).expect("few rows"),
            waiting: 0,
            concurrency_max: self.plan.rows,
            budget_used: 0,
            budget_max: 10_000_000,
            budget_queued: 0,
            decode_mtps: self.claimed(self.plan.decode_mtps),
            prefill_mtps: self.claimed(self.plan.prefill_mtps),
            load_ms: 0,
            wedged: false,
        };
        Event::ProviderReported {
            conn,
            report: MachineReport {
                seq: self.seq,
                has_capacity: true,
                ..MachineReport::default()
            },
            slots: Cow::Owned(vec![slot]),
        }
    }

    fn claimed(&self, true_mtps: u32) -> u32 {
        let factor = self.plan.liar.map_or(1, |liar| liar.claims_factor);
        true_mtps.saturating_mul(factor)
    }
}
