//! Questions about kept events and their answers, the same for every listener that takes such questions.
//!
//! Knows nothing of HTTP's framing, tokens or command lines: whoever asks says which endpoints may be seen
//! ([`Sight`]) and how much one question may cost ([`ListBounds`]). An event out of sight is as one that does not exist.

mod query;
mod shown;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use relay_program::event::EventSummary;
use serde::Serialize;

pub(crate) use self::{
    query::EventQuery,
    shown::{detail, replayed, summary},
};
use crate::{
    delivery::{Delivery, NotReplayed},
    failure::{ApiError, ApiErrorKind},
    store::{Cursor, Filter, MAX_RANGE_BYTES, PageRequest, Record, Sight, State, Store, Summary},
    verify::CannotSign,
    webhook::EventId,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct ListBounds {
    pub default_limit: usize,
    pub max_limit: usize,
    /// Pages that a list looks through before it says where to go on.
    pub max_pages: usize,
}

impl From<NotReplayed> for ApiError {
    fn from(why: NotReplayed) -> Self {
        let kind = match why {
            NotReplayed::Store(why) => return why.into(),
            NotReplayed::Not(None) => ApiErrorKind::NotFound,
            NotReplayed::Not(Some(_)) => ApiErrorKind::WrongState,
            NotReplayed::NoEndpoint => ApiErrorKind::EndpointGone,
            NotReplayed::Live => ApiErrorKind::Live,
            NotReplayed::NoAgent => ApiErrorKind::AgentNotAttached,
            NotReplayed::Busy => ApiErrorKind::Busy,
            NotReplayed::CannotSign(CannotSign::Undated) => ApiErrorKind::MayNotReplay,
            NotReplayed::CannotSign(_) => ApiErrorKind::CannotSign,
            NotReplayed::ShowsCredential => ApiErrorKind::NeedsAttach,
        };
        Self::new(kind, why.to_string())
    }
}

fn missing() -> ApiError {
    ApiError::not_found(
        "no kept event has this id; see `event list`, and `event list --state refused` for what was refused",
    )
}

/// What stands in the place of each byte of a credential.
const HIDDEN: u8 = b'*';

/// Longest body that is looked through for a credential, in bytes; of a longer one nothing is shown.
const MAX_LOOKED_THROUGH_BYTES: u64 = 32 * 1024 * 1024;

#[derive(Serialize)]
pub(crate) struct EventPage {
    events: Vec<EventSummary>,
    /// After which event it goes on.
    next: Option<String>,
}

/// A part of a list. An endpoint out of sight is as one that does not exist.
pub(crate) async fn list(
    delivery: &Delivery,
    asked: &EventQuery,
    sight: &Sight,
    bounds: ListBounds,
) -> Result<EventPage, ApiError> {
    let store = &delivery.store;
    let mut filter = asked.filter()?;
    if let Sight::Only(seen) = sight {
        match filter.endpoints.first() {
            Some(wanted) if seen.contains(wanted) => {}
            // Without any, a filter would let every endpoint pass.
            None if !seen.is_empty() => filter.endpoints.clone_from(seen),
            _ => return Err(ApiError::not_found("no endpoint of this name is open to this token")),
        }
    }
    let limit = asked.limit.unwrap_or(bounds.default_limit).clamp(1, bounds.max_limit);
    let mut after = asked.after()?;
    let mut events = Vec::new();
    for _ in 0..bounds.max_pages {
        let page = PageRequest { limit: limit - events.len(), after: after.clone(), oldest_first: asked.oldest_first };
        let page = store.list(filter.clone(), page).await?;
        events.extend(page.events.iter().map(|event| summary(event, delivery.endpoint(&event.endpoint).as_deref())));
        after = page.next;
        if after.is_none() || events.len() >= limit {
            break;
        }
    }
    let next = after.map(|Cursor(id)| id.to_string());
    Ok(EventPage { events, next })
}

/// An event by its id, or by its sender's own.
pub(crate) async fn find(store: &Arc<dyn Store>, id: &str, sight: &Sight, now: Timestamp) -> Result<Record, ApiError> {
    if let Ok(id) = id.parse::<EventId>() {
        return store.event(sight.clone(), id, now).await?.ok_or_else(missing);
    }
    let endpoints = match sight {
        Sight::All => Vec::new(),
        Sight::Only(seen) if seen.is_empty() => return Err(missing()),
        Sight::Only(seen) => seen.clone(),
    };
    let filter = Filter { endpoints, sender_id: Some(id.to_owned()), ..Filter::default() };
    let page = PageRequest { limit: 1, after: None, oldest_first: false };
    let found = store.list(filter, page).await?;
    let summary = found.events.first().filter(|summary| sight.sees(&summary.endpoint)).ok_or_else(missing)?;
    store.event(summary.endpoint.clone().into(), summary.id, now).await?.ok_or_else(missing)
}

/// A part of a body, from `offset`, at most `most` bytes. A credential that stands in it by its provider's row is hidden
/// behind as many asterisks.
pub(crate) async fn part(delivery: &Delivery, event: &Summary, offset: u64, most: u64) -> Result<Bytes, ApiError> {
    let end = event.size.min(offset.saturating_add(most.min(MAX_RANGE_BYTES)));
    if offset >= end {
        return Ok(Bytes::new());
    }
    let read = async |range: Range<u64>| {
        let part = delivery.store.body(event.endpoint.clone(), event.id, range, delivery.clock.now()).await?;
        part.ok_or_else(missing)
    };
    let part = read(offset..end).await?;
    let endpoint = delivery.endpoint(&event.endpoint);
    let Some(provider) = endpoint.as_ref().and_then(|it| it.verify.provider()).filter(|it| it.hides_in_body()) else {
        return Ok(part);
    };
    // Where the credential stands is known only from the whole.
    if event.size > MAX_LOOKED_THROUGH_BYTES {
        return Ok(vec![HIDDEN; part.len()].into());
    }
    let mut whole = Vec::new();
    while (whole.len() as u64) < event.size {
        let at = whole.len() as u64;
        let next = read(at..event.size.min(at + MAX_RANGE_BYTES)).await?;
        if next.is_empty() {
            return Err(missing());
        }
        whole.extend_from_slice(&next);
    }
    for credential in provider.credentials_in(&whole) {
        if let Some(credential) = whole.get_mut(credential) {
            credential.fill(HIDDEN);
        }
    }
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
    Ok(Bytes::copy_from_slice(&whole[place(offset)..place(offset + part.len() as u64)]))
}

pub(crate) fn word(state: State) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointName;
    use crate::store::{Body, Head, NewEvent, SqliteOptions, SqliteStore};

    #[tokio::test]
    async fn a_damaged_event_out_of_sight_is_as_one_that_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("relay.db");
        let store = SqliteStore::open(SqliteOptions { path: path.clone(), max_bytes: 1 << 30 }).expect("a store");
        let store: Arc<dyn Store> = Arc::new(store);
        let [ours, theirs] = ["ours", "theirs"].map(|name| EndpointName::parse(name).expect("a name"));
        let (id, now) = (EventId::new(), Timestamp::now());
        let event = NewEvent {
            endpoint: theirs.clone(),
            id,
            received_at: now,
            head: Head::sample("/"),
            body: Body::Bytes("body".into()),
            event_type: None,
            sender_id: None,
            dedup: None,
            mark: None,
            order_key: None,
            lease: None,
        };
        store.append(vec![event], now).await.expect("kept");
        store.backlog(Sight::All).await.expect("its row is in the index now");
        let stranger = rusqlite::Connection::open(&path).expect("a connection");
        assert_eq!(stranger.execute("UPDATE event SET body_sha256 = zeroblob(32)", []).expect("changed"), 1);
        let asked = id.to_string();
        let kind = async |seen: &[EndpointName]| {
            find(&store, &asked, &Sight::Only(seen.to_vec()), now).await.expect_err("it cannot be read").kind
        };
        assert_eq!(kind(std::slice::from_ref(&ours)).await, ApiErrorKind::NotFound);
        assert_eq!(kind(&[ours, theirs]).await, ApiErrorKind::Damaged);
    }
}
