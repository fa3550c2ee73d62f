//! What is wrong with a call, or looks like its end and is none.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::dialect::CallFormat;
use super::parser_tests::{Example, PLAIN, any_format, calling, parser, read};
use super::{Called, Said, TextEnd, WrittenCall};

/// How each format writes a call of `w` whose text `t` is TEXT, and the marks that count in it.
const CALLS: &[(CallFormat, &str, &[&str])] = &[
    (
        CallFormat::Tagged,
        "<tool_call>\n{\"name\": \"w\", \"arguments\": {\"t\": \"TEXT\"}}\n</tool_call>",
        TAGGED,
    ),
    (
        CallFormat::Tagged,
        "<tool_call>{\"arguments\": {\"t\": \"TEXT\"}, \"name\": \"w\"}</tool_call>",
        TAGGED,
    ),
    (
        CallFormat::Tagged,
        "<tool_call>{\"name\":\"w\",\"arguments\":{\"t\":\"TEXT\"},\"id\":\"TEXT\"}</tool_call>",
        TAGGED,
    ),
    (
        CallFormat::Tagged,
        "<tool_call>\n<function=w>\n<parameter=t>\nTEXT\n</parameter>\n</function>\n</tool_call>",
        TAGGED,
    ),
    (
        CallFormat::Gemma,
        "<|tool_call>call:w{t:<|\"|>TEXT<|\"|>}<tool_call|>",
        &["<|tool_call>", "<tool_call|>"],
    ),
    (
        CallFormat::FunctionGemma,
        "<start_function_call>call:w{t:<escape>TEXT<escape>}<end_function_call>",
        &["<start_function_call>", "<end_function_call>"],
    ),
    (
        CallFormat::Mistral,
        "[TOOL_CALLS]w[ARGS]{\"t\": \"TEXT\"}",
        &["[TOOL_CALLS]", "[ARGS]"],
    ),
    (
        CallFormat::Mistral,
        "[TOOL_CALLS] [{\"name\": \"w\", \"arguments\": {\"t\": \"TEXT\"}}]",
        &["[TOOL_CALLS]", "[ARGS]"],
    ),
    (
        CallFormat::Harmony,
        "<|channel|>commentary to=functions.w<|message|>{\"t\": \"TEXT\"}<|call|>",
        &[
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|end|>",
            "<|call|>",
            "<|return|>",
        ],
    ),
];
const TAGGED: &[&str] = &["<tool_call>", "</tool_call>"];

fn example(calls: CallFormat) -> Example {
    Example { calls, ..PLAIN }
}

/// The answer in every cut in two and character by character.
fn every_cut(calls: CallFormat, text: &str) -> Vec<Said> {
    let example = example(calls);
    let characters = text
        .char_indices()
        .map(|(at, char)| &text[at..at + char.len_utf8()]);
    let mut all = vec![read(parser(&example, calling()), characters)];
    for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
        let (left, right) = text.split_at(cut);
        all.push(read(parser(&example, calling()), [left, right].into_iter()));
    }
    all
}

/// That the answer is calls and nothing else, in every cut.
#[track_caller]
fn assert_calls(calls: CallFormat, text: &str, expected: &[(&str, Value)]) {
    for said in every_cut(calls, text) {
        let called: Vec<(String, Value)> = Called::gathered(&said.calls)
            .into_iter()
            .map(|WrittenCall { name, arguments }| {
                let read = serde_json::from_str(&arguments);
                (
                    name,
                    read.unwrap_or_else(|_| panic!("{arguments} of {text}")),
                )
            })
            .collect();
        let called: Vec<(&str, Value)> = called
            .iter()
            .map(|(name, arguments)| (name.as_str(), arguments.clone()))
            .collect();
        assert_eq!(called, expected, "{text}");
        assert_eq!(said.content, "", "{text}");
    }
}

