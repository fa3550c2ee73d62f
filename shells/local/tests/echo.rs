//! What the local server answers.

mod support;

use std::time::Duration;

use cereus_http::contract::{self, Server};
use cereus_local::{Backend, Settings, start};
use serde_json::{Value, json};
use support::{CHAT, ask, end, get, post, receive, send, serve, settings, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_whole_answer_is_one_completion_with_its_usage() {
    let running = serve(3, Duration::ZERO).await;
    let reply = post(&running, CHAT, &ask(&json!({"model": "org/echo"}))).await;
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "org/echo");
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "echo echo echo "
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    let total = answer["usage"]["prompt_tokens"].as_u64().unwrap() + 4;
    assert_eq!(answer["usage"]["total_tokens"], total);
    end(running).await;
}

#[tokio::test]
async fn a_streamed_answer_says_its_role_once_its_reason_once_and_that_it_is_done() {
    let running = serve(3, Duration::ZERO).await;
    for include_usage in [true, false] {
        let options = json!({"stream": true, "stream_options": {"include_usage": include_usage}});
        let reply = post(&running, CHAT, &ask(&options)).await;
        assert!(reply.head.contains("content-type: text/event-stream"));
        let mut events = reply.events();
        assert_eq!(events.pop(), Some("[DONE]"));
        let mut chunks: Vec<Value> = events
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        if include_usage {
            let last = chunks.pop().unwrap();
            assert_eq!(last["choices"], json!([]));
            assert_eq!(last["usage"]["completion_tokens"], 4);
        }
        let choices: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]).collect();
        let said: Vec<&str> = choices
            .iter()
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        assert_eq!(said.concat(), "echo echo echo ");
        let roles = choices
            .iter()
            .filter(|choice| choice["delta"]["role"].is_string())
            .count();
        let reasons = choices
            .iter()
            .filter(|choice| choice["finish_reason"].is_string())
            .count();
        assert_eq!((roles, reasons), (1, 1));
        assert!(chunks.iter().all(|chunk| chunk["usage"].is_null()));
        assert!(chunks.windows(2).all(|pair| pair[0]["id"] == pair[1]["id"]));
    }
    end(running).await;
}

#[tokio::test]
async fn plain_completions_take_a_prompt_and_have_their_own_shape() {
    let running = serve(2, Duration::ZERO).await;
    let reply = post(&running, "/v1/completions", &json!({"prompt": "once"})).await;
    let answer = reply.json();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], "echo echo ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let body = json!({"prompt": "once", "stream": true, "stream_options": {"include_usage": true}});
    let reply = post(&running, "/v1/completions", &body).await;
    let mut events = reply.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let usage: Value = serde_json::from_str(events.pop().unwrap()).unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], 3);
    let chunks: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let text: Vec<&str> = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(text.concat(), "echo echo ");
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
    end(running).await;
}

#[tokio::test]
async fn the_model_is_listed_by_its_name_and_no_other_is_known() {
    let running = serve(1, Duration::ZERO).await;
    let list = get(&running, "/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "org/echo");
    let context_tokens = get(&running, "/v1/status").await.json()["request_tokens"].as_f64();
    assert_eq!(list["data"][0]["context_length"].as_f64(), context_tokens);
    assert!(context_tokens > Some(0.0));
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    for path in ["/v1/models/org/echo", "/v1/models/org%2Fecho"] {
        assert_eq!(get(&running, path).await.json()["id"], "org/echo");
    }
    assert_eq!(get(&running, "/v1/models/other").await.status, 404);
    let reply = post(&running, CHAT, &ask(&json!({"model": "other"}))).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["error"]["code"], "model_not_found");
    assert_eq!(reply.json()["error"]["param"], "model");
    end(running).await;
}

#[tokio::test]
async fn several_answers_come_side_by_side_and_a_prompt_counts_once() {
    let running = serve(2, Duration::ZERO).await;
    let one = post(&running, CHAT, &ask(&json!({}))).await.json();
    let answer = post(&running, CHAT, &ask(&json!({"n": 3}))).await.json();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    for (choice, index) in choices.iter().zip(0..) {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"], one["choices"][0]["message"]);
    }
    let (usage, single) = (&answer["usage"], &one["usage"]);
    assert_eq!(usage["prompt_tokens"], single["prompt_tokens"]);
    let tokens = |usage: &Value| usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(tokens(usage), 3 * tokens(single));
    let stream = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let reply = post(&running, CHAT, &ask(&stream)).await;
    let mut events = reply.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    for index in 0..2 {
        let of_choice = || {
            let choices = events.iter().map(|event| &event["choices"][0]);
            choices.filter(move |choice| choice["index"] == index)
        };
        let said: String = of_choice()
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        assert_eq!(said, one["choices"][0]["message"]["content"]);
        let ends = of_choice().filter(|choice| choice["finish_reason"] == "stop");
        assert_eq!(ends.count(), 1);
    }
    assert_eq!(tokens(&events.last().unwrap()["usage"]), 2 * tokens(single));
    end(running).await;
}

