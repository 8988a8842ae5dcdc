//! The table `[mail]`: how long direct messages are kept, and who is told of them.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::Deserialize;
use x0x_agent::MailRetention;

use super::ConfigError;

/// The most messages and bytes of each list, and the longest age in days.
const MAX_MESSAGES: u64 = 10_000_000;
const MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;
const MAX_DAYS: u64 = 3650;
/// The least of each: a burst must not push out what nobody could read yet.
const MIN_MESSAGES: u64 = 1000;
const MIN_BYTES: u64 = 32 * 1024 * 1024;

/// How direct messages are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailSettings {
    /// What is kept of those that came, and of those that were queued.
    pub retention: MailRetention,
    /// Who is told of each message that comes.
    pub webhook: Option<Webhook>,
}

/// A server on this machine that gets each direct message as the body of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Webhook {
    /// Where it listens: a loopback address, since what it gets is not encrypted any more.
    pub address: SocketAddr,
    /// The path, with its slash.
    pub path: String,
}

impl Webhook {
    /// Reads `http://<loopback address>:<port>/<path>`.
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.replacen("localhost:", "127.0.0.1:", 1);
        let address: SocketAddr = host.parse().ok()?;
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        (address.ip().is_loopback() && plain).then(|| Self { address, path: format!("/{path}") })
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// The table as it is in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MailTable {
    retention_messages: Option<u64>,
    retention_bytes: Option<u64>,
    retention_days: Option<u64>,
    webhook: Option<String>,
}

impl MailTable {
    /// The names of its keys.
    pub(super) const KEYS: &[&str] =
        &["retention_messages", "retention_bytes", "retention_days", "webhook"];

    pub(super) fn apply(self, mail: &mut MailSettings) -> Result<(), ConfigError> {
        let within = |key: &'static str, value: u64, least: u64, most: u64| {
            let reason = || format!("must be {least} to {most}");
            let outside = !(least..=most).contains(&value);
            if outside { Err(ConfigError::Value { key, reason: reason() }) } else { Ok(value) }
        };
        let retention = &mut mail.retention;
        if let Some(messages) = self.retention_messages {
            retention.messages =
                within("mail.retention_messages", messages, MIN_MESSAGES, MAX_MESSAGES)?;
        }
        if let Some(bytes) = self.retention_bytes {
            retention.bytes = within("mail.retention_bytes", bytes, MIN_BYTES, MAX_BYTES)?;
        }
        if let Some(days) = self.retention_days {
            let days = within("mail.retention_days", days, 1, MAX_DAYS)?;
            retention.age = Duration::from_secs(days * 86_400);
        }
        if let Some(url) = self.webhook {
            let reason = "must be http:// with a loopback address and a port";
            let webhook = Webhook::parse(&url).ok_or_else(|| ConfigError::Value {
                key: "mail.webhook",
                reason: reason.to_owned(),
            })?;
            mail.webhook = Some(webhook);
        }
        Ok(())
    }
}

impl fmt::Display for MailSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[mail]")?;
        writeln!(f, "retention_messages = {}", self.retention.messages)?;
        writeln!(f, "retention_bytes = {}", self.retention.bytes)?;
        writeln!(f, "retention_days = {}", self.retention.age.as_secs() / 86_400)?;
        match &self.webhook {
            Some(webhook) => writeln!(f, "webhook = {:?}", webhook.to_string()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_on_this_machine() {
        let good = Webhook::parse("http://localhost:8080/hook?x=1").expect("loopback");
        assert_eq!(good.to_string(), "http://127.0.0.1:8080/hook?x=1");
        assert!(Webhook::parse("http://[::1]:80").is_some_and(|hook| hook.path == "/"));
        for bad in [
            "https://127.0.0.1:1/",
            "http://10.0.0.1:80/",
            "http://127.0.0.1/",
            "x",
            "http://127.0.0.1:80/a b",
            "http://127.0.0.1:80/a\r\nHost: b",
        ] {
            assert_eq!(Webhook::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_are_checked() {
        let mut mail = MailSettings::default();
        let table = MailTable { retention_days: Some(2), ..MailTable::default() };
        assert!(table.apply(&mut mail).is_ok());
        assert_eq!(mail.retention.age, Duration::from_secs(2 * 86_400));
        let table = MailTable { retention_messages: Some(1), ..MailTable::default() };
        let error = table.apply(&mut mail).expect_err("too few");
        assert!(error.to_string().contains("mail.retention_messages"), "{error}");
        assert!(mail.to_string().contains("retention_days = 2"));
    }
}
