//! `endpoint create`: a row from flags, made by a running relay.

use relay_program::{Failure, terminal};
use serde::Deserialize as _;
use serde_json::{Value, json};
use toml::Table;
use zeroize::Zeroizing;

use super::{secret, warn};
use crate::{api::shapes::EndpointSummary, cli::remote::Remote};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Create {
    /// Its name, the first part of its path
    name: String,
    /// Whose webhooks it takes; `none` lets anyone in
    #[arg(long)]
    provider: Option<String>,
    /// A file with its secret, or `-` for standard input; sealed by the relay. May be repeated, the newest first
    #[arg(long, value_name = "F|-")]
    secret_file: Vec<String>,
    /// Make its secret and print it, once
    #[arg(long, conflicts_with = "secret_file", requires = "provider")]
    generate_secret: bool,
    /// assured, durable or live
    #[arg(long)]
    mode: Option<String>,
    /// How long its sender waits for an answer, such as 9s
    #[arg(long, value_name = "D")]
    deadline: Option<String>,
    /// Its largest body, such as 25MiB
    #[arg(long, value_name = "SIZE")]
    max_body: Option<String>,
    /// shared or exclusive
    #[arg(long)]
    attach: Option<String>,
    /// Any other key as in the config file, such as 'retry.attempts = 5'. May be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(arguments: &Create) -> Result<(), Failure> {
    let row = row(arguments)?;
    let generated = match (&arguments.provider, arguments.generate_secret) {
        (Some(provider), true) => Some(secret::new(provider)?.ok_or_else(|| {
            Failure::Usage(format!(
                "--generate-secret: the secret of \"{provider}\" is not known to be yours to choose; write the one that \
                 it shows into a file and name that with --secret-file"
            ))
        })?),
        _ => None,
    };
    let mut secrets = arguments.secret_file.iter().map(|file| secret::read(file)).collect::<Result<Vec<_>, _>>()?;
    secrets.extend(generated.clone());
    let secrets: Vec<&str> = secrets.iter().map(|secret| secret.as_str()).collect();
    let body = Zeroizing::new(json!({ "endpoint": row, "secrets": secrets }).to_string());
    let mut made = arguments.remote.send(&http::Method::POST, "/api/v1/endpoints", body.as_bytes())?;
    warn(made["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str));
    if arguments.json {
        if let Some(secret) = &generated {
            made["secret"] = secret.as_str().into();
        }
        return terminal::line(&made.to_string());
    }
    let EndpointSummary { name, mode, provider, url, .. } = EndpointSummary::deserialize(&made)?;
    terminal::line(&format!("created {name} ({mode}, {provider})\nwebhook URL  {url}"))?;
    match &generated {
        Some(secret) => terminal::line(&format!("secret       {}", secret.as_str())),
        None => Ok(()),
    }
}

fn row(arguments: &Create) -> Result<Value, Failure> {
    let mut row = json!({ "name": arguments.name });
    match arguments.provider.as_deref() {
        None => {}
        Some("none") => row["verify"] = "none".into(),
        Some(provider) => row["verify"] = json!({ "provider": provider }),
    }
    let flags = [
        ("mode", &arguments.mode),
        ("deadline", &arguments.deadline),
        ("max_body", &arguments.max_body),
        ("attach", &arguments.attach),
    ];
    for (key, value) in flags {
        if let Some(value) = value {
            row[key] = value.as_str().into();
        }
    }
    for text in &arguments.set {
        let key = text.split('=').next().unwrap_or_default().trim();
        // The value is not repeated: it may be a secret in the wrong place.
        let wrong = |why: &str| {
            Failure::Usage(format!("--set {key}: {why}; write it as in the config file: --set 'deadline = \"9s\"'"))
        };
        let table: Table = toml::from_str(text).map_err(|_| wrong("this is no key and value of TOML"))?;
        let value = serde_json::to_value(&table).map_err(|_| wrong("this value cannot be sent"))?;
        merge(&mut row, value).map_err(|()| wrong("it is there already"))?;
    }
    Ok(row)
}

/// Puts what `more` says into `row`, which must not say it yet.
fn merge(row: &mut Value, more: Value) -> Result<(), ()> {
    let (Value::Object(row), Value::Object(more)) = (row, more) else { return Err(()) };
    for (key, value) in more {
        match row.get_mut(&key) {
            None => drop(row.insert(key, value)),
            Some(there) => merge(there, value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn of(words: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from([&["x"], words].concat()).map_err(|error| error.to_string())?;
        row(&line.create).map_err(|failure| match failure {
            Failure::Usage(why) => why,
            _ => "another failure".to_owned(),
        })
    }

    #[test]
    fn flags_and_keys_make_one_row() {
        let set = ["retry.attempts = 5", "retry.first=\"1s\"", "hosts=[\"a.example\"]", "verify.tolerance = \"60s\""];
        let set: Vec<&str> = set.iter().flat_map(|text| ["--set", text]).collect();
        let made = of(&[&["hub", "--provider", "github", "--mode", "live"], &set[..]].concat());
        let expected = json!({
            "name": "hub",
            "verify": { "provider": "github", "tolerance": "60s" },
            "mode": "live",
            "retry": { "attempts": 5, "first": "1s" },
            "hosts": ["a.example"],
        });
        assert_eq!(made, Ok(expected));
        assert_eq!(of(&["a", "--provider", "none"]), Ok(json!({ "name": "a", "verify": "none" })));
    }

    #[test]
    fn what_is_said_twice_or_is_no_toml_is_refused_without_its_value() {
        for words in [
            &["a", "--mode", "live", "--set", "mode = \"hunter2\""][..],
            &["a", "--set", "deadline=hunter2"],
            &["a", "--provider", "none", "--set", "verify.secrets = [\"hunter2\"]"],
        ] {
            let why = of(words).expect_err("refused");
            assert!(why.contains("--set ") && !why.contains("hunter2"), "{why}");
        }
        assert!(of(&["a", "--generate-secret"]).expect_err("refused").contains("--provider"));
    }
}
