//! Writes the log into the store, behind the requests: a restart forgets little.
//!
//! Whoever sends refused requests proves nothing, so they decide nothing here: the log in memory is the only queue, a
//! round takes a bounded part of it, endpoints in turn, and there is a pause between rounds. What the log lets go before
//! it was written is counted. Nothing that lets its bearer in is written.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::log::{Entry, Part, RefusedHead, RefusedLog};
use crate::{mask, store::RefusedRow};

const PAUSE: Duration = Duration::from_secs(1);

/// What one round writes at most.
const ROUND: Part = Part { entries: 64, of_one: 16, bytes: 1 << 20 };

/// Rounds without a pause when the relay stops.
const LAST_ROUNDS: usize = 16;

/// Between two lines of the log about the same failure.
const QUIET: Duration = Duration::from_secs(60);

impl RefusedLog {
    /// Writes the log into a store that lasts, until `stop`, and then what is left.
    pub(crate) async fn write_behind(&self, stop: CancellationToken) {
        if !self.lasts {
            return;
        }
        let mut complained: Option<Instant> = None;
        let mut last_rounds = 0;
        while last_rounds < LAST_ROUNDS {
            let entries = self.take(ROUND);
            if stop.is_cancelled() {
                last_rounds = if entries.is_empty() { LAST_ROUNDS } else { last_rounds + 1 };
            }
            let written = if entries.is_empty() {
                Ok(())
            } else {
                self.store.refuse(entries.iter().map(|entry| row(entry)).collect()).await
            };
            if let Err(why) = written {
                self.count_lost(entries.len());
                if complained.is_none_or(|at| at.elapsed() > QUIET) {
                    tracing::warn!(%why, "refused requests are not written into the store");
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
}

fn row(entry: &Entry) -> RefusedRow {
    let (mut head, body) = (entry.head.clone(), entry.shown_body());
    head.masked = head.url != entry.hidden.url || body != entry.body;
    head.url.clone_from(&entry.hidden.url);
    for (_, value) in head.headers.iter_mut().filter(|(name, _)| entry.hidden.hides(name)) {
        *value = Bytes::from_static(mask::MASKED.as_bytes());
        head.masked = true;
    }
    RefusedRow {
        endpoint: entry.endpoint.clone(),
        id: entry.event_id,
        at: entry.at,
        status: entry.status,
        code: entry.code.clone().into_owned(),
        head: serde_json::to_string(&head).expect("texts and numbers can be written"),
        body,
    }
}

/// What was written, read back; `None` for what this relay does not understand.
pub(super) fn entry(row: RefusedRow) -> Option<Entry> {
    let head: RefusedHead = serde_json::from_str(&row.head).ok()?;
    let hidden = mask::Hidden::nothing_but(head.url.clone());
    let RefusedRow { endpoint, id: event_id, at, status, code, body, .. } = row;
    Some(Entry { event_id, at, endpoint, status, code: Cow::Owned(code), head, body, hidden })
}

/// Values as Latin-1, which loses nothing.
pub(super) mod latin1 {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(in super::super) fn serialize<S: Serializer>(
        lines: &[(String, Bytes)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = |value: &Bytes| value.iter().map(|&byte| char::from(byte)).collect::<String>();
        serializer.collect_seq(lines.iter().map(|(name, value)| (name, text(value))))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, Bytes)>, D::Error> {
        let bytes = |(name, value): (String, String)| {
            let value: Option<Vec<u8>> = value.chars().map(|letter| u8::try_from(letter).ok()).collect();
            value.map(|value| (name, Bytes::from(value))).ok_or_else(|| D::Error::custom("not Latin-1"))
        };
        Vec::deserialize(deserializer)?.into_iter().map(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::log::{MAX_BODY_BYTES, tests::entry as refused},
        *,
    };
    use crate::{
        endpoint::EndpointName,
        store::{MemoryStore, Store},
        verify::Rule,
    };

    fn parts() -> (RefusedLog, Arc<dyn Store>) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 30));
        (RefusedLog::new(1 << 30, true, Arc::clone(&store)), store)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_comes_back_without_what_lets_its_bearer_in() {
        let (log, store) = parts();
        let mut one = refused("a", 1_760_000_000, 100_000);
        one.head.url = "https://hooks.example.com/a?token=hunter2".to_owned();
        one.head.headers = vec![
            ("x-a".to_owned(), Bytes::from_static(b"\xff1")),
            ("x-gitlab-token".to_owned(), Bytes::from_static(b"hunter2")),
        ];
        one.hidden = mask::Hidden::of(&Rule::Open, &one.head.url, b"");
        let id = one.event_id;
        log.record(one);
        let stop = CancellationToken::new();
        stop.cancel();
        log.write_behind(stop).await;
        let row = store.refused_request(id).await.expect("reads").expect("there");
        assert!(!row.head.contains("hunter2"), "{}", row.head);
        let back = entry(row).expect("understood");
        assert_eq!((&*back.code, back.status, back.body.len()), ("signature_mismatch", 401, MAX_BODY_BYTES));
        assert_eq!((back.head.body_len, back.head.masked), (Some(100_000), true));
        assert_eq!(back.head.headers[0].1, Bytes::from_static(b"\xff1"));
        assert_eq!(back.head.headers[1].1, Bytes::from_static(b"[masked]"));
        assert_eq!(back.head.url, "https://hooks.example.com/a?token=[masked]");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_written_at_a_bounded_pace_and_others_have_their_turn() {
        let (log, store) = parts();
        let (log, stop) = (Arc::new(log), CancellationToken::new());
        for _ in 0..900 {
            log.record(refused("loud", 1_760_000_000, 10));
        }
        log.record(refused("quiet", 1_760_000_000, 10));
        let (behind, end) = (Arc::clone(&log), stop.clone());
        let task = tokio::spawn(async move { behind.write_behind(end).await });
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
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(0));
        let log = RefusedLog::new(1 << 30, true, Arc::clone(&store));
        log.record(refused("a", 1_760_000_000, 10));
        let stop = CancellationToken::new();
        stop.cancel();
        log.write_behind(stop).await;
        assert_eq!(log.lost(), 1);
        assert!(store.refused(None, 10).await.expect("reads").is_empty());
    }
}
