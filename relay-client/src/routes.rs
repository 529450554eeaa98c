//! Which handler a request goes to: by endpoint, and within one by path.
//!
//! Routes are built from the configuration and replaced as a whole when that changes. This module calls nothing and
//! knows no session.
//!
//! A route takes a request when its path is the beginning of what follows the endpoint in the sender's URL, up to the
//! end, a `/` or a `?`; the longest such path wins, and the endpoint's own target takes the rest. Bytes are compared as
//! they were sent: nothing is decoded. A path with dot segments is below no path for certain, so an endpoint with
//! routes takes none of them. The handler sees the whole of it behind its target's path, or with `strip_prefix` what
//! follows the route's path.
//!
//! Invariants: a handler whose configuration did not change stays the same one, with its connections and its limit;
//! calls that run keep theirs.

use std::{collections::BTreeMap, sync::Arc};

use relay_proto::{Offer, UpgradeProtocol};

use crate::{
    config::{Config, EndpointConfig, HandlerConfig},
    handler::Handler,
    target::{UncarriablePath, has_dot_segments},
};

#[derive(Debug)]
pub(crate) struct Route {
    pub config: HandlerConfig,
    pub handler: Handler,
}

#[derive(Debug)]
struct ByPath {
    path: String,
    strip_prefix: bool,
    route: Arc<Route>,
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    /// As it is offered to the relay; its name is empty for the token's only one.
    pub offer: Offer,
    /// What senders may upgrade to, beside WebSocket.
    pub upgrades: Vec<UpgradeProtocol>,
    own: Arc<Route>,
    /// Longest path first.
    by_path: Vec<ByPath>,
}

impl Endpoint {
    /// Prepares an endpoint's handlers, taking those that `before` has already; connects to nothing.
    pub(crate) fn new(config: &EndpointConfig, before: Option<&Self>) -> Result<Self, String> {
        let route = |config: &HandlerConfig| -> Result<_, String> {
            match before.and_then(|before| before.same(config)) {
                Some(route) => Ok(Arc::clone(route)),
                None => Ok(Arc::new(Route { handler: Handler::new(&config.target)?, config: config.clone() })),
            }
        };
        let by_path = config.routes.iter().map(|one| {
            Ok(ByPath { path: one.path.clone(), strip_prefix: one.strip_prefix, route: route(&one.handler)? })
        });
        let mut by_path = by_path.collect::<Result<Vec<_>, String>>()?;
        by_path.sort_by_key(|one| std::cmp::Reverse(one.path.len()));
        let capacity =
            config.handlers().map(|handler| handler.target.max_connections.get()).fold(0, usize::saturating_add);
        let offer = Offer {
            endpoint: config.name.clone().unwrap_or_default(),
            attach: config.attach,
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            takeover: config.takeover,
            events: config.events.clone(),
            skip_backlog: config.skip_backlog,
            rate: config.rate,
        };
        Ok(Self { offer, upgrades: config.upgrades.clone(), own: route(&config.handler)?, by_path })
    }

    fn same(&self, config: &HandlerConfig) -> Option<&Arc<Route>> {
        let mut routes = std::iter::once(&self.own).chain(self.by_path.iter().map(|one| &one.route));
        routes.find(|route| route.config == *config)
    }

    /// The handler for `rest`, what follows the endpoint in the sender's URL, and the request target there.
    pub(crate) fn locate(&self, rest: &str) -> Result<(&Arc<Route>, String), UncarriablePath> {
        if !self.by_path.is_empty() && has_dot_segments(rest) {
            return Err(UncarriablePath::DotSegments);
        }
        let (route, seen) = self.pick(rest);
        Ok((route, route.handler.target.uri_for(seen)?))
    }

    /// The handler for `rest`, and what of `rest` it sees.
    fn pick<'a>(&self, rest: &'a str) -> (&Arc<Route>, &'a str) {
        for ByPath { path, strip_prefix, route } in &self.by_path {
            if let Some(behind) = rest.strip_prefix(path.as_str())
                && (behind.is_empty() || behind.starts_with(['/', '?']))
            {
                return (route, if *strip_prefix { behind } else { rest });
            }
        }
        (&self.own, rest)
    }

    /// Its targets as people read them.
    pub(crate) fn targets(&self) -> String {
        let mut text = self.own.handler.target.to_string();
        for ByPath { path, route, .. } in &self.by_path {
            text.push_str(&format!(", {path} -> {}", route.handler.target));
        }
        text
    }
}

