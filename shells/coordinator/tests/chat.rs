//! Chats over real sockets, with a provider that does as it is told.

mod support;

use cereus_client::{Client, Piece};
use cereus_core::wire::messages::UsageFrame;
use secrecy::SecretString;
use serde_json::json;
use support::{MODEL, World, api_error, open_account, question, text_of};

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece_and_is_receipted() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    assert_eq!(request.body["messages"][0]["content"], "What is 2 + 3?");
    provider.piece(&request, "fi").await;
    let mut stream = asked.await.unwrap().unwrap();
    // The first piece is there before the second is made.
    assert_eq!(
        stream.next().await.unwrap(),
        Some(Piece::Text("fi".to_owned()))
    );
    provider.piece(&request, "ve").await;
    assert_eq!(
        stream.next().await.unwrap(),
        Some(Piece::Text("ve".to_owned()))
    );
    provider.complete(&request, 20, 3).await;
    assert_eq!(
        stream.next().await.unwrap(),
        Some(Piece::Finish("stop".to_owned()))
    );
    let usage = Piece::Usage {
        prompt_tokens: 20,
        completion_tokens: 3,
    };
    assert_eq!(stream.next().await.unwrap(), Some(usage));
    assert_eq!(stream.next().await.unwrap(), None);

    let path = format!("/v1/receipts/{}", stream.request_id());
    let receipt = world.client.get(&path).await.unwrap();
    assert_eq!(receipt["model"], MODEL);
    assert_eq!(receipt["usage"]["completion_tokens"], 3);
    let money = &receipt["micro_usd"];
    let spent =
        money["balance_before"].as_i64().unwrap() - money["balance_after"].as_i64().unwrap();
    assert_eq!(money["charged"].as_i64().unwrap(), spent);
    assert!(
        !receipt["sealed"]["provider_key"]
            .as_str()
            .unwrap()
            .is_empty()
    );

    let other = open_account(world.folder.path(), "bob", 0);
    let foreign = api_error(world.client(other).get(&path).await);
    assert_eq!(foreign.status, 404, "a receipt is its owner's");
}

#[tokio::test]
async fn a_plain_answer_is_put_together_from_the_stream() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let client = world.client.clone();
    let mut body = question();
    body["stream"] = json!(false);
    let asked = tokio::spawn(async move { client.chat(&body).await });
    let request = provider.accept().await;
    provider
        .delta(&request, &json!({ "role": "assistant" }), None)
        .await;
    for piece in ["fi", "ve"] {
        provider.piece(&request, piece).await;
    }
    let usage = UsageFrame {
        prompt_tokens: 20,
        completion_tokens: 3,
        reasoning_tokens: 1,
        cache_outcome: "hit".into(),
        cache_tier: "memory".into(),
        cached_tokens: 16,
        prefill_tokens_saved: 16,
    };
    provider.complete_with(&request, usage).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "five");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    let usage = json!({
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "total_tokens": 23,
        "prompt_tokens_details": { "cached_tokens": 16 },
        "completion_tokens_details": { "reasoning_tokens": 1 },
    });
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn whoever_cannot_be_served_hears_why_in_one_envelope() {
    let world = World::new().await;
    let wrong = Client::new(&world.address(), SecretString::from("sk-cereus-wrong")).unwrap();
    let error = api_error(wrong.chat(&question()).await);
    assert_eq!(
        (error.status, error.code.as_str()),
        (401, "invalid_api_key")
    );

    let mut unknown = question();
    unknown["model"] = json!("no-such-model");
    let error = api_error(world.client.chat(&unknown).await);
    assert_eq!(
        (error.status, error.code.as_str()),
        (404, "model_not_found")
    );

    let poor = world.client(open_account(world.folder.path(), "poor", 0));
    let mut provider = world.provider().await;
    world.warm(&mut provider).await;
    let error = api_error(poor.chat(&question()).await);
    assert_eq!(
        (error.status, error.code.as_str()),
        (402, "insufficient_quota")
    );

    for (field, value) in [
        ("messages", json!([])),
        ("n", json!(2)),
        ("max_tokens", json!("x")),
    ] {
        let mut bad = question();
        bad[field] = value;
        let error = api_error(world.client.chat(&bad).await);
        assert_eq!(error.status, 400, "{field}");
        assert!(error.message.contains(field), "{}", error.message);
    }
    let error = api_error(world.client.get("/v1/embeddings").await);
    assert_eq!(error.status, 404);
}

