//! The committed documents are what the table says.

use std::{env, fs, path::Path};

/// Compares a committed document with what it has to be, or writes it where the environment asks for that.
fn in_step(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("X0X_WRITE_DOCS").is_some() {
        fs::write(&path, expected).expect("the document can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == expected,
        "{} is out of step with the endpoint table; \
         run this test with X0X_WRITE_DOCS=1 and commit the file",
        path.display()
    );
}

#[test]
fn api_markdown_is_in_step() {
    in_step("../../docs/api.md", &x0x_api::markdown());
}

#[test]
fn openapi_is_in_step() {
    in_step("openapi.json", &x0x_api::openapi_text());
    let carried: serde_json::Value = serde_json::from_str(&x0x_api::openapi_text()).expect("JSON");
    assert_eq!(carried, x0x_api::openapi());
}
