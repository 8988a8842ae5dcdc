//! Data on streams, back-pressure and close codes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use x0x_transport::{
    link::{LinkClosed, RecvStream},
    wire::CloseCode,
};

use crate::support::{connect, engine, until, within};

/// The engine's window of one stream.
const STREAM_WINDOW: usize = 2 << 20;

/// Bytes that differ at every position modulo a prime.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>().into()
}

async fn read_all(stream: &mut dyn RecvStream, max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = within("read", stream.read(max)).await.expect("link is up") {
        assert!(!bytes.is_empty() && bytes.len() <= max);
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test]
async fn streams_carry_bytes_in_order_both_ways() {
    let engines = (engine(1), engine(2));
    let (dialled, accepted) = connect(&engines.0, &engines.1).await;
    dialled.trust();
    accepted.trust();
    let data = pattern(300_000);
    for (from, to) in [(&dialled, &accepted), (&accepted, &dialled)] {
        for priority in [100, -10] {
            let mut stream = within("open", from.open(priority)).await.expect("link is up");
            let mut chunks = [data.slice(..1), data.slice(1..200_000), data.slice(200_000..)];
            within("write", stream.write_all(&mut chunks)).await.expect("link is up");
            drop(stream); // Dropping the sending half ends the stream.
            let mut stream = within("accept", to.accept()).await.expect("link is up");
            assert_eq!(read_all(&mut *stream, 1000).await, data);
        }
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_only_its_own_writer() {
    const CHUNK: usize = 64 << 10;
    const TOTAL: usize = 12 << 20;
    let engines = (engine(1), engine(2));
    let (dialled, accepted) = connect(&engines.0, &engines.1).await;
    accepted.trust();
    let written = Arc::new(AtomicUsize::new(0));
    let mut slow = within("open", dialled.open(0)).await.expect("link is up");
    let writer = tokio::spawn({
        let (written, data) = (written.clone(), pattern(CHUNK));
        async move {
            while written.load(Ordering::SeqCst) < TOTAL {
                slow.write_all(&mut [data.clone()]).await.expect("link is up");
                written.fetch_add(CHUNK, Ordering::SeqCst);
            }
        }
    });
    let mut unread = within("accept", accepted.accept()).await.expect("link is up");
    let full = || written.load(Ordering::SeqCst) >= STREAM_WINDOW - CHUNK;
    until("the window fills", full).await;

    // The writer stands; another stream does not.
    let mut other = within("open", dialled.open(0)).await.expect("link is up");
    within("write", other.write_all(&mut [pattern(CHUNK)])).await.expect("link is up");
    drop(other);
    let mut stream = within("accept", accepted.accept()).await.expect("link is up");
    assert_eq!(read_all(&mut *stream, CHUNK).await, pattern(CHUNK));

    // What is written never runs further ahead of the reader than the window.
    let mut read = 0;
    while let Some(bytes) = within("read", unread.read(CHUNK)).await.expect("link is up") {
        let ahead = written.load(Ordering::SeqCst).saturating_sub(read);
        assert!(ahead <= STREAM_WINDOW, "{ahead} bytes ahead");
        assert!(bytes.iter().enumerate().all(|(i, b)| *b == (((read + i) % CHUNK) % 251) as u8));
        read += bytes.len();
    }
    assert_eq!(read, TOTAL);
    within("writer", writer).await.expect("no panic");
}

#[tokio::test]
async fn a_stranger_puts_little_into_a_link_before_it_is_trusted() {
    const ALL: usize = 512 << 10;
    let engines = (engine(1), engine(2));
    let (dialled, accepted) = connect(&engines.0, &engines.1).await;
    let mut stream = within("open", dialled.open(0)).await.expect("link is up");
    let mut writer =
        tokio::spawn(async move { stream.write_all(&mut [pattern(ALL)]).await.is_ok() });
    let blocked = tokio::time::timeout(std::time::Duration::from_millis(200), &mut writer);
    assert!(blocked.await.is_err(), "nobody reads");
    accepted.trust();
    assert!(within("write", writer).await.expect("no panic"), "still nobody reads");
}

#[tokio::test]
async fn close_codes_reach_the_peer() {
    let engines = (engine(1), engine(2));
    for code in [
        CloseCode::Shutdown,
        CloseCode::Duplicate,
        CloseCode::Misbehaved,
        CloseCode::WrongNetwork,
        CloseCode::Limit,
        CloseCode::Disconnected,
        CloseCode::Timeout,
    ] {
        let (dialled, accepted) = connect(&engines.0, &engines.1).await;
        let mut stream = within("open", accepted.open(0)).await.expect("link is up");
        dialled.close(code);
        assert_eq!(within("closed", dialled.closed()).await, LinkClosed::Local);
        assert_eq!(within("closed", accepted.closed()).await, LinkClosed::Peer(code));
        let write = stream.write_all(&mut ["late".into()]).await;
        assert_eq!(write, Err(LinkClosed::Peer(code)));
        assert_eq!(accepted.open(0).await.err(), Some(LinkClosed::Peer(code)));
        assert_eq!(accepted.accept().await.err(), Some(LinkClosed::Peer(code)));
    }
}

#[tokio::test]
async fn a_stream_given_up_by_its_reader_fails_its_writer() {
    let engines = (engine(1), engine(2));
    let (dialled, accepted) = connect(&engines.0, &engines.1).await;
    let mut stream = within("open", dialled.open(0)).await.expect("link is up");
    within("write", stream.write_all(&mut ["x".into()])).await.expect("link is up");
    drop(within("accept", accepted.accept()).await.expect("link is up"));
    let error = within("write", async {
        loop {
            if let Err(error) = stream.write_all(&mut [pattern(1000)]).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, LinkClosed::Stream(_)), "{error}");
}
