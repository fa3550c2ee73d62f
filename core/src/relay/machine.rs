//! The machine itself.

use core::hash::{Hash, Hasher};

use super::breach::{Breach, opened, sealed_by};
use super::text::{Piece, payloads, piece};
use super::{
    BUFFER_EVENTS_MAX, BUFFER_SIZE_MAX, END_TOKENS, GRACE, OVERFLOW_FACTOR,
    OVERRUN_BYTES_PER_TOKEN, PROGRESS_PIECES, PROGRESS_SPAN, RelayCounts, RelayEffect, RelayEvent,
    RelayWake, Shape, TOKEN_SIZE_MAX,
};
use crate::api::{
    Answer, AnswerUsage, Delivery, FinishReason, Framing, Tally, write_done, write_error,
};
use crate::denial::Denial;
use crate::digest::Mix;
use crate::envelope::{BoxKey, KeyText};
use crate::event::{AttemptFault, Ending, Shown, Usage, UsageParts};
use crate::ids::AttemptKey;
use crate::time::Tick;

/// See the module.
#[derive(Debug)]
pub struct Relay {
    framing: Framing,
    shape: Shape,
    attempt: Option<Attempt>,
    consumer: Consumer,
    is_released: bool,
    grace_until: Option<Tick>,
    /// What the consumer may take, once it may take anything.
    ready: Vec<u8>,
    ready_events: u32,
    /// The pieces, where the consumer wants one whole answer.
    answer: Answer,
    finish: Option<FinishReason>,
    parts: UsageParts,
    /// Tokens of the answer that may have left no text.
    marks: u32,
    counts: RelayCounts,
    reported_pieces: u32,
    reported_at: Tick,
    /// Holds an opened chunk during a step; kept for its capacity.
    scratch: Vec<u8>,
}

/// The attempt that is running. Its box key is dropped, and so wiped, at its terminal.
#[derive(Debug)]
struct Attempt {
    key: AttemptKey,
    /// `None`: nothing more of it is relayed, only its terminal is awaited.
    opening: Option<(BoxKey, KeyText)>,
}

/// How far the consumer's side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Consumer {
    /// Nothing was promised: an error is still a status.
    Waiting,
    /// Status and headers went out: an error is an event.
    Opened,
    /// Everything was said, or nobody listens.
    Over,
}

impl Relay {
    #[must_use]
    pub fn new(framing: Framing, shape: Shape) -> Self {
        Self {
            framing,
            shape,
            attempt: None,
            consumer: Consumer::Waiting,
            is_released: false,
            grace_until: None,
            ready: Vec::new(),
            ready_events: 0,
            answer: Answer::default(),
            finish: None,
            parts: UsageParts::default(),
            marks: 0,
            counts: RelayCounts::default(),
            reported_pieces: 0,
            reported_at: Tick::ZERO,
            scratch: Vec::new(),
        }
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step(&mut self, now: Tick, event: RelayEvent<'_>, out: &mut Vec<RelayEffect>) {
        match event {
            RelayEvent::AttemptBegan {
                attempt,
                key,
                sealer,
            } => self.begin(attempt, key, sealer),
            RelayEvent::AttemptCancelled { attempt } => self.forget_key(attempt),
            RelayEvent::ChunkCame { attempt, chunk } => {
                self.on_chunk(now, attempt, |sealer| sealed_by(sealer, chunk), out);
            }
            RelayEvent::Completed {
                attempt,
                usage,
                parts,
            } => self.on_completed(attempt, usage, parts, out),
            RelayEvent::ConsumerLeft => self.on_consumer_left(),
            RelayEvent::Denied { denial } => self.on_denied(denial, out),
            RelayEvent::Errored { attempt, fault } => {
                if self.end_attempt(attempt) {
                    out.push(RelayEffect::AttemptFailed { attempt, fault });
                }
            }
            RelayEvent::Finished { usage } => self.on_finished(usage, out),
            RelayEvent::Released => self.on_released(now, out),
            RelayEvent::SealedCame {
                attempt,
                ciphertext,
            } => self.on_chunk(now, attempt, |_| Ok(ciphertext), out),
            RelayEvent::Woke => self.on_woke(now, out),
        }
    }

    /// Exchanges what the consumer may see now for `into`, whose content is discarded; returns how
    /// many events it holds. The caller gives the same buffer back and forth, so nothing is copied.
    pub fn take(&mut self, into: &mut Vec<u8>) -> u32 {
        into.clear();
        if !self.is_released {
            return 0;
        }
        core::mem::swap(&mut self.ready, into);
        self.grace_until = None;
        core::mem::take(&mut self.ready_events)
    }

    #[must_use]
    pub fn next_wake(&self) -> Option<(Tick, RelayWake)> {
        self.grace_until.map(|tick| (tick, RelayWake::GraceOver))
    }

    /// Whether the consumer's side has ended: drop the relay once nothing is left to take.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.consumer, Consumer::Over)
    }

