//! An agent's keys on their way to another machine, in a file that a passphrase protects.
//!
//! The file is a line of text and one [`ExportFile`] message. Argon2id (RFC 9106) turns the passphrase
//! into a ChaCha20-Poly1305 (RFC 8439) key; the salt is fresh in each file, so the key is used once and
//! needs no nonce. The line and the parameters are authenticated with the content.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use prost::Message;
use x0x_core::{DecodeError, decode_bounded, fixed_bytes};
use zeroize::Zeroizing;

use crate::{
    KEM_PKCS8_LEN, KemSecret, PKCS8_LEN, SecretKey,
    certificate::{AcceptedCertificate, MAX_ACCEPTED_CERTIFICATE},
    error::{ExportError, ImportError},
    random::random,
};

#[cfg(test)]
mod tests;

/// Fewest characters of a passphrase.
pub const MIN_PASSPHRASE: usize = 8;
/// Largest export file in bytes.
pub const MAX_EXPORT: usize = MAGIC.len() + MAX_MESSAGE;
const MAX_MESSAGE: usize = MAX_CONTENT + 256;
const MAX_CONTENT: usize = FIXED + MAX_ACCEPTED_CERTIFICATE;
/// The keys and the generation, which come before the certificate.
const FIXED: usize = PKCS8_LEN + KEM_PKCS8_LEN + 8;
/// The first line, which tells people and programs what the file is.
const MAGIC: &[u8] = b"x0x agent keys, version 1\n";
const SALT_LEN: usize = 16;

/// What guessing a passphrase costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The second recommendation of RFC 9106 section 4, on one core: 64 MiB, about a tenth of a
    /// second.
    const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// The most that a file may ask of who opens it.
    const MAX: Self = Self { memory_kib: 256 * 1024, passes: 16, lanes: 16 };
}

#[derive(Clone, PartialEq, Message)]
struct ExportFile {
    #[prost(uint32, tag = "1")]
    memory_kib: u32,
    #[prost(uint32, tag = "2")]
    passes: u32,
    #[prost(uint32, tag = "3")]
    lanes: u32,
    #[prost(bytes = "vec", tag = "4")]
    salt: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    sealed: Vec<u8>,
}

/// All that makes an agent what it is, apart from the machine.
#[derive(Debug, Clone)]
pub struct AgentKeys {
    /// Signs what the agent says.
    pub agent: SecretKey,
    /// Opens sealed boxes addressed to it.
    pub kem: KemSecret,
    /// How often it was moved: see [`AgentBinding::generation`](crate::AgentBinding::generation).
    pub generation: u64,
    /// The user behind it, if there is one.
    pub certificate: Option<AcceptedCertificate>,
}

impl AgentKeys {
    /// The keys in a file that only the passphrase opens. Takes about a tenth of a second and 64 MiB.
    ///
    /// # Errors
    /// [`ExportError`] for a passphrase that is too short.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn export(&self, passphrase: &str) -> Result<Vec<u8>, ExportError> {
        self.export_at(passphrase, Cost::STANDARD)
    }

    fn export_at(&self, passphrase: &str, cost: Cost) -> Result<Vec<u8>, ExportError> {
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(ExportError::ShortPassphrase { min: MIN_PASSPHRASE });
        }
        let salt = random::<SALT_LEN>();
        let cipher = cipher(passphrase, &salt, cost).ok_or(ExportError::Memory)?;
        let content = self.content();
        let payload = Payload { msg: &content, aad: &associated(cost, &salt) };
        let sealed = cipher.encrypt(&Nonce::default(), payload).map_err(|_| ExportError::Memory)?;
        let file = ExportFile {
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: cost.lanes,
            salt: salt.to_vec(),
            sealed,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(file.encode_to_vec());
        Ok(bytes)
    }

    fn content(&self) -> Zeroizing<Vec<u8>> {
        // The full capacity at once: growing would leave a copy of the seeds behind.
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_CONTENT));
        content.extend_from_slice(&self.agent.to_pkcs8());
        content.extend_from_slice(&self.kem.to_pkcs8());
        content.extend_from_slice(&self.generation.to_be_bytes());
        if let Some(certificate) = &self.certificate {
            content.extend_from_slice(&certificate.encode());
        }
        content
    }

    /// Opens a file of [`export`](Self::export).
    ///
    /// # Errors
    /// [`ImportError`]. A wrong passphrase and a damaged file cannot be told apart.
    pub fn import(file: &[u8], passphrase: &str) -> Result<Self, ImportError> {
        let message = file.strip_prefix(MAGIC).ok_or(ImportError::NotAnExport)?;
        let file: ExportFile = decode_bounded(message, MAX_MESSAGE)?;
        let cost = Cost { memory_kib: file.memory_kib, passes: file.passes, lanes: file.lanes };
        let within = cost.memory_kib <= Cost::MAX.memory_kib
            && cost.passes <= Cost::MAX.passes
            && cost.lanes <= Cost::MAX.lanes;
        if !within {
            return Err(DecodeError::Field("cost").into());
        }
        let salt: [u8; SALT_LEN] = fixed_bytes(&file.salt, "salt")?;
        let cipher = cipher(passphrase, &salt, cost).ok_or(DecodeError::Field("cost"))?;
        let payload = Payload { msg: &file.sealed, aad: &associated(cost, &salt) };
        let opened = cipher.decrypt(&Nonce::default(), payload);
        let content = Zeroizing::new(opened.map_err(|_| ImportError::Passphrase)?);
        Self::read(&content)
    }

    fn read(content: &[u8]) -> Result<Self, ImportError> {
        let short = || ImportError::Decode(DecodeError::Malformed);
        let (agent, rest) = content.split_at_checked(PKCS8_LEN).ok_or_else(short)?;
        let (kem, rest) = rest.split_at_checked(KEM_PKCS8_LEN).ok_or_else(short)?;
        let (generation, certificate) = rest.split_first_chunk().ok_or_else(short)?;
        let agent = SecretKey::from_pkcs8(agent)?;
        let certificate = if certificate.is_empty() {
            None
        } else {
            let read = AcceptedCertificate::decode(certificate)?;
            if read.claimed().agent != agent.public_key().agent_id() {
                return Err(DecodeError::Field("certificate").into());
            }
            Some(read.verify().map_err(|_| DecodeError::Field("certificate"))?)
        };
        let kem = KemSecret::from_pkcs8(kem)?;
        Ok(Self { agent, kem, generation: u64::from_be_bytes(*generation), certificate })
    }
}

/// The cipher of one file; `None` for parameters that Argon2 does not take.
fn cipher(passphrase: &str, salt: &[u8; SALT_LEN], cost: Cost) -> Option<ChaCha20Poly1305> {
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(key.len())).ok()?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .ok()?;
    ChaCha20Poly1305::new_from_slice(key.as_slice()).ok()
}

fn associated(cost: Cost, salt: &[u8; SALT_LEN]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(salt);
    bytes
}
