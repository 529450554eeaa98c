//! The house rules that a machine can hold: arrows between crates, order of modules, long files and functions,
//! names that stand for several things, and what is more public than it need be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

#[test]
fn the_arrows_between_crates_are_those_of_the_architecture() {
    let allowed: [(&str, &[&str]); 7] = [
        ("proto", &[]),
        ("page", &[]),
        ("schemes", &[]),
        ("program", &["relay-proto"]),
        ("tunnel", &["relay-proto"]),
        ("relay-server", &["relay-page", "relay-program", "relay-proto", "relay-schemes", "relay-tunnel"]),
        ("relay-client", &["relay-page", "relay-program", "relay-proto", "relay-schemes", "relay-tunnel"]),
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

#[test]
fn the_page_turns_no_text_into_markup_or_code_and_its_vendored_files_are_unmodified() {
    let folder = root().join("page/static");
    let mut read = 0;
    for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&entry).expect("a file");
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "srcdoc",
            "eval(",
            "Function(",
            "document.write",
            " style=\"",
            "javascript:",
        ] {
            assert!(!text.contains(sink), "{} contains {sink}", entry.display());
        }
        read += 1;
    }
    assert!(read > 5, "only {read} files were read");
    let sums = fs::read_to_string(folder.join("vendor/SHA256SUMS")).expect("sums");
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("a sum and a name");
        let bytes = fs::read(folder.join("vendor").join(name)).expect("a file");
        let found = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        assert_eq!(data_encoding::HEXLOWER.encode(found.as_ref()), sum, "{name}");
    }
    let vendored = fs::read_dir(folder.join("vendor")).expect("a folder").count();
    assert_eq!(vendored, sums.lines().count() + 1);
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

/// The crates that users run, and what they stand on.
const CRATES: [&str; 6] = ["proto", "program", "schemes", "tunnel", "relay-server", "relay-client"];

#[test]
fn long_files_and_functions_are_named() {
    let (mut files, mut functions) = (0, 0);
    for file in CRATES.iter().flat_map(|folder| production(folder)) {
        files += 1;
        assert!(file.text.starts_with("//!"), "{} does not say what it is for", file.name);
        let lines = file.text.lines().count();
        if lines > 600 {
            println!("warning: {} has {lines} lines of production code", file.name);
        }
        for function in file.functions() {
            functions += 1;
            if function.lines > MAX_FUNCTION_LINES {
                println!("warning: {}: {} has {} lines", file.name, function.name, function.lines);
            }
            for parameter in function.tuples() {
                println!("warning: {}: {} takes a tuple that has no name: {parameter}", file.name, function.name);
            }
        }
    }
    assert!(files > 40 && functions > 1000, "{files} files, {functions} functions");
}

const MAX_FUNCTION_LINES: usize = 60;

#[test]
fn a_public_type_name_stands_once_in_a_crate() {
    let mut types = 0;
    let mut doubles = Vec::new();
    for folder in CRATES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in production(folder) {
            for line in file.text.lines() {
                let Some(item) = Item::read(line).filter(|item| item.is_type()) else { continue };
                types += 1;
                places.entry(item.name).or_default().push(file.name.clone());
            }
        }
        doubles
            .extend(places.into_iter().filter(|(_, files)| files.len() > 1).map(|(name, files)| (folder, name, files)));
    }
    assert!(types > 300, "only {types} types were found: the check looks at the wrong text");
    let is_known = |folder: &str, name: &str| KNOWN_DOUBLES.contains(&(folder, name));
    for (folder, name) in KNOWN_DOUBLES
        .iter()
        .filter(|(folder, name)| !doubles.iter().any(|(other, double, _)| other == folder && double == name))
    {
        println!("warning: {name} stands once in {folder} by now: take it off the list");
    }
    doubles.retain(|(folder, name, _)| !is_known(folder, name));
    assert!(doubles.is_empty(), "one word for one thing; these names stand for several: {doubles:#?}");
}

/// What is still to be renamed.
const KNOWN_DOUBLES: &[(&str, &str)] = &[];

