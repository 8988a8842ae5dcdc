//! Peers built from quinn and rustls with settings that ours cannot have.

use std::{net::SocketAddr, sync::Arc};

use aws_lc_rs::signature::Ed25519KeyPair;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{default_provider, kx_group, sign::any_supported_type},
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
        UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
    version::TLS13,
};
use x0x_identity::testing::key;

use crate::support::{loopback, within};

/// Key exchanges that a peer offers.
pub(crate) type Groups = &'static [&'static dyn SupportedKxGroup];
pub(crate) const HYBRID: Groups = &[kx_group::X25519MLKEM768];
pub(crate) const CLASSICAL: Groups = &[kx_group::X25519];

/// What a strange peer presents.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    key: Option<Arc<CertifiedKey>>,
    raw: bool,
}

fn signer(pkcs8: &[u8]) -> Arc<dyn SigningKey> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    any_supported_type(&der).expect("a good key")
}

fn ed25519() -> Arc<dyn SigningKey> {
    let random = aws_lc_rs::rand::SystemRandom::new();
    signer(Ed25519KeyPair::generate_pkcs8(&random).expect("random").as_ref())
}

fn raw(spki: &[u8], signer: Arc<dyn SigningKey>) -> Credentials {
    let chain = vec![CertificateDer::from(spki.to_vec())];
    Credentials { key: Some(Arc::new(CertifiedKey::new(chain, signer))), raw: true }
}

pub(crate) fn machine(n: u64) -> Credentials {
    raw(&key(n).public_key().to_spki(), signer(&key(n).to_pkcs8()))
}

/// A classical certificate; nobody looks into it before its type is refused.
pub(crate) fn x509() -> Credentials {
    let chain = vec![CertificateDer::from(vec![0x30])];
    Credentials { key: Some(Arc::new(CertifiedKey::new(chain, ed25519()))), raw: false }
}

pub(crate) fn nothing() -> Credentials {
    Credentials { key: None, raw: true }
}

/// The public key of one machine with the secret of another.
pub(crate) fn impostor() -> Credentials {
    raw(&key(2).public_key().to_spki(), signer(&key(9).to_pkcs8()))
}

pub(crate) fn ed25519_key() -> Credentials {
    let signer = ed25519();
    let spki = signer.public_key().expect("ed25519 has one").to_vec();
    raw(&spki, signer)
}

/// An Ed25519 key that claims to sign with ML-DSA-65.
pub(crate) fn disguised_key() -> Credentials {
    let signer = ed25519();
    let spki = signer.public_key().expect("ed25519 has one").to_vec();
    raw(&spki, Arc::new(Disguise(signer)))
}

#[derive(Debug)]
struct Disguise(Arc<dyn SigningKey>);

impl SigningKey for Disguise {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0
            .choose_scheme(&[SignatureScheme::ED25519])
            .map(|signer| -> Box<dyn Signer> { Box::new(DisguisedSigner(signer)) })
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

#[derive(Debug)]
struct DisguisedSigner(Box<dyn Signer>);

impl Signer for DisguisedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ML_DSA_65
    }
}

impl rustls::client::ResolvesClientCert for Credentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key.clone()
    }

    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Trusts everybody, or as a server nobody.
#[derive(Debug)]
struct Gullible {
    refuse_clients: bool,
}

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
        vec![SignatureScheme::ML_DSA_65, SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Gullible {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.refuse_clients {
            return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
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
        vec![SignatureScheme::ML_DSA_65, SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn provider(groups: Groups) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: groups.to_vec(), ..default_provider() })
}

/// Lets a strange client dial a machine, and returns how the connection ended.
pub(crate) async fn client(
    to: SocketAddr,
    groups: Groups,
    alpn: &str,
    credentials: Credentials,
) -> quinn::ConnectionError {
    let config = client_config(groups, alpn, credentials);
    let crypto = Arc::new(QuicClientConfig::try_from(config).expect("has an initial suite"));
    let endpoint = quinn::Endpoint::client(loopback()).expect("loopback binds");
    let connecting = endpoint
        .connect_with(quinn::ClientConfig::new(crypto), to, "peer.invalid")
        .expect("a good address");
    within("refusal", async {
        match connecting.await {
            // A client is done before the server has seen its key.
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    })
    .await
}

/// The settings of a strange client.
pub(crate) fn client_config(
    groups: Groups,
    alpn: &str,
    credentials: Credentials,
) -> rustls::ClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible { refuse_clients: false }))
        .with_client_cert_resolver(Arc::new(credentials));
    config.alpn_protocols = vec![alpn.into()];
    config
}

/// A strange server on a free port.
pub(crate) fn server(
    groups: Groups,
    refuse_clients: bool,
    credentials: &Credentials,
) -> (quinn::Endpoint, SocketAddr) {
    let key = credentials.key.clone().expect("servers have one");
    let mut config = rustls::ServerConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(Arc::new(Gullible { refuse_clients }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec!["x0x/1".into()];
    let crypto = QuicServerConfig::try_from(config).expect("has an initial suite");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, loopback()).expect("loopback binds");
    let at = endpoint.local_addr().expect("bound");
    tokio::spawn({
        let endpoint = endpoint.clone();
        async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        connection.closed().await;
                    }
                });
            }
        }
    });
    (endpoint, at)
}
