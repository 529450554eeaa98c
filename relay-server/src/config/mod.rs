//! The server's config: from a file, flags and the environment to a [`Config`] that can run.
//!
//! Two layers: texts and flags as they were typed, and what runs. `check` makes the one of the other; nothing stands
//! between them. Nothing here prints, watches files or keeps state; a reload is another call of [`ConfigSource::read`]. Rows
//! that live in the store stand beside the file's ([`Layers`]). Invariant: nothing in an error
//! or a warning is a secret.

mod check;
mod cidr;
mod dev;
mod edit;
mod flags;
mod included;
mod keys;
mod places;
pub(crate) mod rows;
mod search;
mod secrets;
mod settings;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_program::config::{Origin, Problem, Problems, Shown, Text};
use serde_json::Value as Json;

use self::check::Context;
pub(crate) use self::check::email as check_email;
pub(crate) use self::dev::dev_banner;
pub(crate) use self::edit::{EditError, add_token, remove_token};
pub(crate) use self::flags::{Dev, Flags};
pub(crate) use self::places::{Confinement, PathRights, Places};
use self::rows::Rows;
pub(crate) use self::secrets::{MAX_SECRET_BYTES, read_secret};
use self::secrets::{Surroundings, Unseal, nothing_sealed};
pub(crate) use self::settings::{
    AcmeChallenge, AcmeSettings, Listen, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_STORE_BYTES, Observation,
    ProcessLimits, ProxyProtocol, PublicListener, Server, StoreSpec, Timeouts, TlsSettings,
};
pub(crate) use self::values::PublicUrl;
use crate::agents::token::Tokens;
use crate::audit::AuditKeep;
use crate::endpoint::Endpoint;

/// Where a value comes from that an endpoint has from its provider's row.
pub(crate) const FROM_ROW: &str = "from the provider's row";

#[derive(Debug)]
pub(crate) struct Config {
    /// Listeners and what belongs to the whole process.
    pub server: Server,
    pub limits: ProcessLimits,
    pub store: StoreSpec,
    pub audit: AuditKeep,
    /// There if the relay ends TLS itself.
    pub tls: Option<TlsSettings>,
    /// Traces, the access log, alerts and canaries.
    pub observation: Observation,
    pub endpoints: Vec<Arc<Endpoint>>,
    pub tokens: Tokens,
    pub shown: Shown,
    pub warnings: Vec<Problem>,
}

/// The state directory of a relay whose config lies in /etc, where it may write nothing (FHS 3.0, section 5.8).
const SYSTEM_STATE: &str = "/var/lib/relay";

/// Where a config comes from. Kept, so that a reload reads the same places again.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigSource {
    /// The file that was named; without one the usual places are searched.
    pub path: Option<PathBuf>,
    pub flags: Flags,
    /// What the process is confined to, where it is: what names anything else cannot be read, and is not taken.
    pub confined: Option<Arc<Confinement>>,
}

