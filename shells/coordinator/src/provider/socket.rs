//! A WebSocket in two halves: one reads, one task writes a frame at a time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// How long a peer may take over the closing handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// One frame is written at a time, and one close may follow.
const TO_WRITE_MAX: usize = 2;
/// Frames read ahead of the link.
const HEARD_MAX: usize = 64;

/// What comes from a socket.
pub(super) enum Heard {
    Closed {
        code: Option<u16>,
    },
    Frame(Text),
    TooLarge,
    /// The last frame is on the wire.
    Written,
}

/// A text or binary message: providers should send text, the wire takes both.
pub(super) struct Text(Bytes);

impl Text {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

enum ToWrite {
    Close { code: u16, reason: &'static str },
    Frame(Vec<u8>),
}

pub(super) struct Socket {
    heard: mpsc::Receiver<Heard>,
    to_write: mpsc::Sender<ToWrite>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Socket {
    pub(super) fn start<S>(socket: WebSocketStream<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = socket.split();
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        let (to_write, inbox) = mpsc::channel(TO_WRITE_MAX);
        let reader = tokio::spawn(read(stream, tell.clone()));
        let writer = tokio::spawn(write(sink, inbox, tell));
        Self {
            heard,
            to_write,
            reader,
            writer,
        }
    }

    /// Cancel safe.
    pub(super) async fn hear(&mut self) -> Heard {
        self.heard
            .recv()
            .await
            .unwrap_or(Heard::Closed { code: None })
    }

    /// The link gives the next frame when the last was written, so there is room.
    pub(super) fn write(&self, frame: Vec<u8>) {
        let _ = self.to_write.try_send(ToWrite::Frame(frame));
    }

    /// Behind the frame that is being written, if any; [`Self::end`] does not wait for a stalled one.
    pub(super) fn close(&self, code: u16, reason: &'static str) {
        let _ = self.to_write.try_send(ToWrite::Close { code, reason });
    }

    /// Lets a close go out and the peer answer it, for a moment.
    pub(super) async fn end(mut self) {
        drop(self.to_write);
        let ending = async {
            while let Some(heard) = self.heard.recv().await {
                if matches!(heard, Heard::Closed { .. }) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, ending).await;
        self.reader.abort();
        self.writer.abort();
    }
}

async fn read<S>(mut stream: SplitStream<WebSocketStream<S>>, tell: mpsc::Sender<Heard>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closed = loop {
        let heard = match stream.next().await {
            Some(Ok(Message::Text(text))) => Heard::Frame(Text(text.into())),
            Some(Ok(Message::Binary(bytes))) => Heard::Frame(Text(bytes)),
            // The library answers pings by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(frame))) => {
                break Heard::Closed {
                    code: frame.map(|frame| frame.code.into()),
                };
            }
            Some(Err(Error::Capacity(_))) => {
                let _ = tell.send(Heard::TooLarge).await;
                break Heard::Closed { code: None };
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a provider's socket broke");
                break Heard::Closed { code: None };
            }
            None => break Heard::Closed { code: None },
        };
        if tell.send(heard).await.is_err() {
            return;
        }
    };
    let _ = tell.send(closed).await;
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut inbox: mpsc::Receiver<ToWrite>,
    tell: mpsc::Sender<Heard>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(to_write) = inbox.recv().await {
        match to_write {
            ToWrite::Close { code, reason } => {
                let frame = CloseFrame {
                    code: CloseCode::from(code),
                    reason: reason.into(),
                };
                let _ = sink.send(Message::Close(Some(frame))).await;
                return;
            }
            ToWrite::Frame(frame) => {
                let text = Utf8Bytes::try_from(frame).expect("the core writes UTF-8");
                if sink.send(Message::Text(text)).await.is_err() {
                    let _ = tell.send(Heard::Closed { code: None }).await;
                    return;
                }
                if tell.send(Heard::Written).await.is_err() {
                    return;
                }
            }
        }
    }
}
