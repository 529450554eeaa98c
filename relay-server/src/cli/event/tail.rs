//! `event tail`: what happens at a running relay, as it happens.
//!
//! The stream is opened anew whenever it ends, from where it was; only a first one that cannot be opened ends the
//! command.

use std::time::Duration;

use relay_program::{
    Failure,
    http1::{Connection, encoded},
    news::{NewsParser, Tail, Told, next},
    terminal,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::super::remote::Remote;

/// The relay says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// How long until the stream is opened anew: the first wait, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Only those of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Only those that this search finds, such as 'is:failed type:invoice.*'
    #[arg(short, long, value_name = "SEARCH")]
    query: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(args: &TailArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(anyhow::Error::from)?;
    runtime.block_on(tail(args))
}

async fn tail(args: &TailArgs) -> Result<(), Failure> {
    let endpoint = args.endpoint.as_ref().map(|name| format!("endpoint:{name}"));
    let search: Vec<_> = endpoint.iter().chain(&args.query).map(String::as_str).collect();
    let path = format!("/api/v1/stream?types=rows&q={}", encoded(&search.join(" ")));
    let (mut tail, mut pause) = (Tail::new(args.json), PAUSES.0);
    let mut open = Some(args.remote.follow(&path, None).await?);
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
        match args.remote.follow(&path, tail.last_id.as_deref()).await {
            Ok(relay) => open = Some(relay),
            // A relay that was started anew has another token, in the same file.
            Err(error) => terminal::note(&format!("no news at the moment: {error}")),
        }
    }
}

/// Prints what comes until the stream ends or breaks.
async fn follow(mut relay: Connection<TcpStream>, tail: &mut Tail) -> Result<Told, Failure> {
    let mut parser = NewsParser::default();
    while let Ok(Ok(Some(message))) = timeout(SILENCE, next(&mut relay, &mut parser)).await {
        if let told @ Told::Bye { .. } = tail.tell(&message)? {
            return Ok(told);
        }
    }
    Ok(Told::GoOn)
}