#[tokio::test]
async fn a_full_fleet_answers_429_and_says_when_to_return() {
    let world = World::with(|settings| settings.config.limits.queue_depth_max = 1).await;
    let mut provider = world.join(1, 1).await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "busy").await;
    let _stream = asked.await.unwrap().unwrap();
    // One of the next two takes the only place in the queue, whichever comes first.
    let (mut second, mut third) = (world.ask(), world.ask());
    let refused = tokio::select! {
        refused = &mut second => refused,
        refused = &mut third => refused,
    };
    let error = api_error(refused.unwrap());
    assert_eq!(error.status, 429);
    assert!((1..=60).contains(&error.retry_after_s.unwrap()));
}

#[tokio::test]
async fn a_consumer_who_leaves_cancels_the_work() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "one").await;
    let stream = asked.await.unwrap().unwrap();
    drop(stream);
    provider.cancelled(&request).await;
}

#[tokio::test]
async fn a_consumer_who_leaves_before_the_answer_cancels_the_work() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    asked.abort();
    provider.cancelled(&request).await;
}

/// The provider ends what it was told to stop: that settles the request, by the provider's count, and
/// not a timer of ours by our own.
#[tokio::test]
async fn a_consumer_who_leaves_pays_what_was_streamed_and_has_the_rest_back_with_the_end() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let client = world.client(open_account(world.folder.path(), "poor", 450));
    let ask = |tokens_max: u32| {
        let client = client.clone();
        let mut body = question();
        body["max_tokens"] = json!(tokens_max);
        tokio::spawn(async move { client.chat_stream(&body).await })
    };
    // Holds 400 micro-dollars.
    let asked = ask(2_000);
    let request = provider.accept().await;
    provider.piece(&request, &"word ".repeat(800)).await;
    let left = asked.await.unwrap().unwrap();
    let left_path = format!("/v1/receipts/{}", left.request_id());
    drop(left);
    provider.cancelled(&request).await;
    provider.complete(&request, 4, 900).await;

    let (asked, request) = loop {
        let mut asked = ask(64);
        tokio::select! {
            request = provider.accept() => break (asked, request),
            refused = &mut asked => assert_eq!(api_error(refused.unwrap()).status, 402),
        }
    };
    provider.piece(&request, "five").await;
    provider.complete(&request, 20, 3).await;
    let mut stream = asked.await.unwrap().unwrap();
    assert_eq!(text_of(&mut stream).await.unwrap(), "five");
    let path = format!("/v1/receipts/{}", stream.request_id());
    let receipt = client.get(&path).await.unwrap();
    // 900 tokens out cost 180, and what we had counted until then less than half.
    assert_eq!(receipt["micro_usd"]["balance_before"], 450 - 180);
    // Who left can see what was paid for.
    let receipt = client.get(&left_path).await.unwrap();
    assert_eq!(receipt["model"], MODEL);
    assert_eq!(receipt["usage"]["completion_tokens"], 900);
    assert_eq!(receipt["micro_usd"]["charged"], 180);
}

#[tokio::test]
async fn a_provider_that_vanishes_before_content_is_replaced_unseen() {
    let world = World::new().await;
    let mut first = world.provider().await;
    let asked = world.ask();
    first.accept().await;
    let mut second = world.join(2, 8).await;
    drop(first);
    let request = second.accept().await;
    second.piece(&request, "from the second").await;
    second.complete(&request, 20, 3).await;
    let mut stream = asked.await.unwrap().unwrap();
    assert_eq!(text_of(&mut stream).await.unwrap(), "from the second");
}

#[tokio::test]
async fn a_provider_that_vanishes_amid_the_answer_ends_it_with_an_error() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "half an ans").await;
    let mut stream = asked.await.unwrap().unwrap();
    drop(provider);
    let error = api_error(text_of(&mut stream).await);
    assert_eq!(error.code, "provider_error");
}

#[tokio::test]
async fn a_provider_whose_attempts_all_fail_gives_502() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.fail(&request, 500).await;
    let error = api_error(asked.await.unwrap());
    assert_eq!(error.status, 502);
}

#[tokio::test]
async fn an_unsealed_chunk_reaches_nobody_and_costs_the_provider_its_trust() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    let plain = json!({
        "type": "inference_response_chunk", "request_id": request.wire.to_string(),
        "data": "data: {\"choices\":[{\"delta\":{\"content\":\"in the clear\"}}]}\n\n",
    });
    provider.send(plain.to_string().into_bytes()).await;
    let error = api_error(asked.await.unwrap());
    assert_eq!(
        (error.status, error.code.as_str()),
        (502, "encryption_failure")
    );
    let error = api_error(world.client.chat(&question()).await);
    assert_eq!(error.status, 429, "nobody is trusted with work any more");
}
