//! A session as the registry keeps it, and what it offered.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use relay_proto::{Attach, CANARY_ENDPOINT, CloseCode, Notice, Offer, OfferState, Rate};
use relay_tunnel::Handle;
use tokio::{sync::Notify, time::Instant};

use super::{
    super::{
        attach_policy::{AttachGrant, AttachPolicy, OfferRequest},
        event_filter::EventFilter,
        membership::{Epoch, Role, Wish},
        targets::Targets,
        token::Shown,
    },
    AgentIdentity, ENDPOINT_PART, REPLACED,
    load::Load,
    roster::SessionFacts,
};
use crate::rate_limiter::RateLimiter;

pub(super) struct Session {
    pub(super) identity: AgentIdentity,
    pub(super) shown: Shown,
    pub(super) epoch: Epoch,
    /// Exchanges that one of its endpoints takes at most.
    share: u32,
    /// What it offered, with the endpoint's name filled in.
    pub(super) offers: Box<[Offered]>,
    /// There once the welcome is sent.
    pub(super) handle: OnceLock<Handle>,
    /// Asked for a sign of life, and not answered yet.
    pub(super) asked: AtomicBool,
    /// Gets no exchange until it answers: its agent may have come back under another instance.
    pub(super) doubted: AtomicBool,
    /// Takes nothing more; a revision gives it nothing back.
    pub(super) drained: AtomicBool,
    /// Copies that it did not get, since it did not keep up.
    pub(super) dropped_copies: Arc<AtomicU64>,
    /// For people.
    pub(super) facts: Mutex<SessionFacts>,
}

/// An offer as it is kept for a session's life: an agent may make many of them, so this is small.
pub(super) struct Offered {
    pub(super) endpoint: Box<str>,
    wish: Wish,
    /// An earlier one is for the same endpoint, and that one counts.
    pub(super) again: bool,
    pub(super) filter: EventFilter,
    capacity: u32,
    rate: Option<Rate>,
    /// There once it was accepted.
    pub(super) load: OnceLock<Arc<Load>>,
}

impl Offered {
    /// As it stands before it is accepted, and what the token allows it to be.
    pub(super) fn new(offer: Offer, policy: &AttachPolicy, shown: &Shown) -> (Self, Result<AttachGrant, &'static str>) {
        let wish = Wish { attach: offer.attach, takeover: offer.takeover };
        let asked = OfferRequest { endpoint: &offer.endpoint, wish, skip_backlog: offer.skip_backlog };
        let admitted = policy.admit(shown, asked);
        let endpoint = admitted.as_ref().map_or(offer.endpoint, |grant| grant.endpoint.clone());
        let offered = Self {
            endpoint: endpoint.into_boxed_str(),
            wish,
            again: false,
            filter: EventFilter::new(&offer.events),
            capacity: offer.capacity,
            rate: offer.rate,
            load: OnceLock::new(),
        };
        (offered, admitted)
    }

    /// A place for canaries: those for the session of this epoch alone.
    pub(super) fn canary(epoch: Epoch) -> Self {
        Self {
            endpoint: CANARY_ENDPOINT.into(),
            wish: Wish { attach: Attach::Shared, takeover: false },
            again: false,
            filter: EventFilter::new(&[canary_kind(epoch)]),
            capacity: 0,
            rate: None,
            load: OnceLock::new(),
        }
    }

    pub(super) fn is_canary(&self) -> bool {
        *self.endpoint == *CANARY_ENDPOINT
    }

    /// As if a token had allowed it.
    pub(super) fn granted(&self) -> AttachGrant {
        AttachGrant { endpoint: self.endpoint.to_string(), exclusive: false, wish: self.wish }
    }

    /// As the config is asked about it. What was for the moment of its hello is over.
    pub(super) fn asked(&self) -> OfferRequest<'_> {
        OfferRequest { endpoint: &self.endpoint, wish: self.wish, skip_backlog: false }
    }

    pub(super) fn accept(&self, targets: &mut Targets, session: &Session, now: Instant) {
        self.load.get_or_init(|| {
            Arc::new(Load {
                capacity: if self.capacity == 0 { session.share } else { self.capacity.min(session.share) }.into(),
                in_flight: AtomicI64::new(0),
                freed: Notify::new(),
                limiter: self.rate.map(|rate| RateLimiter::new(rate, now)),
                target: targets.of(&self.endpoint, &session.identity),
            })
        });
    }
}

impl Session {
    pub(super) fn new(
        identity: AgentIdentity,
        shown: Shown,
        epoch: Epoch,
        offers: Vec<Offered>,
        max_in_flight: u32,
    ) -> Self {
        Self {
            share: share(&offers, max_in_flight),
            identity,
            shown,
            epoch,
            offers: offers.into_boxed_slice(),
            handle: OnceLock::new(),
            asked: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            dropped_copies: Arc::default(),
            facts: Mutex::default(),
        }
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.get() {
            handle.probe();
        }
    }

    pub(super) fn notify(&self, endpoint: &str, state: OfferState) {
        if let Some(handle) = self.handle.get() {
            handle.notify(Notice::Changed { endpoint: endpoint.to_owned(), state });
        }
    }

    pub(super) fn offered(&self, endpoint: &str) -> Option<&Offered> {
        self.offers.iter().find(|offered| *offered.endpoint == *endpoint)
    }
}

/// The type of a canary for a session.
pub(super) fn canary_kind(epoch: Epoch) -> String {
    format!("session.{epoch}")
}

/// Exchanges that one endpoint of a session takes at most: all that there may be, where it is the only one.
fn share(offers: &[Offered], max_in_flight: u32) -> u32 {
    if offers.iter().filter(|offered| !offered.again && !offered.is_canary()).count() < 2 {
        return u32::MAX;
    }
    max_in_flight.div_ceil(u32::try_from(ENDPOINT_PART).unwrap_or(1))
}

pub(crate) const fn offer_state(role: Role) -> OfferState {
    match role {
        Role::Active => OfferState::Accepted,
        Role::Standby => OfferState::Standby,
        Role::Copy => OfferState::Copy,
    }
}

/// Closes what a newer session of the same agent replaces. One that has drained may finish: it is given back.
pub(super) fn replace(older: &[Arc<Session>]) -> Option<Handle> {
    let mut finishing = None;
    for replaced in older.iter().filter_map(|older| older.handle.get()) {
        if replaced.takes_exchanges() {
            replaced.close(CloseCode::Replaced, REPLACED);
        } else {
            replaced.close_when_idle(CloseCode::Replaced, REPLACED);
            finishing = Some(replaced.clone());
        }
    }
    finishing
}
