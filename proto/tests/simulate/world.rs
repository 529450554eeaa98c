//! One history: the tunnels, the users on both sides, and virtual time.
//!
//! The loop takes whoever is due next and lets it act. Nothing else moves time, and nothing but the seed
//! decides. After everything that was planned has ended, the tunnel must be quiet, live by its heartbeat
//! alone, and close.

use relay_proto::{CloseCode, Instant, Limits, Mutant, Notice, OfferState};

use crate::{
    agenda::{Actor, Agenda, Slot},
    exchange::{Exchange, Over},
    hostile::Tamper,
    link::Pipe,
    plan::{Happening, Plan, Side},
    rng::Rng,
    trace::Trace,
    tunnel::Tunnel,
    webhooks::{Survivor, Webhook},
};

/// Virtual time without any progress after which a history is stuck: longer than every wait in it.
const STUCK: u64 = 200_000_000;

/// The same where a hostile peer may well have stopped everything.
const GIVEN_UP: u64 = 20_000_000;

const MAX_STEPS: u64 = 400_000;

/// How often things happened that a history ought to try.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) exchanges: u64,
    pub(crate) whole: u64,
    pub(crate) resets: u64,
    pub(crate) broken_off: u64,
    pub(crate) upgrades: u64,
    pub(crate) early: u64,
    pub(crate) sessions: u64,
    pub(crate) replaced: u64,
    pub(crate) dead: u64,
    pub(crate) refused_peers: u64,
    pub(crate) settled_by_outcome: u64,
    pub(crate) stale_outcomes: u64,
    pub(crate) probes: u64,
    pub(crate) states: u64,
    pub(crate) drains: u64,
}

