//! Megabytes of prompt beside a stream, with a real model, its tokenizer and its own way of making
//! prompts.
#![cfg(feature = "mlx")]

#[path = "support/start.rs"]
mod start;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_engine::chat::{ChatRequest, Defaults};
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::grammar::Grammars;
use cereus_engine::kv::KvLayout;
use cereus_engine::runtime::{
    Backend, EngineConfig, Event, Job, Limits, Memory, MlxBackend, Opening, Prompts, StepError,
    StepWork,
};
use cereus_engine::sampling::Chosen;
use cereus_engine::scheduler::{RowId, RowSlot};
use cereus_engine::text::Vocabulary;
use start::start_with;

/// Far longer than anything here takes: only a defect waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
const LONG_BYTES: usize = 8 << 20;
const STREAM: RowId = RowId(1);
const LONG: RowId = RowId(2);

/// A model on MLX whose long prompts wait for a permit once they are begun.
struct Waiting {
    model: MlxBackend,
    prompts: Option<Arc<WaitingPrompts>>,
}

#[derive(Debug)]
struct WaitingPrompts {
    own: Arc<dyn Prompts>,
    begun: Mutex<Sender<()>>,
    permits: Mutex<Receiver<()>>,
}

impl Prompts for WaitingPrompts {
    fn opening(&self, request: &ChatRequest) -> Result<Opening, Failure> {
        if request.input.size() >= LONG_BYTES {
            self.begun.lock().unwrap().send(()).unwrap();
            let permit = self.permits.lock().unwrap().recv_timeout(PATIENCE);
            permit.expect("whoever handed the prompt in goes on, and lets it through");
        }
        self.own.opening(request)
    }
}

impl Vocabulary for Waiting {
    fn decode(&self, tokens: &[u32]) -> String {
        self.model.decode(tokens)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.model.token_bytes(token)
    }
}

impl Backend for Waiting {
    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn layout(&self, grant_bytes: u64) -> KvLayout {
        self.model.layout(grant_bytes)
    }

    fn contract(&self) -> Option<[u8; 32]> {
        self.model.contract()
    }

    fn step_time_max(&self) -> Duration {
        self.model.step_time_max()
    }

    fn ends(&self) -> Vec<u32> {
        self.model.ends()
    }

    fn defaults(&self) -> Defaults {
        self.model.defaults()
    }

    fn prompts(&self) -> Option<Arc<dyn Prompts>> {
        let prompts = self.prompts.clone();
        prompts.map(|it| it as Arc<dyn Prompts>)
    }

    fn grammars(&self) -> Option<Arc<dyn Grammars>> {
        self.model.grammars()
    }

    fn is_end(&self, token: u32) -> bool {
        self.model.is_end(token)
    }

    fn step(
        &mut self,
        step: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        self.model.step(step, out)
    }

    fn release(&mut self, slot: RowSlot) {
        self.model.release(slot);
    }

    fn memory(&self) -> Memory {
        self.model.memory()
    }
}

fn job(id: RowId, prompt: &str) -> Job {
    let body = serde_json::json!({"prompt": prompt, "max_tokens": 1_900, "ignore_eos": true});
    Job {
        id,
        body: body.to_string().into_bytes(),
        scope: None,
    }
}

/// The test reads the stream piece by piece and the stream waits for that, so it cannot be over too
/// soon, however long the other prompt takes.
#[test]
fn a_stream_goes_on_while_eight_megabytes_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let (tell_begun, begun) = channel();
    let (permits, for_prompts) = channel();
    let open = move || {
        let model = MlxBackend::open(&folder)?;
        let prompts = model.prompts().map(|own| {
            Arc::new(WaitingPrompts {
                own,
                begun: Mutex::new(tell_begun),
                permits: Mutex::new(for_prompts),
            })
        });
        Ok::<_, cereus_engine::model::ModelError>(Waiting { model, prompts })
    };
    let config = EngineConfig {
        unread_events_max: Some(8),
        ..EngineConfig::reference(64 << 20, Seed::from_number(1))
    };
    let (engine, heard) = start_with(&config, open);
    let next = || heard.recv_timeout(PATIENCE).expect("something comes");
    engine.submit(job(STREAM, "What is Cereus?")).unwrap();
    assert!(matches!(next(), Event::Accepted { id: STREAM, .. }));

    engine
        .submit(job(LONG, &"word ".repeat(LONG_BYTES / 5 + 1)))
        .unwrap();
    begun
        .recv_timeout(PATIENCE)
        .expect("the long prompt is made beside the engine's thread");
    // More than may lie unread: most of them are made while the other waits.
    for _ in 0..64 {
        assert!(matches!(next(), Event::Delta { id: STREAM, .. }));
        engine.read(STREAM, 1);
    }
    permits.send(()).unwrap();
    let refused = loop {
        match next() {
            Event::Failed { id: LONG, failure } => break failure,
            Event::Delta { id: STREAM, .. } => engine.read(STREAM, 1),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.reason, Reason::RequestExceedsContext);
    assert!(refused.text.contains("at least"), "{}", refused.text);
    engine.cancel(STREAM);
    engine.stop();
}
