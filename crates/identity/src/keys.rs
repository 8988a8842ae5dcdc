//! ML-DSA-65 keys and signatures in their exchange forms.
//!
//! A public key is 1952 raw bytes or a 1974-byte SubjectPublicKeyInfo, a secret key is its 32-byte
//! seed in a 54-byte PKCS#8 (RFC 9881, algorithm id 2.16.840.1.101.3.4.3.18 without parameters).
//! Both DER forms have one fixed prefix, which is compared exactly: no second encoding of a key
//! exists, so ids cannot be confused through encodings.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use x0x_core::{AgentId, MachineId, UserId};
use zeroize::Zeroizing;

use crate::{
    error::{BadSignature, KeyError},
    mailbox::Mailboxes,
    random::random,
    sign::{Backend, DefaultBackend, framed},
};

/// Bytes of a seed, from which the whole secret key follows.
pub const SEED_LEN: usize = 32;
/// Bytes of a raw public key.
pub const PUBLIC_KEY_LEN: usize = 1952;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 3309;
/// Bytes of a public key as SubjectPublicKeyInfo.
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + PUBLIC_KEY_LEN;
/// Bytes of a secret key as PKCS#8.
pub const PKCS8_LEN: usize = PKCS8_PREFIX.len() + SEED_LEN;

/// SEQUENCE { SEQUENCE { OID id-ml-dsa-65 }, BIT STRING of 1952 bytes, none unused }.
const SPKI_PREFIX: [u8; 22] = [
    0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03,
    0x12, 0x03, 0x82, 0x07, 0xa1, 0x00,
];
/// SEQUENCE { version 0, SEQUENCE { OID id-ml-dsa-65 }, OCTET STRING { [0] seed of 32 bytes } }.
const PKCS8_PREFIX: [u8; 22] = [
    0x30, 0x34, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
    0x03, 0x12, 0x04, 0x22, 0x80, 0x20,
];

/// The raw key at the end of a SubjectPublicKeyInfo.
pub(crate) fn raw_of_spki(spki: &[u8; SPKI_LEN]) -> &[u8; PUBLIC_KEY_LEN] {
    spki.last_chunk().expect("an SPKI is longer than the key in it")
}

/// A secret key, expanded once and shared by its clones. The seed is erased when the last clone is
/// dropped; `Debug` prints only the id.
#[derive(Clone)]
pub struct SecretKey(Arc<SecretParts>);

struct SecretParts {
    seed: Zeroizing<[u8; SEED_LEN]>,
    signer: <DefaultBackend as Backend>::SigningKey,
    public: PublicKey,
}

impl SecretKey {
    /// A new key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_zeroizing(random())
    }

    /// The key of a seed. The caller erases its own copy.
    #[must_use]
    pub fn from_seed(seed: [u8; SEED_LEN]) -> Self {
        Self::from_zeroizing(Zeroizing::new(seed))
    }

    fn from_zeroizing(seed: Zeroizing<[u8; SEED_LEN]>) -> Self {
        let signer = DefaultBackend::signing_key(&seed);
        let public = PublicKey::from_array(&DefaultBackend::public_key(&signer))
            .expect("a public key that was just derived is valid");
        Self(Arc::new(SecretParts { seed, signer, public }))
    }

    /// Reads the 54-byte PKCS#8 of a seed.
    ///
    /// # Errors
    /// [`KeyError`] for any other length, algorithm or private key form.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        KeyError::check_len("PKCS#8 secret key", der.len(), PKCS8_LEN)?;
        let seed =
            der.strip_prefix(&PKCS8_PREFIX).ok_or(KeyError::Encoding("PKCS#8 secret key"))?;
        let mut array = Zeroizing::new([0; SEED_LEN]);
        array.copy_from_slice(seed);
        Ok(Self::from_zeroizing(array))
    }

    /// The 54-byte PKCS#8 of the seed, erased when dropped.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        // The full capacity at once: growing would leave a copy of the seed behind.
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_LEN));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(self.0.seed.as_slice());
        der
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    /// The mailboxes of the agent that holds this key.
    #[must_use]
    pub fn mailboxes(&self) -> Mailboxes {
        Mailboxes::of_seed(&self.0.seed)
    }

    /// Signs a message for one purpose. A signature made for one domain does not verify in another.
    #[must_use]
    pub fn sign(&self, domain: &'static str, message: &[u8]) -> Signature {
        Signature(DefaultBackend::sign(&self.0.signer, &framed(domain, message)))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}..)", self.public_key().agent_id().short())
    }
}

