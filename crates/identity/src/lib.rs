//! Post-quantum identities: keys, ids, signatures, bindings, key files and sealed boxes.
//!
//! A machine, an agent and a user each hold one ML-DSA-65 key ([`SecretKey`]); their ids are the
//! SHA-256 of the raw public key. Every signature is made for a named domain and verifies only in
//! it. A [`SignedBinding`] proves that an agent runs on a machine, a [`SignedCertificate`] that a user
//! stands behind it, and a [`SignedRevocation`] ends the trust in any of the three for ever. A
//! [`SignedCard`] or a short [`AgentLink`] is what people hand one another. A sealed box
//! ([`KemPublic::seal`]) encrypts to an agent that is not online; [`Mailboxes`] are where such boxes wait
//! for it at others.
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

mod address;
mod binding;
mod card;
mod certificate;
mod envelope;
mod error;
#[cfg(feature = "fs")]
mod export;
mod keys;
mod link;
mod mailbox;
mod notice;
mod policy;
#[cfg(feature = "fs")]
pub mod private_file;
mod random;
mod revocation;
mod sealed;
pub mod sign;
mod store;
#[cfg(feature = "test-util")]
pub mod testing;
mod text;

pub use binding::{
    AgentBinding, BINDING_DOMAIN, MAX_BINDING_VALIDITY, MAX_SIGNED_BINDING, SignedBinding,
    SignedBindingIn, VerifiedBinding,
};
pub use card::{
    Audience, CARD_DOMAIN, Card, CardKind, INTRODUCTION_DOMAIN, MAX_CARD_VALIDITY,
    MAX_DISPLAY_NAME, MAX_SERVICE_DESCRIPTION, MAX_SERVICE_NAME, MAX_SERVICES, MAX_SIGNED_CARD,
    Service, SignedCard, SignedCardIn, VerifiedCard,
};
pub use certificate::{
    ACCEPTANCE_DOMAIN, AcceptedCertificate, AcceptedCertificateIn, AgentCertificate,
    CERTIFICATE_DOMAIN, CERTIFICATE_VALIDITY, MAX_ACCEPTED_CERTIFICATE, MAX_CERTIFICATE_VALIDITY,
    MAX_SIGNED_CERTIFICATE, SignedCertificate, SignedCertificateIn, VerifiedCertificate,
};
pub use envelope::MAX_CLOCK_SKEW;
pub use error::{
    BadSignature, BindingError, CardError, CertificateError, ExportError, ImportError, KeyError,
    LinkError, NoticeError, OpenError, RevocationError, SealError, SignerError, TextError,
    ValidityError,
};
#[cfg(feature = "fs")]
pub use export::{AgentKeys, MAX_EXPORT, MIN_PASSPHRASE};
pub use keys::{
    PKCS8_LEN, PUBLIC_KEY_LEN, PublicKey, SEED_LEN, SIGNATURE_LEN, SPKI_LEN, SecretKey, Signature,
};
pub use link::{AgentLink, LINK_PREFIX, Link, MAX_LINK, MAX_LINK_ADDRESSES};
pub use mailbox::{
    MAILBOX_PERIOD, MailboxSecret, Mailboxes, Pickup, Tag, mailbox_period, mailbox_period_end,
};
pub use notice::{AgentNoticeIn, MAX_NOTICE, NOTICE_TOPIC, Notice, NoticeIn};
pub use policy::{AcceptAll, BindingPolicy, Shown};
pub use revocation::{
    MAX_REASON, MAX_SIGNED_REVOCATION, REVOCATION_DOMAIN, Revocation, SignedRevocation,
    SignedRevocationIn, Subject,
};
pub use sealed::{
    KEM_PKCS8_LEN, KEM_PUBLIC_LEN, KEM_SEED_LEN, KemPublic, KemSecret, MAX_SEALED_PLAINTEXT,
    SEALED_OVERHEAD,
};
pub use store::Identity;
#[cfg(feature = "fs")]
pub use store::{IdentityStore, MACHINE_FILE, Replace, StoreError};
pub use text::shows_as_written;
