//! Text from the network as a terminal may see it.
//!
//! Characters that move the cursor, change colours, turn text around or show nothing at all are
//! written as escapes, so that what a person reads is what was sent. So are combining marks that pile
//! up over one character.

use std::fmt::Write as _;

/// Most combining marks in a row that are printed as they are; no script needs as many.
const MAX_MARKS: usize = 8;

/// Makes such characters visible in plain text.
pub(crate) fn escape(text: &str) -> String {
    escape_with(text, |safe, character| match character {
        '\n' => safe.push_str("\\n"),
        '\r' => safe.push_str("\\r"),
        '\t' => safe.push_str("\\t"),
        _ => _ = write!(safe, "\\u{{{:x}}}", u32::from(character)),
    })
}

/// The same for JSON text, where such characters occur within strings only.
pub(crate) fn escape_json(text: &str) -> String {
    escape_with(text, |safe, character| match character {
        // Between tokens these are layout; serde_json has escaped those in strings.
        '\n' | '\r' | '\t' => safe.push(character),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                _ = write!(safe, "\\u{unit:04x}");
            }
        }
    })
}

fn escape_with(text: &str, mut write: impl FnMut(&mut String, char)) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut marks = 0;
    for character in text.chars() {
        marks = if is_mark(character) { marks + 1 } else { 0 };
        if marks > MAX_MARKS || is_hazard(character) {
            write(&mut safe, character);
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Control characters, and what the Unicode character database calls format characters (Cf), line
/// and paragraph separators, variation selectors, and fillers without a shape.
fn is_hazard(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
                | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The marks that are drawn over or under the character before them: the blocks of combining marks,
/// and the marks of scripts that pile up.
fn is_mark(character: char) -> bool {
    matches!(
        character,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}'
            | '\u{5bf}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}'
            | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' | '\u{6e7}'..='\u{6ed}'
            | '\u{730}'..='\u{74a}' | '\u{7eb}'..='\u{7f3}' | '\u{816}'..='\u{82d}'
            | '\u{897}'..='\u{89f}' | '\u{8ca}'..='\u{902}' | '\u{93a}' | '\u{93c}'
            | '\u{941}'..='\u{948}' | '\u{94d}' | '\u{951}'..='\u{957}' | '\u{e31}'
            | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}' | '\u{eb1}'
            | '\u{eb4}'..='\u{ebc}' | '\u{ec8}'..='\u{ece}' | '\u{f71}'..='\u{f87}'
            | '\u{f8d}'..='\u{fbc}' | '\u{102d}'..='\u{103a}' | '\u{135d}'..='\u{135f}'
            | '\u{1ab0}'..='\u{1aff}' | '\u{1cd0}'..='\u{1cff}' | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}' | '\u{2cef}'..='\u{2cf1}' | '\u{2de0}'..='\u{2dff}'
            | '\u{302a}'..='\u{302f}' | '\u{3099}'..='\u{309a}' | '\u{a66f}'..='\u{a67d}'
            | '\u{a8e0}'..='\u{a8f1}' | '\u{fe20}'..='\u{fe2f}' | '\u{1d165}'..='\u{1d172}'
            | '\u{1d17b}'..='\u{1d1ad}' | '\u{1e000}'..='\u{1e02a}' | '\u{1e8d0}'..='\u{1e8d6}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_made_visible() {
        assert_eq!(escape("a\u{1b}[31mb\nc\u{202e}d\u{9b}"), "a\\u{1b}[31mb\\nc\\u{202e}d\\u{9b}");
        let json = escape_json("{\"a\": \"\u{202e}\u{9b}x\u{e0041}\"}");
        assert_eq!(json, r#"{"a": "\u202e\u009bx\udb40\udc41"}"#);
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["a"], "\u{202e}\u{9b}x\u{e0041}");
    }

    #[test]
    fn what_shows_nothing_is_made_visible() {
        let hidden = [
            '\u{200b}',
            '\u{2060}',
            '\u{feff}',
            '\u{ad}',
            '\u{180e}',
            '\u{e0001}',
            '\u{e007f}',
            '\u{fe0f}',
            '\u{e0100}',
            '\u{e01ef}',
            '\u{200d}',
            '\u{2063}',
            '\u{fff9}',
            '\u{1d173}',
        ];
        for character in hidden {
            let expected = format!("a\\u{{{:x}}}b", u32::from(character));
            assert_eq!(escape(&format!("a{character}b")), expected);
        }
        for plain in ["Grüße", "日本語", "नमस्ते", "ที่นี่", "\u{1f600}", "e\u{301}"]
        {
            assert_eq!(escape(plain), plain);
        }
    }

    #[test]
    fn marks_do_not_pile_up() {
        let marks = "\u{301}".repeat(MAX_MARKS);
        assert_eq!(escape(&format!("a{marks}b{marks}")), format!("a{marks}b{marks}"));
        assert_eq!(escape(&format!("a{marks}\u{301}b")), format!("a{marks}\\u{{301}}b"));
    }
}
