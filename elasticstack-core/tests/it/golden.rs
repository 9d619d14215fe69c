//! What other programs and people read is compared with a file in the tree.
#![expect(clippy::disallowed_methods, reason = "goldens are files")]

use std::path::Path;

use elasticstack_core::wire::page;

#[test]
fn the_golden_page_of_the_api_says_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let page = page::markdown();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == page, "docs/api.md is out of date: run `cargo xtask goldens`");
}
