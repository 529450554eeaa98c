//! The texts of which a config consists: its file, the files that this includes, and rows that live in the store.
//!
//! Each is parsed by itself and stands at a place of its own in one long text, so that a mistake found later still
//! names its file and line. Invariants: only the first may say more than rows; an included file includes nothing.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use relay_program::pattern::fits;

use super::error::{ConfigError, ConfigErrors};
use super::raw::{self, Raw, RawRows};

/// Files that one config includes at most.
const MAX_INCLUDED: usize = 1000;

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    File(PathBuf),
    /// Endpoints and tokens that were made through the API.
    Api,
    /// What somebody sent, or nothing at all: there is no file to look into.
    Sent,
}

/// One of the texts.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) origin: Origin,
    pub(super) text: String,
    /// Whether a secret of its rows that cannot be read is an error; otherwise its endpoint takes nothing.
    pub(super) strict: bool,
    /// Whether its rows count; others then stand in their place.
    pub(super) rows: bool,
}

impl Piece {
    pub(super) fn new(origin: Origin, text: String) -> Self {
        Self { origin, text, strict: true, rows: true }
    }
}

/// All of them, end to end.
#[derive(Debug)]
pub(super) struct Pieces {
    all: Vec<(usize, Piece)>,
    end: usize,
}

impl Pieces {
    pub(super) fn new(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let mut this = Self { all: Vec::new(), end: 0 };
        for piece in pieces {
            let start = this.end;
            this.end += piece.text.len() + 1;
            this.all.push((start, piece));
        }
        this
    }

    /// All that they say. The first mistake of one ends it: what follows could not be trusted to be a new one.
    pub(super) fn parse(&self) -> Result<Raw, ConfigErrors> {
        let mut whole = Raw::default();
        for (number, (start, piece)) in self.all.iter().enumerate() {
            // Spaces in front change no meaning, and put every span where the piece stands.
            let text = " ".repeat(*start) + &piece.text;
            let file = self.file(number);
            let rows = if number == 0 {
                let mut main: Raw = raw::parse_as(file, &text)?;
                let rows = main.take_rows();
                whole = main;
                rows
            } else {
                raw::parse_as::<RawRows>(file, &text)?
            };
            whole.provider.extend(rows.provider);
            if piece.rows {
                whole.endpoint.extend(rows.endpoint);
                whole.token.extend(rows.token);
            }
        }
        Ok(whole)
    }

    /// Which piece a span stands in, and on which line of it, counted from 1.
    pub(super) fn find(&self, span: &Range<usize>) -> (usize, Option<usize>) {
        let number = self.all.partition_point(|(start, _)| *start <= span.start).saturating_sub(1);
        let Some((start, piece)) = self.all.get(number) else { return (0, None) };
        let line = super::error::line_of(&piece.text, span.start - start);
        (number, matches!(piece.origin, Origin::File(_)).then_some(line))
    }

    /// What an error calls the piece.
    pub(super) fn file(&self, number: usize) -> Option<&Path> {
        match &self.all.get(number)?.1.origin {
            Origin::File(path) => Some(path),
            Origin::Api => Some(Path::new("api")),
            Origin::Sent => None,
        }
    }

    pub(super) fn is_strict(&self, number: usize) -> bool {
        self.all.get(number).is_none_or(|(_, piece)| piece.strict)
    }

    pub(super) fn is_api(&self, number: usize) -> bool {
        self.all.get(number).is_some_and(|(_, piece)| piece.origin == Origin::Api)
    }
}

/// The files that a config's own text includes, in the order of their names.
pub(super) fn included(file: &Path, text: &str) -> Result<Vec<Piece>, ConfigErrors> {
    let main: Raw = raw::parse_as(Some(file), text)?;
    let mut pieces = Vec::new();
    for pattern in main.include.iter().flatten() {
        let wrong = |message: String, help: &str| ConfigError {
            file: Some(file.to_owned()),
            line: Some(super::error::line_of(text, pattern.span().start)),
            key: "include".to_owned(),
            message,
            help: Some(help.to_owned()).filter(|help| !help.is_empty()),
        };
        let found = matching(file, pattern.get_ref()).map_err(|(message, help)| wrong(message, help))?;
        for path in found {
            let text = fs::read_to_string(&path)
                .map_err(|error| wrong(format!("cannot read {}: {error}", path.display()), ""))?;
            pieces.push(Piece::new(Origin::File(path), text));
        }
        if pieces.len() > MAX_INCLUDED {
            return Err(wrong(format!("more than {MAX_INCLUDED} files are included"), "put rows together").into());
        }
    }
    Ok(pieces)
}

/// The files that a pattern names. Stars stand in the file's name alone.
fn matching(file: &Path, pattern: &str) -> Result<Vec<PathBuf>, (String, &'static str)> {
    let path = file.parent().unwrap_or(Path::new("")).join(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    if name.is_empty() || folder.to_string_lossy().contains('*') {
        return Err((format!("\"{pattern}\" names no files"), "write it like \"conf.d/*.toml\""));
    }
    if !name.contains('*') {
        return Ok(vec![path]);
    }
    let entries = match fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder }) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err((format!("cannot read {}: {error}", folder.display()), "")),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // As in a shell, a star is no hidden file: editors leave theirs behind.
    let mut names: Vec<_> = names.filter(|own| fits(&name, own) && !own.starts_with('.')).collect();
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
