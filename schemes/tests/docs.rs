//! The page of all providers says what the rows say. `RELAY_WRITE_DOCS=1` writes it anew.

use std::path::Path;

#[test]
fn the_page_of_providers_is_written_from_the_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let page = relay_schemes::docs::page();
    if std::env::var_os("RELAY_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, &page).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/providers.md");
    assert!(written == page, "docs/providers.md is not what the rows say; run this test with RELAY_WRITE_DOCS=1");
}
