//! The house rules that a machine can hold: arrows between crates, order of modules, long files.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

#[test]
fn the_arrows_between_crates_are_those_of_the_architecture() {
    let allowed: [(&str, &[&str]); 6] = [
        ("proto", &[]),
        ("schemes", &[]),
        ("program", &["relay-proto"]),
        ("tunnel", &["relay-proto"]),
        ("relay-server", &["relay-program", "relay-proto", "relay-schemes", "relay-tunnel"]),
        ("relay-client", &["relay-program", "relay-proto", "relay-schemes", "relay-tunnel"]),
    ];
    for (folder, arrows) in allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        let (_, dependencies) = manifest.split_once("[dependencies]").expect("dependencies");
        let ours = dependencies
            .lines()
            .filter_map(|line| line.split(['.', ' ']).next())
            .filter(|name| name.starts_with("relay-"));
        // A crate names itself where its tests turn on a feature of it.
        for name in ours.filter(|name| name.trim_start_matches("relay-") != folder) {
            assert!(
                arrows.contains(&name),
                "{folder} may not depend on {name}; ARCHITECTURE.md says which arrows there are"
            );
        }
    }
}

#[test]
fn the_servers_modules_use_only_what_stands_before_them() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the map");
    let order = page.lines().find_map(|line| line.strip_prefix("order: ")).expect("a line `order: …`");
    let order: Vec<_> = order.split_whitespace().collect();
    let source = root().join("relay-server/src");
    let mut uses = 0;
    for file in rust_files(&source) {
        let inside = file.strip_prefix(&source).expect("inside").to_str().expect("text");
        let module = inside.split(['/', '.']).next().expect("a module");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let own = order.iter().position(|name| *name == module);
        let own = own.unwrap_or_else(|| panic!("{module} does not stand in the order of ARCHITECTURE.md"));
        let text = fs::read_to_string(&file).expect("a file");
        let production = text.split("#[cfg(test)]\nmod ").next().expect("text").replace("crate::{\n", "crate::{");
        for used in names_after_crate(&production) {
            let Some(place) = order.iter().position(|name| *name == used) else { continue };
            uses += 1;
            assert!(place <= own, "{inside} uses {used}, which stands after it");
        }
    }
    assert!(uses > 20, "only {uses} uses were found: the check looks at the wrong text");
}

/// The first names after `crate::`, grouped imports included.
fn names_after_crate(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut start) = (1, true);
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => start = true,
                _ if start && letter.is_alphanumeric() => {
                    names.push(word(&group[at..]));
                    start = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn long_files_are_named() {
    let mut files = 0;
    for folder in ["proto", "program", "schemes", "tunnel", "relay-server", "relay-client"] {
        for file in rust_files(&root().join(folder).join("src")) {
            files += 1;
            let text = fs::read_to_string(&file).expect("a file");
            assert!(text.starts_with("//!"), "{} does not say what it is for", file.display());
            let lines = text.split("#[cfg(test)]\nmod ").next().expect("text").lines().count();
            if lines > 600 && !file.ends_with("tests.rs") {
                println!("warning: {} has {lines} lines of production code", file.display());
            }
        }
    }
    assert!(files > 40);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}
