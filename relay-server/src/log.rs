//! What a line of the log is about: the connection, and the request, the attempt or the session in whose course it is
//! written.
//!
//! Nearly no webhook has a line, so nothing is written down, allocated or registered before there is one: a scope is a
//! value beside its future, and stands where a line finds it while that future is polled or dropped. It goes no further:
//! a task or a thread that goes on with the work takes [`LogScope::current`] along.

mod format;

use std::{cell::RefCell, fmt::Display, net::IpAddr, sync::Arc};

use relay_program::EndpointName;
use tokio::task::futures::TaskLocalFuture;

pub(crate) use self::format::{JsonLines, TextLines};
use crate::webhook::EventId;

tokio::task_local! {
    static CURRENT: RefCell<LogScope>;
}

/// One thing at a time, at most on a connection.
#[derive(Clone, Default)]
pub(crate) struct LogScope {
    connection: Option<ConnectionScope>,
    work: Option<WorkScope>,
}

#[derive(Clone, Copy)]
struct ConnectionScope {
    /// Behind a proxy it is known once the proxy has said it.
    peer: Option<IpAddr>,
}

#[derive(Clone)]
enum WorkScope {
    Request { event_id: EventId, endpoint: EndpointName, agent: Option<Arc<str>> },
    Attempt { event_id: EventId, endpoint: EndpointName, attempt: u32, agent: Option<Arc<str>> },
    LateOutcome { event_id: EventId, attempt: u32, endpoint: Option<EndpointName> },
    Session { agent: Arc<str>, token: Arc<str>, epoch: Option<u64> },
}

impl LogScope {
    pub(crate) fn connection(peer: Option<IpAddr>) -> Self {
        Self { connection: Some(ConnectionScope { peer }), work: None }
    }

    pub(crate) fn request(event_id: EventId, endpoint: EndpointName) -> Self {
        Self::of(WorkScope::Request { event_id, endpoint, agent: None })
    }

    pub(crate) fn attempt(event_id: EventId, endpoint: EndpointName, attempt: u32, agent: Option<Arc<str>>) -> Self {
        Self::of(WorkScope::Attempt { event_id, endpoint, attempt, agent })
    }

    pub(crate) fn late_outcome(event_id: EventId, attempt: u32) -> Self {
        Self::of(WorkScope::LateOutcome { event_id, attempt, endpoint: None })
    }

    pub(crate) fn session(agent: Arc<str>, token: Arc<str>) -> Self {
        Self::of(WorkScope::Session { agent, token, epoch: None })
    }

    /// The work, on the connection of the scope around it.
    fn of(work: WorkScope) -> Self {
        let connection = CURRENT.try_with(|scope| scope.borrow().connection).unwrap_or_default();
        Self { connection, work: Some(work) }
    }

    /// What a line would be about if it were written here.
    pub(crate) fn current() -> Self {
        CURRENT.try_with(|scope| scope.borrow().clone()).unwrap_or_default()
    }

    /// Whatever `future` writes is about this, in place of what is around it.
    pub(crate) fn around<F: Future>(self, future: F) -> TaskLocalFuture<RefCell<Self>, F> {
        CURRENT.scope(RefCell::new(self), future)
    }

    pub(crate) fn within<R>(self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(RefCell::new(self), work)
    }

    /// What a line names of it, the outermost first.
    fn subjects(&self) -> impl Iterator<Item = Subject> {
        let connection = self
            .connection
            .map(|ConnectionScope { peer }| subject("connection", [peer.map(|peer| plain("peer", &peer))]));
        connection.into_iter().chain(self.work.as_ref().map(WorkScope::subject))
    }
}

impl WorkScope {
    fn subject(&self) -> Subject {
        let quoted_agent = |agent: &Option<Arc<str>>| agent.as_ref().map(|agent| quoted("agent", agent));
        match self {
            Self::Request { event_id, endpoint, agent } => subject(
                "request",
                [Some(plain("event_id", event_id)), Some(plain("endpoint", endpoint)), quoted_agent(agent)],
            ),
            Self::Attempt { event_id, endpoint, attempt, agent } => subject(
                "attempt",
                [
                    Some(plain("event_id", event_id)),
                    Some(plain("endpoint", endpoint)),
                    Some(("attempt", FieldValue::Number((*attempt).into()))),
                    quoted_agent(agent),
                ],
            ),
            Self::LateOutcome { event_id, attempt, endpoint } => subject(
                "late_outcome",
                [
                    Some(plain("event_id", event_id)),
                    Some(("attempt", FieldValue::Number((*attempt).into()))),
                    endpoint.as_ref().map(|endpoint| quoted("endpoint", endpoint.as_str())),
                ],
            ),
            Self::Session { agent, token, epoch } => subject(
                "session",
                [
                    Some(quoted("agent", agent)),
                    Some(plain("token", token)),
                    epoch.map(|epoch| ("epoch", FieldValue::Number(epoch))),
                ],
            ),
        }
    }
}

/// The connection's proxy has named its peer.
pub(crate) fn peer_is(address: IpAddr) {
    learn(|scope| scope.connection = Some(ConnectionScope { peer: Some(address) }));
}

/// The request has an agent.
pub(crate) fn agent_is(name: &Arc<str>) {
    learn(|scope| {
        if let Some(WorkScope::Request { agent, .. }) = &mut scope.work {
            *agent = Some(Arc::clone(name));
        }
    });
}

/// The event of the late outcome was found.
pub(crate) fn endpoint_is(name: &EndpointName) {
    learn(|scope| {
        if let Some(WorkScope::LateOutcome { endpoint, .. }) = &mut scope.work {
            *endpoint = Some(name.clone());
        }
    });
}

/// The session has its number.
pub(crate) fn epoch_is(number: u64) {
    learn(|scope| {
        if let Some(WorkScope::Session { epoch, .. }) = &mut scope.work {
            *epoch = Some(number);
        }
    });
}

fn learn(fact: impl FnOnce(&mut LogScope)) {
    let _ = CURRENT.try_with(|scope| fact(&mut scope.borrow_mut())); // Outside of a scope there is nobody to tell.
}

/// One thing that a line is about, with its fields in the order of a line.
struct Subject {
    name: &'static str,
    fields: Vec<(&'static str, FieldValue)>,
}

enum FieldValue {
    /// Stands in a line of text as it is.
    Plain(String),
    /// Stands there in quotation marks.
    Quoted(String),
    Number(u64),
}

fn subject<const N: usize>(name: &'static str, fields: [Option<(&'static str, FieldValue)>; N]) -> Subject {
    Subject { name, fields: fields.into_iter().flatten().collect() }
}

fn plain(name: &'static str, value: &impl Display) -> (&'static str, FieldValue) {
    (name, FieldValue::Plain(value.to_string()))
}

fn quoted(name: &'static str, value: &str) -> (&'static str, FieldValue) {
    (name, FieldValue::Quoted(value.to_owned()))
}

#[cfg(test)]
mod tests;