#[test]
fn a_mark_within_a_calls_own_text_is_text() {
    for (format, call, marks) in CALLS {
        for mark in *marks {
            for text in [format!("a {mark} b"), (*mark).to_owned(), mark.repeat(2)] {
                let call = call.replace("TEXT", &text);
                assert_calls(*format, &call, &[("w", json!({"t": text}))]);
            }
        }
    }
}

#[test]
fn a_mark_within_a_key_is_a_part_of_it() {
    for (format, text) in [
        (
            CallFormat::Tagged,
            "<tool_call>{\"name\":\"w\",\"arguments\":{\"a\":1,\"</tool_call>\":{\"</tool_call>\":2}}}\
             </tool_call>",
        ),
        (
            CallFormat::Gemma,
            "<|tool_call>call:w{a:1,<|\"|></tool_call><|\"|>:{\"</tool_call>\":2}}<tool_call|>",
        ),
    ] {
        let arguments = json!({"a": 1, "</tool_call>": {"</tool_call>": 2}});
        assert_calls(format, text, &[("w", arguments)]);
    }
}

#[test]
fn arguments_that_are_nearly_json_become_json() {
    let tagged = |arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"w\", \"arguments\": {arguments}\n</tool_call>")
    };
    let table = [
        ("{\"t\": \"a\nb\tc\u{1}\"}}", json!({"t": "a\nb\tc\u{1}"})),
        ("{\"t\": \"\\d+ C:\\Work\"}}", json!({"t": "\\d+ C:\\Work"})),
        (
            "{\"t\": \"\\users \\u12 \\u00e4 \\\\d \\ä \\\n\"}}",
            json!({"t": "\\users \\u12 ä \\d \\ä \\\n"}),
        ),
        (
            "{\"t\": \"\\ud83d\\ude00 \\ud83d \\ude00 \\ud83d\\u0041 \\ud83d\"}}",
            json!({"t": "😀 \\ud83d \\ude00 \\ud83dA \\ud83d"}),
        ),
        ("{\"\\d\n\": 1}}", json!({"\\d\n": 1})),
        ("{\"t\": \"1\"", json!({"t": "1"})),
        ("{\"t\": [1, {\"a\": tru", json!({"t": [1, {"a": "tru"}]})),
        ("{\"t\": [1, {\"a\"", json!({"t": [1, {"a": null}]})),
        ("{\"t\": [1, {\"a\":", json!({"t": [1, {"a": null}]})),
        ("{\"t\": 1, ", json!({"t": 1})),
        ("{\"t\": [1, ", json!({"t": [1]})),
        ("{\"t\": [1, 2,], }}", json!({"t": [1, 2]})),
        ("{\"t\": True, \"u\": None}}", json!({"t": true, "u": null})),
        ("{'t': 'say \"it\\'s\"'}}", json!({"t": "say \"it's\""})),
        ("{\"t\" \"u\"}}", json!({"t": null})),
        ("{\"t\": 1] \"u\"}}", json!({"t": 1})),
        ("{", json!({})),
    ];
    for (arguments, expected) in table {
        assert_calls(CallFormat::Tagged, &tagged(arguments), &[("w", expected)]);
    }
}

#[test]
fn what_is_right_json_stays_to_the_letter() {
    let arguments = "{ \"a\" : [ ] ,\n  \"b\\u00e4\\/\":[1.50 , {\"c\" :-2e3 }\t,\"\\\\\\\"ä\"],\n\"d\": { },\"e\":null }";
    let text = format!("<tool_call>{{\"name\":\"w\",\"arguments\":{arguments}}}</tool_call>");
    for said in every_cut(CallFormat::Tagged, &text) {
        assert_eq!(Called::gathered(&said.calls)[0].arguments, arguments);
    }
}

