//! Questions to the relay about what it keeps: its small API for agents, over one connection.
//!
//! The connection is kept between questions and made anew where it has ended; a question that may have been heard is
//! never asked again here. Waits and answers are bounded.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use relay_program::{
    http1::{AnswerHead, Connection, encoded},
    news::{EVENT_STREAM, LAST_EVENT_ID},
};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{LinkError, MAX_HEAD_BYTES, Stream, UPGRADE_TIMEOUT, error, reach, secure, silent};
use crate::config::{Token, Way};

/// Where the relay's API for tokens is.
pub(crate) const BASE: &str = "/_relay/v1/";
const EVENTS: &str = "/_relay/v1/events";
const STREAM: &str = "/_relay/v1/stream";
/// For an answer that needs no handler.
const PATIENCE: Duration = Duration::from_secs(45);
/// For one that does: a handler has an hour at most, and the relay says when its own limit is over.
const REPLAY_PATIENCE: Duration = Duration::from_secs(3700);
/// The largest file that the relay makes of events is not much longer.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Most events of one page that are read.
const MAX_LISTED: usize = 1000;
pub(crate) const MAX_CURSOR_BYTES: usize = 256;
/// Pages in a row with nothing in them. A relay looks at thousands of events for each.
const MAX_EMPTY: u32 = 2000;
/// Empty pages after which it waits a moment before each further one.
const QUICK: u32 = 20;
const MOMENT: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Api<'a> {
    way: &'a Way,
    pub token: Token,
    open: Option<Connection<Stream>>,
}

/// A page of a list, as far as somebody wants it who goes through all of it.
#[derive(Debug, Deserialize)]
pub(crate) struct ListPage {
    /// No more than [`MAX_LISTED`]: a longer page is none.
    #[serde(deserialize_with = "bounded")]
    pub events: Vec<Listed>,
    pub next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Listed {
    pub id: String,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub settled_at: Option<String>,
}

/// Takes what has come so far for too much when there is more of it, so that a page of a million empty objects costs
/// nothing.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listed>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<Listed>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MAX_LISTED} events")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(event) = events.next_element()? {
                if all.len() == MAX_LISTED {
                    return Err(serde::de::Error::invalid_length(MAX_LISTED + 1, &self));
                }
                all.push(event);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

/// How far a list was followed: the relay is not trusted to come to its end.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Pages in a row with nothing in them.
    empty: u32,
}

impl Walk {
    /// How long to wait before the page after this one, where so many were found.
    /// The error is for people.
    pub(crate) fn step(&mut self, after: Option<&str>, next: Option<&str>, found: usize) -> Result<Duration, String> {
        if next.is_some_and(|next| next.len() > MAX_CURSOR_BYTES) {
            return Err("the relay's list cannot be followed: a cursor is too long".to_owned());
        }
        if next.is_some() && next == after {
            return Err("the relay's list goes round".to_owned());
        }
        self.empty = if found > 0 { 0 } else { self.empty + 1 };
        if self.empty > MAX_EMPTY {
            return Err(format!("the relay gave {MAX_EMPTY} pages with nothing in them, and goes on"));
        }
        Ok(if self.empty > QUICK { MOMENT } else { Duration::ZERO })
    }
}

/// To whom an event goes once more, and with what signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replay<'a> {
    /// This token's agent of that name; `None` for whoever serves the endpoint.
    pub agent: Option<&'a str>,
    /// That process of it.
    pub instance: Option<uuid::Uuid>,
    pub signature: &'static str,
}

impl Replay<'_> {
    fn path(&self, id: &str) -> String {
        let mut path = format!("{EVENTS}/{}/replay?signature={}", encoded(id), self.signature);
        match self.agent {
            Some(name) => path.push_str(&format!("&to=agent&name={}", encoded(name))),
            None => path.push_str("&to=endpoint"),
        }
        if let Some(instance) = self.instance {
            path.push_str(&format!("&instance={}", instance.as_simple()));
        }
        path
    }
}

impl<'a> Api<'a> {
    pub(crate) fn new(way: &'a Way, token: Token) -> Self {
        Self { way, token, open: None }
    }

    pub(crate) async fn list(&mut self, query: &[(&str, String)]) -> Result<Value, LinkError> {
        json(&self.ask(Method::GET, &listing(query), PATIENCE).await?)
    }

