//! A configuration as it runs, printed in its own format or as JSON: every default filled in, each value with where it
//! came from.
//!
//! Secrets appear as the references that were typed. The sources stand in comments, so that what is printed can be
//! typed again.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml_edit::{ArrayOfTables, Decor, DocumentMut, Item, RawString, Table, Value};

/// A step from a table into one that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Table(&'static str),
    /// One of a list of tables, by a number that no other row has.
    Row(&'static str, usize),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<Step>,
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) source: String,
}

/// All that runs. Kept as its text, since that is small.
#[derive(Clone, Debug, Default)]
pub struct Shown(String);

impl Shown {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let (mut document, mut rows) = (DocumentMut::new(), BTreeMap::new());
        for Entry { path, name, mut value, source } in entries {
            *value.decor_mut() = Decor::new(" ", format!("  # {source}"));
            let table = path.iter().try_fold(document.as_table_mut(), |table, step| descend(table, step, &mut rows));
            if let Some(table) = table {
                table.insert(&name, Item::Value(value));
            }
        }
        Self(document.to_string())
    }

    /// In the config's own format, with the sources as comments.
    pub fn to_toml(&self) -> &str {
        &self.0
    }

    pub fn to_json(&self) -> Json {
        toml::from_str(&self.0).unwrap_or_default()
    }

    /// One row of a list, as JSON.
    pub fn row(&self, list: &str, name: &str) -> Option<Json> {
        let document: DocumentMut = self.0.parse().ok()?;
        let rows = document.get(list)?.as_array_of_tables()?;
        let row = rows.iter().find(|row| row.get("name").and_then(Item::as_str) == Some(name))?;
        toml::from_str(&DocumentMut::from(row.clone()).to_string()).ok()
    }

    /// Where each value came from, by its key's path.
    pub fn sources(&self) -> BTreeMap<String, String> {
        let mut sources = BTreeMap::new();
        let document: DocumentMut = self.0.parse().unwrap_or_default();
        walk(document.as_table(), "", &mut sources);
        sources
    }
}

fn walk(table: &Table, path: &str, sources: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, item) in table {
        match item {
            Item::Value(value) => {
                let comment = value.decor().suffix().and_then(RawString::as_str).unwrap_or_default();
                sources.insert(below(name), comment.trim().trim_start_matches("# ").to_owned());
            }
            Item::Table(inner) => walk(inner, &below(name), sources),
            Item::ArrayOfTables(rows) => {
                for row in rows {
                    let own = ["name", "path"].iter().find_map(|key| row.get(key)?.as_str()).unwrap_or_default();
                    walk(row, &below(&format!("{name}.{own}")), sources);
                }
            }
            Item::None => {}
        }
    }
}

/// The table that a step leads to, made where it is not there. `rows` says at which place of its list each row is.
fn descend<'t>(table: &'t mut Table, step: &Step, rows: &mut BTreeMap<usize, usize>) -> Option<&'t mut Table> {
    match *step {
        Step::Table(name) => table.entry(name).or_insert_with(|| Item::Table(Table::new())).as_table_mut(),
        Step::Row(name, number) => {
            let list = table.entry(name).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
            let list = list.as_array_of_tables_mut()?;
            let at = *rows.entry(number).or_insert_with(|| {
                list.push(Table::new());
                list.len() - 1
            });
            list.get_mut(at)
        }
    }
}
