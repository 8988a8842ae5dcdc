//! A mutual post-quantum handshake takes one round trip.
//!
//! Until it knows that the client owns its address, a server may send three times the bytes that it
//! received. The client's hello fills two datagrams, and the server's whole answer has to fit into
//! the credit of these two. It is 7037 bytes of 7200; new connection ids of another 138 bytes ride
//! along.

use x0x_transport::{link::Engine, quic::QuicEngine};

use crate::support::{Proxy, address, config, engine, id, within};

/// Datagrams of a client hello with an ML-KEM share.
const CLIENT_FLIGHT: usize = 2;
/// Bytes that every Initial datagram has at least.
const INITIAL: usize = 1200;

#[tokio::test]
async fn the_server_answers_the_first_flight_in_full() {
    for pure_pq in [false, true] {
        let mut dialler = config(1);
        dialler.pure_pq = pure_pq;
        let dialler = QuicEngine::bind(dialler).expect("binds");
        let acceptor = engine(2);
        let proxy = Proxy::new(address(&acceptor)).await;

        // The dialler can only finish with the server's last handshake byte. As no more than its
        // hello gets through, success proves that the hello alone was answered completely.
        proxy.limit_to_server(CLIENT_FLIGHT);
        let link = within("dial", dialler.dial(proxy.address, Some(id(2)))).await;
        link.expect("the server's first flight exceeds three times the client's");

        let seen = proxy.take_seen();
        assert!(seen.to_server.len() == CLIENT_FLIGHT && seen.to_server[0] == INITIAL, "{seen:?}");
        let (credit, used) =
            (3 * seen.to_server.iter().sum::<usize>(), seen.to_client.iter().sum::<usize>());
        assert!(used <= credit, "{used} bytes with a credit of {credit}: {seen:?}");
        println!("pure_pq {pure_pq}: {used} of {credit} bytes");
        // Without the client's key the server accepts nothing.
        assert_eq!(acceptor.metrics().links_accepted.value(), 0);

        proxy.limit_to_server(usize::MAX);
        let accepted = within("accept", acceptor.accept()).await.expect("engine is open");
        assert_eq!(accepted.peer(), id(1));
    }
}
