//! Who may ask at all. A loopback port can be reached by every page in a browser on this machine, so
//! that each request must name this API in `Host` (against DNS rebinding), come from no foreign page
//! (`Origin`), and present the token. All three are checked before a route is looked for.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        AUTHORIZATION, HOST, ORIGIN, VARY,
    },
    request::Parts,
};
use x0x_api::{Auth, ENDPOINTS, ErrorCode};

use super::error::ApiError;
use crate::files::ApiToken;

/// Most bytes of request line and headers together.
const MAX_HEAD: usize = 32 * 1024;

/// What a request is held against.
#[derive(Debug)]
pub(crate) struct Guard {
    token: ApiToken,
    hosts: Hosts,
}

/// The names under which this API may be addressed.
#[derive(Debug)]
struct Hosts {
    exact: [String; 3],
    /// With a remote API, also any IP address with this port. A page that rebinds its own name
    /// still cannot send one.
    any_address: Option<u16>,
}

impl Hosts {
    fn allow(&self, host: &[u8]) -> bool {
        if self.exact.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(host)) {
            return true;
        }
        let address = std::str::from_utf8(host).ok().and_then(|text| text.parse().ok());
        matches!((self.any_address, address), (Some(port), Some(address)) if port == SocketAddr::port(&address))
    }

    /// Whether pages that were loaded from `origin` may send requests to `host`, which is allowed.
    /// On loopback all its names are this API. From elsewhere only the page's own origin surely is:
    /// any other address is another machine, and loopback is the browser's.
    fn serves(&self, origin: &[u8], host: &[u8]) -> bool {
        let Some(origin) = origin.strip_prefix(b"http://") else { return false };
        match self.any_address {
            None => self.allow(origin),
            Some(_) => origin.eq_ignore_ascii_case(host),
        }
    }
}

impl Guard {
    /// A guard for the API that listens at `address`.
    pub(crate) fn new(token: ApiToken, address: SocketAddr) -> Self {
        let port = address.port();
        let exact = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
        let remote = !IpAddr::is_loopback(&address.ip());
        Self { token, hosts: Hosts { exact, any_address: remote.then_some(port) } }
    }

    pub(crate) const fn token(&self) -> &ApiToken {
        &self.token
    }

    /// Checks size, `Host`, `Origin` and token.
    pub(crate) fn check(&self, request: &Parts) -> Result<(), ApiError> {
        check_size(request)?;
        let host = self.check_host(request)?;
        self.check_origin(&request.headers, host)?;
        if request.method == Method::OPTIONS {
            // A preflight carries no token; it is answered without looking at the route.
            return Ok(());
        }
        self.check_token(request)
    }

    /// The `Host`, if requests may be addressed to it.
    fn check_host<'r>(&self, request: &'r Parts) -> Result<&'r [u8], ApiError> {
        let refused = || {
            let text = "the Host header must be 127.0.0.1, localhost or [::1] with the API's port";
            ApiError::new(ErrorCode::ForbiddenHost, text)
        };
        let host = single(&request.headers, HOST).ok_or_else(refused)?.as_bytes();
        let named_in_uri = request.uri.authority().map(|authority| authority.as_str().as_bytes());
        let named = [Some(host), named_in_uri];
        let allowed = named.into_iter().flatten().all(|name| self.hosts.allow(name));
        if allowed { Ok(host) } else { Err(refused()) }
    }

    fn check_origin(&self, headers: &HeaderMap, host: &[u8]) -> Result<(), ApiError> {
        let mut origins = headers.get_all(ORIGIN).iter();
        if origins.all(|origin| self.hosts.serves(origin.as_bytes(), host)) {
            return Ok(());
        }
        let text = "requests from pages that this API does not serve are refused";
        Err(ApiError::new(ErrorCode::ForbiddenOrigin, text))
    }

    fn check_token(&self, request: &Parts) -> Result<(), ApiError> {
        let header = single(&request.headers, AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let allowed = match auth_of(request.uri.path()) {
            Auth::None => true,
            Auth::BearerOrQuery => self.bearer(header) || self.bearer(query_token(request)),
            _ => self.bearer(header),
        };
        if allowed {
            return Ok(());
        }
        let text = "missing or invalid Authorization: Bearer token";
        Err(ApiError::new(ErrorCode::Unauthorized, text))
    }

    fn bearer(&self, presented: Option<&[u8]>) -> bool {
        presented.is_some_and(|token| self.token.matches(token))
    }
}

