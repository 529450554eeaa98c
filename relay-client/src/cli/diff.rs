//! `diff`: what a second handler answers to webhooks that another one answered already.
//!
//! The events come from the relay, or from a recording. The second handler is named here, and nobody else calls it; what
//! it answers goes to no sender. A page of this user's agents shows the results.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use relay_program::{
    Failure,
    api::ShadowDiff,
    cassette::{CassetteError, CassetteEvent, CassetteReader},
    event::EventSummary,
    reason, terminal,
};
use relay_proto::printable::escaped;
use serde::Deserialize as _;

use super::{
    args::ReachArgs,
    event, play, run,
    send::{self, SignArgs},
    settings::{self, usage},
};
use crate::{
    config::{check, find::Places},
    diff::{Ignored, compare},
    handler::Handler,
    inspect,
    link::api::{Api, Walk},
    play::{shot::Bullet, signer::Signer},
    send::Manner,
    target::Target,
};

/// Events of one page of the relay's list.
const PAGE: usize = 200;
/// Of a body that is asked for: its recording has to fit into an answer of the relay.
const MAX_BODY_BYTES: u64 = 8 << 20;
/// Results told to a page at a time.
const TOLD: usize = 50;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all answers are the same, 1 some are not, 2 usage, 5 the relay or the handler is not there."
)]
pub(crate) struct DiffArgs {
    /// Only events of this endpoint
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// The second handler: a port on this machine, http://…, https://… or unix:PATH
    #[arg(long, value_name = "URL")]
    against: String,
    /// Only those that came then or later: how long ago, such as 1d, or a time
    #[arg(long, value_name = "WHEN", default_value = "1d")]
    since: String,
    /// Only those that a query finds, as the page and `event list -q` have it
    #[arg(short, long = "query", value_name = "QUERY")]
    query: Option<String>,
    /// A recording in place of the relay
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "query"])]
    from: Option<PathBuf>,
    /// A place in JSON answers that does not count, such as /data/created or /items/*/id; may be repeated
    #[arg(long, value_name = "/PLACE")]
    ignore: Vec<Ignored>,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Signs each afresh, with the secret of --secret-file
    #[arg(long, requires = "secret_file")]
    resign: bool,
    #[command(flatten)]
    sign: SignArgs,
    /// How long the handler may take to begin its answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = check::duration)]
    timeout: Duration,
    /// A PEM file with roots to believe for the handler, besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Also those that are the same
    #[arg(long)]
    all: bool,
    /// One JSON object for each comparison
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl DiffArgs {
    /// How the relay is reached, where the events come from it.
    pub(super) fn reach(&self) -> Option<&ReachArgs> {
        self.from.is_none().then_some(&self.reach)
    }
}

/// The second handler, and what has been found of it.
struct Second<'a> {
    args: &'a DiffArgs,
    handler: Handler,
    signer: Option<Signer>,
    against: String,
    untold: Vec<ShadowDiff>,
    pages: Vec<inspect::PageAt>,
    seen: usize,
    differing: usize,
    unanswered: usize,
}

pub(super) fn run(args: &DiffArgs, places: &Places, mut stdin: impl Read) -> Result<(), Failure> {
    let target: Target = args.against.parse().map_err(|error| usage("--against", &error))?;
    let against = target.to_string();
    let handler = play::handler(target, args.ca_file.clone(), args.timeout)?;
    let signer = args.resign.then(|| {
        let base_url = args.sign.public_url.clone().unwrap_or_else(|| against.clone());
        Ok::<_, Failure>(Signer::new(send::material(&args.sign, &mut stdin)?, None, base_url))
    });
    let signer = signer.transpose()?;
    let pages = inspect::pages_of(places);
    let mut second =
        Second { args, handler, signer, against, untold: Vec::new(), pages, seen: 0, differing: 0, unanswered: 0 };
    let runtime = run::runtime()?;
    let done = match &args.from {
        Some(path) => {
            let cannot = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
            let file = File::open(path).map_err(|error| cannot(reason::of_io(&error)))?;
            let recording = CassetteReader::open(BufReader::new(file)).map_err(|error| cannot(error.to_string()))?;
            runtime.block_on(second.of_recording(recording))
        }
        None => {
            let file = settings::read_file(&args.reach, places)?;
            let reach = settings::reach(&args.reach, file.as_ref(), places, stdin)?;
            let token = reach.token?.read().map_err(|error| Failure::Usage(error.to_string()))?;
            runtime.block_on(second.of_relay(&mut Api::new(&reach.way, token)))
        }
    };
    let told = runtime.block_on(second.tell());
    runtime.shutdown_background();
    done?;
    if !args.json {
        let Second { seen, differing, .. } = second;
        terminal::note(&format!("{seen} compared, {differing} differ{told}"));
    }
    match second.differing {
        0 => Ok(()),
        _ if second.unanswered == second.seen => Err(Failure::Reported(5)),
        _ => Err(Failure::Reported(1)),
    }
}

