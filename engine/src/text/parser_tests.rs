//! Every example in every cut: the pieces in which a text comes change nothing of what is read.

use proptest::prelude::*;

use super::dialect::{CallFormat, Dialect, Marks};
use super::{AnswerParser, CALL_BYTES_MAX, Called, Calling, Said, TextEnd};
use crate::chat::ChatRequest;

const THINK: Option<Marks> = Some(Marks {
    open: "<think>",
    close: "</think>",
});

pub(super) struct Example {
    pub(super) calls: CallFormat,
    pub(super) reasoning: Option<Marks>,
    pub(super) prompt_tail: &'static str,
    pub(super) text: &'static str,
    pub(super) thought: &'static str,
    pub(super) said: &'static str,
    pub(super) called: &'static [(&'static str, &'static str)],
}

pub(super) const PLAIN: Example = Example {
    calls: CallFormat::Tagged,
    reasoning: THINK,
    prompt_tail: "assistant\n",
    text: "",
    thought: "",
    said: "",
    called: &[],
};

const EXAMPLES: &[Example] = &[
    Example {
        text: "just text, 1 < 2 🐕\n",
        said: "just text, 1 < 2 🐕\n",
        ..PLAIN
    },
    Example {
        text: "<think>\nhm, é\n\nso\n</think>\n\nYes.\n",
        thought: "hm, é\n\nso",
        said: "Yes.\n",
        ..PLAIN
    },
    Example {
        prompt_tail: "<think>\n",
        text: "primed</think>Yes",
        thought: "primed",
        said: "Yes",
        ..PLAIN
    },
    Example {
        prompt_tail: "<think>\n",
        text: "never closed\n",
        thought: "never closed",
        ..PLAIN
    },
    Example {
        text: "a </think b <thin c",
        said: "a </think b <thin c",
        ..PLAIN
    },
    Example {
        text: "I look.\n<tool_call>\n{\"name\": \"w\", \"arguments\": {\"q\": \"ä <tool_\"}}\n\
               </tool_call>\n<tool_call>{\"name\":\"x\"}</tool_call>",
        said: "I look.",
        called: &[("w", "{\"q\": \"ä <tool_\"}"), ("x", "{}")],
        ..PLAIN
    },
    Example {
        text: "<think>a</think>\n<tool_call>{\"name\":\"w\",\"arguments\":\"{\\\"q\\\":1}\"}",
        thought: "a",
        called: &[("w", "{\"q\":1}")],
        ..PLAIN
    },
    Example {
        text: "see <tool_call>no json</tool_call> there",
        said: "see <tool_call>no json</tool_call> there",
        ..PLAIN
    },
    Example {
        text: "<tool_call>\n<function=w>\n<parameter=q>\n2\n</parameter>\n<parameter=s>\n2\nb\n\
               </parameter>\n<parameter=flag>True</parameter>\n</function>\n</tool_call>",
        called: &[("w", "{\"q\":2,\"s\":\"2\\nb\",\"flag\":true}")],
        ..PLAIN
    },
    Example {
        text: "<tool_call><function=w><parameter=n>5</parameter><parameter=e>5</parameter>\
               <parameter=s>null</parameter><parameter=t>null</parameter><parameter=s>[1, 2]\
               </parameter><parameter=t>\n\n\"a\\\n</para\n\n</parameter></function></tool_call>x",
        called: &[(
            "w",
            "{\"n\":5,\"e\":5,\"s\":null,\"t\":\"null\",\"s\":\"[1, 2]\",\
             \"t\":\"\\n\\\"a\\\\\\n</para\\n\"}",
        )],
        said: "x",
        ..PLAIN
    },
    Example {
        text: "<tool_call><function=w><parameter=t>a</parameter></tool_call>",
        called: &[("w", "{\"t\":\"a\"}")],
        ..PLAIN
    },
    Example {
        text: "<tool_call>{\"arguments\":{\"q\":1},\"name\":\"w\"}</tool_call>",
        called: &[("w", "{\"q\":1}")],
        ..PLAIN
    },
    Example {
        text: "<tool_call>{\"name\":\"w\",\"arguments\":{\"q\":[{}]},\"x\":{}}}; {\"name\":\"w\"}\
               </tool_call>",
        called: &[("w", "{\"q\":[{}]}")],
        ..PLAIN
    },
    Example {
        text: "Write <think> to think.",
        said: "Write <think> to think.",
        ..PLAIN
    },
    Example {
        text: "\n<think>a</think>b <think>c</think>",
        thought: "a",
        said: "b <think>c</think>",
        ..PLAIN
    },
    Example {
        text: "<tool_call>{\"name\":\"w\",\"arguments\":{}}</tool_call><think>",
        said: "<think>",
        called: &[("w", "{}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Llama,
        reasoning: None,
        text: "<|python_tag|>{\"name\": \"w\", \"parameters\": {\"q\": 1}}; {\"name\":\"x\",\
               \"parameters\":{}}",
        called: &[("w", "{\"q\": 1}"), ("x", "{}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Llama,
        reasoning: None,
        text: "{\"q\": 1} is JSON",
        said: "{\"q\": 1} is JSON",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Llama,
        reasoning: None,
        text: " <|pyt {\"name\":\"w\"}",
        said: " <|pyt {\"name\":\"w\"}",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Llama,
        reasoning: None,
        text: "{\"name\": \"Ada\", \"parameters\": {\"age\": 5}}",
        said: "{\"name\": \"Ada\", \"parameters\": {\"age\": 5}}",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Llama,
        reasoning: None,
        text: "{\"parameters\": {\"age\": 5}, \"name\": \"Ada\"}",
        said: "{\"parameters\": {\"age\": 5}, \"name\": \"Ada\"}",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Llama,
        reasoning: None,
        text: "{\"name\": \"w\", \"parameters\": {}}; {\"name\": \"Ada\", \"parameters\": {}}",
        said: "; {\"name\": \"Ada\", \"parameters\": {}}",
        called: &[("w", "{}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Mistral,
        text: "Ok\n[TOOL_CALLS]w[ARGS]{\"q\": [1]}[TOOL_CALLS]x[CALL_ID]7[ARGS]{}",
        said: "Ok",
        called: &[("w", "{\"q\": [1]}"), ("x", "{}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Mistral,
        text: "[TOOL_CALLS] [{\"name\":\"w\",\"arguments\":{\"q\":1}}]",
        called: &[("w", "{\"q\":1}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Gemma,
        reasoning: Some(Marks {
            open: "<|channel>thought",
            close: "<channel|>",
        }),
        text: "<|channel>thought\nhm<channel|><|tool_call>call:w{a:{b:[1,<|\"|>x, }<|\"|>]},c:true,\
               d:word}<tool_call|>",
        thought: "hm",
        called: &[(
            "w",
            "{\"a\":{\"b\":[1,\"x, }\"]},\"c\":true,\"d\":\"word\"}",
        )],
        ..PLAIN
    },
    Example {
        calls: CallFormat::FunctionGemma,
        reasoning: None,
        text: "<start_function_call>call:w{q:<escape>a \"b\"<escape>,n:3}<end_function_call>",
        called: &[("w", "{\"q\":\"a \\\"b\\\"\",\"n\":3}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>analysis<|message|>hm <|x<|end|><|start|>assistant<|channel|>final\
               <|message|>Yes\n",
        thought: "hm <|x",
        said: "Yes\n",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary \
               to=functions.w <|constrain|>json<|message|>{\"q\": 1}<|call|>",
        thought: "a",
        called: &[("w", "{\"q\": 1}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|start|>assistant to=functions.w<|channel|>commentary<|message|>{}",
        called: &[("w", "{}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>??<|end|><|start|>assistant<|channel|>analysis<|message|>hm<|end|>\
               <|start|>assistant<|channel|>final<|message|>Yes",
        thought: "hm",
        said: "Yes",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>commentary to=assistant<|channel|>analysis<|message|>hm<|end|>\
               <|start|>assistant<|channel|>analysis<|end|>\
               <|start|>assistant<|channel|>final<|message|>Yes",
        thought: "hm",
        said: "Yes",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>commentary to=functions.w<|end|>\
               <|start|>assistant<|channel|>final<|message|>Yes",
        said: "Yes",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>commentary to=functions.w <|constrain|>json<|message|> <|call|>\
               <|channel|>commentary to=functions.x<|message|>",
        called: &[("w", "{}"), ("x", "{}")],
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "no harmony at all",
        said: "no harmony at all",
        ..PLAIN
    },
    Example {
        calls: CallFormat::Harmony,
        text: "<|channel|>commentary to=functions.w<|message|>not json<|call|>",
        said: "not json",
        ..PLAIN
    },
];

pub(super) fn calling() -> Calling {
    let body = r#"{"messages":[{"role":"user","content":""}],"tools":[{"type":"function",
        "function":{"name":"w","parameters":{"properties":{"q":{"type":"integer"},
        "s":{"type":["string","null"]},"flag":{"type":"boolean"},
        "n":{"anyOf":[{"type":"integer"},{"type":"null"}]},"e":{"enum":[5,6]},
        "t":{"type":"string"}}}}}]}"#;
    let request = ChatRequest::from_json(body.as_bytes()).unwrap();
    Calling::of(&request.tools)
}

pub(super) fn parser(example: &Example, calling: Calling) -> AnswerParser {
    let dialect = Dialect {
        reasoning: example.reasoning,
        calls: example.calls,
    };
    AnswerParser::new(dialect, calling, example.prompt_tail)
}

pub(super) fn read<'a>(mut parser: AnswerParser, pieces: impl Iterator<Item = &'a str>) -> Said {
    let mut said = Said::default();
    for piece in pieces {
        parser.push(piece, &mut said);
    }
    parser.finish(TextEnd::Whole, &mut said);
    said
}

#[track_caller]
fn assert_reads(example: &Example, said: &Said) {
    let calls = Called::gathered(&said.calls);
    let called: Vec<(&str, &str)> = calls
        .iter()
        .map(|call| (call.name.as_str(), call.arguments.as_str()))
        .collect();
    assert_eq!(
        said.reasoning, example.thought,
        "thought in {:?}",
        example.text
    );
    assert_eq!(said.content, example.said, "said in {:?}", example.text);
    assert_eq!(called, example.called, "called in {:?}", example.text);
}

#[test]
fn each_example_is_read_alike_in_every_cut_in_two_and_character_by_character() {
    for example in EXAMPLES {
        let parser = || parser(example, calling());
        let text = example.text;
        for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            let (left, right) = text.split_at(cut);
            assert_reads(example, &read(parser(), [left, right].into_iter()));
        }
        let characters = text
            .char_indices()
            .map(|(at, char)| &text[at..at + char.len_utf8()]);
        assert_reads(example, &read(parser(), characters));
    }
}

#[test]
fn without_tools_a_call_is_text() {
    let example = Example {
        text: "<tool_call>{\"name\":\"w\"}</tool_call>",
        ..PLAIN
    };
    let said = read(parser(&example, Calling::No), std::iter::once(example.text));
    assert_eq!(said.content, example.text);
    assert!(said.calls.is_empty());
}

#[test]
fn thought_is_told_from_the_rest_while_it_streams() {
    let mut parser = parser(&PLAIN, Calling::No);
    let mut said = Said::default();
    assert!(!parser.is_reasoning());
    parser.push("<think>a", &mut said);
    assert!(parser.is_reasoning());
    parser.push("</thi", &mut said);
    assert!(parser.is_reasoning());
    parser.push("nk>", &mut said);
    assert!(!parser.is_reasoning());
    assert_eq!((said.reasoning.as_str(), said.content.as_str()), ("a", ""));
}

#[test]
fn a_call_that_never_ends_is_text_in_the_end_and_held_no_longer_than_its_bound() {
    let mut parser = parser(&PLAIN, calling());
    let mut said = Said::default();
    parser.push("<tool_call>", &mut said);
    let piece = "x".repeat(1_024);
    for _ in 0..=CALL_BYTES_MAX / piece.len() {
        parser.push(&piece, &mut said);
    }
    assert!(said.content.starts_with("<tool_call>xxx"));
    parser.push(
        "</tool_call><tool_call>{\"name\":\"w\"}</tool_call>",
        &mut said,
    );
    parser.finish(TextEnd::Whole, &mut said);
    assert!(said.calls.is_empty());
    assert!(
        said.content
            .ends_with("x</tool_call><tool_call>{\"name\":\"w\"}</tool_call>")
    );
}

#[test]
fn arguments_nested_without_end_are_followed_to_a_bound_and_no_further() {
    let text = format!("<|tool_call>call:w{{a:{}", "[".repeat(100_000));
    let example = Example {
        calls: CallFormat::Gemma,
        ..PLAIN
    };
    let said = read(parser(&example, calling()), std::iter::once(text.as_str()));
    let calls = Called::gathered(&said.calls);
    let (open, close) = ("[".repeat(100), "]".repeat(100));
    assert_eq!(calls[0].arguments, format!("{{\"a\":{open}null{close}}}"));
    assert_eq!(said.content, "");
}

#[test]
fn a_thought_whose_header_never_ends_is_not_shown() {
    let example = Example {
        calls: CallFormat::Harmony,
        ..PLAIN
    };
    let text = format!("<|channel|>analysis {}", "hm ".repeat(1_000));
    let said = read(parser(&example, calling()), std::iter::once(text.as_str()));
    assert_eq!((said.reasoning, said.content), (text, String::new()));
}

#[test]
fn a_long_text_in_gemmas_arguments_streams_as_json() {
    for (calls, marks, quote) in [
        (
            CallFormat::Gemma,
            ["<|tool_call>", "<tool_call|>"],
            "<|\"|>",
        ),
        (
            CallFormat::FunctionGemma,
            ["<start_function_call>", "<end_function_call>"],
            "<escape>",
        ),
    ] {
        let example = Example { calls, ..PLAIN };
        let mut parser = parser(&example, calling());
        let mut said = Said::default();
        let [open, close] = marks;
        parser.push(&format!("{open}call:w{{q:1,t:{quote}"), &mut said);
        let begun = Called::gathered(&said.calls);
        assert_eq!(begun[0].arguments, "{\"q\":1,\"t\":\"");
        for _ in 0..100 {
            let before = said.calls.len();
            parser.push("say \"ä\"\n", &mut said);
            assert!(said.calls.len() > before, "each piece is let out");
        }
        parser.push(&format!("{quote},n:null}}{close}"), &mut said);
        parser.finish(TextEnd::Whole, &mut said);
        let called = Called::gathered(&said.calls);
        let arguments: serde_json::Value = serde_json::from_str(&called[0].arguments).unwrap();
        let text = "say \"ä\"\n".repeat(100);
        let expected = serde_json::json!({"q": 1, "t": text, "n": null});
        assert_eq!(arguments, expected);
        assert_eq!(said.content, "");
    }
}

pub(super) fn any_format() -> impl Strategy<Value = CallFormat> {
    prop_oneof![
        Just(CallFormat::FunctionGemma),
        Just(CallFormat::Gemma),
        Just(CallFormat::Harmony),
        Just(CallFormat::Llama),
        Just(CallFormat::Mistral),
        Just(CallFormat::Tagged),
    ]
}

/// Text of pieces that mean something to some format.
fn any_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("<think>"),
        Just("</think>"),
        Just("<tool_call>"),
        Just("</tool_call>"),
        Just("<|tool_call>"),
        Just("<tool_call|>"),
        Just("<|channel|>"),
        Just("<|message|>"),
        Just("<|end|>"),
        Just("<|start|>"),
        Just("to=functions.w"),
        Just("[TOOL_CALLS]"),
        Just("[ARGS]"),
        Just("w"),
        Just("{\"name\":\"w\",\"arguments\":{}}"),
        Just("{}"),
        Just("call:w{a:1}"),
        Just("call:w{a:{b:[1,"),
        Just("<|\"|>"),
        Just("<escape>"),
        Just(","),
        Just("}"),
        Just("<function=w>"),
        Just("</function>"),
        Just("<|python_tag|>"),
        Just("\n"),
        Just("<"),
        Just("ä€"),
        Just("analysis"),
        Just(" "),
        Just("<start_function_call>"),
        Just("<end_function_call>"),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn cutting_any_text_differently_reads_the_same(
        calls in any_format(),
        text in any_text(),
        cuts in prop::collection::vec(0_usize..200, 0..12),
        is_thinking: bool,
    ) {
        let example = Example {
            calls,
            prompt_tail: if is_thinking { "<think>" } else { "" },
            ..PLAIN
        };
        let parser = || parser(&example, calling());
        let whole = read(parser(), std::iter::once(text.as_str()));
        let mut cuts: Vec<usize> =
            cuts.into_iter().filter(|&cut| text.is_char_boundary(cut)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        let pieces = read(parser(), pieces);
        prop_assert_eq!(&pieces.reasoning, &whole.reasoning);
        prop_assert_eq!(&pieces.content, &whole.content);
        prop_assert!(Called::gathered(&pieces.calls) == Called::gathered(&whole.calls));
    }
}
