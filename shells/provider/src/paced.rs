//! A backend that takes its time: for tests that need an answer to be under way.

use std::time::Duration;

use cereus_engine::chat::ChatRequest;
use cereus_engine::failure::Failure;
use cereus_engine::runtime::{Backend, Limits, Memory, StepError, StepWork};
use cereus_engine::sampling::Chosen;
use cereus_engine::scheduler::RowSlot;
use cereus_engine::text::Vocabulary;

/// Pauses before each step of the backend inside.
#[derive(Debug)]
pub(crate) struct Paced<B> {
    pub(crate) inner: B,
    pub(crate) pause: Duration,
}

impl<B: Vocabulary> Vocabulary for Paced<B> {
    fn decode(&self, tokens: &[u32]) -> String {
        self.inner.decode(tokens)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.inner.token_bytes(token)
    }
}

impl<B: Backend> Backend for Paced<B> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        self.inner.prompt(request)
    }

    fn is_end(&self, token: u32) -> bool {
        self.inner.is_end(token)
    }

    fn step(
        &mut self,
        step: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        if !self.pause.is_zero() {
            // On the engine's own thread, where a real model would compute.
            std::thread::sleep(self.pause);
        }
        self.inner.step(step, out)
    }

    fn release(&mut self, slot: RowSlot) {
        self.inner.release(slot);
    }

    fn memory(&self) -> Memory {
        self.inner.memory()
    }
}
