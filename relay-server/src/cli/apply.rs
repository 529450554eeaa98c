//! `apply`: a file's endpoints and tokens in the place of those that a running relay has from a file.

use std::path::PathBuf;

use relay_program::{Failure, terminal};
use serde_json::{Value, json};

use super::{endpoint, remote::Remote};
use crate::{config::ConfigSource, runtime_config::Applied};

/// Largest request that the relay takes, in bytes.
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// A config file; what it includes belongs to it
    file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(arguments: &Apply) -> Result<(), Failure> {
    let source = ConfigSource::at(Some(arguments.file.clone()));
    let input = source.read()?;
    // Here with the lines of the file. Whether a secret can be read is for the relay to say.
    input.show(&source.flags)?;
    let body = json!({ "rows": input.rows(), "sections": input.sections() }).to_string();
    if body.len() > MAX_BYTES {
        let file = arguments.file.display();
        return Err(Failure::Usage(format!("{file} says more than the 1 MiB that can be applied")));
    }
    let path = format!("/api/v1/config?dry_run={}", arguments.dry_run);
    let applied = arguments.remote.send(&http::Method::PUT, &path, body.as_bytes())?;
    endpoint::warn(applied["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str));
    terminal::answer(&applied, arguments.json, |applied| lines(applied).join("\n"))
}

fn lines(applied: &Applied) -> Vec<String> {
    let mut lines = Vec::new();
    for (diff, word) in [(&applied.endpoint, ""), (&applied.token, "token ")] {
        lines.extend(diff.added.iter().map(|name| format!("+ {word}{name}")));
        lines.extend(diff.changed.iter().map(|(name, keys)| format!("~ {word}{name} ({})", keys.join(", "))));
        lines.extend(diff.removed.iter().map(|name| format!("- {word}{name}")));
    }
    lines.push(format!("= {} unchanged", applied.endpoint.unchanged + applied.token.unchanged));
    let restart = applied.restart.iter();
    lines.extend(restart.map(|key| format!("! {key} is another in the relay's own file: it needs a restart")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_its_line() {
        let applied = json!({
            "endpoint": { "added": ["a"], "changed": { "b": ["mode", "retry.first"] }, "removed": ["c"], "unchanged": 2 },
            "token": { "added": ["t"], "changed": {}, "removed": [], "unchanged": 1 },
            "restart": ["server.listen"], "warnings": [],
        });
        let expected = [
            "+ a",
            "~ b (mode, retry.first)",
            "- c",
            "+ token t",
            "= 3 unchanged",
            "! server.listen is another in the relay's own file: it needs a restart",
        ];
        assert_eq!(lines(&serde_json::from_value(applied).expect("as it is sent")), expected);
    }
}
