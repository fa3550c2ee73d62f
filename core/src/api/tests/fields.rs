//! The published list against what the readers do.

use crate::api::*;

/// A body with one more field. `null` is the same as absent.
fn with(api: Api, name: &str, value: &str) -> String {
    let rest = match api {
        Api::Chat if name == "messages" => "",
        Api::Chat => r#","messages":[{"role":"user","content":"x"}]"#,
        Api::Completions if name == "prompt" => "",
        Api::Completions => r#","prompt":"x""#,
    };
    format!(r#"{{"{name}":{value}{rest}}}"#)
}

fn refused(api: Api, name: &str, value: &str) -> Option<Refusal> {
    Request::read(api, with(api, name, value).as_bytes()).err()
}

fn names(refusal: Refusal, name: &str) -> bool {
    refusal.place().is_some_and(|place| place.field == name)
}

const APIS: [Api; 2] = [Api::Chat, Api::Completions];
/// One of these is wrong for any field that is read.
const ODD: [&str; 4] = ["{\"no\":[[]]}", "\"\\u0001\"", "[[7.5]]", "-7.5"];

#[test]
fn a_field_that_is_honoured_is_read_and_what_it_does_not_take_is_refused_by_its_name() {
    for field in FIELDS.iter().filter(|it| it.verdict == Verdict::Honoured) {
        for api in APIS {
            let is_named = |value: &&str| {
                refused(api, field.name, value).is_some_and(|refusal| names(refusal, field.name))
            };
            let wrong = ODD.iter().filter(|value| is_named(value)).count();
            if field.scope.has(api) {
                assert!(wrong > 0, "{} is not read by {api:?}", field.name);
            } else {
                assert_eq!(wrong, ODD.len(), "{} in {api:?}", field.name);
            }
            let nothing = refused(api, field.name, "null");
            let is_missing = |refusal: Refusal| {
                matches!(
                    refusal,
                    Refusal::Field {
                        fault: Fault::Missing,
                        ..
                    }
                )
            };
            assert!(nothing.is_none_or(is_missing), "{} of null", field.name);
        }
    }
}

#[test]
fn a_field_that_is_refused_is_let_through_only_where_it_asks_for_nothing() {
    for field in FIELDS.iter().filter(|it| it.verdict == Verdict::Refused) {
        for api in APIS {
            for value in field.neutral.iter().chain(&["null"]) {
                assert_eq!(
                    refused(api, field.name, value),
                    None,
                    "{} of {value}",
                    field.name
                );
            }
            for value in ODD {
                let refusal = refused(api, field.name, value);
                assert!(
                    refusal.is_some_and(|it| names(it, field.name)),
                    "{} of {value}",
                    field.name
                );
                let text = refusal.map(|it| it.to_string()).unwrap_or_default();
                assert!(
                    text.contains(field.name) && text.contains(field.note),
                    "{text}"
                );
            }
        }
    }
    assert_eq!(
        refused(Api::Chat, "typical_p", "1.0"),
        None,
        "numbers count by value"
    );
}

#[test]
fn a_field_that_is_ignored_and_one_that_nobody_knows_may_say_anything() {
    let ignored = FIELDS.iter().filter(|it| it.verdict == Verdict::Ignored);
    for name in ignored.map(|it| it.name).chain(["x_nobody_knows"]) {
        for api in APIS {
            for value in ODD {
                assert_eq!(refused(api, name, value), None, "{name} of {value}");
            }
        }
    }
}

#[test]
fn minus_one_is_no_bound() {
    for name in ["max_tokens", "max_completion_tokens"] {
        let body = with(Api::Chat, name, "-1");
        let request = Request::read(Api::Chat, body.as_bytes()).expect("it is a request");
        assert_eq!(request.output_tokens_max, None);
    }
}

#[test]
fn a_prompt_is_text_or_tokens_one_or_several() {
    let cases = [
        (r#""once""#, 1, Some("once")),
        (r#"["a","b"]"#, 2, Some("a")),
        ("[1, 2]", 1, None),
        ("[[1,2],[3]]", 2, None),
        (r#"[[1],"b"]"#, 2, None),
    ];
    for (prompt, count, text) in cases {
        let body = with(Api::Completions, "prompt", prompt);
        let request = Request::read(Api::Completions, body.as_bytes()).expect("it is a request");
        let Input::Prompts(prompts) = &request.input else {
            panic!("{prompt} is no conversation");
        };
        assert_eq!(prompts.len(), count, "{prompt}");
        match (&prompts[0], text) {
            (Prompt::Text(said), Some(text)) => assert_eq!(said.text(), text),
            (Prompt::Tokens(tokens), None) => assert_eq!(tokens[0], 1),
            (one, _) => panic!("{prompt} was read as {one:?}"),
        }
        assert!(request.prompt_tokens() <= request.prompt_tokens_bound());
    }
    for wrong in ["[]", "[[]]", "7", "[1,\"a\"]", "[-1]", "[1.5]", "{}"] {
        let refusal = refused(Api::Completions, "prompt", wrong);
        assert!(refusal.is_some_and(|it| names(it, "prompt")), "{wrong}");
    }
}

#[test]
fn echo_needs_a_prompt_of_text_and_no_log_probabilities() {
    let read = |rest: &str| {
        let body = format!(r#"{{"echo":true,{rest}}}"#);
        Request::read(Api::Completions, body.as_bytes()).map(|request| request.echo)
    };
    assert_eq!(read(r#""prompt":"a""#), Ok(Echo::Prompt));
    for wrong in [r#""prompt":[1]"#, r#""prompt":"a","logprobs":1"#] {
        assert!(
            read(wrong).is_err_and(|refusal| names(refusal, "echo")),
            "{wrong}"
        );
    }
}

#[test]
fn answers_to_one_request_are_bounded_together() {
    let prompts = vec!["\"a\""; 43].join(",");
    let body = format!(r#"{{"prompt":[{prompts}],"n":3}}"#);
    let refusal = Request::read(Api::Completions, body.as_bytes()).expect_err("129 answers");
    assert!(names(refusal, "prompt"), "{refusal}");
}

#[test]
fn a_last_message_goes_on_only_where_it_is_the_assistants() {
    let read = |messages: &str, more: &str| {
        let body = format!(r#"{{"messages":[{messages}]{more}}}"#);
        match Request::read(Api::Chat, body.as_bytes())?.input {
            Input::Conversation(conversation) => Ok(conversation.ending),
            Input::Prompts(_) => panic!("a conversation"),
        }
    };
    let user = r#"{"role":"user","content":"a"}"#;
    let both = format!(r#"{user},{{"role":"assistant","content":"b"}}"#);
    let goes_on = r#","continue_final_message":true"#;
    assert_eq!(read(user, ""), Ok(Ending::NewTurn));
    assert_eq!(read(&both, goes_on), Ok(Ending::SameTurn));
    let also = format!(r#"{goes_on},"add_generation_prompt":false"#);
    assert_eq!(read(&both, &also), Ok(Ending::SameTurn));
    assert_eq!(
        read(&both, r#","add_generation_prompt":false"#),
        Ok(Ending::NoTurn)
    );
    let twice = format!(r#"{goes_on},"add_generation_prompt":true"#);
    for refusal in [read(user, goes_on), read(&both, &twice)] {
        let refusal: Refusal = refusal.expect_err("it cannot go on");
        assert!(names(refusal, "continue_final_message"), "{refusal}");
    }
}

#[test]
fn half_a_surrogate_pair_is_shown_as_such_and_refuses_nothing() {
    let body = r#"{"messages":[{"role":"user","content":"a\ud800b"}]}"#;
    let request = Request::read(Api::Chat, body.as_bytes()).expect("it is JSON");
    let Input::Conversation(conversation) = &request.input else {
        panic!("a conversation");
    };
    let text = conversation.messages[0].content.to_text();
    assert!(text.starts_with('a') && text.ends_with('b') && text.contains('\u{fffd}'));
}
