//! Events for a small coordinator, from a fuzzer's bytes.

use std::borrow::Cow;

use arbitrary::Arbitrary;
use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::{
    Ask, AttemptFault, Delivery, Ending, Event, GoneCause, MachineReport, MachineSpec, Shown,
    SlotReport, SlotState, Thermal, Trust, Usage,
};
use cereus_core::ids::{AccountId, AttemptKey, ConnId, Epoch, MachineId, ModelIx, RequestId};
use cereus_core::money::{MicroUsd, Price};
use cereus_core::time::Span;
use cereus_core::traits::Traits;

const MODELS: u8 = 2;
const ACCOUNTS: u8 = 4;

/// Tight in every limit, so that each of them is reached.
#[must_use]
pub fn config() -> Config {
    let spec = |number: u8| ModelSpec {
        id: format!("model-{number}"),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1 << 30,
    };
    Config {
        epoch: Epoch(0),
        seed: Seed::from_number(7),
        catalog: Catalog::new((0..MODELS).map(spec).collect()).expect("two models"),
        limits: Limits {
            accounts_max: 5,
            providers_max: 6,
            models_per_provider_max: 2,
            requests_max: 12,
            queue_depth_max: 3,
            candidates_max: 3,
            ..Limits::reference()
        },
        fee_percent: 5,
        trust_min: Trust::None,
    }
}

/// One thing that can happen, with small numbers in place of ids, so that they meet.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    Accepted(u8),
    Attested {
        conn: u8,
        hardware: bool,
        seconds: u8,
    },
    Arrived {
        request: u8,
        account: u8,
        model: u8,
        prompt: u16,
        output: u16,
    },
    Completed {
        attempt: u8,
        prompt: u16,
        completion: u16,
        relayed: u16,
    },
    ConsumerLeft(u8),
    Credited {
        account: u8,
        amount: u32,
    },
    Distrusted(u8),
    Drained,
    Failed {
        attempt: u8,
        fault: u8,
    },
    HoldRecovered {
        account: u8,
        request: u8,
        amount: u16,
    },
    Joined {
        conn: u8,
        machine: u8,
        hardware: bool,
        both: bool,
        private: bool,
    },
    Left {
        conn: u8,
        cause: u8,
    },
    LoadFailed {
        conn: u8,
        model: u8,
        draining: bool,
    },
    Loaded {
        conn: u8,
        model: u8,
    },
    Opened {
        account: u8,
        balance: u32,
    },
    Passed(u32),
    Persisted(u8),
    Progressed {
        attempt: u8,
        tokens: u16,
    },
    Reported {
        conn: u8,
        seq: u8,
        draining: bool,
        thermal: u8,
        pressure: u32,
        slots: Vec<Slot>,
    },
    Restocked {
        conn: u8,
        both: bool,
    },
    Started(u8),
    Unverified(u8),
    Verified(u8),
    WarmMin {
        model: u8,
        machines: u8,
    },
    Woke,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Slot {
    model: u8,
    state: u8,
    running: u8,
    waiting: u8,
    concurrency: u8,
    budget: Option<(u16, u16)>,
    speed: u16,
    wedged: bool,
}

/// Turns operations into events: it remembers which attempts were dispatched where.
#[derive(Debug, Default)]
pub struct Script {
    attempts: Vec<(ConnId, AttemptKey)>,
}

/// What an operation is: a step of the coordinator or of time.
pub enum Turn {
    Event(Event<'static>),
    Pass(Span),
}

impl Script {
    /// Looks at what a step asked for.
    pub fn follow(&mut self, effects: &Effects) {
        for effect in &effects.list {
            if let Effect::Dispatch { attempt, conn, .. } = effect {
                self.attempts.push((*conn, *attempt));
            }
        }
    }

    fn attempt(&self, number: u8) -> (ConnId, AttemptKey) {
        // The newest is 0: most operations concern it.
        let count = self.attempts.len();
        let ix = count.checked_sub(1 + usize::from(number) % count.max(1));
        let nobody = (
            ConnId(0),
            AttemptKey {
                slot: u32::MAX,
                generation: 0,
            },
        );
        ix.and_then(|ix| self.attempts.get(ix))
            .copied()
            .unwrap_or(nobody)
    }

