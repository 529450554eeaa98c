//! What a session depends on: a change of any of it needs a new session.
//!
//! Values only. How handlers are called is no part of it.

use relay_proto::Offer;

use crate::{
    config::{Config, Token, TokenError, Way},
    routes::Table,
};

/// The way to the relay, who the agent is there, and what it offers.
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
