//! Those who have not shown who they are: what they may take, and what they cannot take from others.

mod support;

use std::time::Duration;

use cereus_core::link::EARN_KEY_UNKNOWN;
use cereus_core::wire::ToProvider;
use cereus_core::wire::limits::REGISTER_SIZE_MAX;
use secrecy::ExposeSecret as _;
use support::{Provider, World, open_account, question, text_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Less than a silent connection is patiently waited for.
const PROMPT: Duration = Duration::from_secs(10);

/// A new connection's chat is served.
async fn is_served(world: &World, provider: &mut Provider) {
    let key = open_account(world.folder.path(), "eve", 1_000_000);
    let client = world.client(key);
    let asked = tokio::spawn(async move { client.chat_stream(&question()).await });
    let served = async {
        let request = provider.accept().await;
        provider.piece(&request, "hello").await;
        provider.complete(&request, 20, 3).await;
        text_of(&mut asked.await.unwrap().unwrap()).await.unwrap()
    };
    let text = timeout(PROMPT, served)
        .await
        .expect("strangers hold nobody up");
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn silent_connections_do_not_keep_a_consumer_out() {
    let world = World::with(|settings| settings.limits.connections_max = 16).await;
    let mut provider = world.provider().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(world.running.addr()).await.unwrap());
    }
    is_served(&world, &mut provider).await;
    // Those that waited longest had to make room.
    let first = &mut silent[0];
    let gone = timeout(PROMPT, first.read(&mut [0])).await.unwrap();
    assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
}

#[tokio::test]
async fn unfinished_frames_of_unregistered_sockets_are_refused_at_their_head() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(world.running.addr()).await.unwrap();
        stream
            .write_all(
                b"GET /ws/provider HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        // The head of a masked text frame of 9 MiB.
        let mut frame = vec![0x81, 0xff];
        frame.extend_from_slice(&(9u64 << 20).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        stream.write_all(&frame).await.unwrap();
        sockets.push(stream);
    }
    for mut stream in sockets {
        // A close with 1009 and the end, before one byte of the frame has come.
        let mut rest = Vec::new();
        timeout(PROMPT, stream.read_to_end(&mut rest))
            .await
            .expect("it is given up at once")
            .unwrap();
        assert_eq!(rest[0], 0x88);
        assert_eq!(&rest[2..4], 1009u16.to_be_bytes());
    }
    is_served(&world, &mut provider).await;
}

#[tokio::test]
async fn a_socket_may_say_much_once_it_has_registered_and_little_before() {
    let world = World::new().await;
    let later = |size: usize| format!("{{\"type\":\"later\",\"x\":\"{}\"}}", "x".repeat(size));
    let mut provider = world.provider().await;
    provider.send(later(REGISTER_SIZE_MAX).into_bytes()).await;
    is_served(&world, &mut provider).await;
    let mut stranger = Provider::connect(world.running.addr(), 2).await;
    stranger.send_lossy(later(REGISTER_SIZE_MAX)).await;
    assert!(matches!(stranger.gone().await, None | Some(1009)));
}

#[tokio::test]
async fn a_machine_hears_whether_its_earning_key_is_known() {
    let world = World::new().await;
    let mut provider = Provider::connect(world.running.addr(), 1).await;
    provider
        .send(provider.registration("sk-cereus-nobodys"))
        .await;
    assert_eq!(provider.closed().await, (1008, EARN_KEY_UNKNOWN.to_owned()));

    // Made a moment ago: known soon.
    let key = open_account(world.folder.path(), "earner", 0);
    let linked = async {
        loop {
            let mut provider = Provider::connect(world.running.addr(), 1).await;
            provider
                .send(provider.registration(key.expose_secret()))
                .await;
            if let Some(frame) = provider.frame_or_close().await {
                break ToProvider::decode(&frame).is_ok_and(|message| {
                    matches!(message, ToProvider::TrustStatus(status) if status.account_linked)
                });
            }
        }
    };
    assert!(timeout(support::WAIT, linked).await.unwrap());
}

#[tokio::test]
async fn a_recorded_registration_does_not_close_the_machine_that_it_names() {
    let world = World::new().await;
    let mut provider = world.provider().await;
    let asked = world.ask();
    let request = provider.accept().await;
    provider.piece(&request, "before").await;
    let mut stream = asked.await.unwrap().unwrap();
    let recorded = provider.registration("");
    let mut thieves = Vec::new();
    for _ in 0..20 {
        // Whoever has no key can repeat the registration, and answers no challenge.
        let mut thief = Provider::connect(world.running.addr(), 1).await;
        thief.send(recorded.clone()).await;
        let heard = thief.frame_or_close().await;
        assert!(
            heard.is_some(),
            "it is taken for a machine until its challenge"
        );
        thieves.push(thief);
    }
    provider.piece(&request, " and after").await;
    provider.complete(&request, 20, 3).await;
    assert_eq!(text_of(&mut stream).await.unwrap(), "before and after");
    is_served(&world, &mut provider).await;
}
