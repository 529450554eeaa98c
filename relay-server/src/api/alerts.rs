//! Paths of alerts: which causes hold, and whether what the relay posts arrives.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use relay_program::api::{AlertList, AlertTested};

use super::{
    Api, ask,
    table::{Audited, Needs, Operation},
};
use crate::{
    agents::token::Right,
    failure::{ApiError, ApiErrorKind},
};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/alerts", Needs::Right(Right::Admin), list)
            .says("The causes of alerts that hold")
            .answers::<AlertList>(200),
        Operation::post("/alerts/test", Needs::Right(Right::Admin), test)
            .says("Posts a test alert, once")
            .audits(Audited::Behind("alert.test"))
            .answers::<AlertTested>(200),
    ]
}

async fn list(State(api): State<Arc<Api>>) -> Response {
    ask::ok(&AlertList { alerts: api.services.alerts.active() })
}

async fn test(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let services = &api.services;
    let relay = services.routes.load().public_url().to_owned();
    let Some((url, posted)) = services.alerts.test(&relay, services.delivery.clock.now()).await else {
        let message = "alerts are posted nowhere; set [alert] url and secret, and start the relay again";
        return Err(ApiError::new(ApiErrorKind::Conflict, message));
    };
    let (status, error) = match posted {
        Ok(posted) => (Some(posted.status), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let taken = status.is_some_and(|status| status.is_success());
    Ok(ask::ok(&AlertTested { url, status: status.map(|status| status.as_u16()), error, taken }))
}
