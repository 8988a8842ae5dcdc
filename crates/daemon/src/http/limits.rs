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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use x0x_api::{
    Body as Carries, Endpoint, ErrorCode,
    limits::{MAX_BODIES, MAX_DIRECT_BODY},
};

use super::error::ApiError;

/// How long a client may pause within a body.
const BODY_PAUSE: Duration = Duration::from_secs(10);
/// How long a body may take altogether.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of a body that any request may hold besides [`MAX_BODIES`]; the number of connections bounds them.
const FREE_BODY: usize = 64 * 1024;
/// How long a body whose length was declared waits for its part of that. It is not read meanwhile.
const ROOM_TIME: Duration = Duration::from_secs(2);
/// How much of a refused body is read, so that the client gets to read why: the largest that any
/// endpoint takes, and a little more.
const MAX_DRAIN: usize = MAX_DIRECT_BODY + 1024 * 1024;
/// For how long.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long its client may pause.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// The whole body, as handlers find it in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct WholeBody(pub(crate) Arc<Bytes>);

/// Room for large bodies. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }
}

impl Budget {
    fn share(&self) -> Share {
        Share { budget: Arc::clone(&self.0), held: None }
    }
}

/// What one body holds of the room, until this is dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// What a body of `total` bytes needs besides what is held already.
    fn missing(&self, total: usize) -> u32 {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = total.saturating_sub(FREE_BODY).saturating_sub(held);
        // More than there ever is.
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    fn hold(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }

    /// Takes what a body of `total` bytes needs in all before any of it is read, so that bodies that
    /// arrive together do not all get a part and none the whole. Waits a moment for room, in turn.
    async fn reserve(&mut self, total: usize) -> bool {
        let missing = self.missing(total);
        if missing == 0 {
            return true;
        }
        let room = Arc::clone(&self.budget).acquire_many_owned(missing);
        let Ok(Ok(more)) = tokio::time::timeout(ROOM_TIME, room).await else { return false };
        self.hold(more);
        true
    }

    /// Takes what a body of `total` bytes needs in all; false when there is no room now.
    fn grow(&mut self, total: usize) -> bool {
        let missing = self.missing(total);
        if missing == 0 {
            return true;
        }
        let Ok(more) = Arc::clone(&self.budget).try_acquire_many_owned(missing) else {
            return false;
        };
        self.hold(more);
        true
    }
}

/// Reads the body of a request to `endpoint`, or refuses it.
pub(crate) async fn read_body(
    State((endpoint, budget)): State<(&'static Endpoint, Budget)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, mut body) = request.into_parts();
    // Held until there is an answer. A handler turns the body into text, and that into bytes, without
    // waiting in between, so that no more of them are there several times than threads do it; what
    // waits for others is no larger than the body.
    let mut share = budget.share();
    match take(endpoint, &parts.headers, &mut body, &mut share).await {
        Ok(bytes) => {
            parts.extensions.insert(WholeBody(Arc::new(bytes)));
            next.run(Request::from_parts(parts, Body::empty())).await
        }
        Err(error) => {
            drop(share);
            drain(&parts.headers, body).await;
            error.into_response()
        }
    }
}

async fn take(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    body: &mut Body,
    share: &mut Share,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        let text = match endpoint.max_body {
            0 => "this request takes no body".to_owned(),
            max => format!("the body exceeds {max} bytes"),
        };
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
    let declared = declared_length(headers).unwrap_or(0);
    // Before any room is taken: requests that need no token take no body, so that nobody without the
    // token takes the room of those with one.
    if endpoint.max_body == 0 || declared > endpoint.max_body as u64 {
        return Err(too_large());
    }
    let no_room = || {
        let text = format!("bodies in work exceed {MAX_BODIES} bytes together; try again later");
        ApiError::new(ErrorCode::Busy, text)
    };
    if !share.reserve(usize::try_from(declared).unwrap_or(usize::MAX)).await {
        return Err(no_room());
    }
    let timeout = || ApiError::new(ErrorCode::RequestTimeout, "the body did not arrive in time");
    let bytes = tokio::time::timeout(BODY_TIME, collect(body, endpoint.max_body, declared, share))
        .await
        .map_err(|_| timeout())?
        .map_err(|failure| match failure {
            Failure::TooLarge => too_large(),
            Failure::NoRoom => no_room(),
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
    NoRoom,
    TooSlow,
    Broken,
}

async fn collect(
    body: &mut Body,
    max: usize,
    declared: u64,
    share: &mut Share,
) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_PAUSE, body.frame()).await;
        let frame = match frame.map_err(|_| Failure::TooSlow)? {
            None => break,
            Some(frame) => frame.map_err(|_| Failure::Broken)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        let total = first.len() + rest.len() + data.len();
        if total > max {
            return Err(Failure::TooLarge);
        }
        if !share.grow(total) {
            return Err(Failure::NoRoom);
        }
        // Most bodies arrive in one piece, which then needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // Growing by doubling would take twice what is counted.
                rest.reserve(usize::try_from(declared).unwrap_or(max).max(total).min(max));
            }
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

    async fn gather(mut body: Body, max: usize) -> Result<Bytes, Failure> {
        collect(&mut body, max, 0, &mut Budget::default().share()).await
    }

    #[tokio::test]
    async fn bodies_share_their_room() {
        let budget = Budget::default();
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.grow(FREE_BODY + MAX_BODIES - 1));
        assert!(
            second.grow(FREE_BODY) && second.grow(FREE_BODY + 1) && !second.grow(FREE_BODY + 2)
        );
        let max = FREE_BODY * 2;
        let collected = collect(&mut Body::from(vec![0; max]), max, 0, &mut second).await;
        assert!(matches!(collected, Err(Failure::NoRoom)));
        drop(first);
        let collected = collect(&mut Body::from(vec![0; max]), max, 0, &mut second).await;
        assert_eq!(collected.expect("there is room").len(), max);
        drop(second);
        assert_eq!(budget.0.available_permits(), MAX_BODIES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_declared_body_waits_for_its_room_and_is_refused_in_the_end() {
        let budget = Budget::default();
        let sixth = MAX_BODIES / 5;
        let mut shares: Vec<_> = (0..6).map(|_| budget.share()).collect();
        let mut waiting = shares.pop().expect("six");
        for share in &mut shares {
            assert!(share.reserve(sixth).await);
        }
        assert!(!waiting.reserve(sixth).await, "nobody made room in time");
        let first = shares.swap_remove(0);
        let made = async {
            tokio::time::sleep(ROOM_TIME / 2).await;
            drop(first);
        };
        let (reserved, ()) = tokio::join!(waiting.reserve(sixth), made);
        assert!(reserved, "one ended meanwhile");
        assert!(waiting.grow(sixth), "what was reserved is enough");
        assert!(!budget.share().reserve(usize::MAX).await);
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
        let whole = gather(Body::from("0123456789"), 10).await.expect("fits");
        assert_eq!(whole, "0123456789");
        assert!(matches!(gather(Body::from("0123456789"), 9).await, Err(Failure::TooLarge)));
        let pieces = || {
            let pieces = ["01", "23", "45"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        assert_eq!(gather(pieces(), 6).await.expect("fits"), "012345");
        assert!(matches!(gather(pieces(), 5).await, Err(Failure::TooLarge)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_cut_off() {
        let stuck = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let result = gather(Body::from_stream(stuck), 10).await;
        assert!(matches!(result, Err(Failure::TooSlow)));
    }
}
