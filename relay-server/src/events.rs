//! Questions about kept events and their answers, the same for every listener that takes such questions.
//!
//! Knows nothing of HTTP's framing, tokens or command lines: whoever asks says which endpoints may be seen
//! ([`Sight`]) and how much one question may cost ([`ListBounds`]). An event out of sight is as one that does not exist.

mod dead;
mod edit;
mod export;
mod list;
mod live;
mod others;
mod query;
pub(crate) mod sentences;
mod shown;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use relay_program::event::EventDetail;
use relay_schemes::{Refusal, explain::Finding};

pub(crate) use self::{
    dead::groups as dead_groups,
    edit::changed,
    export::{ExportForm, Exported, export},
    list::{count, filter, kept, list},
    live::{again as live_again, edit as live_edit, whole_body as whole_live_body},
    others::{LiveContent, Nothing, RefusedContent, handshake_summary, refused_summary},
    query::{EventQuery, mistaken},
    shown::{detail, replayed, summary},
};
use crate::{
    delivery::{Delivery, NotReplayed},
    failure::{ApiError, ApiErrorKind},
    journal::{Journal, LiveEntry},
    providers::{Handshake, MAX_KEPT, Providers},
    refused::{Entry, Refused},
    routes::Routes,
    store::{Filter, MAX_RANGE_BYTES, PageRequest, Record, Sight, State, Store, Summary},
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
            NotReplayed::MayNotSign => ApiErrorKind::MayNotSign,
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

/// Where events of all kinds are.
#[derive(Clone, Copy)]
pub(crate) struct EventSources<'a> {
    pub delivery: &'a Delivery,
    pub journal: &'a Journal,
    pub refused: &'a Refused,
    pub providers: &'a Providers,
    pub routes: &'a Arc<Routes>,
}

/// One event, of whatever kind.
pub(crate) enum FoundEvent {
    Kept(Box<Record>),
    Live(Arc<LiveEntry>),
    Refused(Arc<Entry>),
    Handshake(Arc<Handshake>),
}

/// An event of any kind by its id, or by its sender's own.
pub(crate) async fn look_up(from: &EventSources<'_>, id: &str, sight: &Sight) -> Result<FoundEvent, ApiError> {
    let now = from.delivery.clock.now();
    let why = match find(&from.delivery.store, id, sight, now).await {
        Ok(record) => return Ok(FoundEvent::Kept(Box::new(record))),
        Err(why) if why.kind == ApiErrorKind::NotFound => why,
        Err(why) => return Err(why),
    };
    if let Some(entry) = from.journal.find(id, sight) {
        return Ok(FoundEvent::Live(entry));
    }
    let Ok(id) = id.parse::<EventId>() else { return Err(why) };
    if let Some(entry) = from.refused.log.find(id, now).await?.filter(|entry| sight.sees(&entry.endpoint)) {
        return Ok(FoundEvent::Refused(entry));
    }
    let handshakes = from.providers.handshakes.list(None, MAX_KEPT);
    let found = handshakes.into_iter().find(|one| one.event_id == id && others::sees(sight, &one.endpoint));
    found.map(FoundEvent::Handshake).ok_or(why)
}

impl FoundEvent {
    pub(crate) fn id(&self) -> EventId {
        match self {
            Self::Kept(record) => record.summary.id,
            Self::Live(entry) => entry.id,
            Self::Refused(entry) => entry.event_id,
            Self::Handshake(one) => one.event_id,
        }
    }

    /// What is in memory of the body of anything but a kept event, as it is shown.
    pub(crate) fn kept_body(&self) -> Bytes {
        match self {
            Self::Live(entry) => entry.body(),
            Self::Refused(entry) => entry.shown_body(),
            Self::Kept(_) | Self::Handshake(_) => Bytes::new(),
        }
    }

