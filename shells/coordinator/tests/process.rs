//! The process around the core: limits, drain, restart, what is wrong with a start.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use cereus_coordinator::store::{self, AuditExtent, DepositState, FILE_NAME};
use cereus_coordinator::{CoordinatorError, start};
use cereus_core::coordinator::Coordinator;
use cereus_core::journal::{Ending, Fault, Reader, replay};
use cereus_core::money::MicroUsd;
use support::{WAIT, World, address, api_error, open_account, question, settings, text_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One exchange on a connection of its own; returns all that came back.
async fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut reply = Vec::new();
    let read = stream.read_to_end(&mut reply);
    tokio::time::timeout(WAIT, read)
        .await
        .expect("the server closes")
        .unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

fn post(key: &str, length: usize, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_json_gets_its_status() {
    use secrecy::ExposeSecret as _;

    let world = World::new().await;
    let key = open_account(world.folder.path(), "eve", 0);
    let key = key.expose_secret();
    let addr = world.running.addr();
    let size = cereus_core::api::BODY_SIZE_MAX + 1;
    let reply = exchange(addr, &post(key, size, &" ".repeat(size))).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert!(reply.contains("payload_too_large"));
    for body in [
        "{",
        "[]",
        "\u{feff}{}",
        "null",
        "{\"model\":1}",
        "{\"model\":\"tiny\"}",
    ] {
        let reply = exchange(addr, &post(key, body.len(), body)).await;
        assert!(reply.starts_with("HTTP/1.1 400 "), "{body}: {reply}");
        assert!(reply.contains("\"error\":{\"message\":"), "{body}: {reply}");
    }
    let reply = exchange(
        addr,
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
    let upgrade = b"GET /ws/provider HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(addr, upgrade).await.starts_with("HTTP/1.1 426 "));
    let health = world.client.get("/health").await.unwrap();
    assert_eq!(health["status"], "ok");
}

#[tokio::test]
async fn a_connection_rests_as_long_as_its_setting_says() {
    let world = World::with(|settings| settings.limits.idle_wait = Duration::from_millis(50)).await;
    // Nothing more is asked, so only the server can end this.
    let reply = exchange(
        world.running.addr(),
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

#[tokio::test]
async fn a_coordinator_whose_data_folder_is_deleted_ends_and_says_why() {
    let world = World::new().await;
    fs::remove_dir_all(world.folder.path()).unwrap();
    let ended = tokio::time::timeout(WAIT, world.running.ended()).await;
    let why = ended.expect("it notices").unwrap_err();
    assert!(matches!(why, CoordinatorError::FolderGone(_)), "{why}");
    let said = why.to_string();
    assert!(said.contains("was deleted or replaced"), "{said}");
    assert!(said.contains("start again"), "{said}");
}

#[tokio::test]
async fn a_coordinator_whose_log_is_cut_ends_and_the_next_one_has_all_transfers() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    world.warm(&mut provider).await;
    let log = world.folder.path().join("transfers.0.log");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    fs::File::create(&log).unwrap();
    let ended = tokio::time::timeout(WAIT, world.running.ended()).await;
    let why = ended.expect("it notices").unwrap_err();
    assert!(matches!(why, CoordinatorError::LogChanged(_)), "{why}");
    let said = why.to_string();
    assert!(said.contains("transfers.0.log has 0 bytes"), "{said}");
    assert_eq!(fs::metadata(&log).unwrap().len(), 0, "nothing was written");
    let next = start(settings(world.folder.path())).await.unwrap();
    next.drainer().drain();
    next.ended().await.unwrap();
    let store = store::open(world.folder.path()).unwrap();
    assert!(!store.requests(None, 9).unwrap().is_empty());
}

#[tokio::test]
async fn a_drain_ends_though_the_data_folder_was_deleted() {
    let world = World::new().await;
    fs::remove_dir_all(world.folder.path()).unwrap();
    world.running.drainer().drain();
    let ended = tokio::time::timeout(WAIT, world.running.ended()).await;
    // Well, or with the folder's loss, whichever was seen first.
    let ended = ended.expect("a drain ends");
    let is_folder = |error: &CoordinatorError| matches!(error, CoordinatorError::FolderGone(_));
    assert!(ended.as_ref().err().is_none_or(is_folder), "{ended:?}");
}

#[tokio::test]
async fn a_data_folder_that_takes_no_files_refuses_new_work_until_it_does() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    // In the way of the file that each look makes; it stops root too, unlike permissions.
    let obstacle = world.folder.path().join("is-writable");
    fs::create_dir(&obstacle).unwrap();
    let health = until_status(&world, "refusing").await;
    let reason = health["reason"].as_str().unwrap();
    assert!(reason.contains("takes no new files"), "{reason}");
    let error = api_error(world.client.chat(&question()).await);
    assert_eq!((error.status, error.code.as_str()), (503, "ledger_busy"));
    fs::remove_dir(&obstacle).unwrap();
    until_status(&world, "ok").await;
    world.warm(&mut provider).await;
}

async fn until_status(world: &World, status: &str) -> serde_json::Value {
    let search = async {
        loop {
            let health = world.client.get("/health").await.unwrap();
            if health["status"] == status {
                return health;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, search)
        .await
        .expect("it notices")
}

#[tokio::test]
async fn malformed_frames_lose_nothing_and_an_oversized_one_ends_its_connection_only() {
    let world = World::new().await;
    let mut other = world.join(2, 8).await;
    let mut provider = world.provider().await;
    for frame in [
        "",
        "{",
        "[1]",
        "{\"type\":\"heartbeat\",\"stats\":",
        "{\"type\":\"unheard_of\"}",
    ] {
        provider.send(frame.as_bytes().to_vec()).await;
    }
    provider.report().await;
    let huge = format!("{{\"type\":\"later\",\"x\":\"{}\"}}", "x".repeat(11 << 20));
    provider.send_lossy(huge).await;
    assert!(matches!(provider.gone().await, None | Some(1009)));
    let asked = world.ask();
    let request = other.accept().await;
    other.piece(&request, "still here").await;
    other.complete(&request, 20, 3).await;
    assert_eq!(
        text_of(&mut asked.await.unwrap().unwrap()).await.unwrap(),
        "still here"
    );
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_admits_nothing_more() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "before").await;
    let mut stream = asked.await.unwrap().unwrap();
    let journal = world.running.journal().to_owned();
    let config = settings(world.folder.path()).config;
    let client = world.client.clone();
    let drained = tokio::spawn(world.drained());
    // The drain has begun once /health says so.
    while client.get("/health").await.unwrap()["draining"].is_null() {
        tokio::task::yield_now().await;
    }
    let error = api_error(client.chat(&question()).await);
    assert_eq!((error.status, error.retry_after_s), (503, Some(5)));
    provider.piece(&request, " and after").await;
    provider.complete(&request, 20, 3).await;
    assert_eq!(text_of(&mut stream).await.unwrap(), "before and after");
    assert_eq!(provider.closed().await, (1001, "drain:deploy".to_owned()));
    drop(provider);
    let _folder = drained.await.unwrap().unwrap();

    let bytes = fs::read(&journal).unwrap();
    let mut reader = Reader::open(&bytes).unwrap();
    assert_eq!(reader.config().catalog, config.catalog);
    let mut coordinator = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut coordinator);
    assert!(report.is_faithful(), "{report:?}");
    assert_eq!(report.ending, Ending::Closed);
    assert!(report.events > 10);
    let needle = b"What is 2 + 3?";
    assert!(
        !bytes.windows(needle.len()).any(|window| window == needle),
        "no prompt in a journal"
    );

    let mut flipped = bytes.clone();
    // In the last records: the header is longer than a short day.
    let at = flipped.len() - 100;
    flipped[at] ^= 1;
    let mut reader = Reader::open(&flipped).unwrap();
    let mut coordinator = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut coordinator);
    assert!(matches!(report.ending, Ending::Faulty(fault) if !Fault::is_torn_tail(fault)));
}

#[tokio::test]
async fn balances_survive_a_restart() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "five").await;
    provider.complete(&request, 20, 3).await;
    let mut stream = asked.await.unwrap().unwrap();
    text_of(&mut stream).await.unwrap();
    let path = format!("/v1/receipts/{}", stream.request_id());
    let receipt = world.client.get(&path).await.unwrap();
    let after = receipt["micro_usd"]["balance_after"].as_i64().unwrap();
    let folder = world.drained().await.unwrap();

    let mut store = store::open(folder.path()).unwrap();
    let audit = store.audit(AuditExtent::Everything).unwrap();
    assert_eq!((audit.open_hold_count, audit.held), (0, MicroUsd::ZERO));
    let accounts = store.accounts().unwrap();
    let ada = accounts.iter().find(|it| it.name == "ada").unwrap();
    assert_eq!(ada.balance, MicroUsd(after));
    let key = store.create_key("ada").unwrap().secret;
    drop(store);

    let running = start(settings(folder.path())).await.unwrap();
    let client = cereus_client::Client::new(&address(&running), key).unwrap();
    assert_eq!(
        client.get(&path).await.unwrap(),
        receipt,
        "a receipt survives too"
    );
    running.drainer().drain();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn a_credit_that_no_account_may_hold_stops_neither_this_start_nor_the_next() {
    let folder = tempfile::tempdir().unwrap();
    open_account(folder.path(), "ada", 5_000_000);
    // What the command line of an older build let in, and then a good one.
    let file = folder.path().join(FILE_NAME);
    let poison = "INSERT INTO deposits (account, amount, created_at)
        SELECT id, 9223372036854775807, 0 FROM accounts WHERE name = 'ada'";
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute(poison, [])
        .unwrap();
    let mut store = store::open(folder.path()).unwrap();
    let ada = store.account("ada").unwrap().unwrap();
    store.deposit(ada, MicroUsd(7)).unwrap();
    for start_number in 1..=2 {
        let running = start(settings(folder.path())).await.unwrap();
        let seen = async {
            loop {
                let deposits = store.deposits(Some(ada), 10).unwrap();
                if deposits.iter().all(|it| it.state != DepositState::Waiting) {
                    return deposits;
                }
                tokio::task::yield_now().await;
            }
        };
        let deposits = tokio::time::timeout(WAIT, seen)
            .await
            .expect("all are seen");
        running.drainer().drain();
        running.ended().await.unwrap();
        let states: Vec<_> = deposits.into_iter().map(|row| row.state).collect();
        let DepositState::Refused(reason) = &states[1] else {
            panic!("start {start_number}: {states:?}");
        };
        assert!(!reason.is_empty());
        // The next deposit is marked, and not the refused one in its place.
        assert_eq!([&states[0], &states[2]], [&DepositState::Applied; 2]);
    }
    let accounts = store.accounts().unwrap();
    let row = accounts.iter().find(|row| row.id == ada).unwrap();
    assert_eq!(row.balance, MicroUsd(5_000_007));
    store.audit(AuditExtent::Everything).unwrap();
}

#[tokio::test]
async fn unknown_keys_cost_the_store_nothing_and_a_revoked_key_ends_at_once() {
    let world = World::new().await;
    let stranger = world.client("sk-cereus-unknown".to_owned().into());
    for _ in 0..50 {
        assert_eq!(api_error(stranger.chat(&question()).await).status, 401);
    }
    let mut store = store::open(world.folder.path()).unwrap();
    let made = store.create_key("ada").unwrap();
    let client = world.client(made.secret);
    let path = "/v1/receipts/00000000-0000-0000-0000-000000000000";
    assert_eq!(api_error(client.get(path).await).status, 404);
    store.revoke_key(&made.id).unwrap();
    assert_eq!(api_error(client.get(path).await).status, 401);
}

#[tokio::test]
async fn a_key_and_credit_made_while_it_runs_are_taken_at_once() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let late = world.client(open_account(world.folder.path(), "late", 1_000));
    let asked = tokio::spawn(async move { late.chat_stream(&question()).await });
    let request = provider.accept().await;
    provider.piece(&request, "five").await;
    provider.complete(&request, 20, 3).await;
    assert_eq!(
        text_of(&mut asked.await.unwrap().unwrap()).await.unwrap(),
        "five"
    );
}

