//! Who is attached.
//!
//! A session stands here from its hello to its end. The same token, name and instance have one session at a
//! time: a newer one replaces the older at once, by its epoch; only an older one that had drained may finish.
//! Which of an endpoint's sessions serve it is [`super::membership`]'s to say; which of those gets an exchange, `choose`'s.

mod choose;
mod load;
mod roster;
mod session;
mod waiting;

pub(crate) use self::{
    choose::{AttachedAgent, CanaryAgent, ChooseError, Circuits},
    session::offer_state,
};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use relay_proto::{CloseCode, Notice, Offer, OfferState, RequestHead};
use relay_tunnel::{Exchange, Handle, ResponseFuture, Slot};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use self::{
    load::{Counted, Load},
    roster::GoneAgents,
    session::{Offered, Session, replace},
};
use super::{
    attach_policy::{AttachGrant, AttachPolicy},
    membership::{Epoch, Membership, Role, RoleChanges},
    mirror::Mirrors,
    outcomes::Serves,
    targets::{Target, Targets},
    token::{Right, Shown},
};
use crate::clock::Clock;

/// How long an active agent may take to answer when another one wants its place.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// What a session is told whose token lets it do nothing any more.
pub(crate) const REVOKED: &str = "the token is not valid any more";

/// What one is told whose token counts only beside a certificate that it did not show.
const UNCERTIFIED: &str =
    "the token counts only beside a client certificate by now, and this session showed none that fits";

const REPLACED: &str = "a newer session of this agent took over";

/// Requests that wait for an agent at a time; more are answered at once.
pub(crate) const MAX_WAITERS: usize = 1024;

/// An endpoint has at most one part in so many of those, and of a session's exchanges where that serves others, too.
pub(crate) const ENDPOINT_PART: usize = 2;

/// Who an agent is: only the same three fence each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentIdentity {
    pub token: Arc<str>,
    pub name: Arc<str>,
    pub instance: [u8; 16],
}

/// An agent that somebody who has its token, or sees all of them, asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentSelector<'a> {
    /// `None`: whatever token it has.
    pub token: Option<&'a str>,
    pub name: &'a str,
    /// Its process; without it, the newest.
    pub instance: Option<[u8; 16]>,
}

struct Candidate {
    agent: Arc<Session>,
    handle: Handle,
    load: Arc<Load>,
}

/// The answer to an offer: the endpoint's name and the session's role there, or the code of a refusal.
pub(crate) type OfferAnswer = Result<(String, Role), &'static str>;

pub(crate) struct Registry {
    state: Mutex<State>,
    changed: Notify,
    waiters: Semaphore,
    mirrors: Mirrors,
    /// A relay that has just started expects the agents of the one before it.
    started: Instant,
    clock: Clock,
    /// Exchanges at a time on one session.
    max_in_flight: u32,
}

#[derive(Default)]
struct State {
    /// Who may attach to what, as the config says now.
    policy: Arc<AttachPolicy>,
    last_epoch: u64,
    sessions: BTreeMap<Epoch, Arc<Session>>,
    /// By endpoint; names come from the config.
    memberships: HashMap<String, Membership>,
    targets: Targets,
    /// By endpoint: whoever waits for an agent there has one more reference.
    awaited: HashMap<String, Arc<()>>,
    /// Breaks ties between equally free agents.
    turn: usize,
    /// Sessions that ended, the oldest first.
    gone: GoneAgents,
    /// Whose role at which endpoint is another now. Agents are notified before the lock is released.
    changes: Vec<(String, Epoch, Role)>,
}

/// A session's place in the registry; it leaves when this is dropped.
pub(crate) struct Attached {
    registry: Arc<Registry>,
    session: Arc<Session>,
}

/// A session's right to one more exchange.
pub(crate) struct Reservation {
    slot: Slot,
    agent: Arc<Session>,
    counted: Counted,
    /// The target has to learn how a probe ends.
    pub is_probe: bool,
    /// Whether some only watched the endpoint when it was made.
    pub may_be_watched: bool,
    pub was_awaited: bool,
}

impl Reservation {
    pub(crate) fn agent(&self) -> &AgentIdentity {
        &self.agent.identity
    }

    pub(crate) fn target(&self) -> &Target {
        &self.counted.load.target
    }

    pub(crate) fn open(self, head: RequestHead) -> Exchange {
        self.slot.open(head, Box::new(self.counted))
    }

