//! Two lanes to one writer. Control goes first, so that a challenge or a cancel does not wait behind
//! megabytes of prompts; a write that has begun is not interrupted.

use std::collections::VecDeque;

use super::LinkConfig;
use crate::ids::WireId;
use crate::time::{Span, Tick};

/// FIFO within a lane, no order across lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lane {
    /// Challenges, cancels, statuses.
    Control,
    /// Inference bodies, loads.
    Data,
}

/// The lane takes no more; nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneFull;

#[derive(Clone, Debug, Hash)]
struct Queued {
    frame: Vec<u8>,
    /// The attempt that the frame carries, so that it can be withdrawn.
    wire: Option<WireId>,
}

/// A frame whose write begins now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) frame: Vec<u8>,
    pub(super) deadline: Tick,
}

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Outbox {
    control: VecDeque<Queued>,
    data: VecDeque<Queued>,
    queued_bytes: usize,
    /// When the write in progress counts as stalled.
    write_deadline: Option<Tick>,
}

impl Outbox {
    pub(super) fn push(
        &mut self,
        lane: Lane,
        frame: Vec<u8>,
        wire: Option<WireId>,
        config: &LinkConfig,
    ) -> Result<(), LaneFull> {
        let (queue, count_max) = match lane {
            Lane::Control => (&mut self.control, config.control_frames_max),
            Lane::Data => (&mut self.data, config.data_frames_max),
        };
        let queued_bytes = self.queued_bytes + frame.len();
        if queue.len() >= count_max || queued_bytes > config.queued_bytes_max {
            return Err(LaneFull);
        }
        self.queued_bytes = queued_bytes;
        queue.push_back(Queued { frame, wire });
        Ok(())
    }

    /// Takes back the request of an attempt whose write has not begun.
    pub(super) fn withdraw(&mut self, wire: WireId) -> bool {
        let Some(ix) = self
            .data
            .iter()
            .position(|queued| queued.wire == Some(wire))
        else {
            return false;
        };
        let queued = self.data.remove(ix).expect("the position was found above");
        self.queued_bytes -= queued.frame.len();
        true
    }

    /// The next frame to write, unless one is being written.
    pub(super) fn depart(&mut self, now: Tick, config: &LinkConfig) -> Option<Departure> {
        if self.write_deadline.is_some() {
            return None;
        }
        let (queued, span) = if let Some(queued) = self.control.pop_front() {
            (queued, config.control_write_max)
        } else {
            let queued = self.data.pop_front()?;
            let span = data_write_span(queued.frame.len(), config);
            (queued, span)
        };
        self.queued_bytes -= queued.frame.len();
        let deadline = now + span;
        self.write_deadline = Some(deadline);
        Some(Departure {
            frame: queued.frame,
            deadline,
        })
    }

    /// Whether a write was in progress.
    pub(super) fn arrived(&mut self) -> bool {
        self.write_deadline.take().is_some()
    }

    pub(super) fn write_deadline(&self) -> Option<Tick> {
        self.write_deadline
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn invariant(&self) {
        let queued = self.control.iter().chain(&self.data);
        let bytes: usize = queued.map(|queued| queued.frame.len()).sum();
        assert_eq!(
            bytes, self.queued_bytes,
            "every queued byte is counted once"
        );
    }
}

fn data_write_span(size: usize, config: &LinkConfig) -> Span {
    let us = u128::try_from(size)
        .unwrap_or(u128::MAX)
        .saturating_mul(1_000_000)
        / u128::from(config.write_bytes_per_s_min.max(1));
    let span = Span(u64::try_from(us).unwrap_or(u64::MAX));
    span.max(config.data_write_min).min(config.data_write_max)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
