//! Calls of the local API, by the rows of its endpoint table.

use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};
use x0x_api::{Auth, Endpoint, Method, Operation, endpoint};

use crate::discover::{Instance, Target};
use crate::error::{Failure, Result};
use crate::events::EventReader;

/// How long an answer may take, unless a call says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a local daemon may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a daemon may take to say that it is healthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// One call to be made.
#[derive(Debug)]
pub(crate) struct Call {
    operation: Operation,
    parameters: Vec<(&'static str, String)>,
    query: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    timeout: Duration,
}

impl Call {
    pub(crate) fn new(operation: Operation) -> Self {
        Self { operation, parameters: Vec::new(), query: Vec::new(), body: None, timeout: TIMEOUT }
    }

    /// Sets a parameter of the path.
    pub(crate) fn parameter(mut self, name: &'static str, value: &str) -> Self {
        self.parameters.push((name, value.to_owned()));
        self
    }

    /// Adds a parameter to the query.
    pub(crate) fn query(mut self, name: &'static str, value: String) -> Self {
        self.query.push((name, value));
        self
    }

    /// Sets the JSON body.
    pub(crate) fn body(mut self, body: &impl Serialize) -> Result<Self> {
        self.body = Some(serde_json::to_vec(body)?);
        Ok(self)
    }

    /// Waits longer for the answer than other calls do.
    pub(crate) fn patient(mut self, extra: Duration) -> Self {
        self.timeout = TIMEOUT + extra;
        self
    }

    fn path(&self) -> String {
        let mut path = endpoint(self.operation).path.to_owned();
        for (name, value) in &self.parameters {
            path = path.replace(&format!("{{{name}}}"), &percent_encode(value));
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(&format!("{name}={}", percent_encode(value)));
        }
        path
    }
}

/// A client of one daemon.
pub(crate) struct Client {
    agent: Agent,
    target: Target,
}

impl Client {
    pub(crate) fn new(target: Target) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The token is for this machine: a proxy from the environment must not see it.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Self { agent: config.into(), target }
    }

    /// The API's address as a URL, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.target.url
    }

    /// The instance, if this is its API.
    pub(crate) fn instance(&self) -> Option<&Instance> {
        self.target.is_instance.then_some(&self.target.instance)
    }

    /// Makes a call and returns its answer. An empty body is an answer too: it was done.
    pub(crate) fn call(&self, call: &Call) -> Result<Value> {
        let mut response = self.send(call, Some(call.timeout))?;
        let bytes = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(|error| self.failure(error))?;
        if bytes.is_empty() {
            return Ok(json!({ "ok": true }));
        }
        Ok(serde_json::from_slice(&bytes).context("failed to parse response")?)
    }

    /// Makes a call whose answer the command itself looks into.
    pub(crate) fn fetch<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        Ok(serde_json::from_value(self.call(call)?).context("failed to parse response")?)
    }

    /// Opens a stream of server-sent events.
    pub(crate) fn stream(&self, operation: Operation) -> Result<EventReader> {
        self.stream_of(&Call::new(operation))
    }

    /// The same of a call with parameters.
    pub(crate) fn stream_of(&self, call: &Call) -> Result<EventReader> {
        let response = self.send(call, None)?;
        Ok(EventReader::new(response.into_body().into_reader()))
    }

    /// Whether a daemon answers.
    pub(crate) fn is_healthy(&self) -> bool {
        let mut call = Call::new(Operation::Health);
        call.timeout = HEALTH_TIMEOUT;
        self.call(&call).is_ok()
    }

    fn send(&self, call: &Call, timeout: Option<Duration>) -> Result<Response<Body>> {
        let &Endpoint { method, auth, .. } = endpoint(call.operation);
        if auth != Auth::None && self.target.token.is_none() {
            return Err(self.target.no_token());
        }
        let mut request = Request::builder().method(method.as_str()).uri(format!(
            "{}{}",
            self.target.url,
            call.path()
        ));
        if let Some(token) = &self.target.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if call.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let response = match (&call.body, method) {
            (Some(body), _) => self.run(built(request.body(&body[..]))?, timeout),
            // Without a body, a POST still has to say that its length is zero.
            (None, Method::Post) => self.run(built(request.body(&[][..]))?, timeout),
            (None, _) => self.run(built(request.body(()))?, timeout),
        };
        refuse_failures(response.map_err(|error| self.failure(error))?)
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        timeout: Option<Duration>,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(timeout).build();
        self.agent.run(request)
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::Timeout(_)
            | ureq::Error::Io(_) => self.target.silent(),
            error => {
                let context = format!("{} did not answer as a daemon does", self.target.url);
                Failure::Other(anyhow!(error).context(context))
            }
        }
    }
}

fn built<T>(request: Result<Request<T>, ureq::http::Error>) -> Result<Request<T>> {
    Ok(request.context("the request cannot be built")?)
}

/// Turns a status that is not a success into the failure that its body describes.
fn refuse_failures(mut response: Response<Body>) -> Result<Response<Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
    let body = body.unwrap_or_default();
    let (message, code) = describe(&body);
    let message = message.unwrap_or_else(|| status.canonical_reason().unwrap_or("failed").into());
    let request_id = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| Some(body.get("request_id")?.as_str()?.to_owned()));
    Err(Failure::Refused { message, code, status: status.as_u16(), request_id })
}

/// The text and the code of a failure. A daemon of another version may know codes that we do not.
fn describe(body: &[u8]) -> (Option<String>, Option<String>) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let message = match (text("error"), text("detail")) {
        (Some(error), Some(detail)) => Some(format!("{error}: {detail}")),
        (error, _) => error.map(str::to_owned),
    };
    (message, text("code").map(str::to_owned))
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        let call = Call::new(Operation::DiscoveredAgent)
            .parameter("agent_id", "../a?b")
            .query("wait", "5".to_owned());
        assert_eq!(call.path(), "/agents/discovered/%2E%2E%2Fa%3Fb?wait=5");
    }

    #[test]
    fn failures_are_described_by_their_body() {
        let told = |error: &str, code: &str| (Some(error.to_owned()), Some(code.to_owned()));
        let known = br#"{"ok":false,"error":"no such agent","code":"not_found"}"#;
        assert_eq!(describe(known), told("no such agent", "not_found"));
        let detailed = br#"{"ok":false,"error":"busy","code":"busy","detail":"try later"}"#;
        assert_eq!(describe(detailed), told("busy: try later", "busy"));
        let unknown = br#"{"error":"too many moons","code":"moons"}"#;
        assert_eq!(describe(unknown), told("too many moons", "moons"));
        assert_eq!(describe(b"<html>"), (None, None));
    }
}
