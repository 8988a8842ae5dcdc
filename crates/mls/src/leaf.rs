//! This member's own leaf keys, one a suite, and the key packages made with them.

use std::time::Duration;

use openmls::prelude::{
    Capabilities, CredentialType, CredentialWithKey, ExtensionType, KeyPackage, KeyPackageBundle,
    Lifetime,
};
use openmls::prelude::{
    KeyPackageIn, ProtocolVersion,
    tls_codec::{Deserialize as _, Serialize as _},
};
use openmls_traits::{
    crypto::OpenMlsCrypto,
    signatures::{Signer, SignerError},
    types::SignatureScheme,
};
use prost::Message;
use x0x_core::{AgentId, WallTime};
use x0x_identity::{
    SEED_LEN, SecretKey,
    sign::{Backend, DefaultBackend},
};
use zeroize::Zeroizing;

use crate::{
    credential::{self, MAX_CREDENTIAL_VALIDITY},
    error::{GroupError, KeyPackageError},
    live,
    provider::{Crypto, Provider},
    suite::Suite,
};

/// Largest key package in bytes; one of suite 0x0051 takes 16 kB.
pub const MAX_KEY_PACKAGE: usize = 32 * 1024;
/// How long a published key package may be used.
pub const KEY_PACKAGE_LIFETIME: Duration = Duration::from_secs(60 * 24 * 3600);

/// The lifetime that MLS knows of. Every member would judge it by its own clock, also when it processes
/// a commit, and two of them part; so it has no end, and the credential says how long a package holds.
pub(crate) fn endless() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

/// The stored form of a leaf key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeafRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) secret: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) public: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) credential: Vec<u8>,
}

enum LeafKey {
    Ed25519(Zeroizing<Vec<u8>>, Box<Crypto>),
    MlDsa65(Box<<DefaultBackend as Backend>::SigningKey>),
}

/// A leaf key with its credential.
pub(crate) struct Leaf {
    key: LeafKey,
    public: Vec<u8>,
    credential: Vec<u8>,
    suite: Suite,
}

impl LeafRecord {
    /// A new key, for which the agent vouches.
    pub(crate) fn generate(
        crypto: &Crypto,
        agent: &SecretKey,
        suite: Suite,
        now: WallTime,
    ) -> Result<Self, GroupError> {
        let (secret, public) =
            crypto.signature_key_gen(suite.signature_scheme()).map_err(GroupError::internal)?;
        let credential =
            credential::issue_credential(agent, suite, &public, now, MAX_CREDENTIAL_VALIDITY);
        Ok(Self { secret, public, credential })
    }
}

impl Leaf {
    pub(crate) fn new(record: LeafRecord, suite: Suite) -> Result<Self, GroupError> {
        let secret = Zeroizing::new(record.secret);
        let key = match suite {
            Suite::Hybrid => LeafKey::Ed25519(secret, Box::new(Crypto::new(None))),
            Suite::Pure => {
                let seed: &[u8; SEED_LEN] =
                    secret.as_slice().try_into().map_err(GroupError::internal)?;
                LeafKey::MlDsa65(Box::new(DefaultBackend::signing_key(seed)))
            }
        };
        Ok(Self { key, public: record.public, credential: record.credential, suite })
    }

    pub(crate) fn with_key(&self) -> CredentialWithKey {
        credential::with_key(self.credential.clone(), &self.public)
    }

    /// A credential for key packages: its end is theirs.
    pub(crate) fn package_credential(&self, agent: &SecretKey, now: WallTime) -> Vec<u8> {
        credential::issue_credential(agent, self.suite, &self.public, now, KEY_PACKAGE_LIFETIME)
    }

    /// Makes a key package; its secrets go to the provider's storage.
    pub(crate) fn key_package(
        &self,
        provider: &Provider<'_>,
        credential: &[u8],
        last_resort: bool,
    ) -> Result<KeyPackageBundle, GroupError> {
        let mut builder = KeyPackage::builder()
            .leaf_node_capabilities(live::capabilities(self.suite))
            .key_package_lifetime(endless());
        if last_resort {
            // A leaf has to support what marks its package, or nobody takes it.
            let capabilities = Capabilities::builder()
                .ciphersuites(vec![self.suite.to_openmls()])
                .credentials(vec![CredentialType::Other(credential::CREDENTIAL_TYPE)])
                .extensions(vec![ExtensionType::LastResort])
                .build();
            builder = builder.leaf_node_capabilities(capabilities).mark_as_last_resort();
        }
        let suite = self.suite.to_openmls();
        let credential = credential::with_key(credential.to_vec(), &self.public);
        builder.build(suite, provider, self, credential).map_err(GroupError::internal)
    }
}

impl Signer for Leaf {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        match &self.key {
            LeafKey::Ed25519(secret, crypto) => crypto
                .sign(SignatureScheme::ED25519, payload, secret)
                .map_err(SignerError::CryptoError),
            LeafKey::MlDsa65(key) => Ok(DefaultBackend::sign(key, payload).to_vec()),
        }
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.suite.signature_scheme()
    }
}

/// A key package that verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifiedKeyPackage {
    /// Whose it is.
    pub agent: AgentId,
    /// Its suite.
    pub suite: Suite,
    /// Whether it may be used more than once, because nothing else was left.
    pub last_resort: bool,
    /// End of its lifetime.
    pub not_after: WallTime,
    pub(crate) package: KeyPackage,
}

/// Reads and verifies a key package that somebody published.
///
/// # Errors
/// [`KeyPackageError`] with the first thing that is wrong.
pub fn verify_key_package(
    bytes: &[u8],
    now: WallTime,
) -> Result<VerifiedKeyPackage, KeyPackageError> {
    if bytes.len() > MAX_KEY_PACKAGE {
        return Err(KeyPackageError::Malformed);
    }
    let read =
        KeyPackageIn::tls_deserialize_exact(bytes).map_err(|_| KeyPackageError::Malformed)?;
    let package = read
        .validate(&Crypto::new(None), ProtocolVersion::Mls10)
        .map_err(|_| KeyPackageError::Invalid)?;
    let suite = Suite::from_openmls(package.ciphersuite()).ok_or(KeyPackageError::Suite)?;
    if *package.life_time() != endless() {
        return Err(KeyPackageError::Invalid);
    }
    let leaf = package.leaf_node();
    let key = leaf.signature_key().as_slice();
    let verified = credential::verify(leaf.credential(), suite, key, Some(now))?;
    Ok(VerifiedKeyPackage {
        agent: verified.agent,
        suite,
        last_resort: package.last_resort(),
        not_after: verified.not_after,
        package,
    })
}

/// The published form of a key package.
pub(crate) fn publish(bundle: &KeyPackageBundle) -> Result<Vec<u8>, GroupError> {
    bundle.key_package().tls_serialize_detached().map_err(GroupError::internal)
}
