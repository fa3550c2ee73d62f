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

#[test]
fn a_plain_request_takes_the_defaults_that_clients_know() {
    let request = ChatRequest::from_json(with("").as_bytes()).unwrap();
    assert_eq!(
        request.messages[0],
        Message {
            role: Role::User,
            content: "secret".into()
        }
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
        "top_k":40,"min_p":0.25,"repetition_penalty":1.5,"frequency_penalty":-0.5,
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
    };
    assert_eq!(request.wishes.or(defaults, 9), sampling);
    assert_eq!(request.stops, ["a", "b"]);
    assert!(request.template_variables.is_some());
}

#[test]
fn content_parts_are_joined() {
    let body = r#"{"messages":[{"role":"developer","content":[
        {"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
    let request = ChatRequest::from_json(body.as_bytes()).unwrap();
    assert_eq!(
        request.messages[0],
        Message {
            role: Role::System,
            content: "ab".into()
        }
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name_and_without_the_prompt() {
    let table = [
        (with(r#","n":2"#), "n other than 1"),
        (with(r#","tools":[{"type":"function"}]"#), "tools"),
        (
            with(r#","response_format":{"type":"json_object"}"#),
            "response_format",
        ),
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
    let request = ChatRequest::from_json(with("").as_bytes()).unwrap();
    assert!(!format!("{request:?}").contains("secret"));
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
