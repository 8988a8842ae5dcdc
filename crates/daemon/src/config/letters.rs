//! The table `[letters]`: sealed letters kept for others, and left with others.

use std::{fmt, time::Duration};

use serde::Deserialize;
use x0x_agent::LettersConfig;

use super::ConfigError;

/// The most bytes and days.
const MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;
const MAX_DAYS: u64 = 30;
/// Of what is kept for others, the part that strangers may fill.
const STRANGERS_SHARE: u64 = 4;

/// The table as it is in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LettersTable {
    hold: Option<bool>,
    hold_bytes: Option<u64>,
    hold_days: Option<u64>,
    deposit: Option<bool>,
    deposit_after_secs: Option<u64>,
}

impl LettersTable {
    /// The names of its keys.
    pub(super) const KEYS: &[&str] =
        &["hold", "hold_bytes", "hold_days", "deposit", "deposit_after_secs"];

    pub(super) fn apply(self, letters: &mut LettersConfig) -> Result<(), ConfigError> {
        letters.holds = self.hold.unwrap_or(letters.holds);
        letters.deposits = self.deposit.unwrap_or(letters.deposits);
        if let Some(bytes) = self.hold_bytes {
            if bytes > MAX_BYTES {
                let reason = format!("must be at most {MAX_BYTES}");
                return Err(ConfigError::Value { key: "letters.hold_bytes", reason });
            }
            letters.hold_bytes = bytes;
            letters.stranger_bytes = bytes / STRANGERS_SHARE;
        }
        if let Some(days) = self.hold_days {
            if !(1..=MAX_DAYS).contains(&days) {
                let reason = format!("must be 1 to {MAX_DAYS}");
                return Err(ConfigError::Value { key: "letters.hold_days", reason });
            }
            letters.lifetime = Duration::from_secs(days * 86_400);
        }
        if let Some(secs) = self.deposit_after_secs {
            letters.deposit_after = Duration::from_secs(secs.min(86_400));
        }
        Ok(())
    }
}

/// The table as a file would have it.
pub(super) struct Shown<'a>(pub(super) &'a LettersConfig);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(letters) = self;
        writeln!(f, "[letters]")?;
        writeln!(f, "hold = {}", letters.holds)?;
        writeln!(f, "hold_bytes = {}", letters.hold_bytes)?;
        writeln!(f, "hold_days = {}", letters.lifetime.as_secs() / 86_400)?;
        writeln!(f, "deposit = {}", letters.deposits)?;
        writeln!(f, "deposit_after_secs = {}", letters.deposit_after.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_shown() {
        let mut letters = LettersConfig::default();
        let table = LettersTable {
            hold: Some(false),
            hold_bytes: Some(1000),
            hold_days: Some(2),
            deposit_after_secs: Some(0),
            ..LettersTable::default()
        };
        assert!(table.apply(&mut letters).is_ok());
        assert!(!letters.holds && letters.deposits && letters.deposit_after.is_zero());
        assert_eq!((letters.hold_bytes, letters.stranger_bytes), (1000, 250));
        let shown = Shown(&letters).to_string();
        let read: toml::Table = toml::from_str(&shown).expect("TOML");
        let keys: Vec<&str> =
            read["letters"].as_table().expect("a table").keys().map(String::as_str).collect();
        assert_eq!(keys.len(), LettersTable::KEYS.len());
        assert!(keys.iter().all(|key| LettersTable::KEYS.contains(key)), "{keys:?}");
        let table = LettersTable { hold_days: Some(31), ..LettersTable::default() };
        let error = table.apply(&mut letters).expect_err("too long");
        assert!(error.to_string().contains("letters.hold_days"), "{error}");
    }
}
