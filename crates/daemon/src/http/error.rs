//! Failures as answers.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use x0x_agent::{
    AgentPublishError, AgentSubscribeError, AnnounceError, ChangeTransferError, DirectError,
    FindError, IdentityError, ImportCardError, PublishError, RefuseReason, SendDirectError,
    SendFileError, SubscribeError, TopicNameError,
    trust::{ChangeError, TrustError},
};
use x0x_agent::{CancelError, InboxError, MailError, MessageId, PostError, RequestError};
use x0x_api::{ErrorBody, ErrorCode, InvalidBase64, InvalidCursor, limits::RETRY_AFTER_SECS};
use x0x_core::ParseIdError;

/// A failed request: the body says it all, its code gives the status.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(pub(crate) ErrorBody);

impl ApiError {
    pub(crate) fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self(ErrorBody::new(code, error))
    }

    /// A failure whose `error` is the code itself and whose text is in `detail`, as
    /// `/direct/send` gives them.
    pub(crate) fn detailed(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(ErrorBody { detail: Some(detail.into()), ..ErrorBody::new(code, code.as_str()) })
    }

    /// Names the message whose sending failed. Where that leaves open whether it arrived, the text says so, too.
    pub(crate) fn of_message(mut self, id: &MessageId) -> Self {
        let id = HEXLOWER.encode(id);
        if matches!(self.code(), ErrorCode::Timeout | ErrorCode::ShuttingDown) {
            let detail = self.0.detail.take().unwrap_or_default();
            self.0.detail = Some(format!(
                "{detail}; it may have arrived: sent again with the id {id}, it is delivered once"
            ));
        }
        self.0.request_id = Some(id);
        self
    }

    pub(crate) const fn code(&self) -> ErrorCode {
        self.0.code
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Marks an answer with the code that it carries, so that it can be counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) ErrorCode);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = (self.status(), self.code());
        let mut response = (status, Json(self.0)).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS || code == ErrorCode::RecipientBusy {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        }
        response.extensions_mut().insert(Refused(code));
        response
    }
}

impl From<ParseIdError> for ApiError {
    fn from(error: ParseIdError) -> Self {
        Self::new(ErrorCode::InvalidHex, error.to_string())
    }
}

impl From<InvalidBase64> for ApiError {
    fn from(error: InvalidBase64) -> Self {
        Self::new(ErrorCode::InvalidBase64, error.to_string())
    }
}

impl From<InvalidCursor> for ApiError {
    fn from(error: InvalidCursor) -> Self {
        Self::new(ErrorCode::InvalidCursor, error.to_string())
    }
}

impl From<TopicNameError> for ApiError {
    fn from(error: TopicNameError) -> Self {
        Self::new(ErrorCode::InvalidTopic, error.to_string())
    }
}

