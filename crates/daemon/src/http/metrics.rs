//! The API's own counters, and everybody's as OpenMetrics text.

use std::fmt;

use axum::http::StatusCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use x0x_agent::Agent;
use x0x_api::ErrorCode;
use x0x_core::{Counter, Metric, MetricKind};

/// What the API counts.
#[derive(Debug)]
pub(crate) struct ApiMetrics {
    /// By the first digit of the status, less one.
    answers: [Counter; 5],
    /// By position in [`ErrorCode::ALL`].
    refused: Vec<Counter>,
    /// Connections taken.
    pub(crate) connections: Counter,
    /// Connections without a token that were closed to make room for newer ones.
    pub(crate) connections_evicted: Counter,
    /// Connections closed because their client did not read.
    pub(crate) connections_stuck: Counter,
    /// Frames that WebSocket sessions sent.
    pub(crate) ws_received: Counter,
    /// Frames written to WebSocket sessions.
    pub(crate) ws_sent: Counter,
    /// Publishes that WebSocket sessions were told were not taken.
    pub(crate) ws_publishes_refused: Counter,
    /// Sessions closed because their client did not read.
    pub(crate) ws_stuck: Counter,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            answers: Default::default(),
            refused: ErrorCode::ALL.iter().map(|_| Counter::default()).collect(),
            connections: Counter::default(),
            connections_evicted: Counter::default(),
            connections_stuck: Counter::default(),
            ws_received: Counter::default(),
            ws_sent: Counter::default(),
            ws_publishes_refused: Counter::default(),
            ws_stuck: Counter::default(),
        }
    }
}

impl ApiMetrics {
    /// Counts an answer, and why it was refused if it was.
    pub(crate) fn count(&self, status: StatusCode, refused: Option<ErrorCode>) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.answers.get(class) {
            counter.inc();
        }
        let place = refused.and_then(|code| ErrorCode::ALL.iter().position(|known| *known == code));
        if let Some(counter) = place.and_then(|place| self.refused.get(place)) {
            counter.inc();
        }
    }

    fn plain(&self) -> Vec<Metric> {
        vec![
            self.connections.metric("api_connections", "Connections taken"),
            self.connections_evicted.metric(
                "api_connections_evicted",
                "Connections without a token that were closed to make room for newer ones",
            ),
            self.connections_stuck.metric(
                "api_connections_stuck",
                "Connections closed because their client did not read",
            ),
            self.ws_received.metric("api_ws_received", "Frames from WebSocket clients"),
            self.ws_sent.metric("api_ws_sent", "Frames to WebSocket clients"),
            self.ws_publishes_refused.metric(
                "api_ws_publishes_refused",
                "Publishes that WebSocket clients were told were not taken",
            ),
            self.ws_stuck.metric("api_ws_stuck", "WebSocket sessions closed as not reading"),
        ]
    }
}

/// Values that are known at the moment of a scrape only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Open WebSocket sessions.
    pub(crate) ws_sessions: usize,
    /// Open SSE streams.
    pub(crate) sse_clients: usize,
    /// Events that clients of `GET /events` missed by being slow, since the start.
    pub(crate) sse_missed: u64,
    /// Subscriptions made by `POST /subscribe`.
    pub(crate) subscriptions: usize,
    /// Whole seconds since the start.
    pub(crate) uptime_secs: u64,
}

impl Now {
    fn gauges(self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("api_ws_sessions", "Open WebSocket sessions", self.ws_sessions as u64),
            ("api_sse_clients", "Open SSE streams", self.sse_clients as u64),
            ("api_subscriptions", "Subscriptions made over REST", self.subscriptions as u64),
            ("uptime_seconds", "Whole seconds since the start", self.uptime_secs),
        ]
    }
}

/// One scrape.
struct Scrape {
    layers: Vec<Metric>,
    answers: Vec<(&'static str, u64)>,
    refused: Vec<(&'static str, u64)>,
    now: Now,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in &self.layers {
            // They are written with a full stop here and without there.
            let help = metric.help.trim_end_matches('.');
            match metric.kind {
                MetricKind::Counter => {
                    let value = ConstCounter::new(metric.value);
                    let kind = value.metric_type();
                    value.encode(encoder.encode_descriptor(metric.name, help, None, kind)?)?;
                }
                _ => gauge(&mut encoder, metric.name, help, metric.value)?,
            }
        }
        let missed = ConstCounter::new(self.now.sse_missed);
        let (help, kind) = ("Events that slow SSE clients missed", missed.metric_type());
        missed.encode(encoder.encode_descriptor("api_sse_missed", help, None, kind)?)?;
        for (name, help, value) in self.now.gauges() {
            gauge(&mut encoder, name, help, value)?;
        }
        family(&mut encoder, "api_answers", "Answers by class of status", "class", &self.answers)?;
        family(&mut encoder, "api_refused", "Failed requests by code", "code", &self.refused)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (text, value) in values {
        let labels = [(label, *text)];
        ConstCounter::new(*value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Everything as OpenMetrics text.
pub(crate) fn render(agent: &Agent, api: &ApiMetrics, now: Now) -> Result<String, fmt::Error> {
    let mut layers = agent.metrics();
    layers.extend(api.plain());
    render_metrics(layers, api, now)
}

fn render_metrics(layers: Vec<Metric>, api: &ApiMetrics, now: Now) -> Result<String, fmt::Error> {
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let answers = CLASSES.into_iter().zip(&api.answers);
    let refused = ErrorCode::ALL.iter().map(|code| code.as_str()).zip(&api.refused);
    let scrape = Scrape {
        layers,
        answers: answers.map(|(class, counter)| (class, counter.value())).collect(),
        refused: refused.map(|(code, counter)| (code, counter.value())).collect(),
        now,
    };
    let mut registry = Registry::with_prefix("x0x");
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_open_metrics() {
        let api = ApiMetrics::default();
        api.count(StatusCode::OK, None);
        api.count(StatusCode::UNAUTHORIZED, Some(ErrorCode::Unauthorized));
        let now =
            Now { ws_sessions: 2, sse_clients: 0, sse_missed: 5, subscriptions: 1, uptime_secs: 7 };
        let mut layers = api.plain();
        layers.push(Counter::default().metric("dotted", "A text that ends."));
        let text = render_metrics(layers, &api, now).expect("encodes");
        for line in [
            "# TYPE x0x_api_answers counter",
            "x0x_api_answers_total{class=\"2xx\"} 1",
            "x0x_api_answers_total{class=\"4xx\"} 1",
            "x0x_api_refused_total{code=\"unauthorized\"} 1",
            "x0x_api_refused_total{code=\"not_found\"} 0",
            "x0x_api_ws_sessions 2",
            "x0x_api_sse_missed_total 5",
            "x0x_uptime_seconds 7",
            "# HELP x0x_dotted A text that ends",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
