//! The path that delivers an event once more: to one agent, or as a new event to whoever serves its endpoint; as it came, or
//! as somebody changed it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, Request, State as Shared},
    response::Response,
};
use bytes::Bytes;
use relay_program::{
    api::Edit,
    event::{EventDone, EventReplayed},
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Api,
    ask::{self, AskedQuery},
    events::{find, look_up},
    table::{Audited, Needs, Operation},
    who::{Who, WhoKind},
};
use crate::{
    agents::{registry::AgentSelector, token::Right},
    audit::{self, Deed},
    delivery::{Asker, Changed},
    events::{self, FoundEvent},
    failure::{ApiError, ApiErrorKind},
    ingress::{Client, respond::of_api_error},
    store::{AuditClass, Record, Signature},
};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/events/{id}/replay", Needs::Right(Right::Read), replay)
            .says("Delivers an event once more: to one agent, or as a new event to whoever serves its endpoint")
            .audits(Audited::ByItself)
            .query::<ReplayQuery>()
            .takes::<Edit>()
            .answers::<EventReplayed>(200),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    /// `agent` or `endpoint`. A token's replays go to its own agent unless it says otherwise.
    #[param(value_type = Option<String>)]
    to: Option<To>,
    /// The agent.
    name: Option<String>,
    /// One process of it.
    instance: Option<String>,
    /// `auto`, `keep` or `fresh`.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    signature: Signature,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Agent,
    Endpoint,
}

async fn replay(
    Shared(api): Shared<Arc<Api>>,
    Extension(Client(address)): Extension<Client>,
    who: Who,
    Path(id): Path<String>,
    AskedQuery(asked): AskedQuery<ReplayQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let extensions = request.extensions().clone();
    let mut edit = ask::given_or_none::<Edit>(request).await?.filter(|edit| *edit != Edit::default());
    let brings_body = edit.as_ref().is_some_and(Edit::brings_body);
    let mut lacks_something = false;
    let (record, live) = match look_up(&api, &who, &id).await? {
        FoundEvent::Kept(record) => (*record, None),
        FoundEvent::Live(entry) => {
            let url = api.services.routes.load().url(&entry.endpoint);
            let again = events::live_again(&entry, &url, brings_body)?;
            edit = edit.map(events::live_edit);
            lacks_something = again.lacks_something;
            (again.record, Some(again.body))
        }
        FoundEvent::Refused(_) | FoundEvent::Handshake(_) => (find(&api, &who, &id).await?, None),
    };
    let (name, delivery) = (record.summary.endpoint.clone(), &api.services.delivery);
    let endpoint = api.services.routes.load().endpoint(name.as_str()).cloned();
    let may = |right| who.may(right, name.as_str());
    let asker =
        Asker { attach: may(Right::Attach), replay: may(Right::Replay), sign: api.may_sign(&who, name.as_str()) };
    let usual = if who.kind == WhoKind::Token || asked.name.is_some() { To::Agent } else { To::Endpoint };
    match asked.to.unwrap_or(usual) {
        To::Endpoint if live.is_some() => {
            let why = "it is live: nothing of it is kept that could be delivered as a new event; name an agent, and it \
                       is delivered to that one alone";
            Err(ApiError::new(ApiErrorKind::Live, why))
        }
        To::Endpoint if may(Right::Replay) => {
            let of = record.summary.id;
            let deed = Deed::new(who.actor(Some(address)), "event.replay", Some(of.to_string()));
            let begun = api.services.audit.begin(deed).await?;
            let replay = async {
                let new_id = match changed(&api, &who, (&record, None), edit).await? {
                    Some(changed) => {
                        delivery.replay_changed(endpoint.as_ref(), record, changed, asked.signature, asker).await?
                    }
                    None => delivery.replay(endpoint.as_ref(), record, asked.signature).await?,
                };
                Ok::<_, ApiError>(new_id)
            };
            let replayed = replay.await;
            let result = replayed.as_ref().map_or_else(|error| of_api_error(error.kind).1, |_| audit::OK);
            let detail = replayed.as_ref().ok().map(|id| format!("as {id}"));
            begun.end(result, None, detail).await;
            let new_id = replayed?;
            Ok(ask::ok(&EventDone { id: of.to_string(), new_id: Some(new_id.to_string()) }))
        }
        To::Endpoint => {
            let why = "this token lacks the right `replay`; add it to the token's `rights` on the relay, or replay \
                       to your own agent, without --to endpoint";
            Err(ApiError::new(ApiErrorKind::MayNotReplay, why))
        }
        To::Agent => {
            let agent = asked.name.as_deref().ok_or_else(|| ApiError::bad_request("name the agent: `name`"))?;
            let instance = asked.instance.as_deref().map(Uuid::try_parse).transpose();
            let instance = instance.map_err(|_| ApiError::bad_request("`instance` is a UUID"))?.map(Uuid::into_bytes);
            let token = who.own_token().map(|token| &*token.name);
            let selector = AgentSelector { token, name: agent, instance };
            let changed = match (changed(&api, &who, (&record, live.as_ref()), edit).await?, &live) {
                // What lacks something is content of the relay's making, as what is edited is the asker's.
                (None, Some(body)) if lacks_something => Some(Changed {
                    sent: record.head.sent.clone(),
                    url: record.head.arrival.url.clone(),
                    body: body.clone(),
                }),
                (changed, _) => changed,
            };
            let signature = asked.signature;
            if let Some(policy) = endpoint.as_ref().and_then(|endpoint| endpoint.policy.as_ref()) {
                ask::takes_longer(&extensions, policy.attempt_timeout)?;
            }
            // It changes nothing here and may come often, as a recording is played.
            let mut deed = Deed::new(who.actor(Some(address)), "event.replay", Some(name.as_str().to_owned()));
            deed.detail = Some("to an agent".to_owned());
            api.services.audit.note(AuditClass::Actions, deed, audit::OK);
            let what = (record, live);
            let replayed = delivery.replay_to(&selector, endpoint.as_ref(), what, changed, signature, asker).await?;
            Ok(ask::ok(&events::replayed(&replayed)))
        }
    }
}

/// What is delivered in the place of an event's content, if that is changed. The body of a live one is at hand.
async fn changed(
    api: &Api,
    who: &Who,
    (record, live): (&Record, Option<&Bytes>),
    edit: Option<Edit>,
) -> Result<Option<Changed>, ApiError> {
    let Some(edit) = edit else { return Ok(None) };
    let event = &record.summary;
    let whole = match live {
        _ if edit.brings_body() => Bytes::new(),
        Some(live) => live.clone(),
        None if event.size > ask::MAX_BODY_BYTES as u64 => {
            let why = "its body is larger than 1 MiB; such an event is replayed as it is, or with a body of its own";
            return Err(ApiError::new(ApiErrorKind::BodyTooLarge, why));
        }
        None => api.reading(who, events::raw_body(&api.services.delivery, event)).await?,
    };
    let endpoint = api.services.delivery.endpoint(&event.endpoint);
    events::changed(&record.head, whole, edit, endpoint.as_ref().map(|endpoint| &endpoint.verify)).map(Some)
}
