//! `event tail`: what happens at this token's endpoints, as it happens.
//!
//! The stream is opened anew whenever it ends, from where it was; only a first one that cannot be opened ends the
//! command.

use std::time::Duration;

use clap::Args;
use relay_program::{
    Failure,
    http1::{Connection, encoded},
    news::{NewsParser, Tail, Told, next},
    terminal,
};
use tokio::time::{sleep, timeout};

use super::{super::args::ReachArgs, failure};
use crate::link::{LinkError, Stream, api::Api};

/// The relay says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// How long until the stream is opened anew: the first wait, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Only those of this endpoint
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Only those that this search finds, such as 'is:failed type:invoice.*'
    #[arg(short, long, value_name = "SEARCH")]
    query: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
}

pub(super) async fn tail(api: &mut Api<'_>, args: &TailArgs) -> Result<(), Failure> {
    let endpoint = args.endpoint.as_ref().map(|name| format!("endpoint:{name}"));
    let search: Vec<_> = endpoint.iter().chain(&args.query).map(String::as_str).collect();
    let query = format!("types=rows&q={}", encoded(&search.join(" ")));
    let (mut tail, mut pause) = (Tail::new(args.json), PAUSES.0);
    let mut open = Some(api.follow(&query, None).await.map_err(|error| failure(&error))?);
    loop {
        let again = match open.take() {
            Some(relay) => {
                pause = PAUSES.0;
                match follow(relay, &mut tail).await? {
                    Told::Bye { again_ms } => Duration::from_millis(again_ms).min(PAUSES.1),
                    Told::GoOn => pause,
                }
            }
            None => {
                pause = (2 * pause).min(PAUSES.1);
                pause
            }
        };
        sleep(again).await;
        match api.follow(&query, tail.last_id.as_deref()).await {
            Ok(relay) => open = Some(relay),
            // The relay says no: asking again does not help.
            Err(error @ LinkError::Refused { .. }) if !is_for_now(&error) => return Err(failure(&error)),
            Err(error) => terminal::note(&format!("no news at the moment: {error}")),
        }
    }
}

/// Prints what comes until the stream ends or breaks.
async fn follow(mut relay: Connection<Stream>, tail: &mut Tail) -> Result<Told, Failure> {
    let mut parser = NewsParser::default();
    while let Ok(Ok(Some(message))) = timeout(SILENCE, next(&mut relay, &mut parser)).await {
        if let told @ Told::Bye { .. } = tail.tell(&message)? {
            return Ok(told);
        }
    }
    Ok(Told::GoOn)
}

/// Whether a refusal may be over in a moment.
fn is_for_now(error: &LinkError) -> bool {
    error.refusal().is_some_and(|(status, _)| status == 429 || status.is_server_error())
}
