//! Post-quantum TLS 1.3 with raw public keys (RFC 7250).
//!
//! Both sides prove an ML-DSA-65 key; the id of a machine is the hash of that key. The key exchange
//! offers ML-KEM-768, alone or with X25519, and nothing else, so a finished handshake proves that
//! the session is post-quantum. Nothing here falls back: what cannot be built is an error.
//!
//! The id that a dialler expects travels in the server name, which is not sent (no SNI). The name
//! also keys the client's resumption state, so that state of one peer is never offered to another.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use data_encoding::BASE32_DNSSEC;
use quinn::{
    NoneTokenStore,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms,
        aws_lc_rs::{default_provider, kx_group, sign::any_supported_type},
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
        UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use x0x_core::{Clock, MachineId};
use x0x_identity::{PublicKey, SecretKey};

use super::sessions::AgedSessions;

/// The protocol version. One short name: the server's first flight has few bytes to spare.
const ALPN: &[u8] = b"x0x/1";
/// That of streams of packets.
const STREAM_ALPN: &[u8] = b"x0x-stream/1";
/// Top-level domain of the made-up server names; reserved, so it resolves nowhere (RFC 6761).
const NAME_SUFFIX: &str = ".invalid";
/// Peers whose resumption state a dialler keeps.
const MAX_RESUMABLE_PEERS: usize = 256;

/// The server name for a dial whose peer is not known. Its configuration resumes nothing, so
/// sharing one name is harmless.
pub(super) const UNKNOWN_PEER: &str = "unknown.invalid";

/// The server name that stands for a peer: its id in base32 (52 characters; hex would not fit into
/// a DNS label).
pub(super) fn peer_name(peer: MachineId) -> String {
    BASE32_DNSSEC.encode(peer.as_bytes()) + NAME_SUFFIX
}

fn named_peer(name: &ServerName<'_>) -> Option<MachineId> {
    let ServerName::DnsName(name) = name else { return None };
    let label = name.as_ref().strip_suffix(NAME_SUFFIX)?;
    let id: [u8; 32] = BASE32_DNSSEC.decode(label.as_bytes()).ok()?.try_into().ok()?;
    Some(MachineId::new(id))
}

/// The id that a verified handshake's certificate chain proves.
pub(super) fn proven_peer(chain: &[CertificateDer<'_>]) -> Option<MachineId> {
    Some(PublicKey::from_spki(chain.first()?).ok()?.machine_id())
}

/// The ready configurations. Servers and clients of one machine prove the same key.
pub(super) struct Tls {
    pub(super) server: quinn::ServerConfig,
    /// For dials that expect an id.
    pub(super) known_peer: quinn::ClientConfig,
    /// For dials to a bare address, which learn the id.
    pub(super) unknown_peer: quinn::ClientConfig,
    /// For streams of packets.
    pub(super) streams: StreamTls,
}

/// The same for streams of packets. They resume nothing: a handshake a stream is cheap.
pub(super) struct StreamTls {
    pub(super) server: Arc<rustls::ServerConfig>,
    pub(super) known_peer: Arc<rustls::ClientConfig>,
    pub(super) unknown_peer: Arc<rustls::ClientConfig>,
}

impl Tls {
    /// Builds all configurations.
    pub(super) fn new(
        key: &SecretKey,
        pure_pq: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(provider(pure_pq)?);
        let certified = certified(key)?;
        let own = key.public_key().machine_id();
        let client = |expect, alpn| client(&provider, &certified, own, expect, alpn);
        let quic = |config| QuicClientConfig::try_from(config).map_err(|e| no_initial_suite(&e));
        let known = quic(client(Expect::Named, ALPN)?)?;
        let unknown = quic(client(Expect::Anyone, ALPN)?)?;
        let mut of_stream = client(Expect::Named, STREAM_ALPN)?;
        of_stream.resumption = Resumption::disabled();
        let to_anyone = client(Expect::Anyone, STREAM_ALPN)?;

        let known_peer = quinn::ClientConfig::new(Arc::new(known));
        let mut unknown_peer = quinn::ClientConfig::new(Arc::new(unknown));
        unknown_peer.token_store(Arc::new(NoneTokenStore));
        let mut crypto = server(&provider, &certified, own, ALPN)?;
        crypto.session_storage = Arc::new(AgedSessions::new(clock));
        let crypto =
            Arc::new(QuicServerConfig::try_from(crypto).map_err(|e| no_initial_suite(&e))?);
        let mut accepting = server(&provider, &certified, own, STREAM_ALPN)?;
        accepting.session_storage = Arc::new(NoServerSessionStorage {});
        accepting.send_tls13_tickets = 0;
        let streams = StreamTls {
            server: Arc::new(accepting),
            known_peer: Arc::new(of_stream),
            unknown_peer: Arc::new(to_anyone),
        };
        let server = quinn::ServerConfig::new(crypto, Arc::new(token_key(key)));
        Ok(Self { server, known_peer, unknown_peer, streams })
    }
}

/// The key that seals address tokens. Derived from the machine's key, so that tokens stay good over
/// a restart without one more secret to keep.
fn token_key(key: &SecretKey) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"x0x/1 quic address token").extract(&key.to_pkcs8())
}

