//! The path that shows dead letters by cause.

use std::sync::Arc;

use axum::{extract::State as Shared, response::Response};
use relay_program::api::DeadGroups;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    ask::{self, AskedQuery},
    events::sources,
    table::{Needs, Operation},
    who::Who,
};
use crate::{agents::token::Right, endpoint::EndpointName, events, failure::ApiError};

/// Groups of an answer, where the question does not say how many, and at most.
const LIMITS: (usize, usize) = (50, 200);

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/dead/groups", Needs::Right(Right::Read), groups)
            .says("Dead letters by cause, the most first")
            .query::<Groups>()
            .answers::<DeadGroups>(200),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Groups {
    /// Of this endpoint.
    endpoint: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

async fn groups(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<Groups>,
) -> Result<Response, ApiError> {
    let wrong = |why| ApiError::bad_request(format!("this is no endpoint's name: {why}"));
    let endpoint = asked.endpoint.as_deref().map(EndpointName::parse).transpose().map_err(wrong)?;
    let routes = api.services.routes.load_full();
    let (sight, limit) = (who.sight(&routes, Right::Read), asked.limit.unwrap_or(LIMITS.0).clamp(1, LIMITS.1));
    let from = sources(&api, &routes);
    Ok(ask::ok(&api.reading(&who, events::dead_groups(&from, endpoint.as_ref(), &sight, limit)).await?))
}
