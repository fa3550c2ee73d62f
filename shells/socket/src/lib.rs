//! A WebSocket that one task owns, both of its halves.
//!
//! The owner waits in [`Socket::hear`] for whatever comes first: a frame, or the news that all it
//! queued is on the wire. There is no task and no channel between it and the network: a frame is read
//! when the owner asks for it, so what a peer can pile up here is one frame of the permitted size and
//! what the owner itself queued. Used by the coordinator (a socket that was accepted) and the
//! provider (one that it dialled).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_websockets::{ClientBuilder, CloseCode, Error, Limits, Message, ServerBuilder};
use tokio_websockets::{Payload, WebSocketStream, upgrade};

/// Pings that may wait for their pong. A peer that pings and reads nothing is not read either.
const PONGS_MAX: u8 = 8;
/// How long a peer may take over the closing handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A peer that speaks HTTP, and nothing else at that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUpgraded {
    pub status: u16,
}

impl fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it answered with the status {} and no upgrade",
            self.status
        )
    }
}

impl std::error::Error for NotUpgraded {}

fn dial_error(error: Error) -> io::Error {
    match error {
        Error::Upgrade(upgrade::Error::DidNotSwitchProtocols(status)) => {
            io::Error::other(NotUpgraded { status })
        }
        error => io::Error::other(error),
    }
}

/// What comes from a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing follows. Without a code the connection broke.
    Closed {
        code: Option<u16>,
        reason: String,
    },
    /// A text or binary message: peers should send text, the wire takes both.
    Frame(Bytes),
    Pong,
    /// A message above the limit; of it nothing was kept, and the peer is told with 1009.
    TooLarge,
    /// All that was queued is on the wire.
    Written,
}

/// See the module.
#[derive(Debug)]
pub struct Socket<S> {
    stream: WebSocketStream<S>,
    /// Bytes queued since the queue was empty last.
    unwritten_bytes: usize,
    /// When the queue began to fill.
    unwritten_since: Option<Instant>,
    /// Pings read since everything was on the wire.
    pongs_owed: u8,
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// The server's end, after the upgrade.
    pub fn accepted(stream: S, frame_size_max: usize) -> Self {
        let limits = Limits::default().max_payload_len(Some(frame_size_max));
        Self::new(ServerBuilder::new().limits(limits).serve(stream))
    }

    /// The client's end: upgrades a fresh connection to the host of `uri`.
    ///
    /// # Errors
    /// The peer does not upgrade, which [`NotUpgraded`] within tells, or the connection broke.
    pub async fn connected(uri: http::Uri, stream: S, frame_size_max: usize) -> io::Result<Self> {
        let limits = Limits::default().max_payload_len(Some(frame_size_max));
        let client = ClientBuilder::from_uri(uri).limits(limits);
        let (stream, _) = client.connect_on(stream).await.map_err(dial_error)?;
        Ok(Self::new(stream))
    }

    fn new(stream: WebSocketStream<S>) -> Self {
        Self {
            stream,
            unwritten_bytes: 0,
            unwritten_since: None,
            pongs_owed: 0,
        }
    }

    /// From the next frame on.
    pub fn allow(&mut self, frame_size_max: usize) {
        self.stream
            .limits_mut()
            .set_max_payload_len(Some(frame_size_max));
    }

    /// Queues a text frame; [`Heard::Written`] follows when everything queued is on the wire.
    ///
    /// # Panics
    /// The frame is no UTF-8.
    pub fn write(&mut self, frame: Vec<u8>) {
        let size = frame.len();
        let text = String::from_utf8(frame).expect("the core writes UTF-8");
        self.queue(Message::text(Payload::from(text)), size);
    }

    pub fn ping(&mut self) {
        self.queue(Message::ping(Payload::from(Bytes::new())), 0);
    }

    /// After everything that was queued; nothing may be queued behind it.
    pub fn close(&mut self, code: u16, reason: &str) {
        let code = CloseCode::try_from(code).unwrap_or(CloseCode::NORMAL_CLOSURE);
        self.queue(Message::close(Some(code), reason), reason.len());
    }

    /// What was queued since everything was on the wire last: at least what waits.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    /// Since when something has been waiting for the network.
    #[must_use]
    pub fn unwritten_since(&self) -> Option<Instant> {
        self.unwritten_since
    }

    /// The next thing that happens. Cancel safe: what was not heard is heard the next time.
    pub async fn hear(&mut self) -> Heard {
        poll_fn(|context| self.poll_hear(context)).await
    }

    /// What has come already, without waiting and without writing anything out: `None` says that
    /// [`Socket::hear`] would wait, or has something to tell of what was queued.
    pub fn heard_already(&mut self) -> Option<Heard> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match self.poll_next(&mut context) {
            Poll::Ready(heard) => Some(heard),
            Poll::Pending => None,
        }
    }

    /// Lets what was queued go out, a close among it, and the peer answer it; for a moment.
    pub async fn end(mut self) {
        let ending = async { while !matches!(self.hear().await, Heard::Closed { .. }) {} };
        let _ = tokio::time::timeout(CLOSE_WAIT, ending).await;
    }

    /// On a socket that is closing already there is nobody to read it.
    fn queue(&mut self, message: Message, size: usize) {
        if Pin::new(&mut self.stream).start_send(message).is_ok() {
            self.unwritten_bytes = self.unwritten_bytes.saturating_add(size);
            self.unwritten_since.get_or_insert_with(Instant::now);
        }
    }

    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        if let Some(heard) = self.poll_written(context) {
            return heard;
        }
        self.poll_next(context)
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        loop {
            // A peer that pings and reads nothing is not read either.
            if self.pongs_owed > 0
                && let Some(heard) = self.poll_written(context)
            {
                return heard;
            }
            let message = match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(message)) => message,
                Some(Err(Error::PayloadTooLong { .. })) => return Poll::Ready(Heard::TooLarge),
                Some(Err(_)) | None => return Poll::Ready(broken()),
            };
            if message.is_ping() {
                // The library has queued a pong by itself. It is counted, so that it goes out before
                // more is read.
                self.pongs_owed += 1;
            } else if message.is_pong() {
                return Poll::Ready(Heard::Pong);
            } else if message.is_close() {
                let said = message.as_close();
                return Poll::Ready(Heard::Closed {
                    code: said.map(|(code, _)| code.into()),
                    reason: said.map_or_else(String::new, |(_, reason)| reason.to_owned()),
                });
            } else {
                return Poll::Ready(Heard::Frame(message.into_payload().into()));
            }
        }
    }

    /// `None`: there is nothing to say of what was queued, and the peer may be read.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Option<Poll<Heard>> {
        if self.unwritten_since.is_none() && self.pongs_owed == 0 {
            return None;
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                self.pongs_owed = 0;
                self.unwritten_bytes = 0;
                let since = self.unwritten_since.take();
                since.map(|_| Poll::Ready(Heard::Written))
            }
            Poll::Ready(Err(_)) => Some(Poll::Ready(broken())),
            Poll::Pending => (self.pongs_owed >= PONGS_MAX).then_some(Poll::Pending),
        }
    }
}

fn broken() -> Heard {
    Heard::Closed {
        code: None,
        reason: String::new(),
    }
}
