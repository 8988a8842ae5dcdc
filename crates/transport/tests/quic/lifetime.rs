//! How links and engines end.

use std::time::Duration;

use x0x_transport::{
    error::DialError,
    link::{Engine, LinkClosed},
    quic::QuicEngine,
    wire::CloseCode,
};

use crate::support::{Proxy, address, config, confirm, connect, connect_at, engine, id, within};

#[tokio::test]
async fn a_vanished_peer_is_noticed_by_its_silence() {
    let mut impatient = config(1);
    impatient.idle_timeout = Duration::from_millis(300);
    impatient.keep_alive = Duration::from_millis(100);
    let dialler = QuicEngine::bind(impatient).expect("binds");
    let acceptor = engine(2);
    let proxy = Proxy::new(address(&acceptor)).await;
    let (dialled, accepted) = connect_at(&dialler, &acceptor, proxy.address).await;
    drop(proxy);
    assert_eq!(within("closed", dialled.closed()).await, LinkClosed::TimedOut);
    assert_eq!(within("closed", accepted.closed()).await, LinkClosed::TimedOut);
}

#[tokio::test]
async fn a_restarted_peer_is_noticed_at_the_next_packet() {
    let dialler = engine(1);
    let acceptor = engine(2);
    let at = address(&acceptor);
    let proxy = Proxy::new(at).await;
    let (dialled, accepted) = connect_at(&dialler, &acceptor, proxy.address).await;
    confirm(&*accepted, &*dialled).await;

    // As in a crash, the dialler hears nothing of the end.
    proxy.block_client(true);
    within("close", async { tokio::join!(acceptor.close(), async { drop(accepted) }) }).await;
    let mut again = config(2);
    again.bind = at;
    let restarted = QuicEngine::bind(again).expect("the port is free again");
    proxy.block_client(false);

    let mut stream = within("open", dialled.open(0)).await.expect("link is up");
    let _ = stream.write_all(&mut [vec![0; 1000].into()]).await;
    let ended = within("closed", dialled.closed()).await;
    assert_eq!(ended, LinkClosed::Failed("the peer restarted".into()));
    assert_eq!(restarted.metrics().links_accepted.value(), 0);
}

#[tokio::test]
async fn closing_an_engine_tells_its_peers_and_frees_the_port() {
    let (dialler, acceptor) = (engine(1), engine(2));
    let at = address(&acceptor);
    let (dialled, accepted) = connect(&dialler, &acceptor).await;
    within("close", acceptor.close()).await;
    assert_eq!(within("closed", accepted.closed()).await, LinkClosed::Local);
    assert_eq!(within("closed", dialled.closed()).await, LinkClosed::Peer(CloseCode::Shutdown));
    assert!(within("accept", acceptor.accept()).await.is_none());
    let dial = within("dial", acceptor.dial(address(&dialler), None)).await;
    assert_eq!(dial.expect_err("closed"), DialError::Closed);
    within("close again", acceptor.close()).await;
    drop(accepted);

    let mut again = config(2);
    again.bind = at;
    let again = QuicEngine::bind(again).expect("the port is free");
    let (dialled, _accepted) = connect(&dialler, &again).await;
    assert_eq!(dialled.peer(), id(2));
}

#[tokio::test]
async fn dropping_an_engine_closes_its_links() {
    let (dialler, acceptor) = (engine(1), engine(2));
    let (dialled, accepted) = connect(&dialler, &acceptor).await;
    drop(acceptor);
    assert_eq!(within("closed", accepted.closed()).await, LinkClosed::Local);
    assert_eq!(within("closed", dialled.closed()).await, LinkClosed::Peer(CloseCode::Shutdown));
}
