//! Writes the log into the store, behind the requests: a restart forgets little.
//!
//! Whoever sends refused requests proves nothing, so they decide nothing here: the log in memory is the only queue, a
//! round takes a bounded part of it, endpoints in turn, and there is a pause between rounds. What the log lets go before
//! it was written is counted. Nothing that lets its bearer in is written.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::log::{Entry, Part, RefusedLog};
use crate::{
    endpoint::EndpointName,
    mask,
    store::{RefusedRow, Store},
};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// What one round writes at most.
const ROUND: Part = Part { entries: 64, of_one: 16, bytes: 1 << 20 };

/// Rounds without a pause when the relay stops.
const LAST_ROUNDS: usize = 16;

/// Between two lines of the log about the same failure.
const QUIET: Duration = Duration::from_secs(60);

/// A request's head as it is written.
#[derive(Deserialize, Serialize)]
struct Head {
    provider: String,
    client: IpAddr,
    method: String,
    url: String,
    /// Values as Latin-1, which loses nothing.
    headers: Vec<(String, String)>,
    body_len: Option<u64>,
    /// Whether something was left out.
    masked: bool,
}

/// Writes until `stop`, and then what is left.
pub(super) async fn write(log: &RefusedLog, store: &Arc<dyn Store>, stop: CancellationToken) {
    let mut complained: Option<Instant> = None;
    let mut last_rounds = 0;
    while last_rounds < LAST_ROUNDS {
        let entries = log.take(ROUND);
        if stop.is_cancelled() {
            last_rounds = if entries.is_empty() { LAST_ROUNDS } else { last_rounds + 1 };
        }
        if let Err(why) = write_round(store, &entries).await {
            log.count_lost(entries.len());
            if complained.is_none_or(|at| at.elapsed() > QUIET) {
                tracing::warn!(why, "refused requests are not written into the store");
                complained = Some(Instant::now());
            }
        }
        if !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(PAUSE) => {}
            }
        }
    }
}

async fn write_round(store: &Arc<dyn Store>, entries: &[Arc<Entry>]) -> Result<(), String> {
    let rows: Vec<RefusedRow> = entries.iter().filter_map(|entry| row(entry)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    store.refuse(rows).await.map_err(|error| error.to_string())
}

fn row(entry: &Entry) -> Option<RefusedRow> {
    let (url, body) = (entry.hidden.url.clone(), entry.shown_body());
    let mut masked = url != entry.url || body != entry.body;
    let mut line = |(name, value): &(String, Bytes)| {
        if entry.hidden.hides(name) {
            masked = true;
            return (name.clone(), mask::MASKED.to_owned());
        }
        (name.clone(), value.iter().map(|&byte| char::from(byte)).collect())
    };
    let headers = entry.headers.iter().map(&mut line).collect();
    let head = Head {
        provider: entry.provider.clone(),
        client: entry.client,
        method: entry.method.clone(),
        url,
        headers,
        body_len: entry.body_len,
        masked,
    };
    Some(RefusedRow {
        endpoint: EndpointName::parse(&entry.endpoint).ok()?,
        id: entry.event_id,
        at: entry.at,
        status: entry.status,
        code: entry.code.clone().into_owned(),
        head: serde_json::to_string(&head).ok()?,
        body,
    })
}

/// What was written, read back; `None` for what this relay does not understand.
pub(super) fn entry(row: RefusedRow) -> Option<Entry> {
    let head: Head = serde_json::from_str(&row.head).ok()?;
    let bytes = |(name, value): (String, String)| {
        let value: Option<Vec<u8>> = value.chars().map(|letter| u8::try_from(letter).ok()).collect();
        value.map(|value| (name, Bytes::from(value)))
    };
    let hidden = mask::Hidden::nothing_but(head.url.clone());
    Some(Entry {
        event_id: row.id,
        at: row.at,
        endpoint: row.endpoint.as_str().to_owned(),
        provider: head.provider,
        client: head.client,
        method: head.method,
        url: head.url,
        headers: head.headers.into_iter().map(bytes).collect::<Option<_>>()?,
        body: row.body,
        body_len: head.body_len,
        status: row.status,
        code: Cow::Owned(row.code),
        masked: head.masked,
        hidden,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::log::{MAX_BODY_BYTES, tests::entry as refused},
        *,
    };
    use crate::{store::MemoryStore, verify::Rule};

    fn parts() -> (RefusedLog, Arc<dyn Store>) {
        (RefusedLog::new(1 << 30, true), Arc::new(MemoryStore::new(1 << 30)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_comes_back_without_what_lets_its_bearer_in() {
        let (log, store) = parts();
        let mut one = refused("a", 1_760_000_000, 100_000);
        one.url = "https://hooks.example.com/a?token=hunter2".to_owned();
        one.headers = vec![
            ("x-a".to_owned(), Bytes::from_static(b"\xff1")),
            ("x-gitlab-token".to_owned(), Bytes::from_static(b"hunter2")),
        ];
        one.hidden = mask::Hidden::of(&Rule::Open, &one.url, b"");
        let id = one.event_id;
        log.record(one);
        let stop = CancellationToken::new();
        stop.cancel();
        write(&log, &store, stop).await;
        let row = store.refused_request(id).await.expect("reads").expect("there");
        assert!(!row.head.contains("hunter2"), "{}", row.head);
        let back = entry(row).expect("understood");
        assert_eq!((&*back.code, back.status, back.body.len()), ("signature_mismatch", 401, MAX_BODY_BYTES));
        assert_eq!((back.body_len, back.masked), (Some(100_000), true));
        assert_eq!(back.headers[0].1, Bytes::from_static(b"\xff1"));
        assert_eq!(back.headers[1].1, Bytes::from_static(b"[masked]"));
        assert_eq!(back.url, "https://hooks.example.com/a?token=[masked]");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_written_at_a_bounded_pace_and_others_have_their_turn() {
        let (log, store) = parts();
        let (log, stop) = (Arc::new(log), CancellationToken::new());
        for _ in 0..900 {
            log.record(refused("loud", 1_760_000_000, 10));
        }
        log.record(refused("quiet", 1_760_000_000, 10));
        let (behind, kept, end) = (Arc::clone(&log), Arc::clone(&store), stop.clone());
        let task = tokio::spawn(async move { write(&behind, &kept, end).await });
        sleep(PAUSE / 2).await;
        let written = |endpoint: &str| store.refused(Some(EndpointName::parse(endpoint).expect("a name")), 1000);
        assert_eq!(written("loud").await.expect("reads").len(), ROUND.of_one);
        assert_eq!(written("quiet").await.expect("reads").len(), 1);
        sleep(3 * PAUSE).await;
        assert_eq!(written("loud").await.expect("reads").len(), 4 * ROUND.of_one);
        stop.cancel();
        task.await.expect("ends");
        assert_eq!(written("loud").await.expect("reads").len(), (4 + LAST_ROUNDS) * ROUND.of_one);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_is_left_to_the_events() {
        let (log, _) = parts();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(0));
        log.record(refused("a", 1_760_000_000, 10));
        let stop = CancellationToken::new();
        stop.cancel();
        write(&log, &store, stop).await;
        assert_eq!(log.lost(), 1);
        assert!(store.refused(None, 10).await.expect("reads").is_empty());
    }
}
