//! The one failure body and its codes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{encoding::Hex32, flag::False};

/// Body of every failed request, whatever refused it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Always false.
    pub ok: False,
    /// What went wrong, for people. `POST /direct/send` puts the code here.
    pub error: String,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The message that was not acknowledged, where sending it had begun: it may have arrived. Sending it
    /// again with this as its `id` delivers it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex32>)]
    pub request_id: Option<String>,
}

impl ErrorBody {
    /// A failure without detail.
    #[must_use]
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self { ok: False::default(), error: error.into(), code, detail: None, request_id: None }
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ErrorBody {}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:literal, $text:literal;)+) => {
        /// Machine-readable reason of a failure.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The HTTP status that carries this code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                }
            }

            /// The text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// One line of when it is given.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

codes! {
    /// The bearer token is missing or wrong.
    Unauthorized = 401, "unauthorized";
    /// The `Host` header does not name this API on loopback.
    ForbiddenHost = 403, "forbidden_host";
    /// The `Origin` header names a page that this API does not serve.
    ForbiddenOrigin = 403, "forbidden_origin";
    /// No such path, or no such thing.
    NotFound = 404, "not_found";
    /// The path exists, but not with this method.
    MethodNotAllowed = 405, "method_not_allowed";
    /// The request did not arrive in time.
    RequestTimeout = 408, "request_timeout";
    /// The body or payload is larger than allowed.
    PayloadTooLarge = 413, "payload_too_large";
    /// The request line and headers are larger than allowed.
    HeadersTooLarge = 431, "headers_too_large";
    /// The body is not declared as `application/json`.
    UnsupportedMediaType = 415, "unsupported_media_type";
    /// The body is not JSON.
    InvalidJson = 400, "invalid_json";
    /// A field is missing or of the wrong type.
    InvalidBody = 422, "invalid_body";
    /// A text that is none of the values of its field.
    InvalidValue = 400, "invalid_value";
    /// The query string does not parse.
    InvalidQuery = 400, "invalid_query";
    /// An id is not the right number of hex characters.
    InvalidHex = 400, "invalid_hex";
    /// A payload is not standard base64.
    InvalidBase64 = 400, "invalid_base64";
    /// The topic is empty or too long.
    InvalidTopic = 400, "invalid_topic";
    /// A `since` or `Last-Event-ID` that is no cursor of this API.
    InvalidCursor = 400, "invalid_cursor";
    /// A well-formed request that cannot be done.
    BadRequest = 400, "bad_request";
    /// A WebSocket frame that is not a command.
    InvalidCommand = 400, "invalid_command";
    /// A plain request to a WebSocket path.
    UpgradeRequired = 426, "upgrade_required";
    /// No room now; nothing was taken. Try again after `Retry-After`.
    Busy = 429, "busy";
    /// A cap on connections, sessions or subscriptions is reached.
    LimitReached = 429, "limit_reached";
    /// The agent is blocked or revoked here, or not on a machine that it may be on.
    Blocked = 403, "blocked";
    /// The object's policy does not let this agent do that; nothing was written.
    NotPermitted = 403, "not_permitted";
    /// An encrypted store needs a group, to whose keys its values are sealed.
    NeedsGroup = 409, "needs_group";
    /// The file holds keys or state of this machine, or is a view into its system: it is never sent.
    ForbiddenFile = 403, "forbidden_file";
    /// A key, or its file, is there already, and is not replaced without being asked for.
    AlreadyExists = 409, "already_exists";
    /// The recipient's daemon refused the message.
    RecipientRejected = 403, "recipient_rejected";
    /// The recipient's daemon has no room for the message now. Try again after `Retry-After`.
    RecipientBusy = 503, "recipient_busy";
    /// The recipient is not known, so no address or key of it is.
    RecipientKeyUnavailable = 404, "recipient_key_unavailable";
    /// There is no session with the recipient, and none could be made.
    PeerDisconnected = 502, "peer_disconnected";
    /// The recipient did not acknowledge in time.
    Timeout = 504, "timeout";
    /// The message was published, but the daemon's disk did not take it: it is lost if the daemon
    /// ends before a peer has it.
    NotStored = 500, "not_stored";
    /// The disk has no room for it. Nothing was taken; it can be tried again when there is.
    InsufficientStorage = 507, "insufficient_storage";
    /// The daemon's disk is full, or its database at its cap. Nothing was taken.
    StorageFull = 507, "storage_full";
    /// What is to be changed is not in a state in which that can be done.
    Conflict = 409, "conflict";
    /// The daemon has no network.
    NoConnectivity = 503, "no_connectivity";
    /// A peer did not answer a probe.
    ProbeFailed = 503, "probe_failed";
    /// The daemon is stopping.
    ShuttingDown = 503, "shutting_down";
    /// The daemon failed; nothing is wrong with the request.
    Internal = 500, "internal";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no [`ErrorCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code")]
pub struct UnknownCode;

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_match_what_serde_writes() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_value(code).expect("serialises");
            assert_eq!(json, code.as_str());
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!((400..600).contains(&code.status()));
        }
        assert_eq!("nonsense".parse::<ErrorCode>(), Err(UnknownCode));
    }

    #[test]
    fn body_shape() {
        let body = ErrorBody::new(ErrorCode::NotFound, "agent not found");
        let json = serde_json::to_value(&body).expect("serialises");
        let expected =
            serde_json::json!({"ok": false, "error": "agent not found", "code": "not_found"});
        assert_eq!(json, expected);
    }
}
