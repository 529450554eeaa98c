//! What agents may ask of kept events, on the public listener: `/_relay/v1/events` and what is below it.
//!
//! ```text
//! GET  /_relay/v1/events?…              a list, as the admin API's
//! GET  /_relay/v1/events/ID             one, by its id or its sender's own
//! GET  /_relay/v1/events/ID/body?offset=N   a part of its body, at most MAX_PART_BYTES
//! POST /_relay/v1/events/ID/replay?…    once more: to one agent of this token, or as a new event
//! ```
//!
//! Needs the token that agents attach with. Invariants: a token sees the events of its own endpoints, and every other
//! one is as one that does not exist; no page of a browser gets an answer; what one question may cost, and how many
//! one token has at a time, is bounded.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response};
use percent_encoding::percent_decode_str;
use relay_program::event::EventDone;
use relay_schemes::Provider;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use super::respond::{self, ResponseBody};
use crate::{
    agents::{
        registry::AgentSelector,
        token::{Right, Token},
    },
    delivery::{Asker, Delivery},
    endpoint::EndpointName,
    events::{self, EventQuery, ListBounds},
    failure::{ApiError, ApiErrorKind},
    routes::Routes,
    store::{Sight, Signature},
    tally::Tally,
};

pub(super) const PREFIX: &str = "/_relay/v1/events";

const BOUNDS: ListBounds = ListBounds { default_limit: 100, max_limit: 200, max_pages: 10 };

/// Most bytes of a body in one answer: a reader may be slow, and the answer waits for it in memory.
const MAX_PART_BYTES: u64 = 256 * 1024;

const MAX_QUERY_BYTES: usize = 4096;

/// Questions of one token at a time, replays to its agents included.
const MAX_OF_TOKEN: usize = 16;

/// Questions that read at a time; more wait. The store reads three things at a time, and one of them is a delivery's.
const MAX_READING: usize = 2;

/// How long reading may take, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct AgentApi {
    delivery: Arc<Delivery>,
    of_token: Tally<Arc<str>>,
    reading: Semaphore,
}

impl AgentApi {
    pub(super) fn build(delivery: Arc<Delivery>) -> Self {
        Self { delivery, of_token: Tally::default(), reading: Semaphore::new(MAX_READING) }
    }

    pub(super) async fn answer<B>(
        &self,
        routes: &Routes,
        token: &Token,
        path: &str,
        request: &Request<B>,
    ) -> Response<ResponseBody> {
        let answered = async {
            let busy = "this token has too many questions at a time; wait for some of them";
            let busy = || ApiError::new(ApiErrorKind::TooManyQuestions, busy);
            let _turn = self.of_token.take(Arc::clone(&token.name), MAX_OF_TOKEN).ok_or_else(busy)?;
            if !token.rights.contains(&Right::Read) {
                let why = "this token lacks the right `read`; add it to the token's `rights` on the relay";
                return Err(ApiError::new(ApiErrorKind::MayNotRead, why));
            }
            let names = routes.endpoints().map(|endpoint| &endpoint.name);
            let seen = names.filter(|name| token.may(Right::Read, name.as_str())).cloned().collect();
            let question = Question { api: self, routes, token, seen };
            question.answer(path, request.uri().query().unwrap_or_default(), request.method()).await
        };
        answered.await.unwrap_or_else(|error| respond::api_failure(&error))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    #[serde(default)]
    to: To,
    name: Option<String>,
    instance: Option<String>,
    #[serde(default)]
    signature: Signature,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    #[default]
    Agent,
    Endpoint,
}

struct Question<'a> {
    api: &'a AgentApi,
    routes: &'a Routes,
    token: &'a Token,
    /// The endpoints whose events the token may read.
    seen: Vec<EndpointName>,
}

