//! The WebSocket to the coordinator: dialling, reading, and writing what has gathered at once.

use std::io;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use cereus_core::agent::SessionId;

/// The largest message of a coordinator (`spec/wire` 1.2).
const MESSAGE_SIZE_MAX: usize = 32 << 20;
/// Frames that may wait for the network; a coordinator that far behind is given up.
const TO_WRITE_MAX: usize = 8_192;
/// Frames of one flush.
const BATCH_MAX: usize = 256;
/// Without it a token waits for the peer's delayed ACK.
const NO_DELAY: bool = true;

type Ws = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What came of a session's socket.
#[derive(Debug)]
pub(crate) enum Heard {
    CloseReceived { code: u16, reason: String },
    Connected(Socket),
    DialFailed(String),
    Frame(Vec<u8>),
    Pong,
    SocketClosed,
}

pub(crate) type Told = mpsc::Sender<(SessionId, Heard)>;

/// One connection. Dropping it drops the connection without ceremony.
#[derive(Debug)]
pub(crate) struct Socket {
    to_write: mpsc::Sender<Message>,
    reader: AbortHandle,
    writer: AbortHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Dials in a task of its own; dropping the handle gives it up.
pub(crate) fn dial(url: String, session: SessionId, told: Told) -> AbortHandle {
    let task = tokio::spawn(async move {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_SIZE_MAX))
            .max_frame_size(Some(MESSAGE_SIZE_MAX));
        let heard = match connect_async_with_config(url, Some(config), NO_DELAY).await {
            Ok((socket, _)) => Heard::Connected(Socket::start(socket, session, told.clone())),
            Err(error) => Heard::DialFailed(error.to_string()),
        };
        let _ = told.send((session, heard)).await;
    });
    task.abort_handle()
}

impl Socket {
    fn start(socket: Ws, session: SessionId, told: Told) -> Self {
        let (sink, stream) = socket.split();
        let (to_write, inbox) = mpsc::channel(TO_WRITE_MAX);
        let reader = tokio::spawn(read(stream, session, told.clone())).abort_handle();
        let writer = tokio::spawn(write(sink, inbox, session, told)).abort_handle();
        Self {
            to_write,
            reader,
            writer,
        }
    }

    /// An error when the coordinator takes frames too slowly, or not at all.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let text = std::str::from_utf8(frame).expect("the core writes UTF-8");
        self.queue(Message::text(text))
    }

    pub(crate) fn ping(&self) -> io::Result<()> {
        self.queue(Message::Ping(Vec::new().into()))
    }

    /// Everything before it goes first. The socket lives on until the peer has answered.
    pub(crate) async fn close(self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        if self
            .to_write
            .send(Message::Close(Some(frame)))
            .await
            .is_ok()
        {
            self.to_write.closed().await;
        }
    }

    fn queue(&self, message: Message) -> io::Result<()> {
        self.to_write
            .try_send(message)
            .map_err(|_| io::ErrorKind::WriteZero.into())
    }
}

async fn read(mut stream: SplitStream<Ws>, session: SessionId, told: Told) {
    loop {
        let heard = match stream.next().await {
            Some(Ok(Message::Text(text))) => Heard::Frame(text.as_bytes().to_vec()),
            Some(Ok(Message::Binary(bytes))) => Heard::Frame(bytes.to_vec()),
            Some(Ok(Message::Pong(_))) => Heard::Pong,
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.unwrap_or(CloseFrame {
                    code: CloseCode::Status,
                    reason: Default::default(),
                });
                Heard::CloseReceived {
                    code: frame.code.into(),
                    reason: frame.reason.as_str().to_owned(),
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the coordinator's socket broke");
                break;
            }
            None => break,
        };
        if told.send((session, heard)).await.is_err() {
            return;
        }
    }
    let _ = told.send((session, Heard::SocketClosed)).await;
}

/// Whatever has gathered goes out with one flush.
async fn write(
    mut sink: SplitSink<Ws, Message>,
    mut inbox: mpsc::Receiver<Message>,
    session: SessionId,
    told: Told,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let is_last = matches!(batch.last(), Some(Message::Close(_)));
        if send_all(&mut sink, &mut batch).await.is_err() {
            let _ = told.send((session, Heard::SocketClosed)).await;
            return;
        }
        if is_last {
            return;
        }
    }
}

async fn send_all(
    sink: &mut SplitSink<Ws, Message>,
    batch: &mut Vec<Message>,
) -> Result<(), Error> {
    for message in batch.drain(..) {
        sink.feed(message).await?;
    }
    sink.flush().await
}
