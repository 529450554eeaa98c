//! `start`: the endpoints of a config file, all or some.

use std::{io::Read, time::Duration};

use relay_program::{Failure, suggest::nearest};

use super::{args::StartArgs, config::not_found, settings};
use crate::config::{Config, EndpointConfig, OnRefused, find::Places};

/// How long a refused agent waits before it asks again.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// The configuration that `start` runs with.
pub(super) fn config(args: &StartArgs, places: &Places, stdin: impl Read) -> Result<Config, Failure> {
    let mut file = settings::read_file(&args.connection.reach, places)?.ok_or_else(|| not_found(places))?;
    let endpoints = chosen(std::mem::take(&mut file.endpoints), &args.names)?;
    if endpoints.is_empty() {
        let path = file.path.display();
        return Err(Failure::Usage(format!("{path} names no [[endpoint]]; add one with a name and a target")));
    }
    let on_refused = OnRefused::RetryAfter(REFUSED_RETRY);
    settings::config(&args.connection, Some(&file), places, stdin, endpoints, on_refused)
}

/// Those named, in the file's order; all if none is named.
fn chosen(mut endpoints: Vec<EndpointConfig>, names: &[String]) -> Result<Vec<EndpointConfig>, Failure> {
    let known: Vec<String> = endpoints.iter().filter_map(|endpoint| endpoint.name.clone()).collect();
    if let Some(missing) = names.iter().find(|name| !known.contains(name)) {
        let hint = match nearest(missing, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the file has: {}", known.join(", ")),
        };
        return Err(Failure::NotFound(format!("no endpoint {missing:?} in the config file; {hint}")));
    }
    endpoints.retain(|endpoint| names.is_empty() || endpoint.name.as_ref().is_some_and(|name| names.contains(name)));
    Ok(endpoints)
}
