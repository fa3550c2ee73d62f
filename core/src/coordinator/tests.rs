//! Small stories, then random ones with every invariant recounted after each step.

mod again;
mod catalogue;
mod claims;
mod demands;
mod evidence;
mod fleet;
mod grudges;
mod handover;
mod incidents;
mod memory;
mod money;
mod pitfalls;
mod policies;
mod proofs;
mod queues;
mod racing;
mod receipts;
mod roster;
mod second;
mod strangers;
mod turns;
mod warm;

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::config::{Catalog, Limits, ModelSpec};
use crate::denial::Denial;
use crate::draw::Seed;
use crate::event::{
    Ask, AttemptFault, Delivery, Ending, GoneCause, MachineReport, MachineSpec, Shown, SlotReport,
    SlotState, Trust, Usage,
};
use crate::ids::{AccountId, AttemptKey, ConnId, Epoch, MachineId, ModelIx, RequestId};
use crate::money::{MicroUsd, Price};
use crate::time::Span;
use crate::traits::Traits;

const MODEL: ModelIx = ModelIx(0);
const ACCOUNT: AccountId = AccountId(1);
const OWNER: AccountId = AccountId(9);

fn config() -> Config {
    let spec = |id: &str| ModelSpec {
        id: id.into(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 512,
        weights_bytes: 1_000_000,
    };
    let limits = Limits {
        queue_depth_max: 4,
        // What waits in these tests is not told that it would wait for too long.
        overload_after: Span::secs(86_400),
        ..Limits::reference()
    };
    Config {
        epoch: Epoch(0),
        seed: Seed::from_number(7),
        catalog: Catalog::new(vec![spec("a"), spec("b")]).unwrap(),
        limits,
        fee_percent: 10,
        trust_min: Trust::SelfSigned,
    }
}

const SPEC: MachineSpec = MachineSpec {
    memory_gb: 64,
    bandwidth_gbs: 400,
    decode_mtps: 0,
    prefill_mtps: 0,
    can_seal: true,
    private_only: false,
};

fn slot(concurrency_max: u16, budget_max: u64) -> SlotReport {
    SlotReport {
        model: MODEL,
        state: SlotState::Idle,
        running: 0,
        waiting: 0,
        concurrency_max,
        budget_used: 0,
        budget_max,
        budget_queued: 0,
        decode_mtps: 50_000,
        prefill_mtps: 1_000_000,
        load_ms: 0,
        wedged: false,
    }
}

/// A coordinator with one clock, and what it last said.
struct World {
    core: Coordinator,
    now: Tick,
    out: Effects,
    /// All that were ever raised.
    alarms: Vec<Alarm>,
    /// Whether every invariant is recounted after each step.
    is_checked: bool,
    /// What machines say that they have free for another model.
    free_for_load_bytes: Option<u64>,
}

impl World {
    fn new() -> Self {
        Self::of(config())
    }

    /// For fleets so large that recounting all after each step takes long.
    fn quiet() -> Self {
        let mut world = Self::new();
        world.is_checked = false;
        world
    }

    fn of(config: Config) -> Self {
        let mut world = Self {
            core: Coordinator::new(config),
            now: Tick(1_000),
            out: Effects::default(),
            alarms: Vec::new(),
            is_checked: true,
            free_for_load_bytes: None,
        };
        for (account, balance) in [(ACCOUNT, 1_000_000), (AccountId(2), 1_000_000), (OWNER, 0)] {
            world.step(Event::AccountOpened {
                account,
                balance: MicroUsd(balance),
            });
        }
        world
    }

    fn step(&mut self, event: Event<'_>) -> Vec<Effect> {
        self.now = Tick(self.now.0 + 1_000);
        self.out.clear();
        self.core.step(self.now, &event, &mut self.out).unwrap();
        if self.is_checked {
            self.core.check();
        }
        let raised = self.out.list.iter().filter_map(|effect| match effect {
            Effect::Alarm { alarm, .. } => Some(*alarm),
            _ => None,
        });
        self.alarms.extend(raised);
        self.out.list.clone()
    }

    /// A machine that has served before.
    fn provider(&mut self, conn: u64, machine: u128, concurrency_max: u16) {
        self.stranger(conn, machine, concurrency_max);
        let slot = self.core.known(ConnId(conn)).expect("it has just joined");
        self.core.fleet.goes_on(slot);
        self.core.fleet.refresh(slot, &self.core.config);
    }

    /// One that nobody knows yet.
    fn stranger(&mut self, conn: u64, machine: u128, concurrency_max: u16) {
        let (conn, machine) = (ConnId(conn), MachineId(machine));
        let models = Cow::Owned(vec![MODEL]);
        let trust = Trust::SelfSigned;
        self.step(Event::ProviderJoined {
            conn,
            machine,
            owner: OWNER,
            trust,
            spec: SPEC,
            models,
        });
        self.step(Event::ProviderVerified { conn });
        self.report(conn, 1, slot(concurrency_max, 0));
    }

    fn report(&mut self, conn: ConnId, seq: u64, slot: SlotReport) -> Vec<Effect> {
        let report = MachineReport {
            seq,
            has_capacity: true,
            free_for_load_bytes: self.free_for_load_bytes,
            ..MachineReport::default()
        };
        self.step(Event::ProviderReported {
            conn,
            report,
            slots: Cow::Owned(vec![slot]),
        })
    }

    fn ask(&mut self, id: u128) -> Vec<Effect> {
        self.step(Event::Arrived(ask(id, ACCOUNT)))
    }

    fn persist(&mut self) -> Vec<Effect> {
        let up_to = self.core.books().last_seq();
        self.step(Event::Persisted { up_to })
    }

    fn wake(&mut self) -> Vec<Effect> {
        let (at, _) = self.core.next_wake().expect("a timer is armed");
        self.now = Tick(at.0.max(self.now.0));
        self.step(Event::Woke)
    }
}

fn ask(id: u128, account: AccountId) -> Ask {
    Ask {
        prompt_tokens: 100,
        prompt_tokens_bound: 400,
        output_tokens_max: 50,
        delivery: Delivery::Streamed,
        ..Ask::new(RequestId(id), account, MODEL)
    }
}

const fn shown(pieces: u32, text_bytes: u32) -> Shown {
    Shown {
        pieces,
        text_bytes,
        marks: 0,
        counted: None,
    }
}

/// An answer of so many tokens, claimed as it was shown.
fn completed((attempt, conn): (AttemptKey, ConnId), tokens: u32) -> Event<'static> {
    Event::AttemptCompleted {
        conn,
        attempt,
        usage: Usage {
            prompt_tokens: 100,
            completion_tokens: tokens,
        },
        shown: shown(tokens, tokens * 4),
        ending: Ending::Said,
    }
}

