//! What stands around every public request, outermost first, each with its why.

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{
    HeaderMap, Request, Response, Version,
    header::{self, Entry},
};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    service::{HttpService, service_fn},
};

use super::{
    access::AccessEntry,
    head::Turn,
    observed::access_route,
    request::{Connection, KnownHead, Requests},
    respond::{self, BodyError, ResponseBody},
    streams::asked,
};
use crate::{
    failure::RelayFault,
    message,
    throttle::Throttle,
    webhook::{
        EventId,
        input::OpenRequest,
        lines::{Line, LineNotes},
    },
};

static PANICKED: Throttle = Throttle::new();

/// The service of one connection.
pub(super) fn service(
    requests: Arc<Requests>,
    connection: Arc<Connection>,
) -> impl HttpService<Incoming, ResBody = AnswerBody, Error = Infallible, Future: Send + 'static> {
    service_fn(move |mut request: Request<Incoming>| {
        let (requests, connection) = (Arc::clone(&requests), Arc::clone(&connection));
        let one_of_many = matches!(request.version(), Version::HTTP_10 | Version::HTTP_11);
        let seen = connection.watch.take(&request);
        // Here, and not when the future is polled first: the end of input may come in between.
        let mut open = connection.input.open();
        if connection.is_unnamed {
            message::drop_tales(request.headers_mut());
        }
        let lines = LineNotes::of(request.headers());
        if lines.has(Line::Authorization) || lines.has(Line::Cookie) {
            conceal(request.headers_mut());
        }
        let log = requests.access.as_ref();
        let mut access = log.map(|log| AccessEntry::begin(log, &connection, &request, seen.started));
        async move {
            let request = request.map(|body| open.body(body));
            let answer = async {
                let path = access.as_ref().map(|_| request.uri().path().to_owned());
                let read = requests.read(&connection, KnownHead { seen, lines }, &mut open, request);
                if let (Some(access), Some(path)) = (&mut access, path) {
                    access.routed(access_route(&read, &path));
                }
                // In a box: hyper keeps room for this future while its connection waits for the next request.
                let mut answer = Box::pin(requests.answer(read));
                poll_fn(|cx| asked(answer.as_mut().poll(cx))).await
            };
            // A bug in one request is that request's 500, not the connection's end.
            let response = AssertUnwindSafe(answer).catch_unwind().await;
            let mut response = response.unwrap_or_else(|_| panicked());
            requests.say_farewell(one_of_many, &mut response);
            if let Some(access) = &mut access {
                access.answered(&mut response);
            }
            let turn = connection.watch.follow(response.status());
            Ok(response.map(|inner| AnswerBody { inner, access, open, _turn: turn }))
        }
    })
}

/// What authenticates somebody is never printed, whatever prints a request.
fn conceal(headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, header::COOKIE] {
        if let Entry::Occupied(mut lines) = headers.entry(name) {
            lines.iter_mut().for_each(|line| line.set_sensitive(true));
        }
    }
}

fn panicked() -> Response<ResponseBody> {
    if let Some(held_back) = PANICKED.pass("") {
        tracing::error!(held_back, "a request panicked; this is a bug");
    }
    respond::failure(RelayFault::Internal.into(), EventId::new())
}

/// An answer's body. Its request is open until hyper has taken all of it, or drops it.
pub(super) struct AnswerBody {
    inner: ResponseBody,
    /// Its request's line in the access log, where there is one.
    access: Option<Box<AccessEntry>>,
    open: OpenRequest,
    _turn: Option<Turn>,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // hyper does not ask for the end of a body whose length it knows.
        if let Some(access) = self.access.as_mut().filter(|_| self.inner.is_end_stream()) {
            access.is_whole();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = asked(Pin::new(&mut self.inner).poll_frame(cx));
        if let Poll::Ready(Some(Ok(_))) = &frame {
            self.open.sends();
        }
        if let (Poll::Ready(frame), Some(access)) = (&frame, &mut self.access) {
            access.sent(frame.as_ref());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