    /// What the handler answered in an attempt; `None` where there was no such attempt, or no answer.
    pub(crate) fn answer_body(&self, number: u32) -> Option<Bytes> {
        match self {
            Self::Kept(record) => {
                let attempt = record.attempts.iter().rfind(|attempt| attempt.number == number)?;
                attempt.answer.as_ref().map(|answer| answer.body.clone())
            }
            Self::Live(entry) => (number == 1).then(|| entry.answer_body()),
            Self::Refused(_) | Self::Handshake(_) => None,
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        match self {
            Self::Kept(record) => record.summary.endpoint.as_str(),
            Self::Live(entry) => entry.endpoint.name.as_str(),
            Self::Refused(entry) => entry.endpoint.as_str(),
            Self::Handshake(one) => &one.endpoint,
        }
    }

    /// All that is known of it but its body. Whoever sees all endpoints is told the usual mistake behind a refusal; who may
    /// not serve the endpoint (`serves`) is not told what a handshake says, since it may open the provider's side.
    pub(crate) async fn detail(&self, from: &EventSources<'_>, sight: &Sight, serves: bool) -> EventDetail {
        let rev = from.journal.next();
        match self {
            Self::Kept(record) => {
                let endpoint = from.delivery.endpoint(&record.summary.endpoint);
                let repeats = from.delivery.repeats(record.summary.id);
                EventDetail { repeats, ..detail(record, endpoint.as_deref(), rev) }
            }
            Self::Live(entry) => others::live_detail(entry, rev),
            Self::Refused(entry) => {
                let finding = if matches!(sight, Sight::All) { explained(from, entry).await } else { None };
                others::refused_detail(entry, finding, rev)
            }
            Self::Handshake(one) => others::handshake_detail(one, serves, rev),
        }
    }
}

/// The usual mistake behind a refusal as a sentence, if one is found, and nothing else is being explained.
async fn explained(from: &EventSources<'_>, entry: &Arc<Entry>) -> Option<String> {
    let is_whole = entry.head.body_len.is_none_or(|len| len <= entry.body.len() as u64);
    let is_of_proof = Refusal::ALL.iter().any(|refusal| refusal.code() == entry.code);
    if !is_whole || !is_of_proof || entry.head.masked {
        return None;
    }
    let endpoint = from.routes.endpoint(entry.endpoint.as_str()).cloned()?;
    let found = from.refused.explainer.explain(Arc::clone(from.routes), endpoint, Arc::clone(entry)).await?;
    let found = found.first()?;
    let says_more = !matches!(found, Finding::Refused(_) | Finding::NothingUsual { .. } | Finding::Verifies);
    says_more.then(|| sentences::of_finding(&found.to_string()))
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

/// A whole body as it came, for who delivers it.
pub(crate) async fn raw_body(delivery: &Delivery, event: &Summary) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    while (whole.len() as u64) < event.size {
        let at = whole.len() as u64;
        let range = at..event.size.min(at + MAX_RANGE_BYTES);
        let part = delivery.store.body(event.endpoint.clone(), event.id, range, delivery.clock.now()).await?;
        match part.filter(|part| !part.is_empty()) {
            Some(part) => whole.extend_from_slice(&part),
            None => return Err(missing()),
        }
    }
    Ok(whole.into())
}

pub(crate) const fn word(state: State) -> &'static str {
    state.word()
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
            replay_of: None,
            lease: None,
        };
        store.append(vec![event], now).await.expect("kept");
        store.backlog(Sight::All).await.expect("its row is in the index now");
        let stranger = rusqlite::Connection::open(&path).expect("a connection");
        assert_eq!(stranger.execute("UPDATE event SET place = place + 1", []).expect("changed"), 1);
        let asked = id.to_string();
        let kind = async |seen: &[EndpointName]| {
            find(&store, &asked, &Sight::Only(seen.to_vec()), now).await.expect_err("it cannot be read").kind
        };
        assert_eq!(kind(std::slice::from_ref(&ours)).await, ApiErrorKind::NotFound);
        assert_eq!(kind(&[ours, theirs]).await, ApiErrorKind::Damaged);
    }
}
