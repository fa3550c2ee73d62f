//! Every decision of Cereus, as deterministic state machines that perform no input or output.
//!
//! Nothing here reads a clock, draws randomness, opens anything or sees a prompt in the clear
//! outside [`relay`] and [`api`], which transform bytes that their caller owns. The shells, the simulator
//! and the fuzzers drive the very same code.
//!
//! # Doors
//!
//! Each machine takes what happened and says what follows: `step(now, event, &mut out)`, `next_wake()`
//! (when it wants to be told of the time, and why), `digest()` (equal digests mean equal state). Two take
//! more, and two say more:
//!
//! | machine | decides | besides |
//! |---|---|---|
//! | [`coordinator::Coordinator`] | who enters, serves and pays | refuses what its caller must not do ([`coordinator::Misuse`]) and changes nothing then |
//! | [`link::ProviderLink`] | one provider's connection | takes the rules of the moment; returns a chunk, which borrows from its frame |
//! | [`relay::Relay`] | one answer on its way | bytes are taken with `take` |
//! | [`agent::Agent`], [`slots::Slots`] | a provider's connection, its models | |
//! | [`exchange::Control`], [`exchange::Connection`] | the three above, wired to each other | a witness for the journal; a host for what opens and seals |
//!
//! # One request
//!
//! ```
//! use std::borrow::Cow;
//!
//! use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
//! use cereus_core::coordinator::Coordinator;
//! use cereus_core::draw::Seed;
//! use cereus_core::effect::{Effect, Effects};
//! use cereus_core::event::*;
//! use cereus_core::ids::{AccountId, ConnId, Epoch, MachineId, ModelIx, RequestId};
//! use cereus_core::money::{MicroUsd, Price};
//! use cereus_core::time::Tick;
//!
//! let tiny = ModelSpec {
//!     id: "tiny".to_owned(),
//!     price: Price::DEFAULT,
//!     context_tokens: 2_048,
//!     output_tokens_default: 256,
//!     weights_bytes: 0,
//! };
//! let mut core = Coordinator::new(Config {
//!     epoch: Epoch(0),
//!     seed: Seed::from_number(1),
//!     catalog: Catalog::new(vec![tiny]).unwrap(),
//!     limits: Limits::reference(),
//!     fee_percent: 10,
//!     trust_min: Trust::None,
//! });
//! let (conn, model) = (ConnId(1), ModelIx(0));
//! let (consumer, owner) = (AccountId(1), AccountId(2));
//! let mut out = Effects::default();
//! let mut step = |core: &mut Coordinator, at, event: Event<'_>| -> Vec<Effect> {
//!     core.step(Tick(at), &event, &mut out).expect("an event that may come");
//!     out.list.drain(..).collect()
//! };
//!
//! // A consumer with a dollar, and a machine that has proven itself and reports.
//! for account in [consumer, owner] {
//!     let balance = MicroUsd(1_000_000);
//!     step(&mut core, 0, Event::AccountOpened { account, balance });
//! }
//! step(&mut core, 1, Event::ProviderJoined {
//!     conn,
//!     machine: MachineId(7),
//!     owner,
//!     trust: Trust::SelfSigned,
//!     spec: MachineSpec {
//!         memory_gb: 16,
//!         bandwidth_gbs: 100,
//!         decode_mtps: 50_000,
//!         prefill_mtps: 500_000,
//!         can_seal: true,
//!         private_only: false,
//!     },
//!     models: Cow::Owned(vec![model]),
//! });
//! step(&mut core, 2, Event::ProviderVerified { conn });
//! step(&mut core, 3, Event::ProviderReported {
//!     conn,
//!     report: MachineReport { seq: 1, has_capacity: true, ..MachineReport::default() },
//!     slots: Cow::Owned(vec![SlotReport {
//!         model,
//!         state: SlotState::Idle,
//!         running: 0,
//!         waiting: 0,
//!         concurrency_max: 4,
//!         budget_used: 0,
//!         budget_max: 0,
//!         budget_queued: 0,
//!         decode_mtps: 0,
//!         prefill_mtps: 0,
//!         load_ms: 0,
//!         wedged: false,
//!     }]),
//! });
//!
//! // A request: its price is held, and it goes out in the same step.
//! let ask = Ask {
//!     prompt_tokens: 20,
//!     prompt_tokens_bound: 80,
//!     output_tokens_max: 50,
//!     ..Ask::new(RequestId(9), consumer, model)
//! };
//! let effects = step(&mut core, 4, Event::Arrived(ask));
//! let [Effect::Post { .. }, Effect::Dispatch { attempt, .. }] = effects[..] else {
//!     panic!("{effects:?}");
//! };
//! ```
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod agent;
pub mod api;
pub mod claim;
pub mod config;
pub mod coordinator;
pub mod denial;
pub mod digest;
pub mod door;
pub mod draw;
pub mod effect;
pub mod envelope;
pub mod event;
pub mod ewma;
pub mod exchange;
pub mod few;
pub mod ids;
pub mod journal;
pub mod link;
pub mod lookup;
mod memo;
pub mod memory;
pub mod money;
pub mod prefix;
pub mod relay;
pub mod schedule;
pub mod slab;
pub mod slots;
pub mod time;
pub mod traits;
pub mod wheel;
pub mod wire;
