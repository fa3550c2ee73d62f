//! By a clock that stands still unless all wait for it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use cereus_core::door::Origin;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::sleep;

use super::arrival::{PACE_WINDOW, PAUSE_MAX};
use super::*;

const SIZE_MAX: usize = 1 << 20;
/// A share is one of four megabytes.
const ROOM_KIB: u32 = 4 << 10;
const SHARE_SIZE: usize = 1 << 20;
const ONE: Whose = Whose::Account(1);
const OTHER: Whose = Whose::Account(2);

/// `first` bytes at once, then `piece` bytes every second, without an end.
fn trickle(first: usize, piece: usize) -> Body {
    let first = stream::iter([Ok::<_, io::Error>(vec![b' '; first])]);
    let rest = stream::repeat(piece).then(|piece| async move {
        sleep(Duration::from_secs(1)).await;
        Ok(vec![b' '; piece])
    });
    Body::from_stream(first.chain(rest))
}

/// Whole, in two pieces, so that it is not handed on as it is.
fn in_two(whole: &[u8]) -> Body {
    let (first, rest) = whole.split_at(whole.len() / 2);
    let pieces = [first.to_vec(), rest.to_vec()].map(Ok::<_, io::Error>);
    Body::from_stream(stream::iter(pieces))
}

async fn read_plain(body: Body) -> Result<Bytes, u16> {
    let read = read(body, Packing::Plain, SIZE_MAX, Bodies::new().place(&[]));
    let read = read.await.map(Bytes::from);
    read.map_err(|refused| refused.status)
}

async fn read_zstd(frame: &[u8]) -> Result<Bytes, u16> {
    let read = read(
        in_two(frame),
        Packing::Zstd,
        SIZE_MAX,
        Bodies::new().place(&[ONE]),
    );
    let read = read.await.map(Bytes::from);
    read.map_err(|refused| refused.status)
}