/// The key behind stateless resets, derived like the token key. After a restart the machine can
/// still answer packets of connections that it lost with a reset that the peer believes.
pub(super) fn reset_key(key: &SecretKey) -> Result<hmac::Key, Error> {
    let secret =
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"x0x/1 quic stateless reset").extract(&key.to_pkcs8());
    let okm = secret
        .expand(&[], hmac::HMAC_SHA256)
        .map_err(|_| Error::General("deriving the reset key failed".into()))?;
    Ok(okm.into())
}

/// The key exchange groups that are offered and accepted, preferred ones first. Every link uses one of them.
#[must_use]
pub const fn key_exchange_groups(pure_pq: bool) -> &'static [&'static str] {
    if pure_pq { &["MLKEM768"] } else { &["X25519MLKEM768", "MLKEM768"] }
}

fn provider(pure_pq: bool) -> Result<CryptoProvider, Error> {
    let base = default_provider();
    let kx_groups = if pure_pq {
        vec![kx_group::MLKEM768]
    } else {
        vec![kx_group::X25519MLKEM768, kx_group::MLKEM768]
    };
    let signature_verification_algorithms = ml_dsa_only(&base.signature_verification_algorithms)?;
    Ok(CryptoProvider { kx_groups, signature_verification_algorithms, ..base })
}

fn ml_dsa_only(all: &WebPkiSupportedAlgorithms) -> Result<WebPkiSupportedAlgorithms, Error> {
    all.mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ML_DSA_65)
        .map(|entry| WebPkiSupportedAlgorithms {
            all: entry.1,
            mapping: std::slice::from_ref(entry),
        })
        .ok_or_else(|| Error::General("the crypto provider has no ML-DSA-65".into()))
}

fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = key.to_pkcs8();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
    let signer = any_supported_type(&der)?;
    let spki = key.public_key().to_spki();
    if signer.public_key().as_deref() != Some(spki.as_slice()) {
        return Err(Error::General("the signer holds another key".into()));
    }
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

fn client(
    provider: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
    own: MachineId,
    expect: Expect,
    alpn: &[u8],
) -> Result<rustls::ClientConfig, Error> {
    let algorithms = provider.signature_verification_algorithms;
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { own, expect, algorithms }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = match expect {
        Expect::Named => Resumption::in_memory_sessions(MAX_RESUMABLE_PEERS),
        Expect::Anyone => Resumption::disabled(),
    };
    Ok(config)
}

fn no_initial_suite(error: &NoInitialCipherSuite) -> Error {
    Error::General(error.to_string())
}

