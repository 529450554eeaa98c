//! Which lines of the log are wanted: `RELAY_LOG` is a level, or levels by module.
//!
//! What cannot be a filter is an error. To go on without the lines that somebody asked for would look like a quiet night.

use std::env::VarError;

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::Failure;

const VARIABLE: &str = "RELAY_LOG";

/// What the environment asks for, else `level`.
pub fn from_env(level: LevelFilter) -> Result<Targets, Failure> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => {
            parse(&text).map_err(|error| Failure::Usage(format!("{VARIABLE}: {error}")))
        }
        Ok(_) | Err(VarError::NotPresent) => Ok(without_peers_noise(level)),
        Err(VarError::NotUnicode(_)) => Err(Failure::Usage(format!("{VARIABLE}: it is not text"))),
    }
}

/// A level for all, such as `info`, or filters with commas between: a level for the rest, and `MODULE=LEVEL`.
fn parse(text: &str) -> Result<Targets, String> {
    if let Some(level) = level(text) {
        return Ok(without_peers_noise(level));
    }
    let mut targets = Targets::new();
    for part in text.split(',').map(str::trim) {
        targets = match part.split_once('=').map(|(module, of_it)| (module.trim(), level(of_it))) {
            None if let Some(level) = level(part) => targets.with_default(level),
            Some((module, Some(level))) if is_module(module) => targets.with_target(module, level),
            _ => return Err(format!("`{part}` is neither a level, such as info or debug, nor MODULE=LEVEL")),
        };
    }
    Ok(targets)
}

/// The library takes nothing at all for `error`.
fn level(text: &str) -> Option<LevelFilter> {
    Some(text.trim()).filter(|text| !text.is_empty())?.parse().ok()
}

fn is_module(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:-.".contains(letter))
}

/// Leaves out warnings of h2 that its peers can cause as often as they like, such as one for each PING that acknowledges
/// none. Whoever debugs gets them, and whoever asks by module.
fn without_peers_noise(level: LevelFilter) -> Targets {
    let of_h2 = if level >= LevelFilter::DEBUG { level } else { level.min(LevelFilter::ERROR) };
    Targets::new().with_default(level).with_target("h2", of_h2)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_level_is_for_all_but_what_peers_can_cause() {
        let info = parse("info").unwrap();
        assert!(info.would_enable("relay_server::deliver", &Level::INFO));
        assert!(!info.would_enable("relay_server::deliver", &Level::DEBUG));
        assert!(!info.would_enable("h2::proto", &Level::WARN));
        assert!(info.would_enable("h2::proto", &Level::ERROR));
        assert!(parse("DEBUG").unwrap().would_enable("h2::proto", &Level::DEBUG));
        assert!(!parse("off").unwrap().would_enable("h2::proto", &Level::ERROR));
    }

    #[test]
    fn modules_have_levels_of_their_own() {
        let filter = parse("warn, relay_server::store=trace,h2=info").unwrap();
        assert!(filter.would_enable("relay_server::store::sqlite", &Level::TRACE));
        assert!(!filter.would_enable("relay_server::deliver", &Level::INFO));
        assert!(filter.would_enable("relay_client", &Level::WARN));
        assert!(filter.would_enable("h2::proto", &Level::INFO));
        assert!(!parse("relay_server=debug").unwrap().would_enable("relay_client", &Level::ERROR));
    }

    #[test]
    fn what_is_no_filter_is_an_error_that_names_it() {
        for (text, part) in [
            ("inof", "inof"),
            ("info,relay_server=loud", "relay_server=loud"),
            ("[request]=debug", "[request]=debug"),
            ("relay_server[request{event_id=x}]=debug", "relay_server[request{event_id=x}]=debug"),
            ("=debug", "=debug"),
            ("info,", ""),
            ("info,relay_server=", "relay_server="),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("`{part}`")), "{text}: {error}");
        }
    }
}