    /// `posted` is the number of the last transfer.
    #[must_use]
    pub fn turn(&self, op: &Op, posted: u64) -> Turn {
        Turn::Event(match op {
            Op::Passed(millis) => return Turn::Pass(Span::millis(u64::from(*millis))),
            Op::Accepted(attempt) => {
                let (conn, attempt) = self.attempt(*attempt);
                Event::AttemptAccepted { conn, attempt }
            }
            Op::Attested {
                conn,
                hardware,
                seconds,
            } => Event::ProviderAttested {
                conn: conn_id(*conn),
                gives: if *hardware {
                    Traits::HARDWARE
                } else {
                    Traits::SELF_SIGNED
                },
                valid_for: Span::secs(u64::from(*seconds)),
            },
            Op::Arrived {
                request,
                account,
                model,
                prompt,
                output,
            } => Event::Arrived(Ask {
                prompt_tokens: u32::from(*prompt),
                prompt_tokens_bound: u32::from(*prompt) * 4,
                output_tokens_max: u32::from(*output),
                delivery: if output.is_multiple_of(2) {
                    Delivery::Streamed
                } else {
                    Delivery::Whole
                },
                ..Ask::new(request_id(*request), account_id(*account), model_ix(*model))
            }),
            Op::Completed {
                attempt,
                prompt,
                completion,
                relayed,
            } => {
                let (conn, attempt) = self.attempt(*attempt);
                let usage = Usage {
                    prompt_tokens: u32::from(*prompt),
                    completion_tokens: u32::from(*completion),
                };
                Event::AttemptCompleted {
                    conn,
                    attempt,
                    usage,
                    shown: Shown {
                        pieces: u32::from(*relayed),
                        text_bytes: u32::from(*relayed),
                        ..Shown::default()
                    },
                    ending: if completion.is_multiple_of(16) {
                        Ending::Cut
                    } else {
                        Ending::Said
                    },
                }
            }
            Op::ConsumerLeft(request) => Event::ConsumerLeft {
                request: request_id(*request),
            },
            Op::Credited { account, amount } => Event::AccountCredited {
                reference: None,
                account: account_id(*account),
                amount: MicroUsd(i64::from(*amount)),
            },
            Op::Distrusted(conn) => Event::ProviderDistrusted {
                conn: conn_id(*conn),
            },
            Op::Drained => Event::DrainBegan,
            Op::Failed { attempt, fault } => {
                let (conn, attempt) = self.attempt(*attempt);
                Event::AttemptFailed {
                    conn,
                    attempt,
                    fault: attempt_fault(*fault),
                }
            }
            Op::HoldRecovered {
                account,
                request,
                amount,
            } => Event::HoldRecovered {
                account: account_id(*account),
                request: request_id(*request),
                amount: MicroUsd(i64::from(*amount)),
            },
            Op::Joined {
                conn,
                machine,
                hardware,
                both,
                private,
            } => Event::ProviderJoined {
                conn: conn_id(*conn),
                machine: MachineId(u128::from(*machine % 8)),
                owner: account_id(*machine),
                trust: if *hardware {
                    Trust::Hardware
                } else {
                    Trust::SelfSigned
                },
                spec: MachineSpec {
                    memory_gb: 16,
                    bandwidth_gbs: 400,
                    decode_mtps: 0,
                    prefill_mtps: 0,
                    can_seal: true,
                    private_only: *private,
                },
                models: models(*both),
            },
            Op::Left { conn, cause } => Event::ProviderLeft {
                conn: conn_id(*conn),
                cause: gone_cause(*cause),
            },
            Op::LoadFailed {
                conn,
                model,
                draining,
            } => Event::ModelLoadFailed {
                conn: conn_id(*conn),
                model: model_ix(*model),
                draining: *draining,
            },
            Op::Loaded { conn, model } => Event::ModelLoaded {
                conn: conn_id(*conn),
                model: model_ix(*model),
            },
            Op::Opened { account, balance } => Event::AccountOpened {
                account: account_id(*account),
                balance: MicroUsd(i64::from(*balance)),
            },
            Op::Persisted(behind) => Event::Persisted {
                up_to: posted.saturating_sub(u64::from(*behind)),
            },
            Op::Progressed { attempt, tokens } => {
                let (conn, attempt) = self.attempt(*attempt);
                Event::AttemptProgressed {
                    conn,
                    attempt,
                    shown: Shown {
                        pieces: u32::from(*tokens),
                        text_bytes: u32::from(*tokens) * 3,
                        ..Shown::default()
                    },
                }
            }
            Op::Reported {
                conn,
                seq,
                draining,
                thermal,
                pressure,
                slots,
            } => Event::ProviderReported {
                conn: conn_id(*conn),
                report: MachineReport {
                    seq: u64::from(*seq),
                    draining: *draining,
                    thermal: [
                        Thermal::Nominal,
                        Thermal::Fair,
                        Thermal::Serious,
                        Thermal::Critical,
                    ][usize::from(*thermal % 4)],
                    memory_pressure_ppm: *pressure % 1_000_001,
                    has_capacity: !slots.is_empty(),
                    free_for_load_bytes: Some(1 << 34),
                },
                slots: Cow::Owned(slot_reports(slots)),
            },
            Op::Restocked { conn, both } => Event::ProviderRestocked {
                conn: conn_id(*conn),
                models: models(*both),
            },
            Op::Started(attempt) => {
                let (conn, attempt) = self.attempt(*attempt);
                Event::AttemptStarted { conn, attempt }
            }
            Op::Unverified(conn) => Event::ProviderUnverified {
                conn: conn_id(*conn),
            },
            Op::Verified(conn) => Event::ProviderVerified {
                conn: conn_id(*conn),
            },
            Op::WarmMin { model, machines } => Event::WarmMinChanged {
                model: model_ix(*model),
                machines: u16::from(machines % 8),
            },
            Op::Woke => Event::Woke,
        })
    }
}

fn request_id(number: u8) -> RequestId {
    RequestId(u128::from(number) + 1)
}

fn account_id(number: u8) -> AccountId {
    AccountId(u64::from(number % ACCOUNTS))
}

fn conn_id(number: u8) -> ConnId {
    ConnId(u64::from(number % 16))
}

fn model_ix(number: u8) -> ModelIx {
    ModelIx(u16::from(number % MODELS))
}

fn models(both: bool) -> Cow<'static, [ModelIx]> {
    let list: &'static [ModelIx] = &[ModelIx(0), ModelIx(1)];
    Cow::Borrowed(if both { list } else { &list[..1] })
}