fn dispatched(effects: &[Effect]) -> Option<(AttemptKey, ConnId)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Dispatch { attempt, conn, .. } => Some((*attempt, *conn)),
        _ => None,
    })
}

fn refused(effects: &[Effect]) -> Option<Denial> {
    effects.iter().find_map(|effect| match effect {
        Effect::Refuse { denial, .. } | Effect::Fail { denial, .. } => Some(*denial),
        _ => None,
    })
}

#[test]
fn a_request_is_held_dispatched_released_settled_and_finished() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let effects = world.ask(5);
    assert!(matches!(effects[0], Effect::Post { .. }));
    let (attempt, conn) = dispatched(&effects).unwrap();
    world.step(Event::AttemptAccepted { conn, attempt });
    let started = world.step(Event::AttemptStarted { conn, attempt });
    assert!(started.is_empty(), "INV-05: the hold is not durable yet");
    let request = RequestId(5);
    assert_eq!(world.persist(), [Effect::Release { request, attempt }]);
    let usage = Usage {
        prompt_tokens: 90,
        completion_tokens: 20,
    };
    let effects = world.step(Event::AttemptCompleted {
        conn,
        attempt,
        usage,
        shown: shown(20, 80),
        ending: Ending::Said,
    });
    assert!(matches!(effects[..], [Effect::Post { .. }]));
    assert!(matches!(world.persist()[..], [Effect::Finish { .. }]));
    let receipt = world.out.receipts[0];
    assert_eq!(receipt.charged, MicroUsd(100));
    assert_eq!(receipt.payout, MicroUsd(90));
    assert_eq!(receipt.balance_before, MicroUsd(1_000_000));
    assert_eq!(receipt.balance_after, MicroUsd(999_900));
    world.core.invariant_quiescent();
}

