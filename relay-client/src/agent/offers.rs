//! What the agent offers, what the relay made of it, and what the user reads about it.
//!
//! Words and values; no session is driven here.

use std::collections::BTreeMap;

use relay_proto::{Attach, Offer, OfferState, Welcome};

use super::session::Failed;
use crate::{
    config::{Config, Token, TokenError, Way},
    report::{AgentRole, AgentState, ReadyEndpoint, Reporter},
    routes::Table,
};

/// What a session depends on: a change of any of it needs a new session. How handlers are called is no part of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) token: Token,
    pub(super) name: String,
    /// What is offered; an endpoint without a name is the token's only one.
    pub(super) offers: Vec<Offer>,
}

impl Plan {
    /// The plan of a configuration; reads the token as it is now.
    pub(super) fn of(config: &Config, table: &Table) -> Result<Self, TokenError> {
        Ok(Self {
            way: config.way.clone(),
            token: config.token.read()?,
            name: config.name.clone(),
            offers: table.iter().map(|endpoint| endpoint.offer.clone()).collect(),
        })
    }
}

/// Why there is no session, if the relay accepted none of the offers.
pub(super) fn refusal(welcome: &Welcome) -> Option<Failed> {
    if welcome.endpoints.iter().any(|endpoint| role(&endpoint.state).is_ok()) {
        return None;
    }
    let first = welcome.endpoints.first().and_then(|endpoint| role(&endpoint.state).err()).unwrap_or_default();
    let names: Vec<_> = welcome.endpoints.iter().map(|endpoint| endpoint.endpoint.as_str()).collect();
    let names = names.join(", ");
    let why = match first {
        "choose_one" if welcome.available.is_empty() => "this token may attach to no endpoint".to_owned(),
        "choose_one" => format!("name one of this token's endpoints: {}", welcome.available.join(", ")),
        "not_allowed" | "unknown_endpoint" => {
            format!("no endpoint {names} for this token; it may attach to: {}", welcome.available.join(", "))
        }
        "may_not_attach" => format!("this token may only watch {names}; attach with --attach copy"),
        "needs_attach" => format!(
            "who watches {names} would see its sender's credential, and this token may only read; it lacks the right `attach`"
        ),
        "may_not_read" => format!("this token may not watch {names}; it lacks the right `read`"),
        "may_not_skip" => format!(
            "this token may not skip what waits for {names}: leave out --backlog skip, or add the right `skip` to the \
             token's `rights` on the relay"
        ),
        other => format!("the relay refused: {other}"),
    };
    Some(Failed::Refused { why, code: Some(first.to_owned()) })
}

/// Says what is ready and what is not, and maps the relay's names to the settings'.
pub(super) fn announce(welcome: &Welcome, plan: &Plan, table: &Table, reporter: &Reporter) -> BTreeMap<String, String> {
    let (mut names, mut ready, mut others) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (answer, Offer { endpoint: name, attach, .. }) in welcome.endpoints.iter().zip(&plan.offers) {
        let endpoint = answer.endpoint.clone();
        names.insert(endpoint.clone(), name.clone());
        match role(&answer.state) {
            Ok(role) => {
                match role {
                    AgentRole::Standby => others.push(AgentState::Standby { endpoint: endpoint.clone() }),
                    // Who asked for copies knows it.
                    AgentRole::Copy if *attach != Attach::Copy => {
                        others.push(AgentState::Copy { endpoint: endpoint.clone() });
                    }
                    AgentRole::Copy | AgentRole::Active => {}
                }
                ready.push(ReadyEndpoint {
                    name: endpoint,
                    public_url: plan.way.relay.endpoint_url(&answer.url),
                    target: table.named(name).map(|endpoint| endpoint.targets()).unwrap_or_default(),
                    role,
                });
            }
            Err(code) => reporter.warn(format!("endpoint {endpoint} was refused by the relay: {code}")),
        }
    }
    reporter.state(AgentState::Ready { endpoints: ready });
    others.into_iter().for_each(|state| reporter.state(state));
    names
}

/// Says that an endpoint's state is another now.
pub(super) fn announce_change(endpoint: String, state: &OfferState, reporter: &Reporter) {
    match state {
        OfferState::Accepted => reporter.state(AgentState::Active { endpoint }),
        OfferState::Standby => reporter.state(AgentState::Standby { endpoint }),
        OfferState::Copy => reporter.state(AgentState::Copy { endpoint }),
        OfferState::Refused { code } => {
            reporter.warn(format!("endpoint {endpoint} was taken away by the relay: {code}"));
        }
    }
}

/// What this agent is to an endpoint, or the code that says why the relay does not let it have it.
pub(super) fn role(state: &OfferState) -> Result<AgentRole, &str> {
    match state {
        OfferState::Accepted => Ok(AgentRole::Active),
        OfferState::Standby => Ok(AgentRole::Standby),
        OfferState::Copy => Ok(AgentRole::Copy),
        OfferState::Refused { code } => Err(code),
    }
}
