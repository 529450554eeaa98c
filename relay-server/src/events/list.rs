//! Lists over all kinds of events, merged by id, and how many there are.
//!
//! Ids sort by time and every kind has one, so a cursor is an id whatever kind it is of. KeptCount events are looked through in
//! bounded steps; what is in memory is looked through whole, but shown no further than kept events were looked at.

use std::iter;

use jiff::Timestamp;
use relay_program::{
    api::{EventCount, EventList, Looked},
    event::EventSummary,
    query::Query,
};

use super::{
    EventQuery, EventSources, ListBounds,
    others::{self, IdRow, Wanted},
    query::Kinds,
    shown::summary,
};
use crate::{
    endpoint::EndpointName,
    failure::ApiError,
    store::{Cursor, Filter, MAX_PAGE, PageRequest, Sight},
    webhook::EventId,
};

/// Pages that a count looks through.
const MAX_COUNTED_PAGES: usize = 20;

/// A list as it was asked for, and may be answered.
struct Asked<'a> {
    kinds: Kinds,
    filter: Filter,
    sight: &'a Sight,
    /// Steps that a look takes among kept events.
    max_pages: usize,
}

/// Where a page lies.
#[derive(Clone, Copy)]
struct Span {
    limit: usize,
    after: Option<EventId>,
    oldest_first: bool,
}

/// Rows of a page, in order.
#[derive(Default)]
struct Rows {
    rows: Vec<IdRow>,
    next: Option<EventId>,
    looked: u64,
    back_to: Option<Timestamp>,
}

/// What a query may find within a sight. An endpoint out of sight is as one that does not exist.
pub(crate) fn filter(
    from: &EventSources<'_>,
    asked: &EventQuery,
    sight: &Sight,
    now: Timestamp,
) -> Result<Filter, ApiError> {
    let query = asked.query(now)?;
    let endpoints = match sight {
        Sight::All => Vec::new(),
        Sight::Only(seen) => {
            let is_seen = asked.endpoint().is_none_or(|wanted| seen.iter().any(|name| name.as_str() == wanted));
            // Without any, a filter would let every endpoint pass.
            if !is_seen || seen.is_empty() {
                return Err(ApiError::not_found("no endpoint of this name is open to this token"));
            }
            seen.clone()
        }
    };
    let patience_us = if query.asks_for_patience() { patience(from) } else { Vec::new() };
    Ok(Filter { endpoints, query, patience_us, ..Filter::default() })
}

fn patience(from: &EventSources<'_>) -> Vec<(EndpointName, u64)> {
    let deadline = |us: u128| u64::try_from(us).unwrap_or(u64::MAX);
    from.routes.endpoints().map(|one| (one.name.clone(), deadline(one.deadline.as_micros()))).collect()
}

/// A part of a list.
pub(crate) async fn list(
    from: &EventSources<'_>,
    asked: &EventQuery,
    sight: &Sight,
    bounds: ListBounds,
) -> Result<EventList, ApiError> {
    let filter = filter(from, asked, sight, from.delivery.clock.now())?;
    let (after, around, oldest_first) = (asked.after()?.map(|Cursor(id)| id), asked.around()?, asked.oldest_first);
    let limit = asked.limit.unwrap_or(bounds.default_limit).clamp(1, bounds.max_limit);
    let list = Asked { kinds: asked.kinds()?, filter, sight, max_pages: bounds.max_pages };
    let found = match around {
        None => list.rows(from, Span { limit, after, oldest_first }).await?,
        Some(middle) => list.around(from, middle, limit).await?,
    };
    let events: Vec<EventSummary> = found.rows.into_iter().map(|(_, row)| row).collect();
    let looked = Looked { rows: found.looked, back_to: found.back_to.map(|at| at.to_string()) };
    Ok(EventList { events, next: found.next.map(|id| id.to_string()), looked })
}

/// How many events a list would show, as far as a bounded look tells.
pub(crate) async fn count(from: &EventSources<'_>, asked: &EventQuery, sight: &Sight) -> Result<EventCount, ApiError> {
    let filter = filter(from, asked, sight, from.delivery.clock.now())?;
    let list = Asked { kinds: asked.kinds()?, filter, sight, max_pages: 1 };
    let (others, _) = list.others(from, Span { limit: 1, after: None, oldest_first: false }).await?;
    let kept = if list.kinds.event { kept(from, &list.filter).await? } else { KeptCount::default() };
    Ok(EventCount {
        at_least: kept.count + others.len() as u64,
        exact: kept.exact,
        back_to: kept.back_to.map(|at| at.to_string()),
    })
}

/// How many kept events a filter lets pass.
pub(crate) struct KeptCount {
    pub count: u64,
    /// All of them were looked at.
    pub exact: bool,
    pub back_to: Option<Timestamp>,
}

impl Default for KeptCount {
    fn default() -> Self {
        Self { count: 0, exact: true, back_to: None }
    }
}

