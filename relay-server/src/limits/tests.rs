//! The guide has this table, and each row's tests are there.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace")
}

const HEAD: &str = "\
# Limits

What the relay is bounded by, how much of it there may be, the key that sets it, and what happens beyond it. [Configuration](configuration.md) says which values a key takes; what has no key is fixed. `relay-server config show` prints both, with the values of a config. This page is written from the code.
";

/// The text of `docs/limits.md`.
fn page() -> String {
    let mut page = HEAD.to_owned();
    for LimitGroup { title, limits } in table(&SetLimits::default()) {
        let _ = write!(page, "\n## {title}\n\n| limit | default | key | beyond it |\n|---|---|---|---|\n");
        for Limit { what, amount, key, answer, .. } in limits {
            let key = key.map(|key| format!("`{key}`")).unwrap_or_default();
            let _ = writeln!(page, "| {what} | {amount} | {key} | {answer} |");
        }
    }
    page
}

#[test]
fn the_guide_has_every_limit_as_it_is() {
    let path = root().join("docs/limits.md");
    if std::env::var_os("RELAY_WRITE_DOCS").is_some() {
        fs::write(&path, page()).expect("written");
    }
    let written = fs::read_to_string(&path).expect("docs/limits.md");
    assert!(written == page(), "docs/limits.md is not what the code says; run this test with RELAY_WRITE_DOCS=1");
}

#[test]
fn a_set_limit_is_a_key_of_the_guide_and_an_answer_is_one_of_its_codes() {
    let read = |name: &str| fs::read_to_string(root().join("docs").join(name)).expect("a guide");
    let (keys, answers) = (read("configuration.md"), read("answers.md"));
    for limit in table(&SetLimits::default()).iter().flat_map(|part| &part.limits) {
        if let Some(key) = limit.key {
            let (_, name) = key.split_once('.').expect("a table and a name");
            assert!(keys.contains(&format!("\n| `{name}` |")), "{key} does not stand in docs/configuration.md");
        }
        let codes = limit.answer.split('`').skip(1).step_by(2).filter(|code| code.contains('_') && *code != "max_size");
        for code in codes.filter(|code| code.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')) {
            assert!(answers.contains(&format!("`{code}`")), "{code} does not stand in docs/answers.md");
        }
    }
}

/// Every test of the workspace's Rust files, and every case of its suites.
fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "target" | "node_modules") && !name.starts_with('.') {
            tests_in(&path, found);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("text");
            let is_suite = path.iter().any(|part| part == "fidelity" || part == "conformance");
            let tests = text.match_indices("fn ").filter(|(at, _)| is_suite || is_marked(&text[..*at]));
            found
                .extend(tests.filter_map(|(at, it)| text[at + it.len()..].split(['(', '<']).next()).map(str::to_owned));
        }
    }
}

/// Whether a function is a test, by what stands in front of it.
fn is_marked(before: &str) -> bool {
    let mark = before.trim_end().trim_end_matches("async").trim_end();
    let mark = mark.ends_with(']').then(|| mark.rsplit("#[").next()).flatten();
    mark.is_some_and(|mark| mark.starts_with("test]") || mark.starts_with("tokio::test"))
}

#[test]
fn every_limit_has_a_test_that_goes_beyond_it() {
    let mut found = BTreeSet::new();
    for folder in ["proto", "tunnel", "relay-server", "tests"] {
        tests_in(&root().join(folder), &mut found);
    }
    for Limit { what, tests, .. } in table(&SetLimits::default()).iter().flat_map(|part| &part.limits) {
        assert!(!tests.is_empty(), "no test goes up to: {what}");
        for test in *tests {
            assert!(found.contains(*test), "{what}: there is no test {test}");
        }
    }
}
