//! The engine's thread, with backends that compute nothing: every job ends once, text is cut where
//! it must be, and nothing is lost on the way in or out.

#[path = "support/start.rs"]
mod start;

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_core::time::Span;
use cereus_engine::chat::ChatRequest;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{
    Backend, EchoBackend, Engine, EngineConfig, Event, FinishReason, Job, Limits, Memory,
    StartError, StepError, StepWork, Usage,
};
use cereus_engine::sampling::{Chosen, Logprobs};
use cereus_engine::scheduler::leases::LeaseConfig;
use cereus_engine::scheduler::{Admission, RowId, RowSlot};
use cereus_engine::text::Vocabulary;
use start::start;

const CONTEXT_TOKENS: u32 = 64;

fn config() -> EngineConfig {
    EngineConfig {
        rows_max: 4,
        waiting_max: 4,
        step_token_budget: 64,
        prefill_chunk_tokens: 8,
        kv_bytes_max: 1 << 20,
        admission: Admission::WorstCase,
        leases: LeaseConfig::REFERENCE,
        unread_events_max: None,
        seed: Seed::from_number(1),
        disk: None,
    }
}

fn job(id: u64, extra: &str) -> Job {
    let body =
        format!(r#"{{"messages":[{{"role":"user","content":"a prompt of some words"}}]{extra}}}"#);
    Job {
        id: RowId(id),
        body: body.into_bytes(),
        scope: None,
    }
}

/// Everything that a stopped engine said.
fn all(heard: &Receiver<Event>) -> Vec<Event> {
    heard.iter().collect()
}

fn id_of(event: &Event) -> RowId {
    match event {
        Event::Accepted { id, .. } | Event::Delta { id, .. } | Event::Failed { id, .. } => *id,
        Event::Finished(finished) => finished.id,
    }
}

fn text_of(events: &[Event], wanted: u64) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Delta { id, delta } if id.0 == wanted => Some(delta.content.as_str()),
        Event::Accepted { .. }
        | Event::Delta { .. }
        | Event::Failed { .. }
        | Event::Finished(_) => None,
    });
    texts.collect()
}

fn end_of(events: &[Event], wanted: u64) -> Event {
    let mut ends = events.iter().filter(|event| {
        id_of(event).0 == wanted && matches!(event, Event::Failed { .. } | Event::Finished(_))
    });
    let end = ends.next().expect("every job ends").clone();
    assert!(ends.next().is_none(), "a job ends once");
    let last = events.iter().rfind(|event| id_of(event).0 == wanted);
    assert_eq!(last, Some(&end), "nothing follows the end");
    end
}

fn finish_of(events: &[Event], wanted: u64) -> (FinishReason, Usage) {
    match end_of(events, wanted) {
        Event::Finished(finished) => (finished.reason, finished.usage),
        other => panic!("{other:?} should be a finish"),
    }
}

fn failure_of(events: &[Event], wanted: u64) -> Failure {
    match end_of(events, wanted) {
        Event::Failed { failure, .. } => failure,
        other => panic!("{other:?} should be a failure"),
    }
}

/// Says its script one byte per token, then ends. A step waits for a permit when there is a gate.
struct Scripted {
    script: &'static [u8],
    gate: Option<Receiver<()>>,
    fail_at_step: Option<u32>,
    steps: u32,
    released: Sender<RowSlot>,
}

impl Scripted {
    fn new(script: &'static str) -> Self {
        let released = channel().0;
        Self {
            script: script.as_bytes(),
            gate: None,
            fail_at_step: None,
            steps: 0,
            released,
        }
    }
}

const END: u32 = 256;

impl Vocabulary for Scripted {
    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .map(|&token| u8::try_from(token).unwrap())
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Backend for Scripted {
    fn limits(&self) -> Limits {
        Limits {
            context_tokens: CONTEXT_TOKENS,
            kv_bytes_per_token: 1_024,
            step_tokens_useful: u32::MAX,
        }
    }

    fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        Ok(request.messages()[0]
            .content
            .bytes()
            .map(u32::from)
            .collect())
    }

    fn is_end(&self, token: u32) -> bool {
        token == END
    }

