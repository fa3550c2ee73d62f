//! What each family's grammar allows is what its parser reads.

use super::*;

/// Two functions, one of which takes every kind of argument.
const TOOLS: &str = r#","tools":[
    {"type":"function","function":{"name":"look_up","parameters":{"type":"object",
        "properties":{"word":{"type":"string"},"count":{"type":"integer"},
            "deep":{"type":"boolean"},"how":{"enum":["fast","slow"]},
            "at":{"type":"object","properties":{"x":{"type":"number"}},"required":["x"]},
            "list":{"type":"array","items":{"type":"integer"}}},
        "required":["word","how","count"],"additionalProperties":false}}},
    {"type":"function","function":{"name":"now"}}]"#;

struct Writes {
    name: &'static str,
    template: &'static str,
    marks: &'static [&'static str],
}

const FAMILIES: [Writes; 9] = [
    Writes {
        name: "tagged JSON",
        template: "tools <tool_call>",
        marks: &["<tool_call>", "</tool_call>"],
    },
    Writes {
        name: "tagged JSON, without tokens for its marks",
        template: "tools <tool_call>",
        marks: &[],
    },
    Writes {
        name: "tags",
        template: "<tool_call> <function=",
        marks: &["<tool_call>", "</tool_call>"],
    },
    Writes {
        name: "llama",
        template: "",
        marks: &["<|python_tag|>"],
    },
    Writes {
        name: "mistral, names",
        template: "[TOOL_CALLS]",
        marks: &["[TOOL_CALLS]", "[ARGS]"],
    },
    Writes {
        name: "mistral, an array",
        template: "[TOOL_CALLS]",
        marks: &["[TOOL_CALLS]"],
    },
    Writes {
        name: "gemma",
        template: "<|tool_call> <|channel>",
        marks: &[
            "<|tool_call>",
            "<tool_call|>",
            "<|\"|>",
            "<|channel>",
            "<channel|>",
        ],
    },
    Writes {
        name: "function gemma, without tokens for its marks",
        template: "<start_function_call>",
        marks: &[],
    },
    Writes {
        name: "harmony",
        template: "",
        marks: &[
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|constrain|>",
            "<|end|>",
        ],
    },
];

/// What was read of an answer, with its calls put together.
struct Read {
    content: String,
    reasoning: String,
    calls: Vec<WrittenCall>,
}

fn read(dialect: Dialect, request: &ChatRequest, answer: &str) -> Read {
    let calling = Calling::of(&request.tools);
    let mut parser = AnswerParser::new(dialect, calling, "");
    let mut said = Said::default();
    parser.push(answer, &mut said);
    parser.finish(TextEnd::Whole, &mut said);
    Read {
        calls: Called::gathered(&said.calls),
        content: said.content,
        reasoning: said.reasoning,
    }
}

fn check_arguments(name: &str, arguments: &Value) {
    let members = arguments.as_object().unwrap();
    if name == "now" {
        return;
    }
    assert_eq!(name, "look_up");
    assert!(arguments["word"].is_string() || arguments["word"].is_null());
    assert!(arguments["how"] == "fast" || arguments["how"] == "slow");
    let fits = |member: &str, is_right: &dyn Fn(&Value) -> bool| {
        assert!(members.get(member).is_none_or(is_right), "{arguments}");
    };
    fits("count", &Value::is_number);
    fits("deep", &Value::is_boolean);
    fits("at", &|at| at["x"].is_number());
    fits("list", &|list| {
        list.as_array().unwrap().iter().all(Value::is_number)
    });
    assert!(members.contains_key("count"));
}

/// Random answers of one family; how many calls each held, and of which functions.
fn calls(family: &Writes, extra: &str, seeds: u64) -> Vec<Vec<String>> {
    let (compiler, dialect) = compiler(family.template, family.marks);
    let request = request(&format!("{TOOLS}{extra}"));
    let mut all = vec![];
    for seed in 0..seeds {
        let answer = random_answer(&compiler, &request, &mut Dice(seed));
        let said = read(dialect, &request, &answer);
        assert_eq!(said.content.trim(), "", "{}: {answer}", family.name);
        assert!(!said.calls.is_empty(), "{}: {answer}", family.name);
        for call in &said.calls {
            check_arguments(&call.name, &serde_json::from_str(&call.arguments).unwrap());
        }
        all.push(said.calls.into_iter().map(|call| call.name).collect());
    }
    all
}

