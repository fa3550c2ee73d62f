use super::*;

#[test]
fn a_streamed_answer_arrives_in_the_consumers_shape() {
    let mut scene = Scene::new(Delivery::Streamed);
    assert_eq!(scene.chunk(FIRST, PREAMBLE), []);
    assert_eq!(
        scene.says("hel"),
        [RelayEffect::AttemptStarted { attempt: FIRST }]
    );
    assert_eq!(
        scene.step(RelayEvent::Released),
        [RelayEffect::Open, RelayEffect::Readable]
    );
    assert_eq!(scene.says("lo"), [RelayEffect::Readable]);
    assert_eq!(scene.chunk(FIRST, FINISH), []);
    assert_eq!(scene.chunk(FIRST, "data: [DONE]\n\n"), []);
    assert_eq!(scene.complete(), []);
    assert_eq!(scene.relay.shown_of(FIRST), shown(2, 5));
    assert_eq!(scene.finish(), [RelayEffect::Readable, RelayEffect::Close]);

    let text = scene.taken();
    assert_eq!(text.matches("[DONE]").count(), 1);
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(!text.contains("secret-build"), "the build is not public");
    let events = events(&text);
    assert_eq!(said(&events), "hello");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(events[1]["choices"][0]["delta"].get("role").is_none());
    for event in &events {
        assert_eq!(event["model"], "public");
        assert_eq!(event["object"], "chat.completion.chunk");
    }
    assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[3]["usage"]["total_tokens"], 5);
    assert!(scene.relay.is_over());
}

#[test]
fn a_whole_answer_is_gathered_and_comes_at_once() {
    let mut scene = Scene::new(Delivery::Whole);
    assert_eq!(
        scene.says("hel"),
        [RelayEffect::AttemptStarted { attempt: FIRST }]
    );
    assert_eq!(scene.step(RelayEvent::Released), []);
    assert_eq!(scene.says("lo"), []);
    scene.chunk(FIRST, FINISH);
    scene.complete();
    assert_eq!(scene.taken(), "", "the settlement is not durable yet");
    assert_eq!(
        scene.finish(),
        [RelayEffect::Open, RelayEffect::Readable, RelayEffect::Close]
    );
    let whole: Value = serde_json::from_str(&scene.taken()).expect("JSON");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["content"], "hello");
    assert_eq!(whole["usage"]["completion_tokens"], 2);
}

/// What a machine streams does not depend on what its consumer asked by.
#[test]
fn chunks_of_chat_completions_are_relayed_as_plain_completions() {
    let mut scene = Scene::of(Api::Completions, Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.chunk(FIRST, PREAMBLE);
    scene.says("é");
    let token = r#"data: {"choices":[{"delta":{"content":"l\u00f6"},"logprobs":{"content":[
        {"token":"l\u00f6","logprob":-0.5,"top_logprobs":[{"token":"a","logprob":-2}]}]}}]}"#;
    scene.chunk(FIRST, &token.replace('\n', ""));
    scene.chunk(FIRST, FINISH);
    scene.complete();
    scene.finish();
    let text = scene.taken();
    assert!(text.ends_with("data: [DONE]\n\n"));
    let events = events(&text);
    for event in &events {
        assert_eq!(event["object"], "text_completion");
        assert_eq!(event["model"], "public");
    }
    let logprobs = json!({"tokens": ["lö"], "token_logprobs": [-0.5], "text_offset": [0],
        "top_logprobs": [{"a": -2.0, "lö": -0.5}]});
    let choice = |text: &str, logprobs: Value, finish: Value| json!([{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}]);
    let null = Value::Null;
    assert_eq!(
        events[0]["choices"],
        choice("é", null.clone(), null.clone())
    );
    assert_eq!(events[1]["choices"], choice("lö", logprobs, null.clone()));
    assert_eq!(events[2]["choices"], choice("", null, "stop".into()));
    assert_eq!(events[3]["usage"]["total_tokens"], 5);
    assert_eq!(events.len(), 4);
}

#[test]
fn a_whole_plain_completion_is_gathered_of_chunks_of_chat_completions() {
    let mut scene = Scene::of(Api::Completions, Delivery::Whole);
    scene.says("hel");
    scene.says("lo\n");
    scene.chunk(FIRST, FINISH);
    scene.complete();
    scene.finish();
    let whole: Value = serde_json::from_str(&scene.taken()).expect("JSON");
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(whole["choices"][0]["text"], "hello\n");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_plain_completion_that_breaks_ends_with_an_error() {
    let mut scene = Scene::of(Api::Completions, Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.says("half");
    let denial = Denial::ProviderFailed;
    scene.step(RelayEvent::Denied { denial });
    let events = scene.events();
    assert_eq!(events[1]["error"]["code"], "provider_error");
    assert_eq!(events.len(), 2);
}

/// A piece as a machine would send it that adds members of its own.
const EVIL: &str = r#"data: {"choices":[{"delta":{"content":"a","evil":1,"tool_calls":[
    {"index":0,"id":"i","type":"evil","evil":1,"function":{"name":"f","arguments":"{}","evil":1}}]},
    "evil":1,"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"evil":1,
    "top_logprobs":[{"token":"b","logprob":-1.5,"bytes":[98],"evil":1}]}],"evil":1}}]}"#;

