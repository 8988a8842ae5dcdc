//! Named groups: who is in them and may do what, on top of encrypted groups ([`x0x_mls`]) or in public.
//!
//! | where | what |
//! |---|---|
//! | [`GroupPolicy`], [`Role`] | the axes of a group, their presets, and what each role may do |
//! | [`Operation`], [`Chain`] | signed operations, and the state that follows from their set in any order |
//! | [`View`] | that state: roster, policy, profile, invites, requests, rooms |
//! | [`InviteLink`], [`Statement`] | what one hands over, and what somebody outside says to a group |
//!
//! An operation names those that its author knew. What follows from a set of them does not depend on the
//! order in which they came, so that whoever has the same has the same group; one that is missing is known
//! by its id and asked for, and nobody is ever stuck. `docs/protocol/groups.md` says which stand.
//!
//! ```
//! use x0x_core::WallTime;
//! use x0x_groups::{Action, Basis, Chain, GroupPolicy, Offered, OperationIn, Profile, Role, found};
//! use x0x_identity::SecretKey;
//!
//! let now = WallTime::from_millis(1_800_000_000_000);
//! let (alice, bob) = (SecretKey::generate(), SecretKey::generate());
//! let profile = Profile { name: "birds".into(), ..Profile::default() };
//! let founded = found(&alice, [7; 32], GroupPolicy::PUBLIC_OPEN, profile, None, "Alice", now);
//! let mut chain = Chain::new(founded).expect("it founds a group");
//!
//! let join = Action::Join { display_name: "Bob".into() };
//! let joined = chain.prepare(bob.public_key().agent_id(), now, join)?.sign(&bob);
//! let received = OperationIn::decode(joined.encoded())?.verify()?;
//! assert_eq!(chain.offer(received)?, Offered::Taken(1));
//! assert_eq!(chain.view().role(&bob.public_key().agent_id()), Some(Role::Member));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blind;
mod commit;
#[cfg(feature = "tokio")]
mod courier;
mod directory;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(feature = "tokio")]
mod handle;
mod limits;
mod metrics;
mod policy;
mod session;
mod state;
#[cfg(feature = "test-util")]
pub mod testing;
mod wall;
mod wire;

pub use blind::{CARDS_TOPIC, Log};
pub use commit::{Chains, read_stamp, stamp};
#[cfg(feature = "tokio")]
pub use courier::{BoxFuture, Courier, CourierError};
pub use directory::{
    Directory, MAX_CARDS, MAX_NAME_WORDS, MAX_SUBSCRIPTIONS, Reach, SHARDS, ShardKind, Subscribed,
    may_reach, shards_of,
};
#[cfg(feature = "tokio")]
pub use driver::{
    Admittance, Fragments, GroupEvent, GroupEventKind, GroupStats, GroupsConfig, MAX_OWN_SHARDS,
    MAX_PARTIAL, MAX_PARTIAL_BYTES, OpenStore, PART, Store, Text, split,
};
#[cfg(feature = "tokio")]
pub use error::GroupsError;
pub use error::{ActError, OfferError, SessionError, SignedError};
#[cfg(feature = "tokio")]
pub use handle::{GroupDiagnosis, GroupState, GroupsHandle, MAX_WANTED, WANTED_FOR};
pub use limits::{
    CARD_VALIDITY, MAX_BODY, MAX_DESCRIPTION, MAX_DISPLAY_NAME, MAX_INVITES, MAX_NAME,
    MAX_OPERATIONS, MAX_PARENTS, MAX_PUBLIC_MESSAGE, MAX_REQUESTS, MAX_ROOMS, MAX_TAG, MAX_TAGS,
    MAX_TEXT, MAX_TEXT_BYTES, MAX_TEXTS, MAX_UNVOUCHED, MAX_URL, MAX_USES, MAX_WAITING,
};
pub use metrics::GroupsMetrics;
pub use policy::{
    Admission, Confidentiality, Discoverability, GroupPolicy, PRESETS, ReadAccess, Role,
    WriteAccess,
};
pub use session::{
    Happened, MAX_HELD, MAX_OUTGOING, MAX_SEEN, MAX_SENT, MAX_UNTOLD, NamedGroups, SEALED_NONCE,
    Sealed, Spoken, Unsaved,
};
pub use state::{Chain, Invite, Member, MemberState, Offered, Request, RequestState, View, found};
pub use wall::{MAX_MESSAGES, Taken, Wall, may_write};
pub use wire::{
    Action, Answer, Basis, CARD_DOMAIN, Card, CardIn, Claim, CourierFrame, GroupId, Handover,
    INVITE_DOMAIN, INVITE_PREFIX, InviteLink, LogItem, MAX_CARD, MAX_CARDS_HANDED, MAX_COURIER,
    MAX_HANDOVER, MAX_HELPERS, MAX_INVITE, MAX_LOG_ITEM, MESSAGE_DOMAIN, MemberItem, MessageKind,
    OPERATION_DOMAIN, OpId, Operation, OperationBody, OperationIn, PastText, Profile,
    PublicMessage, PublicMessageIn, Question, Room, STATEMENT_DOMAIN, SignedCard, Statement,
    StatementIn,
};
pub use x0x_mls::GroupError;