/// A public key, decoded once and shared by its clones.
#[derive(Clone)]
pub struct PublicKey(Arc<PublicParts>);

struct PublicParts {
    spki: [u8; SPKI_LEN],
    hash: [u8; 32],
    verifier: <DefaultBackend as Backend>::VerifyingKey,
}

impl PublicKey {
    /// Reads a raw public key.
    ///
    /// # Errors
    /// [`KeyError`] unless it is [`PUBLIC_KEY_LEN`] bytes that the backend accepts.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, KeyError> {
        KeyError::check_len("public key", raw.len(), PUBLIC_KEY_LEN)?;
        Self::from_array(raw.try_into().expect("the length was checked"))
    }

    fn from_array(raw: &[u8; PUBLIC_KEY_LEN]) -> Result<Self, KeyError> {
        let mut spki = [0; SPKI_LEN];
        let (prefix, key) = spki.split_at_mut(SPKI_PREFIX.len());
        prefix.copy_from_slice(&SPKI_PREFIX);
        key.copy_from_slice(raw);
        let verifier =
            DefaultBackend::verifying_key(&spki).ok_or(KeyError::Encoding("public key"))?;
        let hash = Sha256::digest(raw).into();
        Ok(Self(Arc::new(PublicParts { spki, hash, verifier })))
    }

    /// Reads a SubjectPublicKeyInfo, as TLS raw public keys (RFC 7250) carry it.
    ///
    /// # Errors
    /// [`KeyError`] for any other length, algorithm or encoding.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        KeyError::check_len("SPKI public key", der.len(), SPKI_LEN)?;
        let raw = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::Encoding("SPKI public key"))?;
        Self::from_bytes(raw)
    }

    /// The 1974-byte SubjectPublicKeyInfo.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        self.0.spki.to_vec()
    }

    /// The raw key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_LEN] {
        raw_of_spki(&self.0.spki)
    }

    /// The id of the machine that holds this key.
    #[must_use]
    pub fn machine_id(&self) -> MachineId {
        MachineId::new(self.0.hash)
    }

    /// The id of the agent that holds this key.
    #[must_use]
    pub fn agent_id(&self) -> AgentId {
        AgentId::new(self.0.hash)
    }

    /// The id of the user who holds this key.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        UserId::new(self.0.hash)
    }

    /// Verifies a signature that was made for `domain`.
    ///
    /// # Errors
    /// [`BadSignature`] when key, domain, message and signature do not belong together.
    pub fn verify(
        &self,
        domain: &'static str,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let good = DefaultBackend::verify(&self.0.verifier, &framed(domain, message), &signature.0);
        if good { Ok(()) } else { Err(BadSignature) }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki == other.0.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}..)", self.agent_id().short())
    }
}

/// An ML-DSA-65 signature. Says nothing until a [`PublicKey`] has verified it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Box<[u8; SIGNATURE_LEN]>);

impl Signature {
    /// Takes the bytes of a signature.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless there are [`SIGNATURE_LEN`] of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        KeyError::check_len("signature", bytes.len(), SIGNATURE_LEN)?;
        let boxed: Box<[u8]> = bytes.into();
        Ok(Self(boxed.try_into().expect("the length was checked")))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SIGNATURE_LEN] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}