#[tokio::test]
async fn what_keeps_a_coordinator_from_starting_is_said_with_a_way_out() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let mut busy = settings(folder.path());
    busy.listen = world.running.addr();
    let error = start(busy).await.unwrap_err();
    assert!(matches!(error, CoordinatorError::Bind { .. }));
    assert!(error.to_string().contains("--listen"), "{error}");

    let error = start(settings(world.folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("another coordinator"), "{error}");

    fs::write(folder.path().join(FILE_NAME), vec![7; 8_192]).unwrap();
    let error = start(settings(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("restore a backup"), "{error}");

    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = start(settings(&file.join("below"))).await.unwrap_err();
    assert!(error.to_string().contains("--data"), "{error}");
}

#[tokio::test]
async fn the_metrics_count_what_happened_on_a_port_of_their_own() {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let world = World::with(|settings| settings.metrics_listen = Some(local)).await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "five").await;
    provider.complete(&request, 20, 3).await;
    text_of(&mut asked.await.unwrap().unwrap()).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let public = exchange(world.running.addr(), request).await;
    assert!(public.starts_with("HTTP/1.1 404"), "{public}");
    let own = world.running.metrics_addr().unwrap();
    let elsewhere = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let elsewhere = exchange(own, elsewhere).await;
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    let open = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\
        Connection: close\r\n\r\n";
    let open = exchange(own, open).await;
    assert!(
        open.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{open}"
    );
    assert!(
        open.contains("# TYPE cereus_completion_tokens counter"),
        "{open}"
    );
    assert!(open.ends_with("# EOF\n"), "{open}");
    let page = exchange(own, request).await;
    assert!(
        page.contains("content-type: text/plain; version=0.0.4"),
        "{page}"
    );
    assert!(
        page.contains("# TYPE cereus_completion_tokens_total counter"),
        "{page}"
    );
    assert!(!page.contains("# EOF"), "{page}");
    assert!(page.contains("cereus_providers 1"), "{page}");
    assert!(
        page.contains("cereus_requests_ended_total{name=\"finished\"} 1"),
        "{page}"
    );
    assert!(page.contains("cereus_completion_tokens_total 3"), "{page}");
}
