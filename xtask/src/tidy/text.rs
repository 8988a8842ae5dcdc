//! What no file of the project may say.

use std::path::Path;

use super::finding::Finding;

/// Words that mark unfinished work. Spelled in parts so that this file passes its own rule.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimplem", "ented!"),
];

/// Folders of one machine, which mean nothing on another.
const MACHINE_PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/", "brief")];

/// Checks a text file, whatever its language.
pub(super) fn check(path: &Path, content: &str) -> Vec<Finding> {
    if path.file_name().is_some_and(|name| name == "Cargo.lock") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in content.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| contains_word(line, word)) {
            let message = format!("`{word}`: finish it, or write it down as an issue");
            findings.push(Finding::error("unfinished", path, *word, message).at(index + 1));
        }
        for folder in MACHINE_PATHS.iter().filter(|folder| line.contains(**folder)) {
            let message = format!("`{folder}` is a path of one machine");
            findings.push(Finding::error("machine-path", path, *folder, message).at(index + 1));
        }
    }
    findings
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(content: &str) -> Vec<String> {
        check(Path::new("a.md"), content).into_iter().map(|finding| finding.item).collect()
    }

    #[test]
    fn unfinished_words_are_found_as_words() {
        assert_eq!(items(&format!("a\n// {} later", UNFINISHED[0])), [UNFINISHED[0]]);
        assert_eq!(items(&format!("    {}()", UNFINISHED[3])), [UNFINISHED[3]]);
        assert!(items(&format!("mktemp a.{0}{0}", UNFINISHED[2])).is_empty());
    }

    #[test]
    fn machine_paths_are_found() {
        assert_eq!(items(&format!("see {}main", MACHINE_PATHS[0])), [MACHINE_PATHS[0]]);
        assert!(items("GET /network/status").is_empty());
    }
}
