//! What is no kept event and yet stands in lists: live exchanges, refused requests, handshakes.
//!
//! All of them are in memory or in small bounded logs, so a list goes through all that there are. Invariant: what is
//! searched here is what is shown, with what lets its bearer in masked.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use relay_program::{
    event::{EventBody, EventDetail, EventSummary},
    query::{Content, Lines, Query},
};
use relay_proto::HeaderBlock;

use super::{EventSources, query::Kinds, sentences};
use crate::{
    failure::ApiError,
    journal::{self, LiveAnswer, LiveEntry},
    mask::MASKED,
    providers::{Handshake, MAX_KEPT},
    refused::{Entry, MAX_ENTRIES},
    store::Sight,
    webhook::EventId,
};

/// Refused requests of all endpoints that a list looks at.
const MAX_REFUSED_LOOKED: usize = 5 * MAX_ENTRIES;

/// A row with its id, by which all kinds are merged.
pub(super) type IdRow = (EventId, EventSummary);

/// Which rows a list wants.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub kinds: Kinds,
    pub query: &'a Query,
    pub sight: &'a Sight,
    pub after: Option<EventId>,
    pub oldest_first: bool,
}

impl Wanted<'_> {
    fn is_behind(&self, id: EventId) -> bool {
        self.after.is_none_or(|after| if self.oldest_first { id > after } else { id < after })
    }
}

/// All rows that are wanted, in order, and how many were looked at.
pub(super) async fn rows(from: &EventSources<'_>, wanted: Wanted<'_>) -> Result<(Vec<IdRow>, u64), ApiError> {
    let (mut rows, mut looked) = (Vec::new(), 0);
    let mut look = |id: EventId, summary: EventSummary, content: &mut dyn Content| {
        looked += 1;
        if wanted.query.matches(&summary, content) {
            rows.push((id, summary));
        }
    };
    let rev = from.journal.next();
    if wanted.kinds.live {
        let numbers = from.journal.rows(wanted.sight, wanted.after, wanted.oldest_first);
        for entry in numbers.into_iter().filter_map(|(_, number)| from.journal.entry(number)) {
            look(entry.id, journal::summary(&entry, rev), &mut LiveContent(&entry));
        }
    }
    if wanted.kinds.refused {
        for entry in refused(from, wanted.sight).await?.iter().filter(|entry| wanted.is_behind(entry.event_id)) {
            look(entry.event_id, refused_summary(entry, rev), &mut RefusedContent(entry));
        }
    }
    if wanted.kinds.handshake {
        let kept = from.providers.handshakes.list(None, MAX_KEPT);
        let seen = kept.iter().filter(|one| sees(wanted.sight, &one.endpoint) && wanted.is_behind(one.event_id));
        for one in seen {
            look(one.event_id, handshake_summary(one, rev), &mut Nothing);
        }
    }
    rows.sort_by_key(|(id, _)| *id);
    if !wanted.oldest_first {
        rows.reverse();
    }
    Ok((rows, looked))
}

async fn refused(from: &EventSources<'_>, sight: &Sight) -> Result<Vec<Arc<Entry>>, ApiError> {
    let (log, now) = (&from.refused.log, from.delivery.clock.now());
    let Sight::Only(names) = sight else { return Ok(log.list(None, MAX_REFUSED_LOOKED, now).await?) };
    let mut all = Vec::new();
    for name in names {
        all.extend(log.list(Some(name.as_str()), MAX_ENTRIES, now).await?);
    }
    Ok(all)
}

pub(super) fn sees(sight: &Sight, endpoint: &str) -> bool {
    match sight {
        Sight::All => true,
        Sight::Only(names) => names.iter().any(|name| name.as_str() == endpoint),
    }
}

pub(crate) fn refused_summary(entry: &Entry, rev: u64) -> EventSummary {
    let head = &entry.head;
    EventSummary {
        id: entry.event_id.to_string(),
        endpoint: entry.endpoint.to_string(),
        state: "refused".to_owned(),
        why: entry.code.to_string(),
        received_at: entry.at.to_string(),
        method: head.method.clone(),
        target: behind_endpoint(behind_host(&entry.hidden.url), entry.endpoint.as_str()).to_owned(),
        size: head.body_len.unwrap_or_default(),
        status: Some(entry.status),
        kind: "refused".to_owned(),
        provider: Some(head.provider.clone()).filter(|name| name != "none"),
        rev,
        ..EventSummary::default()
    }
}

pub(crate) fn handshake_summary(one: &Handshake, rev: u64) -> EventSummary {
    EventSummary {
        id: one.event_id.to_string(),
        endpoint: one.endpoint.clone(),
        state: "handshake".to_owned(),
        why: "challenge_answered".to_owned(),
        received_at: one.at.to_string(),
        event_type: Some(one.name.clone()),
        kind: "handshake".to_owned(),
        provider: Some(one.provider.clone()),
        rev,
        ..EventSummary::default()
    }
}

/// What follows the host in a URL.
fn behind_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// What of a target follows the endpoint, as with events that were taken. At a host of its own that is all of it.
fn behind_endpoint<'a>(target: &'a str, endpoint: &str) -> &'a str {
    let rest = target.strip_prefix('/').and_then(|rest| rest.strip_prefix(endpoint));
    rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?'])).unwrap_or(target)
}

