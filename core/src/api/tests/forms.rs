//! The ways in which clients ask for a form, and for calls.

use crate::api::*;

fn read(more: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{more}}}"#)
}

fn refused(more: &str) -> String {
    let body = read(more);
    let refusal = Request::read(Api::Chat, body.as_bytes()).expect_err("it cannot be honoured");
    refusal.to_string()
}

#[test]
fn every_way_of_asking_for_a_form_is_one_form() {
    let schema = r#"{"enum":["yes"]}"#;
    let quoted = r#""{\"enum\":[\"yes\"]}""#;
    let schemas = [
        format!(
            r#""response_format":{{"type":"json_schema","json_schema":{{"schema":{schema}}}}}"#
        ),
        format!(r#""response_format":{{"type":"json_schema","schema":{schema}}}"#),
        format!(r#""response_format":{{"type":"json_object","schema":{schema}}}"#),
        format!(r#""json_schema":{schema}"#),
        format!(r#""guided_json":{schema}"#),
        format!(r#""guided_json":{quoted}"#),
        format!(r#""structured_outputs":{{"json":{schema}}}"#),
    ];
    for more in schemas {
        let body = read(&more);
        let request = Request::read(Api::Chat, body.as_bytes()).expect("it is a request");
        assert!(request.must_have_form());
        let Form::Schema { schema: found, .. } = &request.form else {
            panic!("{more} is no schema");
        };
        assert_eq!(found, schema, "{more}");
    }
    let others = [
        (r#""response_format":{"type":"text"}"#, Form::Text),
        (r#""response_format":{"type":"json_object"}"#, Form::Json),
        (r#""structured_outputs":{"json_object":true}"#, Form::Json),
        (
            r#""guided_choice":["yes"]"#,
            Form::Choice(vec!["yes".into()]),
        ),
        (
            r#""structured_outputs":{"choice":["yes"]}"#,
            Form::Choice(vec!["yes".into()]),
        ),
        (r#""guided_regex":"y/e+s""#, Form::Regex("y/e+s".into())),
        (
            r#""structured_outputs":{"regex":"yes"}"#,
            Form::Regex("yes".into()),
        ),
    ];
    for (more, form) in others {
        let body = read(more);
        let request = Request::read(Api::Chat, body.as_bytes()).expect("it is a request");
        assert_eq!(request.form, form, "{more}");
    }
}

#[test]
fn what_no_answer_can_be_held_to_is_refused_by_name() {
    let table = [
        (r#""grammar":"root ::= x""#, "grammar is not supported"),
        (
            r#""structured_outputs":{"grammar":"x"}"#,
            "structured_outputs must be an object with one of",
        ),
        (
            r#""response_format":{"type":"secret"}"#,
            "response_format must be of type",
        ),
        (
            r#""response_format":{"type":"json_schema"}"#,
            "response_format.json_schema.schema is required",
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"schema":[]}}"#,
            "response_format.json_schema.schema must be a JSON schema",
        ),
        (r#""guided_choice":[]"#, "guided_choice must not be empty"),
        (
            r#""guided_choice":["a",7]"#,
            "guided_choice[1] must be a string",
        ),
        (
            r#""guided_json":"secret""#,
            "guided_json must be a JSON schema",
        ),
        (
            r#""guided_json":{},"guided_choice":["a"]"#,
            "guided_choice and guided_json exclude each other",
        ),
        (
            r#""guided_json":{"properties":{"a":{"not":{}}}}"#,
            "guided_json uses `not`",
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"schema":
                {"items":{"anyOf":[{"if":{}}]}}}}"#,
            "response_format.json_schema.schema uses `if`",
        ),
        (
            r#""tool_choice":"required","tools":[{"type":"function","function":{"name":"f",
                "parameters":{"uniqueItems":true}}}]"#,
            "tools[0].function.parameters uses `uniqueItems`",
        ),
        (r#""tools":{}"#, "tools must be an array"),
        (
            r#""tools":[{"type":"retrieval"}]"#,
            "tools[0] must be {\"type\"",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"secret name"}}]"#,
            "tools[0].function must be a function with a name",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f"}},
                {"type":"function","function":{"name":"f"}}]"#,
            "tools[1] must be a function whose name no other has",
        ),
        (r#""tool_choice":"required""#, "tool_choice needs tools"),
        (
            r#""tool_choice":"secret""#,
            "tool_choice must be none, auto",
        ),
        (
            r#""functions":[{"name":"f"}],"function_call":{"name":"f"}"#,
            "functions is not supported: send `tools`",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f"}}],
                "tool_choice":{"type":"function","function":{"name":"g"}}"#,
            "tool_choice needs a function of that name",
        ),
        (
            r#""reasoning_effort":"secret""#,
            "reasoning_effort must be one of",
        ),
        (
            r#""logprobs":true,"top_logprobs":21"#,
            "top_logprobs must be between 0 and 20",
        ),
        (r#""top_logprobs":1"#, "top_logprobs needs logprobs"),
        (
            r#""logit_bias":{"secret":1}"#,
            "logit_bias must be an object of token numbers",
        ),
        (
            r#""logit_bias":{"5":101}"#,
            "logit_bias must be an object of token numbers",
        ),
        (
            r#""min_tokens":9,"max_tokens":8"#,
            "min_tokens must be at most max_tokens",
        ),
        (
            r#""repetition_penalty":0"#,
            "repetition_penalty must be between 0.01 and 2",
        ),
    ];
    for (more, expected) in table {
        let text = refused(more);
        assert!(text.starts_with(expected), "{text} should say {expected}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn a_keyword_counts_where_it_is_one_and_not_where_it_is_a_name() {
    for more in [
        r#""guided_json":{"properties":{"not":{"type":"string"},"if":{}},"required":["not"]}"#,
        r#""guided_json":{"enum":[{"not":1}],"$defs":{"unused":{"not":{}}}}"#,
        // The model decides whether to call: nothing is held to this schema.
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"not":{}}}}]"#,
    ] {
        let body = read(more);
        assert!(Request::read(Api::Chat, body.as_bytes()).is_ok(), "{more}");
    }
}

#[test]
fn calls_of_earlier_turns_may_have_their_older_names() {
    let body = r#"{"messages":[{"role":"assistant","function_call":{"name":"f","arguments":"{}"}},
        {"role":"function","name":"f","content":"T"}]}"#;
    let request = Request::read(Api::Chat, body.as_bytes()).expect("it is a request");
    let Input::Conversation(conversation) = &request.input else {
        panic!("a conversation");
    };
    assert_eq!(conversation.messages[0].calls[0].name.text(), "f");
    assert_eq!(conversation.messages[1].role, Role::Tool);
}

#[test]
fn a_choice_of_tools_comes_in_several_shapes() {
    let tools = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
    let shapes = [
        (r#""auto""#, ToolChoice::Auto),
        (r#"{"type":"auto"}"#, ToolChoice::Auto),
        (r#""none""#, ToolChoice::Never),
        (r#""required""#, ToolChoice::Required),
        (
            r#"{"type":"function","name":"f"}"#,
            ToolChoice::Named("f".into()),
        ),
        (
            r#"{"type":"function","function":{"name":"f"}}"#,
            ToolChoice::Named("f".into()),
        ),
    ];
    for (json, choice) in shapes {
        let body = read(&format!(r#"{tools},"tool_choice":{json}"#));
        let request = Request::read(Api::Chat, body.as_bytes()).expect("it is a request");
        assert_eq!(request.tools.choice, choice, "{json}");
        assert_eq!(request.tools.may_be_called(), choice != ToolChoice::Never);
    }
}
