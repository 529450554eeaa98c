//! What the view knows of single events beyond their rows: a bounded number of details and bodies, the oldest of which
//! are forgotten, and what was asked for and has not come. Pure.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use relay_program::event::{EventDetail, EventSummary};

use super::wish::Question;

/// Events whose detail is held.
const MAX_DETAILS: usize = 32;
/// Bodies that are held.
const MAX_BODIES: usize = 64;
/// Bytes of a body that are held.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// One of the bodies of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Request,
    /// That of the attempt with this number.
    Answer(u32),
}

#[derive(Debug, Default)]
pub(super) struct Known {
    details: VecDeque<Arc<EventDetail>>,
    bodies: VecDeque<KnownBody>,
    /// What was asked for last: it is asked for once for each state of its event.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct KnownBody {
    id: String,
    part: Part,
    bytes: Bytes,
}

#[derive(Debug, PartialEq)]
struct Asked {
    id: String,
    state: EventVersion,
    /// The body, or the detail.
    part: Option<Part>,
    under_way: bool,
}

/// What of a row changes when there is more to know of its event.
#[derive(Debug, Clone, PartialEq)]
struct EventVersion {
    rev: u64,
    state: String,
    attempts: u32,
}

impl EventVersion {
    fn of(event: &EventSummary) -> Self {
        Self { rev: event.rev, state: event.state.clone(), attempts: event.attempt_count }
    }
}

impl Known {
    pub(super) fn detail(&self, id: &str) -> Option<&EventDetail> {
        self.details.iter().find(|detail| detail.summary.id == id).map(|detail| &**detail)
    }

    pub(super) fn body(&self, id: &str, part: Part) -> Option<&Bytes> {
        self.bodies.iter().find(|body| body.id == id && body.part == part).map(|body| &body.bytes)
    }

    pub(super) fn take_detail(&mut self, detail: EventDetail) {
        self.came(&detail.summary.id, None);
        self.details.retain(|other| other.summary.id != detail.summary.id);
        self.details.push_back(Arc::new(detail));
        if self.details.len() > MAX_DETAILS {
            self.details.pop_front();
        }
    }

    pub(super) fn take_body(&mut self, id: &str, part: Part, bytes: &Bytes) {
        self.came(id, Some(part));
        self.bodies.retain(|other| other.id != id || other.part != part);
        let bytes = bytes.slice(..bytes.len().min(MAX_BODY_BYTES));
        self.bodies.push_back(KnownBody { id: id.to_owned(), part, bytes });
        if self.bodies.len() > MAX_BODIES {
            self.bodies.pop_front();
        }
    }

    /// What was asked for is there, or will not come.
    pub(super) fn came(&mut self, id: &str, part: Option<Part>) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.id == id && asked.part == part) {
            asked.under_way = false;
        }
    }

    /// What to ask for next of an event that is looked at. One question is under way at a time, and each is asked once
    /// for each state of the event.
    pub(super) fn wanted(&mut self, event: &EventSummary, part: Part) -> Option<Question> {
        if self.asked.as_ref().is_some_and(|asked| asked.under_way) {
            return None;
        }
        let (id, state) = (&event.id, EventVersion::of(event));
        let known = self.detail(id).map(|detail| EventVersion::of(&detail.summary));
        let of_it = self.asked.as_ref().filter(|asked| asked.id == *id && asked.state == state).map(|asked| asked.part);
        let question = if known.as_ref() != Some(&state) && of_it.is_none() {
            (None, Question::Event(id.clone()))
        } else if known.is_some() && self.body(id, part).is_none() && of_it != Some(Some(part)) {
            (Some(part), Question::Body { id: id.clone(), part })
        } else {
            return None;
        };
        self.asked = Some(Asked { id: id.clone(), state, part: question.0, under_way: true });
        Some(question.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, rev: u64) -> EventSummary {
        EventSummary { id: id.to_owned(), rev, ..EventSummary::default() }
    }

    fn detail(id: &str, rev: u64) -> EventDetail {
        EventDetail { summary: row(id, rev), ..EventDetail::default() }
    }

    #[test]
    fn each_thing_is_asked_for_once() {
        let mut known = Known::default();
        let event = Some(Question::Event("a".to_owned()));
        let body = Some(Question::Body { id: "a".to_owned(), part: Part::Request });
        assert_eq!(known.wanted(&row("a", 1), Part::Request), event);
        assert_eq!(known.wanted(&row("b", 1), Part::Request), None, "one question at a time");
        known.take_detail(detail("a", 1));
        assert_eq!(known.wanted(&row("a", 1), Part::Request), body);
        known.came("a", Some(Part::Request));
        assert_eq!(known.wanted(&row("a", 1), Part::Request), None, "it will not come");
        assert_eq!(known.wanted(&row("a", 2), Part::Request), event, "the event has changed");
        known.came("a", None);
        known.take_body("a", Part::Request, &Bytes::from(vec![0; MAX_BODY_BYTES + 1]));
        assert_eq!(known.body("a", Part::Request).unwrap().len(), MAX_BODY_BYTES);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        for number in 0..MAX_BODIES + 10 {
            known.take_detail(detail(&number.to_string(), 1));
            known.take_body(&number.to_string(), Part::Request, &Bytes::new());
        }
        assert_eq!((known.details.len(), known.bodies.len()), (MAX_DETAILS, MAX_BODIES));
    }
}