fn is_clean(choice: &Value, said: &str) {
    assert!(!choice.to_string().contains("evil"), "{choice}");
    let call = &choice[said]["tool_calls"][0];
    assert_eq!(
        (&call["id"], &call["type"]),
        (&"i".into(), &"function".into())
    );
    assert_eq!(
        call["function"],
        serde_json::json!({"name": "f", "arguments": "{}"})
    );
    let token = &choice["logprobs"]["content"][0];
    assert_eq!(token["logprob"], -0.5);
    assert_eq!(token["top_logprobs"][0]["token"], "b");
}

#[test]
fn members_that_a_machine_adds_do_not_reach_the_consumer() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.chunk(FIRST, &EVIL.replace('\n', ""));
    is_clean(&scene.events()[0]["choices"][0], "delta");
}

#[test]
fn a_whole_answer_has_the_log_probabilities_of_all_its_pieces() {
    let mut scene = Scene::new(Delivery::Whole);
    scene.chunk(FIRST, &EVIL.replace('\n', ""));
    scene.chunk(FIRST, &EVIL.replace('\n', ""));
    scene.step(RelayEvent::Released);
    scene.complete();
    scene.finish();
    let whole: Value = serde_json::from_str(&scene.taken()).expect("JSON");
    let choice = &whole["choices"][0];
    assert_eq!(
        choice["logprobs"]["content"].as_array().map(Vec::len),
        Some(2)
    );
    assert!(!choice.to_string().contains("evil"), "{choice}");
}

#[test]
fn nothing_is_shown_before_the_hold_is_durable() {
    let mut scene = Scene::new(Delivery::Streamed);
    for _ in 0..300 {
        let effects = scene.says("x");
        assert!(!effects.contains(&RelayEffect::Open));
        assert!(!effects.contains(&RelayEffect::Readable));
    }
    assert_eq!(scene.taken(), "");
    scene.step(RelayEvent::Released);
    assert_eq!(scene.events().len(), 300);
}

#[test]
fn the_finish_waits_for_the_settlement() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    let both = r#"data: {"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}"#;
    scene.chunk(FIRST, both);
    scene.complete();
    let before = scene.taken();
    assert_eq!(said(&events(&before)), "a");
    assert!(!before.contains("length") && !before.contains("[DONE]"));
    scene.finish();
    assert!(scene.taken().contains(r#""finish_reason":"length""#));
}

#[test]
fn failing_over_before_content_is_invisible_and_old_chunks_are_ignored() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.chunk(FIRST, PREAMBLE);
    scene.step(RelayEvent::AttemptEnded { attempt: FIRST });
    scene.begin(SECOND);
    assert_eq!(scene.says("late"), [], "a chunk of the first attempt");
    assert_eq!(scene.complete(), [], "its terminal as well");
    assert_eq!(scene.relay.counts().stale_chunks, 1);
    scene.step(RelayEvent::Released);
    scene.chunk(SECOND, &content("new"));
    let events = scene.events();
    assert_eq!(said(&events), "new");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
}

#[test]
fn an_error_after_content_is_one_event_and_no_done() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.says("half");
    let denial = Denial::ProviderFailed;
    assert_eq!(
        scene.step(RelayEvent::Denied { denial }),
        [RelayEffect::Readable, RelayEffect::Close]
    );
    let text = scene.taken();
    assert!(!text.contains("[DONE]"));
    let events = events(&text);
    assert_eq!(events[1]["error"]["code"], "provider_error");
    assert_eq!(scene.says("more"), []);
    assert_eq!(scene.finish(), []);
}

#[test]
fn an_error_while_all_is_held_back_is_still_a_status() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.says("held");
    let denial = Denial::ProviderFailed;
    assert_eq!(
        scene.step(RelayEvent::Denied { denial }),
        [RelayEffect::Refuse { denial }]
    );
    assert_eq!(scene.taken(), "");
}

#[test]
fn what_was_relayed_is_settled_after_the_consumer_left() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.says("abc");
    assert_eq!(scene.step(RelayEvent::ConsumerLeft), []);
    assert_eq!(scene.says("never counted"), []);
    assert_eq!(scene.complete(), []);
    assert_eq!(scene.relay.shown_of(FIRST), shown(1, 3));
    assert_eq!(scene.finish(), []);
    assert_eq!(scene.taken(), "");
}

