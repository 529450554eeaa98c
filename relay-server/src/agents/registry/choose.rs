//! Who gets the next exchange: of those that serve an endpoint and take its type, whose rate is not used up and whose
//! target is not left alone, the one with the most capacity left.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use relay_proto::{CANARY_ENDPOINT, OpenError, RequestHead};
use tokio::time::Instant;

use super::{
    super::{
        attach_policy::hide_lines,
        event_filter::EventFilter,
        membership::{Epoch, Membership, Role},
        mirror::MirrorWriter,
        token::Right,
    },
    AgentIdentity, AgentSelector, Candidate, Counted, Load, Registry, Reservation, Session, State,
    session::canary_kind,
};
use crate::{
    failure::{AgentFault, Failure, RelayFault},
    retry::Gate,
};

/// What is said where nobody knows how long.
pub(super) const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

/// Whether an agent whose target fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circuits {
    /// It is not: a sender waits, and has to learn of the failure.
    Ignored,
    /// It is: the event is kept, and can wait.
    Respected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChooseError {
    /// None is attached that could.
    NoAgent,
    Unwanted,
    Busy,
    /// Their rates are used up, or their targets are left alone.
    Limited {
        wait: Duration,
    },
}

impl From<ChooseError> for Failure {
    fn from(why: ChooseError) -> Self {
        match why {
            ChooseError::NoAgent => AgentFault::Absent.into(),
            ChooseError::Unwanted => AgentFault::Unwanted.into(),
            ChooseError::Busy => AgentFault::Busy.into(),
            ChooseError::Limited { wait } => RelayFault::Limited { wait: Some(wait) }.into(),
        }
    }
}

pub(crate) struct AttachedAgent {
    pub identity: AgentIdentity,
    pub role: Role,
}

/// A session that answers canaries.
pub(crate) struct CanaryAgent {
    pub identity: AgentIdentity,
    epoch: Epoch,
}

impl CanaryAgent {
    /// The type of what is for this session alone.
    pub(crate) fn kind(&self) -> String {
        canary_kind(self.epoch)
    }
}

const MAX_SHOWN: usize = 100;

impl Registry {
    /// A right to an exchange with the freest agent of an endpoint that takes events of this type.
    pub(crate) fn reserve(
        &self,
        endpoint: &str,
        kind: Option<&str>,
        circuits: Circuits,
    ) -> Result<Reservation, ChooseError> {
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn;
        let members = state.memberships.get(endpoint);
        let may_be_watched = members.is_some_and(|members| members.epochs(Role::Copy).next().is_some());
        let mut candidates = state.among(members, endpoint, Role::Active, |filter| filter.takes(kind));
        if candidates.is_empty() && state.promote_copy(endpoint) {
            candidates = state.at(endpoint, Role::Active, kind);
        }
        let others = candidates.is_empty() && state.serves_others(endpoint, kind);
        drop(state);
        if candidates.is_empty() {
            return Err(if others { ChooseError::Unwanted } else { ChooseError::NoAgent });
        }
        // The clock is for circuits alone.
        let respected = (circuits == Circuits::Respected).then(|| self.clock.now());
        let first = turn % candidates.len();
        candidates.rotate_left(first);
        // A target that is to be probed comes first, or others would keep it from ever coming back.
        let probes = |load: &Load| respected.is_some_and(|today| load.target.gate(today) == Gate::Probe);
        candidates.sort_by_key(|Candidate { load, .. }| {
            (!probes(load), load.in_flight.load(Ordering::Relaxed) - load.capacity)
        });
        let (mut failure, mut held_back) = (ChooseError::NoAgent, None);
        for Candidate { agent, handle, load } in candidates {
            if let Err(wait) = load.room(respected) {
                held_back = Some(shorter(held_back, wait.unwrap_or(UNKNOWN_WAIT)));
                continue;
            }
            let Some(counted) = Counted::new(Arc::clone(&load)) else {
                failure = ChooseError::Busy;
                continue;
            };
            match handle.reserve() {
                Ok(slot) => match load.take(respected) {
                    Ok(is_probe) => {
                        return Ok(Reservation { slot, agent, counted, is_probe, may_be_watched, was_awaited: false });
                    }
                    Err(wait) => held_back = Some(shorter(held_back, wait)),
                },
                Err(OpenError::Busy) => failure = ChooseError::Busy,
                Err(_) => {}
            }
            counted.withdraw();
        }
        match held_back {
            Some(wait) if failure == ChooseError::NoAgent => Err(ChooseError::Limited { wait }),
            _ => Err(failure),
        }
    }

