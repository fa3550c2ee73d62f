//! Prompts that take long to make: nobody but who sent one waits for it.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_engine::chat::{ChatRequest, Input};
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{
    Backend, EchoBackend, Engine, EngineConfig, Event, Job, Limits, Memory, Opening, Prompts,
    StepError, StepWork,
};
use cereus_engine::sampling::Chosen;
use cereus_engine::scheduler::{RowId, RowSlot};
use cereus_engine::text::{AnswerParser, Vocabulary};

/// Far longer than anything here takes: only a defect waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// A body of this many bytes counts as long, and then some.
const LONG_BYTES: usize = 100_000;

/// An echo whose prompts are made beside it. Those that begin with `slow` wait for a permit; those
/// with `broken` panic.
struct Beside {
    echo: EchoBackend,
    prompts: Arc<SlowPrompts>,
}

#[derive(Debug)]
struct SlowPrompts {
    begun: Mutex<Sender<()>>,
    permits: Mutex<Receiver<()>>,
}

impl Prompts for SlowPrompts {
    fn opening(&self, request: &ChatRequest) -> Result<Opening, Failure> {
        let Input::Text(text) = &request.input else {
            panic!("the test sends plain texts");
        };
        if text.starts_with("slow") {
            self.begun.lock().unwrap().send(()).unwrap();
            // A dropped sender lets everything through.
            let _is_let = self.permits.lock().unwrap().recv();
        }
        assert!(!text.starts_with("broken"), "a defect of a tokenizer");
        Ok(Opening {
            tokens: vec![1; 3],
            parser: AnswerParser::plain(),
        })
    }
}

impl Vocabulary for Beside {
    fn decode(&self, tokens: &[u32]) -> String {
        self.echo.decode(tokens)
    }
}

impl Backend for Beside {
    fn limits(&self) -> Limits {
        self.echo.limits()
    }

    fn prompts(&self) -> Option<Arc<dyn Prompts>> {
        Some(Arc::clone(&self.prompts) as Arc<dyn Prompts>)
    }

    fn is_end(&self, token: u32) -> bool {
        self.echo.is_end(token)
    }

    fn step(
        &mut self,
        step: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        self.echo.step(step, out)
    }

    fn release(&mut self, slot: RowSlot) {
        self.echo.release(slot);
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

struct Started {
    engine: Engine,
    heard: Receiver<Event>,
    /// One word for each slow prompt that has begun.
    begun: Receiver<()>,
    permits: Sender<()>,
}

fn start() -> Started {
    let (tell, heard) = channel();
    let (tell_begun, begun) = channel();
    let (permits, for_prompts) = channel();
    let prompts = Arc::new(SlowPrompts {
        begun: Mutex::new(tell_begun),
        permits: Mutex::new(for_prompts),
    });
    let echo = EchoBackend::new(5);
    let config = EngineConfig::reference(1 << 20, Seed::from_number(1));
    let engine = Engine::start(
        &config,
        move || Ok::<_, Infallible>(Beside { echo, prompts }),
        move |event| tell.send(event).unwrap(),
    );
    Started {
        engine: engine.unwrap(),
        heard,
        begun,
        permits,
    }
}

fn job(id: u64, prompt: &str) -> Job {
    Job {
        id: RowId(id),
        body: format!(r#"{{"prompt":"{prompt}"}}"#).into_bytes(),
        scope: None,
    }
}

fn slow_and_long() -> String {
    format!("slow{}", "x".repeat(LONG_BYTES))
}

/// The end of the next job that ends.
fn next_end(heard: &Receiver<Event>) -> (u64, Result<(), Failure>) {
    loop {
        match heard.recv_timeout(PATIENCE).expect("a job ends") {
            Event::Accepted { .. } | Event::Delta { .. } => {}
            Event::Finished(finished) => return (finished.id.0, Ok(())),
            Event::Failed { id, failure } => return (id.0, Err(failure)),
        }
    }
}

/// ENG-24.
#[test]
fn an_answer_comes_while_a_long_prompt_is_still_made_ready() {
    let it = start();
    it.engine.submit(job(1, &slow_and_long())).unwrap();
    it.begun.recv_timeout(PATIENCE).unwrap();
    for id in 2..6 {
        it.engine.submit(job(id, "short")).unwrap();
        assert_eq!(next_end(&it.heard), (id, Ok(())));
    }
    assert_eq!(it.engine.capacity().num_waiting, 1, "the slow one waits");
    it.permits.send(()).unwrap();
    assert_eq!(next_end(&it.heard), (1, Ok(())));
    it.engine.stop();
}

#[test]
fn a_job_that_is_cancelled_while_it_is_made_ready_ends_once() {
    let it = start();
    it.engine.submit(job(1, &slow_and_long())).unwrap();
    it.engine.submit(job(2, &slow_and_long())).unwrap();
    it.begun.recv_timeout(PATIENCE).unwrap();
    it.engine.cancel(RowId(1));
    it.engine.cancel(RowId(2));
    // Only the first waits for a permit: the second is not begun any more.
    it.permits.send(()).unwrap();
    let mut ended: Vec<u64> = vec![];
    for _ in 0..2 {
        let (id, end) = next_end(&it.heard);
        assert_eq!(end.unwrap_err().reason, Reason::Cancelled);
        ended.push(id);
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
    it.engine.stop();
    assert!(it.heard.try_recv().is_err(), "nothing follows an end");
    assert!(it.begun.try_recv().is_err(), "nobody wanted the second");
}

#[test]
fn stopping_waits_for_what_is_made_ready() {
    let it = start();
    it.engine.submit(job(1, "slow")).unwrap();
    it.begun.recv_timeout(PATIENCE).unwrap();
    it.engine.drain();
    let refused = it.engine.submit(job(2, "short")).unwrap_err();
    assert_eq!(refused.reason, Reason::Draining);
    drop(it.permits);
    it.engine.stop();
    assert_eq!(next_end(&it.heard), (1, Ok(())));
}

#[test]
fn a_defect_over_one_prompt_fails_that_job_alone() {
    let it = start();
    it.engine.submit(job(1, "broken")).unwrap();
    let (ended, end) = next_end(&it.heard);
    assert_eq!((ended, end.unwrap_err().reason), (1, Reason::ProviderError));
    it.engine.submit(job(2, "short")).unwrap();
    assert_eq!(next_end(&it.heard), (2, Ok(())));
    let unread = it.engine.submit(Job {
        body: b"{".to_vec(),
        ..job(3, "")
    });
    unread.unwrap();
    let (ended, end) = next_end(&it.heard);
    assert_eq!((ended, end.unwrap_err().reason), (3, Reason::ClientError));
}
