//! Paths that act on kept events, on one or on all of a query, and that tell how far such work is.

use std::sync::Arc;

use axum::{
    extract::{Path, State as Shared},
    http::StatusCode,
    response::Response,
};
use relay_program::event::EventDone;
use relay_program::query::Is;

use super::{
    Api,
    ask::{self, AskedQuery},
    events::{find, searched, sources},
    shapes::{BulkList, BulkNoted, BulkSummary},
    table::{Needs, Operation},
    who::{Who, lacks},
};
use crate::{
    agents::token::Right,
    events::{self, EventQuery, word},
    failure::{ApiError, ApiErrorKind},
    store::{Act, Acted, Action, Bulk, BulkAction, Sight, Summary},
    webhook::EventId,
};

pub(super) fn operations() -> Vec<Operation> {
    let act = Needs::Right(Right::Act);
    vec![
        Operation::post("/events/{id}/revive", act, revive)
            .says("Has a dead letter tried again")
            .answers::<EventDone>(200),
        Operation::post("/events/{id}/drop", act, give_up).says("Gives a dead letter up").answers::<EventDone>(200),
        Operation::post("/events/{id}/cancel", act, cancel).says("Ends an event that waits").answers::<EventDone>(200),
        Operation::post("/dead/revive", act, revive_all)
            .says("Has all dead letters of a query tried again")
            .query::<EventQuery>()
            .answers::<BulkNoted>(202),
        Operation::post("/dead/drop", act, drop_all)
            .says("Gives all dead letters of a query up")
            .query::<EventQuery>()
            .answers::<BulkNoted>(202),
        Operation::get("/bulks", act, bulks)
            .says("Actions on many events, and how far they are")
            .answers::<BulkList>(200),
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
    bulk(&api, &who, &asked, BulkAction::Revive).await
}

async fn drop_all(
    api: Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    bulk(&api, &who, &asked, BulkAction::Drop).await
}

async fn bulk(api: &Api, who: &Who, asked: &EventQuery, action: BulkAction) -> Result<Response, ApiError> {
    let (routes, delivery) = (api.services.routes.load_full(), &api.services.delivery);
    let sight = match (searched(api, who, asked)?, who.sight(&routes, Right::Act)) {
        (Sight::Only(seen), Sight::Only(open)) => {
            Sight::Only(seen.into_iter().filter(|name| open.contains(name)).collect())
        }
        (Sight::All, other) | (other, Sight::All) => other,
    };
    if matches!(&sight, Sight::Only(names) if names.is_empty()) {
        return Err(lacks(Right::Act));
    }
    let mut filter = events::filter(&sources(api, &routes), asked, &sight, delivery.clock.now())?;
    filter.query = filter.query.and_is(&[Is::Dead]);
    let id = EventId::new();
    delivery.store.bulk(id, action, filter, delivery.clock.now()).await?;
    delivery.wake_bulks();
    Ok(ask::answer(StatusCode::ACCEPTED, &BulkNoted { bulk: id.to_string() }))
}

async fn bulks(Shared(api): Shared<Arc<Api>>) -> Result<Response, ApiError> {
    let shown = |bulk: &Bulk| BulkSummary {
        id: bulk.id.to_string(),
        done: bulk.done,
        skipped: bulk.skipped,
        finished: bulk.finished,
    };
    Ok(ask::ok(&BulkList { bulks: api.services.delivery.store.bulks().await?.iter().map(shown).collect() }))
}
