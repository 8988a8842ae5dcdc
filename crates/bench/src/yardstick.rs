//! Raw quinn on loopback: what the transport underneath could do with nothing of ours above it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::cluster::now;

/// A client and an echoing server in this process. Every request is one bidirectional stream; the
/// answer is 16 bytes, as an acknowledgement would be.
#[derive(Debug)]
pub(crate) struct Yardstick {
    connection: Connection,
    _endpoints: (Endpoint, Endpoint),
}

impl Yardstick {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let certificate = CertificateDer::from(certified.cert);
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));

        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())?;
        tls.alpn_protocols = vec![b"yardstick".to_vec()];
        let quic = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
        let server = Endpoint::server(ServerConfig::with_crypto(Arc::new(quic)), loopback)?;
        let address = server.local_addr()?;
        let acceptor = server.clone();
        tokio::spawn(async move {
            while let Some(incoming) = acceptor.accept().await {
                tokio::spawn(async move { serve(incoming.await?).await });
            }
        });

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate)?;
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"yardstick".to_vec()];
        let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls)?;
        let client = Endpoint::client(loopback)?;
        let config = ClientConfig::new(Arc::new(quic));
        let connection = client.connect_with(config, address, "localhost")?.await?;
        Ok(Self { connection, _endpoints: (server, client) })
    }

    /// One request of `size` bytes and its answer.
    pub(crate) async fn call(&self, size: usize) -> anyhow::Result<()> {
        call(&self.connection, size).await
    }

    /// Requests a second with this many in flight.
    pub(crate) async fn rate(&self, size: usize, count: u64, width: u64) -> anyhow::Result<f64> {
        let begin = now();
        let mut callers = Vec::new();
        for _ in 0..width {
            let connection = self.connection.clone();
            callers.push(tokio::spawn(async move {
                for _ in 0..count / width {
                    call(&connection, size).await?;
                }
                anyhow::Ok(())
            }));
        }
        for caller in callers {
            caller.await??;
        }
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"done");
    }
}

async fn call(connection: &Connection, size: usize) -> anyhow::Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&vec![7; size]).await?;
    send.finish()?;
    let answer = receive.read_to_end(16).await?;
    (answer.len() == 16).then_some(()).context("short answer")
}

async fn serve(connection: Connection) -> anyhow::Result<()> {
    loop {
        let (mut send, mut receive) = connection.accept_bi().await?;
        tokio::spawn(async move {
            receive.read_to_end(64 * 1024).await?;
            send.write_all(&[0; 16]).await?;
            send.finish()?;
            anyhow::Ok(())
        });
    }
}
