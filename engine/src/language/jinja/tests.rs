use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::{Origin, Text};
use super::value::Value;
use super::{Cause, Program};
use crate::language::clock::Moment;

/// What Jinja2 gives; `cases.py` beside it writes the file.
const CASES: &str = include_str!("../../../tests/templates/cases.json");
/// The moment of the cases: a Thursday on a leap day.
const NOW: Moment = Moment::from_unix(1_709_215_509);

#[derive(Deserialize)]
struct Cases {
    variables: Box<RawValue>,
    small: Vec<Case>,
    whole: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    /// Of a small one.
    source: Option<String>,
    /// The file of a whole one, and what it is asked to render.
    template: Option<String>,
    variables: Option<Box<RawValue>>,
    /// What it gives or how it refuses; neither where it fails.
    gives: Option<String>,
    raises: Option<String>,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Fails,
    Gives(String),
    Raises(String),
}

impl Case {
    fn outcome(&self) -> Outcome {
        let gives = self.gives.clone().map(Outcome::Gives);
        let raises = self.raises.clone().map(Outcome::Raises);
        gives.or(raises).unwrap_or(Outcome::Fails)
    }
}

fn variables(json: &str, origin: Origin) -> BTreeMap<String, Value> {
    let Ok(Value::Map(map)) = Value::from_json(json, origin) else {
        panic!("variables are an object");
    };
    let named = map
        .iter()
        .map(|(name, value)| (name.to_text().as_str().to_owned(), value.clone()));
    named.collect()
}

fn rendered(source: &str, json: &str) -> super::Result<Text> {
    let variables = variables(json, Origin::Content);
    let named = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()));
    Program::parse(source)?.render(named.collect(), NOW)
}

fn outcome(source: &str, json: &str) -> Outcome {
    match rendered(source, json) {
        Ok(text) => Outcome::Gives(text.as_str().to_owned()),
        Err(error) => match error.cause {
            Cause::Failed(_) => Outcome::Fails,
            Cause::Raised(words) => Outcome::Raises(words.as_str().to_owned()),
        },
    }
}

#[test]
fn every_small_template_gives_what_jinja2_gives() {
    let cases: Cases = serde_json::from_str(CASES).unwrap();
    assert!(cases.small.len() > 2_000);
    for case in cases.small {
        let wanted = case.outcome();
        let source = case.source.unwrap();
        assert_eq!(outcome(&source, cases.variables.get()), wanted, "{source}");
    }
}

#[test]
fn whole_chat_templates_give_what_jinja2_gives() {
    let cases: Cases = serde_json::from_str(CASES).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
    assert!(cases.whole.len() > 60);
    for case in cases.whole {
        let wanted = case.outcome();
        let name = case.template.unwrap();
        let source = fs::read_to_string(folder.join(&name)).unwrap();
        let json = case.variables.unwrap();
        assert_eq!(outcome(&source, json.get()), wanted, "{name}: {json}");
    }
}

/// The parts that came from outside.
fn outside(source: &str, json: &str) -> Vec<String> {
    let text = rendered(source, json).unwrap();
    let parts = text
        .parts()
        .filter(|(_, origin)| *origin == Origin::Content);
    parts
        .map(|(range, _)| text.as_str()[range].to_owned())
        .collect()
}

/// ENG-23.
#[test]
fn what_came_from_outside_stays_so_whatever_a_template_does_with_it() {
    let json = r#"{"x":" <b>Ab</b>, cd ","list":["p","q"],"dict":{"k":"v"}}"#;
    let table: [(&str, &[&str]); 22] = [
        ("<b>{{ x }}</b>", &[" <b>Ab</b>, cd "]),
        ("{{ '<b>' + x.strip() + '</b>' }}", &["<b>Ab</b>, cd"]),
        ("{{ '<b>' ~ x[1:4] ~ '</b>' }}", &["<b>"]),
        ("{{ ('<b>' ~ x)[2:6] }}", &[" <b"]),
        ("{{ ('-' ~ x ~ '-').split('b')[1] }}", &[">A"]),
        ("{{ x.upper() | trim }}", &["<B>AB</B>, CD"]),
        (
            "{{ x | replace('b', 'i') | trim }}",
            &["<", ">A", "</", ">, cd"],
        ),
        ("{{ [x, '!'] | join('|') }}", &[" <b>Ab</b>, cd "]),
        ("{{ x | tojson }}", &[" <b>Ab</b>, cd "]),
        ("{{ list | tojson }}", &["p", "q"]),
        ("{{ dict | tojson }}", &["k", "v"]),
        ("{{ dict }}", &["k", "v"]),
        (
            "{% for k, v in dict.items() %}{{ k }}={{ v }}{% endfor %}",
            &["k", "v"],
        ),
        (
            "{% for c in x.strip() %}{{ c }}.{% break %}{% endfor %}",
            &["<"],
        ),
        (
            "{% set y %}<i>{{ x }}</i>{% endset %}{{ y | trim }}",
            &[" <b>Ab</b>, cd "],
        ),
        (
            "{% macro f(a) %}({{ a }}){% endmacro %}{{ f(x) | upper }}",
            &[" <B>AB</B>, CD "],
        ),
        (
            "{{ '%s!' % x }}{{ '{}?'.format(list[0]) }}",
            &[" <b>Ab</b>, cd ", "p"],
        ),
        ("{{ x.partition(',')[2] | title }}", &[" Cd "]),
        ("{{ (x ~ '\\n' ~ x) | indent(2) | length }}", &[]),
        (
            "{{ x | capitalize }}{{ 'q' | center(3) }}",
            &[" <b>ab</b>, cd "],
        ),
        (
            "{{ list | map('upper') | sort(reverse=true) | first }}",
            &["Q"],
        ),
        (
            "{{ x | list | last }}{{ x | reverse | trim }}",
            &[" dc ,>b/<bA>b<"],
        ),
    ];
    for (source, parts) in table {
        assert_eq!(outside(source, json), parts, "{source}");
    }
}

#[test]
fn a_template_without_an_end_is_stopped() {
    for source in [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ range(1000000) }}",
        "{% set ns = namespace(x='y') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ '%9999999d' % 1 }}",
    ] {
        assert_eq!(outcome(source, "{}"), Outcome::Fails, "{source}");
    }
    let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(outcome(&format!("{{{{ {deep} }}}}"), "{}"), Outcome::Fails);
    let deep = "{% if 1 %}".repeat(5_000);
    assert_eq!(outcome(&deep, "{}"), Outcome::Fails);
}

#[test]
fn an_error_names_the_line_and_no_value() {
    let error = rendered(
        "a\n{% if true %}\n{{ x + 1 }}{% endif %}",
        r#"{"x":"secret"}"#,
    );
    let error = error.err().unwrap();
    assert_eq!(error.line, Some(3));
    let Cause::Failed(text) = error.cause else {
        panic!("it breaks");
    };
    assert!(!text.contains("secret"), "{text}");
}