#[test]
fn a_claim_beyond_the_relayed_bytes_is_cut_and_raises_an_alarm() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(5)).unwrap();
    world.step(Event::AttemptStarted { conn, attempt });
    let usage = Usage {
        prompt_tokens: 1,
        completion_tokens: 5_000,
    };
    let effects = world.step(Event::AttemptCompleted {
        conn,
        attempt,
        usage,
        shown: shown(2, 6),
        ending: Ending::Said,
    });
    assert!(effects.iter().any(|e| matches!(
        e,
        Effect::Alarm {
            alarm: Alarm::OverClaim,
            ..
        }
    )));
    world.persist();
    assert_eq!(world.out.receipts[0].usage.completion_tokens, 5, "INV-06");
}

#[test]
fn a_lost_provider_fails_over_before_content_and_fails_after_it() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 22, 4);
    let (_, conn) = dispatched(&world.ask(5)).unwrap();
    let effects = world.step(Event::ProviderLeft {
        conn,
        cause: GoneCause::Lost,
    });
    let (attempt, second) = dispatched(&effects).expect("the other machine takes over");
    assert_ne!(second, conn);
    world.step(Event::AttemptStarted {
        conn: second,
        attempt,
    });
    let effects = world.step(Event::ProviderLeft {
        conn: second,
        cause: GoneCause::Lost,
    });
    assert_eq!(refused(&effects), Some(Denial::ProviderFailed));
    world.core.invariant_quiescent();
    let account = world.core.books().account(ACCOUNT).unwrap();
    assert_eq!(
        account.available,
        MicroUsd(1_000_000),
        "half an answer costs nothing"
    );
}

#[test]
fn events_of_a_past_connection_change_nothing() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    world.provider(2, 11, 4); // The same machine again: the newest wins.
    let (attempt, conn) = dispatched(&world.ask(5)).unwrap();
    assert_eq!(conn, ConnId(2));
    let stale = world.core.counts().stale_events;
    assert!(
        world
            .step(Event::ProviderLeft {
                conn: ConnId(1),
                cause: GoneCause::Lost
            })
            .is_empty()
    );
    assert!(
        world
            .step(Event::AttemptStarted {
                conn: ConnId(1),
                attempt
            })
            .is_empty()
    );
    assert_eq!(world.core.counts().stale_events, stale + 2);
    assert_eq!(world.core.gauges().providers, 1);
}

#[test]
fn a_full_fleet_queues_then_sheds_and_serves_accounts_in_turn() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    for id in 2..5 {
        assert!(dispatched(&world.ask(id)).is_none());
    }
    world.step(Event::Arrived(ask(5, AccountId(2))));
    assert!(matches!(refused(&world.ask(6)), Some(Denial::Full { .. })));
    let order: Vec<u128> = (0..4)
        .scan((attempt, conn), |(attempt, conn), _| {
            let fault = AttemptFault::Client(400);
            let effects = world.step(Event::AttemptFailed {
                conn: *conn,
                attempt: *attempt,
                fault,
            });
            (*attempt, *conn) = dispatched(&effects).unwrap();
            effects.iter().find_map(|effect| match effect {
                Effect::Dispatch { request, .. } => Some(request.0),
                _ => None,
            })
        })
        .collect();
    assert_eq!(order, [2, 5, 3, 4], "INV-20: turn by turn between accounts");
}

#[test]
fn refusals_name_the_right_reason() {
    let mut world = World::new();
    assert!(matches!(
        refused(&world.ask(1)),
        Some(Denial::NoProvider { .. })
    ));
    world.provider(1, 11, 4);
    let poor = AccountId(3);
    world.step(Event::AccountOpened {
        account: poor,
        balance: MicroUsd(99),
    });
    assert_eq!(
        refused(&world.step(Event::Arrived(ask(2, poor)))),
        Some(Denial::Broke)
    );
    let stranger = Event::Arrived(ask(3, AccountId(77)));
    assert_eq!(refused(&world.step(stranger)), Some(Denial::UnknownAccount));
    let long = Ask {
        prompt_tokens: 5_000,
        ..ask(4, ACCOUNT)
    };
    assert_eq!(
        refused(&world.step(Event::Arrived(long))),
        Some(Denial::TooLong)
    );
    world.step(Event::DrainBegan);
    assert_eq!(refused(&world.ask(6)), Some(Denial::Draining));
}