/// What a path asks for; an unknown one asks for the token, so that nothing is told without it.
fn auth_of(path: &str) -> Auth {
    let row = ENDPOINTS.iter().find(|endpoint| endpoint.path == path);
    row.map_or(Auth::Bearer, |endpoint| endpoint.auth)
}

/// The value of a header that may come once only.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn query_token(request: &Parts) -> Option<&[u8]> {
    let pairs = request.uri.query()?.split('&');
    pairs.filter_map(|pair| pair.strip_prefix("token=")).map(str::as_bytes).next()
}

fn check_size(request: &Parts) -> Result<(), ApiError> {
    let uri = request.uri.path().len() + request.uri.query().map_or(0, str::len);
    let headers: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if uri + headers <= MAX_HEAD {
        return Ok(());
    }
    let text = format!("request line and headers exceed {MAX_HEAD} bytes");
    Err(ApiError::new(ErrorCode::HeadersTooLarge, text))
}

/// Lets a page of this API under another of its names read the answer. `origin` has been checked.
pub(crate) fn grant(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("origin"));
}

/// What a preflight is answered on top.
pub(crate) fn grant_preflight(headers: &mut HeaderMap) {
    static METHODS: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
        let methods: BTreeSet<_> = ENDPOINTS.iter().map(|row| row.method.as_str()).collect();
        let methods: Vec<_> = methods.into_iter().collect();
        HeaderValue::try_from(methods.join(", ")).ok()
    });
    if let Some(methods) = METHODS.clone() {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    let allowed = HeaderValue::from_static("authorization, content-type, last-event-id");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn guard(address: &str) -> (tempfile::TempDir, Guard) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let token = ApiToken::load_or_create(directory.path()).expect("a token");
        (directory, Guard::new(token, address.parse().expect("an address")))
    }

    fn code(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> Option<ErrorCode> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        guard.check(&parts).err().map(|error| error.code())
    }

    #[test]
    fn hosts_are_exact() {
        let (_directory, guard) = guard("127.0.0.1:12700");
        for host in ["127.0.0.1:12700", "localhost:12700", "LOCALHOST:12700", "[::1]:12700"] {
            assert_eq!(code(&guard, "/health", &[("host", host)]), None, "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost:127000",
            "127.0.0.1.evil.example:12700",
            "evil.example",
            "192.168.0.2:12700",
            "127.0.0.2:12700",
            "",
        ] {
            let refused = Some(ErrorCode::ForbiddenHost);
            assert_eq!(code(&guard, "/health", &[("host", host)]), refused, "{host}");
        }
        assert_eq!(code(&guard, "/health", &[]), Some(ErrorCode::ForbiddenHost));
        let twice = [("host", "localhost:12700"), ("host", "localhost:12700")];
        assert_eq!(code(&guard, "/health", &twice), Some(ErrorCode::ForbiddenHost));
        let other = code(&guard, "http://evil.example/health", &[("host", "localhost:12700")]);
        assert_eq!(other, Some(ErrorCode::ForbiddenHost));
    }

    #[test]
    fn origins_are_exact() {
        let (_directory, guard) = guard("127.0.0.1:12700");
        let with =
            |origin| code(&guard, "/health", &[("host", "localhost:12700"), ("origin", origin)]);
        for origin in ["http://127.0.0.1:12700", "http://localhost:12700", "http://[::1]:12700"] {
            assert_eq!(with(origin), None, "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://127.0.0.1:12700",
            "http://127.0.0.1",
            "http://127.0.0.1:12701",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.1.evil.example:12700",
            "http://localhost.evil.example:12700",
            "http://evil.example",
            "http://127.0.0.1:12700/",
        ] {
            assert_eq!(with(origin), Some(ErrorCode::ForbiddenOrigin), "{origin}");
        }
    }

    #[test]
    fn tokens_are_needed_where_the_table_says_so() {
        let (_directory, guard) = guard("127.0.0.1:12700");
        let token = guard.token().as_str();
        let host = ("host", "localhost:12700");
        let bearer = format!("Bearer {token}");
        let missing = Some(ErrorCode::Unauthorized);
        assert_eq!(code(&guard, "/health", &[host]), None);
        for path in ["/status", "/nowhere", "/health/", "//health", "/subscribe/x"] {
            assert_eq!(code(&guard, path, &[host]), missing, "{path}");
            assert_eq!(code(&guard, path, &[host, ("authorization", &bearer)]), None, "{path}");
            let query = format!("{path}?token={token}");
            assert_eq!(code(&guard, &query, &[host]), missing, "{query}");
        }
        for path in ["/ws", "/ws/direct", "/events", "/direct/events"] {
            let query = format!("{path}?x=1&token={token}");
            assert_eq!(code(&guard, &query, &[host]), None, "{query}");
            assert_eq!(code(&guard, &format!("{path}?token=x"), &[host]), missing);
        }
        for wrong in [token.to_owned(), format!("bearer {token}"), format!("{bearer} ")] {
            assert_eq!(code(&guard, "/status", &[host, ("authorization", &wrong)]), missing);
        }
    }

    #[test]
    fn a_remote_api_takes_addresses_but_no_foreign_names() {
        let (_directory, guard) = guard("0.0.0.0:12700");
        assert_eq!(code(&guard, "/health", &[("host", "192.0.2.1:12700")]), None);
        let refused = Some(ErrorCode::ForbiddenHost);
        assert_eq!(code(&guard, "/health", &[("host", "192.0.2.1:80")]), refused);
        assert_eq!(code(&guard, "/health", &[("host", "evil.example:12700")]), refused);
    }

    #[test]
    fn a_remote_api_takes_only_the_origin_that_is_asked() {
        let (_directory, guard) = guard("0.0.0.0:12700");
        let with = |host, origin| code(&guard, "/health", &[("host", host), ("origin", origin)]);
        for host in ["192.0.2.1:12700", "[2001:db8::1]:12700", "localhost:12700"] {
            let own = format!("http://{host}");
            assert_eq!(code(&guard, "/health", &[("host", host), ("origin", &own)]), None);
            for origin in [
                "http://192.0.2.2:12700",
                "http://127.0.0.1:12700",
                "http://192.0.2.1:12701",
                "https://192.0.2.1:12700",
                "http://evil.example:12700",
            ] {
                assert_eq!(with(host, origin), Some(ErrorCode::ForbiddenOrigin), "{origin}");
            }
        }
    }

    #[test]
    fn preflights_grant_every_method_of_the_table() {
        let mut headers = HeaderMap::new();
        grant_preflight(&mut headers);
        let granted = headers[ACCESS_CONTROL_ALLOW_METHODS].to_str().expect("text");
        for row in ENDPOINTS {
            let method = row.method.as_str();
            assert!(granted.split(", ").any(|known| known == method), "{method} in {granted}");
        }
    }

    #[test]
    fn headers_are_bounded() {
        let (_directory, guard) = guard("127.0.0.1:12700");
        let long = "x".repeat(MAX_HEAD);
        let headers = [("host", "localhost:12700"), ("x-long", long.as_str())];
        assert_eq!(code(&guard, "/health", &headers), Some(ErrorCode::HeadersTooLarge));
    }
}