#[test]
fn a_demanded_call_is_a_call_in_every_family() {
    for family in &FAMILIES {
        let all = calls(family, r#","tool_choice":"required""#, 12).concat();
        for name in ["look_up", "now"] {
            assert!(
                all.iter().any(|it| it == name),
                "{} never calls {name}",
                family.name
            );
        }
    }
}

#[test]
fn a_named_function_is_the_one_that_is_called() {
    let named = r#","tool_choice":{"type":"function","function":{"name":"look_up"}}"#;
    for family in &FAMILIES {
        assert!(
            calls(family, named, 4)
                .concat()
                .iter()
                .all(|name| name == "look_up")
        );
    }
}

#[test]
fn one_call_is_one_where_no_more_are_wanted() {
    let one = r#","tool_choice":"required","parallel_tool_calls":false"#;
    for family in &FAMILIES {
        assert!(calls(family, one, 6).iter().all(|calls| calls.len() == 1));
    }
    let several = calls(&FAMILIES[0], r#","tool_choice":"required""#, 12);
    assert!(several.iter().any(|calls| calls.len() > 1));
}

#[test]
fn strict_functions_leave_text_free_and_hold_calls_to_their_schemas() {
    let strict = TOOLS.replace(r#""name":"now""#, r#""name":"now","strict":true"#);
    for family in &FAMILIES {
        let (compiler, dialect) = compiler(family.template, family.marks);
        let request = request(&strict);
        assert!(request.is_constrained());
        let mut calls = 0;
        for seed in 0..12 {
            let answer = random_answer(&compiler, &request, &mut Dice(seed));
            for call in read(dialect, &request, &answer).calls {
                check_arguments(&call.name, &serde_json::from_str(&call.arguments).unwrap());
                calls += 1;
            }
        }
        // Llama has no mark at all: there random text is seldom a call.
        assert!(calls > 0 || family.name == "llama", "{}", family.name);
    }
}

#[test]
fn json_or_a_call_may_come_where_both_are_asked_for() {
    let both = format!(r#"{TOOLS},"response_format":{{"type":"json_object"}}"#);
    let (compiler, dialect) = compiler(FAMILIES[0].template, FAMILIES[0].marks);
    let request = request(&both);
    let (mut calls, mut objects) = (0, 0);
    for seed in 0..20 {
        let answer = random_answer(&compiler, &request, &mut Dice(seed));
        let said = read(dialect, &request, &answer);
        if said.calls.is_empty() {
            assert!(
                serde_json::from_str::<Value>(&said.content)
                    .unwrap()
                    .is_object()
            );
            objects += 1;
        } else {
            calls += 1;
        }
    }
    assert!(calls > 0 && objects > 0);
}

#[test]
fn harmony_thinks_first_and_answers_on_the_final_channel() {
    let harmony = FAMILIES.last().unwrap();
    let (compiler, dialect) = compiler(harmony.template, harmony.marks);
    let request = with_schema(PERSON);
    let mut thoughts = 0;
    for seed in 0..20 {
        let answer = random_answer(&compiler, &request, &mut Dice(seed));
        let said = read(dialect, &request, &answer);
        check_person(&serde_json::from_str(&said.content).unwrap());
        thoughts += usize::from(!said.reasoning.is_empty());
    }
    assert!((1..20).contains(&thoughts));
}

#[test]
fn names_that_a_family_cannot_write_are_left_out_or_refused() {
    let tools = |required: &str| {
        request(&format!(
            r#","tool_choice":"required","tools":[{{"type":"function","function":{{"name":"f",
                "parameters":{{"properties":{{"a>b:c":{{"type":"integer"}}}}{required}}}}}}}]"#
        ))
    };
    for family in [&FAMILIES[2], &FAMILIES[6]] {
        let (compiler, _) = compiler(family.template, family.marks);
        let answer = random_answer(&compiler, &tools(""), &mut Dice(1));
        assert!(!answer.contains("a>b"), "{answer}");
        let failure = compiler
            .compile(&tools(r#","required":["a>b:c"]"#), None)
            .unwrap_err();
        assert!(failure.text.contains("cannot write"), "{failure}");
    }
}

#[test]
fn a_call_that_ends_a_thought_is_held_to_its_schema() {
    let marks = ["<think>", "</think>", "<tool_call>", "</tool_call>"];
    let (compiler, _) = compiler("tools <tool_call>", &marks);
    let [open, call] = ["<think>", "<tool_call>"].map(|mark| mark_id(mark).unwrap());
    for extra in ["", r#","tool_choice":"required""#] {
        let strict = TOOLS.replace(r#""name":"now""#, r#""name":"now","strict":true"#);
        let request = request(&format!("{strict}{extra}"));
        let mut constraint = compiler.compile(&request, None).unwrap();
        constraint.push(open, Place::Answer);
        assert!(tokens(constraint.allowed(Place::Thought)).contains(&call));
        constraint.push(u32::from(b'x'), Place::Thought);
        constraint.push(call, Place::Thought);
        push_text(
            &mut *constraint,
            "\n{\"name\": \"now\", \"arguments\": {}}\n",
        );
        let close = mark_id("</tool_call>").unwrap();
        assert_eq!(tokens(constraint.allowed(Place::Answer)), [close]);
    }
}
