//! `apply`: a file's endpoints and tokens in the place of those that a running relay has from a file.

use std::path::PathBuf;

use relay_program::{Failure, terminal};
use serde_json::{Value, json};

use super::{endpoint, remote::Remote};
use crate::config::{ConfigSource, Flags};

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
    let source = ConfigSource { path: Some(arguments.file.clone()), flags: Flags::default() };
    let input = source.read()?;
    // Here with the lines of the file. Whether a secret can be read is for the relay to say.
    input.show(&source.flags)?;
    let body = json!({ "rows": input.rows(), "sections": input.sections() }).to_string();
    if body.len() > MAX_BYTES {
        return Err(Failure::Usage(format!(
            "{} says more than the 1 MiB that can be applied",
            arguments.file.display()
        )));
    }
    let path = format!("/api/v1/config?dry_run={}", arguments.dry_run);
    let applied = arguments.remote.send(&http::Method::PUT, &path, body.as_bytes())?;
    endpoint::tell(&applied["warnings"]);
    if arguments.json {
        return terminal::line(&applied.to_string());
    }
    lines(&applied).iter().try_for_each(|line| terminal::line(line))
}

fn lines(applied: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut unchanged = 0;
    for (kind, word) in [("endpoint", ""), ("token", "token ")] {
        let diff = &applied[kind];
        let names = |list: &str| diff[list].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.extend(names("added").map(|name| format!("+ {word}{name}")));
        for (name, keys) in diff["changed"].as_object().into_iter().flatten() {
            let keys: Vec<&str> = keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            lines.push(format!("~ {word}{name} ({})", keys.join(", ")));
        }
        lines.extend(names("removed").map(|name| format!("- {word}{name}")));
        unchanged += diff["unchanged"].as_u64().unwrap_or(0);
    }
    lines.push(format!("= {unchanged} unchanged"));
    let restart = applied["restart"].as_array().into_iter().flatten().filter_map(Value::as_str);
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
            "restart": ["server.listen"],
        });
        let expected = [
            "+ a",
            "~ b (mode, retry.first)",
            "- c",
            "+ token t",
            "= 3 unchanged",
            "! server.listen is another in the relay's own file: it needs a restart",
        ];
        assert_eq!(lines(&applied), expected);
    }
}
