//! Answers that must have a form, of real models: whatever the model would say, and however hot it
//! is sampled, what it says fits.
#![cfg(feature = "mlx")]

#[path = "support/start.rs"]
mod start;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cereus_core::draw::Seed;
use cereus_engine::runtime::{EngineConfig, Event, FinishReason, Job, MlxBackend};
use cereus_engine::scheduler::RowId;
use serde_json::Value;
use start::start_with;
use support::write_byte_folder;

#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    text: String,
    calls: Vec<(String, String)>,
    end: Option<FinishReason>,
}

/// What came of each body; all are served together.
fn serve(folder: &Path, rows_max: u16, bodies: &[String]) -> Vec<Heard> {
    let mut config = EngineConfig::reference(1 << 28, Seed::from_number(5));
    config.rows_max = rows_max;
    let folder: PathBuf = folder.to_owned();
    let (engine, heard) = start_with(&config, move || MlxBackend::open(&folder));
    for (id, body) in (0..).zip(bodies) {
        let job = Job {
            id: RowId(id),
            body: body.clone().into_bytes(),
            scope: None,
        };
        engine.submit(job).unwrap();
    }
    engine.stop();
    let mut answers: BTreeMap<u64, Heard> = BTreeMap::new();
    for event in heard {
        match event {
            Event::Accepted { id, .. } => drop(answers.insert(id.0, Heard::default())),
            Event::Delta { id, delta } => {
                let answer = answers.get_mut(&id.0).unwrap();
                answer.text += &delta.content;
                for piece in delta.calls {
                    match piece.begun {
                        Some(begun) => answer.calls.push((begun.name, piece.arguments)),
                        None => answer.calls.last_mut().unwrap().1 += &piece.arguments,
                    }
                }
            }
            Event::Finished(finished) => {
                answers.get_mut(&finished.id.0).unwrap().end = Some(finished.reason);
            }
            Event::Failed { id, failure } => panic!("{}: {failure}", id.0),
        }
    }
    answers.into_values().collect()
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")
}

const SCHEMA: &str = r#"{"type":"object","properties":{
    "word":{"type":"string","maxLength":12},"count":{"type":"integer","minimum":0,"maximum":99},
    "kind":{"enum":["noun","verb"]},"list":{"type":"array","items":{"type":"boolean"},"maxItems":3}},
    "required":["word","count","kind"],"additionalProperties":false}"#;

fn body(seed: u64, extra: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"What is Cereus?"}}],"temperature":1.0,
            "max_tokens":300,"seed":{seed}{extra}}}"#
    )
}

fn under_schema(seed: u64) -> String {
    let format = r#""type":"json_schema","json_schema":{"name":"a","strict":true,"schema":"#;
    body(
        seed,
        &format!(r#","response_format":{{{format}{SCHEMA}}}}}"#),
    )
}

fn check(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let members = value.as_object().unwrap();
    assert!(
        value["word"].as_str().unwrap().chars().count() <= 12,
        "{text}"
    );
    assert!(value["count"].as_u64().unwrap() <= 99, "{text}");
    assert!(value["kind"] == "noun" || value["kind"] == "verb", "{text}");
    if let Some(list) = members.get("list") {
        let list = list.as_array().unwrap();
        assert!(
            list.len() <= 3 && list.iter().all(Value::is_boolean),
            "{text}"
        );
    }
    let known = ["word", "count", "kind", "list"];
    assert!(
        members.keys().all(|name| known.contains(&name.as_str())),
        "{text}"
    );
}

#[test]
fn hot_answers_under_a_schema_fit_it_and_do_not_depend_on_the_batch() {
    let free = body(0, "");
    let mut bodies: Vec<String> = (0..8).map(under_schema).collect();
    bodies.push(free.clone());
    let together = serve(&tiny(), 9, &bodies);
    for heard in &together[..8] {
        check(&heard.text);
        assert_eq!(heard.end, Some(FinishReason::Stop));
    }
    let distinct: std::collections::BTreeSet<&str> = together[..8]
        .iter()
        .map(|heard| heard.text.as_str())
        .collect();
    assert!(distinct.len() > 4, "seeds are heeded");
    // The same seed alone says the same, with a form and without.
    assert_eq!(
        serve(&tiny(), 1, &[under_schema(3), free])[..],
        [together[3].clone(), together[8].clone()]
    );
}

#[test]
fn a_model_that_knows_nothing_fits_the_schema_as_well() {
    let folder = tempfile::tempdir().unwrap();
    write_byte_folder(folder.path(), 3);
    let bodies: Vec<String> = (0..4).map(under_schema).collect();
    for heard in serve(folder.path(), 4, &bodies) {
        // Bytes drawn at random may well go on beyond the bound; what ended is whole.
        if heard.end == Some(FinishReason::Stop) {
            check(&heard.text);
        } else {
            assert!(heard.text.trim_start().starts_with('{'), "{}", heard.text);
        }
    }
}

#[test]
fn a_demanded_call_comes_even_of_a_model_that_never_saw_a_tool() {
    let tools = format!(
        r#","tool_choice":"required","parallel_tool_calls":false,"tools":[{{"type":"function",
            "function":{{"name":"define","parameters":{SCHEMA}}}}}]"#
    );
    let bodies: Vec<String> = (0..6).map(|seed| body(seed, &tools)).collect();
    for heard in serve(&tiny(), 6, &bodies) {
        let [(name, arguments)] = &heard.calls[..] else {
            panic!("one call: {heard:?}");
        };
        assert_eq!(name, "define");
        check(arguments);
        assert_eq!(heard.end, Some(FinishReason::ToolCalls));
        assert_eq!(heard.text, "");
    }
}

#[test]
fn greedy_json_is_an_object_or_cut_by_the_bound() {
    let json = r#","response_format":{"type":"json_object"}"#;
    let greedy = body(0, json).replace(r#""temperature":1.0"#, r#""temperature":0"#);
    let heard = serve(&tiny(), 1, &[greedy]).remove(0);
    if heard.end == Some(FinishReason::Stop) {
        let value: Value = serde_json::from_str(&heard.text).unwrap();
        assert!(value.is_object());
    } else {
        assert!(heard.text.trim_start().starts_with('{'));
    }
}
