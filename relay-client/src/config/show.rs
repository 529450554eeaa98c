//! A checked config file as text: what the agent would run with, defaults included.
//!
//! Prints TOML that can be read again. Secrets appear as the references they are.

use relay_proto::Attach;
use toml::{Table, Value};

use super::{EndpointConfig, HandlerConfig, RouteConfig, check::ConfigFile};
use crate::tls::Trust;

/// The file with every default written out.
pub(crate) fn render(file: &ConfigFile) -> String {
    let mut root = Table::new();
    root.insert("version".to_owned(), Value::Integer(1));
    let values = [
        ("relay", file.relay.as_ref().map(ToString::to_string)),
        ("relay_ca", file.relay_ca.as_ref().map(|path| path.display().to_string())),
        ("token", file.token.as_ref().map(ToString::to_string)),
        ("proxy", file.proxy.as_ref().map(ToString::to_string)),
        ("name", Some(file.name.clone().unwrap_or_else(super::host_name))),
    ];
    for (key, value) in values {
        if let Some(value) = value {
            root.insert(key.to_owned(), Value::String(value));
        }
    }
    let endpoints = file.endpoints.iter().map(|one| Value::Table(endpoint(one))).collect();
    root.insert("endpoint".to_owned(), Value::Array(endpoints));
    toml::to_string(&root).expect("strings, numbers and tables are TOML")
}

fn endpoint(endpoint: &EndpointConfig) -> Table {
    let mut table = handler(&endpoint.handler, true);
    if let Some(name) = &endpoint.name {
        table.insert("name".to_owned(), Value::String(name.clone()));
    }
    let attach = match endpoint.attach {
        Attach::Exclusive => "exclusive",
        Attach::Copy => "copy",
        Attach::Shared | Attach::Auto => "shared",
    };
    table.insert("attach".to_owned(), Value::String(attach.to_owned()));
    if !endpoint.events.is_empty() {
        let events = endpoint.events.iter().cloned().map(Value::String).collect();
        table.insert("events".to_owned(), Value::Array(events));
    }
    if let Some(rate) = endpoint.rate {
        table.insert("rate".to_owned(), Value::String(rate.to_string()));
    }
    if !endpoint.upgrades.is_empty() {
        let upgrades = endpoint.upgrades.iter().map(|named| Value::String(named.to_string())).collect();
        table.insert("upgrades".to_owned(), Value::Array(upgrades));
    }
    let route = |route: &RouteConfig| {
        let mut table = handler(&route.handler, false);
        table.insert("path".to_owned(), Value::String(route.path.clone()));
        table.insert("strip_prefix".to_owned(), Value::Boolean(route.strip_prefix));
        Value::Table(table)
    };
    if !endpoint.routes.is_empty() {
        table.insert("route".to_owned(), Value::Array(endpoint.routes.iter().map(route).collect()));
    }
    table
}

/// What is said of a handler. In a route `path` is the route's, and the target's own stays in its address.
fn handler(handler: &HandlerConfig, path_apart: bool) -> Table {
    let target = &handler.target;
    let mut table = Table::new();
    let address = if path_apart { target.target.without_path() } else { target.target.clone() };
    table.insert("target".to_owned(), Value::String(address.to_string()));
    if path_apart && !target.target.path().is_empty() {
        table.insert("path".to_owned(), Value::String(target.target.path().to_owned()));
    }
    table.insert("preserve_host".to_owned(), Value::Boolean(handler.preserve_host));
    let limit = i64::try_from(target.max_connections.get()).unwrap_or(i64::MAX);
    table.insert("max_connections".to_owned(), Value::Integer(limit));
    let limits = &target.timeouts;
    let timeouts = [("connect", limits.connect), ("head", limits.head), ("idle", limits.idle), ("total", limits.total)];
    let timeouts = timeouts.into_iter().map(|(key, limit)| {
        let limit = jiff::SignedDuration::try_from(limit).unwrap_or_default();
        (key.to_owned(), Value::String(format!("{limit:#}")))
    });
    table.insert("timeouts".to_owned(), Value::Table(timeouts.collect()));
    match &target.trust {
        Trust::Platform => {}
        Trust::PlatformAnd(file) => {
            table.insert("ca_file".to_owned(), Value::String(file.display().to_string()));
        }
        Trust::DangerousAnything => {
            table.insert("insecure".to_owned(), Value::Boolean(true));
        }
    }
    let headers: Table = handler
        .headers
        .iter()
        .map(|(name, value)| {
            // A header of the user's own may well be a credential.
            let text = if value.is_sensitive() { "…" } else { value.to_str().unwrap_or("…") };
            (name.to_string(), Value::String(text.to_owned()))
        })
        .collect();
    if !headers.is_empty() {
        table.insert("headers".to_owned(), Value::Table(headers));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let text = "version = 1\nname = \"n\"\n[[endpoint]]\nname = \"a\"\ntarget = \"unix:/run/a.sock\"\npath = \"/x\"\nattach = \"copy\"\nrate = \"5/s, burst 2\"\nupgrades = [\"example/2\"]\n\
             [[endpoint.route]]\npath = \"/b\"\ntarget = \"http://h/b\"\n";
        let read = |text: &str| ConfigFile::parse(Path::new("/f"), text, None).unwrap();
        let shown = render(&read(text));
        assert_eq!(render(&read(&shown)), shown);
        assert!(shown.contains("head = \"30s\""), "{shown}");
        assert!(shown.contains("upgrades = [\"example/2\"]"), "{shown}");
        assert!(shown.contains("path = \"/x\"") && shown.contains("rate = \"5/s, burst 2\""), "{shown}");
    }
}
