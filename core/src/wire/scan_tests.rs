use proptest::prelude::*;

use super::*;

/// What the whole path says of one shape of input.
#[derive(Debug, PartialEq)]
enum Verdict<'a> {
    Scanned(&'a str),
    FellBack(&'a str),
    Refused,
}

fn verdict_is(frame: &[u8], expected: &Verdict<'_>) {
    let shown = String::from_utf8_lossy(&frame[..frame.len().min(80)]);
    match (scan_type(frame), frame_type(frame)) {
        (Some(scanned), Ok(whole)) => {
            assert_eq!(&Verdict::Scanned(scanned), expected, "{shown}");
            assert_eq!(scanned, whole, "{shown}");
        }
        (None, Ok(whole)) => assert_eq!(&Verdict::FellBack(&whole), expected, "{shown}"),
        (None, Err(TypeUnreadable)) => assert_eq!(&Verdict::Refused, expected, "{shown}"),
        (Some(scanned), Err(TypeUnreadable)) => {
            panic!("{shown}: the path refused what the scan read as {scanned}")
        }
    }
}

#[test]
fn the_fallback_matrix_holds() {
    use Verdict::{FellBack, Refused, Scanned};
    let table: &[(&str, Verdict<'_>)] = &[
        (r#"{"type":"a","x":1}"#, Scanned("a")),
        (r#"{"x":1,"type":"a"}"#, Scanned("a")),
        (
            " \t\r\n{ \"x\" : [1 , 2] ,\n\"type\"\t:\r\"a\" } ",
            Scanned("a"),
        ),
        (
            r#"{"x":{"type":"no"},"y":[{"type":"no"}],"type":"a"}"#,
            Scanned("a"),
        ),
        (r#"{"x":1,"x":2,"type":"a","y":3,"y":4}"#, Scanned("a")),
        (r#"{"x":"\"type\":\"no\"\\","type":"a"}"#, Scanned("a")),
        (r#"{"x":[{"q":"}]\\\""}],"type":"a"}"#, Scanned("a")),
        (r#"{"type":""}"#, Scanned("")),
        (r#"{"type":"a","x":true,"y":null,"z":-1.5e3}"#, Scanned("a")),
        (r#"{"\u0078":1,"type":"a"}"#, FellBack("a")),
        (r#"{"type":"\u0061"}"#, FellBack("a")),
        (r#"{"ty\u0070e":"a"}"#, FellBack("a")),
        (r#"{"type":"a","type":"b"}"#, FellBack("b")),
        (r#"{"Type":"a","type":"b"}"#, FellBack("b")),
        (r#"{"type":"a","TYPE":"b"}"#, FellBack("b")),
        (r#"{"Type":"a"}"#, FellBack("a")),
        (r#"{"type":1}"#, Refused),
        (r#"{"type":true}"#, Refused),
        (r#"{"type":null}"#, FellBack("")),
        (r#"{"type":{}}"#, Refused),
        (r#"{"type":[]}"#, Refused),
        ("", Refused),
        ("{}", FellBack("")),
        (r#"{"x":1}"#, FellBack("")),
        ("{", Refused),
        (r#"{"type"#, Refused),
        (r#"{"type":"a"#, Refused),
        (r#"{"type":"a""#, Refused),
        (r#"{"type":"a","x":"\"#, Refused),
        (r#"{"type":"a","x":[[[{"#, Refused),
        (r#"["type","a"]"#, Refused),
        (r#""type""#, Refused),
        ("7", Refused),
        ("null", Refused),
        (r#"{"type":"a";"x":1}"#, Refused),
    ];
    for (frame, expected) in table {
        verdict_is(frame.as_bytes(), expected);
    }
}

#[test]
fn the_scan_does_not_look_behind_the_closing_brace() {
    assert_eq!(scan_type(br#"{"type":"a"} trailing"#), Some("a"));
    assert_eq!(
        decode_type(br#"{"type":"a"} trailing"#),
        Err(TypeUnreadable)
    );
}

#[test]
fn depth_and_backslashes_are_walked_not_recursed() {
    let deep = format!(
        r#"{{"x":{}{},"type":"a"}}"#,
        "[".repeat(1_000),
        "]".repeat(1_000)
    );
    assert_eq!(scan_type(deep.as_bytes()), Some("a"));
    assert_eq!(decode_type(deep.as_bytes()).as_deref(), Ok("a"));
    let open = format!(r#"{{"x":{}"#, "[".repeat(10_000));
    assert_eq!(scan_type(open.as_bytes()), None);
    assert_eq!(frame_type(open.as_bytes()), Err(TypeUnreadable));
    assert_eq!(
        frame_type("[".repeat(10_000).as_bytes()),
        Err(TypeUnreadable)
    );
    for count in [9_999, 10_000] {
        let slashes = format!(r#"{{"x":"{}","type":"a"}}"#, "\\".repeat(count));
        let expected = (count % 2 == 0).then_some("a");
        assert_eq!(scan_type(slashes.as_bytes()), expected);
    }
    assert_eq!(scan_type(b"{\"type\":\"\xff\xfe\"}"), None);
}

/// JSON-like text rich in what the scan has to decide on.
fn document() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => Just(r#""type""#.to_owned()),
        1 => Just(r#""Type""#.to_owned()),
        1 => Just(r#""ty\u0070e""#.to_owned()),
        3 => Just(r#""x""#.to_owned()),
        1 => Just(r#""a\"b""#.to_owned()),
    ];
    let scalar = prop_oneof![
        4 => Just(r#""heartbeat""#.to_owned()),
        1 => Just(r#""a\\""#.to_owned()),
        1 => Just("null".to_owned()),
        1 => Just("-12.5e3".to_owned()),
        1 => Just("true".to_owned()),
        1 => Just(r#""}{][,:""#.to_owned()),
    ];
    let value = scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(inner, 0..3).prop_map(|all| {
                let all: Vec<String> = all.iter().map(|v| format!(r#""type":{v}"#)).collect();
                format!("{{{}}}", all.join(" , "))
            }),
        ]
    });
    let space = prop_oneof![Just(""), Just(" "), Just("\n\t")];
    prop::collection::vec((key, space, value), 0..5).prop_map(|members| {
        let members: Vec<String> = members
            .iter()
            .map(|(key, space, value)| format!("{key}{space}:{space}{value}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #[test]
    fn a_successful_scan_agrees_with_the_general_decoder(text in document()) {
        let general = decode_type(text.as_bytes());
        if let Some(scanned) = scan_type(text.as_bytes()) {
            prop_assert_eq!(general.as_deref(), Ok(scanned));
        }
    }

    #[test]
    fn a_mutated_document_never_panics_and_never_disagrees(
        text in document(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let is_valid = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
        if let (Some(scanned), true) = (scan_type(&bytes), is_valid) {
            let general = decode_type(&bytes);
            prop_assert_eq!(general.as_deref(), Ok(scanned));
        }
        let _ = frame_type(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = scan_type(&bytes);
        let _ = frame_type(&bytes);
    }
}
