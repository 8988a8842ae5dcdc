//! Every bound of this crate that more than one file needs.

use std::time::Duration;

/// Operations of one group that are kept. The key and the signature of one are 5261 bytes.
pub const MAX_OPERATIONS: usize = 8192;
/// Operations of one author that no other author has built upon.
pub const MAX_UNVOUCHED: usize = 256;
/// Operations that wait for others that they build upon; the oldest goes first.
pub const MAX_WAITING: usize = 256;
/// Parents of an operation.
pub const MAX_PARENTS: usize = 32;
/// Largest body of an operation in bytes: two signatures and keys of a redeemed invite, and texts.
pub const MAX_BODY: usize = 24 * 1024;
/// Largest name of a group in bytes.
pub const MAX_NAME: usize = 128;
/// Largest description in bytes.
pub const MAX_DESCRIPTION: usize = 4096;
/// Largest link to a picture in bytes.
pub const MAX_URL: usize = 512;
/// Tags of a group.
pub const MAX_TAGS: usize = 16;
/// Largest tag in bytes.
pub const MAX_TAG: usize = 64;
/// Largest display name in bytes.
pub const MAX_DISPLAY_NAME: usize = 64;
/// Largest text of a request or a reason in bytes.
pub const MAX_TEXT: usize = 1024;
/// Rooms of a group.
pub const MAX_ROOMS: usize = 256;
/// Invites of a group that were not revoked.
pub const MAX_INVITES: usize = 512;
/// Requests of a group that are pending.
pub const MAX_REQUESTS: usize = 1024;
/// Times that one invite may be used.
pub const MAX_USES: u32 = 10_000;
/// Largest public message in bytes.
pub const MAX_PUBLIC_MESSAGE: usize = 64 * 1024;
/// Texts of an encrypted group that are kept; the oldest goes first.
pub const MAX_TEXTS: usize = 512;
/// Bytes of them.
pub const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;
/// How long a card is valid.
pub const CARD_VALIDITY: Duration = Duration::from_secs(24 * 3600);
