//! One answer on its way to its reader.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cereus_core::api::WholeAnswer;
use cereus_engine::failure::Failure;
use cereus_engine::runtime::{Event, Finished};
use cereus_engine::scheduler::RowId;

use crate::app::{App, Place};
use crate::row_events::RowEvents;
use crate::wire::StreamWriter;

/// The events of one row. Dropped before its end, it cancels the row.
#[derive(Debug)]
pub(crate) struct Answer {
    app: Arc<App>,
    id: RowId,
    events: Arc<RowEvents>,
    /// Taken and not yet dealt with.
    taken: Vec<Event>,
    has_ended: bool,
    /// Held until the last answer of the request is gone.
    _place: Place,
}

/// All of one answer.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) answer: WholeAnswer,
    pub(crate) finished: Finished,
}

impl Answer {
    pub(crate) const fn new(
        app: Arc<App>,
        id: RowId,
        events: Arc<RowEvents>,
        place: Place,
    ) -> Self {
        Self {
            app,
            id,
            events,
            taken: vec![],
            has_ended: false,
            _place: place,
        }
    }

    /// Ready with at least one event in `taken`, which must be empty.
    fn poll_take(&mut self, context: &Context<'_>) -> Poll<()> {
        std::task::ready!(self.events.poll_take(context, &mut self.taken));
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

    /// Takes what has come, until the end: `None` while there may be more.
    fn poll_said(
        &mut self,
        context: &Context<'_>,
        said: &mut WholeAnswer,
    ) -> Poll<Result<Finished, Failure>> {
        loop {
            for event in std::mem::take(&mut self.taken) {
                match event {
                    Event::Accepted { .. } => {}
                    Event::Delta { delta, .. } => said
                        .push(&delta.as_piece())
                        .expect("the engine bounds its answers"),
                    Event::Failed { failure, .. } => {
                        self.has_ended = true;
                        return Poll::Ready(Err(failure));
                    }
                    Event::Finished(finished) => {
                        self.has_ended = true;
                        return Poll::Ready(Ok(finished));
                    }
                }
            }
            std::task::ready!(self.poll_take(context));
        }
    }
}

/// Waits for the ends of all answers to one request. They are read side by side: one whose reader is
/// behind would pause.
///
/// # Errors
/// The engine fails on one of them; the others are not waited for.
pub(crate) async fn whole(mut answers: Vec<Answer>) -> Result<Vec<Ended>, Failure> {
    let mut said: Vec<WholeAnswer> = answers.iter().map(|_| WholeAnswer::direct()).collect();
    let mut ends: Vec<Option<Finished>> = answers.iter().map(|_| None).collect();
    poll_fn(|context| {
        let all = answers.iter_mut().zip(&mut said).zip(&mut ends);
        for ((answer, said), end) in all.filter(|(_, end)| end.is_none()) {
            if let Poll::Ready(finished) = answer.poll_said(context, said) {
                *end = Some(finished?);
            }
        }
        if ends.iter().all(Option::is_some) {
            Poll::Ready(Ok::<(), Failure>(()))
        } else {
            Poll::Pending
        }
    })
    .await?;
    let whole = said.into_iter().zip(ends.into_iter().flatten());
    Ok(whole
        .map(|(answer, finished)| Ended { answer, finished })
        .collect())
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.has_ended {
            self.app.leave(self.id);
        }
    }
}

/// The answers to one request as server-sent events. All that came since the last look goes out in
/// one piece.
#[derive(Debug)]
pub(crate) struct Stream {
    answers: Vec<Answer>,
    writer: StreamWriter,
    buffer: Vec<u8>,
    has_failed: bool,
}

impl Stream {
    /// The writer knows as many answers.
    pub(crate) fn new(answers: Vec<Answer>, mut writer: StreamWriter) -> Self {
        let mut buffer = vec![];
        writer.open(&mut buffer);
        Self {
            answers,
            writer,
            buffer,
            has_failed: false,
        }
    }

    /// `None` after the last piece.
    pub(crate) fn poll_bytes(&mut self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        for choice in 0..self.answers.len() {
            self.take(context, choice);
        }
        if !self.buffer.is_empty() {
            return Poll::Ready(Some(Bytes::from(std::mem::take(&mut self.buffer))));
        }
        if self.has_failed || self.answers.iter().all(|answer| answer.has_ended) {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Writes what has come of one answer.
    fn take(&mut self, context: &Context<'_>, choice: usize) {
        let answer = &mut self.answers[choice];
        while !(self.has_failed || answer.has_ended) {
            for event in answer.taken.drain(..) {
                match event {
                    Event::Accepted { .. } => {}
                    Event::Delta { delta, .. } => {
                        self.writer.delta(choice, &delta, &mut self.buffer);
                    }
                    Event::Failed { failure, .. } => {
                        answer.has_ended = true;
                        self.has_failed = true;
                        self.writer.failed(&failure, &mut self.buffer);
                    }
                    Event::Finished(finished) => {
                        answer.has_ended = true;
                        self.writer.finished(choice, &finished, &mut self.buffer);
                    }
                }
            }
            if answer.has_ended || answer.poll_take(context).is_pending() {
                return;
            }
        }
    }
}
