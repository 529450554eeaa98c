//! The server's config: from a file, flags and the environment to a [`Config`] that can run.
//!
//! Three steps, three types: `raw` takes what was typed, `check` makes checked values of it (`effective`), `resolve`
//! reads the secrets behind the references. Nothing here prints, watches files or keeps state; a reload is another
//! call of [`Source::load`]. Rows that live in the
//! store stand beside the file's (`layers`). Invariants: a [`Config`] has at least one token; nothing in an error or
//! a warning is a secret.

mod check;
mod cidr;
mod dev;
mod edit;
mod effective;
mod error;
mod flags;
mod layers;
mod pieces;
mod raw;
mod resolve;
pub(crate) mod rows;
mod search;
mod secret_ref;
mod show;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::check::Directories;
pub(crate) use self::dev::dev_banner;
pub(crate) use self::edit::{EditError, add_token, remove_token};
use self::effective::Effective;
pub(crate) use self::effective::{Limits, Listen, Server, StoreSpec, TlsFiles};
use self::error::Report;
pub(crate) use self::error::{ConfigError, ConfigErrors, Warning};
pub(crate) use self::flags::{Dev, Flags};
pub(crate) use self::layers::Layers;
use self::pieces::{Origin, Piece, Pieces};
use self::rows::Rows;
pub(crate) use self::secret_ref::{MAX_SECRET_BYTES, read_secret};
use self::secret_ref::{Surroundings, nothing_sealed};
pub(crate) use self::show::Shown;
pub(crate) use self::values::PublicUrl;
use crate::agents::token::Tokens;
use crate::endpoint::Endpoint;

/// Everything the relay needs to know to run.
#[derive(Debug)]
pub(crate) struct Config {
    /// Listeners and what belongs to the whole process.
    pub server: Server,
    /// Bounds that hold for the whole relay.
    pub limits: Limits,
    /// Where events are kept.
    pub store: StoreSpec,
    /// The certificate, if the relay ends TLS itself.
    pub tls: Option<TlsFiles>,
    /// The endpoints, in the order of the config.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Who may attach.
    pub tokens: Tokens,
    /// The same, for people.
    pub shown: Shown,
    /// What works and is worth knowing.
    pub warnings: Vec<Warning>,
}

/// Where a config comes from. Kept, so that a reload reads the same places again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// The file that was named; without one the usual places are searched.
    pub path: Option<PathBuf>,
    /// What stands above the file.
    pub flags: Flags,
}

impl Source {
    /// Reads and checks everything. All mistakes come back together, unless the file could not be read as TOML.
    pub(crate) fn load(&self) -> Result<Config, ConfigErrors> {
        self.load_with(&|name| std::env::var_os(name))
    }

    /// The texts of the config, not yet checked.
    pub(crate) fn read(&self) -> Result<Input, ConfigErrors> {
        self.read_with(&|name| std::env::var_os(name))
    }

    /// What runs with these texts and rows from elsewhere.
    pub(crate) fn assemble(&self, input: &Input, layers: &Layers<'_>) -> Result<Config, ConfigErrors> {
        let around = Surroundings { base: input.base(), var: &|name| std::env::var_os(name), sealed: layers.sealed };
        self.make(input, &layers.over(input)?, &around)
    }

    /// What [`Source::load`] would run with, without reading any secret.
    pub(crate) fn show(&self) -> Result<Shown, ConfigErrors> {
        self.read()?.show(&self.flags)
    }

    /// How the command line reaches a running relay: its admin listener and its state directory.
    pub(crate) fn admin(&self) -> Result<(SocketAddr, Option<PathBuf>), ConfigErrors> {
        let input = self.read()?;
        let (effective, _) = input.check(&input.pieces(), &self.flags, |_, _| ())?;
        Ok((effective.0.server.admin, effective.0.server.state_dir))
    }

    /// The file that would be read; an error that names the places if there is none.
    pub(crate) fn find(&self) -> Result<PathBuf, ConfigErrors> {
        self.find_with(&|name| std::env::var_os(name))
    }

    /// Whether the file that would be read only lies in the current folder: nobody named it, and it is neither the
    /// user's own nor the system's. Somebody else may have put it there.
    pub(crate) fn only_lies_here(&self) -> bool {
        let var = |name: &str| std::env::var_os(name);
        let Ok(file) = self.find_with(&var) else { return false };
        let real = fs::canonicalize(&file).ok();
        let known = search::candidates(&var).into_iter().filter(|path| path.is_absolute());
        let mut known = known.filter_map(|path| fs::canonicalize(path).ok());
        self.path.is_none() && !file.is_absolute() && !known.any(|path| Some(path) == real)
    }

