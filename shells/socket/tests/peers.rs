//! A socket of ours against another implementation of the protocol.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use cereus_socket::{Heard, NotUpgraded, Socket};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Nothing here takes long; a test that waits this long has failed.
const WAIT: Duration = Duration::from_secs(30);
/// What the network between the two holds.
const PIPE_BYTES: usize = 1 << 10;

async fn pair(frame_size_max: usize) -> (Socket<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let socket = Socket::accepted(ours, frame_size_max);
    let peer = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    (socket, peer)
}

async fn hear(socket: &mut Socket<DuplexStream>) -> Heard {
    timeout(WAIT, socket.hear()).await.expect("it goes on")
}

#[tokio::test]
async fn frames_go_both_ways_and_the_writer_hears_when_they_are_on_the_wire() {
    let (mut socket, mut peer) = pair(1 << 20).await;
    socket.write(b"to the peer".to_vec());
    assert_eq!(socket.unwritten_bytes(), 11);
    assert_eq!(hear(&mut socket).await, Heard::Written);
    assert_eq!(
        (socket.unwritten_bytes(), socket.unwritten_since()),
        (0, None)
    );
    let came = peer.next().await.unwrap().unwrap();
    assert_eq!(came.into_text().unwrap().as_str(), "to the peer");
    peer.send(Message::text("from the peer")).await.unwrap();
    let Heard::Frame(frame) = hear(&mut socket).await else {
        panic!("a frame was due");
    };
    assert_eq!(&*frame, b"from the peer");
}

#[tokio::test]
async fn a_peer_that_does_not_upgrade_is_known_by_its_status() {
    let (ours, mut theirs) = duplex(PIPE_BYTES);
    let reply = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    theirs.write_all(reply).await.unwrap();
    let uri = "ws://peer.example/".parse().unwrap();
    let dialled = timeout(WAIT, Socket::connected(uri, ours, 1 << 10)).await;
    let error = dialled.expect("it goes on").unwrap_err();
    let told = error.get_ref().and_then(|it| it.downcast_ref());
    assert_eq!(told, Some(&NotUpgraded { status: 404 }));
}

#[tokio::test]
async fn a_peer_is_read_while_it_does_not_read() {
    let (mut socket, mut peer) = pair(1 << 20).await;
    // Far more than the pipe holds: this write cannot end before the peer reads.
    socket.write(vec![b'x'; 64 * PIPE_BYTES]);
    for number in 0..10 {
        let sent = peer.send(Message::text(format!("frame {number}")));
        let (sent, heard) = tokio::join!(sent, hear(&mut socket));
        sent.unwrap();
        assert_eq!(heard, Heard::Frame(format!("frame {number}").into()));
    }
    assert!(socket.unwritten_since().is_some());
    let (came, heard) = tokio::join!(peer.next(), hear(&mut socket));
    assert_eq!(heard, Heard::Written);
    assert_eq!(came.unwrap().unwrap().len(), 64 * PIPE_BYTES);
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_at_its_head() {
    let (mut socket, theirs) = {
        let (ours, theirs) = duplex(PIPE_BYTES);
        (Socket::accepted(ours, 1_000), theirs)
    };
    let mut theirs = theirs;
    // The head of a masked text frame of 9 MiB, and not one byte of it.
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&(9u64 << 20).to_be_bytes());
    head.extend_from_slice(&[1, 2, 3, 4]);
    theirs.write_all(&head).await.unwrap();
    assert_eq!(hear(&mut socket).await, Heard::TooLarge);
}

#[tokio::test]
async fn the_limit_may_rise_in_the_life_of_a_connection() {
    let (mut socket, mut peer) = pair(100).await;
    peer.send(Message::text("small")).await.unwrap();
    assert_eq!(hear(&mut socket).await, Heard::Frame("small".into()));
    socket.allow(1_000);
    peer.send(Message::text("x".repeat(1_000))).await.unwrap();
    assert_eq!(
        hear(&mut socket).await,
        Heard::Frame("x".repeat(1_000).into())
    );
}

#[tokio::test]
async fn pings_are_answered_but_no_faster_than_their_pongs_are_read() {
    let (mut socket, mut peer) = pair(1 << 20).await;
    peer.send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    peer.send(Message::text("after it")).await.unwrap();
    assert_eq!(hear(&mut socket).await, Heard::Frame("after it".into()));
    let pong = peer.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("are you there".into()));

    // One that only pings, and reads no pong: in the end neither side can go on.
    let stalled = poll_fn(|context| {
        for _ in 0..PIPE_BYTES {
            let ping = Message::Ping(vec![b'p'; 120].into());
            let mut is_sent = false;
            if peer.poll_ready_unpin(context).is_ready() {
                peer.start_send_unpin(ping).unwrap();
                is_sent = peer.poll_flush_unpin(context).is_ready();
            }
            let heard = pin!(socket.hear()).poll(context);
            assert!(heard.is_pending(), "a ping is no news: {heard:?}");
            if !is_sent && peer.poll_flush_unpin(context).is_pending() {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    });
    assert!(stalled.await, "nothing holds this peer back");
}

#[tokio::test]
async fn a_close_carries_its_reason_both_ways() {
    let (mut socket, mut peer) = pair(1 << 20).await;
    socket.write(b"first".to_vec());
    socket.close(1008, "because");
    let ending = tokio::spawn(socket.end());
    assert!(peer.next().await.unwrap().unwrap().is_text());
    let Some(Ok(Message::Close(Some(close)))) = peer.next().await else {
        panic!("a close was due");
    };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (1008, "because")
    );
    // The library answers the close as it is polled.
    let _ = peer.next().await;
    timeout(WAIT, ending).await.unwrap().unwrap();

    let (mut socket, mut peer) = pair(1 << 20).await;
    let close = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 1001.into(),
        reason: "drain:deploy".into(),
    };
    peer.send(Message::Close(Some(close))).await.unwrap();
    let heard = hear(&mut socket).await;
    let reason = "drain:deploy".to_owned();
    assert_eq!(
        heard,
        Heard::Closed {
            code: Some(1001),
            reason
        }
    );
}

#[tokio::test]
async fn a_connection_that_breaks_is_closed_without_a_code() {
    let (mut socket, peer) = pair(1 << 20).await;
    drop(peer);
    let reason = String::new();
    assert_eq!(
        hear(&mut socket).await,
        Heard::Closed { code: None, reason }
    );
}
