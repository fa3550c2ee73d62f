//! One answer on its way to its reader.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cereus_engine::failure::Failure;
use cereus_engine::runtime::{Delta, Event, Finished};
use cereus_engine::scheduler::RowId;

use crate::app::App;
use crate::outbox::Outbox;
use crate::wire::StreamWriter;

/// The events of one row. Dropped before its end, it cancels the row.
#[derive(Debug)]
pub(crate) struct Answer {
    app: Arc<App>,
    id: RowId,
    outbox: Arc<Outbox>,
    /// Taken out of the outbox and not yet dealt with.
    taken: Vec<Event>,
    has_ended: bool,
}

/// All of an answer.
#[derive(Debug)]
pub(crate) struct WholeAnswer {
    pub(crate) said: Delta,
    pub(crate) finished: Finished,
}

impl Answer {
    pub(crate) const fn new(app: Arc<App>, id: RowId, outbox: Arc<Outbox>) -> Self {
        Self {
            app,
            id,
            outbox,
            taken: vec![],
            has_ended: false,
        }
    }

    /// Ready with at least one event in `taken`, which must be empty.
    fn poll_take(&mut self, context: &Context<'_>) -> Poll<()> {
        std::task::ready!(self.outbox.poll_take(context, &mut self.taken));
        self.app.read(self.id, self.taken.len());
        Poll::Ready(())
    }

    /// Waits until the engine has taken the request.
    ///
    /// # Errors
    /// The engine refuses it.
    pub(crate) async fn accepted(&mut self) -> Result<(), Failure> {
        poll_fn(|context| self.poll_take(context)).await;
        match self.taken.first() {
            Some(Event::Failed { failure, .. }) => {
                self.has_ended = true;
                Err(failure.clone())
            }
            Some(Event::Accepted { .. } | Event::Delta { .. } | Event::Finished(_)) | None => {
                Ok(())
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn whole(mut self) -> Result<WholeAnswer, Failure> {
        let mut said = Delta::default();
        loop {
            for event in std::mem::take(&mut self.taken) {
                match event {
                    Event::Accepted { .. } => {}
                    Event::Delta { delta, .. } => append(&mut said, delta),
                    Event::Failed { failure, .. } => {
                        self.has_ended = true;
                        return Err(failure);
                    }
                    Event::Finished(finished) => {
                        self.has_ended = true;
                        return Ok(WholeAnswer { said, finished });
                    }
                }
            }
            poll_fn(|context| self.poll_take(context)).await;
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.has_ended {
            self.app.leave(self.id);
        }
    }
}

fn append(said: &mut Delta, delta: Delta) {
    said.reasoning += &delta.reasoning;
    said.content += &delta.content;
    said.calls.extend(delta.calls);
    said.logprobs.extend(delta.logprobs);
}

/// An answer as server-sent events. All that came since the last look goes out in one piece.
#[derive(Debug)]
pub(crate) struct Stream {
    answer: Answer,
    writer: StreamWriter,
    buffer: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(answer: Answer, writer: StreamWriter) -> Self {
        Self {
            answer,
            writer,
            buffer: vec![],
        }
    }

    /// `None` after the last piece.
    pub(crate) fn poll_bytes(&mut self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let answer = &mut self.answer;
        loop {
            for event in answer.taken.drain(..) {
                match event {
                    Event::Accepted { .. } => {}
                    Event::Delta { delta, .. } => self.writer.delta(&delta, &mut self.buffer),
                    Event::Failed { failure, .. } => {
                        answer.has_ended = true;
                        self.writer.failed(&failure, &mut self.buffer);
                    }
                    Event::Finished(finished) => {
                        answer.has_ended = true;
                        self.writer.finished(&finished, &mut self.buffer);
                    }
                }
            }
            if !self.buffer.is_empty() {
                return Poll::Ready(Some(Bytes::from(std::mem::take(&mut self.buffer))));
            }
            if answer.has_ended {
                return Poll::Ready(None);
            }
            std::task::ready!(answer.poll_take(context));
        }
    }
}