#[tokio::test(start_paused = true)]
async fn a_large_body_that_comes_too_slowly_is_refused_before_its_whole_time_is_over() {
    let begun = tokio::time::Instant::now();
    let refused = read_plain(trickle(SMALL + 1, 1_024)).await;
    assert_eq!(refused, Err(408));
    assert!(begun.elapsed() <= PACE_WINDOW * 2, "{:?}", begun.elapsed());

    // What was sent fast before earns no rest.
    let begun = tokio::time::Instant::now();
    assert_eq!(read_plain(trickle(SIZE_MAX - 9, 0)).await, Err(408));
    assert!(begun.elapsed() <= PACE_WINDOW * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_keeps_the_pace_is_read_to_its_limit() {
    assert_eq!(read_plain(trickle(SMALL, 64 << 10)).await, Err(413));
}

#[tokio::test(start_paused = true)]
async fn a_small_body_may_be_slow_and_may_not_pause_for_long() {
    let slow = trickle(0, 1).into_data_stream().take(20);
    let read = read_plain(Body::from_stream(slow)).await;
    assert_eq!(read.map(|read| read.len()), Ok(19));
    let never = Body::from_stream(stream::pending::<Result<Bytes, io::Error>>());
    let begun = tokio::time::Instant::now();
    assert_eq!(read_plain(never).await, Err(408));
    assert_eq!(begun.elapsed(), PAUSE_MAX);
}

#[tokio::test(start_paused = true)]
async fn one_caller_takes_its_share_of_the_room_and_no_more() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let mut first = bodies.place(&[ONE]);
    first.hold(SHARE_SIZE).await.unwrap();
    let second = bodies.place(&[ONE]).hold(1).await;
    assert_eq!(second.unwrap_err().status, 429);
    bodies.place(&[OTHER]).hold(SHARE_SIZE).await.unwrap();
    drop(first);
    bodies.place(&[ONE]).hold(SHARE_SIZE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_address_has_one_share_whatever_accounts_send_from_it() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let origin = Whose::Origin(Origin::of(IpAddr::from([192, 0, 2, 1])));
    let mut first = bodies.place(&[ONE, origin]);
    first.hold(SHARE_SIZE).await.unwrap();
    let second = bodies.place(&[OTHER, origin]).hold(1).await;
    assert_eq!(second.unwrap_err().status, 429);
    let third = bodies.place(&[ONE]).hold(1).await;
    assert_eq!(third.unwrap_err().status, 429);
}

#[tokio::test(start_paused = true)]
async fn others_are_read_while_one_fills_its_share_with_slow_bodies() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let read_of = |whose, body| read(body, Packing::Plain, SIZE_MAX, bodies.place(&[whose]));
    let slow = || tokio::spawn(read_of(ONE, trickle(SIZE_MAX / 2 - 1, 1_024)));
    let greedy = [slow(), slow(), slow()];
    let large = vec![b' '; SIZE_MAX];
    let other = read_of(OTHER, in_two(&large)).await.unwrap();
    assert_eq!(other.len(), SIZE_MAX);
    for greedy in greedy {
        let refused = greedy.await.unwrap().unwrap_err();
        assert!(matches!(refused.status, 408 | 429), "{refused:?}");
    }
    bodies.place(&[ONE]).hold(SHARE_SIZE).await.unwrap();
}

/// What else of the room one may have at once, by a clock that costs nothing.
async fn has_room(bodies: &Arc<Bodies>, whose: &[Whose], size: usize) -> bool {
    bodies.place(whose).hold(size).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_body_counts_in_its_share_until_its_last_clone_is_dropped() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let large = vec![b' '; SIZE_MAX];
    let at_once = Body::from(large.clone());
    for body in [in_two(&large), at_once] {
        let kept = read(body, Packing::Plain, SIZE_MAX, bodies.place(&[ONE])).await;
        let kept = Bytes::from(kept.unwrap());
        assert!(!has_room(&bodies, &[ONE], 1).await);
        assert!(has_room(&bodies, &[OTHER], SHARE_SIZE).await);
        let part = kept.slice(..1);
        drop(kept);
        assert!(!has_room(&bodies, &[ONE], 1).await, "its memory is held");
        drop(part);
        assert!(has_room(&bodies, &[ONE], SHARE_SIZE).await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_instead_of_a_body_has_the_room_of_its_own_size() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let large = vec![b' '; SIZE_MAX];
    let place = bodies.place(&[ONE]);
    let kept = read(in_two(&large), Packing::Plain, SIZE_MAX, place).await;
    let kept = kept.unwrap().replaced_by(vec![b' '; SIZE_MAX / 2]);
    assert!(!has_room(&bodies, &[ONE], SHARE_SIZE / 2 + 1).await);
    assert!(has_room(&bodies, &[ONE], SHARE_SIZE / 2).await);
    let kept = kept.replaced_by(vec![b' '; SMALL]);
    assert!(has_room(&bodies, &[ONE], SHARE_SIZE).await);
    assert_eq!(kept.len(), SMALL);
}

#[tokio::test(start_paused = true)]
async fn what_a_decoder_took_is_free_once_the_body_is_there() {
    // With a share of nine megabytes and more there is room for the window.
    let bodies = Bodies::with_room(ROOM_KIB * 16);
    let frame = zstd(WINDOW_8_MIB, SIZE_MAX / BLOCK_SIZE);
    let place = bodies.place(&[ONE]);
    let kept = read(in_two(&frame), Packing::Zstd, SIZE_MAX, place).await;
    let kept = kept.unwrap();
    assert_eq!(kept.len(), SIZE_MAX);
    assert!(has_room(&bodies, &[ONE], 16 * SHARE_SIZE - SIZE_MAX).await);
    assert!(!has_room(&bodies, &[ONE], 16 * SHARE_SIZE - SIZE_MAX + 1).await);
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_body_waits_for_room_is_not_its_senders() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let mut other = bodies.place(&[ONE]);
    other.hold(SHARE_SIZE).await.unwrap();
    // At 51 s the body is large and needs room, and at 59 s it has some: too late for another byte, did
    // the wait count.
    let size = SMALL + (64 << 10);
    let slow = stream::iter(0..60).then(|second| async move {
        sleep(Duration::from_secs(1)).await;
        let size = if second < 50 { 1 } else { SMALL + 1 };
        Ok::<_, io::Error>(vec![b' '; size])
    });
    let body = Body::from_stream(slow.take(55));
    let place = bodies.place(&[ONE]);
    let reading = read(body, Packing::Plain, SIZE_MAX, place);
    let freeing = async {
        sleep(Duration::from_secs(59)).await;
        drop(other);
    };
    let (read, ()) = tokio::join!(reading, freeing);
    assert!(read.unwrap().len() > size);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_finds_no_room_is_told_so_and_not_that_it_was_late() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let large = vec![b' '; SIZE_MAX];
    let place = bodies.place(&[ONE]);
    let kept = read(in_two(&large), Packing::Plain, SIZE_MAX, place).await;
    let begun = tokio::time::Instant::now();
    let read_again = || {
        let place = bodies.place(&[ONE]);
        tokio::spawn(read(in_two(&large), Packing::Plain, SIZE_MAX, place))
    };
    for refused in (0..20).map(|_| read_again()).collect::<Vec<_>>() {
        assert_eq!(refused.await.unwrap().unwrap_err().status, 429);
    }
    assert!(begun.elapsed() < BODY_WAIT);
    drop(kept);
    assert!(read_again().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn compressed_bodies_that_come_side_by_side_do_not_wait_for_each_other() {
    // Room in a share for one decoder, and the body that is read.
    let bodies = Bodies::with_room(ROOM_KIB * 11);
    let frame = zstd(WINDOW_8_MIB, SIZE_MAX / BLOCK_SIZE);
    let read_one = || {
        let place = bodies.place(&[ONE]);
        let reading = read(in_two(&frame), Packing::Zstd, SIZE_MAX, place);
        tokio::spawn(async { reading.await.map(|kept| kept.len()) })
    };
    for read in (0..8).map(|_| read_one()).collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap().ok(), Some(SIZE_MAX));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_decoder_takes_counts_in_the_share() {
    let bodies = Bodies::with_room(ROOM_KIB);
    let place = bodies.place(&[ONE]);
    let frame = zstd(WINDOW_8_MIB, 1);
    let refused = read(in_two(&frame), Packing::Zstd, SIZE_MAX, place).await;
    assert_eq!(
        refused.unwrap_err().status,
        429,
        "a share of 1 MiB has no room for it"
    );
}

/// RFC 8878, 3.1.1.1.2: exponents of 13 and 17.
const WINDOW_8_MIB: u8 = 13 << 3;
const WINDOW_128_MIB: u8 = 17 << 3;
/// The most of one block.
const BLOCK_SIZE: usize = 128 << 10;

/// A frame of zstd: blocks that each repeat one blank.
fn zstd(window: u8, blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    for block in 1..=blocks {
        let is_last = u32::from(block == blocks);
        let head = u32::try_from(BLOCK_SIZE).unwrap() << 3 | 1 << 1 | is_last;
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

#[tokio::test(start_paused = true)]
async fn a_compressed_body_is_held_to_the_size_that_it_has_without() {
    let fits = read_zstd(&zstd(WINDOW_8_MIB, SIZE_MAX / BLOCK_SIZE)).await;
    assert_eq!(fits.map(|read| read.len()), Ok(SIZE_MAX));
    let bomb = zstd(WINDOW_8_MIB, 60_000);
    assert!(bomb.len() < SIZE_MAX);
    assert_eq!(read_zstd(&bomb).await, Err(413));
}

#[tokio::test(start_paused = true)]
async fn a_window_that_no_encoder_of_http_may_ask_for_is_refused() {
    assert_eq!(read_zstd(&zstd(WINDOW_128_MIB, 1)).await, Err(400));
    // A large window of brotli: 30 bits, as its extension spells it.
    let large = [0x11, 30, 0x03];
    let read = read(
        in_two(&large),
        Packing::Brotli,
        SIZE_MAX,
        Bodies::new().place(&[]),
    );
    assert_eq!(read.await.unwrap_err().status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_body_that_pauses_is_told_so() {
    let wire = stream::iter([Ok::<_, io::Error>(zstd(WINDOW_8_MIB, 4).split_off(9))]);
    let wire = Body::from_stream(wire.chain(stream::pending()));
    let read = read(wire, Packing::Zstd, SIZE_MAX, Bodies::new().place(&[]));
    assert_eq!(read.await.unwrap_err().status, 408);
    // Past its beginning a decoder meets the pause.
    let mut long = vec![0x28, 0xb5, 0x2f, 0xfd, 0, WINDOW_8_MIB];
    let head = u32::try_from(BLOCK_SIZE).unwrap() << 3;
    long.extend_from_slice(&head.to_le_bytes()[..3]);
    long.resize(SMALL + 1, b' ');
    let wire = stream::iter([Ok::<_, io::Error>(long)]).chain(stream::pending());
    let place = Bodies::new().place(&[ONE]);
    let read = super::read(Body::from_stream(wire), Packing::Zstd, SIZE_MAX, place);
    assert_eq!(read.await.unwrap_err().status, 408);
}
