//! `provider`: the rows of the embedded table, as they are and in words.

use clap::Subcommand;
use relay_program::{Failure, suggest::nearest, terminal};
use relay_schemes::{Provider, TABLE, provider, providers};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List the providers
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show a provider: what to paste where, and its row
    Show {
        /// Its name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &ProviderCommand) -> Result<(), Failure> {
    match command {
        ProviderCommand::List { json } => {
            for row in providers() {
                if *json {
                    terminal::line(&summary(row).to_string())?;
                } else {
                    terminal::line(&format!("{:<24} {:<28} {}", row.name, row.title, signs(row)))?;
                }
            }
        }
        ProviderCommand::Show { name, json } => {
            let row = provider(name).ok_or_else(|| unknown(name))?;
            if *json {
                let mut shown = summary(row);
                shown["row"] = toml_of(&row.name).into();
                terminal::line(&format!("{shown:#}"))?;
            } else {
                terminal::print(&in_words(row))?;
            }
        }
    }
    Ok(())
}

pub(super) fn unknown(name: &str) -> Failure {
    let known = providers().iter().map(|row| row.name.as_str());
    let hint = nearest(name, known).map_or(";".to_owned(), |near| format!("; did you mean {near}?"));
    Failure::NotFound(format!("there is no provider {name:?}{hint} `relay-server provider list` names them all"))
}

fn signs(row: &Provider) -> String {
    row.scheme.as_ref().map_or_else(|| "nothing".to_owned(), relay_schemes::Scheme::in_words)
}

fn signs_afresh(row: &Provider) -> bool {
    row.scheme.as_ref().is_some_and(relay_schemes::Scheme::is_symmetric)
}

fn handshakes(row: &Provider) -> Vec<&str> {
    row.handshakes.iter().map(|handshake| handshake.name.as_str()).collect()
}

fn summary(row: &Provider) -> Value {
    json!({
        "name": row.name,
        "title": row.title,
        "docs": row.docs,
        "setup": row.setup,
        "checked_by": signs(row),
        "signs_afresh": signs_afresh(row),
        "timeout_s": row.timeout.map(|timeout| timeout.as_secs()),
        "retries": row.retries,
        "interactive": row.interactive,
        "max_body": row.max_body,
        "handshakes": handshakes(row),
    })
}

fn in_words(row: &Provider) -> String {
    let yes = |held| if held { "yes" } else { "no" };
    let handshakes = handshakes(row).join(", ");
    let timeout = row.timeout.map_or_else(|| "not known".to_owned(), |timeout| format!("{} s", timeout.as_secs()));
    let mut text = format!("{}\n{}\n\n", row.title, row.docs);
    for (name, value) in [
        ("setup", row.setup.as_str()),
        ("checked by", &signs(row)),
        ("signed afresh when late", if signs_afresh(row) { "yes" } else { "no: only the provider can sign" }),
        ("waits for an answer", &timeout),
        ("sends again by itself", yes(row.retries)),
        ("the answer is the product", yes(row.interactive)),
        ("challenges", if handshakes.is_empty() { "none" } else { &handshakes }),
    ] {
        text.push_str(&format!("{name:<26} {value}\n"));
    }
    format!("{text}\n{}", toml_of(&row.name))
}

fn toml_of(name: &str) -> String {
    let wanted = format!("name = \"{name}\"");
    let rows = TABLE.split("[[provider]]\n").skip(1);
    let row = rows.into_iter().find(|row| row.lines().next().is_some_and(|line| line == wanted));
    format!("[[provider]]\n{}\n", row.unwrap_or_default().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_shown_as_it_is_written() {
        for row in providers() {
            let text = toml_of(&row.name);
            let again = relay_schemes::load(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", row.name));
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].name, row.name);
            assert!(in_words(row).contains(&row.title));
        }
    }
}
