//! Schemas that are wrong, too large, or meant to hurt.

use super::*;

fn failure(schema: &str) -> Failure {
    let (compiler, _) = compiler("", &[]);
    compiler.compile(&with_schema(schema), None).unwrap_err()
}

#[test]
fn what_is_not_supported_is_refused_by_its_keyword() {
    let table = [
        (r#"{"not":{"type":"string"}}"#, "`not`"),
        (r#"{"type":"array","uniqueItems":true}"#, "`uniqueItems`"),
        (r#"{"type":"string","format":"secret"}"#, "`format`"),
        (r#"{"type":"secret"}"#, "`type`"),
        (r#"{"type":"string","pattern":"(?=secret)b"}"#, "`pattern`"),
        (
            r#"{"oneOf":[{"type":"string"},{"type":"string","maxLength":3}]}"#,
            "`oneOf`",
        ),
        (r#"{"$ref":"https://secret/schema"}"#, "`$ref`"),
        (r##"{"$ref":"#/$defs/secret"}"##, "`$ref`"),
        (r#"{"type":"string","enum":[1]}"#, "no value fits"),
        (r##"{"$ref":"#"}"##, "no value fits"),
    ];
    for (schema, part) in table {
        let failure = failure(schema);
        assert_eq!(failure.reason, Reason::ClientError);
        assert!(
            failure.text.starts_with("response_format"),
            "{schema}: {failure}"
        );
        assert!(failure.text.contains(part), "{schema}: {failure}");
        assert!(!failure.text.contains("secret"), "{failure}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let any_of: Vec<String> = (0..25)
        .map(|ix| format!(r#"{{"type":"object","properties":{{"a{ix}":{{"type":"string"}}}}}}"#))
        .collect();
    let any_of = format!(r#"{{"anyOf":[{}]}}"#, any_of.join(","));
    let product = format!(r#"{{"allOf":[{}]}}"#, [any_of.as_str(); 4].join(","));
    assert!(failure(&product).text.contains("too large"));
    let deep = format!("{}1{}", r#"{"items":"#.repeat(120), "}".repeat(120));
    assert!(failure(&deep).text.contains("response_format"));
    let tools: Vec<String> = (0..5)
        .map(|ix| {
            let text = "x".repeat(60 << 10);
            format!(
                r#"{{"type":"function","function":{{"name":"f{ix}",
                    "parameters":{{"description":"{text}"}}}}}}"#
            )
        })
        .collect();
    let tools = format!(r#","tool_choice":"required","tools":[{}]"#, tools.join(","));
    let (compiler, _) = compiler("", &[]);
    let failure = compiler.compile(&request(&tools), None).unwrap_err();
    assert!(failure.text.contains("262144 bytes"), "{failure}");
}

/// Each is taken or refused; none takes the process, or a stack, with it.
#[test]
fn nothing_hurts() {
    let nested = format!("{}a{}", "(".repeat(900), ")".repeat(900));
    let schemas = [
        r#"{"type":"array","minItems":1000000000}"#.to_owned(),
        r#"{"type":"array","maxItems":1000000000,"items":{"type":"object"}}"#.to_owned(),
        r#"{"type":"string","minLength":1000000000}"#.to_owned(),
        r#"{"type":"object","minProperties":100000}"#.to_owned(),
        r#"{"type":"integer","multipleOf":1e300}"#.to_owned(),
        r#"{"allOf":[{"multipleOf":1299709},{"multipleOf":15485863},{"multipleOf":32452843}]}"#.to_owned(),
        r#"{"type":"number","minimum":-1e308,"maximum":1.2345678901234e308}"#.to_owned(),
        r#"{"type":"string","pattern":"^((a{1,100}){1,100}){1,100}$"}"#.to_owned(),
        r#"{"type":"string","pattern":"a.{900}b"}"#.to_owned(),
        r#"{"type":"string","pattern":"^(\\p{L}|\\w){1,900}$"}"#.to_owned(),
        format!(r#"{{"type":"string","pattern":"{nested}"}}"#),
        r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##.to_owned(),
        r#"{"$schema":"secret","$id":"secret","x-guidance":{"lenient":true,"whitespace_pattern":".*"}}"#.to_owned(),
        r#"{"type":["object","object","array"],"required":["a","a"],"properties":{"":{}}}"#.to_owned(),
        r#"{"enum":[]}"#.to_owned(),
        r#"{"properties":3,"required":"x"}"#.to_owned(),
    ];
    let (compiler, _) = compiler("", &[]);
    for schema in &schemas {
        let Ok(mut constraint) = compiler.compile(&with_schema(schema), None) else {
            continue;
        };
        let mut dice = Dice(3);
        for _ in 0..200 {
            let allowed = tokens(constraint.allowed(Place::Answer));
            assert_eq!(allowed.is_empty(), constraint.is_lost(), "{schema}");
            if allowed.is_empty() {
                break;
            }
            constraint.push(allowed[dice.below(allowed.len())], Place::Answer);
        }
    }
}

#[test]
fn a_pattern_too_costly_to_follow_loses_its_way_and_says_so() {
    let (compiler, _) = compiler("", &[]);
    let schema = r#"{"type":"string","pattern":"a.{900}b"}"#;
    let mut constraint = compiler.compile(&with_schema(schema), None).unwrap();
    push_text(&mut *constraint, "\"");
    let mut dice = Dice(1);
    for _ in 0..20_000 {
        // Every `a` may be the one.
        let allowed = tokens(constraint.allowed(Place::Answer));
        if allowed.is_empty() {
            assert!(constraint.is_lost());
            return;
        }
        let token = if dice.below(2) == 0 { b'a' } else { b'x' };
        constraint.push(u32::from(token), Place::Answer);
    }
    panic!("its states have no bound");
}