#[test]
fn a_whole_response_in_one_chunk_is_an_answer() {
    let text = r#"data: {"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"all"},"finish_reason":"length"}]}"#;
    for delivery in [Delivery::Streamed, Delivery::Whole] {
        let mut scene = Scene::new(delivery);
        scene.step(RelayEvent::Released);
        scene.chunk(FIRST, text);
        scene.complete();
        scene.finish();
        let text = scene.taken();
        assert!(text.contains(r#""content":"all""#));
        assert!(text.contains(r#""finish_reason":"length""#));
    }
}

#[test]
fn an_answer_without_a_word_is_an_answer() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.chunk(FIRST, FINISH);
    scene.complete();
    assert_eq!(
        scene.finish(),
        [RelayEffect::Open, RelayEffect::Readable, RelayEffect::Close]
    );
    let events = scene.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[1]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn an_answer_of_all_its_tokens_was_cut_unless_its_machine_says_why_it_ended() {
    for delivery in [Delivery::Streamed, Delivery::Whole] {
        for (said, told) in [
            (None, r#""finish_reason":"length""#),
            (Some(FINISH), r#""finish_reason":"stop""#),
        ] {
            let mut scene = Scene::new(delivery);
            scene.says("x");
            if let Some(finish) = said {
                scene.chunk(FIRST, finish);
            }
            scene.complete();
            let usage = Usage {
                prompt_tokens: 1,
                completion_tokens: OUTPUT_TOKENS_MAX,
            };
            scene.step(RelayEvent::Finished { usage });
            let taken = scene.taken();
            assert!(taken.contains(told), "{delivery:?} {said:?}: {taken}");
        }
    }
}

#[test]
fn cached_and_thought_tokens_are_told_and_never_more_than_the_tokens_they_are_part_of() {
    for (cached, thought, told) in [
        (0, 0, (None, 0)),
        (2, 1, (Some(2), 1)),
        (u32::MAX, u32::MAX, (Some(3), 2)),
    ] {
        for delivery in [Delivery::Streamed, Delivery::Whole] {
            let mut scene = Scene::new(delivery);
            scene.says("hello");
            scene.chunk(FIRST, FINISH);
            scene.step(RelayEvent::Completed {
                attempt: FIRST,
                parts: UsageParts {
                    cached_tokens: cached,
                    reasoning_tokens: thought,
                },
            });
            scene.finish();
            let text = scene.taken();
            let last = match delivery {
                Delivery::Streamed => events(&text).pop().expect("the usage comes last"),
                Delivery::Whole => serde_json::from_str(&text).expect("one object"),
            };
            let usage = &last["usage"];
            let is = |at: &str| usage.pointer(at).and_then(Value::as_u64);
            assert_eq!(is("/prompt_tokens"), Some(3));
            assert_eq!(is("/prompt_tokens_details/cached_tokens"), told.0);
            assert_eq!(
                is("/completion_tokens_details/reasoning_tokens"),
                Some(told.1)
            );
        }
    }
}

#[test]
fn what_a_failed_attempt_had_found_is_not_told_of_the_next() {
    let mut scene = Scene::new(Delivery::Whole);
    scene.says("x");
    scene.step(RelayEvent::Completed {
        attempt: FIRST,
        parts: UsageParts {
            cached_tokens: 2,
            reasoning_tokens: 0,
        },
    });
    scene.begin(SECOND);
    scene.chunk(SECOND, &content("y"));
    scene.step(RelayEvent::Completed {
        attempt: SECOND,
        parts: UsageParts::default(),
    });
    scene.finish();
    assert!(!scene.taken().contains("cached_tokens"));
}

/// The order of the connections' tasks is nobody's: what the coordinator decided last counts.
#[test]
fn an_older_attempt_never_replaces_a_newer_one() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::AttemptDispatched {
        attempt: SECOND,
        is_second: false,
    });
    scene.step(RelayEvent::AttemptCancelled { attempt: FIRST });
    scene.seal(SECOND);
    scene.seal(FIRST);
    assert_eq!(scene.chunk(FIRST, &content("old")), []);
    assert_eq!(
        scene.chunk(SECOND, &content("new")),
        [RelayEffect::AttemptStarted { attempt: SECOND }]
    );
    scene.step(RelayEvent::Released);
    assert_eq!(said(&scene.events()), "new");
    assert_eq!(scene.relay.shown_of(FIRST), Shown::default());
    assert_eq!(scene.relay.shown_of(SECOND), shown(1, 3));
}

#[test]
fn of_two_attempts_that_race_the_first_content_wins() {
    for (winner, loser) in [(FIRST, SECOND), (SECOND, FIRST)] {
        let mut scene = Scene::new(Delivery::Streamed);
        scene.begin(SECOND);
        scene.chunk(loser, PREAMBLE);
        assert_eq!(
            scene.chunk(winner, &content("won")),
            [RelayEffect::AttemptStarted { attempt: winner }]
        );
        assert_eq!(scene.chunk(loser, &content("lost")), []);
        scene.step(RelayEvent::Released);
        assert_eq!(said(&scene.events()), "won");
        assert_eq!(scene.relay.shown_of(loser), Shown::default());
    }
}

/// The coordinator may send a second attempt out before it hears that the first is done.
#[test]
fn what_is_complete_stays_beside_a_second_attempt_and_goes_where_another_takes_its_place() {
    for is_second in [true, false] {
        let mut scene = Scene::new(Delivery::Whole);
        scene.chunk(FIRST, &content("all"));
        scene.step(RelayEvent::Completed {
            attempt: FIRST,
            parts: UsageParts::default(),
        });
        scene.step(RelayEvent::AttemptDispatched {
            attempt: SECOND,
            is_second,
        });
        let pieces = scene.relay.shown_of(FIRST).pieces;
        assert_eq!(pieces, u32::from(is_second));
    }
}

/// What broke off before anything was written does not count as its answer's beginning.
#[test]
fn an_answer_begins_anew_where_a_rivals_first_piece_could_not_be_written() {
    let wrong = r#"data: {"choices":[{"delta":{"content":"x"},"logprobs":{"content":[
        {"token":"a","logprob":0},{"token":"b","logprob":"c"}]}}]}"#;
    let (streamed, whole) = (Delivery::Streamed, Delivery::Whole);
    for (api, delivery) in [
        (Api::Chat, streamed),
        (Api::Chat, whole),
        (Api::Completions, streamed),
        (Api::Completions, whole),
    ] {
        let taken = |is_raced| {
            let mut scene = Scene::of(api, delivery);
            scene.begin(SECOND);
            if is_raced {
                let effects = scene.chunk(FIRST, &wrong.replace('\n', ""));
                assert!(matches!(effects[..], [RelayEffect::AttemptFailed { .. }]));
            }
            scene.chunk(SECOND, &content("all"));
            scene.step(RelayEvent::Released);
            scene.step(RelayEvent::Completed {
                attempt: SECOND,
                parts: UsageParts::default(),
            });
            scene.finish();
            scene.taken()
        };
        assert_eq!(taken(true), taken(false), "{api:?} {delivery:?}");
    }
}

