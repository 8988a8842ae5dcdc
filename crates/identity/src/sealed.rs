//! Sealed boxes: encryption to a recipient who is not there to negotiate.
//!
//! ML-KEM-768 (FIPS 203) makes a fresh shared secret, HKDF-SHA256 (RFC 5869) turns it into one
//! ChaCha20-Poly1305 (RFC 8439) key and nonce, which are used once. A box does not say who sealed
//! it: sign what is inside.

use std::{fmt, sync::Arc};

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use ml_kem::{
    B32, Ciphertext, Decapsulate, DecapsulationKey768, EncapsulationKey768, KeyExport, MlKem768,
    Seed, SharedKey,
};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    error::{KeyError, OpenError, SealError},
    random::random,
};

#[cfg(test)]
mod tests;

/// Bytes of a KEM seed, from which the whole key follows.
pub const KEM_SEED_LEN: usize = 64;
/// Bytes of a KEM public key.
pub const KEM_PUBLIC_LEN: usize = 1184;
/// Bytes of a KEM secret key as PKCS#8.
pub const KEM_PKCS8_LEN: usize = KEM_PKCS8_PREFIX.len() + KEM_SEED_LEN;
/// Bytes that a box is longer than its plaintext.
pub const SEALED_OVERHEAD: usize = KEM_CIPHERTEXT_LEN + TAG_LEN;
/// Most bytes of plaintext in one box: a direct message of the largest size with its header.
pub const MAX_SEALED_PLAINTEXT: usize = 16 * 1024 * 1024 + 64 * 1024;

const KEM_CIPHERTEXT_LEN: usize = 1088;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const LABEL: &[u8] = b"x0x.identity.sealed.1";
/// SEQUENCE { version 0, SEQUENCE { OID id-alg-ml-kem-768 }, OCTET STRING { [0] seed } }.
const KEM_PKCS8_PREFIX: [u8; 22] = [
    0x30, 0x54, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
    0x04, 0x02, 0x04, 0x42, 0x80, 0x40,
];

/// The secret key that opens boxes, shared by its clones. Erased when the last clone is dropped.
#[derive(Clone)]
pub struct KemSecret(Arc<SecretParts>);

struct SecretParts {
    seed: Zeroizing<[u8; KEM_SEED_LEN]>,
    key: DecapsulationKey768,
    public: KemPublic,
}

impl KemSecret {
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
    pub fn from_seed(seed: [u8; KEM_SEED_LEN]) -> Self {
        Self::from_zeroizing(Zeroizing::new(seed))
    }

    fn from_zeroizing(seed: Zeroizing<[u8; KEM_SEED_LEN]>) -> Self {
        let mut copy = Seed::from(*seed);
        let key = DecapsulationKey768::from_seed(copy);
        copy.zeroize();
        let public = KemPublic::from_key(key.encapsulation_key().clone());
        Self(Arc::new(SecretParts { seed, key, public }))
    }

    /// Reads the 86-byte PKCS#8 of a seed (RFC 9935).
    ///
    /// # Errors
    /// [`KeyError`] for any other length, algorithm or private key form.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        KeyError::check_len("PKCS#8 KEM key", der.len(), KEM_PKCS8_LEN)?;
        let seed =
            der.strip_prefix(&KEM_PKCS8_PREFIX).ok_or(KeyError::Encoding("PKCS#8 KEM key"))?;
        let mut array = Zeroizing::new([0; KEM_SEED_LEN]);
        array.copy_from_slice(seed);
        Ok(Self::from_zeroizing(array))
    }

    /// The 86-byte PKCS#8 of the seed, erased when dropped.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        // The full capacity at once: growing would leave a copy of the seed behind.
        let mut der = Zeroizing::new(Vec::with_capacity(KEM_PKCS8_LEN));
        der.extend_from_slice(&KEM_PKCS8_PREFIX);
        der.extend_from_slice(self.0.seed.as_slice());
        der
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &KemPublic {
        &self.0.public
    }

    /// Opens a box that was sealed to this key with the same `info` and `aad`.
    ///
    /// # Errors
    /// [`OpenError`], whatever was wrong.
    pub fn open(&self, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        if sealed.len() > MAX_SEALED_PLAINTEXT + SEALED_OVERHEAD {
            return Err(OpenError);
        }
        let (encapsulated, ciphertext) =
            sealed.split_at_checked(KEM_CIPHERTEXT_LEN).ok_or(OpenError)?;
        let encapsulated: &Ciphertext<MlKem768> = encapsulated.try_into().map_err(|_| OpenError)?;
        // A wrong ciphertext yields a wrong secret (implicit rejection), which the tag then shows.
        let shared = Zeroizing::new(self.0.key.decapsulate(encapsulated));
        let (cipher, nonce) = cipher(&shared, encapsulated, &self.0.public, info);
        cipher.decrypt(&nonce, Payload { msg: ciphertext, aad }).map_err(|_| OpenError)
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemSecret(..)")
    }
}

