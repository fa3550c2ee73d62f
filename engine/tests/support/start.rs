//! An engine whose events a test reads.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, channel};

use cereus_engine::runtime::{Backend, Engine, EngineConfig, Event};

pub(crate) fn start<B: Backend + Send + 'static>(
    config: &EngineConfig,
    backend: B,
) -> (Engine, Receiver<Event>) {
    start_with(config, || Ok::<_, Infallible>(backend))
}

/// With the backend that its own thread opens.
pub(crate) fn start_with<B, E>(
    config: &EngineConfig,
    open: impl FnOnce() -> Result<B, E> + Send + 'static,
) -> (Engine, Receiver<Event>)
where
    B: Backend + 'static,
    E: Debug + Send + 'static,
{
    let (events, heard) = channel();
    let engine = Engine::start(config, open, move |event| drop(events.send(event)));
    (engine.unwrap(), heard)
}
