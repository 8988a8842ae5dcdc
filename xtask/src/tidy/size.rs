//! Files stay readable in one sitting, functions on one screen.

use super::finding::Finding;
use super::source::SourceFile;

/// A file above this many lines is worth splitting.
const FILE_WARN: usize = 600;
/// A file above this many lines must be split.
const FILE_FAIL: usize = 900;
/// The longest function.
const FUNCTION_FAIL: usize = 70;

/// Checks the lengths of a file and of its functions (test functions may be long stories).
pub(super) fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.lines > FILE_WARN {
        let message = format!("{} lines; aim for 100 to 400, split by concern", file.lines);
        let finding = Finding::error("file-length", &file.path, "file", message);
        findings.push(if file.lines > FILE_FAIL { finding } else { finding.warning() });
    }
    if file.is_test_file() {
        return findings;
    }
    for function in &file.functions {
        if function.length > FUNCTION_FAIL {
            let message = format!(
                "`{}` has {} lines; the limit is {FUNCTION_FAIL}",
                function.name, function.length
            );
            findings.push(
                Finding::error("function-length", &file.path, &function.name, message)
                    .at(function.line),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::finding::Severity;
    use super::*;

    fn check_text(path: &str, content: &str) -> Vec<Finding> {
        check(&SourceFile::parse(Path::new(path), content).unwrap())
    }

    #[test]
    fn long_files_warn_then_fail() {
        assert!(check_text("a.rs", &"\n".repeat(600)).is_empty());
        assert_eq!(check_text("a.rs", &"\n".repeat(601))[0].severity, Severity::Warning);
        assert_eq!(check_text("a.rs", &"\n".repeat(901))[0].severity, Severity::Error);
    }

    #[test]
    fn long_functions_fail_outside_tests() {
        let long = format!("impl A {{\nfn long() {{\n{}}}\n}}", "a();\n".repeat(70));
        assert_eq!(check_text("src/a.rs", &long)[0].item, "long");
        assert!(check_text("tests/a.rs", &long).is_empty());
        let fits = format!("fn fits() {{\n{}}}", "a();\n".repeat(68));
        assert!(check_text("src/a.rs", &fits).is_empty());
    }
}
