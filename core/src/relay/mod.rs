//! One answer on its way from a provider to a consumer.
//!
//! A [`Relay`] opens sealed chunks, reads the events inside, writes them anew in the consumer's
//! shape, counts them, and holds back what may not be seen yet: everything until the hold is durable
//! (INV-05), the last bytes until the settlement is. It never drops a piece silently and never lets
//! one through that was not sealed.
//!
//! Three tasks tell it things: the control task which attempts there are and how the request ends, a
//! connection's task what came of its attempt, the consumer's that it left. The order between them is
//! nobody's, so it never matters: which attempt counts follows from what the control task said, and
//! what an attempt's end means is not for the relay to say. Its caller is [`crate::exchange`].

mod breach;
mod machine;
mod racing;
mod trail;

#[cfg(test)]
mod tests;

use crate::api::{Delivery, Request};
use crate::denial::Denial;
use crate::envelope::{BoxKey, KeyText};
use crate::event::{AttemptFault, Shown, Usage, UsageParts};
use crate::ids::AttemptKey;
use crate::time::{Span, Tick};
use crate::wire::ChunkFrame;

pub use self::machine::Relay;
pub use self::trail::{ENTRIES_MAX, Entry, Fate, Told, Trail, TrailReplayer};

/// Events that may wait for the consumer.
pub const BUFFER_EVENTS_MAX: u32 = 256;
/// Bytes that may wait for the consumer.
pub const BUFFER_SIZE_MAX: usize = 1 << 20;
/// How long a consumer may leave the buffer full before it is given up.
pub const GRACE: Span = Span::millis(250);
/// How many times the buffer's bounds may wait during the grace, and before the hold is durable.
pub const OVERFLOW_FACTOR: u32 = 4;
/// Largest opened chunk, in bytes: what fits the provider's largest message.
pub const CHUNK_SIZE_MAX: usize = 10 << 20;
/// Pieces between two reports of progress.
pub const PROGRESS_PIECES: u32 = 32;
/// Time after which the next piece is reported at once.
pub const PROGRESS_SPAN: Span = Span::secs(1);
/// Tokens without text at the end of every answer: the one that ends it.
pub const END_TOKENS: u32 = 1;
/// Bytes of text for each token of the bound beyond which many pieces are an overrun. Pieces alone
/// are not: a machine may send a token in parts.
pub const OVERRUN_BYTES_PER_TOKEN: u32 = 4;
/// Bytes of the longest token that there is: more than this for each token of the bound is an
/// overrun in however few pieces.
pub const TOKEN_SIZE_MAX: u32 = 128;
/// Attempts of one request that may run side by side: one, and one that hedges it.
pub const RACING_MAX: usize = 2;
/// Sealed bytes of an attempt that has lost which are kept until the coordinator gives it up, or the
/// winner.
pub const HELD_SIZE_MAX: usize = 1 << 20;

/// What the consumer is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub delivery: Delivery,
    pub include_usage: bool,
    /// The bound that the provider was given: an answer that long was cut, not finished.
    pub output_tokens_max: u32,
    /// Bytes of the longest stop string: the answer that it ends has them and does not show them.
    pub stop_bytes_max: u32,
    /// Tokens without a text that the request may bring about: the model's own ends where it is to
    /// go on behind them, or what a bias prefers.
    pub silent_tokens_max: u32,
}

impl Shape {
    #[must_use]
    pub fn of(request: &Request<'_>, output_tokens_max: u32) -> Self {
        Self {
            delivery: request.delivery,
            include_usage: request.include_usage,
            output_tokens_max,
            stop_bytes_max: request.stop_bytes_max(),
            silent_tokens_max: match request.may_be_silent() {
                true => output_tokens_max,
                false => 0,
            },
        }
    }
}

/// Something happened to this answer.
#[derive(Clone, Debug)]
pub enum RelayEvent<'a> {
    /// The request was sealed to the provider of an attempt that was dispatched.
    AttemptBegan {
        attempt: AttemptKey,
        key: BoxKey,
        /// The key that the provider registered, as text: no other may have sealed its chunks.
        sealer: KeyText,
    },
    /// The coordinator gave up on the attempt: nothing more of it may reach the consumer.
    AttemptCancelled {
        attempt: AttemptKey,
    },
    /// The coordinator sent the request out (`Effect::Dispatch`): told in the order of its decisions
    /// and before the connection hears of it, whichever connection then runs first.
    AttemptDispatched {
        attempt: AttemptKey,
        /// Beside another, whose content may be the answer, and not in place of one.
        is_second: bool,
    },
    /// Its provider ended the attempt with an error, or the connection ended. The coordinator hears
    /// of it from the connection.
    AttemptEnded {
        attempt: AttemptKey,
    },
    /// A chunk as it stood on the wire: that it is sealed, and by whom, is checked here.
    ChunkCame {
        attempt: AttemptKey,
        chunk: &'a ChunkFrame<'a>,
    },
    /// Its provider says that the attempt is complete. The coordinator hears of it from the
    /// connection, with [`Relay::shown_of`].
    Completed {
        attempt: AttemptKey,
        parts: UsageParts,
    },
    /// The consumer went away. The caller tells the coordinator.
    ConsumerLeft,
    /// The coordinator ended the request badly, before or after content.
    Denied {
        denial: Denial,
    },
    /// The coordinator ended the request well; the settlement is durable.
    Finished {
        usage: Usage,
    },
    /// The hold is durable: the consumer may see what was relayed.
    Released,
    /// A chunk whose form and sealer the link has checked: [`crate::link::Chunk`].
    SealedCame {
        attempt: AttemptKey,
        /// Base64 of nonce, tag and box.
        ciphertext: &'a str,
    },
    Woke,
}

/// What follows, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEffect {
    // For the coordinator: the events of the same names.
    AttemptStarted {
        attempt: AttemptKey,
    },
    AttemptProgressed {
        attempt: AttemptKey,
        shown: Shown,
    },
    /// The machine goes on beyond the bound that it was given: what came until now is the answer, and
    /// the provider is to be told to stop.
    AttemptCut {
        attempt: AttemptKey,
        shown: Shown,
    },
    /// The relay breaks the attempt off: the provider is to be told to stop.
    AttemptFailed {
        attempt: AttemptKey,
        fault: AttemptFault,
    },

    // For the consumer.
    /// Write status 200 and the headers of the shape's content type. Comes before any bytes.
    Open,
    /// [`Relay::take`] has bytes.
    Readable,
    /// Nothing was written: answer with the status of this denial.
    Refuse {
        denial: Denial,
    },
    /// Nothing comes after what [`Relay::take`] gives now.
    Close,
}

/// Why a relay wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelayWake {
    /// The consumer had its grace.
    GraceOver,
}

/// What a connection asks after each step that concerns its attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptNews {
    /// When the relay wants [`RelayEvent::Woke`].
    pub wake_at: Option<Tick>,
    /// What was relayed of the attempt so far.
    pub shown: Shown,
}

/// A planted bug, to prove that the simulator finds it. Never set outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayMischief {
    /// The attempt whose connection ran last replaces all others, be it older or not.
    LastBegunWins,
    #[default]
    None,
    /// A piece that does not open is left out, and the answer goes on.
    SkipsDamaged,
}

/// What went by, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RelayCounts {
    /// Pieces of content written or gathered.
    pub pieces: u32,
    /// Bytes of their text, unescaped.
    pub text_bytes: u64,
    /// Chunks of attempts that are over.
    pub stale_chunks: u32,
}
