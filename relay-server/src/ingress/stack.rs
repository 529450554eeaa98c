//! The layers around every public request, outermost first, each with its why.

use std::{any::Any, convert::Infallible, sync::Arc};

use http::{Request, Response, header};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::{
    catch_panic::{CatchPanicLayer, ResponseForPanic},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
};

use super::{Door, Origin, handle, head::Watch, respond};
use crate::webhook::{EventId, Failure};

/// The service of one connection.
pub fn stack(
    door: Arc<Door>,
    origin: Origin,
    watch: Arc<Watch>,
) -> impl Service<Request<Incoming>, Response = Response<respond::Body>, Error = Infallible, Future: Send> + Clone + Send
{
    let watched = Arc::clone(&watch);
    ServiceBuilder::new()
        // The layer below boxes every body once more; this is the one type that leaves the stack.
        .map_response(move |response: Response<_>| watched.follow(response.map(respond::boxed)))
        // A bug in one request is that request's 500, not the connection's end.
        .layer(CatchPanicLayer::custom(Panicked))
        // What authenticates somebody is never printed, whatever prints a request.
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE]))
        .service(service_fn(move |request| {
            let (door, seen) = (Arc::clone(&door), watch.take(&request));
            async move { Ok(handle(door, origin, seen, request).await) }
        }))
}

#[derive(Clone, Copy)]
struct Panicked;

impl ResponseForPanic for Panicked {
    type ResponseBody = respond::Body;

    fn response_for_panic(&mut self, _: Box<dyn Any + Send + 'static>) -> Response<respond::Body> {
        tracing::error!("a request panicked; this is a bug");
        respond::failure(Failure::Internal, EventId::new())
    }
}
