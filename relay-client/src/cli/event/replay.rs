//! `event replay`: events once more, to the user's own agent or to whoever serves their endpoints; as they came, or as
//! changed on the command line.
//!
//! All that a query finds go to one's own agent one after the other, in order of time; to others the relay itself has
//! them delivered.

use std::io::Read;

use clap::{Args, ValueEnum};
use relay_program::{
    Failure,
    cli::{BulkWhat, EditWhat},
    event::{EventDetail, EventReplayed},
    terminal,
};
use relay_proto::printable::escaped;
use serde::Deserialize as _;
use tokio::time::sleep;

use super::{super::args::ReachArgs, PAGE, failure};
use crate::link::api::{Api, Replay, Walk};

/// Most events of a query that go to one's own agent, unless --at-most says so.
const MOST: u64 = 1000;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 if the handler of one of them answered with an error, or not at all.")]
pub(crate) struct ReplayArgs {
    /// The events' ids, or their senders' own
    #[arg(required_unless_present = "q", conflicts_with = "q", value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    pub(super) what: BulkWhat,
    /// To whom: your own agent, or whoever serves the endpoint, as a new event; that needs the right `replay`
    #[arg(long, value_enum, default_value_t, value_name = "WHOM")]
    to: To,
    /// Your agent's name, as `listen` has it [default: the host's]
    #[arg(long, env = "RELAY_NAME", value_name = "NAME")]
    pub(super) name: Option<String>,
    /// With the signature that it came with, however old that is [default: as the endpoint's `resign` says]
    #[arg(long, conflicts_with = "sign")]
    keep_signature: bool,
    /// Signed afresh, marked Relay-Resigned; of what is changed here that needs the right `sign`
    #[arg(long)]
    sign: bool,
    #[command(flatten)]
    edit: EditWhat,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The action's id, which it said when it began
    #[arg(value_name = "ID")]
    pub(super) id: String,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum To {
    /// Your own agent alone
    #[default]
    Agent,
    /// Whoever serves its endpoint
    Endpoint,
}

impl ReplayArgs {
    /// Whether it is many events and for the relay to do.
    pub(super) fn is_the_relays(&self) -> bool {
        self.what.q.is_some() && self.to == To::Endpoint && !self.is_one_at_a_time()
    }

    fn is_one_at_a_time(&self) -> bool {
        self.keep_signature || self.sign || !self.edit.is_none()
    }
}

pub(super) async fn replay(api: &mut Api<'_>, args: &ReplayArgs, name: &str, stdin: impl Read) -> Result<(), Failure> {
    if args.to == To::Endpoint && args.what.q.is_some() {
        let why = "all that a query finds go to their endpoints as they came; name events by their ids to change or sign them";
        return Err(Failure::Usage(why.to_owned()));
    }
    let agent = (args.to == To::Agent).then_some(name);
    let signature = match (args.keep_signature, args.sign) {
        (true, _) => "keep",
        (_, true) => "fresh",
        _ => "auto",
    };
    let found = match &args.what.q {
        Some(q) => match found(api, args, q, name).await? {
            Some(found) => found,
            None => return Ok(()),
        },
        None => args.ids.clone(),
    };
    // Read once: it may be standard input.
    let blank = if args.edit.is_none() { None } else { Some(args.edit.edit(&[], stdin)?) };
    let mut worst = None;
    for id in &found {
        let mut edit = blank.clone();
        if let Some(edit) = edit.as_mut().filter(|_| args.edit.needs_headers()) {
            let event = api.event(id).await.map_err(|error| failure(&error))?;
            edit.headers = Some(args.edit.lines(&EventDetail::deserialize(&event)?.headers)?);
        }
        let edit = edit.map(|edit| serde_json::to_string(&edit)).transpose()?;
        match api.replay_edited(id, Replay { agent, instance: None, signature }, edit).await {
            Ok(done) => {
                terminal::answer(&done, args.json, EventReplayed::words)?;
                let took =
                    EventReplayed::deserialize(&done).is_ok_and(|done| done.status.is_some_and(|status| status < 400));
                if agent.is_some() && !took {
                    worst.get_or_insert(Failure::Reported(1));
                }
            }
            Err(error) if matches!(error.refusal(), Some((_, Some("agent_not_attached")))) => {
                return Err(Failure::Failed(format!(
                    "{id}: no agent \"{name}\" of this token is attached to its endpoint; start `relay-client listen` \
                     first, or name the one that runs with --name"
                )));
            }
            Err(error) => {
                let failure = failure(&error);
                if found.len() == 1 || matches!(failure, Failure::Unreachable(_)) {
                    return Err(failure);
                }
                terminal::note(&format!("error: {}: {failure}", escaped(id)));
                worst = Some(Failure::Reported(failure.exit_code()));
            }
        }
    }
    worst.map_or(Ok(()), Err)
}

/// The kept events that a query finds, the oldest first, if they are to be replayed.
async fn found(api: &mut Api<'_>, args: &ReplayArgs, q: &str, name: &str) -> Result<Option<Vec<String>>, Failure> {
    let most = usize::try_from(args.what.at_most.unwrap_or(MOST)).unwrap_or(usize::MAX);
    let (mut ids, mut after, mut walk) = (Vec::new(), None::<String>, Walk::default());
    loop {
        let limit = PAGE.min(most - ids.len());
        let mut query = vec![("q", q.to_owned()), ("kind", "event".to_owned()), ("limit", limit.to_string())];
        query.extend(after.clone().map(|after| ("after", after)));
        let page = api.page(&query).await.map_err(|error| failure(&error))?;
        let pause = walk.step(after.as_deref(), page.next.as_deref(), page.events.len()).map_err(Failure::Failed)?;
        ids.extend(page.events.into_iter().map(|event| event.id).take(limit));
        after = page.next;
        if after.is_none() || ids.len() == most {
            break;
        }
        sleep(pause).await;
    }
    ids.reverse();
    let whom = format!(" to your agent \"{}\"", escaped(name));
    let agreed = args.what.agreed("replay", ids.len() as u64, after.is_none(), &whom)?;
    Ok(agreed.then_some(ids))
}
