//! Who is attached.
//!
//! A session stands here from its hello to its end. The same token, name and instance have one session at a
//! time: a newer one replaces the older at once, by its epoch; only an older one that had drained may finish.
//! Which of an endpoint's sessions serve it is [`super::membership`]'s to say; which of those gets an exchange, `choose`'s.

mod choose;
mod load;
mod session;
mod waiting;

pub(crate) use self::{
    choose::{AttachedAgent, ChooseError, Circuits},
    session::offer_state,
};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use relay_proto::{CloseCode, Notice, Offer, OfferState, RequestHead};
use relay_tunnel::{Exchange, Handle, Slot};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use self::{
    load::{Counted, Load},
    session::{Offered, Session, replace},
};
use super::{
    attach_policy::{AttachGrant, AttachPolicy},
    membership::{Epoch, Membership, Role},
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

/// What a replaced session is told.
const REPLACED: &str = "a newer session of this agent took over";

/// Requests that wait for an agent at a time; more are answered at once.
const MAX_WAITERS: usize = 1024;

/// Who an agent is: only the same three fence each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentIdentity {
    /// The token's name.
    pub token: Arc<str>,
    /// The agent's name.
    pub name: Arc<str>,
    /// The agent's process.
    pub instance: [u8; 16],
}

/// An agent that somebody who has its token asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentSelector<'a> {
    /// The token's name.
    pub token: &'a str,
    /// The agent's name.
    pub name: &'a str,
    /// Its process; without it, the newest.
    pub instance: Option<[u8; 16]>,
}

/// An agent that may get an exchange.
struct Candidate {
    agent: Arc<Session>,
    handle: Handle,
    load: Arc<Load>,
}

/// Whose role at which endpoint is another now.
type Changes = Vec<(String, Epoch, Role)>;

/// A session that joins an endpoint.
struct Newcomer<'a> {
    epoch: Epoch,
    /// Its agent's name.
    name: &'a Arc<str>,
    /// An older session of the same agent, whose place it takes.
    predecessor: Option<&'a Arc<Session>>,
}

/// The attached agents of one relay.
pub(crate) struct Registry {
    state: Mutex<State>,
    changed: Notify,
    waiters: Semaphore,
    mirrors: Mirrors,
    /// A relay that has just started expects the agents of the one before it.
    started: Instant,
    clock: Clock,
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
    /// How many wait for an agent, by endpoint.
    awaited: HashMap<String, usize>,
    /// Breaks ties between equally free agents.
    turn: usize,
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
    probe: bool,
}

impl Reservation {
    pub(crate) fn agent(&self) -> &AgentIdentity {
        &self.agent.identity
    }

    /// What is behind it.
    pub(crate) fn target(&self) -> &Target {
        &self.counted.load.target
    }

    /// Whether its exchange is a probe, whose end must be told to the target.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe
    }

    pub(crate) fn open(self, head: RequestHead) -> Exchange {
        self.slot.open(head, Box::new(self.counted))
    }
}

/// What an agent is told of its offers, and whom its coming concerns.
pub(crate) struct Welcomed {
    /// The session's place.
    pub attached: Attached,
    /// The answers to the offers: the endpoint, or the code of a refusal.
    pub answers: Vec<Result<(String, Role), &'static str>>,
    /// Whether it stands by somewhere; [`Attached::contest`] is due [`PATIENCE`] later.
    pub contested: bool,
    /// An older session of the same agent that had drained, to be closed when it is idle.
    pub finishing: Option<Handle>,
    /// By what it was decided.
    pub policy: Arc<AttachPolicy>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(Clock::default())
    }
}