#[test]
fn gemma_may_write_the_quotation_marks_of_other_languages() {
    let table = [
        (
            "x:[\"a,b\", \"c\"],y:'q'",
            json!({"x": ["a,b", "c"], "y": "q"}),
        ),
        ("x:\"a, b}\"", json!({"x": "a, b}"})),
        (
            "\"x\":'it\\'s', y : \"\\n\"",
            json!({"x": "it's", "y": "\n"}),
        ),
        ("x:[True,None,it's, ]", json!({"x": [true, null, "it's"]})),
        ("x:<|\"|>\"a\"\\n<|\"|>", json!({"x": "\"a\"\\n"})),
    ];
    for (arguments, expected) in table {
        let text = format!("<|tool_call>call:w{{{arguments}}}<tool_call|>");
        assert_calls(CallFormat::Gemma, &text, &[("w", expected)]);
    }
}

#[test]
fn a_call_that_lacks_its_end_is_ended() {
    let table = [
        (
            CallFormat::Tagged,
            "<tool_call>\n<function=w>\n<parameter=t>\na\n</function>\n</tool_call>",
            json!({"t": "a"}),
        ),
        (
            CallFormat::Tagged,
            "<tool_call>\n<function=w>\n<parameter=q>\n5\n</function>\n</tool_call>",
            json!({"q": 5}),
        ),
        (
            CallFormat::Tagged,
            "<tool_call>\n<function=w>\n<parameter=t>\na\n</parameter>\n</tool_call>",
            json!({"t": "a"}),
        ),
        (
            CallFormat::Tagged,
            "<tool_call>\n<function=w>\n<parameter=t>\nwithout any end",
            json!({"t": "without any end"}),
        ),
        (
            CallFormat::Tagged,
            "<tool_call>\n<function=w>\n<parameter=t>\nnull</function>",
            json!({"t": "null"}),
        ),
        (
            CallFormat::Tagged,
            "<tool_call>\n<function=w>\n<parameter=",
            json!({}),
        ),
        (
            CallFormat::Tagged,
            "<tool_call>{\"name\":\"w\",\"arguments\":{\"t\":\"a\\",
            json!({"t": "a\\"}),
        ),
        (
            CallFormat::Gemma,
            "<|tool_call>call:w{t=<|\"|>a<|\"|>,q:{b:1<tool_call|>",
            json!({"t": "a", "q": {"b": 1}}),
        ),
        (
            CallFormat::Gemma,
            "<|tool_call>call:w{t:<|\"|>a<|",
            json!({"t": "a<|"}),
        ),
        (
            CallFormat::Mistral,
            "[TOOL_CALLS]w[ARGS]{\"t\": \"a",
            json!({"t": "a"}),
        ),
        (
            CallFormat::Llama,
            "{\"name\": \"w\", \"parameters\": {\"t\": [\"a",
            json!({"t": ["a"]}),
        ),
        (
            CallFormat::Harmony,
            "<|channel|>commentary to=functions.w<|message|>{\"t\": 1<|call|>",
            json!({"t": 1}),
        ),
    ];
    for (format, text, expected) in table {
        assert_calls(format, text, &[("w", expected)]);
    }
}

#[test]
fn a_call_that_was_cut_stays_as_far_as_it_came() {
    for (format, call, _) in CALLS {
        let (before, _) = call.split_once("TEXT").unwrap();
        let mut parser = parser(&example(*format), calling());
        let mut said = Said::default();
        parser.push(&format!("{before}some of"), &mut said);
        parser.finish(TextEnd::Cut, &mut said);
        for call in Called::gathered(&said.calls) {
            assert!(!call.arguments.ends_with(['"', '}']), "{}", call.arguments);
        }
    }
}

/// The answer as its bound cuts it, and what of it was let out before.
fn cut(calls: CallFormat, text: &str) -> (Said, Said) {
    let mut parser = parser(&example(calls), calling());
    let mut said = Said::default();
    parser.push(text, &mut said);
    let before = said.clone();
    parser.finish(TextEnd::Cut, &mut said);
    (said, before)
}

