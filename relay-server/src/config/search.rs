//! Where a config file is looked for when none is named.
//!
//! Pure but for one question per candidate: is it there. Invariant: the first that exists is taken, and files are
//! never mixed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "relay.toml";

/// `./relay.toml`, `$XDG_CONFIG_HOME/relay/relay.toml` (or under `~/.config`), `/etc/relay/relay.toml`.
pub(super) fn candidates(var: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let absolute = |name: &str| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let mut all = vec![PathBuf::from(FILE_NAME)];
    all.extend(user.map(|directory| directory.join("relay").join(FILE_NAME)));
    all.push(Path::new("/etc/relay").join(FILE_NAME));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let var =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        candidates(&var).into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_working_directory_comes_first_and_the_system_last() {
        assert_eq!(found(&[]), ["relay.toml", "/etc/relay/relay.toml"]);
        assert_eq!(found(&[("HOME", "/h")]), ["relay.toml", "/h/.config/relay/relay.toml", "/etc/relay/relay.toml"]);
        assert_eq!(
            found(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]),
            ["relay.toml", "/x/relay/relay.toml", "/etc/relay/relay.toml"]
        );
        // The XDG specification: a relative path is to be ignored.
        assert_eq!(found(&[("XDG_CONFIG_HOME", "x")]), ["relay.toml", "/etc/relay/relay.toml"]);
    }
}
