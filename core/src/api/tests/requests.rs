use proptest::prelude::*;
use serde_json::{Value, json};

use super::{catalog, read};
use crate::api::*;
use crate::ids::{AccountId, ModelIx, RequestId};

fn body(more: &str) -> Vec<u8> {
    format!(r#"{{"model":"acme/tiny","messages":[{{"role":"user","content":"2+2?"}}]{more}}}"#)
        .into_bytes()
}

fn read_chat(body: &[u8]) -> Result<Request<'_>, Refusal> {
    Request::read(Api::Chat, body)
}

fn refused(body: &[u8]) -> Refusal {
    read_chat(body).expect_err("this body is wrong")
}

#[test]
fn a_plain_request_is_read_as_it_was_meant() {
    let body = body(
        r#","stream":true,"stream_options":{"include_usage":true},"max_tokens":9,
        "max_completion_tokens":7,"temperature":0.5,"top_p":1,"seed":-3,"stop":"\n","n":1"#,
    );
    let request = read_chat(&body).expect("this is a request");
    assert_eq!(request.model.as_deref(), Some("acme/tiny"));
    assert_eq!(request.delivery, Delivery::Streamed);
    assert!(request.include_usage);
    assert_eq!(request.output_tokens_max, Some(7));
    assert_eq!(request.message_count(), 1);
    assert_eq!(request.prompt_tokens(), 1);
    assert_eq!(
        request.sampling,
        Sampling {
            temperature: Some(0.5),
            top_p: Some(1.0),
            seed: Some(-3),
            ..Sampling::default()
        }
    );
    assert_eq!(request.stops, ["\n"]);
    let ask = request
        .ask(RequestId(1), AccountId(2), &catalog())
        .expect("the model is known");
    assert_eq!(ask.model, ModelIx(0));
    assert_eq!(ask.output_tokens_max, 7);
    assert!(ask.prompt_tokens_bound > ask.prompt_tokens);
}

#[test]
fn null_is_the_same_as_absent() {
    let body = body(
        r#","stream":null,"stream_options":null,"max_tokens":null,"n":null,"stop":null,
        "temperature":null,"seed":null,"tools":null"#,
    );
    let request = read_chat(&body).expect("this is a request");
    assert_eq!(request.delivery, Delivery::Whole);
    assert_eq!(request.output_tokens_max, None);
    let ask = request
        .ask(RequestId(1), AccountId(2), &catalog())
        .expect("the model is known");
    assert_eq!(ask.output_tokens_max, 512);
}