/// All that is known of a refused request but its body. `finding` is what explains it best, where that was looked for.
pub(super) fn refused_detail(entry: &Entry, finding: Option<String>, rev: u64) -> EventDetail {
    let words = sentences::of_failure(&entry.code);
    let (headers, masked) = refused_lines(entry);
    let block: HeaderBlock = headers.iter().map(|(name, value)| (name, value)).collect();
    EventDetail {
        summary: refused_summary(entry, rev),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect(),
        masked,
        client: entry.head.client.to_string(),
        body: EventBody { kept: entry.body.len() as u64, ..journal::body(&block, 0) },
        sentence: finding.unwrap_or_else(|| words.map_or("", |words| words.sentence).to_owned()),
        advice: words.map(|words| words.advice.to_owned()),
        ..EventDetail::default()
    }
}

/// Lines as they are shown, and the names of those that are not.
fn refused_lines(entry: &Entry) -> (Vec<(String, Bytes)>, Vec<String>) {
    let mut masked = Vec::new();
    let mut line = |(name, value): &(String, Bytes)| {
        if !entry.hidden.hides(name) {
            return (name.clone(), value.clone());
        }
        if !masked.contains(name) {
            masked.push(name.clone());
        }
        (name.clone(), Bytes::from_static(MASKED.as_bytes()))
    };
    let lines = entry.head.headers.iter().map(&mut line).collect();
    (lines, masked)
}

pub(super) fn handshake_detail(one: &Handshake, serves: bool, rev: u64) -> EventDetail {
    let told = |what: &str, value: &Option<String>| value.as_ref().map(|value| format!("{what}: {value}"));
    let words = sentences::of_why("challenge_answered");
    let advice =
        told("Open this at the provider", &one.confirm_url).or_else(|| told("Give the provider this code", &one.shown));
    let hidden = "It is shown to tokens with the right `attach` alone.".to_owned();
    let advice = advice.map(|advice| if serves { advice } else { hidden });
    EventDetail {
        summary: handshake_summary(one, rev),
        client: one.client.to_string(),
        sentence: words.map_or("", |words| words.sentence).to_owned(),
        advice: advice.or_else(|| words.map(|words| words.advice.to_owned())),
        ..EventDetail::default()
    }
}

/// With what the journal leaves to be said: its sentence and its advice.
pub(super) fn live_detail(entry: &LiveEntry, rev: u64) -> EventDetail {
    let mut detail = journal::detail(entry, rev);
    let why = &detail.summary.why;
    let words = sentences::of_failure(why).or_else(|| sentences::of_why(why));
    let is_quiet = matches!(why.as_str(), "answered" | "rejected");
    detail.sentence = words.map_or("", |words| words.sentence).to_owned();
    detail.advice = words.filter(|_| !is_quiet).map(|words| words.advice.to_owned());
    for attempt in &mut detail.attempts {
        attempt.sentence.clone_from(&detail.sentence);
    }
    detail
}

/// What has no content.
pub(crate) struct Nothing;

impl Content for Nothing {
    fn headers(&mut self) -> Lines<'_> {
        Lines::new()
    }
    fn body(&mut self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }
    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        None
    }
    fn is_masked(&mut self) -> bool {
        false
    }
}

/// The content of a refused request, as it is shown.
pub(crate) struct RefusedContent<'a>(pub &'a Entry);

impl Content for RefusedContent<'_> {
    fn headers(&mut self) -> Lines<'_> {
        let lines = refused_lines(self.0).0.into_iter();
        lines.map(|(name, value)| (name.into(), Cow::Owned(value.to_vec()))).collect()
    }
    fn body(&mut self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.shown_body().to_vec())
    }
    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        None
    }
    fn is_masked(&mut self) -> bool {
        !refused_lines(self.0).1.is_empty()
    }
}

/// The content of a live exchange, as the journal keeps it.
pub(crate) struct LiveContent<'a>(pub &'a LiveEntry);

impl Content for LiveContent<'_> {
    fn headers(&mut self) -> Lines<'_> {
        lines(&self.0.headers)
    }
    fn body(&mut self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.body().to_vec())
    }
    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        match &self.0.answer {
            LiveAnswer::Handler { headers, .. } => Some((lines(headers), Cow::Owned(self.0.answer_body().to_vec()))),
            LiveAnswer::Failed { .. } => None,
        }
    }
    fn is_masked(&mut self) -> bool {
        self.0.headers.iter().any(|(_, value)| value == MASKED.as_bytes())
    }
}

fn lines(headers: &HeaderBlock) -> Lines<'_> {
    headers.iter().map(|(name, value)| (String::from_utf8_lossy(name), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urls_target_is_what_follows_the_host() {
        for (url, target) in [("https://a:1/b/c?d", "/b/c?d"), ("https://a", "/"), ("/x", "/x")] {
            assert_eq!(behind_host(url), target);
        }
    }

    #[test]
    fn a_refused_requests_target_is_what_follows_its_endpoint() {
        for (target, rest) in
            [("/pay", ""), ("/pay/x?y", "/x?y"), ("/pay?y", "?y"), ("/payments", "/payments"), ("/x", "/x")]
        {
            assert_eq!(behind_endpoint(target, "pay"), rest, "{target}");
        }
    }
}
