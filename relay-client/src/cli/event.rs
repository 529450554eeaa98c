//! `event`: the webhooks that the relay keeps for this token's endpoints, and how to have them once more.
//!
//! What the relay tells was written by senders and handlers: it is escaped before it reaches a terminal.

mod replay;
mod tail;

use std::io::Read;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use relay_program::{
    Failure,
    cli::{BulkQuestion, ExportWhat, stop},
    event::{EventDetail, EventSummary},
    list::List,
    terminal,
};
use serde::Deserialize as _;

use super::{
    args::ReachArgs,
    run,
    settings::{self, usage},
};
use crate::{
    config::{check, find::Places},
    link::{
        LinkError,
        api::{Api, Walk},
    },
};

/// Events of one answer; a longer list is asked for in parts.
const PAGE: usize = 200;

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Lists events, the newest first
    List(ListArgs),
    /// Shows an event, its attempts and why it stands where it does
    Show(ShowArgs),
    /// Prints what happens, as it happens
    Tail(tail::TailArgs),
    /// Writes events into a file: to look into elsewhere, to send again, to play without a relay
    Export(ExportArgs),
    /// Has events delivered once more: to your own running agent, which changes nothing at the relay
    Replay(replay::ReplayArgs),
    /// Ends a replay of many events to whoever serves their endpoints
    Stop(replay::StopArgs),
}