impl Registry {
    /// Nobody is attached yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            changed: Notify::new(),
            waiters: Semaphore::new(MAX_WAITERS),
            mirrors: Mirrors::default(),
            started: Instant::now(),
        }
    }

    /// The time, as circuits go by.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a session. An older one of the same agent is replaced; sessions of the same name in another process, and
    /// active ones that another one wants to relieve, are asked for a sign of life. `None` if the token was revoked since
    /// it was shown.
    pub(crate) fn attach(
        self: &Arc<Self>,
        identity: AgentIdentity,
        shown: Shown,
        offers: Vec<Offer>,
        now_ms: u64,
    ) -> Option<Welcomed> {
        let now = Instant::now();
        let mut state = self.lock();
        let policy = Arc::clone(&state.policy);
        policy.token(&shown.token.name, shown.secret)?;
        let epoch = now_ms.max(state.last_epoch + 1);
        state.last_epoch = epoch;
        let older: Vec<_> = state.sessions.values().filter(|other| other.identity == identity).cloned().collect();
        let mut changes = Changes::new();
        let (mut answers, mut offered) = (Vec::new(), Vec::<Offered>::new());
        for offer in offers {
            let (mut offer, admitted) = Offered::new(offer, &policy, &shown);
            offer.again = offered.iter().any(|other| other.endpoint == offer.endpoint);
            let admitted = if offer.again { Err("offered_twice") } else { admitted };
            answers.push(admitted.map(|grant| {
                let newcomer = Newcomer { epoch, name: &identity.name, predecessor: older.first() };
                let role = state.join(&newcomer, &grant, now, &mut changes);
                offer.accept(&mut state.targets, &identity, now);
                (grant.endpoint, role)
            }));
            offered.push(offer);
        }
        for older in &older {
            state.remove(older.epoch, now, &mut changes);
        }
        let session = Arc::new(Session::new(identity, shown, epoch, offered));
        state.sessions.insert(epoch, Arc::clone(&session));
        state.ask_about(&session);
        let contested = answers.iter().flatten().any(|(_, role)| *role == Role::Standby);
        state.tell(&changes);
        drop(state);
        let finishing = replace(&older);
        self.changed.notify_waiters();
        let attached = Attached { registry: Arc::clone(self), session };
        Some(Welcomed { attached, answers, contested, finishing, policy })
    }

    /// Tells every agent of an endpoint something.
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
        let now = Instant::now();
        let mut state = self.lock();
        state.policy = Arc::new(policy);
        let policy = Arc::clone(&state.policy);
        for session in state.sessions.values().cloned().collect::<Vec<_>>() {
            let (mut changes, mut kept) = (Changes::new(), false);
            for offer in session.offers.iter().filter(|offered| !offered.again) {
                let present = state.memberships.get(&*offer.endpoint).and_then(|members| members.wish(session.epoch));
                match policy.admit(&session.shown, offer.asked()) {
                    Ok(grant) => {
                        kept = true;
                        let stays = present.is_some_and(|wish| wish.attach == grant.wish.attach);
                        if stays {
                            state.set_exclusive(&grant, &mut changes);
                        } else if *grant.endpoint == *offer.endpoint && !session.drained.load(Ordering::Relaxed) {
                            state.leave(&offer.endpoint, session.epoch, now, &mut changes);
                            let (epoch, name) = (session.epoch, &session.identity.name);
                            let newcomer = Newcomer { epoch, name, predecessor: None };
                            state.join(&newcomer, &grant, now, &mut changes);
                            offer.accept(&mut state.targets, &session.identity, now);
                        }
                    }
                    Err(code) if present.is_some() => {
                        state.leave(&offer.endpoint, session.epoch, now, &mut changes);
                        session.tell(&offer.endpoint, OfferState::Refused { code: code.to_owned() });
                    }
                    Err(_) => {}
                }
            }
            state.tell(&changes);
            if !kept && let Some(handle) = session.handle.get() {
                handle.close(CloseCode::Unauthorized, REVOKED);
            }
        }
        drop(state);
        self.changed.notify_waiters();
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

    /// How many sessions are attached.
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
    /// A session joins an endpoint, in the place of its predecessor if that was there in the same way.
    fn join(&mut self, newcomer: &Newcomer<'_>, grant: &AttachGrant, now: Instant, changes: &mut Changes) -> Role {
        self.set_exclusive(grant, changes);
        let (epoch, predecessor) = (newcomer.epoch, newcomer.predecessor);
        let members = self.memberships.entry(grant.endpoint.clone()).or_default();
        if let Some(role) = predecessor.and_then(|older| members.succeed(older.epoch, epoch, grant.wish)) {
            changes.push((grant.endpoint.clone(), epoch, role));
            return role;
        }
        let joined = members.join(epoch, Arc::clone(newcomer.name), grant.wish, now);
        changes.extend(joined.into_iter().map(|(epoch, role)| (grant.endpoint.clone(), epoch, role)));
        members.role(epoch).unwrap_or(Role::Standby)
    }

    fn set_exclusive(&mut self, AttachGrant { endpoint, exclusive, .. }: &AttachGrant, changes: &mut Changes) {
        let changed = self.memberships.entry(endpoint.clone()).or_default().set_exclusive(*exclusive);
        changes.extend(changed.into_iter().map(|(epoch, role)| (endpoint.clone(), epoch, role)));
    }

    fn leave(&mut self, endpoint: &str, epoch: Epoch, now: Instant, changes: &mut Changes) {
        let left = self.memberships.get_mut(endpoint).map(|members| members.leave(epoch, now)).unwrap_or_default();
        changes.extend(left.into_iter().map(|(epoch, role)| (endpoint.to_owned(), epoch, role)));
    }

    /// A session takes nothing more, or is gone.
    fn withdraw(&mut self, epoch: Epoch, now: Instant, changes: &mut Changes) {
        let Some(session) = self.sessions.get(&epoch).map(Arc::clone) else { return };
        for offer in &session.offers {
            self.leave(&offer.endpoint, epoch, now, changes);
        }
    }

    fn remove(&mut self, epoch: Epoch, now: Instant, changes: &mut Changes) {
        self.withdraw(epoch, now, changes);
        self.sessions.remove(&epoch);
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

    fn tell(&self, changes: &Changes) {
        for (endpoint, epoch, role) in changes {
            if let Some(session) = self.sessions.get(epoch) {
                session.tell(endpoint, offer_state(*role));
            }
        }
    }
}

