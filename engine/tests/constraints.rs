//! How the engine's thread holds answers to their forms: row by row, and never their thoughts.

#[path = "support/start.rs"]
mod start;

use std::sync::Arc;

use cereus_core::draw::Seed;
use cereus_engine::chat::{ChatRequest, Format};
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::grammar::{Constraint, Grammars, Place};
use cereus_engine::kv::Scope;
use cereus_engine::runtime::{
    Backend, EngineConfig, Event, Job, Limits, Memory, StepError, StepWork,
};
use cereus_engine::sampling::{Chosen, Sampler, TokenMask};
use cereus_engine::scheduler::{RowId, RowSlot};
use cereus_engine::text::{AnswerParser, Calling, Dialect, Vocabulary};
use start::start;

const END: u32 = 128;
const WORDS: usize = 5;

/// Wants to say a text, a byte per token, and says what its constraint leaves of it.
struct Wants(&'static str);

impl Vocabulary for Wants {
    fn decode(&self, tokens: &[u32]) -> String {
        let bytes = tokens.iter().map(|token| token.to_le_bytes()[0]);
        String::from_utf8(bytes.collect()).unwrap()
    }
}

impl Backend for Wants {
    fn limits(&self) -> Limits {
        Limits {
            context_tokens: 256,
            kv_bytes_per_token: 1,
            step_tokens_useful: u32::MAX,
        }
    }

    fn prompt(&self, _request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        Ok(vec![0])
    }

    fn parser(&self, request: &ChatRequest, _prompt: &[u32]) -> AnswerParser {
        let tail = match request.template.thinking {
            Some(true) => "<think>",
            None | Some(false) => "",
        };
        AnswerParser::new(Dialect::of(|_| false, "</think>"), Calling::No, tail)
    }

    fn grammars(&self) -> Option<Arc<dyn Grammars>> {
        Some(Arc::new(Digits))
    }

    fn is_end(&self, token: u32) -> bool {
        token == END
    }

    fn ends(&self) -> Vec<u32> {
        vec![END]
    }

    fn step(
        &mut self,
        work: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        for sample in work.rows.iter().filter_map(|row| row.sample) {
            let mut logits = vec![0.0; WORDS * 32];
            let byte = self.0.as_bytes().get(usize::try_from(sample.step).unwrap());
            logits[byte.map_or(128, |&byte| usize::from(byte))] = 1.0;
            out.push(Sampler::default().choose(&sample, &logits));
        }
        Ok(())
    }

    fn release(&mut self, _slot: RowSlot) {}

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

fn refusal() -> Failure {
    Failure::new(Reason::ClientError, "no schema is taken here")
}

/// Knows JSON as digits, and no schema.
#[derive(Debug)]
struct Digits;

impl Grammars for Digits {
    fn compile(
        &self,
        request: &ChatRequest,
        _scope: Option<&Scope>,
    ) -> Result<Box<dyn Constraint>, Failure> {
        match request.format {
            Format::Json => Ok(Box::new(Walk::new(3))),
            Format::Text => Ok(Box::new(Walk::new(0))),
            Format::Choice(_) | Format::Regex(_) | Format::Schema(_) => Err(refusal()),
        }
    }
}

/// So many digits and then the end; of none, nothing can come.
#[derive(Debug)]
struct Walk {
    digits_left: u32,
    is_lost: bool,
    masks: [[u32; WORDS]; 3],
}

impl Walk {
    fn new(digits: u32) -> Self {
        let mut masks = [[0; WORDS]; 3];
        masks[0][usize::from(b'0') / 32] = 0x3ff << (b'0' % 32);
        masks[1][usize::try_from(END).unwrap() / 32] = 1;
        masks[2] = [u32::MAX; WORDS];
        Self {
            digits_left: digits,
            is_lost: digits == 0,
            masks,
        }
    }
}

impl Constraint for Walk {
    fn allowed(&self, place: Place) -> TokenMask<'_> {
        TokenMask(match (place, self.digits_left, self.is_lost) {
            (Place::Thought, _, _) => &self.masks[2],
            (Place::Answer, _, true) => &[],
            (Place::Answer, 0, false) => &self.masks[1],
            (Place::Answer, _, false) => &self.masks[0],
        })
    }

    fn push(&mut self, _token: u32, place: Place) {
        if place == Place::Answer {
            self.digits_left = self.digits_left.saturating_sub(1);
        }
    }

    fn is_lost(&self) -> bool {
        self.is_lost
    }
}

/// What each job said, or why it failed; all of them run together.
fn answers(wants: &'static str, extras: &[&str]) -> Vec<Result<(String, String), Failure>> {
    let config = EngineConfig::reference(1 << 20, Seed::from_number(1));
    let (engine, heard) = start(&config, Wants(wants));
    for (id, extra) in (0..).zip(extras) {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":""}}],"temperature":0,
                "tools":[{{"type":"function","function":{{"name":"f"}}}}]{extra}}}"#
        );
        let job = Job {
            id: RowId(id),
            body: body.into_bytes(),
            scope: None,
        };
        engine.submit(job).unwrap();
    }
    engine.stop();
    let mut answers = vec![Ok((String::new(), String::new())); extras.len()];
    for event in heard {
        match event {
            Event::Delta { id, delta } => {
                let answer = answers[usize::try_from(id.0).unwrap()].as_mut().unwrap();
                answer.0 += &delta.reasoning;
                answer.1 += &delta.content;
            }
            Event::Failed { id, failure } => {
                answers[usize::try_from(id.0).unwrap()] = Err(failure);
            }
            Event::Accepted { .. } | Event::Finished(_) => {}
        }
    }
    answers
}

