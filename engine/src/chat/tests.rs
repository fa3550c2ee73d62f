use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::failure::Reason;
use crate::sampling::Sampling;

fn with(extra: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"secret"}}]{extra}}}"#)
}

fn read(body: &str) -> ChatRequest {
    ChatRequest::from_json(body.as_bytes()).unwrap()
}

fn tool(name: &str, parameters: &str) -> String {
    format!(
        r#","tools":[{{"type":"function","function":{{"name":"{name}","parameters":{parameters}}}}}]"#
    )
}

/// A conversation with a call in it.
fn called(arguments: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"assistant","tool_calls":[{{"id":"c","type":"function",
            "function":{{"name":"f","arguments":{arguments}}}}}]}}]}}"#
    )
}

#[test]
fn a_plain_request_takes_the_defaults_that_clients_know() {
    let request = read(&with(""));
    assert_eq!(
        request.messages()[0],
        Message::new(Role::User, "secret".into())
    );
    assert_eq!((request.max_tokens, request.min_tokens), (None, 0));
    assert_eq!(request.wishes, Wishes::default());
    let sampling = request.wishes.or(Defaults::API, 9);
    let expected = Sampling {
        temperature: 1.0,
        seed: 9,
        ..Sampling::greedy()
    };
    assert_eq!(sampling, expected);
    assert!(request.stops.is_empty());
}

#[test]
fn every_wish_is_read() {
    let request = read(&with(
        r#","max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_p":0.9,
        "top_k":40,"min_p":0.25,"repetition_penalty":1.5,"repetition_context_size":20,"frequency_penalty":-0.5,
        "presence_penalty":2,"logit_bias":{"20":-100,"3":1.5},"logprobs":true,
        "top_logprobs":3,"seed":-1,"stop":["a","b"],"stream":true,"user":"x","n":1,"tools":[],
        "min_tokens":2,"stop_token_ids":[9,4],"ignore_eos":true,
        "chat_template_kwargs":{"enable_thinking":false}"#,
    ));
    assert_eq!((request.max_tokens, request.min_tokens), (Some(7), 2));
    assert_eq!(request.end_tokens, [9, 4]);
    assert_eq!(request.ends, Ends::Ignored);
    let sampling = Sampling {
        temperature: 0.5,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.25,
        repetition_penalty: 1.5,
        repetition_window: NonZeroU32::new(20),
        frequency_penalty: -0.5,
        presence_penalty: 2.0,
        logit_bias: vec![(3, 1.5), (20, -100.0)],
        seed: u64::MAX,
        top_logprobs: Some(3),
    };
    let defaults = Defaults {
        temperature: 0.0,
        top_p: 0.5,
        top_k: 3,
        min_p: 0.1,
        repetition_penalty: 1.1,
    };
    assert_eq!(request.wishes.or(defaults, 9), sampling);
    assert_eq!(request.stops, ["a", "b"]);
    assert!(request.template.variables.is_some());
}