impl Attached {
    /// The session's epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.session.epoch
    }

    /// The welcome is sent: exchanges may come. Says what has changed since the answers were made, and closes what was
    /// replaced or lost its rights meanwhile.
    pub(crate) fn ready(&self, handle: Handle, answers: &[Result<(String, Role), &'static str>]) {
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
                (Some(now), ..) => self.session.tell(&offer.endpoint, offer_state(now)),
                (None, Ok((endpoint, _)), Err(code)) => {
                    self.session.tell(endpoint, OfferState::Refused { code: code.to_owned() });
                }
                (None, ..) => {}
            }
        }
        if !kept {
            return handle.close(CloseCode::Unauthorized, REVOKED);
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

    /// The agent gave a sign of life.
    pub(crate) fn answered(&self) {
        self.session.asked.store(false, Ordering::Relaxed);
        self.session.doubted.store(false, Ordering::Relaxed);
        let mut state = self.registry.lock();
        state.memberships.values_mut().for_each(|members| members.answered(self.session.epoch));
        drop(state);
        self.registry.changed.notify_waiters();
    }

    /// The agent takes nothing more: those that stand by take its place.
    pub(crate) fn draining(&self) {
        let mut state = self.registry.lock();
        self.session.drained.store(true, Ordering::Relaxed);
        let mut changes = Changes::new();
        state.withdraw(self.session.epoch, Instant::now(), &mut changes);
        state.tell(&changes);
        drop(state);
        self.registry.changed.notify_waiters();
    }

    /// Where this session stands by: the active ones that were asked and have not answered make room.
    pub(crate) fn contest(&self) {
        let mut state = self.registry.lock();
        let asked = |session: &&Arc<Session>| session.asked.load(Ordering::Relaxed);
        let silent: Vec<Epoch> = state.sessions.values().filter(asked).map(|session| session.epoch).collect();
        let mut changes = Changes::new();
        for (endpoint, members) in &mut state.memberships {
            let yielded = members.yield_to(self.session.epoch, &silent);
            changes.extend(yielded.into_iter().map(|(epoch, role)| (endpoint.clone(), epoch, role)));
        }
        state.tell(&changes);
        drop(state);
        self.registry.changed.notify_waiters();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        let mut changes = Changes::new();
        state.remove(self.session.epoch, Instant::now(), &mut changes);
        state.tell(&changes);
        drop(state);
        self.registry.changed.notify_waiters();
    }
}