fn server(
    provider: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
    own: MachineId,
    alpn: &[u8],
) -> Result<rustls::ServerConfig, Error> {
    let algorithms = provider.signature_verification_algorithms;
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Verifier { own, expect: Expect::Anyone, algorithms }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Whose key is good.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// The one that the server name stands for.
    Named,
    Anyone,
}

/// Accepts exactly ML-DSA-65 raw public keys, in both directions.
///
/// Each refusal uses an error of its own TLS alert, which `failure` reads back.
#[derive(Debug)]
struct Verifier {
    own: MachineId,
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

/// This machine's own key at the other end.
#[derive(Debug, thiserror::Error)]
#[error("the peer is this machine")]
struct OwnKey;

impl Verifier {
    fn peer(&self, key: &[u8], chain: &[CertificateDer<'_>]) -> Result<MachineId, Error> {
        let peer =
            PublicKey::from_spki(key).map_err(|_| CertificateError::BadEncoding)?.machine_id();
        if !chain.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        if peer == self.own {
            return Err(CertificateError::Other(OtherError(Arc::new(OwnKey))).into());
        }
        Ok(peer)
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = self.peer(end_entity, intermediates)?;
        match self.expect {
            Expect::Named if named_peer(server_name) != Some(peer) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Expect::Named | Expect::Anyone => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_65]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.peer(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_65]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_ids() {
        let id = MachineId::new([0xfe; 32]);
        let name = peer_name(id);
        assert_eq!(name.len(), 52 + NAME_SUFFIX.len());
        assert_eq!(named_peer(&ServerName::try_from(name.as_str()).unwrap()), Some(id));
        for other in [UNKNOWN_PEER, "example.org", "127.0.0.1"] {
            assert_eq!(named_peer(&ServerName::try_from(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn only_post_quantum_settings_exist() {
        use rustls::NamedGroup;
        let groups = |pure| -> Vec<_> {
            provider(pure).unwrap().kx_groups.iter().map(|group| group.name()).collect()
        };
        assert_eq!(groups(false), [NamedGroup::X25519MLKEM768, NamedGroup::MLKEM768]);
        assert_eq!(groups(true), [NamedGroup::MLKEM768]);
        for pure in [false, true] {
            let names = groups(pure).into_iter().map(|group| format!("{group:?}"));
            assert_eq!(names.collect::<Vec<_>>(), key_exchange_groups(pure));
        }
        let schemes =
            provider(false).unwrap().signature_verification_algorithms.supported_schemes();
        assert_eq!(schemes, [SignatureScheme::ML_DSA_65]);
    }

    #[test]
    fn the_verifier_names_each_refusal() {
        let key = |n: u8| SecretKey::from_seed([n; 32]).public_key().clone();
        let algorithms = provider(false).unwrap().signature_verification_algorithms;
        let own = key(1).machine_id();
        let verifier = Verifier { own, expect: Expect::Named, algorithms };
        let name = ServerName::try_from(peer_name(key(2).machine_id())).unwrap();
        let check = |spki: Vec<u8>, chain: &[CertificateDer<'_>]| {
            let cert = CertificateDer::from(spki);
            verifier.verify_server_cert(&cert, chain, &name, &[], UnixTime::now()).map(|_| ())
        };
        let bad_encoding = Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        let wrong = Err(CertificateError::ApplicationVerificationFailure.into());

        assert_eq!(check(key(2).to_spki(), &[]), Ok(()));
        assert_eq!(check(key(3).to_spki(), &[]), wrong);
        assert_eq!(check(key(2).to_spki(), &[CertificateDer::from(vec![0])]), bad_encoding);
        assert_eq!(check(key(2).as_bytes().to_vec(), &[]), bad_encoding);
        let mut other_algorithm = key(2).to_spki();
        other_algorithm[16] = 0x13;
        assert_eq!(check(other_algorithm, &[]), bad_encoding);
        let mine = check(key(1).to_spki(), &[]).unwrap_err();
        assert!(matches!(mine, Error::InvalidCertificate(CertificateError::Other(_))), "{mine}");
    }
}