impl Second<'_> {
    async fn of_recording(
        &mut self,
        events: impl Iterator<Item = Result<CassetteEvent, CassetteError>>,
    ) -> Result<(), Failure> {
        for event in events.take(self.args.limit) {
            self.try_event(&event.map_err(|error| Failure::Usage(error.to_string()))?, None).await?;
        }
        Ok(())
    }

    /// Oldest first, as they came.
    async fn of_relay(&mut self, api: &mut Api<'_>) -> Result<(), Failure> {
        let since = check::moment(&self.args.since, Timestamp::now()).map_err(|error| usage("--since", &error))?;
        let filters = [
            ("since", Some(since.to_string())),
            ("oldest_first", Some("true".to_owned())),
            ("endpoint", self.args.endpoint.clone()),
            ("q", self.args.query.clone()),
        ];
        let (mut after, mut walk) = (None::<String>, Walk::default());
        loop {
            let left = self.args.limit - self.seen;
            let mut query: Vec<_> = filters.iter().filter_map(|(name, value)| Some((*name, value.clone()?))).collect();
            query.push(("limit", left.min(PAGE).to_string()));
            query.extend(after.clone().map(|after| ("after", after)));
            let page = api.list(&query).await.map_err(|error| event::failure(&error))?;
            let rows = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            for row in rows.iter().take(left) {
                let row = EventSummary::deserialize(row).unwrap_or_default();
                // What no handler answered has nothing to be compared with.
                if row.status.is_none() || row.attempt_count == 0 {
                    continue;
                }
                if row.size > MAX_BODY_BYTES {
                    terminal::note(&format!("{}: left out, its body is too long to be compared", escaped(&row.id)));
                    continue;
                }
                let recording = api.recording(&row.id).await.map_err(|error| event::failure(&error))?;
                let took = row.took_us.map(Duration::from_micros);
                for recorded in events_of(&recording)? {
                    self.try_event(&recorded, took).await?;
                }
            }
            let next = page["next"].as_str();
            let pause = walk.step(after.as_deref(), next, rows.len()).map_err(Failure::Failed)?;
            after = next.map(str::to_owned);
            if after.is_none() || self.seen >= self.args.limit {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_event(&mut self, event: &CassetteEvent, took: Option<Duration>) -> Result<(), Failure> {
        let mut bullet = Bullet::of(event, 1);
        if let Some(signer) = &mut self.signer {
            let now = Timestamp::now().as_second();
            signer.sign(event, &mut bullet, false, now).map_err(Failure::Usage)?;
        }
        let shot = bullet.shoot(&self.handler, Manner::default()).await;
        let mut diff = compare(event, took, &shot, &self.args.ignore);
        (diff.against, diff.at) = (self.against.clone(), Timestamp::now().to_string());
        let same = matches!(diff.verdict.as_str(), "same" | "not_recorded");
        self.seen += 1;
        self.differing += usize::from(!same);
        self.unanswered += usize::from(diff.verdict == "unanswered");
        if self.args.json {
            terminal::line(&serde_json::to_string(&diff)?)?;
        } else if !same || self.args.all {
            terminal::print(&words(&diff))?;
        }
        self.untold.push(diff);
        if self.untold.len() >= TOLD {
            self.tell().await;
        }
        Ok(())
    }

    /// Shows what was found on the pages of this user's agents, and says where.
    async fn tell(&mut self) -> String {
        let diffs = std::mem::take(&mut self.untold);
        let mut places = String::new();
        for page in &self.pages {
            if page.show(&diffs).await {
                places.push_str(&format!("; see {}agent", page.address()));
            }
        }
        places
    }
}

fn events_of(recording: &Bytes) -> Result<Vec<CassetteEvent>, Failure> {
    let read = CassetteReader::open(recording as &[u8]).and_then(|events| events.collect::<Result<Vec<_>, _>>());
    read.map_err(|error| Failure::Failed(format!("the relay's recording: {error}")))
}

fn words(diff: &ShadowDiff) -> String {
    let status = |status: Option<u16>| status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    let mut out = format!(
        "{:<12} {} -> {}  {} {} {}\n",
        diff.verdict,
        status(diff.recorded_status),
        status(diff.status),
        escaped(&diff.event_id),
        escaped(&diff.method),
        escaped(&diff.target)
    );
    if let Some(error) = &diff.error {
        out.push_str(&format!("    {}\n", escaped(error)));
    }
    for difference in diff.differences.iter().take(20) {
        out.push_str(&format!("    {}\n", escaped(difference)));
    }
    out
}