fn slot_reports(slots: &[Slot]) -> Vec<SlotReport> {
    let mut reports: Vec<SlotReport> = vec![];
    for slot in slots.iter().take(usize::from(MODELS)) {
        let model = model_ix(slot.model);
        // The link drops repeated models.
        if reports.iter().any(|seen| seen.model == model) {
            continue;
        }
        let states = [
            SlotState::Absent,
            SlotState::Crashed,
            SlotState::Idle,
            SlotState::IdleShutdown,
            SlotState::Reloading,
            SlotState::Running,
        ];
        let (budget_used, budget_max) = slot.budget.unwrap_or_default();
        reports.push(SlotReport {
            model,
            state: states[usize::from(slot.state) % states.len()],
            running: u16::from(slot.running % 25),
            waiting: u16::from(slot.waiting),
            concurrency_max: u16::from(slot.concurrency % 25),
            budget_used: u64::from(budget_used),
            budget_max: u64::from(budget_max),
            budget_queued: 0,
            decode_mtps: u32::from(slot.speed),
            prefill_mtps: u32::from(slot.speed) * 8,
            load_ms: u32::from(slot.speed),
            wedged: slot.wedged,
        });
    }
    reports
}

fn attempt_fault(number: u8) -> AttemptFault {
    let faults = [
        AttemptFault::Busy,
        AttemptFault::ConsumerStalled,
        AttemptFault::Client(413),
        AttemptFault::Encryption,
        AttemptFault::Internal,
        AttemptFault::ModelUnavailable,
        AttemptFault::Cancelled,
        AttemptFault::Unsent,
        AttemptFault::AnswerTooLarge,
        AttemptFault::HoldOverdue,
    ];
    faults[usize::from(number) % faults.len()]
}

fn gone_cause(number: u8) -> GoneCause {
    let causes = [
        GoneCause::Closed,
        GoneCause::Lost,
        GoneCause::Replaced,
        GoneCause::Silent,
        GoneCause::Violation,
        GoneCause::WriteStalled,
        GoneCause::Contested,
    ];
    causes[usize::from(number) % causes.len()]
}
