//! What the agent offers, what the relay made of it, and what the user reads about it.
//!
//! Words and values; no session is driven here.

use std::collections::HashMap;

use relay_proto::{Attach, Hello, Offer, OfferState, Welcome};
use uuid::Uuid;

use super::{plan::Plan, session::Failed};
use crate::{
    report::{AgentRole, AgentState, ReadyEndpoint, Reporter},
    routes::Table,
};

/// What the agent calls itself towards the relay.
const SOFTWARE: &str = concat!("relay-client/", env!("CARGO_PKG_VERSION"));

/// What became of an endpoint that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndpointState {
    Attached(AgentRole),
    /// The relay does not let this agent have it; a code says why.
    Refused(String),
}

/// A relay's word as this agent's.
pub(super) trait Readable {
    fn read(&self) -> EndpointState;
}

impl Readable for OfferState {
    fn read(&self) -> EndpointState {
        match self {
            Self::Accepted => EndpointState::Attached(AgentRole::Active),
            Self::Standby => EndpointState::Attached(AgentRole::Standby),
            Self::Copy => EndpointState::Attached(AgentRole::Copy),
            Self::Refused { code } => EndpointState::Refused(code.clone()),
        }
    }
}

/// The hello of a plan. `takes_over` says of which endpoints the agent wants to be active at once, `is_first` whether
/// it was never attached to one.
pub(super) fn hello(
    plan: &Plan,
    instance: Uuid,
    takes_over: impl Fn(&str) -> bool,
    is_first: impl Fn(&str) -> bool,
) -> Hello {
    let offer = |offer: &Offer| Offer {
        takeover: offer.attach == Attach::Exclusive && takes_over(&offer.endpoint),
        skip_backlog: offer.skip_backlog && is_first(&offer.endpoint),
        ..offer.clone()
    };
    Hello {
        name: plan.name.clone(),
        instance: *instance.as_bytes(),
        software: SOFTWARE.to_owned(),
        offers: plan.offers.iter().map(offer).collect(),
    }
}

/// Why there is no session, if the relay accepted none of the offers.
pub(super) fn refusal(welcome: &Welcome) -> Option<Failed> {
    let code = |state: &OfferState| match state {
        OfferState::Refused { code } => Some(code.clone()),
        OfferState::Accepted | OfferState::Standby | OfferState::Copy => None,
    };
    let codes: Vec<String> = welcome.endpoints.iter().filter_map(|endpoint| code(&endpoint.state)).collect();
    if codes.len() < welcome.endpoints.len() {
        return None;
    }
    let first = codes.into_iter().next().unwrap_or_default();
    let names: Vec<_> = welcome.endpoints.iter().map(|endpoint| endpoint.endpoint.as_str()).collect();
    let names = names.join(", ");
    let why = match first.as_str() {
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
    Some(Failed::Refused { why, code: Some(first) })
}

/// Says what is ready and what is not, and maps the relay's names to the settings'.
pub(super) fn announce(welcome: &Welcome, plan: &Plan, table: &Table, reporter: &Reporter) -> HashMap<String, String> {
    let (mut names, mut ready, mut others) = (HashMap::new(), Vec::new(), Vec::new());
    for (answer, Offer { endpoint: name, attach, .. }) in welcome.endpoints.iter().zip(&plan.offers) {
        let endpoint = answer.endpoint.clone();
        names.insert(endpoint.clone(), name.clone());
        match answer.state.read() {
            EndpointState::Attached(role) => {
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
                    public_url: plan.relay.endpoint_url(&answer.url),
                    target: table.named(name).map(|endpoint| endpoint.targets()).unwrap_or_default(),
                    role,
                });
            }
            EndpointState::Refused(code) => {
                reporter.warn(format!("endpoint {endpoint} was refused by the relay: {code}"));
            }
        }
    }
    reporter.state(AgentState::Ready { endpoints: ready });
    others.into_iter().for_each(|state| reporter.state(state));
    names
}

/// Says that an endpoint's state is another now.
pub(super) fn announce_change(endpoint: String, state: &EndpointState, reporter: &Reporter) {
    match state {
        EndpointState::Attached(AgentRole::Active) => reporter.state(AgentState::Active { endpoint }),
        EndpointState::Attached(AgentRole::Standby) => reporter.state(AgentState::Standby { endpoint }),
        EndpointState::Attached(AgentRole::Copy) => reporter.state(AgentState::Copy { endpoint }),
        EndpointState::Refused(code) => {
            reporter.warn(format!("endpoint {endpoint} was taken away by the relay: {code}"));
        }
    }
}
