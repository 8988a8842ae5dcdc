//! The API over HTTP: routes from the endpoint table, behind the checks that hold for all of them.

mod admission;
pub(crate) mod auth;
pub(crate) mod error;
mod extract;
pub(crate) mod feeds;
mod limits;
pub(crate) mod metrics;
mod object_stream;
mod refusal;
mod routes;
pub(crate) mod server;
pub(crate) mod sse;
mod topic_stream;
pub(crate) mod ws;

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONNECTION, ORIGIN,
            X_CONTENT_TYPE_OPTIONS,
        },
        request::Parts,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use x0x_api::{Auth, ENDPOINTS, ErrorCode};

use crate::app::App;
use admission::{Pass, Standing};
use error::{ApiError, Refused};

/// Every route of the table, and the checks around them.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    let budget = limits::Budget::default();
    for endpoint in ENDPOINTS {
        let handler = routes::handler(endpoint.operation, endpoint.method)
            .layer(from_fn_with_state((endpoint, budget.clone()), limits::read_body));
        router = router.route(endpoint.path, handler);
    }
    router
        .fallback(async || ApiError::new(ErrorCode::NotFound, "no such path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::MethodNotAllowed, "the path does not take this method")
        })
        .layer(from_fn_with_state(Arc::clone(app), gate))
        .with_state(Arc::clone(app))
}

/// Around every request, whatever its path: who may ask, what is counted, and that a failure of a
/// handler is still an answer.
async fn gate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let checked = app.guard.check(&parts);
    let proven = checked.is_ok() && presents_token(&parts);
    let pass = parts.extensions.get::<Pass>().filter(|_| proven);
    let guest = pass.is_some_and(|pass| pass.prove() == Standing::Guest);
    let origin = parts.headers.get(ORIGIN).cloned();
    let mut response = match checked {
        Err(error) => {
            limits::drain(&parts.headers, body).await;
            let mut response = error.into_response();
            close(&mut response);
            harden(&mut response);
            count(&app, &response);
            return response;
        }
        Ok(()) if parts.method == Method::OPTIONS => preflight(&parts.headers),
        Ok(()) => {
            let run = AssertUnwindSafe(next.run(Request::from_parts(parts, body)));
            run.catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!("a request handler panicked");
                ApiError::new(ErrorCode::Internal, "internal failure").into_response()
            })
        }
    };
    let leaves = guest && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if leaves || (!proven && response.status().is_client_error()) {
        close(&mut response);
    }
    if let Some(origin) = origin {
        auth::grant(response.headers_mut(), origin);
    }
    harden(&mut response);
    count(&app, &response);
    response
}

/// Whether a request that passed the checks was asked for the token in them.
fn presents_token(parts: &Parts) -> bool {
    let open = |path| ENDPOINTS.iter().any(|row| row.path == path && row.auth == Auth::None);
    parts.method != Method::OPTIONS && !open(parts.uri.path())
}

/// Ends the connection behind an answer, so that nobody holds one by being refused over and over.
fn close(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// A page of this API under another of its names asks what it may send; anybody else gets nothing.
fn preflight(headers: &axum::http::HeaderMap) -> Response {
    if !headers.contains_key(ORIGIN) || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        let text = "OPTIONS is answered to preflight requests only";
        return ApiError::new(ErrorCode::MethodNotAllowed, text).into_response();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    auth::grant_preflight(response.headers_mut());
    response
}

fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn count(app: &App, response: &Response) {
    let refused = response.extensions().get::<Refused>().map(|Refused(code)| *code);
    app.metrics.count(response.status(), refused);
}
