//! The differences between the rows that run and those of a file that is applied.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    config::rows,
    store::{ConfigChange, ConfigKind, NamedRows, Source, Store, StoreError},
};

/// What changes of one kind, by name.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Diff {
    pub added: Vec<String>,
    /// Rows that say something else, and the keys that do.
    pub changed: BTreeMap<String, Vec<String>>,
    pub removed: Vec<String>,
    pub unchanged: usize,
}

/// What was, or would be, applied.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub endpoint: Diff,
    pub token: Diff,
    /// Keys beside them that differ from what the relay runs with. They are left alone.
    pub restart: Vec<String>,
    pub warnings: Vec<String>,
}

impl Applied {
    /// What changes, by name, for the audit log.
    pub(crate) fn described(&self) -> String {
        let mut words = Vec::new();
        for (kind, diff) in [("endpoint", &self.endpoint), ("token", &self.token)] {
            let changed: Vec<String> = diff.changed.keys().cloned().collect();
            words.extend(named(kind, "added", &diff.added));
            words.extend(named(kind, "changed", &changed));
            words.extend(named(kind, "removed", &diff.removed));
        }
        said(&words)
    }
}

/// What a change of the config changed, by name, for the audit log.
pub(super) fn described(changes: &[ConfigChange]) -> String {
    let mut words = Vec::new();
    for (kind, change) in ["endpoint", "token"].iter().zip(changes) {
        words.extend(named(kind, "added", &change.added));
        words.extend(named(kind, "changed", &change.changed));
        words.extend(named(kind, "removed", &change.removed));
    }
    said(&words)
}

fn named(kind: &str, what: &str, names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{kind} {what}: {}", names.join(", ")))
}

fn said(words: &[String]) -> String {
    if words.is_empty() { "no endpoint and no token changed".to_owned() } else { words.join("; ") }
}

/// Compares the rows of a file with those that the store has from one.
pub(super) async fn plan(store: &Arc<dyn Store>, sets: &[(ConfigKind, NamedRows)]) -> Result<(Diff, Diff), StoreError> {
    let mut diffs = (Diff::default(), Diff::default());
    for (kind, set) in sets {
        let there = store.config(*kind).await?;
        let there = there.into_iter().filter(|row| row.source == Source::File).map(|row| (row.name, row.value));
        let diff = compare(there.collect(), set);
        match kind {
            ConfigKind::Endpoint => diffs.0 = diff,
            ConfigKind::Token => diffs.1 = diff,
        }
    }
    Ok(diffs)
}

fn compare(mut there: BTreeMap<String, String>, set: &NamedRows) -> Diff {
    let mut diff = Diff::default();
    for (name, value) in set {
        match there.remove(name) {
            None => diff.added.push(name.clone()),
            Some(old) if old == *value => diff.unchanged += 1,
            Some(old) => {
                let (old, new) = (rows::row_of(&old).unwrap_or_default(), rows::row_of(value).unwrap_or_default());
                diff.changed.insert(name.clone(), rows::changed_keys(&old, &new));
            }
        }
    }
    diff.removed = there.into_keys().collect();
    diff
}
