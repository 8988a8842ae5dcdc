//! The committed documents are what the table says.

use std::{env, fs, path::Path};

#[test]
fn api_markdown_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let expected = x0x_api::markdown();
    if env::var_os("X0X_WRITE_DOCS").is_some() {
        fs::write(&path, &expected).expect("docs/api.md can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == expected,
        "docs/api.md is out of step with the endpoint table; \
         run this test with X0X_WRITE_DOCS=1 and commit the file"
    );
}
