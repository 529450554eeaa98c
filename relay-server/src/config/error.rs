//! What is wrong with a config, and what is merely worth knowing, in one form: place, key, message, way out.
//!
//! Nothing here decides what is wrong, prints, or ends the process. Invariant: no text in here is a secret's value;
//! a reference such as `env:X` is the most that is ever shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::pieces::Pieces;

/// One thing that keeps a config from being used.
///
/// Shown as `relay.toml:12: endpoint.github.verify: no secret is configured; set secrets = ["env:…"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The file, where the value came from one.
    pub file: Option<PathBuf>,
    /// The line in that file, counted from 1.
    pub line: Option<usize>,
    /// The key's path (`endpoint.github.verify`), or the flag (`--listen`).
    pub key: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, _) => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a config, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// The checks themselves did not end.
    pub(crate) fn internal() -> Self {
        let message = "the config could not be checked".to_owned();
        ConfigError { file: None, line: None, key: String::new(), message, help: None }.into()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something that works and that the operator should know of. Said in the same form as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning(pub ConfigError);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a value came from, as far as a person needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of its text; `None` for a flag.
    piece: Option<usize>,
    line: Option<usize>,
    key: String,
}

impl Place {
    /// A flag, or the environment variable that stands for it.
    pub(super) fn flag(name: &str) -> Self {
        Self { piece: None, line: None, key: name.to_owned() }
    }

    /// The same place, with a narrower key: `endpoint.github` becomes `endpoint.github.verify`.
    pub(super) fn member(&self, name: &str) -> Self {
        if self.piece.is_none() {
            return self.clone();
        }
        Self { key: format!("{}.{name}", self.key), ..self.clone() }
    }

    /// The key's path, or the flag.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// Collects errors and warnings while a config is checked, and knows which line a byte stands on.
pub(super) struct Report<'a> {
    pieces: &'a Pieces,
    /// Each with the number of its text.
    errors: Vec<(usize, ConfigError)>,
    /// Secrets that could not be read and have to be there.
    absent: Vec<(usize, ConfigError)>,
    /// Secrets that could not be read, where an endpoint does without.
    excused: usize,
    warnings: Vec<Warning>,
}

impl<'a> Report<'a> {
    pub(super) fn new(pieces: &'a Pieces) -> Self {
        Self { pieces, errors: Vec::new(), absent: Vec::new(), excused: 0, warnings: Vec::new() }
    }

    /// A key in a text, with the bytes it stands at if it is there at all.
    pub(super) fn place(&self, key: impl Into<String>, span: Option<Range<usize>>) -> Place {
        let (piece, line) = span.map_or((0, None), |span| self.pieces.find(&span));
        Place { piece: Some(piece), line, key: key.into() }
    }

    /// ` (line 12)` where there is a line, for pointing at a second place from `here`.
    pub(super) fn where_to_look(&self, place: &Place, here: &Place) -> String {
        let file = place.piece.filter(|_| place.piece != here.piece);
        match (file.and_then(|piece| self.pieces.file(piece)), place.line) {
            _ if self.is_api(place) => " (made through the API)".to_owned(),
            (Some(file), Some(line)) => format!(" ({}:{line})", file.display()),
            (None, Some(line)) => format!(" (line {line})"),
            (_, None) => String::new(),
        }
    }

    /// Whether it is part of what was made through the API.
    pub(super) fn is_api(&self, place: &Place) -> bool {
        place.piece.is_some_and(|piece| self.pieces.is_api(piece))
    }

    /// How many errors there are so far.
    pub(super) fn errors(&self) -> usize {
        self.errors.len()
    }

    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let error = self.describe(place, message.into(), help.into());
        self.errors.push((place.piece.unwrap_or(0), error));
    }

    /// How many secrets could not be read so far.
    pub(super) fn absences(&self) -> usize {
        self.absent.len() + self.excused
    }

    /// Notes a secret of an endpoint that cannot be read: an error where its text is strict. Elsewhere it is a warning,
    /// and the endpoint must be one that takes nothing.
    pub(super) fn absent(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let error = self.describe(place, message.into(), help.into());
        if self.pieces.is_strict(place.piece.unwrap_or(0)) {
            self.absent.push((place.piece.unwrap_or(0), error));
        } else {
            self.excused += 1;
            self.warnings.push(Warning(error));
        }
    }

    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let warning = Warning(self.describe(place, message.into(), help.into()));
        self.warnings.push(warning);
    }

    /// `value` and the warnings, or the errors if there are any.
    pub(super) fn finish<T>(self, value: T) -> Result<(T, Vec<Warning>), ConfigErrors> {
        let mut errors = self.errors;
        errors.extend(self.absent);
        if errors.is_empty() {
            return Ok((value, self.warnings));
        }
        errors.sort_by_key(|(piece, error)| (*piece, error.line.unwrap_or(usize::MAX)));
        Err(ConfigErrors(errors.into_iter().map(|(_, error)| error).collect()))
    }

    fn describe(&self, place: &Place, message: String, help: String) -> ConfigError {
        ConfigError {
            file: place.piece.and_then(|piece| self.pieces.file(piece)).map(Path::to_owned),
            line: place.line,
            key: place.key.clone(),
            message,
            help: Some(help).filter(|help| !help.is_empty()),
        }
    }
}

/// The line, counted from 1, on which the byte at `offset` stands.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(file: Option<&str>, line: Option<usize>, key: &str, help: Option<&str>) -> String {
        ConfigError {
            file: file.map(PathBuf::from),
            line,
            key: key.into(),
            message: "not good".into(),
            help: help.map(str::to_owned),
        }
        .to_string()
    }

    #[test]
    fn an_error_says_where_what_and_how_to_mend_it() {
        assert_eq!(
            error(Some("relay.toml"), Some(3), "server.listen", Some("do this")),
            "relay.toml:3: server.listen: not good; do this"
        );
        assert_eq!(error(Some("relay.toml"), None, "token", None), "relay.toml: token: not good");
        assert_eq!(error(None, None, "--listen", None), "--listen: not good");
        assert_eq!(error(Some("relay.toml"), None, "", None), "relay.toml: not good");
    }

    #[test]
    fn lines_are_counted_from_one() {
        let text = "a\nb\n\nc";
        assert_eq!([0, 1, 2, 4, 5].map(|offset| line_of(text, offset)), [1, 1, 2, 3, 4]);
    }
}
