//! How much a contact is trusted, and what it is known by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How much an agent is trusted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Level {
    /// Nothing it says reaches the application.
    Blocked,
    /// As any stranger.
    #[default]
    Unknown,
    /// A contact.
    Known,
    /// May do what needs trust, such as running allowed commands.
    Trusted,
}

/// What an agent is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IdentityType {
    /// By nothing but its id.
    #[default]
    Anonymous,
    /// By its user's word.
    Known,
    /// By its user's word, and trusted.
    Trusted,
    /// By its id and the machines it is pinned to: from any other it is refused.
    Pinned,
}

/// A word that names no level or type. The caller is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {text} (valid values: {valid})")]
pub struct ParseWordError {
    what: &'static str,
    text: String,
    valid: &'static str,
}

/// Longest part of a wrong word that an error repeats, in characters.
const MAX_REPEATED: usize = 32;

impl Level {
    const WORDS: [(&'static str, Self); 4] = [
        ("blocked", Self::Blocked),
        ("unknown", Self::Unknown),
        ("known", Self::Known),
        ("trusted", Self::Trusted),
    ];
}

impl IdentityType {
    const WORDS: [(&'static str, Self); 4] = [
        ("anonymous", Self::Anonymous),
        ("known", Self::Known),
        ("trusted", Self::Trusted),
        ("pinned", Self::Pinned),
    ];
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, other)| other == value).map_or("", |(word, _)| word)
}

fn parse<T: Copy>(
    words: &[(&'static str, T)],
    text: &str,
    what: &'static str,
    valid: &'static str,
) -> Result<T, ParseWordError> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| ParseWordError {
        what,
        text: text.chars().take(MAX_REPEATED).collect(),
        valid,
    })
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, self))
    }
}

impl fmt::Display for IdentityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, self))
    }
}

impl FromStr for Level {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, ParseWordError> {
        parse(&Self::WORDS, text, "trust level", "blocked, unknown, known, trusted")
    }
}

impl FromStr for IdentityType {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, ParseWordError> {
        parse(&Self::WORDS, text, "identity type", "anonymous, known, trusted, pinned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_errors_name_the_valid_ones() {
        for (word, level) in Level::WORDS {
            assert_eq!((word.parse(), level.to_string()), (Ok(level), word.to_owned()));
            assert_eq!(word.to_uppercase().parse(), Ok(level));
        }
        for (word, kind) in IdentityType::WORDS {
            assert_eq!((word.parse(), kind.to_string()), (Ok(kind), word.to_owned()));
        }
        let error = "friend".parse::<Level>().expect_err("no such level");
        let text = "invalid trust level: friend (valid values: blocked, unknown, known, trusted)";
        assert_eq!(error.to_string(), text);
        let long = "x".repeat(1000).parse::<Level>().expect_err("no such level");
        assert!(long.to_string().len() < 200);
        assert!(Level::Blocked < Level::Unknown && Level::Known < Level::Trusted);
    }
}
