//! `GET /`: which relay this is, what it can do, who asks and what they may.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use relay_program::api::{About, AboutApi, AboutLimits, AboutRelay, AboutYou};

use super::{
    Api,
    ask::{self, MAX_BODY_BYTES},
    table::{Needs, Operation},
    who::{Who, WhoKind},
};
use crate::agents::token::Right;

/// What a page or a program may build on.
const FEATURES: &[&str] = &["bulk", "dead", "edit", "export", "figures", "replay_live", "search", "stream"];

pub(super) fn operations() -> Vec<Operation> {
    let about =
        || Operation::get("/", Needs::Anybody, show).says("The relay, the API, and who asks").answers::<About>(200);
    vec![about()]
}

async fn show(State(api): State<Arc<Api>>, who: Who) -> Response {
    let routes = api.services.routes.load();
    let mut rights = who.rights();
    let sign = Right::Sign.name().to_owned();
    for endpoint in routes.endpoints().map(|endpoint| endpoint.name.as_str()) {
        if !who.may(Right::Sign, endpoint) && api.may_sign(&who, endpoint) {
            rights.entry(endpoint.to_owned()).or_default().push(sign.clone());
        }
    }
    let about = About {
        relay: AboutRelay {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: api.started_at.to_string(),
            time: api.services.delivery.clock.now().to_string(),
            public_url: Some(routes.public_url().to_owned()),
            canaries: api.services.canaries.as_ref().map(|canaries| canaries.about()),
        },
        api: AboutApi { version: 1, features: FEATURES.iter().map(|&feature| feature.to_owned()).collect() },
        you: AboutYou {
            kind: match who.kind {
                WhoKind::Admin => "admin",
                WhoKind::Session => "session",
                WhoKind::Token => "token",
            }
            .to_owned(),
            name: who.name.to_string(),
            rights,
        },
        limits: AboutLimits { page: who.list_bounds().max_limit, query_bytes: 512, edit_bytes: MAX_BODY_BYTES },
    };
    ask::ok(&about)
}
