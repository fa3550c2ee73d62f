//! What the engine's thread makes of an answer's text: thoughts, calls, and why it ended.

use std::convert::Infallible;
use std::sync::mpsc::channel;

use cereus_core::draw::Seed;
use cereus_engine::chat::ChatRequest;
use cereus_engine::failure::Failure;
use cereus_engine::runtime::{
    Backend, Delta, Engine, EngineConfig, Event, FinishReason, Finished, Job, Limits, Memory,
    StepError, StepWork,
};
use cereus_engine::sampling::Chosen;
use cereus_engine::scheduler::{RowId, RowSlot};
use cereus_engine::text::{AnswerParser, Calling, Dialect, ParameterTypes, Vocabulary};

const END: u32 = 256;

/// Answers everything with one text, a byte per token, in the dialect of Qwen.
struct Says(&'static str);

impl Vocabulary for Says {
    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().map(|token| token.to_le_bytes()[0]).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Backend for Says {
    fn limits(&self) -> Limits {
        Limits {
            context_tokens: 1_024,
            kv_bytes_per_token: 1,
            step_tokens_useful: u32::MAX,
        }
    }

    fn prompt(&self, _request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        Ok(vec![0])
    }

    fn parser(&self, request: &ChatRequest, _prompt: &[u32]) -> AnswerParser {
        let calling = if request.tools.may_be_called() {
            Calling::Yes(ParameterTypes::from(&request.tools))
        } else {
            Calling::No
        };
        let dialect = Dialect::of(|_| false, "<think></think>");
        AnswerParser::new(dialect, calling, "")
    }

    fn is_end(&self, token: u32) -> bool {
        token == END
    }

    fn step(
        &mut self,
        work: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        for sample in work.rows.iter().filter_map(|row| row.sample) {
            let byte = self.0.as_bytes().get(usize::try_from(sample.step).unwrap());
            out.push(Some(byte.map_or(END, |&byte| u32::from(byte)).into()));
        }
        Ok(())
    }

    fn release(&mut self, _slot: RowSlot) {}

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

/// All that a job said, in one delta, and how it ended.
fn answer(text: &'static str, extra: &str) -> (Delta, Finished) {
    let config = EngineConfig::reference(1 << 20, Seed::from_number(1));
    let (events, heard) = channel();
    let engine = Engine::start(
        &config,
        move || Ok::<_, Infallible>(Says(text)),
        move |event| drop(events.send(event)),
    )
    .unwrap();
    let tools = r#""tools":[{"type":"function","function":{"name":"w"}}]"#;
    let body = format!(r#"{{"messages":[{{"role":"user","content":""}}],{tools}{extra}}}"#);
    let (id, body) = (RowId(1), body.into_bytes());
    engine
        .submit(Job {
            id,
            body,
            scope: None,
        })
        .unwrap();
    engine.stop();
    let mut whole = Delta::default();
    for event in heard {
        match event {
            Event::Accepted { .. } => {}
            Event::Delta { delta, .. } => {
                assert!(!delta.is_empty(), "a delta says something");
                whole.reasoning += &delta.reasoning;
                whole.content += &delta.content;
                whole.calls.extend(delta.calls);
            }
            Event::Finished(finished) => return (whole, finished),
            Event::Failed { failure, .. } => panic!("{failure}"),
        }
    }
    panic!("every job ends");
}

const CALLS: &str = "<think>hm</think>Look.\n<tool_call>{\"name\":\"w\"}</tool_call>\
                     <tool_call>{\"name\":\"w\",\"arguments\":{\"q\":1}}</tool_call>";

#[test]
fn thoughts_and_calls_are_told_apart_and_the_end_says_that_there_were_calls() {
    let (said, finished) = answer(CALLS, "");
    assert_eq!(
        (said.reasoning.as_str(), said.content.as_str()),
        ("hm", "Look.")
    );
    assert_eq!(finished.reason, FinishReason::ToolCalls);
    let calls: Vec<(u32, &str)> = said
        .calls
        .iter()
        .map(|call| (call.index, call.arguments.as_str()))
        .collect();
    assert_eq!(calls, [(0, "{}"), (1, "{\"q\":1}")]);
    assert_ne!(said.calls[0].id, said.calls[1].id);
    assert!(
        said.calls
            .iter()
            .all(|call| call.id.starts_with("call_") && call.name == "w")
    );
    let thought = u32::try_from("hm</think>".len()).unwrap();
    assert_eq!(finished.usage.reasoning_tokens, thought);
}

#[test]
fn a_call_cut_by_the_bound_is_text_and_the_end_is_the_bound() {
    let (said, finished) = answer(CALLS, r#","max_tokens":50"#);
    assert_eq!(finished.reason, FinishReason::Length);
    assert!(said.calls.is_empty());
    assert!(
        said.content.starts_with("Look.<tool_call>{"),
        "{}",
        said.content
    );
}

#[test]
fn a_caller_who_wants_no_calls_gets_the_text() {
    let (said, finished) = answer(CALLS, r#","tool_choice":"none""#);
    assert_eq!(finished.reason, FinishReason::Stop);
    assert!(said.calls.is_empty() && said.content.contains("<tool_call>"));
}
