//! The deterministic world that drives the real state machines: virtual time, modelled network,
//! store, machines and consumers, the real coordinator and the real scheduler between them.
//!
//! Same seed, same digest, on every machine. It never reads a clock, opens nothing and knows no
//! thread; the binary passes it bytes and measures the time it takes.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod calibrate;
pub mod hardware;
pub mod liars;
pub mod machine;
pub mod oracle;
pub mod page;
pub mod queue;
pub mod record;
pub mod replay;
pub mod report;
pub mod stream;
pub mod study;
pub mod swarm;
pub mod workload;
pub mod world;