    /// Opens an exchange with a body that is there, of one chunk at most.
    pub(crate) fn open_whole(self, head: RequestHead, body: Bytes) -> ResponseFuture {
        self.slot.open_whole(head, body, Box::new(self.counted))
    }
}

/// What an agent is told of its offers, and whom its coming concerns.
pub(crate) struct Welcomed {
    pub attached: Attached,
    pub answers: Vec<OfferAnswer>,
    /// Whether it stands by somewhere; [`Attached::contest`] is due [`PATIENCE`] later.
    pub contested: bool,
    /// An older session of the same agent that had drained, to be closed when it is idle.
    pub finishing: Option<Handle>,
    /// Whether an older session of the same agent gave way.
    pub replaced: bool,
    pub policy: Arc<AttachPolicy>,
}

impl Registry {
    pub(crate) fn new(clock: Clock, max_in_flight: u32) -> Self {
        Self {
            clock,
            max_in_flight,
            state: Mutex::default(),
            changed: Notify::new(),
            waiters: Semaphore::new(MAX_WAITERS),
            mirrors: Mirrors::default(),
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes who is attached as what. Agents learn of their new roles, and who waits for an agent looks again.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        state.notify_changes();
        drop(state);
        self.changed.notify_waiters();
        changed
    }

    /// Attaches a session. An older one of the same agent is replaced; sessions of the same name in another process, and
    /// active ones that another one wants to relieve, are asked for a sign of life. `None` if the token was revoked since
    /// it was shown.
    pub(crate) fn attach(
        self: &Arc<Self>,
        identity: AgentIdentity,
        shown: Shown,
        offers: Vec<Offer>,
        canaries: bool,
        now_ms: u64,
    ) -> Option<Welcomed> {
        let now = Instant::now();
        self.change(|state| {
            let policy = Arc::clone(&state.policy);
            policy.token(&shown)?;
            state.last_epoch = now_ms.max(state.last_epoch + 1);
            let older: Vec<_> = state.sessions.values().filter(|other| other.identity == identity).cloned().collect();
            let (mut offered, mut admitted) = (Vec::<Offered>::new(), Vec::new());
            for offer in offers {
                let (mut offer, grant) = Offered::new(offer, &policy, &shown);
                offer.again = offered.iter().any(|other| other.endpoint == offer.endpoint);
                admitted.push(if offer.again { Err("offered_twice") } else { grant });
                offered.push(offer);
            }
            // Behind all others, so that it has no answer.
            offered.extend(canaries.then(|| Offered::canary(state.last_epoch)));
            let session = Arc::new(Session::new(identity, shown, state.last_epoch, offered, self.max_in_flight));
            let mut answers = Vec::new();
            for (offer, admitted) in session.offers.iter().zip(admitted) {
                answers.push(admitted.map(|grant| {
                    let role = state.join(&session, older.first(), &grant, now);
                    offer.accept(&mut state.targets, &session, now);
                    (grant.endpoint, role)
                }));
            }
            if let Some(own) = session.offers.last().filter(|own| own.is_canary()) {
                state.join(&session, None, &own.granted(), now);
                own.accept(&mut state.targets, &session, now);
            }
            for older in &older {
                state.remove(older, now);
            }
            state.sessions.insert(session.epoch, Arc::clone(&session));
            state.ask_about(&session);
            let contested = answers.iter().flatten().any(|(_, role)| *role == Role::Standby);
            let finishing = replace(&older);
            let attached = Attached { registry: Arc::clone(self), session };
            Some(Welcomed { attached, answers, contested, finishing, replaced: !older.is_empty(), policy })
        })
    }

    pub(crate) fn notify(&self, endpoint: &str, notice: &Notice) {
        let state = self.lock();
        let Some(members) = state.memberships.get(endpoint) else { return };
        for handle in members.all().filter_map(|epoch| state.sessions.get(&epoch)?.handle.get()) {
            handle.notify(notice.clone());
        }
    }

    /// Goes by these endpoints and tokens from now on, and looks at every offer again. A session that is left with
    /// nothing is closed; one that may do less than it does, or more, joins anew.
    pub(crate) fn revise(&self, policy: AttachPolicy) {
        let (now, policy) = (Instant::now(), Arc::new(policy));
        self.change(|state| {
            state.policy = policy;
            for session in state.sessions.values().cloned().collect::<Vec<_>>() {
                let mut kept = false;
                for offer in session.offers.iter().filter(|offered| !offered.again && !offered.is_canary()) {
                    kept |= state.revise(&session, offer, now);
                }
                state.notify_changes();
                if !kept && let Some(handle) = session.handle.get() {
                    handle.close(CloseCode::Unauthorized, state.why_over(&session.shown));
                }
            }
        });
    }

    /// Announces the relay's stop to every agent.
    pub(crate) fn drain(&self) {
        self.for_each(Handle::drain);
    }

    /// Closes every session once nothing is in flight on it.
    pub(crate) fn close_when_idle(&self) {
        self.for_each(|handle| handle.close_when_idle(CloseCode::GoingAway, "the relay is stopping"));
    }

    fn for_each(&self, act: impl Fn(&Handle)) {
        self.lock().sessions.values().filter_map(|session| session.handle.get()).for_each(act);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Exchanges under way, copies apart.
    pub(crate) fn in_flight(&self) -> usize {
        let state = self.lock();
        let offered = state.sessions.values().flat_map(|session| &session.offers);
        let loads = offered.filter_map(|offered| offered.load.get());
        let sum: i64 = loads.map(|load| load.in_flight.load(Ordering::Relaxed)).sum();
        usize::try_from(sum).unwrap_or(0)
    }
}

impl State {
    /// Changes who stands where at an endpoint that somebody joined, and says whether anybody's role is another then.
    fn update(&mut self, endpoint: &str, update: impl FnOnce(&mut Membership) -> RoleChanges) -> bool {
        let changed = self.memberships.get_mut(endpoint).map(update).unwrap_or_default();
        let any = !changed.is_empty();
        self.changes.extend(changed.into_iter().map(|(epoch, role)| (endpoint.to_owned(), epoch, role)));
        any
    }

    /// A session joins an endpoint, in the place of its predecessor if that was there in the same way.
    fn join(
        &mut self,
        session: &Session,
        predecessor: Option<&Arc<Session>>,
        AttachGrant { endpoint, exclusive, wish, .. }: &AttachGrant,
        now: Instant,
    ) -> Role {
        let epoch = session.epoch;
        self.memberships.entry(endpoint.clone()).or_default();
        self.update(endpoint, |members| members.set_exclusive(*exclusive));
        self.update(endpoint, |members| {
            match predecessor.and_then(|older| members.succeed(older.epoch, epoch, *wish)) {
                Some(role) => vec![(epoch, role)],
                None => members.join(epoch, Arc::clone(&session.identity.name), *wish, now),
            }
        });
        self.memberships[endpoint].role(epoch).unwrap_or(Role::Standby)
    }

    /// Looks at an offer again, by what the config says now; whether it stands.
    fn revise(&mut self, session: &Session, offer: &Offered, now: Instant) -> bool {
        let admitted = self.policy.admit(&session.shown, offer.asked());
        let present = self.memberships.get(&*offer.endpoint).and_then(|members| members.wish(session.epoch));
        match &admitted {
            Ok(grant) if present.is_some_and(|wish| wish.attach == grant.wish.attach) => {
                self.update(&grant.endpoint, |members| members.set_exclusive(grant.exclusive));
            }
            Ok(grant) => {
                if *grant.endpoint == *offer.endpoint && !session.drained.load(Ordering::Relaxed) {
                    self.update(&offer.endpoint, |members| members.leave(session.epoch, now));
                    self.join(session, None, grant, now);
                    offer.accept(&mut self.targets, session, now);
                }
            }
            Err(code) if present.is_some() => {
                self.update(&offer.endpoint, |members| members.leave(session.epoch, now));
                session.notify(&offer.endpoint, OfferState::Refused { code: (*code).to_owned() });
            }
            Err(_) => {}
        }
        admitted.is_ok()
    }

    /// Why a session that showed this has nothing to serve any more.
    fn why_over(&self, shown: &Shown) -> &'static str {
        if self.policy.misses_certificate(shown) { UNCERTIFIED } else { REVOKED }
    }

    fn withdraw(&mut self, session: &Session, now: Instant) {
        for offer in &session.offers {
            self.update(&offer.endpoint, |members| members.leave(session.epoch, now));
        }
    }

    fn remove(&mut self, session: &Session, now: Instant) {
        if self.sessions.remove(&session.epoch).is_some() {
            self.withdraw(session, now);
        }
    }

    /// Asks those for a sign of life whom a newcomer may relieve: its namesakes, and active ones where it stands by.
    fn ask_about(&self, newcomer: &Session) {
        for other in self.sessions.values().filter(|other| other.epoch != newcomer.epoch) {
            if (&other.identity.token, &other.identity.name) == (&newcomer.identity.token, &newcomer.identity.name) {
                other.doubted.store(true, Ordering::Relaxed);
                other.ask();
            }
        }
        for members in self.memberships.values().filter(|members| members.role(newcomer.epoch) == Some(Role::Standby)) {
            for active in members.epochs(Role::Active).filter_map(|epoch| self.sessions.get(&epoch)) {
                active.ask();
            }
        }
    }

    fn notify_changes(&mut self) {
        for (endpoint, epoch, role) in self.changes.drain(..) {
            if let Some(session) = self.sessions.get(&epoch) {
                session.notify(&endpoint, offer_state(role));
            }
        }
    }
}

impl Attached {
    pub(crate) fn epoch(&self) -> u64 {
        self.session.epoch
    }

