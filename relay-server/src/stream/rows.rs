//! Records of the journal as rows, and what they carry for a search.

use std::borrow::Cow;

use bytes::Bytes;
use relay_program::{
    event::EventSummary,
    query::{Content, Lines, Query},
};
use relay_proto::HeaderBlock;

use crate::{
    delivery::Delivery,
    events,
    journal::{self, LiveAnswer, LiveEntry, Record},
    mask::MASKED,
    refused,
    store::{Sight, Summary},
};

/// A record as a row. Its number says which of two rows of one event is newer.
pub(super) fn row(delivery: &Delivery, record: &Record, number: u64) -> EventSummary {
    match record {
        Record::Live(entry) => journal::summary(entry, number),
        Record::Kept(event) => {
            let endpoint = delivery.endpoint(&event.endpoint);
            EventSummary { rev: number, ..events::summary(event, endpoint.as_deref()) }
        }
        Record::Refused(entry) => EventSummary {
            id: entry.event_id.to_string(),
            endpoint: entry.endpoint.to_string(),
            state: "refused".to_owned(),
            why: entry.code.clone().into_owned(),
            received_at: entry.at.to_string(),
            method: entry.head.method.clone(),
            target: target(&entry.hidden.url).to_owned(),
            size: entry.head.body_len.unwrap_or_default(),
            status: Some(entry.status),
            kind: "refused".to_owned(),
            provider: Some(entry.head.provider.clone()).filter(|name| name != "none"),
            rev: number,
            ..EventSummary::default()
        },
        Record::Handshake(handshake) => EventSummary {
            id: handshake.event_id.to_string(),
            endpoint: handshake.endpoint.clone(),
            state: "handshake".to_owned(),
            why: handshake.name.clone(),
            received_at: handshake.at.to_string(),
            kind: "handshake".to_owned(),
            provider: Some(handshake.provider.clone()),
            rev: number,
            ..EventSummary::default()
        },
    }
}

/// What of a URL follows its host.
fn target(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    behind.find('/').map_or("/", |at| &behind[at..])
}

/// Whether a record fits that its row alone does not decide. `None` where it cannot be read.
pub(super) async fn fits(delivery: &Delivery, query: &Query, row: &EventSummary, record: &Record) -> Option<bool> {
    Some(match record {
        Record::Live(entry) => query.matches(row, &mut OfLive(entry)),
        Record::Refused(entry) => query.matches(row, &mut OfRefused(entry)),
        Record::Handshake(_) => query.matches(row, &mut Nothing),
        Record::Kept(event) => {
            let mut kept = OfKept::read(delivery, query, event).await?;
            query.matches(row, &mut kept)
        }
    })
}

/// Whether a record's own content is at hand.
pub(super) fn is_in_store(record: &Record) -> bool {
    matches!(record, Record::Kept(_))
}

fn lines(headers: &HeaderBlock) -> Lines<'_> {
    headers.iter().map(|(name, value)| (String::from_utf8_lossy(name), Cow::Borrowed(value))).collect()
}

struct OfLive<'a>(&'a LiveEntry);

impl Content for OfLive<'_> {
    fn headers(&mut self) -> Lines<'_> {
        lines(&self.0.head.headers)
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        self.0.body().to_vec().into()
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        match &self.0.answer {
            LiveAnswer::Handler { headers, .. } => Some((lines(headers), self.0.answer_body().to_vec().into())),
            LiveAnswer::Failed { .. } => None,
        }
    }

    fn is_masked(&mut self) -> bool {
        self.0.head.headers.iter().any(|(_, value)| value == MASKED.as_bytes())
    }
}

struct OfRefused<'a>(&'a refused::Entry);

impl Content for OfRefused<'_> {
    fn headers(&mut self) -> Lines<'_> {
        let shown = |(name, value): &'_ (String, Bytes)| {
            let value = if self.0.hidden.hides(name) { Bytes::from_static(MASKED.as_bytes()) } else { value.clone() };
            (Cow::Owned(name.clone()), Cow::Owned(value.to_vec()))
        };
        self.0.head.headers.iter().map(shown).collect()
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        self.0.shown_body().to_vec().into()
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        None
    }

    fn is_masked(&mut self) -> bool {
        self.0.head.headers.iter().any(|(name, _)| self.0.hidden.hides(name))
    }
}

struct Nothing;

impl Content for Nothing {
    fn headers(&mut self) -> Lines<'_> {
        Lines::new()
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"")
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        None
    }

    fn is_masked(&mut self) -> bool {
        false
    }
}

/// A kept event as the store has it, the beginning of its body alone.
struct OfKept {
    headers: Vec<(String, String)>,
    body: Bytes,
    answer: Option<(HeaderBlock, Bytes)>,
}

/// The beginning of a kept body that is looked through, in bytes.
const MAX_BODY_BYTES: u64 = 64 * 1024;

impl OfKept {
    async fn read(delivery: &Delivery, query: &Query, event: &Summary) -> Option<Self> {
        let (sight, now, needs) = (Sight::from(event.endpoint.clone()), delivery.clock.now(), query.needs());
        let mut record = delivery.store.event(sight, event.id, now).await.ok()??;
        let body = if needs.body { events::part(delivery, event, 0, MAX_BODY_BYTES).await.ok()? } else { Bytes::new() };
        let answer =
            record.attempts.pop().and_then(|attempt| attempt.answer).map(|answer| (answer.headers, answer.body));
        let endpoint = delivery.endpoint(&event.endpoint);
        Some(Self { headers: events::detail(&record, endpoint.as_deref()).headers, body, answer })
    }
}

impl Content for OfKept {
    fn headers(&mut self) -> Lines<'_> {
        self.headers.iter().map(|(name, value)| (Cow::from(name), Cow::from(value.as_bytes()))).collect()
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.body)
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        self.answer.as_ref().map(|(headers, body)| (lines(headers), Cow::Borrowed(&body[..])))
    }

    fn is_masked(&mut self) -> bool {
        self.headers.iter().any(|(_, value)| value == MASKED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_requests_row_shows_what_follows_the_host() {
        assert_eq!(target("https://hooks.example.com/pay/x?y=1"), "/pay/x?y=1");
        assert_eq!((target("https://hooks.example.com"), target("/x")), ("/", "/x"));
    }
}
