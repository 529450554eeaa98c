//! Paths of what happens now: the stream of news, and figures by time.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use relay_program::{
    api::Figures,
    news::{EVENT_STREAM, LAST_EVENT_ID},
    query::Query,
};
use relay_proto::printable;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::{
    Api, agents,
    ask::{self, AskedQuery},
    endpoints,
    table::{Needs, Operation},
    who::{Who, WhoKind},
};
use crate::{
    agents::token::Right,
    events::mistaken,
    failure::ApiError,
    journal::FiguresQuery,
    store::Sight,
    stream::{NewsWanted, StreamHolder, WholeState},
};

/// How far back figures go that are told in a stream.
const TOLD_S: i64 = 60;

pub(super) fn operations() -> Vec<Operation> {
    let read = Needs::Right(Right::Read);
    vec![
        Operation::get("/stream", read, stream)
            .says("What happens, as server-sent events")
            .query::<StreamQuery>()
            .answers_as(200, EVENT_STREAM),
        Operation::get("/figures", read, figures)
            .says("Counts and latencies by time: of the last hour, or of the last day")
            .query::<AskedFigures>()
            .answers::<Figures>(200),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    /// Rows that this search finds.
    q: Option<String>,
    /// Of `rows,agents,endpoints,figures`; without it `rows`.
    types: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AskedFigures {
    /// Only those of this endpoint.
    endpoint: Option<String>,
    /// From then on: how long ago, such as `42m`, or a time. More than an hour ago gives steps of five minutes.
    since: Option<String>,
    /// Seconds of a step: 10 or 300.
    step: Option<i64>,
}

async fn stream(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let holder = match who.kind {
        WhoKind::Token => StreamHolder::Token(Arc::clone(&who.name)),
        WhoKind::Admin | WhoKind::Session => StreamHolder::Admin,
    };
    let last_event_id = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut wanted = NewsWanted { sight: sight(&api, &who), rows: None, states: Vec::new(), last_event_id };
    for kind in asked.types.as_deref().unwrap_or("rows").split(',') {
        match kind {
            "rows" => wanted.rows = Some(searched(asked.q.as_deref(), api.services.delivery.clock.now())?),
            "agents" => wanted.states.push(agents_told(&api, &who)),
            "endpoints" => wanted.states.push(endpoints_told(&api, &who)),
            "figures" => wanted.states.push(figures_told(&api)),
            // Whoever is newer may ask for more.
            _ => {}
        }
    }
    let body: Body = api.services.streams.open(holder, wanted)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM))], body).into_response())
}

/// What whoever asked may see from now on. It is looked at again while a stream lasts: tokens change, and sessions end.
fn sight(api: &Arc<Api>, who: &Who) -> Box<dyn Fn() -> Option<Sight> + Send + Sync> {
    let (api, who) = (Arc::clone(api), who.clone());
    Box::new(move || {
        let (routes, now) = (api.services.routes.load(), api.services.delivery.clock.now());
        if who.session.is_some_and(|id| !api.sessions.is_open(id, now)) {
            return None;
        }
        who.now(&routes).map(|who| who.sight(&routes, Right::Read))
    })
}

fn searched(q: Option<&str>, now: Timestamp) -> Result<Query, ApiError> {
    let (query, mistakes) = Query::parse(q.unwrap_or_default(), now);
    mistakes.first().map_or_else(|| Ok(query.clone()), |mistake| Err(mistaken(mistake, &query)))
}

fn agents_told(api: &Arc<Api>, who: &Who) -> WholeState {
    let (api, who) = (Arc::clone(api), who.clone());
    let read = move |_: &Sight| {
        // What its token allows may be something else by now.
        let who = who.now(&api.services.routes.load());
        let list = who.map(|who| line(&agents::listed(&api, &who))).unwrap_or_default();
        Box::pin(std::future::ready(list)) as BoxFuture<'static, String>
    };
    WholeState { event: "agents", read: Box::new(read) }
}

fn endpoints_told(api: &Arc<Api>, who: &Who) -> WholeState {
    let (api, who) = (Arc::clone(api), who.clone());
    let read = move |_: &Sight| {
        let (api, who) = (Arc::clone(&api), who.now(&api.services.routes.load()));
        let read = async move {
            let Some(who) = who else { return String::new() };
            endpoints::listed(&api, &who).await.map(|list| line(&list)).unwrap_or_default()
        };
        Box::pin(read) as BoxFuture<'static, String>
    };
    WholeState { event: "endpoints", read: Box::new(read) }
}

/// Figures of the last minute.
fn figures_told(api: &Arc<Api>) -> WholeState {
    let api = Arc::clone(api);
    let read = move |sight: &Sight| {
        let now = api.services.delivery.clock.now();
        let since = now.checked_sub(SignedDuration::from_secs(TOLD_S)).ok();
        let figures = api.services.figures.show(FiguresQuery { since, ..FiguresQuery::default() }, sight, now);
        Box::pin(std::future::ready(line(&figures))) as BoxFuture<'static, String>
    };
    WholeState { event: "figures", read: Box::new(read) }
}

fn line(value: &impl Serialize) -> String {
    printable::lines(&serde_json::to_string(value).unwrap_or_default()).into_owned()
}

async fn figures(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<AskedFigures>,
) -> Result<Response, ApiError> {
    let services = &api.services;
    let now = services.delivery.clock.now();
    let since = match &asked.since {
        None => None,
        Some(text) => Some(searched(Some(&format!("since:{text}")), now)?.since().ok_or_else(|| {
            ApiError::bad_request("`since` is how long ago, such as 42m, or a time such as 2026-01-31T08:00Z")
        })?),
    };
    let sight = who.sight(&services.routes.load(), Right::Read);
    let query = FiguresQuery { endpoint: asked.endpoint.as_deref(), since, step_s: asked.step };
    let mut figures = services.figures.show(query, &sight, now);
    if matches!(sight, Sight::All) {
        let store = services.delivery.store.usage();
        (figures.store_bytes, figures.store_limit) = (Some(store.bytes), Some(store.max_bytes));
    }
    Ok(ask::ok(&figures))
}
