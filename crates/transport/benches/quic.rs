//! A link of the engine beside a raw quinn stream on the same machine: what our layer, its windows
//! and its socket settings cost or gain. Both ends run in this process.

use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::runtime::Runtime;
use x0x_identity::testing::key;
use x0x_transport::{
    link::{Engine, Link},
    quic::{QuicConfig, QuicEngine},
};

/// Bytes of one transfer.
const TRANSFER: usize = 16 << 20;
/// Payload sizes: a bulk chunk, and a small message.
const CHUNKS: [usize; 2] = [64 << 10, 1 << 10];
/// Bytes that a frame has before its payload.
const HEADER: usize = 5;

/// The chunks of one transfer, each a header and a payload as sessions write them.
fn frames(payload: usize) -> Vec<[Bytes; 2]> {
    let frame = [Bytes::from(vec![7; HEADER]), Bytes::from(vec![7; payload])];
    vec![frame; TRANSFER / payload]
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn link_pair() -> (QuicEngine, QuicEngine, Box<dyn Link>, Box<dyn Link>) {
    let bind = |n| QuicEngine::bind(QuicConfig::new(loopback(), key(n))).expect("loopback binds");
    let (a, b) = (bind(1), bind(2));
    let (dialled, accepted) = tokio::join!(a.dial(b.local_addresses()[0], None), b.accept());
    let (dialled, accepted) = (dialled.expect("dial succeeds"), accepted.expect("engine is open"));
    // As a session does.
    dialled.trust();
    accepted.trust();
    (a, b, dialled, accepted)
}

async fn over_link(from: &dyn Link, to: &dyn Link, payload: usize) -> usize {
    let mut stream = from.open(0).await.expect("link is up");
    let send = async move {
        for mut frame in frames(payload) {
            stream.write_all(&mut frame).await.expect("link is up");
        }
    };
    let receive = async {
        let mut stream = to.accept().await.expect("link is up");
        let mut total = 0;
        while let Some(bytes) = stream.read(usize::MAX).await.expect("link is up") {
            total += bytes.len();
        }
        total
    };
    tokio::join!(send, receive).1
}

/// Trusts everybody.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_65]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

async fn raw_pair() -> ([quinn::Endpoint; 2], quinn::Connection, quinn::Connection) {
    let pkcs8 = key(1).to_pkcs8();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
    let chain = vec![CertificateDer::from(key(1).public_key().to_spki())];
    let certified =
        Arc::new(CertifiedKey::new(chain, any_supported_type(&der).expect("a good key")));
    let provider = Arc::new(default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    let server = QuicServerConfig::try_from(server).expect("has an initial suite");
    let client = QuicClientConfig::try_from(client).expect("has an initial suite");
    let server = quinn::ServerConfig::with_crypto(Arc::new(server));
    let server = quinn::Endpoint::server(server, loopback()).expect("loopback binds");
    let endpoint = quinn::Endpoint::client(loopback()).expect("loopback binds");
    let config = quinn::ClientConfig::new(Arc::new(client));
    let to = server.local_addr().expect("bound");
    let dial = endpoint.connect_with(config, to, "raw.invalid").expect("a good address");
    let accept = async { server.accept().await.expect("open").await };
    let (dialled, accepted) = tokio::join!(dial, accept);
    ([server, endpoint], dialled.expect("dial succeeds"), accepted.expect("accept succeeds"))
}

async fn over_raw(from: &quinn::Connection, to: &quinn::Connection, payload: usize) -> usize {
    let mut stream = from.open_uni().await.expect("connection is up");
    let send = async move {
        for mut frame in frames(payload) {
            stream.write_all_chunks(&mut frame).await.expect("connection is up");
        }
    };
    let receive = async {
        let mut stream = to.accept_uni().await.expect("connection is up");
        let mut total = 0;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.expect("up") {
            total += chunk.bytes.len();
        }
        total
    };
    tokio::join!(send, receive).1
}

fn transfers(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (_a, _b, dialled, accepted) = runtime.block_on(link_pair());
    let (_endpoints, raw_dialled, raw_accepted) = runtime.block_on(raw_pair());
    for payload in CHUNKS {
        let mut group = c.benchmark_group(format!("frames of {payload} bytes"));
        group.sample_size(10).warm_up_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements((TRANSFER / payload) as u64));
        group.bench_function("link", |b| {
            b.iter(|| black_box(runtime.block_on(over_link(&*dialled, &*accepted, payload))));
        });
        group.bench_function("raw quinn", |b| {
            b.iter(|| black_box(runtime.block_on(over_raw(&raw_dialled, &raw_accepted, payload))));
        });
        group.finish();
    }
}

criterion_group!(benches, transfers);
criterion_main!(benches);