impl ConfigSource {
    /// The file that was named, or the usual places, without any flag above it.
    pub(crate) fn at(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// Reads and checks everything. All mistakes come back together, unless the file could not be read as TOML.
    pub(crate) fn load(&self) -> Result<Config, Problems> {
        self.load_with(&|name| std::env::var_os(name))
    }

    /// The texts of the config, not yet checked.
    pub(crate) fn read(&self) -> Result<ConfigTexts, Problems> {
        self.read_with(&|name| std::env::var_os(name))
    }

    /// What runs with these texts and rows from elsewhere.
    pub(crate) fn assemble(&self, input: &ConfigTexts, layers: &Layers<'_>) -> Result<Config, Problems> {
        let var = |name: &str| std::env::var_os(name);
        let around = Surroundings { base: input.base(), var: &var, sealed: layers.sealed };
        if let Some(confined) = &self.confined {
            // What the API made is in the store, which is opened once the process is confined. It was looked at when it
            // was made.
            let typed = Layers { api: &Rows::default(), ..*layers };
            let typed = ConfigTexts { texts: typed.over(input)?, ..input.clone() };
            confined.admit(&Places::of(&typed.check(&self.flags, None)?, &typed, &var))?;
        }
        ConfigTexts { texts: layers.over(input)?, ..input.clone() }.check(&self.flags, Some(&around))
    }

    /// What a config of this source names on the disk and in the network.
    pub(crate) fn places(&self, config: &Config) -> Result<Places, Problems> {
        Ok(Places::of(config, &self.read()?, &|name| std::env::var_os(name)))
    }

    /// What [`ConfigSource::load`] would run with, without reading any secret.
    pub(crate) fn without_secrets(&self) -> Result<Config, Problems> {
        self.read()?.check(&self.flags, None)
    }

    pub(crate) fn show(&self) -> Result<Shown, Problems> {
        self.read()?.show(&self.flags)
    }

    /// How the command line reaches a running relay: its admin listener and its state directory.
    pub(crate) fn admin(&self) -> Result<(SocketAddr, Option<PathBuf>), Problems> {
        let server = self.without_secrets()?.server;
        Ok((server.admin, server.state_dir))
    }

    /// The file that would be read; an error that names the places if there is none.
    pub(crate) fn find(&self) -> Result<PathBuf, Problems> {
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

    fn load_with(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, Problems> {
        let input = self.read_with(var)?;
        let around = Surroundings { base: input.base(), var, sealed: &nothing_sealed };
        input.check(&self.flags, Some(&around))
    }

    fn read_with(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<ConfigTexts, Problems> {
        // systemd's StateDirectory=; of several, the first (systemd.exec(5)).
        let state = var("STATE_DIRECTORY").and_then(|paths| std::env::split_paths(&paths).next());
        if self.flags.dev.is_some() && self.path.is_none() {
            return Ok(ConfigTexts { file: None, texts: vec![Text::new(Origin::Sent, String::new())], state });
        }
        let file = self.find_with(var)?;
        let admit = |places: Places| self.confined.as_ref().map_or(Ok(()), |confined| confined.admit(&places));
        admit(Places::of_file(&file))?;
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        admit(Places::of_included(&file, &text))?;
        // Commands that ask the service have no variable from it, and find its token all the same.
        let state = state.or_else(|| file.starts_with("/etc").then(|| PathBuf::from(SYSTEM_STATE)));
        ConfigTexts::of_file(file, text, state)
    }

    fn find_with(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, Problems> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let candidates = search::candidates(var);
        if let Some(found) = candidates.iter().find(|path| path.exists()) {
            return Ok(found.clone());
        }
        let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        let help = "name one with --config, write one with `relay-server init`, or try `relay-server serve --dev`";
        let none = Problem::new(format!("there is no config file; looked for {}", places.join(", ")));
        Err(Problem { help: Some(help.to_owned()), ..none }.into())
    }
}

/// A config's texts, before anything is made of them.
#[derive(Clone, Debug)]
pub(crate) struct ConfigTexts {
    file: Option<PathBuf>,
    /// The file's own first.
    texts: Vec<Text>,
    /// The directory that the system gives for state.
    state: Option<PathBuf>,
}

impl ConfigTexts {
    fn of_file(file: PathBuf, text: String, state: Option<PathBuf>) -> Result<Self, Problems> {
        let mut texts = vec![Text::new(Origin::File(file.clone()), text)];
        let included = included::included(&file, &texts)?;
        texts.extend(included);
        Ok(Self { file: Some(file), texts, state })
    }

    /// Where relative paths start.
    pub(crate) fn base(&self) -> &Path {
        self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// What would run with them alone, without reading any secret.
    pub(crate) fn show(&self, flags: &Flags) -> Result<Shown, Problems> {
        Ok(self.check(flags, None)?.shown)
    }

    /// What would run with them; without `around` no secret is read.
    fn check(&self, flags: &Flags, around: Option<&Surroundings<'_>>) -> Result<Config, Problems> {
        let (base, state) = (self.base(), self.state.as_deref());
        check::check(&self.texts, Context { flags, base, state, has_file: self.file.is_some(), around })
    }

    /// The endpoints and tokens that they say.
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        for text in &self.texts {
            rows.extend(Rows::of(&text.text, self.base()));
        }
        rows
    }

    /// What they say beside endpoints and tokens.
    pub(crate) fn sections(&self) -> toml::Table {
        let mut sections: toml::Table =
            self.texts.first().and_then(|main| toml::from_str(&main.text).ok()).unwrap_or_default();
        sections.retain(|key, _| !matches!(key, "endpoint" | "token" | "version" | "include"));
        let provider = |text: &Text| toml::from_str::<toml::Table>(&text.text).ok()?.remove("provider");
        let more = self.texts.iter().skip(1).filter_map(provider);
        let more: Vec<_> = more.filter_map(|rows| rows.as_array().cloned()).flatten().collect();
        if !more.is_empty() {
            let rows = sections.entry("provider").or_insert(toml::Value::Array(Vec::new()));
            rows.as_array_mut().into_iter().for_each(|rows| rows.extend(more.clone()));
        }
        sections
    }
}

/// Rows from elsewhere, and what they may be without.
pub(crate) struct Layers<'a> {
    /// Rows that stand in place of those of the file.
    pub applied: Option<&'a Rows>,
    /// Whether the secrets of those, or of the file's own, have to be there.
    pub strict: bool,
    /// Rows that were made through the API.
    pub api: &'a Rows,
    /// Rows that are to be made so now. Their secrets have to be there.
    pub new: &'a Rows,
    pub sealed: &'a Unseal<'a>,
}

impl Layers<'_> {
    fn over(&self, input: &ConfigTexts) -> Result<Vec<Text>, Problems> {
        let mut texts = input.texts.clone();
        for text in &mut texts {
            (text.strict, text.rows) = (self.strict, self.applied.is_none());
        }
        let api = Origin::Kept("api");
        let applied = self.applied.map(|rows| (Origin::Sent, rows, self.strict));
        let more = applied.into_iter().chain([(api.clone(), self.api, false), (api, self.new, true)]);
        for (origin, rows, strict) in more.filter(|(_, rows, _)| **rows != Rows::default()) {
            texts.push(Text { strict, ..Text::new(origin, rows.text()?) });
        }
        Ok(texts)
    }
}

/// Whatever this text is as a config: it is refused with words, or what runs by it is shown as a text that says the same.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(text: &str) {
    let check = |text: &str| {
        let file = PathBuf::from("/etc/relay/relay.toml");
        let text = Text::new(Origin::File(file.clone()), text.to_owned());
        let texts = ConfigTexts { file: Some(file), texts: vec![text], state: None };
        let shown = texts.show(&Flags::default());
        shown.map(|shown| shown.to_json())
    };
    match check(text) {
        Err(problems) => {
            assert!(problems.0.iter().all(|problem| !problem.message.is_empty()) && !problems.0.is_empty());
        }
        Ok(first) => {
            let table: toml::Table = serde_json::from_value(first.clone()).expect("what is shown is a table");
            let shown = toml::to_string(&table).expect("what is shown can be written");
            // Rows of providers are not shown, and of some addresses a part is not.
            if !text.contains("provider") && !shown.contains('\u{2026}') && !shown.contains("***") {
                let second = check(&shown).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
                assert_eq!(first, second, "{text:?}");
            }
        }
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Problem {
    Problem { file: Some(file.to_owned()), ..Problem::new(format!("cannot read it: {error}")) }
}

/// What runs, with where each value came from.
pub(crate) fn shown_json(shown: &Shown) -> Json {
    let (mut all, sources) = (shown.to_json(), shown.sources());
    for endpoint in all["endpoint"].as_array_mut().into_iter().flatten() {
        let name = endpoint["name"].as_str().unwrap_or_default();
        endpoint["from_provider"] = from_row(&sources, name);
    }
    all["sources"] = serde_json::to_value(sources).unwrap_or_default();
    all
}

/// One endpoint of it.
pub(crate) fn shown_endpoint(shown: &Shown, name: &str) -> Option<Json> {
    let mut endpoint = shown.row("endpoint", name)?;
    endpoint["from_provider"] = from_row(&shown.sources(), name);
    Some(endpoint)
}

/// The keys that an endpoint has from its provider's row.
fn from_row(sources: &BTreeMap<String, String>, endpoint: &str) -> Json {
    let path = format!("endpoint.{endpoint}.");
    let below = sources.range(path.clone()..).map_while(|(key, source)| Some((key.strip_prefix(&path)?, source)));
    below.filter(|(_, source)| *source == FROM_ROW).map(|(key, _)| key).collect()
}
