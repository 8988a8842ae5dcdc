//! Text that one machine writes and another shows to people.

use x0x_core::DecodeError;

use crate::error::TextError;

/// Whether a text may be shown as it is: no control characters, which would steer a terminal, and
/// none that reorder the line they stand in, which would disguise what it says.
#[must_use]
pub fn shows_as_written(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// Refuses a local text that no receiver would take.
pub(crate) fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), TextError> {
    if text.len() <= max && shows_as_written(text) { Ok(()) } else { Err(TextError { field, max }) }
}

/// Takes a received text, or refuses it.
pub(crate) fn read_text(
    field: &'static str,
    text: String,
    max: usize,
) -> Result<String, DecodeError> {
    check_text(field, &text, max).map_err(|_| DecodeError::Field(field))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_deceive_is_refused() {
        for good in ["", "Ada", "Ada 2 – Büro", "日本語", "👩‍🔧"] {
            assert_eq!(check_text("name", good, 32), Ok(()), "{good}");
        }
        for bad in ["a\nb", "\u{1b}[2J", "a\u{202e}b", "\u{7f}", "\u{85}", "a\u{2066}", "\u{61c}"] {
            assert!(read_text("name", bad.to_owned(), 32).is_err(), "{bad:?}");
        }
        assert!(check_text("name", &"x".repeat(33), 32).is_err());
    }
}
