//! Every decision of Cereus, as deterministic state machines that perform no input or output.
//!
//! Nothing here reads a clock, draws randomness, opens anything or sees a prompt in the clear
//! outside [`relay`] and [`api`], which transform bytes that their caller owns. Each machine has the
//! same doors: `step(now, event, &mut out)`, `next_wake()`, `digest()`. The shells, the simulator and
//! the fuzzers drive the very same code.
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
pub mod memory;
pub mod money;
pub mod relay;
pub mod schedule;
pub mod slab;
pub mod slots;
pub mod time;
pub mod traits;
pub mod wheel;
pub mod wire;
