//! A socket that gives up a peer which rests too long or sends its request's head too slowly.
//!
//! What is written and not taken for long ends it as well.
//!
//! hyper has one time limit from the end of an answer to the end of the next head. A connection may
//! rest for minutes between requests, while a head should arrive within seconds: two limits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::linger::Linger;
use crate::phase::{Phase, SharedPhase};

pub(crate) struct Timed<S> {
    inner: S,
    phase: SharedPhase,
    idle_wait: Duration,
    head_wait: Duration,
    /// The phase that the timer is set for.
    armed: Phase,
    timer: Pin<Box<Sleep>>,
    /// Runs while the peer takes nothing of what is to be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Once the write side is shut while the peer still owes a part of a body.
    linger: Option<Linger>,
}

/// For how long a peer may take nothing of an answer that is ready.
const STALL_MAX: Duration = Duration::from_secs(60);

impl<S> Timed<S> {
    /// A fresh connection owes its first head at once.
    pub(crate) fn new(
        inner: S,
        phase: SharedPhase,
        idle_wait: Duration,
        head_wait: Duration,
    ) -> Self {
        phase.set(Phase::Head);
        Self {
            inner,
            phase,
            idle_wait,
            head_wait,
            armed: Phase::Head,
            timer: Box::pin(sleep_until(Instant::now() + head_wait)),
            stalled: None,
            linger: None,
        }
    }

    fn arm(&mut self, phase: Phase, wait: Duration) {
        self.armed = phase;
        self.timer.as_mut().reset(Instant::now() + wait);
    }

    /// # Errors
    /// The peer has taken nothing for too long.
    fn written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let until = || Box::pin(sleep_until(Instant::now() + STALL_MAX));
        let stalled = self.stalled.get_or_insert_with(until);
        if stalled.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let text = "nothing of the answer was taken for too long";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }

    /// # Errors
    /// The peer has run out of time.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let phase = self.phase.get();
        match phase {
            Phase::Busy => {
                self.phase.register(context.waker());
                self.armed = Phase::Busy;
                return Ok(());
            }
            Phase::Idle if self.armed != Phase::Idle => self.arm(phase, self.idle_wait),
            Phase::Head if self.armed != Phase::Head => self.arm(phase, self.head_wait),
            Phase::Idle | Phase::Head => {}
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            match phase {
                Phase::Idle => "the connection rested too long",
                Phase::Head | Phase::Busy => "the head of a request did not arrive in time",
            },
        ))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buf);
        let has_come = buf.filled().len() > before;
        if has_come && this.phase.get() == Phase::Idle {
            this.phase.set(Phase::Head);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.written(written, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
                if !this.phase.is_owed() {
                    return Poll::Ready(Ok(()));
                }
                this.linger.insert(Linger::begin())
            }
        };
        linger.poll(&mut this.inner, context).map(Ok)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
