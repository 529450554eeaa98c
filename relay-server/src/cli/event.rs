//! `event`: what a running relay keeps, and what never became an event: refused requests, and challenges that it
//! answered itself.

mod tail;

use clap::{Subcommand, ValueEnum};
use http::Method;
use relay_program::{
    Failure,
    cli::{BulkQuestion, BulkWhat, EditWhat, ExportWhat, stop},
    event::{EventDetail, EventDone, EventReplayed, EventSummary},
    http1::encoded,
    list::List,
    terminal,
};
use relay_proto::printable::escaped;
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::remote::Remote;
use crate::api::shapes::{HandshakeSummary, RefusedSummary};

#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// List events, the newest first
    List {
        #[command(flatten)]
        which: Which,
        /// Only those in this state
        #[arg(long)]
        state: Option<ListedState>,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show an event, its attempts and why it stands where it does
    Show {
        /// The event's id, or its sender's own
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print what happens, as it happens
    Tail(tail::TailArgs),
    /// Print an event's body, byte for byte; on a terminal as text that cannot steer it
    Body(OneEvent),
    /// Write events into a file: to look into elsewhere, to send again, to play without a relay
    Export {
        #[command(flatten)]
        what: ExportWhat,
        #[command(flatten)]
        remote: Remote,
    },
    /// Deliver events once more, as new ones with the same content, or as changed here
    Replay {
        /// The event's id, or its sender's own
        #[arg(required_unless_present = "q", conflicts_with = "q")]
        id: Option<String>,
        #[command(flatten)]
        what: BulkWhat,
        /// With the signature that it came with, however old that is [default: as the endpoint's `resign` says]
        #[arg(long, conflicts_with_all = ["sign", "q"])]
        keep_signature: bool,
        /// Signed afresh at each attempt, marked Relay-Resigned
        #[arg(long, conflicts_with = "q")]
        sign: bool,
        /// To the agent of this name alone, which changes nothing that is kept; a live exchange goes to no other
        #[arg(long, value_name = "NAME", conflicts_with = "q")]
        agent: Option<String>,
        #[command(flatten)]
        edit: EditWhat,
        #[command(flatten)]
        remote: Remote,
    },
    /// End events that wait: one by its id, or all that a query finds
    Cancel {
        /// The event's id, or its sender's own
        #[arg(required_unless_present = "q", conflicts_with = "q")]
        id: Option<String>,
        #[command(flatten)]
        what: BulkWhat,
        #[command(flatten)]
        remote: Remote,
    },
    /// End an action on many events where it stands
    Stop {
        /// The action's id, which it said when it began
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct OneEvent {
    /// The event's id, or its sender's own
    id: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Which {
    /// Only those that this query finds, such as 'took:>1s status:5xx'
    #[arg(short, long = "query", value_name = "QUERY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    /// Only those of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Only those of these types; `*` stands for any text
    #[arg(long, value_name = "TYPE,…")]
    event_type: Option<String>,
    /// Only those whose last answer had this status: 404, 5xx, 400-499
    #[arg(long)]
    status: Option<String>,
    /// Only those that came then or later, such as 2026-01-31T08:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those that came before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those with this text in target, type, headers or body
    #[arg(long)]
    text: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl Which {
    pub(super) fn query(&self) -> String {
        serde_urlencoded::to_string(self).expect("texts and a number fit into a query")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ListedState {
    /// Waits for its next attempt
    Pending,
    /// An attempt is under way
    Running,
    /// A handler took it
    Delivered,
    /// Will not be tried again by itself
    Dead,
    /// Dropped or cancelled by a person
    Dropped,
    /// What is stored is not what was taken in
    Damaged,
    /// Turned away before it could reach an agent
    Refused,
    /// A provider's challenge, answered by the relay
    Handshake,
}

pub(super) fn run(command: &EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::List { which, state: Some(ListedState::Refused), json, remote } => {
            other("refused", List::fitting(), refused, which, *json, remote)
        }
        EventCommand::List { which, state: Some(ListedState::Handshake), json, remote } => {
            other("handshakes", List::default(), handshake, which, *json, remote)
        }
        EventCommand::List { which, state, json, remote } => {
            let state = state.and_then(|state| state.to_possible_value());
            let state = state.map(|state| format!("&state={}", state.get_name())).unwrap_or_default();
            let found = remote.get(&format!("/api/v1/events?{}{state}", which.query()))?;
            List::fitting().print(found["events"].as_array().into_iter().flatten(), *json, EventSummary::cells)
        }
        EventCommand::Show { id, json, remote } => {
            let event = remote.get(&format!("/api/v1/events/{}", encoded(id)))?;
            terminal::answer(&event, *json, |event: &EventDetail| event.words("to do"))
        }
        EventCommand::Tail(args) => tail::run(args),
        EventCommand::Export { what, remote } => {
            let path = format!("/api/v1/events/export?as={}&redact={}", what.form(), what.redact);
            what.write(&remote.file(&path, &what.which())?)
        }
        EventCommand::Body(OneEvent { id, remote }) => {
            let body = remote.bytes(&format!("/api/v1/events/{}/body", encoded(id)))?;
            terminal::body(&body)
        }
        EventCommand::Replay {
            id: Some(id),
            what: BulkWhat { q: None, .. },
            keep_signature,
            sign,
            agent,
            edit,
            remote,
        } => {
            let signature = match (keep_signature, sign) {
                (true, _) => "keep",
                (_, true) => "fresh",
                _ => "auto",
            };
            let to = agent.as_ref().map(|name| format!("&to=agent&name={}", encoded(name))).unwrap_or_default();
            let path = format!("/api/v1/events/{}", encoded(id));
            let edit = if edit.is_none() {
                String::new()
            } else {
                let told = if edit.needs_headers() { Some(remote.get(&path)?) } else { None };
                let shown = told.map(|told| EventDetail::deserialize(&told)).transpose()?.unwrap_or_default();
                serde_json::to_string(&edit.edit(&shown.headers, std::io::stdin().lock())?)?
            };
            let path = format!("{path}/replay?signature={signature}{to}");
            if agent.is_none() {
                return done(&remote.send(&Method::POST, &path, edit.as_bytes())?);
            }
            let replayed = EventReplayed::deserialize(&remote.attempt(&path, edit.as_bytes())?)?;
            terminal::line(&replayed.words())?;
            if replayed.status.is_some_and(|status| status < 400) { Ok(()) } else { Err(Failure::Reported(1)) }
        }
        EventCommand::Replay { what, edit, remote, .. } => {
            if edit.is_none() {
                return what.run("replay", |asked| question(remote, asked));
            }
            Err(Failure::Usage("one event is changed at a time; name it by its id".to_owned()))
        }
        EventCommand::Cancel { id: Some(id), remote, .. } => act(id, "cancel", remote),
        EventCommand::Cancel { what, remote, .. } => what.run("cancel", |asked| question(remote, asked)),
        EventCommand::Stop { id, remote } => stop(id, |asked| question(remote, asked)),
    }
}

fn question(remote: &Remote, (method, path, body): BulkQuestion) -> Result<Value, Failure> {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    remote.send(&method, &format!("/api/v1/{path}"), body.as_bytes())
}

/// Has something done to an event and prints the id of the event that is now on its way.
pub(super) fn act(id: &str, action: &str, remote: &Remote) -> Result<(), Failure> {
    done(&remote.post(&format!("/api/v1/events/{}/{action}", encoded(id)))?)
}

fn done(done: &Value) -> Result<(), Failure> {
    let EventDone { id, new_id } = EventDone::deserialize(done)?;
    terminal::line(&new_id.unwrap_or(id))
}

fn other<T: DeserializeOwned + Default>(
    name: &str,
    mut list: List,
    cells: fn(&T) -> Vec<String>,
    which: &Which,
    json: bool,
    remote: &Remote,
) -> Result<(), Failure> {
    let endpoint = which.endpoint.as_ref().map(|name| format!("&endpoint={}", encoded(name))).unwrap_or_default();
    let found = remote.get(&format!("/api/v1/{name}?limit={}{endpoint}", which.limit))?;
    list.print(found[name].as_array().into_iter().flatten(), json, cells)
}

fn handshake(event: &HandshakeSummary) -> Vec<String> {
    let text = |text: &str| escaped(text).into_owned();
    let confirm = event.confirm_url.as_ref().map(|url| format!("open {}", escaped(url)));
    let code = || event.shown.as_ref().map(|code| format!("code {}", escaped(code)));
    vec![
        format!("{:.3}", event.received_at),
        text(&event.id),
        "HANDSHAKE".to_owned(),
        text(&event.endpoint),
        text(&event.provider),
        text(&event.handshake),
        text(&event.client),
        if event.learnt_secret { "learnt a secret" } else { "" }.to_owned(),
        confirm.or_else(code).unwrap_or_default(),
    ]
}

fn refused(event: &RefusedSummary) -> Vec<String> {
    let text = |text: &str| escaped(text).into_owned();
    vec![
        format!("{:.3}", event.received_at),
        text(&event.id),
        "REFUSED".to_owned(),
        event.status.to_string(),
        text(&event.endpoint),
        text(&event.code),
        text(&event.client),
        if event.body_read { "" } else { "body not read" }.to_owned(),
        text(&event.method),
        text(&event.url),
    ]
}

#[cfg(test)]
mod tests {
    use relay_proto::printable::is_steering;
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_senders_wrote_neither_steers_a_terminal_nor_begins_a_line() {
        let evil = "\u{1b}[2J\u{9b}31mPAID\u{202e}\u{feff}\nforged";
        let event = json!({
            "id": evil, "state": evil, "received_at": "2026-01-31T08:00:00Z", "endpoint": evil, "method": evil, "status": 500,
            "code": evil, "url": evil, "client": evil, "provider": evil, "handshake": evil, "confirm_url": evil,
            "body_read": false, "learnt_secret": true,
        });
        let lines = [refused(&from_value(event.clone()).unwrap()), handshake(&from_value(event).unwrap())];
        for words in lines.map(relay_program::list::row) {
            assert!(!words.contains(|char| char != '\n' && is_steering(char)), "{words:?}");
            assert_eq!(words.lines().count(), 1, "{words}");
        }
    }
}