    /// The welcome is sent: exchanges may come. Says what has changed since the answers were made, and closes what was
    /// replaced or lost its rights meanwhile.
    pub(crate) fn ready(&self, handle: Handle, answers: &[OfferAnswer]) {
        let state = self.registry.lock();
        let handle = self.session.handle.get_or_init(|| handle);
        if !state.sessions.contains_key(&self.session.epoch) {
            return handle.close(CloseCode::Replaced, REPLACED);
        }
        let mut kept = false;
        let offers = self.session.offers.iter().zip(answers).filter(|(offered, _)| !offered.again);
        for (offer, answered) in offers {
            let admitted = state.policy.admit(&self.session.shown, offer.asked());
            kept |= admitted.is_ok();
            let now = state.memberships.get(&*offer.endpoint).and_then(|members| members.role(self.session.epoch));
            match (now, answered, admitted) {
                (Some(now), Ok((_, answered)), _) if now == *answered => {}
                (Some(now), ..) => self.session.notify(&offer.endpoint, offer_state(now)),
                (None, Ok((endpoint, _)), Err(code)) => {
                    self.session.notify(endpoint, OfferState::Refused { code: code.to_owned() });
                }
                (None, ..) => {}
            }
        }
        if !kept {
            return handle.close(CloseCode::Unauthorized, state.why_over(&self.session.shown));
        }
        if self.session.asked.load(Ordering::Relaxed) {
            self.session.ask();
        }
        drop(state);
        self.registry.changed.notify_waiters();
    }

