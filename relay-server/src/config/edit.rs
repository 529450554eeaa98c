//! Changes to `relay.toml` made by commands: adding and removing a `[[token]]`, with everything else left as it is.
//!
//! Comments and layout stay. Secrets are not read: the shell that edits is seldom the one that serves. Invariants: a
//! result that would not pass the checks never reaches the file; readers see the old file or the new one, whole; the
//! file keeps its mode; two editors at once take turns.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use relay_program::api::TokenLimits;
use relay_program::config::{Origin, Problem, Problems, Text, Wrong};
use relay_program::file::replace;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value};

use super::check::token_name;
use super::{ConfigTexts, Flags};
use crate::agents::token::TokenHash;

/// Why a config file was left as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("{file}: there is no token called \"{name}\"")]
    NotFound { file: String, name: String },
    /// The file, or what would become of it, does not pass the checks.
    #[error(transparent)]
    Config(#[from] Problems),
    #[error("cannot change {file}: {source}")]
    Io { file: String, source: io::Error },
}

/// Adds a token under a new name, with its hash and the endpoints it may attach to.
pub(crate) fn add_token(
    file: &Path,
    name: &str,
    hash: TokenHash,
    endpoints: &[String],
    rights: &[String],
    limits: &TokenLimits,
) -> Result<(), EditError> {
    let name = token_name(name).map_err(usage)?;
    edit(file, |document| {
        let mut table = Table::new();
        table.insert("name", Item::from(&*name));
        table.insert("sha256", Item::from(Array::from_iter([hash.to_hex()])));
        table.insert("endpoints", Item::from(Array::from_iter(endpoints)));
        if !rights.is_empty() {
            table.insert("rights", Item::from(Array::from_iter(rights)));
        }
        let TokenLimits { max_sessions, max_endpoints, max_stored, max_events_per_day } = limits;
        let numbers = [
            ("max_sessions", max_sessions),
            ("max_endpoints", max_endpoints),
            ("max_events_per_day", max_events_per_day),
        ];
        for (key, number) in numbers.into_iter().filter_map(|(key, number)| Some((key, (*number)?))) {
            let large = |_| usage(format!("{key}: {number} is too large"));
            table.insert(key, Item::from(i64::try_from(number).map_err(large)?));
        }
        if let Some(size) = max_stored {
            table.insert("max_stored", Item::from(&**size));
        }
        let tokens = document.entry("token").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        match tokens {
            Item::ArrayOfTables(tokens) => tokens.push(table),
            // `token = [{ … }]` is the same to a reader.
            Item::Value(Value::Array(tokens)) => tokens.push(table.into_inline_table()),
            _ => return Err(usage("`token` is not a list of tables".to_owned()).into()),
        }
        Ok(())
    })
}

/// Removes the token of that name.
pub(crate) fn remove_token(file: &Path, name: &str) -> Result<(), EditError> {
    edit(file, |document| {
        let is_it = |value: Option<&str>| value == Some(name);
        let (before, after) = match document.get_mut("token") {
            Some(Item::ArrayOfTables(tokens)) => {
                let before = tokens.len();
                tokens.retain(|table| !is_it(table.get("name").and_then(Item::as_str)));
                (before, tokens.len())
            }
            Some(Item::Value(Value::Array(tokens))) => {
                let before = tokens.len();
                tokens.retain(|value| {
                    !is_it(value.as_inline_table().and_then(|table| table.get("name")).and_then(Value::as_str))
                });
                (before, tokens.len())
            }
            _ => (0, 0),
        };
        if before == after {
            return Err(EditError::NotFound { file: file.display().to_string(), name: name.to_owned() });
        }
        Ok(())
    })
}

fn usage(wrong: impl Into<Wrong>) -> Problems {
    let Wrong { message, help } = wrong.into();
    Problem { help: Some(help).filter(|help| !help.is_empty()), ..Problem::new(message) }.into()
}

fn edit(file: &Path, change: impl FnOnce(&mut DocumentMut) -> Result<(), EditError>) -> Result<(), EditError> {
    let failed = |source| EditError::Io { file: file.display().to_string(), source };
    // A link stays a link: what it points to is replaced.
    let target = file.canonicalize().map_err(failed)?;
    let directory = target.parent().unwrap_or(Path::new("/"));
    let turn = File::open(directory).map_err(failed)?;
    turn.lock().map_err(failed)?;

    let text = fs::read_to_string(&target).map_err(failed)?;
    // In our own words first: the editor's parser reports without key and way out.
    Text::new(Origin::File(file.to_owned()), text.clone()).parse().map_err(Problems::from)?;
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| usage(error.message().to_owned()))?;
    change(&mut document)?;
    let text = document.to_string();
    ConfigTexts::of_file(file.to_owned(), text.clone(), None)?.check(&Flags::default(), None)?;
    replace(&target, text.as_bytes()).map_err(failed)
}