    /// A right to an exchange with one agent, whatever it is to the endpoint: the newest of its sessions there.
    pub(crate) fn reserve_for(&self, endpoint: &str, selector: &AgentSelector<'_>) -> Result<Reservation, ChooseError> {
        let state = self.lock();
        let members = state.memberships.get(endpoint).ok_or(ChooseError::NoAgent)?;
        let selected = |session: &&Arc<Session>| {
            let AgentIdentity { token, name, instance } = &session.identity;
            &**name == selector.name
                && selector.token.is_none_or(|filter| filter == &**token)
                && selector.instance.is_none_or(|filter| filter == *instance)
                && members.role(session.epoch).is_some()
        };
        let mut failure = ChooseError::NoAgent;
        for agent in state.sessions.values().rev().filter(selected) {
            let load = agent.offered(endpoint).and_then(|offered| offered.load.get());
            let (Some(handle), Some(load)) = (agent.handle.get(), load) else { continue };
            let Some(counted) = Counted::new(Arc::clone(load)) else {
                failure = ChooseError::Busy;
                continue;
            };
            match handle.reserve() {
                Ok(slot) => {
                    let agent = Arc::clone(agent);
                    let (is_probe, may_be_watched, was_awaited) = (false, true, false);
                    return Ok(Reservation { slot, agent, counted, is_probe, may_be_watched, was_awaited });
                }
                Err(OpenError::Busy) => failure = ChooseError::Busy,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Whether an agent's token may serve the endpoint, and its agent see what lets the endpoint's senders in.
    pub(crate) fn may_serve(&self, endpoint: &str, place: &Reservation) -> bool {
        self.lock().policy.may(Right::Attach, endpoint, &place.agent.shown)
    }

    /// Exchanges of kept events that the agents of an endpoint would take now: at least one, at most `most`.
    ///
    /// # Errors
    /// How long none of them will, where that is known.
    pub(crate) fn free(&self, endpoint: &str, most: usize) -> Result<usize, Option<Duration>> {
        let agents = self.roused(endpoint);
        let today = self.clock.now();
        let (mut free, mut wait) = (0, None);
        for load in agents {
            match load.room(Some(today)) {
                Ok(room) => {
                    let capacity = load.capacity - load.in_flight.load(Ordering::Relaxed);
                    free += capacity.clamp(0, i64::from(room));
                }
                Err(until) => wait = until.map(|until| shorter(wait, until)).or(wait),
            }
        }
        match usize::try_from(free).unwrap_or(0).min(most) {
            0 => Err(wait),
            free => Ok(free),
        }
    }

    /// Whether agents are there and none of them takes an exchange now: it has as many as it takes at a time, its rate
    /// is used up, or a failing target is left alone.
    pub(crate) fn held_back(&self, endpoint: &str) -> bool {
        let agents = self.roused(endpoint);
        let today = self.clock.now();
        !agents.is_empty() && agents.iter().all(|load| load.is_full() || load.room(Some(today)).is_err())
    }

    /// When one of an endpoint's agents is tried again, where all of their handlers failed so often that they are left
    /// alone.
    pub(crate) fn left_alone_until(&self, endpoint: &str) -> Option<Timestamp> {
        let agents = self.lock().serving(endpoint);
        let all: Option<Vec<_>> = agents.iter().map(|load| load.target.open_until()).collect();
        all?.into_iter().min()
    }

    fn roused(&self, endpoint: &str) -> Vec<Arc<Load>> {
        let mut state = self.lock();
        let agents = state.serving(endpoint);
        if agents.is_empty() && state.promote_copy(endpoint) { state.serving(endpoint) } else { agents }
    }

    pub(crate) fn serving(&self, endpoint: &str) -> usize {
        self.lock().serving(endpoint).len()
    }

    pub(crate) fn attached(&self, endpoint: &str) -> Vec<AttachedAgent> {
        let state = self.lock();
        let Some(members) = state.memberships.get(endpoint) else { return Vec::new() };
        let one = |epoch| {
            let (session, role) = (state.sessions.get(&epoch)?, members.role(epoch)?);
            Some(AttachedAgent { identity: session.identity.clone(), role })
        };
        members.all().filter_map(one).take(MAX_SHOWN).collect()
    }

    /// The sessions that answer canaries and take exchanges.
    pub(crate) fn canaries(&self) -> Vec<CanaryAgent> {
        let state = self.lock();
        let candidates = state.candidates(CANARY_ENDPOINT, Role::Active, |_| true);
        let one = |candidate: Candidate| {
            let (identity, epoch) = (candidate.agent.identity.clone(), candidate.agent.epoch);
            CanaryAgent { identity, epoch }
        };
        candidates.into_iter().map(one).collect()
    }

    /// Ends when an agent came, left, or stands otherwise than before.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Begins copies of an exchange for those that only watch; `None` where nobody does.
    pub(crate) fn mirror(
        &self,
        endpoint: &str,
        kind: Option<&str>,
        head: impl FnOnce() -> RequestHead,
    ) -> Option<MirrorWriter> {
        let state = self.lock();
        let watching = state.at(endpoint, Role::Copy, kind);
        let policy = Arc::clone(&state.policy);
        drop(state);
        if watching.is_empty() {
            return None;
        }
        let head = head();
        // Who may only read sees the webhook, and not what lets its sender in.
        let mut without = head.clone();
        hide_lines(&mut without, policy.describe(endpoint).map_or(&[][..], |it| &it.credential_headers[..]));
        let open = |Candidate { agent, handle, load }| {
            let serves = policy.may(Right::Attach, endpoint, &agent.shown);
            let head = if serves { &head } else { &without };
            let dropped = self.mirrors.count_of(&agent.dropped_copies);
            let Some((counted, slot)) = Counted::new(load).zip(handle.reserve().ok()) else {
                dropped.count();
                return None;
            };
            Some((slot.open(head.clone(), Box::new(counted)), dropped))
        };
        Some(self.mirrors.begin(watching.into_iter().filter_map(open)))
    }

    pub(crate) fn dropped_copies(&self) -> u64 {
        self.mirrors.dropped()
    }
}

fn shorter(one: Option<Duration>, other: Duration) -> Duration {
    one.map_or(other, |one| one.min(other))
}

impl State {
    fn sessions_at(&self, endpoint: &str, role: Role) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions_among(self.memberships.get(endpoint), role)
    }

    fn sessions_among(&self, members: Option<&Membership>, role: Role) -> impl Iterator<Item = &Arc<Session>> {
        let epochs = members.into_iter().flat_map(move |members| members.epochs(role));
        epochs.filter_map(|epoch| self.sessions.get(&epoch))
    }

    /// Whether agents serve here, and none of them takes events of this type.
    fn serves_others(&self, endpoint: &str, kind: Option<&str>) -> bool {
        let offers = self.sessions_at(endpoint, Role::Active).filter_map(|session| session.offered(endpoint));
        let mut takes = offers.map(|offered| offered.filter.takes(kind)).peekable();
        takes.peek().is_some() && !takes.any(|takes| takes)
    }

    /// The sessions of this role that take exchanges with events of this type.
    pub(super) fn at(&self, endpoint: &str, role: Role, kind: Option<&str>) -> Vec<Candidate> {
        self.candidates(endpoint, role, |filter| filter.takes(kind))
    }

    /// The loads of all that serve an endpoint, whatever types they take.
    fn serving(&self, endpoint: &str) -> Vec<Arc<Load>> {
        self.candidates(endpoint, Role::Active, |_| true).into_iter().map(|candidate| candidate.load).collect()
    }

    fn candidates(&self, endpoint: &str, role: Role, takes: impl Fn(&EventFilter) -> bool) -> Vec<Candidate> {
        self.among(self.memberships.get(endpoint), endpoint, role, takes)
    }

    /// Of an endpoint's members.
    fn among(
        &self,
        members: Option<&Membership>,
        endpoint: &str,
        role: Role,
        takes: impl Fn(&EventFilter) -> bool,
    ) -> Vec<Candidate> {
        let ready = self.sessions_among(members, role).filter(|session| !session.doubted.load(Ordering::Relaxed));
        let candidate = |agent: &Arc<Session>| {
            let handle = agent.handle.get().filter(|handle| handle.takes_exchanges())?.clone();
            let offered = agent.offered(endpoint).filter(|offered| takes(&offered.filter))?;
            Some(Candidate { agent: Arc::clone(agent), handle, load: Arc::clone(offered.load.get()?) })
        };
        ready.filter_map(candidate).collect()
    }

    /// True when somebody serves an endpoint now that nobody else did.
    fn promote_copy(&mut self, endpoint: &str) -> bool {
        let promoted = self.update(endpoint, |members| members.promote_copy(Instant::now()));
        self.notify_changes();
        promoted
    }
}
