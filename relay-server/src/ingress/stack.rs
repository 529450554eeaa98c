//! The layers around every public request, outermost first, each with its why.

use std::{
    any::Any,
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::{
    catch_panic::{CatchPanicLayer, ResponseForPanic},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
};

use super::{
    head::Watch,
    request::{Connection, Requests},
    respond,
    streams::asked,
};
use crate::{
    failure::RelayFault,
    throttle::Throttle,
    webhook::{
        EventId,
        input::{Input, OpenRequest},
    },
};

static PANICKED: Throttle = Throttle::new();

/// The service of one connection.
pub(super) fn stack(
    requests: Arc<Requests>,
    connection: Arc<Connection>,
    watch: Arc<Watch>,
    input: Arc<Input>,
) -> impl Service<Request<Incoming>, Response = Response<respond::ResponseBody>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    let watched = Arc::clone(&watch);
    ServiceBuilder::new()
        // The layer below boxes every body once more; this is the one type that leaves the stack.
        .map_response(move |response: Response<_>| watched.follow(response.map(respond::boxed)))
        // A bug in one request is that request's 500, not the connection's end.
        .layer(CatchPanicLayer::custom(Panicked))
        // What authenticates somebody is never printed, whatever prints a request.
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE]))
        .service(service_fn(move |request| {
            let (requests, connection, seen) = (Arc::clone(&requests), Arc::clone(&connection), watch.take(&request));
            // Here, and not when the future is polled first: the end of input may come in between.
            let mut open = input.open();
            async move {
                let request = request.map(|body| open.body(body));
                let response = {
                    let mut answer = pin!(requests.handle(&connection, seen, &mut open, request));
                    poll_fn(|cx| asked(answer.as_mut().poll(cx))).await
                };
                Ok(response.map(|inner| AnswerBody { inner, _open: open }))
            }
        }))
}

/// An answer's body. Its request is open until hyper has taken all of it, or drops it.
struct AnswerBody {
    inner: respond::ResponseBody,
    _open: OpenRequest,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = <respond::ResponseBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        asked(Pin::new(&mut self.inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[derive(Clone, Copy)]
struct Panicked;

impl ResponseForPanic for Panicked {
    type ResponseBody = respond::ResponseBody;

    fn response_for_panic(&mut self, _: Box<dyn Any + Send + 'static>) -> Response<respond::ResponseBody> {
        if let Some(held_back) = PANICKED.pass("") {
            tracing::error!(held_back, "a request panicked; this is a bug");
        }
        respond::failure(RelayFault::Internal.into(), EventId::new())
    }
}