    fn load_with(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, ConfigErrors> {
        let input = self.read_with(var)?;
        let around = Surroundings { base: input.base(), var, sealed: &nothing_sealed };
        self.make(&input, &input.pieces(), &around)
    }

    fn make(&self, input: &Input, pieces: &Pieces, around: &Surroundings<'_>) -> Result<Config, ConfigErrors> {
        let ((effective, (endpoints, tokens)), warnings) =
            input.check(pieces, &self.flags, |effective, report| resolve::resolve(effective, around, report))?;
        let shown = Shown::new(&effective);
        let Effective { server, limits, store, tls, .. } = effective;
        Ok(Config { server, limits, store, tls, endpoints, tokens, shown, warnings })
    }

    fn read_with(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<Input, ConfigErrors> {
        // systemd's StateDirectory=; of several, the first (systemd.exec(5)).
        let state = var("STATE_DIRECTORY").and_then(|paths| std::env::split_paths(&paths).next());
        if self.flags.dev.is_some() && self.path.is_none() {
            let piece = Piece::new(Origin::Sent, String::new());
            return Ok(Input { file: None, pieces: vec![piece], state });
        }
        let file = self.find_with(var)?;
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        Input::of_file(file, text, state)
    }

    fn find_with(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, ConfigErrors> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let candidates = search::candidates(var);
        if let Some(found) = candidates.iter().find(|path| path.exists()) {
            return Ok(found.clone());
        }
        let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Err(ConfigErrors::from(ConfigError {
            file: None,
            line: None,
            key: String::new(),
            message: format!("there is no config file; looked for {}", places.join(", ")),
            help: Some(
                "name one with --config, write one with `relay-server init`, or try `relay-server serve --dev`"
                    .to_owned(),
            ),
        }))
    }
}

/// A config's texts, before anything is made of them.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    file: Option<PathBuf>,
    /// The file's own first.
    pieces: Vec<Piece>,
    /// The directory that the system gives for state.
    state: Option<PathBuf>,
}

impl Input {
    fn of_file(file: PathBuf, text: String, state: Option<PathBuf>) -> Result<Self, ConfigErrors> {
        let included = pieces::included(&file, &text)?;
        let mut pieces = vec![Piece::new(Origin::File(file.clone()), text)];
        pieces.extend(included);
        Ok(Self { file: Some(file), pieces, state })
    }

    /// Where relative paths start.
    pub(crate) fn base(&self) -> &Path {
        self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    fn pieces(&self) -> Pieces {
        Pieces::new(self.pieces.iter().cloned())
    }

    /// What would run with them alone, without reading any secret.
    pub(crate) fn show(&self, flags: &Flags) -> Result<Shown, ConfigErrors> {
        let (effective, _) = self.check(&self.pieces(), flags, |_, _| ())?;
        Ok(Shown::new(&effective.0))
    }

    /// The endpoints and tokens that they say.
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        for piece in &self.pieces {
            rows.extend(Rows::of(&piece.text, self.base()));
        }
        rows
    }

    /// What they say beside endpoints and tokens.
    pub(crate) fn sections(&self) -> toml::Table {
        let mut sections: toml::Table =
            self.pieces.first().and_then(|main| toml::from_str(&main.text).ok()).unwrap_or_default();
        sections.retain(|key, _| !matches!(key, "endpoint" | "token" | "version" | "include"));
        let provider = |piece: &Piece| toml::from_str::<toml::Table>(&piece.text).ok()?.remove("provider");
        let more = self.pieces.iter().skip(1).filter_map(provider);
        let more: Vec<_> = more.filter_map(|rows| rows.as_array().cloned()).flatten().collect();
        if !more.is_empty() {
            let rows = sections.entry("provider").or_insert(toml::Value::Array(Vec::new()));
            rows.as_array_mut().into_iter().for_each(|rows| rows.extend(more.clone()));
        }
        sections
    }

    /// Both parses, and `more` on top if its findings are to be reported together with the others.
    fn check<T>(
        &self,
        pieces: &Pieces,
        flags: &Flags,
        more: impl FnOnce(&Effective, &mut Report<'_>) -> T,
    ) -> Result<((Effective, T), Vec<Warning>), ConfigErrors> {
        let raw = pieces.parse()?;
        let directories = Directories { base: self.base(), state: self.state.as_deref() };
        let mut report = Report::new(pieces);
        let effective = check::check(&raw, flags, directories, self.file.is_some(), &mut report);
        let more = more(&effective, &mut report);
        report.finish((effective, more))
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError {
        file: Some(file.to_owned()),
        line: None,
        key: String::new(),
        message: format!("cannot read it: {error}"),
        help: None,
    }
}
