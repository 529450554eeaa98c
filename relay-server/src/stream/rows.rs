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
    events::{self, LiveContent, Nothing, RefusedContent},
    journal::{self, NewsRecord},
    mask::MASKED,
    store::{Sight, Summary, shown_lines},
};

/// A record as a row. Its number says which of two rows of one event is newer.
pub(super) fn row(delivery: &Delivery, record: &NewsRecord, number: u64) -> EventSummary {
    match record {
        NewsRecord::Live(entry) => journal::summary(entry, number),
        NewsRecord::Kept(event) => events::summary(event, delivery.endpoint(&event.endpoint).as_deref(), number),
        NewsRecord::Refused(entry) => events::refused_summary(entry, number),
        NewsRecord::Handshake(handshake) => events::handshake_summary(handshake, number),
    }
}

/// Whether a record fits that its row alone does not decide. `None` where it cannot be read.
pub(super) async fn fits(delivery: &Delivery, query: &Query, row: &EventSummary, record: &NewsRecord) -> Option<bool> {
    Some(match record {
        NewsRecord::Live(entry) => query.matches(row, &mut LiveContent(entry)),
        NewsRecord::Refused(entry) => query.matches(row, &mut RefusedContent(entry)),
        NewsRecord::Handshake(_) => query.matches(row, &mut Nothing),
        NewsRecord::Kept(event) => {
            let mut kept = OfKept::read(delivery, query, event).await?;
            query.matches(row, &mut kept)
        }
    })
}

/// Whether a record's own content is at hand.
pub(super) fn is_in_store(record: &NewsRecord) -> bool {
    matches!(record, NewsRecord::Kept(_))
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
        Some(Self { headers: events::detail(&record, endpoint.as_deref(), 0).headers, body, answer })
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
        self.answer.as_ref().map(|(headers, body)| (shown_lines(headers), Cow::Borrowed(&body[..])))
    }

    fn is_masked(&mut self) -> bool {
        self.headers.iter().any(|(_, value)| value == MASKED)
    }
}
