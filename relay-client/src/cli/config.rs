//! `config check`, `config show`, `config path`, and `config allow` and `config deny`: nothing is connected to.

use relay_program::{
    Failure,
    config::{Problem, Problems},
};
use serde_json::json;

use super::{
    args::{ConfigArgs, ConfigCommand},
    consent,
};
use crate::{
    config::{
        check::ConfigFile,
        find::{Found, Places},
    },
    handler::Handler,
    tls::{self, Identity, Trust},
};

pub(super) fn run(command: &ConfigCommand, places: &Places) -> Result<String, Failure> {
    match command {
        ConfigCommand::Path(args) => {
            let path = find(args, places)?.path.display().to_string();
            Ok(if args.json { format!("{}\n", json!({ "path": path })) } else { format!("{path}\n") })
        }
        ConfigCommand::Show(args) => {
            let shown = read(args, places)?.shown;
            if !args.json {
                return Ok(shown.to_toml().to_owned());
            }
            let mut all = shown.to_json();
            all["sources"] = json!(shown.sources());
            Ok(format!("{all}\n"))
        }
        ConfigCommand::Check(args) => {
            let file = check(read(args, places)?)?;
            let (path, count, allowed) =
                (file.path.display().to_string(), file.endpoints.len(), consent::is_agreed(&file, places)?);
            if args.json {
                let found = json!({ "path": path, "ok": true, "endpoints": count, "allowed": allowed });
                return Ok(format!("{found}\n"));
            }
            let noun = if count == 1 { "endpoint" } else { "endpoints" };
            let note = if allowed { "" } else { "; not yet allowed to say where the token goes: config allow" };
            Ok(format!("{path}: ok, {count} {noun}{note}\n"))
        }
        ConfigCommand::Allow { file } => consent::allow(file.as_deref(), places),
        ConfigCommand::Deny { file } => consent::deny(file.as_deref(), places),
    }
}

/// The failure when no config file is found, with the places that were looked at.
pub(super) fn not_found(places: &Places) -> Failure {
    let searched: Vec<String> = places.searched().iter().map(|path| path.display().to_string()).collect();
    Failure::NotFound(format!("no config file; name it with --config, or write {}", searched.join(" or ")))
}

fn find(args: &ConfigArgs, places: &Places) -> Result<Found, Failure> {
    places.find(args.config.as_deref()).ok_or_else(|| not_found(places))
}

fn read(args: &ConfigArgs, places: &Places) -> Result<ConfigFile, Failure> {
    Ok(ConfigFile::read(&find(args, places)?, places.home.as_deref())?)
}

/// Tries everything the file refers to: the token and the certificates.
fn check(file: ConfigFile) -> Result<ConfigFile, Failure> {
    let mut problems = Vec::new();
    let mut problem = |key: String, message: String| {
        problems.push(Problem { file: Some(file.path.clone()), key, ..Problem::new(message) });
    };
    if let Some(Err(error)) = file.token.as_ref().map(|token| token.read()) {
        problem("token".to_owned(), error.to_string());
    }
    if let Some(path) = &file.relay_ca
        && let Err(error) = tls::client_config(&Trust::PlatformAnd(path.clone()))
    {
        problem("relay_ca".to_owned(), error.to_string());
    }
    if let (Some(cert), Some(key)) = (file.client_cert.clone(), file.client_key.clone())
        && let Err(error) = tls::client_config_as(Some(&Identity { cert, key }), &Trust::DangerousAnything)
    {
        problem("client_cert".to_owned(), error.to_string());
    }
    for endpoint in &file.endpoints {
        let key = format!("endpoint.{}", endpoint.name.as_deref().unwrap_or_default());
        let routes = endpoint.routes.iter().map(|route| (format!("{key}.route.{}", route.path), &route.handler));
        for (key, handler) in std::iter::once((key.clone(), &endpoint.handler)).chain(routes) {
            if let Err(error) = Handler::new(&handler.target) {
                problem(key, error);
            }
        }
    }
    if problems.is_empty() {
        return Ok(file);
    }
    Err(Problems(problems).into())
}