/// A call as each format writes it, without a text in it.
fn plain_calls() -> impl Iterator<Item = (CallFormat, String)> {
    let more = [
        (
            CallFormat::Llama,
            "{\"name\": \"w\", \"parameters\": {\"t\": \"TEXT\"}}",
        ),
        (
            CallFormat::Llama,
            "<|python_tag|>{\"name\": \"w\", \"parameters\": {\"t\": \"TEXT\"}}",
        ),
        (
            CallFormat::Harmony,
            "<|start|>assistant to=functions.w<|channel|>commentary<|message|>{\"t\": \"TEXT\"}",
        ),
        (
            CallFormat::Harmony,
            " to=functions.w<|channel|>commentary<|message|>{\"t\": \"TEXT\"}<|call|>",
        ),
    ];
    let all = CALLS.iter().map(|(format, call, _)| (*format, *call));
    all.chain(more)
        .map(|(format, call)| (format, call.replace("TEXT", "a")))
}

#[test]
fn nothing_of_a_call_is_said_wherever_its_answer_was_cut() {
    for (format, call) in plain_calls() {
        let twice = format!("{call}\n{call}");
        for end in (0..=twice.len()).filter(|&end| twice.is_char_boundary(end)) {
            let (said, before) = cut(format, &twice[..end]);
            assert_eq!(said.content.trim(), "", "of {:?}", &twice[..end]);
            assert_eq!(before.content.trim(), "", "of {:?}", &twice[..end]);
        }
        let called = Called::gathered(&cut(format, &twice).0.calls);
        let arguments: Value = serde_json::from_str(&called[0].arguments).unwrap();
        assert_eq!(arguments, json!({"t": "a"}), "{twice}");
    }
}

#[test]
fn what_was_said_before_a_call_that_was_cut_stays() {
    for (format, call) in plain_calls() {
        if matches!(format, CallFormat::Harmony | CallFormat::Llama) {
            continue;
        }
        for end in (1..call.len()).filter(|&end| call.is_char_boundary(end)) {
            let text = format!("I look.\n\n{}", &call[..end]);
            assert_eq!(cut(format, &text).0.content, "I look.", "of {text:?}");
        }
    }
}

#[test]
fn an_answer_in_json_that_was_cut_is_text_where_it_names_no_function() {
    for text in [
        "{\"q\": 1, \"na",
        "{\"name\": \"Ada\"",
        "{\"name\": \"Ada\", \"age\": 5",
    ] {
        assert_eq!(cut(CallFormat::Llama, text).0.content, text);
    }
}

#[test]
fn half_a_closing_mark_behind_a_whole_call_is_not_said_however_the_answer_ends() {
    let example = example(CallFormat::Tagged);
    let text = "<tool_call>\n{\"name\": \"w\", \"arguments\": {}}</t";
    let said = read(parser(&example, calling()), std::iter::once(text));
    assert_eq!((said.content.as_str(), said.calls.is_empty()), ("", false));
}

#[test]
fn a_call_that_begins_before_the_last_one_ended_is_a_call_of_its_own() {
    let both = [("w", json!({"t": "a"})), ("w", json!({"t": "b"}))];
    for (format, text) in [
        (
            CallFormat::Tagged,
            "<tool_call>\n{\"name\": \"w\", \"arguments\": {\"t\": \"a\"}}\n<tool_call>\n\
             {\"name\": \"w\", \"arguments\": {\"t\": \"b\"}}\n</tool_call>",
        ),
        (
            CallFormat::Tagged,
            "<tool_call>{\"name\": \"w\", \"arguments\": {\"t\": \"a\"<tool_call><tool_call>\
             <function=w><parameter=t>b</parameter></function></tool_call>",
        ),
        (
            CallFormat::Tagged,
            "<tool_call><function=w><parameter=t>a</parameter></function>\n<tool_call>\n\
             <function=w><parameter=t>b</parameter></function></tool_call>",
        ),
        (
            CallFormat::Gemma,
            "<|tool_call>call:w{t:a}<|tool_call>call:w{t:b}<tool_call|>",
        ),
        (
            CallFormat::Gemma,
            "<|tool_call>call:w{t:a<|tool_call>call:w{t:b}<tool_call|>",
        ),
        (
            CallFormat::Mistral,
            "[TOOL_CALLS]w[ARGS]{\"t\": \"a\"[TOOL_CALLS]w[ARGS]{\"t\": \"b\"}",
        ),
    ] {
        assert_calls(format, text, &both);
    }
}

