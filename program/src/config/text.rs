//! One of the texts of which a configuration consists, and how it is parsed.

use std::path::{Path, PathBuf};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, with lines that can be looked up.
    File(PathBuf),
    /// What a program keeps itself, by the name that its mistakes are told with.
    Kept(&'static str),
    /// What somebody sent, or nothing at all.
    Sent,
}

/// One text.
#[derive(Clone, Debug)]
pub struct Text {
    /// Where it comes from.
    pub origin: Origin,
    /// TOML.
    pub text: String,
    /// Whether something that it refers to and that is not there is an error.
    pub strict: bool,
    /// Whether its rows count; others then stand in their place.
    pub rows: bool,
}

impl Text {
    /// A text that counts as a whole.
    pub fn new(origin: Origin, text: String) -> Self {
        Self { origin, text, strict: true, rows: true }
    }

    /// What a mistake calls it.
    pub fn name(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            Origin::Kept(name) => Some(Path::new(name)),
            Origin::Sent => None,
        }
    }

    /// The line, counted from 1, on which the byte at `offset` stands, where anybody can look it up.
    pub(super) fn line(&self, offset: usize) -> Option<usize> {
        let before = self.text.bytes().take(offset);
        matches!(self.origin, Origin::File(_)).then(|| 1 + before.filter(|byte| *byte == b'\n').count())
    }

    /// What it says. The first mistake of the syntax ends it: what follows could not be trusted to be a new one.
    pub fn parse(&self) -> Result<Spanned<DeTable<'_>>, Problem> {
        DeTable::parse(&self.text).map_err(|error| Problem {
            file: self.name().map(Path::to_owned),
            line: error.span().and_then(|span| self.line(span.start)),
            key: error.span().map(|span| key_at(&self.text, span.start)).unwrap_or_default(),
            message: error.message().trim_end().lines().collect::<Vec<_>>().join(", "),
            help: None,
        })
    }
}

/// The path of the key whose text, or whose value's text, covers the byte at `offset`, as far as the text can be read.
fn key_at(text: &str, offset: usize) -> String {
    let (root, _) = DeTable::parse_recoverable(text);
    let (mut table, mut path) = (root.get_ref(), Vec::new());
    'down: loop {
        for (key, value) in table {
            let inside = match value.get_ref() {
                DeValue::Table(inner) => covers(inner, offset).then_some(inner),
                DeValue::Array(items) => {
                    items.iter().filter_map(|item| item.get_ref().as_table()).find(|inner| covers(inner, offset))
                }
                _ => None,
            };
            if inside.is_some() || key.span().contains(&offset) || value.span().contains(&offset) {
                path.push(key.get_ref().to_string());
            } else {
                continue;
            }
            let Some(inner) = inside else { break 'down };
            path.extend(
                inner
                    .get("name")
                    .filter(|_| value.get_ref().is_array())
                    .and_then(|name| name.get_ref().as_str())
                    .map(str::to_owned),
            );
            table = inner;
            continue 'down;
        }
        break;
    }
    path.join(".")
}

/// Whether something in this table stands at `offset`. The table's own span is only its header.
fn covers(table: &DeTable<'_>, offset: usize) -> bool {
    table.iter().any(|(key, value)| {
        key.span().contains(&offset)
            || value.span().contains(&offset)
            || match value.get_ref() {
                DeValue::Table(inner) => covers(inner, offset),
                DeValue::Array(items) => {
                    items.iter().filter_map(|item| item.get_ref().as_table()).any(|inner| covers(inner, offset))
                }
                _ => false,
            }
    })
}
