//! Sizes and times that both ends of the local API rely on.

use std::time::Duration;

/// Largest request body in bytes, unless the endpoint says otherwise.
pub const MAX_BODY: usize = 1024 * 1024;

/// Largest payload of a direct message in bytes.
pub const MAX_DIRECT_PAYLOAD: usize = 16 * 1024 * 1024;

/// The longest that a request waits for a message to come.
pub const MAX_INBOX_WAIT: Duration = Duration::from_secs(60);

/// Largest body of `POST /direct/send`: the largest payload as base64, and its JSON.
pub const MAX_DIRECT_BODY: usize = 23 * 1024 * 1024;

/// Largest WebSocket message in bytes, either way: one and a half times the largest payload.
pub const MAX_WS_MESSAGE: usize = MAX_DIRECT_PAYLOAD / 2 * 3;

/// Most bytes beyond a small one each that all request bodies hold together.
pub const MAX_BODIES: usize = 128 * 1024 * 1024;

/// Most connections at once that never presented the token.
pub const MAX_UNPROVEN_CONNECTIONS: usize = 256;

/// Most connections at once that did: a stream of events and a WebSocket session for each of a thousand
/// clients, and room for requests. Fewer where the daemon may not open so many files.
pub const MAX_PROVEN_CONNECTIONS: usize = 2304;

/// How long a connection may take to send a request before it may be closed for a newer one.
pub const SILENT_GRACE: Duration = Duration::from_millis(100);

/// How long a request without the token may take before its connection may be closed for a newer one.
pub const UNPROVEN_GRACE: Duration = Duration::from_secs(1);

/// How long a client may take no byte of an answer, or of a stream of events, before its connection is
/// closed.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Most topics that a daemon is subscribed to at once, for all its clients and for itself: it uses
/// one or a few to find other agents. The gossip layer takes no more.
pub const MAX_TOPICS: usize = 512;

/// Most topics that one WebSocket session may be subscribed to: no session takes them all.
pub const MAX_WS_TOPICS: usize = MAX_TOPICS / 2;

/// Most task lists and stores that one WebSocket session may watch.
pub const MAX_WS_WATCHED: usize = 64;

/// Most subscriptions made by `POST /subscribe` that may exist at once.
pub const MAX_SUBSCRIPTIONS: usize = MAX_TOPICS;

/// Most topics of one `GET /events?topic=..` stream: the place in each is in the id of every event.
pub const MAX_STREAM_TOPICS: usize = 16;

/// Events that an SSE stream keeps, so that a client can resume by `Last-Event-ID`.
pub const SSE_RING: usize = 1024;

/// How long an SSE client should wait before it reconnects.
pub const SSE_RETRY: Duration = Duration::from_millis(2000);

/// Interval of SSE keep-alive comments.
pub const SSE_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Interval of the `pong` frames that keep a WebSocket session alive.
pub const WS_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long `POST /publish` waits for room before it answers `busy`.
pub const PUBLISH_WAIT: Duration = Duration::from_secs(2);

/// Seconds after which a refused publisher should try again (`Retry-After`).
pub const RETRY_AFTER_SECS: u64 = 1;
