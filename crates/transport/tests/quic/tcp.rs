//! Streams of packets over real TCP on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x0x_core::dialable;
use x0x_transport::{
    error::DialError,
    link::{Engine, LinkClosed},
    quic::{QuicEngine, StreamMetrics},
    wire::CloseCode,
};

use crate::{
    strangers::{
        CLASSICAL, Credentials, Groups, HYBRID, client_config, ed25519_key, impostor, machine,
        nothing, x509,
    },
    support::{config, engine, id, loopback, until, within},
};

const ALPN: &str = "x0x-stream/1";

/// An engine that takes streams at the number of its UDP port.
fn volunteer(n: u64) -> QuicEngine {
    let mut config = config(n);
    config.streams.listen = Some(0);
    config.handshake_timeout = Duration::from_secs(1);
    QuicEngine::bind(config).expect("loopback binds")
}

fn tcp(engine: &QuicEngine) -> SocketAddr {
    SocketAddr::new(loopback().ip(), engine.stream_port().expect("it listens"))
}

fn streams(engine: &QuicEngine) -> Arc<StreamMetrics> {
    engine.metrics().streams.clone()
}

#[tokio::test]
async fn a_link_goes_over_tcp_and_ends_with_it() {
    let (dialler, acceptor) = (engine(1), volunteer(2));
    let at = tcp(&acceptor);
    assert_eq!(at.port(), acceptor.local_addresses()[0].port());
    let dial = dialler.dial_stream(at, None);
    let (dialled, accepted) = within("link", async { tokio::join!(dial, acceptor.accept()) }).await;
    let (dialled, accepted) = (dialled.expect("it listens"), accepted.expect("open"));
    assert_eq!((dialled.peer(), accepted.peer()), (id(2), id(1)));
    assert_eq!(dialled.stream_address(), Some(at));
    assert!(accepted.stream_address().is_some_and(|from| from.ip().is_loopback()));
    for link in [&dialled, &accepted] {
        assert!(dialable(link.remote_address()).is_none(), "it stands for the stream");
    }
    accepted.trust();
    let (sent, mut out) = (Bytes::from(vec![7; 1 << 20]), dialled.open(0).await.expect("up"));
    let write = async { out.write_all(&mut [sent.clone()]).await.expect("up") };
    let read = async {
        let mut stream = accepted.accept().await.expect("a stream");
        let mut got = Vec::new();
        while got.len() < sent.len() {
            assert!(stream.read_onto(&mut got, 1 << 16).await.expect("up"));
        }
        got
    };
    let ((), got) = within("transfer", async { tokio::join!(write, read) }).await;
    assert!(got == sent);
    assert!(streams(&dialler).sent_packets.value() > 700);

    // The other engine goes without a word on this link.
    drop(acceptor);
    let ended = within("end", dialled.closed()).await;
    let told = [LinkClosed::TimedOut, LinkClosed::Peer(CloseCode::Shutdown)];
    assert!(told.contains(&ended), "{ended}");
}

#[tokio::test]
async fn only_the_machine_that_is_meant_is_dialled_and_no_machine_itself() {
    let (dialler, acceptor) = (engine(1), volunteer(2));
    let wrong = within("refusal", dialler.dial_stream(tcp(&acceptor), Some(id(3)))).await;
    assert!(matches!(wrong, Err(DialError::PeerMisbehaved(_))), "{wrong:?}");
    assert_eq!(streams(&dialler).failed_peer.value(), 1);
    let own = within("refusal", acceptor.dial_stream(tcp(&acceptor), None)).await;
    assert_eq!(own.err(), Some(DialError::OwnAddress));
    assert_eq!(streams(&acceptor).accepted.value(), 0);
    let nobody = within("refusal", dialler.dial_stream(loopback(), None)).await;
    assert_eq!(nobody.err(), Some(DialError::NoAddress), "port 0");
}

async fn strange(
    to: SocketAddr,
    groups: Groups,
    alpn: &str,
    who: Credentials,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await?;
    let name = ServerName::try_from("peer.invalid").expect("a name");
    TlsConnector::from(Arc::new(client_config(groups, alpn, who))).connect(name, tcp).await
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let cases: [(&str, Groups, &str, Credentials); 7] = [
        ("classical", CLASSICAL, ALPN, machine(1)),
        ("X.509", HYBRID, ALPN, x509()),
        ("no key", HYBRID, ALPN, nothing()),
        ("Ed25519", HYBRID, ALPN, ed25519_key()),
        ("impostor", HYBRID, ALPN, impostor()),
        ("our own key", HYBRID, ALPN, machine(7)),
        ("links' protocol", HYBRID, "x0x/1", machine(1)),
    ];
    let acceptor = volunteer(7);
    let metrics = streams(&acceptor);
    for (n, (who, groups, alpn, credentials)) in (1..).zip(cases) {
        if let Ok(mut tls) = within(who, strange(tcp(&acceptor), groups, alpn, credentials)).await {
            // A client is done before the server has seen its key.
            assert!(!matches!(within(who, tls.read(&mut [0; 9])).await, Ok(1..)), "{who}");
        }
        until(who, || metrics.failed_tls.value() == n).await;
    }
    let mut garbage = TcpStream::connect(tcp(&acceptor)).await.expect("it listens");
    garbage.write_all(&[0xff; 4096]).await.expect("it reads");
    let silent = TcpStream::connect(tcp(&acceptor)).await.expect("it listens");
    until("garbage, and nothing in time", || metrics.failed_tls.value() == 9).await;
    drop(silent);
    assert_eq!(metrics.accepted.value(), 0);
}

#[tokio::test]
async fn what_comes_in_a_stream_is_no_more_trusted_than_from_udp() {
    let acceptor = volunteer(7);
    let metrics = streams(&acceptor);
    let stream = strange(tcp(&acceptor), HYBRID, ALPN, machine(1));
    let mut tls = within("stream", stream).await.expect("a machine");
    let packets =
        [&[0, 3, 0x31, 0x78, 0x30][..], &[0, 64], &[0x31; 64], &[0x04, 0xb0], &[0xc3; 1200]];
    tls.write_all(&packets.concat()).await.expect("open");
    tls.flush().await.expect("open");
    until("packets", || metrics.received_packets.value() == 3).await;
    tls.write_all(&[0xff; 2]).await.expect("open");
    tls.flush().await.expect("open");
    until("the end", || metrics.closed_malformed.value() == 1).await;
    assert_eq!(acceptor.metrics().links_accepted.value(), 0);
}