#[test]
fn what_only_the_crate_uses_is_not_public() {
    let outside: String = ["tests/src", "tests/tests", "fuzz/targets"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .chain(["relay-server/src/main.rs", "relay-client/src/main.rs"].map(|file| root().join(file)))
        .map(|file| fs::read_to_string(file).expect("a file"))
        .collect();
    let outside = words(&outside);
    let (mut seen, mut wide) = (0, Vec::new());
    for folder in ["relay-server", "relay-client"] {
        let files = production(folder);
        // What a public signature, trait or enum names has to be public, too.
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        for file in &files {
            let mut inside = false;
            for line in file.text.lines() {
                let code = line.trim_start();
                inside |= line.starts_with("pub trait ") || line.starts_with("pub enum ");
                if inside || code.starts_with("pub ") || code.starts_with("type ") {
                    words(code).into_iter().for_each(|word| *named.entry(word).or_default() += 1);
                }
                inside &= line != "}";
            }
        }
        for file in &files {
            for line in file.text.lines() {
                let Some(item) = Item::read(line).filter(|item| item.visibility == "pub") else { continue };
                seen += 1;
                let used = outside.contains(&item.name) || named.get(&item.name).is_some_and(|count| *count > 1);
                if !used {
                    wide.push(format!("{}: {}", file.name, item.name));
                }
            }
        }
    }
    assert!(wide.is_empty(), "no other crate names these, so that pub(crate) is enough: {wide:#?}");
    assert!(seen > 20, "only {seen} items were found: the check looks at the wrong text");
}

/// A file without its tests.
struct Production {
    name: String,
    text: String,
}

fn production(folder: &str) -> Vec<Production> {
    let source = root().join(folder).join("src");
    let is_test = |path: &Path| {
        let path = path.strip_prefix(&source).expect("inside").to_str().expect("text");
        path.split(['/', '.']).any(|part| part == "tests" || part.starts_with("conformance"))
    };
    let files = rust_files(&source).into_iter().filter(|file| !is_test(file));
    files
        .map(|file| {
            let name = file.strip_prefix(root()).expect("inside").display().to_string();
            Production { name, text: without_tests(&fs::read_to_string(&file).expect("a file")) }
        })
        .collect()
}

fn without_tests(text: &str) -> String {
    let (mut out, mut inside) = (String::new(), false);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = |next: &&str| next.contains("mod ") && next.ends_with('{');
        inside |= line == "#[cfg(test)]" && lines.peek().is_some_and(opens);
        if !inside {
            out += line;
            out.push('\n');
        }
        inside &= line != "}";
    }
    out
}

/// What a line begins to define.
struct Item {
    visibility: String,
    kind: String,
    name: String,
}

impl Item {
    /// The item of a line that makes it visible outside of its module.
    fn read(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let (visibility, mut rest) = line.split_once(' ')?;
        if visibility != "pub" && !visibility.starts_with("pub(") {
            return None;
        }
        while let Some(after) = ["const ", "async ", "unsafe "].iter().find_map(|word| {
            rest.strip_prefix(word)
                .filter(|after| *word != "const " || after.starts_with("fn") || after.starts_with("async"))
        }) {
            rest = after;
        }
        let (kind, name) = rest.split_once(' ')?;
        let known = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];
        known.contains(&kind).then(|| Self {
            visibility: visibility.to_owned(),
            kind: kind.to_owned(),
            name: word(name),
        })
    }

    fn is_type(&self) -> bool {
        ["struct", "enum", "trait", "type"].contains(&&*self.kind)
    }
}

struct Function {
    name: String,
    lines: usize,
    /// From its name to its body.
    signature: String,
}

impl Production {
    /// Functions with a body of more than one line.
    fn functions(&self) -> Vec<Function> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut found = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let before = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"];
            let mut after = code.split(' ').skip_while(|word| before.contains(word) || word.starts_with("pub(in"));
            let (Some("fn"), Some(name)) = (after.next(), after.next()) else { continue };
            let close = format!("{}}}", &line[..line.len() - code.len()]);
            let ends = |line: &&str| {
                *line == close
                    || line.trim_end().ends_with(';')
                        && !line.starts_with(&format!("{close} "))
                        && line.len() - line.trim_start().len() == close.len() - 1
            };
            let Some(length) = lines[at..].iter().position(ends).filter(|length| lines[at + length] == close) else {
                continue;
            };
            let body = lines[at..].iter().position(|line| line.ends_with('{')).unwrap_or_default();
            let signature = lines[at..=at + body].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            found.push(Function { name: word(name), lines: length, signature });
        }
        found
    }
}

impl Function {
    /// Parameters whose type is a tuple.
    fn tuples(&self) -> Vec<String> {
        let Some((_, rest)) = self.signature.split_once(&self.name) else { return Vec::new() };
        let Some(open) = rest.find('(') else { return Vec::new() };
        let (mut depth, mut parameters) = (0, vec![String::new()]);
        for letter in rest[open + 1..].replace("->", "").chars() {
            match letter {
                '(' | '<' | '[' => depth += 1,
                ')' | '>' | ']' => depth -= 1,
                ',' if depth == 1 => {
                    parameters.push(String::new());
                    continue;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            parameters.last_mut().expect("one").push(letter);
        }
        let is_tuple = |parameter: &String| {
            let kind = parameter.split_once(": ").map_or("", |(_, kind)| kind.trim_start_matches('&'));
            kind.trim_start_matches("mut ").starts_with('(') && kind.contains(',')
        };
        parameters.into_iter().filter(is_tuple).map(|parameter| parameter.trim().to_owned()).collect()
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').map(str::to_owned).collect()
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
