//! The yardstick: messages and acknowledgements over raw quinn, in this process.
//!
//! Each message is a unidirectional stream, and so is each acknowledgement. Keys are raw Ed25519
//! keys that nobody checks: a yardstick measures streams, not handshakes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::task::JoinHandle;

/// Largest message that the far side reads.
const MAX_MESSAGE: usize = 64 * 1024;
/// As long as a message id.
const ACKNOWLEDGEMENT: [u8; 16] = [1; 16];

/// Two endpoints with a connection between them.
pub(crate) struct Echo {
    connection: Connection,
    _endpoints: (Endpoint, Endpoint),
    far: JoinHandle<Result<()>>,
}

impl Echo {
    pub(crate) async fn start() -> Result<Self> {
        let (connection, far, endpoints) = connect().await?;
        let far = tokio::spawn(acknowledge(far));
        Ok(Self { connection, _endpoints: endpoints, far })
    }

    /// Sends a message and waits for an acknowledgement: with several calls at once, any of theirs.
    pub(crate) async fn send(&self, message: &[u8]) -> Result<()> {
        let mut stream = self.connection.open_uni().await?;
        stream.write_all(message).await?;
        stream.finish()?;
        let mut answer = self.connection.accept_uni().await?;
        answer.read_to_end(ACKNOWLEDGEMENT.len()).await?;
        Ok(())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.far.abort();
    }
}

/// Both ends of a connection, and the endpoints that have to be kept for it.
pub(crate) async fn connect() -> Result<(Connection, Connection, (Endpoint, Endpoint))> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = Endpoint::server(server_config(&provider)?, loopback)?;
    let mut client = Endpoint::client(loopback)?;
    client.set_default_client_config(client_config(&provider)?);
    let accepting = async {
        let incoming = server.accept().await.context("the endpoint closed")?;
        anyhow::Ok(incoming.await?)
    };
    let connecting = client.connect(server.local_addr()?, "localhost")?;
    let connecting = async { anyhow::Ok(connecting.await?) };
    let (near, far) = tokio::try_join!(connecting, accepting)?;
    Ok((near, far, (client, server)))
}

async fn acknowledge(connection: Connection) -> Result<()> {
    loop {
        let mut stream = connection.accept_uni().await?;
        let connection = connection.clone();
        tokio::spawn(async move {
            stream.read_to_end(MAX_MESSAGE).await?;
            let mut answer = connection.open_uni().await?;
            answer.write_all(&ACKNOWLEDGEMENT).await?;
            answer.finish()?;
            anyhow::Ok(())
        });
    }
}

fn server_config(provider: &Arc<CryptoProvider>) -> Result<ServerConfig> {
    let pkcs8 = ::aws_lc_rs::signature::Ed25519KeyPair::generate()?.to_pkcs8()?;
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
    let key = provider.key_provider.load_private_key(der.into())?;
    let spki = key.public_key().context("the key has no public part")?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(spki.as_ref().to_vec())], key);
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    Ok(ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?)))
}

fn client_config(provider: &Arc<CryptoProvider>) -> Result<ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(Arc::clone(provider))))
        .with_no_client_auth();
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)))
}

/// Takes whatever raw key the far side has.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_acknowledged() {
        let echo = Echo::start().await.unwrap();
        echo.send(b"hello").await.unwrap();
    }
}
