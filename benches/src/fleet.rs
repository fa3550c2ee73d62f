//! A coordinator with many machines and as many requests in flight, advanced one life at a time.

use std::borrow::Cow;
use std::collections::VecDeque;

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::coordinator::Coordinator;
use cereus_core::draw::Seed;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{
    Ask, Delivery, Ending, Event, MachineReport, MachineSpec, Shown, SlotReport, SlotState, Trust,
    Usage,
};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, Epoch, MachineId, ModelIx, RequestId};
use cereus_core::money::{MicroUsd, Price};
use cereus_core::prefix::Prefix;
use cereus_core::time::Tick;

/// Models that one machine has.
const MODELS_EACH: u16 = 3;
/// Conversations that go on at a time; each comes back with a longer prompt.
const CONVERSATIONS: u128 = 4_096;
/// Blocks of the longest prompt that is named.
const BLOCKS_MAX: u32 = 6;
const OWNER: AccountId = AccountId(1_000_000);
/// Of the requests, the rest of which are longer by steps.
const PROMPT_TOKENS_MIN: u32 = 200;
const ACCOUNTS: u64 = 1_000;

/// One coordinator, its machines, and the attempts that are out.
pub struct Fleet {
    pub core: Coordinator,
    out: Effects,
    now: Tick,
    next_request: u128,
    in_flight: VecDeque<(AttemptKey, ConnId)>,
    models: u16,
}

impl Fleet {
    /// The same with one model that all have.
    #[must_use]
    pub fn of(machines: u32) -> Self {
        Self::with(machines, 1)
    }

    /// `machines` of mixed speed, each with room for eight and with three of the models at most, and one
    /// request in flight for each two.
    #[must_use]
    pub fn with(machines: u32, models: u16) -> Self {
        let spec = |model: u16| ModelSpec {
            id: format!("model-{model}"),
            price: Price::DEFAULT,
            context_tokens: 32_768,
            output_tokens_default: 512,
            weights_bytes: 1 << 30,
        };
        let config = Config {
            epoch: Epoch(0),
            seed: Seed::from_number(1),
            catalog: Catalog::new((0..models).map(spec).collect()).expect("some models"),
            limits: Limits::reference(),
            fee_percent: 5,
            trust_min: Trust::None,
        };
        let mut fleet = Self {
            core: Coordinator::new(config),
            out: Effects::with_capacity(64),
            now: Tick(1),
            next_request: 1,
            in_flight: VecDeque::new(),
            models,
        };
        for account in 0..ACCOUNTS {
            let balance = MicroUsd(1_000_000_000_000);
            fleet.step(Event::AccountOpened {
                account: AccountId(account),
                balance,
            });
        }
        fleet.step(Event::AccountOpened {
            account: OWNER,
            balance: MicroUsd(0),
        });
        for machine in 0..machines {
            fleet.join(machine);
        }
        for _ in 0..machines / 2 {
            fleet.arrive();
        }
        fleet
    }

    /// A request arrives and is dispatched; the oldest in flight runs its whole course.
    pub fn lifecycle(&mut self) {
        self.arrive();
        let (attempt, conn) = self.in_flight.pop_front().expect("requests are in flight");
        self.step(Event::AttemptAccepted { conn, attempt });
        self.step(Event::AttemptStarted { conn, attempt });
        // No more than the shortest prompt: who claims more than it was sent is barred.
        let usage = Usage {
            prompt_tokens: PROMPT_TOKENS_MIN,
            completion_tokens: 200,
        };
        self.step(Event::AttemptCompleted {
            conn,
            attempt,
            usage,
            shown: Shown {
                pieces: 200,
                text_bytes: 900,
                ..Shown::default()
            },
            ending: Ending::Said,
        });
        self.step(Event::Persisted {
            up_to: self.core.books().last_seq(),
        });
    }

    /// Only the routing decision, for the next request.
    #[must_use]
    pub fn decide(&mut self) -> Option<ConnId> {
        self.next_request += 1;
        self.core.preview(self.ask())
    }

    /// One machine reports.
    pub fn heartbeat(&mut self, machine: u32) {
        let conn = ConnId(u64::from(machine));
        let report = MachineReport {
            has_capacity: true,
            ..MachineReport::default()
        };
        let mut slots = [slot(machine, ModelIx(0)); MODELS_EACH as usize];
        let mut count = 0;
        for (place, model) in slots.iter_mut().zip(self.models_of(machine)) {
            place.model = model;
            count += 1;
        }
        self.step(Event::ProviderReported {
            conn,
            report,
            slots: Cow::Borrowed(&slots[..count]),
        });
    }

    fn arrive(&mut self) {
        self.next_request += 1;
        let ask = self.ask();
        self.step(Event::Arrived(ask));
        let dispatched = self.out.list.iter().find_map(|effect| match effect {
            Effect::Dispatch { attempt, conn, .. } => Some((*attempt, *conn)),
            _ => None,
        });
        self.in_flight
            .push_back(dispatched.expect("the fleet has room"));
    }

    fn models_of(&self, machine: u32) -> impl Iterator<Item = ModelIx> + use<> {
        let models = self.models;
        let first = (machine % u32::from(models)) as u16;
        (0..MODELS_EACH.min(models)).map(move |nth| ModelIx((first + nth) % models))
    }

    fn ask(&self) -> Ask {
        let n = self.next_request;
        let conversation = n % CONVERSATIONS;
        let turn = u32::try_from(n / CONVERSATIONS % u128::from(BLOCKS_MAX)).expect("small");
        let first = u32::try_from(conversation).expect("small") * BLOCKS_MAX;
        let model = u16::try_from(conversation % u128::from(self.models)).expect("small");
        Ask {
            prompt_tokens: PROMPT_TOKENS_MIN + u32::try_from(n % 7).expect("small") * 150,
            prompt_tokens_bound: 6_000,
            output_tokens_max: 400,
            delivery: Delivery::Streamed,
            prefix: Prefix::of((0..turn).map(|block| first + block)),
            ..Ask::new(
                RequestId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
                AccountId(u64::try_from(n % u128::from(ACCOUNTS)).expect("small")),
                ModelIx(model),
            )
        }
    }

    fn join(&mut self, machine: u32) {
        let conn = ConnId(u64::from(machine));
        let spec = MachineSpec {
            memory_gb: 128,
            bandwidth_gbs: 400,
            decode_mtps: 0,
            prefill_mtps: 0,
            can_seal: true,
            private_only: false,
        };
        let models: Vec<ModelIx> = self.models_of(machine).collect();
        self.step(Event::ProviderJoined {
            conn,
            machine: MachineId(u128::from(machine) << 64),
            owner: OWNER,
            trust: Trust::Hardware,
            spec,
            models: Cow::Owned(models),
        });
        self.step(Event::ProviderVerified { conn });
        self.heartbeat(machine);
    }

    fn step(&mut self, event: Event<'_>) {
        self.now = Tick(self.now.0 + 3);
        self.out.clear();
        self.core
            .step(self.now, &event, &mut self.out)
            .expect("the bench keeps the contract");
    }
}

fn slot(machine: u32, model: ModelIx) -> SlotReport {
    SlotReport {
        model,
        state: SlotState::Idle,
        running: 0,
        waiting: 0,
        concurrency_max: 8,
        budget_used: 0,
        budget_max: 60_000,
        budget_queued: 0,
        decode_mtps: 30_000 + (machine % 11) * 7_000,
        prefill_mtps: 600_000 + (machine % 5) * 400_000,
        load_ms: 0,
        wedged: false,
    }
}