#[test]
fn encryption_faults_end_the_request_and_bar_the_connection() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (first, conn) = dispatched(&world.ask(1)).unwrap();
    world.ask(2);
    let fault = AttemptFault::Encryption;
    let effects = world.step(Event::AttemptFailed {
        conn,
        attempt: first,
        fault,
    });
    assert_eq!(refused(&effects), Some(Denial::Encryption));
    assert!(
        effects
            .iter()
            .any(|e| matches!(e, Effect::CancelAttempt { .. }))
    );
    assert!(matches!(
        refused(&world.ask(3)),
        Some(Denial::NoProvider { .. })
    ));
    world.core.invariant_quiescent();
}

#[test]
fn a_consumer_who_leaves_pays_for_what_was_streamed() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    world.step(Event::AttemptStarted { conn, attempt });
    world.step(Event::AttemptProgressed {
        conn,
        attempt,
        shown: shown(30, 120),
    });
    let effects = world.step(Event::ConsumerLeft {
        request: RequestId(1),
    });
    assert!(matches!(
        effects[..],
        [Effect::CancelAttempt { .. }, Effect::Fail { .. }]
    ));
    let usage = Usage {
        prompt_tokens: 100,
        completion_tokens: 31,
    };
    world.step(Event::AttemptCompleted {
        conn,
        attempt,
        usage,
        shown: Shown::default(),
        ending: Ending::Said,
    });
    world.persist();
    world.core.invariant_quiescent();
    let account = world.core.books().account(ACCOUNT).unwrap();
    assert_eq!(account.available, MicroUsd(1_000_000 - 100));
}

#[test]
fn every_deadline_fires_and_ends_its_request() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    world.ask(1);
    world.ask(2);
    let mut denials = Vec::new();
    while world.core.gauges().requests > 0 {
        denials.extend(refused(&world.wake()));
    }
    assert_eq!(denials.len(), 2);
    world.core.invariant_quiescent();
}

#[test]
fn a_late_report_counts_as_life_only() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let conn = ConnId(1);
    world.report(conn, 5, slot(0, 10_000));
    let digest = |world: &World| Mix::of(&world.core.fleet);
    let before = digest(&world);
    world.report(conn, 4, slot(0, 1));
    assert_eq!(digest(&world), before);
    assert_eq!(world.core.counts().stale_reports, 1);
}

#[test]
fn a_recovered_hold_is_voided_at_once() {
    let mut world = World::new();
    let (request, amount) = (RequestId(4), MicroUsd(250));
    let effects = world.step(Event::HoldRecovered {
        account: ACCOUNT,
        request,
        amount,
    });
    assert!(matches!(effects[..], [Effect::Post { .. }]));
    assert_eq!(
        world.core.books().account(ACCOUNT).unwrap().available,
        MicroUsd(1_000_250)
    );
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let before = world.core.digest();
    let mut out = Effects::default();
    let cases = [
        (Event::Persisted { up_to: 1 }, Misuse::PersistedUnposted),
        (
            Event::AccountOpened {
                account: ACCOUNT,
                balance: MicroUsd(1),
            },
            Misuse::AccountReopened,
        ),
        (
            Event::Arrived(Ask {
                model: ModelIx(9),
                ..ask(1, ACCOUNT)
            }),
            Misuse::UnknownModel,
        ),
    ];
    for (event, misuse) in cases {
        assert_eq!(world.core.step(world.now, &event, &mut out), Err(misuse));
    }
    assert_eq!(
        world.core.step(Tick(0), &Event::Woke, &mut out),
        Err(Misuse::TimeWentBack)
    );
    assert_eq!(world.core.digest(), before);
    assert!(out.list.is_empty());
}

