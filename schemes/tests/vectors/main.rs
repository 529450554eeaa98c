//! Every published vector, each its own case by name, twice: by the provider's row, and by the neutral description in
//! the file alone, made into a row as a user would write one.
//!
//! `cargo test -p relay-schemes --test vectors -- github/accept` runs some of them.

mod neutral;

use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use relay_schemes::vectors::judge;
use serde_json::Value;

/// As many as there were when this was written; fewer would mean that they are not read.
const AT_LEAST: usize = 1580;

fn trials(folder: &Path) -> Vec<Trial> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let mut trials = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        for (text, kind) in [(Ok(text.clone()), "row"), (by_scheme(&text), "scheme")] {
            match text.and_then(|text| judge(&text)) {
                Err(problem) => {
                    let file = path.display().to_string();
                    trials.push(Trial::test(file, move || Err(Failed::from(problem))).with_kind(kind));
                }
                Ok(cases) => trials.extend(cases.into_iter().map(|case| {
                    let run = move || case.outcome.map_err(Failed::from);
                    Trial::test(case.name, run).with_kind(kind)
                })),
            }
        }
    }
    trials
}

/// The same file of a provider that nobody knows, with a row of its own.
fn by_scheme(text: &str) -> Result<String, String> {
    let mut file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file["scheme"].is_object() {
        file["row"] = neutral::row(&file)?;
        file["provider"] = "nobody-knows".into();
    }
    Ok(file.to_string())
}

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let trials = if folder.is_dir() {
        let trials = trials(&folder);
        assert!(trials.len() >= 2 * AT_LEAST, "only {} cases", trials.len());
        trials
    } else {
        eprintln!("skipped: the published vectors are not beside this project");
        Vec::new()
    };
    libtest_mimic::run(&arguments, trials).exit();
}
