//! Random answers under grammars, with a vocabulary of bytes, a few words, and every mark.

mod calls;
mod hostile;

use serde_json::Value;

use super::*;
use crate::chat::{Format, Json};
use crate::grammar::Place;
use crate::sampling::TokenMask;
use crate::text::{AnswerParser, Called, Calling, Dialect, Said, TextEnd, WrittenCall};

const END: u32 = 256;
const WORDS: [&str; 8] = [
    "{\"",
    "\":",
    "\"}",
    "true",
    "\n</parameter>\n",
    "<escape>",
    "<tool_call>",
    "<start_function_call>",
];
const MARKS: [&str; 17] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|tool_call>",
    "<tool_call|>",
    "<|\"|>",
    "<|channel>",
    "<channel|>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<|end|>",
    "<|python_tag|>",
];
/// More than any of these answers has, if it ends at all.
const STEPS_MAX: usize = 60_000;

fn mark_id(mark: &str) -> Option<u32> {
    let place = MARKS.iter().position(|it| *it == mark)?;
    u32::try_from(257 + WORDS.len() + place).ok()
}

/// The bytes of each token, for the reader of an answer.
fn vocabulary() -> Vec<Vec<u8>> {
    let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
    let words = WORDS.iter().map(|word| word.as_bytes().to_vec());
    let marks = MARKS.iter().map(|mark| mark.as_bytes().to_vec());
    bytes.chain([vec![]]).chain(words).chain(marks).collect()
}

/// A compiler for a family whose vocabulary has these marks alone as tokens.
fn compiler(template: &str, marks: &[&str]) -> (Compiler, Dialect) {
    let id = |mark: &str| marks.contains(&mark).then(|| mark_id(mark)).flatten();
    let dialect = Dialect::of(|mark| id(mark).is_some(), template);
    let family = Family::new(dialect, template, id);
    // Marks of other families are no text either.
    let words = || {
        let mut words = vocabulary();
        for id in MARKS.iter().filter_map(|mark| mark_id(mark)) {
            words[id as usize].clear();
        }
        Some(words)
    };
    (Compiler::new(family, vec![END], words), dialect)
}

fn request(extra: &str) -> ChatRequest {
    let body = format!(r#"{{"messages":[{{"role":"user","content":""}}]{extra}}}"#);
    ChatRequest::from_json(body.as_bytes()).unwrap()
}

/// Past the core, which refuses some schemas by itself.
fn with_schema(schema: &str) -> ChatRequest {
    let mut request = request("");
    request.format = Format::Schema(Json::from_text(schema.to_owned()).unwrap());
    request
}

fn tokens(mask: TokenMask<'_>) -> Vec<u32> {
    let count = u32::try_from(mask.0.len() * 32).unwrap();
    (0..count)
        .filter(|id| mask.0[*id as usize / 32] & (1 << (id % 32)) != 0)
        .collect()
}

fn push_text(constraint: &mut dyn Constraint, text: &str) {
    for byte in text.bytes() {
        let allowed = tokens(constraint.allowed(Place::Answer));
        assert!(allowed.contains(&u32::from(byte)), "{text} at {byte}");
        constraint.push(u32::from(byte), Place::Answer);
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % end as u64).unwrap()
    }
}

/// Any answer that the grammar allows, by the dice.
fn random_answer(compiler: &Compiler, request: &ChatRequest, dice: &mut Dice) -> String {
    let mut constraint = compiler.compile(request, None).unwrap_or_else(|failure| {
        let lark = answer::write(request, &compiler.family).unwrap();
        let why = compile(&compiler.factory().unwrap().parsers, &lark).err();
        panic!("{failure}: {why:?} in\n{}", lark.rules)
    });
    let words = vocabulary();
    let mut answer = vec![];
    for _ in 0..STEPS_MAX {
        let mut allowed = tokens(constraint.allowed(Place::Answer));
        assert!(!allowed.is_empty() && !constraint.is_lost());
        // Among so many bytes a text would never end: what closes one is likelier.
        let closing = |id: &u32| *id >= END || b"\"}]".iter().any(|it| u32::from(*it) == *id);
        if dice.below(3) == 0 && allowed.iter().any(closing) {
            allowed.retain(closing);
        }
        let token = allowed[dice.below(allowed.len())];
        if token == END {
            return String::from_utf8(answer).expect("answers are text");
        }
        answer.extend_from_slice(&words[token as usize]);
        constraint.push(token, Place::Answer);
    }
    panic!("no end: {}", String::from_utf8_lossy(&answer));
}