const JSON: &str = r#","response_format":{"type":"json_object"}"#;
const SCHEMA: &str = r#","response_format":{"type":"json_schema","json_schema":{"schema":{}}}"#;
const REQUIRED: &str = r#","tool_choice":"required""#;

fn said(thought: &str, text: &str) -> Result<(String, String), Failure> {
    Ok((thought.to_owned(), text.to_owned()))
}

#[test]
fn a_form_binds_its_own_row_and_no_other() {
    let answers = answers("a1b", &["", JSON, ""]);
    // Where the wish is forbidden all that is allowed is alike, and the first is taken.
    assert_eq!(answers, [said("", "a1b"), said("", "010"), said("", "a1b")]);
}

#[test]
fn an_answer_ends_no_sooner_than_its_least_length() {
    let table = [
        ("", "ab"),
        (r#","min_tokens":2"#, "ab"),
        // The next likeliest comes in place of the end.
        (r#","min_tokens":4"#, "ab\0\0"),
        (r#","min_tokens":2,"stop":["a","b"]"#, "a"),
        (r#","stop_token_ids":[98]"#, "a"),
        (r#","stop_token_ids":[98],"ignore_eos":true"#, "a"),
        (r#","stop_token_ids":[97],"min_tokens":1"#, "\0b"),
    ];
    let answers = answers("ab", &table.map(|(extra, _)| extra));
    assert_eq!(answers, table.map(|(_, text)| said("", text)));
}

#[test]
fn a_thought_has_no_form() {
    let thinking = format!(r#"{JSON},"enable_thinking":true"#);
    let answers = answers("hm</think>7x", &[&thinking, r#","enable_thinking":true"#]);
    assert_eq!(answers, [said("hm", "700"), said("hm", "7x")]);
}

#[test]
fn a_form_that_is_not_taken_refuses_its_request_alone() {
    let answers = answers("ab", &[SCHEMA, ""]);
    assert_eq!(answers[0], Err(refusal()));
    assert_eq!(answers[1], said("", "ab"));
}

#[test]
fn a_row_that_lost_its_way_fails_alone_and_says_what_to_change() {
    let answers = answers("ab", &[REQUIRED, ""]);
    let failure = answers[0].clone().unwrap_err();
    assert_eq!(failure.reason, Reason::ClientError);
    assert!(failure.text.contains("simplify"), "{failure}");
    assert_eq!(answers[1], said("", "ab"));
}