#[test]
fn a_tag_within_a_value_is_text_unless_the_next_tag_follows_it() {
    for text in [
        "return \"</parameter>\" # end",
        "a\n</parameter>\nb",
        "</parameter></parameter>",
        "</function>\n</parameter> </func",
        "</parameter>\n<param",
        "a</function>b</tool_call>\n</function>",
        "<parameter=t>\n",
    ] {
        let call = format!(
            "<tool_call>\n<function=w>\n<parameter=t>\n{text}\n</parameter>\n<parameter=q>\n1\n\
             </parameter>\n</function>\n</tool_call>"
        );
        let arguments = json!({"t": text, "q": 1});
        assert_calls(CallFormat::Tagged, &call, &[("w", arguments)]);
    }
}

/// Text with a call in it, of parts that mean something to some format.
fn any_call() -> impl Strategy<Value = (CallFormat, String)> {
    let parts = prop_oneof![
        Just("\""),
        Just("'"),
        Just("\\"),
        Just("\\u00"),
        Just("\\ud83d"),
        Just("\\ude00"),
        Just("\n"),
        Just("\t"),
        Just(" "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just("="),
        Just(","),
        Just(";"),
        Just("1"),
        Just("-"),
        Just("true"),
        Just("None"),
        Just("ä"),
        Just("\"t\": "),
        Just("<|\"|>"),
        Just("<escape>"),
        Just("<|"),
        Just("<parameter=t>"),
        Just("<parameter=q>"),
        Just("</parameter>"),
        Just("</function>"),
        Just("<function=w>"),
        Just("</tool_call>"),
        Just("<tool_call>"),
        Just("<|tool_call>"),
        Just("<tool_call|>"),
        Just("[TOOL_CALLS]"),
        Just("[ARGS]"),
        Just("<|call|>"),
        Just("<|channel|>"),
        Just("<start_function_call>"),
        Just("<end_function_call>"),
        Just("call:w{"),
        Just("{\"name\": \"w\", \"arguments\": {"),
    ];
    let parts = prop::collection::vec(parts, 0..12).prop_map(|parts| parts.concat());
    (any_format(), parts).prop_map(|(format, rest)| {
        let head = match format {
            CallFormat::FunctionGemma => "<start_function_call>call:w{",
            CallFormat::Gemma => "<|tool_call>call:w{",
            CallFormat::Harmony => "<|channel|>commentary to=functions.w<|message|>{",
            CallFormat::Llama => "{\"name\": \"w\", \"parameters\": {",
            CallFormat::Mistral => "[TOOL_CALLS]w[ARGS]{",
            CallFormat::Tagged if rest.len() % 2 == 0 => "<tool_call><function=w>",
            CallFormat::Tagged => "<tool_call>{\"name\": \"w\", \"arguments\": {",
        };
        (format, format!("{head}{rest}"))
    })
}

proptest! {
    #[test]
    fn every_call_of_an_answer_that_was_not_cut_has_an_object_as_its_arguments(
        (format, text) in any_call(),
        cut in 0_usize..200,
    ) {
        let cut = (0..=cut.min(text.len())).rev().find(|&cut| text.is_char_boundary(cut));
        let (left, right) = text.split_at(cut.unwrap());
        let example = example(format);
        let said = read(parser(&example, calling()), [left, right].into_iter());
        let whole = read(parser(&example, calling()), std::iter::once(text.as_str()));
        prop_assert_eq!(&said.content, &whole.content);
        let calls = Called::gathered(&said.calls);
        prop_assert!(calls == Called::gathered(&whole.calls));
        for call in calls {
            let arguments: Result<Value, _> = serde_json::from_str(&call.arguments);
            prop_assert!(
                arguments.is_ok_and(|it| it.is_object()),
                "{} of {}", call.arguments, text
            );
        }
    }
}
