//! `event tail`: what happens at a running relay, as it happens.

use relay_program::{
    Failure,
    http1::encoded,
    news::{self, NotOpened},
};

use super::super::remote::Remote;

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
    // A relay that was started anew has another token, in the same file: no refusal stays one.
    news::tail(args.json, async |last: Option<&str>| args.remote.follow(&path, last).await.map_err(NotOpened::Now))
        .await
}