/// The public key that boxes are sealed to, shared by its clones.
#[derive(Clone)]
pub struct KemPublic(Arc<PublicParts>);

struct PublicParts {
    bytes: [u8; KEM_PUBLIC_LEN],
    key: EncapsulationKey768,
}

impl KemPublic {
    /// Reads and validates a public key (the modulus check of FIPS 203 section 7.2).
    ///
    /// # Errors
    /// [`KeyError`] for another length or coefficients that are not reduced.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        KeyError::check_len("KEM public key", bytes.len(), KEM_PUBLIC_LEN)?;
        let array = bytes.try_into().map_err(|_| KeyError::Encoding("KEM public key"))?;
        let key =
            EncapsulationKey768::new(array).map_err(|_| KeyError::Encoding("KEM public key"))?;
        Ok(Self::from_key(key))
    }

    fn from_key(key: EncapsulationKey768) -> Self {
        Self(Arc::new(PublicParts { bytes: key.to_bytes().into(), key }))
    }

    /// The encoded key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEM_PUBLIC_LEN] {
        &self.0.bytes
    }

    /// Seals a plaintext to this key. `info` names the purpose and `aad` the context; both must be
    /// the same to open the box, and neither is contained in it.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] above [`MAX_SEALED_PLAINTEXT`].
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn seal(&self, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.seal_with(&random(), info, aad, plaintext)
    }

    /// [`seal`](Self::seal) with given randomness, which must never be used twice.
    fn seal_with(
        &self,
        randomness: &[u8; 32],
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let too_large = SealError::TooLarge { len: plaintext.len(), max: MAX_SEALED_PLAINTEXT };
        if plaintext.len() > MAX_SEALED_PLAINTEXT {
            return Err(too_large);
        }
        let randomness: &B32 = randomness.into();
        let (encapsulated, shared) = self.0.key.encapsulate_deterministic(randomness);
        let shared = Zeroizing::new(shared);
        let (cipher, nonce) = cipher(&shared, &encapsulated, self, info);
        let ciphertext =
            cipher.encrypt(&nonce, Payload { msg: plaintext, aad }).map_err(|_| too_large)?;
        let mut sealed = Vec::with_capacity(KEM_CIPHERTEXT_LEN + ciphertext.len());
        sealed.extend_from_slice(&encapsulated);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }
}

/// The cipher of one box: HKDF-SHA256 with the KEM ciphertext as salt and the label, the
/// recipient's key and the purpose as info. The label and the key have fixed lengths, so their
/// concatenation with the purpose is unambiguous.
fn cipher(
    shared: &SharedKey,
    encapsulated: &Ciphertext<MlKem768>,
    recipient: &KemPublic,
    info: &[u8],
) -> (ChaCha20Poly1305, Nonce) {
    let hkdf = Hkdf::<Sha256>::new(Some(encapsulated), shared);
    let mut okm = Zeroizing::new([0_u8; KEY_LEN + NONCE_LEN]);
    hkdf.expand_multi_info(&[LABEL, recipient.as_bytes(), info], okm.as_mut_slice())
        .expect("44 bytes are within the reach of HKDF-SHA256");
    let (key, nonce) = okm.split_at(KEY_LEN);
    let cipher = ChaCha20Poly1305::new_from_slice(key).expect("the key has 32 bytes");
    (cipher, nonce.try_into().expect("the nonce has 12 bytes"))
}

impl PartialEq for KemPublic {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for KemPublic {}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0.bytes;
        write!(f, "KemPublic({a:02x}{b:02x}..)")
    }
}
