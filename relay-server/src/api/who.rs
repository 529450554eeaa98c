//! Who asks, and what they may: one value that each mount makes and every path goes by.
//!
//! Invariants: nothing here is taken from a request but by a mount, which proved it; an endpoint out of sight is as one
//! that does not exist, so that the answer to a right that is missing is given only for what is seen.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, request::Parts},
};

use crate::{
    agents::token::{Right, Shown, Token, TokenHash},
    audit::Actor,
    client_certificate::ClientCertificate,
    endpoint::EndpointName,
    events::ListBounds,
    failure::{ApiError, ApiErrorKind},
    routes::Routes,
    store::{MAX_PAGE, Sight},
};

/// Whoever holds the admin token may ask for much at once.
const OF_ADMIN: ListBounds = ListBounds { default_limit: 100, max_limit: MAX_PAGE, max_pages: 100 };
const OF_TOKEN: ListBounds = ListBounds { default_limit: 100, max_limit: 200, max_pages: 10 };

/// Most bytes of a body in one answer to a token: a reader may be slow, and the answer waits for it in memory.
const MAX_PART_BYTES: u64 = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhoKind {
    /// The admin token.
    Admin,
    /// A session of the page.
    Session,
    /// An agent's token.
    Token,
}

#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub kind: WhoKind,
    pub name: Arc<str>,
    /// Its session of the page.
    pub session: Option<u64>,
    /// The secret that it showed; a session has its own.
    secret: Option<TokenHash>,
    /// The certificate of its connection.
    certificate: Option<Arc<ClientCertificate>>,
    /// What it may do where; `None`: everything everywhere.
    token: Option<Arc<Token>>,
}

/// A mount's word on who asks, or why it knows nobody.
#[derive(Clone, Debug)]
pub(crate) struct Asking(pub(crate) Result<Who, ApiError>);

impl Who {
    pub(crate) fn admin() -> Self {
        Self {
            kind: WhoKind::Admin,
            name: Arc::from("admin"),
            session: None,
            secret: None,
            certificate: None,
            token: None,
        }
    }

    pub(crate) fn token(Shown { token, secret, certificate }: Shown) -> Self {
        let name = Arc::clone(&token.name);
        Self { kind: WhoKind::Token, name, session: None, secret: Some(secret), certificate, token: Some(token) }
    }

    /// A page session: with a token's rights, or with all.
    pub(crate) fn session(id: u64, token: Option<Arc<Token>>) -> Self {
        let name = token.as_ref().map_or_else(|| Arc::from("admin"), |token| Arc::clone(&token.name));
        Self { kind: WhoKind::Session, name, session: Some(id), secret: None, certificate: None, token }
    }

    /// The same for the audit log.
    pub(crate) fn actor(&self, address: Option<IpAddr>) -> Actor {
        let kind = match self.kind {
            WhoKind::Admin => "admin",
            WhoKind::Session => "session",
            WhoKind::Token => "token",
        };
        let token = self.token.as_ref().map(|token| Arc::clone(&token.id));
        Actor { kind, name: Arc::clone(&self.name), token, address }
    }

    /// The same asker by the tokens as they are now; `None` if its token is gone.
    pub(crate) fn now(&self, routes: &Routes) -> Option<Self> {
        let Some(before) = &self.token else { return Some(self.clone()) };
        // One that was made anew under its name is another, and a secret that is not good any more is nobody's.
        let token = routes.tokens.named(&before.name).filter(|token| token.id == before.id)?;
        if self.secret.is_some_and(|secret| !token.hashes.contains(&secret)) {
            return None;
        }
        if token.client.as_ref().is_some_and(|rule| !rule.allows(self.certificate.as_deref())) {
            return None;
        }
        Some(Self { token: Some(Arc::clone(token)), ..self.clone() })
    }

    /// The agents' token that it goes by.
    pub(crate) fn own_token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }

    pub(crate) fn may(&self, right: Right, endpoint: &str) -> bool {
        self.token.as_ref().is_none_or(|token| token.may(right, endpoint))
    }

    /// Whether it has a right at all, wherever.
    pub(crate) fn holds(&self, right: Right) -> bool {
        self.token.as_ref().is_none_or(|token| token.rights.contains(&right))
    }

    pub(crate) fn sees(&self, endpoint: &str) -> bool {
        self.may(Right::Read, endpoint)
    }

    /// Fails unless it may do something at an endpoint that it sees.
    pub(crate) fn must(&self, right: Right, endpoint: &str) -> Result<(), ApiError> {
        if self.may(right, endpoint) { Ok(()) } else { Err(lacks(right)) }
    }

    /// The endpoints at which it has a right.
    pub(crate) fn sight(&self, routes: &Routes, right: Right) -> Sight {
        let Some(token) = &self.token else { return Sight::All };
        let names = routes.endpoints().map(|endpoint| &endpoint.name);
        let seen: Vec<EndpointName> = names.filter(|name| token.may(right, name.as_str())).cloned().collect();
        Sight::Only(seen)
    }

    /// By endpoint, or pattern of endpoints.
    pub(crate) fn rights(&self) -> BTreeMap<String, Vec<String>> {
        let names = |rights: &[Right]| rights.iter().map(|right| right.name().to_owned()).collect::<Vec<_>>();
        match &self.token {
            None => BTreeMap::from([("*".to_owned(), names(&Right::ALL))]),
            Some(token) => {
                let patterns = token.endpoints.iter().map(|pattern| pattern.as_str().to_owned());
                patterns.map(|pattern| (pattern, names(&token.rights))).collect()
            }
        }
    }

    pub(crate) fn list_bounds(&self) -> ListBounds {
        if self.token.is_none() { OF_ADMIN } else { OF_TOKEN }
    }

    /// Most bytes of a body in one answer; `None`: all of it.
    pub(crate) fn part_bytes(&self) -> Option<u64> {
        self.token.is_some().then_some(MAX_PART_BYTES)
    }
}

/// The failure of somebody without a right.
pub(crate) fn lacks(right: Right) -> ApiError {
    let kind = match right {
        Right::Attach => ApiErrorKind::NeedsAttach,
        Right::Read => ApiErrorKind::MayNotRead,
        Right::Replay => ApiErrorKind::MayNotReplay,
        Right::Sign => ApiErrorKind::MayNotSign,
        Right::Skip => ApiErrorKind::MayNotSkip,
        Right::Act => ApiErrorKind::MayNotAct,
        Right::Create => ApiErrorKind::MayNotCreate,
        Right::Admin => ApiErrorKind::MayNotAdmin,
    };
    let name = right.name();
    ApiError::new(kind, format!("this token lacks the right `{name}`; add it to the token's `rights` on the relay"))
}

/// Who asks, as the mount said.
pub(super) fn of(extensions: &Extensions) -> Result<Who, ApiError> {
    let nobody = || ApiError::new(ApiErrorKind::Unauthorized, "nobody is known to ask");
    extensions.get::<Asking>().map_or_else(|| Err(nobody()), |Asking(who)| who.clone())
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        of(&parts.extensions)
    }
}
