//! The end of a connection whose peer still sends: a close with bytes unread would reach it as a
//! reset, which can take the answer with it that is on its way.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is still read and dropped after an answer: four times the largest body.
const SIZE_MAX: usize = 64 << 20;
/// For how long in all.
const WAIT: Duration = Duration::from_secs(30);
/// Whoever sends nothing for so long has the answer, or sends no more.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes read at a time, on the stack.
const PIECE_SIZE: usize = 8 << 10;

/// Begins once the write side is shut.
pub(crate) struct Linger {
    size: usize,
    end: Instant,
    pause: Pin<Box<Sleep>>,
}

impl Linger {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self {
            size: 0,
            end: now + WAIT,
            pause: Box::pin(sleep_until(now + PAUSE_MAX)),
        }
    }

    /// Ready when the peer has sent all, or enough.
    pub(crate) fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut piece = [0; PIECE_SIZE];
        while self.size <= SIZE_MAX {
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(context, &mut piece) {
                Poll::Pending => return self.pause.as_mut().poll(context),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if piece.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.size += piece.filled().len(),
            }
            let now = Instant::now();
            if now >= self.end {
                break;
            }
            self.pause.as_mut().reset(self.end.min(now + PAUSE_MAX));
        }
        Poll::Ready(())
    }
}
