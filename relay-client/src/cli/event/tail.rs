//! `event tail`: what happens at this token's endpoints, as it happens.

use clap::Args;
use relay_program::{
    Failure,
    http1::encoded,
    news::{self, NotOpened},
};

use super::{super::args::ReachArgs, failure};
use crate::link::{LinkError, api::Api};

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
    news::tail(args.json, async |last: Option<&str>| {
        api.follow(&query, last).await.map_err(|error| match error {
            LinkError::Refused { .. } if !is_for_now(&error) => NotOpened::Ever(failure(&error)),
            _ => NotOpened::Now(failure(&error)),
        })
    })
    .await
}

/// Whether a refusal may be over in a moment.
fn is_for_now(error: &LinkError) -> bool {
    error.refusal().is_some_and(|(status, _)| status == 429 || status.is_server_error())
}