impl From<AgentPublishError> for ApiError {
    fn from(error: AgentPublishError) -> Self {
        let code = match &error {
            AgentPublishError::Topic(_) => ErrorCode::InvalidTopic,
            AgentPublishError::Publish(PublishError::Busy) => ErrorCode::Busy,
            AgentPublishError::Publish(PublishError::TooLarge { .. }) => ErrorCode::PayloadTooLarge,
            AgentPublishError::Publish(PublishError::NotStored) => ErrorCode::NotStored,
            AgentPublishError::Publish(PublishError::Closed) => ErrorCode::ShuttingDown,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let code = match error {
            FindError::Busy => ErrorCode::Busy,
            _ => ErrorCode::ShuttingDown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SendFileError> for ApiError {
    fn from(error: SendFileError) -> Self {
        let code = match &error {
            SendFileError::Forbidden(_) => ErrorCode::Blocked,
            SendFileError::Protected(_) => ErrorCode::ForbiddenFile,
            SendFileError::Limit(_) => ErrorCode::LimitReached,
            SendFileError::Closed => ErrorCode::ShuttingDown,
            SendFileError::Storage(_) => ErrorCode::InsufficientStorage,
            _ => ErrorCode::BadRequest,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ChangeTransferError> for ApiError {
    fn from(error: ChangeTransferError) -> Self {
        let code = match &error {
            ChangeTransferError::NotFound => ErrorCode::NotFound,
            ChangeTransferError::NoSpace { .. } | ChangeTransferError::Storage(_) => {
                ErrorCode::InsufficientStorage
            }
            ChangeTransferError::Closed => ErrorCode::ShuttingDown,
            _ => ErrorCode::BadRequest,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TrustError> for ApiError {
    fn from(error: TrustError) -> Self {
        let code = match &error {
            TrustError::Change(ChangeError::Full { .. }) => ErrorCode::LimitReached,
            TrustError::Change(ChangeError::Blocked) => ErrorCode::Conflict,
            TrustError::Change(_) => ErrorCode::BadRequest,
            error if is_disk_full(error) => ErrorCode::StorageFull,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ImportCardError> for ApiError {
    fn from(error: ImportCardError) -> Self {
        match error {
            ImportCardError::Contact(error) => error.into(),
            error => Self::new(ErrorCode::BadRequest, error.to_string()),
        }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let code = match error {
            IdentityError::Trust(error) => return error.into(),
            IdentityError::Exists(_) => ErrorCode::AlreadyExists,
            IdentityError::Store(_) | IdentityError::Data(_) | IdentityError::Interrupted => {
                ErrorCode::Internal
            }
            IdentityError::Publish(_) => ErrorCode::Busy,
            _ => ErrorCode::BadRequest,
        };
        Self::new(code, error.to_string())
    }
}

impl From<AgentSubscribeError> for ApiError {
    fn from(error: AgentSubscribeError) -> Self {
        let code = match &error {
            AgentSubscribeError::Topic(_) => ErrorCode::InvalidTopic,
            AgentSubscribeError::Subscribe(SubscribeError::Limit { .. }) => ErrorCode::LimitReached,
            AgentSubscribeError::Subscribe(SubscribeError::Closed) => ErrorCode::ShuttingDown,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<AnnounceError> for ApiError {
    fn from(error: AnnounceError) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

impl From<SendDirectError> for ApiError {
    fn from(error: SendDirectError) -> Self {
        if let SendDirectError::Forbidden(_) | SendDirectError::Direct(DirectError::Forbidden) =
            error
        {
            return Self::new(ErrorCode::Blocked, "agent is blocked");
        }
        let code = match &error {
            SendDirectError::NotFound(_) => ErrorCode::RecipientKeyUnavailable,
            SendDirectError::Unreachable { .. } => ErrorCode::PeerDisconnected,
            SendDirectError::Direct(error) => direct_code(*error),
            SendDirectError::Post(error) => return error.clone().into(),
            _ => ErrorCode::Internal,
        };
        let mut detail = error.to_string();
        if matches!(error, SendDirectError::Direct(DirectError::Refused(RefuseReason::Busy))) {
            detail.push_str(BUSY_HINT);
        }
        Self::detailed(code, detail)
    }
}

/// What may be done about a recipient that is busy.
const BUSY_HINT: &str = "; its inbox is full, or more came than it takes of strangers (1024 at once, then 16 a second): \
                         it takes more of agents that are its contacts";

impl From<PostError> for ApiError {
    fn from(error: PostError) -> Self {
        let code = match error {
            PostError::TooLarge(_) => ErrorCode::PayloadTooLarge,
            PostError::Full => ErrorCode::LimitReached,
            PostError::Duplicate => ErrorCode::AlreadyExists,
            PostError::Store(error) => return error.into(),
            _ => ErrorCode::Internal,
        };
        Self::detailed(code, error.to_string())
    }
}

impl From<MailError> for ApiError {
    fn from(error: MailError) -> Self {
        let code = match error {
            MailError::Full => ErrorCode::StorageFull,
            MailError::Closed => ErrorCode::ShuttingDown,
            _ => ErrorCode::NotStored,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        let code = match error {
            CancelError::NotFound => ErrorCode::NotFound,
            CancelError::Settled(_) => ErrorCode::Conflict,
            CancelError::Store(error) => return error.into(),
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<InboxError> for ApiError {
    fn from(error: InboxError) -> Self {
        let code = match error {
            InboxError::Name => ErrorCode::BadRequest,
            InboxError::NotFound => ErrorCode::NotFound,
            InboxError::NotClaimed => ErrorCode::Conflict,
            InboxError::TooManyConsumers | InboxError::Consumer(_) => ErrorCode::LimitReached,
            InboxError::Store(error) => return error.into(),
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::Send(error) => return error.into(),
            RequestError::Timeout => ErrorCode::Timeout,
            _ => ErrorCode::LimitReached,
        };
        Self::new(code, error.to_string())
    }
}

/// Whether a full disk is what an error comes from.
fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    })
}

const fn direct_code(error: DirectError) -> ErrorCode {
    match error {
        DirectError::NotConnected => ErrorCode::PeerDisconnected,
        DirectError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        error if error.is_busy() => ErrorCode::RecipientBusy,
        DirectError::Refused(_) => ErrorCode::RecipientRejected,
        // Whether it arrived is not known, exactly as after a timeout.
        DirectError::Unconfirmed | DirectError::Timeout => ErrorCode::Timeout,
        DirectError::Limit { .. } => ErrorCode::Busy,
        DirectError::Closed => ErrorCode::ShuttingDown,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn a_full_queue_is_told_with_a_time_to_try_again() {
        let error = ApiError::from(AgentPublishError::Publish(PublishError::Busy));
        assert_eq!(error.code(), ErrorCode::Busy);
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let refused = response.extensions().get::<Refused>();
        assert!(matches!(refused, Some(Refused(ErrorCode::Busy))));
    }

    #[test]
    fn a_busy_recipient_is_told_with_a_time_to_try_again() {
        let error = ApiError::detailed(ErrorCode::RecipientBusy, "refused");
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let stopping = ApiError::new(ErrorCode::ShuttingDown, "stopping").into_response();
        assert!(!stopping.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_send_that_may_have_arrived_names_the_message() {
        let error = ApiError::from(SendDirectError::Direct(DirectError::Unconfirmed));
        let body = error.of_message(&[0xab; 16]).0;
        assert_eq!(body.request_id.as_deref(), Some("ab".repeat(16).as_str()));
        assert!(body.to_string().contains("may have arrived"), "{body}");
        let busy = DirectError::Refused(RefuseReason::Busy);
        let body = ApiError::from(SendDirectError::Direct(busy)).of_message(&[1; 16]).0;
        assert!(body.request_id.is_some() && !body.to_string().contains("arrived"), "{body}");
        assert!(body.to_string().contains("contacts"), "{body}");
    }

    #[test]
    fn direct_failures_say_who_is_at_fault() {
        let status = |error| ApiError::from(SendDirectError::Direct(error)).status().as_u16();
        assert_eq!(status(DirectError::TooLarge { len: 2, max: 1 }), 413);
        assert_eq!(status(DirectError::Timeout), 504);
        assert_eq!(status(DirectError::Unconfirmed), 504);
        assert_eq!(status(DirectError::Limit { what: "messages", max: 1 }), 429);
        assert_eq!(status(DirectError::Closed), 503);
    }
}
