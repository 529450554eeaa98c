//! `endpoint`: what a running relay serves, who is attached, what waits; making endpoints and removing them.

mod create;
pub(super) mod secret;

use clap::Subcommand;
use relay_program::{
    Failure,
    http1::encoded,
    list::{self, List},
    terminal,
};
use relay_proto::printable::escaped;

use super::remote::Remote;
use crate::api::shapes::{AttachedSummary, EndpointDeleted, EndpointDetail, EndpointSummary};

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
            terminal::answer(&found, *json, show)
        }
        EndpointCommand::Create(arguments) => create::run(arguments),
        EndpointCommand::Delete { name, force, json, remote } => {
            let path = format!("/api/v1/endpoints/{}?force={force}", encoded(name));
            let done = remote.send(&http::Method::DELETE, &path, &[])?;
            terminal::answer(&done, *json, deleted)
        }
        EndpointCommand::Forget(endpoint) => endpoint.act("forget"),
        EndpointCommand::Pause(endpoint) => endpoint.act("pause"),
        EndpointCommand::Resume(endpoint) => endpoint.act("resume"),
    }
}

fn cells(endpoint: &EndpointSummary) -> Vec<String> {
    vec![
        endpoint.name.clone(),
        endpoint.mode.clone(),
        endpoint.provider.clone(),
        endpoint.source.clone(),
        format!("agents {}", endpoint.agents),
        format!("waiting {}", endpoint.waiting),
        endpoint.oldest.map(|at| format!("since {at:.3}")).unwrap_or_default(),
        if endpoint.paused { "PAUSED" } else { "" }.to_owned(),
    ]
}

fn deleted(EndpointDeleted { name, cancelled }: &EndpointDeleted) -> String {
    match cancelled {
        0 => format!("deleted {name}"),
        count => format!("deleted {name}; {count} events that waited are cancelled"),
    }
}

/// What is known of an endpoint, and then its settings as they would stand in a file.
fn show(endpoint: &EndpointDetail) -> String {
    let mut out = list::row(cells(&endpoint.summary));
    out.push_str(&format!("\nwebhook URL: {}", endpoint.summary.url));
    let EndpointDetail { pending, running, dead, .. } = endpoint;
    out.push_str(&format!("\npending {pending}, running {running}, dead {dead}"));
    if let Some(since) = endpoint.paused_since {
        out.push_str(&format!("\npaused since {since:.3}"));
    }
    if let Some(until) = endpoint.circuit_until {
        out.push_str(&format!("\nits handler fails and is left alone until {until:.3}"));
    }
    if !endpoint.secret_available {
        out.push_str("\nits secret is not there: it answers 503");
    }
    for AttachedSummary { name, token, standing } in &endpoint.attached {
        out.push_str(&format!("\nagent {} ({standing}), token {}", escaped(name), escaped(token)));
    }
    if let Ok(settings) = toml::to_string(&endpoint.settings) {
        out.push_str(&format!("\n\n{}", settings.trim_end()));
    }
    out
}

/// Says what works and is worth knowing.
pub(super) fn warn<'a>(warnings: impl IntoIterator<Item = &'a str>) {
    for warning in warnings {
        terminal::note(&format!("warning: {}", escaped(warning)));
    }
}
