use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::failure::Reason;
use crate::sampling::Sampling;

fn with(extra: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"secret"}}]{extra}}}"#)
}

fn many_biases() -> String {
    let biases: Vec<String> = (0..1_025).map(|token| format!(r#""{token}":1"#)).collect();
    biases.join(",")
}

fn tool(name: &str, parameters: &str) -> String {
    format!(
        r#","tools":[{{"type":"function","function":{{"name":"{name}","parameters":{parameters}}}}}]"#
    )
}

fn many_tools() -> String {
    let tool = |number| format!(r#"{{"type":"function","function":{{"name":"f{number}"}}}}"#);
    format!(
        r#","tools":[{}]"#,
        (0..129).map(tool).collect::<Vec<_>>().join(",")
    )
}

fn named(name: &str) -> String {
    format!(
        r#"{},"tool_choice":{{"type":"function","function":{{"name":"{name}"}}}}"#,
        tool("f", "{}")
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
    let request = ChatRequest::from_json(with("").as_bytes()).unwrap();
    assert_eq!(
        request.messages()[0],
        Message::new(Role::User, "secret".into())
    );
    assert_eq!(request.max_tokens, None);
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
    let body = with(
        r#","max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_p":0.9,
        "top_k":40,"min_p":0.25,"repetition_penalty":1.5,"repetition_context_size":20,
        "frequency_penalty":-0.5,
        "presence_penalty":2,"logit_bias":{"20":-100,"3":1.5},"logprobs":true,
        "top_logprobs":3,"seed":-1,"stop":["a","b"],"stream":true,"user":"x","n":1,"tools":[],
        "chat_template_kwargs":{"enable_thinking":false}"#,
    );
    let request = ChatRequest::from_json(body.as_bytes()).unwrap();
    assert_eq!(request.max_tokens, Some(7));
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
    let body = r#"{"messages":[{"role":"developer","content":[
        {"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
    let request = ChatRequest::from_json(body.as_bytes()).unwrap();
    assert_eq!(
        request.messages()[0],
        Message::new(Role::System, "ab".into())
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name_and_without_the_prompt() {
    let table = [
        (with(r#","n":2"#), "n other than 1"),
        (
            with(r#","logit_bias":{"5":101}"#),
            "logit_bias must lie between",
        ),
        (
            with(r#","logit_bias":{"secret":1}"#),
            "logit_bias must name",
        ),
        (
            with(&format!(r#","logit_bias":{{{}}}"#, many_biases())),
            "at most 1024",
        ),
        (
            with(r#","presence_penalty":2.5"#),
            "presence_penalty must lie between -2 and 2",
        ),
        (with(r#","frequency_penalty":-3"#), "frequency_penalty"),
        (with(r#","repetition_penalty":0"#), "repetition_penalty"),
        (
            with(r#","repetition_context_size":0"#),
            "repetition_context_size must be at least 1",
        ),
        (with(r#","min_p":1.5"#), "min_p must lie between 0 and 1"),
        (
            with(r#","logprobs":true,"top_logprobs":21"#),
            "top_logprobs must lie between 0 and 20",
        ),
        (
            with(r#","logprobs":true,"top_logprobs":-1"#),
            "top_logprobs",
        ),
        (with(r#","top_logprobs":1"#), "top_logprobs needs logprobs"),
        (
            with(r#","temperature":2.5"#),
            "temperature must lie between 0 and 2",
        ),
        (with(r#","top_p":-0.1"#), "top_p"),
        (with(r#","top_k":-5"#), "top_k"),
        (with(r#","max_tokens":0"#), "max_tokens"),
        (with(r#","stop":"""#), "stop must hold"),
        (with("").replace("user", "oracle"), "role"),
        (
            with("").replace(
                r#""content":"secret""#,
                r#""content":[{"type":"image_url"}]"#,
            ),
            "parts",
        ),
        (r#"{"messages":[]}"#.to_owned(), "messages"),
        ("{}".to_owned(), "messages or prompt is required"),
        (with(r#","prompt":"x""#), "exclude each other"),
        (
            r#"{"prompt":["a","b"]}"#.to_owned(),
            "prompt must be one string",
        ),
        (r#"{"prompt":"a","echo":true}"#.to_owned(), "echo"),
        (r#"{"prompt":"a","suffix":"b"}"#.to_owned(), "suffix"),
        (with(r#","reasoning_effort":"secret""#), "reasoning_effort"),
        (with(r#","tools":{}"#), "tools must be an array"),
        (with(r#","tools":[{"type":"retrieval"}]"#), "type function"),
        (with(&tool("secret name", "{}")), "tools must have names"),
        (with(&tool("f", "[]")), "schemas that are objects"),
        (
            with(&tool("f", &format!(r#"{{"x":"{}"}}"#, "y".repeat(1 << 16)))),
            "at most 65536 bytes",
        ),
        (
            with(&format!(
                r#","tools":[{}]"#,
                [r#"{"type":"function","function":{"name":"f"}}"#; 2].join(",")
            )),
            "twice",
        ),
        (with(&many_tools()), "at most 128"),
        (
            with(r#","tool_choice":"required""#),
            "tool_choice needs tools",
        ),
        (with(r#","tool_choice":"secret""#), "tool_choice must be"),
        (with(&named("g")), "tools lacks"),
        (
            with(r#","response_format":{"type":"secret"}"#),
            "response_format must be",
        ),
        (
            with(r#","response_format":{"type":"json_schema"}"#),
            "response_format lacks",
        ),
        (
            with(r#","response_format":{"type":"json_schema","json_schema":{"schema":[]}}"#),
            "response_format must hold",
        ),
        (
            with(r#","response_format":{"type":"json_object"},"stop":["a","b","c","d","e"]"#),
            "at most 4 strings",
        ),
        (
            with("").replace(
                "user\"",
                "user\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]",
            ),
            "assistant's",
        ),
        (called("[1]"), "JSON objects in a string"),
        (called("\"secret\""), "JSON objects in a string"),
        (
            r#"{"messages":"secret"}"#.to_owned(),
            "not a chat-completions request",
        ),
        (
            r#"{"messages":[{"role":"user","content":"secret"#.to_owned(),
            "ends before",
        ),
        (r#"secret"#.to_owned(), "not JSON"),
        ("x".repeat(BODY_BYTES_MAX + 1), "exceeds"),
    ];
    for (body, expected) in table {
        let failure = ChatRequest::from_json(body.as_bytes()).unwrap_err();
        assert_eq!(failure.reason, Reason::ClientError);
        assert!(
            failure.text.contains(expected),
            "{failure} should speak of {expected}"
        );
        assert!(!failure.text.contains("secret"), "{failure}");
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
        called(r#""{\"x\":\"secret\"}""#),
        r#"{"prompt":"secret"}"#.to_owned(),
    ] {
        let request = ChatRequest::from_json(body.as_bytes()).unwrap();
        assert!(!format!("{request:?}").contains("secret"), "{body}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChatRequest::from_json(&bytes);
    }
}

#[test]
fn log_probabilities_without_a_count_are_those_of_the_chosen_tokens_alone() {
    let wished = |extra| {
        let request = ChatRequest::from_json(with(extra).as_bytes()).unwrap();
        request.wishes.top_logprobs
    };
    assert_eq!(wished(r#","logprobs":true"#), Some(0));
    assert_eq!(wished(r#","logprobs":false,"top_logprobs":0"#), None);
    assert_eq!(wished(r#","logprobs":null"#), None);
}

#[test]
fn tools_and_their_choice_are_read() {
    let read = |extra: &str| {
        ChatRequest::from_json(with(extra).as_bytes())
            .unwrap()
            .tools
    };
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
    let choices = [
        (r#""auto""#, ToolChoice::Auto),
        (r#"{"type":"auto"}"#, ToolChoice::Auto),
        (r#""none""#, ToolChoice::Never),
        (r#""required""#, ToolChoice::Required),
        (
            r#"{"type":"function","name":"f"}"#,
            ToolChoice::Named("f".to_owned()),
        ),
    ];
    for (json, choice) in choices {
        let tools = read(&format!(r#"{},"tool_choice":{json}"#, tool("f", "{}")));
        assert_eq!(
            tools.must_be_called(),
            matches!(choice, ToolChoice::Named(_) | ToolChoice::Required)
        );
        assert_eq!(tools.may_be_called(), choice != ToolChoice::Never);
        assert_eq!(tools.choice, choice);
    }
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
    for arguments in [r#""{\"q\":1}""#, r#"{"q":1}"#] {
        let request = ChatRequest::from_json(called(arguments).as_bytes()).unwrap();
        let message = &request.messages()[0];
        assert_eq!(message.content, "");
        assert_eq!(message.tool_calls[0].id.as_deref(), Some("c"));
        assert_eq!(
            message.tool_calls[0].function.arguments.as_str(),
            r#"{"q":1}"#
        );
    }
    let empty = ChatRequest::from_json(called(r#""""#).as_bytes()).unwrap();
    assert_eq!(
        empty.messages()[0].tool_calls[0]
            .function
            .arguments
            .as_str(),
        "{}"
    );
    let body = r#"{"messages":[{"role":"tool","tool_call_id":"c","name":"f","content":"T"}]}"#;
    let request = ChatRequest::from_json(body.as_bytes()).unwrap();
    assert_eq!(request.messages()[0].tool_call_id.as_deref(), Some("c"));
}

#[test]
fn a_form_for_the_answer_is_read() {
    let read = |json: &str| {
        let body = with(&format!(r#","response_format":{json}"#));
        ChatRequest::from_json(body.as_bytes()).unwrap().format
    };
    assert!(matches!(read(r#"{"type":"text"}"#), Format::Text));
    assert!(matches!(read(r#"{"type":"json_object"}"#), Format::Json));
    let schema = read(r#"{"type":"json_schema","json_schema":{"name":"s","schema":{"a":1}}}"#);
    assert!(matches!(schema, Format::Schema(json) if json.as_str() == r#"{"a":1}"#));
}

#[test]
fn a_plain_text_is_gone_on_from_as_it_is() {
    for prompt in [r#""once""#, r#"["once"]"#] {
        let body = format!(r#"{{"prompt":{prompt},"logprobs":2}}"#);
        let request = ChatRequest::from_json(body.as_bytes()).unwrap();
        assert!(matches!(&request.input, Input::Text(text) if text == "once"));
        assert_eq!(request.wishes.top_logprobs, Some(2));
        assert!(request.messages().is_empty());
    }
}

#[test]
fn an_answer_of_a_fixed_length_is_asked_for_by_ignoring_its_end() {
    let read = |extra: &str| {
        let body = format!(r#"{{"prompt":"x"{extra}}}"#);
        ChatRequest::from_json(body.as_bytes()).unwrap().ends
    };
    assert_eq!(read(""), Ends::Heeded);
    assert_eq!(read(r#","ignore_eos":false"#), Ends::Heeded);
    assert_eq!(read(r#","ignore_eos":true"#), Ends::Ignored);
}
