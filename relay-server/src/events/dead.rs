//! Dead letters by cause: one group for all of an endpoint that ended for the same reason, with the same answer.
//!
//! A look is bounded, in events and in groups: what does not fit is counted with its cause, without its answer.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;
use relay_program::{
    api::{DeadGroup, DeadGroups, Looked},
    query::{Is, Query},
};

use super::EventSources;
use crate::{
    endpoint::EndpointName,
    failure::ApiError,
    store::{Filter, MAX_PAGE, PageRequest, Sight, Summary},
    webhook::EventId,
};

/// Pages of dead letters that are looked at.
const MAX_PAGES: usize = 10;

/// So much of an answer tells groups apart, in bytes.
const ANSWER_BYTES: usize = 200;

/// So much of an answer stands in the query of its group, so that the query stays short, in bytes.
const QUERY_BYTES: usize = 120;

/// Groups that are told apart by their answers.
const MAX_GROUPS: usize = 1000;

/// What makes a group.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Cause {
    endpoint: EndpointName,
    why: &'static str,
    status: Option<u16>,
    answer: Option<String>,
}

struct Group {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    newest: EventId,
}

#[derive(Default)]
struct Groups(HashMap<Cause, Group>);

impl Groups {
    fn add(&mut self, event: &Summary, answer: Option<Bytes>) {
        let answer = answer.map(|bytes| beginning(&bytes)).filter(|text| !text.is_empty());
        let cause = Cause { endpoint: event.endpoint.clone(), why: event.why(), status: event.status, answer };
        let is_full = self.0.len() >= MAX_GROUPS && !self.0.contains_key(&cause);
        let cause = if is_full { Cause { answer: None, ..cause } } else { cause };
        let at = event.settled_at.unwrap_or(event.received_at);
        let group = self.0.entry(cause).or_insert(Group { count: 0, first: at, last: at, newest: event.id });
        group.count += 1;
        (group.first, group.last, group.newest) = (group.first.min(at), group.last.max(at), group.newest.max(event.id));
    }

    /// The largest first.
    fn shown(self, limit: usize) -> Vec<DeadGroup> {
        let mut groups: Vec<_> = self.0.into_iter().map(|(cause, group)| shown(cause, &group)).collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| b.newest.cmp(&a.newest)));
        groups.truncate(limit);
        groups
    }
}

/// The text that an answer begins with; one that is no text has none.
fn beginning(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // The end may have been cut within a character.
        Err(why) if why.error_len().is_none() => std::str::from_utf8(&bytes[..why.valid_up_to()]).unwrap_or_default(),
        Err(_) => "",
    };
    text.trim().to_owned()
}

fn shown(cause: Cause, group: &Group) -> DeadGroup {
    let Cause { endpoint, why, status, answer } = cause;
    let mut query = Query::of("endpoint", endpoint.as_str()).and_is(&[Is::Dead]).and(Query::of("why", why));
    query = query.and(match status {
        Some(status) => Query::of("status", &status.to_string()),
        None => Query::of("status", "none"),
    });
    if let Some(answer) = &answer {
        query = query.and(Query::of("answer", &answer[..answer.floor_char_boundary(QUERY_BYTES)]));
    }
    DeadGroup {
        endpoint: endpoint.to_string(),
        why: why.to_owned(),
        status,
        answer,
        count: group.count,
        first: group.first.to_string(),
        last: group.last.to_string(),
        newest: group.newest.to_string(),
        q: query.to_string(),
    }
}

/// The groups of an endpoint, or of all in sight.
pub(crate) async fn groups(
    from: &EventSources<'_>,
    endpoint: Option<&EndpointName>,
    sight: &Sight,
    limit: usize,
) -> Result<DeadGroups, ApiError> {
    let endpoints = match (sight, endpoint) {
        (Sight::All, wanted) => wanted.cloned().into_iter().collect(),
        (Sight::Only(seen), None) if !seen.is_empty() => seen.clone(),
        (Sight::Only(seen), Some(wanted)) if seen.contains(wanted) => vec![wanted.clone()],
        (Sight::Only(_), _) => return Err(ApiError::not_found("no endpoint of this name is open to this token")),
    };
    let filter = Filter { endpoints, query: Query::default().and_is(&[Is::Dead]), ..Filter::default() };
    let store = &from.delivery.store;
    let (mut groups, mut looked, mut after) = (Groups::default(), Looked::default(), None);
    for _ in 0..MAX_PAGES {
        let page = PageRequest { limit: MAX_PAGE, after, oldest_first: false };
        let page = store.list(filter.clone(), page).await?;
        let ids = page.events.iter().map(|event| (event.endpoint.clone(), event.id)).collect();
        let answers = store.last_answers(ids, ANSWER_BYTES).await?;
        page.events.iter().zip(answers).for_each(|(event, answer)| groups.add(event, answer));
        looked.rows += page.looked.rows;
        looked.back_to = page.looked.back_to.map(|at| at.to_string()).or(looked.back_to);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(DeadGroups { groups: groups.shown(limit), looked })
}

#[cfg(test)]
mod tests {
    use relay_program::query::Query;

    use super::*;
    use crate::{
        journal::tests::event,
        store::{Reason, State},
    };

    fn dead(endpoint: &str, status: u16) -> Summary {
        Summary { state: State::Dead, reason: Some(Reason::HandlerFailed), status: Some(status), ..event(endpoint) }
    }

    #[test]
    fn what_ended_alike_is_one_group_whose_query_finds_it() {
        let mut groups = Groups::default();
        let answer = Bytes::from_static("no such column: \"refunds\", gr\u{fc}n".as_bytes());
        for _ in 0..3 {
            groups.add(&dead("pay", 500), Some(answer.clone()));
        }
        groups.add(&dead("pay", 502), Some(answer.slice(..answer.len() - 2)));
        groups.add(&dead("pay", 500), Some(Bytes::from_static(b"\xff\x00")));
        let shown = groups.shown(10);
        assert_eq!(shown.iter().map(|group| group.count).collect::<Vec<_>>(), [3, 1, 1]);
        assert_eq!(shown[0].answer.as_deref(), Some("no such column: \"refunds\", grün"));
        let (query, mistakes) = Query::parse(&shown[0].q, Timestamp::UNIX_EPOCH);
        assert_eq!((mistakes, query.to_string()), (vec![], shown[0].q.clone()), "it is written as anyone could");
        assert!(
            shown.iter().any(|group| group.status == Some(502)
                && group.answer.as_deref().is_some_and(|answer| answer.ends_with("gr")))
        );
    }

    #[test]
    fn groups_are_bounded_and_nothing_is_left_out_of_the_count() {
        let mut groups = Groups::default();
        for number in 0..MAX_GROUPS + 50 {
            groups.add(&dead("pay", 500), Some(number.to_string().into()));
        }
        let shown = groups.shown(usize::MAX);
        assert_eq!((shown.len(), shown[0].count, shown[0].answer.clone()), (MAX_GROUPS + 1, 50, None));
        assert_eq!(shown.iter().map(|group| group.count).sum::<u64>(), MAX_GROUPS as u64 + 50);
    }
}
