//! Post-quantum identities: keys, ids, signatures, bindings, key files and sealed boxes.
//!
//! A machine, an agent and a user each hold one ML-DSA-65 key ([`SecretKey`]); their ids are the
//! SHA-256 of the raw public key. Every signature is made for a named domain and verifies only in
//! it. A [`SignedBinding`] proves that an agent runs on a machine. A sealed box ([`KemPublic::seal`])
//! encrypts to an agent that is not online.
//!
//! Signing and verifying go through one seam, [`sign::Backend`], with two implementations that are
//! checked against each other: aws-lc-rs (feature `aws-lc`, the default) and pure Rust.
//!
//! ```
//! use std::time::Duration;
//! use x0x_core::WallTime;
//! use x0x_identity::{SecretKey, SignedBinding};
//!
//! let machine = SecretKey::generate().public_key().machine_id();
//! let agent = SecretKey::generate();
//! let now = WallTime::from_millis(1_800_000_000_000);
//!
//! let sent = SignedBinding::issue(&agent, machine, now, Duration::from_secs(3600)).encode();
//!
//! let verified = SignedBinding::decode(&sent)?.verify(machine, now)?;
//! assert_eq!(verified.binding.agent, agent.public_key().agent_id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod binding;
mod error;
mod keys;
#[cfg(feature = "fs")]
pub mod private_file;
mod random;
mod sealed;
pub mod sign;
mod store;
#[cfg(feature = "test-util")]
pub mod testing;

pub use binding::{
    AgentBinding, BINDING_DOMAIN, MAX_BINDING_VALIDITY, MAX_CLOCK_SKEW, MAX_SIGNED_BINDING,
    SignedBinding, SignedBindingIn, VerifiedBinding,
};
pub use error::{BadSignature, BindingError, KeyError, OpenError, SealError};
pub use keys::{
    PKCS8_LEN, PUBLIC_KEY_LEN, PublicKey, SEED_LEN, SIGNATURE_LEN, SPKI_LEN, SecretKey, Signature,
};
pub use sealed::{
    KEM_PKCS8_LEN, KEM_PUBLIC_LEN, KEM_SEED_LEN, KemPublic, KemSecret, MAX_SEALED_PLAINTEXT,
    SEALED_OVERHEAD,
};
pub use store::Identity;
#[cfg(feature = "fs")]
pub use store::{IdentityStore, StoreError};
