//! What no page, program or person without the token may do: every endpoint of the table, each with
//! every abuse.

use serde_json::json;
use x0x_api::{Auth, ENDPOINTS, Endpoint, ErrorBody, ErrorCode, Kind};

use crate::support::{Answer, Api, Node, request_head, stop};

/// A path with all its parameters filled in.
fn path(endpoint: &Endpoint) -> String {
    let fill = |part: &str| match part {
        "{agent_id}" => "a".repeat(64),
        _ if part.starts_with('{') => "b".repeat(16),
        _ => part.to_owned(),
    };
    endpoint.path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

fn set(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    headers.retain(|(known, _)| known != name);
    headers.push((name.to_owned(), value.to_owned()));
}

/// A valid request's headers, with one thing about them changed.
fn headers(api: &Api, endpoint: &Endpoint, name: &str, value: &str) -> Vec<(String, String)> {
    let mut headers = api.headers();
    if endpoint.kind == Kind::WebSocket {
        set(&mut headers, "Connection", "Upgrade");
        set(&mut headers, "Upgrade", "websocket");
        set(&mut headers, "Sec-WebSocket-Version", "13");
        set(&mut headers, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    set(&mut headers, name, value);
    headers
}

fn assert_refused(what: &str, answer: &Answer, code: ErrorCode) {
    let body: ErrorBody = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|error| panic!("{what}: {error} in {answer:?}"));
    assert_eq!(body.code, code, "{what}: {answer:?}");
    assert_eq!(answer.status, code.status(), "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    assert!(answer.header("access-control-allow-origin").is_none(), "{what}");
    assert!(!body.error.is_empty(), "{what}");
}

/// Abuses of headers: who asks, from where, and with what right.
async fn abuse_headers(api: &Api, endpoint: &Endpoint) {
    let (method, path) = (endpoint.method.as_str(), path(endpoint));
    let port = api.address.port();
    let open = endpoint.auth == Auth::None;
    let wrong = format!("Bearer {}", "0".repeat(64));
    let foreign_host = format!("evil.example:{port}");
    let rebound = format!("127.0.0.1.evil.example:{port}");
    let look_alike = format!("http://127.0.0.1.evil.example:{port}");
    let abuses: &[(&str, &str, ErrorCode)] = &[
        ("Authorization", "", ErrorCode::Unauthorized),
        ("Authorization", &wrong, ErrorCode::Unauthorized),
        ("Authorization", &api.token, ErrorCode::Unauthorized),
        ("Host", &foreign_host, ErrorCode::ForbiddenHost),
        ("Host", &rebound, ErrorCode::ForbiddenHost),
        ("Host", "127.0.0.1", ErrorCode::ForbiddenHost),
        ("Origin", "http://127.0.0.1.evil.example", ErrorCode::ForbiddenOrigin),
        ("Origin", &look_alike, ErrorCode::ForbiddenOrigin),
        ("Origin", "http://localhost.evil.example", ErrorCode::ForbiddenOrigin),
        ("Origin", "https://evil.example", ErrorCode::ForbiddenOrigin),
        ("Origin", "null", ErrorCode::ForbiddenOrigin),
    ];
    for (name, value, code) in abuses {
        if open && *code == ErrorCode::Unauthorized {
            continue;
        }
        let what = format!("{method} {path} with {name}: {value}");
        let headers = headers(api, endpoint, name, value);
        assert_refused(&what, &api.send(method, &path, &headers, b"").await, *code);
    }
    if !open {
        let what = format!("{method} {path} without a token");
        let mut headers = headers(api, endpoint, "Accept", "*/*");
        headers.retain(|(name, _)| name != "Authorization");
        let answer = api.send(method, &path, &headers, b"").await;
        assert_refused(&what, &answer, ErrorCode::Unauthorized);
        let query = format!("{path}?token={}", "0".repeat(64));
        let answer = api.send(method, &query, &headers, b"").await;
        assert_refused(&query, &answer, ErrorCode::Unauthorized);
        if endpoint.kind == Kind::Rest {
            let query = format!("{path}?token={}", api.token);
            let answer = api.send(method, &query, &headers, b"").await;
            assert_refused(&query, &answer, ErrorCode::Unauthorized);
        }
    }
}

/// Abuses of bodies: what is sent, and how much.
async fn abuse_body(api: &Api, endpoint: &Endpoint) {
    let (method, path) = (endpoint.method.as_str(), path(endpoint));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let headers = headers(api, endpoint, "Content-Type", kind);
        let answer = api.send(method, &path, &headers, b"{}").await;
        let what = format!("{method} {path} as {kind:?}");
        assert_refused(&what, &answer, ErrorCode::UnsupportedMediaType);
    }
    let headers = headers(api, endpoint, "Content-Type", "application/json");
    let not_json = match endpoint.max_body {
        0 => ErrorCode::PayloadTooLarge,
        _ => ErrorCode::InvalidJson,
    };
    for body in ["{", "{\"topic\":", "nonsense", "{}}", "\u{0}"] {
        let answer = api.send(method, &path, &headers, body.as_bytes()).await;
        assert_refused(&format!("{method} {path} {body}"), &answer, not_json);
    }
    let what = format!("{method} {path} with a body over the limit");
    let declared = endpoint.max_body + 1;
    let head =
        request_head(method, &path, &headers) + &format!("Content-Length: {declared}\r\n\r\n{{");
    assert_refused(&what, &api.raw(head.as_bytes()).await, ErrorCode::PayloadTooLarge);

    let mut chunked = request_head(method, &path, &headers).into_bytes();
    chunked.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..=endpoint.max_body >> 20 {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(&chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_refused(&what, &api.raw(&chunked).await, ErrorCode::PayloadTooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_refuses_every_abuse() {
    let node = Node::start(&[]).await;
    for endpoint in ENDPOINTS {
        abuse_headers(&node.api, endpoint).await;
        abuse_body(&node.api, endpoint).await;
    }
    assert!(node.api.metric("api_refused_total{code=\"unauthorized\"}").await > 0);
    assert_eq!(node.api.get("/health").await.status, 200);
    stop(vec![node]).await;
}

#[tokio::test]
async fn paths_and_methods_outside_the_table_are_refused_too() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let anonymous = [("Host".to_owned(), api.address.to_string())];
    for path in ["/nowhere", "/", "/health/", "/status/../health", "/%2e%2e/health", "/gui"] {
        let answer = api.send("GET", path, &anonymous, b"").await;
        assert_refused(path, &answer, ErrorCode::Unauthorized);
        assert_refused(path, &api.get(path).await, ErrorCode::NotFound);
    }
    for endpoint in ENDPOINTS {
        let path = path(endpoint);
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "TRACE", "BREW"] {
            let offers =
                |other: &Endpoint| other.path == endpoint.path && other.method.as_str() == method;
            if !ENDPOINTS.iter().any(offers) {
                let answer = api.send(method, &path, &api.headers(), b"").await;
                assert_refused(&format!("{method} {path}"), &answer, ErrorCode::MethodNotAllowed);
            }
        }
    }
    stop(vec![node]).await;
}

#[tokio::test]
async fn preflights_are_granted_to_own_names_only() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let preflight = async |origin: &str| {
        let mut headers = vec![("Host".to_owned(), api.address.to_string())];
        set(&mut headers, "Origin", origin);
        set(&mut headers, "Access-Control-Request-Method", "PATCH");
        api.send("OPTIONS", "/publish", &headers, b"").await
    };
    let own = format!("http://localhost:{}", api.address.port());
    let answer = preflight(&own).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(own.as_str()));
    let methods = answer.header("access-control-allow-methods");
    assert_eq!(methods, Some("DELETE, GET, PATCH, POST, PUT"));
    for origin in ["null", "http://localhost.evil.example", "http://localhost"] {
        assert_refused(origin, &preflight(origin).await, ErrorCode::ForbiddenOrigin);
    }
    let plain = [("Host".to_owned(), api.address.to_string())];
    let answer = api.send("OPTIONS", "/publish", &plain, b"").await;
    assert_refused("OPTIONS", &answer, ErrorCode::MethodNotAllowed);

    // An ordinary request of an own page may read its answer.
    let mut headers = api.headers();
    set(&mut headers, "Origin", &own);
    let answer = api.send("GET", "/status", &headers, b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(own.as_str()));
    stop(vec![node]).await;
}

#[tokio::test]
async fn fields_are_checked() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let cases = [
        ("/publish", json!({"topic": "t"}), ErrorCode::InvalidBody),
        ("/publish", json!({"topic": 5, "payload": ""}), ErrorCode::InvalidBody),
        ("/publish", json!([]), ErrorCode::InvalidBody),
        ("/publish", json!(["t", ""]), ErrorCode::InvalidBody),
        ("/announce", json!([false, false]), ErrorCode::InvalidBody),
        ("/publish", json!({"topic": "t", "payload": "!"}), ErrorCode::InvalidBase64),
        ("/publish", json!({"topic": "", "payload": ""}), ErrorCode::InvalidTopic),
        ("/subscribe", json!({}), ErrorCode::InvalidBody),
        ("/subscribe", json!({"topic": ""}), ErrorCode::InvalidTopic),
        ("/subscribe", json!({"topic": "x".repeat(5000)}), ErrorCode::InvalidTopic),
        ("/agents/connect", json!({"agent_id": "xyz"}), ErrorCode::InvalidHex),
        ("/agents/connect", json!({"agent_id": "abcd"}), ErrorCode::InvalidHex),
        (
            "/direct/send",
            json!({"agent_id": "a".repeat(64), "payload": "?"}),
            ErrorCode::InvalidBase64,
        ),
        ("/announce", json!({"include_user_identity": "yes"}), ErrorCode::InvalidBody),
        ("/announce", json!({"include_user_identity": true}), ErrorCode::BadRequest),
    ];
    for (path, body, code) in cases {
        assert_refused(&format!("{path} {body}"), &api.post(path, &body).await, code);
    }
    let text = api.post("/agents/connect", &json!({"agent_id": "abcd"})).await.json();
    assert_eq!(text["error"], "expected 32 bytes (64 hex chars), got 2");
    let missing = api.delete("/subscribe/0123456789abcdef").await;
    assert_refused("unsubscribe", &missing, ErrorCode::NotFound);
    let query = api.get("/agents/discovered?unfiltered=maybe").await;
    assert_refused("unfiltered", &query, ErrorCode::InvalidQuery);
    let unknown = format!("/agents/discovered/{}", "a".repeat(64));
    assert_refused("an agent", &api.get(&unknown).await, ErrorCode::NotFound);
    assert_refused("an agent", &api.get("/agents/discovered/x").await, ErrorCode::InvalidHex);
    let path = format!("{unknown}?wait=soon");
    assert_refused("wait", &api.get(&path).await, ErrorCode::InvalidQuery);
    assert_refused("ws", &api.get("/ws").await, ErrorCode::UpgradeRequired);
    stop(vec![node]).await;
}
