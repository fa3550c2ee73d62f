//! What the engine's thread makes of an answer's text: thoughts, calls, and why it ended.

#[path = "support/start.rs"]
mod start;

use cereus_core::draw::Seed;
use cereus_engine::chat::ChatRequest;
use cereus_engine::failure::Failure;
use cereus_engine::runtime::{
    Backend, BegunCall, Delta, EngineConfig, Event, FinishReason, Finished, Job, Limits, Memory,
    StepError, StepWork,
};
use cereus_engine::sampling::Chosen;
use cereus_engine::scheduler::{RowId, RowSlot};
use cereus_engine::text::{AnswerParser, Calling, Dialect, Vocabulary};
use start::start;

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
        let calling = Calling::of(&request.tools);
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
    let (deltas, finished) = deltas(text, extra);
    let mut whole = Delta::default();
    for delta in deltas {
        append(&mut whole, delta);
    }
    (whole, finished)
}

/// Adds what came later.
fn append(whole: &mut Delta, later: Delta) {
    whole.reasoning += &later.reasoning;
    whole.content += &later.content;
    whole.logprobs.extend(later.logprobs);
    for piece in later.calls {
        match whole.calls.last_mut() {
            Some(last) if piece.begun.is_none() && last.index == piece.index => {
                last.arguments += &piece.arguments;
            }
            Some(_) | None => whole.calls.push(piece),
        }
    }
}

/// What each step added, and how the job ended.
fn deltas(text: &'static str, extra: &str) -> (Vec<Delta>, Finished) {
    let config = EngineConfig::reference(1 << 20, Seed::from_number(1));
    let (engine, heard) = start(&config, Says(text));
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
    let mut deltas = vec![];
    for event in heard {
        match event {
            Event::Accepted { .. } => {}
            Event::Delta { delta, .. } => {
                assert!(!delta.is_empty(), "a delta says something");
                deltas.push(delta);
            }
            Event::Finished(finished) => return (deltas, finished),
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
    let begun: Vec<&BegunCall> = said
        .calls
        .iter()
        .filter_map(|call| call.begun.as_ref())
        .collect();
    assert_ne!(begun[0].id, begun[1].id);
    assert!(
        begun
            .iter()
            .all(|call| call.id.starts_with("call_") && call.name == "w")
    );
    let thought = u32::try_from("hm</think>".len()).unwrap();
    assert_eq!(finished.usage.reasoning_tokens, thought);
}

#[test]
fn nothing_of_a_call_cut_by_the_bound_is_text_and_the_end_is_the_bound() {
    // In the opening mark, in the call's body, and in the closing mark behind a whole call.
    for (bound, calls) in [(28, 0), (40, 0), (50, 1)] {
        let (said, finished) = answer(CALLS, &format!(r#","max_tokens":{bound}"#));
        assert_eq!(finished.reason, FinishReason::Length, "{bound}");
        assert_eq!(said.content, "Look.", "{bound}");
        let begun = said.calls.iter().filter(|call| call.begun.is_some());
        assert_eq!(begun.count(), calls, "{bound}");
    }
}

#[test]
fn a_call_that_the_model_leaves_open_is_ended_and_one_that_the_bound_cuts_is_not() {
    let open = "<tool_call>{\"name\":\"w\",\"arguments\":{\"q\":\"a\nb";
    let (said, finished) = answer(open, "");
    assert_eq!(finished.reason, FinishReason::ToolCalls);
    assert_eq!(said.calls[0].arguments, "{\"q\":\"a\\nb\"}");
    let bound = format!(r#","max_tokens":{}"#, open.len());
    let (said, finished) = answer(open, &bound);
    assert_eq!(finished.reason, FinishReason::Length);
    assert_eq!(said.calls[0].arguments, "{\"q\":\"a\\nb");
}

#[test]
fn a_caller_who_wants_no_calls_gets_the_text() {
    let (said, finished) = answer(CALLS, r#","tool_choice":"none""#);
    assert_eq!(finished.reason, FinishReason::Stop);
    assert!(said.calls.is_empty() && said.content.contains("<tool_call>"));
}

#[test]
fn stop_strings_count_in_what_is_said_and_not_in_thoughts_or_arguments() {
    let stop = r#","stop":["\n\n"]"#;
    let (said, finished) = answer("<think>one\n\ntwo</think>three\n\nfour", stop);
    assert_eq!(
        (said.reasoning.as_str(), said.content.as_str()),
        ("one\n\ntwo", "three")
    );
    assert_eq!(finished.reason, FinishReason::Stop);
    let called = "<tool_call>{\"name\":\"w\",\"arguments\":{\n\n\"q\":1}}</tool_call>";
    let (said, finished) = answer(called, stop);
    assert_eq!(said.calls[0].arguments, "{\n\n\"q\":1}");
    assert_eq!(finished.reason, FinishReason::ToolCalls);
}

#[test]
fn an_answer_that_may_hold_one_call_ends_with_it() {
    let (said, finished) = answer(CALLS, r#","parallel_tool_calls":false"#);
    assert_eq!(said.calls.len(), 1);
    assert_eq!(said.calls[0].arguments, "{}");
    assert_eq!(finished.reason, FinishReason::ToolCalls);
    let first_end = CALLS.find("</tool_call>").unwrap() + "</tool_call>".len();
    let tokens = u32::try_from(first_end).unwrap();
    assert_eq!(finished.usage.completion_tokens, tokens);
}

#[test]
fn the_arguments_of_a_call_stream_as_they_come() {
    let json =
        "<tool_call>\n{\"name\": \"w\", \"arguments\": {\"q\": \"0123456789\"}}\n</tool_call>";
    let tags = "<tool_call>\n<function=w>\n<parameter=q>\n0123456789\n</parameter>\n</function>\n\
                </tool_call>";
    for (text, arguments) in [
        (json, "{\"q\": \"0123456789\"}"),
        (tags, "{\"q\":\"0123456789\"}"),
    ] {
        let (deltas, _) = deltas(text, "");
        let pieces: Vec<_> = deltas.iter().flat_map(|delta| &delta.calls).collect();
        assert!(pieces.len() > 10, "{} pieces", pieces.len());
        assert_eq!(pieces[0].begun.as_ref().unwrap().name, "w");
        assert!(pieces[1..].iter().all(|piece| piece.begun.is_none()));
        let all: String = pieces
            .iter()
            .map(|piece| piece.arguments.as_str())
            .collect();
        assert_eq!(all, arguments);
    }
}