    /// A page of it, read no further than it may go.
    pub(crate) async fn page(&mut self, query: &[(&str, String)]) -> Result<ListPage, LinkError> {
        let body = self.ask(Method::GET, &listing(query), PATIENCE).await?;
        serde_json::from_slice(&body).map_err(|_| LinkError::Protocol("the relay's list cannot be read".to_owned()))
    }

    /// One event, by its id or its sender's own.
    pub(crate) async fn event(&mut self, id: &str) -> Result<Value, LinkError> {
        json(&self.ask(Method::GET, &format!("{EVENTS}/{}", encoded(id)), PATIENCE).await?)
    }

    /// A part of an event's body; empty behind its end.
    pub(crate) async fn body(&mut self, id: &str, offset: u64) -> Result<Bytes, LinkError> {
        self.ask(Method::GET, &format!("{EVENTS}/{}/body?offset={offset}", encoded(id)), PATIENCE).await
    }

    pub(crate) async fn replay(&mut self, id: &str, replay: Replay<'_>) -> Result<Value, LinkError> {
        self.replay_edited(id, replay, None).await
    }

    /// The same with changes to the event first, as JSON.
    pub(crate) async fn replay_edited(
        &mut self,
        id: &str,
        replay: Replay<'_>,
        edited: Option<String>,
    ) -> Result<Value, LinkError> {
        json(&self.send(Method::POST, &replay.path(id), edited, REPLAY_PATIENCE).await?.1)
    }

    /// Has an endpoint made, or finds this token's own of that name: whether it is new, and what is known of it.
    pub(crate) async fn make_endpoint(&mut self, asked: String) -> Result<(bool, Value), LinkError> {
        let (status, body) = self.send(Method::POST, &format!("{BASE}endpoints"), Some(asked), PATIENCE).await?;
        Ok((status == StatusCode::CREATED, json(&body)?))
    }

    /// What stands at a path behind the API's own.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, LinkError> {
        self.ask(Method::GET, &format!("{BASE}{path}"), PATIENCE).await
    }

    pub(crate) async fn post(&mut self, path: &str) -> Result<Bytes, LinkError> {
        self.ask(Method::POST, &format!("{BASE}{path}"), PATIENCE).await
    }

    /// What is answered at a path behind the API's own, as JSON.
    pub(crate) async fn question(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, LinkError> {
        let body = body.map(|body| body.to_string());
        json(&self.send(method, &format!("{BASE}{path}"), body, PATIENCE).await?.1)
    }

    /// The relay's news, behind those of an id: an answer whose body is a stream, on a connection of its own.
    pub(crate) async fn follow(&self, query: &str, last_id: Option<&str>) -> Result<Connection<Stream>, LinkError> {
        let mut request = request(self.way, &self.token, Method::GET, &format!("{STREAM}?{query}"))?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        if let Some(id) = last_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(LAST_EVENT_ID, id);
        }
        let opened = async {
            let mut relay = connect(self.way).await?;
            let answer = relay.ask(request).await.map_err(|error| error::of_http(&error))?;
            if answer.status.is_success() { Ok(relay) } else { Err(error::of_answer(&answer, &mut relay).await) }
        };
        timeout(PATIENCE, opened).await.map_err(|_| silent(self.way))?
    }

    /// Which mistakes the relay finds in a request that it refused.
    pub(crate) async fn explain(&mut self, id: &str) -> Result<Value, LinkError> {
        json(&self.ask(Method::GET, &format!("{EVENTS}/{}/explain", encoded(id)), PATIENCE).await?)
    }

    /// An event as a recording.
    pub(crate) async fn recording(&mut self, id: &str) -> Result<Bytes, LinkError> {
        self.ask(Method::GET, &format!("{EVENTS}/{}/export?as=cassette", encoded(id)), PATIENCE).await
    }

    /// Events as one file, in a form of the relay's.
    pub(crate) async fn export(&mut self, form: &str, redact: bool, which: &Value) -> Result<Bytes, LinkError> {
        let path = format!("{EVENTS}/export?as={form}&redact={redact}");
        Ok(self.send(Method::POST, &path, Some(which.to_string()), PATIENCE).await?.1)
    }

    async fn ask(&mut self, method: Method, path: &str, patience: Duration) -> Result<Bytes, LinkError> {
        Ok(self.send(method, path, None, patience).await?.1)
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), LinkError> {
        let mut request = request(self.way, &self.token, method, path)?;
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
            *request.body_mut() = body.into();
        }
        let kept = self.open.take().filter(Connection::may_be_reused);
        let relay = match kept.and_then(|mut kept| kept.is_quiet().then_some(kept)) {
            Some(kept) => self.open.insert(kept),
            None => {
                let open = connect(self.way).await?;
                self.open.insert(open)
            }
        };
        let answered = async {
            let answer = head(relay, request).await?;
            if !answer.status.is_success() {
                return Err(error::of_answer(&answer, relay).await);
            }
            let body = relay.collect(MAX_ANSWER_BYTES).await;
            let body =
                body.map_err(|_| LinkError::Unreachable("the relay's answer broke off, or is too long".to_owned()))?;
            Ok((answer.status, body))
        };
        let answered = timeout(patience, answered).await;
        let answered = answered.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            Err(LinkError::Unreachable(format!("{} did not answer within {seconds} s", self.way.relay.authority)))
        });
        if !matches!(answered, Ok(_) | Err(LinkError::Refused { .. })) {
            self.open = None;
        }
        answered
    }
}