    #[must_use]
    pub const fn counts(&self) -> RelayCounts {
        self.counts
    }

    /// Equal digests mean: the same state, as far as the future can tell.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut mix = Mix::default();
        self.attempt
            .as_ref()
            .map(|attempt| (attempt.key, attempt.opening.is_some()))
            .hash(&mut mix);
        self.consumer.hash(&mut mix);
        self.is_released.hash(&mut mix);
        self.grace_until.hash(&mut mix);
        mix.write(&self.ready);
        self.ready_events.hash(&mut mix);
        self.finish.hash(&mut mix);
        self.parts.hash(&mut mix);
        self.marks.hash(&mut mix);
        self.counts.hash(&mut mix);
        mix.end_wide()
    }

    fn begin(&mut self, attempt: AttemptKey, key: BoxKey, sealer: KeyText) {
        self.attempt = Some(Attempt {
            key: attempt,
            opening: (self.consumer != Consumer::Over).then_some((key, sealer)),
        });
        self.finish = None;
        self.parts = UsageParts::default();
        if self.consumer == Consumer::Waiting {
            // Failing over is invisible: nothing of the attempt before is shown or counted.
            self.discard();
        }
    }

    fn discard(&mut self) {
        self.ready.clear();
        self.ready_events = 0;
        self.answer.clear();
        self.marks = 0;
        self.counts.pieces = 0;
        self.counts.text_bytes = 0;
    }

    fn live(&mut self, attempt: AttemptKey) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|live| live.key == attempt)
    }

    fn forget_key(&mut self, attempt: AttemptKey) {
        if let Some(live) = self.live(attempt) {
            live.opening = None;
        }
    }

    /// False when the attempt is not the running one: its terminal came too late to matter.
    fn end_attempt(&mut self, attempt: AttemptKey) -> bool {
        let is_live = self.live(attempt).is_some();
        if is_live {
            self.attempt = None;
            self.grace_until = None;
        }
        is_live
    }

    fn on_chunk<'c>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        ciphertext: impl FnOnce(&KeyText) -> Result<&'c str, Breach>,
        out: &mut Vec<RelayEffect>,
    ) {
        let mut scratch = core::mem::take(&mut self.scratch);
        let opening = self
            .attempt
            .as_ref()
            .filter(|live| live.key == attempt)
            .and_then(|live| live.opening.as_ref());
        let Some((key, sealer)) = opening else {
            self.counts.stale_chunks = self.counts.stale_chunks.saturating_add(1);
            self.scratch = scratch;
            return;
        };
        let relayed = ciphertext(sealer)
            .and_then(|ciphertext| opened(key, ciphertext, &mut scratch))
            .and_then(|text| self.relay(now, attempt, text, out));
        self.scratch = scratch;
        if let Err(breach) = relayed {
            self.break_off(attempt, &breach, out);
        }
    }

    fn relay(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        text: &str,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Breach> {
        for payload in payloads(text) {
            if let Some(piece) = piece(payload?)? {
                self.on_piece(now, attempt, &piece, out)?;
            }
        }
        Ok(())
    }

    fn on_piece(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        piece: &Piece<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Breach> {
        if piece.finish.is_some() {
            // Held until the settlement is durable.
            self.finish = piece.finish;
        }
        let tally = piece.delta.tally()?;
        if !tally.is_content() {
            // A preamble: the role is written with the first content, once.
            return Ok(());
        }
        if self.would_overrun(tally) {
            return Err(Breach::Overrun);
        }
        let is_first = self.counts.pieces == 0;
        match self.shape.delivery {
            Delivery::Streamed => self.write_piece(piece)?,
            Delivery::Whole => self.answer.push(&piece.delta)?,
        }
        self.counts.pieces = self.counts.pieces.saturating_add(1);
        self.counts.text_bytes = self.counts.text_bytes.saturating_add(tally.text_bytes);
        let marks = u32::try_from(tally.marks).unwrap_or(u32::MAX);
        self.marks = self.marks.saturating_add(marks);
        if is_first {
            self.reported_pieces = self.counts.pieces;
            self.reported_at = now;
            out.push(RelayEffect::AttemptStarted { attempt });
        } else if self.counts.pieces - self.reported_pieces >= PROGRESS_PIECES
            || now.since(self.reported_at) >= PROGRESS_SPAN
        {
            self.reported_pieces = self.counts.pieces;
            self.reported_at = now;
            let shown = self.shown();
            out.push(RelayEffect::AttemptProgressed { attempt, shown });
        }
        if self.shape.delivery == Delivery::Streamed {
            self.announce(out);
            self.check_room(now)?;
        }
        Ok(())
    }

    /// Whether a further piece is more than the bound allows, whatever the tokenizer. Such a piece is
    /// not shown: the answer is what came before it.
    fn would_overrun(&self, tally: Tally) -> bool {
        let bound = u64::from(self.shape.output_tokens_max);
        let bytes = self.counts.text_bytes.saturating_add(tally.text_bytes);
        let is_many = u64::from(self.counts.pieces) >= bound
            && bytes > bound * u64::from(OVERRUN_BYTES_PER_TOKEN);
        is_many || bytes > bound * u64::from(TOKEN_SIZE_MAX)
    }

    /// What was relayed of the running attempt.
    fn shown(&self) -> Shown {
        Shown {
            pieces: self.counts.pieces,
            text_bytes: u32::try_from(self.counts.text_bytes).unwrap_or(u32::MAX),
            marks: self.marks.saturating_add(END_TOKENS),
            counted: None,
        }
    }

    fn write_piece(&mut self, piece: &Piece<'_>) -> Result<(), Breach> {
        let from = self.ready.len();
        let separator = if self.counts.pieces == 0 {
            self.framing.open_first_delta(&mut self.ready);
            ","
        } else {
            self.framing.open_delta(&mut self.ready);
            ""
        };
        if piece.delta.write(separator, &mut self.ready).is_err() {
            self.ready.truncate(from);
            return Err(Breach::Malformed);
        }
        let logprobs = piece.logprobs.map(serde_json::value::RawValue::get);
        self.framing.close_delta(logprobs, &mut self.ready);
        self.ready_events += 1;
        Ok(())
    }

    /// Tells the consumer's side of bytes that it may take.
    fn announce(&mut self, out: &mut Vec<RelayEffect>) {
        if !self.is_released || self.ready.is_empty() {
            return;
        }
        if self.consumer == Consumer::Waiting {
            self.consumer = Consumer::Opened;
            out.push(RelayEffect::Open);
        }
        out.push(RelayEffect::Readable);
    }

    /// A full buffer gets one grace; during it, and before the hold is durable, a wider bound holds.
    fn check_room(&mut self, now: Tick) -> Result<(), Breach> {
        let wide = usize::try_from(OVERFLOW_FACTOR).expect("a small factor");
        if self.ready_events > BUFFER_EVENTS_MAX * OVERFLOW_FACTOR
            || self.ready.len() > BUFFER_SIZE_MAX * wide
        {
            return Err(Breach::Overflow);
        }
        if self.is_released && self.is_full() && self.grace_until.is_none() {
            self.grace_until = Some(now + GRACE);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ready_events > BUFFER_EVENTS_MAX || self.ready.len() > BUFFER_SIZE_MAX
    }

    /// Ends the running attempt from this side: the provider is told to stop, the coordinator why.
    fn break_off(&mut self, attempt: AttemptKey, breach: &Breach, out: &mut Vec<RelayEffect>) {
        let was_live = self.end_attempt(attempt);
        assert!(was_live, "only the running attempt can be broken off");
        out.push(RelayEffect::Cancel { attempt });
        let fault = match breach {
            Breach::Encryption => AttemptFault::Encryption,
            Breach::Malformed => AttemptFault::Internal,
            Breach::Overflow => AttemptFault::ConsumerStalled,
            Breach::Overrun => {
                self.finish = Some(FinishReason::Length);
                return out.push(RelayEffect::AttemptCompleted {
                    attempt,
                    usage: Usage::default(),
                    shown: self.shown(),
                    ending: Ending::Cut,
                });
            }
        };
        out.push(RelayEffect::AttemptFailed { attempt, fault });
    }

    fn on_completed(
        &mut self,
        attempt: AttemptKey,
        usage: Usage,
        parts: UsageParts,
        out: &mut Vec<RelayEffect>,
    ) {
        if !self.end_attempt(attempt) {
            return;
        }
        self.parts = parts;
        out.push(RelayEffect::AttemptCompleted {
            attempt,
            usage,
            shown: self.shown(),
            ending: Ending::Said,
        });
    }

    fn on_consumer_left(&mut self) {
        self.consumer = Consumer::Over;
        self.grace_until = None;
        self.ready = Vec::new();
        self.ready_events = 0;
        self.answer.clear();
        // The provider's terminal still matters: it settles what was relayed.
        if let Some(live) = &mut self.attempt {
            live.opening = None;
        }
    }

    fn on_released(&mut self, now: Tick, out: &mut Vec<RelayEffect>) {
        if self.is_released || self.consumer == Consumer::Over {
            return;
        }
        self.is_released = true;
        if self.is_full() {
            self.grace_until = Some(now + GRACE);
        }
        self.announce(out);
    }

    fn on_woke(&mut self, now: Tick, out: &mut Vec<RelayEffect>) {
        if self.grace_until.is_none_or(|until| until > now) {
            return;
        }
        self.grace_until = None;
        let Some(attempt) = self.attempt.as_ref().map(|live| live.key) else {
            return;
        };
        if self.is_full() {
            self.break_off(attempt, &Breach::Overflow, out);
        }
    }

    fn on_denied(&mut self, denial: Denial, out: &mut Vec<RelayEffect>) {
        self.attempt = None;
        self.grace_until = None;
        match self.consumer {
            Consumer::Over => return,
            Consumer::Waiting => {
                // What was held back was never paid for: nobody sees it.
                self.discard();
                out.push(RelayEffect::Refuse { denial });
            }
            Consumer::Opened => {
                write_error(denial, &mut self.ready);
                self.ready_events += 1;
                out.push(RelayEffect::Readable);
                out.push(RelayEffect::Close);
            }
        }
        self.consumer = Consumer::Over;
    }

    fn on_finished(&mut self, usage: Usage, out: &mut Vec<RelayEffect>) {
        self.attempt = None;
        self.grace_until = None;
        if self.consumer == Consumer::Over {
            return;
        }
        self.is_released = true;
        let told = AnswerUsage {
            tokens: usage,
            cached_tokens: self.parts.cached_tokens.min(usage.prompt_tokens),
            reasoning_tokens: self.parts.reasoning_tokens.min(usage.completion_tokens),
        };
        let finish = match self.finish.unwrap_or(FinishReason::Stop) {
            FinishReason::Stop if usage.completion_tokens >= self.shape.output_tokens_max => {
                FinishReason::Length
            }
            finish => finish,
        };
        match self.shape.delivery {
            Delivery::Streamed => self.write_end(finish, told),
            Delivery::Whole => self
                .answer
                .write(&self.framing, finish, told, &mut self.ready),
        }
        self.announce(out);
        out.push(RelayEffect::Close);
        self.consumer = Consumer::Over;
    }

    fn write_end(&mut self, finish: FinishReason, usage: AnswerUsage) {
        if self.counts.pieces == 0 {
            // An answer without a word still has its role.
            self.framing.open_first_delta(&mut self.ready);
            self.ready.extend_from_slice(b",\"content\":\"\"");
            self.framing.close_delta(None, &mut self.ready);
        }
        self.framing.write_finish(finish, &mut self.ready);
        if self.shape.include_usage {
            self.framing.write_usage(usage, &mut self.ready);
        }
        write_done(&mut self.ready);
        self.ready_events += 1;
    }
}
