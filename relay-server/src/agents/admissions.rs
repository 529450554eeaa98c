//! What the running configuration allows agents: one value, replaced as a whole.
//!
//! The registry holds it under its own lock, so that a hello and a revision never go by different ones. Reads no file
//! and knows no session.
//!
//! Invariant: a session is judged by the secret that it showed, not by its token's name alone: a secret that was taken
//! out of its token lets nobody in, and nobody stay.

use relay_proto::{Attach, Offer};

use super::{
    places::Wish,
    token::{Right, Shown, Token, TokenHash, Tokens},
};

/// What an endpoint is to an agent that attaches.
#[derive(Clone, Debug)]
pub struct Attachable {
    /// Its name.
    pub name: String,
    /// Its public address.
    pub url: String,
    /// Its provider's name, or `none`.
    pub provider: String,
    /// Whether it takes one active agent at a time.
    pub exclusive: bool,
}

/// What a token allows an agent at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The endpoint's name.
    pub endpoint: String,
    /// Whether the endpoint takes one active agent at a time.
    pub exclusive: bool,
    /// The wish as far as the token's rights go.
    pub wish: Wish,
}

/// Tokens and endpoints of one config.
#[derive(Clone, Debug, Default)]
pub struct Admissions {
    tokens: Tokens,
    attachable: Vec<Attachable>,
}

impl Admissions {
    /// Those of a config.
    #[must_use]
    pub const fn new(tokens: Tokens, attachable: Vec<Attachable>) -> Self {
        Self { tokens, attachable }
    }

    /// The token of that name, if it still has this secret.
    #[must_use]
    pub fn token(&self, name: &str, secret: TokenHash) -> Option<&Token> {
        let named = self.tokens.iter().find(|token| *token.name == *name)?;
        named.hashes.contains(&secret).then_some(&**named)
    }

    /// What a token allows an offer to be.
    ///
    /// # Errors
    /// A stable code.
    pub fn admit(&self, shown: &Shown, offer: &Offer) -> Result<Admission, &'static str> {
        let token = self.token(&shown.token.name, shown.secret).ok_or("unauthorized")?;
        let endpoint = if offer.endpoint.is_empty() {
            let mut allowed = self.attachable.iter().filter(|endpoint| opens(token, &endpoint.name));
            match (allowed.next(), allowed.next()) {
                (Some(only), None) => only,
                _ => return Err("choose_one"),
            }
        } else if opens(token, &offer.endpoint) {
            self.describe(&offer.endpoint).ok_or("unknown_endpoint")?
        } else {
            return Err("not_allowed");
        };
        let attach = match offer.attach {
            Attach::Copy if token.may(Right::Read, &endpoint.name) => Attach::Copy,
            Attach::Copy => return Err("may_not_read"),
            attach if token.may(Right::Attach, &endpoint.name) => attach,
            Attach::Auto => Attach::Copy, // It may read, and that is what it gets.
            _ => return Err("may_not_attach"),
        };
        if offer.skip_backlog && !token.may(Right::Skip, &endpoint.name) {
            return Err("may_not_skip");
        }
        let wish = Wish { attach, takeover: offer.takeover && attach == Attach::Exclusive };
        Ok(Admission { endpoint: endpoint.name.clone(), exclusive: endpoint.exclusive, wish })
    }

    /// The endpoint of that name.
    #[must_use]
    pub fn describe(&self, name: &str) -> Option<&Attachable> {
        self.attachable.iter().find(|endpoint| endpoint.name == name)
    }

    /// The endpoints that a token is for.
    pub fn open_to(&self, shown: &Shown) -> impl Iterator<Item = &Attachable> {
        let token = self.token(&shown.token.name, shown.secret);
        self.attachable.iter().filter(move |endpoint| token.is_some_and(|token| opens(token, &endpoint.name)))
    }
}

fn opens(token: &Token, endpoint: &str) -> bool {
    token.may(Right::Attach, endpoint) || token.may(Right::Read, endpoint)
}