impl LinkError {
    /// The status of an answer that says no, and the relay's word for it.
    pub(crate) fn refusal(&self) -> Option<(StatusCode, Option<&str>)> {
        match self {
            Self::Refused { status, code, .. } => Some((*status, code.as_deref())),
            Self::Unreachable(_) | Self::Protocol(_) | Self::OtherUpgrade(_) => None,
        }
    }
}

/// Asks, and reads the head of the answer. The caller bounds the wait.
pub(crate) async fn head(relay: &mut Connection<Stream>, request: Request<Bytes>) -> Result<AnswerHead, LinkError> {
    relay.ask(request).await.map_err(|error| error::of_http(&error))
}

/// What an answer means that says no.
pub(crate) async fn refusal(answer: &AnswerHead, relay: &mut Connection<Stream>) -> LinkError {
    error::of_answer(answer, relay).await
}

/// A question without a body.
pub(crate) fn request(way: &Way, token: &Token, method: Method, path: &str) -> Result<Request<Bytes>, LinkError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &way.relay.authority)
        .header(header::USER_AGENT, concat!("relay-client/", env!("CARGO_PKG_VERSION")))
        .header(header::AUTHORIZATION, error::bearer(token)?)
        .body(Bytes::new())
        .map_err(|error| LinkError::Protocol(error.to_string()))
}

/// A connection to the relay, for questions.
pub(crate) async fn connect(way: &Way) -> Result<Connection<Stream>, LinkError> {
    let stream = reach(way).await?;
    let stream = timeout(UPGRADE_TIMEOUT, secure(way, stream)).await.map_err(|_| silent(way))??;
    Ok(Connection::new(stream, MAX_HEAD_BYTES))
}

fn json(body: &[u8]) -> Result<Value, LinkError> {
    serde_json::from_slice(body).map_err(|_| LinkError::Protocol("the relay's answer is not JSON".to_owned()))
}

fn listing(query: &[(&str, String)]) -> String {
    let pairs = query.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    format!("{EVENTS}?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_end_is_given_up() {
        let mut walk = Walk::default();
        let (mut pages, mut waited) = (0, Duration::ZERO);
        let why = loop {
            match walk.step(Some(&pages.to_string()), Some(&(pages + 1).to_string()), 0) {
                Ok(pause) => (pages, waited) = (pages + 1, waited + pause),
                Err(why) => break why,
            }
        };
        assert!(why.contains("nothing in them"), "{why}");
        assert_eq!(pages, MAX_EMPTY);
        assert!(waited > Duration::from_secs(60), "not faster than that: {waited:?}");
        let mut walk = Walk::default();
        assert_eq!(walk.step(None, Some("a"), 200), Ok(Duration::ZERO));
        assert_eq!(walk.step(Some("a"), None, 0), Ok(Duration::ZERO), "its last page may be empty");
        assert!(Walk::default().step(None, Some(&"x".repeat(MAX_CURSOR_BYTES + 1)), 5).is_err());
        assert!(Walk::default().step(Some("a"), Some("a"), 5).unwrap_err().contains("goes round"));
    }
}
