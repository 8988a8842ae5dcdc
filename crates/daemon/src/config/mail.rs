//! The table `[mail]`: how long direct messages are kept, and who is told of them.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::Deserialize;
use x0x_agent::{Durability, MailRetention};
use zeroize::Zeroizing;

use super::ConfigError;

/// The most messages and bytes of each list, and the longest age in days.
const MAX_MESSAGES: u64 = 10_000_000;
const MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;
const MAX_DAYS: u64 = 3650;
/// The least of each: room for a burst, and for a message of the largest size in the quarter that is for strangers.
const MIN_MESSAGES: u64 = 1000;
const MIN_BYTES: u64 = 64 * 1024 * 1024;

/// The longest secret and the longest path of a webhook in bytes.
const MAX_SECRET: usize = 512;
const MAX_PATH: usize = 2048;

/// How direct messages are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailSettings {
    /// What is kept of those that came, and of those that were queued.
    pub retention: MailRetention,
    /// What those that were acknowledged outlive.
    pub durability: DurabilityName,
    /// Who is told of each message that comes.
    pub webhook: Option<Webhook>,
}

/// What a message that was acknowledged outlives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DurabilityName {
    /// The end of the process.
    #[default]
    Process,
    /// A loss of power, too, for a flush to the disk at each commit of messages.
    Power,
}

impl From<DurabilityName> for Durability {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Process => Self::Process,
            DurabilityName::Power => Self::Power,
        }
    }
}

impl fmt::Display for DurabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Power => "power",
        })
    }
}

/// A server on this machine that gets each direct message as the body of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Webhook {
    /// Where it listens: a loopback address, since what it gets is not encrypted any more.
    pub address: SocketAddr,
    /// The path, with its slash.
    pub path: String,
    /// What it knows this daemon by.
    pub secret: Option<WebhookSecret>,
}

/// A bearer token for a webhook. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Zeroizing<String>);

impl WebhookSecret {
    /// Takes 1 to 512 visible ASCII characters, and nothing else.
    #[must_use]
    pub fn parse(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && (1..=MAX_SECRET).contains(&text.len())).then_some(Self(text))
    }

    /// The token itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl Webhook {
    /// Reads `http://<loopback address>:<port>/<path>`.
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.replacen("localhost:", "127.0.0.1:", 1);
        let address: SocketAddr = host.parse().ok()?;
        let plain = path.len() < MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic());
        let path = format!("/{path}");
        (address.ip().is_loopback() && plain).then_some(Self { address, path, secret: None })
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
    durability: Option<DurabilityName>,
    webhook: Option<String>,
    webhook_secret: Option<String>,
}

impl MailTable {
    /// The names of its keys.
    pub(super) const KEYS: &[&str] = &[
        "retention_messages",
        "retention_bytes",
        "retention_days",
        "durability",
        "webhook",
        "webhook_secret",
    ];

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
        mail.durability = self.durability.unwrap_or(mail.durability);
        if let Some(url) = self.webhook {
            let reason = "must be http:// with a loopback address and a port";
            let webhook = Webhook::parse(&url).ok_or_else(|| ConfigError::Value {
                key: "mail.webhook",
                reason: reason.to_owned(),
            })?;
            mail.webhook = Some(webhook);
        }
        if let Some(secret) = self.webhook_secret {
            let (key, reason) =
                ("mail.webhook_secret", "must be 1 to 512 visible ASCII characters");
            let secret = WebhookSecret::parse(secret)
                .ok_or_else(|| ConfigError::Value { key, reason: reason.to_owned() })?;
            let webhook = mail.webhook.as_mut().ok_or_else(|| ConfigError::Value {
                key,
                reason: "needs a webhook that it is for".to_owned(),
            })?;
            webhook.secret = Some(secret);
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
        writeln!(f, "durability = \"{}\"", self.durability)?;
        match &self.webhook {
            Some(webhook) => {
                writeln!(f, "webhook = {:?}", webhook.to_string())?;
                let secret = if webhook.secret.is_some() { "is set" } else { "is not set" };
                writeln!(f, "# webhook_secret {secret}")
            }
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
    fn a_secret_is_checked_and_not_shown() {
        let table = |webhook: Option<&str>, secret: &str| MailTable {
            webhook: webhook.map(str::to_owned),
            webhook_secret: Some(secret.to_owned()),
            ..MailTable::default()
        };
        let url = Some("http://127.0.0.1:80/");
        let mut mail = MailSettings::default();
        assert!(table(url, "s3cret").apply(&mut mail).is_ok());
        assert!(!mail.to_string().contains("s3cret") && !format!("{mail:?}").contains("s3cret"));
        for bad in ["", "a b", "a\r\nHost: b"] {
            let error = table(url, bad).apply(&mut MailSettings::default()).expect_err("bad");
            assert!(error.to_string().contains("mail.webhook_secret"), "{error}");
        }
        assert!(table(None, "s3cret").apply(&mut MailSettings::default()).is_err());
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
