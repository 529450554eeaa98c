//! `vectors`: runs files of test vectors through the function that the public listener uses.
//!
//! A file whose provider has a row is judged by the row; any other by its member `row`, a row of the user's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use relay_program::{Failure, terminal};
use relay_schemes::vectors::judge;

/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Vectors {
    /// A file, or a directory of .json files
    path: PathBuf,
    /// Print those that pass, too
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(arguments: &Vectors) -> Result<(), Failure> {
    let (mut passed, mut failed) = (0_u64, 0_u64);
    for file in files(&arguments.path)? {
        let shown = file.display();
        let judged = read(&file).and_then(|text| judge(&text).map_err(|why| anyhow!(why)));
        let cases = match judged {
            Ok(cases) => cases,
            Err(error) => {
                failed += 1;
                terminal::line(&format!("FAILED {shown}: {error:#}"))?;
                continue;
            }
        };
        for case in cases {
            match case.outcome {
                Ok(()) => {
                    passed += 1;
                    if arguments.verbose {
                        terminal::line(&format!("ok {}", case.name))?;
                    }
                }
                Err(why) => {
                    failed += 1;
                    terminal::line(&format!("FAILED {}: {why}", case.name))?;
                }
            }
        }
    }
    terminal::line(&format!("{passed} passed, {failed} failed"))?;
    if failed == 0 { Ok(()) } else { Err(Failure::Reported(1)) }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(cannot)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(cannot)? {
        let file = entry.with_context(cannot)?.path();
        if file.extension().is_some_and(|ending| ending == "json") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::NotFound(format!("no .json file in {}", path.display())));
    }
    Ok(files)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let len = fs::metadata(file)?.len();
    anyhow::ensure!(len <= MAX_FILE_BYTES, "{len} bytes are too many for a file of vectors");
    Ok(fs::read_to_string(file)?)
}
