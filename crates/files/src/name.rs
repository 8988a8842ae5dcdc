//! Names of files that a stranger chose, made safe to put into a folder.

/// Longest name in bytes: below the 255 of every file system, with room for a number behind it.
pub const MAX_NAME: usize = 200;
/// Longest part behind the last dot that a shortened name keeps, in bytes.
const MAX_KEPT_EXTENSION: usize = 20;
/// What a name becomes of which nothing is left.
const UNNAMED: &str = "unnamed";

/// Names that old systems give to devices, whatever comes behind a dot.
const DEVICES: [&str; 8] = ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$", "config$"];

/// The name under which an offered file is stored: one path component that no file system, shell or
/// terminal takes for something else.
///
/// Folders are cut off, control characters and those that reorder or hide text are dropped, what
/// file systems refuse becomes `_`, a leading dot or a trailing dot or space goes, and the names of devices get a `_` in front.
///
/// ```
/// assert_eq!(x0x_files::safe_name("../../etc/passwd"), "passwd");
/// assert_eq!(x0x_files::safe_name("NUL.txt"), "_NUL.txt");
/// assert_eq!(x0x_files::safe_name("report 2.pdf"), "report 2.pdf");
/// ```
#[must_use]
pub fn safe_name(offered: &str) -> String {
    let base = offered.rsplit(['/', '\\']).next().unwrap_or_default();
    let cleaned: String = base.chars().filter(|c| !is_hidden(*c)).map(replaced).collect();
    let trimmed = trim(&cleaned);
    let mut name = shorten(trimmed);
    if is_device(&name) {
        name.insert(0, '_');
    }
    if name.is_empty() { UNNAMED.to_owned() } else { name }
}

/// The `n`-th name beside one that is taken: `report (2).pdf`.
#[must_use]
pub fn numbered(name: &str, n: u32) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem} ({n}).{extension}"),
        _ => format!("{name} ({n})"),
    }
}

fn trim(name: &str) -> &str {
    name.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' '])
}

/// Control characters, and those that change how the text around them is shown or cannot be seen.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

const fn replaced(c: char) -> char {
    match c {
        '<' | '>' | ':' | '"' | '|' | '?' | '*' => '_',
        c => c,
    }
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let port = |prefix| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            let mut rest = rest.chars();
            let digit = |c: char| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³');
            rest.next().is_some_and(digit) && rest.next().is_none()
        })
    };
    DEVICES.contains(&&*stem) || port("com") || port("lpt")
}

/// Cuts a name down to [`MAX_NAME`] bytes; a short extension stays.
fn shorten(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let extension = name
        .rfind('.')
        .map(|dot| &name[dot..])
        .filter(|extension| extension.len() <= MAX_KEPT_EXTENSION)
        .unwrap_or_default();
    let mut end = MAX_NAME - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    trim(&format!("{}{extension}", &name[..end])).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_made_harmless() {
        for (offered, safe) in [
            ("report.pdf", "report.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\windows\\system.ini", "system.ini"),
            ("/", "unnamed"),
            ("..", "unnamed"),
            (".bashrc", "bashrc"),
            ("...  ", "unnamed"),
            ("a. . ", "a"),
            ("con", "_con"),
            ("Com1.tar.gz", "_Com1.tar.gz"),
            ("COM¹", "_COM¹"),
            ("compare.txt", "compare.txt"),
            ("com10", "com10"),
            ("nul .txt", "_nul .txt"),
            ("exe\u{202e}gpj.exe", "exegpj.exe"),
            ("a\u{1b}[2Jb\n\0", "a[2Jb"),
            ("a:b|c?d*e", "a_b_c_d_e"),
            ("Büro 日本語 👩‍🔧.txt", "Büro 日本語 👩🔧.txt"),
        ] {
            assert_eq!(safe_name(offered), safe, "{offered:?}");
        }
        assert_eq!(numbered("report.pdf", 2), "report (2).pdf");
        assert_eq!(numbered("a.tar.gz", 3), "a.tar (3).gz");
        assert_eq!(numbered("plain", 2), "plain (2)");
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_harmless_component(offered in ".{0,600}") {
            let name = safe_name(&offered);
            prop_assert!(!name.is_empty() && name.len() <= MAX_NAME + 1);
            prop_assert!(!name.contains(['/', '\\', '\0', ':']) && !name.chars().any(is_hidden));
            prop_assert!(!name.starts_with('.') && !name.ends_with(['.', ' ']));
            prop_assert!(!is_device(&name));
            prop_assert_eq!(safe_name(&name), name.clone(), "once is enough");
            let path = std::path::Path::new("/folder").join(&name);
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/folder")));
        }
    }
}
