//! `endpoint`: what a running relay serves, who is attached, what waits; making endpoints and removing them.

mod create;
mod secret;

use clap::Subcommand;
use relay_program::{
    Failure,
    http1::encoded,
    list::{self, List},
    terminal,
};
use relay_proto::printable::escaped;
use serde_json::Value;

use super::remote::Remote;

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// List endpoints with their agents and what waits
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show an endpoint: every setting, who is attached, what waits
    Show {
        /// The endpoint
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make an endpoint that lives in the relay's store, not in its config file
    Create(create::Create),
    /// Remove an endpoint that was made with `create`
    Delete {
        /// The endpoint
        name: String,
        /// Also if events of it wait; they are cancelled
        #[arg(long)]
        force: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Go on accepting and keeping events, and deliver none
    Pause(OneEndpoint),
    /// Forget the secret that a provider's challenge told, so that the next one may tell another
    Forget(OneEndpoint),
    /// Deliver again
    Resume(OneEndpoint),
}

#[derive(Debug, clap::Args)]
pub(super) struct OneEndpoint {
    /// The endpoint
    name: String,
    #[command(flatten)]
    remote: Remote,
}

impl OneEndpoint {
    fn act(&self, action: &str) -> Result<(), Failure> {
        self.remote.post(&format!("/api/v1/endpoints/{}/{action}", encoded(&self.name))).map(drop)
    }
}

pub(super) fn run(command: &EndpointCommand) -> Result<(), Failure> {
    match command {
        EndpointCommand::List { json, remote } => {
            let found = remote.get("/api/v1/endpoints")?;
            List::default().print(found["endpoints"].as_array().into_iter().flatten(), *json, cells)
        }
        EndpointCommand::Show { name, json, remote } => {
            let found = remote.get(&format!("/api/v1/endpoints/{}", encoded(name)))?;
            terminal::values([&found], *json, show)
        }
        EndpointCommand::Create(arguments) => create::run(arguments),
        EndpointCommand::Delete { name, force, json, remote } => {
            let path = format!("/api/v1/endpoints/{}?force={force}", encoded(name));
            let done = remote.send(&http::Method::DELETE, &path, &[])?;
            terminal::values([&done], *json, deleted)
        }
        EndpointCommand::Forget(endpoint) => endpoint.act("forget"),
        EndpointCommand::Pause(endpoint) => endpoint.act("pause"),
        EndpointCommand::Resume(endpoint) => endpoint.act("resume"),
    }
}

fn cells(endpoint: &Value) -> Vec<String> {
    let text = |key: &str| terminal::member(endpoint, key).into_owned();
    let since = endpoint["oldest"].as_str().map(|at| format!("since {}", list::time(at)));
    vec![
        text("name"),
        text("mode"),
        text("provider"),
        text("source"),
        format!("agents {}", endpoint["agents"]),
        format!("waiting {}", endpoint["waiting"]),
        since.unwrap_or_default(),
        if endpoint["paused"] == true { "PAUSED" } else { "" }.to_owned(),
    ]
}

fn deleted(done: &Value) -> String {
    let cancelled = match done["cancelled"].as_u64() {
        None | Some(0) => String::new(),
        Some(count) => format!("; {count} events that waited are cancelled"),
    };
    format!("deleted {}{cancelled}", terminal::member(done, "name"))
}

/// What is known of an endpoint, and then its settings as they would stand in a file.
fn show(endpoint: &Value) -> String {
    let text = |key: &str| terminal::member(endpoint, key);
    let mut out = list::row(cells(endpoint));
    out.push_str(&format!("\nwebhook URL: {}", text("url")));
    let count = |key: &str| format!("{key} {}", endpoint[key]);
    out.push_str(&format!("\n{}, {}, {}", count("pending"), count("running"), count("dead")));
    for (key, title) in
        [("paused_since", "paused since"), ("circuit_until", "its handler fails and is left alone until")]
    {
        if endpoint[key].is_string() {
            out.push_str(&format!("\n{title} {}", list::moment(endpoint, key)));
        }
    }
    if endpoint["secret_available"] == false {
        out.push_str("\nits secret is not there: it answers 503");
    }
    for agent in endpoint["attached"].as_array().into_iter().flatten() {
        let text = |key: &str| terminal::member(agent, key);
        out.push_str(&format!("\nagent {} ({}), token {}", text("name"), text("standing"), text("token")));
    }
    if let Ok(settings) = toml::to_string(&endpoint["settings"]) {
        out.push_str(&format!("\n\n{}", settings.trim_end()));
    }
    out
}

/// Says what works and is worth knowing.
pub(super) fn tell(warnings: &Value) {
    for warning in warnings.as_array().into_iter().flatten().filter_map(Value::as_str) {
        terminal::note(&format!("warning: {}", escaped(warning)));
    }
}
