//! The files that a config includes.
//!
//! Invariant: an included file includes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use relay_program::config::{Origin, Problems, Report, Section, Text, Wrong};
use relay_program::pattern::fits;

/// Files that one config includes at most.
const MAX_INCLUDED: usize = 1000;

/// The files that a config's own text, the only one of `main`, includes, in the order of their names.
pub(super) fn included(file: &Path, main: &[Text]) -> Result<Vec<Text>, Problems> {
    let table = main[0].parse()?;
    let report = Report::new(main);
    let mut texts = Vec::new();
    {
        let root = Section::root(&report, 0, &table, "");
        let read = |path: PathBuf| match fs::read_to_string(&path) {
            Ok(text) => Ok(Text::new(Origin::File(path), text)),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        };
        for pattern in root.texts("include") {
            let found = root.judge(&pattern.place, matching(file, pattern.value)).unwrap_or_default();
            texts.extend(found.into_iter().filter_map(|path| root.judge(&pattern.place, read(path))));
            if texts.len() > MAX_INCLUDED {
                let message = format!("more than {MAX_INCLUDED} files are included");
                report.error(&pattern.place, message, "put rows together");
                break;
            }
        }
    }
    report.finish()?;
    Ok(texts)
}

/// The paths that a config's own text includes, with their stars, and the files that those name now, which may be links;
/// nothing where it cannot be read.
pub(super) fn patterns(file: &Path, text: &str) -> Vec<PathBuf> {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let patterns = table.get("include").and_then(toml::Value::as_array).into_iter().flatten();
    let folder = file.parent().unwrap_or(Path::new(""));
    let paths = |pattern| std::iter::once(folder.join(pattern)).chain(matching(file, pattern).unwrap_or_default());
    patterns.filter_map(toml::Value::as_str).flat_map(paths).collect()
}

/// The files that a pattern names. Stars stand in the file's name alone.
fn matching(file: &Path, pattern: &str) -> Result<Vec<PathBuf>, Wrong> {
    let path = file.parent().unwrap_or(Path::new("")).join(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    if name.is_empty() || folder.to_string_lossy().contains('*') {
        return Err(Wrong::new(format!("\"{pattern}\" names no files"), "write it like \"conf.d/*.toml\""));
    }
    if !name.contains('*') {
        return Ok(vec![path]);
    }
    let entries = match fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder }) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", folder.display()).into()),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // As in a shell, a star is no hidden file: editors leave theirs behind.
    let mut names: Vec<_> = names.filter(|own| fits(&name, own) && !own.starts_with('.')).collect();
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
