//! Paths that act on kept events, on one or on all of a query, and that tell how far such work is.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State as Shared},
    http::StatusCode,
    response::Response,
};
use relay_program::{
    api::{BulkProgress, EventCount},
    event::EventDone,
    query::Is,
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    ask::{self, AskedQuery, GivenBody},
    events::{find, searched, sources},
    shapes::{BulkList, BulkNoted},
    table::{AuditNote, Audited, Needs, Operation},
    who::{Who, lacks},
};
use crate::{
    agents::token::Right,
    events::{self, EventQuery, word},
    failure::{ApiError, ApiErrorKind},
    store::{Act, Acted, Action, Bulk, BulkAction, BulkPlan, Filter, Sight, Summary},
    webhook::EventId,
};

pub(super) fn operations() -> Vec<Operation> {
    let (act, read) = (Needs::Right(Right::Act), Needs::Right(Right::Read));
    vec![
        Operation::post("/events/{id}/revive", act, revive)
            .says("Has a dead letter tried again")
            .audits(Audited::As("event.revive"))
            .answers::<EventDone>(200),
        Operation::post("/events/{id}/drop", act, give_up)
            .says("Gives a dead letter up")
            .audits(Audited::As("event.drop"))
            .answers::<EventDone>(200),
        Operation::post("/events/{id}/cancel", act, cancel)
            .says("Ends an event that waits")
            .audits(Audited::As("event.cancel"))
            .answers::<EventDone>(200),
        Operation::post("/dead/revive", act, revive_all)
            .says("Has all dead letters of a query tried again")
            .audits(Audited::As("dead.revive"))
            .query::<EventQuery>()
            .answers::<BulkNoted>(202),
        Operation::post("/dead/drop", act, drop_all)
            .says("Gives all dead letters of a query up")
            .audits(Audited::As("dead.drop"))
            .query::<EventQuery>()
            .answers::<BulkNoted>(202),
        Operation::post("/bulk", read, bulk)
            .says("Acts on all events that a query finds now, or counts them")
            .audits(Audited::As("bulk.begin"))
            .query::<BulkQuery>()
            .takes::<BulkAsked>()
            .answers::<EventCount>(200)
            .answers::<BulkProgress>(202),
        Operation::get("/bulks", read, bulks)
            .says("Actions on many events, and how far they are")
            .answers::<BulkList>(200),
        Operation::get("/bulks/{id}", read, show)
            .says("How far an action on many events is")
            .answers::<BulkProgress>(200),
        Operation::delete("/bulks/{id}", read, stop)
            .says("Ends an action on many events where it stands")
            .audits(Audited::As("bulk.stop"))
            .answers::<BulkProgress>(200),
    ]
}

async fn revive(api: Shared<Arc<Api>>, who: Who, id: Path<String>) -> Result<Response, ApiError> {
    act(&api, &who, &id, Action::Revive).await
}

async fn give_up(api: Shared<Arc<Api>>, who: Who, id: Path<String>) -> Result<Response, ApiError> {
    act(&api, &who, &id, Action::Drop).await
}

async fn cancel(api: Shared<Arc<Api>>, who: Who, id: Path<String>) -> Result<Response, ApiError> {
    act(&api, &who, &id, Action::Cancel).await
}

async fn act(api: &Api, who: &Who, id: &str, action: Action) -> Result<Response, ApiError> {
    let delivery = &api.services.delivery;
    let Summary { endpoint, id, .. } = find(api, who, id).await?.summary;
    who.must(Right::Act, endpoint.as_str())?;
    let acts = vec![Act { endpoint, id, action }];
    let acted = delivery.store.act(acts, delivery.clock.now()).await?.into_iter().next();
    delivery.wake();
    match acted {
        Some(Acted::Done) => {
            delivery.tell(id).await;
            Ok(ask::ok(&EventDone { id: id.to_string(), new_id: None }))
        }
        Some(Acted::Not(state)) => {
            let message = format!("the event is {}, and this cannot be done to it then", word(state));
            Err(ApiError::new(ApiErrorKind::WrongState, message))
        }
        Some(Acted::Unknown) | None => Err(ApiError::not_found("the event is gone")),
    }
}

async fn revive_all(
    api: Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    noted(&api, &who, &asked, BulkAction::Revive).await
}

async fn drop_all(
    api: Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    noted(&api, &who, &asked, BulkAction::Drop).await
}

async fn noted(api: &Api, who: &Who, asked: &EventQuery, action: BulkAction) -> Result<Response, ApiError> {
    let mut filter = concerned(api, who, asked, Right::Act)?;
    filter.query = filter.query.and_is(&[Is::Dead]);
    let plan = BulkPlan::new(EventId::new(), action, filter);
    let id = plan.id;
    begin(api, who, plan).await?;
    Ok(ask::answer(StatusCode::ACCEPTED, &BulkNoted { bulk: id.to_string() }))
}

/// What an action on many concerns: what whoever asks may search, and at which endpoints it has the right.
fn concerned(api: &Api, who: &Who, asked: &EventQuery, right: Right) -> Result<Filter, ApiError> {
    let (routes, now) = (api.services.routes.load_full(), api.services.delivery.clock.now());
    let sight = match (searched(api, who, asked)?, who.sight(&routes, right)) {
        (Sight::Only(seen), Sight::Only(open)) => {
            Sight::Only(seen.into_iter().filter(|name| open.contains(name)).collect())
        }
        (Sight::All, other) | (other, Sight::All) => other,
    };
    if matches!(&sight, Sight::Only(names) if names.is_empty()) {
        return Err(lacks(right));
    }
    events::filter(&sources(api, &routes), asked, &sight, now)
}