impl Seen {
    fn each(&mut self) -> [(&'static str, &mut u64); 15] {
        [
            ("exchanges", &mut self.exchanges),
            ("whole", &mut self.whole),
            ("resets", &mut self.resets),
            ("broken_off", &mut self.broken_off),
            ("upgrades", &mut self.upgrades),
            ("early", &mut self.early),
            ("sessions", &mut self.sessions),
            ("replaced", &mut self.replaced),
            ("dead", &mut self.dead),
            ("refused_peers", &mut self.refused_peers),
            ("settled_by_outcome", &mut self.settled_by_outcome),
            ("stale_outcomes", &mut self.stale_outcomes),
            ("probes", &mut self.probes),
            ("states", &mut self.states),
            ("drains", &mut self.drains),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = *other;
        for ((_, sum), (_, more)) in self.each().into_iter().zip(other.each()) {
            *sum += *more;
        }
    }

    /// A simulation in which something never happens shows nothing about it.
    pub(crate) fn must_have_everything(mut self) -> Result<(), String> {
        match self.each().into_iter().find(|(_, times)| **times == 0) {
            Some((what, _)) => Err(format!("no history had any {what}")),
            None => Ok(()),
        }
    }
}

pub(crate) struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) honest: bool,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) seen: Seen,
    pub(crate) now: u64,
    pub(crate) agenda: Agenda,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) exchanges: Vec<Exchange>,
    /// Of each exchange its users' places on the agenda.
    pub(crate) users: Vec<[Slot; 2]>,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) survivors: Vec<Survivor>,
    pub(crate) fence: u64,
    pub(crate) epoch: u64,
    pub(crate) connect: Slot,
    /// Sessions of the agent that ended since one was welcome.
    pub(crate) failures: u32,
    happening: Slot,
    happened: usize,
    pub(crate) frozen: [u64; 2],
    /// A link or a process was held up: the heartbeat may rightly call a peer dead.
    pub(crate) disturbed: bool,
    pub(crate) progress: u64,
    pub(crate) tamper: Option<Tamper>,
    /// The history ends: nobody connects again.
    pub(crate) ending: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(plan: &'a Plan, mutant: Option<Mutant>, print: bool) -> Self {
        let mut agenda = Agenda::default();
        let (connect, happening) = (agenda.add(Actor::Connect), agenda.add(Actor::Happening));
        agenda.set(connect, Some(0));
        agenda.set(happening, plan.happenings.first().map(|(at, _)| *at));
        let scripts = plan.scripts.iter().enumerate();
        let webhooks = scripts.map(|(number, script)| Webhook::new(number, *script, &mut agenda)).collect();
        Self {
            plan,
            mutant,
            honest: plan.hostile.is_none(),
            rng: Rng::new(plan.seed, 3),
            trace: Trace::new(print),
            seen: Seen::default(),
            now: 0,
            agenda,
            tunnels: Vec::new(),
            exchanges: Vec::new(),
            users: Vec::new(),
            webhooks,
            survivors: Vec::new(),
            fence: 0,
            epoch: 0,
            connect,
            failures: 0,
            happening,
            happened: 0,
            frozen: [0; 2],
            disturbed: false,
            progress: 0,
            tamper: plan.hostile.map(|hostile| Tamper::new(hostile, plan.seed)),
            ending: false,
        }
    }

    /// Runs the history. Whatever does not hold is a panic.
    pub(crate) fn run(&mut self) {
        while !self.is_done() {
            let patience = if self.honest { STUCK } else { GIVEN_UP };
            if self.now > self.progress + patience || (!self.honest && self.tunnels.len() > 6) {
                assert!(!self.honest, "stuck: {}", self.unfinished());
                break;
            }
            self.step();
        }
        if self.honest {
            self.fall_silent();
            self.idle();
        }
        self.close();
        self.check_end();
    }

    fn step(&mut self) {
        assert!(self.trace.steps < MAX_STEPS, "no end in sight: {}", self.unfinished());
        let Some((due, slot, actor)) = self.agenda.next() else { panic!("nobody acts: {}", self.unfinished()) };
        self.now = self.now.max(due);
        if let Some(side) = side_of(actor)
            && self.frozen[side as usize] > self.now
        {
            // What waits in the socket comes before the timer.
            let last = u64::from(matches!(actor, Actor::Timer(..)));
            return self.agenda.set(slot, Some(self.frozen[side as usize] + last));
        }
        match actor {
            Actor::Webhook(number) => self.try_webhook(number),
            Actor::Exchange(number, side) => self.act(number, side),
            Actor::Handler(number) => self.handler_ended(number),
            Actor::Deliver(tunnel, side) => self.deliver(tunnel, side),
            Actor::Flush(tunnel, side) => self.flush(tunnel, side),
            Actor::Timer(tunnel, side) => self.look_at_clock(tunnel, side),
            Actor::Welcome(tunnel) => self.welcome(tunnel),
            Actor::CloseIdle(tunnel, side) => self.close_if_idle(tunnel, side),
            Actor::Happening => self.happen(),
            Actor::Connect => self.connect(),
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    pub(crate) fn limits(&self, side: Side) -> &'a Limits {
        &self.plan.limits[side as usize]
    }

    /// A turn of an exchange's user.
    pub(crate) fn act(&mut self, number: usize, side: Side) {
        let exchange = &mut self.exchanges[number];
        let tunnel = exchange.tunnel;
        let before = exchange.over[side as usize];
        let end = &mut self.tunnels[tunnel].ends[side as usize];
        if end.closed {
            return;
        }
        let next = exchange.act(side, &mut end.session, self.now);
        let after = exchange.over[side as usize];
        self.trace.step(self.now, tunnel, side, number as u64, format_args!("user of exchange {number}: {after:?}"));
        self.agenda.set(self.users[number][side as usize], next);
        self.progress = self.now;
        if before == Over::No && after != Over::No {
            self.exchange_over(number, side);
        }
        self.settle(tunnel, side);
    }

    /// The tunnel that carries new exchanges: the newest that is open at the relay and not to stop.
    pub(crate) fn current(&self) -> Option<usize> {
        self.tunnels.iter().rposition(|tunnel| {
            let relay = &tunnel.ends[Side::Relay as usize];
            relay.session.is_open() && !relay.session.is_draining()
        })
    }

    fn happen(&mut self) {
        let (_, happening) = self.plan.happenings[self.happened];
        self.happened += 1;
        let next = self.plan.happenings.get(self.happened).map(|(at, _)| (*at).max(self.now));
        self.agenda.set(self.happening, next);
        self.progress = self.now;
        let Some(tunnel) = self.tunnels.len().checked_sub(1) else { return };
        self.trace.step(self.now, tunnel, Side::Relay, 0, format_args!("{happening:?}"));
        match happening {
            Happening::Stall(side, span) => {
                self.disturbed = true;
                let until = self.now + span;
                self.tunnels[tunnel].pipes[side as usize].stall(until);
            }
            Happening::Freeze(side, span) => {
                self.disturbed = true;
                self.frozen[side as usize] = self.now + span;
            }
            Happening::Cut(side, bytes) => {
                self.disturbed = true;
                self.tunnels[tunnel].pipes[side as usize].cut_after(bytes);
                self.break_if_cut(tunnel, side);
            }
            Happening::Silence(side, bytes, both) => {
                self.disturbed = true;
                let pipes = &mut self.tunnels[tunnel].pipes;
                pipes[side as usize].mute_after(bytes);
                pipes[side.other() as usize].silent |= both;
            }
            Happening::Abandon => self.abandon(tunnel),
            Happening::Drain(side) => self.drain(tunnel, side),
            Happening::Close(side) => {
                let code = [CloseCode::Normal, CloseCode::GoingAway, CloseCode::Internal][(self.now % 3) as usize];
                self.tunnels[tunnel].ends[side as usize].session.close(code, "as planned");
                self.settle(tunnel, side);
            }
            Happening::Probe(side) => self.probe(tunnel, side),
            Happening::Notice(kind) => self.notify(tunnel, kind),
        }
    }

    fn probe(&mut self, tunnel: usize, side: Side) {
        let end = &mut self.tunnels[tunnel].ends[side as usize];
        if end.session.is_open() {
            end.session.probe();
            // What is sent from now on has the question in it.
            end.probe = Some(None);
            self.settle(tunnel, side);
        }
    }

    fn notify(&mut self, tunnel: usize, kind: u8) {
        let relay = &mut self.tunnels[tunnel].ends[Side::Relay as usize];
        if !relay.session.is_open() {
            return;
        }
        for number in 0..kind {
            relay.session.notify(Notice::Text(number.to_string()));
        }
        let states = [OfferState::Accepted, OfferState::Standby, OfferState::Copy];
        let state = states[usize::from(kind) % states.len()].clone();
        let endpoint = if kind.is_multiple_of(2) { "github" } else { "stripe" };
        relay.session.notify(Notice::Changed { endpoint: endpoint.into(), state: state.clone() });
        relay.states.insert(endpoint.to_owned(), state);
        for number in 0..kind {
            relay.session.notify(Notice::Text(number.to_string()));
        }
        self.settle(tunnel, Side::Relay);
    }

    fn is_done(&self) -> bool {
        self.happened == self.plan.happenings.len()
            && self.webhooks.iter().all(Webhook::is_done)
            && self.exchanges.iter().all(|exchange| {
                let unseen = !exchange.halves[Side::Relay as usize].head_seen;
                exchange.is_over(Side::Relay) && (exchange.is_over(Side::Agent) || unseen)
            })
            && !self.survivors.iter().any(Survivor::is_running)
    }

    /// Lets old sessions die and the newest come to rest.
    fn fall_silent(&mut self) {
        let began = self.now;
        self.tunnels.iter_mut().flat_map(|tunnel| &mut tunnel.pipes).for_each(Pipe::heal);
        while !self.is_silent() {
            assert!(self.now < began + STUCK, "no rest: {}", self.unfinished());
            self.step();
        }
        let last = self.tunnels.len() - 1;
        for side in Side::BOTH {
            self.check_quiet(last, side);
        }
    }

    fn is_silent(&self) -> bool {
        let Some((newest, older)) = self.tunnels.split_last() else { return false };
        let idle = |slot| !self.agenda.is_set(slot);
        self.is_done()
            && older.iter().all(Tunnel::is_closed)
            && newest.is_open()
            && newest.pipes.iter().all(|pipe| pipe.is_empty() && !pipe.is_troubled(self.now))
            && self.frozen.iter().all(|until| *until <= self.now)
            && newest.ends.iter().all(|end| idle(end.flush) && !end.session.is_draining())
            && self.users.iter().flatten().all(|slot| idle(*slot))
            && idle(self.connect)
    }

    /// Nothing is to do: the session lives by its pings.
    fn idle(&mut self) {
        let tunnel = self.tunnels.len() - 1;
        let until = self.now + 3 * self.limits(Side::Relay).ping_after.as_micros() as u64;
        let before = self.trace.steps;
        while self.now < until {
            self.step();
        }
        assert!(self.tunnels[tunnel].is_open(), "an idle session died");
        let steps = self.trace.steps - before;
        assert!(steps < 6_000, "an idle session took {steps} steps");
    }

    fn close(&mut self) {
        self.ending = true;
        let first = self.rng.pick(&Side::BOTH);
        for tunnel in 0..self.tunnels.len() {
            let sides = if self.honest { vec![first] } else { Side::BOTH.to_vec() };
            for side in sides {
                self.tunnels[tunnel].ends[side as usize].session.close(CloseCode::Normal, "done");
                self.settle(tunnel, side);
            }
        }
        let began = self.now;
        while !self.tunnels.iter().all(Tunnel::is_closed) {
            assert!(self.now < began + STUCK, "a session does not close");
            self.step();
        }
    }

    /// What has not ended, for whoever reads a failure.
    fn unfinished(&self) -> String {
        let open = self.exchanges.iter().enumerate().filter(|(_, exchange)| exchange.over.contains(&Over::No));
        let open: Vec<_> = open.map(|(number, exchange)| format!("{number}: {exchange:?}")).take(3).collect();
        let tunnels: Vec<_> = self.tunnels.iter().map(|tunnel| tunnel.ends.each_ref().map(|end| end.closed)).collect();
        let waiting = self.webhooks.iter().filter(|webhook| !webhook.is_done()).count();
        format!("{waiting} webhooks wait, sessions closed: {tunnels:?}, exchanges: {}", open.join("; "))
    }
}

fn side_of(actor: Actor) -> Option<Side> {
    match actor {
        Actor::Exchange(_, side)
        | Actor::Deliver(_, side)
        | Actor::Flush(_, side)
        | Actor::Timer(_, side)
        | Actor::CloseIdle(_, side) => Some(side),
        Actor::Webhook(_) | Actor::Welcome(_) => Some(Side::Relay),
        Actor::Handler(_) | Actor::Connect => Some(Side::Agent),
        Actor::Happening => None,
    }
}
