//! Asks the user whether a config file of the current folder may decide where the token goes.
//!
//! [`require`] refuses what was not agreed to and asks nobody, so that a running agent that reads its file again never
//! waits for an answer. [`ask`] asks beforehand, where a person sits at a terminal. What an agreement is to, and where
//! it is kept, is in [`crate::config::agreement`].

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use relay_program::{Failure, terminal};
use relay_proto::printable::escaped;

use super::{args::ReachArgs, settings};
use crate::config::{
    agreement::{Agreement, Agreements},
    check::ConfigFile,
    find::{FILE_NAME, Found, Origin, Places},
};

/// Refuses a file that decides where a token goes without having been agreed to.
pub(super) fn require(args: &ReachArgs, file: &ConfigFile, places: &Places) -> Result<(), Failure> {
    let Some(agreement) = missing(args, file, places)? else { return Ok(()) };
    let path = shown(file);
    let named = format!("name it with --config {path}");
    let remedy = match places.agreements() {
        Some(_) => format!("if that is right, run relay-client config allow, or {named}"),
        None => format!("if that is right, {named}"),
    };
    let decides = described(&agreement, ", ", "");
    Err(Failure::Usage(format!(
        "{path} was only found in this folder, and says where the token goes ({decides}); {remedy}"
    )))
}

/// Asks for what [`require`] would refuse, if there is a terminal to ask at.
pub(super) fn ask(args: &ReachArgs, places: &Places) -> Result<(), Failure> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    let Some(file) = settings::read_file(args, places)? else { return Ok(()) };
    let Some((agreement, agreements)) = missing(args, &file, places)?.zip(places.agreements()) else { return Ok(()) };
    let decides = described(&agreement, "\n", "  ");
    let agreed = terminal::confirm(&format!(
        "{} was only found in this folder, and says where the token goes:\n{decides}\nUse it? [y/N] ",
        shown(&file)
    ));
    if agreed == Some(true) {
        keep(&file, agreement, agreements)?;
    }
    Ok(())
}

/// `config allow`: agrees to a file, and says to what.
pub(super) fn allow(named: Option<&Path>, places: &Places) -> Result<String, Failure> {
    let path = places.current.join(named.unwrap_or(Path::new(FILE_NAME)));
    if !path.is_file() {
        return Err(Failure::NotFound(format!("{}: no such file", path.display())));
    }
    let file = ConfigFile::read(&Found { path, origin: Origin::CurrentFolder }, places.home.as_deref())?;
    let agreement = of(&file)?;
    let path = file.path.display();
    if agreement.values().is_empty() {
        return Ok(format!("{path}: it names no relay and no token, so there is nothing to agree to\n"));
    }
    let text = format!("allowed {path}\n{}\n", described(&agreement, "\n", "  "));
    keep(&file, agreement, own(places)?)?;
    Ok(text)
}

/// `config deny`: takes an agreement back.
pub(super) fn deny(named: Option<&Path>, places: &Places) -> Result<String, Failure> {
    let path = places.current.join(named.unwrap_or(Path::new(FILE_NAME)));
    let was = Agreements::new(own(places)?).remove(&path).map_err(Failure::Failed)?;
    Ok(format!("{}: {}\n", path.display(), if was { "no longer allowed" } else { "it was not allowed" }))
}

/// Whether nothing has to be agreed to before the file's own relay and token count.
pub(super) fn is_agreed(file: &ConfigFile, places: &Places) -> Result<bool, Failure> {
    if file.origin == Origin::Chosen {
        return Ok(true);
    }
    let agreement = of(file)?;
    Ok(agreement.values().is_empty() || holds(&agreement, places)?)
}

/// What has yet to be agreed to: nothing, where the flags and the environment leave the file nothing to decide.
fn missing(args: &ReachArgs, file: &ConfigFile, places: &Places) -> Result<Option<Agreement>, Failure> {
    let decides = [
        args.relay.is_none() && file.relay.is_some(),
        args.relay_ca.is_none() && file.relay_ca.is_some(),
        args.client_cert.is_none() && file.client_cert.is_some(),
        args.client_key.is_none() && file.client_key.is_some(),
        args.proxy.is_none() && file.proxy.is_some(),
        args.token_file.is_none() && !places.has_token && file.token.is_some(),
    ];
    if file.origin == Origin::Chosen || !decides.contains(&true) {
        return Ok(None);
    }
    let agreement = of(file)?;
    Ok(if holds(&agreement, places)? { None } else { Some(agreement) })
}

fn of(file: &ConfigFile) -> Result<Agreement, Failure> {
    Agreement::of(file).map_err(|reason| Failure::Usage(format!("{}: {reason}", file.path.display())))
}

fn holds(agreement: &Agreement, places: &Places) -> Result<bool, Failure> {
    let kept = places.agreements().map(|path| Agreements::new(path).hold(agreement));
    Ok(kept.transpose().map_err(Failure::Usage)?.unwrap_or(false))
}

fn own(places: &Places) -> Result<std::path::PathBuf, Failure> {
    let missing = || Failure::Failed("this user has no config directory; set HOME, or XDG_CONFIG_HOME".to_owned());
    places.agreements().ok_or_else(missing)
}

fn keep(file: &ConfigFile, agreement: Agreement, agreements: std::path::PathBuf) -> Result<(), Failure> {
    use crate::config::TokenError;
    // A reference that leads out of the folder will not be followed; that should show now.
    if let Some(Err(error @ TokenError::Outside(_))) = file.token.as_ref().map(|token| token.read()) {
        return Err(Failure::Usage(format!("{}: token: {error}", file.path.display())));
    }
    Agreements::new(agreements).add(agreement).map_err(Failure::Failed)
}

/// The file's path, on one line whatever is in it: whoever made the folder chose its name.
fn shown(file: &ConfigFile) -> String {
    escaped(&file.path.display().to_string()).into_owned()
}

fn described(agreement: &Agreement, between: &str, before: &str) -> String {
    let lines = agreement.values().into_iter().map(|(key, value)| format!("{before}{key} = {value:?}"));
    lines.collect::<Vec<_>>().join(between)
}