#[test]
fn every_wrong_field_is_named() {
    let cases = [
        (r#","n":129"#, "n", "n must be between 1 and 128"),
        (r#","n":0"#, "n", "n must be an integer of at least 1"),
        (
            r#","max_tokens":-2"#,
            "max_tokens",
            "max_tokens must be -1 or an integer of at least 1",
        ),
        (
            r#","max_tokens":"9""#,
            "max_tokens",
            "max_tokens must be -1 or an integer of at least 1",
        ),
        (
            r#","max_tokens":1.5"#,
            "max_tokens",
            "max_tokens must be -1 or an integer of at least 1",
        ),
        (
            r#","max_tokens":0"#,
            "max_tokens",
            "max_tokens must be -1 or an integer of at least 1",
        ),
        (
            r#","max_completion_tokens":0"#,
            "max_completion_tokens",
            "max_completion_tokens must be -1 or an integer of at least 1",
        ),
        (
            r#","stream":"yes""#,
            "stream",
            "stream must be true or false",
        ),
        (
            r#","stream_options":{"include_usage":1}"#,
            "stream_options.include_usage",
            "stream_options.include_usage must be true or false",
        ),
        (
            r#","stream_options":[]"#,
            "stream_options",
            "stream_options must be an object",
        ),
        (
            r#","temperature":2.1"#,
            "temperature",
            "temperature must be between 0 and 2",
        ),
        (
            r#","temperature":"hot""#,
            "temperature",
            "temperature must be a number",
        ),
        (r#","top_p":-0.1"#, "top_p", "top_p must be between 0 and 1"),
        (r#","seed":0.5"#, "seed", "seed must be an integer"),
        (
            r#","stop":["a","b","c","d","e"],"response_format":{"type":"json_object"}"#,
            "stop",
            "stop must have at most 4 entries",
        ),
        (
            r#","stop":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"#,
            "stop",
            "stop must have at most 16 entries",
        ),
        (r#","stop":[null]"#, "stop[0]", "stop[0] must be a string"),
        (
            r#","stop":["a",""]"#,
            "stop[1]",
            "stop[1] must not be empty",
        ),
        (r#","stop":7"#, "stop", "stop must be an array"),
        (r#","model":"twice""#, "model", "model is given twice"),
    ];
    for (more, param, message) in cases {
        let envelope = Envelope::from(refused(&body(more)));
        assert_eq!(envelope.status, 400, "{more}");
        assert_eq!(envelope.param.as_deref(), Some(param), "{more}");
        assert_eq!(envelope.message, message, "{more}");
        assert_eq!(envelope.kind, "invalid_request_error");
    }
}

#[test]
fn every_wrong_message_is_named_with_its_position() {
    let good = r#"{"role":"user","content":"hi"}"#;
    let cases = [
        (r#"{"content":"hi"}"#, "messages[1].role is required"),
        (
            r#"{"role":"robot","content":"hi"}"#,
            "messages[1].role must be one of system, developer, user, assistant, tool, function",
        ),
        (
            r#"{"role":7,"content":"hi"}"#,
            "messages[1].role must be a string",
        ),
        (r#"{"role":"user"}"#, "messages[1].content is required"),
        (
            r#"{"role":"user","content":"","tool_calls":[{"function":{"name":"f"}}]}"#,
            "messages[1].tool_calls needs a message of the assistant's",
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"id":7,"function":{"name":"f"}}]}"#,
            "messages[1].tool_calls[0].id must be a string",
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":[1]}}]}"#,
            "messages[1].tool_calls[0].function must be a function with a name, and arguments that \
             are a string, or a JSON object",
        ),
        (
            r#"{"role":"user","content":7}"#,
            "messages[1].content must be a string",
        ),
        (
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}"#,
            "messages[1].content[1] must be text; other media are not supported",
        ),
        (r#"["user"]"#, "messages[1] must be an object"),
        (
            r#"{"role":"user","role":"user","content":""}"#,
            "messages[1] is given twice",
        ),
    ];
    for (message, text) in cases {
        let body = format!(r#"{{"model":"m","messages":[{good},{message}]}}"#);
        assert_eq!(refused(body.as_bytes()).to_string(), text);
    }
}

/// A server's own answer is history, however it ended.
#[test]
fn whatever_was_written_as_a_calls_arguments_is_read_again_and_reaches_templates_as_an_object() {
    let cases = [
        (r#""""#, "{}"),
        (r#"" \n ""#, "{}"),
        ("null", "{}"),
        (r#"{"x": 1}"#, r#"{"x": 1}"#),
        (r#"" {\"x\": 1}\n""#, r#"{"x": 1}"#),
        (r#""{\"x\": \"ab""#, r#"{"arguments":"{\"x\": \"ab"}"#),
        (r#""{\"x\": 1} {""#, r#"{"arguments":"{\"x\": 1} {"}"#),
        (r#""[1]""#, r#"{"arguments":"[1]"}"#),
    ];
    for form in ["tool_calls", "function_call"] {
        for (written, object) in cases {
            let function = format!(r#"{{"name":"f","arguments":{written}}}"#);
            let calls = match form {
                "tool_calls" => format!(r#"[{{"id":"1","function":{function}}}]"#),
                _ => function,
            };
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"assistant","{form}":{calls}}},
                {{"role":"tool","tool_call_id":"1","content":"cut"}}]}}"#
            );
            let request = read_chat(body.as_bytes());
            let request = request.unwrap_or_else(|refusal| panic!("{written}: {refusal}"));
            let Input::Conversation(conversation) = &request.input else {
                panic!("a conversation");
            };
            let call = &conversation.messages[0].calls[0];
            assert_eq!(call.arguments(), object, "{written}");
        }
    }
}

#[test]
fn what_is_no_request_at_all_is_told_apart() {
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let wide = format!(
        "{{{}}}",
        (0..300)
            .map(|ix| format!(r#""k{ix}":1"#))
            .collect::<Vec<_>>()
            .join(",")
    );
    let cases: [(&[u8], &str); 11] = [
        (b"", "invalid JSON at line 1 column 0"),
        (b"{", "invalid JSON at line 1 column 1"),
        (b"{\"model\":\n x}", "invalid JSON at line 2 column 2"),
        (b"[]", "the body must be a JSON object"),
        (b"7", "the body must be a JSON object"),
        (b"{} {}", "invalid JSON at line 1 column 4"),
        (b"\xff", "the body is not UTF-8 at byte 0"),
        (b"{}", "messages is required"),
        (b"{\"model\":\"m\"}", "messages is required"),
        (
            deep.as_bytes(),
            "the body nests deeper than 64 levels at byte 68",
        ),
        (wide.as_bytes(), "the body has more than 256 fields"),
    ];
    for (body, text) in cases {
        assert_eq!(refused(body).to_string(), text);
    }
    let huge = vec![b' '; BODY_SIZE_MAX + 1];
    let envelope = Envelope::from(refused(&huge));
    assert_eq!((envelope.status, envelope.code), (413, "payload_too_large"));
    let empty = r#"{"model":"m","messages":[]}"#;
    assert_eq!(
        refused(empty.as_bytes()).to_string(),
        "messages must not be empty"
    );
}

#[test]
fn lowering_fixes_the_model_and_bound_and_keeps_the_unknown() {
    let body = body(
        r#","stream":false,"max_completion_tokens":7,"stop":"x","user":"me","metadata":{"a":1},
        "provider":{"only":["p"]},"_darkbloom_x":1,"top_k":5,"big":12345678901234567890.123"#,
    );
    let request = read_chat(&body).expect("this is a request");
    let mut out = Vec::new();
    request.lower("acme/tiny-4bit", 7, &mut out);
    let text = core::str::from_utf8(&out).expect("JSON is text");
    assert!(
        text.contains(r#""big":12345678901234567890.123"#),
        "numbers stay exact"
    );
    let lowered = read(&out);
    assert_eq!(lowered["model"], "acme/tiny-4bit");
    assert_eq!(lowered["stream"], true);
    assert_eq!(lowered["max_tokens"], 7);
    assert_eq!(lowered["stop"], json!(["x"]));
    assert_eq!(lowered["top_k"], 5);
    assert_eq!(lowered["messages"][0]["content"], "2+2?");
    for gone in [
        "user",
        "metadata",
        "provider",
        "_darkbloom_x",
        "max_completion_tokens",
    ] {
        assert!(
            lowered.get(gone).is_none(),
            "{gone} must not reach a provider"
        );
    }
    assert!(lowered.get("min_tokens").is_none());
    // What a provider gets is again a request, with the same meaning.
    let again = read_chat(&out).expect("a lowered request is a request");
    assert_eq!(again.sampling, request.sampling);
    assert_eq!(again.stops, request.stops);
    assert_eq!(again.output_tokens_max, Some(7));
}

#[test]
fn the_least_length_is_lowered_with_the_bound() {
    let body = body(r#","min_tokens":900"#);
    let request = read_chat(&body).expect("this is a request");
    let mut out = Vec::new();
    request.lower("build", 512, &mut out);
    assert_eq!(read(&out)["min_tokens"], 512);
    assert!(read_chat(&out).is_ok());
}

#[test]
fn the_billing_bound_counts_all_that_a_template_can_show() {
    let plain = body("");
    let plain = read_chat(&plain).expect("this is a request");
    let tools = format!(
        r#","tools":[{{"type":"function","function":{{"name":"f","x":"{}"}}}}]"#,
        "y".repeat(1_000)
    );
    let tools = body(&tools);
    let tools = read_chat(&tools).expect("this is a request");
    assert!(tools.prompt_tokens_bound() >= plain.prompt_tokens_bound() + 1_000);
    assert!(tools.prompt_tokens() >= plain.prompt_tokens() + 250);
}

#[test]
fn the_billing_bound_is_the_same_however_the_json_is_spelled_and_leaves_out_what_no_model_sees() {
    let bound = |body: &str| {
        let request = read_chat(body.as_bytes()).expect("this is a request");
        (request.prompt_tokens(), request.prompt_tokens_bound())
    };
    let plain = r#"{"model":"m","messages":[{"role":"user","content":"caf\u00e9"}]}"#;
    let spelled = "{\"model\": \"m\",\n\n  \"messages\": [ {  \"role\": \"user\",   \"content\": \"café\" } ] }";
    assert_eq!(bound(plain), bound(spelled));
    let with = |member: &str| {
        let body = plain.strip_suffix('}').expect("an object");
        bound(&format!("{body},{member}}}"))
    };
    let tools = format!(
        r#""tools":[{{"type":"function","function":{{"name":"f","x":"{}"}}}}]"#,
        "y".repeat(1_000)
    );
    assert!(with(&tools).1 > 1_000);
    assert_eq!(
        with(&format!(r#"{tools},"tool_choice":"none""#)),
        bound(plain)
    );
    let form = r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","description":"long"}}}"#;
    assert_eq!(with(form), bound(plain));
}

#[test]
fn an_estimate_alone_refuses_no_prompt_that_may_fit() {
    let catalog = catalog();
    let context = catalog.spec(ModelIx(0)).expect("it is sold").context_tokens;
    let ask = |words: u32| {
        // Twelve bytes for what may well be one token.
        let text = "coordinator ".repeat(words as usize);
        let body = json!({"model": "acme/tiny", "max_tokens": 5,
            "messages": [{"role": "user", "content": text}]});
        let body = serde_json::to_vec(&body).expect("JSON");
        let request = read_chat(&body).expect("this is a request");
        let ask = request.ask(RequestId(1), AccountId(2), &catalog);
        ask.expect("the model is known").prompt_tokens
    };
    assert_eq!(ask(context / 2), context - 5);
    assert!(
        ask(context * 2) > context,
        "no tokenizer makes so few of it"
    );
    assert_eq!(ask(8), 24);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_panic(noise in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = read_chat(&noise);
    }

    #[test]
    fn a_damaged_body_never_panics_and_what_passes_can_be_lowered(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = body(
            r#","stop":["a"],"tools":[{"type":"function","function":{"name":"f"}}],"temperature":1"#,
        );
        let ix = place.index(body.len());
        body[ix] = byte;
        if let Ok(request) = read_chat(&body) {
            let mut out = Vec::new();
            request.lower("build", 5, &mut out);
            prop_assert!(read_chat(&out).is_ok());
        }
    }

    #[test]
    fn any_prompt_survives_lowering(text in any::<String>(), extra in any::<String>()) {
        let name = format!("x{extra}");
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}], &name: text});
        let body = serde_json::to_vec(&body).expect("JSON");
        let request = read_chat(&body).expect("this is a request");
        let mut out = Vec::new();
        request.lower("build", 5, &mut out);
        let lowered = read(&out);
        prop_assert_eq!(&lowered["messages"][0]["content"], &Value::String(text.clone()));
        prop_assert_eq!(&lowered[&name], &Value::String(text));
    }
}
