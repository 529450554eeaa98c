//! Paths of agents: who is attached, how each stands at its endpoints, who went within the last day.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use relay_program::api::{AgentDisconnected, AgentList, AgentRow};

use super::{
    Api, ask,
    table::{Audited, Needs, Operation},
    who::Who,
};
use crate::{agents::token::Right, failure::ApiError};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/agents", Needs::Right(Right::Read), list)
            .says("Attached agents, and those that went within a day")
            .answers::<AgentList>(200),
        Operation::post("/agents/{session}/disconnect", Needs::Right(Right::Admin), disconnect)
            .says("Ends an agent's session; it comes back by itself")
            .audits(Audited::As("agent.disconnect"))
            .answers::<AgentDisconnected>(200),
    ]
}

async fn list(State(api): State<Arc<Api>>, who: Who) -> Response {
    ask::ok(&listed(&api, &who))
}

/// The agents that whoever asks sees.
pub(super) fn listed(api: &Api, who: &Who) -> AgentList {
    let (agents, gone) = api.services.agents.registry().roster();
    // Of an agent whoever asks sees what it does at the endpoints that are open to that one.
    let seen = |mut row: AgentRow| {
        row.endpoints.retain(|endpoint| who.sees(&endpoint.name));
        (!row.endpoints.is_empty() || who.own_token().is_none()).then_some(row)
    };
    let seen = |rows: Vec<AgentRow>| rows.into_iter().filter_map(seen).collect();
    AgentList { agents: seen(agents), gone: seen(gone) }
}

async fn disconnect(State(api): State<Arc<Api>>, Path(session): Path<String>) -> Result<Response, ApiError> {
    let ended = session.parse().is_ok_and(|session| api.services.agents.registry().disconnect(session));
    if !ended {
        return Err(ApiError::not_found("no agent has this session"));
    }
    Ok(ask::ok(&AgentDisconnected { session }))
}
