//! Endpoints and tokens as rows: what a config file says of each, and what the API is given, in one form.
//!
//! A row is the table as it was typed, without comments, its keys sorted: the store keeps it like this, and two rows are
//! the same if their texts are. Nothing here is checked but names, that is for `check`. Invariant: a row holds no
//! secret, only references, and those to files do not depend on where the config file is.

use std::collections::BTreeSet;
use std::path::Path;

use relay_program::config::{Problem, Problems};
use relay_program::secret::SecretRef;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Endpoints and tokens that the API makes at most, and rows of one kind that a file has.
pub(crate) const MAX_ROWS: usize = 10_000;

/// Endpoints and tokens, each as it was typed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoint: Vec<Table>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token: Vec<Table>,
}

impl Rows {
    /// The rows of a config's text. One that cannot be read has none; `check` says what is wrong with it.
    pub(super) fn of(text: &str, base: &Path) -> Self {
        let mut typed: Table = toml::from_str(text).unwrap_or_default();
        let mut rows = |key| typed.remove(key).and_then(|rows| rows.try_into().ok()).unwrap_or_default();
        let (mut endpoint, mut token): (Vec<Table>, Vec<Table>) = (rows("endpoint"), rows("token"));
        for row in endpoint.iter_mut().chain(&mut token) {
            references(row, &mut |text| absolute(text, base));
        }
        Self { endpoint, token }
    }

    /// As the text of a config, without its first lines.
    pub(super) fn text(&self) -> Result<String, Problems> {
        toml::to_string(self)
            .map_err(|error| Problem::new(format!("these rows cannot be written as TOML: {error}")).into())
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.endpoint.extend(others.endpoint);
        self.token.extend(others.token);
    }
}

pub(crate) fn name_of(row: &Table) -> Option<&str> {
    row.get("name").and_then(Value::as_str)
}

/// A row as the store keeps it. `None` where TOML cannot say it.
pub(crate) fn value_of(row: &Table) -> Option<String> {
    toml::to_string(row).ok()
}

/// A row that the store kept.
pub(crate) fn row_of(value: &str) -> Option<Table> {
    toml::from_str(value).ok()
}

/// The keys in which two rows differ, down to the last table.
pub(crate) fn changed_keys(one: &Table, other: &Table) -> Vec<String> {
    let mut changed = Vec::new();
    differ("", one, other, &mut changed);
    changed
}

fn differ(path: &str, one: &Table, other: &Table, changed: &mut Vec<String>) {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (one.get(key), other.get(key)) {
            (Some(Value::Table(one)), Some(Value::Table(other))) => differ(&path, one, other, changed),
            (one, other) if one == other => {}
            _ => changed.push(path),
        }
    }
}

/// The names of sealed secrets that a row refers to.
pub(crate) fn sealed_in(row: &Table) -> Vec<String> {
    let mut found = Vec::new();
    references(&mut row.clone(), &mut |text| {
        if let Ok(SecretRef::Sealed(name)) = text.parse() {
            found.push(name);
        }
        None
    });
    found
}

/// Whether a row refers to a secret that is not sealed: one of the relay's machine.
pub(crate) fn has_references(row: &Table) -> bool {
    let mut found = false;
    references(&mut row.clone(), &mut |text| {
        found |= text.parse::<SecretRef>().is_ok_and(|secret| !matches!(secret, SecretRef::Sealed(_)));
        None
    });
    found
}

/// Makes references to files independent of where the config file is.
pub(crate) fn settle_paths(row: &mut Table, base: &Path) {
    references(row, &mut |text| absolute(text, base));
}

fn absolute(text: &str, base: &Path) -> Option<String> {
    let path = Path::new(text.strip_prefix("file:")?);
    if path.is_absolute() || path.starts_with("~") {
        return None;
    }
    let path = std::path::absolute(base.join(path)).ok()?;
    Some(format!("file:{}", path.display()))
}

/// Visits every text of a row that can be a reference to a secret, and changes those for which there is another.
fn references(row: &mut Table, other: &mut dyn FnMut(&str) -> Option<String>) {
    for key in ["verify", "secrets"] {
        if let Some(value) = row.get_mut(key) {
            texts(value, other);
        }
    }
}

fn texts(value: &mut Value, other: &mut dyn FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(changed) = other(text) {
                *text = changed;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| texts(value, other)),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| texts(value, other)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version = 1\n[[endpoint]]\nname = \"a\" # one\n\
        verify = { provider = \"github\", secrets = [\"file:s\", \"env:S\", \"file:/s\", \"file:~/s\"] }\n\
        [endpoint.retry]\nattempts = 3\n[[endpoint]]\nname = \"b\"\nverify = { provider = \"x\" }\nwait_for_agent = \"1s\"\n[[token]]\nname = \"t\"\nsecrets = [\"file:t\"]\n";

    #[test]
    fn rows_come_back_from_their_texts_and_say_where_their_files_are() {
        let rows = Rows::of(TEXT, Path::new("/etc/relay"));
        assert_eq!((name_of(&rows.endpoint[0]), name_of(&rows.token[0])), (Some("a"), Some("t")));
        let value = value_of(&rows.endpoint[0]).expect("TOML");
        assert!(value.contains("\"file:/etc/relay/s\", \"env:S\", \"file:/s\", \"file:~/s\""), "{value}");
        assert_eq!(row_of(&value).as_ref(), Some(&rows.endpoint[0]));
        assert!(rows.token[0]["secrets"].to_string().contains("file:/etc/relay/t"));
        assert_eq!(Rows::of(&rows.text().expect("TOML"), Path::new("/elsewhere")), rows);
        assert_eq!(Rows::of("endpoint = 3", Path::new("/")), Rows::default());
    }

    #[test]
    fn what_changed_is_named_to_the_last_table() {
        let row = |text: &str| toml::from_str::<Table>(text).expect("TOML");
        let one = row("name = \"a\"\nmode = \"live\"\nretry = { attempts = 3, first = \"1s\" }\n");
        let other = row("name = \"a\"\ndeadline = \"1s\"\nretry = { attempts = 4, first = \"1s\" }\n");
        assert_eq!(changed_keys(&one, &other), ["deadline", "mode", "retry.attempts"]);
        assert!(changed_keys(&one, &one).is_empty());
    }

    #[test]
    fn sealed_secrets_are_found_wherever_a_secret_can_stand() {
        let row = toml::from_str("verify = { secrets = [\"sealed:a/0\"], named_keys = { k = \"sealed:a/1\" } }\n");
        assert_eq!(sealed_in(&row.expect("TOML")), ["a/1", "a/0"]);
        let plain = toml::from_str("name = \"sealed:a/0\"\nverify = \"none\"\n").expect("TOML");
        assert!(sealed_in(&plain).is_empty());
    }
}