impl EventCommand {
    pub(super) fn reach(&self) -> &ReachArgs {
        match self {
            Self::List(args) => &args.reach,
            Self::Show(args) => &args.reach,
            Self::Tail(args) => &args.reach,
            Self::Export(args) => &args.reach,
            Self::Replay(args) => &args.reach,
            Self::Stop(args) => &args.reach,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this endpoint
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Only those that this query finds, such as 'is:dead status:5xx'; it also finds live, refused and handshake ones
    #[arg(short, long = "query", value_name = "QUERY")]
    q: Option<String>,
    /// Only those in this state
    #[arg(long)]
    state: Option<EventState>,
    /// Only those whose last answer had this status: 404, 5xx, 400-499
    #[arg(long)]
    status: Option<String>,
    /// Only those of these types; `*` stands for any text
    #[arg(short, long, value_name = "TYPE,…")]
    event_type: Option<String>,
    /// Only those with this id of the sender's own
    #[arg(long, value_name = "ID")]
    sender_id: Option<String>,
    /// Only those that came then or later: how long ago, such as 42m, or a time such as 2026-01-31T08:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only those that came before then
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only those with this text in target, type, headers or body
    #[arg(long)]
    text: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum EventState {
    /// Waits for its next attempt
    Pending,
    /// An attempt is under way
    Running,
    /// A handler took it
    Delivered,
    /// Will not be tried again by itself
    Dead,
    /// Dropped, cancelled or skipped by a person
    Dropped,
    /// What is stored is not what was taken in
    Damaged,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The event's id, or its sender's own
    id: String,
    /// As JSON
    #[arg(long, conflicts_with = "body")]
    json: bool,
    /// Prints the body instead, byte for byte; on a terminal as text that cannot steer it
    #[arg(long)]
    body: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    what: ExportWhat,
    #[command(flatten)]
    reach: ReachArgs,
}

pub(super) fn run(command: &EventCommand, places: &Places, stdin: impl Read) -> Result<(), Failure> {
    let args = command.reach();
    let file = settings::read_file(args, places)?;
    let reach = settings::reach(args, file.as_ref(), places, stdin)?;
    let token = reach.token?.read().map_err(|error| Failure::Usage(error.to_string()))?;
    let runtime = run::runtime()?;
    let mut api = Api::new(&reach.way, token);
    let mut ask = |(method, path, body): BulkQuestion| {
        runtime.block_on(api.question(method, &path, body)).map_err(|error| failure(&error))
    };
    match command {
        EventCommand::Replay(args) if args.is_the_relays() => return args.what.run("replay", ask),
        EventCommand::Stop(args) => return stop(&args.id, &mut ask),
        _ => {}
    }
    let done = runtime.block_on(async {
        match command {
            EventCommand::List(args) => list(&mut api, args).await,
            EventCommand::Show(args) => show(&mut api, args).await,
            EventCommand::Tail(args) => tail::tail(&mut api, args).await,
            EventCommand::Export(args) => {
                let file = api.export(args.what.form(), args.what.redact, &args.what.which()).await;
                args.what.write(&file.map_err(|error| failure(&error))?)
            }
            EventCommand::Replay(args) => {
                let name = settings::name(args.name.as_ref(), file.as_ref())?;
                replay::replay(&mut api, args, &name, std::io::stdin()).await
            }
            EventCommand::Stop(_) => Ok(()),
        }
    });
    runtime.shutdown_background();
    done
}

async fn list(api: &mut Api<'_>, args: &ListArgs) -> Result<(), Failure> {
    let now = Timestamp::now();
    let moment = |flag: &str, typed: &Option<String>| {
        let moment = typed.as_ref().map(|typed| check::moment(typed, now)).transpose();
        moment.map(|moment| moment.map(|moment| moment.to_string())).map_err(|error| usage(flag, &error))
    };
    let state = args.state.and_then(|state| state.to_possible_value());
    let filters = [
        ("q", args.q.clone()),
        ("endpoint", args.endpoint.clone()),
        ("state", state.map(|state| state.get_name().to_owned())),
        ("status", args.status.clone()),
        ("event_type", args.event_type.clone()),
        ("sender_id", args.sender_id.clone()),
        ("since", moment("--since", &args.since)?),
        ("until", moment("--until", &args.until)?),
        ("text", args.text.clone()),
    ];
    let (mut left, mut after, mut walk) = (args.limit, None::<String>, Walk::default());
    let mut list = List::fitting();
    while left > 0 {
        let mut query: Vec<_> = filters.iter().filter_map(|(name, value)| Some((*name, value.clone()?))).collect();
        query.push(("limit", left.min(PAGE).to_string()));
        query.extend(after.clone().map(|after| ("after", after)));
        let page = api.list(&query).await.map_err(|error| failure(&error))?;
        let events = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.print(events.iter().take(left), args.json, EventSummary::cells)?;
        left -= events.len().min(left);
        let next = page["next"].as_str();
        let pause = walk.step(after.as_deref(), next, events.len()).map_err(Failure::Failed)?;
        after = next.map(str::to_owned);
        if after.is_none() {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

async fn show(api: &mut Api<'_>, args: &ShowArgs) -> Result<(), Failure> {
    let event = api.event(&args.id).await.map_err(|error| failure(&error))?;
    if !args.body {
        // The relay's advice names commands of its own, for whoever runs it.
        let words = |event: &EventDetail| event.words("to do, at the relay");
        return terminal::answer(&event, args.json, words);
    }
    // By its own id from here on: the sender may use its own once more meanwhile.
    let EventSummary { id, size, .. } = EventSummary::deserialize(&event)?;
    let mut offset = 0;
    loop {
        let part = api.body(&id, offset).await.map_err(|error| failure(&error))?;
        if part.is_empty() {
            return Ok(());
        }
        offset += part.len() as u64;
        if offset > size {
            return Err(Failure::Failed(format!("the relay gives more than the {size} bytes that the event has")));
        }
        terminal::body(&part)?;
    }
}

pub(super) fn failure(error: &LinkError) -> Failure {
    let said = error.to_string();
    match error.refusal() {
        Some((_, Some("bad_edit"))) => Failure::Usage(said),
        Some((status, _)) => match status.as_u16() {
            400 => Failure::Usage(said),
            401 | 403 => Failure::Refused(said),
            404 => Failure::NotFound(said),
            _ => Failure::Failed(said),
        },
        None => Failure::Unreachable(said),
    }
}