/// One random thing. Small numbers, so that they meet.
#[derive(Clone, Debug)]
enum Op {
    Join(u8),
    Leave(u8),
    Verify(u8),
    Report(u8, u8, u8, u16),
    Ask(u8, u8, u16),
    Accept(u8),
    Start(u8),
    Progress(u8, u8),
    Complete(u8, u8),
    Fail(u8, u8),
    Gone(u8),
    Attest(u8, u8),
    Distrust(u8),
    Restock(u8, u8),
    Warm(u8),
    Load(u8, u8),
    Persist,
    Sleep(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0u8..5).prop_map(Op::Join),
        1 => (0u8..12).prop_map(Op::Leave),
        3 => (0u8..12).prop_map(Op::Verify),
        3 => (0u8..12, 0u8..9, 0u8..4, 0u16..900).prop_map(|(c, s, n, b)| Op::Report(c, s, n, b)),
        9 => (0u8..30, 1u8..5, 0u16..300).prop_map(|(id, account, n)| Op::Ask(id, account, n)),
        5 => any::<u8>().prop_map(Op::Accept),
        5 => any::<u8>().prop_map(Op::Start),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(a, n)| Op::Progress(a, n)),
        5 => (any::<u8>(), any::<u8>()).prop_map(|(a, n)| Op::Complete(a, n)),
        2 => (any::<u8>(), 0u8..8).prop_map(|(a, f)| Op::Fail(a, f)),
        1 => (0u8..30).prop_map(Op::Gone),
        1 => (0u8..12, 0u8..90).prop_map(|(c, s)| Op::Attest(c, s)),
        1 => (0u8..12).prop_map(Op::Distrust),
        1 => (0u8..12, 0u8..4).prop_map(|(c, which)| Op::Restock(c, which)),
        1 => (0u8..4).prop_map(Op::Warm),
        2 => (0u8..12, 0u8..3).prop_map(|(c, end)| Op::Load(c, end)),
        3 => Just(Op::Persist),
        1 => prop_oneof![0u32..100_000, 0u32..400_000_000].prop_map(Op::Sleep),
    ]
}