/// Every endpoint of a configuration, in its order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    endpoints: Vec<Arc<Endpoint>>,
    by_name: BTreeMap<String, usize>,
}

impl Table {
    /// Prepares every handler, taking those that `before` has already. The error is for people.
    pub(crate) fn new(config: &Config, before: &Self) -> Result<Self, String> {
        let (mut endpoints, mut by_name) = (Vec::new(), BTreeMap::new());
        for (index, one) in config.endpoints.iter().enumerate() {
            let name = one.name.clone().unwrap_or_default();
            let endpoint = Endpoint::new(one, before.named(&name).map(Arc::as_ref));
            let endpoint = endpoint.map_err(|error| match &one.name {
                Some(name) => format!("endpoint {name}: {error}"),
                None => error,
            })?;
            endpoints.push(Arc::new(endpoint));
            by_name.insert(name, index);
        }
        Ok(Self { endpoints, by_name })
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// The endpoint that the configuration calls so.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name).and_then(|index| self.endpoints.get(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::RouteConfig, handler::TargetConfig};

    fn handler(target: &str) -> HandlerConfig {
        HandlerConfig { target: TargetConfig::new(target.parse().unwrap()), headers: Vec::new(), preserve_host: false }
    }

    fn endpoint(routes: &[(&str, bool, &str)]) -> EndpointConfig {
        let routes = routes.iter().map(|(path, strip_prefix, target)| RouteConfig {
            path: (*path).to_owned(),
            strip_prefix: *strip_prefix,
            handler: handler(target),
        });
        EndpointConfig {
            routes: routes.collect(),
            ..EndpointConfig::new(Some("e".to_owned()), handler("http://own/w"))
        }
    }

    #[test]
    fn the_longest_path_on_a_segments_border_wins() {
        let config = endpoint(&[
            ("/billing", false, "http://billing/app"),
            ("/billing/eu", true, "http://eu/app/"),
            ("/bill", true, "http://bill"),
        ]);
        let endpoint = Endpoint::new(&config, None).unwrap();
        for (rest, seen) in [
            ("", "own /w"),
            ("/", "own /w/"),
            ("?x=/billing", "own /w?x=/billing"),
            ("/billing", "billing /app/billing"),
            ("/billing/", "billing /app/billing/"),
            ("/billing?x=1", "billing /app/billing?x=1"),
            ("/billing/us%2F1?x", "billing /app/billing/us%2F1?x"),
            ("/billing2", "own /w/billing2"),
            ("/Billing", "own /w/Billing"),
            ("/b%69lling", "own /w/b%69lling"),
            ("//billing", "own /w//billing"),
            ("/billing/eu", "eu /app/"),
            ("/billing/eu/1", "eu /app/1"),
            ("/billing/eu?x", "eu /app/?x"),
            ("/billing/europe", "billing /app/billing/europe"),
            ("/bill", "bill /"),
            ("/bill/a", "bill /a"),
            ("/bill?", "bill /?"),
        ] {
            let (route, uri) = endpoint.locate(rest).unwrap();
            assert_eq!(format!("{} {uri}", route.handler.target.authority()), seen, "{rest}");
        }
        assert_eq!(endpoint.offer.capacity, 200);
    }

    #[test]
    fn an_endpoint_with_routes_takes_no_dot_segments() {
        let routed = Endpoint::new(&endpoint(&[("/a", false, "http://a"), ("/b", true, "http://b")]), None).unwrap();
        for rest in ["/a/../b", "/b/%2e%2e/a", "/c/../a", "/b/..;/x", "/.."] {
            assert_eq!(routed.locate(rest).map(|(_, uri)| uri), Err(UncarriablePath::DotSegments), "{rest}");
        }
        let plain = EndpointConfig::new(None, handler("http://own"));
        let plain = Endpoint::new(&plain, None).unwrap();
        assert_eq!(plain.locate("/a/../b").unwrap().1, "/a/../b");
    }

    #[test]
    fn what_did_not_change_keeps_its_handler() {
        let first = Endpoint::new(&endpoint(&[("/a", false, "http://a"), ("/b", false, "http://b")]), None).unwrap();
        let next = endpoint(&[("/a", false, "http://other"), ("/b", true, "http://b")]);
        let next = Endpoint::new(&next, Some(&first)).unwrap();
        let same = |path| Arc::ptr_eq(first.pick(path).0, next.pick(path).0);
        assert_eq!(["/", "/a", "/b"].map(same), [true, false, true]);
    }
}
