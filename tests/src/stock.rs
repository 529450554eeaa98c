//! A store that is full before its relay starts, so that a long backlog is there in seconds.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use jiff::Timestamp;
use relay_proto::HeaderBlock;
use relay_server::{
    endpoint::EndpointName,
    hops::Hops,
    store::{
        Answer, Attempt, Body, ClaimedEvent, End, Grant, Head, Holder, NewEvent, Outcome, SqliteOptions, SqliteStore,
        Store, StoreError, Then, Want,
    },
    webhook::EventId,
};
use tokio::time::{Instant, sleep};

use crate::process::PATIENCE;

/// Events that are taken in, or settled, at once.
const BATCH: u64 = 500;

/// How long before now the events came, so that what is to be tried again is due and nothing else was meanwhile.
const AGO: Duration = Duration::from_secs(60);

/// What has become of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Nothing: they wait for their first attempt.
    New,
    /// A first attempt got a 500; the second is due.
    Failed,
}

/// Puts so many events for one endpoint into the SQLite store at `path`, and closes it. Nothing else may have it open.
///
/// # Errors
/// If the store does not take them.
pub async fn fill(path: &Path, endpoint: &str, events: u64, body_bytes: usize, past: Past) -> anyhow::Result<()> {
    let store = open(path).await?;
    let endpoint = EndpointName::parse(endpoint)?;
    let now = Timestamp::now();
    let came = now.checked_sub(AGO)?;
    let body = Bytes::from(vec![b'x'; body_bytes]);
    for first in (0..events).step_by(BATCH as usize) {
        let count = BATCH.min(events - first);
        store.append((0..count).map(|_| event(&endpoint, &body, came)).collect(), came).await?;
        if past == Past::Failed {
            let wants = vec![Want { endpoint: endpoint.clone(), oldest: count as usize, newest: 0 }];
            let claimed = store.claim(wants, Grant { holder: Holder::draw(), until: now }, came).await?.deliveries;
            ensure!(claimed.len() as u64 == count, "{} of {count} events were due", claimed.len());
            store.settle(claimed.iter().map(|claim| failed(claim, came, now)).collect(), came).await?;
        }
    }
    Ok(())
}

/// Waits for a lock that a moment ago was this process's own: a child that another test started has it until it runs its
/// program.
async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match SqliteStore::open(SqliteOptions { path: path.to_owned(), max_bytes: u64::MAX }) {
            Err(StoreError::InUse(_)) if Instant::now() < until => sleep(Duration::from_millis(10)).await,
            opened => return opened,
        }
    }
}

fn event(endpoint: &EndpointName, body: &Bytes, came: Timestamp) -> NewEvent {
    let length = body.len().to_string();
    let lines =
        [("content-type", "application/json"), ("user-agent", "GitHub-Hookshot/0123456"), ("content-length", &length)];
    let mut head = Head::sample(&format!("/{}", endpoint.as_str()));
    head.sent.headers = lines.into_iter().collect();
    NewEvent {
        endpoint: endpoint.clone(),
        id: EventId::new(),
        received_at: came,
        head,
        body: Body::Bytes(body.clone()),
        event_type: None,
        sender_id: None,
        mark: None,
        dedup: None,
        order_key: None,
        replay_of: None,
        lease: None,
    }
}

fn failed(claim: &ClaimedEvent, at: Timestamp, again_at: Timestamp) -> End {
    let answer = Answer { status: 500, headers: HeaderBlock::new(), body: Bytes::new(), truncated: false };
    let attempt = Attempt {
        number: claim.lease.attempt,
        fence: claim.lease.fence,
        started_at: at,
        duration: Duration::from_millis(1),
        outcome: Outcome::Answered,
        agent: Some("earlier".into()),
        answer: Some(answer),
        resigned: false,
        sha256_in: None,
        hops: Hops::default(),
    };
    End { endpoint: claim.summary.endpoint.clone(), id: claim.summary.id, attempt, then: Then::Retry(again_at) }
}