#[test]
fn content_parts_are_joined() {
    let request = read(
        r#"{"messages":[{"role":"developer","content":[
        {"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#,
    );
    assert_eq!(
        request.messages()[0],
        Message::new(Role::System, "ab".into())
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name_and_without_the_prompt() {
    let table = [
        (with(r#","n":2"#), "n > 1", Some("n")),
        (
            r#"{"prompt":["a","b"]}"#.into(),
            "prompt > 1",
            Some("prompt"),
        ),
        (
            with(r#","prompt":"x""#),
            "prompt has no place",
            Some("prompt"),
        ),
        (
            r#"{"prompt":"a","suffix":"b"}"#.into(),
            "suffix",
            Some("suffix"),
        ),
        (
            with(r#","min_p":1.5"#),
            "min_p must be between",
            Some("min_p"),
        ),
        ("{}".into(), "messages is required", Some("messages")),
        ("secret".into(), "invalid JSON", None),
    ];
    for (body, expected, param) in table {
        let failure = ChatRequest::from_json(body.as_bytes()).unwrap_err();
        assert_eq!(failure.reason, Reason::ClientError);
        assert_eq!(failure.param.as_deref(), param, "{failure}");
        assert!(
            failure.text.contains(expected),
            "{failure} should speak of {expected}"
        );
        assert!(!failure.text.contains("secret"), "{failure}");
    }
}

#[test]
fn a_token_that_the_model_lacks_is_refused_by_its_field() {
    let bodies = [
        (with(r#","logit_bias":{"640":1}"#), "logit_bias"),
        (with(r#","stop_token_ids":[3,640]"#), "stop_token_ids"),
        (r#"{"prompt":[1,640]}"#.into(), "prompt"),
    ];
    for (body, field) in bodies {
        let request = read(&body);
        assert!(request.check_tokens(641).is_ok());
        let failure = request.check_tokens(640).unwrap_err();
        assert_eq!(failure.param.as_deref(), Some(field));
        assert!(failure.text.starts_with(field), "{failure}");
    }
}

#[test]
fn a_message_is_not_printed() {
    for body in [
        with(r#","chat_template_kwargs":{"x":"secret"}"#),
        with(&tool("f", r#"{"description":"secret"}"#)),
        with(
            r#","response_format":{"type":"json_schema","json_schema":{"schema":{"x":"secret"}}}"#,
        ),
        with(r#","guided_choice":["secret"]"#),
        with(r#","guided_regex":"secret""#),
        called(r#""{\"x\":\"secret\"}""#),
        r#"{"prompt":"secret"}"#.to_owned(),
    ] {
        assert!(!format!("{:?}", read(&body)).contains("secret"), "{body}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChatRequest::from_json(&bytes);
    }

    #[test]
    fn any_text_comes_as_it_was_meant(text in any::<String>()) {
        let body = serde_json::json!({"messages": [{"role": "user", "content": text}]});
        let request = read(&body.to_string());
        prop_assert_eq!(&request.messages()[0].content, &text);
        let body = serde_json::json!({"prompt": text});
        let request = read(&body.to_string());
        prop_assert!(matches!(&request.input, Input::Text(read) if *read == text));
    }
}

#[test]
fn log_probabilities_without_a_count_are_those_of_the_chosen_tokens_alone() {
    let wished = |extra| read(&with(extra)).wishes.top_logprobs;
    assert_eq!(wished(r#","logprobs":true"#), Some(0));
    assert_eq!(wished(r#","logprobs":false,"top_logprobs":0"#), None);
    assert_eq!(wished(r#","logprobs":null"#), None);
}

#[test]
fn tools_come_with_their_schemas_in_the_callers_order() {
    let read = |extra: &str| read(&with(extra)).tools;
    let tools = read(&tool("f", r#"{"type":"object"}"#));
    assert_eq!(tools.list[0].name, "f");
    assert_eq!(
        tools.list[0].parameters.as_ref().unwrap().as_str(),
        r#"{"type":"object"}"#
    );
    assert_eq!(
        (&tools.choice, tools.parallel),
        (&ToolChoice::Auto, Parallel::Allowed)
    );
    assert!(tools.may_be_called() && !tools.must_be_called());
    let one = read(&format!(
        r#"{},"parallel_tool_calls":false"#,
        tool("f", "{}")
    ));
    assert_eq!(one.parallel, Parallel::One);
    let none = read(r#","tools":[],"tool_choice":null"#);
    assert!(!none.may_be_called() && none.raw.is_none());
}

#[test]
fn calls_and_their_answers_are_read() {
    for (arguments, object) in [
        (r#""{\"q\":1}""#, r#"{"q":1}"#),
        (r#"{"q":1}"#, r#"{"q":1}"#),
        (r#""""#, "{}"),
        (r#""{\"q\": \"ab""#, r#"{"arguments":"{\"q\": \"ab"}"#),
    ] {
        let request = read(&called(arguments));
        let message = &request.messages()[0];
        assert_eq!(message.content, "");
        assert_eq!(message.tool_calls[0].id.as_deref(), Some("c"));
        assert_eq!(message.tool_calls[0].function.arguments.as_str(), object);
    }
    let request =
        read(r#"{"messages":[{"role":"tool","tool_call_id":"c","name":"f","content":"T"}]}"#);
    assert_eq!(request.messages()[0].tool_call_id.as_deref(), Some("c"));
}

#[test]
fn a_plain_text_is_gone_on_from_as_it_is() {
    for prompt in [r#""once""#, r#"["once"]"#] {
        let request = read(&format!(r#"{{"prompt":{prompt},"logprobs":2}}"#));
        assert!(matches!(&request.input, Input::Text(text) if text == "once"));
        assert_eq!(request.wishes.top_logprobs, Some(2));
        assert!(request.messages().is_empty() && !request.is_chat());
    }
}
