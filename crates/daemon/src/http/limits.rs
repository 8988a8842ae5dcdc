//! Bodies: read whole, with bounds in size and time, and checked before a handler sees them.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use x0x_api::{Body as Carries, Endpoint, ErrorCode};

use super::error::ApiError;

/// How long a client may pause within a body.
const BODY_PAUSE: Duration = Duration::from_secs(10);
/// How long a body may take altogether.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How much of a refused body is read, so that the client gets to read why.
const MAX_DRAIN: usize = 4 * 1024 * 1024;
/// For how long.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long its client may pause.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// The whole body, as handlers find it in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct WholeBody(pub(crate) Arc<Bytes>);

/// Reads the body of a request to `endpoint`, or refuses it.
pub(crate) async fn read_body(
    State(endpoint): State<&'static Endpoint>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, mut body) = request.into_parts();
    match take(endpoint, &parts.headers, &mut body).await {
        Ok(bytes) => {
            parts.extensions.insert(WholeBody(Arc::new(bytes)));
            next.run(Request::from_parts(parts, Body::empty())).await
        }
        Err(error) => {
            drain(&parts.headers, body).await;
            error.into_response()
        }
    }
}

async fn take(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        let text = format!("the body exceeds {} bytes", endpoint.max_body);
        ApiError::new(ErrorCode::PayloadTooLarge, text)
    };
    let empty = body.is_end_stream();
    if (!empty || endpoint.body == Carries::Json) && !is_json(headers) {
        let text = "Content-Type must be application/json";
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, text));
    }
    if empty {
        return Ok(Bytes::new());
    }
    if declared_length(headers).is_some_and(|length| length > endpoint.max_body as u64) {
        return Err(too_large());
    }
    let timeout = || ApiError::new(ErrorCode::RequestTimeout, "the body did not arrive in time");
    let bytes = tokio::time::timeout(BODY_TIME, collect(body, endpoint.max_body))
        .await
        .map_err(|_| timeout())?
        .map_err(|failure| match failure {
            Failure::TooLarge => too_large(),
            Failure::TooSlow => timeout(),
            Failure::Broken => ApiError::new(ErrorCode::BadRequest, "the body broke off"),
        })?;
    if endpoint.body == Carries::None && serde_json::from_slice::<IgnoredAny>(&bytes).is_err() {
        return Err(ApiError::new(ErrorCode::InvalidJson, "the body is not JSON"));
    }
    Ok(bytes)
}

#[derive(Debug)]
enum Failure {
    TooLarge,
    TooSlow,
    Broken,
}

async fn collect(body: &mut Body, max: usize) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_PAUSE, body.frame()).await;
        let frame = match frame.map_err(|_| Failure::TooSlow)? {
            None => break,
            Some(frame) => frame.map_err(|_| Failure::Broken)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(Failure::TooLarge);
        }
        // Most bodies arrive in one piece, which then needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the body is declared as JSON. A page of another origin cannot do that without asking.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Reads on for a moment: closing a socket with unread bytes would take the answer away from a
/// client that is still sending. One that waits for `100 Continue` is not sending.
pub(crate) async fn drain(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(EXPECT) || body.is_end_stream() {
        return;
    }
    let read = async {
        let mut left = MAX_DRAIN;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(DRAIN_PAUSE, body.frame()).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
    };
    // The answer goes out either way.
    let _ = tokio::time::timeout(DRAIN_TIME, read).await;
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn declared(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    #[test]
    fn only_json_is_json() {
        for kind in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert!(is_json(&declared(kind)), "{kind}");
        }
        for kind in ["text/plain", "application/jsonx", "", "text/plain; application/json"] {
            assert!(!is_json(&declared(kind)), "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn collecting_stops_at_the_limit() {
        let whole = collect(&mut Body::from("0123456789"), 10).await.expect("fits");
        assert_eq!(whole, "0123456789");
        assert!(matches!(collect(&mut Body::from("0123456789"), 9).await, Err(Failure::TooLarge)));
        let pieces = || {
            let pieces = ["01", "23", "45"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        assert_eq!(collect(&mut pieces(), 6).await.expect("fits"), "012345");
        assert!(matches!(collect(&mut pieces(), 5).await, Err(Failure::TooLarge)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_cut_off() {
        let stuck = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let result = collect(&mut Body::from_stream(stuck), 10).await;
        assert!(matches!(result, Err(Failure::TooSlow)));
    }
}
