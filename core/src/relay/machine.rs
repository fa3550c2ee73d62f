//! The machine itself.

use core::hash::{Hash, Hasher};

use super::breach::{Breach, opened, sealed_by};
use super::racing::{Opening, Racing};
use super::trail::{Fate, Told, Trail};
use super::{
    AttemptNews, BUFFER_EVENTS_MAX, BUFFER_SIZE_MAX, END_TOKENS, GRACE, OVERFLOW_FACTOR,
    OVERRUN_BYTES_PER_TOKEN, PROGRESS_PIECES, PROGRESS_SPAN, RelayCounts, RelayEffect, RelayEvent,
    RelayMischief, RelayWake, Shape, TOKEN_SIZE_MAX,
};
use crate::api::{
    AnswerUsage, Delivery, Envelope, FinishReason, Piece, Tally, WholeAnswer, Writer,
};
use crate::denial::Denial;
use crate::digest::Mix;
use crate::envelope::{BoxKey, KeyText};
use crate::event::{AttemptFault, Shown, Usage, UsageParts};
use crate::ids::AttemptKey;
use crate::time::Tick;

/// See the module.
#[derive(Debug)]
pub struct Relay {
    writer: Writer,
    shape: Shape,
    racing: Racing,
    /// The attempt whose content the consumer is given: the first that had any.
    winner: Option<AttemptKey>,
    consumer: Consumer,
    is_released: bool,
    grace_until: Option<Tick>,
    /// What the consumer may take, once it may take anything.
    ready: Vec<u8>,
    ready_events: u32,
    /// The pieces, where the consumer wants one whole answer.
    answer: WholeAnswer,
    finish: Option<FinishReason>,
    parts: UsageParts,
    /// Tokens of the answer that may have left no text.
    marks: u32,
    counts: RelayCounts,
    reported_pieces: u32,
    reported_at: Tick,
    /// Holds an opened chunk during a step; kept for its capacity.
    scratch: Vec<u8>,
    trail: Trail,
    mischief: RelayMischief,
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
    pub fn new(writer: Writer, shape: Shape) -> Self {
        Self {
            writer,
            shape,
            racing: Racing::default(),
            winner: None,
            consumer: Consumer::Waiting,
            is_released: false,
            grace_until: None,
            ready: Vec::new(),
            ready_events: 0,
            answer: WholeAnswer::relayed(),
            finish: None,
            parts: UsageParts::default(),
            marks: 0,
            counts: RelayCounts::default(),
            reported_pieces: 0,
            reported_at: Tick::ZERO,
            scratch: Vec::new(),
            trail: Trail::new(shape.delivery),
            mischief: RelayMischief::None,
        }
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    pub fn step(&mut self, now: Tick, event: RelayEvent<'_>, out: &mut Vec<RelayEffect>) {
        if let Some((attempt, told)) = told(&event) {
            self.trail.note(now, attempt, told);
        }
        match event {
            RelayEvent::AttemptBegan {
                attempt,
                key,
                sealer,
            } => self.on_began(attempt, key, sealer),
            RelayEvent::AttemptCancelled { attempt } => self.on_cancelled(attempt),
            RelayEvent::AttemptDispatched { attempt, is_second } => {
                self.on_dispatched(attempt, is_second);
            }
            RelayEvent::AttemptEnded { attempt } => self.on_ended(attempt),
            RelayEvent::ChunkCame { attempt, chunk } => {
                self.on_chunk(now, attempt, |sealer| sealed_by(sealer, chunk), out);
            }
            RelayEvent::Completed { attempt, parts } => {
                self.on_completed(now, attempt, parts, out);
            }
            RelayEvent::ConsumerLeft => self.on_consumer_left(),
            RelayEvent::Denied { denial } => self.on_denied(denial, out),
            RelayEvent::Finished { usage } => self.on_finished(usage, out),
            RelayEvent::Released => self.on_released(out),
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

    /// What was relayed of `attempt`: nothing of one that lost to another.
    #[must_use]
    pub fn shown_of(&self, attempt: AttemptKey) -> Shown {
        if self.winner.is_some_and(|winner| winner != attempt) {
            return Shown::default();
        }
        // One token for each byte, at most.
        let finish = self.racing.finish_of(attempt).or(self.finish);
        let held_back = match finish {
            Some(FinishReason::Stop) => self.shape.stop_bytes_max,
            Some(
                FinishReason::ContentFilter
                | FinishReason::FunctionCall
                | FinishReason::Length
                | FinishReason::ToolCalls,
            )
            | None => 0,
        };
        Shown {
            pieces: self.counts.pieces,
            text_bytes: u32::try_from(self.counts.text_bytes).unwrap_or(u32::MAX),
            marks: [
                self.marks,
                END_TOKENS,
                held_back,
                self.shape.silent_tokens_max,
            ]
            .into_iter()
            .fold(0, u32::saturating_add),
            counted: None,
        }
    }

    /// What happened so far, without what was said.
    #[must_use]
    pub const fn trail(&self) -> &Trail {
        &self.trail
    }

    /// What the connection that carries `attempt` wants to know after a step.
    #[must_use]
    pub fn news_of(&self, attempt: AttemptKey) -> AttemptNews {
        AttemptNews {
            wake_at: self.grace_until,
            shown: self.shown_of(attempt),
        }
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
        self.racing.hash(&mut mix);
        self.winner.hash(&mut mix);
        self.consumer.hash(&mut mix);
        self.is_released.hash(&mut mix);
        self.grace_until.hash(&mut mix);
        self.writer.hash(&mut mix);
        mix.write(&self.ready);
        self.ready_events.hash(&mut mix);
        self.finish.hash(&mut mix);
        self.parts.hash(&mut mix);
        self.marks.hash(&mut mix);
        self.counts.hash(&mut mix);
        mix.end_wide()
    }

    /// Plants a bug, for the proof that the oracles notice.
    pub fn dangerous_plant(&mut self, mischief: RelayMischief) {
        self.mischief = mischief;
    }

    /// A winner that runs no more was given up, where the newcomer takes its place; beside it, it may
    /// have completed before the coordinator heard of its content.
    fn on_dispatched(&mut self, attempt: AttemptKey, is_second: bool) {
        self.racing.dispatched(attempt);
        let winner = self.winner.filter(|_| is_second);
        let winner = winner.or(self.winner.filter(|winner| self.racing.runs(*winner)));
        if winner.is_none() {
            // Failing over is invisible: nothing of the attempts before is shown or counted.
            self.discard();
        }
    }

    fn on_began(&mut self, attempt: AttemptKey, key: BoxKey, sealer: KeyText) {
        if self.mischief == RelayMischief::LastBegunWins {
            self.racing = Racing::default();
            self.racing.dispatched(attempt);
            self.winner = None;
        }
        if self.consumer != Consumer::Over {
            self.racing.began(attempt, key, sealer);
        }
    }

    /// The coordinator's word is final: where it gives up the winner whose content nobody has seen,
    /// another may still win.
    fn on_cancelled(&mut self, attempt: AttemptKey) {
        self.racing.mute(attempt);
        self.disown(attempt);
    }

    /// The attempt ended badly.
    fn on_ended(&mut self, attempt: AttemptKey) {
        self.close(attempt);
        self.disown(attempt);
    }

    fn disown(&mut self, attempt: AttemptKey) {
        if self.winner == Some(attempt) {
            self.discard();
        }
    }

    /// The attempt counts nothing more. What it has shown stays.
    fn close(&mut self, attempt: AttemptKey) {
        self.racing.remove(attempt);
        if self.winner.is_none_or(|winner| winner == attempt) {
            self.grace_until = None;
        }
    }

    /// Forgets what was gathered, unless the consumer has seen it.
    fn discard(&mut self) {
        if self.consumer != Consumer::Waiting {
            return;
        }
        self.winner = None;
        self.finish = None;
        self.parts = UsageParts::default();
        self.ready.clear();
        self.ready_events = 0;
        self.answer.clear();
        self.writer.restart();
        self.marks = 0;
        self.counts.pieces = 0;
        self.counts.text_bytes = 0;
    }

    fn on_chunk<'c>(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        ciphertext: impl FnOnce(&KeyText) -> Result<&'c str, Breach>,
        out: &mut Vec<RelayEffect>,
    ) {
        let Some(Opening { sealer, .. }) = self.racing.opening(attempt) else {
            self.counts.stale_chunks = self.counts.stale_chunks.saturating_add(1);
            self.trail
                .note(now, Some(attempt), Told::Chunk(Fate::Stale));
            return;
        };
        let relayed = ciphertext(sealer).and_then(|ciphertext| {
            if self.has_rival_won(attempt) {
                self.racing.hold(attempt, ciphertext);
                return Ok(Fate::Held);
            }
            self.replay(now, attempt, out)?;
            let pieces = self.counts.pieces;
            self.open(now, attempt, ciphertext, out)?;
            Ok(match self.counts.pieces == pieces {
                true => Fate::Empty,
                false => Fate::Relayed,
            })
        });
        match relayed {
            Ok(fate) => self.trail.note(now, Some(attempt), Told::Chunk(fate)),
            Err(Breach::Encryption) if self.mischief == RelayMischief::SkipsDamaged => {}
            Err(breach) => self.break_off(now, attempt, &breach, out),
        }
    }

    fn has_rival_won(&self, attempt: AttemptKey) -> bool {
        self.winner.is_some_and(|winner| winner != attempt)
    }

    /// What an attempt said while it had lost, once it has not.
    fn replay(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Breach> {
        for ciphertext in self.racing.take_held(attempt)? {
            self.open(now, attempt, &ciphertext, out)?;
        }
        Ok(())
    }

    fn open(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        ciphertext: &str,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Breach> {
        let mut scratch = core::mem::take(&mut self.scratch);
        let opening = self.racing.opening(attempt).ok_or(Breach::Encryption)?;
        let dialect = opening.dialect;
        let relayed = opened(&opening.key, ciphertext, &mut scratch)
            .and_then(|chunk| dialect.read(chunk, |piece| self.on_piece(now, attempt, piece, out)));
        self.scratch = scratch;
        relayed
    }

    fn on_piece(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        piece: &Piece<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Breach> {
        if let Some(finish) = piece.finish {
            // Held until the settlement is durable.
            self.racing.finishes(attempt, finish);
        }
        let tally = piece.tally();
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
            Delivery::Whole => self.gather_piece(piece)?,
        }
        if self.winner.is_none() {
            // First content decides. The coordinator hears, and gives up whoever else runs.
            self.winner = Some(attempt);
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
            let shown = self.shown_of(attempt);
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

    fn gather_piece(&mut self, piece: &Piece<'_>) -> Result<(), Breach> {
        let gathered = self.answer.push(piece);
        if gathered.is_err() && self.counts.pieces == 0 {
            // What was added of it is nobody's: an attempt beside it may still win.
            self.answer.clear();
        }
        gathered.map_err(Breach::from)
    }

    fn write_piece(&mut self, piece: &Piece<'_>) -> Result<(), Breach> {
        let is_first = self.counts.pieces == 0;
        let from = self.ready.len();
        if is_first {
            self.writer.write_open(&mut self.ready);
        }
        if let Err(malformed) = self.writer.write_piece(0, piece, &mut self.ready) {
            if is_first {
                self.ready.truncate(from);
                self.writer.restart();
            }
            return Err(malformed.into());
        }
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
            if let Some(winner) = self.winner {
                // What was seen cannot be taken back: nobody else can win any more.
                self.racing.mute_all_but(winner);
            }
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

    /// Ends an attempt from this side: the provider is told to stop, the coordinator why.
    pub(super) fn break_off(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        breach: &Breach,
        out: &mut Vec<RelayEffect>,
    ) {
        let told = match breach {
            Breach::Encryption | Breach::Malformed | Breach::Overflow | Breach::Torn => {
                Told::BrokenOff
            }
            Breach::Overrun => Told::Cut,
        };
        self.trail.note(now, Some(attempt), told);
        let fault = match breach {
            Breach::Encryption => AttemptFault::Encryption,
            Breach::Malformed => AttemptFault::Internal,
            Breach::Overflow => self.overflow(),
            // The machine is not to blame: the request goes elsewhere.
            Breach::Torn => AttemptFault::Unsent,
            Breach::Overrun => {
                self.close(attempt);
                self.finish = Some(FinishReason::Length);
                let shown = self.shown_of(attempt);
                out.push(RelayEffect::AttemptCut { attempt, shown });
                return;
            }
        };
        self.on_ended(attempt);
        out.push(RelayEffect::AttemptFailed { attempt, fault });
    }

    /// Why there was no room: a consumer who has seen a part pays for it, whoever saw nothing does not.
    const fn overflow(&self) -> AttemptFault {
        match (self.consumer, self.shape.delivery) {
            (Consumer::Opened | Consumer::Over, _) => AttemptFault::ConsumerStalled,
            (Consumer::Waiting, Delivery::Streamed) => AttemptFault::HoldOverdue,
            (Consumer::Waiting, Delivery::Whole) => AttemptFault::AnswerTooLarge,
        }
    }

    fn on_completed(
        &mut self,
        now: Tick,
        attempt: AttemptKey,
        parts: UsageParts,
        out: &mut Vec<RelayEffect>,
    ) {
        if self.has_rival_won(attempt) {
            self.close(attempt);
            return;
        }
        if let Err(breach) = self.replay(now, attempt, out) {
            self.break_off(now, attempt, &breach, out);
        }
        if !self.racing.knows(attempt) {
            // It was cut, or given up for good: what ended it stands.
            return;
        }
        self.finish = self.racing.finish_of(attempt);
        self.parts = parts;
        self.close(attempt);
    }

    fn on_consumer_left(&mut self) {
        self.consumer = Consumer::Over;
        self.grace_until = None;
        self.ready = Vec::new();
        self.ready_events = 0;
        self.answer.clear();
        self.racing.mute_all();
    }

    fn on_released(&mut self, out: &mut Vec<RelayEffect>) {
        if self.is_released || self.consumer == Consumer::Over {
            return;
        }
        self.is_released = true;
        // A buffer that is full already gets its grace when the next piece comes.
        self.announce(out);
    }

    fn on_woke(&mut self, now: Tick, out: &mut Vec<RelayEffect>) {
        if self.grace_until.is_none_or(|until| until > now) {
            return;
        }
        self.grace_until = None;
        if self.is_full()
            && let Some(attempt) = self.winner.filter(|winner| self.racing.runs(*winner))
        {
            self.break_off(now, attempt, &Breach::Overflow, out);
        }
    }

    fn on_denied(&mut self, denial: Denial, out: &mut Vec<RelayEffect>) {
        self.racing.mute_all();
        self.grace_until = None;
        match self.consumer {
            Consumer::Over => return,
            Consumer::Waiting => {
                // What was held back was never paid for: nobody sees it.
                self.discard();
                out.push(RelayEffect::Refuse { denial });
            }
            Consumer::Opened => {
                let error = Envelope::from(denial);
                self.writer.write_failed(&error, &mut self.ready);
                self.ready_events += 1;
                out.push(RelayEffect::Readable);
                out.push(RelayEffect::Close);
            }
        }
        self.consumer = Consumer::Over;
    }

    fn on_finished(&mut self, usage: Usage, out: &mut Vec<RelayEffect>) {
        self.racing.mute_all();
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
        // A model may end by itself with the last token that it has: only where its machine gave no
        // reason is the count one.
        let has_room = usage.completion_tokens < self.shape.output_tokens_max;
        let finish = self.finish.unwrap_or(match has_room {
            true => FinishReason::Stop,
            false => FinishReason::Length,
        });
        match self.shape.delivery {
            Delivery::Streamed => self.write_end(finish, told),
            Delivery::Whole => {
                let answer = [(&self.answer, finish)];
                self.writer.write_whole(&answer, told, &mut self.ready);
            }
        }
        self.announce(out);
        out.push(RelayEffect::Close);
        self.consumer = Consumer::Over;
    }

    fn write_end(&mut self, finish: FinishReason, usage: AnswerUsage) {
        if self.counts.pieces == 0 {
            self.writer.write_open(&mut self.ready);
        }
        self.writer.write_finish(0, finish, &mut self.ready);
        if self.shape.include_usage {
            self.writer.write_usage(usage, &mut self.ready);
        }
        self.writer.write_done(&mut self.ready);
        self.ready_events += 1;
    }
}

/// What a trail keeps of an event before its step. Of a chunk it keeps what became of it.
const fn told(event: &RelayEvent<'_>) -> Option<(Option<AttemptKey>, Told)> {
    Some(match event {
        RelayEvent::AttemptBegan { attempt, .. } => (Some(*attempt), Told::Began),
        RelayEvent::AttemptCancelled { attempt } => (Some(*attempt), Told::Cancelled),
        RelayEvent::AttemptDispatched { attempt, is_second } => match is_second {
            true => (Some(*attempt), Told::DispatchedBeside),
            false => (Some(*attempt), Told::Dispatched),
        },
        RelayEvent::AttemptEnded { attempt } => (Some(*attempt), Told::Ended),
        RelayEvent::Completed { attempt, .. } => (Some(*attempt), Told::Completed),
        RelayEvent::ConsumerLeft => (None, Told::Left),
        RelayEvent::Denied { .. } => (None, Told::Denied),
        RelayEvent::Finished { .. } => (None, Told::Finished),
        RelayEvent::Released => (None, Told::Released),
        RelayEvent::ChunkCame { .. } | RelayEvent::SealedCame { .. } | RelayEvent::Woke => {
            return None;
        }
    })
}
