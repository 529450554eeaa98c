//! The registry for people: every session with its standings, and those that ended within a day.
//!
//! Bounds: [`MAX_GONE`] sessions that ended, of which the oldest give way.

use std::{collections::VecDeque, net::IpAddr, sync::atomic::Ordering};

use jiff::{SignedDuration, Timestamp};
use relay_program::api::{AgentEndpoint, AgentRow};
use relay_proto::CloseCode;
use relay_tunnel::Handle;
use uuid::Uuid;

use super::{AgentIdentity, Attached, Registry, Session, State};
use crate::agents::membership::{Epoch, Role};

const MAX_GONE: usize = 256;
const GONE_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Text of an agent's hello that is kept for people, in characters.
const MAX_TEXT: usize = 200;

/// What is known of a session beside what it offered.
#[derive(Debug, Default)]
pub(super) struct SessionFacts {
    software: String,
    address: String,
    gone_why: String,
    /// Whether neither side meant it to end.
    broke: bool,
}

/// A session that ended.
pub(super) struct GoneAgent {
    at: Timestamp,
    row: AgentRow,
    broke: bool,
}

pub(super) type GoneAgents = VecDeque<GoneAgent>;

impl Attached {
    /// Notes what people want to know of its agent.
    pub(crate) fn describe(&self, software: &str, address: IpAddr) {
        let mut facts = self.session.facts.lock();
        facts.software = software.chars().take(MAX_TEXT).collect();
        facts.address = address.to_string();
    }

    /// Notes why it ends. One that was drained before was meant to.
    pub(crate) fn ends(&self, code: CloseCode, why: &str) {
        use CloseCode::{
            GoingAway, HeartbeatTimeout, Internal, Normal, ProtocolError, Refused, Replaced, Unauthorized,
        };
        let broke = match code {
            GoingAway | HeartbeatTimeout | Internal | ProtocolError => !self.session.drained.load(Ordering::Relaxed),
            Normal | Refused | Replaced | Unauthorized => false,
        };
        let mut facts = self.session.facts.lock();
        (facts.gone_why, facts.broke) = (why.chars().take(MAX_TEXT).collect(), broke);
    }
}

impl Registry {
    /// Those who are attached, and those who went.
    pub(crate) fn roster(&self) -> (Vec<AgentRow>, Vec<AgentRow>) {
        let (mut state, now) = (self.lock(), self.now());
        state.gone.retain(|gone| now.duration_since(gone.at) < GONE_FOR);
        let agents = state.sessions.values().map(|session| state.row(session)).collect();
        let gone = state.gone.iter().rev().map(|gone| gone.row.clone()).collect();
        (agents, gone)
    }

    /// Whether an agent is away whose last session broke, as far as that is remembered.
    pub(crate) fn is_lost(&self, token: &str, name: &str) -> bool {
        let (state, now) = (self.lock(), self.now());
        let is_it = |identity: &AgentIdentity| &*identity.token == token && &*identity.name == name;
        let of_it = state.gone.iter().rev().find(|gone| gone.row.token == token && gone.row.name == name);
        !state.sessions.values().any(|session| is_it(&session.identity))
            && of_it.is_some_and(|gone| gone.broke && now.duration_since(gone.at) < GONE_FOR)
    }

    /// Ends a session; whether there was one.
    pub(crate) fn disconnect(&self, epoch: Epoch) -> bool {
        let state = self.lock();
        let Some(session) = state.sessions.get(&epoch) else { return false };
        let Some(handle) = session.handle.get() else { return false };
        session.drained.store(true, Ordering::Relaxed);
        handle.close(CloseCode::GoingAway, "an operator of the relay disconnected it");
        true
    }
}

impl State {
    /// Remembers a session that is about to leave.
    pub(super) fn note_gone(&mut self, session: &Session, now: Timestamp) {
        if !self.sessions.contains_key(&session.epoch) {
            return;
        }
        let row = self.row(session);
        let (why, broke) = {
            let facts = session.facts.lock();
            (facts.gone_why.clone(), facts.broke)
        };
        let row = AgentRow { gone_at: Some(now.to_string()), gone_why: Some(why), in_flight: 0, ..row };
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(GoneAgent { at: now, row, broke });
    }

    fn row(&self, session: &Session) -> AgentRow {
        let standing = |endpoint: &str| {
            match self.memberships.get(endpoint).and_then(|members| members.role(session.epoch)) {
                Some(Role::Active) => "active",
                Some(Role::Standby) => "standby",
                Some(Role::Copy) => "copy",
                None => "refused",
            }
            .to_owned()
        };
        let endpoints: Vec<_> = session
            .offers
            .iter()
            .filter(|offered| !offered.again && !offered.is_canary())
            .map(|offered| {
                let load = offered.load.get();
                let in_flight = load.map_or(0, |load| load.in_flight.load(Ordering::Relaxed));
                AgentEndpoint {
                    name: offered.endpoint.to_string(),
                    standing: standing(&offered.endpoint),
                    in_flight: u64::try_from(in_flight).unwrap_or(0),
                    capacity: load
                        .map(|load| load.capacity)
                        .filter(|capacity| *capacity < i64::from(u32::MAX))
                        .and_then(|it| u64::try_from(it).ok()),
                    circuit_until: load.and_then(|load| load.target.open_until()).map(|until| until.to_string()),
                }
            })
            .collect();
        let link = session.handle.get().and_then(Handle::round_trip);
        let facts = session.facts.lock();
        let since = i64::try_from(session.epoch).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        AgentRow {
            session: session.epoch,
            name: session.identity.name.to_string(),
            instance: Uuid::from_bytes(session.identity.instance).to_string(),
            token: session.identity.token.to_string(),
            version: facts.software.clone(),
            address: facts.address.clone(),
            // An epoch is the relay's clock at the hello, or a moment later.
            since: since.map(|at| at.to_string()).unwrap_or_default(),
            in_flight: endpoints.iter().map(|endpoint| endpoint.in_flight).sum(),
            link_us: link.map(|link| u64::try_from(link.as_micros()).unwrap_or(u64::MAX)),
            dropped_copies: session.dropped_copies.load(Ordering::Relaxed),
            endpoints,
            ..AgentRow::default()
        }
    }
}