impl Question<'_> {
    async fn answer(&self, path: &str, query: &str, method: &Method) -> Result<Response<ResponseBody>, ApiError> {
        if query.len() > MAX_QUERY_BYTES {
            return Err(ApiError::bad_request(format!("the query is longer than {MAX_QUERY_BYTES} bytes")));
        }
        let parts: Vec<&str> = path.strip_prefix(PREFIX).unwrap_or_default().split('/').collect();
        let wanted = if matches!(parts[..], ["", _, "replay"]) { Method::POST } else { Method::GET };
        if *method != wanted {
            return Err(ApiError::new(ApiErrorKind::Method, format!("ask with {wanted}")));
        }
        match parts[..] {
            [""] => self.list(&read(query)?).await,
            ["", id] => self.show(&decoded(id)?).await,
            ["", id, "body"] => self.body(&decoded(id)?, &read(query)?).await,
            ["", id, "replay"] => self.replay(&decoded(id)?, &read(query)?).await,
            _ => Err(ApiError::nothing_here()),
        }
    }

    async fn list(&self, asked: &EventQuery) -> Result<Response<ResponseBody>, ApiError> {
        let sight = Sight::Only(self.seen_by(asked)?);
        let list = events::list(&self.api.delivery, asked, &sight, BOUNDS);
        let list = self.reading(list).await?;
        Ok(respond::api_answer(&list))
    }

    async fn show(&self, id: &str) -> Result<Response<ResponseBody>, ApiError> {
        let record = self.find(id).await?;
        let endpoint = self.routes.endpoint(record.summary.endpoint.as_str());
        Ok(respond::api_answer(&events::detail(&record, endpoint.map(|it| &**it))))
    }

    async fn body(&self, id: &str, from: &From) -> Result<Response<ResponseBody>, ApiError> {
        let event = self.find(id).await?.summary;
        let part = self.reading(events::part(&self.api.delivery, &event, from.offset, MAX_PART_BYTES)).await?;
        Ok(respond::part(part, event.size))
    }

    async fn replay(&self, id: &str, asked: &Replay) -> Result<Response<ResponseBody>, ApiError> {
        let record = self.find(id).await?;
        let name = record.summary.endpoint.clone();
        let (endpoint, delivery) = (self.routes.endpoint(name.as_str()), &self.api.delivery);
        match asked.to {
            To::Endpoint if self.token.may(Right::Replay, name.as_str()) => {
                let of = record.summary.id;
                let new_id = delivery.replay(endpoint, record, asked.signature).await?;
                Ok(respond::api_answer(&EventDone { id: of.to_string(), new_id: Some(new_id.to_string()) }))
            }
            To::Endpoint => {
                let why = "this token lacks the right `replay`; add it to the token's `rights` on the relay, or replay \
                           to your own agent, without --to endpoint";
                Err(ApiError::new(ApiErrorKind::MayNotReplay, why))
            }
            To::Agent => {
                let agent = asked.name.as_deref().ok_or_else(|| ApiError::bad_request("name the agent: `name`"))?;
                let instance = asked.instance.as_deref().map(Uuid::try_parse).transpose();
                let instance =
                    instance.map_err(|_| ApiError::bad_request("`instance` is a UUID"))?.map(Uuid::into_bytes);
                let selector = AgentSelector { token: &self.token.name, name: agent, instance };
                let may = |right| self.token.may(right, name.as_str());
                let asker = Asker { attach: may(Right::Attach), replay: may(Right::Replay) };
                let replayed = delivery.replay_to(&selector, endpoint, record, asked.signature, asker).await?;
                Ok(respond::api_answer(&events::replayed(&replayed)))
            }
        }
    }

    /// The endpoints in which a list may look. A text is looked for in heads and bodies as they came, so that whoever
    /// searches could spell out a credential: where there is one, that takes the right `attach`.
    fn seen_by(&self, asked: &EventQuery) -> Result<Vec<EndpointName>, ApiError> {
        if !asked.searches() {
            return Ok(self.seen.clone());
        }
        let guarded = |name: &EndpointName| {
            let provider = self.routes.endpoint(name.as_str()).and_then(|endpoint| endpoint.verify.provider());
            !self.token.may(Right::Attach, name.as_str()) && provider.is_some_and(Provider::bears_credential)
        };
        if asked.endpoint().is_some_and(|name| self.seen.iter().any(|seen| seen.as_str() == name && guarded(seen))) {
            let why = "its sender's credential stands in what is searched; a token needs the right `attach` for that";
            return Err(ApiError::new(ApiErrorKind::NeedsAttach, why));
        }
        Ok(self.seen.iter().filter(|name| !guarded(name)).cloned().collect())
    }

    async fn find(&self, id: &str) -> Result<crate::store::Record, ApiError> {
        let (delivery, sight) = (&self.api.delivery, Sight::Only(self.seen.clone()));
        self.reading(events::find(&delivery.store, id, &sight, delivery.clock.now())).await
    }

    async fn reading<T>(&self, read: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        let in_turn = async {
            let _turn = self.api.reading.acquire().await;
            read.await
        };
        let slow = "this took too long; ask for less, such as a shorter time, or without a text";
        let slow = |_| ApiError::new(ApiErrorKind::Busy, slow);
        timeout(PATIENCE, in_turn).await.map_err(slow)?
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    serde_urlencoded::from_str(query)
        .map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))
}

fn decoded(part: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(std::borrow::Cow::into_owned).map_err(|_| ApiError::bad_request("an id is text"))
}