    fn step(
        &mut self,
        work: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        if let Some(gate) = &self.gate {
            // A dropped gate lets everything through.
            let _ = gate.recv();
        }
        self.steps += 1;
        if self.fail_at_step == Some(self.steps) {
            return Err(StepError("out of memory".to_owned()));
        }
        for sample in work.rows.iter().filter_map(|row| row.sample) {
            let place = usize::try_from(sample.step).unwrap();
            // A zero in the script stands for logits that are not numbers.
            let token = self.script.get(place).map_or(END, |&byte| u32::from(byte));
            let logprobs = sample.sampling.top_logprobs.map(|_| {
                Box::new(Logprobs {
                    chosen: -0.5,
                    top: vec![(token, -0.5)],
                })
            });
            out.push((token != 0).then_some(Chosen { token, logprobs }));
        }
        Ok(())
    }

    fn release(&mut self, slot: RowSlot) {
        let _ = self.released.send(slot);
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

#[test]
fn an_echo_says_its_words_one_by_one_and_stops() {
    let (engine, heard) = start(&config(), EchoBackend::new(3));
    engine.submit(job(7, "")).unwrap();
    engine.stop();
    let events = all(&heard);
    assert!(matches!(
        events[0],
        Event::Accepted {
            id: RowId(7),
            prompt_tokens: 6
        }
    ));
    let texts = events
        .iter()
        .filter(|event| matches!(event, Event::Delta { .. }))
        .count();
    assert_eq!(texts, 3);
    assert_eq!(text_of(&events, 7), "echo echo echo ");
    let (reason, usage) = finish_of(&events, 7);
    assert_eq!(reason, FinishReason::Stop);
    assert_eq!(
        usage,
        Usage {
            prompt_tokens: 6,
            cached_tokens: 0,
            completion_tokens: 4,
            reasoning_tokens: 0,
        }
    );
}

#[test]
fn an_answer_ends_by_length_at_the_bound_that_was_asked() {
    let (engine, heard) = start(&config(), EchoBackend::new(100));
    engine.submit(job(1, r#","max_tokens":5"#)).unwrap();
    engine.stop();
    let events = all(&heard);
    let (reason, usage) = finish_of(&events, 1);
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Length, 5));
    assert_eq!(text_of(&events, 1), "echo ".repeat(5));
}

#[test]
fn an_answer_that_ignores_its_end_has_the_asked_length() {
    let (engine, heard) = start(&config(), EchoBackend::new(2));
    engine
        .submit(job(1, r#","max_tokens":6,"ignore_eos":true"#))
        .unwrap();
    engine.stop();
    let (reason, usage) = finish_of(&all(&heard), 1);
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Length, 6));
}

#[test]
fn a_bound_beyond_the_context_means_all_there_is() {
    let (engine, heard) = start(&config(), Scripted::new("x".repeat(99).leak()));
    engine.submit(job(1, r#","max_tokens":100000"#)).unwrap();
    engine.stop();
    let (reason, usage) = finish_of(&all(&heard), 1);
    assert_eq!(reason, FinishReason::Length);
    assert_eq!(
        usage.prompt_tokens + usage.completion_tokens,
        CONTEXT_TOKENS
    );
}

#[test]
fn a_stop_string_and_all_after_it_stay_unsaid() {
    let (engine, heard) = start(&config(), Scripted::new("one two three"));
    engine.submit(job(1, r#","stop":[" thr","zzz"]"#)).unwrap();
    engine.stop();
    let events = all(&heard);
    assert_eq!(text_of(&events, 1), "one two");
    let (reason, usage) = finish_of(&events, 1);
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Stop, 11));
}

#[test]
fn an_answer_that_ends_on_the_beginning_of_a_stop_string_is_whole() {
    let (engine, heard) = start(&config(), Scripted::new("one two"));
    engine.submit(job(1, r#","stop":"two three""#)).unwrap();
    engine.stop();
    assert_eq!(text_of(&all(&heard), 1), "one two");
}

#[test]
fn characters_arrive_whole() {
    let (engine, heard) = start(&config(), Scripted::new("añ🐕b"));
    engine.submit(job(1, "")).unwrap();
    engine.stop();
    let events = all(&heard);
    assert_eq!(text_of(&events, 1), "añ🐕b");
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::Delta { .. }))
            .count(),
        4
    );
}

#[test]
fn what_cannot_be_served_fails_with_its_reason_and_says_no_word_of_the_prompt() {
    let (engine, heard) = start(&config(), Scripted::new("x"));
    let long = "secret".repeat(20);
    let bodies = [
        ("{".to_owned(), Reason::ClientError),
        (r#"{"messages":[]}"#.to_owned(), Reason::ClientError),
        (
            format!(r#"{{"messages":[{{"role":"user","content":"{long}"}}]}}"#),
            Reason::RequestExceedsContext,
        ),
    ];
    for (id, (body, _)) in (0..).zip(&bodies) {
        engine
            .submit(Job {
                id: RowId(id),
                body: body.clone().into_bytes(),
                scope: None,
            })
            .unwrap();
    }
    engine.stop();
    let events = all(&heard);
    assert_eq!(events.len(), bodies.len());
    for (id, (_, reason)) in (0..).zip(&bodies) {
        let failure = failure_of(&events, id);
        assert_eq!(failure.reason, *reason);
        assert!(!failure.text.contains("secret"), "{failure}");
    }
}

#[test]
fn a_prompt_beyond_this_machines_memory_is_told_so_and_a_shorter_one_is_served() {
    // Memory for two pages of 16 tokens, 1,024 bytes each; the prompt takes 22.
    let config = EngineConfig {
        kv_bytes_max: 32 << 10,
        admission: Admission::WorstCase,
        leases: LeaseConfig::REFERENCE,
        ..config()
    };
    let (engine, heard) = start(&config, Scripted::new("an answer without end"));
    engine.submit(job(1, "")).unwrap();
    let long =
        r#"{"messages":[{"role":"user","content":"a prompt of a few more words than fit"}]}"#;
    engine
        .submit(Job {
            id: RowId(2),
            body: long.into(),
            scope: None,
        })
        .unwrap();
    engine.stop();
    let events = all(&heard);
    let (reason, usage) = finish_of(&events, 1);
    assert_eq!(
        (reason, usage.completion_tokens),
        (FinishReason::Length, 10)
    );
    let failure = failure_of(&events, 2);
    assert_eq!(failure.reason, Reason::RequestExceedsNodeBudget);
    assert!(failure.text.contains("37 tokens") && failure.text.contains("memory for 32"));
}

#[test]
fn requests_without_a_bound_do_not_wait_for_room_that_their_answers_never_take() {
    // Sixteen pages of 16 tokens: room for four whole contexts, and for eight of these answers.
    let config = EngineConfig {
        rows_max: 8,
        ..EngineConfig::reference(256 << 10, Seed::from_number(1))
    };
    let (permits, gate) = channel();
    let backend = Scripted {
        gate: Some(gate),
        ..Scripted::new("an answer")
    };
    let (engine, heard) = start(&config, backend);
    for id in 0..6 {
        engine.submit(job(id, "")).unwrap();
    }
    (0..60).for_each(|_| permits.send(()).unwrap());
    engine.stop();
    let events = all(&heard);
    let place = |is_it: &dyn Fn(&Event) -> bool| events.iter().position(is_it).unwrap();
    let first_end = place(&|event| matches!(event, Event::Finished(_)));
    for wanted in 0..6 {
        let is_delta = |event: &Event| matches!(event, Event::Delta { id, .. } if id.0 == wanted);
        assert!(place(&is_delta) < first_end, "{wanted} waited for another");
        assert_eq!(finish_of(&events, wanted).0, FinishReason::Stop);
    }
}

#[test]
fn the_snapshot_tells_how_long_a_request_may_be_and_what_bounds_it() {
    // The reference keeps a twentieth for rows that grow.
    let config = EngineConfig::reference(32 << 10, Seed::from_number(1));
    let (engine, heard) = start(&config, Scripted::new("abc"));
    let capacity = engine.capacity();
    assert_eq!(
        (capacity.row_tokens_max, capacity.context_tokens),
        (16, CONTEXT_TOKENS)
    );
    engine.stop();
    drop(heard);
    let config = EngineConfig::reference(1 << 20, Seed::from_number(1));
    let (engine, _heard) = start(&config, Scripted::new("abc"));
    assert_eq!(engine.capacity().row_tokens_max, CONTEXT_TOKENS);
    engine.stop();
}

#[test]
fn a_smaller_grant_leaves_alone_what_runs_and_fails_what_would_wait_for_ever() {
    let (permits, gate) = channel();
    let backend = Scripted {
        gate: Some(gate),
        ..Scripted::new("abc")
    };
    let config = EngineConfig {
        rows_max: 1,
        ..config()
    };
    let (engine, heard) = start(&config, backend);
    // 22 tokens of prompt and 10 of answer: two pages of 16 tokens, 1,024 bytes each.
    engine.submit(job(1, r#","max_tokens":10"#)).unwrap();
    permits.send(()).unwrap();
    while !matches!(heard.recv().unwrap(), Event::Delta { .. }) {}
    engine.submit(job(2, r#","max_tokens":30"#)).unwrap();
    engine.set_grant(16 << 10);
    engine.set_grant(32 << 10);
    drop(permits);
    let (mut failed, mut finished) = (None, None);
    while finished.is_none() {
        match heard.recv().unwrap() {
            Event::Failed { id, failure } => failed = Some((id.0, failure.reason)),
            Event::Finished(end) => finished = Some((end.id.0, end.reason)),
            Event::Accepted { .. } | Event::Delta { .. } => {}
        }
    }
    assert_eq!(failed, Some((2, Reason::RequestExceedsNodeBudget)));
    assert_eq!(finished, Some((1, FinishReason::Stop)));
    assert_eq!(engine.capacity().active_token_budget_max, 32);
    engine.set_grant(u64::MAX);
    engine.submit(job(3, r#","max_tokens":30"#)).unwrap();
    engine.stop();
    assert_eq!(finish_of(&all(&heard), 3).0, FinishReason::Stop);
}

#[test]
fn a_full_engine_refuses_at_once_and_serves_what_it_took() {
    let (permits, gate) = channel();
    let backend = Scripted {
        gate: Some(gate),
        ..Scripted::new("xyz")
    };
    let (engine, heard) = start(&config(), backend);
    let room = 8;
    for id in 0..room {
        engine.submit(job(id, "")).unwrap();
    }
    let refused = engine.submit(job(room, "")).unwrap_err();
    assert_eq!(
        (refused.reason, refused.status_code()),
        (Reason::QueueFull, 429)
    );
    let doubled = engine.submit(job(0, "")).unwrap_err();
    assert!(matches!(
        doubled.reason,
        Reason::QueueFull | Reason::ClientError
    ));
    drop(permits);
    engine.stop();
    let events = all(&heard);
    for id in 0..room {
        assert_eq!(text_of(&events, id), "xyz");
        assert_eq!(finish_of(&events, id).0, FinishReason::Stop);
    }
}

#[test]
fn a_draining_engine_finishes_what_it_took_and_takes_no_more() {
    let (permits, gate) = channel();
    let backend = Scripted {
        gate: Some(gate),
        ..Scripted::new("xyz")
    };
    let (engine, heard) = start(&config(), backend);
    engine.submit(job(1, "")).unwrap();
    engine.drain();
    let refused = engine.submit(job(2, "")).unwrap_err();
    assert_eq!(
        (refused.reason, refused.status_code()),
        (Reason::Draining, 503)
    );
    drop(permits);
    engine.stop();
    assert_eq!(text_of(&all(&heard), 1), "xyz");
}

#[test]
fn a_cancel_before_any_text_is_a_499_and_after_some_a_finish_with_its_usage() {
    let (permits, gate) = channel();
    let (released, when_released) = channel();
    let backend = Scripted {
        gate: Some(gate),
        released,
        ..Scripted::new("abcdef")
    };
    let (engine, heard) = start(&config(), backend);
    engine.submit(job(1, "")).unwrap();
    // The first step prefills the whole prompt and yields a letter.
    permits.send(()).unwrap();
    let mut events = vec![heard.recv().unwrap(), heard.recv().unwrap()];
    assert!(matches!(&events[1], Event::Delta { delta, .. } if delta.content == "a"));
    // The thread waits at its second step; what is asked now is seen after it.
    engine.submit(job(2, "")).unwrap();
    engine.cancel(RowId(1));
    engine.cancel(RowId(1));
    engine.cancel(RowId(2));
    engine.cancel(RowId(99));
    drop(permits);
    engine.stop();
    events.extend(heard.iter());
    let (reason, usage) = finish_of(&events, 1);
    assert_eq!(reason, FinishReason::Cancelled);
    assert_eq!(usage.completion_tokens as usize, text_of(&events, 1).len());
    assert_eq!(failure_of(&events, 2), Failure::cancelled());
    assert_eq!(when_released.iter().count(), 1);
}

#[test]
fn a_failed_step_ends_its_rows_and_the_engine_goes_on() {
    let backend = Scripted {
        fail_at_step: Some(2),
        ..Scripted::new("xyz")
    };
    let (engine, heard) = start(&config(), backend);
    engine.submit(job(1, "")).unwrap();
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Failed { .. })) {
        events.push(heard.recv().unwrap());
    }
    let failure = failure_of(&events, 1);
    assert_eq!(
        (failure.reason, failure.status_code()),
        (Reason::ProviderError, 500)
    );
    assert!(failure.text.contains("out of memory"));
    engine.submit(job(2, "")).unwrap();
    engine.stop();
    assert_eq!(text_of(&all(&heard), 2), "xyz");
}

#[test]
fn a_panic_fails_what_lives_and_refuses_what_comes() {
    struct Broken;
    impl Vocabulary for Broken {
        fn decode(&self, _tokens: &[u32]) -> String {
            panic!("a defect");
        }
    }
    impl Backend for Broken {
        fn limits(&self) -> Limits {
            EchoBackend::new(1).limits()
        }
        fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
            EchoBackend::new(1).prompt(request)
        }
        fn is_end(&self, _token: u32) -> bool {
            false
        }
        fn step(
            &mut self,
            work: &StepWork<'_>,
            out: &mut Vec<Option<Chosen>>,
        ) -> Result<(), StepError> {
            EchoBackend::new(1).step(work, out)
        }
        fn release(&mut self, _slot: RowSlot) {}
        fn memory(&self) -> Memory {
            Memory::default()
        }
    }
    let (engine, heard) = start(&config(), Broken);
    engine.submit(job(1, "")).unwrap();
    let events = all(&heard);
    let failure = failure_of(&events, 1);
    assert_eq!(
        (failure.reason, failure.text.as_ref()),
        (Reason::ProviderError, "the engine crashed")
    );
    assert_eq!(engine.capacity().state(), "crashed");
    assert_eq!(
        engine.submit(job(2, "")).unwrap_err().reason,
        Reason::Draining
    );
}

#[test]
fn capacity_tells_what_runs_and_is_empty_when_all_is_done() {
    let (permits, gate) = channel();
    let backend = Scripted {
        gate: Some(gate),
        ..Scripted::new("abc")
    };
    let (engine, heard) = start(&config(), backend);
    // Dropped before the engine, which waits at the gate.
    let permits = permits;
    assert_eq!(engine.capacity().state(), "idle");
    engine.submit(job(1, r#","max_tokens":10"#)).unwrap();
    permits.send(()).unwrap();
    assert!(matches!(heard.recv().unwrap(), Event::Accepted { .. }));
    assert!(matches!(heard.recv().unwrap(), Event::Delta { .. }));
    permits.send(()).unwrap();
    assert!(matches!(heard.recv().unwrap(), Event::Delta { .. }));
    // Published after the first step, before the second began.
    let capacity = engine.capacity();
    assert_eq!(capacity.state(), "running");
    assert_eq!((capacity.num_running, capacity.num_waiting), (1, 0));
    assert_eq!(capacity.max_concurrency, 4);
    assert_eq!(
        (
            capacity.active_token_budget_used,
            capacity.active_token_budget_max
        ),
        (32, 1_024)
    );
    assert!(capacity.active_tokens >= 23);
    assert_eq!(capacity.max_tokens_potential, 10);
    assert_eq!(capacity.kv_bytes_per_token, 1_024);
    assert!(capacity.observed_prefill_tps.is_some());
    drop(permits);
    while !matches!(heard.recv().unwrap(), Event::Finished(_)) {}
    let capacity = engine.capacity();
    assert_eq!(capacity.state(), "idle");
    assert_eq!(
        (capacity.active_token_budget_used, capacity.active_tokens),
        (0, 0)
    );
    assert!(capacity.observed_decode_tps.is_some());
    assert_eq!((capacity.admits, capacity.first_tokens_emitted), (1, 1));
}

#[test]
fn many_jobs_from_many_threads_each_end_once() {
    let config = EngineConfig {
        waiting_max: 600,
        ..config()
    };
    let (engine, heard) = start(&config, EchoBackend::new(5));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let engine = &engine;
            scope.spawn(move || {
                for ix in 0..100 {
                    let id = thread * 100 + ix;
                    engine.submit(job(id, "")).unwrap();
                    if id % 7 == 0 {
                        engine.cancel(RowId(id));
                    }
                }
            });
        }
    });
    engine.stop();
    let events = all(&heard);
    for id in 0..600 {
        match end_of(&events, id) {
            Event::Finished(finished) if finished.reason == FinishReason::Stop => {
                assert_eq!(text_of(&events, id), "echo ".repeat(5));
            }
            _ => assert_eq!(id % 7, 0, "only the cancelled end otherwise"),
        }
    }
}

#[test]
fn a_backend_that_does_not_open_gives_its_own_reason() {
    let result = Engine::start(
        &config(),
        || Err::<EchoBackend, _>("no such folder".to_owned()),
        |_| {},
    );
    assert!(matches!(result, Err(StartError::Backend(cause)) if cause == "no such folder"));
}

#[test]
fn limits_that_fit_no_scheduler_are_refused() {
    let config = EngineConfig {
        rows_max: 0,
        ..config()
    };
    let result = Engine::start(&config, || Ok::<_, Infallible>(EchoBackend::new(1)), |_| {});
    assert!(matches!(result, Err(StartError::Config(_))));
}

#[test]
fn a_row_without_a_next_token_fails_and_its_neighbours_do_not() {
    let (engine, heard) = start(&config(), Scripted::new("a\0"));
    engine.submit(job(1, r#","max_tokens":1"#)).unwrap();
    engine.submit(job(2, "")).unwrap();
    engine.submit(job(3, r#","stop":"a""#)).unwrap();
    engine.stop();
    let events = all(&heard);
    assert_eq!(finish_of(&events, 1).0, FinishReason::Length);
    assert_eq!(failure_of(&events, 2).reason, Reason::ProviderError);
    assert_eq!(finish_of(&events, 3).0, FinishReason::Stop);
}

#[test]
fn log_probabilities_go_out_with_their_text_and_never_those_of_a_stop_string() {
    let (engine, heard) = start(&config(), Scripted::new("ab\u{e4}STOP"));
    let wishes = r#","stop":"STOP","logprobs":true,"top_logprobs":1"#;
    engine.submit(job(1, wishes)).unwrap();
    engine.submit(job(2, "")).unwrap();
    engine.stop();
    let events = all(&heard);
    assert_eq!(text_of(&events, 1), "ab\u{e4}");
    let logprobs_of = |wanted| {
        let deltas = events.iter().filter_map(move |event| match event {
            Event::Delta { id, delta } if id.0 == wanted => Some(&delta.logprobs),
            _ => None,
        });
        deltas.flatten().collect::<Vec<_>>()
    };
    let bytes: Vec<u8> = logprobs_of(1)
        .iter()
        .flat_map(|token| token.chosen.bytes.clone())
        .collect();
    assert_eq!(bytes.len(), 2 + 2 * "\u{fffd}".len());
    assert!(
        logprobs_of(1)
            .iter()
            .all(|token| token.top == [token.chosen.clone()])
    );
    assert!(logprobs_of(2).is_empty());
}

#[test]
fn a_row_that_waits_too_long_for_its_turn_is_told_so() {
    let (permits, gate) = channel();
    let backend = Scripted {
        gate: Some(gate),
        ..Scripted::new("abc")
    };
    let config = EngineConfig {
        rows_max: 1,
        leases: LeaseConfig {
            admission: Span::millis(300),
            ..LeaseConfig::REFERENCE
        },
        ..config()
    };
    let (engine, heard) = start(&config, backend);
    // Dropped before the engine, which waits at the gate.
    let permits = permits;
    engine.submit(job(1, "")).unwrap();
    assert!(matches!(heard.recv().unwrap(), Event::Accepted { .. }));
    engine.submit(job(2, "")).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    drop(permits);
    engine.stop();
    let events = all(&heard);
    assert_eq!(finish_of(&events, 1).0, FinishReason::Stop);
    assert_eq!(failure_of(&events, 2).reason, Reason::AdmissionTimeout);
}
