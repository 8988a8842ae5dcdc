//! End-to-end encrypted groups: MLS (RFC 9420) on openmls, with post-quantum suites.
//!
//! Each leaf of a group is bound to an agent by its ML-DSA-65 signature. State is committed to a store
//! before anything that depends on it is returned; after a start of the process a member makes new
//! keys before it sends, so that a restored backup repeats nothing. Commits travel in the group's log
//! in any order, and one rule says which stand ([`ordering`]).
//!
//! ```
//! use std::sync::Arc;
//! use x0x_core::WallTime;
//! use x0x_identity::SecretKey;
//! use x0x_mls::{Event, Groups, MlsGroups, Suite, testing::MemoryStore, verify_key_package};
//!
//! let now = WallTime::from_millis(1_800_000_000_000);
//! let open = || Groups::open(MemoryStore::new(), Arc::new(SecretKey::generate()), now);
//! let (mut alice, mut bob) = (open()?, open()?);
//!
//! let packages = bob.key_packages(Suite::Hybrid, 1, now)?;
//! let group = alice.create(Suite::Hybrid)?;
//! let added = alice.commit(group, vec![verify_key_package(&packages[0], now)?], &[])?;
//! bob.join(&added.welcome.expect("somebody was added"), None)?;
//!
//! let sent = alice.encrypt(group, b"", b"hello")?;
//! let events = bob.process(&sent.frame)?;
//! assert!(matches!(&events[0], Event::Message { payload, .. } if payload == "hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod codec;
mod credential;
mod error;
mod groups;
mod handle;
mod journal;
mod leaf;
mod live;
mod metrics;
pub mod ordering;
mod provider;
mod seal;
mod storage;
mod store;
mod suite;
#[cfg(feature = "test-util")]
pub mod testing;
mod wire;

pub use credential::{
    CREDENTIAL_DOMAIN, CREDENTIAL_TYPE, LeafCredential, LeafCredentialIn, MAX_CREDENTIAL,
    MAX_CREDENTIAL_VALIDITY, issue_credential,
};
pub use error::{CredentialError, GroupError, KeyPackageError};
pub use groups::{
    Groups, MAX_COMMIT_BYTES, MAX_DEFERRED, MAX_GROUPS, MAX_INLINE_TREE, MAX_KEY_PACKAGES,
    MAX_LOADED, MAX_MEMBERS, MAX_OLDER, MAX_OLDER_BYTES,
};
pub use handle::{
    CommitFacts, CommitPolicy, Committed, Event, Intent, Invitation, MembersOnly, MlsGroups,
    Outgoing, Verdict,
};
pub use journal::{MAX_JOURNAL, Pending};
pub use leaf::{KEY_PACKAGE_LIFETIME, MAX_KEY_PACKAGE, VerifiedKeyPackage, verify_key_package};
pub use metrics::MlsMetrics;
pub use provider::AeadProbe;
pub use store::{Batch, Change, Entry, MAX_KEY, MAX_VALUE, MlsStore, Space, StoreError};
pub use suite::Suite;
pub use wire::{
    EntryWire, FrameIn, FrameKind, GROUP_ID_LEN, GroupId, MAX_AAD, MAX_FRAME, MAX_PAYLOAD,
    MAX_WELCOME,
};
