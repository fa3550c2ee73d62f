//! The body of a request, by each API: read or refused, never a panic; and what a provider gets is
//! the same request, bounded, without what is not its business.
#![no_main]

use std::collections::BTreeMap;

use cereus_core::api::{Api, Envelope, Input, Refusal, Request};
use cereus_fuzz::nested::unfolded;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const BUILD: &str = "build \"7\"";
const OUTPUT_TOKENS: u32 = 77;

/// Members that the provider gets in another form, or not at all.
const OWN: [&str; 20] = [
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "metadata",
    "metadata_details",
    "min_tokens",
    "model",
    "models",
    "plugins",
    "prompt_cache_key",
    "provider",
    "route",
    "routing",
    "safety_identifier",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "user",
];

fuzz_target!(|input: &[u8]| {
    let body = unfolded(input);
    for api in [Api::Chat, Api::Completions] {
        match Request::read(api, &body) {
            Ok(request) => accepted(&body, &request),
            Err(refusal) => refused(refusal),
        }
    }
});

fn accepted(body: &[u8], request: &Request<'_>) {
    assert!(request.message_count() > 0);
    assert!(
        request.prompt_tokens() <= request.prompt_tokens_bound(),
        "an estimate above the bound"
    );
    let mut lowered = vec![];
    request.lower(BUILD, OUTPUT_TOKENS, &mut lowered);
    let again = Request::read(request.api, &lowered).expect("a lowered request can be served");
    assert_eq!(again.model.as_deref(), Some(BUILD));
    assert_eq!(again.output_tokens_max, Some(OUTPUT_TOKENS));
    assert_eq!(again.sampling, request.sampling);
    assert_eq!(again.stops, request.stops);
    assert_eq!(again.form, request.form);
    assert_eq!(again.message_count(), request.message_count());
    said(request);
    assert_eq!(again.prompt_tokens_bound(), request.prompt_tokens_bound());
    let before: BTreeMap<String, &RawValue> = serde_json::from_slice(body).expect("it was read");
    let after: BTreeMap<String, &RawValue> = serde_json::from_slice(&lowered).expect("as above");
    for (name, value) in &before {
        let is_withheld = OWN.contains(&name.as_str())
            || name.starts_with("_cereus_")
            || name.starts_with("_darkbloom_");
        if !is_withheld {
            let kept = after.get(name).map(|raw| raw.get());
            assert_eq!(kept, Some(value.get()), "a member was lost or changed");
        }
    }
    for name in after.keys() {
        let rewritten = [
            "max_tokens",
            "min_tokens",
            "model",
            "stop",
            "stream",
            "stream_options",
        ];
        let is_rewritten = rewritten.contains(&name.as_str());
        let is_own = OWN.contains(&name.as_str());
        assert!(
            is_rewritten || (before.contains_key(name) && !is_own),
            "a member was added"
        );
    }
}

/// All texts can be had, of the sizes that were told.
fn said(request: &Request<'_>) {
    match &request.input {
        Input::Conversation(conversation) => {
            for message in &conversation.messages {
                let told = usize::try_from(message.content.size()).expect("it fits a body");
                // Half of a surrogate pair is told by its own size and shown as another character.
                assert!(message.content.to_text().len() <= told * 3 + 9);
                for call in &message.calls {
                    let arguments = call.arguments();
                    serde_json::from_str::<&RawValue>(&arguments).expect("arguments are JSON");
                }
            }
        }
        Input::Prompts(prompts) => assert!(!prompts.is_empty()),
    }
}

fn refused(refusal: Refusal) {
    let envelope = Envelope::from(refusal);
    let is_known = [400, 404, 413, 415, 422].contains(&envelope.status);
    assert!(is_known, "status {}", envelope.status);
    let mut written = vec![];
    envelope.write(&mut written);
    let read: serde_json::Value = serde_json::from_slice(&written).expect("an error is JSON");
    assert!(
        read["error"]["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
}