/// The coordinator may give up the one whose content came first, before it has heard of it.
#[test]
fn when_the_winner_is_given_up_unseen_the_other_loses_nothing_that_it_said_meanwhile() {
    for ends_at_once in [false, true] {
        let mut scene = Scene::new(Delivery::Streamed);
        scene.begin(SECOND);
        scene.chunk(FIRST, &content("gone"));
        assert_eq!(scene.chunk(SECOND, &content("one ")), [], "it has lost");
        assert_eq!(scene.relay.shown_of(SECOND), Shown::default());
        scene.step(RelayEvent::AttemptCancelled { attempt: FIRST });
        let started = RelayEffect::AttemptStarted { attempt: SECOND };
        let effects = if ends_at_once {
            scene.step(RelayEvent::Completed {
                attempt: SECOND,
                parts: UsageParts::default(),
            })
        } else {
            scene.chunk(SECOND, &content("two"))
        };
        assert_eq!(effects, [started]);
        scene.step(RelayEvent::Released);
        let expected = if ends_at_once { "one " } else { "one two" };
        assert_eq!(said(&scene.events()), expected);
        assert_eq!(scene.chunk(FIRST, &content("late")), []);
    }
}

#[test]
fn an_attempt_that_said_too_much_while_it_had_lost_is_tried_elsewhere() {
    let mut scene = Scene::bounded(Delivery::Streamed, u32::MAX);
    scene.begin(SECOND);
    scene.says("first");
    scene.chunk(SECOND, &content(&"x".repeat(HELD_SIZE_MAX)));
    scene.step(RelayEvent::AttemptCancelled { attempt: FIRST });
    assert_eq!(
        scene.chunk(SECOND, &content("more")),
        [RelayEffect::AttemptFailed {
            attempt: SECOND,
            fault: AttemptFault::Unsent
        }]
    );
}

#[test]
fn an_attempt_that_was_never_dispatched_shows_nothing() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.step(RelayEvent::Released);
    scene.seal(SECOND);
    assert_eq!(scene.chunk(SECOND, &content("stray")), []);
    assert_eq!(scene.taken(), "");
}
