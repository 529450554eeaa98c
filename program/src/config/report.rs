//! What is wrong with a configuration, what is merely worth knowing, and what will run, while it is read.
//!
//! Nothing here decides what is wrong, prints, or ends a process.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{Origin, Shown, Text, shown::Entry};

/// Problems shown at most; a text with more gets the rest after these are mended.
const MAX_SHOWN: usize = 20;

/// One thing that keeps a configuration from being used, or that works and that its owner should know of.
///
/// Shown as `relay.toml:12: endpoint.github.verify: no secret is configured; set secrets = ["env:…"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    pub file: Option<PathBuf>,
    pub line: Option<usize>,
    /// The key's path (`endpoint.github.verify`), or the flag (`--listen`).
    pub key: String,
    pub message: String,
    pub help: Option<String>,
}

impl Problem {
    /// One that no key and no file is to blame for.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

impl fmt::Display for Problem {
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
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// Everything that is wrong with a configuration, in the order of its texts. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(MAX_SHOWN).enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of its text; `None` for a flag.
    pub(super) text: Option<usize>,
    pub(super) line: Option<usize>,
    pub(super) key: String,
}

impl Place {
    /// A flag, or the environment variable that stands for it.
    pub fn flag(name: &str) -> Self {
        Self { text: None, line: None, key: name.to_owned() }
    }

    /// The same place, with a narrower key: `endpoint.github` becomes `endpoint.github.verify`.
    pub fn member(&self, name: &str) -> Self {
        match self.text {
            None => self.clone(),
            Some(_) => Self { key: format!("{}.{name}", self.key), ..self.clone() },
        }
    }
}

/// Collects errors, warnings and what will run while texts are read, and knows which line a byte stands on.
#[derive(Debug)]
pub struct Report<'t> {
    pub(super) texts: &'t [Text],
    /// Where the lines of each text end, so that a place costs no look at all that stands before it.
    line_ends: Vec<Vec<usize>>,
    /// Each with the number of its text.
    errors: RefCell<Vec<(usize, Problem)>>,
    absent: RefCell<Vec<(usize, Problem)>>,
    /// How much is not there where its text does without.
    excused: Cell<usize>,
    warnings: RefCell<Vec<Problem>>,
    pub(super) entries: RefCell<Vec<Entry>>,
    pub(super) rows: Cell<usize>,
}

impl<'t> Report<'t> {
    pub fn new(texts: &'t [Text]) -> Self {
        Self {
            texts,
            line_ends: texts.iter().map(Text::line_ends).collect(),
            errors: RefCell::default(),
            absent: RefCell::default(),
            excused: Cell::new(0),
            warnings: RefCell::default(),
            entries: RefCell::default(),
            rows: Cell::new(0),
        }
    }

    pub(super) fn place(&self, text: usize, key: impl Into<String>, span: Option<Range<usize>>) -> Place {
        let line = span.and_then(|span| self.line(text, span.start));
        Place { text: Some(text), line, key: key.into() }
    }

    /// The line, counted from 1, on which the byte at `offset` stands, where anybody can look it up.
    fn line(&self, text: usize, offset: usize) -> Option<usize> {
        let ends = self.line_ends.get(text).filter(|_| self.texts[text].has_lines())?;
        Some(1 + ends.partition_point(|end| *end < offset))
    }

    pub fn missing(&self, key: &str) -> Place {
        self.place(0, key, None)
    }

    /// ` (line 12)` where there is a line, for pointing at a second place from `here`.
    pub fn where_to_look(&self, place: &Place, here: &Place) -> String {
        if self.is_kept(place) {
            return " (made through the API)".to_owned();
        }
        let file = place.text.filter(|_| place.text != here.text).and_then(|text| self.texts.get(text)?.name());
        match (file, place.line) {
            (Some(file), Some(line)) => format!(" ({}:{line})", file.display()),
            (None, Some(line)) => format!(" (line {line})"),
            (_, None) => String::new(),
        }
    }

    pub fn is_kept(&self, place: &Place) -> bool {
        let text = place.text.and_then(|text| self.texts.get(text));
        text.is_some_and(|text| matches!(text.origin, Origin::Kept(_)))
    }

    pub fn errors(&self) -> usize {
        self.errors.borrow().len()
    }

    pub fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let error = self.describe(place, message.into(), help.into());
        self.errors.borrow_mut().push((place.text.unwrap_or(0), error));
    }

    /// How much could not be found so far.
    pub fn absences(&self) -> usize {
        self.absent.borrow().len() + self.excused.get()
    }

    /// Notes something that a value refers to and that is not there: an error where its text is strict, a warning
    /// elsewhere.
    pub fn absent(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.describe(place, message.into(), help.into());
        let text = place.text.unwrap_or(0);
        if self.texts.get(text).is_none_or(|text| text.strict) {
            self.absent.borrow_mut().push((text, problem));
        } else {
            self.excused.set(self.excused.get() + 1);
            self.warnings.borrow_mut().push(problem);
        }
    }

    pub fn warn(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let warning = self.describe(place, message.into(), help.into());
        self.warnings.borrow_mut().push(warning);
    }

    /// What will run, for people, and the warnings; or the errors if there are any.
    pub fn finish(self) -> Result<(Shown, Vec<Problem>), Problems> {
        let mut errors = self.errors.into_inner();
        errors.extend(self.absent.into_inner());
        if errors.is_empty() {
            return Ok((Shown::new(self.entries.into_inner()), self.warnings.into_inner()));
        }
        errors.sort_by_key(|(text, error)| (*text, error.line.unwrap_or(usize::MAX)));
        // A key that is read twice has one mistake.
        errors.dedup();
        Err(Problems(errors.into_iter().map(|(_, error)| error).collect()))
    }

    /// A value's source as `config show` names it.
    pub(super) fn source(&self, place: &Place) -> String {
        let text = place.text.and_then(|text| self.texts.get(text));
        match (text.and_then(Text::name), place.line) {
            (Some(file), Some(line)) => {
                let name = file.file_name().map_or(file.to_string_lossy(), |name| name.to_string_lossy());
                format!("{name}:{line}")
            }
            (Some(file), None) => file.display().to_string(),
            (None, _) if place.text.is_none() => place.key.clone(),
            (None, _) => "sent".to_owned(),
        }
    }

    fn describe(&self, place: &Place, message: String, help: String) -> Problem {
        let file = place.text.and_then(|text| self.texts.get(text)?.name()).map(Path::to_owned);
        let help = Some(help).filter(|help| !help.is_empty());
        Problem { file, line: place.line, key: place.key.clone(), message, help }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_what_and_how_to_mend_it() {
        let shown = |file: Option<&str>, line, key: &str, help: Option<&str>| {
            let (file, help) = (file.map(PathBuf::from), help.map(str::to_owned));
            Problem { file, line, key: key.into(), message: "not good".into(), help }.to_string()
        };
        assert_eq!(
            shown(Some("relay.toml"), Some(3), "server.listen", Some("do this")),
            "relay.toml:3: server.listen: not good; do this"
        );
        assert_eq!(shown(Some("relay.toml"), None, "token", None), "relay.toml: token: not good");
        assert_eq!(shown(None, None, "--listen", None), "--listen: not good");
        assert_eq!(shown(Some("relay.toml"), None, "", None), "relay.toml: not good");
        let many = Problems(vec![Problem::new("x"); MAX_SHOWN + 2]).to_string();
        assert!(many.ends_with("x\nand 2 more"), "{many}");
    }
}
