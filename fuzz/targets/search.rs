//! The search grammar: what a person typed, and what of it is printed and read back.

use std::borrow::Cow;

use jiff::Timestamp;
use relay_program::{
    event::EventSummary,
    query::{Content, Lines, Query},
};

/// Text as a query. Mistakes stand within it; what is understood prints as a text that is understood alike; what a row
/// alone decides, the whole event does not decide otherwise.
pub(crate) fn search(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(500_000);
    let (query, mistakes) = Query::parse(text, now);
    for mistake in &mistakes {
        assert!(text.is_char_boundary(mistake.at), "{} is no place in {text:?}", mistake.at);
        assert!(!mistake.message.is_empty());
    }
    let printed = query.to_string();
    let again = Query::try_from(printed.clone()).unwrap_or_else(|why| panic!("{printed:?} of {text:?}: {why}"));
    assert_eq!(again, query, "{printed:?} of {text:?}");
    let _ = (query.needs(), query.names(), query.sender_id(), query.may_be_of("pay"));
    for row in [EventSummary::default(), event()] {
        let found = query.matches(&row, &mut Carried);
        assert!(query.judge(&row).is_none_or(|judged| judged == found), "{text:?}");
    }
    let (key, value) = text.split_once(':').unwrap_or((text, ""));
    let _ = (Query::key(key, value, now), Query::of(key, value));
}

fn event() -> EventSummary {
    EventSummary {
        id: "hook_01a20e58387038b51dfc84fc91783c1f".into(),
        endpoint: "pay".into(),
        kind: "event".into(),
        state: "dead".into(),
        why: "handler_failed".into(),
        received_at: "2027-01-14T07:30:00Z".into(),
        method: "POST".into(),
        target: "/hooks/a?token=x".into(),
        event_type: Some("invoice.paid".into()),
        sender_id: Some("evt_1".into()),
        size: 1500,
        attempt_count: 8,
        status: Some(500),
        took_us: Some(600_000),
        agent: Some("edge-1".into()),
        patience: Some(0.81),
        replay_of: Some("hook_1".into()),
        ..EventSummary::default()
    }
}

struct Carried;

impl Content for Carried {
    fn headers(&mut self) -> Lines<'_> {
        vec![("x-github-event".into(), b"push"[..].into()), ("x-n".into(), b"\xffb"[..].into())]
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        b"{\"name\":\"Ines\", \"paid\": true}"[..].into()
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        Some((vec![("content-type".into(), b"text/plain"[..].into())], b"no such column: x"[..].into()))
    }

    fn is_masked(&mut self) -> bool {
        true
    }
}
