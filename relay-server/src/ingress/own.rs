//! What is behind the public door for the relay's own paths: services that the root gives it, so that the door knows
//! nothing of them but how they are called.

use std::{convert::Infallible, net::IpAddr};

use http::{Request, Response};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use super::respond::ResponseBody;
use crate::webhook::input::RequestBody;

/// Answers requests to the relay itself.
pub(crate) type OwnService = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Infallible>;

/// Who asks, behind the proxies that are trusted to say so. Stands in the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) IpAddr);

/// Whether the request came over TLS, as far as that is known. Stands beside [`Client`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secure(pub(crate) bool);

pub(crate) struct OwnServices {
    /// What is below `/_relay/v1`, on every host that is no endpoint's own.
    pub(crate) api: OwnService,
    /// All that is asked at the page's own host.
    pub(crate) inspector: OwnService,
}

pub(super) async fn answer(service: OwnService, request: Request<RequestBody>) -> Response<ResponseBody> {
    let Ok(response) = service.oneshot(request).await;
    response
}
