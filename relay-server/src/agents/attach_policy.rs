//! What the running configuration allows agents: one value, replaced as a whole.
//!
//! The registry holds it under its own lock, so that a hello and a revision never go by different ones. Reads no file
//! and knows no session.
//!
//! Invariant: a session is judged by the secret and the certificate that it showed, not by its token's name alone: a
//! secret that was taken out of its token lets nobody in, and nobody stay; nor does one whose token now counts only beside
//! another certificate.

use relay_proto::{Attach, RequestHead};

use super::{
    membership::Wish,
    token::{Right, Shown, Token, Tokens},
};
use crate::mask::MASKED;

/// What an endpoint is to an agent that attaches.
#[derive(Clone, Debug)]
pub(crate) struct Attachable {
    pub name: String,
    pub url: String,
    /// Its provider's name, or `none`.
    pub provider: String,
    pub exclusive: bool,
    /// Whether its sender's credential stands in queries or bodies, so that who sees an exchange could send one.
    pub shows_credential: bool,
    /// The headers in which it stands.
    pub credential_headers: Vec<String>,
}

/// What an offer asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfferRequest<'a> {
    /// The endpoint's name; empty for the only one that the token allows.
    pub endpoint: &'a str,
    pub wish: Wish,
    /// Whether what waits there is not wanted.
    pub skip_backlog: bool,
}

/// What a token allows an agent at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachGrant {
    pub endpoint: String,
    pub exclusive: bool,
    /// The wish as far as the token's rights go.
    pub wish: Wish,
}

/// Tokens and endpoints of one config.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttachPolicy {
    tokens: Tokens,
    attachable: Vec<Attachable>,
}

impl AttachPolicy {
    /// Those of a config.
    pub(crate) const fn new(tokens: Tokens, attachable: Vec<Attachable>) -> Self {
        Self { tokens, attachable }
    }

    /// The token of the name that was shown, if what was shown is still good for it.
    pub(crate) fn token(&self, shown: &Shown) -> Option<&Token> {
        let named = self.tokens.iter().find(|token| *token.name == *shown.token.name)?;
        shown.is_good_for(named).then_some(&**named)
    }

    /// Whether the secret that was shown is good, and the certificate beside it is not.
    pub(crate) fn misses_certificate(&self, shown: &Shown) -> bool {
        let named = self.tokens.named(&shown.token.name).filter(|token| token.hashes.contains(&shown.secret));
        named.is_some_and(|token| !shown.is_good_for(token))
    }

    /// What a token allows an offer to be.
    pub(crate) fn admit(&self, shown: &Shown, offer: OfferRequest<'_>) -> Result<AttachGrant, &'static str> {
        let token = self.token(shown).ok_or("unauthorized")?;
        let endpoint = if offer.endpoint.is_empty() {
            let mut allowed = self.attachable.iter().filter(|endpoint| opens(token, &endpoint.name));
            match (allowed.next(), allowed.next()) {
                (Some(only), None) => only,
                _ => return Err("choose_one"),
            }
        } else if opens(token, offer.endpoint) {
            self.describe(offer.endpoint).ok_or("unknown_endpoint")?
        } else {
            return Err("not_allowed");
        };
        let attach = match offer.wish.attach {
            Attach::Copy if endpoint.shows_credential && !token.may(Right::Attach, &endpoint.name) => {
                return Err("needs_attach");
            }
            Attach::Copy if token.may(Right::Read, &endpoint.name) => Attach::Copy,
            Attach::Copy => return Err("may_not_read"),
            attach if token.may(Right::Attach, &endpoint.name) => attach,
            Attach::Auto if endpoint.shows_credential => return Err("needs_attach"),
            Attach::Auto => Attach::Copy, // It may read, and that is what it gets.
            _ => return Err("may_not_attach"),
        };
        if offer.skip_backlog && !token.may(Right::Skip, &endpoint.name) {
            return Err("may_not_skip");
        }
        let wish = Wish { attach, takeover: offer.wish.takeover && attach == Attach::Exclusive };
        Ok(AttachGrant { endpoint: endpoint.name.clone(), exclusive: endpoint.exclusive, wish })
    }

    /// Whether a token still allows something at an endpoint.
    pub(crate) fn may(&self, right: Right, endpoint: &str, shown: &Shown) -> bool {
        self.token(shown).is_some_and(|token| token.may(right, endpoint))
    }

    pub(crate) fn describe(&self, name: &str) -> Option<&Attachable> {
        self.attachable.iter().find(|endpoint| endpoint.name == name)
    }

    /// The endpoints that a token is for.
    pub(crate) fn open_to(&self, shown: &Shown) -> impl Iterator<Item = &Attachable> {
        let token = self.token(shown);
        self.attachable.iter().filter(move |endpoint| token.is_some_and(|token| opens(token, &endpoint.name)))
    }
}

/// Hides the values of these lines of a head.
pub(crate) fn hide_lines<N: AsRef<str>>(head: &mut RequestHead, names: &[N]) {
    if names.is_empty() {
        return;
    }
    let hidden = |name: &[u8]| names.iter().any(|hidden| hidden.as_ref().as_bytes().eq_ignore_ascii_case(name));
    let shown = |(name, value)| (name, if hidden(name) { MASKED.as_bytes() } else { value });
    head.headers = head.headers.iter().map(shown).collect();
}

fn opens(token: &Token, endpoint: &str) -> bool {
    token.may(Right::Attach, endpoint) || token.may(Right::Read, endpoint)
}
