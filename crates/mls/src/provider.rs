//! What openmls needs from outside: cryptography, randomness, and a place for its values.
//!
//! The primitives are RustCrypto's, but ML-DSA-65 goes through the seam of `x0x-identity`. Every
//! random draw comes from the operating system at the moment of its use, so that a process that was
//! copied or resumed does not repeat one.

use std::{fmt, sync::Arc};

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use tls_codec::SecretVLBytes;
use x0x_identity::{
    PublicKey, SEED_LEN, SIGNATURE_LEN, SPKI_LEN,
    sign::{Backend, DefaultBackend},
};

use crate::{storage::EpochStorage, suite::Suite};

/// Sees every symmetric encryption before it happens. For tests that no nonce is used twice.
pub trait AeadProbe: Send + Sync {
    /// Called with the key, the nonce and the plaintext.
    fn encrypting(&self, key: &[u8], nonce: &[u8], plaintext: &[u8]);
}

/// The cryptography.
pub(crate) struct Crypto {
    /// For what draws no randomness.
    plain: RustCrypto,
    probe: Option<Arc<dyn AeadProbe>>,
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypto").field("probed", &self.probe.is_some()).finish()
    }
}

impl Crypto {
    pub(crate) fn new(probe: Option<Arc<dyn AeadProbe>>) -> Self {
        Self { plain: RustCrypto::default(), probe }
    }

    pub(crate) fn probe(&self, key: &[u8], nonce: &[u8], plaintext: &[u8]) {
        if let Some(probe) = &self.probe {
            probe.encrypting(key, nonce, plaintext);
        }
    }

    /// Seeded by the operating system for one use.
    fn drawing() -> RustCrypto {
        RustCrypto::default()
    }
}

fn verify_ml_dsa(data: &[u8], key: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    let key = PublicKey::from_bytes(key).map_err(|_| CryptoError::InvalidLength)?;
    let spki: [u8; SPKI_LEN] = key.to_spki().try_into().map_err(|_| CryptoError::InvalidLength)?;
    let key = DefaultBackend::verifying_key(&spki).ok_or(CryptoError::CryptoLibraryError)?;
    let signature: &[u8; SIGNATURE_LEN] =
        signature.try_into().map_err(|_| CryptoError::InvalidLength)?;
    if DefaultBackend::verify(&key, data, signature) {
        Ok(())
    } else {
        Err(CryptoError::InvalidSignature)
    }
}

impl OpenMlsCrypto for Crypto {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        if Suite::from_openmls(ciphersuite).is_none() {
            return Err(CryptoError::UnsupportedCiphersuite);
        }
        self.plain.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        Suite::ALL.iter().map(|suite| suite.to_openmls()).collect()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.plain.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.plain.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.plain.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.plain.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.probe(key, nonce, data);
        self.plain.aead_encrypt(alg, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.plain.aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        Self::drawing().signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        match alg {
            SignatureScheme::MLDSA65 => verify_ml_dsa(data, pk, signature),
            _ => self.plain.verify_signature(alg, data, pk, signature),
        }
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if alg != SignatureScheme::MLDSA65 {
            return self.plain.sign(alg, data, key);
        }
        let seed: &[u8; SEED_LEN] = key.try_into().map_err(|_| CryptoError::InvalidLength)?;
        Ok(DefaultBackend::sign(&DefaultBackend::signing_key(seed), data).to_vec())
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        Self::drawing().hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.plain.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        let drawing = Self::drawing();
        drawing.hpke_setup_sender_and_export(config, pk_r, info, exporter_context, exporter_length)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.plain.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        self.plain.derive_hpke_keypair(config, ikm)
    }
}

/// The operating system's random source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OsRandom;

/// The operating system has no randomness to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system gives no randomness")]
pub(crate) struct NoRandomness;

impl OpenMlsRand for OsRandom {
    type Error = NoRandomness;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], NoRandomness> {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(bytes)
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, NoRandomness> {
        let mut bytes = vec![0; len];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(bytes)
    }
}

/// The three together, for one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provider<'a> {
    pub(crate) crypto: &'a Crypto,
    pub(crate) storage: &'a EpochStorage,
}

impl OpenMlsProvider for Provider<'_> {
    type CryptoProvider = Crypto;
    type RandProvider = OsRandom;
    type StorageProvider = EpochStorage;

    fn storage(&self) -> &EpochStorage {
        self.storage
    }

    fn crypto(&self) -> &Crypto {
        self.crypto
    }

    fn rand(&self) -> &OsRandom {
        &OsRandom
    }
}
