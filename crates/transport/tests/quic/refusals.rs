//! Peers that a machine refuses.

use x0x_core::Counter;
use x0x_transport::{
    error::DialError,
    link::{Engine, LinkClosed},
    quic::QuicMetrics,
    wire::CloseCode,
};

use crate::{
    strangers::{
        CLASSICAL, Credentials, Groups, HYBRID, client, disguised_key, ed25519_key, impostor,
        machine, nothing, server, x509,
    },
    support::{address, engine, id, until, within},
};

/// Where a refusal is counted.
type Reason = fn(&QuicMetrics) -> &Counter;

#[tokio::test]
async fn strange_diallers_are_refused_and_counted() {
    let cases: [(&str, Groups, &str, Credentials, Reason); 8] = [
        ("classical", CLASSICAL, "x0x/1", machine(1), |m| &m.failed_no_common_group),
        ("X.509", HYBRID, "x0x/1", x509(), |m| &m.failed_certificate_type),
        ("no key", HYBRID, "x0x/1", nothing(), |m| &m.failed_no_key),
        ("Ed25519", HYBRID, "x0x/1", ed25519_key(), |m| &m.failed_no_key),
        ("disguised Ed25519", HYBRID, "x0x/1", disguised_key(), |m| &m.failed_key_type),
        ("impostor", HYBRID, "x0x/1", impostor(), |m| &m.failed_signature),
        ("our own key", HYBRID, "x0x/1", machine(7), |m| &m.failed_own_key),
        ("another version", HYBRID, "x0x/2", machine(1), |m| &m.failed_protocol),
    ];
    for (who, groups, alpn, credentials, reason) in cases {
        let acceptor = engine(7);
        let ended = client(address(&acceptor), groups, alpn, credentials).await;
        assert!(matches!(ended, quinn::ConnectionError::ConnectionClosed(_)), "{who}: {ended}");
        let metrics = acceptor.metrics();
        until(who, || reason(&metrics).value() == 1).await;
        assert_eq!(metrics.links_accepted.value(), 0, "{who}");
        let failed: u64 = metrics
            .snapshot()
            .iter()
            .filter(|metric| metric.name.starts_with("quic_handshakes_failed"))
            .map(|metric| metric.value)
            .sum();
        assert_eq!(failed, 1, "{who}");
    }
}

#[tokio::test]
async fn the_strange_client_is_accepted_with_good_credentials() {
    // Shows that the refusals above have no other cause.
    let acceptor = engine(7);
    let at = address(&acceptor);
    let strange = tokio::spawn(client(at, HYBRID, "x0x/1", machine(1)));
    let link = within("accept", acceptor.accept()).await.expect("engine is open");
    assert_eq!(link.peer(), id(1));
    link.close(CloseCode::Disconnected);
    let ended = within("client", strange).await.expect("no panic");
    assert!(matches!(ended, quinn::ConnectionError::ApplicationClosed(_)), "{ended}");
}

#[tokio::test]
async fn strange_servers_are_refused_and_counted() {
    let refused = || DialError::ClosedByPeer("TLS alert HandshakeFailure".into());
    let wrong = DialError::PeerMisbehaved;
    let cases: [(&str, Groups, Credentials, DialError, Reason); 4] = [
        ("classical", CLASSICAL, machine(2), refused(), |m| &m.failed_refused_by_peer),
        ("Ed25519", HYBRID, ed25519_key(), refused(), |m| &m.failed_refused_by_peer),
        ("disguised Ed25519", HYBRID, disguised_key(), wrong("its key is not ML-DSA-65"), |m| {
            &m.failed_key_type
        }),
        ("impostor", HYBRID, impostor(), wrong("could not sign with its key"), |m| {
            &m.failed_signature
        }),
    ];
    for (who, groups, credentials, expected, reason) in cases {
        let (_endpoint, at) = server(groups, false, &credentials);
        let dialler = engine(1);
        let error = within(who, dialler.dial(at, Some(id(2)))).await.expect_err(who);
        assert_eq!(error, expected, "{who}");
        assert_eq!(reason(&dialler.metrics()).value(), 1, "{who}");
        assert_eq!(dialler.metrics().links_dialled.value(), 0, "{who}");
    }
}

#[tokio::test]
async fn a_dialler_hears_promptly_that_its_identity_was_refused() {
    let (_endpoint, at) = server(HYBRID, true, &machine(2));
    let dialler = engine(1);
    // The dialler's side is done half a round trip before the refusal.
    let link = within("dial", dialler.dial(at, Some(id(2)))).await.expect("done on this side");
    let LinkClosed::Failed(text) = within("closed", link.closed()).await else {
        panic!("closed otherwise");
    };
    assert_eq!(text, "the peer refused this machine's identity: TLS alert AccessDenied");
}