pub(crate) async fn kept(from: &EventSources<'_>, filter: &Filter) -> Result<KeptCount, ApiError> {
    let (mut counted, mut after) = (KeptCount { exact: false, ..KeptCount::default() }, None);
    for _ in 0..MAX_COUNTED_PAGES {
        let page = PageRequest { limit: MAX_PAGE, after, oldest_first: false };
        let page = from.delivery.store.list(filter.clone(), page).await?;
        counted.count += page.events.len() as u64;
        counted.back_to = page.looked.back_to.or(counted.back_to);
        after = page.next;
        if after.is_none() {
            counted.exact = true;
            break;
        }
    }
    Ok(counted)
}

impl Asked<'_> {
    fn query(&self) -> &Query {
        &self.filter.query
    }

    async fn others(&self, from: &EventSources<'_>, span: Span) -> Result<(Vec<IdRow>, u64), ApiError> {
        let Span { after, oldest_first, .. } = span;
        others::rows(from, Wanted { kinds: self.kinds, query: self.query(), sight: self.sight, after, oldest_first })
            .await
    }

    async fn kept(&self, from: &EventSources<'_>, span: Span) -> Result<Rows, ApiError> {
        let mut found = Rows::default();
        if !self.kinds.event {
            return Ok(found);
        }
        let (rev, mut after) = (from.journal.next(), span.after.map(Cursor));
        for _ in 0..self.max_pages {
            let limit = span.limit - found.rows.len();
            let page = PageRequest { limit, after, oldest_first: span.oldest_first };
            let page = from.delivery.store.list(self.filter.clone(), page).await?;
            found.looked += page.looked.rows;
            found.back_to = page.looked.back_to.or(found.back_to);
            found.rows.extend(
                page.events
                    .iter()
                    .map(|event| (event.id, summary(event, from.delivery.endpoint(&event.endpoint).as_deref(), rev))),
            );
            after = page.next;
            if after.is_none() || found.rows.len() >= span.limit {
                break;
            }
        }
        found.next = after.map(|Cursor(id)| id);
        Ok(found)
    }

    async fn rows(&self, from: &EventSources<'_>, span: Span) -> Result<Rows, ApiError> {
        let mut found = self.kept(from, span).await?;
        let (others, looked) = self.others(from, span).await?;
        found.looked += looked;
        let edge = found.next;
        let is_within = |id: EventId| edge.is_none_or(|edge| if span.oldest_first { id <= edge } else { id >= edge });
        found.rows =
            merged(found.rows, others.into_iter().filter(|(id, _)| is_within(*id)).collect(), span.oldest_first);
        if found.rows.len() > span.limit {
            found.rows.truncate(span.limit);
            found.next = found.rows.last().map(|(id, _)| *id);
        }
        Ok(found)
    }

    /// The newest first, with an event in the middle.
    async fn around(&self, from: &EventSources<'_>, middle: EventId, limit: usize) -> Result<Rows, ApiError> {
        let newer = Span { limit: (limit / 2).max(1), after: Some(middle), oldest_first: true };
        let mut newer = self.rows(from, newer).await?;
        let older = Span { limit: limit - limit / 2, after: Some(successor(middle)), oldest_first: false };
        let mut older = self.rows(from, older).await?;
        newer.rows.reverse();
        newer.rows.append(&mut older.rows);
        Ok(Rows { rows: newer.rows, looked: newer.looked + older.looked, ..older })
    }
}

/// The id behind which an event stands first.
fn successor(id: EventId) -> EventId {
    EventId::from_bytes(u128::from_be_bytes(*id.as_bytes()).saturating_add(1).to_be_bytes())
}

/// Two lists that are in order, as one.
fn merged(one: Vec<IdRow>, other: Vec<IdRow>, oldest_first: bool) -> Vec<IdRow> {
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    iter::from_fn(|| match (one.peek(), other.peek()) {
        (Some((a, _)), Some((b, _))) if (a < b) == oldest_first => one.next(),
        (_, Some(_)) => other.next(),
        (_, None) => one.next(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> EventId {
        EventId::from_bytes([number; 16])
    }

    #[test]
    fn lists_are_merged_in_order() {
        let rows = |numbers: &[u8]| numbers.iter().map(|one| (id(*one), EventSummary::default())).collect::<Vec<_>>();
        let ids = |rows: Vec<IdRow>| rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(merged(rows(&[9, 5, 1]), rows(&[8, 6, 0]), false)), [9, 8, 6, 5, 1, 0].map(id));
        assert_eq!(ids(merged(rows(&[1, 5]), rows(&[0, 6]), true)), [0, 1, 5, 6].map(id));
        assert_eq!(ids(merged(rows(&[]), rows(&[3, 2]), false)), [3, 2].map(id));
    }

    #[test]
    fn an_event_is_the_first_behind_its_successor() {
        assert!(id(3) < successor(id(3)) && successor(id(3)) < id(4));
    }
}
