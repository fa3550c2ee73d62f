//! Where jobs are made ready beside the engine's thread: their bodies read, their prompts cut into
//! tokens, their forms compiled. A long prompt takes seconds there, and no answer waits for it.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::inbox::{Arrived, Asked, Inbox};
use crate::chat::ChatRequest;
use crate::failure::{Failure, Reason};
use crate::grammar::Grammars;
use crate::kv::Scope;
use crate::scheduler::RowId;
use crate::text::AnswerParser;

/// Bytes of a body that goes to the lane of the long ones: reading a shorter one takes at most a
/// few milliseconds, so that the requests of the short lane hardly wait for one another.
const LONG_BODY_BYTES: usize = 64 << 10;

/// Makes prompts of requests, on any thread.
pub trait Prompts: fmt::Debug + Send + Sync {
    /// Turns a request into the tokens of its prompt.
    ///
    /// # Errors
    /// The template refuses the messages, or they are too long.
    fn opening(&self, request: &ChatRequest) -> Result<Opening, Failure>;
}

/// A prompt, and how its answer is read.
#[derive(Debug)]
pub struct Opening {
    pub tokens: Vec<u32>,
    pub parser: AnswerParser,
}

/// What reading a request takes.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// Absent where the backend makes prompts at no cost: then the engine's thread asks it.
    pub(super) prompts: Option<Arc<dyn Prompts>>,
    /// Absent where the backend knows no forms.
    pub(super) grammars: Option<Arc<dyn Grammars>>,
}

impl Reader {
    pub(super) fn read(&self, asking: Asking, scope: Option<&Scope>) -> Result<Asked, Failure> {
        let request = match asking {
            Asking::Body(body) => ChatRequest::from_json(&body)?,
            Asking::Request(request) => *request,
        };
        let prompts = self.prompts.as_ref();
        let opening = prompts.map(|it| it.opening(&request)).transpose()?;
        let constraint = match &self.grammars {
            _ if !request.is_constrained() => None,
            Some(grammars) => Some(grammars.compile(&request, scope)?),
            None => {
                return Err(Failure::client(
                    "this engine does not support response_format other than text, nor a \
                     tool_choice that demands a call",
                ));
            }
        };
        Ok(Asked {
            request,
            opening,
            constraint,
        })
    }
}

/// Two lanes, each a thread with a queue: one for short bodies, one for long ones. Within a lane the
/// order is that of coming.
#[derive(Debug)]
pub(super) struct Preparer {
    short: Lane,
    long: Lane,
}

#[derive(Debug)]
struct Lane {
    /// Absent once the lane closes. The inbox bounds how many jobs live, and so the queue.
    queue: Option<Sender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

/// What is to be made ready, and since when.
pub(super) struct Waiting {
    pub(super) id: RowId,
    pub(super) asking: Asking,
    pub(super) scope: Option<Scope>,
    pub(super) at: Instant,
}

/// Prints no content.
impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waiting({}, {} bytes)", self.id.0, self.asking.size())
    }
}

/// A request as it was handed in.
pub(super) enum Asking {
    Body(Vec<u8>),
    /// By whoever has read the body already.
    Request(Box<ChatRequest>),
}

impl Asking {
    /// Bytes that there are to read, about.
    fn size(&self) -> usize {
        match self {
            Self::Body(body) => body.len(),
            Self::Request(request) => request.input.size(),
        }
    }
}

impl Preparer {
    pub(super) fn open(reader: &Reader, inbox: &Arc<Inbox>) -> io::Result<Self> {
        let lane = |name: &str| Lane::open(name, reader.clone(), Arc::clone(inbox));
        Ok(Self {
            short: lane("engine-short")?,
            long: lane("engine-long")?,
        })
    }

    /// Takes a job that the inbox has reserved a place for; the inbox gets it when it is ready.
    pub(super) fn take(&self, waiting: Waiting) {
        let is_long = waiting.asking.size() >= LONG_BODY_BYTES;
        let lane = if is_long { &self.long } else { &self.short };
        let queue = lane
            .queue
            .as_ref()
            .expect("a lane closes with its preparer");
        let sent = queue.send(waiting);
        assert!(sent.is_ok(), "a lane's thread outlives its queue");
    }
}

impl Lane {
    fn open(name: &str, reader: Reader, inbox: Arc<Inbox>) -> io::Result<Self> {
        let (queue, waiting) = channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&reader, &inbox, &waiting))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }
}

/// What is queued is made ready first, so that each job gets its end.
impl Drop for Lane {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic's message is printed already.
            drop(thread.join());
        }
    }
}

fn work(reader: &Reader, inbox: &Inbox, waiting: &Receiver<Waiting>) {
    for waiting in waiting {
        let Waiting {
            id,
            asking,
            scope,
            at,
        } = waiting;
        let asked = if inbox.is_wanted(id) {
            // A tokenizer's file, a template and a schema come from strangers; a panic over one
            // request is that request's failure.
            let read = catch_unwind(AssertUnwindSafe(|| reader.read(asking, scope.as_ref())));
            read.unwrap_or_else(|_| {
                let text = "the prompt could not be made ready";
                Err(Failure::new(Reason::ProviderError, text))
            })
        } else {
            Err(Failure::cancelled())
        };
        inbox.ready(Arrived {
            id,
            scope,
            asked,
            at,
        });
    }
}