#[tokio::test]
async fn a_request_with_more_answers_than_the_machine_has_places_takes_one_place() {
    let running = serve(1, Duration::ZERO).await;
    for delivery in [json!({"n": 128}), json!({"n": 128, "stream": true})] {
        let reply = post(&running, CHAT, &ask(&delivery)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    end(running).await;
}

#[tokio::test]
async fn plain_completions_take_several_prompts_and_may_begin_with_them() {
    let running = serve(1, Duration::ZERO).await;
    let body = json!({"prompt": ["one", "two"], "n": 2, "echo": true});
    let answer = post(&running, "/v1/completions", &body).await.json();
    let texts: Vec<&str> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["oneecho ", "oneecho ", "twoecho ", "twoecho "]);
    let tokens = json!({"prompt": [1, 2, 3]});
    let answer = post(&running, "/v1/completions", &tokens).await.json();
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    end(running).await;
}

#[tokio::test]
async fn a_wrong_request_is_refused_with_what_is_wrong() {
    let running = serve(1, Duration::ZERO).await;
    let cases = [
        (CHAT, ask(&json!({"temperature": 9})), "temperature"),
        (CHAT, ask(&json!({"stream": true, "top_p": 9})), "top_p"),
        (CHAT, json!({"prompt": "x"}), "prompt has no place"),
        (CHAT, json!({}), "messages is required"),
        (CHAT, ask(&json!({"seed": 1.5})), "seed must be an integer"),
        (
            CHAT,
            ask(&json!({"grammar": "x"})),
            "grammar is not supported",
        ),
        (CHAT, json!({"messages": []}), "messages"),
        (CHAT, json!("text"), "the body must be a JSON object"),
        ("/v1/completions", ask(&json!({})), "messages has no place"),
    ];
    for (path, body, expected) in cases {
        let reply = post(&running, path, &body).await;
        assert_eq!(reply.status, 400, "{body}");
        let error = &reply.json()["error"];
        assert_eq!(error["type"], "invalid_request_error");
        assert!(
            error["message"].as_str().unwrap().contains(expected),
            "{error}"
        );
    }
    let reply = receive(send(running.addr(), "POST", CHAT, "{").await).await;
    assert_eq!(reply.status, 400);
    let nowhere = post(&running, "/v1/embeddings", &json!({})).await;
    assert_eq!(nowhere.status, 404);
    let message = nowhere.json()["error"]["message"].to_string();
    for named in ["POST /v1/embeddings", CHAT, "/v1/completions", "/v1/models"] {
        assert!(message.contains(named), "{message}");
    }
    end(running).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let running = serve(1, Duration::ZERO).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    end(running).await;
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again_and_readers_who_leave_make_room() {
    let running = serve(100_000, Duration::from_millis(5)).await;
    let body = ask(&json!({"stream": true})).to_string();
    let mut streams = vec![];
    for _ in 0..3 {
        streams.push(send(running.addr(), "POST", CHAT, &body).await);
    }
    until(&running, "requests_running", 2.0).await;
    until(&running, "requests_waiting", 1.0).await;
    let refused = post(&running, CHAT, &ask(&json!({}))).await;
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("retry-after: 2"), "{}", refused.head);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_exceeded");
    drop(streams);
    // Also one who waits for a whole answer.
    let whole = send(running.addr(), "POST", CHAT, &ask(&json!({})).to_string()).await;
    until(&running, "requests_waiting", 0.0).await;
    drop(whole);
    until(&running, "requests_running", 0.0).await;
    end(running).await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_more() {
    let mut running = serve(40, Duration::from_millis(5)).await;
    let addr = running.addr();
    let stream = send(
        addr,
        "POST",
        CHAT,
        &ask(&json!({"stream": true})).to_string(),
    )
    .await;
    until(&running, "requests_running", 1.0).await;
    running.drain();
    let reply = receive(stream).await;
    assert_eq!(reply.events().last(), Some(&"[DONE]"));
    running.ended().await.unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn health_and_figures_are_there_for_machines() {
    let running = serve(1, Duration::ZERO).await;
    let health = get(&running, "/health").await;
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (200, Some("ok"))
    );
    post(&running, CHAT, &ask(&json!({}))).await;
    let page = get(&running, "/metrics").await.body;
    assert!(page.contains("\ncereus_admissions_total 1\n"), "{page}");
    assert!(page.contains("\ncereus_preemptions_total 0\n"), "{page}");
    let bound = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(bound("cereus_request_tokens ") <= bound("cereus_context_tokens "));
    assert!(bound("cereus_request_tokens ") > 0);
    assert!(
        page.contains("\n# TYPE cereus_admissions_total counter\n"),
        "{page}"
    );
    assert!(!page.contains("# EOF"));
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    let open = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
        accept: application/openmetrics-text\r\n\r\n";
    stream.write_all(open.as_bytes()).await.unwrap();
    let reply = receive(stream).await;
    assert!(reply.body.contains("\n# TYPE cereus_admissions counter\n"));
    assert!(reply.body.ends_with("# EOF\n"));
    end(running).await;
}

#[tokio::test]
async fn a_busy_port_is_said_before_the_model_is_loaded() {
    let running = serve(1, Duration::ZERO).await;
    let again = Settings {
        listen: running.addr(),
        backend: Backend::Model(
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny").into(),
        ),
        ..settings(1, Duration::ZERO)
    };
    let error = start(again).await.unwrap_err().to_string();
    assert!(error.contains("is busy"), "{error}");
    end(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_every_server_keeps() {
    let running = serve(2, Duration::ZERO).await;
    let server = Server {
        addr: running.addr(),
        key: None,
        model: "org/echo".to_owned(),
    };
    tokio::task::spawn_blocking(move || contract::keeps(&server))
        .await
        .unwrap();
    end(running).await;
}
