//! What bounds the local server's answers and connections.

mod support;

use std::time::Duration;

use cereus_local::{HttpLimits, Settings, start};
use serde_json::json;
use support::{CHAT, WAIT, ask, end, get, post, settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn an_answer_tells_what_memory_bounds_it_to() {
    let with = |kv_bytes_max| Settings {
        kv_bytes_max,
        ..settings(3, Duration::ZERO)
    };
    // A byte a token, and the model takes 131,072 tokens.
    for (kv_bytes_max, is_bounded) in [(1 << 20, false), (2_048, true)] {
        let running = start(with(kv_bytes_max)).await.unwrap();
        for extra in [json!({}), json!({"stream": true})] {
            let reply = post(&running, CHAT, &ask(&extra)).await;
            assert_eq!(reply.status, 200);
            // A twentieth is kept for the growth of rows, and pages are whole.
            let told = reply.head.contains("x-memory-tokens-max: 1936");
            assert_eq!(told, is_bounded, "{}", reply.head);
            assert_eq!(reply.head.contains("x-memory"), is_bounded);
        }
        end(running).await;
    }
}

#[tokio::test]
async fn answers_that_made_room_for_one_another_are_whole_and_counted() {
    const WORDS: u32 = 200;
    // A byte a token: room for two of the four answers, and the pause lets them run together.
    let small = Settings {
        rows_max: 4,
        kv_bytes_max: 512,
        ..settings(WORDS, Duration::from_millis(2))
    };
    let running = start(small).await.unwrap();
    let preemptions = || async {
        let status = get(&running, "/v1/status").await.json();
        status["preemptions"].as_f64().unwrap()
    };
    assert_eq!(preemptions().await, 0.0);
    let reply = post(&running, CHAT, &ask(&json!({"n": 4}))).await;
    let answer = reply.json();
    for choice in answer["choices"].as_array().unwrap() {
        assert_eq!(choice["finish_reason"], "stop", "{choice}");
        let content = choice["message"]["content"].as_str().unwrap();
        assert_eq!(content.matches("echo ").count(), WORDS as usize);
    }
    let bound = get(&running, "/v1/status").await.json()["request_tokens"].as_f64();
    let told = reply.head.lines().find_map(|line| {
        let tokens = line.strip_prefix("x-memory-tokens-max: ")?;
        tokens.parse().ok()
    });
    assert_eq!(told, bound, "{}", reply.head);
    let counted = preemptions().await;
    assert!(counted > 0.0);
    let page = get(&running, "/metrics").await.body;
    let line = format!("\ncereus_preemptions_total {counted}\n");
    assert!(page.contains(&line), "{page}");
    end(running).await;
}

#[tokio::test]
async fn a_connection_rests_as_long_as_its_setting_says() {
    let limits = HttpLimits {
        idle_wait: Duration::from_millis(50),
        ..HttpLimits::with_connections(16)
    };
    let running = start(Settings {
        limits,
        ..settings(1, Duration::ZERO)
    });
    let running = running.await.unwrap();
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    let health = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(health).await.unwrap();
    let mut reply = String::new();
    // Nothing more is asked, so only the server can end this.
    let read = timeout(WAIT, stream.read_to_string(&mut reply)).await;
    read.expect("the server closes").unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    end(running).await;
}
