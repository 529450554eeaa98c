//! The API's paths.

mod endpoints;
mod events;
mod refused;
pub(crate) mod shapes;

use std::sync::Arc;

use axum::Router;

use self::endpoints::EndpointsApi;
use crate::{runtime_config::RuntimeConfig, services::Services};

/// All of them, for whoever holds the admin token.
pub(crate) fn routes(services: &Services, runtime_config: &Arc<RuntimeConfig>) -> Router {
    let endpoints = EndpointsApi { services: services.clone(), runtime_config: Arc::clone(runtime_config) };
    refused::routes(services.clone()).merge(events::routes(services.clone())).merge(endpoints::routes(endpoints))
}