const PERSON: &str = r##"{"type":"object","properties":{
    "name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,"maximum":120},
    "tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":3},
    "boss":{"anyOf":[{"$ref":"#/$defs/boss"},{"type":"null"}]}},
    "required":["name","age","boss"],"additionalProperties":false,
    "$defs":{"boss":{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}}}"##;

fn check_person(person: &Value) {
    assert!(person["name"].as_str().unwrap().chars().count() <= 8);
    assert!(person["age"].as_u64().unwrap() <= 120);
    assert!(person["boss"].is_null() || person["boss"]["id"].is_number());
    if let Some(tags) = person.get("tags") {
        let tags = tags.as_array().unwrap();
        assert!(tags.len() <= 3 && tags.iter().all(|it| it == "a" || it == "b"));
    }
    let known = ["name", "age", "tags", "boss"];
    let members = person.as_object().unwrap();
    assert!(members.keys().all(|name| known.contains(&name.as_str())));
}

#[test]
fn words_and_patterns_are_said_to_the_letter() {
    let table = [
        (
            r#","guided_choice":["yes","no / never","\"quoted\"\n"]"#,
            "words",
        ),
        (r#","guided_regex":"[a-c]{2,3}/\\d+\\.(x|y)""#, "pattern"),
    ];
    let is_right = |kind: &str, said: &str| match kind {
        "words" => ["yes", "no / never", "\"quoted\"\n"].contains(&said),
        _ => {
            let (head, tail) = said.split_once('/').unwrap();
            let digits = tail.strip_suffix(".x").or_else(|| tail.strip_suffix(".y"));
            (2..=3).contains(&head.len())
                && head.chars().all(|char| ('a'..='c').contains(&char))
                && digits.is_some_and(|it| !it.is_empty() && it.chars().all(char::is_numeric))
        }
    };
    let (compiler, _) = compiler("", &[]);
    for (extra, kind) in table {
        let request = request(extra);
        let mut all = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let answer = random_answer(&compiler, &request, &mut Dice(seed));
            assert!(is_right(kind, &answer), "{kind}: {answer:?}");
            all.insert(answer);
        }
        assert!(all.len() > 1, "{kind}: {all:?}");
    }
    let broken = compiler.compile(&request(r#","guided_regex":"(""#), None);
    let failure = broken.unwrap_err();
    assert!(failure.text.starts_with("guided_regex"), "{failure}");
}

#[test]
fn a_word_may_hold_any_character_for_control() {
    let (compiler, _) = compiler("", &[]);
    for control in (0..=0x1f).chain([0x7f]).map(char::from) {
        let word = format!("a{control}b");
        let choice = serde_json::to_string(&[&word]).unwrap();
        let request = request(&format!(r#","guided_choice":{choice}"#));
        assert_eq!(random_answer(&compiler, &request, &mut Dice(1)), word);
    }
}

/// What the core refuses before any machine is asked is what no grammar can be made of.
#[test]
fn keywords_that_are_refused_by_name_are_those_that_cannot_be_compiled() {
    let (compiler, _) = compiler("", &[]);
    for keyword in cereus_core::api::UNSUPPORTED_KEYWORDS {
        let request = with_schema(&format!(
            r#"{{"type":["object","array"],"{keyword}":{{}}}}"#
        ));
        let failure = compiler.compile(&request, None).unwrap_err();
        assert!(failure.text.contains(keyword), "{failure}");
    }
}

#[test]
fn the_whole_mask_is_right_at_the_start_and_only_an_end_comes_after_the_end() {
    let (compiler, _) = compiler("", &[]);
    let schema = r#"{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],
        "additionalProperties":false}"#;
    let mut constraint = compiler.compile(&with_schema(schema), None).unwrap();
    let allowed = |constraint: &dyn Constraint| tokens(constraint.allowed(Place::Answer));
    let id = |text: &str| {
        let at = vocabulary().iter().position(|word| word == text.as_bytes());
        u32::try_from(at.unwrap()).unwrap()
    };
    // Blanks, the brace, and the word that goes on with the quotation mark.
    let mut start = vec![id("\n"), id(" "), id("{"), id("{\"")];
    start.sort_unstable();
    assert_eq!(allowed(&*constraint), start);
    push_text(&mut *constraint, r#"{"a":1"#);
    assert!(!allowed(&*constraint).contains(&END));
    push_text(&mut *constraint, "}");
    for _ in 0..3 {
        assert_eq!(allowed(&*constraint), [END]);
        constraint.push(END, Place::Answer);
    }
    assert!(!constraint.is_lost());
}

#[test]
fn answers_under_a_schema_fit_it() {
    let (compiler, _) = compiler("", &[]);
    let request = with_schema(PERSON);
    for seed in 0..40 {
        let answer = random_answer(&compiler, &request, &mut Dice(seed));
        check_person(&serde_json::from_str(&answer).unwrap());
    }
}

#[test]
fn json_without_a_schema_is_an_object() {
    let (compiler, _) = compiler("", &[]);
    let request = request(r#","response_format":{"type":"json_object"}"#);
    for seed in 0..20 {
        let answer = random_answer(&compiler, &request, &mut Dice(seed));
        let value: Value = serde_json::from_str(&answer).unwrap();
        assert!(value.is_object());
    }
}

#[test]
fn a_thought_may_come_first_and_has_no_form_but_no_end_either() {
    let (compiler, _) = compiler("", &["<think>", "</think>"]);
    let open = mark_id("<think>").unwrap();
    let asked = |thinking: &str| {
        let format = r#","response_format":{"type":"json_object"}"#;
        compiler
            .compile(&request(&format!("{format}{thinking}")), None)
            .unwrap()
    };
    let mut opened = asked("");
    assert!(tokens(opened.allowed(Place::Answer)).contains(&open));
    opened.push(open, Place::Answer);
    let all = tokens(opened.allowed(Place::Thought));
    assert_eq!(all.len(), vocabulary().len() - 1);
    assert!(!all.contains(&END));
    opened.push(u32::from(b'x'), Place::Thought);
    opened.push(mark_id("</think>").unwrap(), Place::Thought);
    // Not twice.
    assert!(!tokens(opened.allowed(Place::Answer)).contains(&open));
    push_text(&mut *opened, "\n\n{}");
    assert_eq!(tokens(opened.allowed(Place::Answer)), [END]);

    let mut unopened = asked("");
    push_text(&mut *unopened, "{");
    assert!(!tokens(unopened.allowed(Place::Answer)).contains(&open));
    let never = asked(r#","enable_thinking":false"#);
    assert!(!tokens(never.allowed(Place::Answer)).contains(&open));
}

#[test]
fn a_form_that_was_compiled_is_kept_and_copies_do_not_see_one_another() {
    let (compiler, _) = compiler("", &[]);
    let request = with_schema(PERSON);
    let scope = Scope::new(b"one");
    let mut first = compiler.compile(&request, scope.as_ref()).unwrap();
    push_text(&mut *first, r#"{"name":"x","#);
    let second = compiler.compile(&request, scope.as_ref()).unwrap();
    assert_eq!(compiler.cache().len(), 1);
    assert!(tokens(second.allowed(Place::Answer)).contains(&u32::from(b'{')));
    for ix in 0..100 {
        let schema = format!(r#"{{"const":{ix}}}"#);
        compiler
            .compile(&with_schema(&schema), scope.as_ref())
            .unwrap();
    }
    assert_eq!(compiler.cache().len(), 32);
}

/// ENG-10.
#[test]
fn a_form_is_kept_for_the_tenant_who_asked_for_it_and_for_nobody_else() {
    let (compiler, _) = compiler("", &[]);
    let request = with_schema(PERSON);
    let kept = |scope: &[u8]| {
        compiler
            .compile(&request, Scope::new(scope).as_ref())
            .unwrap();
        compiler.cache().len()
    };
    assert_eq!([b"", b""].map(|none| kept(none)), [0, 0]);
    assert_eq!([b"one", b"two", b"one"].map(|scope| kept(scope)), [1, 2, 2]);
}

#[test]
fn a_vocabulary_that_is_not_understood_is_said_and_nothing_else_breaks() {
    let family = Family::new(Dialect::of(|_| false, ""), "", |_| None);
    let compiler = Compiler::new(family, vec![0], || None);
    let failure = compiler.compile(&with_schema("{}"), None).unwrap_err();
    assert_eq!(failure.reason, Reason::ClientError);
    assert!(failure.text.contains("vocabulary"), "{failure}");
}
