//! The server's config: from a file, flags and the environment to a [`Config`] that can run.
//!
//! Three steps, three types: `raw` takes what was typed, `check` makes checked values of it (`effective`), `resolve`
//! reads the secrets behind the references. Nothing here prints, watches files or keeps state; a reload is another
//! call of [`Source::load`]. Invariants: a [`Config`] has at least one endpoint and one token; nothing in an error or
//! a warning is a secret.

mod check;
mod cidr;
mod dev;
mod edit;
mod effective;
mod error;
mod flags;
mod raw;
mod resolve;
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
pub use self::cidr::{Cidr, CidrError};
pub use self::dev::dev_banner;
pub use self::edit::{EditError, add_token, remove_token};
use self::effective::Effective;
pub use self::effective::{Limits, Listen, Server, StoreSpec, TlsFiles};
use self::error::Report;
pub use self::error::{ConfigError, ConfigErrors, Warning};
pub use self::flags::{Dev, Flags};
use self::raw::Raw;
use self::secret_ref::Surroundings;
pub use self::secret_ref::{MAX_SECRET_BYTES, SecretRef, read_secret};
pub use self::show::{Shown, ShownToken};
pub use self::values::PublicUrl;
use crate::agents::token::Tokens;
use crate::endpoint::Endpoint;

/// Everything the relay needs to know to run.
#[derive(Debug)]
pub struct Config {
    /// The file it came from, if there was one.
    pub file: Option<PathBuf>,
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
    /// What works and is worth knowing.
    pub warnings: Vec<Warning>,
}

/// Where a config comes from. Kept, so that a reload reads the same places again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that was named; without one the usual places are searched.
    pub path: Option<PathBuf>,
    /// What stands above the file.
    pub flags: Flags,
}

impl Source {
    /// Reads and checks everything. All mistakes come back together, unless the file could not be read as TOML.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        self.load_with(&|name| std::env::var_os(name), false)
    }

    /// As [`Source::load`], for a relay that runs: where only a secret of an endpoint cannot be read, that is a warning
    /// and the endpoint [takes nothing](crate::verify::Rule::Closed), so that one lost file does not hold up the rest.
    pub fn reload(&self) -> Result<Config, ConfigErrors> {
        self.load_with(&|name| std::env::var_os(name), true)
    }

    /// What [`Source::load`] would run with, without reading any secret.
    pub fn show(&self) -> Result<Shown, ConfigErrors> {
        let input = self.read(&|name| std::env::var_os(name))?;
        let (effective, _) = input.check(&self.flags, |_, _| ())?;
        Ok(Shown::new(&effective.0))
    }

    /// How the command line reaches a running relay: its admin listener and its state directory.
    pub fn admin(&self) -> Result<(SocketAddr, Option<PathBuf>), ConfigErrors> {
        let input = self.read(&|name| std::env::var_os(name))?;
        let (effective, _) = input.check(&self.flags, |_, _| ())?;
        Ok((effective.0.server.admin, effective.0.server.state_dir))
    }

    /// The file that would be read; an error that names the places if there is none.
    pub fn find(&self) -> Result<PathBuf, ConfigErrors> {
        self.find_with(&|name| std::env::var_os(name))
    }

    fn load_with(&self, var: &dyn Fn(&str) -> Option<OsString>, runs: bool) -> Result<Config, ConfigErrors> {
        let input = self.read(var)?;
        let around = Surroundings { base: input.base(), var };
        let ((effective, (endpoints, tokens)), warnings) = input.check(&self.flags, |effective, report| {
            let resolved = resolve::resolve(effective, &around, report);
            if runs {
                report.excuse_absent();
            }
            resolved
        })?;
        let Effective { server, limits, store, tls, .. } = effective;
        Ok(Config { file: input.file, server, limits, store, tls, endpoints, tokens, warnings })
    }

    fn read(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<Input, ConfigErrors> {
        // systemd's StateDirectory=; of several, the first (systemd.exec(5)).
        let state = var("STATE_DIRECTORY").and_then(|paths| std::env::split_paths(&paths).next());
        if self.flags.dev.is_some() && self.path.is_none() {
            return Ok(Input { file: None, text: String::new(), state });
        }
        let file = self.find_with(var)?;
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        Ok(Input { file: Some(file), text, state })
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

/// A config file's text, before anything is made of it.
struct Input {
    file: Option<PathBuf>,
    text: String,
    /// The directory that the system gives for state.
    state: Option<PathBuf>,
}

impl Input {
    /// Where relative paths start.
    fn base(&self) -> &Path {
        self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// Both parses, and `more` on top if its findings are to be reported together with the others.
    fn check<T>(
        &self,
        flags: &Flags,
        more: impl FnOnce(&Effective, &mut Report<'_>) -> T,
    ) -> Result<((Effective, T), Vec<Warning>), ConfigErrors> {
        let raw = match &self.file {
            Some(file) => raw::parse(file, &self.text)?,
            None => Raw::default(),
        };
        let directories = Directories { base: self.base(), state: self.state.as_deref() };
        let mut report = Report::new(self.file.as_deref(), &self.text);
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
