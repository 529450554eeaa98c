//! One of the texts of which a configuration consists, and how it is parsed.

use std::path::{Path, PathBuf};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, with lines that can be looked up.
    File(PathBuf),
    /// What a program keeps itself, by the name that its mistakes are told with.
    Kept(&'static str),
    /// What somebody sent, or nothing at all.
    Sent,
}

#[derive(Clone, Debug)]
pub struct Text {
    pub origin: Origin,
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

    pub fn name(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            Origin::Kept(name) => Some(Path::new(name)),
            Origin::Sent => None,
        }
    }

    /// Whether somebody can look up a line of it.
    pub(super) fn has_lines(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }

    /// At which byte each of its lines ends.
    pub(super) fn line_ends(&self) -> Vec<usize> {
        self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
    }

    /// The line, counted from 1, on which the byte at `offset` stands, where anybody can look it up.
    fn line(&self, offset: usize) -> Option<usize> {
        self.has_lines().then(|| 1 + self.line_ends().partition_point(|end| *end < offset))
    }

    /// What it says. The first mistake of the syntax ends it: what follows could not be trusted to be a new one.
    pub fn parse(&self) -> Result<Spanned<DeTable<'_>>, Problem> {
        let described = |error: toml::de::Error| {
            let (readable, _) = DeTable::parse_recoverable(&self.text);
            Problem {
                file: self.name().map(Path::to_owned),
                line: error.span().and_then(|span| self.line(span.start)),
                key: error.span().and_then(|span| key_at(readable.get_ref(), span.start)).unwrap_or_default().join("."),
                message: error.message().trim_end().lines().collect::<Vec<_>>().join(", "),
                help: None,
            }
        };
        DeTable::parse(&self.text).map_err(described)
    }
}

/// The path of the key whose text, or whose value's text, covers the byte at `offset`, as far as the text can be read.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        // A table's own span is only its header.
        let below = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, offset),
            DeValue::Array(rows) => rows.iter().filter_map(|row| row.get_ref().as_table()).find_map(|row| {
                let name = row.get("name").and_then(|name| name.get_ref().as_str());
                Some(name.map(str::to_owned).into_iter().chain(key_at(row, offset)?).collect())
            }),
            _ => None,
        };
        let is_here = key.span().contains(&offset) || value.span().contains(&offset);
        let below = below.or_else(|| is_here.then(Vec::new))?;
        Some([vec![key.get_ref().to_string()], below].concat())
    })
}