    /// Whether this session's agent may serve an endpoint that it offered, by what its token allows at that moment.
    pub(crate) fn serves(&self) -> Serves {
        let (registry, session) = (Arc::clone(&self.registry), Arc::clone(&self.session));
        Arc::new(move |endpoint| {
            let state = registry.lock();
            session.offered(endpoint).is_some() && state.policy.may(Right::Attach, endpoint, &session.shown)
        })
    }

    pub(crate) fn answered(&self) {
        self.session.asked.store(false, Ordering::Relaxed);
        self.session.doubted.store(false, Ordering::Relaxed);
        self.registry.change(|state| {
            state.memberships.values_mut().for_each(|members| members.answered(self.session.epoch));
        });
    }

    /// The agent takes nothing more: those that stand by take its place.
    pub(crate) fn draining(&self) {
        self.registry.change(|state| {
            self.session.drained.store(true, Ordering::Relaxed);
            if state.sessions.contains_key(&self.session.epoch) {
                state.withdraw(&self.session, Instant::now());
            }
        });
    }

    /// Where this session stands by: the active ones that were asked and have not answered make room.
    pub(crate) fn contest(&self) {
        self.registry.change(|state| {
            let asked = |session: &&Arc<Session>| session.asked.load(Ordering::Relaxed);
            let silent: Vec<Epoch> = state.sessions.values().filter(asked).map(|session| session.epoch).collect();
            for offer in &self.session.offers {
                state.update(&offer.endpoint, |members| members.yield_to(self.session.epoch, &silent));
            }
        });
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let now = self.registry.now();
        self.registry.change(|state| {
            state.note_gone(&self.session, now);
            state.remove(&self.session, Instant::now());
        });
    }
}
