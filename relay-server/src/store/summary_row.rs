//! Kept events as a query sees them: as they are shown.
//!
//! Invariant: what lets its bearer in by its name is masked here too, or whoever searches could spell it out.

use std::{borrow::Cow, cell::OnceCell};

use bytes::Bytes;
use jiff::Timestamp;
use relay_program::query::{Content, Lines, Row};
use relay_proto::HeaderBlock;

use super::{
    INLINE_BYTES,
    model::{Answer, Head, State, Summary},
    outcome::Reason,
};
use crate::mask::{MASKED, authenticates, masked_url};

/// Why an event stands where it does, where no reason ended it.
#[cfg(test)]
pub(crate) const CODES_WITHOUT_REASON: [&str; 6] =
    ["delivered", "attempt_running", "behind_another", "waits_for_agent", "waits_for_retry", "unknown"];

impl Summary {
    /// Why it stands where it does, as a stable code.
    pub(crate) fn why(&self) -> &'static str {
        match self.state {
            State::Delivered => "delivered",
            State::Running => "attempt_running",
            State::Pending if self.parked => "behind_another",
            State::Pending if self.attempts == 0 => "waits_for_agent",
            State::Pending => "waits_for_retry",
            State::Dead | State::Dropped | State::Damaged => self.reason.map_or("unknown", Reason::code),
        }
    }
}

pub(super) struct SummaryRow<'a> {
    pub(super) event: &'a Summary,
    /// How long its sender waits.
    pub(super) patience_us: Option<u64>,
    /// Its target as it is shown, once that was asked for.
    pub(super) target: OnceCell<String>,
}

impl Row for SummaryRow<'_> {
    fn id(&self) -> Cow<'_, str> {
        self.event.id.to_string().into()
    }
    fn kind(&self) -> &str {
        "event"
    }
    fn endpoint(&self) -> &str {
        self.event.endpoint.as_str()
    }
    fn state(&self) -> Cow<'_, str> {
        self.event.state.word().into()
    }
    fn why(&self) -> Cow<'_, str> {
        self.event.why().into()
    }
    fn received_at(&self) -> Option<Timestamp> {
        Some(self.event.received_at)
    }
    fn method(&self) -> &str {
        &self.event.method
    }
    fn target(&self) -> &str {
        self.target.get_or_init(|| masked_url(&self.event.target))
    }
    fn event_type(&self) -> Option<&str> {
        self.event.event_type.as_deref()
    }
    fn sender_id(&self) -> Option<&str> {
        self.event.sender_id.as_deref()
    }
    fn size(&self) -> u64 {
        self.event.size
    }
    fn attempts(&self) -> u32 {
        self.event.attempts
    }
    fn status(&self) -> Option<u16> {
        self.event.status
    }
    fn took_us(&self) -> Option<u64> {
        self.event.took_us
    }
    fn agent(&self) -> Option<&str> {
        self.event.agent.as_deref()
    }
    fn patience(&self) -> Option<f64> {
        let of_us = self.patience_us.filter(|us| *us > 0)?;
        Some(f64::from(self.event.answered_us?) / of_us as f64)
    }
    fn is_conflict(&self) -> bool {
        self.event.conflict_with.is_some()
    }
    fn is_replay(&self) -> bool {
        self.event.replay_of.is_some()
    }
    fn is_redelivered(&self) -> bool {
        self.event.redelivered
    }
    fn is_unproven(&self) -> bool {
        self.event.unproven
    }
    fn is_resigned(&self) -> bool {
        self.event.resigned
    }
}

/// A store's way to what an event carries, for a query that needs it.
pub(super) struct Carried<F, A> {
    /// Reads the head and the beginning of the body.
    read: Option<F>,
    /// Reads the last answer.
    read_answer: Option<A>,
    parts: Option<(Head, Bytes)>,
    answer: Option<Answer>,
}

impl<F: FnOnce() -> Option<(Head, Bytes)>, A: FnOnce() -> Option<Answer>> Carried<F, A> {
    pub(super) const fn new(read: F, read_answer: A) -> Self {
        Self { read: Some(read), read_answer: Some(read_answer), parts: None, answer: None }
    }

    fn parts(&mut self) -> Option<&(Head, Bytes)> {
        if let Some(read) = self.read.take() {
            self.parts = read();
        }
        self.parts.as_ref()
    }
}

impl<F: FnOnce() -> Option<(Head, Bytes)>, A: FnOnce() -> Option<Answer>> Content for Carried<F, A> {
    fn target(&mut self) -> Option<Cow<'_, str>> {
        self.parts().map(|(head, _)| masked_url(&head.sent.target).into())
    }

    fn headers(&mut self) -> Lines<'_> {
        self.parts().map(|(head, _)| shown_lines(&head.sent.headers)).unwrap_or_default()
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        let body = self.parts().map_or(&[][..], |(_, body)| body);
        body[..body.len().min(INLINE_BYTES as usize)].into()
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        if let Some(read) = self.read_answer.take() {
            self.answer = read();
        }
        self.answer.as_ref().map(|answer| (shown_lines(&answer.headers), answer.body.as_ref().into()))
    }

    fn is_masked(&mut self) -> bool {
        self.parts().is_some_and(|(head, _)| {
            let sent = &head.sent;
            let mut names = sent.headers.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok());
            names.any(authenticates) || masked_url(&sent.target) != sent.target
        })
    }
}

/// Header lines as they are shown, but for what an endpoint's provider hides.
pub(crate) fn shown_lines(headers: &HeaderBlock) -> Lines<'_> {
    let line = |(name, value)| {
        let name = String::from_utf8_lossy(name);
        let value: &[u8] = if authenticates(&name) { MASKED.as_bytes() } else { value };
        (name, value.into())
    };
    headers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use relay_program::query::Query;

    use super::*;

    #[test]
    fn nothing_that_is_masked_is_spelt_out_by_searching() {
        let mut event = Summary::sample("pay");
        event.target = "/x?token=hunter2&y=plain".to_owned();
        let found = |text: &str| {
            let mut head = Head::sample(&event.target);
            head.sent.headers = [("authorization", "Bearer hunter2"), ("cookie", "c=hunter2"), ("x-one", "plain")]
                .into_iter()
                .collect();
            let answer = Answer {
                status: 200,
                headers: [("set-cookie", "c=hunter2"), ("x-two", "told")].into_iter().collect(),
                body: Bytes::new(),
                truncated: false,
            };
            let mut carried = Carried::new(|| Some((head, Bytes::from_static(b"body"))), || Some(answer));
            let row = SummaryRow { event: &event, patience_us: None, target: OnceCell::new() };
            let (query, mistakes) = Query::parse(text, Timestamp::UNIX_EPOCH);
            assert!(mistakes.is_empty(), "{text}: {mistakes:?}");
            query.matches(&row, &mut carried)
        };
        for hidden in ["hunter2", "header:authorization=Bearer*", "header:cookie=*hunter2", "answer:hunter2"] {
            assert!(!found(hidden), "{hidden}");
        }
        for shown in ["plain", "authorization", "header:x-one=plain", "header:cookie", "answer:told", "is:masked"] {
            assert!(found(shown), "{shown}");
        }
    }
}