async fn begin(api: &Api, who: &Who, plan: BulkPlan) -> Result<(), ApiError> {
    let delivery = &api.services.delivery;
    let plan = BulkPlan { by: who.own_token().map(|token| token.id.to_string()), ..plan };
    delivery.store.bulk(plan, delivery.clock.now()).await?;
    delivery.wake_bulks();
    Ok(())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct BulkQuery {
    /// Only counts what it would concern.
    dry_run: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkAsked {
    /// `revive`, `drop`, `cancel` or `replay`.
    action: String,
    /// In the search grammar.
    q: String,
    /// It ends once it looked at so many events that match.
    at_most: Option<u64>,
}

/// The right that an action takes, and the states in which it can be done; none is all.
fn action(word: &str) -> Result<(BulkAction, Right, &'static [Is]), ApiError> {
    match word {
        "revive" => Ok((BulkAction::Revive, Right::Act, &[Is::Dead, Is::Dropped])),
        "drop" => Ok((BulkAction::Drop, Right::Act, &[Is::Dead])),
        "cancel" => Ok((BulkAction::Cancel, Right::Act, &[Is::Waiting, Is::Running])),
        "replay" => Ok((BulkAction::Replay, Right::Replay, &[])),
        _ => Err(ApiError::bad_request("an action is revive, drop, cancel or replay")),
    }
}

async fn bulk(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Extension(note): Extension<AuditNote>,
    AskedQuery(BulkQuery { dry_run }): AskedQuery<BulkQuery>,
    GivenBody(BulkAsked { action: word, q, at_most }): GivenBody<BulkAsked>,
) -> Result<Response, ApiError> {
    let (action, right, states) = action(&word)?;
    let mut filter = concerned(&api, &who, &EventQuery::of(q), right)?;
    if !states.is_empty() {
        filter.query = filter.query.and_is(states);
    }
    let routes = api.services.routes.load_full();
    let counted = api.reading(&who, events::kept(&sources(&api, &routes), &filter)).await?;
    let of = counted.count.min(at_most.unwrap_or(u64::MAX));
    let about = if counted.exact { "" } else { "at least " };
    note.detail(format!("{word}, {about}{of} events"));
    if dry_run.is_some_and(|text| text != "false") {
        note.detail(format!("{word}: only counted, {of}"));
        let back_to = counted.back_to.map(|at| at.to_string());
        return Ok(ask::ok(&EventCount { at_least: of, exact: counted.exact, back_to }));
    }
    let of = (counted.exact || at_most == Some(of)).then_some(of);
    let plan =
        BulkPlan { of, at_most: at_most.map(|most| most.max(1)), ..BulkPlan::new(EventId::new(), action, filter) };
    let shown = BulkProgress { id: plan.id.to_string(), action: word, of, ..BulkProgress::default() };
    note.object(&shown.id);
    begin(&api, &who, plan).await?;
    Ok(ask::answer(StatusCode::ACCEPTED, &shown))
}

fn progress(bulk: &Bulk) -> BulkProgress {
    BulkProgress {
        id: bulk.id.to_string(),
        action: bulk.action.code().to_owned(),
        of: bulk.of,
        done: bulk.done,
        skipped: bulk.skipped,
        finished: bulk.finished,
    }
}

/// The actions on endpoints that whoever asks may act on.
async fn seen(api: &Api, who: &Who) -> Result<Vec<Bulk>, ApiError> {
    let mut bulks = api.services.delivery.store.bulks().await?;
    let routes = api.services.routes.load();
    for right in [Right::Act, Right::Replay] {
        if matches!(who.sight(&routes, right), Sight::All) {
            return Ok(bulks);
        }
    }
    bulks.retain(|bulk| {
        let right = if bulk.action == BulkAction::Replay { Right::Replay } else { Right::Act };
        let names = &bulk.filter.endpoints;
        !names.is_empty() && names.iter().all(|name| who.may(right, name.as_str()))
    });
    Ok(bulks)
}

async fn bulks(Shared(api): Shared<Arc<Api>>, who: Who) -> Result<Response, ApiError> {
    Ok(ask::ok(&BulkList { bulks: seen(&api, &who).await?.iter().map(progress).collect() }))
}

async fn one(api: &Api, who: &Who, id: &str) -> Result<Bulk, ApiError> {
    let found = seen(api, who).await?.into_iter().find(|bulk| bulk.id.to_string() == id);
    found.ok_or_else(|| ApiError::not_found("no action on many events has this id; the last hundred are remembered"))
}

async fn show(Shared(api): Shared<Arc<Api>>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(ask::ok(&progress(&one(&api, &who, &id).await?)))
}

async fn stop(Shared(api): Shared<Arc<Api>>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    let bulk = one(&api, &who, &id).await?;
    let stopped = api.services.delivery.store.stop_bulk(bulk.id).await?;
    if let Some(stopped) = stopped.as_ref().filter(|_| !bulk.finished) {
        api.services.delivery.ended(stopped);
    }
    Ok(ask::ok(&progress(&stopped.unwrap_or(bulk))))
}