/// Applies an operation; attempts and connections are picked from all that ever were.
fn apply(world: &mut World, op: Op, conns: &mut u64, seen: &mut Vec<(AttemptKey, ConnId)>) {
    let pick = |ix: u8, seen: &[(AttemptKey, ConnId)]| {
        seen.iter()
            .rev()
            .nth(usize::from(ix) % seen.len().clamp(1, 8))
            .copied()
    };
    let conn_at = |ix: u8, conns: u64| ConnId(conns.saturating_sub(u64::from(ix)));
    let effects = match op {
        Op::Join(machine) => {
            *conns += 1;
            world.step(Event::ProviderJoined {
                conn: ConnId(*conns),
                machine: MachineId(u128::from(machine)),
                owner: OWNER,
                trust: Trust::SelfSigned,
                spec: SPEC,
                models: Cow::Owned(vec![MODEL]),
            })
        }
        Op::Leave(c) => world.step(Event::ProviderLeft {
            conn: conn_at(c, *conns),
            cause: GoneCause::Lost,
        }),
        Op::Verify(c) => world.step(Event::ProviderVerified {
            conn: conn_at(c, *conns),
        }),
        Op::Report(c, seq, rows, budget) => {
            let state = if budget % 4 == 3 {
                SlotState::Absent
            } else {
                SlotState::Idle
            };
            let told = SlotReport {
                state,
                running: u16::from(rows),
                ..slot(u16::from(rows) + 1, u64::from(budget))
            };
            world.report(conn_at(c, *conns), u64::from(seq), told)
        }
        Op::Ask(id, account, n) => {
            let mut ask = ask(u128::from(id), AccountId(u64::from(account)));
            ask.output_tokens_max = u32::from(n) + 1;
            if n % 3 == 0 {
                ask.delivery = Delivery::Whole;
            }
            world.step(Event::Arrived(ask))
        }
        Op::Accept(a) => pick(a, seen).map_or_else(Vec::new, |(attempt, conn)| {
            world.step(Event::AttemptAccepted { conn, attempt })
        }),
        Op::Start(a) => pick(a, seen).map_or_else(Vec::new, |(attempt, conn)| {
            world.step(Event::AttemptStarted { conn, attempt })
        }),
        Op::Progress(a, n) => pick(a, seen).map_or_else(Vec::new, |(attempt, conn)| {
            world.step(Event::AttemptProgressed {
                conn,
                attempt,
                shown: shown(u32::from(n), u32::from(n) * 4),
            })
        }),
        Op::Complete(a, n) => pick(a, seen).map_or_else(Vec::new, |(attempt, conn)| {
            let usage = Usage {
                prompt_tokens: 100,
                completion_tokens: u32::from(n),
            };
            world.step(Event::AttemptCompleted {
                conn,
                attempt,
                usage,
                shown: shown(u32::from(n), u32::from(n) * 4),
                ending: if n % 16 == 3 {
                    Ending::Cut
                } else {
                    Ending::Said
                },
            })
        }),
        Op::Fail(a, f) => pick(a, seen).map_or_else(Vec::new, |(attempt, conn)| {
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
            world.step(Event::AttemptFailed {
                conn,
                attempt,
                fault: faults[usize::from(f)],
            })
        }),
        Op::Gone(id) => world.step(Event::ConsumerLeft {
            request: RequestId(u128::from(id)),
        }),
        Op::Attest(c, seconds) => world.step(Event::ProviderAttested {
            conn: conn_at(c, *conns),
            gives: Traits::HARDWARE,
            valid_for: Span::secs(u64::from(seconds)),
        }),
        Op::Distrust(c) => world.step(Event::ProviderDistrusted {
            conn: conn_at(c, *conns),
        }),
        Op::Restock(c, which) => {
            let models = [MODEL, ModelIx(1)].into_iter();
            let models = models.filter(|model| which >> model.0 & 1 == 1);
            world.step(Event::ProviderRestocked {
                conn: conn_at(c, *conns),
                models: Cow::Owned(models.collect()),
            })
        }
        Op::Warm(machines) => world.step(Event::WarmMinChanged {
            model: MODEL,
            machines: u16::from(machines),
        }),
        Op::Load(c, 0) => world.step(Event::ModelLoaded {
            conn: conn_at(c, *conns),
            model: MODEL,
        }),
        Op::Load(c, end) => world.step(Event::ModelLoadFailed {
            conn: conn_at(c, *conns),
            model: MODEL,
            draining: end == 2,
        }),
        Op::Persist => world.persist(),
        Op::Sleep(us) => {
            world.now = Tick(world.now.0 + u64::from(us));
            world.step(Event::Woke)
        }
    };
    seen.extend(dispatched(&effects));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// INV-01 to INV-04, INV-08, INV-09, INV-12 after each step; INV-15, INV-17, INV-18 at the end.
    #[test]
    fn the_invariants_hold_whatever_happens(ops in prop::collection::vec(op(), 1..160)) {
        let (mut world, mut twin) = (World::new(), World::new());
        world.free_for_load_bytes = Some(1 << 30);
        twin.free_for_load_bytes = Some(1 << 30);
        let (mut conns, mut seen) = (0, Vec::new());
        let (mut twin_conns, mut twin_seen) = (0, Vec::new());
        let half = ops.len() / 2;
        for (ix, op) in ops.into_iter().enumerate() {
            if ix == half {
                let restored = Coordinator::restore(&world.core.snapshot()).unwrap();
                prop_assert_eq!(restored.digest(), world.core.digest(), "INV-17");
                world.core = restored;
            }
            apply(&mut world, op.clone(), &mut conns, &mut seen);
            apply(&mut twin, op, &mut twin_conns, &mut twin_seen);
        }
        prop_assert_eq!(world.core.digest(), twin.core.digest(), "INV-18");
        world.persist();
        world.step(Event::DrainBegan);
        let mut wakes = 0;
        while world.core.gauges().requests > 0 {
            world.persist();
            if world.core.gauges().requests > 0 {
                world.wake();
            }
            wakes += 1;
            prop_assert!(wakes < 10_000, "INV-15: a request never ends");
        }
        world.core.invariant_quiescent();
    }
}
